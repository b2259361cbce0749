"""Arguments of Tasks, held against botocore's models."""

from typing import Any

import pytest

from stacks.arguments import faults, faults_of_task, member_name
from stacks.definition import Parts, definition
from tests.stacks.conftest import Synthesized

PREFIX = "arn:aws:states:::"


def test_members_should_be_named_as_the_sdk_for_java_names_them() -> None:
    names = ["ETag", "ChecksumCRC32", "DBClusterArn", "SSEKMSKeyId", "VpcId", "SS"]
    assert [member_name(name) for name in names] == [
        *("ETag", "ChecksumCRC32", "DbClusterArn", "SsekmsKeyId", "VpcId", "Ss")
    ]


def test_the_arguments_of_all_that_ships_should_be_taken(dev: Synthesized, prod: Synthesized) -> None:
    for made in (dev, prod):
        assert faults(made.definition()) == []


@pytest.mark.parametrize(
    ("action", "arguments", "fault"),
    [
        ("aws-sdk:s3:getObject", {"Bukket": "b", "Key": "k"}, "Arguments/Bukket is no member of GetObjectRequest"),
        ("aws-sdk:s3:getObject", {"Key": "k"}, "Arguments/Bucket is required but missing"),
        ("aws-sdk:s3:getObjekt", {}, "is not a service's action"),
        ("aws-sdk:s3:putObject", {"Bucket": "b", "Key": 7}, "Arguments/Key must be of type string, but is 7"),
        ("aws-sdk:s3:putObject", {"Bucket": "b", "Key": "k", "SSEKMSKeyId": "x"}, "Arguments/SSEKMSKeyId is no member"),
        ("elasticmapreduce:createCluster", {"LogEncryptionKmsKeyId": "k"}, "LogEncryptionKmsKeyId is not a field of"),
        ("elasticmapreduce:addStep.sync", {"ClusterId": "j", "Steps": []}, "Arguments/Steps is not supported by addSt"),
        ("glue:startJobRun.sync", {"JobName": "j", "Timeout": "60"}, "Arguments/Timeout must be of type integer"),
        ("aws-sdk:emr:runJobFlow", {"Name": "n", "Instances": {"Ec2SubnetIds": "s"}}, "Ec2SubnetIds must be of type l"),
        (
            "aws-sdk:cloudwatch:putMetricData",
            {"Namespace": "n", "MetricData": [{"MetricName": "m", "Val": 1}]},
            "Arguments/MetricData[0]/Val is no member of MetricDatum",
        ),
    ],
)
def test_arguments_that_a_service_does_not_take_should_be_named(action: str, arguments: Any, fault: str) -> None:
    assert fault in " ".join(faults_of_task(PREFIX + action, arguments))


def test_expressions_and_what_is_known_only_when_deployed_should_be_taken() -> None:
    given = {"Bucket": {"Ref": "Models"}, "Key": "{% $key %}", "Body": {"any": ["thing"]}, "IfNoneMatch": "*"}
    assert faults_of_task(PREFIX + "aws-sdk:s3:putObject", given) == []
    assert faults_of_task(PREFIX + "lambda:invoke", {"Whatever": 1}) != []
    assert faults_of_task(PREFIX + "http:invoke", {"Whatever": 1}) == []


def test_a_state_that_nothing_leads_to_should_be_found() -> None:
    """Recorded of CreateStateMachine: MISSING_TRANSITION_TARGET, State "..." is not reachable."""
    states = {"a": {"Type": "Pass", "Next": "b"}, "b": {"Type": "Succeed"}, "c": {"Type": "Pass", "Next": "b"}}
    assert faults({"StartAt": "a", "States": states}) == ["State 'c' is not reachable."]


def test_a_definition_that_step_functions_would_not_take_should_be_refused_at_synth() -> None:
    given: dict[str, Any] = dict.fromkeys(Parts.__dataclass_fields__, "-")
    given |= {"figures": ("auc",), "prepare_minutes": 10, "step_minutes": 10}
    given["transient_cluster"] = {"Name": "n", "Instances": {}, "LogEncryptionKey": "k", "LogUri": "s3://l/"}
    given["certificate_bucket"] = ""
    with pytest.raises(ValueError, match=r"of -: .*Arguments/LogEncryptionKey is no member"):
        definition(Parts(**given))
