"""Where data are kept, made at synth time: the five buckets that all datasets share, and their key."""

from typing import Any

import aws_cdk as cdk
from aws_cdk import aws_iam as iam
from aws_cdk import aws_kms as kms
from aws_cdk import aws_logs as logs
from aws_cdk import aws_s3 as s3
from constructs import Construct

from stacks import code
from stacks.findings import AWS_KEYS, SAID_TWICE, accept, accept_in_template, export
from stacks.outputs import Output
from stacks.settings import Environment

POINTER = "CURRENT.json"  # which model is current: models/{dataset}/CURRENT.json


class DataStack(cdk.Stack):
    """Raw files in, lake (features, predictions), models (the registry), workspace (Zeppelin's notes), logs.

    `key` is the customer's KMS key, if the environment has one: for all of these but the logs bucket.
    """

    def __init__(self, scope: Construct, id: str, *, environment: Environment) -> None:
        super().__init__(
            scope, id, termination_protection=environment.keep_data, synthesizer=code.synthesizer(environment)
        )
        self.key = customer_key(self, environment) if environment.encryption.customer_key else None
        self.logs = self._logs(environment)
        self.raw = self._bucket(Output.RAW_BUCKET, environment)
        self.lake = self._bucket(Output.LAKE_BUCKET, environment)
        self.models = self._bucket(Output.MODELS_BUCKET, environment)
        self.workspace = self._bucket(Output.WORKSPACE_BUCKET, environment)
        self._guard_pointers()
        if not environment.keep_data:
            accept_emptying(self)
        for bucket in self.buckets:
            export(self, bucket.bucket_arn)
            export(self, bucket.bucket_name)
        if self.key:
            export(self, self.key.key_arn)

    @property
    def buckets(self) -> list[s3.Bucket]:
        """All five."""
        return [self.raw, self.lake, self.models, self.workspace, self.logs]

    def _logs(self, environment: Environment) -> s3.Bucket:
        """Logs of EMR (emr/), of the other buckets (s3/) and of the network (vpc/).

        S3 and the network's flow logs deliver to buckets with S3's own encryption without further ado; EMR's logs are
        encrypted with the customer's key before they get here (stacks/cluster.py).
        """
        expire = s3.LifecycleRule(id="expire-logs", expiration=cdk.Duration.days(environment.logs.keep_days))
        bucket = _bucket(
            self,
            "Logs",
            environment,
            encryption=s3.BucketEncryption.S3_MANAGED,
            lifecycle_rules=[_unfinished_uploads(), expire],
        )
        accept(
            bucket, {"AwsSolutions-S1": "S3's access logs go into this bucket; logging itself, it would never rest."}
        )
        accept_in_template(
            bucket,
            {
                "CKV_AWS_18": "S3's access logs go into this bucket; logging itself, it would never rest.",
                "CKV_AWS_21": "Logs are written once and expire; a version of a log is of no use.",
            },
        )
        self._say_name(Output.LOGS_BUCKET, bucket)
        return bucket

    def _bucket(self, output: Output, environment: Environment) -> s3.Bucket:
        name = output.removesuffix("Bucket")
        bucket = _bucket(
            self,
            name,
            environment,
            encryption=s3.BucketEncryption.KMS if self.key else s3.BucketEncryption.S3_MANAGED,
            encryption_key=self.key,
            bucket_key_enabled=True if self.key else None,  # one call of KMS for many objects
            versioned=True,
            lifecycle_rules=[_unfinished_uploads(), _old_versions()],
            server_access_logs_bucket=self.logs,
            server_access_logs_prefix=f"s3/{name.lower()}/",
        )
        self._say_name(output, bucket)
        return bucket

    def _say_name(self, output: Output, bucket: s3.Bucket) -> None:
        cdk.CfnOutput(self, f"{output}Name", value=bucket.bucket_name).override_logical_id(output)

    def _guard_pointers(self) -> None:
        """Which model is current is only ever changed by somebody who says what it was (S3's conditional writes)."""
        condition = {"Null": {"s3:if-match": "true", "s3:if-none-match": "true"}}
        self.models.add_to_resource_policy(
            iam.PolicyStatement(
                sid="MoveCurrentModelOnlyKnowingTheFormer",
                effect=iam.Effect.DENY,
                principals=[iam.AnyPrincipal()],
                actions=["s3:PutObject"],
                resources=[self.models.arn_for_objects(f"*/{POINTER}")],
                conditions=condition,
            )
        )


