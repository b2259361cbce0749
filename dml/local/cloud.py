"""Starts, finds and stops the embedded cloud; operator time. Nothing else knows that it is a process."""

import contextlib
import enum
import errno
import fcntl
import hmac
import http.client
import json
import os
import re
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from dml import checkout
from dml.cdk import with_own_programs
from dml.errors import UserError
from dml.local import credentials
from dml.local.place import (
    CALLS_PATH,
    HOME_VARIABLE,
    MARKER_PATH,
    NODE_PATH,
    PORT_VARIABLE,
    PROGRAM,
    REGION,
    SAVE_PATH,
    Place,
    aws_environment,
)
from dml.local.processes import command_line, listening_on, working_below, working_folder
from dml.terminal.words import last_line

DEFAULT_PORT = 4566
RECORD = Path("cloud", "server.json")  # below .dml: the server's process and port
START_SECONDS = 60.0
STOP_SECONDS = 30.0
ANSWER_SECONDS = 10.0  # what listens and says nothing for so long is taken for dead
NEEDED_BYTES = 1024**3
# What a child must not inherit: credentials and settings of a real account, and proxies (loopback needs none).
WITHHELD = ("AWS_", "CDK_", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY", "PYTHONPATH", "PYTHONHOME", "SPARK_")
# Presigned URLs of S3 by Signature Version 2, which boto3 and the AWS CLI still make by default, are refused.
AWS_CONFIG = """\
[default]
s3 =
    signature_version = s3v4
"""


class Heard(enum.Enum):
    """Who answers on a port."""

    OURS = enum.auto()
    OTHER = enum.auto()
    NOBODY = enum.auto()


class AnswerError(OSError):
    """A server's answer that is not what was asked for, and its status."""

    def __init__(self, why: str, status: int) -> None:
        super().__init__(why)
        self.status = status


class Cloud:
    """The embedded cloud in one folder. `home` is usually .dml in the project's folder."""

    def __init__(self, home: Path) -> None:
        self._home = home.absolute()
        self._record = self._home / RECORD

    @property
    def endpoint(self) -> str:
        """Its address; UserError if it was never started."""
        return self.place.endpoint

    @property
    def place(self) -> Place:
        """Where it was last started; UserError if it never was."""
        record = self._read()
        if record is None:
            raise UserError("The embedded cloud does not run. Start it: dml local up")
        return Place(self._home, record["port"])

    @property
    def log(self) -> Path:
        """The server's own output."""
        return self._home / "cloud" / "server.log"

    @property
    def root(self) -> dict[str, str]:
        """Its root user's access key; UserError if it was never started, or has no key."""
        return self.place.root

    def up(self, port: int | None = None) -> bool:
        """Starts it unless it runs, on `port` or where it was last time, with all that it had; False if it ran already.

        Raises UserError if the port is taken, the disk full, or if it does not come up.
        """
        with self._alone(), _disk_errors(self._home):
            record = self._read()
            heard = self._heard(record) if record else None
            if record and heard is Heard.OURS:
                if port not in (None, record["port"]):
                    raise UserError(
                        f"The embedded cloud runs on port {record['port']} already. Stop it first: dml local down"
                    )
                return False
            if record and self._is_server(record["pid"]):
                # It does not answer, or not with our keys: those are new, or it is of a version that had none.
                self._end(record["pid"], patience=STOP_SECONDS if heard is Heard.OTHER else 3.0)
            self._end_orphans()
            self._start(Place(self._home, port or (record or {}).get("port") or DEFAULT_PORT))
            return True

    def down(self) -> bool:
        """Stops it and all that it runs, and returns when they are gone; False if it did not run. Its state is kept."""
        with self._alone():
            record = self._read()
            runs = record is not None and self._is_server(record["pid"])
            if record and runs:
                self._end(record["pid"])
            self._end_orphans()
            return runs

    def status(self) -> str:
        """A sentence for the operator."""
        record = self._read()
        heard = self._heard(record) if record else None
        if record and heard is Heard.OURS:
            return f"The embedded cloud runs at {Place(self._home, record['port']).endpoint} (log: {self.log})."
        if record and self._is_server(record["pid"]):
            if heard is Heard.OTHER:
                return self._without_keys()
            return f"The embedded cloud runs but does not answer. End it: dml local down (log: {self.log})."
        return "The embedded cloud does not run."

    def require(self) -> None:
        """Raises UserError unless it runs and is ours: the bare emulator would report success for jobs it never ran."""
        record = self._read()
        heard = self._heard(record) if record else None
        if heard is Heard.OURS:
            return
        if record and heard is Heard.OTHER and self._is_server(record["pid"]):
            raise UserError(self._without_keys())
        if record and _listens(record["port"]):
            raise UserError(
                f"What listens on port {record['port']} is not this project's embedded cloud. "
                "Start ours on another one: dml local up --port 4600"
            )
        raise UserError("The embedded cloud does not run. Start it: dml local up")

    def run_steps_on_yarn(self, jars: Path | None) -> None:
        """Has EMR's steps that come run on a YARN made of these jars; or on local Spark again, without."""
        link = self.place.yarn
        fresh = link.with_name(f"{link.name}.{secrets.token_hex(4)}")
        if jars is None:
            link.unlink(missing_ok=True)
        else:
            fresh.symlink_to(jars.absolute())
            fresh.rename(link)

    def save(self) -> None:
        """Makes it write its state now, so that a crash loses nothing of before; UserError if it cannot."""
        if not self._told("POST", SAVE_PATH)["saved"]:
            raise UserError(f"The embedded cloud could not save its state under {self.place.cloud} (log: {self.log}).")

    def calls(self) -> dict[str, list[dict[str, Any]]]:
        """`calls`: all that it has decided; `unused`: statements that have allowed none (dml/local/access/calls.py)."""
        self.require()
        told: dict[str, list[dict[str, Any]]] = self._told("GET", CALLS_PATH)
        return told

    def node_credentials(self, cluster: str) -> dict[str, str]:
        """What programs on a cluster's primary node act with, by the names of environment variables; for 12 hours."""
        told: dict[str, str] = self._told("GET", f"{NODE_PATH}?cluster={cluster}")["credentials"]
        return told

    def environment(self) -> dict[str, str]:
        """The environment of a program that uses it: its address and root keys, and no way to a real account."""
        cloud = self._home / "cloud"
        return self._bare_environment() | {
            **aws_environment(self.endpoint, self.root),
            "NO_PROXY": PROGRAM["NO_PROXY"],
            "AWS_CONFIG_FILE": str(cloud / "no-aws-config"),
            "AWS_SHARED_CREDENTIALS_FILE": str(cloud / "no-aws-credentials"),
            "HOME": str(cloud / "home"),  # the CDK CLI keeps the account of every access key there
            "TMPDIR": str(cloud / "tmp"),
            "PATH": with_own_programs(os.environ),
        }

    def tools(self) -> dict[str, str]:
        """What of that a shell needs for tools of AWS's; UserError unless it runs."""
        self.require()
        config = self._home / "cloud" / "aws-config"
        config.write_text(AWS_CONFIG)
        given = self.environment() | {"AWS_CONFIG_FILE": str(config)}
        return {name: value for name, value in given.items() if name.startswith(("AWS_", "NO_PROXY"))}

    def _bare_environment(self) -> dict[str, str]:
        return {key: value for key, value in os.environ.items() if not key.upper().startswith(WITHHELD)}

    # --- the server's process ---

    def _start(self, place: Place) -> None:
        _check_port(place.port)
        place.cloud.mkdir(mode=0o700, exist_ok=True)
        place.cloud.chmod(0o700)
        if shutil.disk_usage(place.cloud).free < NEEDED_BYTES:
            raise UserError(f"The disk under {place.cloud} has less than 1 GB left. Free some space, then try again.")
        for folder in (place.cloud / "home", place.cloud / "tmp"):
            folder.mkdir(exist_ok=True)
        credentials.ready(place.keys)
        environment = self._bare_environment() | {
            HOME_VARIABLE: str(place.home),
            PORT_VARIABLE: str(place.port),
            "HOME": str(place.cloud / "home"),
            "TMPDIR": str(place.cloud / "tmp"),
            "PYTHONUNBUFFERED": "1",
            "NO_PROXY": PROGRAM["NO_PROXY"],
        }
        with self.log.open("wb") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "dml.local.server"],
                cwd=checkout.PROJECT,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                umask=0o077,
            )
        record = {"pid": process.pid, "port": place.port}
        self._record.write_text(json.dumps(record))
        deadline = time.monotonic() + START_SECONDS
        try:
            while self._heard(record) is not Heard.OURS:
                if process.poll() is not None:
                    why = last_line(self.log.read_text(errors="replace")) or "it printed nothing"
                    raise UserError(f"The embedded cloud did not start: {why} (log: {self.log})")
                if time.monotonic() > deadline:
                    raise UserError(
                        f"The embedded cloud did not answer within {START_SECONDS:.0f} s (log: {self.log})."
                    )
                time.sleep(0.05)
        except BaseException:
            self._end(process.pid)
            process.wait()
            raise

    def _heard(self, record: dict[str, Any]) -> "Heard":
        """Who answers there: only our server, with our extensions and our keys, can prove that it is."""
        place, challenge = Place(self._home, record["port"]), secrets.token_hex(32)
        try:
            told = json.loads(_ask(place, "GET", f"{MARKER_PATH}?challenge={challenge}", timeout=ANSWER_SECONDS))
        except (AnswerError, ValueError):
            return Heard.OTHER
        except OSError:
            return Heard.NOBODY
        try:
            expected = credentials.proof(place.root, challenge, self._home, place.port, record["pid"])
        except UserError:
            return Heard.OTHER
        given = told.get("proof") if isinstance(told, dict) else None
        return Heard.OURS if hmac.compare_digest(str(given), expected) else Heard.OTHER

    def _told(self, method: str, path: str) -> Any:
        """What it answers its root user; UserError with its own words if it refuses.

        A path that it has not (404, by dml/local/access/guard.py) is one that came with a later release.
        """
        try:
            return json.loads(_ask(self.place, method, path, timeout=60.0, root=self.root))
        except AnswerError as error:
            if error.status == http.HTTPStatus.NOT_FOUND:
                raise UserError(
                    "The embedded cloud runs since before this release of dml was installed, and cannot answer that. "
                    "Run dml local down, then the same command again; its data is kept."
                ) from None
            raise UserError(f"The embedded cloud did not answer its owner: {error} (log: {self.log})") from None

    def _without_keys(self) -> str:
        """Why a server of ours that answers is not taken for it."""
        try:
            credentials.read(self.place.keys)
        except UserError as error:
            return str(error)
        return (
            f"The embedded cloud runs with other keys than {self.place.keys}, or is of a former version. "
            "Start it anew, with all its data: dml local up"
        )

    def _is_server(self, pid: int) -> bool:
        """Whether the process is our server; its number may long be another one's."""
        return "dml.local.server" in command_line(pid)

    def _end(self, pid: int, patience: float = STOP_SECONDS) -> None:
        """Ends the server, which ends what it runs; kills it if it does not within `patience` seconds."""
        for number in (signal.SIGTERM, signal.SIGKILL):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)
            deadline = time.monotonic() + patience
            while time.monotonic() < deadline:
                if _is_gone(pid):
                    return
                time.sleep(0.05)

    def _end_orphans(self) -> None:
        """Kills what a killed server left running: processes whose folder lies in ours."""
        for pid in working_below(*(self._home / "cloud" / name for name in ("work", "nodes"))):
            with contextlib.suppress(OSError):
                os.kill(pid, signal.SIGKILL)

    # --- its record ---

    def _read(self) -> dict[str, Any] | None:
        if self._home.exists():
            checkout.private(self._home)
        try:
            record = json.loads(self._record.read_text())
            return {"pid": int(record["pid"]), "port": int(record["port"])}
        except (OSError, ValueError, KeyError, TypeError):
            return None

    @contextlib.contextmanager
    def _alone(self) -> Iterator[None]:
        """One start or stop at a time, whatever number of terminals ask for it."""
        with _disk_errors(self._home):
            checkout.private(self._home)
            lock = (self._home / "cloud.lock").open("w")
        with lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield


