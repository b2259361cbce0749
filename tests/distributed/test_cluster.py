"""The three jobs on a real cluster, a standalone one on loopback: what `local[*]` hides would show here."""

import os
import re
import shutil
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from dml.checkout import PROJECT
from dml.local.cloud import Cloud
from dml.local.processes import command_lines
from dml.local.spark.process import Outcome
from dml.models.scorer import Scorer
from jobs import prepare
from tests.distributed.standalone import Standalone, Submitted, events, until
from tests.embedded import Clients
from tests.shipped import Shipped, many_points

pytestmark = pytest.mark.spark

ROWS, BYTES_PER_FILE = 100_000, 2_000_000  # two files, so that both executors have something to do
# A column of doubles, 800 kB, would not fit, the counts of two tasks do: a job that fetches rows to the driver fails.
DRIVER_LIMIT = "700k"
IN_ONE_PROCESS = {"spark.master": "local[2]", "spark.default.parallelism": "2"}
FIT = re.compile(r"RandomForest\.scala|grow\.py")  # where a stage was called from that grows a tree

PROBE = """
import sys
from pyspark.sql import SparkSession

def where(_):
    import jobs.tables.split
    yield jobs.tables.split.__file__

spark = SparkSession.builder.getOrCreate()
told = spark.sparkContext.parallelize(range(2), 2).mapPartitions(where).collect()
print("executors import", sorted(set(told)), flush=True)
spark.read.parquet(sys.argv[1]).select("x").collect()
"""


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Standalone]:
    made = Standalone(tmp_path_factory.mktemp("standalone"))
    try:
        made.start()
        yield made
    finally:
        made.stop()


@pytest.fixture(scope="module")
def shipped(cloud: Cloud, aws: Clients, cluster: Standalone, tmp_path_factory: pytest.TempPathFactory) -> Shipped:
    """The points with their features, made on the cluster as run c1."""
    changes = [("depth = 3", "depth = 6"), ("suspicious_auc = 0.95", "suspicious_auc = 0.99")]
    made = Shipped(cloud, aws, tmp_path_factory.mktemp("cluster"), "cluster", *changes)
    made.upload(list(many_points(ROWS)))
    script, size = (PROJECT / "jobs" / "prepare.py").read_text(), f"{prepare.BYTES_PER_FILE:_}"
    assert size in script
    smaller = script.replace(size, f"{BYTES_PER_FILE:_}")
    made.s3.put_object(Bucket=made.code, Key="prepare.py", Body=smaller.encode())
    on_cluster(made, cluster, "prepare", "c1")
    return made


def on_cluster(shipped: Shipped, cluster: Standalone, job: str, run_id: str) -> list[dict[str, Any]]:
    """Runs one job on the cluster with its driver limited; what Spark logged of it."""
    folder = event_folder(shipped, run_id)
    settings = limited(cluster, folder)
    shipped.run(job, run_id, process=Submitted, settings=settings, conf=cluster.conf)
    return list(events(folder))


def event_folder(shipped: Shipped, run_id: str) -> Path:
    folder = shipped.folder / "events" / run_id
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def limited(cluster: Standalone, folder: Path) -> dict[str, str]:
    return cluster.settings() | {
        "spark.driver.maxResultSize": DRIVER_LIMIT,
        "spark.eventLog.enabled": "true",
        "spark.eventLog.dir": folder.as_uri(),
    }


@pytest.fixture(scope="module")
def disturbed(shipped: Shipped, cluster: Standalone) -> list[dict[str, Any]]:
    """What Spark logged of the training c1 on the cluster, where an executor was killed while the tree grew."""
    (shipped.folder / "events" / "c1").rename(shipped.folder / "events" / "prepare-c1")
    folder = event_folder(shipped, "c1")
    job = shipped.job("train", "c1", process=Submitted, settings=limited(cluster, folder), conf=cluster.conf)
    outcomes: list[Outcome] = []
    thread = threading.Thread(target=lambda: outcomes.append(job.run()))
    thread.start()
    try:
        until(lambda: len(fit_stages(folder)) >= 2 or not thread.is_alive(), "the tree has begun to grow")
        killed = cluster.executors()[0]
        assert not [line for line in command_lines().values() if cluster.secret in line]
        os.kill(killed, signal.SIGKILL)
        thread.join(120)
    finally:
        job.stop()
        thread.join()
    assert outcomes == [Outcome(0, "")]
    assert killed not in cluster.executors()
    return list(events(folder))


@pytest.fixture(scope="module")
def trained(shipped: Shipped, disturbed: list[dict[str, Any]]) -> Shipped:
    """Trained from the same features on the cluster, as c1, and in one process, as p1; c1 is published."""
    shipped.run("train", "p1", process=Submitted, settings=IN_ONE_PROCESS)
    shipped.publish("c1")
    return shipped


def figures(shipped: Shipped, run_id: str) -> dict[str, Any]:
    """Split, metrics, tree and verdict of a run, without what may differ: its name, time and durations."""
    metrics, tree = shipped.model(run_id, "metrics.json"), shipped.model(run_id, "tree.json")
    for told in (metrics, tree):
        assert told.pop("run_id") == run_id
    for name in ("seconds", "created", "current"):
        metrics.pop(name, None)
    return {"metrics": metrics, "tree": tree}


