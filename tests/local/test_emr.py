"""Clusters behave as EMR's do: who may start one, what a failing step does, what a terminated one accepts."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError

from dml.errors import UserError
from dml.estate.platform import Platform
from dml.local.clients import client
from dml.local.cloud import Cloud
from dml.zeppelin import check
from stacks import code
from stacks.outputs import Output, state_machine_output
from tests.embedded import Clients
from tests.local.conftest import CODE_BUCKET, until
from tests.local.emulator import variables
from tests.zeppelin_server import PASSWORD, served

# A step that fails without Spark: only spark-submit runs here.
BROKEN = {"Jar": "command-runner.jar", "Args": ["hive-script"]}
# One that starts Spark; what it is to run does not exist.
SPARK = {"Jar": "command-runner.jar", "Args": ["spark-submit", "s3://nowhere/nothing.py"]}


@pytest.fixture
def start(aws: Clients, platform: dict[str, str]) -> Iterator[Any]:
    """start(**request) runs a job flow with the small platform's roles and returns its id."""
    emr = aws("emr")
    made = []

    def call(client: Any = emr, **request: Any) -> str:
        profiles = aws("iam").list_instance_profiles()["InstanceProfiles"]
        (profile,) = (p for p in profiles if p["Roles"] and p["Roles"][0]["RoleName"] == platform["NodeRole"])
        given = {
            "Name": "transient",
            "ServiceRole": platform["ServiceRole"],
            "JobFlowRole": profile["InstanceProfileName"],
            "Instances": {"KeepJobFlowAliveWhenNoSteps": True},
        }
        made.append(client.run_job_flow(**given | request)["JobFlowId"])
        return str(made[-1])

    yield call
    emr.terminate_job_flows(JobFlowIds=made)


def state(aws: Clients, cluster: str) -> str:
    found: str = aws("emr").describe_cluster(ClusterId=cluster)["Cluster"]["Status"]["State"]
    return found


def step(name: str, action: str = "CONTINUE") -> dict[str, Any]:
    return {"Name": name, "ActionOnFailure": action, "HadoopJarStep": BROKEN}


def states(aws: Clients, cluster: str) -> dict[str, str]:
    return {s["Name"]: s["Status"]["State"] for s in aws("emr").list_steps(ClusterId=cluster)["Steps"]}


def test_a_step_should_run_after_the_cluster_has_started_and_a_failing_one_leave_it_waiting(
    aws: Clients, start: Any
) -> None:
    cluster = start(Steps=[step("first")])
    until(lambda: state(aws, cluster) == "WAITING")
    assert states(aws, cluster) == {"first": "FAILED"}
    failed = aws("emr").list_steps(ClusterId=cluster)["Steps"][0]["Status"]["FailureDetails"]
    assert "runs steps of command-runner.jar spark-submit only, not: command-runner.jar hive" in failed["Message"]


def test_action_on_failure_should_decide_what_becomes_of_the_rest(aws: Clients, start: Any) -> None:
    waiting = start(Steps=[step("first", "CANCEL_AND_WAIT"), step("second")])
    ended = start(Steps=[step("first", "TERMINATE_CLUSTER"), step("second")])
    until(lambda: state(aws, waiting) == "WAITING")
    until(lambda: state(aws, ended) == "TERMINATED_WITH_ERRORS")
    assert states(aws, waiting) == states(aws, ended) == {"first": "FAILED", "second": "CANCELLED"}
    with pytest.raises(ClientError, match="shutting down, terminated, or finished may not be modified"):
        aws("emr").add_job_flow_steps(JobFlowId=ended, Steps=[step("late")])


def test_a_step_should_be_cancelled_from_the_moment_that_it_runs(aws: Clients, start: Any) -> None:
    emr = aws("emr")
    names = [f"step {number}" for number in range(8)]
    cluster = start(Steps=[{"Name": name, "ActionOnFailure": "CONTINUE", "HadoopJarStep": SPARK} for name in names])
    for name in names:
        while not (running := emr.list_steps(ClusterId=cluster, StepStates=["RUNNING"])["Steps"]):
            pass  # without a pause: what is tested is the first few milliseconds of a step
        (told,) = emr.cancel_steps(ClusterId=cluster, StepIds=[running[0]["Id"]])["CancelStepsInfoList"]
        assert (running[0]["Name"], told["Status"]) == (name, "SUBMITTED"), told
    until(lambda: state(aws, cluster) == "WAITING")
    assert states(aws, cluster) == dict.fromkeys(names, "CANCELLED")


def test_a_cluster_that_cannot_be_started_for_whatever_reason_should_say_so_and_be_gone(
    aws: Clients, start: Any
) -> None:
    script = {"Path": f"s3://{CODE_BUCKET}/bootstrap.sh", "Args": [f"s3://{CODE_BUCKET}/settings.json"]}
    actions = [{"Name": "node", "ScriptBootstrapAction": script}]
    cluster = start(LogUri="s3:///nobody", BootstrapActions=actions, Steps=[step("first")])
    until(lambda: state(aws, cluster) == "TERMINATED_WITH_ERRORS")
    reason = aws("emr").describe_cluster(ClusterId=cluster)["Cluster"]["Status"]["StateChangeReason"]
    assert reason["Code"] == "INTERNAL_ERROR"
    assert "Invalid bucket name" in reason["Message"]
    assert states(aws, cluster) == {"first": "CANCELLED"}


