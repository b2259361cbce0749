"""What AWS refuses for its size, number or name, and ministack takes; in the server's process.

Two doors: a request over HTTP is held to botocore's model of its operation and to the service's quotas; a resource of a
template, which ministack makes without a request, to CloudFormation's schema of its type and to the same quotas.
Sources: IAM User Guide, "IAM and AWS STS quotas" (white space is not counted); Systems Manager guide, "Managing
parameter tiers"; SNS API reference, CreateTopic and Publish; EventBridge
guide, "Quotas"; Step Functions API reference, CreateStateMachine and StartExecution; Tagging guide, "Limits", and EC2
API reference, "Error codes" (50 tags a resource); S3 guide, "Adding a bucket policy" (20 KB; as it is sent, without
white space: MIT-LCP/physionet-build#2094). Words: errors that users of AWS have reported on GitHub (IAM:
amplify-cli#4369, kubeflow/dashboard#29, aws/eks-hybrid#741; SSM: aws-sdk-net#3157); S3's for a long policy are not
known.
"""

import functools
import json
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple
from urllib.parse import parse_qs

import botocore.session
import cbor2
from botocore.model import ServiceModel, Shape

from dml.local import hooks
from dml.local.services.constraints import faults, given_name, replaced, schema_faults, told

# ministack's module, and the name of the service's model. S3 and EC2 have hardly a constraint in theirs.
SERVICES = {
    "budgets": "budgets",
    "cloudformation": "cloudformation",
    "cloudwatch": "cloudwatch",
    "cloudwatch_logs": "logs",
    "emr": "emr",
    "eventbridge": "events",
    "glue": "glue",
    "iam": "iam",
    "kms": "kms",
    "sns": "sns",
    "ssm": "ssm",
    "stepfunctions": "stepfunctions",
    "sts": "sts",
}
# What a service calls a request that its model does not allow; Logs by itself (fluent-plugin-cloudwatch-logs#223), the
# others by their protocol.
VALIDATION = {"logs": "InvalidParameterException", "query": "ValidationError", "json": "ValidationException"}
MANAGED_POLICY, INLINE_POLICIES, TRUST_POLICY, POLICIES_PER_ROLE = 6144, 10240, 2048, 10
PARAMETER_BYTES = {"Standard": 4096, "Advanced": 8192}
MESSAGE_BYTES, SUBJECT_CHARACTERS = 256 * 1024, 100
TARGETS_PER_RULE = 5
TAGS, BUCKET_POLICY = 50, 20 * 1024
TOPIC = re.compile(r"[A-Za-z0-9_-]{1,256}(?<!\.fifo)|[A-Za-z0-9_-]{1,251}\.fifo")
NO_NAME_OF_STATES = re.compile(r'[\s<>{}\[\]?*"#%\\^|~`$&,;:/\x00-\x1f\x7f-\x9f]')


class Refusal(NamedTuple):
    """What AWS answers."""

    code: str
    message: str
    status: int = 400


