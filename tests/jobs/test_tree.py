"""The tree as JSON, as an MLlib model and as a scorer: conditions that one can read, and the same value everywhere."""

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pyspark.ml.classification import DecisionTreeClassificationModel
from pyspark.ml.linalg import Vectors
from pyspark.ml.regression import DecisionTreeRegressionModel
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from jobs.learners import grow, probability_tree
from jobs.learners.survey import Survey
from jobs.models import forms, inputs, tree
from jobs.tables.session import CELLS_AT_ONCE
from jobs.tables.settings import Dataset
from tests.jobs import points
from tests.jobs.conftest import Written

CASES = {
    "binary": (points.settings, "int", lambda i: int(i % 7 < 3 or i % 10 > 6)),
    "multiclass": (
        points.multiclass,
        "string",
        lambda i: ("low", "mid", "high")[min(i % 10 // 3, 2) if i % 4 else i % 3],
    ),
    "regression": (points.regression, "double", lambda i: i % 10 * 1.5 + (i % 4 == 1) * 7 + i % 3 * 0.1),
}


def grown(
    spark: SparkSession,
    written: Written,
    rows: list[tuple[Any, ...]],
    depth: int,
    settings: Dataset | None = None,
    kind: str = "int",
    smoothing: float = 0.0,
) -> tuple[forms.Told, Any, DataFrame]:
    """tree.json of all rows, the nodes' totals, and the rows."""
    settings = settings or points.settings()
    frame = spark.createDataFrame(
        [(i, *row) for i, row in enumerate(rows)], f"id int, x double, colour string, late {kind}"
    )
    classes = settings.classes
    survey = Survey(written(frame, settings), settings, {})
    learned = survey.learn(survey.parts())
    blocks = survey.code(survey.parts(), learned)
    nodes = grow.grow(blocks, learned.bins, classes, depth=depth, min_leaf=1)
    totals = grow.node_totals(blocks, nodes, classes)
    told = {"task": settings.task, "classes": list(settings.label.classes), "features": learned.features}
    return {**told, "nodes": probability_tree.describe(nodes, learned, classes, totals, smoothing)}, totals, frame


def test_a_threshold_on_a_number_should_be_told_with_rows_and_probabilities(
    spark: SparkSession, written: Written
) -> None:
    rows = [(1.0, "red", 0), (2.0, "red", 0), (3.0, "red", 0), (4.0, "red", 1), (5.0, "red", 1)]
    root, left, right = grown(spark, written, rows, depth=1)[0]["nodes"]
    assert (root["condition"], root["otherwise"]) == ("x <= 3.5", "x > 3.5")
    assert (root["feature"], root["threshold"], root["depth"], root["rows"]) == ("x", 3.5, 0, 5)
    assert root["probability"] == 2 / 5
    assert (root["impurity"], root["gain"]) == (pytest.approx(0.24), pytest.approx(0.24))  # the variance of 0 0 0 1 1
    assert (root["left"], root["right"]) == (left["id"], right["id"])
    assert (left["rows"], left["probability"], right["rows"], right["probability"]) == (3, 0.0, 2, 1.0)
    assert "feature" not in left


def test_a_regression_should_tell_means_and_variances(spark: SparkSession, written: Written) -> None:
    rows = [(1.0, "red", 1.5), (2.0, "red", 2.5), (3.0, "red", 10.0)]
    root, left, right = grown(spark, written, rows, 1, points.regression(), "double")[0]["nodes"]
    assert (root["condition"], left["value"], right["value"]) == ("x <= 2.5", pytest.approx(2.0), pytest.approx(10.0))
    assert root["value"] == pytest.approx(14 / 3)
    assert root["impurity"] == pytest.approx(np.var([1.5, 2.5, 10.0]))
    assert root["gain"] == pytest.approx(np.var([1.5, 2.5, 10.0]) - 2 / 3 * 0.25)


def test_several_classes_should_each_have_their_share(spark: SparkSession, written: Written) -> None:
    rows = [(1.0, "red", "low"), (1.0, "red", "low"), (1.0, "red", "mid"), (2.0, "red", "high")]
    root, left, right = grown(spark, written, rows, 1, points.multiclass(), "string")[0]["nodes"]
    assert root["probabilities"] == [0.5, 0.25, 0.25]
    assert left["probabilities"] == [pytest.approx(2 / 3), pytest.approx(1 / 3), 0]
    assert right["probabilities"] == [0, 0, 1]


def test_a_leaf_should_be_as_sure_as_its_rows_allow(spark: SparkSession, written: Written) -> None:
    rows = [(1.0, "red", 0), (1.0, "red", 0), (1.0, "red", 0), (2.0, "red", 1), (3.0, "red", 0)]
    root, left, right, low, high = grown(spark, written, rows, depth=2, smoothing=2.0)[0]["nodes"]
    assert root["probability"] == 1 / 5
    assert left["probability"] == pytest.approx((0 + 2 * 1 / 5) / (3 + 2))
    assert right["probability"] == pytest.approx((1 + 2 * 1 / 5) / (2 + 2))
    assert low["probability"] == pytest.approx((1 + 2 * right["probability"]) / (1 + 2))
    assert high["probability"] == pytest.approx((0 + 2 * right["probability"]) / (1 + 2))
    assert [node["rows"] for node in (root, left, right)] == [5, 3, 2]
    values = grown(
        spark, written, [(1.0, "red", 2.0), (2.0, "red", 8.0)], 1, points.regression(), "double", smoothing=1.0
    )
    assert [node["value"] for node in values[0]["nodes"]] == pytest.approx([5.0, (2 + 5) / 2, (8 + 5) / 2])


def test_a_threshold_on_an_encoding_should_be_told_as_sets_of_categories(spark: SparkSession, written: Written) -> None:
    late = {"red": 1, "green": 0, "blue": 0, None: 1}
    rows = [(1.0, colour, label) for colour, label in late.items() for _ in range(4)]
    root, *_ = grown(spark, written, rows, depth=1)[0]["nodes"]
    assert root["condition"] == "colour in blue, green"
    assert root["otherwise"] == "colour in red or missing"
    assert root["categories"] == ["blue", "green"]


def test_a_branch_should_name_only_categories_that_get_there(spark: SparkSession, written: Written) -> None:
    share = {"a": 0, "b": 1, "c": 3, "d": 4}  # late of 4
    rows = [(1.0, colour, int(i < late)) for colour, late in share.items() for i in range(4)]
    nodes = [node for node in grown(spark, written, rows, depth=2)[0]["nodes"] if "condition" in node]
    assert [node["condition"] for node in nodes] == ["colour in a, b", "colour in a", "colour in c"]
    assert [node["otherwise"] for node in nodes] == ["colour in c, d", "colour in b", "colour in d"]


def test_missing_numbers_should_go_left_and_be_named(spark: SparkSession, written: Written) -> None:
    rows = [(None, "red", 1), (None, "red", 1), (1.0, "red", 0), (2.0, "red", 0), (9.0, "red", 1), (9.0, "red", 1)]
    nodes = grown(spark, written, rows, depth=2)[0]["nodes"]
    told = {(node["condition"], node["otherwise"]) for node in nodes if "condition" in node}
    assert told <= {("x is missing", "x is known"), ("x <= 5.5", "x > 5.5"), ("x <= 5.5 or missing", "x > 5.5")}
    assert ("x is missing", "x is known") in told


def test_a_long_list_of_categories_should_be_shortened_in_words_only() -> None:
    values = {f"c{i:02}" for i in range(20)}
    feature = {"name": "dest", "missing_rows": 0}
    assert (
        probability_tree._category_condition(feature, values, False) == "dest in c00, c01, c02, c03, c04, c05, 14 more"
    )


def test_importances_should_be_shares_of_the_gains_by_rows() -> None:
    nodes = [
        {"feature": "x", "gain": 0.2, "rows": 10},
        {"feature": "colour", "gain": 0.5, "rows": 4},
        {"rows": 6},
        {"rows": 4},
    ]
    features = [{"name": "colour"}, {"name": "x"}, {"name": "unused"}]
    told = forms.importances({"nodes": nodes, "features": features})
    assert [(one["feature"], one["importance"]) for one in told] == [("colour", 0.5), ("x", 0.5), ("unused", 0.0)]


@pytest.mark.parametrize("task", CASES)
def test_the_saved_model_should_load_in_mllib_and_score_as_the_tree_does(
    spark: SparkSession, written: Written, tmp_path: Path, task: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pandas", None)  # to load it costs more than scoring, and nothing here needs it
    make, kind, label = CASES[task]
    settings = make()
    rows = [
        (None if i % 13 == 0 else float(i % 10), (None, "red", "green", "blue")[i % 4], label(i)) for i in range(300)
    ]
    told, totals, frame = grown(spark, written, rows, 6, settings, kind, smoothing=4.0)
    assert len(told["nodes"]) > 15
    tree.save_as_mllib(spark, told, totals, settings.classes, tmp_path.as_uri())
    saved = spark.read.parquet(f"{tmp_path.as_uri()}/data").orderBy("id").collect()
    assert [row["rawCount"] for row in saved] == [node["rows"] for node in told["nodes"]]
    assert [row["impurity"] for row in saved] == [node["impurity"] for node in told["nodes"]]
    cuts = [row["split"]["leftCategoriesOrThreshold"] for row in saved]
    assert cuts == [[node["threshold"]] if "feature" in node else [] for node in told["nodes"]]
    loader = DecisionTreeClassificationModel if task == "multiclass" else DecisionTreeRegressionModel
    model = loader.load(tmp_path.as_uri())
    assert model.numNodes == len(told["nodes"])
    weights = {one["feature"]: one["importance"] for one in forms.importances(told)}
    names = [feature["name"] for feature in told["features"]]
    assert dict(zip(names, model.featureImportances.toArray(), strict=True)) == pytest.approx(weights)

    says = tree.Scorer(told, 0).name
    new = frame.select("x", "colour").union(
        spark.createDataFrame([(4.5, "violet"), (1e9, None)], "x double, colour string")
    )
    scored = tree.score(new, told, [F.col("x"), F.col("colour")]).collect()
    assert len(scored) == 302
    for row in scored:
        x, colour = row["x"], row["colour"]
        category = told["features"][1]
        vector = Vectors.dense(
            inputs.MISSING if x is None else x,
            category["missing"] if colour is None else category["encoding"].get(colour, category["unseen"]),
        )
        expected = (
            model.predictProbability(vector).toArray().tolist() if task == "multiclass" else model.predict(vector)
        )
        assert row[says] == pytest.approx(expected, abs=1e-12)


def test_batches_should_be_small_where_a_row_is_told_many_probabilities(spark: SparkSession) -> None:
    """A worker holds a batch and what it says of it: 500 doubles a row, if there are so many classes."""
    classes = [f"c{i}" for i in range(500)]
    nodes = [{"id": 0, "depth": 0, "rows": 1, "probabilities": [1 / 500] * 500}]
    model = {"format": 2, "task": "multiclass", "classes": classes, "features": [], "nodes": nodes}
    scored = tree.score(spark.range(5), model, [F.col("id")])
    asked = "spark.sql.execution.arrow.maxRecordsPerBatch"
    assert int(spark.conf.get(asked) or 0) * 501 <= CELLS_AT_ONCE
    assert scored.count() == 5
    tree.score(spark.range(5), {**model, "classes": classes[:2]}, [F.col("id")])
    assert int(spark.conf.get(asked) or 0) == 100_000
