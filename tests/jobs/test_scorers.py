"""One truth: every scorer gives exactly the value that a plain walk down tree.json gives, for any tree and any row."""

import csv
import io
import json
import math
import re
from collections.abc import Callable, Sequence
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dml.models.scorer import Scorer, score_csv
from jobs.models import forms, tree_sql
from jobs.models import tree as spark_tree

Tree = dict[str, Any]
Row = dict[str, Any]
Values = list[tuple[Any, ...]]  # of each row, in order: what the scorer's output columns hold
Score = Callable[[Tree, Sequence[Row]], Values]

KEY = "row key"
# What the columns of a table hold: Arrow's type, by the name that a tree's `holds` gives.
TYPES = {"double": pa.float64(), "bigint": pa.int64(), "boolean": pa.bool_(), "string": pa.string()}


def walked(tree: Tree, rows: Sequence[Row]) -> Values:
    """The rules, word for word, without a thought for speed."""
    features = {feature["name"]: feature for feature in tree["features"]}
    every = [{node["id"]: node for node in own} for own in forms.trees(tree)]
    return [_said(tree, [_walk(own, features, row) for own in every]) for row in rows]


def _said(tree: Tree, leaves: list[dict[str, Any]]) -> tuple[Any, ...]:
    said = {"binary": "probability", "multiclass": "probabilities", "regression": "value"}[tree["task"]]
    if "trees" not in tree:
        value = leaves[0][said]
    elif tree["link"] == forms.MEAN:
        value = np.mean([leaf[said] for leaf in leaves], axis=0).tolist()
    else:
        sums = list(tree["base"])
        for one, leaf in zip(tree["trees"], leaves, strict=True):
            sums[one["output"]] += leaf["value"]
        if tree["link"] == forms.SOFTMAX:
            powers = [math.exp(total - max(sums)) for total in sums]
            value = [power / sum(powers) for power in powers]
        elif tree["link"] == forms.LOGISTIC:
            value = 1 / (1 + math.exp(-sums[0])) if sums[0] > -700 else math.exp(sums[0])
        else:
            value = sums[0]
    if tree["task"] == "regression":
        return (value,)
    if tree["task"] == "binary":
        return value, 1 if value >= tree.get("threshold", 0.5) else 0
    return *value, called(tree, value)


def called(tree: Tree, shares: Sequence[float]) -> str:
    weighed = [share * weight for share, weight in zip(shares, tree.get("weights", [1.0] * len(shares)), strict=True)]
    return str(tree["classes"][weighed.index(max(weighed))])


def _walk(nodes: dict[int, Any], features: dict[str, Any], row: Row) -> dict[str, Any]:
    node = next(iter(nodes.values()))
    while "feature" in node:
        feature, value = features[node["feature"]], row[node["feature"]]
        if feature["kind"] == "number":
            x = feature["missing"] if value is None or not math.isfinite(value) else float(value)
        elif value is None:
            x = feature["missing"]
        else:
            text = {True: "true", False: "false"}[value] if isinstance(value, bool) else str(value)
            x = feature["encoding"].get(text, feature["unseen"])
        node = nodes[node["left"] if x <= node["threshold"] else node["right"]]
    return node


def by_python(tree: Tree, rows: Sequence[Row]) -> Values:
    scorer = Scorer(json.loads(json.dumps(tree)))
    return [tuple(scorer.predict(row).values()) for row in rows]


def by_csv(tree: Tree, rows: Sequence[Row]) -> Values:
    """Through CSV text, where the empty cell of a category column is the only text that means missing."""
    null = "\x01 no such text"
    text = io.StringIO()
    writer = csv.writer(text)
    names = [feature["name"] for feature in tree["features"]]
    writer.writerow([KEY, *names])
    for i, row in enumerate(rows):
        cells = [row[name] for name in names]
        as_text = [str(cell).lower() if isinstance(cell, bool) else str(cell) for cell in cells]
        writer.writerow([i, *(null if cell is None else t for cell, t in zip(cells, as_text, strict=True))])
    text.seek(0)
    out = io.StringIO()
    score_csv(Scorer(tree), text, out, name="rows.csv", keys=[KEY], nulls=[null])
    out.seek(0)
    scored = list(csv.reader(out))[1:]
    assert [row[0] for row in scored] == [str(i) for i in range(len(rows))]
    read: dict[str, list[Callable[[str], Any]]] = {
        "binary": [float, int],
        "regression": [float],
        "multiclass": [*[float] * len(tree["classes"]), str],
    }
    return [tuple(f(cell) for f, cell in zip(read[tree["task"]], row[1:], strict=True)) for row in scored]


