"""Grows a decision tree on Spark from binned rows; train.py calls it on the cluster.

MLlib's own trainer merges sibling leaves that predict the same class, and with them goes the ranking (SPARK-3159; no
switch in 3.5), and much of its time goes into objects, one a row. This one keeps a partition's rows as one array of bin
numbers, a byte a value, and counts with NumPy. What it makes is an ordinary tree, saved as MLlib's
(jobs/models/tree.py).

Rows never leave the executors: what comes back is the best split of each node and feature. Counts and sums are whole
numbers (see `FixedPoint`), so the tree does not depend on the order in which partitions are added up, on how many there
are, or on an executor that died half-way.

The split is that of CART (Breiman et al. 1984) and of MLlib: the largest decrease of Gini's impurity or of the
variance, with `min_leaf` rows or more on both sides; of equal ones the first feature's lowest threshold. Classes may be
weighted: shares are then of weights, while `min_leaf` and all that is told are of rows. Rows may be weighted, each by
its own: what nodes say is then of weights as well, and a row that weighs three counts as three rows that are alike,
but for `min_leaf`.
"""

import heapq
import uuid
from dataclasses import dataclass, replace
from functools import partial
from math import ceil, floor, log2
from typing import Any, Callable, Dict, Iterable, Iterator, List, NamedTuple, Optional, Sequence, Tuple

import numpy as np
from pyspark import RDD, StorageLevel

from jobs.tables.arrays import Array

KEPT = StorageLevel.MEMORY_AND_DISK
# What the counts of one pass may weigh on one executor; a level with more nodes than fit is done in turns.
PASS_BYTES = 256 * 1024**2
# What the counts of all tasks may weigh together to be added up on the driver, which spares a shuffle.
DRIVER_BYTES = 32 * 1024**2
# A node of fewer rows is always one task's: a Spark job for each of its levels would cost more than its rows.
ONE_TASK_ROWS = 50_000
ROW_BYTES = 48  # of a row in a task that grows a node by itself, apart from its bin numbers: places and indices
# Of more classes a task counts in each node only those that its rows are of: deep down they are few of many.
FEW_CLASSES = 16
# A side of a split, in whole weights (`RowWeights`), of which all rows together have 2**49 or more.
LIGHTEST = 2**20
SMALLEST_GAIN = 1e-12  # of the root's impurity: less is the rounding of a sum

Split = Tuple[float, int, int, Array]  # gain, feature, bin, and the counts that go left


class FixedPoint(NamedTuple):
    """A regression's labels as whole numbers of `step` from `zero`, so fine that a sum of all of them is still exact.

    Whole numbers up to 2**53 are exact in double arithmetic, whatever the order in which they are added: a label keeps
    13 digits of the labels' range among some hundred rows, 9 among ten million.
    """

    zero: float
    step: float

    @classmethod
    def for_labels(cls, low: float, high: float, rows: int) -> "FixedPoint":
        zero = low / 2 + high / 2
        largest = max(high - zero, zero - low) or 1.0
        return cls(zero, 2.0 ** (ceil(log2(largest)) + ceil(log2(rows + 1)) - 52))

    def round(self, labels: Array) -> Array:
        return np.rint((labels - self.zero) / self.step)

    def sum(self, rows: Any, total: Any) -> Any:
        """The sum of the labels of `rows` rows whose rounded labels add up to `total`; numbers or arrays of them."""
        return rows * self.zero + total * self.step


class Block(NamedTuple):
    """Some rows. `codes`: features x rows, the bin of each value. `label`: the class's number, or the rounded label.
    `weight`: of each row, if a column says it."""

    codes: Array
    label: Array
    weight: Optional[Array] = None

    def take(self, rows: Any) -> "Block":
        """Some of them, by their places."""
        weight = None if self.weight is None else self.weight[rows]
        return Block(self.codes.take(rows, axis=1), self.label[rows], weight)

    @classmethod
    def joined(cls, blocks: "Sequence[Block]") -> "Block":
        """The rows of all, which are one or more."""
        codes, label, weight = zip(*blocks)  # noqa: B905  # not in Python 3.9
        weights = None if weight[0] is None else np.concatenate(weight)
        return cls(np.concatenate(codes, axis=1), np.concatenate(label), weights)


