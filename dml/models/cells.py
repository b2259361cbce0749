"""Raw files of Parquet and JSON lines on this machine: their cells as text, as a run has them."""

# ruff: noqa: S608  # every name and value that goes into a query passes quoted() or literal()

import gzip
import re
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import duckdb
import pyarrow as pa  # pyarrow ships no types
import pyarrow.parquet as pq

from dml.errors import UserError
from jobs.tables import json_lines, records
from jobs.tables.settings import Format

# What DuckDB calls the types of Parquet's columns, by the kinds of DECLARABLE (jobs/tables/settings.py).
KINDS = {
    "string": r"VARCHAR|ENUM.*",
    "whole": r"U?(TINYINT|SMALLINT|INTEGER|BIGINT)|DECIMAL\(\d+,0\)",
    "double": r"FLOAT|DOUBLE|DECIMAL.*",
    "boolean": r"BOOLEAN",
    "date": r"DATE",
    "timestamp": r"TIMESTAMP.*",
}
# Types of Parquet for which Spark refuses the whole file (3.5, ParquetToSparkSchemaConverter; FLOAT16 is unknown to its
# parquet-java), as pyarrow calls them.
UNREAD = {"TIME": "a time of day", "UUID": "a UUID", "INTERVAL": "an interval", "FLOAT16": "a float of 16 bits"}
LARGEST_DECIMAL = 38  # digits, Spark's limit
START = 64 * 1024  # bytes of a file that tell its format
ROWS = 10_000  # at a time
# A folder called name=value is no column: a run looks for files recursively (recursiveFileLookup).
READ = "read_parquet(?, hive_partitioning=false)"
# The statistics in a file leave NaN out (parquet.thrift, ColumnOrder), and DuckDB would take isnan() of such a column
# for false without a look at it.
BY_VALUE = "SET disabled_optimizers TO 'statistics_propagation'"


def format_of(path: Path) -> Format:
    """Parquet by its first bytes, JSON lines by the first character; else CSV.

    Raises UserError, with the way out, for what is none of them: any other JSON, UTF-16, a workbook, zero bytes.
    """
    start = _start_of(path)
    if start.startswith(b"PAR1"):
        return "parquet"
    text = start.decode("utf-8-sig", errors="replace")
    if not records.JSON.match(text):
        if what := records.foreign(start):
            raise UserError(f"{path} {what}.")
        return "csv"
    first, *more = [line for line in text.split("\n") if line.strip()]  # others may stand in a value, such as U+2028
    if first.lstrip().startswith("[") or (more and all(json_lines.read(line)[1] for line in (first, more[0]))):
        raise UserError(
            f"{path} is JSON, but not an object a line: make it so, such as by `jq -c '.[]' {path.name} > "
            f"{path.stem}.jsonl`."
        )
    return "jsonl"


def _start_of(path: Path) -> bytes:
    """The first bytes of a file, unpacked; none if it is not whole, of which whoever reads on says so."""
    with path.open("rb") as file:
        start = file.read(START)
    if start.startswith(b"\x1f\x8b"):
        try:
            return zlib.decompressobj(wbits=31).decompress(start)
        except zlib.error:
            return b""
    return start


def fields_of(path: Path, format: Format, *, mostly: bool = False) -> dict[str, str]:
    """The file's fields, in its order, each with the kind that it is of (of Parquet) or 'string'; '' for lists, objects
    and bytes, which are no cells. Raises UserError for a file that is not what it says, or that Spark cannot read.

    A field of JSON has cells if any of its values is one: a run sets the other rows aside. With `mostly` it has none if
    more of its values are lists and objects.
    """
    if format == "parquet":
        found = types_of(path)
        _check_types(path)
        return {name: _kind_of(kind) for name, kind in found.items()}
    single, nested = Counter[str](), Counter[str]()
    for line in _lines(path):
        for key, value in json_lines.read(line)[0].items():
            nested[key] += isinstance(value, (list, dict))
            single[key] += value is not None and not isinstance(value, (list, dict))
    most = {key for key, count in nested.items() if single[key] >= count}
    some = {key for key, count in nested.items() if single[key] or not count}
    return {key: "string" if key in (most if mostly else some) else "" for key in nested}


