"""What a job says of how far it is, by Spark's own counts, while it works."""

import json
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from pyspark.sql import SparkSession

from jobs.tables.progress import Progress, running
from jobs.tables.session import Clock

LINES = 5


class Bucket:
    """The documents that were put, in order, as bytes; `broken`: S3 refuses."""

    def __init__(self, *, broken: bool = False) -> None:
        self.put: list[dict[str, Any]] = []
        self._broken = broken

    def put_object(self, **given: Any) -> None:
        if self._broken:
            raise RuntimeError("no such bucket")
        self.put.append(given)


def until(holds: Callable[[], Any]) -> Any:
    """What `holds` gives as soon as it gives something."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        if found := holds():
            return found
        time.sleep(0.02)
    raise AssertionError("it never came to that")


@pytest.fixture
def held_up(spark: SparkSession, tmp_path: Path) -> Iterator[None]:
    """A pass over two files: one is read, the other's task waits until the test is over."""
    files, go = tmp_path / "files", tmp_path / "go"
    files.mkdir()
    (files / "a.txt").write_text("quick\n" * LINES)
    (files / "b.txt").write_text("wait\n" * 6)  # as many bytes: a split each
    end = str(go)

    def through(lines: Iterator[str]) -> Iterator[str]:
        for line in lines:
            while line == "wait" and not Path(end).exists():
                time.sleep(0.02)
            yield line

    query = threading.Thread(target=spark.sparkContext.textFile(files.as_uri(), 2).mapPartitions(through).count)
    query.start()
    yield
    go.touch()
    query.join()


@pytest.mark.usefixtures("held_up")
def test_a_pass_should_be_counted_by_tasks_and_rows_while_it_runs(spark: SparkSession) -> None:
    found = until(lambda: (now := running(spark)) and now["done"] == 1 and now)
    assert (found["of"], found["active"], found["rows"]) == (2, 1, LINES)
    assert 0 <= found["seconds"] < 60


def test_without_a_query_nothing_should_be_said_to_run(spark: SparkSession) -> None:
    assert running(spark) is None


def test_each_new_thing_should_be_told_once_below_the_run(spark: SparkSession) -> None:
    bucket, clock = Bucket(), Clock()
    clock.begin("reading")
    with Progress(spark, bucket, "s3://lake/points/runs/r1/progress.json", "prepare", clock, every=0.01):
        until(lambda: bucket.put)
        time.sleep(0.1)  # ten more looks
        clock.begin("writing")
        until(lambda: len(bucket.put) > 1)
    told = [json.loads(given["Body"]) for given in bucket.put]
    assert [(one["stage"], one["doing"], one["pass"]) for one in told] == [
        ("prepare", "reading", None),
        ("prepare", "writing", None),
    ]
    assert {(given["Bucket"], given["Key"]) for given in bucket.put} == {("lake", "points/runs/r1/progress.json")}


def test_a_job_should_go_on_when_its_progress_cannot_be_told(
    spark: SparkSession, capsys: pytest.CaptureFixture[str]
) -> None:
    with Progress(spark, Bucket(broken=True), "s3://lake/k", "prepare", Clock(), every=0.01):
        until(lambda: "no progress is told from here on: no such bucket" in capsys.readouterr().err)
