"""Runs the checks, those of one kind side by side, and shows what they found, always in the same order."""

from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from dml.doctor import account, change_sets, machine, names, questions, quotas
from dml.doctor.account import Account
from dml.doctor.findings import Check, Finding, Skipped, problem
from dml.doctor.machine import Machine
from dml.doctor.needs import Needs
from dml.errors import UserError
from dml.estate.platform import Platform
from dml.terminal.console import plain_table
from dml.terminal.words import counted

Where = TypeVar("Where")
Row = dict[str, str]
MACHINE_CHECKS = machine.CHECKS
ACCOUNT_CHECKS = (*account.CHECKS, *quotas.CHECKS, *names.CHECKS, *questions.CHECKS)
AT_ONCE = 8  # calls; more would be throttled
SIGNS = {
    "ok": "[green]✓[/green]",
    "warning": "[yellow]![/yellow]",
    "problem": "[red]✗[/red]",
    "skipped": "[dim]·[/dim]",
}


def examine(
    environment: str,
    connect: Callable[[], Platform] | None,
    *,
    on_progress: Callable[[str], None],
    change_set: bool = False,
) -> dict[str, Any]:
    """Make all checks of an environment; `connect` gives the account's endpoint, None leaves the account alone.

    `change_set`: make change sets as well, which are never executed and are deleted at once.

    Returns what --json prints: `environment`, `account`, `region`, `endpoint` (null for AWS's own), `counts` by status,
    and `checks`, each with `where` (machine or account), `check`, `status` (ok, warning, problem, skipped), `found` and
    `advice`.
    """
    here = Machine(environment)
    on_progress("looking at this machine, synthesising the templates")
    with ThreadPoolExecutor(AT_ONCE) as pool:
        rows = list(pool.map(lambda check: look("machine", check, here), MACHINE_CHECKS))
    found: dict[str, Any] = {"environment": environment, "endpoint": None, "account": None, "region": None}
    if connect:
        on_progress("asking AWS who you are")
        synthesised = any(row["check"] == "synth" and row["status"] == "ok" for row in rows)
        place, first = _connected(connect, here.needs if synthesised else None)
        rows.append(_row("account", account.CREDENTIALS, first))
        if first.status == "ok" and place:
            where = {"endpoint": place.platform.endpoint, "region": place.platform.region}
            found |= {"account": place.identity["Account"], **where}
            on_progress(f"asking AWS: {len(ACCOUNT_CHECKS)} checks of account and region")
            with ThreadPoolExecutor(AT_ONCE) as pool:
                rows += pool.map(lambda check: look("account", check, place), ACCOUNT_CHECKS)
            if change_set:  # on this thread, which Ctrl-C interrupts: it has something to take away
                on_progress("asking CloudFormation for change sets, which are not executed")
                rows.append(look("account", change_sets.CHECK, place))
        else:
            unasked = Finding("skipped", "not asked without credentials", "See `credentials`")
            rows += [_row("account", check, unasked) for check in ACCOUNT_CHECKS]
    counts = Counter(row["status"] for row in rows)
    return found | {"counts": {status: counts[status] for status in SIGNS}, "checks": rows}


def look(kind: str, check: Check[Where], place: Where) -> Row:
    """Make one check; what keeps it from an answer is its finding."""
    try:
        with account.reasons():
            found = check.look(place)
    except Skipped as reason:
        found = Finding("skipped", str(reason), f"Look yourself, or ask who may: {check.by_hand}")
    return _row(kind, check, found)


def problems(found: dict[str, Any]) -> bool:
    """Whether anything would stop the deploy or the first run."""
    return bool(found["counts"]["problem"])


def show(console: Console, found: dict[str, Any]) -> None:
    """Print each check with what it found, and what to do where there is something to do."""
    for kind, title in (("machine", "This machine"), ("account", _account_title(found))):
        rows = [row for row in found["checks"] if row["where"] == kind]
        if rows:
            console.print(f"[bold]{escape(title)}[/bold]", highlight=False)
            console.print(_table(rows))
            console.print()
    told = [_told(status, number) for status, number in found["counts"].items() if number]
    console.print(", ".join(told), highlight=False)
    if not problems(found):
        given = found["environment"]
        command = f"dml run --local --env {given}" if found["endpoint"] else f"npx cdk deploy --all -c env={given}"
        console.print(f"Next  {command}", highlight=False)


def _connected(connect: Callable[[], Platform], needs: Needs | None) -> tuple[Account | None, Finding]:
    try:
        place = Account(connect(), needs)
    except UserError as error:
        return None, problem("not connected", str(error))
    return place, account.credentials(place)


def _row(kind: str, check: Check[Any], found: Finding) -> Row:
    return {
        "where": kind,
        "check": check.name,
        "status": found.status,
        "found": found.found,
        "advice": found.advice,
    }


def _table(rows: list[Row]) -> Table:
    table = plain_table("", show_header=False)
    table.add_column(max_width=32)
    table.add_column(overflow="fold")
    for row in rows:
        if row["status"] != "skipped":
            table.add_row(SIGNS[row["status"]], row["check"], escape(row["found"]))
            if row["advice"]:
                table.add_row("", "", f"[bold]→[/bold] {escape(row['advice'])}")
    skipped: dict[str, list[Row]] = {}
    for row in rows:
        if row["status"] == "skipped":
            skipped.setdefault(row["found"], []).append(row)
    for reason, some in skipped.items():
        name = some[0]["check"] if len(some) == 1 else f"{len(some)} checks"
        table.add_row(SIGNS["skipped"], name, escape(reason), style="dim")
        which = some[0]["advice"] if len(some) == 1 else ", ".join(row["check"] for row in some)
        table.add_row("", "", escape(which), style="dim")
    return table


def _account_title(found: dict[str, Any]) -> str:
    return f"Account {found['account']} in {found['region']}" if found["account"] else "Account"


def _told(status: str, number: int) -> str:
    if status in ("warning", "problem"):
        return counted(number, status)
    return f"{number} in order" if status == "ok" else f"{number} {status}"
