"""Each way in which a run can fail, on the deployed platform: it ends for its own reason and leaves nothing behind.

Where each failure is tested:

| what fails                          | test |
|---|---|
| the crawl                           | here: test_a_failed_crawl_... |
| the Glue job                        | test_whole_way.py: a missing permission; refusals in tests/jobs |
| the Glue job runs out of time       | here: test_a_glue_job_that_runs_out_of_time_... |
| the cluster does not come up        | here: test_a_cluster_that_does_not_come_up_... |
| a step fails                        | here: test_a_failed_step_...; refusals in tests/jobs |
| a step never starts                 | here: test_a_step_that_never_starts_... |
| a step is cancelled                 | here: test_a_cancelled_step_... |
| the gate refuses                    | test_whole_way.py: test_the_gate_should_keep_the_current_model_... |
| publishing loses a race             | here: test_a_lost_race_...; faults/test_publish.py: five at once |
| the answer to publishing is lost    | here: test_a_deploy_during_a_run_... |
| the notification fails              | here: test_a_redriven_run_should_go_on_and_keep_..., and the one after it |
| a run is stopped, the server dies   | test_whole_way.py: an interrupt; faults/test_killed.py: jobs killed half-way |
| newer code is deployed meanwhile    | here: test_a_deploy_during_a_run_... (which does not fail) |
| the machine runs out of time        | local/test_states.py: test_a_machines_timeout_... |

The clusters that a failure may not leave are counted after each test.
"""

import json
import re
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from datasets import load_dataset, raw_files
from dml import cdk, checkout
from dml.checkout import PROJECT
from dml.estate import data
from dml.estate.platform import Platform
from dml.local.cloud import Cloud
from dml.local.deploy import deploy, deploy_assembly
from dml.local.services.emr import ALIVE
from stacks.outputs import Output, crawler_output, database_output, state_machine_output
from tests.command import run_dml
from tests.e2e.published import assert_scored_as_by_the_run
from tests.local.conftest import until

DATASET, SLOW = "life_expectancy", "penguins"
NOTHING: dict[str, Any] = {"predictions": [], "current": None}
HANGS = "import time\nwhile True:\n    time.sleep(1)\n"
WHOLE_RUN = 180.0


