"""Raw tables of Parquet and JSON lines: the same values in Spark and on this machine, and what is set aside and why."""

import datetime as dt
import json
from decimal import Decimal
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa  # pyarrow ships no types
import pyarrow.parquet as pq
import pytest
from pydantic import TypeAdapter
from pyspark.sql import SparkSession

from dml.dataset.csv_file import Dialect, load_text
from dml.errors import UserError
from dml.models import cells as here
from dml.models.row_query import FROM_TEXT, connect
from jobs.errors import JobError
from jobs.tables import cells, json_lines, raw
from jobs.tables.catalog import CatalogTable
from jobs.tables.settings import Table

FILE = "datasets/points/dataset.toml"
NAN, INFINITE = float("nan"), float("inf")
AT = dt.datetime(1899, 12, 30, 1, 2, 3, 456789)
EPOCH_NS = int((AT - dt.datetime(1970, 1, 1)) // dt.timedelta(microseconds=1)) * 1000
ARROW = {
    "Small": pa.array([7, None, -999], pa.int16()),
    "large": pa.array([2**62, -1, 0], pa.int64()),
    "unsigned": pa.array([2**32 - 1, 0, None], pa.uint32()),
    "single": pa.array([0.1, None, -999], pa.float32()),
    "x": pa.array([0.1, NAN, -INFINITE], pa.float64()),
    "mark": pa.array([-999.0, 1e22, 5e-324], pa.float64()),
    "price": pa.array([Decimal("1.50"), None, Decimal("-999.00")], pa.decimal128(9, 2)),
    "flag": pa.array([True, False, None]),
    "day": pa.array([dt.date(2024, 2, 29), None, dt.date(1899, 12, 31)], pa.date32()),
    "nano": pa.array([EPOCH_NS + 999, EPOCH_NS, None], pa.timestamp("ns")),
    "zoned": pa.array([AT, None, AT], pa.timestamp("us", tz="Europe/Oslo")),
    "word": pa.array([" a ", "?", ""], pa.string()),
    "text_number": pa.array(["7", None, "-8"], pa.string()),
    "tags": pa.array([["a"], [], None], pa.list_(pa.string())),
}
TABLE = {
    "format": "parquet",
    "nulls": ["", "?", "-999"],
    "names": {"price": "PRICE "},
    "columns": {
        "small": "bigint", "large": "bigint", "unsigned": "double", "single": "double", "x": "double", "mark": "double",
        "price": "double", "flag": "boolean", "day": "date", "nano": "timestamp", "zoned": "timestamp",
        "word": "string", "text_number": "bigint",
    },
}  # fmt: skip
SINGLE = 0.10000000149011612  # the double that stands for a single 0.1
VALUES = [
    (7, 2**62, 4294967295.0, SINGLE, 0.1, None, 1.5, True, dt.date(2024, 2, 29), AT, AT, " a ", 7),
    (None, -1, 0.0, None, NAN, 1e22, None, False, None, AT, None, None, None),
    (None, 0, None, None, -INFINITE, 5e-324, None, None, dt.date(1899, 12, 31), None, AT, None, -8),
]


def read(spark: SparkSession, folder: Path, **settings: Any) -> raw.Records:
    declared = TypeAdapter(Table).validate_python(settings)
    table = CatalogTable("db", "points", folder.as_uri(), "any")
    return raw.read_records(spark, table, declared, FILE, read=cells.READERS[declared.format])


def here_read(path: Path, **settings: Any) -> list[tuple[Any, ...]]:
    """The rows as `dml predict FILE` has them."""
    declared = TypeAdapter(Table).validate_python(settings)
    fields = here.fields_of(path, declared.format)
    called = {name.strip().lower(): name for name in reversed(fields)}
    wanted = [called[declared.names.get(name, name).strip().lower()] for name in declared.columns]
    found = [record.cells for record in here.rows(path, declared.format, wanted, declared.nulls) if not record.fault]
    columns = {
        name: pa.array(values, pa.string())
        for name, values in zip(declared.columns, zip(*found, strict=True), strict=True)
    }
    database, nulls = connect(), ", ".join(f"'{token}'" for token in declared.nulls)
    database.register("chunk", pa.table(columns))
    values = [
        FROM_TEXT[kind].format(f'CASE WHEN "{name}" NOT IN ({nulls}) THEN "{name}" END')
        for name, kind in declared.columns.items()
    ]
    return database.execute(f"SELECT {', '.join(values)} FROM chunk").fetchall()  # noqa: S608  # names of this test


def test_a_parquet_file_should_be_read_alike_in_spark_and_here(spark: SparkSession, tmp_path: Path) -> None:
    pq.write_table(pa.table({**ARROW, "PRICE": ARROW["price"]}).drop_columns(["price"]), tmp_path / "a [1].parquet")
    found = [tuple(row) for row in read(spark, tmp_path, **TABLE).good.collect()]
    assert list(map(repr, found)) == list(map(repr, VALUES))  # NaN is not equal to itself
    assert list(map(repr, here_read(tmp_path / "a [1].parquet", **TABLE))) == list(map(repr, VALUES))


def test_a_folder_with_an_equals_sign_should_be_no_column(tmp_path: Path) -> None:
    """DuckDB takes x=7/ for a Hive partition, a run does not (recursiveFileLookup)."""
    folder = tmp_path / "x=7" / "z=8"
    folder.mkdir(parents=True)
    path = folder / "a.parquet"
    pq.write_table(pa.table({"x": ["a", "b"], "y": [1, 2]}), path)
    assert here.fields_of(path, "parquet") == {"x": "string", "y": "whole"}
    assert [record.cells for record in here.rows(path, "parquet", ["x", "y"])] == [["a", "1"], ["b", "2"]]
    database = duckdb.connect()
    here.load(database, path, "parquet", ["x", "y"], ["a", "b"], "cells")
    assert database.execute("FROM cells").fetchall() == [("a", "1"), ("b", "2")]
    for text in ("x,y\na,1\nb,2\n", "\n\nx,y\na,1\nb,2\n"):
        (folder / "a.csv").write_text(text, encoding="utf-8")
        load_text(database, folder / "a.csv", Dialect(",", '"', "utf-8", header=True), ["x", "y"], "texts")
        assert database.execute("FROM texts").fetchall() == [("a", "1"), ("b", "2")]
        database.execute("DROP TABLE texts")


@pytest.mark.parametrize("type", [pa.float32(), pa.float64()])
@pytest.mark.parametrize("statistics", [True, False])
def test_nan_should_be_read_as_a_run_does_whatever_the_statistics_of_the_file(
    tmp_path: Path, statistics: bool, type: pa.DataType
) -> None:
    columns = {"some": [0.5, NAN, 1.5], "all": [NAN] * 3, "alike": [-999.0, NAN, -999.0], "none": [0.5, INFINITE, -0.0]}
    path = tmp_path / "a.parquet"
    table = pa.table({name: pa.array(values, type) for name, values in columns.items()})
    pq.write_table(table, path, write_statistics=statistics)
    expected = [["0.5", "NaN", None, "0.5"], ["NaN", "NaN", "NaN", "Infinity"], ["1.5", "NaN", None, "-0.0"]]
    assert [record.cells for record in here.rows(path, "parquet", list(columns), ["", "-999"])] == expected
    database = duckdb.connect()
    here.load(database, path, "parquet", list(columns), list("abcd"), "cells", nulls=["", "-999"])
    assert list(map(list, database.execute("FROM cells").fetchall())) == expected


LINES = [
    '{"id": 1, "Größe": 1.50, "word": " a ", "day": "2024-02-29", "flag": true, "more": {"a": [1]}}',
    '{"flag": "no", "id": "2", "word": "?", "gr\\u00f6\\u00dfe": 3, "Größe": 1e400}',
    "",
    '{"id": 3, "Größe": NaN, "word": "\\ud83d\\ude00", "day": null, "flag": null}',
]
BROKEN = {
    '{"id": 4, "word": "a"': "the line is no JSON: Expecting ',' delimiter: line 1 column 22 (char 21)",
    "[1, 2]": "the line is JSON, but no object",
    '{"id": 5, "id": 6}': "the line is no JSON: the key 'id' stands there twice",
    '{"id": 6, "word": ["a"]}': "'word' is a list, and no single value",
    '{"id": 7, "word": "\\ud800"}': "the line has half of a character (a lone surrogate)",
    '{"id": 8.5}': "column id: '8.5' is not a bigint",
}
OBJECTS = {
    "format": "jsonl",
    "nulls": ["", "?"],
    "names": {"size": "Größe"},
    "columns": {"id": "bigint", "size": "double", "word": "string", "day": "date", "flag": "boolean"},
}


@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_json_lines_should_be_read_alike_in_spark_and_here(spark: SparkSession, tmp_path: Path, end: str) -> None:
    (tmp_path / "a.jsonl").write_bytes(("\ufeff" + end.join([*LINES, *BROKEN])).encode())
    expected = [
        (1, 1.5, " a ", dt.date(2024, 2, 29), True),
        (2, INFINITE, None, None, False),
        (3, NAN, "😀", None, None),
    ]
    table = read(spark, tmp_path, **OBJECTS)
    assert list(map(repr, (tuple(row) for row in table.good.collect()))) == list(map(repr, expected))
    assert (table.counted.rows, table.counted.bad) == (9, 6)
    told = {row[raw.RECORD].strip(): row[raw.REASON] for row in table.bad.collect()}
    assert list(told.values()) == list(BROKEN.values())
    assert list(told)[:5] == list(BROKEN)[:5]
    assert json.loads(list(told)[5]) == {"id": "8.5"}
    here_file = tmp_path / "good.jsonl"
    here_file.write_bytes(("\ufeff" + end.join(LINES)).encode())
    assert list(map(repr, here_read(here_file, **OBJECTS))) == list(map(repr, expected))


def test_a_field_of_json_should_have_cells_if_any_value_is_one(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    values = {
        "one list": [1, [2], 3], "one value": [[1], 2, {}], "no value": [[1], {}, None], "late": [None, None, [3]],
        "missing": [None] * 3,
    }  # fmt: skip
    rows = [dict(zip(values, row, strict=True)) for row in zip(*values.values(), strict=True)]
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows), encoding="utf-8")
    cells = {"one list": "string", "one value": "string", "no value": "", "late": "", "missing": "string"}
    assert here.fields_of(path, "jsonl") == cells
    assert here.fields_of(path, "jsonl", mostly=True) == {**cells, "one value": ""}
    found = list(here.rows(path, "jsonl", ["one list", "missing"]))
    assert [record.cells for record in found] == [["1", None], [], ["3", None]]
    assert found[1].fault == "'one list' is a list, and no single value"


