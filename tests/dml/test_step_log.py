"""Why a step failed whose job could not say so: by what YARN and spark-submit print, whenever that is archived."""

import gzip
import io
from typing import Any

import pytest
from botocore.exceptions import ClientError

from dml.runs import step_log

APPLICATION = "application_1795985240819_0013"
ATTEMPT = f"due to AM Container for {APPLICATION.replace('application', 'appattempt')}_000001 exited with  exitCode: "
LOG = "s3://logs/emr/j-1B/steps/s-1A/stderr.gz"
STDOUT = (
    f"s3://logs/emr/j-1B/containers/{APPLICATION}/{APPLICATION.replace('application', 'container')}_01_000001/stdout.gz"
)
TOLD = f"predict: its job ended before it could say why. [s-1A] (log: {LOG})"


def failed(diagnostics: str, how: str = "finished with failed status") -> str:
    """What spark-submit prints of an application that failed."""
    return (
        f"26/11/29 21:04:01 INFO YarnClientImpl: Submitted application {APPLICATION}\n"
        f"26/11/29 21:04:08 ERROR Client: Application diagnostics message: {diagnostics}\n"
        f'Exception in thread "main" org.apache.spark.SparkException: Application {APPLICATION} {how}\n'
        "\tat org.apache.spark.deploy.yarn.Client.run(Client.scala:1312)\n"
    )


OVER = (
    f"{ATTEMPT}-104\nDiagnostics: [2026-11-29 21:04:08.234]Container is running 150MB beyond the 'PHYSICAL' memory "
    "limit. Current usage: 1.0 GB of 896 MB physical memory used. Killing container.\n"
    "[2026-11-29 21:04:08.234]Container killed on request. Exit code is 143\nKilled by external signal"
)
NO_PYTHON = f'{ATTEMPT}13\nCaused by: java.io.IOException: Cannot run program "/opt/dml/python/bin/python": error=2'


@pytest.mark.parametrize(
    ("stderr", "printed", "begins", "way_out"),
    [
        (
            failed(OVER),
            "",
            "YARN ended the driver's container, which used 1.0 GB of 896 MB",
            "spark.driver.memoryOverhead",
        ),
        (
            failed(f"{ATTEMPT}137\nKilled by external signal"),
            "",
            "the driver was killed from outside",
            "instance_types",
        ),
        (
            failed(f"{ATTEMPT}137"),
            "java.lang.OutOfMemoryError: Java heap space\n",
            "the heap of the driver's Java was full",
            "spark.driver.memory",
        ),
        (failed("User application exited with status 137"), "", "the driver was killed from outside", "instance_types"),
        (failed(NO_PYTHON), "", "the node has no /opt/dml/python/bin/python", "bootstrap action"),
        (
            failed(f"{ATTEMPT}13\nUser did not initialize spark context!"),
            "",
            "the script ended before it had",
            "deploy",
        ),
        (failed(f"{ATTEMPT}-100"), "", "the machine of the driver's container was lost", "redrive"),
        (
            failed("Max number of executor failures (4) reached"),
            "",
            "executors ended again and again (Max number of executor failures (4) reached)",
            "spark.executor.memoryOverhead",
        ),
        (failed("killed by user hadoop", "is killed"), "", "the application was killed on the cluster", "redrive"),
        (
            'Exception in thread "main" java.lang.IllegalArgumentException: Required AM memory (20480+2048 MB) is '
            "above the max threshold (6144 MB) of this cluster!\n",
            "",
            "it did not start: java.lang.IllegalArgumentException: Required AM memory (20480+2048 MB) is above",
            "",
        ),
        (
            failed("User application exited with status 1"),
            'Traceback (most recent call last):\n  File "a.py", line 1, in <module>\nValueError: no rows\n',
            "ValueError: no rows",
            "",
        ),
    ],
)
def test_each_way_to_end_should_be_told_apart_with_its_way_out(
    stderr: str, printed: str, begins: str, way_out: str
) -> None:
    told = step_log.cause_of_step(stderr, printed)
    assert told.startswith(begins)
    assert way_out in told


def test_logs_that_do_not_tell_should_not_be_made_to() -> None:
    assert step_log.cause_of_step(failed("User application exited with status 1")) == ""
    assert step_log.cause_of_step("") == ""


class Late:
    """S3, where nothing is there before it has been asked so many times."""

    def __init__(self, texts: dict[str, str], from_time: int) -> None:
        self._texts, self._from, self.asked = texts, from_time, 0

    def get_object(self, *, Bucket: str, Key: str) -> Any:
        self.asked += 1
        text = self._texts.get(f"s3://{Bucket}/{Key}")
        if text is None or self.asked < self._from:
            raise ClientError({"Error": {"Code": "NoSuchKey"}}, "GetObject")
        return {"Body": io.BytesIO(gzip.compress(text.encode()))}


def test_a_log_that_is_archived_late_should_be_waited_for_and_the_wait_be_told_once() -> None:
    logs = {
        LOG: failed("User application exited with status 1"),
        STDOUT: "Traceback (most recent call last):\nE: why\n",
    }
    archive, waits = Late(logs, from_time=4), []
    assert step_log.read_cause(archive, TOLD, seconds=2.0, waiting=lambda: waits.append(1)) == "E: why"
    assert (archive.asked, len(waits)) == (5, 1)


def test_a_log_that_does_not_come_should_end_the_wait_with_its_place() -> None:
    told = step_log.read_cause(Late({}, from_time=1), TOLD, seconds=0.2)
    assert told.endswith(f"it is to be {LOG}")


def test_a_failure_that_a_job_has_told_should_not_be_looked_for_in_logs() -> None:
    archive = Late({}, from_time=1)
    assert step_log.read_cause(archive, f"train: Column x is missing. [s-1A] (log: {STDOUT})", seconds=5) == ""
    assert step_log.read_cause(archive, "prepare: no table [jr_1]", seconds=5) == ""
    assert archive.asked == 0


@pytest.mark.parametrize(
    ("errors", "output", "said"),
    [
        ("a warning\nno such wheel\n", "", "the bootstrap action printed last: no such wheel (log: "),
        ("", "done so far\n", "the bootstrap action printed last: done so far (log: "),
        ("", None, "the bootstrap action printed last: nothing (log: "),
        (None, None, "the bootstrap action's log is not there yet; it is to be s3://logs/emr/j-1A/node/i-0f/"),
    ],
)
def test_a_cluster_that_did_not_start_should_be_told_by_the_log_of_its_bootstrap_action(
    errors: str | None, output: str | None, said: str
) -> None:
    folder = "s3://logs/emr/j-1A/node/i-0f/bootstrap-actions/1"
    archive = Late(
        {f"{folder}/{name}.gz": t for name, t in (("stderr", errors), ("stdout", output)) if t is not None}, 1
    )
    told = (
        "cluster: the transient cluster j-1A did not start: On the master instance (i-0f), bootstrap action 1 returned "
        "a non-zero return code"
    )
    assert step_log.read_cause(archive, told, seconds=0.2, logs="s3://logs/emr").startswith(said)
