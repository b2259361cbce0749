"""Why a model says what it says of a row: what each feature adds to it, as exact Shapley values over its trees.

A feature's value is what it adds to the answer when it becomes known, averaged over all orders in which the row's
features could. While it is not known, a row goes both ways at a split on it, in the shares of the training rows (the
path-dependent expectation of TreeSHAP: Lundberg et al. 2020, From local explanations to global understanding with
explainable AI for trees). So the values of a row add up to what the trees say of it less `expected`, and a feature that
no tree looks at has none.

To one leaf it is a product over the features on the way to it, each split on a feature counted in: 1 or 0 if the
feature is known (whether the row agrees with all of its splits), else the share of rows that do. The Shapley value of a
product is an integral over its multilinear extension (Owen 1972, Management Science 18(5)), here of a polynomial, which
Gauss and Legendre's quadrature gives exactly: all factors and weights are positive, so nothing cancels. The cost is
rows x leaves x features on the way.
"""

from functools import lru_cache
from math import ceil
from typing import Any, Dict, Iterator, List, NamedTuple, Sequence, Tuple

import numpy as np

from jobs.models import forms
from jobs.models.forms import Told
from jobs.tables.arrays import Array

LACKING = "its trees do not tell how many training rows came to each node, as those of an earlier release do not"
MOST_WAYS = 4096  # of agreeing, that are worked out for a leaf beforehand
CELLS_AT_ONCE = 4_000_000  # numbers in one array: features x rows x points of the quadrature


class Leaf(NamedTuple):
    """A leaf with the features on the way to it, each once: a row agrees with those of which low < number <= high.

    `share`: of the training rows that came to splits on the feature, those that went on towards the leaf. `value`: a
    number for each class if leaves say probabilities, else one.
    """

    features: Array
    low: Array
    high: Array
    share: Array
    value: Array


class Leaves(NamedTuple):
    """The leaves of a tree, one behind the other in few arrays, which go to workers fast. `ends`: where each ends."""

    ends: Array
    features: Array
    bounds: Array  # low, high and share
    values: Array

    def each(self) -> Iterator[Leaf]:
        start = 0
        for end, value in zip(self.ends.tolist(), self.values):  # noqa: B905  # not in Python 3.9
            low, high, share = self.bounds[:, start:end]
            yield Leaf(self.features[start:end], low, high, share, value)
            start = end


def reason_against(model: Told) -> str:
    """Why there are no reasons of this model's answers, '' if there are."""
    return "" if all(_cover(node) is not None for node in forms.all_nodes(model)) else LACKING


def unit(model: Told) -> str:
    """What effects are in."""
    link = model.get("link", forms.MEAN)
    if link == forms.LOGISTIC:
        return "log-odds"
    if link == forms.SOFTMAX:
        return "log-odds of the predicted class, up to what all classes share"
    if model["task"] == "regression":
        return model.get("unit") or "the label's unit"
    return "probability of the predicted class" if model["task"] == "multiclass" else "probability"


class Reasons:
    """Of a model with no `reason_against` it. `expected`: of each output, or class, what is said with nothing known."""

    def __init__(self, model: Told) -> None:
        index = {feature["name"]: i for i, feature in enumerate(model["features"])}
        self.features, self.link = len(index), model.get("link", forms.MEAN)
        says = "value" if self.link != forms.MEAN else _says(model["task"])
        self.trees = [leaves_of(nodes, index, says) for nodes in forms.trees(model)]
        self.outputs = [tree.get("output", 0) for tree in model.get("trees", ({},))]
        self.several = self.link == forms.SOFTMAX  # outputs, each with trees of its own
        self.expected = np.array(model.get("base", np.zeros(self.trees[0].values.shape[1])), dtype=np.float64)
        for leaves, output in zip(self.trees, self.outputs):  # noqa: B905  # not in Python 3.9
            mean = np.stack([np.prod(leaf.share) * leaf.value for leaf in leaves.each()]).sum(axis=0)
            if self.link == forms.MEAN:
                self.expected += mean / len(self.trees)
            else:
                self.expected[output] += mean[0]

    def effects(self, numbers: Array, output: Array) -> Array:
        """Rows x features. `numbers`: features x rows, as a scorer compares them; `output`: of each row the class that
        is asked for, 0 if there are none."""
        found = np.zeros((self.features, numbers.shape[1]))
        for leaves, own in zip(self.trees, self.outputs):  # noqa: B905  # not in Python 3.9
            asked = np.flatnonzero(output == own) if self.several else None
            if asked is None:
                _add(found, leaves, numbers, output)
            elif len(asked):
                part = np.zeros((self.features, len(asked)))
                _add(part, leaves, numbers[:, asked], output[asked])
                found[:, asked] += part
        return (found / len(self.trees) if self.link == forms.MEAN else found).T


