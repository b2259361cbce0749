"""A platform in one hand-made template: what the embedded cloud must be able to deploy and run, and not a line more."""

import json
from typing import Any

PREPARE = """
import sys
from pyspark.sql import SparkSession

arguments = dict(zip(sys.argv[1::2], sys.argv[2::2]))
if arguments["--mode"] == "fail":
    raise ValueError("the label column is empty")
spark = SparkSession.builder.getOrCreate()
if arguments["--mode"] in ("hang", "listen"):
    import json
    import time
    if arguments["--mode"] == "listen":
        context = spark.sparkContext
        done = context.accumulator(0)
        context.parallelize([1]).foreach(lambda _: done.add(1))
        context.addFile(__file__)
        ports = {
            "driver RPC of Spark": int(context.getConf().get("spark.driver.port")),
            "block manager of Spark": context._jsc.sc().env().blockManager().blockManagerId().port(),
            "py4j": context._gateway.gateway_parameters.port,
            "accumulators of PySpark": context._accumulatorServer.server_address[1],
        }
        print("listening", json.dumps(ports), flush=True)
    print("hanging", flush=True)
    while True:
        time.sleep(1)
rows = spark.read.csv(arguments["--from"], header=True)
rows.write.mode("overwrite").json(arguments["--to"])
"""
BOOTSTRAP = """#!/bin/bash
set -euo pipefail
echo "node of $AWS_REGION"
echo environment: $(compgen -e)
echo "home: $HOME"
sudo dnf install -y python3.11
sudo mkdir -p "$DML_HOME/made"
python3.11 -c 'import json, os; assert json.load(open(os.environ["DML_INSTANCE_INFO"]))["isMaster"]'
aws s3 cp "$1" "$DML_HOME/made/settings" --quiet
cat "$DML_HOME/made/settings"
"""


