"""Training: nothing that is learned comes from the rows that it is tested on."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from jobs import train
from jobs.judges import metrics, profiling
from jobs.learners.survey import Survey
from jobs.models import tasks, tree
from jobs.tables.features import Features
from jobs.tables.settings import Dataset, Decision, Tune
from jobs.tables.settings import Features as Declared
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


def test_a_category_of_the_test_side_alone_should_not_be_known(spark: SparkSession, written: Written) -> None:
    frame = sided(spark, 1).withColumn(
        "colour", F.expr("IF(side = 'test' AND id > 6, IF(id > 8, 'violet', NULL), colour)")
    )
    colour = train.fit_and_score(written(frame, points.settings()), points.settings()).tree["features"][1]
    assert set(colour["encoding"]) == {"red", "green"}
    assert (colour["missing"], colour["missing_rows"]) == (colour["prior"], 0)


@pytest.mark.parametrize("make", [points.settings, points.multiclass])
def test_the_figures_should_be_those_of_the_rows_scored_one_by_one(
    spark: SparkSession, written: Written, make: Callable[[], Dataset]
) -> None:
    settings, label = make(), "int(id % 7 > 3)"
    if settings.task == "multiclass":
        label = "element_at(array('low', 'mid', 'high'), int(id % 7 % 3) + 1)"
    rows = spark.range(900).selectExpr(
        "IF(id % 3 = 0, 'test', 'train') AS side",
        "id",
        "id % 50 + IF(id % 3 = 0, 0.5D, 0) AS x",  # test rows lie half-way between training rows, on the thresholds
        "concat('c', id % 9) AS colour",
        f"{label} AS late",
    )
    trained = train.fit_and_score(written(rows, settings), settings)
    test = tree.score(rows.where("side = 'test'"), trained.tree, [F.col("id"), F.col("late")])
    scored = metrics.outcomes(test, settings.task, tasks.label_column(settings.label, settings.task), ["id"], 0)
    assert metrics.evaluate(scored) == trained.test
    assert trained.test["rows"] == 300


def test_the_share_that_is_asked_for_should_be_held_out_everywhere(spark: SparkSession, written: Written) -> None:
    settings = points.regression("depth = 3", "depth = 3\ntest_share = 0.4")
    rows = spark.range(1000).selectExpr("id", "double(id % 50) AS x", "'red' AS colour", "double(id % 50) AS late")
    features = written(rows, settings)
    trained = train.fit_and_score(features, settings)
    assert trained.rows["train"] + trained.rows["test"] == 1000
    assert trained.rows["test"] == pytest.approx(400, abs=62)  # four standard deviations
    assert trained.scored is not None
    assert trained.scored.count() == trained.rows["test"]
    told = profiling.profile(features, Survey(features, settings, train.marks(features, settings)), settings)
    x = told["features"][0]
    assert sum(cell["train"] for cell in x["histogram"]) == told["train"] == trained.rows["train"]


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
    settings = replace(settings, decision=Decision(recall=0.9))
    told = train.out_of_time(written(frame, settings), settings, settings.training, None, 0.01)
    assert told is not None
    called = told["confusion"]["tp"] + told["confusion"]["fp"]
    assert (told["calls"]["called"], told["calls"]["rows"]) == (called, 16), "by the threshold that the model has"
    assert called == 16, "no leaf is so sure that it says less than 0.01"
    assert (told["trained_on"], told["tested_on"]) == ("2023-11 to 2024-01", "2024-01 to 2024-02")
    assert (told["trained_rows"], told["rows"]) == (16, 16)
    assert told["baseline"]["log_loss"] == pytest.approx(metrics.evaluate(metrics.constant(4 / 16, 16, 8))["log_loss"])


def test_rows_without_a_time_should_be_tested_on_but_never_learned_from_out_of_time(
    spark: SparkSession, written: Written
) -> None:
    settings = points.regression("min_leaf = 5", "min_leaf = 2")
    rows = spark.range(90).selectExpr(
        "id",
        "element_at(array(DATE'2024-01-01', DATE'2024-01-05', NULL), int(id % 3) + 1) AS day",
        "double(id % 10) AS x",
        "'red' AS colour",
        "double(id % 10) AS late",
    )
    told = train.out_of_time(written(rows, settings), settings, settings.training)
    assert told is not None
    assert (told["trained_rows"], told["rows"]) == (30, 60)


def test_the_out_of_time_check_should_train_as_the_model_was_and_not_tune_again(
    spark: SparkSession, written: Written
) -> None:
    rows = spark.range(400).selectExpr(
        "id",
        "date_add(DATE'2024-01-01', int(id DIV 100)) AS day",
        "double(id % 20) AS x",
        "'red' AS colour",
        "int(id % 20 > 9 OR id % 7 = 0) AS late",
    )
    settings = points.settings()
    features, training = written(rows, settings), replace(settings.training, depth=2)
    plain = train.out_of_time(features, settings, training)
    settings = replace(settings, tune=Tune(depths=(1,), min_leaves=(100,), validation_share=0.3))
    survey = Survey(features, settings, {**train.marks(features, settings), **train.later_than_cut(settings)})
    assert train.out_of_time(features, settings, training, survey) == plain


def test_a_dataset_without_a_time_column_should_have_no_out_of_time_check(
    spark: SparkSession, written: Written
) -> None:
    timeless = points.settings('[time]\ncolumn = "day"\ncut = 2024-01-03\n', "")
    assert train.out_of_time(written(sided(spark, 1), timeless), timeless, timeless.training) is None


def test_a_column_called_side_should_be_a_feature_like_any_other(spark: SparkSession, tmp_path: Path) -> None:
    settings = points.settings("min_leaf = 5", "min_leaf = 1")
    settings = replace(settings, features=Declared(categories=("side",)), slices=("side",), time=None)
    rows = spark.range(400).selectExpr("id", "IF(id % 3 = 0, 'left', 'right') AS side", "int(id % 3 = 0) AS late")
    rows.withColumn("split_hash", F.xxhash64("id")).write.parquet(str(tmp_path / "features"))
    trained = train.fit_and_score(Features(spark, str(tmp_path / "features"), settings), settings)
    assert trained.test["accuracy"] == 1.0
    assert trained.scored is not None
    assert trained.scored.count() == trained.rows["test"]
