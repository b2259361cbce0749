"""Our own learner: one tree, grown from binned rows, whose leaves say probabilities or a number, smoothed."""

from typing import Any, Dict, List, NamedTuple, Sequence, Set, Tuple

from jobs.learners import grow
from jobs.learners.encoding import Learned
from jobs.learners.grow import Node, smoothed
from jobs.learners.survey import Survey
from jobs.models import forms
from jobs.models.forms import Told
from jobs.models.inputs import Feature, number_condition
from jobs.models.tasks import PROBABILITIES, PROBABILITY
from jobs.tables.arrays import Array
from jobs.tables.settings import Training

NAMED = 6  # categories that a condition names before it only counts the rest


class Fitted(NamedTuple):
    """One tree. `told`: what tree.json has of it alone; `totals`: what training rows add up to in its nodes, by id."""

    learned: Learned
    nodes: Sequence[Node]
    totals: Array
    told: Told
    classes: int

    @property
    def features(self) -> List[Feature]:
        return self.learned.features

    def leaf_counts(self, survey: Survey, parts: Sequence[int]) -> Array:
        """How rows that it may not have seen fall into its nodes: as of `grow.leaf_counts`."""
        return grow.leaf_counts(survey.code(parts, self.learned), self.nodes, self.classes)


def fit(survey: Survey, parts: Sequence[int], training: Training) -> Fitted:
    """Learns encodings and tree from these parts of the survey's rows."""
    assert training.depth is not None and training.min_leaf is not None  # noqa: S101  # set, or chosen by now
    classes, learned = survey.classes, survey.learn(parts)
    blocks = survey.code(parts, learned).persist(grow.KEPT)
    weights, by_row = survey.weights(parts), survey.by_row(parts)
    nodes = grow.grow(
        blocks,
        learned.bins,
        classes,
        depth=training.depth,
        min_leaf=training.min_leaf,
        weights=weights,
        by_row=by_row,
    )
    totals = grow.node_totals(blocks, nodes, classes, by_row)
    blocks.unpersist()
    described = describe(nodes, learned, classes, totals, training.smoothing)
    return Fitted(learned, nodes, totals, {"format": forms.ONE, "nodes": described}, classes)


def describe(nodes: Sequence[Node], learned: Learned, classes: int, totals: Array, smoothing: float) -> List[Told]:
    """The nodes as tree.json has them, root first: rows, value and, unless it is a leaf, the condition that leads left.

    `totals`: what the training rows add up to in each node, as of `grow.node_totals`; values are smoothed. A threshold
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
            entry["condition"], entry["otherwise"] = number_condition(feature, threshold)
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


def _value(totals: Array, says: Any, learned: Learned, classes: int) -> Told:
    """Rows, impurity, and what the node says."""
    unit, weighed = _unit_of_impurity(learned, classes), len(totals) > (classes or 3)
    rows = int(totals[-1] if weighed else totals.sum() if classes else totals[0])
    if classes:
        totals = totals[:classes]
        value: Told = {PROBABILITY: float(says[1])} if classes == 2 else {PROBABILITIES: [float(p) for p in says]}
        return {
            "rows": rows,
            **value,
            "impurity": unit * (1 - float(((totals / totals.sum()) ** 2).sum())),
        }
    assert learned.point is not None  # noqa: S101  # a regression has one
    weight, total, squares = (float(x) for x in totals[:3])
    variance = max(squares / weight - (total / weight) ** 2, 0.0)
    return {"rows": rows, "value": learned.point.sum(1, float(says)), "impurity": unit * variance}


def _unit_of_impurity(learned: Learned, classes: int) -> float:
    """What `grow`'s gains are multiplied with. Binary: the variance of the 0/1 label is half of Gini's impurity."""
    if learned.point is not None:
        return learned.point.step**2
    return 0.5 if classes == 2 else 1.0


def _category_condition(feature: Feature, values: Set[str], with_missing: bool) -> str:
    name, listed = feature["name"], sorted(values)
    told = ", ".join(listed if len(listed) <= NAMED + 1 else [*listed[:NAMED], f"{len(listed) - NAMED} more"])
    missing = with_missing and feature["missing_rows"] > 0
    if not listed:
        return f"{name} is missing" if missing else f"{name} is not one that training has seen"
    return f"{name} in {told}{' or missing' if missing else ''}"
