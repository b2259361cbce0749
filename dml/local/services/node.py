"""The primary node of a local EMR cluster: a folder in which bootstrap actions really run; in the server's process.

What becomes of an action is told as EMR tells it: its return code and what it printed are in its logs alone. The
message's form and the logs' place are those that mrjob reads (mrjob/logs/bootstrap.py).
"""

import os
import shlex
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from dml.local.clients import client
from dml.local.place import Place, inner_environment
from dml.terminal.words import BOOTSTRAP_FAILED, last_line

# On a node every bootstrap action may use sudo without a password. Here nothing is installed outside the node's folder.
SUDO = """#!/bin/sh
while true; do
  case "$1" in
    -u|-g) shift 2 ;;
    -*) shift ;;
    *) break ;;
  esac
done
exec "$@"
"""
# A node's service manager would be this machine's own: what an action wants started is only logged.
SYSTEMCTL = """#!/bin/sh
echo "systemctl $*: nodes of the embedded cloud have no services"
"""
# Bootstrap actions run before EMR installs its applications (EMR Management Guide, "Create bootstrap actions"), and no
# document says that Python 3.11 is on the image by then. So it is not, until the distribution is asked for it.
PYTHON = """#!/bin/sh
echo "python3.11: command not found" >&2
exit 127
"""
DNF = """#!/bin/sh
for given in "$@"; do
  case "$given" in
    install|-*) ;;
    *) cp {packages}/"$given" {tools}/ || {{ echo "Error: Unable to find a match: $given" >&2; exit 1; }} ;;
  esac
done
"""


class BootstrapError(Exception):
    """A bootstrap action did not succeed."""


def instance_of(cluster_id: str) -> str:
    """The id of a cluster's primary instance."""
    return f"i-{cluster_id[2:]}"


def log_folder(place: Place, cluster_id: str) -> Path:
    """Where a cluster's logs lie on this machine, as EMR has them below its LogUri."""
    return place.logs / "emr" / cluster_id


def printed_by(place: Place, said: str) -> str:
    """The last line of the bootstrap action by which a cluster of a stack did not start, with its log; else nothing."""
    found = BOOTSTRAP_FAILED.search(said)
    if not found:
        return ""
    cluster, instance, number = found.groups()
    folder = log_folder(place, cluster) / "node" / instance / "bootstrap-actions" / number
    logs = [folder / name for name in ("stderr", "stdout") if (folder / name).is_file()]
    texts = {log: last_line(log.read_text(errors="replace")) for log in logs}
    return next((f"It printed last: {text} (log: {log})" for log, text in texts.items() if text), "It printed nothing.")


def node_folder(place: Place, cluster_id: str) -> Path:
    """Where a cluster's primary node has its files."""
    return (place.cloud / "nodes" / cluster_id).absolute()


def node_python(folder: Path) -> str:
    """The Python that the bootstrap action has made on a node; ours, if there is none that works.

    Its packages may be for another processor than this machine's, as the environment says.
    """
    python = folder / "python" / "bin" / "python"
    works = python.exists() and not subprocess.run([python, "-c", "import numpy"], capture_output=True).returncode
    return str(python) if works else sys.executable


class Node:
    """A node's folder, its environment, and the bootstrap action that runs on it now."""

    def __init__(self, place: Place, cluster_id: str, credentials: Mapping[str, str]) -> None:
        self._place = place
        self._credentials = credentials
        self._folder = node_folder(place, cluster_id)
        self._instance = instance_of(cluster_id)
        self._logs = log_folder(place, cluster_id)
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._stopped = False

    def run(self, actions: Sequence[Mapping[str, Any]]) -> None:
        """Runs a cluster's bootstrap actions in their order; raises BootstrapError at the first that fails."""
        tools, packages = self._folder / "bin", self._folder / "packages"
        for folder in (tools, packages, self._folder / "home", self._folder / "tmp"):
            folder.mkdir(parents=True, exist_ok=True)
        dnf = DNF.format(packages=shlex.quote(str(packages)), tools=shlex.quote(str(tools)))
        scripts = {
            tools / "sudo": SUDO,
            tools / "systemctl": SYSTEMCTL,
            tools / "dnf": dnf,
            tools / "python3.11": PYTHON,
            packages / "python3.11": f'#!/bin/sh\nexec {shlex.quote(sys.executable)} "$@"\n',
        }
        for path, script in scripts.items():
            path.write_text(script)
            path.chmod(0o755)
        (self._folder / "instance.json").write_text('{"isMaster": true}\n')
        for number, action in enumerate(actions, start=1):
            script = action["ScriptBootstrapAction"]
            path = self._fetch(script["Path"], self._folder / f"bootstrap-action-{number}")
            folder = self._logs / "node" / self._instance / "bootstrap-actions" / str(number)
            folder.mkdir(parents=True, exist_ok=True)
            if self._execute([str(path), *script.get("Args", [])], folder):
                raise BootstrapError(
                    f"On the master instance ({self._instance}), bootstrap action {number} returned a non-zero return "
                    "code"
                )

    def files(self) -> dict[str, Path]:
        """What its actions have printed, by its place below the cluster's folder."""
        there = sorted((self._logs / "node").glob("*/bootstrap-actions/*/std*"))
        return {str(file.relative_to(self._logs)): file for file in there}

    def stop(self) -> None:
        """Ends the action that runs, and all that it started."""
        with self._lock:
            self._stopped = True
            if self._process and self._process.poll() is None:
                os.killpg(self._process.pid, signal.SIGKILL)

    def _fetch(self, uri: str, target: Path) -> Path:
        if not uri.startswith("s3://"):
            raise BootstrapError(
                f"The bootstrap action {uri} is not there: upload it to S3 and name it s3://BUCKET/KEY."
            )
        bucket, _, key = uri.removeprefix("s3://").partition("/")
        try:
            found = client(self._place, "s3", self._credentials).get_object(Bucket=bucket, Key=key)
            target.write_bytes(found["Body"].read())
        except Exception as error:
            raise BootstrapError(f"The bootstrap action {uri} could not be fetched: {error}") from error
        target.chmod(0o755)
        return target

    def _execute(self, command: Sequence[str], logs: Path) -> int:
        environment = inner_environment(
            self._place.endpoint,
            self._credentials,
            home=self._folder / "home",
            scratch=self._folder / "tmp",
            tools=[self._folder / "bin"],
        )
        environment |= {
            "DML_HOME": str(self._folder),
            "DML_INSTANCE_INFO": str(self._folder / "instance.json"),
            "DML_UNITS": str(self._folder / "units"),
        }
        with (logs / "stdout").open("wb") as output, (logs / "stderr").open("wb") as errors:
            try:
                with self._lock:
                    if self._stopped:
                        return 1
                    self._process = subprocess.Popen(
                        command,
                        cwd=self._folder,
                        env=environment,
                        stdin=subprocess.DEVNULL,
                        stdout=output,
                        stderr=errors,
                        start_new_session=True,
                    )
            except OSError as error:
                errors.write(f"{error}\n".encode())
                return 126
        return self._process.wait()
