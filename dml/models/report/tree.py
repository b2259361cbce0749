"""The tree as a reader sees it, worked out when the operator asks for a report: conditions in words, and a layout.

A condition on a category is a threshold on its encoding, so it is told as the set of categories that can still come
that way: what an earlier split has ruled out is not named again.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from dml.models.report.outcome import Classes, Outcome, wilson

COLUMN, BOX, BOX_HEIGHT, SLOT, MARGIN = 250, 212, 54, 64, 4  # the picture's measures, in SVG units
STRIP = 116  # width of the bar in a box that shows what the leaves below say
_THICKEST_EDGE = 40.0
PICTURE_DEPTH = 4  # 16 boxes in the last column: as many as can be read on one screen
OUTLINE_NODES = 4000  # branches told below the picture, those with most rows first; keeps the page small for any tree

# The jobs give a missing number a value far below all numbers: a threshold down there parts the missing from the known.
_NO_NUMBER = -1e200
_MISSING = "(missing)"  # a category of its own

_SHORT, _MEDIUM, _LONG = 28, 64, 400  # characters that a condition may take: in a box, in a line, in a tooltip


@dataclass(frozen=True)
class Interval:
    """What is left of a number after some splits: low < number <= high, and the missing one too if `missing`."""

    name: str
    low: float
    high: float
    missing: bool

    def words(self, _length: int) -> str:
        above = "" if self.low < _NO_NUMBER else number(self.low)
        if self.high < _NO_NUMBER:
            return f"{self.name} is missing"
        if math.isinf(self.high):
            return f"{self.name} > {above}" if above else f"{self.name} is known"
        or_missing = " or missing" if self.missing else ""
        return f"{above + ' < ' if above else ''}{self.name} <= {number(self.high)}{or_missing}"


@dataclass(frozen=True)
class Subset:
    """What is left of a category after some splits: the `chosen` ones `among` others, both lowest encoding first."""

    name: str
    chosen: tuple[str, ...]
    among: tuple[str, ...]

    def words(self, length: int) -> str:
        """The set in at most about `length` characters: the categories farthest from the other side come first."""
        if not self.chosen:
            return f"{self.name} is not one that was seen here"
        room = length - len(f"{self.name} in {{}}")
        shown = list(self.chosen if self.chosen[0] == self.among[0] else reversed(self.chosen))
        chosen = set(self.chosen)
        rest = [one for one in self.among if one not in chosen]
        if rest and _full(shown) > room and _full(rest) <= room - len("not "):
            return f"{self.name} not in {{{', '.join(rest)}}}"
        return f"{self.name} in {{{_some(shown, room)}}}"


Bounds = dict[str, Interval | Subset]


@dataclass(frozen=True)
class Condition:
    """One split's condition at three lengths."""

    short: str = "all rows"
    medium: str = ""
    long: str = ""


@dataclass
class Branch:
    """A node with what leads to it and what lies below it. `lowest` and `highest` are levels of the leaves below."""

    node: dict[str, Any]
    id: int
    depth: int
    rows: int
    says: str
    brief: str
    tone: int
    condition: Condition
    bounds: Bounds
    children: list["Branch"] = field(default_factory=list)
    leaves: int = 1
    lowest: float = 0.0
    highest: float = 0.0
    mix: list[int] = field(default_factory=list)  # rows of the leaves below, by tone
    told: bool = False  # is it in the outline


@dataclass(frozen=True)
class Box:
    branch: Branch
    x: float
    y: float
    open: bool  # its children are in the picture too
    strip: list[tuple[float, float, int]]  # x, width, tone: what the leaves below say, by rows


@dataclass(frozen=True)
class Edge:
    path: str
    width: float
    tone: int


@dataclass(frozen=True)
class Picture:
    width: float
    height: float
    boxes: list[Box]
    edges: list[Edge]


@dataclass(frozen=True)
class Rule:
    """A leaf told by all the conditions on the way to it, those on one feature drawn together."""

    branch: Branch
    conditions: list[str]


@dataclass(frozen=True)
class Surest:
    """Of a class, its share of the training rows and in the leaf that is surest of it; `calls`: what that leaf says."""

    name: str
    overall: float
    share: float
    calls: str
    rule: Rule


