"""[decision]: the threshold that errors cost least at, or that has the wanted recall or precision."""

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyspark.sql import SparkSession
from pyspark.sql import functions as F

from jobs import predict, train
from jobs.errors import JobError
from jobs.judges import decision, gate
from jobs.judges.metrics import Tally
from jobs.models import registry
from jobs.models.tasks import PREDICTION, PROBABILITY
from jobs.tables.settings import Decision
from tests.jobs import points
from tests.jobs.conftest import Written

# Ten rows, four of them positive.
TEN = Tally(np.array([0.1, 0.2, 0.4, 0.8]), np.array([3.0, 3.0, 2.0, 2.0]), np.array([0.0, 1.0, 1.0, 2.0]))


@pytest.mark.parametrize(
    ("asked", "threshold"),
    [
        # Of the rows called from .1, .2, .4, .8 on and never: 0 0 1 2 4 misses, 6 3 1 0 0 false alarms.
        ({"cost_of_miss": 1, "cost_of_false_alarm": 1}, 0.6),  # 0.3 costs as much, and is farther from 0.5
        ({"cost_of_miss": 5, "cost_of_false_alarm": 1}, 0.15),
        ({"cost_of_miss": 1, "cost_of_false_alarm": 5}, 0.6),
        ({"cost_of_miss": 100, "cost_of_false_alarm": 0.1}, 0.15),
        ({"recall": 0.75}, 0.3),
        ({"recall": 0.76}, 0.15),
        ({"recall": 1.0}, 0.15),
        ({"precision": 1.0}, 0.6),
        ({"precision": 0.7}, 0.3),
        ({"precision": 0.4}, 0.15),  # so has calling all, with more false alarms
    ],
)
def test_the_threshold_should_be_half_way_between_the_probabilities_that_it_parts(
    asked: dict[str, float], threshold: float
) -> None:
    assert decision.choose(TEN, Decision(**asked)) == (pytest.approx(threshold), True)


def test_of_thresholds_that_cost_the_same_the_one_nearest_to_what_costs_alone_say_should_be_chosen() -> None:
    equal = Tally(np.array([0.1, 0.6, 0.9]), np.array([4.0, 2.0, 2.0]), np.array([0.0, 1.0, 2.0]))
    threshold, _ = decision.choose(equal, Decision(cost_of_miss=1, cost_of_false_alarm=1))
    assert threshold == pytest.approx(0.35), "0.35 and 0.75 make one error each, and 0.5 would be right"


def test_where_no_call_is_worth_its_alarms_none_should_be_made() -> None:
    useless = Tally(np.array([0.2, 1.0]), np.array([8.0, 2.0]), np.array([2.0, 0.0]))
    threshold, _ = decision.choose(useless, Decision(cost_of_miss=1, cost_of_false_alarm=1))
    assert threshold > 1
    told = decision.figures(useless, threshold, Decision(cost_of_miss=1, cost_of_false_alarm=1))
    assert (told["called"], told["precision"], told["cost"], told["cost_of_never"]) == (0, None, 2, 2)


def test_a_precision_that_no_threshold_has_should_be_told_with_the_best_there_is() -> None:
    poor = Tally(np.array([0.1, 0.3, 0.6]), np.array([4.0, 4.0, 2.0]), np.array([0.0, 2.0, 1.0]))
    asked = Decision(precision=0.9)
    threshold, reached = decision.choose(poor, asked)
    assert (threshold, reached) == (pytest.approx(0.2), False), "a half of the rows from 0.2 on, and of those from 0.45"
    chosen = {"threshold": threshold, "reached": reached, "validation": decision.figures(poor, threshold, asked)}
    told = decision.told(asked, {**chosen, "validation_curve": []}, poor, None)
    assert told["says"][0] == (
        "A row is called positive from a probability of 0.2 on. No threshold has the wanted precision of 90% on the "
        "validation part (10 rows): this one has the best there is, 50% (3 of 6 calls are right)."
    )
    assert told["says"][1].endswith("recall 100%; precision 50%, less than the 90% wanted.")
    settings = replace(points.settings(), decision=asked)
    (reason,) = judged(settings, told)["reasons"]
    assert reason.startswith("the wanted precision is reached by no threshold: A row is called positive")
    assert "set a lower decision.precision in datasets/points/dataset.toml" in reason


cells = st.lists(
    st.tuples(st.floats(0, 1), st.integers(0, 5), st.integers(0, 5)), min_size=1, max_size=12, unique_by=lambda c: c[0]
)


