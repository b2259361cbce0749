"""The records of a CSV file in plain Python, as Spark's parser (univocity) reads them, and quotes that swallow rows.

`dml dataset new` and `check`, `dml predict FILE` and a run look at a file with this: one reading, one set of sentences.
"""

import codecs
import gzip
import io
import re
from itertools import islice
from typing import Any, BinaryIO, Dict, Iterable, Iterator, List, NamedTuple, Optional, Protocol, Sequence, Tuple

from jobs.tables.settings import Table

PYTHON_ENCODINGS = {"utf-8": "utf-8-sig", "latin-1": "latin-1", "windows-1252": "cp1252"}
JSON = re.compile(r"\s*(\{\s*\"|\{\s*\}|\[\s*[\[{\]])")
NUMBER = r"\s*[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?\s*"
BLANK = "".join(map(chr, range(33)))  # what univocity trims: everything up to the space
MARK = codecs.BOM_UTF8.decode("utf-8")  # at a file's start it is none of its text; Spark and Python take it off there
REPEATED = "the line repeats the header, as where two files were joined"
UNMARK = "perl -pe 's/^\\xEF\\xBB\\xBF//' OLD > NEW"
SHOWN = 60  # characters of a line in a sentence
# A cell of so many lines, and so many times as many as any other of its column, is a quote that was never closed.
LONG_CELL, TIMES_LONGER = 20, 10
LONE = 3  # up to so many cells of many lines in a column are looked at one by one


class Record(NamedTuple):
    """`line`: the first one's number, from 1; `lines`: how many; `long`: (column, its lines) of cells of many lines.

    `cells` are text as Spark has it: without the space around what is not quoted. `fault`: see `Fault`; '' if none.
    """

    line: int
    lines: int
    cells: List[str]
    long: Tuple[Tuple[int, int], ...]
    fault: str
    at: int  # the line of the fault
    raw: Tuple[str, ...]  # the lines themselves


class Written(Protocol):
    """How a file's records are written: the settings of a raw table, or what was found out of a file."""

    @property
    def delimiter(self) -> str: ...

    @property
    def quote(self) -> str: ...

    @property
    def quote_escape(self) -> str: ...

    @property
    def skip(self) -> int: ...


class Fault(NamedTuple):
    """A quote that swallows what follows it: from line `first` to line `last`, in a sentence's words."""

    first: int
    last: int
    told: str


def opened(file: BinaryIO, encoding: str, *, zipped: bool) -> io.TextIOWrapper:
    """A CSV file as text, decoded as dataset.toml declares; each kind of line end is \\n.

    A byte order mark at the start is left out whatever the encoding, as Hadoop does.
    """
    source: Any = gzip.GzipFile(fileobj=file) if zipped else file
    if encoding != "utf-8" and source.read(len(codecs.BOM_UTF8)) != codecs.BOM_UTF8:
        source.seek(0)
    return io.TextIOWrapper(source, encoding=PYTHON_ENCODINGS[encoding], newline=None)


def numbers_of(tokens: Iterable[str]) -> List[float]:
    """Those of the null tokens that are numbers."""
    return [float(token) for token in tokens if re.fullmatch(NUMBER, token)]


def foreign(start: bytes) -> str:
    """What a file is that begins so, and the way on, for a sentence; '' if it may be CSV in an encoding known here."""
    if start.startswith(b"PAR1"):
        return 'is a Parquet file: say format = "parquet"'
    if start.startswith(b"PK\x03\x04"):
        return "is a zip archive or an Excel workbook: unpack it, or export it as CSV in UTF-8"
    low, high = start[:200:2], start[1:200:2]
    if start.startswith((b"\xff\xfe", b"\xfe\xff")) or (b"\0" in start[:200] and not (any(low) and any(high))):
        return "is UTF-16: convert it, such as by `iconv -f UTF-16 -t UTF-8 OLD > NEW`"
    if b"\0" in start:
        return "holds zero bytes, so it is no text: export it as CSV in UTF-8"
    if JSON.match(start.decode("utf-8-sig", errors="replace")):
        return 'is JSON: say format = "jsonl", if each line is an object'
    return ""


def marked(encoding: str) -> str:
    """How a line begins whose first bytes are UTF-8's byte order mark, as text of the encoding."""
    return codecs.BOM_UTF8.decode(PYTHON_ENCODINGS[encoding].replace("-sig", ""))


