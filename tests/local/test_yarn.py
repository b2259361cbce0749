"""YARN, short of starting one (tests/e2e/test_on_yarn.py does): its network, its jars, its settings, its logs."""

import hashlib
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import pytest

from dml.checkout import PROJECT
from dml.errors import UserError
from dml.local.processes import command_line
from dml.local.services import emr
from dml.local.services.step_logs import YarnLogs, failure_details
from dml.local.spark.process import Outcome
from dml.local.yarn import jars, namespace
from dml.local.yarn.daemons import LABEL, Yarn
from dml.local.yarn.jars import Jar
from dml.local.yarn.namespace import Relay
from tests.command import run_dml
from tests.local.conftest import until
from tests.local.sockets import descendants

OWNER = """
import subprocess, sys, time
from pathlib import Path
from dml.local.yarn.namespace import Namespace

made = Namespace(Path.cwd())
made.start()
inside = subprocess.Popen(made.command(["setsid", "sleep", "600"], Path.cwd()), stdout=subprocess.DEVNULL)
made.listen(8032)
print("stands", flush=True)
time.sleep(600)
"""


def test_all_of_a_network_should_end_with_its_owner_however_that_ends(tmp_path: Path) -> None:
    try:
        namespace.check()
    except UserError as why:
        pytest.skip(str(why))
    owner = subprocess.Popen(
        [sys.executable, "-c", OWNER],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(PROJECT)},
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        assert owner.stdout is not None
        assert owner.stdout.readline() == "stands\n"
        until(lambda: any("sleep 600" in command_line(pid) for pid in descendants(owner.pid)))
        mine = [pid for pid in descendants(owner.pid) if pid != owner.pid]
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", 8032), timeout=5)
    finally:
        owner.send_signal(signal.SIGKILL)
        owner.wait()
        owner.stdout.close()
    until(lambda: not any(re.search("sleep 600|yarn.inside", command_line(pid)) for pid in mine))


