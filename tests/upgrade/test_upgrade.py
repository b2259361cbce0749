"""From the last release to this checkout, by the real CDK CLI: what was there is there, where readers look for it."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from dml import cdk, checkout
from dml.errors import UserError
from dml.estate import diff
from dml.estate.diff import Action
from dml.estate.platform import Platform
from dml.local.cloud import Cloud
from dml.local.deploy import Commands, deploy_assembly
from dml.local.services.emr import ALIVE
from stacks.outputs import Output, database_output, state_machine_output
from tests.command import run_dml
from tests.embedded import Clients, own_cloud
from tests.local.conftest import until
from tests.upgrade import previous

pytestmark = pytest.mark.cloud

DATASET = "penguins"
ASSETS = "cdk-hnb659fds-assets-000000000000-us-east-1"
OBJECTS = {
    Output.RAW_BUCKET: {f"{DATASET}/penguins/penguins.csv": b"species,island\nAdelie,Dream\n"},
    Output.LAKE_BUCKET: {f"{DATASET}/features/run-1/part-0.parquet": b"PAR1"},
    Output.MODELS_BUCKET: {
        f"{DATASET}/CURRENT.json": b'{"run_id": "run-1"}',
        f"{DATASET}/run-1/tree.json": b"{}",
    },
    Output.WORKSPACE_BUCKET: {"zeppelin/notebook/mine_2ABC.zpln": b'{"name": "mine"}'},
}


@pytest.fixture(scope="module")
def before(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cloud]:
    """An embedded cloud of its own, for the last release."""
    with own_cloud(tmp_path_factory, "before") as made:
        Commands(made, lambda _text: None).bootstrap()
        yield made


def events_of_failure(aws: Clients, stacks: list[str]) -> list[str]:
    """What CloudFormation says went wrong, of each stack the newest first."""
    found = []
    for stack in stacks:
        for event in aws("cloudformation").describe_stack_events(StackName=stack)["StackEvents"]:
            if event["ResourceStatus"].endswith("FAILED"):
                found.append(
                    f"{stack}: {event['LogicalResourceId']} {event['ResourceStatus']}: {event['ResourceStatusReason']}"
                )
    return found


def deploy_previous(cloud: Cloud, aws: Clients, environment: str) -> None:
    """Creates the last release's stacks, as `cdk deploy` has done it then."""
    for key in previous.asset_keys(environment):
        aws("s3").put_object(Bucket=ASSETS, Key=key, Body=previous.placeholder(key))
    for stack, template in previous.templates(environment).items():
        update(cloud, aws, stack, template, first=True)


def update(cloud: Cloud, aws: Clients, stack: str, template: Mapping[str, Any], *, first: bool = False) -> None:
    """Creates or updates a stack; fails with CloudFormation's own events."""
    aws("s3").put_object(Bucket=ASSETS, Key=f"{stack}.json", Body=json.dumps(template).encode())
    cloudformation = aws("cloudformation")
    call, end = (
        (cloudformation.create_stack, "CREATE_COMPLETE") if first else (cloudformation.update_stack, "UPDATE_COMPLETE")
    )
    call(
        StackName=stack,
        TemplateURL=f"{cloud.endpoint}/{ASSETS}/{stack}.json",
        Capabilities=["CAPABILITY_IAM", "CAPABILITY_NAMED_IAM"],
    )
    until(lambda: not status(aws, stack).endswith("IN_PROGRESS"), seconds=90)
    assert status(aws, stack) == end, events_of_failure(aws, [stack])


def status(aws: Clients, stack: str) -> str:
    return str(aws("cloudformation").describe_stacks(StackName=stack)["Stacks"][0]["StackStatus"])


def fill(platform: Platform) -> None:
    """What users have: raw files, features, a published model, a table in the catalog, a note of their own."""
    for bucket, objects in OBJECTS.items():
        for key, body in objects.items():
            platform.s3.put_object(Bucket=platform.output(bucket), Key=key, Body=body)
    location = platform.uri(Output.LAKE_BUCKET, f"{DATASET}/features/run-1/")
    table = {"Name": "features", "StorageDescriptor": {"Location": location, "Columns": [{"Name": "a", "Type": "int"}]}}
    platform.client("glue").create_table(DatabaseName=platform.output(database_output(DATASET)), TableInput=table)


def found(platform: Platform) -> dict[str, Any]:
    """Where readers look, and what is there."""
    database = platform.output(database_output(DATASET))
    tables = platform.client("glue").get_tables(DatabaseName=database)["TableList"]
    return {
        "objects": {
            (bucket, key): platform.s3.get_object(Bucket=platform.output(bucket), Key=key)["Body"].read()
            for bucket, objects in OBJECTS.items()
            for key in objects
        },
        "buckets": {bucket: platform.output(bucket) for bucket in OBJECTS},
        "tables": [(table["Name"], table["StorageDescriptor"]["Location"]) for table in tables],
        "topic": platform.output(Output.TOPIC),
    }


