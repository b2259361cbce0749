"""Names that must be free, or ours: our stacks and what state they are in, and what the templates name themselves."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from botocore.exceptions import ClientError

from dml.doctor.account import Account
from dml.doctor.findings import Check, Finding, ok, problem, warning
from dml.terminal.words import listed

# `cdk deploy` deletes and makes these again by itself (aws-cdk's CloudFormationStack.isCreationFailure); others not.
RETRIED = ("ROLLBACK_COMPLETE", "ROLLBACK_FAILED", "REVIEW_IN_PROGRESS")
MENDED = {
    "UPDATE_ROLLBACK_FAILED": "aws cloudformation continue-update-rollback --stack-name {0}",
    "CREATE_FAILED": "aws cloudformation delete-stack --stack-name {0}",
    "DELETE_FAILED": "aws cloudformation delete-stack --stack-name {0}",
}


@dataclass(frozen=True)
class Kind:
    """A kind of resource whose names we fix. `there` asks for one; `missing` are the errors of a free name."""

    resource: str
    title: str
    service: str
    there: Callable[[Any, str], bool]
    missing: tuple[str, ...]
    delete: str  # the command that frees a name


def stacks(account: Account) -> Finding:
    """The state of our own stacks; CloudFormation lets some states be left by one way only."""
    bad, failed, busy = [], [], []
    for name, status in account.stacks.items():
        if status in MENDED:
            bad.append((f"{name} is {status}", MENDED[status].format(name)))
        elif status in RETRIED:
            failed.append((f"{name} is {status}", f"aws cloudformation describe-stack-events --stack-name {name}"))
        elif status.endswith("_IN_PROGRESS"):
            busy.append((f"{name} is {status}", f"aws cloudformation describe-stacks --stack-name {name}"))
    if bad:
        return problem(listed([what for what, _ in bad]), f"Get out of that state first: {bad[0][1]}")
    if failed:
        return warning(
            listed([what for what, _ in failed]),
            f"A deploy failed before; the next one begins anew. See why it failed: {failed[0][1]}",
        )
    if busy:
        return warning(listed([what for what, _ in busy]), f"Somebody deploys just now; wait for it: {busy[0][1]}")
    if not account.stacks:
        return ok("none yet: this is the first deploy")
    return ok(f"{len(account.stacks)} of {len(account.needs.stacks)} stand")


def taken(kind: Kind, account: Account) -> Finding:
    """Names that something has which our stacks don't have: left by a stack that keeps its data, or somebody else's."""
    names = account.needs.names[kind.resource]
    if not names:
        return ok("the templates fix none")
    client = account.client(kind.service)
    foreign = []
    for name in names:
        if name in account.own:
            continue
        try:
            if kind.there(client, name):
                foreign.append(name)
        except ClientError as error:
            if error.response["Error"]["Code"] not in kind.missing:
                raise
    if foreign:
        return problem(
            f"{listed(foreign)} there, but not of our stacks: creating the like will fail",
            "If it was kept by an earlier deploy, dml resume takes it in. If nobody needs it: "
            + kind.delete.format(foreign[0]),
        )
    return ok(f"{listed(list(names))}: free or ours")


def _answers(operation: str, parameter: str) -> Callable[[Any, str], bool]:
    """An operation that fails if there is no such name."""

    def there(client: Any, name: str) -> bool:
        getattr(client, operation)(**{parameter: name})
        return True

    return there


def _log_group(client: Any, name: str) -> bool:
    pages = client.get_paginator("describe_log_groups").paginate(logGroupNamePrefix=name)
    return any(group["logGroupName"] == name for page in pages for group in page["logGroups"])


KINDS = (
    Kind(
        "AWS::Glue::Database",
        "Glue databases",
        "glue",
        _answers("get_database", "Name"),
        ("EntityNotFoundException",),
        "aws glue delete-database --name {0}",
    ),
    Kind(
        "AWS::Glue::Classifier",
        "Glue classifiers",
        "glue",
        _answers("get_classifier", "Name"),
        ("EntityNotFoundException",),
        "aws glue delete-classifier --name {0}",
    ),
    Kind(
        "AWS::Glue::SecurityConfiguration",
        "Glue security configurations",
        "glue",
        _answers("get_security_configuration", "Name"),
        ("EntityNotFoundException",),
        "aws glue delete-security-configuration --name {0}",
    ),
    Kind(
        "AWS::Logs::LogGroup",
        "log groups",
        "logs",
        _log_group,
        ("ResourceNotFoundException",),
        "aws logs delete-log-group --log-group-name {0}",
    ),
    Kind(
        "AWS::SSM::Parameter",
        "SSM parameters",
        "ssm",
        _answers("get_parameter", "Name"),
        ("ParameterNotFound",),
        "aws ssm delete-parameter --name {0}",
    ),
    Kind(
        "AWS::KMS::Alias",
        "key aliases",
        "kms",
        _answers("describe_key", "KeyId"),
        ("NotFoundException",),
        "aws kms delete-alias --alias-name {0}",
    ),
    Kind(
        "AWS::CloudWatch::Dashboard",
        "dashboards",
        "cloudwatch",
        _answers("get_dashboard", "DashboardName"),
        ("ResourceNotFound", "DashboardNotFoundError"),  # by the query protocol, and by the newer ones
        "aws cloudwatch delete-dashboards --dashboard-names {0}",
    ),
)
CHECKS: tuple[Check[Account], ...] = (
    Check("stacks", stacks, "aws cloudformation describe-stacks"),
    *(
        Check(
            f"names of {kind.title}",
            partial(taken, kind),
            f"aws cloudformation list-stacks; {kind.delete.format('NAME')}",
        )
        for kind in KINDS
    ),
)
