"""What the cases stand on: a bucket, a topic's absence, and a role that may do everything."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.embedded import Clients

CASES = Path(__file__).parent / "cases"
TRUST = {
    "Version": "2012-10-17",
    "Statement": [
        {"Effect": "Allow", "Principal": {"Service": "states.amazonaws.com"}, "Action": "sts:AssumeRole"},
        {"Effect": "Allow", "Principal": {"AWS": "*"}, "Action": ["sts:AssumeRole", "sts:TagSession"]},
    ],
}
EVERYTHING = {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "*", "Resource": "*"}]}
BUCKET = "conformance-bucket"


def cases(kind: str) -> list[Any]:
    """The cases of one kind, each a parameter that is called by its name."""
    found = json.loads((CASES / f"{kind}.json").read_text())
    assert all(case["source"] for case in found)
    return [pytest.param(case, id=case["name"]) for case in found]


def placed(value: Any, **names: str) -> Any:
    """A case with the names of what was made for it in the place of ${Name}."""
    text = json.dumps(value)
    for name, made in names.items():
        text = text.replace(f"${{{name}}}", made)
    return json.loads(text)


@pytest.fixture(scope="session")
def bucket(aws: Clients) -> str:
    aws("s3").create_bucket(Bucket=BUCKET)
    aws("s3").put_object(Bucket=BUCKET, Key="large", Body=b"x" * 256 * 1024)
    return BUCKET


@pytest.fixture(scope="session")
def role(aws: Clients) -> Iterator[str]:
    """The ARN of a role that a state machine and anybody of the account may wear."""
    made = aws("iam").create_role(RoleName="conformance", AssumeRolePolicyDocument=json.dumps(TRUST))["Role"]["Arn"]
    aws("iam").put_role_policy(RoleName="conformance", PolicyName="all", PolicyDocument=json.dumps(EVERYTHING))
    yield made
    aws("iam").delete_role_policy(RoleName="conformance", PolicyName="all")
    aws("iam").delete_role(RoleName="conformance")
