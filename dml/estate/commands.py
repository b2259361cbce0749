"""What an operator does with an environment as a whole: raw data into it, updates, pause, resume, destroy."""

import json
import sys
from functools import partial
from typing import Annotated

import typer

from dml.terminal.options import DatasetArgument, EnvironmentOption, JsonOption, LocalOption, YesOption

top = typer.Typer()
data = typer.Typer(help="Raw data of the datasets.", no_args_is_help=True)


@top.command()
def certificates(local: LocalOption = False, env: EnvironmentOption = "dev") -> None:
    """Make a new certificate for TLS between the nodes of clusters; `run` makes one when it is due."""
    from dml.estate import certificate
    from dml.estate.platform import deployed

    typer.echo(certificate.ensure(deployed(local, env), renew=True))


@top.command()
def pause(
    stop_runs: Annotated[bool, typer.Option("--stop-runs", help="Stop a run that is executing, too.")] = False,
    yes: YesOption = False,
    local: LocalOption = False,
    env: EnvironmentOption = "dev",
) -> None:
    """Take away what costs most by standing, network and clusters; data, catalog, models, notes and schedules stay."""
    from dml.estate import teardown
    from dml.estate.platform import deployed
    from dml.local import here
    from dml.terminal.console import ask, err, say

    platform = deployed(local, env)
    going, under_way = teardown.pausing(platform, stop_runs=stop_runs)
    if not going:
        typer.echo(f"{env} is paused already; bring it back: {platform.command('resume')}")
        return
    say("\n".join(teardown.pause_text(platform, going, under_way)))
    if not yes:
        ask(
            platform.command(f"pause{' --stop-runs' if stop_runs else ''} --yes"),
            lambda: typer.confirm("Pause it?", err=True),
        )
    with here.stopped_together(local=False), err.status("") as spinner:
        teardown.pause(platform, going, under_way, say=spinner.update, every=here.interval(local))
        billed = teardown.still_costs(platform, say=spinner.update)
    typer.echo(f"{env} is paused; bring it back: {platform.command('resume')}")
    say(f"What still costs: {', '.join(billed)}.")


@top.command()
def resume(local: LocalOption = False, env: EnvironmentOption = "dev") -> None:
    """Bring a paused environment back, or to this release: deploy all stacks, and adopt what earlier ones have kept."""
    from dml import cdk, checkout
    from dml.errors import UserError
    from dml.estate import inventory
    from dml.estate.platform import deployed
    from dml.local import here
    from dml.local.deploy import deploy
    from dml.terminal.board import Board
    from dml.terminal.console import err

    platform = deployed(local, env)
    if not inventory.stacks(platform):
        raise UserError(f"Nothing of {env} is deployed here. Deploy it first: {platform.deploying()}")
    with here.stopped_together(local), Board(err, ["deploy"]) as board:
        board.start("deploy")
        said = partial(board.note, "deploy")
        if not local:
            cdk.make_way(platform.client, platform.prefix, on_progress=said, every=here.interval(local))
        board.done(
            "deploy", deploy(here.cloud(), env, on_progress=said) if local else cdk.deploy(env, checkout.home(), said)
        )
    typer.echo(f"{env} is back")


