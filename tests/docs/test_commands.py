"""Commands that the documents name: each is one that there is, with options that it takes; and each one is named."""

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer

from dml import cli
from dml.checkout import PROJECT
from tests.docs.documents import BLOCK, DOCUMENTS

SPAN = re.compile(r"```.*?```|`([^`\n]+)`", re.DOTALL)
COMMAND = typer.main.get_command(cli.app)


def commands(text: str, program: str) -> Iterator[str]:
    """What the text says is to be typed of a program: in backticks, and in the lines of its blocks."""
    for found in SPAN.finditer(text):
        if found[1]:
            yield from (part for part in [found[1].strip()] if part.split()[:1] == [program])
    for block in BLOCK.findall(text):
        for line in block.replace("\\\n", " ").splitlines():
            words = line.removeprefix("$ ").split("  ")[0].strip()
            if words.split()[:1] == [program]:
                yield words


def wrong(command: str) -> str:
    """Why a `dml` command cannot be typed, '' if it can. Words in capitals, and brackets, stand for others."""
    words = shlex.split(command.replace("[", "").replace("]", "").replace("…", ""), comments=True)[1:]
    here: Any = COMMAND  # of a click that typer brings along
    for word in words:
        if hasattr(here, "commands"):
            if word.startswith("-"):
                continue
            if word not in here.commands:
                return f"dml {here.name or ''}".strip() + f" has no command {word}"
            here = here.commands[word]
        elif word.startswith("-") and word != "-":
            options = {one for parameter in here.params for one in (*parameter.opts, *parameter.secondary_opts)}
            if word.partition("=")[0] not in {*options, "--help"}:
                return f"dml {here.name} has no option {word}"
    return ""


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda document: document.name)
def test_a_command_of_ours_that_a_document_names_should_be_one_that_can_be_typed(document: Path) -> None:
    named = sorted(set(commands(document.read_text(encoding="utf-8"), "dml")))
    assert {command: why for command in named if (why := wrong(command))} == {}


def test_a_make_target_that_a_document_names_should_be_there() -> None:
    targets = set(re.findall(r"^([a-z][\w-]*):", (PROJECT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    for document in DOCUMENTS:
        for command in commands(document.read_text(encoding="utf-8"), "make"):
            named = [word for word in shlex.split(command, comments=True)[1:] if "=" not in word]
            assert set(named) <= targets, f"{document.name}: {command}"


def test_the_table_of_commands_should_have_each_of_them() -> None:
    def every(command: Any, before: str) -> Iterator[str]:
        if not hasattr(command, "commands"):
            yield before
            return
        for name, one in command.commands.items():
            yield from every(one, f"{before} {name}") if not one.hidden else ()

    operations = (PROJECT / "docs" / "operations.md").read_text(encoding="utf-8")
    table = "\n".join(line for line in operations.splitlines() if line.startswith("| `dml"))
    lacking = [name for name in every(COMMAND, "dml") if not re.search(rf"`{re.escape(name)}[ `]", table)]
    assert lacking == []


def test_what_cannot_be_typed_should_be_seen() -> None:
    assert wrong("dml runs nyc_flights") == "dml has no command runs"
    assert wrong("dml models show --lokal") == "dml show has no option --lokal"
    assert wrong("dml predict FILE.csv --local [-o OUT.csv] # here") == ""
