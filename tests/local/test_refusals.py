"""What AWS refuses to delete the embedded cloud refuses too, in the service's words; a name that is taken as well."""

from typing import Any

import pytest

from tests.embedded import Clients
from tests.local.conftest import deploy, settled

BUCKET = {"Type": "AWS::S3::Bucket"}
VPC = {"Type": "AWS::EC2::VPC", "Properties": {"CidrBlock": "10.8.0.0/16"}}
GROUP = {"Type": "AWS::EC2::SecurityGroup", "Properties": {"GroupDescription": "one", "VpcId": {"Ref": "Vpc"}}}
SUBNET = {"Type": "AWS::EC2::Subnet", "Properties": {"CidrBlock": "10.8.1.0/24", "VpcId": {"Ref": "Vpc"}}}
LOGS = {"Type": "AWS::Logs::LogGroup", "Properties": {"LogGroupName": "/taken"}, "DeletionPolicy": "Retain"}


def template(**resources: dict[str, Any]) -> dict[str, Any]:
    return {"Resources": resources, "Outputs": {name: {"Value": {"Ref": name}} for name in resources}}


def deleted(aws: Clients, stack: str) -> str:
    """DELETE_COMPLETE, or why not."""
    stack_id = aws("cloudformation").describe_stacks(StackName=stack)["Stacks"][0]["StackId"]
    aws("cloudformation").delete_stack(StackName=stack)
    try:
        settled(aws, stack_id, "DELETE_COMPLETE")
    except AssertionError as refused:
        return str(refused)
    return "DELETE_COMPLETE"


def test_a_bucket_should_be_deleted_only_when_no_version_is_left(aws: Clients) -> None:
    versioned = BUCKET | {"Properties": {"VersioningConfiguration": {"Status": "Enabled"}}}
    bucket = deploy(aws, "refused-bucket", template(Bucket=versioned))["Bucket"]
    version = aws("s3").put_object(Bucket=bucket, Key="a", Body=b"1")["VersionId"]
    marker = aws("s3").delete_object(Bucket=bucket, Key="a")["VersionId"]
    assert "DELETE_FAILED" in (refused := deleted(aws, "refused-bucket"))
    assert "must delete all versions" in refused
    for found in (version, marker):
        aws("s3").delete_object(Bucket=bucket, Key="a", VersionId=found)
    assert deleted(aws, "refused-bucket") == "DELETE_COMPLETE"


def test_a_group_that_another_one_names_should_stay(aws: Clients) -> None:
    made = deploy(aws, "refused-groups", template(Vpc=VPC, One=GROUP, Other=GROUP, Subnet=SUBNET))
    one, other = (
        aws("ec2").describe_security_groups(GroupIds=[made[name]])["SecurityGroups"][0]["GroupId"]
        for name in ("One", "Other")
    )
    rules = [
        {"IpProtocol": "tcp", "FromPort": 1, "ToPort": 2, "UserIdGroupPairs": [{"GroupId": group}]}
        for group in (one, other)
    ]
    for group, rule in zip((other, one), rules, strict=True):
        aws("ec2").authorize_security_group_ingress(GroupId=group, IpPermissions=[rule])
    nat = aws("ec2").create_nat_gateway(SubnetId=made["Subnet"], ConnectivityType="private")["NatGateway"]
    refused = deleted(aws, "refused-groups")
    assert refused.count("has a dependent object") == 2, refused
    assert "The subnet" in refused
    aws("ec2").delete_nat_gateway(NatGatewayId=nat["NatGatewayId"])
    for group, rule in zip((other, one), rules, strict=True):
        aws("ec2").revoke_security_group_ingress(GroupId=group, IpPermissions=[rule])
    assert deleted(aws, "refused-groups") == "DELETE_COMPLETE"


def test_a_log_group_that_was_kept_should_have_its_name(aws: Clients) -> None:
    deploy(aws, "kept-logs", template(Logs=LOGS))
    assert deleted(aws, "kept-logs") == "DELETE_COMPLETE"
    with pytest.raises(AssertionError, match="'/taken' already exists"):
        deploy(aws, "kept-logs-again", template(Logs=LOGS))
    aws("logs").delete_log_group(logGroupName="/taken")
    aws("cloudformation").delete_stack(StackName="kept-logs-again")
