"""How Spark's interpreter is set through the tunnel, by a stand-in for what Zeppelin's REST API does of it.

The forms of its answers are those of Zeppelin 0.11's own documents and of a server that was run: an envelope of status,
message and body, properties as objects, a change that restarts the interpreter and with it all sessions.
"""

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from dml.errors import UserError
from dml.zeppelin import interpreter


class Server:
    """Zeppelin's settings of one interpreter, its notes, and how often sessions were ended."""

    def __init__(self) -> None:
        self.setting: dict[str, Any] = fresh()
        self.running: list[str] = []
        self.restarts = 0
        self.forgets = False
        self.broken = ""

    def answer(self, method: str, path: str, told: Any) -> tuple[int, Any]:
        if self.broken:
            return 500, {"status": "INTERNAL_SERVER_ERROR", "message": self.broken}
        if (method, path) == ("GET", "/api/interpreter/setting/spark"):
            return 200, {"status": "OK", "body": self.setting}
        if (method, path) == ("PUT", "/api/interpreter/setting/spark"):
            assert told.keys() == {"properties", "dependencies", "option"}
            self.restarts += 1
            if not self.forgets:
                self.setting = {**self.setting, **told}
            return 200, {"status": "OK", "body": self.setting}
        if (method, path) == ("GET", "/api/notebook"):
            return 200, {"status": "OK", "body": [{"id": one, "path": f"/penguins/{one}"} for one in ("2AAA", "2BBB")]}
        if path.startswith("/api/notebook/job/"):
            return 200, {"status": "OK", "body": {"isRunning": path.rpartition("/")[2] in self.running}}
        return 404, {"status": "NOT_FOUND"}


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


@pytest.fixture
def zeppelin() -> Iterator[tuple[Server, int]]:
    served = Server()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            length = int(self.headers.get("Content-Length") or 0)
            told = json.loads(self.rfile.read(length)) if length else None
            status, document = served.answer(self.command, self.path, told)
            body = json.dumps(document).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        do_PUT = do_GET

        def log_message(self, *_: object) -> None:
            """Nothing is printed."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield served, server.server_address[1]
    server.shutdown()
    server.server_close()
    thread.join()


def test_each_note_should_get_a_python_of_its_own_and_the_driver_more_memory_once(zeppelin: tuple[Server, int]) -> None:
    served, port = zeppelin
    before = served.setting
    told = interpreter.arrange(port)
    assert told.startswith("Spark's interpreter is set: perNote = scoped, spark.driver.memory = 2g, ")
    assert served.setting["option"] == {**before["option"], "perNote": "scoped"}
    properties = {name: one["value"] for name, one in served.setting["properties"].items()}
    wanted = {"spark.driver.memory": "2g", "zeppelin.spark.sql.stacktrace": "false"}
    assert properties == {"spark.master": "yarn", **wanted}
    assert served.setting["properties"]["spark.driver.memory"]["description"] == "d", "what else is said of it stays"
    assert interpreter.arrange(port) == ""
    assert served.restarts == 1, "what is set already is not set again: that would end sessions"
    served.setting = fresh()  # a new cluster
    assert interpreter.arrange(port)
    assert served.restarts == 2


def test_a_note_that_runs_should_not_be_ended(zeppelin: tuple[Server, int]) -> None:
    served, port = zeppelin
    served.running = ["2BBB"]
    assert interpreter.arrange(port).startswith("/penguins/2BBB runs: perNote = scoped")
    assert served.restarts == 0
    served.running = []
    assert interpreter.arrange(port)
    assert served.restarts == 1


def test_what_zeppelin_refuses_or_forgets_should_be_told(zeppelin: tuple[Server, int]) -> None:
    served, port = zeppelin
    served.forgets = True
    with pytest.raises(UserError, match=r"Zeppelin has not kept perNote = scoped.*: set it on its own page"):
        interpreter.arrange(port)
    served.broken = "no such interpreter"
    with pytest.raises(UserError, match=r"answers GET /interpreter/setting/spark with 500: no such interpreter"):
        interpreter.arrange(port)


def test_a_zeppelin_that_is_not_there_yet_should_be_told() -> None:
    with pytest.raises(UserError, match=r"does not answer GET /interpreter/setting/spark \(.*\): it may still"):
        interpreter.arrange(1)