def test_a_step_and_a_bootstrap_action_should_have_no_file_of_this_machine(
    cloud: Cloud, aws: Clients, start: Any
) -> None:
    named = [["spark-submit", "/etc/passwd"], ["spark-submit", "--py-files", "{other}/a.py", "s3://nowhere/nothing.py"]]
    other = cloud.place.cloud.absolute() / "nodes" / "j-ANOTHER"
    other.mkdir(parents=True)
    (other / "a.py").touch()
    steps = [[word.replace("{other}", str(other)) for word in words] for words in named]
    jars = [{"Jar": "command-runner.jar", "Args": words} for words in steps]
    cluster = start(
        Steps=[{"Name": str(n), "ActionOnFailure": "CONTINUE", "HadoopJarStep": jar} for n, jar in enumerate(jars)]
    )
    until(lambda: state(aws, cluster) == "WAITING")
    reasons = [
        found["Status"]["FailureDetails"]["Message"] for found in aws("emr").list_steps(ClusterId=cluster)["Steps"]
    ]
    for path in ("/etc/passwd", f"{other}/a.py"):
        assert [
            why
            for why in reasons
            if f'in thread "main" java.io.FileNotFoundException: File file:{path} does not ex' in why
        ]
    action = {"Name": "node", "ScriptBootstrapAction": {"Path": "file:///etc/passwd"}}
    broken = start(BootstrapActions=[action])
    until(lambda: state(aws, broken) == "TERMINATED_WITH_ERRORS")
    reason = aws("emr").describe_cluster(ClusterId=broken)["Cluster"]["Status"]["StateChangeReason"]
    assert reason["Code"] == "BOOTSTRAP_FAILURE"
    assert reason["Message"].startswith("The bootstrap action file:///etc/passwd is not there: upload it to S3")


def test_a_protected_cluster_should_not_be_terminated(aws: Clients, start: Any) -> None:
    cluster = start(Instances={"KeepJobFlowAliveWhenNoSteps": True, "TerminationProtected": True})
    with pytest.raises(ClientError, match="termination protected"):
        aws("emr").terminate_job_flows(JobFlowIds=[cluster])
    aws("emr").set_termination_protection(JobFlowIds=[cluster], TerminationProtected=False)
    aws("emr").terminate_job_flows(JobFlowIds=[cluster])
    until(lambda: state(aws, cluster) == "TERMINATED")


def test_a_cluster_should_be_refused_a_role_that_its_starter_may_not_pass(
    cloud: Cloud, aws: Clients, start: Any
) -> None:
    policy = '{"Statement": [{"Effect": "Allow", "Action": "elasticmapreduce:RunJobFlow", "Resource": "*"}]}'
    aws("iam").create_user(UserName="starter")
    aws("iam").put_user_policy(UserName="starter", PolicyName="start", PolicyDocument=policy)
    key = aws("iam").create_access_key(UserName="starter")["AccessKey"]
    with pytest.raises(ClientError, match=r"user/starter is not authorized to perform: iam:PassRole on resource: arn"):
        start(client(cloud, "emr", variables(key)))


def test_an_unknown_instance_profile_should_be_refused(start: Any) -> None:
    with pytest.raises(ClientError, match="Invalid InstanceProfile: nobody"):
        start(JobFlowRole="nobody")


def test_a_program_on_a_node_should_have_the_nodes_role_and_no_more(
    cloud: Cloud, aws: Clients, platform: dict[str, str], start: Any
) -> None:
    cluster = start()
    until(lambda: state(aws, cluster) == "WAITING")
    given = cloud.node_credentials(cluster)
    caller = client(cloud, "sts", given).get_caller_identity()["Arn"]
    assert caller.endswith(f":assumed-role/{platform['NodeRole']}/i-{cluster[2:]}")
    with pytest.raises(ClientError, match="AccessDenied"):
        client(cloud, "iam", given).list_roles()
    with pytest.raises(UserError, match="No node of 'j-NOBODYS' has credentials"):
        cloud.node_credentials("j-NOBODYS")


