"""Encoding: what is learned from the training side, worked out by hand, and applied to any rows."""

import pytest
from pyspark.sql import DataFrame, SparkSession

from jobs import encoding
from jobs.errors import JobError
from tests.jobs import points

LATE = [  # x, colour, late: 3 of 8 are late
    (1.0, "red", 1),
    (2.0, "red", 1),
    (3.0, "red", 0),
    (4.0, "green", 0),
    (5.0, "green", 0),
    (6.0, None, 1),
    (None, None, 0),
    (float("nan"), "blue", 0),
]


def rows(spark: SparkSession, late: list[tuple[float | None, str | None, int]]) -> DataFrame:
    return spark.createDataFrame(late, "x double, colour string, late int")


def test_encodings_should_be_smoothed_means_of_the_label(spark: SparkSession) -> None:
    number, colour = encoding.learn(rows(spark, LATE), points.settings("smoothing = 10.0", "smoothing = 4.0"))
    prior = 3 / 8
    assert number == {"name": "x", "kind": "number", "missing": encoding.MISSING, "missing_rows": 2}
    assert colour["encoding"] == {
        "blue": pytest.approx((0 + 4 * prior) / (1 + 4)),
        "green": pytest.approx((0 + 4 * prior) / (2 + 4)),
        "red": pytest.approx((2 + 4 * prior) / (3 + 4)),
    }
    assert colour["missing"] == pytest.approx((1 + 4 * prior) / (2 + 4))
    assert colour["missing_rows"] == 2
    assert colour["prior"] == colour["unseen"] == prior


def test_rows_should_get_the_learned_values_and_the_prior_if_unseen(spark: SparkSession) -> None:
    learned = encoding.learn(rows(spark, LATE), points.settings())
    new = spark.createDataFrame(
        [(1, 7.5, "red"), (2, None, "violet"), (3, float("nan"), None)], "id int, x double, colour string"
    )
    encoded = encoding.encode(new, learned).orderBy("id")
    assert encoded.columns == ["id", "x", "colour", "features"]
    assert [row["features"].toArray().tolist() for row in encoded.collect()] == [
        [7.5, learned[1]["encoding"]["red"]],
        [encoding.MISSING, 3 / 8],
        [encoding.MISSING, learned[1]["missing"]],
    ]


def test_a_category_that_was_never_missing_should_give_the_prior_when_it_is(spark: SparkSession) -> None:
    learned = encoding.learn(rows(spark, LATE[:5]), points.settings())
    assert learned[1]["missing"] == learned[1]["prior"] == 2 / 5


def test_encoding_should_keep_every_row_once(spark: SparkSession) -> None:
    learned = encoding.learn(rows(spark, LATE), points.settings())
    assert encoding.encode(rows(spark, LATE * 3), learned).count() == 24


@pytest.mark.parametrize(("late", "told"), [(0, "0 of 3 rows are positive"), (1, "3 of 3 rows are positive")])
def test_training_should_refuse_a_label_with_one_class(spark: SparkSession, late: int, told: str) -> None:
    one_class = [(1.0, "red", late), (2.0, "red", late), (3.0, "blue", late)]
    with pytest.raises(JobError, match=f"label late has one class only on the training side: {told}"):
        encoding.learn(rows(spark, one_class), points.settings())  # type: ignore[arg-type]


def test_a_category_with_too_many_values_should_be_refused_by_name(
    spark: SparkSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(encoding, "MAX_CATEGORIES", 2)
    with pytest.raises(JobError, match=r"datasets/points/dataset.toml: features.categories: colour has more than 2"):
        encoding.learn(rows(spark, LATE), points.settings())