@pytest.mark.parametrize("mark", ["\u2028", "\u2029", "\u0085"])
def test_a_line_of_json_should_end_where_a_run_ends_it(tmp_path: Path, mark: str) -> None:
    path = tmp_path / "a.jsonl"
    lines = [json.dumps({"id": i, "word": f"a{mark}b"}, ensure_ascii=False) for i in (1, 2)]
    path.write_bytes("\n".join(lines).encode())
    assert here.format_of(path) == "jsonl"
    assert [record.cells[1] for record in here.rows(path, "jsonl", ["id", "word"])] == [f"a{mark}b"] * 2


def test_a_byte_order_mark_within_a_file_should_be_no_part_of_its_line(tmp_path: Path) -> None:
    """As `cat a.jsonl b.jsonl` leaves it; a run takes it off each line."""
    path = tmp_path / "both.jsonl"
    path.write_text('\ufeff{"id": 1}\n\ufeff{"id": 2}\n', encoding="utf-8")
    assert [(record.cells, record.fault) for record in here.rows(path, "jsonl", ["id"])] == [(["1"], ""), (["2"], "")]


def test_a_line_of_json_should_be_what_it_says() -> None:
    assert json_lines.cells('{"a": 1.50, "b": true, "c": null, "d": "x", "e": -0.0}', "abcdef") == (
        ["1.50", "true", None, "x", "-0.0", None],
        "",
    )
    assert [json_lines.cells(line, ["id", "word"])[1] for line in list(BROKEN)[:5]] == list(BROKEN.values())[:5]


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        (
            {"columns": {"x": "bigint"}},
            "column x is double in the files, and cannot be read as bigint, .*declare double",
        ),
        (
            {"columns": {"tags": "string"}},
            "column tags is array<string> in the files.* leave it out, or write the file",
        ),
        ({"columns": {"nano": "bigint"}}, "column nano is timestamp in the files, .*: declare timestamp"),
        (
            {"columns": {"gone": "string"}},
            "has no column gone, which datasets/points/dataset.toml declares; its header",
        ),
        (
            {"columns": {"word": "string"}, "format": "jsonl"},
            r'is a Parquet file: say format = "parquet" in \[tables\.poi',
        ),
    ],
)
def test_a_column_that_cannot_be_what_is_declared_should_be_told(
    spark: SparkSession, tmp_path: Path, settings: dict[str, Any], told: str
) -> None:
    pq.write_table(pa.table(ARROW), tmp_path / "a.parquet")
    with pytest.raises(JobError, match=told):
        read(spark, tmp_path, **{"format": "parquet", **settings})


