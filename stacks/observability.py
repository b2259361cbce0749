"""Who is told and shown what, made at synth time: topic, what sends to it, dashboard, budget, the way to Zeppelin."""

import json
from collections.abc import Sequence

import aws_cdk as cdk
from aws_cdk import aws_budgets as budgets
from aws_cdk import aws_cloudwatch as cloudwatch
from aws_cdk import aws_cloudwatch_actions as actions
from aws_cdk import aws_events as events
from aws_cdk import aws_events_targets as targets
from aws_cdk import aws_iam as iam
from aws_cdk import aws_secretsmanager as secretsmanager
from aws_cdk import aws_sns as sns
from aws_cdk import aws_sns_subscriptions as subscriptions
from constructs import Construct

from stacks import code
from stacks.data import READ, DataStack, use_key
from stacks.definition import NAMESPACE, QUARANTINED_SHARE, ROWS
from stacks.findings import AWS_KEYS, accept, accept_in_template, accept_wildcards, export
from stacks.outputs import Output
from stacks.settings import Environment, tags, workbench_parameter

LOGIN_USER = "analyst"  # one login for all: whoever has it acts with the nodes' role (docs/security.md)


class ObservabilityStack(cdk.Stack):
    """Topic, budget, Zeppelin's login, analysts' policy, dashboard, messages about clusters: none names a dataset.

    Alarms stand in the stack of what they watch: here they would tie stacks in a circle.
    """

    def __init__(self, scope: Construct, id: str, *, environment: Environment, data: DataStack) -> None:
        super().__init__(scope, id, synthesizer=code.synthesizer(environment))
        self.topic = self._topic(environment, data)
        export(self, self.topic.topic_arn)
        if environment.budget.monthly_usd:
            self._budget(environment)
        dashboard(self, environment)
        tell_of_failed_clusters(self, environment=environment, topic=self.topic)
        self.login = zeppelin_login(self, data).ref
        export(self, self.login)  # to the nodes' role, whether there is a workbench or not: the template stays the same
        cdk.CfnOutput(self, "ZeppelinLoginArn", value=self.login).override_logical_id(Output.ZEPPELIN_LOGIN)
        analysts = analyst_policy(self, environment, login=self.login, data=data)
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


IDLE_HOURS = 3
# Of a model's figures on held-out rows, the two that the dashboard shows: what it loses, and what it is worth.
FIGURES = {"binary": ("log_loss", "auc"), "multiclass": ("log_loss", "accuracy"), "regression": ("rmse", "r2")}


def zeppelin_login(stack: cdk.Stack, data: DataStack) -> secretsmanager.CfnSecret:
    """The user and the password that Zeppelin asks for, made by Secrets Manager: no template and no person knows it
    beforehand.

    It has no name of its own: a deleted one could hold it for some time, and the environment could not be deployed
    again. It stands in a stack that `dml pause` leaves alone, so that a new workbench has the same login.
    """
    secret = secretsmanager.CfnSecret(
        stack,
        "ZeppelinLogin",
        description="Who may use Zeppelin on the workbench (cluster/zeppelin.sh, dml zeppelin)",
        kms_key_id=data.key.key_arn if data.key else None,
        generate_secret_string=secretsmanager.CfnSecret.GenerateSecretStringProperty(
            secret_string_template=json.dumps({"user": LOGIN_USER}),
            generate_string_key="password",
            password_length=32,
            exclude_punctuation=True,  # it is typed, and stands in a file of Shiro's
        ),
    )
    accept(
        secret,
        {
            "AwsSolutions-SMG4": "A workbench lives for hours or days and reads it when it starts; docs/security.md "
            "says how it is changed. Rotation by itself takes a function that reaches the workbench."
        },
    )
    if not data.key:
        accept_in_template(secret, {"CKV_AWS_149": AWS_KEYS})
    return secret


def read_login(login: str) -> iam.PolicyStatement:
    """The right to read the login (its secret's ARN) of Zeppelin."""
    return iam.PolicyStatement(sid="ReadLogin", actions=["secretsmanager:GetSecretValue"], resources=[login])


