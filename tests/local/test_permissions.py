"""What a role may not do, it cannot: by its own policies, a bucket's, an endpoint's, a key's; and it is on record."""

import gzip
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from botocore.exceptions import ClientError

from dml.local.clients import client
from dml.local.cloud import Cloud
from tests.embedded import Clients
from tests.local.conftest import Machine, deploy, until
from tests.local.emulator import variables

EMR_TAG = {"Key": "for-use-with-amazon-emr-managed-policies", "Value": "true"}
SERVICE_POLICY = "arn:aws:iam::aws:policy/service-role/AmazonEMRServicePolicy_v2"
CODE = "small-platform-code"

Wear = Callable[[str, str], Any]


@pytest.fixture(scope="module")
def wear(aws: Clients, cloud: Cloud) -> Wear:
    """wear(role, service) is a boto3 client with the role's credentials."""

    def worn_by(role: str, service: str) -> Any:
        worn = aws("sts").assume_role(RoleArn=f"arn:aws:iam::000000000000:role/{role}", RoleSessionName="test")
        return client(cloud, service, variables(worn["Credentials"]))

    return worn_by


def calls(cloud: Cloud, role: str, **like: str) -> list[dict[str, Any]]:
    return [
        call
        for call in cloud.calls()["calls"]
        if call["principal"] == f"role/{role}" and like.items() <= {key: call[key] for key in like}.items()
    ]


def allow(aws: Clients, role: str, **document: Any) -> None:
    """Gives a role one statement more; its policy is called `more`."""
    statements = {"Statement": [{"Effect": "Allow", "Sid": "More", **document}]}
    aws("iam").put_role_policy(RoleName=role, PolicyName="more", PolicyDocument=json.dumps(statements))


# --- the record ---


def test_a_call_should_be_on_record_with_role_action_resource_and_statement(
    aws: Clients, cloud: Cloud, platform: dict[str, str], machine: Machine
) -> None:
    role, bucket = platform["MachineRole"], platform["Data"]
    aws("s3").delete_object(Bucket=bucket, Key="pointer/CURRENT.json")
    assert machine.run(do="put")["status"] == "SUCCEEDED"
    resource = f"arn:aws:s3:::{bucket}/pointer/CURRENT.json"
    (call,) = calls(cloud, role, action="s3:PutObject", resource=resource)
    assert call["decision"] == "Allow"
    assert call["statement"] == "all/s3:ListBucket,s3:GetObject,s3:PutObject,s3:DeleteObject"
    unused = {one["statement"] for one in cloud.calls()["unused"] if one["role"] == role}
    assert call["statement"] not in unused
    cloud.save()
    lines = [json.loads(line) for line in cloud.place.calls.read_text(encoding="utf-8").splitlines()]
    assert call in lines


def test_a_statement_should_count_as_unused_until_a_call_needs_it(
    aws: Clients, cloud: Cloud, platform: dict[str, str], wear: Wear
) -> None:
    role = platform["JobRole"]

    def unused() -> bool:
        return any(
            one["role"] == role and one["statement"] == "more/More" and one["actions"] == ["ssm:GetParameter"]
            for one in cloud.calls()["unused"]
        )

    aws("ssm").put_parameter(Name="/more", Value="yes", Type="String")
    allow(aws, role, Action="ssm:GetParameter", Resource="*")
    try:
        assert unused()
        wear(role, "ssm").get_parameter(Name="/more")
        assert not unused()
    finally:
        aws("iam").delete_role_policy(RoleName=role, PolicyName="more")


def test_a_denied_call_should_be_on_record_with_its_whole_resource(
    cloud: Cloud, platform: dict[str, str], wear: Wear
) -> None:
    resource = f"arn:aws:s3:::{platform['Data']}/not/for/this/role"
    with pytest.raises(ClientError, match="because no identity-based policy allows the s3:PutObject action"):
        wear(platform["JobRole"], "s3").put_object(Bucket=platform["Data"], Key="not/for/this/role", Body=b"")
    (call,) = calls(cloud, platform["JobRole"], resource=resource)
    assert (call["action"], call["decision"], call["count"]) == ("s3:PutObject", "ImplicitDeny", 1)


