"""The model card of each task, as its reader finds it."""

import copy
import re
from dataclasses import replace
from typing import Any

import pytest

from jobs.judges import card
from jobs.tables.settings import Dataset
from tests.jobs.test_profiling import of_task

FEATURES = [
    {"name": "x", "kind": "number", "missing": -1e300, "missing_rows": 12},
    {"name": "colour", "kind": "category", "encoding": {"red": 0.3}, "prior": 0.2, "unseen": 0.2, "missing": 0.2}
    | {"missing_rows": 0},
]
GATE = {
    "passed": True,
    "reasons": [],
    "checks": [{"name": "no leak alarm", "passed": True, "detail": "AUC 0.7470"}],
    "current_run": "run-0",
}
OWN: dict[str, dict[str, Any]] = {
    "binary": {
        "main_metric": "log_loss",
        "label": {"train": {"positives": 2000}, "test": {"positives": 480}},
        "test": {"rows": 2000, "auc": 0.747, "pr_auc": 0.5239, "log_loss": 0.47, "brier": 0.15, "accuracy": 0.793}
        | {"confusion": {"tp": 300, "fp": 100, "tn": 1420, "fn": 180}},
        "baseline": {"rows": 2000, "auc": 0.5, "pr_auc": 0.24, "log_loss": 0.548, "brier": 0.181, "accuracy": 0.76},
        "threshold": 0.5,
    },
    "multiclass": {
        "main_metric": "log_loss",
        "label": {"train": {"counts": [6000, 1500, 500]}, "test": {"counts": [1500, 400, 100]}},
        "test": {"rows": 2000, "auc": 0.91, "log_loss": 0.47, "brier": 0.15, "accuracy": 0.9, "macro_f1": 0.81}
        | {"confusion": [[1490, 5, 5], [30, 360, 10], [40, 0, 60]]},
        "baseline": {"rows": 2000, "auc": 0.5, "log_loss": 0.548, "brier": 0.2, "accuracy": 0.75, "macro_f1": 0.29},
    },
    "regression": {
        "main_metric": "rmse",
        "label": {
            "train": {"mean": 1234.5, "std": 321.0987, "min": 0.0, "max": 99999.0},
            "test": {"mean": 1230.1, "std": 320.0, "min": 5.0, "max": 88888.0},
        },
        "test": {"rows": 2000, "rmse": 201.234567, "mae": 99.9, "r2": 0.61, "bias": -0.00123},
        "baseline": {"rows": 2000, "rmse": 321.0, "mae": 250.0, "r2": 0.0, "bias": 4.4},
    },
}
LABELS = {"binary": "", "multiclass": 'classes = ["a", "b|c", "d"]', "regression": 'unit = "EUR"'}


def settings_of(task: str) -> Dataset:
    return of_task(task, LABELS[task])


def metrics_of(task: str) -> dict[str, Any]:
    own = copy.deepcopy(OWN[task])
    main = own["main_metric"]
    later = {**own["test"], main: own["baseline"][main] * 1.05, "rows": 900, "baseline": own["baseline"]}
    loss = own["test"][main]
    seen = "mean" if task == "regression" else "rate"
    slices = [
        {"value": "red", "rows": 1200, seen: 0.2, main: loss * 0.9, "baseline": loss * 1.1},
        {"value": "blue", "rows": 700, seen: 0.3, main: loss * 1.5, "baseline": loss * 1.8},
        {"value": "green", "rows": 80, seen: 0.3, main: loss * 1.1, "baseline": loss},
        {"value": None, "rows": 20, seen: 0.3, main: loss * 9, "baseline": loss},
    ]
    return {
        "dataset": "points",
        "run_id": "run-1",
        "revision": "abc1234",
        "created": "2026-11-25T03:00:00+00:00",
        "task": task,
        "versions": {"spark": "3.5.6", "numpy": "2.2.6"},
        "rows": {"train": 8000, "test": 2000},
        **own,
        "out_of_time": {"trained_on": "2024-01 to 2024-08", "tested_on": "2024-09", "trained_rows": 7000, **later},
        "current": {**own["test"], main: loss * 1.01, "run_id": "run-0"},
        "interval": {"metric": main, "low": loss * 0.97, "high": loss * 1.03, "level": 0.95, "method": "bootstrap"},
        "calibration": [
            {"predicted": 0.1, "observed": 0.12, "rows": 1500},
            {"predicted": 0.6, "observed": 0.5, "rows": 500},
        ],
        "slices": {"colour": slices},
        "importances": [{"feature": "x", "importance": 1.0}, {"feature": "colour", "importance": 0.0}],
        "tree": {"depth": 3, "leaves": 1595, "nodes": 3189},
        "settings": {"depth": 3, "min_leaf": 5, "smoothing": 10.0, "bins": 128, "test_share": 0.2, "seed": 0},
        "tuning": None,
    }


