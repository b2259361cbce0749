"""What runs in the embedded cloud right now, by its AWS id, and how it is ended; in the server's process."""

import contextvars
import logging
import threading
from collections.abc import Callable
from typing import Protocol

log = logging.getLogger("dml.running")

SHUT_DOWN = "The embedded cloud was stopped while this ran."


class Stoppable(Protocol):
    """A program under way that another thread can end."""

    def stop(self) -> None: ...


class Handle:
    """One piece of work under way. `cause` says why it was told to stop; it is empty while nobody did."""

    def __init__(self) -> None:
        self.cause = ""
        self._lock = threading.Lock()
        self._program: Stoppable | None = None

    def attach(self, program: Stoppable | None) -> None:
        """From now on `program` is what a stop ends; at once, if the stop came first."""
        with self._lock:
            self._program = program
            late = bool(self.cause)
        if late and program:
            program.stop()

    def stop(self, cause: str) -> None:
        """Tells the work to end; the first cause counts."""
        with self._lock:
            self.cause = self.cause or cause
            program = self._program
        if program:
            program.stop()


class Running:
    """All work under way."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._changed = threading.Condition(self._lock)
        self._changes = 0
        self._work: dict[str, tuple[Handle, threading.Thread]] = {}
        self._closed = False

    @property
    def changes(self) -> int:
        """How often work has begun or ended: who waits for the end of some looks at it again when this has changed."""
        return self._changes

    def wait(self, seen: int, seconds: float) -> None:
        """Blocks for so long, or until `changes` is another number than `seen`."""
        with self._changed:
            self._changed.wait_for(lambda: self._changes != seen, seconds)

    def start(self, key: str, work: Callable[[Handle], None]) -> bool:
        """Runs `work` on a thread of its own in the caller's account and region; False if `key` already runs."""
        handle = Handle()

        def run() -> None:
            try:
                work(handle)
            except Exception:
                log.exception("%s ended unexpectedly", key)
            finally:
                self.forget(key, handle)

        thread = threading.Thread(target=contextvars.copy_context().run, args=(run,), name=key, daemon=True)
        with self._lock:
            if self._closed or key in self._work:
                return False
            self._work[key] = (handle, thread)
            thread.start()
            self._change()
        return True

    def adopt(self, key: str) -> Handle:
        """A handle for a part of the work of the calling thread, to be stopped by its own key."""
        handle = Handle()
        with self._lock:
            self._work[key] = (handle, threading.current_thread())
        return handle

    def forget(self, key: str, handle: Handle) -> None:
        """Nothing runs as `key` any more, unless somebody else has begun to since."""
        with self._lock:
            if key in self._work and self._work[key][0] is handle:
                del self._work[key]
            self._change()

    def handle(self, key: str) -> Handle | None:
        """The handle of the work that runs as `key`, if it runs."""
        with self._lock:
            found = self._work.get(key)
        return found[0] if found else None

    def close(self, *, patience: float) -> None:
        """Stops everything and waits up to `patience` seconds for each; nothing starts afterwards."""
        with self._lock:
            self._closed = True
            work = list(self._work.values())
        for handle, _ in work:
            handle.stop(SHUT_DOWN)
        for _, thread in work:
            thread.join(patience)

    def _change(self) -> None:
        """With the lock."""
        self._changes += 1
        self._changed.notify_all()
