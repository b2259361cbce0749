"""`dml dataset check`: whether settings, files and query of a dataset fit together, on a sample, without a run."""

# ruff: noqa: S608  # every name and value that goes into a query passes quoted() or literal()

import hashlib
import math
import re
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import duckdb
from rich.console import Console
from rich.markup import escape

import datasets
from datasets import DatasetError
from dml.dataset import guesses
from dml.dataset.csv_file import Dialect, header_of, load_text, lost_rows, misread
from dml.dataset.spark_query import run_queries
from dml.errors import UserError
from dml.models import cells
from dml.models.cells import literal, quoted
from dml.models.raw_file import FORMATS
from dml.terminal.words import listed
from jobs.tables import folders, records
from jobs.tables.labels import sentence as unknown_labels
from jobs.tables.settings import DECLARABLE, Dataset, Table
from stacks.names import check_name

FILE = "the file"  # the column beside the cells of its rows: no column is called so
SAMPLE_ROWS, SAMPLE_ROWS_OF_OTHERS = 10_000, 100_000  # joined tables: enough that a sample's rows find theirs
KINDS = {
    "bigint": "BIGINT",
    "double": "DOUBLE",
    "string": "VARCHAR",
    "boolean": "BOOLEAN",
    "date": "DATE",
    "timestamp": "TIMESTAMP",
}
# The cells that Spark's try_cast takes (org.apache.spark.unsafe.types.UTF8String and SparkDateTimeUtils).
CASTS = guesses.PATTERNS | {
    "bigint": r"[+-]?\d{1,19}",
    "double": guesses.PATTERNS["double"] + r"|(?i)nan|[+-]?inf(inity)?",
    "string": r"(?s).*",
    "boolean": r"(?i)t|true|y|yes|1|f|false|n|no|0",
    "date": r"\d{4}-\d{1,2}(-\d{1,2}([ T].*)?)?",
}
VALUES = {"string": "{}", "boolean": "lower({}) IN ('t', 'true', 'y', 'yes', '1')"}


@dataclass
class Checked:
    """What `check` found of one dataset: `findings` have to be mended, `notes` are worth reading."""

    name: str
    findings: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    summary: str = ""


def check(names: Sequence[str], *, cache: Path, on_progress: Callable[[str], None]) -> list[Checked]:
    """Looks at settings, files and query of each dataset by a sample; starts nothing but one Spark for the queries."""
    checked = {name: Checked(name) for name in names}
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch).resolve()
        sampled: dict[str, tuple[Dataset, dict[str, Path]]] = {}
        for name, found in checked.items():
            on_progress(f"{name}: files")
            try:
                check_name(name, datasets.dataset_names())
                dataset = datasets.load_dataset(name)
            except DatasetError as error:
                found.findings += str(error).splitlines()
                continue
            tables = _sampled(dataset, found, cache, folder)
            if tables is not None:
                sampled[name] = (dataset, tables)
        if sampled:
            on_progress(f"prepare.sql of {', '.join(sampled)}, in Spark (it takes some seconds to start)")
            for name, problem in run_queries(sampled, folder).items():
                if problem:
                    checked[name].findings.append(problem)
                else:
                    _look_at_rows(sampled[name][0], checked[name], folder / name)
    return list(checked.values())


def _sampled(dataset: Dataset, found: Checked, cache: Path, folder: Path) -> dict[str, Path] | None:
    """The first rows of each table as Parquet, without those that a run would quarantine; None if files are not there.

    A table that cannot be read is empty, so that Spark can still say whether the query is right.
    """
    given = _files(dataset, found, cache)
    if given is None:
        return None
    tables = {}
    for table, settings in dataset.tables.items():
        database = duckdb.connect()
        structure = ", ".join(f"{quoted(name)} {KINDS[kind]}" for name, kind in settings.columns.items())
        database.execute(f"CREATE TABLE good ({structure})")
        if files := given.get(table):
            problem = _read(database, dataset, table, files, found)
            if problem:
                found.findings.append(problem)
        tables[table] = folder / f"{dataset.name}-{table}.parquet"
        database.execute(f"COPY good TO {literal(str(tables[table]))} (FORMAT parquet)")
    return tables


