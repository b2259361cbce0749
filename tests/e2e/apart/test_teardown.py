"""Pause, resume and destroy of whole environments in an embedded cloud: what goes, what stays, and what is told.

In prod test_prod.py has run before, if it was asked to.
"""

import io
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from datasets import dataset_names
from dml import checkout
from dml.estate import teardown
from dml.estate.platform import PAUSED, Platform
from dml.estate.receipt import Receipts
from dml.local.cloud import Cloud
from dml.local.deploy import deploy
from stacks.network import EMR_TAG
from stacks.outputs import SHARED, Output, dataset_stack, state_machine_output
from tests.command import run_dml
from tests.embedded import Clients

Dml = Callable[..., tuple[int, str, str]]
STACKS = {*SHARED, *map(dataset_stack, dataset_names())}
NOTE = "zeppelin/notebook/mine_2ABC.zpln"
MODEL = "nyc_flights/CURRENT.json"
EDITED = {"edited": True}
SLEEP = {"StartAt": "sleep", "States": {"sleep": {"Type": "Wait", "Seconds": 100000, "End": True}}}


@pytest.fixture(scope="module")
def prod(cloud: Cloud) -> Platform:
    """The environment prod, which keeps its data: deployed, with a model and a note."""
    return deployed(cloud, "prod")


@pytest.fixture(scope="module")
def dev(cloud: Cloud) -> Platform:
    """The environment dev, which keeps nothing: deployed, its workbench up, with a model and a note."""
    return deployed(cloud, "dev")


def deployed(cloud: Cloud, env: str) -> Platform:
    deploy(cloud, env, on_progress=lambda _: None)
    platform = Platform(env, credentials=cloud.environment())
    put(platform, Output.MODELS_BUCKET, MODEL, '{"run_id": "run-1", "metrics": {"log_loss": 0.4, "auc": 0.7}}')
    put(platform, Output.WORKSPACE_BUCKET, NOTE, "{}")
    put(platform, Output.WORKSPACE_BUCKET, NOTE, '{"edited": true}')
    return platform


