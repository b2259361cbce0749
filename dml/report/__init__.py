"""One HTML page about a model, written when the operator asks for it (`dml report`) and at the end of every run.

Everything is inline SVG and HTML that a template draws: Plotly's script alone weighs 4.5 MB, hides what it draws from
readers and printers, and knows no tree; the page is some hundred kilobytes, needs no script and may load nothing.
"""

import math
from dataclasses import dataclass
from datetime import datetime
from itertools import accumulate
from pathlib import Path
from typing import Any, TypeGuard

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import escape

from datasets import load_dataset
from dml.errors import UserError
from dml.platform import Platform
from dml.report import charts
from dml.report.tree import BOX, BOX_HEIGHT, PICTURE_DEPTH, Tree, number
from dml.run import FIGURES, GUESS, task_of
from stacks.outputs import Output

Document = dict[str, Any]

UNKNOWN, MINUS = "\N{EN DASH}", "\N{MINUS SIGN}"
_EXTREME_LEAVES = 5
_AUC = "chance that a positive row is ranked above a negative one"
# By task: title, key in metrics.json, what a perfect model has, what it says.
_FIGURES = {
    "binary": (
        ("AUC", "auc", 1.0, _AUC),
        ("PR-AUC", "pr_auc", 1.0, "precision, averaged over all recalls"),
        ("log loss", "log_loss", 0.0, "how much it is surprised by what happens; lower is better"),
        ("Brier score", "brier", 0.0, "mean squared error of the probability; lower is better"),
        ("accuracy", "accuracy", 1.0, "share of right calls at the threshold"),
    ),
    "multiclass": (
        ("AUC", "auc", 1.0, "of each class against all others, on average"),
        ("log loss", "log_loss", 0.0, "how much it is surprised by what happens; lower is better"),
        ("Brier score", "brier", 0.0, "squared error of all probabilities; lower is better"),
        ("accuracy", "accuracy", 1.0, "share of rows whose most likely class is right"),
        ("macro F1", "macro_f1", 1.0, "F1 of each class, on average: rare classes count as much"),
    ),
    "regression": (
        ("RMSE", "rmse", 0.0, "root of the mean squared error; lower is better"),
        ("MAE", "mae", 0.0, "mean size of the error; lower is better"),
        ("R2", "r2", 1.0, "share of the variance that is explained"),
    ),
}
_PHASES = ("session", "profile", "tune", "read", "encode", "fit", "score", "out_of_time", "save")


def write(platform: Platform, dataset: str, run_id: str | None, *, folder: Path) -> Path:
    """Write the page about a run's model into `folder` and return its path. `run_id` None: the current model.

    Raises UserError when there is no current model, or when the run has no metrics or no tree.
    """
    if run_id is None:
        current = platform.json_object(Output.MODELS_BUCKET, f"{dataset}/CURRENT.json")
        if current is None:
            raise UserError(
                f"There is no current model of {dataset} yet: "
                f"{platform.uri(Output.MODELS_BUCKET, f'{dataset}/CURRENT.json')} does not exist. "
                f"Train one: dml run {dataset}; or name a run: dml report {dataset} --run RUN_ID."
            )
        run_id = str(current["run_id"])
    metrics = _left_by(platform, dataset, run_id, "metrics.json")
    tree = _left_by(platform, dataset, run_id, "tree.json")
    gate, drift = (
        platform.json_object(Output.MODELS_BUCKET, f"{dataset}/{run_id}/{name}.json") for name in ("gate", "drift")
    )
    prepared = platform.json_object(Output.LAKE_BUCKET, f"{dataset}/runs/{run_id}/prepare.json")
    folder.mkdir(parents=True, exist_ok=True)
    page = folder / f"{dataset}-{run_id}.html"
    shown = render(metrics, tree, gate, prepared, title=load_dataset(dataset).title, drift=drift)
    page.write_text(shown, encoding="utf-8")
    return page


