"""S3 answers conditional writes and reads as it documents them: cases/s3.json, each some requests in a row."""

from typing import Any

import pytest
from botocore.exceptions import ClientError

from tests.conformance.conftest import cases, placed
from tests.embedded import Clients


def asked(s3: Any, operation: str, given: dict[str, Any]) -> dict[str, Any]:
    """What S3 answers: its status, and the error's parts or the answer's."""
    try:
        told = getattr(s3, operation)(**given)
    except ClientError as error:
        found = error.response["Error"]
        told = {**error.response, **found, "code": found["Code"], "message": found.get("Message")}
    return {**told, "status": told["ResponseMetadata"]["HTTPStatusCode"]}


@pytest.mark.parametrize("case", cases("s3"))
def test_s3_should_answer_as_on_aws(aws: Clients, bucket: str, case: dict[str, Any]) -> None:
    for step in placed(case["steps"], Bucket=bucket):
        told = asked(aws("s3"), step["operation"], {"Bucket": bucket, **step["given"]})
        assert {name: told.get(name) for name in step["answer"]} == step["answer"]
