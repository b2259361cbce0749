"""prepare.sql applied to single rows of a raw table, in DuckDB: what it says of a row alone, as Spark would compute it.

Only what both are known to compute alike is taken (a test holds it against Spark); anything else, and all that looks at
other rows or tables, raises NotOfOneRowError. So a result is Spark's, or there is none.
"""

import json
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import duckdb

from jobs.tables.settings import ColumnType

Type = Literal["string", "int", "bigint", "double", "decimal", "boolean", "date", "timestamp", "null"]
Node = dict[str, Any]

DUCKDB = {
    "string": "VARCHAR", "int": "INTEGER", "bigint": "BIGINT", "double": "DOUBLE", "boolean": "BOOLEAN",
    "date": "DATE", "timestamp": "TIMESTAMP",
}  # fmt: skip
SPARK_TYPES: dict[str, Type] = {
    "string": "string", "varchar": "string", "int": "int", "integer": "int", "bigint": "bigint", "long": "bigint",
    "double": "double", "boolean": "boolean", "date": "date", "timestamp": "timestamp",
}  # fmt: skip
NUMBERS = ("int", "bigint", "double")  # each holds what the ones before it do
# What Spark's query may have that DuckDB's parser takes otherwise, or not at all: texts, names, comments.
TOKEN = re.compile(
    r"--[^\n]*|/\*.*?\*/|[rR]?'(?:[^'\\]|\\.|'')*'|[rR]?\"(?:[^\"\\]|\\.)*\"|`(?:[^`]|``)*`|(?<!\w)[A-Za-z]\w*(?![\w'\"]|\s*\()",
    re.DOTALL,
)
ESCAPES = {"n": "\n", "r": "\r", "t": "\t", "0": "\0", "b": "\b", "Z": "\x1a"}
UNSURE = "unsure: "  # what DuckDB's error says of a cell that Spark may read otherwise
WHITE = "' ' || chr(9) || chr(10) || chr(11) || chr(12) || chr(13) || chr(28) || chr(29) || chr(30) || chr(31)"

# A text's value as Spark's cast (jobs/tables/raw.py: try_cast) has it; NULL if it has none. Texts of which only Spark
# knows end the query.
MACROS = (
    f"CREATE MACRO spark_trim(s) AS trim(s, {WHITE})",
    f"CREATE MACRO unsure(s, kind) AS error('{UNSURE}' || s || ' as ' || kind)",
    r"""CREATE MACRO spark_double(s) AS CASE
        WHEN regexp_full_match(spark_trim(s), '[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?')
            THEN TRY_CAST(spark_trim(s) AS DOUBLE)
        WHEN lower(spark_trim(s)) = 'nan' THEN CAST('nan' AS DOUBLE)
        WHEN lower(spark_trim(s)) IN ('inf', '+inf', 'infinity', '+infinity') THEN CAST('inf' AS DOUBLE)
        WHEN lower(spark_trim(s)) IN ('-inf', '-infinity') THEN CAST('-inf' AS DOUBLE)
        WHEN regexp_full_match(spark_trim(s), '(?i)[+-]?(0x.*|.*\d.*[df])') THEN CAST(unsure(s, 'a double') AS DOUBLE)
    END""",
    r"""CREATE MACRO spark_whole(s) AS CASE
        WHEN regexp_full_match(spark_trim(s), '[+-]?\d{1,30}') THEN TRY_CAST(spark_trim(s) AS BIGINT)
    END""",
    # A cast that is no try_cast cuts off what stands behind the point.
    r"""CREATE MACRO spark_cut(s) AS CASE
        WHEN regexp_full_match(spark_trim(s), '[+-]?\d{1,30}') THEN TRY_CAST(spark_trim(s) AS BIGINT)
        WHEN regexp_full_match(spark_trim(s), '[+-]?\d*\.\d*') THEN CAST(unsure(s, 'a whole number') AS BIGINT)
    END""",
    """CREATE MACRO spark_boolean(s) AS CASE
        WHEN lower(spark_trim(s)) IN ('t', 'true', 'y', 'yes', '1') THEN true
        WHEN lower(spark_trim(s)) IN ('f', 'false', 'n', 'no', '0') THEN false
    END""",
    r"""CREATE MACRO spark_date(s) AS CASE
        WHEN regexp_full_match(spark_trim(s), '\d{4}-\d{1,2}-\d{1,2}([ T](?s:.)*)?')
            THEN TRY_CAST(regexp_extract(spark_trim(s), '\d{4}-\d{1,2}-\d{1,2}') AS DATE)
        WHEN regexp_full_match(spark_trim(s), '[+-]?\d{4,7}([- T](?s:.)*)?') THEN CAST(unsure(s, 'a date') AS DATE)
    END""",
    r"""CREATE MACRO spark_timestamp(s) AS CASE
        WHEN regexp_full_match(spark_trim(s), '\d{4}-\d{1,2}-\d{1,2}([ T]\d{1,2}:\d{1,2}(:\d{1,2}(\.\d{1,6})?)?)?')
            THEN TRY_CAST(spark_trim(s) AS TIMESTAMP)
        WHEN regexp_full_match(
            spark_trim(s), '\d{4}-\d{1,2}-\d{1,2}[ T]\d{1,2}:\d{1,2}(:\d{1,2}(\.\d{1,6})?)?(Z|[+-]\d{2}:\d{2})'
        ) THEN make_timestamp(epoch_us(TRY_CAST(spark_trim(s) AS TIMESTAMPTZ)))
        WHEN contains(s, ':') OR regexp_full_match(spark_trim(s), '[+-]?\d{4,7}([- T](?s:.)*)?')
            THEN CAST(unsure(s, 'a timestamp') AS TIMESTAMP)
    END""",
)
FROM_TEXT = {
    "double": "spark_double({})", "bigint": "spark_whole({})", "int": "TRY_CAST(spark_whole({}) AS INTEGER)",
    "boolean": "spark_boolean({})", "date": "spark_date({})", "timestamp": "spark_timestamp({})", "string": "{}",
}  # fmt: skip


