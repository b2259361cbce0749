"""What `dml dataset` guesses of tables in DuckDB: types, keys, the task, and columns that should not be learned from.

Types, keys and counts come from all rows; what compares columns with each other from a sample of SAMPLE rows.
"""

# ruff: noqa: S608  # every name and value that goes into a query passes quoted() or literal()

import itertools
import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple, TypeVar

import duckdb
import numpy as np
import numpy.typing as npt

from dml.dataset.csv_file import CsvFile
from dml.models.cells import literal, quoted
from jobs.tables.settings import MAX_CLASSES, PREDICTION_COLUMNS, ColumnType

Floats = npt.NDArray[np.float64]
Form = Literal["", "plain", "decimal comma", "thousands"]
Task = Literal["binary", "multiclass", "regression"]
T = TypeVar("T")

SAMPLE = 20_000
WIDE = 50  # columns that a query is about, of a table of many
SMALL = 100  # different values that whole numbers may have and still be names of something
AMOUNT = 9
# Always a missing value; WEAK ones may be values, and count as missing only in a column that is otherwise typed.
STRONG = ("NA", "N/A", "n/a", "NaN", "nan", "?", "null", "NULL", "Null", "\\N", "#N/A", "<NA>")
WEAK = ("-", "--", ".", "None", "none", "unknown", "Unknown", "missing", "Missing")
TYPED_SHARE = 0.98  # of a column's cells that parse, for the others to be mistakes rather than words
LEAK_AUC, LEAK_PURITY, LEAK_CORRELATION = 0.99, 0.99, 0.999
CLASSES = 20
# What Parquet tells of a column's type, by the kinds of jobs/tables/settings.py; of a text nothing.
TYPES_OF: dict[str, ColumnType] = {
    "whole": "bigint", "double": "double", "boolean": "boolean", "date": "date", "timestamp": "timestamp",
}  # fmt: skip
# In English, German, French, Spanish, Italian and Portuguese. One word of either kind decides what a label's 1 means.
POSITIVE_WORDS = ("1", "true", "yes", "y", "t", "positive", "ja", "oui", "si", "sí", "sì", "sim")
NEGATIVE_WORDS = ("0", "false", "no", "n", "f", "negative", "nein", "non", "não")
ID_NAME = re.compile(r"(^|_)(id|uuid|guid|key|no|number|nr)$|^id_")

# A type's cells, as Spark's try_cast takes them (jobs/tables/raw.py); `v` is the cell without surrounding spaces.
PATTERNS: dict[str, str] = {
    "bigint": r"[+-]?(0|[1-9]\d{0,17})",
    "double": r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?",
    "boolean": r"(?i)true|false",
    "date": r"\d{4}-\d{1,2}-\d{1,2}",
    "timestamp": r"\d{4}-\d{1,2}-\d{1,2}([ T]\d{1,2}:\d{2}(:\d{2}(\.\d+)?)?(Z|[+-]\d{2}:\d{2})?)?",
    "decimal comma": r"[+-]?\d{1,3}(\.\d{3})+(,\d+)?|[+-]?\d+(,\d+)?",
    "thousands": r"[+-]?\d{1,3}(,\d{3})+(\.\d+)?|[+-]?\d+(\.\d+)?",
}
PATTERNS["plain"] = PATTERNS["double"]
# What may stand before a number and behind it, and between its thousands. A letter alone is rather part of a code.
CURRENCY = r"[$€£¥₹]|US\$|USD|EUR|GBP|CHF|JPY|INR|kr"
UNIT = rf"%|{CURRENCY}|kg|g|mg|lbs?|km|cm|mm|m|mi|ml|l|kW|kWh|hp|bhp|cc|mpg|km/h|mph|°C|°F|h|min|sec|s"
MARKED = rf"(-?(?:{CURRENCY})\s?)?([+-]?\d[\d.,]*|[+-]?\.\d+)(\s?(?:{UNIT}))?"
SPACED = r"[+-]?\d{1,3}([ '\x{2019}\x{00A0}\x{202F}]\d{3})+([.,]\d+)?"
CODES = r"0\d+|\d{19,}"  # whole numbers whose value is not what they say: 01067 is a postcode
# 950 and 1.234 in one column: the sign stands between thousands. Of decimals some would have fewer digits behind it.
GROUPED = r"[+-]?[1-9]\d{{0,2}}(\{sign}\d{{3}})+|[+-]?\d{{1,3}}"
# Numbers as programs write them. A column that has nearly as many values as rows is not worth taking value by value.
WRITTEN: dict[ColumnType, str] = {
    "bigint": r"-?(0|[1-9]\d{0,17})",
    "double": r"-?(0|[1-9]\d{0,14})(\.\d+)?([eE][+-]?\d{1,3})?",
}
FIRST = 10_000  # rows that tell whether a column may be one of these
MIN_GROUPED = 10  # different cells with the sign, for that to be no chance
# Days as people write them: as a regular expression, Spark's pattern and DuckDB's.
DAYS = (
    (r"\d{4}/\d{1,2}/\d{1,2}", "yyyy/M/d", "%Y/%m/%d"),
    (r"\d{4}\.\d{1,2}\.\d{1,2}", "yyyy.M.d", "%Y.%m.%d"),
    (r"(19|20)\d{6}", "yyyyMMdd", "%Y%m%d"),
    (r"\d{1,2}-[A-Za-z]{3}-\d{4}", "d-MMM-yyyy", "%d-%b-%Y"),
    (r"\d{1,2} [A-Za-z]{3} \d{4}", "d MMM yyyy", "%d %b %Y"),
    *((rf"\d{{1,2}}[{s}]\d{{1,2}}[{s}]\d{{4}}", f"d{s}M{s}yyyy", f"%d{s}%m{s}%Y") for s in "./-"),
    *((rf"\d{{1,2}}[{s}]\d{{1,2}}[{s}]\d{{4}}", f"M{s}d{s}yyyy", f"%m{s}%d{s}%Y") for s in "./-"),
)
TIMES = (("", "", ""), (r" \d{1,2}:\d{2}", " H:mm", " %H:%M"), (r" \d{1,2}:\d{2}:\d{2}", " H:mm:ss", " %H:%M:%S"))


