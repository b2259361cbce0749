"""Raw tables of Parquet and of JSON lines as what a CSV file has: cells of text, so that one set of rules is for all.

A missing value is NULL, and from there on nulls, types and quarantine are those of jobs/tables/raw.py.
"""

import json
import re
from typing import Any, Dict, Iterable, Iterator, Optional, Sequence, Tuple
from urllib.parse import unquote

from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as F
from pyspark.sql.types import StringType, StructField, StructType

from jobs.errors import JobError
from jobs.tables import json_lines, raw, records
from jobs.tables.catalog import CatalogTable
from jobs.tables.settings import DECLARABLE, Table

# What Spark calls the types of Parquet's columns, by the kinds of DECLARABLE. Others are no cells.
KINDS = {
    "string": r"string|varchar.*|char.*",
    "whole": r"tinyint|smallint|int|bigint|decimal\(\d+,0\)",
    "double": r"float|double|decimal.*",
    "boolean": r"boolean",
    "date": r"date",
    "timestamp": r"timestamp.*",
}
NANOSECONDS = "TIMESTAMP(NANOS"  # as parquet-java shows such a field, for which Spark has no type


def of_parquet(spark: SparkSession, table: CatalogTable, declared: Table, settings_file: str) -> DataFrame:
    """As raw.read_lines, of Parquet files: the declared columns as text.

    Raises JobError for files that are not Parquet, are of different types, or lack a declared column, and for a column
    that cannot be what it is declared as.
    """
    spark.conf.set("spark.sql.legacy.parquet.nanosAsLong", "true")
    with raw.files_of(table):
        rows = spark.read.options(recursiveFileLookup=True, mergeSchema=True).parquet(table.location)
    where = raw.locate(rows.columns, declared, f"Raw table {table}", settings_file)
    called = {name: rows.columns[position] for name, position in where.items()}
    nanoseconds = set()
    for file in rows.inputFiles():
        fields = _fields_of(spark, file)
        if lacking := [name for name, field in called.items() if field not in fields]:
            raise JobError(
                f"Raw table {table}: {unquote(file)} has no column {', '.join(lacking)}, which other files of the "
                "table have: bring it up to date, or take it away."
            )
        nanoseconds |= {name for name, field in called.items() if NANOSECONDS in fields[field]}
    types, numbers = dict(rows.dtypes), records.numbers_of(declared.nulls)
    texts = []
    for name, kind in declared.of_files.columns.items():
        spark_type = "timestamp" if name in nanoseconds else types[called[name]]
        fits = DECLARABLE.get(kind_of(spark_type), ())
        if kind not in fits:
            ways = f"declare {' or '.join(fits)}" if fits else "leave it out, or write the file with a plain column"
            raise JobError(
                f"Raw table {table}: column {name} is {spark_type} in the files, and cannot be read as {kind}, as "
                f"{settings_file} declares it: {ways}."
            )
        text = _text("`{}`".format(called[name].replace("`", "``")), spark_type, numbers, name in nanoseconds)
        texts.append(text.alias(name))
    return rows.select(
        *texts, F.lit(None).cast("string").alias(raw.CORRUPT), F.col("_metadata.file_path").alias(raw.FILE)
    )


def of_json_lines(spark: SparkSession, table: CatalogTable, declared: Table, settings_file: str) -> DataFrame:
    """As raw.read_lines, of JSON lines: the declared columns as text, and raw.WHY beside the lines that are no rows.

    Raises JobError for files that are not UTF-8, for a declared column whose key no line has, and for a key that
    folders tell as well.
    """
    own = declared.of_files.columns
    keys = [declared.names.get(name, name) for name in own]

    def cells(rows: Iterable[Any]) -> Iterator[Tuple[Optional[str], ...]]:
        for row in rows:
            line = row["line"].lstrip("\ufeff").rstrip("\r")
            if line.strip():
                values, why = json_lines.cells(line, keys)
                yield (*(values or [None] * len(keys)), line if why else None, row["file"], why or None)

    with raw.files_of(table):
        text = spark.read.options(recursiveFileLookup=True, lineSep="\n").text(table.location)
    value, file = F.col("value"), F.col("_metadata.file_path")
    written = [(json.dumps(key, ensure_ascii=False), json.dumps(key)) for key in keys]
    has = [F.max(value.contains(plain) | value.contains(escaped)) for plain, escaped in written]
    folders = [declared.names.get(name, name) for name in declared.partitions]
    twice = [F.max(F.get_json_object(value, f"$['{text}']").isNotNull()) for text in folders]
    found = text.agg(F.max(F.when(raw.is_malformed(value, declared), file)), *has, *twice).collect()[0]
    malformed, there, twice_there = found[0], found[1 : len(has) + 1], found[len(has) + 1 :]
    if malformed:
        raise JobError(raw.not_text(spark, table, malformed, declared, settings_file))
    if None in there:
        raise JobError(f"Raw table {table} is empty: upload its files with `dml data push`, then run again.")
    if lacking := [name for name, has_it in zip(own, there, strict=True) if not has_it]:
        raise JobError(
            f"Raw table {table}: no line has a key for the column {', '.join(lacking)} of {settings_file} (keys are "
            "told apart by capitals): mend columns or names of the table, or the files."
        )
    both = [folder for folder, has_it in zip(folders, twice_there, strict=True) if has_it]
    raw.require_one_place(both, declared, f"Raw table {table}", settings_file)
    columns = [*own, raw.CORRUPT, raw.FILE, raw.WHY]
    schema = StructType([StructField(column, StringType()) for column in columns])
    lines = text.select(value.alias("line"), file.alias("file")).rdd.mapPartitions(cells)
    return spark.createDataFrame(lines, schema, verifySchema=False)


READERS: Dict[str, raw.Reader] = {"csv": raw.read_lines, "parquet": of_parquet, "jsonl": of_json_lines}


def kind_of(spark_type: str) -> str:
    """Which of DECLARABLE's kinds a Parquet column is of; '' if it has no cells."""
    return next((kind for kind, pattern in KINDS.items() if re.fullmatch(pattern, spark_type)), "")


def _text(column: str, spark_type: str, nulls: Sequence[float], nanoseconds: bool) -> Column:
    """The text of a column's values. A double is held against `nulls`, null tokens that are numbers, as a number."""
    if nanoseconds:
        return F.expr(f"CAST(timestamp_micros(({column} - pmod({column}, 1000L)) div 1000L) AS STRING)")
    if kind_of(spark_type) != "double":
        return F.expr(f"CAST({column} AS STRING)")
    value = F.expr(f"CAST({column} AS DOUBLE)" if spark_type == "float" else column)
    return F.when(~value.cast("double").isin(list(nulls)), value.cast("string")) if nulls else value.cast("string")


def _fields_of(spark: SparkSession, file: str) -> Dict[str, str]:
    """The fields of a Parquet file by name, as its footer has them. Raises JobError if it has none."""
    from py4j.protocol import Py4JJavaError  # py4j ships no types

    context: Any = spark.sparkContext
    java = context._jvm
    path = java.org.apache.hadoop.fs.Path(java.java.net.URI(file))
    hadoop = java.org.apache.parquet.hadoop
    try:
        source = hadoop.util.HadoopInputFile.fromPath(path, context._jsc.hadoopConfiguration())
        opened = hadoop.ParquetFileReader.open(source)
    except Py4JJavaError as error:
        raise JobError(f"{unquote(file)} cannot be read as Parquet: {error.java_exception.toString()}") from error
    try:
        fields = opened.getFooter().getFileMetaData().getSchema().getFields()
        return {field.getName(): field.toString() for field in fields}
    finally:
        opened.close()