NO_TYPE = {
    "time": ("TIME '10:00:00'", "a time of day"),
    "times": ("[TIME '10:00:00']", "a time of day"),
    "uuid": ("uuid()", "a UUID"),
    "interval": ("INTERVAL 3 DAY", "an interval"),
    "half": (pa.array(np.array([1], np.float16)), "a float of 16 bits"),
    "long": (pa.array([None], pa.decimal256(39, 2)), "a decimal of more than 38 digits"),
}


def of_no_type(value: Any, path: Path) -> None:
    """Writes a Parquet file with a column of such values."""
    if isinstance(value, str):
        duckdb.execute(f"COPY (SELECT 1 AS id, {value} AS odd) TO '{path}' (FORMAT parquet)")
    else:
        pq.write_table(pa.table({"id": [1], "odd": value}), path)


@pytest.mark.parametrize("name", NO_TYPE)
def test_a_column_for_which_spark_has_no_type_should_be_named_before_a_run(tmp_path: Path, name: str) -> None:
    value, what = NO_TYPE[name]
    of_no_type(value, tmp_path / "a.parquet")
    with pytest.raises(
        UserError, match=rf"a\.parquet cannot be read by Spark, .*\(odd[^ ]* is {what}\): write them as"
    ):
        here.fields_of(tmp_path / "a.parquet", "parquet")