def _files(dataset: Dataset, found: Checked, cache: Path) -> dict[str, dict[str, Path]] | None:
    source = dataset.source
    if source.url:
        absent = [
            str(name)
            for table, name in source.files.items()
            if _checksum(cache / dataset.name / table / Path(str(name)).name) != source.sha256[table].lower()
        ]
        if absent:
            found.notes.append(
                f"{_toml(dataset)}: source.url: not downloaded yet, so only settings and query are checked; a run "
                f"would download {', '.join(absent)} from {source.url}."
            )
            return {}
    try:
        files = datasets.raw_files(dataset, cache)
    except DatasetError as error:
        found.findings += str(error).splitlines()
        return None
    return files


def _checksum(file: Path) -> str:
    """A file's SHA-256; '' if it is not there."""
    if not file.is_file():
        return ""
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def _read(
    database: duckdb.DuckDBPyConnection, dataset: Dataset, table: str, files: Mapping[str, Path], found: Checked
) -> str:
    """Fills `good` from the table's files, by their places in its folder; returns why that is impossible, '' otherwise.
    What does not parse is a finding or, below the share of quarantined rows that the gate allows, a note.
    """
    settings, toml = dataset.tables[table], _toml(dataset)
    sample = SAMPLE_ROWS if table == dataset.main else SAMPLE_ROWS_OF_OTHERS
    most = math.ceil(sample / len(files))  # of each
    lost: dict[str, int] = {}  # lines that are no rows, by file
    first, same = "", list[str]()
    own = settings.of_files.columns
    absent = set(own) if settings.format == "jsonl" else set()  # of whose files one may lack a key that others have
    names = [*settings.of_files.columns, *settings.partitions]
    database.execute(f"CREATE TABLE given ({', '.join(f'{quoted(name)} VARCHAR' for name in [*names, FILE])})")
    for place, file in files.items():
        name = file.name if len(files) == 1 else place
        try:
            told = folders.values(place, [settings.names.get(each, each) for each in settings.partitions])
        except ValueError as error:
            return f"{toml}: tables.{table}.partitions: {place} {error}: put it into such folders, or take it away."
        try:
            header = _header_of(dataset, table, file)
        except _MisfitError as error:
            return str(error)
        except UserError as error:
            return f"{toml}: source.files.{table}: {error}"
        absent -= {each for each in own if settings.names.get(each, each) in header}
        same = [cell.strip().lower() for cell in header]
        if settings.format == "csv" and settings.header:
            first = first or name
            if first == name:
                usual = same
            elif same != usual:
                return f"{toml}: source.files.{table}: {_unlike(first, usual, name, same)}"
        try:
            if broken := _load(database, dataset, table, file, header, most, found, alone=len(files) == 1):
                lost[name] = broken
        except _MisfitError as error:
            return str(error)
        except UserError as error:
            return f"{toml}: source.files.{table}: {error}"
        values = [*("NULL" if value is None else literal(value) for value in told), literal(name)]
        cells_of = ", ".join(quoted(each) for each in own)
        database.execute(
            f'INSERT INTO given SELECT {cells_of}, {", ".join(values)} FROM "one file"; DROP TABLE "one file"'
        )
    if absent and len(files) > 1:
        return (
            f"{toml}: tables.{table}.columns: no file has a key for {', '.join(sorted(absent))} (keys are told apart "
            "by capitals): mend columns or names."
        )
    return _parse(database, dataset, table, _called(files), len(same), lost, found)


class _MisfitError(Exception):
    """What does not fit between settings and files; a whole sentence."""


def _called(files: Mapping[str, Path]) -> str:
    """The table's files in a sentence."""
    first = next(iter(files.values())).name
    return first if len(files) == 1 else f"{len(files):,} files, the first {first}"


