"""The door: what comes from a browser, by another name or unsigned goes no further, whatever service it is for.

A page of any site that is open in a browser on this machine can send requests here, and every account of the machine
can. No service sees a request before it has passed: its Host is the endpoint's own (a name of somebody else's may lead
here too: DNS rebinding), no browser has sent it for a page (Fetch Standard: `Origin`; Fetch Metadata:
`Sec-Fetch-Site`), and it is signed (dml/local/access/signatures.py). The one exception is a bucket's own CORS rules.
"""

import asyncio
import json
import logging
import uuid
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from dml.local import hooks
from dml.local.access.exchange import Exchange, Message, Receive, Send
from dml.local.access.signatures import Claim, RefusedError, Request, Signatures
from dml.local.bodies import Arrived, Coming, arrived, unwritten
from dml.local.credentials import ID

log = logging.getLogger("dml.guard")

App = Callable[[Message, Receive, Send], Awaitable[None]]
Headers = list[tuple[bytes, bytes]]

NAMES = ("127.0.0.1", "localhost")
LARGE = 1024**2  # a body that takes longer to hash than a thread takes to start
SHORT = 64 * 1024
CONTENT = ("partNumber", "uploadId", "x-id")  # what a query may say of a body that is an object's, or a part of one's
CORS = b"access-control-"


class StrangerError(Exception):
    """A request that is not a client's; the message says what is wrong with it."""


