"""Encoding: what is learned from the training side, worked out by hand, and applied to any rows."""

import itertools
import tracemalloc
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from pyspark.sql import SparkSession

from jobs.errors import JobError
from jobs.learners import encoding, survey
from jobs.learners.survey import Mark, Survey
from jobs.models import inputs
from jobs.tables.arrays import as_numpy
from jobs.tables.settings import Dataset
from tests.jobs import points
from tests.jobs.conftest import Written

LATE = [  # x, colour, late: 3 of 8 are late
    (1.0, "red", 1),
    (2.0, "red", 1),
    (3.0, "red", 0),
    (4.0, "green", 0),
    (5.0, "green", 0),
    (6.0, None, 1),
    (None, None, 0),
    (float("nan"), "blue", 0),
]


def learn(
    spark: SparkSession,
    written: Written,
    rows: list[tuple[Any, ...]],
    settings: Dataset,
    kind: str = "int",
    partitions: int = 2,
) -> encoding.Learned:
    numbered = [(i, *row) for i, row in enumerate(rows)]
    frame = spark.createDataFrame(numbered, f"id int, x double, colour string, late {kind}").repartition(partitions)
    own = Survey(written(frame, settings), settings, {})
    return own.learn(own.parts())


def test_encodings_should_be_smoothed_means_of_the_label(spark: SparkSession, written: Written) -> None:
    number, colour = learn(spark, written, LATE, points.settings("smoothing = 10.0", "smoothing = 4.0")).features
    prior = 3 / 8
    assert number == {"name": "x", "kind": "number", "missing": inputs.MISSING, "missing_rows": 2}
    assert colour["encoding"] == {
        "blue": pytest.approx((0 + 4 * prior) / (1 + 4)),
        "green": pytest.approx((0 + 4 * prior) / (2 + 4)),
        "red": pytest.approx((2 + 4 * prior) / (3 + 4)),
    }
    assert colour["missing"] == pytest.approx((1 + 4 * prior) / (2 + 4))
    assert colour["missing_rows"] == 2
    assert colour["prior"] == colour["unseen"] == prior


def test_a_regressions_encodings_should_be_smoothed_means_too(spark: SparkSession, written: Written) -> None:
    rows = [(x, colour, 10.0 * late + (x or 0)) for x, colour, late in LATE[:6]]
    _, colour = learn(spark, written, rows, points.regression("smoothing = 10.0", "smoothing = 4.0"), "double").features
    mean = (11 + 12 + 3 + 4 + 5 + 16) / 6
    assert colour["prior"] == pytest.approx(mean)
    assert colour["encoding"]["red"] == pytest.approx((11 + 12 + 3 + 4 * mean) / (3 + 4))
    assert colour["missing"] == pytest.approx((16 + 4 * mean) / (1 + 4))


def test_a_multiclass_encoding_should_order_categories_along_the_direction_in_which_they_differ_most(
    spark: SparkSession,
    written: Written,
) -> None:
    # No colour has to do with `mid`; between `low` and `high` they go red, green, blue.
    shares = {"red": (8, 2, 0), "green": (4, 2, 4), "blue": (0, 2, 8)}
    rows = [
        (1.0, colour, name)
        for colour, counts in shares.items()
        for name, count in zip(("low", "mid", "high"), counts, strict=True)
        for _ in range(count)
    ]
    _, colour = learn(
        spark, written, rows, points.multiclass("smoothing = 10.0", "smoothing = 0.001"), "string"
    ).features
    red, green, blue = (colour["encoding"][name] for name in ("red", "green", "blue"))
    assert abs(red - blue) == pytest.approx(0.8 * np.sqrt(2), rel=1e-3)
    assert green == pytest.approx((red + blue) / 2, abs=1e-3)
    assert min(red, blue) < colour["unseen"] < max(red, blue)


def test_a_category_that_was_never_missing_should_give_the_prior_when_it_is(
    spark: SparkSession, written: Written
) -> None:
    _, colour = learn(spark, written, LATE[:5], points.settings()).features
    assert colour["missing"] == colour["prior"] == 2 / 5


