"""tree.sql: the model as one SELECT, which Athena (Trino) and DuckDB run unchanged. No Spark, no cluster.

Every feature that the model looks at becomes a column first: a number as a double, a category as the place of its
encoding among the model's thresholds on it, which decides every split just as the encoding does. Of one tree nested
CASEs then find the leaf, and a table of leaves says what the model says there. Of several each is a column of its own,
what its leaf adds; their sums are next, and what the link makes of them last.
"""

import json
from bisect import bisect_left
from typing import Any, Dict, List, Mapping, NamedTuple, Sequence, Set, Tuple

from jobs.models import forms

# Athena refuses a longer statement (its user guide, "Service Quotas": query string length, bytes in UTF-8).
MAX_BYTES = 262_144
# Trino compiles each column of a SELECT to one Java method, and one beyond 64 KB fails: in Trino 414 a tree of 2,000
# leaves in one expression does ("Query exceeded maximum columns"), cut into parts it runs. HotSpot leaves a method
# beyond 8,000 bytes interpreted, hence the smaller parts.
SPLITS_A_COLUMN = 64
# Beyond this no query is written of several trees: DuckDB bounds the depth of an expression, and a sum is as deep as it
# has terms (max_expression_depth, 1,000); and a text of more than some megabytes helps nobody.
MOST_TREES, MOST_SPLITS, MOST_LEAVES = 500, 1_000, 50_000
LARGEST = "1.7976931348623157E308"

Json = Mapping[str, Any]
Path = Tuple[str, ...]  # the conditions that lead from the root to a node
Conditions = Mapping[int, Tuple[str, str]]  # of a node: to go left, to go right


class _Asked(NamedTuple):
    """How a query looks features up: columns of the first part, joins, tables to join, and the nodes' conditions."""

    inputs: List[str]
    joins: List[str]
    tables: List[str]
    conditions: Conditions
    used: List[str]


def reason_against(model: Json) -> str:
    """Why there is no query of this model, '' if there is one."""
    if "trees" not in model:
        return ""
    trees = [tree["nodes"] for tree in model["trees"]]
    widest = max(sum("feature" in node for node in nodes) for nodes in trees)
    leaves = sum("feature" not in node for nodes in trees for node in nodes)
    each = len(model["classes"]) if model["link"] == "mean" and model["task"] == "multiclass" else 1
    found = [
        f"{what:,} {name} (of {most:,} at most)"
        for what, name, most in (
            (len(trees) * each, "terms of a sum", MOST_TREES),
            (widest, "splits of one tree", MOST_SPLITS),
            (leaves * each, "leaves", MOST_LEAVES),
        )
        if what > most
    ]
    return f"the query would be too long for SQL engines: it has {', '.join(found)}" if found else ""


def sql(tree: Json, table: str = "features", keys: Sequence[str] = ()) -> str:
    """The query, a row for each row of `table`, in no order. The text depends on the arguments only.

    `tree` is the content of a tree.json, with no `reason_against` it. Columns in: `keys`, and the features that the
    model looks at; a category may be text, a whole number, a boolean or a date. Columns out: `keys`, then probability
    and prediction (binary: 1 from the model's threshold on), or probability_<i> of each class and prediction
    (multiclass: the class as text), or prediction (regression). Names that begin with an underscore are the query's
    own.
    """
    names = [_name(key) for key in keys]
    several = "trees" in tree
    nodes = _numbered(tree["trees"]) if several else tree["nodes"]
    asked = _asked(tree["features"], nodes)
    kept = [f"t.{name}" for name in names]
    inputs = _query("_inputs", [*kept, *asked.inputs] or ["1 AS _row"], f"{_name(table)} AS t" + "".join(asked.joins))
    rest = _of_several(tree, nodes, names, asked) if several else _of_one(tree, names, asked)
    body = "WITH " + ",\n".join([*asked.tables, inputs, *rest[:-1]]) + f"\n{rest[-1]}\n"
    return _header(tree, table, asked.used, body) + body


def _numbered(trees: Sequence[Json]) -> List[Json]:
    """The nodes of all trees with ids that are one's own among all of them, parents first."""
    found: List[Json] = []
    for tree in trees:
        number = {node["id"]: len(found) + i for i, node in enumerate(tree["nodes"])}
        moved = {"id": number, "left": number, "right": number}
        found += [
            {key: moved[key][value] if key in moved else value for key, value in node.items()} for node in tree["nodes"]
        ]
    return found


