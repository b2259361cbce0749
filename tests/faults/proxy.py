"""An HTTP proxy on loopback in front of the embedded cloud that does to some requests what networks and S3 do."""

import http.client
import re
import select
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Literal
from urllib.parse import parse_qs, urlsplit

from ministack.core import sigv4

ALWAYS = 10**6
SLOW_SECONDS = 1.5
HELD_SECONDS = 30.0  # longer than any limit that a test sets, and an end for a client that has none
BUSY = "<Error><Code>{code}</Code><Message>{message}</Message></Error>"
ANSWERS = {
    503: BUSY.format(code="SlowDown", message="Please reduce your request rate."),
    500: BUSY.format(code="InternalError", message="We encountered an internal error. Please try again."),
}


@dataclass
class Fault:
    """What happens to the first `times` requests of this method whose path (with query) holds `path`.

    A number is the status of the answer; "cut" is the true answer without its second half; "slow" is the true answer,
    late; "held" and "stuck" are the true answer, of which nothing or only the first half comes until the client hangs
    up; a function is called when the request has been carried out, before the answer goes back.
    """

    method: str
    path: str
    what: Literal[500, 503, "cut", "slow", "held", "stuck"] | Callable[[], None]
    times: int = ALWAYS
    seen: int = 0


class Proxy(ThreadingHTTPServer):
    """Listens on a free port. `faults` may be changed while it runs.

    It signs anew what it passes on, with `secrets` by the ids of access keys: the cloud answers to its own name only.
    """

    daemon_threads = True
    request_queue_size = 128

    def __init__(self, endpoint: str, secrets: Mapping[str, str]) -> None:
        super().__init__(("127.0.0.1", 0), Passage)
        self.origin = urlsplit(endpoint)
        self.secrets = secrets
        self.faults: list[Fault] = []
        self.held_seconds = HELD_SECONDS
        self._lock = threading.Lock()

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def fault_of(self, method: str, path: str) -> Fault | None:
        with self._lock:
            for fault in self.faults:
                if fault.method == method and fault.seen < fault.times and re.search(fault.path, path):
                    fault.seen += 1
                    return fault
        return None


class Passage(BaseHTTPRequestHandler):
    """One client's connection."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = 64 * 1024
    server: Proxy

    def _pass(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        fault = self.server.fault_of(self.command, self.path)
        what = fault.what if fault else None
        if isinstance(what, int):
            self._answer(what, ANSWERS[what].encode(), [("Content-Type", "application/xml")])
            return
        if what == "slow":
            threading.Event().wait(SLOW_SECONDS)
        status, headers, answer = self._ask(body)
        if callable(what):
            what()
        if what == "held" and self._hung_up():
            return
        self._answer(status, answer, headers, what)

    do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = _pass

    def _ask(self, body: bytes) -> tuple[int, list[tuple[str, str]], bytes]:
        connection = http.client.HTTPConnection(str(self.server.origin.hostname), self.server.origin.port, timeout=60)
        try:
            connection.request(self.command, self.path, body, self._signed_anew(body))
            answer = connection.getresponse()
            return answer.status, answer.getheaders(), answer.read()
        finally:
            connection.close()

    def _signed_anew(self, body: bytes) -> dict[str, str]:
        given = {name.lower(): value for name, value in self.headers.items() if name.lower() != "expect"}
        given["host"] = self.server.origin.netloc
        parts, split = sigv4.parse_header_signature(given), urlsplit(self.path)
        assert isinstance(parts, sigv4.HeaderSignature), parts
        query = parse_qs(split.query, keep_blank_values=True)
        _, text = sigv4.header_signing_documents(parts, self.command, split.path, query, given, body)
        secret = self.server.secrets[parts.access_key_id]
        signature = sigv4.calculate_signature(secret, parts.date_stamp, parts.region, parts.service, text)
        return given | {"authorization": given["authorization"].replace(parts.signature, signature)}

    def _answer(self, status: int, body: bytes, headers: list[tuple[str, str]], what: object = None) -> None:
        own = {"content-length", "transfer-encoding", "connection", "date", "server"}
        length = {name.lower(): value for name, value in headers}.get("content-length", str(len(body)))
        self.send_response(status)
        for name, value in headers:
            if name.lower() not in own:
                self.send_header(name, value)
        self.send_header("Content-Length", length if self.command == "HEAD" else str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            half = len(body) // 2 if what in ("cut", "stuck") else len(body)
            self.wfile.write(body[:half])
            self.wfile.flush()
            if what == "stuck" and not self._hung_up():
                self.wfile.write(body[half:])
        self.wfile.flush()
        self.close_connection = self.close_connection or what == "cut"

    def _hung_up(self) -> bool:
        """Waits until the client is gone, which it is as soon as it gives up on an answer; False if it is patient."""
        gone, _, _ = select.select([self.connection], [], [], self.server.held_seconds)
        self.close_connection = self.close_connection or bool(gone)
        return bool(gone)

    def log_message(self, format: str, *args: Any) -> None:
        """Says nothing: pytest shows what failed."""
