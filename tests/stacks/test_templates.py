"""What must never change by accident, whatever a snapshot says."""

import json
import subprocess
import sys
from collections import Counter
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import aws_cdk as cdk
import pytest
from aws_cdk import assertions
from aws_cdk import aws_s3 as s3
from cdk_nag import AwsSolutionsChecks
from pydantic import TypeAdapter

from app import build
from datasets import dataset_names, load_dataset
from dml.estate.diff import read_assembly
from dml.zeppelin import tunnel
from jobs import predict, prepare, train
from jobs.tables.settings import Dataset, Schedule
from stacks.etl import csv_classifier, dialects_of
from stacks.network import EMR_TAG
from stacks.outputs import Output, crawler_output, database_output, state_machine_output
from stacks.pipeline import cron_of
from stacks.settings import load_environment
from tests.stacks.conftest import DATASET, ROOT, STACKS, Synth, Synthesized, plain

ENVIRONMENTS = ("dev", "prod", "other")


def as_list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def tags_of(properties: dict[str, Any]) -> dict[str, str]:
    tags = properties.get("Tags", {})
    return dict(tags) if isinstance(tags, dict) else {tag["Key"]: tag["Value"] for tag in tags}


# --- every stack ---


@pytest.mark.parametrize("environment", ENVIRONMENTS)
def test_cfn_lint_should_find_no_error(synth: Synth, environment: str) -> None:
    files = sorted(str(path) for path in synth(environment).folder.glob("*.template.json"))
    assert len(files) == len(STACKS)
    lint = str(Path(sys.executable).parent / "cfn-lint")  # the locked one, not whichever the machine has
    command = [lint, "--regions", "us-east-1", "--non-zero-exit-code", "error", "--ignore-checks", "W3005", "--"]
    linted = subprocess.run([*command, *files], capture_output=True, text=True, check=False)
    assert linted.returncode == 0, linted.stdout + linted.stderr


@pytest.mark.parametrize("environment", ENVIRONMENTS)
def test_no_statement_should_allow_every_action(synth: Synth, environment: str) -> None:
    statements = list(synth(environment).statements())
    assert len(statements) > 30
    for stack, statement in statements:
        wide = [action for action in as_list(statement["Action"]) if action == "*" or action.endswith(":*")]
        assert not wide, f"{stack}: {statement}"


def test_only_calls_that_know_no_resource_should_be_allowed_on_every_resource(dev: Synthesized) -> None:
    wide = {
        action
        for _, statement in dev.statements()
        if "*" in as_list(statement["Resource"])
        for action in as_list(statement["Action"])
    }
    deliveries = {
        action for action in wide if action.startswith(("logs:", "xray:"))
    }  # CDK's, for a logging state machine
    assert wide - deliveries == {
        "cloudwatch:GetMetricStatistics",
        "cloudwatch:PutMetricData",
        "elasticmapreduce:ListClusters",
        "elasticmapreduce:RunJobFlow",
        "states:ListStateMachines",
        "states:SendTaskFailure",
        "ssmmessages:CreateControlChannel",
        "ssmmessages:CreateDataChannel",
        "ssmmessages:OpenControlChannel",
        "ssmmessages:OpenDataChannel",
    }


@pytest.mark.parametrize("environment", ENVIRONMENTS)
def test_every_statement_with_a_wildcard_resource_should_be_in_the_table_of_the_docs(
    synth: Synth, environment: str
) -> None:
    page = (ROOT / "docs" / "security.md").read_text(encoding="utf-8")
    _, _, table = page.partition("## Resources named by wildcard")
    made = synth(environment)
    analysts = made.only("observability", "AWS::IAM::ManagedPolicy")["PolicyDocument"]["Statement"]
    wild = {
        statement.get("Sid", "log delivery and traces")
        for statement in [*(statement for _, statement in made.statements()), *analysts]
        if any("*" in plain(resource) for resource in as_list(statement["Resource"]))
    }
    assert len(wild) > 15
    assert [name for name in sorted(wild) if name not in table] == []


def test_a_role_should_be_passed_only_to_the_service_that_wears_it(dev: Synthesized) -> None:
    passing = [statement for _, statement in dev.statements() if "iam:PassRole" in as_list(statement["Action"])]
    assert len(passing) == 3
    for statement in passing:
        assert "*" not in as_list(statement["Resource"])
        assert statement["Condition"]["StringLike"]["iam:PassedToService"] in (
            "ec2.amazonaws.com*",
            "elasticmapreduce.amazonaws.com*",
        )


@pytest.mark.parametrize("environment", ENVIRONMENTS)
def test_everything_that_can_be_tagged_should_say_whose_it_is(synth: Synth, environment: str) -> None:
    taggable = {
        "network": ["AWS::EC2::VPC", "AWS::EC2::Subnet", "AWS::EC2::SecurityGroup", "AWS::EC2::FlowLog"],
        "data": ["AWS::S3::Bucket"],
        "observability": ["AWS::SNS::Topic", "AWS::SecretsManager::Secret"],
        "cluster": ["AWS::IAM::Role", "AWS::SSM::Parameter"],
        "workbench": ["AWS::SSM::Parameter"],
        DATASET: [
            "AWS::Glue::Crawler",
            "AWS::Glue::Job",
            "AWS::IAM::Role",
            "AWS::Logs::LogGroup",
            "AWS::StepFunctions::StateMachine",
        ],
    }
    for stack, kinds in taggable.items():
        for kind in kinds:
            found = synth(environment).resources(stack, kind)
            assert found
            for properties in found:
                assert tags_of(properties).items() >= {"project": "dml", "environment": environment}.items(), kind


def test_the_outputs_should_have_the_names_that_the_cli_asks_for(dev: Synthesized) -> None:
    made = {stack: set(dev.templates[stack].get("Outputs", {})) for stack in STACKS}
    buckets = {str(output) for output in Output if output.endswith("Bucket")}
    assert made["data"] >= buckets
    assert made["observability"] >= {Output.TOPIC, Output.ANALYST_POLICY}
    assert made["workbench"] >= {Output.WORKBENCH_PARAMETER}
    assert made[DATASET] == {"StateMachineNycFlights", "CrawlerNycFlights", "DatabaseNycFlights"}
    assert made[DATASET] == {named("nyc_flights") for named in (state_machine_output, crawler_output, database_output)}


def test_no_stack_should_export_what_can_be_replaced(dev: Synthesized) -> None:
    exported = [name for stack in STACKS for name in dev.templates[stack].get("Outputs", {}) if "Export" in name]
    assert exported
    assert not [name for name in exported if "Workbench" in name or "Security" in name.replace("SecurityGroup", "")]


# --- network ---


