"""One run from the operator's side: start it, show its stages, gather what it left behind."""

import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

from datasets import load_dataset
from dml.errors import UserError
from dml.estate.platform import Platform
from dml.models.figures import FIGURES, headline, task_of
from dml.runs import pipeline, progress, step_log
from dml.runs.pipeline import Action, Run
from dml.terminal.board import Board
from dml.terminal.words import BOOTSTRAP_FAILED, counted
from stacks.outputs import Output, database_output

# How long a step's log is waited for: EMR archives it 3 to 4 minutes after the step's end, by public reports.
LOG_SECONDS = {False: 600.0, True: 60.0}
PROGRESS_SECONDS = 2.0  # at least, between two looks at how far a job is


def titles(action: Action) -> list[str]:
    """What the board calls the stages of an action."""
    return [_title(stage) for stage in pipeline.STAGES[action]]


def _title(stage: str) -> str:
    return "choose cluster" if stage == "cluster" else stage


@dataclass(frozen=True)
class Result:
    """What a run left behind: the documents that its jobs wrote, as they wrote them ({} where it wrote none)."""

    run: Run
    dataset: str
    prepared: dict[str, Any]
    metrics: dict[str, Any]
    gate: dict[str, Any]
    predicted: dict[str, Any]
    uris: dict[str, str]
    unit: str = ""  # of the label, "" unless it is a number that has one
    drift: dict[str, Any] = field(default_factory=dict)

    @property
    def published(self) -> bool:
        return bool(self.run.output.get("published"))

    def as_json(self, seconds: dict[str, float]) -> dict[str, Any]:
        """The one object of `dml run --json`. `seconds`: what came before the state machine (deploy, push)."""
        stages = {name: round(stage.seconds, 3) for name, stage in self.run.stages.items() if stage.started}
        every = {name: round(value, 3) for name, value in seconds.items()} | stages
        chosen = [figure.key for figure in FIGURES[task_of(self.metrics)]]
        test, baseline = self.metrics.get("test", {}), self.metrics.get("baseline", {})
        later = self.metrics.get("out_of_time") or {}
        guessed = later.get("baseline", {})
        return {
            "run_id": self.run.run_id,
            "dataset": self.dataset,
            "state": self.run.state,
            "published": self.published,
            "rows": {
                "in": self.prepared.get("rows_in"),
                "out": self.prepared.get("rows_out"),
                "quarantined": self.prepared.get("quarantined"),
                "left_out": self.prepared.get("left_out", {}),
                "predicted": self.predicted.get("rows"),
            },
            "metrics": {
                "test": {name: test.get(name) for name in chosen},
                "baseline": {name: baseline.get(name) for name in chosen},
                "out_of_time": {name: later.get(name) for name in chosen} if later else None,
                "out_of_time_baseline": {name: guessed.get(name) for name in chosen} if later else None,
            },
            "seconds": every | {"total": round(sum(every.values()), 3)},
            # What Spark itself took, session included: the rest of a stage is the pipeline's.
            "job_seconds": {
                name: found["seconds"]
                for name, found in (("prepare", self.prepared), ("train", self.metrics), ("predict", self.predicted))
                if "seconds" in found
            },
            "uris": self.uris,
        }


def execute(
    platform: Platform,
    dataset: str,
    action: Action,
    board: Board,
    *,
    table: str | None = None,
    logs: Path | None = None,
    every: float = 2.0,
) -> Result:
    """Start the state machine and follow it on `board`; UserError when it did not succeed.

    Interrupted (Ctrl-C) while `logs` says that this is the embedded cloud, the execution is stopped first.
    """
    run = pipeline.start(platform, dataset, action, table=table)
    looked = 0.0
    try:
        for seen in pipeline.follow(platform, run, every=every):
            _show(platform, dataset, seen, board)
            if not run.ended and time.monotonic() - looked >= PROGRESS_SECONDS:
                looked = time.monotonic()
                _show_progress(platform, dataset, run, board)
    except KeyboardInterrupt:
        if logs is not None:
            pipeline.stop(platform, run, "Interrupted by the operator")
            raise
        raise UserError(
            f"Stopped watching; the run {run.run_id} goes on in AWS. See it: {platform.command('status')}. "
            f"Stop it: aws stepfunctions stop-execution --execution-arn {run.arn}"
        ) from None
    if run.state != "SUCCEEDED":
        raise pipeline.failure(run, logs=logs, why=_by_its_log(platform, run, board, local=logs is not None))
    return gather(platform, dataset, run)


def _by_its_log(platform: Platform, run: Run, board: Board, *, local: bool) -> str:
    """Why a step failed whose job could not say so, as soon as its log is archived; nothing for other failures."""

    def wait() -> None:
        if run.failed_stage:
            board.note(_title(run.failed_stage), "waiting for the step's log, which EMR archives after its end")

    try:
        logs = platform.uri(Output.LOGS_BUCKET, "emr") if BOOTSTRAP_FAILED.search(run.cause) else ""
        return step_log.read_cause(platform.s3, run.cause, seconds=LOG_SECONDS[local], logs=logs, waiting=wait)
    except (ClientError, BotoCoreError) as error:
        return f"its log cannot be read: {error}"
    except KeyboardInterrupt:  # the wait may be long, and the run's failure is known
        return "its log was not waited for"


