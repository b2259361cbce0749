"""One file as `dml dataset` sees it: its dialect, its columns by plain names, and its cells in DuckDB as text."""

# ruff: noqa: S608  # every name and value that goes into a query passes quoted() or literal()

import codecs
import gzip
import io
import itertools
import re
import shutil
import tempfile
import threading
import unicodedata
import zlib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import duckdb

from dml.errors import UserError
from dml.models import cells
from dml.models.cells import literal, quoted
from dml.terminal.words import counted
from jobs.tables import records
from jobs.tables.settings import ADDED_COLUMNS, MOST_COLUMNS, PUBLISHED_TABLES, Encoding, Format

# What the query of a scaffold and the jobs add to a table.
HASH_KEYS = ("row_hash", "row_copy")
TAKEN_COLUMNS = (*HASH_KEYS, *ADDED_COLUMNS)
BLOCK = 1024 * 1024
# Of the bytes 80 to 9F Latin-1 makes control characters, Windows-1252 letters, but for five of them.
NOT_CONTROLS = bytes({*range(256)} - {*range(0x80, 0xA0)})
UNDEFINED = b"\x81\x8d\x8f\x90\x9d"
LONGEST_LINE = 16 * 1024**2  # bytes; DuckDB's own limit is 2 MB
HEADS = 20  # lines above a header, at most
HEAD = 256 * 1024  # characters of a file that are looked at for its header
# Letters that NFKD does not take apart.
LETTERS = str.maketrans({"ß": "ss", "æ": "ae", "Æ": "AE", "ø": "o", "Ø": "O", "œ": "oe", "ł": "l", "Ł": "L", "đ": "d"})
NUMBER = re.compile(records.NUMBER)


@dataclass(frozen=True)
class Dialect:
    """How a file is written; the settings of the same names in [tables.NAME]."""

    delimiter: str
    quote: str
    encoding: Encoding
    header: bool
    escape: str = ""  # what stands before a quote that is meant; '' is another quote
    skip: int = 0  # lines above the header
    format: Format = "csv"  # of any other, nothing else is said here

    @property
    def quote_escape(self) -> str:
        return self.escape or self.quote


@dataclass(frozen=True)
class CsvFile:
    """A table of one file, or of several (`parts`), of which the first is `path`.

    `headers`: what the files call their columns, by the plain names that catalog and SQL use, in the files' order;
    behind them what folders name=value tell, which `partitions` has alone. `parts`: each file with their values.
    `home`: the folder that holds the table and nothing else; `source`: what [source.files] says of it.
    """

    path: Path
    table: str
    dialect: Dialect
    headers: dict[str, str]
    letters: str  # a word of it with a letter that its encoding decides on; '' if it is UTF-8
    above: str  # the first of the lines above the header; '' if there are none
    quotes: bool  # some field is in quotes, where spaces at its ends are kept; without, readers trim it
    kinds: Mapping[str, str] = field(default_factory=dict)  # of Parquet's columns (jobs/tables/settings.py, DECLARABLE)
    nested: tuple[str, ...] = ()  # fields that are no columns: lists, objects, bytes
    is_ascii: bool = True
    undefined: bool = False  # has bytes that Windows-1252 has no character for
    partitions: Mapping[str, str] = field(default_factory=dict)
    parts: Mapping[Path, tuple[str | None, ...]] = field(default_factory=dict)
    home: Path | None = None
    source: str | tuple[str, ...] = ""

    @property
    def own(self) -> dict[str, str]:
        """`headers` without what folders tell."""
        return {name: header for name, header in self.headers.items() if name not in self.partitions}

    @property
    def called(self) -> str:
        """The table's files in a sentence."""
        more = len(self.parts) - 1
        if more < 1:
            return self.path.name
        return f"{self.home.name}/" if self.home else f"{self.path.name} and {more:,} more"

    @property
    def said(self) -> dict[str, str]:
        """What people call the columns: by a header of another script, or with accents, else by the plain name."""
        return {
            name: header.strip() if not header.isascii() and header.strip().isprintable() else name
            for name, header in self.headers.items()
        }