class Limits:
    """The two doors."""

    def __init__(self) -> None:
        self._models = botocore.session.get_session()
        self._responses = hooks.module("core.responses")
        self._roles = hooks.module("services.iam")

    def apply(self) -> None:
        """Puts the checks before the services and before CloudFormation's handlers; after all other extensions."""
        for name in ("error_response_json", "error_response_xml"):
            hooks.existing(self._responses, name)
        hooks.existing(self._roles, "_roles")
        for name in ("_targets", "_rule_key"):
            hooks.existing(hooks.module("services.eventbridge"), name)
        for module, service in SERVICES.items():
            owner = hooks.module(f"services.{module}")
            proceed = hooks.existing(owner, "handle_request")
            hooks.replace(owner, "handle_request", functools.partial(self._held, service, proceed))
        stacks = hooks.module("services.cloudformation.stacks")
        self._provision = hooks.replace(stacks, "_provision_resource", self._provision_held)
        self._update = hooks.replace(stacks, "_update_resource", self._update_held)

    # --- requests ---

    async def _held(
        self, service: str, proceed: Any, method: str, path: str, headers: Any, body: bytes, query: Any
    ) -> Any:
        model = self._models.get_service_model(service)
        action, given, protocol = _read(model, path, headers, body, query)
        refused = self._refused(model, action, given, protocol) if action in model.operation_names else None
        if refused:
            return self._answer(refused, model, protocol)
        return await proceed(method, path, headers, body, query)

    def _refused(self, model: ServiceModel, action: str, given: Mapping[str, Any], protocol: str) -> Refusal | None:
        shape = model.operation_model(action).input_shape
        wrong = list(faults(given, shape)) if shape else []
        if wrong:
            compatible = "awsQueryCompatible" in model.metadata  # speaks another protocol now, with the codes of query
            form = "query" if protocol == "query" or compatible else "json"
            return Refusal(VALIDATION.get(model.service_name, VALIDATION[form]), told(wrong))
        quota = QUOTAS.get(f"{model.service_name}:{action}")
        return quota(self._roles._roles, given) if quota else None

    def _answer(self, refused: Refusal, model: ServiceModel, protocol: str) -> Any:
        if protocol == "query":
            namespace = model.metadata.get("xmlNamespace", "")
            return self._responses.error_response_xml(refused.code, refused.message, refused.status, namespace)
        if protocol == "cbor":
            answer = cbor2.dumps({"__type": refused.code, "message": refused.message})
            return refused.status, {"Content-Type": "application/cbor", "smithy-protocol": "rpc-v2-cbor"}, answer
        return self._responses.error_response_json(refused.code, refused.message, refused.status)

    # --- templates ---

    def _provision_held(self, kind: str, logical_id: str, properties: Mapping[str, Any], stack: str) -> Any:
        self._check_resource(kind, logical_id, properties, {}, "")
        return self._provision(kind, logical_id, properties, stack)

    def _update_held(self, kind: str, physical_id: str, old: Any, new: Any, stack: str, *rest: Any) -> Any:
        if old != new:
            _check_replacement(kind, old, new)
            self._check_resource(kind, str(rest[0]) if rest else physical_id, new, old, physical_id)
        return self._update(kind, physical_id, old, new, stack, *rest)

    def _check_resource(self, kind: str, logical_id: str, new: Any, old: Any, physical_id: str) -> None:
        """Raises ValueError, the reason of the resource's failure, for what AWS does not make."""
        wrong = schema_faults(kind, new)
        if wrong:
            listed = "\n".join(wrong)
            raise ValueError(f"Properties validation failed for resource {logical_id} with message:\n{listed}")
        quota = QUOTAS_OF_RESOURCES.get(kind)
        refused = _tags(new) or (quota(self._roles._roles, new, old, physical_id) if quota else None)
        if refused:
            service = kind.split("::")[1].capitalize()
            raise ValueError(
                f'Resource handler returned message: "{refused.message} (Service: {service}, Status Code: '
                f'{refused.status})" (HandlerErrorCode: {HANDLER_CODES[refused.code]})'
            )


def _check_replacement(kind: str, old: Mapping[str, Any], new: Mapping[str, Any]) -> None:
    """Raises ValueError where a new resource would have to take the name that the old one still has.

    Source: CloudFormation guide, "Name type" and "Troubleshooting": what is replaced is made before the old one goes.
    """
    name = given_name(kind, new)
    if name and name == given_name(kind, old) and replaced(kind, old, new):
        raise ValueError(
            "CloudFormation cannot update a stack when a custom-named resource requires replacing. "
            f"Rename {name} and update the stack again."
        )


# --- reading requests ---


def _read(model: ServiceModel, path: str, headers: Any, body: bytes, query: Any) -> tuple[str, dict[str, Any], str]:
    """(action, its members, protocol: json, cbor or query) of a request; nothing of one that is not readable."""
    target, kind = headers.get("x-amz-target", ""), headers.get("content-type", "")
    if "cbor" in kind or "cbor" in headers.get("smithy-protocol", ""):
        found = re.search(r"/operation/(\w+)", path)
        return found[1] if found else "", _members(lambda: cbor2.loads(body or b"\xa0")), "cbor"
    if target:
        return target.rpartition(".")[2], _members(lambda: json.loads(body or b"{}")), "json"
    form = parse_qs(body.decode("utf-8", errors="replace"), keep_blank_values=True) | dict(query)
    flat = {name: values[0] if isinstance(values, list) else values for name, values in form.items()}
    action = flat.get("Action", "")
    shape = model.operation_model(action).input_shape if action in model.operation_names else None
    return action, _from_query(flat, shape, "") if shape else {}, "query"


def _members(load: Callable[[], Any]) -> dict[str, Any]:
    """Of a request's body; none if it cannot be read, which is the service's to say."""
    try:
        found = load()
    except (ValueError, cbor2.CBORDecodeError):
        return {}
    return found if isinstance(found, dict) else {}


def _from_query(flat: Mapping[str, str], shape: Shape, prefix: str) -> Any:
    """A value of the query protocol, whose members are named by their paths; None if there is none."""
    if shape.type_name == "structure":
        dot = f"{prefix}." if prefix else ""
        found = {
            name: _from_query(flat, member, f"{dot}{member.serialization.get('name', name)}")
            for name, member in shape.members.items()
        }
        return {name: value for name, value in found.items() if value is not None} or (None if prefix else {})
    if shape.type_name in ("list", "map"):
        middle = "" if shape.serialization.get("flattened") else ".entry" if shape.type_name == "map" else ".member"
        place = re.compile(rf"{re.escape(prefix + middle)}\.(\d+)")
        numbers = sorted({int(match[1]) for name in flat if (match := place.match(name))})
        if not numbers:
            return None
        each = [f"{prefix}{middle}.{number}" for number in numbers]
        if shape.type_name == "list":
            return [_from_query(flat, shape.member, one) for one in each]
        return {flat.get(f"{one}.key", ""): _from_query(flat, shape.value, f"{one}.value") for one in each}
    return flat.get(prefix)


