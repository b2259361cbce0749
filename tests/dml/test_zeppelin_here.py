"""`dml zeppelin --local` short of a Zeppelin: what it is given, who reaches it, and what is left of it.

A script stands for the release: it tells what it was started with, answers what is asked as Zeppelin starts, listens on
all addresses as Zeppelin's interpreters do, and leaves a process behind. Notes on a real server: `make test-zeppelin`.
"""

import json
import os
import re
import signal
import socket
import stat
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from dml.checkout import PROJECT
from dml.errors import UserError
from dml.local.place import Place
from dml.local.processes import command_lines
from dml.local.spark import catalog
from dml.local.yarn import namespace
from dml.zeppelin.release import Release
from dml.zeppelin.rest import Zeppelin
from dml.zeppelin.server import Server, Workbench
from stacks.emr import zeppelin_configurations
from tests.local.conftest import until

CLUSTER, BUCKET = "j-0123456789ABC", "dml-dev-workspace"
SCRIPT = """#!/bin/bash
env -0 > "$ZEPPELIN_LOG_DIR/environment"
setsid {left} &
exec "{python}" "$ZEPPELIN_HOME/server.py"
"""
SERVER = """
import base64, hashlib, json, os, re, socket, threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs

conf, logs = (Path(os.environ[f"ZEPPELIN_{name}_DIR"]) for name in ("CONF", "LOG"))
user, rounds, salt, hashed = re.search(
    r"(\\S+) = \\$shiro1\\$SHA-256\\$(\\d+)\\$(\\S+)\\$(\\S+),", (conf / "shiro.ini").read_text()
).groups()
port = int(re.search(r"server.port</name><value>(\\d+)", (conf / "zeppelin-site.xml").read_text())[1])
interpreter = socket.create_server(("0.0.0.0", 0))  # as Zeppelin's listen
(logs / "interpreter").write_text(str(interpreter.getsockname()[1]))
(logs / "cloud").write_text(str(socket.create_connection(("127.0.0.1", int(os.environ["CLOUD_PORT"]))).recv(5)))
if (Path(os.environ["ZEPPELIN_HOME"]) / "broken").exists():
    raise SystemExit("ERROR: no space left")


def is_the(password):
    told = base64.b64decode(salt) + password.encode()
    for _ in range(int(rounds)):
        told = hashlib.sha256(told).digest()
    return base64.b64decode(hashed) == told


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        told = self.rfile.read(int(self.headers.get("Content-Length") or 0)).decode()
        if self.path == "/api/version":
            return self.answer(200, {})
        if self.path == "/api/login":
            given = parse_qs(told)
            ok = given.pop("userName") == [user] and is_the(*given.pop("password")) and not given
            return self.answer(200 if ok else 403, {}, "JSESSIONID=in; HttpOnly")
        if self.headers.get("Cookie") != "JSESSIONID=in":
            return self.answer(401, {})
        if self.command == "PUT":
            (logs / "put").write_text(told)
        self.answer(200, {"properties": {"spark.master": {"name": "spark.master", "value": "yarn"}}, "option": {}})

    do_POST = do_PUT = do_GET

    def answer(self, status, body, cookie=""):
        text = json.dumps({"status": "OK", "body": body}).encode()
        self.send_response(status)
        if cookie:
            self.send_header("Set-Cookie", cookie)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)


ThreadingHTTPServer(("127.0.0.1", port), Handler).serve_forever()
"""
KEYS = {"AWS_ACCESS_KEY_ID": "ASIA", "AWS_SECRET_ACCESS_KEY": "of-the-nodes", "AWS_SESSION_TOKEN": "token"}


@dataclass(frozen=True)
class Made:
    """A server that is to run, the folder of its checkout, and its release."""

    server: Server
    home: Path
    release: Path

    def told(self, name: str) -> str:
        return (self.server.logs / name).read_text()

    @property
    def leaves(self) -> str:
        """The command that the script leaves running, which no other one's does."""
        return f"sleep 613.{self.home.stat().st_ino}"

    @property
    def left(self) -> list[int]:
        return [pid for pid, command in command_lines().items() if command == self.leaves]

    @property
    def environment(self) -> dict[str, str]:
        return dict(one.split("=", 1) for one in self.told("environment").split("\0") if one)

    @property
    def conf(self) -> Path:
        return Path(self.environment["ZEPPELIN_CONF_DIR"])

    @property
    def site(self) -> dict[str, str]:
        found = ElementTree.parse(self.conf / "zeppelin-site.xml").getroot()  # noqa: S314  # we wrote it
        return {str(one.findtext("name")): str(one.findtext("value")) for one in found}


def configurations() -> list[dict[str, Any]]:
    """As DescribeCluster tells what stacks/emr.py asks for."""
    return [
        {
            "Classification": one.classification,
            "Properties": dict(one.properties),
            "Configurations": [
                {"Classification": inner.classification, "Properties": dict(inner.properties)}
                for inner in one.configurations
            ],
        }
        for one in zeppelin_configurations(bucket=BUCKET, region="us-east-1", idle_seconds=1800)
    ]


