"""What training needs to know of the features before it can grow a tree, found in one reading of the table."""

import zlib
from copy import copy
from functools import partial
from itertools import islice
from operator import add
from typing import Any, Callable, Dict, Iterable, Iterator, List, NamedTuple, Optional, Sequence, Tuple

import numpy as np
import pyarrow as pa
from pyspark import RDD, SparkContext
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from jobs.errors import JobError
from jobs.learners import encoding
from jobs.learners.encoding import Labels, Learned, category_feature, thresholds
from jobs.learners.grow import Block, FixedPoint, RowWeights
from jobs.models.forms import THRESHOLD
from jobs.models.inputs import MISSING, Feature, matrix, numbers_of, values_of
from jobs.models.tree import Scorer
from jobs.tables import split
from jobs.tables.arrays import Array, as_arrow, as_doubles, as_numpy, as_text
from jobs.tables.features import Features
from jobs.tables.settings import Dataset, Label, Task

# A column with more is a key rather than a category, and the table of encodings must fit the driver.
MAX_CATEGORIES = 100_000
MAX_COUNTS = 10_000_000  # of its values, the rows of each class: as much memory for 500 classes as for 100
# Split candidates come from a sample, as MLlib's do: so many rows, fewer if there are very many number columns.
SAMPLE_ROWS, SAMPLE_CELLS = 40_000, 5_000_000
BLOCK_ROWS = 250_000
# Of more different probabilities than this in a partition, log-odds are told in steps of 1 / STEPS_OF_ODDS: a log loss
# is off by less than one in a million, and the driver is sent no more than some megabytes.
MANY_ANSWERS, STEPS_OF_ODDS, SURE = 100_000, 4096, 1e-15
MAX_RANK = 62  # of a hash of 64 bits
REDUCERS = 8  # each holds no more than MAX_CATEGORIES values of a column, and so does what they send to the driver

NOTHING: Array = np.zeros((1, 1), dtype=np.int64)  # counts of a value, to which others may be added
Key = Tuple[int, Any]  # a feature's place and one of its values; or one of the kinds below
EVERY_ROW, SAMPLE, WEIGHED = -1, -2, -3


class Mark(NamedTuple):
    """Tells rows apart: `holds` says of a column's values, in a worker, of which rows it holds."""

    column: str
    holds: Callable[[pa.Array], Array]