def types_of(path: Path) -> dict[str, str]:
    """The fields of a Parquet file with their types in DuckDB. Raises UserError for a file that is not Parquet."""
    try:
        found = duckdb.execute(f"DESCRIBE SELECT * FROM {READ}", [_exactly(path)]).fetchall()
    except duckdb.Error as error:
        raise UserError(f"{path} cannot be read as Parquet: {reason_of(error)}") from None
    return {row[0]: row[1] for row in found}


def rows(path: Path, format: Format, fields: Sequence[str], nulls: Sequence[str] = ()) -> Iterator[records.Record]:
    """The cells at these fields, row by row; a line of JSON that is no row has none, and a fault. Raises UserError."""
    if format == "jsonl":
        for number, line in enumerate(_lines(path), 1):
            if line.strip():
                cells, fault = json_lines.cells(line, fields)
                yield records.Record(number, 1, cells, (), fault, number, (line,))  # type: ignore[arg-type]
        return
    database = duckdb.connect()
    database.execute(BY_VALUE)
    found = database.execute(f"SELECT {_texts(path, fields, nulls)} FROM {READ}", [_exactly(path)])
    number = 0
    while chunk := found.fetchmany(ROWS):
        for row in chunk:
            number += 1
            yield records.Record(number, 1, list(row), (), "", number, ())


def load(
    database: duckdb.DuckDBPyConnection,
    path: Path,
    format: Format,
    fields: Sequence[str],
    columns: Sequence[str],
    into: str,
    *,
    limit: int | None = None,
    nulls: Sequence[str] = (),
) -> int:
    """The cells at `fields` as text in the table `into`, by the names `columns`; returns how many lines are no rows."""
    if format == "parquet":
        some = "" if limit is None else f"LIMIT {limit}"
        texts = f"SELECT {_texts(path, fields, nulls)} FROM {READ} {some}"
        names = ", ".join(map(quoted, columns))
        database.execute(BY_VALUE)
        database.execute(f"CREATE TABLE {quoted(into)} AS SELECT * FROM ({texts}) AS cells({names})", [_exactly(path)])
        database.execute("RESET disabled_optimizers")
        return 0
    database.execute(f"CREATE TABLE {quoted(into)} ({', '.join(f'{quoted(name)} VARCHAR' for name in columns)})")
    broken, kept, some_rows = 0, 0, []
    for record in rows(path, format, fields):
        if record.fault:
            broken += 1
        else:
            some_rows.append(record.cells)
            kept += 1
        if len(some_rows) == ROWS or kept == limit:
            _insert(database, columns, some_rows, into)
            some_rows = []
        if kept == limit:
            break
    _insert(database, columns, some_rows, into)
    return broken


def _insert(
    database: duckdb.DuckDBPyConnection, columns: Sequence[str], found: Sequence[Sequence[str]], into: str
) -> None:
    if found:
        by_column = zip(columns, zip(*found, strict=True), strict=True)
        database.register("some rows", pa.table({name: pa.array(values, pa.string()) for name, values in by_column}))
        database.execute(f'INSERT INTO {quoted(into)} SELECT * FROM "some rows"')
        database.unregister("some rows")


def _lines(path: Path) -> Iterator[str]:
    """A file's lines; of a packed one too. Raises UserError for one that is not UTF-8 or not whole."""
    try:
        with path.open("rb") as file:
            text = records.opened(file, "utf-8", zipped=path.suffix == ".gz")
            text.reconfigure(newline="\n")
            for line in of_text(text, path):
                yield line.lstrip("\ufeff").rstrip("\r\n")  # of `cat a b`, b's byte order mark; a run takes it off
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not UTF-8 ({error.reason}), as JSON is: convert it.") from None
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise UserError(f"{path} is not a whole gzip file: {error}") from None


def of_text(lines: Iterable[str], path: Path, mark: str = "\0") -> Iterator[str]:
    """The same lines. Raises UserError, as a run does, for a zero byte: what holds one is no text; and for a line that
    begins with `mark`, a byte order mark.
    """
    for number, line in enumerate(lines, 1):
        if "\0" in line:
            raise UserError(f"{path} holds zero bytes (line {number}), so it is no text: export it anew, in UTF-8.")
        if line.startswith(mark):
            raise UserError(records.told_of_mark(f"{path}: line {number}", line.removeprefix(mark)))
        yield line


