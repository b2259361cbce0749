"""The certificate by which nodes talk TLS to each other: what is in it, and when a new one is made."""

import datetime as dt
import io
import json
import zipfile
from collections.abc import Iterator
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization

from dml.estate import certificate
from dml.estate.platform import Platform
from dml.local.cloud import Cloud
from stacks.definition import CERTIFIED, CLEAN_UP, NETWORK, REASONS, Parts, certified
from stacks.outputs import CERTIFICATE, CERTIFICATE_END, CERTIFICATE_RENEW_DAYS, Output
from tests.embedded import Clients
from tests.local.conftest import until
from tests.shipped import role

BUCKET = "dml-test-certificates"
NOW = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)


def pem(archive: bytes, name: str) -> bytes:
    return zipfile.ZipFile(io.BytesIO(archive)).read(name)


@pytest.mark.parametrize(
    ("region", "name"), [("us-east-1", "*.ec2.internal"), ("eu-central-1", "*.eu-central-1.compute.internal")]
)
def test_a_certificate_should_be_for_the_vpcs_own_names_and_fit_its_key(region: str, name: str) -> None:
    made = certificate.archive(region, NOW, NOW + dt.timedelta(days=365))
    chain = x509.load_pem_x509_certificate(pem(made, "certificateChain.pem"))
    names = chain.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == [name]
    assert chain.not_valid_before_utc < NOW < chain.not_valid_after_utc == NOW + dt.timedelta(days=365)
    key = serialization.load_pem_private_key(pem(made, "privateKey.pem"), password=None)
    assert key.public_key() == chain.public_key()
    chain.verify_directly_issued_by(x509.load_pem_x509_certificate(pem(made, "trustedCertificates.pem")))


@pytest.fixture
def platform(cloud: Cloud, aws: Clients, monkeypatch: pytest.MonkeyPatch) -> Iterator[Platform]:
    """An environment of which only the workspace bucket is there."""
    aws("s3").create_bucket(Bucket=BUCKET)
    made = Platform("prod", credentials=cloud.environment())
    monkeypatch.setattr(made, "output", {Output.WORKSPACE_BUCKET: BUCKET}.__getitem__)
    yield made
    for key in (CERTIFICATE, CERTIFICATE_END):
        aws("s3").delete_object(Bucket=BUCKET, Key=key)
    aws("s3").delete_bucket(Bucket=BUCKET)


def etag(aws: Clients) -> str:
    found: str = aws("s3").head_object(Bucket=BUCKET, Key=CERTIFICATE)["ETag"]
    return found


def test_a_certificate_should_be_made_once_and_again_when_it_is_due_or_asked_for(
    platform: Platform, aws: Clients
) -> None:
    said = certificate.ensure(platform)
    assert said is not None
    assert f"s3://{BUCKET}/{CERTIFICATE}" in said
    first = etag(aws)
    assert certificate.ensure(platform) is None
    assert etag(aws) == first
    assert certificate.ensure(platform, renew=True) is not None
    assert etag(aws) != first
    soon = (dt.datetime.now(dt.UTC) + dt.timedelta(days=CERTIFICATE_RENEW_DAYS - 1)).isoformat()
    aws("s3").put_object(Bucket=BUCKET, Key=CERTIFICATE_END, Body=json.dumps({certificate.EXPIRES: soon}).encode())
    assert certificate.ensure(platform) is not None


class Start:
    """The states by which a run looks for the certificate before it makes a cluster, as a machine of their own."""

    def __init__(self, aws: Clients) -> None:
        self._states = aws("stepfunctions")
        found = {"Effect": "Allow", "Action": ["s3:GetObject", "s3:ListBucket"], "Resource": "*"}
        role(aws, "certified", found, service="states.amazonaws.com")
        given: dict[str, Any] = dict.fromkeys(Parts.__dataclass_fields__, "-")
        given |= {"environment": "prod", "partition": "aws", "certificate_bucket": BUCKET}
        failed = {"Type": "Fail", "Error": "{% $failure.error %}"}
        states = {NETWORK: {"Type": "Succeed"}, CLEAN_UP: failed | {"Cause": "{% $failure.reason %}"}}
        states[REASONS] = failed | {"Cause": "{% $failure.cause %}"}
        definition = {"QueryLanguage": "JSONata", "StartAt": CERTIFIED, "States": certified(Parts(**given)) | states}
        arn = aws("iam").get_role(RoleName="certified")["Role"]["Arn"]
        made = self._states.create_state_machine(name="certified", roleArn=arn, definition=json.dumps(definition))
        self._machine = made["stateMachineArn"]

    def end(self) -> dict[str, Any]:
        arn = self._states.start_execution(stateMachineArn=self._machine)["executionArn"]
        until(lambda: self.told(arn)["status"] != "RUNNING")
        return self.told(arn)

    def told(self, arn: str) -> dict[str, Any]:
        found: dict[str, Any] = self._states.describe_execution(executionArn=arn)
        return found


def test_no_cluster_should_start_without_a_certificate_or_with_one_that_has_ended(
    platform: Platform, aws: Clients
) -> None:
    start = Start(aws)
    way_out = "make one: dml certificates --env prod"
    without = start.end()
    assert without["error"] == "NoCertificate"
    assert without["cause"].startswith("there is no certificate for the nodes of clusters")
    assert without["cause"].endswith(f"s3://{BUCKET}/{CERTIFICATE_END} says its end; {way_out}")
    past = (dt.datetime.now(dt.UTC) - dt.timedelta(hours=1)).isoformat(timespec="seconds")
    aws("s3").put_object(Bucket=BUCKET, Key=CERTIFICATE_END, Body=json.dumps({certificate.EXPIRES: past}).encode())
    expired = start.end()
    assert expired["error"] == "CertificateExpired"
    assert f"ended on {past}; {way_out}" in expired["cause"]
    certificate.ensure(platform, renew=True)
    assert start.end()["status"] == "SUCCEEDED"
    aws("iam").delete_role_policy(RoleName="certified", PolicyName="all")
    assert start.end()["error"] == "S3.S3Exception"  # not told as a certificate that is missing
