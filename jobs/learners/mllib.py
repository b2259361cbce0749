"""MLlib's own decision tree and random forest, over the same bin numbers as the other learners.

MLlib gets the bins' numbers as features, as many maxBins as there are bins, and so has the same candidate splits as our
own tree; its thresholds half-way between two bins are ours. What it has learned is read out of the JVM as MLlib itself
would write it (org.apache.spark.ml.tree.DecisionTreeModelReadWrite.NodeData, Spark 3.5).

Of a classification MLlib merges sibling leaves that call the same class, and their shares with them (SPARK-3159): one
tree is learned so, as MLlib is. A forest's binary label is learned as a number instead, which merges nothing; the
variance of a 0/1 label is half of Gini's impurity, so the splits are the same.

The splits are MLlib's; what leaves say is smoothed as it is in our own tree (`training.smoothing`): MLlib's leaf of one
class is sure of it, and one row that is otherwise would cost more than all the others bring.
"""

import json
from typing import Any, Dict, List, NamedTuple, Optional, Sequence, Tuple

import numpy as np
from pyspark import StorageLevel

from jobs.learners import grow
from jobs.learners.encoding import Learned
from jobs.learners.grow import Node
from jobs.learners.probability_tree import Fitted, describe
from jobs.learners.survey import Survey
from jobs.models import forms
from jobs.models.forms import Told
from jobs.models.inputs import Feature
from jobs.models.tasks import PROBABILITIES, PROBABILITY
from jobs.tables.arrays import Array
from jobs.tables.settings import Training

FOREST_DEPTH, FOREST_LEAF = 12, 1  # of trees that are to differ; MLlib's own depth of 5 is meant for one
Stored = Dict[str, Any]  # a NodeData


class Forest(NamedTuple):
    """`told`: what tree.json has of this model alone."""

    features: List[Feature]
    told: Told


def fit(survey: Survey, parts: Sequence[int], training: Training) -> Fitted:
    """The splits of MLlib's DecisionTreeClassifier, or DecisionTreeRegressor."""
    from pyspark.ml.classification import DecisionTreeClassifier
    from pyspark.ml.regression import DecisionTreeRegressor

    assert training.depth is not None and training.min_leaf is not None  # noqa: S101  # set, or chosen by now
    classes, learned = survey.classes, survey.learn(parts)
    learner = DecisionTreeClassifier() if classes else DecisionTreeRegressor()
    (stored,) = _fitted(survey, parts, learned, learner, training, training.depth, training.min_leaf)
    nodes = _nodes(stored, classes > 0)
    blocks = survey.code(parts, learned)
    totals = grow.summed_up(nodes, grow.leaf_counts(blocks, nodes, classes, survey.by_row(parts)))
    unit = 1 / learned.point.step**2 if learned.point else 1.0  # `describe` takes gains in the unit of `grow`
    nodes = [node._replace(gain=node.gain * unit) for node in nodes]
    told = describe(nodes, learned, classes, totals, training.smoothing)
    return Fitted(learned, nodes, totals, {"format": forms.ONE, "nodes": told}, classes)


def fit_forest(survey: Survey, parts: Sequence[int], training: Training) -> Forest:
    """MLlib's RandomForestClassifier, or RandomForestRegressor, of `training.trees` trees."""
    from pyspark.ml.classification import RandomForestClassifier
    from pyspark.ml.regression import RandomForestRegressor

    classes, learned = survey.classes, survey.learn(parts)
    learner = RandomForestClassifier() if classes > 2 else RandomForestRegressor()
    # A third of the features at each node, MLlib's own choice of a regressor, is many for a class's probability.
    learner.setNumTrees(training.trees).setFeatureSubsetStrategy("sqrt" if classes else "onethird")
    depth, least = training.depth or FOREST_DEPTH, training.min_leaf or FOREST_LEAF
    every = _fitted(survey, parts, learned, learner, training, depth, least)
    weights = survey.weights(parts)
    trees = [{"nodes": _told(stored, learned, classes, training.smoothing, weights)} for stored in every]
    return Forest(learned.features, {"format": forms.SEVERAL, "link": forms.MEAN, "trees": trees})


