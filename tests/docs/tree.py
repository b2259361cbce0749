"""The files of this project as git has them: what is committed or about to be, and nothing that set-up or runs made."""

import subprocess
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@cache
def files() -> tuple[str, ...]:
    """Paths from the root, with /. Where there is no git checkout (an unpacked archive), the test is skipped."""
    try:
        listed = subprocess.run(
            ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=True,
        )
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"no git checkout: {error}")
    return tuple(sorted(path for path in listed.stdout.split("\0") if path and (ROOT / path).is_file()))


@cache
def committed() -> frozenset[str]:
    """Those of `files` that git keeps already."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True)
    return frozenset(listed.stdout.split("\0")) & set(files())


def text(path: str) -> str:
    """A file's text; '' if it has none, as a picture."""
    try:
        return (ROOT / path).read_text(encoding="utf-8")
    except UnicodeDecodeError:
        return ""