def render(
    metrics: Document,
    tree: Document,
    gate: Document | None,
    prepared: Document | None,
    *,
    title: str,
    drift: Document | None = None,
) -> str:
    """The whole page. `gate`, `prepared` and `drift` may be missing: the page then says so, or leaves it out."""
    task = task_of(metrics)
    drawn = Tree(tree, metrics.get("base_rate"))
    scores = [Score.of(metrics, *figure) for figure in _FIGURES[task]]
    likely, unlikely = drawn.extremes(_EXTREME_LEAVES)
    below = drawn.below_picture()
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "count": _count,
        "percent": _percent,
        "figure": _figure,
        "seconds": _seconds,
        "number": number,
        "encoded": _percent if task == "binary" else lambda value: number(value, 4),
        "calibrated": (lambda value: number(value, 4)) if task == "regression" else _percent,
    }
    return environment.get_template("page.html.j2").render(
        title=title,
        metrics=metrics,
        task=task,
        classes=tree.get("classes", []),
        guess=GUESS[task],
        **_words(task, metrics, tree),
        more=_more(task, metrics, drift),
        positive=tree["positive"],
        created=_when(metrics["created"]),
        scores=scores,
        later=metrics["out_of_time"],
        worse_later=[score.title for score in scores if score.later and (score.later.skill or 0) < 0],
        tree=drawn,
        picture=drawn.picture(),
        picture_depth=PICTURE_DEPTH,
        box=(BOX, BOX_HEIGHT),
        below=[(branch, drawn.rule(branch).conditions) for branch in below],
        likely=likely,
        unlikely=unlikely,
        roc=charts.roc(metrics) if task == "binary" else None,
        calibration=charts.calibration(metrics["calibration"], values=task == "regression"),
        plot=(charts.LEFT, charts.TOP, charts.SIDE, charts.STRIP),
        features=_features(metrics, tree),
        gate=gate,
        prepared=prepared,
        flow=_flow(metrics, prepared),
        preparing=sum(took for phase, took in prepared["seconds"].items() if phase != "total") if prepared else None,
        phases=_phases(metrics["seconds"]),
        settings=_flat(metrics["settings"]),
    )


@dataclass(frozen=True)
class Side:
    """A figure on one kind of test rows: `skill` is the share of the way from guessing the base rate to perfect."""

    value: float | None
    baseline: float | None
    skill: float | None

    @classmethod
    def of(cls, value: float | None, baseline: float | None, perfect: float) -> "Side":
        if value is None or baseline is None or not math.isfinite(value + baseline) or baseline == perfect:
            return cls(value, baseline, None)
        return cls(value, baseline, (value - baseline) / (perfect - baseline))


@dataclass(frozen=True)
class Score:
    title: str
    says: str
    test: Side
    later: Side | None

    @classmethod
    def of(cls, metrics: Document, title: str, key: str, perfect: float, says: str) -> "Score":
        later = metrics["out_of_time"]
        return cls(
            title,
            says,
            Side.of(metrics["test"].get(key), metrics["baseline"].get(key), perfect),
            Side.of(later.get(key), later["baseline"].get(key), perfect) if later else None,
        )


@dataclass(frozen=True)
class Phase:
    name: str
    seconds: float
    start: float  # share of the total that was over when it began
    share: float


