"""What `dml data prune` deletes, and above all what it leaves."""

import json
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from dml import cli
from dml.estate import platform as platforms
from dml.estate import prune
from dml.estate.platform import Platform
from dml.local.cloud import Cloud
from stacks.outputs import Output, database_output, state_machine_output
from tests.embedded import Clients
from tests.shipped import role

LAKE, MODELS = "dml-test-prune-lake", "dml-test-prune-models"
FILES = {
    LAKE: ("features/{run}/part-0.parquet", "quarantine/{run}/flights/0.json", "runs/{run}/prepare.json"),
    MODELS: ("{run}/manifest.json", "{run}/model/data/part-0", "{run}/tree.json"),
}
RUNS = [f"run-{number}" for number in range(1, 9)]  # the last is the newest


@pytest.fixture
def deployed(cloud: Cloud, aws: Clients, monkeypatch: pytest.MonkeyPatch) -> Iterator[Platform]:
    """Eight runs: 2 is current, 1 was before it; the features are those of 3; 4 is under way."""
    s3, glue, states = aws("s3"), aws("glue"), aws("stepfunctions")
    for bucket, names in FILES.items():
        s3.create_bucket(Bucket=bucket)
        for run in RUNS:
            for name in names:
                s3.put_object(Bucket=bucket, Key=f"points/{name.format(run=run)}", Body=b"0123456789")
    s3.put_object(Bucket=LAKE, Key="points2/features/run-1/part-0.parquet", Body=b"another dataset's")
    pointer = {"run_id": "run-2", "previous": {"run_id": "run-1"}}
    s3.put_object(Bucket=MODELS, Key="points/CURRENT.json", Body=json.dumps(pointer).encode())
    glue.create_database(DatabaseInput={"Name": "test_prune"})
    place = {"Location": f"s3://{LAKE}/points/features/run-3/"}
    glue.create_table(DatabaseName="test_prune", TableInput={"Name": "features", "StorageDescriptor": place})
    role(aws, "prune", {"Effect": "Allow", "Action": "s3:*", "Resource": "*"}, service="states.amazonaws.com")
    waits = json.dumps({"StartAt": "a", "States": {"a": {"Type": "Wait", "Seconds": 600, "End": True}}})
    arn = aws("iam").get_role(RoleName="prune")["Role"]["Arn"]
    machine = states.create_state_machine(name="prune", roleArn=arn, definition=waits)["stateMachineArn"]
    running = states.start_execution(stateMachineArn=machine, name="run-4")["executionArn"]
    made = Platform("dev", credentials=cloud.environment())
    outputs = {Output.LAKE_BUCKET: LAKE, Output.MODELS_BUCKET: MODELS}
    outputs |= {database_output("points"): "test_prune", state_machine_output("points"): machine}
    monkeypatch.setattr(made, "output", outputs.__getitem__)
    yield made
    states.stop_execution(executionArn=running)
    states.delete_state_machine(stateMachineArn=machine)
    aws("iam").delete_role_policy(RoleName="prune", PolicyName="all")
    aws("iam").delete_role(RoleName="prune")
    glue.delete_table(DatabaseName="test_prune", Name="features")
    glue.delete_database(Name="test_prune")
    for bucket in FILES:
        for key in keys(aws, bucket):
            s3.delete_object(Bucket=bucket, Key=key)
        s3.delete_bucket(Bucket=bucket)


def keys(aws: Clients, bucket: str) -> list[str]:
    return [one["Key"] for one in aws("s3").list_objects_v2(Bucket=bucket).get("Contents", [])]


def command(*arguments: str, patch: pytest.MonkeyPatch, platform: Platform) -> None:
    patch.setattr(platforms, "deployed", lambda local, env: platform)
    patch.setattr(sys, "argv", ["dml", "data", "prune", "points", "--local", *arguments])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert not ended.value.code


def test_a_dry_run_should_say_why_each_run_stays_and_delete_nothing(
    deployed: Platform, aws: Clients, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    before = {bucket: keys(aws, bucket) for bucket in FILES}
    command("--dry-run", "--keep", "2", "--json", patch=monkeypatch, platform=deployed)
    printed = capsys.readouterr()
    told: dict[str, Any] = {run["run_id"]: run for run in json.loads(printed.out)["runs"]}
    assert {run_id: run["stays"] for run_id, run in told.items()} == {
        "run-8": "one of the newest 2",
        "run-7": "one of the newest 2",
        "run-6": None,
        "run-5": None,
        "run-4": "under way",
        "run-3": "the table features points at it",
        "run-2": "the current model",
        "run-1": "the model before the current one",
    }
    assert (told["run-5"]["objects"], told["run-5"]["bytes"]) == (6, 60)
    assert "Nothing was deleted. To go: 2 runs of points, 0.0 MB." in printed.err
    assert {bucket: keys(aws, bucket) for bucket in FILES} == before


def test_what_nobody_reads_should_go_and_all_else_stay(
    deployed: Platform, aws: Clients, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = {
        bucket: [key for key in keys(aws, bucket) if not {"run-5", "run-6"} & {*key.split("/")}] for bucket in FILES
    }
    command("--keep", "2", "--yes", patch=monkeypatch, platform=deployed)
    assert {bucket: keys(aws, bucket) for bucket in FILES} == kept
    assert "points2/features/run-1/part-0.parquet" in kept[LAKE]


def test_a_model_that_goes_should_lose_its_manifest_first(deployed: Platform, monkeypatch: pytest.MonkeyPatch) -> None:
    """So that one which is interrupted half-way is no whole model to anybody."""
    runs = [run for run in prune.plan(deployed, "points", 2) if run.run_id == "run-5"]
    asked: list[list[str]] = []
    delete = deployed.s3.delete_objects

    def noted(**given: Any) -> Any:
        asked.append([one["Key"] for one in given["Delete"]["Objects"]])
        return delete(**given)

    monkeypatch.setattr(deployed.s3, "delete_objects", noted)
    prune.prune(deployed, runs, lambda text: None)
    models = [keys for keys in asked if "features" not in keys[0]]
    assert models == [["points/run-5/manifest.json"], ["points/run-5/model/data/part-0", "points/run-5/tree.json"]]
