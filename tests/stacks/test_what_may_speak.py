"""No security group of any environment lets more in or out than docs/security.md says."""

from collections.abc import Iterator
from typing import Any

import pytest

from tests.stacks.conftest import STACKS, Synth, Synthesized, plain
from tests.tables import table

Rule = tuple[str, str, str]


def name(group: Any) -> str:
    """Of a group of a template: `primary`."""
    return plain(group).partition(".")[0].removesuffix("Group").lower()


def ports(rule: dict[str, Any]) -> str:
    protocol = str(rule["IpProtocol"])
    first, last = rule.get("FromPort", -1), rule.get("ToPort", -1)
    if protocol == "-1":
        return "everything"
    if first == -1:
        return protocol
    return f"{protocol} {first}" if first == last else f"{protocol} {first}-{last}"


def rules(synthesized: Synthesized) -> Iterator[tuple[str, Rule]]:
    """Each rule as direction, and whose it is, the other side, and what may pass."""
    for stack in STACKS:
        for logical, resource in synthesized.templates[stack]["Resources"].items():
            given = resource.get("Properties", {})
            if resource["Type"] == "AWS::EC2::SecurityGroup":
                whose = name({"Ref": logical})
                yield from (("in", (whose, peer(rule), ports(rule))) for rule in given.get("SecurityGroupIngress", []))
                yield from (("out", (whose, peer(rule), ports(rule))) for rule in given.get("SecurityGroupEgress", []))
            elif resource["Type"] == "AWS::EC2::SecurityGroupIngress":
                yield "in", (name(given["GroupId"]), peer(given), ports(given))
            elif resource["Type"] == "AWS::EC2::SecurityGroupEgress":
                yield "out", (name(given["GroupId"]), peer(given), ports(given))


def peer(rule: dict[str, Any]) -> str:
    for key in ("SourceSecurityGroupId", "DestinationSecurityGroupId"):
        if key in rule:
            return name(rule[key])
    return next(
        plain(rule[key]) for key in sorted(rule) if key not in ("Description", "IpProtocol", "FromPort", "ToPort")
    )


def told(direction: str) -> set[Rule]:
    """What the table allows: its cells may name several, with commas between them."""
    return {
        (whose, other, what)
        for row in table("What may speak to what on AWS")
        if row[0] == direction
        for whose in row[1].split(", ")
        for other in row[2].split(", ")
        for what in row[3].split(", ")
    }


@pytest.mark.parametrize("environment", ["dev", "prod", "other"])
@pytest.mark.parametrize("direction", ["in", "out"])
def test_no_rule_should_be_wider_than_the_table_says(synth: Synth, environment: str, direction: str) -> None:
    found = {rule for way, rule in rules(synth(environment)) if way == direction}
    assert found
    assert not found - told(direction)


def test_each_row_of_the_table_should_be_a_rule_of_some_environment(synth: Synth) -> None:
    found = {(way, rule) for environment in ("dev", "other") for way, rule in rules(synth(environment))}
    assert {(way, rule) for way in ("in", "out") for rule in told(way)} == found


def test_nothing_should_join_the_clusters_network_to_another(synth: Synth) -> None:
    for environment in ("dev", "prod", "other"):
        kinds = {one["Type"] for stack in STACKS for one in synth(environment).templates[stack]["Resources"].values()}
        assert not {kind for kind in kinds if "Peering" in kind or "TransitGateway" in kind or "VPNGateway" in kind}
