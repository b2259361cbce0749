"""Published tables, and whether a raw file is scored as the run has scored it."""

from pathlib import Path

import pandas as pd
import pytest

from datasets import load_dataset
from dml.estate.platform import Platform
from stacks.outputs import database_output
from tests.command import run_dml


def parquet(platform: Platform, location: str, folder: Path) -> pd.DataFrame:
    """A published table, read from S3."""
    bucket, _, prefix = location.removeprefix("s3://").partition("/")
    parts = []
    for entry in platform.s3.list_objects_v2(Bucket=bucket, Prefix=prefix)["Contents"]:
        if entry["Key"].endswith(".parquet"):
            platform.s3.download_file(bucket, entry["Key"], str(folder / "part.parquet"))
            parts.append(pd.read_parquet(folder / "part.parquet"))
    return pd.concat(parts)


def assert_scored_as_by_the_run(
    name: str, file: Path, platform: Platform, env: str, capsys: pytest.CaptureFixture[str], folder: Path
) -> None:
    """`dml predict FILE` on a dataset's raw file says, to the last bit, what its table `predictions` says."""
    settings, scored = load_dataset(name), folder / "scored.csv"
    with pytest.MonkeyPatch.context() as patch:
        options = ("--dataset", name, "--local", "--env", env, "-o", str(scored))
        code, _, err = run_dml(patch, capsys, "predict", str(file), *options)
    assert code == 0, err
    database = platform.output(database_output(name))
    table = platform.client("glue").get_table(DatabaseName=database, Name="predictions")["Table"]
    expected = parquet(platform, table["StorageDescriptor"]["Location"], folder).set_index([*settings.keys])
    found = pd.read_csv(scored, sep=settings.tables[settings.main].delimiter, float_precision="round_trip")
    expected.index = pd.MultiIndex.from_arrays([expected.index.get_level_values(key).map(str) for key in settings.keys])
    found.index = pd.MultiIndex.from_arrays([found.pop(key).map(str) for key in settings.keys])
    assert len(found) == len(expected) > 300
    compared = set(found.columns) & {"probability", "prediction"}
    assert compared
    for column in compared:
        assert (found[column] == expected[column].reindex(found.index)).all(), column
