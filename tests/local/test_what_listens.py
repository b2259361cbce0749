"""While a job runs: what listens, who may speak to it, and what others see of it (docs/security.md, "What listens")."""

import base64
import json
import os
import re
import socket
import struct
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from dml.local.cloud import Cloud
from dml.local.processes import command_line, command_lines
from tests.embedded import OPERATORS_OWN, Clients
from tests.local.conftest import Machine, until
from tests.local.sockets import Listening, descendants, listening
from tests.tables import table

NOBODY = 65534
OF_ALL = Path("/", "tmp")  # where Java writes, whatever TMPDIR says
SECRET = re.compile(r"^\w*(SECRET|TOKEN|PASSWORD)\w*$")


@dataclass(frozen=True)
class Running:
    """A job that waits, and the processes of the cloud that it runs in."""

    cloud: Cloud
    server: int
    ports: dict[str, int]  # as the job itself tells them
    execution: str

    @property
    def processes(self) -> list[int]:
        return descendants(self.server)

    def names(self) -> dict[Listening, str]:
        """Each socket, with what it is; one that nobody knows has its process's command for a name."""
        return {found: self._name(found) for found in listening(self.processes)}

    def port(self, name: str) -> int:
        (found,) = [one.port for one, known in self.names().items() if known == name]
        return found

    def _name(self, found: Listening) -> str:
        if found.pid == self.server and found.port == self.cloud.place.port:
            return "server of the embedded cloud"
        command = command_line(found.pid)
        for name, port in self.ports.items():
            if found.port == port:
                return name
        for name, module in (("S3 gateway", "dml.local.spark.s3_gateway"), ("Python workers", "pyspark.daemon")):
            if f"-m {module}" in command:
                return name
        return f"{found.address}:{found.port} of {command}"


@pytest.fixture(scope="module")
def running(cloud: Cloud, aws: Clients, machine: Machine) -> Iterator[Running]:
    """An EMR step that has run Python workers and now waits."""
    execution = machine.start(do="step", mode="listen")

    def told() -> dict[str, int] | None:
        texts = [log.read_text() for log in cloud.place.logs.glob("emr/*/containers/*/*/stdout")]
        said = [found for text in texts if (found := re.search(r"^listening (.*)\nhanging", text, re.MULTILINE))]
        return json.loads(said[0][1]) if said else None

    try:
        ports = until(told)
        server = json.loads((cloud.place.cloud / "server.json").read_text())["pid"]
        yield Running(cloud, server, ports, execution)
    finally:
        aws("stepfunctions").stop_execution(executionArn=execution)
        machine.finish(execution)


def test_all_that_listens_while_a_job_runs_should_be_in_the_table_and_on_loopback(running: Running) -> None:
    rows = table("What listens")
    assert set(running.names().values()) == {row[0] for row in rows if row[1] in ("always", "while a job runs")}
    assert {found.address for found in running.names()} == {"127.0.0.1"}


# --- another account of the machine ---


def as_another_account(attempt: Callable[[], Any]) -> Any:
    """What `attempt` returns, as JSON has it, in a process of an account that has nothing of ours."""
    if os.geteuid() != 0:
        pytest.skip("only root may act as another account of the machine")
    read, write = os.pipe()
    child = os.fork()  # of this very Python: another account may not be able to start it
    if child == 0:
        answer: Any = "it did not get that far"
        try:
            os.setgroups([])
            os.setgid(NOBODY)
            os.setuid(NOBODY)
            answer = attempt()
        except BaseException as error:  # noqa: BLE001 - nothing of pytest may go on in this process
            answer = f"{type(error).__name__}: {error}"
        finally:
            os.write(write, json.dumps(answer).encode())
            os._exit(0)
    os.close(write)
    with os.fdopen(read) as answered:
        said = json.loads(answered.read())
    os.waitpid(child, 0)
    return said


def heard(port: int, said: bytes) -> str:
    """What a port answers until it hangs up, or for as long as anyone would wait."""
    with socket.create_connection(("127.0.0.1", port), timeout=10) as plain:
        plain.settimeout(2)
        answer = b""
        try:
            plain.sendall(said)
            while more := plain.recv(65536):
                answer += more
        except OSError:
            pass
    return answer.decode("latin-1")


def spark_message(kind: int, body: bytes) -> bytes:
    """A frame of Spark's transport: its length, the kind of message, and what that kind has."""
    return struct.pack(">qb", 9 + len(body), kind) + body


RPC, RPC_FAILURE, STREAM, STREAM_FAILURE = 3, 5, 6, 8  # org.apache.spark.network.protocol.Message.Type


def counted(text: bytes) -> bytes:
    return struct.pack(">i", len(text)) + text