def _unlike(one: str, usual: Sequence[str], other: str, names: Sequence[str]) -> str:
    """How the headers of two files of a table differ, in a sentence."""
    odd = [name for name in names if name not in usual], [name for name in usual if name not in names]
    what = [f"{other} alone has {listed(list(map(repr, odd[0])))}"] if odd[0] else []
    what += [f"{one} alone has {listed(list(map(repr, odd[1])))}"] if odd[1] else []
    return (
        f"{one} and {other} have different headers ({'; '.join(what) or 'the same columns in another order'}), and are "
        "one table: give them the same header, or take one away."
    )


def _header_of(dataset: Dataset, table: str, file: Path) -> list[str]:
    """The names of a file's columns, as they stand there; of CSV without a header its first row.

    Raises _MisfitError for a file that is not written as its table says, UserError for one that cannot be read.
    """
    settings, toml = dataset.tables[table], _toml(dataset)
    if settings.format != "csv":
        if (format := cells.format_of(file)) != settings.format:
            raise _MisfitError(
                f'{toml}: tables.{table}.format: {file.name} is {FORMATS[format]}; say format = "{format}".'
            )
        return list(cells.fields_of(file, settings.format))
    if unlike := misread(file, settings.encoding):  # says of a packed file too whether it is whole
        raise _MisfitError(f"{toml}: tables.{table}.encoding: {unlike}")
    if lost := lost_rows(file, _dialect(settings), many_lines=settings.many_lines):
        declared = f"[tables.{table}] of {toml}"
        raise _MisfitError(
            f"{toml}: {records.sentence(lost, file.name, settings.quote, settings.quote_escape, declared)}"
        )
    return header_of(file, _dialect(settings))


def _dialect(settings: Table) -> Dialect:
    return Dialect(
        settings.delimiter,
        settings.quote,
        settings.encoding,
        settings.header,
        settings.escape,
        settings.skip,
        settings.format,
    )


def _load(
    database: duckdb.DuckDBPyConnection,
    dataset: Dataset,
    table: str,
    file: Path,
    header: Sequence[str],
    most: int,
    found: Checked,
    *,
    alone: bool,
) -> int:
    """The declared columns of a file's first rows as text in `one file`; how many of its lines are broken."""
    settings, toml = dataset.tables[table], _toml(dataset)
    if settings.header:
        for name in settings.partitions:
            text = settings.names.get(name, name)
            if text.lower() in [cell.strip().lower() for cell in header]:
                raise _MisfitError(
                    f"{toml}: tables.{table}.partitions: {file.name} has a column {text} too, and folders {text}=… may "
                    f"say another value: rename one of them, or take {name} out of partitions."
                )
    if settings.format != "csv":
        return _load_other(database, dataset, table, file, most, alone=alone)
    own = settings.of_files.columns
    if settings.header:
        where = {name: _position(header, settings.names.get(name, name)) for name in own}
        if lacking := [name for name, position in where.items() if position is None]:
            raise _MisfitError(
                f"{toml}: tables.{table}.columns: {file.name} has no column {', '.join(lacking)}; its header has "
                f"{', '.join(repr(cell) for cell in header)}: mend columns, names, delimiter or header."
            )
    elif len(header) != len(own):
        raise _MisfitError(
            f"{toml}: tables.{table}.columns: {len(own)} columns, but lines of {file.name} have "
            f"{len(header)} fields: without a header, columns are all of them, in order (or mend delimiter)."
        )
    else:
        where = {name: position for position, name in enumerate(own)}
    fields = [f"field {position}" for position in range(len(header))]
    broken = load_text(database, file, _dialect(settings), fields, "all fields", rows=most)
    texts = dict(zip(fields, header, strict=True))
    if settings.header and (again := cells.take_headers(database, "all fields", texts)):
        told = cells.told_of_headers(again)
        found.notes.append(f"{toml}: tables.{table}: {file.name}: {told}; runs quarantine such lines.")
    given = ", ".join(f"{quoted(fields[at or 0])} AS {quoted(name)}" for name, at in where.items())
    database.execute(f'CREATE TABLE "one file" AS SELECT {given} FROM "all fields"; DROP TABLE "all fields"')
    return broken


