"""Glue jobs that really run: StartJobRun starts Spark under the job's role, BatchStopJobRun ends it; in the server."""

import copy
import os
import re
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from botocore.exceptions import ClientError

from dml.local import hooks
from dml.local.access import iam
from dml.local.place import Place
from dml.local.running import SHUT_DOWN, Handle, Running
from dml.local.services.glue_telemetry import JOBS, Telemetry, log_group, log_key, read_security
from dml.local.services.submission import submission
from dml.local.spark.process import tail
from jobs.errors import TRACEBACK

ACTIVE = ("STARTING", "RUNNING", "STOPPING", "WAITING")
# What Glue's launcher takes for itself. All else goes to the script, Glue's own switches too, as on AWS.
LAUNCHER = ("--conf", "--extra-py-files", "--extra-jars", "--extra-files", "--additional-python-modules")


class GlueJobs:
    """Glue's job runs on local Spark."""

    def __init__(self, place: Place, running: Running) -> None:
        self._place = place
        self._running = running
        self._lock = threading.Lock()  # held while a run's state changes
        self._glue = hooks.module("services.glue")
        self._error = hooks.module("core.responses").error_response_json
        self._reply = hooks.module("core.responses").json_response

    def apply(self) -> None:
        """Extends ministack's Glue; its request table is built from the module's names on every call."""
        for name in ("_jobs", "_job_runs", "_get_job_run"):
            hooks.existing(self._glue, name)
        hooks.replace(self._glue, "_start_job_run", self.start_job_run)
        hooks.replace(self._glue, "_batch_stop_job_run", self.batch_stop_job_run)
        self._keep_execution_property()

    def recover(self) -> None:
        """A run that was under way when the embedded cloud died is not: it has failed."""
        for runs in self._glue._job_runs.all_values():
            for run in runs:
                if run["JobRunState"] in ACTIVE:
                    _end(run, "FAILED", SHUT_DOWN)

    def start_job_run(self, request: Mapping[str, Any]) -> Any:
        """StartJobRun."""
        name = request.get("JobName", "")
        job = self._glue._jobs.get(name)
        if job is None:
            return self._error(
                "EntityNotFoundException", f"Failed to start job run due to missing metadata: {name}", 400
            )
        runs = self._glue._job_runs.setdefault(name, [])
        limit = int(job.get("ExecutionProperty", {}).get("MaxConcurrentRuns", 1))
        if sum(run["JobRunState"] in ACTIVE for run in runs) >= limit:
            return self._error("ConcurrentRunsExceededException", f"Concurrent runs exceeded for {name}", 400)
        run_id = "jr_" + os.urandom(32).hex()
        now = time.time()
        run = {
            "Id": run_id,
            "Attempt": 0,
            "JobName": name,
            "StartedOn": now,
            "LastModifiedOn": now,
            "JobRunState": "STARTING",
            "Arguments": dict(request.get("Arguments", {})),
            "PredecessorRuns": [],
            "ExecutionTime": 0,
            "Timeout": request.get("Timeout") or job.get("Timeout") or 2880,
            "LogGroupName": "/aws-glue/jobs",
            "GlueVersion": job.get("GlueVersion"),
            "WorkerType": request.get("WorkerType") or job.get("WorkerType"),
            "NumberOfWorkers": request.get("NumberOfWorkers") or job.get("NumberOfWorkers"),
        }
        runs.append(run)
        as_it_is = copy.deepcopy(job)  # a job that is changed meanwhile changes for later runs only
        self._running.start(run_id, lambda handle: self._execute(as_it_is, run, handle))
        return self._reply({"JobRunId": run_id})

    def batch_stop_job_run(self, request: Mapping[str, Any]) -> Any:
        """BatchStopJobRun: the run is STOPPING until its Spark is gone, then STOPPED."""
        name = request.get("JobName", "")
        known = {run["Id"]: run for run in self._glue._job_runs.get(name, [])}
        stopped, errors = [], []
        for run_id in request.get("JobRunIds", []):
            ids = {"JobName": name, "JobRunId": run_id}
            handle = self._running.handle(run_id)
            if handle is None or run_id not in known:
                code = "JobRunNotInTerminableStateException" if run_id in known else "JobRunNotFoundException"
                errors.append(ids | {"ErrorDetail": {"ErrorCode": code, "ErrorMessage": f"{run_id} does not run"}})
                continue
            with self._lock:
                if known[run_id]["JobRunState"] in ACTIVE:  # else it has ended just now
                    known[run_id]["JobRunState"] = "STOPPING"
            # Ending Spark takes a moment and this thread serves everybody.
            threading.Thread(target=handle.stop, args=("STOPPED",), daemon=True).start()
            stopped.append(ids)
        return self._reply({"SuccessfulSubmissions": stopped, "Errors": errors})

    def _execute(self, job: Mapping[str, Any], run: dict[str, Any], handle: Handle) -> None:
        timer = threading.Timer(run["Timeout"] * 60, handle.stop, args=("TIMEOUT",))
        timer.daemon = True
        timer.start()
        try:
            state, message = self._spark(job, run, handle)
        except Exception as error:  # noqa: BLE001 - whatever went wrong is this run's failure, and is told as such
            state, message = "FAILED", f"{type(error).__name__}: {error}"
        finally:
            timer.cancel()
        with self._lock:
            _end(run, state, message)

    def _spark(self, job: Mapping[str, Any], run: dict[str, Any], handle: Handle) -> tuple[str, str]:
        try:
            credentials = iam.credentials_of(
                job["Role"], "glue.amazonaws.com", "GlueJobRunnerSession", source=f"job/{job['Name']}"
            )
            read_security(self._place, credentials, job.get("SecurityConfiguration") or "")
        except (ClientError, iam.RoleError) as error:
            return "FAILED", str(error)
        output = self._place.logs / "glue" / f"{run['Id']}.log"
        process = submission(self._place, run["Id"], submit_arguments(job, run), credentials, output)
        handle.attach(process)
        with self._lock:
            if run["JobRunState"] == "STARTING":
                run["JobRunState"] = "RUNNING"
        outcome = process.run()
        self._tell(job, run, credentials, output)
        if handle.cause == "TIMEOUT":
            return "TIMEOUT", f"The job ran longer than its timeout of {run['Timeout']} minutes."
        if handle.cause == "STOPPED":
            return "STOPPED", ""
        if handle.cause:
            return "FAILED", handle.cause
        if not outcome.exit_code:
            return "SUCCEEDED", ""
        return "FAILED", error_message(outcome.reason, tail(output) if output.exists() else "")

    def _tell(
        self, job: Mapping[str, Any], run: Mapping[str, Any], credentials: Mapping[str, str], output: Path
    ) -> None:
        telemetry, name = Telemetry(self._place, credentials), job.get("SecurityConfiguration") or ""
        text = output.read_text(errors="replace") if output.exists() else ""
        telemetry.send_log(log_group(JOBS, name, job["Role"], "/error"), run["Id"], text, key=log_key(name))
        if job.get("DefaultArguments", {}).get("--enable-metrics"):
            milliseconds = (time.time() - run["StartedOn"]) * 1000
            telemetry.send_metrics(job["Name"], run["Id"], {"glue.driver.aggregate.elapsedTime": milliseconds})

    def _keep_execution_property(self) -> None:
        """ministack forgets a job's MaxConcurrentRuns, from the API and from a template alike."""
        provisioners = hooks.module("services.cloudformation.provisioners")
        fields = hooks.existing(provisioners, "_glue_job_fields")
        hooks.replace(
            provisioners,
            "_glue_job_fields",
            lambda props: fields(props) | {key: props[key] for key in ("ExecutionProperty",) if key in props},
        )
        for name, given in (
            ("_create_job", lambda data: data),
            ("_update_job", lambda data: data.get("JobUpdate", {})),
        ):
            hooks.replace(self._glue, name, self._keeping(hooks.existing(self._glue, name), given))

    def _keeping(self, original: Any, given: Any) -> Any:
        def call(data: Mapping[str, Any]) -> Any:
            response = original(data)
            job = self._glue._jobs.get(data.get("Name") or data.get("JobName"))
            if response[0] < 400 and job is not None and "ExecutionProperty" in given(data):
                job["ExecutionProperty"] = given(data)["ExecutionProperty"]
            return response

        return call


