"""How good predictions are, exactly, from small tables: what a leaf says, against what its rows turned out to be.

A tree says as many things as it has leaves, so one `groupBy` holds all that the metrics need, ties included; Spark's
evaluator bins the curve and keeps no ties. Every function here but `outcomes` and `slices` is plain NumPy.
"""

from typing import Any, Dict, List, NamedTuple, Optional, Sequence, Tuple

import numpy as np
from numpy.typing import NDArray
from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from jobs.models.tasks import CLIP, LEAF, MAIN, PREDICTION, PROBABILITIES, PROBABILITY, THRESHOLD

ROC_POINTS, CALIBRATION_BINS = 200, 10
LIFT_SHARES = (0.01, 0.05, 0.1, 0.2, 0.3, 0.5)
RESAMPLES, LEVEL = 1000, 0.95
GROUPS = 1000  # of a regression's rows, by hash of the key: what its interval resamples
SLICE_VALUES = 20
COSTLY = 20_000  # cells, beyond which to draw RESAMPLES times from each takes minutes and gigabytes

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
        error, off = F.col(PREDICTION) - F.col("y"), F.col("y") - F.lit(centre)
        group = F.pmod(F.xxhash64(*keys), F.lit(GROUPS))
        sums = [
            F.count("*"),
            F.sum(error),
            F.sum(F.abs(error)),
            F.sum(error**2),
            F.sum(off),
            F.sum(off**2),
            F.sum(F.abs(off)),
        ]
        found = scored.withColumn("y", label).groupBy(group.alias("g")).agg(*sums).orderBy("g").collect()
        return Errors(np.array([tuple(row)[1:] for row in found], dtype=np.float64).reshape(-1, len(sums)))
    says = PROBABILITY if task == "binary" else PROBABILITIES
    counted = scored.groupBy(LEAF, says, label.alias("y")).agg(F.count("*").alias("rows")).collect()
    leaves: Dict[int, Any] = {}
    for row in counted:
        width = 2 if task == "binary" else len(row[says])
        leaves.setdefault(row[LEAF], (row[says], np.zeros(width)))[1][row["y"]] += row["rows"]
    return _of_answers([leaves[leaf] for leaf in sorted(leaves)], says)


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


def evaluate(found: Any) -> Figures:
    """Binary: AUC (ties count half), PR-AUC (average precision), log loss (clipped), Brier, accuracy, confusion at 0.5.

    Multiclass: AUC (mean of each class against the rest), log loss, Brier (sum over classes), accuracy, macro F1 and
    confusion (actual x predicted) of the first class with the largest probability. Regression: RMSE, MAE, R2 (against
    the mean of these rows) and bias (mean error).
    """
    if isinstance(found, Tally):
        return _binary(found)
    return _multiclass(found) if isinstance(found, Table) else _regression(found)


def single(evaluated: Figures, later: Optional[Figures] = None) -> Dict[str, float]:
    """figures.json: the figures that are one number each, on test rows; and those of later rows, as `out_of_time_...`.

    What a run publishes with its model, however many classes.
    """
    told = {name: value for name, value in evaluated.items() if isinstance(value, (int, float))}
    return {**told, **{f"out_of_time_{name}": later[name] for name in told if later and name in later}}


def _binary(counts: Tally) -> Figures:
    p, n, k = counts
    positives, negatives, rows = k.sum(), (n - k).sum(), n.sum()
    hits, called = np.cumsum(k[::-1]), np.cumsum(n[::-1])
    pr_auc = float((hits / called * k[::-1]).sum() / positives)
    clipped = np.clip(p, CLIP, 1 - CLIP)
    says = p >= THRESHOLD
    tp, fp = int(k[says].sum()), int((n - k)[says].sum())
    tn, fn = int((n - k)[~says].sum()), int(k[~says].sum())
    return {
        "rows": int(rows),
        "auc": _auc(n - k, k, positives, negatives),
        "pr_auc": pr_auc,
        "log_loss": float(-(k * np.log(clipped) + (n - k) * np.log1p(-clipped)).sum() / rows),
        "brier": float((k * (1 - p) ** 2 + (n - k) * p**2).sum() / rows),
        "accuracy": (tp + tn) / int(rows),
        "confusion": {"tp": tp, "fp": fp, "tn": tn, "fn": fn},
    }