class NotOfOneRowError(Exception):
    """What prepare.sql does that cannot be done with one row of one table here; a clause, for a sentence."""


@dataclass(frozen=True)
class Value:
    """An expression in DuckDB's SQL, its type in Spark, and the raw columns that it reads."""

    sql: str
    kind: Type
    reads: frozenset[str] = frozenset()


@dataclass(frozen=True)
class RowQuery:
    """`columns`: each as an expression over the main table's typed columns; `where`: which rows are in the result."""

    columns: dict[str, Value]
    where: Value | None
    unknown: dict[str, str] = field(
        default_factory=dict
    )  # columns that were asked for if possible, and why they are not

    @property
    def reads(self) -> frozenset[str]:
        values = [*self.columns.values(), *([self.where] if self.where else [])]
        return frozenset().union(*(value.reads for value in values))


def connect() -> duckdb.DuckDBPyConnection:
    """A database that knows what the expressions of this module use."""
    database = duckdb.connect()
    database.execute("SET threads = 1")  # rows come in their order
    for macro in MACROS:
        database.execute(macro)
    database.create_function("java_lower", str.lower, ["VARCHAR"], "VARCHAR")
    database.create_function("java_upper", str.upper, ["VARCHAR"], "VARCHAR")
    return database


def row_query(
    sql: str, main: str, columns: Mapping[str, ColumnType], needed: Sequence[str], wanted: Sequence[str] = ()
) -> RowQuery:
    """What the query makes of a row of `main`, whose columns are given with their types: the `needed` columns, and the
    `wanted` ones that can be computed. Raises NotOfOneRowError.
    """
    select = _parsed(sql, {*columns, *needed, *wanted})
    scope = _scope(select, main, columns)
    made = {_name(item): item for item in select["select_list"]}
    found, unknown = {}, {}
    for name in dict.fromkeys([*needed, *wanted]):
        try:
            if name not in made:
                raise NotOfOneRowError(f"has no column {name} that is named in its select list")
            found[name] = scope.value(made[name])
        except NotOfOneRowError as error:
            if name in needed:
                raise NotOfOneRowError(f"{error}, for {name}") from None
            unknown[name] = str(error)
    return RowQuery(found, _where(select, scope), unknown)