def _is_known(missing: Sequence[str]) -> str:
    return f"v NOT IN ({', '.join(literal(token) for token in missing)})"


# What a cell looks like: missing, a whole number, a code, a number, a truth, a word without a digit, something else.
LOOKS = (
    f"CASE WHEN NOT coalesce({_is_known(['', *STRONG])}, false) THEN 'missing' "
    f"WHEN regexp_full_match(v, {literal(PATTERNS['bigint'])}) THEN 'whole' "
    f"WHEN regexp_full_match(v, {literal(CODES)}) THEN 'code' "
    f"WHEN regexp_full_match(v, {literal(PATTERNS['double'])}) THEN 'number' "
    "WHEN lower(v) IN ('true', 'false') THEN 'truth' WHEN NOT regexp_matches(v, '[0-9]') THEN 'word' ELSE 'other' END"
)
LOOKED = (
    "SELECT name, sum(n)::BIGINT, coalesce(sum(n) FILTER (looks <> 'missing'), 0)::BIGINT, "
    "count(DISTINCT v) FILTER (looks <> 'missing'), coalesce(sum(n) FILTER (looks = 'whole'), 0)::BIGINT, "
    "coalesce(sum(n) FILTER (looks IN ('whole', 'number')), 0)::BIGINT, "
    "coalesce(sum(n) FILTER (looks = 'truth'), 0)::BIGINT, coalesce(sum(n) FILTER (looks = 'word'), 0)::BIGINT, "
    "coalesce(bool_and(length(v) = 8) FILTER (looks <> 'missing'), false), "
    "bool_or(looks = 'missing' AND cell IS NOT NULL), coalesce(bool_or(cell <> v AND v <> ''), false) "
    "FROM part GROUP BY name"
)


@dataclass(frozen=True)
class Column:
    """A column of a raw table. `form` is how its numbers are written if Spark cannot cast them, else ''."""

    name: str
    kind: ColumnType
    form: Form
    padded: bool  # text with spaces around it
    rows: int
    known: int
    distinct: int
    tokens: tuple[str, ...]  # the cells, as they are in the file, that count as missing
    unfit: int = 0  # cells that are not of this type
    example: str = ""  # one of them
    day_form: str = ""  # of dates that Spark's cast does not take: the pattern that all cells were tried with
    other_day_form: str = ""  # another one that fits all cells as well
    parsed_by: str = ""  # the same as `day_form` for DuckDB
    marks: tuple[str, ...] = ()  # what stands at the numbers: a currency, %, a unit, spaces between thousands
    clean: bool = False  # no cell that is there counts as missing, or has spaces around it
    by_value: bool = field(
        default=False, compare=False
    )  # `known` and `distinct` are of the values that `typed` gives, not of their texts

    @property
    def nulls(self) -> int:
        return self.rows - self.known

    @property
    def is_number(self) -> bool:
        return self.kind in ("bigint", "double", "boolean") or bool(self.form)


@dataclass(frozen=True)
class Target:
    """The label: `positive` is the value that counts as 1, `classes` all values of a multiclass label, as text."""

    task: Task
    positive: str = ""
    classes: tuple[str, ...] = ()
    counts: dict[str, int] = field(default_factory=dict)
    mean: float = 0.0
    deviation: float = 0.0


def columns_of(
    database: duckdb.DuckDBPyConnection,
    table: str,
    *,
    file: CsvFile,
    on_progress: Callable[[str], None] = lambda _: None,
) -> list[Column]:
    """The type of each text column of a table, from all its cells.

    A query of DuckDB takes the longer the more columns its table has, and each has its price: of a wide table the plain
    columns, which are most, are recognised together.
    """
    names = list(file.headers)
    on_progress(f"looking at the {len(names):,} columns of {file.called}")
    numbers = _plain_numbers(database, table, names, file) if len(names) <= WIDE else {}
    others = [name for name in names if name not in numbers]
    found: list[Column] = []
    for part in in_parts(others, WIDE if len(names) > WIDE else 1):
        seen = len(numbers) + len(found)
        on_progress(f"looking at the columns of {file.called}: {seen:,} of {len(names):,}")
        if len(part) == 1:  # without UNPIVOT, which takes the name along with each cell
            (name,) = part
            cells = f"SELECT {literal(name)} AS name, {quoted(name)} AS cell, count(*) AS n FROM {quoted(table)}"
        else:
            cells = (
                f'SELECT "its column" AS name, "the cell" AS cell, count(*) AS n '
                f"FROM (SELECT {_listed(part)} FROM {quoted(table)}) "
                f'UNPIVOT INCLUDE NULLS ("the cell" FOR "its column" IN ({_listed(part)}))'
            )
        database.execute(
            f"CREATE OR REPLACE TEMP TABLE part AS SELECT *, {LOOKS} AS looks "
            f"FROM (SELECT name, cell, trim(cell) AS v, n FROM ({cells} GROUP BY ALL))"
        )
        looks = {row[0]: _Looks(*row[1:]) for row in database.execute(LOOKED).fetchall()}
        found += [_column_of(database, name, looks.get(name, _Looks()), file) for name in part]
    database.execute("DROP TABLE IF EXISTS part")
    by_name = numbers | {column.name: column for column in found}
    return [by_name[name] for name in names]


