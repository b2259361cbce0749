"""What the data looked like that a model learned from: profile.json, and the leak alarm that is raised from it.

Categories, labels and a fixed sample of the numbers are what `jobs/learners/survey.py` has found; bins come from the
quantiles of that sample; then one pass counts rows and label sums by bin and adds up the moments, all exactly. What
comes to the driver grows with the number of features and categories, never with the number of rows. The module is not
called `profile`: a script's own folder comes first on Python's path, and pyspark imports the standard library's
`profile`.

A number's bins are closed on the right: bin b holds what is above edge b - 1 and not above edge b. The first is open
below and the last above, and the sample's least value is an edge, so that each value of a flag has a bin of its own.
"""

import datetime as dt
import math
from typing import Any, Dict, Iterable, Iterator, List, NamedTuple, Optional, Sequence, Tuple, Union

import numpy as np
import pyarrow as pa  # pyarrow ships no types
from numpy.typing import NDArray

from jobs.learners.survey import Apart, Survey, reduced
from jobs.models.inputs import MISSING
from jobs.tables import split
from jobs.tables.arrays import as_doubles, as_numpy
from jobs.tables.features import Features
from jobs.tables.settings import Dataset, Label, Task

Profile = Dict[str, Any]
Cell = Dict[str, Any]
Floats = NDArray[np.float64]

SHOWN = (5, 25, 50, 75, 95)
# Every 2.5 %, which holds the quantiles shown and the deciles, and the tails, where a rare class may hide.
QUANTILES = (0.001, 0.01, *[i / 40 for i in range(1, 40)], 0.99, 0.999)
TOP_VALUES, NAMED_VALUES = 50, 1_000  # categories with figures of their own, and further ones whose name is kept

MIN_ROWS = 5  # training rows that a bin needs before the leak alarm believes its label
SUSPICIOUS = 0.99  # AUC or R2 of a single feature, unless the settings say otherwise

# Bins of what is no number or no category of its own; bins of numbers and of known categories are counted from 0.
_NULL, _NAN, _INFINITE, _OTHERS, _NEW = -1, -2, -3, -4, -5
NO_NUMBER = (_NULL, _NAN, _INFINITE)


class _Column(NamedTuple):
    """A column to profile: a feature, or the label of a regression task. `old` is what the reference says of it."""

    name: str
    kind: str
    old: Optional[Cell]


def profile(features: Features, survey: Survey, settings: Dataset, reference: Optional[Profile] = None) -> Profile:
    """profile.json: rows, time span, label, and of each declared feature what is missing, its spread and its bins.

    `survey`: of these features, with the mark `test` at least. Figures of features are over all rows; what has to do
    with the label (`train` rows and `label` sums of a bin, the label itself) is over rows on the side `train` only.
    `label` sums are positives (binary), counts by class (multiclass) or the sum of the label (regression).

    With a `reference`, an older profile, rows are also counted over its bins and values (`reference` of a feature, and
    of a regression label): two profiles have bins of their own, and `drift` compares them by these counts.
    """
    columns = _columns(settings, reference)
    every, train = survey.parts(), survey.parts(test=False)
    samples = {
        i: np.sort(values[values > MISSING])
        for i, values in zip(_numbers(columns), survey.sample(every).values)  # noqa: B905  # not in Python 3.9
    }
    if settings.task == "regression":
        samples[len(columns) - 1] = np.sort(survey.sample(train).values[-1])
    edges = {i: _quantiles(sample, [0.0, *QUANTILES, 1.0]) for i, sample in samples.items()}
    counted, moments, span = _counted(features, columns, edges, settings)

    nothing = _figures([0.0] * (2 + max(len(settings.label.classes), 1)), settings.task)
    told: List[Cell] = []
    for i, column in enumerate(columns):
        if column.kind == "number":
            cells = _cells(counted.get(i), settings.task)
            figures = _number(samples[i], edges[i], cells, moments[i], nothing)
            of_old = _cells(counted.get(len(columns) + i), settings.task)
        else:
            values_seen = _values(survey, column.name, train, settings.task)
            figures, of_old = _category(_pooled(values_seen), nothing), _of_known(values_seen, column.old)
        of_column = {"name": column.name, "kind": column.kind, **figures}
        if column.old is not None:
            of_column["reference"] = _against(column.old, of_old)
        told.append(of_column)
    label = settings.label.column
    totals = {"rows": survey.labels(every).rows, "train": survey.labels(train).rows}
    return {
        "format": 1,
        "dataset": settings.name,
        "task": settings.task,
        **totals,
        "time": span,
        "label": _label(told, survey.labels(train).counts, totals["train"], settings.label, settings.task),
        "features": [of_column for of_column in told if of_column["name"] != label],
    }


