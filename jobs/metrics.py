"""How good probabilities are, exactly, from one small table: rows and positives for each probability a tree gives.

A tree gives as many probabilities as it has leaves, so one `groupBy` holds all that the metrics need, ties included;
Spark's own evaluator bins the curve and keeps no ties.
"""

from typing import Any, Dict, List, NamedTuple, Tuple

import numpy as np
from numpy.typing import NDArray
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

PROBABILITY, THRESHOLD = "probability", 0.5
ROC_POINTS, CALIBRATION_BINS = 200, 10
CLIP = 1e-15  # a leaf of one class says 0 or 1; one wrong row there would make the log loss infinite

Floats = NDArray[np.float64]


class Tally(NamedTuple):
    """Parallel arrays in rising order of probability: rows that got it, and how many of these are positive."""

    probability: Floats
    rows: Floats
    positives: Floats

    @property
    def total(self) -> int:
        return int(self.rows.sum())

    @property
    def total_positives(self) -> int:
        return int(self.positives.sum())


def tally(scored: DataFrame, label: str) -> Tally:
    """Counts the rows by probability. Columns in: `probability` and the label, 0 or 1."""
    counted = scored.groupBy(PROBABILITY).agg(F.count("*").alias("rows"), F.sum(label).alias("positives")).collect()
    ordered = sorted((row[PROBABILITY], row["rows"], row["positives"]) for row in counted)
    return Tally(*np.array(ordered, dtype=np.float64).reshape(-1, 3).T)


def constant(probability: float, rows: int, positives: int) -> Tally:
    """What always guessing one probability gives: with the training side's base rate, the baseline of every metric."""
    return Tally(np.array([probability]), np.array([float(rows)]), np.array([float(positives)]))


def evaluate(counts: Tally) -> Dict[str, Any]:
    """AUC (ties count half), PR-AUC (average precision), log loss (clipped), Brier, accuracy and confusion at 0.5."""
    p, n, k = counts
    positives, negatives, rows = k.sum(), (n - k).sum(), n.sum()
    below = np.cumsum(n - k) - (n - k)
    auc = float((k * (below + (n - k) / 2)).sum() / (positives * negatives))
    hits, called = np.cumsum(k[::-1]), np.cumsum(n[::-1])
    pr_auc = float((hits / called * k[::-1]).sum() / positives)
    clipped = np.clip(p, CLIP, 1 - CLIP)
    says = p >= THRESHOLD
    tp, fp = int(k[says].sum()), int((n - k)[says].sum())
    tn, fn = int((n - k)[~says].sum()), int(k[~says].sum())
    return {
        "rows": int(rows),
        "auc": auc,
        "pr_auc": pr_auc,
        "log_loss": float(-(k * np.log(clipped) + (n - k) * np.log1p(-clipped)).sum() / rows),
        "brier": float((k * (1 - p) ** 2 + (n - k) * p**2).sum() / rows),
        "accuracy": (tp + tn) / int(rows),
        "confusion": {"tp": tp, "fp": fp, "tn": tn, "fn": fn},
    }


def roc(counts: Tally) -> List[Tuple[float, float]]:
    """The ROC curve as (false positive rate, true positive rate), from (0, 0) to (1, 1), thinned to ROC_POINTS."""
    _, n, k = counts
    tpr = np.concatenate([[0.0], np.cumsum(k[::-1]) / k.sum()])
    fpr = np.concatenate([[0.0], np.cumsum((n - k)[::-1]) / (n - k).sum()])
    kept = np.unique(np.linspace(0, len(tpr) - 1, min(len(tpr), ROC_POINTS)).round().astype(int))
    return [(float(fpr[i]), float(tpr[i])) for i in kept]


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