def test_no_security_group_should_let_the_internet_in(dev: Synthesized) -> None:
    for group in dev.resources("network", "AWS::EC2::SecurityGroup"):
        assert "SecurityGroupIngress" not in group
    for rule in dev.resources("network", "AWS::EC2::SecurityGroupIngress"):
        assert "SourceSecurityGroupId" in rule
        assert not {"CidrIp", "CidrIpv6"} & rule.keys()


def test_emr_should_find_each_of_its_rules_so_that_it_adds_none_of_its_own(dev: Synthesized) -> None:
    def name(group: Any) -> str:
        return str(group["Fn::GetAtt"][0]).removesuffix("Group")

    rules = {
        (
            name(rule["GroupId"]),
            name(rule["SourceSecurityGroupId"]),
            rule["IpProtocol"],
            rule["FromPort"],
            rule["ToPort"],
        )
        for rule in dev.resources("network", "AWS::EC2::SecurityGroupIngress")
    }
    whole = [("tcp", 0, 65535), ("udp", 0, 65535), ("icmp", -1, -1)]
    nodes = ("Primary", "Core")
    assert rules == {
        *((to, source, *ports) for to in nodes for source in nodes for ports in whole),
        *((to, "Service", "tcp", 8443, 8443) for to in nodes),
        ("Service", "Primary", "tcp", 9443, 9443),
    }
    out = dev.resources("network", "AWS::EC2::SecurityGroupEgress")
    assert {(name(rule["GroupId"]), name(rule["DestinationSecurityGroupId"]), rule["FromPort"]) for rule in out} == {
        ("Service", "Primary", 8443),
        ("Service", "Core", 8443),
    }
    assert len(dev.resources("network", "AWS::EC2::SecurityGroupIngress")) == 15


def test_the_service_group_should_have_no_way_out_but_its_rules(dev: Synthesized) -> None:
    (service,) = (
        group
        for group in dev.resources("network", "AWS::EC2::SecurityGroup")
        if "service access" in group["GroupDescription"]
    )
    assert [rule["CidrIp"] for rule in service["SecurityGroupEgress"]] == ["127.0.0.1/32"]


def test_emr_should_be_let_at_the_cluster_subnets_and_groups_and_nothing_else(dev: Synthesized) -> None:
    tagged = [
        (resource["Type"], resource["Properties"].get("MapPublicIpOnLaunch"))
        for resource in dev.templates["network"]["Resources"].values()
        if EMR_TAG in tags_of(resource["Properties"])
    ]
    assert sorted(tagged, key=str) == [
        *[("AWS::EC2::SecurityGroup", None)] * 3,
        *[("AWS::EC2::Subnet", False)] * 2,
    ]


@pytest.mark.parametrize(("environment", "gateways"), [("dev", 1), ("prod", 2)])
def test_there_should_be_as_many_nat_gateways_as_the_settings_say(
    synth: Synth, environment: str, gateways: int
) -> None:
    assert len(synth(environment).resources("network", "AWS::EC2::NatGateway")) == gateways


def test_s3_should_be_reached_without_the_nat_gateway(dev: Synthesized) -> None:
    endpoint = dev.only("network", "AWS::EC2::VPCEndpoint")
    assert (endpoint["VpcEndpointType"], len(endpoint["RouteTableIds"])) == ("Gateway", 4)


# --- data ---


@pytest.mark.parametrize("environment", ENVIRONMENTS)
def test_a_bucket_should_be_encrypted_private_and_tidied(synth: Synth, environment: str) -> None:
    buckets = synth(environment).resources("data", "AWS::S3::Bucket")
    assert len(buckets) == 5
    for bucket in buckets:
        (rule,) = bucket["BucketEncryption"]["ServerSideEncryptionConfiguration"]
        assert rule["ServerSideEncryptionByDefault"]["SSEAlgorithm"] in ("AES256", "aws:kms")
        assert set(bucket["PublicAccessBlockConfiguration"].values()) == {True}
        assert bucket["OwnershipControls"]["Rules"] == [{"ObjectOwnership": "BucketOwnerEnforced"}]
        assert any("AbortIncompleteMultipartUpload" in rule for rule in bucket["LifecycleConfiguration"]["Rules"])
    assert [bucket.get("VersioningConfiguration", {}).get("Status") for bucket in buckets] == [None] + ["Enabled"] * 4
    logged = [plain(bucket["LoggingConfiguration"]["DestinationBucketName"]) for bucket in buckets[1:]]
    assert logged == ["Logs6819BB44"] * 4


def test_a_bucket_should_be_reached_by_tls_only(dev: Synthesized) -> None:
    policies = dev.resources("data", "AWS::S3::BucketPolicy")
    assert len(policies) == 5
    for policy in policies:
        conditions = [
            statement["Condition"]
            for statement in policy["PolicyDocument"]["Statement"]
            if statement["Effect"] == "Deny"
            and statement["Action"] == "s3:*"
            and statement["Principal"] == {"AWS": "*"}
        ]
        assert {"Bool": {"aws:SecureTransport": "false"}} in conditions
        assert {"NumericLessThan": {"s3:TlsVersion": 1.2}} in conditions


def test_destroying_prod_should_leave_the_data_and_destroying_dev_should_leave_nothing(
    dev: Synthesized, prod: Synthesized
) -> None:
    def policies(synthesized: Synthesized) -> set[str]:
        return {
            resource["DeletionPolicy"]
            for stack in STACKS
            for resource in synthesized.templates[stack]["Resources"].values()
            if resource["Type"] in ("AWS::S3::Bucket", "AWS::Glue::Database", "AWS::Logs::LogGroup")
        }

    assert policies(prod) == {"Retain"}
    assert policies(dev) == {"Delete"}
    assert len(dev.resources("data", "Custom::S3AutoDeleteObjects")) == 5
    assert not prod.resources("data", "Custom::S3AutoDeleteObjects")


def test_the_topic_should_take_messages_by_tls_and_alarms_of_this_account_only(dev: Synthesized) -> None:
    statements = dev.only("observability", "AWS::SNS::TopicPolicy")["PolicyDocument"]["Statement"]
    denied = [statement for statement in statements if statement["Effect"] == "Deny"]
    assert [statement["Condition"] for statement in denied] == [{"Bool": {"aws:SecureTransport": "false"}}]
    allowed = [statement for statement in statements if statement["Effect"] == "Allow"]
    services = [statement["Principal"]["Service"] for statement in allowed]
    assert services == ["cloudwatch.amazonaws.com", "events.amazonaws.com", "budgets.amazonaws.com"]
    for statement in allowed:
        assert statement["Condition"] == {"StringEquals": {"aws:SourceAccount": {"Ref": "AWS::AccountId"}}}


# --- etl ---


