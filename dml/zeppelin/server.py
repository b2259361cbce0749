"""A release of Zeppelin on this machine, as on the workbench of the embedded cloud: its notes, its role, its tables.

Whoever reaches a port of Zeppelin's interpreters has them run what he likes: they listen on all addresses, ask for no
login, and no setting changes either (RemoteInterpreterServer of 0.11.1). So server, interpreters and Spark have a
network of their own (dml/local/yarn/namespace.py), and the one way in is a port of 127.0.0.1 behind a login that is
made for each start. With that network all of its processes end, however the command ends.

The release is only read. What is written lies in one folder, which is taken away again; logs stay with the cloud's.
"""

import base64
import fcntl
import hashlib
import http.client
import json
import secrets
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO, Any
from xml.sax.saxutils import escape

from dml.errors import UserError
from dml.estate.platform import Platform, answering
from dml.local.cloud import Cloud
from dml.local.place import inner_environment
from dml.local.services.node import node_folder
from dml.local.spark import catalog
from dml.local.spark.gateway import GatewayProcess, mounts
from dml.local.spark.process import (
    COMPILED_QUICKLY,
    LAUNCHER_OPTIONS,
    QUICK_PYTHON,
    UNSEEN,
    cores,
    java_home,
    package,
)
from dml.local.yarn.namespace import Namespace, Relay
from dml.zeppelin.interpreter import NAME, PROPERTIES, put
from dml.zeppelin.release import Release
from dml.zeppelin.rest import Zeppelin
from dml.zeppelin.tunnel import PORT

USER = "analyst"
START_SECONDS = 180.0
SERVER_MB, MARKDOWN_MB = 512, 256  # of heap: the server took 250 MB in all, Markdown's interpreter 90
LOG4J = ("log4j.properties", "log4j2.properties", "configuration.xsl", "interpreter-list")
HASH_ROUNDS = 500_000  # as many as Shiro makes itself (DefaultPasswordService of 1.10)
# As the workbench on AWS has it (cluster/zeppelin.sh): one person, who may do all, and what is open without a login.
SHIRO = """[users]
{user} = {hashed}, analyst

[main]
passwordMatcher = org.apache.shiro.authc.credential.PasswordMatcher
iniRealm.credentialsMatcher = $passwordMatcher
sessionManager = org.apache.shiro.web.session.mgt.DefaultWebSessionManager
cookie = org.apache.shiro.web.servlet.SimpleCookie
cookie.name = JSESSIONID
cookie.httpOnly = true
cookie.sameSite = STRICT
sessionManager.sessionIdCookie = $cookie
securityManager.sessionManager = $sessionManager
securityManager.sessionManager.globalSessionTimeout = 86400000
shiro.loginUrl = /api/login

[roles]
analyst = *

[urls]
/api/version = anon
/** = authc
"""


def refusal(why: str) -> str:
    return (
        "Whoever reaches a port of Zeppelin's interpreters has them run what he likes, so it runs here only in a "
        f"network namespace of its own, and this machine does not let us make one: {why}. It takes Linux with user "
        "namespaces (unshare and nsenter of util-linux; in a container, the right to mount /proc)."
    )


class Workbench:
    """The workbench cluster of an environment in the embedded cloud, and how Zeppelin is set up on it."""

    def __init__(self, platform: Platform, told: Mapping[str, Any]) -> None:
        """`told`: what EMR says of the cluster."""
        self.cluster = str(told["Id"])
        with answering("list the buckets"):
            self.buckets = [one["Name"] for one in platform.s3.list_buckets()["Buckets"]]
        self._given = {one["Classification"]: one for one in told.get("Configurations", [])}

    @property
    def environment(self) -> dict[str, str]:
        """What zeppelin-env exports: where the notes are."""
        nested = self._given.get("zeppelin-env", {}).get("Configurations", [])
        return {name: value for one in nested for name, value in one.get("Properties", {}).items()}

    @property
    def site(self) -> dict[str, str]:
        return dict(self._given.get("zeppelin-site", {}).get("Properties", {}))


