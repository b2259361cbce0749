"""The checkout that the command runs from: where it lies, where it keeps what it makes, and its revision."""

import subprocess
from pathlib import Path

PROJECT = Path(__file__).parents[1]
HOME = PROJECT / ".dml"  # wherever the command is called


def git_revision() -> str:
    """The checkout's commit, with -dirty where it has changes; "unknown" outside a git checkout."""
    try:
        described = subprocess.run(
            ["git", "describe", "--always", "--dirty", "--abbrev=12"],
            cwd=PROJECT,
            capture_output=True,
            text=True,
            check=True,
        )
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return described.stdout.strip()
