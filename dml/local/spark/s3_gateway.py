"""Serves S3 to one job on local Spark, as WebHDFS and with the credentials of the job's role, while that job runs.

Spark's own Hadoop client speaks WebHDFS but not S3. This gateway is the translator: each call on a file becomes the S3
calls that EMR or Glue would make, signed with the credentials of the job's role, so that a missing permission fails
here as it would on AWS. What a job has not committed yet (`_temporary` and `.spark-staging-*` folders) stays on the
local disk and is uploaded by the rename that commits it, as with EMR's S3-optimised committer: S3 only ever sees
finished files, and a job that fails half-way leaves none.

It obeys that job alone: each request must bear the token that the gateway made when it began (dml.local.spark.token).

Protocol: https://hadoop.apache.org/docs/r3.3.4/hadoop-project-dist/hadoop-hdfs/WebHDFS.html
"""

import argparse
import hmac
import json
import os
import re
import shutil
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple, TypeVar, cast
from urllib.parse import parse_qs, unquote, urlsplit

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError, ReadTimeoutError

from dml.local.processes import allow_many_files, end_session
from dml.local.spark.gateway import S3_SECONDS
from dml.local.spark.process import BROKE_OFF
from dml.local.spark.token import DelegationToken

API = "/webhdfs/v1/"
CHUNK = 256 * 1024
# A client never says how far it will read, so an object is fetched in windows that grow for as long as it goes on.
FIRST_WINDOW, LARGEST_WINDOW = 1024 * 1024, 16 * 1024 * 1024
READS = 3  # of one window, if the connection breaks off or goes silent
ATTEMPTS = 3  # of one request
LARGEST_SINGLE_COPY = 5 * 1024**3  # https://docs.aws.amazon.com/AmazonS3/latest/API/API_CopyObject.html
DELETE_BATCH = 1000  # https://docs.aws.amazon.com/AmazonS3/latest/API/API_DeleteObjects.html
BLOCK = 32 * 1024 * 1024  # S3A's default; Hadoop cuts a text file into splits of this size
# A connection that has not shown the token: how long it may take, and how many there may be; the oldest goes first.
STRANGER_SECONDS, STRANGERS = 10.0, 256

Item = TypeVar("Item")


class Refusal(OSError):
    """What the gateway will not do; a sentence that needs nothing added."""


class Location(NamedTuple):
    """A bucket and a key without slashes at either end; the empty key is the bucket itself."""

    bucket: str
    key: str

    def __str__(self) -> str:
        return f"s3://{self.bucket}/{self.key}"

    @property
    def name(self) -> str:
        return self.key.rpartition("/")[2]

    @property
    def parent(self) -> "Location":
        return Location(self.bucket, self.key.rpartition("/")[0])

    @property
    def prefix(self) -> str:
        """What the keys below this location start with."""
        return f"{self.key}/" if self.key else ""

    @property
    def uncommitted(self) -> bool:
        """Whether a Hadoop or Spark committer has yet to move this into its place."""
        return any(part == "_temporary" or part.startswith(".spark-staging") for part in self.key.split("/"))

    def child(self, relative: str) -> "Location":
        return Location(self.bucket, self.prefix + relative)


@dataclass(frozen=True)
class Entry:
    """A file (bytes, milliseconds since 1970) or directory; nameless if it was asked for itself, not for its parent."""

    name: str
    is_directory: bool
    size: int = 0
    modified: int = 0


def milliseconds(moment: datetime) -> int:
    return int(moment.timestamp() * 1000)