class Survey:
    """Counts and a sample of a table's features, out of which encodings and split candidates are made.

    Rows are told apart by yes-or-no marks, such as which side of the split they are on, into parts: whatever is learned
    is learned from the parts that the caller names.
    """

    def __init__(self, features: Features, settings: Dataset, marks: Dict[str, Mark]) -> None:
        """Columns in: `split_hash`, label and features, and those of `marks`. Reads; raises JobError if a category has
        too many values."""
        self.settings, self.classes, self._marks = settings, settings.classes, list(marks)
        by = settings.training.weight_column
        self._features, self._apart = features, Apart(settings.label, settings.task, list(marks.values()), by)
        self._parts = 2 ** len(marks)
        self._numbers, self._categories = settings.features.numbers, settings.features.categories
        self._labels: Dict[int, Labels] = {}
        self.point: Optional[FixedPoint] = None
        if not self.classes:
            self._labels = self._label_moments()
            if every := list(self._labels.values()):
                low, high = min(label.low for label in every), max(label.high for label in every)
                self.point = FixedPoint.for_labels(low, high, sum(label.rows for label in every))
        self._read()

    def _label_moments(self) -> Dict[int, Labels]:
        """A regression's label by part."""
        found: Dict[int, List[Labels]] = {}
        for part, label in self._features.batches(self._apart.columns).mapPartitions(self._apart.moments).collect():
            found.setdefault(part, []).append(label)
        return {part: _together(labels, 0) for part, labels in found.items()}

    def _read(self) -> None:
        names = [split.HASH, *self._apart.columns, *self._numbers, *self._categories]
        reading = _Reading(self._apart, self._numbers, self._categories, self.classes, self.point, self._sample())
        cells = self._features.batches(names).mapPartitions(reading)
        found = reduced(cells, add).mapPartitions(partial(_bounded, most_values(self.classes))).collect()
        wide = self.classes or 2
        self._every = np.zeros((self._parts, wide), dtype=np.int64)
        self._missing = np.zeros((len(self._numbers), self._parts), dtype=np.int64)
        self._values: List[Dict[Optional[str], Array]] = [{} for _ in self._categories]
        self._samples: Dict[int, Sample] = {}
        self._weighed = np.zeros((self._parts, wide))
        for (kind, value), counted in found:
            if kind == SAMPLE:
                self._samples[value] = counted
            elif kind == EVERY_ROW:
                self._every = counted
            elif kind == WEIGHED:
                self._weighed = counted
            elif kind < len(self._numbers):
                self._missing[kind] = counted
            else:
                self._values[kind - len(self._numbers)][value] = counted
        for name, values in zip(self._categories, self._values):  # noqa: B905  # not in Python 3.9
            if len(values) > (most := most_values(self.classes)):
                of = f" of {self.classes} classes each" if most < MAX_CATEGORIES else ""
                raise JobError(
                    f"{self.settings.file}: features.categories: {name} has more than {most:,} values{of}, which makes "
                    "it a key rather than a category: leave it out, or group its values in prepare.sql."
                )
        if self.classes:
            self._labels = {part: _counted(self._every[part].tolist()) for part in range(self._parts)}

    @property
    def context(self) -> SparkContext:
        """Spark's, that its rows are read by."""
        return self._features.spark.sparkContext

    def parts(self, **asked: bool) -> List[int]:
        """The numbers of the parts whose marks are as asked; of other marks either kind."""
        bits = {name: 2**i for i, name in enumerate(self._marks)}
        return [
            part
            for part in range(self._parts)
            if all(bool(part & bits[name]) == wanted for name, wanted in asked.items())
        ]

    def labels(self, parts: Sequence[int]) -> Labels:
        """The label in these parts together; `require_variety` says whether that is enough."""
        return _together([self._labels[part] for part in parts if part in self._labels], self.classes)

    def average(self, parts: Sequence[int]) -> Any:
        """What is known of these parts without a model: rows of each class, or the mean; if a column weighs rows, their
        weights of each class, or the weighted mean."""
        label = self.labels(parts)
        if not self.settings.training.weight_column:
            return label.counts or label.mean
        sums = self._weighed[list(parts)].sum(axis=0)
        return sums.tolist() if self.classes else float(sums[1] / sums[0])

    def row_weight(self, parts: Sequence[int]) -> Optional[float]:
        """The mean weight of a row of these parts, None if no column weighs them."""
        if not self.settings.training.weight_column:
            return None
        sums = self._weighed[list(parts)].sum(axis=0)
        return float((sums.sum() if self.classes else sums[0]) / self.labels(parts).rows)

    def by_row(self, parts: Sequence[int]) -> Optional[RowWeights]:
        """How the weights of single rows count while a tree of ours learns from these parts, None if they have none."""
        mean = self.row_weight(parts)
        return None if mean is None else RowWeights.of(mean, self.labels(parts).rows)

    def weights(self, parts: Sequence[int]) -> Optional[Array]:
        """How much a row of each class counts while a model learns from these parts, None if all count alike."""
        return encoding.class_weights(self.settings, self.labels(parts).counts)

    def sample(self, parts: Sequence[int]) -> "Sample":
        """Numbers of some rows of these parts: of each number feature, then the label of a regression."""
        found = self._sample()
        for part in parts:
            if part in self._samples:
                found += self._samples[part]
        return found

    def _sample(self) -> "Sample":
        columns = len(self._numbers) + (self.point is not None)
        return Sample(columns, max(1000, min(SAMPLE_ROWS, SAMPLE_CELLS // max(columns, 1))))

    def values(self, category: str) -> Dict[Optional[str], Array]:
        """Of each value of a category, None among them: part x rows of each class; of a regression rows and the sum of
        the rounded labels."""
        return self._values[self._categories.index(category)]

    def learn(self, parts: Sequence[int]) -> Learned:
        """Encodings and split candidates of the declared features, numbers first, from the rows of these parts only."""
        own = list(parts)
        smoothing, bins = self.settings.training.smoothing, self.settings.training.bins
        label, sample = self.labels(own), self.sample(own)
        features: List[Feature] = []
        between: List[Array] = []
        for i, name in enumerate(self._numbers):
            missing = int(self._missing[i, own].sum())
            features.append({"name": name, "kind": "number", "missing": MISSING, "missing_rows": missing})
            known = sample.values[i][sample.values[i] > MISSING]
            seen, rows = np.unique(known, return_counts=True)
            cuts = thresholds(seen, rows, bins=bins - 1 if missing else bins)
            between.append(np.concatenate([[MISSING / 2], cuts]) if 0 < missing < label.rows else cuts)
        every = self._every[own].sum(axis=0)
        average = (every if self.point is None else np.array([self.point.sum(label.rows, every[1])])) / label.rows
        for name, values in zip(self._categories, self._values):  # noqa: B905  # not in Python 3.9
            counts = {
                value: counted for value, by_part in values.items() if (counted := by_part[own].sum(axis=0)).any()
            }
            feature, rows = category_feature(name, counts, average, smoothing, self.classes, self.point)
            features.append(feature)
            seen = [*feature["encoding"].values(), *([feature["missing"]] if feature["missing_rows"] else [])]
            per_value: Dict[float, int] = {}
            for encoded, n in zip(seen, rows):  # noqa: B905  # not in Python 3.9
                per_value[encoded] = per_value.get(encoded, 0) + n
            ordered = sorted(per_value)
            between.append(thresholds(np.array(ordered), np.array([per_value[v] for v in ordered]), bins=bins))
        return Learned(features, between, self.point)

    def code(self, parts: Sequence[int], learned: Learned) -> "RDD[Block]":
        """The rows of these parts as blocks of bin numbers for `grow`; each time it is asked for, a reading."""
        names = [*self._apart.columns, *self._numbers, *self._categories]
        return self._features.batches(names).mapPartitions(_Coding(self._apart, parts, learned, self.classes))

    def vectors(self, parts: Sequence[int], learned: Learned) -> DataFrame:
        """The same for MLlib: `label`, a class by its number or the value, `weight`, and `features`, bin numbers as a
        vector."""
        from pyspark.ml.functions import array_to_vector

        coding, by_class = _Coding(self._apart, parts, learned, self.classes), self.weights(parts)
        mean = self.row_weight(parts)

        def coded(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
            for batch in batches:
                codes, label, weight = coding.coded(batch)
                if weight is None or mean is None:
                    weight = np.ones(len(label)) if by_class is None else by_class[label]
                else:
                    weight = weight / mean
                values = label.astype(np.float64)
                values = values if learned.point is None else learned.point.sum(1, values)
                ends = np.arange(0, len(codes) * (len(values) + 1), max(len(codes), 1), dtype=np.int32)
                lists = pa.ListArray.from_arrays(as_arrow(ends, np.int32), as_arrow(codes.T.ravel(), np.float64))
                columns = [as_arrow(values, np.float64), as_arrow(weight, np.float64), lists]
                yield pa.RecordBatch.from_arrays(columns, names=["label", "weight", "codes"])

        names = [split.HASH, *self._apart.columns, *self._numbers, *self._categories]
        told = self._features.table(names).mapInArrow(coded, "label double, weight double, codes array<double>")
        return told.select("label", "weight", array_to_vector(F.col("codes")).alias("features"))

    def answers(self, parts: Sequence[int], scorer: Scorer) -> Tuple[Array, Array]:
        """What a model of classes says of the rows of these parts: each answer (a probability, or probabilities), maybe
        several times, and its rows of each class. Rows stay with the workers: what comes back are different answers.
        """
        wanted, apart, classes = np.isin(np.arange(self._parts), list(parts)), self._apart, self.classes

        def told(batches: Iterable[pa.RecordBatch]) -> Iterator[Tuple[Array, Array]]:
            found: List[Tuple[Array, Array]] = []
            for batch in batches:
                own = wanted[apart.part(batch)]
                if not own.all():
                    batch = batch.take(as_arrow(np.flatnonzero(own), np.int64))
                found.append((scorer.says(batch)[1], apart.label(batch)))
            if found:
                said, label = zip(*found)  # noqa: B905  # not in Python 3.9
                yield _tallied(np.concatenate(said), np.concatenate(label), classes, scorer.threshold)

        names = [*apart.columns, *(feature["name"] for feature in scorer.features)]
        said, counts = zip(*self._features.batches(names).mapPartitions(told).collect())  # noqa: B905
        return np.concatenate(said), np.concatenate(counts)

    def collected(self, groups: Sequence[Sequence[int]], learned: Learned, most: int) -> List[Block]:
        """The rows of each group of parts as one block, here; of more than `most` a sample of about so many, by hash:
        always the same ones."""
        shares = [min(1.0, most / max(self.labels(parts).rows, 1)) for parts in groups]
        codings = [
            _Coding(self._apart, parts, learned, self.classes, share)
            for parts, share in zip(groups, shares)  # noqa: B905  # not in Python 3.9
        ]

        def coded(batches: Iterable[pa.RecordBatch]) -> Iterator[Tuple[int, Block]]:
            for batch in batches:
                yield from ((place, coding.coded(batch)) for place, coding in enumerate(codings))

        names = [split.HASH, *self._apart.columns, *self._numbers, *self._categories]
        found = self._features.batches(names).mapPartitions(coded).collect()
        return [Block.joined([block for place, block in found if place == wanted]) for wanted in range(len(groups))]

    def rows(
        self, parts: Sequence[int], columns: Sequence[str], most: int, *, by: Sequence[str] = ()
    ) -> Tuple[pa.RecordBatch, Array]:
        """These columns of the rows of these parts, text as text, and their labels (a class by its number), here; of
        more than `most` rows about so many, by hash: always the same ones. `by`: those of `columns` that tell a row, if
        rows of a group have one hash."""
        wanted, apart = np.isin(np.arange(self._parts), list(parts)), self._apart
        share, names = min(1.0, most / max(self.labels(parts).rows, 1)), list(dict.fromkeys(columns))

        def taken(batches: Iterable[pa.RecordBatch]) -> Iterator[Tuple[pa.RecordBatch, Array]]:
            for batch in batches:
                own = wanted[apart.part(batch)]
                if share < 1:
                    hashes = _hashed(batch, by) if by else as_numpy(batch.column(split.HASH))
                    own &= split.is_sampled(hashes, share)
                some = batch.take(as_arrow(np.flatnonzero(own), np.int64))
                found = [some.column(name) for name in names]
                found = [each.dictionary_decode() if pa.types.is_dictionary(each.type) else each for each in found]
                yield pa.RecordBatch.from_arrays(found, names=names), apart.label(some)

        found = self._features.batches([split.HASH, *apart.columns, *names]).mapPartitions(taken).collect()
        batches, labels = zip(*found)  # noqa: B905  # not in Python 3.9
        (whole,) = pa.Table.from_batches(batches).combine_chunks().to_batches() or batches[:1]
        return whole, np.concatenate(labels)


def _hashed(batch: pa.RecordBatch, columns: Sequence[str]) -> Array:
    """A number for each row, by what these columns have: the same wherever the row is."""
    each = [as_text(batch.column(name)).dictionary_decode().to_pylist() for name in columns]
    rows = zip(*each)  # noqa: B905  # not in Python 3.9
    return np.array([zlib.crc32(repr(row).encode()) for row in rows], dtype=np.int64)


def reduced(cells: "RDD[Tuple[Any, Any]]", together: Callable[[Any, Any], Any]) -> "RDD[Tuple[Any, Any]]":
    """What the workers have found, put together by key in so few places that the driver can have it all."""
    return cells.reduceByKey(together, max(1, min(REDUCERS, cells.getNumPartitions())))


def _tallied(said: Array, label: Array, classes: int, threshold: float = THRESHOLD) -> Tuple[Array, Array]:
    """The different answers, and the rows of each class that got them; no step moves one past the threshold."""
    answers, place = np.unique(said, axis=0, return_inverse=True)
    if said.ndim == 1 and len(answers) > MANY_ANSWERS:
        known = np.clip(said, SURE, 1 - SURE)
        odds = np.rint(np.log(known / (1 - known)) * STEPS_OF_ODDS) / STEPS_OF_ODDS
        stepped = 1 / (1 + np.exp(-odds))
        below = np.minimum(stepped, np.nextafter(threshold, 0))
        answers, place = np.unique(
            np.where(said >= threshold, np.maximum(stepped, threshold), below), return_inverse=True
        )
    counts = np.bincount(place.ravel() * classes + label, minlength=len(answers) * classes)
    return answers, counts.reshape(len(answers), classes)


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


def most_values(classes: int) -> int:
    """How many values a category may have."""
    return min(MAX_CATEGORIES, MAX_COUNTS // max(classes, 1))


def _bounded(most: int, cells: Iterable[Tuple[Key, Any]]) -> Iterator[Tuple[Key, Any]]:
    """No more values of a column than are needed to see that they are too many."""
    seen: Dict[int, int] = {}
    for key, counted in cells:
        seen[key[0]] = seen.get(key[0], 0) + 1
        if key[0] < 0 or seen[key[0]] <= most + 1:
            yield key, counted


class Apart:
    """The label of rows, and the part that they are in, on the executors."""

    def __init__(self, label: Label, task: Task, marks: Sequence[Mark], weight: str = "") -> None:
        self.task, self.marks, self.label_name, self.weighted_by = task, list(marks), label.column, weight
        self.places = {name: i for i, name in enumerate(label.classes)}

    @property
    def columns(self) -> List[str]:
        weight = [self.weighted_by] if self.weighted_by else []
        return [self.label_name, *[mark.column for mark in self.marks], *weight]

    def weight(self, batch: pa.RecordBatch) -> Optional[Array]:
        """How much each row counts, if a column says it."""
        return as_doubles(batch.column(self.weighted_by)) if self.weighted_by else None

    def label(self, batch: pa.RecordBatch) -> Array:
        """A class by its number, or a regression's value."""
        column = batch.column(self.label_name)
        if self.task == "regression":
            return as_doubles(column)
        if self.task == "binary":
            return as_numpy(column.cast(pa.int64()))
        names, index = values_of(column)
        return np.array([self.places[name] if name is not None else -1 for name in names])[index]

    def part(self, batch: pa.RecordBatch) -> Array:
        found = np.zeros(batch.num_rows, dtype=np.int64)
        for i, mark in enumerate(self.marks):
            found += mark.holds(batch.column(mark.column)).astype(np.int64) << i
        return found

    def moments(self, batches: Iterable[pa.RecordBatch]) -> Iterator[Tuple[int, Labels]]:
        """Of a regression's label in each part."""
        found: Dict[int, List[Labels]] = {}
        for batch in batches:
            label, part = self.label(batch), self.part(batch)
            for own in np.unique(part):
                y = label[part == own]
                told = Labels(len(y), [], float(y.min()), float(y.max()), float(y.mean()), float(y.std()))
                found.setdefault(int(own), []).append(told)
        for place, labels in found.items():
            yield place, _together(labels, 0)


class _Reading:
    """What `Survey` asks of a partition's rows: counts by part, and a sample of each part."""

    def __init__(
        self,
        apart: Apart,
        numbers: Sequence[str],
        categories: Sequence[str],
        classes: int,
        point: Optional[FixedPoint],
        sample: "Sample",
    ) -> None:
        """`sample`: an empty one."""
        self.apart, self.numbers, self.categories = apart, numbers, categories
        self.classes, self.point, self.sample = classes, point, sample
        self.parts, self.most_values = 2 ** len(apart.marks), most_values(classes)

    def __call__(self, batches: Iterable[pa.RecordBatch]) -> Iterator[Tuple[Key, Any]]:
        every = np.zeros((self.parts, self.classes or 2), dtype=np.int64)
        weighed = np.zeros((self.parts, self.classes or 2))
        missing = np.zeros((len(self.numbers), self.parts), dtype=np.int64)
        values: List[Dict[Optional[str], Array]] = [{} for _ in self.categories]
        samples: Dict[int, Sample] = {}
        for batch in batches:
            label, part = self.apart.label(batch), self.apart.part(batch)
            weight = self.apart.weight(batch)
            if weight is not None:
                weighed += self._weight_sums(part, label, weight)
            numbers = [numbers_of(batch.column(name)) for name in self.numbers]
            for i, column in enumerate(numbers):
                missing[i] += np.bincount(part[column == MISSING], minlength=self.parts)
            if self.point:
                numbers.append(label)
                label = self.point.round(label).astype(np.int64)
            every += self._added(part, label, self.parts)
            for name, seen in zip(self.categories, values):  # noqa: B905  # not in Python 3.9
                # Too many already: `Survey` will refuse the column, and a key would fill the executor's memory.
                if len(seen) <= self.most_values:
                    self._count(seen, batch.column(name), part, label)
            hashes = as_numpy(batch.column(split.HASH))
            for own in np.unique(part).tolist():
                samples.setdefault(own, copy(self.sample)).take(hashes, part == own, numbers)
        yield (EVERY_ROW, None), every
        if self.apart.weighted_by:
            yield (WEIGHED, None), weighed
        yield from (((i, None), counts) for i, counts in enumerate(missing))
        for i, seen in enumerate(values, start=len(self.numbers)):
            yield from (((i, value), counts) for value, counts in seen.items())
        yield from (((SAMPLE, own), sample) for own, sample in samples.items())

    def _count(self, seen: Dict[Optional[str], Array], column: pa.Array, part: Array, label: Array) -> None:
        """Adds a batch to what was `seen` of a category: of each value part x rows of each class.

        Of too many values nothing is counted, since the column is refused for their number: one more than there may be
        is left of them. Counts of all would take several times the memory that the limit is there for.
        """
        names, index = values_of(column)
        if len(names) > self.most_values:  # a dictionary may have more than the batch
            there, index = np.unique(index, return_inverse=True)
            names = [names[i] for i in there.tolist()]
        if len(names) <= self.most_values:
            counted = self._added(index * self.parts + part, label, len(names) * self.parts)
            by_value = counted.reshape(len(names), self.parts, self.classes or 2)
            for value, found in zip(names, by_value):  # noqa: B905  # not in Python 3.9
                if found.any():
                    seen[value] = seen[value] + found if value in seen else found
        else:
            seen.update(dict.fromkeys(names, NOTHING))
        if len(seen) > self.most_values:
            some = list(islice(seen, self.most_values + 1))
            seen.clear()
            seen.update(dict.fromkeys(some, NOTHING))

    def _weight_sums(self, part: Array, label: Array, weight: Array) -> Array:
        """By part the weights of each class; of a regression weights, and weighted labels."""
        if self.classes:
            flat = np.bincount(part * self.classes + label, weights=weight, minlength=self.parts * self.classes)
            return flat.reshape(self.parts, self.classes)
        return np.stack(
            [np.bincount(part, weights=of, minlength=self.parts) for of in (weight, weight * label)], axis=1
        )

    def _added(self, place: Array, label: Array, places: int) -> Array:
        """By place the rows of each class; of a regression the rows and the sum of their rounded labels."""
        if self.classes:
            flat = np.bincount(place * self.classes + label, minlength=places * self.classes)
            return flat.reshape(places, self.classes)
        sums = [np.bincount(place, weights=weights, minlength=places) for weights in (None, label)]
        return np.stack(sums, axis=1).astype(np.int64)


class Sample:
    """Numbers of some rows, column by column: always the same rows, in whatever partitions they were met.

    A row's rank is the number of zero bits that end its hash: half of the rows have rank 0, a quarter rank 1. A sample
    holds the rows of the highest ranks, as many ranks as come to no more than `most` rows.
    """

    def __init__(self, columns: int, most: int) -> None:
        self.lowest, self.most = 0, most
        self.ranks: Array = np.empty(0, dtype=np.uint8)
        self.values: Array = np.empty((columns, 0))

    def take(self, hashes: Array, wanted: Array, columns: Sequence[Array]) -> None:
        """Adds those of the wanted rows that are of its ranks."""
        chosen = np.flatnonzero(wanted & (hashes & ((1 << self.lowest) - 1) == 0))
        if len(chosen) and columns:
            last = hashes[chosen] & -hashes[chosen]  # the last bit that is set; of a hash of 0 none is
            ranks = np.where(last > 0, np.log2(np.maximum(last, 1)), MAX_RANK).astype(np.uint8)
            self._put(ranks, np.stack([column[chosen] for column in columns]))

    def __add__(self, other: "Sample") -> "Sample":
        both = Sample(len(self.values), self.most)
        both.lowest = max(self.lowest, other.lowest)
        for sample in (self, other):
            high = sample.ranks >= both.lowest
            both._put(sample.ranks[high], sample.values[:, high])
        return both

    def _put(self, ranks: Array, values: Array) -> None:
        self.ranks = np.concatenate([self.ranks, ranks])
        self.values = np.concatenate([self.values, values], axis=1)
        while len(self.ranks) > self.most and self.lowest < MAX_RANK:
            self.lowest += 1
            high = self.ranks >= self.lowest
            self.ranks, self.values = self.ranks[high], self.values[:, high]


class _Coding:
    """Batches of columns to blocks of bin numbers, on the executors."""

    def __init__(self, apart: Apart, parts: Sequence[int], learned: Learned, classes: int, share: float = 1.0) -> None:
        self.apart, self.classes, self.share = apart, classes, share
        self.wanted = np.isin(np.arange(2 ** len(apart.marks)), list(parts))
        self.features, self.thresholds, self.point = learned
        self.dtype = np.uint8 if max(learned.bins, default=1) <= 256 else np.uint16
        self.of_label = np.uint8 if classes <= 256 else np.uint16

    def __call__(self, batches: Iterable[pa.RecordBatch]) -> Iterator[Block]:
        waiting: List[Block] = []
        for batch in batches:
            waiting.append(self.coded(batch))
            if sum(len(block.label) for block in waiting) >= BLOCK_ROWS:
                yield Block.joined(waiting)
                waiting = []
        if waiting:
            yield Block.joined(waiting)

    def coded(self, batch: pa.RecordBatch) -> Block:
        wanted = self.wanted[self.apart.part(batch)]
        if self.share < 1:
            wanted &= split.is_sampled(as_numpy(batch.column(split.HASH)), self.share)
        if not wanted.all():
            batch = batch.take(as_arrow(np.flatnonzero(wanted), np.int64))
        codes = np.empty((len(self.features), batch.num_rows), dtype=self.dtype)
        for i, values in enumerate(matrix(batch, self.features)):
            codes[i] = np.searchsorted(self.thresholds[i], values, side="left")
        label, weight = self.apart.label(batch), self.apart.weight(batch)
        return Block(
            codes, self.point.round(label).astype(np.int64) if self.point else label.astype(self.of_label), weight
        )
