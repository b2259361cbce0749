"""Properties that must never change by accident, one line each: what AWS wants or forbids, and where it says so.

A line is (stack, resource type, JMESPath into the resource's properties, what must come out for each such resource).
What needs more than a line to say is in test_templates.py. `EXACT` lines hold in every environment, `CHOSEN` lines in
those that the settings say.
"""

import re
from typing import Any, NamedTuple

import jmespath
import pytest

from tests.stacks.conftest import DATASET, Synth


class Fact(NamedTuple):
    stack: str
    kind: str
    path: str
    expected: Any
    why: str


EXACT = [
    # --- network
    Fact(
        "network",
        "AWS::EC2::VPC",
        "[EnableDnsHostnames, EnableDnsSupport]",
        [True, True],
        "EMR and endpoints need both",
    ),
    Fact("network", "AWS::EC2::Subnet", "MapPublicIpOnLaunch", False, "no node has a public address"),
    Fact("network", "AWS::EC2::FlowLog", "TrafficType", "ALL", "refused traffic shows what is wrong"),
    Fact("network", "AWS::EC2::FlowLog", "LogDestinationType", "s3", "in the logs bucket, where it expires"),
    Fact(
        "network",
        "AWS::EC2::SecurityGroup",
        "SecurityGroupIngress",
        None,
        "rules of their own: destroying must not deadlock",
    ),
    Fact(
        "network",
        "AWS::EC2::SecurityGroupIngress",
        "CidrIp || CidrIpv6 || SourcePrefixListId",
        None,
        "nothing from outside",
    ),
    Fact("network", "AWS::EC2::SecurityGroupIngress", "length(Description) > `1`", True, "a reviewer reads them"),
    # --- data
    Fact(
        "data",
        "AWS::S3::Bucket",
        "PublicAccessBlockConfiguration.[BlockPublicAcls, BlockPublicPolicy, IgnorePublicAcls, RestrictPublicBuckets]",
        [True] * 4,
        "S3 User Guide, Blocking public access",
    ),
    Fact("data", "AWS::S3::Bucket", "OwnershipControls.Rules[].ObjectOwnership", ["BucketOwnerEnforced"], "no ACLs"),
    Fact("data", "AWS::S3::Bucket", "AccessControl", None, "an ACL contradicts BucketOwnerEnforced"),
    Fact(
        "data",
        "AWS::S3::Bucket",
        "LifecycleConfiguration.Rules[?AbortIncompleteMultipartUpload].AbortIncompleteMultipartUpload.DaysAfterInitiation",
        [7],
        "S3A leaves unfinished uploads behind",
    ),
    Fact(
        "data",
        "AWS::S3::BucketPolicy",
        "length(PolicyDocument.Statement[?Effect=='Deny' && Condition.Bool.\"aws:SecureTransport\"=='false'])",
        1,
        "TLS only",
    ),
    # --- observability
    Fact(
        "observability",
        "AWS::Budgets::Budget",
        "Budget.[BudgetType, TimeUnit]",
        ["COST", "MONTHLY"],
        "what is asked for",
    ),
    Fact(
        DATASET,
        "AWS::Logs::LogGroup",
        "starts_with(LogGroupName, '/aws/vendedlogs/states/')",
        True,
        "else each delivery lengthens the region's one resource policy, which may have 5,120 characters",
    ),
    # --- etl
    Fact(DATASET, "AWS::Glue::Job", "GlueVersion", "5.1", "the same Spark as EMR's and the local one: 3.5.6"),
    Fact(DATASET, "AWS::Glue::Job", "Command.[Name, PythonVersion]", ["glueetl", "3"], "Spark, not Python shell"),
    Fact(DATASET, "AWS::Glue::Job", "ExecutionProperty.MaxConcurrentRuns", 1, "two runs would race for one table"),
    Fact(DATASET, "AWS::Glue::Job", "MaxRetries", 0, "the state machine decides on retries"),
    Fact(DATASET, "AWS::Glue::Job", "NumberOfWorkers >= `2`", True, "one of them is the driver"),
    Fact(DATASET, "AWS::Glue::Job", "Timeout >= `5` && Timeout <= `1440`", True, "Glue's own default is two days"),
    Fact(
        DATASET,
        "AWS::Glue::Job",
        "Connections",
        None,
        "outside the VPC: the S3 endpoint's policy doesn't know its buckets",
    ),
    Fact(
        DATASET,
        "AWS::Glue::Job",
        'DefaultArguments."--enable-observability-metrics"',
        "true",
        "the only value that Glue takes",
    ),
    Fact(
        DATASET,
        "AWS::Glue::Job",
        "keys(DefaultArguments)[?@=='--JOB_NAME' || @=='--debug' || @=='--mode' || @=='--endpoint']",
        [],
        "Glue keeps these for itself",
    ),
    Fact(
        DATASET,
        "AWS::Glue::Crawler",
        "SchemaChangePolicy.[UpdateBehavior, DeleteBehavior]",
        ["UPDATE_IN_DATABASE", "LOG"],
        "a crawl never takes a table away",
    ),
    Fact(DATASET, "AWS::Glue::Crawler", "Schedule", None, "runs start it, and wait for the end of their own crawl"),
    Fact(DATASET, "AWS::Glue::Classifier", "CsvClassifier.AllowSingleColumn", False, "any text would fit one column"),
    # --- cluster
    Fact(
        "cluster",
        "AWS::IAM::InstanceProfile",
        "Roles == [InstanceProfileName]",
        True,
        "Step Functions looks by the role's name",
    ),
    Fact("workbench", "AWS::EMR::Cluster", "ReleaseLabel", "emr-7.13.0", "Spark 3.5.6; a change replaces the cluster"),
    Fact(
        "workbench",
        "AWS::EMR::Cluster",
        "Applications[].Name",
        ["Hadoop", "Spark", "Zeppelin"],
        "and nothing that listens besides",
    ),
    Fact("workbench", "AWS::EMR::Cluster", "Instances.KeepJobFlowAliveWhenNoSteps", True, "auto-termination needs it"),
    Fact("workbench", "AWS::EMR::Cluster", "Instances.TerminationProtected", False, "else the stack cannot be deleted"),
    Fact("workbench", "AWS::EMR::Cluster", "Instances.Ec2KeyName", None, "nobody logs in by SSH"),
    Fact("workbench", "AWS::EMR::Cluster", "VisibleToAllUsers", True, "older checkers ask for it"),
    Fact("workbench", "AWS::EMR::Cluster", "AutoScalingRole", None, "managed scaling has none; the role is obsolete"),
    Fact("workbench", "AWS::EMR::Cluster", "Steps", None, "every property of a step is create-only"),
    Fact("workbench", "AWS::EMR::Cluster", "StepConcurrencyLevel", 1, "steps wait for each other"),
    Fact(
        "workbench",
        "AWS::EMR::Cluster",
        "EbsRootVolumeSize >= `15` && EbsRootVolumeSize <= `100`",
        True,
        "EMR's limits",
    ),
    Fact(
        "workbench",
        "AWS::EMR::Cluster",
        "AutoTerminationPolicy.IdleTimeout >= `60` && AutoTerminationPolicy.IdleTimeout <= `604800`",
        True,
        "EMR's limits",
    ),
    Fact(
        "workbench",
        "AWS::EMR::Cluster",
        "length(Instances.[EmrManagedMasterSecurityGroup, EmrManagedSlaveSecurityGroup, ServiceAccessSecurityGroup][])",
        3,
        "set one, set all three",
    ),
    Fact(
        "workbench",
        "AWS::EMR::Cluster",
        "Tags[?Key=='for-use-with-amazon-emr-managed-policies'].Value",
        ["true"],
        "without it EMR's service role may not start a machine",
    ),
    Fact(
        "workbench",
        "AWS::EMR::Cluster",
        "Configurations[?Classification=='spark-hive-site'].ConfigurationProperties.\"hive.metastore.client.factory.class\"",
        ["com.amazonaws.glue.catalog.metastore.AWSGlueDataCatalogHiveClientFactory"],
        "the Glue catalog is the metastore",
    ),
    Fact(
        "workbench",
        "AWS::EMR::Cluster",
        "Configurations[].Configurations[?Classification!='export'][]",
        [],
        "EMR exports what lies in `export` and ignores the rest",
    ),
    Fact(
        "workbench", "AWS::EMR::Cluster", "Configurations[?Properties]", [], "a template says ConfigurationProperties"
    ),
    Fact(
        "workbench",
        "AWS::EMR::Cluster",
        "Configurations[?Classification=='zeppelin-site'].ConfigurationProperties"
        '."zeppelin.interpreter.lifecyclemanager.class"',
        ["org.apache.zeppelin.interpreter.lifecycle.TimeoutLifecycleManager"],
        "an idle Zeppelin must not keep the cluster alive",
    ),
    # --- pipeline
    Fact(DATASET, "AWS::StepFunctions::StateMachine", "TracingConfiguration.Enabled", True, "where did the time go"),
    Fact(
        DATASET,
        "AWS::StepFunctions::StateMachine",
        "StateMachineType",
        None,
        "STANDARD, the default: runs take hours",
    ),
    Fact(DATASET, "AWS::CloudWatch::Alarm", "TreatMissingData", "notBreaching", "no run is not a failed run"),
]

