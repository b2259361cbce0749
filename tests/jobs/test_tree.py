"""The tree as JSON: conditions that one can read, and the probabilities that MLlib gives."""

from pathlib import Path
from typing import Any

import pytest
from pyspark.ml.regression import DecisionTreeRegressionModel
from pyspark.sql import DataFrame, SparkSession

from jobs import encoding, tree
from tests.jobs import points

Grown = tuple[DecisionTreeRegressionModel, list[encoding.Feature], list[tree.Node], DataFrame]


def grow(spark: SparkSession, folder: Path, rows: list[tuple[Any, ...]], depth: int) -> Grown:
    settings = points.settings("depth = 3", f"depth = {depth}")
    settings["training"]["min_leaf"] = 1
    frame = spark.createDataFrame(rows, "x double, colour string, late int").coalesce(1)
    features = encoding.learn(frame, settings)
    encoded = encoding.encode(frame, features)
    model = tree.fit(encoded, "late", settings["training"])
    model.write().overwrite().save(folder.as_uri())
    return model, features, tree.describe(tree.saved_nodes(spark, folder.as_uri()), features), encoded


def test_a_threshold_on_a_number_should_be_told_with_rows_and_probabilities(
    spark: SparkSession, tmp_path: Path
) -> None:
    rows = [(1.0, "red", 0), (2.0, "red", 0), (3.0, "red", 0), (4.0, "red", 1), (5.0, "red", 1)]
    _, _, nodes, _ = grow(spark, tmp_path, rows, depth=1)
    root, left, right = nodes
    assert (root["condition"], root["otherwise"]) == ("x <= 3.5", "x > 3.5")
    assert (root["feature"], root["threshold"], root["depth"], root["rows"]) == ("x", 3.5, 0, 5)
    assert root["probability"] == pytest.approx(2 / 5)
    assert (root["left"], root["right"]) == (left["id"], right["id"])
    assert (left["rows"], left["probability"], right["rows"], right["probability"]) == (3, 0.0, 2, 1.0)
    assert "feature" not in left


def test_a_threshold_on_an_encoding_should_be_told_as_sets_of_categories(spark: SparkSession, tmp_path: Path) -> None:
    late = {"red": 1, "green": 0, "blue": 0, None: 1}
    rows = [(1.0, colour, label) for colour, label in late.items() for _ in range(4)]
    _, _, (root, *_), _ = grow(spark, tmp_path, rows, depth=1)
    assert root["condition"] == "colour in blue, green"
    assert root["otherwise"] == "colour in red or missing"
    assert root["categories"] == ["blue", "green"]


def test_a_branch_should_name_only_categories_that_get_there(spark: SparkSession, tmp_path: Path) -> None:
    share = {"a": 0, "b": 1, "c": 3, "d": 4}  # late of 4
    rows = [(1.0, colour, int(i < late)) for colour, late in share.items() for i in range(4)]
    _, _, nodes, _ = grow(spark, tmp_path, rows, depth=2)
    assert [node["condition"] for node in nodes if "condition" in node] == [
        "colour in a, b",
        "colour in a",
        "colour in c",
    ]
    assert [node["otherwise"] for node in nodes if "condition" in node] == [
        "colour in c, d",
        "colour in b",
        "colour in d",
    ]


def test_missing_numbers_should_go_left_and_be_named(spark: SparkSession, tmp_path: Path) -> None:
    rows = [(None, "red", 1), (None, "red", 1), (1.0, "red", 0), (2.0, "red", 0), (9.0, "red", 1), (9.0, "red", 1)]
    _, _, nodes, _ = grow(spark, tmp_path, rows, depth=2)
    told = {(node["condition"], node["otherwise"]) for node in nodes if "condition" in node}
    assert told <= {("x is missing", "x is known"), ("x <= 5.5", "x > 5.5"), ("x <= 5.5 or missing", "x > 5.5")}
    assert ("x is missing", "x is known") in told


def test_a_long_list_of_categories_should_be_shortened_in_words_only() -> None:
    values = {f"c{i:02}" for i in range(20)}
    feature = {"name": "dest", "missing_rows": 0}
    assert tree._category_condition(feature, values, False) == "dest in c00, c01, c02, c03, c04, c05, 14 more"


def test_the_nodes_should_score_rows_as_mllib_does(spark: SparkSession, tmp_path: Path) -> None:
    rows = [
        (None if i % 13 == 0 else float(i % 10), (None, "red", "green", "blue")[i % 4], int(i % 7 < 3 or i % 10 > 6))
        for i in range(300)
    ]
    model, features, nodes, encoded = grow(spark, tmp_path, rows, depth=5)
    by_id = {node["id"]: node for node in nodes}
    assert len(nodes) > 15

    def score(vector: dict[str, float]) -> float:
        node = by_id[0]
        while "feature" in node:
            node = by_id[node["left"] if vector[node["feature"]] <= node["threshold"] else node["right"]]
        probability: float = node["probability"]
        return probability

    names = [feature["name"] for feature in features]
    for row in model.transform(encoded).collect():
        plain = dict(zip(names, row["features"].toArray(), strict=True))
        assert score(plain) == pytest.approx(row["probability"], abs=1e-12)


def test_siblings_that_predict_the_same_class_should_keep_their_probabilities(
    spark: SparkSession, tmp_path: Path
) -> None:
    # MLlib's classifier would merge these: both leaves say "not late" (SPARK-3159).
    rows = [(1.0, "red", 0)] * 10 + [(2.0, "red", int(i < 3)) for i in range(10)]
    _, _, nodes, _ = grow(spark, tmp_path, rows, depth=1)
    assert [node["probability"] for node in nodes if "feature" not in node] == [0.0, pytest.approx(0.3)]