def test_another_account_should_get_nothing_from_any_port(
    running: Running, aws: Clients, platform: dict[str, str]
) -> None:
    bucket = platform["Data"]
    before = [one["Key"] for one in aws("s3").list_objects_v2(Bucket=bucket)["Contents"]]
    gateway = running.port("S3 gateway")

    def http(line: str) -> bytes:
        return (
            f"{line} HTTP/1.1\r\nHost: 127.0.0.1:{gateway}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n".encode()
        )

    rpc = spark_message(RPC, struct.pack(">q", 7) + counted(b"\0" * 16))
    file = spark_message(STREAM, counted(b"/files/prepare.py"))
    attempts = {
        "list": (gateway, http(f"GET /webhdfs/v1/{bucket}/raw?op=LISTSTATUS&user.name=hadoop")),
        "read": (gateway, http(f"GET /webhdfs/v1/{bucket}/raw/people/1.csv?op=OPEN&step=data")),
        "write": (gateway, http(f"PUT /webhdfs/v1/{bucket}/lake/evil?op=CREATE&step=data")),
        "py4j": (running.ports["py4j"], b"r\nu\njava.lang.Runtime\ne\n"),
        "accumulators": (running.ports["accumulators of PySpark"], b"\0" * 512),
        "worker": (running.port("Python workers"), counted(b"x" * 64)),
    }
    for name in ("driver RPC of Spark", "block manager of Spark"):
        attempts |= {f"{name}: call": (running.ports[name], rpc), f"{name}: file": (running.ports[name], file)}
    answers = as_another_account(lambda: {name: heard(*attempt) for name, attempt in attempts.items()})

    for name in ("list", "read", "write"):
        assert answers[name].startswith("HTTP/1.1 403 Forbidden")
    assert answers["py4j"] == "!xsAuthentication error: unexpected command.\n"
    assert answers["accumulators"] == ""
    assert answers["worker"][4:] == "\0\0\0\x03err"  # behind its number
    for name in ("driver RPC of Spark", "block manager of Spark"):
        assert answers[f"{name}: call"][8:9] == chr(RPC_FAILURE)
        # Spark looks for a file before it asks who wants it. Where all of it is one process, it has none to give.
        assert answers[f"{name}: file"][8:9] == chr(STREAM_FAILURE)
    assert [one["Key"] for one in aws("s3").list_objects_v2(Bucket=bucket)["Contents"]] == before
    assert aws("stepfunctions").describe_execution(executionArn=running.execution)["status"] == "RUNNING"


# --- what others see ---


def environment(pid: int) -> dict[str, str]:
    text = Path(f"/proc/{pid}/environ").read_bytes().decode()
    return dict(line.split("=", 1) for line in text.split("\0") if "=" in line)


@pytest.mark.skipif(sys.platform != "linux", reason="macOS tells no process the environment of another")
def test_what_runs_in_the_cloud_should_have_nothing_of_its_starters_environment(running: Running, cloud: Cloud) -> None:
    inner = [pid for pid in running.processes if pid != running.server]
    assert len(inner) >= 4  # gateway, Java, the script, Python workers
    for pid in inner:
        found = environment(pid)
        assert "the-operators-own" not in found.values(), command_line(pid)
        assert found["HOME"].startswith(str(cloud.place.cloud))
    # Other clusters of the session's cloud do not tell.
    logs = [log.read_text() for log in cloud.place.logs.rglob("bootstrap-actions/1/stdout")]
    said = next(log for log in logs if "environment: " in log)
    names = re.search(r"^environment: (.*)$", said, re.MULTILINE)
    assert names and "AWS_SECRET_ACCESS_KEY" in names[1].split()
    assert not set(OPERATORS_OWN) & set(names[1].split())
    assert f"\nhome: {cloud.place.cloud.absolute() / 'nodes'}" in said


@pytest.mark.skipif(sys.platform != "linux", reason="macOS tells no process the environment of another")
def test_no_secret_of_a_running_job_should_be_on_a_command_line_or_in_a_log(running: Running, cloud: Cloud) -> None:
    (file,) = cloud.place.cloud.glob("work/*/*/gateway.token")
    assert file.stat().st_mode & 0o777 == 0o600 and file.parent.stat().st_mode & 0o777 == 0o700
    written = file.read_bytes()
    token = written[7 + written[6] : -1]  # behind the address that it is for
    secrets = {token[2:34].hex(), base64.urlsafe_b64encode(token).decode().rstrip("=")}
    for pid in running.processes:
        found = environment(pid).items()
        secrets |= {value for name, value in found if SECRET.fullmatch(name) and value != "the-operators-own"}
    assert len(secrets) >= 6  # of the role, two; py4j's; the Python workers'; the gateway's, in two ways
    kept = [*cloud.place.cloud.rglob("*.log"), *cloud.place.logs.rglob("std*")]
    logs = "".join(log.read_text(errors="replace") for log in kept)
    assert "hanging" in logs
    for secret in secrets:
        assert not [line for line in command_lines().values() if secret in line]
        assert secret not in logs


def test_no_java_should_leave_a_trace_in_the_tmp_of_all(running: Running) -> None:
    (java,) = [pid for pid in running.processes if "org.apache.spark.deploy.SparkSubmit" in command_line(pid)]
    assert not list(OF_ALL.glob(f"hsperfdata_*/{java}"))
    assert not list(OF_ALL.glob(f".java_pid{java}"))
