"""Metrics, each against a case worked out by hand."""

from math import log

import numpy as np
import pytest
from pyspark.sql import SparkSession
from pyspark.sql import functions as F

from jobs.judges import metrics
from jobs.judges.metrics import Errors, Table, Tally
from jobs.learners import survey

# probability, rows, positives: five of ten rows are positive
HAND = Tally(np.array([0.2, 0.5, 0.8]), np.array([4.0, 2.0, 4.0]), np.array([1.0, 1.0, 3.0]))


def test_rows_should_be_counted_by_probability_in_rising_order(spark: SparkSession) -> None:
    rows = [(5, 0.7, 1), (2, 0.1, 0), (5, 0.7, 0), (9, 0.7, 1)]
    scored = spark.createDataFrame(rows, "leaf int, probability double, late int")
    counts = metrics.outcomes(scored, "binary", F.col("late"), ["leaf"], 0)
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


# Two leaves and three classes; 10 rows
CLASSES = Table(np.array([[0.6, 0.3, 0.1], [0.1, 0.2, 0.7]]), np.array([[3.0, 2.0, 1.0], [0.0, 1.0, 3.0]]))


def test_several_classes_should_be_measured_each_against_the_rest() -> None:
    told = metrics.evaluate(CLASSES)
    assert told["confusion"] == [[3, 0, 0], [2, 0, 1], [1, 0, 3]]
    assert told["accuracy"] == pytest.approx(0.6)
    assert told["log_loss"] == pytest.approx(-(3 * log(0.6) + 2 * log(0.3) + log(0.1) + log(0.2) + 3 * log(0.7)) / 10)
    assert told["macro_f1"] == pytest.approx((2 * 3 / (3 + 6) + 0 + 2 * 3 / (4 + 4)) / 3)
    # By class: its rows in either leaf, against the others' rows that have less, and half of those that have as much.
    aucs = [(4 + 3 / 2) / 7, (2 * (3 + 4 / 2) + 3 / 2) / 21, (3 * (5 + 1 / 2) + 5 / 2) / 24]
    assert told["auc"] == pytest.approx(sum(aucs) / 3)
    miss = {(0, 0): 0.4**2 + 0.3**2 + 0.1**2, (0, 1): 0.6**2 + 0.7**2 + 0.1**2, (0, 2): 0.6**2 + 0.3**2 + 0.9**2}
    miss |= {(1, 1): 0.1**2 + 0.8**2 + 0.7**2, (1, 2): 0.1**2 + 0.2**2 + 0.3**2}
    brier = (3 * miss[0, 0] + 2 * miss[0, 1] + miss[0, 2] + miss[1, 1] + 3 * miss[1, 2]) / 10
    assert told["brier"] == pytest.approx(brier)


def test_the_baseline_of_several_classes_should_be_their_shares() -> None:
    told = metrics.evaluate(metrics.baseline(CLASSES, [5, 3, 2]))
    assert told["log_loss"] == pytest.approx(-(3 * log(0.5) + 3 * log(0.3) + 4 * log(0.2)) / 10)
    assert told["auc"] == 0.5


@pytest.fixture(scope="module")
def errors(spark: SparkSession) -> Errors:
    rows = [(i, i % 2, float(i % 2), float(i)) for i in range(4)]  # labels 0 1 2 3, predicted 0 1 0 1
    scored = spark.createDataFrame(rows, "id int, leaf int, prediction double, y double")
    found: Errors = metrics.outcomes(scored, "regression", F.col("y"), ["id"], centre=1.0)
    return found


def test_a_regression_should_be_measured_by_its_errors(errors: Errors) -> None:
    told = metrics.evaluate(errors)  # errors 0 0 -2 -2
    assert told == {
        "rows": 4,
        "rmse": pytest.approx(2**0.5),
        "mae": pytest.approx(1.0),
        "r2": pytest.approx(1 - 8 / 5),
        "bias": pytest.approx(-1.0),
    }