def _parsed(sql: str, names: Collection[str]) -> Node:
    database = duckdb.connect()
    ((text,),) = database.execute(
        "SELECT json_serialize_sql(?)", [TOKEN.sub(lambda found: _token(found, names), sql).strip().rstrip(";")]
    ).fetchall()
    answer = json.loads(text)
    if answer.get("error"):
        raise NotOfOneRowError(f"is written in a way that only Spark reads ({answer['error_message']})")
    (statement,) = answer["statements"]
    node: Node = statement["node"]
    return node


def _token(found: re.Match[str], names: Collection[str]) -> str:
    """A token of Spark's SQL in DuckDB's; in quotes if it is one of the columns, which may be DuckDB's own words."""
    text = found.group()
    if text[0].isalpha() and text[-1] not in "'\"":
        return f'"{text}"' if text.lower() in names else text
    if text.startswith(("--", "/*")):
        return " "
    if text.startswith("`"):
        return '"' + text[1:-1].replace("``", "`").replace('"', '""') + '"'
    if text[0] in "rR":
        inner = text[2:-1]
    else:
        if re.search(r"\\[u\d]", text):
            raise NotOfOneRowError(f"has a text with an escape that is not known here ({text})")
        inner = re.sub(
            r"\\(.)", lambda m: ESCAPES.get(m[1], m[0] if m[1] in "%_" else m[1]), text[1:-1], flags=re.DOTALL
        )
        inner = inner.replace("''", "")  # Spark joins texts that stand side by side
    return "'" + inner.replace("'", "''") + "'"


def _scope(select: Node, main: str, columns: Mapping[str, ColumnType]) -> "_Scope":
    """What the query reads from: the main table, straight or through WITH clauses that add columns to its rows."""
    _check_plain(select)
    table = select["from_table"]
    if table["type"] == "JOIN":
        raise NotOfOneRowError("joins other tables")
    if table["type"] != "BASE_TABLE" or table.get("sample") or table.get("column_name_alias"):
        raise NotOfOneRowError("reads from something else than a table")
    name = table["table_name"].lower()
    alias = (table.get("alias") or name).lower()
    within = {entry["key"].lower(): entry["value"] for entry in select["cte_map"]["map"]}
    if name in within:
        inner = within[name]["query_node"] if "query_node" in within[name] else within[name]["query"]["node"]
        inner = {
            **inner,
            "cte_map": {"map": [entry for entry in select["cte_map"]["map"] if entry["key"].lower() != name]},
        }
        below = _scope(inner, main, columns)
        if _where(inner, below) is not None:
            raise NotOfOneRowError("leaves out rows in a WITH clause")
        return _Scope(alias, below.of_select(inner["select_list"]))
    if name != main:
        raise NotOfOneRowError(f"reads from {name}, not from {main}")
    return _Scope(alias, {c: lambda c=c, k=k: Value(f'"{c}"', k, frozenset([c])) for c, k in columns.items()})  # type: ignore[misc]


def _check_plain(select: Node) -> None:
    if select["type"] != "SELECT_NODE":
        raise NotOfOneRowError("puts the results of several queries together")
    for key, what in (
        ("group_expressions", "groups rows"), ("group_sets", "groups rows"), ("having", "groups rows"),
        ("qualify", "looks at other rows (QUALIFY)"), ("sample", "takes a sample of rows"),
        ("modifiers", "orders, limits or deduplicates rows"),
    ):  # fmt: skip
        if select.get(key):
            raise NotOfOneRowError(what)


def _where(select: Node, scope: "_Scope") -> Value | None:
    if not select.get("where_clause"):
        return None
    try:
        value = scope.value(select["where_clause"])
    except NotOfOneRowError as error:
        raise NotOfOneRowError(f"{error}, in WHERE") from None
    return _as(value, "boolean", "WHERE")


def _name(item: Node) -> str:
    names = item.get("column_names") or [""]
    return str(item.get("alias") or names[-1]).lower()


def _as(value: Value, kind: Type, where: str) -> Value:
    if value.kind == "null":
        return Value(f"CAST(NULL AS {DUCKDB[kind]})", kind, value.reads)
    if value.kind != kind:
        raise NotOfOneRowError(f"gives {where} a {value.kind} for a {kind}")
    return value


