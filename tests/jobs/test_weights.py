"""[training] weights: classes that count more while they are learned from and called, and only there."""

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from pyspark.sql import SparkSession
from pyspark.sql import functions as F

from jobs import predict, train
from jobs.learners import encoding, grow
from jobs.learners.survey import Survey
from jobs.models import forms, registry
from jobs.models.tasks import PREDICTION
from jobs.tables import settings as declared
from tests.jobs import points
from tests.jobs.conftest import Written

AS_TREE = "depth = 3\nmin_leaf = 5\n"
BINS = [6, 4, 9]


def test_a_class_that_counts_three_times_should_be_split_as_if_it_had_three_times_the_rows() -> None:
    random = np.random.default_rng(3)
    codes = np.stack([random.integers(0, size, 900) for size in BINS]).astype(np.uint8)
    label = (codes[0] + codes[2] + random.normal(0, 3, 900) > 9).astype(np.uint8)
    often = np.repeat(np.arange(900), np.where(label == 1, 3, 1))
    weighted, repeated, plain = (
        grow.grow_here(grow.Block(codes[:, rows], label[rows]), BINS, 2, depth=4, min_leaf=1, weights=weights)
        for rows, weights in ((np.arange(900), np.array([1.0, 3.0])), (often, None), (np.arange(900), None))
    )

    def splits(nodes: Any) -> list[tuple[int, int]]:
        return [(node.feature, node.bin) for node in nodes]

    assert splits(weighted) == splits(repeated) != splits(plain)
    assert grow.rows_of(weighted[0].counts, 2) == 900, "rows are counted as they are"
    least = grow.grow_here(grow.Block(codes, label), BINS, 2, depth=4, min_leaf=60, weights=np.array([1.0, 9.0]))
    assert min(grow.rows_of(node.counts, 2) for node in least) >= 60, "and so are those of a leaf"


def test_balanced_classes_should_weigh_the_same_together_and_only_ratios_should_matter() -> None:
    balanced = points.multiclass(AS_TREE, AS_TREE + 'weights = "balanced"\n')
    found = encoding.class_weights(balanced, [60, 30, 10])
    assert found is not None
    assert found.tolist() == pytest.approx([100 / (3 * 60), 100 / (3 * 30), 100 / (3 * 10)])
    one, other = (
        encoding.class_weights(points.settings(AS_TREE, f"{AS_TREE}weights = {{ {text} }}\n"), [80, 20])
        for text in ("positive = 5", "positive = 50, negative = 10")
    )
    assert one is not None
    assert other is not None
    assert one.tolist() == pytest.approx(other.tolist())
    assert one @ [80, 20] == pytest.approx(100)
    assert encoding.class_weights(points.settings(), [80, 20]) is None


@pytest.mark.parametrize(
    ("make", "weights", "said"),
    [
        (
            points.settings,
            "{ yes = 5 }",
            "training.weights: yes is no class of this task, which has negative, positive",
        ),
        (
            points.multiclass,
            "{ low = 2, huge = 5 }",
            "training.weights: huge is no class of this task, which has low, mid",
        ),
        (points.settings, "{ positive = 0 }", "training.weights: positive is 0, and a weight is a number above 0"),
        (points.settings, "{ positive = -2 }", "training.weights: positive is -2, and a weight is"),
        (points.settings, "{ positive = nan }", "training.weights: positive is nan, and a weight is"),
        (points.settings, "{ positive = inf }", "training.weights: positive is inf, and a weight is"),
        (points.settings, "{}", "weights: name a class and what a row of it counts, or leave it out"),
        (points.settings, '"exposure"', "training.weights: 'exposure' is neither \"balanced\" nor a table of classes"),
        (points.regression, '"balanced"', "training.weights: they are by class, and a regression has none"),
    ],
)
def test_weights_that_cannot_be_meant_should_be_told_before_a_cluster_starts(
    make: Any, weights: str, said: str
) -> None:
    with pytest.raises(ValueError, match="weights") as told:
        make(AS_TREE, f"{AS_TREE}weights = {weights}\n")
    assert said in str(told.value)


def test_weights_should_reach_the_jobs_as_they_are_set() -> None:
    for text in ("{ positive = 5 }", '"balanced"'):
        settings = points.settings(AS_TREE, f"{AS_TREE}weights = {text}\n")
        assert declared.from_json(settings.to_json()) == settings
        assert json.loads(json.dumps(settings.training.used))["weights"] == settings.training.weights
    assert "weights" not in points.settings().training.used


