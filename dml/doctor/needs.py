"""What an environment's templates want of an account, read from a synthesised app (cdk.out) and from nothing else.

Templates speak CloudFormation's and EMR's language, which is AWS's to change, so no setting's name is known here.
"""

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dml.doctor.standins import StandIns
from stacks.definition import CERTIFIED

# DPUs of a Glue worker by type (Glue API Reference, "Jobs", WorkerType).
DPUS = {"G.025X": 0.25, "Standard": 1, "G.1X": 1, "G.2X": 2, "G.4X": 4, "G.8X": 8, "G.12X": 12, "G.16X": 16}
BOOTSTRAP = "bootstrapStackVersionSsmParameter"  # in the manifest: where the account keeps its bootstrap version
# Resources whose names the templates may fix, so that they can be taken already: where the name stands.
NAMES = {
    "AWS::CloudWatch::Dashboard": ("DashboardName",),
    "AWS::Glue::Classifier": ("CsvClassifier", "Name"),
    "AWS::Glue::Database": ("DatabaseInput", "Name"),
    "AWS::Glue::SecurityConfiguration": ("Name",),
    "AWS::KMS::Alias": ("AliasName",),
    "AWS::Logs::LogGroup": ("LogGroupName",),
    "AWS::SSM::Parameter": ("Name",),
}


@dataclass(frozen=True)
class Cluster:
    """An EMR cluster, the workbench or a transient one. Counts are machines, the primary one included."""

    name: str
    release: str
    applications: tuple[str, ...]
    instance_types: tuple[str, ...]
    minimum: int
    on_demand: int  # at the most
    spot: int  # at the most, beside those
    zones: tuple[int, ...]  # places in the region's list of zones, as Fn::GetAZs has it


@dataclass(frozen=True)
class Policy:
    """A policy's document as JSON. `kind`: IDENTITY_POLICY or RESOURCE_POLICY; `resource`: whose, where IAM asks."""

    where: str
    document: str
    kind: str
    resource: str = ""


@dataclass(frozen=True)
class Needs:
    """All that the checks of an account have to know."""

    stacks: tuple[str, ...]
    bootstrap_version: int
    bootstrap_parameter: str
    clusters: tuple[Cluster, ...]
    machines: int  # state machines: as many runs may go on at once
    glue_jobs: int
    glue_dpus: float  # of all jobs at once
    counts: Mapping[str, int]  # of resources, by type
    interface_endpoints: int
    nat_zones: tuple[int, ...]  # of each NAT gateway
    names: Mapping[str, tuple[str, ...]]  # fixed names, by resource type
    creates_databases: bool  # whether a role of ours may make a Glue database
    certified: bool = False  # whether runs look for the certificate of their cluster's nodes
    definitions: Mapping[str, str] = field(default_factory=dict)  # of state machines, by stack and logical id
    policies: tuple[Policy, ...] = ()
    templates: Mapping[str, str] = field(default_factory=dict)  # as JSON, by stack, in the order of a deploy


def read(assembly: Path) -> Needs:
    """The needs of a synthesised app; `assembly` is its folder, usually cdk.out."""
    artifacts = json.loads((assembly / "manifest.json").read_text())["artifacts"]
    stacks = {
        each["properties"].get("stackName", name): each["properties"]
        for name, each in artifacts.items()
        if each["type"] == "aws:cloudformation:stack"
    }
    by_stack = {name: json.loads((assembly / one["templateFile"]).read_text()) for name, one in stacks.items()}
    templates, filled = list(by_stack.values()), StandIns(by_stack)
    resources = [
        (each["Type"], each.get("Properties", {})) for one in templates for each in one.get("Resources", {}).values()
    ]
    zones = zones_of(templates)

    def of_type(kind: str) -> list[dict[str, Any]]:
        return [properties for one, properties in resources if one == kind]

    definitions = [json.loads(text(one["DefinitionString"])) for one in of_type("AWS::StepFunctions::StateMachine")]
    started = [request for definition in definitions for request in cluster_requests(definition)]
    clusters = [cluster(one, zones) for one in [*map(plain, of_type("AWS::EMR::Cluster")), *started]]
    jobs = of_type("AWS::Glue::Job")
    return Needs(
        stacks=tuple(stacks),
        bootstrap_version=max((one.get("requiresBootstrapStackVersion", 0) for one in stacks.values()), default=0),
        bootstrap_parameter=next((one[BOOTSTRAP] for one in stacks.values() if one.get(BOOTSTRAP)), ""),
        clusters=tuple(dict.fromkeys(clusters)),
        machines=sum(bool([*cluster_requests(definition)]) for definition in definitions),
        glue_jobs=len(jobs),
        glue_dpus=sum(DPUS[job["WorkerType"]] * job["NumberOfWorkers"] for job in jobs),
        counts={kind: len(of_type(kind)) for kind, _ in resources},
        interface_endpoints=sum(one.get("VpcEndpointType") == "Interface" for one in of_type("AWS::EC2::VPCEndpoint")),
        nat_zones=tuple(zones[text(one["SubnetId"])] for one in of_type("AWS::EC2::NatGateway")),
        names={kind: tuple(fixed_names(of_type(kind), path)) for kind, path in NAMES.items()},
        creates_databases=any("glue:CreateDatabase" in actions for actions in all_actions(resources)),
        certified=any(CERTIFIED in definition["States"] for definition in definitions),
        definitions=dict(definitions_of(by_stack, filled)),
        policies=tuple({one.document: one for one in policies_of(by_stack, filled)}.values()),
        templates={name: json.dumps(one, separators=(",", ":")) for name, one in by_stack.items()},
    )


