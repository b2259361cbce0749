"""How the operator's commands reach an endpoint."""

import pytest

from dml.estate.platform import Platform
from dml.local.cloud import Cloud


def test_the_embedded_cloud_should_be_reached_past_a_proxy_of_the_environment(
    cloud: Cloud, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("HTTP_PROXY", "http_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")  # the discard port: nothing answers there
    platform = Platform("dev", credentials=cloud.environment())
    assert platform.client("sts").get_caller_identity()["Account"] == "000000000000"


def test_the_region_should_be_taken_from_where_the_cdk_takes_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """boto3 by itself knows AWS_DEFAULT_REGION only: what is deployed to one region would be sought in another."""
    monkeypatch.setenv("AWS_REGION", "eu-central-1")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-west-2")
    assert Platform("dev").client("cloudformation").meta.region_name == "eu-central-1"
