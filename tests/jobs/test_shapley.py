"""Why a row is told what it is told: every implementation gives the Shapley values that their definition gives."""

import json
import math
from itertools import combinations
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import xgboost
from hypothesis import HealthCheck, given, settings

from dml.models import scorer
from jobs.learners import boosted
from jobs.learners.encoding import Learned
from jobs.models import forms, reasons
from jobs.models import tree as spark_tree
from jobs.models.inputs import MISSING
from tests.jobs.test_scorers import Row, Tree, by_spark, trees_and_rows, walked

COUNT = 6  # as many as a drawn tree has features: all of them


def covered(tree: Tree) -> Tree:
    """The tree with as many rows in each leaf as its place says, some none, and the sum of both sides above."""
    for nodes in forms.trees(tree):
        by_id = {node["id"]: node for node in nodes}
        for node in reversed(nodes):  # parents come first
            own = node["id"] % 4 if "left" not in node else sum(by_id[node[side]]["rows"] for side in ("left", "right"))
            node["rows"] = own
    return tree


def asked(tree: Tree, row: Row) -> int:
    """The place of the class that is predicted, which is what reasons are of."""
    return tree["classes"].index(walked(tree, [row])[0][-1]) if tree["task"] == "multiclass" else 0


def known_by(tree: Tree, row: Row, known: frozenset[str], output: int) -> float:
    """What the trees say, before the link, if only these features are known: at other splits rows go both ways."""
    numbers = dict(zip((f["name"] for f in tree["features"]), numbers_of(tree, [row])[:, 0], strict=True))
    own = [one for one in tree.get("trees", [tree]) if tree.get("link") != "softmax" or one["output"] == output]

    def said(nodes: dict[int, Any], node: dict[str, Any]) -> float:
        if "feature" not in node:
            value = next(node[key] for key in ("probability", "probabilities", "value") if key in node)
            return float(value[output] if isinstance(value, list) else value)
        left, right = nodes[node["left"]], nodes[node["right"]]
        if node["feature"] in known:
            return said(nodes, left if numbers[node["feature"]] <= node["threshold"] else right)
        whole = left["rows"] + right["rows"]
        share = left["rows"] / whole if whole else 0.5
        return share * said(nodes, left) + (1 - share) * said(nodes, right)

    total = sum(said({node["id"]: node for node in one["nodes"]}, one["nodes"][0]) for one in own)
    if tree.get("link", "mean") == "mean":
        return total / len(own)
    return total + float(tree["base"][output])


def by_definition(tree: Tree, row: Row, output: int) -> list[float]:
    """The mean over all sets of the other features of what knowing a feature adds (Shapley 1953)."""
    names = [feature["name"] for feature in tree["features"]]
    worth = {
        frozenset(some): known_by(tree, row, frozenset(some), output)
        for size in range(len(names) + 1)
        for some in combinations(names, size)
    }
    total = len(names)
    return [
        sum(
            (worth[some | {name}] - worth[some]) / (total * math.comb(total - 1, len(some)))
            for some in worth
            if name not in some
        )
        for name in names
    ]


def numbers_of(tree: Tree, rows: list[Row]) -> Any:
    """Features x rows."""
    return spark_tree.Scorer(tree, 0).numbers(batch(tree, rows)).reshape(len(tree["features"]), -1)


def batch(tree: Tree, rows: list[Row]) -> pa.RecordBatch:
    types = {"double": pa.float64(), "bigint": pa.int64(), "boolean": pa.bool_(), "string": pa.string()}
    columns = {}
    for feature in tree["features"]:
        column = pa.array([row[feature["name"]] for row in rows], types[feature["holds"]])
        kind = pa.float64() if feature["kind"] == "number" else pa.string()
        columns[feature["name"]] = column.cast(kind, safe=False)
    return pa.RecordBatch.from_pydict(columns)


def scale(tree: Tree) -> float:
    """As large as what is said: effects are differences of it."""
    said = [np.max(np.abs(node[key])) for node in forms.all_nodes(tree) for key in node if key in SAYS]
    return float(max([1.0, *said, *map(abs, tree.get("base", ()))]))


SAYS = ("probability", "probabilities", "value")


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much])
@given(trees_and_rows())
def test_effects_should_be_shapley_values_and_add_up_to_what_is_said(drawn: tuple[Tree, list[Row]]) -> None:
    tree, rows = covered(drawn[0]), drawn[1][:3]
    rows = rows[:1] if len(tree["features"]) > 4 else rows
    most = scale(tree)
    if most > 1e100:  # a difference of such numbers is beyond a double
        return
    outputs = [asked(tree, row) for row in rows]
    own = reasons.Reasons(tree)
    found = own.effects(numbers_of(tree, rows), np.array(outputs))
    names = [feature["name"] for feature in tree["features"]]
    told = spark_tree.Scorer(tree, 0, reasons=COUNT)
    (scored,) = told([batch(tree, rows)])
    plain = scorer.Scorer(json.loads(json.dumps(tree)), reasons=COUNT)
    for row, output, effects, as_told in zip(rows, outputs, found, scored.to_pylist(), strict=True):
        expected = by_definition(tree, row, output)
        assert effects == pytest.approx(expected, rel=1e-9, abs=1e-9 * most)
        known = known_by(tree, row, frozenset(names), output)
        expectation = float(own.expected[output if len(own.expected) > 1 else 0])
        assert expectation == pytest.approx(known_by(tree, row, frozenset(), output), rel=1e-9, abs=1e-9 * most)
        assert sum(effects) == pytest.approx(known - expectation, rel=1e-9, abs=1e-9 * most)
        for columns in (as_told, plain.predict(row)):
            told_names = [columns[f"reason_{i}"] for i in range(1, COUNT + 1)]
            told_effects = [columns[f"reason_{i}_effect"] for i in range(1, COUNT + 1)]
            sizes = [abs(effect) for effect in told_effects if effect is not None]
            assert sizes == sorted(sizes, reverse=True)
            assert [name is None for name in told_names] == [effect is None for effect in told_effects]
            by_name = {**dict.fromkeys(names, 0.0), **dict(zip(told_names, told_effects, strict=True))}
            by_name.pop(None, None)  # type: ignore[call-overload]  # where fewer features moved it
            assert list(by_name) == names
            assert list(by_name.values()) == pytest.approx(expected, rel=1e-9, abs=1e-9 * most)


