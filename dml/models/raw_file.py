"""A raw file scored as a run would: read as dataset.toml says, made to features as prepare.sql says, in DuckDB."""

# ruff: noqa: S608  # every name and value that goes into a query passes quoted() or literal()

import csv
import datetime as dt
import gzip
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import Any, Literal, TextIO

import duckdb
import pyarrow as pa  # pyarrow ships no types

from datasets import prepare_sql
from dml.errors import UserError
from dml.models import cells
from dml.models.cells import literal, quoted
from dml.models.row_query import FROM_TEXT, UNSURE, NotOfOneRowError, RowQuery, connect, row_query
from dml.models.scorer import Predicted, Scorer, unseen_of
from dml.terminal.words import counted, listed
from jobs.tables import folders, records
from jobs.tables.records import REPEATED
from jobs.tables.settings import Dataset, Table

ReadAs = Literal["raw", "features"]
FORMATS = {"csv": "CSV", "parquet": "Parquet", "jsonl": "JSON lines"}
ROW = "the row"  # its place in the chunk: no column is called so
IS_HEADER = "the header"  # whether it repeats that: nor so
CHUNK = 20_000  # rows that DuckDB gets at a time
TOLD = 3  # rows set aside that are told with line and reason


@dataclass(frozen=True)
class RawFile:
    """A file of a dataset's main table: where its declared columns are, and what is made of its rows.

    `told`: the columns of the table that the folders name=value above the file tell.
    """

    path: Path
    settings: Dataset
    header: list[str]
    where: dict[str, int]
    query: RowQuery
    told: dict[str, str | None] = field(default_factory=dict)

    @property
    def declared(self) -> Table:
        return self.settings.tables[self.settings.main]

    def records(self) -> Iterator[records.Record]:
        """The rows, behind the header. Raises UserError for a file that is not as dataset.toml declares."""
        declared = self.declared
        if declared.format != "csv":
            yield from cells.rows(self.path, declared.format, self.header, declared.nulls)
            return
        try:
            with self.path.open("rb") as file:
                text = records.opened(file, declared.encoding, zipped=self.path.suffix == ".gz")
                lines = cells.of_text(text, self.path, records.marked(declared.encoding))
                found = records.as_written(lines, declared)
                yield from islice(found, 1 if declared.header else 0, None)
        except UnicodeDecodeError as error:
            raise UserError(
                f"{self.path} is not {self.declared.encoding} ({error.reason}), which {self.settings.file} "
                "declares for "
                f"table {self.settings.main}: convert the file."
            ) from None
        except (gzip.BadGzipFile, EOFError, zlib.error) as error:
            raise UserError(f"{self.path} is not a whole gzip file: {error}") from None


@dataclass(frozen=True)
class RawScored:
    """`set_aside`: rows that a run would quarantine, the first with line and reason; `left_out`: not in prepare.sql's
    result; `unseen`, `predicted`: as of `scorer.Scored`.
    """

    rows: int
    set_aside: int
    reasons: list[str]
    left_out: int
    unseen: dict[str, tuple[int, str]]
    predicted: dict[str, int]


def recognise(path: Path, settings: Dataset, features: Sequence[str], wanted: ReadAs | None) -> RawFile | None:
    """The file as raw data of the dataset's main table; None if it is to be read by the features' own names.

    A file with a column that only features are called is one of features; else one with the raw table's columns, in its
    dialect, is raw. Raises UserError if neither fits, or if only a run can make features of it.
    """
    if wanted == "features":
        return None
    declared = settings.tables[settings.main]
    format = cells.format_of(path)
    if format != declared.format and "csv" not in (format, wanted):
        raise UserError(
            f"{path} is {FORMATS[format]}, but table {settings.main} of {settings.file} is {FORMATS[declared.format]}: "
            "convert the file."
        )
    has = set(_header(path, declared)) if format == declared.format else set()
    plain = set(_plain_header(path)) if format == "csv" else set()
    derived = set(features) - set(declared.columns)
    if wanted is None and set(features) <= plain and derived:
        return None
    try:
        query = row_query(prepare_sql(settings.name), settings.main, declared.columns, features, settings.keys)
    except NotOfOneRowError as error:
        if wanted is None and not _is_raw(declared, has):
            return None
        raise UserError(_only_by_a_run(path, settings, features, str(error))) from None
    found = (
        _located(path, settings, query)
        if format == declared.format
        else f"it is {FORMATS[format]}, and {settings.file} declares {FORMATS[declared.format]}."
    )
    if isinstance(found, RawFile) and declared.partitions:
        found = _below_folders(found, declared)
    if isinstance(found, RawFile):
        return found
    if wanted is None and set(features) <= plain:
        return None
    raise UserError(
        f"{path} is neither a raw file of {settings.name} nor one of its features. As a raw file: {found} As features: "
        f"it has no column {', '.join(name for name in features if name not in plain)}, as the model calls them."
    )


