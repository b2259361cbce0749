"""Starts a dataset's state machine and follows it to its end: which stage it is in, since when, and why it failed."""

import json
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from botocore.exceptions import ClientError

from dml.checkout import git_revision
from dml.errors import UserError
from dml.estate.platform import Platform
from stacks.definition import LOST_RACE
from stacks.outputs import state_machine_output

Action = Literal["run", "predict"]
STAGES: dict[Action, tuple[str, ...]] = {
    "run": ("crawl", "prepare", "cluster", "train", "gate", "publish", "predict", "notify"),
    "predict": ("cluster", "predict", "notify"),
}
_ENDED = ("SUCCEEDED", "FAILED", "TIMED_OUT", "ABORTED")


@dataclass
class Stage:
    """One stage of a run. `started` and `ended` are the endpoint's own clock, from the execution history.

    `doing`: what the state machine says of the state that it is in, such as "run the Glue job".
    """

    name: str
    started: datetime | None = None
    ended: datetime | None = None
    doing: str = ""

    @property
    def seconds(self) -> float:
        """How long it took; 0 while it goes on."""
        return (self.ended - self.started).total_seconds() if self.started and self.ended else 0.0


@dataclass
class Run:
    """An execution as seen so far. `state` is Step Functions' status; `output` is there once it succeeded."""

    run_id: str
    arn: str
    stages: dict[str, Stage]
    state: str = "RUNNING"
    error: str = ""
    cause: str = ""
    output: dict[str, Any] = field(default_factory=dict)
    _seen: int = 0

    @property
    def ended(self) -> bool:
        return self.state in _ENDED

    @property
    def failed_stage(self) -> str | None:
        """The stage that ended the run; the state machine's own failures begin with its name (stacks/definition.py)."""
        if not self.ended or self.state == "SUCCEEDED":
            return None
        named = self.cause.partition(":")[0]
        begun = [name for name, stage in self.stages.items() if stage.started]
        return named if named in self.stages else begun[-1] if begun else None


def start(platform: Platform, dataset: str, action: Action, *, table: str | None = None) -> Run:
    """Start one execution. Its name is the run id, and sorts by time."""
    machine = platform.output(state_machine_output(dataset), dataset=dataset)
    platform.check_running()
    run_id = f"{action}-{datetime.now(UTC):%Y%m%dT%H%M%S%f}"[:-3]
    given = {"do": action, "revision": git_revision()} | ({"table": table} if table else {})
    try:
        answer = platform.client("stepfunctions").start_execution(
            stateMachineArn=machine, name=run_id, input=json.dumps(given)
        )
    except ClientError as error:
        raise UserError(f"Could not start the pipeline of {dataset}: {error}") from error
    return Run(run_id, answer["executionArn"], {name: Stage(name) for name in STAGES[action]})


def stop(platform: Platform, run: Run, cause: str) -> None:
    """Stop an execution; what it had started ends with it on the embedded cloud, and by idle time-out on AWS."""
    platform.client("stepfunctions").stop_execution(executionArn=run.arn, error="Stopped", cause=cause)


def follow(platform: Platform, run: Run, *, every: float) -> Iterator[Run]:
    """Yield `run` each time it has been looked at, `every` seconds apart, until it has ended."""
    client = platform.client("stepfunctions")
    while True:
        described = client.describe_execution(executionArn=run.arn)
        _read_history(client, run)
        run.state = described["status"]
        run.error, run.cause = described.get("error", ""), described.get("cause", "")
        run.output = json.loads(described.get("output") or "{}")
        yield run
        if run.ended:
            return
        time.sleep(every)


def _read_history(client: Any, run: Run) -> None:
    """Note when each stage was entered and left. A state's name begins with its stage: "train: add the step"."""
    newest = client.get_execution_history(executionArn=run.arn, reverseOrder=True, maxResults=1)["events"]
    if newest and newest[0]["id"] == run._seen:  # events are numbered from 1 on
        return
    pages = client.get_paginator("get_execution_history").paginate(executionArn=run.arn)
    events = [event for page in pages for event in page["events"]]
    for event in events[run._seen :]:
        details = event.get("stateEnteredEventDetails") or event.get("stateExitedEventDetails")
        if not details:
            continue
        stage = run.stages.get(details["name"].partition(":")[0])
        if stage is None:
            continue
        if "stateEnteredEventDetails" in event:
            stage.started = stage.started or event["timestamp"]
            stage.ended, stage.doing = None, details["name"].partition(": ")[2]
        else:
            stage.ended = event["timestamp"]
    run._seen = len(events)


def failure(run: Run, *, logs: Path | None, why: str = "") -> UserError:
    """The sentences for a run that did not succeed: stage and reason, and where the log lies or how the run goes on.

    `why`: what the log of a step says whose job could not say anything.
    """
    if run.state == "ABORTED":
        return UserError(f"The run {run.run_id} was stopped.")
    if run.state == "TIMED_OUT":
        running = next((stage.name for stage in run.stages.values() if stage.started and not stage.ended), "its")
        return UserError(f"The run {run.run_id} took longer than its state machine allows, in stage {running}.")
    sentence = f"The run {run.run_id} failed. {run.cause or run.error or 'Step Functions gave no reason.'}"
    if why:
        sentence += f"\nBy its log: {why}"
    log = _log_of(run, logs)
    if log:
        sentence += f"\nLog: {log}"
    if logs is None and run.error != LOST_RACE:  # on this machine another run costs nothing
        sentence += (
            "\nWith the cause out of the way, go on at the stage that failed: "
            f"aws stepfunctions redrive-execution --execution-arn {run.arn}"
        )
    return UserError(sentence)


def _log_of(run: Run, logs: Path | None) -> Path | None:
    """The job's log file on this machine, found by the id that the failure names."""
    if logs is None:
        return None
    ids = re.findall(r"containers/(application_\d+_\d+)/|(jr_[0-9a-f]+)|\b(s-[0-9A-Z]+)", run.cause)
    ids.sort(key=lambda found: not found[0])  # what the script printed is in its container's
    places = (path for found in ids for path in logs.rglob(f"*{''.join(found)}*"))
    return next((log for place in places for log in _printed(place)), None)


def _printed(place: Path) -> list[Path]:
    """The logs in a folder, what was printed first; or the log itself."""
    return [place] if place.is_file() else sorted(place.rglob("std*"), reverse=True)