def _reads(values: Sequence[Value]) -> frozenset[str]:
    return frozenset().union(*(value.reads for value in values))


def _alike(values: Sequence[Value], what: str) -> tuple[list[str], Type]:
    """Expressions in their common type, as Spark finds it."""
    kinds = {value.kind for value in values} - {"null"}
    if not kinds:
        return [value.sql for value in values], "null"
    if kinds <= {*NUMBERS, "decimal"} and (len(kinds) > 1 or "decimal" in kinds):
        if "decimal" in kinds and "double" not in kinds:
            raise NotOfOneRowError(f"has decimals without a double ({what})")
        common: Type = "double" if "double" in kinds else "bigint"
        return [f"CAST({value.sql} AS {DUCKDB[common]})" for value in values], common
    if len(kinds) > 1:
        raise NotOfOneRowError(f"mixes {' and '.join(sorted(kinds))} ({what})")
    (kind,) = kinds
    return [value.sql for value in values], kind


def _text(value: Value) -> str:
    """As a text, where Spark makes one of it and both write it alike."""
    if value.kind in ("string", "null"):
        return value.sql
    if value.kind in ("int", "bigint", "boolean"):
        return f"CAST({value.sql} AS VARCHAR)"
    raise NotOfOneRowError(f"writes a {value.kind} as text")


def _date(value: Value) -> str:
    if value.kind == "string":
        return f"spark_date({value.sql})"
    if value.kind in ("date", "null"):
        return value.sql
    if value.kind == "timestamp":
        return f"CAST({value.sql} AS DATE)"
    raise NotOfOneRowError(f"takes a {value.kind} for a date")


def _time(value: Value) -> str:
    if value.kind in ("timestamp", "null"):
        return value.sql
    if value.kind == "string":
        return f"spark_timestamp({value.sql})"
    raise NotOfOneRowError(f"takes a {value.kind} for a timestamp")


def _of_dates(part: str) -> Callable[[list[Value]], tuple[str, Type]]:
    return lambda given: (f"CAST({part.format(_date(given[0]))} AS INTEGER)", "int")


def _of_times(part: str) -> Callable[[list[Value]], tuple[str, Type]]:
    return lambda given: (f"CAST({part}({_time(given[0])}) AS INTEGER)", "int")


def _of_texts(form: str, kind: Type = "string") -> Callable[[list[Value]], tuple[str, Type]]:
    return lambda given: (form.format(*map(_text, given)), kind)


def _concat(given: list[Value]) -> tuple[str, Type]:
    return "(" + " || ".join(map(_text, given)) + ")", "string"


def _abs(given: list[Value]) -> tuple[str, Type]:
    if given[0].kind not in NUMBERS:
        raise NotOfOneRowError(f"takes abs of a {given[0].kind}")
    return f"abs({given[0].sql})", given[0].kind


def _to_date(given: list[Value]) -> tuple[str, Type]:
    return _date(given[0]), "date"


def _nullif(given: list[Value]) -> tuple[str, Type]:
    (one, other), kind = _alike(given, "nullif")
    return f"CASE WHEN {one} = {other} THEN NULL ELSE {one} END", kind


def _if(given: list[Value]) -> tuple[str, Type]:
    test = _as(given[0], "boolean", "if")
    (yes, no), kind = _alike(given[1:], "if")
    return f"CASE WHEN {test.sql} THEN {yes} ELSE {no} END", kind


def _make_date(given: list[Value]) -> tuple[str, Type]:
    if any(value.kind not in ("int", "bigint") for value in given):
        raise NotOfOneRowError("makes dates of other than whole numbers")
    parts = "'{:04d}-{:02d}-{:02d}'"
    year = given[0].sql
    return (
        f"CASE WHEN {year} BETWEEN 1 AND 9999 THEN TRY_CAST(format({parts}, {', '.join(v.sql for v in given)}) "
        "AS DATE) END",
        "date",
    )


