"""The probability tree: fitted by MLlib, and told in words for readers (tree.json) and for scorers without Spark."""

from typing import Any, Dict, List, Sequence, Set, Tuple

from pyspark.ml.regression import DecisionTreeRegressionModel, DecisionTreeRegressor
from pyspark.sql import DataFrame, Row, SparkSession

from jobs.encoding import MISSING, VECTOR, Feature
from jobs.metrics import PROBABILITY
from jobs.settings import Training

Node = Dict[str, Any]
NAMED = 6  # categories that a condition names before it only counts the rest


def fit(encoded: DataFrame, label: str, training: Training) -> DecisionTreeRegressionModel:
    """A tree whose leaves hold the share of positive rows. Columns in: the label, 0 or 1, and the vector `features`.

    A regressor, not MLlib's classifier: that one merges sibling leaves which predict the same class (SPARK-3159), and
    with them goes the ranking. The splits are the same, since the variance of a 0/1 label is half of Gini's impurity.
    """
    model: DecisionTreeRegressionModel = DecisionTreeRegressor(
        featuresCol=VECTOR,
        labelCol=label,
        predictionCol=PROBABILITY,
        maxDepth=training["depth"],
        minInstancesPerNode=training["min_leaf"],
        maxBins=training["bins"],
        seed=training["seed"],
    ).fit(encoded)
    return model


def saved_nodes(spark: SparkSession, model_uri: str) -> List[Row]:
    """The nodes of a saved model, root first, parents before children (Spark's DecisionTreeModelReadWrite.NodeData)."""
    return sorted(spark.read.parquet(f"{model_uri}/data").collect(), key=lambda node: int(node["id"]))


def describe(nodes: Sequence[Row], features: Sequence[Feature]) -> List[Node]:
    """Saved nodes as tree.json has them: rows, probability and, unless it is a leaf, the condition that leads left.

    A threshold on an encoded category is told as the set of categories that go left, of those that get so far.
    """
    by_id = {node["id"]: node for node in nodes}
    told: List[Node] = []
    everything = {i: set(f["encoding"]) for i, f in enumerate(features) if f["kind"] == "category"}
    waiting: List[Tuple[int, int, Dict[int, Set[str]]]] = [(nodes[0]["id"], 0, everything)]
    while waiting:
        key, depth, reaching = waiting.pop()
        node = by_id[key]
        rows, positives = node["impurityStats"][0], node["impurityStats"][1]
        entry: Node = {"id": key, "depth": depth, "rows": int(rows), "probability": positives / rows}
        told.append(entry)
        if node["leftChild"] < 0:
            continue
        index, threshold = node["split"]["featureIndex"], node["split"]["leftCategoriesOrThreshold"][0]
        feature = features[index]
        entry.update(feature=feature["name"], threshold=threshold, left=node["leftChild"], right=node["rightChild"])
        entry.update(impurity=node["impurity"], gain=node["gain"])
        left, right = dict(reaching), dict(reaching)
        if feature["kind"] == "number":
            entry["condition"], entry["otherwise"] = _number_condition(feature, threshold)
        else:
            left[index] = {value for value in reaching[index] if feature["encoding"][value] <= threshold}
            right[index] = reaching[index] - left[index]
            entry["categories"] = sorted(left[index])
            missing_left = feature["missing"] <= threshold
            entry["condition"] = _category_condition(feature, left[index], missing_left)
            entry["otherwise"] = _category_condition(feature, right[index], not missing_left)
        waiting += [(node["rightChild"], depth + 1, right), (node["leftChild"], depth + 1, left)]
    return told


def _number_condition(feature: Feature, threshold: float) -> Tuple[str, str]:
    name = feature["name"]
    if threshold < MISSING / 4:  # half-way between MISSING and the smallest value that training has seen
        return f"{name} is missing", f"{name} is known"
    or_missing = " or missing" if feature["missing_rows"] else ""
    return f"{name} <= {threshold:.6g}{or_missing}", f"{name} > {threshold:.6g}"


def _category_condition(feature: Feature, values: Set[str], with_missing: bool) -> str:
    name, listed = feature["name"], sorted(values)
    told = ", ".join(listed if len(listed) <= NAMED + 1 else [*listed[:NAMED], f"{len(listed) - NAMED} more"])
    missing = with_missing and feature["missing_rows"] > 0
    if not listed:
        return f"{name} is missing" if missing else f"{name} is not one that training has seen"
    return f"{name} in {told}{' or missing' if missing else ''}"
