"""The `dml` command: every room's commands, joined. Data goes to stdout, progress and errors to stderr.

Exit codes: 0 done · 1 an error that the message explains · 2 wrong usage · 3 the gate kept the current model ·
130 interrupted.
"""

import sys

import typer
from rich.markup import escape

from dml.cost import commands as cost
from dml.dataset import commands as dataset
from dml.doctor import commands as doctor
from dml.errors import UserError
from dml.estate import commands as estate
from dml.local import commands as local
from dml.models import commands as models
from dml.runs import commands as runs
from dml.smoke import commands as smoke
from dml.terminal import console

app = typer.Typer(
    help="Train and use decision trees on data of any size, on AWS, or on this machine first (--local).",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)
for commands in (runs.top, models.top, estate.top, cost.top, doctor.top, smoke.top):
    app.add_typer(commands)
for name, commands in {
    "dataset": dataset.app,
    "data": estate.data,
    "models": models.app,
    "local": local.app,
}.items():
    app.add_typer(commands, name=name)


def main() -> None:
    """The console script: an error that we expect becomes one message and exit code 1."""
    try:
        app()
    except Exception as error:
        from datasets.toml_file import TomlError  # here, since `dml --help` needs nothing of what comes with it

        if not isinstance(error, UserError | TomlError):
            raise
        console.err.print(f"[red]Error:[/red] {escape(str(error))}", highlight=False, soft_wrap=True)
        sys.exit(1)
