"""How a script begins and ends: its arguments, the dataset's settings, clients, Spark, the clock, and failure.json."""

import argparse
import datetime as dt
import os
import sys
import traceback
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Callable, Iterator, List, Mapping, NoReturn, Optional, Sequence

import boto3
from botocore.config import Config
from pyspark.sql import SparkSession

from jobs.errors import JobError, reason_of, without_secrets
from jobs.tables import progress, session, settings, storage
from jobs.tables.settings import Dataset

SENTENCE_LIMIT = 4_000
TRACEBACK_LINES, LINE_LIMIT = 40, 500
# A failure is told quickly or not at all: who waits for the job waits for this too.
IN_A_HURRY = Config(connect_timeout=5, read_timeout=10, retries={"max_attempts": 2})


class Arguments(argparse.ArgumentParser):
    """Arguments whose faults are told as a job's other faults are: as an exception, and so in failure.json."""

    def error(self, message: str) -> NoReturn:
        raise JobError(
            f"{self.prog} cannot take its arguments ({message}). The state machine gives them: check what the run was "
            "started with, such as the name of a table, or deploy again."
        )


def arguments_of(script: str, purpose: str, *, database: str) -> argparse.ArgumentParser:
    """What every script is told. `database`: what the Glue database of the dataset holds for this one.

    Glue adds arguments of its own, so whoever parses overlooks what it does not know, and no name has a short form.
    """
    made = Arguments(prog=f"{script}.py", description=purpose, allow_abbrev=False)
    made.add_argument("--dataset", required=True, help="the dataset's name")
    made.add_argument("--database", required=True, help=f"the Glue database {database}")
    made.add_argument("--run-id", required=True, help="the name of this run, part of every path it writes")
    made.add_argument("--region", required=True, help="the AWS region of catalog and buckets")
    made.add_argument("--attempt", default="0", help="how often the run has been redriven, part of failure.json's path")
    return made


def run(script: str, main: Callable[[Sequence[str]], None], argv: Optional[Sequence[str]] = None) -> None:
    """Runs a script to its end. If it fails, by whatever way, failure.json is left first; then it fails as it did."""
    given = sys.argv[1:] if argv is None else argv
    try:
        main(given)
    except SystemExit as ended:
        if ended.code:
            leave_failure(script, given, ended)
        raise
    except BaseException as error:
        leave_failure(script, given, error)
        raise


def leave_failure(script: str, argv: Sequence[str], error: BaseException) -> None:
    """Puts failure.json below the run's id: LAKE/DATASET/runs/RUN/attempt-N/. What stands in its way is printed."""
    finder = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    for name in ("--lake", "--dataset", "--run-id", "--region", "--attempt"):
        finder.add_argument(name, nargs="?")
    told, _ = finder.parse_known_args(argv)
    if not (told.lake and told.dataset and told.run_id and told.region):
        print("failure.json is not written: --lake, --dataset, --run-id or --region is missing", file=sys.stderr)
        return
    uri = failure_uri(told.lake, told.dataset, told.run_id, told.attempt or "0")
    try:
        s3 = boto3.client("s3", region_name=told.region, config=IN_A_HURRY)
        storage.write_json(s3, uri, failure_of(script, told.attempt or "0", error))
    except Exception as problem:  # noqa: BLE001  # the job's own error counts, and is told next
        print(f"failure.json is not written to {uri}: {problem}", file=sys.stderr, flush=True)


def failure_uri(lake: str, dataset: str, run_id: str, attempt: str) -> str:
    """Of each attempt apart: a run that is redriven must not be told the failure that it was redriven after."""
    return f"{lake.rstrip('/')}/{dataset}/runs/{run_id}/attempt-{attempt}/failure.json"


def progress_uri(lake: str, dataset: str, run_id: str) -> str:
    """How far the job is that the run is at, of whichever stage: dml/runs/run.py shows it."""
    return f"{lake.rstrip('/')}/{dataset}/runs/{run_id}/progress.json"


