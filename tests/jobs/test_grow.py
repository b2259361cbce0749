"""Growing: the tree is the one that a plain exhaustive search finds, however the rows are spread."""

import itertools
from typing import Any

import numpy as np
import pytest
from pyspark.sql import SparkSession

from jobs.learners import grow

BINS = [6, 4, 1, 9]  # the third feature is constant


def rows(count: int, classes: int, seed: int = 0) -> tuple[grow.Array, grow.Array]:
    random = np.random.default_rng(seed)
    codes = np.stack([random.integers(0, size, count) for size in BINS]).astype(np.uint8)
    signal = codes[0] * 2.0 + (codes[3] > 4) * 5 + random.normal(0, 2, count)
    if classes:
        return codes, np.clip(signal / 17 * classes, 0, classes - 1).astype(np.uint8)
    return codes, np.rint(signal * 1000).astype(np.int64)


def spread(spark: SparkSession, codes: grow.Array, label: grow.Array, blocks: int, partitions: int) -> Any:
    parts = np.array_split(np.arange(len(label)), blocks)
    made = [grow.Block(np.ascontiguousarray(codes[:, part]), label[part]) for part in parts]
    return spark.sparkContext.parallelize(made, partitions)


def impurity_times_rows(label: grow.Array, classes: int) -> float:
    if not len(label):
        return 0.0
    if classes:
        return float(len(label) - (np.bincount(label) ** 2).sum() / len(label))
    return float(((label - label.mean()) ** 2).sum())


def searched(codes: grow.Array, label: grow.Array, classes: int, depth: int, min_leaf: int) -> Any:
    """The tree by trying every cut on every row: (feature, bin, left, right), or the number of rows of a leaf."""
    best = None
    if depth:
        for feature, cut in itertools.chain(*[[(f, c) for c in range(size - 1)] for f, size in enumerate(BINS)]):
            left = codes[feature] <= cut
            if min(left.sum(), (~left).sum()) < min_leaf:
                continue
            gain = impurity_times_rows(label, classes) - sum(
                impurity_times_rows(label[side], classes) for side in (left, ~left)
            )
            if gain > 1e-9 and (best is None or gain > best[0] * (1 + 1e-12)):
                best = gain, feature, cut, left
    if best is None:
        return len(label)
    _, feature, cut, left = best
    return (
        feature,
        cut,
        *[searched(codes[:, side], label[side], classes, depth - 1, min_leaf) for side in (left, ~left)],
    )


def nested(nodes: list[grow.Node], classes: int, at: int = 0) -> Any:
    node = nodes[at]
    if node.feature < 0:
        return grow.rows_of(node.counts, classes)
    return node.feature, node.bin, nested(nodes, classes, node.left), nested(nodes, classes, node.right)


@pytest.mark.parametrize("classes", [2, 3, 0])
def test_the_tree_should_be_that_of_an_exhaustive_search(spark: SparkSession, classes: int) -> None:
    codes, label = rows(500, classes)
    blocks = spread(spark, codes, label, blocks=5, partitions=2)
    nodes = grow.grow(blocks, BINS, classes, depth=4, min_leaf=7)
    assert nested(nodes, classes) == searched(codes, label, classes, 4, 7)
    assert len(nodes) > 15


