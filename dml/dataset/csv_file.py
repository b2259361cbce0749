"""One CSV file as `dml dataset` sees it: its dialect, its columns by plain names, and its cells in DuckDB as text."""

# ruff: noqa: S608  # every name and value that goes into a query passes quoted() or literal()

import codecs
import gzip
import io
import re
import shutil
import tempfile
import unicodedata
import zlib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import duckdb

from dml.errors import UserError
from dml.terminal.words import counted
from jobs.tables import records
from jobs.tables.settings import ADDED_COLUMNS, PUBLISHED_TABLES

# What the query of a scaffold and the jobs add to a table.
HASH_KEYS = ("row_hash", "row_copy")
TAKEN_COLUMNS = (*HASH_KEYS, *ADDED_COLUMNS)
BLOCK = 1024 * 1024
LONGEST_LINE = 16 * 1024**2  # bytes; DuckDB's own limit is 2 MB
HEADS = 20  # lines above a header, at most
HEAD = 256 * 1024  # characters of a file that are looked at for its header
# Letters that NFKD does not take apart.
LETTERS = str.maketrans({"ß": "ss", "æ": "ae", "Æ": "AE", "ø": "o", "Ø": "O", "œ": "oe", "ł": "l", "Ł": "L", "đ": "d"})
NUMBER = re.compile(r"\s*[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?\s*")


@dataclass(frozen=True)
class Dialect:
    """How a file is written; the settings of the same names in [tables.NAME]."""

    delimiter: str
    quote: str
    encoding: Literal["utf-8", "latin-1"]
    header: bool
    escape: str = ""  # what stands before a quote that is meant; '' is another quote

    @property
    def quote_escape(self) -> str:
        return self.escape or self.quote


@dataclass(frozen=True)
class CsvFile:
    """`headers`: what the file calls its columns, by the plain names that catalog and SQL use, in the file's order."""

    path: Path
    table: str
    dialect: Dialect
    headers: dict[str, str]
    windows: bool  # it holds bytes that are letters in Windows-1252 and nothing in Latin-1
    quotes: bool  # some field is in quotes, where spaces at its ends are kept; without, readers trim it


def open_csv(path: Path, columns: Sequence[str] = ()) -> CsvFile:
    """Looks at all of a file's bytes and at its first lines. `columns` name the columns of a file without a header.

    Raises UserError, one sentence, for a file that is missing, empty, not text or not CSV, or whose header will not do.
    """
    if not path.is_file():
        what = "is a folder" if path.is_dir() else "does not exist"
        raise UserError(f"{path} {what}: name the CSV files themselves.")
    if path.suffix == ".zip":
        raise UserError(f"{path} is a zip archive: unpack it first, or compress the file with gzip (FILE.csv.gz).")
    with path.open("rb") as raw:
        start = raw.read(4)
    if start == b"PAR1":
        raise UserError(f"{path} is a Parquet file, not CSV: write it as CSV, such as with {_copy(path, 'parquet')}.")
    text, encoding, windows, quotes = _head(path)
    if re.match(r"\s*(\{\s*\"|\[\s*[\[{\]])", text.removeprefix("\ufeff")):
        raise UserError(f"{path} is JSON, not CSV: write it as CSV, such as with {_copy(path, 'json')}.")
    if not text.strip():
        raise UserError(f"{path} is empty.")
    dialect = _sniff(path, encoding, header=not columns)
    if quotes:
        dialect = _closed(path, dialect)
    first = _first_line(text, dialect, path)
    _check_shape(text, dialect, path)
    if columns and len(columns) != len(first):
        raise UserError(
            f"--columns names {len(columns)} columns, but the first line of {path.name} has {len(first)}: "
            f"{_some(first)}."
        )
    headers = _plain_names(columns or first, path)
    return CsvFile(path, table_name(path), dialect, headers, windows, quotes)


def _copy(path: Path, kind: str) -> str:
    """A command that writes a file of another kind as CSV, by the packages of this environment."""
    return f"`python -c \"import duckdb; duckdb.read_{kind}('{path.name}').write_csv('{path.stem}.csv')\"`"


def table_name(path: Path) -> str:
    """The raw table that a file becomes."""
    stem = path.name.removesuffix(".gz").rpartition(".")[0] or path.name
    name = plain(stem) or "data"
    return f"{name}_raw" if name in PUBLISHED_TABLES else name


def plain(text: str) -> str:
    """A name as Glue keeps it and SQL needs no quotes for: [a-z][a-z0-9_]*, or '' if nothing of it remains."""
    ascii_text = unicodedata.normalize("NFKD", text.translate(LETTERS)).encode("ascii", "ignore").decode()
    words = re.sub(r"([a-z0-9])([A-Z])", r"\1_\2", ascii_text).lower()
    name = re.sub(r"[^a-z0-9]+", "_", words).strip("_")
    return f"c_{name}" if name[:1].isdigit() else name