def _plain_numbers(
    database: duckdb.DuckDBPyConnection, table: str, names: Sequence[str], file: CsvFile
) -> dict[str, Column]:
    """The columns whose cells are all numbers as WRITTEN, of many values; those of few are taken value by value.

    Which ones may be is told by the first rows, and then seen in all of them.
    """
    texts = [name for name in names if file.kinds.get(name, "string") == "string" and name not in file.partitions]
    if not texts:
        return {}
    asked = ", ".join(
        f"count(DISTINCT {quoted(name)}) > count(*) / 2, {', '.join(_all_written(name, kind) for kind in WRITTEN)}"
        for name in texts
    )
    told = _one(database, f"SELECT {asked} FROM (SELECT {_listed(texts)} FROM {quoted(table)} LIMIT {FIRST})")
    kinds: dict[str, ColumnType] = {}
    for name, many, whole, number in zip(texts, told[::3], told[1::3], told[2::3], strict=True):
        if many and whole:
            kinds[name] = "bigint"
        elif many and number and file.dialect.delimiter == ",":  # else 1.234 may be a thousand
            kinds[name] = "double"
    found = {}
    for name, kind in kinds.items():
        rows, known, written, eight, distinct = _one(
            database,
            f"SELECT count(*), count(cell), {_all_written('cell', kind)}, bool_and(length(cell) = 8), "
            f"count(DISTINCT TRY_CAST(cell AS {kind})) FROM (SELECT {quoted(name)} AS cell FROM {quoted(table)})",
        )
        if written and not (kind == "bigint" and eight):  # else it may be a day: 20240131
            found[name] = Column(name, kind, "", False, rows, known, distinct, (), clean=True, by_value=True)
    return found


def _all_written(name: str, kind: ColumnType) -> str:
    return f"coalesce(bool_and(regexp_full_match({quoted(name)}, {literal(WRITTEN[kind])})), false)"


class _Looks(NamedTuple):
    """What a column's cells look like: cells, known ones, different known ones; of the known ones how many are like
    what; whether all known ones have eight characters, some cell that is there is missing, some has space around it.
    """

    rows: int = 0
    known: int = 0
    distinct: int = 0
    whole: int = 0
    numbers: int = 0
    truths: int = 0
    words: int = 0
    eight: bool = False
    tokens: bool = False
    padded: bool = False


def _plain_kind(looks: _Looks, delimiter: str) -> ColumnType | None:
    """The type of a column whose cells are all alike; None if more has to be asked."""
    if looks.words == looks.known:
        return "string"
    if looks.truths == looks.known:
        return "boolean"
    if looks.whole == looks.known:
        return "bigint"
    # Where the delimiter is no comma, 1.234 may be a thousand.
    return "double" if looks.whole < looks.numbers == looks.known and delimiter == "," else None


def _column_of(database: duckdb.DuckDBPyConnection, name: str, looks: _Looks, file: CsvFile) -> Column:
    missing = ["", *STRONG]
    marks: tuple[str, ...] = ()
    form: Form = ""
    unfit, example, days = 0, "", ("", "", "")
    known, distinct = looks.known, looks.distinct
    told = TYPES_OF.get(file.kinds.get(name, "")) or _plain_kind(looks, file.dialect.delimiter)
    if name in file.partitions:
        told = "string"
    kind: ColumnType = told or "string"
    if told is None or (told == "bigint" and looks.eight):
        database.execute(
            f"CREATE OR REPLACE TEMP TABLE cells AS SELECT cell, v, n FROM part WHERE name = {literal(name)}"
        )
        if told is None:
            marks = _marks(database, missing)
            if marks:
                database.execute(f"UPDATE cells SET v = trim({without('v', marks)})")
            kind, form, unfit, extra = _kind(database, missing, file.dialect.delimiter)
            if marks:
                kind, form = "string", form or "plain"
            missing += extra
        known, distinct = _one(
            database, f"SELECT coalesce(sum(n), 0)::BIGINT, count(DISTINCT v) FROM cells WHERE {_is_known(missing)}"
        )
        if unfit:
            query = f"SELECT min(v) FROM cells WHERE {_is_known(missing)} AND NOT {_fits(form or kind)}"
            example = _one(database, query)[0]
        elif kind in ("string", "bigint") and known and not form:
            days = _day_form(database, missing)
            kind = "string" if days[0] else kind
    tokens = []
    if looks.tokens or len(missing) > len(STRONG) + 1:
        tokens = database.execute(
            f"SELECT cell FROM part WHERE name = {literal(name)} AND cell IS NOT NULL AND NOT ({_is_known(missing)}) "
            "ORDER BY 1"
        ).fetchall()
    return Column(
        name,
        kind,
        form,
        padded=looks.padded and file.quotes and kind == "string" and not form,
        rows=looks.rows,
        known=int(known),
        distinct=int(distinct),
        tokens=tuple(sorted({token if file.quotes else token.strip() for (token,) in tokens})),
        unfit=unfit,
        example=example,
        day_form=days[0],
        other_day_form=days[1],
        parsed_by=days[2],
        marks=marks,
        clean=not tokens and not looks.padded,
        by_value=kind == "string" and not form and not days[0],
    )