def _below_folders(raw: RawFile, declared: Table) -> RawFile:
    """The file with what the folders above it tell. Raises UserError if it lies in none of one of them."""
    texts = [declared.names.get(name, name) for name in declared.partitions]
    try:
        values = folders.values(raw.path.absolute().as_posix(), texts)
    except ValueError as error:
        raise UserError(
            f"{raw.path} {error}, and {raw.settings.file} has it in partitions of table {raw.settings.main}: put the "
            "file into such folders."
        ) from None
    return replace(raw, told=dict(zip(declared.partitions, values, strict=True)))


def check_features(path: Path) -> None:
    """Raises UserError for a file that is not CSV, as a file of features is. What is no plain file stays unread."""
    if path.is_file() and (format := cells.format_of(path)) != "csv":
        raise UserError(f"{path} is {FORMATS[format]}, and a file of features is CSV in UTF-8: convert it.")


def score(
    scorer: Scorer, files: Sequence[RawFile], target: TextIO, *, all_columns: bool, on_progress: Callable[[int], None]
) -> RawScored:
    """Scores the rows of the files and writes them, keys first (or all of a file's columns), with their delimiter.

    Raises UserError for files with different headers, quotes in which rows would be lost, a cell that only Spark can
    read, or more rows set aside than the dataset's gate lets pass; then what has been written is not to be used.
    """
    first = files[0]
    settings, declared, query = first.settings, first.declared, first.query
    keys = [] if all_columns or query.unknown else list(settings.keys)
    kept = [i for i, name in enumerate(first.header) if name not in scorer.columns] if not keys else []
    for raw in files:
        if _names(raw) != _names(first) and (declared.format == "csv" or not keys):
            raise UserError(
                f"{first.path} and {raw.path} have different headers; a run takes files of one header for one table: "
                "score them one by one."
            )
        _check_quotes(raw)
    says, tables = scorer.compile({name: i for i, name in enumerate(scorer.features)}, texts=True)
    writer = csv.writer(target, delimiter=declared.delimiter, lineterminator="\n")
    writer.writerow([*(keys or [first.header[i] for i in kept]), *scorer.columns])
    rows, left_out, predicted = 0, 0, Predicted(scorer)
    told: list[str] = []
    for raw in files:
        reasons: list[tuple[int, str]] = []
        for record, reason, stays, values in _rows(raw, scorer, keys):
            if reason is not None:
                reasons.append((record.line, reason))
            elif not stays:
                left_out += 1
            else:
                shown = map(_cell, values[len(scorer.features) :]) if keys else (record.cells[i] for i in kept)
                said = says(values)
                writer.writerow([*shown, *said])
                predicted.count([said])
                rows += 1
                if rows % CHUNK == 0:
                    on_progress(rows)
        which = f"{raw.path}, line" if len(files) > 1 else "line"
        told += [f"{which} {line}: {reason}" for line, reason in sorted(reasons)]
    share, most = len(told) / max(rows + left_out + len(told), 1), settings.gate.max_quarantined_share
    if share > most:
        raise UserError(
            f"{listed([str(raw.path) for raw in files])}: {len(told):,} of {rows + left_out + len(told):,} rows do not "
            f"parse ({share:.2%}; gate.max_quarantined_share of {settings.file} allows {most:.2%}), such as "
            f"{'; '.join(told[:TOLD])}. Mend the file, or what [tables.{settings.main}] says of it."
        )
    return RawScored(rows, len(told), told[:TOLD], left_out, unseen_of(tables), predicted.rows)