def load_text(
    database: duckdb.DuckDBPyConnection,
    path: Path,
    dialect: Dialect,
    columns: Sequence[str],
    into: str,
    *,
    rows: int | None = None,
) -> int:
    """The file's cells as text in the table `into` (an empty cell is NULL); returns how many lines are broken.

    A broken line has another number of fields than the header, or a quote that does not end; it is left out.
    """
    database.execute("DROP TABLE IF EXISTS broken; DROP TABLE IF EXISTS scanned")
    structure = ", ".join(f"{literal(name)}: 'VARCHAR'" for name in columns)
    limit = "" if rows is None else f"LIMIT {rows}"
    try:
        with _as_utf8(path, dialect.encoding) as file:
            database.execute(
                f"CREATE TABLE {quoted(into)} AS SELECT * FROM read_csv(?, auto_detect=false, columns={{{structure}}}, "
                "delim=?, quote=?, escape=?, header=?, nullstr='', store_rejects=true, "
                f"rejects_table='broken', rejects_scan='scanned', max_line_size=?) {limit}",
                [str(file), dialect.delimiter, dialect.quote, dialect.quote_escape, dialect.header, LONGEST_LINE],
            )
    except duckdb.Error as error:
        raise UserError(f"{path} cannot be read as CSV: {str(error).splitlines()[0]}") from error
    found = database.execute("SELECT count(DISTINCT line) FROM broken").fetchone()
    return int(found[0]) if found else 0


def header_of(path: Path, dialect: Dialect) -> list[str]:
    """The cells of a file's first line. Raises UserError for a file that is not text or is empty."""
    return _first_line(_head(path, whole=False)[0], dialect, path)


def encoding_of(path: Path) -> str:
    """utf-8 if all of the file is, else latin-1."""
    return _head(path)[1]


def looks_like_data(cells: Sequence[str]) -> bool:
    """Whether a first line is no header: a header has no numbers in it."""
    return any(NUMBER.fullmatch(cell) for cell in cells)


def literal(text: str) -> str:
    """A string in DuckDB's SQL."""
    return "'" + text.replace("'", "''") + "'"


def quoted(name: str) -> str:
    """A name in DuckDB's SQL."""
    return '"' + name.replace('"', '""') + '"'


def lost_rows(path: Path, dialect: Dialect, *, many_lines: bool = False) -> list[records.Fault]:
    """The quotes of a file in which rows would be lost, as a run finds them (jobs/tables/records.py)."""
    with path.open("rb") as file:
        text = records.opened(file, dialect.encoding, zipped=path.suffix == ".gz")
        found = records.records(text, dialect.delimiter, dialect.quote, dialect.quote_escape)
        return records.faults(found, dialect.delimiter, many_lines=many_lines)


def _closed(path: Path, dialect: Dialect) -> Dialect:
    """The dialect, with a backslash before quotes if only that explains them. Raises UserError for quotes in which rows
    would be lost.
    """
    found = lost_rows(path, dialect)
    if not found:
        return dialect
    other = replace(dialect, escape="" if dialect.escape else "\\")
    if not lost_rows(path, other):
        return other
    raise UserError(records.sentence(found, path.name, dialect.quote, dialect.quote_escape, "dataset.toml"))


def _check_shape(text: str, dialect: Dialect, path: Path) -> None:
    """Raises UserError if the first line, or the first few, have not the number of fields that most others have."""
    lines = io.StringIO(text.removeprefix("\ufeff").rpartition("\n")[0] or text, newline=None)
    found = list(records.records(lines, dialect.delimiter, dialect.quote, dialect.quote_escape))
    widths = Counter(len(record.cells) for record in found)
    usual, times = widths.most_common(1)[0]
    if len(found) < 3 or len(found[0].cells) == usual or times < 0.9 * (len(found) - HEADS):
        return
    first = next(record for record in found if len(record.cells) == usual)
    cells, line = found[0].cells, found[0].line
    above = len([record for record in found if record.line < first.line])
    if not looks_like_data(first.cells) and all(first.cells) and above < HEADS:
        raise UserError(
            f"{path.name}: the header seems to be line {first.line} ({_some(first.cells)}); what stands above it "
            f"({_some([cells[0]])}) is no part of the table. Delete it, such as by "
            f"`tail -n +{first.line} {path.name} > table.csv`."
        )
    if dialect.header:
        raise UserError(
            f"{path.name}: the header (line {line}) has {counted(len(cells), 'name')}, {_some(cells)}, but the rows "
            f"have {counted(usual, 'field')}, such as line {first.line}: {_some(first.cells)}. Give the header a "
            "name for "
            "each field (an index that was written with the rows has none), or take out what is too much."
        )


