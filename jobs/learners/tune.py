"""Depth and leaf size by a part of the training side, never by the test side; for datasets that leave them open.

One tree a leaf size is grown, as deep as the deepest candidate; cut off at each depth it gives that depth's figures
too, since a tree grown level by level is the same down to there: what is paid for is the leaf sizes, not the depths.
Few rows are brought to the driver, which grows all trees by itself, without a Spark job for each of them. Of many rows
a sample is, by which most leaf sizes drop out before all rows are asked, unless it is too small to tell of them.
"""

from math import ceil, log2
from typing import Any, Dict, List, Sequence, Tuple

import numpy as np

from jobs.learners import encoding, grow, survey
from jobs.models import tasks
from jobs.tables.arrays import Array
from jobs.tables.settings import Dataset, Task, Tune

# A run's own lists: leaf sizes of which ten leaves or more are left, and depths.
MIN_LEAVES, LEAST_LEAVES, DEEPEST = (1, 3, 10, 30, 100, 300, 1000, 3000, 10_000), 10, 20
# A share is not told by a few rows of many: of so many rows, a binary task's leaves have ten or more.
MANY_ROWS = 20_000
# What the counts of as many nodes as leaves fit may have, in cells: beyond that, small leaves would take minutes.
MOST_CELLS = 200_000_000
# What a tree's nodes may weigh on the driver, whose Python has 1 GB for all that it does (stacks/emr.py): of each node
# its counts, its rows of either part and what it says, 8 bytes for each class; and two nodes for each leaf that fits.
NODE_BYTES = 256 * 1024**2
# What the driver grows trees from, at most: rows to learn from, and cells (a byte each) of them.
ON_DRIVER_ROWS, ON_DRIVER_CELLS = 200_000, 20_000_000
# A sample tells of leaf sizes if it holds as many leaves of the largest, and as many rows of the rarest class.
SAMPLED_LEAVES, SAMPLED_RARE = 10, 300


