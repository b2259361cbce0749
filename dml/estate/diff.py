"""`dml diff`: what an update would do to the deployed stacks, before it does it: above all, what it would replace.

Both sides are templates: the deployed ones as CloudFormation has them, the new ones as this checkout synthesizes them.
Which changed property replaces its resource is said by the resource types' own schemas (`createOnlyProperties`), which
cfn-lint carries along.
"""

import json
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from functools import cache
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape

from dml import cdk
from dml.errors import UserError
from dml.estate.platform import Platform, answering
from stacks.outputs import dataset_of

REGION = "us-east-1"  # whose schemas are read: they say the same everywhere
Template = Mapping[str, Any]


class Action(StrEnum):
    ADD = "add"
    CHANGE = "change"
    MAY_REPLACE = "may replace"  # it depends on the property's old and new value
    REPLACE = "replace"
    DELETE = "delete"


# What the schema of AWS::EMR::Cluster leaves open: all of Instances but these is fixed with the cluster (the type's
# reference, JobFlowInstancesConfig, "Update requires").
CLUSTER_INSTANCES_IN_PLACE = ("TerminationProtected", "TaskInstanceGroups", "TaskInstanceFleets")

# What a replacement or a deletion means to whoever works with it; types that nobody would miss are left out.
MEANS = {
    "AWS::EMR::Cluster": "notes are kept in S3; steps that run are lost, and so is what only HDFS or a notebook holds",
    "AWS::S3::Bucket": "the objects stay in the old bucket, and nothing looks for them there any more",
    "AWS::Glue::Database": "its tables are not carried over: crawl and prepare again",
    "AWS::Glue::Crawler": "its history is lost",
    "AWS::Glue::Job": "its run history is lost, and a run under way fails",
    "AWS::StepFunctions::StateMachine": "the history of its runs is lost, and a run under way is stopped",
    "AWS::SNS::Topic": "subscribers have to confirm again",
    "AWS::SNS::Subscription": "the receiver has to confirm again",
    "AWS::KMS::Key": "what the old key has encrypted needs the old key, as long as it is kept",
    "AWS::SecretsManager::Secret": "Zeppelin's password is made anew, for workbenches that start afterwards",
    "AWS::EC2::VPC": "everything in it is replaced too",
    "AWS::EC2::NatGateway": "the address that others see changes, and connections break",
    "AWS::EC2::EIP": "the address that others see changes",
    "AWS::Logs::LogGroup": "its log events are not carried over",
}


@dataclass(frozen=True)
class Change:
    """What would happen to one resource. `because`: what differs in it; of a replacement, what causes that."""

    stack: str
    resource: str  # its logical id
    type: str
    action: Action
    because: tuple[str, ...] = ()
    kept: bool = False  # is the old one left in the account (its DeletionPolicy or UpdateReplacePolicy)
    means: str = ""


@dataclass(frozen=True)
class Refusal:
    """What CloudFormation would not do to a stack. `delete_first`: the stack that is in the way, if that helps."""

    stack: str
    why: str
    way_out: str
    delete_first: str = ""


@dataclass(frozen=True)
class Report:
    """All that an update would do."""

    environment: str
    changes: list[Change]
    refused: list[Refusal]
    left: list[str] = field(default_factory=list)  # stacks that stand and this checkout has not: no deploy touches them

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


def diff(platform: Platform) -> Report:
    """What deploying this checkout would do to the environment that `platform` shows. Raises UserError."""
    with tempfile.TemporaryDirectory() as folder:
        new, after = synthesized(platform.environment, Path(folder))
    return compare(platform.environment, deployed(platform), new, after)


def deployed(platform: Platform) -> dict[str, Template]:
    """The environment's templates by stack, as CloudFormation has them, whether this checkout has them or not."""
    cloudformation = platform.client("cloudformation")
    found: dict[str, Template] = {}
    with answering("read the templates"):
        for page in cloudformation.get_paginator("describe_stacks").paginate():
            for name in (one["StackName"] for one in page["Stacks"]):
                if name.startswith(platform.prefix):
                    body = cloudformation.get_template(StackName=name)["TemplateBody"]
                    found[name] = json.loads(body) if isinstance(body, str) else body
    return found


def synthesized(environment: str, folder: Path) -> tuple[dict[str, Template], dict[str, set[str]]]:
    """This checkout's templates by stack, and for each stack those that are deployed before it."""
    try:
        cdk.synthesize(environment, folder)
    except cdk.SynthError as error:
        told = error.said.strip() if str(error) in error.said else str(error)
        raise UserError(f"This checkout does not synthesize: {told}") from None
    return read_assembly(folder)


