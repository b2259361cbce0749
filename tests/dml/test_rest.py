"""The client of Zeppelin's REST API, by a stand-in for its login (LoginRestApi and Shiro's cookies of 0.11.1)."""

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs

import pytest

from dml.errors import UserError
from dml.zeppelin.rest import Zeppelin


class Handler(BaseHTTPRequestHandler):
    """Lets in who has told the password; a wrong one is answered as Zeppelin does, with 403 and its envelope."""

    seen: list[Any]

    def do_POST(self) -> None:
        told = self.rfile.read(int(self.headers.get("Content-Length") or 0)).decode()
        if self.path == "/api/login":
            if parse_qs(told) != {"userName": ["analyst"], "password": ["a&b=ü"]}:
                return self._answer(403, {"status": "FORBIDDEN", "message": ""})
            cookies = ["JSESSIONID=deleteMe; Path=/; Max-Age=0", "JSESSIONID=s-1; Path=/; HttpOnly"]
            return self._answer(200, {"status": "OK", "body": {"principal": "analyst"}}, cookies)
        return self.do_GET(told)

    def do_GET(self, told: str = "") -> None:
        self.seen.append((self.command, self.path, told and json.loads(told)))
        if self.headers.get("Cookie") != "JSESSIONID=s-1":
            return self._answer(401, {"status": "UNAUTHORIZED", "message": "log in"})
        if self.path == "/api/broken":
            return self._answer(500, "no JSON")
        return self._answer(200, {"status": "OK", "body": self.path})

    def _answer(self, status: int, document: Any, cookies: list[str] | None = None) -> None:
        body = document.encode() if isinstance(document, str) else json.dumps(document).encode()
        self.send_response(status)
        for cookie in cookies or []:
            self.send_header("Set-Cookie", cookie)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Nothing."""


@pytest.fixture
def port() -> Iterator[int]:
    Handler.seen = []
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server.server_port
    server.shutdown()
    thread.join()
    server.server_close()


def test_a_login_should_come_before_the_first_question_and_hold_for_all(port: int) -> None:
    zeppelin = Zeppelin(port, "analyst", "a&b=ü")
    assert zeppelin.asked("GET", "/notebook") == "/api/notebook"
    assert zeppelin.asked("POST", "/notebook/import", {"name": "x"}) == "/api/notebook/import"
    assert Handler.seen == [("GET", "/api/notebook", ""), ("POST", "/api/notebook/import", {"name": "x"})]


@pytest.mark.parametrize(
    ("user", "password", "path", "said"),
    [
        ("analyst", "another", "/notebook", "Zeppelin does not let analyst in"),
        ("", "", "/notebook", "Zeppelin answers GET /notebook with 401: log in"),
        ("analyst", "a&b=ü", "/broken", "Zeppelin answers GET /broken with 500: no JSON"),
    ],
)
def test_a_refusal_should_be_told_in_a_sentence(port: int, user: str, password: str, path: str, said: str) -> None:
    with pytest.raises(UserError, match=said):
        Zeppelin(port, user, password).asked("GET", path)


def test_a_server_that_is_not_there_should_be_said_to_be_silent() -> None:
    with pytest.raises(UserError, match=r"does not answer GET /version \(.*\): it may still be starting"):
        Zeppelin(1).asked("GET", "/version")
