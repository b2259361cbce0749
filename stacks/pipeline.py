"""The way from raw data to predictions, made at synth time: a dataset's state machine, its role, schedule, alarms."""

import zlib
from dataclasses import dataclass

import aws_cdk as cdk
from aws_cdk import aws_events as events
from aws_cdk import aws_events_targets as targets
from aws_cdk import aws_iam as iam
from aws_cdk import aws_logs as logs
from aws_cdk import aws_stepfunctions as sfn
from constructs import Construct

from jobs.tables.settings import Dataset
from stacks import code
from stacks.cluster import ClusterStack, pass_role
from stacks.data import POINTER, WRITE, DataStack, use_key
from stacks.definition import NAMESPACE, Parts, definition
from stacks.emr import request, standing_executors
from stacks.etl import Etl
from stacks.findings import NO_RESOURCE, OBJECTS, SAID_TWICE, accept_in_template, accept_wildcards
from stacks.observability import (
    FIGURES,
    ObservabilityStack,
    alarm_on_lost_runs,
    alarm_on_quarantine,
    alarm_on_silence,
    tell_of_failed_job,
)
from stacks.outputs import state_machine_output
from stacks.settings import Environment, machine_name, network_parameter, tags, workbench_parameter
from stacks.watch import alarm_on_absence, find_certificate


@dataclass(frozen=True)
class Shared:
    """The stacks that all datasets share, and stand on. The network is none of them: runs find it by its parameter."""

    data: DataStack
    cluster: ClusterStack
    observability: ObservabilityStack


class Pipeline(Construct):
    """A dataset's state machine; stacks/definition.py says what it does."""

    def __init__(
        self,
        scope: Construct,
        id: str,
        *,
        environment: Environment,
        dataset: Dataset,
        database: str,
        shipped: code.Shipped,
        etl: Etl,
        logs: logs.ILogGroup,
        shared: Shared,
    ) -> None:
        super().__init__(scope, id)
        stack, name = cdk.Stack.of(self), dataset.name
        data, cluster, topic = shared.data, shared.cluster, shared.observability.topic
        security = cluster.security_configuration(self)
        parts = Parts(
            environment=environment.name,
            dataset=name,
            database=database,
            crawler=etl.crawler,
            prepare_job=etl.prepare,
            lake_bucket=data.lake.bucket_name,
            models_bucket=data.models.bucket_name,
            train_script=shipped.train,
            predict_script=shipped.predict,
            py_files=shipped.py_files,
            workbench_parameter=workbench_parameter(environment),
            network_parameter=network_parameter(environment),
            transient_cluster=request(cluster.definition, security_configuration=security),
            topic_arn=topic.topic_arn,
            partition=stack.partition,
            region=stack.region,
            prepare_minutes=environment.etl.timeout_minutes,
            step_minutes=environment.cluster.step_timeout_minutes,
            figures=FIGURES[dataset.task],
            train_options=standing_executors(environment.cluster) if dataset.training.together else (),
            certificate_bucket=data.workspace.bucket_name if environment.encryption.in_transit else "",
        )
        allowed = rights(stack, environment, parts, data, cluster)
        role = iam.Role(
            self,
            "Role",
            description=f"Worn by the state machine of {name}",
            assumed_by=iam.ServicePrincipal("states.amazonaws.com"),
            inline_policies={"pipeline": iam.PolicyDocument(statements=allowed)},
        )
        accept_wildcards(
            role,
            allowed,
            {
                "CreateCluster": "A cluster not yet there has no name; log deliveries and traces never have one.",
                "TagCluster": OWN_CLUSTERS,
                "UseOwnClusters": OWN_CLUSTERS,
                "LetEmrCleanUp": "AWS may add a suffix to the name of its own service-linked role.",
                "ReadCounts": OBJECTS,
                "SendFigures": NO_RESOURCE,
                "ReadVerdict": OBJECTS,
                "Fail": NO_RESOURCE,
            },
        )
        self.machine = sfn.StateMachine(
            self,
            "StateMachine",
            state_machine_name=machine_name(environment, name),  # the dashboard looks for it by its name
            definition_body=sfn.DefinitionBody.from_string(stack.to_json_string(definition(parts))),
            role=role,
            logs=sfn.LogOptions(destination=logs, level=sfn.LogLevel.ALL, include_execution_data=False),
            tracing_enabled=True,
        )
        accept_in_template(self.machine, {"W3005": SAID_TWICE})
        alarm_on_silence(self, rule=schedule(self, environment, dataset, self.machine), topic=topic)
        tell_of_failed_job(self, job=etl.prepare, topic=topic)
        if environment.schedule.enabled and dataset.schedule.enabled:
            alarm_on_absence(self, environment=environment, dataset=name, topic=topic)
        alarm_on_lost_runs(self, dataset=name, state_machine_arn=self.machine.state_machine_arn, topic=topic)
        most = dataset.gate.max_quarantined_share
        alarm_on_quarantine(self, environment=environment, dataset=name, most=most, topic=topic)
        output = state_machine_output(name)
        cdk.CfnOutput(self, f"{output}Arn", value=self.machine.state_machine_arn).override_logical_id(output)


OWN_CLUSTERS = "Transient clusters have no name beforehand; only those with this environment's tags can be used."


def schedule(scope: Construct, environment: Environment, dataset: Dataset, machine: sfn.StateMachine) -> events.Rule:
    """Trains again by the clock. A run that finds another one at work waits for the crawler and the Glue job."""
    return events.Rule(
        scope,
        "Schedule",
        description="Trains again and publishes what is better; ends early while no model has ever been published",
        enabled=environment.schedule.enabled and dataset.schedule.enabled,
        schedule=events.Schedule.expression(f"cron({cron_of(environment, dataset)})"),
        targets=[
            targets.SfnStateMachine(
                machine, input=events.RuleTargetInput.from_object({"do": "run", "revision": "scheduled"})
            )
        ],
    )


