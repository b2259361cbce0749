"""Scores rows with a tree.json, in plain Python: a single file to copy, which needs nothing but the standard library.

tree.json is one tree (format 2) or several that are averaged or added up (format 3): of a sum, `link` makes what is
said (identity, logistic, softmax) out of `base` and what the trees' leaves add to it; else it is the leaves' mean.
Either may have a call of its own (format 4): from its `threshold` on a row is called positive, and not from 0.5 on; or
called is the class whose probability, times its one of `weights`, is the largest.

In Python:        Scorer(json.load(open("tree.json"))).predict({"carrier": "UA", "temp": 39.0, ...})
On a CSV file:    python scorer.py tree.json FILE.csv > scored.csv
With reasons:     Scorer(tree, reasons=3), or a 3 behind the file: of each row the features that moved it most

The rules are those of every scorer of the platform. A number that is missing or not finite counts as the feature's
`missing`, a boolean as 0 or 1; a category is looked up as text in `encoding`, a missing one counts as `missing`, one
that training has not seen as `unseen`. A row goes left where its value <= the threshold. All in double arithmetic.
"""

from __future__ import annotations  # a copy also runs on Python 3.9

import csv
import gzip
import io
import json
import math
import sys
import zlib
from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import chain, islice
from operator import itemgetter
from pathlib import Path
from typing import Any, TextIO

FORMATS = (2, 3, 4)  # one tree; several; either, with a call of its own
THRESHOLD = 0.5  # of the others
NULLS = ("", "NA")  # cells of a CSV file that mean missing, unless training has seen that very text as a category
DELIMITERS = ",;\t|"
LARGEST_CELL = 16 * 1024**2  # characters; Python's own limit, 131,072, is less than Spark reads
CHUNK = 20_000  # rows between two reports of progress
REMEMBERED = 100_000  # texts of a number column whose value is kept: the same text is parsed once
BATCH = 2_000  # rows of a file that go down several trees together
BYTE = 256  # what a byte tells apart: leaves of a tree, and thresholds of a feature less one, if rows are to go so
PART = 50  # trees that one function goes down: Python is slow to compile a very long one
KEPT_REASONS = 1_000_000  # effects that are kept: rows that agree in all that a tree asks have the same ones

Says = Callable[[Any], "tuple[Any, ...]"]
Node = Mapping[str, Any]


class ScoringError(Exception):
    """A sentence for the reader: what cannot be scored, where, and the way out."""


class _BadNumberError(Exception):
    """A cell of a number feature that is no number; who knows the line makes a sentence of it."""

    def __init__(self, column: str, cell: object) -> None:
        super().__init__(f"{column} is {cell!r}, which is no number")


class _Numbers(dict[Hashable, float]):
    """From what stands in a row to the number that the tree compares; remembers what it has parsed."""

    def __init__(self, feature: Mapping[str, Any], nulls: Sequence[str]) -> None:
        self.name, self.missing = feature["name"], float(feature["missing"])
        super().__init__(dict.fromkeys((None, *nulls), self.missing))

    def __missing__(self, cell: Any) -> float:
        text = cell.strip().lower() if isinstance(cell, str) else None
        try:
            if text in ("true", "false"):
                value = float(text == "true")
            elif text is not None and "_" in text:  # float("1_000") is a Python habit, not one of data
                raise ValueError(text)
            else:
                value = float(cell)
        except OverflowError:  # a whole number beyond double's range: infinite, as every database would have it
            value = math.inf
        except (TypeError, ValueError):
            raise _BadNumberError(self.name, cell) from None
        if not math.isfinite(value):
            value = self.missing
        if len(self) < REMEMBERED:
            self[cell] = value
        return value


class _Categories(dict[Hashable, float]):
    """From a category to its encoding; counts the look-ups of values that training has not seen."""

    def __init__(self, feature: Mapping[str, Any], nulls: Sequence[str]) -> None:
        self.name, self.missing, self.unseen = feature["name"], float(feature["missing"]), float(feature["unseen"])
        self.unseen_rows, self.example = 0, ""
        super().__init__(dict.fromkeys((None, *nulls), self.missing))
        self.update({value: float(number) for value, number in feature["encoding"].items()})

    def __missing__(self, cell: Any) -> float:
        if not isinstance(cell, str):
            if cell != cell:  # NaN, which is how pandas has a missing category
                return self.missing
            text = str(cell).lower() if isinstance(cell, bool) else str(cell)
            if text in self:
                return self[text]
            cell = text
        self.unseen_rows += 1
        self.example = self.example or cell
        return self.unseen


