"""prepare.sql over single rows in DuckDB, held against Spark: the same values to the last bit, or none."""

# ruff: noqa: E501, S608  # lists of texts read best on few lines; queries are made of what stands here

import csv
import io
import math
import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa  # pyarrow ships no types
import pytest
from pydantic import TypeAdapter
from pyspark.sql import SparkSession
from pyspark.sql import functions as F
from rich.console import Console

from datasets import load_dataset, prepare_sql
from dml.models.row_query import FROM_TEXT, UNSURE, NotOfOneRowError, connect, row_query
from dml.models.score import score_file
from jobs import predict, train
from jobs.models.registry import Registered
from jobs.prepare import join
from jobs.tables import raw
from jobs.tables.catalog import CatalogTable
from jobs.tables.settings import ColumnType, Table
from tests.jobs.conftest import Written

COLUMNS: dict[str, ColumnType] = {
    "s": "string", "t": "string", "i": "bigint", "j": "bigint", "x": "double", "y": "double", "b": "boolean",
    "d": "date", "at": "timestamp",
}  # fmt: skip
CELLS: dict[ColumnType, list[str]] = {
    "string": [
        "", "?", "a", "A b ", " a", "x,y", "1.234", "1.234,5", "950", "-7", "+7", "$1,037", "12.5%", "ß", "İ", "ΑΣ", "É", "日本",
        "yes", "No", "TRUE", "1e3", "2024-02-29", "2023-02-29", "2024-2-9", "abc", "1,5", "NaN", "-inf", "00123", "it's", "\\",
        "2024-02-29 10:00", "99999999999999999999", "0.1", ".5", "5.", "-0", "Adelie Penguin (Pygoscelis)",
    ],
    "bigint": ["", "?", "0", "7", "-7", "+12", "007", "2024", "13", "9223372036854775807", "1.0", "x"],
    "double": ["", "0", "-0.0", "0.1", "1e-3", "5.", ".5", "123456789.123", "NaN", "Infinity", "-inf", "1e308", "4.9e-324", "x", "1,5"],
    "boolean": ["", "true", "F", "yes", "0", "TRUE", "maybe"],
    "date": ["", "2024-02-29", "2024-2-9", "2023-02-29", "1899-12-30", "2024-12-31T10:00:00", "x"],
    "timestamp": [
        "", "2024-02-29 10:00", "2024-02-29T10:00:00.123456Z", "2024-02-29 23:30:00+02:00", "1899-12-30 01:02:03", "2024-1-2", "x",
    ],
}  # fmt: skip
EXPRESSIONS = [
    "s", "i", "x", "b", "d", "at",
    "trim(s)", "ltrim(s)", "rtrim('.', s)", "lower(s)", "upper(s)", "length(s)", "replace(s, '.', '')", "replace(s, t, 'z')",
    "concat(s, t)", "concat(s, i, b)", "s || '-' || t", "contains(s, 'a')", "startswith(s, t)",
    "CAST(replace(replace(s, '.', ''), ',', '.') AS DOUBLE)", "CAST(replace(replace(s, '$', ''), ',', '') AS DOUBLE)",
    "CAST(replace(s, '%', '') AS DOUBLE)", "CAST(s AS DOUBLE)", "TRY_CAST(s AS BIGINT)", "CAST(s AS BOOLEAN)", "CAST(s AS DATE)",
    "CAST(s = 'yes' AS INT)", "CASE WHEN s = 'yes' THEN 1 WHEN s IN ('No', 'it\\'s') THEN 0 END",
    "CASE s WHEN 'a' THEN 1.5 ELSE x END", "CASE WHEN x > 0.1 THEN i ELSE 3 END", "CASE WHEN b THEN s END",
    "CAST(NOT b AS INT)", "CAST(b AS STRING)", "CAST(i AS STRING)", "CAST(i AS DOUBLE)", "CAST(at AS DATE)",
    "coalesce(s, t, 'none')", "coalesce(x, i, 0)", "nullif(s, t)", "nullif(x, 0.1)", "if(x > y, x, y)", "abs(x)",
    "x + y", "x - 1", "x * 1.5", "x / y", "i / j", "i / 4", "-x", "j + 1", "x * i",
    "x = y", "x < y", "x >= i", "i <> 7", "x BETWEEN 0 AND 1", "x NOT BETWEEN y AND 5", "s BETWEEN 'a' AND 'b'", "s < t",
    "x IS NULL", "s IS NOT NULL", "NOT (x > 1) OR b", "b AND x > 1", "i IN (7, -7, NULL)", "s NOT IN ('a', '?')",
    "d >= '2024-01-01'", "at < '2024-02-29'", "d = CAST('2024-02-09' AS DATE)",
    "year(d)", "quarter(d)", "month(d)", "day(d)", "dayofyear(d)", "dayofweek(d)", "weekday(d)", "year(at)", "weekday(at)",
    "hour(at)", "minute(at)", "second(at)", "month(to_date(s))", "make_date(2024, j, 28)", 'concat("a\'b", s)', "`i`",
]  # fmt: skip


