"""`dml zeppelin check`: an EMR step has the workbench's own Zeppelin run a note, and tells what became of it.

What the step does is jobs/zeppelin.py, which lies in S3 as the jobs do. It leaves its report in the lake, below
`notes/` of the dataset, where whatever runs on the cluster may write.
"""

import time
import uuid
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from dml.errors import UserError
from dml.estate.platform import Platform, answering
from dml.zeppelin import tunnel
from stacks.outputs import Output

BUSY = ("PENDING", "RUNNING", "CANCEL_PENDING")
NAME = "dml zeppelin check"


@dataclass(frozen=True)
class Report:
    """What the step has left: `document` as of jobs/zeppelin.py, {} if it left none. `why`: what stands in the way of
    the note, by the document or else by EMR; '' if nothing does.
    """

    step: str
    document: dict[str, Any]
    why: str = ""

    @property
    def passed(self) -> bool:
        return bool(self.document.get("passed"))


def check(
    platform: Platform,
    dataset: str,
    note: str,
    *,
    price: Callable[[], str],
    every: float,
    say: Callable[[str], None],
    port: int = tunnel.PORT,
    seconds: float = 1800.0,
) -> Report:
    """Has the note of a dataset run on the workbench, follows it to its end, and says what became of it.

    Raises UserError if there is no workbench that could, or if a step is on it already. An interruption leaves the step
    to its end and says how to cancel it.
    """
    cluster = tunnel.workbench(platform, price)["Id"]
    if dataset not in platform.datasets:
        raise UserError(f"{dataset} is not deployed; there are: {', '.join(platform.datasets) or 'none'}.")
    emr = platform.client("emr")
    key = f"{dataset}/notes/checks/{uuid.uuid4().hex[:8]}.json"
    with answering("ask what the workbench is at"):
        if busy := emr.list_steps(ClusterId=cluster, StepStates=list(BUSY))["Steps"]:
            raise UserError(
                f"The workbench {cluster} is at the step {busy[0]['Name']} ({busy[0]['Id']}), and runs one after the "
                "other: check again when it has ended (aws emr list-steps --cluster-id " + f"{cluster})."
            )
    words = {
        "--login": platform.output(Output.ZEPPELIN_LOGIN),
        "--region": platform.region or "",
        "--note": f"/{dataset}/{note}",
        "--report": platform.uri(Output.LAKE_BUCKET, key),
        "--port": str(port),
        "--seconds": f"{seconds:.0f}",
    }
    submitted = ["spark-submit", "--deploy-mode", "client", "--master", "local[1]"]  # it needs no YARN
    submitted += ["--py-files", platform.output(Output.CODE), platform.output(Output.ZEPPELIN_CHECK)]
    submitted += [part for pair in words.items() for part in pair]
    step = {
        "Name": NAME,
        "ActionOnFailure": "CONTINUE",
        "HadoopJarStep": {"Jar": "command-runner.jar", "Args": submitted},
    }
    with answering("add the step"):
        (name,) = emr.add_job_flow_steps(JobFlowId=cluster, Steps=[step])["StepIds"]
    say(f"step {name} of the workbench {cluster}")
    with _left_to_its_end(cluster, name):
        status = _ended(emr, cluster, name, every, say)
    document = platform.json_object(Output.LAKE_BUCKET, key) or {}
    if document:
        with answering("take the report away"):
            platform.s3.delete_object(Bucket=platform.output(Output.LAKE_BUCKET), Key=key)
    details = status.get("FailureDetails", {})
    said = [details.get("Message"), details.get("Reason"), status.get("StateChangeReason", {}).get("Message")]
    why = next((one for one in said if one), "EMR says no reason")
    where = f"; log: {details['LogFile']}" if details.get("LogFile") else ""
    lost = f"The step {name} is {status['State'].lower()}: {why}{where}"
    return Report(name, document, str(document.get("error", "")) if document else lost)


@contextmanager
def _left_to_its_end(cluster: str, step: str) -> Any:
    try:
        yield
    except KeyboardInterrupt:
        raise UserError(
            f"The step {step} goes on without you. To cancel it: aws emr cancel-steps --cluster-id {cluster} "
            f"--step-ids {step} --step-cancellation-option TERMINATE_PROCESS"
        ) from None


def _ended(emr: Any, cluster: str, step: str, every: float, say: Callable[[str], None]) -> dict[str, Any]:
    """The step's status when it has ended."""
    before = ""
    while True:
        with answering(f"follow the step {step}"):
            status: dict[str, Any] = emr.describe_step(ClusterId=cluster, StepId=step)["Step"]["Status"]
        if status["State"] != before:
            say(status["State"].lower())
        if status["State"] not in BUSY:
            return status
        before = status["State"]
        time.sleep(every)