def server(home: Path, release: Path, cloud: int, port: int = 0) -> Server:
    place = Place(home, cloud)
    (place.cloud / "nodes" / CLUSTER / "code").mkdir(parents=True, exist_ok=True)
    held: Any = SimpleNamespace(place=place, node_credentials=lambda cluster: {**KEYS, "CLOUD_PORT": str(cloud)})
    platform: Any = SimpleNamespace(s3=SimpleNamespace(list_buckets=lambda: {"Buckets": [{"Name": "dml-dev-lake"}]}))
    workbench = Workbench(platform, {"Id": CLUSTER, "Configurations": configurations()})
    return Server(Release(release, "0.11.1"), held, workbench, home=home, port=port)


@pytest.fixture(scope="module")
def cloud() -> Iterator[int]:
    """A port that says hello, in place of the embedded cloud's."""
    with socket.create_server(("127.0.0.1", 0), backlog=64) as listening:
        pid = os.fork()
        if pid == 0:
            while True:
                listening.accept()[0].sendall(b"hello")
        yield listening.getsockname()[1]
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


def unpacked(folder: Path, cloud: int) -> Made:
    """A release of scripts, and a folder for what it writes."""
    home, release = folder / ".dml", folder / "zeppelin"
    for made in (home, release / "bin", release / "conf"):
        made.mkdir(parents=True)
    (release / "conf" / "log4j.properties").write_text("log4j.rootLogger = INFO\n")
    (release / "server.py").write_text(SERVER)
    one = Made(server(home, release, cloud), home, release)
    (release / "bin" / "zeppelin.sh").write_text(SCRIPT.format(left=one.leaves, python=sys.executable))
    return one


@pytest.fixture(scope="module", autouse=True)
def without_spark() -> Iterator[None]:
    """Nothing of Spark is started: its catalog need not be compiled. The operator has settings of his own."""
    try:
        namespace.check()
    except UserError as why:
        pytest.skip(str(why))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(catalog, "compiled", lambda folder, java, jars: folder / "glue-catalog.jar")
        patch.setenv("AWS_PROFILE", "the-operators-own")
        yield


@pytest.fixture
def made(tmp_path: Path, cloud: int) -> Made:
    return unpacked(tmp_path, cloud)


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory, cloud: int) -> Iterator[Made]:
    one = unpacked(tmp_path_factory.mktemp("running"), cloud)
    with one.server.running():
        yield one


def test_zeppelin_should_have_the_workbenchs_notes_and_role_and_nothing_of_the_operator(running: Made) -> None:
    given, site = running.environment, running.site
    assert KEYS.items() <= given.items()
    assert not given.keys() & {"AWS_PROFILE", "SSH_AUTH_SOCK"}
    assert given["ZEPPELIN_NOTEBOOK_S3_BUCKET"] == BUCKET
    assert given["ZEPPELIN_NOTEBOOK_S3_USER"] == "zeppelin"
    assert given["ZEPPELIN_NOTEBOOK_STORAGE"].endswith(".S3NotebookRepo")
    assert given["ZEPPELIN_NOTEBOOK_S3_ENDPOINT"] == given["AWS_ENDPOINT_URL"]
    assert given["ZEPPELIN_NOTEBOOK_S3_PATH_STYLE_ACCESS"] == "true"
    assert str(running.home / "cloud" / "nodes" / CLUSTER / "code") in given["PYTHONPATH"].split(":")
    assert given["PYSPARK_PYTHON"] == sys.executable
    assert site["zeppelin.interpreter.lifecyclemanager.timeout.threshold"] == "1800000"
    port = running.server.port
    assert site["zeppelin.server.allowed.origins"] == f"http://localhost:{port},http://127.0.0.1:{port}"
    spark = (Path(given["SPARK_CONF_DIR"]) / "spark-defaults.conf").read_text()
    assert "spark.sql.catalog.spark_catalog dml.GlueCatalog\n" in spark
    assert re.search(r"mounttable\.dml-dev-lake\.linkFallback webhdfs://127\.0\.0\.1:\d+/dml-dev-lake\n", spark)
    told = json.loads(running.told("put"))
    assert told["option"] == {"perNote": "scoped"}
    values = {name: one["value"] for name, one in told["properties"].items()}
    assert re.fullmatch(r"local\[\d+\]", values["spark.master"])
    assert values["spark.driver.memory"] == "2g"


def test_what_zeppelin_is_given_should_be_its_owners_alone(running: Made) -> None:
    assert stat.S_IMODE(running.conf.stat().st_mode) == 0o700
    for file in ("shiro.ini", "zeppelin-site.xml"):
        assert stat.S_IMODE((running.conf / file).stat().st_mode) == 0o600
        assert running.server.password not in (running.conf / file).read_text()
    lines = command_lines().values()
    assert not [line for line in lines if running.server.password in line or "of-the-nodes" in line]


