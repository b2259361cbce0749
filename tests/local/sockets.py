"""What the processes of this machine listen on: by /proc on Linux, by lsof on macOS."""

import re
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple


class Listening(NamedTuple):
    """A TCP or UDP port that a process has open, or a Unix socket, whose path is the address and whose port is 0."""

    pid: int
    address: str
    port: int


def descendants(*roots: int) -> list[int]:
    """These processes and all that they have started, if they and the ones between still live."""
    told = ["ps", "-A", "-o", "pid=", "-o", "ppid=", "-o", "stat="]
    lines = [
        line.split() for line in subprocess.run(told, capture_output=True, text=True, check=True).stdout.splitlines()
    ]
    parents = [(int(pid), int(parent)) for pid, parent, state in lines if not state.startswith("Z")]
    found = list(roots)
    for pid in found:  # grows meanwhile
        found += [child for child, parent in parents if parent == pid and child not in found]
    return found


def listening(pids: list[int]) -> list[Listening]:
    if sys.platform != "linux":
        return _by_lsof(pids)
    found = []
    for pid in pids:
        sockets = _sockets_of(pid)
        for table, state in (("tcp", "0A"), ("tcp6", "0A"), ("udp", "07"), ("udp6", "07")):
            for line in Path(f"/proc/{pid}/net/{table}").read_text().splitlines()[1:]:
                local, inode = line.split()[1], line.split()[9]
                if line.split()[3] == state and inode in sockets:
                    address, port = local.split(":")
                    found.append(Listening(pid, _address(address), int(port, 16)))
        for line in Path(f"/proc/{pid}/net/unix").read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == "00010000" and fields[6] in sockets:
                found.append(Listening(pid, fields[7] if len(fields) > 7 else "(without a name)", 0))
    return found


def _sockets_of(pid: int) -> set[str]:
    links = []
    for file in Path(f"/proc/{pid}/fd").iterdir():
        try:
            links.append(str(file.readlink()))
        except OSError:  # closed meanwhile
            continue
    return {found[1] for link in links if (found := re.fullmatch(r"socket:\[(\d+)\]", link))}


def _address(written: str) -> str:
    """As the kernel writes it: words of four bytes, each in the machine's own order."""
    if len(written) == 8:
        return ".".join(str(byte) for byte in bytes.fromhex(written)[::-1])
    if written.startswith("0000000000000000FFFF0000"):  # IPv4 in IPv6, as Java has it
        return _address(written[24:])
    return "::1" if written == "00000000000000000000000001000000" else f"IPv6 {written}"


def _by_lsof(pids: list[int]) -> list[Listening]:
    command = ["lsof", "-nP", "-a", "-iTCP", "-sTCP:LISTEN", "-p", ",".join(map(str, pids)), "-F", "pn"]
    found, pid = [], 0
    for line in subprocess.run(command, capture_output=True, text=True, check=False).stdout.splitlines():
        if line.startswith("p"):
            pid = int(line[1:])
        elif line.startswith("n"):
            address, _, port = line[1:].rpartition(":")
            found.append(Listening(pid, address.strip("[]"), int(port)))
    return found
