"""A network of its own for processes that obey anybody who reaches them: loopback, and nothing else; on Linux.

Whoever may speak to YARN's ports, or to those of Zeppelin's interpreters, may have it run what they like. So they have
a network namespace, which no other account of the machine can enter, and which has no way out but the sockets that were
made in it and are held outside of it: those by which a job reaches the embedded cloud. They have a process namespace
too: its processes end with its first one, and that ends with its owner.

Needs unshare and nsenter of util-linux, and a kernel that lets its users make namespaces (user_namespaces(7)).
"""

import json
import os
import socket
import struct
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from pathlib import Path

from dml import checkout
from dml.errors import UserError
from dml.local.place import PROGRAM
from dml.local.processes import end_session

PROGRAMS = "/usr/local/bin:/usr/bin:/bin:/usr/local/sbin:/usr/sbin:/sbin"
UNSHARE = ("unshare", "--user", "--map-root-user", "--net", "--pid", "--fork", "--kill-child", "--mount-proc")
ENTER = ("--user", "--net", "--pid", "--mount", "--preserve-credentials")
START_SECONDS, END_SECONDS = 30.0, 10.0
CREDENTIALS = struct.Struct("3i")  # process, user, group: unix(7)


class Namespace:
    """A network and the processes in it, once `start` has returned."""

    _owner: socket.socket  # our end of the connection to the first process

    def __init__(self, folder: Path, refusal: Callable[[str], str] | None = None) -> None:
        """`folder` is its first process's working folder. `refusal`: what to say where there can be none, and why."""
        self._folder = folder
        self._refusal = refusal or of_yarn
        self._lock = threading.Lock()  # one question at a time
        self._process: subprocess.Popen[bytes] | None = None
        self._first = 0

    def start(self) -> None:
        """Raises UserError if this machine does not let us."""
        if sys.platform != "linux":
            raise UserError(self._refusal(f"{sys.platform} has none"))
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        ours.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
        ours.settimeout(START_SECONDS)
        self._owner = ours
        try:
            with theirs:
                self._process = subprocess.Popen(
                    [*UNSHARE, sys.executable, "-m", "dml.local.yarn.inside", str(theirs.fileno())],
                    env={"PATH": PROGRAMS, "PYTHONPATH": str(checkout.PROJECT), **PROGRAM},
                    cwd=self._folder,
                    pass_fds=[theirs.fileno()],
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.PIPE,
                    start_new_session=True,
                )
            told, ancillary, _, _ = ours.recvmsg(4096, socket.CMSG_SPACE(CREDENTIALS.size))
        except FileNotFoundError as error:
            self.end()
            raise UserError(self._refusal(f"{error.filename} is not installed")) from None
        except TimeoutError:
            self.end()
            raise UserError(self._refusal(f"it did not start within {START_SECONDS:.0f} s")) from None
        if not told:
            assert self._process.stderr is not None  # noqa: S101  # PIPE
            said = self._process.stderr.read().decode(errors="replace").strip()
            self.end()
            raise UserError(self._refusal(said.splitlines()[-1] if said else "it ended at once"))
        # The kernel adds who has sent it, by the number that the process has here.
        self._first = CREDENTIALS.unpack(ancillary[0][2])[0]
        ours.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 0)

    def command(self, words: Sequence[str], folder: Path) -> list[str]:
        """The command that runs `words` in here, working in `folder`: who enters is first in the root folder."""
        return ["nsenter", f"--target={self._first}", *ENTER, "--", "env", f"--chdir={folder}", *words]

    def listen(self, port: int = 0) -> socket.socket:
        """A socket that listens on 127.0.0.1 in here. Raises OSError if it cannot."""
        return self._ask(listen=port)

    def connect(self, port: int) -> socket.socket:
        """A socket that is connected to a port of 127.0.0.1 in here. Raises OSError if nobody listens there."""
        made = self._ask(connect=port)
        made.setblocking(True)  # its maker had a timeout, and left it so
        return made

    def end(self) -> None:
        """Kills all that runs in here, and returns when it is gone."""
        self._owner.close()
        if self._process:
            try:
                self._process.wait(END_SECONDS)
            except subprocess.TimeoutExpired:  # it has not come so far as to notice
                end_session(self._process.pid)
                self._process.wait()
            assert self._process.stderr is not None  # noqa: S101  # PIPE
            self._process.stderr.close()

    def _ask(self, **request: int) -> socket.socket:
        with self._lock:
            self._owner.send(json.dumps(request).encode())
            try:
                told, given, _, _ = socket.recv_fds(self._owner, 4096, 1)
            except TimeoutError:  # a late answer would be taken for that to the next question
                self._owner.close()
                raise
        if not given:
            raise OSError(json.loads(told or b'{"error": "the namespace has ended"}')["error"])
        return socket.socket(fileno=given[0])


class Relay:
    """Passes connections to a listening socket on, until it is closed.

    `connect` makes the other end of each, in or out of a namespace; OSError if nobody is there.
    """

    def __init__(self, listening: socket.socket, connect: Callable[[], socket.socket]) -> None:
        self._listening = listening
        self._connect = connect
        threading.Thread(target=self._accept, name="relay", daemon=True).start()

    @classmethod
    def outwards(cls, listening: socket.socket, port: int) -> "Relay":
        """One to a port of this machine's loopback."""
        return cls(listening, lambda: socket.create_connection(("127.0.0.1", port)))

    def close(self) -> None:
        """No more connections; those that there are go on."""
        self._listening.shutdown(socket.SHUT_RDWR)  # wakes who waits for one
        self._listening.close()

    def _accept(self) -> None:
        while True:
            try:
                inner, _ = self._listening.accept()
            except OSError:
                return
            threading.Thread(target=self._pass, args=(inner,), daemon=True).start()

    def _pass(self, inner: socket.socket) -> None:
        with inner:
            try:
                outer = self._connect()
            except OSError:  # nobody is there: the connection is closed, which says so
                return
            with outer:
                back = threading.Thread(target=_copy, args=(outer, inner), daemon=True)
                back.start()
                _copy(inner, outer)
                back.join()


def _copy(source: socket.socket, target: socket.socket) -> None:
    """All that comes, until its sender has said all; if either side breaks off, both end."""
    try:
        while data := source.recv(64 * 1024):
            target.sendall(data)
        target.shutdown(socket.SHUT_WR)
    except OSError:
        for one in (source, target):
            _break_off(one)


def _break_off(connection: socket.socket) -> None:
    try:
        connection.shutdown(socket.SHUT_RDWR)
    except OSError:  # it has ended already
        return


def check() -> None:
    """Raises UserError unless this machine lets us have one."""
    made = Namespace(Path(os.sep))
    made.start()
    made.end()


def of_yarn(why: str) -> str:
    return (
        f"YARN takes work from whoever reaches its ports, so it runs here only in a network namespace of its own, and "
        f"this machine does not let us make one: {why}. It takes Linux with user namespaces (unshare and nsenter of "
        "util-linux; in a container, the right to mount /proc). Without --yarn the same steps run on local Spark."
    )
