"""What the data looked like that a model learned from: profile.json, and the leak alarm that is raised from it.

Bins come from the quantiles of a fixed sample (by hash of the key, at most SAMPLE_ROWS rows; a smaller table is its own
sample); then one pass counts rows and label sums by bin and by category and adds up the moments, all exactly. What
comes to the driver grows with the number of features, never with the number of rows. The module is not called
`profile`: a script's own folder comes first on Python's path, and pyspark imports the standard library's `profile`.

A number's bins are closed on the right: bin b holds what is above edge b - 1 and not above edge b. The first is open
below and the last above, and the sample's least value is an edge, so that each value of a flag has a bin of its own.
"""

import math
from typing import Any, Dict, Iterable, Iterator, List, NamedTuple, Optional, Sequence, Tuple, Union

import numpy as np
import pyarrow as pa  # pyarrow ships no types
from numpy.typing import NDArray
from pyspark.sql import Column, DataFrame, Window
from pyspark.sql import functions as F

from jobs import split
from jobs.settings import Settings

Profile = Dict[str, Any]
Cell = Dict[str, Any]
Floats = NDArray[np.float64]

SHOWN = (5, 25, 50, 75, 95)
# Every 2.5 %, which holds the quantiles shown and the deciles, and the tails, where a rare class may hide.
QUANTILES = (0.001, 0.01, *[i / 40 for i in range(1, 40)], 0.99, 0.999)
SAMPLE_ROWS, SAMPLE_CELLS = 20_000, 5_000_000  # the second bounds what a very wide table sends to the driver
TOP_VALUES, NAMED_VALUES = 50, 1_000  # categories with figures of their own, and further ones whose name is kept

MIN_ROWS = 5  # training rows that a bin needs before the leak alarm believes its label
SUSPICIOUS_SHARE = 0.99  # of the rows of a multiclass task whose class a single feature tells

# Bins of what is no number or no category of its own; bins of numbers and of known categories are counted from 0.
_NULL, _NAN, _INFINITE, _OTHERS, _NEW, _MOMENTS = -1, -2, -3, -4, -5, -6


class _Column(NamedTuple):
    """A column to profile: a feature, or the label of a regression task. `old` is what the reference says of it."""

    name: str
    kind: str
    value: Column
    old: Optional[Cell]


def profile(rows: DataFrame, settings: Settings, reference: Optional[Profile] = None) -> Profile:
    """profile.json: rows, time span, label, and of each declared feature what is missing, its spread and its bins.

    Columns in: the features; label, time and `side` if there are any. Figures of features are over all rows; what has
    to do with the label (`train` rows and `label` sums of a bin, the label itself) is over rows on the side `train`
    only, or over all without `side`. `label` sums are positives (binary), counts by class (multiclass) or the sum of
    the label (regression).

    With a `reference`, an older profile, rows are also counted over its bins and values (`reference` of a feature, and
    of a regression label): two profiles have bins of their own, and `drift` compares them by these counts.
    """
    table = rows.select("*", *_label_columns(rows, settings))
    columns = _columns(settings, reference)
    totals = _totals(table, settings)
    samples = _samples(table, columns, totals["rows"], settings)
    edges = {i: _quantiles(sample, [0.0, *QUANTILES, 1.0]) for i, sample in samples.items()}
    counted = _counted(table, columns, edges, settings)

    nothing = _figures([0.0] * (2 + max(len(settings["label"]["classes"]), 1)), settings)
    told: List[Cell] = []
    for i, column in enumerate(columns):
        cells = counted.get(i, [])
        number = column.kind == "number"
        figures = _number(samples[i], edges[i], cells, nothing) if number else _category(cells, nothing)
        of_column = {"name": column.name, "kind": column.kind, **figures}
        if column.old is not None:
            of_column["reference"] = _against(column.old, counted.get(len(columns) + i, []))
        told.append(of_column)
    label = settings["label"]["column"]
    whole = {"rows": totals["rows"], "train": totals["train"]}
    return {
        "format": 1,
        "dataset": settings["name"],
        "task": settings["task"],
        **whole,
        "time": totals["time"],
        "label": None if label not in rows.columns else _label(told, totals, settings),
        "features": [of_column for of_column in told if of_column["name"] != label],
    }


