"""Features and labels that are hard to learn from: each works, or ends in one sentence that names the way out."""

from dataclasses import replace
from typing import Any

import pytest
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from jobs import train
from jobs.errors import JobError
from jobs.tables import split
from jobs.tables.settings import Dataset
from jobs.tables.settings import Features as Declared
from tests.jobs import points
from tests.jobs.conftest import Written


def fitted(
    written: Written,
    frame: DataFrame,
    numbers: list[str],
    categories: list[str],
    settings: Dataset | None = None,
    **training: Any,
) -> train.Trained:
    """A tree on a table with `id` and `late`, one row in five held out."""
    settings = settings or points.settings("min_leaf = 5", "min_leaf = 1")
    settings = replace(
        settings,
        features=Declared(numbers=tuple(numbers), categories=tuple(categories)),
        training=replace(settings.training, **training),
    )
    sided = frame.withColumn(split.SIDE, F.when(F.col("id") % 5 == 0, split.TEST).otherwise(split.TRAIN))
    trained = train.fit_and_score(written(sided, settings), settings)
    trained.unpersist()
    return trained


def used(trained: train.Trained) -> set[str]:
    return {node["feature"] for node in trained.tree["nodes"] if "feature" in node}


def test_twenty_rows_should_do(spark: SparkSession, written: Written) -> None:
    frame = spark.range(20).selectExpr("id", "double(id % 7) AS x", "int(id % 7 > 3) AS late")
    assert fitted(written, frame, ["x"], []).test["accuracy"] == 1.0


def test_constant_all_null_and_infinite_columns_should_not_matter(spark: SparkSession, written: Written) -> None:
    frame = spark.range(200).selectExpr(
        "id",
        "7.0D AS constant",
        "double(NULL) AS nothing",
        "string(NULL) AS no_category",
        "'same' AS one_category",
        "element_at(array(double('inf'), double('-inf'), double('nan'), double(id % 8)), int(id % 4) + 1) AS wild",
        "id % 2 = 1 AS flag",
        "CAST(id % 7 AS DECIMAL(10, 2)) AS x",
        "int(id % 7 > 3) AS late",
    )
    numbers = ["constant", "nothing", "wild", "flag", "x"]
    trained = fitted(written, frame, numbers, ["no_category", "one_category"])
    assert trained.test["accuracy"] == 1.0
    assert used(trained) == {"x"}
    missing = {feature["name"]: feature["missing_rows"] for feature in trained.tree["features"]}
    assert missing["nothing"] == missing["no_category"] == trained.rows["train"] == 160
    assert missing["wild"] == 120


def test_an_infinity_should_be_told_from_a_number_as_missing(spark: SparkSession, written: Written) -> None:
    frame = spark.range(100).selectExpr("id", "IF(id % 3 = 0, double('inf'), id) AS x", "int(id % 3 = 0) AS late")
    trained = fitted(written, frame, ["x"], [])
    assert trained.tree["nodes"][0]["condition"] == "x is missing"


def test_only_useless_features_should_give_one_leaf_that_says_the_base_rate(
    spark: SparkSession, written: Written
) -> None:
    frame = spark.range(100).selectExpr("id", "7.0D AS x", "int(id % 3 = 0) AS late")
    trained = fitted(written, frame, ["x"], [])
    (leaf,) = trained.tree["nodes"]
    assert leaf["probability"] == pytest.approx(trained.labels["train"].counts[1] / 80)
    assert trained.test == trained.baseline


def test_extreme_imbalance_should_still_rank(spark: SparkSession, written: Written) -> None:
    frame = spark.range(20_000).selectExpr("id", "double(id % 997) AS x", "int(id % 997 IN (500, 501)) AS late")
    trained = fitted(written, frame, ["x"], [], depth=5)
    assert trained.labels["train"].counts[1] < 40
    assert trained.test["auc"] > 0.9


