"""A raw table of several files in folders name=value: the same rows, columns and counts whoever reads it."""

import gzip
import json
from pathlib import Path
from typing import Any

import pyarrow as pa  # pyarrow ships no types
import pyarrow.parquet as pq
import pytest
from pydantic import TypeAdapter
from pyspark.sql import SparkSession

from jobs.errors import JobError
from jobs.tables import cells, folders, lines, raw
from jobs.tables.catalog import CatalogTable
from jobs.tables.settings import Table

FILE = "datasets/points/dataset.toml"
DECLARED = {
    "columns": {"id": "bigint", "year": "bigint", "place": "string"},
    "names": {"year": "Year"},
    "partitions": ["year", "place"],
    "nulls": ["NA"],  # without "", an empty field is a text; no value of a folder is none
}
# Each folder's value, and what is meant by it: what a URI or Hive writes as %XX, Spark's name for none, and plain text.
PLACES = {
    "01": "01", "a%20b": "a b", "K%C3%B6ln": "Köln", "Köln+1": "Köln+1", "a=b": "a=b", "50%": "50%", "NA": None,
    "__HIVE_DEFAULT_PARTITION__": None,
}  # fmt: skip
BODY = b"id,rest\n{0},x\n{1},y\nz,{1}\n{1}\n"


def numbered(at: int) -> bytes:
    return BODY.replace(b"{0}", str(2 * at).encode()).replace(b"{1}", str(2 * at + 1).encode())


def table_of(home: Path, files: dict[str, bytes], settings: dict[str, Any]) -> tuple[CatalogTable, Table]:
    for place, content in files.items():
        (home / place).parent.mkdir(parents=True, exist_ok=True)
        (home / place).write_bytes(content)
    declared = TypeAdapter(Table).validate_python(settings)
    return CatalogTable("db", "points", f"{home.as_uri()}/", "csv"), declared


def test_what_folders_tell_should_be_columns_like_those_of_the_files(spark: SparkSession, tmp_path: Path) -> None:
    files = {f"Year=2024/place={place}/a.csv": numbered(at) for at, place in enumerate(PLACES)}
    files |= {"Year=x/place=01/a.csv": b"id,rest\n100,x\n", "Year=2025/place=01/_SUCCESS": b""}
    table, declared = table_of(tmp_path / "points", files, DECLARED)
    expected = {(2 * at + i, 2024, meant) for at, meant in enumerate(PLACES.values()) for i in (0, 1)}
    by_line = lines.open_lines(spark, table, declared, FILE)
    by_record = raw.read_records(spark, table, declared, FILE)
    for reading in (by_line, by_record):
        counts = reading.counts("")
        assert (counts.rows, counts.bad) == (4 * len(PLACES) + 1, 2 * len(PLACES) + 1)
        assert {tuple(row) for row in reading.good.collect()} == expected
        bad = {
            (row[raw.FILE].rpartition("points/")[2], row[raw.REASON], row[raw.RECORD]) for row in reading.bad.collect()
        }
        assert ("Year=x/place=01/a.csv", "column year: 'x' is not a bigint", "100,x") in bad
        assert ("Year=2024/place=01/a.csv", "column id: 'z' is not a bigint", "z,1") in bad
        assert ("Year=2024/place=a%2520b/a.csv", "the line has not the 2 fields of the header", "3") in bad
    assert {tuple(folders.values(place, ["Year", "place"])) for place in files if "2024" in place} == {
        ("2024", None if meant is None and place != "NA" else place if meant is None else meant)
        for place, meant in PLACES.items()
    }


@pytest.mark.parametrize(
    "files",
    [
        {"p=1%41/a.csv": b"T\nid,rest\n1,2\n", "p=2/a.csv.gz": gzip.compress(b"U\nID,rest\n2,3\n")},
        {"p=1%41/a.csv": b'T\nid,rest\n1,"2\n3"\n', "p=2/a.csv": b"U\nid,rest\n2,3\n"},
    ],
    ids=["packed", "many lines"],
)
def test_folders_should_tell_of_files_that_are_not_read_by_lines(
    spark: SparkSession, tmp_path: Path, files: dict[str, bytes]
) -> None:
    settings = {"columns": {"id": "bigint", "p": "string"}, "partitions": ["p"], "skip": 1}
    table, declared = table_of(tmp_path / "points", files, settings)
    found = raw.read_records(spark, table, declared, FILE).good.collect()
    assert sorted(map(tuple, found)) == [(1, "1A"), (2, "2")]


def test_folders_should_tell_of_parquet_and_json_lines_too(spark: SparkSession, tmp_path: Path) -> None:
    settings = {"columns": {"id": "bigint", "p": "string"}, "partitions": ["p"]}
    sink = pa.BufferOutputStream()
    pq.write_table(pa.table({"id": [1]}), sink)
    of = {"parquet": sink.getvalue().to_pybytes(), "jsonl": json.dumps({"id": 1}).encode()}
    for format, content in of.items():
        files = {f"p=01/a.{format}": content}
        table, declared = table_of(tmp_path / format, files, {**settings, "format": format})
        found = raw.read_records(spark, table, declared, FILE, read=cells.READERS[format])
        assert [tuple(row) for row in found.good.collect()] == [(1, "01")]
    table, declared = table_of(
        tmp_path / "twice",
        {"p=01/a.jsonl": b'{"id": 1, "q": {"p": 2}}\n{"id": 1, "p": "02"}'},
        {**settings, "format": "jsonl"},
    )
    with pytest.raises(JobError, match=r"is told by folders \(p=…\), but the files have a column 'p' too"):
        raw.read_records(spark, table, declared, FILE, read=cells.READERS["jsonl"])
    (tmp_path / "twice" / "p=01" / "a.jsonl").write_bytes(b'{"id": 1, "q": {"p": 2}, "r": "p"}')
    assert raw.read_records(spark, table, declared, FILE, read=cells.READERS["jsonl"]).good.count() == 1


@pytest.mark.parametrize(
    ("files", "said"),
    [
        (
            {"p=1/a.csv": b"id,x\n1,2\n", "b.csv": b"id,x\n1,2\n"},
            r"points/b\.csv lies in no folder p=…, .*or take it away",
        ),
        (
            {"p=1/a.csv": b"id,P\n1,2\n"},
            r"p of datasets/.* is told by folders \(p=…\), but the files have a column 'P' too",
        ),
        ({"p=1/p=2/a.csv": b"id,x\n1,2\n"}, r"a\.csv has two folders p=, but"),
        (
            {"p=1/a.csv": b"id,x\n1,2\n", "p=2/a.csv": b"x,id\n1,2\n"},
            r"a\.csv has another header .* in their order, or take",
        ),
    ],
)
def test_files_that_are_no_one_table_should_be_named(
    spark: SparkSession, tmp_path: Path, files: dict[str, bytes], said: str
) -> None:
    settings = {"columns": {"id": "bigint", "p": "string"}, "partitions": ["p"]}
    table, declared = table_of(tmp_path / "points", files, settings)
    with pytest.raises(JobError, match=said):
        raw.read_records(spark, table, declared, FILE)
