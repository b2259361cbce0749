"""Jobs killed in the middle, when a half state could be seen: no reader sees one, and running again is enough."""

import io
import json
import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from botocore.exceptions import ClientError

from dml.local.processes import command_line, working_below
from dml.local.spark.process import KILLED, Outcome
from tests.faults.proxy import Fault, Proxy
from tests.shipped import Shipped

JOBS = {"prepare": "features", "predict": "predictions"}


class Reader:
    """Somebody who looks at what is published, all the time: tables with all their files, and the current model."""

    def __init__(self, shipped: Shipped) -> None:
        self._shipped = shipped
        self.looks = 0
        self.seen: set[str] = set()  # every published location
        self.wrong: list[str] = []

    def look(self) -> None:
        self.looks += 1
        for job, table in JOBS.items():
            location = self._shipped.location(table)
            run_id = location.rstrip("/").rpartition("/")[2]
            report = self._report(job, run_id)
            rows = sum(pq.read_metadata(io.BytesIO(file)).num_rows for file in self._shipped.files(location).values())
            told = report and (report["location"], report["rows_out" if job == "prepare" else "rows"])
            if told != (location, rows):
                self.wrong.append(f"{location} has {rows} rows, the run's own report: {told}")
            self.seen.add(location)
        pointer = self._json(self._shipped.models, "points/CURRENT.json")
        files = self._shipped.model(pointer["run_id"], "manifest.json")["files"]
        for file in files:
            if not self._shipped.keys(self._shipped.models, f"points/{pointer['run_id']}/{file}"):
                self.wrong.append(f"the current model {pointer['model']} has no {file}")
        self.seen.add(pointer["model"])

    def _report(self, job: str, run_id: str) -> Any:
        try:
            return self._json(self._shipped.lake, f"points/runs/{run_id}/{job}.json")
        except ClientError:
            return None

    def _json(self, bucket: str, key: str) -> Any:
        return json.loads(self._shipped.s3.get_object(Bucket=bucket, Key=key)["Body"].read())


@contextmanager
def reading(shipped: Shipped) -> Iterator[Reader]:
    """A reader that looks again and again, and has seen nothing wrong in the end."""
    reader, done = Reader(shipped), threading.Event()

    def look_on() -> None:
        while not done.wait(0.3):
            try:
                reader.look()
            except Exception as error:  # noqa: BLE001  # whatever a reader cannot read is what this is about
                reader.wrong.append(repr(error))
                return

    thread = threading.Thread(target=look_on)
    thread.start()
    try:
        yield reader
    finally:
        done.set()
        thread.join()
    reader.look()
    assert reader.wrong == []
    assert reader.looks > 10


def kill_spark(work: Path, script: str) -> Callable[[], None]:
    """Kills the Spark that works in this folder, Java and then Python, as the kernel does when memory runs out."""

    def kill() -> None:
        for program in ("org.apache.spark.deploy.SparkSubmit", f"/{script}"):
            found = [pid for pid in working_below(work) if program in command_line(pid)]
            assert found, f"nothing runs {program}"
            for pid in found:
                os.kill(pid, signal.SIGKILL)

    return kill


@pytest.mark.parametrize(
    ("job", "moments"),
    [
        (
            "prepare",
            [
                "points/features/{run}/part-",  # its files are in S3, but not its report
                "points/runs/{run}/prepare.json",  # all is there but the catalog's entry
            ],
        ),
        ("train", ["points/{run}/tree.json"]),  # in the middle of its files
        ("predict", ["points/predictions/{run}/part-"]),
    ],
)
def test_a_job_killed_at_each_moment_should_be_told_as_such_and_be_whole_when_it_runs_again(
    shipped: Shipped, proxy: Proxy, job: str, moments: list[str]
) -> None:
    run_id = f"killed-{job}"
    before = published(shipped)
    with reading(shipped) as reader:
        for moment in moments:
            process = shipped.job(job, run_id, endpoint=proxy.endpoint)
            kill = kill_spark(shipped.folder / f"{job}-{run_id}", f"{job}.py")
            proxy.faults = [Fault("PUT", moment.format(run=run_id), kill, times=1)]
            outcome = process.run()
            assert proxy.faults[0].seen == 1, outcome
            assert outcome == Outcome(128 + signal.SIGKILL, KILLED)
            assert published(shipped) == before
        shipped.run(job, run_id)
        if job == "train":
            assert published(shipped) == before
            shipped.publish(run_id)
    assert run_id in "".join(reader.seen)
    if job == "train":
        nodes = [shipped.model(run, "tree.json")["nodes"] for run in ("r1", run_id)]
        assert nodes[0] == nodes[1]


def published(shipped: Shipped) -> tuple[str, str, Any]:
    """What readers find: both tables, and the current model."""
    pointer = shipped.s3.get_object(Bucket=shipped.models, Key="points/CURRENT.json")["Body"].read()
    return shipped.location("features"), shipped.location("predictions"), json.loads(pointer)