@pytest.fixture
def dml(cloud: Cloud, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Dml:
    """The command itself, in this process; returns exit code, stdout, stderr. `typed`: what is typed at a terminal."""

    def run(*arguments: str, typed: str | None = None, local: bool = True) -> tuple[int, str, str]:
        monkeypatch.setattr(checkout, "HOME", cloud.place.home)
        monkeypatch.setattr(sys, "stdin", Terminal(typed) if typed is not None else io.StringIO())
        monkeypatch.setenv("COLUMNS", "250")
        return run_dml(monkeypatch, capsys, *arguments, *(["--local"] if local else []))

    return run


class Terminal(io.StringIO):
    """Standard input with somebody there."""

    def isatty(self) -> bool:
        return True


def put(platform: Platform, bucket: Output, key: str, text: str) -> None:
    new = {"IfNoneMatch": "*"} if key == MODEL else {}  # nobody moves a current model unawares (stacks/data.py)
    platform.s3.put_object(Bucket=platform.output(bucket), Key=key, Body=text.encode(), **new)


def standing(aws: Clients, env: str) -> set[str]:
    stacks = aws("cloudformation").describe_stacks()["Stacks"]
    return {
        one["StackName"].removeprefix(f"dml-{env}-") for one in stacks if one["StackName"].startswith(f"dml-{env}-")
    }


def answering(aws: Clients, env: str) -> dict[str, set[str]]:
    """All that the services list as an environment's, by type; neither CloudFormation nor the receipt is asked."""
    ours = {"project": "dml", "environment": env}

    def tagged(listed: list[dict[str, Any]], key: str) -> set[str]:
        return {one[key] for one in listed if ours.items() <= {tag["Key"]: tag["Value"] for tag in one["Tags"]}.items()}

    def named(names: Any) -> set[str]:
        # The embedded cloud's note of what was deployed to it last is its own.
        found = {name for name in names if not name.startswith("/dml/embedded-cloud/")}
        marks = (f"dml-{env}-", f"dml-{env}/", f"/dml/{env}/")
        return {name for name in found if any(mark in name for mark in marks) or name.startswith(f"{env}_")}

    def is_ours(key: str) -> bool:
        worn = {tag["TagKey"]: tag["TagValue"] for tag in kms.list_resource_tags(KeyId=key)["Tags"]}
        return ours.items() <= worn.items()

    ec2, glue, iam, emr, kms = (aws(service) for service in ("ec2", "glue", "iam", "emr", "kms"))
    keys = [kms.describe_key(KeyId=one["KeyId"])["KeyMetadata"] for one in kms.list_keys()["Keys"]]
    gateways = ec2.describe_nat_gateways()["NatGateways"]
    alive = emr.list_clusters(ClusterStates=teardown.ALIVE)["Clusters"]
    found = {
        "buckets": named(one["Name"] for one in aws("s3").list_buckets()["Buckets"]),
        "databases": named(one["Name"] for one in glue.get_databases()["DatabaseList"]),
        "jobs": named(one["Name"] for one in glue.get_jobs()["Jobs"]),
        "crawlers": named(one["Name"] for one in glue.get_crawlers()["Crawlers"]),
        "classifiers": named(one["CsvClassifier"]["Name"] for one in glue.get_classifiers()["Classifiers"]),
        "machines": named(one["name"] for one in aws("stepfunctions").list_state_machines()["stateMachines"]),
        "roles": named(one["RoleName"] for one in iam.get_paginator("list_roles").paginate().search("Roles")),
        "profiles": named(one["InstanceProfileName"] for one in iam.list_instance_profiles()["InstanceProfiles"]),
        "groups": named(one["logGroupName"] for one in aws("logs").describe_log_groups()["logGroups"]),
        "alarms": named(one["AlarmName"] for one in aws("cloudwatch").describe_alarms()["MetricAlarms"]),
        "topics": named(one["TopicArn"] for one in aws("sns").list_topics()["Topics"]),
        "parameters": named(one["Name"] for one in aws("ssm").describe_parameters()["Parameters"]),
        "functions": named(one["FunctionName"] for one in aws("lambda").list_functions()["Functions"]),
        "clusters": {one["Id"] for one in alive if f"dml-{env}-" in one["Name"]},
        "vpcs": tagged(ec2.describe_vpcs()["Vpcs"], "VpcId"),
        "subnets": tagged(ec2.describe_subnets()["Subnets"], "SubnetId"),
        "security groups": tagged(ec2.describe_security_groups()["SecurityGroups"], "GroupId"),
        "addresses": {one["PublicIp"] for one in ec2.describe_addresses()["Addresses"]},
        "gateways": {one["NatGatewayId"] for one in gateways if one["State"] != "deleted"},
        "keys": {one["KeyId"] for one in keys if one["KeyState"] != "PendingDeletion" and is_ours(one["KeyId"])},
        "aliases": named(one["AliasName"].removeprefix("alias/") + "/" for one in kms.list_aliases()["Aliases"]),
    }
    return {what: ids for what, ids in found.items() if ids}


# --- Pause and resume ---


def test_pause_should_be_refused_while_a_run_executes_and_stop_it_when_told(
    dml: Dml, prod: Platform, aws: Clients
) -> None:
    states, machine = aws("stepfunctions"), prod.output(state_machine_output("nyc_flights"))
    states.update_state_machine(stateMachineArn=machine, definition=json.dumps(SLEEP))
    execution = states.start_execution(stateMachineArn=machine, name="run-asleep")["executionArn"]
    cluster = transient_cluster(aws)
    code, _, err = dml("pause", "--yes", "--env", "prod")
    assert code == 1
    assert "run-asleep" in err
    assert "dml pause --stop-runs --local --env prod" in err
    code, _, err = dml("pause", "--stop-runs", "--env", "prod")
    assert (code, "--yes" in err) == (1, True), "nobody is here to agree"
    assert standing(aws, "prod") == STACKS
    assert states.describe_execution(executionArn=execution)["status"] == "RUNNING"

    code, _, err = dml("pause", "--stop-runs", "--yes", "--env", "prod")
    assert code == 0, err
    assert cluster in err, "what is ended is told before"
    assert "KMS key" in err, "and what still costs, after"
    assert standing(aws, "prod") == STACKS - set(PAUSED)
    assert cluster_state(aws, cluster) == "TERMINATED"


def test_pause_should_leave_nothing_that_costs_by_standing_and_keep_data_models_and_notes(
    dml: Dml, prod: Platform, aws: Clients, cloud: Cloud
) -> None:
    left = answering(aws, "prod")
    gone = {"clusters", "gateways", "addresses", "vpcs", "subnets", "security groups"}
    assert not gone & left.keys()
    assert len(left["databases"]) == len(dataset_names())
    assert Platform("prod", credentials=cloud.environment()).json_object(Output.WORKSPACE_BUCKET, NOTE) == EDITED
    code, out, err = dml("status", "--env", "prod")
    assert code == 0, err
    assert "dml resume --local --env prod" in out
    assert "run-1" in out
    code, out, err = dml("models", "list", "penguins", "--env", "prod")
    assert code == 0, err
    code, _, err = dml("predict", "--env", "prod")
    assert code == 1
    assert "dml resume --local --env prod" in err
    code, out, _ = dml("pause", "--yes", "--env", "prod")
    assert (code, "already" in out) == (0, True)


def test_resume_should_bring_all_back_around_what_was_kept(
    dml: Dml, prod: Platform, aws: Clients, cloud: Cloud
) -> None:
    code, _, err = dml("resume", "--env", "prod")
    assert code == 0, err
    assert standing(aws, "prod") == STACKS
    back = Platform("prod", credentials=cloud.environment())
    assert back.json_object(Output.WORKSPACE_BUCKET, NOTE) == EDITED
    assert back.json_object(Output.MODELS_BUCKET, MODEL) is not None
    code, out, err = dml("status", "--env", "prod")
    assert (code, "Workbench" in out) == (0, True), err


# --- Destroy what keeps its data ---


def test_a_dry_run_should_say_what_would_go_and_stay_and_delete_nothing(dml: Dml, prod: Platform, aws: Clients) -> None:
    before = answering(aws, "prod")
    code, out, err = dml("destroy", "--env", "prod")
    assert code == 0
    workspace = prod.output(Output.WORKSPACE_BUCKET)
    versions = prod.s3.list_object_versions(Bucket=workspace)["Versions"]
    current = sum(version["IsLatest"] for version in versions)
    assert 0 < current < len(versions)
    assert f"keeps s3://{workspace}: {current} objects, {len(versions)} versions" in out
    assert "/aws/vendedlogs/states/dml-prod/nyc_flights" in out
    assert "dml destroy --yes --local --env prod" in err
    code, _, err = dml("destroy", "--env", "prod", typed="dev\n")
    assert (code, "Nothing was changed" in err) == (1, True), "another name was typed"
    assert answering(aws, "prod") == before
    assert standing(aws, "prod") == STACKS


def test_what_cannot_be_deleted_should_be_a_failure_with_its_reason_even_after_an_interruption(
    prod: Platform, aws: Clients, cloud: Cloud
) -> None:
    """Somebody's own security group in our VPC names one of ours; a run's cluster and EMR's own rules stand as well."""
    platform, ec2 = Platform("prod", credentials=cloud.environment()), aws("ec2")
    primary, core, _ = groups(aws)
    vpc = ec2.describe_security_groups(GroupIds=[primary])["SecurityGroups"][0]["VpcId"]
    theirs = ec2.create_security_group(GroupName="analyst", Description="somebody's", VpcId=vpc)["GroupId"]
    rule = {"IpProtocol": "tcp", "FromPort": 22, "ToPort": 22}
    for to, source in ((theirs, primary), (primary, core), (core, primary)):
        pairs = [{"GroupId": source}]
        ec2.authorize_security_group_ingress(GroupId=to, IpPermissions=[rule | {"UserIdGroupPairs": pairs}])
    cluster = transient_cluster(aws)
    receipts = Receipts(cloud.place.home / "receipts", platform)

    def interrupt(text: str) -> None:
        if text.startswith("deleting dml-prod-nyc-flights"):
            raise KeyboardInterrupt

    first = teardown.plan(platform, receipts, say=interrupt)
    assert first is not None
    with pytest.raises(KeyboardInterrupt):
        teardown.destroy(platform, first, receipts, say=interrupt, every=0.02)
    assert {"nyc-flights", "network", "data"} <= standing(aws, "prod")
    assert not {"workbench", "census-income"} & standing(aws, "prod")

    second = teardown.plan(platform, receipts, say=lambda _: None)
    assert second is not None
    path = teardown.destroy(platform, second, receipts, say=lambda _: None, every=0.02)
    assert standing(aws, "prod") == {"network", "data"}
    failed = {one.id: one.because for one in second.of("failed")}
    assert failed.keys() == {vpc, primary}
    assert "dependent object" in failed[primary]
    assert len(second.revoked) == 2, "EMR's own rules no longer hold its groups"
    assert [problem.split(" ")[0] for problem in second.problems] == ["dml-prod-network"]
    assert cluster_state(aws, cluster) == "TERMINATED"
    told = json.loads(path.read_text())
    assert told["failed"] == 2
    assert resources(told).keys() == {one.id for one in first.resources}
    ec2.delete_security_group(GroupId=theirs)


def test_of_prod_exactly_what_the_dry_run_named_should_be_kept(dml: Dml, aws: Clients, cloud: Cloud) -> None:
    (path,) = (cloud.place.home / "receipts").glob("prod-*.json")
    before = json.loads(path.read_text())
    promised = {one["id"] for stack in before["stacks"] for one in stack["resources"] if one["keep"]}
    code, out, err = dml("destroy", "--env", "prod", "--yes", "--json")
    assert code == 0, err
    told = json.loads(out)
    assert told == json.loads(path.read_text()), "the receipt goes on"
    assert resources(told).keys() == resources(before).keys()
    assert {name for name, outcome in resources(told).items() if outcome == "kept"} == promised
    assert {name for name, outcome in resources(told).items() if outcome != "kept"} == {
        name for name, outcome in resources(told).items() if outcome == "deleted"
    }
    assert all(one["because"] for stack in told["stacks"] for one in stack["resources"] if one["outcome"] == "kept")
    assert standing(aws, "prod") == {"data"}
    left = answering(aws, "prod")
    assert left.keys() == {"buckets", "databases", "groups", "keys", "aliases"}
    for one in told["elsewhere"]:
        if one["because"].startswith("logs outlive the stacks"):  # of a run's crawler and Glue job
            promised.add(one["id"])
    names = {name.removeprefix("alias/") for name in promised if not name.endswith("-policy")}
    assert {name.rstrip("/") for name in set.union(*left.values())} == names
    kept = Platform("prod", credentials=cloud.environment())
    bucket = next(name for name in left["buckets"] if "models" in name)
    assert kept.s3.get_object(Bucket=bucket, Key=MODEL)


# --- Destroy what keeps nothing ---


def test_no_bucket_should_be_emptied_for_a_stack_that_another_one_uses(dml: Dml, dev: Platform, aws: Clients) -> None:
    """Here somebody's own stack imports an export of ours: CloudFormation would refuse, but after the emptying."""
    function = next(iter(answering(aws, "dev")["functions"]))
    aws("logs").create_log_group(logGroupName=f"/aws/lambda/{function}")
    aws("logs").create_log_group(logGroupName="/aws-glue/jobs/output")
    raw, models = dev.output(Output.RAW_BUCKET), dev.output(Output.MODELS_BUCKET)
    aws("s3").create_multipart_upload(Bucket=raw, Key="half.csv")
    aws("s3").put_object(Bucket=raw, Key="gone.csv", Body=b"1")
    aws("s3").delete_object(Bucket=raw, Key="gone.csv")
    cloudformation = aws("cloudformation")
    (data,) = cloudformation.describe_stacks(StackName="dml-dev-data")["Stacks"]
    export = next(output["ExportName"] for output in data["Outputs"] if "ExportName" in output)
    parameter = {"Type": "AWS::SSM::Parameter", "Properties": {"Type": "String", "Value": {"Fn::ImportValue": export}}}
    template = json.dumps({"Resources": {"Uses": parameter}})
    cloudformation.create_stack(StackName="analyst", TemplateBody=template)
    cloudformation.get_waiter("stack_create_complete").wait(StackName="analyst", WaiterConfig={"Delay": 1})

    code, out, err = dml("destroy", "--yes")
    assert code == 1
    assert f"Export {export} is imported by stack analyst" in out
    assert "still stand" in err
    assert standing(aws, "dev") == {"data"}
    assert [one["Key"] for one in aws("s3").list_objects_v2(Bucket=models)["Contents"]] == [MODEL]
    cloudformation.delete_stack(StackName="analyst")
    cloudformation.get_waiter("stack_delete_complete").wait(StackName="analyst", WaiterConfig={"Delay": 1})


def test_of_dev_nothing_should_answer_and_the_receipt_account_for_all_that_had_been_there(
    dml: Dml, aws: Clients, cloud: Cloud
) -> None:
    (path,) = (cloud.place.home / "receipts").glob("dev-*.json")
    before = resources(json.loads(path.read_text()))
    code, out, err = dml("destroy", "--yes", "--json")
    assert code == 0, err
    told = json.loads(out)
    assert (told["failed"], told["kept"]) == (0, 0)
    assert resources(told).keys() == before.keys()
    assert set(resources(told).values()) == {"deleted"}
    assert told == json.loads(path.read_text())
    assert "deleted" in path.with_suffix(".txt").read_text()
    raw = next(counted for name, counted in told["buckets"].items() if "raw" in name)
    assert (raw["objects"], raw["versions"], raw["uploads"]) == (0, 2, 1)
    assert answering(aws, "dev") == {}
    outside = {one["id"]: one["outcome"] for one in told["elsewhere"]}
    assert outside.pop("CDKToolkit") == "kept"
    assert outside.pop("/aws-glue/jobs/output") == "kept", "other jobs of the account write there"
    assert set(outside.values()) == {"deleted"}
    assert not aws("logs").describe_log_groups(logGroupNamePrefix="/aws/lambda/dml-dev")["logGroups"]
    tags = [{"Key": "project", "Values": ["dml"]}, {"Key": "environment", "Values": ["dev"]}]
    still = aws("resourcegroupstaggingapi").get_resources(TagFilters=tags)["ResourceTagMappingList"]
    assert all(":kms:" in one["ResourceARN"] for one in still), "keys in their waiting period"

    code, _, err = dml("destroy", "--yes")
    assert (code, "Nothing of dev is deployed" in err) == (0, True)


# --- And back ---


def test_resume_should_adopt_the_log_groups_that_destroy_has_kept(
    dml: Dml, cloud: Cloud, aws: Clients, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on AWS: without --local, with the usual variables; here they lead to the embedded cloud."""
    packages = Path.home() / ".cache" / "aws" / "jsii" / "package-cache"  # 200 MB, which another HOME would not find
    monkeypatch.setenv("JSII_RUNTIME_PACKAGE_CACHE_ROOT", str(packages))
    for name, value in cloud.environment().items():
        monkeypatch.setenv(name, value)
    name = "/aws/vendedlogs/states/dml-prod/nyc_flights"
    aws("logs").create_log_stream(logGroupName=name, logStreamName="of-before")
    code, _, err = dml("resume", "--env", "prod", local=False)
    assert code == 0, err
    assert standing(aws, "prod") == STACKS
    assert aws("logs").describe_log_streams(logGroupName=name)["logStreams"], "what was logged before is there"
    code, _, err = dml("resume", "--env", "dev", local=False)
    assert (code, "npx cdk deploy" in err) == (1, True), "nothing of dev is there to be resumed"


def resources(receipt: dict[str, Any]) -> dict[str, str]:
    """Outcome by physical id."""
    return {one["id"]: one["outcome"] for stack in receipt["stacks"] for one in stack["resources"]}


def cluster_state(aws: Clients, cluster: str) -> str:
    state: str = aws("emr").describe_cluster(ClusterId=cluster)["Cluster"]["Status"]["State"]
    return state


def made(aws: Clients, stack: str, kind: str, logical_id: str) -> str:
    """The physical id of the one resource of prod of this type whose logical id begins so."""
    listed = aws("cloudformation").describe_stack_resources(StackName=f"dml-prod-{stack}")["StackResources"]
    of_kind = [one for one in listed if one["ResourceType"] == f"AWS::{kind}"]
    (found,) = (one["PhysicalResourceId"] for one in of_kind if one["LogicalResourceId"].startswith(logical_id))
    return str(found)


def groups(aws: Clients) -> list[str]:
    """EMR's trio in prod: primary, core, service access."""
    return [made(aws, "network", "EC2::SecurityGroup", f"{name}Group") for name in ("Primary", "Core", "Service")]


def transient_cluster(aws: Clients) -> str:
    """One in prod as a run starts it, which no stack knows."""
    primary, core, service = groups(aws)
    tagged = [{"Name": f"tag:{EMR_TAG}", "Values": ["true"]}]
    subnets = aws("ec2").describe_subnets(Filters=tagged)["Subnets"]
    vpc = aws("ec2").describe_security_groups(GroupIds=[primary])["SecurityGroups"][0]["VpcId"]
    cluster: str = aws("emr").run_job_flow(
        Name="dml-prod-transient",
        ReleaseLabel="emr-7.13.0",
        ServiceRole=made(aws, "cluster", "IAM::Role", "ServiceRole"),
        JobFlowRole=made(aws, "cluster", "IAM::InstanceProfile", "NodeProfile").rpartition("/")[2],
        Tags=[
            {"Key": key, "Value": value}
            for key, value in {"project": "dml", "environment": "prod", EMR_TAG: "true"}.items()
        ],
        Instances={
            "MasterInstanceType": "m7g.xlarge",
            "InstanceCount": 1,
            "KeepJobFlowAliveWhenNoSteps": True,
            "Ec2SubnetId": next(one["SubnetId"] for one in subnets if one["VpcId"] == vpc),
            "EmrManagedMasterSecurityGroup": primary,
            "EmrManagedSlaveSecurityGroup": core,
            "ServiceAccessSecurityGroup": service,
        },
    )["JobFlowId"]
    return cluster
