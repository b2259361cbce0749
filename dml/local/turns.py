"""Two commands at once in one checkout: they deploy one after the other, and none ends what another still uses."""

import fcntl
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from dml import checkout


@contextmanager
def turn(home: Path, on_wait: Callable[[], None]) -> Iterator[None]:
    """For what only one command may do at a time, as deploying; `on_wait` is called if another one does it now.

    The lock ends with its process, however that ends.
    """
    with _lock(home, "deploying") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            on_wait()
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


class Use:
    """That this command uses the embedded cloud, for as long as it is held."""

    def __init__(self, home: Path) -> None:
        self._lock = _lock(home, "using")
        fcntl.flock(self._lock, fcntl.LOCK_SH)

    def is_last(self) -> bool:
        """Whether no other command uses it. Only to be asked by who is about to stop it: no other use begins then."""
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def end(self) -> None:
        self._lock.close()


def _lock(home: Path, name: str) -> IO[str]:
    checkout.private(home)
    return (home / f"{name}.lock").open("w")
