"""nyc_flights: only what is known before departure is a feature, and the joins add no rows."""

import re

import pytest
from pyspark.sql import DataFrame, SparkSession

from datasets import load_dataset, prepare_sql
from jobs import prepare
from jobs.tables.settings import Dataset

# What somebody who asks before departure can know. A new feature is added here on purpose, or not at all.
KNOWN_BEFORE_DEPARTURE = {
    *("weekday", "departure_minute", "distance", "origin_hour_departures"),
    *("plane_year", "plane_seats", "dest_lat", "dest_lon"),
    *("humid", "wind_speed", "precip", "visib"),  # of the hour before
    *("carrier", "origin", "dest"),
}
KNOWN_AFTERWARDS = ("dep_time", "dep_delay", "arr_time", "arr_delay", "air_time")

FLIGHT = {
    "year": 2013,
    "month": 6,
    "day": 3,
    "arr_delay": 0,
    "carrier": "UA",
    "flight": 1,
    "tailnum": "N1",
    "origin": "EWR",
    "dest": "BOS",
    "distance": 200.0,
    "hour": 9,
    "minute": 30,
    "time_hour": "2013-06-03T13:00:00Z",
}
WEATHER = {"origin": "EWR", "time_hour": "2013-06-03T12:00:00Z", "humid": 70.0, "wind_speed": 5.0}
PLANE = {"tailnum": "N1", "year": 2001, "seats": 150}
AIRPORT = {"faa": "BOS", "lat": 42.4, "lon": -71.0}


@pytest.fixture
def settings() -> Dataset:
    return load_dataset("nyc_flights")


def features(spark: SparkSession, settings: Dataset, **tables: list[dict[str, object]]) -> DataFrame:
    """prepare.sql over the given rows; a column that is not given is NULL."""
    given = {"flights": [FLIGHT], "weather": [WEATHER], "planes": [PLANE], "airports": [AIRPORT], **tables}
    for name, table in settings.tables.items():
        columns = table.columns
        rows = [tuple(None if c not in row else str(row[c]) for c in columns) for row in given[name]]
        frame = spark.createDataFrame(rows, ", ".join(f"{column} string" for column in columns))
        typed = [f"CAST({column} AS {kind}) AS {column}" for column, kind in columns.items()]
        frame.selectExpr(*typed).createOrReplaceTempView(name)
    return prepare.join(spark, settings, prepare_sql("nyc_flights"))


def test_only_what_is_known_before_departure_should_be_a_feature(settings: Dataset) -> None:
    declared = {*settings.features.numbers, *settings.features.categories}
    assert declared == KNOWN_BEFORE_DEPARTURE


def test_only_the_label_should_come_from_what_is_known_afterwards(settings: Dataset) -> None:
    read = settings.tables["flights"].columns
    assert [name for name in KNOWN_AFTERWARDS if name in read] == ["arr_delay"]
    code = re.sub(r"--.*", "", prepare_sql("nyc_flights"))
    assert {name: len(re.findall(rf"\b{name}\b", code)) for name in KNOWN_AFTERWARDS if name in code} == {
        "arr_delay": 1
    }
    assert "CAST(f.arr_delay > 15 AS INT) AS late" in code


def test_another_arrival_delay_should_change_nothing_but_the_label(spark: SparkSession, settings: Dataset) -> None:
    flights = [{**FLIGHT, "flight": i, "arr_delay": delay} for i, delay in enumerate((-5, 15, 16, 300))]
    rows = features(spark, settings, flights=flights).orderBy("flight")
    assert [row["late"] for row in rows.collect()] == [0, 0, 1, 1]
    assert rows.drop("late", "flight").distinct().count() == 1


def test_a_flight_without_an_arrival_delay_should_have_no_label(spark: SparkSession, settings: Dataset) -> None:
    cancelled = {key: value for key, value in FLIGHT.items() if key != "arr_delay"}
    (row,) = features(spark, settings, flights=[cancelled]).collect()
    assert row["late"] is None


def test_weather_should_be_that_of_the_hour_before(spark: SparkSession, settings: Dataset) -> None:
    hours = {"2013-06-03T12:00:00Z": 70.0, "2013-06-03T13:00:00Z": 99.0, "2013-06-03T11:00:00Z": 11.0}
    weather = [{**WEATHER, "time_hour": hour, "humid": humid} for hour, humid in hours.items()]
    (row,) = features(spark, settings, weather=weather).collect()
    assert row["humid"] == 70.0


def test_the_hour_that_comes_twice_in_autumn_should_add_no_row(spark: SparkSession, settings: Dataset) -> None:
    # 2013-11-03: 05:00Z and 06:00Z are both one o'clock in New York.
    flight = {**FLIGHT, "month": 11, "day": 3, "hour": 2, "time_hour": "2013-11-03T07:00:00Z"}
    weather = [{**WEATHER, "time_hour": f"2013-11-03T0{hour}:00:00Z", "humid": float(hour)} for hour in (5, 6)]
    (row,) = features(spark, settings, flights=[flight], weather=weather).collect()
    assert row["humid"] == 6.0


def test_an_impossible_wind_should_be_missing(spark: SparkSession, settings: Dataset) -> None:
    (row,) = features(spark, settings, weather=[{**WEATHER, "wind_speed": 1048.36}]).collect()
    assert row["wind_speed"] is None
    assert row["humid"] == 70.0


def test_the_hours_load_should_count_departures_by_the_timetable_cancelled_ones_too(
    spark: SparkSession, settings: Dataset
) -> None:
    cancelled = {key: value for key, value in FLIGHT.items() if key != "arr_delay"}
    flights = [FLIGHT, {**cancelled, "flight": 2}, {**FLIGHT, "flight": 3, "origin": "JFK"}]
    rows = features(spark, settings, flights=flights).orderBy("flight").collect()
    assert [row["origin_hour_departures"] for row in rows] == [2, 2, 1]


def test_a_flight_without_weather_plane_or_airport_should_stay(spark: SparkSession, settings: Dataset) -> None:
    (row,) = features(spark, settings, weather=[], planes=[], airports=[]).collect()
    assert (row["humid"], row["plane_year"], row["dest_lat"]) == (None, None, None)
    assert (row["departure_minute"], row["weekday"], row["distance"]) == (570, 0, 200.0)
