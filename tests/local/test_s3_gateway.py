"""The gateway between Hadoop's WebHDFS client and S3: over HTTP, against a real S3 emulator that enforces IAM."""

import http.client
import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode, urlsplit

import pytest
from botocore.exceptions import ClientError

from dml.local.spark import s3_gateway
from dml.local.spark.s3_gateway import FileSystem, Gateway, Location
from dml.local.spark.token import DelegationToken
from tests.local.emulator import REGION, ROOT, Emulator, running_emulator

pytestmark = pytest.mark.cloud

MIB = 1024 * 1024
ODD_NAME = "a b=c+d%20é à…/x y.csv"


@dataclass(frozen=True)
class Answer:
    status: int
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def refusal(self) -> tuple[str, str]:
        """Java class and message of the error."""
        return self.json["RemoteException"]["javaClassName"], self.json["RemoteException"]["message"]


@dataclass(frozen=True)
class WebHdfs:
    """Speaks as Hadoop's client does: the path as Java writes it, data in a second step at the address it was given."""

    port: int
    token: str = ""

    def call(self, method: str, path: str, op: str, body: Iterator[bytes] | None = None, **parameters: str) -> Answer:
        answer, location = self.request(method, self.target(path, op, **parameters))
        if answer.status == 307:
            moved = urlsplit(location)
            answer, _ = self.request(method, f"{moved.path}?{moved.query}", body)
        return answer

    def target(self, path: str, op: str, **parameters: str) -> str:
        told = {"op": op, "delegation": self.token, **parameters}
        return f"/webhdfs/v1/{quote(path, safe='/=+')}?{urlencode(told)}"

    def request(
        self, method: str, target: str, body: Iterator[bytes] | None = None, headers: Mapping[str, str] | None = None
    ) -> tuple[Answer, str]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        try:
            connection.request(method, target, body=body, headers=headers or {}, encode_chunked=body is not None)
            response = connection.getresponse()
            return Answer(response.status, response.read()), response.getheader("Location", "")
        finally:
            connection.close()

    def names(self, path: str) -> list[str]:
        found = self.call("GET", path, "LISTSTATUS").json["FileStatuses"]["FileStatus"]
        return [entry["pathSuffix"] for entry in found]

    def kind(self, path: str) -> str:
        return str(self.call("GET", path, "GETFILESTATUS").json["FileStatus"]["type"])


@pytest.fixture(scope="module")
def emulator(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Emulator]:
    with running_emulator(tmp_path_factory.mktemp("emulator")) as running:
        yield running


@pytest.fixture(scope="module")
def s3(emulator: Emulator) -> Any:
    return emulator.client("s3")


@pytest.fixture
def bucket(s3: Any, request: pytest.FixtureRequest) -> str:
    """A bucket of the test's own."""
    name = request.node.name.replace("test_", "").replace("_", "-")[:60].strip("-")
    s3.create_bucket(Bucket=name)
    return str(name)


@contextmanager
def gateway_for(s3: Any, scratch: Path, **options: float) -> Iterator[WebHdfs]:
    gateway = Gateway(FileSystem(s3, scratch), **options)
    thread = threading.Thread(target=gateway.serve_forever)
    thread.start()
    yield WebHdfs(gateway.server_port, gateway.token.parameter)
    gateway.shutdown()
    thread.join()
    gateway.server_close()


@pytest.fixture
def hdfs(s3: Any, tmp_path: Path) -> Iterator[WebHdfs]:
    with gateway_for(s3, tmp_path) as client:
        yield client


def keys(s3: Any, bucket: str) -> list[str]:
    return [found["Key"] for found in s3.list_objects_v2(Bucket=bucket).get("Contents", [])]


