"""A first dataset.toml and prepare.sql for files: what is guessed of them, and the two texts that say so."""

# ruff: noqa: S608  # every name and value that goes into a query passes quoted() or literal()

import datetime as dt
import difflib
import hashlib
import itertools
import json
import math
import re
import shlex
import tempfile
import textwrap
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

import duckdb
import numpy as np

from dml.dataset import guesses
from dml.dataset.csv_file import HASH_KEYS, CsvFile, load_text, looks_like_data, shares_told, unique
from dml.dataset.guesses import Column, Target
from dml.dataset.tables import difference
from dml.errors import UserError
from dml.models.cells import literal, quoted, take_headers, told_of_headers
from dml.terminal.words import counted, listed
from jobs.tables.settings import PREDICTION_COLUMNS

MIN_ROWS = 10
FEWEST_TO_TUNE = 200  # rows with a label, of which a fifth chooses depth and leaf size
MEMORY = "2GB"  # of DuckDB; what is beyond goes to disk
ROWS_AN_ENTITY = 1.5  # on average, from which on rows are taken to be of fewer things than there are rows
# What people call that which several rows are of.
ENTITY = re.compile(
    r"(^|_)(id|account|card|client|customer|device|driver|employee|household|individual|machine|member|patient|person|"
    r"player|plate|sensor|site|store|student|subject|user|vehicle)(_?(id|no|nr|number|key|code|name))?$"
)
CARRIED = 5  # columns that predictions have beside a hash, at most
ROWS_A_VALUE = 5  # a category with fewer rows a value on average is text, not a category
SLICE_VALUES = 10
NEARLY = 0.99  # of the rows that a column tells apart, for it to be meant as the key
ENCODINGS = {"utf-8": "UTF-8", "latin-1": "Latin-1", "windows-1252": "Windows-1252"}
TOTAL = re.compile(r"(?i)((grand |sub-?)?totals?|sum|summe|gesamt|suma)\s*:?")
LABEL, ROW = "the label", "the row"  # the label as a number, and main's row, in `joined`; no column can be called so
# Words that Spark's grammar (SqlBaseParser.g4) does not take for a column's name everywhere.
KEYWORDS = set(
    re.findall(
        r"\w+",
        """all and anti any as between both by case cast check collate column constraint create cross current_date
        current_time current_timestamp current_user distinct else end escape except exists false fetch filter for
        foreign from full grant group having in inner intersect interval into is join lateral leading left like minus
        natural not null offset on only or order outer overlaps primary references right rlike select semi session_user
        set setminus some table then time to trailing true union unique unknown user using values when where window
        with within""",
    )
)
Use = Literal["key", "label", "number", "category", "left out"]


@dataclass(frozen=True)
class Join:
    """A table that is joined on columns of the same name, its key; `found` is the share of main rows that match."""

    table: str
    keys: tuple[str, ...]
    found: float


@dataclass(frozen=True)
class Field:
    """A column's name in the features table, where it comes from, and what is made of it."""

    name: str
    table: str
    column: Column
    use: Use
    why: str = ""
    is_key: bool = False


@dataclass(frozen=True)
class Draft:
    """All that was guessed of the files of a dataset."""

    name: str
    files: dict[str, CsvFile]
    rows: dict[str, int]
    main: str
    keys: tuple[str, ...]  # () stands for a hash of the row
    repeated: int  # rows that are exact copies of another one
    label: Field
    target: Target
    fields: tuple[Field, ...]
    joins: tuple[Join, ...]
    columns: dict[str, list[Column]]
    time: tuple[str, dt.date, float] | None = None  # column, cut, share of rows before it
    dated: str = ""  # a date that features are made of, since there is nothing else to learn from
    hints: tuple[str, ...] = ()  # joins that prepare.sql only suggests
    notes: tuple[str, ...] = field(default=())  # what a human should look at
    folder: Path = Path()  # that all files lie below

    @property
    def carried(self) -> list[str]:
        """Where the key is a hash: the columns by which people know a row, what is no feature first."""
        fit = [
            each
            for each in self.fields
            if each.table == self.main
            and each.use in ("left out", "number", "category")
            and each.column.distinct > 1
            and not each.why.startswith("LEAK")
            and each.name not in PREDICTION_COLUMNS
        ]
        names = [each.name for each in sorted(fit, key=lambda each: each.use != "left out")]
        return [] if self.keys else names[:CARRIED]

    @property
    def entity(self) -> Field | None:
        """Whom or what several rows are of, by its name: rows of one patient tell each other's answers."""
        for each in self.fields:
            column, could = each.column, each.name in self.keys or "identifier" in each.why
            several = not column.nulls and 2 <= column.distinct <= column.known / ROWS_AN_ENTITY
            if each.table == self.main and could and several and ENTITY.search(each.name):
                return each
        return None

    @property
    def known(self) -> int:
        return self.label.column.known

    def said(self, each: Field) -> str:
        """What people call a column of the result."""
        plain, name = each.column.name, self.files[each.table].said[each.column.name]
        return name if each.name == plain else each.name

    def of(self, use: Use) -> list[Field]:
        return [each for each in self.fields if each.use == use]


def draft(name: str, files: Sequence[CsvFile], label: str, on_progress: Callable[[str], None]) -> Draft:
    """Reads the files and guesses. Raises UserError for files or a label that no dataset can be made of."""
    with (
        tempfile.TemporaryDirectory() as spill,
        duckdb.connect(config={"memory_limit": MEMORY, "temp_directory": spill}) as database,
    ):
        return _draft(database, name, files, label, on_progress)