class Guard:
    """Lets pass what the owner of the root key, or of a key that has been made here, has sent by a client."""

    def __init__(self, port: int, root: Mapping[str, str]) -> None:
        self._port = port
        self._root = root[ID]
        self._signatures = Signatures(root)
        self._app = hooks.module("app")
        for name in ("_credential_failure", "_routing_params", "_s3_cors_target"):
            hooks.existing(self._app, name)
        for name in ("cors_response_headers", "cors_preflight"):
            hooks.existing(hooks.module("services.s3"), name)

    async def check_caller(self, scope: Message) -> None:
        """Raises StrangerError for what is not a client's request to this endpoint; it may be anybody's client."""
        if scope["type"] != "http":
            raise StrangerError(f"The embedded cloud serves HTTP only, no {scope['type']}.")
        headers: dict[bytes, list[str]] = {}
        for name, value in scope["headers"]:
            headers.setdefault(name.lower(), []).append(value.decode("latin-1"))
        hosts = headers.get(b"host", [])
        if len(hosts) != 1 or not self._is_own(hosts[0]):
            raise StrangerError(
                f"The embedded cloud is http://127.0.0.1:{self._port}, not {' '.join(hosts) or 'nameless'}."
            )
        sites = headers.get(b"sec-fetch-site", [])
        page = b"origin" in headers or any(site != "none" for site in sites) or scope["method"] == "OPTIONS"
        if page and not self._allowed_by_bucket(scope, {n.decode("latin-1"): ",".join(headers[n]) for n in headers}):
            raise StrangerError("The embedded cloud takes no requests from web pages.")

    async def serve(self, scope: Message, receive: Receive, send: Send, app: App, own: Mapping[str, App]) -> None:
        """Answers a request of a client: `own` paths are the root user's, everything else is `app`'s."""
        exchange = Exchange(scope, receive, send)
        receive, send = exchange.receive, exchange.send
        request_id = str(uuid.uuid4())
        try:
            request = Request.of(scope)
        except RefusedError as refused:
            await self._refuse(scope, send, refused, {}, request_id)
            return
        from_page = "origin" in request.headers
        if not from_page:
            send = _without_cors(send)
        if scope["method"] == "OPTIONS":  # of a page that a bucket's rules let in: it carries no signature
            await app(scope, receive, send)
            return
        try:
            claim = self._signatures.claim(request, scope["path"])
        except RefusedError as refused:
            await self._refuse(scope, send, refused, request.headers, request_id, await _short_body(request, receive))
            return
        waits = self._is_of_large_object(request, claim)
        body = self._coming(request, claim, receive) if waits else await self._whole(request, claim, receive)
        if body is None:
            return  # the client has gone
        try:
            await self._answer(scope, receive, send, request, claim, body, app, own, request_id)
        finally:
            if isinstance(body, Arrived | Coming):
                body.close()

    def _is_of_large_object(self, request: Request, claim: Claim) -> bool:
        """Whether it can be decided before a body is taken that is worth it."""
        length = request.headers.get("content-length", "")
        large = "transfer-encoding" in request.headers or (length.isdigit() and int(length) > LARGE)
        return large and claim.is_signed_apart and claim.signature.service == "s3" and self._is_object(request)

    def _coming(self, request: Request, claim: Claim, receive: Receive) -> Coming:
        async def take() -> bytes | None:
            body = await self._whole(request, claim, receive)
            if body is not None and not (isinstance(body, Arrived) and body.error):
                await asyncio.to_thread(claim.check_hash, body)
            return body

        return Coming(int(request.headers.get("content-length", "") or 1), take)

    async def _whole(self, request: Request, claim: Claim, receive: Receive) -> bytes | None:
        """The body: in memory, or in a file if it is an object's and large. None: the client has gone."""
        in_file = claim.signature.service == "s3" and self._is_object(request)
        return await _body(receive, hooks.module("services.s3").DATA_DIR if in_file else "")

    def _is_object(self, request: Request) -> bool:
        """Whether it is PutObject or UploadPart, whose body is nothing but content."""
        other = [name for name in request.query if name not in CONTENT and not name.lower().startswith("x-amz-")]
        host = request.headers.get("host", "").rpartition(":")[0].lower()
        bucket, _, key = request.path.lstrip("/").partition("/")
        return request.method == "PUT" and not other and bool(key if host in NAMES else bucket)

    async def _answer(
        self,
        scope: Message,
        receive: Receive,
        send: Send,
        request: Request,
        claim: Claim,
        body: bytes,
        app: App,
        own: Mapping[str, App],
        request_id: str,
    ) -> None:
        if isinstance(body, Arrived) and body.error:
            log.error("%s could not be written: %s", scope["path"], body.error)
            why = unwritten(scope["path"], body.error)
            status, headers, said = hooks.module("services.s3")._error("InternalError", why, 500)
            await _send(send, status, {**headers, "x-amz-request-id": request_id}, said)
            return
        arrived.set(body if isinstance(body, Arrived | Coming) else None)
        try:
            if isinstance(body, Coming):
                claim.check_signed(body)
            else:
                await (asyncio.to_thread(claim.check, body) if len(body) > LARGE else _now(claim.check, body))
        except RefusedError as refused:
            await self._refuse(scope, send, refused, request.headers, request_id, body)
            return
        if scope["path"] in own:
            if claim.key != self._root:
                await answer(send, 403, {"message": f"{scope['path']} is for the root user only."})
                return
            app = own[scope["path"]]
        elif scope["path"].startswith("/_"):  # ministack's own administration, which asks for no right
            await answer(send, 404, {"message": f"The embedded cloud has no {scope['path']}."})
            return
        await app(scope, _again(body, receive), send)

    def _is_own(self, host: str) -> bool:
        name, _, port = host.lower().rpartition(":")
        # BUCKET.localhost and its like: nobody else can own a name below these two (RFC 6761; not a name at all).
        return port == str(self._port) and any(name == own or name.endswith(f".{own}") for own in NAMES)

    def _allowed_by_bucket(self, scope: Message, headers: Mapping[str, str]) -> bool:
        """Whether it is for a bucket, one of whose CORS rules allows the page's origin just this."""
        target = self._app._s3_cors_target(headers["host"], scope["path"])
        if not target or not headers.get("origin"):
            return False
        if hooks.module("core.router").detect_service(scope["method"], scope["path"], dict(headers), {}) != "s3":
            return False
        s3 = hooks.module("services.s3")
        if scope["method"] == "OPTIONS":
            return bool(s3.cors_preflight(*target, headers)[0] == 200)
        return bool(s3.cors_response_headers(target[0], scope["method"], headers))

    async def _refuse(
        self,
        scope: Message,
        send: Send,
        refused: RefusedError,
        headers: Mapping[str, str],
        request_id: str,
        body: bytes = b"",
    ) -> None:
        """In AWS's words, in the form of the service that the request is for."""
        log.warning("Refused %s %r: %s: %s", scope["method"], scope["path"], refused.code, refused)
        router, evaluator = hooks.module("core.router"), hooks.module("core.iam_evaluator")
        told = self._app._routing_params(scope["method"], scope["path"], dict(headers), body, {})
        # On a thread: for the first service that it has never heard of, ministack reads all models of botocore's, 5 s.
        service = await asyncio.to_thread(router.detect_service, scope["method"], scope["path"], dict(headers), told)
        error = evaluator.AuthError(refused.code, str(refused))
        status, answered, body = self._app._credential_failure(service, "", request_id, error, dict(headers))
        if refused.code == "RequestTimeTooSkewed" and service == "s3":  # S3 says that, and not the way out
            body = body.replace(b"</Message>", f" {refused}</Message>".encode())
        answered = {**answered, "x-amzn-requestid": request_id, "x-amz-request-id": request_id}
        await _send(send, status, answered, b"" if scope["method"] == "HEAD" else body)


