"""What must never change by accident, whatever a snapshot says."""

import json
import subprocess
from collections import Counter
from pathlib import Path
from typing import Any

import aws_cdk as cdk
import pytest
from aws_cdk import assertions

from app import build
from datasets import Dataset, dataset_names, load_dataset
from jobs import predict, prepare, train
from stacks.data import DataStack
from stacks.etl import EtlStack
from stacks.network import EMR_TAG
from stacks.outputs import Output, crawler_output, database_output, state_machine_output
from stacks.settings import load_environment
from tests.stacks.conftest import ROOT, STACKS, Synth, Synthesized, plain

ENVIRONMENTS = ("dev", "prod")


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
    command = ["cfn-lint", "--regions", "us-east-1", "--non-zero-exit-code", "error", "--ignore-checks", "W3005", "--"]
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
        "cloudwatch:PutMetricData",
        "elasticmapreduce:RunJobFlow",
        "ssm:UpdateInstanceInformation",
        "ssmmessages:CreateControlChannel",
        "ssmmessages:CreateDataChannel",
        "ssmmessages:OpenControlChannel",
        "ssmmessages:OpenDataChannel",
    }


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
        "network": ["AWS::EC2::VPC", "AWS::EC2::Subnet", "AWS::EC2::SecurityGroup", "AWS::EC2::NatGateway"],
        "data": ["AWS::S3::Bucket"],
        "observability": ["AWS::SNS::Topic"],
        "etl": ["AWS::Glue::Crawler", "AWS::Glue::Job", "AWS::IAM::Role"],
        "cluster": ["AWS::IAM::Role", "AWS::KMS::Key", "AWS::SSM::Parameter"],
        "pipeline": ["AWS::StepFunctions::StateMachine", "AWS::Logs::LogGroup"],
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
    assert made["data"] >= buckets | {database_output("nyc_flights")}
    assert made["observability"] >= {Output.TOPIC}
    assert made["etl"] >= {crawler_output("nyc_flights")}
    assert made["cluster"] >= {Output.WORKBENCH_PARAMETER}
    assert made["pipeline"] == {"StateMachineNycFlights"} == {state_machine_output("nyc_flights")}


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
        assert rule["ServerSideEncryptionByDefault"]["SSEAlgorithm"] == "AES256"
        assert set(bucket["PublicAccessBlockConfiguration"].values()) == {True}
        assert bucket["OwnershipControls"]["Rules"] == [{"ObjectOwnership": "BucketOwnerEnforced"}]
        assert any("AbortIncompleteMultipartUpload" in rule for rule in bucket["LifecycleConfiguration"]["Rules"])
    assert [bucket.get("VersioningConfiguration", {}).get("Status") for bucket in buckets] == ["Enabled"] * 4 + [None]


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
    (allowed,) = (statement for statement in statements if statement["Effect"] == "Allow")
    assert allowed["Condition"] == {"StringEquals": {"aws:SourceAccount": {"Ref": "AWS::AccountId"}}}


# --- etl ---


def test_the_crawler_should_make_a_table_of_each_folder_and_trust_the_header_line(dev: Synthesized) -> None:
    crawler = dev.only("etl", "AWS::Glue::Crawler")
    grouping = json.loads(crawler["Configuration"])["Grouping"]
    assert grouping == {"TableGroupingPolicy": "CombineCompatibleSchemas", "TableLevelConfiguration": 3}
    (target,) = crawler["Targets"]["S3Targets"]
    assert plain(target["Path"]).endswith("/nyc_flights/")
    classifier = dev.only("etl", "AWS::Glue::Classifier")["CsvClassifier"]
    assert (classifier["ContainsHeader"], classifier["Delimiter"]) == ("PRESENT", ",")
    assert crawler["Classifiers"] == [{"Ref": "CsvWithHeader"}]


