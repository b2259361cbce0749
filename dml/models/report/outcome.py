"""What a node of the tree says, by task: in words, as a step of a colour scale, and how sure it can be of that."""

import math
from collections.abc import Sequence
from typing import Any, Protocol

from dml.models.figures import MINUS, quantity
from jobs.models import forms

Node = dict[str, Any]

TONES = 11  # steps of the colour scale of a probability or a value, what guessing says in the middle
_MIDDLE = TONES // 2
_TONE_STEP = 0.4  # log odds a step: five of them make the odds about seven times as high, or as low
_LABELLED = (2, _MIDDLE, 8)  # the steps that the legend labels, beside its ends

CLASS_COLOURS = 8  # the most frequent classes have a colour of their own, the others share one more
STRENGTHS = (42, 70, 100)  # per cent of a class's colour, by how sure a node is of it
_SURE = (0.5, 0.75)  # where the strength changes
_BOX_CLASS = 12  # characters of a class in a box of the picture


class Outcome(Protocol):
    """`guess` is what guessing says, in words; `tones` the number of colours."""

    guess: str
    tones: int

    def level(self, node: Node) -> float:
        """How much the node says: its probability, the share of its most likely class, or its value."""

    def tone(self, node: Node) -> int: ...

    def says(self, node: Node) -> str: ...

    def brief(self, node: Node) -> str:
        """What it says, short enough for a box of the picture."""

    def span(self, lowest: float, highest: float) -> str:
        """The levels of some leaves, from the lowest to the highest."""

    def legend(self) -> list[str]:
        """A label for each step of the colour scale, '' for most; of classes, those that have a colour."""

    def reach(self, node: Node) -> tuple[float, float]:
        """A 95 % interval of the level, for ranking: a small leaf is extreme by luck."""


class Likelihood:
    """Binary: a probability, coloured by its log odds against the base rate."""

    tones = TONES

    def __init__(self, base_rate: float) -> None:
        self._base = _log_odds(base_rate)
        self.guess = f"{base_rate:.1%}"

    def level(self, node: Node) -> float:
        return float(node["probability"])

    def tone(self, node: Node) -> int:
        return _held((_log_odds(node["probability"]) - self._base) / _TONE_STEP)

    def says(self, node: Node) -> str:
        return f"{node['probability']:.1%}"

    brief = says

    def span(self, lowest: float, highest: float) -> str:
        return f"{lowest:.0%} to {highest:.0%}"

    def legend(self) -> list[str]:
        middles = [1 / (1 + math.exp(-self._base - (tone - _MIDDLE) * _TONE_STEP)) for tone in range(TONES)]
        return _scale([f"{share:.0%}" for share in middles], "base rate")

    def reach(self, node: Node) -> tuple[float, float]:
        """Wilson's interval (Wilson 1927, doi:10.1080/01621459.1927.10502953)."""
        return wilson(node["probability"], node["rows"])


class Classes:
    """Multiclass: the first class with the largest probability times its weight; its colour, the stronger the surer."""

    tones = (CLASS_COLOURS + 1) * len(STRENGTHS)

    def __init__(self, classes: Sequence[str], root: Node, weights: Sequence[float] | None = None) -> None:
        self.classes = list(classes)
        self.weights = weights
        self.shares: list[float] = root["probabilities"]
        ranked = sorted(range(len(classes)), key=lambda one: -self.shares[one])
        self._slot = {one: min(place, CLASS_COLOURS) for place, one in enumerate(ranked)}
        self.ranked = ranked
        self.guess = self.says(root)

    def called(self, node: Node) -> int:
        """The place of the class that the node says, among all classes."""
        return forms.called(node["probabilities"], self.weights)

    def level(self, node: Node) -> float:
        return float(node["probabilities"][self.called(node)])

    def tone(self, node: Node) -> int:
        strength = sum(self.level(node) >= least for least in _SURE)
        return self._slot[self.called(node)] * len(STRENGTHS) + strength

    def says(self, node: Node) -> str:
        return f"{self.classes[self.called(node)]} {self.level(node):.1%}"

    def brief(self, node: Node) -> str:
        name = self.classes[self.called(node)]
        return f"{name if len(name) <= _BOX_CLASS else name[: _BOX_CLASS - 1] + '…'} {self.level(node):.0%}"

    def span(self, lowest: float, highest: float) -> str:
        return f"{lowest:.0%} to {highest:.0%} sure"

    def legend(self) -> list[str]:
        named = [self.classes[one] for one in self.ranked[:CLASS_COLOURS]]
        rest = len(self.classes) - len(named)
        return [*named, *([f"{rest} other classes" if rest > 1 else self.classes[self.ranked[-1]]] if rest else [])]

    def reach(self, node: Node) -> tuple[float, float]:
        return wilson(self.level(node), node["rows"])


