"""EMR's steps on a real YARN: a whole run, and what only containers can show: masters and executors killed, memory.

One YARN stands for all of it, that of the workbench of the deployed platform; steps that are to fail are small scripts.
"""

import json
import re
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from datasets import load_dataset
from dml import checkout
from dml.errors import UserError
from dml.estate import data
from dml.estate.platform import Platform
from dml.local.cloud import Cloud
from dml.local.deploy import deploy
from dml.local.processes import command_lines
from dml.local.yarn import jars, namespace
from dml.runs import pipeline, step_log
from dml.runs.run import gather
from stacks.outputs import Output
from tests.command import run_dml
from tests.local.conftest import until
from tests.local.sockets import descendants, listening

DATASET = "penguins"
STARTS = 180.0  # of YARN and a step on it, on a machine that is busy
PROBE = """
import os, signal, sys, time
from pyspark.sql import SparkSession

what = sys.argv[1]
spark = SparkSession.builder.getOrCreate()
print("application", spark.sparkContext.applicationId, flush=True)
if what == "tick":
    while True:
        print("tick", flush=True)
        time.sleep(0.2)
if what == "follow":
    from jobs.job import end_former

    end_former(spark)
    mark = sys.argv[2]

    def once(rows):
        if not os.path.exists(mark):
            open(mark, "w").close()
            with open(f"/proc/{os.getppid()}/stat") as daemon:
                executor = int(daemon.read().rpartition(")")[2].split()[1])
            os.kill(executor, signal.SIGKILL)
            time.sleep(60)
        return rows

    print("counted", spark.sparkContext.parallelize(range(200), 2).mapPartitions(once).count(), flush=True)
    printed = os.path.join(os.environ["LOG_DIRS"], "stdout")  # Java brings there what is printed here
    while "counted" not in open(printed).read():
        time.sleep(0.05)
    os.kill(os.getppid(), signal.SIGKILL)  # the master, whose Java has started this script
    time.sleep(60)
if what == "grow":
    held = []
    while len(held) < 24:  # 1.5 GB and no more
        held.append(bytearray(64 * 2**20))
        time.sleep(0.1)
    time.sleep(60)
"""


@pytest.fixture(scope="module")
def jars_of_yarn() -> Path:
    """Skips a test where there can be no YARN. Tests fetch no jars: `make yarn` does."""
    folder = checkout.PROJECT / ".dml" / "yarn"
    if missing := [jar.name for jar in jars.JARS if not (folder / jar.name).is_file()]:
        pytest.skip(f"there is no {missing[0]} in .dml/yarn: `make yarn` fetches the jars of Hadoop's YARN")
    try:
        namespace.check()
    except UserError as why:
        pytest.skip(str(why))
    return folder


@pytest.fixture(scope="module")
def platform(cloud: Cloud, jars_of_yarn: Path) -> Iterator[Platform]:
    """The deployed one, whose steps run on YARN."""
    deploy(cloud, "dev", on_progress=lambda _text: None)
    (cloud.place.home / "yarn").symlink_to(jars_of_yarn)
    cloud.run_steps_on_yarn(jars_of_yarn)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(checkout, "HOME", cloud.place.home)
        yield Platform("dev", credentials=cloud.environment())
    cloud.run_steps_on_yarn(None)


