"""A bare S3 and IAM emulator for the tests of the gateway and of Spark: real HTTP, IAM enforced, its own port."""

import json
import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dml.local.clients import client

REGION = "us-east-1"
ROOT = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test"}


@dataclass(frozen=True)
class Emulator:
    endpoint: str

    @property
    def root(self) -> Mapping[str, str]:
        return ROOT

    def client(self, service: str, credentials: Mapping[str, str] = ROOT) -> Any:
        return client(self, service, credentials)

    def role(self, name: str, *actions: str) -> dict[str, str]:
        """The credentials of a new role that may do only `actions`, on everything."""
        principal = {"Effect": "Allow", "Principal": {"Service": "glue.amazonaws.com"}, "Action": "sts:AssumeRole"}
        allowed = {"Effect": "Allow", "Action": list(actions), "Resource": "*"}
        iam = self.client("iam")
        arn = iam.create_role(RoleName=name, AssumeRolePolicyDocument=policy(principal))["Role"]["Arn"]
        iam.put_role_policy(RoleName=name, PolicyName="allowed", PolicyDocument=policy(allowed))
        return variables(self.client("sts").assume_role(RoleArn=arn, RoleSessionName="job")["Credentials"])


def variables(keys: Mapping[str, Any]) -> dict[str, str]:
    """Keys as IAM and STS tell them, by the names of environment variables; IAM's have no token."""
    names = {"ACCESS_KEY_ID": "AccessKeyId", "SECRET_ACCESS_KEY": "SecretAccessKey", "SESSION_TOKEN": "SessionToken"}
    return {f"AWS_{name}": keys[key] for name, key in names.items() if key in keys}


def policy(statement: Mapping[str, object]) -> str:
    return json.dumps({"Version": "2012-10-17", "Statement": [statement]})


@contextmanager
def running_emulator(home: Path) -> Iterator[Emulator]:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    settings = {"BIND_HOST": "127.0.0.1", "MINISTACK_HOST": "127.0.0.1", "GATEWAY_PORT": str(port), "AUTH": "true"}
    environment = {"PATH": os.environ["PATH"], "HOME": str(home), "TMPDIR": str(home), **settings}
    with (home / "log").open("wb") as log:
        server = subprocess.Popen(
            [sys.executable, "-m", "ministack"],
            env=environment,
            cwd=home,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    try:
        endpoint = f"http://127.0.0.1:{port}"
        wait_until_healthy(endpoint, server, home / "log")
        yield Emulator(endpoint)
    finally:
        server.terminate()
        server.wait(20)


def wait_until_healthy(endpoint: str, server: "subprocess.Popen[bytes]", log: Path) -> None:
    deadline = time.monotonic() + 60
    while True:
        try:
            with urllib.request.urlopen(f"{endpoint}/_ministack/health", timeout=5):  # noqa: S310  # always http
                return
        except OSError:
            if server.poll() is not None or time.monotonic() > deadline:
                raise AssertionError(f"The emulator did not start:\n{log.read_text()}") from None
            time.sleep(0.05)