def test_a_crawler_should_try_each_dialect_of_its_tables_once_and_commas_last() -> None:
    tables = {
        "a": {},
        "b": {"header": False},
        "c": {"delimiter": ";"},
        "d": {"delimiter": "\t", "quote": "'"},
        "e": {"delimiter": ";", "encoding": "latin-1"},
    }
    settings = load_dataset("nyc_flights").model_dump() | {"main": "a"}
    settings["tables"] = {name: {"columns": {"id": "bigint"}, **given} for name, given in tables.items()}
    settings["source"]["files"] = dict.fromkeys(tables, "x.csv")
    app, environment, made = cdk.App(), load_environment("dev"), [Dataset.model_validate(settings)]
    data = DataStack(app, "data", environment=environment, datasets=made)
    stack = EtlStack(app, "etl", environment=environment, datasets=made, data=data)
    template = assertions.Template.from_stack(stack)
    classifiers = template.find_resources("AWS::Glue::Classifier")
    (crawler,) = template.find_resources("AWS::Glue::Crawler").values()
    tried = [classifiers.pop(ref["Ref"])["Properties"]["CsvClassifier"] for ref in crawler["Properties"]["Classifiers"]]
    assert not classifiers
    assert [(one["Delimiter"], one["QuoteSymbol"], one["ContainsHeader"], one["Name"]) for one in tried] == [
        ("\t", "'", "PRESENT", "dml-dev-csv-character-9-apostrophe-with-header"),
        (";", '"', "PRESENT", "dml-dev-csv-semicolon-with-header"),
        (",", '"', "PRESENT", "dml-dev-csv-with-header"),
        (",", '"', "ABSENT", "dml-dev-csv-without-header"),
    ]


def test_the_glue_job_should_run_the_same_spark_as_the_cluster_one_run_at_a_time(dev: Synthesized) -> None:
    job = dev.only("etl", "AWS::Glue::Job")
    assert (job["GlueVersion"], job["WorkerType"], job["MaxRetries"], job["Timeout"]) == ("5.1", "G.1X", 0, 60)
    assert job["ExecutionProperty"] == {"MaxConcurrentRuns": 1}
    assert job["Role"] != dev.only("etl", "AWS::Glue::Crawler")["Role"]


def test_the_job_should_write_features_but_not_predictions_and_raw_should_stay_as_it_came(dev: Synthesized) -> None:
    written = [plain(arn) for arn in as_list(dev.statement("etl", "WriteLake")["Resource"])]
    assert [arn.rpartition("nyc_flights/")[2] for arn in written] == ["features/*", "quarantine/*", "runs/*"]
    for _, statement in dev.statements():
        if {"s3:PutObject", "s3:DeleteObject"} & set(as_list(statement["Action"])):
            assert not any("RefRaw" in plain(arn) or "Raw7" in plain(arn) for arn in as_list(statement["Resource"]))


# --- cluster ---


def workbench(synthesized: Synthesized) -> dict[str, Any]:
    return synthesized.only("cluster", "AWS::EMR::Cluster")


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


def test_spark_should_use_the_glue_catalog_and_our_python_everywhere(dev: Synthesized) -> None:
    cluster = workbench(dev)
    hive = configuration(cluster, "spark-hive-site")["ConfigurationProperties"]
    assert hive["hive.metastore.client.factory.class"].endswith(".AWSGlueDataCatalogHiveClientFactory")
    (export,) = configuration(cluster, "spark-env")["Configurations"]
    defaults = configuration(cluster, "spark-defaults")["ConfigurationProperties"]
    assert set(export["ConfigurationProperties"].values()) == set(defaults.values()) == {"/opt/dml/python/bin/python"}


@pytest.mark.parametrize("stack", ["cluster", "pipeline"])
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
    resources = dev.templates["cluster"]["Resources"]
    (cluster,) = (resource for resource in resources.values() if resource["Type"] == "AWS::EMR::Cluster")
    kinds = [resources[name]["Type"] for name in cluster["DependsOn"]]
    assert sorted(kinds) == [
        "AWS::IAM::InstanceProfile",
        "AWS::IAM::Role",
        "AWS::IAM::Role",
        "AWS::KMS::Key",
        *["AWS::SSM::Parameter"] * 4,
    ]