@given(cells, st.floats(0.1, 10), st.floats(0.1, 10), st.floats(0.05, 1))
def test_no_other_threshold_should_do_better(
    drawn: list[tuple[float, int, int]], miss: float, alarm: float, wanted: float
) -> None:
    drawn = sorted(cell for cell in drawn if cell[1] + cell[2])
    if not sum(cell[2] for cell in drawn) or not sum(cell[1] for cell in drawn):
        return
    p, negatives, positives = (np.array(own, dtype=float) for own in zip(*drawn, strict=True))
    found = Tally(p, negatives + positives, positives)
    every = [*p, 2.0]  # all ways to call the rows

    def of(asked: Decision, threshold: float) -> dict[str, Any]:
        return decision.figures(found, threshold, asked)

    costs = Decision(cost_of_miss=miss, cost_of_false_alarm=alarm)
    threshold, _ = decision.choose(found, costs)
    assert of(costs, threshold)["cost"] == pytest.approx(min(of(costs, other)["cost"] for other in every))

    recall = Decision(recall=wanted)
    threshold, reached = decision.choose(found, recall)
    fewest = min(of(recall, other)["called"] for other in every if of(recall, other)["recall"] >= wanted - 1e-9)
    assert reached
    assert of(recall, threshold)["called"] == fewest

    precision = Decision(precision=wanted)
    threshold, reached = decision.choose(found, precision)
    fit = [of(precision, other) for other in every if (of(precision, other)["precision"] or 0) >= wanted - 1e-9]
    assert reached == bool(fit)
    if fit:
        assert of(precision, threshold)["recall"] == max(one["recall"] for one in fit)


@pytest.mark.parametrize(
    ("section", "said"),
    [
        ("", "name exactly one way: both costs (cost_of_miss, cost_of_false_alarm), recall or precision"),
        ("recall = 0.9\nprecision = 0.5", "name exactly one way"),
        ("recall = 0.9\ncost_of_miss = 2\ncost_of_false_alarm = 1", "name exactly one way"),
        ("cost_of_miss = 2", "cost_of_false_alarm is missing: errors are weighed against each other"),
        ("cost_of_miss = 0\ncost_of_false_alarm = 1", "greater than 0"),
        ("cost_of_miss = 2\ncost_of_false_alarm = -1", "greater than 0"),
        ("cost_of_miss = nan\ncost_of_false_alarm = 1", "finite number"),
        ("cost_of_miss = inf\ncost_of_false_alarm = 1", "finite number"),
        ("recall = 1.1", "less than or equal to 1"),
        ("precision = 0", "greater than 0"),
    ],
)
def test_what_cannot_be_meant_should_be_told_before_a_cluster_starts(section: str, said: str) -> None:
    with pytest.raises(ValueError, match=r"decision") as told:
        points.settings("[gate]", f"[decision]\n{section}\n[gate]")
    assert said in str(told.value)


@pytest.mark.parametrize("make", [points.multiclass, points.regression])
def test_a_task_without_a_threshold_should_refuse_to_decide(make: Any) -> None:
    with pytest.raises(ValueError, match="decision: it chooses a threshold of a binary task's probability, and a"):
        make("[gate]", "[decision]\nrecall = 0.9\n[gate]")


COSTS = Decision(cost_of_miss=5, cost_of_false_alarm=1)


def calls(cost: float, never: float = 20.0, always: float = 30.0) -> dict[str, Any]:
    counts = {"rows": 100, "positives": 4, "called": 9, "misses": 1, "false_alarms": 6, "recall": 0.75}
    return {**counts, "precision": 1 / 3, "cost": cost, "cost_of_never": never, "cost_of_always": always}


def decided(cost: float, later: float | None = None, **of: float) -> dict[str, Any]:
    own = {"asked": COSTS.asked, "reached": True, "test": calls(cost, **of), "says": []}
    return {**own, "out_of_time": None if later is None else calls(later)}


def judged(settings: Any, told: dict[str, Any], **given: Any) -> dict[str, Any]:
    figures = {"log_loss": 0.5, "auc": 0.7}
    return gate.judge(settings, figures, {"log_loss": 0.55, "auc": 0.5}, decided=told, **given)


def test_calls_that_save_nothing_should_be_refused_on_later_rows_first() -> None:
    settings = replace(points.settings(), decision=COSTS)
    assert judged(settings, decided(11.0, 19.0))["passed"]
    names = [check["name"] for check in judged(settings, decided(11.0, 20.0))["checks"] if not check["passed"]]
    assert names == ["no cheaper than one call for all out of time"]
    (reason,) = judged(settings, decided(30.0, never=40.0))["reasons"]
    assert reason.startswith(
        "no cheaper than one call for all: errors cost 30 on 100 held-out rows, always calling a row positive costs "
        "30. At these costs always calling does as well without a model"
    )
    lenient = replace(settings, gate=replace(settings.gate, out_of_time=False))
    assert judged(lenient, decided(11.0, 20.0))["passed"]