def leaks(told: Profile, settings: Settings) -> List[Cell]:
    """The leak alarm: features that tell the label alone, almost perfectly; the most suspicious first.

    Each has feature, measure, value and sentence. Measured on the training rows of the profile's bins and values:
    binary, the AUC of ranking bins by their rate (above `gate.suspicious_auc`); multiclass, the share of rows whose
    class is the most frequent one of their bin (above SUSPICIOUS_SHARE, where always guessing the most frequent class
    is not, and leaves at least twice as many errors); regression, the variance that the bins' means explain, or a
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


def _label_columns(rows: DataFrame, settings: Settings) -> List[Column]:
    """`_y`, the label as a number (a class by its place), and `_train`, whether the row counts for the label."""
    label = settings["label"]["column"]
    if label not in rows.columns:
        return [F.lit(None).cast("double").alias("_y"), F.lit(False).alias("_train")]
    y = F.col(label).cast("double")
    if settings["task"] == "multiclass":
        text = F.col(label).cast("string")
        places = [F.when(text == name, float(i)) for i, name in enumerate(settings["label"]["classes"])]
        y = F.coalesce(*places)
    of_train = F.col(split.SIDE) == split.TRAIN if split.SIDE in rows.columns else F.lit(True)
    return [y.alias("_y"), (of_train & F.coalesce(_finite(y).isNotNull(), F.lit(False))).alias("_train")]


def _columns(settings: Settings, reference: Optional[Profile]) -> List[_Column]:
    old = {feature["name"]: feature for feature in reference["features"]} if reference else {}
    names = [(name, "number") for name in settings["features"]["numbers"]]
    names += [(name, "category") for name in settings["features"]["categories"]]
    columns = []
    for name, kind in names:
        was = old.get(name)
        value = F.col(name).cast("double" if kind == "number" else "string")
        columns.append(_Column(name, kind, value, was if was and was["kind"] == kind else None))
    if settings["task"] == "regression":
        was = reference["label"] if reference else None
        columns.append(_Column(settings["label"]["column"], "number", F.when(F.col("_train"), F.col("_y")), was))
    return columns


def _finite(x: Column) -> Column:
    """The number, or NULL where it is NULL, NaN or infinite."""
    return F.when(~F.isnan(x) & (F.abs(x) != F.lit(math.inf)), x)


def _totals(table: DataFrame, settings: Settings) -> Cell:
    when = settings["time"]["column"] if settings["time"] else ""
    span = [F.min(when).cast("string"), F.max(when).cast("string")] if when in table.columns else []
    row = table.agg(F.count("*"), F.count(F.when(F.col("_train"), 1)), *span).head()
    rows, train, *ends = row or (0, 0)
    time = {"column": when, "min": ends[0], "max": ends[1]} if ends else None
    return {"rows": rows, "train": train, "time": time}


def _samples(table: DataFrame, columns: Sequence[_Column], rows: int, settings: Settings) -> Dict[int, Floats]:
    """Finite values of each number by its place in `columns`, of the same rows whenever the table is the same."""
    numbers = [i for i, column in enumerate(columns) if column.kind == "number"]
    if not numbers:
        return {}
    wanted = min(SAMPLE_ROWS, SAMPLE_CELLS // len(numbers))
    if rows > wanted:
        table = table.where(F.pmod(F.xxhash64(*settings["keys"]), F.lit(rows)) < wanted)
    values = table.select(*[columns[i].value.alias(f"_{i}") for i in numbers])
    packed = values.mapInArrow(_packed, "batch binary").collect()
    batches = [pa.ipc.open_stream(row["batch"]).read_all() for row in packed]
    found = {}
    for place, i in enumerate(numbers):
        parts = [batch.column(place).to_numpy() for batch in batches]
        whole = np.concatenate(parts) if parts else np.empty(0)
        found[i] = np.sort(whole[np.isfinite(whole)])
    return found


def _packed(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """Each batch as one binary value: sent to the driver by column, whatever Spark's own settings of Arrow are."""
    for batch in batches:
        sink = pa.BufferOutputStream()
        with pa.ipc.new_stream(sink, batch.schema) as stream:
            stream.write_batch(batch)
        yield pa.RecordBatch.from_arrays([pa.array([sink.getvalue().to_pybytes()], pa.binary())], ["batch"])


