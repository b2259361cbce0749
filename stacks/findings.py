"""Findings of checkers that stay, each said on the construct that it is about, with the reason; synth time.

docs/security.md has the same reasons in one table. `make lint` fails for a finding that is not accepted here.
"""

import re
from collections.abc import Mapping, MutableMapping, Sequence
from typing import Any
from weakref import WeakKeyDictionary

import aws_cdk as cdk
from aws_cdk import aws_iam as iam
from constructs import IConstruct

OBJECTS = "Objects come and go; their prefix is the narrowest name that S3 knows for them beforehand."
OWN_CODE = "What a run was started with stays readable when newer code is deployed: all assets of the environment."
TABLES = "Tables are made by crawler and jobs; their database is the narrowest name known beforehand."
NO_RESOURCE = "The service knows no resource for this action; a condition narrows it where there is one to set."
AWS_KEYS = "Without a customer key (encryption.customer_key) AWS's own keys encrypt it."
SAID_TWICE = "CDK says a dependency that a reference has said already; it does no harm."
LOG_GROUPS = "Glue names its log groups itself, by job kind, security configuration and role."


def accept(construct: IConstruct, findings: Mapping[str, str]) -> None:
    """Accepts cdk-nag findings, by ids as it prints them, on a construct and what lies below; each has a reason."""
    for finding, reason in findings.items():
        cdk.Validations.of(construct).acknowledge(cdk.Acknowledgment(id=finding, reason=reason))


def accept_in_template(construct: IConstruct, findings: Mapping[str, str]) -> None:
    """Accepts findings of checkov (CKV_...) and cfn-lint (W...) on one resource, in its metadata, where both look."""
    resource = construct if isinstance(construct, cdk.CfnResource) else construct.node.default_child
    assert isinstance(resource, cdk.CfnResource)  # noqa: S101  # of any construct that stands for one resource
    skipped = [{"id": id, "comment": reason} for id, reason in findings.items() if id.startswith("CKV")]
    ignored = [id for id in findings if not id.startswith("CKV")]
    if skipped:
        resource.add_metadata("checkov", {"skip": skipped})
    if ignored:
        resource.add_metadata("cfn-lint", {"config": {"ignore_checks": ignored}})


def accept_wildcards(role: IConstruct, rights: Sequence[iam.PolicyStatement], reasons: Mapping[str, str]) -> None:
    """Accepts that statements of a role (or policy) name resources by wildcard: a reason for each, by Sid.

    Raises ValueError for a reason whose statement has no wildcard (any more), or is not there.
    """
    stack = cdk.Stack.of(role)
    given = {statement.sid: statement for statement in rights}
    for sid, reason in reasons.items():
        shown = [_shown(stack, resource) for resource in given[sid].resources] if sid in given else []
        wild = [resource for resource in shown if "*" in resource]
        if not wild:
            raise ValueError(f"{role.node.path}: no statement {sid} with a wildcard, yet there is a reason for it")
        accept(role, {f"AwsSolutions-IAM5[Resource::{resource}]": reason for resource in wild})


def export(stack: cdk.Stack, value: str) -> None:
    """Exports a value to the stacks that use it under the name that CDK would choose, and remembers the name."""
    (name,) = stack.resolve(stack.export_value(value)).values()
    EXPORTED.setdefault(stack.node.root, {})[_key(stack.resolve(value))] = name


def _shown(stack: cdk.Stack, resource: str) -> str:
    """A resource's ARN as cdk-nag prints it: what is known only when deployed by its logical name or its export."""
    resolved = stack.resolve(resource)
    parts = resolved["Fn::Join"][1] if isinstance(resolved, dict) and "Fn::Join" in resolved else [resolved]
    exports = EXPORTED.get(stack.node.root, {})
    return "".join(
        re.sub(r"\$\{(.+?)\}", r"<\1>", part)
        if isinstance(part := one.get("Fn::Sub", one) if isinstance(one, dict) else one, str)
        else exports.get(_key(part)) or f"<{'.'.join(_names(part))}>"
        for one in parts
    )


EXPORTED: MutableMapping[IConstruct, dict[str, str]] = WeakKeyDictionary()  # of each app, the names by reference


def _key(reference: Any) -> str:
    return ".".join(_names(reference))


def _names(reference: Any) -> list[str]:
    (names,) = reference.values()
    return [names] if isinstance(names, str) else list(names)
