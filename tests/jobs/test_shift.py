"""What a feature's move does to the mean score, by moves whose effect is known."""

import dataclasses
from typing import Any

import numpy as np
import pytest

from jobs.judges import explanation, shift
from jobs.judges.explanation import Sample
from jobs.tables.settings import Split
from tests.jobs import points
from tests.jobs.test_explanation import FEATURES, SETTINGS, TREE, rows


def number(name: str, cells: list[tuple[float, float, int]], missing: int = 0) -> dict[str, Any]:
    histogram = [{"from": low, "to": high, "rows": count} for low, high, count in cells]
    return {"name": name, "kind": "number", "histogram": histogram, "missing": {"rows": missing}}


def category(name: str, met: dict[str, int], others: int = 0, names: tuple[str, ...] = ()) -> dict[str, Any]:
    top = [{"value": value, "rows": count} for value, count in met.items()]
    told = {"name": name, "kind": "category", "top": top, "missing": {"rows": 0}}
    return {**told, "others": {"rows": others, "values": len(names), "names": list(names)}}


def drifted(*verdicts: tuple[str, str]) -> dict[str, Any]:
    return {"format": 1, "features": [{"name": name, "verdict": verdict} for name, verdict in verdicts]}


def test_each_feature_that_moved_should_say_what_it_does_to_the_mean_score() -> None:
    """Above 5 a red one has 0.9, else all have 0.1; one half is red, and 4 in 10 are above 5."""
    old = {"features": [number("x", [(0, 5, 900), (6, 9, 100)]), category("colour", {"red": 500, "green": 500})]}
    new = {"features": [number("x", [(0, 5, 500), (6, 9, 500)]), category("colour", {"red": 900, "green": 100})]}
    told = shift.of_score(drifted(("x", "large"), ("colour", "moderate"), ("y", "stable")), old, new, TREE, rows(), 0)
    x, colour, y = (of["moves_score"] for of in told["features"])
    assert x["by"] == pytest.approx(0.4 * 0.5 * 0.8, rel=0.1)  # 40 % more are above 5, half of them red
    assert colour["by"] == pytest.approx(0.4 * 0.4 * 0.8, rel=0.15)
    assert (x["of"], y) == ("", None)
    back = shift.of_score(drifted(("x", "large")), new, old, TREE, rows(), 0)
    assert back["features"][0]["moves_score"]["by"] == -x["by"]


def test_of_several_classes_the_one_that_moves_most_should_be_named() -> None:
    nodes = [one | {"probabilities": [0.1, 0.9 - one["probability"], one["probability"]]} for one in TREE["nodes"]]
    model = {**TREE, "task": "multiclass", "classes": ["a", "b", "c"], "nodes": nodes}
    old, new = ({"features": [number("x", [(0, 5, low), (6, 9, 100 - low)])]} for low in (90, 10))
    found = shift.of_score(drifted(("x", "large"), ("new", "large")), old, new, model, rows(), 0)["features"]
    assert found[0]["moves_score"]["of"] in ("b", "c")
    assert abs(found[0]["moves_score"]["by"]) == pytest.approx(0.8 * 0.5 * 0.8, rel=0.1)
    assert found[1]["moves_score"] is None  # the model does not know it


def test_values_should_be_met_as_often_as_in_the_profile() -> None:
    x, _, colour = FEATURES
    found = shift.values_of(x, number("x", [(0.0, 1.0, 50), (4.0, 4.0, 25)], missing=25), 8)
    assert found.tolist() == [x["missing"]] * 2 + [0.125, 0.375, 0.625, 0.875] + [4.0] * 2
    named = shift.values_of(colour, category("colour", {"green": 2}, 2, ("red", "never seen")), 4)
    assert named.tolist() == [0.1, 0.1, 0.3, 0.7]
    assert shift.values_of(colour, category("colour", {"green": 2}, 2), 4).tolist() == [0.1, 0.1, 0.3, 0.3]
    assert shift.values_of(x, number("x", []), 2).tolist() == [x["missing"]] * 2


def test_two_models_should_be_compared_row_by_row() -> None:
    """The other one says 0.5 of every row: what is 0.9 likely by the first costs it log(0.9 / 0.5) less."""
    even = {**TREE, "nodes": [{"id": 0, "depth": 0, "rows": 1, "probability": 0.5}]}
    told = explanation.compare(TREE, even, rows(), SETTINGS)
    assert told is not None
    assert told["difference"] == told["low"] == told["high"] == pytest.approx(-np.log(0.9 / 0.5))
    other = rows([i % 2 for i in range(400)])
    told = explanation.compare(TREE, even, other, SETTINGS)
    assert told is not None
    assert told["high"] - told["low"] == pytest.approx(2 * 1.96 * np.log(9) / 2 / 20, rel=0.05)
    assert explanation.compare(TREE, even, Sample(other.batch.slice(0, 20), other.label[:20]), SETTINGS) is None
    of_groups = dataclasses.replace(SETTINGS, split=Split(by=("colour",)))
    assert explanation.compare(TREE, even, other, of_groups) is None, "rows of a group are alike"
    values = [one | {"value": one["probability"]} for one in TREE["nodes"]]
    model = {**TREE, "task": "regression", "nodes": values}
    mean = {**model, "nodes": [{"id": 0, "depth": 0, "rows": 1, "value": 0.1}]}
    told = explanation.compare(
        mean, model, rows(np.array([0.9 if late else 0.1 for late in rows().label])), points.regression()
    )
    assert told is not None
    share = rows().label.mean()
    assert told["difference"] == pytest.approx(0.8 * share**0.5)
    assert told["high"] - told["difference"] == pytest.approx(
        1.96 * 0.64 * (share * (1 - share)) ** 0.5 / (2 * 0.8 * share**0.5) / 20, rel=1e-6
    )