# --- policies of buckets ---


def test_a_bucket_policy_that_is_too_narrow_should_fail_the_crawl_and_say_so(
    aws: Clients, cloud: Cloud, platform: dict[str, str]
) -> None:
    bucket, s3, glue = platform["Data"], aws("s3"), aws("glue")
    kept = s3.get_bucket_policy(Bucket=bucket)["Policy"]
    deny = {
        "Effect": "Deny",
        "Principal": "*",
        "Action": "s3:GetObject",
        "Resource": f"arn:aws:s3:::{bucket}/raw/*",
        "Condition": {"ArnNotEquals": {"aws:PrincipalArn": "arn:aws:iam::000000000000:role/somebody-else"}},
    }
    s3.put_bucket_policy(Bucket=bucket, Policy=json.dumps({"Statement": [*json.loads(kept)["Statement"], deny]}))
    try:
        glue.start_crawler(Name=platform["Crawler"])
        crawler = until(
            lambda: (found := glue.get_crawler(Name=platform["Crawler"])["Crawler"])["State"] == "READY" and found
        )
    finally:
        s3.put_bucket_policy(Bucket=bucket, Policy=kept)
    assert crawler["LastCrawl"]["Status"] == "FAILED"
    assert "s3:GetObject" in crawler["LastCrawl"]["ErrorMessage"]
    assert "with an explicit deny in a resource-based policy" in crawler["LastCrawl"]["ErrorMessage"]
    assert calls(cloud, platform["CrawlerRole"], action="s3:GetObject", decision="Deny")


def test_who_may_not_list_a_bucket_should_get_403_for_a_key_that_is_not_there(
    aws: Clients, platform: dict[str, str], wear: Wear
) -> None:
    role = "reader-of-one-key"
    trust = {
        "Statement": [{"Effect": "Allow", "Action": "sts:AssumeRole", "Principal": {"Service": "glue.amazonaws.com"}}]
    }
    aws("iam").create_role(RoleName=role, AssumeRolePolicyDocument=json.dumps(trust))
    bucket = platform["Data"]
    allow(aws, role, Action="s3:GetObject", Resource=f"arn:aws:s3:::{bucket}/*")
    with pytest.raises(ClientError, match="s3:ListBucket") as refused:
        wear(role, "s3").get_object(Bucket=bucket, Key="nothing")
    assert refused.value.response["ResponseMetadata"]["HTTPStatusCode"] == 403
    allow(aws, role, Action=["s3:GetObject", "s3:ListBucket"], Resource=f"arn:aws:s3:::{bucket}*")
    with pytest.raises(aws("s3").exceptions.NoSuchKey.__base__, match="NoSuchKey"):
        wear(role, "s3").get_object(Bucket=bucket, Key="nothing")


# --- KMS ---


def key_with(aws: Clients, *statements: dict[str, Any]) -> str:
    administrators = {"Effect": "Allow", "Principal": {"AWS": "*"}, "Action": "kms:*", "Resource": "*"}
    administrators["Condition"] = {"ArnEquals": {"aws:PrincipalArn": "arn:aws:iam::000000000000:root"}}
    policy = {"Statement": [administrators, *statements]}
    arn: str = aws("kms").create_key(Policy=json.dumps(policy))["KeyMetadata"]["Arn"]
    return arn


DELEGATES = {
    "Effect": "Allow",
    "Principal": {"AWS": "arn:aws:iam::000000000000:root"},
    "Action": "kms:*",
    "Resource": "*",
}


@contextmanager
def encrypted(aws: Clients, bucket: str, key: str) -> Iterator[None]:
    """New objects of the bucket are encrypted with the key."""
    rule = {"ApplyServerSideEncryptionByDefault": {"SSEAlgorithm": "aws:kms", "KMSMasterKeyID": key}}
    aws("s3").put_bucket_encryption(
        Bucket=bucket, ServerSideEncryptionConfiguration={"Rules": [{**rule, "BucketKeyEnabled": True}]}
    )
    try:
        yield
    finally:
        aws("s3").delete_bucket_encryption(Bucket=bucket)


