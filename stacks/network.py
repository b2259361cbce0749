"""The network of the clusters, made at synth time: private subnets over two zones, and EMR's three security groups."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

import aws_cdk as cdk
from aws_cdk import aws_ec2 as ec2
from aws_cdk import aws_iam as iam
from aws_cdk import aws_ssm as ssm
from constructs import Construct

from stacks import code
from stacks.data import DataStack
from stacks.settings import Environment, network_parameter

# EMR's service role (AmazonEMRServicePolicy_v2) may only use what bears this tag: subnets, security groups, clusters.
EMR_TAG = "for-use-with-amazon-emr-managed-policies"
ZONES = 2


@dataclass(frozen=True)
class EmrGroups:
    """The ids of the three security groups that EMR wants for a cluster in a private subnet; set one, set all."""

    primary: str
    core: str
    service: str


class NetworkStack(cdk.Stack):
    """VPC, the ways out of it, EMR's security groups."""

    def __init__(self, scope: Construct, id: str, *, environment: Environment, data: DataStack) -> None:
        super().__init__(scope, id, synthesizer=code.synthesizer(environment))
        egress = environment.network.egress
        closed = egress == "endpoints"
        self.vpc = ec2.Vpc(
            self,
            "Vpc",
            ip_addresses=ec2.IpAddresses.cidr(environment.network.cidr),
            max_azs=ZONES,
            nat_gateways={"nat": 1, "nat-per-zone": ZONES, "endpoints": 0}[egress],
            subnet_configuration=[
                *([] if closed else [NAT_SUBNET]),
                ec2.SubnetConfiguration(
                    name="Cluster",
                    subnet_type=ec2.SubnetType.PRIVATE_ISOLATED if closed else ec2.SubnetType.PRIVATE_WITH_EGRESS,
                ),
            ],
            # Emptying the default group takes a Lambda function of CDK's; nothing here ever uses that group.
            restrict_default_security_group=False,
        )
        self.vpc.add_flow_log(
            "FlowLog",
            destination=ec2.FlowLogDestination.to_s3(data.logs, key_prefix="vpc/"),
            traffic_type=ec2.FlowLogTrafficType.ALL,
        )
        # Free, and keeps the clusters' S3 traffic off the NAT gateway, which bills by the gigabyte.
        s3 = self.vpc.add_gateway_endpoint("S3", service=ec2.GatewayVpcEndpointAwsService.S3)
        for statement in reachable_buckets(self, data):
            s3.add_to_policy(statement)
        subnets = self.vpc.isolated_subnets if closed else self.vpc.private_subnets
        for subnet in subnets:
            cdk.Tags.of(subnet).add(EMR_TAG, "true", include_resource_types=["AWS::EC2::Subnet"])
        # A cluster of instance groups lives in one zone; for instance fleets EMR chooses one.
        self.cluster_subnet_ids = [subnet.subnet_id for subnet in subnets]
        self.groups = emr_groups(self, self.vpc.vpc_id)
        if closed:
            login = {"SecretsManager": LOGIN} if environment.workbench.enabled else {}
            interface_endpoints(self, self.vpc, self.groups, {**INTERFACES, **login})
        # Read by a run that needs a cluster of its own: by export, no dataset's stack would outlive a pause.
        self.parameter = ssm.StringParameter(
            self,
            "Cluster",
            parameter_name=network_parameter(environment),
            string_value=self.to_json_string({"subnets": self.cluster_subnet_ids, **asdict(self.groups)}),
            description="Where clusters are started, read by runs",
        )


NAT_SUBNET = ec2.SubnetConfiguration(
    name="Nat", subnet_type=ec2.SubnetType.PUBLIC, cidr_mask=28, map_public_ip_on_launch=False
)


