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

from typing import Any, Dict, Iterable, Iterator, List, NamedTuple, Optional, Sequence, Tuple

import numpy as np
import pyarrow as pa
from pyspark import RDD, StorageLevel
from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from jobs.errors import JobError
from jobs.grow import Array, Block, FixedPoint
from jobs.settings import Settings, file_of

Feature = Dict[str, Any]

# So far down that no value of a later table lies below it, as one could if it were the training minimum less one.
MISSING = -1e300
# A column with more is a key rather than a category, and the table of encodings must fit the driver.
MAX_CATEGORIES = 100_000
# Split candidates come from a sample, as MLlib's do: so many rows, fewer if there are very many number columns.
SAMPLE_ROWS, SAMPLE_CELLS = 20_000, 5_000_000
BLOCK_ROWS = 250_000
LABEL, SAMPLED = "_label", "_sampled"
EVERY_ROW = -1  # in place of a feature: the sum of a regression's labels


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


def classes_of(settings: Settings) -> int:
    """How many classes the label has; 0 for a regression."""
    return {"binary": 2, "multiclass": len(settings["label"]["classes"]), "regression": 0}[settings["task"]]


def label_column(settings: Settings) -> Column:
    """The label as a number: 0 or 1, the place in `classes`, or the value itself."""
    label = F.col(settings["label"]["column"])
    if settings["task"] == "multiclass":
        named = [F.when(label.cast("string") == name, i) for i, name in enumerate(settings["label"]["classes"])]
        return F.coalesce(*named)
    return label.cast("double" if settings["task"] == "regression" else "int")


def labels(rows: DataFrame, side: str, settings: Settings) -> Dict[str, Labels]:
    """The label on each value of the column `side`; `require_variety` says whether that is enough."""
    label, classes = label_column(settings), classes_of(settings)
    found: Dict[str, Labels] = {}
    if classes:
        counted = rows.groupBy(side, label.alias("label")).count().collect()
        for name in {row[side] for row in counted}:
            counts = [0] * classes
            for row in counted:
                if row[side] == name:
                    counts[row["label"]] = row["count"]
            found[name] = Labels(sum(counts), counts, 0, classes - 1, 0.0, 0.0)
        return found
    told = rows.select(side, label.alias("y")).groupBy(side)
    for row in told.agg(F.count("*"), F.min("y"), F.max("y"), F.avg("y"), F.stddev_pop("y")).collect():
        found[row[0]] = Labels(row[1], [], *(float(value) for value in row[2:]))
    return found


def require_variety(found: Optional[Labels], settings: Settings, where: str) -> Labels:
    """Raises JobError if a side has no rows or one label only: nothing can be learned or measured there."""
    label, look = settings["label"]["column"], f"Look at how datasets/{settings['name']}/prepare.sql makes it."
    if found is None or found.rows == 0:
        raise JobError(f"There are no rows on {where}: too few for a split. {look}")
    if settings["task"] == "regression":
        if found.low < found.high:
            return found
        raise JobError(f"The label {label} is {found.low:g} in all {found.rows:,} rows on {where}. {look}")
    if sum(count > 0 for count in found.counts) > 1:
        return found
    if settings["task"] == "binary":
        told = f"{found.counts[1]:,} of {found.rows:,} rows are positive ({settings['label']['positive']})"
    else:
        told = f"all {found.rows:,} rows are {settings['label']['classes'][int(np.argmax(found.counts))]!r}"
    raise JobError(f"The label {label} has one class only on {where}: {told}. {look}")