class Server:
    """One Zeppelin. `port` of 127.0.0.1, `user` and `password` let people in, once `running` has begun."""

    _outside: socket.socket  # listens on that port, from before Zeppelin starts

    _namespace: Namespace  # once it runs, as all of these
    environment: Mapping[str, str]  # of its processes

    def __init__(self, release: Release, cloud: Cloud, workbench: Workbench, *, home: Path, port: int = PORT) -> None:
        """`home`: the folder in which its own is made, one for each checkout. If `port` is taken it has another one."""
        self._release, self._cloud, self._workbench = release, cloud, workbench
        self.port, self.user, self.password = port, USER, secrets.token_urlsafe(18)
        self._home = home
        self._folder = (home / "zeppelin").absolute()
        self.logs = (cloud.place.logs / "zeppelin").absolute()
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """Not localhost, whose pages of any port Zeppelin takes for its own (CorsUtils of 0.11.1)."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def log(self) -> Path:
        return self.logs / "server.log"

    def client(self, *, seconds: float = 60.0) -> Zeppelin:
        return Zeppelin(self.port, self.user, self.password, seconds=seconds)

    @contextmanager
    def running(self) -> Iterator[None]:
        """For as long as the block lasts it runs; then nothing of it is left but its logs.

        Raises UserError if it does not start, or another one of this checkout runs.
        """
        with ExitStack() as ends:
            self._outside = ends.enter_context(self._listening())
            self.port = int(self._outside.getsockname()[1])
            ends.enter_context(self._alone())
            for folder in (self._folder, self.logs):  # what one that was killed has left; logs of the time before
                shutil.rmtree(folder, ignore_errors=True)
            ends.callback(shutil.rmtree, self._folder, ignore_errors=True)
            for name in ("conf", "tmp", "work", "spark"):
                (self._folder / name).mkdir(mode=0o700, parents=True)
            self.logs.mkdir(parents=True)
            self._start(ends)
            self._arrange()
            yield

    def wait(self) -> int:
        """Its exit code, when it has ended of its own accord."""
        assert self._process is not None  # noqa: S101  # it runs
        return self._process.wait()

    def process(self, words: Sequence[str], log: IO[bytes], more: Mapping[str, str]) -> "subprocess.Popen[bytes]":
        """A process in Zeppelin's network, with its environment and `more`; Zeppelin itself is one."""
        return subprocess.Popen(
            self._namespace.command(words, self._folder / "work"),
            env={**self.environment, **more},
            cwd=self._folder / "work",
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
            umask=0o077,
        )

    def why(self) -> str:
        """What it said last that tells of an error, with the place of its log."""
        lines = self.log.read_text(errors="replace").splitlines() if self.log.exists() else []
        logged = [line for file in sorted(self.logs.glob("zeppelin-*.log")) for line in _lines(file)]
        said = [line for line in [*logged, *lines] if "ERROR" in line or "Exception" in line] or lines or ["nothing"]
        return f"it said: {said[-1].strip()[:300]} (logs: {self.logs})"

    def _listening(self) -> socket.socket:
        """Its port is its own from now on: Zeppelin is told which one it is, and takes a minute to answer."""
        for port in (self.port, 0):
            try:
                return socket.create_server(("127.0.0.1", port), backlog=64)
            except OSError as error:
                why = error
        raise UserError(f"No port of 127.0.0.1 can be had for Zeppelin: {why}")

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Two would save each other's notes over."""
        with (self._home / "zeppelin.lock").open("a+") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                lock.seek(0)
                raise UserError(
                    f"A Zeppelin of this checkout runs already, at {lock.read().strip() or 'a port of its own'}: "
                    "end it first, in its terminal."
                ) from None
            lock.truncate(0)
            lock.write(self.url)
            lock.flush()
            yield

    def _start(self, ends: ExitStack) -> None:
        place = self._cloud.place
        namespace = Namespace(self._folder, refusal)
        ends.callback(lambda: self._process and self._process.wait())  # once its network has ended
        namespace.start()
        ends.callback(namespace.end)
        ends.callback(Relay.outwards(namespace.listen(place.port), place.port).close)
        environment = inner_environment(
            place.endpoint,
            self._cloud.node_credentials(self._workbench.cluster),
            home=self._folder / "work",
            scratch=self._folder / "tmp",
        )
        gateway = GatewayProcess(environment, self._folder / "work")
        with namespace.listen() as listening, (self.logs / "s3.log").open("wb") as log:
            token = gateway.start(log.fileno(), listening)
        ends.callback(gateway.end)
        if not gateway.serves():
            raise UserError(f"The S3 gateway of Zeppelin's Spark did not start (log: {self.logs / 's3.log'}).")
        token.write(self._folder / "gateway.token")
        self._configure(mounts(token.port, self._workbench.buckets, ()))
        self._namespace, self.environment = namespace, self._environment(environment)
        with self.log.open("wb") as log:
            self._process = self.process(["bash", str(self._release.home / "bin" / "zeppelin.sh")], log, {})
        gateway.serve(self._process.pid)
        self._wait(namespace)
        ends.callback(Relay(self._outside, lambda: namespace.connect(self.port)).close)

    def _wait(self, namespace: Namespace) -> None:
        assert self._process is not None  # noqa: S101  # it was started
        deadline = time.monotonic() + START_SECONDS
        while not _answers(namespace, self.port):
            if self._process.poll() is not None:
                raise UserError(f"Zeppelin ended as it started; {self.why()}")
            if time.monotonic() > deadline:
                raise UserError(f"Zeppelin did not answer within {START_SECONDS:.0f} s; {self.why()}")
            time.sleep(0.2)

    def _arrange(self) -> None:
        """Sets Spark's interpreter as `dml zeppelin` does on AWS, and as this machine has Spark and Python.

        By the REST API, as there: Zeppelin keeps what is one interpreter's own in a file that it alone writes.
        """
        zeppelin = self.client()
        put(zeppelin, zeppelin.asked("GET", f"/interpreter/setting/{NAME}"), self.spark_properties)

    @property
    def spark_properties(self) -> dict[str, str]:
        """What Spark's interpreter is told, on this machine and everywhere."""
        return {
            **PROPERTIES,
            "SPARK_HOME": str(package("pyspark")),
            "spark.master": f"local[{min(cores(), 8)}]",
            "PYSPARK_PYTHON": sys.executable,
            "PYSPARK_DRIVER_PYTHON": sys.executable,
            # IPython is in no lock file, here and on the nodes: without it Zeppelin comes to the same end, and later.
            "zeppelin.pyspark.useIPython": "false",
            "zeppelin.python.gatewayserver_address": "127.0.0.1",
        }

    def _configure(self, storage: Mapping[str, str]) -> None:
        """Writes what Zeppelin and Spark read; all of it is in a folder that only its owner opens."""
        conf, spark = self._folder / "conf", self._folder / "spark"
        for name in LOG4J:
            if (file := self._release.home / "conf" / name).is_file():
                shutil.copyfile(file, conf / name)
        _write(conf / "zeppelin-site.xml", site_xml(self._site()))
        _write(conf / "shiro.ini", SHIRO.format(user=self.user, hashed=hashed(self.password)))
        jar = catalog.compiled(self._cloud.place.cloud / "catalog", java_home(), package("pyspark") / "jars")
        told = {**self._spark(), **catalog.settings(jar), **storage}
        _write(spark / "spark-defaults.conf", "".join(f"{name} {value}\n" for name, value in told.items()))

    def _site(self) -> dict[str, str]:
        """The cluster's own settings, and what is this machine's: where it listens, and where it writes."""
        origins = ",".join(f"http://{host}:{self.port}" for host in ("localhost", "127.0.0.1"))
        places = {
            "zeppelin.war.tempdir": "webapps",
            "zeppelin.interpreter.localRepo": "local-repo",
            "zeppelin.dep.localrepo": "dep-repo",
            "zeppelin.notebook.dir": "notebook",
            "zeppelin.helium.registry": "helium",
            "zeppelin.recovery.dir": "recovery",
            "zeppelin.search.index.path": "index",
        }
        return {
            **self._workbench.site,
            "zeppelin.server.addr": "127.0.0.1",
            "zeppelin.server.port": str(self.port),
            "zeppelin.server.allowed.origins": origins,
            "zeppelin.interpreter.include": "spark,md",
            "zeppelin.run.mode": "local",
            "zeppelin.credentials.persist": "false",
            **{name: str(self._folder / "work" / folder) for name, folder in places.items()},
        }

    def _spark(self) -> dict[str, str]:
        scratch = str(self._folder / "tmp")
        return {
            "spark.driver.host": "127.0.0.1",
            "spark.driver.bindAddress": "127.0.0.1",
            "spark.ui.enabled": "false",
            "spark.ui.showConsoleProgress": "false",
            "spark.sql.shuffle.partitions": str(2 * min(cores(), 8)),
            "spark.local.dir": scratch,
            "spark.hadoop.hadoop.tmp.dir": scratch,
            "spark.sql.warehouse.dir": (self._folder / "work" / "warehouse").as_uri(),
            "spark.sql.sources.ignoreDataLocality": "true",  # as of a job here (dml/local/spark/process.py)
        }

    def _environment(self, inner: Mapping[str, str]) -> dict[str, str]:
        """The whole of it: the node's role, where things are, how much memory; nothing of the user's own."""
        java = f"{COMPILED_QUICKLY} {UNSEEN} -Djava.io.tmpdir={self._folder / 'tmp'}"
        derby = f"-Dderby.stream.error.file={self.logs / 'metastore.log'}"
        code = [QUICK_PYTHON["PYTHONPATH"], str(node_folder(self._cloud.place, self._workbench.cluster) / "code")]
        return {
            **inner,
            **QUICK_PYTHON,
            "PYTHONPATH": ":".join(code),  # as dml.pth has it on a node (cluster/bootstrap.sh)
            "TZ": "UTC",  # as on a node
            "JAVA_HOME": str(java_home()),
            "SPARK_HOME": str(package("pyspark")),
            "SPARK_CONF_DIR": str(self._folder / "spark"),
            "SPARK_LOCAL_IP": "127.0.0.1",
            "SPARK_LAUNCHER_OPTS": LAUNCHER_OPTIONS,
            "PYSPARK_PYTHON": sys.executable,
            "PYSPARK_DRIVER_PYTHON": sys.executable,
            "HADOOP_TOKEN_FILE_LOCATION": str(self._folder / "gateway.token"),
            **self._workbench.environment,
            "ZEPPELIN_NOTEBOOK_S3_ENDPOINT": inner["AWS_ENDPOINT_URL"],
            "ZEPPELIN_NOTEBOOK_S3_PATH_STYLE_ACCESS": "true",  # the buckets' names are no hosts here
            "ZEPPELIN_HOME": str(self._release.home),
            "ZEPPELIN_CONF_DIR": str(self._folder / "conf"),
            "ZEPPELIN_LOG_DIR": str(self.logs),
            "ZEPPELIN_PID_DIR": str(self._folder / "work"),
            "ZEPPELIN_IDENT_STRING": "local",
            "ZEPPELIN_LOCAL_IP": "127.0.0.1",
            "ZEPPELIN_MEM": f"-Xmx{SERVER_MB}m",
            "ZEPPELIN_INTP_MEM": f"-Xmx{MARKDOWN_MB}m",
            "ZEPPELIN_JAVA_OPTS": java,
            "ZEPPELIN_INTP_JAVA_OPTS": f"{java} {derby}",
            "USE_HADOOP": "false",
        }


