"""A full disk under Spark: told as that, in one sentence, and nothing published."""

import resource
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from dml.local.cloud import Cloud
from dml.local.processes import command_line, working_below
from dml.local.spark.process import Outcome, disk_full
from tests.distributed.standalone import until
from tests.embedded import Clients
from tests.jobs import points
from tests.shipped import Shipped

ROWS = 60_000
# Bytes: Spark and the code fit, what prepare.py shuffles of so many rows does not.
SMALL, LIMIT = 1024 * 1024, 128 * 1024


@pytest.fixture(scope="module")
def disk(cloud: Cloud, aws: Clients, tmp_path_factory: pytest.TempPathFactory) -> Shipped:
    """More points than the small disk holds."""
    made = Shipped(cloud, aws, tmp_path_factory.mktemp("disk"), "disk")
    made.upload(points.lines(ROWS))
    return made


def assert_told_and_nothing_published(disk: Shipped, outcome: Outcome, work: Path) -> None:
    assert outcome.exit_code == 1
    assert outcome.reason == disk_full(work)
    told = [key for key in disk.keys(disk.lake, "points/") if not key.endswith(("/failure.json", "/progress.json"))]
    assert told == []
    assert [table["Name"] for table in disk.glue.get_tables(DatabaseName=disk.database)["TableList"]] == ["points"]


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux sets a limit of a process that runs already")
def test_a_limit_on_what_may_be_written_should_be_told_and_nothing_be_published(disk: Shipped) -> None:
    """The kernel's limit on a file's size stands for quotas of all kinds; it needs no right to mount anything."""
    job, work = disk.job("prepare", "limited"), disk.folder / "prepare-limited"
    outcomes: list[Outcome] = []
    thread = threading.Thread(target=lambda: outcomes.append(job.run()))
    thread.start()
    try:
        until(lambda: spark_in(work) or not thread.is_alive(), "Spark runs")
        for pid in spark_in(work):
            resource.prlimit(pid, resource.RLIMIT_FSIZE, (LIMIT, LIMIT))
    finally:
        thread.join(120)
        job.stop()
    assert_told_and_nothing_published(disk, outcomes[0], work)


@pytest.mark.skipif(sys.platform != "linux", reason="tmpfs, a disk as small as wished, is Linux's")
def test_a_full_disk_should_be_told_and_nothing_be_published(disk: Shipped) -> None:
    work = disk.folder / "prepare-full"
    work.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={SMALL}", "small", str(work)], capture_output=True)
    if mounted.returncode:
        pytest.skip("mounting needs root; the test before this one needs nothing")
    try:
        outcome = disk.job("prepare", "full").run()
    finally:
        subprocess.run(["umount", str(work)], check=True)
    assert_told_and_nothing_published(disk, outcome, work)
    disk.run("prepare", "full")
    assert disk.location("features").endswith("/full/")


def spark_in(work: Path) -> list[int]:
    return [pid for pid in working_below(work) if "org.apache.spark.deploy.SparkSubmit" in command_line(pid)]