class Staging:
    """Uncommitted files on the local disk, under the bucket and key that they were created with."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def path(self, location: Location) -> Path:
        if not {"..", "."}.isdisjoint(location.key.split("/")):
            raise Refusal(f'{location}: "." and ".." cannot be part of a name.')
        return self._root / location.bucket / location.key

    def stat(self, location: Location) -> Entry | None:
        try:
            return self._entry("", self.path(location))
        except FileNotFoundError:
            return None

    def children(self, location: Location) -> list[Entry]:
        path = self.path(location)
        if not path.is_dir():
            return [self._entry("", path)]
        return [self._entry(child.name, child) for child in sorted(path.iterdir())]

    def make_directory(self, location: Location) -> None:
        self.path(location).mkdir(parents=True, exist_ok=True)

    def read(self, location: Location, offset: int) -> tuple[int, Iterator[bytes]]:
        file = self.path(location).open("rb")
        file.seek(offset)
        return max(os.fstat(file.fileno()).st_size - offset, 0), iter(lambda: file.read(CHUNK), b"")

    def write(self, location: Location, spooled: Path) -> None:
        target = self.path(location)
        target.parent.mkdir(parents=True, exist_ok=True)
        spooled.replace(target)

    def delete(self, location: Location) -> None:
        path = self.path(location)
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()

    def files_below(self, location: Location) -> Iterator[tuple[str, int]]:
        """Paths relative to `location`, with their sizes."""
        root = self.path(location)
        return ((path.relative_to(root).as_posix(), path.stat().st_size) for path in root.rglob("*") if path.is_file())

    @staticmethod
    def _entry(name: str, path: Path) -> Entry:
        if path.is_dir():
            return Entry(name, is_directory=True)
        found = path.stat()
        return Entry(name, False, found.st_size, int(found.st_mtime * 1000))


class Bucketed:
    """Files and directories as S3 keys and prefixes.

    S3 has no empty directories: those that Spark makes are remembered here for as long as the job runs.
    """

    def __init__(self, s3: Any) -> None:
        self._s3 = s3
        self._made: set[Location] = set()

    def stat(self, location: Location) -> Entry | None:
        """One call in nearly all cases: the key itself sorts before its prefix, and few keys sort between them."""
        if not location.key:
            self._s3.list_objects_v2(Bucket=location.bucket, MaxKeys=1)
            return Entry("", is_directory=True)
        page = self._s3.list_objects_v2(Bucket=location.bucket, Prefix=location.key, Delimiter="/", MaxKeys=2)
        for found in page.get("Contents", []):
            if found["Key"] == location.key:
                return Entry("", False, found["Size"], milliseconds(found["LastModified"]))
        directory = any(found["Prefix"] == location.prefix for found in page.get("CommonPrefixes", []))
        if not directory and page["IsTruncated"]:
            directory = (
                self._s3.list_objects_v2(Bucket=location.bucket, Prefix=location.prefix, MaxKeys=1)["KeyCount"] > 0
            )
        return Entry("", is_directory=True) if directory or location in self._made else None

    def children(self, location: Location) -> list[Entry]:
        entries: dict[str, Entry] = {}
        exists = False
        for page in self._pages(location, Delimiter="/"):
            exists = exists or page["KeyCount"] > 0
            for found in chain(page.get("Contents", []), page.get("CommonPrefixes", [])):
                if "Key" in found:
                    name = found["Key"][len(location.prefix) :]
                    entry = Entry(name, False, found["Size"], milliseconds(found["LastModified"]))
                else:
                    name = found["Prefix"][len(location.prefix) : -1]
                    entry = Entry(name, is_directory=True)
                if name:  # empty: the directory's own marker, or two slashes in a row, which no file system can name
                    entries.setdefault(name, entry)
        for made in self._made.copy():
            if made.parent == location and made.key:
                entries.setdefault(made.name, Entry(made.name, is_directory=True))
        if entries or exists:
            return list(entries.values())
        itself = self.stat(location)
        if itself is None:
            raise FileNotFoundError(f"{location} does not exist.")
        return [] if itself.is_directory else [itself]

    def make_directory(self, location: Location) -> None:
        while location.key:
            self._made.add(location)
            location = location.parent

    def read(self, location: Location, offset: int) -> tuple[int, Iterator[bytes]]:
        """The bytes from `offset` to the end: how many, and an iterator that fetches them as they are taken."""
        try:
            window = self._window(location, offset, FIRST_WINDOW)
        except ClientError as error:
            if error.response["Error"]["Code"] == "InvalidRange":  # at or past the end, or an empty object
                return 0, iter(())
            raise
        total = int(window["ContentRange"].rpartition("/")[2])

        def chunks() -> Iterator[bytes]:
            body, position, size, broken = window["Body"], offset, FIRST_WINDOW, 0
            while True:
                try:
                    for chunk in body.iter_chunks(CHUNK):
                        position += len(chunk)
                        yield chunk
                except BotoCoreError:  # boto3 asks again when an answer is an error, but not when it breaks off
                    broken += 1
                    if broken == READS:
                        raise
                else:
                    broken, size = 0, min(size * 2, LARGEST_WINDOW)
                if position >= total:
                    return
                # If-Match: an object that was replaced half-way through must not be read as a mixture of both.
                body = self._window(location, position, size, IfMatch=window["ETag"])["Body"]

        return total - offset, chunks()

    def upload(self, location: Location, file: Path) -> None:
        if file.stat().st_size < 8 * 1024 * 1024:
            with file.open("rb") as body:
                self._s3.put_object(Bucket=location.bucket, Key=location.key, Body=body)
        else:
            with file.open("rb") as body:
                self._s3.upload_fileobj(body, location.bucket, location.key)

    def copy(self, source: Location, size: int, target: Location) -> None:
        origin = {"Bucket": source.bucket, "Key": source.key}
        if size <= LARGEST_SINGLE_COPY:
            self._s3.copy_object(CopySource=origin, Bucket=target.bucket, Key=target.key)
        else:
            self._s3.copy(origin, target.bucket, target.key)

    def files_below(self, location: Location) -> Iterator[tuple[str, int]]:
        """Keys relative to `location`, with their sizes; the directory's own marker is the empty key."""
        for page in self._pages(location):
            for found in page.get("Contents", []):
                yield found["Key"][len(location.prefix) :], found["Size"]

    def delete(self, location: Location, entry: Entry) -> None:
        if not entry.is_directory:
            self._s3.delete_object(Bucket=location.bucket, Key=location.key)
            return
        keys = [location.prefix + relative for relative, _ in self.files_below(location)]
        for start in range(0, len(keys), DELETE_BATCH):
            batch = {"Objects": [{"Key": key} for key in keys[start : start + DELETE_BATCH]], "Quiet": True}
            for refused in self._s3.delete_objects(Bucket=location.bucket, Delete=batch).get("Errors", []):
                raise ClientError({"Error": {"Code": refused["Code"], "Message": refused["Message"]}}, "DeleteObjects")
        self._made -= {
            made
            for made in self._made.copy()
            if made == location or (made.bucket == location.bucket and made.key.startswith(location.prefix))
        }

    def _pages(self, location: Location, **options: str) -> Iterator[dict[str, Any]]:
        pages = self._s3.get_paginator("list_objects_v2").paginate(
            Bucket=location.bucket, Prefix=location.prefix, **options
        )
        return cast(Iterator[dict[str, Any]], iter(pages))

    def _window(self, location: Location, offset: int, size: int, **options: str) -> dict[str, Any]:
        span = f"bytes={offset}-{offset + size - 1}"
        return cast(
            dict[str, Any], self._s3.get_object(Bucket=location.bucket, Key=location.key, Range=span, **options)
        )


