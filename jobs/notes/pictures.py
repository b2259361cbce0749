"""Pictures that Zeppelin's own charts cannot draw, as SVG in a few lines: a tree, a calibration, a confusion matrix.

Not by matplotlib, which the clusters do not have: docs/decisions.md says why.
"""

import math
from html import escape
from typing import Any, Dict, List, Mapping, Optional, Sequence, Tuple

from jobs.models.forms import Told
from jobs.notes.trees import conditions, said

BLUE, GREY, INK, PAPER = "#2b6cb0", "#a0aec0", "#1a202c", "#ffffff"
WIDTH, HEIGHT, GAP, DROP = 190, 58, 12, 34  # of a node's box, and between boxes
LETTERS = 27  # that a line of a box takes
SHARE = "share"  # an axis that begins at 0
SIDE, LEFT, TOP = 300, 60, 16  # of a plot's square


def tree(model: Told, nodes: Sequence[Told], depth: int = 3) -> str:
    """The first levels of a tree, root on top: each box has its condition, what it says, and its share of the rows.

    The bluer a box, the more it says (of several classes: the surer it is); the thicker its line, the more rows.
    """
    by_id = {node["id"]: node for node in nodes}
    levels = _levels(nodes)
    low, high = min(levels.values()), max(levels.values())
    boxes: List[str] = []
    lines: List[str] = []
    slots = 0

    def place(node: Told, condition: str) -> Tuple[float, float]:
        """Draws a node and all below it; the middle of its upper edge."""
        nonlocal slots
        y = 8.0 + node["depth"] * (HEIGHT + DROP)
        if "feature" in node and node["depth"] < depth:
            ends = [
                (place(by_id[node[side]], told), by_id[node[side]])
                for side, told in zip(("left", "right"), conditions(node, model))  # noqa: B905  # not in Python 3.9
            ]
            x = sum(end[0] for end, _ in ends) / 2
            for (to, under), child in ends:
                share = _share(child, nodes[0])
                lines.append(
                    f'<line x1="{x:.0f}" y1="{y + HEIGHT:.0f}" x2="{to:.0f}" y2="{under:.0f}" stroke="{GREY}" '
                    f'stroke-width="{1 + 12 * share:.1f}"/>'
                )
        else:
            x = slots * (WIDTH + GAP) + WIDTH / 2 + 8
            slots += 1
        more = " …" if "feature" in node and node["depth"] >= depth else ""
        told = [condition, said(node, model), f"{_share(node, nodes[0]):.0%} of the rows{more}"]
        tone = (levels[node["id"]] - low) / (high - low) if high > low else 0.5
        boxes.append(_box(x - WIDTH / 2, y, tone, told))
        return x, y

    place(nodes[0], "all rows")
    drawn = min(depth, max(node["depth"] for node in nodes))
    return _svg(slots * (WIDTH + GAP) + 16, (drawn + 1) * (HEIGHT + DROP), [*lines, *boxes])


def _share(node: Told, root: Told) -> float:
    return float(node.get("rows", 0) / root["rows"]) if root.get("rows") else 0.0


def _levels(nodes: Sequence[Told]) -> Dict[int, float]:
    """How much each node says."""
    return {node["id"]: max(node.get("probabilities", [_single(node)])) for node in nodes}


def _single(node: Told) -> float:
    return float(node["probability"] if "probability" in node else node.get("value") or 0.0)


def _box(x: float, y: float, tone: float, texts: Sequence[str]) -> str:
    ink = PAPER if tone > 0.6 else INK
    weights = ("normal", "bold", "normal")
    told = "".join(
        f'<text x="{x + WIDTH / 2:.0f}" y="{y + 17 + 16 * i:.0f}" text-anchor="middle" fill="{ink}" '
        f'font-weight="{weights[i]}">{escape(_short(text))}</text>'
        for i, text in enumerate(texts)
    )
    whole = escape(" | ".join(texts))
    return (
        f'<g><title>{whole}</title><rect x="{x:.0f}" y="{y:.0f}" width="{WIDTH}" height="{HEIGHT}" rx="6" '
        f'stroke="{BLUE}" fill="{BLUE}" fill-opacity="{0.08 + 0.92 * tone:.2f}"/>{told}</g>'
    )


def _short(text: str) -> str:
    """A long condition keeps its end, where the threshold is; all of it is the box's tooltip."""
    text = text if len(text) <= LETTERS else text.replace(" or missing", "")
    return text if len(text) <= LETTERS else f"{text[:12]}…{text[13 - LETTERS :].lstrip()}"