def profile_of(task: str) -> dict[str, Any]:
    label: Any = {"binary": 0, "multiclass": [0, 0, 0], "regression": 0.0}[task]
    ends: list[Any] = {
        "binary": [0, 2000],
        "multiclass": [[6000, 0, 0], [0, 1500, 500]],
        "regression": [1000.0 * 4000, 1469.0 * 4000],
    }[task]
    bins = [{"from": i, "to": i, "rows": 5000, "train": 4000, "label": ends[i]} for i in (0, 1)]
    if task == "binary":
        bins[0]["train"], bins[1]["train"] = 6000, 2000
    if task == "multiclass":
        bins[0]["train"], bins[1]["train"] = 6000, 2000
    none = {"rows": 0, "train": 0, "label": label}
    return {
        "rows": 10000,
        "train": 8000,
        "time": {"column": "day", "min": "2024-01-01", "max": "2024-09-30"},
        "label": {"column": "late", "rows": 8000, "std": 321.0987},
        "features": [
            {"name": "x", "kind": "number", "missing": {**none, "rows": 6000}, "histogram": bins, "distinct": 2}
            | {"quantiles": {"5": 0.0, "25": 0.0, "50": 1.0, "75": 1.0, "95": 1234567.0}},
            {"name": "colour", "kind": "category", "missing": none, "distinct": 1, "others": none}
            | {"top": [{"value": "red", "rows": 10000, "train": 8000, "label": bins[0]["label"]}]},
        ],
    }


DRIFT = {
    "label": {"psi": 0.15, "verdict": "moderate"},
    "features": [
        {"name": "x", "psi": 0.4123, "verdict": "large"}
        | {"missing": {"old": 0.0, "new": 0.6}}
        | {"moves_score": {"by": 0.0312, "of": ""}},
        {"name": "colour", "psi": 0.01, "verdict": "stable", "missing": {"old": 0.0, "new": 0.0}},
    ],
}
TREE = {"features": FEATURES, "nodes": []}


def render(task: str, **changed: Any) -> str:
    given = {"metrics": metrics_of(task), "tree": TREE, "gate": GATE, "profile": profile_of(task), "drift": DRIFT}
    return card.card(**{**given, **changed}, settings=settings_of(task))


def section(text: str, title: str) -> str:
    return text.split(f"\n## {title}\n")[1].split("\n## ")[0]


@pytest.mark.parametrize("task", OWN)
def test_a_card_should_have_the_sections_of_the_paper_in_order(task: str) -> None:
    assert re.findall(r"^## (.*)$", render(task), re.MULTILINE) == [
        "Model details",
        "Intended use",
        "Factors",
        "Metrics",
        "Evaluation data",
        "Training data",
        "Quantitative analyses",
        "Ethical considerations and caveats",
        "How to score a row",
    ]


@pytest.mark.parametrize("task", OWN)
def test_a_card_should_be_plain_markdown_with_whole_tables(task: str) -> None:
    text = render(task)
    assert not re.search(r"None|\bnan\b|\{|\}", text)
    assert not re.search(r"\d\.\d{7}", text)
    for block in text.split("\n\n"):
        if block.startswith("| "):
            assert len({len(re.findall(r"(?<!\\)\|", line)) for line in block.splitlines()}) == 1, block