def test_the_baseline_of_a_regression_should_be_the_training_sides_mean(errors: Errors) -> None:
    told = metrics.evaluate(metrics.baseline(errors, None))  # 1 against 0 1 2 3
    assert told["rmse"] == pytest.approx(((1 + 0 + 1 + 4) / 4) ** 0.5)
    assert told["mae"] == pytest.approx(1.0)
    assert told["bias"] == pytest.approx(-0.5)


def test_the_interval_should_cover_the_figure_and_narrow_with_rows() -> None:
    few = metrics.interval(HAND, "binary", seed=0)
    assert few["metric"] == "log_loss"
    assert few["low"] < metrics.evaluate(HAND)["log_loss"] < few["high"]
    many = metrics.interval(Tally(HAND.probability, HAND.rows * 100, HAND.positives * 100), "binary", seed=0)
    assert (few["high"] - few["low"]) == pytest.approx(10 * (many["high"] - many["low"]), rel=0.15)


def test_the_interval_should_be_as_wide_as_theory_says() -> None:
    # Always 0.5 with certainty costs log 2; with probabilities 0.2 and 0.8 the loss of a row has a known variance.
    counts = Tally(np.array([0.2, 0.8]), np.array([500.0, 500.0]), np.array([100.0, 400.0]))
    losses = np.repeat([-log(0.8), -log(0.2)], [800, 200])
    told = metrics.interval(counts, "binary", seed=0)
    assert told["high"] - told["low"] == pytest.approx(2 * 1.96 * losses.std() / 1000**0.5, rel=0.1)


def test_a_regressions_interval_should_be_as_wide_as_theory_says() -> None:
    squares = np.random.default_rng(0).exponential(1.0, 1000)
    groups = np.zeros((1000, 7))
    groups[:, 0], groups[:, 3] = 1, squares
    told = metrics.interval(Errors(groups), "regression", seed=0)
    of_rmse = squares.std() / 1000**0.5 / (2 * squares.mean() ** 0.5)  # delta method
    assert told["high"] - told["low"] == pytest.approx(2 * 1.96 * of_rmse, rel=0.1)


def test_lift_should_say_how_much_richer_the_best_rows_are() -> None:
    table = metrics.lift(HAND)
    half = next(row for row in table if row["share"] == 0.5)
    assert half["rows"] == 5  # the four of 0.8, and half of the two of 0.5
    assert half["rate"] == pytest.approx((3 + 0.5) / 5)
    assert half["lift"] == pytest.approx(half["rate"] / 0.5)
    assert half["found"] == pytest.approx(3.5 / 5)


def test_confidence_should_be_how_often_the_called_class_came_true() -> None:
    told = metrics.confidence(CLASSES)
    assert [column.tolist() for column in told] == [[0.6, 0.7], [6, 4], [3, 3]]


def test_a_regressions_calibration_should_compare_means(spark: SparkSession) -> None:
    rows = [(i, 1, 2.0, 1.0 + i % 2 * 2) for i in range(10)] + [(i, 2, 5.0, 6.0) for i in range(10)]
    scored = spark.createDataFrame(rows, "id int, leaf int, prediction double, y double")
    assert metrics.value_calibration(scored, F.col("y")) == [
        {"predicted": 2.0, "observed": 2.0, "rows": 10},
        {"predicted": 5.0, "observed": 6.0, "rows": 10},
    ]


