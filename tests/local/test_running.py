"""What runs in the embedded cloud, and who is told when that changes."""

import threading

from dml.local.running import Handle, Running


def test_who_waits_for_work_should_be_woken_by_its_end() -> None:
    running, may_end = Running(), threading.Event()
    assert running.start("job", lambda _handle: may_end.wait(60))
    seen = running.changes
    waiting = threading.Thread(target=running.wait, args=(seen, 60.0))
    waiting.start()
    may_end.set()
    waiting.join(30)
    assert not waiting.is_alive()
    assert running.changes > seen
    assert running.handle("job") is None


def test_work_that_ended_before_anybody_waited_should_not_be_waited_for() -> None:
    running, done = Running(), threading.Event()
    seen = running.changes

    def work(_handle: Handle) -> None:
        done.set()

    running.start("job", work)
    assert done.wait(30)
    waiting = threading.Thread(target=running.wait, args=(seen, 60.0))
    waiting.start()
    waiting.join(30)
    assert not waiting.is_alive()
