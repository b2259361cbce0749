"""Two commands at once in one checkout: one waits for the other, and Ctrl-C ends nothing that another still uses."""

import threading
from contextlib import ExitStack
from pathlib import Path

import pytest

from dml import checkout
from dml.local import here
from dml.local.turns import Use, turn


def test_the_second_command_should_wait_for_the_first_and_say_so(tmp_path: Path) -> None:
    order, waits = [], threading.Event()

    def second() -> None:
        with turn(tmp_path, waits.set):
            order.append("second")

    other = threading.Thread(target=second)
    with turn(tmp_path, lambda: pytest.fail("nobody is before it")):
        other.start()
        assert waits.wait(30)
        order.append("first")
    other.join(30)
    assert order == ["first", "second"]


@pytest.mark.parametrize("another", [True, False])
def test_an_interrupt_should_stop_the_cloud_unless_another_command_uses_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], another: bool
) -> None:
    stopped = []

    class Stand:
        def down(self) -> None:
            stopped.append(self)

    monkeypatch.setattr(here, "cloud", Stand)
    monkeypatch.setattr(checkout, "HOME", tmp_path)
    others = [Use(tmp_path)] if another else []
    with pytest.raises(KeyboardInterrupt), here.stopped_together(local=True):
        raise KeyboardInterrupt
    assert bool(stopped) == (not another)
    for other in others:
        assert other.is_last()  # what was interrupted uses it no longer
        other.end()


@pytest.mark.parametrize(("starts", "another"), [(True, False), (True, True), (False, False)])
def test_a_command_that_ends_should_stop_the_cloud_that_it_started_unless_another_one_uses_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, starts: bool, another: bool
) -> None:
    said = []

    class Stand:
        def up(self) -> bool:
            said.append("up")
            return starts

        def down(self) -> None:
            said.append("down")

    monkeypatch.setattr(here, "cloud", Stand)
    monkeypatch.setattr(checkout, "HOME", tmp_path)
    with pytest.raises(KeyboardInterrupt), ExitStack() as others, here.standing():
        if another:
            others.callback(Use(tmp_path).end)
        elif not starts:
            early = Use(tmp_path)
            assert not early.is_last(), "it is in use for as long as the block lasts"
            early.end()
        raise KeyboardInterrupt
    assert said == ["up", *(["down"] if starts and not another else [])]
    after = Use(tmp_path)
    assert after.is_last(), "it is used no longer"
    after.end()


def test_the_first_command_of_a_checkout_should_find_nothing_in_its_way(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No embedded cloud was ever started there, so nobody knows its place."""
    monkeypatch.setattr(checkout, "HOME", tmp_path / "fresh")
    with here.stopped_together(local=True):
        assert not (tmp_path / "fresh" / "cloud").exists()
