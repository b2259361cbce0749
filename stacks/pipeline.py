"""The way from raw data to predictions, made at synth time: a state machine for each dataset, its role, its alarms."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import aws_cdk as cdk
from aws_cdk import aws_iam as iam
from aws_cdk import aws_logs as logs
from aws_cdk import aws_stepfunctions as sfn
from constructs import Construct

from datasets import Dataset
from stacks.cluster import ClusterStack, security_configuration
from stacks.data import DataStack
from stacks.definition import Parts, definition
from stacks.emr import request_parameters
from stacks.etl import EtlStack
from stacks.observability import ObservabilityStack, alarm_on_lost_runs
from stacks.outputs import pascal, state_machine_output
from stacks.settings import Environment, tags

RETENTION = {
    7: logs.RetentionDays.ONE_WEEK,
    14: logs.RetentionDays.TWO_WEEKS,
    30: logs.RetentionDays.ONE_MONTH,
    90: logs.RetentionDays.THREE_MONTHS,
    180: logs.RetentionDays.SIX_MONTHS,
    365: logs.RetentionDays.ONE_YEAR,
}


@dataclass(frozen=True)
class Made:
    """The stacks that a pipeline runs through."""

    data: DataStack
    etl: EtlStack
    cluster: ClusterStack
    observability: ObservabilityStack


class PipelineStack(cdk.Stack):
    """A state machine for each dataset; stacks/definition.py says what it does."""

    def __init__(
        self, scope: Construct, id: str, *, environment: Environment, datasets: Sequence[Dataset], made: Made
    ) -> None:
        super().__init__(scope, id)
        security = security_configuration(self, made.cluster.key)
        transient = request_parameters(made.cluster.definition, security_configuration=security)
        for dataset in datasets:
            Pipeline(
                self,
                pascal(dataset.name),
                environment=environment,
                dataset=dataset.name,
                made=made,
                transient_cluster=transient,
            )


class Pipeline(Construct):
    """One dataset's state machine."""

    def __init__(
        self,
        scope: Construct,
        id: str,
        *,
        environment: Environment,
        dataset: str,
        made: Made,
        transient_cluster: Mapping[str, Any],
    ) -> None:
        super().__init__(scope, id)
        stack = cdk.Stack.of(self)
        data, etl, cluster, topic = made.data, made.etl.datasets[dataset], made.cluster, made.observability.topic
        parts = Parts(
            environment=environment.name,
            dataset=dataset,
            database=data.databases[dataset],
            crawler=etl.crawler,
            prepare_job=etl.prepare,
            lake_bucket=data.lake.bucket_name,
            models_bucket=data.models.bucket_name,
            train_script=cluster.train.s3_object_url,
            predict_script=cluster.predict.s3_object_url,
            library=cluster.library.s3_object_url,
            workbench_parameter=cluster.workbench_parameter,
            transient_cluster=transient_cluster,
            topic_arn=topic.topic_arn,
            partition=stack.partition,
            region=stack.region,
            prepare_minutes=environment.etl.timeout_minutes,
            step_minutes=environment.cluster.step_timeout_minutes,
        )
        role = iam.Role(
            self,
            "Role",
            description=f"Worn by the state machine of {dataset}",
            assumed_by=iam.ServicePrincipal("states.amazonaws.com"),
            inline_policies={
                "pipeline": iam.PolicyDocument(statements=rights(stack, environment, parts, data, cluster))
            },
        )
        machine = sfn.StateMachine(
            self,
            "StateMachine",
            definition_body=sfn.DefinitionBody.from_string(stack.to_json_string(definition(parts))),
            role=role,
            logs=sfn.LogOptions(
                destination=log_group(self, environment, dataset), level=sfn.LogLevel.ALL, include_execution_data=False
            ),
            tracing_enabled=True,
        )
        alarm_on_lost_runs(self, dataset=dataset, state_machine_arn=machine.state_machine_arn, topic=topic)
        output = state_machine_output(dataset)
        cdk.CfnOutput(self, f"{output}Arn", value=machine.state_machine_arn).override_logical_id(output)


def log_group(scope: Construct, environment: Environment, dataset: str) -> logs.LogGroup:
    """Named, because under /aws/vendedlogs/ a group doesn't use up the region's one short policy for log deliveries."""
    return logs.LogGroup(
        scope,
        "Logs",
        log_group_name=f"/aws/vendedlogs/states/dml-{environment.name}-{dataset}",
        retention=RETENTION[environment.logs.keep_days],
        removal_policy=cdk.RemovalPolicy.RETAIN if environment.keep_data else cdk.RemovalPolicy.DESTROY,
    )


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
            sid="FindWorkbench",
            actions=["ssm:GetParameter"],
            resources=[
                stack.format_arn(service="ssm", resource="parameter", resource_name=parts.workbench_parameter[1:])
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
        *(
            iam.PolicyStatement(
                sid=sid,
                actions=["iam:PassRole"],
                resources=[role.role_arn],
                conditions={"StringLike": {"iam:PassedToService": f"{service}.amazonaws.com*"}},
            )
            for sid, role, service in (
                ("PassServiceRole", cluster.service_role, "elasticmapreduce"),
                ("PassNodeRole", cluster.node_role, "ec2"),
            )
        ),
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
        # Without the right to list, S3 says 403 rather than 404 where there is no current model yet.
        iam.PolicyStatement(sid="ListModels", actions=["s3:ListBucket"], resources=[models]),
        iam.PolicyStatement(
            sid="ReadVerdict",
            actions=["s3:GetObject"],
            resources=[f"{models}/{parts.dataset}/{key}" for key in ("CURRENT.json", "*/gate.json", "*/metrics.json")],
        ),
        iam.PolicyStatement(
            sid="Publish", actions=["s3:PutObject"], resources=[f"{models}/{parts.dataset}/CURRENT.json"]
        ),
        iam.PolicyStatement(sid="Notify", actions=["sns:Publish"], resources=[parts.topic_arn]),
    ]