def test_an_encrypted_bucket_should_want_the_key_of_whoever_writes_and_reads(
    aws: Clients, platform: dict[str, str], wear: Wear
) -> None:
    role, bucket = platform["JobRole"], platform["Data"]
    key = key_with(aws, DELEGATES)
    s3, name = wear(role, "s3"), {"Bucket": bucket, "Key": "lake/secret"}
    with encrypted(aws, bucket, key):
        with pytest.raises(ClientError, match=r"kms:GenerateDataKey on resource: \S+ because no identity-based policy"):
            s3.put_object(**name, Body=b"1")
        through_s3 = {"StringEquals": {"kms:ViaService": "s3.us-east-1.amazonaws.com"}}
        allow(aws, role, Action="kms:GenerateDataKey", Resource=key, Condition=through_s3)
        try:
            s3.put_object(**name, Body=b"1")
            with pytest.raises(ClientError, match=r"kms:Decrypt on resource: \S+ because no identity-based policy"):
                s3.get_object(**name)
            allow(aws, role, Action=["kms:GenerateDataKey", "kms:Decrypt"], Resource=key, Condition=through_s3)
            assert s3.get_object(**name)["Body"].read() == b"1"
            with pytest.raises(ClientError, match="kms:Decrypt"):  # not by itself: only through S3
                wear(role, "kms").decrypt(
                    KeyId=key, CiphertextBlob=aws("kms").encrypt(KeyId=key, Plaintext=b"1")["CiphertextBlob"]
                )
        finally:
            aws("iam").delete_role_policy(RoleName=role, PolicyName="more")


def test_a_secret_should_want_the_right_to_it_and_to_its_key(
    aws: Clients, platform: dict[str, str], wear: Wear
) -> None:
    role, key = platform["JobRole"], key_with(aws, DELEGATES)
    secret = aws("secretsmanager").create_secret(Name="small-login", SecretString="{}", KmsKeyId=key)["ARN"]
    read = wear(role, "secretsmanager").get_secret_value
    through = {"StringEquals": {"kms:ViaService": "secretsmanager.us-east-1.amazonaws.com"}}
    may = {"Effect": "Allow", "Action": "secretsmanager:GetSecretValue", "Resource": secret}
    decrypt = {"Effect": "Allow", "Action": "kms:Decrypt", "Resource": key, "Condition": through}
    try:
        with pytest.raises(ClientError, match=r"secretsmanager:GetSecretValue on resource: \S+ because no"):
            read(SecretId=secret)
        for rights, refused in (([may], "kms:Decrypt"), ([may, decrypt], "")):
            document = json.dumps({"Statement": rights})
            aws("iam").put_role_policy(RoleName=role, PolicyName="more", PolicyDocument=document)
            if refused:
                with pytest.raises(ClientError, match=rf"{refused} on resource: \S+ because no identity-based policy"):
                    read(SecretId=secret)
            else:
                assert read(SecretId=secret)["SecretString"] == "{}"
    finally:
        aws("iam").delete_role_policy(RoleName=role, PolicyName="more")
        aws("secretsmanager").delete_secret(SecretId=secret, ForceDeleteWithoutRecovery=True)


def test_a_key_policy_that_is_too_narrow_should_stop_a_role_that_may_use_the_key(
    aws: Clients, platform: dict[str, str], wear: Wear
) -> None:
    role, bucket = platform["JobRole"], platform["Data"]
    key = key_with(aws)
    s3, name = wear(role, "s3"), {"Bucket": bucket, "Key": "lake/secret"}
    allow(aws, role, Action="kms:*", Resource=key)
    try:
        with encrypted(aws, bucket, key):
            with pytest.raises(ClientError, match=r"kms:GenerateDataKey on resource: \S+ because no resource-based"):
                s3.put_object(**name, Body=b"1")
            grantee = f"arn:aws:iam::000000000000:role/{role}"
            aws("kms").create_grant(KeyId=key, GranteePrincipal=grantee, Operations=["GenerateDataKey"])
            s3.put_object(**name, Body=b"1")
            with pytest.raises(ClientError, match="kms:Decrypt"):
                s3.get_object(**name)
    finally:
        aws("iam").delete_role_policy(RoleName=role, PolicyName="more")