def test_the_crawler_should_make_a_table_of_each_folder_and_trust_the_header_line(dev: Synthesized) -> None:
    crawler = dev.only(DATASET, "AWS::Glue::Crawler")
    grouping = json.loads(crawler["Configuration"])["Grouping"]
    assert grouping == {"TableGroupingPolicy": "CombineCompatibleSchemas", "TableLevelConfiguration": 3}
    (target,) = crawler["Targets"]["S3Targets"]
    assert plain(target["Path"]).endswith("/nyc_flights/")
    classifier = dev.only(DATASET, "AWS::Glue::Classifier")["CsvClassifier"]
    assert (classifier["ContainsHeader"], classifier["Delimiter"]) == ("PRESENT", ",")
    (name,) = crawler["Classifiers"]
    assert dev.templates[DATASET]["Resources"][name["Ref"]]["Type"] == "AWS::Glue::Classifier"


def test_a_crawler_should_try_each_dialect_of_its_tables_once_and_commas_last() -> None:
    tables = {
        "a": {},
        "b": {"header": False},
        "c": {"delimiter": ";"},
        "d": {"delimiter": "\t", "quote": "'"},
        "e": {"delimiter": ";", "encoding": "latin-1"},
    }
    settings = asdict(load_dataset("nyc_flights")) | {"main": "a"}
    settings["tables"] = {name: {"columns": {"id": "bigint"}, **given} for name, given in tables.items()}
    settings["source"]["files"] = dict.fromkeys(tables, "x.csv")
    stack = cdk.Stack()
    for dialect in dialects_of(TypeAdapter(Dataset).validate_python(settings)):
        csv_classifier(stack, "dml-dev-x", dialect)
    tried = [one["CsvClassifier"] for one in resources_of(stack, "AWS::Glue::Classifier")]
    assert [(one["Delimiter"], one["QuoteSymbol"], one["ContainsHeader"], one["Name"]) for one in tried] == [
        ("\t", "'", "PRESENT", "dml-dev-x-csv-character-9-apostrophe-with-header"),
        (";", '"', "PRESENT", "dml-dev-x-csv-semicolon-with-header"),
        (",", '"', "PRESENT", "dml-dev-x-csv-with-header"),
        (",", '"', "ABSENT", "dml-dev-x-csv-without-header"),
    ]


def resources_of(stack: cdk.Stack, kind: str) -> list[dict[str, Any]]:
    """The properties of a stack's resources of one type, in the order in which they were made."""
    found = assertions.Template.from_stack(stack).to_json()["Resources"].values()
    return [one["Properties"] for one in found if one["Type"] == kind]


def test_the_glue_job_should_run_the_same_spark_as_the_cluster_one_run_at_a_time(dev: Synthesized) -> None:
    job = dev.only(DATASET, "AWS::Glue::Job")
    assert (job["GlueVersion"], job["WorkerType"], job["MaxRetries"], job["Timeout"]) == ("5.1", "G.1X", 0, 60)
    assert job["ExecutionProperty"] == {"MaxConcurrentRuns": 1}
    assert job["Role"] != dev.only(DATASET, "AWS::Glue::Crawler")["Role"]


def test_the_job_should_write_features_but_not_predictions_and_raw_should_stay_as_it_came(dev: Synthesized) -> None:
    written = [plain(arn) for arn in as_list(dev.statement(DATASET, "WriteLake")["Resource"])]
    assert [arn.rpartition("nyc_flights/")[2] for arn in written] == ["features/*", "quarantine/*", "runs/*"]
    for _, statement in dev.statements():
        if {"s3:PutObject", "s3:DeleteObject"} & set(as_list(statement["Action"])):
            assert not any("RefRaw" in plain(arn) or "Raw7" in plain(arn) for arn in as_list(statement["Resource"]))


# --- cluster ---


def workbench(synthesized: Synthesized) -> dict[str, Any]:
    return synthesized.only("workbench", "AWS::EMR::Cluster")


def test_the_workbench_should_be_the_release_with_spark_and_zeppelin_and_end_itself(dev: Synthesized) -> None:
    cluster = workbench(dev)
    assert cluster["ReleaseLabel"] == "emr-7.13.0"
    assert [application["Name"] for application in cluster["Applications"]] == ["Hadoop", "Spark", "Zeppelin"]
    assert cluster["AutoTerminationPolicy"] == {"IdleTimeout": 3600}
    assert cluster["Instances"]["KeepJobFlowAliveWhenNoSteps"] is True
    assert cluster["Instances"]["TerminationProtected"] is False
    assert plain(cluster["LogUri"]).endswith("/emr/")
    assert tags_of(cluster) == {EMR_TAG: "true", "project": "dml", "environment": "dev"}


def configuration(cluster: dict[str, Any], name: str) -> dict[str, Any]:
    (found,) = (given for given in cluster["Configurations"] if given["Classification"] == name)
    return found


def test_zeppelin_should_keep_its_notes_in_the_workspace_bucket(dev: Synthesized) -> None:
    outer = configuration(workbench(dev), "zeppelin-env")
    assert outer["ConfigurationProperties"] == {}  # EMR exports only what lies in the nested `export`
    (export,) = outer["Configurations"]
    assert export["Classification"] == "export"
    variables = export["ConfigurationProperties"]
    assert variables.keys() == {
        "ZEPPELIN_NOTEBOOK_STORAGE",
        "ZEPPELIN_NOTEBOOK_S3_BUCKET",
        "ZEPPELIN_NOTEBOOK_S3_USER",
        "ZEPPELIN_NOTEBOOK_S3_ENDPOINT",
    }
    assert variables["ZEPPELIN_NOTEBOOK_STORAGE"] == "org.apache.zeppelin.notebook.repo.S3NotebookRepo"
    assert plain(variables["ZEPPELIN_NOTEBOOK_S3_ENDPOINT"]) == "s3.us-east-1.amazonaws.com"
    # The place that a starting node copies notes to (cluster/bootstrap.sh) is the one that Zeppelin reads.
    (copied,) = (
        plain(parameter["Value"])
        for parameter in dev.resources("cluster", "AWS::SSM::Parameter")
        if parameter["Name"] == "/dml/dev/cluster/notebook"
    )
    bucket = plain(variables["ZEPPELIN_NOTEBOOK_S3_BUCKET"])
    assert copied == f"s3://{bucket}/{variables['ZEPPELIN_NOTEBOOK_S3_USER']}/notebook/"


def test_zeppelin_should_end_idle_sessions_before_the_cluster_counts_as_idle(dev: Synthesized) -> None:
    properties = configuration(workbench(dev), "zeppelin-site")["ConfigurationProperties"]
    prefix = "zeppelin.interpreter.lifecyclemanager"
    assert properties[f"{prefix}.class"].endswith(".TimeoutLifecycleManager")
    assert (
        int(properties[f"{prefix}.timeout.threshold"]) < workbench(dev)["AutoTerminationPolicy"]["IdleTimeout"] * 1000
    )


