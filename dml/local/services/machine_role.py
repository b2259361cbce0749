"""What Step Functions does with a state machine's role besides its Tasks: managed rules, logs, traces; in the server.

Whether the role may is asked when a template makes or changes the machine, and the machine is refused if not. Sources:
Step Functions guide, "IAM policies for integrated services" (a `.sync` Task of EMR learns of the end by a managed rule
of EventBridge), "Using CloudWatch Logs to log execution history", "Trace Step Functions request data with AWS X-Ray".
"""

import json
import logging
from collections.abc import Iterator, Mapping
from typing import Any

from dml.local import hooks
from dml.local.access import iam
from dml.local.access.authorise import Authoriser

log = logging.getLogger("dml.states")

KIND = "AWS::StepFunctions::StateMachine"
RULES = {
    "elasticmapreduce:addStep.sync": "StepFunctionsGetEventForEMRAddJobFlowStepsRule",
    "elasticmapreduce:createCluster.sync": "StepFunctionsGetEventForEMRRunJobFlowRule",
    "elasticmapreduce:terminateCluster.sync": "StepFunctionsGetEventForEMRTerminateJobFlowsRule",
}
DELIVERY = (
    "CreateLogDelivery",
    "GetLogDelivery",
    "UpdateLogDelivery",
    "DeleteLogDelivery",
    "ListLogDeliveries",
    "PutResourcePolicy",
    "DescribeResourcePolicies",
    "DescribeLogGroups",
)
TRACING = ("PutTraceSegments", "PutTelemetryRecords", "GetSamplingRules", "GetSamplingTargets")


def check_machines(authoriser: Authoriser) -> None:
    """Has state machines of templates refused whose roles lack what Step Functions asks of them."""
    handler = hooks.existing(hooks.module("services.cloudformation.provisioners")._RESOURCE_HANDLERS, KIND)
    machines = hooks.module("services.stepfunctions")._state_machines
    create, update = hooks.existing(handler, "create"), hooks.existing(handler, "update")

    def made(logical_id: str, properties: Mapping[str, Any], stack: str) -> Any:
        arn, attributes = create(logical_id, properties, stack)[:2]
        try:
            _check(authoriser, machines[arn], properties)
        except ValueError:
            hooks.existing(handler, "delete")(arn, properties)
            raise
        return arn, attributes

    def changed(arn: str, old: Any, new: Mapping[str, Any], *rest: Any, **named: Any) -> Any:
        result = update(arn, old, new, *rest, **named)
        _check(authoriser, machines[result[0]], new)
        return result

    handler.update(create=made, update=changed)


def trace(authoriser: Authoriser, machine: Mapping[str, Any], credentials: Mapping[str, str]) -> None:
    """An execution's traces, with the machine's role. Those that it may not send are missing, as on AWS: logged."""
    for action in TRACING if machine.get("tracingConfiguration", {}).get("enabled") else ():
        denied = authoriser.as_role(credentials, f"xray:{action}", "*")
        if denied:
            log.error("An execution of %s could not be traced: %s", machine.get("name"), denied)


def _check(authoriser: Authoriser, machine: dict[str, Any], properties: Mapping[str, Any]) -> None:
    role = machine["roleArn"]
    source = machine["stateMachineArn"].split(":", 5)[5]
    try:
        credentials = iam.credentials_of(role, "states.amazonaws.com", "StepFunctions", source=source)
    except iam.RoleError:
        raise ValueError(
            f"Neither the global service principal states.amazonaws.com, nor the regional one is "
            f"authorized to assume the provided role. ({role})"
        ) from None
    region, account = machine["stateMachineArn"].split(":")[3:5]
    for rule in sorted({RULES[task] for task in _tasks(json.loads(machine["definition"])) if task in RULES}):
        for action in ("PutTargets", "PutRule", "DescribeRule"):
            denied = authoriser.as_role(
                credentials, f"events:{action}", f"arn:aws:events:{region}:{account}:rule/{rule}"
            )
            if denied:
                raise ValueError(f"'{role}' is not authorized to create managed-rule. ({denied})")
    if properties.get("LoggingConfiguration", {}).get("Destinations"):
        for action in DELIVERY:
            denied = authoriser.as_role(credentials, f"logs:{action}", "*")
            if denied:
                raise ValueError(
                    f"The state machine IAM Role is not authorized to access the Log Destination ({denied})"
                )
    tracing = properties.get("TracingConfiguration", {})
    machine["tracingConfiguration"] = {"enabled": str(tracing.get("Enabled")).lower() == "true"}


def _tasks(part: Any) -> Iterator[str]:
    """The optimised integrations of a definition, such as glue:startJobRun.sync, nested states included."""
    if isinstance(part, dict):
        resource = part.get("Resource")
        if part.get("Type") == "Task" and isinstance(resource, str):
            yield resource.partition(":states:::")[2]
        for inner in part.values():
            yield from _tasks(inner)
    elif isinstance(part, list):
        for inner in part:
            yield from _tasks(inner)
