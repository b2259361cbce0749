"""`dml doctor`: each check finds what it is for, says what to do, and never ends in a stack trace."""

import io
import json
import os
import re
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import boto3
import pytest
from botocore.awsrequest import AWSResponse
from botocore.exceptions import ClientError, EndpointConnectionError
from botocore.response import StreamingBody
from botocore.stub import Stubber

from datasets import dataset_names
from dml.doctor import change_sets, questions, report
from dml.doctor import needs as reading
from dml.doctor.account import CREDENTIALS, Account
from dml.doctor.findings import Check
from dml.doctor.machine import Machine
from dml.doctor.needs import Cluster, Needs, Policy
from dml.doctor.report import ACCOUNT_CHECKS, MACHINE_CHECKS, look
from dml.estate.platform import Platform
from dml.local.cloud import Cloud
from dml.local.deploy import PROJECT
from stacks.outputs import SHARED, Output
from tests.embedded import Clients, free_port, own_cloud

Run = Callable[..., tuple[int, str, str]]
Answer = tuple[str, dict[str, Any]] | tuple[str, str, str]  # an operation with what it returns, or with its error
REGION, HERE = "eu-central-1", {"Tags": [{"Key": "project", "Value": "dml"}, {"Key": "environment", "Value": "dev"}]}
WORKBENCH = Cluster(
    name="dml-dev-workbench",
    release="emr-7.13.0",
    applications=("Hadoop", "Spark", "Zeppelin"),
    instance_types=("m7g.xlarge",),
    minimum=2,
    on_demand=4,
    spot=0,
    zones=(0,),
)
FLEETS = replace(WORKBENCH, instance_types=("m7g.xlarge", "m6g.xlarge"), spot=8, zones=(0, 1))
NEEDS = Needs(
    stacks=("dml-dev-data", "dml-dev-network"),
    bootstrap_version=6,
    bootstrap_parameter="/cdk-bootstrap/hnb659fds/version",
    clusters=(WORKBENCH,),
    machines=3,
    glue_jobs=3,
    glue_dpus=6,
    counts={"AWS::EC2::VPC": 1, "AWS::EC2::EIP": 1, "AWS::Budgets::Budget": 1},
    interface_endpoints=16,
    nat_zones=(0,),
    names=dict.fromkeys(reading.NAMES, ("dml-dev-name",)),
    creates_databases=True,
    definitions={
        "dml-dev-pipeline/One": json.dumps(
            {"States": {questions.METRICS: {"Assign": {"m": "{% $parse($states.result.Body).auc %}"}}}}
        )
    },
    policies=(Policy("dml-dev-data/Role, trust", "{}", "RESOURCE_POLICY", "AWS::IAM::AssumeRolePolicyDocument"),),
)


NOW = datetime(2026, 11, 25, 20, tzinfo=UTC).timestamp()  # by which examples are judged


class Answers:
    """Stands for a Platform: real clients, whose calls are answered from lists, in order, checked by botocore."""

    environment, endpoint, region = "dev", None, REGION

    def __init__(self, answers: dict[str, list[Answer]]) -> None:
        self._answers = answers
        self.stubs: list[Stubber] = []

    def client(self, service: str) -> Any:
        keys = {"aws_access_key_id": "AKIAEXAMPLE", "aws_secret_access_key": "example"}
        client = boto3.client(service, region_name=REGION, **keys)
        stub = Stubber(client)
        for operation, *answer in self._answers.get(service, []):
            if isinstance(answer[0], dict):
                stub.add_response(operation, answer[0])
            else:
                stub.add_client_error(operation, answer[0], answer[1])
        stub.activate()
        self.stubs.append(stub)
        return client


@dataclass(frozen=True)
class Example:
    """A state of an account that a check shall judge: `says` is to be in what it found."""

    says: str
    answers: dict[str, list[Answer]]
    needs: Needs = NEEDS
    judged: str = "problem"


def identity(date: str = "Wed, 25 Nov 2026 20:00:00 GMT") -> Answer:
    metadata = {"HTTPHeaders": {"date": date}, "HTTPStatusCode": 200}
    who = {"Account": "123456789012", "Arn": "arn:aws:sts::123456789012:assumed-role/admin/ada", "UserId": "A:ada"}
    return "get_caller_identity", who | {"ResponseMetadata": metadata}


def quota(value: float) -> list[Answer]:
    return [("get_service_quota", {"Quota": {"Value": value}})]


def supported(architecture: str = "AARCH64", *types: str) -> Answer:
    kinds = types or ("m7g.xlarge", "m6g.xlarge")
    return "list_supported_instance_types", {
        "SupportedInstanceTypes": [{"Type": kind, "VCPU": 4, "Architecture": architecture} for kind in kinds]
    }


def instances(*given: dict[str, Any]) -> Answer:
    usual = {"InstanceType": "c5.2xlarge", "CpuOptions": {"CoreCount": 4, "ThreadsPerCore": 2}}
    return "describe_instances", {"Reservations": [{"Instances": [usual | one for one in given]}]}


def zones(*names: str) -> list[Answer]:
    return [
        ("describe_subnets", {"Subnets": []}),
        ("describe_availability_zones", {"AvailabilityZones": [{"ZoneName": name} for name in names]}),
    ]


def offerings(*found: tuple[str, str]) -> Answer:
    return "describe_instance_type_offerings", {
        "InstanceTypeOfferings": [{"InstanceType": kind, "Location": zone} for kind, zone in found]
    }