def _arithmetic(sign: str) -> Callable[[list[Value]], tuple[str, Type]]:
    def of(given: list[Value]) -> tuple[str, Type]:
        if any(value.kind not in (*NUMBERS, "decimal") for value in given):
            raise NotOfOneRowError(f"computes {sign} of a {' and a '.join(value.kind for value in given)}")
        if len(given) == 1:
            if given[0].kind == "decimal":
                return f"-{given[0].sql}", "decimal"
            return f"({sign}{given[0].sql})", given[0].kind
        if sign == "/":
            if {value.kind for value in given} == {"decimal"} or {"decimal"} < {value.kind for value in given} - {
                "double"
            }:
                raise NotOfOneRowError("divides decimals")
            one, other = (f"CAST({value.sql} AS DOUBLE)" for value in given)
            return f"({one} / CASE WHEN {other} <> 0 THEN {other} END)", "double"
        (one, other), kind = _alike(given, sign)
        return f"({one} {sign} {other})", kind

    return of


# What Spark's functions are in DuckDB, by name and number of arguments.
FUNCTIONS: dict[tuple[str, int], Callable[[list[Value]], tuple[str, Type]]] = {
    ("trim", 1): _of_texts("trim({}, ' ')"),
    ("ltrim", 1): _of_texts("ltrim({}, ' ')"),
    ("rtrim", 1): _of_texts("rtrim({}, ' ')"),
    ("rtrim", 2): _of_texts("rtrim({1}, {0})"),
    ("ltrim", 2): _of_texts("ltrim({1}, {0})"),
    ("replace", 3): _of_texts("CASE WHEN {1} = '' THEN {0} ELSE replace({0}, {1}, {2}) END"),
    ("lower", 1): _of_texts("java_lower({})"),
    ("upper", 1): _of_texts("java_upper({})"),
    ("lcase", 1): _of_texts("java_lower({})"),
    ("ucase", 1): _of_texts("java_upper({})"),
    ("length", 1): _of_texts("CAST(length({}) AS INTEGER)", "int"),
    ("startswith", 2): _of_texts("starts_with({}, {})", "boolean"),
    ("contains", 2): _of_texts("contains({}, {})", "boolean"),
    ("concat", 2): _concat,
    ("concat", 3): _concat,
    ("||", 2): _concat,
    ("abs", 1): _abs,
    ("nullif", 2): _nullif,
    ("if", 3): _if,
    ("make_date", 3): _make_date,
    ("to_date", 1): _to_date,
    ("date", 1): _to_date,
    ("year", 1): _of_dates("year({})"),
    ("quarter", 1): _of_dates("quarter({})"),
    ("month", 1): _of_dates("month({})"),
    ("day", 1): _of_dates("day({})"),
    ("dayofmonth", 1): _of_dates("day({})"),
    ("dayofyear", 1): _of_dates("dayofyear({})"),
    ("dayofweek", 1): _of_dates("dayofweek({}) + 1"),
    ("weekday", 1): _of_dates("isodow({}) - 1"),
    ("hour", 1): _of_times("hour"),
    ("minute", 1): _of_times("minute"),
    ("second", 1): _of_times("second"),
    **{(sign, 2): _arithmetic(sign) for sign in "+-*/"},
    ("-", 1): _arithmetic("-"),
}
COMPARED = {
    "COMPARE_EQUAL": "=", "COMPARE_NOTEQUAL": "<>", "COMPARE_LESSTHAN": "<", "COMPARE_GREATERTHAN": ">",
    "COMPARE_LESSTHANOREQUALTO": "<=", "COMPARE_GREATERTHANOREQUALTO": ">=",
}  # fmt: skip


