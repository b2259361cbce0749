"""The templates that ship, synthesized once a session for each environment, with the feature flags of cdk.json."""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aws_cdk as cdk
import pytest
from cdk_nag import AwsSolutionsChecks

from app import build
from datasets import load_dataset
from stacks.outputs import SHARED
from stacks.settings import Environment, load_environment

ROOT = Path(__file__).parent.parent.parent
DATASET = "nyc-flights"  # the one dataset's stack
STACKS = (*SHARED, DATASET)
STANDS_FOR = {"AWS::Partition": "aws", "AWS::Region": "us-east-1", "AWS::AccountId": "123456789012"}


@dataclass(frozen=True)
class Synthesized:
    """An environment's templates by stack, and the folder with them as files."""

    environment: str
    folder: Path
    templates: dict[str, dict[str, Any]]
    refused: str  # what cdk-nag has against it

    def resources(self, stack: str, kind: str) -> list[dict[str, Any]]:
        """The properties of the stack's resources of one type."""
        found = self.templates[stack]["Resources"].values()
        return [resource.get("Properties", {}) for resource in found if resource["Type"] == kind]

    def only(self, stack: str, kind: str) -> dict[str, Any]:
        (properties,) = self.resources(stack, kind)
        return properties

    def statements(self) -> Iterator[tuple[str, dict[str, Any]]]:
        """Every statement of every role's policies, with the stack it is in."""
        for stack in self.templates:
            for role in self.resources(stack, "AWS::IAM::Role"):
                for policy in role.get("Policies", []):
                    for statement in policy["PolicyDocument"]["Statement"]:
                        yield stack, statement
            for policy in self.resources(stack, "AWS::IAM::Policy"):
                for statement in policy["PolicyDocument"]["Statement"]:
                    yield stack, statement

    def statement(self, stack: str, sid: str) -> dict[str, Any]:
        found = [statement for where, statement in self.statements() if where == stack and statement.get("Sid") == sid]
        assert len(found) == 1, f"{len(found)} statements {sid} in {stack}"
        return found[0]

    def definition(self) -> dict[str, Any]:
        """The state machine of the dataset."""
        machine = self.only(DATASET, "AWS::StepFunctions::StateMachine")
        found: dict[str, Any] = json.loads(plain(machine["DefinitionString"]))
        return found


def plain(value: Any) -> str:
    """A template value as text, with something readable for what is known only when deployed."""
    match value:
        case str():
            return value
        case {"Fn::Join": [separator, parts]}:
            return str(separator).join(plain(part) for part in parts)
        case {"Fn::Sub": text}:
            for name, stand_in in STANDS_FOR.items():
                text = text.replace(f"${{{name}}}", stand_in)
            return str(text)
        case {"Ref": name}:
            return STANDS_FOR.get(name, str(name))
        case {"Fn::GetAtt": [name, attribute]}:
            return f"{name}.{attribute}"
        case {"Fn::ImportValue": export}:
            return str(export)
    raise AssertionError(f"cannot read {value}")


Synth = Callable[[str], Synthesized]


def synthesize(environment: Environment, folder: Path) -> Synthesized:
    """Builds what `cdk deploy -c env=...` would deploy for one dataset."""
    context = json.loads((ROOT / "cdk.json").read_text())["context"]
    app = cdk.App(context=context, outdir=str(folder))
    cdk.Validations.of(app).add_plugins(AwsSolutionsChecks(app, verbose=True))
    build(app, environment, [load_dataset("nyc_flights")])
    refused = ""
    try:
        app.synth()
    except RuntimeError as error:  # the templates are there all the same
        refused = str(error)
    templates = {
        stack: json.loads((folder / f"dml-{environment.name}-{stack}.template.json").read_text()) for stack in STACKS
    }
    return Synthesized(environment.name, folder, templates, refused)


@pytest.fixture(scope="session")
def synth(tmp_path_factory: pytest.TempPathFactory) -> Synth:
    """synth("dev") builds an environment as it ships; synth("other") one that chooses differently. Once a session.

    Of what prod might choose, "other" takes what neither of them does: endpoints instead of NAT, x86, a workbench made
    of fleets.
    """
    made: dict[str, Synthesized] = {}

    def build_once(name: str) -> Synthesized:
        if name not in made:
            environment = other() if name == "other" else load_environment(name)
            made[name] = synthesize(environment, tmp_path_factory.mktemp(name))
        return made[name]

    return build_once


def other() -> Environment:
    settings = load_environment("prod").model_dump(mode="json")
    settings["name"] = "other"
    settings["network"]["egress"] = "endpoints"
    settings["workbench"]["enabled"] = True
    settings["cluster"] |= {"processor": "x86", "instance_types": ["m6i.2xlarge", "m5.2xlarge"]}
    settings["notifications"]["email"] = "somebody@example.com"
    return Environment.model_validate(settings)


@pytest.fixture(scope="session")
def dev(synth: Synth) -> Synthesized:
    return synth("dev")


@pytest.fixture(scope="session")
def prod(synth: Synth) -> Synthesized:
    return synth("prod")