def _words(task: str, metrics: Document, tree: Document) -> Document:
    """What the page says differently of each task."""
    sides = ("train", "test")
    if task == "regression":
        unit = f" ({tree['unit']})" if tree.get("unit") else ""
        of_sides = metrics["label"]
        return {
            "question": f"What is <em>{escape(tree['label'] + unit)}</em> of a row?",
            "of_them": f", where it is {number(of_sides['train']['mean'], 4)} on average",
            "what_it_says": "the value that it expects of such a row",
            "ends": ("Highest", "Lowest"),
            "stands_for": "the mean of its training rows",
            "calibration_says": "Are its values right on average? On the diagonal, yes.",
            "label_titles": ("Mean", "Standard deviation"),
            "label_cells": {side: [number(of_sides[side][key], 4) for key in ("mean", "std")] for side in sides},
        }
    if task == "multiclass":
        counts = {side: metrics["label"][side]["counts"] for side in sides}
        return {
            "question": f"Which <em>{escape(tree['label'])}</em> is a row: {escape(', '.join(tree['classes']))}?",
            "of_them": "",
            "what_it_says": "the most likely class of such a row and its probability",
            "ends": ("Surest", "Least sure"),
            "stands_for": "where its training rows' classes lie between the extremes",
            "calibration_says": "Is the most likely class right as often as it says? On the diagonal, yes.",
            "label_titles": tree["classes"],
            "label_cells": {side: [_percent(n / (sum(counts[side]) or 1)) for n in counts[side]] for side in sides},
        }
    positives, rows = metrics["positives"], metrics["rows"]
    return {
        "question": f"How likely is it that a row <em>{escape(tree['positive'])}</em>?",
        "of_them": f"; in {_percent(metrics['base_rate'])} of them it was so",
        "what_it_says": f"the probability that such a row <em>{escape(tree['positive'])}</em>",
        "ends": ("Most likely", "Least likely"),
        "stands_for": "its share of positive training rows",
        "calibration_says": "Can its probabilities be taken at their word? On the diagonal, yes. Whiskers: 95%.",
        "label_titles": ("Positive", "Share"),
        "label_cells": {
            side: [_count(positives[side]), _percent(positives[side] / rows[side] if rows[side] else None)]
            for side in sides
        },
    }


def _more(task: str, metrics: Document, drift: Document | None) -> list[tuple[str, str, list[str], list[list[str]]]]:
    """Tables of what a run has measured beside its figures: title, prose, head, rows."""
    tables = []
    main = metrics.get("main_metric", "log_loss")
    name = next(title for title, key in FIGURES[task] if key == main)
    if interval := metrics.get("interval"):
        low, high = _figure(interval["low"]), _figure(interval["high"])
        prose = f"On other such rows {name} is between {low} and {high}, 95 times in 100 ({interval['method']})."
        figures = [("this model", metrics["test"]), (f"the {GUESS[task]}", metrics["baseline"])]
        if current := metrics.get("current"):
            figures.append((f"the current model ({current['run_id']})", current))
        rows = [[who, *(_figure(of[key]) for _, key in FIGURES[task])] for who, of in figures]
        tables.append(("On the same rows", prose, ["", *(title for title, _ in FIGURES[task])], rows))
    if lift := metrics.get("lift"):
        head = ["Rows taken", "Rows", "Positive among them", "Times the base rate", "Share of all positives"]
        rows = [
            [
                _percent(one["share"], 0),
                _count(one["rows"]),
                _percent(one["rate"]),
                f"{one['lift']:.2f}",
                _percent(one["found"]),
            ]
            for one in lift
        ]
        tables.append(("Lift", "If one takes the rows with the highest probabilities first.", head, rows))
    second = "mae" if task == "regression" else "accuracy"
    for column, values in (metrics.get("slices") or {}).items():
        observed = "mean" if task == "regression" else "rate"
        head = [column, "Rows", *([observed] if observed in values[0] else []), name, f"{GUESS[task]}: {name}", second]
        rows = [
            [
                f"{one['value']} (worse than guessing)" if one[main] > one["baseline"] else one["value"],
                _count(one["rows"]),
                *([_figure(one[observed])] if observed in one else []),
                *(_figure(one[key]) for key in (main, "baseline", second)),
            ]
            for one in values
        ]
        tables.append((f"By {column}", "The held-out rows of each value by themselves.", head, rows))
    if tuning := metrics.get("tuning"):
        best = tuning["chosen"]
        rows = [
            [
                f"{one['depth']}" + (" (chosen)" if (one["depth"], one["min_leaf"]) == tuple(best.values()) else ""),
                _count(one["min_leaf"]),
                _figure(one[tuning["metric"]], 4),
            ]
            for one in tuning["tried"]
        ]
        prose = (
            f"Depth and leaf size were chosen on {_count(tuning['rows']['validated'])} rows of the training side, by "
            f"trees learned from the other {_count(tuning['rows']['fitted'])}; the held-out rows had no say."
        )
        tables.append(("Depth and leaf size", prose, ["Depth", "Rows a leaf, at least", name], rows))
    if drift:
        rows = [[one["name"], _figure(one["psi"]), one["verdict"]] for one in drift["features"]]
        prose = (
            f"Against the data of the model that was current then: {drift['verdict']} on the whole. PSI is the "
            "population stability index; below 0.1 counts as stable, above 0.25 as a large change."
        )
        tables.append(("Drift of the data", prose, ["Feature", "PSI", "Verdict"], rows))
    return tables


