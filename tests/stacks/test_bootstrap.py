"""cluster/bootstrap.sh and zeppelin.sh as a starting node runs them, with the embedded cloud in AWS's place."""

import base64
import configparser
import hashlib
import json
import os
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

from dml.local.cloud import Cloud
from stacks import code
from tests.embedded import Clients

SCRIPT = Path(__file__).parent.parent.parent / "cluster" / "bootstrap.sh"
PARAMETERS = "/dml/test/cluster"
BUCKET = "dml-test-bootstrap"
NOTE = "zeppelin/notebook/nyc_flights/Explore_2ABC.zpln"


def digest(text: str) -> str:
    """As a wheel's RECORD has it."""
    return base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).rstrip(b"=").decode()


def wheel(folder: Path) -> str:
    """A wheel that only a Graviton machine could load, and its line of the lock."""
    path = folder / "onlyarm-1.0-cp311-cp311-manylinux_2_28_aarch64.whl"
    files = {
        "onlyarm.py": "VALUE = 42\n",
        "onlyarm-1.0.dist-info/METADATA": "Metadata-Version: 2.1\nName: onlyarm\nVersion: 1.0\n",
        "onlyarm-1.0.dist-info/WHEEL": "Wheel-Version: 1.0\nTag: cp311-cp311-manylinux_2_28_aarch64\n",
    }
    record = "".join(f"{name},sha256={digest(text)},{len(text)}\n" for name, text in files.items())
    with zipfile.ZipFile(path, "w") as archive:
        for name, text in (files | {"onlyarm-1.0.dist-info/RECORD": record}).items():
            archive.writestr(name, text)
    return f"onlyarm==1.0 --hash=sha256:{hashlib.sha256(path.read_bytes()).hexdigest()}\n"


@dataclass
class Node:
    """A machine that starts: its folder, and what its environment says of it."""

    home: Path
    environment: Mapping[str, str]

    def tool(self, name: str, script: str) -> None:
        """Puts a program in the place of the machine's own."""
        path = self.home / "bin" / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)

    def start(self, *, primary: bool = True) -> subprocess.CompletedProcess[str]:
        info = self.home / "instance.json"
        info.write_text(json.dumps({"isMaster": primary}))
        environment = {**self.environment, "DML_HOME": str(self.home / "dml"), "DML_INSTANCE_INFO": str(info)}
        command = ["bash", str(SCRIPT), PARAMETERS, "us-east-1"]
        return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)

    def python(self, source: str) -> str:
        python = str(self.home / "dml" / "python" / "bin" / "python")
        command = [python, "-c", source]
        return subprocess.run(command, cwd=self.home, capture_output=True, text=True, check=True).stdout.strip()


@pytest.fixture(scope="module")
def published(cloud: Cloud, aws: Clients, tmp_path_factory: pytest.TempPathFactory) -> None:
    """What the cluster stack publishes for starting nodes, in small."""
    folder = tmp_path_factory.mktemp("published")
    wheels, library, own = (folder / name for name in ("wheels", "code", "nyc_flights"))
    for each in (wheels, library / "jobs", own / "notes" / "nyc_flights", own / "datasets" / "nyc_flights"):
        each.mkdir(parents=True)
    (wheels / "requirements.txt").write_text(wheel(wheels))
    for pip in (code.WHEELS / "x86_64").glob("pip-*.whl"):
        shutil.copy(pip, wheels)
    (wheels / "platform").write_text("manylinux2014_aarch64\nmanylinux_2_28_aarch64\n")
    (library / "jobs" / "__init__.py").write_text("NAME = 'our jobs'\n")
    (own / "notes" / "nyc_flights" / "Explore_2ABC.zpln").write_text('{"name": "Explore"}')
    (own / "datasets" / "__init__.py").touch()
    (own / "datasets" / "nyc_flights" / "dataset.json").write_text("{}")
    aws("s3").create_bucket(Bucket=BUCKET)
    values = {"notebook": f"s3://{BUCKET}/zeppelin/notebook/"}
    for each, name in ((wheels, "wheels"), (library, "code"), (own, "datasets/nyc_flights")):
        archive = shutil.make_archive(str(folder / each.name), "zip", each)
        aws("s3").upload_file(archive, BUCKET, f"assets/{each.name}.zip")
        values[name] = f"s3://{BUCKET}/assets/{each.name}.zip"
    for name, value in values.items():
        aws("ssm").put_parameter(Name=f"{PARAMETERS}/{name}", Value=value, Type="String", Overwrite=True)


