"""The body of a large object as it arrives: in a file without a name, not in memory."""

import hashlib
import os
import tempfile
from collections.abc import Awaitable, Callable
from contextlib import suppress
from contextvars import ContextVar
from pathlib import Path
from typing import Any, BinaryIO

LOOK = 64 * 1024


class Arrived(bytes):
    """Bytes to whoever measures, slices or searches them, of which none are in memory; with their SHA-256.

    `error` is what kept the file from being written: the rest of the body is then measured and hashed only, since a
    client takes no answer before it has sent all.
    """

    file: BinaryIO | None
    error: OSError | None
    sha256: Any
    _size: int

    def __new__(cls, folder: str) -> "Arrived":
        body = super().__new__(cls)
        body.file, body.error, body._size = None, None, 0
        body.sha256 = hashlib.sha256()
        try:
            Path(folder).mkdir(parents=True, exist_ok=True)
            body.file = tempfile.TemporaryFile(dir=folder, buffering=0)  # noqa: SIM115  # see `close`
        except OSError as error:
            body.error = error
        return body

    def append(self, piece: bytes) -> None:
        """Puts what has come behind the rest."""
        self.sha256.update(piece)
        self._size += len(piece)
        if self.file is None:
            return
        try:
            rest = memoryview(piece)
            while rest:
                rest = rest[self.file.write(rest) :]
        except OSError as error:
            self.error = error
            self.close()

    def close(self) -> None:
        """Gives the disk back; who has not copied it by now has nothing."""
        if self.file is not None:
            with suppress(OSError):  # nothing waits to be written
                self.file.close()
            self.file = None

    def __len__(self) -> int:
        return self._size

    def __getitem__(self, part: Any) -> Any:
        start, stop, _ = part.indices(self._size)
        return os.pread(self._open().fileno(), max(stop - start, 0), start)

    def find(self, sought: Any, start: Any = 0, _stop: Any = None) -> int:
        """Where `sought` is next, at or after `start`; -1 if nowhere."""
        at = int(start)
        while at < self._size:
            found = self[at : at + LOOK].find(sought)
            if found >= 0:
                return at + int(found)
            at += LOOK - len(sought) + 1
        return -1

    def _open(self) -> BinaryIO:
        if self.file is None:
            raise ValueError("The body of a request was read after its answer.")
        return self.file


class Coming(bytes):
    """The body of an object whose request is looked at before its body is taken: who may not write sends none.

    As large as the request says, and not to be read: what reads it without `take` would take it for empty.
    """

    _take: Callable[[], Awaitable[bytes | None]]
    _taken: bytes | None
    _size: int

    def __new__(cls, size: int, take: Callable[[], Awaitable[bytes | None]]) -> "Coming":
        body = super().__new__(cls)
        body._take, body._taken, body._size = take, None, size
        return body

    async def take(self) -> bytes | None:
        """What has come, in memory or Arrived, and is what was signed; None if the client has gone."""
        self._taken = await self._take()
        return self._taken

    def close(self) -> None:
        """Gives the disk back."""
        if isinstance(self._taken, Arrived):
            self._taken.close()

    def __len__(self) -> int:
        return self._size

    def __getitem__(self, part: Any) -> Any:
        raise ValueError("The body of a request was read before it was taken.")


def unwritten(key: str, error: OSError) -> str:
    """AWS's disks are never full; what an InternalError says of ours."""
    return f"The embedded cloud cannot write {key}: {error.strerror}. Free space, and try again."


# The body of the request at hand, if it is large and of an object.
arrived: ContextVar[Arrived | Coming | None] = ContextVar("dml_arrived", default=None)
