"""`dml data prune`: what old runs of a dataset have left behind, deleted; what anybody reads stays."""

import datetime as dt
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from botocore.exceptions import ClientError

from dml.errors import UserError
from dml.estate.platform import Platform, answering
from dml.terminal.console import plain_table
from stacks.outputs import Output, database_output, state_machine_output

if TYPE_CHECKING:
    from rich.table import Table

# Where a run leaves something, by bucket: below DATASET/ are folders that are named by runs.
LEFT = {Output.LAKE_BUCKET: ("features/", "quarantine/", "predictions/", "runs/"), Output.MODELS_BUCKET: ("",)}
TABLES = ("features", "predictions")
AT_ONCE = 1000  # keys that one DeleteObjects takes (S3 API Reference)

NEVER = dt.datetime.min.replace(tzinfo=dt.UTC)


@dataclass
class Run:
    """What one run has left: objects by bucket, their bytes, and when the newest was written."""

    run_id: str
    keys: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))
    size: int = 0
    newest: dt.datetime = NEVER
    why: str = ""  # it stays; empty if it goes

    @property
    def objects(self) -> int:
        return sum(map(len, self.keys.values()))

    def as_json(self) -> dict[str, Any]:
        return {
            "run_id": self.run_id,
            "newest": self.newest.isoformat(timespec="seconds"),
            "objects": self.objects,
            "bytes": self.size,
            "stays": self.why or None,
        }


def plan(platform: Platform, dataset: str, keep: int) -> list[Run]:
    """All runs that have left something, the newest first, each with why it stays or "" if it is to go.

    There stay: the newest `keep` of them, the current model and the one before, what the catalog's tables point at, and
    runs that are under way. Raises UserError.
    """
    runs: dict[str, Run] = {}
    for bucket, folders in LEFT.items():
        for folder in folders:
            _find(platform, platform.output(bucket), f"{dataset}/{folder}", runs)
    found = sorted(runs.values(), key=lambda run: (run.newest, run.run_id), reverse=True)
    reasons = {run.run_id: f"one of the newest {keep}" for run in found[:keep]}
    reasons |= {run_id: f"the table {table} points at it" for table, run_id in _pointed_at(platform, dataset)}
    reasons |= dict.fromkeys(_under_way(platform, dataset), "under way")
    pointer = platform.json_object(Output.MODELS_BUCKET, f"{dataset}/CURRENT.json") or {}
    if before := (pointer.get("previous") or {}).get("run_id"):
        reasons[before] = "the model before the current one"
    if "run_id" in pointer:
        reasons[pointer["run_id"]] = "the current model"
    for run in found:
        run.why = reasons.get(run.run_id, "")
    return found


def table(runs: Iterable[Run]) -> "Table":
    """The runs as the command shows them."""
    made = plain_table("run", "newest", "objects", "MB", "", right=("objects", "MB"))
    for run in runs:
        size = f"{run.size / 1e6:,.1f}"
        made.add_row(run.run_id, f"{run.newest:%Y-%m-%d %H:%M}", f"{run.objects:,}", size, run.why or "goes")
    return made


def prune(platform: Platform, going: Iterable[Run], say: Callable[[str], None]) -> None:
    """Deletes what these runs have left, a run's manifest first: what is left half-way is no whole model to anybody.

    Can be interrupted and run again. Raises UserError, naming what S3 would not delete.
    """
    for run in going:
        say(f"deleting what {run.run_id} has left: {run.objects:,} objects")
        for bucket, keys in run.keys.items():
            manifests = [key for key in keys if key.endswith("/manifest.json")]
            others = sorted(set(keys) - set(manifests))
            for batch in (*_batches(manifests), *_batches(others)):
                _delete(platform, bucket, batch)


def _find(platform: Platform, bucket: str, prefix: str, runs: dict[str, Run]) -> None:
    with answering(f"list s3://{bucket}/{prefix}"):
        for page in platform.s3.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix):
            for one in page.get("Contents", []):
                run_id, inside, _ = one["Key"].removeprefix(prefix).partition("/")
                if not inside:
                    continue  # CURRENT.json, which is no run's
                run = runs.setdefault(run_id, Run(run_id))
                run.keys[bucket].append(one["Key"])
                run.size += one["Size"]
                run.newest = max(run.newest, one["LastModified"])


def _pointed_at(platform: Platform, dataset: str) -> Iterator[tuple[str, str]]:
    """(table, run) for each table of the catalog that points at what a run has left."""
    database = platform.output(database_output(dataset))
    glue = platform.client("glue")
    for table in TABLES:
        try:
            found = glue.get_table(DatabaseName=database, Name=table)["Table"]
        except ClientError as error:
            if error.response["Error"]["Code"] == "EntityNotFoundException":
                continue
            raise UserError(f"Could not read the table {database}.{table}: {error}") from error
        yield table, found["StorageDescriptor"]["Location"].rstrip("/").rpartition("/")[2]


def _under_way(platform: Platform, dataset: str) -> Iterator[str]:
    """Runs that are executing now."""
    machine = platform.output(state_machine_output(dataset))
    with answering(f"ask for the runs of {dataset}"):
        pages = platform.client("stepfunctions").get_paginator("list_executions")
        for page in pages.paginate(stateMachineArn=machine, statusFilter="RUNNING"):
            yield from (one["name"] for one in page["executions"])


def _batches(keys: list[str]) -> Iterator[list[str]]:
    for start in range(0, len(keys), AT_ONCE):
        yield keys[start : start + AT_ONCE]


def _delete(platform: Platform, bucket: str, keys: list[str]) -> None:
    with answering(f"delete what a run has left in {bucket}"):
        answer = platform.s3.delete_objects(Bucket=bucket, Delete={"Objects": [{"Key": key} for key in keys]})
    if refused := answer.get("Errors"):
        raise UserError(
            f"S3 did not delete {len(refused)} objects, first s3://{bucket}/{refused[0]['Key']}: "
            f"{refused[0]['Message']}. What is deleted is deleted; mend that, and run the same command again."
        )
