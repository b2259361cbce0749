"""Objects as files: S3 of the embedded cloud reads, sends and copies them in pieces; in the server's process.

ministack keeps objects on disk and takes each into memory whole for whatever is asked of it, be it ten bytes, and keeps
the bytes of every version of a versioned bucket in memory besides. Here what is on disk is opened when it is asked for,
so that it stays what the answer's ETag is of whatever happens to its name, and read as it is sent. What comes and is
large comes in a file (dml/local/bodies.py), from which it is decoded, hashed and copied into its place. The parts of an
upload wait in a file. What cannot be written is an error; ministack would say that it is stored, and keep it in memory.
"""

import asyncio
import base64
import contextvars
import hashlib
import logging
import os
import re
import tempfile
import zlib
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO

from dml.local import hooks
from dml.local.access.signatures import RefusedError
from dml.local.bodies import Arrived, Coming, arrived, unwritten

log = logging.getLogger("dml.objects")

PIECE = 1024 * 1024
LONGEST_TRAILER = 64 * 1024
# S3's words (S3 API reference, "Error responses").
INCOMPLETE = "You did not provide the number of bytes specified by the Content-Length HTTP header"
GONE = "Your socket connection to the server was not read from or written to within the timeout period."
Send = Callable[[Mapping[str, Any]], Awaitable[None]]
Receive = Callable[[], Awaitable[Mapping[str, Any]]]

# Whether what runs takes a body as a `Stretch` instead of as bytes.
_takes_files: contextvars.ContextVar[bool] = contextvars.ContextVar("dml_takes_files", default=False)
# What could not be written of the object that is being stored.
_unwritten: contextvars.ContextVar[list[OSError] | None] = contextvars.ContextVar("dml_unwritten", default=None)
# The parts of the upload that is being completed, in the order in which they are asked for.
_completed: contextvars.ContextVar[list["Part"] | None] = contextvars.ContextVar("dml_completed", default=None)


class Stretch:
    """Bytes of an open file from `start` to before `stop`; a slice of them is one too, and reads nothing."""

    def __init__(self, file: BinaryIO, start: int, stop: int) -> None:
        self._file, self.start, self.stop = file, start, stop

    def __len__(self) -> int:
        return self.stop - self.start

    def __getitem__(self, part: slice) -> "Stretch":
        start, stop, _ = part.indices(len(self))
        return self._part(self.start + start, self.start + max(start, stop))

    def __deepcopy__(self, _memo: Any) -> "Stretch":
        return self

    def _part(self, start: int, stop: int) -> "Stretch":
        return type(self)(self._file, start, stop)

    def read(self, start: int) -> bytes:
        """The piece that begins at `start`. Raises OSError if the file ends before it."""
        piece = os.pread(self._file.fileno(), min(PIECE, self.stop - start), start)
        if not piece:
            raise OSError(f"{self._file.name} ends at byte {start} of {self.stop}.")
        return piece

    def pieces(self) -> Iterator[bytes]:
        """All of it, in order."""
        at = self.start
        while at < self.stop:
            piece = self.read(at)
            yield piece
            at += len(piece)

    async def runner(self, send: Send, receive: Receive) -> None:
        """Sends it as the body of an answer, until the client has gone; where ministack looks for a sender."""
        left = asyncio.ensure_future(_disconnected(receive))
        try:
            at = self.start
            while at < self.stop and not left.done():
                piece = await asyncio.to_thread(self.read, at)
                await send({"type": "http.response.body", "body": piece, "more_body": True})
                at += len(piece)
            if not left.done():
                await send({"type": "http.response.body", "body": b"", "more_body": False})
        finally:
            left.cancel()
            with suppress(asyncio.CancelledError):
                await left


class Part(bytes):
    """A part of an upload as ministack takes it: bytes with a length and an MD5, of which none are in memory."""

    stretch: Stretch
    md5: bytes

    def __len__(self) -> int:
        return len(self.stretch)


