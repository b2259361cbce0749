"""Runs one `spark-submit` of an EMR step on a YARN, as it stands in the template, with the nodes' credentials."""

import os
import shutil
import signal
import subprocess
import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from dml.errors import UserError
from dml.local.place import inner_environment
from dml.local.processes import end_session
from dml.local.spark.arguments import missing_file
from dml.local.spark.gateway import GatewayProcess, mounts
from dml.local.spark.process import UNSEEN, Outcome, as_in_a_shell, java_home, not_started, package
from dml.local.yarn.daemons import FAST_SPARK, Yarn, spark_jars

STOP_SECONDS = 10.0
# Of the environment that a node's services have by EMR: where AWS is, and the instance profile's keys.
OF_NODE = ("AWS_", "NO_PROXY", "LANG", "PATH")


class YarnStep:
    """One spark-submit, and the S3 gateway that serves its application."""

    def __init__(
        self,
        *,
        yarn: Yarn,
        arguments: Sequence[str],
        credentials: Mapping[str, str],
        endpoint: str,
        buckets: Sequence[str],
        work: Path,
        output: Path,
        errors: Path,
        shipped: Path | None = None,
    ) -> None:
        """`arguments` are those behind the word spark-submit; `work` is this step's own folder.

        `output`, `errors`: what spark-submit prints. What the script prints is in its container's files, below the
        YARN's logs. `shipped`: as SparkProcess has it.
        """
        self._yarn = yarn
        self._arguments = arguments
        self._buckets = buckets
        self._shipped = shipped
        self._work = work.absolute()
        self._scratch = self._work / "tmp"
        self._output, self._errors = output, errors
        self._environment = inner_environment(endpoint, credentials, home=self._work, scratch=self._scratch)
        self._gateway = GatewayProcess(self._environment, self._work)
        self._lock = threading.Lock()
        self._stopped = False
        self._submit: subprocess.Popen[bytes] | None = None

    def run(self) -> Outcome:
        """Blocks until spark-submit has ended. The reason is what kept it from being started, else empty."""
        self._scratch.mkdir(parents=True, exist_ok=True)
        self._scratch.chmod(0o700)
        self._errors.parent.mkdir(parents=True, exist_ok=True)
        try:
            if missing := missing_file(self._arguments, self._shipped):
                return Outcome(1, missing, begun=False)
            return self._run()
        except UserError as error:
            return Outcome(1, str(error), begun=False)
        except OSError as error:
            return not_started(error, self._work)
        finally:
            if self._stopped and self._submit:
                # The application goes on, as on EMR, and reads and writes by the gateway: until YARN ends.
                self._yarn.keep(self._gateway)
            else:
                self._gateway.end()
                shutil.rmtree(self._scratch, ignore_errors=True)

    def stop(self) -> None:
        """Interrupts spark-submit, as EMR does with a step that is cancelled. Its application goes on."""
        with self._lock:
            self._stopped = True
            submit = self._submit
        if submit:
            with suppress(ProcessLookupError):
                os.killpg(submit.pid, signal.SIGTERM)
            try:
                submit.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                end_session(submit.pid)

    def _run(self) -> Outcome:
        namespace = self._yarn.up()
        with namespace.listen() as listening, (self._work / "gateway.log").open("wb") as log:
            token = self._gateway.start(log.fileno(), listening)
        if not self._gateway.serves():
            return Outcome(1, f"The S3 gateway did not start (log: {self._work / 'gateway.log'}).", begun=False)
        token_file = self._scratch / "gateway.token"
        token.write(token_file)
        conf = self._write_settings(mounts(token.port, self._buckets, self._arguments))
        environment = self._environment | {
            "JAVA_HOME": str(java_home()),
            "SPARK_HOME": str(package("pyspark")),
            "SPARK_CONF_DIR": str(conf),
            "HADOOP_CONF_DIR": str(self._yarn.conf),
            "SPARK_LOCAL_IP": "127.0.0.1",
            "PYSPARK_PYTHON": self._yarn.python,
            "PYSPARK_DRIVER_PYTHON": self._yarn.python,
            "HADOOP_USER_NAME": "hadoop",
            "HADOOP_TOKEN_FILE_LOCATION": str(token_file),  # YARN hands what is in it to every container
            "SPARK_LAUNCHER_OPTS": UNSEEN,
            # A second class path counts; Spark's own begins with the settings' folder, for which no archive fits.
            "SPARK_SUBMIT_OPTS": f"{FAST_SPARK} -Djava.io.tmpdir={self._scratch} "
            f"-cp {spark_jars()}:{conf}:{self._yarn.conf}",
        }
        command = namespace.command([f"{package('pyspark')}/bin/spark-submit", *self._arguments], self._work)
        with self._output.open("wb") as output, self._errors.open("wb") as errors, self._lock:
            if self._stopped:
                return Outcome(1, "The step was cancelled.", begun=False)
            self._submit = subprocess.Popen(
                command,
                env=environment,
                cwd=self._work,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=errors,
                start_new_session=True,
            )
        return Outcome(as_in_a_shell(self._submit.wait()), "")

    def _write_settings(self, storage: Mapping[str, str]) -> Path:
        """The folder with spark-defaults.conf, which has the role's keys and so is its owner's."""
        given = {name: value for name, value in self._environment.items() if name.startswith(OF_NODE)}
        settings = self._yarn.defaults(given | {"PYTHONUNBUFFERED": "1"}) | dict(storage)
        conf = self._work / "conf"
        conf.mkdir(mode=0o700, exist_ok=True)
        file = conf / "spark-defaults.conf"
        file.touch(0o600)
        file.write_text("".join(f"{name} {value}\n" for name, value in settings.items()), encoding="utf-8")
        return conf