def open_csv(path: Path, columns: Sequence[str] = (), skip: int | None = None) -> CsvFile:
    """Looks at all of a file's bytes and at its first lines.

    `columns` name the columns of a file without a header; `skip` lines stand above it, found out if that is None.

    Raises UserError, one sentence, for a file that is missing, empty, not text or not CSV, or whose header will not do.
    """
    if not path.is_file():
        what = "is a folder" if path.is_dir() else "does not exist"
        raise UserError(f"{path} {what}: name the files themselves.")
    if path.suffix == ".zip":
        raise UserError(f"{path} is a zip archive: unpack it first, or compress the file with gzip (FILE.csv.gz).")
    format = cells.format_of(path)
    if format != "csv":
        return _open_other(path, format, columns)
    head = _head(path)
    text = head.text
    if not text.strip():
        raise UserError(f"{path} is empty.")
    if skip is None:
        skip = _lines_above(text, path, header=not columns)
    dialect = _sniff(path, head.encoding, skip, header=not columns)
    if head.quotes:
        dialect = _closed(path, dialect)
    top = _first_record(text, dialect, path)
    first = top.cells
    if dialect.skip:
        dialect = replace(dialect, skip=top.line - 1)  # empty lines behind those that were named stand above it too
    _check_shape(text, dialect, path)
    if columns and len(columns) != len(first):
        raise UserError(
            f"--columns names {len(columns)} columns, but the first line of {path.name} has {len(first)}: "
            f"{_some(first)}."
        )
    if len(first) > MOST_COLUMNS:
        raise UserError(
            f"{path.name} has {len(first):,} columns, and Spark reads {MOST_COLUMNS:,}: take away those that nothing "
            "is to be learned from, or write it as Parquet."
        )
    headers = _plain_names(columns or first, path)
    above = next((line.strip() for line in islice(_text_lines(text), dialect.skip) if line.strip()), "")
    return CsvFile(
        path,
        table_name(path),
        dialect,
        headers,
        _letters(head),
        above,
        head.quotes,
        is_ascii=head.is_ascii,
        undefined=head.undefined,
    )


def _open_other(path: Path, format: Format, columns: Sequence[str]) -> CsvFile:
    if columns:
        raise UserError(f"--columns is for a CSV file without a header; {path.name} has names ({format}).")
    fields = cells.fields_of(path, format, mostly=True)
    headers = _plain_names([name for name, kind in fields.items() if kind], path)
    if not headers:
        raise UserError(f"{path} has no column with single values: {', '.join(fields) or 'it is empty'}.")
    kinds = {name: fields[header] for name, header in headers.items()}
    nested = tuple(name for name, kind in fields.items() if not kind)
    dialect = Dialect(",", '"', "utf-8", header=True, format=format)
    return CsvFile(path, table_name(path), dialect, headers, "", "", quotes=True, kinds=kinds, nested=nested)


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
    headers: Sequence[str] = (),
    nulls: Sequence[str] = (),
) -> int:
    """The file's cells as text in the table `into` (an empty cell is NULL); returns how many lines are broken.

    A broken line has another number of fields than the header, or a quote that does not end, or is no JSON object; it
    is left out. `headers`: what the columns of a file that is not CSV are called in it.
    """
    if dialect.format != "csv":
        return cells.load(database, path, dialect.format, headers, columns, into, limit=rows, nulls=nulls)
    database.execute("DROP TABLE IF EXISTS broken; DROP TABLE IF EXISTS scanned")
    structure = ", ".join(f"{literal(name)}: 'VARCHAR'" for name in columns)
    limit = "" if rows is None else f"LIMIT {rows}"
    try:
        with _table_alone(path, dialect.encoding, dialect.skip, dialect.delimiter) as file:
            database.execute(
                f"CREATE TABLE {quoted(into)} AS SELECT * FROM read_csv(?, auto_detect=false, columns={{{structure}}}, "
                "delim=?, quote=?, escape=?, header=?, skip=0, nullstr='', hive_partitioning=false, "
                f"store_rejects=true, rejects_table='broken', rejects_scan='scanned', max_line_size=?) {limit}",
                [
                    str(file),
                    dialect.delimiter,
                    dialect.quote,
                    dialect.quote_escape,
                    dialect.header,
                    LONGEST_LINE,
                ],
            )
    except duckdb.Error as error:
        raise UserError(_refused(path, error)) from error
    found = database.execute("SELECT count(DISTINCT line) FROM broken").fetchone()
    return int(found[0]) if found else 0