def by_duckdb(tree: Tree, rows: Sequence[Row]) -> Values:
    columns = {f["name"]: pa.array([row[f["name"]] for row in rows], TYPES[f["holds"]]) for f in tree["features"]}
    with duckdb.connect() as connection:
        connection.register("rows to score", pa.table({KEY: range(len(rows)), **columns}))
        scored = connection.execute(tree_sql.sql(tree, "rows to score", [KEY])).fetchall()
    scored.sort()
    assert [row[0] for row in scored] == list(range(len(rows)))
    return [row[1:] for row in scored]


def by_duckdb_in_parts(tree: Tree, rows: Sequence[Row]) -> Values:
    """As large trees are cut, done to small ones."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(tree_sql, "SPLITS_A_COLUMN", 2)
        return by_duckdb(tree, rows)


def by_spark(tree: Tree, rows: Sequence[Row]) -> Values:
    """What a Python worker of Spark does with a batch, after Spark's casts (tree.feature_columns)."""
    columns = {}
    for feature in tree["features"]:
        column = pa.array([row[feature["name"]] for row in rows], TYPES[feature["holds"]])
        number = feature["kind"] == "number"
        columns[feature["name"]] = column.cast(pa.float64(), safe=False) if number else column.cast(pa.string())
    (scored,) = spark_tree.Scorer(tree, kept=0)([pa.RecordBatch.from_pydict(columns)])
    says = scored.column(scored.num_columns - 1).to_pylist()
    if tree["task"] == "regression":
        return [(value,) for value in says]
    if tree["task"] == "binary":
        return [(probability, 1 if probability >= forms.threshold(tree) else 0) for probability in says]
    return [(*shares, called(tree, shares)) for shares in says]


# Every scorer belongs here, by name. It gets a tree and rows (dictionaries with every feature; a feature's `holds` says
# what type its column has in a table) and gives for each row, in order, what its output columns hold.
SCORERS: dict[str, Score] = {
    "Spark": by_spark,
    "tree.sql in DuckDB": by_duckdb,
    "tree.sql in DuckDB, cut into small parts": by_duckdb_in_parts,
    "plain Python": by_python,
    "plain Python, CSV": by_csv,
}

# Anything that can stand in a table: odd numbers, and texts with what SQL, CSV and Python each escape.
numbers = st.one_of(
    st.floats(allow_nan=False, allow_infinity=False),
    st.sampled_from([0.0, -0.0, 5e-324, 1.7976931348623157e308, -1.7976931348623157e308, 0.1, 1e16, -1e300, -5e299]),
    st.integers(-5, 5).map(float),
)
texts = st.one_of(
    st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\x00"), max_size=6),
    st.sampled_from(
        [
            "",
            "NA",
            "NULL",
            "it's",
            'a "b"',
            "a\\n",
            "a\nb",
            "a\r\nb",
            "%s",
            "--",
            "/*",
            "true",
            "1",
            "é",
            "e\u0301",
            " a",
            "a ",
        ]
    ),
)
small = st.one_of(st.floats(-50, 50), st.sampled_from([0.0, 0.1, 1e-17, 700.0, -800.0]))  # of what is added up
names = st.lists(
    st.from_regex(r"[a-z][a-z0-9_]{0,5}|select|order|value|Größe|it's \"x\"|a b", fullmatch=True), unique_by=str.lower
)