def _auc(negatives_each: Floats, positives_each: Floats, positives: float, negatives: float) -> float:
    """Both in rising order of the score."""
    below = np.cumsum(negatives_each) - negatives_each
    return float((positives_each * (below + negatives_each / 2)).sum() / (positives * negatives))


def _multiclass(table: Table) -> Figures:
    p, counts = table
    rows, classes = counts.sum(), p.shape[1]
    aucs = []
    for k in range(classes):
        one = _tallied(p[:, k], np.stack([counts.sum(axis=1) - counts[:, k], counts[:, k]], axis=1))
        if 0 < one.total_positives < one.total:
            others = one.rows - one.positives
            aucs.append(_auc(others, one.positives, one.positives.sum(), others.sum()))
    confusion = (np.eye(classes)[p.argmax(axis=1)].T @ counts).T
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
    known = cells > 0
    if known.sum() <= COSTLY:
        return loss, cells
    loss, cells = loss[known], cells[known]
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


def confidence(table: Table) -> Tally:
    """Of a multiclass table the predicted class alone: its probability, and how often it came true."""
    best = table.probabilities.argmax(axis=1)
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
    told = scored.groupBy(LEAF, PREDICTION).agg(F.count("*").alias("n"), F.sum(label).alias("k")).collect()
    ordered = sorted((row[PREDICTION], row[LEAF], row["n"], row["k"]) for row in told)
    p, _, n, k = np.array(ordered, dtype=np.float64).T
    return calibration(Tally(p, n, k))


def slices(scored: DataFrame, task: str, label: Column, columns: Sequence[str], average: Any) -> Figures:
    """The main metric and accuracy (or MAE) in each of a column's SLICE_VALUES most frequent values, the rest together.

    `average`: the training side's share of positives, shares of the classes, or mean: what the baseline guesses.
    Columns in: what `tree.score` adds, those of `label`, and `columns`.
    """
    y = F.col("_y")
    if task == "regression":
        error, naive = F.col(PREDICTION) - y, F.lit(average) - y
        figures = {
            "mean": F.avg(y),
            "rmse": F.sqrt(F.avg(error**2)),
            "mae": F.avg(F.abs(error)),
            "baseline": F.sqrt(F.avg(naive**2)),
        }
    else:
        if task == "binary":
            p, right = F.col(PROBABILITY), (F.col(PROBABILITY) >= THRESHOLD).cast("int") == y
            said, naive = (
                F.when(y == 1, p).otherwise(1 - p),
                F.when(y == 1, F.lit(average)).otherwise(F.lit(1 - average)),
            )
        else:
            p = F.col(PROBABILITIES)
            right = F.expr(f"array_position({PROBABILITIES}, array_max({PROBABILITIES}))") - 1 == y
            said, naive = F.get(p, y), F.get(F.array(*[F.lit(float(share)) for share in average]), y)
        figures = {
            **({"rate": F.avg(y)} if task == "binary" else {}),
            "log_loss": F.avg(-F.log(F.greatest(said, F.lit(CLIP)))),
            "accuracy": F.avg(right.cast("int")),
            "baseline": F.avg(-F.log(F.greatest(naive, F.lit(CLIP)))),
        }
    labelled = scored.withColumn("_y", label)
    told: Figures = {}
    for column in columns:
        value = F.coalesce(F.col(column).cast("string"), F.lit("missing"))
        top = [
            row[0]
            for row in labelled.groupBy(value).count().orderBy(F.desc("count"), value).limit(SLICE_VALUES).collect()
        ]
        named = F.when(value.isin(top), value).otherwise(F.lit("all others"))
        found = labelled.groupBy(named.alias("value")).agg(
            F.count("*").alias("rows"), *[c.alias(n) for n, c in figures.items()]
        )
        order = {value: i for i, value in enumerate([*top, "all others"])}
        told[column] = sorted((row.asDict() for row in found.collect()), key=lambda row: order[row["value"]])
    return told