def test_status_should_tell_files_directories_and_absence_apart(s3: Any, bucket: str, hdfs: WebHdfs) -> None:
    for key in ("features/part.csv", *(f"features-{number}" for number in range(5)), "features.json"):
        s3.put_object(Bucket=bucket, Key=key, Body=b"12345")
    assert hdfs.kind(f"{bucket}/features") == "DIRECTORY"
    assert hdfs.kind(f"{bucket}/features/part.csv") == "FILE"
    assert hdfs.call("GET", f"{bucket}/features.json", "GETFILESTATUS").json["FileStatus"]["length"] == 5
    absent = hdfs.call("GET", f"{bucket}/feature", "GETFILESTATUS")
    assert absent.refusal == ("java.io.FileNotFoundException", f"s3://{bucket}/feature does not exist.")


def test_listing_should_name_the_children_of_a_directory_and_nothing_below(s3: Any, bucket: str, hdfs: WebHdfs) -> None:
    for key in ("in/a.csv", "in/b/c.csv", "in/b/d.csv", "in/", "other/e.csv"):
        s3.put_object(Bucket=bucket, Key=key, Body=b"x")
    assert hdfs.names(f"{bucket}/in") == ["a.csv", "b"]
    assert hdfs.names(f"{bucket}/in/a.csv") == [""]
    assert hdfs.names(bucket) == ["in", "other"]


def test_listing_should_go_on_after_the_first_thousand_objects(s3: Any, bucket: str, hdfs: WebHdfs) -> None:
    for number in range(1205):
        s3.put_object(Bucket=bucket, Key=f"many/{number:05}", Body=b"")
    assert len(hdfs.names(f"{bucket}/many")) == 1205
    assert hdfs.call("DELETE", f"{bucket}/many", "DELETE", recursive="true").json == {"boolean": True}
    assert keys(s3, bucket) == []


def test_names_should_survive_whatever_letters_they_have(s3: Any, bucket: str, hdfs: WebHdfs) -> None:
    assert hdfs.call("PUT", f"{bucket}/{ODD_NAME}", "CREATE", iter([b"text"])).status == 201
    assert keys(s3, bucket) == [ODD_NAME]
    assert hdfs.call("GET", f"{bucket}/{ODD_NAME}", "OPEN").body == b"text"
    assert hdfs.names(f"{bucket}/{ODD_NAME.split('/')[0]}") == ["x y.csv"]
    hdfs.call("PUT", f"{bucket}/{ODD_NAME}", "RENAME", destination=f"/{bucket}/new + {ODD_NAME}")
    assert keys(s3, bucket) == [f"new + {ODD_NAME}"]


def test_letters_beyond_ascii_should_be_understood_as_java_sends_them(s3: Any, bucket: str, hdfs: WebHdfs) -> None:
    s3.put_object(Bucket=bucket, Key="été à l'Å…", Body=b"12345")
    with socket.create_connection(("127.0.0.1", hdfs.port), timeout=10) as plain:
        line = f"GET /webhdfs/v1/{bucket}/été%20à%20l'Å…?op=GETFILESTATUS&delegation={hdfs.token} HTTP/1.1\r\n"
        plain.sendall(f"{line}Host: 127.0.0.1:{hdfs.port}\r\nConnection: close\r\n\r\n".encode())
        answer = b"".join(iter(lambda: plain.recv(65536), b""))
    assert answer.startswith(b"HTTP/1.1 200") and b'"length": 5' in answer


def test_a_large_object_should_be_read_whole_and_unchanged(s3: Any, bucket: str, hdfs: WebHdfs) -> None:
    content = os.urandom(9 * MIB + 17)
    s3.put_object(Bucket=bucket, Key="large", Body=content)
    assert hdfs.call("GET", f"{bucket}/large", "OPEN").body == content
    assert hdfs.call("GET", f"{bucket}/large", "OPEN", offset=str(5 * MIB + 3)).body == content[5 * MIB + 3 :]
    assert hdfs.call("GET", f"{bucket}/large", "OPEN", offset="7", length="2").body == content[7:9]


