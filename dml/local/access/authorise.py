"""Decides and records every call in the embedded cloud: caller's policies, resource's, VPC endpoint's, key's.

ministack's evaluator decides by the caller's and the resource's policies. Around it stand here: the endpoint that a
call from a VPC passes (dml/local/access/endpoints.py), the KMS keys that a call uses (dml/local/access/keys.py), what a
service does with a role without a call over HTTP (`as_role`), and the record of it all (dml/local/access/calls.py).
"""

import contextvars
import json
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from dml.local import hooks
from dml.local.access import endpoints, iam, keys
from dml.local.access.calls import Call, Calls, policy_name, principal, statement_name, statements
from dml.local.access.variables import version

UNREACHABLE = "Unreachable"
BY_RESOURCE = "(the resource's policy)"


class Denial(NamedTuple):
    """What the request at hand was denied, for the answer."""

    action: str
    resource: str
    because: str

    def said(self, caller: str) -> str:
        """In AWS's words."""
        if self.because.startswith("Connect timeout"):
            return self.because
        return f"User: {caller} is not authorized to perform: {self.action} on resource: {self.resource} {self.because}"


class Asked(NamedTuple):
    """One question to the policies."""

    access_key: str
    action: str
    service: str
    region: str
    resource: str
    context: Mapping[str, Any]


_noted: contextvars.ContextVar[list[Any] | None] = contextvars.ContextVar("dml_noted", default=None)
_denial: contextvars.ContextVar[Denial | None] = contextvars.ContextVar("dml_denial", default=None)