def test_slices_should_have_their_own_figures_and_name_the_missing_and_the_rest(
    spark: SparkSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(metrics, "SLICE_VALUES", 2)
    rows = [("a", 0.8, 1), ("a", 0.8, 0), ("a", 0.2, 0), (None, 0.5, 1), (None, 0.5, 1), ("b", 0.2, 1)]
    scored = spark.createDataFrame(rows, "colour string, probability double, late int")
    told = metrics.slices(scored, "binary", F.col("late"), ["colour"], 0.25)["colour"]
    assert [(one["value"], one["rows"], one["rate"]) for one in told] == [
        ("a", 3, pytest.approx(1 / 3)),
        ("missing", 2, 1.0),
        ("all others", 1, 1.0),
    ]
    assert told[0]["log_loss"] == pytest.approx(-(log(0.8) + log(0.2) + log(0.8)) / 3)
    assert told[0]["baseline"] == pytest.approx(-(log(0.25) + 2 * log(0.75)) / 3)
    assert [one["accuracy"] for one in told] == [pytest.approx(2 / 3), 1.0, 0.0]
    # Of a column with very many values only the most frequent are sent to the driver.
    monkeypatch.setattr(metrics, "MANY_VALUES", 1)
    assert metrics.slices(scored, "binary", F.col("late"), ["colour"], 0.25)["colour"] == told


def test_slices_of_several_classes_and_of_values_should_have_theirs(spark: SparkSession) -> None:
    rows = [("a", [0.6, 0.3, 0.1], 0), ("a", [0.6, 0.3, 0.1], 2), ("b", [0.1, 0.2, 0.7], 2)]
    scored = spark.createDataFrame(rows, "colour string, probabilities array<double>, y int")
    a, b = metrics.slices(scored, "multiclass", F.col("y"), ["colour"], [0.5, 0.3, 0.2])["colour"]
    assert (a["log_loss"], a["accuracy"]) == (pytest.approx(-(log(0.6) + log(0.1)) / 2), 0.5)
    assert b["baseline"] == pytest.approx(-log(0.2))
    values = spark.createDataFrame([("a", 1.0, 3.0), ("a", 1.0, 1.0)], "colour string, prediction double, y double")
    (one,) = metrics.slices(values, "regression", F.col("y"), ["colour"], 0.0)["colour"]
    assert (one["mean"], one["rmse"], one["mae"]) == (2.0, pytest.approx(2**0.5), 1.0)
    assert one["baseline"] == pytest.approx(5**0.5)


def test_the_single_figures_of_any_task_should_be_what_a_run_publishes() -> None:
    confusion = [[0] * 56 for _ in range(56)]
    assert metrics.single({"macro_f1": 0.5, "rows": 9, "confusion": confusion}) == {"macro_f1": 0.5, "rows": 9}
    assert metrics.single({"auc": 0.7, "rows": 9, "confusion": {"tp": 1}}) == {"auc": 0.7, "rows": 9}
    later = {"rmse": 3.5, "rows": 4, "baseline": {"rmse": 4.0}}
    told = {"rmse": 2.5, "rows": 9, "out_of_time_rmse": 3.5, "out_of_time_rows": 4}
    assert metrics.single({"rmse": 2.5, "rows": 9}, later) == told


def test_many_different_answers_should_be_tallied_in_steps_that_change_no_figure() -> None:
    random = np.random.default_rng(3)
    said = random.beta(2, 5, size=survey.MANY_ANSWERS + 5000)
    label = (random.random(len(said)) < said).astype(int)
    exact = metrics.evaluate(metrics.of_answers(said, np.eye(2)[label]))
    answers, counts = survey._tallied(said, label, 2)
    assert len(answers) < 50_000
    assert counts.sum() == len(said)
    stepped = metrics.evaluate(metrics.of_answers(answers, counts))
    assert stepped["log_loss"] == pytest.approx(exact["log_loss"], rel=1e-6)
    assert stepped["auc"] == pytest.approx(exact["auc"], abs=1e-6)


def test_the_interval_of_many_losses_should_be_that_of_all() -> None:
    random = np.random.default_rng(3)
    said = random.beta(2, 5, size=12_000)
    found = metrics.of_answers(said, np.eye(2)[(random.random(len(said)) < said).astype(int)])
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(metrics, "COSTLY", 500)
        few = metrics.interval(found, "binary", 0)
    every = metrics.interval(found, "binary", 0)
    width = every["high"] - every["low"]
    assert (few["low"], few["high"]) == pytest.approx((every["low"], every["high"]), abs=0.1 * width)
