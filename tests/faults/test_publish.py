"""The moment that moves CURRENT.json: runs that are stopped there, that meet there, and that have a wrong clock."""

import json
import threading
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import pytest

from stacks.definition import REASONS, Parts, publish
from tests.distributed.standalone import until
from tests.embedded import Clients
from tests.shipped import role

MODELS = "faults-publish"
METRICS = {"auc": 0.7, "pr_auc": 0.4, "log_loss": 0.5, "brier": 0.2, "accuracy": 0.8, "rows": 10}
KEY = "points/CURRENT.json"


class Registry:
    """A models bucket, and the publish stage of stacks/definition.py as a state machine of its own."""

    def __init__(self, aws: Clients) -> None:
        self.s3, self.states = aws("s3"), aws("stepfunctions")
        self.s3.create_bucket(Bucket=MODELS)
        everything = {"Effect": "Allow", "Action": "s3:*", "Resource": "*"}
        role(aws, "faults-publish", everything, service="states.amazonaws.com")
        given: dict[str, Any] = dict.fromkeys(Parts.__dataclass_fields__, "-")
        given |= {"dataset": "points", "models_bucket": MODELS, "partition": "aws", "region": "us-east-1"}
        given["figures"] = ("log_loss", "auc")
        states = publish(Parts(**given))  # what publish does not read may be anything
        assigned = {"run_id": "{% $states.context.Execution.Name %}", "current": "{% $states.input.current %}"}
        assigned |= {"previous": {}}
        first = {"Type": "Pass", "Assign": assigned, "Next": "publish: read the figures"}
        failed = {"Type": "Fail", "Error": "{% $failure.error %}", "Cause": "{% $failure.cause %}"}
        last = {"predict: add the step": {"Type": "Succeed"}, REASONS: failed}
        definition = {"QueryLanguage": "JSONata", "StartAt": "begin", "States": {"begin": first, **states, **last}}
        arn = aws("iam").get_role(RoleName="faults-publish")["Role"]["Arn"]
        made = self.states.create_state_machine(name="publish", roleArn=arn, definition=json.dumps(definition))
        self._machine = made["stateMachineArn"]

    def start(self, run_id: str, current: str) -> str:
        """Publishes a whole run that began when CURRENT.json had the ETag `current`; the execution's ARN."""
        for file, body in (("figures.json", METRICS), ("manifest.json", {"run_id": run_id})):
            self.s3.put_object(Bucket=MODELS, Key=f"points/{run_id}/{file}", Body=json.dumps(body).encode())
        given = json.dumps({"current": current})
        arn: str = self.states.start_execution(stateMachineArn=self._machine, name=run_id, input=given)["executionArn"]
        return arn

    def end(self, arn: str) -> dict[str, Any]:
        until(lambda: self.told(arn)["status"] != "RUNNING", "the execution has ended")
        return self.told(arn)

    def told(self, arn: str) -> dict[str, Any]:
        found: dict[str, Any] = self.states.describe_execution(executionArn=arn)
        return found

    def current(self) -> tuple[str, str]:
        """The run that CURRENT.json names, which must be whole, and its ETag."""
        answer = self.s3.get_object(Bucket=MODELS, Key=KEY)
        pointer = json.loads(answer["Body"].read())
        assert pointer["model"] == f"s3://{MODELS}/points/{pointer['run_id']}/"
        assert pointer["metrics"] == METRICS
        self.s3.head_object(Bucket=MODELS, Key=f"points/{pointer['run_id']}/manifest.json")
        return pointer["run_id"], answer["ETag"]


@pytest.fixture(scope="module")
def registry(aws: Clients) -> Iterator[Registry]:
    yield Registry(aws)


def test_of_runs_that_publish_at_once_one_should_win_and_the_others_be_told(registry: Registry) -> None:
    for current in ("", None):  # the first model, then the one after it
        etag = current if current is not None else registry.current()[1]
        started = [registry.start(f"run-at-once-{len(etag)}-{i}", etag) for i in range(5)]
        ended = [registry.end(arn) for arn in started]
        won = [told["name"] for told in ended if told["status"] == "SUCCEEDED"]
        assert won == [registry.current()[0]]
        lost = [told["cause"] for told in ended if told["status"] == "FAILED"]
        assert len(lost) == 4
        assert all("Status Code: 412" in cause or "Status Code: 409" in cause for cause in lost)


def test_a_run_stopped_around_publishing_should_leave_the_old_model_or_the_new_one(registry: Registry) -> None:
    registry.end(registry.start("run-before", registry.current()[1] if exists(registry) else ""))
    seen: set[str] = set()
    done = threading.Event()
    wrong: list[str] = []

    def look_on() -> None:
        while not done.is_set():
            try:
                seen.add(registry.current()[0])
            except Exception as error:  # noqa: BLE001  # whatever a reader cannot read is what this is about
                wrong.append(repr(error))

    reader = threading.Thread(target=look_on)
    reader.start()
    stopped = 0
    try:
        for i in range(60):
            if i >= 16 and stopped:
                break
            before, etag = registry.current()
            arn = registry.start(f"run-stopped-{i}", etag)
            events = i % 8  # stopped when so many things have happened: before, while and after CURRENT.json moves
            until(
                lambda arn=arn, events=events: (  # type: ignore[misc]
                    len(registry.states.get_execution_history(executionArn=arn)["events"]) >= events
                    or registry.told(arn)["status"] != "RUNNING"
                ),
                "the run has come that far",
            )
            with suppress(registry.states.exceptions.ValidationException):  # it has ended by itself
                registry.states.stop_execution(executionArn=arn)
            status = registry.end(arn)["status"]
            stopped += status == "ABORTED"
            after, _ = registry.current()
            assert after in (before, f"run-stopped-{i}")
            assert status != "SUCCEEDED" or after == f"run-stopped-{i}"
    finally:
        done.set()
        reader.join()
    assert wrong == []
    assert len(seen) > 1
    assert stopped
    # Whatever was left behind, the next run publishes.
    assert registry.end(registry.start("run-after", registry.current()[1]))["status"] == "SUCCEEDED"
    assert registry.current()[0] == "run-after"


def test_what_is_current_should_follow_from_publishing_and_not_from_the_clock(registry: Registry) -> None:
    """Run ids hold the time of the machine that started the run; a slow one makes ids that sort before."""
    stale = registry.current()[1] if exists(registry) else ""
    assert registry.end(registry.start("run-20240105T120000000", stale))["status"] == "SUCCEEDED"
    slow = registry.start("run-20240105T110500000", registry.current()[1])
    assert registry.end(slow)["status"] == "SUCCEEDED"
    assert registry.current()[0] == "run-20240105T110500000"
    fast = registry.start("run-20240105T130000000", stale)
    assert registry.end(fast)["status"] == "FAILED"
    assert registry.current()[0] == "run-20240105T110500000"


def test_a_run_id_that_was_given_before_should_be_refused_and_change_nothing(registry: Registry) -> None:
    """Step Functions keeps names for 90 days: a clock set back cannot make one run write over another."""
    registry.end(registry.start("run-20240106T120000000", registry.current()[1] if exists(registry) else ""))
    before = registry.current()
    with pytest.raises(registry.states.exceptions.ExecutionAlreadyExists):
        registry.start("run-20240106T120000000", before[1])
    assert registry.current() == before


def exists(registry: Registry) -> bool:
    return "Contents" in registry.s3.list_objects_v2(Bucket=MODELS, Prefix=KEY)