SECURITY = "SecurityConfiguration.EncryptionConfiguration"
BOTH = [  # of the security configuration, in each stack that makes clusters
    (
        "SecurityConfiguration.InstanceMetadataServiceConfiguration",
        {"MinimumInstanceMetadataServiceVersion": 2, "HttpPutResponseHopLimit": 1},
    ),
    (f"{SECURITY}.EnableAtRestEncryption", True),
    (f"{SECURITY}.AtRestEncryptionConfiguration.LocalDiskEncryptionConfiguration.EnableEbsEncryption", True),
    (f"{SECURITY}.AtRestEncryptionConfiguration.LocalDiskEncryptionConfiguration.EncryptionKeyProviderType", "AwsKms"),
    ("SecurityConfiguration.EnableAtRestEncryption", None),  # not where cdk-nag looks for it
]
EXACT += [
    Fact(
        stack,
        "AWS::EMR::SecurityConfiguration",
        path,
        expected,
        "EMR Management Guide, Create a security configuration",
    )
    for stack in ("workbench", DATASET)
    for path, expected in BOTH
]
EXACT += [
    Fact("workbench", "AWS::EMR::SecurityConfiguration", "Name", None, "a changed one needs a new name"),
    Fact(DATASET, "AWS::EMR::SecurityConfiguration", "Name", None, "a changed one needs a new name"),
]

