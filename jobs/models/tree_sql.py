"""tree.sql: the tree as one SELECT, which Athena (Trino) and DuckDB run unchanged. No Spark, no cluster.

Every feature that the tree looks at becomes a column first: a number as a double, a category as the place of its
encoding among the tree's thresholds on it, which decides every split just as the encoding does. Nested CASEs then find
the leaf, and a table of leaves says what the model says there.
"""

import json
from bisect import bisect_left
from typing import Any, Dict, List, Mapping, Sequence, Set, Tuple

# Athena refuses a longer statement (its user guide, "Service Quotas": query string length, bytes in UTF-8).
MAX_BYTES = 262_144
# Trino compiles each column of a SELECT to one Java method, and one beyond 64 KB fails: in Trino 414 a tree of 2,000
# leaves in one expression does ("Query exceeded maximum columns"), cut into parts it runs. HotSpot leaves a method
# beyond 8,000 bytes interpreted, hence the smaller parts.
SPLITS_A_COLUMN = 64
LARGEST = "1.7976931348623157E308"

Json = Mapping[str, Any]
Path = Tuple[str, ...]  # the conditions that lead from the root to a node


def sql(tree: Json, table: str = "features", keys: Sequence[str] = ()) -> str:
    """The query, a row for each row of `table`, in no order. The text depends on the arguments only.

    `tree` is the content of a tree.json of format 2. Columns in: `keys`, and the features that the tree looks at; a
    category may be text, a whole number, a boolean or a date. Columns out: `keys`, then probability and prediction
    (binary: 1 from 0.5 on), or probability_<i> of each class and prediction (multiclass: the class as text), or
    prediction (regression). Names that begin with an underscore are the query's own.
    """
    nodes = {node["id"]: node for node in tree["nodes"]}
    splits = [node for node in tree["nodes"] if "feature" in node]
    leaves = [node for node in tree["nodes"] if "feature" not in node]
    used = [feature for feature in tree["features"] if any(node["feature"] == feature["name"] for node in splits)]
    kept, inputs, joins, tables, tests = [f"t.{_name(key)}" for key in keys], [], [], [], {}
    for i, feature in enumerate(used):
        column, on = f"t.{_name(feature['name'])}", [node for node in splits if node["feature"] == feature["name"]]
        if feature["kind"] == "number":
            inputs.append(f"{_number(column, feature)} AS _x{i}")
            tests.update({node["id"]: (f"_x{i} <= ", _double(node["threshold"])) for node in on})
            continue
        thresholds = sorted({node["threshold"] for node in on})
        rows, value = _category(column, feature, thresholds, f"_c{i}")
        inputs.append(f"{value} AS _x{i}")
        tests.update({node["id"]: (f"_x{i} <= ", str(thresholds.index(node["threshold"]))) for node in on})
        if rows:
            tables.append(_rows(f"_c{i} (_value, _place)", rows))
            joins.append(f"\n LEFT JOIN _c{i} ON _c{i}._value = CAST({column} AS VARCHAR)")
    conditions = {key: (left + limit, left.replace("<=", ">") + limit) for key, (left, limit) in tests.items()}

    names = [_name(key) for key in keys]
    number = {leaf["id"]: i for i, leaf in enumerate(leaves)}
    cuts = _cuts(tree["nodes"])
    parts = [
        f"{_part(root, path, cuts, nodes, conditions, number)} AS _p{i}"
        for i, (root, path) in enumerate(_roots(tree["nodes"][0]["id"], cuts, nodes, conditions))
    ]
    # Each part is named twice here, or Trino would put all of them back into one expression (its InlineProjections).
    arrived = [f"WHEN _p{i} IS NOT NULL THEN _p{i}" for i in range(len(parts))]
    outputs = _outputs(tree)
    tables += [
        _query("_inputs", [*kept, *inputs] or ["1 AS _row"], f"{_name(table)} AS t" + "".join(joins)),
        _query("_parts", [*names, *parts], "_inputs"),
        _query("_arrivals", [*names, f"CASE {' '.join(arrived)} END AS _leaf"], "_parts"),
        _rows(
            f"_leaves (_leaf, {', '.join(outputs)})",
            [f"{i}, {', '.join(_values(tree, leaf))}" for i, leaf in enumerate(leaves)],
        ),
    ]
    result = [*(f"a.{name}" for name in names), *(f"l.{name}" for name in outputs)]
    body = (
        "WITH " + ",\n".join(tables) + f"\nSELECT {', '.join(result)}\n"
        "FROM _arrivals AS a\nLEFT JOIN _leaves AS l ON l._leaf = a._leaf\n"
    )
    return _header(tree, table, [feature["name"] for feature in used], body) + body


def _header(tree: Json, table: str, used: Sequence[str], body: str) -> str:
    label = tree["label"]
    says = {
        "binary": f"probability that {label} is 1 ({tree['positive']}), prediction 1 where that is 0.5 or more",
        "multiclass": f"probability of each class of {label}, prediction the first class with the largest",
        "regression": f"prediction of {label}" + (f" in {tree['unit']}" if tree["unit"] else ""),
    }
    lines = [
        f"Decision tree of dataset {tree['dataset']}, run {tree['run_id']}: {says[tree['task']]}.",
        *(f"probability_{i}: {name}" for i, name in enumerate(tree["classes"])),
        f"Reads table {table}: {', '.join(used) or 'no feature'}.",
        "For Athena (engine version 3), Trino and DuckDB, as it is. In Athena a view: CREATE VIEW name AS, then this.",
    ]
    if len(body.encode()) + sum(len(line.encode()) + 10 for line in lines) > MAX_BYTES:
        lines.append(
            f"TOO LONG FOR ATHENA, which takes {MAX_BYTES:,} bytes. Run it in DuckDB or Trino, score with dml predict "
            "or with tree.json in plain Python, or train a smaller tree (training.depth, training.min_leaf)."
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


def _roots(
    root: int, cuts: Set[int], nodes: Mapping[int, Json], conditions: Mapping[int, Tuple[str, str]]
) -> List[Tuple[int, Path]]:
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
    conditions: Mapping[int, Tuple[str, str]],
    number: Mapping[int, int],
) -> str:
    """The leaf's number for the rows that end in this part, NULL for all others."""

    def text(key: int, indent: str) -> str:
        if key in number:
            return str(number[key])
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
        return [_double(leaf["probability"]), str(int(leaf["probability"] >= 0.5))]
    probabilities = leaf["probabilities"]
    return [*map(_double, probabilities), _text(tree["classes"][probabilities.index(max(probabilities))])]


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