@top.command()
def destroy(
    yes: YesOption = False,
    local: LocalOption = False,
    env: EnvironmentOption = "dev",
    as_json: JsonOption = False,
) -> None:
    """Show what would be deleted and what is kept; then, with --yes or when told so, delete it and write a receipt."""
    from dml import checkout
    from dml.errors import UserError
    from dml.estate import receipt, teardown
    from dml.estate.platform import deployed
    from dml.local import here
    from dml.terminal.console import ask, err, say, show_document

    platform = deployed(local, env)
    receipts = receipt.Receipts(checkout.home() / "receipts", platform)
    with err.status("") as spinner:
        found = teardown.plan(platform, receipts, say=spinner.update)
    if found is None:
        say(f"Nothing of {env} is deployed here: there is no stack {platform.prefix}*.")
        return
    if not yes:
        show_document(found.as_json(), lambda console, _: receipt.show_plan(console, found), as_json=as_json)
        if as_json or not sys.stdin.isatty():
            say(f"Nothing was deleted. To do it: {platform.command('destroy --yes')}")
            return
        ask("", lambda: typer.prompt(f"To delete this for good, type {env}", err=True) == env)
    with here.stopped_together(local=False), err.status("") as spinner:
        try:
            path = teardown.destroy(platform, found, receipts, say=spinner.update, every=here.interval(local))
        except KeyboardInterrupt:
            say(f"Interrupted. {platform.command('destroy')} goes on; so far: {receipts.path(found)}")
            raise
    show_document(found.as_json(), lambda console, _: receipt.show(console, found), as_json=as_json)
    say(f"Receipt: {path}")
    if failed := len(found.of("failed")):
        raise UserError(
            f"{failed} resources still stand; the receipt says why. Run the same command again: it goes on."
        )


@top.command()
def diff(local: LocalOption = False, env: EnvironmentOption = "dev", as_json: JsonOption = False) -> None:
    """Say what deploying this checkout would change, and above all replace, before it does. Changes nothing.

    Exit code 1 if CloudFormation would refuse some of it.
    """
    from dml.estate import diff as own
    from dml.estate.platform import deployed
    from dml.terminal.console import out

    platform = deployed(local, env)
    found = own.diff(platform)
    if as_json:
        typer.echo(json.dumps(found.as_json(), indent=2))
    else:
        own.show(out, found, platform.command)
    if found.refused:
        raise typer.Exit(1)


@data.command()
def push(
    dataset: DatasetArgument = "nyc_flights",
    delete: Annotated[
        bool, typer.Option("--delete", help="Delete files of its tables in the raw bucket that the source has not.")
    ] = False,
    local: LocalOption = False,
    env: EnvironmentOption = "dev",
) -> None:
    """Upload a dataset's raw files; those that have not changed stay as they are."""
    from datasets import load_dataset
    from dml import checkout
    from dml.estate import data as own
    from dml.estate.platform import deployed
    from dml.terminal.console import err

    platform = deployed(local, env)
    pushed = own.push(
        platform,
        load_dataset(dataset),
        cache=checkout.home() / "raw",
        on_progress=lambda text: err.print(text, highlight=False),
        delete=delete,
    )
    for table, what in pushed.items():
        typer.echo(f"{table}\t{what}")


@data.command()
def prune(
    dataset: DatasetArgument = "nyc_flights",
    keep: Annotated[
        int | None, typer.Option("--keep", min=1, help="So many of the newest runs stay; as retention.keep_runs says.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be deleted.")] = False,
    yes: YesOption = False,
    local: LocalOption = False,
    env: EnvironmentOption = "dev",
    as_json: JsonOption = False,
) -> None:
    """Delete what old runs have left: features, predictions, quarantine, models. What anybody reads stays."""
    from dml.estate import prune as own
    from dml.estate.platform import deployed
    from dml.terminal.console import ask, err, say, show_document
    from dml.terminal.words import counted
    from stacks.settings import load_environment

    platform = deployed(local, env)
    runs = own.plan(platform, dataset, keep or load_environment(env).retention.keep_runs)
    going = [run for run in runs if not run.why]
    show_document(
        {"dataset": dataset, "runs": [run.as_json() for run in runs]},
        lambda console, _: console.print(own.table(runs)),
        as_json=as_json,
    )
    size = sum(run.size for run in going) / 1e6
    what = f"{counted(len(going), 'run')} of {dataset}, {size:,.1f} MB"
    if dry_run or not going:
        say(f"Nothing was deleted. To go: {what}.")
        return
    if not yes:
        again = f"data prune {dataset}{f' --keep {keep}' if keep else ''} --yes"
        ask(platform.command(again), lambda: typer.confirm(f"Delete what is left of {what}?", err=True))
    with err.status("") as spinner:
        own.prune(platform, going, spinner.update)
    say(f"Deleted: {what}. Models can be brought back by their former versions for 30 days.")