class Scorer:
    """A model, ready to score. Raises ScoringError if `tree` is not the content of a tree.json of these formats.

    `reasons`: of so many features, those that moved a row most, the name and the effect (see `_Reasons`), None where
    fewer did. Raises ScoringError if the model does not tell what they need.
    """

    def __init__(self, tree: Mapping[str, Any], reasons: int = 0) -> None:
        if not isinstance(tree, Mapping) or tree.get("format") not in FORMATS:
            found = tree.get("format", 1) if isinstance(tree, Mapping) and {"nodes", "trees"} & set(tree) else None
            what = f"a tree.json of format {found}" if found else "no tree.json"
            known = f"{', '.join(map(str, FORMATS[:-1]))} and {FORMATS[-1]}"
            raise ScoringError(f"This is {what}, and this scorer reads formats {known}: train again, or use its own.")
        self.task: str = tree["task"]
        self.threshold = float(tree.get("threshold", THRESHOLD))
        self.weights: Sequence[float] = tree.get("weights", ())
        self.classes: list[str] = list(tree.get("classes", ()))
        self.features: list[str] = [feature["name"] for feature in tree["features"]]
        self.columns: list[str] = output_columns(self.task, self.classes)
        self._features = {feature["name"]: feature for feature in tree["features"]}
        self._nodes: Sequence[Node] = tree.get("nodes", ())
        self._trees: Sequence[Mapping[str, Any]] = tree.get("trees", ())
        self._link, self._base = tree.get("link"), tree.get("base", ())
        self._reasons = _Reasons(tree, reasons) if reasons else None
        self.columns += reason_columns(reasons)
        self._says_of_mapping, _ = self.compile({name: name for name in self.features})

    def predict(self, row: Mapping[str, Any]) -> dict[str, Any]:
        """The values of `columns` for one row, which has every feature by name; None and NaN are missing values."""
        if lacking := [name for name in self.features if name not in row]:
            raise ScoringError(f"The row has no {', '.join(lacking)}, which the model needs; a missing value is None.")
        try:
            values = self._says_of_mapping(row)
        except _BadNumberError as error:
            raise ScoringError(f"The row cannot be scored: {error}.") from None
        return dict(zip(self.columns, values))  # noqa: B905  # Python 3.9 has no strict

    def compile(
        self, where: Mapping[str, Any], nulls: Sequence[str] = (), *, texts: bool = False
    ) -> tuple[Says, dict[str, _Numbers | _Categories]]:
        """A function from a row to the values of `columns`, and the tables that it looks features up in.

        `where` gives the key of each feature in a row (a position in a list, a name in a mapping). With `texts` the
        values are ready for a CSV file: one tree's leaves then are texts already. Nested ifs are the fastest that
        Python has; one tree looks a feature up once a row, and only if the row's way through the tree asks.
        """
        tables = {
            name: (_Numbers if feature["kind"] == "number" else _Categories)(feature, nulls)
            for name, feature in self._features.items()
        }
        number = {name: i for i, name in enumerate(self._features)}
        names: dict[str, Any] = {f"table{number[name]}": table for name, table in tables.items()}
        lines = self._of_many(where, number, names) if self._trees else self._of_one(where, number, names, texts)
        exec("\n".join(lines), names)  # noqa: S102  # made of numbers and quoted names only
        return self._with_reasons(names["says"], where, nulls) if self._reasons else names["says"], tables

    def together(
        self, where: Mapping[str, int], tables: Mapping[str, _Numbers | _Categories]
    ) -> Callable[[Sequence[Sequence[str]]], Iterable[tuple[Any, ...]]] | None:
        """A function from many rows to the values of `columns` of each, twice as fast as one by one; None if this model
        has none: it is of sums of one number, over trees of up to BYTE leaves, without reasons.

        `where`, `tables`: as of `compile`, and so are the answers, to the last bit.
        """
        cuts: dict[str, set[float]] = {}
        for node in chain(*(tree["nodes"] for tree in self._trees)):
            if "feature" in node:
                cuts.setdefault(node["feature"], set()).add(float(node["threshold"]))
        leaves = max((sum("feature" not in node for node in tree["nodes"]) for tree in self._trees), default=BYTE + 1)
        many = max(map(len, cuts.values()), default=0) >= BYTE
        if self.task == "multiclass" or self._reasons or leaves > BYTE or many:
            return None
        places = {name: _Places(tables[name], sorted(own)) for name, own in cuts.items()}
        trees = [_Together(tree["nodes"], places, self._link != "mean") for tree in self._trees]
        base = float(self._base[0]) if self._base else 0.0

        def says(rows: Sequence[Sequence[str]]) -> Iterable[tuple[Any, ...]]:
            count, columns = len(rows), list(zip(*rows))  # noqa: B905  # Python 3.9 has no strict
            goes_left = {name: place.goes_left(columns[where[name]]) for name, place in places.items()}
            ones = int.from_bytes(b"\x01" * count, "little")
            leaf = [i * ones for i in range(BYTE)]
            every = [tree.said(goes_left, leaf, count) for tree in trees]
            for said in zip(*every):  # noqa: B905
                total = base
                for value in said:  # `sum` of floats is another sum from Python 3.12 on
                    total += value
                yield self._finished([total])

        return says

    def _with_reasons(self, says: Says, where: Mapping[str, Any], nulls: Sequence[str]) -> Says:
        """The same with the reasons behind it. Their tables are their own: look-ups are counted once."""
        nodes = chain(self._nodes, *(tree["nodes"] for tree in self._trees))
        asked = {node["feature"] for node in nodes if "feature" in node}
        looked = [
            ((_Numbers if feature["kind"] == "number" else _Categories)(feature, nulls), where[name])
            if name in asked
            else None
            for name, feature in self._features.items()
        ]
        place = {name: i for i, name in enumerate(self.classes)} if self.task == "multiclass" else {}

        def explained(row: Any) -> tuple[Any, ...]:
            said = says(row)
            assert self._reasons is not None  # noqa: S101  # else nobody asks
            return said + self._reasons.told(
                [one[0][row[one[1]]] if one else 0.0 for one in looked], place.get(said[-1], 0)
            )

        return explained

    def _of_one(
        self, where: Mapping[str, Any], number: Mapping[str, int], names: dict[str, Any], texts: bool
    ) -> list[str]:
        """The function's lines. `names`: what they may name, to which the leaves' values are added."""
        nodes = {node["id"]: node for node in self._nodes}
        lines = ["def says(row):"]
        waiting: list[tuple[Any, int, frozenset[str]]] = [(self._nodes[0]["id"], 1, frozenset())]
        while waiting:
            key, indent, known = waiting.pop()
            node, space = nodes[key], " " * indent
            if "feature" not in node:
                values = self._called(_said(node))
                names[f"leaf{len(names)}"] = tuple(map(str, values)) if texts else values
                lines.append(f"{space}return leaf{len(names) - 1}")
                continue
            name = node["feature"]
            if name not in known:
                lines.append(f"{space}{_look_up(name, number, where)}")
                known |= {name}
            lines.append(f"{space}if {_goes_left(node, number)}:")
            # The left branch always returns, so the right one needs no else and no deeper indentation.
            waiting += [(node["right"], indent, known), (node["left"], indent + 1, known)]
        return lines

    def _of_many(self, where: Mapping[str, Any], number: Mapping[str, int], names: dict[str, Any]) -> list[str]:
        """The same of a sum or a mean: each feature looked up once, then tree after tree as one expression."""
        used = {node["feature"] for tree in self._trees for node in tree["nodes"] if "feature" in node}
        known = [name for name in number if name in used]
        width = len(self.classes) if self.task == "multiclass" else 1
        sums = [f"s{k}" for k in range(width)]
        given = ", ".join([*(f"x{number[name]}" for name in known), *sums])
        lines: list[str] = []
        for start in range(0, len(self._trees), PART):
            lines.append(f"def part{start}({given}):")
            for tree in self._trees[start : start + PART]:
                lines += self._adding(tree, sums, number, names)
            lines.append(f" return {', '.join(sums)}")
        lines.append("def says(row):")
        lines += [f" {_look_up(name, number, where)}" for name in known]
        lines.append(f" {' = '.join(sums)} = 0.0")
        lines += [f" s{k} = {float(value)!r}" for k, value in enumerate(self._base)]
        lines += [f" {', '.join(sums)} = part{start}({given})" for start in range(0, len(self._trees), PART)]
        names["finished"] = self._finished
        lines.append(f" return finished([{', '.join(sums)}])")
        return lines

    def _adding(
        self, tree: Mapping[str, Any], sums: Sequence[str], number: Mapping[str, int], names: dict[str, Any]
    ) -> list[str]:
        nodes = {node["id"]: node for node in tree["nodes"]}
        several = self._link == "mean" and len(sums) > 1

        def expression(node: Node) -> str:
            if "feature" not in node:
                said = node["value"] if self._link != "mean" else _said(node)
                if not several:
                    return repr(float(said))
                names[f"leaf{len(names)}"] = said
                return f"leaf{len(names) - 1}"
            left, right = (expression(nodes[node[side]]) for side in ("left", "right"))
            left = f"({left})" if "feature" in nodes[node["left"]] else left
            return f"{left} if {_goes_left(node, number)} else {right}"

        text = expression(tree["nodes"][0])
        if several:
            return [f" leaf = {text}", *(f" {name} += leaf[{k}]" for k, name in enumerate(sums))]
        return [f" {sums[tree.get('output', 0)]} += ({text})"]

    def _finished(self, sums: list[float]) -> tuple[Any, ...]:
        """What the sums come to, by the link."""
        if self._link == "mean":
            said = [total / len(self._trees) for total in sums]
        elif self._link == "logistic":
            small = math.exp(-abs(sums[0]))  # never too large for a double
            said = [1 / (1 + small) if sums[0] >= 0 else small / (1 + small)]
        elif self._link == "softmax":
            largest = max(sums)
            powers = [math.exp(total - largest) for total in sums]
            whole = sum(powers)
            said = [power / whole for power in powers]
        else:
            said = sums
        return self._called(said if self.task == "multiclass" else said[0])

    def _called(self, said: Any) -> tuple[Any, ...]:
        """What is said, and the call that it comes to, as `columns` has them."""
        if self.task == "regression":
            return (float(said),)
        if self.task == "binary":
            return float(said), int(said >= self.threshold)
        probabilities = [float(p) for p in said]
        weighed = [p * w for p, w in zip(probabilities, self.weights)] or probabilities  # noqa: B905
        return *probabilities, self.classes[weighed.index(max(weighed))]