def test_a_bucket_should_encrypt_by_default_as_its_template_says(aws: Clients) -> None:
    key = key_with(aws, DELEGATES)
    default = {"SSEAlgorithm": "aws:kms", "KMSMasterKeyID": key}
    rules = [{"ServerSideEncryptionByDefault": default, "BucketKeyEnabled": True}]
    bucket = {
        "Type": "AWS::S3::Bucket",
        "Properties": {"BucketEncryption": {"ServerSideEncryptionConfiguration": rules}},
    }
    outputs = {"Name": {"Value": {"Ref": "Bucket"}}}
    name = deploy(aws, "encrypted", {"Resources": {"Bucket": bucket}, "Outputs": outputs})["Name"]
    aws("s3").put_object(Bucket=name, Key="a", Body=b"1")
    head = aws("s3").head_object(Bucket=name, Key="a")
    assert (head["ServerSideEncryption"], head["SSEKMSKeyId"]) == ("aws:kms", key)
    told = aws("s3").get_bucket_encryption(Bucket=name)["ServerSideEncryptionConfiguration"]["Rules"]
    assert told == [{"ApplyServerSideEncryptionByDefault": default, "BucketKeyEnabled": True}]
    aws("s3").delete_object(Bucket=name, Key="a")
    aws("cloudformation").delete_stack(StackName="encrypted")


def test_a_log_group_should_be_refused_whose_key_does_not_know_cloudwatch_logs(aws: Clients) -> None:
    key = key_with(aws, DELEGATES)
    group = {"Type": "AWS::Logs::LogGroup", "Properties": {"LogGroupName": "/closed", "KmsKeyId": key}}
    with pytest.raises(
        AssertionError, match=r"not allowed to be used with LogGroup 'arn:aws:logs:us-east-1:\d+:log-group:/closed'"
    ):
        deploy(aws, "closed-logs", {"Resources": {"Group": group}})
    logs = {
        "Effect": "Allow",
        "Principal": {"Service": "logs.us-east-1.amazonaws.com"},
        "Action": ["kms:Encrypt*", "kms:Decrypt*", "kms:GenerateDataKey*"],
        "Resource": "*",
        "Condition": {"ArnLike": {"kms:EncryptionContext:aws:logs:arn": "arn:aws:logs:us-east-1:000000000000:*"}},
    }
    group["Properties"] |= {"KmsKeyId": key_with(aws, DELEGATES, logs)}
    deploy(aws, "open-logs", {"Resources": {"Group": group}})
    aws("cloudformation").delete_stack(StackName="open-logs")