class Authoriser:
    """Stands in the place of ministack's enforcement."""

    def __init__(self, calls: Calls) -> None:
        self._calls = calls
        self._evaluator = hooks.module("core.iam_evaluator")
        self._actions = hooks.module("core.iam_actions")
        self._sts = hooks.module("services.sts")

    def apply(self) -> None:
        """Extends ministack's evaluator and its answers."""
        for name in ("resolve_principal", "resolve_caller_identity", "evaluate_resource_policy", "EvalContext"):
            hooks.existing(self._evaluator, name)
        for service, names in {
            "ec2": ("_subnets", "_route_tables", "_vpc_endpoints"),
            "kms": ("_grants", "_resolve_key"),
            "s3": ("_buckets", "_bucket_encryption", "_bucket_default_sse_headers", "_multipart_uploads"),
            "secretsmanager": ("_resolve",),
            "sns": ("_topics",),
        }.items():
            for name in names:
                hooks.existing(hooks.module(f"services.{service}"), name)
        self._by_policies = hooks.replace(self._evaluator, "enforce", self.enforce)
        self._evaluate = hooks.replace(self._evaluator, "evaluate", self.evaluate)
        hooks.replace(self._evaluator, "_gather_role_policies", self.role_policies)
        self._respond = hooks.replace(self._actions, "access_denied_response", self.respond)
        table = hooks.module("services.cloudformation.provisioners")._RESOURCE_HANDLERS
        keys.check_log_groups(table)
        keys.encrypt_buckets(table)

    def enforce(
        self,
        access_key_id: str,
        iam_action: str,
        service: str,
        region: str,
        resource_arn: str = "*",
        service_context: Any = None,
    ) -> Any:
        """Decides a call over HTTP on all that AWS decides it on; None, or what denies it."""
        iam.caller.set(access_key_id)
        _denial.set(None)
        context = {**(service_context or {}), **iam.condition_keys.get({})}
        for arn in (resource_arn, *iam.further_resources(service)):
            denied = self._decide(Asked(access_key_id, iam_action, service, region, arn, context))
            if denied is not None:
                return denied
        if _looks_for_nothing(iam_action, resource_arn):
            # Whoever may not list a bucket is not told that it lacks an object (S3 API reference, GetObject).
            bucket = resource_arn.partition("/")[0]
            denied = self._decide(Asked(access_key_id, "s3:ListBucket", service, region, bucket, {}))
            if denied is not None:
                return denied
        for use in self._key_uses(iam_action, resource_arn, region):
            asked = Asked(access_key_id, use.action, "kms", region, use.key, use.context)
            denied = self._decide(asked, by_service=True)
            if denied is not None:
                return denied
        return None

    def as_role(
        self, credentials: Mapping[str, str], action: str, resource: str, context: Mapping[str, Any] | None = None
    ) -> str:
        """Decides what a service does with a role it wears, where nothing is called over HTTP; the denial, or ""."""
        region = hooks.module("core.responses").get_region()
        key = credentials["AWS_ACCESS_KEY_ID"]
        asked = Asked(key, action, action.partition(":")[0], region, resource, context or {})
        denied = contextvars.copy_context().run(self._decide_alone, asked)
        return denied.said(self._caller(key)) if denied else ""

    def evaluate(self, *arguments: Any) -> Any:
        """ministack's evaluation of one set of policies, noted."""
        result = self._evaluate(*arguments)
        noted = _noted.get()
        if noted is not None:
            noted.append(result)
        return result

    def role_policies(self, role: str, account: str) -> list[list[Any]]:
        """A role's policies, whose statements know what they are called: POLICY/SID."""
        record = hooks.module("services.iam")._roles.get_scoped(account, None, role) or {}
        documents = list((record.get("InlinePolicies") or {}).items())
        for arn in record.get("AttachedPolicies", []):
            documents.append((policy_name(arn), self._evaluator._resolve_managed_policy_document(arn, account) or {}))
        return [
            self._evaluator.parse_policy_document(
                {
                    "Version": version(document),
                    "Statement": [{**one, "Sid": f"{name}/{statement_name(one)}"} for one in statements(document)],
                }
            )
            for name, document in documents
        ]

    def respond(self, service: str, action: str, principal_arn: str, request_id: str, **given: Any) -> Any:
        """A denial in AWS's words, which name the resource and the kind of policy."""
        denial = _denial.get()
        plain = not given.get("message") and not given.get("error_code") and not given.get("resource_policy_arn")
        if denial and plain:
            shown = f'"{denial.resource}"' if denial.resource.startswith("arn:aws:s3:::") else denial.resource
            given["message"] = denial._replace(resource=shown).said(principal_arn)
        status, headers, body = self._respond(service, action, principal_arn, request_id, **given)
        if denial and plain and service in ("ssm", "logs"):  # ministack words these two itself, always
            body = json.dumps(json.loads(body) | {"Message": given["message"]}).encode()
        return status, headers, body

    def _decide_alone(self, asked: Asked) -> Denial | None:
        # The request at hand, if any, was signed by somebody else.
        self._evaluator._signed_request.set(None)
        self._evaluator._anonymous.set(False)
        _denial.set(None)
        return _denial.get() if self._decide(asked, by_service=True) is not None else None

    def _decide(self, asked: Asked, *, by_service: bool = False) -> Any:
        """One decision. `by_service`: a service asks for the caller, from outside of the caller's network."""
        session = self._sts._sessions.get(asked.access_key) or {}
        subnet = "" if by_service else session.get(iam.SUBNET, "")
        way = endpoints.way(subnet, asked.service) if subnet else None
        noted: list[Any] = []
        token = _noted.set(noted)
        try:
            context = {**asked.context, **(way.context if way else {})}
            denied = self._by_policies(
                asked.access_key, asked.action, asked.service, asked.region, asked.resource, context
            )
        finally:
            _noted.reset(token)
        if denied is not None and not hasattr(denied, "decision"):
            return denied  # not authenticated: nobody in particular has called
        caller = self._caller(asked.access_key)
        decision, statement, because = _grounds(noted, denied, asked.action)
        if decision == "ImplicitDeny" and asked.service == "kms":
            granted = keys.grant(caller, asked.action, asked.resource, asked.context)
            if granted:
                denied, decision, statement = None, "Allow", f"grant/{granted}"
        if denied is None and way is not None:
            denied, decision, because = self._pass(way, asked, caller, decision, because)
        self._calls.record(Call(principal(caller), asked.action, asked.resource, decision, statement))
        if denied is not None:
            _denial.set(Denial(asked.action, asked.resource, because))
        return denied

    def _pass(self, way: endpoints.Way, asked: Asked, caller: str, decision: str, because: str) -> tuple[Any, str, str]:
        """What a call that the policies allow meets on its way out of its subnet."""
        result = self._evaluator.EvalResult
        if way.blocked:
            reason = (
                f"Connect timeout: from subnet {way.subnet} there is no way to {asked.service}, "
                f"neither NAT nor a VPC endpoint ({asked.action})"
            )
            return result("ImplicitDeny", caller), UNREACHABLE, reason
        if not way.policy:
            return None, decision, because
        who = self._evaluator.resolve_principal(asked.access_key, caller.split(":")[4])
        question = self._evaluator.EvalContext(
            principal_arn=caller,
            principal_type=who.type,
            principal_account=who.account,
            action=asked.action,
            resource_arn=asked.resource,
            region=asked.region,
            service_context={name.lower(): value for name, value in {**asked.context, **way.context}.items()},
            principal_keys=who.keys,
        )
        passed = self._evaluator.evaluate_resource_policy(way.policy, question)
        if passed.decision == "Allow":
            return None, decision, because
        because = (
            "with an explicit deny in a VPC endpoint policy"
            if passed.decision == "Deny"
            else f"because no VPC endpoint policy allows the {asked.action} action"
        )
        return result(passed.decision, caller), passed.decision, because

    def _key_uses(self, action: str, resource: str, region: str) -> Iterator[keys.Use]:
        if action.startswith("s3:"):
            request = iam.object_request.get()
            yield from keys.uses_of_object(request, action, resource, region) if request else ()
        elif action == "sns:Publish":
            yield from keys.uses_of_topic(resource, region)
        elif action == "secretsmanager:GetSecretValue":
            yield from keys.uses_of_secret(resource, region)

    def _caller(self, access_key: str) -> str:
        found = self._evaluator.resolve_caller_identity(access_key)
        return str(found["userArn"]) if found else ""


def _looks_for_nothing(action: str, resource: str) -> bool:
    bucket, _, key = resource.removeprefix("arn:aws:s3:::").partition("/")
    record = hooks.module("services.s3")._buckets.get(bucket) if action == "s3:GetObject" else None
    return record is not None and key not in record["objects"]


def _grounds(noted: list[Any], denied: Any, action: str) -> tuple[str, str, str]:
    """(decision, statement, why it is denied) of what ministack evaluated: the caller's policies, then others."""
    if denied is None:
        if not noted:
            return "Allow", "", ""  # the root user, whom no policy binds
        if noted[0].decision == "Allow":
            return "Allow", noted[0].matched_sid, ""
        return "Allow", BY_RESOURCE, ""
    by_caller = not noted or noted[0].decision != "Allow" if denied.decision != "Deny" else noted[0].decision == "Deny"
    kind = "an identity-based policy" if by_caller else "a resource-based policy"
    if denied.decision == "Deny":
        return "Deny", denied.matched_sid if by_caller else BY_RESOURCE, f"with an explicit deny in {kind}"
    kind = "identity-based" if by_caller else "resource-based"
    return "ImplicitDeny", "", f"because no {kind} policy allows the {action} action"
