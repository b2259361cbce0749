"""`dml cost`: what the templates will cost, before anything is deployed."""

import json
from typing import Annotated

import typer

from dml.terminal.options import JsonOption

top = typer.Typer()


@top.command()
def cost(
    env: Annotated[
        str | None, typer.Option("--env", help="Which environment; without it all of them.", show_default=False)
    ] = None,
    against: Annotated[
        str | None,
        typer.Option(metavar="REV|FOLDER", help="Show what has changed since a git revision, or what cdk synth made."),
    ] = None,
    rows: Annotated[float | None, typer.Option(help="Say which cluster so many rows need, such as 1e9.")] = None,
    within: Annotated[float, typer.Option(help="--rows: minutes that the whole run may take.")] = 60,
    depth: Annotated[
        int | None, typer.Option(help="--rows: the tree's depth.", min=1, max=30, show_default="12")
    ] = None,
    dataset: Annotated[
        str | None, typer.Option(help="--rows: whose learner, depth, features and classes.", show_default=False)
    ] = None,
    assume: Annotated[
        list[str] | None, typer.Option(metavar="NAME=VALUE", help="Change what no template tells, such as data_gb=500.")
    ] = None,
    markdown: Annotated[bool, typer.Option("--markdown", help="--against: for a comment on a pull request.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Price the templates before they are deployed: as they stand, an hour, a run, a month. Needs no AWS account.

    List prices of one region, dated, in dml/cost/prices.toml. What has no price there is named, and the exit code is 1.
    """
    from dml.cost import pricing, show, sizing
    from dml.cost.prices import load
    from dml.terminal.console import err, out
    from stacks.settings import environment_names, load_environment

    prices = load().assuming(assume or [])
    if dataset is not None and rows is None:
        raise typer.BadParameter("--dataset goes with --rows: it says what so many rows would be learned by")
    if rows is not None:
        if env or against or markdown:
            raise typer.BadParameter("--rows looks at no environment; --env, --against and --markdown go without it")
        if dataset is not None and depth is not None:
            raise typer.BadParameter(
                "--depth and --dataset exclude each other: the dataset's own depth counts (12 if it has none). "
                "Leave one of them out"
            )
        asked = sizing.task_of(dataset) if dataset is not None else {} if depth is None else {"depth": depth}
        found = sizing.size(rows, prices, within=within, **asked)
        typer.echo(json.dumps(found.as_json(), indent=2)) if as_json else show.show_sizing(out, found)
        return
    if markdown and against is None:
        raise typer.BadParameter("--markdown goes with --against")
    names = [load_environment(env).name] if env else environment_names()
    with err.status("synthesizing the templates"):
        compared = pricing.differences(names, against, prices) if against else []
        estimates = [each.after for each in compared] or pricing.estimates(names, prices)
    if as_json:
        typer.echo(json.dumps({"environments": [each.as_json() for each in compared or estimates]}, indent=2))
    elif markdown:
        typer.echo("\n\n".join(map(show.markdown, compared)))
    elif compared:
        show.show_differences(out, compared)
    else:
        show.show_estimates(out, estimates)
    pricing.require_known(estimates)