def told_of_mark(where: str, line: str) -> str:
    """A sentence on a line within a file that begins with a byte order mark, which would be part of its first cell."""
    return (
        f"{where} begins with a byte order mark ({_shown(line.rstrip())}), as where the second of two files was joined "
        f"to the first. Take such marks out ({UNMARK}), and headers within the file with them."
    )


def blank(delimiter: str) -> str:
    """The characters that are nothing around a cell; a line of them alone is empty."""
    return "".join(mark for mark in BLANK if mark != delimiter)


def records(
    lines: Iterable[str], delimiter: str, quote: str, escape: str, skip: int = 0, before: int = 0
) -> Iterator[Record]:
    """Each record of the text behind the first `skip` lines; empty lines are none. `before`: lines above these.

    A field that begins with a quote ends with one that a delimiter or the line's end follows; a quote within is
    written twice, or behind the escape. A quote in a field that does not begin with one is a character like others.
    """
    around = blank(delimiter)
    reader = _Reader(iter(lines), delimiter, quote, escape, around)
    reader.number = before
    for _ in islice(reader.lines, skip):
        reader.number += 1
    for line in reader.lines:
        reader.number += 1
        text = line[:-1] if line.endswith("\n") else line
        if quote not in text:
            if text.strip(around):
                cells = [cell.strip(around) for cell in text.split(delimiter)]
                yield Record(reader.number, 1, cells, (), "", 0, (text,))
        elif text.strip(around):
            yield reader.record(text)


def faults(found: Iterable[Record], delimiter: str, *, many_lines: bool = False) -> List[Fault]:
    """The quotes that swallow rows: never closed, followed by neither delimiter nor line end, or closed by another
    cell's. `many_lines`: cells of many lines are meant, however long.
    """
    said: List[Fault] = []
    counts: Dict[int, int] = {}
    longest: Dict[int, List[Tuple[int, Record]]] = {}
    width = 0
    for record in found:
        width = width or len(record.cells)
        if record.fault:
            said.append(Fault(record.line, record.at, record.fault))
        for column, lines in () if record.fault or many_lines else record.long:
            counts[column] = counts.get(column, 0) + 1
            kept = sorted([*longest.get(column, []), (lines, record)], key=lambda cell: -cell[0])
            longest[column] = kept[:LONE]
    for column, cells in longest.items():
        alone = counts[column] <= LONE
        others = cells[1][0] if len(cells) > 1 else 1
        for lines, record in cells if alone else cells[:1]:
            too_long = lines > LONG_CELL and lines > TIMES_LONGER * others
            if too_long or (alone and _are_rows(record, column, width, delimiter)):
                last = record.line + record.lines - 1
                cell = f"a cell of column {column + 1} that begins in line {record.line} goes on to line {last}"
                what = f", longer than any other there ({others})" if too_long else ", over lines that look like rows"
                said.append(Fault(record.line, last, cell + what))
    return sorted(set(said))


def sentence(found: Sequence[Fault], file: str, quote: str, escape: str, settings: str) -> str:
    """What is wrong with a file's quotes and the ways on, in sentences. `settings`: where its table is declared."""
    shown = "; ".join(fault.told for fault in found[:3])
    more = f"; and {len(found) - 3} more" if len(found) > 3 else ""
    ways = f"Mend the file (a quote within a quoted cell is written {escape}{quote}), or set quote"
    if escape == quote:
        ways += ' or escape (such as escape = "\\\\", if quotes are written \\")'
    if any("goes on to line" in fault.told for fault in found):
        ways += ", or many_lines = true if such cells are meant,"
    return f"{file}: {shown}{more}. Rows would be lost in it. {ways} in {settings}."


def suspect(delimiter: str, quote: str, escape: str) -> Tuple[List[str], str]:
    """Regular expressions (Java's and Python's) for a first look at single lines: what to take out of a line, one after
    the other; and what is then found in it unless each quoted field ends within the line, before a delimiter.
    """
    d, q = re.escape(delimiter), re.escape(quote)
    pair = q * 2 if escape == quote else f"{re.escape(escape)}."
    space = "[ \\t]*" if delimiter not in " \t" else ("\\t*" if delimiter == " " else " *")
    return [pair, f"(?:(?<=^)|(?<={d})){space}{q}[^{q}]*{q}{space}(?={d}|$)"], f"(^|{d}){space}{q}"