@pytest.mark.parametrize(
    ("task", "said"),
    [
        ("binary", "the probability of `late`: that it is late. {}It has log loss 0.4700 on 2,000 held-out rows"),
        ("multiclass", "which of 3 classes `late` is, with a probability for each. {}It has log loss 0.4700 on 2,000"),
        ("regression", "`late` in EUR. {}It has RMSE 201.2 on 2,000 held-out rows; always guessing the mean has 321."),
    ],
)
def test_the_first_paragraph_should_say_what_is_predicted_and_how_well(task: str, said: str) -> None:
    metrics = metrics_of(task)
    main, later = metrics["main_metric"], metrics["out_of_time"]
    ahead = rf"On 900 later rows \(2024-09\) it has .* {card._figure(later[main])}; always guessing .*\. "
    assert re.search(re.escape(said).replace(r"\{\}", ahead), render(task).split("\n## ")[0])
    assert said.format("") in render(task, metrics=metrics | {"out_of_time": None}).split("\n## ")[0]


def test_a_card_should_say_by_what_depth_and_leaf_size_were_chosen() -> None:
    tuning = {"rows": {"fitted": 6000, "validated": 2000}}
    text = render("binary", metrics=metrics_of("binary") | {"tuning": {**tuning, "by": "time"}})
    assert "chosen on the latest part of the training side before `time.cut` (2,000 rows), never by the rows" in text
    text = render("binary", metrics=metrics_of("binary") | {"tuning": {**tuning, "by": "hash"}})
    assert "chosen on a part of the training side (2,000 rows), never by the rows" in text
    assert "this run did not tune them" in render("binary")


@pytest.mark.parametrize(
    ("task", "said"),
    [
        ("binary", "25.0% are positive (2,000)"),
        ("multiclass", "Classes: a 75.0%, b\\|c 18.8%, d 6.2%."),
        ("regression", "mean 1,234 EUR, standard deviation 321.1, and reaches from 0 to 99,999"),
    ],
)
def test_the_label_of_the_training_rows_should_be_told(task: str, said: str) -> None:
    assert said in section(render(task), "Training data")


def test_what_the_threshold_means_should_be_said_beside_the_calls() -> None:
    metrics = metrics_of("binary")
    metrics["calls"] = ["No held-out row is called positive: no probability reaches 0.5."]
    metrics["test"]["confusion"] = {"tp": 0, "fp": 0, "tn": 1520, "fn": 480}
    text = render("binary", metrics=metrics)
    assert "### Right and wrong calls\n\n- No held-out row is called positive: no probability reaches 0.5." in text
    assert "Of the rows called positive" not in text


def test_importances_of_held_out_rows_should_stand_beside_those_of_gain() -> None:
    features = [{"feature": "x", "increase": 0.0312, "deviation": 0.001}]
    permuted = {"permutation": {"metric": "log_loss", "rows": 915, "features": features}}
    text = render("binary", metrics=metrics_of("binary") | permuted)
    assert "| feature | importance | without it |" in text
    assert "| `x` | 100.0% | 0.03120 |" in text
    assert "Without it: by how much log loss rises when the feature's values change hands among 915 held" in text


def test_calls_should_be_told_as_precision_and_recall() -> None:
    assert "Of the rows called positive 75.0% are; of the positive rows 62.5% are called so." in render("binary")
    assert "| b\\|c | 30 | 360 | 10 |" in render("multiclass")


@pytest.mark.parametrize("task", OWN)
def test_failing_on_later_rows_should_be_a_caveat(task: str) -> None:
    assert "**On later rows it is no better than always guessing" in section(
        render(task), "Ethical considerations and caveats"
    )
    good = metrics_of(task)
    main = good["main_metric"]
    good["out_of_time"][main] = good["out_of_time"]["baseline"][main] * 0.95
    assert "5% less, where held-out rows have" in section(
        render(task, metrics=good), "Ethical considerations and caveats"
    )


@pytest.mark.parametrize("task", OWN)
def test_slices_that_do_badly_should_be_pointed_out_if_they_have_rows_enough(task: str) -> None:
    told = section(render(task), "Ethical considerations and caveats")
    assert "**Much worse where `colour` is blue**" in told
    assert "**No better than guessing where `colour` is green**" in told
    assert "is red" not in told
    assert "is missing**" not in told  # 20 rows


@pytest.mark.parametrize("task", OWN)
def test_leaks_drift_and_missing_values_should_be_caveats(task: str) -> None:
    told = section(render(task), "Ethical considerations and caveats")
    assert "**`x` has drifted far** from the data of the current model: PSI 0.4123" in told
    assert "That alone moves what the current model says by +0.03120 on average." in told
    assert "The label has moved since the current model: PSI 0.1500." in told
    assert "`x` is missing in 60% of the rows." in told
    assert ("**Leak alarm**: x alone" in told) == (task == "binary")