def _texts(path: Path, fields: Sequence[str], nulls: Sequence[str]) -> str:
    types = types_of(path)
    return ", ".join(_text(quoted(field), types[field], nulls) for field in fields)


def _text(field: str, duckdb_type: str, nulls: Sequence[str]) -> str:
    """As jobs/tables/cells.py has it of Spark."""
    if duckdb_type == "TIMESTAMP_NS":
        nanoseconds = f"epoch_ns({field})"
        return f"CAST(make_timestamp(({nanoseconds} - (({nanoseconds} % 1000 + 1000) % 1000)) // 1000) AS VARCHAR)"
    if duckdb_type.startswith("TIMESTAMP"):
        return f"CAST(make_timestamp(epoch_us({field})) AS VARCHAR)"
    if _kind_of(duckdb_type) != "double":
        return f"CAST({field} AS VARCHAR)"
    value = f"CAST({field} AS DOUBLE)"
    numbers = ", ".join(map(repr, records.numbers_of(nulls)))
    missing = f"WHEN {value} IN ({numbers}) THEN NULL " if numbers else ""
    text = value if duckdb_type == "FLOAT" else field
    return (
        f"CASE {missing}WHEN isnan({value}) THEN 'NaN' WHEN isinf({value}) THEN CASE WHEN {value} > 0 THEN '' ELSE '-' "
        f"END || 'Infinity' ELSE CAST({text} AS VARCHAR) END"
    )


def _check_types(path: Path) -> None:
    """Raises UserError for a Parquet file with a column, or a part of one, that Spark has no type for."""
    schema = pq.read_metadata(path).schema
    odd = []
    for column in map(schema.column, range(len(schema))):
        names = (column.logical_type.type, column.converted_type)
        what = next((UNREAD[name] for name in names if name in UNREAD), "")
        if column.precision > LARGEST_DECIMAL:
            what = f"a decimal of more than {LARGEST_DECIMAL} digits"
        if what:
            odd.append(f"{column.path} is {what}")
    if odd:
        raise UserError(
            f"{path} cannot be read by Spark, which has no type for some of its columns ({', '.join(odd)}): write them "
            "as text or plain numbers, or leave them out."
        )


def _kind_of(duckdb_type: str) -> str:
    return next((kind for kind, pattern in KINDS.items() if re.fullmatch(pattern, duckdb_type)), "")


def _exactly(path: Path) -> str:
    """A path that DuckDB does not take for a pattern."""
    return re.sub(r"([\[\]*?])", r"[\1]", str(path))


def literal(text: str) -> str:
    """A string in DuckDB's SQL."""
    return "'" + text.replace("'", "''") + "'"


def quoted(name: str) -> str:
    """A name in DuckDB's SQL."""
    return '"' + name.replace('"', '""') + '"'


def take_headers(database: duckdb.DuckDBPyConnection, table: str, texts: Mapping[str, str]) -> int:
    """Takes rows that repeat the header out of a table of texts, as a run quarantines them; how many these were.

    `texts`: what the header has for each column. Capitals and blanks around a cell make no difference, as in a run.
    """
    if len(texts) < 2:
        return 0
    return int(database.execute(f"DELETE FROM {quoted(table)} WHERE {is_header(texts)}").fetchall()[0][0])


def is_header(texts: Mapping[str, str]) -> str:
    """DuckDB's condition for a row that repeats the header, which has `texts` for its columns."""
    same = (f"lower(trim(coalesce({quoted(c)}, ''))) = lower(trim({literal(text)}))" for c, text in texts.items())
    return " AND ".join(same)


def told_of_headers(lines: int) -> str:
    """The beginning of a sentence on so many lines."""
    return f"{lines:,} {'line repeats' if lines == 1 else 'lines repeat'} the header"


def reason_of(error: duckdb.Error) -> str:
    """What DuckDB says is wrong, in one line: without the query, and without a CSV's options and its line, which DuckDB
    repeats in full and numbers by a count of its own.
    """
    said = str(error).partition("\n\n")[0].partition("\nPossible Solution")[0]
    return " ".join(re.sub(r"CSV Error on Line: \d+\nOriginal Line: .*?\n", "", said, flags=re.DOTALL).split())