class Runs:
    """The deployed platform, and runs of its state machines."""

    def __init__(self, cloud: Cloud) -> None:
        self.platform = Platform("dev", credentials=cloud.environment())
        self.client = self.platform.client
        self.states = self.client("stepfunctions")
        self._started = 0
        self._told: list[str] = []
        topic, arn = self.platform.output(Output.TOPIC), "arn:aws:sqs:us-east-1:000000000000:failures"
        heard = {"Effect": "Allow", "Principal": {"Service": "sns.amazonaws.com"}, "Action": "sqs:SendMessage"}
        policy = json.dumps({"Statement": [heard | {"Resource": arn}]})
        made = self.client("sqs").create_queue(QueueName="failures", Attributes={"Policy": policy})
        self._queue = made["QueueUrl"]
        self.client("sns").subscribe(TopicArn=topic, Protocol="sqs", Endpoint=arn)

    def start(self, dataset: str = DATASET, **given: str) -> str:
        self._started += 1
        machine = self.platform.output(state_machine_output(dataset))
        name = f"failing-{dataset}-{self._started}"
        arn: str = self.states.start_execution(stateMachineArn=machine, name=name, input=json.dumps(given))[
            "executionArn"
        ]
        return arn

    def end(self, arn: str) -> dict[str, Any]:
        """The execution as it is told of when it has ended."""

        def ended() -> Any:
            told = self.states.describe_execution(executionArn=arn)
            return told if told["status"] != "RUNNING" else None

        found: dict[str, Any] = until(ended, seconds=WHOLE_RUN, every=0.3)
        return found

    def redrive(self, arn: str) -> dict[str, Any]:
        self.states.redrive_execution(executionArn=arn)
        return self.end(arn)

    def entered(self, arn: str) -> list[str]:
        """The states that an execution has entered, one after the other."""
        pages = self.states.get_paginator("get_execution_history").paginate(executionArn=arn)
        events = [event for page in pages for event in page["events"]]
        return [e["stateEnteredEventDetails"]["name"] for e in events if "stateEnteredEventDetails" in e]

    def role(self, dataset: str = DATASET) -> str:
        machine = self.platform.output(state_machine_output(dataset))
        return str(self.states.describe_state_machine(stateMachineArn=machine)["roleArn"].rpartition("/")[2])

    def told(self, ended: Mapping[str, Any]) -> list[str]:
        """The notifications on a run."""
        sqs = self.client("sqs")
        while messages := sqs.receive_message(QueueUrl=self._queue, MaxNumberOfMessages=10).get("Messages"):
            for message in messages:
                self._told.append(json.loads(message["Body"])["Message"])
                sqs.delete_message(QueueUrl=self._queue, ReceiptHandle=message["ReceiptHandle"])
        return [message for message in self._told if f"{ended['name']} " in message]

    def clusters(self) -> set[str]:
        """The clusters that cost money."""
        return {one["Id"] for one in self.client("emr").list_clusters(ClusterStates=list(ALIVE))["Clusters"]}

    def published(self) -> dict[str, Any]:
        """What readers find: the current model and where the predictions are."""
        tables = self.client("glue").get_tables(DatabaseName=self.platform.output(database_output(DATASET)))[
            "TableList"
        ]
        located = [table["StorageDescriptor"]["Location"] for table in tables if table["Name"] == "predictions"]
        current = self.platform.json_object(Output.MODELS_BUCKET, f"{DATASET}/CURRENT.json")
        return {"predictions": located, "current": current}

    def move_pointer(self, run_id: str) -> dict[str, Any]:
        """Makes the current model somebody's, and returns what CURRENT.json says now."""
        moved: dict[str, Any] = self.published()["current"] | {"run_id": run_id}
        bucket, key = self.platform.output(Output.MODELS_BUCKET), f"{DATASET}/CURRENT.json"
        noted = self.platform.s3.head_object(Bucket=bucket, Key=key)["ETag"]
        self.platform.s3.put_object(Bucket=bucket, Key=key, Body=json.dumps(moved).encode(), IfMatch=noted)
        return moved

    @contextmanager
    def denied(self, role: str, action: str) -> Iterator[None]:
        """For a while a role may not do something."""
        iam = self.client("iam")
        document = {"Statement": [{"Effect": "Deny", "Action": action, "Resource": "*"}]}
        iam.put_role_policy(RoleName=role, PolicyName="denied", PolicyDocument=json.dumps(document))
        try:
            yield
        finally:
            iam.delete_role_policy(RoleName=role, PolicyName="denied")


@pytest.fixture(scope="module")
def deployed(cloud: Cloud) -> Runs:
    deploy(cloud, "dev", on_progress=lambda _text: None)
    made = Runs(cloud)
    data.push(made.platform, load_dataset(DATASET), cache=cloud.place.home / "raw", on_progress=lambda _text: None)
    return made


@pytest.fixture
def runs(deployed: Runs) -> Iterator[Runs]:
    """The runs; after the test no cluster is alive that was not alive before."""
    before = deployed.clusters()
    yield deployed
    until(lambda: deployed.clusters() <= before, seconds=20)


@pytest.fixture
def no_workbench(deployed: Runs) -> Iterator[None]:
    with parameter(deployed, deployed.platform.output(Output.WORKBENCH_PARAMETER), "none"):
        yield


@contextmanager
def parameter(runs: Runs, name: str, value: str) -> Iterator[None]:
    """An SSM parameter with another value for a while."""
    ssm = runs.client("ssm")
    before = ssm.get_parameter(Name=name)["Parameter"]["Value"]
    ssm.put_parameter(Name=name, Value=value, Overwrite=True)
    try:
        yield
    finally:
        ssm.put_parameter(Name=name, Value=before, Overwrite=True)