def site_xml(properties: Mapping[str, str]) -> str:
    """zeppelin-site.xml."""
    body = "".join(
        f"<property><name>{escape(name)}</name><value>{escape(value)}</value></property>\n"
        for name, value in properties.items()
    )
    return f"<configuration>\n{body}</configuration>\n"


def hashed(password: str) -> str:
    """A password in Shiro's own form of a hash (Shiro 1.10: Shiro1CryptFormat, SimpleHash)."""
    salt = secrets.token_bytes(16)
    digest = hashlib.sha256(salt + password.encode()).digest()
    for _ in range(HASH_ROUNDS - 1):
        digest = hashlib.sha256(digest).digest()
    salted, told = (base64.b64encode(part).decode() for part in (salt, digest))
    return f"$shiro1$SHA-256${HASH_ROUNDS}${salted}${told}"


def _answers(namespace: Namespace, port: int) -> bool:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        connection.sock = namespace.connect(port)
        connection.request("GET", "/api/version")
        told: Any = json.loads(connection.getresponse().read())
    except (OSError, http.client.HTTPException, ValueError):
        return False
    finally:
        connection.close()
    return bool(told.get("status") == "OK")


def _lines(file: Path) -> list[str]:
    return file.read_text(errors="replace").splitlines()


def _write(file: Path, text: str) -> None:
    file.touch(mode=0o600)
    file.write_text(text, encoding="utf-8")