def _fitted(
    survey: Survey,
    parts: Sequence[int],
    learned: Learned,
    learner: Any,
    training: Training,
    depth: int,
    min_leaf: int,
) -> List[List[Stored]]:
    """The nodes of each tree as MLlib would write them."""
    learner.setMaxDepth(depth).setMinInstancesPerNode(min_leaf).setMaxBins(max(2, *learned.bins))
    learner.setSeed(training.seed).setWeightCol("weight")
    rows = survey.vectors(parts, learned).persist(StorageLevel.MEMORY_AND_DISK)
    model = learner.fit(rows)
    rows.unpersist()
    jvm: Any = survey.context._jvm
    stored = getattr(getattr(jvm.org.apache.spark.ml.tree, "DecisionTreeModelReadWrite$NodeData$"), "MODULE$")
    formats = getattr(getattr(jvm.org.json4s, "DefaultFormats$"), "MODULE$")
    roots = [tree._call_java("rootNode") for tree in getattr(model, "trees", [model])]
    written = [jvm.org.json4s.jackson.Serialization.write(stored.build(root, 0)._1(), formats) for root in roots]
    return [json.loads(text) for text in written]


def _gains(stored: Sequence[Stored], of_classes: bool) -> List[float]:
    """MLlib's gains are of a unit of a node's weight; these are of a row of the average weight, as `grow` has them and
    `forms.importances` takes them. `of_classes`: whether the statistics of a node are its classes' weights."""
    weighs = [sum(node["impurityStats"]) if of_classes else node["impurityStats"][0] for node in stored]
    mean = weighs[0] / stored[0]["rawCount"]
    return [node["gain"] * (own / node["rawCount"] / mean) for node, own in zip(stored, weighs)]  # noqa: B905


def _nodes(stored: Sequence[Stored], of_classes: bool) -> List[Node]:
    """As `grow` has them: numbered level by level, a condition by the last bin that goes left."""
    gains = _gains(stored, of_classes)
    found: List[Node] = []
    waiting = [(0, 0)]
    while waiting:
        level, waiting = waiting, []
        for place, (i, depth) in enumerate(level):
            node, own = stored[i], Node(len(found), depth, np.empty(0))
            if node["leftChild"] >= 0:
                first = len(found) + len(level) - place + len(waiting)
                split = node["split"]
                own = own._replace(feature=split["featureIndex"], bin=_bin(split), gain=gains[i])
                own = own._replace(left=first, right=first + 1)
                waiting += [(node["leftChild"], depth + 1), (node["rightChild"], depth + 1)]
            found.append(own)
    return found


def _bin(split: Dict[str, Any]) -> int:
    return int(np.floor(split["leftCategoriesOrThreshold"][0]))


def _told(
    stored: Sequence[Stored], learned: Learned, classes: int, smoothing: float, weights: Optional[Array] = None
) -> List[Told]:
    """The nodes of one tree of a forest as tree.json has them; leaves are smoothed as those of our own tree.

    `weights`: what rows of each class counted while they were learned from; leaves say shares of rows all the same.
    """
    each = np.ones(max(classes, 1)) if weights is None else weights
    gains = _gains(stored, classes > 2)
    told: List[Told] = []
    waiting: List[Tuple[int, int, Any]] = [(0, 0, None)]
    while waiting:
        i, depth, above = waiting.pop()
        node, entry = stored[i], {"id": i, "depth": depth, "rows": stored[i]["rawCount"]}
        told.append(entry)
        # Rows of each class; or, of what is learned as a number, rows, sum and sum of squares.
        stats = np.array(node["impurityStats"])
        stats = np.pad(stats, (0, max(classes - len(stats), 0)))  # MLlib knows no class beyond the last that has rows
        if classes > 2:
            sums = stats / each
            seen = sums.sum()
        elif classes:
            sums = stats[1:2] / each[1]
            seen = (stats[0] - stats[1]) / each[0] + sums[0]
        else:
            seen, sums = stats[0], stats[1:2]
        says = sums / seen if above is None else (sums + smoothing * above) / (seen + smoothing)
        if node["leftChild"] >= 0:
            split = node["split"]
            feature = split["featureIndex"]
            entry.update(feature=learned.features[feature]["name"], left=node["leftChild"], right=node["rightChild"])
            entry.update(threshold=float(learned.thresholds[feature][_bin(split)]), gain=gains[i])
            waiting += [(node[side], depth + 1, says) for side in ("rightChild", "leftChild")]
        elif classes > 2:
            entry[PROBABILITIES] = says.tolist()
        else:
            entry[PROBABILITY if classes else "value"] = float(says[0])
    return told