def test_two_models_of_one_decision_should_be_compared_by_cost_and_others_by_log_loss() -> None:
    settings = replace(points.settings(), decision=COSTS)
    old = gate.Current("old", {"log_loss": 0.4, "auc": 0.7}, "", None, "", calls(10.0))
    assert judged(settings, decided(10.4), current=old)["passed"]
    (reason,) = judged(settings, decided(10.6), current=old)["reasons"]
    assert reason.startswith(
        "worse than the current model: errors cost 10.6, on the same rows those of run old cost 10; tolerance 5%"
    )
    assert "or set gate.cost_tolerance in datasets/points/dataset.toml" in reason
    (reason,) = judged(settings, decided(10.0), current=old._replace(decided=None))["reasons"]
    assert reason.startswith("worse than the current model: log loss 0.5000, on the same rows run old has 0.4000")


def noisy(spark: SparkSession, written: Written, settings: Any, flipped: bool = False) -> Any:
    late = "pmod(xxhash64(id), 1000) < 20 * (id % 20)"
    side = "IF(id % 5 = 0, 'test', 'train')"
    rows = spark.range(3000).selectExpr(
        "id", f"{side} AS side", "double(id % 20) AS x", "'red' AS colour", f"int({late}) AS late"
    )
    if flipped:
        rows = rows.withColumn("late", F.expr("IF(side = 'test', 1 - late, late)"))
    return written(rows, settings)


def test_the_threshold_should_be_chosen_on_the_validation_part_and_be_applied_to_every_figure(
    spark: SparkSession, written: Written
) -> None:
    settings = replace(points.settings(), time=None, decision=COSTS, slices=("colour",))
    trained, other = (
        train.fit_and_score(noisy(spark, written, settings, flipped), settings) for flipped in (False, True)
    )
    assert trained.decision is not None
    assert trained.decision == other.decision, "the test side has no part in it"
    threshold = trained.tree["threshold"]
    assert threshold == trained.decision["threshold"] == pytest.approx(1 / 6, abs=0.08), (
        "what the costs alone would say"
    )
    assert (trained.tree["format"], trained.tree["decision"]) == (4, COSTS.asked)
    assert trained.decision["validation"]["rows"] == pytest.approx(600, abs=90)
    told = train.decision_report(settings, trained, None, None)
    assert told is not None
    confusion = trained.test["confusion"]
    assert (told["test"]["misses"], told["test"]["false_alarms"]) == (confusion["fn"], confusion["fp"])
    assert told["test"]["cost"] == 5 * confusion["fn"] + confusion["fp"] < told["test"]["cost_of_never"]
    # Spark calls the rows of the table as the figures have it, those at the threshold among them.
    assert trained.scored is not None
    said = sorted({row[0] for row in trained.scored.select(PROBABILITY).collect()})
    model = registry.Registered("run", "home", {**trained.tree, "threshold": said[1]})
    scored = trained.scored.select(PROBABILITY).select(*predict.said(model)).collect()
    at = model.tree["threshold"]
    assert {row[PREDICTION] for row in scored if row[PROBABILITY] >= at} == {1}
    assert {row[PREDICTION] for row in scored if row[PROBABILITY] < at} == {0}
    assert any(row[PROBABILITY] == at for row in scored)


def test_a_validation_part_of_one_class_should_be_told_with_the_ways_on(spark: SparkSession, written: Written) -> None:
    settings = replace(points.settings(), time=None, decision=COSTS)
    held = F.xxhash64("id").bitwiseAND(2**32 - 1) < 2**30  # what a frame without sides is given, and a quarter of it
    rows = spark.range(400).withColumn("late", F.when(held, 0).otherwise(F.col("id") % 2).cast("int"))
    features = written(rows.selectExpr("id", "double(id) AS x", "'red' AS colour", "late"), settings)
    with pytest.raises(JobError) as told:
        train.fit_and_score(features, settings)
    assert "The label late has one class only on the validation part of the training side: 0 of" in str(told.value)
    assert str(told.value).endswith("or leave out [decision] in datasets/points/dataset.toml.")


def test_a_long_curve_should_be_thinned_and_keep_its_ends_and_its_sparse_part() -> None:
    p = np.concatenate([np.linspace(0.01, 0.1, 5000), [0.5, 0.6, 0.9]])
    curve = decision.curve(Tally(p, np.full(5003, 2.0), np.ones(5003)))
    assert len(curve) <= decision.POINTS
    assert curve[0][1:] == [0.0, 5003.0]
    assert curve[-1][1:] == [5003.0, 0.0]
    assert [point[0] for point in curve[-4:]] == pytest.approx([0.3, 0.55, 0.75, 0.95])


def test_many_probabilities_should_be_told_in_steps_that_none_passes_the_threshold_by() -> None:
    from jobs.learners.survey import _tallied

    said = np.linspace(0.3, 0.31, 200_000)
    threshold = 0.3040001
    answers, counts = _tallied(said, (np.arange(200_000) % 2), 2, threshold)
    assert len(answers) < 2_000
    assert counts[answers >= threshold].sum() == (said >= threshold).sum()
    assert math.isclose(float(counts.sum()), 200_000)