def leaves_of(nodes: Sequence[Told], index: Dict[str, int], says: str) -> Leaves:
    """The leaves of one tree. `says`: the name of what they say."""
    by_id = {node["id"]: node for node in nodes}
    ends: List[int] = []
    features: List[int] = []
    bounds: List[Tuple[float, float, float]] = []
    values: List[Any] = []
    waiting: List[Tuple[Told, Dict[int, Tuple[float, float, float]]]] = [(nodes[0], {})]
    while waiting:
        node, way = waiting.pop()
        if "feature" not in node:
            features += way
            bounds += way.values()
            ends.append(len(features))
            values.append(node[says])
            continue
        feature, threshold = index[node["feature"]], node["threshold"]
        low, high, share = way.get(feature, (-np.inf, np.inf, 1.0))
        left, right = by_id[node["left"]], by_id[node["right"]]
        whole = _cover(left) + _cover(right)
        to_left = _cover(left) / whole if whole > 0 else 0.5
        waiting.append((right, {**way, feature: (max(low, threshold), high, share * (1 - to_left))}))
        waiting.append((left, {**way, feature: (low, min(high, threshold), share * to_left)}))
    of_leaves = np.array(values, dtype=np.float64).reshape(len(values), -1)
    of_features = np.array(bounds, dtype=np.float64).reshape(-1, 3).T
    return Leaves(np.array(ends), np.array(features, dtype=np.int64), of_features, of_leaves)


def weights(agrees: Array, share: Array) -> Array:
    """The Shapley values of a leaf that says 1: patterns x features. `agrees`: of each pattern, whether each feature
    does; `share` as in `Leaf`."""
    at, masses = _quadrature(max(1, ceil(len(share) / 2)))
    factors = agrees[:, :, None] * at + (share[:, None] * (1 - at))[None]
    whole = factors.prod(axis=1, keepdims=True)
    # A factor of zero is of a feature that adds nothing, and makes what others add nothing.
    rest = (whole / np.where(factors > 0, factors, 1)) @ masses
    values: Array = (agrees - share) * rest
    return values


@lru_cache(maxsize=None)
def _quadrature(count: int) -> Tuple[Array, Array]:
    """Points from 0 to 1 with their masses: exact up to a degree of 2 * count - 1."""
    points, masses = np.polynomial.legendre.leggauss(count)
    return (points + 1) / 2, masses / 2


def _add(found: Array, leaves: Leaves, numbers: Array, output: Array) -> None:
    rows = numbers.shape[1]
    for leaf in leaves.each():
        wide = len(leaf.features)
        if not wide:
            continue
        own = numbers[leaf.features]
        agrees = (leaf.low[:, None] < own) & (own <= leaf.high[:, None])
        if 2**wide <= min(rows, MOST_WAYS):  # rows agree in so few ways that each is worked out once
            ways = (np.arange(2**wide)[:, None] >> np.arange(wide)) & 1
            place = (agrees * (1 << np.arange(wide))[:, None]).sum(axis=0)
            of_rows = weights(ways, leaf.share)[place]
        else:
            step = max(1, CELLS_AT_ONCE // (wide * wide))
            parts = [weights(agrees[:, at : at + step].T, leaf.share) for at in range(0, rows, step)]
            of_rows = np.concatenate([*parts, np.empty((0, wide))])
        said = leaf.value[output] if len(leaf.value) > 1 else leaf.value
        found[leaf.features] += (of_rows * np.reshape(said, (-1, 1))).T


def _cover(node: Told) -> Any:
    """How much of the training side came to a node: its rows; in boosting, the sum of their second derivatives, as
    XGBoost's own contributions have it."""
    return node.get("cover", node.get("rows"))


def _says(task: str) -> str:
    return {"binary": "probability", "multiclass": "probabilities", "regression": "value"}[task]
