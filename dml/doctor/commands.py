"""`dml doctor`: what would stop the first deployment."""

from functools import partial
from typing import Annotated

import typer

from dml.terminal.options import JsonOption, LocalOption

top = typer.Typer()


@top.command()
def doctor(
    env: Annotated[str, typer.Option("--env", help="Which environment: a file of environments/.")] = "dev",
    offline: Annotated[bool, typer.Option("--offline", help="Look at this machine only; ask no account.")] = False,
    change_set: Annotated[
        bool,
        typer.Option(
            "--change-set",
            help="Also make a change set for each stack: never executed, and deleted at once. This one thing writes.",
        ),
    ] = False,
    local: LocalOption = False,
    as_json: JsonOption = False,
) -> None:
    """Find what would stop the first deploy: tools, templates, credentials, quotas, names. It only reads.

    Exit code 1 if there is any problem. A question that you may not ask is skipped and says which right it wants.
    """
    from dml.doctor import report
    from dml.estate.platform import deployed
    from dml.terminal.console import err, show_document

    if offline and local:
        raise typer.BadParameter("--offline asks no account, --local asks the embedded cloud: choose one")
    if offline and change_set:
        raise typer.BadParameter("--offline asks no account, --change-set asks CloudFormation: choose one")
    connect = None if offline else partial(deployed, local, env, patient=False)
    with err.status("") as spinner:
        found = report.examine(env, connect, on_progress=spinner.update, change_set=change_set)
    show_document(found, report.show, as_json=as_json)
    if report.problems(found):
        raise typer.Exit(1)