class _Places(dict[Hashable, int]):
    """From what stands in a row to its place among a feature's thresholds; remembers what its table of values does."""

    def __init__(self, table: _Numbers | _Categories, cuts: Sequence[float]) -> None:
        super().__init__()
        self.table, self.cuts = table, cuts
        self._lefts = [bytes([BYTE - 1 if place <= cut else 0 for place in range(BYTE)]) for cut in range(len(cuts))]

    def __missing__(self, cell: Any) -> int:
        place = bisect_left(self.cuts, self.table[cell])
        if cell in self.table:  # not a category that training has not seen, each row of which is counted
            self[cell] = place
        return place

    def goes_left(self, column: Iterable[Any]) -> list[int]:
        """For each threshold a number of a byte a row: all ones for those that go left."""
        places = bytes(map(self.__getitem__, column))
        return [int.from_bytes(places.translate(left), "little") for left in self._lefts]


class _Together:
    """One tree for many rows: a number of a byte a row, in which each has the number of its leaf."""

    def __init__(self, nodes: Sequence[Node], places: Mapping[str, _Places], added: bool) -> None:
        self.values: list[float] = []
        by_id = {node["id"]: node for node in nodes}

        def way(node: Node) -> Any:
            """A leaf's number; or feature, threshold's place, and the ways on the left and on the right."""
            if "feature" not in node:
                self.values.append(float(node["value"] if added else _said(node)))
                return len(self.values) - 1
            cut = bisect_left(places[node["feature"]].cuts, float(node["threshold"]))
            return node["feature"], cut, way(by_id[node["left"]]), way(by_id[node["right"]])

        self.ways = way(nodes[0])

    def said(self, goes_left: Mapping[str, Sequence[int]], leaf: Sequence[int], count: int) -> Iterator[float]:
        """What each row's leaf says. `leaf`: the numbers that have the same leaf in all rows."""

        def leaves(way: Any) -> int:
            if isinstance(way, int):
                return leaf[way]
            feature, cut, left, right = way
            if isinstance(left, int) and isinstance(right, int):
                on_right, differ = leaf[right], leaf[left ^ right]
            else:
                on_right = leaves(right)
                differ = leaves(left) ^ on_right
            own: int = on_right ^ (differ & goes_left[feature][cut])
            return own

        return map(self.values.__getitem__, leaves(self.ways).to_bytes(count, "little"))