def leaks(told: Profile, settings: Dataset) -> List[Cell]:
    """The leak alarm: features that tell the label alone, almost perfectly; the most suspicious first.

    Each has feature, measure, value and sentence. Measured on the training rows of the profile's bins and values:
    binary, the AUC of ranking bins by their rate (above `gate.suspicious_auc`); multiclass, the share of rows whose
    class is the most frequent of their bin (above `gate.suspicious_share`, where always guessing the most frequent
    class is not, and leaves at least twice as many errors); regression, the variance that the bins' means explain, or a
    straight line (above `gate.suspicious_r2`). Bins with fewer than MIN_ROWS rows are taken together first.
    """
    if told["label"] is None or not told["train"]:
        return []
    found = [alarm for feature in told["features"] if (alarm := _leak(feature, told, settings)) is not None]
    return sorted(found, key=lambda alarm: (-alarm["value"], alarm["feature"]))


def bins_of(feature: Cell) -> List[Cell]:
    """All cells of a feature in its own order: bins or top values, then the other values, then what is missing."""
    cells = feature["histogram"] if feature["kind"] == "number" else [*feature["top"], feature["others"]]
    return [*cells, feature["missing"]]


def _columns(settings: Dataset, reference: Optional[Profile]) -> List[_Column]:
    """Numbers first, as `survey.sample` has them, and the label of a regression last."""
    old = {feature["name"]: feature for feature in reference["features"]} if reference else {}
    names = [(name, "number") for name in settings.features.numbers]
    names += [(name, "category") for name in settings.features.categories]
    columns = []
    for name, kind in names:
        was = old.get(name)
        columns.append(_Column(name, kind, was if was and was["kind"] == kind else None))
    if settings.task == "regression":
        known = reference["label"] if reference and reference["task"] == "regression" else None
        columns.append(_Column(settings.label.column, "number", known))
    return columns


def _numbers(columns: Sequence[_Column]) -> Iterator[int]:
    return (i for i, column in enumerate(columns) if column.kind == "number")


def _quantiles(values: Floats, at: Sequence[float]) -> List[float]:
    """Distinct quantiles in rising order, each a value that occurs; none if there are no values."""
    if not len(values):
        return []
    found: List[float] = np.unique(np.quantile(values, at, method="inverted_cdf")).tolist()
    return found


class _Moments(NamedTuple):
    """Of finite values: the least, the greatest, and sums as of `_Counting._moments`."""

    low: float
    high: float
    sums: Floats


