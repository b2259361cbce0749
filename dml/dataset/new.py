"""`dml dataset new`: from files to a dataset that runs, running nothing; and on screen what was guessed."""

import re
import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from rich.console import Console
from rich.markup import escape

import datasets
from dml.dataset import scaffold
from dml.dataset.csv_file import HASH_KEYS, CsvFile
from dml.dataset.scaffold import Draft
from dml.dataset.tables import tables_of, told_of
from dml.errors import UserError
from dml.models.raw_file import FORMATS
from dml.terminal.console import plain_table
from stacks.names import check_name, too_many

NAME = re.compile(r"[a-z][a-z0-9_]*")


def new(
    name: str,
    files: Sequence[Path],
    label: str,
    *,
    columns: Sequence[str],
    skip: int | None = None,
    on_progress: Callable[[str], None],
) -> Draft:
    """Writes datasets/NAME/dataset.toml and prepare.sql, and returns what was guessed.

    `files`: or folders of them. `columns` name the columns of a file that has no header, `skip` says how many lines
    stand above it. Raises UserError, and then nothing is written.
    """
    home = datasets.HOME / name
    if not NAME.fullmatch(name):
        raise UserError(
            f"{name!r} cannot be a dataset's name: lower-case letters, digits and _, beginning with a letter."
        )
    if home.exists():
        raise UserError(f"datasets/{name} is there already, and is never overwritten: take another name, or delete it.")
    check_name(name, datasets.dataset_names())
    folder, opened = tables_of(name, files, columns, skip, on_progress)
    by_table: dict[str, CsvFile] = {}
    for file in opened:
        if file.table in by_table:
            raise UserError(
                f"{by_table[file.table].called} and {file.called} would both be the table {file.table}: rename one."
            )
        by_table[file.table] = file
    found = replace(scaffold.draft(name, opened, label, on_progress), folder=folder)
    home.mkdir(parents=True)
    try:
        (home / "dataset.toml").write_text(scaffold.dataset_toml(found), encoding="utf-8")
        (home / "prepare.sql").write_text(scaffold.prepare_sql(found), encoding="utf-8")
        datasets.load_dataset(name)
    except BaseException:
        shutil.rmtree(home)
        raise
    many = too_many(datasets.dataset_names())
    return replace(found, notes=(*found.notes, many)) if many else found


def show(console: Console, found: Draft) -> None:
    """What was guessed, for the person who has to judge it."""
    for table, file in found.files.items():
        dialect = file.dialect
        delimiter = {",": "comma", ";": "semicolon", "\t": "tab"}.get(dialect.delimiter, dialect.delimiter)
        if file.parts:
            console.print(escape(told_of(file)), highlight=False, soft_wrap=True)
        console.print(
            f"{file.called}: {found.rows[table]:,} rows, {len(file.headers)} columns "
            + (
                f"({delimiter}, {dialect.encoding}, {'a header' if dialect.header else 'no header'})"
                if dialect.format == "csv"
                else f"({FORMATS[dialect.format]})"
            ),
            highlight=False,
        )
    console.print()
    several = len(found.files) > 1
    titles = ("column", *(["of"] if several else []), "type", "values", "missing", "use", "why")
    screen = plain_table(*titles, right=("values", "missing"), padding=(0, 1))
    for each in found.fields:
        column = each.column
        kind = "number" if column.form else column.kind
        missing = f"{column.nulls / column.rows:.1%}" if column.nulls else ""
        style = {"label": "bold", "left out": "dim"}.get(each.use, "")
        if each.why.startswith("LEAK"):
            style = "yellow"
        of = [each.table] if several else []
        said = found.said(each)
        cells = [
            each.name if said == each.name else f"{said} ({each.name})",
            *of,
            kind,
            f"{column.distinct:,}",
            missing,
            each.use,
            each.why,
        ]
        screen.add_row(*(escape(cell) for cell in cells), style=style)
    console.print(screen)
    console.print()
    label = found.label
    by_name = {each.name: found.said(each) for each in found.fields}
    keys = ", ".join(by_name[key] for key in found.keys) or ", ".join(HASH_KEYS)
    console.print(f"Predicts  {escape(found.said(label))} ({escape(label.why)})", highlight=False)
    console.print(f"Key       {escape(keys)}", highlight=False)
    for join in found.joins:
        console.print(
            f"Join      {join.table} on {', '.join(join.keys)}: found for {join.found:.0%} of rows", highlight=False
        )
    for table in sorted(set(found.files) - {found.main} - {join.table for join in found.joins}):
        console.print(f"Not joined  {table}: see the comment in prepare.sql", highlight=False)
    for note in found.notes:
        console.print(f"[yellow]![/yellow] {escape(note)}", highlight=False, soft_wrap=True)