class _Scope:
    """The columns that an expression can name, each made when it is asked for."""

    def __init__(self, alias: str, columns: Mapping[str, Callable[[], Value]]) -> None:
        self.alias, self.columns = alias, columns

    def of_select(self, items: Sequence[Node]) -> dict[str, Callable[[], Value]]:
        """What a select list gives, for the query around it."""
        found: dict[str, Callable[[], Value]] = {}
        for item in items:
            if item["class"] == "STAR":
                if any(item.get(key) for key in ("exclude_list", "replace_list", "columns", "expr", "rename_list")):
                    raise NotOfOneRowError("takes * apart")
                found.update(self.columns)
            else:
                found[_name(item)] = lambda item=item: self.value(item)  # type: ignore[misc]
        return found

    def value(self, node: Node) -> Value:
        """The expression. Raises NotOfOneRowError."""
        match node["class"]:
            case "COLUMN_REF":
                return self._column([part.lower() for part in node["column_names"]])
            case "CONSTANT":
                return _constant(node)
            case "CAST":
                return self._cast(node)
            case "CASE":
                return self._case(node)
            case "COMPARISON":
                return self._compared(node)
            case "CONJUNCTION":
                values = [_as(self.value(child), "boolean", "AND/OR") for child in node["children"]]
                joined = f" {node['type'].removeprefix('CONJUNCTION_')} ".join(value.sql for value in values)
                return Value(f"({joined})", "boolean", _reads(values))
            case "OPERATOR":
                return self._operator(node)
            case "BETWEEN":
                (one, low, high), _, reads = self._same([node["input"], node["lower"], node["upper"]], "BETWEEN")
                return Value(f"({one} BETWEEN {low} AND {high})", "boolean", reads)
            case "FUNCTION":
                return self._function(node)
            case "WINDOW":
                raise NotOfOneRowError(f"looks at other rows ({node['function_name']} OVER)")
            case "SUBQUERY":
                raise NotOfOneRowError("has a query within the query")
        raise NotOfOneRowError(f"has an expression that is not known here ({node['class'].lower()})")

    def _column(self, names: Sequence[str]) -> Value:
        if len(names) > 2 or (len(names) == 2 and names[0] != self.alias) or names[-1] not in self.columns:
            raise NotOfOneRowError(f"reads {'.'.join(names)}, which is no column of the main table")
        return self.columns[names[-1]]()

    def _same(self, nodes: Sequence[Node], what: str) -> tuple[list[str], Type, frozenset[str]]:
        values = [self.value(node) for node in nodes]
        kinds = {value.kind for value in values}
        if kinds & {"date", "timestamp"} and "string" in kinds:
            values = [_day(value, node) for value, node in zip(values, nodes, strict=True)]
        found, kind = _alike(values, what)
        return found, kind, _reads(values)

    def _compared(self, node: Node) -> Value:
        sign = COMPARED.get(node["type"])
        if sign is None:
            raise NotOfOneRowError(f"compares in a way that is not known here ({node['type'].lower()})")
        (one, other), _, reads = self._same([node["left"], node["right"]], sign)
        return Value(f"({one} {sign} {other})", "boolean", reads)

    def _case(self, node: Node) -> Value:
        checks = node["case_checks"]
        tests = [_as(self.value(check["when_expr"]), "boolean", "WHEN") for check in checks]
        results = [self.value(check["then_expr"]) for check in checks] + [self.value(node["else_expr"])]
        (*then, otherwise), kind = _alike(results, "CASE")
        whens = " ".join(f"WHEN {test.sql} THEN {value}" for test, value in zip(tests, then, strict=True))
        return Value(f"(CASE {whens} ELSE {otherwise} END)", kind, _reads([*tests, *results]))

    def _operator(self, node: Node) -> Value:
        kind = node["type"]
        if kind in ("OPERATOR_IS_NULL", "OPERATOR_IS_NOT_NULL"):
            value = self.value(node["children"][0])
            return Value(f"({value.sql} IS {'NOT ' if 'NOT' in kind else ''}NULL)", "boolean", value.reads)
        if kind == "OPERATOR_NOT":
            value = _as(self.value(node["children"][0]), "boolean", "NOT")
            return Value(f"(NOT {value.sql})", "boolean", value.reads)
        if kind in ("COMPARE_IN", "COMPARE_NOT_IN"):
            (one, *others), _, reads = self._same(node["children"], "IN")
            return Value(f"({one} {'NOT ' if 'NOT' in kind else ''}IN ({', '.join(others)}))", "boolean", reads)
        if kind == "OPERATOR_COALESCE":
            found, of, reads = self._same(node["children"], "coalesce")
            return Value(f"coalesce({', '.join(found)})", of, reads)
        raise NotOfOneRowError(f"has an operator that is not known here ({kind.lower()})")

    def _function(self, node: Node) -> Value:
        name, arguments = node["function_name"].lower(), node.get("arguments") or node.get("children") or []
        if node.get("distinct") or node.get("filter") or (node.get("order_bys") or {}).get("orders"):
            raise NotOfOneRowError(f"looks at other rows ({name})")
        made = FUNCTIONS.get((name, len(arguments)))
        if made is None:
            raise NotOfOneRowError(f"uses {name}, which is not computed here as Spark does or looks at other rows")
        given = [self.value(argument.get("expression", argument)) for argument in arguments]
        sql, kind = made(given)
        return Value(sql, kind, _reads(given))

    def _cast(self, node: Node) -> Value:
        value = self.value(node["child"])
        told = node.get("type_expr") or {}
        name = str(told.get("type_name") or (told.get("qualified_name") or {}).get("path", ["?"])[-1]).lower()
        to = SPARK_TYPES.get(name)
        if to is None or told.get("children"):
            raise NotOfOneRowError(f"casts to {name}")
        return Value(_cast(value, to, strict=bool(node.get("try_cast"))), to, value.reads)


