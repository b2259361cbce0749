"""The progress display away from a terminal, as CI and pipes see it."""

import io
import re

import pytest
from rich.console import Console

from dml.terminal.board import Board


def printed(console: Console) -> str:
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


@pytest.fixture
def console() -> Console:
    return Console(file=io.StringIO(), force_terminal=False, width=200)


def test_a_finished_stage_should_print_one_line_with_time_and_detail(console: Console) -> None:
    with Board(console, ["prepare", "train"]) as board:
        board.start("prepare")
        board.done("prepare", "12 rows", seconds=3.25)
    assert re.fullmatch(r"✓ prepare +3\.2 s  12 rows\n", printed(console))


def test_an_error_should_mark_the_stage_that_ran_and_no_other(console: Console) -> None:
    with pytest.raises(RuntimeError), Board(console, ["prepare", "train", "gate"]) as board:
        board.start("prepare")
        board.done("prepare", seconds=1)
        board.start("train")
        raise RuntimeError
    assert [line[:7] for line in printed(console).splitlines()] == ["✓ prepa", "✗ train"]


def test_a_terminal_should_show_waiting_stages_too() -> None:
    console = Console(file=io.StringIO(), force_terminal=True, width=100)
    with Board(console, ["prepare", "train"]) as board:
        board.start("prepare", "reading flights")
    assert "reading flights" in printed(console)
    assert "train" in printed(console)


def test_how_far_a_stage_is_should_be_told_on_a_terminal_and_gone_when_it_ends() -> None:
    console = Console(file=io.StringIO(), force_terminal=True, width=100)
    with Board(console, ["prepare"]) as board:
        board.start("prepare")
        board.doing("prepare", "12 of 40 tasks")
        board._live.refresh()
        board.done("prepare")
    before, _, after = printed(console).rpartition("✓")
    assert "12 of 40 tasks" in before
    assert "prepare" in after
    assert "12 of 40 tasks" not in after


def test_without_a_terminal_a_long_stage_should_be_told_of_once_a_minute(
    console: Console, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 1000.0
    monkeypatch.setattr("dml.terminal.board.time.monotonic", lambda: now)
    with Board(console, ["prepare"]) as board:
        board.start("prepare")
        for now in (1030.0, 1059.0, 1061.0, 1090.0, 1122.0):  # the clock
            board.doing("prepare", f"at {now - 1000:.0f}")
        board.done("prepare")
    told = [line.split("  ")[-1] for line in printed(console).splitlines()]
    assert told == ["at 61", "at 122", ""]
