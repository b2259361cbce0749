"""Step Functions in the embedded cloud: a Task's calls go over HTTP under the state machine's role; in the server.

So a permission that the role lacks fails the execution here as it does on AWS. Added to ministack besides: the `.sync`
integrations of Glue and EMR, SDK integrations (java_sdk.py), the machine's TimeoutSeconds, RedriveExecution, and
executions that end what they run when they are stopped or time out; fields.py has what a state's fields mean. A Wait is
shortened (SFN_WAIT_SCALE): nothing here takes minutes.
"""

import contextvars
import datetime
import json
import logging
import re
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import botocore.session
from botocore import xform_name
from botocore.exceptions import ClientError, ParamValidationError

from dml.local import hooks
from dml.local.access import iam
from dml.local.access.authorise import Authoriser
from dml.local.clients import client
from dml.local.place import Place
from dml.local.running import Running
from dml.local.services.fields import PAYLOAD_BYTES, Fields, entered
from dml.local.services.java_sdk import failed_call, from_wire, to_wire
from dml.local.services.machine_role import check_machines, trace
from stacks.arguments import BOTO_NAMES, faults_of_task

log = logging.getLogger("dml.states")

POLL_SECONDS = 0.2  # between two looks at whether an execution is over
JOB_SECONDS = 1.0  # between two at a job, of which nothing was heard
REDRIVABLE_DAYS = 14
UNSUCCESSFUL = ("FAILED", "ABORTED", "TIMED_OUT")
HANDLED_WITH_EXECUTION = ("Task", "Parallel", "Map")
JOB_RUN_ENDED = ("SUCCEEDED", "FAILED", "STOPPED", "TIMEOUT", "ERROR", "EXPIRED")
STEP_ENDED = ("COMPLETED", "FAILED", "CANCELLED", "INTERRUPTED")


class Stopped(BaseException):
    """Unwinds a thread whose execution is over; a BaseException, so that no Retry or Catch of ministack holds it."""


@dataclass
class Execution:
    """The execution that the current thread works for. `deadlines`: of the Task states around, in time.monotonic()."""

    record: dict[str, Any]
    credentials: Mapping[str, str]
    deadlines: tuple[float, ...] = field(default=())
    clients: dict[str, Any] = field(default_factory=dict)

    @property
    def over(self) -> bool:
        return bool(self.record["status"] != "RUNNING")


_execution: contextvars.ContextVar[Execution | None] = contextvars.ContextVar("dml_execution", default=None)