def typed(column: Column) -> str:
    """DuckDB's expression for the column's values, as prepare.sql has them, over the cells as text."""
    plain = column.clean and not (column.marks or column.form or column.day_form)
    cell = quoted(column.name) if plain else f"trim({without(quoted(column.name), column.marks)})"
    missing = ", ".join(literal(token) for token in ("", *sorted({token.strip() for token in column.tokens} - {""})))
    if column.form == "decimal comma":
        cell = f"replace(replace({cell}, '.', ''), ',', '.')"
    elif column.form == "thousands":
        cell = f"replace({cell}, ',', '')"
    if column.day_form:
        cell = f"try_strptime({cell}, {literal(column.parsed_by)})"
    kind = (
        "TIMESTAMP"
        if column.day_form
        else "DOUBLE"
        if column.form
        else {"string": "VARCHAR", "timestamp": "TIMESTAMP"}.get(column.kind, column.kind)
    )
    value = cell if kind == "VARCHAR" else f"TRY_CAST({cell} AS {kind})"
    if plain:
        return value
    return f"CASE WHEN trim({quoted(column.name)}) NOT IN ({missing}) THEN {value} END"


def find_key(
    database: duckdb.DuckDBPyConnection, table: str, columns: Sequence[Column], label: str, sample: Mapping[str, Floats]
) -> tuple[str, ...]:
    """The smallest set of up to three columns whose values are never NULL and never repeated; () if there is none.

    Of sets of one size those come first that look like an identity: an id by its name, dates, text, then numbers.
    """

    def rank(column: Column) -> int:
        if ID_NAME.search(column.name):
            return 0
        if column.day_form:
            return 1
        # A whole number of few values is a year or a number within a group; of many, a measured amount.
        amount = column.kind == "bigint" and column.distinct > max(SMALL, math.sqrt(column.rows)) and not counts(column)
        return AMOUNT if amount else {"date": 1, "timestamp": 1, "string": 2}.get(column.kind, 3)

    def counts(column: Column) -> bool:
        """Whether whole numbers that never repeat count the rows, with hardly a gap."""
        values = sample[column.name]
        return column.distinct == column.rows and float(np.nanmax(values) - np.nanmin(values)) < 1.05 * len(values)

    rows = columns[0].rows
    usable = [
        c
        for c in columns
        if c.kind in ("bigint", "string", "date", "timestamp")
        and not (c.form or c.nulls or c.unfit or c.name in {label, *PREDICTION_COLUMNS} or c.distinct < 2)
    ]
    usable = sorted(usable, key=lambda c: (rank(c), -c.distinct))[:15]
    codes = {c.name: np.unique(sample[c.name], return_inverse=True)[1].astype(np.int64) for c in usable}
    amounts = {c.name for c in usable if rank(c) == AMOUNT}
    tried = [s for size in (1, 2, 3) for s in itertools.combinations(usable, size)]
    # What is measured tells rows apart by chance: it is a key only if nothing else is, and then not with others.
    for some in (False, True):
        sets = [
            s
            for s in tried
            if math.prod(c.distinct for c in s) >= rows
            and (len(s) == 1 and s[0].name in amounts if some else not any(c.name in amounts for c in s))
        ]
        for parts in sorted(sets, key=lambda s: (len(s), sum(map(rank, s)))):
            names = [part.name for part in parts]
            alone = parts[0] if len(parts) == 1 and parts[0].by_value else None
            if _repeats([codes[name] for name in names]):
                continue
            if alone.distinct == rows if alone else is_unique(database, table, names):
                return tuple(names)
    return ()


def is_unique(database: duckdb.DuckDBPyConnection, table: str, names: Sequence[str]) -> bool:
    """Whether no two rows have the same values, and none a NULL, in these columns of a table."""
    listed = ", ".join(quoted(name) for name in names)
    known = " AND ".join(f"{quoted(name)} IS NOT NULL" for name in names)
    query = f"SELECT (SELECT count(*) FROM (SELECT DISTINCT {listed} FROM {quoted(table)} WHERE {known})), count(*) "
    different, rows = _one(database, f"{query} FROM {quoted(table)}")
    return bool(different == rows)