def cron_of(environment: Environment, dataset: Dataset) -> str:
    """When a dataset is trained again: as it says itself, else some minutes after the environment's own time.

    How many follows from its name alone: the others' times stay the same when it comes or goes.
    """
    if dataset.schedule.cron:
        return dataset.schedule.cron
    schedule = environment.schedule
    if not schedule.spread_minutes:
        return schedule.cron
    minutes, hours, *days = schedule.cron.split()
    later = int(hours) * 60 + int(minutes) + zlib.crc32(dataset.name.encode()) % schedule.spread_minutes
    return " ".join([str(later % 60), str(later // 60), *days])


def rights(
    stack: cdk.Stack, environment: Environment, parts: Parts, data: DataStack, cluster: ClusterStack
) -> list[iam.PolicyStatement]:
    """What a state machine may do: run its crawler and job, use our clusters, move its model, tell the topic."""
    clusters = stack.format_arn(service="elasticmapreduce", resource="cluster", resource_name="*")
    models = data.models.bucket_arn
    return [
        iam.PolicyStatement(
            sid="Crawl",
            actions=["glue:StartCrawler", "glue:GetCrawler"],
            resources=[stack.format_arn(service="glue", resource="crawler", resource_name=parts.crawler)],
        ),
        iam.PolicyStatement(
            sid="Prepare",
            actions=["glue:StartJobRun", "glue:GetJobRun", "glue:GetJobRuns", "glue:BatchStopJobRun"],
            resources=[stack.format_arn(service="glue", resource="job", resource_name=parts.prepare_job)],
        ),
        iam.PolicyStatement(
            sid="FindCluster",
            actions=["ssm:GetParameter"],
            resources=[
                stack.format_arn(service="ssm", resource="parameter", resource_name=parameter[1:])
                for parameter in (parts.workbench_parameter, parts.network_parameter)
            ],
        ),
        # A cluster that isn't there yet has no ARN and no tags.
        iam.PolicyStatement(sid="CreateCluster", actions=["elasticmapreduce:RunJobFlow"], resources=["*"]),
        iam.PolicyStatement(sid="TagCluster", actions=["elasticmapreduce:AddTags"], resources=[clusters]),
        iam.PolicyStatement(
            sid="UseOwnClusters",
            actions=[
                "elasticmapreduce:DescribeCluster",
                "elasticmapreduce:AddJobFlowSteps",
                "elasticmapreduce:DescribeStep",
                "elasticmapreduce:CancelSteps",
                "elasticmapreduce:TerminateJobFlows",
            ],
            resources=[clusters],
            conditions={"StringEquals": {f"aws:ResourceTag/{key}": value for key, value in tags(environment).items()}},
        ),
        pass_role("PassServiceRole", cluster.service_role, "elasticmapreduce"),
        pass_role("PassNodeRole", cluster.node_role, "ec2"),
        iam.PolicyStatement(
            sid="LetEmrCleanUp",
            actions=["iam:CreateServiceLinkedRole"],
            resources=[
                f"arn:{stack.partition}:iam::{stack.account}:role/aws-service-role/elasticmapreduce.amazonaws.com/AWSServiceRoleForEMRCleanup*"
            ],
            conditions={"StringLike": {"iam:AWSServiceName": "elasticmapreduce.amazonaws.com*"}},
        ),
        # How Step Functions learns that a step has ended.
        iam.PolicyStatement(
            sid="WatchSteps",
            actions=["events:PutTargets", "events:PutRule", "events:DescribeRule"],
            resources=[
                stack.format_arn(
                    service="events", resource="rule", resource_name="StepFunctionsGetEventForEMRAddJobFlowStepsRule"
                )
            ],
        ),
        iam.PolicyStatement(
            sid="ReadCounts",
            actions=["s3:GetObject"],
            resources=[
                data.lake.arn_for_objects(f"{parts.dataset}/runs/*/{file}") for file in ("prepare.json", "failure.json")
            ],
        ),
        iam.PolicyStatement(
            sid="SendFigures",
            actions=["cloudwatch:PutMetricData"],
            resources=["*"],  # this action knows no resources
            conditions={"StringEquals": {"cloudwatch:namespace": NAMESPACE}},
        ),
        # Without the right to list, S3 says 403 rather than 404 where there is no current model or failure.json.
        iam.PolicyStatement(sid="ListModels", actions=["s3:ListBucket"], resources=[models, data.lake.bucket_arn]),
        iam.PolicyStatement(
            sid="ReadVerdict",
            actions=["s3:GetObject"],
            resources=[f"{models}/{parts.dataset}/{key}" for key in (POINTER, "*/gate.json", "*/figures.json")],
        ),
        *(find_certificate(data.workspace) if parts.certificate_bucket else []),
        iam.PolicyStatement(sid="Publish", actions=["s3:PutObject"], resources=[f"{models}/{parts.dataset}/{POINTER}"]),
        iam.PolicyStatement(sid="Notify", actions=["sns:Publish"], resources=[parts.topic_arn]),
        # Its own failure, by the token of its own task: the action knows no resource.
        iam.PolicyStatement(sid="Fail", actions=["states:SendTaskFailure"], resources=["*"]),
        *use_key(data.key, *WRITE),  # of the registry's bucket and of the topic
    ]
