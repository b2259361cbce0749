"""The `dml` command. Data goes to stdout, progress and errors to stderr.

Exit codes: 0 done · 1 an error that the message explains · 2 wrong usage · 3 the gate kept the current model ·
130 interrupted.
"""

import json
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Annotated, Any, NoReturn

import typer
from rich.console import Console
from rich.markup import escape

from datasets import DatasetError, dataset_names, load_dataset
from dml import (
    cdk,
    certificate,
    data,
    dataset,
    doctor,
    inventory,
    models,
    permissions,
    receipt,
    report,
    score,
    screen,
    status,
    teardown,
)
from dml import diff as updates
from dml.board import Board
from dml.cost import command as costs
from dml.cost import show as cost_screen
from dml.cost import sizing
from dml.cost.prices import load as load_prices
from dml.errors import UserError
from dml.local.cloud import Cloud
from dml.local.deploy import deploy
from dml.platform import Platform
from dml.run import Result, execute, titles
from stacks.settings import SettingsError, environment_names, load_environment

HOME = Path(__file__).parents[1] / ".dml"  # of this checkout, wherever the command is called
GATE_REFUSED = 3

app = typer.Typer(
    help="Train and use decision trees on data of any size, on AWS, or on this machine first (--local).",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)
local_app = typer.Typer(
    help="The embedded cloud on this machine: no account, no Docker, no bill.", no_args_is_help=True
)
dataset_app = typer.Typer(help="What the platform learns from: folders of datasets/.", no_args_is_help=True)
data_app = typer.Typer(help="Raw data of the datasets.", no_args_is_help=True)
app.add_typer(local_app, name="local")
models_app = typer.Typer(
    help="The models of a dataset: compare them, and change by hand which one is current.", no_args_is_help=True
)
app.add_typer(data_app, name="data")
app.add_typer(dataset_app, name="dataset")
app.add_typer(models_app, name="models")

out, err = Console(), Console(stderr=True)

