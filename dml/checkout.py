"""The checkout that the command runs from: where it lies, where it keeps what it makes, its revision and its state."""

import hashlib
import os
import subprocess
import sysconfig
from pathlib import Path

from dml.errors import UserError

PROJECT = Path(__file__).parents[1]
HOME = PROJECT / ".dml"  # wherever the command is called
NEVER_SHIPPED = ("node_modules", "cdk.out", "tests", "docs", "bench")  # on top of the checkout


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


def state(project: Path) -> str:
    """Changes with each change to a file that the checkout's app may read, or to what is installed for it.

    Files are not read but looked at, as git's index does: no program can set back the time at which the system noted a
    change. Hidden folders are passed over, but for the cluster's packages that `make setup` fetches.
    """
    digest = hashlib.sha256()
    for installed in (sysconfig.get_path("purelib"), project / "node_modules"):
        digest.update(f"{installed}\0{_noted(Path(installed))}\n".encode())
    seen = set()
    for root in (project, project / ".dml" / "wheels"):
        for folder, folders, files in os.walk(root, followlinks=True):
            place = _noted(Path(folder))[:2]
            over = (*NEVER_SHIPPED, "__pycache__") if Path(folder) == project else ("__pycache__",)
            folders[:] = sorted(one for one in folders if one not in over and not one.startswith("."))
            if place in seen:  # a link led back
                folders.clear()
                continue
            seen.add(place)
            for name in sorted(files):
                file = Path(folder, name)
                digest.update(f"{file.relative_to(project)}\0{_noted(file)}\n".encode(errors="surrogateescape"))
    return digest.hexdigest()


def _noted(file: Path) -> tuple[int, ...]:
    try:
        found = file.stat()
    except OSError:  # gone meanwhile, or a link to nothing
        return ()
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns
