"""Templates of ours deploy to the embedded cloud, and what they declare is there."""

import json
import re
from typing import Any

import pytest

from dml.local.cloud import Cloud
from dml.local.services import node
from tests.embedded import Clients
from tests.local import small_platform
from tests.local.conftest import deploy, settled, until


def test_the_platform_template_should_deploy_with_every_attribute_it_reads(platform: dict[str, str]) -> None:
    assert platform["VpcRange"] == "10.9.0.0/16"
    assert platform["SubnetRange"] == "10.9.1.0/24"
    assert platform["Nat"].startswith("nat-")


def test_standalone_rules_should_be_the_groups_only_rules(aws: Clients, platform: dict[str, str]) -> None:
    (group,) = aws("ec2").describe_security_groups(GroupIds=[platform["Nodes"]])["SecurityGroups"]
    for rules in (group["IpPermissions"], group["IpPermissionsEgress"]):
        assert [(rule["IpProtocol"], rule["UserIdGroupPairs"][0]["GroupId"]) for rule in rules] == [
            ("tcp", group["GroupId"])
        ]


def test_a_cluster_of_a_template_should_run_its_bootstrap_action_and_wait(
    aws: Clients, platform: dict[str, str], logs: Any
) -> None:
    cluster = aws("emr").describe_cluster(ClusterId=platform["Cluster"])["Cluster"]
    actions = logs / "emr" / cluster["Id"] / "node" / f"i-{cluster['Id'][2:]}" / "bootstrap-actions"
    assert cluster["Status"]["State"] == "WAITING"
    assert cluster["SecurityConfiguration"] == platform["Encryption"]
    assert cluster["Configurations"][0]["Configurations"][0]["Properties"] == {"A": "b"}
    assert '{"a": 1}' in (actions / "1" / "stdout").read_text()
    stored = aws("emr").describe_security_configuration(Name=platform["Encryption"])
    assert json.loads(stored["SecurityConfiguration"])["EncryptionConfiguration"] == {"EnableAtRestEncryption": False}


def test_a_failing_bootstrap_action_should_fail_the_stack_in_emrs_words_and_dml_tell_what_it_printed(
    aws: Clients, platform: dict[str, str], cloud: Cloud
) -> None:
    aws("s3").put_object(
        Bucket="small-platform-code", Key="broken.sh", Body=b"#!/bin/sh\necho no such wheel >&2\nexit 3\n"
    )
    template = small_platform.template()
    cluster = template["Resources"]["Cluster"]["Properties"]
    cluster["BootstrapActions"][0]["ScriptBootstrapAction"]["Path"] = {"Fn::Sub": "s3://${Code}/broken.sh"}
    kept = {"Cluster", "Profile", "NodeRole", "ServiceRole", "Encryption", "Data", *small_platform.network()}
    template["Resources"] = {name: it for name, it in template["Resources"].items() if name in kept}
    template["Resources"]["Cluster"]["DependsOn"].remove("DataPolicy")
    del template["Outputs"]
    told = r"The cluster j-\w+ did not start: On the master instance \(i-\w+\), bootstrap action 1 returned a non-zero "
    with pytest.raises(AssertionError, match=told) as raised:
        deploy(aws, "broken-node", template, Code="small-platform-code")
    clusters = aws("emr").list_clusters(ClusterStates=["TERMINATED_WITH_ERRORS"])["Clusters"]
    reasons = [found["Status"]["StateChangeReason"] for found in clusters]
    assert any(re.fullmatch(rf"{told.partition(': ')[2]}return code", one["Message"]) for one in reasons)
    printed = node.printed_by(cloud.place, str(raised.value))  # as `dml` says beside it
    assert re.fullmatch(r"It printed last: no such wheel \(log: .*/bootstrap-actions/1/stderr\)", printed)


def test_an_update_should_replace_a_cluster_only_where_emr_has_to(aws: Clients) -> None:
    roles = {
        name: it for name, it in small_platform.template()["Resources"].items() if name in ("ServiceRole", "Profile")
    }
    roles["NodeRole"] = {
        "Type": "AWS::IAM::Role",
        "Properties": {
            "AssumeRolePolicyDocument": {
                "Statement": [
                    {"Effect": "Allow", "Action": "sts:AssumeRole", "Principal": {"Service": "ec2.amazonaws.com"}}
                ]
            }
        },
    }
    properties: dict[str, Any] = {
        "Name": "one",
        "ServiceRole": {"Ref": "ServiceRole"},
        "JobFlowRole": {"Ref": "Profile"},
    }
    properties["Instances"] = {"TerminationProtected": True}
    template = {"Resources": {**roles, "Cluster": {"Type": "AWS::EMR::Cluster", "Properties": properties}}}
    template["Outputs"] = {"Cluster": {"Value": {"Ref": "Cluster"}}}
    first = deploy(aws, "replaced", template)["Cluster"]

    def update(**changed: Any) -> str:
        properties.update(changed)
        aws("cloudformation").update_stack(
            StackName="replaced", TemplateBody=json.dumps(template), Capabilities=["CAPABILITY_IAM"]
        )
        return settled(aws, "replaced", "UPDATE_COMPLETE")["Cluster"]

    assert update(Instances={"TerminationProtected": False}, StepConcurrencyLevel=2) == first
    second = update(Name="two")
    assert second != first
    states = {one["Id"]: one["Status"]["State"] for one in aws("emr").list_clusters()["Clusters"]}
    assert (states[first], states[second]) == ("TERMINATED", "WAITING")
    aws("cloudformation").delete_stack(StackName="replaced")


