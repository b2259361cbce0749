"""The network of the clusters, made at synth time: private subnets over two zones, and EMR's three security groups."""

from dataclasses import dataclass

import aws_cdk as cdk
from aws_cdk import aws_ec2 as ec2
from constructs import Construct

from stacks.settings import Environment

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
    """VPC, NAT, S3 gateway endpoint, EMR's security groups."""

    def __init__(self, scope: Construct, id: str, *, environment: Environment) -> None:
        super().__init__(scope, id)
        self.vpc = ec2.Vpc(
            self,
            "Vpc",
            ip_addresses=ec2.IpAddresses.cidr(environment.network.cidr),
            max_azs=ZONES,
            nat_gateways=1 if environment.network.nat == "single" else ZONES,
            subnet_configuration=[
                ec2.SubnetConfiguration(
                    name="Nat", subnet_type=ec2.SubnetType.PUBLIC, cidr_mask=28, map_public_ip_on_launch=False
                ),
                ec2.SubnetConfiguration(name="Cluster", subnet_type=ec2.SubnetType.PRIVATE_WITH_EGRESS),
            ],
            # Emptying the default group takes a Lambda function of CDK's; nothing here ever uses that group.
            restrict_default_security_group=False,
        )
        # Free, and keeps the clusters' S3 traffic off the NAT gateway, which bills by the gigabyte.
        self.vpc.add_gateway_endpoint("S3", service=ec2.GatewayVpcEndpointAwsService.S3)
        for subnet in self.vpc.private_subnets:
            cdk.Tags.of(subnet).add(EMR_TAG, "true", include_resource_types=["AWS::EC2::Subnet"])
        self.cluster_subnet_id = self.vpc.private_subnets[0].subnet_id  # a cluster of instance groups lives in one zone
        self.groups = emr_groups(self, self.vpc.vpc_id)


def emr_groups(scope: Construct, vpc_id: str) -> EmrGroups:
    """The three groups with exactly the rules that EMR looks for, each a resource of its own.

    EMR adds every rule that it misses, unseen by CloudFormation, and then the groups, which name each other, cannot be
    deleted (EMR Management Guide, "Working with Amazon EMR-managed security groups"). CloudFormation deletes rules that
    are resources before their groups.
    """
    anywhere = ec2.CfnSecurityGroup.EgressProperty(
        ip_protocol="-1", cidr_ip="0.0.0.0/0", description="All traffic out, by NAT"
    )
    # EC2 gives a group without any egress rule one that allows everything; a rule to nowhere keeps that away.
    nowhere = ec2.CfnSecurityGroup.EgressProperty(
        ip_protocol="-1", cidr_ip="127.0.0.1/32", description="Nothing but the rules below"
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
        service=group("Service", "EMR service access to clusters in private subnets", nowhere),
    )

    def ingress(to: str, source: str, protocol: str, first: int, last: int) -> None:
        ec2.CfnSecurityGroupIngress(
            scope,
            f"{to.capitalize()}From{source.capitalize()}{protocol.capitalize()}{last if first == last != -1 else ''}",
            group_id=getattr(groups, to),
            source_security_group_id=getattr(groups, source),
            ip_protocol=protocol,
            from_port=first,
            to_port=last,
            description=f"{protocol} from {source} to {to}",
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
