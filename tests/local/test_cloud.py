"""Starting, finding and stopping the embedded cloud: what an operator meets."""

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import dml.local.cloud
from dml.errors import UserError
from dml.local.cloud import Cloud
from dml.local.place import HOME_VARIABLE, PORT_VARIABLE
from dml.local.processes import working_below
from tests.embedded import Clients, free_port
from tests.local.conftest import Machine, deploy, until

pytestmark = pytest.mark.cloud

ROLE = {
    "Type": "AWS::IAM::Role",
    "Properties": {
        "AssumeRolePolicyDocument": {
            "Statement": [
                {"Effect": "Allow", "Action": "sts:AssumeRole", "Principal": {"Service": f"{name}.amazonaws.com"}}
                for name in ("states", "ec2", "elasticmapreduce")
            ]
        },
        "Policies": [
            {
                "PolicyName": "machines",
                "PolicyDocument": {
                    "Statement": [{"Effect": "Allow", "Action": ["ec2:*", "iam:PassRole"], "Resource": "*"}]
                },
            }
        ],
    },
}
STATES = {"StartAt": "wait", "States": {"wait": {"Type": "Wait", "Seconds": 1, "End": True}}}
KEPT = {
    "Role": ROLE,
    "Profile": {"Type": "AWS::IAM::InstanceProfile", "Properties": {"Roles": [{"Ref": "Role"}]}},
    "Bucket": {"Type": "AWS::S3::Bucket"},
    "Cluster": {
        "Type": "AWS::EMR::Cluster",
        "Properties": {
            "Name": "kept",
            "ServiceRole": {"Ref": "Role"},
            "JobFlowRole": {"Ref": "Profile"},
            "SecurityConfiguration": {"Ref": "Security"},
            "Instances": {},
        },
    },
    "Security": {"Type": "AWS::EMR::SecurityConfiguration", "Properties": {"SecurityConfiguration": {"a": {"b": 1}}}},
    "Machine": {
        "Type": "AWS::StepFunctions::StateMachine",
        "Properties": {"RoleArn": {"Fn::GetAtt": ["Role", "Arn"]}, "DefinitionString": json.dumps(STATES)},
    },
}


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Cloud]:
    """A cloud of the test's own, which is not started yet."""
    cloud = Cloud(tmp_path / "dml")
    yield cloud
    cloud.down()


def test_what_was_deployed_should_be_there_after_down_and_up(home: Cloud) -> None:
    assert home.up(free_port())
    aws = Clients(home)
    template = {"Resources": KEPT, "Outputs": {name: {"Value": {"Ref": name}} for name in KEPT}}
    before = deploy(aws, "kept", template)
    aws("s3").put_object(Bucket=before["Bucket"], Key="a/b", Body=b"c")
    aws("ssm").put_parameter(Name="/kept", Value="yes", Type="String")
    assert Machine(aws, before["Machine"]).run()["status"] == "SUCCEEDED"
    assert home.down()
    assert not home.down()
    assert home.up()
    aws = Clients(home)
    stack = aws("cloudformation").describe_stacks(StackName="kept")["Stacks"][0]
    assert {output["OutputKey"]: output["OutputValue"] for output in stack["Outputs"]} == before
    assert aws("s3").get_object(Bucket=before["Bucket"], Key="a/b")["Body"].read() == b"c"
    assert aws("ssm").get_parameter(Name="/kept")["Parameter"]["Value"] == "yes"
    assert aws("emr").describe_cluster(ClusterId=before["Cluster"])["Cluster"]["Status"]["State"] == "WAITING"
    assert aws("emr").describe_security_configuration(Name=before["Security"])["SecurityConfiguration"]
    assert Machine(aws, before["Machine"]).run()["status"] == "SUCCEEDED"


def test_a_killed_server_should_be_started_again_with_what_was_saved(home: Cloud) -> None:
    home.up(free_port())
    Clients(home)("ssm").put_parameter(Name="/saved", Value="yes", Type="String")
    home.save()
    pid = _pid(home)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    with pytest.raises(UserError, match=r"does not run\. Start it: dml local up"):
        home.require()
    assert home.up()
    assert Clients(home)("ssm").get_parameter(Name="/saved")["Parameter"]["Value"] == "yes"


