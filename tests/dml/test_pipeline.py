"""What an operator reads when a run has failed."""

from datetime import UTC, datetime
from pathlib import Path

from dml.runs import pipeline
from dml.runs.pipeline import Run, Stage


def run(**fields: str) -> Run:
    stages = {name: Stage(name) for name in pipeline.STAGES["run"]}
    return Run("run-1", "arn:aws:states:us-east-1:000000000000:execution:m:run-1", stages, **fields)


def test_a_failure_should_give_the_reason_and_the_log_of_the_job(tmp_path: Path) -> None:
    log = tmp_path / "glue" / "jr_0a1b2c.log"
    log.parent.mkdir()
    log.touch()
    failed = run(state="FAILED", cause="prepare failed: Raw table flights is empty. [jr_0a1b2c]")
    message = str(pipeline.failure(failed, logs=tmp_path))
    assert "Raw table flights is empty" in message
    assert str(log) in message


def test_a_failure_on_aws_should_say_how_the_run_goes_on_and_not_point_at_a_file_here(tmp_path: Path) -> None:
    failed = run(state="FAILED", cause="prepare failed: no such bucket [jr_0a1b2c]")
    message = str(pipeline.failure(failed, logs=None))
    assert "Log:" not in message
    command = f"aws stepfunctions redrive-execution --execution-arn {failed.arn}"
    assert message.endswith(command)
    assert command not in str(pipeline.failure(failed, logs=tmp_path))
    lost = run(state="FAILED", error="LostRace", cause="publish: another run published first")
    assert command not in str(pipeline.failure(lost, logs=None))


def test_a_timed_out_run_should_name_the_stage_that_it_was_in() -> None:
    late = run(state="TIMED_OUT")
    now = datetime.now(UTC)
    late.stages["crawl"].started = late.stages["crawl"].ended = late.stages["prepare"].started = now
    assert "stage prepare" in str(pipeline.failure(late, logs=None))


def test_the_revision_should_be_this_checkouts_commit() -> None:
    assert pipeline.git_revision() == "unknown" or len(pipeline.git_revision().removesuffix("-dirty")) >= 7