def same(one: Any, other: Any) -> bool:
    if isinstance(one, float) and isinstance(other, float):
        return (math.isnan(one) and math.isnan(other)) or (
            one == other and math.copysign(1, one) == math.copysign(1, other)
        )
    return type(one) is type(other) and bool(one == other)


def computed(sql: str, table: dict[int, dict[str, str]]) -> dict[int, list[Any]]:
    """By row, what DuckDB has for each expression of the query; UNSURE and a reason where it gives none."""
    query = row_query(sql, "points", COLUMNS, [f"e{i}" for i in range(len(EXPRESSIONS))])
    nulls = "nullif(nullif({0}, '?'), '')"
    columns = ", ".join(f'{FROM_TEXT[kind].format(nulls.format(f"c_{n}"))} AS "{n}"' for n, kind in COLUMNS.items())
    database = connect()
    cells = {f"c_{name}": pa.array([row[name] for row in table.values()], pa.string()) for name in COLUMNS}
    database.register("chunk", pa.table({"row": pa.array(list(table), pa.int64()), **cells}))
    database.execute(f"CREATE TABLE points AS SELECT row, {columns} FROM chunk")
    found: dict[int, list[Any]] = {row: [] for row in table}
    for value in query.columns.values():
        for rows in (["true"], [f"row = {row}" for row in table]):  # all at once, else one by one
            try:
                answers = dict.fromkeys(table, UNSURE) if len(rows) > 1 else {}
                for one in rows:
                    try:
                        answers |= dict(database.execute(f"SELECT row, {value.sql} FROM points WHERE {one}").fetchall())
                    except duckdb.Error:
                        if len(rows) == 1:
                            raise
            except duckdb.Error:
                continue
            break
        for row, answer in answers.items():
            found[row].append(answer)
    return found


def test_what_duckdb_computes_of_a_row_should_be_what_spark_does(spark: SparkSession, tmp_path: Path) -> None:
    source = random.Random(3)  # noqa: S311  # test data
    table = [{name: source.choice(CELLS[kind]) for name, kind in COLUMNS.items()} for _ in range(250)]
    file = io.StringIO()
    writer = csv.writer(file, quoting=csv.QUOTE_ALL, lineterminator="\n")
    writer.writerows([["n", *COLUMNS], *([i, *row.values()] for i, row in enumerate(table))])
    (tmp_path / "points.csv").write_text(file.getvalue(), encoding="utf-8")
    settings = {"columns": {"n": "bigint", **COLUMNS}, "nulls": ["", "?"]}
    declared = TypeAdapter(Table).validate_python(settings)
    where = CatalogTable("db", "points", tmp_path.as_uri(), "csv")
    parsed = raw.parse(raw.read_lines(spark, where, declared, "dataset.toml"), declared)
    parsed.where(f"{raw.REASON} IS NULL").createOrReplaceTempView("points")
    sql = ", ".join(f"{expression} AS e{i}" for i, expression in enumerate(EXPRESSIONS))
    expected = {row[-1]: row[:-1] for row in spark.sql(f"SELECT {sql}, n FROM points").collect()}
    assert len(expected) > 50
    wrong, unsure = [], 0
    found = computed(f"SELECT {sql} FROM points", {number: table[number] for number in expected})
    for number, values in expected.items():
        for expression, spark_has, duckdb_has in zip(EXPRESSIONS, values, found[number], strict=True):
            if isinstance(duckdb_has, str) and duckdb_has.startswith(UNSURE):
                unsure += 1
            elif not same(spark_has, duckdb_has):
                wrong.append((expression, table[number], spark_has, duckdb_has))
    assert wrong == []
    assert unsure < 0.02 * len(expected) * len(EXPRESSIONS)


