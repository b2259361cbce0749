"""A label's texts are closed: what the settings do not list is left out, counted and named, or stops the run."""

from dataclasses import replace

import pytest
from pyspark.sql import SparkSession
from pyspark.sql import functions as F

from jobs.errors import JobError
from jobs.tables import labels
from jobs.tables.settings import Dataset, Label, Table
from tests.jobs import points


def closed(share: float = 0.5) -> Dataset:
    """The points, whose label is made of the column `said`."""
    settings = points.settings()
    table = replace(settings.tables[settings.main], columns={"said": "string"})
    label = replace(settings.label, raw="said", texts=("Yes", "No"))
    gate = replace(settings.gate, max_unknown_label_share=share)
    return replace(settings, tables={**settings.tables, settings.main: table}, label=label, gate=gate)


def unknown(spark: SparkSession, settings: Dataset) -> labels.Unknown:
    """Of a table with a row that does not parse, whose label does not count."""
    texts = [*["Yes"] * 3, *["No"] * 4, " Yes ", *["yes"] * 2, "unknown", None]
    rows = [(text, True) for text in texts] + [("maybe", False)]
    parsed = spark.createDataFrame(rows, "said string, good boolean")
    figures = labels.figures(settings, settings.main)(F.col("good"))
    (counted,) = parsed.agg(F.count("*"), *[figure.alias(name) for name, figure in figures.items()]).collect()
    return labels.unknown_texts(parsed.where("good"), counted.asDict(), settings)


def test_texts_that_are_not_listed_should_be_counted_and_named(spark: SparkSession) -> None:
    found = unknown(spark, closed())
    assert found == {"labelled": 11, "rows": 3, "texts": {"yes": 2, "unknown": 1}}
    assert labels.named(found) == "'yes' 2, 'unknown' 1"


def test_too_many_of_them_should_stop_the_run_with_the_ways_on(spark: SparkSession) -> None:
    with pytest.raises(JobError) as error:
        unknown(spark, closed(0.2))
    assert "3 of 11 labels (27.27%) are none of those that datasets/points/dataset.toml lists ('Yes', 'No')" in str(
        error.value
    )
    assert "'yes' 2, 'unknown' 1. Such rows are left out, up to gate.max_unknown_label_share (20%)" in str(error.value)


def test_a_dataset_that_lists_no_texts_and_a_table_that_is_not_the_main_one_should_be_asked_nothing(
    spark: SparkSession,
) -> None:
    assert unknown(spark, points.settings()) == {}
    assert labels.figures(closed(), "another")(F.col("good")) == {}


@pytest.mark.parametrize(
    ("label", "said"),
    [
        (Label("late", positive="late", texts=("a",)), "label.texts: label.raw must say in which column"),
        (Label("late", positive="late", raw="x"), "label.raw: label.texts must say what may stand in it"),
        (Label("late", positive="late", raw="y", texts=("a",)), "label.raw: y is no column of tables.points"),
    ],
)
def test_settings_of_a_label_should_go_together(label: Label, said: str) -> None:
    settings = points.settings()
    tables = {settings.main: Table(columns={"x": "double"})}
    with pytest.raises(ValueError, match=said):
        replace(settings, tables=tables, label=replace(label, column=settings.label.column))