def test_zeppelin_should_answer_pages_of_the_tunnel_only(dev: Synthesized) -> None:
    """Its default is pages of any origin, which it lets read the answers."""
    properties = configuration(workbench(dev), "zeppelin-site")["ConfigurationProperties"]
    origins = properties["zeppelin.server.allowed.origins"].split(",")
    assert origins == [f"http://127.0.0.1:{port}" for port in tunnel.PORTS], "dml zeppelin opens the tunnel there"


def test_spark_should_use_the_glue_catalog_and_our_python_everywhere(dev: Synthesized) -> None:
    cluster = workbench(dev)
    hive = configuration(cluster, "spark-hive-site")["ConfigurationProperties"]
    assert hive["hive.metastore.client.factory.class"].endswith(".AWSGlueDataCatalogHiveClientFactory")
    (export,) = configuration(cluster, "spark-env")["Configurations"]
    defaults = configuration(cluster, "spark-defaults")["ConfigurationProperties"]
    pythons = {name: value for name, value in defaults.items() if name.endswith("PYSPARK_PYTHON")}
    assert len(pythons) == 2
    assert set(export["ConfigurationProperties"].values()) == set(pythons.values()) == {"/opt/dml/python/bin/python"}
    # A job that has failed is not done over again by YARN: whether it is, the run says, as another attempt.
    assert defaults["spark.yarn.maxAppAttempts"] == "1"
    assert defaults["spark.driver.memoryOverhead"] == "1g"


@pytest.mark.parametrize("stack", ["workbench", DATASET])
def test_disks_should_be_encrypted_and_instance_credentials_need_a_session(dev: Synthesized, stack: str) -> None:
    settings = dev.only(stack, "AWS::EMR::SecurityConfiguration")["SecurityConfiguration"]
    encryption = settings["EncryptionConfiguration"]
    assert encryption["EnableAtRestEncryption"] is True
    disks = encryption["AtRestEncryptionConfiguration"]["LocalDiskEncryptionConfiguration"]
    assert (disks["EncryptionKeyProviderType"], disks["EnableEbsEncryption"]) == ("AwsKms", True)
    metadata = settings["InstanceMetadataServiceConfiguration"]
    assert metadata == {"MinimumInstanceMetadataServiceVersion": 2, "HttpPutResponseHopLimit": 1}


def test_the_instance_profile_should_be_named_as_its_role(dev: Synthesized) -> None:
    profile = dev.only("cluster", "AWS::IAM::InstanceProfile")
    assert [profile["InstanceProfileName"]] == profile["Roles"]


def test_the_workbench_should_wait_for_its_rights_and_for_what_its_nodes_read(dev: Synthesized) -> None:
    _, before = read_assembly(dev.folder)
    assert before["dml-dev-workbench"] >= {"dml-dev-cluster", "dml-dev-network", "dml-dev-nyc-flights"}
    parameters = {one["Name"] for one in dev.resources("cluster", "AWS::SSM::Parameter")}
    assert parameters == {
        f"/dml/dev/cluster/{name}" for name in ("wheels", "code", "notebook", "login", "lake", "models")
    }
    (own,) = dev.resources(DATASET, "AWS::SSM::Parameter")
    assert own["Name"] == "/dml/dev/cluster/datasets/nyc_flights"


def test_a_dataset_should_stand_without_the_network_and_nothing_should_stand_on_it(dev: Synthesized) -> None:
    """Else `dml pause` could not take the network away, nor `dml dataset remove` the dataset."""
    _, before = read_assembly(dev.folder)
    assert before["dml-dev-nyc-flights"] == {"dml-dev-data", "dml-dev-observability", "dml-dev-cluster"}
    assert not any("Export" in one for one in dev.templates[DATASET]["Outputs"].values())
    created = dev.definition()["States"]["cluster: create a transient one"]["Arguments"]["Instances"]
    place = {
        name: value for name, value in created.items() if "Subnet" in name or "Group" in name.removesuffix("s")[-5:]
    }
    assert {name: value for name, value in place.items() if name != "InstanceGroups"} == {
        "Ec2SubnetId": "{% $network.subnets[0] %}",
        "EmrManagedMasterSecurityGroup": "{% $network.primary %}",
        "EmrManagedSlaveSecurityGroup": "{% $network.core %}",
        "ServiceAccessSecurityGroup": "{% $network.service %}",
    }
    (parameter,) = dev.resources("network", "AWS::SSM::Parameter")
    assert parameter["Name"] == "/dml/dev/network"
    assert json.loads(plain(parameter["Value"])).keys() == {"subnets", "primary", "core", "service"}


def test_a_job_should_not_be_able_to_say_which_model_is_current(dev: Synthesized) -> None:
    written = [plain(arn) for arn in as_list(dev.statement("cluster", "WriteModels")["Resource"])]
    assert [arn.partition("/")[2] for arn in written] == ["*/*/*"]  # CURRENT.json lies one folder higher
    publishing = dev.statement(DATASET, "Publish")
    assert plain(publishing["Resource"]).endswith("/nyc_flights/CURRENT.json")


def test_an_analyst_should_get_a_tunnel_to_own_machines_and_no_shell(dev: Synthesized) -> None:
    policy = dev.only("observability", "AWS::IAM::ManagedPolicy")
    statements = {statement["Sid"]: statement for statement in policy["PolicyDocument"]["Statement"]}
    assert not {"Roles", "Users", "Groups"} & policy.keys()  # who gets it is for others to say
    opening = statements["OpenTunnel"]["Condition"]
    assert opening["StringEquals"] == {"ssm:resourceTag/project": "dml", "ssm:resourceTag/environment": "dev"}
    assert opening["BoolIfExists"] == {"ssm:SessionDocumentAccessCheck": "true"}
    starting = [one for one in statements.values() if "ssm:StartSession" in as_list(one["Action"])]
    documents = [plain(one["Resource"]) for one in starting if "Condition" not in one]
    assert documents == ["arn:aws:ssm:us-east-1::document/AWS-StartPortForwardingSession"]
    assert plain(statements["EndOwnSessions"]["Resource"]).endswith(":session/${aws:userid}-*")


def test_without_a_workbench_there_should_be_no_cluster_and_the_parameter_should_say_so(prod: Synthesized) -> None:
    assert not prod.resources("workbench", "AWS::EMR::Cluster")
    values = {parameter["Name"]: parameter["Value"] for parameter in prod.resources("workbench", "AWS::SSM::Parameter")}
    assert values["/dml/prod/workbench"] == "none"


# --- pipeline ---


def test_the_pipeline_should_touch_clusters_of_its_own_environment_only(dev: Synthesized) -> None:
    statement = dev.statement(DATASET, "UseOwnClusters")
    assert "elasticmapreduce:TerminateJobFlows" in statement["Action"]
    own = {"aws:ResourceTag/project": "dml", "aws:ResourceTag/environment": "dev"}
    assert statement["Condition"] == {"StringEquals": own}