def calibration(points: Sequence[Mapping[str, float]], axis: str) -> str:
    """What was predicted against what was observed, in groups of rows; on the diagonal a model is honest.

    `points`: metrics.json's `calibration`; `axis`: what both axes are in, SHARE or a unit.
    """
    values = [point[name] for point in points for name in ("predicted", "observed")]
    step = _step(max(values) - (0.0 if axis == SHARE else min(values)))
    low = 0.0 if axis == SHARE else math.floor(min(values) / step) * step
    ticks = [low + step * i for i in range(math.ceil((max(values) - low) / step - 1e-9) + 1)]
    high, spread = ticks[-1], (ticks[-1] - low) or 1.0
    most = max(point["rows"] for point in points)

    def at(predicted: float, observed: float) -> Tuple[float, float]:
        return LEFT + SIDE * (predicted - low) / spread, TOP + SIDE * (1 - (observed - low) / spread)

    (x1, y1), (x2, y2) = at(low, low), at(high, high)
    marks = [
        f'<rect x="{LEFT}" y="{TOP}" width="{SIDE}" height="{SIDE}" fill="none" stroke="{GREY}"/>',
        f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" stroke="{GREY}" stroke-dasharray="5 4"/>',
    ]
    line = " ".join(f"{x:.1f},{y:.1f}" for x, y in (at(point["predicted"], point["observed"]) for point in points))
    marks.append(f'<polyline points="{line}" fill="none" stroke="{BLUE}"/>')
    for point in points:
        x, y = at(point["predicted"], point["observed"])
        told = f"{point['rows']:,} rows: predicted {point['predicted']:.4g}, observed {point['observed']:.4g}"
        radius = 3 + 6 * (point["rows"] / most) ** 0.5
        marks.append(
            f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{radius:.1f}" fill="{BLUE}"><title>{escape(told)}</title></circle>'
        )
    for tick in ticks:
        value, (x, y) = f"{tick:.4g}", at(tick, tick)
        marks.append(f'<text x="{x:.0f}" y="{TOP + SIDE + 16}" text-anchor="middle" fill="{INK}">{value}</text>')
        marks.append(f'<text x="{LEFT - 6}" y="{y + 4:.0f}" text-anchor="end" fill="{INK}">{value}</text>')
    middle, end = LEFT + SIDE / 2, TOP + SIDE
    marks.append(
        f'<text x="{middle:.0f}" y="{end + 34}" text-anchor="middle" fill="{INK}">predicted, {escape(axis)}</text>'
    )
    marks.append(
        f'<text transform="translate(14 {TOP + SIDE / 2:.0f}) rotate(-90)" text-anchor="middle" fill="{INK}">'
        f"observed, {escape(axis)}</text>"
    )
    return _svg(LEFT + SIDE + 24, end + 44, marks)


def _step(spread: float) -> float:
    """1, 2 or 5 times a power of ten, so that about five of them make the spread."""
    rough = spread / 5 if spread > 0 else 1.0
    power = float(10 ** math.floor(math.log10(rough)))
    return next(times * power for times in (1, 2, 5, 10) if times * power >= rough * (1 - 1e-9))


def confusion(classes: Sequence[str], counts: Sequence[Sequence[int]], most: int = 13) -> str:
    """Rows by what they are (down) and what they are called (across), shaded by their share of what they are.

    Of more classes than `most` the most frequent are shown.
    """
    order = sorted(range(len(classes)), key=lambda place: -sum(counts[place]))[:most]
    shown = sorted(order)
    cell, left, top = 74, 150, 46
    marks = [f'<text x="{left}" y="16" fill="{INK}">called …</text>']
    for across, k in enumerate(shown):
        marks.append(_label(left + across * cell + cell / 2, top - 10, classes[k], "middle"))
    for down, i in enumerate(shown):
        y = top + down * 34
        marks.append(_label(left - 8, y + 21, classes[i], "end"))
        total: Optional[int] = sum(counts[i]) or None
        for across, k in enumerate(shown):
            share = counts[i][k] / total if total else 0.0
            fill, ink = (BLUE if i == k else "#c05621"), (PAPER if share > 0.6 else INK)
            marks.append(
                f'<rect x="{left + across * cell}" y="{y}" width="{cell - 2}" height="32" fill="{fill}" '
                f'fill-opacity="{0.05 + 0.95 * share:.2f}"><title>{share:.1%} of those that are '
                f"{escape(classes[i])}</title></rect>"
            )
            marks.append(
                f'<text x="{left + across * cell + cell / 2 - 1:.0f}" y="{y + 21}" text-anchor="middle" '
                f'fill="{ink}">{counts[i][k]:,}</text>'
            )
    return _svg(left + len(shown) * cell + 8, top + len(shown) * 34 + 8, marks)


def _label(x: float, y: float, text: str, anchor: str) -> str:
    short = text if len(text) <= 18 else f"{text[:17]}…"
    return f'<text x="{x:.0f}" y="{y:.0f}" text-anchor="{anchor}" fill="{INK}">{escape(short)}</text>'


def _svg(width: float, height: float, marks: Sequence[Any]) -> str:
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width:.0f}" height="{height:.0f}" '
        f'viewBox="0 0 {width:.0f} {height:.0f}" style="max-width:100%;height:auto" font-family="sans-serif" '
        f'font-size="12">{"".join(marks)}</svg>'
    )