@contextlib.contextmanager
def _disk_errors(home: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno == errno.ENOSPC:
            raise UserError(f"The disk under {home} is full. Free some space, then try again.") from error
        if error.errno in (errno.EACCES, errno.EROFS):
            raise UserError(
                f"{home} cannot be written to: {error.strerror}. Run dml in a folder of your own."
            ) from error
        raise


def _check_port(port: int) -> None:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            # BSD's SO_REUSEADDR binds 127.0.0.1 beside a program that listens on all addresses, and takes its callers.
            if _listens(port):
                raise OSError(errno.EADDRINUSE, os.strerror(errno.EADDRINUSE))
            probe.bind(("127.0.0.1", port))
        except (OSError, OverflowError) as error:
            taken = isinstance(error, OSError) and error.errno == errno.EADDRINUSE
            raise UserError(
                f"Port {port} on 127.0.0.1 "
                f"{f'is taken by {_who_listens(port)}' if taken else f'cannot be used ({error})'}. "
                f"Choose another one: dml local up --port {4600 if port != 4600 else 4700}"
            ) from None


def _who_listens(port: int) -> str:
    """Whose a port is, and how to free it where it is an embedded cloud's; a clause."""
    pid = listening_on(port)
    if pid is None or "dml.local.server" not in command_line(pid):
        return "another program"
    folder = working_folder(pid)
    record = folder / ".dml" / RECORD if folder else None
    try:
        known = record is not None and json.loads(record.read_text())["pid"] == pid
    except (OSError, ValueError, KeyError, TypeError):
        known = False
    if known:
        return f"the embedded cloud of {folder} (stop it there: dml local down)"
    return f"an embedded cloud of {folder} whose .dml is gone, so that no command knows it: end it by `kill {pid}`"


def _is_gone(pid: int) -> bool:
    """Whether a process has let go of everything that it held, its port too."""
    with contextlib.suppress(ChildProcessError):
        os.waitpid(pid, os.WNOHANG)
    state = subprocess.run(["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, text=True, check=False).stdout
    # "l": the first thread has ended, others have not, and they still hold the port.
    return not state.strip() or (state.startswith("Z") and "l" not in state)


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        probe.settimeout(1.0)
        return probe.connect_ex(("127.0.0.1", port)) == 0


def _ask(place: Place, method: str, path: str, *, timeout: float, root: Mapping[str, str] | None = None) -> bytes:
    """The body of the server's answer; AnswerError if its status is not 200, OSError if there is none.

    The request is signed by `root`, if it is given. No proxy comes between.
    """
    connection = http.client.HTTPConnection("127.0.0.1", place.port, timeout=timeout)
    try:
        connection.request(method, path, headers=_signed(method, place.endpoint + path, root) if root else {})
        answer = connection.getresponse()
        if answer.status != http.HTTPStatus.OK:
            said = answer.read().decode(errors="replace")
            words = re.search(r"<Message>(.*?)</Message>", said)
            why = words[1] if words else f"{path} answered {answer.status}: {said.strip()}"
            raise AnswerError(why, answer.status)
        return answer.read()
    except http.client.HTTPException as error:
        raise OSError(str(error)) from error
    finally:
        connection.close()


def _signed(method: str, url: str, root: Mapping[str, str]) -> dict[str, str]:
    from botocore.auth import SigV4Auth  # here, since most commands that look for the cloud sign nothing
    from botocore.awsrequest import AWSRequest
    from botocore.credentials import Credentials

    request = AWSRequest(method, url)
    SigV4Auth(Credentials(root[credentials.ID], root[credentials.SECRET]), "sts", REGION).add_auth(request)
    return dict(request.headers.items())
