"""The whole way in prod on the embedded cloud: a customer key, TLS between nodes, fleets, no workbench."""

import io
import json
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from datasets import dataset_names, load_dataset, raw_files
from dml import checkout, cli
from dml.estate.platform import Platform
from dml.local.cloud import Cloud
from stacks.outputs import CERTIFICATE, Output
from stacks.settings import load_environment
from tests.e2e.permissions import Roles
from tests.e2e.published import assert_scored_as_by_the_run
from tests.embedded import Clients

DATASET = "penguins"


@pytest.fixture(scope="module")
def platform(cloud: Cloud) -> Platform:
    return Platform("prod", credentials=cloud.environment())


@pytest.fixture(scope="module")
def told(cloud: Cloud) -> Iterator[dict[str, Any]]:
    """What a first run says of itself; it deploys the platform too."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(checkout, "HOME", cloud.place.home)
        patch.setattr(sys, "argv", ["dml", "run", DATASET, "--local", "--env", "prod", "--json"])
        printed = io.StringIO()
        patch.setattr(sys, "stdout", printed)
        with pytest.raises(SystemExit) as ended:
            cli.main()
        assert not ended.value.code
        yield json.loads(printed.getvalue())


def test_a_run_in_prod_should_publish_a_model(told: dict[str, Any], platform: Platform) -> None:
    assert told["state"] == "SUCCEEDED"
    current = platform.json_object(Output.MODELS_BUCKET, f"{DATASET}/CURRENT.json")
    assert current is not None
    assert current["run_id"] == told["run_id"]
    assert told["rows"]["predicted"] == told["rows"]["out"] == 344


def test_a_model_of_several_classes_should_be_told_by_name(told: dict[str, Any], platform: Platform) -> None:
    assert told["metrics"]["test"]["accuracy"] > 0.9 > told["metrics"]["baseline"]["accuracy"]
    assert "Adelie" in Path(told["report"]).read_text(encoding="utf-8")
    pointer = platform.json_object(Output.MODELS_BUCKET, f"{DATASET}/CURRENT.json")
    assert pointer is not None
    assert pointer["metrics"]["macro_f1"] == told["metrics"]["test"]["macro_f1"]


def test_a_raw_file_should_be_scored_to_the_last_bit_as_the_run_did(
    told: dict[str, Any], platform: Platform, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    settings = load_dataset(DATASET)
    (file,) = raw_files(settings, tmp_path)[settings.main].values()
    assert_scored_as_by_the_run(DATASET, file, platform, "prod", capsys, tmp_path)


def test_the_cluster_should_be_one_of_fleets_that_has_come_and_gone(told: dict[str, Any], aws: Clients) -> None:
    emr = aws("emr")
    found = [emr.describe_cluster(ClusterId=one["Id"])["Cluster"] for one in emr.list_clusters()["Clusters"]]
    clusters = [one for one in found if one["Name"].startswith("dml-prod-transient of penguins run-")]
    assert clusters
    for cluster in clusters:
        assert cluster["Status"]["State"] == "TERMINATED"
        assert cluster["InstanceCollectionType"] == "INSTANCE_FLEET"
    fleets = emr.list_instance_fleets(ClusterId=clusters[0]["Id"])["InstanceFleets"]
    nodes = load_environment("prod").cluster
    assert {fleet["InstanceFleetType"]: fleet["TargetSpotCapacity"] for fleet in fleets} == {
        "MASTER": 0,
        "CORE": 0,
        "TASK": 1,
    }
    assert [fleet["TargetOnDemandCapacity"] for fleet in fleets] == [1, nodes.minimum_nodes, 0]


def test_the_run_should_have_made_a_certificate_for_the_nodes(told: dict[str, Any], platform: Platform) -> None:
    found = platform.s3.get_object(Bucket=platform.output(Output.WORKSPACE_BUCKET), Key=CERTIFICATE)
    names = zipfile.ZipFile(io.BytesIO(found["Body"].read())).namelist()
    assert names == ["privateKey.pem", "certificateChain.pem", "trustedCertificates.pem"]


def test_the_run_should_have_told_cloudwatch_its_figures(told: dict[str, Any], aws: Clients) -> None:
    metrics = aws("cloudwatch").list_metrics(Namespace="dml")["Metrics"]
    mine = {"Environment": "prod", "Dataset": DATASET}
    names = {
        metric["MetricName"]
        for metric in metrics
        if {one["Name"]: one["Value"] for one in metric["Dimensions"]} == mine
    }
    assert names == {"RowsPrepared", "QuarantinedShare", "log_loss", "accuracy"}


def test_no_call_of_the_run_should_have_been_denied_and_the_key_used_by_roles_that_may(
    told: dict[str, Any], cloud: Cloud, platform: Platform
) -> None:
    roles = Roles(platform.client("cloudformation"), "dml-prod-", dataset_names())
    calls = cloud.calls()["calls"]
    assert roles.denied(calls) == [], json.dumps(roles.denied(calls), indent=1)
    by_key = {one.role for one in roles.allowed([call for call in calls if call["action"].startswith("kms:")])}
    assert by_key >= {"dataset EtlCrawlerRole", "dataset EtlPrepareRole", "cluster NodeRole", "dataset PipelineRole"}