@pytest.fixture(scope="module")
def out_of_time(deployed: Runs) -> str:
    """A run whose Glue job hangs and may take a minute, the least that Glue knows; it hangs while other tests run."""
    glue, s3 = deployed.client("glue"), deployed.platform.s3
    database = deployed.platform.output(database_output(SLOW))  # of this environment
    (job,) = (one for one in glue.get_jobs()["Jobs"] if one["DefaultArguments"].get("--database") == database)
    raw = deployed.platform.output(Output.RAW_BUCKET)
    s3.put_object(Bucket=raw, Key=f"{SLOW}/hangs.py", Body=HANGS.encode())
    command = job["Command"] | {"ScriptLocation": f"s3://{raw}/{SLOW}/hangs.py"}
    changed = {key: job[key] for key in ("Role", "DefaultArguments", "GlueVersion", "WorkerType", "NumberOfWorkers")}
    glue.update_job(JobName=job["Name"], JobUpdate=changed | {"Command": command, "Timeout": 1})
    arn = deployed.start(SLOW)

    def restore() -> None:
        changed["Timeout"] = job["Timeout"]
        glue.update_job(JobName=job["Name"], JobUpdate=changed | {"Command": job["Command"]})

    until(lambda: glue.get_job_runs(JobName=job["Name"])["JobRuns"])
    restore()  # the run has read what it needs
    return arn


@pytest.fixture(scope="module")
def first(deployed: Runs) -> str:
    """The first run, which fails in three tests, each time further on, and then succeeds: the ARN of its execution."""
    crawler = deployed.client("glue").get_crawler(Name=deployed.platform.output(crawler_output(DATASET)))["Crawler"]
    with deployed.denied(crawler["Role"].rpartition("/")[2], "s3:ListBucket"):
        arn = deployed.start()
        deployed.end(arn)
    return arn


@pytest.mark.usefixtures("out_of_time")
def test_a_failed_crawl_should_fail_the_run(runs: Runs, first: str) -> None:
    failed = runs.end(first)
    assert (failed["status"], failed["error"]) == ("FAILED", "CrawlFailed")
    assert failed["cause"].startswith("crawl: the crawl ended as FAILED: ")
    assert "s3:ListBucket" in failed["cause"]
    (told,) = runs.told(failed)
    assert told.startswith(f"Run {failed['name']} failed at stage crawl: ")
    assert runs.published() == NOTHING


def test_a_redriven_run_should_go_on_and_keep_what_it_has_made_if_it_cannot_notify(runs: Runs, first: str) -> None:
    with runs.denied(runs.role(), "sns:Publish"):
        failed = runs.redrive(first)
    assert (failed["status"], failed["error"]) == ("FAILED", "SNS.AuthorizationErrorException"), failed
    assert failed["cause"].startswith("notify: ")
    assert "sns:Publish" in failed["cause"]
    assert runs.entered(first).count("begin: read the input") == 1
    assert len(runs.told(failed)) == 1, "of the crawl"
    after = runs.published()
    assert after["current"]["run_id"] == failed["name"]
    assert after["predictions"] != []


def test_a_run_that_could_not_notify_should_do_that_alone_when_it_is_redriven(runs: Runs, first: str) -> None:
    before = runs.published()
    ended = runs.redrive(first)
    assert (ended["status"], json.loads(ended["output"])["published"]) == ("SUCCEEDED", True), ended
    assert runs.entered(first).count("predict: add the step") == 1
    assert runs.told(ended)[1].startswith(f"Run {ended['name']} has published its model and predictions")
    assert runs.published() == before


