"""What AWS refuses for its size, number or name: each limit once, by the service's API and in a template alike."""

import json
from collections.abc import Iterator
from typing import Any

import botocore.session
import pytest
from botocore.exceptions import ClientError

from dml.local.services.constraints import matches, resource_schema, schema_faults
from dml.local.services.limits import SERVICES, document_size
from tests.embedded import Clients
from tests.local.conftest import deploy

TRUST = {
    "Statement": [
        {"Effect": "Allow", "Principal": {"Service": "glue.amazonaws.com"}, "Action": "sts:AssumeRole"},
    ]
}
ROLE = {"Type": "AWS::IAM::Role", "Properties": {"AssumeRolePolicyDocument": TRUST}}
MACHINE = json.dumps({"StartAt": "a", "States": {"a": {"Type": "Succeed"}}})
MACHINE_ROLE = "arn:aws:iam::000000000000:role/none"
LONGER = "failed to satisfy constraint: Member must have length less than or equal to"
PATTERN = "failed to satisfy constraint: Member must satisfy regular expression pattern:"


def document(size: int, **layout: Any) -> str:
    """A policy of so many characters without white space, laid out as json.dumps is told."""
    policy: dict[str, Any] = {"Statement": [{"Effect": "Allow", "Action": "s3:GetObject", "Resource": ""}]}
    policy["Statement"][0]["Resource"] = "x" * (size - len(json.dumps(policy, separators=(",", ":"))))
    return json.dumps(policy, **(layout or {"separators": (",", ":")}))


@pytest.fixture(scope="module")
def role(aws: Clients) -> Iterator[str]:
    aws("iam").create_role(RoleName="limited", AssumeRolePolicyDocument=json.dumps(TRUST))
    yield "limited"
    for name in aws("iam").list_role_policies(RoleName="limited")["PolicyNames"]:
        aws("iam").delete_role_policy(RoleName="limited", PolicyName=name)
    aws("iam").delete_role(RoleName="limited")


@pytest.fixture(scope="module")
def bucket(aws: Clients) -> str:
    aws("s3").create_bucket(Bucket="limited-bucket")
    return "limited-bucket"


REQUESTS: list[tuple[str, str, dict[str, Any], str, str]] = [
    # names, by the models
    (
        "iam",
        "create_role",
        {"RoleName": "r" * 65, "AssumeRolePolicyDocument": "{}"},
        "ValidationError",
        f"1 validation error detected: Value '{'r' * 65}' at 'roleName' {LONGER} 64",
    ),
    (
        "iam",
        "create_role",
        {"RoleName": "a/b", "AssumeRolePolicyDocument": "{}"},
        "ValidationError",
        f"Value 'a/b' at 'roleName' {PATTERN} [\\w+=,.@-]+",
    ),
    (
        "glue", "create_job", {"Name": "j" * 256, "Role": "r", "Command": {}},
        "ValidationException", f"'name' {LONGER} 255",
    ),
    (
        "glue", "create_database", {"DatabaseInput": {"Name": "d" * 256}},
        "ValidationException", f"'databaseInput.name' {LONGER} 255",
    ),
    (
        "events", "put_rule", {"Name": "r" * 65, "ScheduleExpression": "rate(1 day)"},
        "ValidationException", f"'name' {LONGER} 64",
    ),
    (
        "logs", "create_log_group", {"logGroupName": "a b"},
        "InvalidParameterException", f"'logGroupName' {PATTERN} [\\.\\-_/#A-Za-z0-9]+",
    ),
    (
        "kms", "create_alias", {"AliasName": "alias/ä", "TargetKeyId": "k"},
        "ValidationException", f"Value 'alias/ä' at 'aliasName' {PATTERN}",
    ),
    (
        "cloudwatch", "put_metric_data", {"Namespace": "n" * 256, "MetricData": []},
        "ValidationError", f"'namespace' {LONGER} 255",
    ),
    ("emr", "run_job_flow", {"Name": "c" * 257, "Instances": {}}, "ValidationException", f"'name' {LONGER} 256"),
    # numbers and what is in lists
    (
        "iam",
        "create_role",
        {"RoleName": "r", "AssumeRolePolicyDocument": "{}", "Tags": [{"Key": str(i), "Value": ""} for i in range(51)]},
        "ValidationError",
        f"at 'tags' {LONGER} 50",
    ),
    (
        "iam",
        "create_role",
        {
            "RoleName": "r",
            "AssumeRolePolicyDocument": "{}",
            "Tags": [{"Key": "a", "Value": ""}, {"Key": "k" * 129, "Value": "v" * 257}],
        },
        "ValidationError",
        f"2 validation errors detected: Value '{'k' * 129}' at 'tags.2.member.key' {LONGER} 128; "
        f"Value '{'v' * 257}' at 'tags.2.member.value' {LONGER} 256",
    ),
    (
        "iam", "create_role", {"RoleName": "r", "AssumeRolePolicyDocument": "{}", "MaxSessionDuration": 43201},
        "ValidationError", "Member must have value less than or equal to 43200",
    ),
    (
        "glue", "create_job", {"Name": "j", "Role": "r", "Command": {}, "WorkerType": "G.3X"},
        "ValidationException", "Member must satisfy enum value set: [",
    ),
    # sizes of a state machine
    (
        "stepfunctions",
        "create_state_machine",
        {"name": "m", "roleArn": MACHINE_ROLE, "definition": MACHINE + " " * 1024**2},
        "ValidationException", f"Value at 'definition' {LONGER} 1048576",
    ),
    (
        "stepfunctions", "create_state_machine", {"name": "m" * 81, "roleArn": MACHINE_ROLE, "definition": MACHINE},
        "ValidationException", f"'name' {LONGER} 80",
    ),
    (
        "stepfunctions", "create_state_machine", {"name": "a b", "roleArn": MACHINE_ROLE, "definition": MACHINE},
        "InvalidName", "Invalid Name: 'a b'",
    ),
    # quotas that no model knows
    (
        "iam", "create_policy", {"PolicyName": "p", "PolicyDocument": document(6145)},
        "LimitExceeded", "Cannot exceed quota for PolicySize: 6144",
    ),
    (
        "iam", "create_role", {"RoleName": "r", "AssumeRolePolicyDocument": document(2049)},
        "LimitExceeded", "Cannot exceed quota for ACLSizePerRole: 2048",
    ),
    (
        "ssm", "put_parameter", {"Name": "/p", "Type": "String", "Value": "v" * 4097},
        "ValidationException", "Standard tier parameters support a maximum parameter value of 4096 characters.",
    ),
    ("sns", "create_topic", {"Name": "a.b"}, "InvalidParameter", "Invalid parameter: Topic Name"),
    ("s3", "create_bucket", {"Bucket": "UPPER"}, "InvalidBucketName", "The specified bucket is not valid."),
]  # fmt: skip


