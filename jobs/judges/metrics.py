"""How good predictions are, exactly, from small tables: what a leaf says, against what its rows turned out to be.

A tree says as many things as it has leaves, so counts by leaf and label hold all that the metrics need, ties included;
Spark's evaluator bins the curve and keeps no ties. Rows are counted by the workers that score them: to a Spark that has
just started, a query with an aggregation costs more than small tables do. All else here is plain NumPy.
"""

import math
import pickle
from typing import Any, Callable, Dict, Iterable, Iterator, List, NamedTuple, Optional, Sequence, Tuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from jobs.models.forms import THRESHOLD
from jobs.models.tasks import CLIP, LEAF, MAIN, PREDICTION, PROBABILITIES, PROBABILITY
from jobs.models.tree import called_classes
from jobs.tables.arrays import as_numpy

ROC_POINTS, CALIBRATION_BINS = 200, 10
LIFT_SHARES = (0.01, 0.05, 0.1, 0.2, 0.3, 0.5)
RESAMPLES, LEVEL = 1000, 0.95
GROUPS = 1000  # of a regression's rows, by hash of the key: what its interval resamples
SLICE_VALUES = 20
COSTLY = 20_000  # cells, beyond which to draw RESAMPLES times from each takes minutes and gigabytes
MANY_VALUES = 10_000  # of a slice's column in one partition: too many to be sent to the driver each with its figures
LABEL, OTHERS = "_y", "all others"

Floats = NDArray[np.float64]
Figures = Dict[str, Any]


class Tally(NamedTuple):
    """Binary. Parallel arrays in rising order of probability: rows that got it, and how many of these are positive."""

    probability: Floats
    rows: Floats
    positives: Floats

    @property
    def total(self) -> int:
        return int(self.rows.sum())

    @property
    def total_positives(self) -> int:
        return int(self.positives.sum())


class Table(NamedTuple):
    """Multiclass. `probabilities`: what each leaf says of each class; `counts`: its rows of each class."""

    probabilities: Floats
    counts: Floats


class Errors(NamedTuple):
    """Regression. Sums over groups of rows: rows, error, its size, its square, label, its square, its size.

    The error is prediction less label; the label is taken less the training side's mean, and so is `label`.
    """

    groups: Floats


# --- From scored rows to tables ---


def outcomes(scored: DataFrame, task: str, label: Column, keys: Sequence[str], centre: float) -> Any:
    """A Tally, Table or Errors. Columns in: what `tree.score` adds, and those of `label` and `keys`.

    `centre`: the mean label of the training side, which a regression is held against.
    """
    if task == "regression":
        group = F.pmod(F.xxhash64(*keys), F.lit(GROUPS)).cast("int").alias("g")
        rows = scored.select(group, F.col(PREDICTION), label.cast("double").alias(LABEL))
        sums = sum(_in_workers(rows, _ErrorSums(centre)), np.zeros((GROUPS, 7)))
        return Errors(sums[sums[:, 0] > 0])
    says = PROBABILITY if task == "binary" else PROBABILITIES
    rows = scored.select(LEAF, says, label.cast("int").alias(LABEL))
    leaves: Dict[int, Any] = {}
    for told in _in_workers(rows, _by_leaf):
        for leaf, (answer, counts) in told.items():
            leaves[leaf] = (answer, leaves[leaf][1] + counts if leaf in leaves else counts)
    return _of_answers([leaves[leaf] for leaf in sorted(leaves)], says)