def no_stack() -> Answer:
    return "describe_stacks", "ValidationError", "Stack with id dml-dev-data does not exist"


def stack(status: str) -> Answer:
    created = {"StackName": "dml-dev-data", "StackStatus": status, "CreationTime": "2026-11-25T00:00:00Z"}
    return "describe_stacks", {"Stacks": [created]}


def lake(*permissions: str) -> list[Answer]:
    grant = [{"Principal": {"DataLakePrincipalIdentifier": "IAM_ALLOWED_PRINCIPALS"}, "Permissions": list(permissions)}]
    settings = {"CreateDatabaseDefaultPermissions": grant, "CreateTableDefaultPermissions": grant}
    return [("get_data_lake_settings", {"DataLakeSettings": settings if permissions else {}})]


def block(on: bool) -> list[Answer]:
    found = {
        "BlockPublicAccessConfiguration": {"BlockPublicSecurityGroupRules": on},
        "BlockPublicAccessConfigurationMetadata": {
            "CreationDateTime": "2026-11-25T00:00:00Z",
            "CreatedByArn": "arn:aws:iam::123456789012:root",
        },
    }
    return [("get_block_public_access_configuration", found)]


def role(name: str) -> Answer:
    found = {
        "Path": "/",
        "RoleName": name,
        "RoleId": "AROAEXAMPLEEXAMPLE",
        "Arn": f"arn:aws:iam::123456789012:role/{name}",
        "CreateDate": "2026-11-25T00:00:00Z",
    }
    return "get_role", {"Role": found}


def release(*names: str) -> list[Answer]:
    return [("describe_release_label", {"Applications": [{"Name": name, "Version": "3.5.6"} for name in names]})]


def tagged(status: str) -> list[Answer]:
    tags = [{"TagKey": key, "Type": "UserDefined", "Status": status} for key in ("project", "environment")]
    return [("list_cost_allocation_tags", {"CostAllocationTags": tags})]


NO_STACKS = [no_stack(), no_stack()]
ALL = ("Hadoop", "Spark", "Zeppelin")
SPOT = replace(NEEDS, clusters=(FLEETS,))
WHOLE = replace(SPOT, certified=True)  # that asks for all there is to ask
CLOSED = replace(NEEDS, creates_databases=False)
CERTIFIED = replace(NEEDS, certified=True)


def certificate(days: float | None) -> dict[str, list[Answer]]:
    """An environment that stands, and a certificate that ends so many days from NOW; None for no certificate."""
    outputs = [{"OutputKey": Output.WORKSPACE_BUCKET, "OutputValue": "workspace"}]
    told = stack("CREATE_COMPLETE")[1]["Stacks"][0] | {"Outputs": outputs}
    answers: list[Answer] = [("get_object", "NoSuchKey", "The specified key does not exist.")]
    if days is not None:
        ends = datetime.fromtimestamp(NOW + days * 86400, UTC).isoformat(timespec="seconds")
        body = json.dumps({"expires": ends}).encode()
        answers = [("get_object", {"Body": StreamingBody(io.BytesIO(body), len(body))})]
    standing = [stack("CREATE_COMPLETE"), no_stack(), ("describe_stacks", {"Stacks": [told]})]
    return {"cloudformation": standing, "s3": answers}


EVERY_NAME: dict[
    str, tuple[str, Answer, Answer]
] = {  # what is asked, the answer for a name that is taken, and for one that is free
    "Glue databases": (
        "glue",
        ("get_database", {"Database": {"Name": "dml-dev-name"}}),
        ("get_database", "EntityNotFoundException", "Database dml-dev-name not found."),
    ),
    "Glue classifiers": (
        "glue",
        ("get_classifier", {"Classifier": {}}),
        ("get_classifier", "EntityNotFoundException", "Classifier not found"),
    ),
    "Glue security configurations": (
        "glue",
        ("get_security_configuration", {"SecurityConfiguration": {}}),
        ("get_security_configuration", "EntityNotFoundException", "Security Configuration not found"),
    ),
    "log groups": (
        "logs",
        ("describe_log_groups", {"logGroups": [{"logGroupName": "dml-dev-name"}]}),
        ("describe_log_groups", {"logGroups": [{"logGroupName": "dml-dev-name-longer"}]}),
    ),
    "SSM parameters": (
        "ssm",
        ("get_parameter", {"Parameter": {"Value": "none"}}),
        ("get_parameter", "ParameterNotFound", ""),
    ),
    "key aliases": (
        "kms",
        ("describe_key", {"KeyMetadata": {"KeyId": "1"}}),
        ("describe_key", "NotFoundException", "Alias is not found."),
    ),
    "dashboards": ("cloudwatch", ("get_dashboard", {}), ("get_dashboard", "ResourceNotFound", "does not exist")),
}


def name_examples(answer: int, says: str) -> dict[str, Example]:
    return {
        f"names of {title}": Example(says, {"cloudformation": NO_STACKS, given[0]: [given[answer]]})
        for title, given in EVERY_NAME.items()
    }


def validated(result: str, *severities: str) -> dict[str, list[Answer]]:
    told = [{"severity": one, "code": "C", "message": "No such state", "location": "/StartAt"} for one in severities]
    return {"stepfunctions": [("validate_state_machine_definition", {"result": result, "diagnostics": told})]}


def value_told(**told: str) -> dict[str, list[Answer]]:
    return {"stepfunctions": [("test_state", told)]}


