"""`dml run`, `dml predict` and `dml status`: what is done with a dataset, start to end, and what has been done."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from dml.terminal.options import DatasetArgument, EnvironmentOption, JsonOption, LocalOption, YarnOption

if TYPE_CHECKING:
    from dml.estate.platform import Platform
    from dml.runs.run import Result

GATE_REFUSED = 3
top = typer.Typer()


@top.command()
def run(
    dataset: DatasetArgument = "nyc_flights",
    local: LocalOption = False,
    yarn: YarnOption = False,
    env: EnvironmentOption = "dev",
    as_json: JsonOption = False,
) -> None:
    """Do it all: catalogue the raw data, prepare it, train a tree, publish it if it is good, predict with it.

    With --local also start the embedded cloud, deploy what this dataset needs to it and upload the raw data first; what
    stands already is used again. On AWS it starts the deployed pipeline (a cluster costs money while it runs) and
    follows it.
    """
    from datasets import load_dataset
    from dml import checkout
    from dml.estate import certificate, data
    from dml.estate.platform import Platform
    from dml.local import here
    from dml.runs.run import execute, titles
    from dml.terminal.board import Board
    from dml.terminal.console import err, say

    _check_yarn(yarn, local)
    settings = load_dataset(dataset)
    before = [*(["yarn"] if yarn else []), "embedded cloud", "deploy", "raw data"] if local else []
    with here.stopped_together(local), Board(err, before + titles("run")) as board:
        if local:
            jars = here.jars_of_yarn(board) if yarn else None
            cloud = here.stand_up(env, board, dataset=dataset)
            cloud.run_steps_on_yarn(jars)
            platform = Platform(env, credentials=cloud.environment())
            board.start("raw data")
            pushed = data.push(
                platform, settings, cache=checkout.home() / "raw", on_progress=lambda text: board.note("raw data", text)
            )
            board.done("raw data", ", ".join(f"{table} {what}" for table, what in pushed.items()))
        else:
            platform = Platform(env)
        certificate.keep_ready(platform, say)
        result = execute(platform, dataset, "run", board, logs=here.logs(local), every=here.interval(local))
        seconds = {name: board.seconds(name) for name in before}
    _close(platform, result, seconds, as_json=as_json)
    if not result.published:
        raise typer.Exit(GATE_REFUSED)


@top.command()
def predict(
    what: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="DATASET|FILE...",
            help="A folder of datasets/; or files of one table (CSV, Parquet, JSON lines), or the folder of them.",
            show_default="nyc_flights",
        ),
    ] = None,
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
        typer.Option(
            help='FILE of features: a text that means missing, in place of "" and "NA"; can be given more than once.'
        ),
    ] = None,
    read_as: Annotated[
        Literal["raw", "features"] | None,
        typer.Option(
            help="FILE: raw data, read by dataset.toml and prepare.sql, or the features as they are; else told by its "
            "header.",
            show_default=False,
        ),
    ] = None,
    reasons: Annotated[
        int, typer.Option(min=0, help="FILE: of each row so many features that moved it most, and by how much.")
    ] = 0,
    local: LocalOption = False,
    yarn: YarnOption = False,
    env: EnvironmentOption = "dev",
    as_json: JsonOption = False,
) -> None:
    """Score with the current model: a catalog table, on a cluster, or a file, on this machine.

    DATASET: the result is the catalog table `predictions`. FILE (.csv, .tsv, also .gz; a path with a slash; any file
    that exists), several of one table, or a folder with a slash: the result is CSV with the files' delimiter, its key
    columns first, then the model's. A raw file is read as a run reads it; one with the features' own columns as it is;
    which of the two is said.
    """
    from datasets import load_dataset
    from dml.estate import certificate
    from dml.estate.platform import deployed
    from dml.local import here
    from dml.models import score
    from dml.runs.run import execute, titles
    from dml.terminal.board import Board
    from dml.terminal.console import err, say

    given = what or ["nyc_flights"]
    named = given[0]
    if len(given) > 1 or score.is_file(named):
        if as_json or table != "features" or yarn:
            raise typer.BadParameter(f"{named} is a file; --json, --table and --yarn go with a dataset")
        # A termination signal leaves no half-written file, nor stops the cloud.
        with here.stopped_together(local=False):
            if not model:
                load_dataset(dataset)  # says which there are
            tree = score.read_tree(model) if model else score.current_tree(deployed(local, env), dataset)
            files = [Path(file) for file in given]
            nulls = null or ()
            score.score_file(
                tree, files, output, err, nulls=nulls, all_columns=all_columns, read_as=read_as, reasons=reasons
            )
        return
    if model or output or all_columns or null or read_as or reasons:
        raise typer.BadParameter(
            f"{named} is no file; --model, --output, --all-columns, --null, --read-as and --reasons go with a CSV "
            "file (a dataset has its reasons by prediction.reasons in dataset.toml)"
        )
    _check_yarn(yarn, local)
    load_dataset(named)
    platform = deployed(local, env)
    certificate.keep_ready(platform, say)
    with here.stopped_together(local), Board(err, (["yarn"] if yarn else []) + titles("predict")) as board:
        if local:
            here.cloud().run_steps_on_yarn(here.jars_of_yarn(board) if yarn else None)
        result = execute(
            platform, named, "predict", board, table=table, logs=here.logs(local), every=here.interval(local)
        )
    _close(platform, result, {}, as_json=as_json)


@top.command()
def status(local: LocalOption = False, env: EnvironmentOption = "dev") -> None:
    """Show what stands: the workbench, each dataset's current model, and its last runs."""
    from dml.estate.platform import deployed
    from dml.runs import status as own
    from dml.terminal.console import out

    own.show(out, deployed(local, env))


def _check_yarn(yarn: bool, local: bool) -> None:
    if yarn and not local:
        raise typer.BadParameter("--yarn goes with --local; on AWS steps run on EMR's own YARN")


def _close(platform: "Platform", result: "Result", seconds: dict[str, float], *, as_json: bool) -> None:
    from dml import checkout
    from dml.models import report
    from dml.runs import screen
    from dml.terminal.console import out

    page = report.write(platform, result.dataset, result.metrics.get("run_id"), folder=checkout.home() / "reports")
    if as_json:
        typer.echo(json.dumps(result.as_json(seconds) | {"report": str(page)}, indent=2))
    else:
        screen.show(out, platform, result, report=page)
