"""Raw CSV files: what parses, what is set aside, and what the reader of an error is told."""

from pathlib import Path

import pytest
from py4j.protocol import Py4JJavaError  # type: ignore[import-untyped]  # py4j ships no types
from pyspark.errors import PySparkException
from pyspark.sql import SparkSession

from jobs import raw
from jobs.catalog import CatalogTable
from jobs.settings import Table

SCHEMA: Table = {"columns": {"id": "bigint", "x": "double", "at": "timestamp"}, "nulls": ["", "NA"]}


def table(folder: Path, text: str, columns: str = "id,note,x,at", delimiter: str = ",") -> CatalogTable:
    (folder / "file.csv").write_text(text)
    names = dict.fromkeys(columns.split(","), "string")
    return CatalogTable("db", "points", folder.as_uri(), names, "csv", delimiter, '"', True)


def test_good_rows_should_have_the_declared_types(spark: SparkSession, tmp_path: Path) -> None:
    text = 'id,note,x,at\n1,"a, b",2.5,2013-01-01T10:00:00Z\n2,,NA,\n'
    parsed = raw.parse(raw.read_lines(spark, table(tmp_path, text)), SCHEMA)
    assert parsed.select("id", "x", "at").dtypes == [("id", "bigint"), ("x", "double"), ("at", "timestamp")]
    assert parsed.selectExpr("id", "x", "string(at)", raw.REASON, raw.RECORD).collect() == [
        (1, 2.5, "2013-01-01 10:00:00", None, None),
        (2, None, None, None, None),
    ]


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("1,a,2.5", "the line has not the 4 fields of the header"),
        ("1,a,2.5,,surplus", "the line has not the 4 fields of the header"),
        ("1.5,a,2.5,", "column id: '1.5' is not a bigint"),
        ("1,a,two,", "column x: 'two' is not a double"),
        ("1,a,2.5,2013-02-30", "column at: '2013-02-30' is not a timestamp"),
        ("99999999999999999999,a,2.5,", "column id: '99999999999999999999' is not a bigint"),
    ],
)
def test_a_row_that_does_not_parse_should_be_told_with_file_reason_and_record(
    spark: SparkSession, tmp_path: Path, line: str, reason: str
) -> None:
    text = f"id,note,x,at\n7,good,1,\n{line}\n"
    parsed = raw.parse(raw.read_lines(spark, table(tmp_path, text)), SCHEMA)
    (bad,) = parsed.where(f"{raw.REASON} IS NOT NULL").collect()
    assert bad[raw.REASON] == reason
    assert bad[raw.RECORD] == line
    assert bad[raw.FILE].endswith("/file.csv")


def test_a_broken_row_should_be_seen_even_if_nobody_asks_for_its_columns(spark: SparkSession, tmp_path: Path) -> None:
    parsed = raw.parse(raw.read_lines(spark, table(tmp_path, "id,note,x,at\n1\n2,b,3,\n")), SCHEMA)
    assert parsed.where(f"{raw.REASON} IS NOT NULL").count() == 1


def test_another_delimiter_should_come_from_the_catalog(spark: SparkSession, tmp_path: Path) -> None:
    semicolons = table(tmp_path, "id;note;x;at\n1;a,b;2;\n", delimiter=";")
    assert raw.parse(raw.read_lines(spark, semicolons), SCHEMA).select("id", "x").collect() == [(1, 2.0)]


def test_names_should_fit_whatever_their_case(spark: SparkSession, tmp_path: Path) -> None:
    # Glue keeps lower case only, whatever the file's header says.
    parsed = raw.parse(raw.read_lines(spark, table(tmp_path, "ID,Note,X,At\n1,a,2,\n")), SCHEMA)
    assert parsed.select("id", "x", raw.REASON).collect() == [(1, 2.0, None)]


@pytest.mark.parametrize("header", ["id,x,note,at", "id,note,x", "1,a,2.5,"])
def test_a_header_that_is_not_the_catalogs_should_be_told(spark: SparkSession, tmp_path: Path, header: str) -> None:
    parsed = raw.parse(raw.read_lines(spark, table(tmp_path, f"{header}\n1,a,2,\n")), SCHEMA)
    with pytest.raises(Py4JJavaError) as error:
        parsed.collect()
    problem = raw.header_problem(error.value)
    assert "CSV header" in problem
    assert problem.endswith("file.csv")


def test_another_error_should_not_be_taken_for_a_wrong_header(spark: SparkSession) -> None:
    with pytest.raises(PySparkException) as error:
        spark.sql("SELECT nothing")
    assert raw.header_problem(error.value) == ""