def _names(raw: RawFile) -> list[str]:
    return [name.strip().lower() for name in raw.header]


def _rows(
    raw: RawFile, scorer: Scorer, keys: Sequence[str]
) -> Iterator[tuple[records.Record, str | None, bool, Sequence[Any]]]:
    """Each row, why it is set aside, whether prepare.sql has it in its result, and its features and keys."""
    database, sql = connect(), _sql(raw, scorer.features, keys)
    read, width = raw.records(), len(raw.header)
    while chunk := list(islice(read, CHUNK)):
        whole = [record for record in chunk if len(record.cells) == width]
        for record in chunk:
            if len(record.cells) != width:
                yield record, record.fault or f"the line has not the {width} fields of the header", False, ()
        for found, record in zip(_computed(database, sql, raw, whole), whole, strict=True):
            reason, stays, *values = found
            yield record, reason, stays, values


def _located(path: Path, settings: Dataset, query: RowQuery) -> RawFile | str:
    """The file, if it has the raw columns that the features are made of; else what it lacks."""
    from jobs.errors import JobError
    from jobs.tables.raw import locate

    declared = settings.tables[settings.main]
    header = _header(path, declared)
    if not header:
        next(RawFile(path, settings, [], {}, query).records(), None)  # says why it cannot be read, if it cannot
        return "it is empty."
    if not declared.header:
        own = list(declared.of_files.columns)
        if len(header) != len(own):
            return (
                f"its lines have {counted(len(header), 'field')}, and table {settings.main} has {len(own)} columns "
                "and no header."
            )
        return RawFile(path, settings, own, {n: i for i, n in enumerate(own)}, query)
    for name in declared.partitions:
        text = declared.names.get(name, name)
        if text.lower() in [cell.strip().lower() for cell in header]:
            return f"it has a column {text}, which folders {text}=… tell by partitions of {settings.file}."
    if declared.format == "jsonl":  # whose keys a run tells apart by capitals (jobs/tables/cells.py)
        texts = {name: declared.names.get(name, name) for name in declared.of_files.columns}
        if lacking := [text for name, text in texts.items() if name in query.reads and text not in header]:
            return (
                f"it has no key {', '.join(map(repr, lacking))} with single values; it has "
                f"{', '.join(map(repr, header))} (keys are told apart by capitals)."
            )
        return RawFile(path, settings, header, {n: header.index(t) for n, t in texts.items() if t in header}, query)
    places = {}
    for name in declared.of_files.columns:
        one = Table(
            columns={name: declared.columns[name]}, names={n: t for n, t in declared.names.items() if n == name}
        )
        try:
            places.update(locate(header, one, str(path), settings.file))
        except JobError as error:
            if name in query.reads:
                return f"{error}"
    if len(set(places.values())) < len(places):
        return f"two columns of {settings.file} are the same one in its header."
    return RawFile(path, settings, header, places, query)


def _is_raw(declared: Table, header: set[str]) -> bool:
    """Whether a header has the declared columns, but for one, which may be the label."""
    lower = {name.casefold() for name in header}
    own = declared.of_files.columns
    return sum(declared.names.get(name, name).casefold() in lower for name in own) >= max(len(own) - 1, 1)


def _only_by_a_run(path: Path, settings: Dataset, features: Sequence[str], why: str) -> str:
    name = settings.name
    return (
        f"{path} cannot be scored as a run would, row by row: datasets/{name}/prepare.sql {why}. Let the "
        "platform do it: "
        f"put the rows where [source] of {settings.file} names its files, then `dml data push {name}` and `dml "
        f"run {name}`, "
        f"whose features `dml predict {name} --table features` scores. Or give a file whose columns are the features "
        f"themselves ({', '.join(features)}), with --read-as features."
    )


def _check_quotes(raw: RawFile) -> None:
    declared = raw.declared
    if declared.format != "csv":
        return
    if found := records.faults(raw.records(), declared.delimiter, many_lines=declared.many_lines):
        where = f"[tables.{raw.settings.main}] of {raw.settings.file}"
        raise UserError(records.sentence(found, str(raw.path), declared.quote, declared.quote_escape, where))


