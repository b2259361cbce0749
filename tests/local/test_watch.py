"""The state machine that looks after what nobody looks after, on the embedded cloud, under its own rights."""

import datetime as dt
import json
from collections.abc import Iterator
from typing import Any

import aws_cdk as cdk
import pytest

from dml.estate.certificate import EXPIRES
from stacks.definition import cluster_of
from stacks.outputs import CERTIFICATE_END
from stacks.settings import Environment, load_environment, tags, transient_name
from stacks.watch import definition, rights
from tests.embedded import Clients
from tests.local.conftest import until
from tests.local.test_emr import start, state  # noqa: F401  # start is a fixture
from tests.shipped import role

ALIVE = ["STARTING", "BOOTSTRAPPING", "RUNNING", "WAITING"]
ENVIRONMENT = load_environment("dev").model_copy(update={"name": "watched"})  # no other test's datasets
NAME = cluster_of(transient_name("watched"), "penguins")
MACHINE = "arn:aws:states:us-east-1:000000000000:stateMachine:dml-watched-penguins"
TAGS = [{"Key": key, "Value": value} for key, value in tags(ENVIRONMENT).items()]


class Watched:
    """The machine of an environment, and the topic that it tells."""

    def __init__(self, aws: Clients) -> None:
        self._aws, self.states = aws, aws("stepfunctions")
        self.topic = aws("sns").create_topic(Name="watched")["TopicArn"]
        arn = f"{self.topic.rpartition(':')[0]}:watched".replace(":sns:", ":sqs:")
        send = {"Effect": "Allow", "Principal": "*", "Action": "sqs:SendMessage", "Resource": arn}
        policy = json.dumps({"Version": "2012-10-17", "Statement": [send]})
        self.queue = aws("sqs").create_queue(QueueName="watched", Attributes={"Policy": policy})["QueueUrl"]
        aws("sns").subscribe(TopicArn=self.topic, Protocol="sqs", Endpoint=arn)
        account = self.topic.split(":")[4]
        stack = cdk.Stack(cdk.App(), "watch", env=cdk.Environment(account=account, region="us-east-1"))
        allowed = [stack.resolve(one.to_statement_json()) for one in rights(stack, ENVIRONMENT, self.topic)]
        allowed = json.loads(json.dumps(allowed).replace('{"Ref": "AWS::Partition"}', '"aws"'))
        role(aws, "watch", *_plain(allowed), service="states.amazonaws.com")
        self.machine = self.make("watch", ENVIRONMENT)

    def make(self, name: str, environment: Environment, **more: str) -> str:
        arn = self._aws("iam").get_role(RoleName="watch")["Role"]["Arn"]
        told = json.dumps(definition(environment, partition="aws", topic_arn=self.topic, **more))
        return str(self.states.create_state_machine(name=name, roleArn=arn, definition=told)["stateMachineArn"])

    def run(self, machine: str, /, **given: str) -> str:
        arn = self.states.start_execution(stateMachineArn=machine, input=json.dumps(given))["executionArn"]
        until(lambda: self.states.describe_execution(executionArn=arn)["status"] != "RUNNING")
        told = self.states.describe_execution(executionArn=arn)
        assert told["status"] == "SUCCEEDED", told.get("cause")
        return str(arn)

    def told(self) -> str:
        """The next message."""
        found = until(lambda: self._aws("sqs").receive_message(QueueUrl=self.queue).get("Messages"))
        self._aws("sqs").delete_message(QueueUrl=self.queue, ReceiptHandle=found[0]["ReceiptHandle"])
        return str(json.loads(found[0]["Body"])["Message"])

    def visited(self, execution: str) -> list[str]:
        events = self.states.get_execution_history(executionArn=execution)["events"]
        return [one["stateEnteredEventDetails"]["name"] for one in events if "stateEnteredEventDetails" in one]

    def figure(self, metric: str, **dimensions: str) -> float:
        """The newest value of a metric of ours."""
        wanted = [{"Name": name, "Value": value} for name, value in dimensions.items()]
        now = dt.datetime.now(dt.UTC)
        found = self._aws("cloudwatch").get_metric_statistics(
            Namespace="dml",
            MetricName=metric,
            Dimensions=wanted,
            StartTime=now - dt.timedelta(hours=1),
            EndTime=now + dt.timedelta(minutes=1),
            Period=60,
            Statistics=["Maximum"],
        )["Datapoints"]
        return float(max(found, key=lambda one: one["Timestamp"])["Maximum"])


