"""The embedded cloud's process: `python -m dml.local.server`, which dml/local/cloud.py starts; operator time.

It is ministack with our extensions, on 127.0.0.1 only, with IAM enforced. It keeps its state in its folder: objects as
they are written, all else when it ends and when its client asks (SAVE_PATH).
"""

import asyncio
import json
import os
import shutil
import sys
import time
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from typing import Any

from dml.local import hooks, iam
from dml.local.cloudformation import ResourceTypes
from dml.local.crawler import GlueCrawlers
from dml.local.emr import EmrClusters
from dml.local.glue import GlueJobs
from dml.local.place import ACCESS_KEY, HOME_VARIABLE, MARKER_PATH, PORT_VARIABLE, REGION, SAVE_PATH, Place
from dml.local.running import Running
from dml.local.states import StateMachines

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

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
UNFINISHED = "unfinished"


class RefusedError(Exception):
    """The server does not start; the message says why and what to do."""


def check_environment(environment: Mapping[str, str]) -> None:
    """Raises RefusedError if real AWS credentials are in reach of this process."""
    if environment.get("AWS_ACCESS_KEY_ID", ACCESS_KEY) != ACCESS_KEY:
        raise RefusedError(
            "The embedded cloud does not start with real AWS credentials in its environment: "
            "unset AWS_ACCESS_KEY_ID, or start it with: dml local up"
        )
    for name in ("AWS_PROFILE", "AWS_DEFAULT_PROFILE", "AWS_SESSION_TOKEN", "AWS_WEB_IDENTITY_TOKEN_FILE"):
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
        self._jobs = GlueJobs(place, self._running)
        self._clusters = EmrClusters(place, self._running)
        self._crawlers = GlueCrawlers(place, self._running)
        iam.apply()
        machines, types = StateMachines(place), ResourceTypes(place, self._clusters)
        for part in (self._jobs, self._clusters, self._crawlers, machines, types):
            part.apply()
        for name in ("main", "_build_persistence_save_dict"):
            hooks.existing(self._app, name)
        self._serve = hooks.replace(self._app, "app", self.serve)
        self._save_all = hooks.replace(self._app, "save_all", self.save_all)

    def run(self) -> None:
        """Serves until a signal ends it."""
        self._app.main()

    async def serve(self, scope: Message, receive: Receive, send: Send) -> None:
        """The ASGI application: our two paths, else ministack."""
        if scope["type"] == "lifespan":
            await self._live(scope, receive, send)
        elif scope["type"] == "http" and scope["path"] == MARKER_PATH:
            marker = {"product": "dml", "home": str(self._place.home), "pid": os.getpid(), "ministack": hooks.VERSION}
            await _answer(send, marker)
        elif scope["type"] == "http" and scope["path"] == SAVE_PATH and scope["method"] == "POST":
            self.save_all(self._app._build_persistence_save_dict())
            await _answer(send, {"saved": True})
        else:
            await self._serve(scope, receive, send)

    async def _live(self, scope: Message, receive: Receive, send: Send) -> None:
        async def receive_after_work_ended() -> Message:
            message = await receive()
            if message["type"] == "lifespan.shutdown":
                await asyncio.to_thread(self._running.close, patience=STOP_SECONDS)
            return message  # ministack saves all state now

        async def send_after_recovery(message: Message) -> None:
            if message["type"] == "lifespan.startup.complete":
                for part in (self._jobs, self._clusters, self._crawlers):
                    part.recover()
            await send(message)

        await self._serve(scope, receive_after_work_ended, send_after_recovery)

    def save_all(self, parts: Mapping[str, Callable[[], Any]]) -> None:
        """Writes all state but objects. Runs on the event loop, so that no request changes it meanwhile."""
        unfinished = self._place.state / UNFINISHED
        self._place.state.mkdir(parents=True, exist_ok=True)
        unfinished.touch()
        self._save_all({name: _steady(read) for name, read in parts.items()})
        unfinished.unlink()


def main() -> None:
    """Starts the server and returns when it has ended."""
    try:
        check_environment(os.environ)
        place = Place.of_this_process()
        discard_half_state(place)
        os.environ.update(SETTINGS, STATE_DIR=str(place.state), S3_DATA_DIR=str(place.objects))
        sys.argv = sys.argv[:1]
        extension = Extension(place)
    except (RefusedError, hooks.HookError) as error:
        print(error, file=sys.stderr)
        sys.exit(1)
    extension.run()


def discard_half_state(place: Place) -> None:
    """State that was not written to its end is worth nothing: start clean rather than with half of it."""
    if (place.state / UNFINISHED).exists():
        print("The embedded cloud ended while it saved its state: it starts empty.", file=sys.stderr)
        for folder in (place.state, place.objects):
            shutil.rmtree(folder, ignore_errors=True)


def _steady(read: Callable[[], Any]) -> Callable[[], Any]:
    """Reads a part of the state again if a running execution changed it meanwhile."""

    def call() -> Any:
        for _ in range(50):
            try:
                return read()
            except RuntimeError:  # dictionary changed size during iteration
                time.sleep(0.01)
        return read()

    return call


async def _answer(send: Send, document: Mapping[str, Any]) -> None:
    body = json.dumps(document).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})


if __name__ == "__main__":
    main()
