"""The certificate by which nodes talk TLS to each other: what is in it, and when a new one is made."""

import datetime as dt
import io
import zipfile
from collections.abc import Iterator

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization

from dml.estate import certificate
from dml.estate.platform import Platform
from dml.local.cloud import Cloud
from stacks.outputs import CERTIFICATE, Output
from tests.embedded import Clients

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
    aws("s3").delete_object(Bucket=BUCKET, Key=CERTIFICATE)
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
    soon = (dt.datetime.now(dt.UTC) + dt.timedelta(days=certificate.RENEW_DAYS - 1)).isoformat()
    aws("s3").put_object(Bucket=BUCKET, Key=CERTIFICATE, Body=b"old", Metadata={certificate.EXPIRES: soon})
    assert certificate.ensure(platform) is not None
