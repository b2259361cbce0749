"""The synthesized templates of an environment, of this checkout or another git revision, and what refers to what."""

import io
import json
import re
import subprocess
import tarfile
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from dml import cdk
from dml.checkout import PROJECT
from dml.errors import UserError

Template = Mapping[str, Any]


@dataclass(frozen=True, eq=False)
class Resource:
    """One resource of a template, equal to itself only. `stack` is the short name, such as network."""

    stack: str
    name: str
    type: str
    properties: Mapping[str, Any]


class Assembly:
    """The templates of one environment's stacks, by short name."""

    def __init__(self, environment: str, templates: Mapping[str, Template]) -> None:
        self.environment = environment
        self.templates = templates

    @cached_property
    def resources(self) -> list[Resource]:
        return [
            Resource(stack, name, resource["Type"], resource.get("Properties", {}))
            for stack, template in self.templates.items()
            for name, resource in template.get("Resources", {}).items()
        ]

    def referred(self, stack: str, value: Any) -> Resource | None:
        """The resource that a Ref, a GetAtt or an import in one of the stacks means, if it is one of ours."""
        match value:
            case {"Ref": str(name)} | {"Fn::GetAtt": [str(name), *_]}:
                return self._named.get((stack, name))
            case {"Fn::ImportValue": str(export)}:
                return self._exported.get(export)
        return None

    @cached_property
    def _named(self) -> dict[tuple[str, str], Resource]:
        return {(resource.stack, resource.name): resource for resource in self.resources}

    @cached_property
    def _exported(self) -> dict[str, Resource]:
        return {
            output["Export"]["Name"]: resource
            for stack, template in self.templates.items()
            for output in template.get("Outputs", {}).values()
            if "Export" in output and (resource := self.referred(stack, output["Value"]))
        }

    def text(self, stack: str, value: Any) -> str:
        """A string with joins done; what is known only when deployed becomes <STACK/NAME> of the resource, or <?>."""
        if isinstance(value, str):
            return value
        if isinstance(value, Mapping) and "Fn::Join" in value:
            separator, parts = value["Fn::Join"]
            return str(separator).join(self.text(stack, part) for part in parts)
        found = self.referred(stack, value)
        return f"<{found.stack}/{found.name}>" if found else "<?>"

    def marked(self, text: str) -> Resource | None:
        """The resource that `text` stands for in place of (see `text`)."""
        found = re.fullmatch(r"<([^/]+)/([^>]+)>", text)
        return self._named.get((found[1], found[2])) if found else None


def read(folder: Path) -> Iterator[Assembly]:
    """Every environment that a folder such as cdk.out holds. Raises UserError if it is no such folder."""
    found: dict[str, dict[str, Template]] = {}
    for file in sorted(folder.glob("dml-*.template.json")):
        _, environment, stack = file.name.removesuffix(".template.json").split("-", 2)
        found.setdefault(environment, {})[stack] = json.loads(file.read_text(encoding="utf-8"))
    if not found:
        raise UserError(f"{folder} holds no templates of dml (dml-ENV-STACK.template.json): give what cdk synth made.")
    for environment, templates in found.items():
        yield Assembly(environment, templates)


def synthesize(environment: str, *, project: Path = PROJECT) -> Assembly:
    """What `cdk synth -c env=ENVIRONMENT` would make of a checkout: the app is run as the CDK CLI runs it.

    Raises UserError with what the app says if it refuses.
    """
    with tempfile.TemporaryDirectory(prefix="dml-cost-") as folder:
        try:
            cdk.synthesize(environment, Path(folder), project=project)
        except cdk.SynthError as error:
            raise UserError(f"The app made no templates of {environment}: {str(error).rstrip('.')}.") from None
        for assembly in read(Path(folder)):
            if assembly.environment == environment:
                return assembly
    raise UserError(f"The app made no stacks named dml-{environment}-STACK.")


def synthesize_revision(revision: str, environment: str, *, project: Path = PROJECT) -> Assembly:
    """The same of a git revision, from a copy in a temporary folder: the checkout and its index stay as they are.

    It runs with this checkout's packages. Raises UserError if there is no such revision, or its app refuses.
    """
    packed = subprocess.run(
        ["git", "archive", "--format=tar", "--end-of-options", revision], cwd=project, capture_output=True, check=False
    )
    if packed.returncode:
        raise UserError(
            f"git knows no revision {revision!r} here: {_last(packed.stderr.decode(errors='replace'))}. "
            "Give a branch, a tag, a commit, or a folder that cdk synth made."
        )
    with tempfile.TemporaryDirectory(prefix="dml-cost-") as folder:
        copy = Path(folder)
        with tarfile.open(fileobj=io.BytesIO(packed.stdout)) as archive:
            archive.extractall(copy)  # noqa: S202  # git's own archive of this repository; Python 3.11.2 has no filter
        if not (copy / "environments" / f"{environment}.toml").is_file():
            raise UserError(f"Revision {revision} has no environment {environment}.")
        _stand_in_for_wheels(copy)
        try:
            return synthesize(environment, project=copy)
        except UserError as error:
            raise UserError(
                f"Revision {revision} can't be synthesized with this checkout's packages: {error} "
                "Do it where its own are, and give the folder: npx cdk synth -o FOLDER."
            ) from error


def _stand_in_for_wheels(project: Path) -> None:
    """Empty files in place of the packages that `make setup` fetches: no price depends on what is in them."""
    lock = (project / "cluster" / "requirements.txt").read_text(encoding="utf-8")
    for processor in ("aarch64", "x86_64"):
        wheels = project / ".dml" / "wheels" / processor
        wheels.mkdir(parents=True)
        for name, version in re.findall(r"^([a-z0-9._-]+)==([^ ;\\]+)", lock, re.MULTILINE):
            (wheels / f"{name.replace('-', '_')}-{version}-py3-none-any.whl").touch()


def _last(text: str) -> str:
    """The last line that says anything."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1].rstrip(".") if lines else "it said nothing"