def _day(value: Value, node: Node) -> Value:
    """A text that says a day, beside a date or timestamp, as one."""
    if value.kind != "string":
        return (
            value if value.kind == "timestamp" else Value(f"CAST({value.sql} AS TIMESTAMP)", "timestamp", value.reads)
        )
    literal = (node.get("literal") or {}).get("text", "")
    if node["class"] != "CONSTANT" or not re.fullmatch(r"\d{4}-\d\d-\d\d", literal):
        raise NotOfOneRowError("compares a date with a text")
    return Value(f"CAST({value.sql} AS TIMESTAMP)", "timestamp")


def _constant(node: Node) -> Value:
    literal = node.get("literal") or {}
    kind, text = literal.get("kind"), str(literal.get("text", ""))
    if kind == "STRING":
        return Value("'" + text.replace("'", "''") + "'", "string")
    if kind == "INTEGER" and re.fullmatch(r"-?\d+", text):
        size: Type = "int" if abs(int(text)) < 2**31 else "bigint"
        if abs(int(text)) < 2**63:
            return Value(f"CAST({text} AS {DUCKDB[size]})", size)
    if kind == "NUMERIC":
        return Value(f"CAST('{text}' AS DOUBLE)", "double" if "e" in text.lower() else "decimal")
    if kind in ("TRUE", "FALSE", "BOOLEAN", "BOOLEAN_LITERAL") or text.lower() in ("true", "false"):
        return Value("true" if (kind == "TRUE" or text.lower() == "true") else "false", "boolean")
    if kind == "NULL_LITERAL":
        return Value("NULL", "null")
    raise NotOfOneRowError(f"has a constant that is not known here ({kind} {text})")


def _cast(value: Value, to: Type, *, strict: bool) -> str:
    kind, sql = value.kind, value.sql
    if kind == to:
        return sql
    if kind == "null":
        return f"CAST(NULL AS {DUCKDB[to]})"
    if kind == "string":
        if to in ("int", "bigint") and not strict:
            return f"TRY_CAST(spark_cut({sql}) AS {DUCKDB[to]})"
        return FROM_TEXT[to].format(sql)
    if to == "string":
        return _text(value)
    if kind == "boolean" and to in NUMBERS:
        return f"CAST({sql} AS {DUCKDB[to]})"
    if kind in NUMBERS and to in NUMBERS and NUMBERS.index(kind) < NUMBERS.index(to):
        return f"CAST({sql} AS {DUCKDB[to]})"
    if kind == "decimal" and to == "double":
        return sql
    if kind == "double" and to in ("int", "bigint") and not strict:
        most = 2**31 - 1 if to == "int" else 2**53
        return (
            f"CASE WHEN isnan({sql}) OR abs({sql}) >= {most} THEN CAST(unsure('a large number', 'a whole one') "
            "AS BIGINT) "
            f"ELSE CAST(trunc({sql}) AS {DUCKDB[to]}) END"
        )
    if (kind, to) in (("timestamp", "date"), ("date", "timestamp")):
        return f"CAST({sql} AS {DUCKDB[to]})"
    raise NotOfOneRowError(f"casts a {kind} to {to}")