def test_deleting_a_stack_should_empty_its_bucket_of_every_version(aws: Clients) -> None:
    bucket = {"Type": "AWS::S3::Bucket", "Properties": {"VersioningConfiguration": {"Status": "Enabled"}}}
    emptier = {
        "Type": "Custom::S3AutoDeleteObjects",
        "Properties": {
            "ServiceToken": "arn:aws:lambda:us-east-1:000000000000:function:none",
            "BucketName": {"Ref": "Bucket"},
        },
    }
    template = {
        "Resources": {"Bucket": bucket, "Emptier": emptier},
        "Outputs": {"Bucket": {"Value": {"Ref": "Bucket"}}},
    }
    name = deploy(aws, "emptied", template)["Bucket"]
    for body in (b"1", b"2"):
        aws("s3").put_object(Bucket=name, Key="a/b", Body=body)
    aws("s3").delete_object(Bucket=name, Key="a/b")
    aws("cloudformation").delete_stack(StackName="emptied")
    aws("cloudformation").get_waiter("stack_delete_complete").wait(StackName="emptied", WaiterConfig={"Delay": 1})
    assert name not in [found["Name"] for found in aws("s3").list_buckets()["Buckets"]]


def test_a_condition_should_join_what_a_list_parameter_has(aws: Clients) -> None:
    """So the CDK's bootstrap stack asks whether it was given policies; it was not, and takes its own."""
    template = {
        "Parameters": {"Given": {"Type": "CommaDelimitedList", "Default": ""}},
        "Conditions": {"Any": {"Fn::Not": [{"Fn::Equals": ["", {"Fn::Join": ["", {"Ref": "Given"}]}]}]}},
        "Resources": {"Topic": {"Type": "AWS::SNS::Topic"}},
        "Outputs": {"Any": {"Value": {"Fn::If": ["Any", {"Fn::Join": ["+", {"Ref": "Given"}]}, "none"]}}},
    }
    assert deploy(aws, "joined-none", template)["Any"] == "none"
    assert deploy(aws, "joined-two", template, Given="a, b")["Any"] == "a+b"
    for stack in ("joined-none", "joined-two"):
        aws("cloudformation").delete_stack(StackName=stack)


def test_a_secret_should_go_by_its_arn_and_keep_what_was_generated_until_that_is_changed(aws: Clients) -> None:
    """As AWS::SecretsManager::Secret's reference says of Ref, and GetRandomPassword's of what is left out."""
    asked = {"SecretStringTemplate": '{"user": "analyst"}', "GenerateStringKey": "password", "PasswordLength": 40}

    def template(description: str, **more: Any) -> dict[str, Any]:
        properties = {"Description": description, "GenerateSecretString": {**asked, "ExcludePunctuation": True, **more}}
        secret = {"Type": "AWS::SecretsManager::Secret", "Properties": properties}
        return {"Resources": {"Login": secret}, "Outputs": {"Arn": {"Value": {"Ref": "Login"}}}}

    def told(arn: str) -> dict[str, str]:
        found: dict[str, str] = json.loads(secrets.get_secret_value(SecretId=arn)["SecretString"])
        return found

    def updated(**change: Any) -> str:
        body = json.dumps(template("anew", **change))
        aws("cloudformation").update_stack(StackName="with-a-secret", TemplateBody=body)
        return settled(aws, "with-a-secret", "UPDATE_COMPLETE")["Arn"]

    secrets = aws("secretsmanager")
    arn = deploy(aws, "with-a-secret", template("first"))["Arn"]
    first = told(arn)
    assert secrets.describe_secret(SecretId=arn)["ARN"] == arn
    assert first["user"] == "analyst"
    assert re.fullmatch(r"[A-Za-z0-9]{40}", first["password"])
    assert updated() == arn
    assert secrets.describe_secret(SecretId=arn)["Description"] == "anew"
    assert told(arn) == first
    assert updated(PasswordLength=20) == arn
    assert len(told(arn)["password"]) == 20
    aws("cloudformation").delete_stack(StackName="with-a-secret")
    with pytest.raises(secrets.exceptions.ResourceNotFoundException):
        until(lambda: secrets.describe_secret(SecretId=arn) and None)
