"""Objects as files: S3 of the embedded cloud reads, sends and copies them in pieces; in the server's process.

ministack keeps objects on disk and takes each into memory whole for whatever is asked of it, be it ten bytes, and keeps
the bytes of every version of a versioned bucket in memory besides. Here what is on disk is opened when it is asked for,
so that it stays what the answer's ETag is of whatever happens to its name, and read as it is sent. The parts of an
upload wait in a file. What cannot be written is an error; ministack would say that it is stored, and keep it in memory.
"""

import asyncio
import contextvars
import hashlib
import logging
import os
import tempfile
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO

from dml.local import hooks

log = logging.getLogger("dml.objects")

PIECE = 1024 * 1024
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

    def copy_to(self, target: BinaryIO) -> None:
        """Writes all of it."""
        at = self.start
        while at < self.stop:
            at += target.write(self.read(at))

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
    """One part behind the other."""

    def __init__(self, parts: list[Part]) -> None:
        self._parts = [part.stretch for part in parts]
        self.start, self.stop = 0, sum(map(len, parts))

    def copy_to(self, target: BinaryIO) -> None:
        """Writes all of them."""
        for part in self._parts:
            part.copy_to(target)


class Hashes:
    """`hashlib` as ministack's S3 is given it: a part's MD5 is known since it came."""

    def __getattr__(self, name: str) -> Any:
        return getattr(hashlib, name)

    def md5(self, data: Any = b"", **named: Any) -> Any:
        """The hash; of a part, something that tells it. The part is then one of the object's that it asks for."""
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


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


class Objects:
    """Stands where ministack reads and writes the bodies of objects."""

    def __init__(self) -> None:
        self._s3 = hooks.module("services.s3")
        streaming = hooks.module("core.responses").StreamingResponse
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
        self._copy = hooks.replace(self._s3, "_copy_object", self._or_not(self.copy))
        self._complete = hooks.replace(self._s3, "_complete_multipart_upload", self._or_not(self.complete))
        self._take_part = hooks.replace(self._s3, "_upload_part", self.take_part)
        self._sse_headers = hooks.replace(self._s3, "_stored_sse_headers", self.sse_headers)
        hooks.replace(self._s3, "hashlib", Hashes())
        self._read = hooks.replace(self._s3, "_read_body", self.read)
        self._read_version = hooks.replace(self._s3, "_version_body", self.read_version)
        self._write = hooks.replace(self._s3, "_atomic_write", self.write)
        self._version = hooks.replace(self._s3, "_version_entry_from_record", self.version)

    def copy(self, bucket: str, key: str, headers: Mapping[str, str]) -> Any:
        """CopyObject: in pieces, but where a checksum is to be made of the whole."""
        asked = ["x-amz-sdk-checksum-algorithm", *(f"x-amz-checksum-{name}" for name in self._s3._S3_CHECKSUM_HEADERS)]
        copy = self._copy if any(headers.get(name) for name in asked) else self._with_files(self._copy)
        return copy(bucket, key, headers)

    def take_part(self, bucket: str, key: str, body: bytes, query: Any, headers: Any) -> Any:
        """UploadPart: what ministack has taken goes to the file of its upload, which has no name."""
        answer = self._take_part(bucket, key, body, query, headers)
        if answer[0] != 200:
            return answer
        upload = self._s3._multipart_uploads[self._s3._qp(query, "uploadId")]
        number = int(self._s3._qp(query, "partNumber"))
        try:
            file = upload.get("dml_file") or tempfile.TemporaryFile(dir=self._s3.DATA_DIR)  # noqa: SIM115
            upload["dml_file"] = file
            start = file.seek(0, os.SEEK_END)
            file.write(body)
            file.flush()
        except OSError as error:
            del upload["parts"][number]
            return self._full(key, error)
        part = Part()
        part.stretch = self._kind(file, start, start + len(body))
        part.md5 = bytes.fromhex(upload["parts"][number]["etag"].strip('"'))
        upload["parts"][number]["body"] = part
        return answer

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
            obj["body"] = Parts(parts)
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
            if not isinstance(data, Stretch):
                self._write(path, data, text=text)
                return
            with fresh.open("wb") as file:  # for its owner alone, as all that this process writes
                data.copy_to(file)
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
        return self._s3._error(
            "InternalError", f"The embedded cloud cannot write {key}: {error.strerror}. Free space, and try again.", 500
        )

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