class _Counting:
    """What a worker counts of its numbers, by their place; for the reference's bins `of_old` is added to it."""

    def __init__(self, columns: Sequence[_Column], edges: Dict[int, List[float]], settings: Dataset) -> None:
        self.edges = {i: np.array(own, dtype=np.float64) for i, own in edges.items()}
        self.old = {
            i: np.array(columns[i].old["deciles"], dtype=np.float64)  # type: ignore[index]
            for i in edges
            if columns[i].old is not None
        }
        self.names, self.of_old = [column.name for column in columns], len(columns)
        self.test_share = settings.training.test_share
        self.apart, self.classes = Apart(settings.label, settings.task, []), len(settings.label.classes)
        self.regression = settings.task == "regression"
        self.time = settings.time.column if settings.time else None

    def __call__(self, batches: Iterable[pa.RecordBatch]) -> Iterator[Tuple[Any, Any]]:
        counted: Dict[Any, Any] = {}

        def add(key: Any, value: Any) -> None:
            counted[key] = _added(counted[key], value) if key in counted else value

        for batch in batches:
            if not batch.num_rows:
                continue
            train = ~split.is_test(as_numpy(batch.column(split.HASH)), self.test_share)
            y = self.apart.label(batch).astype(np.float64)
            if self.time:
                add("time", _ends(batch.column(self.time)))
            for i, edges in self.edges.items():
                column = batch.column(self.names[i])
                x = as_doubles(column)
                null = ~as_numpy(column.is_valid().cast(pa.uint8())).astype(bool)
                if self.regression and i == self.of_old - 1:  # the label, of training rows only
                    x, null = np.where(train, x, np.nan), ~train
                add(i, self._by_bin(x, null, edges, train, y))
                if i in self.old:
                    add(self.of_old + i, self._by_bin(x, null, self.old[i], train, y))
                finite = np.isfinite(x)
                if finite.any():
                    add(("moments", i), self._moments(i, x, finite, train, y))
        yield from counted.items()

    def _by_bin(self, x: Floats, null: NDArray[np.bool_], edges: Floats, train: NDArray[np.bool_], y: Floats) -> Floats:
        """Bin x (rows, training rows, label sums); the last three bins are NO_NUMBER."""
        size = len(edges) + 1 + len(NO_NUMBER)
        codes = np.searchsorted(edges, x, side="left")
        codes[np.isinf(x)], codes[np.isnan(x)], codes[null] = size - 1, size - 2, size - 3
        sums, own, of_train = np.zeros((size, 2 + max(self.classes, 1))), codes[train], y[train]
        sums[:, 0] = np.bincount(codes, minlength=size)
        sums[:, 1] = np.bincount(own, minlength=size)
        if self.classes:
            labels = np.bincount(own * self.classes + of_train.astype(np.int64), minlength=size * self.classes)
            sums[:, 2:] = labels.reshape(size, self.classes)
        else:
            sums[:, 2] = np.bincount(own, weights=of_train, minlength=size)
        return sums

    def _moments(self, of: int, x: Floats, finite: NDArray[np.bool_], train: NDArray[np.bool_], y: Floats) -> _Moments:
        """n, sum and sum of squares; for a regression also n, x, y, xx, yy and xy added up over training rows.

        All are about a middle edge, which keeps the digits of a large number with a small spread.
        """
        sums = np.zeros(9 if self.regression else 3)
        with np.errstate(over="ignore", invalid="ignore"):
            near = x[finite] - _centre(self.edges[of])
            sums[:3] = len(near), near.sum(), (near**2).sum()
            if self.regression:
                both = finite & train
                a, b = x[both] - _centre(self.edges[of]), y[both] - _centre(self.edges[self.of_old - 1])
                sums[3:] = len(a), a.sum(), b.sum(), (a**2).sum(), (b**2).sum(), (a * b).sum()
        return _Moments(float(x[finite].min()), float(x[finite].max()), sums)


def _ends(column: pa.Array) -> Tuple[int, int, bool]:
    """The earliest and the latest of a column of times, in microseconds, and whether they are days."""
    since = as_numpy(column.drop_null().cast(pa.timestamp("us")).cast(pa.int64()))
    far = np.iinfo(np.int64)
    ends = (int(since.min()), int(since.max())) if len(since) else (int(far.max), int(far.min))
    return (*ends, pa.types.is_date32(column.type))


def _added(one: Any, other: Any) -> Any:
    if isinstance(one, _Moments):
        return _Moments(min(one.low, other.low), max(one.high, other.high), one.sums + other.sums)
    if isinstance(one, tuple):
        return min(one[0], other[0]), max(one[1], other[1]), one[2]
    return one + other


