"""The state machine as a graph: every way through it, and out of it."""

import json
from collections.abc import Iterator
from typing import Any

import jsonata
import pytest

from stacks.definition import LOST, REASON
from tests.stacks.conftest import Synthesized

State = dict[str, Any]
STAGES = ["begin", "crawl", "prepare", "cluster", "train", "gate", "publish", "predict", "clean up", "notify"]


@pytest.fixture(scope="module")
def states(dev: Synthesized) -> dict[str, State]:
    found: dict[str, State] = dev.definition()["States"]
    return found


def onward(state: State) -> set[str]:
    """Where a state may lead to, by whatever way."""
    rules = [*state.get("Choices", []), *state.get("Catch", []), state, {"Next": state.get("Default")}]
    return {rule["Next"] for rule in rules if rule.get("Next")}


def expressions(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        for inner in value.values():
            yield from expressions(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from expressions(inner)
    elif isinstance(value, str) and value.startswith("{%"):
        assert value.endswith("%}")
        yield value[2:-2].strip()


def test_every_way_should_lead_to_a_state_that_is_there_and_every_state_should_be_reached(
    states: dict[str, State],
) -> None:
    reached = {"begin: read the input"} | {name for state in states.values() for name in onward(state)}
    assert reached == set(states)


def test_every_state_should_be_named_by_its_stage(states: dict[str, State]) -> None:
    assert list(dict.fromkeys(name.partition(":")[0] for name in states if name != "failed")) == STAGES


def test_every_task_should_be_caught_and_have_a_time_limit(states: dict[str, State]) -> None:
    tasks = {name: state for name, state in states.items() if state["Type"] == "Task"}
    assert len(tasks) == 23
    for name, state in tasks.items():
        assert state["TimeoutSeconds"] > 0, name
        last = state["Catch"][-1]
        assert last["ErrorEquals"] == ["States.ALL"], name
        if name != "notify: the failure" and not name.endswith(("send the counts", "send the figures")):
            assert last["Assign"]["failure"]["stage"] == name.partition(":")[0]


def test_only_what_may_pass_should_be_tried_again(states: dict[str, State]) -> None:
    for name, state in states.items():
        for retry in state.get("Retry", []):
            assert not {"States.ALL", "States.TaskFailed", "States.Timeout"} & set(retry["ErrorEquals"]), name


def test_every_way_from_a_new_cluster_should_lead_through_its_end(states: dict[str, State]) -> None:
    """Without passing `clean up: is there a transient cluster?` no way out may be reached from where a cluster is."""
    gate = "clean up: is there a transient cluster?"
    seen, coming = set(), onward(states["cluster: create a transient one"])
    while coming:
        name = coming.pop()
        if name != gate and name not in seen:
            seen.add(name)
            coming |= onward(states[name])
    assert "predict: add the step" in seen
    assert "clean up: end the transient cluster" not in seen
    assert not [name for name in seen if not onward(states[name])]  # no way out among them
    assert not [name for name in seen if name.startswith("notify")]
    (rule,) = states[gate]["Choices"]
    assert rule == {"Condition": "{% $transient %}", "Next": "clean up: end the transient cluster"}


def test_a_new_cluster_should_be_known_from_its_first_moment(states: dict[str, State]) -> None:
    """With .sync its id would be lost when it fails to start."""
    create = states["cluster: create a transient one"]
    assert create["Resource"].endswith(":elasticmapreduce:createCluster")
    assert create["Assign"]["cluster_id"] == "{% $states.result.ClusterId %}"
    assert create["Assign"]["transient"] is True


def test_the_transient_cluster_should_be_the_workbench_without_zeppelin(
    dev: Synthesized, states: dict[str, State]
) -> None:
    transient = states["cluster: create a transient one"]["Arguments"]
    workbench = dev.only("cluster", "AWS::EMR::Cluster")
    assert transient["ReleaseLabel"] == workbench["ReleaseLabel"]
    assert transient["ManagedScalingPolicy"] == workbench["ManagedScalingPolicy"]
    assert [application["Name"] for application in transient["Applications"]] == ["Hadoop", "Spark"]
    assert "ConfigurationProperties" not in json.dumps(transient)  # the template's word, which the API does not know
    assert [given["Classification"] for given in transient["Configurations"]] == [
        given["Classification"]
        for given in workbench["Configurations"]
        if not given["Classification"].startswith("zeppelin")
    ]
    (mine,), (template,) = transient["BootstrapActions"], workbench["BootstrapActions"]
    assert (
        mine["ScriptBootstrapAction"]["Args"][0] == template["ScriptBootstrapAction"]["Args"][0] == "/dml/dev/cluster"
    )
    assert transient["Instances"]["KeepJobFlowAliveWhenNoSteps"] is True
    assert transient["AutoTerminationPolicy"]["IdleTimeout"] == 1200
    assert {tag["Key"] for tag in transient["Tags"]} >= {
        "project",
        "environment",
        "for-use-with-amazon-emr-managed-policies",
    }


def test_publishing_should_depend_on_the_model_that_was_current_before_training(states: dict[str, State]) -> None:
    assert states["train: note the current model"]["Next"] == "train: add the step"
    assert states["train: note the current model"]["Assign"]["current"] == "{% $states.result.ETag %}"
    first = states["publish: the first model"]["Arguments"]
    next_one = states["publish: replace the current model"]["Arguments"]
    assert (first["IfNoneMatch"], next_one["IfMatch"]) == ("*", "{% $current %}")
    writers = [name for name, state in states.items() if state.get("Resource", "").endswith("putObject")]
    assert writers == ["publish: the first model", "publish: replace the current model"]


def evaluate(expression: str, **variables: Any) -> Any:
    """A state's expression, with $parse, which Step Functions adds to JSONata."""
    compiled = jsonata.Jsonata.jsonata(expression)
    compiled.register_lambda("parse", json.loads)
    return compiled.evaluate(None, variables)


def test_the_model_that_was_current_should_be_named_as_the_previous_one(states: dict[str, State]) -> None:
    note = states["train: note the current model"]
    result = {"Body": '{"run_id": "run-1", "model": "s3://m/run-1/", "metrics": {"auc": 1}}'}
    noted = evaluate(note["Assign"]["previous"][2:-2], states={"result": result})
    assert noted == {"run_id": "run-1", "model": "s3://m/run-1/"}
    assert note["Catch"][0]["Assign"] == {"current": "", "previous": {}}
    for name in ("publish: the first model", "publish: replace the current model"):
        (body,) = (text for text in expressions(states[name]["Arguments"]) if "$string" in text)
        published = json.loads(evaluate(body, run_id="run-2", metrics={"rmse": 2.5}, previous=noted))
        assert published["previous"] == noted


@pytest.mark.parametrize(
    ("test", "kept"),
    [
        ({"auc": 0.7, "rows": 9, "confusion": {"tp": 1}}, {"auc": 0.7, "rows": 9}),
        ({"macro_f1": 0.5, "rows": 9, "confusion": [[1, 2], [3, 4]]}, {"macro_f1": 0.5, "rows": 9}),
        ({"rmse": 2.5, "bias": -1, "rows": 9}, {"rmse": 2.5, "bias": -1, "rows": 9}),
    ],
)
def test_the_single_figures_of_any_task_should_be_published(
    states: dict[str, State], test: dict[str, Any], kept: dict[str, float]
) -> None:
    expression = states["publish: read the metrics"]["Assign"]["metrics"][2:-2]
    assert evaluate(expression, states={"result": {"Body": json.dumps({"test": test})}}) == kept


def test_the_glue_job_should_be_asked_for_without_a_null(states: dict[str, State]) -> None:
    assert "null" not in json.dumps(states["prepare: run the Glue job"])


def test_every_expression_should_be_jsonata(states: dict[str, State]) -> None:
    found = list(expressions(states))
    assert len(found) > 80
    for expression in found:
        jsonata.Jsonata.jsonata(expression)


def reason(cause: str, error: str = "States.TaskFailed") -> Any:
    return jsonata.Jsonata.jsonata(REASON).evaluate(None, {"failure": {"cause": cause, "error": error}})


def test_a_failed_glue_job_should_be_told_by_its_own_message() -> None:
    cause = json.dumps({"Id": "jr_0f1e", "JobRunState": "FAILED", "ErrorMessage": 'JobError: the table "x"\nis empty'})
    assert reason(cause) == 'JobError: the table "x" is empty [jr_0f1e]'


def test_a_failed_step_should_be_told_by_its_message_and_log() -> None:
    details = {
        "Reason": "Application failed",
        "Message": "JobError: one {class} only",
        "LogFile": "s3://logs/s-1A/stderr.gz",
    }
    cause = json.dumps({"Step": {"Id": "s-1A", "Status": {"State": "FAILED", "FailureDetails": details}}})
    assert reason(cause) == "JobError: one {class} only [s-1A] (log: s3://logs/s-1A/stderr.gz)"


def test_a_step_without_a_message_should_be_told_by_its_reason() -> None:
    cause = json.dumps({"Step": {"Id": "s-1A", "Status": {"FailureDetails": {"Reason": "Unknown Error."}}}})
    assert reason(cause) == "Unknown Error. [s-1A]"


@pytest.mark.parametrize(
    "cause", ["", "User is not authorized to perform: glue:GetTable", '{"Step":{"Id":"s-', "[]{}()/\\"]
)
def test_any_other_cause_should_be_told_as_it_is(cause: str) -> None:
    assert reason(cause) == cause


@pytest.mark.parametrize(
    ("error", "cause", "lost"),
    [
        (
            "S3.S3Exception",
            "At least one of the pre-conditions did not hold (Service: S3, Status Code: 412, Request",
            True,
        ),
        ("S3.PreconditionFailedException", "At least one of the pre-conditions you specified did not hold", True),
        ("S3.S3Exception", "The conditional request (Service: S3, Status Code: 409, Request ID: X)", True),
        ("S3.S3Exception", "Access Denied (Service: S3, Status Code: 403, Request ID: 412)", False),
    ],
)
def test_a_lost_race_should_be_told_from_other_failures(error: str, cause: str, lost: bool) -> None:
    bindings = {"failure": {"error": error, "cause": cause}}
    assert jsonata.Jsonata.jsonata(LOST).evaluate(None, bindings) is lost
