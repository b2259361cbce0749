"""`dml local`: the embedded cloud, up and down, and what it has allowed and denied."""

import json
from typing import Annotated

import typer

from dml.terminal.options import EnvironmentOption, JsonOption

app = typer.Typer(help="The embedded cloud on this machine: no account, no Docker, no bill.", no_args_is_help=True)


@app.command()
def up(
    port: Annotated[int | None, typer.Option(help="Where it listens, on 127.0.0.1 only.")] = None,
    env: EnvironmentOption = "dev",
) -> None:
    """Start the embedded cloud and deploy the platform to it; what stands already is used again."""
    from dml.local import here
    from dml.terminal.board import Board
    from dml.terminal.console import err

    with here.stopped_together(local=True), Board(err, ["embedded cloud", "deploy"]) as board:
        here.stand_up(env, board, port=port)


@app.command()
def down() -> None:
    """Stop the embedded cloud and everything that it runs; its data stays in .dml."""
    from dml.local import here

    typer.echo("stopped" if here.cloud().down() else "was not running")


@app.command()
def status() -> None:
    """Say whether the embedded cloud runs, and where."""
    from dml.local import here

    typer.echo(here.cloud().status())


@app.command()
def env() -> None:
    """Print what points other tools of AWS's to the embedded cloud, for a shell: eval "$(dml local env)"."""
    import os

    from dml.local import here

    typer.echo(here.shell_lines(here.cloud().tools(), os.environ))


@app.command()
def calls(
    denied: Annotated[bool, typer.Option("--denied", help="Only what was denied.")] = False,
    unused: Annotated[bool, typer.Option("--unused", help="The statements of roles that no call has needed.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Show which role has called what in the embedded cloud, how often, and which statement allowed it."""
    from dml.local import here
    from dml.local.access import permissions
    from dml.terminal.console import out

    found = permissions.found(here.cloud().calls(), denied=denied, unused=unused)
    if as_json:
        typer.echo(json.dumps({"unused" if unused else "calls": found}))
    else:
        permissions.show(out, found)