@dataclass(frozen=True)
class Workbench:
    """The workbench's steps, and what they leave on this machine."""

    platform: Platform
    cluster: str
    logs: Path

    @property
    def emr(self) -> Any:
        return self.platform.client("emr")

    def submit(self, what: str, *options: str, given: str = "") -> str:
        raw = self.platform.output(Output.RAW_BUCKET)
        self.platform.s3.put_object(Bucket=raw, Key="probes/probe.py", Body=PROBE.encode())
        words = ["spark-submit", "--deploy-mode", "cluster", *options, f"s3://{raw}/probes/probe.py", what, given]
        step = {"Name": what, "ActionOnFailure": "CONTINUE", "HadoopJarStep": {"Jar": "command-runner.jar"}}
        step["HadoopJarStep"]["Args"] = words
        (made,) = self.emr.add_job_flow_steps(JobFlowId=self.cluster, Steps=[step])["StepIds"]
        return str(made)

    def status(self, step: str) -> dict[str, Any]:
        told: dict[str, Any] = self.emr.describe_step(ClusterId=self.cluster, StepId=step)["Step"]["Status"]
        return told

    def end(self, step: str) -> dict[str, Any]:
        until(lambda: self.status(step)["State"] not in ("PENDING", "RUNNING", "CANCEL_PENDING"), STARTS, every=0.3)
        return self.status(step)

    def application(self, step: str) -> str:
        said = (self.logs / "steps" / step / "stderr").read_text()
        return re.findall(r"Submitted application (application_\d+_\d+)", said)[-1]

    def printed(self, application: str) -> str:
        """What its script has printed so far."""
        (file,) = (self.logs / "containers" / application).glob("*_01_000001/stdout")
        return file.read_text()

    def library(self) -> str:
        """The jobs' own code, as a step of the last run names it."""
        steps = self.emr.list_steps(ClusterId=self.cluster)["Steps"]
        words = next(step["Config"]["Args"] for step in steps if "--py-files" in step["Config"]["Args"])
        return str(words[words.index("--py-files") + 1])

    def why(self, status: dict[str, Any]) -> str:
        """The cause of a failure as `dml run` tells it, by the logs that EMR archives; its details are EMR's."""
        assert status["State"] == "FAILED"
        details = status["FailureDetails"]
        assert details["Reason"] == "Unknown Error."
        assert re.fullmatch(
            r'Exception in thread "main" org\.apache\.spark\.SparkException: '
            r"Application application_\d+_\d+ finished with failed status",
            details["Message"],
        )
        return step_log.read_cause(self.platform.s3, f"(log: {details['LogFile']})", seconds=60)


@pytest.fixture(scope="module")
def workbench(cloud: Cloud, platform: Platform) -> Workbench:
    name = platform.output(Output.WORKBENCH_PARAMETER)
    cluster = platform.client("ssm").get_parameter(Name=name)["Parameter"]["Value"]
    return Workbench(platform, cluster, cloud.place.logs / "emr" / cluster)


@pytest.fixture(scope="module")
def run(cloud: Cloud, platform: Platform) -> pipeline.Run:
    """A whole run, which has ended."""
    data.push(platform, load_dataset(DATASET), cache=cloud.place.home / "raw", on_progress=lambda _text: None)
    started = pipeline.start(platform, DATASET, "run")
    for _ in pipeline.follow(platform, started, every=0.5):
        pass
    return started


