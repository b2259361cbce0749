"""Roles in the embedded cloud: credentials for whoever wears one, and denials in AWS's words; in the server's process.

dml/local/access/authorise.py decides the calls. Here: credentials of roles, loopback counts as a secure transport (our
buckets refuse plain HTTP), and which resources and condition keys a call is decided on.
"""

import contextvars
import json
import os
import time
from collections.abc import Callable, Mapping
from typing import Any

import cbor2

from dml.local import credentials, hooks
from dml.local.access import keys

SESSION_SECONDS = 12 * 3600
SUBNET = "DmlSubnet"  # in a session of STS: where the machine stands that has these credentials
# Of the request at hand: the access key, what it needs a permission on besides its first resource, S3's own part of it.
caller: contextvars.ContextVar[str] = contextvars.ContextVar("dml_caller")
condition_keys: contextvars.ContextVar[Mapping[str, str]] = contextvars.ContextVar("dml_condition_keys")
object_request: contextvars.ContextVar[keys.Object | None] = contextvars.ContextVar("dml_object", default=None)
_further: contextvars.ContextVar[tuple[str, ...]] = contextvars.ContextVar("dml_further", default=())


class RoleError(Exception):
    """A role that is missing, or that the service may not wear; the message is worded as AWS words it."""


def role_arn(role: str) -> str:
    """The ARN of a role given by ARN or by name."""
    account = hooks.module("core.responses").get_account_id()
    return role if role.startswith("arn:") else f"arn:aws:iam::{account}:role/{role}"


def credentials_of(role: str, service: str, session: str, *, source: str = "", subnet: str = "") -> dict[str, str]:
    """Temporary credentials of `role` (ARN or name) as `service`, such as glue.amazonaws.com, gets them.

    `source`: what the service wears it for, such as job/NAME; the trust policy may have conditions on it.
    `subnet`: of the machine that will use them; its calls then pass that VPC's endpoints.
    Raises RoleError if there is no such role or if its trust policy does not let the service wear it.
    """
    roles, sts = hooks.module("services.iam"), hooks.module("services.sts")
    arn = role_arn(role)
    name = arn.rsplit("/", 1)[-1]
    record, account = roles._roles.get(name), arn.split(":")[4]
    why = "because the role does not exist"
    if record is not None:
        why = _distrust(record.get("AssumeRolePolicyDocument", "{}"), service, account, source)
    if why:
        raise RoleError(f"Service: {service} is not authorized to perform: sts:AssumeRole on resource: {arn} {why}")
    key, secret, token = roles._gen_session_access_key(), roles._gen_secret(), roles._gen_session_token()
    sts.register_session(
        key,
        {
            "Arn": f"arn:aws:sts::{account}:assumed-role/{name}/{session}",
            "UserId": f"{record.get('RoleId', name)}:{session}",
            "SecretAccessKey": secret,
            "SessionToken": token,
            "Expiration": time.time() + SESSION_SECONDS,
            "AccountId": account,
            "PrincipalType": "AssumedRole",
            SUBNET: subnet,
        },
    )
    return {"AWS_ACCESS_KEY_ID": key, "AWS_SECRET_ACCESS_KEY": secret, "AWS_SESSION_TOKEN": token}


def role_of_profile(profile: str) -> str:
    """The ARN of the role in an instance profile, given by name or ARN."""
    name = profile.rsplit("/", 1)[-1]
    record = hooks.module("services.iam")._instance_profiles.get(name)
    if record is None or not record.get("Roles"):
        raise RoleError(f"Invalid InstanceProfile: {name}.")
    return role_arn(record["Roles"][0])


def denial_of_emr(action: str, resource: str, context: Mapping[str, str]) -> Any:
    """EMR's answer to the request at hand if its caller lacks this further right; None if it has it."""
    evaluator, actions = hooks.module("core.iam_evaluator"), hooks.module("core.iam_actions")
    region, service = hooks.module("core.responses").get_region(), action.partition(":")[0]
    who = caller.get(os.environ[credentials.ID])  # nobody has called: a template makes or ends a cluster
    denied = evaluator.enforce(who, action, service, region, resource_arn=resource, service_context=context)
    return denied and actions.access_denied_response("elasticmapreduce", action, denied.principal_arn, "")


