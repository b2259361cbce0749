"""A model as a scorer of rows on Spark, and one tree as MLlib's own model."""

import json
import time
import uuid
from typing import Any, Dict, Iterable, Iterator, List, Optional, Sequence, Tuple

import numpy as np
import pyarrow as pa
from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as F

from jobs.models import forms
from jobs.models.forms import Told
from jobs.models.inputs import feature_columns, matrix
from jobs.models.reasons import Reasons
from jobs.models.tasks import LEAF, PREDICTION, PROBABILITIES, PROBABILITY
from jobs.tables.arrays import Array, as_arrow
from jobs.tables.session import size_batches
from jobs.tables.settings import reason_columns


def score(rows: DataFrame, model: Told, keep: Sequence[Column], reasons: int = 0) -> DataFrame:
    """`keep`, then what the model says: `probability`, `probabilities` or `prediction`; before it, of one tree, `leaf`
    (a node's id); after it the names and effects of so many features that moved it most (jobs/models/reasons.py).

    Columns in: every feature's, by name. A row is scored as tree.sql and the plain Python scorer do it: left at a node
    if the feature's number is no larger than the threshold.
    """
    kept = rows.select(*keep)
    names = [f"_kept{i}" for i in range(len(kept.columns))]
    own = [column.alias(name) for column, name in zip(keep, names)]  # noqa: B905  # not in Python 3.9
    values = feature_columns(model["features"])
    scorer = Scorer(model, len(names), reasons)
    size_batches(rows.sparkSession, len(names) + len(values) + len(model.get("classes", ())))
    kinds = [f"`{name}` {field.dataType.simpleString()}" for name, field in zip(names, kept.schema)]  # noqa: B905
    said = [f"{name} {kind}" for name, kind in scorer.columns.items()]
    scored = rows.select(*own, *values).mapInArrow(scorer, ", ".join([*kinds, *said]))
    renamed = [F.col(name).alias(was) for name, was in zip(names, kept.columns)]  # noqa: B905
    return scored.select(*renamed, *scorer.columns)


def called_classes(probabilities: Array, weights: Optional[Sequence[float]]) -> Array:
    """`forms.called` of many rows at once: rows x classes to the places of the classes that are called."""
    weighed = probabilities if weights is None else probabilities * np.array(weights)
    places: Array = weighed.argmax(axis=1)
    return places


