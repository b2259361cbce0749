"""What EMR clusters stand on, made at synth time: roles, encryption, what a starting node reads."""

import aws_cdk as cdk
from aws_cdk import aws_emr as emr
from aws_cdk import aws_iam as iam
from aws_cdk import aws_kms as kms
from aws_cdk import aws_s3_assets as assets
from aws_cdk import aws_sns as sns
from aws_cdk import aws_ssm as ssm
from constructs import Construct

from stacks import code
from stacks.data import ENCRYPT, DataStack, use_key
from stacks.emr import ClusterDefinition, Place, spark_configurations
from stacks.etl import READ_TABLES, WRITE_TABLES, catalog_arns, read_prefix, write_prefixes
from stacks.findings import (
    NO_RESOURCE,
    OBJECTS,
    OWN_CODE,
    TABLES,
    accept,
    accept_in_template,
    accept_wildcards,
    export,
)
from stacks.network import EMR_TAG
from stacks.observability import read_login
from stacks.outputs import CERTIFICATE, NOTES, Output
from stacks.settings import Environment, database_name, node_parameters, tags, transient_name
from stacks.watch import Watch

TRANSIENT_IDLE_SECONDS = 20 * 60  # ends a transient cluster whose run was stopped, and so could not end it


class ClusterStack(cdk.Stack):
    """Everything a cluster stands on but the network: roles, keys, what starting nodes read; one cluster definition.

    `definition` is of a cluster that a run starts: the network's ids in it are JSONata over `$network`, which the run
    reads when it needs them (stacks/definition.py).
    """

    def __init__(
        self, scope: Construct, id: str, *, environment: Environment, data: DataStack, topic: sns.ITopic, login: str
    ) -> None:
        """`login`: the ARN of the secret with Zeppelin's user and password."""
        super().__init__(scope, id, synthesizer=code.synthesizer(environment))
        self._data = data
        self._environment = environment
        self._login = login
        # Ids that change travel by parameter, read when a node or a run starts: an export would tie stacks together,
        # a changed argument of the bootstrap action would replace the cluster. Physical names: they are the address.
        self.parameters = node_parameters(environment)

        library = code.library(self)
        wheels = code.wheels(self, environment.cluster.processor)
        bootstrap = assets.Asset(self, "Bootstrap", path=str(code.ROOT / "cluster" / "bootstrap.sh"))
        zeppelin = assets.Asset(self, "ZeppelinBootstrap", path=str(code.ROOT / "cluster" / "zeppelin.sh"))
        check = code.script(self, "zeppelin")
        cdk.CfnOutput(self, "CodeUri", value=library.s3_object_url).override_logical_id(Output.CODE)
        cdk.CfnOutput(self, "ZeppelinCheckUri", value=check.s3_object_url).override_logical_id(Output.ZEPPELIN_CHECK)
        self.zeppelin_bootstrap = zeppelin.s3_object_url  # the workbench's alone

        self.key = key = data.key or disk_key(self)
        self.node_role = self._node_role(key, bootstrap)
        self.service_role = self._service_role(key)
        # Step Functions and EMR look for a profile that is named as its role.
        name = self.node_role.role_name
        profile = iam.CfnInstanceProfile(self, "NodeProfile", roles=[name], instance_profile_name=name)
        for value in (self.node_role.role_arn, self.service_role.role_arn, self.service_role.role_name, profile.ref):
            export(self, value)  # to datasets, whether there is one or not: the template stays the same
        if not data.key:
            export(self, key.key_arn)
        self._parameters(
            {
                "wheels": wheels.s3_object_url,
                "code": library.s3_object_url,
                "notebook": data.workspace.s3_url_for_object(NOTES),
                "login": login,  # cluster/zeppelin.sh reads what is in it
                # Where notes find what runs have left (jobs/notes/here.py).
                "lake": f"s3://{data.lake.bucket_name}/",
                "models": f"s3://{data.models.bucket_name}/",
            }
        )

        self.definition = ClusterDefinition(
            name=transient_name(environment.name),
            applications=["Hadoop", "Spark"],
            configurations=spark_configurations(spot=bool(environment.cluster.spot_nodes)),
            nodes=environment.cluster,
            idle_seconds=TRANSIENT_IDLE_SECONDS,
            place=Place.of_run(),
            service_role=self.service_role.role_name,
            instance_profile=profile.ref,
            log_uri=f"s3://{data.logs.bucket_name}/emr/",
            log_key=data.key.key_arn if data.key else None,
            bootstrap_scripts={"dml": bootstrap.s3_object_url},
            bootstrap_arguments=[self.parameters, self.region],
            tags={EMR_TAG: "true", **tags(environment)},
        )
        Watch(self, "Watch", environment=environment, data=data, topic=topic)

    def _parameters(self, values: dict[str, str]) -> None:
        """What the scripts of cluster/ read on a starting node."""
        for name, value in values.items():
            ssm.StringParameter(
                self,
                f"{name.capitalize()}Parameter",
                parameter_name=f"{self.parameters}/{name}",
                string_value=value,
                description="Read by nodes of EMR clusters when they start (cluster/)",
            )

    def security_configuration(self, scope: Construct) -> str:
        """A security configuration for clusters of this environment, made in the stack of `scope`; its name.

        Each stack with clusters makes its own: any change makes a new one, and an exported name could not be changed.
        """
        certificate = None
        if self._environment.encryption.in_transit:
            certificate = self._data.workspace.s3_url_for_object(CERTIFICATE)
        return security_configuration(scope, self.key, data_key=self._data.key, certificate=certificate)

    def _read_certificate(self) -> list[iam.PolicyStatement]:
        """The nodes' certificate for TLS among themselves. Notes run with this role too, and could read it."""
        return [
            iam.PolicyStatement(
                sid="ReadCertificate",
                actions=["s3:GetObject"],
                resources=[self._data.workspace.arn_for_objects(CERTIFICATE)],
            )
        ]

    def _service_role(self, key: kms.IKey) -> iam.Role:
        """What EMR wears to start machines. Its managed policy passes no instance role but AWS's own default one."""
        clusters = self.format_arn(service="elasticmapreduce", resource="*")
        trust = iam.ServicePrincipal(
            "elasticmapreduce.amazonaws.com",
            conditions={"StringEquals": {"aws:SourceAccount": self.account}, "ArnLike": {"aws:SourceArn": clusters}},
        )
        rights = [
            pass_role("PassNodeRole", self.node_role, "ec2"),
            *use_key(key, *ENCRYPT, sid="UseDiskKey"),
            iam.PolicyStatement(
                sid="LendDiskKey",
                actions=["kms:CreateGrant"],
                resources=[key.key_arn],
                conditions={"Bool": {"kms:GrantIsForAWSResource": "true"}},
            ),
        ]
        if self._environment.cluster.spot_nodes:
            # EC2 makes its role for spot when an account first asks for a spot machine, by the right of who asks.
            rights.append(
                iam.PolicyStatement(
                    sid="LetEc2UseSpot",
                    actions=["iam:CreateServiceLinkedRole"],
                    resources=[
                        f"arn:{self.partition}:iam::{self.account}:role/aws-service-role/spot.amazonaws.com/AWSServiceRoleForEC2Spot"
                    ],
                    conditions={"StringEquals": {"iam:AWSServiceName": "spot.amazonaws.com"}},
                )
            )
        role = iam.Role(
            self,
            "ServiceRole",
            description="Worn by EMR to start and end the machines of a cluster",
            assumed_by=trust,
            managed_policies=[iam.ManagedPolicy.from_aws_managed_policy_name("service-role/AmazonEMRServicePolicy_v2")],
            inline_policies={"emr": iam.PolicyDocument(statements=rights)},
        )
        policy = "arn:<AWS::Partition>:iam::aws:policy/service-role/AmazonEMRServicePolicy_v2"
        reason = "What EMR does with EC2 is for EMR to say; this policy is narrowed by a tag on all that it may touch."
        accept(role, {f"AwsSolutions-IAM4[Policy::{policy}]": reason})
        return role

    def _node_role(self, key: kms.IKey, asset: assets.Asset) -> iam.Role:
        """What the machines of a cluster wear, and with them every job and every note that runs there.

        One role for the data of all datasets, by prefix: it neither grows nor changes with them (docs/decisions.md).
        """
        data = self._data
        databases = database_name(self._environment, "*")
        rights = [
            *code.read_statements(self._environment, asset),
            iam.PolicyStatement(
                sid="ReadParameters",
                actions=["ssm:GetParameter", "ssm:GetParametersByPath"],
                resources=[
                    self.format_arn(service="ssm", resource="parameter", resource_name=f"{self.parameters[1:]}/*")
                ],
            ),
            *read_prefix("Raw", data.raw.bucket_arn, ""),
            iam.PolicyStatement(sid="ReadLake", actions=["s3:GetObject"], resources=[data.lake.arn_for_objects("*")]),
            *write_prefixes("Lake", data.lake.bucket_arn, ["*/predictions/", "*/runs/", "*/notes/"]),
            iam.PolicyStatement(
                sid="ReadCurrentModel",
                actions=["s3:GetObject"],
                resources=[data.models.arn_for_objects("*/CURRENT.json")],
            ),
            # A run's own folder only: which model is current is for the state machine to say.
            *write_prefixes("Models", data.models.bucket_arn, ["*/*/"]),
            *write_prefixes("Notes", data.workspace.bucket_arn, [NOTES]),
            iam.PolicyStatement(
                sid="WriteLogs", actions=["s3:PutObject"], resources=[data.logs.arn_for_objects("emr/*")]
            ),
            iam.PolicyStatement(
                sid="UseTables",
                actions=[*READ_TABLES, *WRITE_TABLES, "glue:GetDatabases", "glue:GetUserDefinedFunctions"],
                resources=[
                    *catalog_arns(self, databases),
                    self.format_arn(service="glue", resource="userDefinedFunction", resource_name=f"{databases}/*"),
                ],
            ),
            # Spark's Glue client looks for a database called "default" before all else, and makes it if there is none.
            iam.PolicyStatement(
                sid="DefaultDatabase",
                actions=["glue:GetDatabase", "glue:CreateDatabase"],
                resources=catalog_arns(self, "default")[:2],
            ),
            read_login(self._login),  # for the workbench, which wears this role as every cluster does
            *use_key(key, *ENCRYPT, sid="UseDiskKey"),  # a customer key is the buckets' and the login's too
            *(self._read_certificate() if self._environment.encryption.in_transit else []),
            # Reaching Zeppelin: Session Manager's agent calls out, so no port is open.
            iam.PolicyStatement(
                sid="SessionAgent",
                actions=["ssm:UpdateInstanceInformation"],
                resources=[self.format_arn(service="ec2", resource="instance", resource_name="*")],
            ),
            iam.PolicyStatement(
                sid="SessionManager",
                actions=[
                    "ssmmessages:CreateControlChannel",
                    "ssmmessages:CreateDataChannel",
                    "ssmmessages:OpenControlChannel",
                    "ssmmessages:OpenDataChannel",
                ],
                resources=["*"],
            ),
        ]
        role = iam.Role(
            self,
            "NodeRole",
            description="Worn by the machines of EMR clusters, and so by every job and note on them",
            assumed_by=iam.ServicePrincipal("ec2.amazonaws.com"),
            inline_policies={"cluster": iam.PolicyDocument(statements=rights)},
        )
        objects_of = ("ReadRaw", "ReadLake", "WriteLake", "ReadCurrentModel", "WriteModels", "WriteNotes", "WriteLogs")
        accept_wildcards(
            role,
            rights,
            {
                **dict.fromkeys(objects_of, OBJECTS),
                "ReadOwnCode": OWN_CODE,
                "ReadParameters": "All parameters below this path are there for starting nodes, and nothing else is.",
                "UseTables": TABLES,
                "SessionAgent": "A machine that is not there yet has no name.",
                "SessionManager": NO_RESOURCE,
            },
        )
        accept_in_template(role, {"CKV_AWS_111": "Session Manager's channels: " + NO_RESOURCE})
        return role