def test_reading_a_range_should_not_fetch_the_whole_object(emulator: Emulator, bucket: str, tmp_path: Path) -> None:
    s3 = emulator.client("s3")
    s3.put_object(Bucket=bucket, Key="large", Body=bytes(64 * MIB))
    fetched: list[int] = []
    s3.meta.events.register("after-call.s3.GetObject", lambda parsed, **_: fetched.append(parsed["ContentLength"]))
    with gateway_for(s3, tmp_path) as hdfs:
        connection = http.client.HTTPConnection("127.0.0.1", hdfs.port, timeout=60)
        connection.request("GET", hdfs.target(f"{bucket}/large", "OPEN", offset=str(10 * MIB), step="data"))
        response = connection.getresponse()
        assert response.read(100) == bytes(100)
        assert response.getheader("Content-Length") == str(54 * MIB)
        response.close()
        connection.close()
    assert sum(fetched) < 32 * MIB
    assert fetched[0] == MIB


def test_an_object_that_is_replaced_between_two_ranges_should_not_be_read_as_a_mixture(
    s3: Any, bucket: str, tmp_path: Path
) -> None:
    s3.put_object(Bucket=bucket, Key="x", Body=b"a" * 3 * MIB)
    total, chunks = FileSystem(s3, tmp_path).read(Location(bucket, "x"), 0)
    read = [next(chunks)]
    s3.put_object(Bucket=bucket, Key="x", Body=b"b" * 3 * MIB)
    with pytest.raises(ClientError, match="PreconditionFailed"):
        read.extend(chunks)
    assert total == 3 * MIB
    assert set(b"".join(read)) == {ord("a")}


@pytest.mark.parametrize("offset", ["0", "5"])
def test_reading_at_the_end_should_give_nothing(s3: Any, emulator: Emulator, hdfs: WebHdfs, offset: str) -> None:
    s3.create_bucket(Bucket=f"end-{offset}")
    s3.put_object(Bucket=f"end-{offset}", Key="x", Body=b"x" * int(offset))
    answer = hdfs.call("GET", f"end-{offset}/x", "OPEN", offset=offset)
    assert (answer.status, answer.body) == (200, b"")


def test_a_large_write_should_be_uploaded_in_parts(s3: Any, bucket: str, hdfs: WebHdfs) -> None:
    content = os.urandom(MIB)
    assert hdfs.call("PUT", f"{bucket}/large", "CREATE", iter([content] * 20)).status == 201
    assert "-" in s3.head_object(Bucket=bucket, Key="large")["ETag"]
    assert s3.get_object(Bucket=bucket, Key="large")["Body"].read() == content * 20


def test_a_write_that_breaks_off_should_leave_nothing(s3: Any, bucket: str, hdfs: WebHdfs, tmp_path: Path) -> None:
    with socket.create_connection(("127.0.0.1", hdfs.port), timeout=10) as plain:
        line = f"PUT {hdfs.target(f'{bucket}/broken', 'CREATE', step='data')} HTTP/1.1\r\n"
        head = f"{line}Host: 127.0.0.1:{hdfs.port}\r\nTransfer-Encoding: chunked\r\n\r\n"
        plain.sendall(head.encode() + b"5\r\nabcde\r\n")
        plain.shutdown(socket.SHUT_WR)
        assert plain.recv(1) == b""
    assert keys(s3, bucket) == []
    assert list((tmp_path / "spool").iterdir()) == []


def test_an_existing_object_should_only_be_replaced_if_that_is_asked_for(s3: Any, bucket: str, hdfs: WebHdfs) -> None:
    s3.put_object(Bucket=bucket, Key="x", Body=b"old")
    refused = hdfs.call("PUT", f"{bucket}/x", "CREATE", iter([b"new"]), overwrite="false")
    assert refused.refusal[0] == "org.apache.hadoop.fs.FileAlreadyExistsException"
    assert s3.get_object(Bucket=bucket, Key="x")["Body"].read() == b"old"
    hdfs.call("PUT", f"{bucket}/x", "CREATE", iter([b"new"]), overwrite="true")
    assert s3.get_object(Bucket=bucket, Key="x")["Body"].read() == b"new"