def _asked(features: Sequence[Json], nodes: Sequence[Json]) -> _Asked:
    splits: Dict[str, List[Json]] = {}
    for node in nodes:
        if "feature" in node:
            splits.setdefault(node["feature"], []).append(node)
    used = [feature for feature in features if feature["name"] in splits]
    inputs, joins, tables, tests = [], [], [], {}
    for i, feature in enumerate(used):
        column, on = f"t.{_name(feature['name'])}", splits[feature["name"]]
        if feature["kind"] == "number":
            inputs.append(f"{_number(column, feature)} AS _x{i}")
            tests.update({node["id"]: (f"_x{i} <= ", _double(node["threshold"])) for node in on})
            continue
        thresholds = sorted({node["threshold"] for node in on})
        place = {threshold: str(k) for k, threshold in enumerate(thresholds)}
        rows, value = _category(column, feature, thresholds, f"_c{i}")
        inputs.append(f"{value} AS _x{i}")
        tests.update({node["id"]: (f"_x{i} <= ", place[node["threshold"]]) for node in on})
        if rows:
            tables.append(_rows(f"_c{i} (_value, _place)", rows))
            joins.append(f"\n LEFT JOIN _c{i} ON _c{i}._value = CAST({column} AS VARCHAR)")
    conditions = {key: (left + limit, left.replace("<=", ">") + limit) for key, (left, limit) in tests.items()}
    return _Asked(inputs, joins, tables, conditions, [feature["name"] for feature in used])


def _of_one(tree: Json, names: Sequence[str], asked: _Asked) -> List[str]:
    """What follows the inputs: tables, and the SELECT."""
    nodes, conditions = {node["id"]: node for node in tree["nodes"]}, asked.conditions
    leaves = [node for node in tree["nodes"] if "feature" not in node]
    number = {leaf["id"]: str(i) for i, leaf in enumerate(leaves)}
    cuts = _cuts(tree["nodes"])
    parts = [
        f"{_part(root, path, cuts, nodes, conditions, number)} AS _p{i}"
        for i, (root, path) in enumerate(_roots(tree["nodes"][0]["id"], cuts, nodes, conditions))
    ]
    # Each part is named twice here, or Trino would put all of them back into one expression (its InlineProjections).
    arrived = [f"WHEN _p{i} IS NOT NULL THEN _p{i}" for i in range(len(parts))]
    outputs = _outputs(tree)
    result = [*(f"a.{name}" for name in names), *(f"l.{name}" for name in outputs)]
    return [
        _query("_parts", [*names, *parts], "_inputs"),
        _query("_arrivals", [*names, f"CASE {' '.join(arrived)} END AS _leaf"], "_parts"),
        _rows(
            f"_leaves (_leaf, {', '.join(outputs)})",
            [f"{i}, {', '.join(_values(tree, leaf))}" for i, leaf in enumerate(leaves)],
        ),
        f"SELECT {', '.join(result)}\nFROM _arrivals AS a\nLEFT JOIN _leaves AS l ON l._leaf = a._leaf",
    ]


