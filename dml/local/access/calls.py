"""Every call that the embedded cloud has decided: who, what, on what, and which statement decided; in the server.

Like decisions are counted, not listed: of an allowed call on an object only the folder is kept. Denials keep the whole
resource. `dml local calls` shows them, and which statements of the roles nothing has needed yet.
"""

import json
import re
import threading
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from dml.local import hooks

LIMIT = 20_000  # different calls that are told apart; what comes after is counted under OTHERS
OTHERS = "(others)"
FOLDERS = 2  # of an object's key that are kept


class Call(NamedTuple):
    """A decision. `principal` is role/NAME, user/NAME or root; `statement` is POLICY/SID, empty if none decided."""

    principal: str
    action: str
    resource: str
    decision: str
    statement: str


class Calls:
    """The calls of one embedded cloud, kept in `file` (JSON lines)."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._lock = threading.Lock()
        self._counts: Counter[Call] = Counter()
        if file.exists():
            for line in file.read_text(encoding="utf-8").splitlines():
                known = json.loads(line)
                count = known.pop("count")
                self._counts[Call(**known)] = count

    def record(self, call: Call) -> None:
        """Counts one call."""
        if call.decision == "Allow":
            call = call._replace(resource=folder(call.resource))
        with self._lock:
            if call not in self._counts and len(self._counts) >= LIMIT:
                call = call._replace(resource=OTHERS)
            self._counts[call] += 1

    def told(self) -> list[dict[str, Any]]:
        """All calls as JSON objects with their counts, in the order of principal, action and resource."""
        with self._lock:
            counts = sorted(self._counts.items())
        return [call._asdict() | {"count": count} for call, count in counts]

    def save(self) -> None:
        """Writes them to the file, whole or not at all."""
        fresh = self._file.with_suffix(".new")
        fresh.write_text("".join(json.dumps(call) + "\n" for call in self.told()), encoding="utf-8")
        fresh.replace(self._file)

    def unused(self) -> list[dict[str, Any]]:
        """The statements of all roles that have not allowed a call yet: role, statement, actions, resources."""
        with self._lock:
            used = {(call.principal, call.statement) for call in self._counts if call.decision == "Allow"}
        found = []
        for role, policy, document in role_policies():
            for statement in statements(document):
                name = f"{policy}/{statement_name(statement)}"
                if statement.get("Effect") == "Allow" and (f"role/{role}", name) not in used:
                    what = {key.lower() + "s": as_list(statement.get(key)) for key in ("Action", "Resource")}
                    found.append({"role": role, "statement": name} | what)
        return found


def role_policies() -> Iterator[tuple[str, str, Any]]:
    """(role, policy, document) of every policy of every role that is not CDK's own nor a service's."""
    iam, evaluator = hooks.module("services.iam"), hooks.module("core.iam_evaluator")
    account = hooks.module("core.responses").get_account_id()
    for name, role in sorted(iam._roles.items()):
        if name.startswith("cdk-") or role.get("Path", "").startswith("/aws-service-role/"):
            continue
        for policy, document in (role.get("InlinePolicies") or {}).items():
            yield name, policy, document
        for arn in role.get("AttachedPolicies", []):
            yield name, policy_name(arn), evaluator._resolve_managed_policy_document(arn, account) or {}


def statements(document: Any) -> list[Mapping[str, Any]]:
    """The statements of a policy, given as JSON text or as an object."""
    found = (json.loads(document) if isinstance(document, str) else document or {}).get("Statement", [])
    return [found] if isinstance(found, dict) else list(found)


def statement_name(statement: Mapping[str, Any]) -> str:
    """A statement's Sid or, without one, the actions that it is about."""
    return str(statement.get("Sid") or ",".join(as_list(statement.get("Action") or statement.get("NotAction"))))


def policy_name(arn: str) -> str:
    """The name in a managed policy's ARN."""
    return arn.rpartition("/")[2]


def as_list(value: Any) -> list[str]:
    """What a policy says as one text or as a list of texts."""
    return [] if value is None else [value] if isinstance(value, str) else [str(one) for one in value]


def folder(resource: str) -> str:
    """A resource without what differs from run to run: keys below the second folder, names of log streams."""
    if resource.startswith("arn:aws:s3:::"):
        parts = resource.split("/")
        return resource if len(parts) <= FOLDERS + 1 else "/".join([*parts[: FOLDERS + 1], "*"])
    return re.sub(r"(:log-stream:).+", r"\1*", resource)


def principal(arn: str) -> str:
    """role/NAME, user/NAME or root out of a caller's ARN; the session's name is left out."""
    kind, _, rest = arn.rpartition(":")[2].partition("/")
    return f"role/{rest.partition('/')[0]}" if kind == "assumed-role" else f"{kind}/{rest}" if rest else kind