def sample_of(
    database: duckdb.DuckDBPyConnection,
    table: str,
    columns: Sequence[str],
    *,
    order: str | None = None,
    row: str = "rowid",
) -> dict[str, Floats]:
    """Up to SAMPLE rows, always the same ones, each column as numbers: text by rank of its values, NULL as NaN.

    `row`: the column by which the table tells its rows apart.
    """
    kinds = dict(database.execute(f"SELECT column_name, column_type FROM (DESCRIBE {quoted(table)})").fetchall())
    database.execute(
        f"CREATE OR REPLACE TEMP TABLE sampled AS SELECT {quoted(row)} AS row_of FROM {quoted(table)} "
        f"ORDER BY {order or f'hash({quoted(row)})'} LIMIT {SAMPLE}"
    )
    found: dict[str, Floats] = {}
    for part in in_parts(columns):
        values = ", ".join(_as_number(quoted(name), kinds[name]) for name in part)
        rows = database.execute(
            f"SELECT {values} FROM {quoted(table)} t JOIN sampled ON t.{quoted(row)} = sampled.row_of "
            "ORDER BY sampled.rowid"
        ).fetchnumpy()
        for name in part:
            found[name] = (
                _ranks(rows[name].tolist()) if kinds[name] == "VARCHAR" else np.asarray(rows[name], dtype=np.float64)
            )
    return found


def _as_number(column: str, kind: str) -> str:
    if kind == "VARCHAR":
        return column
    value = f"epoch({column})" if kind.startswith(("DATE", "TIMESTAMP")) else column
    return f"coalesce(CAST({value} AS DOUBLE), CAST('NaN' AS DOUBLE)) AS {column}"


def _ranks(texts: Sequence[str | None]) -> Floats:
    """The place of each text among all, in their order; NaN for NULL."""
    known = np.array([text is not None for text in texts], dtype=bool)
    ranks = np.full(len(known), np.nan)
    ranks[known] = np.unique(np.array([text for text in texts if text is not None], dtype=str), return_inverse=True)[1]
    return ranks


def target_of(database: duckdb.DuckDBPyConnection, table: str, column: Column) -> Target | str:
    """The task that a label of this kind asks for, or why it cannot be learned."""
    name = quoted(column.name)
    if column.known == 0:
        return "has no value in any row"
    if column.distinct == 1 and column.nulls:
        return (
            f"has the same value in every row that has one, and {column.nulls:,} have none: if a missing value means "
            "the other one, write that into the file; as it is there is nothing to learn"
        )
    if column.distinct == 1:
        return "has the same value in every row: there is nothing to learn"
    counts = {
        str(value): int(n)
        for value, n in database.execute(
            f"SELECT CAST({name} AS VARCHAR), count(*) FROM {quoted(table)} WHERE {name} IS NOT NULL "
            f"GROUP BY 1, {name} ORDER BY {name} LIMIT {MAX_CLASSES + 1}"
        ).fetchall()
    }
    if len(counts) == 2:
        rarer = min(counts, key=lambda value: counts[value])
        words = {value: value.strip().lower().removesuffix(".0") for value in counts}
        for told in (
            [value for value, word in words.items() if word in POSITIVE_WORDS],
            [value for value, word in words.items() if word not in NEGATIVE_WORDS],
        ):
            if len(told) == 1:
                return Target("binary", positive=told[0], counts=counts)
        return Target("binary", positive=rarer, counts=counts)
    if column.kind in ("date", "timestamp"):
        return f"is a {column.kind}: predict a number, a class or yes/no instead"
    whole = column.kind == "bigint" and column.distinct <= CLASSES and column.known >= 5 * column.distinct
    if column.kind == "string" and not column.form:
        if column.distinct > MAX_CLASSES or column.distinct > column.known / 2:
            return (
                f"has {column.distinct:,} different texts in {column.known:,} rows: as classes that is too many "
                f"(at most {MAX_CLASSES}, with two rows each or more)"
            )
        return Target("multiclass", classes=tuple(counts), counts=counts)
    if whole:
        return Target("multiclass", classes=tuple(counts), counts=counts)
    mean, deviation = _one(database, f"SELECT avg({name}), stddev_pop({name}) FROM {quoted(table)}")
    return Target("regression", mean=float(mean), deviation=float(deviation))


def leak(values: Floats, label: Floats, task: Task, *, number: bool) -> str:
    """How a single column tells the label almost by itself; '' if it does not. Rows without a label are NaN there.

    What a column's values say is learned from every other row and measured on the rest, so that a column with many
    values is not taken for a leak.
    """
    known = ~np.isnan(label)
    values, label = values[known], label[known]
    if len(label) < 10 or np.all(label == label[0]):
        return ""
    if task == "regression":
        return _leak_of_number(values, label, number)
    groups = _groups(values)
    learn = np.arange(len(label)) % 2 == 0
    if task == "binary":
        auc = _auc_of_groups(groups, label, learn)
        if number:
            ranked = _auc(np.where(np.isnan(values), -np.inf, values), label)
            auc = max(auc, ranked, 1 - ranked)
        return f"AUC {auc:.3f}" if auc > LEAK_AUC else ""
    _, classes = np.unique(label, return_inverse=True)
    table = np.zeros((groups.max() + 1, classes.max() + 1))
    np.add.at(table, (groups[learn], classes[learn]), 1)
    usual = np.bincount(classes[learn]).argmax()
    told = np.where(table.sum(axis=1)[groups] > 0, table.argmax(axis=1)[groups], usual)
    right = float(np.mean(told[~learn] == classes[~learn]))
    if number:
        right = max(right, _nearest(values, classes, learn))
    base = float(np.mean(classes[~learn] == usual))
    return f"right for {right:.1%} of rows" if right >= LEAK_PURITY and 1 - right < 0.05 * (1 - base) else ""


