"""The entry scripts: their arguments, what they read out of the code zip, and how they end when they fail."""

import importlib
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

from datasets import load_dataset, prepare_sql
from jobs import predict, prepare, train
from jobs.errors import JobError
from jobs.tables import settings

ROOT = Path(__file__).parents[2]
ARGUMENTS = ["--dataset", "d", "--database", "b", "--lake", "s3://l/", "--models", "s3://m/", "--table", "features"]
ARGUMENTS += ["--run-id", "r", "--region", "us-east-1"]


@pytest.mark.parametrize("job", [prepare, train, predict])
def test_a_job_should_overlook_arguments_that_the_service_adds(job: ModuleType) -> None:
    args, unknown = job.build_parser().parse_known_args([*ARGUMENTS, "--JOB_ID", "j", "--data", "x", "--run", "y"])
    assert (args.dataset, args.database, args.run_id) == ("d", "b", "r")  # --data and --run are not short for these
    assert unknown[-6:] == ["--JOB_ID", "j", "--data", "x", "--run", "y"]


@pytest.fixture
def code_zip(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The code zip as it is on a cluster, first on the path and without the datasets module of this repository."""
    dataset = load_dataset("nyc_flights")
    with zipfile.ZipFile(tmp_path / "code.zip", "w") as archive:
        archive.writestr("datasets/__init__.py", "")
        archive.writestr("datasets/nyc_flights/dataset.json", dataset.to_json())
        archive.writestr("datasets/nyc_flights/prepare.sql", prepare_sql("nyc_flights"))
    monkeypatch.delitem(sys.modules, "datasets")
    monkeypatch.syspath_prepend(str(tmp_path / "code.zip"))
    importlib.invalidate_caches()
    yield
    sys.modules.pop("datasets", None)


def test_settings_should_be_read_out_of_the_code_zip(code_zip: None) -> None:
    assert settings.load("nyc_flights").training.depth == 12
    assert settings.prepare_sql("nyc_flights") == (ROOT / "datasets/nyc_flights/prepare.sql").read_text()


def test_a_dataset_that_was_not_shipped_should_be_told_with_the_way_out(code_zip: None) -> None:
    with pytest.raises(JobError, match=r"no datasets/other/dataset.json: deploy again, or check --dataset"):
        settings.load("other")


@pytest.mark.parametrize("script", ["prepare.py", "train.py", "predict.py"])
def test_a_failing_job_should_end_with_the_reason_and_exit_code_one(script: str) -> None:
    command = [sys.executable, str(ROOT / "jobs" / script), *ARGUMENTS]
    ended = subprocess.run(command, env={"PYTHONPATH": str(ROOT)}, capture_output=True, text=True, timeout=60)
    assert ended.returncode == 1
    assert ended.stdout == ""
    reason = ended.stderr.splitlines()[-1]
    assert reason.startswith("jobs.errors.JobError: The code that was shipped with this job has no datasets/d/")