def test_a_refused_model_should_say_so_at_once_and_again() -> None:
    refused = {**GATE, "passed": False, "reasons": ["leak alarm: AUC 0.9999."]}
    text = render("binary", gate=refused)
    assert "**The gate refused it**: leak alarm: AUC 0.9999.\n" in text.split("\n## ")[0] + "\n"
    assert "**The gate refused this model**" in section(text, "Ethical considerations and caveats")


@pytest.mark.parametrize("task", OWN)
def test_what_was_not_measured_should_be_said_to_be_unknown(task: str) -> None:
    few = metrics_of(task) | dict.fromkeys(["out_of_time", "current", "interval", "calibration", "slices"])
    text = render(task, metrics=few, profile=None, drift=None, gate={**GATE, "current_run": None})
    assert "**How it does on later rows is unknown**" in text
    assert "No interval was computed" in text
    assert "**Not judged by group**" in text
    assert "Drift was not measured" in text
    assert "Missing in training rows: `x` 12. There is no profile of this run." in text
    assert "leak alarm:" not in text.lower().split("## ethical")[1]


@pytest.mark.parametrize(
    ("x", "shown"),
    [
        (65359, "65,359"),
        (0.47, "0.4700"),
        (0.0, "0"),
        (1.0, "1"),
        (99.9, "99.90"),
        (201.234567, "201.2"),
        (1e6, "1,000,000"),
        (-0.00123, "-0.001230"),
        (1e-9, "1.000e-09"),
        (3.25e20, "3.250e+20"),
        (None, "unknown"),
        (float("inf"), "unknown"),
    ],
)
def test_figures_should_be_short_enough_to_compare(x: float | None, shown: str) -> None:
    assert card._figure(x) == shown


def test_what_the_files_call_a_column_should_be_said() -> None:
    settings = settings_of("binary")
    (name, table), *_ = settings.tables.items()
    named = replace(settings, tables={name: replace(table, names={"x": "площадь|м²", "colour": "Colour"})})
    told = card.card(
        metrics_of("binary"), {"features": FEATURES, "nodes": []}, GATE, profile=None, drift=None, settings=named
    )
    assert "What the files call columns whose names have lost letters: `x` is площадь\\|м²." in told
    assert "lost letters" not in render("binary")


@pytest.mark.parametrize("task", OWN)
def test_several_trees_should_be_told_as_such_with_the_way_to_score_by_them(task: str) -> None:
    metrics = metrics_of(task)
    metrics["tree"] = {"trees": 1200, "depth": 9, "leaves": 37000, "nodes": 72800}
    metrics["settings"] |= {"learner": "boosted", "rounds": 1200, "leaves": 31, "learning_rate": 0.1}
    metrics["settings"] |= {"depth": None, "min_leaf": None}
    metrics["tuning"] = {"rows": {"validated": 2500}}
    link = {"binary": "logistic", "multiclass": "softmax", "regression": "identity"}[task]
    nodes = [{"id": 0, "depth": 0, "value": 0.1}]
    tree = TREE | {"task": task, "classes": [], "link": link, "trees": [{"output": 0, "nodes": nodes}] * 1200}
    text = card.card(metrics, tree, GATE, profile_of(task), None, settings_of(task))
    assert "1,200 gradient-boosted decision trees that predict" in text
    assert "1,200 rounds, at most 31 leaves a tree, learning rate 0.1" in text
    assert "The number of rounds was chosen on a part of the training side (2,500 rows)" in text
    assert "In Athena: not this model, since the query would be too long for SQL engines: it has 1,200 terms" in text
    assert "`base` and the `value` of every one of `trees`, added up by `output`: " in text
    assert "decision tree " not in text


def test_a_query_that_is_too_long_for_athena_should_be_said_to_be_so() -> None:
    assert "In Athena, without a cluster: the query `tree.sql`" in render("binary", query="SELECT 1")
    told = render("binary", query="-" * 300_000)
    assert "In DuckDB or Trino: the query `tree.sql` beside this card, with 300,000 bytes too long for Athena." in told