def _of_several(model: Json, numbered: Sequence[Json], names: Sequence[str], asked: _Asked) -> List[str]:
    """The same of several trees."""
    nodes, mean, task = {node["id"]: node for node in numbered}, model["link"] == "mean", model["task"]
    width = len(model["classes"]) if task == "multiclass" else 1
    terms: List[List[str]] = [[] for _ in range(width)]
    columns: List[str] = []
    start = 0
    for tree in model["trees"]:
        own = numbered[start : start + len(tree["nodes"])]
        start += len(own)
        for output in range(width) if mean else [tree["output"]]:
            leaves = {node["id"]: _double(_added(node, mean, output)) for node in own if "feature" not in node}
            terms[output].append(f"_t{len(columns)}")
            columns.append(f"{_part(own[0]['id'], (), set(), nodes, asked.conditions, leaves)} AS _t{len(columns)}")
    base = [0.0] * width if mean else model["base"]
    # Each tree is named twice, see `_of_one`; in the order in which every scorer adds.
    sums = [
        " + ".join([_double(first), *(f"CASE WHEN {term} IS NULL THEN 0E0 ELSE {term} END" for term in own)])
        for first, own in zip(base, terms)  # noqa: B905  # not in Python 3.9
    ]
    parts = [
        _query("_trees", [*names, *columns], "_inputs"),
        _query("_sums", [*names, *(f"{total} AS _s{k}" for k, total in enumerate(sums))], "_trees"),
    ]
    if model["link"] == "softmax":
        largest = f"GREATEST({', '.join(f'_s{k}' for k in range(width))})"
        powers = [f"EXP(_s{k} - {largest}) AS _e{k}" for k in range(width)]
        parts.append(_query("_powers", [*names, *powers], "_sums"))
        whole = " + ".join(f"_e{k}" for k in range(width))
        said = [f"_e{k} / ({whole})" for k in range(width)]
    elif model["link"] == "logistic":
        said = ["CASE WHEN _s0 >= 0E0 THEN 1E0 / (1E0 + EXP(-_s0)) ELSE EXP(_s0) / (1E0 + EXP(_s0)) END"]
    else:
        said = [f"_s{k} / {_double(len(model['trees']))}" if mean else f"_s{k}" for k in range(width)]
    outputs, source = _outputs(model), "_powers" if model["link"] == "softmax" else "_sums"
    if task == "regression":
        return [*parts, f"SELECT {', '.join([*names, f'{said[0]} AS prediction'])}\nFROM {source}"]
    probabilities = outputs[:-1]
    named = [f"{own} AS {name}" for own, name in zip(said, probabilities)]  # noqa: B905  # not in Python 3.9
    parts.append(_query("_said", [*names, *named], source))
    if task == "binary":
        call = f"CASE WHEN probability >= {_double(forms.threshold(model))} THEN 1 ELSE 0 END"
    else:
        weights = model.get("weights")
        weighed = [f"{p} * {_double(w)}" for p, w in zip(probabilities, weights)] if weights else probabilities  # noqa: B905
        cases = [f"WHEN {p} THEN {_text(name)}" for p, name in zip(weighed, model["classes"])]  # noqa: B905
        call = f"CASE GREATEST({', '.join(weighed)}) {' '.join(cases)} END"
    return [*parts, f"SELECT {', '.join([*names, *probabilities, f'{call} AS prediction'])}\nFROM _said"]


def _added(leaf: Json, mean: bool, output: int) -> float:
    """What the leaf of one of several trees adds to a sum."""
    if mean and "probabilities" in leaf:
        return float(leaf["probabilities"][output])
    return float(leaf["probability"] if mean and "probability" in leaf else leaf["value"])


def _header(tree: Json, table: str, used: Sequence[str], body: str) -> str:
    label = tree["label"]
    says = {
        "binary": f"probability that {label} is 1 ({tree['positive']}), prediction 1 where that is "
        f"{forms.threshold(tree)!r} or more",
        "multiclass": f"probability of each class of {label}, prediction the first class with the largest"
        + (f", each times its weight ({', '.join(map(repr, tree['weights']))})" if tree.get("weights") else ""),
        "regression": f"prediction of {label}" + (f" in {tree['unit']}" if tree["unit"] else ""),
    }
    what = f"{len(tree['trees']):,} decision trees" if "trees" in tree else "Decision tree"
    lines = [
        f"{what} of dataset {tree['dataset']}, run {tree['run_id']}: {says[tree['task']]}.",
        *(f"probability_{i}: {name}" for i, name in enumerate(tree["classes"])),
        f"Reads table {table}: {', '.join(used) or 'no feature'}.",
        "For Athena (engine version 3), Trino and DuckDB, as it is. In Athena a view: CREATE VIEW name AS, then this.",
    ]
    if len(body.encode()) + sum(len(line.encode()) + 10 for line in lines) > MAX_BYTES:
        lines.append(
            f"TOO LONG FOR ATHENA, which takes {MAX_BYTES:,} bytes. Run it in DuckDB or Trino, score with dml predict "
            "or with tree.json in plain Python, or train a smaller model ([training])."
        )
    # As JSON has it, a name's line break doesn't end the comment.
    return "".join(f"-- {json.dumps(line, ensure_ascii=False)[1:-1]}\n" for line in lines)


def _number(column: str, feature: Json) -> str:
    """NULL, NaN and infinities all fail BETWEEN: in Trino no comparison with NaN holds, in DuckDB it is the largest."""
    value = f"CAST({column} AS DOUBLE)"
    return f"CASE WHEN {value} BETWEEN -{LARGEST} AND {LARGEST} THEN {value} ELSE {_double(feature['missing'])} END"