def definitions_of(templates: Mapping[str, Any], filled: StandIns) -> Iterator[tuple[str, str]]:
    """The definition of each state machine, by where it stands."""
    for stack, template in templates.items():
        for name, resource in template.get("Resources", {}).items():
            if resource["Type"] == "AWS::StepFunctions::StateMachine":
                yield f"{stack}/{name}", filled.fill(template, resource["Properties"]["DefinitionString"])


# Where the policy of a resource type stands, and what IAM Access Analyzer calls the resource, if that matters to it.
RESOURCE_POLICIES = {
    "AWS::EC2::VPCEndpoint": ("PolicyDocument", ""),
    "AWS::KMS::Key": ("KeyPolicy", ""),
    "AWS::S3::BucketPolicy": ("PolicyDocument", "AWS::S3::Bucket"),
    "AWS::SNS::TopicPolicy": ("PolicyDocument", ""),
}


def policies_of(templates: Mapping[str, Any], filled: StandIns) -> Iterator[Policy]:
    """Every policy of the templates."""
    for stack, template in templates.items():
        for name, resource in template.get("Resources", {}).items():
            kind, properties, where = resource["Type"], resource.get("Properties", {}), f"{stack}/{name}"

            def text(document: Any, template: Any = template) -> str:
                return json.dumps(filled.fill(template, document))

            if kind in ("AWS::IAM::Policy", "AWS::IAM::ManagedPolicy"):
                yield Policy(where, text(properties["PolicyDocument"]), "IDENTITY_POLICY")
            elif kind == "AWS::IAM::Role":
                trust = text(properties["AssumeRolePolicyDocument"])
                yield Policy(f"{where}, trust", trust, "RESOURCE_POLICY", "AWS::IAM::AssumeRolePolicyDocument")
                for one in properties.get("Policies", []):
                    yield Policy(f"{where}, {one['PolicyName']}", text(one["PolicyDocument"]), "IDENTITY_POLICY")
            elif kind in RESOURCE_POLICIES and RESOURCE_POLICIES[kind][0] in properties:
                place, whose = RESOURCE_POLICIES[kind]
                yield Policy(where, text(properties[place]), "RESOURCE_POLICY", whose)


def zones_of(templates: list[dict[str, Any]]) -> dict[str, int]:
    """The zone of each subnet, as a place in Fn::GetAZs, by the texts that stand for the subnet in any template."""
    found = {}
    for template in templates:
        for name, resource in template.get("Resources", {}).items():
            match resource:
                case {"Type": "AWS::EC2::Subnet", "Properties": {"AvailabilityZone": {"Fn::Select": [place, _]}}}:
                    found[text({"Ref": name})] = int(place)
    for template in templates:
        for output in template.get("Outputs", {}).values():
            if "Export" in output and (zone := found.get(text(output["Value"]))) is not None:
                found[text({"Fn::ImportValue": output["Export"]["Name"]})] = zone
    for template in templates:  # what a run reads of the network stack's parameter (stacks/emr.py, Place.of_run)
        for resource in template.get("Resources", {}).values():
            value = text(resource.get("Properties", {}).get("Value", ""))
            if resource["Type"] == "AWS::SSM::Parameter" and value.startswith('{"subnets"'):
                for place, subnet in enumerate(json.loads(value)["subnets"]):
                    found[f"{{% $network.subnets[{place}] %}}"] = found[subnet]
    return found


