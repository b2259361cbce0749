"""What the step of `dml zeppelin check` finds of a workbench's Zeppelin, which tests/zeppelin_server.py stands in for.

tests/local/test_emr.py has it run as a step.
"""

import json
import os
import re
import signal
import time
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from jobs import zeppelin
from jobs.errors import JobError
from jobs.tables import storage
from tests.zeppelin_server import PASSWORD, Server, served

LOGIN = {"user": "analyst", "password": PASSWORD}
NOTE = "/penguins/1 Start here"


@pytest.fixture
def closed(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Server, int]]:
    """A server that asks for a login, and a clock that waits no longer than it must."""
    slept = time.sleep
    monkeypatch.setattr(time, "sleep", lambda _seconds: slept(0.01))
    with served(PASSWORD) as made:
        yield made


def checked(port: int, note: str = NOTE, seconds: float = 30.0, login: dict[str, str] = LOGIN) -> dict[str, Any]:
    report: dict[str, Any] = {"passed": False}
    zeppelin.check(zeppelin.Server(port), login, note, seconds, report)
    return report


def test_a_copy_of_the_note_should_be_run_told_and_deleted(closed: tuple[Server, int]) -> None:
    server, port = closed
    report = checked(port)
    assert (report["version"], report["passed"]) == ("0.11.1", True)
    assert [(one["title"], one["status"], one["error"]) for one in report["paragraphs"]] == [
        ("cell 1", "FINISHED", ""),
        ("cell 2", "FINISHED", ""),
    ]
    assert ("POST", "/api/notebook/job/2COPY") in server.asked
    assert server.paths.keys() == {"2AAA", "2BBB"}


def test_a_paragraph_that_fails_should_be_told_with_its_reason_and_those_behind_it(closed: tuple[Server, int]) -> None:
    server, port = closed
    bad = "%spark.pyspark\n1 / 0"
    server.texts["2AAA"] = ["%md\n# Hello", bad, "%spark.pyspark\nprint(1)"]
    server.fails = {bad: "Traceback (most recent call last):\n  ...\nZeroDivisionError: division by zero\n\n"}
    report = checked(port)
    assert not report["passed"]
    assert [(one["status"], one["error"]) for one in report["paragraphs"]] == [
        ("FINISHED", ""),
        ("ERROR", "ZeroDivisionError: division by zero"),
        ("READY", ""),
    ]
    assert "2COPY" not in server.paths
    assert ("PUT", "/api/notebook/2COPY/clear") in server.asked, "nobody takes former results for those of the check"


def test_a_paragraph_that_was_not_run_should_not_be_told_with_what_it_said_before() -> None:
    results = {"msg": [{"type": "TEXT", "data": "41 rows"}]}
    told = zeppelin.told_of({"title": "Rows", "status": "READY", "results": results})
    assert told == {"title": "Rows", "status": "READY", "error": ""}


def test_a_note_with_nothing_to_run_should_not_have_passed(closed: tuple[Server, int]) -> None:
    server, port = closed
    server.texts["2AAA"] = ["", "  \n"]
    with pytest.raises(JobError, match=r"The note /penguins/1 Start here has no paragraph that could be run"):
        checked(port)
    assert "2COPY" not in server.paths


def test_a_copy_that_cannot_be_deleted_should_be_named_and_the_first_reason_stay(closed: tuple[Server, int]) -> None:
    server, port = closed
    server.keeps = True
    report = checked(port)
    assert report["passed"]
    assert re.match(
        r"The copy /penguins/1 Start here \(check \w{8}\) is left, .*: Zeppelin answers DELETE .* 404", report["left"]
    )
    del server.paths["2COPY"]
    server.texts["2AAA"] = [""]
    with pytest.raises(JobError, match="has no paragraph"):
        checked(port)


