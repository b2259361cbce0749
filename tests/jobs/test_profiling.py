"""The profile of a table, worked out by hand on tables that can be read; and the leak alarm that is raised from it."""

import json
import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from jobs import train
from jobs.judges import profiling
from jobs.learners import survey
from jobs.learners.survey import Survey
from jobs.tables.settings import Dataset
from jobs.tables.settings import Features as Declared
from tests.jobs import points
from tests.jobs.conftest import Written

NAN, INFINITE = float("nan"), float("inf")
HAND = [  # id, day, x, colour, late, side: half of the four training rows are late
    (1, "2024-01-01", 1.0, "red", 1, "train"),
    (2, "2024-01-02", 2.0, "red", 0, "train"),
    (3, "2024-01-03", 3.0, "blue", 1, "test"),
    (4, "2024-01-04", None, None, 1, "train"),
    (5, "2024-01-05", NAN, "blue", 0, "train"),
    (6, "2024-01-06", INFINITE, "green", 0, "test"),
]


def table(spark: SparkSession, rows: list[Any], label: str = "int") -> DataFrame:
    frame = spark.createDataFrame(rows, f"id long, day string, x double, colour string, late {label}, side string")
    return frame.withColumn("day", F.col("day").cast("date"))


def profiled(
    written: Written, frame: DataFrame, settings: Dataset, reference: dict[str, Any] | None = None
) -> dict[str, Any]:
    features = written(frame, settings)
    return profiling.profile(features, Survey(features, settings, train.marks(features, settings)), settings, reference)


def of_task(task: str, label: str) -> Dataset:
    if task == "multiclass":
        return points.multiclass('classes = ["low", "mid", "high"]', label)
    return points.regression('unit = "minutes"', label) if task == "regression" else points.settings()


def feature(told: dict[str, Any], name: str) -> dict[str, Any]:
    return next(of for of in told["features"] if of["name"] == name)


def test_a_number_should_be_told_by_its_finite_values_and_what_is_missing_apart(
    spark: SparkSession, written: Written
) -> None:
    x = feature(profiled(written, table(spark, HAND), points.settings()), "x")
    assert (x["null"], x["nan"], x["infinite"]) == (1, 1, 1)
    assert x["missing"] == {"rows": 3, "train": 2, "label": 1}
    assert (x["min"], x["max"], x["mean"], x["std"], x["distinct"]) == (1, 3, 2, 1, 3)
    assert x["quantiles"] == {"5": 1, "25": 1, "50": 2, "75": 3, "95": 3}
    assert x["deciles"] == [1, 2, 3]


def test_bins_should_count_all_rows_but_labels_of_the_training_side_only(spark: SparkSession, written: Written) -> None:
    told = profiled(written, table(spark, HAND), points.settings())
    assert feature(told, "x")["histogram"] == [
        {"from": 1, "to": 1, "rows": 1, "train": 1, "label": 1},
        {"from": 1, "to": 2, "rows": 1, "train": 1, "label": 0},
        {"from": 2, "to": 3, "rows": 1, "train": 0, "label": 0},
    ]
    assert feature(told, "colour")["top"] == [
        {"value": "blue", "rows": 2, "train": 1, "label": 0},
        {"value": "red", "rows": 2, "train": 2, "label": 1},
        {"value": "green", "rows": 1, "train": 0, "label": 0},
    ]
    assert feature(told, "colour")["missing"] == {"rows": 1, "train": 1, "label": 1}
    assert told["label"] == {"column": "late", "rows": 4, "positives": 2, "rate": 0.5}
    assert (told["rows"], told["train"]) == (6, 4)
    assert told["time"] == {"column": "day", "min": "2024-01-01", "max": "2024-01-06"}


def test_a_time_should_be_told_as_days_or_to_the_second_and_may_be_missing(
    spark: SparkSession, written: Written
) -> None:
    days = ["2024-01-03", None, "2024-01-01", "2024-01-02"]
    rows = [(i, day, float(i), "red", i % 2, "train") for i, day in enumerate(days)]
    day = table(spark, rows)
    told = profiled(written, day, points.settings())
    assert told["time"] == {"column": "day", "min": "2024-01-01", "max": "2024-01-03"}
    moment = day.withColumn("day", F.col("day").cast("timestamp") + F.expr("INTERVAL 90 MINUTES"))
    told = profiled(written, moment, points.settings())
    assert told["time"] == {"column": "day", "min": "2024-01-01 01:30:00", "max": "2024-01-03 01:30:00"}
    never = day.withColumn("day", F.lit(None).cast("date"))
    assert profiled(written, never, points.settings())["time"] == {"column": "day", "min": None, "max": None}