def learn(train: DataFrame, settings: Settings, label: Labels) -> Learned:
    """Encodings and split candidates of the declared features, numbers first, from rows of the training side only.

    `label` is what `labels` says of these rows. Raises JobError if a category has too many values. One pass.
    """
    numbers, categories = settings["features"]["numbers"], settings["features"]["categories"]
    classes, smoothing, bins = classes_of(settings), settings["training"]["smoothing"], settings["training"]["bins"]
    point = None if classes else FixedPoint.for_labels(label.low, label.high, label.rows)
    sample_rows = max(1000, min(SAMPLE_ROWS, SAMPLE_CELLS // max(len(numbers), 1)))
    one_in = max(1, label.rows // sample_rows)
    sampled = F.pmod(F.xxhash64(*settings["keys"]), F.lit(one_in)) == 0

    count = _Counting(len(numbers), len(categories), classes, point)
    schema = "feature int, value string, class int, rows bigint, total bigint, sample binary"
    found = _inputs(train, settings, sampled.alias(SAMPLED)).mapInArrow(count, schema).persist()
    limit = MAX_CATEGORIES * max(len(categories), 1) * max(classes, 1) + len(numbers) + 1
    merged = (
        found.where("sample IS NULL")
        .groupBy("feature", "value", "class")
        .agg(F.sum("rows").alias("rows"), F.sum("total").alias("total"))
        .limit(limit)
        .collect()
    )
    samples = [
        np.frombuffer(row[0], dtype=np.float64) for row in found.where("sample IS NOT NULL").select("sample").collect()
    ]
    found.unpersist()
    sample = (
        np.concatenate([part.reshape(len(numbers), -1) for part in samples], axis=1)
        if samples
        else np.empty((len(numbers), 0))
    )

    missing = {row["feature"]: row["rows"] for row in merged if 0 <= row["feature"] < len(numbers)}
    features: List[Feature] = []
    thresholds: List[Array] = []
    for i, name in enumerate(numbers):
        rows = missing.get(i, 0)
        features.append({"name": name, "kind": "number", "missing": MISSING, "missing_rows": rows})
        known = sample[i][sample[i] > MISSING]
        between = _thresholds(*np.unique(known, return_counts=True), bins=bins - 1 if rows else bins)
        thresholds.append(np.concatenate([[MISSING / 2], between]) if rows and rows < label.rows else between)
    if point is None:
        average = np.array(label.counts) / label.rows
    else:
        (every,) = (row for row in merged if row["feature"] == EVERY_ROW)
        average = np.array([point.sum(every["rows"], every["total"]) / every["rows"]])
    for i, name in enumerate(categories, start=len(numbers)):
        values = [row for row in merged if row["feature"] == i]
        feature = _category_feature(name, values, average, smoothing, classes, point, settings)
        features.append(feature)
        seen = [*feature["encoding"].values(), *([feature["missing"]] if feature["missing_rows"] else [])]
        per_value: Dict[float, int] = {}
        for encoded, rows in zip(seen, feature.pop("_rows")):  # noqa: B905  # Python 3.9 has no strict
            per_value[encoded] = per_value.get(encoded, 0) + rows
        ordered = sorted(per_value)
        thresholds.append(_thresholds(np.array(ordered), np.array([per_value[v] for v in ordered]), bins=bins))
    return Learned(features, thresholds, point)


def code(rows: DataFrame, settings: Settings, learned: Learned) -> "RDD[Block]":
    """The rows as blocks of bin numbers for `grow`, kept in memory or on disk: unpersist it when done."""
    coding = _Coding(learned, classes_of(settings))
    coded = _inputs(rows, settings).mapInArrow(coding, "codes binary, label binary, rows int")
    wide, kind = coding.dtype, coding.label_dtype

    def block(row: Any) -> Block:
        codes = np.frombuffer(row["codes"], dtype=wide).reshape(-1, row["rows"])
        return Block(codes, np.frombuffer(row["label"], dtype=kind))

    return coded.rdd.map(block).persist(StorageLevel.MEMORY_AND_DISK)


def matrix(batch: pa.RecordBatch, features: Sequence[Feature]) -> List[Array]:
    """Each feature's numbers, as a scorer compares them with thresholds. Columns in: every feature's, by name."""
    return [
        _numbers(batch.column(f["name"])) if f["kind"] == "number" else _encoded(batch.column(f["name"]), f)
        for f in features
    ]


def feature_columns(features: Sequence[Feature]) -> List[Column]:
    """The columns that `matrix` wants, of any table that has the features: numbers as double, categories as text."""
    return [F.col(f["name"]).cast("double" if f["kind"] == "number" else "string").alias(f["name"]) for f in features]


def _inputs(rows: DataFrame, settings: Settings, *more: Column) -> DataFrame:
    numbers = [F.col(name).cast("double").alias(name) for name in settings["features"]["numbers"]]
    categories = [F.col(name).cast("string").alias(name) for name in settings["features"]["categories"]]
    return rows.select(label_column(settings).alias(LABEL), *more, *numbers, *categories)


def _numbers(column: pa.Array) -> Array:
    values = column.fill_null(np.nan).to_numpy(zero_copy_only=False)
    return np.where(np.isfinite(values), values, MISSING)


def _values(column: pa.Array) -> Tuple[List[Optional[str]], Array]:
    """The distinct values of a text column, None last, and each row's place among them."""
    found = column.dictionary_encode()
    return [*found.dictionary.to_pylist(), None], found.indices.fill_null(len(found.dictionary)).to_numpy(
        zero_copy_only=False
    )


def _encoded(column: pa.Array, feature: Feature) -> Array:
    values, index = _values(column)
    known = feature["encoding"]
    of_values = [feature["missing"] if value is None else known.get(value, feature["unseen"]) for value in values]
    return np.array(of_values, dtype=np.float64)[index]


class _Counting:
    """Counts for `learn`, on the executors: missing numbers, labels by category, and the sample of the numbers."""

    def __init__(self, numbers: int, categories: int, classes: int, point: Optional[FixedPoint]) -> None:
        self.numbers, self.categories, self.classes, self.point = numbers, categories, classes, point

    def __call__(self, batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        missing = np.zeros(self.numbers, dtype=np.int64)
        counts: List[Dict[Optional[str], Array]] = [{} for _ in range(self.categories)]
        sample: List[Array] = []
        rows = total = 0
        for batch in batches:
            columns = batch.columns[2:]
            known = [_numbers(column) for column in columns[: self.numbers]]
            missing += np.array([(values == MISSING).sum() for values in known], dtype=np.int64)
            chosen = batch.column(1).to_numpy(zero_copy_only=False).astype(bool)
            if self.numbers and chosen.any():
                sample.append(np.stack([values[chosen] for values in known]))
            label = batch.column(0).to_numpy(zero_copy_only=False)
            if self.point is not None:
                label = self.point.round(label)
                rows, total = rows + len(label), total + int(label.sum())
            for seen, column in zip(counts, columns[self.numbers :]):  # noqa: B905
                # Too many already: `learn` will refuse the column, and a key would fill the executor's memory.
                if len(seen) <= MAX_CATEGORIES:
                    self._count(seen, column, label)
        wide = self.classes or 1
        cells: List[Tuple[Any, ...]] = [
            (EVERY_ROW, None, 0, rows, total),
            *((i, None, 0, int(n), 0) for i, n in enumerate(missing)),
        ]
        for i, seen in enumerate(counts, start=self.numbers):
            for value, found in seen.items():
                for k in range(wide):
                    counted = (int(found[k]), 0) if self.classes else (int(found[0]), int(found[1]))
                    if counted[0]:
                        cells.append((i, value, k, *counted))
        blank = [None] * len(cells)
        names = ["feature", "value", "class", "rows", "total"]
        kinds = [pa.int32(), pa.string(), pa.int32(), pa.int64(), pa.int64(), pa.binary()]
        packed = [np.concatenate(sample, axis=1).tobytes()] if sample else []
        table = [[*column, *[None] * len(packed)] for column in zip(*cells)]  # noqa: B905
        arrays = [pa.array(column, type=kind) for column, kind in zip([*table, blank + packed], kinds)]  # noqa: B905
        yield pa.RecordBatch.from_arrays(arrays, names=[*names, "sample"])

    def _count(self, seen: Dict[Optional[str], Array], column: pa.Array, label: Array) -> None:
        values, index = _values(column)
        if self.point is None:
            flat = np.bincount(index.astype(np.int64) * self.classes + label, minlength=len(values) * self.classes)
            found = flat.reshape(len(values), self.classes)
        else:
            rows = np.bincount(index, minlength=len(values))
            found = np.stack([rows, np.bincount(index, weights=label, minlength=len(values))], axis=1)
        for value, counted in zip(values, found.astype(np.int64)):  # noqa: B905
            if counted.any():
                seen[value] = seen[value] + counted if value in seen else counted


class _Coding:
    """Rows to bin numbers, on the executors."""

    def __init__(self, learned: Learned, classes: int) -> None:
        self.features, self.thresholds, self.point = learned
        widest = max((len(between) for between in self.thresholds), default=0) + 1
        self.dtype = np.uint8 if widest <= 256 else np.uint16
        self.label_dtype = np.uint8 if classes else np.int64

    def __call__(self, batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        waiting: List[Tuple[Array, Array]] = []
        rows = 0
        for batch in batches:
            if not batch.num_rows:
                continue
            codes = np.empty((len(self.features), batch.num_rows), dtype=self.dtype)
            for i, values in enumerate(matrix(batch, self.features)):
                codes[i] = np.searchsorted(self.thresholds[i], values, side="left")
            label = batch.column(0).to_numpy(zero_copy_only=False)
            label = self.point.round(label) if self.point else label
            waiting.append((codes, label.astype(self.label_dtype)))
            rows += batch.num_rows
            if rows >= BLOCK_ROWS:
                yield self._block(waiting)
                waiting, rows = [], 0
        if waiting:
            yield self._block(waiting)

    def _block(self, waiting: List[Tuple[Array, Array]]) -> pa.RecordBatch:
        codes = np.concatenate([codes for codes, _ in waiting], axis=1)
        label = np.concatenate([label for _, label in waiting])
        arrays = [
            pa.array([codes.tobytes()], type=pa.binary()),
            pa.array([label.tobytes()], type=pa.binary()),
            pa.array([len(label)], type=pa.int32()),
        ]
        return pa.RecordBatch.from_arrays(arrays, names=["codes", "label", "rows"])


def _thresholds(values: Array, rows: Array, bins: int) -> Array:
    """Half-way between neighbouring values, for at most `bins` bins of about equal rows. `values`: rising, distinct."""
    if len(values) < 2:
        return np.empty(0)
    if len(values) <= bins:
        last = np.arange(len(values) - 1)
    else:
        reached = np.cumsum(rows)
        last, cuts = np.unique(np.searchsorted(reached, np.arange(1, bins) * reached[-1] / bins), return_counts=True)
        last = np.union1d(last, last[cuts > 1] - 1)  # what fills bins alone is cut off on both sides
        last = last[(last >= 0) & (last < len(values) - 1)]
    between = values[last] / 2 + values[last + 1] / 2
    # Of two values without a number between them the lower one is the threshold: `<=` tells them apart.
    return np.where((values[last] <= between) & (between < values[last + 1]), between, values[last])


def _category_feature(
    name: str,
    cells: Sequence[Any],
    average: Array,
    smoothing: float,
    classes: int,
    point: Optional[FixedPoint],
    settings: Settings,
) -> Feature:
    """tree.json's object of a category, and `_rows` of each encoding and of the missing."""
    counts: Dict[Optional[str], Array] = {}
    for cell in cells:
        known = counts.setdefault(cell["value"], np.zeros(classes or 2))
        if classes:
            known[cell["class"]] += cell["rows"]
        else:
            known += [cell["rows"], point.sum(cell["rows"], cell["total"]) if point else 0.0]
    if len(counts) > MAX_CATEGORIES:
        raise JobError(
            f"{file_of(settings)}: features.categories: {name} has more than {MAX_CATEGORIES:,} values, which "
            "makes it a key rather than a category: leave it out, or group its values in prepare.sql."
        )
    ordered = sorted(counts, key=lambda value: (value is None, value or ""))
    table = np.array([counts[value] for value in ordered]).reshape(len(ordered), -1)
    rows = table.sum(axis=1) if classes else table[:, 0]
    sums = table if classes else table[:, 1:]
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
    return {
        "name": name,
        "kind": "category",
        "encoding": {value: x for value, x in numbers.items() if value is not None},
        "prior": prior,
        "unseen": prior,
        "missing": numbers.get(None, prior),
        "missing_rows": int(rows[-1]) if has_missing else 0,
        "_rows": [int(n) for n in rows],
    }