def test_a_lost_run_should_raise_an_alarm_however_it_was_lost(dev: Synthesized) -> None:
    alarms = dev.resources(DATASET, "AWS::CloudWatch::Alarm")
    lost = {"ExecutionsFailed", "ExecutionsTimedOut", "ExecutionsAborted"}
    assert {alarm["MetricName"] for alarm in alarms} == lost | {"QuarantinedShare", "FailedInvocations"}


@pytest.mark.parametrize("environment", ENVIRONMENTS)
def test_every_alarm_should_tell_somebody_and_be_silent_without_data(synth: Synth, environment: str) -> None:
    alarms = [alarm for stack in STACKS for alarm in synth(environment).resources(stack, "AWS::CloudWatch::Alarm")]
    scheduled = load_environment("prod" if environment == "other" else environment).schedule.enabled
    certified = environment != "dev"
    # Of the dataset, its run and its rule; of what watches over runs; of rules. Two watch the workbench.
    assert len(alarms) == 12 + scheduled + 2 * certified + 2 * (environment != "prod")
    for alarm in alarms:
        assert len(alarm["AlarmActions"]) == 1
        assert alarm["TreatMissingData"] == "notBreaching"


def test_more_quarantined_rows_than_the_dataset_allows_should_raise_an_alarm(dev: Synthesized) -> None:
    alarms = dev.resources(DATASET, "AWS::CloudWatch::Alarm")
    (alarm,) = (alarm for alarm in alarms if alarm["MetricName"] == "QuarantinedShare")
    assert alarm["Threshold"] == load_dataset("nyc_flights").gate.max_quarantined_share
    assert alarm["ComparisonOperator"] == "GreaterThanThreshold"
    sent = dev.definition()["States"]["prepare: send the counts"]["Arguments"]
    (datum,) = (datum for datum in sent["MetricData"] if datum["MetricName"] == alarm["MetricName"])
    assert (sent["Namespace"], datum["Dimensions"]) == (alarm["Namespace"], alarm["Dimensions"][::-1])


def test_a_workbench_that_idles_for_hours_or_keeps_applications_waiting_should_raise_an_alarm(dev: Synthesized) -> None:
    alarms = {alarm["MetricName"]: alarm for alarm in dev.resources("workbench", "AWS::CloudWatch::Alarm")}
    idle, waiting = alarms["IsIdle"], alarms["AppsPending"]
    assert (idle["Statistic"], idle["EvaluationPeriods"] * idle["Period"]) == ("Minimum", 3 * 3600)
    assert (waiting["ComparisonOperator"], waiting["EvaluationPeriods"] * waiting["Period"]) == (
        "GreaterThanThreshold",
        900,
    )
    for alarm in (idle, waiting):
        assert alarm["Dimensions"] == [{"Name": "JobFlowId", "Value": {"Ref": "Workbench"}}]


@pytest.mark.parametrize(("environment", "state"), [("dev", "DISABLED"), ("prod", "ENABLED")])
def test_training_should_be_scheduled_in_prod_only(synth: Synth, environment: str, state: str) -> None:
    rules = synth(environment).resources(DATASET, "AWS::Events::Rule")
    (rule,) = (rule for rule in rules if "ScheduleExpression" in rule)
    assert (rule["State"], rule["ScheduleExpression"]) == (state, "cron(11 8 ? * MON *)")
    (target,) = rule["Targets"]
    assert json.loads(target["Input"]) == {"do": "run", "revision": "scheduled"}


def test_a_failed_job_or_cluster_should_be_told_whoever_started_it(dev: Synthesized) -> None:
    rules = [
        rule
        for stack in ("observability", DATASET)
        for rule in dev.resources(stack, "AWS::Events::Rule")
        if "EventPattern" in rule
    ]
    patterns = {rule["EventPattern"]["source"][0]: rule["EventPattern"] for rule in rules}
    assert patterns["aws.glue"]["detail-type"] == ["Glue Job State Change"]
    assert patterns["aws.glue"]["detail"]["state"] == ["FAILED", "TIMEOUT", "ERROR", "STOPPED"]
    assert patterns["aws.emr"]["detail-type"] == ["EMR Cluster State Change"]
    assert patterns["aws.emr"]["detail"] == {"name": [{"prefix": "dml-dev-"}], "state": ["TERMINATED_WITH_ERRORS"]}
    assert all("Notifications" in plain(rule["Targets"][0]["Arn"]) for rule in rules)


def test_the_dashboard_should_find_the_runs_models_and_rows_of_whatever_datasets_there_are(dev: Synthesized) -> None:
    body = json.loads(plain(dev.only("observability", "AWS::CloudWatch::Dashboard")["DashboardBody"]))
    shown = json.dumps(body)
    assert "nyc_flights" not in shown
    searches = [metric[0]["expression"] for one in body["widgets"][1:] for metric in one["properties"]["metrics"]]
    assert len(searches) == 9
    assert all(search.startswith("SEARCH('{") for search in searches)
    machine = dev.only(DATASET, "AWS::StepFunctions::StateMachine")["StateMachineName"]
    assert machine == "dml-dev-nyc_flights"
    sent = [
        datum["MetricName"]
        for state in dev.definition()["States"].values()
        for datum in state.get("Arguments", {}).get("MetricData", [])
    ]
    assert len(sent) == 4
    assert all(f'\\"{name}\\"' in shown for name in sent)  # what is sent is what is shown


def at(name: str, **schedule: Any) -> tuple[bool, str]:
    """When a dataset of this name is started in prod."""
    made = replace(load_dataset("penguins"), name=name, schedule=Schedule(**schedule))
    return made.schedule.enabled, cron_of(load_environment("prod"), made)


def test_datasets_should_start_one_after_the_other_each_at_a_time_of_its_own() -> None:
    times = [at(f"bird_{number}")[1].split() for number in range(60)]
    minutes = [int(hour) * 60 + int(minute) for minute, hour, *_ in times]
    assert {tuple(rest) for _, _, *rest in times} == {("?", "*", "MON", "*")}
    assert 5 * 60 <= min(minutes) < max(minutes) < 5 * 60 + 240
    assert len(set(minutes)) > 45  # of 240
    assert at("bird_1") == at("bird_1")
    assert at("bird_1", cron="30 2 1 * ? *") == (True, "30 2 1 * ? *")
    assert at("bird_1", enabled=False)[0] is False


@pytest.mark.parametrize(("environment", "usd"), [("dev", 50), ("prod", 500)])
def test_the_budget_should_be_of_this_environment_and_warn_before_it_is_spent(
    synth: Synth, environment: str, usd: int
) -> None:
    budget = synth(environment).only("observability", "AWS::Budgets::Budget")
    assert budget["Budget"]["BudgetLimit"] == {"Amount": usd, "Unit": "USD"}
    tags = {one["Tags"]["Key"]: one["Tags"]["Values"] for one in budget["Budget"]["FilterExpression"]["And"]}
    assert tags == {"environment": [environment], "project": ["dml"]}
    told = {
        one["Notification"]["NotificationType"]: one["Notification"]["Threshold"]
        for one in budget["NotificationsWithSubscribers"]
    }
    assert told == {"FORECASTED": 100, "ACTUAL": 80}


