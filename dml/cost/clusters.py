"""An EMR cluster's nodes and their price, read alike from AWS::EMR::Cluster and from createCluster's parameters."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from dml.cost.prices import Instance, Prices

ROLES = {"MASTER": "primary", "CORE": "core", "TASK": "task"}
ROOT_GIB = 15  # EMR's own default (Management Guide, "Specifying Amazon EBS root volume")
GIB_PER_XLARGE = (
    64  # the volumes that EMR adds to a node without a disk if none are given (Management Guide, "Default EBS storage")
)


class UnknownInstance(Exception):
    """An instance type that the price table lacks; its name is the message."""


@dataclass(frozen=True)
class Nodes:
    """Nodes of one role and market. `units`: what one counts in a fleet. `gib`: the disks of one, without the root."""

    role: str
    count: int
    instance: Instance
    spot: bool
    units: int
    gib: float
    among: Sequence[str] = ()


@dataclass(frozen=True)
class Cluster:
    """The nodes that it starts with, and those that managed scaling may give it."""

    nodes: Sequence[Nodes]
    most: Sequence[Nodes]
    root_gib: float

    @property
    def types(self) -> str:
        return ", ".join(dict.fromkeys(each.instance.name for each in self.nodes))


def read(properties: Mapping[str, Any], prices: Prices, *, extra: Sequence[Mapping[str, Any]] = ()) -> Cluster:
    """The cluster of a template's properties or of createCluster's parameters.

    `extra`: properties of AWS::EMR::InstanceGroupConfig and InstanceFleetConfig that join it. Raises UnknownInstance.
    """
    instances = properties.get("Instances", {})
    nodes = [each for part in (*_parts(instances), *extra) for each in _nodes(part, prices)]
    limits = properties.get("ManagedScalingPolicy", {}).get("ComputeLimits")
    most = _grown(nodes, limits) if limits else nodes
    return Cluster(nodes, most, float(properties.get("EbsRootVolumeSize", ROOT_GIB)))


def usd_per_hour(nodes: Sequence[Nodes], root_gib: float, prices: Prices) -> float:
    """EC2, EMR and disks of these nodes."""
    disk = prices.rates["gp3"].usd / prices.hours_per_month
    return sum(each.count * (ec2(each, prices) + each.instance.emr + (each.gib + root_gib) * disk) for each in nodes)


def ec2(nodes: Nodes, prices: Prices) -> float:
    """USD an hour of EC2 for one of the nodes."""
    return nodes.instance.ec2 * (prices.spot.price_share if nodes.spot else 1)


def _parts(instances: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """Each group or fleet, with its role where RunJobFlow has it."""
    for role, name in (("MASTER", "Master"), ("CORE", "Core"), ("TASK", "Task")):
        for kind, key in (("Group", "InstanceRole"), ("Fleet", "InstanceFleetType")):
            if found := instances.get(f"{name}Instance{kind}"):
                yield {**found, key: role}
            for found in instances.get(f"{name}Instance{kind}s", ()):
                yield {**found, key: role}
    yield from instances.get("InstanceGroups", ())
    yield from instances.get("InstanceFleets", ())


def _nodes(part: Mapping[str, Any], prices: Prices) -> Iterator[Nodes]:
    if "InstanceTypeConfigs" not in part:
        role = ROLES[part.get("InstanceRole", "TASK")]
        instance = _instance(part["InstanceType"], prices)
        spot = part.get("Market") == "SPOT"
        yield Nodes(role, int(part.get("InstanceCount", 1)), instance, spot, 1, _gib(part, instance))
        return
    role, choices = ROLES[part["InstanceFleetType"]], part["InstanceTypeConfigs"]
    # Which of its types EMR will take depends on what EC2 has that day: the dearest by unit is what it may cost.
    chosen = max(choices, key=lambda choice: _per_unit(choice, prices))
    instance, units = _instance(chosen["InstanceType"], prices), int(chosen.get("WeightedCapacity", 1))
    among = [choice["InstanceType"] for choice in choices]
    for market, spot in (("TargetOnDemandCapacity", False), ("TargetSpotCapacity", True)):
        if target := int(part.get(market, 0)):
            yield Nodes(role, math.ceil(target / units), instance, spot, units, _gib(chosen, instance), among)


def _per_unit(choice: Mapping[str, Any], prices: Prices) -> float:
    instance = _instance(choice["InstanceType"], prices)
    return (instance.ec2 + instance.emr) / int(choice.get("WeightedCapacity", 1))


def _instance(name: str, prices: Prices) -> Instance:
    if found := prices.instance(name):
        return found
    raise UnknownInstance(name)


def _gib(part: Mapping[str, Any], instance: Instance) -> float:
    volumes = part.get("EbsConfiguration", {}).get("EbsBlockDeviceConfigs")
    if not volumes:
        return GIB_PER_XLARGE * instance.size
    return float(sum(int(v["VolumeSpecification"]["SizeInGB"]) * int(v.get("VolumesPerInstance", 1)) for v in volumes))


def _grown(nodes: Sequence[Nodes], limits: Mapping[str, Any]) -> list[Nodes]:
    """The nodes when managed scaling has given all it may; on demand as far as its limit goes, the rest on spot."""

    def units(each: Nodes) -> int:
        return each.instance.vcpu if limits["UnitType"] == "VCPU" else each.units

    workers = [each for each in nodes if each.role != "primary"]
    most = int(limits["MaximumCapacityUnits"])
    spot = [each for each in workers if each.spot]
    on_demand = int(limits.get("MaximumOnDemandCapacityUnits", most)) if spot else most
    grown = [each for each in nodes if each.role == "primary"]
    for market, target in ((False, min(on_demand, most)), (True, most - min(on_demand, most))):
        of_market = [each for each in workers if each.spot == market]
        if not of_market:
            continue
        # What stands stays, and the dearest of it is what there will be more of.
        more = target - sum(each.count * units(each) for each in of_market)
        dearest = max(of_market, key=lambda each: (each.instance.ec2 + each.instance.emr) / units(each))
        for each in of_market:
            added = math.ceil(more / units(each)) if each is dearest and more > 0 else 0
            grown.append(Nodes(each.role, each.count + added, each.instance, market, each.units, each.gib, each.among))
    return grown