def _load_other(
    database: duckdb.DuckDBPyConnection, dataset: Dataset, table: str, file: Path, most: int, *, alone: bool
) -> int:
    """`_load` of Parquet and JSON lines."""
    settings, toml = dataset.tables[table], _toml(dataset)
    fields = cells.fields_of(file, settings.format)
    names = [name for name, kind in fields.items() if kind]
    where = {}
    own = settings.of_files.columns
    for name, kind in own.items():
        text = settings.names.get(name, name)
        if settings.format == "jsonl" and text not in fields and not alone:
            where[name] = text
            continue
        exact = names.index(text) if text in names else None  # as the keys of JSON are looked for
        position = _position(names, text) if settings.format == "parquet" else exact
        if position is None:
            what = (
                "no single value there (a list, an object, bytes, or nothing)" if text in fields else "no column there"
            )
            raise _MisfitError(
                f"{toml}: tables.{table}.columns: {name} is {what}; {file.name} has "
                f"{', '.join(repr(each) for each in names)}: mend columns or names."
            )
        where[name] = names[position]
        fits = DECLARABLE[fields[where[name]]]
        if settings.format == "parquet" and kind not in fits:
            raise _MisfitError(
                f"{toml}: tables.{table}.columns: {name} cannot be {kind} in {file.name}: declare {' or '.join(fits)}."
            )
    headers, nulls = list(where.values()), settings.nulls
    return load_text(
        database, file, _dialect(settings), list(where), "one file", rows=most, headers=headers, nulls=nulls
    )


def _parse(
    database: duckdb.DuckDBPyConnection,
    dataset: Dataset,
    table: str,
    called: str,
    width: int,
    lost: Mapping[str, int],
    found: Checked,
) -> str:
    settings, toml = dataset.tables[table], _toml(dataset)
    nulls = ", ".join(literal(token) for token in settings.nulls)
    values, misfits = [], {}
    for name, kind in settings.columns.items():
        of_csv = settings.format == "csv" and name not in settings.partitions
        cell = f"trim({quoted(name)})" if of_csv else quoted(name)
        given = f"CASE WHEN {cell} NOT IN ({nulls}) THEN {cell} END"
        values.append(f"{VALUES.get(kind, 'TRY_CAST({} AS ' + KINDS[kind] + ')').format(given)} AS {quoted(name)}")
        misfits[name] = f"({given} IS NOT NULL AND NOT regexp_full_match({given}, {literal(CASTS[kind])}))"
    tests = ", ".join(f"{test} AS {quoted(name)}" for name, test in misfits.items())
    database.execute(f"CREATE TABLE misfit AS SELECT {tests} FROM given")
    ((rows,),) = database.execute("SELECT count(*) FROM given").fetchall()
    if rows == 0:
        return f"{toml}: source.files.{table}: {called} has no rows."
    several = database.execute(f"SELECT count(DISTINCT {quoted(FILE)}) > 1 FROM given").fetchall() == [(True,)]
    broken, problems = sum(lost.values()), []
    where = f" ({listed(list(lost))})" if several else ""
    if broken:
        problems.append(
            f"{broken:,} lines have not the header's {width} fields{where}: mend the file"
            if settings.format == "csv"
            else f"{broken:,} lines are no JSON object of single values{where}: mend the file"
        )
    counts: dict[str, int] = {}
    for part in guesses.in_parts(list(settings.columns)):
        counted = ", ".join(f"count(*) FILTER ({quoted(name)})" for name in part)
        counts |= zip(part, *database.execute(f"SELECT {counted} FROM misfit").fetchall(), strict=True)
    for name, kind in settings.columns.items():
        count = counts[name]
        if count:
            examples = database.execute(
                f"SELECT trim({quoted(name)}), min({quoted(FILE)}) FROM given WHERE {misfits[name]} GROUP BY 1 LIMIT 3"
            ).fetchall()
            such = ", ".join(f"{cell!r} in {of}" if several else repr(cell) for cell, of in examples)
            problems.append(
                f"{count:,} of {rows:,} cells of {name} are no {kind} ({such}): declare another type, or add them to "
                "nulls"
            )
    any_misfit = " OR ".join(misfits.values())
    database.execute(f"INSERT INTO good SELECT {', '.join(values)} FROM given WHERE NOT ({any_misfit})")
    ((good,),) = database.execute("SELECT count(*) FROM good").fetchall()
    share = 1 - good / (rows + broken)
    for problem in problems:
        line = f"{toml}: tables.{table}: {called}: {problem}."
        if share > dataset.gate.max_quarantined_share:
            found.findings.append(line)
        else:
            found.notes.append(f"{line} A run quarantines these rows ({share:.2%} of the sample).")
    if table == dataset.main:
        found.summary += f"{rows:,} rows of {called}, "
        _look_at_label(database, dataset, found)
    return ""


