"""Raw files into typed rows, for prepare.py: a row that does not parse is set aside with file and reason.

How a table's files are written is what dataset.toml says, which columns they have is what their own header says. The
crawler's guess at both is for analysts, jobs take only the place from it: it differs between Glue and the embedded
cloud, Glue's CSV classifier reads UTF-8 only and writes names its own way.
"""

import math
import re
import unicodedata
import zlib
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import groupby, islice
from typing import Any, Callable, Dict, Iterable, Iterator, List, Optional, Sequence, Tuple
from urllib.parse import unquote, urlsplit

from py4j.protocol import Py4JJavaError  # py4j ships no types
from pyspark.errors import AnalysisException, PySparkException
from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as F
from pyspark.sql.types import StringType, StructField, StructType

from jobs.errors import JobError
from jobs.tables import folders, records
from jobs.tables.catalog import CatalogTable
from jobs.tables.settings import Table

# Columns that `read_lines` and `parse` add. Declared columns begin with a letter.
CORRUPT, FILE, REASON, RECORD = "_corrupt", "_file", "_reason", "_record"
WHY = "_why"  # of a record that cannot be read at all, where that is not the number of its fields
CHARSETS = {"utf-8": "UTF-8", "latin-1": "ISO-8859-1", "windows-1252": "windows-1252"}  # as Java calls them
# Files that Hadoop unpacks, by the ends of their names.
PACKED = (".gz", ".bz2", ".deflate", ".snappy", ".lz4", ".zst")
SHOWN_NAMES = 30  # of a header, in an error

NO_FILES = "PATH_NOT_FOUND|UNABLE_TO_INFER_SCHEMA"  # Spark's words; the second is of a folder of Parquet with no file
# What is wrong with a file, and how Spark, univocity and Java say so.
UNREADABLE = {
    "has another header than the table's other files: give it theirs, in their order, or take it away": r"Number of "
    r"column in CSV header|CSV header does not conform",
    "is no complete gzip file: upload it again": r"(?i)not (a gzip file|in gzip format)|incorrect header check|"
    r"unexpected end of|invalid (block|stored|code|distance|literal)|crc error|Corrupt GZIP|incorrect data check",
    "has a column for which Spark has no type (a time of day, a UUID, an interval, a float of 16 bits, a decimal of "
    "more than 38 digits): write it as text or a plain number": r"ParquetToSparkSchemaConverter|Illegal Parquet type|"
    r"Parquet type not yet supported|ParquetMetadataConverter\.getLogicalTypeAnnotation",
    "is not Parquet, or not whole: upload it again": r"is not a Parquet file|corrupted file: the footer|"
    r"can not read class org",
    "has columns of other types than the table's other files": r"CANNOT_MERGE_SCHEMAS|Failed to merge incompatible",
    "has more columns than can be read (20,480)": r"Internal state when error was thrown|Maximum number of columns",
}


Others = Callable[[Column], Dict[str, Column]]


Reader = Callable[[SparkSession, CatalogTable, Table, str], DataFrame]


def nothing_else(good: Column) -> Dict[str, Column]:
    return {}


@dataclass(frozen=True)
class Counts:
    """Of a raw table: its rows, those of them that do not parse, why one of these does not, and what else was asked."""

    rows: int
    bad: int
    reason: Optional[str]
    others: Dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Records:
    """A raw table all of whose lines were looked at before, parsed and kept for all that is asked of it."""

    table: CatalogTable
    declared: Table
    parsed: DataFrame
    counted: Counts

    def parts(self, *, rows: int, text: int) -> int:
        """How many parts it makes, each of so many rows; see `Lines.parts`."""
        return max(1, math.ceil((self.counted.rows - self.counted.bad) / rows))

    @property
    def is_small(self) -> bool:
        return False

    @property
    def good(self) -> DataFrame:
        """The declared columns of the rows that parse."""
        return self.parsed.where(F.col(REASON).isNull()).select(*self.declared.columns)

    @property
    def alone(self) -> DataFrame:
        """`good`, for a query of its own."""
        return self.good

    @property
    def bad(self) -> DataFrame:
        """The rows that do not parse."""
        return self.parsed.where(F.col(REASON).isNotNull())

    def counts(self, plan: str) -> Counts:
        """What `Lines.counts` says, known already."""
        return self.counted