@pytest.fixture
def node(cloud: Cloud, published: None, tmp_path: Path) -> Node:
    return made_node(cloud, tmp_path)


def made_node(cloud: Cloud, home: Path) -> Node:
    environment = {**os.environ, **cloud.environment()}
    # The locked wheels of a real node bring boto3; those of the tests are one that only Graviton machines could load.
    environment["PYTHONPATH"] = sysconfig.get_path("purelib")
    made = Node(home, environment | {"PATH": f"{home / 'bin'}{os.pathsep}{environment['PATH']}"})
    made.tool("sudo", 'exec "$@"')
    made.tool("systemctl", f'echo "$*" >> {home}/services')
    made.tool("dnf", "exit 1")
    return made


def test_a_node_should_get_the_locked_packages_and_our_code_and_leave_notes_to_the_primary_one(
    node: Node, aws: Clients
) -> None:
    """Python 3.11 too, if its image has none."""
    python = shutil.which("python3.11", path=node.environment["PATH"])
    node.tool("python3.11", f'[ -e {node.home}/installed ] || exit 127; exec {python} "$@"')
    node.tool("dnf", f'[ "$*" = "install -y --quiet python3.11" ] && touch {node.home}/installed')
    started = node.start(primary=False)
    assert started.returncode == 0, started.stderr
    assert (node.home / "installed").exists()
    assert node.python("import onlyarm, jobs; print(onlyarm.VALUE, jobs.NAME)") == "42 our jobs"
    assert aws("s3").list_objects_v2(Bucket=BUCKET, Prefix="zeppelin/").get("KeyCount") == 0


@dataclass
class Starts:
    """One primary node that starts three times; what each start said, and the note's text after it."""

    said: list[subprocess.CompletedProcess[str]]
    notes: list[bytes]
    services: list[str]  # what was asked of its service manager
    installed: str
    settings: str  # of the dataset, as notes read them


@pytest.fixture(scope="module")
def starts(cloud: Cloud, aws: Clients, published: None, tmp_path_factory: pytest.TempPathFactory) -> Starts:
    """It has the agent at first; then it has to install it, and a dataset's zip is gone; then it cannot have it.

    Notes change in between.
    """
    folder = tmp_path_factory.mktemp("primary")
    node, made = made_node(cloud, folder), Starts([], [], [], "", "")
    services = node.home / "services"

    def start() -> None:
        services.unlink(missing_ok=True)
        made.said.append(node.start())
        made.notes.append(aws("s3").get_object(Bucket=BUCKET, Key=NOTE)["Body"].read())
        made.services.append(services.read_text() if services.exists() else "")

    start()
    newer = folder / "newer"
    aws("s3").download_file(BUCKET, "assets/nyc_flights.zip", str(folder / "own.zip"))
    shutil.unpack_archive(folder / "own.zip", newer)
    (newer / "notes" / "nyc_flights" / "Explore_2ABC.zpln").write_text('{"name": "newer"}')
    aws("s3").upload_file(shutil.make_archive(str(folder / "own"), "zip", newer), BUCKET, "assets/nyc_flights.zip")
    node.tool("systemctl", f'[ -e {node.home}/installed ] && echo "$*" >> {services}')
    node.tool("dnf", f'echo "$*" > {node.home}/installed')
    gone = f"{PARAMETERS}/datasets/gone"
    aws("ssm").put_parameter(Name=gone, Value=f"s3://{BUCKET}/gone.zip", Type="String")
    start()
    aws("ssm").delete_parameter(Name=gone)
    read = "import pkgutil; print(pkgutil.get_data('datasets', 'nyc_flights/dataset.json').decode())"
    made.settings = node.python(read)
    made.installed = (node.home / "installed").read_text()
    aws("s3").put_object(Bucket=BUCKET, Key=NOTE, Body=b"edited by an analyst")
    node.tool("systemctl", "exit 1")
    start()
    return made


def test_the_primary_node_should_bring_new_notes_and_newer_ones_but_never_over_an_edited_one(starts: Starts) -> None:
    assert [started.returncode for started in starts.said] == [0, 0, 0], starts.said
    for told, started in zip(("new", "newer", "kept"), starts.said, strict=True):
        assert f"{told} note s3://{BUCKET}/{NOTE}" in started.stdout
    assert starts.notes == [b'{"name": "Explore"}', b'{"name": "newer"}', b"edited by an analyst"]