def test_a_job_should_not_be_able_to_say_which_model_is_current(dev: Synthesized) -> None:
    written = [plain(arn) for arn in as_list(dev.statement("cluster", "WriteModels")["Resource"])]
    assert [arn.partition("/")[2] for arn in written] == ["nyc_flights/*/*"]
    publishing = dev.statement("pipeline", "Publish")
    assert plain(publishing["Resource"]).endswith("/nyc_flights/CURRENT.json")


def test_without_a_workbench_there_should_be_no_cluster_and_the_parameter_should_say_so(prod: Synthesized) -> None:
    assert not prod.resources("cluster", "AWS::EMR::Cluster")
    values = {parameter["Name"]: parameter["Value"] for parameter in prod.resources("cluster", "AWS::SSM::Parameter")}
    assert values["/dml/prod/workbench"] == "none"


# --- pipeline ---


def test_the_pipeline_should_touch_clusters_of_its_own_environment_only(dev: Synthesized) -> None:
    statement = dev.statement("pipeline", "UseOwnClusters")
    assert "elasticmapreduce:TerminateJobFlows" in statement["Action"]
    own = {"aws:ResourceTag/project": "dml", "aws:ResourceTag/environment": "dev"}
    assert statement["Condition"] == {"StringEquals": own}


def test_a_lost_run_should_raise_an_alarm_however_it_was_lost(dev: Synthesized) -> None:
    alarms = dev.resources("pipeline", "AWS::CloudWatch::Alarm")
    assert {alarm["MetricName"] for alarm in alarms} == {"ExecutionsFailed", "ExecutionsTimedOut", "ExecutionsAborted"}
    for alarm in alarms:
        assert len(alarm["AlarmActions"]) == 1
        assert alarm["TreatMissingData"] == "notBreaching"


def test_the_state_machine_should_log_and_trace_without_the_data(dev: Synthesized) -> None:
    machine = dev.only("pipeline", "AWS::StepFunctions::StateMachine")
    assert machine["TracingConfiguration"] == {"Enabled": True}
    logging = machine["LoggingConfiguration"]
    assert (logging["Level"], logging["IncludeExecutionData"]) == ("ALL", False)


# --- between stacks and jobs ---


def test_every_argument_that_a_template_passes_should_be_one_that_its_job_takes(dev: Synthesized) -> None:
    states = dev.definition()["States"]
    glue = (
        dev.only("etl", "AWS::Glue::Job")["DefaultArguments"]
        | states["prepare: run the Glue job"]["Arguments"]["Arguments"]
    )
    passed = [part for name in glue for part in (name, "value")]
    parsed, others = prepare.build_parser().parse_known_args(passed)
    assert set(vars(parsed).values()) == {"value"}
    assert all(option.startswith(("--enable-", "--extra-py-files", "--job-language")) for option in others[::2])

    for name, job in (("train", train), ("predict", predict)):
        arguments = states[f"{name}: add the step"]["Arguments"]["Step"]["HadoopJarStep"]["Args"]
        assert arguments[:4] == ["spark-submit", "--deploy-mode", "cluster", "--py-files"]
        assert arguments[4].endswith(".zip")
        assert arguments[5].endswith(".py")
        parsed, others = job.build_parser().parse_known_args(arguments[6:])
        assert others == []
        assert None not in vars(parsed).values()


def test_every_dataset_should_have_parts_of_its_own(tmp_path: Path) -> None:
    app = cdk.App(context=json.loads((ROOT / "cdk.json").read_text())["context"], outdir=str(tmp_path))
    build(app, load_environment("dev"), [load_dataset(name) for name in dataset_names()])
    app.synth()
    counted: Counter[str] = Counter()
    for path in tmp_path.glob("dml-dev-*.template.json"):
        resources = json.loads(path.read_text())["Resources"]
        assert len(resources) < 400, path.name  # CloudFormation takes 500 a stack
        counted.update(resource["Type"] for resource in resources.values())
    for kind in ("AWS::Glue::Database", "AWS::Glue::Crawler", "AWS::Glue::Job", "AWS::StepFunctions::StateMachine"):
        assert counted[kind] == len(dataset_names()), kind
