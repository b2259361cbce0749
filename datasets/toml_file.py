"""A TOML file as the class that declares its settings, checked by pydantic; what is wrong is told a sentence each."""

import tomllib
from pathlib import Path
from types import UnionType
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

T = TypeVar("T")


class TomlError(Exception):
    """A file is wrong: a line for each fault, with the file, the setting, what was found and what it may be."""


def read(kind: type[T], file: Path, *, shown: str, name: str, named_by: str, explained: str = "") -> T:
    """The settings in `file` as a `kind`, whose `name` is not in the file: `named_by` says what it goes by instead.

    `shown`: the file as people know it. `explained`: where a setting is explained that a file may lack. Raises
    TomlError.
    """
    from pydantic import TypeAdapter, ValidationError  # here, since `dml --help` does not need it

    try:
        settings = tomllib.loads(file.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise TomlError(f"{shown} is not valid TOML: {error}") from error
    if "name" in settings:
        raise TomlError(f"{shown}: name: leave it out, {named_by}.")
    try:
        return TypeAdapter(kind).validate_python({"name": name, **settings})
    except ValidationError as error:
        said = (_sentence(f"{shown}: ", kind, problem, explained) for problem in error.errors())
        raise TomlError("\n".join(said)) from error


def _sentence(where: str, kind: type, problem: Any, explained: str) -> str:
    """One line for one of pydantic's errors."""
    key = ".".join(str(part) for part in problem["loc"] if part != "[key]")
    what = problem["msg"].removeprefix("Value error, ")
    if problem["type"] == "missing":
        return f"{where}{key} is missing{explained}."
    if problem["type"] in ("extra_forbidden", "unexpected_keyword_argument"):
        return f"{where}{key} is not a setting; allowed here: {', '.join(_allowed(kind, problem['loc']))}."
    if not key:
        return f"{where}{what}."
    if isinstance(problem["input"], dict):  # the settings of a part don't fit together; the message names them
        return f"{where}{key}: {what}."
    return f"{where}{key} is {problem['input']!r}: {what[0].lower()}{what[1:]}."


def _allowed(kind: Any, where: tuple[str | int, ...]) -> list[str]:
    """The settings that may stand beside an unknown one; a table of tables goes by names that are not declared."""
    for step in where[:-1]:
        kind = get_args(kind)[-1] if get_origin(kind) is dict else get_type_hints(kind)[str(step)]
        if get_origin(kind) in (Union, UnionType):  # Optional
            kind = get_args(kind)[0]
    return [name for name in get_type_hints(kind) if name != "name" and not name.startswith("_")]