@pytest.mark.parametrize("classes", [2, 0])
def test_the_tree_should_not_depend_on_how_rows_are_spread_or_who_grows_which_node(
    spark: SparkSession, classes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    codes, label = rows(3000, classes, seed=1)
    reversed_blocks = spread(spark, codes[:, ::-1], label[::-1], 9, 4)
    levels, counted, shuffled, apart = [], [], [], []
    added_up, together, alone = grow._added_up, grow._best_splits, grow._grown_apart

    def on_driver(*given: Any) -> Any:
        levels.append(given[-1])
        found = added_up(*given)
        counted.append(sum(grow.rows_of(own.sum(axis=1), classes) for own in found[0]))
        return found

    def best_splits(*given: Any) -> Any:
        shuffled.append(given)
        return together(*given)

    def grown_apart(*given: Any) -> Any:
        apart.append(given[3])
        return alone(*given)

    monkeypatch.setattr(grow, "_added_up", on_driver)
    monkeypatch.setattr(grow, "_best_splits", best_splits)
    monkeypatch.setattr(grow, "_grown_apart", grown_apart)
    once = grow.grow(spread(spark, codes, label, 1, 1), BINS, classes, depth=6, min_leaf=5)
    assert (len(levels), apart) == (0, [[0]])  # so few rows are one task's

    monkeypatch.setattr(grow, "ONE_TASK_ROWS", 0)  # a task's share, a quarter
    mixed = grow.grow(reversed_blocks, BINS, classes, depth=6, min_leaf=5)
    assert levels
    assert all(len(asked) < 2**level for level, asked in enumerate(levels[1:], start=1))  # a sibling of two
    assert all(rows <= 1500 for rows in counted[1:])  # the smaller one
    assert len(apart[1]) > 3
    assert [str(node) for node in once] == [str(node) for node in mixed]

    levels.clear()
    monkeypatch.setattr(grow, "PASS_BYTES", 3 * sum(BINS) * 2 * 8)  # three nodes at a time, seventeen rows in a task
    by_all = grow.grow(reversed_blocks, BINS, classes, depth=6, min_leaf=5)
    assert len(levels) > 7
    assert not shuffled
    assert len(once) > 50
    assert [str(node) for node in once] == [str(node) for node in by_all]

    monkeypatch.setattr(grow, "DRIVER_BYTES", 0)
    by_shuffle = grow.grow(reversed_blocks, BINS, classes, depth=6, min_leaf=5)
    assert len(shuffled) > 7
    assert [str(node) for node in once] == [str(node) for node in by_shuffle]


@pytest.mark.parametrize("classes", [2, 0])
def test_a_task_that_counts_its_nodes_in_turns_should_grow_the_same_trees(
    classes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    codes, label = rows(2000, classes, seed=2)
    rules = grow.Rules(tuple(BINS), classes, depth=6, min_leaf=5, smallest=0.0)
    at = np.arange(2000) % 3 % 2  # two thirds are below the first root
    roots = [grow.Node(i, 0, grow._totals(grow.Block(codes[:, at == i], label[at == i]), classes)) for i in range(2)]
    at_once = grow._grow_here(roots, grow.Block(codes, label), at, rules)
    monkeypatch.setattr(grow, "PASS_BYTES", rules.bytes_of(3))
    in_turns = grow._grow_here(roots, grow.Block(codes, label), at, rules)
    assert [str(node) for node in in_turns] == [str(node) for node in at_once]
    for i in range(2):
        own = codes[:, at == i], label[at == i]
        assert nested(at_once, classes, i) == searched(*own, classes, 6, 5)


def test_many_classes_should_be_counted_by_those_of_each_node_and_grow_the_same_trees(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    classes = 300  # more than a byte tells
    codes, _ = rows(900, 2, seed=3)
    label = (np.random.default_rng(3).integers(0, 20, 900) + 40 * codes[0]).astype(np.uint16)
    best_of_few, grown, turns = grow._best_of_few, [], []
    for few, room in ((grow.FEW_CLASSES, grow.PASS_BYTES), (grow.FEW_CLASSES, 8 * sum(BINS) * 60), (classes, 2**28)):
        counted: list[Any] = []
        monkeypatch.setattr(grow, "FEW_CLASSES", few)
        monkeypatch.setattr(grow, "PASS_BYTES", room)
        monkeypatch.setattr(grow, "_best_of_few", lambda *given: counted.append(given[3]) or best_of_few(*given))  # noqa: B023
        grown.append(grow.grow_here(grow.Block(codes, label), BINS, classes, depth=6, min_leaf=4))
        turns.append(len(counted))
    assert turns[1] > turns[0] > turns[2] == 0
    assert str(grown[0]) == str(grown[1]) == str(grown[2])
    assert nested(grown[0], classes) == searched(codes, label, classes, 6, 4)


def test_counts_of_many_tasks_should_not_be_gathered_on_the_driver(
    spark: SparkSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Eight tasks' counts are too much together, though a single one's would fit.
    codes, label = rows(400, 2)
    monkeypatch.setattr(grow, "ONE_TASK_ROWS", 0)
    monkeypatch.setattr(grow, "DRIVER_BYTES", 4 * sum(BINS) * 2 * 8)
    gathered: list[int] = []
    added_up = grow._added_up
    monkeypatch.setattr(grow, "_added_up", lambda *given: gathered.append(1) or added_up(*given))
    grow.grow(spread(spark, codes, label, 8, 8), BINS, 2, depth=1, min_leaf=7)
    assert not gathered
    grow.grow(spread(spark, codes, label, 8, 2), BINS, 2, depth=1, min_leaf=7)
    assert gathered


@pytest.mark.parametrize("driver_bytes", [grow.DRIVER_BYTES, 0])
@pytest.mark.parametrize("one_task_rows", [grow.ONE_TASK_ROWS, 0])
def test_of_equal_features_the_first_should_be_split_on(
    spark: SparkSession, monkeypatch: pytest.MonkeyPatch, one_task_rows: int, driver_bytes: int
) -> None:
    # The same three groups of rows in bins of three features, whose numbers of bins go up and down.
    monkeypatch.setattr(grow, "ONE_TASK_ROWS", one_task_rows)
    monkeypatch.setattr(grow, "DRIVER_BYTES", driver_bytes)
    group = np.arange(600) % 3
    codes = np.stack([group * 3, group, group * 2]).astype(np.uint8)
    label = (group > 0).astype(np.uint8)
    nodes = grow.grow(spread(spark, codes, label, 4, 4), [9, 3, 6], 2, depth=3, min_leaf=1)
    assert nested(nodes, 2) == (0, 0, 200, 400)


def test_siblings_that_predict_the_same_class_should_both_stay(spark: SparkSession) -> None:
    # MLlib's classifier would merge these: both leaves say class 0 (SPARK-3159).
    codes = np.array([[0] * 10 + [1] * 10], dtype=np.uint8)
    label = np.array([0] * 10 + [0] * 7 + [1] * 3, dtype=np.uint8)
    nodes = grow.grow(spread(spark, codes, label, 1, 1), [2], 2, depth=1, min_leaf=1)
    assert [node.counts.tolist() for node in nodes] == [[17, 3], [10, 0], [7, 3]]


def test_a_node_that_can_be_halved_to_the_smallest_leaves_should_be(spark: SparkSession) -> None:
    codes, label = np.array([[0] * 5 + [1] * 5], dtype=np.uint8), np.array([0] * 5 + [1] * 5, dtype=np.uint8)
    sizes = {
        min_leaf: len(grow.grow(spread(spark, codes, label, 1, 1), [2], 2, depth=1, min_leaf=min_leaf))
        for min_leaf in (5, 6)
    }
    assert sizes == {5: 3, 6: 1}


def test_nothing_to_split_should_give_one_leaf(spark: SparkSession) -> None:
    codes, label = np.zeros((1, 10), dtype=np.uint8), np.array([0, 1] * 5, dtype=np.uint8)
    assert len(grow.grow(spread(spark, codes, label, 1, 1), [1], 2, depth=5, min_leaf=1)) == 1
    useless = np.array([[0, 0, 1, 1] * 5], dtype=np.uint8)
    mixed = np.array([0, 1, 0, 1] * 5, dtype=np.uint8)
    assert len(grow.grow(spread(spark, useless, mixed, 1, 1), [2], 2, depth=5, min_leaf=1)) == 1


def test_leaf_counts_should_add_up_to_what_every_node_has_seen(spark: SparkSession) -> None:
    codes, label = rows(800, 3)
    blocks = spread(spark, codes, label, 3, 2)
    nodes = grow.grow(blocks, BINS, 3, depth=5, min_leaf=5)
    totals = grow.summed_up(nodes, grow.leaf_counts(blocks, nodes, 3))
    assert [total.tolist() for total in totals] == [node.counts.tolist() for node in nodes]


def test_a_fixed_point_should_keep_labels_to_ten_digits_and_their_sums_exactly() -> None:
    labels = np.random.default_rng(0).normal(1e6, 250.0, 10_000)
    point = grow.FixedPoint.for_labels(labels.min(), labels.max(), len(labels))
    rounded = point.round(labels)
    assert rounded.sum() == sum(map(int, rounded)) == rounded[::-1].sum()
    assert np.abs(point.zero + rounded * point.step - labels).max() < 1e-6
    assert point.sum(len(labels), rounded.sum()) == pytest.approx(labels.sum(), rel=1e-12)
