"""Depth and leaf size by a part of the training side, never by the test side; for datasets with [tune].

One tree a leaf size is grown, as deep as the deepest candidate; cut off at each depth it gives that depth's figures
too, since a tree grown level by level is the same down to there: what is paid for is the leaf sizes, not the depths.
"""

from typing import Any, Dict, List, Sequence

import numpy as np

from jobs.learners import encoding, grow, survey
from jobs.models import tasks
from jobs.tables.arrays import Array
from jobs.tables.settings import Tune


def choose(rows: survey.Survey, fit_on: Sequence[int], held_out: Sequence[int], tuning: Tune) -> Dict[str, Any]:
    """`chosen`: depth and min_leaf; `metric`, `rows` {fitted, validated}, and `tried`: the metric of each combination.

    `fit_on`, `held_out`: the parts of `rows` to learn from and to choose by. Of equal figures the shallower tree
    with the larger leaves is chosen. Raises JobError if one of them has one label only.
    """
    settings, classes = rows.settings, rows.classes
    fitted, held = rows.labels(fit_on), rows.labels(held_out)
    encoding.require_variety(fitted, settings, "the part of the training side to learn from")
    encoding.require_variety(held, settings, "the validation part of the training side")
    learned = rows.learn(fit_on)
    blocks, validation = (rows.code(parts, learned).persist(grow.KEPT) for parts in (fit_on, held_out))
    tried: List[Dict[str, Any]] = []
    for min_leaf in sorted(set(tuning.min_leaves)):
        nodes = grow.grow(blocks, learned.bins, classes, depth=max(tuning.depths), min_leaf=min_leaf)
        seen = grow.node_totals(blocks, nodes, classes)
        unseen = grow.summed_up(nodes, grow.leaf_counts(validation, nodes, classes))
        says = grow.smoothed(nodes, seen, classes, settings.training.smoothing)
        for depth in sorted(set(tuning.depths)):
            ends = [node.id for node in nodes if node.depth == depth or (node.depth < depth and node.feature < 0)]
            figure = _loss(says[ends], unseen[ends], classes, learned)
            tried.append({"depth": depth, "min_leaf": min_leaf, tasks.MAIN[settings.task]: figure})
    blocks.unpersist()
    validation.unpersist()
    main = tasks.MAIN[settings.task]
    best = min(tried, key=lambda one: (one[main], one["depth"], -one["min_leaf"]))
    return {
        "chosen": {"depth": best["depth"], "min_leaf": best["min_leaf"]},
        "metric": main,
        "rows": {"fitted": fitted.rows, "validated": held.rows},
        "tried": tried,
    }


def _loss(says: Array, unseen: Array, classes: int, learned: encoding.Learned) -> float:
    """Log loss, or RMSE, of the rows `unseen` (as of `grow.leaf_counts`) if each leaf says `says`."""
    if classes:
        return float(-(unseen * np.log(np.clip(says, tasks.CLIP, 1))).sum() / unseen.sum())
    assert learned.point is not None  # noqa: S101  # a regression has one
    rows, total, squares = unseen.T
    squared = (squares - 2 * says * total + rows * says**2).sum() / rows.sum()
    return float(np.sqrt(max(squared, 0.0)) * learned.point.step)