def analyst_policy(stack: cdk.Stack, environment: Environment, *, login: str, data: DataStack) -> iam.ManagedPolicy:
    """What a person needs to open Zeppelin on the workbench, and no more: a tunnel to a port, its login, no shell.

    To be attached to a group or a permission set by whoever keeps people's access (docs/operations.md). It stands in a
    stack that `dml pause` leaves alone: a policy that somebody wears cannot be deleted.
    """
    ours = tags(environment).items()
    workbench = stack.format_arn(
        service="ssm", resource="parameter", resource_name=workbench_parameter(environment)[1:]
    )
    documents = f"arn:{stack.partition}:ssm:{stack.region}::document"
    rights = [
        # What is deployed under which names, the workbench's parameter and the login among it: `dml` asks for it first.
        iam.PolicyStatement(sid="FindStacks", actions=["cloudformation:DescribeStacks"], resources=["*"]),
        iam.PolicyStatement(sid="FindWorkbench", actions=["ssm:GetParameter"], resources=[workbench]),
        read_login(login),
        *use_key(data.key, *READ, sid="DecryptLogin", service="secretsmanager"),
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
            "FindStacks": "A question about all stacks of the account; it tells their parameters, tags and outputs.",
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


def tell_of_failed_clusters(scope: Construct, *, environment: Environment, topic: sns.ITopic) -> None:
    """Messages about clusters that ended with errors, whoever had started them."""
    pattern = events.EventPattern(
        source=["aws.emr"],
        detail_type=["EMR Cluster State Change"],
        detail={"name": [{"prefix": f"dml-{environment.name}-"}], "state": ["TERMINATED_WITH_ERRORS"]},
    )
    heard_rule(scope, "ClusterFailed", "A cluster ended with errors", told(scope, topic), topic=topic, pattern=pattern)


def tell_of_failed_job(scope: Construct, *, job: str, topic: sns.ITopic) -> None:
    """Messages about a Glue job that failed, whoever had started it."""
    pattern = events.EventPattern(
        source=["aws.glue"],
        detail_type=["Glue Job State Change"],
        detail={"jobName": [job], "state": ["FAILED", "TIMEOUT", "ERROR", "STOPPED"]},
    )
    text = "A Glue job failed, timed out or was stopped"
    heard_rule(scope, "GlueJobFailed", text, told(scope, topic), topic=topic, pattern=pattern)


def told(scope: Construct, topic: sns.ITopic) -> targets.SnsTopic:
    """The topic as a rule's target. Imported, so that CDK adds no right to publish of its own: it has one already."""
    return targets.SnsTopic(sns.Topic.from_topic_arn(scope, "Topic", topic.topic_arn))


def heard_rule(
    scope: Construct,
    id: str,
    description: str,
    target: events.IRuleTarget,
    *,
    topic: sns.ITopic,
    pattern: events.EventPattern | None = None,
    schedule: events.Schedule | None = None,
) -> None:
    """A rule with one target, and the alarm for when it does not reach that."""
    rule = events.Rule(scope, id, description=description, event_pattern=pattern, schedule=schedule, targets=[target])
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


def dashboard(scope: Construct, environment: Environment) -> None:
    """What an analyst wants to see: did the runs end well, how good are the models, how clean are the data.

    Each widget searches for its metrics, a line a dataset, so that it need not know which there are (CloudWatch User
    Guide, "Search expressions": a term is a token of the name, unless it is in quotes; several must all be there).
    """
    made = cloudwatch.Dashboard(
        scope, "Dashboard", dashboard_name=f"dml-{environment.name}", default_interval=cdk.Duration.days(90)
    )
    name, day = environment.name, cdk.Duration.days(1)

    def runs(metric: str, statistic: str = "Sum") -> str:
        """Of the state machines that are called dml-ENVIRONMENT-DATASET (stacks/pipeline.py)."""
        return found(
            f'{{AWS/States,StateMachineArn}} MetricName="{metric}" StateMachineArn=dml StateMachineArn={name}',
            statistic,
        )

    def figures(*names: str) -> str:
        either = " OR ".join(f'"{one}"' for one in names)
        return found(f'{{{NAMESPACE},Dataset,Environment}} Environment="{name}" MetricName=({either})', "Maximum")

    def found(what: str, statistic: str) -> str:
        return f"SEARCH('{what}', '{statistic}', {day.to_seconds():.0f})"

    def widget(title: str, left: Sequence[str], right: Sequence[str] = ()) -> cloudwatch.GraphWidget:
        def lines(searches: Sequence[str]) -> list[cloudwatch.IMetric]:
            return [cloudwatch.MathExpression(expression=one, label="", period=day) for one in searches]

        return cloudwatch.GraphWidget(title=title, width=12, height=9, left=lines(left), right=lines(right))

    made.add_widgets(
        cloudwatch.TextWidget(
            width=24,
            height=3,
            markdown=f"# dml {name}\n"
            f"A line a dataset: how its runs ended, how good the models were on held-out rows (a loss: less is "
            f"better), how much of the raw data did not parse. `dml models list DATASET` says which model is current, "
            f"`dml report DATASET` shows it.",
        ),
        widget("runs a day that succeeded", [runs("ExecutionsSucceeded")]),
        widget(
            "runs a day that failed, timed out or were stopped",
            [runs(metric) for metric in ("ExecutionsFailed", "ExecutionsTimedOut", "ExecutionsAborted")],
        ),
        widget(
            "published models on held-out rows: loss, and merit on the right",
            [figures(*dict.fromkeys(loss for loss, _ in FIGURES.values()))],
            [figures(*dict.fromkeys(merit for _, merit in FIGURES.values()))],
        ),
        widget("rows prepared, and quarantined share on the right", [figures(ROWS)], [figures(QUARANTINED_SHARE)]),
        widget("minutes a run", [f"{runs('ExecutionTime', 'Maximum')} / 60000"]),
    )
