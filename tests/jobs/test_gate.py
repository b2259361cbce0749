"""The gate: when a candidate may replace the current model, and what it says when not."""

from typing import Any

from jobs import gate
from jobs.settings import Gate
from tests.jobs import points

RULES: Gate = {"tolerance": 0.01, "suspicious_auc": 0.9}
BASELINE = {"log_loss": 0.55, "auc": 0.5}


def verdict(log_loss: float, auc: float = 0.7, current: float | None = None, change: str = "") -> dict[str, Any]:
    scores = None if current is None else {"log_loss": current, "auc": 0.7}
    run_id = None if current is None and not change else "old"
    return gate.judge({"log_loss": log_loss, "auc": auc}, BASELINE, RULES, run_id, scores, change)


def test_a_first_model_that_beats_the_base_rate_should_pass() -> None:
    told = verdict(0.5)
    assert told["passed"]
    assert told["reasons"] == []
    assert told["current_run"] is None


def test_a_model_no_better_than_the_base_rate_should_be_refused() -> None:
    told = verdict(0.55)
    assert not told["passed"]
    assert told["reasons"] == [
        "better than the base rate: log loss 0.5500, always guessing the base rate 0.5500",
    ]


def test_a_model_too_good_to_be_true_should_raise_the_leak_alarm() -> None:
    assert verdict(0.2, auc=0.9)["passed"]
    told = verdict(0.2, auc=0.91)
    assert not told["passed"]
    assert told["reasons"][0].startswith("no leak alarm: AUC 0.9100; above 0.9")


def test_a_candidate_should_not_be_worse_than_the_current_model_by_more_than_the_tolerance() -> None:
    assert verdict(0.509, current=0.5)["passed"]
    told = verdict(0.511, current=0.5)
    assert not told["passed"]
    assert "on the same rows run old has 0.5000" in told["reasons"][0]
    assert told["current_run"] == "old"


def test_changed_features_should_be_said_as_a_check() -> None:
    change = gate.feature_change(["x", "size"], points.settings())
    assert change == "added colour; gone size"
    told = verdict(0.5, change=change)
    assert told["passed"]
    details = [check["detail"] for check in told["checks"]]
    assert "the features are not those of run old: added colour; gone size" in details


def test_the_same_features_should_be_no_change() -> None:
    assert gate.feature_change(["x", "colour"], points.settings()) == ""