@pytest.mark.parametrize(
    ("service", "operation", "given", "code", "message"),
    [pytest.param(*one, id=f"{one[0]}-{one[1]}-{number}") for number, one in enumerate(REQUESTS)],
)
def test_a_request_beyond_a_limit_should_be_refused_in_awss_words(
    aws: Clients, service: str, operation: str, given: dict[str, Any], code: str, message: str
) -> None:
    with pytest.raises(ClientError) as refused:
        getattr(aws(service), operation)(**given)
    assert refused.value.response["Error"]["Code"] == code
    assert message in refused.value.response["Error"]["Message"]


def test_all_inline_policies_of_a_role_should_count_together_without_white_space(aws: Clients, role: str) -> None:
    iam = aws("iam")
    spacious = document(6000, indent=40)
    assert document_size(spacious) == 6000
    iam.put_role_policy(RoleName=role, PolicyName="one", PolicyDocument=spacious)
    iam.put_role_policy(RoleName=role, PolicyName="two", PolicyDocument=document(4240))
    iam.put_role_policy(RoleName=role, PolicyName="two", PolicyDocument=document(4240))  # instead of itself
    with pytest.raises(iam.exceptions.LimitExceededException, match="Maximum policy size of 10240 bytes exceeded for"):
        iam.put_role_policy(RoleName=role, PolicyName="two", PolicyDocument=document(4241))


def test_a_role_should_have_ten_managed_policies(aws: Clients, role: str) -> None:
    iam = aws("iam")
    arns = [
        iam.create_policy(PolicyName=f"limited-{number}", PolicyDocument=document(100))["Policy"]["Arn"]
        for number in range(11)
    ]
    for arn in arns[:10]:
        iam.attach_role_policy(RoleName=role, PolicyArn=arn)
    iam.attach_role_policy(RoleName=role, PolicyArn=arns[0])  # which it has
    with pytest.raises(iam.exceptions.LimitExceededException, match="Cannot exceed quota for PoliciesPerRole: 10"):
        iam.attach_role_policy(RoleName=role, PolicyArn=arns[10])
    for arn in arns:
        iam.detach_role_policy(RoleName=role, PolicyArn=arn) if arn != arns[10] else None
        iam.delete_policy(PolicyArn=arn)