def _said(leaf: Node) -> Any:
    """What the leaf of a tree says: one of these, by task."""
    return next(leaf[key] for key in ("probability", "probabilities", "value") if key in leaf)


def _look_up(name: str, number: Mapping[str, int], where: Mapping[str, Any]) -> str:
    return f"x{number[name]} = table{number[name]}[row[{where[name]!r}]]"


def _goes_left(node: Node, number: Mapping[str, int]) -> str:
    return f"x{number[node['feature']]} <= {float(node['threshold'])!r}"


def output_columns(task: str, classes: Sequence[str]) -> list[str]:
    """What a scorer says of a row: probability and prediction; of each class, in order; or the prediction alone."""
    if task == "regression":
        return ["prediction"]
    if task == "binary":
        return ["probability", "prediction"]
    return [*(f"probability_{i}" for i in range(len(classes))), "prediction"]


def reason_columns(count: int) -> list[str]:
    return [f"reason_{i}{what}" for i in range(1, count + 1) for what in ("", "_effect")]


def effect_unit(tree: Mapping[str, Any]) -> str:
    """What the effects of a tree.json's features are in, for a sentence."""
    several, link = tree["task"] == "multiclass", tree.get("link", "mean")
    if link in ("logistic", "softmax"):
        return "log-odds of the predicted class, up to what all classes share" if several else "log-odds"
    if tree["task"] == "regression":
        return tree.get("unit") or "the label's unit"
    return "probability of the predicted class" if several else "probability"


