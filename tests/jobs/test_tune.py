"""Tuning: depth and leaf size are chosen without the test side, and by figures that a fit of each would give."""

from dataclasses import replace
from typing import Any

import pytest
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from jobs import train
from jobs.errors import JobError
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


def test_the_runs_own_lists_should_grow_with_the_rows_and_keep_to_what_is_set() -> None:
    own = Tune()
    depths, sizes = tune.grid(own, "multiclass", 275, 4 * 128, 3)
    assert (depths, sizes) == (list(range(1, 18)), [1, 3, 10])
    assert tune.grid(own, "regression", 2_500, 500, 0) == (list(range(1, 21)), [1, 3, 10, 30, 100])
    assert tune.grid(own, "binary", 164_000, 500, 2)[1] == [10, 30, 100, 300, 1000, 3000, 10_000]
    assert tune.grid(own, "multiclass", 50_000, 20 * 128, 100)[1] == [
        100,
        300,
        1000,
        3000,
    ]  # smaller ones would take minutes
    assert tune.grid(own, "multiclass", 30_000, 10 * 128, 500)[1] == [10, 30, 100, 300, 1000, 3000], "few each, below"
    assert tune.grid(own, "multiclass", 30_000, 10 * 128, 500, weighed=True)[1] == [100, 300, 1000, 3000]
    # 50,000 rows of 500 classes: leaves of one row would be 100,000 nodes of 16 kB, leaves of ten are 160 MB.
    assert tune.grid(own, "multiclass", 50_000, 200, 500)[1] == [10, 30, 100, 300, 1000, 3000]
    assert tune.grid(own, "multiclass", 50_000, 200, 100)[1] == [3, 10, 30, 100, 300, 1000, 3000]
    assert tune.grid(own, "multiclass", 10**8, 3, 500)[1] == [11921], "none of the list: the smallest that fits"
    assert tune.grid(own, "binary", 5, 500, 2) == ([1, 2, 3, 4, 5], [1])
    assert tune.grid(Tune(depths=(4,)), "binary", 275, 500, 2) == ([4], [1, 3, 10])
    assert tune.grid(Tune((5, 2), (7, 1)), "binary", 10**8, 10**6, 2) == ([2, 5], [1, 7])


