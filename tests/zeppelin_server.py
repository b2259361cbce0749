"""A stand-in for what Zeppelin's REST API does of logins, one interpreter's settings, and notes that are run.

The forms of its answers are those of Zeppelin 0.11's own documents and of a server that was run: an envelope of status,
message and body, properties as objects, a change that restarts the interpreter and with it all sessions, a redirection
for who has not logged in, a run that is asked for and looked after.
"""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs

PASSWORD = "opensesame"
SESSION = "3f2a"


class Server:
    """Zeppelin's settings of one interpreter, its notes, and how often sessions were ended.

    `old`: notes with results of a former run, which their copies have as well, as Zeppelin's. `keeps`: it deletes none.
    `password`: of the user analyst, '' if it asks for no login. `running`: notes that run, by id. `fails`: what a
    paragraph with this text is going to say; `hangs`: the text of one that does not end.
    """

    def __init__(self, password: str = "") -> None:
        self.setting: dict[str, Any] = fresh()
        self.running: list[str] = []
        self.restarts = 0
        self.forgets = False
        self.broken = ""
        self.password = password
        self.paths = {"2AAA": "/penguins/1 Start here", "2BBB": "/penguins/2 Explore"}
        self.texts = {note: ["%md\n# Hello", "%spark.pyspark\nprint(1)"] for note in self.paths}
        self.states: dict[str, list[str]] = {}
        self.old = {"2AAA", "2BBB"}
        self.keeps = False
        self.fails: dict[str, str] = {}
        self.hangs = ""
        self.asked: list[tuple[str, str]] = []

    def answer(self, method: str, path: str, told: Any, cookie: str) -> tuple[int, Any]:
        self.asked.append((method, path))
        if self.broken:
            return 500, {"status": "INTERNAL_SERVER_ERROR", "message": self.broken}
        if (method, path) == ("GET", "/api/version"):
            return 200, {"status": "OK", "body": {"version": "0.11.1"}}
        if (method, path) == ("POST", "/api/login"):
            let_in = told == {"userName": ["analyst"], "password": [self.password]}
            return (
                (200, {"status": "OK", "body": {"principal": "analyst"}}) if let_in else (403, {"status": "FORBIDDEN"})
            )
        if self.password and f"JSESSIONID={SESSION}" not in cookie:
            return 302, ""
        found = self.of_notes(method, path.removeprefix("/api"), told)
        return (404, {"status": "NOT_FOUND"}) if found is None else (200, {"status": "OK", "body": found})

    def of_notes(self, method: str, path: str, told: Any) -> Any:
        place = path.rpartition("/")[2]
        if path == "/interpreter/setting/spark":
            if method == "PUT":
                assert told.keys() == {"properties", "dependencies", "option"}
                self.restarts += 1
                if not self.forgets:
                    self.setting = {**self.setting, **told}
            return self.setting
        if path == "/notebook-repositories/reload":
            return ""
        if path == "/notebook":
            return [{"id": note, "path": where} for note, where in self.paths.items()]
        if path.startswith("/notebook/job/"):
            return self.job(method, place)
        if method == "POST":
            self.paths["2COPY"], self.texts["2COPY"] = told["name"], self.texts[place]
            self.states.pop("2COPY", None)
            self.old |= {"2COPY"} if place in self.old else set()
            return "2COPY"
        if method == "PUT" and place == "clear":
            self.old.discard(path.split("/")[2])
            return ""
        if method == "DELETE":
            if self.keeps:
                return None
            del self.paths[place]
            return ""
        return {"id": place, "paragraphs": self.paragraphs(place)} if place in self.paths else None

    def job(self, method: str, note: str) -> Any:
        if method == "POST":
            assert note == "2COPY", "a note of an analyst's is not run"
            self.states[note] = []
            for text in self.texts[note]:
                self.states[note].append(
                    "RUNNING" if text == self.hangs else "ERROR" if text in self.fails else "FINISHED"
                )
                if self.states[note][-1] != "FINISHED":
                    break
            return ""
        if method == "DELETE":
            self.states[note] = ["ABORT" if state == "RUNNING" else state for state in self.states[note]]
            return ""
        states = self.states.get(note, [])
        return {"isRunning": note in self.running or "RUNNING" in states, "paragraphs": [{"status": s} for s in states]}

    def paragraphs(self, note: str) -> list[dict[str, Any]]:
        states = [*self.states.get(note, []), *["READY"] * len(self.texts[note])]
        ran = "what a former run has said" if note in self.old else ""
        return [
            {
                "title": f"cell {number}",
                "text": text,
                "status": state,
                "results": {"msg": [{"type": "TEXT", "data": self.fails.get(text, "") if state != "READY" else ran}]},
            }
            for number, (text, state) in enumerate(zip(self.texts[note], states, strict=False), 1)
        ]


def fresh() -> dict[str, Any]:
    """As it is on a new node."""
    return {
        "id": "spark",
        "name": "spark",
        "group": "spark",
        "properties": {
            "spark.master": {"name": "spark.master", "value": "yarn", "type": "string"},
            "spark.driver.memory": {"name": "spark.driver.memory", "value": "1g", "type": "string", "description": "d"},
        },
        "dependencies": [],
        "option": {"remote": True, "port": -1, "isExistingProcess": False, "setPermission": False, "owners": []},
    }


@contextmanager
def served(password: str = "") -> Iterator[tuple[Server, int]]:
    """A server with its port on loopback."""
    made = Server(password)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            length = int(self.headers.get("Content-Length") or 0)
            text = self.rfile.read(length).decode()
            form = self.headers.get("Content-Type") == "application/x-www-form-urlencoded"
            told: Any = parse_qs(text) if form else json.loads(text) if text else None
            status, document = made.answer(self.command, self.path, told, self.headers.get("Cookie", ""))
            body = json.dumps(document).encode() if document else b""
            self.send_response(status)
            if status == 302:
                self.send_header("Location", "/api/login")
            if self.path == "/api/login" and status == 200:
                for value in ("deleteMe; Max-Age=0", f"{SESSION}; Path=/; HttpOnly; SameSite=strict"):
                    self.send_header("Set-Cookie", f"JSESSIONID={value}")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        do_PUT = do_POST = do_DELETE = do_GET

        def log_message(self, *_: object) -> None:
            """Nothing is printed."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield made, server.server_address[1]
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
