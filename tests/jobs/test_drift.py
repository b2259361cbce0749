"""Drift between two profiles, against the index worked out by hand."""

from dataclasses import replace
from math import log
from typing import Any

import pytest
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from jobs.errors import JobError
from jobs.judges import drift, profiling
from jobs.tables.settings import Features as Declared
from tests.jobs import points
from tests.jobs.conftest import Written
from tests.jobs.test_profiling import feature, of_task, profiled


def table(spark: SparkSession, x: list[float | None], colour: list[str | None], late: Any = 0) -> DataFrame:
    rows = [(i, value, colour[i % len(colour)], late) for i, value in enumerate(x)]
    frame = spark.createDataFrame(rows, f"id long, x double, colour string, late {'int' if late == 0 else 'double'}")
    return frame.withColumn("side", F.lit("train"))


def moved(written: Written, old: DataFrame, new: DataFrame) -> dict[str, Any]:
    before = profiled(written, old, points.settings())
    return drift.drift(before, profiled(written, new, points.settings(), before))


def test_the_index_should_be_the_sum_over_bins_with_half_a_row_added() -> None:
    p, q = (9.5 / 21, 11.5 / 21), (19.5 / 31, 11.5 / 31)
    index, _ = drift.psi([9, 11], [19, 11])
    assert index == pytest.approx(sum((b - a) * log(b / a) for a, b in zip(p, q, strict=True)))
    assert drift.psi([5, 5, 0], [50, 50, 0])[0] == pytest.approx(0, abs=1e-3)  # empty in both is no bin
    assert drift.psi([], [3])[0] == drift.psi([5], [3])[0] == 0


def test_chance_should_be_the_99_percent_point_of_chi_squared() -> None:
    _, chance = drift.psi([100] * 10, [100] * 10)
    assert chance == pytest.approx(21.666 * (1 / 1000 + 1 / 1000), rel=2e-3)  # 9 degrees of freedom


def test_the_same_rows_should_be_stable_and_have_no_index(spark: SparkSession, written: Written) -> None:
    rows = table(spark, [float(i) for i in range(1000)], ["red", "blue", None])
    told = moved(written, rows, rows)
    assert [of["psi"] for of in told["features"]] == [0, 0]
    assert (told["verdict"], told["verdicts"]) == ("stable", {"stable": 3, "moderate": 0, "large": 0})
    assert told["added"] == told["gone"] == []


def test_a_shifted_number_should_be_counted_over_the_old_deciles(spark: SparkSession, written: Written) -> None:
    told = moved(
        written,
        table(spark, [float(i) for i in range(1000)], ["red"]),
        table(spark, [float(i + 500) for i in range(1000)], ["red"]),
    )
    x = told["features"][0]
    # Of the old ten bins of 100 rows five are empty now, four have 100, and all above the last decile, 600.
    old, new = [100] * 10, [0] * 5 + [100] * 4 + [600]
    new[4:6] = [0, 100]
    assert x["psi"] == pytest.approx(drift.psi(old, new)[0], rel=0.02)
    assert (x["verdict"], told["verdict"]) == ("large", "large")
    assert x["range"] == {"old": [0, 999], "new": [500, 1499], "below": False, "above": True}
    assert feature(told, "colour")["verdict"] == "stable"


def test_categories_that_come_and_go_should_be_named(spark: SparkSession, written: Written) -> None:
    x: list[float | None] = [1.0] * 900
    told = moved(written, table(spark, x, ["red", "blue", "green"]), table(spark, x, ["red", "blue", "pink"]))
    colour = feature(told, "colour")
    assert colour["categories"] == {"gone": ["green"], "new": ["pink"], "new_rows": 300}
    assert colour["psi"] == pytest.approx(drift.psi([300, 300, 300, 0], [300, 300, 0, 300])[0])