def read_records(
    spark: SparkSession,
    table: CatalogTable,
    declared: Table,
    settings_file: str,
    others: Others = nothing_else,
    *,
    read: Optional[Reader] = None,
) -> Records:
    """The table, whatever its records are like. Raises JobError as `read`, and for an unreadable file.

    `others`: what else is to be counted, given the condition for a row that parses. `read`: `read_lines` if it is None.
    """
    try:
        lines = (read or read_lines)(spark, table, declared, settings_file)
        told = folders_of(spark, table, declared, settings_file) if declared.partitions else {}
        parsed = parse(lines, declared, told=told).persist()
        more = others(F.col(REASON).isNull())
        own = {"rows": F.count("*"), "bad": F.count(REASON), "reason": F.first(REASON, ignorenulls=True)}
        counted = parsed.agg(*[figure.alias(name) for name, figure in {**own, **more}.items()]).collect()[0]
    except (PySparkException, Py4JJavaError) as error:
        if problem := problem_of(error):
            raise JobError(f"Raw table {table}: {problem}") from error
        raise
    others_counted = {name: counted[name] for name in more}
    return Records(table, declared, parsed, Counts(counted["rows"], counted["bad"], counted["reason"], others_counted))


def read_lines(spark: SparkSession, table: CatalogTable, declared: Table, settings_file: str) -> DataFrame:
    """The files of a raw table as text, a column a field, in the files' order: declared columns by their names, others
    `_0`, `_1`, ... by position; `_corrupt` (the record, if it has another number of fields), `_file`.

    Types come later (`parse`): one odd value would otherwise turn into a silent NULL. Raises JobError for a table
    without files or without a declared column, and for files that are not of the declared encoding or never close a
    quote.
    """
    with files_of(table):
        text = spark.read.option("recursiveFileLookup", True).text(table.location)
    options: Dict[str, Any] = {
        **dialect(declared),
        "recursiveFileLookup": True,  # and so no folder name=value becomes a column
        "encoding": CHARSETS[declared.encoding],
        "multiLine": _has_records_of_many_lines(text, table, declared, settings_file),
    }
    if declared.skip:
        return _behind_lines_above(text, table, declared, settings_file)
    names, enforce = list(declared.of_files.columns), True
    where = {name: position for position, name in enumerate(names)}
    if declared.header:
        names = _first_record(spark, table, options)
        where = locate(names, declared, f"Raw table {table}", settings_file)
        # Spark compares each file's header with the schema, if there are others than the one that has just been read.
        enforce = len(text.inputFiles()) == 1
        if not enforce and (twice := repeated(names)):
            raise JobError(
                f"Raw table {table} has several files and the header {_shown(twice)} more than once: "
                "give the columns different names, or upload one file."
            )
    schema = [*(f"_{position}" for position in range(len(names))), CORRUPT] if enforce else [*names, CORRUPT]
    reader = spark.read.schema(StructType([StructField(name, StringType()) for name in schema])).options(**options)
    lines = reader.options(header=declared.header, enforceSchema=enforce).csv(table.location)
    called = {position: name for name, position in where.items()}
    renamed = lines.toDF(*(called.get(position, f"_{position}") for position in range(len(names))), CORRUPT)
    return renamed.withColumn(FILE, F.col("_metadata.file_path"))


def dialect(declared: Table) -> Dict[str, str]:
    """What Spark's CSV reader is to know of a record."""
    return {
        "sep": declared.delimiter,
        "quote": declared.quote,
        "escape": declared.quote_escape,  # a quote is doubled to be meant, unless the settings say otherwise
        # `a, b` has a space that is no part of b; who means it quotes it.
        "ignoreLeadingWhiteSpace": "true",
        "ignoreTrailingWhiteSpace": "true",
        "mode": "PERMISSIVE",
        "columnNameOfCorruptRecord": CORRUPT,
    }


