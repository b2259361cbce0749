"""What a model looks at, by rows whose answers are known beforehand."""

import dataclasses
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from dml.models.scorer import Scorer
from jobs.judges import explanation
from jobs.judges.explanation import Sample
from jobs.learners.survey import _hashed
from jobs.models.inputs import MISSING
from jobs.tables import split
from tests.jobs import points

# x > 5 is late if it is red, and never else; y is asked for by a split that changes nothing.
NUMBER = {"kind": "number", "missing": MISSING, "missing_rows": 1}
COLOUR = {"kind": "category", "encoding": {"red": 0.7, "green": 0.1}, "missing": 0.2, "unseen": 0.3, "missing_rows": 0}
FEATURES = [{"name": "x", **NUMBER}, {"name": "y", **NUMBER}, {"name": "colour", **COLOUR}]


def node(i: int, depth: int, rows: int, probability: float, *split: Any) -> dict[str, Any]:
    told = {"id": i, "depth": depth, "rows": rows, "probability": probability}
    return told | dict(zip(("feature", "threshold", "left", "right", "gain"), split, strict=False))


TREE: dict[str, Any] = {
    "format": 2,
    "task": "binary",
    "classes": [],
    "features": FEATURES,
    "nodes": [
        node(0, 0, 100, 0.3, "x", 5.0, 1, 2, 0.1),
        node(1, 1, 50, 0.1, "y", 0.5, 3, 4, 0.1),
        node(3, 2, 25, 0.1),
        node(4, 2, 25, 0.1),
        node(2, 1, 50, 0.5, "colour", 0.5, 5, 6, 0.2),
        node(5, 2, 25, 0.1),
        node(6, 2, 25, 0.9),
    ],
}
SETTINGS = dataclasses.replace(points.settings(), keys=("id",))
ROWS = 400