def _draft(
    database: duckdb.DuckDBPyConnection,
    name: str,
    files: Sequence[CsvFile],
    label: str,
    on_progress: Callable[[str], None],
) -> Draft:
    tables = {file.table: file for file in files}
    main, label_name = _label_column(files, label)
    rows, columns, notes = {}, {}, []
    for table, file in tables.items():
        with shares_told(database, f"reading {file.called}", on_progress):
            broken, told = _load(database, file, f"{table} text")
        notes += told
        rows[table] = int(database.execute(f"SELECT count(*) FROM {quoted(f'{table} text')}").fetchall()[0][0])
        columns[table] = guesses.columns_of(database, f"{table} text", file=file, on_progress=on_progress)
        values = ", ".join(f"{guesses.typed(column)} AS {quoted(column.name)}" for column in columns[table])
        on_progress(f"reading the values of {file.called} by their types")
        database.execute(f"CREATE TABLE {quoted(table)} AS SELECT {values} FROM {quoted(f'{table} text')}")
        database.execute(f"DROP TABLE {quoted(f'{table} text')}")
        notes += _notes_of(file, rows[table], broken, columns[table]) + _copies(file)
    notes += [
        f"{file.called} is taken for another table than {tables[main].called}, although they are nearly alike: "
        f"{unlike}. If it is more rows of the same, give it the same header; to predict is for `dml predict FILE`."
        for file in files
        if file.table != main and (unlike := difference(tables[main], file))
    ]
    _check_size(tables[main], rows[main])
    label_column = next(column for column in columns[main] if column.name == label_name)
    target = guesses.target_of(database, main, label_column)
    if isinstance(target, str):
        raise UserError(f"{tables[main].called}: label {tables[main].said[label_name]} {target}.")

    on_progress("looking for keys and joins")
    sample = guesses.sample_of(database, main, [column.name for column in columns[main]])
    keys = guesses.find_key(database, main, columns[main], label_name, sample)
    repeated = 0 if keys else _repeated(database, main)
    joins, hints = _joins(database, main, columns, label_name)
    fields = _join(database, main, columns, joins, label_column, target)
    on_progress("comparing columns with the label and with each other")
    fields = _used(database, fields, keys, rows[main], target)
    found = Draft(
        name=name,
        files=tables,
        rows=rows,
        main=main,
        keys=keys,
        repeated=repeated,
        label=next(each for each in fields if each.use == "label"),
        target=target,
        fields=tuple(fields),
        joins=tuple(joins),
        columns=columns,
        time=_time(database, main, columns[main]),
        hints=tuple(hints),
        notes=tuple(notes),
    )
    if not found.of("number") and not found.of("category"):
        dates = [each for each in fields if _is_date(each.column) and not each.column.nulls and each.table == main]
        found = replace(found, dated=dates[0].name if dates else "")
    if not found.of("number") and not found.of("category") and not found.dated:
        reasons = "; ".join(f"{each.name}: {each.why}" for each in fields if each.use in ("left out", "key"))
        raise UserError(f"No column is left to learn {label_name} from ({reasons}). Give files with more columns.")
    return replace(found, notes=(*found.notes, *_notes_of_label(found)))


def _load(database: duckdb.DuckDBPyConnection, file: CsvFile, into: str) -> tuple[dict[str, int], list[str]]:
    """The cells of a table's files as text in `into`; how many lines are broken in which file, and what a human should
    look at.
    """
    of_csv = file.dialect.format == "csv" and file.dialect.header
    broken: dict[str, int] = {}
    notes: list[str] = []
    for number, (path, told) in enumerate((file.parts or {file.path: ()}).items()):
        part = into if not number else "part text"
        names = list(file.own.values())
        if lines := load_text(database, path, file.dialect, list(file.own), part, headers=names):
            broken[path.relative_to(file.home).as_posix() if file.home else path.name] = lines
        if again := take_headers(database, part, file.own) if of_csv else 0:
            notes.append(
                f"{path.name}: {told_of_headers(again)}, as where files were joined; runs quarantine such lines."
            )
        notes += _total(database, part, path)
        values = ["NULL" if value is None else literal(value) for value in told]
        if number:
            database.execute(f"INSERT INTO {quoted(into)} SELECT {', '.join(['*', *values])} FROM {quoted(part)}")
            database.execute(f"DROP TABLE {quoted(part)}")
            continue
        for name, value in zip(file.partitions, values, strict=True):
            database.execute(f"ALTER TABLE {quoted(into)} ADD COLUMN {quoted(name)} VARCHAR DEFAULT {value}")
    return broken, notes


def _copies(file: CsvFile) -> list[str]:
    """Of a table's files that are the same, byte for byte: then each of their rows is there twice."""
    by_size: dict[int, list[Path]] = {}
    for path in file.parts:
        by_size.setdefault(path.stat().st_size, []).append(path)
    seen: dict[tuple[int, str], Path] = {}
    notes = []
    for size, paths in by_size.items():
        for path in paths if len(paths) > 1 else ():
            with path.open("rb") as opened:
                checksum = hashlib.file_digest(opened, "sha256").hexdigest()
            first = seen.setdefault((size, checksum), path)
            if first != path:
                notes.append(
                    f"{path} is a copy of {first}, byte for byte: is it meant to be there? Its rows count twice."
                )
    return notes


def _total(database: duckdb.DuckDBPyConnection, part: str, path: Path) -> list[str]:
    """Of a file whose last row says in its first cell with text that it sums up the others."""
    found = database.execute(f"SELECT * FROM {quoted(part)} ORDER BY rowid DESC LIMIT 1")
    names = [column[0] for column in found.description or ()]
    last = zip(names, found.fetchone() or (), strict=False)
    name, cell = next(((name, cell) for name, cell in last if cell and cell.strip()), ("", ""))
    if not TOTAL.fullmatch(cell.strip()):
        return []
    same = f"SELECT count(*) FROM {quoted(part)} WHERE {quoted(name)} = ?"
    if database.execute(same, [cell]).fetchall() != [(1,)]:
        return []
    return [
        f"{path.name}: its last row begins with {cell.strip()!r}. If it sums up the others, take it out of the file: "
        "to a run it is a row like others, and a column that it leaves empty, or has text in, is no key."
    ]