class Tree:
    """tree.json made ready to be drawn."""

    def __init__(self, document: dict[str, Any], outcome: Outcome) -> None:
        self._nodes = {node["id"]: node for node in document["nodes"]}
        self._outcome = outcome
        self._features = {feature["name"]: feature for feature in document["features"]}
        self._categories = {
            feature["name"]: _by_encoding(feature) for feature in document["features"] if feature["kind"] == "category"
        }
        self.root = self._branch(document["nodes"][0], Condition(), {})
        self._choose_told()

    def picture(self) -> Picture:
        """The first levels, left to right; a parent stands half-way between its children."""
        boxes: list[Box] = []
        edges: list[Edge] = []
        slot = 0

        def place(branch: Branch) -> float:
            nonlocal slot
            x = MARGIN + branch.depth * COLUMN
            is_open = bool(branch.children) and branch.depth < PICTURE_DEPTH
            if is_open:
                ys = [place(child) for child in branch.children]
                y = sum(ys) / len(ys)
                thickness = [self._thickness(child) for child in branch.children]
                start = y - sum(thickness) / 2
                for child, child_y, width in zip(branch.children, ys, thickness, strict=True):
                    edges.append(Edge(_curve(x + BOX, start + width / 2, x + COLUMN, child_y), width, child.tone))
                    start += width
            else:
                y = MARGIN + (slot + 0.5) * SLOT
                slot += 1
            boxes.append(Box(branch, x, y, is_open, [] if is_open or not branch.children else _strip(branch)))
            return y

        place(self.root)
        deepest = max(box.branch.depth for box in boxes)
        boxes.sort(key=lambda box: (box.branch.depth, box.y))
        return Picture(deepest * COLUMN + BOX + 2 * MARGIN, slot * SLOT + 2 * MARGIN, boxes, edges)

    def below_picture(self) -> list[Branch]:
        """The branches whose subtrees the picture leaves out, top to bottom."""
        return [one for one in self._walk() if one.depth == PICTURE_DEPTH and one.children]

    def rule(self, branch: Branch) -> Rule:
        return Rule(branch, [bound.words(_MEDIUM) for bound in branch.bounds.values()])

    def extremes(self, count: int) -> tuple[list[Rule], list[Rule]]:
        """The leaves that say most, and those that say least, `count` of each at most.

        A small leaf is extreme by luck, so they are ranked by the near end of a 95 % interval, not by what they say.
        """
        leaves = self._leaves()
        count = min(count, len(leaves) // 2)
        most = sorted(leaves, key=lambda leaf: -self._outcome.reach(leaf.node)[0])[:count]
        least = sorted(leaves, key=lambda leaf: self._outcome.reach(leaf.node)[1])[:count]
        return [self.rule(leaf) for leaf in most], [self.rule(leaf) for leaf in least]

    def surest(self, told: Classes) -> list[Surest]:
        """For each class the leaf that is surest of it, by Wilson's interval's low end; frequent classes first."""
        leaves = self._leaves()
        found = []
        for place in told.ranked:
            shares = [(leaf, leaf.node["probabilities"][place]) for leaf in leaves]
            leaf, share = max(shares, key=lambda one: wilson(one[1], one[0].rows)[0])
            calls = told.classes[told.called(leaf.node)]
            found.append(Surest(told.classes[place], told.shares[place], share, calls, self.rule(leaf)))
        return found

    def span(self, branch: Branch) -> str:
        return self._outcome.span(branch.lowest, branch.highest)

    def _leaves(self) -> list[Branch]:
        return [one for one in self._walk() if not one.children]

    def _branch(self, node: dict[str, Any], condition: Condition, bounds: Bounds) -> Branch:
        outcome = self._outcome
        branch = Branch(
            node,
            node["id"],
            node["depth"],
            node["rows"],
            outcome.says(node),
            outcome.brief(node),
            outcome.tone(node),
            condition,
            bounds,
        )
        if "left" in node:
            branch.children = [
                self._branch(self._nodes[node[side]], told, left)
                for side, (told, left) in zip(("left", "right"), self._split(node, bounds), strict=True)
            ]
            branch.leaves = sum(child.leaves for child in branch.children)
            branch.lowest = min(child.lowest for child in branch.children)
            branch.highest = max(child.highest for child in branch.children)
            branch.mix = [sum(rows) for rows in zip(*(child.mix for child in branch.children), strict=True)]
        else:
            branch.lowest = branch.highest = outcome.level(node)
            branch.mix = [branch.rows if tone == branch.tone else 0 for tone in range(outcome.tones)]
        return branch

    def _split(self, node: dict[str, Any], bounds: Bounds) -> list[tuple[Condition, Bounds]]:
        """The conditions of the left and the right side, each with what it leaves possible."""
        name, threshold = node["feature"], node["threshold"]
        feature, before = self._features[name], bounds.get(name)
        missing_left = feature["missing"] <= threshold
        if "categories" not in node:
            low, high, missing = -math.inf, math.inf, feature["missing_rows"] > 0
            if isinstance(before, Interval):
                low, high, missing = before.low, before.high, before.missing
            intervals = (
                Interval(name, low, threshold, missing and missing_left),
                Interval(name, threshold, high, missing and not missing_left),
            )
            return [
                (Condition(_cut(text, _SHORT + 5), text, text), bounds | {name: interval})
                for text, interval in zip((node["condition"], node["otherwise"]), intervals, strict=True)
            ]
        possible = before.chosen if isinstance(before, Subset) else self._categories[name]
        goes_left = {*node["categories"], *([_MISSING] if missing_left else [])}
        sides = (
            tuple(one for one in possible if one in goes_left),
            tuple(one for one in possible if one not in goes_left),
        )
        return [
            (
                Condition(*(Subset(name, side, possible).words(room) for room in (_SHORT, _MEDIUM, _LONG))),
                bounds | {name: Subset(name, side, self._categories[name])},
            )
            for side in sides
        ]

    def _walk(self) -> Iterator[Branch]:
        stack = [self.root]
        while stack:
            branch = stack.pop()
            yield branch
            stack += reversed(branch.children)

    def _choose_told(self) -> None:
        ranked = sorted((one for one in self._walk() if one.children), key=lambda one: (-one.rows, one.depth))
        for branch in ranked[: OUTLINE_NODES // 2]:
            for child in branch.children:
                child.told = True

    def _thickness(self, branch: Branch) -> float:
        return max(1.0, _THICKEST_EDGE * branch.rows / self.root.rows)


def number(value: float) -> str:
    """A threshold as people write it: 14.5, not 14.500000000000002."""
    return f"{value:.6g}" if abs(value) < 1e6 else f"{value:.0f}"


def _by_encoding(feature: dict[str, Any]) -> tuple[str, ...]:
    """A feature's categories, lowest encoding first; the missing value is one of them if training met it."""
    encoding = feature["encoding"] | ({_MISSING: feature["missing"]} if feature["missing_rows"] else {})
    return tuple(sorted(encoding, key=lambda one: (encoding[one], one)))


def _cut(text: str, length: int) -> str:
    """Too long a name loses its middle, so that the threshold stays."""
    return text if len(text) <= length else f"{text[: length - 16]}…{text[-15:]}"


def _full(names: list[str]) -> int:
    return len(", ".join(names))


def _some(names: list[str], room: int) -> str:
    """As many names as there is room for, at least one, and how many more there are."""
    if _full(names) <= room:
        return ", ".join(names)
    shown = 1
    while shown < len(names) and _full(names[: shown + 1]) + len(f", … +{len(names) - shown - 1}") <= room:
        shown += 1
    more = f", … +{len(names) - shown}" if shown < len(names) else ""
    first = names[:shown]
    longest = max(room - len(more) + 5, 4)  # rather one whole name in narrow letters than a stump
    if shown == 1 and len(first[0]) > longest:
        first = [first[0][: longest - 1] + "…"]
    return ", ".join(first) + more


def _strip(branch: Branch) -> list[tuple[float, float, int]]:
    """A bar cut by how many rows end in leaves of each tone."""
    cuts = []
    at, width = 0.0, STRIP
    for tone, rows in enumerate(branch.mix):
        if rows:
            part = width * rows / branch.rows
            cuts.append((round(at, 1), round(part, 1), tone))
            at += part
    return cuts


def _curve(x1: float, y1: float, x2: float, y2: float) -> str:
    middle = (x1 + x2) / 2
    return f"M{x1:.0f} {y1:.1f}C{middle:.0f} {y1:.1f} {middle:.0f} {y2:.1f} {x2:.0f} {y2:.1f}"
