"""How a model's figures are shown to people: which ones, by task, under which names, and how a number is written."""

import math
from dataclasses import dataclass, replace
from typing import Any

UNKNOWN, MINUS = "\N{EN DASH}", "\N{MINUS SIGN}"


@dataclass(frozen=True)
class Figure:
    """How a metric is shown. `key`: in metrics.json; `perfect`: its best value, None if guessing may have it too."""

    title: str
    key: str
    perfect: float | None
    says: str
    in_unit: bool = False  # is it in the label's unit

    def shown(self, value: float | None, unit: str = "") -> str:
        if value is None or not math.isfinite(value):
            return UNKNOWN
        if not self.in_unit:
            return f"{value:z.3f}"
        return f"{quantity(value)} {unit}".rstrip()


# The figures that an operator is shown of a model, by task; the first is the headline.
_AUC = Figure("AUC", "auc", 1.0, "chance that a positive row is ranked above a negative one")
_LOG_LOSS = Figure("log loss", "log_loss", 0.0, "how much it is surprised by what happens; lower is better")
_BRIER = Figure("Brier", "brier", 0.0, "mean squared error of the probability; lower is better")
FIGURES = {
    "binary": (
        _AUC,
        Figure("PR-AUC", "pr_auc", 1.0, "precision, averaged over all recalls"),
        _LOG_LOSS,
        _BRIER,
        Figure("accuracy", "accuracy", 1.0, "share of right calls at the threshold"),
    ),
    "multiclass": (
        replace(_AUC, says="chance that a row of a class is ranked above one of the rest, averaged over the classes"),
        _LOG_LOSS,
        replace(_BRIER, says="squared error of the probabilities, summed over the classes; lower is better"),
        Figure("accuracy", "accuracy", 1.0, "share of rows whose class it calls"),
        Figure("macro F1", "macro_f1", 1.0, "precision and recall in one, every class counting the same"),
    ),
    "regression": (
        Figure("RMSE", "rmse", 0.0, "root of the mean squared error: big misses count most; lower is better", True),
        Figure("MAE", "mae", 0.0, "mean size of the error; lower is better", True),
        Figure("R²", "r2", 1.0, "share of the label's variance that it explains"),
        Figure("bias", "bias", None, "mean error: above 0 it says too much, below 0 too little", True),
    ),
}
LATER = "out_of_time_"  # before a figure's name in figures.json and CURRENT.json: the same of later rows
BASELINES = {"binary": "base rate", "multiclass": "class shares", "regression": "mean"}  # what guessing knows


def task_of(metrics: dict[str, Any]) -> str:
    """The task of a metrics.json; the first ones knew binary tasks only and did not name it."""
    return str(metrics.get("task", "binary"))


def headline(metrics: dict[str, Any], unit: str) -> str:
    """The figure that stands for the model where there is room for one: the first that these metrics have, of later
    rows if they have those (as of figures.json)."""
    for prefix, where in ((LATER, " out of time"), ("", "")):
        for figure in (figure for figures in FIGURES.values() for figure in figures):
            if prefix + figure.key in metrics:
                return f"{figure.title} {figure.shown(metrics[prefix + figure.key], unit)}{where}"
    return ""


def expectation(metrics: dict[str, Any], unit: str = "") -> tuple[str, bool] | None:
    """What to expect of tomorrow, in a sentence, and whether the model is better than guessing there; None if the
    dataset names no time. `metrics`: a metrics.json."""
    later = metrics.get("out_of_time")
    if not later:
        return None
    task = task_of(metrics)
    main = next(figure for figure in FIGURES[task] if figure.key == metrics.get("main_metric", "log_loss"))
    better = later[main.key] < later["baseline"][main.key]
    told = f"{main.title} {main.shown(later[main.key], unit)} against {main.shown(later['baseline'][main.key], unit)}"
    word = "better" if better else "no better"
    return f"On later rows ({later['tested_on']}) {word} than always guessing the {BASELINES[task]}: {told}.", better


def moved(drift: dict[str, Any] | None, called: dict[str, str], most: int = 5) -> str:
    """The features that a drift.json says have moved, with what that does to the score of the model before; '' if none
    has. `called`: what the files call columns."""
    features = [of for of in (drift or {}).get("features", []) if of.get("verdict") in ("moderate", "large")]

    def told(of: dict[str, Any]) -> str:
        moves = of.get("moves_score")
        where = f" of {moves['of']}" if moves and moves["of"] else ""
        effect = f", moves the mean score{where} by {signed(moves['by'])}" if moves else ""
        return f"{called.get(of['name'], of['name'])} ({of['verdict']}, PSI {of['psi']:.2f}{effect})"

    more = f" and {len(features) - most} more" if len(features) > most else ""
    return ", ".join(map(told, features[:most])) + more


def tried(metrics: dict[str, Any]) -> str:
    """The learners that a run tried, the best first, with their figure on the validation part; '' if it chose none."""
    tuning = metrics.get("tuning") or {}
    board, key = tuning.get("leaderboard"), tuning.get("metric")
    if not board:
        return ""
    main = next(figure for figures in FIGURES.values() for figure in figures if figure.key == key)
    told = ", ".join(f"{one['learner']} {main.shown(one[key])}" for one in board)
    return f"{told} ({main.title} on the validation part)"


def calls(task: str, counts: dict[str, int], threshold: float, unit: str, classes: int = 5) -> str:
    """What was predicted, in rows; of numbers their unit, '' if they have none. `counts`: rows by what was predicted,
    as text."""
    if task == "regression":
        return f"prediction in {unit}" if unit else ""
    if task == "binary":
        positive = counts.get("1", 0)
        none = f"none predicted positive: no probability reaches {threshold:.4g}, so rank rows by it"
        return f"{positive:,} predicted positive" if positive else none
    often = sorted(counts.items(), key=lambda one: (-one[1], one[0]))
    more = f", {len(often) - classes} more classes" if len(often) > classes else ""
    return ", ".join(f"{rows:,} {name}" for name, rows in often[:classes]) + more


def signed(value: float, in_unit: bool | None = None) -> str:
    """A change, as a quantity of the label's unit or to three decimals; not told which: a large one as a quantity."""
    as_quantity = abs(value) >= 10 if in_unit is None else in_unit
    text = quantity(abs(value)) if as_quantity else f"{abs(value):.3f}"
    sign = "" if not float(text.replace(",", "")) else "+" if value > 0 else MINUS
    return sign + text


def quantity(value: float) -> str:
    """A number in the label's unit, to four digits, a whole one without decimals: 0.01234, 12.30, 12, 12,345."""
    whole = abs(value) >= 1000 or value == round(value)
    return f"{value:,.0f}" if whole else f"{value:#.4g}".rstrip(".")