def test_what_a_killed_server_was_running_should_be_gone_and_have_failed(home: Cloud) -> None:
    home.up(free_port())
    aws = Clients(home)
    roles = {name: KEPT[name] for name in ("Role", "Profile")}
    outputs = deploy(aws, "roles", {"Resources": roles, "Outputs": {name: {"Value": {"Ref": name}} for name in roles}})
    everything = json.dumps({"Statement": [{"Effect": "Allow", "Action": "s3:*", "Resource": "*"}]})
    aws("iam").put_role_policy(RoleName=outputs["Role"], PolicyName="all", PolicyDocument=everything)
    aws("s3").create_bucket(Bucket="scripts")
    aws("s3").put_object(Bucket="scripts", Key="hang.sh", Body=b"#!/bin/sh\necho hanging\nsleep 1000\n")
    cluster = aws("emr").run_job_flow(
        Name="hanging",
        ServiceRole=outputs["Role"],
        JobFlowRole=outputs["Profile"].rsplit("/", 1)[-1],
        Instances={"KeepJobFlowAliveWhenNoSteps": True},
        BootstrapActions=[{"Name": "hang", "ScriptBootstrapAction": {"Path": "s3://scripts/hang.sh"}}],
    )["JobFlowId"]
    actions = home.place.logs / "emr" / cluster / "node" / f"i-{cluster[2:]}" / "bootstrap-actions"
    log = actions / "1" / "stdout"
    until(lambda: log.exists() and "hanging" in log.read_text())
    node = home.place.cloud / "nodes" / cluster
    assert working_below(node)
    home.save()
    pid = _pid(home)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    home.up()
    assert not working_below(node)
    status = Clients(home)("emr").describe_cluster(ClusterId=cluster)["Cluster"]["Status"]
    assert status["State"] == "TERMINATED_WITH_ERRORS"
    assert "embedded cloud was stopped" in status["StateChangeReason"]["Message"]


def test_a_save_that_fails_should_leave_what_was_saved_before(home: Cloud) -> None:
    home.up(free_port())
    ssm = Clients(home)("ssm")
    ssm.put_parameter(Name="/first", Value="yes", Type="String")
    home.save()
    in_the_way = home.place.fresh_state
    in_the_way.touch()
    ssm.put_parameter(Name="/second", Value="yes", Type="String")
    with pytest.raises(UserError, match="could not save its state"):
        home.save()
    home.down()
    in_the_way.unlink()
    home.up()
    names = {found["Name"] for found in Clients(home)("ssm").describe_parameters()["Parameters"]}
    assert "/first" in names
    assert "/second" not in names


def test_a_server_that_died_between_two_states_should_start_with_the_former(home: Cloud) -> None:
    home.up(free_port())
    Clients(home)("ssm").put_parameter(Name="/kept", Value="yes", Type="String")
    home.down()
    home.place.state.rename(home.place.former_state)
    home.up()
    assert Clients(home)("ssm").get_parameter(Name="/kept")["Parameter"]["Value"] == "yes"


def test_a_server_that_does_not_answer_should_be_ended_and_started_again(
    home: Cloud, monkeypatch: pytest.MonkeyPatch
) -> None:
    home.up(free_port())
    dead = _pid(home)
    os.kill(dead, signal.SIGSTOP)
    monkeypatch.setattr(dml.local.cloud, "ANSWER_SECONDS", 0.5)
    assert "does not answer" in home.status()
    assert home.up()
    assert _pid(home) != dead
    home.require()


def test_a_full_disk_should_be_told(home: Cloud, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dml.local.cloud, "NEEDED_BYTES", 10**18)
    with pytest.raises(UserError, match=r"The disk under .* has less than 1 GB left\. Free some space"):
        home.up(free_port())


def test_a_stale_process_number_should_not_be_taken_for_the_server(home: Cloud, tmp_path: Path) -> None:
    record = tmp_path / "dml" / "cloud" / "server.json"
    record.parent.mkdir(parents=True)
    record.write_text(json.dumps({"pid": os.getpid(), "port": free_port()}))
    assert not home.down()
    assert home.status() == "The embedded cloud does not run."


def test_a_second_up_should_use_what_runs_and_refuse_another_port(cloud: Cloud) -> None:
    assert not cloud.up()
    with pytest.raises(UserError, match=f"runs on port {cloud.place.port} already"):
        cloud.up(cloud.place.port + 1)
    assert cloud.endpoint in cloud.status()


def test_a_busy_port_should_be_named_with_the_way_out(home: Cloud) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        with pytest.raises(UserError, match=rf"Port {port} .* taken by another program.* --port \d+"):
            home.up(port)