def require_one_place(header: Sequence[str], declared: Table, table: str, settings_file: str) -> None:
    """Raises JobError if the files have a column that is told by folders."""
    for name in declared.partitions:
        text = declared.names.get(name, name)
        if have := [cell for cell in header if _lower(cell) == _lower(text)]:
            raise JobError(
                f"{table}: {name} of {settings_file} is told by folders ({text}=…), but the files have a column "
                f"'{have[0]}' too, and the two may differ: rename one of them, or take {name} out of partitions."
            )


def locate(header: Sequence[str], declared: Table, table: str, settings_file: str) -> Dict[str, int]:
    """The position of each declared column in a header.

    A column's text (its name, unless `names` says another) is looked for as it stands; if it isn't there, whatever the
    case; then with everything but letters and digits as `_`. Raises JobError for a column that is not there, or that
    two could be.
    """
    found: Dict[str, int] = {}
    lacking = []
    require_one_place(header, declared, table, settings_file)
    places: Dict[Callable[[str], str], Dict[str, List[int]]] = {_composed: {}, _lower: {}, _clean: {}}
    for form, positions in places.items():
        for position, have in enumerate(header):
            positions.setdefault(form(have), []).append(position)
    for name in declared.of_files.columns:
        text = declared.names.get(name, name)
        for form, positions in places.items():
            at = positions.get(form(text), [])
            if len(at) > 1:
                raise JobError(
                    f"{table}: column {name} could be any of {len(at)} columns of the header "
                    f"({_shown([header[position] for position in at])}): give them different names in the files."
                )
            if at:
                found[name] = at[0]
                break
        else:
            lacking.append(name if text == name else f"{name} ('{text}')")
    if lacking:
        raise JobError(
            f"{table} has no column {', '.join(lacking)}, which {settings_file} declares; its header has: "
            f"{_shown(header)}. Upload a file that has it, or mend columns, names, delimiter or header of the table."
        )
    by_position: Dict[int, str] = {}
    for name, position in found.items():
        if position in by_position:
            raise JobError(
                f"{table}: columns {by_position[position]} and {name} of {settings_file} are the same column of the "
                f"header, '{header[position]}': say in names which is which."
            )
        by_position[position] = name
    return found


def folders_of(
    spark: SparkSession,
    table: CatalogTable,
    declared: Table,
    settings_file: str,
    files: Optional[Sequence[str]] = None,
) -> Dict[str, Column]:
    """The columns that folders tell (jobs/tables/folders.py), as text over `_file`, for `parse`.

    `files`: of the table, as Spark has them; looked for if that is None. Raises JobError for a file that lies in no
    folder of one of them.
    """
    if files is None:
        with files_of(table):
            files = spark.read.option("recursiveFileLookup", True).text(table.location).inputFiles()
    depth = urlsplit(table.location.rstrip("/")).path.count("/") + 1
    texts = [declared.names.get(name, name) for name in declared.partitions]
    spellings: Dict[str, Dict[str, None]] = {text: {} for text in texts}
    values: Dict[str, Dict[str, Optional[str]]] = {text: {} for text in texts}
    for file in files:
        below = urlsplit(file).path.split("/")[depth:]
        try:
            told = dict(zip(texts, folders.values(unquote("/".join(below)), texts), strict=True))
        except ValueError as error:
            raise JobError(
                f"Raw table {table}: {unquote(file)} {error}, but [tables.{table.name}] of {settings_file} has it in "
                "partitions: put the file into such folders, or take it away."
            ) from None
        for part in below[:-1]:
            name, _, folder = part.partition("=")
            if (text := folders.unescaped(unquote(name))) in told:
                spellings[text][name] = None
                if "%" in folder or folder == folders.NOTHING:
                    values[text][folder] = told[text]
    columns = {}
    for name, text in zip(declared.partitions, texts, strict=True):
        spelled = "|".join(re.escape(spelling) for spelling in spellings[text])
        value = F.regexp_extract(FILE, f".*/(?:{spelled})=([^/]*)/", 1)
        odd = [F.lit(part) for pair in values[text].items() for part in pair]
        if odd:  # few: those with %XX, and the one of no value
            plain = ~value.contains("%") & (value != folders.NOTHING)
            value = F.when(plain, value).otherwise(F.element_at(F.create_map(*odd), value))
        columns[name] = value
    return columns