def _first_line(text: str, dialect: Dialect, path: Path) -> list[str]:
    """The cells of the first record of a file that begins with `text`."""
    lines = io.StringIO(text.removeprefix("\ufeff"), newline=None)
    first = next(records.records(lines, dialect.delimiter, dialect.quote, dialect.quote_escape), None)
    if first is None:
        raise UserError(f"{path} is empty.")
    if first.fault:
        raise UserError(f"{path}: the names of its columns cannot be read: {first.fault}.")
    return first.cells


def _head(path: Path, *, whole: bool = True) -> tuple[str, Literal["utf-8", "latin-1"], bool, bool]:
    """The beginning of a file as text, its encoding (what is not UTF-8 is taken for Latin-1), `windows` and `quotes`.

    With `whole` all bytes are looked at.
    """
    with path.open("rb") as raw:
        zipped = raw.read(2) == b"\x1f\x8b"
    if zipped != (path.suffix == ".gz"):
        what = "is compressed with gzip, but its name does not end in .gz" if zipped else "is not compressed with gzip"
        raise UserError(f"{path} {what}: Spark goes by the name, so give it the right one.")
    decoder = codecs.getincrementaldecoder("utf-8")()
    encoding: Literal["utf-8", "latin-1"] = "utf-8"
    head, controls, quotes = b"", False, False
    try:
        with gzip.open(path) if zipped else path.open("rb") as file:
            while block := file.read(BLOCK if whole else HEAD):
                head += block[: HEAD - len(head)]
                if b"\0" in block:
                    raise UserError(
                        f"{path} is not a text file in UTF-8 or Latin-1 (it holds zero bytes): export it as UTF-8 CSV."
                    )
                controls = controls or re.search(rb"[\x80-\x9f]", block) is not None
                quotes = quotes or b'"' in block or b"'" in block
                if encoding == "utf-8":
                    try:
                        decoder.decode(block)
                    except UnicodeDecodeError:
                        encoding = "latin-1"
                if not whole:
                    break
    except (OSError, EOFError, zlib.error) as error:
        raise UserError(f"{path} cannot be read: {error}.") from error
    return head.decode(encoding, errors="ignore"), encoding, controls and encoding == "latin-1", quotes


@contextmanager
def _as_utf8(path: Path, encoding: str) -> Iterator[Path]:
    """The file itself, or a copy in UTF-8: DuckDB's own Latin-1 refuses the bytes 80 to 9F, Spark's does not."""
    if encoding == "utf-8":
        yield path
        return
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "copy.csv"
        opened = gzip.open if path.suffix == ".gz" else open
        with (
            opened(path, "rt", encoding=encoding, newline="") as old,
            copy.open("w", encoding="utf-8", newline="") as new,
        ):
            shutil.copyfileobj(old, new, BLOCK)
        yield copy


def _sniff(path: Path, encoding: Literal["utf-8", "latin-1"], *, header: bool) -> Dialect:
    """Delimiter, quote and escape, as DuckDB's sniffer finds them."""
    query = "SELECT Delimiter, Quote, Escape FROM sniff_csv(?, ignore_errors=true, max_line_size=?)"
    try:
        with _as_utf8(path, encoding) as file:
            found = duckdb.execute(query, [str(file), LONGEST_LINE]).fetchone()
    except duckdb.Error as error:
        raise UserError(
            f"{path} is not CSV: no delimiter (comma, semicolon, tab, |) cuts its lines into the same number of fields."
        ) from error
    delimiter, quote, escape = found or (",", '"', "")
    quote = quote if len(quote) == 1 else '"'
    return Dialect(delimiter, quote, encoding, header, escape="\\" if escape == "\\" else "")


def _plain_names(headers: Sequence[str], path: Path) -> dict[str, str]:
    if sum(not header.strip() for header in headers) > 1:
        raise UserError(f"{path} has more than one column without a name in its first line: name them in the file.")
    seen: dict[str, str] = {}
    for header in headers:
        text = header.strip().lower()
        if text and text in seen and not looks_like_data(headers):
            raise UserError(
                f"{path} has the column {header.strip()!r} twice (the catalog does not tell upper from lower case): "
                "rename one of them in the file."
            )
        seen[text] = header
    names: dict[str, str] = {}
    for position, header in enumerate(headers, 1):
        name = unique(plain(header) or f"column_{position}", {*names, *TAKEN_COLUMNS})
        names[name] = header
    return names


def unique(name: str, taken: Mapping[str, object] | set[str]) -> str:
    """The name, with a number behind it if it is taken."""
    number, candidate = 2, name
    while candidate in taken:
        number, candidate = number + 1, f"{name}_{number}"
    return candidate


def _some(cells: Sequence[str], limit: int = 6) -> str:
    shown = ", ".join(repr(cell.strip()) for cell in cells[:limit])
    return shown + (", …" if len(cells) > limit else "")
