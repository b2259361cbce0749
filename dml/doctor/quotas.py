"""Service quotas that a deploy or a run would meet: what the templates need, beside what others use already.

Codes and names are those of `aws service-quotas list-aws-default-service-quotas --service-code SERVICE`; the request
for more is in every advice. What bears this environment's tags is there already and counts as its own need.
"""

import re
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from dml.doctor.account import Account
from dml.doctor.findings import Check, Finding, ok, problem, warning
from dml.terminal.words import counted

# EC2's quotas for standard instances count these families' vCPUs (EC2 User Guide, "On-Demand Instance quotas").
STANDARD = re.compile(r"(?!inf|trn|hpc|dl|mac)[acdhimrtz]")
ACTIVE_CLUSTERS = ["STARTING", "BOOTSTRAPPING", "RUNNING", "WAITING"]


@dataclass(frozen=True)
class Need:
    """What is needed of a quota: at least (without it nothing works), at the most, and what others use."""

    least: float
    most: float
    used: float
    unit: str
    short: str  # what happens with less than the most


@dataclass(frozen=True)
class Quota:
    """A quota, and how to know what is needed of it."""

    service: str
    code: str
    title: str
    need: Callable[[Account], Need]


def look(quota: Quota, account: Account) -> Finding:
    need = quota.need(account)
    if not need.most:
        return ok("none needed")
    limit = value_of(quota, account)
    free = limit - need.used
    needed = _number(need.most) if need.least == need.most else f"{_number(need.least)} to {_number(need.most)}"
    found = f"{needed} {need.unit} needed, {_number(max(free, 0))} of {_number(limit)} free"
    advice = (
        f"Ask for more (hours to days): aws service-quotas request-service-quota-increase --service-code "
        f"{quota.service} --quota-code {quota.code} --desired-value {_number(need.used + need.most)}"
    )
    if need.least > free:
        return problem(found, advice)
    if need.most > free:
        return warning(f"{found}: {need.short}", advice)
    return ok(found)


def value_of(quota: Quota, account: Account) -> float:
    """The account's value of a quota, or AWS's default where the account has none of its own."""
    asked = {"ServiceCode": quota.service, "QuotaCode": quota.code}
    client = account.client("service-quotas")
    try:
        answer = client.get_service_quota(**asked)
    except client.exceptions.NoSuchResourceException:
        answer = client.get_aws_default_service_quota(**asked)
    return float(answer["Quota"]["Value"])


def on_demand(account: Account) -> Need:
    """vCPUs between the smallest size of one cluster and all that managed scaling may add to all that run at once."""
    size, clusters = largest(account), together(account)
    return Need(
        least=max(one.minimum for one in account.clusters) * size,
        most=max(one.on_demand for one in account.clusters) * size * clusters,
        used=used_vcpus(account, spot=False),
        unit=f"vCPUs for {counted(clusters, 'cluster')}",
        short="clusters start, but cannot all grow to their limit",
    )


def together(account: Account) -> int:
    """Clusters that may run at once: the workbench takes all runs; without one each dataset's run has its own."""
    return 1 if any("Zeppelin" in one.applications for one in account.clusters) else max(account.needs.machines, 1)


def spot(account: Account) -> Need:
    most = max(one.spot for one in account.clusters)
    if not most:
        return Need(0, 0, 0, "", "")
    used, clusters = used_vcpus(account, spot=True), together(account)
    unit, short = f"vCPUs for {counted(clusters, 'cluster')}", "task nodes come on demand, or not at all"
    return Need(0, most * largest(account) * clusters, used, unit, short)


def largest(account: Account) -> int:
    """vCPUs of the largest of our instance types."""
    return max(int(account.supported[kind]["VCPU"]) for kind in account.instance_types if kind in account.supported)


def used_vcpus(account: Account, *, spot: bool) -> int:
    """vCPUs of the standard instances that run here and are not this environment's."""
    states = [{"Name": "instance-state-name", "Values": ["pending", "running"]}]
    return sum(
        one["CpuOptions"]["CoreCount"] * one["CpuOptions"]["ThreadsPerCore"]
        for page in account.client("ec2").get_paginator("describe_instances").paginate(Filters=states)
        for reservation in page["Reservations"]
        for one in reservation["Instances"]
        if STANDARD.match(one["InstanceType"])
        and (one.get("InstanceLifecycle") == "spot") is spot
        and not account.is_ours(one)
    )


def vpcs(account: Account) -> Need:
    return _whole(account, "AWS::EC2::VPC", "describe_vpcs", "Vpcs", "VPCs")


