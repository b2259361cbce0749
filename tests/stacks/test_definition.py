"""The state machine as a graph: every way through it, and out of it."""

import copy
import json
import re
from collections.abc import Callable, Iterator
from typing import Any

import jsonata
import pytest

from jobs.job import failure_uri
from stacks.definition import (
    CLUSTER_MINUTES,
    CRAWL,
    CRAWL_MINUTES,
    CREATE,
    END,
    LOST,
    OTHER_CRAWL_POLLS,
    OTHER_CRAWL_SECONDS,
    REASON,
    REASONS,
    RESUME,
    SKIP,
    TODO,
    TOLD,
    Parts,
    definition,
)
from stacks.emr import standing_executors
from stacks.settings import DRIVER_MB, load_environment, yarn_mb
from tests.stacks.conftest import Synthesized
from tests.stacks.ways import clusters_left

State = dict[str, Any]
STAGES = ["begin", "crawl", "prepare", "cluster", "train", "gate", "publish", "predict", "clean up", "notify", "end"]
TERMINATE = "clean up: end the transient cluster"
# Errors that pass by themselves: the service was busy, or had a fault of its own.
PASSES = re.compile(
    r"^(Glue|ElasticMapReduce|Emr|S3|SNS|Ssm|CloudWatch)\.("
    r"Throttl(ing|ed)Exception|Internal(Server|Service)?(Error)?Exception|InternalServiceFaultException|"
    r"ConcurrentRunsExceededException|ResourceNumberLimitExceededException|OperationTimeoutException|SdkClientException)$"
)


@pytest.fixture(scope="module")
def machine(dev: Synthesized) -> dict[str, Any]:
    return dev.definition()


@pytest.fixture(scope="module")
def states(machine: dict[str, Any]) -> dict[str, State]:
    found: dict[str, State] = machine["States"]
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
    assert len(tasks) > 20
    for name, state in tasks.items():
        assert state["TimeoutSeconds"] > 0, name
        if name == END:  # whose error is the run's
            continue
        too_large, last = state["Catch"][-2:]
        assert last["ErrorEquals"] == ["States.ALL"], name
        assert too_large == last | {"ErrorEquals": ["States.DataLimitExceeded"]}, name  # which States.ALL may not catch
        if name == "publish: read whose model is current":  # what has failed is the write before it
            assert last == {"ErrorEquals": ["States.ALL"], "Next": REASONS}
        elif name == TOLD:  # what has failed is the job before it
            assert last["Next"] == REASONS
            assert "failure" not in last["Assign"]
        elif name != "notify: the failure" and not name.endswith(("send the counts", "send the figures")):
            assert last["Assign"]["failure"]["stage"] == name.partition(":")[0]


def test_only_what_may_pass_should_be_tried_again(states: dict[str, State]) -> None:
    for name, state in states.items():
        for retry in state.get("Retry", []):
            if name == TERMINATE and retry["ErrorEquals"] == ["States.ALL"]:  # can be asked for twice, and must be
                assert retry["MaxAttempts"] == 3
                continue
            if retry["ErrorEquals"] in (["ElasticMapReduce.AmazonElasticMapReduceException"], ["Emr.EmrException"]):
                assert retry["MaxAttempts"] == 3, name  # throttling, or a missing right
                continue
            assert [error for error in retry["ErrorEquals"] if not PASSES.match(error)] == [], name


def test_the_machine_should_have_time_for_all_that_it_may_wait_for(dev: Synthesized, prod: Synthesized) -> None:
    for environment in (dev, prod):
        machine = environment.definition()
        limits = {name: state.get("TimeoutSeconds", 0) for name, state in machine["States"].items()}
        jobs = sum(
            limits[name] for name in ("prepare: run the Glue job", "train: add the step", "predict: add the step")
        )
        waits = OTHER_CRAWL_POLLS * OTHER_CRAWL_SECONDS + (CRAWL_MINUTES + CLUSTER_MINUTES) * 60
        slot = machine["States"]["prepare: run the Glue job"]["Retry"][0]
        assert slot["ErrorEquals"] == ["Glue.ConcurrentRunsExceededException"]
        slot_seconds = slot["IntervalSeconds"] * slot["MaxAttempts"]
        assert slot_seconds >= limits["prepare: run the Glue job"] - 60  # as long as another run's job may take
        waits += slot_seconds
        short = sum(limit for limit in limits.values() if limit <= 300)
        assert jobs + waits + short < machine["TimeoutSeconds"]