def further_resources(service: str) -> tuple[str, ...]:
    """What the request at hand, one of `service`, needs its permission on besides the first resource."""
    return _further.get() if service in RESOURCES else ()


def apply() -> None:
    """Extends ministack's request pipeline."""
    app, evaluator, actions = (hooks.module(name) for name in ("app", "core.iam_evaluator", "core.iam_actions"))
    pin = hooks.existing(evaluator, "pin_request_origin")

    def pin_as_secure(source_ip: str, secure_transport: bool) -> None:
        pin(source_ip, secure_transport or source_ip in ("127.0.0.1", "::1"))

    hooks.replace(evaluator, "pin_request_origin", pin_as_secure)
    hooks.replace(app, "pin_request_origin", pin_as_secure)
    for name in ("_service_principal_matches", "_conditions_met"):
        hooks.existing(evaluator, name)
    for name in ("_roles", "_instance_profiles", "_gen_session_access_key", "_gen_secret", "_gen_session_token"):
        hooks.existing(hooks.module("services.iam"), name)
    hooks.existing(hooks.module("services.sts"), "register_session")
    hooks.existing(hooks.module("services.stepfunctions"), "_tags")
    collectors = hooks.existing(hooks.module("services.tagging"), "_RESOURCE_TAG_COLLECTORS")
    collectors |= {"elasticmapreduce": emr_tags, "ec2": ec2_tags, "states": states_tags}
    _tell_conditions_of_writes(actions)
    _tell_namespace_of_metrics(actions)
    _name_resources(actions)


def _distrust(document: Any, service: str, account: str, source: str) -> str:
    """Why a trust policy does not let a service wear its role; empty if it does."""
    evaluator = hooks.module("core.iam_evaluator")
    region, keyed = hooks.module("core.responses").get_region(), {}
    if source:
        arn = f"arn:aws:{service.partition('.')[0]}:{region}:{account}:{source}"
        keyed = {"aws:sourcearn": arn, "aws:sourceaccount": account}
    asked = evaluator.EvalContext(
        principal_arn=service,
        principal_type="Service",
        principal_account=account,
        action="sts:AssumeRole",
        resource_arn="*",
        region=region,
        service_context=keyed,
    )
    statements = (json.loads(document) if isinstance(document, str) else document).get("Statement", [])
    naming = [
        statement
        for statement in ([statements] if isinstance(statements, dict) else statements)
        if statement.get("Effect") == "Allow"
        and evaluator._service_principal_matches(statement.get("Principal"), service)
    ]
    if not naming:
        return "because its trust policy does not name the service"
    if not any(evaluator._conditions_met(statement.get("Condition", {}), asked) for statement in naming):
        return f"because its trust policy has conditions that do not hold ({keyed or 'no aws:SourceArn'})"
    return ""


def _tell_conditions_of_writes(actions: Any) -> None:
    """S3's conditional writes as condition keys (S3 User Guide, "Enforce conditional writes on S3 buckets")."""
    original = hooks.existing(actions, "s3_service_context")

    def context(iam_action: str, query: Any, path: str = "", headers: Any = None) -> Any:
        names = {name.lower(): value for name, value in (headers or {}).items()}
        conditions = {f"s3:{name}": names[name] for name in ("if-match", "if-none-match") if name in names}
        return {**(original(iam_action, query, path, headers) or {}), **conditions}

    hooks.replace(actions, "s3_service_context", context)


def _tell_namespace_of_metrics(actions: Any) -> None:
    """cloudwatch:namespace of PutMetricData, in whichever of CloudWatch's protocols it comes."""
    original = hooks.existing(actions, "request_tag_context")

    def context(service: str, iam_action: str, body: bytes, params: Any) -> Any:
        found = original(service, iam_action, body, params)
        if iam_action != "cloudwatch:PutMetricData":
            return found
        given = params.get("Namespace")
        if given is None:
            request = json.loads(body) if body[:1] == b"{" else cbor2.loads(body)
            given = request.get("Namespace", "")
        return {**found, "cloudwatch:namespace": given[0] if isinstance(given, list) else given}

    hooks.replace(actions, "request_tag_context", context)