@pytest.mark.parametrize("name", NO_TYPE)
def test_a_column_for_which_spark_has_no_type_should_be_told_by_a_run(
    spark: SparkSession, tmp_path: Path, name: str
) -> None:
    of_no_type(NO_TYPE[name][0], tmp_path / "a.parquet")
    with pytest.raises(JobError, match=r"Raw table db\.points .* has a column for which Spark has no type \(a time of"):
        read(spark, tmp_path, format="parquet", columns={"id": "bigint"})


def test_files_of_one_table_should_have_its_columns_alike(spark: SparkSession, tmp_path: Path) -> None:
    words = {"format": "parquet", "columns": {"id": "bigint", "word": "string"}}
    pq.write_table(pa.table({"id": [1], "word": ["a"]}), tmp_path / "a.parquet")
    pq.write_table(pa.table({"word": ["b"], "id": [2], "more": [1]}), tmp_path / "b.parquet")
    assert sorted(read(spark, tmp_path, **words).good.collect()) == [(1, "a"), (2, "b")]
    pq.write_table(pa.table({"id": [3]}), tmp_path / "c.parquet")
    with pytest.raises(JobError, match=r"c\.parquet has no column word, which other files of the table have"):
        read(spark, tmp_path, **words)
    pq.write_table(pa.table({"id": ["3"], "word": ["c"]}), tmp_path / "c.parquet")
    with pytest.raises(JobError, match="other types than the table's other files"):
        read(spark, tmp_path, **words)
    (tmp_path / "c.parquet").write_text("id,word\n1,a\n")
    with pytest.raises(JobError, match=r"c\.parquet is(?: not|) .*Parquet"):
        read(spark, tmp_path, **words)


def test_a_key_that_no_line_has_should_be_told(spark: SparkSession, tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"id": 1}\n{"id": 2, "Word": "a"}\n')
    with pytest.raises(JobError, match=r"no line has a key for the column word of datasets/.*told apart by capitals"):
        read(spark, tmp_path, format="jsonl", columns={"id": "bigint", "word": "string"})
    (tmp_path / "a.jsonl").write_bytes('{"id": "ä"}\n'.encode("latin-1"))
    with pytest.raises(JobError, match="is not UTF-8"):
        read(spark, tmp_path, format="jsonl", columns={"id": "string"})


def test_what_csv_files_are_told_should_be_refused_of_others() -> None:
    with pytest.raises(ValueError, match="delimiter, skip: say how a CSV file is written, and mean nothing to parquet"):
        TypeAdapter(Table).validate_python(
            {"columns": {"a": "string"}, "format": "parquet", "skip": 1, "delimiter": ";"}
        )