def test_no_way_through_the_machine_should_leave_a_cluster(machine: dict[str, Any]) -> None:
    assert clusters_left(machine) == []


def owning(machine: dict[str, Any]) -> list[str]:
    """The Tasks that may run while there is a transient cluster: those whose uncaught failure would leave it."""
    found = []
    for name, state in machine["States"].items():
        if state["Type"] == "Task" and name not in (CREATE, END):
            broken = copy.deepcopy(machine)
            broken["States"][name]["Catch"] = []
            if clusters_left(broken):
                found.append(name)
    return found


def test_a_catcher_that_is_gone_or_leads_past_the_clean_up_should_be_found(machine: dict[str, Any]) -> None:
    tasks = owning(machine)
    for stage in ("cluster", "train", "gate", "publish", "predict", "clean up"):
        assert [name for name in tasks if name.startswith(stage)], stage
    assert not [name for name in tasks if name.startswith(("begin", "crawl", "prepare", "notify", "end"))]
    for name in tasks:
        if name == TERMINATE:
            continue
        for number in range(len(machine["States"][name]["Catch"])):
            broken = copy.deepcopy(machine)
            broken["States"][name]["Catch"][number]["Next"] = "notify: the failure"
            assert clusters_left(broken), (name, number)


def without_assign(name: str, variable: str) -> Callable[[dict[str, State]], None]:
    return lambda states: states[name]["Assign"].pop(variable) and None


def redirected(name: str, *where: Any) -> Callable[[dict[str, State]], None]:
    """`where` leads to the rule in the state whose Next (or Default) becomes the report on the run."""

    def change(states: dict[str, State]) -> None:
        rule: Any = states[name]
        for key in where[:-1]:
            rule = rule[key]
        assert where[-1] in rule
        rule[where[-1]] = "notify: how did it go?"

    return change


def forgetting_that_it_ends(states: dict[str, State]) -> None:
    states[TERMINATE]["Catch"][0]["Assign"].pop("redriven")


def asking_the_wrong_thing(states: dict[str, State]) -> None:
    states["clean up: is there a transient cluster?"]["Choices"][0]["Condition"] = "{% $failed %}"


def in_a_parallel_state(states: dict[str, State]) -> None:
    """The training beside something else: what fails in a branch fails the whole state, which catches nothing."""
    step = {**states["train: add the step"], "End": True, "Catch": []}
    step.pop("Next")
    other = {"StartAt": "other", "States": {"other": {"Type": "Pass", "End": True}}}
    states["train: add the step"] = {
        "Type": "Parallel",
        "Branches": [other, {"StartAt": "step", "States": {"step": step}}],
        "Next": "gate: read the verdict",
    }


@pytest.mark.parametrize(
    "change",
    [
        without_assign(CREATE, "transient"),
        without_assign(TERMINATE, "transient"),  # redriven, it would end the workbench
        redirected("cluster: is it up?", "Choices", 1, "Next"),
        redirected("cluster: is it up?", "Choices", 3, "Next"),
        redirected("gate: did the model pass?", "Default"),
        redirected("predict: add the step", "Next"),
        redirected("clean up: is there a transient cluster?", "Choices", 0, "Next"),
        redirected("clean up: read the reason", "Next"),
        asking_the_wrong_thing,
        forgetting_that_it_ends,
        in_a_parallel_state,
    ],
)
def test_a_way_that_leaves_a_cluster_should_be_found(
    machine: dict[str, Any], change: Callable[[dict[str, State]], None]
) -> None:
    broken = copy.deepcopy(machine)
    change(broken["States"])
    assert clusters_left(broken)


def test_a_redriven_run_should_go_on_at_the_stage_that_failed(states: dict[str, State]) -> None:
    redriven = states[END]["Catch"][0]
    assert (redriven["ErrorEquals"], redriven["Assign"]["redriven"]) == (["Redriven"], True)
    error = states[END]["Arguments"]["Error"][2:-2]
    for count, error_of in ((None, "CrawlFailed"), (1, "Redriven")):
        context = {"Execution": {} if count is None else {"RedriveCount": count}}
        bound = {"states": {"context": context}, "redrives": 0, "failure": {"error": "CrawlFailed"}}
        assert evaluate(error, **bound) == error_of

    def resumed(**failure: str) -> str:
        for rule in states[RESUME]["Choices"]:
            if evaluate(rule["Condition"][2:-2], failure={"error": "X", **failure}):
                return str(rule["Next"])
        raise AssertionError("the run goes nowhere")

    cluster = "cluster: look up the workbench"
    assert resumed(stage="crawl") == "begin: what is to be done?"
    assert resumed(stage="prepare") == "prepare: run the Glue job"
    assert {resumed(stage=stage) for stage in ("cluster", "train", "gate", "publish", "predict")} == {cluster}
    assert resumed(stage="clean up", first="train") == cluster
    assert resumed(stage="clean up", first="clean up") == resumed(stage="notify") == "notify: how did it go?"
    assert resumed(stage="publish", error="LostRace") == "failed"


