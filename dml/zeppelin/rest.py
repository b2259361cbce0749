"""Zeppelin's REST API on a port of loopback: its answers, after a login where it asks for one.

How the calls look: Zeppelin 0.11, "Interpreter REST API" and "Notebook REST API"; the login: LoginRestApi of 0.11.1,
which takes a form of `userName` and `password` and answers with Shiro's cookie JSESSIONID.
"""

import http.client
import json
from http.cookies import SimpleCookie
from typing import Any
from urllib.parse import urlencode

from dml.errors import UserError

SILENCE = 20.0  # seconds
COOKIE = "JSESSIONID"
# Who has not logged in is sent to the login (302); what Shiro's filters refuse otherwise has one of the others.
REFUSED = (http.client.FOUND, http.client.UNAUTHORIZED, http.client.FORBIDDEN)


class LoginError(UserError):
    """Zeppelin does not take user and password."""


class Zeppelin:
    """One server. It is asked straight on 127.0.0.1: no proxy of the environment has to do with it."""

    def __init__(self, port: int, user: str = "", password: str = "", *, seconds: float = SILENCE) -> None:
        """`user`: nobody, if it asks for no login. `seconds`: how long it may be silent."""
        self._port = port
        self._user, self._password = user, password
        self._seconds = seconds
        self._session = ""

    @property
    def session(self) -> str:
        """The session's id, which the cookie COOKIE brings. Raises UserError if it is not let in."""
        if not self._session:
            self.login()
        return self._session

    def login(self) -> None:
        """Raises LoginError if it does not take user and password, UserError if it does not answer."""
        form = urlencode({"userName": self._user, "password": self._password})
        answer, text = self._sent("POST", "/login", form, {"Content-Type": "application/x-www-form-urlencoded"})
        if answer.status == http.client.FORBIDDEN:
            raise LoginError(f"Zeppelin does not let {self._user} in: the password is another one.")
        self._document("POST", "/login", answer, text)
        # It begins with deleting the cookie of before, under the same name; the last one counts.
        for header in answer.headers.get_all("Set-Cookie", []):
            if (found := SimpleCookie(header).get(COOKIE)) and found.value != "deleteMe":
                self._session = found.value
        if not self._session:
            raise UserError("Zeppelin has taken the login, but opened no session.")

    @property
    def is_open(self) -> bool:
        """Whether it tells its notes to whoever has not logged in. Raises UserError if it does not say."""
        nobody = Zeppelin(self._port, seconds=self._seconds)
        answer, text = nobody._sent("GET", "/notebook", None, {})
        if answer.status in REFUSED:
            return False
        self._document("GET", "/notebook", answer, text)
        return True

    def asked(self, method: str, path: str, told: Any = None) -> Any:
        """The body of an answer to `path` below /api; {} if it has none. Raises UserError if it refuses."""
        if self._user:
            _ = self.session
        body = None if told is None else json.dumps(told)
        headers = {"Content-Type": "application/json"} if body else {}
        return self._document(method, path, *self._sent(method, path, body, headers)).get("body") or {}

    def _sent(
        self, method: str, path: str, body: str | None, headers: dict[str, str]
    ) -> tuple[http.client.HTTPResponse, str]:
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=self._seconds)
        if self._session:
            headers = {**headers, "Cookie": f"{COOKIE}={self._session}"}
        try:
            connection.request(method, f"/api{path}", body, headers)
            answer = connection.getresponse()
            return answer, answer.read().decode(errors="replace")
        except (OSError, http.client.HTTPException) as error:
            raise UserError(f"Zeppelin does not answer {method} {path} ({error}): it may still be starting.") from None
        finally:
            connection.close()

    def _document(self, method: str, path: str, answer: http.client.HTTPResponse, text: str) -> dict[str, Any]:
        try:
            document = json.loads(text)
        except ValueError:
            document = None
        if answer.status != http.client.OK or not isinstance(document, dict):
            said = document.get("message") if isinstance(document, dict) else text[:200]
            raise UserError(f"Zeppelin answers {method} {path} with {answer.status}: {said or 'nothing'}")
        return document