def choose(rows: survey.Survey, fit_on: Sequence[int], held_out: Sequence[int], tuning: Tune) -> Dict[str, Any]:
    """`chosen`: depth and min_leaf; `metric`, `rows` {fitted, validated}, `tried`: the metric of each combination; and
    `sample`: of how many rows those were tried that `tried` says were `sampled`, 0 if none was.

    `fit_on`, `held_out`: the parts of `rows` to learn from and to choose by. Of equal figures the shallower tree
    with the larger leaves is chosen. Raises JobError if one of them has too few rows, or one label only.
    """
    settings, main = rows.settings, tasks.MAIN[rows.settings.task]
    fitted, held = rows.labels(fit_on), rows.labels(held_out)
    way_out = _way_out(settings)
    encoding.require_parts(fitted, held, settings, "depth and leaf size", way_out)
    learned, weighed = rows.learn(fit_on), bool(settings.training.weights)
    depths, min_leaves = grid(tuning, settings.task, fitted.rows, sum(learned.bins), rows.classes, weighed)
    most = min(ON_DRIVER_ROWS, ON_DRIVER_CELLS // len(learned.bins))
    parts, sampled = (fit_on, held_out), []
    if fitted.rows <= most:
        tried = _tried_here(rows, parts, learned, most, depths, min_leaves)
    else:
        share = min(most / fitted.rows, 1.0)
        rarest = min(fitted.counts) * share if settings.task != "regression" else float("inf")
        if len(min_leaves) > 3 and most >= SAMPLED_LEAVES * max(min_leaves) and rarest >= SAMPLED_RARE:
            found_here = _tried_here(rows, parts, learned, most, depths, min_leaves)
            place = min_leaves.index(_best(found_here, main)["min_leaf"])
            min_leaves = min_leaves[max(place - 1, 0) : place + 2]
            sampled = [{**one, "sampled": True} for one in found_here if one["min_leaf"] not in min_leaves]
        tried = _tried(rows, parts, learned, depths, min_leaves)
    chosen = _best(tried, main)
    return {
        "chosen": {"depth": chosen["depth"], "min_leaf": chosen["min_leaf"]},
        "metric": main,
        "rows": {"fitted": fitted.rows, "validated": held.rows},
        "sample": most if sampled else 0,
        "tried": sorted([*sampled, *tried], key=lambda one: (one["min_leaf"], one["depth"])),
    }


def grid(
    tuning: Tune, task: Task, rows: int, bins: int, classes: int, weighed: bool = False
) -> Tuple[List[int], List[int]]:
    """Depths and leaf sizes to try for so many rows to learn from, each rising: those that are set, or a wide list.

    `bins`: of all features together; a node is counted by its bins and the classes that its rows are of, or by all
    classes if they are `weighed` (see `grow.Rules.by_few_classes`). A leaf size is left out if its leaves' counts would
    take minutes, or its nodes fill the driver's memory.
    """
    deepest = min(DEEPEST, max(1, ceil(2 * log2(rows))))
    least = 10 if task == "binary" and rows >= MANY_ROWS else 1

    def cells(size: float) -> float:
        return bins * ((classes or 2) if weighed or not classes else min(classes, max(2 * size, grow.FEW_CLASSES)))

    node_bytes = 2 * rows * (classes or 2) * 8 * 4  # of leaves of one row each

    def fits(size: float) -> bool:
        return size >= least and rows / size * cells(size) <= MOST_CELLS and node_bytes / size <= NODE_BYTES

    smallest = max(rows * bins * (classes or 2) / MOST_CELLS, node_bytes / NODE_BYTES, least)
    sizes = [size for size in MIN_LEAVES if fits(size) and size <= rows / LEAST_LEAVES] or [ceil(smallest)]
    return sorted(set(tuning.depths or range(1, deepest + 1))), sorted(set(tuning.min_leaves or sizes))


def _way_out(settings: Dataset) -> str:
    other = "move time.cut to a later day" if settings.time else "set another tune.validation_share"
    fixed = f"set training.depth and training.min_leaf in {settings.file} and leave out [tune]"
    if settings.training.learner == "best":
        fixed = f'name one in training.learner of {settings.file} instead of "best", and set what it needs'
    return f"Give more rows, {other}, or {fixed}."


def _best(tried: Sequence[Dict[str, Any]], main: str) -> Dict[str, Any]:
    return min(tried, key=lambda one: (one[main], one["depth"], -one["min_leaf"]))


Parts = Tuple[Sequence[int], Sequence[int]]  # to learn from, and to choose by


def _tried_here(
    rows: survey.Survey,
    parts: Parts,
    learned: encoding.Learned,
    most: int,
    depths: Sequence[int],
    min_leaves: Sequence[int],
) -> List[Dict[str, Any]]:
    """The figures of each combination, by trees that the driver grows from so many rows at most."""
    block, validation = rows.collected(parts, learned, most)
    tried: List[Dict[str, Any]] = []
    weights, by_row = rows.weights(parts[0]), rows.by_row(parts[0])
    for min_leaf in min_leaves:
        nodes = grow.grow_here(
            block, learned.bins, rows.classes, depth=max(depths), min_leaf=min_leaf, weights=weights, by_row=by_row
        )
        route = grow.Route.of(nodes)
        seen, unseen = (
            grow.summed_up(nodes, grow.leaf_counts_here(of, route, rows.classes, each))
            for of, each in ((block, by_row), (validation, None))  # what is measured counts each row once
        )
        tried += _figures(rows, learned, nodes, seen, unseen, depths, min_leaf)
    return tried


def _tried(
    rows: survey.Survey, parts: Parts, learned: encoding.Learned, depths: Sequence[int], min_leaves: Sequence[int]
) -> List[Dict[str, Any]]:
    """The same by trees that Spark grows, from all rows."""
    blocks, validation = (rows.code(own, learned).persist(grow.KEPT) for own in parts)
    tried: List[Dict[str, Any]] = []
    weights, by_row = rows.weights(parts[0]), rows.by_row(parts[0])
    for min_leaf in min_leaves:
        nodes = grow.grow(
            blocks, learned.bins, rows.classes, depth=max(depths), min_leaf=min_leaf, weights=weights, by_row=by_row
        )
        seen = grow.node_totals(blocks, nodes, rows.classes, by_row)
        unseen = grow.summed_up(nodes, grow.leaf_counts(validation, nodes, rows.classes))
        tried += _figures(rows, learned, nodes, seen, unseen, depths, min_leaf)
    blocks.unpersist()
    validation.unpersist()
    return tried


def _figures(
    rows: survey.Survey,
    learned: encoding.Learned,
    nodes: Sequence[grow.Node],
    seen: Array,
    unseen: Array,
    depths: Sequence[int],
    min_leaf: int,
) -> List[Dict[str, Any]]:
    """The main metric of a tree cut off at each depth. `seen`, `unseen`: what rows add up to in each node."""
    settings, classes = rows.settings, rows.classes
    says = grow.smoothed(nodes, seen, classes, settings.training.smoothing)
    told = []
    for depth in depths:
        ends = [node.id for node in nodes if node.depth == depth or (node.depth < depth and node.feature < 0)]
        figure = _loss(says[ends], unseen[ends], classes, learned)
        told.append({"depth": depth, "min_leaf": min_leaf, tasks.MAIN[settings.task]: figure})
    return told


def _loss(says: Array, unseen: Array, classes: int, learned: encoding.Learned) -> float:
    """Log loss, or RMSE, of the rows `unseen` (as of `grow.leaf_counts`) if each leaf says `says`."""
    if classes:
        return float(-(unseen * np.log(np.clip(says, tasks.CLIP, 1))).sum() / unseen.sum())
    assert learned.point is not None  # noqa: S101  # a regression has one
    rows, total, squares = unseen.T
    squared = (squares - 2 * says * total + rows * says**2).sum() / rows.sum()
    return float(np.sqrt(max(squared, 0.0)) * learned.point.step)