class _Reasons:
    """What each feature adds to what is said of a row: exact Shapley values (docs/models.md, "Why this prediction").

    While a feature is not known, a row goes both ways at a split on it, in the shares of the training rows. Of a leaf
    each feature on the way to it is a factor: 1 or 0 if it is known, whether the row agrees with its splits, else the
    share of rows that do. The value of such a product is an integral of a polynomial, which Gauss and Legendre's
    quadrature has exactly.
    """

    def __init__(self, tree: Mapping[str, Any], most: int) -> None:
        self.names = [feature["name"] for feature in tree["features"]]
        self.most, self.link = most, tree.get("link", "mean")
        place = {name: i for i, name in enumerate(self.names)}
        told = tree.get("trees") or [{"nodes": tree["nodes"]}]
        keep = KEPT_REASONS // len(told)
        self.trees = [(one.get("output", 0), _Ways(one["nodes"], place, self.link != "mean", keep)) for one in told]
        self.share = 1 / len(told) if self.link == "mean" else 1.0

    def told(self, numbers: Sequence[float], output: int) -> tuple[Any, ...]:
        """Names and effects, the largest first. `output`: the class that is asked for, if there are several."""
        effects = [0.0] * len(numbers)
        for own, ways in self.trees:
            if self.link != "softmax" or own == output:
                for feature, effect in ways.effects(numbers, output if self.link == "mean" else 0):
                    effects[feature] += effect
        found = sorted((i for i, effect in enumerate(effects) if effect), key=lambda i: -abs(effects[i]))[: self.most]
        told = [value for i in found for value in (self.names[i], effects[i] * self.share)]
        return (*told, *[None] * (2 * self.most - len(told)))