class RowWeights(NamedTuple):
    """Weights of single rows as whole numbers, so that their sums are exact as well: weight * unit / step, rounded.

    `unit` and `step` are powers of two: whole weights lose nothing. `mean`: of the rows that are learned from; times
    `unit` it is 1 or more and below 2. What weighs less than a 2**52th of all rows together counts as if it did, and
    no side of a split weighs less than LIGHTEST: of so little the label's own rounding would be most of what is told.
    """

    mean: float
    unit: float
    step: float

    @classmethod
    def of(cls, mean: float, rows: int) -> "RowWeights":
        return cls(mean, 2.0 ** -floor(log2(mean)), 2.0 ** (ceil(log2(rows + 1)) + 1 - 52))

    def whole(self, block: Block, classes: int) -> Block:
        """The block with whole weights; and, of a regression, rounded labels times weight * unit for labels.

        Both are less than 2**53 in all, since `FixedPoint` leaves a label 2**52 / rows at most.
        """
        assert block.weight is not None  # noqa: S101  # a column says it
        weight = np.maximum(np.rint(block.weight * self.unit / self.step), 1)
        label = block.label if classes else np.rint(block.label * (weight * self.step)).astype(np.int64)
        return Block(block.codes, label, weight)

    def even(self, sums: Array, classes: int) -> Array:
        """What sums of whole weights come to for weights of a mean of 1; the last column, which is of rows, stays."""
        of_weights, of_labels = self.step / (self.unit * self.mean), 1 / (self.unit * self.mean)
        scales = [of_weights] * classes if classes else [of_weights, of_labels, of_labels]
        even: Array = sums * np.array([*scales, 1.0])
        return even

    def of_gain(self, classes: int) -> float:
        """The same for a gain, which is in squares of sums by weights."""
        return (self.step if classes else 1 / self.step) / (self.unit * self.mean)


class Node(NamedTuple):
    """`counts`: rows of each class; of a regression rows and the sum of their rounded labels. Where rows are weighted,
    these are of whole weights, and after them come the rows. A leaf has no feature."""

    id: int
    depth: int
    counts: Array
    feature: int = -1
    bin: int = -1
    left: int = -1
    right: int = -1
    gain: float = 0.0


@dataclass(frozen=True)
class Route:
    """The splits as arrays by node, for sending rows down. `depth`: how many steps reach every leaf."""

    feature: Array
    bin: Array
    left: Array
    right: Array
    depth: int

    @classmethod
    def of(cls, nodes: Sequence[Node]) -> "Route":
        table = np.array([(n.feature, n.bin, n.left, n.right) for n in nodes], dtype=np.int32).T
        return cls(table[0], table[1], table[2], table[3], depth=max(n.depth for n in nodes))

    def down(self, codes: Array, at: Array) -> Array:
        """One step: the nodes that rows at nodes `at` go to; at a leaf they stay."""
        feature = self.feature[at]
        goes_left = codes[np.maximum(feature, 0), np.arange(len(at))] <= self.bin[at]
        return np.where(feature < 0, at, np.where(goes_left, self.left[at], self.right[at]))

    def to_leaves(self, codes: Array, at: Optional[Array] = None, steps: Optional[int] = None) -> Array:
        """The leaf that each row is in: from nodes `at`, `steps` above the deepest leaves, or from the root."""
        at = np.zeros(codes.shape[1], dtype=np.int32) if at is None else at
        for _ in range(self.depth if steps is None else steps):
            at = self.down(codes, at)
        return at


