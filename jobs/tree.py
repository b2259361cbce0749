"""The tree in its three forms: nodes told in words (tree.json), an MLlib model, and a scorer of rows on Spark."""

import json
import time
import uuid
from typing import Any, Dict, Iterable, Iterator, List, Sequence, Set, Tuple

import numpy as np
import pyarrow as pa
from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as F

from jobs.encoding import MISSING, Feature, Learned, feature_columns, matrix
from jobs.features import as_arrow
from jobs.grow import Array, Node, smoothed

Told = Dict[str, Any]
NAMED = 6  # categories that a condition names before it only counts the rest
LEAF, PROBABILITY, PROBABILITIES, PREDICTION = "leaf", "probability", "probabilities", "prediction"


def describe(nodes: Sequence[Node], learned: Learned, classes: int, totals: Array, smoothing: float) -> List[Told]:
    """The nodes as tree.json has them, root first: rows, value and, unless it is a leaf, the condition that leads left.

    `totals`: what the training rows add up to in each node, as of `grow.summed_up`; values are smoothed. A threshold
    on an encoded category is told as the set of categories that go left, of those that get so far.
    """
    told: List[Told] = []
    says = smoothed(nodes, totals, classes, smoothing)
    everything = {i: set(f["encoding"]) for i, f in enumerate(learned.features) if f["kind"] == "category"}
    waiting: List[Tuple[Node, Dict[int, Set[str]]]] = [(nodes[0], everything)]
    while waiting:
        node, reaching = waiting.pop()
        entry: Told = {"id": node.id, "depth": node.depth, **_value(totals[node.id], says[node.id], learned, classes)}
        told.append(entry)
        if node.feature < 0:
            continue
        feature, threshold = learned.features[node.feature], float(learned.thresholds[node.feature][node.bin])
        entry.update(feature=feature["name"], threshold=threshold, left=node.left, right=node.right)
        entry["gain"] = node.gain * _unit_of_impurity(learned, classes)
        left, right = dict(reaching), dict(reaching)
        if feature["kind"] == "number":
            entry["condition"], entry["otherwise"] = _number_condition(feature, threshold)
        else:
            i = node.feature
            left[i] = {value for value in reaching[i] if feature["encoding"][value] <= threshold}
            right[i] = reaching[i] - left[i]
            entry["categories"] = sorted(left[i])
            missing_left = feature["missing"] <= threshold
            entry["condition"] = _category_condition(feature, left[i], missing_left)
            entry["otherwise"] = _category_condition(feature, right[i], not missing_left)
        waiting += [(nodes[node.right], right), (nodes[node.left], left)]
    return told


def importances(nodes: Sequence[Told], features: Sequence[Feature]) -> List[Told]:
    """Each feature's share of all gains, weighted by rows, largest first (as MLlib's TreeEnsembleModel has it)."""
    gains = {feature["name"]: 0.0 for feature in features}
    for node in nodes:
        if "feature" in node:
            gains[node["feature"]] += node["gain"] * node["rows"]
    total = sum(gains.values()) or 1.0
    ordered = sorted(gains.items(), key=lambda item: (-item[1], item[0]))
    return [{"feature": name, "importance": gain / total} for name, gain in ordered]


def score(rows: DataFrame, tree: Told, keep: Sequence[Column]) -> DataFrame:
    """`keep`, then `leaf` (a node's id) and what the tree says: `probability`, `probabilities` or `prediction`.

    Columns in: every feature's, by name. A row is scored as tree.sql and the plain Python scorer do it: left at a node
    if the feature's number is no larger than the threshold.
    """
    kept = rows.select(*keep)
    names = [f"_kept{i}" for i in range(len(kept.columns))]
    own = [column.alias(name) for column, name in zip(keep, names)]  # noqa: B905  # not in Python 3.9
    values = feature_columns(tree["features"])
    scorer = Scorer(tree, len(names))
    kinds = [f"`{name}` {field.dataType.simpleString()}" for name, field in zip(names, kept.schema)]  # noqa: B905
    scored = rows.select(*own, *values).mapInArrow(
        scorer, ", ".join([*kinds, f"{LEAF} int", f"{scorer.name} {scorer.kind}"])
    )
    renamed = [F.col(name).alias(was) for name, was in zip(names, kept.columns)]  # noqa: B905
    return scored.select(*renamed, LEAF, scorer.name)


