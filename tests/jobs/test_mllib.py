"""MLlib's own trees read into our format: the reference that our tree is held against."""

import dataclasses
from typing import Any

import numpy as np
import pytest
from pyspark.ml.classification import RandomForestClassifier
from pyspark.ml.functions import vector_to_array
from pyspark.ml.regression import RandomForestRegressor
from pyspark.sql import SparkSession
from pyspark.sql import functions as F

from jobs.learners.survey import Survey
from jobs.models import forms, tree
from jobs.tables import split
from jobs.tables.settings import Dataset
from jobs.train import fit_and_score, marks
from tests.jobs import points
from tests.jobs.conftest import Written
from tests.jobs.test_boosted import TASKS

AS_TREE = "depth = 3\nmin_leaf = 5\n"
OWN = {"binary": points.settings, "multiclass": points.multiclass, "regression": points.regression}


def table(spark: SparkSession, task: str, rows: int = 900) -> Any:
    """Numbers of which no two splits are equally good."""
    random = np.random.default_rng(7)
    x, noise = random.normal(size=rows), random.normal(size=rows)
    label = {
        "binary": lambda i: int(x[i] + noise[i] > 0.3),
        "multiclass": lambda i: ("low", "mid", "high")[int(np.clip(x[i] * 1.2 + noise[i] / 2 + 1, 0, 2))],
        "regression": lambda i: float(x[i] ** 2 + noise[i]),
    }[task]
    made = [(i, float(x[i]), ("red", "green", "blue")[i % 3], label(i)) for i in range(rows)]
    return spark.createDataFrame(made, f"id int, x double, colour string, late {TASKS[task][1]}")


def settings(task: str, training: str) -> Dataset:
    return OWN[task](AS_TREE, training + "bins = 32\n")


@pytest.mark.parametrize("task", ["multiclass", "regression"])
def test_mllib_should_split_as_our_own_tree_does(spark: SparkSession, written: Written, task: str) -> None:
    """Of a classification MLlib merges leaves that call the same class: there it ends above, but nowhere differs."""
    features = written(table(spark, task), settings(task, AS_TREE))
    own, mllib = (
        fit_and_score(features, settings(task, training)).tree
        for training in (AS_TREE, 'learner = "mllib"\n' + AS_TREE)
    )
    ours, theirs = ({node["id"]: node for node in one["nodes"]} for one in (own, mllib))
    waiting, compared = [(own["nodes"][0]["id"], mllib["nodes"][0]["id"])], 0
    while waiting:
        one, other = (nodes[i] for nodes, i in zip((ours, theirs), waiting.pop(), strict=True))
        assert one["rows"] == other["rows"]
        if "feature" in other:
            assert (one["feature"], one["threshold"]) == (other["feature"], other["threshold"])
            assert one["gain"] == pytest.approx(other["gain"], rel=1e-6)
            waiting += [(one[side], other[side]) for side in ("left", "right")]
            compared += 1
        elif "feature" in one:
            assert task != "regression"
            assert len({called(leaf) for leaf in below(one, ours)}) == 1
    assert compared >= (7 if task == "regression" else 2)
    assert mllib["format"] == 2


def below(node: dict[str, Any], nodes: dict[int, Any]) -> list[dict[str, Any]]:
    if "feature" not in node:
        return [node]
    return [leaf for side in ("left", "right") for leaf in below(nodes[node[side]], nodes)]


def called(leaf: dict[str, Any]) -> int:
    return int(np.argmax(leaf["probabilities"]))


@pytest.mark.parametrize("task", ["binary", "multiclass"])
def test_a_forest_should_say_what_mllibs_own_model_says(spark: SparkSession, written: Written, task: str) -> None:
    """But that leaves are smoothed, which here is switched off to compare."""
    training = 'learner = "forest"\ndepth = 4\nmin_leaf = 20\ntrees = 3\nseed = 5\n'
    own = settings(task, training)
    features = written(table(spark, task), own)
    smooth = fit_and_score(features, own)
    assert smooth.test["log_loss"] < 0.95 * smooth.baseline["log_loss"]
    own = dataclasses.replace(own, training=dataclasses.replace(own.training, smoothing=1e-9))
    trained = fit_and_score(features, own)
    assert trained.test["log_loss"] != smooth.test["log_loss"]
    survey = Survey(features, own, marks(features, own))
    parts = survey.parts(test=False)
    rows = survey.vectors(parts, survey.learn(parts))
    learner = RandomForestClassifier() if task == "multiclass" else RandomForestRegressor()
    learner.setNumTrees(3).setFeatureSubsetStrategy("sqrt")
    learner.setMaxDepth(4).setMinInstancesPerNode(20).setMaxBins(32).setSeed(5)
    scored = learner.fit(rows).transform(rows)
    says = vector_to_array("probability") if task == "multiclass" else "prediction"  # type: ignore[arg-type]
    expected = [row[0] for row in scored.select(says).collect()]
    train = features.rows.where(F.col(split.ROW_SIDE) == split.TRAIN)
    said = [row[-1] for row in tree.score(train, trained.tree, [F.col("id")]).collect()]
    assert sorted(np.ravel(said)) == pytest.approx(sorted(np.ravel(expected)), rel=1e-9, abs=1e-9)
    assert forms.shape(trained.tree)["trees"] == 3


def test_a_class_that_no_training_row_has_should_be_told_as_improbable_by_a_forest(
    spark: SparkSession, written: Written
) -> None:
    """MLlib counts classes up to the last one that it has seen."""
    two = table(spark, "multiclass").replace("high", "mid", subset=["late"])
    trained = fit_and_score(written(two, settings("multiclass", "")), settings("multiclass", 'learner = "forest"\n'))
    leaves = [node for one in trained.tree["trees"] for node in one["nodes"] if "feature" not in node]
    assert {len(leaf["probabilities"]) for leaf in leaves} == {3}
    assert {leaf["probabilities"][2] for leaf in leaves} == {0.0}
    assert 0 < trained.test["log_loss"] < trained.baseline["log_loss"]