@dataclass(frozen=True)
class Rules:
    """What a split must obey. `smallest`: a gain must be larger. `weights`: of each class, if they count otherwise.
    `by_row`: if each row has a weight of its own."""

    bins: Sequence[int]
    classes: int
    depth: int
    min_leaf: int
    smallest: float
    weights: Optional[Array] = None
    by_row: Optional[RowWeights] = None

    @classmethod
    def of(
        cls,
        root: Node,
        bins: Sequence[int],
        classes: int,
        depth: int,
        min_leaf: int,
        weights: Optional[Array],
        by_row: Optional[RowWeights],
    ) -> "Rules":
        counts = root.counts[:classes] if weights is None else root.counts * weights
        smallest = SMALLEST_GAIN * _impurity(counts) if classes else 0.0
        return cls(tuple(bins), classes, depth, min_leaf, smallest, weights, by_row)

    @property
    def sums(self) -> int:
        """How many a node has in each bin: rows of each class, or rows and labels; by weights, and then rows."""
        return (self.classes or 2) + (self.by_row is not None)

    def may_split(self, node: Node) -> bool:
        large = rows_of(node.counts, self.classes) >= 2 * self.min_leaf
        mixed = not self.classes or np.count_nonzero(node.counts[: self.classes]) > 1
        return node.depth < self.depth and large and bool(mixed)

    def bytes_of(self, nodes: int) -> int:
        """What the counts of so many nodes weigh."""
        return nodes * sum(self.bins) * self.sums * 8

    def in_turns(self, ids: Sequence[int]) -> List[Sequence[int]]:
        """As many nodes at once as their counts fit the memory of a pass."""
        size = max(1, PASS_BYTES // self.bytes_of(1))
        return [ids[start : start + size] for start in range(0, len(ids), size)]

    @property
    def by_few_classes(self) -> bool:
        """Whether a task counts in each node the classes that are there alone. Sums of whole numbers are the same
        without the zeros; those of weights might differ by their rounding, and so a tree by who has grown it."""
        return self.classes > FEW_CLASSES and self.weights is None and self.by_row is None

    def in_turns_by_classes(self, nodes: Sequence[Node], ids: Sequence[int]) -> Sequence[Sequence[int]]:
        """The same if of each node only the classes are counted that its rows are of: alike ones together."""
        classes = {i: int(np.count_nonzero(nodes[i].counts)) for i in ids}
        turns: List[List[int]] = []
        room = PASS_BYTES // (sum(self.bins) * 8)
        for i in sorted(ids, key=lambda i: (classes[i], i)):
            if turns and (len(turns[-1]) + 1) * classes[i] <= min(room, 4 * len(turns[-1]) * classes[turns[-1][0]]):
                turns[-1].append(i)
            else:
                turns.append([i])
        return turns

    def split(self, nodes: List[Node], ids: Sequence[int], best: Sequence["Split"]) -> List[int]:
        """Puts the splits that gain enough into `nodes`, with their children at the end, whose ids it returns."""
        children: List[int] = []
        for parent, (gain, feature, cut, left) in zip(ids, best):  # noqa: B905  # not in Python 3.9
            if gain <= self.smallest:
                continue
            node, ids_below = nodes[parent], (len(nodes), len(nodes) + 1)
            nodes[parent] = node._replace(feature=feature, bin=cut, gain=gain, left=ids_below[0], right=ids_below[1])
            nodes += [Node(ids_below[0], node.depth + 1, left), Node(ids_below[1], node.depth + 1, node.counts - left)]
            children += ids_below
        return children


def grow(
    blocks: "RDD[Block]",
    bins: Sequence[int],
    classes: int,
    *,
    depth: int,
    min_leaf: int,
    weights: Optional[Array] = None,
    by_row: Optional[RowWeights] = None,
) -> List[Node]:
    """The nodes, root first, level by level, each at the index that is its id.

    `bins`: how many each feature has. `classes`: how many the label has, 0 for a regression. A node of many rows is
    split by all tasks together: for each level a pass over the rows, whose counts are added up by the driver, or in a
    shuffle if they are many. A node whose rows one task can hold is grown by that task, all the way down: its rows are
    brought there once, and all such nodes are one pass (as in PLANET: Panda et al. 2009, PVLDB 2(2)). Which way a node
    went does not show in the tree. `weights`: how much a row of each class counts in a split's gain. `by_row`: how the
    blocks' own weights count, in all that is not about `min_leaf`.
    """
    if by_row:
        blocks = blocks.map(partial(by_row.whole, classes=classes))
    nodes = [Node(0, 0, blocks.map(lambda block: _totals(block, classes)).reduce(np.add))]
    if sum(size > 1 for size in bins) == 0:
        return nodes
    rules = Rules.of(nodes[0], bins, classes, depth, min_leaf, weights, by_row)
    tasks = max(blocks.getNumPartitions(), blocks.context.defaultParallelism)
    fit = max(1, PASS_BYTES // (2 * len(bins) + ROW_BYTES))
    # Nodes no larger than a task's share of the rows can be dealt out to the tasks about evenly.
    one_task = min(fit, max(ONE_TASK_ROWS, rows_of(nodes[0].counts, classes) // tasks))
    tree, waiting = uuid.uuid4().hex, [0]
    dealt: List[int] = []
    above: Optional[Above] = None
    while waiting:
        able = [i for i in waiting if rules.may_split(nodes[i])]
        dealt += [i for i in able if rows_of(nodes[i].counts, classes) <= one_task]
        route, waiting = Route.of(nodes), []
        turns = rules.in_turns([i for i in able if rows_of(nodes[i].counts, classes) > one_task])
        for some in turns:
            if rules.bytes_of(len(some)) * blocks.getNumPartitions() > DRIVER_BYTES:
                best, above = _best_splits(blocks, tree, route, rules, some), None
            else:
                here = _counts(nodes, some, above, partial(_added_up, blocks, tree, route, rules), rules)
                best, above = _of_counts(here, rules), Above(here, some) if len(turns) == 1 else None
            waiting += rules.split(nodes, some, best)
    for roots, below in _grown_apart(blocks, tree, nodes, dealt, tasks, fit, rules) if dealt else []:
        _graft(nodes, roots, below)
    return _level_by_level(nodes)


def grow_here(
    block: Block,
    bins: Sequence[int],
    classes: int,
    *,
    depth: int,
    min_leaf: int,
    weights: Optional[Array] = None,
    by_row: Optional[RowWeights] = None,
) -> List[Node]:
    """What `grow` makes of these rows, without Spark: for rows so few that its jobs would cost more than they do."""
    block = by_row.whole(block, classes) if by_row else block
    root = Node(0, 0, _totals(block, classes))
    if sum(size > 1 for size in bins) == 0:
        return [root]
    rules = Rules.of(root, bins, classes, depth, min_leaf, weights, by_row)
    return _level_by_level(_grow_here([root], block, np.zeros(len(block.label), dtype=np.int32), rules))


def rows_of(counts: Array, classes: int) -> int:
    """Of a node's counts, or what one has in a bin."""
    if len(counts) > (classes or 2):
        return int(counts[-1])
    return int(counts.sum() if classes else counts[0])


def leaf_counts(
    blocks: "RDD[Block]", nodes: Sequence[Node], classes: int, by_row: Optional[RowWeights] = None
) -> Array:
    """What other rows, or the same, add up to in each leaf: node x class; or node x (rows, sum, sum of squares).

    `by_row`: the same of weights with a mean of 1, and rows after them; without it each row counts once.
    """
    total: Array = blocks.map(partial(_leaf_sums, route=Route.of(nodes), classes=classes, by_row=by_row)).reduce(np.add)
    return by_row.even(total, classes) if by_row else total


def leaf_counts_here(block: Block, route: Route, classes: int, by_row: Optional[RowWeights] = None) -> Array:
    """The same of one block, without Spark."""
    total = _leaf_sums(block, route, classes, by_row)
    return by_row.even(total, classes) if by_row else total


def _leaf_sums(block: Block, route: Route, classes: int, by_row: Optional[RowWeights]) -> Array:
    at, size, label = route.to_leaves(block.codes), len(route.feature), block.label
    weighed = by_row.whole(block, classes) if by_row else block._replace(weight=None)
    if classes:
        cell = at.astype(np.int64) * classes + label
        sums: Array = np.bincount(cell, weights=weighed.weight, minlength=size * classes).reshape(size, classes)
    else:
        label, near = label.astype(np.float64), weighed.label.astype(np.float64)
        rows = np.ones(len(at)) if weighed.weight is None else weighed.weight
        found = [np.bincount(at, weights=each, minlength=size) for each in (rows, near, near * label)]
        sums = np.stack(found, axis=1)
    return np.column_stack([sums, np.bincount(at, minlength=size)]) if by_row else sums


def node_totals(
    blocks: "RDD[Block]", nodes: Sequence[Node], classes: int, by_row: Optional[RowWeights] = None
) -> Array:
    """`leaf_counts` of the rows that grew the tree, added up to every node."""
    if classes:
        counts = np.stack([node.counts for node in nodes])
        return by_row.even(counts, classes) if by_row else counts
    return summed_up(nodes, leaf_counts(blocks, nodes, classes, by_row))


def summed_up(nodes: Sequence[Node], leaves: Array) -> Array:
    """Figures of the leaves added up to every node: node x anything."""
    total = leaves.copy()
    for node in reversed(nodes):  # children have larger ids than their parents
        if node.feature >= 0:
            total[node.id] = total[node.left] + total[node.right]
    return total


def smoothed(nodes: Sequence[Node], totals: Array, classes: int, rows: float) -> Array:
    """What each node says, as if `rows` more rows like its parent were in it: shares of the classes, or the mean of the
    rounded labels. `totals` as of `summed_up`.

    A small leaf of one class would be sure of itself; so it is as sure as its rows allow (m-branch smoothing: Ferri,
    Flach and Hernandez-Orallo 2003, Improving the AUC of probabilistic estimation trees).
    """
    sums = totals[:, :classes] if classes else totals[:, 1:2]
    seen = sums.sum(axis=1, keepdims=True) if classes else totals[:, :1]
    says = sums / seen
    for node in nodes:
        for child in (node.left, node.right):
            if child >= 0:
                says[child] = (sums[child] + rows * says[node.id]) / (seen[child] + rows)
    return says if classes else says[:, 0]


def _totals(block: Block, classes: int) -> Array:
    """A node's counts if these are its rows."""
    label, weight = block.label, block.weight
    if classes:
        sums = np.bincount(label, weights=weight, minlength=classes).tolist()
    else:
        sums = [len(label) if weight is None else weight.sum(), label.sum(dtype=np.int64)]
    return np.array(sums if weight is None else [*sums, len(label)]).astype(np.int64)


def _impurity(counts: Array) -> float:
    shares = counts / max(counts.sum(), 1)
    return float(1 - (shares**2).sum())


# On an executor: where the rows of a block were a level ago, by tree, partition and block. What isn't there, since
# another worker had it or died, is found from the root.
_places: Dict[str, Dict[Tuple[int, int], Tuple[int, Array]]] = {}


def _leaves(tree: str, key: Tuple[int, int], block: Block, route: Route) -> Array:
    if tree not in _places:
        _places.clear()
    known = _places.setdefault(tree, {})
    depth, at = known.get(key, (0, None))
    at = route.to_leaves(block.codes, at, route.depth - depth)
    known[key] = route.depth, at
    return at


def _partial_counts(
    blocks: "RDD[Block]", tree: str, route: Route, rules: Rules, wanted: Sequence[int]
) -> "RDD[Tuple[int, Array]]":
    """Of each partition, and feature by feature, its share in the counts of the wanted nodes."""
    slot = _slots(len(route.feature), wanted)

    def count(partition: int, part: Iterable[Block]) -> Iterable[Tuple[int, Array]]:
        totals: Dict[int, Array] = {}
        for i, block in enumerate(part):
            at = slot[_leaves(tree, (partition, i), block, route)]
            for feature, counted in _histograms(block, at, len(wanted), rules):
                if feature in totals:
                    totals[feature] += counted
                else:
                    totals[feature] = counted
        return totals.items()

    return blocks.mapPartitionsWithIndex(count)


def _added_up(blocks: "RDD[Block]", tree: str, route: Route, rules: Rules, wanted: Sequence[int]) -> Dict[int, Array]:
    """The counts of the wanted nodes by feature, added up here."""
    totals: Dict[int, Array] = {}
    for feature, counted in _partial_counts(blocks, tree, route, rules, wanted).collect():
        totals[feature] = totals[feature] + counted if feature in totals else counted
    return totals


def _best_splits(blocks: "RDD[Block]", tree: str, route: Route, rules: Rules, wanted: Sequence[int]) -> List[Split]:
    """The best split of each wanted node, by all tasks together; the counts stay with them."""

    def best(item: Tuple[int, Array]) -> Tuple[int, Tuple[Array, Array, Array]]:
        return item[0], _choose(item[1], rules)

    counts = _partial_counts(blocks, tree, route, rules, wanted)
    return _of_features(dict(counts.reduceByKey(np.add).map(best).collect()))


class Above(NamedTuple):
    """The counts of the nodes `ids`, by feature: node x class x bin; of a regression node x (rows, sum) x bin."""

    counts: Dict[int, Array]
    ids: Sequence[int]


def _counts(
    nodes: Sequence[Node],
    wanted: Sequence[int],
    above: Optional[Above],
    count: Callable[[List[int]], Dict[int, Array]],
    rules: Rules,
) -> Dict[int, Array]:
    """The counts of the wanted nodes by feature, of which `count` does as few rows as possible.

    Of two siblings only the smaller one is counted if their parent's counts are known: the other one is what is left.
    """
    sibling: Dict[int, Tuple[int, int]] = {}  # of a child: the other one, and its parent's place
    for place, i in enumerate(above.ids if above else []):
        left, right = nodes[i].left, nodes[i].right
        sibling.update({left: (right, place), right: (left, place)})
    rows = {i: rows_of(nodes[i].counts, rules.classes) for i in [*wanted, *sibling]}
    asked: Dict[int, int] = {}  # what is counted, and its place
    left_over: List[Tuple[int, int, int]] = []  # the places of a node, of its sibling's counts, and of its parent
    for place, i in enumerate(wanted):
        other, parent = sibling.get(i, (-1, -1))
        if other >= 0 and (rows[other], other) < (rows[i], i):
            left_over.append((place, asked.setdefault(other, len(asked)), parent))
        else:
            asked.setdefault(i, len(asked))
    counted = count(list(asked))
    straight = [(place, asked[i]) for place, i in enumerate(wanted) if i in asked]
    found: Dict[int, Array] = {}
    for feature, own in counted.items():
        whole = np.empty((len(wanted), *own.shape[1:]), dtype=own.dtype)
        for place, source in straight:
            whole[place] = own[source]
        if above:
            for place, smaller, parent in left_over:
                np.subtract(above.counts[feature][parent], own[smaller], out=whole[place])
        found[feature] = whole
    return found


def _of_counts(counts: Dict[int, Array], rules: Rules) -> List[Split]:
    found = {f: _choose(own, rules) for f, own in counts.items()}
    return _of_features(found)


def _slots(nodes: int, wanted: Sequence[int]) -> Array:
    """By node its place in `wanted`; that of the others is one after the last."""
    slots = np.full(nodes, len(wanted), dtype=np.int32)
    slots[list(wanted)] = np.arange(len(wanted))
    return slots


def _of_features(found: Dict[int, Tuple[Array, Array, Array]]) -> List[Split]:
    """For each slot the best of the features' best splits, which are given as of `_choose`."""
    features = sorted(found)
    winners = np.stack([found[feature][0] for feature in features]).argmax(axis=0)
    told = []
    for i, winner in enumerate(winners):
        gain, cut, left = (part[i] for part in found[features[winner]])
        told.append((float(gain), features[winner], int(cut), left))
    return told


def _grown_apart(
    blocks: "RDD[Block]", tree: str, nodes: Sequence[Node], roots: Sequence[int], tasks: int, fit: int, rules: Rules
) -> List[Tuple[List[int], List[Node]]]:
    """What grows below `roots`, by tasks that each get all rows of theirs: these, and the nodes as of `_grow_here`."""
    rows = {i: rows_of(nodes[i].counts, rules.classes) for i in roots}
    shares = _dealt_out(rows, max(min(tasks, len(roots)), -(-sum(rows.values()) // fit)))
    share_of = np.full(len(nodes), len(shares), dtype=np.int16 if len(shares) < 2**15 else np.int32)  # int16 sorts fast
    place = np.zeros(len(nodes), dtype=np.int32)
    for number, share in enumerate(shares):
        share_of[share] = number
        place[share] = np.arange(len(share))
    shared = blocks.context.broadcast(
        (Route.of(nodes), share_of, place, shares, [[nodes[i] for i in s] for s in shares])
    )

    def send(partition: int, part: Iterable[Block]) -> Iterator[Tuple[int, Tuple[Array, Block]]]:
        route, share_of, place, shares, _ = shared.value
        for i, block in enumerate(part):
            at = _leaves(tree, (partition, i), block, route)
            share = share_of[at]
            order = np.argsort(share, kind="stable")
            ends = np.searchsorted(share[order], np.arange(len(shares) + 1))
            for number in range(len(shares)):
                rows = order[ends[number] : ends[number + 1]]
                if len(rows):
                    yield number, (place[at[rows]], block.take(rows))

    def below(part: Iterable[Tuple[int, Tuple[Array, Block]]]) -> Iterator[Tuple[List[int], List[Node]]]:
        _, _, _, shares, above = shared.value
        received: Dict[int, List[Tuple[Array, Block]]] = {}
        for number, rows in part:
            received.setdefault(number, []).append(rows)
        for number in list(received):
            places, parts = zip(*received.pop(number))  # noqa: B905
            yield shares[number], _grow_here(above[number], Block.joined(parts), np.concatenate(places), rules)

    sent = blocks.mapPartitionsWithIndex(send).partitionBy(len(shares), lambda number: number)
    grown: List[Tuple[List[int], List[Node]]] = sent.mapPartitions(below).collect()
    shared.unpersist()
    return grown


def _dealt_out(rows: Dict[int, int], shares: int) -> List[List[int]]:
    """Nodes in shares of about equal rows: the largest first, each to whom has least."""
    loads: List[Tuple[int, int, List[int]]] = [(0, number, []) for number in range(shares)]
    for node in sorted(rows, key=lambda node: (-rows[node], node)):
        load, number, share = loads[0]
        heapq.heapreplace(loads, (load + rows[node], number, [*share, node]))
    return [sorted(share) for _, _, share in loads if share]


def _grow_here(roots: Sequence[Node], block: Block, at: Array, rules: Rules) -> List[Node]:
    """The roots and after them what grows below, ids counted from 0. `at`: the place of each row's root in `roots`."""
    nodes = [root._replace(id=i) for i, root in enumerate(roots)]
    waiting = list(range(len(roots)))
    above: Optional[Above] = None
    while able := [i for i in waiting if rules.may_split(nodes[i])]:
        alive = waiting if above else able  # a child that is done may yet be counted in place of its sibling
        kept = np.flatnonzero(_slots(len(nodes), alive)[at] < len(alive))
        if len(kept) < 0.8 * len(at):
            block, at = block.take(kept), at[kept]
        waiting = []
        if rules.by_few_classes:
            for some in rules.in_turns_by_classes(nodes, able):
                waiting += rules.split(nodes, some, _best_of_few(block, at, nodes, some, rules))
            at = Route.of(nodes).down(block.codes, at)
            continue
        turns = rules.in_turns(able)
        for some in turns:
            here = _counts(nodes, some, above, partial(_counted_here, block, at, len(nodes), rules), rules)
            waiting += rules.split(nodes, some, _of_counts(here, rules))
        known = len(turns) == 1 and rules.bytes_of(len(able)) <= PASS_BYTES // 4
        above = Above(here, able) if known else None
        at = Route.of(nodes).down(block.codes, at)
    return nodes


def _best_of_few(block: Block, at: Array, nodes: Sequence[Node], some: Sequence[int], rules: Rules) -> List[Split]:
    """The best splits of these nodes, each counted by the classes that its own rows are of."""
    there = np.stack([nodes[i].counts > 0 for i in some])
    few = replace(rules, classes=int(there.sum(axis=1).max()))
    place = np.cumsum(there, axis=1) - 1
    slot = _slots(len(nodes), some)[at]
    kept = np.flatnonzero(slot < len(some))
    slot, own = slot[kept], block.take(kept)
    own = own._replace(label=place[slot, own.label])
    found = _of_counts(dict(_histograms(own, slot, len(some), few)), few)
    best: List[Split] = []
    for classes, (gain, feature, cut, counts) in zip(there, found):  # noqa: B905  # not in Python 3.9
        left = np.zeros(rules.classes, dtype=counts.dtype)
        left[classes] = counts[: np.count_nonzero(classes)]
        best.append((gain, feature, cut, left))
    return best


def _counted_here(block: Block, at: Array, nodes: int, rules: Rules, wanted: Sequence[int]) -> Dict[int, Array]:
    return dict(_histograms(block, _slots(nodes, wanted)[at], len(wanted), rules))


def _graft(nodes: List[Node], roots: Sequence[int], below: Sequence[Node]) -> None:
    """Puts what `_grow_here` has grown below `roots` into `nodes`."""
    ids = [*roots, *range(len(nodes), len(nodes) + len(below) - len(roots)), -1]  # the last: no child
    moved = [node._replace(id=ids[node.id], left=ids[node.left], right=ids[node.right]) for node in below]
    for node in moved[: len(roots)]:
        nodes[node.id] = node
    nodes += moved[len(roots) :]


def _level_by_level(nodes: Sequence[Node]) -> List[Node]:
    """The same tree, numbered from the root down, each level from left to right."""
    order = [0]
    for i in order:
        if nodes[i].feature >= 0:
            order += [nodes[i].left, nodes[i].right]
    number = {-1: -1, **{old: new for new, old in enumerate(order)}}
    return [
        nodes[old]._replace(id=new, left=number[nodes[old].left], right=number[nodes[old].right])
        for new, old in enumerate(order)
    ]


def _histograms(block: Block, at: Array, slots: int, rules: Rules) -> Iterator[Tuple[int, Array]]:
    """For each feature: slot x class x bin, the rows; of a regression slot x (rows, sum) x bin. Of weighted rows their
    weights, and the rows as one more. `at`: rows' slots.
    """
    classes = rules.classes
    kept = np.flatnonzero(at < slots)
    if len(kept) < 0.9 * len(at):  # else rows of other nodes are counted too, in a slot that is thrown away
        at, block = at[kept], block.take(kept)
    codes, label, weight = block
    cell = at.astype(np.int64) * classes + label if classes else at.astype(np.int64)
    # Arrays as long as the block are used again: to get the memory of a new one costs more than to fill it.
    first, index, of_size = np.empty_like(cell), np.empty_like(cell), 0
    of_slot = at.astype(np.int64) if classes and weight is not None else None
    for feature, size in sorted(enumerate(rules.bins), key=lambda item: item[1]):
        if size < 2:
            continue
        if size != of_size:
            np.multiply(cell, size, out=first)
            of_size = size
        np.add(first, codes[feature], out=index)
        counted = partial(_by_bin, slots=slots, wide=classes or 1, size=size)
        sums = [counted(index, weight)]
        if not classes:
            sums.append(counted(index, label))
        if weight is not None:
            of_rows = index if of_slot is None else of_slot * size + codes[feature]
            sums.append(_by_bin(of_rows, None, slots, 1, size))
        yield feature, sums[0] if len(sums) == 1 else np.concatenate(sums, axis=1)


def _by_bin(index: Array, weights: Optional[Array], slots: int, wide: int, size: int) -> Array:
    """Rows, or what they weigh, by slot x class x bin. `index`: where each row belongs; beyond the last it is none."""
    length = slots * wide * size
    found = np.bincount(index, weights=weights, minlength=length + wide * size)[:length]
    return found.astype(np.int64, copy=False).reshape(slots, wide, size)


def _choose(histogram: Array, rules: Rules) -> Tuple[Array, Array, Array]:
    """The best cut of one feature in each slot: gain (-1 if none is allowed), bin, counts that go left.

    The gain is of a row of the average weight, so that gains of nodes add up by their rows.
    """
    classes, weights = rules.classes, rules.weights
    left = np.cumsum(histogram, axis=2)
    total, left = left[:, :, -1:], left[:, :, :-1]
    right = total - left
    if classes:
        by_class = [part[:, :classes] for part in (left, right, total)]
        weighed = by_class if weights is None else [part * weights[:, None] for part in by_class]
        squares = [np.square(part, dtype=np.float64).sum(axis=1) for part in weighed]
        least = 1 if weights is None else weights.min()
        of_left, of_right, of_both = (np.maximum(part.sum(axis=1), least) for part in weighed)
        gain = squares[0] / of_left + squares[1] / of_right - squares[2] / of_both
        rows_left, rows_right = (part.sum(axis=1) for part in by_class[:2])
    else:  # the same by the difference of the means, of which nothing is left where all labels are the same; and no
        # less or more of it where left and right change places, as they do of two features that split alike
        of_left, of_right, of_both = (np.maximum(part[:, 0], 1.0) for part in (left, right, total))
        gain = np.square(left[:, 1] / of_left - right[:, 1] / of_right) * (of_left * of_right / of_both)
        rows_left, rows_right = left[:, 0], right[:, 0]
    if rules.by_row:
        rows_left, rows_right = left[:, -1], right[:, -1]
        if not classes:  # what the rounding of each row's label could make of labels that are the same
            gain -= (rows_left**2 / of_left + rows_right**2 / of_right) / 4
        gain *= rules.by_row.of_gain(classes)
    gain /= np.maximum(rows_left + rows_right, 1)
    if rules.by_row:
        gain[np.minimum(of_left, of_right) < LIGHTEST] = -1
    gain[(rows_left < rules.min_leaf) | (rows_right < rules.min_leaf)] = -1
    cut = gain.argmax(axis=1)
    each = np.arange(len(gain))
    return gain[each, cut], cut, left[each, :, cut]
