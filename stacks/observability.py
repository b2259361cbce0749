"""Who is told what, made at synth time: one topic for all notifications, and the alarms that send to it."""

import aws_cdk as cdk
from aws_cdk import aws_cloudwatch as cloudwatch
from aws_cdk import aws_cloudwatch_actions as actions
from aws_cdk import aws_iam as iam
from aws_cdk import aws_sns as sns
from aws_cdk import aws_sns_subscriptions as subscriptions
from constructs import Construct

from stacks.outputs import Output
from stacks.settings import Environment


class ObservabilityStack(cdk.Stack):
    """The notification topic. Alarms stand in the stack of what they watch: here they would tie stacks in a circle."""

    def __init__(self, scope: Construct, id: str, *, environment: Environment) -> None:
        super().__init__(scope, id)
        self.topic = sns.Topic(self, "Notifications", enforce_ssl=True)
        # A topic with a policy of its own loses the default one, by which the account's alarms may publish.
        self.topic.add_to_resource_policy(
            iam.PolicyStatement(
                sid="AlarmsOfThisAccount",
                principals=[iam.ServicePrincipal("cloudwatch.amazonaws.com")],
                actions=["sns:Publish"],
                resources=[self.topic.topic_arn],
                conditions={"StringEquals": {"aws:SourceAccount": self.account}},
            )
        )
        if environment.notifications.email:
            self.topic.add_subscription(subscriptions.EmailSubscription(environment.notifications.email))
        cdk.CfnOutput(self, "TopicArn", value=self.topic.topic_arn).override_logical_id(Output.TOPIC)


def alarm_on_lost_runs(scope: Construct, *, dataset: str, state_machine_arn: str, topic: sns.ITopic) -> None:
    """Alarms for runs that ended badly, even in ways that a state machine cannot tell of: timed out, stopped."""
    for metric, how in (
        ("ExecutionsFailed", "failed"),
        ("ExecutionsTimedOut", "timed out"),
        ("ExecutionsAborted", "was stopped"),
    ):
        alarm = cloudwatch.Alarm(
            scope,
            metric,
            alarm_description=f"A run of {dataset} {how}.",
            metric=cloudwatch.Metric(
                namespace="AWS/States",
                metric_name=metric,
                dimensions_map={"StateMachineArn": state_machine_arn},
                statistic="Sum",
                period=cdk.Duration.minutes(5),
            ),
            threshold=1,
            evaluation_periods=1,
            comparison_operator=cloudwatch.ComparisonOperator.GREATER_THAN_OR_EQUAL_TO_THRESHOLD,
            treat_missing_data=cloudwatch.TreatMissingData.NOT_BREACHING,
        )
        alarm.add_alarm_action(actions.SnsAction(topic))
