"""The certificate by which the nodes of a cluster talk TLS to each other, where encryption.in_transit wants it.

EMR takes it from S3 as a zip of PEM files when a cluster starts (EMR Management Guide, "Providing certificates for
encrypting data in transit"). It is signed by itself: only the cluster's own nodes use it, under the VPC's own names.
"""

import datetime as dt
import io
import json
import zipfile
from collections.abc import Callable
from typing import Any

from botocore.exceptions import ClientError
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.x509.oid import NameOID

from dml.errors import UserError
from dml.estate.platform import Platform
from stacks.outputs import CERTIFICATE, CERTIFICATE_END, CERTIFICATE_RENEW_DAYS, Output
from stacks.settings import load_environment

VALID_DAYS = 365
EXPIRES = "expires"  # in the file beside it: when, in ISO format


def ensure(platform: Platform, *, renew: bool = False) -> str | None:
    """Makes the certificate unless there is one for some time yet; what was done in a sentence, None if nothing.

    `renew`: in any case. Clusters that run keep the one that they started with.
    """
    bucket = platform.output(Output.WORKSPACE_BUCKET)
    place = f"s3://{bucket}/{CERTIFICATE}"
    now = dt.datetime.now(dt.UTC)
    until = None if renew else _expiry(platform, bucket)
    if until and until > now + dt.timedelta(days=CERTIFICATE_RENEW_DAYS):
        return None
    ends = now + dt.timedelta(days=VALID_DAYS)
    body = archive(platform.s3.meta.region_name, now, ends)
    told = json.dumps({EXPIRES: ends.isoformat(timespec="seconds")})
    try:
        platform.s3.put_object(Bucket=bucket, Key=CERTIFICATE, Body=body)
        platform.s3.put_object(Bucket=bucket, Key=CERTIFICATE_END, Body=told.encode(), ContentType="application/json")
    except ClientError as error:
        raise UserError(f"Could not write the nodes' certificate to {place}: {error}") from error
    return f"a new certificate for the nodes of clusters is at {place}, valid until {ends:%Y-%m-%d}"


def keep_ready(platform: Platform, say: Callable[[str], None]) -> None:
    """Makes one where the environment encrypts between nodes and none is valid for long. Raises UserError."""
    if load_environment(platform.environment).encryption.in_transit and (done := ensure(platform)):
        say(done)


def archive(region: str, begins: dt.datetime, ends: dt.datetime) -> bytes:
    """The zip that EMR wants: privateKey.pem, certificateChain.pem, trustedCertificates.pem; the key is only here."""
    names = "*.ec2.internal" if region == "us-east-1" else f"*.{region}.compute.internal"
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    who = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, names)])
    certificate = (
        x509.CertificateBuilder()
        .subject_name(who)
        .issuer_name(who)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(begins - dt.timedelta(hours=1))  # clocks differ
        .not_valid_after(ends)
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(names)]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    chain = certificate.public_bytes(serialization.Encoding.PEM)
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as files:
        files.writestr("privateKey.pem", private)
        files.writestr("certificateChain.pem", chain)
        files.writestr("trustedCertificates.pem", chain)
    return buffer.getvalue()


def ends_at(s3: Any, bucket: str) -> dt.datetime | None:
    """Until when the certificate is valid, by the file beside it; None if there is none that says it. Raises
    ClientError.
    """
    try:
        noted = s3.get_object(Bucket=bucket, Key=CERTIFICATE_END)["Body"].read()
    except s3.exceptions.NoSuchKey:
        return None
    try:
        return dt.datetime.fromisoformat(json.loads(noted)[EXPIRES])
    except (ValueError, TypeError, KeyError):
        return None  # not as it was written: with a new certificate it is again


def _expiry(platform: Platform, bucket: str) -> dt.datetime | None:
    """None if there is no certificate, or nobody knows until when it is valid."""
    try:
        platform.s3.head_object(Bucket=bucket, Key=CERTIFICATE)
        return ends_at(platform.s3, bucket)
    except ClientError as error:
        if error.response["Error"]["Code"] in ("404", "NoSuchKey"):
            return None
        raise UserError(f"Could not look at s3://{bucket}/{CERTIFICATE}: {error}") from error