DatasetArgument = Annotated[str, typer.Argument(help="A folder of datasets/.", show_default=True)]
LocalOption = Annotated[
    bool,
    typer.Option(
        "--local", help="On this machine, in the embedded cloud; costs nothing. Without it: your AWS account."
    ),
]
EnvironmentOption = Annotated[
    str,
    typer.Option(
        "--env",
        help="Which environment: a file of environments/.",
        callback=lambda name: load_environment(name).name,  # a wrong name is refused before anything is started
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON object at the end instead of the screen.")]
DatasetOption = Annotated[str, typer.Option("--dataset", help="A folder of datasets/.", show_default=True)]
ReasonOption = Annotated[str, typer.Option("--reason", help="Why; it is kept in CURRENT.json.", show_default=False)]


@app.command()
def run(
    dataset: DatasetArgument = "nyc_flights",
    local: LocalOption = False,
    env: EnvironmentOption = "dev",
    as_json: JsonOption = False,
) -> None:
    """Do it all: catalogue the raw data, prepare it, train a tree, publish it if it is good, predict with it.

    With --local also start the embedded cloud, deploy the platform to it and upload the raw data first; what stands
    already is used again. On AWS it starts the deployed pipeline (a cluster costs money while it runs) and follows it.
    """
    settings = load_dataset(dataset)
    before = ["embedded cloud", "deploy", "raw data"] if local else []
    with _stopped_together(local), Board(err, before + titles("run")) as board:
        if local:
            platform = _stand_up(env, board)
            board.start("raw data")
            pushed = data.push(
                platform, settings, cache=HOME / "raw", on_progress=lambda text: board.note("raw data", text)
            )
            board.done("raw data", ", ".join(f"{table} {what}" for table, what in pushed.items()))
        else:
            platform = Platform(env)
        _certify(platform)
        result = execute(platform, dataset, "run", board, logs=_logs(local), every=_interval(local))
        seconds = {name: board.seconds(name) for name in before}
    _close(platform, result, seconds, local=local, as_json=as_json)
    if not result.published:
        raise typer.Exit(GATE_REFUSED)


@app.command()
def predict(
    what: Annotated[
        str,
        typer.Argument(metavar="DATASET|FILE.csv", help="A folder of datasets/; or a CSV file with the features."),
    ] = "nyc_flights",
    table: Annotated[
        str, typer.Option(help="DATASET: the catalog table to score; it needs the model's feature columns.")
    ] = "features",
    dataset: Annotated[str, typer.Option(help="FILE: whose current model scores it.")] = "nyc_flights",
    model: Annotated[
        Path | None, typer.Option(help="FILE: a run's tree.json instead of the current model; needs no cloud at all.")
    ] = None,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="FILE: where to write; else to stdout.")] = None,
    all_columns: Annotated[
        bool, typer.Option("--all-columns", help="FILE: write all its columns; else the dataset's keys only.")
    ] = False,
    null: Annotated[
        list[str] | None,
        typer.Option(help='FILE: a text that means missing, in place of "" and "NA"; can be given more than once.'),
    ] = None,
    local: LocalOption = False,
    env: EnvironmentOption = "dev",
    as_json: JsonOption = False,
) -> None:
    """Score with the current model: a catalog table, on a cluster, or a CSV file, on this machine.

    DATASET: the result is the catalog table `predictions`. FILE (.csv, .tsv, also .gz; a path with a slash; any file
    that exists): the result is CSV with the file's delimiter, its key columns first, then the model's.
    """
    if score.is_file(what):
        if as_json or table != "features":
            raise typer.BadParameter(f"{what} is a file; --json and --table go with a dataset")
        with _stopped_together(local=False):  # a termination signal leaves no half-written file, nor stops the cloud
            tree = score.read_tree(model) if model else _current_tree(dataset, local, env)
            score.score_file(tree, Path(what), output, err, nulls=null or (), all_columns=all_columns)
        return
    if model or output or all_columns or null:
        raise typer.BadParameter(f"{what} is no file; --model, --output, --all-columns and --null go with a CSV file")
    load_dataset(what)
    platform = _platform(local, env)
    _certify(platform)
    with _stopped_together(local), Board(err, titles("predict")) as board:
        result = execute(platform, what, "predict", board, table=table, logs=_logs(local), every=_interval(local))
    _close(platform, result, {}, local=local, as_json=as_json)


@app.command(name="report")
def show_report(
    dataset: DatasetArgument = "nyc_flights",
    run_id: Annotated[str | None, typer.Option("--run", help="A run's id; without it the current model's.")] = None,
    local: LocalOption = False,
    env: EnvironmentOption = "dev",
) -> None:
    """Write one HTML page about a model (tree, curves, importances, counts) and print where it is. Needs no network."""
    load_dataset(dataset)
    platform = _platform(local, env)
    typer.echo(report.write(platform, dataset, run_id, folder=HOME / "reports"))


@app.command(name="status")
def show_status(local: LocalOption = False, env: EnvironmentOption = "dev") -> None:
    """Show what stands: the workbench, each dataset's current model, and its last runs."""
    status.show(out, _platform(local, env))


@app.command()
def certificates(local: LocalOption = False, env: EnvironmentOption = "dev") -> None:
    """Make a new certificate for TLS between the nodes of clusters; `run` makes one when it is due."""
    typer.echo(certificate.ensure(_platform(local, env), renew=True))


