"""The two streams of a command, and how it speaks, asks and prints: data on stdout, all else on stderr."""

import json
import os
import sys
from collections.abc import Callable, Collection
from typing import TYPE_CHECKING, Any

import typer
from rich.console import Console

from dml.errors import UserError

if TYPE_CHECKING:
    from rich.table import Table

PIPED = 250  # characters of a line that goes to a file or a program, unless COLUMNS says otherwise


def _console(*, stderr: bool) -> Console:
    """What goes to no terminal is not bound to the 80 characters that rich takes for one's width."""
    stream = sys.stderr if stderr else sys.stdout
    bound = stream.isatty() or "COLUMNS" in os.environ
    return Console(stderr=stderr, width=None if bound else PIPED)


out, err = _console(stderr=False), _console(stderr=True)


def say(text: str) -> None:
    err.print(text, highlight=False, markup=False, soft_wrap=True)


def ask(command: str, agree: Callable[[], bool]) -> None:
    """Goes on if the operator agrees; without a terminal there is nobody to ask, and `command` is what to type."""
    if not sys.stdin.isatty():
        raise UserError(f"Nobody is here to agree. Without being asked: {command}")
    if not agree():
        raise UserError("Nothing was changed.")


def show_document(document: dict[str, Any], show: Callable[[Console, dict[str, Any]], None], *, as_json: bool) -> None:
    """Prints what a command has found: as one JSON object, or as `show` draws it."""
    if as_json:
        typer.echo(json.dumps(document, indent=2))
    else:
        show(out, document)


def plain_table(*titles: str, right: Collection[str] = (), **own: Any) -> "Table":
    """A table as every command prints them, without lines; `right`: columns of figures; `own`: what else rich knows.

    Where there is no room a cell goes on in the next line: a figure that is cut is another figure.
    """
    from rich.table import Table

    table = Table(**{"box": None, "pad_edge": False, "padding": (0, 2, 0, 0), "header_style": "dim", **own})
    for title in titles:
        table.add_column(title, justify="right" if title in right else "left", overflow="fold")
    return table