class Value:
    """Regression: a value, coloured by how far it is from the mean, in spreads of what the leaves say."""

    tones = TONES

    def __init__(self, nodes: Sequence[Node], deviation: float) -> None:
        """`deviation`: the label's standard deviation among the training rows."""
        self._mean, self._deviation = float(nodes[0]["value"]), deviation
        leaves = [node for node in nodes if "left" not in node]
        rows = sum(node["rows"] for node in leaves)
        squares = sum(node["rows"] * (node["value"] - self._mean) ** 2 for node in leaves)
        self._step = 2 * math.sqrt(squares / rows) / _MIDDLE or 1.0  # the scale ends two spreads from the mean
        self.guess = self._words(self._mean)

    def level(self, node: Node) -> float:
        return float(node["value"])

    def tone(self, node: Node) -> int:
        return _held((node["value"] - self._mean) / self._step)

    def says(self, node: Node) -> str:
        return self._words(node["value"])

    brief = says

    def span(self, lowest: float, highest: float) -> str:
        return f"{self._words(lowest)} to {self._words(highest)}"

    def legend(self) -> list[str]:
        return _scale([self._words(self._mean + (tone - _MIDDLE) * self._step) for tone in range(TONES)], "mean")

    def reach(self, node: Node) -> tuple[float, float]:
        """By the deviation of all rows, that of a leaf's own being smaller: rather too wide than too narrow."""
        half = 1.96 * self._deviation / math.sqrt(node["rows"])
        return node["value"] - half, node["value"] + half

    def _words(self, value: float) -> str:
        return quantity(value).replace("-", MINUS)


def outcome(tree: dict[str, Any], metrics: dict[str, Any]) -> Outcome:
    """What the nodes of a tree.json say; `metrics` is the metrics.json of the same run.

    Several trees have no node that says what the model does: of them it only tells what guessing knows.
    """
    task = tree.get("task", "binary")
    nodes = tree.get("nodes") or [_all_rows(task, metrics)]
    if task == "multiclass":
        return Classes(tree["classes"], nodes[0], tree.get("weights"))
    if task == "regression":
        return Value(nodes, metrics["label"]["train"]["std"])
    return Likelihood(metrics["base_rate"])


def _all_rows(task: str, metrics: dict[str, Any]) -> Node:
    """The training rows as a tree of a single leaf would tell them."""
    if task == "binary":  # what is known of it stands in metrics.json itself
        return {"probability": metrics["base_rate"]}
    rows, label = metrics["rows"]["train"], metrics["label"]["train"]
    if task == "multiclass":
        return {"rows": rows, "probabilities": [count / rows for count in label["counts"]]}
    return {"rows": rows, "value": label["mean"]}


def wilson(share: float, rows: int) -> tuple[float, float]:
    """Wilson's 95 % interval of a share seen in `rows` rows."""
    if not rows:
        return 0.0, 1.0
    z = 1.96
    middle = share + z * z / (2 * rows)
    reach = z * math.sqrt(share * (1 - share) / rows + z * z / (4 * rows * rows))
    scale = 1 + z * z / rows
    return max(0.0, (middle - reach) / scale), min(1.0, (middle + reach) / scale)


def _held(steps: float) -> int:
    return _MIDDLE + max(-_MIDDLE, min(_MIDDLE, round(steps)))


def _scale(labels: list[str], guessing: str) -> list[str]:
    told = [label if tone in _LABELLED else "" for tone, label in enumerate(labels)]
    told[_MIDDLE] += f" {guessing}"
    told[0], told[-1] = f"≤ {labels[0]}", f"≥ {labels[-1]}"
    return told


def _log_odds(probability: float) -> float:
    held = min(max(probability, 1e-6), 1 - 1e-6)
    return math.log(held / (1 - held))