def percent(share: float) -> str:
    """With one decimal; what would look like none at all with two digits."""
    return f"{share * 100:.2g}%" if 0 < share < 0.001 else f"{share:.1%}"


def twins(columns: Sequence[Column], sample: Mapping[str, Floats]) -> dict[str, str]:
    """Columns that say the same as another one, to that one: value for value, or as a straight line.

    Of a thousand columns there are half a million pairs: those whose missing values are in the same rows are told apart
    all at once, by what each is like.
    """
    found: dict[str, str] = {}
    if len(columns) < 2:
        return found
    masks = np.array([np.isnan(sample[column.name]) for column in columns], dtype=bool)
    lacking, packed = masks.sum(axis=1), np.packbits(masks, axis=1)
    groups: dict[bytes, list[int]] = {}  # by the rows in which they are missing
    for at in range(len(columns)):
        groups.setdefault(packed[at].tobytes(), []).append(at)
    group_of = np.empty(len(columns), dtype=np.int64)
    for number, members in enumerate(groups.values()):
        group_of[members] = number
    alike: dict[int, list[int]] = {}
    for a, b in _alike_pairs(columns, sample, groups.values()):
        alike.setdefault(a, []).append(b)
    for at, one in enumerate(columns):
        if one.name in found:
            continue
        later = np.arange(at + 1, len(columns))
        close = later[np.abs(lacking[later] - lacking[at]) <= 0.05 * max(masks.shape[1], 1)]
        within = ~(packed[at] & ~packed[close]).any(axis=1) | ~(packed[close] & ~packed[at]).any(axis=1)
        possible = within & ((group_of[close] != group_of[at]) | np.isin(close, alike.get(at, [])))
        for other_at in close[possible]:
            other = columns[int(other_at)]
            if one.name in found:
                break
            if other.name in found:
                continue
            both = ~(masks[at] | masks[other_at])
            a, b = sample[one.name][both], sample[other.name][both]
            if both.sum() < max(10, masks.shape[1] / 2) or not _same(a, b, one.is_number and other.is_number):
                continue
            if lacking[at] != lacking[other_at]:
                gone, kept = (one, other) if lacking[at] > lacking[other_at] else (other, one)
            else:  # a number has an order, which text has not
                gone, kept = (one, other) if other.is_number and not one.is_number else (other, one)
            found[gone.name] = kept.name
    return found


def _alike_pairs(
    columns: Sequence[Column], sample: Mapping[str, Floats], groups: Iterable[Sequence[int]]
) -> set[tuple[int, int]]:
    """The pairs of columns of a group, missing in the same rows, that may be twins: one's values stand for the other's,
    or both are numbers on nearly a straight line. `_same` has the last word.
    """
    pairs: set[tuple[int, int]] = set()
    for members in groups:
        by_form: dict[bytes, list[int]] = {}
        lines, measured = [], []
        for at in members:
            values = sample[columns[at].name]
            known = values[~np.isnan(values)]
            different, first, codes = np.unique(known, return_index=True, return_inverse=True)
            if len(different) <= len(known) / 2:
                # Each value called by its first row, two columns of which one's values stand for the other's are equal.
                by_form.setdefault(first[codes].tobytes(), []).append(at)
            elif columns[at].is_number and known.std() > 0:
                lines.append(((known - known.mean()) / known.std()).astype(np.float32))
                measured.append(at)
        for same in by_form.values():
            pairs.update(itertools.combinations(same, 2))
        if len(measured) > 1:
            together = np.array(lines)
            nearly = np.argwhere(np.triu(np.abs(together @ together.T) / together.shape[1] > 0.999, k=1))
            pairs.update((measured[a], measured[b]) for a, b in nearly.tolist())
    return pairs


def _same(a: Floats, b: Floats, numbers: bool) -> bool:
    values = len(np.unique(a))
    if values < 2 or values != len(np.unique(b)):
        return False
    if values <= len(a) / 2:
        return len(np.unique(a + 1j * b)) == values
    return numbers and abs(_pearson(a, b)) > 0.99999


def in_parts(those: Sequence[T], size: int = WIDE) -> Iterator[Sequence[T]]:
    """The same, so many at a time."""
    for start in range(0, len(those), size):
        yield those[start : start + size]


def _listed(names: Iterable[str]) -> str:
    return ", ".join(map(quoted, names))