def test_rows_should_get_the_learned_values_and_the_prior_if_unseen(spark: SparkSession, written: Written) -> None:
    features = learn(spark, written, LATE, points.settings()).features
    batch = pa.RecordBatch.from_pydict(
        {"x": [7.5, None, float("nan"), float("inf"), -float("inf")], "colour": ["red", "violet", None, "", "red "]}
    )
    x, colour = inputs.matrix(batch, features)
    assert x.tolist() == [7.5, *[inputs.MISSING] * 4]
    assert colour.tolist() == [features[1]["encoding"]["red"], 3 / 8, features[1]["missing"], 3 / 8, 3 / 8]


def test_what_is_learned_should_not_depend_on_partitions(spark: SparkSession, written: Written) -> None:
    for settings, kind, label in (
        (points.settings(), "int", lambda i: i % 3 // 2),
        (points.multiclass(), "string", lambda i: ("low", "mid", "high")[i % 7 % 3]),
        (points.regression(), "double", lambda i: 0.1 * (i % 17) + 1e-7 * i),
    ):
        rows = [(float(i % 50) / 7, f"c{i % 11}" if i % 5 else None, label(i)) for i in range(2000)]
        one, other = (learn(spark, written, rows, settings, kind, partitions) for partitions in (1, 7))
        assert one.features == other.features
        assert [t.tolist() for t in one.thresholds] == [t.tolist() for t in other.thresholds]


def test_the_sample_should_be_the_same_rows_whatever_the_partitions(
    spark: SparkSession, written: Written, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(survey, "SAMPLE_ROWS", 1000)
    rows = [(float(i * i % 99_991), "red", i % 2) for i in range(10_000)]
    settings = points.settings("smoothing = 10.0", "smoothing = 10.0\nbins = 50")
    one, other = (learn(spark, written, rows, settings, partitions=partitions).thresholds[0] for partitions in (1, 7))
    assert one.tolist() == other.tolist()
    whole = np.quantile([row[0] for row in rows], np.arange(1, 50) / 50)
    assert len(one) == 49
    assert not np.allclose(one, whole, rtol=1e-3)  # it was a sample
    assert np.abs(one - whole).max() < 0.06 * 99_991


def test_a_partition_with_few_rows_should_be_sampled_no_more_than_others(
    spark: SparkSession, written: Written, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The large partition keeps every other row at most, so the few rows of the other one must not all count either.
    monkeypatch.setattr(survey, "SAMPLE_ROWS", 1000)
    rows = spark.range(1500).selectExpr("id", "double(id % 7) AS x", "'red' AS colour", "int(id % 2) AS late")
    few = spark.range(1500, 1600).selectExpr("id", "double(id) AS x", "'red' AS colour", "int(id % 2) AS late")
    apart, together = rows.coalesce(1).union(few.coalesce(1)), rows.union(few).repartition(1)
    found = []
    for frame in (apart, together):
        own = Survey(written(frame, points.settings()), points.settings(), {})
        found.append(own.learn(own.parts()).thresholds[0].tolist())
    assert apart.rdd.getNumPartitions() == 2
    assert found[0] == found[1]


def test_a_part_should_be_learned_from_alone_and_parts_add_up(spark: SparkSession, written: Written) -> None:
    rows = [(i, float(i), f"c{i % 5}", int(i % 7 > 3)) for i in range(300)]
    frame = spark.createDataFrame(rows, "id int, x double, colour string, late int")
    settings = points.settings()
    marks = {
        "odd": Mark("id", lambda column: as_numpy(column) % 2 == 1),
        "high": Mark("id", lambda column: as_numpy(column) > 200),
    }
    own = Survey(written(frame, settings), settings, marks)
    assert own.parts(odd=True) == [1, 3]
    assert own.parts(odd=False, high=True) == [2]
    for parts, where in (
        (own.parts(), "true"),
        (own.parts(odd=True), "id % 2 = 1"),
        ([2], "id % 2 = 0 AND id > 200"),
    ):
        alone = Survey(written(frame.where(where), settings), settings, {})
        assert own.labels(parts) == alone.labels([0])
        one, other = own.learn(parts), alone.learn([0])
        assert one.features == other.features
        assert [t.tolist() for t in one.thresholds] == [t.tolist() for t in other.thresholds]
        coded = np.concatenate([block.codes for block in own.code(parts, one).collect()], axis=1)
        expected = np.concatenate([block.codes for block in alone.code([0], other).collect()], axis=1)
        assert sorted(map(tuple, coded.T)) == sorted(map(tuple, expected.T))


def test_a_regressions_label_should_be_told_as_of_all_rows_at_once(spark: SparkSession, written: Written) -> None:
    # Files of 80 and 20 rows whose means lie far apart: neither a mean of means nor a mean of variances would do.
    made = ["id", "1.0D AS x", "'red' AS colour", "double(IF(id < 80, id % 7, 1000 + id)) AS late"]
    large, small = (spark.range(*ends).coalesce(1).selectExpr(*made) for ends in ((0, 80), (80, 100)))
    settings = points.regression()
    odd = {"odd": Mark("id", lambda column: as_numpy(column) % 2 == 1)}
    own = Survey(written(large.union(small), settings), settings, odd)
    every = [i % 7 if i < 80 else 1000.0 + i for i in range(100)]
    for parts, values in ((own.parts(), every), (own.parts(odd=True), every[1::2])):
        label = own.labels(parts)
        assert (label.rows, label.low, label.high) == (len(values), min(values), max(values))
        assert label.mean == pytest.approx(np.mean(values))
        assert label.std == pytest.approx(np.std(values))


def test_labels_of_very_different_size_in_two_parts_should_add_up(spark: SparkSession, written: Written) -> None:
    # Counted in steps as fine as either part alone would want them, the other one's labels would overflow.
    late = "double(id % 4 + IF(id % 2 = 0, 0, 1e12)) AS late"
    frame = spark.range(400).selectExpr("id", "1.0D AS x", "IF(id % 4 < 2, 'low', 'high') AS colour", late)
    settings = points.regression()
    marks = {"odd": Mark("id", lambda column: as_numpy(column) % 2 == 1)}
    own = Survey(written(frame, settings), settings, marks)
    for parts, mean in ((own.parts(), 5e11 + 1.5), (own.parts(odd=True), 1e12 + 2), (own.parts(odd=False), 1)):
        assert own.learn(parts).features[1]["prior"] == pytest.approx(mean, abs=0.1)


def test_thresholds_should_lie_between_the_values_and_missing_below_all(spark: SparkSession, written: Written) -> None:
    learned = learn(spark, written, LATE, points.settings())
    assert learned.thresholds[0].tolist() == [inputs.MISSING / 2, 1.5, 2.5, 3.5, 4.5, 5.5]
    values = sorted({*learned.features[1]["encoding"].values(), learned.features[1]["missing"]})
    assert learned.thresholds[1].tolist() == [pytest.approx((a + b) / 2) for a, b in itertools.pairwise(values)]


def test_a_number_that_may_be_missing_should_have_no_more_bins_than_are_asked_for(
    spark: SparkSession, written: Written
) -> None:
    settings = points.settings("smoothing = 10.0", "smoothing = 10.0\nbins = 10")
    known = [(float(i), "red", i % 2) for i in range(500)]
    for rows in (known, [*known, (None, "red", 1)]):
        learned = learn(spark, written, rows, settings)
        assert learned.bins[0] == 10


def test_many_values_should_be_cut_into_bins_of_about_equal_rows() -> None:
    values = np.arange(1000.0)
    cuts = encoding.thresholds(values, np.ones(1000), bins=4)
    assert cuts.tolist() == [249.5, 499.5, 749.5]
    heavy = np.where(values == 500, 10_000, 1)
    assert len(encoding.thresholds(values, heavy, bins=4)) == 2  # on either side of the one that weighs most


def test_neighbouring_numbers_should_be_told_apart() -> None:
    low = 1.0
    high = float(np.nextafter(low, 2))
    (cut,) = encoding.thresholds(np.array([low, high]), np.ones(2), bins=4)
    assert low <= cut < high


@pytest.mark.parametrize(("late", "told"), [(0, "0 of 3 rows are positive"), (1, "3 of 3 rows are positive")])
def test_a_label_with_one_class_should_be_refused(late: int, told: str) -> None:
    counts = [3 * (1 - late), 3 * late]
    label = encoding.Labels(3, counts, 0, 1, 0, 0)
    with pytest.raises(JobError, match=f"label late has one class only on the training side: {told} .*chance: give"):
        encoding.require_variety(label, points.settings(), "the training side")


def test_a_constant_regression_label_and_an_empty_side_should_be_refused() -> None:
    constant = encoding.Labels(9, [], 2.5, 2.5, 2.5, 0)
    with pytest.raises(JobError, match=r"label late is 2.5 in all 9 rows on the training side"):
        encoding.require_variety(constant, points.regression(), "the training side")
    with pytest.raises(JobError, match="no rows on the test side: too few for a split"):
        encoding.require_variety(encoding.Labels(0, [], 0, 0, 0, 0), points.regression(), "the test side")


def test_a_category_with_too_many_values_should_be_refused_by_name(
    spark: SparkSession, written: Written, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(survey, "MAX_CATEGORIES", 2)
    with pytest.raises(JobError, match=r"datasets/points/dataset.toml: features.categories: colour has more than 2"):
        learn(spark, written, LATE, points.settings())


def test_many_classes_should_leave_a_category_fewer_values() -> None:
    assert [survey.most_values(classes) for classes in (0, 2, 100, 500)] == [100_000, 100_000, 100_000, 20_000]


def test_what_a_key_counts_should_be_dropped_before_it_fills_the_workers_memory(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """100 values may be: what a task sends of 5,000 and of 500 classes is no more than that they are too many."""
    monkeypatch.setattr(survey, "MAX_CATEGORIES", 100)
    names = tuple(f"c{i}" for i in range(500))
    settings = points.multiclass('classes = ["low", "mid", "high"]', f"classes = {list(names)}".replace("'", '"'))
    apart = survey.Apart(settings.label, settings.task, [])

    def told(values: pa.Array) -> dict[Any, Any]:
        count = len(values)
        columns = {"late": pa.array([names[i % 500] for i in range(count)]), "colour": values}
        batch = pa.record_batch({**columns, "split_hash": pa.array(range(count), pa.int64())})
        reading = survey._Reading(apart, [], ["colour"], 500, None, survey.Sample(0, 10))
        tracemalloc.start()
        found = {value: counts for (kind, value), counts in reading([batch, batch.slice(0, 50)]) if kind == 0}
        assert tracemalloc.get_traced_memory()[1] < 5_000_000, "the counts of all would be 20 MB"
        tracemalloc.stop()
        return found

    key = told(pa.array([str(i) for i in range(5_000)]))
    assert len(key) == 101 and sum(counts.size for counts in key.values()) == 101
    # As many values as may be, of a file's dictionary that has more: all of them are counted.
    values = pa.DictionaryArray.from_arrays(pa.array([i % 100 for i in range(1_000)]), [str(i) for i in range(5_000)])
    kept = told(values)
    assert len(kept) == 100 and {counts.shape for counts in kept.values()} == {(1, 500)}
    assert sum(int(counts.sum()) for counts in kept.values()) == 1_050
    assert kept["7"][0].nonzero()[0].tolist() == [7, 107, 207, 307, 407] and kept["7"][0][7] == 3


def test_a_key_should_be_refused_as_a_category_even_if_one_task_has_all_its_values(
    spark: SparkSession, written: Written
) -> None:
    # A batch is 100,000 rows: when the first one is counted, there are just as many values as may be.
    frame = spark.range(100_100).selectExpr("id", "1.0D AS x", "string(id) AS colour", "int(id % 2) AS late")
    settings = points.settings()
    with pytest.raises(JobError, match=r"colour has more than 100,000 values, which makes it a key"):
        Survey(written(frame.coalesce(1), settings), settings, {})