# --- quotas ---


def document_size(document: Any) -> int:
    """A policy's characters as IAM counts them: without the white space between them."""
    if isinstance(document, str):
        try:
            document = json.loads(document)
        except ValueError:
            return len(re.sub(r"\s", "", document))
    return len(json.dumps(document, separators=(",", ":"), ensure_ascii=False))


def _exceeded(quota: str, most: int) -> Refusal:
    return Refusal("LimitExceeded", f"Cannot exceed quota for {quota}: {most}", 409)


def _managed_policy(_roles: Any, given: Mapping[str, Any]) -> Refusal | None:
    long = document_size(given.get("PolicyDocument", "")) > MANAGED_POLICY
    return _exceeded("PolicySize", MANAGED_POLICY) if long else None


def _trust_policy(_roles: Any, given: Mapping[str, Any]) -> Refusal | None:
    long = document_size(given.get("AssumeRolePolicyDocument") or given.get("PolicyDocument", "")) > TRUST_POLICY
    return _exceeded("ACLSizePerRole", TRUST_POLICY) if long else None


def _inline_policy(roles: Any, given: Mapping[str, Any]) -> Refusal | None:
    name = given.get("RoleName", "")
    return _inline(roles, name, {given.get("PolicyName", ""): given.get("PolicyDocument", "")})


def _inline(roles: Any, role: str, fresh: Mapping[str, Any], gone: Iterable[str] = ()) -> Refusal | None:
    """All inline policies of a role count together."""
    kept = {
        name: document
        for name, document in ((roles.get(role) or {}).get("InlinePolicies") or {}).items()
        if name not in gone
    }
    if sum(map(document_size, ({**kept, **fresh}).values())) <= INLINE_POLICIES:
        return None
    return Refusal("LimitExceeded", f"Maximum policy size of {INLINE_POLICIES} bytes exceeded for role {role}", 409)


def _attachment(roles: Any, given: Mapping[str, Any]) -> Refusal | None:
    attached = {*(roles.get(given.get("RoleName")) or {}).get("AttachedPolicies", []), given.get("PolicyArn")}
    return _exceeded("PoliciesPerRole", POLICIES_PER_ROLE) if len(attached) > POLICIES_PER_ROLE else None


def _parameter(_roles: Any, given: Mapping[str, Any]) -> Refusal | None:
    tier, size = given.get("Tier") or "Standard", len(str(given.get("Value", "")).encode())
    if size <= PARAMETER_BYTES["Standard"] or (tier != "Standard" and size <= PARAMETER_BYTES["Advanced"]):
        return None
    if tier == "Standard":
        return Refusal(
            "ValidationException",
            "Standard tier parameters support a maximum parameter value of 4096 characters. To create a larger "
            "parameter value, upgrade the parameter to use the advanced-parameter tier. For more information, see "
            "https://docs.aws.amazon.com/systems-manager/latest/userguide/parameter-store-advanced-parameters.html",
        )
    return Refusal(
        "ValidationException", "Advanced tier parameters support a maximum parameter value of 8192 characters."
    )


def _topic(_roles: Any, given: Mapping[str, Any]) -> Refusal | None:
    return (
        None if TOPIC.fullmatch(given.get("Name", "")) else Refusal("InvalidParameter", "Invalid parameter: Topic Name")
    )


def _message(_roles: Any, given: Mapping[str, Any]) -> Refusal | None:
    subject = given.get("Subject")
    if subject is not None and (not 0 < len(subject) < SUBJECT_CHARACTERS or not subject.isascii() or "\n" in subject):
        return Refusal("InvalidParameter", "Invalid parameter: Subject")
    if len(given.get("Message", "").encode()) > MESSAGE_BYTES:
        return Refusal("InvalidParameter", "Invalid parameter: Message too long")
    return None


def _targets(_roles: Any, given: Mapping[str, Any]) -> Refusal | None:
    events = hooks.module("services.eventbridge")
    bus = given.get("EventBusName") or "default"
    there = events._targets.get(events._rule_key(given.get("Rule"), bus.rpartition("/")[2]), [])
    return _too_many_targets({one.get("Id") for one in (*there, *given.get("Targets", []))})