def parse(
    lines: DataFrame, declared: Table, keep: Sequence[str] = (), told: Optional[Dict[str, Column]] = None
) -> DataFrame:
    """Declared columns in their declared types, and `_file`, `_reason` (NULL for a good row), `_record` (of a bad one).

    `keep`: columns that are no cells and stay as they are. `told`: see `folders_of`.

    A cell that is one of the table's null tokens is NULL; any other that does not cast makes its row bad, and so does
    the header, written as dataset.toml has it, where it stands among the rows. What casts is
    Spark's rule: a boolean is true, t, yes, y or 1 and false, f, no, n or 0 in any case; a double may be NaN or
    Infinity; a date is year-month-day.
    """
    cells = [name for name in lines.columns if name not in (CORRUPT, FILE, WHY, *keep)]
    columns, nulls = declared.columns, _literals(declared.nulls)
    # Spark reads an empty field of CSV as NULL; unless that is a null token it is a text without characters.
    of_csv = declared.format == "csv"
    empty = of_csv and "" not in declared.nulls
    lines = lines.withColumns(told) if told else lines
    texts = {name: f"coalesce(`{name}`, '')" if empty and name in cells else f"`{name}`" for name in columns}
    # One step for the cells and one for the values, so that Spark does not compute them once more for the reasons.
    # In SQL and not column by column: a call to Java for each piece of it takes longer than Spark does.
    given = [f"CASE WHEN {texts[name]} NOT IN ({nulls}) THEN {texts[name]} END AS _given_{name}" for name in columns]
    # try_cast is strict where cast is not: '1.5' is no bigint, instead of 1.
    values = [f"try_cast(_given_{name} AS {kind}) AS _value_{name}" for name, kind in columns.items()]
    stepped = lines.selectExpr("*", *given).selectExpr("*", *values)

    why = F.col(WHY) if WHY in lines.columns else _misfit(len(cells))
    reasons = [F.when(F.col(CORRUPT).isNotNull(), why)]
    own = declared.of_files.columns
    if of_csv and declared.header and len(own) > 1:
        # In capitals or not, with blanks or not, as the file's own header is found.
        called = {name: _literals([declared.names.get(name, name)]) for name in own}
        same = [f"lower(trim(coalesce(`{name}`, ''))) = lower(trim({text}))" for name, text in called.items()]
        reasons.append(F.when(F.expr(" AND ".join(same)), F.lit(records.REPEATED)))
    unfit = [
        f"CASE WHEN _given_{name} IS NOT NULL AND _value_{name} IS NULL THEN "
        f"concat('column {name}: \\'', substring(_given_{name}, 1, 100), '\\' is not a {kind}') END"
        for name, kind in columns.items()
        if kind != "string"
    ]
    if unfit:
        reasons.append(F.expr(f"coalesce({', '.join(unfit)})"))
    record = f"struct({', '.join(f'`{name}`' for name in cells)})"
    written = _literals(["sep", declared.delimiter, "quote", declared.quote, "escape", declared.quote_escape])
    rebuilt = f"to_csv({record}, map({written}))" if of_csv else f"to_json({record})"
    return stepped.withColumn(REASON, F.coalesce(*reasons)).selectExpr(
        *[f"_value_{name} AS `{name}`" for name in columns],
        FILE,
        REASON,
        f"CASE WHEN {REASON} IS NOT NULL THEN coalesce({CORRUPT}, {rebuilt}) END AS {RECORD}",
        *keep,
    )