def gather(platform: Platform, dataset: str, run: Run) -> Result:
    """Read back what the run's jobs wrote. A `predict` run has no model of its own: it shows the current one's."""
    predicted = platform.json_object(Output.LAKE_BUCKET, _run_key(dataset, run.run_id, "predict.json")) or {}
    model_run = run.run_id if "train" in run.stages else predicted.get("model_run", run.run_id)
    model = f"{dataset}/{model_run}"
    uris = {
        "model": platform.uri(Output.MODELS_BUCKET, f"{model}/"),
        "metrics": platform.uri(Output.MODELS_BUCKET, f"{model}/metrics.json"),
        "tree": platform.uri(Output.MODELS_BUCKET, f"{model}/tree.json"),
    }
    prepared = platform.json_object(Output.LAKE_BUCKET, _run_key(dataset, run.run_id, "prepare.json")) or {}
    if prepared:
        uris["features"] = prepared["location"]
    if predicted:
        uris["predictions"] = predicted["location"]
    return Result(
        run=run,
        dataset=dataset,
        prepared=prepared,
        metrics=platform.json_object(Output.MODELS_BUCKET, f"{model}/metrics.json") or {},
        gate=platform.json_object(Output.MODELS_BUCKET, f"{model}/gate.json") or {},
        drift=platform.json_object(Output.MODELS_BUCKET, f"{model}/drift.json") or {},
        predicted=predicted,
        uris=uris,
        unit=load_dataset(dataset).label.unit,
    )


def _run_key(dataset: str, run_id: str, name: str) -> str:
    return f"{dataset}/runs/{run_id}/{name}"


def _show(platform: Platform, dataset: str, run: Run, board: Board) -> None:
    # A failing run is notified too: until it has ended well, `notify` does not say that what came before it is done.
    begun = [name for name, stage in run.stages.items() if stage.started and (name != "notify" or run.ended)]
    if run.failed_stage in begun:
        begun = begun[: begun.index(run.failed_stage) + 1]
    for name in begun:
        title = _title(name)
        if board.is_done(title):
            continue
        board.start(title)
        if name == run.failed_stage:
            board.fail(title)
        elif name != begun[-1] or run.state == "SUCCEEDED":
            board.done(title, _found(platform, dataset, run, name), run.stages[name].seconds)
    if run.state == "SUCCEEDED":
        for name in run.stages:
            if name not in begun:
                board.skip(_title(name), "the gate refused the model")


def _show_progress(platform: Platform, dataset: str, run: Run, board: Board) -> None:
    def read() -> dict[str, Any] | None:
        """None also where it cannot be read, such as by who may not list the bucket: a run is not ended for that."""
        try:
            return platform.json_object(Output.LAKE_BUCKET, _run_key(dataset, run.run_id, "progress.json"))
        except (ClientError, BotoCoreError, ValueError):
            return None

    for stage in run.stages.values():
        if stage.started and not stage.ended and not board.is_done(_title(stage.name)):
            board.doing(_title(stage.name), progress.told(stage, read))


def _found(platform: Platform, dataset: str, run: Run, stage: str) -> str:
    """What is known once a stage is over: row counts, figures, decisions."""
    match stage:
        case "crawl":
            tables = platform.client("glue").get_tables(DatabaseName=platform.output(database_output(dataset)))
            raw = platform.uri(Output.RAW_BUCKET, "")
            names = [t["Name"] for t in tables["TableList"] if t["StorageDescriptor"]["Location"].startswith(raw)]
            return f"{counted(len(names), 'table')}: {', '.join(sorted(names))}"
        case "prepare":
            found = platform.json_object(Output.LAKE_BUCKET, _run_key(dataset, run.run_id, "prepare.json"))
            if not found:
                return ""
            return f"{found['rows_in']:,} rows in, {found['rows_out']:,} out, {found['quarantined']:,} quarantined"
        case "train":
            found = platform.json_object(Output.MODELS_BUCKET, f"{dataset}/{run.run_id}/metrics.json")
            if not found:
                return ""
            tree, later = found["tree"], found.get("out_of_time")
            figure = headline(later or found["test"], load_dataset(dataset).label.unit)
            several = f"{tree['trees']:,} trees of " if "trees" in tree else ""
            on = f"{later['rows']:,} later ones" if later else f"{found['rows']['test']:,}"
            return f"{found['rows']['train']:,} rows, tested on {on}: {figure}, {several}{tree['leaves']:,} leaves"
        case "gate":
            found = platform.json_object(Output.MODELS_BUCKET, f"{dataset}/{run.run_id}/gate.json")
            if not found:
                return ""
            if found["passed"]:
                return "passed: " + ", ".join(check["name"] for check in found["checks"])
            return "refused: " + "; ".join(found["reasons"])
        case "publish":
            return f"{dataset}/CURRENT.json → {run.run_id}"
        case "predict":
            found = platform.json_object(Output.LAKE_BUCKET, _run_key(dataset, run.run_id, "predict.json"))
            return f"{counted(found['rows'], 'row')} scored" if found else ""
    return ""