@st.composite
def trees(draw: st.DrawFn) -> Tree:
    """One tree, or several, of any task with up to six features, and splits on values that rows may have."""
    features: list[dict[str, Any]] = []
    named = draw(names.filter(lambda found: 1 <= len(found) <= 6))
    for name in named:
        if draw(st.booleans()):
            holds = draw(st.sampled_from(["double", "bigint", "boolean"]))
            features.append({"name": name, "kind": "number", "holds": holds, "missing": -1e300, "missing_rows": 1})
            continue
        holds = draw(st.sampled_from(["string", "string", "bigint", "boolean"]))
        known = {"string": texts, "bigint": st.integers(-3, 3).map(str), "boolean": st.sampled_from(["true", "false"])}
        encoding = draw(st.dictionaries(known[holds], st.one_of(numbers, st.floats(0, 1)), max_size=5))
        at = {
            key: draw(st.one_of(st.floats(0, 1), st.sampled_from([*encoding.values(), 0.5])))
            for key in ("missing", "unseen")
        }
        features.append(
            {
                "name": name,
                "kind": "category",
                "holds": holds,
                "encoding": encoding,
                "prior": 0.5,
                "missing_rows": 1,
                **at,
            }
        )

    task = draw(st.sampled_from(["binary", "multiclass", "regression"]))
    classes = draw(st.lists(texts, min_size=2, max_size=4, unique=True)) if task == "multiclass" else []
    whole = {"dataset": "d", "run_id": "r", "label": "it's\nlate", "positive": "yes\n" if task == "binary" else ""}
    told = {"task": task, **whole, "classes": classes, "unit": "", "features": features}
    if draw(st.booleans()):
        nodes = draw(nodes_of(features, task, len(classes)))
        one = {"format": 2, **told, "nodes": nodes}
        return decided(draw, one, [node["probability"] for node in nodes] if task == "binary" else [])
    link = draw(st.sampled_from([forms.MEAN, forms.LINKS[task]]))
    if link == forms.MEAN:
        several = draw(st.lists(nodes_of(features, task, len(classes), small), min_size=1, max_size=3))
        mean = {"format": 3, **told, "link": link, "trees": [{"nodes": nodes} for nodes in several]}
        return decided(draw, mean, [0.25])
    base = draw(st.lists(small, min_size=max(len(classes), 1), max_size=max(len(classes), 1)))
    added = st.fixed_dictionaries(
        {"output": st.integers(0, len(base) - 1), "nodes": nodes_of(features, "regression", 0, small)}
    )
    total = {"format": 3, **told, "link": link, "base": base, "trees": draw(st.lists(added, min_size=1, max_size=4))}
    return decided(draw, total, [0.25])


def decided(draw: st.DrawFn, model: Tree, said: list[float]) -> Tree:
    """Now and then with a call of its own: a threshold, which may be the very number that a leaf says, or weights."""
    if model["task"] == "regression" or not draw(st.booleans()):
        return model
    if model["task"] == "multiclass":
        size = len(model["classes"])
        return forms.decided(model, draw(st.lists(st.sampled_from([0.1, 0.5, 1.0, 3.7]), min_size=size, max_size=size)))
    some = [x for p in said for x in (p, math.nextafter(p, 2), math.nextafter(p, -1))]
    return forms.decided(model, draw(st.one_of(st.sampled_from(some), st.floats(0, 1.1))))


@st.composite
def nodes_of(
    draw: st.DrawFn, features: Any, task: str, classes: int, values: st.SearchStrategy[float] = numbers
) -> list[dict[str, Any]]:
    """The nodes of a tree. `values`: what leaves of a regression say."""
    nodes: list[dict[str, Any]] = []
    waiting = [(1, 0)]
    while waiting:
        key, depth = waiting.pop()
        node: dict[str, Any] = {"id": key, "depth": depth, "rows": 1}
        nodes.append(node)
        if task == "binary":
            node["probability"] = draw(st.one_of(st.floats(0, 1), st.just(0.5)))
        elif task == "regression":
            node["value"] = draw(values)
        else:
            shares = draw(st.lists(st.sampled_from([0.0, 0.1, 0.25, 1 / 3, 0.5]), min_size=classes, max_size=classes))
            node["probabilities"] = shares
        if depth == 5 or not draw(st.integers(0, 3)):
            continue
        feature = draw(st.sampled_from(features))
        own = (
            [*feature["encoding"].values(), feature["missing"], feature["unseen"]]
            if feature["kind"] == "category"
            else []
        )
        threshold = draw(st.one_of(numbers, st.sampled_from([*own, 0.0, 1.0, -5e299])))
        node.update(feature=feature["name"], threshold=threshold, left=2 * key, right=2 * key + 1)
        waiting += [(2 * key + 1, depth + 1), (2 * key, depth + 1)]
    return nodes


