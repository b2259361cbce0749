"""Who looks after what nobody looks after, made at synth time: clusters that were left behind, datasets without a run.

A run ends its own cluster on every way out but one: when it is stopped, or when it times out, it does nothing more.
Then EventBridge starts the state machine here, which finds the run's cluster by its name. Every hour it looks for
clusters that are older than any run may be, and every day how long ago each dataset has last had its run. It knows
datasets by the names of their state machines: none that comes or goes changes anything here.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import aws_cdk as cdk
from aws_cdk import aws_cloudwatch as cloudwatch
from aws_cdk import aws_events as events
from aws_cdk import aws_events_targets as targets
from aws_cdk import aws_iam as iam
from aws_cdk import aws_kms as kms
from aws_cdk import aws_s3 as s3
from aws_cdk import aws_sns as sns
from aws_cdk import aws_stepfunctions as sfn
from constructs import Construct

from stacks.arguments import faults
from stacks.data import WRITE, DataStack, log_group, use_key
from stacks.definition import (
    ANY_RETRY,
    BUSY_RETRY,
    NAMESPACE,
    ROWS,
    State,
    choice,
    cluster_of,
    given,
    longest_run,
    when,
)
from stacks.findings import NO_RESOURCE, SAID_TWICE, accept_in_template, accept_wildcards
from stacks.observability import ABOVE, alarm, heard_rule, run_metric
from stacks.outputs import CERTIFICATE_END, CERTIFICATE_RENEW_DAYS
from stacks.settings import Environment, machine_name, tags, transient_name

ALIVE = ["STARTING", "BOOTSTRAPPING", "RUNNING", "WAITING"]
AT_ONCE = 10  # clusters that one TerminateJobFlows takes (EMR API Reference)
CLUSTER_HOURS = "ClusterHours"  # the age of the oldest cluster
CERTIFICATE_DAYS = "CertificateDays"  # until the nodes' certificate ends; 0 if there is none
BELOW = cloudwatch.ComparisonOperator.LESS_THAN_THRESHOLD
QUIET_DAYS = "DaysSinceSuccess"  # since a run of the dataset has last ended well
DAY = 86400
LOOK_BACK_DAYS = 450  # CloudWatch keeps a metric for 455 (API reference, GetMetricStatistics)

LIST = "clusters: list"
RUNS = "runs: list the datasets"
DONE = "done"


class Watch(Construct):
    """The state machine, and the rule by which it looks at clusters every hour."""

    def __init__(
        self,
        scope: Construct,
        id: str,
        *,
        environment: Environment,
        data: DataStack,
        topic: sns.ITopic,
    ) -> None:
        super().__init__(scope, id)
        stack = cdk.Stack.of(self)
        certified = data.workspace if environment.encryption.in_transit else None
        allowed = rights(stack, environment, topic.topic_arn, data.key, certified)
        role = iam.Role(
            self,
            "Role",
            description="Worn by the state machine that ends clusters which nobody waits for",
            assumed_by=iam.ServicePrincipal("states.amazonaws.com"),
            inline_policies={"watch": iam.PolicyDocument(statements=allowed)},
        )
        ours = "Only this environment's, by tag or name; a dataset that comes or goes changes nothing here."
        accept_wildcards(
            role,
            allowed,
            {
                "ListClusters": NO_RESOURCE,
                "EndClusters": ours,
                "AskForRuns": ours,
                "ListRuns": NO_RESOURCE,
                "ReadFigures": NO_RESOURCE,
                "SendFigures": NO_RESOURCE,
            },
        )
        bucket = certified.bucket_name if certified else ""
        told = definition(environment, partition=stack.partition, topic_arn=topic.topic_arn, certificate_bucket=bucket)
        self.machine = sfn.StateMachine(
            self,
            "StateMachine",
            state_machine_name=f"dmlwatch-{environment.name}",  # not as a dataset's, which it would take for one
            definition_body=sfn.DefinitionBody.from_string(stack.to_json_string(told)),
            role=role,
            logs=sfn.LogOptions(
                destination=log_group(self, "Logs", f"dml-{environment.name}-watch", environment, data.key),
                level=sfn.LogLevel.ALL,
                include_execution_data=False,
            ),
            tracing_enabled=True,
        )
        accept_in_template(self.machine, {"W3005": SAID_TWICE})
        self._by_the_clock(
            "Hourly", "rate(1 hour)", "age", "Looks for clusters that are older than any run may be", topic
        )
        self._by_the_clock("Daily", "rate(1 day)", "absence", "Asks how long ago runs have ended well", topic)
        self._at_a_lost_run(environment, topic)
        failed = cloudwatch.Metric(
            namespace="AWS/States",
            metric_name="ExecutionsFailed",
            dimensions_map={"StateMachineArn": self.machine.state_machine_arn},
            statistic="Sum",
            period=cdk.Duration.hours(1),
        )
        text = "Clusters left behind are not looked for: the state machine that does it failed."
        alarm(self, "Failed", text, failed, ABOVE, 0, topic=topic)
        if certified:
            self._alarm_on_certificate(environment, topic)
        most = environment.cluster.alarm_hours
        hours = _figure(environment, CLUSTER_HOURS, "Maximum", cdk.Duration.hours(1))
        alarm(self, "OldCluster", f"A cluster has run for more than {most} hours.", hours, ABOVE, most, topic=topic)

    def _by_the_clock(self, id: str, rate: str, do: str, description: str, topic: sns.ITopic) -> None:
        target = targets.SfnStateMachine(self.machine, input=events.RuleTargetInput.from_object({"do": do}))
        heard_rule(self, id, description, target, topic=topic, schedule=events.Schedule.expression(rate))

    def _at_a_lost_run(self, environment: Environment, topic: sns.ITopic) -> None:
        """A run that fails in its own way has ended its cluster already: none is found then."""
        machines = f"{_machines(cdk.Stack.of(self))}{machine_name(environment, '')}"
        asked = {
            "do": "end",
            "machine": events.EventField.from_path("$.detail.stateMachineArn"),
            "run": events.EventField.from_path("$.detail.name"),
        }
        pattern = events.EventPattern(
            source=["aws.states"],
            detail_type=["Step Functions Execution Status Change"],
            detail={"stateMachineArn": [{"prefix": machines}], "status": ["ABORTED", "FAILED", "TIMED_OUT"]},
        )
        target = targets.SfnStateMachine(self.machine, input=events.RuleTargetInput.from_object(asked))
        heard_rule(
            self, "Lost", "Ends the cluster of a run that cannot do it any more", target, topic=topic, pattern=pattern
        )

    def _alarm_on_certificate(self, environment: Environment, topic: sns.ITopic) -> None:
        """Told while there is time to make a new one, by whoever may write to the workspace."""
        text = "Asks until when the certificate for the nodes of clusters is valid"
        self._by_the_clock("Certified", "rate(1 day)", "certificate", text, topic)
        days = _figure(environment, CERTIFICATE_DAYS, "Minimum", cdk.Duration.days(1))
        soon = f"within {CERTIFICATE_RENEW_DAYS} days"
        text = f"The nodes' certificate ends {soon}: dml certificates --env {environment.name}"
        alarm(self, "Certificate", text, days, BELOW, CERTIFICATE_RENEW_DAYS, topic=topic)


def _figure(environment: Environment, name: str, statistic: str, period: cdk.Duration) -> cloudwatch.Metric:
    """A figure that the watch sends of the whole environment."""
    return cloudwatch.Metric(
        namespace=NAMESPACE,
        metric_name=name,
        dimensions_map={"Environment": environment.name},
        statistic=statistic,
        period=period,
    )


def alarm_on_absence(scope: Construct, *, environment: Environment, dataset: str, topic: sns.ITopic) -> None:
    """An alarm for a scheduled dataset that has had no run that ended well for more than so many days.

    An alarm of CloudWatch alone cannot ask for that: it looks back over seven days at most (CloudWatch User Guide,
    "Evaluating an alarm").
    """
    quiet = run_metric(environment, dataset, QUIET_DAYS).with_(period=cdk.Duration.days(1))
    days = environment.schedule.alarm_days
    text = f"No run of {dataset} has ended well for more than {days} days, though it is scheduled."
    alarm(scope, "Absent", text, quiet, ABOVE, days, topic=topic)


def definition(
    environment: Environment, *, partition: str, topic_arn: str, certificate_bucket: str = ""
) -> dict[str, Any]:
    """The machine. Input: {"do": "end", "machine", "run"}, {"do": "age"} or {"do": "absence"}.

    With a bucket that has the nodes' certificate also {"do": "certificate"}.
    """
    name = transient_name(environment.name)
    longest = longest_run(environment.etl.timeout_minutes, environment.cluster.step_timeout_minutes)
    now = "$toMillis($states.context.Execution.StartTime)"
    hours = f"({now} - $toMillis(Status.Timeline.CreationDateTime)) / 3600000"
    ours = f"$states.result.Clusters[$substring(Name, 0, {len(environment.name) + 5}) = 'dml-{environment.name}-']"
    wanted = (
        f"{ours}[$do = 'end' ? Name = $cluster : $substring(Name, 0, {len(name)}) = '{name}' "
        f"and {hours} > {longest / 3600:g}]"
    )
    listed: State = {
        "Assign": {
            "found": f"{{% $append($found, [{wanted}.Id]) %}}",
            "hours": f"{{% $max($append([$hours], {ours}.({hours}))) %}}",
            "marker": f"{{% {given('$states.result.Marker', '')} %}}",
        },
        "Next": "clusters: are there more?",
    }

    def call(action: str, arguments: Mapping[str, Any], **fields: Any) -> State:
        resource = f"arn:{partition}:states:::{action}"
        return {
            "Type": "Task",
            "Resource": resource,
            "Arguments": dict(arguments),
            "TimeoutSeconds": 60,
            "Retry": [BUSY_RETRY, ANY_RETRY],
            **fields,
        }

    def figure(metric: str, value: str, dimensions: Sequence[Mapping[str, str]]) -> State:
        datum = {"MetricName": metric, "Value": f"{{% {value} %}}", "Dimensions": list(dimensions)}
        return call("aws-sdk:cloudwatch:putMetricData", {"Namespace": NAMESPACE, "MetricData": [datum]}, Next=DONE)

    before = f":stateMachine:{machine_name(environment, '')}"
    dataset = f"$substringAfter($states.input.machine, '{before}')"
    prefix, suffix = cluster_of(name, "*").split("*")
    of_run = f"'{prefix}' & {dataset} & '{suffix}' & $states.input.run"
    own = {"Name": "Environment", "Value": environment.name}
    begins = machine_name(environment, "")
    of_datasets = f"$states.result.StateMachines[$substring(Name, 0, {len(begins)}) = '{begins}'].StateMachineArn"
    of_dataset = {"Name": "Dataset", "Value": f"{{% $substringAfter($machines[$number], '{before}') %}}"}
    ends_of_days = f"$states.result.Datapoints.($toMillis(Timestamp) + {DAY * 1000})"  # it tells when they begin
    days = f"({now} - $toMillis($last)) / {DAY * 1000}"
    left = "certificate: tell its days"
    certificate = {
        "certificate: read its end": call(
            "aws-sdk:s3:getObject",
            {"Bucket": certificate_bucket, "Key": CERTIFICATE_END},
            Assign={"days": f"{{% ($toMillis($parse($states.result.Body).expires) - {now}) / 86400000 %}}"},
            Catch=[
                {"ErrorEquals": ["S3.NoSuchKeyException"], "Assign": {"days": 0}, "Next": "certificate: tell its days"}
            ],
            Next="certificate: tell its days",
        ),
        left: figure(CERTIFICATE_DAYS, "$max([0, $days])", [own]),
    }
    machine = {
        "Comment": f"Looks after what nobody looks after in {environment.name}",
        "QueryLanguage": "JSONata",
        "StartAt": "begin",
        "TimeoutSeconds": 1800,
        "States": {
            "begin": {
                "Type": "Pass",
                "Assign": {
                    "do": "{% $states.input.do %}",
                    "cluster": f"{{% $states.input.do = 'end' ? {of_run} : '' %}}",
                    "found": [],
                    "hours": 0,
                },
                "Next": "what is to be done?",
            },
            "what is to be done?": choice(
                when("$do = 'absence'", RUNS),
                *([when("$do = 'certificate'", "certificate: read its end")] if certificate_bucket else []),
                otherwise=LIST,
            ),
            **(certificate if certificate_bucket else {}),
            LIST: call("aws-sdk:emr:listClusters", {"ClusterStates": ALIVE}, **listed),
            "clusters: list more": call(
                "aws-sdk:emr:listClusters", {"ClusterStates": ALIVE, "Marker": "{% $marker %}"}, **listed
            ),
            "clusters: are there more?": choice(
                when("$marker != ''", "clusters: list more"),
                when("$count($found) > 0", "clusters: end them"),
                when("$do = 'age'", "clusters: tell their age"),
                otherwise=DONE,
            ),
            "clusters: end them": call(
                "aws-sdk:emr:terminateJobFlows",
                {"JobFlowIds": f"{{% $append([], $found[[0..{AT_ONCE - 1}]]) %}}"},
                Next="clusters: tell of them",
            ),
            "clusters: tell of them": call(
                "sns:publish",
                {
                    "TopicArn": topic_arn,
                    "Subject": f"dml {environment.name}: a cluster that was left behind is ended",
                    "Message": "{% $join($append([], $found), ', ') & ($do = 'end' ? ' served a run that was stopped or"
                    " lost: ' & $cluster : ' is older than any run may be') & '. It was asked to end.' %}",
                },
                Next="clusters: is their age to be told?",
            ),
            "clusters: is their age to be told?": choice(
                when("$do = 'age'", "clusters: tell their age"), otherwise=DONE
            ),
            "clusters: tell their age": figure(CLUSTER_HOURS, "$hours", [own]),
            RUNS: call(
                "aws-sdk:sfn:listStateMachines",
                {"MaxResults": 1000},
                Assign={
                    "machines": f"{{% $append([], {of_datasets}) %}}",
                    "number": 0,
                },
                Next="runs: is there another dataset?",
            ),
            "runs: is there another dataset?": choice(
                when("$number < $count($machines)", "runs: find the last"), otherwise=DONE
            ),
            "runs: find the last": call(
                "aws-sdk:sfn:listExecutions",
                {"StateMachineArn": "{% $machines[$number] %}", "StatusFilter": "SUCCEEDED", "MaxResults": 1},
                Assign={"last": f"{{% {given('$states.result.Executions[0].StopDate', '')} %}}"},
                Next="runs: find when rows were last prepared",
            ),
            # What ends well may have done nothing: a run that the clock starts while there is nothing to be run for.
            "runs: find when rows were last prepared": call(
                "aws-sdk:cloudwatch:getMetricStatistics",
                {
                    "Namespace": NAMESPACE,
                    "MetricName": ROWS,
                    "Dimensions": [own, of_dataset],
                    "StartTime": f"{{% $fromMillis({now} - {LOOK_BACK_DAYS * DAY * 1000}) %}}",
                    "EndTime": "{% $states.context.Execution.StartTime %}",
                    "Period": DAY,
                    "Statistics": ["SampleCount"],
                },
                Assign={"prepared": f"{{% $max($append([0], {ends_of_days})) %}}"},
                Next="runs: was there one?",
            ),
            "runs: was there one?": choice(
                when(
                    "$last != '' and $prepared > 0",
                    "runs: tell how long ago",
                    last="{% $fromMillis($min([$toMillis($last), $prepared])) %}",
                ),
                otherwise="runs: ask since when there could be",
            ),
            "runs: ask since when there could be": call(
                "aws-sdk:sfn:describeStateMachine",
                {"StateMachineArn": "{% $machines[$number] %}"},
                Assign={"last": "{% $states.result.CreationDate %}"},
                Next="runs: tell how long ago",
            ),
            "runs: tell how long ago": {
                **figure(
                    QUIET_DAYS,
                    days,
                    [own, of_dataset],
                ),
                "Assign": {"number": "{% $number + 1 %}"},
                "Next": "runs: is there another dataset?",
            },
            DONE: {"Type": "Succeed"},
        },
    }
    wrong = faults(machine)
    if wrong:
        raise ValueError(f"Step Functions would not take the watch of {environment.name}: {' '.join(wrong)}")
    return machine


def rights(
    stack: cdk.Stack,
    environment: Environment,
    topic_arn: str,
    key: kms.IKey | None = None,
    certified: s3.IBucket | None = None,
) -> list[iam.PolicyStatement]:
    """What the watch may do: see clusters, end ours, ask our state machines for their runs, tell the topic."""
    ours = {"StringEquals": {f"aws:ResourceTag/{key}": value for key, value in tags(environment).items()}}
    return [
        iam.PolicyStatement(sid="ListClusters", actions=["elasticmapreduce:ListClusters"], resources=["*"]),
        iam.PolicyStatement(
            sid="EndClusters",
            actions=["elasticmapreduce:TerminateJobFlows"],
            resources=[stack.format_arn(service="elasticmapreduce", resource="cluster", resource_name="*")],
            conditions=ours,
        ),
        iam.PolicyStatement(
            sid="AskForRuns",
            actions=["states:ListExecutions", "states:DescribeStateMachine"],
            resources=[f"{_machines(stack)}{machine_name(environment, '*')}"],
        ),
        iam.PolicyStatement(sid="ListRuns", actions=["states:ListStateMachines"], resources=["*"]),
        iam.PolicyStatement(sid="ReadFigures", actions=["cloudwatch:GetMetricStatistics"], resources=["*"]),
        iam.PolicyStatement(
            sid="SendFigures",
            actions=["cloudwatch:PutMetricData"],
            resources=["*"],  # this action knows no resources
            conditions={"StringEquals": {"cloudwatch:namespace": NAMESPACE}},
        ),
        iam.PolicyStatement(sid="Notify", actions=["sns:Publish"], resources=[topic_arn]),
        *(find_certificate(certified) if certified else []),
        *use_key(key, *WRITE),
    ]


def _machines(stack: cdk.Stack) -> str:
    """What the ARNs of this account's state machines begin with."""
    return stack.format_arn(
        service="states", resource="stateMachine", resource_name="", arn_format=cdk.ArnFormat.COLON_RESOURCE_NAME
    )


def find_certificate(workspace: s3.IBucket) -> list[iam.PolicyStatement]:
    """The right to see until when the nodes' certificate is valid. S3 says 403 for what may not be listed, not 404."""
    return [
        iam.PolicyStatement(sid="ListWorkspace", actions=["s3:ListBucket"], resources=[workspace.bucket_arn]),
        iam.PolicyStatement(
            sid="FindCertificate", actions=["s3:GetObject"], resources=[workspace.arn_for_objects(CERTIFICATE_END)]
        ),
    ]