def test_a_new_cluster_should_be_known_from_its_first_moment(states: dict[str, State]) -> None:
    """With .sync its id would be lost when it fails to start."""
    create = states["cluster: create a transient one"]
    assert create["Resource"].endswith(":aws-sdk:emr:runJobFlow")
    assert create["Assign"]["cluster_id"] == "{% $states.result.JobFlowId %}"
    assert create["Assign"]["transient"] is True


def test_the_transient_cluster_should_be_the_workbench_without_zeppelin(
    dev: Synthesized, states: dict[str, State]
) -> None:
    transient = states["cluster: create a transient one"]["Arguments"]
    workbench = dev.only("workbench", "AWS::EMR::Cluster")
    assert transient["ReleaseLabel"] == workbench["ReleaseLabel"]
    assert transient["ManagedScalingPolicy"] == workbench["ManagedScalingPolicy"]
    assert [application["Name"] for application in transient["Applications"]] == ["Hadoop", "Spark"]
    assert "ConfigurationProperties" not in json.dumps(transient)  # the template's word, which the API does not know
    assert [given["Classification"] for given in transient["Configurations"]] == [
        given["Classification"]
        for given in workbench["Configurations"]
        if not given["Classification"].startswith("zeppelin")
    ]
    (mine,), (template, _) = transient["BootstrapActions"], workbench["BootstrapActions"]
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
        body = states[name]["Arguments"]["Body"]
        assert isinstance(body, dict)  # a text would be stored in quotes
        bound = {"run_id": "run-2", "metrics": {"rmse": 2.5}, "previous": noted}
        published = {key: evaluate(text[2:-2], **bound) for key, text in body.items() if text.startswith("{%")}
        assert (published["previous"], published["metrics"], published["run_id"]) == (noted, {"rmse": 2.5}, "run-2")
        assert published["model"].endswith("/nyc_flights/run-2/")


def test_what_publishing_reads_should_not_grow_with_classes_and_slices(states: dict[str, State]) -> None:
    """A state takes 256 KiB; metrics.json has a confusion matrix, curves and slices."""
    read = states["publish: read the figures"]
    assert read["Arguments"]["Key"].endswith("/figures.json' %}")
    figures = {"macro_f1": 0.5, "rows": 9}
    expression = read["Assign"]["metrics"][2:-2]
    assert evaluate(expression, states={"result": {"Body": json.dumps(figures)}}) == figures


def test_only_a_learner_that_needs_all_executors_at_once_should_have_them_stand(states: dict[str, State]) -> None:
    """Spark runs no barrier stage with dynamic allocation ([SPARK-24942]), which EMR has on."""
    given: dict[str, Any] = dict.fromkeys(Parts.__dataclass_fields__, "-")
    given |= {"figures": ("auc",), "prepare_minutes": 10, "step_minutes": 10, "certificate_bucket": ""}
    given |= {"transient_cluster": {"Name": "n", "Instances": {}, "LogUri": "s3://l/"}}
    nodes = load_environment("dev").cluster
    together = definition(Parts(**given | {"train_options": standing_executors(nodes)}))["States"]
    told = {
        (name, stage): [
            str(word) for word in of[f"{stage}: add the step"]["Arguments"]["Step"]["HadoopJarStep"]["Args"]
        ]
        for name, of in (("dev", states), ("together", together))
        for stage in ("train", "predict")
    }
    asked = {
        key: [word for word in words if "Allocation" in word or "spark.executor." in word]
        for key, words in told.items()
    }
    assert asked.pop(("together", "train")) == [
        "spark.dynamicAllocation.enabled=false",
        f"spark.executor.instances={nodes.maximum_nodes}",
        "spark.executor.memory=4444m",
        "spark.executor.memoryOverhead=4444m",
    ]
    assert not any(asked.values())


