"""A Spark cluster on loopback: a master, workers of one core each, executors as processes of their own.

The cluster's Python has the libraries of this one and not this repository, which an editable installation would hand to
every process of it: what executors import of `jobs` comes with the job.
"""

import http.client
import json
import secrets
import subprocess
import sysconfig
import time
import venv
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from dml.local.place import PROGRAM
from dml.local.processes import command_line, end_session, session_members
from dml.local.spark.process import CLOSED, JAVA_OPTIONS, SparkProcess, java_home, package
from tests.embedded import free_port

WORKERS = 2
EXECUTOR = "org.apache.spark.executor.CoarseGrainedExecutorBackend"


class Submitted(SparkProcess):
    """Spark with other settings than the embedded cloud's, such as another master.

    `conf`: a file with the settings that are secret, which no command line may have.
    """

    def __init__(
        self, *, settings: Mapping[str, str], arguments: Sequence[str], conf: Path | None = None, **given: Any
    ) -> None:
        secret = ["--properties-file", str(conf)] if conf else []
        super().__init__(arguments=[*secret, *arguments], shipped=conf.parent if conf else None, **given)
        self._own = settings

    def _settings(self) -> tuple[dict[str, str], dict[str, str]]:
        defaults, fixed = super()._settings()
        # Executors are processes of their own, to which Spark hands no token where there is no Kerberos.
        token = {"spark.executorEnv.HADOOP_TOKEN_FILE_LOCATION": str(self._token_file)}
        return defaults, {**fixed, **token, **self._own}


class Standalone:
    """The cluster, with all that it writes below `folder`."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        folder.mkdir(exist_ok=True)
        self._processes: list[subprocess.Popen[bytes]] = []
        self._port, self._web_port = free_port(), free_port()
        self.python = self._make_python()
        self.secret = secrets.token_hex(32)
        self.conf = self._folder / "secret.conf"
        shared = {name: CLOSED[name] for name in CLOSED if name.startswith(("spark.authenticate", "spark.network"))}
        shared["spark.authenticate.secret"] = self.secret
        text = "".join(f"{name} {value}\n" for name, value in shared.items())
        self.conf.touch(0o600)
        self.conf.write_text(text)

    def start(self) -> None:
        """Returns when every worker has told the master that it is there."""
        address = ("--host", "127.0.0.1", "--properties-file", str(self.conf))
        self._spawn("master.Master", *address, "--port", str(self._port), "--webui-port", str(self._web_port))
        until(lambda: self._told() is not None, "the master answers")
        for number in range(WORKERS):
            size = ("--cores", "1", "--memory", "1g", "--work-dir", str(self._folder / f"worker-{number}"))
            self._spawn("worker.Worker", *address, *size, "--webui-port", "0", f"spark://127.0.0.1:{self._port}")
        until(lambda: (self._told() or {})["aliveworkers"] == WORKERS, "the workers are there")

    def processes(self) -> list[int]:
        return [pid for process in self._processes for pid in session_members(process.pid)]

    def stop(self) -> None:
        for process in self._processes:
            end_session(process.pid)
            process.wait()

    def settings(self) -> dict[str, str]:
        """What a job must be told to run here."""
        return {
            "spark.master": f"spark://127.0.0.1:{self._port}",
            "spark.executor.memory": "512m",
            "spark.executor.cores": "1",
            "spark.executor.extraJavaOptions": JAVA_OPTIONS,
            "spark.pyspark.python": str(self.python),
            "spark.pyspark.driver.python": str(self.python),
            # A job that starts before its second executor is there would cut its data into fewer pieces.
            "spark.default.parallelism": str(WORKERS),
            "spark.scheduler.minRegisteredResourcesRatio": "1.0",
        }

    def executors(self) -> list[int]:
        """The process ids of the executors that live."""
        return [pid for pid in self.processes() if EXECUTOR in command_line(pid).split()]

    def _make_python(self) -> Path:
        """A virtual environment on this one's packages. Their .pth files, and so the editable install, do not count."""
        venv.create(self._folder / "python", symlinks=True)
        there = sysconfig.get_path("purelib", vars={"base": str(self._folder / "python")})
        Path(there, "libraries.pth").write_text(sysconfig.get_path("purelib") + "\n")
        return self._folder / "python" / "bin" / "python"

    def _spawn(self, daemon: str, *arguments: str) -> None:
        spark = package("pyspark")
        environment = {
            "PATH": "/usr/local/bin:/usr/bin:/bin",
            "HOME": str(self._folder),
            **PROGRAM,
            "JAVA_HOME": str(java_home()),
            "SPARK_HOME": str(spark),
            "SPARK_LOCAL_IP": "127.0.0.1",
            "SPARK_LOCAL_DIRS": str(self._folder / "scratch"),
            "SPARK_DAEMON_MEMORY": "256m",
            "SPARK_DAEMON_JAVA_OPTS": JAVA_OPTIONS,
        }
        with (self._folder / f"daemon-{len(self._processes)}.log").open("wb") as log:
            self._processes.append(
                subprocess.Popen(
                    [str(spark / "bin" / "spark-class"), f"org.apache.spark.deploy.{daemon}", *arguments],
                    env=environment,
                    cwd=self._folder,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    start_new_session=True,
                )
            )

    def _told(self) -> dict[str, Any] | None:
        connection = http.client.HTTPConnection("127.0.0.1", self._web_port, timeout=10)
        try:
            connection.request("GET", "/json/")
            told: dict[str, Any] = json.loads(connection.getresponse().read())
            return told
        except ConnectionError:
            return None
        finally:
            connection.close()


def events(folder: Path) -> Iterator[dict[str, Any]]:
    """What Spark has logged so far of the one application that logs to `folder`; a line half-written is left out."""
    for file in folder.glob("app-*"):
        for line in file.read_text(encoding="utf-8").splitlines(keepends=True):
            if line.endswith("\n"):
                yield json.loads(line)


def until(holds: Callable[[], Any], what: str, seconds: float = 90.0) -> None:
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, f"not within {seconds:.0f} s: {what}"
        time.sleep(0.02)