def test_what_a_redriven_run_has_published_should_be_reported_and_score_a_raw_file_to_the_last_bit(
    runs: Runs,
    first: str,
    cloud: Cloud,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    """A model of a number; one of a chance is in test_whole_way.py, one of several classes in apart/test_prod.py."""
    monkeypatch.setattr(checkout, "HOME", cloud.place.home)
    run_id = first.rpartition(":")[2]
    code, out, err = run_dml(monkeypatch, capsys, "models", "show", run_id, "--dataset", DATASET, "--local")
    assert (code, "RMSE" in out) == (0, True), err
    code, _, err = run_dml(monkeypatch, capsys, "report", DATASET, "--local")
    assert code == 0, err
    assert "years" in (cloud.place.home / "reports" / f"{DATASET}-{run_id}.html").read_text(encoding="utf-8")
    settings = load_dataset(DATASET)
    (file,) = raw_files(settings, cloud.place.home / "raw")[settings.main].values()
    assert_scored_as_by_the_run(DATASET, file, runs.platform, "dev", capsys, tmp_path)


@pytest.mark.usefixtures("no_workbench")
def test_a_cluster_that_does_not_come_up_should_fail_the_run_and_not_be_left(runs: Runs) -> None:
    before = runs.published()
    with parameter(runs, "/dml/dev/cluster/wheels", "s3://nowhere/wheels.zip"):
        arn = runs.start(do="predict")
        failed = runs.end(arn)
    assert (failed["status"], failed["error"]) == ("FAILED", "ClusterFailed")
    assert "did not start: " in failed["cause"]
    assert "bootstrap" in failed["cause"].lower()
    (told,) = runs.told(failed)
    assert "failed at stage cluster: " in told
    assert runs.published() == before


def test_a_failed_step_should_fail_the_run_with_its_own_reason_of_this_very_attempt(runs: Runs) -> None:
    """EMR knows no reason: it is in failure.json, which a job leaves anew each time that its run is redriven."""
    before, lake = runs.published(), runs.platform.output(Output.LAKE_BUCKET)
    arn = runs.start(do="predict", table="nonesuch")
    failed = runs.end(arn)
    assert (failed["status"], failed["error"]) == ("FAILED", "States.TaskFailed")
    assert failed["cause"].startswith("predict: ")
    assert re.search(r"/emr/j-\w+/containers/(application_\d+_\d+)/container_\w+/stdout\.gz\)$", failed["cause"])
    (told,) = runs.told(failed)
    assert "failed at stage predict: " in told
    assert runs.published() == before

    first = runs.platform.json_object(
        Output.LAKE_BUCKET, left := f"{DATASET}/runs/{failed['name']}/attempt-0/failure.json"
    )
    assert first
    assert (first["stage"], first["sentence"] in failed["cause"]) == ("predict", True)
    changed = json.dumps(first | {"sentence": "The first attempt's reason."})
    runs.platform.s3.put_object(Bucket=lake, Key=left, Body=changed.encode())
    again = runs.redrive(arn)
    assert again["cause"].startswith(f"predict: {first['sentence']}")
    with pytest.raises(runs.platform.s3.exceptions.NoSuchKey):  # of another attempt nothing is left, nor taken
        runs.platform.s3.get_object(Bucket=lake, Key=left.replace("attempt-0", "attempt-2"))


def test_a_step_that_never_starts_should_be_told_from_one_that_fails(runs: Runs) -> None:
    node = next(role["RoleName"] for role in runs.client("iam").list_roles()["Roles"] if "NodeRole" in role["RoleName"])
    # The script cannot be had, nor could failure.json be written before Spark starts.
    with runs.denied(node, "s3:GetObject"):
        failed = runs.end(runs.start(do="predict"))
    assert failed["cause"].startswith("predict: it did not start: "), failed["cause"]
    assert "is not authorized to perform: s3:GetObject" in failed["cause"]


@pytest.mark.usefixtures("no_workbench")
def test_a_cancelled_step_should_end_its_cluster_and_a_redriven_run_take_another(runs: Runs) -> None:
    before, clusters, emr = runs.published(), runs.clusters(), runs.client("emr")
    arn = runs.start(do="predict")

    def running() -> Any:
        for cluster in runs.clusters() - clusters:
            for step in emr.list_steps(ClusterId=cluster, StepStates=["RUNNING"])["Steps"]:
                return {"ClusterId": cluster, "StepIds": [step["Id"]]}
        return None

    (told,) = emr.cancel_steps(**until(running, seconds=WHOLE_RUN))["CancelStepsInfoList"]
    assert told["Status"] == "SUBMITTED", told
    failed = runs.end(arn)
    assert (failed["status"], failed["error"]) == ("FAILED", "States.TaskFailed")
    assert failed["cause"].startswith("predict: it ended as CANCELLED: ")
    assert "failed at stage predict: " in runs.told(failed)[0]
    assert runs.published() == before
    until(lambda: runs.clusters() == clusters)

    ended = runs.redrive(arn)
    assert ended["status"] == "SUCCEEDED", ended
    assert runs.published()["predictions"] != before["predictions"]
    told = runs.platform.json_object(Output.LAKE_BUCKET, f"{DATASET}/runs/{ended['name']}/predict.json")
    assert told is not None
    assert told["rows"] > 0
    assert runs.entered(arn).count("cluster: create a transient one") == 2


def test_a_lost_race_should_keep_the_winner_and_not_be_redriven_past_the_gate(runs: Runs) -> None:
    before = runs.published()
    arn = runs.start()
    until(lambda: "train: add the step" in runs.entered(arn), every=0.3)
    winner = runs.move_pointer("somebody-elses")
    failed = runs.end(arn)
    assert (failed["status"], failed["error"]) == ("FAILED", "LostRace")
    assert "publish: another run published first" in failed["cause"]
    assert "failed at stage publish: " in runs.told(failed)[0]
    assert runs.published() == before | {"current": winner}
    until(lambda: runs.platform.json_object(Output.MODELS_BUCKET, f"{DATASET}/{failed['name']}/manifest.json"))

    trained = runs.entered(arn).count("train: add the step")
    again = runs.redrive(arn)
    assert (again["status"], again["error"], again["cause"]) == ("FAILED", "LostRace", failed["cause"])
    assert runs.entered(arn).count("train: add the step") == trained == 1
    assert runs.published()["current"] == winner


def test_a_glue_job_that_runs_out_of_time_should_fail_the_run(runs: Runs, out_of_time: str) -> None:
    failed = runs.end(out_of_time)
    assert (failed["status"], failed["error"]) == ("FAILED", "States.TaskFailed")
    assert failed["cause"].startswith("prepare: The job ran longer than its timeout of 1 minutes.")
    assert "cluster: look up the workbench" not in runs.entered(out_of_time)
    assert runs.platform.json_object(Output.MODELS_BUCKET, f"{SLOW}/CURRENT.json") is None


def test_a_run_that_the_clock_starts_should_end_at_once_until_there_has_been_a_model(runs: Runs) -> None:
    """And say why; by hand the first one is started."""
    arn = runs.start("census_income", do="run", revision="scheduled")
    ended = runs.end(arn)
    assert ended["status"] == "SUCCEEDED", ended.get("cause")
    assert json.loads(ended["output"])["published"] is False
    (told,) = runs.told(ended)
    assert told.endswith("has ended at once: no model has ever been published, and the first one is yours to start.")
    assert {name.partition(":")[0] for name in runs.entered(arn)} == {"begin", "notify"}


def test_in_a_paused_environment_the_clock_should_start_nothing_and_people_be_told_the_way_out(runs: Runs) -> None:
    ssm, name = runs.client("ssm"), "/dml/dev/network"
    value = ssm.get_parameter(Name=name)["Parameter"]["Value"]
    ssm.delete_parameter(Name=name)
    try:
        ended = runs.end(runs.start(do="run", revision="scheduled"))
        assert (ended["status"], json.loads(ended["output"])["reasons"]) == ("SUCCEEDED", ["dev is paused"])
        assert "has ended at once: dev is paused." in runs.told(ended)[0]
        failed = runs.end(runs.start())
        assert (failed["error"], failed["cause"]) == ("Paused", "begin: dev is paused: bring it back with dml resume")
    finally:
        ssm.put_parameter(Name=name, Value=value, Type="String")


def changed_checkout(folder: Path) -> Path:
    """A copy of this checkout in which every job and the library are other files."""
    for part in ("app.py", "cdk.json", "cluster", "datasets", "environments", "jobs", "notebooks", "stacks"):
        copy = shutil.copytree if (PROJECT / part).is_dir() else shutil.copy
        copy(PROJECT / part, folder / part)
    (folder / ".dml").mkdir()
    (folder / ".dml" / "wheels").symlink_to(PROJECT / ".dml" / "wheels")
    for name in ("prepare.py", "train.py", "predict.py", "job.py"):
        with (folder / "jobs" / name).open("a", encoding="utf-8") as job:
            job.write("# Newer.\n")
    return folder


def scripts_of(runs: Runs, arn: str, cluster: str) -> set[str]:
    """The scripts that a run's steps on a cluster were started with."""
    steps = runs.client("emr").list_steps(ClusterId=cluster)["Steps"]
    own = [step for step in steps if step["Name"].endswith(f" {arn.rpartition(':')[2]}")]
    return {text for step in own for text in step["Config"]["Args"] if text.endswith(".py")}


def test_a_deploy_during_a_run_should_break_neither_that_run_nor_the_next(
    runs: Runs, cloud: Cloud, tmp_path: Path
) -> None:
    """A step that hangs on the workbench holds the run's training back, until newer code is deployed.

    And a publish whose answer was lost counts.
    """
    cdk.synthesize("dev", tmp_path / "out", dataset=DATASET, project=changed_checkout(tmp_path))
    raw, emr = runs.platform.output(Output.RAW_BUCKET), runs.client("emr")
    runs.platform.s3.put_object(Bucket=raw, Key="hangs/hangs.py", Body=HANGS.encode())
    (workbench,) = runs.clusters()
    jar = {"Jar": "command-runner.jar", "Args": ["spark-submit", f"s3://{raw}/hangs/hangs.py"]}
    step = {"Name": "hangs", "ActionOnFailure": "CONTINUE", "HadoopJarStep": jar}
    (hanging,) = emr.add_job_flow_steps(JobFlowId=workbench, Steps=[step])["StepIds"]
    arn = runs.start()
    until(lambda: "train: add the step" in runs.entered(arn), seconds=WHOLE_RUN, every=0.3)
    own = runs.move_pointer(arn.rpartition(":")[2])  # as if S3 had taken the write and then fallen silent
    deploy_assembly(cloud, tmp_path / "out", on_progress=lambda _text: None)
    emr.cancel_steps(ClusterId=workbench, StepIds=[hanging])
    ended = runs.end(arn)
    assert ended["status"] == "SUCCEEDED", ended.get("cause")
    assert len(scripts_of(runs, arn, workbench)) == 2, "train and predict"
    assert json.loads(ended["output"])["published"] is True
    assert "publish: read whose model is current" in runs.entered(arn)
    assert "has published its model and predictions" in runs.told(ended)[0]
    assert runs.published()["current"] == own

    following = runs.start(do="predict")
    ended = runs.end(following)
    assert ended["status"] == "SUCCEEDED", ended.get("cause")
    (newer,) = scripts_of(runs, following, workbench)
    assert newer not in scripts_of(runs, arn, workbench)


def test_a_dataset_should_be_taken_away_alone_and_its_data_only_if_asked(
    runs: Runs, cloud: Cloud, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def stacks() -> set[str]:
        return {one["StackName"] for one in runs.client("cloudformation").describe_stacks()["Stacks"]}

    def remove(*options: str) -> tuple[int, str]:
        code, _, err = run_dml(monkeypatch, capsys, "dataset", "remove", SLOW, "--local", "--yes", *options)
        return code, err

    def lies() -> int:
        return int(runs.platform.s3.list_objects_v2(Bucket=raw, Prefix=f"{SLOW}/")["KeyCount"])

    monkeypatch.setattr(checkout, "HOME", cloud.place.home)
    raw, before = runs.platform.output(Output.RAW_BUCKET), stacks()
    runs.platform.s3.put_object(Bucket=raw, Key=f"{SLOW}/more.csv", Body=b"1")
    objects = lies()
    try:
        code, err = remove()
        assert code == 0, err
        assert f"Kept: s3://{raw}/{SLOW}/" in err
        assert (stacks(), lies()) == (before - {f"dml-dev-{SLOW}"}, objects)
        code, err = remove("--data")
        assert (code, lies()) == (0, 0), err
        code, err = remove()
        assert (code, f"There is no dataset {SLOW} in dev" in err) == (1, True)
    finally:
        deploy(cloud, "dev", on_progress=lambda _text: None)
    assert stacks() == before