class FileSystem:
    """One tree out of S3 and the staging area; a rename out of the staging area is the commit."""

    def __init__(self, s3: Any, scratch: Path) -> None:
        self._s3 = Bucketed(s3)
        self._staging = Staging(scratch / "staging")
        self._spool = scratch / "spool"
        self._spool.mkdir(parents=True)
        self._workers = ThreadPoolExecutor(max_workers=8)

    def stat(self, location: Location) -> Entry:
        entry = self._find(location)
        if entry is None:
            raise FileNotFoundError(f"{location} does not exist.")
        return entry

    def children(self, location: Location) -> list[Entry]:
        return (self._staging if location.uncommitted else self._s3).children(location)

    def make_directory(self, location: Location) -> None:
        (self._staging if location.uncommitted else self._s3).make_directory(location)

    def read(self, location: Location, offset: int) -> tuple[int, Iterator[bytes]]:
        return (self._staging if location.uncommitted else self._s3).read(location, offset)

    def refuse_existing(self, location: Location) -> None:
        if self._find(location) is not None:
            raise FileExistsError(f"{location} already exists, and the job asked not to overwrite it.")

    def write(self, location: Location, body: Iterator[bytes]) -> None:
        """Spools the whole body first: a writer that breaks off must leave nothing behind."""
        with tempfile.NamedTemporaryFile(dir=self._spool, delete=False) as spooled:
            path = Path(spooled.name)
            try:
                for chunk in body:
                    spooled.write(chunk)
                spooled.flush()
                if location.uncommitted:
                    self._staging.write(location, path)
                else:
                    self._s3.upload(location, path)
            finally:
                path.unlink(missing_ok=True)

    def rename(self, source: Location, target: Location) -> bool:
        """As HDFS: into `target` if that is a directory; False if `source` is missing or `target` is a file."""
        entry, there = self._find(source), self._find(target)
        if there is not None and there.is_directory:
            target = target.child(source.name)
            there = self._find(target)
        if entry is None or there is not None:
            return False
        if source.uncommitted and target.uncommitted:
            self._staging.write(target, self._staging.path(source))
        elif source.uncommitted:
            self._upload(source, entry, target)
        elif target.uncommitted:
            raise Refusal(f"{source} cannot be renamed to {target}: a job's temporary folder takes nothing from S3.")
        else:
            self._move(source, entry, target)
        return True

    def delete(self, location: Location, recursive: bool) -> bool:
        entry = self._find(location)
        if entry is None:
            return False
        if entry.is_directory and not recursive and self.children(location):
            raise Refusal(f"{location} is not empty, and the job did not ask to delete what is in it.")
        if location.uncommitted:
            self._staging.delete(location)
        else:
            self._s3.delete(location, entry)
        return True

    def summary(self, location: Location) -> dict[str, int]:
        entry = self.stat(location)
        below = (self._staging if location.uncommitted else self._s3).files_below
        sizes = [size for _, size in below(location)] if entry.is_directory else [entry.size]
        return {"length": sum(sizes), "fileCount": len(sizes), "directoryCount": int(entry.is_directory)}

    def _find(self, location: Location) -> Entry | None:
        return self._staging.stat(location) if location.uncommitted else self._s3.stat(location)

    def _upload(self, source: Location, entry: Entry, target: Location) -> None:
        origin = self._staging.path(source)
        if entry.is_directory:
            self._s3.make_directory(target)
            files = self._staging.files_below(source)
            self._all(lambda file: self._s3.upload(target.child(file[0]), origin / file[0]), files)
        else:
            self._s3.upload(target, origin)
        self._staging.delete(source)

    def _move(self, source: Location, entry: Entry, target: Location) -> None:
        if entry.is_directory:
            self._s3.make_directory(target)
            files = list(self._s3.files_below(source))

            def copy(file: tuple[str, int]) -> None:
                relative, size = file
                self._s3.copy(Location(source.bucket, source.prefix + relative), size, target.child(relative))

            self._all(copy, files)
        else:
            self._s3.copy(source, entry.size, target)
        self._s3.delete(source, entry)

    def _all(self, work: Callable[[Item], None], items: Iterable[Item]) -> None:
        for _ in self._workers.map(work, items):
            pass


