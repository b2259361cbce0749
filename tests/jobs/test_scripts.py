"""The entry scripts: their arguments, what they read out of the code zip, and how they end when they fail."""

import importlib
import json
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import boto3
import pytest

from datasets import load_dataset, prepare_sql
from jobs import predict, prepare, train
from jobs.errors import JobError, reason_of
from jobs.job import failure_uri, of_run, run
from jobs.tables import settings

ROOT = Path(__file__).parents[2]
ARGUMENTS = ["--dataset", "d", "--database", "b", "--lake", "s3://l/", "--models", "s3://m/", "--table", "features"]
ARGUMENTS += ["--run-id", "r", "--region", "us-east-1"]


@pytest.mark.parametrize("job", [prepare, train, predict])
def test_a_job_should_overlook_arguments_that_the_service_adds(job: ModuleType) -> None:
    args, unknown = job.build_parser().parse_known_args([*ARGUMENTS, "--JOB_ID", "j", "--data", "x", "--run", "y"])
    assert (args.dataset, args.database, args.run_id) == ("d", "b", "r")  # --data and --run are not short for these
    assert unknown[-6:] == ["--JOB_ID", "j", "--data", "x", "--run", "y"]


@pytest.fixture
def code_zip(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The code zip as it is on a cluster, first on the path and without the datasets module of this repository."""
    dataset = load_dataset("nyc_flights")
    with zipfile.ZipFile(tmp_path / "code.zip", "w") as archive:
        archive.writestr("datasets/__init__.py", "")
        archive.writestr("datasets/nyc_flights/dataset.json", dataset.to_json())
        archive.writestr("datasets/nyc_flights/prepare.sql", prepare_sql("nyc_flights"))
    monkeypatch.delitem(sys.modules, "datasets")
    monkeypatch.syspath_prepend(str(tmp_path / "code.zip"))
    importlib.invalidate_caches()
    yield
    sys.modules.pop("datasets", None)


def test_settings_should_be_read_out_of_the_code_zip(code_zip: None) -> None:
    assert settings.load("nyc_flights").training.smoothing == 100
    assert settings.prepare_sql("nyc_flights") == (ROOT / "datasets/nyc_flights/prepare.sql").read_text()


def test_a_dataset_that_was_not_shipped_should_be_told_with_the_way_out(code_zip: None) -> None:
    with pytest.raises(JobError, match=r"no datasets/other/dataset.json: deploy again, or check --dataset"):
        settings.load("other")


@pytest.mark.parametrize("script", ["prepare.py", "train.py", "predict.py"])
def test_a_failing_job_should_end_with_the_reason_and_exit_code_one(script: str) -> None:
    command = [sys.executable, str(ROOT / "jobs" / script), *ARGUMENTS]
    ended = subprocess.run(command, env={"PYTHONPATH": str(ROOT)}, capture_output=True, text=True, timeout=60)
    assert ended.returncode == 1
    assert ended.stdout == ""
    reason = ended.stderr.splitlines()[-1]
    assert reason.startswith("jobs.errors.JobError: The code that was shipped with this job has no datasets/d/")


# --- failure.json ---


class Store:
    """The part of S3 that takes failure.json."""

    def __init__(self) -> None:
        self.put: dict[str, Any] = {}

    def put_object(self, *, Bucket: str, Key: str, Body: bytes, ContentType: str) -> None:
        self.put[f"s3://{Bucket}/{Key}"] = json.loads(Body)


@pytest.fixture
def store(monkeypatch: pytest.MonkeyPatch) -> Store:
    made = Store()
    monkeypatch.setattr(boto3, "client", lambda *_args, **_more: made)
    return made


GIVEN = ["--dataset", "d", "--lake", "s3://l/", "--run-id", "r", "--region", "us-east-1", "--attempt", "2"]


def failing(error: BaseException) -> Callable[[Sequence[str]], None]:
    def main(_argv: Sequence[str]) -> None:
        raise error

    return main


def test_a_failing_job_should_leave_why_below_its_run_and_attempt_and_fail_as_it_would(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CONTAINER_ID", "container_e17_1795985240819_0013_01_000001")
    error = JobError("Table t has no column x:\nadd it to prepare.sql.")
    with pytest.raises(JobError) as raised:
        run("train", failing(error), GIVEN)
    assert raised.value is error
    ((uri, told),) = store.put.items()
    assert uri == failure_uri("s3://l", "d", "r", "2") == "s3://l/d/runs/r/attempt-2/failure.json"
    container = "containers/application_1795985240819_0013/container_e17_1795985240819_0013_01_000001"
    assert (told["stage"], told["attempt"], told["error"]) == ("train", "2", "JobError")
    assert (told["sentence"], told["log"]) == (str(error), f"{container}/stdout.gz")
    assert told["traceback"][-2] == "jobs.errors.JobError: Table t has no column x:"
    assert len(told["traceback"]) > 4


@pytest.mark.parametrize("script", [prepare, train, predict])
def test_arguments_that_a_job_cannot_take_should_be_left_too(store: Store, script: ModuleType) -> None:
    with pytest.raises(JobError, match=r"cannot take its arguments \(.*--database"):
        run("any", script.main, GIVEN)
    assert [told["error"] for told in store.put.values()] == ["JobError"]


def test_a_script_that_ends_itself_should_be_told_only_if_it_ends_in_failure(store: Store) -> None:
    with pytest.raises(SystemExit):
        run("train", failing(SystemExit(0)), GIVEN)
    assert store.put == {}
    with pytest.raises(SystemExit):
        run("train", failing(SystemExit(3)), GIVEN)
    assert [told["sentence"] for told in store.put.values()] == ["SystemExit: 3"]


def test_what_cannot_be_left_should_be_printed_and_the_jobs_own_error_be_raised(
    store: Store, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def gone(**_given: Any) -> None:
        raise ConnectionError("the network is gone")

    monkeypatch.setattr(store, "put_object", gone)
    with pytest.raises(ValueError, match="the job's own"):
        run("train", failing(ValueError("the job's own")), GIVEN)
    told = capsys.readouterr().err
    assert told == "failure.json is not written to s3://l/d/runs/r/attempt-2/failure.json: the network is gone\n"
    with pytest.raises(ValueError, match="the job's own"):
        run("train", failing(ValueError("the job's own")), ["--dataset", "d"])
    assert "failure.json is not written: --lake, " in capsys.readouterr().err


def test_no_key_should_be_left_in_a_failure(store: Store) -> None:
    address = "http://127.0.0.1:1/b/k?op=OPEN&delegation=secret1&X-Amz-Signature=secret2&user.name=hadoop"
    with pytest.raises(OSError, match="HTTP 502"):
        run("train", failing(OSError(f"HTTP 502 for {address}")), GIVEN)
    (told,) = store.put.values()
    assert "user.name=hadoop" in told["sentence"]
    assert "secret" not in json.dumps(told)


@pytest.mark.parametrize(
    ("said", "kind", "names"),
    [
        (
            "Job aborted due to stage failure: Task 0 in stage 2.0 failed 4 times, most recent failure: Lost task 0.3 "
            "in stage 2.0 (TID 9) (127.0.0.2 executor 4): ExecutorLostFailure (executor 4 exited caused by one of the "
            "running tasks) Reason: Container killed by YARN for exceeding physical memory limits. 898.3 MB of 896 MB "
            "physical memory used. Consider boosting spark.executor.memoryOverhead.",
            "ExecutorOutOfMemory",
            ["898.3 MB of 896 MB", "spark.executor.memoryOverhead", "instance_types"],
        ),
        (
            "Task 0 in stage 2.0 failed 4 times: ExecutorLostFailure (executor 4 exited caused by one of the running "
            "tasks) Reason: Container from a bad node: container_1 on host: a. Exit status: 137.",
            "ExecutorsLost",
            ["Exit status: 137", "redrive"],
        ),
        (
            "Task 3 failed: org.apache.spark.SparkException: Python worker exited unexpectedly (crashed)\n"
            "Caused by: java.io.EOFException",
            "PythonWorkerLost",
            ["memoryOverhead"],
        ),
        ("java.lang.OutOfMemoryError: Java heap space", "HeapFull", ["Java heap space", "spark.driver.memory"]),
        ("An error occurred while calling None.None", "JavaGone", ["spark.driver.memory"]),
        (
            "Total size of serialized results of 9 tasks (1087.3 MiB) is bigger than spark.driver.maxResultSize "
            "(1024.0 MiB)",
            "ResultsTooLarge",
            ["1024.0 MiB", "training.test_share"],
        ),
    ],
)
def test_what_spark_says_in_riddles_should_be_told_by_cause_with_the_way_out(
    store: Store, said: str, kind: str, names: list[str]
) -> None:
    with pytest.raises(RuntimeError):
        run("train", failing(RuntimeError(said)), GIVEN)
    (told,) = store.put.values()
    assert told["error"] == kind
    for name in names:
        assert name in told["sentence"]
    with pytest.raises(JobError):  # a job's own sentence needs no interpreter
        run("train", failing(JobError(said)), GIVEN)
    (told,) = store.put.values()
    assert told["sentence"] == said


def test_java_that_is_gone_should_be_told_by_what_it_said_last() -> None:
    output = "java.lang.OutOfMemoryError: Java heap space\n\tat a.b\nTraceback (most recent call last):\n  File x\n"
    output += "py4j.protocol.Py4JError: An error occurred while calling None.None\n"
    assert reason_of(output)[0] == "HeapFull"


def test_a_later_attempt_should_end_its_own_runs_applications_only() -> None:
    """As YARN tells of those that are alive: with tags in lower case, which a run's id may not be."""
    alive = {"a_1": ["run-20261129t2104"], "a_2": ["run-20261129t2104"], "a_3": ["run-20261129t2105"], "a_4": []}
    assert of_run(alive, "run-20261129T2104", own="a_2") == ["a_1"]