def test_the_login_should_be_asked_for_as_on_the_workbench_on_aws(running: Made) -> None:
    script = (PROJECT / "cluster" / "zeppelin.sh").read_text()
    (there,) = re.findall(r'print\(f"""(.*?)"""\)', script, re.DOTALL)
    here = (running.conf / "shiro.ini").read_text()
    there, here = ([line for line in text.splitlines() if not line.startswith("#")] for text in (there, here))
    assert there.pop(1) == '{login["user"]} = $shiro1$SHA-256${rounds}${salted}${hashed}, analyst'
    assert re.fullmatch(r"analyst = \$shiro1\$SHA-256\$500000\$[\w+/=]+\$[\w+/=]+, analyst", here.pop(1))
    assert "500_000" in script
    assert here == there


def test_one_port_of_loopback_should_lead_to_zeppelin_and_none_to_its_interpreters(running: Made) -> None:
    assert running.told("cloud") == str(b"hello"), "it reaches the embedded cloud"
    assert Zeppelin(running.server.port).asked("GET", "/version") == {}
    with pytest.raises(UserError, match="401"):
        Zeppelin(running.server.port).asked("GET", "/notebook")
    assert running.server.client().asked("GET", "/notebook")
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", int(running.told("interpreter"))), timeout=5)


def test_nothing_should_be_left_but_logs_and_the_release_as_it_was(made: Made) -> None:
    before = sorted(made.release.rglob("*"))
    with made.server.running():
        assert made.left
        first = made.server.password
    assert made.left == []
    assert sorted(made.release.rglob("*")) == before
    assert sorted(path.name for path in made.home.iterdir()) == ["cloud", "zeppelin.lock"]
    assert server(made.home, made.release, 1).password != first
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", made.server.port), timeout=5)


def test_two_of_a_checkout_should_not_save_each_others_notes_over(made: Made) -> None:
    with made.server.running():
        second = server(made.home, made.release, 1)
        with pytest.raises(UserError, match=f"runs already, at {made.server.url}: end it first"), second.running():
            pass
        assert made.server.client().asked("GET", "/notebook"), "the first one is as it was"


def test_two_checkouts_that_start_together_should_have_a_port_each(
    tmp_path: Path, cloud: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second starts while the first one's Zeppelin does not answer yet, and wants the same port."""
    first, second = (unpacked(tmp_path / name, cloud).server for name in ("first", "second"))
    wait = Server._wait

    def later(self: Server, inside: namespace.Namespace) -> None:
        if self is first:
            second.port = first.port
            ends.enter_context(second.running())
        wait(self, inside)

    monkeypatch.setattr(Server, "_wait", later)
    with ExitStack() as ends, first.running():
        assert first.port != second.port
        for one in (first, second):
            assert one.client().asked("GET", "/notebook"), "each with its own password"


def test_a_machine_without_a_free_port_should_be_told_so(made: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError("Address already in use")

    monkeypatch.setattr(socket, "create_server", full)
    with pytest.raises(UserError, match=r"No port of 127\.0\.0\.1 can be had for Zeppelin: Address already in use"):
        made.server.running().__enter__()


def test_a_zeppelin_that_does_not_start_should_be_told_with_its_last_words_and_nothing_left(made: Made) -> None:
    (made.release / "broken").touch()
    with pytest.raises(UserError, match=r"ended as it started; it said: ERROR: no space left \(logs: ") as told:
        made.server.running().__enter__()
    assert str(made.server.logs) in str(told.value)
    assert made.left == []
    assert not (made.home / "zeppelin").exists()


OWNER = """
import sys, time
from pathlib import Path
sys.path.insert(0, {project!r})
from dml.local.spark import catalog
from dml.zeppelin import tunnel
from tests.dml.test_zeppelin_here import server

catalog.compiled = lambda folder, java, jars: folder / "glue-catalog.jar"
one = server(Path({home!r}), Path({release!r}), {cloud})
try:
    with tunnel.interrupted_by_the_end_of_the_terminal(), one.running():
        print("stands", flush=True)
        one.wait()
except KeyboardInterrupt:
    print("ended", flush=True)
"""


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGHUP, signal.SIGKILL])
def test_all_of_it_should_end_however_its_owner_ends(made: Made, cloud: int, how: signal.Signals) -> None:
    script = OWNER.format(project=str(PROJECT), home=str(made.home), release=str(made.release), cloud=cloud)
    owner = subprocess.Popen([sys.executable, "-c", script], cwd=PROJECT, stdout=subprocess.PIPE, text=True)
    assert owner.stdout is not None
    with owner.stdout:
        assert owner.stdout.readline() == "stands\n"
        assert made.left
        owner.send_signal(how)
        said = owner.stdout.read()
    owner.wait()
    until(lambda: not made.left)
    if how == signal.SIGKILL:
        with made.server.running():  # what was left of its folder is in nobody's way
            assert made.server.client().asked("GET", "/notebook")
    else:
        assert said == "ended\n"
    assert not (made.home / "zeppelin").exists()


def test_a_machine_without_namespaces_should_be_told_why_zeppelin_needs_one(
    made: Made, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(namespace, "UNSHARE", ("unshare-of-nobody",))
    with pytest.raises(UserError, match=r"(?s)Zeppelin's interpreters .* unshare-of-nobody is not installed"):
        made.server.running().__enter__()