def training(rows: int, task: guesses.Task = "binary", classes: int = 2) -> tuple[int, int, int]:
    """Depth, min_leaf and smoothing for so many rows: a leaf for every 16 rows at most, and leaves that grow slower
    than the data. A start, not a tuned value.

    A leaf tells several classes apart, or an amount, by fewer rows than it tells a share: of 3,376 airports in 56
    states leaves of 3 rows were right for 91 %, leaves of 19 for 73 %; of 53,940 diamonds' prices leaves of 10 rows had
    an RMSE of 679, leaves of 77 one of 821.
    """
    depth, most = math.log2(rows) - 4, 12
    min_leaf, smoothing = math.sqrt(rows) / 3, math.sqrt(rows) / 2
    if task == "multiclass":
        depth, most = depth + math.log2(classes / 2), 20
        min_leaf, smoothing = min_leaf / math.sqrt(classes / 2), smoothing / math.sqrt(classes / 2)
    elif task == "regression":
        depth, most, min_leaf = depth + 4, 16, max(min_leaf / 8, 5)
    return min(max(round(depth), 2), most), max(2, round(min_leaf)), min(max(round(smoothing), 10), 100)


def _label_column(files: Sequence[CsvFile], label: str) -> tuple[str, str]:
    found = [(file, name) for file in files for name, header in file.headers.items() if label in (name, header.strip())]
    if len(found) > 1:
        (one, _), (other, _) = found[:2]
        both = " and ".join(file.called for file, _ in found)
        if unlike := difference(one, other, 0.5):
            folder = ", or a folder of their own (give that)" if one.dialect.format == "jsonl" else ""
            raise UserError(
                f"{both} have a column {label}, and are nearly alike: {unlike}. If they are one table, give them the "
                f"same header{folder}; else rename the column in the files where it is not the label."
            )
        raise UserError(f"{both} have a column {label}: rename it in the files whose column is not the label.")
    if found:
        return found[0][0].table, found[0][1]
    for file in files:
        cells = list(file.own.values())
        if file.dialect.header and looks_like_data(cells):
            shown = ", ".join(cell.strip() for cell in cells[:5])
            raise UserError(
                f"{file.called} has no column {label}, and its first line looks like data, not like a header "
                f"({shown}, …): name its {len(cells)} columns with --columns NAME,NAME,…"
            )
    names = {text: said for file in files for name, said in file.said.items() for text in (name, said)}
    headers = {header.strip(): header.strip() for file in files for header in file.headers.values()}
    lower = {text.lower(): said for text, said in [*names.items(), *headers.items()] if said.isprintable()}
    close = difflib.get_close_matches(label.lower(), lower, n=1)
    meant = f" Did you mean {lower[close[0]]}?" if close else ""
    has = "; ".join(f"{file.called} has {', '.join(file.said.values())}" for file in files)
    raise UserError(f"There is no column {label}: {has}.{meant}")


def _check_size(file: CsvFile, rows: int) -> None:
    if len(file.headers) < 2:
        raise UserError(
            f"{file.called} has one column only, {next(iter(file.headers.values()))!r}: a dataset needs a label and "
            "something to learn it from; is it CSV (comma, semicolon, tab or | between the fields)?"
        )
    if rows == 0:
        raise UserError(f"{file.called} has a header and no rows.")
    if rows < MIN_ROWS:
        raise UserError(f"{file.called} has {rows} rows: nothing can be learned from fewer than {MIN_ROWS}.")


def _notes_of(file: CsvFile, rows: int, broken: dict[str, int], columns: Sequence[Column]) -> list[str]:
    name, notes = file.called, []
    if file.dialect.encoding != "utf-8":
        such = f", such as {file.letters!r}" if file.letters else ""
        notes.append(
            f"{name} is not UTF-8; it is read as {ENCODINGS[file.dialect.encoding]}{such}. If letters are wrong there, "
            f"convert it (`iconv -f ENCODING -t UTF-8 {'FILE' if file.parts else shlex.quote(name)} > NEW.csv`)."
        )
    if file.dialect.skip:
        notes.append(
            f"{name}: the table begins in line {file.dialect.skip + 1}; what stands above it ({file.above[:60]!r}) is "
            f"no part of it (skip = {file.dialect.skip})."
        )
    if broken:
        lost = sum(broken.values())
        what = "lines with another number of fields than the header"
        notes.append(
            f"{name}: {what if file.dialect.format == 'csv' else 'lines that are no JSON object of single values'}: "
            f"{lost:,} of {rows + lost:,}{f' (in {listed(list(broken))})' if file.parts else ''}; runs quarantine them."
        )
    if file.nested:
        notes.append(
            f"{name}: no columns, since they hold lists, objects, bytes or nothing: {', '.join(file.nested)}. Write "
            "what is in them into columns of their own, if it matters."
        )
    for column in columns:
        said = file.said[column.name]
        if words := [token for token in column.tokens if token.strip() not in guesses.STRONG]:
            notes.append(
                f"{name}: {', '.join(map(repr, words))} in {said} counts as missing, because the rest are "
                f"{'numbers' if column.is_number else f'{column.kind}s'}; if it means something, take it out of nulls."
            )
        if column.unfit:
            kind = column.kind if not column.form else "number"
            notes.append(
                f"{name}: {said} is no {kind} in {counted(column.unfit, 'cell')}, such as {column.example!r}. "
                + (
                    "They become NULL."
                    if column.form
                    else "Runs quarantine their rows; add them to nulls to keep these."
                )
            )
    return notes


def _notes_of_label(found: Draft) -> list[str]:
    label, notes = found.label.column, []
    said = found.said(found.label)
    if label.nulls:
        notes.append(f"Rows without {said}: {label.nulls:,}; runs leave them out and count them.")
    if found.target.task == "multiclass" and (rare := [v for v, n in found.target.counts.items() if n < 10]):
        notes.append(f"Fewer than 10 rows each have {said} = {', '.join(rare)}: hardly enough to learn from.")
    if found.target.task == "binary" and (few := min(found.target.counts.values())) < 10:
        notes.append(f"Only {few} rows are of the rarer kind: hardly enough to learn from.")
    notes += _spellings(found)
    notes += _nearly_keys(found)
    if not found.keys:
        copies = f"{counted(found.repeated, 'row')} of these now" if found.repeated else "there is none now"
        notes.append(
            f"No column, nor two or three together, tells every row apart: the key is a hash of the row and, for exact "
            f"copies, their number ({copies}); copies may lie on both sides of the split."
            + (f" Predictions carry {', '.join(found.carried)} along, to tell rows by." if found.carried else "")
        )
    return notes