class Scorer:
    """Scores batches of rows, on the executors. The first `kept` columns pass through untouched.

    `columns`: those that it adds, with their types.
    """

    def __init__(self, model: Told, kept: int, reasons: int = 0) -> None:
        """`reasons`: how many of each row; of a model with no `reason_against` them."""
        self.features, self.kept, self.is_one = model["features"], kept, forms.is_one(model)
        self.name = {"binary": PROBABILITY, "multiclass": PROBABILITIES, "regression": PREDICTION}[model["task"]]
        kind = "array<double>" if self.name == PROBABILITIES else "double"
        self.columns = {**({LEAF: "int"} if self.is_one else {}), self.name: kind, **reason_columns(reasons)}
        self.most, self.reasons = reasons, Reasons(model) if reasons else None
        index = {feature["name"]: i for i, feature in enumerate(self.features)}
        self.link, self.threshold = model.get("link", forms.MEAN), forms.threshold(model)
        said = "value" if self.link != forms.MEAN or self.name == PREDICTION else self.name
        self.trees = [_Tree(nodes, index, said) for nodes in forms.trees(model)]
        self.base = np.array(model.get("base", ()), dtype=np.float64)
        self.weights: Optional[Sequence[float]] = model.get("weights")  # by class
        self.outputs = [tree.get("output", 0) for tree in model.get("trees", ())]

    def __call__(self, batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for batch in batches:
            numbers = self.numbers(batch)
            leaves, said = self.says_of(numbers, batch.num_rows)
            if said.ndim == 1:
                value = as_arrow(said, np.float64)
            else:
                width = said.shape[1]
                ends = np.arange(0, width * (len(said) + 1), width, dtype=np.int32)
                value = pa.ListArray.from_arrays(as_arrow(ends, np.int32), as_arrow(said.ravel(), np.float64))
            leaf = [] if leaves is None else [as_arrow(leaves, np.int32)]
            columns = [*batch.columns[: self.kept], *leaf, value, *self._reasons(numbers, said)]
            names = [*batch.schema.names[: self.kept], *self.columns]
            yield pa.RecordBatch.from_arrays(columns, names=names)

    def says(self, batch: pa.RecordBatch) -> Tuple[Optional[Array], Array]:
        """Of each row the id of its leaf, if it is one tree, and what the model says: rows, or rows x classes."""
        return self.says_of(self.numbers(batch), batch.num_rows)

    def numbers(self, batch: pa.RecordBatch) -> Array:
        """The features' numbers as the trees compare them, those of one feature behind those of the other."""
        return np.concatenate([*matrix(batch, self.features), np.empty(0)])

    def says_of(self, numbers: Array, rows: int) -> Tuple[Optional[Array], Array]:
        """The same as `says`, of `numbers`."""
        if self.is_one:
            at = self.trees[0].leaves(numbers, rows)
            return self.trees[0].ids[at], self.trees[0].value[at]
        return None, self.linked(self.added(numbers, rows, range(len(self.trees)), self.base[:, None]))

    def added(self, numbers: Array, rows: int, places: Sequence[int], start: Any = 0.0) -> Array:
        """What the trees at these places add to `start`: outputs x rows; of a mean rows, or rows x classes."""
        if self.link == forms.MEAN:
            sums: Array = np.zeros((rows, *self.trees[0].value.shape[1:]))
            for place in places:
                sums += self.trees[place].value[self.trees[place].leaves(numbers, rows)]
            return sums
        sums = np.zeros((len(self.base), rows)) + start
        for place in places:
            sums[self.outputs[place]] += self.trees[place].value[self.trees[place].leaves(numbers, rows)]
        return sums

    def linked(self, sums: Array) -> Array:
        """What is said where the trees add up to `sums`."""
        if self.link == forms.MEAN:
            return np.divide(sums, len(self.trees))
        said: Array = _linked(sums, self.link)
        return said

    def called(self, said: Array) -> Array:
        """Of each row the number of the class that it is called, if there are several, else 0."""
        return called_classes(said, self.weights) if said.ndim > 1 else np.zeros(len(said), dtype=np.int64)

    def _reasons(self, numbers: Array, said: Array) -> List[pa.Array]:
        """The columns of the features that moved each row most, NULL where fewer did."""
        if self.reasons is None:
            return []
        called = self.called(said)
        effects = self.reasons.effects(numbers.reshape(len(self.features), -1), called)
        order, effect = largest(effects, self.most)
        names = _texts([feature["name"] for feature in self.features])
        columns: List[pa.Array] = []
        for place, of_rows in zip(order.T, effect.T):  # noqa: B905  # not in Python 3.9
            place = np.where(of_rows != 0, place, len(self.features))  # the last name is NULL
            columns += [names.take(as_arrow(place, np.int32)), _nullable(of_rows, of_rows != 0)]
        nothing = np.zeros(len(said))
        for _ in range(self.most - order.shape[1]):  # there are fewer features
            columns += [
                names.take(as_arrow(nothing + len(self.features), np.int32)),
                _nullable(nothing, nothing != 0),
            ]
        return columns


def largest(effects: Array, most: int) -> Tuple[Array, Array]:
    """Of each row the features that moved it most, and by how much: rows x `most`, or x features if there are fewer."""
    order = np.argsort(-np.abs(effects), axis=1, kind="stable")[:, :most]
    return order, np.take_along_axis(effects, order, axis=1)


def _texts(values: Sequence[str]) -> pa.Array:
    """These texts, then a NULL."""
    found = [value.encode() for value in values]
    ends = np.cumsum([0, *map(len, found), 0], dtype=np.int32)
    valid = np.packbits(np.arange(len(found) + 1) < len(found), bitorder="little")
    buffers = [pa.py_buffer(valid), pa.py_buffer(ends), pa.py_buffer(b"".join(found))]
    return pa.Array.from_buffers(pa.string(), len(found) + 1, buffers)


def _nullable(values: Array, valid: Array) -> pa.Array:
    """Doubles, NULL where they are not valid."""
    found = np.ascontiguousarray(values, dtype=np.float64)
    bits = np.packbits(valid, bitorder="little")
    return pa.Array.from_buffers(pa.float64(), len(found), [pa.py_buffer(bits), pa.py_buffer(found)])


class _Tree:
    """One tree as arrays by node. `said`: the name of what its leaves say."""

    def __init__(self, nodes: Sequence[Told], index: Dict[str, int], said: str) -> None:
        place = {node["id"]: i for i, node in enumerate(nodes)}
        self.ids = np.array([node["id"] for node in nodes], dtype=np.int32)
        self.feature = np.array([index.get(node.get("feature", ""), 0) for node in nodes])
        self.threshold = np.array([node.get("threshold", 0.0) for node in nodes])
        # Of each node where a row goes on, to the right and to the left, one behind the other; from a leaf to itself.
        sides = [[place.get(node.get(side), at) for side in ("right", "left")] for at, node in enumerate(nodes)]
        self.children = np.array(sides).ravel()
        self.depth = max(node["depth"] for node in nodes)
        empty = next(np.zeros_like(node[said]) for node in nodes if said in node)  # in a sum only leaves say something
        self.value = np.array([node.get(said, empty) for node in nodes], dtype=np.float64)

    def leaves(self, numbers: Array, count: int) -> Array:
        """The place of each row's leaf among the nodes. `numbers`: a feature's of all rows behind the other's."""
        at, rows = np.zeros(count, dtype=np.int64), np.arange(count)
        for _ in range(self.depth):
            left = numbers.take(self.feature.take(at) * count + rows) <= self.threshold.take(at)
            at = self.children.take(2 * at + left)
        return at


def _linked(sums: Any, link: str) -> Any:
    """What sums (outputs x rows) come to. No power is too large for a double."""
    if link == forms.SOFTMAX:
        powers = np.exp(sums - sums.max(axis=0))
        return (powers / powers.sum(axis=0)).T
    if link == forms.LOGISTIC:
        small = np.exp(-np.abs(sums[0]))
        return np.where(sums[0] >= 0, 1.0, small) / (1 + small)
    return sums[0]


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
        stats = [float(x) for x in totals[node["id"]]][:3]  # of weighted rows, the rows come after them
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
