"""What EMR tells of a step that ran in deploy mode `cluster`, and where its logs lie; in the server's process.

A step knows no more than its spark-submit, which only watches an application of YARN: what the script printed, its
traceback too, is in the log of the driver's container. Sources: Spark 3.5.6, org.apache.spark.deploy.yarn.Client and
SparkSubmit, as run on YARN 3.3.4; EMR Management Guide, "View log files" and "Archive log files to Amazon S3"; failed
steps in public reports, whose FailureDetails have the Reason `Unknown Error.` and, if any, the last error of
spark-submit as Message.
"""

import re
import signal
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from dml.local.services.emr_roles import NodeLogs
from dml.local.spark.process import Outcome

REASON = "Unknown Error."
MAIN = 'Exception in thread "main" '
SUBMITTED = re.compile(r"Submitted application (application_\d+_\d+)")
FAILED = "org.apache.spark.SparkException: Application {application} finished with failed status"
# EMR archives logs every few minutes: 3 to 4 after a step's end in public reports. Waits of state machines are as much
# shorter here (SFN_WAIT_SCALE).
ARCHIVE_SECONDS = 10.0


class Logs(Protocol):
    """What a step leaves, below a folder of this machine as EMR has it below its cluster's folder in S3."""

    def tell(self, outcome: Outcome) -> str | None:
        """Sees to it that spark-submit's stderr is there; its last error ("" if it has none), None if all went well."""

    def files(self) -> dict[str, Path]:
        """What there is, by its place below the cluster's folder."""


@dataclass(frozen=True)
class StepLogs:
    """The logs of a step that ran on local Spark, told as if it had been on YARN."""

    folder: Path
    step: str
    application: str

    @property
    def container(self) -> str:
        """The driver's: the first of the only attempt."""
        return f"{self.application.replace('application', 'container')}_01_000001"

    @property
    def stdout(self) -> Path:
        return self.folder / "containers" / self.application / self.container / "stdout"

    @property
    def stderr(self) -> Path:
        return self.stdout.with_name("stderr")

    @property
    def of_step(self) -> Path:
        return self.folder / "steps" / self.step / "stderr"

    def tell(self, outcome: Outcome) -> str | None:
        """Writes what spark-submit would say of how it went; its last error, or None."""
        lines, error = [], ""
        if outcome.begun:
            lines.append(f"INFO Client: Submitted application {self.application}")
        if outcome.exit_code and outcome.begun:
            said = self._diagnostics(outcome.exit_code)
            error = MAIN + FAILED.format(application=self.application)
            lines += [f"ERROR Client: Application diagnostics message: {said}", error]
        elif outcome.exit_code:
            error = MAIN + outcome.reason.removeprefix(MAIN)
            lines.append(error)
        self.of_step.parent.mkdir(parents=True, exist_ok=True)
        self.of_step.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
        return error.partition("\n")[0] if outcome.exit_code else None

    def _diagnostics(self, exit_code: int) -> str:
        if exit_code != 128 + signal.SIGKILL:
            return f"User application exited with status {exit_code}"
        attempt = f"{self.application.replace('application', 'appattempt')}_000001"
        return (
            f"Application {self.application} failed 1 times (global limit =2; local limit is =1) due to AM Container "
            f"for {attempt} exited with  exitCode: {exit_code}\nFailing this attempt.Diagnostics: Container killed on "
            f"request. Exit code is {exit_code}\nContainer exited with a non-zero exit code {exit_code}. \n"
            "Killed by external signal"
        )

    def files(self) -> dict[str, Path]:
        there = (self.of_step, self.stdout, self.stderr)
        return {str(file.relative_to(self.folder)): file for file in there if file.exists()}


@dataclass(frozen=True)
class YarnLogs:
    """The logs of a step that ran on YARN: spark-submit's own, and those of its application's containers."""

    folder: Path
    step: str

    @property
    def output(self) -> Path:
        return self.folder / "steps" / self.step / "stdout"

    @property
    def errors(self) -> Path:
        return self.output.with_name("stderr")

    def tell(self, outcome: Outcome) -> str | None:
        self.errors.parent.mkdir(parents=True, exist_ok=True)
        if outcome.reason:  # it was not started, and has printed nothing
            self.errors.write_text(f"{MAIN}{outcome.reason.removesuffix('.')}\n", encoding="utf-8")
        said = self.errors.read_text(encoding="utf-8", errors="replace").splitlines()
        errors = [line for line in said if line.startswith(MAIN)]
        return (errors or [""])[-1] if outcome.exit_code else None

    def files(self) -> dict[str, Path]:
        text = self.errors.read_text(encoding="utf-8", errors="replace") if self.errors.exists() else ""
        there = [self.output, self.errors]
        for application in dict.fromkeys(SUBMITTED.findall(text)):
            there += sorted((self.folder / "containers" / application).glob("*/*"))
        return {str(file.relative_to(self.folder)): file for file in there if file.is_file()}


def step_logs(
    folder: Path, cluster: Mapping[str, Any], steps: list[dict[str, Any]], step: Mapping[str, Any]
) -> StepLogs:
    """Those of a step, whose application is numbered as it comes among its cluster's steps."""
    started = int(cluster["Status"]["Timeline"]["CreationDateTime"] * 1000)
    number = 1 + [one["Id"] for one in steps].index(step["Id"])
    return StepLogs(folder, step["Id"], f"application_{started}_{number:04d}")


class Archiving:
    """Logs that wait for their archiving. A stop brings it forward: a cluster that ends archives what it has."""

    def __init__(self, logs: Logs, archive: NodeLogs) -> None:
        self._logs = logs
        self._archive = archive
        self._due = threading.Event()

    def run(self) -> None:
        self._due.wait(ARCHIVE_SECONDS)
        for name, file in self._logs.files().items():
            self._archive.push(file, name)

    def stop(self) -> None:
        self._due.set()


def failure_details(message: str, log_uri: str, cluster: str, step: str) -> dict[str, str]:
    """A failed step's FailureDetails. Without a LogUri there is no LogFile, and without a last error no Message."""
    details = {"Reason": REASON}
    if message:
        details["Message"] = message
    if log_uri:
        details["LogFile"] = f"{log_uri.rstrip('/')}/{cluster}/steps/{step}/stderr.gz"
    return details