def _look_at_label(database: duckdb.DuckDBPyConnection, dataset: Dataset, found: Checked) -> None:
    """Texts of the raw label that the settings do not list: a run leaves their rows out, or stops."""
    if not dataset.label_texts:
        return
    label = f"trim(CAST({quoted(dataset.label.raw)} AS VARCHAR), ' ')"
    known = ", ".join(literal(text) for text in dataset.label_texts)
    counts = database.execute(
        f"SELECT {label}, count(*), {label} IN ({known}) FROM good WHERE {label} IS NOT NULL GROUP BY 1 ORDER BY "
        "2 DESC, 1"
    ).fetchall()
    strange = {text: count for text, count, listed in counts if not listed}
    labelled, rows = sum(count for _, count, _ in counts), sum(strange.values())
    if strange:
        unknown = {"labelled": labelled, "rows": rows, "texts": dict(list(strange.items())[:10])}
        stops = rows > dataset.gate.max_unknown_label_share * labelled
        (found.findings if stops else found.notes).append(
            f"{_toml(dataset)}: label: {unknown_labels(unknown, dataset)}"
        )


def _look_at_rows(dataset: Dataset, found: Checked, rows: Path) -> None:
    """Keys, label and leaks in what the query has made of the sample."""
    database, toml = duckdb.connect(), _toml(dataset)
    sql_file = f"datasets/{dataset.name}/prepare.sql"
    database.execute(f"CREATE TABLE rows AS SELECT * FROM {cells.READ}", [str(rows / "*.parquet")])
    label = quoted(dataset.label.column)
    ((total, known),) = database.execute(f"SELECT count(*), count({label}) FROM rows").fetchall()
    if not found.summary:  # nothing was read
        return
    if not known:
        found.findings.append(
            f"{sql_file}: gives {total:,} rows, none with a known {dataset.label.column}: look at its joins, "
            "conditions and label."
        )
        return
    keys = ", ".join(quoted(key) for key in dataset.keys)
    empty = " OR ".join(f"{quoted(key)} IS NULL" for key in dataset.keys)
    ((different, keyless),) = database.execute(
        f"SELECT (SELECT count(*) FROM (SELECT DISTINCT {keys} FROM rows)), count(*) FILTER ({empty}) FROM rows"
    ).fetchall()
    if different < total:
        found.findings.append(
            f"{toml}: keys: {total - different:,} of {total:,} rows repeat the {', '.join(dataset.keys)} of another: "
            "add a key column, or look for a join in prepare.sql that adds rows."
        )
    if keyless:
        found.findings.append(
            f"{toml}: keys: {keyless:,} rows have a NULL in {', '.join(dataset.keys)}: take other keys."
        )
    found.summary += _label_in(database, dataset, found, known)
    if total > known:
        found.summary += f", {total - known:,} without a label"
    _leaks_in(database, dataset, found)


