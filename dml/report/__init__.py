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

from datasets import load_dataset
from dml.errors import UserError
from dml.platform import Platform
from dml.report import charts
from dml.report.tree import BOX, BOX_HEIGHT, PICTURE_DEPTH, Tree, number
from stacks.outputs import Output

Document = dict[str, Any]

UNKNOWN, MINUS = "\N{EN DASH}", "\N{MINUS SIGN}"
_EXTREME_LEAVES = 5
_FIGURES = (
    ("AUC", "auc", 1.0, "chance that a positive row is ranked above a negative one"),
    ("PR-AUC", "pr_auc", 1.0, "precision, averaged over all recalls"),
    ("log loss", "log_loss", 0.0, "how much it is surprised by what happens; lower is better"),
    ("Brier score", "brier", 0.0, "mean squared error of the probability; lower is better"),
    ("accuracy", "accuracy", 1.0, "share of right calls at the threshold"),
)
_PHASES = ("session", "read", "encode", "fit", "score", "out_of_time", "save")


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
    gate = platform.json_object(Output.MODELS_BUCKET, f"{dataset}/{run_id}/gate.json")
    prepared = platform.json_object(Output.LAKE_BUCKET, f"{dataset}/runs/{run_id}/prepare.json")
    folder.mkdir(parents=True, exist_ok=True)
    page = folder / f"{dataset}-{run_id}.html"
    page.write_text(render(metrics, tree, gate, prepared, title=load_dataset(dataset).title), encoding="utf-8")
    return page


def render(metrics: Document, tree: Document, gate: Document | None, prepared: Document | None, *, title: str) -> str:
    """The whole page. `gate` and `prepared` may be missing: the page then says so."""
    drawn = Tree(tree, metrics["base_rate"])
    scores = [Score.of(metrics, *figure) for figure in _FIGURES]
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
    }
    return environment.get_template("page.html.j2").render(
        title=title,
        metrics=metrics,
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
        roc=charts.roc(metrics),
        calibration=charts.calibration(metrics["calibration"]),
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
