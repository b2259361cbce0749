"""Who is told and shown what, made at synth time: topic, what sends to it, dashboard, budget, the way to Zeppelin."""

from collections.abc import Mapping, Sequence

import aws_cdk as cdk
from aws_cdk import aws_budgets as budgets
from aws_cdk import aws_cloudwatch as cloudwatch
from aws_cdk import aws_cloudwatch_actions as actions
from aws_cdk import aws_events as events
from aws_cdk import aws_events_targets as targets
from aws_cdk import aws_iam as iam
from aws_cdk import aws_logs as logs
from aws_cdk import aws_sns as sns
from aws_cdk import aws_sns_subscriptions as subscriptions
from aws_cdk import aws_stepfunctions as sfn
from constructs import Construct

from jobs.tables.settings import Dataset
from stacks.data import DataStack, removal
from stacks.definition import NAMESPACE, QUARANTINED_SHARE, ROWS
from stacks.findings import AWS_KEYS, accept_in_template, accept_wildcards
from stacks.outputs import Output, pascal
from stacks.settings import Environment, tags, workbench_parameter


class ObservabilityStack(cdk.Stack):
    """Topic, budget, analysts' policy, and the state machines' log groups: what outlives `dml pause`.

    Alarms stand in the stack of what they watch: here they would tie stacks in a circle.
    """

    def __init__(
        self, scope: Construct, id: str, *, environment: Environment, datasets: Sequence[Dataset], data: DataStack
    ) -> None:
        super().__init__(scope, id)
        self.topic = self._topic(environment, data)
        if environment.budget.monthly_usd:
            self._budget(environment)
        self.log_groups = {
            dataset.name: self._log_group(f"{pascal(dataset.name)}Logs", f"/{dataset.name}", environment, data)
            for dataset in datasets
        }
        self.watch_logs = self._log_group("WatchLogs", "-watch", environment, data)
        analysts = analyst_policy(self, environment)
        cdk.CfnOutput(self, "AnalystPolicyArn", value=analysts.managed_policy_arn).override_logical_id(
            Output.ANALYST_POLICY
        )
        cdk.CfnOutput(self, "TopicArn", value=self.topic.topic_arn).override_logical_id(Output.TOPIC)

    def _topic(self, environment: Environment, data: DataStack) -> sns.Topic:
        topic = sns.Topic(self, "Notifications", enforce_ssl=True, master_key=data.key)
        # A topic with a policy of its own loses the default one, by which the account's alarms may publish.
        for name in ("cloudwatch", "events", "budgets"):
            topic.add_to_resource_policy(
                iam.PolicyStatement(
                    sid=f"{name.capitalize()}OfThisAccount",
                    principals=[iam.ServicePrincipal(f"{name}.amazonaws.com")],
                    actions=["sns:Publish"],
                    resources=[topic.topic_arn],
                    conditions={"StringEquals": {"aws:SourceAccount": self.account}},
                )
            )
        if environment.notifications.email:
            topic.add_subscription(subscriptions.EmailSubscription(environment.notifications.email))
        if not data.key:
            reason = "Messages hold names and figures, no rows. AWS's own key for SNS would shut alarms and rules out."
            accept_in_template(topic, {"CKV_AWS_26": reason})
        return topic

    def _budget(self, environment: Environment) -> None:
        """This environment's cost of a month, told early enough to do something about it.

        Cost is told apart by tag once `environment` and `project` are activated as cost allocation tags (Billing
        console); until then the budget sees nothing (docs/first-deploy.md).
        """
        mine = [
            budgets.CfnBudget.ExpressionProperty(
                tags=budgets.CfnBudget.TagValuesProperty(key=key, values=[value], match_options=["EQUALS"])
            )
            for key, value in sorted(tags(environment).items())
        ]
        who = [budgets.CfnBudget.SubscriberProperty(subscription_type="SNS", address=self.topic.topic_arn)]
        made = budgets.CfnBudget(
            self,
            "Budget",
            budget=budgets.CfnBudget.BudgetDataProperty(
                budget_type="COST",
                time_unit="MONTHLY",
                budget_limit=budgets.CfnBudget.SpendProperty(amount=environment.budget.monthly_usd, unit="USD"),
                filter_expression=budgets.CfnBudget.ExpressionProperty(and_=mine),
                metrics=["UnblendedCost"],
            ),
            notifications_with_subscribers=[
                budgets.CfnBudget.NotificationWithSubscribersProperty(
                    notification=budgets.CfnBudget.NotificationProperty(
                        notification_type=kind,
                        comparison_operator="GREATER_THAN",
                        threshold=percent,
                        threshold_type="PERCENTAGE",
                    ),
                    subscribers=who,
                )
                for kind, percent in (("FORECASTED", 100), ("ACTUAL", 80))
            ],
        )
        made.node.add_dependency(self.topic.node.find_child("Policy"))  # AWS Budgets tries whether it may publish

    def _log_group(self, id: str, name: str, environment: Environment, data: DataStack) -> logs.LogGroup:
        """Named, because under /aws/vendedlogs/ a group doesn't use up the region's one short policy for deliveries."""
        group = logs.LogGroup(
            self,
            id,
            log_group_name=f"/aws/vendedlogs/states/dml-{environment.name}{name}",
            retention=RETENTION[environment.logs.keep_days],
            encryption_key=data.key,
            removal_policy=removal(environment),
        )
        if not data.key:
            accept_in_template(group, {"CKV_AWS_158": AWS_KEYS})
        return group


