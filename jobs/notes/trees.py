"""A tree in words: its branches, what a node says, and the way of one row down to its leaf."""

from typing import Any, Dict, Iterator, List, Mapping, Sequence, Tuple

from jobs.models.forms import Told
from jobs.models.inputs import MISSING

NAMED = 6  # categories that a condition names before it only counts the rest


def said(node: Told, model: Told) -> str:
    """What a node says of its rows: a probability, the class that they are called with its probability, or a value."""
    if "probabilities" in node:
        shares, classes = node["probabilities"], model["classes"]
        weighed = [p * w for p, w in zip(shares, model.get("weights") or [1.0] * len(classes))]  # noqa: B905
        called = weighed.index(max(weighed))
        return f"{classes[called]} {shares[called]:.2f}"
    if "probability" in node:
        return f"{node['probability']:.3f}"
    return f"{node['value']:.4g} {model.get('unit', '')}".rstrip() if "value" in node else ""


def conditions(node: Told, model: Told) -> Tuple[str, str]:
    """What leads to the left, and what to the right. One tree tells its own, of several they are worked out here."""
    if "condition" in node:
        return node["condition"], node["otherwise"]
    name, threshold = node["feature"], node["threshold"]
    (feature,) = [one for one in model["features"] if one["name"] == name]
    if feature["kind"] == "number":
        if threshold < MISSING / 4:  # half-way between MISSING and the least value of the training side
            return f"{name} is missing", f"{name} is known"
        or_missing = " or missing" if feature["missing_rows"] else ""
        return f"{name} <= {threshold:.6g}{or_missing}", f"{name} > {threshold:.6g}"
    left = sorted(value for value, code in feature["encoding"].items() if code <= threshold)
    right = sorted(value for value, code in feature["encoding"].items() if code > threshold)
    if feature["missing_rows"]:
        (left if feature["missing"] <= threshold else right).append("missing")
    return _among(name, left), _among(name, right)


def _among(name: str, values: Sequence[str]) -> str:
    if not values:
        return f"{name} is another value than training has seen"
    more = f", {len(values) - NAMED} more" if len(values) > NAMED else ""
    return f"{name} in {', '.join(values[:NAMED])}{more}"


def branches(model: Told, nodes: Sequence[Told]) -> Iterator[Tuple[int, str, int, str]]:
    """depth, condition, training rows, what is said: of each node, a parent before its children, the left one first."""
    by_id = {node["id"]: node for node in nodes}

    def below(node: Told, condition: str) -> Iterator[Tuple[int, str, int, str]]:
        yield node["depth"], condition, node.get("rows", 0), said(node, model)
        if "feature" in node:
            for side, told in zip(("left", "right"), conditions(node, model)):  # noqa: B905  # not in Python 3.9
                yield from below(by_id[node[side]], told)

    yield from below(nodes[0], "all rows")


def path(model: Told, nodes: Sequence[Told], row: Mapping[str, Any]) -> List[Tuple[str, Any, Told]]:
    """The way of a row from the root: of each node the condition that led there, the row's value of the feature that it
    is about, and the node. `row`: each feature's value as jobs/models/inputs.py `feature_columns` has it.

    As jobs/models/tree.py scores: left where the number is no larger than the threshold.
    """
    by_id = {node["id"]: node for node in nodes}
    features = {feature["name"]: feature for feature in model["features"]}
    node, steps = nodes[0], [("all rows", "", nodes[0])]
    while "feature" in node:
        name = node["feature"]
        is_left = encoded(features[name], row[name]) <= node["threshold"]
        told = conditions(node, model)[0 if is_left else 1]
        node = by_id[node["left" if is_left else "right"]]
        steps.append((told, row[name], node))
    return steps


def encoded(feature: Mapping[str, Any], value: Any) -> float:
    """The number that a model compares of a value: what jobs/models/inputs.py makes of a column."""
    if feature["kind"] == "number":
        number = MISSING if value is None else float(value)
        return number if abs(number) < float("inf") else MISSING  # no number and an infinite one count as missing
    known: Dict[str, float] = feature["encoding"]
    return float(feature["missing"] if value is None else known.get(str(value), feature["unseen"]))