def problem_of(error: Exception) -> str:
    """What is wrong with which file, if an error of Spark's is about a file that it cannot read as CSV; else ''."""
    said = " ".join(str(error).split())
    for problem, pattern in UNREADABLE.items():
        if re.search(pattern, said):
            file = re.search(r"(?:error while reading file|CSV file:|footer for file:) (\S+?)\.? ", f"{said} ")
            return f"{file.group(1) if file else 'a file'} {problem}."
    return ""


def ends_within_quotes(line: Column, declared: Table) -> Column:
    """Whether a quoted field does not end within its line, before a delimiter: it goes on, or its quote is stray."""
    taken_out, left = records.suspect(declared.delimiter, declared.quote, declared.quote_escape)
    single = line
    for pattern in taken_out:
        single = F.regexp_replace(single, pattern, "")
    return line.contains(declared.quote) & single.rlike(left)


def is_open(line: str, declared: Table) -> bool:
    """`ends_within_quotes` of one line that is at hand."""
    taken_out, left = records.suspect(declared.delimiter, declared.quote, declared.quote_escape)
    single = line
    for pattern in taken_out:
        single = re.sub(pattern, "", single)
    return declared.quote in line and re.search(left, single) is not None


@contextmanager
def files_of(table: CatalogTable) -> Iterator[None]:
    """For what looks which files a table has. Raises JobError if it has none; whatever else is wrong is let through."""
    try:
        yield
    except AnalysisException as error:
        if not re.search(NO_FILES, str(error)):
            raise
        raise JobError(f"Raw table {table} has no files: upload them with `dml data push`, then run again.") from error


def misread(value: Column, declared: Table, file: Column) -> Column:
    """For `not_text`, of a line as Spark's text reader has it, in a file of CSV: NULL if it is what it should be; else
    the file, with the line behind it if that begins with a byte order mark. The one at the file's start is not there.
    """
    marked = F.concat(file, F.lit("\n"), F.substring(value, 2, 2 * records.SHOWN))
    return F.when(value.startswith(records.MARK), marked).when(is_malformed(value, declared), file)


def is_malformed(value: Column, declared: Table) -> Column:
    """Whether a line, as Spark's text reader has it, is no text in the declared encoding."""
    undefined = {
        "utf-8": value != decoded(value, declared),  # malformed bytes come back as others
        "latin-1": F.lit(False),
        "windows-1252": decoded(value, declared).contains("\ufffd"),
    }[declared.encoding]
    return undefined | value.contains("\0")


def decoded(value: Column, declared: Table) -> Column:
    """A line as the declared encoding has it: Spark's text reader keeps the bytes as they are."""
    return F.decode(value.cast("binary"), CHARSETS[declared.encoding])


def not_text(spark: SparkSession, table: CatalogTable, told: str, declared: Table, settings_file: str) -> str:
    """What is wrong with a file that is not text in the declared encoding, in a sentence. `told`: see `misread`."""
    file, marked, line = told.partition("\n")
    if marked:
        return records.told_of_mark(f"Raw table {table}: a line of {file}", line)
    where = f"[tables.{table.name}] of {settings_file}"
    if declared.format == "jsonl" and not _start_of(spark, file).startswith(b"PAR1"):
        return (
            f"Raw table {table}: {file} is not UTF-8, as JSON is; convert it, such as by `iconv -f ENCODING -t UTF-8`."
        )
    if what := records.foreign(_start_of(spark, file)):
        return f"Raw table {table}: {file} {what}{f' in {where}' if 'say ' in what else ''}."
    others = " or ".join(f'encoding = "{name}"' for name in CHARSETS if name not in (declared.encoding, "utf-8"))
    name = {"utf-8": "UTF-8", "latin-1": "Latin-1", "windows-1252": "Windows-1252"}[declared.encoding]
    return (
        f"Raw table {table}: {file} is not {name}; convert it, such as by `iconv -f ENCODING -t UTF-8`, or say "
        f"{others} in {where}."
    )