def text(value: Any) -> str:
    """A template's value as text; what is known only when deployed stands in it as <its name>."""
    match value:
        case {"Fn::Join": [separator, parts]}:
            return str(separator).join(text(part) for part in parts)
        case {"Ref": name} | {"Fn::ImportValue": name}:
            return f"<{text(name)}>"
        case {"Fn::GetAtt": [name, attribute]}:
            return f"<{name}.{attribute}>"
        case {"Fn::Sub": [pattern, _]} | {"Fn::Sub": pattern}:
            return re.sub(r"\$\{([^}]+)\}", r"<\1>", str(pattern))
        case dict():
            return f"<{next(iter(value))}>"
    return str(value)


def plain(value: Any) -> Any:
    """A template's value with everything that is known only when deployed as text."""
    match value:
        case {"Ref": _} | {"Fn::Join": _} | {"Fn::ImportValue": _} | {"Fn::GetAtt": _} | {"Fn::Sub": _}:
            return text(value)
        case dict():
            return {key: plain(inner) for key, inner in value.items()}
        case list():
            return [plain(inner) for inner in value]
    return value


def cluster_requests(value: Any) -> Iterator[dict[str, Any]]:
    """The parameters of each createCluster in a state machine's definition: they are those of EMR's RunJobFlow."""
    if isinstance(value, dict):
        if "ReleaseLabel" in value and "Instances" in value:
            yield value
        else:
            for inner in value.values():
                yield from cluster_requests(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from cluster_requests(inner)


def cluster(given: dict[str, Any], zones: Mapping[str, int]) -> Cluster:
    """One cluster, from AWS::EMR::Cluster's properties or RunJobFlow's parameters; the two differ little.

    Managed scaling counts all nodes but the primary one (EMR Management Guide, "Using managed scaling").
    """
    instances, limits = given["Instances"], given["ManagedScalingPolicy"]["ComputeLimits"]
    minimum, maximum = int(limits["MinimumCapacityUnits"]), int(limits["MaximumCapacityUnits"])
    spot = "SPOT" in values(instances, "Market") or any(map(int, values(instances, "TargetSpotCapacity")))
    spot = spot or bool(values(instances, "SpotSpecification"))
    # Managed scaling adds nodes by the market that its limits leave room for; without that limit all are on demand.
    on_demand = int(limits.get("MaximumOnDemandCapacityUnits", minimum if spot else maximum))
    subnets = values(instances, "Ec2SubnetId")
    for some in values(instances, "Ec2SubnetIds"):
        subnets += [one for one in zones if "$network" in one] if isinstance(some, str) else some
    return Cluster(
        name=re.sub(r"^\{% '(\S+).*%\}$", r"\1", given["Name"]),  # a run's own cluster has its run's id behind that
        release=given["ReleaseLabel"],
        applications=tuple(one["Name"] for one in given["Applications"]),
        instance_types=tuple(dict.fromkeys(values(instances, "InstanceType"))),
        minimum=1 + minimum,
        on_demand=1 + on_demand,
        spot=maximum - on_demand,
        zones=tuple(sorted({zones[subnet] for subnet in subnets})),
    )


def values(value: Any, key: str) -> list[Any]:
    """All that stands under a key, however deep."""
    if isinstance(value, dict):
        inner = [found for each in value.values() for found in values(each, key)]
        return [value[key], *inner] if key in value else inner
    if isinstance(value, list):
        return [found for each in value for found in values(each, key)]
    return []


def fixed_names(resources: list[dict[str, Any]], path: tuple[str, ...]) -> Iterator[str]:
    """The names that are plain text in the template; others CloudFormation makes up, and they are never taken."""
    for properties in resources:
        value: Any = properties
        for key in path:
            value = value.get(key) if isinstance(value, dict) else None
        if isinstance(value, str):
            yield value


def all_actions(resources: list[tuple[str, dict[str, Any]]]) -> Iterator[list[str]]:
    """The actions of every statement of our roles and policies."""
    for kind, properties in resources:
        if kind in ("AWS::IAM::Role", "AWS::IAM::Policy", "AWS::IAM::ManagedPolicy"):
            for actions in values(properties, "Action"):
                yield [actions] if isinstance(actions, str) else actions