class Scorer:
    """Sends batches of rows down a tree, on the executors. The first `kept` columns pass through untouched."""

    def __init__(self, tree: Told, kept: int) -> None:
        self.features, self.kept = tree["features"], kept
        nodes = tree["nodes"]
        place = {node["id"]: i for i, node in enumerate(nodes)}
        index = {feature["name"]: i for i, feature in enumerate(self.features)}
        self.ids = np.array([node["id"] for node in nodes], dtype=np.int32)
        self.feature = np.array([index.get(node.get("feature"), -1) for node in nodes], dtype=np.int32)
        self.threshold = np.array([node.get("threshold", 0.0) for node in nodes])
        self.left, self.right = (
            np.array([place.get(node.get(side), 0) for node in nodes], dtype=np.int32) for side in ("left", "right")
        )
        self.depth = max(node["depth"] for node in nodes)
        self.name = {"binary": PROBABILITY, "multiclass": PROBABILITIES, "regression": PREDICTION}[tree["task"]]
        self.kind = "array<double>" if self.name == PROBABILITIES else "double"
        self.value = np.array([node["value" if self.name == PREDICTION else self.name] for node in nodes])

    def __call__(self, batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for batch in batches:
            at = self.leaves(batch)
            if self.value.ndim == 1:
                value = as_arrow(self.value[at], np.float64)
            else:
                width = self.value.shape[1]
                ends = np.arange(0, width * (len(at) + 1), width, dtype=np.int32)
                value = pa.ListArray.from_arrays(as_arrow(ends, np.int32), as_arrow(self.value[at].ravel(), np.float64))
            columns = [*batch.columns[: self.kept], as_arrow(self.ids[at], np.int32), value]
            yield pa.RecordBatch.from_arrays(columns, names=[*batch.schema.names[: self.kept], LEAF, self.name])

    def leaves(self, batch: pa.RecordBatch) -> Array:
        """The place of each row's leaf among the nodes."""
        numbers = matrix(batch, self.features)
        at = np.zeros(batch.num_rows, dtype=np.int32)
        rows = np.arange(batch.num_rows)
        table = np.stack(numbers) if numbers else np.empty((1, batch.num_rows))
        for _ in range(self.depth):
            feature = self.feature[at]
            left = table[np.maximum(feature, 0), rows] <= self.threshold[at]
            at = np.where(feature < 0, at, np.where(left, self.left[at], self.right[at]))
        return at


def save_as_mllib(spark: SparkSession, tree: Told, totals: Array, classes: int, location: str) -> None:
    """Writes the tree as Spark's own DecisionTreeRegressionModel, or DecisionTreeClassificationModel if multiclass.

    `totals` as in `describe`. It wants the vector of the features' numbers, in tree.json's order. The format is that of
    org.apache.spark.ml.tree.DecisionTreeModelReadWrite.NodeData and DefaultParamsWriter (Spark 3.5).
    """
    regression = tree["task"] != "multiclass"
    order = {node["id"]: i for i, node in enumerate(tree["nodes"])}  # parents first, as MLlib numbers them
    index = {feature["name"]: i for i, feature in enumerate(tree["features"])}
    table = []
    for node in tree["nodes"]:
        stats = [float(x) for x in totals[node["id"]]]
        if tree["task"] == "binary":  # rows, sum and sum of squares of a 0/1 label
            stats = [stats[0] + stats[1], stats[1], stats[1]]
        elif tree["task"] == "multiclass":  # MLlib makes the probabilities of them
            stats = [share * node["rows"] for share in node[PROBABILITIES]]
        value = _mllib_value(node, tree["task"])
        inner = "feature" in node
        split = (index[node["feature"]], [node["threshold"]], -1) if inner else (-1, [], -1)
        children = [order[node[side]] if inner else -1 for side in ("left", "right")]
        gain = float(node["gain"]) if inner else -1.0
        table.append((order[node["id"]], value, node["impurity"], stats, node["rows"], gain, *children, split))
    schema = (
        "id int, prediction double, impurity double, impurityStats array<double>, rawCount bigint, gain double, "
        "leftChild int, rightChild int, "
        "split struct<featureIndex: int, leftCategoriesOrThreshold: array<double>, numCategories: int>"
    )
    spark.createDataFrame(table, schema).coalesce(1).write.mode("overwrite").parquet(f"{location}/data")
    kind = "regression.DecisionTreeRegressionModel" if regression else "classification.DecisionTreeClassificationModel"
    metadata = {
        "class": f"org.apache.spark.ml.{kind}",
        "timestamp": int(time.time() * 1000),
        "sparkVersion": spark.version,
        "uid": f"dtr_{uuid.uuid4().hex[:12]}" if regression else f"dtc_{uuid.uuid4().hex[:12]}",
        "paramMap": {
            "featuresCol": "features",
            "predictionCol": PROBABILITY if tree["task"] == "binary" else PREDICTION,
            "impurity": "variance" if regression else "gini",
        },
        "defaultParamMap": {},
        "numFeatures": len(tree["features"]),
        **({} if regression else {"numClasses": classes}),
    }
    text = spark.createDataFrame([(json.dumps(metadata),)], "value string")
    text.coalesce(1).write.mode("overwrite").text(f"{location}/metadata")


def _mllib_value(node: Told, task: str) -> float:
    if task == "multiclass":
        return float(np.argmax(node["probabilities"]))
    return float(node[PROBABILITY if task == "binary" else "value"])


def _value(totals: Array, says: Any, learned: Learned, classes: int) -> Told:
    """Rows, impurity, and what the node says."""
    unit = _unit_of_impurity(learned, classes)
    if classes:
        value: Told = {PROBABILITY: float(says[1])} if classes == 2 else {PROBABILITIES: [float(p) for p in says]}
        return {
            "rows": int(totals.sum()),
            **value,
            "impurity": unit * (1 - float(((totals / totals.sum()) ** 2).sum())),
        }
    assert learned.point is not None  # noqa: S101  # a regression has one
    rows, total, squares = (float(x) for x in totals)
    variance = max(squares / rows - (total / rows) ** 2, 0.0)
    return {"rows": int(rows), "value": learned.point.sum(1, float(says)), "impurity": unit * variance}


def _unit_of_impurity(learned: Learned, classes: int) -> float:
    """What `grow`'s gains are multiplied with. Binary: the variance of the 0/1 label is half of Gini's impurity."""
    if learned.point is not None:
        return learned.point.step**2
    return 0.5 if classes == 2 else 1.0


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