def test_a_note_that_cannot_be_brought_should_not_keep_a_cluster_from_starting(node: Node, aws: Clients) -> None:
    """Notes are for people, and the cluster is for jobs, too."""
    good = f"s3://{BUCKET}/zeppelin/notebook/"
    aws("ssm").put_parameter(
        Name=f"{PARAMETERS}/notebook", Value="s3://not-there/notes/", Type="String", Overwrite=True
    )
    try:
        started = node.start()
    finally:
        aws("ssm").put_parameter(Name=f"{PARAMETERS}/notebook", Value=good, Type="String", Overwrite=True)
    assert started.returncode == 0, started.stderr
    assert "could not bring s3://not-there/notes/nyc_flights/Explore_2ABC.zpln: An error occurred (NoSuchBucket)" in (
        started.stdout
    )


def test_a_node_that_cannot_have_python_3_11_should_say_so(node: Node) -> None:
    node.tool("python3.11", "exit 127")
    started = node.start(primary=False)
    assert started.returncode == 1
    assert "python3.11 is not on this image, and dnf could not install it" in started.stderr


def test_the_primary_node_should_have_each_datasets_settings_for_notes(starts: Starts) -> None:
    assert starts.settings == "{}"


def test_a_dataset_that_cannot_be_brought_should_not_keep_a_cluster_from_starting(starts: Starts) -> None:
    """Neither one whose zip is gone, nor a cluster that has none yet."""
    started = starts.said[1]
    assert started.returncode == 0, started.stderr
    assert f"could not fetch s3://{BUCKET}/gone.zip" in started.stderr
    assert f"note s3://{BUCKET}/{NOTE}" in started.stdout  # of the other one


def test_a_missing_parameter_should_end_the_start_with_its_name(node: Node, aws: Clients) -> None:
    value = aws("ssm").get_parameter(Name=f"{PARAMETERS}/wheels")["Parameter"]["Value"]
    aws("ssm").delete_parameter(Name=f"{PARAMETERS}/wheels")
    try:
        started = node.start()
    finally:
        aws("ssm").put_parameter(Name=f"{PARAMETERS}/wheels", Value=value, Type="String")
    assert started.returncode == 1
    assert f"could not read the SSM parameter {PARAMETERS}/wheels in us-east-1" in started.stderr


def test_a_wheel_that_is_not_the_locked_one_should_end_the_start(node: Node, aws: Clients, tmp_path: Path) -> None:
    tampered = tmp_path / "tampered.zip"
    aws("s3").download_file(BUCKET, "assets/wheels.zip", str(tampered))
    folder = tmp_path / "tampered"
    shutil.unpack_archive(tampered, folder)
    line = (folder / "requirements.txt").read_text()
    (folder / "requirements.txt").write_text(f"{line.partition(':')[0]}:{'0' * 64}\n")
    archive = shutil.make_archive(str(folder), "zip", folder)
    aws("s3").upload_file(archive, BUCKET, "assets/tampered.zip")
    good = f"s3://{BUCKET}/assets/wheels.zip"
    aws("ssm").put_parameter(
        Name=f"{PARAMETERS}/wheels", Value=f"s3://{BUCKET}/assets/tampered.zip", Type="String", Overwrite=True
    )
    try:
        started = node.start()
    finally:
        aws("ssm").put_parameter(Name=f"{PARAMETERS}/wheels", Value=good, Type="String", Overwrite=True)
    assert started.returncode == 1
    assert "pip could not install the locked wheels" in started.stderr


def test_the_primary_node_should_start_the_agent_by_which_people_reach_zeppelin(starts: Starts) -> None:
    assert starts.services[0] == "enable --now amazon-ssm-agent\n"


def test_an_agent_that_is_not_there_should_be_installed(starts: Starts) -> None:
    assert starts.installed == "install -y --quiet amazon-ssm-agent\n"
    assert starts.services[1] == "enable --now amazon-ssm-agent\n"


def test_a_node_without_an_agent_should_start_all_the_same_and_say_what_is_lost(starts: Starts) -> None:
    assert starts.said[2].returncode == 0
    assert "nobody reaches Zeppelin on this node" in starts.said[2].stdout


# --- Zeppelin's login (cluster/zeppelin.sh), on a workbench alone ---