def test_a_new_value_should_not_be_told_from_a_rare_one_if_the_old_profile_names_not_all(
    spark: SparkSession, written: Written, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(profiling, "TOP_VALUES", 1)
    x: list[float | None] = [1.0] * 900
    old, new = table(spark, x, ["red", "red", "blue"]), table(spark, x, ["red", "red", "pink"])
    assert feature(moved(written, old, new), "colour")["categories"] == {"gone": [], "new": ["pink"], "new_rows": 300}
    monkeypatch.setattr(profiling, "NAMED_VALUES", 0)
    assert feature(moved(written, old, new), "colour")["categories"] == {"gone": [], "new": None, "new_rows": None}


def test_missing_values_should_count_as_a_bin_and_be_told(spark: SparkSession, written: Written) -> None:
    colours: list[str | None] = ["red"]
    told = moved(written, table(spark, [1.0, 2.0] * 500, colours), table(spark, [1.0, None] * 500, colours))
    x = feature(told, "x")
    assert x["missing"] == {"old": 0, "new": 0.5, "change": 0.5}
    assert x["verdict"] == "large"


@pytest.mark.parametrize("nothing", [None, float("nan"), float("inf"), -float("inf")])
def test_whatever_is_no_number_should_count_as_missing(
    spark: SparkSession, written: Written, nothing: float | None
) -> None:
    told = moved(written, table(spark, [1.0, 2.0] * 500, ["red"]), table(spark, [1.0, nothing] * 500, ["red"]))
    x = feature(told, "x")
    assert x["missing"] == {"old": 0, "new": 0.5, "change": 0.5}
    assert x["psi"] == pytest.approx(drift.psi([500, 500, 0], [500, 0, 500])[0])


def test_few_rows_should_not_be_called_drift(spark: SparkSession, written: Written) -> None:
    old = table(spark, [float(i) for i in range(1000)], ["red"])
    x = feature(moved(written, old, table(spark, [100.0, 300.0, 500.0, 520.0, 990.0], ["red"])), "x")
    assert drift.LARGE < x["psi"] < x["chance"]
    assert x["verdict"] == "stable"


def test_a_label_should_be_compared_in_each_task(spark: SparkSession, written: Written) -> None:
    schema = "id long, x double, colour string, late"
    for task, label, kind, values in [
        ("binary", "", "int", (0, 1)),
        ("multiclass", 'classes = ["a", "b", "c"]', "string", ("a", "b")),
        ("regression", "", "double", (1.0, 9.0)),
    ]:
        settings = of_task(task, label)
        old, new = (
            spark.createDataFrame(
                [(i, 1.0, "red", values[i % every == 0], "train") for i in range(600)], f"{schema} {kind}, side string"
            )
            for every in (2, 6)
        )
        before = profiled(written, old, settings)
        told = drift.drift(before, profiled(written, new, settings, before))
        assert told["label"]["psi"] == pytest.approx(drift.psi([300, 300], [100, 500])[0], rel=1e-6), task
        assert told["label"]["verdict"] == told["verdict"] == "large"


def test_a_label_of_another_task_should_not_be_compared(spark: SparkSession, written: Written) -> None:
    schema = "id long, x double, colour string, late"
    tasks = [(of_task("binary", ""), "int", 1), (of_task("regression", ""), "double", 2.5)]
    profiles = {}
    for settings, kind, most in tasks:
        frame = spark.createDataFrame(
            [(i, i % 9.0, "red", most * (i % 2), "train") for i in range(100)], f"{schema} {kind}, side string"
        )
        profiles[settings.task] = frame, settings, profiled(written, frame, settings)
    for old, new in (("binary", "regression"), ("regression", "binary")):
        before, (frame, settings, _) = profiles[old][2], profiles[new]
        told = drift.drift(before, profiled(written, frame, settings, before))
        assert told["label"] is None
        assert [of["psi"] for of in told["features"]] == [0, 0]


def test_features_of_one_profile_only_should_be_named(spark: SparkSession, written: Written) -> None:
    rows = table(spark, [1.0, 2.0], ["1", "2"])
    before = profiled(written, rows, points.settings())
    other = replace(points.settings(), features=Declared(numbers=("colour",)))
    told = drift.drift(before, profiled(written, rows, other, before))
    assert (told["added"], told["gone"], told["features"]) == (["colour"], ["x", "colour"], [])


def test_a_profile_that_was_not_counted_over_the_old_bins_should_be_refused(
    spark: SparkSession, written: Written
) -> None:
    told = profiled(written, table(spark, [1.0, 2.0], ["red"]), points.settings())
    with pytest.raises(JobError, match="x was not counted over the old profile's bins: make it with profile"):
        drift.drift(told, told)