def read_assembly(folder: Path) -> tuple[dict[str, Template], dict[str, set[str]]]:
    """The templates of a cloud assembly by stack, and for each stack those that are deployed before it."""
    artifacts = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))["artifacts"]
    stacks = {name: one for name, one in artifacts.items() if one["type"] == "aws:cloudformation:stack"}
    templates = {
        name: json.loads((folder / one["properties"]["templateFile"]).read_text(encoding="utf-8"))
        for name, one in stacks.items()
    }

    def before(name: str) -> set[str]:
        direct = {other for other in stacks[name].get("dependencies", []) if other in stacks}
        return direct.union(*map(before, direct))

    return templates, {name: before(name) for name in stacks}


def compare(
    environment: str, old: Mapping[str, Template], new: Mapping[str, Template], after: Mapping[str, set[str]]
) -> Report:
    """The changes from the templates `old` to `new`. `after`: for each new stack, those that are deployed before it."""
    changes = [change for name in new for change in changes_of(name, old.get(name, {}), new[name])]
    refused = [*exports_in_use(old, new, after, changes), *names_in_use(old, new, after, changes)]
    return Report(environment, changes, refused, [name for name in old if name not in new])


def changes_of(stack: str, old: Template, new: Template) -> Iterator[Change]:
    """What becomes of one stack's resources; a replacement is followed to what it replaces in turn."""
    before, now = _resources(old), _resources(new)
    both = [name for name in now if name in before]
    differing = {name: _differing(before[name], now[name]) for name in both}
    causes = {name: _replacing(now[name]["Type"], differing[name]) for name in both}
    for name in both:
        if before[name]["Type"] != now[name]["Type"]:
            causes[name] = {"Type": Action.REPLACE}
    _follow(now, causes)
    for name, resource in now.items():
        kind = resource["Type"]
        if name not in before:
            yield Change(stack, name, kind, Action.ADD)
        elif Action.REPLACE in causes[name].values():
            because = tuple(path for path, action in causes[name].items() if action == Action.REPLACE)
            kept = before[name].get("UpdateReplacePolicy") == "Retain"
            yield Change(stack, name, kind, Action.REPLACE, because, kept, MEANS.get(kind, ""))
        elif causes[name]:
            yield Change(stack, name, kind, Action.MAY_REPLACE, tuple(causes[name]), means=MEANS.get(kind, ""))
        elif differing[name]:
            yield Change(stack, name, kind, Action.CHANGE, tuple(differing[name]))
    for name in before.keys() - now.keys():
        kind, kept = before[name]["Type"], before[name].get("DeletionPolicy", "").startswith("Retain")
        yield Change(stack, name, kind, Action.DELETE, kept=kept, means="" if kept else MEANS.get(kind, ""))


def _resources(template: Template) -> dict[str, Any]:
    found: Mapping[str, Any] = template.get("Resources", {})
    return {name: one for name, one in found.items() if one["Type"] != "AWS::CDK::Metadata"}


