"""Which statements of the platform's roles its runs have needed, and why those stay that none has (unused.toml)."""

import re
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from stacks.outputs import dataset_of

REASONS = Path(__file__).with_name("unused.toml")
Calls = list[dict[str, Any]]


@dataclass(frozen=True, order=True)
class Statement:
    """A statement of all roles of one kind: the crawlers' roles are one kind, whatever their datasets."""

    role: str  # stack and logical id, such as "dataset EtlPrepareRole"
    name: str  # POLICY/SID

    def __str__(self) -> str:
        return f"{self.role}: {self.name}"


@dataclass(frozen=True)
class Reason:
    """Why a statement stays that no call needs. `statement` is a pattern, as in a shell."""

    role: str
    statement: str
    why: str

    def covers(self, statement: Statement) -> bool:
        return self.role == statement.role and fnmatchcase(statement.name, self.statement)


def reasons() -> list[Reason]:
    """The table."""
    return [Reason(**entry) for entry in tomllib.loads(REASONS.read_text(encoding="utf-8"))["stays"]]


class Roles:
    """The platform's roles by what they are called in the account."""

    def __init__(self, cloudformation: Any, prefix: str, datasets: Iterable[str]) -> None:
        """`prefix` is that of the environment's stacks, such as dml-dev-."""
        self._kinds: dict[str, str] = {}
        names = set(datasets)
        for stack in cloudformation.describe_stacks()["Stacks"]:
            if not stack["StackName"].startswith(prefix):
                continue
            for page in cloudformation.get_paginator("list_stack_resources").paginate(StackName=stack["StackName"]):
                for resource in page["StackResourceSummaries"]:
                    if resource["ResourceType"] == "AWS::IAM::Role":
                        part = stack["StackName"].removeprefix(prefix)
                        whose = "dataset" if dataset_of(part) in names else part
                        kind = _kind(resource["LogicalResourceId"])
                        self._kinds[resource["PhysicalResourceId"]] = f"{whose} {kind}"

    def allowed(self, calls: Calls) -> set[Statement]:
        """The statements that have allowed a call."""
        return {
            self._statement(call["principal"].removeprefix("role/"), call["statement"])
            for call in calls
            if call["decision"] == "Allow" and call["principal"].removeprefix("role/") in self._kinds
        }

    def unused(self, told: Mapping[str, Calls]) -> set[Statement]:
        """The statements that have allowed none, in no role of their kind."""
        found = {self._statement(one["role"], one["statement"]) for one in told["unused"] if one["role"] in self._kinds}
        return found - self.allowed(told["calls"])

    def denied(self, calls: Calls) -> Calls:
        """The calls of these roles that were not allowed."""
        return [
            call
            for call in calls
            if call["decision"] != "Allow" and call["principal"].removeprefix("role/") in self._kinds
        ]

    def _statement(self, role: str, name: str) -> Statement:
        policy, slash, statement = name.partition("/")
        return Statement(self._kinds[role], f"{_kind(policy)}{slash}{statement}")


def since(before: Calls, after: Calls) -> Calls:
    """The calls of `after` that came after `before`."""
    counts = {_identity(call): call["count"] for call in before}
    return [call for call in after if call["count"] > counts.get(_identity(call), 0)]


def _identity(call: Mapping[str, Any]) -> tuple[Any, ...]:
    return tuple(value for key, value in call.items() if key != "count")


def _kind(name: str) -> str:
    """A CloudFormation name without its hash."""
    return re.sub(r"[0-9A-F]{8}$", "", name)