def _kind(
    database: duckdb.DuckDBPyConnection, missing: Sequence[str], delimiter: str
) -> tuple[ColumnType, Literal["", "decimal comma", "thousands"], int, list[str]]:
    """Type, form, how many cells are not of it, and words that stand for a missing value in this column."""
    names = list(PATTERNS)  # of those that fit as many cells the first one is taken
    if delimiter != ";":  # where a comma may stand between thousands, 1,234 has no decimals
        names.remove("decimal comma")
        names.append("decimal comma")
    tests = ", ".join(
        f"coalesce(sum(n) FILTER (regexp_full_match(v, {literal(PATTERNS[name])})), 0)::BIGINT" for name in names
    )
    dates = "coalesce(sum(n) FILTER (TRY_CAST(v AS TIMESTAMP) IS NOT NULL), 0)::BIGINT"
    codes = f"coalesce(sum(n) FILTER (regexp_full_match(v, {literal(CODES)})), 0)::BIGINT"
    grouped = ", ".join(
        f"coalesce(bool_and(regexp_full_match(v, {literal(GROUPED.format(sign=sign))})) "
        f"AND bool_or(NOT contains(v, '{sign}')) "
        f"AND count(DISTINCT v) FILTER (contains(v, '{sign}')) >= {MIN_GROUPED}, false)"
        for sign in ".,"
    )
    found = _one(
        database,
        f"SELECT coalesce(sum(n), 0)::BIGINT, {codes}, {dates}, {grouped}, {tests} "
        f"FROM cells WHERE {_is_known(missing)}",
    )
    total, coded, dated, by_dots, by_commas = found[:5]
    counts = dict(zip(names, found[5:], strict=True))
    counts["date"], counts["timestamp"] = min(counts["date"], dated), min(counts["timestamp"], dated)
    if total == 0 or coded:
        return "string", "", 0, []
    best = max(names, key=lambda name: (counts[name], -names.index(name)))
    if best == "double" and counts["bigint"] == counts["double"]:
        best = "bigint"
    if best == "double" and by_dots and delimiter != ",":
        best = "decimal comma"
    if best == "decimal comma" and by_commas:
        best = "thousands"
    extra: list[str] = []
    unfit = int(total - counts[best])
    if unfit:
        strange = database.execute(
            f"SELECT v, sum(n)::BIGINT FROM cells WHERE {_is_known(missing)} "
            f"AND NOT {_fits(best)} GROUP BY v ORDER BY 2 DESC, 1 LIMIT 100"
        ).fetchall()
        words = [word for word, _ in strange]
        # A day that is in no calendar, such as 0000-00-00, stands for none.
        impossible = re.compile(PATTERNS[best] if best in ("date", "timestamp") else r"(?!)")
        weak = {word: count for word, count in strange if word in WEAK or impossible.fullmatch(word)}
        values = _one(database, f"SELECT count(DISTINCT v) FROM cells WHERE {_is_known(missing)}")[0] - len(words)
        lone_word = len(words) == 1 and counts[best] >= total / 2 and values >= 4 and not re.search(r"\d", words[0])
        if counts[best] and counts[best] >= TYPED_SHARE * (total - sum(weak.values())):
            extra, unfit = list(weak), unfit - sum(weak.values())
        elif lone_word:
            extra, unfit = words, 0
        elif counts[best] < TYPED_SHARE * total:
            return "string", "", 0, []
    if best in ("decimal comma", "thousands"):
        return "string", best, unfit, extra  # type: ignore[return-value]  # just compared
    return best, "", unfit, extra  # type: ignore[return-value]  # a name of PATTERNS that is a type


def without(cell: str, marks: Sequence[str]) -> str:
    """DuckDB's and Spark's expression for a cell without its marks."""
    for mark in marks:
        cell = f"replace({cell}, {literal(mark)}, '')"
    return cell


def _marks(database: duckdb.DuckDBPyConnection, missing: Sequence[str]) -> tuple[str, ...]:
    """What nearly all cells have at their numbers; () if they are no such numbers, or numbers without."""
    known = f"FROM cells WHERE {_is_known(missing)}"
    (total,) = _one(database, f"SELECT coalesce(sum(n), 0)::BIGINT {known}")
    spaced, plain = _one(
        database,
        f"SELECT coalesce(sum(n) FILTER (regexp_full_match(v, {literal(SPACED)})), 0)::BIGINT, coalesce(sum(n) FILTER "
        rf"(regexp_full_match(v, '[+-]?\d{{1,3}}([.,]\d+)?')), 0)::BIGINT {known}",
    )
    if spaced and spaced + plain >= TYPED_SHARE * total:
        found = database.execute(
            f"SELECT DISTINCT regexp_extract(v, '\\d([^\\d.,])\\d', 1) AS m {known} ORDER BY 1"
        ).fetchall()
        return tuple(mark for (mark,) in found if mark)
    pairs = database.execute(
        f"SELECT trim(replace(regexp_extract(v, {literal(MARKED)}, 1), '-', '')), trim(regexp_extract(v, "
        f"{literal(MARKED)}, 3)), "
        f"sum(n)::BIGINT {known} AND regexp_full_match(v, {literal(MARKED)}) GROUP BY ALL"
    ).fetchall()
    marked = sum(n for before, behind, n in pairs if before or behind)
    marks = {mark for before, behind, _ in pairs for mark in (before, behind) if mark}
    # Two units, or a unit at some numbers only, would be numbers of different measure.
    if not marks or len(marks) > 1 or marked < TYPED_SHARE * total:
        return ()
    return tuple(marks)


