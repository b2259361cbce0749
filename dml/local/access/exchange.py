"""One request and its answer: a client is told to go on when its body is wanted, and is heard out when it is not.

Sources: S3 API reference, "Common Request Headers" (Expect: a message that is rejected by its headers sends no body);
RFC 9110, 10.1.1 (either 100 or the answer itself) and RFC 9112, 9.6 (who closes while bytes are on their way has the
answer lost: read on for a while). botocore expects so for each file that it sends, and waits a second.
"""

import asyncio
from collections.abc import Awaitable, Callable, MutableMapping
from contextvars import ContextVar
from typing import Any

from dml.local import hooks

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

LINGER = 30.0  # seconds, which is nginx's lingering_time; nothing of what is read then is kept

# What tells the client of the request at hand to go on, if it waits for that.
_go_on: ContextVar[Callable[[], Awaitable[None]] | None] = ContextVar("dml_go_on", default=None)


def apply() -> None:
    """Has hypercorn leave it to us to say 100 Continue, which it says to whoever asks."""
    app = hooks.module("app")
    protocol, h11 = hooks.existing(app, "_H11Protocol"), hooks.existing(app, "_h11")
    hooks.existing(protocol, "_send_h11_event")
    create = hooks.existing(protocol, "_create_stream")

    async def create_stream(connection: Any, request: Any) -> None:
        async def go_on() -> None:
            said = h11.InformationalResponse(status_code=100, headers=connection.config.response_headers("h11"))
            await connection._send_h11_event(said)

        waits = connection.connection.they_are_waiting_for_100_continue
        if waits:
            connection.connection.client_is_waiting_for_100_continue = False
        token = _go_on.set(go_on if waits else None)  # which the task that answers has from here
        try:
            await create(connection, request)
        finally:
            _go_on.reset(token)

    hooks.replace(protocol, "_create_stream", create_stream)


class Exchange:
    """What a request is received by and answered by."""

    def __init__(self, scope: Message, receive: Receive, send: Send) -> None:
        self._receive, self._send, self._go_on = receive, send, _go_on.get()
        names = {name.lower() for name, _ in scope["headers"]}
        self._taken = not names & {b"content-length", b"transfer-encoding"}

    async def receive(self) -> Message:
        """The next of the body; a client that waits is told to go on."""
        if self._go_on is not None:
            go_on, self._go_on = self._go_on, None
            await go_on()
        message = await self._receive()
        if message["type"] != "http.request" or not message.get("more_body", False):
            self._taken = True
        return message

    async def send(self, message: Message) -> None:
        """The next of the answer; after one that has not waited for the body the connection is over."""
        if not self._taken and message["type"] == "http.response.start":
            message = {**message, "headers": [*message.get("headers", []), (b"connection", b"close")]}
        last = message["type"] == "http.response.body" and not message.get("more_body", False)
        if last and not self._taken and self._go_on is None:
            await self._send({**message, "more_body": True})
            await self._hear_out()
            message = {"type": "http.response.body", "body": b""}
        await self._send(message)

    async def _hear_out(self) -> None:
        try:
            async with asyncio.timeout(LINGER):
                while not self._taken:
                    await self.receive()
        except TimeoutError:
            return  # it is told the answer again by nobody; who sends on has chosen not to read