def reachable_buckets(stack: cdk.Stack, data: DataStack) -> list[iam.PolicyStatement]:
    """Which buckets can be reached through the S3 endpoint at all, whatever a role allows.

    Ours, the one with CDK's assets, and AWS's own that EMR's nodes need: packages, their system logs, the application
    history, Session Manager (EMR Management Guide, "Sample policies for private subnets that access Amazon S3").
    AWS's nodes write there with AWS's credentials, so no account is named for those.
    """
    region, partition = stack.region, stack.partition

    def allow(sid: str, actions: Sequence[str], resources: Sequence[str], *, ours: bool = False) -> iam.PolicyStatement:
        own = {"StringEquals": {"aws:PrincipalAccount": stack.account}}
        return iam.PolicyStatement(
            sid=sid,
            principals=[iam.AnyPrincipal()],
            actions=list(actions),
            resources=list(resources),
            conditions=own if ours else None,
        )

    def of(*buckets: str) -> list[str]:
        return [f"arn:{partition}:s3:::{bucket}" for bucket in buckets]

    find = ["s3:ListBucket", "s3:GetBucketLocation", "s3:ListBucketMultipartUploads"]
    upload = ["s3:PutObject", "s3:AbortMultipartUpload", "s3:ListMultipartUploadParts"]
    assets = f"cdk-{code.qualifier(stack)}-assets-{stack.account}-{region}"
    return [
        allow("FindOwnObjects", find, [bucket.bucket_arn for bucket in data.buckets], ours=True),
        allow(
            "UseOwnObjects",
            ["s3:GetObject", "s3:DeleteObject", *upload],
            [bucket.arn_for_objects("*") for bucket in data.buckets],
            ours=True,
        ),
        allow("FindCode", ["s3:ListBucket"], of(assets), ours=True),
        allow("ReadCode", ["s3:GetObject"], of(f"{assets}/*"), ours=True),
        allow(
            "ReadPackages",
            ["s3:GetObject"],
            of(f"al2023-repos-{region}-de612dc2/*", f"repo.{region}.emr.amazonaws.com/*"),
        ),
        allow(
            "WriteSystemLogs",
            ["s3:PutObject", "s3:PutObjectAcl"],
            of("aws157-logs-prod/*", f"aws157-logs-prod-{region}/*"),  # the first one in us-east-1
        ),
        allow("KeepHistory", ["s3:GetObject", *upload], of(f"prod.{region}.appinfo.src/*")),
        allow("FindHistory", find[::2], of(f"prod.{region}.appinfo.src")),
        allow(
            "ReadSessionManager",
            ["s3:GetObject"],
            of(f"amazon-ssm-{region}/*", f"aws-ssm-{region}/*", f"patch-baseline-snapshot-{region}/*"),
        ),
    ]


def interface_endpoints(
    scope: Construct, vpc: ec2.Vpc, groups: EmrGroups, services: Mapping[str, ec2.InterfaceVpcEndpointAwsService]
) -> None:
    """The services that nodes call, inside the VPC: all that they reach where there is no NAT gateway."""
    group = ec2.CfnSecurityGroup(
        scope,
        "EndpointGroup",
        group_description="Interface endpoints of AWS services",
        vpc_id=vpc.vpc_id,
        security_group_egress=[NOWHERE],
    )
    for source in ("primary", "core"):
        let_in(
            scope,
            f"EndpointsFrom{source.capitalize()}Tcp443",
            f"tcp from {source} to the endpoints",
            to=group.attr_group_id,
            source=getattr(groups, source),
            protocol="tcp",
            ports=(443, 443),
        )
    made = ec2.SecurityGroup.from_security_group_id(scope, "Endpoints", group.attr_group_id, mutable=False)
    for name, service in services.items():
        vpc.add_interface_endpoint(name, service=service, security_groups=[made], open=False)