def test_a_rule_should_not_reach_a_topic_whose_key_knows_eventbridge_by_the_account_only(aws: Clients) -> None:
    """SNS guide, "Key management": aws:SourceAccount is not supported for EventBridge."""
    use = {
        "Effect": "Allow",
        "Principal": {"Service": "events.amazonaws.com"},
        "Action": ["kms:GenerateDataKey", "kms:Decrypt"],
        "Resource": "*",
    }
    condition = {"Condition": {"StringEquals": {"aws:SourceAccount": "000000000000"}}}
    queue = aws("sqs").create_queue(QueueName="told")["QueueUrl"]
    told = aws("sqs").get_queue_attributes(QueueUrl=queue, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
    send = {"Effect": "Allow", "Principal": "*", "Action": "sqs:SendMessage", "Resource": told}
    policy = json.dumps({"Version": "2012-10-17", "Statement": [send]})
    aws("sqs").set_queue_attributes(QueueUrl=queue, Attributes={"Policy": policy})
    for name, statement in (("shut", use | condition), ("open", use)):
        topic = aws("sns").create_topic(
            Name=f"rules-{name}", Attributes={"KmsMasterKeyId": key_with(aws, DELEGATES, statement)}
        )["TopicArn"]
        aws("sns").subscribe(TopicArn=topic, Protocol="sqs", Endpoint=told)
        aws("events").put_rule(Name=f"to-{name}", EventPattern=json.dumps({"source": [f"test.{name}"]}))
        aws("events").put_targets(Rule=f"to-{name}", Targets=[{"Id": "topic", "Arn": topic}])
        aws("events").put_events(Entries=[{"Source": f"test.{name}", "DetailType": "t", "Detail": "{}"}])
    received = until(lambda: aws("sqs").receive_message(QueueUrl=queue, MaxNumberOfMessages=10).get("Messages"))
    assert ["test.open" in message["Body"] for message in received] == [True]


@pytest.fixture
def security(aws: Clients) -> Iterator[str]:
    """A security configuration of Glue that encrypts nothing."""
    aws("glue").create_security_configuration(Name="plain", EncryptionConfiguration={})
    yield "plain"
    aws("glue").delete_security_configuration(Name="plain")


def test_a_job_and_a_crawler_should_need_the_right_to_read_their_security_configuration(
    aws: Clients, platform: dict[str, str], security: str
) -> None:
    glue = aws("glue")
    job = glue.get_job(JobName=platform["Job"])["Job"]
    crawler = glue.get_crawler(Name=platform["Crawler"])["Crawler"]
    command = {"Name": "glueetl", "ScriptLocation": job["Command"]["ScriptLocation"]}
    glue.create_job(Name="secured", Role=job["Role"], Command=command, SecurityConfiguration=security)
    glue.create_crawler(
        Name="secured",
        Role=crawler["Role"],
        DatabaseName="small",
        Targets=crawler["Targets"],
        CrawlerSecurityConfiguration=security,
    )
    try:
        started = glue.start_job_run(JobName="secured")["JobRunId"]
        glue.start_crawler(Name="secured")

        def run() -> Any:
            found = glue.get_job_run(JobName="secured", RunId=started)["JobRun"]
            return found if found["JobRunState"] == "FAILED" else None

        said = until(run)["ErrorMessage"]
        assert "is not authorized to perform: glue:GetSecurityConfiguration" in said
        crawl = until(lambda: glue.get_crawler(Name="secured")["Crawler"].get("LastCrawl"))
        assert crawl["Status"] == "FAILED"
        assert "is not authorized to perform: glue:GetSecurityConfiguration" in crawl["ErrorMessage"]
    finally:
        until(lambda: glue.get_crawler(Name="secured")["Crawler"]["State"] == "READY")
        glue.delete_job(JobName="secured")
        glue.delete_crawler(Name="secured")


# --- clusters and their network ---


@pytest.fixture
def cluster(aws: Clients, platform: dict[str, str]) -> Iterator[Callable[..., dict[str, Any]]]:
    """cluster(**request) starts one in the small platform's subnet and returns its status once it is up, or not."""
    emr, made = aws("emr"), []
    profiles = aws("iam").list_instance_profiles()["InstanceProfiles"]
    (profile,) = (one for one in profiles if one["Roles"] and one["Roles"][0]["RoleName"] == platform["NodeRole"])

    def start(**request: Any) -> dict[str, Any]:
        group = platform["Nodes"]
        given = {
            "Name": "permitted",
            "ServiceRole": platform["ServiceRole"],
            "JobFlowRole": profile["InstanceProfileName"],
            "Instances": {
                "KeepJobFlowAliveWhenNoSteps": True,
                "Ec2SubnetId": platform["Subnet"],
                "EmrManagedMasterSecurityGroup": group,
                "EmrManagedSlaveSecurityGroup": group,
            },
        }
        made.append(emr.run_job_flow(**given | request)["JobFlowId"])

        def settled() -> Any:
            found = emr.describe_cluster(ClusterId=made[-1])["Cluster"]
            return found if found["Status"]["State"] not in ("STARTING", "BOOTSTRAPPING") else None

        found: dict[str, Any] = until(settled)
        return found

    yield start
    emr.terminate_job_flows(JobFlowIds=made)


def bootstrap(aws: Clients, script: str) -> list[dict[str, Any]]:
    aws("s3").put_object(Bucket=CODE, Key="own.sh", Body=f"#!/bin/bash\nset -eu\n{script}\n".encode())
    return [{"Name": "own", "ScriptBootstrapAction": {"Path": f"s3://{CODE}/own.sh"}}]


def test_emr_should_need_the_tag_on_the_network_and_the_right_to_pass_the_nodes_role(
    aws: Clients, platform: dict[str, str], cluster: Callable[..., dict[str, Any]]
) -> None:
    iam, ec2, role = aws("iam"), aws("ec2"), "service-role-v2"
    trust = {"Effect": "Allow", "Action": "sts:AssumeRole", "Principal": {"Service": "elasticmapreduce.amazonaws.com"}}
    iam.create_role(RoleName=role, AssumeRolePolicyDocument=json.dumps({"Statement": [trust]}))
    iam.attach_role_policy(RoleName=role, PolicyArn=SERVICE_POLICY)

    def message(**request: Any) -> str:
        status = cluster(ServiceRole=role, **request)["Status"]
        assert status["State"] == "TERMINATED_WITH_ERRORS"
        assert status["StateChangeReason"]["Code"] == "VALIDATION_ERROR"
        return str(status["StateChangeReason"]["Message"])

    untagged = message(Tags=[EMR_TAG])
    assert untagged.startswith(f"Service role arn:aws:iam::000000000000:role/{role} has insufficient EC2 permissions")
    assert f"ec2:RunInstances on resource: arn:aws:ec2:us-east-1:000000000000:subnet/{platform['Subnet']}" in untagged
    network = [platform["Subnet"], platform["Nodes"]]
    ec2.create_tags(Resources=network, Tags=[EMR_TAG])
    try:
        assert "ec2:RunInstances on resource: arn:aws:ec2:us-east-1:000000000000:instance/*" in message()
        assert f"iam:PassRole on resource: arn:aws:iam::000000000000:role/{platform['NodeRole']}" in message(
            Tags=[EMR_TAG]
        )
        arn = f"arn:aws:iam::000000000000:role/{platform['NodeRole']}"
        allow(aws, role, Action="iam:PassRole", Resource=arn)
        assert cluster(ServiceRole=role, Tags=[EMR_TAG])["Status"]["State"] == "WAITING"
    finally:
        ec2.delete_tags(Resources=network, Tags=[EMR_TAG])


def test_a_cluster_should_not_come_up_whose_service_role_may_not_lend_the_disk_key(
    aws: Clients, platform: dict[str, str], cluster: Callable[..., dict[str, Any]]
) -> None:
    key = key_with(aws, DELEGATES)
    local = {"EncryptionKeyProviderType": "AwsKms", "AwsKmsKey": key, "EnableEbsEncryption": True}
    encryption = {
        "EnableAtRestEncryption": True,
        "EnableInTransitEncryption": False,
        "AtRestEncryptionConfiguration": {"LocalDiskEncryptionConfiguration": local},
    }
    configuration = {"SecurityConfiguration": {"EncryptionConfiguration": encryption}}
    security = {"Type": "AWS::EMR::SecurityConfiguration", "Properties": configuration}
    outputs = {"Name": {"Value": {"Ref": "Security"}}}
    name = deploy(aws, "disk-key", {"Resources": {"Security": security}, "Outputs": outputs})["Name"]
    role = platform["ServiceRole"]
    allow(aws, role, Action=["kms:DescribeKey", "kms:GenerateDataKeyWithoutPlaintext"], Resource=key)
    try:
        refused = cluster(SecurityConfiguration=name)["Status"]
        assert refused["State"] == "TERMINATED_WITH_ERRORS"
        assert f"kms:CreateGrant on resource: {key}" in refused["StateChangeReason"]["Message"]
        allow(aws, role, Action="kms:*", Resource=key, Condition={"Bool": {"kms:GrantIsForAWSResource": "true"}})
        assert "kms:DescribeKey" in cluster(SecurityConfiguration=name)["Status"]["StateChangeReason"]["Message"]
        allow(aws, role, Action="kms:*", Resource=key)
        assert cluster(SecurityConfiguration=name)["Status"]["State"] == "WAITING"
    finally:
        aws("iam").delete_role_policy(RoleName=role, PolicyName="more")
        aws("cloudformation").delete_stack(StackName="disk-key")


def test_a_trust_policy_should_be_held_to_its_conditions(
    aws: Clients, platform: dict[str, str], cluster: Callable[..., dict[str, Any]]
) -> None:
    def trusting(account: str, region: str) -> str:
        role = f"trusting-{account}-{region}"
        source = f"arn:aws:elasticmapreduce:{region}:{account}:*"
        trust = {
            "Effect": "Allow",
            "Action": "sts:AssumeRole",
            "Principal": {"Service": "elasticmapreduce.amazonaws.com"},
            "Condition": {"StringEquals": {"aws:SourceAccount": account}, "ArnLike": {"aws:SourceArn": source}},
        }
        aws("iam").create_role(RoleName=role, AssumeRolePolicyDocument=json.dumps({"Statement": [trust]}))
        allow(aws, role, Action=["ec2:*", "iam:PassRole"], Resource="*")
        return role

    for stranger in (trusting("111111111111", "us-east-1"), trusting("000000000000", "eu-west-1")):
        status = cluster(ServiceRole=stranger)["Status"]
        assert status["State"] == "TERMINATED_WITH_ERRORS"
        assert "trust policy has conditions that do not hold" in status["StateChangeReason"]["Message"]
    assert cluster(ServiceRole=trusting("000000000000", "us-east-1"))["Status"]["State"] == "WAITING"


def test_an_endpoint_policy_that_is_too_narrow_should_keep_a_node_from_its_bucket(
    aws: Clients, cloud: Cloud, platform: dict[str, str], cluster: Callable[..., dict[str, Any]]
) -> None:
    ec2, endpoint = aws("ec2"), platform["Endpoint"]
    everything = {"Effect": "Allow", "Principal": "*", "Action": "s3:*", "Resource": "*"}

    def only(*buckets: str) -> None:
        arns = [f"arn:aws:s3:::{bucket}{rest}" for bucket in buckets for rest in ("", "/*")]
        policy = {"Statement": [{**everything, "Resource": arns or "*"}]}
        ec2.modify_vpc_endpoint(VpcEndpointId=endpoint, PolicyDocument=json.dumps(policy))

    actions = bootstrap(aws, "true")
    try:
        only(platform["Data"])
        status = cluster(BootstrapActions=actions)["Status"]
        assert status["State"] == "TERMINATED_WITH_ERRORS"
        assert "because no VPC endpoint policy allows the s3:GetObject action" in status["StateChangeReason"]["Message"]
        assert calls(cloud, platform["NodeRole"], action="s3:GetObject", decision="ImplicitDeny")
        only(platform["Data"], CODE)
        assert cluster(BootstrapActions=actions)["Status"]["State"] == "WAITING"
    finally:
        only()


def test_a_subnet_without_a_way_to_a_service_should_be_told_apart_from_a_missing_permission(
    aws: Clients, cloud: Cloud, platform: dict[str, str], cluster: Callable[..., dict[str, Any]]
) -> None:
    ec2 = aws("ec2")
    filters = [{"Name": "association.subnet-id", "Values": [platform["Subnet"]]}]
    table = ec2.describe_route_tables(Filters=filters)["RouteTables"][0]["RouteTableId"]
    aws("ssm").put_parameter(Name="/reached", Value="yes", Type="String", Overwrite=True)
    allow(aws, platform["NodeRole"], Action="ssm:GetParameter", Resource="*")
    actions = bootstrap(aws, "aws ssm get-parameter --name /reached")
    ec2.delete_route(RouteTableId=table, DestinationCidrBlock="0.0.0.0/0")
    try:
        ended = cluster(BootstrapActions=actions)
        assert "bootstrap action 1 returned a non-zero" in ended["Status"]["StateChangeReason"]["Message"]
        node = cloud.place.logs / "emr" / ended["Id"] / "node" / f"i-{ended['Id'][2:]}"
        printed = (node / "bootstrap-actions" / "1" / "stderr").read_text()
        assert "there is no way to ssm, neither NAT nor a VPC endpoint" in printed
        assert calls(cloud, platform["NodeRole"], action="ssm:GetParameter", decision="Unreachable")
    finally:
        ec2.create_route(RouteTableId=table, DestinationCidrBlock="0.0.0.0/0", NatGatewayId=platform["Nat"])
    try:
        assert cluster(BootstrapActions=actions)["Status"]["State"] == "WAITING"
    finally:
        aws("iam").delete_role_policy(RoleName=platform["NodeRole"], PolicyName="more")


def test_logs_should_be_archived_with_the_nodes_role_or_be_missing_and_on_record(
    aws: Clients, cloud: Cloud, platform: dict[str, str], cluster: Callable[..., dict[str, Any]]
) -> None:
    actions, bucket = bootstrap(aws, "echo this node is ready"), platform["Data"]
    made = cluster(BootstrapActions=actions, LogUri=f"s3://{bucket}/lake/emr/")
    key = f"lake/emr/{made['Id']}/node/i-{made['Id'][2:]}/bootstrap-actions/1/stdout.gz"
    assert b"this node is ready" in gzip.decompress(aws("s3").get_object(Bucket=bucket, Key=key)["Body"].read())
    made = cluster(BootstrapActions=actions, LogUri=f"s3://{bucket}/elsewhere/")
    assert made["Status"]["State"] == "WAITING"
    denied = calls(cloud, platform["NodeRole"], action="s3:PutObject", decision="ImplicitDeny")
    assert any(call["resource"].startswith(f"arn:aws:s3:::{bucket}/elsewhere/{made['Id']}") for call in denied)


# --- Step Functions ---


def test_a_state_machine_should_be_refused_whose_role_may_not_make_its_managed_rule(aws: Clients) -> None:
    task = {"Type": "Task", "Resource": "arn:aws:states:::elasticmapreduce:addStep.sync", "End": True}
    definition = {"StartAt": "map", "States": {"map": {"Type": "Map", "End": True}}}
    definition["States"]["map"]["ItemProcessor"] = {"StartAt": "step", "States": {"step": task}}  # type: ignore[index]
    trust = {"Effect": "Allow", "Action": "sts:AssumeRole", "Principal": {"Service": "states.amazonaws.com"}}
    rules = "arn:aws:events:us-east-1:000000000000:rule/StepFunctionsGetEventForEMRAddJobFlowStepsRule"
    allowed = {"Effect": "Allow", "Action": ["events:PutRule", "events:PutTargets"], "Resource": rules}
    role: dict[str, Any] = {
        "Type": "AWS::IAM::Role",
        "Properties": {
            "AssumeRolePolicyDocument": {"Statement": [trust]},
            "Policies": [{"PolicyName": "rules", "PolicyDocument": {"Statement": [allowed]}}],
        },
    }
    machine = {
        "Type": "AWS::StepFunctions::StateMachine",
        "Properties": {"RoleArn": {"Fn::GetAtt": ["Role", "Arn"]}, "DefinitionString": json.dumps(definition)},
    }
    template = {"Resources": {"Role": role, "Machine": machine}}
    with pytest.raises(AssertionError, match=r"is not authorized to create managed-rule.*events:DescribeRule"):
        deploy(aws, "no-rule", template)
    allowed["Action"] = ["events:PutRule", "events:PutTargets", "events:DescribeRule"]
    deploy(aws, "with-rule", template)
    aws("cloudformation").delete_stack(StackName="with-rule")
