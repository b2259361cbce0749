"""The embedded cloud as strangers meet it: a web page, another account of the machine, who has no or false keys."""

import datetime as dt
import hashlib
import hmac
import http.client
import json
import os
import shutil
import stat
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import boto3
import botocore.auth
import pytest
from botocore.auth import S3SigV4Auth, SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.config import Config
from botocore.credentials import Credentials
from botocore.exceptions import ClientError
from ministack.core import sigv4

from dml import checkout
from dml.errors import UserError
from dml.local import credentials, here
from dml.local.clients import client
from dml.local.cloud import Cloud
from dml.local.place import CALLS_PATH, MARKER_PATH, NODE_PATH, SAVE_PATH
from dml.local.processes import command_lines
from tests.embedded import Clients, free_port
from tests.local.conftest import until
from tests.local.emulator import policy, variables

pytestmark = pytest.mark.cloud

BUCKET = "yours-alone"
FORMER = {"AWS_ACCESS_KEY_ID": "dmlembeddedcloud", "AWS_SECRET_ACCESS_KEY": "not-a-secret"}
GLUE = {"X-Amz-Target": "AWSGlue.GetDatabases", "Content-Type": "application/x-amz-json-1.1"}
FORM = {"Content-Type": "application/x-www-form-urlencoded; charset=utf-8"}
WHO_AM_I = b"Action=GetCallerIdentity&Version=2011-06-15"


class Door:
    """Sends requests to the embedded cloud as they are told, with `keys` to sign them or none."""

    def __init__(self, cloud: Cloud) -> None:
        self.port, self.endpoint, self.root = cloud.place.port, cloud.endpoint, cloud.root

    def knock(
        self, method: str, path: str, headers: Mapping[str, str] | None = None, body: bytes = b""
    ) -> tuple[int, dict[str, str], bytes]:
        """Status, headers by names in small letters, body."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)
        try:
            given = {"Host": f"127.0.0.1:{self.port}", **(headers or {})}
            connection.putrequest(method, path, skip_host=True, skip_accept_encoding=True)
            for name, value in ({"Content-Length": str(len(body))} if body else {}).items() | given.items():
                connection.putheader(name, value)
            connection.endheaders(body or None)
            answer = connection.getresponse()
            return answer.status, {name.lower(): value for name, value in answer.getheaders()}, answer.read()
        finally:
            connection.close()

    def signed(
        self,
        method: str,
        path: str,
        service: str,
        headers: Mapping[str, str] | None = None,
        body: bytes = b"",
        *,
        keys: Mapping[str, str] | None = None,
    ) -> dict[str, str]:
        """The headers of this request with a signature in them, by default the root user's."""
        keys = keys or self.root
        request = AWSRequest(method, self.endpoint + path, headers=dict(headers or {}), data=body)
        given = Credentials(keys["AWS_ACCESS_KEY_ID"], keys["AWS_SECRET_ACCESS_KEY"], keys.get("AWS_SESSION_TOKEN"))
        (S3SigV4Auth if service == "s3" else SigV4Auth)(given, service, "us-east-1").add_auth(request)
        return {name: value for name, value in request.headers.items() if name != "Content-Length"}


@pytest.fixture(scope="module")
def door(cloud: Cloud, aws: Clients) -> Door:
    aws("s3").create_bucket(Bucket=BUCKET)
    aws("s3").put_object(Bucket=BUCKET, Key="code.py", Body=b"mine")
    return Door(cloud)


def clock(minutes: int) -> Callable[..., dt.datetime]:
    """The time so many minutes from now, as botocore asks for it."""
    return lambda *_, **__: dt.datetime.now(dt.UTC).replace(tzinfo=None) + dt.timedelta(minutes=minutes)


def said(answer: tuple[int, dict[str, str], bytes]) -> str:
    """Status and body, after the check that no answer gives a page leave to read it."""
    assert not [name for name in answer[1] if name.startswith("access-control-")]
    return f"{answer[0]} {answer[2].decode()}"


# --- a web page ---

