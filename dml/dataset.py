"""`dml dataset new` and `dml dataset check`: from CSV files to a dataset that runs, without running anything."""

import re
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

import datasets
from dml import scaffold
from dml.csv_file import open_csv
from dml.errors import UserError
from dml.scaffold import Draft

NAME = re.compile(r"[a-z][a-z0-9_]*")


def new(
    name: str, files: Sequence[Path], label: str, *, columns: Sequence[str], on_progress: Callable[[str], None]
) -> Draft:
    """Writes datasets/NAME/dataset.toml and prepare.sql, and returns what was guessed.

    `columns` name the columns of a file that has no header. Raises UserError, and then nothing is written.
    """
    home = datasets.HOME / name
    if not NAME.fullmatch(name):
        raise UserError(
            f"{name!r} cannot be a dataset's name: lower-case letters, digits and _, beginning with a letter."
        )
    if home.exists():
        raise UserError(f"datasets/{name} is there already, and is never overwritten: take another name, or delete it.")
    if columns and len(files) > 1:
        raise UserError("--columns is for one file without a header: give one file, or write headers into the files.")
    paths = [file.absolute() for file in files]
    folders = sorted({str(path.parent) for path in paths})
    if len(folders) > 1:
        raise UserError(f"The files of a dataset lie in one folder, these in {' and '.join(folders)}: copy them together.")
    opened = [open_csv(path, columns) for path in paths]
    by_table: dict[str, Path] = {}
    for file in opened:
        if file.table in by_table:
            raise UserError(
                f"{by_table[file.table].name} and {file.path.name} would both be the table {file.table}: rename one."
            )
        by_table[file.table] = file.path
    found = scaffold.draft(name, opened, label, on_progress)
    home.mkdir(parents=True)
    try:
        (home / "dataset.toml").write_text(scaffold.dataset_toml(found), encoding="utf-8")
        (home / "prepare.sql").write_text(scaffold.prepare_sql(found), encoding="utf-8")
        datasets.load_dataset(name)
    except BaseException:
        shutil.rmtree(home)
        raise
    return found