def addresses(account: Account) -> Need:
    return _whole(account, "AWS::EC2::EIP", "describe_addresses", "Addresses", "addresses")


def nat_gateways(account: Account) -> Need:
    """Counted in the zone where it is tightest; a gateway counts until it is deleted."""
    wanted = Counter(account.needs.nat_zones)
    if not wanted:
        return Need(0, 0, 0, "", "")
    ec2 = account.client("ec2")
    states = [{"Name": "state", "Values": ["pending", "available", "deleting"]}]
    gateways = [
        one
        for page in ec2.get_paginator("describe_nat_gateways").paginate(Filters=states)
        for one in page["NatGateways"]
        if not account.is_ours(one)
    ]
    zone_of: dict[str, str] = {}
    if gateways:
        pages = ec2.get_paginator("describe_subnets").paginate(SubnetIds=sorted({one["SubnetId"] for one in gateways}))
        zone_of = {one["SubnetId"]: one["AvailabilityZone"] for page in pages for one in page["Subnets"]}
    used = Counter(zone_of[one["SubnetId"]] for one in gateways)
    place = max(wanted, key=lambda zone: wanted[zone] + used[account.zones[zone]])
    needed = wanted[place]
    return Need(needed, needed, used[account.zones[place]], f"NAT gateways in {account.zones[place]}", "")


def interface_endpoints(account: Account) -> Need:
    """Of one VPC, which is ours alone."""
    needed = account.needs.interface_endpoints
    return Need(needed, needed, 0, "endpoints in our VPC", "")


def glue_dpus(account: Account) -> Need:
    """One job at least; all of them if every dataset runs at once. What others use Glue does not tell."""
    jobs, all_of_them = account.needs.glue_jobs, account.needs.glue_dpus
    return Need(all_of_them / max(jobs, 1), all_of_them, 0, "DPUs", "datasets that run at once wait for each other")


def glue_runs(account: Account) -> Need:
    return Need(1, account.needs.glue_jobs, 0, "runs at once", "datasets that run at once wait for each other")


def clusters(account: Account) -> Need:
    """One for each dataset's run while there is no workbench."""
    pages = account.client("emr").get_paginator("list_clusters").paginate(ClusterStates=ACTIVE_CLUSTERS)
    names = tuple({one.name for one in account.clusters})
    used = sum(not one["Name"].startswith(names) for page in pages for one in page["Clusters"])
    return Need(1, max(account.needs.machines, 1), used, "clusters at once", "datasets cannot all run at once")


def _whole(account: Account, kind: str, operation: str, key: str, unit: str) -> Need:
    needed = account.needs.counts.get(kind, 0)
    if not needed:
        return Need(0, 0, 0, "", "")
    found: list[dict[str, Any]] = getattr(account.client("ec2"), operation)()[key]
    return Need(needed, needed, sum(not account.is_ours(one) for one in found), unit, "")


def _number(value: float) -> str:
    return f"{value:.0f}" if value == int(value) else f"{value:.2f}"


QUOTAS = (
    Quota("ec2", "L-1216C47A", "on-demand vCPUs", on_demand),  # Running On-Demand Standard (A, C, D, H, I, M, R, T, Z)
    Quota("ec2", "L-34B43A08", "spot vCPUs", spot),  # All Standard (A, C, D, H, I, M, R, T, Z) Spot Instance Requests
    Quota("vpc", "L-F678F1CE", "VPCs", vpcs),  # VPCs per Region
    Quota("ec2", "L-0263D0A3", "elastic IPs", addresses),  # EC2-VPC Elastic IPs
    Quota("vpc", "L-FE5A380F", "NAT gateways", nat_gateways),  # NAT gateways per Availability Zone
    Quota("vpc", "L-29B6F2EB", "interface endpoints", interface_endpoints),  # Interface VPC endpoints per VPC
    Quota("glue", "L-08F3B322", "Glue DPUs", glue_dpus),  # Max task DPUs per account
    Quota("glue", "L-5E4153CA", "Glue job runs", glue_runs),  # Max concurrent job runs per account
    Quota("elasticmapreduce", "L-1EE7982C", "EMR clusters", clusters),  # active clusters that can run at the same time
)
CHECKS: tuple[Check[Account], ...] = tuple(
    Check(
        f"quota of {quota.title}",
        partial(look, quota),
        f"aws service-quotas get-service-quota --service-code {quota.service} --quota-code {quota.code}",
    )
    for quota in QUOTAS
)
