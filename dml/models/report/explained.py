"""What the model looks at, as a run has measured it on held-out rows: laid out and put in words for the template.

Out of metrics.json's `permutation`, `dependence` and `examples` (jobs/judges/explanation.py); runs of earlier releases
have none of them.
"""

import math
from dataclasses import dataclass
from typing import Any

from dml.models.figures import FIGURES, MINUS, quantity, signed, task_of
from dml.models.report import charts
from dml.models.report.charts import Tick

Document = dict[str, Any]

WIDTH, HEIGHT = 300.0, 130.0  # of a plot of dependence, without its axes
APART = 48.0  # where a missing value stands, right of the plot
NAMED = 24  # characters of a category


@dataclass(frozen=True)
class Point:
    """A value of a feature and what is said for it. `share`: of the scale, from the left, for a bar."""

    x: float
    y: float
    share: float
    value: str
    says: str
    rows: int


@dataclass(frozen=True)
class Dependence:
    """What is said on average by a feature's value: a line over numbers, bars of categories, a missing value apart."""

    feature: str
    kind: str
    of: str  # the class whose probability it is, if there are several
    line: str
    points: list[Point]
    missing: Point | None
    values: list[Tick]
    ticks: list[Tick]
    average: float  # where what is said on average stands on the scale


@dataclass(frozen=True)
class Example:
    which: str
    keys: str
    sentence: str
    observed: str


def shuffled(metrics: Document) -> dict[str, tuple[str, str]]:
    """By feature by how much the main metric rises without it, and by how much that varies; those that were asked."""
    told = metrics.get("permutation")
    if not told:
        return {}
    in_unit = told["metric"] == "rmse"
    return {
        one["feature"]: (signed(one["increase"], in_unit), signed(one["deviation"], in_unit).lstrip("+"))
        for one in told["features"]
    }


def metric(metrics: Document) -> str:
    """The title of what `shuffled` is in."""
    told = metrics.get("permutation") or {"metric": "log_loss"}
    return next(figure.title for figures in FIGURES.values() for figure in figures if figure.key == told["metric"])


def dependences(metrics: Document) -> list[Dependence]:
    """One for each feature that was looked at, all on one scale."""
    told, shares = metrics.get("dependence") or [], task_of(metrics) != "regression"
    every = [point["says"][0] for one in told for point in one["points"]]
    if not every:
        return []
    step = charts.round_step((max(every) - min(every)) * 5 / 4)
    low = math.floor(min(every) / step + 1e-9) * step
    high = max(math.ceil(max(every) / step - 1e-9) * step, low + step)
    values = [low + i * step for i in range(round((high - low) / step) + 1)]
    ticks = [Tick((v - low) / (high - low), _share(v, step) if shares else charts.brief(v, step)) for v in values]
    return [_dependence(one, low, high, ticks, shares) for one in told]


def _dependence(told: Document, low: float, high: float, ticks: list[Tick], shares: bool) -> Dependence:
    number = told["kind"] == "number"
    known = [point for point in told["points"] if point["value"] is not None]
    first = known[0]["value"] if number and known else 0.0
    span = (known[-1]["value"] - first if number and known else 0.0) or 1.0

    def laid(point: Document, x: float) -> Point:
        at = (point["says"][0] - low) / (high - low)
        says = f"{point['says'][0]:.1%}" if shares else quantity(point["says"][0]).replace("-", MINUS)
        text = "missing" if point["value"] is None else _number(point["value"]) if number else _cut(point["value"])
        return Point(charts.LEFT + x, charts.TOP + HEIGHT * (1 - at), at, text, says, point["rows"])

    places = [WIDTH * (point["value"] - first) / span if number else 0.0 for point in known]
    points = [laid(point, place) for point, place in zip(known, places, strict=True)]
    missing = [laid(point, WIDTH + APART) for point in told["points"] if point["value"] is None]
    ends = [Tick(0.0, points[0].value), Tick(1.0, points[-1].value)] if number and len(points) > 1 else []
    rows = sum(point["rows"] for point in told["points"]) or 1
    mean = sum(point["rows"] * point["says"][0] for point in told["points"]) / rows
    return Dependence(
        told["feature"],
        told["kind"],
        told["of"][0],
        "M" + "L".join(f"{point.x:.1f} {point.y:.1f}" for point in points) if points else "",
        points,
        missing[0] if missing else None,
        ends,
        ticks,
        (mean - low) / (high - low),
    )


def examples(metrics: Document, tree: Document) -> list[Example]:
    """Single rows in words."""
    told, task = metrics.get("examples"), task_of(metrics)
    if not told:
        return []
    found = []
    for row in told["rows"]:
        says = quantity(row["says"]).replace("-", MINUS) if task == "regression" else f"{row['says']:.1%}"
        says = f"{row['called']} {says}" if row["called"] else says
        because = ", ".join(
            f"{one['feature']} is {_cell(one['value'])} ({signed(one['effect'], task == 'regression')})"
            for one in row["reasons"]
        )
        rest = f"; all others together {signed(row['rest'], task == 'regression')}" if abs(row["rest"]) > 1e-9 else ""
        sentence = f"{says} because {because}{rest}" if because else f"{says}, as of every row"
        keys = ", ".join(f"{key} {_cell(value)}" for key, value in row["keys"].items())
        observed = row["observed"]
        if task == "binary":
            observed = "it was so" if observed else "it was not"
        elif task == "regression":
            observed = f"it was {quantity(observed).replace('-', MINUS)} {tree.get('unit', '')}".rstrip()
        else:
            observed = f"it was {observed}"
        found.append(Example(row["which"], keys, sentence, observed))
    return found


def moves(told: Document | None) -> str:
    """What a feature's move does to the mean score (of drift.json), '' if that was not measured."""
    if not told:
        return ""
    return signed(told["by"]) + (f" ({_cut(told['of'])})" if told["of"] else "")


def _share(value: float, step: float) -> str:
    digits = max(0, math.ceil(-math.log10(step * 100) - 1e-9))
    return f"{value:.{digits}%}"


def _number(value: float) -> str:
    return f"{value:,.6g}".replace("-", MINUS)


def _cell(value: Any) -> str:
    if value is None:
        return "missing"
    if isinstance(value, float):
        return _number(value)
    return str(value).lower() if isinstance(value, bool) else str(value)


def _cut(text: str) -> str:
    return text if len(text) <= NAMED else f"{text[: NAMED - 1]}…"