def template() -> dict[str, Any]:
    """Buckets, roles, crawler, job, state machine, network and cluster."""
    resources: dict[str, Any] = {
        "Data": _bucket(),
        "DataPolicy": {
            "Type": "AWS::S3::BucketPolicy",
            "Properties": {
                "Bucket": {"Ref": "Data"},
                "PolicyDocument": {
                    "Statement": [
                        {
                            "Effect": "Deny",
                            "Principal": {"AWS": "*"},
                            "Action": "s3:*",
                            "Resource": [_arn("Data"), _arn("Data", "/*")],
                            "Condition": {"Bool": {"aws:SecureTransport": "false"}},
                        }
                    ]
                },
            },
        },
        "Database": {
            "Type": "AWS::Glue::Database",
            "Properties": {"CatalogId": {"Ref": "AWS::AccountId"}, "DatabaseInput": {"Name": "small"}},
        },
        "WithHeader": {
            "Type": "AWS::Glue::Classifier",
            "Properties": {
                "CsvClassifier": {
                    "Name": "with-header",
                    "ContainsHeader": "PRESENT",
                    "Delimiter": ",",
                    "QuoteSymbol": '"',
                }
            },
        },
        "CrawlerRole": _role("glue", _data("raw"), _catalog()),
        "Crawler": {
            "Type": "AWS::Glue::Crawler",
            "Properties": {
                "Role": {"Fn::GetAtt": ["CrawlerRole", "Arn"]},
                "DatabaseName": {"Ref": "Database"},
                "Classifiers": [{"Ref": "WithHeader"}],
                "Targets": {"S3Targets": [{"Path": {"Fn::Sub": "s3://${Data}/raw/"}}]},
                "SchemaChangePolicy": {"UpdateBehavior": "UPDATE_IN_DATABASE", "DeleteBehavior": "LOG"},
            },
        },
        "JobRole": _role("glue", _code(), _data("raw"), _data("lake", *WRITE)),
        "Job": {
            "Type": "AWS::Glue::Job",
            "Properties": {
                "Role": {"Fn::GetAtt": ["JobRole", "Arn"]},
                "GlueVersion": "5.1",
                "WorkerType": "G.1X",
                "NumberOfWorkers": 2,
                "ExecutionProperty": {"MaxConcurrentRuns": 1},
                "Command": {"Name": "glueetl", "ScriptLocation": {"Fn::Sub": "s3://${Code}/prepare.py"}},
                "DefaultArguments": {
                    "--enable-metrics": "true",
                    "--from": {"Fn::Sub": "s3://${Data}/raw/people/"},
                    "--to": {"Fn::Sub": "s3://${Data}/lake/people/"},
                },
            },
        },
        **network(),
        "ServiceRole": _role(
            "elasticmapreduce",
            _allow(["ec2:Describe*", "ec2:RunInstances", "ec2:CreateFleet", "ec2:CreateLaunchTemplate"], "*"),
            _allow(["ec2:CreateTags", "ec2:TerminateInstances"], "*"),
            _allow(["iam:PassRole"], {"Fn::GetAtt": ["NodeRole", "Arn"]}),
        ),
        "NodeRole": _role("ec2", _code(), _data("raw"), _data("lake", *WRITE), _data("emr", *WRITE)),
        "Profile": {"Type": "AWS::IAM::InstanceProfile", "Properties": {"Roles": [{"Ref": "NodeRole"}]}},
        "Encryption": {
            "Type": "AWS::EMR::SecurityConfiguration",
            "Properties": {"SecurityConfiguration": {"EncryptionConfiguration": {"EnableAtRestEncryption": False}}},
        },
        "Cluster": _cluster(),
        "MachineRole": _role(
            "states",
            _allow(["glue:StartJobRun", "glue:GetJobRun", "glue:BatchStopJobRun"], {"Fn::Sub": _JOB_ARN}),
            _allow(
                ["elasticmapreduce:AddJobFlowSteps", "elasticmapreduce:DescribeStep", "elasticmapreduce:CancelSteps"],
                {"Fn::Sub": "arn:aws:elasticmapreduce:${AWS::Region}:${AWS::AccountId}:cluster/${Cluster}"},
            ),
            _allow(
                ["events:PutTargets", "events:PutRule", "events:DescribeRule"],
                {"Fn::Sub": "arn:aws:events:${AWS::Region}:${AWS::AccountId}:rule/StepFunctionsGetEventForEMR*"},
            ),
            _data("pointer", *WRITE),
        ),
        "Machine": {
            "Type": "AWS::StepFunctions::StateMachine",
            "Properties": {
                "RoleArn": {"Fn::GetAtt": ["MachineRole", "Arn"]},
                "DefinitionString": {"Fn::Sub": json.dumps(definition())},
            },
        },
    }
    outputs = {
        name: {"Value": {"Ref": name}} for name in ("Data", "Cluster", "Machine", "Job", "Crawler", "MachineRole")
    }
    roles = ("JobRole", "NodeRole", "ServiceRole", "CrawlerRole")
    outputs |= {name: {"Value": {"Ref": name}} for name in (*roles, "Nat", "Encryption", "Subnet", "Endpoint")}
    outputs["VpcRange"] = {"Value": {"Fn::GetAtt": ["Network", "CidrBlock"]}}
    outputs["SubnetRange"] = {"Value": {"Fn::GetAtt": ["Subnet", "CidrBlock"]}}
    outputs["Nodes"] = {"Value": {"Ref": "Nodes"}}
    return {"Parameters": {"Code": {"Type": "String"}}, "Resources": resources, "Outputs": outputs}