def _label_in(database: duckdb.DuckDBPyConnection, dataset: Dataset, found: Checked, known: int) -> str:
    """The label's distribution in words."""
    name, toml = dataset.label.column, _toml(dataset)
    label = quoted(name)
    if dataset.task == "regression":
        ((mean, deviation, low, high),) = database.execute(
            f"SELECT avg({label}), stddev_pop({label}), min({label}), max({label}) FROM rows"
        ).fetchall()
        if low == high:
            found.findings.append(
                f"{toml}: label.column: {name} is {low} in every row of the sample: look at prepare.sql."
            )
        shown = [f"{x:,.0f}" if abs(x) >= 1000 else f"{x:.4g}" for x in map(float, (mean, deviation, low, high))]
        return f"{name}: mean {shown[0]}, standard deviation {shown[1]}, {shown[2]} to {shown[3]}"
    counts = dict(
        database.execute(
            f"SELECT CAST({label} AS VARCHAR), count(*) FROM rows WHERE {label} IS NOT NULL GROUP BY 1 ORDER BY 2 DESC"
        ).fetchall()
    )
    allowed = {"0", "1"} if dataset.task == "binary" else set(dataset.label.classes)
    if strange := [value for value in counts if value not in allowed]:
        key, meant = ("column", "0 or 1") if dataset.task == "binary" else ("classes", "one of the classes")
        found.findings.append(
            f"{toml}: label.{key}: {sum(counts[v] for v in strange):,} rows have {name} = "
            f"{', '.join(repr(v) for v in strange[:5])}, which is not {meant}: mend prepare.sql or the setting."
        )
    elif len(counts) == 1:
        found.findings.append(
            f"{toml}: label.column: {name} is {next(iter(counts))} in every row of the sample: look at the label in "
            "prepare.sql; if the file is sorted by it, ignore this."
        )
    if dataset.task == "binary":
        return f"{name}: {guesses.percent(counts.get('1', 0) / known)} positive"
    shares = ", ".join(f"{value} {count / known:.1%}" for value, count in list(counts.items())[:5])
    return f"{name}: {shares}" + (", …" if len(counts) > 5 else "")


def _leaks_in(database: duckdb.DuckDBPyConnection, dataset: Dataset, found: Checked) -> None:
    features = [*dataset.features.numbers, *dataset.features.categories]
    sample = guesses.sample_of(database, "rows", [*features, dataset.label.column])
    for name in features:
        number = name in dataset.features.numbers
        if told := guesses.leak(sample[name], sample[dataset.label.column], dataset.task, number=number):
            found.findings.append(
                f"{_toml(dataset)}: features: {name} tells the label by itself ({told}): take it out, unless it is "
                "known before the label is."
            )


def _position(header: Sequence[str], text: str) -> int | None:
    """Where a column is in a header: as it stands, else in any case, else with all but letters and digits as _."""

    def clean(name: str) -> str:
        return re.sub(r"[\W_]+", "_", name.casefold()).strip("_")

    cells = [cell.strip() for cell in header]
    for form in (str, str.casefold, clean):
        at = [position for position, cell in enumerate(cells) if form(cell) == form(text)]
        if len(at) == 1:
            return at[0]
    return None


def _toml(dataset: Dataset) -> str:
    return f"datasets/{dataset.name}/dataset.toml"


def show(console: Console, checked: Sequence[Checked]) -> None:
    """A line for each dataset, and below it what is to be mended and what is worth reading."""
    for each in checked:
        console.print(
            f"[red]✗[/red] {each.name}: {len(each.findings)} to mend"
            if each.findings
            else f"[green]✓[/green] {each.name}: {each.summary or 'settings and query'}",
            highlight=False,
            soft_wrap=True,
        )
        for line in each.findings:
            console.print(f"  {escape(line)}", highlight=False, soft_wrap=True)
        for line in each.notes:
            console.print(f"  note: {escape(line)}", highlight=False, soft_wrap=True)
