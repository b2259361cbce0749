"""Jobs really run under their roles, and their state machine sees what became of them."""

import gzip
import json
import re
from collections.abc import Callable
from pathlib import Path

from dml.local.cloud import Cloud
from dml.local.processes import command_lines
from tests.embedded import Clients
from tests.local.conftest import Machine, until


def test_glue_job_and_emr_step_should_run_the_script_that_their_template_names(
    aws: Clients, platform: dict[str, str], machine: Machine
) -> None:
    executions = [machine.start(do="job", mode="work"), machine.start(do="step", mode="work")]
    outputs = []
    for execution in executions:
        ended = machine.finish(execution)
        assert ended["status"] == "SUCCEEDED", ended
        outputs.append(json.loads(ended["output"]))
    assert outputs[0]["JobRunState"] == "SUCCEEDED"
    assert outputs[1]["Step"]["Status"]["State"] == "COMPLETED"
    for folder in ("people", "people_by_step"):
        found = aws("s3").list_objects_v2(Bucket=platform["Data"], Prefix=f"lake/{folder}/part-")["Contents"]
        text = "".join(
            aws("s3").get_object(Bucket=platform["Data"], Key=one["Key"])["Body"].read().decode() for one in found
        )
        assert [json.loads(line)["Name"] for line in text.splitlines()] == ["Ada", "Alan"]


def test_failing_jobs_should_fail_their_executions_with_no_more_words_than_glue_and_emr_have(
    aws: Clients, platform: dict[str, str], machine: Machine, logs: Path
) -> None:
    """EMR's FailureDetails know nothing of the script, and its logs come later; Glue has the script's message."""
    reason = "ValueError: the label column is empty"
    executions = [machine.start(do="job", mode="fail"), machine.start(do="step", mode="fail")]
    job, step = (machine.finish(execution) for execution in executions)
    assert (job["status"], job["error"]) == (step["status"], step["error"]) == ("FAILED", "States.TaskFailed")
    run = json.loads(job["cause"])
    assert run["JobRunState"] == "FAILED"
    assert re.fullmatch(
        rf"Error Category: UNCLASSIFIED_ERROR; Failed Line Number: \d+; {reason}.*", run["ErrorMessage"]
    )
    assert reason in (logs / "glue" / f"{run['Id']}.log").read_text()
    assert reason not in step["cause"]
    told = json.loads(step["cause"])["Step"]
    details, folder = told["Status"]["FailureDetails"], f"emr/{platform['Cluster']}"
    last = (
        r'Exception in thread "main" org\.apache\.spark\.SparkException: Application (application_\d+_\d+) finished .*'
    )
    application = re.fullmatch(last, details["Message"])
    assert application
    assert details["Reason"] == "Unknown Error."
    assert details["LogFile"] == f"s3://{platform['Data']}/{folder}/steps/{told['Id']}/stderr.gz"
    container = f"{application[1].replace('application', 'container')}_01_000001"
    kept = [
        f"steps/{told['Id']}/stderr",
        *(f"containers/{application[1]}/{container}/std{out}" for out in ("out", "err")),
    ]

    def archived(name: str) -> str | None:
        try:
            found = aws("s3").get_object(Bucket=platform["Data"], Key=f"{folder}/{name}.gz")["Body"].read()
        except aws("s3").exceptions.NoSuchKey:
            return None
        return gzip.decompress(found).decode()

    assert archived(kept[0]) is None  # they are archived after the end
    until(lambda: None not in map(archived, kept))
    of_step, stdout, stderr = (archived(name) or "" for name in kept)
    assert f"Submitted application {application[1]}" in of_step
    assert reason not in of_step + stderr
    assert stdout.splitlines()[-1] == reason


def test_a_permission_taken_from_a_role_should_fail_what_needs_it_and_say_so(
    aws: Clients, platform: dict[str, str], machine: Machine, without: Callable[[str, str], None]
) -> None:
    without(platform["JobRole"], "s3:PutObject")
    without(platform["MachineRole"], "elasticmapreduce:AddJobFlowSteps")
    job, step = (machine.run(do=what, mode="work") for what in ("job", "step"))
    message = json.loads(job["cause"])["ErrorMessage"]
    assert f"assumed-role/{platform['JobRole']}/" in message
    assert "is not authorized to perform: s3:PutObject on resource" in message
    assert f"{platform['Data']}/lake/people" in message
    assert step["status"] == "FAILED"
    assert (
        f"assumed-role/{platform['MachineRole']}/" in step["cause"]
        and "is not authorized to perform: elasticmapreduce:AddJobFlowSteps on resource: "
        f"arn:aws:elasticmapreduce:us-east-1:000000000000:cluster/{platform['Cluster']}"
        in step["cause"]
    )


def test_stopping_an_execution_should_end_the_spark_that_it_waits_for(
    cloud: Cloud, aws: Clients, platform: dict[str, str], machine: Machine
) -> None:
    work = cloud.place.cloud / "work"
    executions = [machine.start(do="job", mode="hang"), machine.start(do="step", mode="hang")]
    logs = ("glue/*.log", "emr/*/containers/*/*/stdout")
    until(lambda: sum("hanging" in log.read_text() for name in logs for log in cloud.place.logs.glob(name)) == 2)
    assert _programs_in(work)
    refused = aws("glue")
    try:
        refused.start_job_run(JobName=platform["Job"])
        raise AssertionError("a second run was accepted")
    except refused.exceptions.ConcurrentRunsExceededException:
        pass
    for execution in executions:
        aws("stepfunctions").stop_execution(executionArn=execution)
    until(lambda: not _programs_in(work), seconds=20)
    assert [machine.finish(execution)["status"] for execution in executions] == ["ABORTED", "ABORTED"]
    until(lambda: aws("glue").get_job_runs(JobName=platform["Job"])["JobRuns"][-1]["JobRunState"] == "STOPPED")
    until(lambda: aws("emr").describe_cluster(ClusterId=platform["Cluster"])["Cluster"]["Status"]["State"] == "WAITING")
    steps = aws("emr").list_steps(ClusterId=platform["Cluster"])["Steps"]
    assert "CANCELLED" in [step["Status"]["State"] for step in steps]


def test_a_pointer_should_be_published_once_and_the_second_time_be_refused_as_on_aws(
    aws: Clients, platform: dict[str, str], machine: Machine
) -> None:
    aws("s3").delete_object(Bucket=platform["Data"], Key="pointer/CURRENT.json")  # of other tests on this platform
    first, second = machine.run(do="put"), machine.run(do="put")
    assert first["status"] == "SUCCEEDED", first
    stored = aws("s3").get_object(Bucket=platform["Data"], Key="pointer/CURRENT.json")["Body"].read()
    assert json.loads(stored) == {"run": first["name"]}
    assert (second["status"], second["error"]) == ("FAILED", "Lost")
    assert "Status Code: 412" in second["cause"]


def _programs_in(folder: Path) -> list[str]:
    return [line for line in command_lines().values() if str(folder) in line]