@pytest.mark.parametrize("task", CASES)
def test_of_many_rows_a_sample_should_tell_which_leaf_sizes_to_try_on_all(
    spark: SparkSession, written: Written, task: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    make, label = CASES[task]
    settings = asked(make(), [1, 3], [2, 20, 90, 400])
    features = written(rows(spark, label), settings)
    survey = Survey(features, settings, train.marks(features, settings))
    assert settings.tune
    parts = survey.parts(held=False), survey.parts(held=True)
    whole = tune.choose(survey, *parts, settings.tune)
    assert whole["sample"] == 0
    monkeypatch.setattr(tune, "ON_DRIVER_ROWS", 500)
    assert tune.choose(survey, *parts, settings.tune)["sample"] == 0, "it has too few leaves of 400 rows to tell"
    monkeypatch.setattr(tune, "SAMPLED_LEAVES", 1)
    monkeypatch.setattr(tune, "SAMPLED_RARE", 30)
    sampled = tune.choose(survey, *parts, settings.tune)
    assert sampled["sample"] == 500
    asked_of_all = [one for one in sampled["tried"] if "sampled" not in one]
    assert 2 <= len({one["min_leaf"] for one in asked_of_all}) <= 3
    assert len(sampled["tried"]) == len(whole["tried"]) == 8
    figures = {(one["depth"], one["min_leaf"]): one[whole["metric"]] for one in whole["tried"]}
    same = {key: pytest.approx(figure, rel=1e-9) for key, figure in figures.items()}
    for one in asked_of_all:  # Spark's trees are the driver's
        assert one[whole["metric"]] == same[one["depth"], one["min_leaf"]]
    others = [one for one in sampled["tried"] if "sampled" in one]
    assert any(one[whole["metric"]] != same[one["depth"], one["min_leaf"]] for one in others)
    assert sampled["chosen"] in [{key: one[key] for key in ("depth", "min_leaf")} for one in asked_of_all]


def test_what_tune_does_not_list_should_be_as_training_has_it() -> None:
    settings = points.settings()
    fixed = replace(settings, training=replace(settings.training, depth=None, min_leaf=200), tune=Tune((8, 12), ()))
    assert fixed.tuning == Tune((8, 12), (200,))
    assert replace(fixed, tune=None).tuning == Tune((), (200,))
    assert replace(fixed, training=replace(fixed.training, depth=3), tune=None).tuning is None


def days(spark: SparkSession, label: str, count: int = 1200) -> DataFrame:
    """Three days before the cut, 2024-01-03, and one from it on. Each day has its own x."""
    return spark.range(count).selectExpr(
        "id",
        "date_add(DATE'2023-12-31', int(id % 4)) AS day",
        "double(id % 4) AS x",
        "IF(id % 8 < 4, 'red', 'green') AS colour",
        f"{label} AS late",
    )


def test_with_a_time_what_does_best_on_the_latest_days_before_the_cut_should_be_chosen(
    spark: SparkSession, written: Written
) -> None:
    # Colour tells a little on every day; x, which tells the day, tells a lot, but not of days to come.
    late = (
        "int(pmod(xxhash64(id), 100) < IF(id % 8 < 4, 60, 40) + CASE id % 4 WHEN 0 THEN -39 WHEN 1 THEN 39 ELSE {} END)"
    )
    settings = points.settings("depth = 3\nmin_leaf = 5\n", "")
    trained = train.fit_and_score(written(days(spark, late.format(0)), settings), settings)
    assert trained.tuning is not None
    by_hash = replace(settings, time=None)
    shuffled = train.fit_and_score(written(days(spark, late.format(0)), by_hash), by_hash)
    assert shuffled.tuning is not None
    assert (trained.tuning["by"], shuffled.tuning["by"]) == ("time", "hash")
    assert trained.tuning["chosen"]["depth"] < shuffled.tuning["chosen"]["depth"]
    learned = trained.tuning["rows"]
    assert learned["fitted"] == pytest.approx(
        480, abs=45
    )  # two days of the training side, less than four deviations off
    assert learned["validated"] == pytest.approx(240, abs=30)  # the latest day: a quarter would be three parts of it
    # What comes from the cut on is what the model is tested on, and has no part in the choice.
    other = train.fit_and_score(written(days(spark, late.format("IF(id % 4 = 3, 40, 0)")), settings), settings)
    assert other.tuning == trained.tuning
    assert other.tree["nodes"] != trained.tree["nodes"]


@pytest.mark.parametrize(
    ("day", "late", "said"),
    [
        (
            "DATE'2024-01-02'",
            "int(id % 2)",
            r"rows of 1 day before time.cut \(2024-01-03\): depth and leaf size are chosen",
        ),
        ("DATE'2024-01-04'", "int(id % 2)", r"rows of 0 days before time.cut"),
        (
            "IF(id < 3, DATE'2024-01-01', DATE'2024-01-02')",
            "int(id % 2)",
            "rows on the part of the training side to learn",
        ),
        (
            "IF(id < 90, DATE'2024-01-01', DATE'2024-01-02')",
            "int(id % 2)",
            "rows on the validation part .* are too few",
        ),
        (
            "IF(id < 60, DATE'2024-01-01', DATE'2024-01-02')",
            "int(id % 2 = 0 AND id < 60)",
            "has one class only on the validation part of the training side: 0 of",
        ),
    ],
)
def test_what_cannot_be_validated_by_time_should_be_said_with_the_ways_out(
    spark: SparkSession, written: Written, day: str, late: str, said: str
) -> None:
    settings = points.settings("depth = 3\nmin_leaf = 5\n", "")
    rows = spark.range(100).selectExpr(
        "id", f"{day} AS day", "double(id % 9) AS x", "'red' AS colour", f"{late} AS late"
    )
    with pytest.raises(JobError, match=said) as error:
        train.fit_and_score(written(rows, settings), settings)
    assert "time.cut to a later day" in str(error.value)
    assert "set training.depth and training.min_leaf in datasets/points/dataset.toml" in str(error.value)