@pytest.mark.parametrize(("size", "each"), [("large", 1), ("xlarge", 1), ("2xlarge", 2), ("16xlarge", 16)])
def test_as_many_executors_should_stand_as_the_nodes_may_hold(size: str, each: int) -> None:
    nodes = load_environment("dev").cluster.model_copy(update={"instance_types": (f"m7g.{size}",), "maximum_nodes": 5})
    assert f"spark.executor.instances={5 * each}" in standing_executors(nodes)


@pytest.mark.parametrize(
    ("types", "each", "half"),
    [
        (("m7g.xlarge",), 1, 4444),
        (("m7g.2xlarge", "r7g.2xlarge"), 2, 5212),
        (("c7g.xlarge",), 1, 1454),
        (("r7g.4xlarge",), 4, 11576),
    ],
)
def test_executors_that_stand_should_fit_their_node_beside_the_driver(
    types: tuple[str, ...], each: int, half: int
) -> None:
    """Half of each is outside of Java's heap. YARN has 12288 MB of an m.xlarge (EMR Release Guide)."""
    nodes = load_environment("dev").cluster.model_copy(update={"instance_types": types})
    assert standing_executors(nodes)[-3::2] == [
        f"spark.executor.memory={half}m",
        f"spark.executor.memoryOverhead={half}m",
    ]
    assert each * 2 * half + DRIVER_MB <= min(map(yarn_mb, types))
    assert yarn_mb("m7g.xlarge") <= 12288


def test_the_glue_job_should_be_asked_for_without_a_null(states: dict[str, State]) -> None:
    assert "null" not in json.dumps(states["prepare: run the Glue job"])


def test_every_expression_should_be_jsonata(states: dict[str, State]) -> None:
    found = list(expressions(states))
    assert len(found) > 80
    for expression in found:
        jsonata.Jsonata.jsonata(expression)


def reason(cause: str, error: str = "States.TaskFailed", unread: str = "", **failure: Any) -> Any:
    """What a run fails with; `failure`: more of what is known of it."""
    bindings = {"failure": {"cause": cause, "error": error, **failure}, "unread": unread}
    return jsonata.Jsonata.jsonata(REASON).evaluate(None, bindings)


def step_cause(message: str = "", **details: str) -> str:
    """The cause of a failed step's Task, as EMR fills FailureDetails."""
    told = {"Reason": "Unknown Error.", **({"Message": message} if message else {}), **details}
    return json.dumps({"Step": {"Id": "s-1A", "Status": {"State": "FAILED", "FailureDetails": told}}})


APPLICATION = "application_1795985240819_0013"
ENDED = f'Exception in thread "main" org.apache.spark.SparkException: Application {APPLICATION} '
CLUSTER_LOGS = "s3://logs/emr/j-1B/"
OWN = {"stage": "train", "sentence": "Column x is missing: add it.", "log": f"containers/{APPLICATION}/c_1/stdout.gz"}


def test_a_failed_glue_job_should_be_told_by_its_own_message() -> None:
    cause = json.dumps({"Id": "jr_0f1e", "JobRunState": "FAILED", "ErrorMessage": 'JobError: the table "x"\nis empty'})
    assert reason(cause) == 'JobError: the table "x" is empty [jr_0f1e]'


def test_a_failed_job_should_be_told_by_what_it_has_left_in_failure_json() -> None:
    cause = step_cause(ENDED + "finished with failed status", LogFile="s3://logs/emr/j-1B/steps/s-1A/stderr.gz")
    assert reason(cause, stage="train", told=OWN, logs=CLUSTER_LOGS) == (
        f"Column x is missing: add it. [s-1A] (log: {CLUSTER_LOGS}containers/{APPLICATION}/c_1/stdout.gz)"
    )
    glue = json.dumps({"Id": "jr_0f1e", "JobRunState": "FAILED", "ErrorMessage": "Error Category: UNCLASSIFIED_ERROR"})
    own = {"stage": "prepare", "sentence": "The table is empty: push it.", "log": ""}
    assert reason(glue, stage="prepare", told=own) == "The table is empty: push it. [jr_0f1e]"


def test_what_another_stage_has_left_should_not_be_taken_for_this_ones() -> None:
    told = reason(step_cause(), stage="predict", told=OWN, logs=CLUSTER_LOGS)
    assert "Column x" not in told
    assert told.startswith("EMR says Unknown Error, and its job said nothing")


