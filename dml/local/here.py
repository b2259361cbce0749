"""What a command does around work in the embedded cloud of this checkout: start it, deploy to it, stop with it."""

import shlex
import signal
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import NoReturn

from dml import checkout
from dml.local.cloud import Cloud
from dml.local.place import ASTRAY
from dml.local.turns import Use, turn
from dml.terminal.board import Board
from dml.terminal.console import err

PROXIES = ("NO_PROXY", "no_proxy")


def cloud() -> Cloud:
    return Cloud(checkout.HOME)


def stand_up(env: str, board: Board, *, dataset: str = "", port: int | None = None) -> Cloud:
    """Starts it and deploys environment `env` to it, as the stages `embedded cloud` and `deploy` of the board.

    `dataset`: of the datasets this one only.
    """
    from dml.local.deploy import deploy

    own = cloud()
    board.start("embedded cloud")
    with turn(checkout.HOME, lambda: board.note("embedded cloud", "another command is deploying: waiting for it")):
        own.up(port)
        board.done("embedded cloud", own.endpoint)
        board.start("deploy")
        board.done("deploy", deploy(own, env, dataset=dataset, on_progress=lambda text: board.note("deploy", text)))
    return own


@contextmanager
def standing() -> Iterator[Cloud]:
    """The embedded cloud, up for as long as the block lasts.

    It goes on if it was up before, or if another command of this checkout uses it.
    """
    own, use, started = cloud(), Use(checkout.home()), False
    try:
        started = own.up()
        yield own
    finally:
        if started and use.is_last():
            own.down()
        use.end()


def jars_of_yarn(board: Board) -> Path:
    """What a YARN is made of, as the stage `yarn` of the board, before anything else is started.

    Raises UserError if this machine cannot have one or the jars cannot be had.
    """
    from dml.local.yarn import jars, namespace

    board.start("yarn")
    namespace.check()
    found = jars.ready(checkout.home(), lambda text: board.note("yarn", text))
    board.done("yarn", f"Hadoop {jars.JARS[0].version}; each cluster's starts with its first step")
    return found


def shell_lines(given: Mapping[str, str], around: Mapping[str, str]) -> str:
    """Lines for a POSIX shell with the environment `around` that set what is given, and unset all else of AWS's."""
    unset = sorted(
        {*ASTRAY, "AWS_SECURITY_TOKEN", *(name for name in around if name.startswith("AWS_"))} - given.keys()
    )
    values = {name: value for name, value in given.items() if name not in PROXIES}
    for name in PROXIES:  # those of the user's own stay
        others = [one for one in around.get(name, "").split(",") if one]
        values[name] = ",".join([*others, *(one for one in given["NO_PROXY"].split(",") if one not in others)])
    exports = [f"export {name}={shlex.quote(value)}" for name, value in values.items()]
    return "\n".join([f"unset {' '.join(unset)}", *exports])


def logs(local: bool) -> Path | None:
    """Where jobs leave their logs on this machine, if they run on it."""
    return cloud().place.logs if local else None


def interval(local: bool) -> float:
    """Seconds between two questions: what is asked on this machine costs nobody anything."""
    return 0.5 if local else 5.0


@contextmanager
def stopped_together(local: bool) -> Iterator[None]:
    """Ctrl-C or a termination signal during local work stops the embedded cloud too: no process is left behind.

    It goes on if another command of this checkout uses it.
    """

    def interrupt(_signal: int, _frame: FrameType | None) -> NoReturn:
        raise KeyboardInterrupt

    previous = signal.signal(signal.SIGTERM, interrupt)
    use = Use(checkout.HOME) if local else None
    try:
        yield
    except KeyboardInterrupt:
        if use is not None and use.is_last():
            cloud().down()
            err.print("The embedded cloud is stopped; its data is kept.")
        elif use is not None:
            err.print("The embedded cloud goes on, since another command uses it; `dml local down` stops it.")
        raise
    finally:
        if use is not None:
            use.end()
        signal.signal(signal.SIGTERM, previous)