def _nearly_keys(found: Draft) -> list[str]:
    """Columns that tell all rows but a few apart: that is rather a mistake in the file than no key."""
    if found.keys:
        return []
    return [
        f"{column.name} tells {column.distinct:,} of {column.rows:,} rows apart: is it meant as the key? Then mend the "
        f"{counted(column.rows - column.distinct, 'row')} that repeat or lack it, and say keys = "
        f"{_strings([column.name])}."
        for column in found.columns[found.main]
        if column.kind in ("bigint", "string")
        and not column.form
        and column is not found.label.column
        and (column.kind == "string" or guesses.ID_NAME.search(column.name))
        and NEARLY * column.rows <= column.distinct < column.rows
    ]


def _spellings(found: Draft) -> list[str]:
    """Texts of the label that are one value in several spellings, with the lines that make them one."""
    label, target = found.label.column, found.target
    alike: dict[str, list[str]] = {}
    for text in target.counts if label.kind == "string" and not label.form else ():
        alike.setdefault(" ".join(text.casefold().split()), []).append(text)
    several = [texts for texts in alike.values() if len(texts) > 1]
    if not several:
        return []
    shown = "; ".join(" = ".join(map(repr, texts)) for texts in several[:5])
    name = sql(label.name)
    texts_told = counted(len(target.counts), "text")
    told = f"{label.name} has {texts_told}, but several differ in capitals or spaces only: {shown}. "
    words = {
        " ".join(text.casefold().split()): max(texts, key=lambda t: target.counts[t]) for text, texts in alike.items()
    }
    if len(alike) == 2:
        yes = next((word for word in alike if word in guesses.POSITIVE_WORDS), min(alike))
        (no,) = set(alike) - {yes}
        line = (
            f"CASE lower(trim({name})) WHEN {_spark_string(yes)} THEN 1 WHEN {_spark_string(no)} THEN 0 END AS {name}"
        )
        return [
            f'{told}If they are two values, write in prepare.sql `{line}`, and in dataset.toml task = "binary", '
            f"positive = {_string(f'{label.name} is {yes}')} in place of classes, and texts = "
            f"{_strings(list(target.counts))}."
        ]
    cases = " ".join(f"WHEN {_spark_string(word)} THEN {_spark_string(text)}" for word, text in words.items())
    return [
        f"{told}If they are {len(alike)} values, write in prepare.sql `CASE lower(trim({name})) {cases} END AS "
        f"{name}`, and "
        f"in dataset.toml classes = {_strings(list(words.values()))} and texts = {_strings(list(target.counts))}."
    ]


def _repeated(database: duckdb.DuckDBPyConnection, table: str) -> int:
    query = f"SELECT count(*) - (SELECT count(*) FROM (SELECT DISTINCT * FROM {quoted(table)})) FROM {quoted(table)}"
    return int(database.execute(query).fetchall()[0][0])


def _joins(
    database: duckdb.DuckDBPyConnection, main: str, columns: dict[str, list[Column]], label: str
) -> tuple[list[Join], list[str]]:
    """Tables whose key the main table has under the same names; for the others a hint in SQL."""
    have = {column.name: column for column in columns[main] if column.name != label}
    joins, hints = [], []
    for table, others in columns.items():
        if table == main:
            continue
        shared = [c for c in others if c.name in have and c.kind == have[c.name].kind and not c.form]
        # What main has under the same name must nearly always be there, or the two only happen to be called alike.
        sample = guesses.sample_of(database, table, [column.name for column in others])
        key = guesses.find_key(database, table, shared, label, sample) if shared else ()
        if key and (found := _found(database, main, table, key, key)) >= 0.5:
            joins.append(Join(table, key, found))
            continue
        hints += _hints(database, main, table, have, others)
    return joins, hints


def _found(
    database: duckdb.DuckDBPyConnection, main: str, table: str, main_keys: Sequence[str], keys: Sequence[str]
) -> float:
    """The share of main's rows, among those with the key, that have a row in the table."""
    condition = " AND ".join(
        f"o.{quoted(key)} = m.{quoted(main_key)}" for main_key, key in zip(main_keys, keys, strict=True)
    )
    known = " AND ".join(f"m.{quoted(key)} IS NOT NULL" for key in main_keys)
    query = (
        f"SELECT coalesce(avg((EXISTS (SELECT 1 FROM {quoted(table)} o WHERE {condition}))::INT), 0) "
        f"FROM (SELECT * FROM {quoted(main)} m WHERE {known} LIMIT {guesses.SAMPLE}) m"
    )
    return float(database.execute(query).fetchall()[0][0])


def _hints(
    database: duckdb.DuckDBPyConnection, main: str, table: str, have: dict[str, Column], others: Sequence[Column]
) -> list[str]:
    """Joins that a human has to decide on: keys of the table in which most values of a main column are found."""
    usable = [c for c in others if c.kind in ("string", "bigint") and not c.nulls and c.distinct == c.rows]
    hints = []
    for key, column in itertools.product(usable, have.values()):
        # Whole numbers are found in whole numbers by chance; an id is named as one.
        if column.kind != key.kind or (key.kind == "bigint" and not guesses.ID_NAME.search(column.name)):
            continue
        if (found := _found(database, main, table, [column.name], [key.name])) >= 0.5:
            condition = f"{sql(table)}.{sql(key.name)} = {sql(main)}.{sql(column.name)}"
            hints.append(f"-- LEFT JOIN {sql(table)} ON {condition}  -- {found:.0%} of {column.name} is found there")
    return hints or [
        f"-- LEFT JOIN {sql(table)} ON {sql(table)}.… = {sql(main)}.…  -- no key found: say what makes its rows unique"
    ]


