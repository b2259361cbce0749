"""The EMR clusters, made at synth time: roles, encryption, the workbench with Zeppelin, what a starting node reads."""

from collections.abc import Sequence

import aws_cdk as cdk
from aws_cdk import aws_emr as emr
from aws_cdk import aws_iam as iam
from aws_cdk import aws_kms as kms
from aws_cdk import aws_s3_assets as assets
from aws_cdk import aws_ssm as ssm
from constructs import Construct, IConstruct

from datasets import Dataset
from stacks import code
from stacks.data import DataStack
from stacks.emr import ZEPPELIN_USER, ClusterDefinition, spark_configurations, template_properties, with_zeppelin
from stacks.etl import READ_TABLES, WRITE_TABLES, catalog_arns, read_prefix, write_prefixes
from stacks.network import EMR_TAG, NetworkStack
from stacks.outputs import Output
from stacks.settings import Environment, tags

TRANSIENT_IDLE_SECONDS = 20 * 60  # ends a transient cluster whose run was stopped, and so could not end it
NO_WORKBENCH = "none"


class ClusterStack(cdk.Stack):
    """Everything a cluster stands on, one cluster definition, and the workbench made from it."""

    def __init__(
        self,
        scope: Construct,
        id: str,
        *,
        environment: Environment,
        datasets: Sequence[Dataset],
        network: NetworkStack,
        data: DataStack,
    ) -> None:
        super().__init__(scope, id)
        self._data = data
        # Ids that change travel by parameter, read when a node or a run starts: an export would tie stacks together,
        # a changed argument of the bootstrap action would replace the cluster. Physical names: they are the address.
        self.parameters = f"/dml/{environment.name}"
        self.workbench_parameter = f"{self.parameters}/workbench"

        self.train = code.script(self, "train")
        self.predict = code.script(self, "predict")
        self.library = code.library(self, datasets)
        wheels = code.wheels(self)
        notes = code.notes(self, environment, datasets)
        bootstrap = assets.Asset(self, "Bootstrap", path=str(code.ROOT / "cluster" / "bootstrap.sh"))

        self.key = key = disk_key(self)
        self.node_role = self._node_role(
            datasets, key, [bootstrap, wheels, notes, self.library, self.train, self.predict]
        )
        self.service_role = self._service_role(key)
        # Step Functions and EMR look for a profile that is named as its role.
        name = self.node_role.role_name
        profile = iam.CfnInstanceProfile(self, "NodeProfile", roles=[name], instance_profile_name=name)

        self.definition = ClusterDefinition(
            name=f"dml-{environment.name}-transient",
            applications=["Hadoop", "Spark"],
            configurations=spark_configurations(),
            instance_type=environment.cluster.instance_type,
            minimum_nodes=environment.cluster.minimum_nodes,
            maximum_nodes=environment.cluster.maximum_nodes,
            volume_gib=environment.cluster.volume_gib,
            idle_seconds=TRANSIENT_IDLE_SECONDS,
            subnet_id=network.cluster_subnet_id,
            groups=network.groups,
            service_role=self.service_role.role_name,
            instance_profile=profile.ref,
            log_uri=f"s3://{data.logs.bucket_name}/emr/",
            bootstrap_script=bootstrap.s3_object_url,
            bootstrap_arguments=[f"{self.parameters}/cluster", self.region],
            tags={EMR_TAG: "true", **tags(environment)},
        )
        shipped = self._parameters(
            {
                "wheels": wheels.s3_object_url,
                "code": self.library.s3_object_url,
                "notes": notes.s3_object_url,
                "notebook": data.workspace.s3_url_for_object(f"{ZEPPELIN_USER}/notebook/"),
            }
        )
        workbench = self._workbench(environment, profile, *shipped) if environment.workbench.enabled else None
        parameter = ssm.StringParameter(
            self,
            "WorkbenchId",
            parameter_name=self.workbench_parameter,
            string_value=workbench.ref if workbench else NO_WORKBENCH,
            description=f"Id of the workbench cluster, or {NO_WORKBENCH}",
        )
        cdk.CfnOutput(self, "WorkbenchIdParameter", value=parameter.parameter_name).override_logical_id(
            Output.WORKBENCH_PARAMETER
        )

    def _parameters(self, values: dict[str, str]) -> list[ssm.StringParameter]:
        """What cluster/bootstrap.sh reads on a starting node."""
        return [
            ssm.StringParameter(
                self,
                f"{name.capitalize()}Parameter",
                parameter_name=f"{self.parameters}/cluster/{name}",
                string_value=value,
                description="Read by nodes of EMR clusters when they start (cluster/bootstrap.sh)",
            )
            for name, value in values.items()
        ]

    def _workbench(self, environment: Environment, *needed: IConstruct) -> emr.CfnCluster:
        definition = with_zeppelin(
            self.definition,
            name=f"dml-{environment.name}-workbench",
            idle_seconds=environment.workbench.idle_minutes * 60,
            bucket=self._data.workspace.bucket_name,
            region=self.region,
        )
        security = security_configuration(self, self.key)
        cluster = emr.CfnCluster(self, "Workbench", **template_properties(definition, security_configuration=security))
        cdk.Tags.of(cluster).add(EMR_TAG, "true")
        # Rights must be there before EMR uses them, and until the cluster is gone.
        cluster.node.add_dependency(self.service_role, self.node_role, self.key, *needed)
        return cluster

    def _service_role(self, key: kms.Key) -> iam.Role:
        """What EMR wears to start machines. Its managed policy passes no instance role but AWS's own default one."""
        clusters = self.format_arn(service="elasticmapreduce", resource="*")
        trust = iam.ServicePrincipal(
            "elasticmapreduce.amazonaws.com",
            conditions={"StringEquals": {"aws:SourceAccount": self.account}, "ArnLike": {"aws:SourceArn": clusters}},
        )
        rights = [
            iam.PolicyStatement(
                sid="PassNodeRole",
                actions=["iam:PassRole"],
                resources=[self.node_role.role_arn],
                conditions={"StringLike": {"iam:PassedToService": "ec2.amazonaws.com*"}},
            ),
            use_key(key),
            iam.PolicyStatement(
                sid="LendDiskKey",
                actions=["kms:CreateGrant"],
                resources=[key.key_arn],
                conditions={"Bool": {"kms:GrantIsForAWSResource": "true"}},
            ),
        ]
        return iam.Role(
            self,
            "ServiceRole",
            description="Worn by EMR to start and end the machines of a cluster",
            assumed_by=trust,
            managed_policies=[iam.ManagedPolicy.from_aws_managed_policy_name("service-role/AmazonEMRServicePolicy_v2")],
            inline_policies={"emr": iam.PolicyDocument(statements=rights)},
        )

    def _node_role(self, datasets: Sequence[Dataset], key: kms.Key, objects: Sequence[assets.Asset]) -> iam.Role:
        """What the machines of a cluster wear, and with them every job and every note that runs there."""
        data = self._data
        names = [dataset.name for dataset in datasets]
        rights = [
            *code.read_statements(objects),
            iam.PolicyStatement(
                sid="ReadParameters",
                actions=["ssm:GetParameter"],
                resources=[
                    self.format_arn(
                        service="ssm", resource="parameter", resource_name=f"{self.parameters[1:]}/cluster/*"
                    )
                ],
            ),
            *read_prefix("Raw", data.raw.bucket_arn, ""),
            iam.PolicyStatement(sid="ReadLake", actions=["s3:GetObject"], resources=[data.lake.arn_for_objects("*")]),
            *write_prefixes(
                "Lake",
                data.lake.bucket_arn,
                [f"{name}/{folder}/" for name in names for folder in ("predictions", "runs")],
            ),
            iam.PolicyStatement(
                sid="ReadCurrentModel",
                actions=["s3:GetObject"],
                resources=[data.models.arn_for_objects(f"{name}/CURRENT.json") for name in names],
            ),
            # A run's own folder only: which model is current is for the state machine to say.
            *write_prefixes("Models", data.models.bucket_arn, [f"{name}/*/" for name in names]),
            *write_prefixes("Notes", data.workspace.bucket_arn, [f"{ZEPPELIN_USER}/notebook/"]),
            iam.PolicyStatement(
                sid="WriteLogs", actions=["s3:PutObject"], resources=[data.logs.arn_for_objects("emr/*")]
            ),
            iam.PolicyStatement(
                sid="UseTables",
                actions=[*READ_TABLES, *WRITE_TABLES, "glue:GetDatabases", "glue:GetUserDefinedFunctions"],
                resources=[
                    *catalog_arns(self, *data.databases.values()),
                    *(
                        self.format_arn(service="glue", resource="userDefinedFunction", resource_name=f"{database}/*")
                        for database in data.databases.values()
                    ),
                ],
            ),
            # Spark's Glue client looks for a database called "default" before all else, and makes it if there is none.
            iam.PolicyStatement(
                sid="DefaultDatabase",
                actions=["glue:GetDatabase", "glue:CreateDatabase"],
                resources=catalog_arns(self, "default")[:2],
            ),
            use_key(key),
            # Reaching Zeppelin: Session Manager's agent calls out, so no port is open. These actions know no resources.
            iam.PolicyStatement(
                sid="SessionManager",
                actions=[
                    "ssm:UpdateInstanceInformation",
                    "ssmmessages:CreateControlChannel",
                    "ssmmessages:CreateDataChannel",
                    "ssmmessages:OpenControlChannel",
                    "ssmmessages:OpenDataChannel",
                ],
                resources=["*"],
            ),
        ]
        return iam.Role(
            self,
            "NodeRole",
            description="Worn by the machines of EMR clusters, and so by every job and note on them",
            assumed_by=iam.ServicePrincipal("ec2.amazonaws.com"),
            inline_policies={"cluster": iam.PolicyDocument(statements=rights)},
        )


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


