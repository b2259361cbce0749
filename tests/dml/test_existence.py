"""Whether a resource stands is asked by calls that exist, with ids where they belong, and silence is no answer."""

import datetime as dt
from typing import Any

import boto3
import jmespath
import pytest
from botocore.exceptions import ClientError
from botocore.validate import ParamValidator

from dml.estate.existence import QUESTIONS, asked, stands, unless_gone

CLIENTS = boto3.Session(aws_access_key_id="-", aws_secret_access_key="-", region_name="us-east-1")


@pytest.mark.parametrize("kind", QUESTIONS)
def test_every_question_should_be_a_call_that_boto3_knows(kind: str) -> None:
    question = QUESTIONS[kind]
    client = CLIENTS.client(question.service)
    model = client.meta.service_model.operation_model(client.meta.method_to_api_mapping[question.operation])
    filled = {name: "0" * 12 if value == "{account}" else value for name, value in question.parameters.items()}
    report = ParamValidator().validate(filled, model.input_shape)
    assert not report.has_errors(), report.generate_report()
    assert "{id}" in str(question.parameters)
    jmespath.compile(question.standing)
    member = question.standing.lstrip("!").removeprefix("starts_with(").split(".")[0].split("[")[0].split(" ")[0]
    assert member in ("@", *model.output_shape.members), f"{question.operation} answers with no {member}"


class Answers:
    """A platform whose services all give the same answer."""

    def __init__(self, answer: dict[str, Any] | ClientError) -> None:
        self._answer = answer
        self.given: dict[str, Any] = {}

    def client(self, _service: str) -> "Answers":
        return self

    def __getattr__(self, _operation: str) -> Any:
        def call(**given: Any) -> dict[str, Any]:
            self.given = given
            if isinstance(self._answer, ClientError):
                raise self._answer
            return self._answer

        return call


def error(code: str, message: str = "") -> ClientError:
    return ClientError({"Error": {"Code": code, "Message": message}}, "Call")


def ask(kind: str, answer: dict[str, Any] | ClientError) -> bool | None:
    return stands(Answers(answer), kind, "it", account="1")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("kind", "answer", "expected"),
    [
        ("AWS::IAM::Role", error("NoSuchEntity"), False),
        ("AWS::S3::Bucket", error("404", "Not Found"), False),
        ("AWS::EC2::VPC", error("InvalidVpcID.NotFound"), False),
        ("AWS::EMR::SecurityConfiguration", error("InvalidRequestException", "'it' does not exist."), False),
        ("AWS::IAM::Role", error("AccessDenied", "not authorized to perform: iam:GetRole"), None),
        ("AWS::IAM::Role", {"Role": {}}, True),
        ("AWS::Logs::LogGroup", {"logGroups": [{"logGroupName": "it-is-another"}]}, False),
        ("AWS::Logs::LogGroup", {"logGroups": [{"logGroupName": "it"}]}, True),
        ("AWS::EC2::EIP", {"Addresses": [{"PublicIp": "another"}]}, False),
        ("AWS::EC2::NatGateway", {"NatGateways": [{"State": "deleted"}]}, False),
        ("AWS::EC2::NatGateway", {"NatGateways": [{"State": "deleting"}]}, True),
        ("AWS::EMR::Cluster", {"Cluster": {"Status": {"State": "TERMINATED_WITH_ERRORS"}}}, False),
        ("AWS::EMR::Cluster", {"Cluster": {"Status": {"State": "TERMINATING"}}}, True),
        ("AWS::KMS::Key", {"KeyMetadata": {"KeyState": "PendingDeletion"}}, False),
        ("AWS::SecretsManager::Secret", {"ARN": "it"}, True),
        ("AWS::SecretsManager::Secret", {"ARN": "it", "DeletedDate": dt.datetime(2026, 12, 1)}, False),
        ("AWS::KMS::Key", {"KeyMetadata": {"KeyState": "Enabled"}}, True),
        ("AWS::EC2::Route", {}, None),
    ],
)
def test_only_a_services_own_word_should_count(kind: str, answer: Any, expected: bool | None) -> None:
    assert ask(kind, answer) is expected


def test_who_is_asked_should_be_told_as_aws_writes_it() -> None:
    assert asked("AWS::S3::Bucket") == "s3:HeadBucket"
    assert asked("AWS::EC2::Route") == "CloudFormation"


def test_only_an_absence_should_be_passed_over() -> None:
    with unless_gone():
        raise error("EntityNotFoundException")
    with pytest.raises(ClientError), unless_gone():
        raise error("AccessDeniedException")