def rows(label: Any = None) -> Sample:
    """x is 0 to 9 by turns and missing in every 20th row, one half is red; late is what the tree says."""
    x = [None if i % 20 == 0 else float(i % 10) for i in range(ROWS)]
    colour = ["red" if i // 10 % 2 else "green" for i in range(ROWS)]
    late = [int((a or 0) > 5 and c == "red") for a, c in zip(x, colour, strict=True)]
    y = [float(i % 3) for i in range(ROWS)]
    batch = pa.RecordBatch.from_pydict({"id": range(ROWS), "x": x, "y": pa.array(y), "colour": colour})
    return Sample(batch, np.array(late if label is None else label))


def test_a_feature_should_matter_as_far_as_the_metric_gets_worse_without_it() -> None:
    told = explanation.explain(TREE, rows(), SETTINGS)["permutation"]
    assert (told["metric"], told["rows"], told["repeats"]) == ("log_loss", ROWS, explanation.REPEATS)
    assert told["log_loss"] == pytest.approx(-np.log(0.9))
    increases = {one["feature"]: one["increase"] for one in told["features"]}
    assert increases["y"] == 0  # the trees ask for it, and nothing comes of it
    # Four in ten have x > 5, half of them red. With another's x 0.2 * 0.6 are missed, and 0.3 * 0.4 called in vain.
    assert increases["x"] == pytest.approx((0.12 + 0.12) * np.log(9), rel=0.15)
    assert increases["colour"] == pytest.approx((0.4 * 0.5) * np.log(9), rel=0.2)
    assert list(increases)[-1] == "y"
    assert explanation.explain(TREE, rows(), SETTINGS)["permutation"] == told


def test_dependence_should_be_the_mean_answer_with_a_missing_value_apart() -> None:
    told = {one["feature"]: one for one in explanation.explain(TREE, rows(), SETTINGS)["dependence"]}
    of_x = {point["value"]: point["says"][0] for point in told["x"]["points"]}
    assert {value for value in of_x if value is not None} <= set(map(float, range(10)))
    assert list(of_x)[-1] is None
    assert of_x[None] == of_x[2.0] == pytest.approx(0.1)
    assert of_x[9.0] == pytest.approx(0.5, abs=0.02)  # one half is red
    colours = {point["value"]: (point["rows"], point["says"][0]) for point in told["colour"]["points"]}
    assert colours["green"] == (200, pytest.approx(0.1))
    assert colours["red"] == (200, pytest.approx(0.1 + 0.8 * 0.4, abs=0.02))


def test_examples_should_be_the_highest_the_lowest_and_one_between_with_reasons_that_add_up(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    told = explanation.explain(TREE, rows(), SETTINGS)["examples"]
    assert told["unit"] == "probability"
    assert [row["which"] for row in told["rows"]] == ["highest", "in between", "lowest"]
    first = told["rows"][0]
    assert (first["says"], first["observed"], first["expected"]) == (0.9, 1.0, pytest.approx(0.3))
    by_name = {one["feature"]: one for one in first["reasons"]}
    assert by_name["colour"]["value"] == "red"
    assert by_name["x"]["value"] > 5
    # Known first, x adds 0.2 and colour 0.2; known second, 0.4 each.
    assert by_name["x"]["effect"] == by_name["colour"]["effect"] == pytest.approx(0.3)
    monkeypatch.setattr(explanation, "REASONS", 1)
    again = explanation.explain(TREE, rows(), SETTINGS)["examples"]
    assert again["rows"][0]["rest"] == pytest.approx(0.3)
    for row in [*told["rows"], *again["rows"]]:
        moved = sum(one["effect"] for one in row["reasons"]) + row["rest"]
        assert row["expected"] + moved == pytest.approx(row["says"])


def test_several_classes_and_sums_should_be_explained_too() -> None:
    settings = dataclasses.replace(points.multiclass(), keys=("id",))
    nodes = [
        {key: value for key, value in one.items() if key != "probability"}
        | {"probabilities": [one["probability"], 0.0, 1 - one["probability"]]}
        for one in TREE["nodes"]
    ]
    model = {**TREE, "task": "multiclass", "classes": ["low", "mid", "high"], "nodes": nodes}
    told = explanation.explain(model, rows([2 * (1 - late) for late in rows().label]), settings)
    assert told["permutation"]["log_loss"] == pytest.approx(-np.log(0.9))
    assert told["dependence"][0]["of"][2] == "mid"  # which changes least
    assert {row["called"] for row in told["examples"]["rows"]} <= {"low", "high"}
    added = [one | {"value": one["probability"] * 10, "cover": float(one["rows"])} for one in TREE["nodes"]]
    boosted = {**TREE, "format": 3, "task": "regression", "link": "identity", "base": [1.0]}
    boosted["trees"] = [{"output": 0, "nodes": added}, {"output": 0, "nodes": added}]
    del boosted["nodes"]
    amounts = 1 + 20 * np.array([0.9 if late else 0.1 for late in rows().label])
    told = explanation.explain(boosted, rows(amounts), dataclasses.replace(points.regression(), keys=("id",)))
    assert told["permutation"]["rmse"] == pytest.approx(0, abs=1e-12)
    assert told["permutation"]["features"][0]["increase"] > 5
    assert told["examples"]["rows"][0]["says"] == pytest.approx(19)


def test_few_rows_should_be_asked_of_many_trees(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(explanation, "BUDGET", 150 * 2 * 3 * 3)  # of a tree of depth 2: three features, three times
    assert explanation.explain(TREE, rows(), SETTINGS)["permutation"]["rows"] == 150
    monkeypatch.setattr(explanation, "BUDGET", 1)
    assert explanation.explain(TREE, rows(), SETTINGS)["permutation"]["rows"] == explanation.FEWEST_ROWS


def test_a_tree_of_one_leaf_should_have_nothing_to_explain() -> None:
    told = explanation.explain({**TREE, "nodes": [node(0, 0, 100, 0.3)]}, rows(), SETTINGS)
    assert told["permutation"] is told["dependence"] is None
    assert [row["reasons"] for row in told["examples"]["rows"]] == [[], [], []]


def test_values_that_training_has_not_seen_and_numbers_that_nobody_has_should_cost_no_explanation() -> None:
    """As of a shop, where no shop of the test side has been trained on, and of a sparse number."""
    batch = rows().batch
    shops = pa.array([f"shop {i % 7}" for i in range(ROWS)])
    batch = batch.set_column(3, "colour", shops).set_column(1, "x", pa.nulls(ROWS, pa.float64()))
    told = explanation.explain(TREE, Sample(batch, rows().label), SETTINGS)
    assert {one["increase"] for one in told["permutation"]["features"]} == {0.0}
    of = {one["feature"]: [point["value"] for point in one["points"]] for one in told["dependence"]}
    assert of == {"x": [None], "y": [0.0, 1.0, 2.0, None]}
    assert len(told["examples"]["rows"]) >= 1


def test_rows_of_a_group_should_be_sampled_one_by_one_and_always_the_same_ones() -> None:
    batch = pa.RecordBatch.from_pydict({"id": range(100_000), "day": ["2024-01-01"] * 100_000})
    hashes = _hashed(batch, ["id", "day"])
    assert split.is_sampled(hashes, 0.01).mean() == pytest.approx(0.01, rel=0.2)
    assert (_hashed(batch.slice(500, 9), ["id", "day"]) == hashes[500:509]).all()


def test_reasons_should_not_ask_for_what_no_tree_asks_for() -> None:
    model = {**TREE, "nodes": [node(0, 0, 100, 0.3, "x", 5.0, 1, 2, 0.1), node(1, 1, 50, 0.1), node(2, 1, 50, 0.5)]}
    said = Scorer(model, reasons=1).predict({"x": 1.0, "y": "no number", "colour": "red"})
    assert (said["probability"], said["reason_1"]) == (0.1, "x")