def use_key(key: kms.Key) -> iam.PolicyStatement:
    return iam.PolicyStatement(
        sid="UseDiskKey",
        actions=[
            "kms:Encrypt",
            "kms:Decrypt",
            "kms:ReEncryptFrom",
            "kms:ReEncryptTo",
            "kms:GenerateDataKey",
            "kms:GenerateDataKeyWithoutPlaintext",
            "kms:DescribeKey",
        ],
        resources=[key.key_arn],
    )


def security_configuration(scope: Construct, key: kms.Key) -> str:
    """EMR's security configuration: everything at rest encrypted, instance credentials by session token only (IMDSv2).

    Each stack with clusters makes its own: any change makes a new one, and an exported name could then not be changed.
    Traffic inside a cluster stays inside its own security groups; TLS there would want a certificate from the operator.
    """
    encryption = {
        "EnableInTransitEncryption": False,
        "EnableAtRestEncryption": True,
        "AtRestEncryptionConfiguration": {
            "S3EncryptionConfiguration": {"EncryptionMode": "SSE-S3"},
            "LocalDiskEncryptionConfiguration": {
                "EncryptionKeyProviderType": "AwsKms",
                "AwsKmsKey": key.key_arn,
                "EnableEbsEncryption": True,
            },
        },
    }
    metadata = {"MinimumInstanceMetadataServiceVersion": 2, "HttpPutResponseHopLimit": 1}
    settings = {"EncryptionConfiguration": encryption, "InstanceMetadataServiceConfiguration": metadata}
    return emr.CfnSecurityConfiguration(scope, "Security", security_configuration=settings).ref