async def turn_away(scope: Message, receive: Receive, send: Send, why: StrangerError) -> None:
    """Ends a request that is not a client's, with 403 and one sentence."""
    log.warning("Turned away %s %r: %s", scope.get("method", scope["type"]), scope.get("path", ""), why)
    if scope["type"] == "websocket":
        await receive()
        await send({"type": "websocket.close", "code": 1008})  # before it is accepted: 403
    elif scope["type"] == "http":
        await _send(send, 403, {"Content-Type": "text/plain"}, f"{why}\n".encode())


async def answer(send: Send, status: int, document: Mapping[str, Any]) -> None:
    """A JSON document."""
    await _send(send, status, {"Content-Type": "application/json"}, json.dumps(document).encode())


async def _send(send: Send, status: int, headers: Mapping[str, str], body: bytes) -> None:
    given = {**headers, "Content-Length": str(len(body))}
    encoded = [(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in given.items()]
    await send({"type": "http.response.start", "status": status, "headers": encoded})
    await send({"type": "http.response.body", "body": body})


async def _body(receive: Receive, folder: str = "") -> bytes | None:
    """All that comes; what is larger than LARGE into a file in `folder`, if there is one."""
    large, parts, size = None, [], 0
    while True:
        message = await receive()
        if message["type"] != "http.request":
            if large is not None:
                large.close()
            return None
        parts.append(message.get("body", b""))
        size += len(parts[-1])
        last = not message.get("more_body", False)
        if folder and (size > LARGE or (last and large is not None)):
            large = large if large is not None else await asyncio.to_thread(Arrived, folder)
            await asyncio.to_thread(large.append, b"".join(parts))
            parts, size = [], 0
        if last:
            return large if large is not None else b"".join(parts)


async def _short_body(request: Request, receive: Receive) -> bytes:
    """A form's fields, which may be all that names the service; of a stranger's request no more than that."""
    length = request.headers.get("content-length", "")
    form = request.headers.get("content-type", "").startswith("application/x-www-form-urlencoded")
    if not form or not (length.isascii() and length.isdigit()) or int(length) > SHORT:
        return b""
    return await _body(receive) or b""


async def _now(check: Callable[[bytes], None], body: bytes) -> None:
    check(body)


def _again(body: bytes, receive: Receive) -> Receive:
    """The body once more, for the application; then whatever comes."""
    given = False

    async def once() -> Message:
        nonlocal given
        if given:
            return await receive()
        given = True
        return {"type": "http.request", "body": body, "more_body": False}

    return once


def _without_cors(send: Send) -> Send:
    """ministack adds leave for every page to most of its answers."""

    async def plain(message: Message) -> None:
        if message["type"] == "http.response.start":
            kept: Headers = [one for one in message.get("headers", []) if not one[0].lower().startswith(CORS)]
            message = {**message, "headers": kept}
        await send(message)

    return plain