def _join(
    database: duckdb.DuckDBPyConnection,
    main: str,
    columns: dict[str, list[Column]],
    joins: Sequence[Join],
    label: Column,
    target: Target,
) -> list[Field]:
    """Makes `joined` in DuckDB, as prepare.sql will; its columns by their names in the features table."""
    fields = [Field(column.name, main, column, "label" if column is label else "left out") for column in columns[main]]
    taken = {each.name for each in fields} | set(HASH_KEYS)
    for join in joins:
        for column in columns[join.table]:
            if column.name not in join.keys:
                name = column.name if column.name not in taken else unique(f"{join.table}_{column.name}", taken)
                taken.add(name)
                fields.append(Field(name, join.table, column, "left out"))
    values = [f"{quoted(f.table)}.{quoted(f.column.name)} AS {quoted(f.name)}" for f in fields]
    value = f"{quoted(main)}.{quoted(label.name)}"
    if target.task == "binary":
        value = f"(CAST({value} AS VARCHAR) = {literal(target.positive)})::INT"
    tables = quoted(main)
    for join in joins:
        condition = " AND ".join(
            f"{quoted(join.table)}.{quoted(key)} = {quoted(main)}.{quoted(key)}" for key in join.keys
        )
        tables += f" LEFT JOIN {quoted(join.table)} ON {condition}"
    row = f"{quoted(main)}.rowid AS {quoted(ROW)}"  # each is there once, since the other tables' keys are unique
    what = "TABLE" if joins else "VIEW"
    database.execute(
        f"CREATE {what} joined AS SELECT {', '.join(values)}, {value} AS {quoted(LABEL)}, {row} FROM {tables}"
    )
    known_already = [f for f in fields if f.table == main and f.column.by_value]
    measured = {f.name: f for f in known_already}
    # In a single query the time grows with the square of the columns' number.
    for part in guesses.in_parts([f for f in fields if f not in known_already]):
        counts = ", ".join(f"count({quoted(f.name)}), count(DISTINCT {quoted(f.name)})" for f in part)
        ((rows, *counted_of),) = database.execute(f"SELECT count(*), {counts} FROM joined").fetchall()
        for f, known, distinct in zip(part, counted_of[::2], counted_of[1::2], strict=True):
            measured[f.name] = replace(f, column=replace(f.column, rows=rows, known=known, distinct=distinct))
    return [measured[f.name] for f in fields]


def _used(
    database: duckdb.DuckDBPyConnection, fields: Sequence[Field], keys: Sequence[str], rows: int, target: Target
) -> list[Field]:
    """The fields with their use and the reason for it."""
    sample = guesses.sample_of(database, "joined", [*(each.name for each in fields), LABEL], row=ROW)
    target_name = next(each.name for each in fields if each.use == "label")
    used = []
    for each in fields:
        if each.use == "label":
            used.append(replace(each, why=_label_is(target)))
            continue
        # The names of main's columns are not changed by the join.
        is_key = each.name in keys
        use, why = _use(each, len(keys) == 1 and is_key, rows, sample[each.name])
        if use in ("number", "category") and (
            told := guesses.leak(sample[each.name], sample[LABEL], target.task, number=each.column.is_number)
        ):
            use, why = "left out", f"LEAK? tells the label by itself ({told}): is it known before the label is?"
        missing, unknown = np.isnan(sample[each.name]), np.isnan(sample[LABEL])
        if use in ("number", "category") and unknown.sum() >= MIN_ROWS and np.array_equal(missing, unknown):
            use, why = "left out", f"LEAK? missing just where {target_name} is: probably known only together with it"
        if is_key:
            why = "; ".join(filter(None, ["key", why])) if use != "key" else "tells every row apart"
        used.append(replace(each, use=use, why=why, is_key=is_key))
    learned = [each for each in used if each.use in ("number", "category")]
    same = guesses.twins([replace(each.column, name=each.name) for each in learned], sample)
    return [
        replace(each, use="left out", why=f"says the same as {same[each.name]}, row for row")
        if each.name in same
        else each
        for each in used
    ]


def _use(each: Field, only_key: bool, rows: int, values: guesses.Floats) -> tuple[Use, str]:
    """What a column can be, looking at it alone."""
    column = each.column
    if column.known == 0:
        return "left out", "no value in any row"
    if column.distinct == 1:
        return "left out", "the same value in every row" if not column.nulls else "the same value wherever there is one"
    if column.kind in ("date", "timestamp"):
        return ("key" if only_key else "left out"), f"a {column.kind}; a feature can be made of it in prepare.sql"
    use: Use = "number" if column.is_number else "category"
    whole = column.kind == "bigint"
    unique_values = column.distinct == column.known
    if unique_values and whole and (guesses.ID_NAME.search(column.name) or _is_sequence(values, column)):
        return ("key", "") if only_key else ("left out", "an identifier: another number in every row")
    if whole and guesses.ID_NAME.search(column.name) and column.name.endswith("id"):
        use = "category"  # its order means nothing
    if use == "category":
        if column.day_form:
            makes = f"a date written {column.day_form}: {_value(column, '')} in prepare.sql makes one of it"
            if column.other_day_form:
                makes += f"; day or month first cannot be told: '{column.other_day_form}' would do as well"
            return "left out", makes
        if unique_values:
            return ("key", "") if only_key else ("left out", "another text in every row")
        if column.distinct > max(10, column.known / ROWS_A_VALUE):
            return "left out", f"{column.distinct:,} values in {column.known:,} rows: free text or an identifier"
    return use, ""


def _is_date(column: Column) -> bool:
    return column.kind in ("date", "timestamp") or bool(column.day_form)


def _parts_of_day(found: Draft, name: str, text: str) -> dict[str, str]:
    """The features that a date makes, by name."""
    column = next(each.column for each in found.fields if each.name == name)
    made = {f"{name}_month": f"month({text})", f"{name}_weekday": f"weekday({text})"}
    if column.kind == "timestamp" or "H" in column.day_form:
        made[f"{name}_hour"] = f"hour({text})"
    return made


def _is_sequence(values: guesses.Floats, column: Column) -> bool:
    """Whether whole numbers that never repeat count the rows (hardly a gap), or are too many to be a measurement."""
    known = values[~np.isnan(values)]
    return len(known) < column.known or bool(known.max() - known.min() + 1 <= 1.05 * len(known))