def _header(path: Path, declared: Table) -> list[str]:
    """The cells of the first record, read as declared, none if it cannot be; of other formats the names of fields."""
    if declared.format != "csv":
        return [name for name, kind in cells.fields_of(path, declared.format).items() if kind]
    try:
        with path.open("rb") as file:
            first = next(records.of_table(file, declared, zipped=path.suffix == ".gz"), None)
    except (UnicodeDecodeError, gzip.BadGzipFile, EOFError, zlib.error):
        return []  # whoever reads the rows says so
    return first.cells if first else []


def _plain_header(path: Path) -> list[str]:
    """The names in the first line whatever cuts it: comma, semicolon, tab or |."""
    found = [_header(path, Table(columns={"any": "string"}, delimiter=delimiter)) for delimiter in ",;\t|"]
    return max(found, key=len)


def _sql(raw: RawFile, features: Sequence[str], keys: Sequence[str]) -> str:
    """Over the table `chunk` of texts: why a row is set aside, whether it is in the result, features, keys."""
    declared, query = raw.declared, raw.query
    nulls = ", ".join(literal(token) for token in declared.nulls)
    there = {name: kind for name, kind in declared.columns.items() if name in raw.where or name in raw.told}
    given = [f"CASE WHEN {quoted(n)} NOT IN ({nulls}) THEN {quoted(n)} END AS {quoted('given ' + n)}" for n in there]
    values = [f"{FROM_TEXT[kind].format(quoted('given ' + name))} AS {quoted(name)}" for name, kind in there.items()]
    reasons = " ".join(
        f"WHEN {quoted('given ' + name)} IS NOT NULL AND {quoted(name)} IS NULL "
        f"THEN {literal(f'column {name}: ')} || '''' || {quoted('given ' + name)} || ''' is no {kind}'"
        for name, kind in there.items()
        if kind != "string"
    )
    if declared.format == "csv" and declared.header and len(raw.where) > 1:
        same = cells.is_header({name: declared.names.get(name, name) for name in there if name in raw.where})
        given.append(f"({same}) AS {quoted(IS_HEADER)}")
        reasons = f"WHEN {quoted(IS_HEADER)} THEN {literal(REPEATED)} {reasons}"
    reason = f"CASE {reasons} END" if reasons else "NULL"
    stays = f"coalesce({query.where.sql}, false)" if query.where else "true"
    made = ", ".join(query.columns[name].sql for name in [*features, *keys])
    return (
        f"WITH given AS (SELECT {quoted(ROW)}, {', '.join(given)} FROM chunk), "
        f"valued AS (SELECT *, {', '.join(values)} FROM given) "
        f"SELECT {reason}, {stays}, {made} FROM valued ORDER BY {quoted(ROW)}"
    )


def _computed(
    database: duckdb.DuckDBPyConnection, sql: str, raw: RawFile, rows: Sequence[records.Record]
) -> list[tuple[Any, ...]]:
    columns = {name: pa.array([row.cells[at] for row in rows], pa.string()) for name, at in raw.where.items()}
    columns |= {name: pa.array([value] * len(rows), pa.string()) for name, value in raw.told.items()}
    database.register("chunk", pa.table({ROW: pa.array(range(len(rows)), pa.int64()), **columns}))
    try:
        return database.execute(sql).fetchall()
    except duckdb.Error as error:
        said = str(error)
        why = said.partition(UNSURE)[2].splitlines()[0] if UNSURE in said else cells.reason_of(error)
        lines = f"lines {rows[0].line} to {rows[-1].line}"
        raise UserError(
            f"{raw.path}, {lines}: a value is computed by a run in a way that is not known here ({why}), and a "
            "guess might "
            f"be wrong. Mend it, or let the platform do it: `dml data push {raw.settings.name}`, then "
            f"`dml run {raw.settings.name}`."
        ) from None


def _cell(value: Any) -> str:
    """A key as CSV has it."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return str(value).lower()
    return value.isoformat(sep=" ") if isinstance(value, dt.datetime) else str(value)
