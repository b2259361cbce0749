"""What `dml dataset new` sets for training, tried by training with it, for each task."""

import random
from collections.abc import Callable
from pathlib import Path

import pytest
from pyspark.sql import SparkSession

import datasets
from datasets import load_dataset
from dml.dataset import new as own
from jobs import train
from tests.jobs.conftest import Written

Rows = Callable[[random.Random], tuple[float, float, object]]


def cell(source: random.Random) -> tuple[float, float, object]:
    """A place and the one of 36 states that it lies in, as airports have it: some 80 rows each."""
    x, y = source.uniform(0, 6), source.uniform(0, 6)
    return x, y, f"s{int(x)}{int(y)}"


def price(source: random.Random) -> tuple[float, float, object]:
    """What stones cost: much more than in proportion to their weight, by a grade."""
    carat, grade = source.uniform(0.2, 3), source.randrange(8)
    return carat, float(grade), round(1000 * carat**2 * (1 + grade / 8) + source.gauss(0, 50), 1)


# With a tree of depth 8 and 18 rows a leaf, as a share of two classes would take, they are 0.331 and 388.
@pytest.mark.parametrize(("rows", "figure", "at_most"), [(cell, "log_loss", 0.28), (price, "rmse", 320.0)])
def test_a_first_model_should_be_as_good_as_so_many_rows_allow(
    spark: SparkSession,
    written: Written,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    rows: Rows,
    figure: str,
    at_most: float,
) -> None:
    source = random.Random(19)  # noqa: S311  # test data
    table = [(i, *rows(source)) for i in range(3_000)]
    (tmp_path / "d.csv").write_text("n,x,y,found\n" + "".join(f"{','.join(map(str, row))}\n" for row in table))
    monkeypatch.setattr(datasets, "HOME", tmp_path / "datasets")
    own.new("d", [tmp_path / "d.csv"], "found", columns=[], on_progress=lambda _: None)
    settings = load_dataset("d")
    kind = "double" if settings.task == "regression" else "string"
    frame = spark.read.csv(str(tmp_path / "d.csv"), f"n bigint, x double, y double, found {kind}", header=True)
    trained = train.fit_and_score(written(frame, settings), settings)
    assert trained.test[figure] < at_most