def flat(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """The leaves of a JSON value with their paths."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else None
    if inner is None:
        yield path, value
        return
    for key, below in inner:
        yield from flat(below, f"{path}/{key}")


def assert_the_same(one: dict[str, Any], other: dict[str, Any]) -> None:
    """Equal in everything; figures may differ by the order in which they were added up."""
    first, second = dict(flat(one)), dict(flat(other))
    assert first.keys() == second.keys()
    for path, value in first.items():
        expected = pytest.approx(second[path], rel=1e-9) if isinstance(value, float) else second[path]
        assert value == expected, path


def test_an_executor_killed_in_mid_fit_should_have_been_missed_and_its_work_done_anew(
    disturbed: list[dict[str, Any]],
) -> None:
    hosts = {event["Executor ID"] for event in disturbed if event["Event"] == "SparkListenerExecutorAdded"}
    assert hosts >= {"0", "1"}
    removed = [i for i, event in enumerate(disturbed) if event["Event"] == "SparkListenerExecutorRemoved"]
    assert removed, "the executor was not missed"
    assert any(is_fit(event) for event in disturbed[: removed[0]])
    assert any(is_fit(event) for event in disturbed[removed[0] :])


def test_a_cluster_should_grow_the_tree_that_one_process_grows_even_if_an_executor_is_killed(trained: Shipped) -> None:
    here, there = figures(trained, "p1"), figures(trained, "c1")
    assert there["metrics"]["rows"]["train"] + there["metrics"]["rows"]["test"] == ROWS
    assert there["tree"]["nodes"][0]["rows"] == there["metrics"]["rows"]["train"]
    assert there["metrics"]["test"]["log_loss"] < there["metrics"]["baseline"]["log_loss"]
    assert there["metrics"]["tree"]["depth"] == 6
    assert_the_same(there, here)


def test_a_cluster_should_predict_row_by_row_what_plain_python_says(trained: Shipped, cluster: Standalone) -> None:
    on_cluster(trained, cluster, "predict", "pc1")
    features, there = (trained.rows(trained.location(table), "id") for table in ("features", "predictions"))
    scorer = Scorer(trained.model("c1", "tree.json"))
    says, _ = scorer.compile({"x": 0, "colour": 1})
    expected = [says(row) for row in zip(*(features.column(name).to_pylist() for name in ("x", "colour")), strict=True)]
    assert there.column("id").to_pylist() == features.column("id").to_pylist() == list(range(ROWS))
    assert list(zip(*(there.column(name).to_pylist() for name in scorer.columns), strict=True)) == expected
    assert len(set(expected)) > 30
    sides = there.column("side").to_pylist()
    assert sides.count("test") == trained.model("c1", "metrics.json")["rows"]["test"]


def fit_stages(folder: Path) -> list[dict[str, Any]]:
    return [event for event in events(folder) if is_fit(event)]


def is_fit(event: dict[str, Any]) -> bool:
    """Whether this is the end of a stage that grows the tree."""
    return event["Event"] == "SparkListenerStageCompleted" and bool(FIT.search(event["Stage Info"]["Stage Name"]))


def test_executors_should_have_the_jobs_code_from_the_zip_and_no_row_should_fit_the_driver(
    trained: Shipped, cluster: Standalone
) -> None:
    """The two premises of this module: without them the other tests could not fail."""
    trained.s3.put_object(Bucket=trained.code, Key="probe.py", Body=PROBE.encode())
    job = trained.submit(
        "probe",
        "c1",
        [trained.location("features")],
        process=Submitted,
        settings=limited(cluster, event_folder(trained, "probe")),
        conf=cluster.conf,
    )
    outcome = job.run()
    imported = re.findall(r"^executors import (.*)$", trained.log("probe", "c1").read_text(), re.MULTILINE)
    assert len(imported) == 1
    assert re.fullmatch(r"\['[^']*/library\.zip/jobs/tables/split\.py'\]", imported[0])
    assert outcome.exit_code == 1
    assert "than it takes at once (700.0 KiB)" in outcome.reason


# The last one: it ships another library.
def test_executors_should_boost_together_and_no_row_should_come_to_the_driver(
    trained: Shipped, cluster: Standalone
) -> None:
    """XGBoost's collective between processes, in one barrier stage."""
    shutil.rmtree(trained.folder / "library")
    trained.ship(("depth = 3\nmin_leaf = 5\n", 'learner = "boosted"\nrounds = 3\nlearning_rate = 0.5\n'))
    told = on_cluster(trained, cluster, "train", "b1")
    stages = [event["Stage Info"] for event in told if event["Event"] == "SparkListenerStageCompleted"]
    together = [stage for stage in stages if any(rdd["Barrier"] for rdd in stage["RDD Info"])]
    assert [stage["Number of Tasks"] for stage in together] == [2, 2]  # the model's, and that of the out-of-time check
    metrics, one_tree = (trained.model(run, "metrics.json") for run in ("b1", "c1"))
    assert metrics["tree"]["trees"] == 3
    assert metrics["rows"] == one_tree["rows"]
    assert metrics["test"]["log_loss"] < 0.9 * metrics["baseline"]["log_loss"]
    assert metrics["current"] == {"run_id": "c1", **one_tree["test"]}