def _label_is(target: Target) -> str:
    total = sum(target.counts.values())
    if target.task == "binary":
        return f"binary: 1 is {target.positive!r}, {guesses.percent(target.counts[target.positive] / total)} of rows"
    if target.task == "multiclass":
        return f"multiclass: {len(target.classes)} classes"
    mean, deviation = (f"{x:,.0f}" if abs(x) >= 1000 else f"{x:.4g}" for x in (target.mean, target.deviation))
    return f"regression: mean {mean}, standard deviation {deviation}"


def _time(
    database: duckdb.DuckDBPyConnection, main: str, columns: Sequence[Column]
) -> tuple[str, dt.date, float] | None:
    """A date column of every row, and the day from which the last fifth of the rows lies."""
    dates = [c for c in columns if _is_date(c) and not c.nulls and not c.unfit and c.distinct > 1]
    if not dates:
        return None
    column = max(dates, key=lambda c: c.distinct)
    name = quoted(column.name)
    ((cut, before),) = database.execute(
        f"WITH day AS (SELECT CAST({name} AS DATE) AS d FROM {quoted(main)}), "
        "cut AS (SELECT quantile_disc(d, 0.8) AS cut_day FROM day) "
        "SELECT any_value(cut_day), avg((d < cut_day)::INT) FROM day, cut"
    ).fetchall()
    return (column.name, cut, float(before)) if 0 < before < 1 else None


def prepare_sql(found: Draft) -> str:
    """The query: one row a row of the main table, with keys, label and features."""
    several = len(found.files) > 1
    # A plain name where there is one table only.
    source = "hashed" if not found.keys else found.main

    def value(each: Field) -> str:
        table = source if each.table == found.main else each.table
        return _value(each.column, f"{sql(table)}." if several else "")

    lines: list[str] = []
    for key in found.keys:
        each = next(each for each in found.fields if each.name == key)
        lines.append(_named(value(each), key))
    if not found.keys:
        digest, copy = HASH_KEYS
        lines += [digest, f"row_number() OVER (PARTITION BY {digest} ORDER BY {digest}) AS {copy}"]
    label = found.label
    if found.target.task == "binary":
        unknown = "" if not label.column.nulls else " NULL (unknown) where the files have no value."
        if set(found.target.counts) != {"0", "1"} or unknown or _is_listed(found):
            told = "any other text is NULL, unknown" if _is_listed(found) else "0 is the other"
            lines.append(f"-- 1 is {' '.join(found.target.positive.split())}; {told}.{unknown}")
    lines.append(_named(_label_value(found, value(label)), label.name))
    if carried := [each for each in found.of("left out") if each.name in found.carried]:
        lines.append("-- Carried into the predictions, where a hash tells nobody which row is meant; not learned from.")
        lines += [_named(value(each), each.name) for each in carried]
    lines.append("")
    shown = {*found.keys, *found.carried}
    if left := [each.name for each in found.of("left out") if each.name not in shown]:
        lines += _comment(f"Left out, for the reasons in dataset.toml: {', '.join(left)}.")
    if (entity := found.entity) and entity.name not in shown:
        lines.append(f"-- {_named(value(entity), entity.name)},  -- with the section [split] of dataset.toml")
    if found.time:
        name, _, _ = found.time
        if name not in {*found.keys, *found.carried}:
            each = next(each for each in found.fields if each.name == name)
            lines.append(f"-- {_named(value(each), name)},  -- with the section [time] of dataset.toml")
        else:
            each = next(each for each in found.fields if each.name == name)
        text = value(each)
        if name != found.dated:
            parts = ", ".join(f"{part} AS {made}" for made, part in _parts_of_day(found, name, text).items())
            lines.append(f"-- {parts},  -- as numbers of [features]")
    features = [each for each in found.fields if each.use in ("number", "category") and not each.is_key]
    lines += [_named(value(each), each.name) for each in features]
    if found.dated:
        text = value(next(each for each in found.fields if each.name == found.dated))
        lines += [f"{part} AS {made}" for made, part in _parts_of_day(found, found.dated, text).items()]
    last = max(index for index, line in enumerate(lines) if line and not line.startswith("--"))
    select = "\n".join(
        f"    {line}{',' if index != last else ''}" if line and not line.startswith("--") else f"    {line}".rstrip()
        for index, line in enumerate(lines)
    )
    head = f"-- One row for each row of {found.main}. Made by `dml dataset new`: read it, it is yours now."
    tables = f"FROM {sql(source)}"
    for join in found.joins:
        on = " AND ".join(f"{sql(join.table)}.{sql(key)} = {sql(source)}.{sql(key)}" for key in join.keys)
        tables += f"\n-- {join.found:.0%} of the rows of {found.main} have a row there."
        tables += f"\nLEFT JOIN {sql(join.table)} ON {on}"
    for hint in found.hints:
        tables += f"\n{hint}"
    if found.keys:
        return f"{head}\n\nSELECT\n{select}\n{tables}\n"
    hashed = (
        "WITH hashed AS (\n"
        "    -- No column tells every row apart. Copies of a row are told apart by their number below.\n"
        f"    SELECT *, md5(to_json(struct(*))) AS {HASH_KEYS[0]} FROM {sql(found.main)}\n"
        ")"
    )
    return f"{head}\n\n{hashed}\n\nSELECT\n{select}\n{tables}\n"


def _split(found: Draft) -> list[str]:
    """What may be meant to go to one side of the split together: which rows are alike by chance, no file tells."""
    entity = found.entity
    if entity:
        rows, values = entity.column.known, entity.column.distinct
        line = "" if entity.name in {*found.keys, *found.carried} else ", with its line in prepare.sql,"
        return [
            "",
            f"# {rows:,} rows are of {values:,} values of {entity.name}. If rows of one tell each other's answers,",
            f"# this section{line} puts them on one side of the split, and figures are of values not seen before.",
            "# [split]",
            f"# by = {_strings([entity.name])}",
        ]
    if found.keys or not found.repeated:
        return []
    return [
        "",
        "# If a copy of a row is the same thing told twice, and not another one that is alike, this section puts",
        "# copies on one side of the split.",
        "# [split]",
        f"# by = {_strings(HASH_KEYS[:1])}",
    ]


