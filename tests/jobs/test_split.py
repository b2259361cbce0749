"""The split: the same row is always on the same side."""

import hashlib

from pyspark.sql import SparkSession

from jobs import split


def test_the_side_should_be_what_plain_python_computes(spark: SparkSession) -> None:
    rows = spark.range(50).selectExpr("id", "date_add(DATE'2013-01-01', int(id)) AS day")
    sides = rows.select("id", "day", split.side(["day", "id"], 0.2, 7)).collect()
    for key, day, side in sides:
        digest = hashlib.md5(f"7|{day}|{key}".encode(), usedforsecurity=False).hexdigest()
        assert side == ("test" if int(digest[:8], 16) < 0.2 * 2**32 else "train")


def test_the_split_should_not_depend_on_partitions_order_or_integer_width(spark: SparkSession) -> None:
    side = split.side(["id"], 0.2, 0).alias("side")
    once = spark.range(1000).select("id", side)
    again = spark.range(1000).selectExpr("int(id) AS id").orderBy("id", ascending=False).repartition(7)
    assert dict(once.collect()) == dict(again.select("id", side).collect())


def test_the_share_should_be_about_what_is_asked_for(spark: SparkSession) -> None:
    rows = spark.range(10_000).select(split.side(["id"], 0.2, 0).alias("side"))
    assert abs(rows.where("side = 'test'").count() - 2_000) < 160  # four standard deviations


def test_another_seed_should_give_another_split(spark: SparkSession) -> None:
    rows = spark.range(200).select(split.side(["id"], 0.5, 0), split.side(["id"], 0.5, 1)).collect()
    assert any(first != second for first, second in rows)


def test_a_missing_key_should_have_a_side_of_its_own(spark: SparkSession) -> None:
    rows = spark.createDataFrame([("a", None), (None, "a")], "k string, l string")
    digests = [hashlib.md5(text, usedforsecurity=False).hexdigest()[:8] for text in (b"0|a|", b"0||a")]
    expected = ["test" if int(digest, 16) < 0.5 * 2**32 else "train" for digest in digests]
    assert [row[0] for row in rows.select(split.side(["k", "l"], 0.5, 0)).collect()] == expected
