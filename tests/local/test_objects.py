"""Objects in the embedded cloud: sent, copied and kept in pieces, whatever their size."""

import base64
import hashlib
import json
import os
import re
import resource
import socket
import sys
import zlib
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from urllib.parse import urlsplit

import boto3
import pytest
from boto3.s3.transfer import TransferConfig
from botocore.auth import S3SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.config import Config
from botocore.credentials import Credentials
from botocore.exceptions import ClientError
from botocore.httpsession import URLLib3Session

from dml.local.clients import client
from dml.local.cloud import Cloud
from dml.local.credentials import ID, SECRET
from dml.local.place import REGION
from tests.distributed.standalone import until
from tests.embedded import Clients
from tests.local.emulator import policy

pytestmark = pytest.mark.cloud
LINUX = pytest.mark.skipif(sys.platform != "linux", reason="what a process has in memory is told by /proc")

BUCKET = "objects-in-pieces"
MEGABYTE = 1024**2
LARGE = 96 * MEGABYTE
NINE = b"123456789"  # whose CRC is in every catalogue of CRCs


def large() -> bytes:
    """Content of LARGE bytes, each megabyte with its own number throughout."""
    return b"".join(bytes([number]) * MEGABYTE for number in range(LARGE // MEGABYTE))


@pytest.fixture(scope="module")
def bucket(aws: Clients) -> Iterator[str]:
    s3 = aws("s3")
    s3.create_bucket(Bucket=BUCKET)
    s3.put_bucket_versioning(Bucket=BUCKET, VersioningConfiguration={"Status": "Enabled"})
    s3.put_object(Bucket=BUCKET, Key="large", Body=large())
    yield BUCKET
    for kind in ("Versions", "DeleteMarkers"):
        for found in s3.list_object_versions(Bucket=BUCKET).get(kind, []):
            s3.delete_object(Bucket=BUCKET, Key=found["Key"], VersionId=found["VersionId"])
    s3.delete_bucket(Bucket=BUCKET)


class Memory:
    """The server's resident memory, by Linux's account: now, and the most since `forget`. And its limit of files."""

    def __init__(self, cloud: Cloud) -> None:
        record = json.loads((cloud.place.cloud / "server.json").read_text())
        self.process = Path("/proc") / str(record["pid"])

    def forget(self) -> None:
        (self.process / "clear_refs").write_text("5")  # man 5 proc: resets the peak

    def limit(self, size: int) -> tuple[int, int]:
        """How many bytes a file of the server's may have from now on (-1: any); and what it was, soft and hard."""
        return resource.prlimit(int(self.process.name), resource.RLIMIT_FSIZE, (size, -1))

    def bytes(self, name: str) -> int:
        lines = (self.process / "status").read_text().splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{name}:"))


@LINUX
def test_a_range_should_cost_what_it_returns(cloud: Cloud, aws: Clients, bucket: str) -> None:
    s3, memory = aws("s3"), Memory(cloud)
    before = memory.bytes("VmRSS")
    memory.forget()
    for start in range(0, LARGE, 8 * MEGABYTE):
        answer = s3.get_object(Bucket=bucket, Key="large", Range=f"bytes={start}-{start + 9}")
        number = start // MEGABYTE
        assert answer["Body"].read() == bytes([number]) * 10
        assert answer["ContentRange"] == f"bytes {start}-{start + 9}/{LARGE}"
    assert memory.bytes("VmHWM") - before < 24 * MEGABYTE


@LINUX
def test_a_large_object_should_be_sent_and_copied_in_pieces(cloud: Cloud, aws: Clients, bucket: str) -> None:
    s3, memory = aws("s3"), Memory(cloud)
    before = memory.bytes("VmRSS")
    memory.forget()
    etag = s3.copy_object(CopySource={"Bucket": bucket, "Key": "large"}, Bucket=bucket, Key="copy")["CopyObjectResult"]
    assert s3.get_object(Bucket=bucket, Key="copy")["Body"].read() == large()
    assert etag["ETag"] == s3.head_object(Bucket=bucket, Key="large")["ETag"]
    s3.copy_object(CopySource={"Bucket": bucket, "Key": "large"}, Bucket=bucket, Key="copy")  # a version of its own
    assert memory.bytes("VmHWM") - before < 24 * MEGABYTE


def test_an_earlier_version_should_be_what_it_was(aws: Clients, bucket: str) -> None:
    s3 = aws("s3")
    first, second = (s3.put_object(Bucket=bucket, Key="twice", Body=text)["VersionId"] for text in (b"first", b"then"))
    for version, text in ((first, b"first"), (second, b"then")):
        assert s3.get_object(Bucket=bucket, Key="twice", VersionId=version)["Body"].read() == text
    s3.delete_object(Bucket=bucket, Key="twice")
    assert s3.get_object(Bucket=bucket, Key="twice", VersionId=second)["Body"].read() == b"then"
    copied = {"Bucket": bucket, "Key": "twice", "VersionId": first}
    s3.copy_object(CopySource=copied, Bucket=bucket, Key="back")
    assert s3.get_object(Bucket=bucket, Key="back")["Body"].read() == b"first"
    for marker in s3.list_object_versions(Bucket=bucket, Prefix="twice")["DeleteMarkers"]:
        s3.delete_object(Bucket=bucket, Key="twice", VersionId=marker["VersionId"])
    s3.delete_object(Bucket=bucket, Key="twice", VersionId=second)
    assert s3.get_object(Bucket=bucket, Key="twice")["Body"].read() == b"first"


def test_an_object_that_is_replaced_should_not_be_sent_as_a_mixture(aws: Clients, bucket: str) -> None:
    s3 = aws("s3")
    s3.put_object(Bucket=bucket, Key="changing", Body=b"a" * 32 * MEGABYTE)
    answer = s3.get_object(Bucket=bucket, Key="changing")
    begun = answer["Body"].read(MEGABYTE)
    s3.put_object(Bucket=bucket, Key="changing", Body=b"b" * 32 * MEGABYTE)
    assert set(begun + answer["Body"].read()) == set(b"a")
    with pytest.raises(ClientError) as error:
        s3.get_object(Bucket=bucket, Key="changing", Range="bytes=10-19", IfMatch=answer["ETag"])
    assert error.value.response["ResponseMetadata"]["HTTPStatusCode"] == 412


def test_ranges_at_the_edges_should_be_as_s3_has_them(aws: Clients, bucket: str) -> None:
    s3 = aws("s3")
    last = bytes([LARGE // MEGABYTE - 1])
    for span, expected in (
        (f"bytes={LARGE - 3}-", last * 3),
        ("bytes=-2", last * 2),
        (f"bytes={LARGE - 1}-{LARGE + 99}", last),
    ):
        assert s3.get_object(Bucket=bucket, Key="large", Range=span)["Body"].read() == expected
    with pytest.raises(ClientError) as error:
        s3.get_object(Bucket=bucket, Key="large", Range=f"bytes={LARGE}-")
    assert error.value.response["Error"]["Code"] == "InvalidRange"
    s3.put_object(Bucket=bucket, Key="empty", Body=b"")
    assert s3.get_object(Bucket=bucket, Key="empty")["Body"].read() == b""


@LINUX
def test_an_upload_in_parts_should_be_stored_in_pieces(cloud: Cloud, aws: Clients, bucket: str, tmp_path: Path) -> None:
    s3, memory = aws("s3"), Memory(cloud)
    (tmp_path / "large").write_bytes(large())
    before = memory.bytes("VmRSS")
    memory.forget()
    two_at_a_time = TransferConfig(multipart_chunksize=8 * MEGABYTE, max_concurrency=2)
    s3.upload_file(str(tmp_path / "large"), bucket, "parts", Config=two_at_a_time)
    assert memory.bytes("VmHWM") - before < 64 * MEGABYTE
    answer = s3.get_object(Bucket=bucket, Key="parts")
    assert (answer["ContentLength"], answer["Body"].read()) == (LARGE, large())
    digests = b"".join(
        hashlib.md5(large()[at : at + 8 * MEGABYTE]).digest()  # noqa: S324  # what S3's ETags are
        for at in range(0, LARGE, 8 * MEGABYTE)
    )
    assert answer["ETag"] == f'"{hashlib.md5(digests).hexdigest()}-{LARGE // MEGABYTE // 8}"'  # noqa: S324
    (found,) = s3.list_objects_v2(Bucket=bucket, Prefix="parts")["Contents"]
    assert found["Size"] == LARGE


def test_parts_should_be_taken_in_the_order_that_is_asked_for(aws: Clients, bucket: str) -> None:
    s3 = aws("s3")
    upload = {"Bucket": bucket, "Key": "ordered", "UploadId": ""}
    upload["UploadId"] = s3.create_multipart_upload(Bucket=bucket, Key="ordered")["UploadId"]
    parts = []
    for number, letter in ((2, b"b"), (1, b"x"), (1, b"a"), (3, b"c")):  # the first part twice: the later one counts
        etag = s3.upload_part(**upload, PartNumber=number, Body=letter * 5 * MEGABYTE)["ETag"]
        parts = [part for part in parts if part["PartNumber"] != number]
        parts.append({"PartNumber": number, "ETag": etag})
    chosen = sorted(parts, key=lambda part: part["PartNumber"])[:2]
    s3.complete_multipart_upload(**upload, MultipartUpload={"Parts": chosen})
    assert s3.get_object(Bucket=bucket, Key="ordered")["Body"].read() == b"a" * 5 * MEGABYTE + b"b" * 5 * MEGABYTE


def test_what_cannot_be_written_should_be_an_error_and_leave_what_was_there(cloud: Cloud, bucket: str) -> None:
    keys = {"aws_access_key_id": cloud.root[ID], "aws_secret_access_key": cloud.root[SECRET]}
    once = Config(retries={"total_max_attempts": 1})
    s3 = boto3.client("s3", region_name=REGION, endpoint_url=cloud.endpoint, config=once, **keys)
    s3.put_object(Bucket=bucket, Key="kept", Body=b"before")
    (file,) = cloud.place.objects.glob(f"*/{bucket}/kept")
    in_the_way = file.with_name("kept.tmp")  # where a new file is made first
    in_the_way.mkdir()
    try:
        with pytest.raises(ClientError, match=r"The embedded cloud cannot write kept: Is a directory"):
            s3.put_object(Bucket=bucket, Key="kept", Body=b"after")
    finally:
        in_the_way.rmdir()
    assert s3.get_object(Bucket=bucket, Key="kept")["Body"].read() == b"before"
    assert len(s3.list_object_versions(Bucket=bucket, Prefix="kept")["Versions"]) == 1
    s3.put_object(Bucket=bucket, Key="kept", Body=b"after")
    assert s3.get_object(Bucket=bucket, Key="kept")["Body"].read() == b"after"


@LINUX
def test_a_large_put_should_come_in_pieces(cloud: Cloud, aws: Clients, bucket: str, tmp_path: Path) -> None:
    s3, memory, size = aws("s3"), Memory(cloud), 400 * MEGABYTE
    with (tmp_path / "large").open("wb") as file:
        file.truncate(size)
    before = memory.bytes("VmRSS")
    memory.forget()
    with (tmp_path / "large").open("rb") as file:
        put = s3.put_object(Bucket=bucket, Key="put", Body=file)
    assert memory.bytes("VmHWM") - before < 32 * MEGABYTE
    with (tmp_path / "large").open("rb") as file:
        assert put["ETag"] == f'"{hashlib.file_digest(file, "md5").hexdigest()}"'
    assert s3.head_object(Bucket=bucket, Key="put")["ContentLength"] == size


def test_what_is_put_in_frames_should_be_what_is_in_them(cloud: Cloud, aws: Clients, bucket: str) -> None:
    content = os.urandom(3 * MEGABYTE)
    frames = [content[:MEGABYTE], content[MEGABYTE : 2 * MEGABYTE + 7], content[2 * MEGABYTE + 7 :]]
    framed = b"".join(f"{len(frame):x}\r\n".encode() + frame + b"\r\n" for frame in frames)
    crc = base64.b64encode(zlib.crc32(content).to_bytes(4, "big")).decode()
    wrong = base64.b64encode(zlib.crc32(b"").to_bytes(4, "big")).decode()
    for trailer, expected in (
        (f"0\r\nx-amz-checksum-crc32:{wrong}\r\n\r\n", (400, "BadDigest")),
        ("0\r\n\r\n", (400, "IncompleteBody")),
        ("", (400, "IncompleteBody")),
        (f"0\r\nx-amz-checksum-crc32:{crc}\r\n\r\n", (200, "")),
    ):
        assert put_in_frames(cloud, bucket, framed + trailer.encode(), len(content)) == expected
        found = aws("s3").list_objects_v2(Bucket=bucket, Prefix="framed")["KeyCount"]
        assert found == (expected == (200, ""))
    answer = aws("s3").get_object(Bucket=bucket, Key="framed", ChecksumMode="ENABLED")
    assert answer["Body"].read() == content
    assert (answer["ChecksumCRC32"], answer["ETag"]) == (crc, f'"{hashlib.md5(content).hexdigest()}"')  # noqa: S324
    assert "aws-chunked" not in answer.get("ContentEncoding", "")


def put_in_frames(cloud: Cloud, bucket: str, framed: bytes, size: int) -> tuple[int, str]:
    """(status, error code) of a PutObject of what SDKs send over HTTPS: frames, and their checksum behind them."""
    request = AWSRequest(
        "PUT",
        f"{cloud.endpoint}/{bucket}/framed",
        {
            "x-amz-decoded-content-length": str(size),
            "x-amz-trailer": "x-amz-checksum-crc32",
            "content-encoding": "aws-chunked",
        },
        framed,
    )
    Framed(Credentials(cloud.root[ID], cloud.root[SECRET]), "s3", REGION).add_auth(request)
    answer = URLLib3Session().send(request.prepare())
    code = re.search("<Code>(.*)</Code>", answer.text)
    return answer.status_code, code[1] if code else ""


class Framed(S3SigV4Auth):
    """Signs a request whose frames are not signed."""

    def payload(self, request: AWSRequest) -> str:
        return "STREAMING-UNSIGNED-PAYLOAD-TRAILER"


@pytest.mark.parametrize(("content", "checksum"), [(b"x" * 2 * MEGABYTE, "RtW05H5itak="), (NINE, "rosUhgp5mIg=")])
def test_a_put_that_is_refused_should_leave_what_was_there(
    aws: Clients, bucket: str, content: bytes, checksum: str
) -> None:
    s3, key = aws("s3"), f"stays-{len(content)}"
    s3.put_object(Bucket=bucket, Key=key, Body=b"before")
    for code, asked in (
        ("BadDigest", {"ContentMD5": base64.b64encode(bytes(16)).decode()}),
        ("BadDigest", {"ChecksumSHA256": base64.b64encode(bytes(32)).decode()}),
        ("BadDigest", {"ChecksumCRC64NVME": base64.b64encode(bytes(8)).decode()}),
        ("PreconditionFailed", {"IfNoneMatch": "*"}),
        ("PreconditionFailed", {"IfMatch": '"0"'}),
    ):
        with pytest.raises(ClientError, match=code):
            s3.put_object(Bucket=bucket, Key=key, Body=content, **asked)
    assert s3.get_object(Bucket=bucket, Key=key)["Body"].read() == b"before"
    assert len(s3.list_object_versions(Bucket=bucket, Prefix=key)["Versions"]) == 1
    etag = s3.get_object(Bucket=bucket, Key=key)["ETag"]
    s3.put_object(Bucket=bucket, Key=key, Body=content, IfMatch=etag, ChecksumCRC64NVME=checksum)
    assert s3.get_object(Bucket=bucket, Key=key)["Body"].read() == content


def test_parts_that_are_copied_should_stand_beside_parts_that_are_sent(aws: Clients, bucket: str) -> None:
    s3 = aws("s3")
    upload = {"Bucket": bucket, "Key": "mixed"}
    upload["UploadId"] = s3.create_multipart_upload(**upload)["UploadId"]
    copied = s3.upload_part_copy(
        **upload, PartNumber=1, CopySource={"Bucket": bucket, "Key": "large"}, CopySourceRange="bytes=0-5242879"
    )["CopyPartResult"]
    sent = s3.upload_part(**upload, PartNumber=2, Body=b"sent")
    parts = [{"PartNumber": number, "ETag": part["ETag"]} for number, part in enumerate((copied, sent), 1)]
    s3.complete_multipart_upload(**upload, MultipartUpload={"Parts": parts})
    assert s3.get_object(Bucket=bucket, Key="mixed")["Body"].read() == large()[: 5 * MEGABYTE] + b"sent"


@LINUX
def test_a_put_for_which_there_is_no_room_should_be_an_error_and_leave_what_was_there(
    cloud: Cloud, aws: Clients, bucket: str
) -> None:
    s3, server = aws("s3"), Memory(cloud)
    s3.put_object(Bucket=bucket, Key="no-room", Body=b"before")
    former = server.limit(8 * MEGABYTE)
    try:
        with pytest.raises(ClientError, match=f"The embedded cloud cannot write /{bucket}/no-room: File too large"):
            s3.put_object(Bucket=bucket, Key="no-room", Body=bytes(16 * MEGABYTE))
    finally:
        server.limit(former[0])
    assert s3.get_object(Bucket=bucket, Key="no-room")["Body"].read() == b"before"
    s3.put_object(Bucket=bucket, Key="no-room", Body=bytes(16 * MEGABYTE))
    assert s3.head_object(Bucket=bucket, Key="no-room")["ContentLength"] == 16 * MEGABYTE


@LINUX
def test_a_put_that_breaks_off_should_leave_nothing(cloud: Cloud, aws: Clients, bucket: str) -> None:
    s3 = aws("s3")
    url = urlsplit(s3.generate_presigned_url("put_object", Params={"Bucket": bucket, "Key": "half"}))
    head = f"PUT {url.path}?{url.query} HTTP/1.1\r\nHost: {url.netloc}\r\nContent-Length: {4 * MEGABYTE}\r\n\r\n"
    before = unnamed_files(cloud)
    with socket.create_connection((url.hostname, url.port)) as connection:
        connection.sendall(head.encode() + bytes(2 * MEGABYTE))
        until(lambda: unnamed_files(cloud) > before, "the server has begun to take it")
    until(lambda: unnamed_files(cloud) == before, "the server has put away what has come")
    assert s3.list_objects_v2(Bucket=bucket, Prefix="half")["KeyCount"] == 0


def unnamed_files(cloud: Cloud) -> int:
    """How many files without a name the server has open where objects are."""
    names = []
    for file in (Memory(cloud).process / "fd").iterdir():
        with suppress(FileNotFoundError):  # closed since
            names.append(str(file.readlink()))
    return sum(name.startswith(str(cloud.place.objects)) and name.endswith("(deleted)") for name in names)


@pytest.fixture(scope="module")
def reader(aws: Clients) -> Credentials:
    """The keys of a role that may read objects, and write none."""
    iam = aws("iam")
    trust = {"Effect": "Allow", "Principal": {"AWS": "*"}, "Action": "sts:AssumeRole"}
    role = iam.create_role(RoleName="reader", AssumeRolePolicyDocument=policy(trust))["Role"]["Arn"]
    may = {"Effect": "Allow", "Action": "s3:GetObject", "Resource": "*"}
    iam.put_role_policy(RoleName="reader", PolicyName="read", PolicyDocument=policy(may))
    worn = aws("sts").assume_role(RoleArn=role, RoleSessionName="session")["Credentials"]
    return Credentials(worn["AccessKeyId"], worn["SecretAccessKey"], worn["SessionToken"])


@LINUX
@pytest.mark.parametrize("forged", [False, True])
def test_a_put_that_may_not_be_should_be_refused_before_its_body_is_sent(
    cloud: Cloud, bucket: str, reader: Credentials, forged: bool
) -> None:
    keys = Credentials(reader.access_key, "another secret", reader.token) if forged else reader
    with sent(cloud, keys, f"/{bucket}/denied", {"content-length": str(5 * 1024**3), "expect": "100-continue"}) as put:
        answer = put.makefile("rb").read()  # to the end: the server has ended the connection
    assert answer.startswith(b"HTTP/1.1 403 ")
    assert (b"SignatureDoesNotMatch" if forged else b"not authorized to perform: s3:PutObject on") in answer
    assert b"\r\nconnection: close\r\n" in answer


@LINUX
def test_the_body_of_a_put_that_may_not_be_should_not_go_to_the_disk(
    cloud: Cloud, aws: Clients, bucket: str, reader: Credentials, tmp_path: Path
) -> None:
    server, size = Memory(cloud), 64 * MEGABYTE
    former = server.limit(2 * MEGABYTE)  # what it writes beyond that is an error, and another answer
    try:
        with sent(cloud, reader, f"/{bucket}/denied", {"content-length": str(size)}) as put:
            put.sendall(bytes(size))  # without waiting for an answer, as many clients do
            answer = put.makefile("rb").read()
        assert answer.startswith(b"HTTP/1.1 403 "), answer
        assert b"not authorized to perform: s3:PutObject on" in answer
        whole = tmp_path / "whole"
        whole.write_bytes(bytes(16 * MEGABYTE))
        theirs = client(cloud, "s3", variables_of(reader))
        with (
            whole.open("rb") as content,
            pytest.raises(ClientError, match="not authorized to perform") as denied,
        ):
            theirs.put_object(Bucket=bucket, Key="denied", Body=content)
        assert denied.value.response["ResponseMetadata"]["RetryAttempts"] == 0
    finally:
        server.limit(former[0])
    assert aws("s3").list_objects_v2(Bucket=bucket, Prefix="denied")["KeyCount"] == 0


def test_a_put_that_may_be_should_be_told_to_go_on(cloud: Cloud, aws: Clients, bucket: str) -> None:
    root, content = Credentials(cloud.root[ID], cloud.root[SECRET]), large()[: 3 * MEGABYTE]
    waits = {"content-length": str(len(content)), "expect": "100-continue", "connection": "close"}
    for hashed, status, code in (
        (hashlib.sha256(content).hexdigest(), b"HTTP/1.1 200 ", b""),
        (hashlib.sha256(b"another").hexdigest(), b"HTTP/1.1 4", b"<Code>XAmzContentSHA256Mismatch</Code>"),
    ):
        with sent(cloud, root, f"/{bucket}/goes-on", waits, hashed) as put:
            answer = put.makefile("rb")
            assert answer.readline() == b"HTTP/1.1 100 Continue\r\n"
            assert answer.readline() == b"\r\n"
            put.sendall(content)
            assert answer.readline().startswith(status)
            assert code in answer.read()
    assert aws("s3").get_object(Bucket=bucket, Key="goes-on")["Body"].read() == content
    assert len(aws("s3").list_object_versions(Bucket=bucket, Prefix="goes-on")["Versions"]) == 1


def sent(
    cloud: Cloud, keys: Credentials, path: str, headers: dict[str, str], hashed: str = "UNSIGNED-PAYLOAD"
) -> socket.socket:
    """A connection on which the head of a signed PUT has been sent, and nothing of its body."""

    class Told(S3SigV4Auth):
        def payload(self, request: AWSRequest) -> str:
            return hashed

    request = AWSRequest("PUT", f"{cloud.endpoint}{path}", {"x-amz-content-sha256": hashed, **headers})
    Told(keys, "s3", REGION).add_auth(request)
    url = urlsplit(cloud.endpoint)
    head = "".join(f"{name}: {value}\r\n" for name, value in {"host": url.netloc, **request.headers}.items())
    connection = socket.create_connection((url.hostname, url.port), timeout=20)
    connection.sendall(f"PUT {path} HTTP/1.1\r\n{head}\r\n".encode())
    return connection


def variables_of(keys: Credentials) -> dict[str, str]:
    return {ID: keys.access_key, SECRET: keys.secret_key, "AWS_SESSION_TOKEN": keys.token}