@st.composite
def trees_and_rows(draw: st.DrawFn) -> tuple[Tree, list[Row]]:
    tree = draw(trees())
    cells: dict[str, st.SearchStrategy[Any]] = {}
    for feature in tree["features"]:
        thresholds = [node["threshold"] for node in forms.all_nodes(tree) if node.get("feature") == feature["name"]]
        if feature["holds"] == "boolean":
            some: st.SearchStrategy[Any] = st.booleans()
        elif feature["holds"] == "bigint":
            some = st.one_of(st.integers(-5, 5), st.integers(-(2**63), 2**63 - 1))
        elif feature["kind"] == "number":
            around = [x for t in thresholds for x in (t, math.nextafter(t, -math.inf), math.nextafter(t, math.inf))]
            some = st.one_of(numbers, st.sampled_from([*around, math.nan, math.inf, -math.inf]))
        else:
            some = st.one_of(texts, st.sampled_from([*feature["encoding"], "not seen"]))
        cells[feature["name"]] = st.one_of(some, some, some, st.none())
    return tree, draw(st.lists(st.fixed_dictionaries(cells), min_size=1, max_size=8))


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much])
@given(trees_and_rows())
def test_every_scorer_should_give_what_a_walk_down_the_tree_gives(drawn: tuple[Tree, list[Row]]) -> None:
    tree, rows = drawn
    expected = walked(tree, rows)
    for name, score in SCORERS.items():
        if "trees" not in tree:
            assert score(tree, rows) == expected, name
            continue
        for found, own in zip(score(tree, rows), expected, strict=True):
            width = max(len(own) - 1, 1)
            assert found[:width] == pytest.approx(own[:width], rel=1e-12, abs=1e-12), name
            if tree["task"] == "binary":  # the call is by the scorer's own number, which may be a digit off
                assert found[1] == (1 if found[0] >= tree.get("threshold", 0.5) else 0), name
            if tree["task"] == "multiclass":
                assert found[width] == called(tree, found[:width]), name


def test_a_probability_that_is_the_threshold_should_be_called_positive_by_all() -> None:
    """And one below it by the least that there is should not."""
    below = math.nextafter(0.3, 0)
    tree = balanced(1, 1)
    for node, probability in zip(tree["nodes"], (0.5, below, 0.3), strict=True):
        node["probability"] = probability
    tree["nodes"][0] |= {"feature": "x", "threshold": 0.0}
    several = as_several(tree)
    rows: list[Row] = [{"x": -1.0, "c": "value 0"}, {"x": 1.0, "c": "value 0"}]
    for name, score in {"the plain walk": walked, **SCORERS}.items():
        for model in (tree, several):
            assert score(forms.decided(model, 0.3), rows) == [(below, 0), (0.3, 1)], name
            assert score(model, rows) == [(below, 0), (0.3, 0)], name


def test_a_class_should_be_called_by_its_probability_times_its_weight_by_all() -> None:
    tree = balanced(1, 1) | {"task": "multiclass", "classes": ["often", "rare", "other"], "positive": ""}
    for node, shares in zip(tree["nodes"], ([0.5, 0.3, 0.2], [0.75, 0.25, 0.0], [0.8, 0.2, 0.0]), strict=True):
        node["probabilities"] = shares
        del node["probability"]
    tree["nodes"][0] |= {"feature": "x", "threshold": 0.0}
    several = as_several(tree)
    rows: list[Row] = [{"x": -1.0, "c": "value 0"}, {"x": 1.0, "c": "value 0"}]
    for name, score in {"the plain walk": walked, **SCORERS}.items():
        for model in (tree, several):
            found = score(forms.decided(model, [1.0, 3.5, 1.0]), rows)
            assert found == [(0.75, 0.25, 0.0, "rare"), (0.8, 0.2, 0.0, "often")], name
            first = score(forms.decided(model, [1.0, 3.0, 1.0]), rows)[0][-1]
            assert first == "often", "of equal ones the first"


def as_several(tree: Tree) -> Tree:
    """The same as the mean of itself alone."""
    told = {key: value for key, value in tree.items() if key != "nodes"}
    return {**told, "format": 3, "link": forms.MEAN, "trees": [{"nodes": tree["nodes"]}]}


def balanced(splits: int, categories: int) -> Tree:
    """A tree that splits on a number and on a category by turns, as wide as it can be."""
    encoding = {f"value {i}": (i * 37 % categories + 0.5) / categories for i in range(categories)}
    features = [
        {"name": "x", "kind": "number", "holds": "double", "missing": -1e300, "missing_rows": 0},
        {
            "name": "c",
            "kind": "category",
            "holds": "string",
            "encoding": encoding,
            "prior": 0.5,
            "unseen": 0.5,
            "missing": 0.5,
            "missing_rows": 0,
        },
    ]
    nodes: list[dict[str, Any]] = []
    for key in range(1, 2 * splits + 2):
        nodes.append({"id": key, "depth": key.bit_length() - 1, "rows": 1, "probability": (key * 0.6180339887) % 1})
        if key <= splits:
            name, place = ("x", key * 0.1234567) if key % 3 else ("c", round(key * 0.618 % 1, 2))
            nodes[-1].update(feature=name, threshold=place, left=2 * key, right=2 * key + 1)
    named = {"dataset": "d", "run_id": "r", "label": "late", "positive": "is late", "classes": [], "unit": ""}
    return {"format": 2, "task": "binary", **named, "features": features, "nodes": nodes}


