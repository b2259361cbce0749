"""Raw tables that are read line by line: the same rows as by Spark's CSV reader, and counts that always add up."""

import gzip
from pathlib import Path
from typing import Any

import pytest
from pydantic import TypeAdapter
from pyspark.sql import SparkSession

from jobs.tables import lines, raw
from jobs.tables.catalog import CatalogTable
from jobs.tables.observed import plan_of
from jobs.tables.settings import Table
from tests.jobs.test_raw import CELLS, WORDS

FILE = "datasets/points/dataset.toml"


def opened(
    spark: SparkSession, folder: Path, files: "str | dict[str, bytes]", name: str = "points", **settings: Any
) -> lines.Lines:
    folder.mkdir(exist_ok=True)
    for file, content in ({"file.csv": files.encode()} if isinstance(files, str) else files).items():
        (folder / file).write_bytes(content)
    declared = TypeAdapter(Table).validate_python(settings or WORDS)
    return lines.open_lines(spark, CatalogTable("db", name, folder.as_uri(), "csv"), declared, FILE)


def told(table: lines.Lines) -> list[Any]:
    """(values, reason, record) of each row that is read by lines; fails if its lines turn out not to be records."""
    table.counts("")
    found = table.parsed.where(lines.IS_RECORD).drop(raw.FILE, *lines.SAID).collect()
    return [tuple(row) for row in found]


OF_MANY_LINES = {name for name in CELLS if "lines within quotes" in name or "line within" in name}


@pytest.mark.parametrize("name", [*CELLS, "bad rows"])
def test_lines_should_be_read_as_spark_reads_the_file(spark: SparkSession, tmp_path: Path, name: str) -> None:
    bad = 'id,word\n1,a\n\nx,b\n2,c,surplus\n3\n4,"d ""e"" "\n #5 , f\r\n  \n'
    text = CELLS[name][0] if name in CELLS else bad
    if name in OF_MANY_LINES:
        with pytest.raises(lines.NotLinesError):
            told(opened(spark, tmp_path, text))
        return
    table = opened(spark, tmp_path, text)
    expected = raw.read_records(spark, table.table, table.declared, FILE)
    assert told(table) == [tuple(row) for row in expected.parsed.drop(raw.FILE).collect()]
    counts = table.counts("")
    assert (counts.rows, counts.bad) == (expected.counted.rows, expected.counted.bad)
    assert (counts.bad > 0) is (name == "bad rows")


@pytest.mark.parametrize(
    ("files", "settings"),
    [
        ({"a.csv": b"id,word\n1,a\nid,word\n2,b\n"}, WORDS),
        ({"a.csv": b"id,word\n1,a\nid,word\n", "b.csv": b"x,y\n2,b\n"}, WORDS),
        ({"a.csv": b"id,word\n1,a\n", "b.csv": b"2,b\nid,word\n"}, WORDS),
        ({"a.csv": b"id,word\n1,a\n", "empty.csv": b""}, WORDS),
        ({"a.csv.gz": gzip.compress(b"id,word\n1,a\n")}, WORDS),
        ({"a.csv": b"id,word\r1,a\r2,b\r"}, WORDS),
        ({"a.csv": b"id,word\n" + b"1,a\n" * 200 + b'2,"b\nc"\n'}, WORDS),
        ({"a.csv": b'id,"wo""rd"\n1,a\n'}, {**WORDS, "names": {"word": 'wo"rd'}}),
    ],
    ids=["header twice", "other header", "header last", "empty file", "gzip", "old Mac", "late quote", "odd header"],
)
def test_lines_that_may_not_be_the_records_should_be_noticed(
    spark: SparkSession, tmp_path: Path, files: dict[str, bytes], settings: dict[str, Any]
) -> None:
    with pytest.raises(lines.NotLinesError) as error:
        told(opened(spark, tmp_path, files, **settings))
    assert error.value.tables == ("points",)


def test_several_files_should_be_one_table_without_their_headers(spark: SparkSession, tmp_path: Path) -> None:
    files = {
        "a.csv": b"\n id , word\n1,x\n",
        "b.csv": b" id , word\r\n2,y\r\n",
        "c.csv": b"\xef\xbb\xbf id , word\n3,z",
    }
    table = opened(spark, tmp_path, files)
    assert sorted(told(table)) == [(1, "x", None, None), (2, "y", None, None), (3, "z", None, None)]


@pytest.mark.parametrize(
    "query",
    [
        "SELECT * FROM a LIMIT 3",
        "SELECT 1 AS one",
        "SELECT * FROM a WHERE false",
        "SELECT * FROM a UNION ALL SELECT * FROM a",
        "SELECT a.* FROM a JOIN a AS other ON a.id = other.id + 1000",
        "SELECT c.* FROM c LEFT JOIN (SELECT a.id FROM a JOIN b ON a.id = b.id WHERE b.id < 0) AS d ON c.id = d.id",
    ],
)
def test_rows_should_be_counted_once_whatever_the_query_makes_of_them(
    spark: SparkSession, tmp_path: Path, query: str
) -> None:
    text = "id,word\n" + "".join(f"{i},w{i}\n" for i in range(20_000)) + "x,bad\n"
    tables = {name: opened(spark, tmp_path / name, text, name=name) for name in "abc"}
    for name, table in tables.items():
        table.good.createOrReplaceTempView(name)
    before = spark.conf.get("spark.sql.autoBroadcastJoinThreshold")
    spark.conf.set("spark.sql.autoBroadcastJoinThreshold", "-1")
    try:
        rows = spark.sql(query)
        rows.write.format("noop").mode("overwrite").save()
        plan = plan_of(rows)
    finally:
        spark.conf.set("spark.sql.autoBroadcastJoinThreshold", before)
    for table in tables.values():
        assert table.counts(plan) == raw.Counts(20_001, 1, "column id: 'x' is not a bigint")
