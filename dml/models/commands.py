"""`dml models` and `dml report`: a dataset's models, compared, shown as a page, and made current by hand."""

from typing import TYPE_CHECKING, Annotated

import typer

from dml.terminal.options import DatasetArgument, DatasetOption, EnvironmentOption, JsonOption, LocalOption

if TYPE_CHECKING:
    from dml.models.registry import Registry

top = typer.Typer()
app = typer.Typer(
    help="The models of a dataset: compare them, and change by hand which one is current.", no_args_is_help=True
)

RunArgument = Annotated[str, typer.Argument(metavar="RUN", help="A run's id or a unique part of it.")]
ReasonOption = Annotated[str, typer.Option("--reason", help="Why; it is kept in CURRENT.json.", show_default=False)]


def _registry(dataset: str, local: bool, env: str) -> "Registry":
    from datasets import load_dataset
    from dml.estate.platform import deployed
    from dml.models.registry import Registry

    load_dataset(dataset)
    return Registry(deployed(local, env), dataset)


@top.command()
def report(
    dataset: DatasetArgument = "nyc_flights",
    run_id: Annotated[str | None, typer.Option("--run", help="A run's id; without it the current model's.")] = None,
    local: LocalOption = False,
    env: EnvironmentOption = "dev",
) -> None:
    """Write one HTML page about a model (tree, curves, importances, counts) and print where it is. Needs no network."""
    from datasets import load_dataset
    from dml import checkout
    from dml.estate.platform import deployed
    from dml.models import report as own

    load_dataset(dataset)
    typer.echo(own.write(deployed(local, env), dataset, run_id, folder=checkout.home() / "reports"))


@app.command(name="list")
def list_models(
    dataset: DatasetArgument = "nyc_flights",
    local: LocalOption = False,
    env: EnvironmentOption = "dev",
    as_json: JsonOption = False,
) -> None:
    """List the finished runs, the newest first, and which model was current when."""
    from dml.models import registry
    from dml.terminal.console import show_document

    show_document(registry.listing(_registry(dataset, local, env)), registry.show_list, as_json=as_json)


@app.command()
def show(
    run_id: Annotated[
        str | None, typer.Argument(metavar="[RUN]", help="A run's id or a unique part of it; without it the current.")
    ] = None,
    dataset: DatasetOption = "nyc_flights",
    local: LocalOption = False,
    env: EnvironmentOption = "dev",
    as_json: JsonOption = False,
) -> None:
    """Show one model: its figures, what the gate said, what it looks at, where its files lie, who made it current."""
    from dml.models import registry
    from dml.terminal.console import show_document

    show_document(registry.description(_registry(dataset, local, env), run_id), registry.show_model, as_json=as_json)


@app.command()
def diff(
    run_id: RunArgument,
    other: Annotated[
        str | None, typer.Argument(metavar="[RUN2]", help="What to compare it with; without it the current model.")
    ] = None,
    dataset: DatasetOption = "nyc_flights",
    local: LocalOption = False,
    env: EnvironmentOption = "dev",
    as_json: JsonOption = False,
) -> None:
    """Show two models side by side: figures, data, features, settings and first splits."""
    from dml.models import registry
    from dml.terminal.console import show_document

    found = registry.difference(_registry(dataset, local, env), run_id, other)
    show_document(found, registry.show_difference, as_json=as_json)


@app.command()
def promote(
    run_id: RunArgument,
    dataset: DatasetOption = "nyc_flights",
    reason: ReasonOption = "",
    even_if_refused: Annotated[
        bool, typer.Option("--even-if-refused", help="Although the gate refused it, or left no verdict.")
    ] = False,
    local: LocalOption = False,
    env: EnvironmentOption = "dev",
    as_json: JsonOption = False,
) -> None:
    """Make a run the current model, unless somebody else moves it at the same time. Trains and predicts nothing."""
    from dml.models import registry
    from dml.terminal.console import say, show_document

    models = _registry(dataset, local, env)
    moved = registry.promote(models, run_id, reason=reason, even_if_refused=even_if_refused, say=say)
    show_document(moved, registry.show_moved, as_json=as_json)


@app.command()
def rollback(
    dataset: DatasetArgument = "nyc_flights",
    reason: ReasonOption = "",
    local: LocalOption = False,
    env: EnvironmentOption = "dev",
    as_json: JsonOption = False,
) -> None:
    """Make the previous model current again; a second rollback undoes the first. Trains and predicts nothing."""
    from dml.models import registry
    from dml.terminal.console import say, show_document

    moved = registry.rollback(_registry(dataset, local, env), reason=reason, say=say)
    show_document(moved, registry.show_moved, as_json=as_json)