def _in_workers(rows: DataFrame, count: Callable[[Iterable[pa.RecordBatch]], Any]) -> List[Any]:
    """What `count` makes of each partition's rows, in the order of the partitions."""

    def told(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        found = pickle.dumps(count(batch for batch in batches if batch.num_rows))
        offsets = pa.py_buffer(np.array([0, len(found)], dtype=np.int32))
        column = pa.Array.from_buffers(pa.binary(), 1, [None, offsets, pa.py_buffer(found)])
        yield pa.RecordBatch.from_arrays([column], names=["told"])

    # What is unpickled is what our own workers have pickled.
    return [pickle.loads(row[0]) for row in rows.mapInArrow(told, "told binary").collect()]  # noqa: S301


def _by_leaf(batches: Iterable[pa.RecordBatch]) -> Dict[int, Tuple[Any, Floats]]:
    """What each leaf says, and its rows by class. Columns in: leaf, what it says, label by number."""
    found: Dict[int, Tuple[Any, Floats]] = {}
    for batch in batches:
        leaf, says, label = as_numpy(batch.column(0)), _numbers(batch.column(1)), as_numpy(batch.column(2))
        width = says.shape[1] if says.ndim > 1 else 2
        ids, first, place = np.unique(leaf, return_index=True, return_inverse=True)
        counts = np.bincount(place * width + label, minlength=len(ids) * width).reshape(-1, width)
        for own, at, rows in zip(ids.tolist(), first, counts):  # noqa: B905  # not in Python 3.9
            before = found[own][1] if own in found else 0
            found[own] = (says[at].tolist(), before + rows.astype(np.float64))
    return found


def _numbers(column: pa.Array) -> Floats:
    """Doubles, or lists of as many doubles each: rows, or rows x their number."""
    if not pa.types.is_list(column.type):
        return as_numpy(column)
    return as_numpy(column.flatten()).reshape(len(column), -1)


class _ErrorSums:
    """Sums over groups of rows, as in `Errors`. Columns in: group, prediction, label."""

    def __init__(self, centre: float) -> None:
        self.centre = centre

    def __call__(self, batches: Iterable[pa.RecordBatch]) -> Floats:
        sums = np.zeros((GROUPS, 7))
        for batch in batches:
            group, says, label = (as_numpy(column) for column in batch.columns)
            error, off = says - label, label - self.centre
            of_rows = (None, error, np.abs(error), error**2, off, off**2, np.abs(off))
            for i, weights in enumerate(of_rows):
                sums[:, i] += np.bincount(group, weights=weights, minlength=GROUPS)
        return sums


def of_answers(said: Floats, counts: Any) -> Any:
    """The Tally or Table of a classification. `said`: probabilities, or answers x classes; `counts`: answers x classes,
    the rows of each class that got it. An answer may stand there several times."""
    return _tallied(said, counts) if said.ndim == 1 else Table(said, counts.astype(np.float64))


def of_leaves(nodes: Sequence[Dict[str, Any]], counts: Floats) -> Any:
    """The Tally or Table of a classification. `nodes` as in tree.json; `counts`: rows by node's id and class."""
    reached = [node for node in sorted(nodes, key=lambda node: node["id"]) if counts[node["id"]].any()]
    says = PROBABILITY if PROBABILITY in nodes[0] else PROBABILITIES
    return _of_answers([(node[says], counts[node["id"]]) for node in reached], says)


def _of_answers(answers: Sequence[Tuple[Any, Any]], says: str) -> Any:
    """A Tally of (PROBABILITY, counts), a Table of (PROBABILITIES, counts)."""
    if says == PROBABILITY:
        return tally(answers)
    return Table(np.array([says for says, _ in answers]), np.array([counts for _, counts in answers], dtype=np.float64))


def tally(leaves: Sequence[Tuple[float, Any]]) -> Tally:
    """A Tally of (probability, [negative rows, positive rows]); leaves that say the same are put together."""
    said = np.array([probability for probability, _ in leaves], dtype=np.float64)
    return _tallied(said, np.array([counts for _, counts in leaves]).reshape(-1, 2))


def _tallied(said: Floats, counts: Any) -> Tally:
    """`counts`: negative and positive rows of each."""
    probability, place = np.unique(said, return_inverse=True)
    negatives, positives = (np.bincount(place, own, len(probability)).astype(np.float64) for own in counts.T)
    return Tally(probability, negatives + positives, positives)


def constant(probability: float, rows: int, positives: int) -> Tally:
    """What always guessing one probability gives: with the training side's base rate, the baseline of every metric."""
    return Tally(np.array([probability]), np.array([float(rows)]), np.array([float(positives)]))


def baseline(found: Any, train: Any) -> Any:
    """The same rows, always told what the training side is on average. `train`: its counts by class, or its mean.

    The mean is already taken off a regression's labels (`Errors`).
    """
    if isinstance(found, Tally):
        return constant(train[1] / sum(train), found.total, found.total_positives)
    if isinstance(found, Table):
        return Table(np.array([train]) / sum(train), found.counts.sum(axis=0, keepdims=True))
    rows, _, _, _, off, square, absolute = found.groups.T
    return Errors(np.stack([rows, -off, absolute, square, off, square, absolute], axis=1))


# --- From tables to figures ---


def evaluate(found: Any, call: Any = None) -> Figures:
    """Binary: AUC (ties count half), PR-AUC (average precision), log loss (clipped), Brier; and of calling rows
    positive from the threshold `call` on accuracy, precision (None if none is called), recall, F1 and confusion.

    Multiclass: AUC (mean of each class against the rest), log loss, Brier (sum over classes), accuracy, macro F1 and
    confusion (actual x predicted) of the first class with the largest probability, times its weight in `call` if there
    is one. Regression: RMSE, MAE, R2 (against
    the mean of these rows) and bias (mean error).
    """
    if isinstance(found, Tally):
        return _binary(found, THRESHOLD if call is None else call)
    return _multiclass(found, call) if isinstance(found, Table) else _regression(found)


def single(evaluated: Figures, later: Optional[Figures] = None) -> Dict[str, float]:
    """figures.json: the figures that are one number each, on test rows; and those of later rows, as `out_of_time_...`.

    What a run publishes with its model, however many classes.
    """
    told = {name: value for name, value in evaluated.items() if isinstance(value, (int, float))}
    return {**told, **{f"out_of_time_{name}": later[name] for name in told if later and name in later}}


def _binary(counts: Tally, threshold: float) -> Figures:
    p, n, k = counts
    positives, negatives, rows = k.sum(), (n - k).sum(), n.sum()
    hits, called = np.cumsum(k[::-1]), np.cumsum(n[::-1])
    pr_auc = float((hits / called * k[::-1]).sum() / positives)
    clipped = np.clip(p, CLIP, 1 - CLIP)
    says = p >= threshold
    tp, fp = int(k[says].sum()), int((n - k)[says].sum())
    tn, fn = int((n - k)[~says].sum()), int(k[~says].sum())
    return {
        "rows": int(rows),
        "auc": _auc(n - k, k, positives, negatives),
        "pr_auc": pr_auc,
        "log_loss": float(-(k * np.log(clipped) + (n - k) * np.log1p(-clipped)).sum() / rows),
        "brier": float((k * (1 - p) ** 2 + (n - k) * p**2).sum() / rows),
        "accuracy": (tp + tn) / int(rows),
        "precision": tp / (tp + fp) if tp + fp else None,
        "recall": tp / (tp + fn) if tp + fn else None,
        "f1": 2 * tp / (2 * tp + fp + fn) if tp + fp + fn else None,
        "confusion": {"tp": tp, "fp": fp, "tn": tn, "fn": fn},
    }


def _auc(negatives_each: Floats, positives_each: Floats, positives: float, negatives: float) -> float:
    """Both in rising order of the score."""
    below = np.cumsum(negatives_each) - negatives_each
    return float((positives_each * (below + negatives_each / 2)).sum() / (positives * negatives))


def _multiclass(table: Table, weights: Any) -> Figures:
    p, counts = table
    rows, classes = counts.sum(), p.shape[1]
    aucs = []
    for k in range(classes):
        one = _tallied(p[:, k], np.stack([counts.sum(axis=1) - counts[:, k], counts[:, k]], axis=1))
        if 0 < one.total_positives < one.total:
            others = one.rows - one.positives
            aucs.append(_auc(others, one.positives, one.positives.sum(), others.sum()))
    confusion = (np.eye(classes)[called_classes(p, weights)].T @ counts).T
    right, actual, called = np.diag(confusion), confusion.sum(axis=1), confusion.sum(axis=0)
    present = actual + called > 0
    f1 = 2 * right[present] / (actual + called)[present]
    squares = (p**2).sum(axis=1, keepdims=True) - 2 * p + 1
    return {
        "rows": int(rows),
        "auc": float(np.mean(aucs)),
        "log_loss": float(-(counts * np.log(np.clip(p, CLIP, 1))).sum() / rows),
        "brier": float((counts * squares).sum() / rows),
        "accuracy": float(right.sum() / rows),
        "macro_f1": float(f1.mean()),
        "confusion": confusion.astype(int).tolist(),
    }


def _regression(errors: Errors) -> Figures:
    rows, error, absolute, squared, off, square, _ = errors.groups.sum(axis=0)
    spread = square - off**2 / rows
    return {
        "rows": int(rows),
        "rmse": float(np.sqrt(squared / rows)),
        "mae": float(absolute / rows),
        "r2": float(1 - squared / spread) if spread > 0 else 0.0,
        "bias": float(error / rows),
    }


def interval(found: Any, task: str, seed: int, by: Sequence[str] = ()) -> Figures:
    """A bootstrap interval of the main metric: what it might have been on other rows of the same kind.

    Classification resamples rows exactly, as a multinomial over leaf x class; a regression resamples groups of rows.
    Rows that are split `by` a column are not independent of each other, which both take them for: `method` says so.
    """
    random = np.random.default_rng(seed)
    if isinstance(found, Errors):
        picks = random.multinomial(len(found.groups), np.full(len(found.groups), 1 / len(found.groups)), RESAMPLES)
        sums = picks @ found.groups
        drawn = np.sqrt(sums[:, 3] / sums[:, 0])
        method = f"bootstrap of {len(found.groups):,} groups of rows, {RESAMPLES:,} times"
    else:
        if isinstance(found, Tally):
            clipped = np.clip(found.probability, CLIP, 1 - CLIP)
            loss = -np.concatenate([np.log1p(-clipped), np.log(clipped)])
            cells = np.concatenate([found.rows - found.positives, found.positives])
        else:
            loss, cells = -np.log(np.clip(found.probabilities, CLIP, 1)).ravel(), found.counts.ravel()
        loss, cells = _few(loss, cells)
        drawn = random.multinomial(int(cells.sum()), cells / cells.sum(), RESAMPLES) @ loss / cells.sum()
        method = f"bootstrap of the rows, {RESAMPLES:,} times"
    if by:
        method += f", as if those of one {', '.join(by)} had nothing in common: too narrow"
    low, high = np.quantile(drawn, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return {"metric": MAIN[task], "low": float(low), "high": float(high), "level": LEVEL, "method": method}


def _few(loss: Floats, cells: Floats) -> Tuple[Floats, Floats]:
    """Of more losses than COSTLY those of as many steps between the least and the largest, each with the mean of its
    own: the mean of all rows stays, and of their variance no more is lost than that of a step."""
    if len(cells) <= COSTLY:
        return loss, cells
    known = cells > 0
    loss, cells = loss[known], cells[known]
    if len(cells) <= COSTLY:
        return loss, cells
    step = ((loss - loss.min()) / ((loss.max() - loss.min()) or 1.0) * (COSTLY - 1)).astype(int)
    rows, sums = (np.bincount(step, of).astype(np.float64) for of in (cells, cells * loss))
    return sums[rows > 0] / rows[rows > 0], rows[rows > 0]


def roc(counts: Tally) -> List[Tuple[float, float]]:
    """The ROC curve as (false positive rate, true positive rate), from (0, 0) to (1, 1), thinned to ROC_POINTS."""
    _, n, k = counts
    tpr = np.concatenate([[0.0], np.cumsum(k[::-1]) / k.sum()])
    fpr = np.concatenate([[0.0], np.cumsum((n - k)[::-1]) / (n - k).sum()])
    kept = np.unique(np.linspace(0, len(tpr) - 1, min(len(tpr), ROC_POINTS)).round().astype(int))
    return [(float(fpr[i]), float(tpr[i])) for i in kept]


def lift(counts: Tally) -> List[Dict[str, float]]:
    """Of the rows with the largest probabilities: which share is positive, and how many times the base rate that is.

    `share` is of all rows; a leaf on the border is taken in part, as if its rows came in random order.
    """
    _, n, k = (part[::-1] for part in counts)
    rows, positives = n.sum(), k.sum()
    taken, hits = np.concatenate([[0.0], np.cumsum(n)]), np.concatenate([[0.0], np.cumsum(k)])
    table = []
    for share in LIFT_SHARES:
        found = float(np.interp(share * rows, taken, hits))
        rate = found / (share * rows)
        row = {"share": share, "rows": round(share * rows), "rate": rate, "lift": rate / (positives / rows)}
        table.append({**row, "found": found / positives})
    return table


def calibration(counts: Tally) -> List[Dict[str, float]]:
    """Mean predicted and observed share in groups of about a tenth of the rows; rows of one leaf stay together."""
    p, n, k = counts
    middle = (np.cumsum(n) - n / 2) / n.sum()
    group = np.minimum((middle * CALIBRATION_BINS).astype(int), CALIBRATION_BINS - 1)
    table = []
    for g in np.unique(group):
        own = group == g
        rows = n[own].sum()
        predicted, observed = float((p[own] * n[own]).sum() / rows), float(k[own].sum() / rows)
        table.append({"predicted": predicted, "observed": observed, "rows": int(rows)})
    return table


def confidence(table: Table, weights: Any = None) -> Tally:
    """Of a multiclass table the predicted class alone: its probability, and how often it came true."""
    best = called_classes(table.probabilities, weights)
    each = np.arange(len(best))
    right = table.counts[each, best]
    wrong = table.counts.sum(axis=1) - right
    return _tallied(table.probabilities[each, best], np.stack([wrong, right], axis=1))


def value_calibration(scored: DataFrame, label: Column) -> List[Dict[str, float]]:
    """Regression: mean predicted and observed label in groups of about a tenth of the rows, leaves kept whole."""
    if LEAF not in scored.columns:  # several trees: as many values as rows
        edges = scored.approxQuantile(PREDICTION, [i / CALIBRATION_BINS for i in range(1, CALIBRATION_BINS)], 0.001)
        group = sum((F.when(F.col(PREDICTION) > edge, 1).otherwise(0) for edge in sorted(set(edges))), F.lit(0))
        figures = [F.avg(PREDICTION).alias("p"), F.avg(label).alias("k"), F.count("*").alias("n")]
        groups = scored.groupBy(group.alias("g")).agg(*figures).orderBy("g").collect()
        return [{"predicted": row["p"], "observed": row["k"], "rows": row["n"]} for row in groups]
    rows = scored.select(LEAF, PREDICTION, label.cast("double").alias(LABEL))
    leaves: Dict[int, Tuple[float, Floats]] = {}
    for told in _in_workers(rows, _labels_by_leaf):
        for leaf, (says, sums) in told.items():
            leaves[leaf] = (says, leaves[leaf][1] + sums if leaf in leaves else sums)
    ordered = sorted((says, leaf, *sums) for leaf, (says, sums) in leaves.items())
    p, _, n, k = np.array(ordered, dtype=np.float64).T
    return calibration(Tally(p, n, k))


def _labels_by_leaf(batches: Iterable[pa.RecordBatch]) -> Dict[int, Tuple[float, Floats]]:
    """What each leaf says, its rows and the sum of their labels. Columns in: leaf, prediction, label."""
    found: Dict[int, Tuple[float, Floats]] = {}
    for batch in batches:
        leaf, says, label = (as_numpy(column) for column in batch.columns)
        ids, first, place = np.unique(leaf, return_index=True, return_inverse=True)
        sums = np.stack([np.bincount(place), np.bincount(place, weights=label)], axis=1)
        for own, at, of_leaf in zip(ids.tolist(), first, sums):  # noqa: B905  # not in Python 3.9
            found[own] = (float(says[at]), found[own][1] + of_leaf if own in found else of_leaf)
    return found


def slices(
    scored: DataFrame, task: str, label: Column, columns: Sequence[str], average: Any, call: Any = None
) -> Figures:
    """The main metric and accuracy (or MAE) in each of a column's SLICE_VALUES most frequent values, the rest together.

    `average`: the training side's share of positives, shares of the classes, or mean: what the baseline guesses.
    Columns in: what `tree.score` adds, those of `label`, and `columns`.
    """
    if not columns:
        return {}
    says = {"binary": PROBABILITY, "regression": PREDICTION}.get(task, PROBABILITIES)
    values = [F.coalesce(F.col(name).cast("string"), F.lit("missing")) for name in columns]
    texts = [value.alias(f"_value{i}") for i, value in enumerate(values)]
    rows = scored.select(says, label.cast("double" if task == "regression" else "int").alias(LABEL), *texts)
    found = _sums_of_slices(rows, _SliceSums(task, average, [None] * len(columns), call))
    if crowded := [i for i, sums in enumerate(found) if sums is None]:
        named: List[Optional[List[str]]] = [None if sums is None else [] for sums in found]
        for i in crowded:
            text = F.col(f"_value{i}")
            top = rows.groupBy(text).count().orderBy(F.desc("count"), text).limit(SLICE_VALUES)
            named[i] = [row[0] for row in top.collect()]
        again = _sums_of_slices(rows, _SliceSums(task, average, named, call))
        found = [again[i] if sums is None else sums for i, sums in enumerate(found)]
    return {name: _slice(sums or {}, task, average) for name, sums in zip(columns, found)}  # noqa: B905


def _sums_of_slices(rows: DataFrame, counting: "_SliceSums") -> List[Optional[Dict[str, Floats]]]:
    """Of each column the sums by value; None if it has too many values."""
    every = _in_workers(rows, counting)
    found: List[Optional[Dict[str, Floats]]] = []
    for of_column in zip(*every):  # noqa: B905  # not in Python 3.9
        sums: Dict[str, Floats] = {}
        for own in of_column:
            for value, added in (own or {}).items():
                sums[value] = sums[value] + added if value in sums else added
        found.append(None if any(own is None for own in of_column) else sums)
    return found or [{} for _ in counting.named]


class _SliceSums:
    """By each value of each column: rows, then sums over them. Columns in: what is said, label, the columns as text.

    Classification: loss, those that are right, rows by class. Regression: label, error's square and size, naive error's
    square. `named`: of a column the values to look at, others together; None: all, and None is told if they are many.
    """

    def __init__(self, task: str, average: Any, named: Sequence[Optional[Sequence[str]]], call: Any = None) -> None:
        self.task, self.average, self.most, self.call = task, average, MANY_VALUES, call
        self.named = [None if names is None else set(names) for names in named]

    def __call__(self, batches: Iterable[pa.RecordBatch]) -> List[Optional[Dict[str, Floats]]]:
        found: List[Optional[Dict[str, Floats]]] = [{} for _ in self.named]
        for batch in batches:
            of_rows = self._of_rows(_numbers(batch.column(0)), as_numpy(batch.column(1)))
            for i, names in enumerate(self.named):
                sums = found[i]
                if sums is None:
                    continue
                texts = batch.column(2 + i).dictionary_encode()
                values, place = texts.dictionary.to_pylist(), as_numpy(texts.indices)
                added = [np.bincount(place, weights=weights, minlength=len(values)) for weights in of_rows]
                for value, own in zip(values, np.stack(added, axis=1)):  # noqa: B905  # not in Python 3.9
                    name = value if names is None or value in names else OTHERS
                    sums[name] = sums[name] + own if name in sums else own
                if names is None and len(sums) > self.most:
                    found[i] = None
        return found

    def _of_rows(self, says: Floats, label: NDArray[Any]) -> List[Any]:
        if self.task == "regression":
            error, naive = says - label, self.average - label
            return [None, label, error**2, np.abs(error), naive**2]
        if self.task == "binary":
            right, classes = (says >= (THRESHOLD if self.call is None else self.call)) == label, 2
            said = np.where(label == 1, says, 1 - says)
        else:
            right, classes = called_classes(says, self.call) == label, says.shape[1]
            said = says[np.arange(len(label)), label]
        return [None, -np.log(np.maximum(said, CLIP)), right, *[label == k for k in range(classes)]]


def _slice(sums: Dict[str, Floats], task: str, average: Any) -> List[Figures]:
    """The figures of one column, the most frequent value first."""
    order = sorted(sums.keys() - {OTHERS}, key=lambda value: (-sums[value][0], value))
    together = {value: sums[value] for value in order[:SLICE_VALUES]}
    for value in [*order[SLICE_VALUES:], *sums.keys() & {OTHERS}]:
        together[OTHERS] = together[OTHERS] + sums[value] if OTHERS in together else sums[value]
    return [{"value": value, **_slice_figures(own, task, average)} for value, own in together.items()]


def _slice_figures(sums: Floats, task: str, average: Any) -> Figures:
    rows, *others = sums.tolist()
    if task == "regression":
        label, squared, absolute, naive = others
        figures = {"mean": label, "rmse": squared, "mae": absolute, "baseline": naive}
        told = {name: value / rows for name, value in figures.items()}
        return {"rows": int(rows), **told, "rmse": told["rmse"] ** 0.5, "baseline": told["baseline"] ** 0.5}
    loss, right, *counts = others
    shares = [1 - average, average] if task == "binary" else average
    naive = -sum(count * math.log(max(share, CLIP)) for count, share in zip(counts, shares) if count)  # noqa: B905
    rate = {"rate": counts[1] / rows} if task == "binary" else {}
    return {"rows": int(rows), **rate, "log_loss": loss / rows, "accuracy": right / rows, "baseline": naive / rows}
