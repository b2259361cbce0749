"""`dml dataset`: own data become a dataset, and a dataset is looked at before it is run."""

from pathlib import Path
from typing import Annotated

import typer

from dml.terminal.options import EnvironmentOption, LocalOption, YesOption

app = typer.Typer(help="What the platform learns from: folders of datasets/.", no_args_is_help=True)


@app.command()
def new(
    name: Annotated[str, typer.Argument(help="The dataset's name: lower-case letters, digits and _.")],
    files: Annotated[
        list[Path],
        typer.Argument(metavar="FILE...", help="CSV, JSON lines (both also .gz) or Parquet files, or folders of them."),
    ],
    label: Annotated[str, typer.Option(help="The column to predict.")],
    columns: Annotated[
        str, typer.Option(help="Names of all columns, with commas, if the file has no header.", show_default=False)
    ] = "",
    skip: Annotated[
        int | None,
        typer.Option(help="How many lines stand above the header; found out without it.", min=0, show_default=False),
    ] = None,
) -> None:
    """Write a first dataset.toml and prepare.sql for files, guessing types, key, task and features, and say why.

    Files of one header become a table; the one with the label has a row for each example, the others are joined to it.
    Folders called name=value on the way to a file are columns of its table.
    """
    from dml.dataset import new as own
    from dml.terminal.console import err

    names = [column.strip() for column in columns.split(",")] if columns else []
    with err.status("") as spinner:
        found = own.new(name, files, label, columns=names, skip=skip, on_progress=spinner.update)
    own.show(err, found)
    for file in ("dataset.toml", "prepare.sql"):
        typer.echo(f"datasets/{name}/{file}")
    err.print(
        f"\nNext\n  read and mend both files: each guess has its reason\n"
        f"  dml dataset check {name}    see whether they fit the data\n"
        f"  dml run {name} --local      train a tree on this machine",
        highlight=False,
    )


@app.command()
def remove(
    name: Annotated[str, typer.Argument(help="A deployed dataset; its folder may be gone.")],
    with_data: Annotated[
        bool, typer.Option("--data", help="Delete its raw data, features, models, notes and tables too.")
    ] = False,
    yes: YesOption = False,
    local: LocalOption = False,
    env: EnvironmentOption = "dev",
) -> None:
    """Take a dataset's stack away: pipeline, crawler, job, schedule. Its data stay unless --data is given."""
    from dml.estate import remove as own
    from dml.estate.platform import deployed
    from dml.local import here
    from dml.terminal.console import ask, err, say

    platform = deployed(local, env)
    with err.status("") as spinner:
        found = own.plan(platform, name, data=with_data, say=spinner.update)
    say("\n".join(found.sentences))
    if not yes:
        again = platform.command(f"dataset remove {name}{' --data' if with_data else ''} --yes")
        ask(again, lambda: typer.prompt(f"To do this for good, type {name}", err=True) == name)
    with here.stopped_together(local=False), err.status("") as spinner:
        own.remove(platform, found, say=spinner.update, every=here.interval(local))
    typer.echo(f"{name} is gone from {env}")


@app.command()
def check(
    name: Annotated[str | None, typer.Argument(help="A folder of datasets/; without it all of them.")] = None,
) -> None:
    """See whether settings, files and query of a dataset fit together, on a sample of rows; runs no pipeline."""
    from datasets import dataset_names, load_dataset
    from dml import checkout
    from dml.dataset import check as own
    from dml.terminal.console import err, out

    if name is not None and name not in dataset_names():
        load_dataset(name)  # says which there are
    with err.status("") as spinner:
        checked = own.check(
            [name] if name else dataset_names(),
            cache=checkout.home() / "raw",
            on_progress=spinner.update
            if err.is_terminal
            else lambda text: err.print(text, highlight=False, soft_wrap=True),
        )
    own.show(out, checked)
    if any(each.findings for each in checked):
        raise typer.Exit(1)
