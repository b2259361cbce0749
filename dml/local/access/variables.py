"""Policy variables, ${aws:username} and its like, which ministack's evaluator takes for plain text; in the server.

Source: IAM User Guide, "IAM policy elements: Variables and tags": in Resource and NotResource, and in the values of
conditions; in documents of version 2012-10-17 only; a default value after a comma, in quotes; a statement with a
variable that has no value holds for nothing; ${*}, ${?} and ${$} are the characters themselves.
"""

import dataclasses
import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

from dml.local import hooks

VERSION = "2012-10-17"
VARIABLE = re.compile(r"\$\{([^}]*)\}")
PLAIN = "\ue000"  # before a character that is no wildcard; private use, which is in no ARN


class _Unknown(Exception):
    """A variable that has no value in a request."""


class Variables:
    """Puts values in the place of variables, request by request."""

    def __init__(self) -> None:
        self._evaluator = hooks.module("core.iam_evaluator")
        self._roles = hooks.module("services.iam")

    def apply(self) -> None:
        """Extends ministack's evaluator."""
        evaluator = self._evaluator
        self._parse = hooks.replace(evaluator, "parse_policy_document", self.parse)
        self._first = hooks.replace(evaluator, "_first_match", self.first_match)
        self._by_resource = hooks.replace(evaluator, "evaluate_resource_policy", self.evaluate_resource_policy)
        self._compile = hooks.replace(evaluator, "_fnmatch_compile", self.compile)
        self._key = hooks.replace(evaluator, "_resolve_condition_key", self.condition_key)

    def parse(self, document: Any) -> Any:
        """A document's statements, which know whether they have variables."""
        statements = self._parse(document)
        if version(document) == VERSION:
            for statement in statements:
                where = [*statement.resources, *statement.not_resources, str(statement.conditions)]
                statement.has_variables = any("${" in text for text in where)
        return statements

    def first_match(self, context: Any, statements: Any, effect: str) -> Any:
        """ministack's search, among statements with this request's values in them."""
        return self._first(context, list(self._resolved(context, statements)), effect)

    def _resolved(self, context: Any, statements: Any) -> Iterator[Any]:
        for statement in statements:
            if not getattr(statement, "has_variables", False):
                yield statement
                continue
            try:
                yield dataclasses.replace(
                    statement,
                    resources=[self._fill(one, context, pattern=True) for one in statement.resources],
                    not_resources=[self._fill(one, context, pattern=True) for one in statement.not_resources],
                    conditions=self._conditions(statement.conditions, context),
                )
            except _Unknown:
                continue

    def evaluate_resource_policy(self, document: Any, context: Any, *rest: Any, **named: Any) -> Any:
        """A resource's policy, whose version ministack forgets on the way: its variables are filled in before."""
        if version(document) == VERSION:
            document = json.loads(document) if isinstance(document, str) else document
            statements = document.get("Statement", [])
            each = statements if isinstance(statements, list) else [statements]
            document = {"Statement": list(self._filled(each, context))}
        return self._by_resource(document, context, *rest, **named)

    def _filled(self, statements: Any, context: Any) -> Iterator[Any]:
        for statement in statements:
            try:
                patterns = {
                    name: [self._fill(one, context, pattern=True) for one in _listed(statement[name])]
                    for name in ("Resource", "NotResource")
                    if name in statement
                }
                conditions = self._conditions(statement.get("Condition", {}), context)
                yield {**statement, **patterns, "Condition": conditions}
            except _Unknown:
                continue

    def _conditions(self, conditions: Mapping[str, Any], context: Any) -> dict[str, Any]:
        return {
            operator: {
                key: [
                    self._fill(str(one), context, pattern="like" in operator.lower() or "arn" in operator.lower())
                    for one in _listed(expected)
                ]
                for key, expected in keys.items()
            }
            for operator, keys in conditions.items()
        }

    def _fill(self, text: str, context: Any, *, pattern: bool) -> str:
        """The text with values for its variables; in a pattern, what the values have of wildcards is plain."""

        def value(match: re.Match[str]) -> str:
            name, comma, default = match[1].partition(",")
            if match[1] in ("*", "?", "$"):
                found: Any = match[1]
            else:
                found = self.condition_key(name.strip(), context)
            if (found is None or isinstance(found, list)) and comma:
                found = default.strip().strip("'")
            if found is None or isinstance(found, list):  # nor may a variable be a key of several values
                raise _Unknown
            return re.sub(r"[*?]", PLAIN + r"\g<0>", str(found)) if pattern else str(found)

        return VARIABLE.sub(value, text)

    def compile(self, pattern: str, ignore_case: bool) -> Any:
        """A pattern in which a marked character stands for itself."""
        if PLAIN not in pattern:
            return self._compile(pattern, ignore_case)
        parts = re.split(f"({PLAIN}.|[*?])", pattern)
        wild = {"*": ".*", "?": "."}
        whole = "".join(wild.get(part) or re.escape(part.removeprefix(PLAIN)) for part in parts)
        return re.compile(f"^{whole}$", re.IGNORECASE if ignore_case else 0)

    def condition_key(self, key: str, context: Any) -> Any:
        """A key's value; aws:PrincipalArn is the role's ARN, not its session's (guide, "Global condition keys")."""
        found = self._key(key, context)
        if key.lower() != "aws:principalarn" or ":assumed-role/" not in str(found):
            return found
        account, name = found.split(":")[4], found.split("/")[1]
        record = self._roles._roles.get_scoped(account, None, name) or {}
        return record.get("Arn", f"arn:aws:iam::{account}:role/{name}")


def version(document: Any) -> str:
    """A policy document's version; "" if it has none, which is the one of 2008."""
    if isinstance(document, str):
        try:
            document = json.loads(document)
        except ValueError:
            return ""
    return str(document.get("Version", "")) if isinstance(document, dict) else ""


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]