PAGE = {"Origin": "https://page.example", "Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "cors"}
NO_PAGES = "403 The embedded cloud takes no requests from web pages.\n"


@pytest.mark.parametrize(
    ("method", "path", "service", "headers", "body"),
    [
        ("GET", "/", "s3", {}, b""),
        ("GET", f"/{BUCKET}/code.py", "s3", {}, b""),
        ("PUT", f"/{BUCKET}/code.py", "s3", {}, b"evil"),
        ("POST", "/", "glue", GLUE, b"{}"),
        ("POST", "/", "sts", FORM, WHO_AM_I),
        ("POST", SAVE_PATH, "sts", {}, b""),
        ("GET", MARKER_PATH, "sts", {}, b""),
        ("POST", "/_ministack/reset", "s3", {}, b""),
    ],
)
@pytest.mark.parametrize(
    "page",
    [
        PAGE,
        {"Origin": "null"},
        {"Origin": "http://127.0.0.1:8888"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
        {"Sec-Fetch-Site": "same-origin"},
    ],
    ids=["cross-site", "sandboxed", "other-port", "image", "same-site", "same-origin"],
)
def test_a_page_should_be_refused_even_with_the_keys(
    door: Door, method: str, path: str, service: str, headers: dict[str, str], body: bytes, page: dict[str, str]
) -> None:
    signed = door.signed(method, path, service, headers, body)
    assert said(door.knock(method, path, signed | page, body)) == NO_PAGES
    assert said(door.knock(method, path, headers | page, body)) == NO_PAGES


def test_what_a_page_sent_should_have_changed_nothing(door: Door, aws: Clients) -> None:
    """The same requests, sent by a client, would have: so it is the page that was refused."""
    assert aws("s3").get_object(Bucket=BUCKET, Key="code.py")["Body"].read() == b"mine"
    path = f"/{BUCKET}/by-client"
    assert door.knock("PUT", path, door.signed("PUT", path, "s3", {}, b"mine"), b"mine")[0] == 200
    typed = {"Sec-Fetch-Site": "none", "Sec-Fetch-Mode": "navigate"}  # an address that its user has typed
    assert said(door.knock("GET", path, door.signed("GET", path, "s3") | typed)) == "200 mine"


@pytest.mark.parametrize("path", ["/", f"/{BUCKET}/code.py", "/_ministack/health", "/no-bucket/x"])
def test_a_preflight_should_be_refused(door: Door, path: str) -> None:
    asked = {"Access-Control-Request-Method": "PUT", "Access-Control-Request-Headers": "authorization,x-amz-target"}
    assert said(door.knock("OPTIONS", path, PAGE | asked)) == NO_PAGES
    assert said(door.knock("OPTIONS", path)) == NO_PAGES


@pytest.mark.parametrize(
    "host",
    ["page.example:{port}", "127.0.0.1", "127.0.0.1:1", "localhost.page.example:{port}", "[::1]:{port}", ":{port}", ""],
)
def test_another_host_should_be_refused(door: Door, host: str) -> None:
    """A name of somebody else's that leads to 127.0.0.1 makes a page of its owner's one of the same origin."""
    signed = {name: value for name, value in door.signed("GET", "/", "s3").items() if name.lower() != "host"}
    answer = said(door.knock("GET", "/", signed | {"Host": host.format(port=door.port)}))
    assert answer.startswith(f"403 The embedded cloud is http://127.0.0.1:{door.port}, not ")


def test_two_hosts_or_none_should_be_refused(door: Door) -> None:
    for hosts in ([], [f"127.0.0.1:{door.port}", "page.example"]):
        connection = http.client.HTTPConnection("127.0.0.1", door.port, timeout=20)
        connection._http_vsn_str, connection._http_vsn = ("HTTP/1.0", 10) if not hosts else ("HTTP/1.1", 11)  # type: ignore[attr-defined]
        connection.putrequest("GET", "/", skip_host=True)
        for host in hosts:
            connection.putheader("Host", host)
        connection.endheaders()
        assert connection.getresponse().status in (400, 403)
        connection.close()


def test_localhost_and_the_names_of_buckets_should_be_served(door: Door) -> None:
    there = Door.__new__(Door)
    there.port, there.root = door.port, door.root
    for name, path in (("localhost", f"/{BUCKET}/code.py"), (f"{BUCKET}.s3.localhost", "/code.py")):
        there.endpoint = f"http://{name}:{door.port}"
        signed = there.signed("GET", path, "s3") | {"Host": f"{name}:{door.port}"}
        assert said(door.knock("GET", path, signed)) == "200 mine", name


def test_a_websocket_should_be_refused(door: Door) -> None:
    upgrade = {"Connection": "Upgrade", "Upgrade": "websocket", "Sec-WebSocket-Version": "13"}
    key = {"Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ=="}
    assert door.knock("GET", "/_aws/execute-api/a/b", upgrade | key)[0] == 403


def test_a_page_should_reach_the_one_bucket_whose_own_rules_let_it_in(door: Door, aws: Clients) -> None:
    bucket = "yours-alone-cors"
    aws("s3").create_bucket(Bucket=bucket)
    aws("s3").put_object(Bucket=bucket, Key="a", Body=b"public")
    rule = {"AllowedOrigins": ["https://page.example"], "AllowedMethods": ["GET"], "AllowedHeaders": ["*"]}
    aws("s3").put_bucket_cors(Bucket=bucket, CORSConfiguration={"CORSRules": [rule]})
    preflight = PAGE | {"Access-Control-Request-Method": "GET", "Access-Control-Request-Headers": "authorization"}
    status, headers, _ = door.knock("OPTIONS", f"/{bucket}/a", preflight)
    assert (status, headers["access-control-allow-origin"]) == (200, "https://page.example")
    status, headers, body = door.knock("GET", f"/{bucket}/a", door.signed("GET", f"/{bucket}/a", "s3") | PAGE)
    assert (status, headers["access-control-allow-origin"], body) == (200, "https://page.example", b"public")
    assert door.knock("GET", f"/{bucket}/a", PAGE)[0] == 403  # let in, but nobody has signed
    for method, path, service, given in (
        ("PUT", f"/{bucket}/a", "s3", {}),
        ("GET", f"/{BUCKET}/code.py", "s3", {}),
        ("GET", f"/{bucket}/a", "glue", GLUE),
    ):
        signed = door.signed(method, path, service, given)
        assert said(door.knock(method, path, signed | PAGE)) == NO_PAGES
    other = PAGE | {"Origin": "https://other.example"}
    assert said(door.knock("GET", f"/{bucket}/a", door.signed("GET", f"/{bucket}/a", "s3") | other)) == NO_PAGES


def chromium() -> str | None:
    names = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome", "headless_shell")
    return next((found for name in names if (found := shutil.which(name))), None)


@pytest.mark.skipif(chromium() is None, reason="no Chromium on the PATH")
def test_a_page_in_chromium_should_read_and_write_nothing(door: Door, aws: Clients, tmp_path: Path) -> None:
    heard: dict[str, Any] = {}
    tries = [
        ("PUT", f"/{BUCKET}/code.py", door.signed("PUT", f"/{BUCKET}/code.py", "s3", {}, b"evil"), "evil"),
        ("POST", "/", door.signed("POST", "/", "glue", GLUE, b"{}"), "{}"),
        ("GET", "/", door.signed("GET", "/", "s3"), None),
        ("GET", MARKER_PATH, {}, None),
    ]
    script = f"""<script>(async () => {{ const heard = []
      for (const [method, path, headers, body] of {json.dumps(tries)}) for (const mode of ["cors", "no-cors"])
        try {{ const answer = await fetch("{door.endpoint}" + path, {{method, headers, body, mode}})
               heard.push(answer.type === "opaque" ? "opaque" : await answer.text()) }}
        catch (error) {{ heard.push("refused") }}
      await fetch("/heard", {{method: "POST", body: JSON.stringify(heard)}}) }})()</script>"""

    class Page(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "text/html")
            self.end_headers()
            self.wfile.write(script.encode())

        def do_POST(self) -> None:
            heard["all"] = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            self.send_response(204)
            self.end_headers()

        def log_message(self, format: str, *args: Any) -> None:
            """Says nothing."""

    site = ThreadingHTTPServer(("127.0.0.1", 0), Page)
    threading.Thread(target=site.serve_forever, daemon=True).start()
    options = ["--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path}"]
    browser = subprocess.Popen(
        [str(chromium()), *options, f"http://localhost:{site.server_port}/"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        until(lambda: "all" in heard)
    finally:
        browser.kill()
        browser.wait()
        site.shutdown()
    assert set(heard["all"]) <= {"refused", "opaque"}
    assert aws("s3").get_object(Bucket=BUCKET, Key="code.py")["Body"].read() == b"mine"


# --- somebody without keys, or with false ones ---


@pytest.mark.parametrize(
    ("method", "path", "headers", "body", "answer"),
    [
        ("GET", "/", {}, b"", "403 <Code>AccessDenied</Code>"),
        ("GET", f"/{BUCKET}", {}, b"", "403 <Code>AccessDenied</Code>"),
        ("GET", f"/{BUCKET}/code.py", {}, b"", "403 <Code>AccessDenied</Code>"),
        ("PUT", f"/{BUCKET}/code.py", {}, b"evil", "403 <Code>AccessDenied</Code>"),
        ("POST", "/", GLUE, b"{}", '400 "__type": "MissingAuthenticationTokenException"'),
        ("POST", "/", FORM, WHO_AM_I, "403 <Code>MissingAuthenticationToken</Code>"),
        # AWS answers this one without a signature; nothing here needs it.
        ("POST", "/", FORM, WHO_AM_I.replace(b"GetCallerIdentity", b"AssumeRoleWithSAML"), "403 MissingAuthentication"),
        ("POST", SAVE_PATH, {}, b"", "403 <Code>AccessDenied</Code>"),
        ("GET", CALLS_PATH, {}, b"", "403 <Code>AccessDenied</Code>"),
        ("GET", f"{NODE_PATH}?cluster=j-1", {}, b"", "403 <Code>AccessDenied</Code>"),
        ("GET", "/health", {}, b"", "403 <Code>AccessDenied</Code>"),
        ("GET", "/_ministack/health", {}, b"", "403 <Code>AccessDenied</Code>"),
        ("POST", "/_ministack/reset", {}, b"", "403 <Code>AccessDenied</Code>"),
        ("GET", "/latest/meta-data/iam/security-credentials/", {}, b"", "403 MissingAuthenticationToken"),
        ("GET", "/oauth2/authorize", {}, b"", "403 MissingAuthenticationToken"),
        ("GET", "/?AWSAccessKeyId=test&Signature=x&Expires=9999999999", {}, b"", "400 <Code>InvalidRequest</Code>"),
        ("GET", "/", {"Authorization": "AWS test:x"}, b"", "400 <Code>InvalidRequest</Code>"),
        ("GET", "/", {"Authorization": "Bearer x"}, b"", "400 <Code>InvalidRequest</Code>"),
        ("GET", "/", {"Authorization": "AWS4-HMAC-SHA256 x"}, b"", "400 <Code>AuthorizationHeaderMalformed</Code>"),
    ],
)
def test_what_nobody_has_signed_should_be_refused_in_awss_words(
    door: Door, method: str, path: str, headers: dict[str, str], body: bytes, answer: str
) -> None:
    status, _, words = answer.partition(" ")
    heard = said(door.knock(method, path, headers, body))
    assert heard.startswith(f"{status} ")
    assert words in heard
    assert BUCKET not in heard


@pytest.mark.parametrize(
    ("keys", "codes"),
    [
        (FORMER, "InvalidAccessKeyId UnrecognizedClientException InvalidClientTokenId"),
        # ministack takes these for the root user's, or the number for that account's.
        ({"AWS_ACCESS_KEY_ID": "test"}, "InvalidAccessKeyId UnrecognizedClientException InvalidClientTokenId"),
        ({"AWS_ACCESS_KEY_ID": "000000000000"}, "InvalidAccessKeyId UnrecognizedClientException InvalidClientTokenId"),
        ({"AWS_SECRET_ACCESS_KEY": "x" * 40}, "SignatureDoesNotMatch InvalidSignatureException SignatureDoesNotMatch"),
        ({"AWS_SESSION_TOKEN": "x"}, "InvalidToken UnrecognizedClientException InvalidClientTokenId"),
    ],
    ids=["former", "test", "account", "secret", "token"],
)
def test_other_keys_should_open_nothing(door: Door, cloud: Cloud, keys: dict[str, str], codes: str) -> None:
    calls = (("s3", "list_buckets"), ("glue", "get_databases"), ("sts", "get_caller_identity"))
    for (service, operation), code in zip(calls, codes.split(), strict=True):
        with pytest.raises(ClientError) as refused:
            getattr(client(cloud, service, {**door.root, **keys}), operation)()
        assert refused.value.response["Error"]["Code"] == code


def test_a_role_should_be_believed_with_its_whole_key_only(cloud: Cloud, aws: Clients) -> None:
    trust = {"Effect": "Allow", "Principal": {"AWS": "*"}, "Action": "sts:AssumeRole"}
    everything = {"Effect": "Allow", "Action": "*", "Resource": "*"}
    role = aws("iam").create_role(RoleName="yours-alone", AssumeRolePolicyDocument=policy(trust))["Role"]["Arn"]
    aws("iam").put_role_policy(RoleName="yours-alone", PolicyName="all", PolicyDocument=policy(everything))
    worn = variables(aws("sts").assume_role(RoleArn=role, RoleSessionName="session")["Credentials"])
    assert client(cloud, "s3", worn).list_buckets()["Buckets"]
    user = aws("iam").create_user(UserName="yours-alone")["User"]["UserName"]
    aws("iam").put_user_policy(UserName=user, PolicyName="all", PolicyDocument=policy(everything))
    own = variables(aws("iam").create_access_key(UserName=user)["AccessKey"])
    assert client(cloud, "s3", own).list_buckets()["Buckets"]
    for keys, code in (
        (worn | {"AWS_SESSION_TOKEN": ""}, "InvalidAccessKeyId"),
        (worn | {"AWS_SESSION_TOKEN": worn["AWS_SESSION_TOKEN"][:-1] + "x"}, "InvalidToken"),
        (worn | {"AWS_SECRET_ACCESS_KEY": "x" * 40}, "SignatureDoesNotMatch"),
        (own | {"AWS_SECRET_ACCESS_KEY": "x" * 40}, "SignatureDoesNotMatch"),
    ):
        with pytest.raises(ClientError) as refused:
            client(cloud, "s3", keys).list_buckets()
        assert refused.value.response["Error"]["Code"] == code
    for path in (SAVE_PATH, CALLS_PATH, NODE_PATH):  # the root user's, whatever a role may do
        door = Door(cloud)
        method = "POST" if path == SAVE_PATH else "GET"
        answer = said(door.knock(method, path, door.signed(method, path, "sts", keys=worn)))
        assert answer == f'403 {{"message": "{path} is for the root user only."}}'
    door = Door(cloud)
    reset = door.signed("POST", "/_ministack/reset", "s3", keys=worn)
    assert door.knock("POST", "/_ministack/reset", reset)[0] == 404


def test_a_request_that_was_altered_after_it_was_signed_should_be_refused(door: Door) -> None:
    path = f"/{BUCKET}/code.py"
    signed = door.signed("PUT", path, "s3", {"X-Amz-Meta-A": "1"}, b"good")
    assert "XAmzContentSHA256Mismatch" in said(door.knock("PUT", path, signed, b"evil"))
    differing = [
        ("PUT", f"/{BUCKET}/other", {}),
        ("DELETE", path, {}),
        ("PUT", f"{path}?acl", {}),
        ("PUT", path, {"X-Amz-Meta-A": "2"}),
        ("PUT", path, {"X-Amz-Meta-B": "not signed"}),
        ("PUT", path, {"X-Amz-Copy-Source": f"{BUCKET}/other"}),
    ]
    for method, target, headers in differing:
        assert "SignatureDoesNotMatch" in said(door.knock(method, target, signed | headers, b"good")), target
    glue = door.signed("POST", "/", "glue", GLUE, b"{}")
    assert said(door.knock("POST", "/", glue, b'{"MaxResults": 1}')).startswith("400 ")
    assert said(door.knock("POST", "/", glue | {"X-Amz-Target": "AWSGlue.GetTables"}, b"{}")).startswith("400 ")
    assert said(door.knock("POST", "/", glue, b"{}")).startswith("200 ")
    with_two = signed | {"Authorization": signed["Authorization"].replace("AWS4-HMAC-SHA256", "AWS4-HMAC-SHA256 ")}
    assert door.knock("PUT", f"{path}?X-Amz-Credential=test/20260101/us-east-1/s3/aws4_request", with_two)[0] == 400


class StreamedAuth(S3SigV4Auth):
    """Signs a request whose body comes in parts, each with a signature of its own."""

    def payload(self, request: AWSRequest) -> str:
        return "STREAMING-AWS4-HMAC-SHA256-PAYLOAD"


def test_the_parts_of_a_streamed_body_should_be_signed_too(door: Door) -> None:
    """As S3A and other SDKs send large bodies."""
    path = f"/{BUCKET}/parts"
    request = AWSRequest("PUT", door.endpoint + path, headers={"X-Amz-Decoded-Content-Length": "4"})
    given = Credentials(door.root["AWS_ACCESS_KEY_ID"], door.root["AWS_SECRET_ACCESS_KEY"])
    auth = StreamedAuth(given, "s3", "us-east-1")
    auth.add_auth(request)
    signed = dict(request.headers.items())
    day = request.context["timestamp"][:8]
    key = sigv4.derive_signing_key(door.root["AWS_SECRET_ACCESS_KEY"], day, "us-east-1", "s3")

    def body(sent: bytes) -> bytes:
        """In which the signatures are those of `good`."""
        former, lines = signed["Authorization"].rpartition("=")[2], b""
        for part, shown in ((b"good", sent), (b"", b"")):
            hashes = [hashlib.sha256(one).hexdigest() for one in (b"", part)]
            scope = f"{day}/us-east-1/s3/aws4_request"
            told = ["AWS4-HMAC-SHA256-PAYLOAD", request.context["timestamp"], scope, former, *hashes]
            former = hmac.new(key, "\n".join(told).encode(), hashlib.sha256).hexdigest()
            lines += f"{len(part):x};chunk-signature={former}\r\n".encode() + shown + b"\r\n"
        return lines

    assert "SignatureDoesNotMatch" in said(door.knock("PUT", path, signed, body(b"evil")))
    assert said(door.knock("PUT", path, signed, body(b"good"))).startswith("200 ")
    assert said(door.knock("GET", path, door.signed("GET", path, "s3"))) == "200 good"


def test_a_presigned_url_should_open_just_what_it_says_as_long_as_it_says(
    door: Door, cloud: Cloud, monkeypatch: pytest.MonkeyPatch
) -> None:
    def url(version: str = "s3v4", **more: Any) -> str:
        given = {"Params": {"Bucket": BUCKET, "Key": "code.py"}, **more}
        s3 = boto3.client(
            "s3",
            endpoint_url=cloud.endpoint,
            region_name="us-east-1",
            config=Config(signature_version=version),
            **{name.lower(): value for name, value in cloud.root.items()},
        )
        split = urlsplit(s3.generate_presigned_url("get_object", **given))
        return f"{split.path}?{split.query}"

    good = url()
    assert "X-Amz-Algorithm" in good
    assert said(door.knock("GET", good)) == "200 mine"
    altered = [
        ("GET", good.replace("code.py", "by-client"), {}),
        ("DELETE", good, {}),
        ("GET", good.replace("X-Amz-Expires=3600", "X-Amz-Expires=7200"), {}),
        ("GET", good + "&versionId=null", {}),
        ("GET", good, {"X-Amz-Target": "AWSGlue.GetDatabases"}),
        ("GET", good[:-1] + ("0" if good[-1] != "0" else "1"), {}),
    ]
    for method, path, headers in altered:
        heard = said(door.knock(method, path, headers))
        assert "SignatureDoesNotMatch" in heard or "InvalidSignatureException" in heard, path
    with monkeypatch.context() as an_hour_ago:
        an_hour_ago.setattr(botocore.auth, "get_current_datetime", clock(minutes=-60))
        assert said(door.knock("GET", url(ExpiresIn=61 * 60))) == "200 mine"
        assert "Request has expired" in said(door.knock("GET", url(ExpiresIn=59 * 60)))
    assert said(door.knock("GET", url(ExpiresIn=8 * 24 * 3600))).startswith("400 ")
    # Buckets made since June 2020 take no other signature ("Amazon S3 Update - SigV2 Deprecation Period Extended").
    assert "Please use AWS4-HMAC-SHA256" in said(door.knock("GET", url("s3")))


@pytest.mark.parametrize("minutes", [-16, 16])
def test_a_clock_that_is_off_should_be_told_with_the_way_out(
    door: Door, cloud: Cloud, monkeypatch: pytest.MonkeyPatch, minutes: int
) -> None:
    monkeypatch.setattr(botocore.auth, "get_current_datetime", clock(minutes))
    with pytest.raises(ClientError) as late:
        client(cloud, "s3").list_buckets()
    assert late.value.response["Error"]["Code"] == "RequestTimeTooSkewed"
    assert "Set the clock of whoever signs" in late.value.response["Error"]["Message"]
    with pytest.raises(ClientError, match=r"InvalidSignatureException.*Set the clock of whoever signs"):
        client(cloud, "glue").get_databases()
    with pytest.raises(UserError, match=r"clock"):
        cloud.calls()


def test_the_marker_should_tell_nothing_to_who_lacks_the_keys(door: Door, cloud: Cloud) -> None:
    first = said(door.knock("GET", f"{MARKER_PATH}?challenge={'0' * 64}"))
    assert first != said(door.knock("GET", f"{MARKER_PATH}?challenge={'1' * 64}"))
    assert set(json.loads(first.removeprefix("200 "))) == {"proof"}
    for secret in (*door.root.values(), str(cloud.place.home)):
        assert secret not in first
    assert door.knock("GET", MARKER_PATH)[0] == 400


def test_one_that_only_says_it_is_the_cloud_should_not_be_believed(tmp_path: Path) -> None:
    """Another account may take the port while the cloud is down: nothing is sent to it that it could use."""
    heard = []

    class Impostor(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            heard.append(str(self.headers))
            self.send_response(200)
            self.end_headers()
            self.wfile.write(json.dumps({"proof": "0" * 64}).encode())

        def log_message(self, format: str, *args: Any) -> None:
            """Says nothing."""

    taken = ThreadingHTTPServer(("127.0.0.1", 0), Impostor)
    threading.Thread(target=taken.serve_forever, daemon=True).start()
    cloud = Cloud(tmp_path / "dml")
    checkout.private(tmp_path / "dml").joinpath("cloud").mkdir()
    root = credentials.ready(tmp_path / "dml" / "cloud" / "keys.json")
    (tmp_path / "dml" / "cloud" / "server.json").write_text(json.dumps({"pid": 1, "port": taken.server_port}))
    try:
        with pytest.raises(UserError, match="is not this project's embedded cloud"):
            cloud.require()
    finally:
        taken.shutdown()
    assert heard
    assert not [text for text in heard if any(value in text for value in root.values())]


# --- another account of the machine, and a cloud of its own for what would disturb others ---

NOBODY = 65534
STRANGER = """
import json, os, sys, urllib.error, urllib.request
told = json.load(sys.stdin)
done = []
for path in told["paths"]:
    for how, attempt in (("read", lambda: open(path).close()), ("list", lambda: os.listdir(path)),
                         ("write", lambda: open(path, "a").close()), ("stat", lambda: os.stat(path))):
        try:
            attempt()
        except OSError:
            continue
        done.append(f"{how} {path}")
for method, path in (("GET", "/"), ("PUT", "/kept/a"), ("GET", "/kept/a"), ("POST", "/_dml/save")):
    try:
        body = b"evil" if method == "PUT" else None
        request = urllib.request.Request(told["endpoint"] + path, method=method, data=body)
        urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request)
    except urllib.error.HTTPError as error:
        if error.code == 403:
            continue
    done.append(f"{method} {path}")
for number in filter(str.isdigit, os.listdir("/proc")):
    for name in ("cmdline", "environ"):
        try:
            with open(f"/proc/{number}/{name}", "rb") as file:
                said = file.read().decode(errors="replace")
        except OSError:
            continue
        done += [f"{name} of {number}" for secret in told["secrets"] if secret in said]
print(json.dumps(done))
"""


@pytest.fixture(scope="module")
def exposed() -> Iterator[Cloud]:
    """A cloud whose folder lies where everybody may look, as in a home with mode 0755; started with umask 0."""
    parent = Path(tempfile.mkdtemp())
    parent.chmod(0o755)
    former = os.umask(0)
    cloud = Cloud(parent / ".dml")
    try:
        cloud.up(free_port())
    finally:
        os.umask(former)
    aws = Clients(cloud)
    aws("s3").create_bucket(Bucket="kept")
    aws("s3").put_object(Bucket="kept", Key="a", Body=b"kept")
    aws("ssm").put_parameter(Name="/kept", Value="yes", Type="String")
    cloud.save()
    yield cloud
    cloud.down()
    shutil.rmtree(parent)


def kept(cloud: Cloud) -> bool:
    aws = Clients(cloud)
    body: bytes = aws("s3").get_object(Bucket="kept", Key="a")["Body"].read()
    return body == b"kept" and aws("ssm").get_parameter(Name="/kept")["Parameter"]["Value"] == "yes"


def test_the_folder_should_be_its_owners_whatever_the_umask(exposed: Cloud) -> None:
    home, keys = exposed.place.home, exposed.place.keys
    modes = [stat.S_IMODE(path.stat().st_mode) for path in (home, keys.parent, keys)]
    assert modes == [0o700, 0o700, 0o600]
    written = [path for path in exposed.place.state.rglob("*") if path.is_file()]
    assert written
    assert not [path for path in written if path.stat().st_mode & 0o077]  # by the server, whose umask is its own


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may act as another account")
@pytest.mark.skipif(sys.platform != "linux", reason="asks /proc")
def test_another_account_should_find_nothing(exposed: Cloud) -> None:
    python = next((one for one in ("/usr/bin/python3", "/usr/local/bin/python3") if Path(one).exists()), None)
    if python is None:
        pytest.skip("no Python that another account may run")
    home = exposed.place.home
    beside = home.parent / "readable"
    beside.write_text("by all")
    beside.chmod(0o644)
    paths = [home, *sorted(home.rglob("*"))]
    assert len(paths) > 20
    told = {
        "paths": [str(path) for path in paths],
        "endpoint": exposed.endpoint,
        "secrets": [exposed.root["AWS_SECRET_ACCESS_KEY"]],
    }

    def found(given: dict[str, Any]) -> list[str]:
        ended = subprocess.run(
            [python, "-c", STRANGER],
            input=json.dumps(given),
            capture_output=True,
            text=True,
            check=False,
            cwd="/",
            env={},
            user=NOBODY,
            group=NOBODY,
            extra_groups=[],
        )
        assert ended.returncode == 0, ended.stderr
        names: list[str] = json.loads(ended.stdout)
        return names

    allowed = found(told)
    assert allowed == [f"stat {home}"]  # that it is there, which the folder above tells
    assert found(told | {"paths": [str(beside)]}) == [f"read {beside}", f"stat {beside}"]  # so it can find something


def test_no_secret_should_be_on_a_command_line(exposed: Cloud) -> None:
    lines = command_lines()
    assert [line for line in lines.values() if "dml.local.server" in line]
    assert not [line for line in lines.values() if exposed.root["AWS_SECRET_ACCESS_KEY"] in line]


def test_each_cloud_should_have_keys_of_its_own(exposed: Cloud, cloud: Cloud) -> None:
    for name in exposed.root:
        assert exposed.root[name] != cloud.root[name]
    with pytest.raises(ClientError, match="InvalidAccessKeyId"):
        client(cloud, "s3", exposed.root).list_buckets()
    assert client(cloud, "sts").get_caller_identity()["Arn"] == "arn:aws:iam::000000000000:root"


def test_other_tools_should_reach_it_by_the_lines_of_dml_local_env(exposed: Cloud, tmp_path: Path) -> None:
    (tmp_path / "config").write_text("[profile work]\nregion = eu-central-1\n")
    around = {
        "PATH": os.environ["PATH"],
        "AWS_PROFILE": "work",
        "AWS_CONFIG_FILE": str(tmp_path / "config"),
        "AWS_SESSION_TOKEN": "real",
        "AWS_ENDPOINT_URL_S3": "http://127.0.0.1:1",
        "NO_PROXY": "intern.example",
        "http_proxy": "http://127.0.0.1:1",
    }
    program = """import boto3, os, urllib.request
s3 = boto3.client("s3")
url = s3.generate_presigned_url("get_object", Params={"Bucket": "kept", "Key": "a"})
print(s3.list_buckets()["Buckets"][0]["Name"], urllib.request.urlopen(url).read().decode(), os.environ["NO_PROXY"])"""
    lines = here.shell_lines(exposed.tools(), around)
    script = f'eval "$1"; eval "$1"; "{sys.executable}" -c "$2"'
    ended = subprocess.run(
        ["sh", "-c", script, "sh", lines, program], env=around, capture_output=True, text=True, check=False
    )
    assert ended.stdout == "kept kept intern.example,127.0.0.1,localhost\n", ended.stderr


def test_lines_for_a_shell_should_be_quoted() -> None:
    lines = here.shell_lines({"AWS_CONFIG_FILE": "/a b/$(id)'s", "NO_PROXY": "127.0.0.1"}, {})
    told = subprocess.run(["sh", "-c", f'{lines}\necho "$AWS_CONFIG_FILE"'], capture_output=True, text=True, check=True)
    assert told.stdout == "/a b/$(id)'s\n"


# --- keys that are missing, damaged or another cloud's; a server that had none ---


def test_bad_keys_should_be_told_and_made_anew(exposed: Cloud, cloud: Cloud) -> None:
    path, former = exposed.place.keys, exposed.root
    path.write_text("{}")
    with pytest.raises(UserError, match=r"keys .* are damaged\. Start it anew, .*: dml local up"):
        exposed.require()
    path.unlink()
    path.mkdir()
    with pytest.raises(UserError, match=r"keys .* cannot be read \(Is a directory\)"):
        exposed.require()
    path.rmdir()
    shutil.copy(cloud.place.keys, path)
    with pytest.raises(UserError, match=r"runs with other keys than .*Start it anew, with all its data: dml local up"):
        exposed.require()
    assert "other keys" in exposed.status()
    path.unlink()
    with pytest.raises(UserError, match=r"keys .* are missing\. Start it anew, with new keys .*: dml local up"):
        exposed.require()
    assert exposed.up()
    assert exposed.root != former
    assert kept(exposed)
    with pytest.raises(ClientError, match="InvalidAccessKeyId"):
        client(exposed, "s3", former).list_buckets()


FORMER_SERVER = """
import http.server, json, os, sys
class Marker(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
        self.wfile.write(json.dumps({"product": "dml", "home": sys.argv[2], "pid": os.getpid()}).encode())
http.server.HTTPServer(("127.0.0.1", int(sys.argv[3])), Marker).serve_forever()
"""


def test_a_cloud_of_the_former_version_should_be_started_anew_with_its_data(exposed: Cloud) -> None:
    """It has no keys' file, its marker says home and pid, and its folder is for everybody to read."""
    place = exposed.place
    exposed.down()
    place.keys.unlink()
    place.home.chmod(0o755)
    command = [sys.executable, "-c", FORMER_SERVER, "dml.local.server", str(place.home), str(place.port)]
    former = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    (place.cloud / "server.json").write_text(json.dumps({"pid": former.pid, "port": place.port}))
    until(lambda: place.port and "are missing" in exposed.status())
    assert exposed.up()
    former.wait(10)  # that it has ended
    assert exposed.place.port == place.port
    assert stat.S_IMODE(place.home.stat().st_mode) == 0o700
    assert kept(exposed)


# --- whose folder it is ---


def test_a_folder_that_others_may_write_to_should_be_refused_with_the_way_out(tmp_path: Path) -> None:
    home = tmp_path / "dml"
    home.mkdir()
    home.chmod(0o775)
    cloud = Cloud(home)
    refused = r"Other accounts .* may write to .*dml \(mode 775\), .* If nobody did: chmod 700 "
    for ask in (cloud.status, cloud.require, cloud.down, cloud.up):
        with pytest.raises(UserError, match=refused):
            ask()
    home.chmod(0o700)
    assert cloud.status() == "The embedded cloud does not run."


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may give a folder away")
def test_a_folder_of_another_account_should_be_refused_with_the_way_out(tmp_path: Path) -> None:
    home = tmp_path / "dml"
    home.mkdir()
    os.chown(home, NOBODY, NOBODY)
    with pytest.raises(UserError, match=r"dml belongs to another account .*: mv (.*dml) \1\.other$"):
        Cloud(home).status()
    home.rename(tmp_path / "dml.other")
    assert stat.S_IMODE(checkout.private(home).stat().st_mode) == 0o700
    link = tmp_path / "link"
    link.symlink_to(tmp_path / "dml.other")
    with pytest.raises(UserError, match="belongs to another account"):
        checkout.private(link)


def test_a_folder_may_be_a_link_to_a_place_with_more_room(tmp_path: Path) -> None:
    (tmp_path / "large").mkdir(mode=0o755)
    link = tmp_path / "dml"
    link.symlink_to(tmp_path / "large" / "dml")  # which is not there yet
    assert checkout.private(link) == link
    assert stat.S_IMODE((tmp_path / "large" / "dml").stat().st_mode) == 0o700