IDLE_HOURS = 3
# Of a model's figures on held-out rows, the two that the dashboard shows: what it loses, and what it is worth.
FIGURES = {"binary": ("log_loss", "auc"), "multiclass": ("log_loss", "accuracy"), "regression": ("rmse", "r2")}
RETENTION = {
    7: logs.RetentionDays.ONE_WEEK,
    14: logs.RetentionDays.TWO_WEEKS,
    30: logs.RetentionDays.ONE_MONTH,
    90: logs.RetentionDays.THREE_MONTHS,
    180: logs.RetentionDays.SIX_MONTHS,
    365: logs.RetentionDays.ONE_YEAR,
}


def analyst_policy(stack: cdk.Stack, environment: Environment) -> iam.ManagedPolicy:
    """What a person needs to open Zeppelin on the workbench, and no more: a tunnel to a port, no shell.

    To be attached to a group or a permission set by whoever keeps people's access (docs/operations.md). It stands in a
    stack that `dml pause` leaves alone: a policy that somebody wears cannot be deleted.
    """
    ours = tags(environment).items()
    workbench = stack.format_arn(
        service="ssm", resource="parameter", resource_name=workbench_parameter(environment)[1:]
    )
    documents = f"arn:{stack.partition}:ssm:{stack.region}::document"
    rights = [
        iam.PolicyStatement(sid="FindWorkbench", actions=["ssm:GetParameter"], resources=[workbench]),
        iam.PolicyStatement(
            sid="FindPrimaryNode",
            actions=["elasticmapreduce:DescribeCluster", "elasticmapreduce:ListInstances"],
            resources=[stack.format_arn(service="elasticmapreduce", resource="cluster", resource_name="*")],
            conditions={"StringEquals": {f"aws:ResourceTag/{key}": value for key, value in ours}},
        ),
        iam.PolicyStatement(
            sid="OpenTunnel",
            actions=["ssm:StartSession"],
            resources=[stack.format_arn(service="ec2", resource="instance", resource_name="*")],
            conditions={
                "StringEquals": {f"ssm:resourceTag/{key}": value for key, value in ours},
                # Without this, naming no document would open a shell, whatever the next statement says.
                "BoolIfExists": {"ssm:SessionDocumentAccessCheck": "true"},
            },
        ),
        iam.PolicyStatement(
            sid="TunnelsOnly", actions=["ssm:StartSession"], resources=[f"{documents}/AWS-StartPortForwardingSession"]
        ),
        iam.PolicyStatement(
            sid="EndOwnSessions",
            actions=["ssm:TerminateSession", "ssm:ResumeSession"],
            resources=[stack.format_arn(service="ssm", resource="session", resource_name="${aws:userid}-*")],
        ),
    ]
    policy = iam.ManagedPolicy(
        stack, "Analyst", description=f"Open Zeppelin on the workbench of {environment.name}", statements=rights
    )
    machines = "Machines and clusters have no name beforehand; only those with this environment's tags can be used."
    accept_wildcards(
        policy,
        rights,
        {
            "FindPrimaryNode": machines,
            "OpenTunnel": machines,
            "EndOwnSessions": "Sessions are named after who opened them.",
        },
    )
    return policy