class _Ways:
    """The ways to the leaves of one tree. A number counts by its place among the thresholds of its feature here."""

    def __init__(self, nodes: Sequence[Node], place: Mapping[str, int], added: bool, keep: int) -> None:
        by_id = {node["id"]: node for node in nodes}
        self.keep = keep
        cuts: dict[int, set[float]] = {}
        for node in nodes:
            if "feature" in node:
                cuts.setdefault(place[node["feature"]], set()).add(float(node["threshold"]))
        self.cuts = {feature: sorted(values) for feature, values in cuts.items()}
        self.own = {feature: i for i, feature in enumerate(self.cuts)}
        self.leaves: list[tuple[list[tuple[int, int, int, float]], Sequence[float]]] = []
        self.known: dict[Any, list[tuple[int, float]]] = {}
        self.of_leaves: dict[Any, list[float]] = {}
        waiting: list[tuple[Node, dict[int, tuple[int, int, float]]]] = [(nodes[0], {})]
        while waiting:
            node, way = waiting.pop()
            if "feature" not in node:
                said = node["value"] if added else _said(node)
                way_to = [(self.own[feature], *bounds) for feature, bounds in way.items()]
                self.leaves.append((way_to, said if isinstance(said, Sequence) else [said]))
                continue
            feature = place[node["feature"]]
            at = bisect_left(self.cuts[feature], float(node["threshold"]))
            low, high, share = way.get(feature, (-1, len(self.cuts[feature]), 1.0))
            left, right = by_id[node["left"]], by_id[node["right"]]
            whole = _cover(left) + _cover(right)
            to_left = _cover(left) / whole if whole > 0 else 0.5
            waiting.append((right, {**way, feature: (max(low, at), high, share * (1 - to_left))}))
            waiting.append((left, {**way, feature: (low, min(high, at), share * to_left)}))

    def effects(self, numbers: Sequence[float], output: int) -> list[tuple[int, float]]:
        """Features and what each adds; none of those that this tree does not ask for."""
        places = tuple([bisect_left(cuts, numbers[feature]) for feature, cuts in self.cuts.items()])
        found = self.known.get((output, places))
        if found is None:
            if len(self.known) * len(places) > self.keep:
                self.known.clear()
            found = self.known[output, places] = self._worked_out(places, output)
        return found

    def _worked_out(self, places: Sequence[int], output: int) -> list[tuple[int, float]]:
        sums = [0.0] * len(places)
        for i, (way, said) in enumerate(self.leaves):
            value = said[output if len(said) > 1 else 0]
            agrees = tuple([low < places[own] <= high for own, low, high, _ in way])
            effects = self.of_leaves.get((i, agrees))
            if effects is None:
                if len(self.of_leaves) * len(places) > self.keep:
                    self.of_leaves.clear()
                effects = self.of_leaves[i, agrees] = _of_leaf(agrees, [share for *_, share in way])
            for (own, *_), effect in zip(way, effects):  # noqa: B905  # Python 3.9 has no strict
                sums[own] += effect * value
        return list(zip(self.cuts, sums))  # noqa: B905  # Python 3.9 has no strict