class Parts(Stretch):
    """One stretch behind the other."""

    def __init__(self, parts: Sequence[Stretch]) -> None:
        self._parts = parts
        self.start, self.stop = 0, sum(map(len, parts))

    def pieces(self) -> Iterator[bytes]:
        """All of them, in order."""
        for part in self._parts:
            yield from part.pieces()


class Content(bytes):
    """A large object, or part of one, as it has come: bytes to ministack, of which none are in memory.

    `known`: its checksums by S3's names of them, and its MD5; in hexadecimal digits.
    """

    stretch: Stretch
    known: dict[str, str]

    def __len__(self) -> int:
        return len(self.stretch)

    def __deepcopy__(self, _memo: Any) -> "Content":
        return self


class Cyclic:
    """A CRC that is computed piece by piece, like a hash of hashlib's; `size` in bytes."""

    def __init__(self, size: int, step: Callable[[bytes, int], int]) -> None:
        self._size, self._step, self._value = size, step, 0

    def update(self, piece: bytes) -> None:
        """Adds to it."""
        self._value = self._step(piece, self._value)

    def hexdigest(self) -> str:
        """The CRC of all that was added."""
        return self._value.to_bytes(self._size, "big").hex()


def by_table(table: Sequence[int], size: int) -> Callable[[bytes, int], int]:
    """The step of a reflected CRC that begins and ends with all ones, as zlib.crc32 is one."""
    ones = (1 << 8 * size) - 1

    def step(piece: bytes, value: int) -> int:
        value ^= ones
        for byte in piece:
            value = table[(value ^ byte) & 0xFF] ^ (value >> 8)
        return value ^ ones

    return step


class Hashes:
    """`hashlib` as ministack's S3 is given it: a part's MD5 is known since it came."""

    def __getattr__(self, name: str) -> Any:
        return getattr(hashlib, name)

    def md5(self, data: Any = b"", **named: Any) -> Any:
        """The hash; of a part, something that tells it. The part is then one of the object's that it asks for."""
        if isinstance(data, Content):
            return _Known(bytes.fromhex(data.known["MD5"]))
        parts = _completed.get()
        if not isinstance(data, Part) or parts is None:
            return hashlib.md5(data, **named)  # noqa: S324  # what S3's ETags are
        parts.append(data)
        return _Known(data.md5)


class _Known:
    def __init__(self, value: bytes) -> None:
        self._value = value

    def digest(self) -> bytes:
        return self._value


def _once(body: bytes) -> Receive:
    async def receive() -> Mapping[str, Any]:
        return {"type": "http.request", "body": body, "more_body": False}

    return receive


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


def _pieces(body: Any) -> Iterator[bytes]:
    if isinstance(body, Content):
        body = body.stretch
    yield from body.pieces() if isinstance(body, Stretch) else (body,)