def _name_resources(actions: Any) -> None:
    original = hooks.existing(actions, "extract_resource_arn")

    def extract(
        service: str, method: str, path: str, headers: Any, body: bytes, query: Any, region: str, account: str
    ) -> Any:
        _further.set(())
        condition_keys.set(metric_keys(body) if service == "monitoring" else {})
        object_request.set(keys.Object(method, headers, query) if service == "s3" else None)
        if service in RESOURCES:
            try:
                request = json.loads(body or b"{}")
            except json.JSONDecodeError:
                request = {}
            ends = RESOURCES[service](headers.get("x-amz-target", "").rpartition(".")[2], request)
            if ends:
                first, *further = (f"arn:aws:{service}:{region}:{account}:{end}" for end in ends)
                _further.set(tuple(further))
                return first
        return original(service, method, path, headers, body, query, region, account)

    hooks.replace(actions, "extract_resource_arn", extract)


def glue_resources(action: str, request: Mapping[str, Any]) -> list[str]:
    """What a Glue call needs the permission on, as ends of ARNs, the most telling one first.

    A table is reached through its database and the catalog. Source: Glue guide, "Specifying Glue resource ARNs".
    """
    name = request.get("Name") or request.get("JobName") or request.get("CrawlerName")
    for kind in ("Crawler", "Job"):
        if kind in action:
            return [f"{kind.lower()}/{name}"] if name else []
    database = request.get("DatabaseName")
    if ("Table" in action or "Partition" in action) and database:
        table = request.get("TableName") or request.get("Name") or request.get("TableInput", {}).get("Name") or "*"
        return [f"table/{database}/{table}", f"database/{database}", "catalog"]
    if "Database" in action:
        database = request.get("Name") or request.get("DatabaseInput", {}).get("Name")
        return [f"database/{database}", "catalog"] if database else ["catalog"]
    return []


def emr_resources(_action: str, request: Mapping[str, Any]) -> list[str]:
    """The clusters of AddTags, RemoveTags and TerminateJobFlows; ministack knows the others."""
    clusters = request.get("JobFlowIds") or ([request["ResourceId"]] if "ResourceId" in request else [])
    return [f"cluster/{cluster}" for cluster in clusters]


def emr_tags() -> list[tuple[str, list[dict[str, str]]]]:
    """The tags of each cluster by its ARN, for conditions on aws:ResourceTag."""
    clusters = hooks.module("services.emr")._clusters
    return [(cluster["ClusterArn"], cluster.get("Tags", [])) for cluster in clusters.values()]


def ec2_tags() -> list[tuple[str, list[dict[str, str]]]]:
    """The tags of subnets, security groups and VPCs by their ARNs."""
    ec2, responses = hooks.module("services.ec2"), hooks.module("core.responses")
    kinds = {"subnet": "subnet", "sg": "security-group", "vpc": "vpc"}
    prefix = f"arn:aws:ec2:{responses.get_region()}:{responses.get_account_id()}"
    return [
        (f"{prefix}:{kinds[name.partition('-')[0]]}/{name}", tags)
        for name, tags in ec2._tags.items()
        if name.partition("-")[0] in kinds
    ]


def states_tags() -> list[tuple[str, list[dict[str, str]]]]:
    """The tags of each state machine by its ARN (Service Authorization Reference: stateMachine has aws:ResourceTag)."""
    machines = hooks.module("services.stepfunctions")
    return [
        (arn, [{"Key": tag["key"], "Value": tag["value"]} for tag in machines._tags.get(arn, ())])
        for arn in machines._state_machines
    ]


def ssm_resources(_action: str, request: Mapping[str, Any]) -> list[str]:
    """Every parameter of GetParameters, and the path of GetParametersByPath; ministack knows the others."""
    names = request.get("Names") or ([request["Path"]] if "Path" in request else [])
    return [f"parameter/{name.strip('/')}" for name in names]


def metric_keys(body: bytes) -> dict[str, str]:
    """The condition keys of a call of CloudWatch in the JSON protocol, which boto3 speaks to it."""
    try:
        namespace = json.loads(body or b"{}").get("Namespace")
    except ValueError:
        return {}
    return {"cloudwatch:namespace": namespace} if namespace else {}


RESOURCES: dict[str, Callable[[str, Mapping[str, Any]], list[str]]] = {
    "glue": glue_resources,
    "elasticmapreduce": emr_resources,
    "ssm": ssm_resources,
}