@pytest.mark.parametrize(
    ("sql", "why"),
    [
        ("SELECT a.x AS f FROM points a JOIN other o ON a.i = o.i", "joins other tables"),
        ("SELECT x AS f FROM points, other", "joins other tables"),
        ("SELECT avg(x) AS f FROM points GROUP BY s", "groups rows"),
        ("SELECT count(*) OVER (PARTITION BY s) AS f FROM points", "looks at other rows (count OVER), for f"),
        ("SELECT max(x) AS f FROM points", "uses max, which is not computed here as Spark does or looks at other rows"),
        ("SELECT DISTINCT x AS f FROM points", "orders, limits or deduplicates rows"),
        ("SELECT x AS f FROM points LIMIT 3", "orders, limits or deduplicates rows"),
        ("SELECT x AS f FROM points UNION ALL SELECT y FROM points", "puts the results of several queries together"),
        ("SELECT (SELECT max(x) FROM other) AS f FROM points", "has a query within the query"),
        ("SELECT regexp_replace(s, 'a', 'b') AS f FROM points", "uses regexp_replace, which is not computed here"),
        ("SELECT x AS f FROM other", "reads from other, not from points"),
        ("WITH p AS (SELECT * FROM points WHERE x > 1) SELECT x AS f FROM p", "leaves out rows in a WITH clause"),
        ("SELECT s = 1 AS f FROM points", "mixes int and string"),
        ("SELECT CAST(x AS STRING) AS f FROM points", "writes a double as text"),
        ("SELECT x RLIKE 'a' AS f FROM points", "is written in a way that only Spark reads"),
        ("SELECT * FROM points", "has no column f that is named in its select list"),
    ],
)
def test_what_is_not_of_one_row_should_be_told(sql: str, why: str) -> None:
    with pytest.raises(NotOfOneRowError) as error:
        row_query(sql, "points", COLUMNS, ["f"])
    assert why in str(error.value)


def test_a_hash_for_the_key_should_not_stand_in_the_way_of_features() -> None:
    sql = (
        "WITH hashed AS (SELECT *, md5(to_json(struct(*))) AS row_hash FROM points) "
        "SELECT row_hash, row_number() OVER (PARTITION BY row_hash ORDER BY row_hash) AS row_copy, h.x AS f FROM "
        "hashed h"
    )
    found = row_query(sql, "points", COLUMNS, ["f"], ["row_hash", "row_copy"])
    assert (list(found.columns), sorted(found.unknown), found.reads) == (["f"], ["row_copy", "row_hash"], {"x"})


def test_a_file_of_the_census_should_be_scored_as_by_a_run_with_its_declared_nulls(
    spark: SparkSession, written: Written, tmp_path: Path
) -> None:
    """Who did not answer (?) earns more here, so a mark that is taken for a category moves probabilities."""
    source = random.Random(1994)  # noqa: S311  # test data
    settings, sql = load_dataset("census_income"), prepare_sql("census_income")
    settings = replace(settings, tune=None, training=replace(settings.training, depth=7, min_leaf=4))
    declared = settings.tables["people"]
    lines = []
    for i in range(600):
        work, job, country = (
            source.choice(["?", "", *values]) for values in (["Private", "State-gov"], ["Sales", "Craft"], ["Peru"])
        )
        rich = source.random() < (0.9 if "?" in (work, job) else 0.05) + (0.05 if country == "" else 0)
        lines.append(
            f"{17 + i % 70}, {work}, {10_000 + i}, HS-grad, {i % 16 + 1}, Never-married, {job}, Husband, White, "
            f"{source.choice(['Male', 'Female'])}, {source.choice([0, 0, 7688])}, 0, {20 + i % 45}, {country}, {'>50K' if rich else '<=50K'}"
        )
    (tmp_path / "raw").mkdir()
    file = tmp_path / "raw" / "adult.csv"
    file.write_text("\n".join([*lines, lines[0], ""]))  # the same answers twice
    raw.read_records(
        spark, CatalogTable("db", "people", file.parent.as_uri(), "csv"), declared, settings.file
    ).good.createOrReplaceTempView("people")
    features = join(spark, settings, sql)
    tree = {**train.fit_and_score(written(features, settings), settings).tree, "run_id": "r1"}
    assert {"workclass", "occupation"} <= {node.get("feature") for node in tree["nodes"]}
    scored = predict.score(features, Registered("r1", "s3://models/r1", tree), settings, "features")
    names = [*settings.features.numbers, *settings.features.categories]
    run = features.join(scored, [*settings.keys]).select(
        *[F.col(name).cast("string") for name in names], "probability", "prediction"
    )
    score_file(tree, [file], tmp_path / "scored.csv", Console(file=io.StringIO()), all_columns=True)
    with (tmp_path / "scored.csv").open(newline="") as out:
        told = list(csv.DictReader(out, fieldnames=[*declared.columns, "probability", "prediction"]))[1:]
    own = [
        (
            *(None if row[name] in declared.nulls else row[name] for name in names),
            float(row["probability"]),
            int(row["prediction"]),
        )
        for row in told
    ]
    assert sorted(own, key=repr) == sorted(map(tuple, run.collect()), key=repr)
    assert len(own) == 601
    assert len({row[-2] for row in own}) > 10
