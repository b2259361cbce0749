"""Where the marks of the report's charts stand, worked out when the operator asks for it; the template draws them."""

import math
from dataclasses import dataclass, replace
from typing import Any

from dml.report.tree import number, wilson

SIDE, LEFT, TOP = 300.0, 46.0, 10.0  # the plot's square and where it starts, in SVG units
STRIP = 46.0  # height of the row-count bars under the calibration curve


@dataclass(frozen=True)
class Tick:
    at: float
    label: str


@dataclass(frozen=True)
class Roc:
    line: str
    area: str
    ticks: list[Tick]
    chosen: tuple[float, float] | None  # where the threshold stands, if both classes are there
    hit_rate: float
    false_alarms: float


@dataclass(frozen=True)
class Dot:
    x: float
    y: float
    high: float
    low: float
    bar: float
    predicted: float
    observed: float
    rows: int


@dataclass(frozen=True)
class Calibration:
    line: str
    dots: list[Dot]
    ticks: list[Tick]
    fewest: int
    most: int
    axes: tuple[str, str] = ("predicted probability", "share that it came true of")


def roc(metrics: dict[str, Any]) -> Roc:
    """The ROC curve with the threshold's own point, which comes from the confusion matrix."""
    line = "M" + "L".join(f"{_x(false):.1f} {_y(true):.1f}" for false, true in metrics["roc"])
    counts = metrics["test"]["confusion"]
    positives, negatives = counts["tp"] + counts["fn"], counts["fp"] + counts["tn"]
    hits = counts["tp"] / positives if positives else 0.0
    alarms = counts["fp"] / negatives if negatives else 0.0
    return Roc(
        line=line,
        area=f"{line}L{_x(1):.1f} {_y(0):.1f}L{_x(0):.1f} {_y(0):.1f}Z",
        ticks=[Tick(share, f"{share:.0%}") for share in (0, 0.25, 0.5, 0.75, 1)],
        chosen=(_x(alarms), _y(hits)) if positives and negatives else None,
        hit_rate=hits,
        false_alarms=alarms,
    )


def calibration(points: list[dict[str, Any]], *, values: bool = False) -> Calibration:
    """Predicted against observed on one scale, cut where the data end, with bars for the rows.

    Shares have 95 % whiskers; of `values` (a regression's means) the groups' spread is not known.
    """
    held = [point for point in points if point["rows"]]
    if values:
        ends = [point[key] for point in held for key in ("predicted", "observed")] or [0.0, 1.0]
        low, high = min(ends), max(ends)
        reach = (high - low) or 1.0
        ticks = [Tick(i / 4, number(low + reach * i / 4, 3)) for i in range(5)]
        intervals = [(point["observed"], point["observed"]) for point in held]
    else:
        intervals = [wilson(point["observed"], point["rows"]) for point in held]
        furthest = max([point["predicted"] for point in held] + [high for _, high in intervals], default=1)
        step = next(step for step in (0.02, 0.05, 0.1, 0.2, 0.25) if furthest <= 5 * step or step == 0.25)
        low, reach = 0.0, min(1.0, math.ceil(furthest / step - 1e-9) * step)
        ticks = [Tick(index * step / reach, f"{index * step:.0%}") for index in range(round(reach / step) + 1)]
    most = max((point["rows"] for point in held), default=1)

    def at(value: float) -> float:
        return float((value - low) / reach)

    dots = [
        Dot(
            _x(at(point["predicted"])),
            _y(at(point["observed"])),
            _y(at(above)),
            _y(at(below)),
            STRIP * point["rows"] / most,
            point["predicted"],
            point["observed"],
            point["rows"],
        )
        for point, (below, above) in zip(held, intervals, strict=True)
    ]
    line = "M" + "L".join(f"{dot.x:.1f} {dot.y:.1f}" for dot in dots) if dots else ""
    found = Calibration(line, dots, ticks, min((dot.rows for dot in dots), default=0), most)
    return replace(found, axes=("predicted", "observed mean")) if values else found


def _x(share: float) -> float:
    return LEFT + SIDE * share


def _y(share: float) -> float:
    return TOP + SIDE * (1 - share)
