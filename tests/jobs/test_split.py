"""The split: the same row is always on the same side."""

import hashlib

import numpy as np
import pytest
from pyspark.sql import SparkSession

from jobs.tables import split


def test_the_side_should_be_what_plain_python_computes(spark: SparkSession) -> None:
    rows = spark.range(50).selectExpr("id", "date_add(DATE'2013-01-01', int(id)) AS day")
    sides = rows.select("id", "day", split.side(0.2, split.hashed(["day", "id"], 7))).collect()
    for key, day, side in sides:
        digest = hashlib.md5(f"7|{day}|{key}".encode(), usedforsecurity=False).hexdigest()
        assert side == ("test" if int(digest[:8], 16) < 0.2 * 2**32 else "train")


def test_the_split_should_not_depend_on_partitions_order_or_integer_width(spark: SparkSession) -> None:
    side = split.side(0.2, split.hashed(["id"], 0)).alias("side")
    once = spark.range(1000).select("id", side)
    again = spark.range(1000).selectExpr("int(id) AS id").orderBy("id", ascending=False).repartition(7)
    assert dict(once.collect()) == dict(again.select("id", side).collect())


def test_the_share_should_be_about_what_is_asked_for(spark: SparkSession) -> None:
    rows = spark.range(10_000).select(split.side(0.2, split.hashed(["id"], 0)).alias("side"))
    assert abs(rows.where("side = 'test'").count() - 2_000) < 160  # four standard deviations


def test_another_seed_should_give_another_split(spark: SparkSession) -> None:
    rows = (
        spark.range(200)
        .select(split.side(0.5, split.hashed(["id"], 0)), split.side(0.5, split.hashed(["id"], 1)))
        .collect()
    )
    assert any(first != second for first, second in rows)


def test_a_missing_key_should_have_a_side_of_its_own(spark: SparkSession) -> None:
    rows = spark.createDataFrame([("a", None), (None, "a")], "k string, l string")
    digests = [hashlib.md5(text, usedforsecurity=False).hexdigest()[:8] for text in (b"0|a|", b"0||a")]
    expected = ["test" if int(digest, 16) < 0.5 * 2**32 else "train" for digest in digests]
    assert [row[0] for row in rows.select(split.side(0.5, split.hashed(["k", "l"], 0))).collect()] == expected


@pytest.mark.parametrize("share", [0.0, 0.2, 0.5])
def test_workers_should_see_the_sides_that_spark_sees(spark: SparkSession, share: float) -> None:
    rows = spark.range(2_000).select(split.hashed(["id"], 3).alias("hash"))
    told = rows.select("hash", split.side(share, rows["hash"])).collect()
    hashes = np.array([row[0] for row in told])
    assert (hashes < 0).any() and (hashes > 0).any()
    assert split.is_test(hashes, share).tolist() == [row[1] == "test" for row in told]


def test_the_validation_part_should_have_its_share_on_both_sides(spark: SparkSession) -> None:
    hashes = np.array([row[0] for row in spark.range(10_000).select(split.hashed(["id"], 0)).collect()])
    held, test = split.is_validation(hashes, 0.25), split.is_test(hashes, 0.2)
    for side in (test, ~test):
        assert held[side].mean() == pytest.approx(0.25, abs=0.04)


def test_a_sample_should_have_its_share_of_either_side_and_of_the_validation_part() -> None:
    hashes = np.random.default_rng(0).integers(-(2**63), 2**63, 100_000)
    sampled = split.is_sampled(hashes, 0.3)
    for part in (split.is_test(hashes, 0.2), split.is_validation(hashes, 0.25)):
        assert sampled[part].mean() == pytest.approx(0.3, abs=0.013)  # four standard deviations
        assert sampled[~part].mean() == pytest.approx(0.3, abs=0.007)
    assert (split.is_sampled(hashes, 0.1) <= sampled).all()  # a smaller sample is part of a larger one