def analysed(*kinds: str) -> dict[str, list[Answer]]:
    rest = {"issueCode": "INVALID_ACTION", "learnMoreLink": "https://example", "locations": []}
    found = [{"findingType": kind, "findingDetails": "The action s3:Got does not exist.", **rest} for kind in kinds]
    return {"accessanalyzer": [("validate_policy", {"findings": found})]}


FAILING: dict[str, Example] = {
    "credentials": Example("expired", {"sts": [("get_caller_identity", "ExpiredToken", "The security token expired")]}),
    "region": Example("AWS_DEFAULT_REGION is us-west-2", {}, judged="warning"),
    "clock against AWS": Example("ahead of", {"sts": [identity("Wed, 25 Nov 2026 19:50:00 GMT")]}),
    "bootstrap": Example(
        "version 5",
        {"sts": [identity()], "ssm": [("get_parameter", {"Parameter": {"Value": "5"}})]},
    ),
    "EMR release": Example(
        "has no emr-7.13.0", {"emr": [("describe_release_label", "InvalidRequestException", "not found")]}
    ),
    "instance types in zones": Example(
        "m7g.xlarge in eu-central-1a", {"ec2": [*zones("eu-central-1a", "eu-central-1b"), offerings()]}
    ),
    "instance types for EMR": Example("does not run on m7g.xlarge", {"emr": [supported("X86_64", "m5.xlarge")]}),
    "EMR block public access": Example("off", {"emr": block(on=False)}, judged="warning"),
    "role for cleaning up": Example(
        "no AWSServiceRoleForEMRCleanup", {"iam": [("get_role", "NoSuchEntity", "cannot be found")]}, judged="warning"
    ),
    "role for spot": Example(
        "no AWSServiceRoleForEC2Spot", {"iam": [("get_role", "NoSuchEntity", "cannot be found")]}, SPOT
    ),
    "Lake Formation": Example("databases and tables", {"lakeformation": lake()}),
    "database `default`": Example(
        "no role of ours", {"glue": [("get_database", "EntityNotFoundException", "not found")]}, CLOSED
    ),
    "cost allocation tags": Example("environment, project", {"ce": tagged("Inactive")}, judged="warning"),
    "certificate of nodes": Example("it ended on 2026-11-24: no cluster starts", certificate(-1), CERTIFIED),
    "quota of on-demand vCPUs": Example(
        "8 to 16 vCPUs for 1 cluster needed, 0 of 8 free",
        {"emr": [supported()], "ec2": [instances({})], "service-quotas": quota(8)},
    ),
    "quota of spot vCPUs": Example(
        "0 to 32 vCPUs for 1 cluster needed, 5 of 5 free",
        {"emr": [supported()], "ec2": [instances({})], "service-quotas": quota(5)},
        SPOT,
        judged="warning",
    ),
    "quota of VPCs": Example(
        "0 of 5 free", {"ec2": [("describe_vpcs", {"Vpcs": [{}, {}, {}, {}, {}]})], "service-quotas": quota(5)}
    ),
    "quota of elastic IPs": Example(
        "0 of 2 free", {"ec2": [("describe_addresses", {"Addresses": [{}, {}]})], "service-quotas": quota(2)}
    ),
    "quota of NAT gateways": Example(
        "in eu-central-1a needed, 0 of 1 free",
        {
            "ec2": [
                ("describe_nat_gateways", {"NatGateways": [{"SubnetId": "subnet-1"}]}),
                ("describe_subnets", {"Subnets": [{"SubnetId": "subnet-1", "AvailabilityZone": "eu-central-1a"}]}),
                *zones("eu-central-1a", "eu-central-1b"),
            ],
            "service-quotas": quota(1),
        },
    ),
    "quota of interface endpoints": Example("16 endpoints", {"service-quotas": quota(10)}),
    "quota of Glue DPUs": Example("2 to 6 DPUs needed", {"service-quotas": quota(1)}),
    "quota of Glue job runs": Example("wait for each other", {"service-quotas": quota(2)}, judged="warning"),
    "quota of EMR clusters": Example(
        "0 of 1 free",
        {"emr": [("list_clusters", {"Clusters": [{"Name": "somebody else's"}]})], "service-quotas": quota(1)},
    ),
    "stacks": Example("UPDATE_ROLLBACK_FAILED", {"cloudformation": [stack("UPDATE_ROLLBACK_FAILED"), no_stack()]}),
    **name_examples(1, "not of our stacks"),
    "definitions": Example("One, /StartAt: No such state", validated("FAIL", "ERROR", "WARNING")),
    "expressions": Example("there '0.75', here 0.75", value_told(status="SUCCEEDED", output='"0.75"')),
    "policies": Example("trust: The action s3:Got does not exist. (INVALID_ACTION)", analysed("ERROR")),
}
PASSING: dict[str, Example] = {
    "credentials": Example("123456789012 as assumed-role/admin/ada", {"sts": [identity()]}),
    "region": Example(REGION, {}),
    "clock against AWS": Example("behind", {"sts": [identity("Wed, 25 Nov 2026 20:00:10 GMT")]}),
    "bootstrap": Example(
        "version 30", {"sts": [identity()], "ssm": [("get_parameter", {"Parameter": {"Value": "30"}})]}
    ),
    "EMR release": Example("Spark 3.5.6", {"emr": release(*ALL)}),
    "instance types in zones": Example(
        "m7g.xlarge in eu-central-1a",
        {"ec2": [*zones("eu-central-1b", "eu-central-1a"), offerings(("m7g.xlarge", "eu-central-1a"))]},
    ),
    "instance types for EMR": Example("AARCH64", {"emr": [supported()]}),
    "EMR block public access": Example("on", {"emr": block(on=True)}),
    "role for cleaning up": Example("AWSServiceRole", {"iam": [role("AWSServiceRoleForEMRCleanup")]}),
    "role for spot": Example("AWSServiceRole", {"iam": [role("AWSServiceRoleForEC2Spot")]}, SPOT),
    "Lake Formation": Example("to IAM", {"lakeformation": lake("ALL")}),
    "database `default`": Example("none yet", {"glue": [("get_database", "EntityNotFoundException", "not found")]}),
    "cost allocation tags": Example("active", {"ce": tagged("Active")}),
    "certificate of nodes": Example("valid until 2027-03-05", certificate(100), CERTIFIED),
    "quota of on-demand vCPUs": Example(
        "16 of 24 free",
        {
            "emr": [supported()],
            "ec2": [instances({}, HERE, {"InstanceType": "p4d.24xlarge"})],
            "service-quotas": quota(24),
        },
    ),
    "quota of spot vCPUs": Example("none needed", {}),
    "quota of VPCs": Example(
        "2 of 5 free", {"ec2": [("describe_vpcs", {"Vpcs": [{}, {}, {}, HERE]})], "service-quotas": quota(5)}
    ),
    "quota of elastic IPs": Example(
        "5 of 5 free", {"ec2": [("describe_addresses", {"Addresses": [HERE]})], "service-quotas": quota(5)}
    ),
    "quota of NAT gateways": Example(
        "5 of 5 free",
        {
            "ec2": [("describe_nat_gateways", {"NatGateways": []}), *zones("eu-central-1a")],
            "service-quotas": quota(5),
        },
    ),
    "quota of interface endpoints": Example(
        "50 of 50 free",
        {
            "service-quotas": [
                ("get_service_quota", "NoSuchResourceException", "The request failed because the resource is not here"),
                ("get_aws_default_service_quota", {"Quota": {"Value": 50.0}}),
            ]
        },
    ),
    "quota of Glue DPUs": Example("1000 free", {"service-quotas": quota(1000)}),
    "quota of Glue job runs": Example("200 free", {"service-quotas": quota(200)}),
    "quota of EMR clusters": Example(
        "500 of 500 free",
        {"emr": [("list_clusters", {"Clusters": [{"Name": "dml-dev-workbench"}]})], "service-quotas": quota(500)},
    ),
    "stacks": Example("first deploy", {"cloudformation": NO_STACKS}),
    **name_examples(2, "free or ours"),
    "definitions": Example("takes 1 definition", validated("OK")),
    "expressions": Example("1 value as here", value_told(status="SUCCEEDED", output="0.75")),
    "policies": Example("takes 1 policy", analysed("SUGGESTION")),
}
CHECKS = {check.name: check for check in (CREDENTIALS, *ACCOUNT_CHECKS)}
# A command, or the place to go to: what an advice has to name.
WAY_OUT = re.compile(r"aws \w|npx \w|npm ci|make \w|dml \w|timedatectl|export \w|environments/|User Guide|Guide\"")