def test_a_thousand_columns_should_be_learned_from(spark: SparkSession, written: Written) -> None:
    names = [f"n{i}" for i in range(950)] + [f"c{i}" for i in range(50)]
    numbers = [f"double(pmod(xxhash64(id, {i}), 97)) AS n{i}" for i in range(950)]
    categories = [f"string(pmod(xxhash64(id, {i}), 5)) AS c{i}" for i in range(50)]
    frame = spark.range(400).selectExpr("id", *numbers, *categories).withColumn("late", F.expr("int(n500 > 48)"))
    trained = fitted(written, frame, names[:950], names[950:], min_leaf=20)
    assert trained.tree["nodes"][0]["feature"] == "n500"


def test_very_many_categories_should_work(spark: SparkSession, written: Written) -> None:
    frame = spark.range(30_000).selectExpr("id", "concat('k', id DIV 3) AS key", "int(id DIV 3 % 2) AS late")
    trained = fitted(written, frame, [], ["key"])
    assert len(trained.tree["features"][0]["encoding"]) == 10_000
    assert trained.test["auc"] > 0.9


def test_odd_categories_should_keep_their_text(spark: SparkSession, written: Written) -> None:
    odd = ["", " ", "NULL", "a'b", 'a"b', "ä\u00a0ö", "\U0001f600", "line\nbreak", "tab\t", "\\", "0", "None"]
    rows = [(i, odd[i % len(odd)], int(i % len(odd) < 6)) for i in range(240)]
    trained = fitted(written, spark.createDataFrame(rows, "id long, c string, late int"), [], ["c"])
    assert set(trained.tree["features"][0]["encoding"]) == set(odd)
    assert trained.test["accuracy"] == 1.0


@pytest.mark.parametrize("kind", ["bigint", "boolean"])
def test_integers_and_booleans_may_be_categories(spark: SparkSession, written: Written, kind: str) -> None:
    frame = spark.range(100).selectExpr("id", f"CAST(id % 2 AS {kind}) AS c", "int(id % 2) AS late")
    trained = fitted(written, frame, [], ["c"])
    assert trained.test["accuracy"] == 1.0
    assert set(trained.tree["features"][0]["encoding"]) == ({"0", "1"} if kind == "bigint" else {"false", "true"})


def test_classes_may_be_numbers(spark: SparkSession, written: Written) -> None:
    settings = points.multiclass('classes = ["low", "mid", "high"]', 'classes = ["1", "2", "30"]')
    settings = replace(settings, training=replace(settings.training, min_leaf=1))
    frame = spark.range(90).selectExpr(
        "id", "double(id % 3) AS x", "element_at(array(1, 2, 30), int(id % 3) + 1) AS late"
    )
    assert fitted(written, frame, ["x"], [], settings).test["accuracy"] == 1.0


def test_labels_of_very_different_size_should_be_learned(spark: SparkSession, written: Written) -> None:
    frame = spark.range(400).selectExpr("id", "double(id % 4) AS x", "double(pow(1000.0, id % 4) * 1e6 - 5) AS late")
    settings = points.regression("min_leaf = 5", "min_leaf = 1")
    trained = fitted(written, frame, ["x"], [], settings, smoothing=1e-12)
    values = sorted(node["value"] for node in trained.tree["nodes"] if "feature" not in node)
    assert values == pytest.approx([1e6 - 5, 1e9 - 5, 1e12 - 5, 1e15 - 5], abs=1e-12 * 1e15)
    assert trained.test["r2"] > 0.999


@pytest.mark.parametrize(
    ("sql", "told"),
    [
        ("int(id = 0)", "has one class only on the training side: 0 of 80 rows are positive"),
        ("int(id % 5 > 0 AND id % 2 = 0)", "has one class only on the test side: 0 of 20 rows are positive"),
    ],
)
def test_a_side_with_one_class_should_be_refused(spark: SparkSession, written: Written, sql: str, told: str) -> None:
    frame = spark.range(100).selectExpr("id", "double(id) AS x", f"{sql} AS late")
    with pytest.raises(JobError, match=told):
        fitted(written, frame, ["x"], [])