def test_what_a_job_has_not_committed_should_not_reach_s3(s3: Any, bucket: str, hdfs: WebHdfs) -> None:
    task = f"{bucket}/out/_temporary/0/task_1"
    hdfs.call("PUT", f"{task}/k=1/part", "CREATE", iter([b"one"]))
    hdfs.call("PUT", f"{task}/k=2/part", "CREATE", iter([b"two"]))
    assert hdfs.names(task) == ["k=1", "k=2"]
    assert hdfs.call("GET", f"{task}/k=1/part", "OPEN", offset="1").body == b"ne"
    assert keys(s3, bucket) == []
    for part in ("k=1", "k=2"):
        renamed = hdfs.call("PUT", f"{task}/{part}", "RENAME", destination=f"/{bucket}/out/{part}")
        assert renamed.json == {"boolean": True}
    assert keys(s3, bucket) == ["out/k=1/part", "out/k=2/part"]
    assert s3.get_object(Bucket=bucket, Key="out/k=2/part")["Body"].read() == b"two"
    assert hdfs.names(task) == []


def test_rename_should_move_files_and_directories(s3: Any, bucket: str, hdfs: WebHdfs) -> None:
    for key in ("a/1", "a/b/2", "file"):
        s3.put_object(Bucket=bucket, Key=key, Body=key.encode())
    hdfs.call("PUT", f"{bucket}/a", "RENAME", destination=f"/{bucket}/z")
    hdfs.call("PUT", f"{bucket}/file", "RENAME", destination=f"/{bucket}/z")
    assert keys(s3, bucket) == ["z/1", "z/b/2", "z/file"]
    assert s3.get_object(Bucket=bucket, Key="z/b/2")["Body"].read() == b"a/b/2"


@pytest.mark.parametrize(("source", "target"), [("absent", "new"), ("there", "taken")])
def test_rename_should_say_no_to_a_missing_source_and_a_taken_target(
    s3: Any, hdfs: WebHdfs, source: str, target: str
) -> None:
    s3.create_bucket(Bucket="renames")
    for key in ("there", "taken"):
        s3.put_object(Bucket="renames", Key=key, Body=key.encode())
    answer = hdfs.call("PUT", f"renames/{source}", "RENAME", destination=f"/renames/{target}")
    assert answer.json == {"boolean": False}
    assert keys(s3, "renames") == ["taken", "there"]


def test_an_empty_directory_should_be_remembered_until_it_is_deleted(s3: Any, bucket: str, hdfs: WebHdfs) -> None:
    hdfs.call("PUT", f"{bucket}/out/empty", "MKDIRS")
    assert hdfs.kind(f"{bucket}/out/empty") == "DIRECTORY"
    assert hdfs.names(f"{bucket}/out") == ["empty"]
    assert hdfs.names(f"{bucket}/out/empty") == []
    assert keys(s3, bucket) == []
    hdfs.call("DELETE", f"{bucket}/out", "DELETE", recursive="true")
    assert hdfs.call("GET", f"{bucket}/out/empty", "GETFILESTATUS").status == 404


def test_delete_should_take_a_full_directory_only_if_told_to(s3: Any, bucket: str, hdfs: WebHdfs) -> None:
    for key in ("a/1", "a/b/2", "ab"):
        s3.put_object(Bucket=bucket, Key=key, Body=b"")
    refused = hdfs.call("DELETE", f"{bucket}/a", "DELETE", recursive="false")
    assert refused.refusal[0] == "java.io.IOException" and f"s3://{bucket}/a is not empty" in refused.refusal[1]
    assert hdfs.call("DELETE", f"{bucket}/a", "DELETE", recursive="true").json == {"boolean": True}
    assert keys(s3, bucket) == ["ab"]
    assert hdfs.call("DELETE", f"{bucket}/a", "DELETE", recursive="true").json == {"boolean": False}