def definition() -> dict[str, Any]:
    """`do` in the input says what to run: job, step, put, sleep."""
    choices = [
        {"Condition": "{% $states.input.do = '" + name + "' %}", "Next": name}
        for name in ("job", "step", "put", "sleep")
    ]
    script = ["spark-submit", "--deploy-mode", "cluster", "s3://${Code}/prepare.py"]
    paths = ["--from", "s3://${Data}/raw/people/", "--to", "s3://${Data}/lake/people_by_step/"]
    return {
        "QueryLanguage": "JSONata",
        "StartAt": "choose",
        "TimeoutSeconds": 120,
        "States": {
            "choose": {"Type": "Choice", "Choices": choices, "Default": "sleep"},
            "job": {
                "Type": "Task",
                "Resource": "arn:aws:states:::glue:startJobRun.sync",
                "Arguments": {"JobName": "${Job}", "Arguments": {"--mode": "{% $states.input.mode %}"}},
                "End": True,
            },
            "step": {
                "Type": "Task",
                "Resource": "arn:aws:states:::elasticmapreduce:addStep.sync",
                "Arguments": {
                    "ClusterId": "${Cluster}",
                    "Step": {
                        "Name": "prepare",
                        "ActionOnFailure": "CONTINUE",
                        "HadoopJarStep": {
                            "Jar": "command-runner.jar",
                            "Args": [*script, "--mode", "{% $states.input.mode %}", *paths],
                        },
                    },
                },
                "End": True,
            },
            "put": {
                "Type": "Task",
                "Resource": "arn:aws:states:::aws-sdk:s3:putObject",
                "Arguments": {
                    "Bucket": "${Data}",
                    "Key": "pointer/CURRENT.json",
                    "Body": {"run": "{% $states.context.Execution.Name %}"},
                    "IfNoneMatch": "*",
                },
                "Catch": [{"ErrorEquals": ["S3.S3Exception"], "Next": "lost", "Output": "{% $states.errorOutput %}"}],
                "End": True,
            },
            "lost": {"Type": "Fail", "Error": "Lost", "Cause": "{% $states.input.Cause %}"},
            "sleep": {"Type": "Wait", "Seconds": 100000, "End": True},
        },
    }


WRITE = ("s3:PutObject", "s3:DeleteObject")
_JOB_ARN = "arn:aws:glue:${AWS::Region}:${AWS::AccountId}:job/${Job}"


def _cluster() -> dict[str, Any]:
    fleet = {"InstanceTypeConfigs": [{"InstanceType": "m7g.xlarge"}], "TargetOnDemandCapacity": 1}
    return {
        "Type": "AWS::EMR::Cluster",
        "DependsOn": ["DataPolicy", "ByNat", "SubnetOutward", "Endpoint"],
        "Properties": {
            "Name": "small",
            "ReleaseLabel": "emr-7.13.0",
            "ServiceRole": {"Ref": "ServiceRole"},
            "JobFlowRole": {"Ref": "Profile"},
            "LogUri": {"Fn::Sub": "s3://${Data}/emr/"},
            "SecurityConfiguration": {"Ref": "Encryption"},
            "Applications": [{"Name": "Spark"}],
            "Configurations": [
                {
                    "Classification": "spark-env",
                    "ConfigurationProperties": {},
                    "Configurations": [{"Classification": "export", "ConfigurationProperties": {"A": "b"}}],
                }
            ],
            "BootstrapActions": [
                {
                    "Name": "prepare the node",
                    "ScriptBootstrapAction": {
                        "Path": {"Fn::Sub": "s3://${Code}/bootstrap.sh"},
                        "Args": [{"Fn::Sub": "s3://${Code}/settings.json"}],
                    },
                }
            ],
            "Instances": {
                "Ec2SubnetId": {"Ref": "Subnet"},
                "EmrManagedMasterSecurityGroup": {"Ref": "Nodes"},
                "EmrManagedSlaveSecurityGroup": {"Ref": "Nodes"},
                "MasterInstanceFleet": fleet,
                "CoreInstanceFleet": fleet,
            },
        },
    }


