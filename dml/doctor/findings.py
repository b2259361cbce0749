"""What a check is, and what it may find; every other module here speaks in these words."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, Literal, TypeVar

Status = Literal["ok", "warning", "problem", "skipped"]
Where = TypeVar("Where")


@dataclass(frozen=True)
class Finding:
    """What one check found. `advice`, what to do, is empty only if all is well."""

    status: Status
    found: str
    advice: str = ""


@dataclass(frozen=True)
class Check(Generic[Where]):
    """One thing to look at. `look` may raise Skipped; `by_hand` is how an operator looks without us."""

    name: str
    look: Callable[[Where], Finding]
    by_hand: str


class Skipped(Exception):
    """A check cannot be made, for the reason in its message."""


def ok(found: str) -> Finding:
    """Nothing to do."""
    return Finding("ok", found)


def warning(found: str, advice: str) -> Finding:
    """It deploys, but something will be less than it could be."""
    return Finding("warning", found, advice)


def problem(found: str, advice: str) -> Finding:
    """Deploying or the first run will fail."""
    return Finding("problem", found, advice)