def test_content_summary_should_add_up_a_directory(s3: Any, bucket: str, hdfs: WebHdfs) -> None:
    for key in ("a/1", "a/b/2"):
        s3.put_object(Bucket=bucket, Key=key, Body=b"1234")
    summary = hdfs.call("GET", f"{bucket}/a", "GETCONTENTSUMMARY").json["ContentSummary"]
    assert (summary["length"], summary["fileCount"]) == (8, 2)


def test_an_unknown_bucket_should_be_named(hdfs: WebHdfs) -> None:
    java_class, message = hdfs.call("GET", "nowhere/x", "GETFILESTATUS").refusal
    assert java_class == "java.io.FileNotFoundException"
    assert message == "The bucket nowhere of s3://nowhere/x does not exist."


@pytest.mark.parametrize(
    ("method", "op", "action"),
    [("GET", "OPEN", "s3:GetObject"), ("GET", "LISTSTATUS", "s3:ListBucket"), ("PUT", "CREATE", "s3:PutObject")],
)
def test_a_missing_permission_should_surface_in_the_words_of_aws(
    emulator: Emulator, s3: Any, tmp_path: Path, method: str, op: str, action: str
) -> None:
    s3.create_bucket(Bucket="secret")
    s3.put_object(Bucket="secret", Key="x", Body=b"x")
    role = emulator.client("s3", emulator.role(f"without-{op}", "glue:GetTable"))
    with pytest.raises(ClientError) as direct:
        role.list_objects_v2(Bucket="secret")
    with gateway_for(role, tmp_path) as hdfs:
        refused = hdfs.call(method, "secret/x", op, iter([b"new"]) if method == "PUT" else None)
    java_class, message = refused.refusal
    assert refused.status == 403
    assert java_class == "org.apache.hadoop.security.AccessControlException"
    assert f"assumed-role/without-{op}/job is not authorized to perform: {action} " in message
    assert "secret/x" in message
    if action == "s3:ListBucket":
        assert message.startswith(direct.value.response["Error"]["Message"])


def test_a_refused_deletion_of_many_objects_should_not_pass_for_done(
    emulator: Emulator, s3: Any, bucket: str, tmp_path: Path
) -> None:
    s3.put_object(Bucket=bucket, Key="a/1", Body=b"")
    role = emulator.client("s3", emulator.role("without-delete", "s3:ListBucket", "s3:GetObject"))
    with gateway_for(role, tmp_path) as hdfs:
        refused = hdfs.call("DELETE", f"{bucket}/a", "DELETE", recursive="true")
    assert "is not authorized to perform: s3:DeleteObject" in refused.refusal[1]
    assert keys(s3, bucket) == ["a/1"]


def test_what_s3_cannot_do_should_be_refused(s3: Any, bucket: str, hdfs: WebHdfs) -> None:
    s3.put_object(Bucket=bucket, Key="x", Body=b"x")
    for op in ("APPEND", "CONCAT", "TRUNCATE"):
        assert f"S3 has no {op}" in hdfs.call("POST", f"{bucket}/x", op).refusal[1]


