"""Raw CSV files into typed rows, for prepare.py: a row that does not parse is set aside with file and reason."""

import re
from typing import List

from pyspark.errors import AnalysisException
from pyspark.sql import DataFrame, SparkSession
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
    found = {name.lower(): name for name in cells}  # the catalog keeps lower case, files need not
    nulls, columns = _literals(table["nulls"]), table["columns"]
    # One step for the cells and one for the values, so that Spark does not compute them once more for the reasons.
    given = [
        F.expr(f"CASE WHEN `{found[name]}` NOT IN ({nulls}) THEN `{found[name]}` END").alias(f"_given_{name}")
        for name in columns
    ]
    # try_cast is strict where cast is not: '1.5' is no bigint, instead of 1.
    values = [F.expr(f"try_cast(_given_{name} AS {kind})").alias(f"_value_{name}") for name, kind in columns.items()]
    stepped = lines.select("*", *given).select("*", *values)

    fits = F.col(CORRUPT).isNull()
    reasons = [F.when(~fits, F.lit(f"the line has not the {len(cells)} fields of the header"))]
    for name, kind in columns.items():
        unfit = F.col(f"_given_{name}").isNotNull() & F.col(f"_value_{name}").isNull()
        cell = F.substring(f"_given_{name}", 1, 100)
        reasons.append(F.when(unfit, F.concat(F.lit(f"column {name}: '"), cell, F.lit(f"' is not a {kind}"))))
        fits = fits & ~unfit
    rebuilt = F.to_csv(F.struct(*[F.col(f"`{name}`") for name in cells]))
    return stepped.select(
        *[F.col(f"_value_{name}").alias(name) for name in columns],
        FILE,
        F.when(~fits, F.coalesce(*reasons)).alias(REASON),
        F.when(~fits, F.coalesce(F.col(CORRUPT), rebuilt)).alias(RECORD),
    )


def header_problem(error: Exception) -> str:
    """What Spark's CSV reader says of a header that is not the catalog's, '' if the error is another."""
    said = re.search(
        r"(Number of column in CSV header|CSV header does not conform).*?CSV file: \S+", str(error), re.DOTALL
    )
    return " ".join(said.group(0).split()) if said else ""


def _literals(tokens: List[str]) -> str:
    return ", ".join("'" + token.replace("\\", "\\\\").replace("'", "\\'") + "'" for token in tokens)
