"""`dml local calls`: what the embedded cloud has decided about calls, as a table; operator time."""

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console

from dml.terminal.console import plain_table

Found = list[dict[str, Any]]


def found(told: Mapping[str, Found], *, denied: bool, unused: bool) -> Found:
    """What to show of what the server tells (dml/local/access/calls.py)."""
    if unused:
        return told["unused"]
    return [call for call in told["calls"] if not denied or call["decision"] != "Allow"]


def show(console: Console, rows: Sequence[Mapping[str, Any]]) -> None:
    """Prints a table to `console`; lists are joined. Nothing is printed for no rows, so that a script sees nothing."""
    if not rows:
        return
    table = plain_table(*rows[0], right=("count",))
    for row in rows:
        table.add_row(*(", ".join(value) if isinstance(value, list) else str(value) for value in row.values()))
    console.print(table, highlight=False)