def _category(column: str, feature: Json, thresholds: Sequence[float], table: str) -> Tuple[List[str], str]:
    """The look-up table's rows (value, place) and the look-up. What has the place of an unseen one needs no row.

    A place is the number of thresholds below the encoding: encoding <= thresholds[k] exactly where place <= k.
    """
    missing, unseen = (bisect_left(thresholds, feature[key]) for key in ("missing", "unseen"))
    places = {value: bisect_left(thresholds, number) for value, number in feature["encoding"].items()}
    rows = [f"{_text(value)}, {place}" for value, place in sorted(places.items()) if place != unseen]
    known = f"COALESCE({table}._place, {unseen})" if rows else str(unseen)
    return rows, f"CASE WHEN {column} IS NULL THEN {missing} ELSE {known} END"


def _cuts(ordered: Sequence[Json]) -> Set[int]:
    """The inner nodes to cut at, so that no part has more than SPLITS_A_COLUMN splits. `ordered`: parents first."""
    weight: Dict[int, int] = {}  # splits below and at a node that are not cut off
    cuts: Set[int] = set()
    for node in reversed(ordered):
        if "feature" not in node:
            weight[node["id"]] = 0
            continue
        children = sorted((node["left"], node["right"]), key=lambda key: -weight[key])
        weight[node["id"]] = 1 + sum(weight[key] for key in children)
        for key in children:
            if weight[node["id"]] > SPLITS_A_COLUMN:
                weight[node["id"]] -= weight[key]
                cuts.add(key)
    return cuts


def _roots(root: int, cuts: Set[int], nodes: Mapping[int, Json], conditions: Conditions) -> List[Tuple[int, Path]]:
    """Where each part begins, and what leads there from the tree's root."""
    found: List[Tuple[int, Path]] = []
    waiting: List[Tuple[int, Path]] = [(root, ())]
    while waiting:
        key, path = waiting.pop()
        if key == root or key in cuts:
            found.append((key, path))
        if "feature" in nodes[key]:
            (goes_left, goes_right), node = conditions[key], nodes[key]
            waiting += [(node["right"], (*path, goes_right)), (node["left"], (*path, goes_left))]
    return found


def _part(
    root: int,
    path: Path,
    cuts: Set[int],
    nodes: Mapping[int, Json],
    conditions: Conditions,
    number: Mapping[int, str],
) -> str:
    """What `number` says of the leaf for the rows that end in this part, NULL for all others."""

    def text(key: int, indent: str) -> str:
        if key in number:
            return number[key]
        if key in cuts and key != root:
            return "NULL"
        lines = []
        while "feature" in nodes[key] and (key == root or key not in cuts):  # a way to the right is one CASE
            lines.append(f"{indent}WHEN {conditions[key][0]} THEN {text(nodes[key]['left'], indent + ' ')}")
            key = nodes[key]["right"]
        return "CASE\n" + "\n".join(lines) + f"\n{indent}ELSE {text(key, indent)} END"

    inside = text(root, "   ")
    return f"CASE WHEN {' AND '.join(path)} THEN {inside} END" if path else inside


def _outputs(tree: Json) -> List[str]:
    return {
        "binary": ["probability", "prediction"],
        "multiclass": [*(f"probability_{i}" for i in range(len(tree["classes"]))), "prediction"],
        "regression": ["prediction"],
    }[tree["task"]]


def _values(tree: Json, leaf: Json) -> List[str]:
    if tree["task"] == "regression":
        return [_double(leaf["value"])]
    if tree["task"] == "binary":
        return [_double(leaf["probability"]), str(int(leaf["probability"] >= forms.threshold(tree)))]
    probabilities = leaf["probabilities"]
    called = tree["classes"][forms.called(probabilities, tree.get("weights"))]
    return [*map(_double, probabilities), _text(called)]


def _rows(name: str, rows: Sequence[str]) -> str:
    listed = ",\n ".join(f"({row})" for row in rows)
    return f"{name} AS (VALUES\n {listed}\n)"


def _query(name: str, columns: Sequence[str], source: str) -> str:
    listed = ",\n  ".join(columns)
    return f"{name} AS (\n SELECT\n  {listed}\n FROM {source}\n)"


def _double(value: float) -> str:
    """A literal that is a DOUBLE everywhere (0.1 alone is a DECIMAL in Trino), with repr's digits, which round-trip."""
    text = repr(float(value)).upper()
    return text if "E" in text else f"{text}E0"


def _text(value: str) -> str:
    return "'" + value.replace("'", "''") + "'"


def _name(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'