class Objects:
    """Stands where ministack reads and writes the bodies of objects."""

    def __init__(self) -> None:
        self._s3 = hooks.module("services.s3")
        streaming = hooks.module("core.responses").StreamingResponse
        self._app, self._evaluator = hooks.module("app"), hooks.module("core.iam_evaluator")
        self._kind: type[Stretch] = type("Stretch", (Stretch, streaming), {"runner": Stretch.runner})

    def apply(self) -> None:
        """Extends ministack's S3."""
        for name in ("_object_disk_path", "_version_disk_path", "_version_file_exists", "_S3_CHECKSUM_HEADERS"):
            hooks.existing(self._s3, name)
        for name in ("_get_object", "_persist_displaced_version"):
            hooks.replace(self._s3, name, self._with_files(hooks.existing(self._s3, name)))
        for name in ("_buckets", "_object_versions", "_multipart_uploads", "_error", "DATA_DIR"):
            hooks.existing(self._s3, name)
        hooks.replace(self._s3, "_put_object", self._or_not(hooks.existing(self._s3, "_put_object")))
        for name in ("pin_signed_body", "_decode_aws_chunked_body", "_IncompleteRequestBody"):
            hooks.existing(self._app, name)
        hooks.existing(self._app, "_credential_failure")
        hooks.existing(self._evaluator, "AuthError")
        for name in ("_CRC32C_TABLE", "_CRC64NVME_TABLE"):
            hooks.existing(self._s3, name)
        self._proceed = hooks.replace(self._s3, "handle_request", self.handle_request)
        self._receive = hooks.replace(self._app, "_read_request_body", self.receive)
        self._checksum = hooks.replace(self._s3, "_compute_s3_checksum", self.checksum)
        self._md5 = hooks.replace(self._s3, "md5_hash", self.md5)
        copy = hooks.existing(self._s3, "_copy_object")
        hooks.replace(self._s3, "_copy_object", self._or_not(self._with_files(copy)))
        self._copy_part = self._with_files(hooks.replace(self._s3, "_upload_part_copy", self.copy_part))
        self._complete = hooks.replace(self._s3, "_complete_multipart_upload", self._or_not(self.complete))
        self._take_part = hooks.replace(self._s3, "_upload_part", self.take_part)
        self._sse_headers = hooks.replace(self._s3, "_stored_sse_headers", self.sse_headers)
        hooks.replace(self._s3, "hashlib", Hashes())
        self._read = hooks.replace(self._s3, "_read_body", self.read)
        self._read_version = hooks.replace(self._s3, "_version_body", self.read_version)
        self._write = hooks.replace(self._s3, "_atomic_write", self.write)
        self._version = hooks.replace(self._s3, "_version_entry_from_record", self.version)

    async def receive(self, receive: Any, method: str, headers: dict[str, str]) -> bytes:
        """The body of a request, decoded; a large object's is left in its file and hashed as the request asks."""
        body = arrived.get()
        if body is None:
            return bytes(await self._receive(receive, method, headers))
        if isinstance(body, Coming):
            return body
        self._app.pin_signed_body(body)
        if headers.get("content-length", str(len(body))).strip() != str(len(body)):
            raise self._app._IncompleteRequestBody("Content-Length does not match request body")
        return await asyncio.to_thread(self._content, body, headers)

    async def handle_request(
        self, method: str, path: str, headers: dict[str, str], body: bytes, query: Any, *rest: Any, **named: Any
    ) -> Any:
        """S3's API; it has been decided by now that the caller may do what the request asks for."""
        if isinstance(body, Coming):
            try:
                taken = await body.take()
            except RefusedError as refused:
                error = self._evaluator.AuthError(refused.code, str(refused))
                return self._app._credential_failure("s3", "", "", error, headers)
            if taken is None:
                return self._s3._error("RequestTimeout", GONE, 400)
            if isinstance(taken, Arrived) and taken.error:
                return self._full(path, taken.error)
            arrived.set(taken if isinstance(taken, Arrived) else None)
            try:
                body = await self.receive(_once(taken), method, headers)
            except self._app._IncompleteRequestBody:
                return self._s3._error("IncompleteBody", INCOMPLETE, 400)
        return await self._proceed(method, path, headers, body, query, *rest, **named)

    def checksum(self, algorithm: str, body: Any) -> Any:
        """A checksum as S3 tells it, in base64; None for one that it does not have."""
        name = (algorithm or "").upper().replace("_", "")
        if not isinstance(body, Content | Stretch) or self._checksum(name, b"") is None:
            return self._checksum(algorithm, body)
        return base64.b64encode(bytes.fromhex(self._known(body, name))).decode()

    def md5(self, body: Any) -> str:
        """What most ETags are."""
        return self._known(body, "MD5") if isinstance(body, Content | Stretch) else str(self._md5(body))

    def take_part(self, bucket: str, key: str, body: bytes, query: Any, headers: Any) -> Any:
        """UploadPart."""
        return self._keep_part(key, query, self._take_part(bucket, key, body, query, headers))

    def copy_part(self, bucket: str, key: str, query: Any, headers: Any) -> Any:
        """UploadPartCopy."""
        return self._keep_part(key, query, self._copy_part(bucket, key, query, headers))

    def _keep_part(self, key: str, query: Any, answer: Any) -> Any:
        """What ministack has taken of an upload goes to the upload's file, which has no name."""
        if answer[0] != 200:
            return answer
        upload = self._s3._multipart_uploads[self._s3._qp(query, "uploadId")]
        number = int(self._s3._qp(query, "partNumber", "1"))
        taken = upload["parts"][number]
        try:
            file = upload.get("dml_file") or tempfile.TemporaryFile(dir=self._s3.DATA_DIR)  # noqa: SIM115
            upload["dml_file"] = file
            start = file.seek(0, os.SEEK_END)
            for piece in _pieces(taken["body"]):
                file.write(piece)
            file.flush()
        except OSError as error:
            del upload["parts"][number]
            return self._full(key, error)
        part = Part()
        part.stretch = self._kind(file, start, start + taken["size"])
        part.md5 = bytes.fromhex(taken["etag"].strip('"'))
        taken["body"] = part
        return answer

    def _content(self, body: Arrived, headers: dict[str, str]) -> Content:
        stretches = self._decoded(body, headers)
        content = Content()
        content.stretch = Parts([self._kind(body._open(), start, stop) for start, stop in stretches])
        asked = headers.get("x-amz-sdk-checksum-algorithm", "").upper().replace("_", "")
        given = [name.upper() for name in self._s3._S3_CHECKSUM_HEADERS if headers.get(f"x-amz-checksum-{name}")]
        content.known = self._hashes(content.stretch, {"MD5", asked, *given})
        return content

    def _decoded(self, body: Arrived, headers: dict[str, str]) -> list[tuple[int, int]]:
        """(start, stop) of what is content, one behind the other. What is in the trailer goes to the headers.

        Source: S3 API reference, "Signature Calculations for the Authorization Header: Transferring Payload in
        Multiple Chunks".
        """
        signed, encoding = headers.get("x-amz-content-sha256", ""), headers.get("content-encoding", "")
        declared = headers.get("x-amz-decoded-content-length")
        if not (signed.startswith("STREAMING-") or "aws-chunked" in encoding or declared):
            return [(0, len(body))]
        incomplete, stretches, at = self._app._IncompleteRequestBody, [], 0
        while True:
            start = body.find(b"\r\n", at) + 2
            digits = re.fullmatch(
                rb"\s*([0-9A-Fa-f]+)\s*(;.*)?", body[at : max(at, min(start - 2, at + LONGEST_TRAILER))]
            )
            if not digits:
                raise incomplete("Truncated or invalid aws-chunked frame header")
            size = int(digits[1], 16)
            if size == 0:
                break
            at = start + size + 2
            if body[start + size : at] != b"\r\n":
                raise incomplete("Truncated aws-chunked frame data")
            stretches.append((start, start + size))
        if len(body) - start > LONGEST_TRAILER:
            raise incomplete("Too long aws-chunked trailer section")
        if declared is not None:
            if declared.strip() != str(sum(stop - start for start, stop in stretches)):
                raise incomplete("Decoded aws-chunked length mismatch")
            headers["x-amz-decoded-content-length"] = "0"
        self._app._decode_aws_chunked_body(b"0\r\n" + body[start : len(body)], headers)
        if declared is not None:
            headers["x-amz-decoded-content-length"] = declared
        return stretches

    def _known(self, body: Content | Stretch, name: str) -> str:
        if not isinstance(body, Content):
            return self._hashes(body, {name})[name]
        if name not in body.known:
            body.known |= self._hashes(body.stretch, {name})
        return body.known[name]

    def _hashes(self, body: Stretch, names: set[str]) -> dict[str, str]:
        """Checksums by S3's names, in one pass and in hexadecimal digits; none for what S3 does not have."""
        made: dict[str, Callable[[], Any]] = {
            "MD5": hashlib.md5,
            "SHA1": hashlib.sha1,
            "SHA256": hashlib.sha256,
            "CRC32": lambda: Cyclic(4, zlib.crc32),
            "CRC32C": lambda: Cyclic(4, by_table(self._s3._CRC32C_TABLE, 4)),
            "CRC64NVME": lambda: Cyclic(8, by_table(self._s3._CRC64NVME_TABLE, 8)),
        }
        hashes = {name: made[name]() for name in names if name in made}
        for piece in body.pieces():
            for one in hashes.values():
                one.update(piece)
        return {name: str(one.hexdigest()) for name, one in hashes.items()}

    def complete(self, *arguments: Any, **named: Any) -> Any:
        """CompleteMultipartUpload, with the parts where they are."""
        token = _completed.set([])
        try:
            return self._complete(*arguments, **named)
        finally:
            _completed.reset(token)

    def sse_headers(self, obj: Any) -> Any:
        """What ministack asks first of the object that it has made of parts, which then gets its body and size."""
        parts = _completed.get()
        if parts and obj.get("body") == b"" and "parts" in obj:
            obj["body"] = Parts([part.stretch for part in parts])
            obj["size"] = len(obj["body"])
        return self._sse_headers(obj)

    def read(self, bucket: str, key: str, obj: Mapping[str, Any]) -> Any:
        """The body of an object, or of a version that is the current one."""
        if not _takes_files.get() or obj.get("body") is not None:
            return self._read(bucket, key, obj)
        return self._open(self._s3._object_disk_path(bucket, key))

    def read_version(self, bucket: Mapping[str, Any], name: str, key: str, version: Mapping[str, Any]) -> Any:
        """The body of a version."""
        if not _takes_files.get() or version.get("data") is not None:
            return self._read_version(bucket, name, key, version)
        if self._s3._version_file_exists(name, key, version["version_id"]):
            return self._open(self._s3._version_disk_path(name, key, version["version_id"]))
        return self._read_version(bucket, name, key, version)

    def write(self, path: str, data: Any, *, text: bool = False) -> None:
        """A file, whole or not at all."""
        fresh = Path(f"{path}.tmp")
        try:
            if not isinstance(data, Content | Stretch):
                self._write(path, data, text=text)
                return
            with fresh.open("wb") as file:  # for its owner alone, as all that this process writes
                for piece in _pieces(data):
                    file.write(piece)
            fresh.replace(path)
        except OSError as error:
            if (unwritten := _unwritten.get()) is not None:
                unwritten.append(error)
            with suppress(OSError):  # there may be none, and the first error is what went wrong
                fresh.unlink()
            raise

    def version(self, obj: Any, version_id: str, _data: Any) -> Any:
        """A version, whose bytes are on disk: the current one's as the object's, an earlier one's as its own file."""
        return self._version(obj, version_id, None)

    def _or_not(self, store: Callable[..., Any]) -> Callable[..., Any]:
        """Stores an object, or says that it is not stored and leaves what was there."""

        def stored(bucket: str, key: str, *arguments: Any, **named: Any) -> Any:
            objects = (self._s3._buckets.get(bucket) or {"objects": {}})["objects"]
            former, versions = objects.get(key), list(self._s3._object_versions.get((bucket, key)) or [])
            token = _unwritten.set([])
            try:
                answer = store(bucket, key, *arguments, **named)
                unwritten = _unwritten.get()
            finally:
                _unwritten.reset(token)
            if not unwritten:
                return answer
            if former is None:
                objects.pop(key, None)
            else:
                objects[key] = former
            if versions:
                versions[-1]["is_latest"] = True
                self._s3._object_versions[(bucket, key)] = versions
            else:
                self._s3._object_versions.pop((bucket, key), None)
            return self._full(key, unwritten[0])

        return stored

    def _full(self, key: str, error: OSError) -> Any:
        """AWS's disks are never full; an error of the service is what comes nearest."""
        log.error("%s could not be written: %s", key, error)
        return self._s3._error("InternalError", unwritten(key, error), 500)

    def _open(self, path: str) -> Stretch:
        file = Path(path).open("rb")  # noqa: SIM115  # closed with the last stretch of it
        return self._kind(file, 0, os.fstat(file.fileno()).st_size)

    def _with_files(self, function: Callable[..., Any]) -> Callable[..., Any]:
        def taking_files(*arguments: Any, **named: Any) -> Any:
            token = _takes_files.set(True)
            try:
                return function(*arguments, **named)
            finally:
                _takes_files.reset(token)

        return taking_files
