"""From the last release to this checkout, by the real CDK CLI: what was there is there, where readers look for it."""

import json
from collections.abc import Iterator
from typing import Any

import pytest

from dml import diff
from dml.diff import Action, Report
from dml.errors import UserError
from dml.local.cloud import Cloud
from dml.local.deploy import Commands, deploy
from dml.local.emr import ALIVE
from dml.platform import Platform
from stacks.outputs import Output, database_output, state_machine_output
from tests.embedded import Clients, free_port
from tests.local.conftest import until
from tests.upgrade import previous

DATASET = "penguins"
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
    made = Cloud(tmp_path_factory.mktemp("before"))
    made.up(free_port())
    Commands(made, lambda _text: None).bootstrap()
    yield made
    made.down()


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
    assets = "cdk-hnb659fds-assets-000000000000-us-east-1"
    for key in previous.asset_keys(environment):
        aws("s3").put_object(Bucket=assets, Key=key, Body=previous.placeholder(key))
    cloudformation = aws("cloudformation")
    for stack, template in previous.templates(environment).items():
        aws("s3").put_object(Bucket=assets, Key=f"{stack}.json", Body=json.dumps(template).encode())
        cloudformation.create_stack(
            StackName=stack,
            TemplateURL=f"{cloud.endpoint}/{assets}/{stack}.json",
            Capabilities=["CAPABILITY_IAM", "CAPABILITY_NAMED_IAM"],
        )
        until(lambda stack=stack: not status(aws, stack).endswith("IN_PROGRESS"), seconds=90)  # type: ignore[misc]
        assert status(aws, stack) == "CREATE_COMPLETE", events_of_failure(aws, [stack])


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


def upgrade(cloud: Cloud, aws: Clients, environment: str, report: Report) -> None:
    """Deploys this checkout; first takes out of the way what the report says has to be."""
    for name in dict.fromkeys(refusal.delete_first for refusal in report.refused):
        aws("cloudformation").delete_stack(StackName=name)
        aws("cloudformation").get_waiter("stack_delete_complete").wait(StackName=name, WaiterConfig={"Delay": 1})
    try:
        deploy(cloud, environment, on_progress=lambda _text: None)
    except UserError as error:
        standing = [
            stack for stack in previous.templates(environment) if stack not in {r.delete_first for r in report.refused}
        ]
        raise AssertionError("\n".join([str(error), *events_of_failure(aws, standing)])) from None


@pytest.mark.parametrize("environment", ["dev", "prod"])
def test_an_upgrade_should_say_what_it_replaces_and_keep_what_users_have(before: Cloud, environment: str) -> None:
    aws = Clients(before)
    deploy_previous(before, aws, environment)
    platform = Platform(environment, credentials=before.environment())
    fill(platform)
    kept = found(platform)
    assert kept["tables"]

    report = diff.diff(platform)
    data = [one for one in report.changes if one.type in ("AWS::S3::Bucket", "AWS::Glue::Database", "AWS::SNS::Topic")]
    assert [one for one in data if one.action not in (Action.ADD, Action.CHANGE)] == []
    # A name that is taken has no way out but another name; what is in the way may be deleted, if it holds no data.
    assert [one for one in report.refused if not one.delete_first] == []
    assert {one.delete_first for one in report.refused} <= {f"dml-{environment}-{s}" for s in ("cluster", "pipeline")}

    upgrade(before, aws, environment, report)
    platform = Platform(environment, credentials=before.environment())
    assert found(platform) == kept
    for stack in previous.templates(environment):
        assert status(aws, stack) in ("UPDATE_COMPLETE", "CREATE_COMPLETE")
    machine = platform.output(state_machine_output(DATASET))
    assert platform.client("stepfunctions").describe_state_machine(stateMachineArn=machine)["status"] == "ACTIVE"
    workbench = platform.client("ssm").get_parameter(Name=platform.output(Output.WORKBENCH_PARAMETER))
    alive = [one["Id"] for one in platform.client("emr").list_clusters(ClusterStates=list(ALIVE))["Clusters"]]
    assert [workbench["Parameter"]["Value"]] == (alive if environment == "dev" else ["none"])
    after = diff.diff(platform)
    assert (after.changes, after.refused) == ([], [])
    if environment == "dev":
        aws("emr").terminate_job_flows(JobFlowIds=alive)
