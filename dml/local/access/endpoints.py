"""How a machine in a VPC reaches AWS's services: by a VPC endpoint and its policy, by NAT, or not at all; server.

Source: VPC guide, "Control access to VPC endpoints using endpoint policies" and "Gateway endpoints": a gateway endpoint
serves the subnets of its route tables, an interface endpoint with private DNS the whole VPC; a policy that is missing
allows everything; it is an AND with the policies of the caller and of the resource.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from dml.local import hooks

ANYWHERE = "0.0.0.0/0"


@dataclass(frozen=True)
class Way:
    """How calls of one subnet reach one service. `endpoint` is None by NAT, and where there is no way at all."""

    subnet: str
    vpc: str
    endpoint: Mapping[str, Any] | None
    outward: bool

    @property
    def blocked(self) -> bool:
        """Neither an endpoint of the service nor a route to the internet: on AWS the call hangs until it times out."""
        return self.endpoint is None and not self.outward

    @property
    def context(self) -> dict[str, str]:
        """The condition keys that only a call through an endpoint has."""
        if self.endpoint is None:
            return {}
        return {"aws:SourceVpce": self.endpoint["VpcEndpointId"], "aws:SourceVpc": self.vpc}

    @property
    def policy(self) -> Any:
        """The endpoint's policy; None is the default one, which allows everything."""
        return self.endpoint.get("PolicyDocument") if self.endpoint else None


def way(subnet: str, service: str) -> Way | None:
    """The way from a subnet to a service (as in the endpoint's name, such as s3); None if there is no such subnet."""
    ec2 = hooks.module("services.ec2")
    found = ec2._subnets.get(subnet)
    if found is None:
        return None
    vpc = found["VpcId"]
    table = _route_table(ec2, subnet, vpc)
    endpoints = [
        endpoint
        for endpoint in ec2._vpc_endpoints.values()
        if endpoint["VpcId"] == vpc and endpoint["ServiceName"].endswith(f".{service}") and _serves(endpoint, table)
    ]
    routes = table.get("Routes", [])
    outward = any(
        route.get("DestinationCidrBlock") == ANYWHERE and route.get("GatewayId") != "local" for route in routes
    )
    return Way(subnet, vpc, endpoints[0] if endpoints else None, outward)


def _serves(endpoint: Mapping[str, Any], table: Mapping[str, Any]) -> bool:
    if endpoint["VpcEndpointType"] == "Gateway":
        return table.get("RouteTableId") in endpoint["RouteTableIds"]
    return bool(endpoint.get("PrivateDnsEnabled")) and bool(endpoint["SubnetIds"])


def _route_table(ec2: Any, subnet: str, vpc: str) -> Mapping[str, Any]:
    """The table that a subnet is associated with, else the VPC's main one."""
    tables = [table for table in ec2._route_tables.values() if table["VpcId"] == vpc]
    for chosen in ({"SubnetId": subnet}, {"Main": True}):
        for table in tables:
            if any(chosen.items() <= association.items() for association in table["Associations"]):
                return dict(table)
    return {}
