"""Processes of this machine: those of a session, those that work below a folder, and how they are ended.

Linux tells of them by /proc. macOS has none: there `ps` and `lsof` do, both of which it always has.
"""

import os
import resource
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

PROC = Path("/proc") if sys.platform == "linux" else None
PROGRAMS = ("/usr/bin", "/bin", "/usr/sbin", "/sbin")  # a job's PATH lacks the last two

FILES = 8192  # more than the server and its jobs ever have open, and less than macOS lets anyone have


def allow_many_files() -> None:
    """This process and its children may have FILES files and connections open, if that is allowed: macOS says 256."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    allowed = FILES if hard == resource.RLIM_INFINITY else min(FILES, hard)
    if soft != resource.RLIM_INFINITY and soft < allowed:
        resource.setrlimit(resource.RLIMIT_NOFILE, (allowed, hard))


def end_session(leader: int) -> None:
    """Kills every process of the session that `leader` has started, whatever process groups they have made since."""
    while members := session_members(leader):
        for pid in members:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.01)


def session_members(leader: int) -> list[int]:
    """The processes of a session that live; its number is that of the process that began it, which may be gone."""
    members = []
    if PROC is None:  # BSD's ps knows no sessions, but the system does
        for line in _said("ps", "-A", "-o", "pid=", "-o", "stat=").splitlines():
            pid, state = line.split()[:2]
            with suppress(OSError):  # the process has ended in the meantime
                if not state.startswith("Z") and os.getsid(int(pid)) == leader:
                    members.append(int(pid))
        return members
    for stat in PROC.glob("[0-9]*/stat"):
        with suppress(OSError):
            state, _, _, session = stat.read_text().rpartition(")")[2].split()[:4]
            if int(session) == leader and state not in "ZX":
                members.append(int(stat.parent.name))
    return members


def working_below(*folders: Path) -> list[int]:
    """The processes of this user whose working folder is one of these, or lies in one."""
    wanted = [folder.resolve() for folder in folders]  # as the system tells it: macOS's /var is a link
    return [pid for pid, folder in _working_folders() if any(folder.is_relative_to(one) for one in wanted)]


def listening_on(port: int) -> int | None:
    """The process of this user that listens on a port of 127.0.0.1; None if it is another's, or nobody."""
    if PROC is None:
        said = _said("lsof", "-w", "-a", "-n", "-P", f"-iTCP@127.0.0.1:{port}", "-sTCP:LISTEN", "-F", "p")
        return next((int(line[1:]) for line in said.splitlines() if line.startswith("p")), None)
    sockets = {
        f"socket:[{fields[9]}]"
        for fields in map(str.split, (PROC / "net" / "tcp").read_text().splitlines()[1:])
        if fields[3] == "0A" and fields[1].endswith(f":{port:04X}")  # LISTEN; the address is in hexadecimal
    }
    for link in PROC.glob("[0-9]*/fd/*") if sockets else ():
        with suppress(OSError):  # another user's, or it has ended in the meantime
            if str(link.readlink()) in sockets:
                return int(link.parts[-3])
    return None


def working_folder(pid: int) -> Path | None:
    """Where a process of this user works."""
    return dict(_working_folders()).get(pid)


def command_line(pid: int) -> str:
    """The words of a process's command, with spaces between them; empty if there is no such process."""
    # -ww: BSD's ps cuts a line off at the terminal's width, or at 79 letters where there is none.
    return _said("ps", "-ww", "-o", "command=", "-p", str(pid)).strip()


def command_lines() -> dict[int, str]:
    """Those of all processes, by their numbers."""
    # A header is the last word of its -o, so that each has one of its own.
    lines = [line.split(None, 1) for line in _said("ps", "-ww", "-A", "-o", "pid=", "-o", "command=").splitlines()]
    return {int(pid): rest[0].strip() if rest else "" for pid, *rest in lines}


def _working_folders() -> list[tuple[int, Path]]:
    found = []
    if PROC is None:
        pid = 0
        for line in _said("lsof", "-w", "-a", "-d", "cwd", "-u", str(os.getuid()), "-F", "pn").splitlines():
            if line.startswith("p"):
                pid = int(line[1:])
            elif line.startswith("n"):
                found.append((pid, Path(line[1:])))
        return found
    for link in PROC.glob("[0-9]*/cwd"):
        with suppress(OSError):
            found.append((int(link.parent.name), link.readlink()))
    return found


def _said(*command: str) -> str:
    environment = {
        "PATH": os.pathsep.join([*PROGRAMS, os.environ.get("PATH", "")]),
        "LC_ALL": "en_US.UTF-8" if sys.platform == "darwin" else "C.UTF-8",  # else lsof writes é as \xc3\xa9
    }
    done = subprocess.run(
        command,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        errors="replace",
        check=False,
    )
    return done.stdout
