"""How the operator's commands reach an endpoint."""

import pytest

from dml.local.cloud import Cloud
from dml.platform import Platform


def test_the_embedded_cloud_should_be_reached_past_a_proxy_of_the_environment(
    cloud: Cloud, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("HTTP_PROXY", "http_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")  # the discard port: nothing answers there
    platform = Platform("dev", credentials=cloud.environment())
    assert platform.client("sts").get_caller_identity()["Account"] == "000000000000"