def alarm_on_lost_runs(scope: Construct, *, dataset: str, state_machine_arn: str, topic: sns.ITopic) -> None:
    """Alarms for runs that ended badly, even in ways that a state machine cannot tell of: timed out, stopped."""
    for name, how in (
        ("ExecutionsFailed", "failed"),
        ("ExecutionsTimedOut", "timed out"),
        ("ExecutionsAborted", "was stopped"),
    ):
        metric = cloudwatch.Metric(
            namespace="AWS/States",
            metric_name=name,
            dimensions_map={"StateMachineArn": state_machine_arn},
            statistic="Sum",
            period=cdk.Duration.minutes(5),
        )
        alarm(scope, name, f"A run of {dataset} {how}.", metric, AT_LEAST, 1, topic=topic)


def alarm_on_workbench(scope: Construct, *, cluster_id: str, topic: sns.ITopic) -> None:
    """Alarms for a workbench that costs without being used, or is used by more than it can serve."""

    def metric(name: str) -> cloudwatch.Metric:
        return cloudwatch.Metric(
            namespace="AWS/ElasticMapReduce",
            metric_name=name,
            dimensions_map={"JobFlowId": cluster_id},
            statistic="Minimum",
            period=cdk.Duration.minutes(5),  # how often EMR says it
        )

    idle = f"The workbench has idled for {IDLE_HOURS} hours, and still costs. dml pause ends it."
    alarm(scope, "IdleForHours", idle, metric("IsIdle"), AT_LEAST, 1, periods=IDLE_HOURS * 12, topic=topic)
    waiting = "Applications have waited for nodes of the workbench for a quarter of an hour."
    alarm(scope, "AppsPending", waiting, metric("AppsPending"), ABOVE, 0, periods=3, topic=topic)


def alarm_on_quarantine(
    scope: Construct, *, environment: Environment, dataset: str, most: float, topic: sns.ITopic
) -> None:
    """An alarm for raw data of which more rows than the dataset allows did not parse."""
    text = f"More than {most:.1%} of the raw rows of {dataset} are in quarantine."
    alarm(scope, "Quarantined", text, run_metric(environment, dataset, QUARANTINED_SHARE), ABOVE, most, topic=topic)


AT_LEAST = cloudwatch.ComparisonOperator.GREATER_THAN_OR_EQUAL_TO_THRESHOLD
ABOVE = cloudwatch.ComparisonOperator.GREATER_THAN_THRESHOLD


def alarm(
    scope: Construct,
    id: str,
    text: str,
    metric: cloudwatch.Metric,
    operator: cloudwatch.ComparisonOperator,
    threshold: float,
    *,
    topic: sns.ITopic,
    periods: int = 1,
) -> None:
    """Tells the topic when a metric is so for that many of its periods; without data there is no alarm."""
    made = cloudwatch.Alarm(
        scope,
        id,
        alarm_description=text,
        metric=metric,
        threshold=threshold,
        evaluation_periods=periods,
        comparison_operator=operator,
        treat_missing_data=cloudwatch.TreatMissingData.NOT_BREACHING,
    )
    made.add_alarm_action(actions.SnsAction(topic))


def run_metric(environment: Environment, dataset: str, name: str) -> cloudwatch.Metric:
    """A figure that a run sends once, when its model is trained (stacks/definition.py)."""
    return cloudwatch.Metric(
        namespace=NAMESPACE,
        metric_name=name,
        dimensions_map={"Environment": environment.name, "Dataset": dataset},
        statistic="Maximum",
        period=cdk.Duration.minutes(5),
    )


def tell_of_failures(scope: Construct, *, environment: Environment, jobs: Sequence[str], topic: sns.ITopic) -> None:
    """Messages about Glue jobs and clusters that failed, whoever had started them."""
    # Imported, so that CDK adds no right to publish of its own: the topic has one, for this account only.
    target = targets.SnsTopic(sns.Topic.from_topic_arn(scope, "Topic", topic.topic_arn))
    job = events.Rule(
        scope,
        "GlueJobFailed",
        description="A Glue job failed, timed out or was stopped",
        event_pattern=events.EventPattern(
            source=["aws.glue"],
            detail_type=["Glue Job State Change"],
            detail={"jobName": list(jobs), "state": ["FAILED", "TIMEOUT", "ERROR", "STOPPED"]},
        ),
        targets=[target],
    )
    cluster = events.Rule(
        scope,
        "ClusterFailed",
        description="A cluster ended with errors",
        event_pattern=events.EventPattern(
            source=["aws.emr"],
            detail_type=["EMR Cluster State Change"],
            detail={"name": [{"prefix": f"dml-{environment.name}-"}], "state": ["TERMINATED_WITH_ERRORS"]},
        ),
        targets=[target],
    )
    for rule in (job, cluster):
        alarm_on_silence(rule, rule=rule, topic=topic)