def dataset_toml(found: Draft) -> str:
    """The settings, with a comment where a human has to decide."""
    target, label = found.target, found.label
    title = found.name.replace("_", " ").capitalize()
    keys = found.keys or HASH_KEYS
    parts = [
        "# Made by `dml dataset new`: what is guessed says so. docs/datasets.md explains every setting.",
        f"title = {_string(title)} # shown in reports: say what the rows are",
        f"task = {_string(target.task)}",
        f"main = {_string(found.main)}",
    ]
    if found.keys:
        parts.append("# A guess: no two rows of the file are the same here. Is that so by nature, or by chance?")
    else:
        copies = f"{found.repeated:,} rows are copies" if found.repeated else "there is no copy now"
        parts.append(f"# No columns tell every row apart: a hash of the row, and the number of its copy ({copies}).")
    parts.append(f"keys = {_strings(keys)}")
    if found.carried:
        parts.append(f"carried = {_strings(found.carried)} # go into the predictions beside the hash, for people")
    groups = sorted(found.of("category"), key=lambda each: each.column.distinct)
    slices = [each.name for each in groups if 2 <= each.column.distinct <= SLICE_VALUES][:3]
    if slices:
        parts.append(f"# slices = {_strings(slices)} # groups for which the report compares the model")

    parts += ["", "[label]", f"column = {_string(label.name)}"]
    if target.task == "binary":
        rest = [value for value in target.counts if value != target.positive]
        positive = _string(f"{found.said(label)} is {target.positive}")
        parts.append(
            f"positive = {positive} # {target.counts[target.positive]:,} of "
            f"{found.known:,} rows; the others are {_inline(rest[0])}. prepare.sql makes it 1"
        )
    elif target.task == "multiclass":
        parts.append(_list("classes", target.classes))
        if label.column.kind == "bigint":
            parts.append('# Whole numbers that are amounts rather than names of classes? Then task = "regression", ')
            parts[-1] = parts[-1].rstrip()
            parts.append(f"# no classes and no raw here, and {label.name} alone in place of its CASE in prepare.sql.")
    else:
        parts.append(f'# unit = "USD" # of {label.name}, for the reports')
    if _is_listed(found):
        listed = "texts" if target.task == "binary" else "classes"
        told = f"of table {found.main}: a text there that {listed} does not have is unknown, left out and counted"
        parts.append(f"raw = {_string(label.column.name)} # {told}")
        if target.task == "binary":
            parts.append(_list("texts", list(target.counts)))
    if label.column.nulls:
        parts.append(f"unknown = {_string(f'{found.said(label)} is not known')} # {label.column.nulls:,} rows")

    if found.time:
        name, cut, share = found.time
        parts += [
            "",
            f"# {name} has a date in every row. With this section"
            + ("" if name in {*found.keys, *found.carried} else f" (and the line with {name} in prepare.sql)")
            + " a run also learns from",
            f"# the {share:.0%} of rows before `cut` and is measured on the rest, which is what tomorrow will be like.",
            "# [time]",
            f"# column = {_string(name)}",
            f"# cut = {cut.isoformat()}",
        ]

    parts += _split(found)
    parts += [
        "",
        "[source]",
        f"folder = {_string(str(found.folder))}",
        'licence = "not stated" # TODO: say under which terms you hold these files',
        "",
        "[source.files]",
        *(
            f"{table} = {_string(file.source)}" if isinstance(file.source, str) else _list(table, file.source)
            for table, file in found.files.items()
        ),
    ]
    for table in found.files:
        parts += ["", *_table(found, table)]

    parts += ["", "[features]"]
    left = found.of("left out")
    if left:
        parts.append("# Left out. To learn from one, add it to a list here, to its table above and to prepare.sql.")
        width = max(len(each.name) for each in left)
        parts += [f"#   {each.name:<{width}}  {each.why}" for each in left]
    dated = list(_parts_of_day(found, found.dated, "")) if found.dated else []
    parts.append(_list("numbers", [*(each.name for each in found.of("number")), *dated]))
    parts.append(_list("categories", [each.name for each in found.of("category")]))

    depth, min_leaf, smoothing = training(found.known, target.task, len(target.classes))
    tolerance = f"{0.01 * target.deviation:.2g}" if target.task == "regression" else "0.005"
    if _is_tunable(found):
        parts += [
            "",
            "# Each run chooses depth and leaf size on a part of the training side (docs/datasets.md). To fix them,",
            f"# set both: depth = {depth} and min_leaf = {min_leaf} are usual for {found.known:,} rows and this task.",
            "[training]",
        ]
    else:
        parts += [
            "",
            f"# Usual for {found.known:,} rows and this task. With more rows leave both out: a run then chooses them.",
            "[training]",
            f"depth = {depth}",
            f"min_leaf = {min_leaf}",
        ]
    parts += [f"smoothing = {float(smoothing)}", "", "[gate]"]
    metric = (
        f"RMSE, in the unit of {label.name}: 1 % of its standard deviation"
        if target.task == "regression"
        else "log loss"
    )
    parts.append(f"# A candidate may be worse than the current model by this much ({metric}).")
    parts.append(f"tolerance = {float(tolerance)!r}")
    return "\n".join(parts) + "\n"