def _counted(
    features: Features, columns: Sequence[_Column], edges: Dict[int, List[float]], settings: Dataset
) -> Tuple[Dict[int, Floats], Dict[int, Cell], Optional[Cell]]:
    """Of each number by its place in `columns`, and with their number added for the reference's bins: what is counted
    by bin; its moments; and the time span."""
    counting = _Counting(columns, edges, settings)
    time_column = [settings.time.column] if settings.time else []
    names = [split.HASH, settings.label.column, *time_column, *[columns[i].name for i in edges]]
    cells = features.batches(names).mapPartitions(counting)
    found = dict(reduced(cells, _added).collect())
    span = None
    if settings.time:
        low, high, days = found.pop("time", (1, 0, True))
        told = [_time(x, days) if low <= high else None for x in (low, high)]
        span = {"column": settings.time.column, "min": told[0], "max": told[1]}
    moments: Dict[int, Cell] = {i: {} for i in edges}
    for i in edges:
        if ("moments", i) in found:
            of = found.pop(("moments", i))
            moments[i] = {"min": of.low, "max": of.high, **_spread(of.sums.tolist(), edges[i])}
    return found, moments, span


def _time(microseconds: int, days: bool) -> str:
    """As Spark's `cast("string")` has it."""
    when = dt.datetime(1970, 1, 1) + dt.timedelta(microseconds=microseconds)
    if days:
        return when.date().isoformat()
    text = when.isoformat(sep=" ")
    return text.rstrip("0") if "." in text else text


def _cells(sums: Optional[Floats], task: Task) -> List[Cell]:
    """What `_Counting._by_bin` has counted, as cells; empty ones are left out."""
    if sums is None:
        return []
    bins = [*range(len(sums) - len(NO_NUMBER)), *NO_NUMBER]
    return [{"bin": b, **_figures(row, task)} for b, row in zip(bins, sums.tolist()) if row[0]]  # noqa: B905


def _values(survey: Survey, name: str, train: Sequence[int], task: Task) -> List[Cell]:
    """A cell for each value of a category, the most frequent first and None last."""
    told = []
    for value, by_part in survey.values(name).items():
        own = by_part[list(train)].sum(axis=0)
        if survey.point is None:
            rows, of_train, labels = by_part.sum(), own.sum(), own if survey.classes > 2 else own[1:]
        else:
            rows, of_train, labels = by_part[:, 0].sum(), own[0], [survey.point.sum(own[0], own[1])]
        told.append({"value": value, **_figures([rows, of_train, *labels], task)})
    return sorted(told, key=lambda cell: (cell["value"] is None, -cell["rows"], cell["value"] or ""))


def _pooled(values: Sequence[Cell]) -> List[Cell]:
    """The most frequent values apart, and what the others come to."""
    named = [cell for cell in values if cell["value"] is not None]
    others = named[TOP_VALUES:]
    cells = named[:TOP_VALUES]
    if others:
        names = sorted(cell["value"] for cell in others[:NAMED_VALUES])
        cells.append({"bin": _OTHERS, "value": None, "values": len(others), "names": names, **_pool(others)})
    return [*cells, *[{**cell, "bin": _NULL} for cell in values if cell["value"] is None]]


def _of_known(values: Sequence[Cell], old: Optional[Cell]) -> List[Cell]:
    """The same rows over a reference's values."""
    if old is None:
        return []
    known, other = _known(old)
    return [
        {"bin": _NULL if cell["value"] is None else known.get(cell["value"], other), "rows": cell["rows"]}
        for cell in values
    ]


def _spread(added: Sequence[float], edges: Sequence[float]) -> Cell:
    """Mean, standard deviation and correlation with the label out of what `_Counting` added up; NaN if not defined."""
    n, x, xx, *of_train = added
    told = {"mean": _centre(edges) + x / n, "std": _root(xx - x * x / n) / math.sqrt(max(n - 1, 1))}
    if len(of_train) == 6 and of_train[0]:
        n, x, y, xx, yy, xy = of_train
        below = _root(xx - x * x / n) * _root(yy - y * y / n)
        told["correlation"] = (xy - x * y / n) / below if below else math.nan
    return told


def _root(x: float) -> float:
    return math.sqrt(max(x, 0.0)) if math.isfinite(x) else math.nan