class StateMachines:
    """Runs executions and their integrations."""

    def __init__(self, place: Place, authoriser: Authoriser, running: Running) -> None:
        self._place = place
        self._authoriser = authoriser
        self._running = running
        self._sfn = hooks.module("services.stepfunctions")
        self._models = botocore.session.get_session()
        self._fields = Fields()
        self._optimised: dict[str, Callable[[str, Any], Any]] = {
            "glue:startJobRun": self._start_job_run,
            "elasticmapreduce:createCluster": self._create_cluster,
            "elasticmapreduce:terminateCluster": self._terminate_cluster,
            "elasticmapreduce:addStep": self._add_step,
            "elasticmapreduce:cancelStep": self._cancel_step,
            "sns:publish": self._publish,
        }

    def apply(self) -> None:
        """Extends ministack's interpreter."""
        for name in (
            "_state_machines",
            "_executions",
            "_ExecutionError",
            "_task_tokens",
            "_execute_pass",
            "_execute_task",
            "_execute_choice",
            "_execute_wait",
            "_execute_parallel",
            "_execute_map",
            "_fail_state_error",
            "_start_execution",
        ):
            hooks.existing(self._sfn, name)
        self._error = hooks.module("core.responses").error_response_json
        self._reply = hooks.module("core.responses").json_response
        self._fields.apply()
        hooks.replace(self._sfn, "_run_execution", self.run_execution)
        hooks.replace(self._sfn, "_invoke_with_callback", self.invoke_with_callback)
        self._describe = hooks.replace(self._sfn, "_describe_execution", self.describe_execution)
        self._handle = hooks.replace(self._sfn, "handle_request", self.handle_request)
        self._invoke = hooks.replace(self._sfn, "_invoke_resource", self.invoke)
        self._invoke_in_time = hooks.replace(self._sfn, "_invoke_resource_with_timeout", self.invoke_in_time)
        self._matches = hooks.replace(self._sfn, "_error_matches", self.error_matches)
        self._sleep = hooks.replace(self._sfn, "_scaled_sleep", self.sleep)
        self._fail = hooks.replace(self._sfn, "_fail_execution", self.fail_execution)
        self._test = hooks.replace(self._sfn, "_test_state", self.test_state)
        hooks.existing(self._sfn, "_SFN_WAIT_SCALE")
        check_machines(self._authoriser)

    def run_execution(self, arn: str) -> None:
        """Runs one execution on this thread, as the machine's role, within the machine's TimeoutSeconds."""
        record = self._sfn._executions[arn]
        machine = self._sfn._state_machines.get(record["stateMachineArn"], {})
        try:
            source = record["stateMachineArn"].split(":", 5)[5]
            credentials = iam.credentials_of(
                machine.get("roleArn", ""), "states.amazonaws.com", record["name"][:64], source=source
            )
        except iam.RoleError as error:
            self._sfn._fail_execution(record, "States.Runtime", str(error))
            return
        token = _execution.set(Execution(record, credentials))
        # What a redrive goes on with: an execution keeps the definition that it began with.
        position = record.setdefault(
            "position", {"definition": machine["definition"], "state": None, "input": None, "variables": {}}
        )
        definition = json.loads(position["definition"])
        timeout = definition.get("TimeoutSeconds")
        timer = threading.Timer(timeout or 0, contextvars.copy_context().run, args=(self._time_out, record))
        timer.daemon = True
        if timeout:
            timer.start()
        try:
            self._walk(record, machine, definition, position)
        except Stopped:
            log.info("%s was stopped", arn)
        except self._sfn._ExecutionError as error:
            self._sfn._fail_execution(record, error.error, error.cause)
        except Exception as error:
            log.exception("%s failed unexpectedly", arn)
            self._sfn._fail_execution(record, "States.Runtime", str(error))
        finally:
            timer.cancel()
            _execution.reset(token)
            trace(self._authoriser, machine, credentials)

    def _walk(
        self, record: dict[str, Any], machine: dict[str, Any], definition: dict[str, Any], position: dict[str, Any]
    ) -> None:
        """From state to state, beginning with the one that `position` names; notes in `position` how far it is."""
        given = json.loads(record["input"])
        execution = {"Id": record["executionArn"], "Input": given, "Name": record["name"]}
        execution |= {"StartTime": record["startDate"], "RoleArn": machine["roleArn"]}
        execution["RedriveCount"] = record.get("redriveCount", 0)
        if record.get("redriveCount"):
            execution["RedriveTime"] = record["redriveDate"]
        context = {
            "QueryLanguage": definition.get("QueryLanguage", "JSONPath"),
            "Execution": execution,
            "StateMachine": {"Id": record["stateMachineArn"], "Name": machine["name"]},
            "variables": position["variables"],
        }
        name, value = (position["state"], position["input"]) if position["state"] else (definition["StartAt"], given)
        while name and record["status"] == "RUNNING":
            position.update(state=name, input=value)
            state = definition["States"][name]
            kind = state["Type"]
            context["State"] = {"Name": name, "EnteredTime": self._sfn.now_iso()}
            if kind in HANDLED_WITH_EXECUTION:
                context["State"]["RetryCount"] = 0
            event = self._event(record, f"{kind}StateEntered", "stateEntered", name=name, input=json.dumps(value))
            entered.set((name, event["id"]))
            if kind == "Fail":
                raise self._sfn._ExecutionError(*self._sfn._fail_state_error(state, value, context))
            if kind == "Succeed":
                value, name_after = self._sfn._apply_jsonata_output(state, value, context, default=value), None
            else:
                handle = getattr(self._sfn, f"_execute_{kind.lower()}")
                more = (record, context) if kind in HANDLED_WITH_EXECUTION else (context,)
                value, name_after = handle(state, value, *more)
            self._fields.check_size(value, name)
            self._event(record, f"{kind}StateExited", "stateExited", name=name, output=json.dumps(value))
            name = name_after
        if record["status"] == "RUNNING":
            record.update(status="SUCCEEDED", output=json.dumps(value), stopDate=self._sfn.now_iso())
            self._event(record, "ExecutionSucceeded", "executionSucceeded", output=record["output"])
            self._sfn._emit_execution_status_event(record)

    def _event(self, record: dict[str, Any], kind: str, details: str, **fields: Any) -> dict[str, Any]:
        event: dict[str, Any] = self._sfn._add_event(record, kind, {f"{details}EventDetails": fields})
        return event

    def fail_execution(self, record: dict[str, Any], error: str | None, cause: str | None) -> None:
        """Ends an execution as FAILED; ministack says so first and why only then, which who polls can see."""
        record.update(error=error, cause=cause, stopDate=self._sfn.now_iso())
        self._fail(record, error, cause)
        record["output"] = None  # an execution that failed has none
        details = record["events"][-1]["executionFailedEventDetails"]
        for name in [name for name, told in details.items() if told is None]:
            del details[name]

    # --- redriving ---

    async def handle_request(self, method: str, path: str, headers: Any, body: Any, query: Any) -> Any:
        """Step Functions' API: RedriveExecution is ours, all else ministack's; some requests are refused before."""
        action = headers.get("x-amz-target", "").rpartition(".")[2]
        if action == "RedriveExecution":
            return self._sfn._finalize_response(self.redrive_execution(json.loads(body)))
        check = REFUSED.get(action)
        refused = check(self._sfn, json.loads(body)) if check else None
        if refused:
            return self._sfn._finalize_response(self._error(*refused, 400))
        return await self._handle(method, path, headers, body, query)

    def redrive_execution(self, request: Mapping[str, Any]) -> Any:
        """RedriveExecution: an execution that did not succeed goes on in the state in which it ended."""
        arn = request.get("executionArn", "")
        record = self._sfn._executions.get(arn)
        if record is None:
            return self._error("ExecutionDoesNotExist", f"Execution Does Not Exist: '{arn}'", 400)
        if reason := not_redrivable(record):
            return self._error("ExecutionNotRedrivable", reason, 400)
        now = self._sfn.now_iso()
        count = record.get("redriveCount", 0) + 1
        record.update(status="RUNNING", stopDate=None, output=None, error=None, cause=None)
        record.update(redriveCount=count, redriveDate=now)
        self._event(record, "ExecutionRedriven", "executionRedriven", redriveCount=count)
        self._sfn._emit_execution_status_event(record)
        run = contextvars.copy_context().run  # with the request's account and region
        threading.Thread(target=run, args=(self.run_execution, arn), daemon=True).start()
        return self._reply({"redriveDate": now})

    def describe_execution(self, request: Mapping[str, Any]) -> Any:
        """DescribeExecution, with what it tells of redrives."""
        status, headers, body = self._describe(request)
        record = self._sfn._executions.get(request.get("executionArn"))
        if record is None:
            return status, headers, body
        reason = not_redrivable(record)
        told = {
            "redriveCount": record.get("redriveCount", 0),
            "redriveStatus": "NOT_REDRIVABLE" if reason else "REDRIVABLE",
            **({"redriveDate": record["redriveDate"]} if "redriveDate" in record else {}),
            **({"redriveStatusReason": reason} if reason else {}),
        }
        return self._reply(json.loads(body) | told)

    def test_state(self, request: Mapping[str, Any]) -> Any:
        """TestState, with the variables that it is given, which ministack forgets."""
        given = json.loads(request.get("variables") or "{}")
        context = json.loads(request.get("context") or "{}") | {"variables": given}
        return self._test({**request, "context": context})

    # --- calls of a Task ---

    def invoke_with_callback(self, resource: str, arguments: Any, token: str, state: Mapping[str, Any]) -> Any:
        """A Task with .waitForTaskToken: its call, then the wait for whoever answers with its token."""
        answered = threading.Event()
        waiting: dict[str, Any] = {"event": answered, "result": None, "error": None, "heartbeat": None}
        self._sfn._task_tokens[token] = waiting
        deadline = time.monotonic() + state.get("TimeoutSeconds", float("inf"))
        try:
            self.invoke(resource.replace(".waitForTaskToken", ""), arguments)
            while not answered.wait(POLL_SECONDS):
                self._checkpoint()
                if time.monotonic() > deadline:
                    raise self._sfn._ExecutionError("States.Timeout", "Nobody answered the task's token in time.")
        finally:
            self._sfn._task_tokens.pop(token, None)
        if waiting["error"]:
            raise self._sfn._ExecutionError(waiting["error"]["Error"], waiting["error"]["Cause"])
        return json.loads(waiting["result"])

    def error_matches(self, error_equals: list[str], error: str) -> bool:
        """On AWS neither States.ALL nor States.TaskFailed catches these two (guide, "Handling errors")."""
        if error in ("States.Runtime", "States.DataLimitExceeded"):
            return error in error_equals
        return bool(self._matches(error_equals, error))

    def sleep(self, seconds: float) -> None:
        """A Wait or the pause before a Retry, which ends when the execution does."""
        end = time.monotonic() + seconds * self._sfn._SFN_WAIT_SCALE
        while (left := end - time.monotonic()) > 0:
            self._checkpoint()
            time.sleep(min(left, POLL_SECONDS))

    def invoke(self, resource: str, arguments: Any) -> Any:
        """A Task's call. Activities, Lambda functions and nested executions stay ministack's."""
        name = resource.partition(":states:::")[2]
        kind, _, action = name.rpartition(":")
        return self._fields.check_size(self._result_of(name, kind, action, resource, arguments), kind or resource)

    def _result_of(self, name: str, kind: str, action: str, resource: str, arguments: Any) -> Any:
        wrong = faults_of_task(resource, arguments)
        if wrong:
            given = json.dumps(arguments)
            told = f"The Parameters '{given}' could not be used to start the Task: [{' '.join(wrong)}]"
            raise self._fields.error(told, "States.Runtime")
        if kind.startswith("aws-sdk:"):
            service = kind.removeprefix("aws-sdk:")
            return self._call(BOTO_NAMES.get(service, service), action[0].upper() + action[1:], arguments)
        integration = self._optimised.get(name.removesuffix(".sync"))
        if integration is not None:
            return integration(name, arguments)
        return self._invoke(resource, arguments)

    def invoke_in_time(self, resource: str, arguments: Any, timeout: float) -> Any:
        """A Task with TimeoutSeconds. One that waits for a job ends the job when its time is over."""
        execution = _execution.get()
        if execution is None or not resource.endswith(".sync"):
            return self._invoke_in_time(resource, arguments, timeout)
        deadlines = (*execution.deadlines, time.monotonic() + float(timeout))
        token = _execution.set(replace(execution, deadlines=deadlines))
        try:
            return self.invoke(resource, arguments)
        finally:
            _execution.reset(token)

    # --- integrations ---

    def _start_job_run(self, name: str, arguments: Any) -> Any:
        started = self._call("glue", "StartJobRun", arguments, optimised=True)
        ids = {"JobName": arguments["JobName"], "RunId": started["JobRunId"]}
        if not name.endswith(".sync"):
            return {"JobRunId": ids["RunId"], "JobName": ids["JobName"]}
        run = self._wait_for(
            lambda: self._call("glue", "GetJobRun", ids)["JobRun"],
            lambda run: run["JobRunState"] in JOB_RUN_ENDED,
            lambda: self._call("glue", "BatchStopJobRun", {"JobName": ids["JobName"], "JobRunIds": [ids["RunId"]]}),
        )
        return self._result(run, succeeded=run["JobRunState"] == "SUCCEEDED")

    def _add_step(self, name: str, arguments: Any) -> Any:
        cluster = arguments["ClusterId"]
        request = {"JobFlowId": cluster, "Steps": [arguments["Step"]]}
        if "ExecutionRoleArn" in arguments:
            request["ExecutionRoleArn"] = arguments["ExecutionRoleArn"]
        step_id = self._call("emr", "AddJobFlowSteps", request, optimised=True)["StepIds"][0]
        if not name.endswith(".sync"):
            return {"StepId": step_id}
        result = self._wait_for(
            lambda: self._call("emr", "DescribeStep", {"ClusterId": cluster, "StepId": step_id}),
            lambda result: result["Step"]["Status"]["State"] in STEP_ENDED,
            lambda: self._call("emr", "CancelSteps", {"ClusterId": cluster, "StepIds": [step_id]}),
        )
        return self._result(result, succeeded=result["Step"]["Status"]["State"] == "COMPLETED")

    def _create_cluster(self, name: str, arguments: Any) -> Any:
        made = self._call("emr", "RunJobFlow", arguments, optimised=True)
        started = {"ClusterId": made["JobFlowId"], "ClusterArn": made.get("ClusterArn", "")}
        if not name.endswith(".sync"):
            return started
        result = self._wait_for(
            lambda: self._call("emr", "DescribeCluster", {"ClusterId": started["ClusterId"]}),
            lambda result: result["Cluster"]["Status"]["State"] not in ("STARTING", "BOOTSTRAPPING", "TERMINATING"),
            lambda: self._call("emr", "TerminateJobFlows", {"JobFlowIds": [started["ClusterId"]]}),
        )
        up = result["Cluster"]["Status"]["State"] in ("WAITING", "RUNNING")
        return self._result(started | result, succeeded=up)

    def _terminate_cluster(self, name: str, arguments: Any) -> Any:
        cluster = arguments["ClusterId"]
        self._call("emr", "TerminateJobFlows", {"JobFlowIds": [cluster]}, optimised=True)
        if not name.endswith(".sync"):
            return {}
        return self._wait_for(
            lambda: self._call("emr", "DescribeCluster", {"ClusterId": cluster}),
            lambda result: result["Cluster"]["Status"]["State"] in ("TERMINATED", "TERMINATED_WITH_ERRORS"),
            lambda: None,
        )

    def _cancel_step(self, _name: str, arguments: Any) -> Any:
        request = {"ClusterId": arguments["ClusterId"], "StepIds": [arguments["StepId"]]}
        return self._call("emr", "CancelSteps", request, optimised=True)["CancelStepsInfoList"][0]

    def _publish(self, _name: str, arguments: Any) -> Any:
        message = arguments.get("Message", "")
        text = message if isinstance(message, str) else json.dumps(message)
        return self._call("sns", "Publish", arguments | {"Message": text}, optimised=True)

    def _result(self, result: dict[str, Any], *, succeeded: bool) -> dict[str, Any]:
        if not succeeded:
            raise self._sfn._ExecutionError("States.TaskFailed", json.dumps(result))
        return result

    # --- calls ---

    def _call(self, service: str, action: str, arguments: Any, *, optimised: bool = False) -> Any:
        """One AWS call as the machine's role; members are named in and out as the SDK for Java names them."""
        execution = _execution.get()
        if execution is None:
            raise self._sfn._ExecutionError("States.Runtime", f"{action} was called outside of an execution")
        model = self._models.get_service_model(service)
        if action not in model.operation_names:
            raise self._sfn._ExecutionError("States.Runtime", f"{service} has no action {action}")
        operation = model.operation_model(action)
        try:
            asked = execution.clients.get(service)
            if asked is None:  # a client takes longer to be made than a call
                asked = execution.clients[service] = client(self._place, service, execution.credentials)
            given = to_wire(arguments or {}, operation.input_shape) if operation.input_shape else {}
            answer = getattr(asked, xform_name(action))(**given)
        except ParamValidationError as error:
            raise self._sfn._ExecutionError("States.Runtime", str(error)) from None
        except ClientError as error:
            raise self._sfn._ExecutionError(*failed_call(error, model, optimised=optimised)) from None
        answer.pop("ResponseMetadata", None)
        return from_wire(answer, operation.output_shape) if operation.output_shape else {}

    # --- the end of things ---

    def _wait_for(self, fetch: Callable[[], Any], ended: Callable[[Any], bool], cancel: Callable[[], Any]) -> Any:
        """Asks for a job until it has ended; ends it if the execution is stopped or the Task's time is over.

        It asks when any work here has begun or ended, which its job's may be, and now and then.
        """
        while True:
            changes, again = self._running.changes, time.monotonic() + JOB_SECONDS
            if ended(found := fetch()):
                return found
            while self._running.changes == changes and (left := again - time.monotonic()) > 0:
                try:
                    self._checkpoint()
                except (Stopped, self._sfn._ExecutionError):
                    self._quietly(cancel)
                    raise
                self._running.wait(changes, min(left, POLL_SECONDS))

    def _quietly(self, cancel: Callable[[], Any]) -> None:
        """Ending a job is a best effort on AWS, too: a role without the right to leaves it running."""
        try:
            cancel()
        except self._sfn._ExecutionError as error:
            log.warning("A job could not be ended: %s: %s", error.error, error.cause)

    def _checkpoint(self) -> None:
        execution = _execution.get()
        if execution is None:
            return
        if execution.over:
            raise Stopped
        if any(time.monotonic() > deadline for deadline in execution.deadlines):
            raise self._sfn._ExecutionError("States.Timeout", "The task ran longer than its TimeoutSeconds.")

    def _time_out(self, record: dict[str, Any]) -> None:
        if record["status"] == "RUNNING":
            record.update(status="TIMED_OUT", stopDate=self._sfn.now_iso(), error="States.Timeout")
            details = {"executionTimedOutEventDetails": {"error": "States.Timeout"}}
            self._sfn._add_event(record, "ExecutionTimedOut", details)
            self._sfn._emit_execution_status_event(record)