@contextmanager
def shares_told(
    database: duckdb.DuckDBPyConnection, what: str, on_progress: Callable[[str], None], *, every: float = 0.5
) -> Iterator[None]:
    """Tells what the database does and, as soon as it knows, how much of it is done, until the end of the block."""
    database.execute("SET enable_progress_bar = true; SET enable_progress_bar_print = false")
    ended = threading.Event()

    def tell() -> None:
        while not ended.wait(every):
            share = database.query_progress()  # below 0 until there is some
            on_progress(f"{what}: {share:.0f}%" if share > 0 else what)

    on_progress(what)
    thread = threading.Thread(target=tell, name="shares", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def header_of(path: Path, dialect: Dialect) -> list[str]:
    """The cells of a table's first line. Raises UserError for a file that is not text or is empty."""
    return _first_record(_head(path, whole=False).text, dialect, path).cells


def misread(path: Path, declared: Encoding) -> str:
    """Why a file is no text in the declared encoding, and the ways on, for a sentence; '' if it is one.

    Raises UserError as `open_csv` for a file that is not text.
    """
    found = _head(path)
    if declared == "utf-8" and found.encoding != "utf-8":
        return f'{path.name} is not UTF-8; convert it, or say encoding = "{found.encoding}".'
    if declared == "windows-1252" and found.undefined:
        return f"{path.name} is not Windows-1252, which has no letter for some of its bytes; convert it to UTF-8."
    return ""


def looks_like_data(cells: Sequence[str]) -> bool:
    """Whether a first line is no header: a header has no numbers in it."""
    return any(NUMBER.fullmatch(cell) for cell in cells)


def lost_rows(path: Path, dialect: Dialect, *, many_lines: bool = False) -> list[records.Fault]:
    """The quotes of a file in which rows would be lost, as a run finds them (jobs/tables/records.py)."""
    with path.open("rb") as file:
        text = records.opened(file, dialect.encoding, zipped=path.suffix == ".gz")
        return records.faults(_told_apart(text, dialect), dialect.delimiter, many_lines=many_lines)


def _told_apart(text: io.TextIOWrapper, how: Dialect) -> Iterator[records.Record]:
    """The first record, and all of each block of lines that some record might begin in and not end; lines of which each
    is a record, with quotes that end before a delimiter, are looked at together.
    """
    clean = _whole_records(how.delimiter, how.quote, how.quote_escape)
    number = sum(1 for _ in islice(iter(text.readline, ""), how.skip))
    block = text.readline()
    first = True
    while block:
        if not first and (how.quote not in block or clean.fullmatch(block)):
            number += block.count("\n")
        else:
            last = number + block.count("\n") + (not block.endswith("\n"))
            lines = itertools.chain(io.StringIO(block), iter(text.readline, ""))
            for record in records.records(lines, how.delimiter, how.quote, how.quote_escape, before=number):
                yield record
                number = record.line + record.lines - 1
                if number >= last:
                    break
            else:
                return
        first = False
        block = text.read(BLOCK) + text.readline()


def _whole_records(delimiter: str, quote: str, escape: str) -> re.Pattern[str]:
    """Lines of which each is a record: no field begins with a quote and does not end with one, in the same line."""
    d, q, e = re.escape(delimiter), re.escape(quote), re.escape(escape)
    space = f"[{re.escape(records.blank(delimiter).replace(chr(10), ''))}]*+"
    plain = f"[^{q}{e}\\n]*+"
    pair = q * 2 if escape == quote else f"{e}."
    field = f"(?:{space}(?:{q}{plain}(?:{pair}{plain})*+{q}{space}(?=[{d}\\n]|\\Z)|(?!{q})[^{d}\\n]*+))"
    return re.compile(f"(?:{field}(?:{d}{field})*+(?:\\n|\\Z))*+")


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


def _lines_above(text: str, path: Path, *, header: bool) -> int:
    """How many lines stand above the table: Excel's `sep=`, comments (#), a title, empty lines.

    Raises UserError where it may as well be the header that has another number of names than the rows have fields.
    """
    found, usual = _table_in(text)
    tops = [i for i, record in enumerate(found) if len(record.cells) == usual and not _is_comment(found, i)]
    if not tops or not 0 < tops[0] <= HEADS:
        return 0
    first = found[tops[0]]
    told = [r for r in found[: tops[0]] if not r.cells[0].startswith("#") and not re.fullmatch("sep=.?", r.raw[0])]
    if not told:
        return first.line - 1
    if header and (looks_like_data(first.cells) or not all(first.cells)):
        return 0  # a header of another length than the rows: _check_shape says so
    may_be_header = len(told) == 1 and first.line == told[0].line + 1 and len(told[0].cells) >= usual - 1
    if all(len(record.cells) <= usual / 2 for record in told) and not may_be_header:
        return first.line - 1
    if not header:
        return 0
    raise UserError(
        f"{path.name}: the header seems to be line {first.line} ({_some(first.cells)}), but line {told[0].line} "
        f"({_some(told[0].cells)}) could be a header with a name too few or too many. If it is no part of the table, "
        f"say --skip {first.line - 1}; else give it a name for each field."
    )


def _table_in(text: str) -> tuple[list[records.Record], int]:
    """The records of the text by the delimiter that cuts most of them into as many fields, and how many these are."""
    best: tuple[float, int, list[records.Record]] = (0.0, 0, [])
    marked = re.match(r"\ufeff?sep=(.)\r?\n", text)
    for delimiter in marked[1] if marked else ",;\t|":
        found = list(records.records(_whole_lines(text), delimiter, '"', '"'))
        widths = Counter(len(record.cells) for record in found)
        usual, times = widths.most_common(1)[0]
        if usual > 1 and len(found) > 2 and times >= 0.9 * (len(found) - HEADS):
            best = max(best, (times / len(found), usual, found), key=lambda one: one[:2])
    return best[2], best[1]


def _is_comment(found: Sequence[records.Record], at: int) -> bool:
    """Whether a record that begins with # is no header, although it has as many fields: what follows it tells."""
    cells, after = found[at].cells, [record.cells for record in found[at + 1 : at + 3]]
    if not cells[0].startswith("#") or len(after) < 2:
        return False
    return after[0][0].startswith("#") or (not looks_like_data(after[0]) and looks_like_data(after[1]))


def _whole_lines(text: str) -> io.StringIO:
    return io.StringIO(text.removeprefix("\ufeff").rpartition("\n")[0] or text, newline=None)


def _check_shape(text: str, dialect: Dialect, path: Path) -> None:
    """Raises UserError if the header has not the number of names that most rows have fields."""
    found = list(records.as_written(_whole_lines(text), dialect))
    widths = Counter(len(record.cells) for record in found)
    if len(found) < 3 or not dialect.header:
        return
    usual, times = widths.most_common(1)[0]
    cells, line = found[0].cells, found[0].line
    if len(cells) == usual or times < 0.9 * (len(found) - HEADS):
        return
    first = next(record for record in found if len(record.cells) == usual)
    raise UserError(
        f"{path.name}: the header (line {line}) has {counted(len(cells), 'name')}, {_some(cells)}, but the rows "
        f"have {counted(usual, 'field')}, such as line {first.line}: {_some(first.cells)}. Give the header a name for "
        "each field (an index that was written with the rows has none), or take out what is too much."
    )


def _text_lines(text: str) -> io.StringIO:
    """The lines that `records.opened` gives of a file that begins with `text`."""
    return io.StringIO(text.removeprefix("\ufeff"), newline=None)


def _first_record(text: str, dialect: Dialect, path: Path) -> records.Record:
    """The first record of the table in a file that begins with `text`."""
    first = next(records.as_written(_text_lines(text), dialect), None)
    if first is None:
        raise UserError(f"{path} is empty.")
    if first.fault:
        raise UserError(f"{path}: the names of its columns cannot be read: {first.fault}.")
    return first


class _Head(NamedTuple):
    """The beginning of a file as text, and what all its bytes say: `quotes`: there are some; `undefined`: of those that
    Windows-1252 has no character for.
    """

    text: str
    encoding: Encoding
    undefined: bool
    quotes: bool
    is_ascii: bool


def _head(path: Path, *, whole: bool = True) -> _Head:
    """Without `whole` only the beginning is looked at. Raises UserError for a file that is not text."""
    with path.open("rb") as raw:
        zipped = raw.read(2) == b"\x1f\x8b"
    if zipped != (path.suffix == ".gz"):
        what = "is compressed with gzip, but its name does not end in .gz" if zipped else "is not compressed with gzip"
        raise UserError(f"{path} {what}: Spark goes by the name, so give it the right one.")
    decoder = codecs.getincrementaldecoder("utf-8")()
    is_utf_8, is_ascii = True, True
    head, before, controls, undefined, quotes = b"", b"", False, False, False
    try:
        with gzip.open(path) if zipped else path.open("rb") as file:
            while block := file.read(BLOCK if whole else HEAD):
                if not head and (what := records.foreign(block)):
                    raise UserError(f"{path} {what}.")
                head += block[: HEAD - len(head)]
                if b"\n" + codecs.BOM_UTF8 in before + block:
                    raise UserError(_of_mark(path))
                before = block[-len(codecs.BOM_UTF8) :]
                if b"\0" in block:
                    raise UserError(f"{path} holds zero bytes, so it is no text: export it as CSV in UTF-8.")
                quotes = quotes or b'"' in block or b"'" in block
                if not block.isascii():
                    is_ascii = False
                    rare = block.translate(None, NOT_CONTROLS)
                    controls = controls or bool(rare)
                    undefined = undefined or any(byte in rare for byte in UNDEFINED)
                if is_utf_8 and not (block.isascii() and not decoder.getstate()[0]):
                    try:
                        decoder.decode(block)
                    except UnicodeDecodeError:
                        is_utf_8 = False
                if not whole:
                    break
    except (OSError, EOFError, zlib.error) as error:
        raise UserError(f"{path} cannot be read: {error}.") from error
    encoding: Encoding = "utf-8" if is_utf_8 else "windows-1252" if controls and not undefined else "latin-1"
    text = head.removeprefix(codecs.BOM_UTF8).decode(
        records.PYTHON_ENCODINGS[encoding].removesuffix("-sig"), errors="ignore"
    )
    return _Head(text, encoding, undefined, quotes, is_ascii)


def _of_mark(path: Path) -> str:
    with (gzip.open if path.suffix == ".gz" else open)(path, "rb") as file:
        number, line = next(
            (number, line) for number, line in enumerate(file, 1) if number > 1 and line.startswith(codecs.BOM_UTF8)
        )
    return records.told_of_mark(f"{path}: line {number}", line.decode("utf-8", errors="replace").lstrip(records.MARK))


def _letters(head: _Head) -> str:
    """A word of the text with a letter that is not ASCII, if the file is not UTF-8 and so may be misread."""
    found = re.search(r"[^\s,;|]*[^\x00-\x7f][^\s,;|]*", head.text) if head.encoding != "utf-8" else None
    return found.group()[:30] if found else ""


@contextmanager
def _table_alone(path: Path, encoding: str, skip: int, delimiter: str = "") -> Iterator[Path]:
    """A file for DuckDB that begins with the table's first line: the file itself, or a copy in UTF-8.

    DuckDB's own `skip` counts a quoted cell of many lines as one and takes an empty line behind for the header, where a
    run (jobs/tables/records.py) counts plain lines and passes empty ones over. And DuckDB's own Latin-1 refuses the
    bytes 80 to 9F, Spark's does not.
    """
    opened = gzip.open if path.suffix == ".gz" else open
    blank = records.blank(delimiter)
    with opened(path, "rt", encoding=records.PYTHON_ENCODINGS[encoding], newline="") as old:
        if encoding != "utf-8" and old.read(len(records.MARK.encode())) != records.marked(encoding):
            old.seek(0)
        above = sum(1 for _ in islice(iter(old.readline, ""), skip))
        while (first := old.readline()) and not first.strip(blank):
            above += 1
        if encoding == "utf-8" and not above:
            yield path
            return
        with tempfile.TemporaryDirectory() as folder:
            copy = Path(folder) / "copy.csv"
            with copy.open("w", encoding="utf-8", newline="") as new:
                new.write(first)
                shutil.copyfileobj(old, new, BLOCK)
            yield copy


def _sniff(path: Path, encoding: Encoding, skip: int, *, header: bool) -> Dialect:
    """Delimiter, quote and escape, as DuckDB's sniffer finds them."""
    query = "SELECT Delimiter, Quote, Escape FROM sniff_csv(?, ignore_errors=true, skip=0, max_line_size=?)"
    try:
        with _table_alone(path, encoding, skip) as file:
            found = duckdb.execute(query, [str(file), LONGEST_LINE]).fetchall()
    except duckdb.Error as error:
        if not str(error).partition("Error when sniffing file")[1]:
            raise UserError(_refused(path, error)) from error
        raise UserError(
            f"{path} is not CSV: no delimiter (comma, semicolon, tab, |) cuts its lines into the same number of fields."
        ) from error
    delimiter, quote, escape = found[0] if found else (",", '"', "")
    quote = quote if len(quote) == 1 else '"'
    return Dialect(delimiter, quote, encoding, header, escape="\\" if escape == "\\" else "", skip=skip)


def _refused(path: Path, error: duckdb.Error) -> str:
    """Why DuckDB does not read a file; of a line that is too long for it, which one, since its own number is not the
    file's.
    """
    opened = gzip.open if path.suffix == ".gz" else open
    with opened(path, "rb") as file:
        long = next((number for number, line in enumerate(file, 1) if len(line) > LONGEST_LINE), 0)
    if not long:
        return f"{path} cannot be read as CSV: {cells.reason_of(error)}"
    return (
        f"{path}, line {long}, has more than {LONGEST_LINE:,} bytes, which no table's line has: look whether the file "
        "lacks line ends, or its delimiter is another, and mend it."
    )


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
