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
from jobs.session import size_batches
from jobs.settings import Settings, file_of

Feature = Dict[str, Any]

# So far down that no value of a later table lies below it, as one could if it were the training minimum less one.
MISSING = -1e300
# A column with more is a key rather than a category, and the table of encodings must fit the driver.
MAX_CATEGORIES = 100_000
# Split candidates come from a sample, as MLlib's do: so many rows, fewer if there are very many number columns.
SAMPLE_ROWS, SAMPLE_CELLS = 40_000, 5_000_000
BLOCK_ROWS = 250_000
LABEL, PART, HASH = "_label", "_part", "_hash"
# In place of a feature's number, in what a reading makes: labels, the sample and from which rank on it is whole, rows.
EVERY_ROW, SAMPLE, WHOLE_FROM, PACKED = -1, -2, -3, -4
MAX_RANK = 62  # of a hash of 64 bits
KEPT = StorageLevel.MEMORY_AND_DISK


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


def require_variety(found: Labels, settings: Settings, where: str) -> None:
    """Raises JobError if a side has no rows or one label only: nothing can be learned or measured there."""
    label, look = settings["label"]["column"], f"Look at how datasets/{settings['name']}/prepare.sql makes it."
    if found.rows == 0:
        raise JobError(f"There are no rows on {where}: too few for a split. {look}")
    if settings["task"] == "regression":
        if found.low < found.high:
            return
        raise JobError(f"The label {label} is {found.low:g} in all {found.rows:,} rows on {where}. {look}")
    if sum(count > 0 for count in found.counts) > 1:
        return
    if settings["task"] == "binary":
        told = f"{found.counts[1]:,} of {found.rows:,} rows are positive ({settings['label']['positive']})"
    else:
        told = f"all {found.rows:,} rows are {settings['label']['classes'][int(np.argmax(found.counts))]!r}"
    raise JobError(f"The label {label} has one class only on {where}: {told}. {look}")