def test_a_cloud_of_a_former_release_should_be_told_from_one_that_refuses(
    cloud: Cloud, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It answers for a path that it does not know as this one does."""
    monkeypatch.setattr("dml.local.cloud.NODE_PATH", "/_dml/of-a-later-release")
    with pytest.raises(UserError, match=r"before this release .* Run dml local down, then the same command again"):
        cloud.node_credentials("j-NOBODYS")


@pytest.fixture
def workbench(
    cloud: Cloud, aws: Clients, platform: dict[str, str], start: Any, tmp_path: Path
) -> Iterator[tuple[Platform, str]]:
    """An environment with a workbench, a login, and the code of `dml zeppelin check`; and the workbench's id."""
    library, role, data = tmp_path / "library", platform["NodeRole"], platform["Data"]
    library.mkdir()
    code.write_library(library)
    archive = shutil.make_archive(str(library), "zip", library)
    aws("s3").upload_file(archive, CODE_BUCKET, "library.zip")
    aws("s3").upload_file(str(code.ROOT / "jobs" / "zeppelin.py"), CODE_BUCKET, "zeppelin.py")
    login = json.dumps({"user": "analyst", "password": PASSWORD})
    secret = aws("secretsmanager").create_secret(Name="workbench-login", SecretString=login)["ARN"]
    rights = [
        {"Effect": "Allow", "Action": "secretsmanager:GetSecretValue", "Resource": secret},
        {"Effect": "Allow", "Action": "s3:PutObject", "Resource": f"arn:aws:s3:::{data}/penguins/notes/*"},
    ]
    aws("iam").put_role_policy(RoleName=role, PolicyName="workbench", PolicyDocument=json.dumps({"Statement": rights}))
    cluster = start()
    aws("ssm").put_parameter(Name="/small/workbench", Value=cluster, Type="String")
    until(lambda: state(aws, cluster) == "WAITING")
    made = Platform("small", credentials=cloud.environment())
    outputs = {
        Output.LAKE_BUCKET: data,
        Output.WORKBENCH_PARAMETER: "/small/workbench",
        Output.ZEPPELIN_LOGIN: secret,
        Output.CODE: f"s3://{CODE_BUCKET}/library.zip",
        Output.ZEPPELIN_CHECK: f"s3://{CODE_BUCKET}/zeppelin.py",
    }
    made.__dict__["_standing"] = {
        "data": outputs,
        "network": {},
        "workbench": {},
        "penguins": {state_machine_output("penguins"): "arn"},
    }
    yield made, cluster
    aws("ssm").delete_parameter(Name="/small/workbench")
    aws("secretsmanager").delete_secret(SecretId=secret, ForceDeleteWithoutRecovery=True)
    aws("iam").delete_role_policy(RoleName=role, PolicyName="workbench")


def test_the_workbenchs_own_zeppelin_should_be_checked_by_a_step(
    aws: Clients, workbench: tuple[Platform, str], platform: dict[str, str]
) -> None:
    """With the nodes' rights, from S3, as on EMR; in Zeppelin's place is a stand-in on this machine's loopback."""
    environment, cluster = workbench
    said: list[str] = []
    with served(PASSWORD) as (server, port):
        bad = "%spark.pyspark\n1 / 0"
        server.texts["2AAA"] = ["%md\n# Hello", bad]
        server.fails = {bad: "ZeroDivisionError: division by zero\n"}

        def found(note: str) -> check.Report:
            return check.check(
                environment, "penguins", note, price=str, every=0.1, say=said.append, port=port, seconds=60.0
            )

        whole, broken, lacking = found("2 Explore"), found("1 Start here"), found("9 Fly")
    assert whole.passed
    assert [one["status"] for one in whole.document["paragraphs"]] == ["FINISHED", "FINISHED"]
    assert not broken.passed
    assert broken.document["paragraphs"][1]["error"] == "ZeroDivisionError: division by zero"
    there = "It has: /penguins/1 Start here, /penguins/2 Explore."
    assert lacking.why.startswith(f"Zeppelin has no note /penguins/9 Fly. {there} ")
    states = {one["Id"]: one["Status"]["State"] for one in aws("emr").list_steps(ClusterId=cluster)["Steps"]}
    assert states == {whole.step: "COMPLETED", broken.step: "FAILED", lacking.step: "FAILED"}
    assert said[0] == f"step {whole.step} of the workbench {cluster}"
    assert "Contents" not in aws("s3").list_objects_v2(Bucket=platform["Data"], Prefix="penguins/notes/")


def test_a_check_should_not_wait_behind_a_step_and_say_what_ended_one_without_a_report(
    aws: Clients, workbench: tuple[Platform, str], without: Any, platform: dict[str, str]
) -> None:
    environment, cluster = workbench

    def checked() -> check.Report:
        return check.check(environment, "penguins", "1 Start here", price=str, every=0.1, say=lambda _text: None)

    with pytest.raises(UserError, match="flowers is not deployed; there are: penguins"):
        check.check(environment, "flowers", "1 Start here", price=str, every=0.1, say=lambda _text: None)
    spark = {"Name": "long", "ActionOnFailure": "CONTINUE", "HadoopJarStep": SPARK}
    (long,) = aws("emr").add_job_flow_steps(JobFlowId=cluster, Steps=[spark])["StepIds"]
    with pytest.raises(UserError, match=rf"is at the step long \({long}\), and runs one after the other"):
        checked()
    until(lambda: state(aws, cluster) == "WAITING")
    without(platform["NodeRole"], "s3:GetObject")
    lost = checked()
    assert not lost.passed
    assert lost.why.startswith(f"The step {lost.step} is failed: ")