def _are_rows(record: Record, column: int, width: int, delimiter: str) -> bool:
    """Whether each line of a record would be a row by itself, were its quotes characters like others."""
    if width < 2 or column >= width:
        return False
    rows = [line.split(delimiter) for line in record.raw]
    if any(len(row) != width for row in rows):
        return False
    return column == 0 or not _is_number(rows[0][0]) or all(_is_number(row[0]) for row in rows)


def _is_number(cell: str) -> bool:
    try:
        float(cell.strip().strip("\"'"))
    except ValueError:
        return False
    return True


class _Reader:
    """Takes one record apart, character by character where quotes are, and further lines as it needs them."""

    def __init__(self, lines: Iterator[str], delimiter: str, quote: str, escape: str, blank: str) -> None:
        self.lines, self.number = lines, 0
        self.delimiter, self.quote, self.escape, self.blank = delimiter, quote, escape, blank
        self._marks = re.compile(f"[{re.escape(quote)}{re.escape(escape)}]")

    def record(self, text: str) -> Record:
        first = self.number
        cells: List[str] = []
        long: List[Tuple[int, int]] = []
        raw, at, fault, fault_at = [text], 0, "", 0
        while True:
            start = self._after_blank(text, at)
            if text[start : start + 1] == self.quote:
                before = self.number
                value, text, at, closed = self._quoted(text, start + 1, raw)
                if not closed:
                    fault = (
                        fault or f"the quote that line {before} opens ({_shown(raw[before - first])}) is never closed"
                    )
                    fault_at = fault_at or self.number
                elif text[at : at + 1] not in ("", self.delimiter):
                    fault = fault or (
                        f"line {self.number} ({_shown(text)}): the quote before {text[at : at + 12]!r} closes a cell"
                        + (f" that line {before} opens" if before != self.number else "")
                        + " and is followed by neither a delimiter nor the line's end"
                    )
                    fault_at = fault_at or self.number
                    end = text.find(self.delimiter, at)
                    end = len(text) if end < 0 else end
                    value, at = value + self.quote + text[at:end], end
                if self.number > before:
                    long.append((len(cells), self.number - before + 1))
                cells.append(value)
            else:
                end = text.find(self.delimiter, at)
                end = len(text) if end < 0 else end
                cells.append(text[at:end].strip(self.blank))
                at = end
            if at >= len(text):
                lines = self.number - first + 1
                return Record(first, lines, cells, tuple(long), fault, fault_at, tuple(raw))
            at += 1

    def _after_blank(self, text: str, at: int) -> int:
        while at < len(text) and text[at] in self.blank:
            at += 1
        return at

    def _quoted(self, text: str, at: int, raw: List[str]) -> Tuple[str, str, int, bool]:
        """The value behind an opening quote; the line that it ends in, and the place behind it and the space there."""
        parts: List[str] = []
        while True:
            mark = self._marks.search(text, at)
            if mark is None:
                parts.append(text[at:])
                following: Optional[str] = next(self.lines, None)
                if following is None:
                    return "".join(parts), text, len(text), False
                self.number += 1
                text, at = following[:-1] if following.endswith("\n") else following, 0
                raw.append(text)
                parts.append("\n")
                continue
            parts.append(text[at : mark.start()])
            pair = text[mark.start() : mark.start() + 2]
            if pair in (self.escape + self.quote, self.escape * 2):
                parts.append(pair[1])
                at = mark.end() + 1
            elif mark.group() == self.quote:
                return "".join(parts), text, self._after_blank(text, mark.end()), True
            else:
                parts.append(mark.group())
                at = mark.end()


def _shown(line: str) -> str:
    return repr(line if len(line) <= SHOWN else line[:SHOWN] + "…")


def as_written(lines: Iterable[str], how: Written) -> Iterator[Record]:
    return records(lines, how.delimiter, how.quote, how.quote_escape, how.skip)


def of_table(file: BinaryIO, declared: Table, *, zipped: bool) -> Iterator[Record]:
    """The records of a file of a raw table as its settings say."""
    return as_written(opened(file, declared.encoding, zipped=zipped), declared)
