"""The points on the embedded cloud behind a proxy that can fail, with one whole run that readers see."""

import threading
from collections.abc import Iterator

import pytest

from dml.local.cloud import Cloud
from tests.embedded import Clients
from tests.faults.proxy import Proxy
from tests.jobs import points
from tests.shipped import SECRETS, Shipped

EVERYTHING = {"Effect": "Allow", "Action": ["s3:*", "glue:*"], "Resource": "*"}


@pytest.fixture(scope="session")
def running_proxy(cloud: Cloud) -> Iterator[Proxy]:
    SECRETS[cloud.root["AWS_ACCESS_KEY_ID"]] = cloud.root["AWS_SECRET_ACCESS_KEY"]
    made = Proxy(cloud.endpoint, SECRETS)
    thread = threading.Thread(target=made.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    yield made
    made.shutdown()
    thread.join()
    made.server_close()


@pytest.fixture
def proxy(running_proxy: Proxy) -> Iterator[Proxy]:
    """The proxy, which lets everything pass until a test says otherwise."""
    running_proxy.faults = []
    yield running_proxy
    running_proxy.faults = []


@pytest.fixture(scope="session")
def shipped(cloud: Cloud, aws: Clients, tmp_path_factory: pytest.TempPathFactory) -> Shipped:
    """Run r1 is whole: features, a published model, predictions."""
    made = Shipped(cloud, aws, tmp_path_factory.mktemp("faults"), "faults")
    made.upload(points.lines(2000))
    made.run("prepare", "r1")
    made.run("train", "r1")
    made.publish("r1")
    made.run("predict", "r1")
    return made