def test_a_tree_of_600_leaves_on_100_categories_should_fit_athena_and_score_alike() -> None:
    tree = balanced(599, 100)
    rows: list[Row] = [{"x": i * 0.3, "c": f"value {i % 110}"} for i in range(300)]
    assert by_duckdb(tree, rows) == by_python(tree, rows) == walked(tree, rows)
    text = tree_sql.sql(tree)
    assert len(text.encode()) < tree_sql.MAX_BYTES / 2
    assert "TOO LONG" not in text
    # More in one expression than Trino can compile is what the parts are for.
    parts = re.findall(r"THEN CASE\n.*?AS _p\d+|CASE\n.*?AS _p\d+", text, re.DOTALL)
    assert len(parts) > 599 / tree_sql.SPLITS_A_COLUMN
    assert max(part.count("<=") for part in parts) <= tree_sql.SPLITS_A_COLUMN


def test_a_query_that_athena_would_refuse_should_say_so_itself() -> None:
    text = tree_sql.sql(balanced(3000, 5000))
    assert len(text.encode()) > tree_sql.MAX_BYTES
    assert re.search(r"^-- TOO LONG FOR ATHENA.*dml predict", text, re.MULTILINE)


def test_the_query_should_say_what_it_is_and_be_the_same_each_time() -> None:
    tree = balanced(3, 4) | {"task": "multiclass", "classes": ["red", "two\nlines"], "run_id": "run-7"}
    for node in tree["nodes"]:
        node["probabilities"] = [0.5, 0.5]
    text = tree_sql.sql(tree, "features", ["id"])
    comments = [line for line in text.splitlines() if line.startswith("--")]
    assert text.startswith("-- ")
    assert "dataset d, run run-7" in comments[0]
    assert comments[1:3] == ["-- probability_0: red", "-- probability_1: two\\nlines"]
    assert text == tree_sql.sql(json.loads(json.dumps(tree)), "features", ["id"])


def chain(feature: dict[str, Any], thresholds: Sequence[float]) -> Tree:
    """A tree that tells which of the thresholds, from the smallest up, a row's value is the first to stay below."""
    nodes: list[dict[str, Any]] = []
    for i, threshold in enumerate(thresholds):
        split = {"feature": feature["name"], "threshold": threshold, "left": 2 * i + 1, "right": 2 * i + 2}
        nodes += [{"id": 2 * i, "depth": i, "rows": 1, "value": -1.0, **split}]
        nodes += [{"id": 2 * i + 1, "depth": i + 1, "rows": 1, "value": float(i)}]
    last = len(thresholds)
    nodes.append({"id": 2 * last, "depth": last, "rows": 1, "value": float(last)})
    named = {"dataset": "d", "run_id": "r", "label": "y", "positive": "", "classes": [], "unit": ""}
    return {"format": 2, "task": "regression", **named, "features": [feature], "nodes": nodes}


def test_every_number_that_is_not_finite_should_count_as_missing_and_none_else_should() -> None:
    largest = 1.7976931348623157e308
    feature = {"name": "x", "kind": "number", "holds": "double", "missing": -1e300, "missing_rows": 0}
    tree = chain(feature, [-1.1e300, -1e300, 0.1, 1e308])
    values = [-largest, -1e300, None, math.nan, math.inf, -math.inf, 0.0, 0.1, math.nextafter(0.1, 1), largest]
    leaves = [0.0, 1.0, 1.0, 1.0, 1.0, 1.0, 2.0, 2.0, 3.0, 4.0]
    rows: list[Row] = [{"x": value} for value in values]
    for name, score in {"the plain walk": walked, **SCORERS}.items():
        assert score(tree, rows) == [(leaf,) for leaf in leaves], name


def test_categories_should_be_told_apart_by_every_character() -> None:
    known = ["a", "A", "a ", " a", "", "it's", "it''s", "a\\b", "a\nb", "e\u0301", "\u00e9"]
    encoding = {value: i + 0.5 for i, value in enumerate(known)}
    at = {"prior": 50.5, "unseen": 50.5, "missing": 60.5, "missing_rows": 0}
    tree = chain(
        {"name": "c", "kind": "category", "holds": "string", "encoding": encoding, **at}, [*range(1, 12), 55.0]
    )
    rows: list[Row] = [{"c": value} for value in [*known, "b", "NULL", None]]
    for name, score in {"the plain walk": walked, **SCORERS}.items():
        assert score(tree, rows) == [(float(i),) for i in [*range(11), 11, 11, 12]], name