# --- what environments may choose ---


def test_a_customer_key_should_go_through_the_whole_chain(prod: Synthesized) -> None:
    key = "dml-prod-data:ExportsOutputFnGetAttKey"
    for bucket in prod.resources("data", "AWS::S3::Bucket")[1:]:
        (rule,) = bucket["BucketEncryption"]["ServerSideEncryptionConfiguration"]
        assert rule["BucketKeyEnabled"] is True
        assert plain(rule["ServerSideEncryptionByDefault"]["KMSMasterKeyID"]).startswith("Key")
    assert plain(prod.only("observability", "AWS::SNS::Topic")["KmsMasterKeyId"]).startswith(key)
    assert plain(prod.only(DATASET, "AWS::Logs::LogGroup")["KmsKeyId"]).startswith(key)
    security = prod.only(DATASET, "AWS::Glue::SecurityConfiguration")["EncryptionConfiguration"]
    modes = {kind: [plain(value) for value in one.values()] for kind, one in security.items() if isinstance(one, dict)}
    modes |= {"S3Encryptions": [plain(value) for value in security["S3Encryptions"][0].values()]}
    assert {kind: values[1] for kind, values in modes.items()} == {
        "CloudWatchEncryption": modes["CloudWatchEncryption"][1],
        "JobBookmarksEncryption": modes["JobBookmarksEncryption"][1],
        "S3Encryptions": modes["S3Encryptions"][1],
    }
    assert all(any(value.startswith(key) for value in values) for values in modes.values())
    (ref,) = (
        name
        for name, one in prod.templates[DATASET]["Resources"].items()
        if one["Type"] == "AWS::Glue::SecurityConfiguration"
    )
    for kind in ("Crawler", "Job"):
        made = prod.only(DATASET, f"AWS::Glue::{kind}")
        assert made.get("CrawlerSecurityConfiguration", made.get("SecurityConfiguration")) == {"Ref": ref}
    emr = prod.only(DATASET, "AWS::EMR::SecurityConfiguration")["SecurityConfiguration"]["EncryptionConfiguration"]
    at_rest = emr["AtRestEncryptionConfiguration"]
    assert at_rest["S3EncryptionConfiguration"]["EncryptionMode"] == "SSE-KMS"
    for part in at_rest.values():
        assert plain(part["AwsKmsKey"]).startswith(key)
    created = prod.definition()["States"]["cluster: create a transient one"]["Arguments"]
    assert created["LogEncryptionKmsKeyId"].startswith(key)
    assert not prod.resources("cluster", "AWS::KMS::Key")


@pytest.mark.parametrize(
    ("stack", "role", "actions"),
    [
        (DATASET, "Crawler", {"kms:Decrypt"}),
        (DATASET, "Prepare", {"kms:Decrypt", "kms:GenerateDataKey"}),
        (DATASET, "PipelineRole", {"kms:Decrypt", "kms:GenerateDataKey"}),
    ],
)
def test_a_role_should_use_the_customer_key_for_what_it_reads_and_writes(
    prod: Synthesized, stack: str, role: str, actions: set[str]
) -> None:
    (found,) = (
        resource["Properties"]
        for name, resource in prod.templates[stack]["Resources"].items()
        if resource["Type"] == "AWS::IAM::Role" and role in name and "Events" not in name
    )
    (statement,) = (
        statement
        for policy in found["Policies"]
        for statement in policy["PolicyDocument"]["Statement"]
        if statement["Sid"] == "UseKey"
    )
    assert set(as_list(statement["Action"])) == actions


def test_services_that_act_for_nobody_should_be_let_use_the_customer_key_for_this_account(prod: Synthesized) -> None:
    key = prod.only("data", "AWS::KMS::Key")
    assert key["EnableKeyRotation"] is True
    named = {
        service: statement["Condition"]
        for statement in key["KeyPolicy"]["Statement"]
        if "Service" in statement["Principal"]
        for service in map(plain, as_list(statement["Principal"]["Service"]))
        if service != "events.amazonaws.com"
    }
    account = {"StringEquals": {"aws:SourceAccount": {"Ref": "AWS::AccountId"}}}
    logs = named.pop("logs.us-east-1.AWS::URLSuffix")
    assert list(logs) == ["ArnLike"]
    assert named == dict.fromkeys(("budgets.amazonaws.com", "cloudwatch.amazonaws.com"), account)
    # SNS guide, "Key management": aws:SourceAccount is not supported for EventBridge's messages to encrypted topics.
    (rules,) = (one for one in key["KeyPolicy"]["Statement"] if one.get("Sid") == "RulesThatPublish")
    assert rules["Principal"] == {"Service": "events.amazonaws.com"}
    assert rules["Action"] == ["kms:Decrypt", "kms:GenerateDataKey"]
    assert "Condition" not in rules


def test_a_role_of_glue_should_read_the_security_configuration_that_it_works_under(
    dev: Synthesized, prod: Synthesized
) -> None:
    for made, count in ((dev, 0), (prod, 2)):  # a crawler's and a job's
        found = [one for _, one in made.statements() if one.get("Action") == "glue:GetSecurityConfiguration"]
        assert [one["Resource"] for one in found] == ["*"] * count  # Service Authorization Reference: no resource


def test_node_labels_and_priorities_should_be_there_only_where_they_mean_something(
    dev: Synthesized, prod: Synthesized
) -> None:
    for made, spot in ((dev, False), (prod, True)):
        asked = made.definition()["States"]["cluster: create a transient one"]["Arguments"]
        known = {one["Classification"]: one["Properties"] for one in asked["Configurations"]}
        assert ("yarn-site" in known) is spot, made.environment
        if spot:  # an application must not end with a spot machine
            assert known["yarn-site"]["yarn.node-labels.am.default-node-label-expression"] == "ON_DEMAND"
        # Else a second master waits for the first to end, and with it a step that is to end what a former one has left.
        assert known["capacity-scheduler"] == {"yarn.scheduler.capacity.maximum-am-resource-percent": "1"}
        for fleet in asked["Instances"].get("InstanceFleets", []):
            (launch,) = fleet["LaunchSpecifications"].values()
            by_priority = "prioritized" in launch["AllocationStrategy"]
            assert all(("Priority" in kind) is by_priority for kind in fleet["InstanceTypeConfigs"]), fleet


