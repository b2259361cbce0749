"""Processes as both kinds of system tell of them: the way of macOS is tried on Linux too, which has its tools."""

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from dml.local import processes

# A session's first process, one of a process group of its own, and one that has left the session.
FAMILY = """
import os, sys, time
for leave in (None, os.setpgrp, os.setsid):
    if leave and not os.fork():
        leave()
        break
os.write(1, b"%d\\n" % os.getpid())
time.sleep(100)
"""


@pytest.fixture(params=["linux", "macos"])
def system(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """The way to look."""
    if request.param == "macos":
        if not shutil.which("lsof"):
            pytest.skip("there is no lsof here")
        monkeypatch.setattr(processes, "PROC", None)
    elif sys.platform != "linux":
        pytest.skip("there is no /proc here")


@pytest.fixture
def family(tmp_path: Path) -> Iterator[list[int]]:
    """The processes of FAMILY, in their order; they work in a folder below `tmp_path`."""
    folder = tmp_path / "work" / "of a jöb"
    folder.mkdir(parents=True)
    process = subprocess.Popen(
        [sys.executable, "-c", FAMILY], cwd=folder, stdout=subprocess.PIPE, start_new_session=True
    )
    assert process.stdout
    others = {int(process.stdout.readline()) for _ in range(3)} - {process.pid}
    left = next(pid for pid in others if os.getsid(pid) != process.pid)
    yield [process.pid, *(others - {left}), left]
    for pid in (process.pid, *others):
        if pid in processes.working_below(tmp_path):
            os.kill(pid, 9)
    process.wait()
    process.stdout.close()


def gone(look: Callable[[], list[int]]) -> bool:
    deadline = time.monotonic() + 10
    while look() and time.monotonic() < deadline:
        time.sleep(0.05)
    return not look()


def test_a_session_should_be_ended_with_its_process_groups_and_nobody_else(
    family: list[int], system: None, tmp_path: Path
) -> None:
    leader, member, left = family
    assert sorted(processes.session_members(leader)) == sorted([leader, member])
    processes.end_session(leader)
    assert gone(lambda: [pid for pid in processes.working_below(tmp_path) if pid != left])
    assert processes.session_members(leader) == []
    assert processes.working_below(tmp_path) == [left]


def test_who_works_below_a_folder_should_be_found_by_any_name_of_it(
    family: list[int], system: None, tmp_path: Path
) -> None:
    link = tmp_path / "link"
    link.symlink_to(tmp_path / "work")
    assert sorted(processes.working_below(link)) == sorted(family)
    assert processes.working_below(tmp_path / "wor", tmp_path / "elsewhere") == []


def test_a_command_line_should_be_whole_however_wide_the_terminal(
    family: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "20")
    assert processes.command_line(family[0]).endswith("time.sleep(100)")
    assert processes.command_lines()[family[0]] == processes.command_line(family[0])
    assert processes.command_line(2**22 + 1) == ""


def test_where_few_open_files_are_allowed_more_should_be_asked_for() -> None:
    code = (
        "import resource as r; from dml.local.processes import FILES, allow_many_files; "
        "hard = r.getrlimit(r.RLIMIT_NOFILE)[1]; "
        "r.setrlimit(r.RLIMIT_NOFILE, (256, hard)); allow_many_files(); soft, now = r.getrlimit(r.RLIMIT_NOFILE); "
        "assert now == hard and soft == (FILES if hard < 0 else min(FILES, hard)), (soft, now)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
