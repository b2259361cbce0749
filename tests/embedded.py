"""A running embedded cloud for the tests that need one: a pytest plugin, loaded by tests/conftest.py."""

import fcntl
import os
import signal
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from dml.local.clients import client
from dml.local.cloud import Cloud
from dml.local.deploy import Commands

# What the shell that starts the cloud has, and nothing that runs in it may have (tests/local/test_what_listens.py).
OPERATORS_OWN = ("AWS_PROFILE", "GITHUB_TOKEN", "SSH_AUTH_SOCK", "SPARK_CONF_DIR", "PYTHONPATH")


@pytest.fixture(scope="session")
def cloud(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cloud]:
    """An embedded cloud of the test session's own, on a free port, with nothing in it."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # a session that is terminated takes its cloud along
    with own_cloud(tmp_path_factory, "dml") as made:
        yield made


@pytest.fixture(scope="session")
def assembly_of(cloud: Cloud) -> Callable[[str], Path]:
    """assembly_of("prod") is the folder of the app as it is deployed to any of the session's clouds."""
    return Commands(cloud, lambda _text: None).assembly


@pytest.fixture(scope="session", autouse=True)
def one_synthesis_at_a_time() -> Iterator[None]:
    """What one worker of a test run synthesises, the others wait for."""
    synthesised = Commands.assembly

    def in_turn(commands: Commands, env: str, *, dataset: str = "") -> Path:
        with (commands.assemblies / "lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            return synthesised(commands, env, dataset=dataset)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Commands, "assembly", in_turn)
        yield


@contextmanager
def own_cloud(tmp_path_factory: pytest.TempPathFactory, name: str) -> Iterator[Cloud]:
    """Another one, for tests that others would disturb; what is synthesised for one of them, all of them have."""
    run = tmp_path_factory.getbasetemp()
    shared = (run.parent if "PYTEST_XDIST_WORKER" in os.environ else run) / "cdk.out"
    shared.mkdir(exist_ok=True)
    home = tmp_path_factory.mktemp(name)
    (home / "cdk.out").symlink_to(shared)
    made = Cloud(home)
    with pytest.MonkeyPatch.context() as shell:
        for own in OPERATORS_OWN:
            shell.setenv(own, "the-operators-own")
        made.up(free_port())
    try:
        yield made
    finally:
        made.down()


@pytest.fixture(scope="session")
def aws(cloud: Cloud) -> "Clients":
    """boto3 clients of it, as its root user."""
    return Clients(cloud)


class Clients:
    """aws("glue") is a boto3 client of the embedded cloud, always the same one."""

    def __init__(self, cloud: Cloud) -> None:
        self._cloud = cloud
        self._made: dict[str, Any] = {}

    def __call__(self, service: str) -> Any:
        if service not in self._made:
            self._made[service] = client(self._cloud, service)
        return self._made[service]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