# The Glue catalog, keys, agents, Session Manager (which also needs ssmmessages and ec2messages), roles.
INTERFACES = {
    "Glue": ec2.InterfaceVpcEndpointAwsService.GLUE,
    "Kms": ec2.InterfaceVpcEndpointAwsService.KMS,
    "Logs": ec2.InterfaceVpcEndpointAwsService.CLOUDWATCH_LOGS,
    "Monitoring": ec2.InterfaceVpcEndpointAwsService.CLOUDWATCH_MONITORING,
    "Ssm": ec2.InterfaceVpcEndpointAwsService.SSM,
    "SsmMessages": ec2.InterfaceVpcEndpointAwsService.SSM_MESSAGES,
    "Ec2Messages": ec2.InterfaceVpcEndpointAwsService.EC2_MESSAGES,
    "Sts": ec2.InterfaceVpcEndpointAwsService.STS,
}

LOGIN = ec2.InterfaceVpcEndpointAwsService.SECRETS_MANAGER  # for a starting workbench (cluster/zeppelin.sh)

# EC2 gives a group without any egress rule one that allows everything; a rule to nowhere keeps that away.
NOWHERE = ec2.CfnSecurityGroup.EgressProperty(
    ip_protocol="-1", cidr_ip="127.0.0.1/32", description="Nothing but the rules below"
)


def emr_groups(scope: Construct, vpc_id: str) -> EmrGroups:
    """The three groups with exactly the rules that EMR looks for, each a resource of its own.

    EMR adds every rule that it misses, unseen by CloudFormation, and then the groups, which name each other, cannot be
    deleted (EMR Management Guide, "Working with Amazon EMR-managed security groups"). CloudFormation deletes rules that
    are resources before their groups.
    """
    anywhere = ec2.CfnSecurityGroup.EgressProperty(
        ip_protocol="-1", cidr_ip="0.0.0.0/0", description="All traffic out, by NAT or endpoints"
    )

    def group(name: str, description: str, egress: ec2.CfnSecurityGroup.EgressProperty) -> str:
        made = ec2.CfnSecurityGroup(
            scope, f"{name}Group", group_description=description, vpc_id=vpc_id, security_group_egress=[egress]
        )
        cdk.Tags.of(made).add(EMR_TAG, "true")
        return made.attr_group_id

    groups = EmrGroups(
        primary=group("Primary", "EMR primary nodes", anywhere),
        core=group("Core", "EMR core and task nodes", anywhere),
        service=group("Service", "EMR service access to clusters in private subnets", NOWHERE),
    )

    def ingress(to: str, source: str, protocol: str, first: int, last: int) -> None:
        let_in(
            scope,
            f"{to.capitalize()}From{source.capitalize()}{protocol.capitalize()}{last if first == last != -1 else ''}",
            f"{protocol} from {source} to {to}",
            to=getattr(groups, to),
            source=getattr(groups, source),
            protocol=protocol,
            ports=(first, last),
        )

    for to in ("primary", "core"):
        for source in ("primary", "core"):
            ingress(to, source, "tcp", 0, 65535)
            ingress(to, source, "udp", 0, 65535)
            ingress(to, source, "icmp", -1, -1)
        ingress(to, "service", "tcp", 8443, 8443)
        ec2.CfnSecurityGroupEgress(
            scope,
            f"ServiceTo{to.capitalize()}Tcp8443",
            group_id=groups.service,
            destination_security_group_id=getattr(groups, to),
            ip_protocol="tcp",
            from_port=8443,
            to_port=8443,
            description=f"tcp from service to {to}",
        )
    ingress("service", "primary", "tcp", 9443, 9443)
    return groups


def let_in(
    scope: Construct, id: str, description: str, *, to: str, source: str, protocol: str, ports: tuple[int, int]
) -> None:
    """A rule by which one security group (its id) lets another one in, as a resource of its own (see emr_groups)."""
    ec2.CfnSecurityGroupIngress(
        scope,
        id,
        group_id=to,
        source_security_group_id=source,
        ip_protocol=protocol,
        from_port=ports[0],
        to_port=ports[1],
        description=description,
    )