def _start_of(spark: SparkSession, file: str) -> bytes:
    java: Any = spark.sparkContext._jvm
    path = java.org.apache.hadoop.fs.Path(java.java.net.URI(file))
    opened = path.getFileSystem(spark.sparkContext._jsc.hadoopConfiguration()).open(path)
    try:
        start = bytes(opened.readNBytes(1_000))
    finally:
        opened.close()
    if start.startswith(b"\x1f\x8b"):
        return zlib.decompressobj(wbits=31).decompress(start)
    return b"" if file.lower().endswith(PACKED) else start


def _has_records_of_many_lines(text: DataFrame, table: CatalogTable, declared: Table, settings_file: str) -> bool:
    """Whether a line of the files ends within a quoted field, so that its record goes on in the next line.

    Spark splits a file between its cores only if each line is a record, so records of many lines are looked for instead
    of allowed for always: a look at the lines is a small part of the time that parsing takes. The same look finds files
    that are not UTF-8, which would otherwise become text with question marks, and quotes that are never closed, which
    would otherwise swallow the rows after them.
    """
    # What the bytes mean is for the encoding to say: as UTF-8, Latin-1 has characters that take the next one with them.
    value, file = F.col("value"), F.col("_metadata.file_path")
    open_quotes = F.collect_set(F.when(ends_within_quotes(decoded(value, declared), declared), file))
    malformed = F.max(misread(value, declared, file))
    suspects, told = text.agg(open_quotes, malformed).head() or ([], None)
    if told:
        raise JobError(not_text(text.sparkSession, table, told, declared, settings_file))
    if not suspects:
        return False
    look_for_lost_rows(text, sorted(suspects), table, declared, settings_file)
    names = sorted(unquote(file) for file in text.inputFiles())
    if odd := [name for name in names if re.search(r"[][{}*?\\]", name)]:
        raise JobError(
            f"Raw table {table}: {odd[0]} has a name with one of [ ] {{ }} * ? \\, which Spark takes for a pattern "
            "as it reads records of many lines: give the file another name, and upload it again."
        )
    return True


def look_for_lost_rows(
    text: DataFrame, files: Sequence[str], table: CatalogTable, declared: Table, settings_file: str
) -> None:
    """Looks at all lines of files with quotes to look after, one file after the other, each in one task.

    Raises JobError naming the lines in which a quote swallows rows: one that is never closed, is closed by another
    cell's, or is followed by more of its cell. `text`: the table's lines.
    """

    def look(rows: Iterable[Any]) -> List[Tuple[Any, ...]]:
        found = _records_of(rows, declared)
        return [tuple(fault) for fault in records.faults(found, declared.delimiter, many_lines=declared.many_lines)]

    for path in files:
        line = decoded(F.col("value"), declared).alias("line")
        # In one partition a file's lines are in their order: its parts are of one length, but for the last.
        of_file = text.where(F.col("_metadata.file_path") == path).select(line).coalesce(1)
        if found := of_file.rdd.mapPartitions(look).collect():
            where = f"[tables.{table.name}] of {settings_file}"
            faults = [records.Fault(*fault) for fault in found]
            told = records.sentence(faults, path, declared.quote, declared.quote_escape, where)
            raise JobError(f"Raw table {table}: {told}")


def _records_of(rows: Iterable[Any], declared: Table) -> Iterator[records.Record]:
    """The records of a file, whose lines are these rows' `line`."""
    return records.as_written((f"{row['line']}\n" for row in rows), declared)