def test_the_process_should_serve_on_loopback_and_end_with_its_parent(s3: Any, bucket: str, emulator: Emulator) -> None:
    s3.put_object(Bucket=bucket, Key="x", Body=b"12345")
    process = subprocess.Popen(
        [sys.executable, "-m", "dml.local.spark.s3_gateway"],
        env={"AWS_ENDPOINT_URL": emulator.endpoint, "AWS_REGION": REGION, "AWS_DEFAULT_REGION": REGION, **ROOT},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert process.stdin and process.stdout
    ready = json.loads(process.stdout.readline())
    token = DelegationToken(ready["port"], bytes.fromhex(ready["secret"])).parameter
    assert WebHdfs(ready["port"], token).call("GET", f"{bucket}/x", "OPEN").body == b"12345"
    process.stdin.close()
    assert process.wait(10) == 0
    process.stdout.close()


def test_who_does_not_show_the_jobs_token_should_be_refused_whatever_it_asks(
    s3: Any, bucket: str, hdfs: WebHdfs
) -> None:
    s3.put_object(Bucket=bucket, Key="x", Body=b"x")
    another = DelegationToken.new(hdfs.port).parameter
    for token in ("", "é", hdfs.token[:-1], hdfs.token + "A", another):
        stranger = WebHdfs(hdfs.port, token)
        for method, op in (("GET", "LISTSTATUS"), ("GET", "OPEN"), ("PUT", "CREATE"), ("DELETE", "DELETE")):
            refused = stranger.call(method, f"{bucket}/x", op, iter([b"new"]) if op == "CREATE" else None, step="data")
            assert refused.status == 403
            assert refused.refusal[1] == "The gateway answers the job only that it was started for."
            assert hdfs.token.encode() not in refused.body
    assert s3.get_object(Bucket=bucket, Key="x")["Body"].read() == b"x"


@pytest.mark.parametrize(
    ("headers", "reason"),
    [
        ({"Origin": "https://example.org"}, "The gateway does not answer web pages."),
        ({"Origin": "null"}, "The gateway does not answer web pages."),
        ({"Sec-Fetch-Site": "cross-site"}, "The gateway does not answer web pages."),
        ({"Host": "rebound.example.org"}, "The gateway answers to its own address on loopback only."),
        ({"Host": "127.0.0.1"}, "The gateway answers to its own address on loopback only."),
    ],
)
def test_a_web_page_should_be_refused_even_if_it_had_the_token(
    s3: Any, hdfs: WebHdfs, headers: dict[str, str], reason: str
) -> None:
    for method in ("GET", "PUT", "OPTIONS"):
        answer, location = hdfs.request(method, hdfs.target("nowhere/x", "OPEN"), headers=headers)
        assert (answer.status, answer.refusal[1], location) == (403, reason, "")


def test_clients_that_do_not_show_the_token_should_be_hung_up_on_and_keep_nobody_waiting(
    s3: Any, bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(s3_gateway, "STRANGERS", 4)
    s3.put_object(Bucket=bucket, Key="x", Body=b"12345")
    with gateway_for(s3, tmp_path, stranger_seconds=0.5) as hdfs:
        kept = http.client.HTTPConnection("127.0.0.1", hdfs.port, timeout=10)
        kept.request("GET", hdfs.target(f"{bucket}/x", "GETFILESTATUS"))
        kept.getresponse().read()
        strangers = [socket.create_connection(("127.0.0.1", hdfs.port), timeout=10) for _ in range(12)]
        begun = time.monotonic()
        for stranger in strangers:
            with suppress(OSError):
                stranger.sendall(b"GET /webhdfs/v1/x?op=OPEN HTTP/1.1\r\nX: ")
        assert hdfs.call("GET", f"{bucket}/x", "OPEN").body == b"12345"
        while strangers:  # each goes on sending its endless header
            for stranger in list(strangers):
                try:
                    stranger.sendall(b"y")
                except OSError:
                    stranger.close()
                    strangers.remove(stranger)
            assert time.monotonic() - begun < 5
            time.sleep(0.05)
        kept.request("GET", hdfs.target(f"{bucket}/x", "GETFILESTATUS"))  # idle for longer than a stranger may be
        assert kept.getresponse().status == 200
        kept.close()


def test_the_token_should_lie_in_a_file_for_its_owner_only(tmp_path: Path) -> None:
    token = DelegationToken.new(1)
    file = tmp_path / "gateway.token"
    file.write_text("of before, and readable for all")
    token.write(file)
    assert file.stat().st_mode & 0o777 == 0o600
    assert token.secret in file.read_bytes()