class Failure(NamedTuple):
    """An error as Hadoop's client rebuilds it: HTTP status, Java class, message."""

    status: int
    java_class: str
    message: str


def failure(error: Exception, location: Location) -> Failure:
    """The Java exception that says the same, so that Spark reports a missing path or permission as what it is."""
    if isinstance(error, ClientError):
        code, message = error.response["Error"].get("Code", ""), error.response["Error"].get("Message", "")
        if code == "AccessDenied":  # AWS's own words; they name principal and action, but not always the resource
            where = "" if location.bucket in message else f" ({location})"
            return Failure(403, "org.apache.hadoop.security.AccessControlException", message + where)
        if code in ("NoSuchKey", "404"):
            return Failure(404, "java.io.FileNotFoundException", f"{location} does not exist.")
        if code == "NoSuchBucket":
            return Failure(
                404, "java.io.FileNotFoundException", f"The bucket {location.bucket} of {location} does not exist."
            )
        return Failure(500, "java.io.IOException", f"S3 {error.operation_name} on {location} failed: {code}: {message}")
    if isinstance(error, FileNotFoundError):
        return Failure(404, "java.io.FileNotFoundException", str(error))
    if isinstance(error, FileExistsError):
        return Failure(403, "org.apache.hadoop.fs.FileAlreadyExistsException", str(error))
    if isinstance(error, Refusal):
        return Failure(400, "java.io.IOException", str(error))
    if isinstance(error, ReadTimeoutError):  # its own words name no address if S3 stalled in the middle of an answer
        silent = f"S3 did not answer for {location} in time, though asked again and again; run again when it does."
        return Failure(500, "java.io.IOException", silent)
    return Failure(500, "java.io.IOException", f"S3 access to {location} failed: {error}")