def disk_key(scope: Construct) -> kms.Key:
    """The key of the clusters' disks. EMR takes no AWS-owned key for them; it holds nothing that outlives a cluster."""
    return kms.Key(
        scope,
        "DiskKey",
        description="Encrypts the disks of EMR clusters",
        enable_key_rotation=True,
        removal_policy=cdk.RemovalPolicy.DESTROY,
        pending_window=cdk.Duration.days(7),
    )


def security_configuration(
    scope: Construct, disk_key: kms.IKey, *, data_key: kms.IKey | None, certificate: str | None
) -> str:
    """EMR's security configuration: everything at rest encrypted, instance credentials by session token only (IMDSv2).

    `certificate`: the S3 URI of a zip with the nodes' certificate; with one, traffic between nodes is encrypted too.
    """
    encryption: dict[str, object] = {
        "EnableInTransitEncryption": certificate is not None,
        "EnableAtRestEncryption": True,
        "AtRestEncryptionConfiguration": {
            "S3EncryptionConfiguration": {"EncryptionMode": "SSE-KMS", "AwsKmsKey": data_key.key_arn}
            if data_key
            else {"EncryptionMode": "SSE-S3"},
            "LocalDiskEncryptionConfiguration": {
                "EncryptionKeyProviderType": "AwsKms",
                "AwsKmsKey": disk_key.key_arn,
                "EnableEbsEncryption": True,
            },
        },
    }
    if certificate:
        tls = {"CertificateProviderType": "PEM", "S3Object": certificate}
        encryption["InTransitEncryptionConfiguration"] = {"TLSCertificateConfiguration": tls}
    metadata = {"MinimumInstanceMetadataServiceVersion": 2, "HttpPutResponseHopLimit": 1}
    settings = {"EncryptionConfiguration": encryption, "InstanceMetadataServiceConfiguration": metadata}
    return emr.CfnSecurityConfiguration(scope, "Security", security_configuration=settings).ref


def pass_role(sid: str, role: iam.IRole, service: str) -> iam.PolicyStatement:
    """May have `service`, such as ec2, wear a role, and no other service; it has a name of its own in some regions."""
    return iam.PolicyStatement(
        sid=sid,
        actions=["iam:PassRole"],
        resources=[role.role_arn],
        conditions={"StringLike": {"iam:PassedToService": f"{service}.amazonaws.com*"}},
    )