def not_redrivable(record: Mapping[str, Any]) -> str:
    """Why an execution cannot be redriven (API reference, RedriveExecution); "" if it can."""
    if record["status"] not in UNSUCCESSFUL:
        return f"Execution is {record['status']} and cannot be redriven"
    if "position" not in record:
        return "Execution was started in an older embedded cloud and cannot be redriven"
    stopped = datetime.datetime.fromisoformat(record["stopDate"].replace("Z", "+00:00"))
    if datetime.datetime.now(datetime.UTC) - stopped > datetime.timedelta(days=REDRIVABLE_DAYS):
        return f"Execution ended more than {REDRIVABLE_DAYS} days ago and cannot be redriven"
    return ""


def _no_token(sfn: Any, request: Mapping[str, Any]) -> tuple[str, str] | None:
    """A token is opaque: one that was never given out is no token (recorded), one whose time is over has no task."""
    if request.get("taskToken") in sfn._task_tokens or TOKEN.fullmatch(str(request.get("taskToken"))):
        return None
    return "InvalidToken", "Invalid Token: 'Invalid token'"


def _long_input(_sfn: Any, request: Mapping[str, Any]) -> tuple[str, str] | None:
    if len(str(request.get("input", "")).encode()) <= PAYLOAD_BYTES:
        return None
    return (
        "ValidationException",
        "1 validation error detected: Value at 'input' failed to satisfy constraint: "
        f"Member must have length less than or equal to {PAYLOAD_BYTES}",
    )


def _no_validation(_sfn: Any, _request: Mapping[str, Any]) -> tuple[str, str]:
    """ministack finds every definition valid, an empty one too; what AWS finds only AWS can say."""
    return "UnknownOperationException", "The embedded cloud does not validate definitions as AWS does: ask AWS."


# What AWS refuses and ministack takes: by action, the check that gives the refusal's code and words.
TOKEN = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")  # as ministack makes them
REFUSED: dict[str, Callable[[Any, Mapping[str, Any]], tuple[str, str] | None]] = {
    "SendTaskSuccess": _no_token,
    "SendTaskFailure": _no_token,
    "SendTaskHeartbeat": _no_token,
    "StartExecution": _long_input,
    "ValidateStateMachineDefinition": _no_validation,
}