def _of_leaf(agrees: Sequence[bool], shares: Sequence[float]) -> list[float]:
    """The values of a leaf that says 1."""
    sums = [0.0] * len(shares)
    for point, mass in _quadrature(max(1, (len(shares) + 1) // 2)):
        # A factor of zero is of a feature that adds nothing, and makes what others add nothing.
        factors = [a * point + share * (1 - point) for a, share in zip(agrees, shares)]  # noqa: B905
        whole = mass * math.prod(factors)
        for i, factor in enumerate(factors):
            if factor:
                sums[i] += whole / factor
    return [(a - share) * total for a, share, total in zip(agrees, shares, sums)]  # noqa: B905


@lru_cache
def _quadrature(count: int) -> list[tuple[float, float]]:
    """Gauss and Legendre's points from 0 to 1 with their masses: exact up to a degree of 2 * count - 1."""
    found = []
    for i in range(count):
        x = math.cos(math.pi * (i + 0.75) / (count + 0.5))
        for _ in range(100):  # Newton's method; some five steps are enough
            before, here = 1.0, x
            for k in range(2, count + 1):
                before, here = here, ((2 * k - 1) * x * here - (k - 1) * before) / k
            slope = count * (x * here - before) / (x * x - 1)
            step, x = here / slope, x - here / slope
            if abs(step) < 1e-15:
                break
        found.append(((x + 1) / 2, 1 / ((1 - x * x) * slope * slope)))
    return found


def _cover(node: Node) -> float:
    """How much of the training side came to a node."""
    cover = node.get("cover", node.get("rows"))
    if cover is None:
        raise ScoringError(
            "This model gives no reasons: its trees do not tell how many training rows came to each node, as those of "
            "an earlier release do not. Train again, or ask for none."
        )
    return float(cover)


@dataclass(frozen=True)
class Scored:
    """What was done with a CSV file: rows scored, and of each category the rows with values training has not seen.

    `predicted`: rows by what was predicted (0 or 1, or a class), as text; empty for numbers.
    """

    rows: int
    unseen: dict[str, tuple[int, str]]  # column: (rows, the first such value)
    predicted: dict[str, int] = field(default_factory=dict)


def open_csv(path: Path) -> TextIO:
    """A CSV file as text: UTF-8 with or without a byte order mark, unpacked if its name ends with .gz."""
    if path.suffix == ".gz":
        return io.TextIOWrapper(gzip.open(path, "rb"), encoding="utf-8-sig", newline="")
    return path.open(encoding="utf-8-sig", newline="")


class _Lines:
    """Ends lines as Unix does. Python before 3.13 quotes a carriage return only if it is part of the line's end."""

    def __init__(self, target: TextIO) -> None:
        self._write = target.write

    def write(self, line: str) -> None:
        self._write(line[:-2] + "\n")


def score_csv(
    scorer: Scorer,
    source: Iterable[str],
    target: TextIO,
    *,
    name: str,
    keys: Sequence[str] = (),
    nulls: Sequence[str] = NULLS,
    on_progress: Callable[[int], None] = lambda rows: None,
) -> Scored:
    """Score the CSV text `source`, called `name` in errors, and write CSV with the same delimiter to `target`.

    Columns in: every feature, by name, in any order. Columns out: those of `keys` that there are, or all columns if
    there is none of them; then the scorer's own. Raises ScoringError naming line and column.
    """
    lines = _lines_of_text(source, name)
    limit = csv.field_size_limit(LARGEST_CELL)  # it is the whole process's
    try:
        first = next(lines, "")
        delimiter = max(DELIMITERS, key=lambda d: _promise(first, d, scorer.features))
        reader = csv.reader(chain([first], lines), delimiter=delimiter)
        header = next(reader, [])
        _check(header, scorer.features, name)
        kept = [i for i, column in enumerate(header) if column in keys]
        kept = kept or [i for i, column in enumerate(header) if column not in scorer.columns]
        where = {feature: header.index(feature) for feature in scorer.features}
        says, tables = scorer.compile(where, nulls, texts=True)
        together = scorer.together(where, tables)
        scored = _scored_rows(reader, len(header), kept, says, name, together)
        writer = csv.writer(_Lines(target), delimiter=delimiter)
        writer.writerow([*(header[i] for i in kept), *scorer.columns])
        rows, predicted = 0, Predicted(scorer)
        while chunk := list(islice(scored, CHUNK)):
            writer.writerows(chunk)
            rows += len(chunk)
            predicted.count(chunk)
            on_progress(rows)
    except UnicodeDecodeError as error:
        raise ScoringError(f"{name} is not UTF-8 text ({error.reason}): save or convert it as UTF-8.") from None
    except csv.Error as error:
        raise ScoringError(f"{name} is not readable as CSV: {_told(error)}.") from None
    except (gzip.BadGzipFile, zlib.error, EOFError) as error:
        raise ScoringError(f"{name} is not a whole gzip file: {error}") from None
    finally:
        csv.field_size_limit(limit)
    return Scored(rows, unseen_of(tables), predicted.rows)


class Predicted:
    """Counts rows by what is predicted of them (`rows`, by its text); not those of a model that says numbers."""

    def __init__(self, scorer: Scorer) -> None:
        self._counts: Counter[Any] = Counter()
        place = scorer.columns.index("prediction") - len(scorer.columns)
        self._prediction = None if scorer.task == "regression" else itemgetter(place)

    def count(self, said: Iterable[Sequence[Any]]) -> None:
        """Rows that end with what the scorer says of them."""
        if self._prediction:
            self._counts.update(map(self._prediction, said))

    @property
    def rows(self) -> dict[str, int]:
        return {str(name): count for name, count in self._counts.items()}


def _lines_of_text(source: Iterable[str], name: str) -> Iterator[str]:
    for number, line in enumerate(source, 1):
        if "\0" in line:
            raise ScoringError(f"{name} holds zero bytes (line {number}), so it is no text: export it anew, in UTF-8.")
        if line.startswith("\ufeff"):
            raise ScoringError(
                f"{name}: line {number} begins with a byte order mark, as where the second of two files was joined to "
                "the first. Take such marks out, and headers within the file with them."
            )
        yield line


def unseen_of(tables: Mapping[str, _Numbers | _Categories]) -> dict[str, tuple[int, str]]:
    """Of each category that had some, the rows with values that training has not seen, and the first such value."""
    return {n: (t.unseen_rows, t.example) for n, t in tables.items() if isinstance(t, _Categories) and t.unseen_rows}


def _promise(line: str, delimiter: str, features: Sequence[str]) -> tuple[int, int]:
    """How well a delimiter explains the header: model columns that it finds, then columns at all."""
    columns = next(csv.reader([line], delimiter=delimiter), [])
    return len(set(columns) & set(features)), len(columns)


def _check(header: Sequence[str], features: Sequence[str], name: str) -> None:
    if not header:
        raise ScoringError(f"{name} is empty: its first line must name the columns.")
    if lacking := [feature for feature in features if feature not in header]:
        raise ScoringError(
            f"{name} has no column {', '.join(lacking)}, which the model needs; "
            f"it has {', '.join(header[:30])}{', ...' if len(header) > 30 else ''}. "
            "A column is called here as in the features that the model was trained on."
        )
    if twice := [feature for feature in features if header.count(feature) > 1]:
        raise ScoringError(
            f"{name} has the column {', '.join(twice)} more than once: leave only the one that is meant."
        )


def _scored_rows(
    reader: Any,
    width: int,
    kept: Sequence[int],
    says: Says,
    name: str,
    together: Callable[[Sequence[Sequence[str]]], Iterable[tuple[Any, ...]]] | None,
) -> Iterator[tuple[Any, ...]]:
    """The output's rows. `reader` stands behind the header. `together`: says the same of many rows, if it can."""
    take: Callable[[list[str]], tuple[str, ...]]
    if len(kept) == 0:
        take = lambda row: ()  # noqa: E731
    elif len(kept) == 1:
        take = lambda row, i=kept[0]: (row[i],)  # type: ignore[misc]  # noqa: E731
    else:
        take = itemgetter(*kept)
    rows, lines = _whole_rows(reader, width, name), 0
    try:
        if together is None:
            for row in rows:
                yield take(row) + says(row)
        else:
            while batch := [(reader.line_num, row) for row in islice(rows, BATCH)]:
                try:
                    found = together([row for _, row in batch])
                    yield from [take(row) + said for (_, row), said in zip(batch, found)]  # noqa: B905
                except _BadNumberError:
                    for line, row in batch:  # which one it was
                        lines = line
                        says(row)
                    raise
    except _BadNumberError as error:
        raise ScoringError(
            f"{name}, line {lines or reader.line_num}: {error}. Mend it, or declare it as a text that means missing."
        ) from None


def _whole_rows(reader: Any, width: int, name: str) -> Iterator[list[str]]:
    """The rows, without empty lines. Raises ScoringError for a row of another width."""
    try:
        for row in reader:
            if len(row) == width:
                yield row
            elif row:
                raise ScoringError(
                    f"{name}, line {reader.line_num}: {len(row)} cells, but the header has {width} columns."
                )
    except csv.Error as error:
        raise ScoringError(f"{name}, line {reader.line_num}: not readable as CSV: {_told(error)}.") from None


def _told(error: csv.Error) -> str:
    if "field larger than field limit" not in str(error):
        return str(error)
    return f"a cell has more than {LARGEST_CELL:,} characters; is a quote in it never closed?"


def main(arguments: Sequence[str]) -> int:
    """`python scorer.py tree.json FILE.csv [REASONS]`: the file scored on stdout. Returns the exit code."""
    if len(arguments) not in (2, 3) or not all(text.isdecimal() for text in arguments[2:]):
        print("usage: python scorer.py tree.json FILE.csv [REASONS] > scored.csv", file=sys.stderr)
        return 2
    tree, file = map(Path, arguments[:2])
    reasons = int(arguments[2]) if arguments[2:] else 0
    try:
        with open_csv(file) as source:
            scorer = Scorer(json.loads(tree.read_text(encoding="utf-8")), reasons)
            score_csv(scorer, source, sys.stdout, name=file.name)
    except (OSError, ValueError, ScoringError) as error:
        print(f"Error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