def _plain(value: Any) -> Any:
    """Joins as CloudFormation would join them."""
    if isinstance(value, dict) and set(value) == {"Fn::Join"}:
        return "".join(value["Fn::Join"][1])
    if isinstance(value, dict):
        return {key: _plain(inner) for key, inner in value.items()}
    return [_plain(inner) for inner in value] if isinstance(value, list) else value


@pytest.fixture(scope="module")
def watched(aws: Clients) -> Iterator[Watched]:
    yield Watched(aws)


def test_the_cluster_of_a_lost_run_should_be_ended_and_no_other(
    watched: Watched,
    aws: Clients,
    start: Any,  # noqa: F811
) -> None:
    lost, other = (start(Name=f"{NAME}{run}", Tags=TAGS) for run in ("run-1", "run-2"))
    foreign = start(Name=f"{NAME}run-1")  # of this name, but without our tags
    with pytest.raises(AssertionError, match="not authorized to perform: elasticmapreduce:TerminateJobFlows"):
        watched.run(watched.machine, do="end", machine=MACHINE, run="run-1")
    aws("emr").terminate_job_flows(JobFlowIds=[foreign])
    watched.run(watched.machine, do="end", machine=MACHINE, run="run-1")
    until(lambda: state(aws, lost).startswith("TERMINAT"))
    assert state(aws, other) in ALIVE
    assert watched.told() == f"{lost} served a run that was stopped or lost: {NAME}run-1. It was asked to end."
    again = watched.run(watched.machine, do="end", machine=MACHINE, run="run-1")
    assert watched.visited(again)[-2:] == ["clusters: are there more?", "done"]


def test_a_cluster_that_is_older_than_any_run_may_be_should_be_ended_but_not_the_workbench(
    watched: Watched,
    aws: Clients,
    start: Any,  # noqa: F811
) -> None:
    young = start(Name=f"{NAME}run-3", Tags=TAGS)
    bench = start(Name="dml-watched-workbench", Tags=TAGS)
    assert "clusters: end them" not in watched.visited(watched.run(watched.machine, do="age"))
    assert state(aws, young) in ALIVE
    assert 0 < watched.figure("ClusterHours", Environment="watched") < 1
    no_time = {"etl": ENVIRONMENT.etl.model_copy(update={"timeout_minutes": -1000})}
    hasty = watched.make("hasty", ENVIRONMENT.model_copy(update=no_time))  # whose runs may take no time at all
    watched.run(hasty, do="age")
    until(lambda: state(aws, young).startswith("TERMINAT"))
    assert state(aws, bench) in ALIVE
    assert watched.told() == f"{young} is older than any run may be. It was asked to end."


def test_how_long_ago_a_run_of_each_dataset_has_ended_well_should_be_told(watched: Watched, aws: Clients) -> None:
    passes = json.dumps({"StartAt": "a", "States": {"a": {"Type": "Succeed"}}})
    arn = aws("iam").get_role(RoleName="watch")["Role"]["Arn"]
    made = {
        name: watched.states.create_state_machine(name=name, roleArn=arn, definition=passes)["stateMachineArn"]
        for name in ("dml-watched-never", "dml-watched-idle", "dml-watched-once", "dml-elsewhere-other")
    }
    for name in ("idle", "once"):
        watched.run(made[f"dml-watched-{name}"])
    now = dt.datetime.now(dt.UTC)
    prepared = {"once": now - dt.timedelta(days=9), "never": now}
    for dataset, when in prepared.items():
        dimensions = [{"Name": "Environment", "Value": "watched"}, {"Name": "Dataset", "Value": dataset}]
        figure = {"MetricName": "RowsPrepared", "Dimensions": dimensions, "Timestamp": when, "Value": 344}
        aws("cloudwatch").put_metric_data(Namespace="dml", MetricData=[figure])
    asked = watched.run(watched.machine, do="absence")
    for machine in made.values():
        watched.states.delete_state_machine(stateMachineArn=machine)
    assert watched.visited(asked).count("runs: find the last") == 3  # the other environment's is not asked for
    # Never, or only by a run that has ended well without doing anything: since the dataset is there.
    assert watched.visited(asked).count("runs: ask since when there could be") == 2
    for dataset in ("never", "idle"):
        assert 0 < watched.figure("DaysSinceSuccess", Environment="watched", Dataset=dataset) < 0.01
    # The clock's runs go on ending well, but the last one that has prepared rows was so many days ago, or a day less.
    assert 8 <= watched.figure("DaysSinceSuccess", Environment="watched", Dataset="once") <= 9


