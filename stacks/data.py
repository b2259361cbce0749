"""Where data are kept, made at synth time: the five buckets, and a Glue database for each dataset."""

from collections.abc import Sequence

import aws_cdk as cdk
from aws_cdk import aws_glue as glue
from aws_cdk import aws_s3 as s3
from constructs import Construct

from datasets import Dataset
from stacks.outputs import Output, database_output, pascal
from stacks.settings import Environment, database_name


class DataStack(cdk.Stack):
    """Raw files in, lake (features, predictions), models (the registry), workspace (Zeppelin's notes), logs (EMR's)."""

    def __init__(self, scope: Construct, id: str, *, environment: Environment, datasets: Sequence[Dataset]) -> None:
        super().__init__(scope, id, termination_protection=environment.keep_data)
        logs_expire = s3.LifecycleRule(id="expire-logs", expiration=cdk.Duration.days(environment.logs.keep_days))
        self.raw = self._bucket(Output.RAW_BUCKET, environment)
        self.lake = self._bucket(Output.LAKE_BUCKET, environment)
        self.models = self._bucket(Output.MODELS_BUCKET, environment)
        self.workspace = self._bucket(Output.WORKSPACE_BUCKET, environment)
        self.logs = self._bucket(Output.LOGS_BUCKET, environment, logs_expire, versioned=False)
        self.databases = {dataset.name: self._database(dataset, environment) for dataset in datasets}

    def _bucket(
        self, output: Output, environment: Environment, *rules: s3.LifecycleRule, versioned: bool = True
    ) -> s3.Bucket:
        bucket = s3.Bucket(
            self,
            output.removesuffix("Bucket"),
            encryption=s3.BucketEncryption.S3_MANAGED,
            enforce_ssl=True,
            minimum_tls_version=1.2,
            block_public_access=s3.BlockPublicAccess.BLOCK_ALL,
            object_ownership=s3.ObjectOwnership.BUCKET_OWNER_ENFORCED,
            versioned=versioned,
            lifecycle_rules=[*_housekeeping(versioned), *rules],
            removal_policy=_removal(environment),
            auto_delete_objects=not environment.keep_data,
        )
        cdk.CfnOutput(self, f"{output}Name", value=bucket.bucket_name).override_logical_id(output)
        return bucket

    def _database(self, dataset: Dataset, environment: Environment) -> str:
        name = database_name(environment, dataset.name)
        database = glue.CfnDatabase(
            self,
            f"{pascal(dataset.name)}Tables",
            catalog_id=self.account,
            database_input=glue.CfnDatabase.DatabaseInputProperty(
                name=name, description=f"{dataset.title} ({environment.name})"
            ),
        )
        database.apply_removal_policy(_removal(environment))
        output = database_output(dataset.name)
        cdk.CfnOutput(self, f"{output}Name", value=database.ref).override_logical_id(output)
        return name


def _housekeeping(versioned: bool) -> list[s3.LifecycleRule]:
    """S3A, EMR's S3 client, leaves unfinished uploads behind; old versions are kept a month for undoing mistakes."""
    rules = [
        s3.LifecycleRule(id="abort-unfinished-uploads", abort_incomplete_multipart_upload_after=cdk.Duration.days(7))
    ]
    if versioned:
        rules.append(
            s3.LifecycleRule(
                id="expire-old-versions",
                noncurrent_version_expiration=cdk.Duration.days(30),
                expired_object_delete_marker=True,
            )
        )
    return rules


def _removal(environment: Environment) -> cdk.RemovalPolicy:
    return cdk.RemovalPolicy.RETAIN if environment.keep_data else cdk.RemovalPolicy.DESTROY
