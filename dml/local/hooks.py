"""Puts our functions in the place of ministack's, and refuses a ministack that lacks one; at the server's start."""

import importlib
from importlib import metadata
from typing import Any

VERSION = "1.5.33"


class HookError(RuntimeError):
    """The installed ministack is not the one that dml/local was written for."""


def check_version() -> None:
    """Raises HookError unless the pinned ministack is installed: its private names may move in any release."""
    try:
        installed = metadata.version("ministack")
    except metadata.PackageNotFoundError:
        raise HookError("ministack is not installed. Set the project up again: make setup") from None
    if installed != VERSION:
        raise HookError(
            f"ministack {installed} is installed, but dml/local extends {VERSION}. Set the project up again: make setup"
        )


def module(name: str) -> Any:
    """A module of ministack, such as `services.glue`."""
    try:
        return importlib.import_module(f"ministack.{name}")
    except ImportError as error:
        raise HookError(
            f"ministack {VERSION} has no module {name}: {error}. Set the project up again: make setup"
        ) from error


def replace(owner: Any, name: str, new: Any) -> Any:
    """Puts `new` where ministack has `name`: a module's attribute or a table's entry. Returns what was there."""
    original = existing(owner, name)
    if isinstance(owner, dict):
        owner[name] = new
    else:
        setattr(owner, name, new)
    return original


def existing(owner: Any, name: str) -> Any:
    """What ministack has under `name`; HookError if it has nothing there."""
    found = owner.get(name) if isinstance(owner, dict) else getattr(owner, name, None)
    if found is None:
        where = "a table" if isinstance(owner, dict) else owner.__name__
        raise HookError(f"ministack {VERSION} no longer has {name} in {where}, which dml/local extends.")
    return found
