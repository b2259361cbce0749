"""The embedded cloud's process: `python -m dml.local.server`, which dml/local/cloud.py starts; operator time.

It is ministack with our extensions, on 127.0.0.1 only, with IAM enforced. It keeps its state in its folder: objects as
they are written, all else when it ends and when its client asks (SAVE_PATH).
"""

import asyncio
import functools
import logging
import os
import re
import shutil
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from dml.errors import UserError
from dml.local import credentials, hooks
from dml.local.access import exchange, iam
from dml.local.access.authorise import Authoriser
from dml.local.access.calls import Calls
from dml.local.access.exchange import Message, Receive, Send
from dml.local.access.guard import Guard, StrangerError, answer, turn_away
from dml.local.access.variables import Variables
from dml.local.place import (
    ASTRAY,
    CALLS_PATH,
    HOME_VARIABLE,
    MARKER_PATH,
    NODE_PATH,
    PORT_VARIABLE,
    REGION,
    SAVE_PATH,
    Place,
)
from dml.local.processes import allow_many_files
from dml.local.running import Running
from dml.local.services.cloudformation import Exports, ResourceTypes
from dml.local.services.crawler import GlueCrawlers
from dml.local.services.emr import EmrClusters
from dml.local.services.events import Rules
from dml.local.services.glue import GlueJobs
from dml.local.services.limits import Limits
from dml.local.services.object_rules import ObjectRules
from dml.local.services.objects import Objects
from dml.local.services.refusals import Refusals
from dml.local.services.states import StateMachines

log = logging.getLogger("dml.server")

# Longer than any timer of the templates needs to be on a laptop; a Wait of 20 s takes 1 s.
WAIT_SCALE = "0.05"
SETTINGS = {
    "BIND_HOST": "127.0.0.1",
    "MINISTACK_HOST": "127.0.0.1",
    "MINISTACK_REGION": REGION,
    "AUTH": "true",
    "PERSIST_STATE": "1",
    "S3_PERSIST": "1",
    "SFN_WAIT_SCALE": WAIT_SCALE,
    "DOCKER_HOST": "unix:///nonexistent",  # nothing here may start a container
    "IOT_MTLS_ENABLED": "0",  # ministack would open a second port for each of these two
    "SFTP_ENABLED": "0",
    "LOG_LEVEL": "INFO",
}
STOP_SECONDS = 15.0


class RefusedError(Exception):
    """The server does not start; the message says why and what to do."""


def check_environment(environment: Mapping[str, str]) -> None:
    """Raises RefusedError if real AWS credentials are in reach of this process."""
    for name in ("AWS_ACCESS_KEY_ID", *ASTRAY):
        if environment.get(name):
            raise RefusedError(
                f"The embedded cloud does not start with {name} in its environment: "
                f"unset {name}, or start it with: dml local up"
            )
    for name in (HOME_VARIABLE, PORT_VARIABLE):
        if not environment.get(name):
            raise RefusedError(f"{name} is not set. Start the embedded cloud with: dml local up")