def test_a_key_of_more_than_1024_bytes_should_be_too_long(aws: Clients, bucket: str) -> None:
    s3 = aws("s3")
    longest = "ü" * 512
    s3.put_object(Bucket=bucket, Key=longest, Body=b"1")
    assert s3.get_object(Bucket=bucket, Key=longest)["Body"].read() == b"1"
    for call in (s3.put_object, s3.get_object):
        with pytest.raises(ClientError) as refused:
            call(Bucket=bucket, Key=longest + "u")
        told = refused.value.response["Error"]
        assert (told["Code"], told["Message"]) == ("KeyTooLongError", "Your key is too long")
        assert (told["Size"], told["MaxSizeAllowed"]) == ("1025", "1024")


def test_a_message_and_its_subject_should_have_their_sizes(aws: Clients) -> None:
    sns = aws("sns")
    topic = sns.create_topic(Name="limited")["TopicArn"]
    sns.publish(TopicArn=topic, Message="m" * 256 * 1024, Subject="s" * 99)
    for message, subject, told in (
        ("m" * (256 * 1024 + 1), "s", "Message too long"),
        ("m", "s" * 100, "Subject"),
        ("m", "two\nlines", "Subject"),
    ):
        with pytest.raises(sns.exceptions.InvalidParameterException, match=f"Invalid parameter: {told}"):
            sns.publish(TopicArn=topic, Message=message, Subject=subject)


def test_a_rule_should_have_five_targets(aws: Clients) -> None:
    events = aws("events")
    events.put_rule(Name="limited", ScheduleExpression="rate(1 day)")
    targets = [{"Id": str(number), "Arn": f"arn:aws:sns:us-east-1:000000000000:t{number}"} for number in range(6)]
    events.put_targets(Rule="limited", Targets=targets[:3])
    events.put_targets(Rule="limited", Targets=targets[1:5])
    with pytest.raises(events.exceptions.LimitExceededException, match="exceeds the maximum number allowed"):
        events.put_targets(Rule="limited", Targets=targets[5:])


def test_a_template_should_have_its_size_and_counts(aws: Clients, bucket: str) -> None:
    cloudformation = aws("cloudformation")

    def refused(**template: Any) -> str:
        with pytest.raises(ClientError) as error:
            cloudformation.create_stack(StackName="limited", **template)
        assert error.value.response["Error"]["Code"] == "ValidationError"
        return str(error.value.response["Error"]["Message"])

    one = {"T": {"Type": "AWS::SNS::Topic"}}
    long = json.dumps({"Resources": one, "Metadata": {"a": "x" * 51200}})
    assert f"'templateBody' {LONGER} 51200" in refused(TemplateBody=long)
    aws("s3").put_object(Bucket=bucket, Key="template", Body=long.replace("x", "x" * 20).encode())
    url = f"{cloudformation.meta.endpoint_url}/{bucket}/template"
    assert "Template may not exceed 1000000 bytes in size" in refused(TemplateURL=url)
    many = {
        "Resources": {f"T{i}": one["T"] for i in range(501)},
        "Outputs": {f"O{i}": {"Value": "v"} for i in range(201)},
        "Parameters": {f"P{i}": {"Type": "String", "Default": "d"} for i in range(201)},
    }
    for section, most in (("Resources", 500), ("Outputs", 200), ("Parameters", 200)):
        template = {"Resources": one, section: many[section]}
        told = refused(TemplateBody=json.dumps(template))
        assert f"Number of {section.lower()}, {most + 1}, is greater than maximum allowed, {most}" in told
    tags = [{"Key": str(number), "Value": "v"} for number in range(51)]
    assert f"'tags' {LONGER} 50" in refused(TemplateBody=json.dumps({"Resources": one}), Tags=tags)


