"""A raw table whose lines are its records: read in the one pass that writes what is made of it, and counted in it.

Whether each line is a record nobody knows before all lines are read: a quoted field may go on in the next. So it is
taken to be so, and what would show that it is not is observed in the same pass, beside the counts. `Lines.counts` says
in the end what was seen, or that the table is to be read anew as jobs/tables/raw.py `read_lines` does it, which looks
at all lines first.
"""

import math
import re
from dataclasses import dataclass
from typing import Any, Dict, List, Optional, Tuple

from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as F

from jobs.errors import JobError
from jobs.tables import raw, records
from jobs.tables.catalog import CatalogTable
from jobs.tables.observed import Seen
from jobs.tables.settings import MOST_COLUMNS, Table

SMALL = 4 * 1024**2  # bytes that Spark reads in one task
FIRST_LINES = 100  # of a file: records of many lines mostly show there
LONGEST = 1_000_000  # characters of one of them
SPACE = "".join(map(chr, range(0x21)))  # what Java's String.trim takes away; a line of it alone is no record
# What `parsed` says of each line, beside what raw.parse does.
BYTES, IS_RECORD, IS_HEADER, UNLIKE, MALFORMED = "_bytes", "_is_record", "_is_header", "_unlike", "_malformed"
IS_ABOVE = "_is_above"  # the header, or the first row: the lines that the setting `skip` is about
SAID = (BYTES, IS_RECORD, IS_HEADER, IS_ABOVE, UNLIKE, MALFORMED)


class NotLinesError(Exception):
    """The lines of `tables` are not their records, or that is not certain."""

    def __init__(self, *tables: str) -> None:
        super().__init__(", ".join(tables))
        self.tables = tables


@dataclass(frozen=True)
class Lines:
    """A raw table by its lines. `size`: of its files together, in bytes. `above`: how many lines with text stand above
    the header. `parsed`: as raw.parse, and SAID."""

    table: CatalogTable
    declared: Table
    settings_file: str
    size: int
    files: int
    above: int
    parsed: DataFrame
    seen: Seen
    others: raw.Others

    def parts(self, *, rows: int, text: int) -> int:
        """How many parts it makes, each of so many rows or, before rows are counted, of so many bytes of text."""
        return max(1, math.ceil(self.size / text))

    @property
    def is_small(self) -> bool:
        return self.size <= SMALL

    @property
    def good(self) -> DataFrame:
        """The declared columns of the rows that parse. Observed: for one query, which may use it more than once."""
        return self._good_of(self.seen.of(self.parsed, **self._figures()))

    @property
    def alone(self) -> DataFrame:
        """`good`, for a query of its own: nothing is observed."""
        return self._good_of(self.parsed)

    def _good_of(self, parsed: DataFrame) -> DataFrame:
        return parsed.where(_parses()).select(*self.declared.columns)

    def _figures(self) -> Dict[str, Column]:
        return {**_figures(), **self.others(_parses())}

    @property
    def bad(self) -> DataFrame:
        """The rows that do not parse."""
        return self.parsed.where(F.col(IS_RECORD) & F.col(raw.REASON).isNotNull())

    def counts(self, plan: str) -> raw.Counts:
        """What was seen by the query that `good` is part of, once it has run. `plan`: that query, as optimised.

        A query may leave a table out or stop reading it, and a task that is done again because its node was lost counts
        its lines again. The bytes then do not add up to the files' size, and the table is counted by itself.

        Raises NotLinesError, and JobError if a file is not text in the declared encoding.
        """
        seen = self.seen.told(plan)
        if not seen or not self._is_whole(seen):
            alone = self.parsed.agg(*[figure.alias(name) for name, figure in self._figures().items()]).head()
            seen = alone.asDict() if alone else {}
        if seen["malformed"]:
            spark = self.parsed.sparkSession
            raise JobError(raw.not_text(spark, self.table, seen["malformed"], self.declared, self.settings_file))
        headers = self.files if self.declared.header else 0
        expected = (headers, self.above)
        if seen["unlike"] or (seen["headers"], seen["above"]) != expected or not self._is_whole(seen):
            raise NotLinesError(self.table.name)
        others = {name: seen[name] for name in self.others(_parses())}
        return raw.Counts(seen["rows"], seen["bad"], seen["reason"], others)

    def _is_whole(self, seen: Dict[str, Any]) -> bool:
        """Whether each byte was seen once. A file may lack its last line end, or begin with a byte order mark."""
        return self.size - 3 * self.files <= (seen.get("bytes") or 0) <= self.size + self.files