def test_a_cloud_whose_folder_is_gone_should_be_named_with_the_way_to_end_it(home: Cloud, tmp_path: Path) -> None:
    """What a deleted .dml leaves: a server that listens, and nothing that tells of it."""
    (tmp_path / "clone").mkdir()
    listen = "import socket, time; s = socket.socket(); s.bind(('127.0.0.1', 0)); s.listen(); "
    listen += "print(s.getsockname()[1], flush=True); time.sleep(600)"
    server = subprocess.Popen(
        [sys.executable, "-c", listen, "dml.local.server"],
        stdout=subprocess.PIPE,
        text=True,
        cwd=tmp_path / "clone",
    )
    try:
        assert server.stdout is not None
        port = int(server.stdout.readline())
        orphan = rf"an embedded cloud of {tmp_path}/clone whose \.dml is gone.*: end it by `kill {server.pid}`"
        with pytest.raises(UserError, match=orphan):
            home.up(port)
        record = tmp_path / "clone" / ".dml" / "cloud" / "server.json"
        record.parent.mkdir(parents=True)
        record.write_text(json.dumps({"pid": server.pid, "port": port}))
        with pytest.raises(UserError, match=rf"the embedded cloud of {tmp_path}/clone \(stop it there: dml local down"):
            home.up(port)
    finally:
        server.kill()
        server.wait()


def test_an_emulator_without_our_extension_should_be_refused(home: Cloud, tmp_path: Path) -> None:
    """ministack alone reports success for jobs that it never ran."""
    port = free_port()
    environment = {
        "PATH": os.environ["PATH"],
        "BIND_HOST": "127.0.0.1",
        "GATEWAY_PORT": str(port),
        "TMPDIR": str(tmp_path),
    }
    bare = subprocess.Popen(
        [sys.executable, "-c", "import ministack.app; ministack.app.main()"],
        env=environment | {"IOT_MTLS_ENABLED": "0"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        until(lambda: _accepts("127.0.0.1", port))
        record = tmp_path / "dml" / "cloud" / "server.json"
        record.parent.mkdir(parents=True)
        record.write_text(json.dumps({"pid": bare.pid, "port": port}))
        with pytest.raises(UserError, match=f"port {port} is not this project's embedded cloud"):
            home.require()
    finally:
        bare.terminate()
        bare.wait()


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells by /proc who listens where")
def test_it_should_listen_on_loopback_only(cloud: Cloud) -> None:
    listening = Path("/proc/net/tcp").read_text() + Path("/proc/net/tcp6").read_text()
    inodes = {str(link.readlink()) for link in Path(f"/proc/{_pid(cloud)}/fd").iterdir() if link.is_symlink()}
    columns = [line.split() for line in listening.splitlines()]
    addresses = {line[1] for line in columns if len(line) > 9 and line[3] == "0A" and f"socket:[{line[9]}]" in inodes}
    assert addresses == {f"0100007F:{cloud.place.port:04X}"}


@pytest.mark.parametrize(
    "given",
    [
        {"AWS_ACCESS_KEY_ID": "AKIAIOSFODNN7EXAMPLE"},
        {"AWS_PROFILE": "work"},
        {"AWS_SESSION_TOKEN": "token"},
    ],
)
def test_the_server_should_refuse_to_start_with_real_credentials(given: dict[str, str], tmp_path: Path) -> None:
    environment = {"PATH": os.environ["PATH"], HOME_VARIABLE: str(tmp_path), PORT_VARIABLE: str(free_port())}
    refused = subprocess.run(
        [sys.executable, "-m", "dml.local.server"], env=environment | given, capture_output=True, text=True, check=False
    )
    assert refused.returncode == 1
    assert refused.stderr.startswith("The embedded cloud does not start with")
    assert next(iter(given)) in refused.stderr


def test_programs_that_use_it_should_not_reach_a_real_account(cloud: Cloud, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_PROFILE", "AWS_SESSION_TOKEN", "HTTPS_PROXY", "https_proxy"):
        monkeypatch.setenv(name, "real")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIAIOSFODNN7EXAMPLE")
    environment = cloud.environment()
    assert "real" not in environment.values()
    assert environment["AWS_ACCESS_KEY_ID"] == cloud.root["AWS_ACCESS_KEY_ID"]
    assert environment["AWS_ENDPOINT_URL"] == cloud.endpoint
    for name in ("AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"):
        assert not Path(environment[name]).exists()


def _pid(cloud: Cloud) -> int:
    pid: int = json.loads((cloud.place.cloud / "server.json").read_text())["pid"]
    return pid


def _accepts(host: str, port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex((host, port)) == 0
