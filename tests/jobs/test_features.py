"""The features as workers decode them: the values that Spark itself reads, whatever the kinds of columns and files."""

from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pytest
from pyspark.sql import SparkSession
from pyspark.sql import functions as F

from jobs.models import inputs
from jobs.tables import features
from jobs.tables.features import BROKEN
from jobs.tables.settings import Dataset
from jobs.tables.settings import Features as Declared
from tests.jobs import points
from tests.jobs.conftest import Written

NUMBERS = {
    "small": "CAST(id AS TINYINT)",
    "large": "9007199254740993 + id",  # more digits than a double has
    "exact": "CAST(id * 1.1 AS DECIMAL(38, 20)) / 3",
    "real": "CAST(id / 3 AS FLOAT)",
    "flag": "id % 2 = 0",
    "wild": "element_at(array(double('inf'), double('nan'), id / 7, NULL), int(id % 4) + 1)",
    "never": "CAST(NULL AS DOUBLE)",
}
CATEGORIES = {
    "text": "element_at(array('a', '', NULL, '\u00e4 \U0001f600'), int(id % 4) + 1)",
    "whole": "IF(id % 3 = 0, NULL, id % 5)",
    "yes": "IF(id % 7 = 0, NULL, id % 2 = 0)",
    "nothing": "CAST(NULL AS STRING)",
}


def wide() -> Dataset:
    return replace(points.settings(), features=Declared(numbers=tuple(NUMBERS), categories=tuple(CATEGORIES)))


def test_workers_should_see_the_numbers_and_texts_that_spark_sees(spark: SparkSession, written: Written) -> None:
    columns = {**NUMBERS, **CATEGORIES}
    made = [f"{sql} AS {name}" for name, sql in columns.items()]
    frame = spark.range(120).selectExpr("id", "int(id % 2) AS late", *made).repartition(3)
    features = written(frame, wide())

    def plain(batches):  # type: ignore[no-untyped-def]
        for batch in batches:
            numbers = [inputs.numbers_of(batch.column(name)).tolist() for name in NUMBERS]
            texts = []
            for name in CATEGORIES:
                values, index = inputs.values_of(batch.column(name))
                texts.append([values[place] for place in index])
            yield from zip(batch.column("id").to_pylist(), *numbers, *texts, strict=True)

    seen = {row[0]: row[1:] for row in features.batches(["id", *columns]).mapPartitions(plain).collect()}
    finite = F.lit(inputs.MISSING)
    numbers = [F.col(name).cast("double") for name in NUMBERS]
    spark_numbers = [
        F.coalesce(F.when(~F.isnan(x) & (F.abs(x) < float("inf")), x), finite).alias(name)
        for name, x in zip(NUMBERS, numbers, strict=True)
    ]
    rows = features.rows.join(frame.select("id", *[F.col(name).alias(f"{name}_") for name in columns]), "id")
    told = rows.select("id", *spark_numbers, *[F.col(name).cast("string") for name in CATEGORIES]).collect()
    assert len(told) == 120
    assert seen == {row[0]: tuple(row[1:]) for row in told}


def test_files_should_be_dealt_out_to_partitions_evenly(
    spark: SparkSession, written: Written, monkeypatch: pytest.MonkeyPatch
) -> None:
    frame = spark.range(800).selectExpr("id", "double(id) AS x", "'red' AS colour", "int(id % 2) AS late")
    features = written(frame.repartition(16), points.settings())
    batches = features.batches(["id"])
    assert batches.getNumPartitions() == 4  # two for each of two cores
    rows = batches.mapPartitions(lambda own: [sum(batch.num_rows for batch in own)]).collect()
    assert sum(rows) == 800
    assert max(rows) < 1.3 * min(rows)


def test_many_files_should_make_more_partitions_rather_than_larger_ones(
    spark: SparkSession, written: Written, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(features, "FILES_PER_PARTITION", 2)
    frame = spark.range(160).selectExpr("id", "double(id) AS x", "'red' AS colour", "int(id % 2) AS late")
    batches = written(frame.repartition(16), points.settings()).batches(["id"])
    assert batches.getNumPartitions() == 8
    assert batches.map(lambda batch: batch.num_rows).sum() == 160


def test_a_file_that_cannot_be_decoded_should_be_named(spark: SparkSession, written: Written) -> None:
    frame = spark.range(100).selectExpr("id", "double(id) AS x", "'red' AS colour", "int(id % 2) AS late")
    features = written(frame.coalesce(1), points.settings())
    (file,) = Path(features.location).glob("*.parquet")
    with pytest.raises(Exception, match=rf"{BROKEN} \S*{file.name}: it has no column y"):
        features.batches(["x", "y"]).count()
    whole = file.read_bytes()
    (file.parent / f".{file.name}.crc").unlink()
    file.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(Exception, match=rf"{BROKEN} \S*{file.name}: Parquet magic bytes not found"):
        features.batches(["x"]).count()


def test_a_timestamp_far_away_should_not_wrap_round(spark: SparkSession, written: Written) -> None:
    day = "IF(id = 0, TIMESTAMP'1905-01-01', TIMESTAMP'9999-12-31') AS day"
    frame = spark.range(2).selectExpr("id", day, "1.0D AS x", "'c' AS colour", "1 AS late")

    def microseconds(batches):  # type: ignore[no-untyped-def]
        for batch in batches:
            days = batch.column("day").cast(pa.int64())
            yield from zip(batch.column("id").to_pylist(), days.to_pylist(), strict=True)

    seen = written(frame, points.settings()).batches(["id", "day"]).mapPartitions(microseconds).collect()
    assert sorted(seen) == [(0, -2051222400 * 10**6), (1, 253402214400 * 10**6)]
