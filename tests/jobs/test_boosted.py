"""Boosted trees: what XGBoost has learned from bin numbers, said by our own scorers of the features' numbers."""

import dataclasses
import json
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xgboost
from pyspark.sql import SparkSession
from pyspark.sql import functions as F

from jobs.errors import JobError
from jobs.learners import boosted
from jobs.learners.survey import Survey
from jobs.models import forms, tree
from jobs.tables import split
from jobs.tables.features import Features
from jobs.tables.settings import Dataset
from jobs.train import fit_and_score, marks
from tests.jobs import points
from tests.jobs.conftest import Written

DYNAMIC = "spark.dynamicAllocation.enabled"
AS_TREE, BOOSTED = "depth = 3\nmin_leaf = 5\n", 'learner = "boosted"\nrounds = 12\nleaves = 6\nlearning_rate = 0.3\n'
TASKS: dict[str, tuple[Callable[..., Dataset], str, Callable[[int, int], Any]]] = {
    "binary": (points.settings, "int", lambda i, x: int(x > 5 or i % 7 == 0)),
    "multiclass": (points.multiclass, "string", lambda i, x: ("low", "mid", "high")[x // 4 if i % 9 else i % 3]),
    "regression": (points.regression, "double", lambda i, x: 1e9 + x * x / 7 + (i % 3)),
}


def table(spark: SparkSession, written: Written, settings: Dataset, rows: int = 1500) -> Features:
    _, kind, label = TASKS[settings.task]
    made = [
        (i, None if i % 11 == 0 else i % 10 + i % 13 / 13, ("red", "green", None)[i % 3], label(i, i % 10))
        for i in range(rows)
    ]
    return written(spark.createDataFrame(made, f"id int, x double, colour string, late {kind}"), settings)


@pytest.mark.parametrize("task", TASKS)
def test_what_xgboost_learned_from_bins_should_be_what_our_scorer_says_of_numbers(
    spark: SparkSession, written: Written, task: str
) -> None:
    settings = TASKS[task][0](AS_TREE, BOOSTED)
    features = table(spark, written, settings)
    trained = fit_and_score(features, settings)
    main = "rmse" if task == "regression" else "log_loss"
    assert trained.test[main] < 0.8 * trained.baseline[main]
    assert forms.shape(trained.tree)["trees"] == 12 * (3 if task == "multiclass" else 1)
    assert forms.importances(trained.tree)[0]["feature"] == "x"

    survey = Survey(features, settings, marks(features, settings))
    parts = survey.parts(test=False)
    learned, start = survey.learn(parts), boosted._start(survey, parts)
    model, _ = boosted._boosted(survey, [parts], learned, start, settings.training, 12)
    booster = xgboost.Booster()
    booster.load_model(bytearray(json.dumps(model), "utf-8"))
    (block,) = survey.collected([parts], learned, 10**6)
    base = np.tile(np.float32(start.base), (len(block.label), 1))
    codes = xgboost.DMatrix(block.codes.T, base_margin=base if base.shape[1] > 1 else base[:, 0])
    rows = features.rows.where(F.col(split.ROW_SIDE) == split.TRAIN)
    scored = tree.score(rows, trained.tree, [F.col("id")]).drop("id").toPandas().iloc[:, 0].tolist()
    said = sorted(np.ravel(np.array(scored) - start.mean) / start.spread)
    assert sorted(np.ravel(booster.predict(codes))) == pytest.approx(said, abs=1e-5)


def test_several_tasks_should_learn_together_and_the_same_each_time(
    spark: SparkSession, written: Written, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = points.settings(AS_TREE, BOOSTED)
    features = table(spark, written, settings)
    alone = fit_and_score(features, settings)
    monkeypatch.setattr(boosted, "_spread", lambda context, rows: (2, 2, 1))
    together, again = (fit_and_score(features, settings) for _ in range(2))
    assert together.tree == again.tree
    splits = [[node.get("threshold") for node in forms.trees(own.tree)[0]] for own in (alone, together)]
    assert splits[0] == splits[1]
    assert together.test["log_loss"] == pytest.approx(alone.test["log_loss"], rel=0.01)


def test_where_executors_come_and_go_one_task_should_learn_without_a_barrier_stage(
    spark: SparkSession, written: Written, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Spark refuses one there ([SPARK-24942]); a note's session is such a place."""
    settings = points.settings(AS_TREE, BOOSTED)
    features = table(spark, written, settings)
    alone = fit_and_score(features, settings)
    monkeypatch.setattr(boosted, "ROWS_A_TASK", 100)
    monkeypatch.setattr(spark.sparkContext, "_conf", spark.sparkContext.getConf().set(DYNAMIC, "true"))
    assert boosted._spread(spark.sparkContext, 10**9)[:2] == (1, 1)
    with monkeypatch.context() as barred:
        barred.setattr("pyspark.rdd.RDD.barrier", lambda _rdd: pytest.fail("a barrier stage"))
        assert fit_and_score(features, settings).tree == alone.tree


def test_a_worker_that_is_lost_should_have_the_whole_stage_tried_again(
    spark: SparkSession, written: Written, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    settings, died = points.settings(AS_TREE, BOOSTED), tmp_path / "died"
    features = table(spark, written, settings)
    work, own = boosted._Work, str(died)

    class Dying(work):  # type: ignore[valid-type, misc]
        def _learned(self, dealt: Any) -> Any:
            try:
                os.close(os.open(own, os.O_CREAT | os.O_EXCL))
            except FileExistsError:
                return super()._learned(dealt)
            return os.kill(os.getpid(), signal.SIGKILL)

    monkeypatch.setattr(boosted, "_spread", lambda context, rows: (2, 2, 1))
    whole = fit_and_score(features, settings)
    monkeypatch.setattr(boosted, "_Work", Dying)
    assert fit_and_score(features, settings).tree == whole.tree
    assert died.exists()


def test_the_rounds_should_be_those_that_do_best_on_the_validation_part(spark: SparkSession, written: Written) -> None:
    """The label is x > 5 and noise: the more rounds, the more of the noise is learned."""
    settings = dataclasses.replace(points.settings(AS_TREE, 'learner = "boosted"\n'), time=None)
    frame = spark.createDataFrame(
        [(i, i % 997 / 99.7, "red", int((i % 997 > 500) != (i * 7919 % 4 == 0))) for i in range(4000)],
        "id int, x double, colour string, late int",
    )
    trained = fit_and_score(written(frame, settings), settings)
    assert trained.tuning is not None
    tried = {one["rounds"]: one["log_loss"] for one in trained.tuning["tried"]}
    chosen = trained.tuning["chosen"]["rounds"]
    assert tried[chosen] == min(tried.values())
    assert 1 < chosen < max(tried) < boosted.MOST_ROUNDS
    assert forms.shape(trained.tree)["trees"] == chosen == trained.tree["settings"]["rounds"]


def test_the_best_learner_should_be_the_one_that_does_best_on_the_validation_part(
    spark: SparkSession, written: Written
) -> None:
    """A slope is more than one tree can say: it has few leaves for it, where their sum has many."""
    settings = dataclasses.replace(points.regression(AS_TREE, 'learner = "best"\n'), time=None)
    frame = spark.createDataFrame(
        [
            (i, i * 7919 % 1009 / 100.9, ("red", "green")[i % 2], i * 7919 % 1009 / 50 + i % 2 * 9.5)
            for i in range(1200)
        ],
        "id int, x double, colour string, late double",
    )
    trained = fit_and_score(written(frame, settings), settings)
    assert trained.tuning is not None
    (first, second), chosen = trained.tuning["leaderboard"], trained.tuning["chosen"]
    assert (first["learner"], second["learner"]) == ("boosted", "tree")
    assert first["rmse"] < second["rmse"]
    assert first["rmse"] == min(one["rmse"] for one in trained.tuning["tried"])
    assert chosen == {"learner": "boosted", **first["chosen"]}
    assert (trained.tree["format"], trained.tree["settings"]["learner"]) == (3, "boosted")
    assert second["chosen"].keys() == {"depth", "min_leaf"}


def test_without_xgboost_a_run_should_say_so_and_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "xgboost", None)
    with pytest.raises(
        JobError, match=r'points/dataset.toml: training.learner = "boosted" needs XGBoost.*deploy again'
    ):
        boosted._require(points.settings(AS_TREE, BOOSTED))


@pytest.mark.parametrize(
    ("error", "said"),
    [
        ("[SPARK-24819]: Barrier execution mode does not allow run", "look for lost nodes"),
        ("ModuleNotFoundError: No module named 'xgboost'", "an executor's Python has no module xgboost"),
        ("xgboost.core.XGBoostError: [12:00] Connection reset by peer", "tried the whole stage again"),
    ],
)
def test_what_a_barrier_stage_fails_by_should_be_said_with_the_way_out(error: str, said: str) -> None:
    with pytest.raises(JobError, match=said):
        boosted.raise_with_reason(RuntimeError(error), points.settings())


@pytest.mark.parametrize(("overhead", "executors"), [(None, 1), (2_000, 8), (6_000, 2)])
def test_rows_that_executors_hold_should_be_boosted(overhead: int | None, executors: int) -> None:
    rows = 50_000_000 if overhead is None else 30_000_000
    assert boosted.tasks_with_room(points.settings(), rows, 3, executors, executors, 4, overhead) == executors


@pytest.mark.parametrize(
    ("rows", "features", "wanted", "tasks"),
    [
        (39_999, 5_000, 1, 3),  # 1,521 MB besides 909 in each executor: 545 are left there for rows
        (39_999, 1_000, 1, 1),
        (80_000, 3_000, 4, 4),
    ],
)
def test_as_many_tasks_should_boost_as_hold_the_rows_of_the_executors_there_are(
    rows: int, features: int, wanted: int, tasks: int
) -> None:
    """Four of c7g.xlarge. By their number alone 39,999 rows are one task's."""
    assert boosted.tasks_with_room(points.settings(), rows, features, wanted, 4, 4, 1454) == tasks
    with pytest.raises(JobError, match=r"nodes for 3 executors \(cluster.maximum_nodes\)"):
        boosted.tasks_with_room(points.settings(), 39_999, 5_000, 1, 2, 4, 1454)


@pytest.mark.parametrize(
    ("overhead", "way_out"),
    [
        (2_000, "give the cluster nodes for 15 executors (cluster.maximum_nodes), or larger nodes"),
        (900, "give the cluster larger nodes"),
    ],
)
def test_rows_that_yarn_would_kill_an_executor_for_should_be_refused_with_the_way_out(
    overhead: int, way_out: str
) -> None:
    """By the need that was measured: 100 million rows of 19 features would be 17 GB in all tasks together."""
    with pytest.raises(JobError) as told:
        boosted.tasks_with_room(points.settings(AS_TREE, BOOSTED), 90_000_000, 19, 3, 3, 4, overhead)
    said = str(told.value)
    assert "90,000,000 rows of 19 features on 3 executors take 6,321 MB of each outside of Java's heap" in said
    assert f"which has {overhead:,} there (spark.executor.memoryOverhead)" in said
    assert way_out in said


def test_the_step_should_say_what_executors_have_outside_of_java(spark: SparkSession) -> None:
    context = spark.sparkContext
    assert boosted.overhead_mb(context) is None

    class Told:
        _jvm = context._jvm

        def getConf(self) -> dict[str, str]:
            return {"spark.executor.memoryOverhead": "4444m"}

    assert boosted.overhead_mb(Told()) == 4444  # type: ignore[arg-type]
