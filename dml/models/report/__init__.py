"""One HTML page about a model, written when the operator asks for it (`dml report`) and at the end of every run.

Everything is inline SVG and HTML that a template draws: Plotly's script alone weighs 4.5 MB, hides what it draws from
readers and printers, and knows no tree; the page is some hundred kilobytes, needs no script and may load nothing.
In here: which sections there are (`page.html.j2`, which draws them), what each is given (this file), how good the model
is in words (`outcome`), diagrams (`charts`), what it looks at (`explained`) and the tree's picture (`tree`) laid out.
Never: a figure that the model's own files do not have.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from itertools import accumulate
from pathlib import Path
from typing import Any, TypeGuard

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from datasets import load_dataset
from dml.errors import UserError
from dml.estate.platform import Platform
from dml.models.figures import BASELINES, FIGURES, MINUS, UNKNOWN, Figure, expectation, quantity, task_of
from dml.models.registry import condition_as_called, current_run
from dml.models.report import charts, explained
from dml.models.report.outcome import STRENGTHS, Classes, outcome
from dml.models.report.tree import BOX, BOX_HEIGHT, PICTURE_DEPTH, Tree, number
from stacks.outputs import Output

Document = dict[str, Any]

_EXTREME_LEAVES = 5
_DRIFTED_FIRST = 10  # features that moved most are shown at once, the others on a click
_WORST_NAMED = 8  # of the slices that do worse than guessing


def write(platform: Platform, dataset: str, run_id: str | None, *, folder: Path) -> Path:
    """Write the page about a run's model into `folder` and return its path. `run_id` None: the current model.

    Raises UserError when there is no current model, or when the run has no metrics or no tree.
    """
    if run_id is None:
        run_id = current_run(
            platform, dataset, otherwise=f"name a run: {platform.command(f'report {dataset} --run RUN_ID')}"
        )
    metrics = _left_by(platform, dataset, run_id, "metrics.json")
    tree = _left_by(platform, dataset, run_id, "tree.json")
    gate = platform.json_object(Output.MODELS_BUCKET, f"{dataset}/{run_id}/gate.json")
    drift = platform.json_object(Output.MODELS_BUCKET, f"{dataset}/{run_id}/drift.json")
    prepared = platform.json_object(Output.LAKE_BUCKET, f"{dataset}/runs/{run_id}/prepare.json")
    folder.mkdir(parents=True, exist_ok=True)
    page = folder / f"{dataset}-{run_id}.html"
    settings = load_dataset(dataset)
    metrics, tree, drift = as_called(settings.called, metrics, tree, drift)
    way_past = platform.command(f"models promote {run_id} --dataset {dataset} --even-if-refused")
    text = render(metrics, tree, gate, prepared, drift, title=settings.title, way_past_gate=way_past)
    page.write_text(text, encoding="utf-8")
    return page


def as_called(
    called: Mapping[str, str], metrics: Document, tree: Document, drift: Document | None
) -> tuple[Document, Document, Document | None]:
    """The three documents with columns as the files call them (`called`, by name), for people."""

    def name(column: str) -> str:
        return called.get(column, column)

    def asked(node: Document) -> Document:
        """A node's question, and its two answers, which begin with the feature's name."""
        own = str(node["feature"])
        texts: dict[str, str] = {key: str(node[key]) for key in ("condition", "otherwise") if key in node}
        said = {key: condition_as_called(text, own, called) for key, text in texts.items()}
        return {**node, **said, "feature": name(own)}

    nodes = [asked(node) if "feature" in node else node for node in tree.get("nodes", ())]
    features = [feature | {"name": name(feature["name"])} for feature in tree["features"]]
    tree = tree | {"label": name(tree["label"]), "features": features} | ({"nodes": nodes} if nodes else {})
    own = _explained_as_called(name, metrics)
    importances = [entry | {"feature": name(entry["feature"])} for entry in metrics["importances"]]
    slices = {name(column): values for column, values in (metrics.get("slices") or {}).items()}
    metrics = metrics | own | {"importances": importances} | ({"slices": slices} if slices else {})
    if drift is not None:
        moved = [one | {"name": name(str(one.get("name") or one.get("feature")))} for one in drift.get("features", [])]
        lists = {key: list(map(name, drift[key])) for key in ("added", "gone") if drift.get(key)}
        drift = drift | {"features": moved} | lists
    return metrics, tree, drift


def _explained_as_called(name: Callable[[str], str], metrics: Document) -> Document:
    """What metrics.json has of single features, by the names that `name` gives."""

    def each(of: list[Document]) -> list[Document]:
        return [one | {"feature": name(one["feature"])} for one in of]

    found: Document = {}
    if permutation := metrics.get("permutation"):
        found["permutation"] = permutation | {"features": each(permutation["features"])}
    if metrics.get("dependence"):
        found["dependence"] = each(metrics["dependence"])
    if told := metrics.get("examples"):
        rows = [
            row
            | {
                "reasons": each(row["reasons"]),
                "keys": {name(key): value for key, value in row["keys"].items()},
            }
            for row in told["rows"]
        ]
        found["examples"] = told | {"rows": rows}
    return found


def render(
    metrics: Document,
    tree: Document,
    gate: Document | None,
    prepared: Document | None,
    drift: Document | None = None,
    *,
    title: str,
    way_past_gate: str = "",
) -> str:
    """The whole page. `gate`, `prepared` and `drift` may be missing: the page then says so, or has no such part.

    `way_past_gate`: the command that makes the model current although the gate refused it.
    """
    task, unit = task_of(metrics), tree.get("unit", "")
    told = outcome(tree, metrics)
    drawn = Tree(tree, told) if "nodes" in tree else None  # of several trees none stands for all
    scores = [Score.of(metrics, figure, unit) for figure in FIGURES[task]]
    most, least = ([], []) if isinstance(told, Classes) or not drawn else drawn.extremes(_EXTREME_LEAVES)
    below = drawn.below_picture() if drawn else []
    slices = _slices(metrics, unit)
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
        "quantity": _quantity,
        "seconds": _seconds,
        "number": number,
        "encoded": {"binary": _percent, "regression": _quantity}.get(task, _figure),
    }
    return environment.get_template("page.html.j2").render(
        title=title,
        task=task,
        guessing=BASELINES[task],
        guess=told.guess,
        label=tree["label"],
        unit=unit,
        in_unit=f" in {unit}" if unit else "",
        metrics=metrics,
        positive=tree.get("positive", ""),
        classes=tree.get("classes", []),
        created=_when(metrics["created"]),
        scores=scores,
        later=metrics["out_of_time"],
        expected=expectation(metrics, unit),
        current=metrics.get("current"),
        interval=metrics.get("interval"),
        worse_later=[score.title for score in scores if score.later and (score.later.skill or 0) < 0],
        slices=slices,
        sliced=sum(len(one.rows) for one in slices),
        worst=[(one.column, row) for one in slices for row in one.rows if row.worse],
        worst_named=_WORST_NAMED,
        tree=drawn,
        averaged=tree.get("link") == "mean",
        legend=told.legend(),
        strengths=STRENGTHS,
        picture=drawn.picture() if drawn else None,
        picture_depth=PICTURE_DEPTH,
        box=(BOX, BOX_HEIGHT),
        below=[(branch, drawn.rule(branch).conditions) for branch in below] if drawn else [],
        most=most,
        least=least,
        surest=drawn.surest(told) if isinstance(told, Classes) and drawn else [],
        roc=charts.roc(metrics) if task == "binary" else None,
        calls=charts.calls(metrics) if task == "binary" else None,
        calls_told=metrics.get("calls") or [],
        lift=metrics.get("lift") or [],
        calibration=charts.calibration(metrics["calibration"], task),
        matrix=charts.matrix(tree["classes"], metrics["test"]["confusion"]) if task == "multiclass" else None,
        plot=(charts.LEFT, charts.TOP, charts.SIDE, charts.STRIP),
        features=_features(metrics, tree),
        shuffled=explained.shuffled(metrics),
        shuffled_metric=explained.metric(metrics),
        dependences=explained.dependences(metrics),
        dependence_plot=(explained.WIDTH, explained.HEIGHT, explained.APART),
        examples=explained.examples(metrics, tree),
        gate=gate,
        way_past_gate=way_past_gate,
        prepared=prepared,
        flow=_flow(metrics, prepared),
        sides=_sides(metrics, tree),
        drift=drift,
        drifted=_drifted(drift) if drift else [],
        drifted_first=_DRIFTED_FIRST,
        tuning=_tuning(metrics.get("tuning")),
        preparing=sum(took for phase, took in prepared["seconds"].items() if phase != "total") if prepared else None,
        phases=_phases(metrics["seconds"]),
        settings=_flat(metrics["settings"]),
    )


@dataclass(frozen=True)
class Side:
    """A figure on one kind of test rows: `skill` is the share of the way from guessing to perfect, if there is one."""

    value: str
    baseline: str
    skill: float | None

    @classmethod
    def of(cls, figure: Figure, value: float | None, baseline: float | None) -> "Side":
        return cls(_shown(figure, value), _shown(figure, baseline), _skill(value, baseline, figure.perfect))


@dataclass(frozen=True)
class Score:
    title: str
    unit: str
    says: str
    test: Side
    later: Side | None  # on later rows, where the dataset names a time: then the main ones
    current: str | None
    interval: tuple[str, str] | None

    @property
    def main(self) -> Side:
        return self.later or self.test

    @classmethod
    def of(cls, metrics: Document, figure: Figure, unit: str) -> "Score":
        later, current, interval = (metrics.get(part) for part in ("out_of_time", "current", "interval"))
        key = figure.key
        return cls(
            figure.title,
            unit if figure.in_unit else "",
            figure.says,
            Side.of(figure, metrics["test"].get(key), metrics["baseline"].get(key)),
            Side.of(figure, later.get(key), later["baseline"].get(key)) if later else None,
            _shown(figure, current.get(key)) if current else None,
            (_shown(figure, interval["low"]), _shown(figure, interval["high"]))
            if interval and interval["metric"] == key
            else None,
        )


@dataclass(frozen=True)
class Slice:
    """The rows with one value of a column: `worse` if guessing does better there."""

    value: str
    rows: int
    observed: str | None
    main: str
    baseline: str
    skill: float | None
    other: str
    worse: bool


@dataclass(frozen=True)
class Slices:
    column: str
    heads: tuple[str | None, str, str]  # what is observed, the main metric, the other one
    rows: list[Slice]


@dataclass(frozen=True)
class Tuning:
    """What was tried, a row for each depth, a cell for each leaf size: (figure, is it the chosen one)."""

    metric: str
    fitted: int | None
    validated: int | None
    by_time: bool
    sample: int
    leaves: list[int]
    rows: list[tuple[int, list[tuple[str, bool]]]]


@dataclass(frozen=True)
class Drifted:
    name: str
    psi: float | None
    verdict: str
    moved: bool
    moves: str  # the mean score by so much, '' if that was not measured


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
            "Either there is no such run or it failed before its model was saved; see what ran: "
            f"{platform.command('status')}"
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


def _slices(metrics: Document, unit: str) -> list[Slices]:
    """The slices of metrics.json; one that is worse than guessing has a main metric above its baseline."""
    task = task_of(metrics)
    figures = {figure.key: figure for figure in FIGURES[task]}
    main = figures["rmse" if task == "regression" else "log_loss"]
    other = figures["mae" if task == "regression" else "accuracy"]
    observed: dict[str, tuple[str, Callable[[float | None], str]]] = {
        "binary": ("rate", _percent),
        "regression": ("mean", _quantity),
    }
    key, words = observed.get(task, (None, _figure))
    found = []
    for column, values in (metrics.get("slices") or {}).items():
        rows = []
        for one in values:
            value, guessing = one.get(main.key), one.get("baseline")
            rows.append(
                Slice(
                    str(one["value"]),
                    one["rows"],
                    words(one.get(key)) if key else None,
                    _shown(main, value),
                    _shown(main, guessing),
                    _skill(value, guessing, main.perfect),
                    _shown(other, one.get(other.key)),
                    _known(value) and _known(guessing) and value > guessing,
                )
            )
        heads = (key, main.title, other.title)
        found.append(Slices(column, heads, rows))
    return found


def _tuning(tuning: Document | None) -> Tuning | None:
    if not tuning:
        return None
    figure = next(one for figures in FIGURES.values() for one in figures if one.key == tuning["metric"])
    counted = tuning.get("rows") or {}
    by_time, sample = tuning.get("by") == "time", tuning.get("sample", 0)
    if "rounds" in tuning["chosen"]:
        chosen_rounds = tuning["chosen"]["rounds"]
        each = [
            (one["rounds"], [(_shown(figure, one.get(tuning["metric"]), digits=4), one["rounds"] == chosen_rounds)])
            for one in tuning["tried"]
        ]
        return Tuning(figure.title, counted.get("fitted"), counted.get("validated"), by_time, sample, [], each)
    tried = {(one["depth"], one["min_leaf"]): one.get(tuning["metric"]) for one in tuning["tried"]}
    sampled = {one["min_leaf"] for one in tuning["tried"] if one.get("sampled")}
    chosen = (tuning["chosen"]["depth"], tuning["chosen"]["min_leaf"])
    leaves = sorted({leaf for _, leaf in tried})
    rows = [
        (
            depth,
            [
                (
                    ("~" if leaf in sampled else "") + _shown(figure, tried.get((depth, leaf)), digits=4),
                    (depth, leaf) == chosen,
                )
                for leaf in leaves
            ],
        )
        for depth in sorted({depth for depth, _ in tried})
    ]
    return Tuning(figure.title, counted.get("fitted"), counted.get("validated"), by_time, sample, leaves, rows)


def _drifted(drift: Document) -> list[Drifted]:
    """The features (and the label) of drift.json, those that moved most first."""
    label = drift.get("label")
    told = [*drift.get("features", []), *([{"name": "the label", **label}] if isinstance(label, dict) else [])]
    found = [
        Drifted(
            str(one.get("name") or one.get("feature")),
            one.get("psi"),
            str(one.get("verdict") or UNKNOWN),
            one.get("verdict") == "large",
            explained.moves(one.get("moves_score")),
        )
        for one in told
    ]
    return sorted(found, key=lambda one: -one.psi if _known(one.psi) else 0.0)


def _sides(metrics: Document, tree: Document) -> tuple[list[str], list[list[str]]]:
    """The label on the two sides of the split: heads and rows of a table."""
    task, rows = task_of(metrics), metrics["rows"]
    names = {"train": "training", "test": "held out"}
    if task == "multiclass":
        counts = [metrics["label"][side]["counts"] for side in names]
        groups = charts.class_groups(tree["classes"], counts[0])
        lines = []
        for name, own in groups:
            found = [sum(one[place] for place in own) for one in counts]
            shares = [_percent(n / sum(one) if sum(one) else None) for n, one in zip(found, counts, strict=True)]
            lines.append([name, _count(found[0]), shares[0], _count(found[1]), shares[1]])
        return ["Class", "Training", "Share", "Held out", "Share"], lines
    lines = [[name, _count(rows[side])] for side, name in names.items()]
    for line, side in zip(lines, names, strict=True):
        if task == "regression":
            line += [_quantity(metrics["label"][side].get(key)) for key in ("mean", "std", "min", "max")]
        else:
            positives = metrics["positives"][side]
            line += [_count(positives), _percent(positives / rows[side] if rows[side] else None)]
    more = ["Mean", "Deviation", "Lowest", "Highest"] if task == "regression" else ["Positive", "Share"]
    return ["Side", "Rows", *more], lines


def _flow(metrics: Document, prepared: Document | None) -> list[tuple[str, str, int]]:
    """Where the main table's rows went: (css class, what, rows); without prepare.json only what the split had."""
    parts = [("train", "trained on", metrics["rows"]["train"]), ("test", "held out", metrics["rows"]["test"])]
    if prepared:
        parts += [("left", f"left out: {reason}", rows) for reason, rows in prepared["left_out"].items()]
        lost = prepared["rows_in"] - prepared["rows_out"] - sum(prepared["left_out"].values())
        parts.append(("bad", "in quarantine", lost))  # of the main table only: rows_in counts no other table's
    return [part for part in parts if part[2] > 0]


def _phases(seconds: dict[str, float]) -> list[Phase]:
    took = [(name, second) for name, second in seconds.items() if name != "total" and second]
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
    if 0 < value < smallest / 2:
        return f"<{smallest:.{digits}%}"
    return f"{value:z.{digits}%}".replace("-", MINUS)


def _figure(value: float | None, digits: int = 3) -> str:
    return f"{value:z.{digits}f}".replace("-", MINUS) if _known(value) else UNKNOWN


def _quantity(value: float | None) -> str:
    return quantity(value).replace("-", MINUS) if _known(value) else UNKNOWN


def _shown(figure: Figure, value: float | None, digits: int = 3) -> str:
    """A figure without its unit, which stands once beside its title."""
    return _quantity(value) if figure.in_unit else _figure(value, digits)


def _skill(value: float | None, baseline: float | None, perfect: float | None) -> float | None:
    if perfect is None or not _known(value) or not _known(baseline) or baseline == perfect:
        return None
    return (value - baseline) / (perfect - baseline)


def _seconds(value: float | None) -> str:
    return f"{value:,.1f} s" if _known(value) else UNKNOWN
