"""The tree in its three forms: nodes told in words (tree.json), an MLlib model, and a scorer of rows on Spark."""

import json
import time
import uuid
from typing import Any, Dict, Iterable, Iterator, List, Sequence, Tuple

import numpy as np
import pyarrow as pa
from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as F

from jobs.models.inputs import Feature, feature_columns, matrix
from jobs.models.tasks import LEAF, PREDICTION, PROBABILITIES, PROBABILITY
from jobs.tables.arrays import Array, as_arrow

Told = Dict[str, Any]


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
        self.feature = np.array([index.get(node.get("feature"), 0) for node in nodes])
        self.threshold = np.array([node.get("threshold", 0.0) for node in nodes])
        # Of each node where a row goes on, to the right and to the left, one behind the other; from a leaf to itself.
        sides = [[place.get(node.get(side), at) for side in ("right", "left")] for at, node in enumerate(nodes)]
        self.children = np.array(sides).ravel()
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
        count = batch.num_rows
        at, rows = np.zeros(count, dtype=np.int64), np.arange(count)
        numbers = np.concatenate([*matrix(batch, self.features), np.empty(0)])  # a feature behind the other
        for _ in range(self.depth):
            left = numbers.take(self.feature.take(at) * count + rows) <= self.threshold.take(at)
            at = self.children.take(2 * at + left)
        return at


def save_as_mllib(spark: SparkSession, tree: Told, totals: Array, classes: int, location: str) -> None:
    """Writes the tree as Spark's own DecisionTreeRegressionModel, or DecisionTreeClassificationModel if multiclass.

    `totals`: what training rows add up to in each node, by its id. It wants the vector of the features' numbers, in
    tree.json's order. The format is that of org.apache.spark.ml.tree.DecisionTreeModelReadWrite.NodeData and
    DefaultParamsWriter (Spark 3.5).
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
        split = {
            "featureIndex": index[node["feature"]] if inner else -1,
            "leftCategoriesOrThreshold": [node["threshold"]] if inner else [],
            "numCategories": -1,
        }
        children = [order[node[side]] if inner else -1 for side in ("left", "right")]
        gain = float(node["gain"]) if inner else -1.0
        table.append((order[node["id"]], value, node["impurity"], stats, node["rows"], gain, *children, split))
    schema = {
        "id": "int",
        "prediction": "double",
        "impurity": "double",
        "impurityStats": "array<double>",
        "rawCount": "bigint",
        "gain": "double",
        "leftChild": "int",
        "rightChild": "int",
        "split": "struct<featureIndex: int, leftCategoriesOrThreshold: array<double>, numCategories: int>",
    }
    _rows(spark, table, schema).write.mode("overwrite").parquet(f"{location}/data")
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
    text = _rows(spark, [(json.dumps(metadata),)], {"value": "string"})
    text.write.mode("overwrite").text(f"{location}/metadata")


def _rows(spark: SparkSession, rows: Sequence[Tuple[Any, ...]], kinds: Dict[str, str]) -> DataFrame:
    """One partition of these rows.

    `createDataFrame` would load pandas first, and have a Python worker pass them on; `range` would have Scala's
    reflection begin, which takes two seconds of a Java that has just started.
    """
    told = json.dumps([dict(zip(kinds, row)) for row in rows], allow_nan=False)  # noqa: B905  # not in Python 3.9
    kind = ", ".join(f"{name}: {kind}" for name, kind in kinds.items())
    parsed = F.from_json(F.lit(told), f"array<struct<{kind}>>", {"mode": "FAILFAST"})
    return spark.sql("SELECT 1").select(F.inline(parsed))


def _mllib_value(node: Told, task: str) -> float:
    if task == "multiclass":
        return float(np.argmax(node["probabilities"]))
    return float(node[PROBABILITY if task == "binary" else "value"])