def _is_tunable(found: Draft) -> bool:
    """Whether a fifth of the rows, by which depth and leaf size would be chosen, tells more than chance."""
    rarer = found.known - max(found.target.counts.values(), default=0)
    return found.known >= FEWEST_TO_TUNE and (found.target.task == "regression" or rarer >= FEWEST_TO_TUNE // 4)


def _table(found: Draft, table: str) -> list[str]:
    file, columns = found.files[table], found.columns[table]
    dialect = file.dialect
    parts = [f"[tables.{table}]", *([f"format = {_string(dialect.format)}"] if dialect.format != "csv" else [])]
    tokens = sorted({token for column in columns for token in column.tokens} | {""})
    parts.append(f"nulls = {_strings(tokens)}")
    for name, value, default in (
        ("delimiter", dialect.delimiter, ","),
        ("quote", dialect.quote, '"'),
        ("escape", dialect.escape, ""),
        ("encoding", dialect.encoding, "utf-8"),
    ):
        if value != default:
            parts.append(f"{name} = {_string(value)}")
    if not dialect.header:
        parts.append("header = false")
    if dialect.skip:
        parts.append(f"skip = {dialect.skip} # lines above the table, such as {_inline(file.above)}")
    if file.partitions:
        parts.append(f"partitions = {_strings(list(file.partitions))} # told by folders name=value, always as text")
    joined = next((join for join in found.joins if join.table == table), None)
    unused = {each.column.name for each in found.of("left out") if each.table == table and not each.is_key}
    unused -= set(file.partitions)  # what folders tell is declared, whether it is read or not
    unused -= {found.dated} if table == found.main else set()
    if table == found.main:
        unused -= {key for join in found.joins for key in join.keys}
    elif joined is None:
        unused = set()
    # A file without a header is read by position, and a hash of the row is one of all its columns.
    needs_all = not dialect.header or (table == found.main and not found.keys)
    names = {
        name: header.strip()
        for name, header in file.headers.items()
        if (header if dialect.format == "jsonl" or name in file.partitions else header.strip().lower()) != name
        and (dialect.header or name in file.partitions)
        and (needs_all or name not in unused)
    }
    parts += ["", f"[tables.{table}.columns]"]
    if unused and not needs_all:
        parts.append("# Behind a # is what prepare.sql does not read.")
    for column in columns:
        comment = _form(column)
        line = f"{column.name} = {_string(column.kind)}" + (f" # {comment}" if comment else "")
        parts.append(f"# {line}" if column.name in unused and not needs_all else line)
    if names:
        calls = "header and folders call" if set(names) & set(file.partitions) else "header calls"
        parts += ["", f"[tables.{table}.names] # what the file's {calls} them"]
        parts += [f"{name} = {_string(header)}" for name, header in names.items()]
    return parts


def _form(column: Column) -> str:
    if column.day_form:
        return f"dates, written {column.day_form}"
    if column.marks:
        shown = ", ".join(map(repr, column.marks))
        style = {"decimal comma": " and a decimal comma", "thousands": " and commas between the thousands"}
        return f"numbers with {shown}{style.get(column.form, '')}, which prepare.sql takes out"
    if column.form == "decimal comma":
        return "numbers with a decimal comma, which prepare.sql converts"
    if column.form == "thousands":
        return "numbers with commas between the thousands, which prepare.sql takes out"
    if column.unfit:
        return f"not all cells are: {column.unfit:,} are like {_inline(column.example)}"
    return ""


def sql(name: str) -> str:
    """A name in Spark SQL."""
    return f"`{name}`" if name in KEYWORDS else name


def _named(value: str, name: str) -> str:
    bare = value.rpartition(".")[2] if "(" not in value else value
    return value if bare == sql(name) else f"{value} AS {sql(name)}"


def _value(column: Column, prefix: str) -> str:
    cell = prefix + sql(column.name)
    if column.day_form:
        return f"to_{'timestamp' if 'H' in column.day_form else 'date'}({cell}, '{column.day_form}')"
    for mark in column.marks:
        cell = f"replace({cell}, {_spark_string(mark)}, '')"
    if column.marks and column.form == "plain":
        return f"CAST(trim({cell}) AS DOUBLE)"
    if column.form == "decimal comma":
        return f"CAST(replace(replace({cell}, '.', ''), ',', '.') AS DOUBLE)"
    if column.form == "thousands":
        return f"CAST(replace({cell}, ',', '') AS DOUBLE)"
    return f"trim({cell})" if column.padded else cell


def _label_value(found: Draft, value: str) -> str:
    column, target = found.label.column, found.target
    if target.task == "binary":
        if set(target.counts) == {"0", "1"} and column.kind == "bigint":
            return f"CASE {value} WHEN 1 THEN 1 WHEN 0 THEN 0 END"
        if set(target.counts) == {"0", "1"}:
            return f"CAST({value} AS INT)"
        if column.kind == "boolean":
            return f"CAST({value} AS INT)" if target.positive == "true" else f"CAST(NOT {value} AS INT)"
        (other,) = set(target.counts) - {target.positive}
        is_text = column.kind in ("string", "date", "timestamp") and not column.form
        positive, negative = (_spark_string(one) if is_text else one for one in (target.positive, other))
        return f"CASE {value} WHEN {positive} THEN 1 WHEN {negative} THEN 0 END"
    if target.task == "multiclass" and column.kind != "string":
        value = f"CAST({value} AS STRING)"
    if target.task == "multiclass":
        return f"CASE WHEN {value} IN ({', '.join(map(_spark_string, target.classes))}) THEN {value} END"
    return value


def _is_listed(found: Draft) -> bool:
    """Whether the label's values are few and written as they are: then any other is unknown."""
    return (
        found.target.task != "regression"
        and found.label.column.kind in ("string", "bigint")
        and not found.label.column.form
    )


def _spark_string(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace("'", "\\'").replace("\n", "\\n").replace("\r", "\\r")
    return f"'{escaped}'"


def _string(text: str) -> str:
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")


def _strings(texts: Sequence[str]) -> str:
    return f"[{', '.join(_string(text) for text in texts)}]"


def _inline(text: str) -> str:
    """A cell in a comment: on one line."""
    return repr(text[:40])


def _list(name: str, values: Sequence[str], width: int = 110) -> str:
    line = f"{name} = {_strings(values)}"
    if len(line) <= width:
        return line
    return "\n".join([f"{name} = [", *(f"    {_string(value)}," for value in values), "]"])


def _comment(text: str) -> list[str]:
    return [f"-- {line}" for line in textwrap.wrap(text, 110, break_long_words=False)]
