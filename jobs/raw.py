"""Raw CSV files into typed rows, for prepare.py: a row that does not parse is set aside with file and reason."""

import re
from typing import List

from pyspark.errors import AnalysisException
from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as F
from pyspark.sql.types import StringType, StructField, StructType

from jobs.catalog import CatalogTable
from jobs.errors import JobError
from jobs.settings import Table

# Columns that `parse` adds. The raw tables' own names begin with a letter.
CORRUPT, FILE, REASON, RECORD = "_corrupt", "_file", "_reason", "_record"


def read_lines(spark: SparkSession, table: CatalogTable) -> DataFrame:
    """The files of a raw table: its columns as strings, `_corrupt` (the line, if it does not fit the header), `_file`.

    Types come later (`parse`): a crawler guesses them from a sample, and one odd value would turn into a silent NULL.
    """
    schema = StructType([StructField(name, StringType()) for name in [*table.columns, CORRUPT]])
    reader = spark.read.schema(schema).options(
        header=table.header,
        enforceSchema=False,  # compares each file's header with the catalog's columns
        sep=table.delimiter,
        quote=table.quote,
        escape=table.quote,
        mode="PERMISSIVE",
        columnNameOfCorruptRecord=CORRUPT,
    )
    try:
        return reader.csv(table.location).withColumn(FILE, F.col("_metadata.file_path"))
    except AnalysisException as error:
        raise JobError(f"Raw table {table} has no files: upload them with `dml data push`, then run again.") from error


def parse(lines: DataFrame, table: Table) -> DataFrame:
    """Declared columns in their declared types, and `_file`, `_reason` (NULL for a good row), `_record` (of a bad one).

    A cell that is one of the table's null tokens is NULL; any other that does not cast makes its row bad.
    """
    cells = [name for name in lines.columns if name not in (CORRUPT, FILE)]
    found = {name.lower(): name for name in cells}  # a catalog keeps lower case, a test or a later reader may not
    typed: List[Column] = []
    reasons = [F.when(F.col(CORRUPT).isNotNull(), F.lit(f"the line has not the {len(cells)} fields of the header"))]
    for name, kind in table["columns"].items():
        cell = f"CASE WHEN `{found[name]}` NOT IN ({_literals(table['nulls'])}) THEN `{found[name]}` END"
        # try_cast is strict where cast is not: '1.5' is no bigint, instead of 1.
        given, value = F.expr(cell), F.expr(f"try_cast({cell} AS {kind})")
        typed.append(value.alias(name))
        told = F.concat(F.lit(f"column {name}: '"), F.substring(given, 1, 100), F.lit(f"' is not a {kind}"))
        reasons.append(F.when(given.isNotNull() & value.isNull(), told))
    reason = F.coalesce(*reasons)
    rebuilt = F.to_csv(F.struct(*[F.col(f"`{name}`") for name in cells]))
    record = F.when(reason.isNotNull(), F.coalesce(F.col(CORRUPT), rebuilt))
    return lines.select(*typed, FILE, reason.alias(REASON), record.alias(RECORD))


def header_problem(error: Exception) -> str:
    """What Spark's CSV reader says of a header that is not the catalog's, '' if the error is another."""
    said = re.search(
        r"(Number of column in CSV header|CSV header does not conform).*?CSV file: \S+", str(error), re.DOTALL
    )
    return " ".join(said.group(0).split()) if said else ""


def _literals(tokens: List[str]) -> str:
    return ", ".join("'" + token.replace("\\", "\\\\").replace("'", "\\'") + "'" for token in tokens)
