"""Tuning: depth and leaf size are chosen without the test side, and by figures that a fit of each would give."""

from dataclasses import replace
from typing import Any

import pytest
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from jobs import train
from jobs.learners import tune
from jobs.learners.survey import Survey
from jobs.tables import split
from jobs.tables.settings import Dataset, Tune
from tests.jobs import points
from tests.jobs.conftest import Written


def asked(settings: Dataset, depths: list[int], min_leaves: list[int]) -> Dataset:
    return replace(settings, tune=Tune(tuple(depths), tuple(min_leaves), validation_share=0.3), time=None)


def rows(spark: SparkSession, label: str, count: int = 1500) -> DataFrame:
    noise = "pmod(xxhash64(id), 1000) / 1000.0"
    return spark.range(count).selectExpr(
        "id", "double(id % 32) AS x", "concat('c', id % 7) AS colour", f"{label.format(noise=noise)} AS late"
    )


def chosen(frame: DataFrame, settings: Dataset, written: Written) -> dict[str, Any]:
    features = written(frame, settings)
    survey = Survey(features, settings, train.marks(features, settings))
    assert settings.tuning
    return tune.choose(survey, survey.parts(held=False), survey.parts(held=True), settings.tuning)


CASES = {
    "binary": (points.settings, "int({noise} < IF(id % 32 > 15, 0.8, 0.2))"),
    "multiclass": (
        points.multiclass,
        "CASE WHEN {noise} < 0.2 THEN 'low' WHEN id % 32 > 15 THEN 'mid' ELSE 'high' END",
    ),
    "regression": (points.regression, "double(int(id % 32 > 15) + {noise} * 3)"),
}


@pytest.mark.parametrize("task", CASES)
def test_each_depth_should_have_the_figure_that_a_fit_of_that_depth_has(
    spark: SparkSession, written: Written, task: str
) -> None:
    make, label = CASES[task]
    frame, settings = rows(spark, label), asked(make(), [1, 2, 5], [3, 40])
    told = chosen(frame, settings, written)
    assert len(told["tried"]) == 6
    assert told["rows"]["fitted"] + told["rows"]["validated"] == 1500
    held = F.xxhash64("id").bitwiseAND(2**32 - 1) < int(0.3 * 2**32)  # the hash that a frame without sides is given
    sided = frame.withColumn(split.SIDE, F.when(held, split.TEST).otherwise(split.TRAIN))
    for one in told["tried"]:
        alone = make()
        alone = replace(alone, training=replace(alone.training, depth=one["depth"], min_leaf=one["min_leaf"]))
        trained = train.fit_and_score(written(sided, alone), alone)
        trained.unpersist()
        assert one[told["metric"]] == pytest.approx(trained.test[told["metric"]], rel=1e-6)


def test_noise_should_be_answered_with_a_shallow_tree_of_large_leaves(spark: SparkSession, written: Written) -> None:
    make, label = CASES["binary"]
    told = chosen(rows(spark, label), asked(make(), [1, 5], [1, 100]), written)
    assert told["chosen"] == {"depth": 1, "min_leaf": 100}


def test_training_should_use_what_was_chosen_and_never_see_the_test_side(spark: SparkSession, written: Written) -> None:
    make, label = CASES["binary"]
    settings = asked(make(), [1, 3], [10])
    frame = rows(spark, label).withColumn(split.SIDE, split.side(0.2, split.hashed(["id"], 0)))
    flipped = frame.withColumn(
        "late", F.when(F.col(split.SIDE) == split.TEST, 1 - F.col("late")).otherwise(F.col("late"))
    )
    one, other = (train.fit_and_score(written(sided, settings), settings) for sided in (frame, flipped))
    assert one.tuning is not None
    assert one.tuning == other.tuning
    assert one.tree["nodes"] == other.tree["nodes"]
    share = one.tuning["rows"]["validated"] / one.rows["train"]
    assert share == pytest.approx(0.3, abs=0.06)  # four standard deviations
    assert one.tree["settings"]["depth"] == one.tuning["chosen"]["depth"]
    assert max(node["depth"] for node in one.tree["nodes"]) <= one.tuning["chosen"]["depth"]
