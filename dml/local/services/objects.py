"""Objects as files: S3 of the embedded cloud reads, sends and copies them in pieces; in the server's process.

ministack keeps objects on disk and takes each into memory whole for whatever is asked of it, be it ten bytes, and keeps
the bytes of every version of a versioned bucket in memory besides. Here what is on disk is opened when it is asked for,
so that it stays what the answer's ETag is of whatever happens to its name, and read as it is sent.
"""

import asyncio
import contextvars
import os
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO

from dml.local import hooks

PIECE = 1024 * 1024
Send = Callable[[Mapping[str, Any]], Awaitable[None]]
Receive = Callable[[], Awaitable[Mapping[str, Any]]]

# Whether what runs takes a body as a `Stretch` instead of as bytes.
_takes_files: contextvars.ContextVar[bool] = contextvars.ContextVar("dml_takes_files", default=False)


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
        self._copy = hooks.replace(self._s3, "_copy_object", self.copy)
        self._read = hooks.replace(self._s3, "_read_body", self.read)
        self._read_version = hooks.replace(self._s3, "_version_body", self.read_version)
        self._write = hooks.replace(self._s3, "_atomic_write", self.write)
        self._version = hooks.replace(self._s3, "_version_entry_from_record", self.version)

    def copy(self, bucket: str, key: str, headers: Mapping[str, str]) -> Any:
        """CopyObject: in pieces, but where a checksum is to be made of the whole."""
        asked = ["x-amz-sdk-checksum-algorithm", *(f"x-amz-checksum-{name}" for name in self._s3._S3_CHECKSUM_HEADERS)]
        copy = self._copy if any(headers.get(name) for name in asked) else self._with_files(self._copy)
        return copy(bucket, key, headers)

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
        if not isinstance(data, Stretch):
            self._write(path, data, text=text)
            return
        fresh = Path(f"{path}.tmp")
        try:
            with fresh.open("wb") as file:  # for its owner alone, as all that this process writes
                data.copy_to(file)
            fresh.replace(path)
        except OSError:
            fresh.unlink(missing_ok=True)
            raise

    def version(self, obj: Any, version_id: str, _data: Any) -> Any:
        """A version, whose bytes are on disk: the current one's as the object's, an earlier one's as its own file."""
        return self._version(obj, version_id, None)

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