EXACT += [
    Fact("observability", "AWS::SecretsManager::Secret", "Name", None, "a deleted one may hold its name for a month"),
    Fact("observability", "AWS::SecretsManager::Secret", "SecretString", None, "no template knows a password"),
    Fact(
        "observability",
        "AWS::SecretsManager::Secret",
        "GenerateSecretString.[GenerateStringKey, PasswordLength]",
        ["password", 32],
        "Secrets Manager API Reference, GetRandomPassword",
    ),
]

# What no stack may have, whatever else it has.
NEVER = {
    "AWS::EMR::Step": "every property is create-only: a change would train on deploy, deleting would undo nothing",
    "AWS::EMR::InstanceGroupConfig": "managed scaling and a second owner of the nodes would fight",
    "AWS::IAM::User": "roles only",
    "AWS::IAM::AccessKey": "roles only",
    "AWS::ApplicationAutoScaling::ScalableTarget": "EMR's managed scaling does it",
}

CHOSEN = [
    (
        "dev",
        Fact(
            "data",
            "AWS::S3::Bucket",
            "BucketEncryption.ServerSideEncryptionConfiguration[0].ServerSideEncryptionByDefault.SSEAlgorithm",
            "AES256",
            "AWS's own key",
        ),
    ),
    (
        "prod",
        Fact("data", "AWS::KMS::Key", "[EnableKeyRotation, PendingWindowInDays]", [True, 30], "the customer's key"),
    ),
    ("dev", Fact("cluster", "AWS::KMS::Key", "[EnableKeyRotation, PendingWindowInDays]", [True, 7], "of disks only")),
    (
        "dev",
        Fact(
            "workbench",
            "AWS::EMR::Cluster",
            "Instances.[MasterInstanceGroup, CoreInstanceGroup][].[InstanceType, Market]",
            [["m7g.xlarge", "ON_DEMAND"]] * 2,
            "groups, on demand",
        ),
    ),
    (
        "dev",
        Fact(
            "workbench",
            "AWS::EMR::Cluster",
            "Instances.[MasterInstanceFleet, Ec2SubnetIds]",
            [None, None],
            "groups and fleets exclude each other",
        ),
    ),
    (
        "other",
        Fact(
            "workbench",
            "AWS::EMR::Cluster",
            "Instances.[MasterInstanceGroup, Ec2SubnetId]",
            [None, None],
            "groups and fleets exclude each other",
        ),
    ),
    (
        "other",
        Fact(
            "workbench",
            "AWS::EMR::Cluster",
            "Instances.MasterInstanceFleet.TargetOnDemandCapacity",
            1,
            "EMR takes one primary node",
        ),
    ),
    (
        "other",
        Fact(
            "workbench", "AWS::EMR::SecurityConfiguration", f"{SECURITY}.EnableInTransitEncryption", True, "asked for"
        ),
    ),
    (
        "dev",
        Fact(
            "workbench",
            "AWS::EMR::SecurityConfiguration",
            f"{SECURITY}.[EnableInTransitEncryption, InTransitEncryptionConfiguration]",
            [False, None],
            "not asked for",
        ),
    ),
    (
        "other",
        Fact(
            "observability",
            "AWS::SNS::Subscription",
            "[Protocol, Endpoint]",
            ["email", "somebody@example.com"],
            "asked for",
        ),
    ),
]