def _differing(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """The paths of the properties that differ, as schemas write them, without list positions: /BootstrapActions."""
    return list(dict.fromkeys(_paths("", old.get("Properties", {}), new.get("Properties", {}))))


def _paths(path: str, old: Any, new: Any) -> Iterator[str]:
    if old == new:
        return
    # {"Ref": ...} and {"Fn::...": ...} are values, not structures.
    if not (isinstance(old, dict) and isinstance(new, dict)) or any(
        key == "Ref" or key.startswith("Fn::") for key in (*old, *new)
    ):
        yield path
        return
    for key in dict.fromkeys((*old, *new)):
        yield from _paths(f"{path}/{key}", old.get(key), new.get(key))


def _replacing(kind: str, differing: list[str]) -> dict[str, Action]:
    """The properties that replace the resource, or may do so, because something in them differs."""
    found = {}
    for path in differing:
        for fixed, action in _fixed(kind).items():
            if path == fixed or path.startswith(f"{fixed}/") or fixed.startswith(f"{path}/"):
                found[fixed] = action
        _, _, within = path.partition("/Instances/")
        if kind == "AWS::EMR::Cluster" and within and within.split("/")[0] not in CLUSTER_INSTANCES_IN_PLACE:
            found[path] = Action.REPLACE
    return found


@cache
def _fixed(kind: str) -> dict[str, Action]:
    """The properties of a type that an update cannot change in place; those that it can only sometimes come last."""
    schema = _schema(kind)
    fixed = [(path, Action.REPLACE) for path in schema.get("createOnlyProperties", [])]
    fixed += [(path, Action.MAY_REPLACE) for path in schema.get("conditionalCreateOnlyProperties", [])]
    return {path.removeprefix("/properties"): action for path, action in fixed}


@cache
def _schema(kind: str) -> dict[str, Any]:
    """A resource type's schema; {} for a type that only its own account knows."""
    # Slow to load, and only needed here; it has no types.
    from cfnlint.schema import PROVIDER_SCHEMA_MANAGER, ResourceNotFoundError  # type: ignore[import-untyped]

    try:
        found: dict[str, Any] = PROVIDER_SCHEMA_MANAGER.get_resource_schema(REGION, kind).schema
    except ResourceNotFoundError:
        return {}
    return found


def _follow(resources: Mapping[str, Any], causes: dict[str, dict[str, Action]]) -> None:
    """A replaced resource has another id: where that is a fixed property of a second one, it is replaced as well."""
    replaced = [name for name, found in causes.items() if Action.REPLACE in found.values()]
    for gone in replaced:  # grows while it is walked through
        for name in causes:
            kind, properties = resources[name]["Type"], resources[name].get("Properties", {})
            caused = _replacing(kind, [path for path, named in _named("", properties) if named == gone])
            new = {f"{path} ({gone} is replaced)": action for path, action in caused.items()}
            if new.keys() - causes[name].keys():
                causes[name] |= new
                if Action.REPLACE in new.values() and name not in replaced:
                    replaced.append(name)


def _named(path: str, value: Any) -> Iterator[tuple[str, str]]:
    """The logical ids that properties name, each with the path of the property."""
    if isinstance(value, dict) and not any(key == "Ref" or key.startswith("Fn::") for key in value):
        for key, inner in value.items():
            yield from _named(f"{path}/{key}", inner)
    else:
        yield from ((path, name) for name in _references(value))


def _references(value: Any) -> set[str]:
    """The logical ids that a value names by Ref, Fn::GetAtt or Fn::Sub."""
    match value:
        case {"Ref": str(name)}:
            return {name}
        case {"Fn::GetAtt": [name, *_]}:
            return {name}
        case {"Fn::Sub": text}:
            text = text if isinstance(text, str) else text[0]
            return {part.partition("}")[0].partition(".")[0] for part in text.split("${")[1:]}
        case dict():
            return set().union(*map(_references, value.values()))
        case list():
            return set().union(*map(_references, value))
    return set()


# --- what CloudFormation would refuse ---


def exports_in_use(
    old: Mapping[str, Template], new: Mapping[str, Template], after: Mapping[str, set[str]], changes: list[Change]
) -> Iterator[Refusal]:
    """An export that another stack imports may neither go nor change, until that stack has let go of it."""
    replaced = {(one.stack, one.resource) for one in changes if one.action is Action.REPLACE}
    for stack, template in old.items():
        if stack not in new:
            continue  # it stays as it is
        exports = _exports(new[stack])
        for export, value in _exports(template).items():
            moved = any((stack, name) in replaced for name in _references(value))
            if exports.get(export) == value and not moved:
                continue
            for user, other in old.items():
                if export not in _imports(other):
                    continue
                lets_go = export not in _imports(new.get(user, {}))
                if lets_go and user in after.get(stack, set()):
                    continue
                yield Refusal(
                    stack,
                    f"its export {export} {'changes' if export in exports else 'goes'} while {user} uses it",
                    f"delete {user} first (aws cloudformation delete-stack --stack-name {user})"
                    + ("; deploying makes it again" if user in new else ""),
                    delete_first=user,
                )


def names_in_use(
    old: Mapping[str, Template], new: Mapping[str, Template], after: Mapping[str, set[str]], changes: list[Change]
) -> Iterator[Refusal]:
    """A resource with a name of its own cannot be made while another has that name, in whatever stack."""
    taken = {
        identity: (stack, name, resource)
        for stack, template in old.items()
        for name, resource in _resources(template).items()
        if (identity := _identity(resource))
    }
    for change in changes:
        if change.action not in (Action.ADD, Action.REPLACE):
            continue
        identity = _identity(new[change.stack]["Resources"][change.resource])
        if identity not in taken:
            continue
        stack, name, resource = taken[identity]
        gone = name not in _resources(new.get(stack, {}))
        stays = resource.get("DeletionPolicy", "").startswith("Retain")
        # CloudFormation adopts what it finds if both sides keep it (--import-existing-resources, as `dml resume` asks).
        adopts = new[change.stack]["Resources"][change.resource].get("DeletionPolicy", "").startswith("Retain")
        if gone and (adopts or not stays) and stack in after.get(change.stack, set()):
            continue
        if stack not in new and not stays:
            yield Refusal(
                change.stack,
                f"{change.resource} needs the name {identity.partition(' ')[2]}, which {name} of {stack} has",
                f"delete {stack} first (aws cloudformation delete-stack --stack-name {stack})",
                delete_first=stack,
            )
            continue
        kept = ", which is kept when it is taken out" if gone and stays else ""
        yield Refusal(
            change.stack,
            f"{change.resource} needs the name {identity.partition(' ')[2]}, which {name} of {stack} has{kept}",
            "give the new one another name",
        )


def _exports(template: Template) -> dict[str, Any]:
    outputs = template.get("Outputs", {}).values()
    return {
        one["Export"]["Name"]: one["Value"] for one in outputs if isinstance(one.get("Export", {}).get("Name"), str)
    }


def _imports(value: Any) -> set[str]:
    match value:
        case {"Fn::ImportValue": str(export)}:
            return {export}
        case dict():
            return set().union(*map(_imports, value.values()))
        case list():
            return set().union(*map(_imports, value))
    return set()


def _identity(resource: Mapping[str, Any]) -> str:
    """Type and name of a resource whose template names it; "" if CloudFormation does, or the name is not yet known."""
    kind, properties = resource["Type"], resource.get("Properties", {})
    if kind == "AWS::Glue::Database":  # whose name may be said in either place
        properties = {"DatabaseName": properties.get("DatabaseInput", {}).get("Name"), **properties}
    named = []
    for path in _schema(kind).get("primaryIdentifier", []):
        value: Any = properties
        for key in path.removeprefix("/properties/").split("/"):
            value = value.get(key) if isinstance(value, dict) else None
        if value is None or any(not name.startswith("AWS::") for name in _references(value)):
            return ""
        named.append(value if isinstance(value, str) else json.dumps(value, sort_keys=True))
    return f"{kind} {'|'.join(named)}" if named else ""


# --- for people ---

STYLES = {
    Action.ADD: "green",
    Action.CHANGE: "yellow",
    Action.MAY_REPLACE: "bold yellow",
    Action.REPLACE: "bold red",
    Action.DELETE: "red",
}


def show(console: Console, report: Report, command: Callable[[str], str]) -> None:
    """The report in words, stack by stack; what is replaced says why, and what that means.

    `command`: a `dml` command as it is typed for this environment.
    """
    counts = {action: sum(one.action == action for one in report.changes) for action in Action}
    for name in report.left:
        part = name.removeprefix(f"dml-{report.environment}-")
        told = (
            f"of a former release: `{command('resume')}` takes it away and deploys"
            if (dataset := dataset_of(part)) is None
            else f"of a dataset that this checkout has not: it stays until `{command(f'dataset remove {dataset}')}`"
        )
        console.print(f"[bold]{name}[/bold] is {escape(told)}.", highlight=False, soft_wrap=True)
    if not report.changes:
        console.print(f"{report.environment} is what this checkout says: nothing would change.", highlight=False)
        return
    told = ", ".join(f"{count} to {action}" for action, count in counts.items() if count)
    console.print(f"[bold]{report.environment}[/bold]: {told}", highlight=False)
    for stack in dict.fromkeys(one.stack for one in report.changes):
        console.print(f"\n[bold]{stack}[/bold]", highlight=False)
        for one in sorted((one for one in report.changes if one.stack == stack), key=lambda one: -_weight(one)):
            style = STYLES[one.action]
            console.print(f"  [{style}]{one.action:<11}[/{style}] {escape(one.resource)}  [dim]{one.type}[/dim]")
            if one.action is not Action.CHANGE and one.because:
                console.print(f"              because of {escape(', '.join(one.because))}", highlight=False)
            if one.kept:
                console.print("              the old one is kept", highlight=False)
            if one.means:
                console.print(f"              {escape(one.means)}", highlight=False)
    for refusal in report.refused:
        text = escape(f"{refusal.stack}: {refusal.why}. The way out: {refusal.way_out}.")
        console.print(f"\n[bold red]refused[/bold red] {text}", highlight=False, soft_wrap=True)


def _weight(change: Change) -> int:
    return list(Action).index(change.action)
