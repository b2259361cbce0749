"""Features as the numbers that a tree splits on: what is learned from the training side, and applied to any rows.

What is learned is a list of JSON objects, one a feature (`features` in tree.json), and the only thing that scoring
needs besides the tree. For every task:
- a number that is missing (NULL, NaN, infinite) becomes MISSING, below every value that occurs: missing rows go left;
- a category becomes a number by its smoothed label, as if `m` more rows of the average kind had been seen in it
  (Micci-Barreca 2001, SIGKDD Explorations 3(1)); a missing one is a category of its own, one that training has not
  seen is of the average kind.

The smoothed label of a category, from its rows on the training side, is
- binary: `(positives + m * share of positives) / (rows + m)`;
- regression: `(sum of the label + m * mean) / (rows + m)`;
- multiclass: the smoothed share of each class, a vector, projected on the first principal component of all categories'
  vectors, weighted by their rows: the order in which the classes are told apart best (Coppersmith, Hong and Hosking
  1999, Data Mining and Knowledge Discovery 3(2)).
"""

from typing import Any, Dict, List, NamedTuple, Optional, Tuple

import numpy as np

from jobs.errors import JobError
from jobs.learners.grow import FixedPoint
from jobs.models.inputs import Feature
from jobs.tables.arrays import Array
from jobs.tables.settings import Dataset

FEWEST = 10  # rows of a part, below which a choice by it would be chance alone
FEW_ROWS = 30  # a side of fewer rows may lack a class by chance


class Labels(NamedTuple):
    """The label on one side of the split. `counts`: rows of each class. Of a regression the others, in its own unit."""

    rows: int
    counts: List[int]
    low: float
    high: float
    mean: float
    std: float

    def told(self, task: str) -> Dict[str, Any]:
        """As metrics.json has it."""
        if task == "binary":
            return {"positives": self.counts[1]}
        if task == "multiclass":
            return {"counts": self.counts}
        return {"mean": self.mean, "std": self.std, "min": self.low, "max": self.high}


class Learned(NamedTuple):
    """`features` as in tree.json; `thresholds` between the bins of each; `point` rounds a regression's labels."""

    features: List[Feature]
    thresholds: List[Array]
    point: Optional[FixedPoint]

    @property
    def bins(self) -> List[int]:
        """How many each feature has."""
        return [len(between) + 1 for between in self.thresholds]


def require_parts(fitted: Labels, held: Labels, settings: Dataset, choosing: str, way_out: str) -> None:
    """Raises JobError if the part to learn from, or the one to validate on, has too few rows or one label only."""
    for found, where in (
        (fitted, "the part of the training side to learn from"),
        (held, "the validation part of the training side"),
    ):
        if found.rows < FEWEST:
            raise JobError(f"{found.rows} rows on {where} are too few to choose {choosing} by. {way_out}")
        require_variety(found, settings, where, way_out)


def require_variety(found: Labels, settings: Dataset, where: str, otherwise: str = "") -> None:
    """Raises JobError if a side has no rows or one label only: nothing can be learned or measured there.

    `otherwise`: the way out, if it is not to look at the query or to hold out another share.
    """
    label, look = settings.label.column, otherwise or f"Look at how datasets/{settings.name}/prepare.sql makes it."
    if found.rows == 0:
        raise JobError(f"There are no rows on {where}: too few for a split. {look}")
    if settings.task == "regression":
        if found.low < found.high:
            return
        raise JobError(f"The label {label} is {found.low:g} in all {found.rows:,} rows on {where}. {look}")
    if sum(count > 0 for count in found.counts) > 1:
        return
    if found.rows < FEW_ROWS and not otherwise:
        look = f"Of so few rows it may be chance: give more, or hold out another share (training.test_share). {look}"
    if settings.task == "binary":
        told = f"{found.counts[1]:,} of {found.rows:,} rows are positive ({settings.label.positive})"
    else:
        told = f"all {found.rows:,} rows are {settings.label.classes[int(np.argmax(found.counts))]!r}"
    raise JobError(f"The label {label} has one class only on {where}: {told}. {look}")


def class_weights(settings: Dataset, counts: List[int]) -> Optional[Array]:
    """How much a row of each class counts while it is learned from (training.weights), None if all count alike.

    `counts`: the rows of each class that are learned from. Only how weights compare matters, so they are told for a
    mean of 1 over these rows. "balanced" is rows / (classes * rows of the class), as scikit-learn has it
    (compute_class_weight): each class counts as much as another.
    """
    asked, rows = settings.training.weights, np.array(counts, dtype=np.float64)
    if not asked or settings.training.weight_column:
        return None
    if isinstance(asked, dict):
        weights = np.array([asked.get(name, 1.0) for name in settings.class_names], dtype=np.float64)
    else:
        weights = 1 / np.maximum(rows, 1)
    scaled: Array = weights * rows.sum() / (weights * rows).sum()
    return scaled


def thresholds(values: Array, rows: Array, bins: int) -> Array:
    """Half-way between neighbouring values, for at most `bins` bins of about equal rows. `values`: rising, distinct."""
    if len(values) < 2:
        return np.empty(0)
    if len(values) <= bins:
        last: Array = np.arange(len(values) - 1)
    else:
        reached = np.cumsum(rows)
        last, cuts = np.unique(np.searchsorted(reached, np.arange(1, bins) * reached[-1] / bins), return_counts=True)
        last = np.union1d(last, last[cuts > 1] - 1)  # what fills bins alone is cut off on both sides
        last = last[(last >= 0) & (last < len(values) - 1)]
    between = values[last] / 2 + values[last + 1] / 2
    # Of two values without a number between them the lower one is the threshold: `<=` tells them apart.
    return np.where((values[last] <= between) & (between < values[last + 1]), between, values[last])


def category_feature(
    name: str,
    counts: Dict[Optional[str], Array],
    average: Array,
    smoothing: float,
    classes: int,
    point: Optional[FixedPoint],
) -> Tuple[Feature, List[int]]:
    """tree.json's object of a category, and the rows of each encoding and then of the missing, if there are any.

    `counts`: of each value, or None, the rows of each class; of a regression rows and the sum of the rounded labels.
    """
    ordered = sorted(counts, key=lambda value: (value is None, value or ""))
    table = np.array([counts[value] for value in ordered], dtype=np.float64).reshape(len(ordered), classes or 2)
    rows = table.sum(axis=1) if classes else table[:, 0]
    sums = table if point is None else point.sum(table[:, :1], table[:, 1:])
    smoothed = (sums + smoothing * average) / (rows + smoothing)[:, None]
    if classes > 2:
        centred = smoothed - np.average(smoothed, axis=0, weights=rows)
        axis = np.linalg.eigh((centred * rows[:, None]).T @ centred)[1][:, -1]
        axis = axis * np.sign(axis[np.abs(axis).argmax()])
    else:
        axis = np.array([0.0, 1.0]) if classes else np.array([1.0])
    numbers = {value: float(x) for value, x in zip(ordered, smoothed @ axis)}  # noqa: B905
    prior = float(average @ axis)
    has_missing = None in numbers
    feature = {
        "name": name,
        "kind": "category",
        "encoding": {value: x for value, x in numbers.items() if value is not None},
        "prior": prior,
        "unseen": prior,
        "missing": numbers.get(None, prior),
        "missing_rows": int(rows[-1]) if has_missing else 0,
    }
    return feature, [int(n) for n in rows]