def open_lines(
    spark: SparkSession,
    table: CatalogTable,
    declared: Table,
    settings_file: str,
    others: raw.Others = raw.nothing_else,
) -> Lines:
    """The table, of which no more has been read than the first lines of a file. `others`: as of raw.read_records.

    Raises NotLinesError if these show that the lines are not its records, JobError for a table without files, without
    anything in them or without a declared column.
    """
    with raw.files_of(table):
        # A line ends at "\n" alone, so that bytes add up; whatever else Spark ends lines at is then found within one.
        text = spark.read.options(recursiveFileLookup=True, lineSep="\n").text(table.location)
    files = text.inputFiles()
    if any(file.lower().endswith(raw.PACKED) for file in files):  # how long they are shows only when they are read
        raise NotLinesError(table.name)
    size = int(text._jdf.queryExecution().analyzed().stats().sizeInBytes())  # as the files were listed
    value, path = F.col("value"), F.col("_metadata.file_path")
    lines = text.select(
        _text(declared).alias("line"),
        path.alias(raw.FILE),
        F.col("_metadata.file_block_start").alias("start"),
        (F.octet_length(value) + 1).cast("bigint").alias(BYTES),
        raw.misread(value, declared, path).alias(MALFORMED),
    )
    header, cells = None, list(declared.of_files.columns)
    above = _above(lines, len(files), table, declared) if declared.skip else []
    if declared.header:
        header, cells = _header(lines, len(files), table, declared, settings_file)
    line = F.col("line")
    is_above = line.isin(above) if above else F.lit(False)
    is_header = F.lit(False) if header is None else (line == header) & ~is_above
    schema = ", ".join(f"`{name}` string" for name in [*cells, raw.CORRUPT])
    split = lines.select(
        F.from_csv(line, schema, raw.dialect(declared)).alias("cells"),
        raw.FILE,
        BYTES,
        MALFORMED,
        is_header.alias(IS_HEADER),
        is_above.alias(IS_ABOVE),
        (~is_header & ~is_above & _has_text()).alias(IS_RECORD),
        ((raw.ends_within_quotes(line, declared) & ~is_above) | line.contains("\r")).alias(UNLIKE),
    )
    told = raw.folders_of(spark, table, declared, settings_file, files) if declared.partitions else {}
    parsed = raw.parse(split.select("cells.*", raw.FILE, *SAID), declared, keep=SAID, told=told)
    return Lines(table, declared, settings_file, size, len(files), len(above), parsed, Seen(), others)


def _parses() -> Column:
    return F.col(IS_RECORD) & F.col(raw.REASON).isNull()


def _figures() -> Dict[str, Column]:
    reason = F.when(F.col(IS_RECORD), F.col(raw.REASON))
    return {
        "bytes": F.sum(BYTES),
        "rows": F.count(F.when(F.col(IS_RECORD), 1)),
        "bad": F.count(reason),
        "reason": F.first(reason, ignorenulls=True),
        "headers": F.count(F.when(F.col(IS_HEADER), 1)),
        "above": F.count(F.when(F.col(IS_ABOVE), 1)),
        "unlike": F.max(UNLIKE),
        "malformed": F.max(MALFORMED),
    }


def _text(declared: Table) -> Column:
    """A line without what is left of a Windows line end."""
    charset = raw.CHARSETS[declared.encoding]
    value = "value" if declared.encoding == "utf-8" else f"decode(CAST(value AS BINARY), '{charset}')"
    # Trimming goes through all characters of a text, wherever they stand: 7% of what reading the flights took.
    return F.expr(f"CASE WHEN endswith(value, '\\r') THEN trim(TRAILING '\\r' FROM {value}) ELSE {value} END")


def _has_text() -> Column:
    characters = "".join(f"\\u{ord(character):04x}" for character in SPACE)
    return F.expr(f"trim(LEADING '{characters}' FROM line) != ''")


def _begun(lines: DataFrame) -> DataFrame:
    """The lines of the first part of each file; of a long line as much as shows that it is too long."""
    return lines.where(F.col("start") == 0).withColumn("line", F.substring("line", 1, LONGEST + 1))


def _above(lines: DataFrame, files: int, table: CatalogTable, declared: Table) -> List[str]:
    """The lines with text among the first `skip` ones. Raises NotLinesError if there are several files, whose lines
    above the header may differ."""
    if files > 1:
        raise NotLinesError(table.name)
    found = [row["line"] for row in _begun(lines).select("line").head(declared.skip)]
    if any("\r" in line or len(line) > LONGEST for line in found):
        raise NotLinesError(table.name)
    return [line for line in found if line.strip(SPACE)]


def _header(
    lines: DataFrame, files: int, table: CatalogTable, declared: Table, settings_file: str
) -> Tuple[str, List[str]]:
    """The line that every file begins with, and what to call its columns. Raises as `open_lines`."""
    begun = _begun(lines)
    if files == 1:
        first = [row["line"] for row in begun.select("line").head(FIRST_LINES + declared.skip)]
        found = [line for line in first[declared.skip :] if line.strip(SPACE)]
    else:
        first_of_each = begun.where(_has_text()).groupBy(raw.FILE).agg(F.first("line").alias("line"))
        found = [row["line"] for row in first_of_each.collect()]
        if len(found) != files or len(set(found)) != 1:
            raise NotLinesError(table.name)
    if not found or found[0].startswith(records.MARK):
        raise NotLinesError(table.name)
    if any("\r" in line or len(line) > LONGEST or raw.is_open(line, declared) for line in found):
        raise NotLinesError(table.name)
    names = fields_of(found[0], declared)
    if names is None or len(names) > MOST_COLUMNS or (files > 1 and raw.repeated(names)):
        raise NotLinesError(table.name)
    where = raw.locate(names, declared, f"Raw table {table}", settings_file)
    called = {position: name for name, position in where.items()}
    return found[0], [called.get(position, f"_{position}") for position in range(len(names))]


def fields_of(line: str, declared: Table) -> Optional[List[str]]:
    """The fields of a plain line, each either without quotes or between two; None for any other."""
    if declared.escape and declared.escape in line:
        return None
    quote, delimiter = re.escape(declared.quote), re.escape(declared.delimiter)
    space = f"[{re.escape(SPACE.replace(declared.delimiter, ''))}]*"
    plain = re.compile(f"{space}(?:{quote}([^{quote}]*){quote}|([^{quote}{delimiter}]*?)){space}({delimiter}|$)")
    fields: List[str] = []
    position = 0
    while True:
        found = plain.match(line, position)
        if found is None:
            return None
        fields.append(found[1] if found[1] is not None else found[2])
        position = found.end()
        if not found[3]:
            return fields
