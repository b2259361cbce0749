"""What Step Functions takes as a Task's Arguments, by botocore's models; at synth, and in the embedded cloud.

A member that a service does not know, lacks or has in another type is found here rather than by a run. Members of
`aws-sdk:` integrations are named as the AWS SDK for Java names them (aws-sdk-java-v2, Utils.unCapitalize).
"""

import re
from collections.abc import Iterator, Mapping
from functools import cache
from typing import Any

import botocore.session
from botocore.model import OperationModel, Shape

# Integrations that call a service whose client botocore names otherwise.
BOTO_NAMES = {
    "sfn": "stepfunctions",
    "cloudwatchlogs": "logs",
    "eventbridge": "events",
    "elasticmapreduce": "emr",
    "states": "stepfunctions",
}
# Optimised integrations that are not called as the API's action is, and what those take that wrap the action's request.
ACTIONS = {"createCluster": "RunJobFlow", "terminateCluster": "TerminateJobFlows", "addStep": "AddJobFlowSteps"}
WRAPPED = {
    "TerminateJobFlows": ("ClusterId", "ExecutionRoleArn"),
    "AddJobFlowSteps": ("ClusterId", "Step", "ExecutionRoleArn"),
}
# All that createCluster is shown to take: the fields that the CDK (aws-cdk-lib 2.275.0, EmrCreateCluster) renders.
CREATE_CLUSTER = frozenset(
    {
        *("Instances", "JobFlowRole", "Name", "ServiceRole", "AdditionalInfo", "Applications", "AutoScalingRole"),
        *("BootstrapActions", "Configurations", "CustomAmiId", "EbsRootVolumeSize", "EbsRootVolumeIops"),
        *("EbsRootVolumeThroughput", "KerberosAttributes", "LogUri", "ManagedScalingPolicy", "ReleaseLabel"),
        *("ScaleDownBehavior", "SecurityConfiguration", "StepConcurrencyLevel", "Tags", "VisibleToAllUsers"),
        "AutoTerminationPolicy",
    }
)
TYPES: Mapping[str, tuple[type, ...]] = {
    **dict.fromkeys(("string", "timestamp"), (str,)),
    **dict.fromkeys(("integer", "long"), (int,)),
    **dict.fromkeys(("float", "double"), (int, float)),
    "boolean": (bool,),
    "structure": (dict,),
    "map": (dict,),
    "list": (list, tuple),
}


def faults(definition: Mapping[str, Any]) -> list[str]:
    """What is wrong with the Arguments of a definition's Tasks, and states that nothing leads to; a sentence each."""
    found = [f"State '{name}' is not reachable." for name in definition["States"] if name not in reached(definition)]
    for name, state in tasks(definition):
        found += [f"State '{name}': {fault}" for fault in faults_of_task(state["Resource"], state.get("Arguments"))]
    return found


def reached(definition: Mapping[str, Any]) -> set[str]:
    """The states that may be gone through. Step Functions takes no other: MISSING_TRANSITION_TARGET."""
    found: set[str] = set()
    coming = [definition["StartAt"]]
    while coming:
        name = coming.pop()
        if name not in found and name in definition["States"]:
            found.add(name)
            coming += onward(definition["States"][name])
    return found


def onward(state: Mapping[str, Any]) -> list[str]:
    """The states that one may lead to, by whatever way."""
    ways = [*state.get("Choices", []), *state.get("Catch", []), state, {"Next": state.get("Default")}]
    return [way["Next"] for way in ways if way.get("Next")]


def tasks(part: Any) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """The Tasks of a definition that call a service, with their names, nested ones too."""
    if isinstance(part, dict):
        for name, state in (part.get("States") or {}).items():
            if state.get("Type") == "Task" and ":states:::" in str(state.get("Resource")):
                yield name, state
            yield from tasks({key: value for key, value in state.items() if key not in ("Arguments", "Parameters")})
        for key in ("ItemProcessor", "Iterator", "Branches"):
            yield from tasks(part.get(key))
    elif isinstance(part, list):
        for inner in part:
            yield from tasks(inner)


def faults_of_task(resource: str, arguments: Any) -> list[str]:
    """What is wrong with one Task's Arguments; nothing if a service is called that is not in botocore."""
    kind, _, action = resource.partition(":states:::")[2].partition(".")[0].rpartition(":")
    sdk = kind.startswith("aws-sdk:")
    service = kind.removeprefix("aws-sdk:")
    operation = _operation(BOTO_NAMES.get(service, service), action)
    if operation is None:
        return [f"the resource {resource} is not a service's action."] if sdk else []
    if is_expression(arguments) or not isinstance(arguments, dict):
        return []
    if not sdk and operation.name in WRAPPED:
        known = WRAPPED[operation.name]
        return [f"Arguments/{key} is not supported by {action}." for key in arguments if key not in known]
    closed = CREATE_CLUSTER if action == "createCluster" else None
    found = [f"Arguments/{key} is not a field of {action}." for key in arguments if closed and key not in closed]
    return found + list(_faults("Arguments", arguments, operation.input_shape)) if operation.input_shape else found


def _operation(service: str, action: str) -> OperationModel | None:
    session = _session()
    if service not in session.get_available_services():
        return None
    model = session.get_service_model(service)
    name = ACTIONS.get(action, action[:1].upper() + action[1:])
    return model.operation_model(name) if name in model.operation_names else None


@cache
def _session() -> Any:
    return botocore.session.get_session()


def _faults(where: str, value: Any, shape: Shape) -> Iterator[str]:
    if is_expression(value) or shape.type_name == "blob":
        return  # of a blob anything becomes JSON
    expected = TYPES[shape.type_name]
    of_type: bool = isinstance(value, expected) and (bool in expected or not isinstance(value, bool))
    if not of_type:
        if not isinstance(value, dict):  # what is known only when deployed, such as {"Ref": ...}
            yield f"{where} must be of type {shape.type_name}, but is {value!r}."
        return
    if shape.type_name == "structure":
        names = {member_name(name): name for name in shape.members}
        for key, item in value.items():
            if key not in names:
                yield f"{where}/{key} is no member of {shape.name}. Members: {', '.join(sorted(names))}."
            else:
                yield from _faults(f"{where}/{key}", item, shape.members[names[key]])
        for name in shape.required_members:
            if member_name(name) not in value:
                yield f"{where}/{member_name(name)} is required but missing."
    elif shape.type_name == "list":
        for index, item in enumerate(value):
            yield from _faults(f"{where}[{index}]", item, shape.member)
    elif shape.type_name == "map":
        for key, item in value.items():
            yield from _faults(f"{where}/{key}", item, shape.value)
    elif shape.type_name == "string" and getattr(shape, "enum", None) and value not in shape.enum:
        yield f"{where} must be one of {', '.join(shape.enum)}, but is {value!r}."


def is_expression(value: Any) -> bool:
    """Whether a field is JSONata."""
    return isinstance(value, str) and value.startswith("{%") and value.endswith("%}")


def member_name(name: str) -> str:
    """A member as states read and write it: ETag, ChecksumCRC32, but DbClusterArn and SsekmsKeyId.

    Java begins members in lower case, a whole acronym with them; Step Functions makes the first letter a capital again.
    """
    leading = re.match(r"[A-Z]+(?=[A-Z][a-z])|[A-Z]+|.", name)
    length = len(leading[0]) if leading else 0
    return name[:1].upper() + name[1:length].lower() + name[length:]