def network() -> dict[str, Any]:
    """A subnet with a way out by NAT, an endpoint for S3 that allows everything, one security group."""
    return {
        "Network": {"Type": "AWS::EC2::VPC", "Properties": {"CidrBlock": "10.9.0.0/16"}},
        "Subnet": {
            "Type": "AWS::EC2::Subnet",
            "Properties": {"VpcId": {"Ref": "Network"}, "CidrBlock": "10.9.1.0/24", "AvailabilityZone": "us-east-1a"},
        },
        "Address": {"Type": "AWS::EC2::EIP", "Properties": {"Domain": "vpc"}},
        "Nat": {
            "Type": "AWS::EC2::NatGateway",
            "Properties": {
                "SubnetId": {"Ref": "Subnet"},
                "AllocationId": {"Fn::GetAtt": ["Address", "AllocationId"]},
            },
        },
        "Outward": {"Type": "AWS::EC2::RouteTable", "Properties": {"VpcId": {"Ref": "Network"}}},
        "ByNat": {
            "Type": "AWS::EC2::Route",
            "Properties": {
                "RouteTableId": {"Ref": "Outward"},
                "DestinationCidrBlock": "0.0.0.0/0",
                "NatGatewayId": {"Ref": "Nat"},
            },
        },
        "SubnetOutward": {
            "Type": "AWS::EC2::SubnetRouteTableAssociation",
            "Properties": {"SubnetId": {"Ref": "Subnet"}, "RouteTableId": {"Ref": "Outward"}},
        },
        "Endpoint": {
            "Type": "AWS::EC2::VPCEndpoint",
            "Properties": {
                "VpcId": {"Ref": "Network"},
                "ServiceName": {"Fn::Sub": "com.amazonaws.${AWS::Region}.s3"},
                "RouteTableIds": [{"Ref": "Outward"}],
                "PolicyDocument": {
                    "Statement": [{"Effect": "Allow", "Principal": "*", "Action": "s3:*", "Resource": "*"}]
                },
            },
        },
        "Nodes": {
            "Type": "AWS::EC2::SecurityGroup",
            "Properties": {"GroupDescription": "nodes", "VpcId": {"Ref": "Network"}},
        },
        "NodesIn": _rule("Ingress", "SourceSecurityGroupId"),
        "NodesOut": _rule("Egress", "DestinationSecurityGroupId"),
    }


def _rule(direction: str, peer: str) -> dict[str, Any]:
    ports = {"IpProtocol": "tcp", "FromPort": 0, "ToPort": 65535}
    group = {"Fn::GetAtt": ["Nodes", "GroupId"]}
    return {
        "Type": f"AWS::EC2::SecurityGroup{direction}",
        "Properties": {"GroupId": group, peer: group, "Description": "each other", **ports},
    }


def _bucket() -> dict[str, Any]:
    return {"Type": "AWS::S3::Bucket", "Properties": {"VersioningConfiguration": {"Status": "Enabled"}}}


def _role(service: str, *statements: dict[str, Any]) -> dict[str, Any]:
    trust = {"Effect": "Allow", "Action": "sts:AssumeRole", "Principal": {"Service": f"{service}.amazonaws.com"}}
    policies = [{"PolicyName": "all", "PolicyDocument": {"Statement": list(statements)}}] if statements else []
    return {
        "Type": "AWS::IAM::Role",
        "Properties": {"AssumeRolePolicyDocument": {"Statement": [trust]}, "Policies": policies},
    }


def _allow(actions: list[str], *resources: Any) -> dict[str, Any]:
    return {"Effect": "Allow", "Action": actions, "Resource": list(resources)}


def _arn(bucket: str, rest: str = "") -> dict[str, str]:
    return {"Fn::Sub": f"arn:aws:s3:::${{{bucket}}}{rest}"}


def _data(prefix: str, *more: str) -> dict[str, Any]:
    return _allow(["s3:ListBucket", "s3:GetObject", *more], _arn("Data"), _arn("Data", f"/{prefix}/*"))


def _code() -> dict[str, Any]:
    return _allow(["s3:ListBucket", "s3:GetObject"], _arn("Code"), _arn("Code", "/*"))


def _catalog() -> dict[str, Any]:
    actions = ["glue:GetDatabase", "glue:GetTable", "glue:CreateTable", "glue:UpdateTable"]
    actions += ["glue:BatchGetPartition", "glue:BatchCreatePartition"]
    ends = ("catalog", "database/small", "table/small/*")
    return _allow(actions, *({"Fn::Sub": f"arn:aws:glue:${{AWS::Region}}:${{AWS::AccountId}}:{end}"} for end in ends))