def failure_of(stage: str, attempt: str, error: BaseException) -> storage.Json:
    """What failure.json says. `log`: on YARN the place of the script's output below the cluster's folder of logs."""
    text = without_secrets("".join(traceback.format_exception(type(error), error, error.__traceback__)))
    kind, sentence = reason_of(text, str(error) if isinstance(error, JobError) else "")
    container = os.environ.get("CONTAINER_ID", "")  # YARN's: container_1795985240819_0013_01_000001
    return {
        "stage": stage,
        "attempt": attempt,
        "error": kind,
        "sentence": without_secrets(sentence)[:SENTENCE_LIMIT],
        "traceback": [line[:LINE_LIMIT] for line in text.splitlines()[-TRACEBACK_LINES:]],
        "log": log_of(container),
        "written": dt.datetime.now(dt.timezone.utc).isoformat(timespec="seconds"),
    }


def log_of(container: str) -> str:
    """Where EMR archives what a script prints, below the cluster's folder: Spark gives its stderr to stdout, too.

    An empty text outside of a container, as on Glue.
    """
    parts = container.split("_")
    # After a restart of the ResourceManager a container's name has its epoch in it: container_e17_...
    numbers = parts[2:4] if len(parts) == 6 else parts[1:3]
    return f"containers/application_{'_'.join(numbers)}/{container}/stdout.gz" if container else ""


@dataclass(frozen=True)
class Job:
    """What a script works with. `glue` and `s3` are boto3 clients."""

    spark: SparkSession
    glue: Any
    s3: Any
    settings: Dataset
    clock: session.Clock


@contextmanager
def begun(script: str, told: argparse.Namespace, clock: session.Clock) -> Iterator[Job]:
    """Starts Spark and stops it in the end, whatever happens. `clock`: as old as the script. Raises JobError."""
    dataset = settings.load(told.dataset)
    glue, s3 = (boto3.client(service, region_name=told.region) for service in ("glue", "s3"))
    spark = session.spark_session(script, told.dataset)
    try:
        end_former(spark)
        clock.count_java(spark)
        clock.lap("session", "looking at what there is")
        uri = progress_uri(told.lake, told.dataset, told.run_id)
        hurried = boto3.client("s3", region_name=told.region, config=IN_A_HURRY)
        with progress.Progress(spark, hurried, uri, script, clock):
            yield Job(spark, glue, s3, dataset, clock)
    finally:
        spark.stop()


def end_former(spark: SparkSession) -> None:
    """Kills what an earlier attempt of this run has left on this YARN, and returns when it is dead.

    A step that is cancelled or timed out ends its spark-submit, while the application goes on: it would write below the
    same run's id. Applications of a run know each other by their tag (`spark.yarn.tags`), which its steps give them.
    Not on Glue, which is no YARN and ends its own jobs.
    """
    context = spark.sparkContext
    if context.master != "yarn" or not (tag := context.getConf().get("spark.yarn.tags", "")):
        return
    jvm: Any = context._jvm
    states = jvm.org.apache.hadoop.yarn.api.records.YarnApplicationState
    over = jvm.java.util.EnumSet.of(states.FINISHED, states.FAILED, states.KILLED)
    client = jvm.org.apache.hadoop.yarn.client.api.YarnClient.createYarnClient()
    client.init(context._jsc.hadoopConfiguration())
    client.start()
    try:
        alive = client.getApplications(jvm.java.util.EnumSet.complementOf(over))
        found = {one.getApplicationId().toString(): one for one in alive}
        tags = {name: list(one.getApplicationTags()) for name, one in found.items()}
        for name in of_run(tags, tag, context.applicationId):
            client.killApplication(found[name].getApplicationId())  # returns when YARN says that it is killed
            print(f"killed {name}, which an earlier attempt of this run had left behind", flush=True)
    finally:
        client.stop()


def of_run(applications: Mapping[str, Sequence[str]], tag: str, own: str) -> List[str]:
    """The applications with the tag, but for one's own; YARN keeps tags in lower case."""
    return [name for name, tags in applications.items() if name != own and tag.lower() in map(str.lower, tags)]
