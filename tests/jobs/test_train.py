"""Training: nothing that is learned comes from the rows that it is tested on."""

from collections.abc import Callable
from pathlib import Path

import pytest
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from jobs import encoding, metrics, train, tree
from jobs.features import Features
from jobs.settings import Settings
from tests.jobs import points
from tests.jobs.conftest import Written


def sided(spark: SparkSession, late_on_test: int) -> DataFrame:
    """20 training rows, 8 of them late, and 20 test rows, of which the green ones are late or not as asked."""
    rows = [("train", i, float(i % 10), "red" if i % 2 else "green", int(i % 10 > 5)) for i in range(20)]
    rows += [("test", i, float(i % 10), "red", i % 2) for i in range(10)]
    rows += [("test", i, float(i % 10), "green", late_on_test) for i in range(10)]
    return spark.createDataFrame(rows, "side string, id int, x double, colour string, late int")


def test_nothing_should_be_learned_from_the_test_side(spark: SparkSession, written: Written) -> None:
    settings = points.settings("min_leaf = 5", "min_leaf = 2")
    one, other = (train.fit_and_score(written(sided(spark, late), settings), settings) for late in (0, 1))
    assert one.tree == other.tree
    assert one.tree["features"][1]["prior"] == 8 / 20
    assert one.test["confusion"] != other.test["confusion"]


@pytest.mark.parametrize("make", [points.settings, points.multiclass])
def test_the_figures_should_be_those_of_the_rows_scored_one_by_one(
    spark: SparkSession, written: Written, make: Callable[[], Settings]
) -> None:
    settings, label = make(), "int(id % 7 > 3)"
    if settings["task"] == "multiclass":
        label = "element_at(array('low', 'mid', 'high'), int(id % 7 % 3) + 1)"
    rows = spark.range(900).selectExpr(
        "IF(id % 3 = 0, 'test', 'train') AS side",
        "id",
        "double(id % 50) AS x",
        "concat('c', id % 9) AS colour",
        f"{label} AS late",
    )
    trained = train.fit_and_score(written(rows, settings), settings)
    test = tree.score(rows.where("side = 'test'"), trained.tree, [F.col("id"), F.col("late")])
    scored = metrics.outcomes(test, settings["task"], encoding.label_column(settings), ["id"], 0)
    assert metrics.evaluate(scored) == trained.test
    assert trained.test["rows"] == 300


def test_the_baseline_should_guess_the_training_sides_base_rate(spark: SparkSession, written: Written) -> None:
    trained = train.fit_and_score(written(sided(spark, 1), points.settings()), points.settings())
    assert trained.rows == {"train": 20, "test": 20}
    assert {side: label.told("binary") for side, label in trained.labels.items()} == {
        "train": {"positives": 8},
        "test": {"positives": 15},
    }
    assert trained.baseline == metrics.evaluate(metrics.constant(8 / 20, 20, 15))


@pytest.mark.parametrize("kind", ["date", "timestamp"])
def test_the_out_of_time_check_should_learn_before_the_cut_and_test_from_it_on(
    spark: SparkSession, written: Written, kind: str
) -> None:
    days = {"2023-11-30": 4, "2024-01-02": 12, "2024-01-03": 8, "2024-02-01": 8}  # the cut is 2024-01-03
    rows = [
        (i, day, float(i), "red", i % 4 // 3 + (day > "2024-01-02") * (i % 4 == 0))
        for day, n in days.items()
        for i in range(n)
    ]
    settings = points.settings("min_leaf = 5", "min_leaf = 2")
    frame = spark.createDataFrame(rows, "id int, day string, x double, colour string, late int").withColumn(
        "day", F.col("day").cast(kind)
    )
    told = train.out_of_time(written(frame, settings), settings, dict(settings["training"]))
    assert told is not None
    assert (told["trained_on"], told["tested_on"]) == ("2023-11 to 2024-01", "2024-01 to 2024-02")
    assert (told["trained_rows"], told["rows"]) == (16, 16)
    assert told["baseline"]["log_loss"] == pytest.approx(metrics.evaluate(metrics.constant(4 / 16, 16, 8))["log_loss"])


def test_a_dataset_without_a_time_column_should_have_no_out_of_time_check(
    spark: SparkSession, written: Written
) -> None:
    timeless = points.settings('[time]\ncolumn = "day"\ncut = 2024-01-03\n', "")
    assert train.out_of_time(written(sided(spark, 1), timeless), timeless, dict(timeless["training"])) is None


def test_a_column_called_side_should_be_a_feature_like_any_other(spark: SparkSession, tmp_path: Path) -> None:
    settings = points.settings("min_leaf = 5", "min_leaf = 1")
    settings["features"], settings["slices"] = {"numbers": [], "categories": ["side"]}, ["side"]
    settings["time"] = None
    rows = spark.range(400).selectExpr("id", "IF(id % 3 = 0, 'left', 'right') AS side", "int(id % 3 = 0) AS late")
    rows.withColumn("split_hash", F.xxhash64("id")).write.parquet(str(tmp_path / "features"))
    trained = train.fit_and_score(Features(spark, str(tmp_path / "features"), settings), settings)
    assert trained.test["accuracy"] == 1.0
    assert trained.scored is not None
    assert trained.scored.count() == trained.rows["test"]