def _centre(edges: Union[Floats, Sequence[float]]) -> float:
    return float(edges[len(edges) // 2]) if len(edges) else 0.0


def _known(feature: Cell) -> Tuple[Dict[str, int], int]:
    """The reference's categories by bin; one that it cannot have known of is new only if it names all that it knew."""
    known = {cell["value"]: i for i, cell in enumerate(feature["top"])}
    known.update(dict.fromkeys(feature["others"]["names"], _OTHERS))
    return known, _NEW if names_all(feature) else _OTHERS


def names_all(feature: Cell) -> bool:
    """Whether a category's profile holds every value that it had, so that a new value can be told from a rare one."""
    return len(feature["others"]["names"]) == int(feature["others"]["values"])


def _figures(sums: Sequence[float], task: Task) -> Cell:
    rows, train, *label = sums
    if task == "multiclass":
        of_label: Any = [int(n) for n in label]
    else:
        of_label = int(label[0]) if task == "binary" else _plain(label[0])
    return {"rows": int(rows), "train": int(train), "label": of_label}


def _pool(cells: Sequence[Cell]) -> Cell:
    """Several cells, at least one, as one."""
    labels = [cell["label"] for cell in cells]
    whole = np.sum(labels, axis=0).tolist()
    return {"rows": sum(cell["rows"] for cell in cells), "train": sum(cell["train"] for cell in cells), "label": whole}


def _number(sample: Floats, edges: Sequence[float], cells: Sequence[Cell], moments: Cell, nothing: Cell) -> Cell:
    of_bin = {cell["bin"]: cell for cell in cells}
    ends = [moments.get("min"), *edges, moments.get("max")]
    return {
        "missing": _pool([of_bin.get(b, nothing) for b in NO_NUMBER]),
        "null": of_bin.get(_NULL, nothing)["rows"],
        "nan": of_bin.get(_NAN, nothing)["rows"],
        "infinite": of_bin.get(_INFINITE, nothing)["rows"],
        "distinct": len(np.unique(sample)),
        **{name: _plain(moments.get(name)) for name in ("min", "max", "mean", "std")},
        **({"correlation": _plain(moments["correlation"])} if "correlation" in moments else {}),
        "quantiles": {str(q): float(np.quantile(sample, q / 100, method="inverted_cdf")) for q in SHOWN}
        if len(sample)
        else None,
        "deciles": _quantiles(sample, [i / 10 for i in range(1, 10)]),
        "histogram": [
            {"from": ends[b], "to": ends[b + 1], **_only_figures(of_bin[b])} for b in sorted(of_bin) if b >= 0
        ],
    }


def _category(cells: Sequence[Cell], nothing: Cell) -> Cell:
    top = sorted((cell for cell in cells if cell["value"] is not None), key=lambda cell: (-cell["rows"], cell["value"]))
    of_bin = {cell["bin"]: cell for cell in cells if cell["value"] is None}
    others = of_bin.get(_OTHERS, {"values": 0, "names": [], **nothing})
    return {
        "missing": _only_figures(of_bin.get(_NULL, nothing)),
        "distinct": len(top) + others["values"],
        "top": [{"value": cell["value"], **_only_figures(cell)} for cell in top],
        "others": {"values": others["values"], "names": others["names"], **_only_figures(others)},
    }


def _against(old: Cell, cells: Sequence[Cell]) -> Cell:
    """Rows of this table over the reference's deciles (the outer bins are open), or over its values."""
    rows: Dict[int, int] = {}
    for cell in cells:
        of = _NULL if cell["bin"] in NO_NUMBER else cell["bin"]
        rows[of] = rows.get(of, 0) + cell["rows"]
    if old["kind"] == "number":
        counted = [rows.get(b, 0) for b in range(len(old["deciles"]) + 1)]
        return {"deciles": old["deciles"], "rows": counted, "missing": rows.get(_NULL, 0)}
    return {
        "values": [cell["value"] for cell in old["top"]],
        "rows": [rows.get(b, 0) for b in range(len(old["top"]))],
        "others": rows.get(_OTHERS, 0),
        "new": rows.get(_NEW, 0) if names_all(old) else None,
        "missing": rows.get(_NULL, 0),
    }


def _label(told: Sequence[Cell], counts: Sequence[int], train: int, label: Label, task: Task) -> Cell:
    column = label.column
    if task == "regression":
        own = dict(told[-1])
        for of_feature in ("missing", "null", "nan", "infinite", "correlation"):
            own.pop(of_feature, None)
        return {"column": column, "rows": train, **own}
    if task == "multiclass":
        return {"column": column, "rows": train, "classes": list(label.classes), "counts": list(counts)}
    return {"column": column, "rows": train, "positives": counts[1], "rate": counts[1] / train if train else None}


def _leak(feature: Cell, told: Profile, settings: Dataset) -> Optional[Cell]:
    cells = _believable(feature)
    rows = np.array([cell["train"] for cell in cells], dtype=np.float64)
    labels = np.array([cell["label"] for cell in cells], dtype=np.float64)
    name, label, gate = feature["name"], settings.label.column, settings.gate
    if settings.task == "binary":
        measure, value, limit = "auc", _auc(rows, labels), gate.suspicious_auc or SUSPICIOUS
        says = f"ranks the rows by {label} almost perfectly (AUC {value:.3f}, alarm above {limit:g})"
    elif settings.task == "multiclass":
        guess = float(labels.sum(axis=0).max() / rows.sum())
        measure, value, limit = "share", float(labels.max(axis=1).sum() / rows.sum()), gate.suspicious_share
        if 1 - value > (1 - guess) / 2:
            return None
        says = (
            f"tells {label} of {value:.1%} of the rows (alarm above {limit:.0%}; always guessing the most frequent "
            f"class: {guess:.1%})"
        )
    else:
        of_bins = _explained(rows, labels, told["label"]["std"] or 0.0)
        value = max(of_bins, (feature.get("correlation") or 0.0) ** 2)
        measure, limit = "r2", gate.suspicious_r2 or SUSPICIOUS
        says = f"explains almost all of {label} (R\N{SUPERSCRIPT TWO} {value:.3f}, alarm above {limit:g})"
    if value <= limit:
        return None
    return {"feature": name, "measure": measure, "value": value, "sentence": f"{name} alone {says}"}


def _believable(feature: Cell) -> List[Cell]:
    """Cells of MIN_ROWS training rows or more: neighbours are taken together, of categories the rare ones.

    A number that is missing counts as the lowest, as it does in the tree.
    """
    cells = bins_of(feature)
    if feature["kind"] == "number":
        cells = [cells[-1], *cells[:-1]]
    else:
        cells.sort(key=lambda cell: int(cell["train"]))
    groups: List[List[Cell]] = [[]]
    for cell in cells:
        if sum(own["train"] for own in groups[-1]) >= MIN_ROWS and cell["train"]:
            groups.append([])
        groups[-1].append(cell)
    if len(groups) > 1 and sum(cell["train"] for cell in groups[-1]) < MIN_ROWS:
        groups[-2:] = [groups[-2] + groups[-1]]
    return [_pool(group) for group in groups]


def _auc(rows: Floats, positives: Floats) -> float:
    """Of ranking the bins by their rate; rows of one bin are tied and count half. 0.5 if there is one class only."""
    order = np.argsort(positives / rows)
    k, negatives = positives[order], (rows - positives)[order]
    if not k.sum() or not negatives.sum():
        return 0.5
    below = np.cumsum(negatives) - negatives
    return float((k * (below + negatives / 2)).sum() / (k.sum() * negatives.sum()))


def _explained(rows: Floats, sums: Floats, std: float) -> float:
    """The share of the label's variance that lies between the bins (eta squared)."""
    if not std or rows.sum() < 2:
        return 0.0
    between = (rows * (sums / rows - sums.sum() / rows.sum()) ** 2).sum()
    return float(between / (std**2 * (rows.sum() - 1)))


def _only_figures(cell: Cell) -> Cell:
    return {name: cell[name] for name in ("rows", "train", "label")}


def _plain(x: Optional[float]) -> Optional[float]:
    """JSON knows neither NaN nor infinity, which a sum or a variance of huge numbers may come to."""
    return x if x is not None and math.isfinite(x) else None