def _left_by(platform: Platform, dataset: str, run_id: str, name: str) -> Document:
    document = platform.json_object(Output.MODELS_BUCKET, f"{dataset}/{run_id}/{name}")
    if document is None:
        raise UserError(
            f"The run {run_id} of {dataset} left no {name}: "
            f"{platform.uri(Output.MODELS_BUCKET, f'{dataset}/{run_id}/{name}')} does not exist. "
            "Either there is no such run or it failed before its model was saved; see what ran: dml status."
        )
    return document


def _features(metrics: Document, tree: Document) -> list[Document]:
    """The features by importance, each with what the tree does with a value that is missing or was never seen."""
    kinds = {feature["name"]: feature for feature in tree["features"]}
    top = max((entry["importance"] for entry in metrics["importances"]), default=0) or 1
    return [
        entry | {"width": entry["importance"] / top, "about": kinds.get(entry["feature"])}
        for entry in metrics["importances"]
    ]


def _flow(metrics: Document, prepared: Document | None) -> list[tuple[str, str, int]]:
    """Where the main table's rows went: (css class, what, rows); without prepare.json only what the split had."""
    parts = [("train", "trained on", metrics["rows"]["train"]), ("test", "held out", metrics["rows"]["test"])]
    if prepared:
        parts += [("left", f"left out: {reason}", rows) for reason, rows in prepared["left_out"].items()]
        lost = prepared["rows_in"] - prepared["rows_out"] - sum(prepared["left_out"].values())
        parts.append(("bad", "in quarantine", lost))  # of the main table only: rows_in counts no other table's
    return [part for part in parts if part[2] > 0]


def _phases(seconds: dict[str, float]) -> list[Phase]:
    took = [(name, seconds[name]) for name in _PHASES if seconds.get(name)]
    total = sum(second for _, second in took) or 1
    starts = accumulate((second for _, second in took), initial=0.0)
    return [
        Phase(name.replace("_", " "), second, start / total, second / total)
        for (name, second), start in zip(took, starts, strict=False)
    ]


def _flat(settings: Document, prefix: str = "") -> list[tuple[str, str]]:
    """Nested settings as (dotted key, value) pairs."""
    found: list[tuple[str, str]] = []
    for key, value in settings.items():
        if isinstance(value, dict):
            found += _flat(value, f"{prefix}{key}.")
        elif isinstance(value, list):
            found.append((prefix + key, ", ".join(map(str, value)) or UNKNOWN))
        else:
            found.append((prefix + key, UNKNOWN if value is None else str(value)))
    return found


def _when(created: str) -> str:
    moment = datetime.fromisoformat(created)
    return f"{moment.day} {moment:%B %Y, %H:%M} {moment.tzname() or ''}".rstrip()


def _known(value: float | None) -> TypeGuard[float]:
    return value is not None and math.isfinite(value)


def _count(value: float | None) -> str:
    return f"{value:,.0f}" if _known(value) else UNKNOWN


def _percent(value: float | None, digits: int = 1) -> str:
    if not _known(value):
        return UNKNOWN
    smallest = 10.0 ** -(digits + 2)
    return f"<{smallest:.{digits}%}" if 0 < value < smallest / 2 else f"{value:.{digits}%}".replace("-", MINUS)


def _figure(value: float | None, digits: int = 3) -> str:
    return f"{value:.{digits}f}" if _known(value) else UNKNOWN


def _seconds(value: float | None) -> str:
    return f"{value:,.1f} s" if _known(value) else UNKNOWN