def status(entry: Entry) -> dict[str, object]:
    return {
        "pathSuffix": entry.name,
        "type": "DIRECTORY" if entry.is_directory else "FILE",
        "length": entry.size,
        "modificationTime": entry.modified,
        "accessTime": 0,
        "blockSize": 0 if entry.is_directory else BLOCK,
        "replication": 0 if entry.is_directory else 1,
        "permission": "777" if entry.is_directory else "666",
        "owner": "hadoop",
        "group": "hadoop",
    }


class Gateway(ThreadingHTTPServer):
    """Listens on a free port of 127.0.0.1, or on a socket that listens already, and answers who has `token`."""

    daemon_threads = True
    request_queue_size = 128

    def __init__(
        self,
        files: FileSystem,
        *,
        listening: socket.socket | None = None,
        secret: bytes | None = None,
        stranger_seconds: float = STRANGER_SECONDS,
    ) -> None:
        super().__init__(("127.0.0.1", 0), Conversation, bind_and_activate=listening is None)
        if listening:  # of another network, perhaps (dml.local.yarn.namespace)
            self.socket.close()
            self.socket = listening
            self.server_name, self.server_port = self.server_address = listening.getsockname()
        self.files = files
        self.token = DelegationToken(self.server_port, secret) if secret else DelegationToken.new(self.server_port)
        # Java writes the name that this machine has for the address.
        names = {"127.0.0.1", "localhost", socket.getnameinfo(("127.0.0.1", 0), 0)[0]}
        self.hosts = {f"{name}:{self.server_port}".lower() for name in names}
        self._stranger_seconds = stranger_seconds
        self._strangers: dict[socket.socket, float] = {}
        self._lock = threading.Lock()

    def watch(self, connection: socket.socket) -> None:
        """Notes a connection that has yet to show the token."""
        with self._lock:
            self._strangers[connection] = time.monotonic()
            while len(self._strangers) > STRANGERS:
                self._hang_up(next(iter(self._strangers)))

    def trust(self, connection: socket.socket) -> None:
        """Forgets a connection that has shown it, or has ended."""
        with self._lock:
            self._strangers.pop(connection, None)

    def service_actions(self) -> None:
        """Called twice a second: hangs up on those that have taken too long, however busy they are."""
        begun = time.monotonic() - self._stranger_seconds
        with self._lock:
            for connection in [one for one, since in self._strangers.items() if since < begun]:
                self._hang_up(connection)

    def _hang_up(self, connection: socket.socket) -> None:
        del self._strangers[connection]
        with suppress(OSError):  # it has gone by itself
            connection.shutdown(socket.SHUT_RDWR)