def test_a_rule_that_does_not_reach_its_target_should_raise_an_alarm(dev: Synthesized, prod: Synthesized) -> None:
    for made in (dev, prod):
        resources = made.templates[DATASET]["Resources"] | made.templates["observability"]["Resources"]
        rules = {name for name, one in resources.items() if one["Type"] == "AWS::Events::Rule"}
        alarms = [
            one["Properties"]
            for one in resources.values()
            if one["Type"] == "AWS::CloudWatch::Alarm" and one["Properties"]["MetricName"] == "FailedInvocations"
        ]
        assert len(rules) == 3
        assert {alarm["Dimensions"][0]["Value"]["Ref"] for alarm in alarms} == rules
        assert all(alarm["Namespace"] == "AWS/Events" and alarm["AlarmActions"] for alarm in alarms)


def test_nodes_should_talk_tls_with_a_certificate_that_only_they_and_the_operator_read(prod: Synthesized) -> None:
    security = prod.only(DATASET, "AWS::EMR::SecurityConfiguration")["SecurityConfiguration"]
    encryption = security["EncryptionConfiguration"]
    assert encryption["EnableInTransitEncryption"] is True
    tls = encryption["InTransitEncryptionConfiguration"]["TLSCertificateConfiguration"]
    assert tls["CertificateProviderType"] == "PEM"
    (reading,) = [
        (stack, statement)
        for stack, statement in prod.statements()
        if any("tls/certificate.zip" in plain(resource) for resource in as_list(statement["Resource"]))
    ]
    assert (reading[0], reading[1]["Action"]) == ("cluster", "s3:GetObject")
    assert (
        plain(tls["S3Object"]).removeprefix("s3://").partition("/")[2]
        == plain(reading[1]["Resource"]).partition("/")[2]
    )


def test_fleets_should_take_several_types_and_spot_for_task_nodes_only(prod: Synthesized) -> None:
    created = prod.definition()["States"]["cluster: create a transient one"]["Arguments"]
    fleets = {fleet["InstanceFleetType"]: fleet for fleet in created["Instances"]["InstanceFleets"]}
    assert fleets.keys() == {"MASTER", "CORE", "TASK"}
    assert (fleets["MASTER"]["TargetOnDemandCapacity"], fleets["CORE"]["TargetOnDemandCapacity"]) == (1, 2)
    assert [one["InstanceType"] for one in fleets["TASK"]["InstanceTypeConfigs"]] == [
        "m7g.2xlarge",
        "m6g.2xlarge",
        "r7g.2xlarge",
    ]
    assert fleets["TASK"]["LaunchSpecifications"] == {
        "SpotSpecification": {
            "AllocationStrategy": "price-capacity-optimized",
            "TimeoutAction": "SWITCH_TO_ON_DEMAND",
            "TimeoutDurationMinutes": 10,
        }
    }
    assert "TargetSpotCapacity" not in fleets["MASTER"].keys() | fleets["CORE"].keys()
    assert created["Instances"]["Ec2SubnetIds"] == "{% $network.subnets %}"
    (network,) = prod.resources("network", "AWS::SSM::Parameter")
    assert len(json.loads(plain(network["Value"]))["subnets"]) == 2
    assert created["ManagedScalingPolicy"]["ComputeLimits"] == {
        "UnitType": "InstanceFleetUnits",
        "MinimumCapacityUnits": 2,
        "MaximumCapacityUnits": 8,
        "MaximumOnDemandCapacityUnits": 4,
        "MaximumCoreCapacityUnits": 4,
    }


@pytest.mark.parametrize(("environment", "allowed"), [("dev", []), ("prod", ["spot.amazonaws.com"])])
def test_emr_should_be_let_make_the_role_for_spot_where_spot_is_used(
    synth: Synth, environment: str, allowed: list[str]
) -> None:
    made = [
        statement["Condition"]["StringEquals"]["iam:AWSServiceName"]
        for stack, statement in synth(environment).statements()
        if stack == "cluster" and statement["Action"] == "iam:CreateServiceLinkedRole"
    ]
    assert made == allowed


def test_the_workbench_should_be_made_as_transient_clusters_are(synth: Synth) -> None:
    other = synth("other")
    made = other.only("workbench", "AWS::EMR::Cluster")
    asked = other.definition()["States"]["cluster: create a transient one"]["Arguments"]
    fleets = {fleet.pop("InstanceFleetType"): fleet for fleet in asked["Instances"]["InstanceFleets"]}
    instances = made["Instances"]
    assert fleets == {
        "MASTER": instances["MasterInstanceFleet"],
        "CORE": instances["CoreInstanceFleet"],
        "TASK": instances["TaskInstanceFleets"][0],
    }
    for name in ("ReleaseLabel", "ManagedScalingPolicy", "Tags", "EbsRootVolumeSize"):
        assert json.loads(plain_json(made[name])) == asked[name], name
    assert json.loads(plain_json(made["BootstrapActions"]))[:1] == asked["BootstrapActions"]


@pytest.mark.parametrize("environment", ENVIRONMENTS)
def test_zeppelins_login_should_be_read_by_nodes_and_analysts_and_no_other_secret(
    synth: Synth, environment: str
) -> None:
    made = synth(environment)
    analysts = made.only("observability", "AWS::IAM::ManagedPolicy")["PolicyDocument"]["Statement"]
    reading = [
        (stack, statement)
        for stack, statement in [*made.statements(), *(("analysts", one) for one in analysts)]
        if any(action.startswith("secretsmanager:") for action in as_list(statement["Action"]))
    ]
    assert {stack.removeprefix(f"dml-{environment}-") for stack, _ in reading} == {"cluster", "analysts"}
    for _, statement in reading:
        assert statement["Action"] == "secretsmanager:GetSecretValue"
        assert "ZeppelinLogin" in json.dumps(statement["Resource"])
    (own,) = [one for one in made.resources("cluster", "AWS::SSM::Parameter") if one["Name"].endswith("/login")]
    assert own["Value"] == next(statement["Resource"] for stack, statement in reading if stack != "analysts")