@pytest.mark.parametrize(
    ("message", "begins"),
    [
        (ENDED + "finished with failed status", "its job ended before it could say why: its container was over its"),
        (
            ENDED + "is killed",
            "its application was killed on the cluster, by hand or with the cluster; redrive the run",
        ),
        (
            'Exception in thread "main" java.io.FileNotFoundException: No such file or directory: s3://code/a.py',
            "it did not start: java.io.FileNotFoundException: No such file or directory: s3://code/a.py. What the step",
        ),
        ("", "EMR says Unknown Error, and its job said nothing: it was killed before it could, or never started."),
    ],
)
def test_a_step_whose_job_said_nothing_should_be_told_by_kind_with_its_log(message: str, begins: str) -> None:
    told = reason(step_cause(message), stage="train", logs=CLUSTER_LOGS)
    assert told.startswith(begins)
    assert told.endswith(f"(log: {CLUSTER_LOGS}steps/s-1A/stderr.gz)")  # also where EMR gives no LogFile
    assert (f" [{APPLICATION}]" in told) == (APPLICATION in message)


def test_a_failure_json_that_could_not_be_read_should_be_told_with_the_services_words() -> None:
    told = reason(step_cause(), unread="S3.S3Exception", stage="train", logs=CLUSTER_LOGS)
    assert told.endswith("(failure.json could not be read: S3.S3Exception)")


@pytest.mark.parametrize("stage", ["prepare: run the Glue job", "train: add the step", "predict: add the step"])
def test_each_attempt_should_have_a_failure_json_of_its_own(states: dict[str, State], stage: str) -> None:
    """The job is told the number of the redrive, and the file that is read is of the redrive that has failed."""
    arguments = json.dumps(states[stage]["Arguments"])
    (attempt,) = {found for found in expressions(states[stage]["Arguments"]) if "RedriveCount" in found}
    assert "--attempt" in arguments
    redriven = {"context": {"Execution": {"RedriveCount": 2}}}
    assert evaluate(attempt, states={"context": {"Execution": {}}}) == "0"
    assert evaluate(attempt, states=redriven) == "2"
    for catcher in states[stage]["Catch"]:
        assert catcher["Next"] == TOLD
        failure = catcher["Assign"]["failure"]
        caught = {"attempt": evaluate(failure["attempt"][2:-2], states=redriven)}
        key = evaluate(states[TOLD]["Arguments"]["Key"][2:-2], run_id="run-1", failure=caught)
        assert f"s3://l/{key}" == failure_uri("s3://l/", "nyc_flights", "run-1", "2")


def test_what_was_stopped_without_a_word_should_be_told_by_its_state() -> None:
    changed = {"State": "CANCELLED", "StateChangeReason": {"Message": "Cancelled by user."}, "Timeline": {}}
    assert reason(json.dumps({"Step": {"Id": "s-1A", "Status": changed}})) == (
        "it ended as CANCELLED: Cancelled by user. [s-1A]"
    )
    assert reason(json.dumps({"Id": "jr_0f1e", "JobRunState": "STOPPED"})) == "it ended as STOPPED [jr_0f1e]"


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


def test_a_run_of_the_clock_should_cost_nothing_before_the_first_model_nor_while_paused(
    states: dict[str, State],
) -> None:
    first, scheduled = states[TODO]["Choices"][0], {"do": "run", "revision": "scheduled"}
    assert evaluate(first["Condition"][2:-2], **scheduled) is True
    assert evaluate(first["Condition"][2:-2], do="run", revision="1f2e") is False
    looked = states[first["Next"]]
    assert (looked["Arguments"]["Key"], looked["Next"]) == ("nyc_flights/CURRENT.json", CRAWL)
    (none,) = (one for one in looked["Catch"] if one["ErrorEquals"] == ["S3.NoSuchKeyException"])
    paused = states["begin: was it started by the clock?"]["Choices"]
    assert [evaluate(one["Condition"][2:-2], **scheduled) for one in paused] == [True, True]
    assert [evaluate(one["Condition"][2:-2], do="run", revision="1f2e") for one in paused] == [False, True]
    assert (paused[0]["Next"], none["Next"]) == (SKIP, SKIP)
    assert paused[1]["Assign"]["failure"]["error"] == "Paused"
    for reasons in (none["Assign"]["reasons"], paused[0]["Assign"]["reasons"]):
        said = evaluate(states[SKIP]["Arguments"]["Message"][2:-2], run_id="r", reasons=reasons)
        assert said == f"The scheduled run r has ended at once: {reasons[0]}."