class Conversation(BaseHTTPRequestHandler):
    """One connection of Hadoop's WebHDFS client."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    raw_requestline: bytes
    wbufsize = 64 * 1024  # headers and body leave in one packet
    server: Gateway

    def setup(self) -> None:
        super().setup()
        self.server.watch(self.connection)

    def finish(self) -> None:
        self.server.trust(self.connection)
        with suppress(ConnectionError):  # it was hung up on
            super().finish()

    def handle(self) -> None:
        with suppress(ConnectionError):
            super().handle()

    def log_message(self, format: str, *args: object) -> None:
        """Nothing: what http.server would write has the request in it, and so the token."""

    def parse_request(self) -> bool:
        # Java sends letters beyond ASCII as they are, and http.server would split the line at some of their bytes.
        self.raw_requestline = re.sub(rb"[\x80-\xff]", lambda byte: b"%%%02X" % ord(byte[0]), self.raw_requestline)
        if not super().parse_request():
            return False
        self.parameters = {name: values[-1] for name, values in parse_qs(urlsplit(self.path).query).items()}
        if reason := self._stranger():
            self.close_connection = True  # whatever else it sends is not read
            self._refuse(Failure(403, "org.apache.hadoop.security.AccessControlException", reason))
            return False
        self.server.trust(self.connection)
        if self.headers.get("Expect", "").lower() == "100-continue":
            super().handle_expect_100()
        return True

    def handle_expect_100(self) -> bool:
        return True  # not yet: http.server asks while it parses, before the token is looked at

    def _stranger(self) -> str:
        """Why this request is not answered, or nothing."""
        if self.headers.get("Host", "").lower() not in self.server.hosts:
            return "The gateway answers to its own address on loopback only."
        if "Origin" in self.headers or self.headers.get("Sec-Fetch-Site", "none") != "none":
            return "The gateway does not answer web pages."
        shown = self.parameters.get("delegation", "").encode()
        if not hmac.compare_digest(shown, self.server.token.parameter.encode()):
            return "The gateway answers the job only that it was started for."
        return ""

    def do_GET(self) -> None:
        self._serve()

    def do_PUT(self) -> None:
        self._serve()

    def do_POST(self) -> None:
        self._serve()

    def do_DELETE(self) -> None:
        self._serve()

    def _serve(self) -> None:
        bucket, _, key = unquote(urlsplit(self.path).path.removeprefix(API)).strip("/").partition("/")
        location = Location(bucket, key.strip("/"))
        try:
            self._answer(self.command, self.parameters.get("op", "").upper(), location)
        except ConnectionError:  # the client has all it wants, or is gone
            self.close_connection = True
        except (ClientError, BotoCoreError, OSError) as error:
            # A rename that fails is told by where it goes: where it comes from mostly is on this machine's disk only.
            self._refuse(failure(error, self._destination() if "destination" in self.parameters else location))

    def _answer(self, method: str, operation: str, location: Location) -> None:
        files = self.server.files
        match method, operation:
            case "GET", "GETFILESTATUS":
                self._json({"FileStatus": status(files.stat(location))})
            case "GET", "LISTSTATUS":
                self._json({"FileStatuses": {"FileStatus": [status(entry) for entry in files.children(location)]}})
            case "GET", "OPEN" if "step" in self.parameters:
                self._send_file(location)
            case "GET", "OPEN":
                self._redirect()
            case "GET", "GETCONTENTSUMMARY":
                self._json(
                    {"ContentSummary": files.summary(location) | {"quota": -1, "spaceConsumed": 0, "spaceQuota": -1}}
                )
            case "GET", "GET_BLOCK_LOCATIONS":
                self._json({"LocatedBlocks": self._one_block()})
            case "GET", "GETHOMEDIRECTORY":
                self._json({"Path": "/"})
            case "PUT", "CREATE" if "step" in self.parameters:
                files.write(location, self._body())
                self._send(201)
            case "PUT", "CREATE":
                if self.parameters.get("overwrite") == "false":
                    files.refuse_existing(location)
                self._redirect()
            case "PUT", "MKDIRS":
                files.make_directory(location)
                self._json({"boolean": True})
            case "PUT", "RENAME":
                self._json({"boolean": files.rename(location, self._destination())})
            case "DELETE", "DELETE":
                self._json({"boolean": files.delete(location, self.parameters.get("recursive") == "true")})
            case "PUT", "SETREPLICATION":
                self._json({"boolean": True})
            case (
                "PUT",
                "SETPERMISSION" | "SETTIMES" | "SETOWNER",
            ):  # S3 has none of these; Hadoop's client expects silence
                self._send(200)
            case _:
                raise Refusal(f"S3 has no {operation or method}: objects are written whole, and read or replaced.")

    def _destination(self) -> Location:
        bucket, _, key = self.parameters["destination"].strip("/").partition("/")
        return Location(bucket, key)

    def _redirect(self) -> None:
        """The client sends and fetches data in a second step only, at the address that the first step gives it."""
        self._send(307, Location=f"http://{self.headers['Host']}{self.path}&step=data")

    def _send_file(self, location: Location) -> None:
        length, chunks = self.server.files.read(location, int(self.parameters.get("offset", 0)))
        wanted = min(length, int(self.parameters.get("length", length)))
        self._send(200, content_type="application/octet-stream", length=wanted)
        try:
            for chunk in chunks:
                self.wfile.write(chunk[:wanted])
                wanted -= len(chunk)
                if wanted <= 0:
                    return
        except (
            ClientError,
            BotoCoreError,
        ) as error:  # the status is sent: only a short answer can tell the client, and only the log can say why
            sys.stderr.write(f"{BROKE_OFF}{failure(error, location).message}\n")
        self.close_connection = True

    def _body(self) -> Iterator[bytes]:
        """The request's body, chunked or of a known length; ConnectionError if the writer breaks off."""
        if self.headers.get("Transfer-Encoding", "").lower() != "chunked":
            yield from self._exactly(int(self.headers.get("Content-Length", 0)))
            return
        while size := int(self.rfile.readline().partition(b";")[0] or b"0", 16):
            yield from self._exactly(size)
            self.rfile.readline()
        if self.rfile.readline() != b"\r\n":
            raise ConnectionError("The writer broke off.")

    def _exactly(self, size: int) -> Iterator[bytes]:
        while size:
            chunk = self.rfile.read(min(size, CHUNK))
            if not chunk:
                raise ConnectionError("The writer broke off.")
            size -= len(chunk)
            yield chunk

    def _one_block(self) -> dict[str, object]:
        """Any stretch of an object as one block that is nowhere in particular: S3 has no locality."""
        offset, length = int(self.parameters.get("offset", 0)), int(self.parameters.get("length", 0))
        block = {"blockPoolId": "s3", "blockId": 0, "numBytes": length, "generationStamp": 0}
        located = {"block": block, "startOffset": offset, "isCorrupt": False, "locations": [], "cachedLocations": []}
        return {
            "fileLength": offset + length,
            "isUnderConstruction": False,
            "locatedBlocks": [located],
            "lastLocatedBlock": located,
            "isLastBlockComplete": True,
        }

    def _json(self, answer: dict[str, object]) -> None:
        self._send(200, body=json.dumps(answer).encode())

    def _refuse(self, reason: Failure) -> None:
        simple_name = reason.java_class.rpartition(".")[2]
        body = {"exception": simple_name, "javaClassName": reason.java_class, "message": reason.message}
        self._send(reason.status, body=json.dumps({"RemoteException": body}).encode())

    def _send(
        self,
        code: int,
        *,
        body: bytes = b"",
        content_type: str = "application/json",
        length: int | None = None,
        **headers: str,
    ) -> None:
        self.send_response_only(code)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(body) if length is None else length))
        self.end_headers()
        self.wfile.write(body)
        self.wfile.flush()


