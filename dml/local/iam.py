"""Roles in the embedded cloud: credentials for whoever wears one, and denials in AWS's words; in the server's process.

ministack's evaluator decides every call that comes over HTTP. What is added here: loopback counts as a secure transport
(our buckets refuse plain HTTP), calls are checked on the resources that AWS checks, and a denial names the resource.
"""

import contextvars
import functools
import json
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

import boto3
import cbor2
from botocore.config import Config

from dml.local import hooks
from dml.local.place import ROOT, Place

SESSION_SECONDS = 12 * 3600
_clients_lock = threading.Lock()  # boto3 clients may be shared between threads, but not made by several at once
# Of the request at hand: the access key, what it needs a permission on besides its first resource, what was denied.
_caller: contextvars.ContextVar[str] = contextvars.ContextVar("dml_caller", default=ROOT["AWS_ACCESS_KEY_ID"])
_further: contextvars.ContextVar[tuple[str, ...]] = contextvars.ContextVar("dml_further", default=())
_denied_on: contextvars.ContextVar[str] = contextvars.ContextVar("dml_denied_on", default="")


class RoleError(Exception):
    """A role that is missing, or that the service may not wear; the message is worded as AWS words it."""


def client(place: Place, service: str, credentials: Mapping[str, str] = ROOT) -> Any:
    """A boto3 client of the embedded cloud itself, over HTTP, so that every call is authorised like anybody's."""
    with _clients_lock:
        return _session().client(
            service,
            endpoint_url=place.endpoint,
            region_name=place.job_environment()["AWS_REGION"],
            aws_access_key_id=credentials["AWS_ACCESS_KEY_ID"],
            aws_secret_access_key=credentials["AWS_SECRET_ACCESS_KEY"],
            aws_session_token=credentials.get("AWS_SESSION_TOKEN"),
            config=Config(retries={"max_attempts": 1}, proxies={}, parameter_validation=True),
        )


@functools.cache
def _session() -> boto3.Session:
    return boto3.Session()


def role_arn(role: str) -> str:
    """The ARN of a role given by ARN or by name."""
    account = hooks.module("core.responses").get_account_id()
    return role if role.startswith("arn:") else f"arn:aws:iam::{account}:role/{role}"


def credentials_of(role: str, service: str, session: str) -> dict[str, str]:
    """Temporary credentials of `role` (ARN or name) as `service`, such as glue.amazonaws.com, gets them.

    Raises RoleError if there is no such role or if its trust policy does not let the service wear it.
    """
    roles, sts = hooks.module("services.iam"), hooks.module("services.sts")
    arn = role_arn(role)
    name = arn.rsplit("/", 1)[-1]
    record = roles._roles.get(name)
    if record is None or not _trusts(record.get("AssumeRolePolicyDocument", "{}"), service):
        raise RoleError(
            f"Service: {service} is not authorized to perform: sts:AssumeRole on resource: {arn} "
            + (
                "because the role does not exist"
                if record is None
                else "because its trust policy does not name the service"
            )
        )
    account = arn.split(":")[4]
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


def pass_role_denial(role: str, service: str) -> Any:
    """The denial of the current request if its caller may not pass `role` to `service`; None if it may."""
    evaluator, actions = hooks.module("core.iam_evaluator"), hooks.module("core.iam_actions")
    region = hooks.module("core.responses").get_region()
    context = {"iam:passedtoservice": service}
    denied = evaluator.enforce(_caller.get(), "iam:PassRole", "iam", region, resource_arn=role, service_context=context)
    if denied is None:
        return None
    return actions.access_denied_response(
        "elasticmapreduce",
        "iam:PassRole",
        denied.principal_arn,
        "",
        resource_arn=role,
        explicit_deny=denied.decision == "Deny",
    )


def apply() -> None:
    """Extends ministack's request pipeline."""
    app, evaluator, actions = (hooks.module(name) for name in ("app", "core.iam_evaluator", "core.iam_actions"))
    pin = hooks.existing(evaluator, "pin_request_origin")

    def pin_as_secure(source_ip: str, secure_transport: bool) -> None:
        pin(source_ip, secure_transport or source_ip in ("127.0.0.1", "::1"))

    hooks.replace(evaluator, "pin_request_origin", pin_as_secure)
    hooks.replace(app, "pin_request_origin", pin_as_secure)
    hooks.existing(evaluator, "_service_principal_matches")
    for name in ("_roles", "_instance_profiles", "_gen_session_access_key", "_gen_secret", "_gen_session_token"):
        hooks.existing(hooks.module("services.iam"), name)
    hooks.existing(hooks.module("services.sts"), "register_session")
    hooks.existing(hooks.module("services.tagging"), "_RESOURCE_TAG_COLLECTORS")["elasticmapreduce"] = emr_tags
    _tell_conditions_of_writes(actions)
    _tell_namespace_of_metrics(actions)
    _name_resources(actions)
    _check_every_resource(evaluator)
    _name_denied_resource(actions)


def _trusts(document: Any, service: str) -> bool:
    matches = hooks.module("core.iam_evaluator")._service_principal_matches
    statements = (json.loads(document) if isinstance(document, str) else document).get("Statement", [])
    return any(
        statement.get("Effect") == "Allow" and matches(statement.get("Principal"), service)
        for statement in ([statements] if isinstance(statements, dict) else statements)
    )


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


def ssm_resources(_action: str, request: Mapping[str, Any]) -> list[str]:
    """Every parameter of GetParameters, and the path of GetParametersByPath; ministack knows the others."""
    names = request.get("Names") or ([request["Path"]] if "Path" in request else [])
    return [f"parameter/{name.strip('/')}" for name in names]


RESOURCES: dict[str, Callable[[str, Mapping[str, Any]], list[str]]] = {
    "glue": glue_resources,
    "elasticmapreduce": emr_resources,
    "ssm": ssm_resources,
}


def _check_every_resource(evaluator: Any) -> None:
    original = hooks.existing(evaluator, "enforce")

    def enforce(
        access_key_id: str,
        iam_action: str,
        service: str,
        region: str,
        resource_arn: str = "*",
        service_context: Any = None,
    ) -> Any:
        _caller.set(access_key_id)
        further = _further.get() if service in RESOURCES else ()
        _denied_on.set("")
        for arn in (resource_arn, *further):
            denied = original(
                access_key_id, iam_action, service, region, resource_arn=arn, service_context=service_context
            )
            if denied is not None:
                _denied_on.set(arn)
                return denied
        return None

    hooks.replace(evaluator, "enforce", enforce)


def _name_denied_resource(actions: Any) -> None:
    original = hooks.existing(actions, "access_denied_response")
    word = hooks.existing(actions, "identity_denial_message")

    def respond(service: str, action: str, principal_arn: str, request_id: str, **given: Any) -> Any:
        if not given.get("message") and not given.get("error_code") and not given.get("resource_policy_arn"):
            resource = _denied_on.get() or given.get("resource_arn", "*")
            resource = f'"{resource}"' if service == "s3" else resource
            given["message"] = word(action, principal_arn, resource, given.get("explicit_deny", False))
        return original(service, action, principal_arn, request_id, **given)

    hooks.replace(actions, "access_denied_response", respond)
