"""What an operator reads of a job while a run waits for it."""

from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any, cast

from botocore.exceptions import ClientError

from dml.runs import run
from dml.runs.pipeline import Stage
from dml.runs.progress import sentence, told
from dml.terminal.board import Board

WRITTEN = datetime(2026, 11, 30, 12, tzinfo=UTC)


def document(stage: str = "prepare", **a_pass: Any) -> dict[str, Any]:
    now = {"done": 12, "of": 40, "active": 2, "rows": 3_120_000, "seconds": 30.0, "last": 30.0} | a_pass
    return {"stage": stage, "doing": "reading", "seconds": 41.4, "pass": now, "written": WRITTEN.isoformat()}


def shown(found: dict[str, Any], later: float = 0) -> str:
    return sentence(found, WRITTEN + timedelta(seconds=later))


def test_a_pass_should_be_shown_with_tasks_rows_and_the_time_that_is_left_of_it() -> None:
    assert shown(document()) == "reading: 12 of 40 tasks, 3,120,000 rows read, about 70 s left of this pass"
    assert shown(document(done=2, seconds=20, last=20)).endswith("about 6 min left of this pass")


def test_the_time_that_is_left_should_fall_while_no_task_ends_and_not_below_nothing() -> None:
    assert shown(document(seconds=35), later=5).endswith("about 60 s left of this pass")
    assert shown(document(), later=71).endswith("read, for 112 s")
    assert shown(document(), later=-60).endswith("about 70 s left of this pass")


def test_before_the_first_tasks_have_ended_no_time_should_be_foretold() -> None:
    assert shown(document(done=1, rows=0)) == "reading: 1 of 40 tasks, for 41 s"
    assert shown(document(done=0, active=0, rows=0)) == "reading: 0 of 40 tasks, for 41 s"


def test_between_passes_it_should_be_said_what_is_done_and_for_how_long() -> None:
    assert shown(document() | {"pass": None}) == "reading, for 41 s"


def test_until_the_job_of_this_stage_speaks_the_state_machine_should() -> None:
    stage = Stage("prepare", doing="run the Glue job")
    assert told(stage, lambda: None) == "run the Glue job"
    assert told(stage, lambda: document("train")) == "run the Glue job"
    assert told(stage, lambda: document("prepare")).startswith("reading: 12 of 40 tasks")


def test_progress_that_cannot_be_read_should_leave_the_run_as_it_is() -> None:
    """As by who may not list the bucket, of which S3 says 403 where there is no object yet."""
    shown: list[str] = []
    board = SimpleNamespace(is_done=lambda _title: False, doing=lambda _title, said: shown.append(said))

    def denied(*_: object) -> None:
        raise ClientError({"Error": {"Code": "AccessDenied", "Message": "Access Denied"}}, "GetObject")

    stage = Stage("prepare", started=WRITTEN, doing="run the Glue job")
    run_of_it: Any = SimpleNamespace(run_id="run-1", stages={"prepare": stage})
    platform: Any = SimpleNamespace(json_object=denied)
    run._show_progress(platform, "d", run_of_it, cast(Board, board))
    assert shown == ["run the Glue job"]


def test_a_stage_without_a_job_should_not_be_asked_about() -> None:
    def unasked() -> None:
        raise AssertionError

    assert told(Stage("cluster", doing="wait for EMR"), unasked) == "wait for EMR"
