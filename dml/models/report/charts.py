"""Where the marks of the report's charts stand, worked out when the operator asks for it; the template draws them."""

import math
from dataclasses import dataclass
from typing import Any

from dml.models.figures import MINUS, quantity
from dml.models.report.outcome import wilson

SIDE, LEFT, TOP = 300.0, 46.0, 10.0  # the plot's square and where it starts, in SVG units
CLASSES = 15  # rows and columns that a confusion matrix may have and still be read
MISTAKEN = 3  # the most frequent mistakes are told in words
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
class Line:
    """A curve by threshold, or a level that stands for a rule. `at`: where its label stands."""

    path: str
    kind: str  # css class
    label: str
    at: tuple[float, float]


@dataclass(frozen=True)
class Calls:
    """What calls come to by threshold, on held-out rows; of costs on the validation part too, which chose."""

    lines: list[Line]
    across: list[Tick]
    up: list[Tick]
    vertical: str
    chosen: tuple[float, str]  # where the threshold stands, and its label
    dots: list[tuple[float, float]]  # where the threshold meets the curves of held-out rows


@dataclass(frozen=True)
class Dot:
    """A group of rows. `whisker`: where its 95 % interval ends, if it is one of a share."""

    x: float
    y: float
    whisker: tuple[float, float] | None
    bar: float
    predicted: str
    observed: str
    rows: int


@dataclass(frozen=True)
class Calibration:
    line: str
    dots: list[Dot]
    ticks: list[Tick]
    fewest: int
    most: int


@dataclass(frozen=True)
class Cell:
    rows: int
    share: float | None  # of the rows that are of this class
    verdict: str  # css class


@dataclass(frozen=True)
class Row:
    name: str
    cells: list[Cell]
    rows: int
    recall: float | None
    precision: float | None


@dataclass(frozen=True)
class Matrix:
    """The confusion matrix of many classes; the rarest are one row and one column, `folded` of them."""

    names: list[str]
    rows: list[Row]
    folded: int
    mistaken: list[tuple[int, str, str]]  # rows, what they are, what they were called


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


def calls(metrics: dict[str, Any]) -> Calls | None:
    """The curve of cost, or of recall and precision, by threshold; None if no [decision] chose one."""
    decided = metrics.get("decision")
    if not decided:
        return None
    threshold = decided["threshold"]
    last = max([threshold, *(point[0] for point in decided["curve"][:-1])])
    step = next(step for step in (0.01, 0.02, 0.05, 0.1, 0.2, 0.25) if last <= 5 * step or step == 0.25)
    right = min(1.0, math.ceil(last / step - 1e-9) * step)
    across = [Tick(step * i / right, f"{step * i:.0%}") for i in range(round(right / step) + 1)]
    by_costs = "cost_of_miss" in decided["asked"]
    up, lines, levels = (_costs if by_costs else _rates)(decided, right)
    place = _x(min(threshold / right, 1))
    vertical = "cost of 1,000 rows" if by_costs else "share"
    return Calls(lines, across, up, vertical, (place, f"{threshold:.4g}"), [(place, _y(level)) for level in levels])


Drawn = tuple[list[Tick], list[Line], list[float]]  # upward ticks, lines, and where the threshold meets the curves


def _costs(decided: dict[str, Any], right: float) -> Drawn:
    """Costs of 1,000 rows; beside them what never and always calling costs."""
    miss, alarm = decided["asked"]["cost_of_miss"], decided["asked"]["cost_of_false_alarm"]
    test = decided["test"]

    def of(points: list[list[float]], rows: int) -> list[tuple[float, float]]:
        return [(x, (miss * misses + alarm * alarms) * 1000 / rows) for x, misses, alarms in points]

    chose, held = of(decided["validation_curve"], decided["validation"]["rows"]), of(decided["curve"], test["rows"])
    rules = {name: test[f"cost_of_{name}"] * 1000 / test["rows"] for name in ("never", "always")}
    size = round_step(max([*rules.values(), *(cost for _, cost in held)]))
    high = math.ceil(max([*rules.values(), *(cost for _, cost in held)]) / size - 1e-9) * size
    unit, letter = (1000, "k") if high >= 1000 else (1, "")  # short enough to stand beside the axis' name
    values = [size * i for i in range(round(high / size) + 1)]
    ticks = [Tick(value / high, f"{value / unit:g}{letter if value else ''}") for value in values]
    curves = [
        Line(_path([(x, cost / high) for x, cost in points], right), kind, "", (0.0, 0.0))
        for points, kind in ((chose, "curve second"), (held, "curve"))
    ]
    lines = [*curves, *(_level(cost / high, f"{name} calling") for name, cost in rules.items())]
    return ticks, lines, [test["cost"] * 1000 / test["rows"] / high]


def _rates(decided: dict[str, Any], right: float) -> Drawn:
    """Recall and precision of held-out rows; where no row is called there is no precision."""
    test, points = decided["test"], decided["curve"]
    hits = [(x, test["positives"] - misses, alarms) for x, misses, alarms in points]
    found = {
        "recall": [(x, own / test["positives"]) for x, own, _ in hits],
        "precision": [(x, own / (own + alarms)) for x, own, alarms in hits if own + alarms],
    }
    lines = [
        Line(_path(curve, right), "curve" if name == "recall" else "curve second", name, _label_at(curve, right))
        for name, curve in found.items()
    ]
    ((name, wanted),) = decided["asked"].items()
    ticks = [Tick(share, f"{share:.0%}") for share in (0, 0.25, 0.5, 0.75, 1)]
    return ticks, [*lines, _level(wanted, f"{name} wanted")], [test[key] for key in found if test[key] is not None]