def alarm_on_silence(scope: Construct, *, rule: events.Rule, topic: sns.ITopic) -> None:
    """An alarm for a rule that does not reach its target: what it had to tell is lost, or its run not started."""
    failed = cloudwatch.Metric(
        namespace="AWS/Events",
        metric_name="FailedInvocations",
        dimensions_map={"RuleName": rule.rule_name},
        statistic="Sum",
        period=cdk.Duration.minutes(5),
    )
    text = "EventBridge could not deliver to a target of this rule: a message is lost, or a run was not started."
    alarm(scope, "NotDelivered", text, failed, ABOVE, 0, topic=topic)


def dashboard(
    scope: Construct,
    *,
    environment: Environment,
    datasets: Sequence[Dataset],
    machines: Mapping[str, sfn.IStateMachine],
) -> None:
    """What an analyst wants to see: did the runs end well, how good are the models, how clean are the data."""
    made = cloudwatch.Dashboard(
        scope, "Dashboard", dashboard_name=f"dml-{environment.name}", default_interval=cdk.Duration.days(90)
    )
    day = cdk.Duration.days(1)

    def runs(metric: str, label: str, color: str, machine: sfn.IStateMachine) -> cloudwatch.Metric:
        return cloudwatch.Metric(
            namespace="AWS/States",
            metric_name=metric,
            dimensions_map={"StateMachineArn": machine.state_machine_arn},
            statistic="Sum",
            period=day,
            label=label,
            color=color,
        )

    made.add_widgets(
        cloudwatch.TextWidget(
            width=24,
            height=3,
            markdown=f"# dml {environment.name}\n"
            f"One row a dataset: how its runs ended, how good the models were on held-out rows (a loss: less is "
            f"better), how much of the raw data did not parse. `dml models list DATASET` says which model is current, "
            f"`dml report DATASET` shows it.",
        )
    )
    for settings in datasets:
        dataset, machine, (loss, merit) = settings.name, machines[settings.name], FIGURES[settings.task]
        made.add_widgets(
            cloudwatch.GraphWidget(
                title=f"{dataset}: runs a day",
                width=6,
                stacked=True,
                left=[
                    runs("ExecutionsSucceeded", "succeeded", cloudwatch.Color.GREEN, machine),
                    runs("ExecutionsFailed", "failed", cloudwatch.Color.RED, machine),
                    runs("ExecutionsTimedOut", "timed out", cloudwatch.Color.ORANGE, machine),
                    runs("ExecutionsAborted", "stopped", cloudwatch.Color.GREY, machine),
                ],
            ),
            cloudwatch.GraphWidget(
                title=f"{dataset}: published models on held-out rows",
                width=6,
                left=[run_metric(environment, dataset, loss).with_(period=day)],
                right=[run_metric(environment, dataset, merit).with_(period=day)],
            ),
            cloudwatch.GraphWidget(
                title=f"{dataset}: rows",
                width=6,
                left=[run_metric(environment, dataset, ROWS).with_(label="prepared", period=day)],
                right=[
                    run_metric(environment, dataset, QUARANTINED_SHARE).with_(label="quarantined share", period=day)
                ],
            ),
            cloudwatch.GraphWidget(
                title=f"{dataset}: minutes a run",
                width=6,
                left=[
                    cloudwatch.MathExpression(
                        expression="milliseconds / 60000",
                        label="minutes",
                        period=day,
                        using_metrics={
                            "milliseconds": cloudwatch.Metric(
                                namespace="AWS/States",
                                metric_name="ExecutionTime",
                                dimensions_map={"StateMachineArn": machine.state_machine_arn},
                                statistic="Maximum",
                            )
                        },
                    )
                ],
            ),
        )
