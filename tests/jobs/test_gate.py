"""The gate: when a candidate may replace the current model, and what it says when not."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from jobs.judges import gate
from jobs.tables.settings import Dataset
from tests.jobs import points

BASELINE = {"log_loss": 0.55, "auc": 0.5}
PERFECT = {"auc": 1.0, "accuracy": 1.0, "r2": 1.0}


def rules(**changed: Any) -> Dataset:
    settings = points.settings()
    return replace(settings, gate=replace(settings.gate, **{"suspicious_auc": 0.9, **changed}))


def verdict(log_loss: float, auc: float = 0.7, settings: Dataset | None = None, **given: Any) -> dict[str, Any]:
    return gate.judge(settings or rules(), {"log_loss": log_loss, "auc": auc}, BASELINE, **given)


def current(log_loss: float | None = 0.5, change: str = "", later: dict[str, Any] | None = None) -> gate.Current:
    return gate.Current("old", None if log_loss is None else {"log_loss": log_loss, "auc": 0.7}, change, later)


def test_a_first_model_that_beats_the_base_rate_should_pass() -> None:
    told = verdict(0.5)
    assert told["passed"]
    assert told["reasons"] == []
    assert told["current_run"] is None


def test_a_model_no_better_than_the_base_rate_should_be_refused() -> None:
    told = verdict(0.55)
    assert not told["passed"]
    assert told["reasons"] == [
        "no better than the base rate: log loss 0.5500, always guessing the base rate 0.5500. What it has learned does "
        "not help: give it features that tell more, or more rows."
    ]


def test_a_model_too_good_to_be_true_should_raise_the_leak_alarm() -> None:
    assert verdict(0.2, auc=0.9)["passed"]
    told = verdict(0.2, auc=0.91)
    assert not told["passed"]
    (reason,) = told["reasons"]
    assert reason.startswith(
        "leak alarm: AUC 0.9100, above gate.suspicious_auc = 0.9. A model that has seen the answer"
    )
    assert reason.endswith("accept it by gate.suspicious_auc = 1.0 in datasets/points/dataset.toml.")


@pytest.mark.parametrize(
    ("make", "figure"), [(points.settings, "AUC"), (points.multiclass, "accuracy"), (points.regression, "R2")]
)
def test_a_model_of_easy_data_should_pass_with_a_word_unless_the_settings_bound_it(
    make: Callable[[], Dataset], figure: str
) -> None:
    settings = make()
    settings = replace(settings, gate=replace(settings.gate, suspicious_auc=None))
    told = gate.judge(settings, {"log_loss": 0.01, "rmse": 0.01, **PERFECT}, {"log_loss": 0.55, "rmse": 1.0})
    assert told["passed"]
    assert told["checks"][1] == {
        "name": "no leak alarm",
        "passed": True,
        "detail": f"no single feature tells the label; of the whole model {figure} 1.0000, so good that it is worth a "
        "look: is each feature known beforehand?",
    }


def test_many_classes_should_be_alarmed_by_single_features_alone() -> None:
    leak = "petal alone is right for 99.5 % of the rows"
    (reason,) = gate.judge(points.multiclass(), {"log_loss": 0.1, **PERFECT}, BASELINE, leaks=[leak])["reasons"]
    assert reason.startswith(f"leak alarm: {leak}. A model that has seen the answer")
    assert reason.endswith("accept it by gate.suspicious_share = 1.0 in datasets/points/dataset.toml.")
    with pytest.raises(ValueError, match="suspicious_auc: one class against the rest, AUC nears 1 by the number"):
        points.multiclass("tolerance = 0.01", "tolerance = 0.01\nsuspicious_auc = 0.9")


def test_labels_that_nobody_knows_should_be_named_and_refuse_the_model_past_a_share() -> None:
    unknown = {"labelled": 1000, "rows": 10, "texts": {"yes": 7, "unknown": 3}}
    told = verdict(0.5, unknown_labels=unknown)
    assert told["passed"]
    said = "10 of 1,000 labels are unknown texts and left out ('yes' 7, 'unknown' 3)"
    assert {"name": "labels known", "passed": True, "detail": said} in told["checks"]
    (reason,) = verdict(0.5, unknown_labels=unknown | {"rows": 11})["reasons"]
    assert reason.startswith("unknown labels: 11 of 1,000 labels are unknown texts and left out")
    assert "set gate.max_unknown_label_share in datasets/points/dataset.toml" in reason


def test_a_feature_that_alone_tells_the_label_should_raise_the_leak_alarm() -> None:
    told = verdict(0.5, leaks=["delay alone has AUC 0.999"])
    (reason,) = told["reasons"]
    assert reason.startswith(
        "leak alarm: delay alone has AUC 0.999. A model that has seen the answer fails on rows whose"
    )


def test_a_candidate_should_not_be_worse_than_the_current_model_by_more_than_the_tolerance() -> None:
    assert verdict(0.509, current=current(0.5))["passed"]
    told = verdict(0.511, current=current(0.5))
    assert not told["passed"]
    assert "on the same rows run old has 0.5000" in told["reasons"][0]
    assert told["current_run"] == "old"


def test_a_current_model_that_was_split_otherwise_should_be_told_to_have_seen_some_of_the_rows() -> None:
    """Its figure is too good: who passes beside it passes, and who does not is told what to judge by."""
    before = current(0.5)._replace(split="by the keys, 20% held out, seed 0")
    assert verdict(0.509, current=before)["passed"]
    (reason,) = verdict(0.511, current=before)["reasons"]
    assert "that one was split by the keys, 20% held out, seed 0 and has learned from some of them" in reason
    assert reason.endswith("dml models promote RUN --dataset points --even-if-refused.")


def test_too_many_rows_in_quarantine_should_refuse_the_model() -> None:
    assert verdict(0.5, quarantined=50, raw_rows=1000)["passed"]
    told = verdict(0.5, quarantined=51, raw_rows=1000)
    (reason,) = told["reasons"]
    assert reason.startswith(
        "too many rows in quarantine: 51 of 1,000 raw rows are in quarantine (5.10%); allowed are 5.00%. What is "
        "missing"
    )
    assert "set gate.max_quarantined_share in datasets/points/dataset.toml" in reason


def test_changed_features_should_be_refused_until_they_are_declared() -> None:
    change = gate.feature_change("binary", {"x": "number", "size": "number"}, points.settings())
    assert change == "added colour; gone size"
    told = verdict(0.5, current=current(None, change))
    (reason,) = told["reasons"]
    assert reason.startswith(
        "other features: the features are not those of run old: added colour; gone size. If that is meant,"
    )
    assert "gate.feature_change of datasets/points/dataset.toml" in reason
    declared = verdict(0.5, settings=rules(feature_change="colours are known now"), current=current(None, change))
    assert declared["passed"]
    assert any("declared: colours are known now" in check["detail"] for check in declared["checks"])


def test_the_same_features_should_be_no_change_but_another_task_is_one() -> None:
    same = {"x": "number", "colour": "category"}
    assert gate.feature_change("binary", same, points.settings()) == ""
    other = {"x": "category", "colour": "category"}
    assert gate.feature_change("binary", other, points.settings()) == "x was a category and is a number"
    assert gate.feature_change("regression", same, points.settings()) == "the task was regression and is binary"


def later_rows(figure: float, guess: float, main: str = "log_loss", rows: int = 100) -> dict[str, Any]:
    return {main: figure, "rows": rows, "baseline": {main: guess}}


@pytest.mark.parametrize(
    ("make", "guess", "main", "name"),
    [
        (points.settings, "the base rate", "log_loss", "log loss"),
        (points.multiclass, "the class shares", "log_loss", "log loss"),
        (points.regression, "the mean", "rmse", "RMSE"),
    ],
)
@pytest.mark.parametrize("figure", [0.5599, 0.56, 0.58])
def test_a_model_that_is_no_better_than_guessing_on_later_rows_should_be_refused_first_of_all(
    make: Callable[[], Dataset], guess: str, main: str, name: str, figure: float
) -> None:
    settings = make()
    held_out = {main: 0.1, "auc": 0.9, "accuracy": 0.9, "r2": 0.9}
    told = gate.judge(settings, held_out, {main: 0.55}, later=later_rows(figure, 0.56, main))
    first = told["checks"][0]
    assert told["passed"] == first["passed"] == (figure < 0.56)
    assert first["name"] == f"{'better' if told['passed'] else 'no better'} than {guess} out of time"
    assert first["detail"].startswith(f"{name} {figure:.4f} on 100 later rows, always guessing {guess} 0.5600")
    if not told["passed"]:
        assert "It will not help tomorrow" in first["detail"]
        assert "leave out of the features what tells single days" in first["detail"]
        assert "accept it by gate.out_of_time = false in datasets/points/dataset.toml" in first["detail"]
    accepted = replace(settings, gate=replace(settings.gate, out_of_time=False))
    assert gate.judge(accepted, held_out, {main: 0.55}, later=later_rows(figure, 0.56, main))["passed"]


def test_a_candidate_should_not_be_worse_than_the_current_model_on_later_rows() -> None:
    old = current(later={"log_loss": 0.51, "rows": 100})
    (reason,) = verdict(0.5, current=old, later=later_rows(0.53, 0.56))["reasons"]
    assert reason.startswith(
        "worse than the current model out of time: log loss 0.5300 on later rows, run old had 0.5100"
    )
    assert verdict(0.5, current=old, later=later_rows(0.515, 0.56))["passed"]
    assert verdict(0.5, settings=rules(out_of_time=False), current=old, later=later_rows(0.53, 0.56))["passed"]


def test_figures_of_other_later_rows_should_not_be_compared() -> None:
    old = current(later={"log_loss": 0.1, "rows": 99})
    assert verdict(0.5, current=old, later=later_rows(0.53, 0.56))["passed"]


def test_a_regression_should_be_judged_by_its_rmse_and_r2() -> None:
    settings = points.regression()
    mean = {"rmse": 10.0, "r2": 0.0}
    assert gate.judge(settings, {"rmse": 8.0, "r2": 0.36}, mean)["passed"]
    assert gate.judge(settings, {"rmse": 10.5, "r2": -0.1}, mean)["reasons"] == [
        "no better than the mean: RMSE 10.5000, always guessing the mean 10.0000. What it has learned does not help: "
        "give it features that tell more, or more rows."
    ]
    bound = replace(settings, gate=replace(settings.gate, suspicious_r2=0.99))
    (leak,) = gate.judge(bound, {"rmse": 0.1, "r2": 0.995}, mean)["reasons"]
    assert leak.startswith("leak alarm: R2 0.9950, above gate.suspicious_r2 = 0.99. A model that has seen")
