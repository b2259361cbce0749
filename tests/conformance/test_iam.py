"""Calls are allowed and denied as IAM's guide says: cases/iam.json, each by a role, or user, of its own."""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import pytest
from botocore.exceptions import ClientError

from dml.local.clients import client
from dml.local.cloud import Cloud
from tests.conformance.conftest import TRUST, cases, placed
from tests.embedded import Clients
from tests.local.emulator import variables

ROLE, USER = "conformance-asker", "conformance-user"
ARN = f"arn:aws:iam::000000000000:role/{ROLE}"
SESSION = f"arn:aws:sts::000000000000:assumed-role/{ROLE}/asks"
DENIED = ("AccessDenied", "AccessDeniedException")


def document(statements: list[Any], version: str = "2012-10-17") -> str:
    return json.dumps({"Version": version, "Statement": statements})


@pytest.fixture(scope="module")
def ground(aws: Clients) -> str:
    """A bucket with an object, and a parameter; the bucket's name."""
    aws("s3").create_bucket(Bucket="conformance-rights")
    for key in ("shared/Report", f"{USER}/Report"):
        aws("s3").put_object(Bucket="conformance-rights", Key=key, Body=b"1")
    aws("ssm").put_parameter(Name="/conformance", Type="String", Value="1")
    return "conformance-rights"


@contextmanager
def user(aws: Clients, case: Mapping[str, Any]) -> Iterator[dict[str, str]]:
    """The keys of a user that has a case's policies."""
    iam = aws("iam")
    iam.create_user(UserName=USER)
    iam.put_user_policy(UserName=USER, PolicyName="p", PolicyDocument=document(case["identity"]))
    key = iam.create_access_key(UserName=USER)["AccessKey"]
    try:
        yield variables(key)
    finally:
        iam.delete_access_key(UserName=USER, AccessKeyId=key["AccessKeyId"])
        iam.delete_user_policy(UserName=USER, PolicyName="p")
        iam.delete_user(UserName=USER)


@contextmanager
def worn(aws: Clients, case: Mapping[str, Any]) -> Iterator[dict[str, str]]:
    """The keys of a role that has a case's policies and boundary, in a session with its tags and policy."""
    iam, limits = aws("iam"), {}
    if "boundary" in case:
        made = iam.create_policy(PolicyName="conformance-boundary", PolicyDocument=document(case["boundary"]))
        limits["PermissionsBoundary"] = made["Policy"]["Arn"]
    iam.create_role(RoleName=ROLE, AssumeRolePolicyDocument=json.dumps(TRUST), **limits)
    try:
        if case["identity"]:
            identity = document(case["identity"], case.get("version", "2012-10-17"))
            iam.put_role_policy(RoleName=ROLE, PolicyName="p", PolicyDocument=identity)
        session: dict[str, Any] = {"Tags": [{"Key": key, "Value": tag} for key, tag in case.get("tags", {}).items()]}
        if "session" in case:
            session["Policy"] = document(case["session"])
        yield variables(aws("sts").assume_role(RoleArn=ARN, RoleSessionName="asks", **session)["Credentials"])
    finally:
        for name in iam.list_role_policies(RoleName=ROLE)["PolicyNames"]:
            iam.delete_role_policy(RoleName=ROLE, PolicyName=name)
        iam.delete_role(RoleName=ROLE)
        if limits:
            iam.delete_policy(PolicyArn=limits["PermissionsBoundary"])


def answer(asker: Any, operation: str, given: Mapping[str, Any]) -> str:
    try:
        getattr(asker, operation)(**given)
    except ClientError as error:
        if error.response["Error"]["Code"] not in DENIED:
            raise
        return "explicit deny" if "with an explicit deny" in str(error) else "implicit deny"
    return "allowed"


@pytest.mark.parametrize("case", cases("iam"))
def test_a_call_should_be_decided_as_on_aws(aws: Clients, cloud: Cloud, ground: str, case: dict[str, Any]) -> None:
    case = placed(case, Bucket=ground, Role=ARN, Session=SESSION)
    aws("s3").delete_object(Bucket=ground, Key="made")
    with (user if case.get("user") else worn)(aws, case) as keys:
        if "bucket" in case:
            aws("s3").put_bucket_policy(Bucket=ground, Policy=document(case["bucket"]))
        else:
            aws("s3").delete_bucket_policy(Bucket=ground)
        asker = client(cloud, case["ask"]["service"], keys)
        decided = answer(asker, case["ask"]["operation"], case["ask"]["given"])
    assert decided == case["answer"]