def test_how_long_the_certificate_is_valid_should_be_told(watched: Watched, aws: Clients) -> None:
    aws("s3").create_bucket(Bucket="watched-tls")
    read = {"Effect": "Allow", "Action": ["s3:GetObject", "s3:ListBucket"], "Resource": "*"}
    document = json.dumps({"Version": "2012-10-17", "Statement": [read]})
    aws("iam").put_role_policy(RoleName="watch", PolicyName="certificate", PolicyDocument=document)
    certified = ENVIRONMENT.model_copy(update={"name": "certified"})
    machine = watched.make("certified-watch", certified, certificate_bucket="watched-tls")
    watched.run(machine, do="certificate")
    assert watched.figure("CertificateDays", Environment="certified") == 0
    ends = (dt.datetime.now(dt.UTC) + dt.timedelta(days=20)).isoformat(timespec="seconds")
    aws("s3").put_object(Bucket="watched-tls", Key=CERTIFICATE_END, Body=json.dumps({EXPIRES: ends}).encode())
    watched.run(machine, do="certificate")
    assert 19.9 < watched.figure("CertificateDays", Environment="certified") < 20


def test_a_run_that_is_stopped_should_reach_the_watch_by_its_rule_if_the_rule_may_start_it(
    watched: Watched, aws: Clients
) -> None:
    """As stacks/watch.py makes the rule, with the role that CDK gives a target."""
    waits = json.dumps({"StartAt": "a", "States": {"a": {"Type": "Wait", "Seconds": 600, "End": True}}})
    arn = aws("iam").get_role(RoleName="watch")["Role"]["Arn"]
    runs = watched.states.create_state_machine(name="dml-watched-penguins", roleArn=arn, definition=waits)[
        "stateMachineArn"
    ]
    heard = watched.make("hears", ENVIRONMENT)
    prefix = runs.removesuffix("penguins")
    pattern = {"source": ["aws.states"], "detail": {"stateMachineArn": [{"prefix": prefix}], "status": ["ABORTED"]}}
    may = {"Effect": "Allow", "Action": "states:StartExecution", "Resource": heard}
    role(aws, "knocks", may | {"Resource": runs}, service="events.amazonaws.com")
    target = {
        "Id": "watch",
        "Arn": heard,
        "RoleArn": aws("iam").get_role(RoleName="knocks")["Role"]["Arn"],
        "InputTransformer": {
            "InputPathsMap": {"machine": "$.detail.stateMachineArn", "name": "$.detail.name"},
            "InputTemplate": '{"do":"end","machine":<machine>,"run":<name>}',
        },
    }
    aws("events").put_rule(Name="lost", EventPattern=json.dumps(pattern))
    aws("events").put_targets(Rule="lost", Targets=[target])

    def stop(name: str) -> None:
        execution = watched.states.start_execution(stateMachineArn=runs, name=name)["executionArn"]
        watched.states.stop_execution(executionArn=execution)

    stop("run-unheard")  # the target's role may start another machine only
    document = json.dumps({"Version": "2012-10-17", "Statement": [may]})
    aws("iam").put_role_policy(RoleName="knocks", PolicyName="all", PolicyDocument=document)
    stop("run-heard")
    (started,) = until(lambda: watched.states.list_executions(stateMachineArn=heard)["executions"])
    given = json.loads(watched.states.describe_execution(executionArn=started["executionArn"])["input"])
    assert given == {"do": "end", "machine": MACHINE, "run": "run-heard"}
    watched.states.delete_state_machine(stateMachineArn=runs)
