"""An EMR step runs this (`dml zeppelin check`): the workbench's own Zeppelin runs a note, and what became of each
paragraph is left as JSON.

It asks as a program on an analyst's machine would, with the environment's login, and first whether it is refused
without. What runs is a copy, which is deleted in the end: a note that was run is an analyst's, and no later deployment
replaces it. How the calls look: Zeppelin 0.11, "Notebook REST API" and "Interpreter REST API".
"""

import argparse
import http.client
import json
import os
import re
import signal
import sys
import time
import uuid
from http.cookies import SimpleCookie
from typing import Any, Callable, Dict, List, Sequence
from urllib.parse import urlencode

import boto3

from jobs.errors import JobError
from jobs.tables import storage

PORT = 8890  # EMR's
SILENCE = 60.0  # seconds
ENDED = ("FINISHED", "ERROR", "ABORT")
FAILED = ("ERROR", "ABORT")
COPY = re.compile(r" \(check [0-9a-f]{8}\)$")  # as a check names its own
BEGINS_WITHIN = 60.0  # seconds from the order to run a note to its first paragraph
TEXT_LIMIT = 2_000
OK = 200


class Server:
    """Zeppelin's REST API on this machine. JobError: there is no answer, or another one than was wanted."""

    def __init__(self, port: int) -> None:
        self._port, self._session = port, ""

    def status(self, path: str) -> int:
        """With which status a question is answered. Raises OSError or HTTPException if it is not."""
        return int(self._answer("GET", path, "", "")[0])

    def log_in(self, login: Dict[str, str]) -> None:
        form = urlencode({"userName": login["user"], "password": login["password"]})
        status, text = self._answer("POST", "/login", form, "application/x-www-form-urlencoded")
        if status != OK or not self._session:
            raise JobError(
                f"Zeppelin does not take the login of this environment's secret (it answers {status}): a secret that "
                "was changed counts for workbenches that start afterwards. Start a new one: dml pause, dml resume."
            )
        _body("POST /login", status, text)

    def asked(self, method: str, path: str, told: Any = None) -> Any:
        """The body of an answer."""
        body = "" if told is None else json.dumps(told)
        try:
            status, text = self._answer(method, path, body, "application/json" if body else "")
        except (OSError, http.client.HTTPException) as error:
            raise JobError(f"Zeppelin does not answer {method} {path}: {error}") from error
        return _body(f"{method} {path}", status, text)

    def _answer(self, method: str, path: str, body: str, kind: str) -> Any:
        headers = {**({"Content-Type": kind} if kind else {}), **({"Cookie": self._session} if self._session else {})}
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=SILENCE)
        try:
            connection.request(method, f"/api{path}", body or None, headers)
            answer = connection.getresponse()
            text = answer.read().decode(errors="replace")
        finally:
            connection.close()
        for name, value in answer.getheaders():
            cookie: Any = SimpleCookie(value) if name.lower() == "set-cookie" else {}
            # It begins with deleting the cookie of before, under the same name; the last one counts.
            if path == "/login" and "JSESSIONID" in cookie and cookie["JSESSIONID"].value != "deleteMe":
                self._session = f"JSESSIONID={cookie['JSESSIONID'].value}"
        return answer.status, text


def _body(asked: str, status: int, text: str) -> Any:
    try:
        document = json.loads(text)
    except ValueError:
        document = None
    if status != OK or not isinstance(document, dict):
        said = document.get("message") if isinstance(document, dict) else text[:200]
        raise JobError(f"Zeppelin answers {asked} with {status}: {said or 'nothing'}")
    return document.get("body")


def build_parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(prog="zeppelin.py", description=__doc__, allow_abbrev=False)
    made.add_argument("--login", required=True, help="the ARN of the secret with user and password")
    made.add_argument("--region", required=True, help="the AWS region of secret and bucket")
    made.add_argument("--note", required=True, help="/FOLDER/NAME of the note")
    made.add_argument("--report", required=True, help="s3://BUCKET/KEY of the JSON that is left")
    made.add_argument("--port", type=int, default=PORT, help="Zeppelin's port on this machine")
    made.add_argument("--seconds", type=float, default=1800, help="how long the note may run")
    return made


def main(argv: Sequence[str]) -> bool:
    """Whether Zeppelin is as it should be, and the note ran to its end. The report says so too, whatever happens."""
    told = build_parser().parse_args(argv)
    report: storage.Json = {"note": told.note, "passed": False, "error": "", "paragraphs": []}
    started = time.monotonic()
    signal.signal(signal.SIGTERM, _ended_from_outside)
    try:
        secret = boto3.client("secretsmanager", region_name=told.region).get_secret_value(SecretId=told.login)
        check(Server(told.port), json.loads(secret["SecretString"]), told.note, told.seconds, report)
    except JobError as error:
        report["error"] = str(error)
    except Exception as error:  # the report says it, and so does the step
        report["error"] = f"{type(error).__name__}: {error}"
        raise
    finally:
        report["seconds"] = round(time.monotonic() - started, 1)
        storage.write_json(boto3.client("s3", region_name=told.region), told.report, report)
        print(json.dumps(report, indent=2), flush=True)
    return bool(report["passed"])


def _ended_from_outside(*_: object) -> None:
    """An interruption as any error, so that the copy is deleted and the report written; another one ends it at once."""
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    raise JobError("The check was ended from outside (SIGTERM).")