def _too_many_targets(targets: set[Any]) -> Refusal | None:
    if len(targets) <= TARGETS_PER_RULE:
        return None
    return Refusal("LimitExceededException", "The requested resource exceeds the maximum number allowed.")


def _name_of_states(_roles: Any, given: Mapping[str, Any]) -> Refusal | None:
    name = given.get("name")
    return Refusal("InvalidName", f"Invalid Name: '{name}'") if name and NO_NAME_OF_STATES.search(name) else None


QUOTAS: dict[str, Callable[[Any, Mapping[str, Any]], Refusal | None]] = {
    "events:PutTargets": _targets,
    "iam:AttachRolePolicy": _attachment,
    "iam:CreatePolicy": _managed_policy,
    "iam:CreatePolicyVersion": _managed_policy,
    "iam:CreateRole": _trust_policy,
    "iam:PutRolePolicy": _inline_policy,
    "iam:UpdateAssumeRolePolicy": _trust_policy,
    "sns:CreateTopic": _topic,
    "sns:Publish": _message,
    "ssm:PutParameter": _parameter,
    "stepfunctions:CreateStateMachine": _name_of_states,
    "stepfunctions:StartExecution": _name_of_states,
}


def _role_resource(roles: Any, new: Mapping[str, Any], old: Mapping[str, Any], physical_id: str) -> Refusal | None:
    policies = {one["PolicyName"]: one["PolicyDocument"] for one in new.get("Policies") or []}
    former = [one["PolicyName"] for one in old.get("Policies") or []]
    attached = set(new.get("ManagedPolicyArns") or [])
    return (
        _trust_policy(roles, new)
        or _inline(roles, physical_id or new.get("RoleName", ""), policies, former)
        or (_exceeded("PoliciesPerRole", POLICIES_PER_ROLE) if len(attached) > POLICIES_PER_ROLE else None)
    )


def _inline_resource(roles: Any, new: Mapping[str, Any], old: Mapping[str, Any], _physical_id: str) -> Refusal | None:
    fresh, gone = {new["PolicyName"]: new["PolicyDocument"]}, [old.get("PolicyName", "")]
    return next(filter(None, (_inline(roles, role, fresh, gone) for role in new.get("Roles") or [])), None)


def _managed_resource(roles: Any, new: Mapping[str, Any], _old: Any, physical_id: str) -> Refusal | None:
    asked = ({"RoleName": role, "PolicyArn": physical_id or "the new one"} for role in new.get("Roles") or [])
    return _managed_policy(roles, new) or next(filter(None, (_attachment(roles, one) for one in asked)), None)


def _rule_resource(_roles: Any, new: Mapping[str, Any], _old: Any, _physical_id: str) -> Refusal | None:
    return _too_many_targets({one.get("Id") for one in new.get("Targets") or []})


def _topic_resource(roles: Any, new: Mapping[str, Any], _old: Any, _physical_id: str) -> Refusal | None:
    return _topic(roles, {"Name": new["TopicName"]}) if "TopicName" in new else None


def _tags(new: Mapping[str, Any]) -> Refusal | None:
    """The schemas of many types, all of EC2's and S3's among them, do not say how many tags there may be."""
    if len(new.get("Tags") or []) <= TAGS:
        return None
    return Refusal("TagLimitExceeded", "The maximum number of Tags for a resource has been reached.")


def _bucket_policy(_roles: Any, new: Mapping[str, Any], _old: Any, _physical_id: str) -> Refusal | None:
    if document_size(new.get("PolicyDocument", {})) <= BUCKET_POLICY:
        return None
    return Refusal("MalformedPolicy", f"The bucket policy is longer than {BUCKET_POLICY} bytes.")


def _parameter_resource(roles: Any, new: Mapping[str, Any], _old: Any, _physical_id: str) -> Refusal | None:
    return _parameter(roles, new)


# What a resource's handler makes of the service's error (AWS: "Handler error codes").
HANDLER_CODES = {
    "InvalidParameter": "InvalidRequest",
    "LimitExceeded": "ServiceLimitExceeded",
    "LimitExceededException": "ServiceLimitExceeded",
    "MalformedPolicy": "InvalidRequest",
    "TagLimitExceeded": "ServiceLimitExceeded",
    "ValidationException": "InvalidRequest",
}
QUOTAS_OF_RESOURCES: dict[str, Callable[[Any, Any, Any, str], Refusal | None]] = {
    "AWS::Events::Rule": _rule_resource,
    "AWS::IAM::ManagedPolicy": _managed_resource,
    "AWS::IAM::Policy": _inline_resource,
    "AWS::IAM::Role": _role_resource,
    "AWS::S3::BucketPolicy": _bucket_policy,
    "AWS::SNS::Topic": _topic_resource,
    "AWS::SSM::Parameter": _parameter_resource,
}