LOGIN = {"user": "analyst", "password": "Zw8fT0q3vLrN5xYb2KdHs7JmAe9GcU4P"}


@pytest.fixture(scope="module")
def login(cloud: Cloud, aws: Clients) -> Iterator[str]:
    """The ARN of a secret, where nodes are told of it."""
    secrets, ssm = aws("secretsmanager"), aws("ssm")
    arn: str = secrets.create_secret(Name="dml-test-login", SecretString=json.dumps(LOGIN))["ARN"]
    ssm.put_parameter(Name=f"{PARAMETERS}/login", Value=arn, Type="String")
    yield arn
    ssm.delete_parameter(Name=f"{PARAMETERS}/login")
    secrets.delete_secret(SecretId=arn, ForceDeleteWithoutRecovery=True)


@pytest.fixture
def workbench(cloud: Cloud, login: str, tmp_path: Path) -> Node:
    """A node on which bootstrap.sh has made our Python."""
    node = made_node(cloud, tmp_path)
    python = tmp_path / "dml" / "python" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.symlink_to(sys.executable)
    return node


def close(node: Node, *, primary: bool = True) -> subprocess.CompletedProcess[str]:
    """zeppelin.sh on it."""
    info = node.home / "instance.json"
    info.write_text(json.dumps({"isMaster": primary}))
    places = {"DML_HOME": str(node.home / "dml"), "DML_INSTANCE_INFO": str(info), "DML_UNITS": str(node.home / "units")}
    command = ["bash", str(SCRIPT.parent / "zeppelin.sh"), PARAMETERS, "us-east-1"]
    return subprocess.run(command, env={**node.environment, **places}, capture_output=True, text=True, check=False)


def test_zeppelin_should_not_start_but_with_the_environments_login(workbench: Node) -> None:
    closed = close(workbench)
    assert closed.returncode == 0, closed.stderr
    made = workbench.home / "dml" / "zeppelin" / "shiro.ini"
    assert made.stat().st_mode & 0o777 == 0o600
    settings = configparser.ConfigParser(delimiters="=", interpolation=None)
    settings.optionxform = str  # type: ignore[assignment, method-assign]  # Shiro tells capitals apart
    settings.read_string(made.read_text())
    hashed, role = settings["users"].pop("analyst").split(", ")
    assert not settings["users"], "nobody else, none of the users of Zeppelin's template"
    empty, kind, algorithm, rounds, salt, digest = hashed.split("$")
    assert (empty, kind, algorithm) == ("", "shiro1", "SHA-256")
    told = hashlib.sha256(base64.b64decode(salt) + LOGIN["password"].encode()).digest()
    for _ in range(int(rounds) - 1):
        told = hashlib.sha256(told).digest()
    assert base64.b64decode(digest) == told
    assert LOGIN["password"] not in made.read_text() + closed.stdout + closed.stderr
    assert settings["roles"][role] == "*"
    assert list(settings["urls"].items()) == [("/api/version", "anon"), ("/**", "authc")]
    unit = (workbench.home / "units" / "zeppelin.service.d" / "login.conf").read_text()
    before, command = unit.splitlines()[-2:]
    assert before == "[Service]"
    assert command.startswith("ExecStartPre=+/usr/bin/install ")
    assert command.endswith(f" {made} /etc/zeppelin/conf/shiro.ini")


def test_only_the_primary_node_should_have_the_login(workbench: Node) -> None:
    closed = close(workbench, primary=False)
    assert (closed.returncode, closed.stderr) == (0, "")
    assert not (workbench.home / "dml" / "zeppelin").exists()
    assert not (workbench.home / "units").exists()


def test_a_workbench_without_a_login_should_not_come_up(workbench: Node, aws: Clients, login: str) -> None:
    gone = login.replace("dml-test-login", "gone")
    aws("ssm").put_parameter(Name=f"{PARAMETERS}/login", Value=gone, Type="String", Overwrite=True)
    try:
        closed = close(workbench)
    finally:
        aws("ssm").put_parameter(Name=f"{PARAMETERS}/login", Value=login, Type="String", Overwrite=True)
    assert closed.returncode == 1
    assert "(ResourceNotFoundException)" in closed.stderr
    assert "no login is made, and without one Zeppelin must not run" in closed.stderr
    assert not (workbench.home / "dml" / "zeppelin").exists()