def judge(name: str, example: Example) -> dict[str, str]:
    platform = Answers(example.answers)
    account = Account(platform, example.needs, now=lambda: NOW)  # type: ignore[arg-type]
    found = look("account", CHECKS[name], account)
    for stub in platform.stubs:
        stub.assert_no_pending_responses()
    return found


def test_every_check_should_have_a_failing_and_a_passing_example() -> None:
    assert set(FAILING) == set(PASSING) == set(CHECKS)
    assert set(BROKEN) == {check.name for check in MACHINE_CHECKS}


@pytest.mark.parametrize("name", FAILING)
def test_a_check_of_the_account_should_find_what_it_is_for_and_say_what_to_do(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-west-2")
    found = judge(name, FAILING[name])
    assert found["status"] == FAILING[name].judged, found
    assert FAILING[name].says in found["found"]
    assert WAY_OUT.search(found["advice"]), found["advice"]


@pytest.mark.parametrize("name", PASSING)
def test_a_check_of_the_account_should_be_content_where_all_is_well(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AWS_DEFAULT_REGION", raising=False)
    found = judge(name, PASSING[name])
    assert found["status"] == "ok", found
    assert PASSING[name].says in found["found"]
    assert found["advice"] == ""


class Refusing(Answers):
    """A Platform whose every call ends in the same way."""

    def __init__(self, refuse: Callable[[Any], Any]) -> None:
        super().__init__({})
        self._refuse = refuse

    def client(self, service: str) -> Any:
        client = boto3.client(service, region_name=REGION, aws_access_key_id="AKIA", aws_secret_access_key="example")
        client.meta.events.register("before-call", lambda model, **_: self._refuse(model))
        return client


def denied(model: Any) -> Any:
    action = f"{model.service_model.signing_name}:{model.name}"
    message = f"User: arn:aws:iam::123456789012:user/ada is not authorized to perform: {action} on resource: *"
    error = {"Error": {"Code": "AccessDeniedException", "Message": message}, "ResponseMetadata": {}}
    return AWSResponse("https://example", 403, {}, None), error


def unreachable(model: Any) -> Any:
    raise EndpointConnectionError(endpoint_url=f"https://{model.service_model.endpoint_prefix}.example/")


# These ask nobody, and so cannot be refused.
SILENT = {"region"}


@pytest.mark.parametrize("name", [name for name in CHECKS if name not in SILENT | {"credentials"}])
def test_a_right_that_is_missing_should_skip_the_one_check_and_be_named(name: str) -> None:
    account = Account(Refusing(denied), WHOLE)  # type: ignore[arg-type]
    found = look("account", CHECKS[name], account)
    assert found["status"] == "skipped"
    assert re.fullmatch(r"you lack [\w-]+:\w+", found["found"]), found["found"]
    assert CHECKS[name].by_hand in found["advice"]


@pytest.mark.parametrize("name", [name for name in CHECKS if name not in SILENT | {"credentials"}])
def test_a_service_that_is_not_reached_should_skip_the_check(name: str) -> None:
    found = look("account", CHECKS[name], Account(Refusing(unreachable), WHOLE))  # type: ignore[arg-type]
    assert found["status"] == "skipped"
    assert "not reached" in found["found"]


@pytest.mark.parametrize(
    ("name", "answers", "judged", "says"),
    [
        ("definitions", validated("OK", "WARNING"), "warning", "No such state"),
        ("definitions", validated("FAIL"), "problem", "FAIL without a reason"),
        ("expressions", value_told(status="FAILED", error="States.QueryEvaluationError", cause="D1"), "problem", "D1"),
        ("policies", analysed("SECURITY_WARNING", "SUGGESTION"), "warning", "s3:Got"),
    ],
)
def test_what_aws_says_of_the_templates_should_be_told_by_its_weight(
    name: str, answers: dict[str, list[Answer]], judged: str, says: str
) -> None:
    found = judge(name, Example(says, answers))
    assert found["status"] == judged
    assert says in found["found"]


def test_templates_that_do_not_synthesise_should_skip_what_needs_them() -> None:
    found = look("account", CHECKS["stacks"], Account(Answers({}), None))  # type: ignore[arg-type]
    assert found["status"] == "skipped"
    assert "synth" in found["found"]


@pytest.mark.parametrize("status", ["ROLLBACK_COMPLETE", "REVIEW_IN_PROGRESS"])
def test_a_stack_that_the_cdk_makes_again_by_itself_should_be_a_warning(status: str) -> None:
    found = judge("stacks", Example("", {"cloudformation": [stack(status), no_stack()]}))
    assert found["status"] == "warning"
    assert "describe-stack-events --stack-name dml-dev-data" in found["advice"]


def test_a_name_that_one_of_our_stacks_has_should_be_no_clash() -> None:
    own = {
        "LogicalResourceId": "Tables",
        "PhysicalResourceId": "dml-dev-name",
        "ResourceType": "AWS::Glue::Database",
        "ResourceStatus": "UPDATE_COMPLETE",
        "LastUpdatedTimestamp": "2026-11-25T00:00:00Z",
    }
    listing = ("list_stack_resources", {"StackResourceSummaries": [own]})
    answers: dict[str, list[Answer]] = {"cloudformation": [stack("UPDATE_COMPLETE"), no_stack(), listing]}
    assert judge("names of Glue databases", Example("", answers | {"glue": []}))["status"] == "ok"


def test_a_name_that_may_not_be_asked_for_should_not_pass_for_free() -> None:
    refusal = ("get_database", "AccessDeniedException", "is not authorized to perform: glue:GetDatabase on resource")
    found = judge("names of Glue databases", Example("", {"cloudformation": NO_STACKS, "glue": [refusal]}))
    assert (found["status"], found["found"]) == ("skipped", "you lack glue:GetDatabase")


def test_a_cluster_that_fits_at_its_smallest_only_should_be_a_warning() -> None:
    answers: dict[str, list[Answer]] = {"emr": [supported()], "ec2": [instances()], "service-quotas": quota(12)}
    found = judge("quota of on-demand vCPUs", Example("", answers))
    assert found["status"] == "warning"
    assert "cannot all grow" in found["found"]
    assert "--quota-code L-1216C47A --desired-value 16" in found["advice"]


def test_without_a_workbench_the_clusters_of_all_runs_should_be_counted() -> None:
    alone = replace(NEEDS, clusters=(replace(WORKBENCH, applications=("Hadoop", "Spark")),))
    answers: dict[str, list[Answer]] = {"emr": [supported()], "ec2": [instances()], "service-quotas": quota(40)}
    found = judge("quota of on-demand vCPUs", Example("", answers, alone))
    assert (found["status"], found["found"]) == (
        "warning",
        "8 to 48 vCPUs for 3 clusters needed, 40 of 40 free: clusters start, but cannot all grow to their limit",
    )


@pytest.mark.parametrize(
    ("answers", "status", "says"),
    [
        ({"cloudformation": [no_stack(), no_stack()]}, "ok", "nothing is deployed yet; after the deploy: dml certific"),
        (certificate(None), "warning", "there is none: no cluster starts"),
        (certificate(29), "warning", "it ends on 2026-12-24"),
    ],
)
def test_a_certificate_that_is_missing_or_ends_soon_should_be_told_before_a_run_needs_it(
    answers: dict[str, list[Answer]], status: str, says: str
) -> None:
    found = judge("certificate of nodes", Example("", answers, CERTIFIED))
    assert (found["status"], found["found"][: len(says)]) == (status, says)


def test_a_fleet_should_need_one_of_its_types_in_one_of_its_zones() -> None:
    answers: dict[str, list[Answer]] = {
        "ec2": [*zones("eu-central-1a", "eu-central-1b"), offerings(("m6g.xlarge", "eu-central-1b"))]
    }
    found = judge("instance types in zones", Example("", answers, SPOT))
    assert found["status"] == "warning"
    assert "m7g.xlarge in eu-central-1a" in found["found"]


def test_a_default_database_on_a_dead_clusters_disks_should_be_a_warning() -> None:
    database = {"Name": "default", "LocationUri": "hdfs://ip-10-0-0-1:8020/user/hive/warehouse"}
    found = judge("database `default`", Example("", {"glue": [("get_database", {"Database": database})]}))
    assert found["status"] == "warning"
    assert "hdfs://ip-10-0-0-1" in found["found"]


def test_a_wrong_clock_that_aws_refuses_should_be_told_from_wrong_keys() -> None:
    message = "Signature expired: 20201125T200000Z is now earlier than 20261125T200000Z (20261125T201500Z - 15 min.)"
    answers: dict[str, list[Answer]] = {"sts": [("get_caller_identity", "SignatureDoesNotMatch", message)]}
    found = judge("credentials", Example("", answers))
    assert "timedatectl" in found["advice"]
    wrong: dict[str, list[Answer]] = {"sts": [("get_caller_identity", "InvalidClientTokenId", "The token is invalid")]}
    assert "sso login" in judge("credentials", Example("", wrong))["advice"]


# --- this machine ---


def program(folder: Path, name: str, says: str) -> Path:
    """A program that only says its version."""
    file = folder / name
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(f"#!/bin/sh\necho '{says}'\n")
    file.chmod(0o755)
    return file


def checkout(folder: Path) -> Path:
    """Those files of a checkout that the checks look at."""
    for name in ("package.json", "requirements.txt", "cdk.json", "cluster/requirements.txt"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes((PROJECT / name).read_bytes())
    (folder / "node_modules").mkdir()
    return folder


def old_node(folder: Path, _: pytest.MonkeyPatch) -> Machine:
    return Machine("dev", path=str(program(folder, "node", "v20.20.2").parent))


def old_cli(folder: Path, _: pytest.MonkeyPatch) -> Machine:
    package = checkout(folder) / "node_modules" / "aws-cdk" / "package.json"
    package.parent.mkdir()
    package.write_text('{"version": "3.0.0"}')
    return Machine("dev", root=folder)


def new_java(folder: Path, _: pytest.MonkeyPatch) -> Machine:
    program(folder, "bin/java", 'openjdk version "21.0.8" 2025-07-15')
    return Machine("dev", java=folder)


def slow_clock(folder: Path, _: pytest.MonkeyPatch) -> Machine:
    ahead = time.time() + 86400
    os.utime(checkout(folder) / "package.json", (ahead, ahead))
    return Machine("dev", root=folder)


def full_disk(_: Path, patch: pytest.MonkeyPatch) -> Machine:
    patch.setattr("dml.doctor.machine.shutil.disk_usage", lambda _: SimpleNamespace(free=5 * 10**8))
    return Machine("dev")


def broken_app(folder: Path, _: pytest.MonkeyPatch) -> Machine:
    (checkout(folder) / "app.py").write_text("raise SystemExit('datasets/flights/dataset.toml: label is missing')")
    return Machine("dev", root=folder)


BROKEN: dict[str, tuple[str, Callable[[Path, pytest.MonkeyPatch], Machine]]] = {
    "Python": ("3.12", lambda *_: Machine("dev", python=(3, 12))),
    "Node": ("v20.20.2", old_node),
    "CDK CLI": ("3.0.0", old_cli),
    "Java": ("21", new_java),
    "cluster's packages": ("No matching distribution", lambda folder, _: Machine("dev", root=checkout(folder))),
    "Session Manager": ("cannot be reached", lambda folder, _: Machine("dev", path=str(folder))),
    "AWS CLI": ("no aws", lambda folder, _: Machine("dev", path=str(folder))),
    "settings": ("dev, prod", lambda *_: Machine("staging")),
    "synth": ("label is missing", broken_app),
    "clock": ("the clock says", slow_clock),
    "disk": ("0.5 GiB", full_disk),
}


@pytest.mark.parametrize("check", MACHINE_CHECKS, ids=lambda check: check.name)
def test_a_check_of_this_machine_should_find_what_it_is_for_and_say_what_to_do(
    check: Check[Machine], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    says, broken = BROKEN[check.name]
    found = look("machine", check, broken(tmp_path, monkeypatch))
    assert found["status"] in ("problem", "warning"), found
    assert says in found["found"]
    assert WAY_OUT.search(found["advice"]), found["advice"]


def test_missing_tools_should_be_problems_and_not_stack_traces(tmp_path: Path) -> None:
    bare = Machine("dev", root=checkout(tmp_path), path=str(tmp_path), java=tmp_path)
    for check in MACHINE_CHECKS:
        if check.name in ("Node", "CDK CLI", "Java"):
            assert look("machine", check, bare)["status"] == "problem"


# --- the whole ---


@pytest.fixture(scope="module")
def synthesised() -> Needs:
    """What the templates of this checkout want in dev, as `synth` reads it."""
    return Machine("dev").needs


@pytest.fixture
def once(synthesised: Needs, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Spares a test the seconds of synthesising again."""
    monkeypatch.setattr(Machine, "needs", synthesised)
    yield


def test_the_checkout_should_be_fit_to_deploy(dml: Run, once: None) -> None:
    code, out, _ = dml("doctor", "--offline", "--json")
    found = json.loads(out)
    assert code == 0, found
    assert [row["check"] for row in found["checks"]] == [check.name for check in MACHINE_CHECKS]
    assert {row["status"] for row in found["checks"]} <= {"ok", "warning"}


def test_without_credentials_the_doctor_should_say_how_to_sign_in_and_ask_nothing_else(dml: Run, once: None) -> None:
    code, out, err = dml("doctor", "--json", AWS_DEFAULT_REGION=REGION)
    rows = {row["check"]: row for row in json.loads(out)["checks"] if row["where"] == "account"}
    assert code == 1
    assert "sso login" in rows.pop("credentials")["advice"]
    assert {row["status"] for row in rows.values()} == {"skipped"}
    assert "Traceback" not in err


def test_an_endpoint_that_is_not_reached_should_be_told_from_wrong_credentials(dml: Run, once: None) -> None:
    nowhere = {"AWS_ENDPOINT_URL": f"http://127.0.0.1:{free_port()}", "AWS_DEFAULT_REGION": REGION}
    code, out, _ = dml("doctor", **nowhere, AWS_ACCESS_KEY_ID="AKIA", AWS_SECRET_ACCESS_KEY="example")
    assert code == 1
    assert "cannot be reached" in out


def test_a_profile_that_there_is_not_should_be_named(dml: Run, once: None) -> None:
    code, out, err = dml("doctor", AWS_PROFILE="nobody")
    assert code == 1
    assert "nobody" in out
    assert "Traceback" not in err


def test_an_unknown_environment_should_be_a_finding_among_others(dml: Run) -> None:
    code, out, _ = dml("doctor", "--offline", "--env", "staging")
    assert code == 1
    assert "dev, prod" in out
    assert "Java 17" in out


@pytest.fixture
def nothing_deployed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cloud]:
    """Not the session's, where other tests may have deployed dev."""
    with own_cloud(tmp_path_factory, "doctor") as made:
        yield made


def test_the_embedded_cloud_should_be_examined_as_far_as_it_answers(nothing_deployed: Cloud, once: None) -> None:
    cloud, aws = nothing_deployed, Clients(nothing_deployed)

    def examined() -> dict[str, dict[str, str]]:
        connect = lambda: Platform("dev", credentials=cloud.environment(), patient=False)  # noqa: E731
        found = report.examine("dev", connect, on_progress=lambda _: None)
        assert [row["check"] for row in found["checks"] if row["where"] == "account"] == list(CHECKS)
        return {row["check"]: row for row in found["checks"]}

    aws("glue").create_database(DatabaseInput={"Name": "dev_nyc_flights"})
    try:
        before = examined()
    finally:
        aws("glue").delete_database(Name="dev_nyc_flights")
    assert before["names of Glue databases"]["status"] == "problem"
    assert "dev_nyc_flights" in before["names of Glue databases"]["found"]
    after = examined()
    assert after["names of Glue databases"]["status"] == "ok"
    assert "GetServiceQuota" in after["quota of VPCs"]["found"]
    assert after["quota of VPCs"]["status"] == "skipped"
    for name in ("definitions", "policies"):
        assert (after[name]["status"], "does not validate" in after[name]["found"]) == ("skipped", True)
    assert (after["expressions"]["status"], after["expressions"]["found"]) == ("ok", "10 values as here")
    with pytest.raises(ClientError, match="does not validate definitions as AWS does"):  # and it makes up no answer
        aws("stepfunctions").validate_state_machine_definition(definition="{}")


# --- change sets: on the session's cloud, by templates of their own ---

TOPIC = {"Type": "AWS::SNS::Topic"}


def asked(platform: Platform, **templates: Any) -> dict[str, str]:
    """What the check finds of these templates, each of a stack of its own."""
    texts = {f"asked-{name}": json.dumps(template, separators=(",", ":")) for name, template in templates.items()}
    needs = replace(NEEDS, stacks=tuple(texts), templates=texts)
    return look("account", change_sets.CHECK, Account(platform, needs))


@pytest.fixture
def examined_cloud(cloud: Cloud, aws: Clients) -> Iterator[Platform]:
    """The session's cloud with the CDK's bucket; afterwards nothing of the check's is in it."""
    bucket = f"cdk-hnb659fds-assets-000000000000-{Platform('dev', credentials=cloud.environment()).region}"
    made = bucket not in [one["Name"] for one in aws("s3").list_buckets()["Buckets"]]
    if made:
        aws("s3").create_bucket(Bucket=bucket)
    yield Platform("dev", credentials=cloud.environment())
    names = [one["StackName"] for one in aws("cloudformation").describe_stacks()["Stacks"]]
    assert [name for name in names if name.startswith("asked-")] == []
    assert aws("s3").list_objects_v2(Bucket=bucket, Prefix="dml-doctor/")["KeyCount"] == 0
    if made:  # another test's bootstrap makes it
        aws("s3").delete_bucket(Bucket=bucket)


def test_a_change_set_should_be_made_of_each_template_and_nothing_stay(examined_cloud: Platform) -> None:
    large = {"Resources": {"A": TOPIC}, "Metadata": {"long": "x" * change_sets.BODY_BYTES}}
    found = asked(examined_cloud, small={"Resources": {"A": TOPIC}}, large=large)
    assert (found["status"], found["found"]) == ("ok", "CloudFormation takes 2 templates, nothing was executed")


def test_a_template_that_cloudformation_refuses_should_be_told(examined_cloud: Platform) -> None:
    wrong = {"Resources": {"A": TOPIC}, "Outputs": {f"O{i}": {"Value": "v"} for i in range(201)}}
    found = asked(examined_cloud, good={"Resources": {"A": TOPIC}}, wrong=wrong)
    assert found["status"] == "problem"
    assert "asked-wrong: Template format error: Number of outputs, 201, is greater than" in found["found"]
    assert "asked-good" not in found["found"]


def test_a_stack_that_imports_what_is_not_there_yet_should_wait(examined_cloud: Platform) -> None:
    imports = {"Resources": {"A": {**TOPIC, "Properties": {"DisplayName": {"Fn::ImportValue": "not-yet"}}}}}
    found = asked(examined_cloud, first={"Resources": {"A": TOPIC}}, later=imports)
    assert found["status"] == "warning"
    assert "asked-later (it imports not-yet, which nothing exports yet)" in found["found"]
    assert asked(examined_cloud, later=imports)["status"] == "skipped"


def test_ctrl_c_should_leave_no_change_set_no_stack_and_no_template(
    examined_cloud: Platform, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: Any) -> str:
        raise KeyboardInterrupt

    monkeypatch.setattr(change_sets, "_verdict", interrupted)
    with pytest.raises(KeyboardInterrupt):
        asked(examined_cloud, large={"Resources": {"A": TOPIC}, "Metadata": {"long": "x" * change_sets.BODY_BYTES}})


def test_an_empty_stack_that_may_not_be_removed_should_be_told_with_the_way_out(
    examined_cloud: Platform, cloud: Cloud, aws: Clients
) -> None:
    iam = aws("iam")
    iam.create_user(UserName="asker")
    allowed = {"Effect": "Allow", "NotAction": "cloudformation:DeleteStack", "Resource": "*"}
    document = json.dumps({"Version": "2012-10-17", "Statement": [allowed]})
    iam.put_user_policy(UserName="asker", PolicyName="asks", PolicyDocument=document)
    key = iam.create_access_key(UserName="asker")["AccessKey"]
    keys = {"AWS_ACCESS_KEY_ID": key["AccessKeyId"], "AWS_SECRET_ACCESS_KEY": key["SecretAccessKey"]}
    found = asked(Platform("dev", credentials={**cloud.environment(), **keys}), one={"Resources": {"A": TOPIC}})
    assert found["status"] == "problem"
    assert "the empty stack asked-one (REVIEW_IN_PROGRESS)" in found["found"]
    assert found["advice"] == "Remove it: aws cloudformation delete-stack --stack-name asked-one"
    aws("cloudformation").delete_stack(StackName="asked-one")
    iam.delete_access_key(UserName="asker", AccessKeyId=key["AccessKeyId"])
    iam.delete_user_policy(UserName="asker", PolicyName="asks")
    iam.delete_user(UserName="asker")


def test_the_needs_should_be_those_of_the_templates(synthesised: Needs) -> None:
    assert synthesised.bootstrap_version >= 6
    assert len(synthesised.stacks) == len(SHARED) + len(dataset_names())
    assert {cluster.name for cluster in synthesised.clusters} == {"dml-dev-workbench", "dml-dev-transient"}
    for cluster in synthesised.clusters:
        assert cluster.release == "emr-7.13.0"
        assert cluster.zones == (0,)  # instance groups live in one zone
        assert (cluster.minimum, cluster.on_demand, cluster.spot) == (2, 4, 0)
    assert synthesised.machines == synthesised.glue_jobs > 1
    assert synthesised.nat_zones == (0,)
    assert "dev_nyc_flights" in synthesised.names["AWS::Glue::Database"]
    assert len(synthesised.definitions) == synthesised.machines + 1  # and what looks after all of them
    for name, text in synthesised.definitions.items():
        machine = json.loads(text)
        assert machine["StartAt"] in machine["States"]
        assert (
            ("arn:aws:states:::glue:startJobRun.sync" in text) == ("Watch" not in name)
            and "Fn::" not in text
            and "Token" not in text.split("$")[0]
        )
    statements = [json.loads(policy.document)["Statement"] for policy in synthesised.policies]
    resources = [one.get("Resource", "*") for some in statements for one in some]
    named = [arn for one in resources for arn in ([one] if isinstance(one, str) else one)]
    assert all(arn == "*" or re.match(r"arn:aws:[a-z0-9-]+:", arn) for arn in named), named
    assert {policy.kind for policy in synthesised.policies} == {"IDENTITY_POLICY", "RESOURCE_POLICY"}


def test_a_fleet_on_spot_should_need_spot_for_what_its_limits_keep_from_on_demand() -> None:
    request = {
        "Name": "fleet",
        "ReleaseLabel": "emr-7.13.0",
        "Applications": [{"Name": "Spark"}],
        "Instances": {
            "InstanceFleets": [
                {"InstanceFleetType": "MASTER", "InstanceTypeConfigs": [{"InstanceType": "m7g.xlarge"}]},
                {
                    "InstanceFleetType": "TASK",
                    "TargetSpotCapacity": 1,
                    "InstanceTypeConfigs": [{"InstanceType": "m7g.xlarge"}, {"InstanceType": "m6g.xlarge"}],
                },
            ],
            "Ec2SubnetIds": ["<One>", "<Two>"],
        },
        "ManagedScalingPolicy": {
            "ComputeLimits": {
                "UnitType": "InstanceFleetUnits",
                "MinimumCapacityUnits": 2,
                "MaximumCapacityUnits": 10,
                "MaximumOnDemandCapacityUnits": 3,
            }
        },
    }
    found = reading.cluster(request, {"<One>": 0, "<Two>": 1})
    assert found.instance_types == ("m7g.xlarge", "m6g.xlarge")
    assert (found.minimum, found.on_demand, found.spot) == (3, 4, 7)
    assert found.zones == (0, 1)