def test_a_feature_that_occurs_many_times_should_count_once_on_each_way() -> None:
    """Fifteen splits on two features: more than a way can be told by its nodes."""
    features = [{"name": name, "kind": "number", "holds": "double", "missing": -1e300} for name in ("a", "b")]
    nodes: list[dict[str, Any]] = []
    for i in range(15):
        split = {"feature": "ab"[i % 2], "threshold": 10.0 - i // 2, "left": 2 * i + 2, "right": 2 * i + 1}
        nodes += [{"id": 2 * i, "depth": i, "rows": 3 * (31 - 2 * i), **split}]
        nodes += [{"id": 2 * i + 1, "depth": i + 1, "rows": 6, "value": float(i * i)}]
    nodes.append({"id": 30, "depth": 15, "rows": 3, "value": -7.0})
    tree = {"format": 2, "task": "regression", "classes": [], "features": features, "nodes": nodes}
    rows = [{"a": a, "b": b} for a in (0.0, 4.5, 6.5, 20.0, None) for b in (1.0, 7.5, 30.0)]
    found = reasons.Reasons(tree).effects(numbers_of(tree, rows), np.zeros(len(rows), dtype=int))
    for row, effects in zip(rows, found, strict=True):
        assert effects == pytest.approx(by_definition(tree, row, 0), rel=1e-12)


@pytest.mark.parametrize("classes", [2, 3, 0])
def test_reasons_of_boosted_trees_should_be_xgboosts_own_contributions(classes: int) -> None:
    made = np.random.default_rng(7)
    codes = made.integers(0, 12, (600, 5)).astype(np.uint8)
    score = codes[:, 0] * 0.5 - codes[:, 1] * (codes[:, 2] > 5) + made.normal(0, 2, 600)
    label = score if not classes else np.digitize(score, np.quantile(score, np.arange(1, classes) / classes))
    objective = {2: "binary:logistic", 3: "multi:softprob", 0: "reg:squarederror"}[classes]
    more = {"num_class": 3} if classes == 3 else {}
    given_to = {"objective": objective, "max_depth": 6, "tree_method": "hist", "nthread": 1, "base_score": 0.5, **more}
    data = xgboost.DMatrix(codes, label=label)
    booster = xgboost.train(given_to, data, 8)
    learned = Learned(
        [{"name": f"f{i}", "kind": "number", "holds": "double", "missing": MISSING} for i in range(5)],
        [np.arange(11) + 0.5] * 5,
        None,
    )
    info = json.loads(bytes(booster.save_raw("json")))["learner"]["gradient_booster"]["model"]
    trees = [
        {"output": output, "nodes": boosted._nodes(one, learned, 1.0)}
        for one, output in zip(info["trees"], info["tree_info"], strict=True)
    ]
    task = {2: "binary", 3: "multiclass", 0: "regression"}[classes]
    names = ["low", "mid", "high"] if classes == 3 else []
    told = {"format": 3, "task": task, "classes": names, "features": learned.features, "link": forms.LINKS[task]}
    model = {**told, "base": [0.0] * (classes if classes == 3 else 1), "trees": trees}
    own = booster.predict(data, pred_contribs=True).reshape(600, -1, 6)[:, :, :5]
    for output in range(own.shape[1]):
        found = reasons.Reasons(model).effects(codes.T.astype(np.float64), np.full(600, output))
        assert found == pytest.approx(own[:, output], abs=2e-5)
        assert np.abs(found).max() > 0.3


def test_a_model_of_an_earlier_release_should_give_its_answers_and_no_reasons() -> None:
    feature = {"name": "x", "kind": "number", "holds": "double", "missing": MISSING}
    leaves = [{"id": 1, "depth": 1, "value": 0.5}, {"id": 2, "depth": 1, "value": -0.5}]
    root = {"id": 0, "depth": 0, "feature": "x", "threshold": 1.0, "left": 1, "right": 2, "gain": 3.0}
    told = {"format": 3, "task": "binary", "classes": [], "features": [feature], "link": "logistic", "base": [0.0]}
    model = {**told, "trees": [{"output": 0, "nodes": [root, *leaves]}]}
    assert "do not tell how many training rows came to each node" in reasons.reason_against(model)
    with pytest.raises(scorer.ScoringError, match=r"gives no reasons: .* Train again, or ask for none"):
        scorer.Scorer(model, reasons=1)
    assert by_spark(model, [{"x": 0.0}])[0][1] == scorer.Scorer(model).predict({"x": 0.0})["prediction"] == 1
    for node in (root, *leaves):
        node["cover"] = 1.5
    assert reasons.reason_against(model) == ""
    assert scorer.Scorer(model, reasons=1).predict({"x": 0.0})["reason_1_effect"] == 0.5