def submit_arguments(job: Mapping[str, Any], run: Mapping[str, Any]) -> list[str]:
    """What Glue's launcher says to spark-submit, and to the script, for one run of a job."""
    arguments = {
        **job.get("DefaultArguments", {}),
        "--JOB_ID": f"j_{job['Name']}",
        "--JOB_NAME": job["Name"],
        "--JOB_RUN_ID": run["Id"],
        **run["Arguments"],
        **job.get("NonOverridableArguments", {}),
    }
    launched = []
    for setting in arguments.get("--conf", "").split(" --conf "):
        launched += ["--conf", setting.strip()] if setting.strip() else []
    for option, name in (("--py-files", "--extra-py-files"), ("--jars", "--extra-jars"), ("--files", "--extra-files")):
        launched += [option, arguments[name]] if arguments.get(name) else []
    script = [text for name, value in arguments.items() if name not in LAUNCHER for text in (name, str(value))]
    return [*launched, job["Command"]["ScriptLocation"], *script]


def error_message(reason: str, output: str) -> str:
    """ErrorMessage of a failed run. `reason`: in our words; `output`: what the script has printed.

    Form and order of its parts are those of runs of Glue 4 and 5 in public reports; the line is that of the script's
    outermost statement. Only this one of Glue's categories is ever given here.
    """
    traceback = output[output.rfind(TRACEBACK) :] if TRACEBACK in output else ""
    line = re.search(r'^  File ".*", line (\d+), in <module>$', traceback, re.MULTILINE)
    raised = next((text for text in traceback.splitlines()[1:] if text and not text.startswith(" ")), "")
    kind, _, message = raised.partition(": ")
    if kind.endswith("Py4JJavaError"):
        reason = f"{message} {reason}"
    elif kind.endswith("JobError"):
        reason = f"JobError: {reason}"
    parts = ["Error Category: UNCLASSIFIED_ERROR", f"Failed Line Number: {line[1]}" if line else "", reason]
    return "; ".join(part for part in parts if part)


def _end(run: dict[str, Any], state: str, message: str) -> None:
    now = time.time()
    run.update(LastModifiedOn=now, CompletedOn=now, ExecutionTime=round(now - run["StartedOn"]), ErrorMessage=message)
    run["JobRunState"] = state  # last: whoever polls for it finds the rest in place