def plain_json(value: Any) -> str:
    """A template value as JSON, with what is known only when deployed as text."""
    if isinstance(value, dict) and not {"Ref", "Fn::GetAtt", "Fn::Join", "Fn::Sub", "Fn::ImportValue"} & value.keys():
        return "{" + ", ".join(f"{json.dumps(key)}: {plain_json(inner)}" for key, inner in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(plain_json(inner) for inner in value) + "]"
    return json.dumps(plain(value) if isinstance(value, dict) else value)


def test_without_nat_there_should_be_no_way_to_the_internet_but_one_to_each_service(synth: Synth) -> None:
    other = synth("other")
    for kind in ("NatGateway", "InternetGateway", "EIP"):
        assert not other.resources("network", f"AWS::EC2::{kind}")
    for subnet in other.resources("network", "AWS::EC2::Subnet"):
        assert tags_of(subnet)[EMR_TAG] == "true"
    endpoints = other.resources("network", "AWS::EC2::VPCEndpoint")
    interfaces = [endpoint for endpoint in endpoints if endpoint["VpcEndpointType"] == "Interface"]
    services = {plain(endpoint["ServiceName"]).rpartition(".")[2] for endpoint in interfaces}
    assert services == {
        "glue",
        "kms",
        "logs",
        "monitoring",
        "ssm",
        "ssmmessages",
        "ec2messages",
        "sts",
        "secretsmanager",
    }
    for endpoint in interfaces:
        assert endpoint["PrivateDnsEnabled"] is True
        assert len(endpoint["SubnetIds"]) == 2
        assert [plain(group) for group in endpoint["SecurityGroupIds"]] == ["EndpointGroup.GroupId"]


@pytest.mark.parametrize("environment", ENVIRONMENTS)
def test_the_s3_endpoint_should_let_nodes_reach_named_buckets_only(synth: Synth, environment: str) -> None:
    endpoints = synth(environment).resources("network", "AWS::EC2::VPCEndpoint")
    (endpoint,) = (endpoint for endpoint in endpoints if endpoint["VpcEndpointType"] == "Gateway")
    reached = set()
    for statement in endpoint["PolicyDocument"]["Statement"]:
        own = any(
            f"dml-{environment}-data:" in plain(arn) or ":::cdk-" in plain(arn)
            for arn in as_list(statement["Resource"])
        )
        account = {"StringEquals": {"aws:PrincipalAccount": {"Ref": "AWS::AccountId"}}}
        assert statement.get("Condition") == (account if own else None)  # AWS's nodes write to AWS's own as AWS
        assert not [action for action in as_list(statement["Action"]) if "*" in action]
        for arn in map(plain, as_list(statement["Resource"])):
            bucket = arn.removeprefix("arn:aws:s3:::").partition("/")[0]
            assert "*" not in bucket
            reached.add(bucket)
    ours = {bucket for bucket in reached if bucket.startswith(f"dml-{environment}-data:")}
    assert len(ours) == 5
    assert reached - ours == {
        "cdk-hnb659fds-assets-123456789012-us-east-1",
        "al2023-repos-us-east-1-de612dc2",
        "repo.us-east-1.emr.amazonaws.com",
        "aws157-logs-prod",
        "aws157-logs-prod-us-east-1",
        "prod.us-east-1.appinfo.src",
        "amazon-ssm-us-east-1",
        "aws-ssm-us-east-1",
        "patch-baseline-snapshot-us-east-1",
    }


@pytest.mark.parametrize("environment", ENVIRONMENTS)
def test_nobody_should_move_the_current_model_without_saying_what_it_was(synth: Synth, environment: str) -> None:
    policies = synth(environment).resources("data", "AWS::S3::BucketPolicy")
    (statement,) = (
        statement
        for policy in policies
        for statement in policy["PolicyDocument"]["Statement"]
        if "s3:if-match" in str(statement.get("Condition"))
    )
    assert (statement["Effect"], statement["Action"], statement["Principal"]) == ("Deny", "s3:PutObject", {"AWS": "*"})
    assert statement["Condition"] == {"Null": {"s3:if-match": "true", "s3:if-none-match": "true"}}
    assert plain(statement["Resource"]).endswith("/*/CURRENT.json")


@pytest.mark.parametrize("environment", ENVIRONMENTS)
def test_cdk_nag_should_find_nothing_that_is_not_explained(synth: Synth, environment: str) -> None:
    assert synth(environment).refused == ""


@pytest.mark.cdk
def test_cdk_nag_should_find_what_is_not_explained(tmp_path: Path) -> None:
    app = cdk.App(context=json.loads((ROOT / "cdk.json").read_text())["context"], outdir=str(tmp_path))
    cdk.Validations.of(app).add_plugins(AwsSolutionsChecks(app, verbose=True))
    build(app, load_environment("dev"), [load_dataset("nyc_flights")])
    data = app.node.find_child("dml-dev-data")
    s3.Bucket(data, "Open")
    with pytest.raises(RuntimeError, match="ValidationFailed"):
        app.synth()


def test_the_state_machine_should_log_and_trace_without_the_data(dev: Synthesized) -> None:
    machine = dev.only(DATASET, "AWS::StepFunctions::StateMachine")
    assert machine["TracingConfiguration"] == {"Enabled": True}
    logging = machine["LoggingConfiguration"]
    assert (logging["Level"], logging["IncludeExecutionData"]) == ("ALL", False)


# --- between stacks and jobs ---


def test_every_argument_that_a_template_passes_should_be_one_that_its_job_takes(dev: Synthesized) -> None:
    states = dev.definition()["States"]
    glue = (
        dev.only(DATASET, "AWS::Glue::Job")["DefaultArguments"]
        | states["prepare: run the Glue job"]["Arguments"]["Arguments"]
    )
    passed = [part for name in glue for part in (name, "value")]
    parsed, others = prepare.build_parser().parse_known_args(passed)
    assert set(vars(parsed).values()) == {"value"}
    assert all(option.startswith(("--enable-", "--extra-py-files", "--job-language")) for option in others[::2])

    for name, job in (("train", train), ("predict", predict)):
        arguments = states[f"{name}: add the step"]["Arguments"]["Step"]["HadoopJarStep"]["Args"]
        tag = ["--conf", "{% 'spark.yarn.tags=' & $run_id %}"]  # by which attempts of a run find each other
        assert arguments[:6] == ["spark-submit", "--deploy-mode", "cluster", *tag, "--py-files"]
        assert arguments[6].endswith(".zip")
        assert arguments[7].endswith(".py")
        parsed, others = job.build_parser().parse_known_args(arguments[8:])
        assert others == []
        assert None not in vars(parsed).values()


@pytest.mark.cdk
def test_every_dataset_should_have_parts_of_its_own(tmp_path: Path) -> None:
    app = cdk.App(context=json.loads((ROOT / "cdk.json").read_text())["context"], outdir=str(tmp_path))
    cdk.Validations.of(app).add_plugins(AwsSolutionsChecks(app, verbose=True))
    build(app, load_environment("dev"), [load_dataset(name) for name in dataset_names()])
    app.synth()  # raises for a finding of cdk-nag
    counted: Counter[str] = Counter()
    for path in tmp_path.glob("dml-dev-*.template.json"):
        resources = json.loads(path.read_text())["Resources"]
        assert len(resources) < 400, path.name  # CloudFormation takes 500 a stack
        counted.update(resource["Type"] for resource in resources.values())
    for kind in ("AWS::Glue::Database", "AWS::Glue::Crawler", "AWS::Glue::Job"):
        assert counted[kind] == len(dataset_names()), kind
    assert counted["AWS::StepFunctions::StateMachine"] == len(dataset_names()) + 1  # what watches over all