def test_several_classes_should_go_the_whole_way_on_yarn(
    cloud: Cloud,
    platform: Platform,
    workbench: Workbench,
    run: pipeline.Run,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert (run.state, run.output.get("published")) == ("SUCCEEDED", True), run.cause
    told = gather(platform, DATASET, run)
    assert told.metrics["test"]["accuracy"] > 0.9 > told.metrics["baseline"]["accuracy"]
    assert told.predicted["rows"] == told.prepared["rows_out"] == 344
    pointer = platform.json_object(Output.MODELS_BUCKET, f"{DATASET}/CURRENT.json")
    assert pointer is not None
    assert (pointer["run_id"], pointer["metrics"]["macro_f1"]) == (run.run_id, told.metrics["test"]["macro_f1"])
    with pytest.MonkeyPatch.context() as patch:
        code, _, err = run_dml(patch, capsys, "report", DATASET, "--local")
    assert code == 0, err
    assert "Adelie" in next((cloud.place.home / "reports").glob(f"*{run.run_id}*")).read_text(encoding="utf-8")
    steps = workbench.emr.list_steps(ClusterId=workbench.cluster)["Steps"]
    applications = {workbench.application(step["Id"]) for step in steps if step["Name"].endswith(run.run_id)}
    assert len(applications) == 2
    for one in applications:  # the master's container, and an executor's
        assert len(list((workbench.logs / "containers" / one).iterdir())) >= 2


@pytest.mark.usefixtures("run")
def test_a_job_that_fails_on_yarn_should_say_why_and_where_it_has_printed_so(
    platform: Platform, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        code, _, err = run_dml(patch, capsys, "predict", DATASET, "--table", "nonesuch", "--local", "--yarn")
    assert code == 1
    assert "nonesuch" in err
    assert "finished with failed status" not in err
    told = re.search(r"s3://([^/]+)/(\S+/containers/application_\S+/stdout\.gz)", err.replace("\n", ""))
    assert told, err
    bucket, key = told.groups()
    until(lambda: platform.s3.list_objects_v2(Bucket=bucket, Prefix=key).get("Contents"))


TAG = ("--conf", "spark.yarn.tags=Run-of-Tests")


@dataclass(frozen=True)
class Ticking:
    """A step whose script writes a line now and then, without end."""

    step: str
    application: str


@pytest.fixture(scope="module")
def ticking(workbench: Workbench) -> Ticking:
    step = workbench.submit("tick", *TAG)
    stderr = workbench.logs / "steps" / step / "stderr"
    until(lambda: stderr.exists() and "(state: RUNNING)" in stderr.read_text(), STARTS)
    made = Ticking(step, workbench.application(step))
    until(lambda: "tick" in workbench.printed(made.application), STARTS)
    return made


@pytest.fixture
def processes(cloud: Cloud) -> list[int]:
    """All that the cloud has started, but for its server."""
    server = json.loads((cloud.place.cloud / "server.json").read_text())["pid"]
    return [pid for pid in descendants(server) if pid != server]


@pytest.mark.usefixtures("ticking")
def test_nobody_should_reach_what_yarn_and_its_containers_listen_on(processes: list[int]) -> None:
    here = Path("/proc/self/ns/net").readlink()
    inside = [pid for pid in processes if Path(f"/proc/{pid}/ns/net").readlink() != here]
    ports = {(one.address, one.port) for one in listening(inside)}
    yarns = {(address, port) for address, port in ports if 8030 <= port <= 8088}
    assert {port for _, port in yarns} == {8030, 8031, 8032, 8033, 8040, 8041, 8042, 8088}
    assert len(ports) > len(yarns) + 2  # the master's, Spark's, Python's
    for address, port in yarns:
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection((address, port), timeout=5)
    for pid in inside:
        devices = Path(f"/proc/{pid}/net/dev").read_text().splitlines()[2:]
        assert [line.partition(":")[0].strip() for line in devices] == ["lo"]
    assert listening([pid for pid in processes if pid not in inside]) == []  # the gateway's is in there


@pytest.mark.usefixtures("ticking")
def test_no_secret_of_a_step_on_yarn_should_be_on_a_command_line_or_in_a_log(
    processes: list[int], workbench: Workbench
) -> None:
    environments = [Path(f"/proc/{pid}/environ").read_bytes().decode().split("\0") for pid in processes]
    named = [line.partition("=") for lines in environments for line in lines]
    secrets = {value for name, _, value in named if re.fullmatch(r"AWS_(SECRET_ACCESS_KEY|SESSION_TOKEN)", name)}
    assert len(secrets) >= 2
    logs = "".join(file.read_text(errors="replace") for file in workbench.logs.rglob("*") if file.is_file())
    assert "tick" in logs
    for secret in secrets:
        assert not [line for line in command_lines().values() if secret in line]
        assert secret not in logs


@pytest.mark.usefixtures("run")
def test_a_later_attempt_should_end_what_a_cancelled_step_left_and_outlive_an_executor_but_no_master(
    workbench: Workbench, ticking: Ticking, tmp_path: Path
) -> None:
    former = ticking.application
    workbench.emr.cancel_steps(ClusterId=workbench.cluster, StepIds=[ticking.step])
    assert workbench.end(ticking.step)["State"] == "CANCELLED"
    before = len(workbench.printed(former))
    until(lambda: len(workbench.printed(former)) > before + 10)  # it goes on

    second = workbench.submit("follow", *TAG, "--py-files", workbench.library(), given=str(tmp_path / "killed"))
    why = workbench.why(workbench.end(second))
    later = workbench.application(second)
    said = workbench.printed(later)
    assert f"killed {former}, which an earlier attempt of this run had left behind" in said
    assert (tmp_path / "killed").exists()
    assert "counted 200" in said
    assert "Traceback" not in said
    assert len(list((workbench.logs / "containers" / later).iterdir())) == 3  # the master, two executors
    assert why.startswith("the driver was killed from outside")
    assert not [line for line in command_lines().values() if former in line]


def test_a_driver_over_its_memory_should_be_told_with_its_figures(workbench: Workbench) -> None:
    small = ("--driver-memory", "512m", "--conf", "spark.driver.memoryOverhead=384m")
    why = workbench.why(workbench.end(workbench.submit("grow", *small)))
    assert re.match(
        r"YARN ended the driver's container, which used \S+ \wB of 896 MB: raise spark\.driver\.memory", why
    )