def main(argv: Sequence[str]) -> None:
    """Prints {"port": n, "secret": hex} once it serves, until standard input ends: its parent has ended.

    A line on standard input is the process id of the Spark that it serves. A parent that is killed cannot stop that
    Spark any more: this process then does.
    """
    parser = argparse.ArgumentParser(prog="s3_gateway", description=__doc__, allow_abbrev=False)
    parser.add_argument("--seconds", type=float, default=S3_SECONDS, help="of silence before S3 is asked again")
    # A cloud that has been standing since before an upgrade starts it without these two, or without the second.
    parser.add_argument("--listening", type=int, help="a socket to listen on, by its file descriptor; else its own")
    parser.add_argument("--told", action="store_true", help="the first line on standard input is the token's secret")
    given = parser.parse_args(argv)
    seconds = given.seconds
    allow_many_files()
    config = Config(
        s3={"addressing_style": "path"},
        max_pool_connections=64,
        connect_timeout=seconds,  # which is how long S3 may leave off taking a body, too
        read_timeout=seconds,
        retries={"mode": "standard", "total_max_attempts": ATTEMPTS},
        request_checksum_calculation="when_required",
        response_checksum_validation="when_required",
    )
    s3 = boto3.client("s3", config=config)
    with tempfile.TemporaryDirectory() as scratch:
        listening = None if given.listening is None else socket.socket(fileno=given.listening)
        secret = bytes.fromhex(sys.stdin.readline()) if given.told else None
        gateway = Gateway(FileSystem(s3, Path(scratch)), listening=listening, secret=secret)
        threading.Thread(target=gateway.serve_forever, daemon=True).start()
        print(json.dumps({"port": gateway.server_port, "secret": gateway.token.secret.hex()}), flush=True)
        for spark in sys.stdin.readlines():
            end_session(int(spark))


if __name__ == "__main__":
    main(sys.argv[1:])