class Extension:
    """What is added to ministack, applied in one go."""

    def __init__(self, place: Place) -> None:
        hooks.check_version()
        self._place = place
        self._running = Running()
        self._app = hooks.module("app")
        self._guard = Guard(place.port, place.root)
        self._calls = Calls(place.calls)
        authoriser = Authoriser(self._calls)
        self._jobs = GlueJobs(place, self._running)
        self._clusters = EmrClusters(place, self._running, authoriser)
        self._crawlers = GlueCrawlers(place, self._running)
        iam.apply()
        exchange.apply()
        machines, types = StateMachines(place, authoriser, self._running), ResourceTypes(place, self._clusters)
        for part in (
            authoriser,
            self._jobs,
            self._clusters,
            self._crawlers,
            machines,
            types,
            Objects(),
            Refusals(),
            Rules(authoriser),
        ):
            part.apply()
        for door in (Variables(), ObjectRules(), Exports(), Limits()):  # in front of all of them
            door.apply()
        for name in ("main", "_build_persistence_save_dict"):
            hooks.existing(self._app, name)
        self._serve = hooks.replace(self._app, "app", self.serve)
        self._save_all = hooks.replace(self._app, "save_all", self.save_all)
        self._persistence = hooks.module("core.persistence")
        hooks.existing(self._persistence, "STATE_DIR")

    def run(self) -> None:
        """Serves until a signal ends it."""
        self._app.main()

    async def serve(self, scope: Message, receive: Receive, send: Send) -> None:
        """The ASGI application: the guard, then our paths, else ministack."""
        if scope["type"] == "lifespan":
            await self._live(scope, receive, send)
            return
        try:
            await self._guard.check_caller(scope)
        except StrangerError as why:
            await turn_away(scope, receive, send, why)
            return
        if scope["path"] == MARKER_PATH:
            await self._tell(scope, receive, send)
            return
        own = {CALLS_PATH: self._tell_calls, SAVE_PATH: self._save, NODE_PATH: self._tell_node}
        await self._guard.serve(scope, receive, send, self._serve, own)

    async def _tell(self, scope: Message, _receive: Receive, send: Send) -> None:
        """That it is this cloud, to who has its keys; to anybody else nothing, not even where it lies."""
        challenge = scope["query_string"].decode("latin-1").removeprefix("challenge=")
        if not re.fullmatch("[0-9a-f]{64}", challenge):
            await answer(send, 400, {"message": "It takes a challenge: 64 hexadecimal digits."})
            return
        about = (self._place.home, self._place.port, os.getpid())
        await answer(send, 200, {"proof": credentials.proof(self._place.root, challenge, *about)})

    async def _tell_calls(self, _scope: Message, _receive: Receive, send: Send) -> None:
        await answer(send, 200, {"calls": self._calls.told(), "unused": self._calls.unused()})

    async def _tell_node(self, scope: Message, _receive: Receive, send: Send) -> None:
        """The credentials that programs on a cluster's primary node have, as its metadata tell them on AWS."""
        cluster = scope["query_string"].decode("latin-1").removeprefix("cluster=")
        try:
            await answer(send, 200, {"credentials": self._clusters.credentials(cluster)})
        except (KeyError, iam.RoleError) as why:
            await answer(send, 400, {"message": f"No node of {cluster!r} has credentials: {why}"})

    async def _save(self, _scope: Message, _receive: Receive, send: Send) -> None:
        await answer(send, 200, {"saved": self.save_all(self._app._build_persistence_save_dict())})

    async def _live(self, scope: Message, receive: Receive, send: Send) -> None:
        async def receive_after_work_ended() -> Message:
            message = await receive()
            if message["type"] == "lifespan.shutdown":
                await asyncio.to_thread(self._running.close, patience=STOP_SECONDS)
                await asyncio.to_thread(self._clusters.close)
            return message  # ministack saves all state now

        async def send_after_recovery(message: Message) -> None:
            if message["type"] == "lifespan.startup.complete":
                for part in (self._jobs, self._clusters, self._crawlers):
                    part.recover()
            await send(message)

        await self._serve(scope, receive_after_work_ended, send_after_recovery)

    def save_all(self, parts: Mapping[str, Callable[[], Any]]) -> bool:
        """Writes all state but objects, and only then takes it for the state: all of it or, if that fails, none.

        Runs on the event loop, so that no request changes it meanwhile.
        """
        fresh, empty = self._place.fresh_state, set()

        def read(name: str) -> Any:
            state = _steadily(parts[name])
            if state is None:
                empty.add(name)
            return state

        try:
            shutil.rmtree(fresh, ignore_errors=True)
            fresh.mkdir(parents=True)
            self._persistence.STATE_DIR = str(fresh)
            self._save_all({name: functools.partial(read, name) for name in parts})
            missing = [name for name in parts if name not in empty and not (fresh / f"{name}.json").exists()]
            if missing:
                raise OSError(f"no state was written of: {', '.join(missing)}")
            self._take(fresh)
            self._calls.save()
        except OSError as error:
            log.error("The state could not be saved, what was saved before is kept: %s", error)
            return False
        finally:
            self._persistence.STATE_DIR = str(self._place.state)
        return True

    def _take(self, fresh: Path) -> None:
        former = self._place.former_state
        shutil.rmtree(former, ignore_errors=True)
        if self._place.state.exists():
            self._place.state.rename(former)
        fresh.rename(self._place.state)
        shutil.rmtree(former, ignore_errors=True)


def main() -> None:
    """Starts the server and returns when it has ended."""
    try:
        check_environment(os.environ)
        os.umask(0o077)  # what it writes, and what it runs writes, is its owner's
        place = Place.of_this_process()
        finish_saving(place)
        allow_many_files()
        os.environ.update(SETTINGS, STATE_DIR=str(place.state), S3_DATA_DIR=str(place.objects), **place.root)
        sys.argv = sys.argv[:1]
        extension = Extension(place)
    except (RefusedError, UserError, hooks.HookError) as error:
        print(error, file=sys.stderr)
        sys.exit(1)
    extension.run()


def finish_saving(place: Place) -> None:
    """Brings the former state back if the server died between putting it away and taking the new one."""
    if place.former_state.exists() and not place.state.exists():
        place.former_state.rename(place.state)


def _steadily(read: Callable[[], Any]) -> Any:
    """Reads a part of the state, again if a running execution changed it meanwhile."""
    for _ in range(50):
        try:
            return read()
        except RuntimeError:  # dictionary changed size during iteration
            time.sleep(0.01)
    return read()


if __name__ == "__main__":
    main()