def rare(spark: SparkSession, written: Written, settings: Any) -> Any:
    late = "pmod(xxhash64(id), 1000) < 60 * (id % 20) - 500"  # nearly a fifth of the rows
    label = f"int({late})" if settings.task == "binary" else f"IF({late}, 'high', IF(id % 3 = 0, 'mid', 'low'))"
    rows = spark.range(3000).selectExpr(
        "id",
        "double(id % 20) AS x",
        "element_at(array('red', 'green', 'blue'), 1 + int(id % 3)) AS colour",
        label + " AS late",
    )
    return written(rows, settings)


LEARNERS = {
    "tree": AS_TREE,
    "mllib": f'learner = "mllib"\n{AS_TREE}',
    "forest": 'learner = "forest"\ntrees = 5\ndepth = 4\n',
    "boosted": 'learner = "boosted"\nrounds = 10\nleaves = 6\nlearning_rate = 0.3\n',
}


def test_every_learner_should_weigh_classes_and_say_what_rows_as_they_are_say(
    spark: SparkSession, written: Written
) -> None:
    plain, weighted = (
        replace(points.settings(AS_TREE, AS_TREE + more), time=None) for more in ("", "weights = { positive = 9 }\n")
    )
    features = rare(spark, written, plain)
    surveys = [Survey(features, own, train.marks(features, own)) for own in (plain, weighted)]
    for learner, text in LEARNERS.items():
        as_set = points.settings(AS_TREE, text).training
        one, other = (
            train.fit_and_score(
                features, replace(own, training=replace(as_set, weights=own.training.weights)), None, survey
            )
            for own, survey in zip((plain, weighted), surveys, strict=True)
        )
        assert [str(nodes) for nodes in forms.trees(one.tree)] != [str(nodes) for nodes in forms.trees(other.tree)]
        assert other.tree["threshold"] == pytest.approx(0.1)
        assert (other.tree["format"], one.tree["format"] in (2, 3)) == (4, True)
        assert other.test["log_loss"] < 0.95 * other.baseline["log_loss"], f"{learner} says no weighted shares"
        assert other.test["log_loss"] == pytest.approx(one.test["log_loss"], rel=0.05), learner
        mean = (other.found.probability * other.found.rows).sum() / other.found.total
        assert mean == pytest.approx(other.found.total_positives / other.found.total, abs=0.04), learner
        assert other.test["recall"] > 0.9 > one.test["recall"], learner


def test_a_rare_class_should_be_called_by_its_weight(spark: SparkSession, written: Written) -> None:
    settings = points.multiclass(AS_TREE, LEARNERS["boosted"] + 'weights = "balanced"\n')
    settings = replace(settings, time=None, slices=("colour",))
    trained = train.fit_and_score(rare(spark, written, settings), settings)
    weights = trained.tree["weights"]
    shares = [count / trained.rows["train"] for count in trained.labels["train"].counts]
    assert weights == pytest.approx([1 / (3 * share) for share in shares])
    confusion = np.array(trained.test["confusion"])
    assert confusion[2, 2] / confusion[2].sum() > 0.5
    assert trained.test["log_loss"] < trained.baseline["log_loss"]
    assert trained.scored is not None
    model = registry.Registered("run", "home", trained.tree)
    rows = trained.scored.select("late", *predict.said(model)).groupBy("late", PREDICTION).count().collect()
    place = {name: i for i, name in enumerate(settings.label.classes)}
    spark_says = np.zeros((3, 3), dtype=int)
    for row in rows:
        spark_says[place[row["late"]], place[row[PREDICTION]]] = row["count"]
    assert spark_says.tolist() == confusion.tolist(), "Spark calls rows as the figures have it"
    slices = train.metrics.slices(
        trained.scored,
        "multiclass",
        train.tasks.label_column(settings.label, "multiclass"),
        ["colour"],
        shares,
        weights,
    )
    right = sum(one["accuracy"] * one["rows"] for one in slices["colour"])
    assert right == pytest.approx(trained.test["accuracy"] * trained.test["rows"])
    assert trained.scored.where(F.col("late") == "high").count() == confusion[2].sum()