LONG_ROLE = {"Type": "AWS::IAM::Role", "Properties": {"Description": "d" * 1001, "AssumeRolePolicyDocument": TRUST}}
RESOURCES: list[tuple[dict[str, Any], str]] = [
    (
        {"Role": LONG_ROLE},
        r"Properties validation failed for resource Role with message:\n#/Description: expected maxLength: 1000, "
        "actual: 1001",
    ),
    (
        {"Bucket": {"Type": "AWS::S3::Bucket", "Properties": {"BucketName": "a_b"}}},
        "#/BucketName: failed validation constraint for keyword [pattern]",
    ),
    (
        {
            "Job": {
                "Type": "AWS::Glue::Job",
                "Properties": {"Role": "r", "Command": {"Name": "glueetl"}, "Name": "j" * 256},
            }
        },
        "#/Name: expected maxLength: 255, actual: 256",
    ),
    (
        {"Long": {"Type": "AWS::SSM::Parameter", "Properties": {"Type": "String", "Value": "v" * 4097}}},
        "Standard tier parameters support a maximum parameter value of 4096 characters.",
    ),
    (
        {"Topic": {"Type": "AWS::SNS::Topic", "Properties": {"TopicName": "a b"}}},
        'Resource handler returned message: "Invalid parameter: Topic Name (Service: Sns, Status Code: 400)" '
        "(HandlerErrorCode: InvalidRequest)",
    ),
    (
        {"Managed": {"Type": "AWS::IAM::ManagedPolicy", "Properties": {"PolicyDocument": json.loads(document(6145))}}},
        "Cannot exceed quota for PolicySize: 6144 (Service: Iam, Status Code: 409)",
    ),
    (
        {
            "Role": ROLE,
            **{
                f"Policy{number}": {
                    "Type": "AWS::IAM::Policy",
                    "Properties": {
                        "PolicyName": f"p{number}",
                        "PolicyDocument": json.loads(document(5121)),
                        "Roles": [{"Ref": "Role"}],
                    },
                }
                for number in (1, 2)
            },
        },
        "Maximum policy size of 10240 bytes exceeded for role",
    ),
    (
        {
            "Vpc": {
                "Type": "AWS::EC2::VPC",
                "Properties": {
                    "CidrBlock": "10.0.0.0/16", "Tags": [{"Key": f"k{number}", "Value": "v"} for number in range(51)]
                },
            }
        },
        "The maximum number of Tags for a resource has been reached.",
    ),
    (
        {
            "Policy": {
                "Type": "AWS::S3::BucketPolicy",
                "Properties": {"Bucket": "limited-bucket", "PolicyDocument": json.loads(document(20 * 1024 + 1))},
            }
        },
        "The bucket policy is longer than 20480 bytes.",
    ),
    (
        {
            "Role": {
                **ROLE,
                "Properties": {
                    **ROLE["Properties"],  # type: ignore[dict-item]
                    "ManagedPolicyArns": [f"arn:aws:iam::aws:policy/P{number}" for number in range(11)],
                },
            }
        },
        "Cannot exceed quota for PoliciesPerRole: 10",
    ),
]  # fmt: skip


def test_a_resource_beyond_a_limit_should_fail_its_stack_and_say_why(aws: Clients) -> None:
    for number, (resources, told) in enumerate(RESOURCES):
        with pytest.raises(AssertionError) as failed:
            deploy(aws, f"limited-{number}", {"Resources": resources})
        assert "ROLLBACK_COMPLETE" in str(failed.value)
        assert told in str(failed.value).replace("\n", r"\n")
        aws("cloudformation").delete_stack(StackName=f"limited-{number}")


def test_every_pattern_of_the_models_should_be_readable_and_hold_the_whole_value() -> None:
    models = botocore.session.get_session()
    patterns = [
        shape.metadata["pattern"]
        for model in map(models.get_service_model, SERVICES.values())
        for shape in map(model.shape_for, model.shape_names)
        if "pattern" in shape.metadata
    ]
    assert len(patterns) > 400
    for pattern in patterns:
        matches(pattern, "text", whole=True)
    assert matches("[a-z]+", "abc", whole=True) and not matches("[a-z]+", "abc d", whole=True)
    astral = r"[\u0020-\uD7FF\uE000-\uFFFD\uD800\uDC00-\uDBFF\uDFFF\t]*"
    assert matches(astral, "Zürich 🌍", whole=True) and not matches(astral, "a\x00", whole=True)


def test_schemas_should_be_read_through_their_references() -> None:
    tags = [{"Key": "k" * 129, "Value": "v"}]
    assert schema_faults("AWS::IAM::Role", {"Tags": tags}) == ["#/Tags/0/Key: expected maxLength: 128, actual: 129"]
    assert schema_faults("AWS::IAM::Role", {"Tags": [{"Key": "k", "Value": "v"}] * 51, "MaxSessionDuration": 1}) == [
        "#/Tags: expected maximum item count: 50, found: 51",
        "#/MaxSessionDuration: 1 is not greater or equal to 3600",
    ]
    assert resource_schema("Custom::Nothing") == {}
    assert schema_faults("Custom::Nothing", {"Name": "n" * 1000}) == []
