"""Whether an AWS resource still stands, asked of its own service rather than of CloudFormation; operator time."""

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NamedTuple

import jmespath
from botocore.exceptions import ClientError

from dml.estate.platform import Platform


class Question(NamedTuple):
    """A call that names one resource ({id}), and what of the answer must hold for the resource to be there."""

    service: str
    operation: str
    parameters: Mapping[str, Any]
    standing: str = "@"  # JMESPath


# Types that hold data, cost money, give rights or take a name. What is part of another resource (a rule, a route, a
# bucket's policy) has no question: it goes with what it is part of.
QUESTIONS = {
    "AWS::Budgets::Budget": Question("budgets", "describe_budget", {"AccountId": "{account}", "BudgetName": "{id}"}),
    "AWS::CloudWatch::Alarm": Question("cloudwatch", "describe_alarms", {"AlarmNames": ["{id}"]}, "MetricAlarms"),
    "AWS::CloudWatch::CompositeAlarm": Question(
        "cloudwatch",
        "describe_alarms",
        {"AlarmNames": ["{id}"], "AlarmTypes": ["CompositeAlarm"]},
        "CompositeAlarms",
    ),
    "AWS::CloudWatch::Dashboard": Question("cloudwatch", "get_dashboard", {"DashboardName": "{id}"}),
    "AWS::EC2::EIP": Question("ec2", "describe_addresses", {"PublicIps": ["{id}"]}, "Addresses[?PublicIp == '{id}']"),
    "AWS::EC2::FlowLog": Question("ec2", "describe_flow_logs", {"FlowLogIds": ["{id}"]}, "FlowLogs"),
    "AWS::EC2::InternetGateway": Question(
        "ec2", "describe_internet_gateways", {"InternetGatewayIds": ["{id}"]}, "InternetGateways"
    ),
    "AWS::EC2::NatGateway": Question(
        "ec2", "describe_nat_gateways", {"NatGatewayIds": ["{id}"]}, "NatGateways[?State != 'deleted']"
    ),
    "AWS::EC2::SecurityGroup": Question("ec2", "describe_security_groups", {"GroupIds": ["{id}"]}, "SecurityGroups"),
    "AWS::EC2::Subnet": Question("ec2", "describe_subnets", {"SubnetIds": ["{id}"]}, "Subnets"),
    "AWS::EC2::VPC": Question("ec2", "describe_vpcs", {"VpcIds": ["{id}"]}, "Vpcs"),
    "AWS::EC2::VPCEndpoint": Question(
        "ec2", "describe_vpc_endpoints", {"VpcEndpointIds": ["{id}"]}, "VpcEndpoints[?State != 'deleted']"
    ),
    "AWS::EMR::Cluster": Question(
        "emr", "describe_cluster", {"ClusterId": "{id}"}, "!starts_with(Cluster.Status.State, 'TERMINATED')"
    ),
    "AWS::EMR::SecurityConfiguration": Question("emr", "describe_security_configuration", {"Name": "{id}"}),
    "AWS::Events::Rule": Question("events", "describe_rule", {"Name": "{id}"}),
    "AWS::Glue::Classifier": Question("glue", "get_classifier", {"Name": "{id}"}),
    "AWS::Glue::Crawler": Question("glue", "get_crawler", {"Name": "{id}"}),
    "AWS::Glue::Database": Question("glue", "get_database", {"Name": "{id}"}),
    "AWS::Glue::Job": Question("glue", "get_job", {"JobName": "{id}"}),
    "AWS::Glue::SecurityConfiguration": Question("glue", "get_security_configuration", {"Name": "{id}"}),
    "AWS::IAM::InstanceProfile": Question("iam", "get_instance_profile", {"InstanceProfileName": "{id}"}),
    "AWS::IAM::Role": Question("iam", "get_role", {"RoleName": "{id}"}),
    "AWS::KMS::Alias": Question("kms", "describe_key", {"KeyId": "{id}"}),
    "AWS::KMS::Key": Question("kms", "describe_key", {"KeyId": "{id}"}, "KeyMetadata.KeyState != 'PendingDeletion'"),
    "AWS::Lambda::Function": Question("lambda", "get_function", {"FunctionName": "{id}"}),
    "AWS::Logs::LogGroup": Question(
        "logs", "describe_log_groups", {"logGroupNamePrefix": "{id}"}, "logGroups[?logGroupName == '{id}']"
    ),
    "AWS::S3::Bucket": Question("s3", "head_bucket", {"Bucket": "{id}"}),
    "AWS::SNS::Topic": Question("sns", "get_topic_attributes", {"TopicArn": "{id}"}),
    "AWS::SSM::Parameter": Question("ssm", "get_parameter", {"Name": "{id}"}),
    # One that is to be deleted after its waiting period can be described until then.
    "AWS::SecretsManager::Secret": Question("secretsmanager", "describe_secret", {"SecretId": "{id}"}, "!DeletedDate"),
    "AWS::Scheduler::Schedule": Question("scheduler", "get_schedule", {"Name": "{id}"}),
    "AWS::StepFunctions::StateMachine": Question(
        "stepfunctions", "describe_state_machine", {"stateMachineArn": "{id}"}, "status != 'DELETING'"
    ),
}
_ABSENT = re.compile(r"not ?found|no ?such|not exist|\b404\b", re.IGNORECASE)


def stands(platform: Platform, kind: str, physical_id: str, *, account: str) -> bool | None:
    """Whether the service has the resource; None for a type that no question is known for, or if it did not answer."""
    question = QUESTIONS.get(kind)
    if question is None:
        return None
    named = {"id": physical_id, "account": account}
    call = getattr(platform.client(question.service), question.operation)
    try:
        answer = call(**{name: _filled(value, named) for name, value in question.parameters.items()})
    except ClientError as error:
        return False if _ABSENT.search(str(error)) else None
    return bool(jmespath.search(_filled(question.standing, named), answer))


@contextmanager
def unless_gone() -> Iterator[None]:
    """Passes over a ClientError that says that something is not there (any more), and over nothing else."""
    try:
        yield
    except ClientError as error:
        if not _ABSENT.search(str(error)):
            raise


def asked(kind: str) -> str:
    """Whom `stands` asks, as AWS writes it: S3 HeadBucket -> s3:HeadBucket; CloudFormation where nobody else."""
    question = QUESTIONS.get(kind)
    if question is None:
        return "CloudFormation"
    return f"{question.service}:{''.join(word.capitalize() for word in question.operation.split('_'))}"


def _filled(value: Any, named: Mapping[str, str]) -> Any:
    if isinstance(value, list):
        return [_filled(one, named) for one in value]
    for name, text in named.items():
        value = value.replace("{" + name + "}", text)
    return value