def upgrade(cloud: Cloud, aws: Clients, environment: str, assembly: Path) -> None:
    """Deploys this checkout, as `dml resume` does: what is of the former layout goes first."""
    cdk.make_way(aws, f"dml-{environment}-", on_progress=lambda _text: None, every=0.2)
    try:
        deploy_assembly(cloud, assembly, on_progress=lambda _text: None)
    except UserError as error:
        standing = [one["StackName"] for one in aws("cloudformation").describe_stacks()["Stacks"]]
        raise AssertionError("\n".join([str(error), *events_of_failure(aws, standing)])) from None


@pytest.mark.parametrize("environment", ["dev", "prod"])
def test_an_upgrade_should_say_what_it_replaces_and_keep_what_users_have(before: Cloud, environment: str) -> None:
    aws = Clients(before)
    deploy_previous(before, aws, environment)
    platform = Platform(environment, credentials=before.environment())
    fill(platform)
    kept = found(platform)
    assert kept["tables"]

    assembly = Commands(before, lambda _text: None).assembly(environment)
    report = diff.compare(environment, diff.deployed(platform), *diff.read_assembly(assembly))
    data = [one for one in report.changes if one.type in ("AWS::S3::Bucket", "AWS::Glue::Database", "AWS::SNS::Topic")]
    # A database moves to its dataset's stack: it is kept and adopted where data outlive their stacks, else made anew.
    gone = [one for one in data if one.action not in (Action.ADD, Action.CHANGE)]
    assert {(one.type, one.action, one.kept) for one in gone} == {
        ("AWS::Glue::Database", Action.DELETE, environment == "prod")
    }
    # A name that is taken has no way out but another name; what is in the way may be deleted, if it holds no data.
    assert [one for one in report.refused if not one.delete_first] == []
    assert {one.delete_first for one in report.refused} <= {f"dml-{environment}-pipeline"}
    assert sorted(report.left) == [f"dml-{environment}-{s}" for s in ("etl", "pipeline")]

    upgrade(before, aws, environment, assembly)
    platform = Platform(environment, credentials=before.environment())
    if environment == "dev":
        kept["tables"] = []  # the next run makes them again of what is in the lake
    assert found(platform) == kept
    fresh, _ = diff.read_assembly(assembly)
    assert all(status(aws, stack) in ("UPDATE_COMPLETE", "CREATE_COMPLETE") for stack in fresh)
    left = {one["StackName"] for one in aws("cloudformation").describe_stacks()["Stacks"]}
    assert not {f"dml-{environment}-etl", f"dml-{environment}-pipeline"} & left
    machine = platform.output(state_machine_output(DATASET))
    assert platform.client("stepfunctions").describe_state_machine(stateMachineArn=machine)["status"] == "ACTIVE"
    workbench = platform.client("ssm").get_parameter(Name=platform.output(Output.WORKBENCH_PARAMETER))
    alive = [one["Id"] for one in platform.client("emr").list_clusters(ClusterStates=list(ALIVE))["Clusters"]]
    assert [workbench["Parameter"]["Value"]] == (alive if environment == "dev" else ["none"])
    after = diff.compare(environment, diff.deployed(platform), *diff.read_assembly(assembly))
    assert (after.changes, after.refused) == ([], [])


def test_the_command_should_say_what_would_change_and_exit_with_1_if_some_of_it_would_be_refused(
    before: Cloud, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def told(*options: str) -> tuple[int, str]:
        return run_dml(monkeypatch, capsys, "diff", "--local", *options)[:2]

    monkeypatch.setattr(checkout, "HOME", before.place.home)
    assert told() == (0, "dev is what this checkout says: nothing would change.\n")
    # Somebody else's stack of ours uses what this checkout does not export any more.
    uses = {"Type": "AWS::SSM::Parameter", "Properties": {"Type": "String", "Value": {"Fn::ImportValue": "gone"}}}
    gone = {"Gone": {"Value": "v", "Export": {"Name": "gone"}}}
    for stack, part in (("data", {"Outputs": gone}), ("penguins", {"Resources": {"Uses": uses}})):
        name = f"dml-dev-{stack}"
        template = diff.deployed(Platform("dev", credentials=before.environment()))[name]
        for section, added in part.items():
            template = {**template, section: {**template[section], **added}}
        update(before, Clients(before), name, template)
    code, printed = told("--json")
    report = json.loads(printed)
    assert code == 1
    assert [(one["resource"], one["action"]) for one in report["changes"]] == [("Uses", "delete")]
    (refused,) = report["refused"]
    assert refused["why"] == "its export gone goes while dml-dev-penguins uses it"
