"""How the operator's commands reach an endpoint."""

from typing import Any

import pytest

from dml.errors import UserError
from dml.estate.platform import Platform
from dml.local.cloud import Cloud
from stacks.outputs import SHARED, state_machine_output


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


def deployed(monkeypatch: pytest.MonkeyPatch, *parts: str, outputs: dict[str, Any] | None = None) -> Platform:
    """An environment of which these stacks stand; `outputs`: of some of them."""
    made = [
        {
            "StackName": f"dml-dev-{part}",
            "Outputs": [
                {"OutputKey": key, "OutputValue": value} for key, value in (outputs or {}).get(part, {}).items()
            ],
        }
        for part in parts
    ]

    class Standing:
        def get_paginator(self, _operation: str) -> "Standing":
            return self

        def paginate(self) -> list[dict[str, Any]]:
            return [{"Stacks": made}]

    platform = Platform("dev")
    monkeypatch.setattr(platform, "client", lambda _service: Standing())
    return platform


def test_a_stack_that_is_not_whole_or_another_commands_should_be_no_dataset(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = {"nyc-flights": {state_machine_output("nyc_flights"): "arn"}}
    platform = deployed(monkeypatch, *SHARED, "nyc-flights", "penguins", "smoke-ab12cd34", outputs=whole)
    assert platform.datasets == ["nyc_flights"]


@pytest.mark.parametrize(
    ("standing", "way_out"),
    [
        ((), "npx cdk deploy --all -c env=dev"),
        ((*SHARED, "etl", "pipeline"), "former release. Bring it to this one: dml resume"),
        (SHARED, "npx cdk deploy dml-dev-penguins --import-existing-resources -c env=dev"),
    ],
)
def test_what_is_not_deployed_should_be_told_with_the_way_that_leads_there(
    monkeypatch: pytest.MonkeyPatch, standing: tuple[str, ...], way_out: str
) -> None:
    with pytest.raises(UserError) as error:
        deployed(monkeypatch, *standing).output(state_machine_output("penguins"), dataset="penguins")
    assert way_out in str(error.value)
