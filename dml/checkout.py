"""The checkout that the command runs from: where it lies, where it keeps what it makes, and its revision."""

import os
import subprocess
from pathlib import Path

from dml.errors import UserError

PROJECT = Path(__file__).parents[1]
HOME = PROJECT / ".dml"  # wherever the command is called


def home() -> Path:
    """HOME, made if it is not there: raw data, predictions, models and keys are nobody's but its owner's."""
    return private(HOME)


def private(folder: Path) -> Path:
    """The folder, which is there now and its owner's only, whatever the umask; all below it is private by that.

    Raises UserError if it is in somebody else's hands. It may be a link to a folder that is not.
    """
    there = folder.resolve()
    there.parent.mkdir(parents=True, exist_ok=True)
    there.mkdir(mode=0o700, exist_ok=True)
    check_private(folder)
    if folder.stat().st_mode & 0o077:  # of a version that left it to the umask
        folder.chmod(0o700)
    return folder


def check_private(folder: Path) -> None:
    """Raises UserError if others own the folder, or may write to it: what it holds is trusted, and run."""
    if not {folder.lstat().st_uid, folder.stat().st_uid} <= {os.geteuid()}:
        raise UserError(
            f"{folder} belongs to another account of this machine. Put it out of the way: mv {folder} {folder}.other"
        )
    mode = folder.stat().st_mode & 0o777
    if mode & 0o022:
        raise UserError(
            f"Other accounts of this machine may write to {folder} (mode {mode:o}), and what lies there is run. "
            f"If nobody did: chmod 700 {folder}"
        )


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