def _quantiles(values: Floats, at: Sequence[float]) -> List[float]:
    """Distinct quantiles in rising order, each a value that occurs; none if there are no values."""
    if not len(values):
        return []
    found: List[float] = np.unique(np.quantile(values, at, method="inverted_cdf")).tolist()
    return found


class _Plan(NamedTuple):
    """What a worker needs to count a batch of columns; ids of columns, with `of_old` added for the reference's bins."""

    edges: Dict[int, Floats]
    old_deciles: Dict[int, Floats]
    old_values: Dict[int, Tuple[Dict[str, int], int]]  # known values with their bins, and the bin of all others
    of_old: int
    task: str
    classes: int

    def cells(self, batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        """Columns in: train, y, then the profiled ones in order.

        Columns out: id, bin, value, s0 (rows), s1 (training rows), s2... (label sums); and for each number a row of
        bin _MOMENTS, with low, high, and what `_moments` adds up in place of the sums.
        """
        for batch in batches:
            if batch.num_rows:
                yield self._cells_of(batch)

    def _cells_of(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        train = batch.column(0).to_numpy(zero_copy_only=False).astype(bool)
        y = batch.column(1).to_numpy(zero_copy_only=False)[train]
        pieces: List[Tuple[int, NDArray[Any], List[Optional[str]], Floats]] = []
        ends: Dict[int, Tuple[float, float]] = {}  # by place in `pieces`

        def add(of: int, bins: Sequence[int], values: Sequence[Optional[str]], codes: NDArray[np.int64]) -> None:
            sums = self._sums(codes, len(bins), train, y)
            kept = [int(j) for j in np.flatnonzero(sums[:, 0])]
            pieces.append((of, np.asarray(bins)[kept], [values[j] for j in kept], sums[kept]))

        for i in range(batch.num_columns - 2):
            column = batch.column(i + 2)
            if i in self.edges:
                null = column.is_null().to_numpy(zero_copy_only=False)
                x = column.to_numpy(zero_copy_only=False)
                for of, edges in ((i, self.edges[i]), (self.of_old + i, self.old_deciles.get(i))):
                    if edges is not None:
                        codes = np.searchsorted(edges, x, side="left")
                        size = len(edges) + 1
                        codes[np.isinf(x)], codes[np.isnan(x)], codes[null] = size + 2, size + 1, size
                        bins = [*range(size), _NULL, _NAN, _INFINITE]
                        add(of, bins, [None] * len(bins), codes)
                finite = np.isfinite(x)
                if finite.any():
                    ends[len(pieces)] = (float(x[finite].min()), float(x[finite].max()))
                    pieces.append((i, np.array([_MOMENTS]), [None], self._moments(i, x, finite, train, y)))
                continue
            encoded = column.dictionary_encode()
            names = encoded.dictionary.to_pylist()
            codes = encoded.indices.fill_null(len(names)).to_numpy(zero_copy_only=False)
            add(i, [*[0] * len(names), _NULL], [*names, None], codes)
            if i in self.old_values:
                known, other = self.old_values[i]
                bins = [*[known.get(name, other) for name in names], _NULL]
                add(self.of_old + i, bins, [None] * len(bins), codes)

        sums = np.concatenate([piece[3] for piece in pieces])
        low_high = [ends.get(j, (None, None)) for j, piece in enumerate(pieces) for _ in piece[2]]
        arrays = [
            pa.array(np.concatenate([np.full(len(piece[1]), piece[0]) for piece in pieces]), pa.int32()),
            pa.array(np.concatenate([piece[1] for piece in pieces]), pa.int32()),
            pa.array([value for piece in pieces for value in piece[2]], pa.string()),
            *[pa.array([pair[k] for pair in low_high], pa.float64()) for k in (0, 1)],
            *[pa.array(np.ascontiguousarray(sums[:, k])) for k in range(sums.shape[1])],
        ]
        return pa.RecordBatch.from_arrays(arrays, ["id", "bin", "value", "low", "high", *self.sums])

    def _sums(self, codes: NDArray[np.int64], size: int, train: NDArray[np.bool_], y: Floats) -> Floats:
        sums, own = np.zeros((size, len(self.sums))), codes[train]
        sums[:, 0] = np.bincount(codes, minlength=size)
        sums[:, 1] = np.bincount(own, minlength=size)
        if self.classes:
            labels = np.bincount(own * self.classes + y.astype(np.int64), minlength=size * self.classes)
            sums[:, 2 : 2 + self.classes] = labels.reshape(size, self.classes)
        else:
            sums[:, 2] = np.bincount(own, weights=y, minlength=size)
        return sums

    def _moments(self, of: int, x: Floats, finite: NDArray[np.bool_], train: NDArray[np.bool_], y: Floats) -> Floats:
        """One row: n, sum and sum of squares; for a regression also n, x, y, xx, yy and xy added up over training rows.

        All are about a middle edge, which keeps the digits of a large number with a small spread.
        """
        sums = np.zeros((1, len(self.sums)))
        with np.errstate(over="ignore", invalid="ignore"):
            near = x[finite] - _centre(self.edges[of])
            sums[0, :3] = len(near), near.sum(), (near**2).sum()
            if self.task == "regression":
                both = finite[train]
                a, b = near[train[finite]], y[both] - _centre(self.edges[self.of_old - 1])  # the label is the last
                sums[0, 3:9] = len(a), a.sum(), b.sum(), (a**2).sum(), (b**2).sum(), (a * b).sum()
        return sums

    @property
    def sums(self) -> List[str]:
        return [f"s{k}" for k in range(9 if self.task == "regression" else 2 + max(self.classes, 1))]


def _counted(
    table: DataFrame, columns: Sequence[_Column], edges: Dict[int, List[float]], settings: Settings
) -> Dict[int, List[Cell]]:
    """Rows, training rows and label sums by bin and by category, of each column by its place in `columns`.

    Of a category the most frequent values stay apart and the others are pooled, before anything leaves Spark.
    """
    old = {i: column.old for i, column in enumerate(columns) if column.old is not None}
    plan = _Plan(
        {i: np.array(e) for i, e in edges.items()},
        {i: np.array(feature["deciles"], dtype=np.float64) for i, feature in old.items() if i in edges},
        {i: _known(feature) for i, feature in old.items() if i not in edges},
        len(columns),
        settings["task"],
        len(settings["label"]["classes"]),
    )
    schema = f"id int, bin int, value string, low double, high double, {', '.join(f'{s} double' for s in plan.sums)}"
    wanted = table.select("_train", "_y", *[column.value.alias(f"_{i}") for i, column in enumerate(columns)])
    sums = [F.min("low").alias("low"), F.max("high").alias("high")]
    sums += [F.sum(name).alias(name) for name in plan.sums]
    cells = wanted.mapInArrow(plan.cells, schema).groupBy("id", "bin", "value").agg(*sums)
    rank = F.row_number().over(Window.partitionBy("id").orderBy(F.isnull("value"), F.desc("s0"), "value"))
    ranked = cells.withColumn("rank", F.when(F.isnotnull("value"), rank))
    pooled = F.coalesce(F.col("rank") > TOP_VALUES, F.lit(False))
    grouped = ranked.groupBy(
        "id",
        F.when(pooled, _OTHERS).otherwise(F.col("bin")).alias("bin"),
        F.when(~pooled, F.col("value")).alias("value"),
    ).agg(
        *sums,
        F.count("value").alias("values"),
        F.collect_list(F.when(pooled & (F.col("rank") <= TOP_VALUES + NAMED_VALUES), F.col("value"))).alias("names"),
    )
    counted: Dict[int, List[Cell]] = {}
    for row in grouped.collect():
        cell = {"bin": row["bin"], "value": row["value"], "values": row["values"], "names": sorted(row["names"])}
        added = [row[name] for name in plan.sums]
        if row["bin"] == _MOMENTS:
            cell["moments"] = {"min": row["low"], "max": row["high"], **_spread(added, edges[row["id"]])}
        else:
            cell.update(_figures(added[: 2 + max(plan.classes, 1)], settings))
        counted.setdefault(row["id"], []).append(cell)
    return counted


def _spread(added: Sequence[float], edges: Sequence[float]) -> Cell:
    """Mean, standard deviation and correlation with the label out of what `_Plan` added up; NaN if not defined."""
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


def _figures(sums: Sequence[float], settings: Settings) -> Cell:
    rows, train, *label = sums
    if settings["task"] == "multiclass":
        of_label: Any = [int(n) for n in label]
    else:
        of_label = int(label[0]) if settings["task"] == "binary" else _plain(label[0])
    return {"rows": int(rows), "train": int(train), "label": of_label}


def _pool(cells: Sequence[Cell]) -> Cell:
    """Several cells, at least one, as one."""
    labels = [cell["label"] for cell in cells]
    whole = np.sum(labels, axis=0).tolist()
    return {"rows": sum(cell["rows"] for cell in cells), "train": sum(cell["train"] for cell in cells), "label": whole}


def _number(sample: Floats, edges: Sequence[float], cells: Sequence[Cell], nothing: Cell) -> Cell:
    of_bin = {cell["bin"]: cell for cell in cells}
    moments = of_bin.pop(_MOMENTS, {"moments": {}})["moments"]
    ends = [moments.get("min"), *edges, moments.get("max")]
    return {
        "missing": _pool([of_bin.get(b, nothing) for b in (_NULL, _NAN, _INFINITE)]),
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
        of = _NULL if cell["bin"] in (_NAN, _INFINITE) else cell["bin"]
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


def _label(told: Sequence[Cell], totals: Cell, settings: Settings) -> Cell:
    column, train = settings["label"]["column"], totals["train"]
    if settings["task"] == "regression":
        own = dict(told[-1])
        for of_feature in ("missing", "null", "nan", "infinite", "correlation"):
            own.pop(of_feature, None)
        return {"column": column, "rows": train, **own}
    labels = _pool(bins_of(told[0]))["label"]
    if settings["task"] == "multiclass":
        return {"column": column, "rows": train, "classes": settings["label"]["classes"], "counts": labels}
    return {"column": column, "rows": train, "positives": labels, "rate": labels / train if train else None}


def _leak(feature: Cell, told: Profile, settings: Settings) -> Optional[Cell]:
    cells = _believable(feature)
    rows = np.array([cell["train"] for cell in cells], dtype=np.float64)
    labels = np.array([cell["label"] for cell in cells], dtype=np.float64)
    name, label, gate = feature["name"], settings["label"]["column"], settings["gate"]
    if settings["task"] == "binary":
        measure, value, limit = "auc", _auc(rows, labels), gate["suspicious_auc"]
        says = f"ranks the rows by {label} almost perfectly (AUC {value:.3f}, alarm above {limit:g})"
    elif settings["task"] == "multiclass":
        guess = float(labels.sum(axis=0).max() / rows.sum())
        measure, value, limit = "share", float(labels.max(axis=1).sum() / rows.sum()), SUSPICIOUS_SHARE
        if 1 - value > (1 - guess) / 2:
            return None
        says = (
            f"tells {label} of {value:.1%} of the rows (alarm above {limit:.0%}; always guessing the most frequent "
            f"class: {guess:.1%})"
        )
    else:
        of_bins = _explained(rows, labels, told["label"]["std"] or 0.0)
        value = max(of_bins, (feature.get("correlation") or 0.0) ** 2)
        measure, limit = "r2", gate["suspicious_r2"]
        says = f"explains almost all of {label} (R\N{SUPERSCRIPT TWO} {value:.3f}, alarm above {limit:g})"
    if value <= limit:
        return None
    way_out = "look whether it is made from the label, or known only after it; if so, leave it out of the features."
    return {"feature": name, "measure": measure, "value": value, "sentence": f"{name} alone {says}: {way_out}"}


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