@pytest.mark.parametrize(
    ("programs", "why"),
    [
        (("unshare-of-nobody",), "unshare-of-nobody is not installed"),
        (("sh", "-c", "echo unshare: Operation not permitted >&2; exit 1"), "unshare: Operation not permitted"),
    ],
)
def test_a_machine_without_namespaces_should_be_told_what_it_lacks_and_the_way_out(
    programs: tuple[str, ...], why: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(namespace, "UNSHARE", programs)
    with pytest.raises(UserError, match="does not let us make one: ") as refused:
        namespace.check()
    assert f": {why}. It takes Linux with user namespaces" in str(refused.value)
    assert str(refused.value).endswith("Without --yarn the same steps run on local Spark.")


def test_a_relay_should_bring_all_of_both_sides_and_then_close(tmp_path: Path) -> None:
    text = os.urandom(3_000_000)
    with socket.create_server(("127.0.0.1", 0)) as inside, socket.create_server(("127.0.0.1", 0)) as outside:

        def answer() -> None:
            connection, _ = outside.accept()
            with connection:
                got = b"".join(iter(lambda: connection.recv(65536), b""))
                connection.sendall(got[::-1])

        threading.Thread(target=answer, daemon=True).start()
        address = inside.getsockname()
        relay = Relay.outwards(inside, outside.getsockname()[1])
        with socket.create_connection(address, timeout=20) as client:
            sending = threading.Thread(target=lambda: (client.sendall(text), client.shutdown(socket.SHUT_WR)))
            sending.start()
            assert b"".join(iter(lambda: client.recv(65536), b"")) == text[::-1]
            sending.join()
        relay.close()
        with pytest.raises(OSError), socket.create_connection(address, timeout=5) as late:
            late.recv(1)
            raise ConnectionResetError


# --- jars ---


def mirror(folder: Path, content: bytes) -> Path:
    """A mirror of Maven's with one jar; the settings that name it."""
    place = folder / "maven" / "org" / "example" / "yarn" / "1.0"
    place.mkdir(parents=True)
    (place / "yarn-1.0.jar").write_bytes(content)
    (place / "yarn-1.0.pom").write_text(
        "<project><modelVersion>4.0.0</modelVersion><groupId>org.example</groupId><artifactId>yarn</artifactId>"
        "<version>1.0</version><dependencies><dependency><groupId>org.example</groupId><artifactId>nowhere</artifactId>"
        "<version>1</version></dependency></dependencies></project>"
    )
    settings = folder / "ivysettings.xml"
    settings.write_text(
        '<ivysettings><settings defaultResolver="mirror"/><resolvers>'
        f'<ibiblio name="mirror" m2compatible="true" root="{(folder / "maven").as_uri()}/"/>'
        "</resolvers></ivysettings>"
    )
    return settings


def test_jars_should_come_from_a_mirror_once_and_only_if_they_are_the_right_bytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = Jar("org.example", "yarn", "1.0", hashlib.sha256(b"right").hexdigest())
    monkeypatch.setattr(jars, "JARS", (wanted,))
    said: list[str] = []
    for name, content in (("false", b"wrong"), ("true", b"right")):
        (tmp_path / name).mkdir()
        monkeypatch.setenv(jars.SETTINGS_VARIABLE, str(mirror(tmp_path / name, content)))
        if name == "false":
            with pytest.raises(UserError, match=r"what came as yarn-1\.0\.jar has another SHA-256 than ") as refused:
                jars.ready(tmp_path, said.append)
            assert "mvn dependency:copy" in str(refused.value)
    folder = jars.ready(tmp_path, said.append)
    assert [file.name for file in folder.iterdir()] == ["yarn-1.0.jar"]
    assert len(said) == 2
    assert jars.ready(tmp_path, said.append) == folder
    assert len(said) == 2  # nothing was asked for again
    (folder / "yarn-1.0.jar").write_bytes(b"bent")
    jars.ready(tmp_path, said.append)
    assert (folder / "yarn-1.0.jar").read_bytes() == b"right"


def test_jars_that_are_nowhere_should_be_refused_in_the_words_of_who_looked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    said = (
        ":: problems summary ::\n:::: ERRORS\n\tServer access error at url https://nowhere/ (UnknownHostException)\n"
        ":: USE VERBOSE OR DEBUG MESSAGE LEVEL FOR MORE DETAILS\n"
    )
    assert jars.why(said) == "Server access error at url https://nowhere/ (UnknownHostException)"
    assert jars.why("something else\n") == "something else"


# --- what a cluster says ---


def properties(file: Path) -> dict[str, str]:
    root = ET.parse(file).getroot()  # noqa: S314 - our own
    return {one.findtext("name", ""): one.findtext("value", "") for one in root}


def test_the_clusters_own_classifications_should_count(tmp_path: Path) -> None:
    python = "/opt/dml/python/bin/python"
    given = [
        ("yarn-site", {"yarn.node-labels.enabled": "true", LABEL: "ON_DEMAND"}),
        ("capacity-scheduler", {"yarn.scheduler.capacity.maximum-am-resource-percent": "1"}),
        ("spark-defaults", {"spark.yarn.maxAppAttempts": "1", "spark.executorEnv.PYSPARK_PYTHON": python}),
    ]
    yarn = Yarn(
        folder=tmp_path / "node",
        logs=tmp_path / "logs",
        jars=tmp_path,
        port=4566,
        python="/usr/bin/python3",
        configurations=[{"Classification": name, "Properties": values} for name, values in given],
        labels=("ON_DEMAND", "SPOT"),
    )
    (tmp_path / "node").mkdir()
    yarn.configure()
    assert properties(yarn.conf / "yarn-site.xml")["yarn.node-labels.enabled"] == "true"
    queues = properties(yarn.conf / "capacity-scheduler.xml")
    assert queues["yarn.scheduler.capacity.maximum-am-resource-percent"] == "1"
    labels = [
        properties(yarn.conf.with_name(f"conf-{node}") / "yarn-site.xml")[
            "yarn.nodemanager.node-labels.provider.configured-node-partition"
        ]
        for node in (0, 1)
    ]
    assert labels == ["ON_DEMAND", "SPOT"]
    told = yarn.defaults({"AWS_REGION": "us-east-1"})
    assert told["spark.yarn.maxAppAttempts"] == "1"
    assert told["spark.yarn.am.nodeLabelExpression"] == "ON_DEMAND"
    for where in ("spark.yarn.appMasterEnv", "spark.executorEnv"):
        assert told[f"{where}.AWS_REGION"] == "us-east-1"
        assert told[f"{where}.PYSPARK_PYTHON"] == "/usr/bin/python3"  # EMR's own is on its machines only


def test_a_step_on_yarn_should_be_told_of_as_emr_tells_of_it(tmp_path: Path) -> None:
    logs = YarnLogs(tmp_path, "s-1")
    container = tmp_path / "containers" / "application_1_0002" / "container_1_0002_01_000001"
    container.mkdir(parents=True)
    (container / "stdout").write_text("ValueError: no\n")
    other = tmp_path / "containers" / "application_1_0001" / "container_1_0001_01_000001"
    other.mkdir(parents=True)
    (other / "stdout").write_text("another step's\n")
    logs.errors.parent.mkdir(parents=True)
    last = 'Exception in thread "main" org.apache.spark.SparkException: Application application_1_0002 finished ...'
    logs.errors.write_text(f"26/11/30 INFO YarnClientImpl: Submitted application application_1_0002\n{last}\n\tat x\n")
    assert logs.tell(Outcome(0, "")) is None
    assert logs.tell(Outcome(1, "")) == last
    assert set(logs.files()) == {"steps/s-1/stderr", "containers/application_1_0002/container_1_0002_01_000001/stdout"}
    # Killed before it could say a word: EMR has no Message then.
    logs.errors.write_text("")
    assert logs.tell(Outcome(143, "")) == ""
    assert "Message" not in failure_details("", "s3://logs/", "j-1", "s-1")
    assert (
        logs.tell(Outcome(1, "YARN did not start: look there."))
        == 'Exception in thread "main" YARN did not start: look there'
    )


def test_yarn_should_be_refused_where_it_is_not_ours_to_choose(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    code, _, err = run_dml(monkeypatch, capsys, "run", "penguins", "--yarn")
    assert code == 2
    assert "--yarn goes with --local" in err
    rows = tmp_path / "rows.csv"
    rows.write_text("a\n1\n")
    code, _, err = run_dml(monkeypatch, capsys, "predict", str(rows), "--yarn", "--local")
    assert code == 2
    assert "--yarn go with a dataset" in " ".join(err.replace("│", "").split())


@pytest.mark.parametrize(
    ("groups", "fleets", "told"),
    [
        ([("MASTER", "m7g.4xlarge"), ("CORE", "m7g.xlarge")], [], ["m7g.xlarge"]),
        ([], [("MASTER", ["m7g.xlarge"]), ("CORE", ["m7g.2xlarge", "r7g.2xlarge"])], ["m7g.2xlarge", "r7g.2xlarge"]),
        ([("MASTER", "m7g.4xlarge")], [], ["m5.xlarge"]),
    ],
)
def test_nodes_should_be_as_large_as_the_clusters_own_beside_the_primary(groups: Any, fleets: Any, told: Any) -> None:
    cluster = {
        "InstanceGroups": [{"InstanceGroupType": role, "InstanceType": kind} for role, kind in groups],
        "InstanceFleets": [
            {"InstanceFleetType": role, "InstanceTypeSpecifications": [{"InstanceType": kind} for kind in kinds]}
            for role, kinds in fleets
        ],
    }
    assert emr._instance_types(cluster) == told