def test_a_note_that_was_started_meanwhile_should_not_be_ended_by_deleting_the_copy(
    closed: tuple[Server, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    server, port = closed
    run = server.job

    def started(method: str, note: str) -> Any:
        server.running = ["2BBB"] if (method, note) == ("POST", "2COPY") else server.running
        return run(method, note)

    monkeypatch.setattr(server, "job", started)
    report = checked(port)
    assert report["passed"]
    assert "is left, for the next check to delete: /penguins/2 Explore runs" in report["left"]
    assert "2COPY" in server.paths


def test_copies_of_a_check_that_was_ended_should_be_deleted_by_the_next(closed: tuple[Server, int]) -> None:
    server, port = closed
    for note, path in {"2CCC": f"{NOTE} (check 01234567)", "2DDD": "/mine (check it)"}.items():
        server.paths[note], server.texts[note] = path, ["%md\nx"]
    server.running = ["2CCC"]
    assert checked(port)["passed"]
    assert server.paths.keys() == {"2AAA", "2BBB", "2DDD"}


def test_a_check_that_is_ended_should_delete_its_copy_and_leave_its_report(
    closed: tuple[Server, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """EMR's TERMINATE_PROCESS is a SIGTERM."""
    server, port = closed
    run, ended, written = server.job, [signal.SIGTERM], []

    def interrupted(method: str, note: str) -> Any:
        if (method, note) == ("GET", "2COPY") and ended:
            os.kill(os.getpid(), ended.pop())
        return run(method, note)

    secrets = SimpleNamespace(get_secret_value=lambda SecretId: {"SecretString": json.dumps(LOGIN)})  # boto3's name
    monkeypatch.setattr("boto3.client", lambda _service, region_name: secrets)
    monkeypatch.setattr(storage, "write_json", lambda _s3, where, report: written.append((where, report["error"])))
    server.hangs = "%spark.pyspark\nprint(1)"
    monkeypatch.setattr(server, "job", interrupted)
    before = signal.getsignal(signal.SIGTERM)
    told = {"--login": "arn", "--region": "eu-west-1", "--note": NOTE, "--report": "s3://b/k", "--port": str(port)}
    try:
        assert not zeppelin.main([word for pair in told.items() for word in pair])
    finally:
        signal.signal(signal.SIGTERM, before)
    assert written == [("s3://b/k", "The check was ended from outside (SIGTERM).")]
    assert "2COPY" in server.states
    assert "2COPY" not in server.paths


def test_a_check_whose_spark_submit_was_ended_should_delete_its_copy(
    closed: tuple[Server, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Spark 3.5.6 does not hand a SIGTERM on to the Python that it has started."""
    server, port = closed
    server.hangs = "%spark.pyspark\nprint(1)"
    parents = iter([4711, 4711])
    monkeypatch.setattr(os, "getppid", lambda: next(parents, 1))
    with pytest.raises(JobError, match="ended from outside: spark-submit, which it belongs to, is gone"):
        checked(port)
    assert "2COPY" in server.states
    assert "2COPY" not in server.paths


def test_a_zeppelin_that_asks_for_no_login_should_be_told_and_nothing_be_run() -> None:
    with served("") as (server, port):
        with pytest.raises(JobError, match=r"Zeppelin answers whoever asks, without a login: .*dml pause"):
            checked(port)
        assert ("POST", "/api/notebook/job/2COPY") not in server.asked


def test_a_login_that_is_another_one_should_be_told(closed: tuple[Server, int]) -> None:
    with pytest.raises(JobError, match=r"does not take the login .*it answers 403.*dml pause, dml resume"):
        checked(closed[1], login={"user": "analyst", "password": "former"})


def test_a_note_that_is_not_there_should_be_told_with_those_that_are(closed: tuple[Server, int]) -> None:
    with pytest.raises(
        JobError,
        match=r"no note /penguins/9 Fly\. It has: /penguins/1 Start here, /penguins/2 Explore\. .*dml pause, dml",
    ):
        checked(closed[1], note="/penguins/9 Fly")


def test_a_note_that_does_not_end_should_be_stopped_and_told(closed: tuple[Server, int]) -> None:
    server, port = closed
    server.hangs = "%spark.pyspark\nprint(1)"
    with pytest.raises(JobError, match=r"has not come to its end within 2 seconds, and was stopped"):
        checked(port, seconds=2.0)
    assert server.states["2COPY"] == ["FINISHED", "ABORT"]
    assert "2COPY" not in server.paths


def test_somebody_elses_note_should_not_be_ended_where_all_have_one_python(closed: tuple[Server, int]) -> None:
    server, port = closed
    server.running = ["2BBB"]
    with pytest.raises(JobError, match=r"/penguins/2 Explore runs, and all notes have one Python here"):
        checked(port)
    assert "2COPY" not in server.texts
    server.setting["option"]["perNote"] = "scoped"
    assert checked(port)["passed"]


def test_a_zeppelin_that_does_not_answer_should_be_told_with_where_to_look(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "sleep", lambda _seconds: None)
    with pytest.raises(JobError, match=r"does not answer on this node\. Without a login it does not start: systemctl"):
        checked(1, seconds=0.0)