def _day_form(database: duckdb.DuckDBPyConnection, missing: Sequence[str]) -> tuple[str, str, str]:
    """The pattern by which all cells are days, with or without a time: Spark's, another one that would do, DuckDB's.

    '' if there is none. Day and month first are told apart by a number above 12; without one both will do.
    """
    (some, distinct) = _one(database, f"SELECT min(v), count(DISTINCT v) FROM cells WHERE {_is_known(missing)}")
    found = []
    for (days, day, their_day), (times, time, their_time) in itertools.product(DAYS, TIMES):
        if not re.fullmatch(days + times, some) or (day == "yyyyMMdd" and distinct < MIN_GROUPED):
            continue
        own = their_day + their_time
        (fits,) = _one(
            database,
            f"SELECT bool_and(regexp_full_match(v, {literal(days + times)}) AND try_strptime(v, {literal(own)}) "
            "IS NOT NULL) "
            f"FROM cells WHERE {_is_known(missing)}",
        )
        if fits:
            found.append((day + time, own))
    if not found:
        return "", "", ""
    return found[0][0], found[1][0] if len(found) > 1 else "", found[0][1]


def _fits(kind: str) -> str:
    """Whether the cell `v` is of a kind; a day that no calendar has is no date."""
    matches = f"regexp_full_match(v, {literal(PATTERNS[kind])})"
    return f"({matches} AND TRY_CAST(v AS TIMESTAMP) IS NOT NULL)" if kind in ("date", "timestamp") else matches


def _one(database: duckdb.DuckDBPyConnection, query: str) -> tuple[Any, ...]:
    (row,) = database.execute(query).fetchall()
    return tuple(row)


def _repeats(columns: Sequence[npt.NDArray[np.int64]]) -> bool:
    """Whether two rows of the sample have the same values, given as codes below SAMPLE (three fit into 64 bits)."""
    together = columns[0]
    for codes in columns[1:]:
        together = together * SAMPLE + codes
    together = np.sort(together)
    return bool(np.any(together[1:] == together[:-1]))


def _groups(values: Floats, bins: int = 100) -> npt.NDArray[np.intp]:
    """Rows with the same value, or with values of the same quantile where there are more than `bins` numbers.

    Missing values are a group of their own.
    """
    known = ~np.isnan(values)
    different, inverse = np.unique(values[known], return_inverse=True)
    if len(different) > bins and len(different) > known.sum() / 5:
        edges = np.quantile(values[known], np.linspace(0, 1, bins + 1)[1:-1])
        inverse = np.searchsorted(edges, values[known])
    groups = np.zeros(len(values), dtype=np.intp)
    groups[known] = inverse + 1
    return groups


def _auc(score: Floats, label: Floats) -> float:
    """The share of pairs of a positive and a negative row that the score puts in this order; equal ones count half."""
    _, inverse = np.unique(score, return_inverse=True)
    positives = np.bincount(inverse, weights=label)
    negatives = np.bincount(inverse, weights=1 - label)
    pairs = positives.sum() * negatives.sum()
    if pairs == 0:
        return 0.5
    return float((positives * (np.cumsum(negatives) - negatives / 2)).sum() / pairs)


def _auc_of_groups(groups: npt.NDArray[np.intp], label: Floats, learn: npt.NDArray[np.bool_]) -> float:
    size = int(groups.max()) + 1
    rows = np.bincount(groups[learn], minlength=size)
    positives = np.bincount(groups[learn], weights=label[learn], minlength=size)
    rate = (positives + label[learn].mean()) / (rows + 1)
    return _auc(rate[groups[~learn]], label[~learn])


def _nearest(values: Floats, classes: npt.NDArray[np.intp], learn: npt.NDArray[np.bool_]) -> float:
    """The share of rows whose class is that of the learning row with the nearest value."""
    values = np.where(np.isnan(values), np.finfo(np.float64).min, values)
    order = np.argsort(values[learn], kind="stable")
    known, their = values[learn][order], classes[learn][order]
    right = np.clip(np.searchsorted(known, values[~learn]), 0, len(known) - 1)
    left = np.clip(right - 1, 0, None)
    nearest = np.where(values[~learn] - known[left] <= known[right] - values[~learn], left, right)
    return float(np.mean(their[nearest] == classes[~learn]))


def _leak_of_number(values: Floats, label: Floats, number: bool) -> str:
    known = ~np.isnan(values)
    if number and known.sum() >= max(10, len(values) / 2):
        x, y = values[known], label[known]
        ranks = [np.unique(part, return_inverse=True)[1].astype(np.float64) for part in (x, y)]
        r = max(abs(_pearson(x, y)), abs(_pearson(*ranks)), key=float)
        if r > LEAK_CORRELATION:
            return f"|r| {r:.4f}"
    groups = _groups(values)
    learn = np.arange(len(label)) % 2 == 0
    size = int(groups.max()) + 1
    rows = np.bincount(groups[learn], minlength=size)
    total = np.bincount(groups[learn], weights=label[learn], minlength=size)
    told = np.where(rows > 0, total / np.maximum(rows, 1), label[learn].mean())[groups[~learn]]
    r = _pearson(told, label[~learn])
    return f"r {r:.4f}" if r > LEAK_CORRELATION else ""


def _pearson(x: Floats, y: Floats) -> float:
    if len(x) < 3 or x.std() == 0 or y.std() == 0:
        return 0.0
    return float(np.corrcoef(x, y)[0, 1])