def _path(points: list[tuple[float, float]], right: float) -> str:
    return "M" + "L".join(f"{_x(min(x / right, 1)):.1f} {_y(min(y, 1)):.1f}" for x, y in points)


def _level(share: float, label: str) -> Line:
    return Line(_path([(0, share), (1, share)], 1), "diagonal", label, (LEFT + SIDE - 6, _y(share) - 5))


def _label_at(points: list[tuple[float, float]], right: float) -> tuple[float, float]:
    """Beside a curve's point a third of the way across."""
    x, y = min(points, key=lambda point: abs(point[0] - right / 3))
    return _x(min(x / right, 1)) + 6, _y(y) - 6


def calibration(points: list[dict[str, Any]], task: str) -> Calibration:
    """Predicted against observed on one scale, cut where the data end, with bars for the rows.

    Shares start at 0 and have 95 % whiskers; values of a regression have neither.
    """
    held = [point for point in points if point["rows"]]
    shares = task != "regression"
    intervals = [wilson(point["observed"], point["rows"]) if shares else None for point in held]
    said = [point[name] for point in held for name in ("predicted", "observed")]
    said += [high for interval in intervals if interval for high in interval]
    if shares:
        step = next(step for step in (0.02, 0.05, 0.1, 0.2, 0.25) if max(said, default=1) <= 5 * step or step == 0.25)
        low, high = 0.0, min(1.0, math.ceil(max(said, default=1) / step - 1e-9) * step)
    else:
        step = round_step(max(said, default=1) - min(said, default=0))
        low = math.floor(min(said, default=0) / step + 1e-9) * step
        high = max(math.ceil(max(said, default=1) / step - 1e-9) * step, low + step)
    most = max((point["rows"] for point in held), default=1)

    def at(value: float) -> float:
        return (value - low) / (high - low)

    dots = [
        Dot(
            _x(at(point["predicted"])),
            _y(at(point["observed"])),
            (_y(at(interval[1])), _y(at(interval[0]))) if interval else None,
            STRIP * point["rows"] / most,
            _percent(point["predicted"]) if shares else _value(point["predicted"]),
            _percent(point["observed"]) if shares else _value(point["observed"]),
            point["rows"],
        )
        for point, interval in zip(held, intervals, strict=True)
    ]
    values = [low + index * step for index in range(round((high - low) / step) + 1)]
    ticks = [Tick(at(value), f"{value:.0%}" if shares else brief(value, step)) for value in values]
    line = "M" + "L".join(f"{dot.x:.1f} {dot.y:.1f}" for dot in dots) if dots else ""
    return Calibration(line, dots, ticks, min((dot.rows for dot in dots), default=0), most)


def class_groups(classes: list[str], counts: list[int]) -> list[tuple[str, list[int]]]:
    """What a table has room for, as (name, places among the classes): each class, or the most frequent and the rest."""
    places = list(range(len(classes)))
    if len(classes) > CLASSES + 1:
        places = sorted(sorted(places, key=lambda place: -counts[place])[:CLASSES])
    rest = [place for place in range(len(classes)) if place not in set(places)]
    return [(classes[place], [place]) for place in places] + ([(f"{len(rest)} others", rest)] if rest else [])


def matrix(classes: list[str], confusion: list[list[int]]) -> Matrix:
    """`confusion`: rows by actual class, columns by called class."""
    actual = [sum(row) for row in confusion]
    called = [sum(column) for column in zip(*confusion, strict=True)]
    groups = class_groups(classes, actual)
    rows = []
    for name, own in groups:
        total = sum(actual[place] for place in own)
        cells = []
        for _, other in groups:
            n = sum(confusion[a][b] for a in own for b in other)
            # Among the folded classes right and wrong are in one cell: it is neither.
            verdict = "wrong" if own is not other else "right" if len(own) == 1 else "mixed"
            cells.append(Cell(n, n / total if total else None, verdict))
        right, named = sum(confusion[a][a] for a in own), sum(called[place] for place in own)
        rows.append(Row(name, cells, total, right / total if total else None, right / named if named else None))
    wrong = [
        (confusion[a][b], classes[a], classes[b])
        for a in range(len(classes))
        for b in range(len(classes))
        if a != b and confusion[a][b]
    ]
    mistaken = sorted(wrong, key=lambda one: -one[0])[:MISTAKEN]
    return Matrix([name for name, _ in groups], rows, sum(len(own) for _, own in groups if len(own) > 1), mistaken)


def round_step(spread: float) -> float:
    """1, 2 or 5 times a power of ten, so that about five of them make the spread."""
    rough = spread / 5 if spread > 0 else 1.0
    power = float(10 ** math.floor(math.log10(rough)))
    return next(times * power for times in (1, 2, 5, 10) if times * power >= rough * (1 - 1e-9))


def _percent(share: float) -> str:
    return f"{share:.1%}"


def _value(value: float) -> str:
    return quantity(value).replace("-", MINUS)


def brief(value: float, step: float) -> str:
    """A tick in few characters: 250k for 250,000."""
    value = 0.0 if abs(value) < step / 2 else value
    for size, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= max(size, 10_000.0):
            return f"{value / size:g}{letter}".replace("-", MINUS)
    return f"{value:,.10g}".replace("-", MINUS)


def _x(share: float) -> float:
    return LEFT + SIDE * share


def _y(share: float) -> float:
    return TOP + SIDE * (1 - share)
