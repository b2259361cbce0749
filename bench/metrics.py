"""How good probabilities are: one function for every contender but ours, which has its own (jobs/judges/metrics.py)."""

from typing import Any

import numpy as np
from numpy.typing import ArrayLike

CLIP = 1e-15


def evaluate(label: ArrayLike, probability: ArrayLike, weight: ArrayLike | None = None) -> dict[str, Any]:
    """Rows, positives, AUC (ties count half) and log loss (clipped) of rows with labels 0 or 1, each counted `weight`
    times."""
    y, p = np.asarray(label, np.float64), np.asarray(probability, np.float64)
    n = np.ones_like(p) if weight is None else np.asarray(weight, np.float64)
    values, group = np.unique(p, return_inverse=True)
    positives = np.bincount(group, n * y, len(values))
    negatives = np.bincount(group, n * (1 - y), len(values))
    below = np.cumsum(negatives) - negatives
    clipped = np.clip(values, CLIP, 1 - CLIP)
    return {
        "rows": int(n.sum()),
        "positives": int(positives.sum()),
        "auc": float((positives * (below + negatives / 2)).sum() / (positives.sum() * negatives.sum())),
        "log_loss": float(-(positives * np.log(clipped) + negatives * np.log1p(-clipped)).sum() / n.sum()),
    }
