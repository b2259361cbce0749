"""Metrics, each against a case worked out by hand."""

from math import log

import numpy as np
import pytest
from pyspark.sql import SparkSession

from jobs import metrics
from jobs.metrics import Tally

# probability, rows, positives: five of ten rows are positive
HAND = Tally(np.array([0.2, 0.5, 0.8]), np.array([4.0, 2.0, 4.0]), np.array([1.0, 1.0, 3.0]))


def test_rows_should_be_counted_by_probability_in_rising_order(spark: SparkSession) -> None:
    scored = spark.createDataFrame([(0.7, 1), (0.1, 0), (0.7, 0), (0.7, 1)], "probability double, late int")
    counts = metrics.tally(scored, "late")
    assert [column.tolist() for column in counts] == [[0.1, 0.7], [1, 3], [0, 2]]


def test_ties_should_count_half_in_the_auc() -> None:
    # Of the 25 pairs of a positive and a negative row 13 + 3 are in order, 5 are tied, 4 are not... by leaf:
    # the positive of 0.2 ties with 3 negatives; that of 0.5 beats 3 and ties with 1; those of 0.8 beat 4, tie with 1.
    assert metrics.evaluate(HAND)["auc"] == pytest.approx((1 * 1.5 + 1 * 3.5 + 3 * 4.5) / 25)


def test_pr_auc_should_be_the_average_precision() -> None:
    assert metrics.evaluate(HAND)["pr_auc"] == pytest.approx(3 / 5 * 3 / 4 + 1 / 5 * 4 / 6 + 1 / 5 * 5 / 10)


def test_log_loss_and_brier_should_be_means_over_rows() -> None:
    told = metrics.evaluate(HAND)
    assert told["log_loss"] == pytest.approx(-(2 * log(0.2) + 6 * log(0.8) + 2 * log(0.5)) / 10)
    assert told["brier"] == pytest.approx((2 * 0.8**2 + 6 * 0.2**2 + 2 * 0.5**2) / 10)


def test_a_probability_of_one_half_should_count_as_positive() -> None:
    told = metrics.evaluate(HAND)
    assert told["confusion"] == {"tp": 4, "fp": 2, "tn": 3, "fn": 1}
    assert told["accuracy"] == pytest.approx(0.7)


def test_a_sure_leaf_that_is_wrong_should_cost_much_but_not_everything() -> None:
    sure = Tally(np.array([0.0, 1.0]), np.array([2.0, 2.0]), np.array([1.0, 2.0]))
    assert metrics.evaluate(sure)["log_loss"] == pytest.approx(-log(1e-15) / 4)


def test_a_constant_guess_should_rank_nothing() -> None:
    told = metrics.evaluate(metrics.constant(0.3, rows=10, positives=4))
    assert told["auc"] == 0.5
    assert told["pr_auc"] == pytest.approx(0.4)
    assert told["accuracy"] == pytest.approx(0.6)
    assert told["log_loss"] == pytest.approx(-(4 * log(0.3) + 6 * log(0.7)) / 10)


def test_the_roc_curve_should_go_from_corner_to_corner_through_each_leaf() -> None:
    expected = [(0, 0), (1 / 5, 3 / 5), (2 / 5, 4 / 5), (1, 1)]
    assert [pytest.approx(point) for point in metrics.roc(HAND)] == expected


def test_a_long_roc_curve_should_be_thinned_and_keep_its_ends() -> None:
    p = np.linspace(0, 1, 1001)
    curve = metrics.roc(Tally(p, np.full(1001, 2.0), np.ones(1001)))
    assert len(curve) == metrics.ROC_POINTS
    assert (curve[0], curve[-1]) == ((0.0, 0.0), (1.0, 1.0))


def test_calibration_should_compare_predicted_with_observed_and_keep_leaves_whole() -> None:
    table = metrics.calibration(HAND)
    assert table == [
        {"predicted": pytest.approx(0.2), "observed": 0.25, "rows": 4},
        {"predicted": pytest.approx(0.5), "observed": 0.5, "rows": 2},
        {"predicted": pytest.approx(0.8), "observed": 0.75, "rows": 4},
    ]


def test_calibration_should_have_ten_groups_of_like_size_if_leaves_are_small() -> None:
    p = np.linspace(0, 1, 1000)
    table = metrics.calibration(Tally(p, np.ones(1000), np.ones(1000)))
    assert [group["rows"] for group in table] == [100] * 10
