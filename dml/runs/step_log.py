"""Why a step failed whose job has not said so: by the log of its spark-submit, which EMR archives after the step's end;
and why a cluster did not start: by that of its bootstrap action.

A job that fails leaves failure.json (jobs/job.py). One that is killed, or never starts, cannot: then the step's stderr
is what there is, and what the driver printed before. The table below has what YARN and Spark say, each brought about on
YARN 3.3.4 with Spark 3.5.6.
"""

import gzip
import re
import time
from collections.abc import Callable
from typing import Any, NamedTuple

from botocore.exceptions import ClientError

from dml.terminal.words import BOOTSTRAP_FAILED, last_line
from jobs.errors import TRACEBACK, reason_of

LOG = re.compile(r"\(log: (s3://[^)\s]+/steps/s-\w+/stderr\.gz)\)")
SUBMITTED = re.compile(r"Submitted application (application_\d+_\d+)")
MAIN = re.compile(r'^Exception in thread "main" (.+)$', re.MULTILINE)
ASK_AGAIN = 10.0  # seconds
LARGER = "; larger machines are instance_types in environments/*.toml, then redrive"


class Ending(NamedTuple):
    """How an application of YARN ends. `sentence` may name groups of `sign`."""

    sign: re.Pattern[str]
    sentence: str


# The first that fits counts; looked for in what spark-submit prints.
ENDINGS = (
    Ending(
        re.compile(r"Application application_\d+_\d+ is killed"), "the application was killed on the cluster; redrive"
    ),
    Ending(
        re.compile(
            r"beyond the '\w+' memory limit\. Current usage: (?P<used>\S+ \S+) of (?P<limit>\S+ \S+) physical memory"
        ),
        "YARN ended the driver's container, which used {used} of {limit}: raise spark.driver.memoryOverhead (Python is "
        "counted there) or spark.driver.memory" + LARGER,
    ),
    Ending(
        re.compile(r'Cannot run program "(?P<program>[^"]+)"'),
        "the node has no {program}: look at what its bootstrap action printed, below the log's folder in node/",
    ),
    Ending(
        re.compile(r"User did not initialize spark context"),
        "the script ended before it had a Spark session: deploy again, the script is not this project's",
    ),
    Ending(
        re.compile(r"exited with +exitCode: -100\b"),
        "the machine of the driver's container was lost, as spot machines are; redrive",
    ),
    Ending(
        re.compile(r"(?P<what>Max number of executor failures \(\d+\) reached)"),
        "executors ended again and again ({what}), for want of memory or because machines were lost: raise "
        "spark.executor.memoryOverhead" + LARGER,
    ),
    Ending(
        re.compile(r"exited with +exitCode: 137\b|Killed by external signal|exited with status 137\b"),
        "the driver was killed from outside, most likely because its machine ran out of memory" + LARGER,
    ),
)


def cause_of_step(stderr: str, printed: str = "") -> str:
    """Why a step failed, in a sentence with the way out; empty if its logs do not tell.

    `stderr`: of the step's spark-submit; `printed`: what the driver has printed, its container's stdout.
    """
    main = MAIN.search(stderr)
    if not SUBMITTED.search(stderr):
        return f"it did not start: {main[1]}" if main else ""
    if "java.lang.OutOfMemoryError" in printed and TRACEBACK not in printed:
        return "the heap of the driver's Java was full: raise spark.driver.memory" + LARGER
    for ending in ENDINGS:
        if found := ending.sign.search(stderr):
            return ending.sentence.format(**found.groupdict())
    return reason_of(printed)[1] if TRACEBACK in printed else ""


def read_cause(
    s3: Any, told: str, *, seconds: float, logs: str = "", waiting: Callable[[], None] = lambda: None
) -> str:
    """The cause of a failed run whose reason is `told`, if that names the log of a step or a bootstrap action; else
    nothing.

    Waits up to `seconds` for the log, as it may not be archived yet, and calls `waiting` before the first wait. `logs`:
    where clusters have theirs, as a URI.
    """
    deadline, every = time.monotonic() + seconds, min(ASK_AGAIN, seconds / 20)
    if action := BOOTSTRAP_FAILED.search(told):
        cluster, instance, number = action.groups()
        folder = f"{logs}/{cluster}/node/{instance}/bootstrap-actions/{number}"
        errors = _wait_for(s3, f"{folder}/stderr.gz", deadline, every, waiting)
        if errors is None:
            return f"the bootstrap action's log is not there yet; it is to be {folder}/stderr.gz"
        said = last_line(errors) or last_line(_wait_for(s3, f"{folder}/stdout.gz", 0, every, waiting) or "")
        return f"the bootstrap action printed last: {said or 'nothing'} (log: {folder}/)"
    log = LOG.search(told)
    if not log:
        return ""
    folder = log[1].rpartition("/steps/")[0]
    stderr = _wait_for(s3, log[1], deadline, every, waiting)
    if stderr is None:
        return f"its log is not there after {seconds / 60:.0f} minutes; it is to be {log[1]}"
    application = SUBMITTED.search(stderr)
    printed = None
    if application:
        container = f"{application[1].replace('application', 'container', 1)}_01_000001"
        # Archived in the same round: if it is not there shortly after, the driver has printed nothing.
        soon = min(deadline, time.monotonic() + 3 * every)
        printed = _wait_for(s3, f"{folder}/containers/{application[1]}/{container}/stdout.gz", soon, every, waiting)
    return cause_of_step(stderr, printed or "")


def _wait_for(s3: Any, uri: str, deadline: float, every: float, waiting: Callable[[], None]) -> str | None:
    """The text of an archived log, when it is there; None if it is not in time."""
    bucket, _, key = uri.removeprefix("s3://").partition("/")
    first = True
    while True:
        try:
            return gzip.decompress(s3.get_object(Bucket=bucket, Key=key)["Body"].read()).decode(errors="replace")
        except ClientError as error:
            if error.response["Error"]["Code"] not in ("NoSuchKey", "404"):
                raise
        if time.monotonic() + every > deadline:
            return None
        if first:
            waiting()
            first = False
        time.sleep(every)