class Survey:
    """One reading of a table's features, from which everything else is made without reading the table again.

    Rows are told apart by yes-or-no marks, such as which side of the split they are on, into parts: whatever is learned
    is learned from the parts that the caller names. What the executors keep, in memory or on disk: counts, a sample,
    and the rows as compressed Arrow batches.
    """

    def __init__(self, rows: DataFrame, settings: Settings, marks: Dict[str, Column]) -> None:
        """Columns in: keys, label and features, and those of `marks`. Reads; raises JobError if a category has too many
        values."""
        self.settings, self.classes, self._marks = settings, classes_of(settings), list(marks)
        numbers, categories = settings["features"]["numbers"], settings["features"]["categories"]
        part = sum(
            (F.coalesce(mark, F.lit(False)).cast("int") * 2**i for i, mark in enumerate(marks.values())), F.lit(0)
        )
        self._labels: Dict[int, Labels] = {}
        self.point: Optional[FixedPoint] = None
        if not self.classes:
            self._labels = _label_moments(rows.select(part.alias(PART), label_column(settings).alias(LABEL)))
            every = [label for label in self._labels.values() if label.rows]
            if every:
                low, high = min(label.low for label in every), max(label.high for label in every)
                self.point = FixedPoint.for_labels(low, high, sum(label.rows for label in every))
        size_batches(rows.sparkSession, len(numbers) + len(categories) + 3)
        self._sample_rows = max(1000, min(SAMPLE_ROWS, SAMPLE_CELLS // max(len(numbers), 1)))
        read = _Reading(len(numbers), len(categories), self.classes, self.point, 2 ** len(marks), self._sample_rows)
        inputs = rows.select(
            label_column(settings).alias(LABEL),
            part.alias(PART),
            F.xxhash64(*settings["keys"]).alias(HASH),
            *[F.col(name).cast("double").alias(name) for name in numbers],
            *[F.col(name).cast("string").alias(name) for name in categories],
        )
        schema = "feature int, value string, part int, class int, rows bigint, total bigint, payload binary"
        self._found = inputs.mapInArrow(read, schema).persist(KEPT)
        try:
            self._take_in(numbers, categories)
        except JobError:
            self.unpersist()
            raise

    def _take_in(self, numbers: Sequence[str], categories: Sequence[str]) -> None:
        counted = self._found.where(F.col("feature") != PACKED).groupBy("feature", "value", "part", "class")
        limit = (MAX_CATEGORIES + 1) * max(len(categories), 1) * max(self.classes, 1) * 2 ** len(self._marks)
        limit += (len(numbers) + 200) * 2 ** len(self._marks)
        cells = counted.agg(F.sum("rows").alias("rows"), F.sum("total").alias("total")).limit(limit).collect()
        self._cells: Dict[int, List[Any]] = {}
        for cell in cells:
            self._cells.setdefault(cell["feature"], []).append(cell)
        for i, name in enumerate(categories, start=len(numbers)):
            if len({cell["value"] for cell in self._cells.get(i, [])}) > MAX_CATEGORIES:
                raise JobError(
                    f"{file_of(self.settings)}: features.categories: {name} has more than {MAX_CATEGORIES:,} values, "
                    "which makes it a key rather than a category: leave it out, or group its values in prepare.sql."
                )
        if self.classes:
            counts: Dict[int, List[int]] = {}
            for cell in self._cells.get(EVERY_ROW, []):
                counts.setdefault(cell["part"], [0] * self.classes)[cell["class"]] = cell["rows"]
            self._labels = {part: _counted(of_class) for part, of_class in counts.items()}

    def unpersist(self) -> None:
        self._found.unpersist()

    def parts(self, **asked: bool) -> List[int]:
        """The numbers of the parts whose marks are as asked; of other marks either kind."""
        bits = {name: 2**i for i, name in enumerate(self._marks)}
        return [
            part
            for part in range(2 ** len(self._marks))
            if all(bool(part & bits[name]) == wanted for name, wanted in asked.items())
        ]

    def labels(self, parts: Sequence[int]) -> Labels:
        """The label in these parts together; `require_variety` says whether that is enough."""
        return _together([self._labels[part] for part in parts if part in self._labels], self.classes)

    def learn(self, parts: Sequence[int]) -> Learned:
        """Encodings and split candidates of the declared features, numbers first, from the rows of these parts only."""
        numbers, categories = self.settings["features"]["numbers"], self.settings["features"]["categories"]
        smoothing, bins = self.settings["training"]["smoothing"], self.settings["training"]["bins"]
        label, sample = self.labels(parts), self._sample(parts, len(numbers))
        features: List[Feature] = []
        thresholds: List[Array] = []
        for i, name in enumerate(numbers):
            missing = sum(cell["rows"] for cell in self._cells.get(i, []) if cell["part"] in parts)
            features.append({"name": name, "kind": "number", "missing": MISSING, "missing_rows": missing})
            known = sample[i][sample[i] > MISSING]
            between = _thresholds(*np.unique(known, return_counts=True), bins=bins - 1 if missing else bins)
            thresholds.append(np.concatenate([[MISSING / 2], between]) if 0 < missing < label.rows else between)
        if self.point is None:
            average = np.array(label.counts) / label.rows
        else:
            total = sum(cell["total"] for cell in self._cells[EVERY_ROW] if cell["part"] in parts)
            average = np.array([self.point.sum(label.rows, total) / label.rows])
        for i, name in enumerate(categories, start=len(numbers)):
            values = [cell for cell in self._cells.get(i, []) if cell["part"] in parts]
            feature = _category_feature(name, values, average, smoothing, self.classes, self.point)
            features.append(feature)
            seen = [*feature["encoding"].values(), *([feature["missing"]] if feature["missing_rows"] else [])]
            per_value: Dict[float, int] = {}
            for encoded, rows in zip(seen, feature.pop("_rows")):  # noqa: B905  # Python 3.9 has no strict
                per_value[encoded] = per_value.get(encoded, 0) + rows
            ordered = sorted(per_value)
            thresholds.append(_thresholds(np.array(ordered), np.array([per_value[v] for v in ordered]), bins=bins))
        return Learned(features, thresholds, self.point)

    def code(self, parts: Sequence[int], learned: Learned) -> "RDD[Block]":
        """The rows of these parts as blocks of bin numbers for `grow`."""
        packed = self._found.where((F.col("feature") == PACKED) & F.col("part").isin(list(parts)))
        return packed.select("payload").rdd.mapPartitions(_Coding(learned, self.classes))

    def _sample(self, parts: Sequence[int], columns: int) -> Array:
        """Numbers of some rows of these parts, column by column: always the same rows, whatever the partitions.

        A row's rank is the number of zero bits that end its key's hash: half of the rows have rank 0, a quarter rank 1.
        """
        own = {
            kind: [cell for cell in self._cells.get(kind, []) if cell["part"] in parts] for kind in (SAMPLE, WHOLE_FROM)
        }
        rank = max((cell["class"] for cell in own[WHOLE_FROM]), default=0)
        while (
            sum(cell["rows"] for cell in own[SAMPLE] if cell["class"] >= rank) > self._sample_rows and rank < MAX_RANK
        ):
            rank += 1
        chosen = (F.col("feature") == SAMPLE) & F.col("part").isin(list(parts)) & (F.col("class") >= rank)
        found = self._found.where(chosen).select("payload").collect() if columns else []
        pieces = [np.frombuffer(row[0], dtype=np.float64).reshape(columns, -1) for row in found]
        return np.concatenate(pieces, axis=1) if pieces else np.empty((columns, 0))


def _label_moments(rows: DataFrame) -> Dict[int, Labels]:
    """A regression's label by part."""
    y = F.col(LABEL)
    told = rows.groupBy(PART).agg(F.count("*"), F.min(y), F.max(y), F.avg(y), F.stddev_pop(y)).collect()
    return {row[0]: Labels(row[1], [], *(float(value) for value in row[2:])) for row in told}


def _counted(counts: List[int]) -> Labels:
    return Labels(sum(counts), counts, 0, len(counts) - 1, 0.0, 0.0)


def _together(labels: Sequence[Labels], classes: int) -> Labels:
    if classes:
        return _counted([sum(label.counts[k] for label in labels) for k in range(classes)])
    rows = sum(label.rows for label in labels)
    if not rows:
        return Labels(0, [], 0.0, 0.0, 0.0, 0.0)
    mean = sum(label.rows * label.mean for label in labels) / rows
    squares = sum(label.rows * (label.std**2 + (label.mean - mean) ** 2) for label in labels)
    low, high = min(label.low for label in labels), max(label.high for label in labels)
    return Labels(rows, [], low, high, mean, float(np.sqrt(squares / rows)))


def matrix(batch: pa.RecordBatch, features: Sequence[Feature]) -> List[Array]:
    """Each feature's numbers, as a scorer compares them with thresholds. Columns in: every feature's, by name."""
    return [
        _numbers(batch.column(f["name"])) if f["kind"] == "number" else _encoded(batch.column(f["name"]), f)
        for f in features
    ]


def feature_columns(features: Sequence[Feature]) -> List[Column]:
    """The columns that `matrix` wants, of any table that has the features: numbers as double, categories as text."""
    return [F.col(f["name"]).cast("double" if f["kind"] == "number" else "string").alias(f["name"]) for f in features]


def _numbers(column: pa.Array) -> Array:
    values = as_numpy(column.fill_null(as_arrow([np.nan], np.float64)[0]))
    return np.where(np.isfinite(values), values, MISSING)


def _values(column: pa.Array) -> Tuple[List[Optional[str]], Array]:
    """The distinct values of a text column, None last, and each row's place among them."""
    found = column if pa.types.is_dictionary(column.type) else column.dictionary_encode()
    return [*found.dictionary.to_pylist(), None], as_numpy(
        found.indices.fill_null(as_arrow([len(found.dictionary)], np.int32)[0])
    )


def _encoded(column: pa.Array, feature: Feature) -> Array:
    values, index = _values(column)
    known = feature["encoding"]
    of_values = [feature["missing"] if value is None else known.get(value, feature["unseen"]) for value in values]
    return np.array(of_values, dtype=np.float64)[index]


class _Reading:
    """What `Survey` asks of the executors: counts and a sample of a partition's rows, and the rows packed."""

    def __init__(
        self, numbers: int, categories: int, classes: int, point: Optional[FixedPoint], parts: int, sample_rows: int
    ) -> None:
        self.numbers, self.categories, self.classes, self.point = numbers, categories, classes, point
        self.parts, self.sample_rows = parts, sample_rows

    def __call__(self, batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        wide = self.classes or 2  # rows of each class, or rows and the sum of the label
        missing = np.zeros((self.parts, self.numbers), dtype=np.int64)
        every = np.zeros((self.parts, wide), dtype=np.int64)
        counts: List[Dict[Optional[str], Array]] = [{} for _ in range(self.categories)]
        samples = [_Sample(self.numbers, self.sample_rows) for _ in range(self.parts)]
        for batch in batches:
            batch = _compact(batch, 3 + self.numbers)
            label, part, hashed = (as_numpy(column) for column in batch.columns[:3])
            numbers = [_numbers(column) for column in batch.columns[3 : 3 + self.numbers]]
            categories = [_values(column) for column in batch.columns[3 + self.numbers :]]
            of_label = self.point.round(label).astype(np.int64) if self.point else label.astype(np.int64)
            ends = np.searchsorted(part, np.arange(self.parts + 1))
            for own in np.flatnonzero(np.diff(ends)):
                rows = slice(ends[own], ends[own + 1])
                samples[own].add(hashed[rows], [values[rows] for values in numbers])
                nothing = [np.count_nonzero(values[rows] == MISSING) for values in numbers]
                missing[own] += np.array(nothing, dtype=np.int64)
                payload = _packed(batch.slice(rows.start, rows.stop - rows.start))
                yield _told([(PACKED, None, int(own), 0, rows.stop - rows.start, 0, payload)])
            place, width = part.astype(np.int64), self.parts * wide
            every += self._added(place, of_label, self.parts)
            for seen, (values, index) in zip(counts, categories):  # noqa: B905
                # Too many already: `Survey` will refuse the column, and a key would fill the executor's memory.
                if len(seen) <= MAX_CATEGORIES:
                    cell = index.astype(np.int64) * self.parts + place
                    found = self._added(cell, of_label, len(values) * self.parts).reshape(len(values), width)
                    for value, counted in zip(values, found):  # noqa: B905
                        if counted.any():
                            seen[value] = seen[value] + counted if value in seen else counted
        yield _told([*self._cells(missing, every, counts), *self._samples(samples)])

    def _added(self, place: Array, label: Array, places: int) -> Array:
        """By place the rows of each class; of a regression the rows and the sum of their rounded labels."""
        if self.classes:
            flat = np.bincount(place * self.classes + label, minlength=places * self.classes)
            return flat.reshape(places, self.classes)
        sums = [np.bincount(place, weights=weights, minlength=places) for weights in (None, label)]
        return np.stack(sums, axis=1).astype(np.int64)

    def _cells(
        self, missing: Array, every: Array, counts: Sequence[Dict[Optional[str], Array]]
    ) -> Iterator[Tuple[Any, ...]]:
        for part, feature in zip(*missing.nonzero()):  # noqa: B905
            yield int(feature), None, int(part), 0, int(missing[part, feature]), 0, None
        tables: List[Tuple[int, Dict[Optional[str], Array]]] = [(EVERY_ROW, {None: every})]
        tables += [
            (i, {value: found.reshape(self.parts, -1) for value, found in seen.items()})
            for i, seen in enumerate(counts, start=self.numbers)
        ]
        for feature, seen in tables:
            for value, found in seen.items():
                if self.classes:
                    for part, label in zip(*found.nonzero()):  # noqa: B905
                        yield feature, value, int(part), int(label), int(found[part, label]), 0, None
                else:
                    for part in found[:, 0].nonzero()[0]:
                        yield feature, value, int(part), 0, int(found[part, 0]), int(found[part, 1]), None

    def _samples(self, samples: Sequence["_Sample"]) -> Iterator[Tuple[Any, ...]]:
        for part, sample in enumerate(samples):
            yield WHOLE_FROM, None, part, sample.rank, 0, 0, None
            for rank, values in sample.by_rank():
                yield SAMPLE, None, part, rank, values.shape[1], 0, values.tobytes()


class _Sample:
    """The rows of the highest ranks (see `Survey._sample`), no more than `most`, as columns of numbers."""

    def __init__(self, columns: int, most: int) -> None:
        self.rank, self.most = 0, most
        self.hashes, self.values = np.empty(0, dtype=np.int64), np.empty((columns, 0))

    def add(self, hashes: Array, columns: Sequence[Array]) -> None:
        chosen = np.flatnonzero(hashes & ((1 << self.rank) - 1) == 0)
        if not len(chosen) or not columns:
            return
        self.hashes = np.concatenate([self.hashes, hashes[chosen]])
        self.values = np.concatenate([self.values, np.stack([column[chosen] for column in columns])], axis=1)
        while len(self.hashes) > self.most and self.rank < MAX_RANK:
            self.rank += 1
            kept = self.hashes & ((1 << self.rank) - 1) == 0
            self.hashes, self.values = self.hashes[kept], self.values[:, kept]

    def by_rank(self) -> Iterator[Tuple[int, Array]]:
        lowest = self.hashes & -self.hashes  # the lowest bit that is set; of a hash of 0 none is
        ranks = np.where(lowest > 0, np.log2(np.maximum(lowest, 1)).astype(np.int64), MAX_RANK)
        for rank in np.unique(ranks):
            yield int(rank), self.values[:, ranks == rank]


def _compact(batch: pa.RecordBatch, first: int) -> pa.RecordBatch:
    """The batch with its rows in the order of their parts, and texts, from column `first` on, as dictionaries."""
    columns = [column if i < first else column.dictionary_encode() for i, column in enumerate(batch.columns)]
    packed = pa.RecordBatch.from_arrays(columns, names=batch.schema.names)
    part = as_numpy(batch.column(1))
    return packed if (part[1:] >= part[:-1]).all() else packed.take(as_arrow(np.argsort(part, kind="stable"), np.int64))


def _packed(batch: pa.RecordBatch) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, batch.schema, options=pa.ipc.IpcWriteOptions(compression="lz4")) as stream:
        stream.write_batch(batch)
    return bytes(sink.getvalue())


# `pa.array`, `pa.scalar` and `to_numpy` import pandas, to ask whether they deal with pandas: half a second a worker.


def as_numpy(column: pa.Array) -> Array:
    """A column of numbers, none of them NULL."""
    return np.from_dlpack(column) if len(column) else np.empty(0, dtype=column.type.to_pandas_dtype())


def as_arrow(values: Any, kind: Any) -> pa.Array:
    found = np.ascontiguousarray(values, dtype=kind)
    return pa.Array.from_buffers(pa.from_numpy_dtype(found.dtype), len(found), [None, pa.py_buffer(found)])


def _told(cells: Sequence[Tuple[Any, ...]]) -> pa.RecordBatch:
    """Cells as rows."""
    columns = list(zip(*cells)) or [()] * 7  # noqa: B905
    feature, part, label = (as_arrow(columns[i], np.int32) for i in (0, 2, 3))
    rows, total = (as_arrow(columns[i], np.int64) for i in (4, 5))
    value = pa.lib.StringBuilder()
    value.append_values(columns[1])
    payloads = [payload or b"" for payload in columns[6]]
    ends = np.cumsum([0, *map(len, payloads)], dtype=np.int32)
    data = [None, pa.py_buffer(ends), pa.py_buffer(b"".join(payloads))]
    payload = pa.Array.from_buffers(pa.binary(), len(payloads), data)
    names = ["feature", "value", "part", "class", "rows", "total", "payload"]
    return pa.RecordBatch.from_arrays([feature, value.finish(), part, label, rows, total, payload], names=names)


class _Coding:
    """Packed rows to blocks of bin numbers, on the executors."""

    def __init__(self, learned: Learned, classes: int) -> None:
        self.features, self.thresholds, self.point = learned
        self.dtype = np.uint8 if max(learned.bins, default=1) <= 256 else np.uint16
        self.label_dtype = np.uint8 if classes else np.int64

    def __call__(self, packed: Iterable[Any]) -> Iterator[Block]:
        waiting: List[Block] = []
        for (payload,) in packed:
            batch = pa.ipc.open_stream(payload).read_next_batch()
            codes = np.empty((len(self.features), batch.num_rows), dtype=self.dtype)
            for i, values in enumerate(matrix(batch, self.features)):
                codes[i] = np.searchsorted(self.thresholds[i], values, side="left")
            label = as_numpy(batch.column(0))
            label = self.point.round(label) if self.point else label
            waiting.append(Block(codes, label.astype(self.label_dtype)))
            if sum(len(block.label) for block in waiting) >= BLOCK_ROWS:
                yield _joined(waiting)
                waiting = []
        if waiting:
            yield _joined(waiting)


def _joined(blocks: Sequence[Block]) -> Block:
    codes, label = zip(*blocks)  # noqa: B905
    return Block(np.concatenate(codes, axis=1), np.concatenate(label))


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
) -> Feature:
    """tree.json's object of a category, and `_rows` of each encoding and of the missing."""
    counts: Dict[Optional[str], Array] = {}
    for cell in cells:
        known = counts.setdefault(cell["value"], np.zeros(classes or 2))
        if classes:
            known[cell["class"]] += cell["rows"]
        else:
            known += [cell["rows"], cell["total"]]
    ordered = sorted(counts, key=lambda value: (value is None, value or ""))
    table = np.array([counts[value] for value in ordered]).reshape(len(ordered), -1)
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