@pytest.mark.parametrize("environment", ["dev", "prod", "other"])
@pytest.mark.parametrize(
    "fact", EXACT, ids=lambda fact: f"{fact.stack}-{fact.kind.rpartition(':')[2]}-{fact.path[:60]}"
)
def test_a_property_should_be_what_aws_wants(synth: Synth, environment: str, fact: Fact) -> None:
    found = synth(environment).resources(fact.stack, fact.kind)
    if not found:
        assert (environment, fact.kind) in {("prod", "AWS::EMR::Cluster"), ("prod", "AWS::EMR::SecurityConfiguration")}
    for properties in found:
        assert jmespath.search(fact.path, properties) == fact.expected, fact.why


@pytest.mark.parametrize(
    ("environment", "fact"), CHOSEN, ids=lambda part: part.path[:60] if isinstance(part, Fact) else part
)
def test_a_property_should_be_what_the_environment_chose(synth: Synth, environment: str, fact: Fact) -> None:
    found = synth(environment).resources(fact.stack, fact.kind)
    assert found
    for properties in found:
        assert jmespath.search(fact.path, properties) == fact.expected, fact.why


@pytest.mark.parametrize("environment", ["dev", "prod", "other"])
def test_some_things_should_be_in_no_template(synth: Synth, environment: str) -> None:
    kinds = {
        resource["Type"]
        for template in synth(environment).templates.values()
        for resource in template["Resources"].values()
    }
    assert not kinds & NEVER.keys()
    text = str(synth(environment).templates)
    assert "application-autoscaling.amazonaws.com" not in text
    assert "AmazonElasticMapReduceRole" not in text  # deprecated, and wide
    assert "AWSGlueServiceRole" not in text  # wide


@pytest.mark.parametrize("environment", ["dev", "prod", "other"])
def test_no_secret_should_be_in_a_template_or_in_what_ships(synth: Synth, environment: str) -> None:
    telling = re.compile(rb"-----BEGIN [A-Z ]*PRIVATE KEY-----|\b(AKIA|ASIA)[A-Z0-9]{16}\b|aws_secret_access_key\s*=")
    files = [path for path in synth(environment).folder.rglob("*") if path.is_file() and path.suffix != ".whl"]
    assert len(files) > 20
    assert [path.name for path in files if telling.search(path.read_bytes())] == []