def check(server: Server, login: Dict[str, str], note: str, seconds: float, report: storage.Json) -> None:
    """Fills the report: `version`, `paragraphs` (title, status, error), `passed`, and `left` if the copy could not be
    deleted. Raises JobError."""
    until = time.monotonic() + seconds
    report["version"] = _version(server, until)
    if server.status("/notebook") == OK:
        raise JobError(
            "Zeppelin answers whoever asks, without a login: on this node cluster/zeppelin.sh had no effect. Until "
            "that is mended, let nobody open a tunnel to it: dml pause ends the workbench."
        )
    server.log_in(login)
    server.asked("GET", "/notebook-repositories/reload")
    notes = {one.get("path", ""): one["id"] for one in server.asked("GET", "/notebook") or []}
    if note not in notes:
        there = ", ".join(sorted(notes)) or "none"
        raise JobError(
            f"Zeppelin has no note {note}. It has: {there}. Notes of a dataset that was deployed after the workbench "
            "started come with its next start: dml pause, dml resume."
        )
    _require_peace(server, notes)
    for path in filter(COPY.search, notes):  # of a check that was ended before it could do so
        server.asked("DELETE", f"/notebook/{notes[path]}")
    name = f"{note} (check {uuid.uuid4().hex[:8]})"
    copy = server.asked("POST", f"/notebook/{notes[note]}", {"name": name})
    try:
        server.asked("PUT", f"/notebook/{copy}/clear")  # it has the results of the note
        if not _paragraphs(server, copy):
            raise JobError(f"The note {note} has no paragraph that could be run.")
        server.asked("POST", f"/notebook/job/{copy}")  # no body: Zeppelin fails by an empty one
        in_time = _ended(server, copy, until)
        if not in_time:
            server.asked("DELETE", f"/notebook/job/{copy}")
        report["paragraphs"] = [told_of(one) for one in _paragraphs(server, copy)]
        if not in_time:
            raise JobError(f"The note has not come to its end within {seconds:.0f} seconds, and was stopped.")
    finally:
        if left := _taken_away(server, name, copy):
            report["left"] = left
    report["passed"] = all(one["status"] == "FINISHED" for one in report["paragraphs"])


def _paragraphs(server: Server, note: str) -> List[Dict[str, Any]]:
    """Those that a run of the note runs."""
    return [
        one
        for one in server.asked("GET", f"/notebook/{note}")["paragraphs"]
        if one.get("config", {}).get("enabled", True) and str(one.get("text") or "").strip()
    ]


def _taken_away(server: Server, name: str, copy: str) -> str:
    """Deletes the copy; what it is left for, '' if it is gone. Raises no JobError: another may be on its way."""
    try:
        notes = {one.get("path", ""): one["id"] for one in server.asked("GET", "/notebook") or []}
        _require_peace(server, {path: note for path, note in notes.items() if note != copy})
        server.asked("DELETE", f"/notebook/{copy}")
    except JobError as error:
        return f"The copy {name} is left, for the next check to delete: {error}"
    return ""


def _version(server: Server, until: float) -> str:
    """Zeppelin's, which it tells everybody; a starting one is waited for."""

    def answers() -> bool:
        try:
            return server.status("/version") == OK
        except (OSError, http.client.HTTPException):
            return False

    if not _comes_true(answers, until):
        raise JobError(
            "Zeppelin does not answer on this node. Without a login it does not start: systemctl status zeppelin says "
            "why, and so may /var/log/zeppelin and the log of the bootstrap action."
        )
    return str(server.asked("GET", "/version").get("version", ""))


def _require_peace(server: Server, notes: Dict[str, str]) -> None:
    """Deleting a note ends the session that its interpreter has for it. Where each note has a Python of its own that is
    its own alone; else a note that runs would be ended. A check's copies are no notes of anybody's. Raises JobError."""
    setting = server.asked("GET", "/interpreter/setting/spark") or {}
    if setting.get("option", {}).get("perNote") == "scoped":
        return
    for path, note in sorted((path, note) for path, note in notes.items() if not COPY.search(path)):
        if (server.asked("GET", f"/notebook/job/{note}") or {}).get("isRunning"):
            raise JobError(
                f"{path} runs, and all notes have one Python here: the check would end it. Open Zeppelin once "
                "(dml zeppelin), which sets that otherwise, or check again later."
            )


def _ended(server: Server, note: str, until: float) -> bool:
    begun, parent = time.monotonic(), os.getppid()

    def ended() -> bool:
        if os.getppid() != parent:  # a SIGTERM to spark-submit does not come to its Python, which would run on
            raise JobError("The check was ended from outside: spark-submit, which it belongs to, is gone.")
        told = server.asked("GET", f"/notebook/job/{note}")
        states = [one.get("status") for one in told.get("paragraphs", [])]
        if told.get("isRunning") or any(state in ("PENDING", "RUNNING") for state in states):
            return False
        return any(state in ENDED for state in states) or time.monotonic() > begun + BEGINS_WITHIN

    return _comes_true(ended, until)


def _comes_true(condition: Callable[[], bool], until: float, every: float = 2.0) -> bool:
    while not condition():
        if time.monotonic() + every > until:
            return False
        time.sleep(every)
    return True


def told_of(paragraph: Dict[str, Any]) -> Dict[str, str]:
    """title, status, and error: of one that failed the last line that it says, as Python's tracebacks have it."""
    said: List[str] = [
        line
        for one in (paragraph.get("results") or {}).get("msg", [])
        if one.get("type") == "TEXT"
        for line in str(one.get("data", "")).splitlines()
        if line.strip()
    ]
    status = str(paragraph.get("status", ""))
    failed = status in FAILED and bool(said)
    return {
        "title": str(paragraph.get("title") or "text"),
        "status": status,
        "error": said[-1][:TEXT_LIMIT] if failed else "",
    }


if __name__ == "__main__":
    sys.exit(0 if main(sys.argv[1:]) else 1)