def customer_key(stack: cdk.Stack, environment: Environment) -> kms.Key:
    """One key for the whole chain: who reads data with one permission and its key with another has one too many.

    Roles of this account use it by their own policies. Services that act for nobody's role are named here: CloudWatch
    Logs, and those that publish to the topic (without it, SNS drops their messages silently; KMS Developer Guide,
    "Encrypt log data", SNS Developer Guide, "Key management"). EventBridge calls KMS without naming an account: for it
    the topic's own policy says that only this account's rules may publish.
    """
    key = kms.Key(
        stack,
        "Key",
        alias=f"alias/dml-{environment.name}",
        description=f"Encrypts what dml keeps in {environment.name}",
        enable_key_rotation=True,
        removal_policy=removal(environment),
        pending_window=cdk.Duration.days(30 if environment.keep_data else 7),
    )
    groups = stack.format_arn(
        service="logs", resource="log-group", resource_name="*", arn_format=cdk.ArnFormat.COLON_RESOURCE_NAME
    )
    key.add_to_resource_policy(
        iam.PolicyStatement(
            sid="LogGroupsOfThisAccount",
            principals=[iam.ServicePrincipal(f"logs.{stack.region}.{stack.url_suffix}")],
            actions=list(ENCRYPT),
            resources=["*"],
            conditions={"ArnLike": {"kms:EncryptionContext:aws:logs:arn": groups}},
        )
    )
    key.add_to_resource_policy(
        iam.PolicyStatement(
            sid="PublishersOfThisAccount",
            principals=[iam.ServicePrincipal(f"{name}.amazonaws.com") for name in ("budgets", "cloudwatch")],
            actions=["kms:Decrypt", "kms:GenerateDataKey"],
            resources=["*"],
            conditions={"StringEquals": {"aws:SourceAccount": stack.account}},
        )
    )
    key.add_to_resource_policy(
        iam.PolicyStatement(
            sid="RulesThatPublish",
            principals=[iam.ServicePrincipal("events.amazonaws.com")],
            actions=["kms:Decrypt", "kms:GenerateDataKey"],
            resources=["*"],
        )
    )
    return key


def accept_emptying(stack: cdk.Stack) -> None:
    """CDK's function that empties buckets before they go is as CDK makes it."""
    provider = stack.node.find_child("Custom::S3AutoDeleteObjectsCustomResourceProvider")
    once = (
        "CDK's own function, which runs when a stack is deleted, once a bucket, and tells CloudFormation how it went."
    )
    function = provider.node.find_child("Handler")
    accept_in_template(
        function, {**dict.fromkeys(("CKV_AWS_115", "CKV_AWS_116", "CKV_AWS_117"), once), "W3005": SAID_TWICE}
    )


def use_key(
    key: kms.IKey | None, *actions: str, sid: str = "UseKey", service: str | None = None
) -> list[iam.PolicyStatement]:
    """The right to do `actions` with the key, through one AWS service (such as s3) if named; none without a key."""
    if key is None:
        return []
    via = {"StringEquals": {"kms:ViaService": f"{service}.{cdk.Aws.REGION}.amazonaws.com"}}
    return [
        iam.PolicyStatement(
            sid=sid, actions=list(actions), resources=[key.key_arn], conditions=via if service else None
        )
    ]


ENCRYPT = (  # what a service does with a key that it encrypts disks or log groups with
    "kms:Encrypt",
    "kms:Decrypt",
    "kms:ReEncryptFrom",
    "kms:ReEncryptTo",
    "kms:GenerateDataKey",
    "kms:GenerateDataKeyWithoutPlaintext",
    "kms:DescribeKey",
)
READ, WRITE = ("kms:Decrypt",), ("kms:Decrypt", "kms:GenerateDataKey")  # an upload in parts decrypts its own key


def removal(environment: Environment) -> cdk.RemovalPolicy:
    """What becomes of data and logs when their stack goes."""
    return cdk.RemovalPolicy.RETAIN if environment.keep_data else cdk.RemovalPolicy.DESTROY


def _bucket(scope: Construct, id: str, environment: Environment, **own: Any) -> s3.Bucket:
    """A private bucket, reached by TLS only; `own` is what not all have in common."""
    return s3.Bucket(
        scope,
        id,
        enforce_ssl=True,
        minimum_tls_version=1.2,
        block_public_access=s3.BlockPublicAccess.BLOCK_ALL,
        object_ownership=s3.ObjectOwnership.BUCKET_OWNER_ENFORCED,
        removal_policy=removal(environment),
        auto_delete_objects=not environment.keep_data,
        **own,
    )


def _unfinished_uploads() -> s3.LifecycleRule:
    """S3A, EMR's S3 client, leaves unfinished uploads behind."""
    return s3.LifecycleRule(id="abort-unfinished-uploads", abort_incomplete_multipart_upload_after=cdk.Duration.days(7))


def _old_versions() -> s3.LifecycleRule:
    """Kept a month, for undoing mistakes."""
    return s3.LifecycleRule(
        id="expire-old-versions",
        noncurrent_version_expiration=cdk.Duration.days(30),
        expired_object_delete_marker=True,
    )


def log_group(scope: Construct, id: str, name: str, environment: Environment, key: kms.IKey | None) -> logs.LogGroup:
    """A state machine's. Named, because a group under /aws/vendedlogs/ uses up none of the region's short policy."""
    group = logs.LogGroup(
        scope,
        id,
        log_group_name=f"/aws/vendedlogs/states/{name}",
        retention=RETENTION[environment.logs.keep_days],
        encryption_key=key,
        removal_policy=removal(environment),
    )
    if key is None:
        accept_in_template(group, {"CKV_AWS_158": AWS_KEYS})
    return group


RETENTION = {
    7: logs.RetentionDays.ONE_WEEK,
    14: logs.RetentionDays.TWO_WEEKS,
    30: logs.RetentionDays.ONE_MONTH,
    90: logs.RetentionDays.THREE_MONTHS,
    180: logs.RetentionDays.SIX_MONTHS,
    365: logs.RetentionDays.ONE_YEAR,
}
