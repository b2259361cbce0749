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
from dml.zeppelin import commands as zeppelin

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
    "zeppelin": zeppelin.app,
}.items():
    app.add_typer(commands, name=name)


def _silence(error: Exception) -> str:
    """A sentence for a cloud that answers no more; '' for any other error."""
    from botocore.exceptions import ConnectionError, HTTPClientError  # botocore's own

    if not isinstance(error, ConnectionError | HTTPClientError):
        return ""
    where = str(getattr(error, "kwargs", {}).get("endpoint_url", "")).partition("?")[0]
    if "//127.0.0.1:" in where:
        return (
            f"The embedded cloud ({where}) does not answer any more: it was stopped, or has died (.dml/cloud/logs says "
            "why). The next `dml local up` or `dml run --local` brings it back with its data."
        )
    return f"AWS does not answer: {error}. Look at the network, the proxy and the region."


def main() -> None:
    """The console script: an error that we expect becomes one message and exit code 1."""
    try:
        app()
    except Exception as error:
        from datasets.toml_file import TomlError  # here, since `dml --help` needs nothing of what comes with it

        told = str(error) if isinstance(error, UserError | TomlError) else _silence(error)
        if not told:
            raise
        console.err.print(f"[red]Error:[/red] {escape(told)}", highlight=False, soft_wrap=True)
        sys.exit(1)