@app.command()
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
    depth: Annotated[int, typer.Option(help="--rows: the tree's depth.", min=1, max=30)] = 12,
    assume: Annotated[
        list[str] | None, typer.Option(metavar="NAME=VALUE", help="Change what no template tells, such as data_gb=500.")
    ] = None,
    markdown: Annotated[bool, typer.Option("--markdown", help="--against: for a comment on a pull request.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Price the templates before they are deployed: as they stand, an hour, a run, a month. Needs no AWS account.

    List prices of one region, dated, in dml/cost/prices.toml. What has no price there is named, and the exit code is 1.
    """
    prices = load_prices().assuming(assume or [])
    if rows is not None:
        if env or against or markdown:
            raise typer.BadParameter("--rows looks at no environment; --env, --against and --markdown go without it")
        found = sizing.size(rows, prices, depth=depth, within=within)
        typer.echo(json.dumps(found.as_json(), indent=2)) if as_json else cost_screen.show_sizing(out, found)
        return
    if markdown and against is None:
        raise typer.BadParameter("--markdown goes with --against")
    names = [load_environment(env).name] if env else environment_names()
    with err.status("synthesizing the templates"):
        compared = costs.differences(names, against, prices) if against else []
        estimates = [each.after for each in compared] or costs.estimates(names, prices)
    if as_json:
        typer.echo(json.dumps({"environments": [each.as_json() for each in compared or estimates]}, indent=2))
    elif markdown:
        typer.echo("\n\n".join(map(cost_screen.markdown, compared)))
    elif compared:
        cost_screen.show_differences(out, compared)
    else:
        cost_screen.show_estimates(out, estimates)
    costs.require_known(estimates)


YesOption = Annotated[bool, typer.Option("--yes", help="Without being asked.")]


@app.command()
def pause(
    stop_runs: Annotated[bool, typer.Option("--stop-runs", help="Stop a run that is executing, too.")] = False,
    yes: YesOption = False,
    local: LocalOption = False,
    env: EnvironmentOption = "dev",
) -> None:
    """Take away what costs money by standing (network, clusters, pipeline); data, catalog, models and notes stay."""
    platform = _platform(local, env)
    going, under_way = teardown.pausing(platform, stop_runs=stop_runs)
    if not going:
        typer.echo(f"{env} is paused already; bring it back: {platform.command('resume')}")
        return
    _say("\n".join(teardown.pause_text(platform, going, under_way)))
    if not yes:
        _ask(
            platform.command(f"pause{' --stop-runs' if stop_runs else ''} --yes"),
            lambda: typer.confirm("Pause it?", err=True),
        )
    with _stopped_together(local=False), err.status("") as spinner:
        teardown.pause(platform, going, under_way, say=spinner.update, every=_interval(local))
        billed = teardown.still_costs(platform, say=spinner.update)
    typer.echo(f"{env} is paused; bring it back: {platform.command('resume')}")
    _say(f"What still costs: {', '.join(billed)}.")


@app.command()
def resume(local: LocalOption = False, env: EnvironmentOption = "dev") -> None:
    """Bring a paused environment back: deploy all its stacks again, and adopt what an earlier `destroy` kept."""
    platform = _platform(local, env)
    if not inventory.stacks(platform):
        raise UserError(f"Nothing of {env} is deployed here. Deploy it first: npx cdk deploy --all -c env={env}")
    with _stopped_together(local), Board(err, ["deploy"]) as board:
        board.start("deploy")
        said = partial(board.note, "deploy")
        board.done("deploy", deploy(Cloud(HOME), env, on_progress=said) if local else cdk.deploy(env, HOME, said))
    typer.echo(f"{env} is back")


@app.command()
def destroy(
    yes: YesOption = False,
    local: LocalOption = False,
    env: EnvironmentOption = "dev",
    as_json: JsonOption = False,
) -> None:
    """Show what would be deleted and what is kept; then, with --yes or when told so, delete it and write a receipt."""
    platform = _platform(local, env)
    receipts = receipt.Receipts(HOME / "receipts", platform)
    with err.status("") as spinner:
        found = teardown.plan(platform, receipts, say=spinner.update)
    if found is None:
        _say(f"Nothing of {env} is deployed here: there is no stack {platform.prefix}*.")
        return
    if not yes:
        _print(found.as_json(), lambda console, _: receipt.show_plan(console, found), as_json=as_json)
        if as_json or not sys.stdin.isatty():
            _say(f"Nothing was deleted. To do it: {platform.command('destroy --yes')}")
            return
        _ask("", lambda: typer.prompt(f"To delete this for good, type {env}", err=True) == env)
    with _stopped_together(local=False), err.status("") as spinner:
        try:
            path = teardown.destroy(platform, found, receipts, say=spinner.update, every=_interval(local))
        except KeyboardInterrupt:
            _say(f"Interrupted. {platform.command('destroy')} goes on; so far: {receipts.path(found)}")
            raise
    _print(found.as_json(), lambda console, _: receipt.show(console, found), as_json=as_json)
    _say(f"Receipt: {path}")
    if failed := len(found.of("failed")):
        raise UserError(
            f"{failed} resources still stand; the receipt says why. Run the same command again: it goes on."
        )


@app.command(name="diff")
def show_diff(local: LocalOption = False, env: EnvironmentOption = "dev", as_json: JsonOption = False) -> None:
    """Say what deploying this checkout would change, and above all replace, before it does. Changes nothing.

    Exit code 1 if CloudFormation would refuse some of it.
    """
    found = updates.diff(_platform(local, env))
    if as_json:
        typer.echo(json.dumps(found.as_json(), indent=2))
    else:
        updates.show(out, found)
    if found.refused:
        raise typer.Exit(1)


@app.command(name="doctor")
def examine(
    env: Annotated[str, typer.Option("--env", help="Which environment: a file of environments/.")] = "dev",
    offline: Annotated[bool, typer.Option("--offline", help="Look at this machine only; ask no account.")] = False,
    local: LocalOption = False,
    as_json: JsonOption = False,
) -> None:
    """Find what would stop the first deploy: tools, templates, credentials, quotas, names. It only reads.

    Exit code 1 if there is any problem. A question that you may not ask is skipped and says which right it wants.
    """
    if offline and local:
        raise typer.BadParameter("--offline asks no account, --local asks the embedded cloud: choose one")
    connect = None if offline else partial(_platform, local, env, patient=False)
    with err.status("") as spinner:
        found = doctor.examine(env, connect, on_progress=spinner.update)
    _print(found, doctor.show, as_json=as_json)
    if doctor.problems(found):
        raise typer.Exit(1)


@data_app.command()
def push(dataset: DatasetArgument = "nyc_flights", local: LocalOption = False, env: EnvironmentOption = "dev") -> None:
    """Upload a dataset's raw files; those that have not changed stay as they are."""
    platform = _platform(local, env)
    pushed = data.push(
        platform, load_dataset(dataset), cache=HOME / "raw", on_progress=lambda text: err.print(text, highlight=False)
    )
    for table, what in pushed.items():
        typer.echo(f"{table}\t{what}")


@dataset_app.command(name="new")
def new_dataset(
    name: Annotated[str, typer.Argument(help="The dataset's name: lower-case letters, digits and _.")],
    files: Annotated[list[Path], typer.Argument(metavar="FILE.csv...", help="CSV files of one folder; .gz will do.")],
    label: Annotated[str, typer.Option(help="The column to predict.")],
    columns: Annotated[
        str, typer.Option(help="Names of all columns, with commas, if the file has no header.", show_default=False)
    ] = "",
) -> None:
    """Write a first dataset.toml and prepare.sql for CSV files, guessing types, key, task and features, and say why.

    Each file becomes a table; the one with the label has a row for each example, the others are joined to it.
    """
    names = [column.strip() for column in columns.split(",")] if columns else []
    with err.status("") as spinner:
        found = dataset.new(name, files, label, columns=names, on_progress=spinner.update)
    dataset.show(err, found)
    for file in ("dataset.toml", "prepare.sql"):
        typer.echo(f"datasets/{name}/{file}")
    err.print(
        f"\nNext\n  read and mend both files: each guess has its reason\n"
        f"  dml dataset check {name}    see whether they fit the data\n"
        f"  dml run {name} --local      train a tree on this machine",
        highlight=False,
    )


@dataset_app.command(name="check")
def check_dataset(
    name: Annotated[str | None, typer.Argument(help="A folder of datasets/; without it all of them.")] = None,
) -> None:
    """See whether settings, files and query of a dataset fit together, on a sample of rows; runs no pipeline."""
    if name is not None and name not in dataset_names():
        load_dataset(name)  # says which there are
    with err.status("") as spinner:
        checked = dataset.check(
            [name] if name else dataset_names(),
            cache=HOME / "raw",
            on_progress=spinner.update
            if err.is_terminal
            else lambda text: err.print(text, highlight=False, soft_wrap=True),
        )
    for each in checked:
        out.print(
            f"[red]✗[/red] {each.name}: {len(each.findings)} to mend"
            if each.findings
            else f"[green]✓[/green] {each.name}: {each.summary or 'settings and query'}",
            highlight=False,
            soft_wrap=True,
        )
        for line in each.findings:
            out.print(f"  {escape(line)}", highlight=False, soft_wrap=True)
        for line in each.notes:
            out.print(f"  note: {escape(line)}", highlight=False, soft_wrap=True)
    if any(each.findings for each in checked):
        raise typer.Exit(1)


@models_app.command(name="list")
def list_models(
    dataset: DatasetArgument = "nyc_flights",
    local: LocalOption = False,
    env: EnvironmentOption = "dev",
    as_json: JsonOption = False,
) -> None:
    """List the finished runs, the newest first, and which model was current when."""
    _print(models.listing(_registry(dataset, local, env)), models.show_list, as_json=as_json)


@models_app.command(name="show")
def show_model(
    run_id: Annotated[
        str | None, typer.Argument(metavar="[RUN]", help="A run's id or a unique part of it; without it the current.")
    ] = None,
    dataset: DatasetOption = "nyc_flights",
    local: LocalOption = False,
    env: EnvironmentOption = "dev",
    as_json: JsonOption = False,
) -> None:
    """Show one model: its figures, what the gate said, what it looks at, where its files lie, who made it current."""
    _print(models.description(_registry(dataset, local, env), run_id), models.show_model, as_json=as_json)


@models_app.command()
def diff(
    run_id: Annotated[str, typer.Argument(metavar="RUN", help="A run's id or a unique part of it.")],
    other: Annotated[
        str | None, typer.Argument(metavar="[RUN2]", help="What to compare it with; without it the current model.")
    ] = None,
    dataset: DatasetOption = "nyc_flights",
    local: LocalOption = False,
    env: EnvironmentOption = "dev",
    as_json: JsonOption = False,
) -> None:
    """Show two models side by side: figures, data, features, settings and first splits."""
    found = models.difference(_registry(dataset, local, env), run_id, other)
    _print(found, models.show_difference, as_json=as_json)


@models_app.command()
def promote(
    run_id: Annotated[str, typer.Argument(metavar="RUN", help="A run's id or a unique part of it.")],
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
    registry = _registry(dataset, local, env)
    moved = models.promote(registry, run_id, reason=reason, even_if_refused=even_if_refused, say=_say)
    _print(moved, models.show_moved, as_json=as_json)


@models_app.command()
def rollback(
    dataset: DatasetArgument = "nyc_flights",
    reason: ReasonOption = "",
    local: LocalOption = False,
    env: EnvironmentOption = "dev",
    as_json: JsonOption = False,
) -> None:
    """Make the previous model current again; a second rollback undoes the first. Trains and predicts nothing."""
    moved = models.rollback(_registry(dataset, local, env), reason=reason, say=_say)
    _print(moved, models.show_moved, as_json=as_json)


@local_app.command()
def up(
    port: Annotated[int | None, typer.Option(help="Where it listens, on 127.0.0.1 only.")] = None,
    env: EnvironmentOption = "dev",
) -> None:
    """Start the embedded cloud and deploy the platform to it; what stands already is used again."""
    with _stopped_together(local=True), Board(err, ["embedded cloud", "deploy"]) as board:
        _stand_up(env, board, port=port)


@local_app.command()
def down() -> None:
    """Stop the embedded cloud and everything that it runs; its data stays in .dml."""
    typer.echo("stopped" if Cloud(HOME).down() else "was not running")


@local_app.command(name="status")
def local_status() -> None:
    """Say whether the embedded cloud runs, and where."""
    typer.echo(Cloud(HOME).status())


@local_app.command()
def calls(
    denied: Annotated[bool, typer.Option("--denied", help="Only what was denied.")] = False,
    unused: Annotated[bool, typer.Option("--unused", help="The statements of roles that no call has needed.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Show which role has called what in the embedded cloud, how often, and which statement allowed it."""
    found = permissions.found(Cloud(HOME).calls(), denied=denied, unused=unused)
    if as_json:
        typer.echo(json.dumps({"unused" if unused else "calls": found}))
    else:
        permissions.show(out, found)


def main() -> None:
    """The console script: an error that we expect becomes one message and exit code 1."""
    try:
        app()
    except (UserError, DatasetError, SettingsError) as error:
        err.print(f"[red]Error:[/red] {escape(str(error))}", highlight=False, soft_wrap=True)
        sys.exit(1)


def _certify(platform: Platform) -> None:
    if load_environment(platform.environment).encryption.in_transit and (done := certificate.ensure(platform)):
        _say(done)


def _stand_up(env: str, board: Board, *, port: int | None = None) -> Platform:
    cloud = Cloud(HOME)
    board.start("embedded cloud")
    cloud.up(port)
    board.done("embedded cloud", cloud.endpoint)
    board.start("deploy")
    what = deploy(cloud, env, on_progress=lambda text: board.note("deploy", text))
    board.done("deploy", what)
    return Platform(env, credentials=cloud.environment())


def _platform(local: bool, env: str, *, patient: bool = True) -> Platform:
    if not local:
        return Platform(env, patient=patient)
    cloud = Cloud(HOME)
    cloud.require()
    return Platform(env, credentials=cloud.environment(), patient=patient)


def _current_tree(dataset: str, local: bool, env: str) -> dict[str, Any]:
    load_dataset(dataset)
    return score.current_tree(_platform(local, env), dataset)


def _registry(dataset: str, local: bool, env: str) -> models.Registry:
    load_dataset(dataset)
    return models.Registry(_platform(local, env), dataset)


def _say(text: str) -> None:
    err.print(text, highlight=False, markup=False, soft_wrap=True)


def _ask(command: str, agree: Callable[[], bool]) -> None:
    """Goes on if the operator agrees; without a terminal there is nobody to ask, and `command` is what to type."""
    if not sys.stdin.isatty():
        raise UserError(f"Nobody is here to agree. Without being asked: {command}")
    if not agree():
        raise UserError("Nothing was changed.")


def _print(document: dict[str, Any], show: Callable[[Console, dict[str, Any]], None], *, as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps(document, indent=2))
    else:
        show(out, document)


def _logs(local: bool) -> Path | None:
    return Cloud(HOME).place.logs if local else None


def _interval(local: bool) -> float:
    return 0.5 if local else 5.0


@contextmanager
def _stopped_together(local: bool) -> Iterator[None]:
    """Ctrl-C or a termination signal during local work stops the embedded cloud too: no process is left behind."""

    def interrupt(_signal: int, _frame: FrameType | None) -> NoReturn:
        raise KeyboardInterrupt

    previous = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    except KeyboardInterrupt:
        if local:
            Cloud(HOME).down()
            err.print("The embedded cloud is stopped; its data is kept.")
        raise
    finally:
        signal.signal(signal.SIGTERM, previous)


def _close(platform: Platform, result: Result, seconds: dict[str, float], *, local: bool, as_json: bool) -> None:
    page = report.write(platform, result.dataset, result.metrics.get("run_id"), folder=HOME / "reports")
    if as_json:
        typer.echo(json.dumps(result.as_json(seconds) | {"report": str(page)}, indent=2))
    else:
        screen.show(out, platform, result, report=page, local=local)