def test_rare_values_should_be_pooled_and_named(
    spark: SparkSession, written: Written, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(profiling, "TOP_VALUES", 1)
    monkeypatch.setattr(profiling, "NAMED_VALUES", 1)
    colour = feature(profiled(written, table(spark, HAND), points.settings()), "colour")
    assert [cell["value"] for cell in colour["top"]] == ["blue"]
    assert colour["others"] == {"values": 2, "names": ["red"], "rows": 3, "train": 2, "label": 1}
    assert colour["distinct"] == 3


def test_counts_of_classes_and_sums_of_a_number_should_stand_in_the_bins(spark: SparkSession, written: Written) -> None:
    classed = [(*row[:4], ("no", "yes")[row[4]], row[5]) for row in HAND]
    told = profiled(written, table(spark, classed, "string"), of_task("multiclass", 'classes = ["yes", "no", "maybe"]'))
    assert feature(told, "colour")["top"][1] == {"value": "red", "rows": 2, "train": 2, "label": [1, 1, 0]}
    assert told["label"] == {"column": "late", "rows": 4, "classes": ["yes", "no", "maybe"], "counts": [2, 2, 0]}

    valued = [(*row[:4], 10.0 * row[0], row[5]) for row in HAND]
    told = profiled(written, table(spark, valued, "double"), of_task("regression", ""))
    assert feature(told, "colour")["top"][1] == {"value": "red", "rows": 2, "train": 2, "label": pytest.approx(30.0)}
    assert feature(told, "x")["correlation"] == pytest.approx(1)
    label = told["label"]
    assert (label["rows"], label["mean"], label["min"], label["max"]) == (4, 30, 10, 50)  # 10, 20, 40, 50
    assert label["std"] == pytest.approx(math.sqrt((400 + 100 + 100 + 400) / 3))
    assert label["quantiles"]["50"] == 20


def test_a_correlation_should_be_that_of_the_training_rows_whatever_the_size_of_the_label(
    spark: SparkSession, written: Written
) -> None:
    rows = [(i, "2024-01-01", float(i), "red", 1e9 + i % 10, "train") for i in range(200)]
    rows += [(i, "2024-01-01", float(i), "red", -1e9 * i, "test") for i in range(200, 260)]
    x = feature(profiled(written, table(spark, rows, "double"), of_task("regression", "")), "x")
    train = np.arange(200)
    assert x["correlation"] == pytest.approx(np.corrcoef(train, train % 10)[0, 1])


def test_a_large_number_with_a_small_spread_should_keep_its_digits(spark: SparkSession, written: Written) -> None:
    rows = [(i, "2024-01-01", 1e9 + i % 2, "red", i % 2, "train") for i in range(100)]
    x = feature(profiled(written, table(spark, rows), points.settings()), "x")
    assert x["mean"] == 1e9 + 0.5
    assert x["std"] == pytest.approx(math.sqrt(25 / 99))


def test_a_table_larger_than_the_sample_should_be_counted_whole(
    spark: SparkSession, written: Written, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(survey, "SAMPLE_ROWS", 1000)
    rows = [(i, "2024-01-01", float(i), "red", i % 2, "train") for i in range(3000)]
    told = profiled(written, table(spark, rows).repartition(3), points.settings())
    x = feature(told, "x")
    assert 500 < x["distinct"] <= 1000  # of the sample
    assert (x["min"], x["max"], x["mean"]) == (0, 2999, 1499.5)
    assert sum(cell["rows"] for cell in x["histogram"]) == 3000
    assert sum(cell["label"] for cell in x["histogram"]) == 1500
    assert x["quantiles"]["50"] == pytest.approx(1500, abs=200)
    assert profiled(written, table(spark, rows).repartition(2), points.settings()) == told  # whatever the partitions


def test_a_profile_should_be_json_whatever_the_numbers(spark: SparkSession, written: Written) -> None:
    rows = [
        (1, "2024-01-01", 1e308, None, 1, "train"),
        (2, "2024-01-01", -1e308, None, 0, "train"),
        (3, "2024-01-01", 1e308, None, 0, "train"),
    ]
    told = profiled(written, table(spark, rows), points.settings())
    json.dumps(told, allow_nan=False)
    assert feature(told, "x")["std"] is None
    nothing = profiled(written, table(spark, [(1, "2024-01-01", None, None, 1, "train")]), points.settings())
    json.dumps(nothing, allow_nan=False)
    assert feature(nothing, "x")["histogram"] == feature(nothing, "colour")["top"] == []


def test_a_thousand_features_should_be_profiled(spark: SparkSession, written: Written) -> None:
    numbers, categories = tuple(f"n{i}" for i in range(900)), tuple(f"c{i}" for i in range(100))
    settings = replace(points.settings(), features=Declared(numbers, categories))
    wide = spark.range(20).selectExpr(
        "id",
        "CAST(id % 2 AS INT) AS late",
        *[f"CAST(id * {i} AS DOUBLE) AS n{i}" for i in range(900)],
        *[f"CAST(id % {i + 1} AS STRING) AS c{i}" for i in range(100)],
    )
    told = profiled(written, wide, settings)
    assert len(told["features"]) == 1000
    assert feature(told, "n899")["max"] == 19 * 899
    assert feature(told, "c3")["distinct"] == 4


def leaking(spark: SparkSession, written: Written, late: Any, label: str, settings: Dataset) -> list[dict[str, Any]]:
    """The alarms of 2,000 rows whose x is `id` and whose colour tells nothing; `late` makes the label out of the id."""
    rows = [(i, "2024-01-01", float(i), ("red", "blue")[i % 2], late(i), "train") for i in range(2000)]
    return profiling.leaks(profiled(written, table(spark, rows, label), settings), settings)


def test_a_number_that_ranks_a_binary_label_should_raise_the_alarm(spark: SparkSession, written: Written) -> None:
    (alarm,) = leaking(spark, written, lambda i: int(i > 1670), "int", points.settings())
    assert (alarm["feature"], alarm["measure"]) == ("x", "auc")
    assert alarm["value"] > 0.99
    assert alarm["sentence"].startswith("x alone ranks the rows by late almost perfectly (AUC ")
    assert leaking(spark, written, lambda i: int(i % 5 == 0), "int", points.settings()) == []


def test_being_missing_should_be_able_to_leak(spark: SparkSession, written: Written) -> None:
    rows = [(i, "2024-01-01", None if i < 40 else i % 7.0, "red", int(i < 40), "train") for i in range(400)]
    told = profiled(written, table(spark, rows), points.settings())
    assert [alarm["feature"] for alarm in profiling.leaks(told, points.settings())] == ["x"]


def test_a_category_of_few_rows_a_value_should_not_raise_the_alarm(spark: SparkSession, written: Written) -> None:
    rows = [(i, "2024-01-01", 1.0, f"key{i}", i % 2, "train") for i in range(40)]
    told = profiled(written, table(spark, rows), points.settings())
    assert feature(told, "colour")["distinct"] == 40
    assert profiling.leaks(told, points.settings()) == []


def test_a_number_that_tells_the_class_should_raise_the_alarm(spark: SparkSession, written: Written) -> None:
    settings = of_task("multiclass", 'classes = ["a", "b", "c"]')
    (alarm,) = leaking(spark, written, lambda i: "aabc"[i // 500], "string", settings)
    assert (alarm["feature"], alarm["measure"], alarm["value"]) == ("x", "share", 1.0)
    assert "(alarm above 99%; always guessing the most frequent class: 50.0%)" in alarm["sentence"]
    # One class in almost every row: whatever is guessed is right, and no feature is to blame.
    assert leaking(spark, written, lambda i: "b" if i == 7 else "a", "string", settings) == []


def test_a_number_that_explains_a_regression_should_raise_the_alarm(spark: SparkSession, written: Written) -> None:
    settings = of_task("regression", "")
    (alarm,) = leaking(spark, written, lambda i: (i - 1000.0) ** 2, "double", settings)
    assert (alarm["feature"], alarm["measure"]) == ("x", "r2")
    # A straight line through a long tail, of which bins explain too little.
    tail = [(i, "2024-01-01", 1.05**i, "red", 3 * 1.05**i, "train") for i in range(400)]
    told = profiled(written, table(spark, tail, "double"), settings)
    assert profiling.leaks(told, settings)[0]["value"] == pytest.approx(1)
    assert leaking(spark, written, lambda i: float(i % 7), "double", settings) == []