def _behind_lines_above(text: DataFrame, table: CatalogTable, declared: Table, settings_file: str) -> DataFrame:
    """What `read_lines` gives of files with lines above their header, which Spark's own reader does not pass over.

    Each file's lines are brought together in one task, in their order, and read by jobs/tables/records.py.
    """

    def of_files(rows: Iterable[Any]) -> Iterator[Tuple[str, Iterator[records.Record]]]:
        for file, of_file in groupby(rows, key=lambda row: row["file"]):
            yield file, _records_of(of_file, declared)

    def heads(rows: Iterable[Any]) -> List[Tuple[str, ...]]:
        firsts = [(file, next(found, None)) for file, found in of_files(rows)]
        return [tuple(first.cells) for _, first in firsts if first is not None]

    def body(rows: Iterable[Any]) -> Iterator[Tuple[Optional[str], ...]]:
        for file, found in of_files(rows):
            for record in islice(found, 1 if declared.header else 0, None):
                whole = len(record.cells) == len(names)
                cells = [cell or None for cell in record.cells] if whole else [None] * len(names)
                yield (*cells, None if whole else "\n".join(record.raw), file)

    spark = text.sparkSession
    file, start = F.col("_metadata.file_path"), F.col("_metadata.file_block_start")
    nth, line = F.monotonically_increasing_id(), decoded(F.col("value"), declared)
    numbered = text.select(file.alias("file"), start.alias("start"), nth.alias("nth"), line.alias("line"))
    parts = min(len(text.inputFiles()), 4 * spark.sparkContext.defaultParallelism)
    lines = numbered.repartition(parts, "file").sortWithinPartitions("file", "start", "nth").rdd
    names = list(declared.of_files.columns)
    where = {name: position for position, name in enumerate(names)}
    if declared.header:
        headers = sorted(set(lines.mapPartitions(heads).collect()))
        if not headers:
            raise JobError(f"Raw table {table} is empty: upload its files with `dml data push`, then run again.")
        if len({tuple(map(_lower, header)) for header in headers}) > 1:
            raise JobError(
                f"Raw table {table}: behind the first {declared.skip} lines (skip) its files have different headers: "
                f"{_shown(headers[0])}; and {_shown(headers[1])}."
            )
        names = list(headers[0])
        where = locate(names, declared, f"Raw table {table}", settings_file)
    called = {position: name for name, position in where.items()}
    columns = [*(called.get(position, f"_{position}") for position in range(len(names))), CORRUPT, FILE]
    schema = StructType([StructField(column, StringType()) for column in columns])
    return spark.createDataFrame(lines.mapPartitions(body), schema, verifySchema=False)


def _first_record(spark: SparkSession, table: CatalogTable, options: Dict[str, Any]) -> List[str]:
    """The fields of the files' first record."""
    first = spark.read.options(**options).csv(table.location).head()
    if first is None:
        raise JobError(f"Raw table {table} is empty: upload its files with `dml data push`, then run again.")
    return ["" if field is None else field for field in first]


def _misfit(fields: int) -> Any:
    """Why a record with another number of fields is bad."""
    lines = F.length(CORRUPT) - F.length(F.regexp_replace(CORRUPT, "\n", "")) + 1
    told = f"has not the {fields} fields of the header"
    return F.when(lines == 1, F.lit(f"the line {told}")).otherwise(
        F.concat(F.lit("the record of "), lines, F.lit(f" lines {told}; is a quote in it never closed?"))
    )


def repeated(names: Sequence[str]) -> List[str]:
    """The names that others are equal to, whatever their case."""
    lower = [name.lower() for name in names]
    return [name for name in names if lower.count(name.lower()) > 1]


def _composed(text: str) -> str:
    """Without the space around it, and é as one character: it can be written as two."""
    return unicodedata.normalize("NFC", text.strip())


def _lower(text: str) -> str:
    return _composed(text).casefold()


def _clean(text: str) -> str:
    return re.sub(r"[\W_]+", "_", _lower(text)).strip("_")


def _shown(names: Sequence[str]) -> str:
    more = f" and {len(names) - SHOWN_NAMES} more" if len(names) > SHOWN_NAMES else ""
    return ", ".join(f"'{name[:60]}'" for name in names[:SHOWN_NAMES]) + more


def _literals(tokens: Sequence[str]) -> str:
    return ", ".join("'" + token.replace("\\", "\\\\").replace("'", "\\'") + "'" for token in tokens)
