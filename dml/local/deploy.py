"""Deploys the project's CDK app to the embedded cloud with the real CDK CLI; operator time."""

import concurrent.futures
import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

from botocore.exceptions import ClientError

from dml import cdk, checkout
from dml.cdk import Progress
from dml.checkout import PROJECT
from dml.local.clients import client
from dml.local.cloud import Cloud
from dml.local.place import ACCOUNT, REGION
from dml.terminal.words import counted

DEPLOY_OPTIONS = (cdk.ADOPT, "--concurrency", "4", "--require-approval", "never", "--progress", "events")
BOOTSTRAP_STACK = "CDKToolkit"
STANDING = ("CREATE_COMPLETE", "UPDATE_COMPLETE")


def deploy(cloud: Cloud, env: str, *, on_progress: Progress) -> str:
    """Brings the app's stacks of environment `env` to the embedded cloud; returns what was done, in a few words.

    Raises UserError with the CDK CLI's own error if a command of it fails.
    """
    cloud.require()
    commands = Commands(cloud, on_progress)
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        bootstrap = pool.submit(commands.bootstrap)
        assembly = commands.assembly(env)
        bootstrap.result()
    return deploy_assembly(cloud, assembly, on_progress=on_progress)


def deploy_assembly(cloud: Cloud, assembly: Path, *, on_progress: Progress) -> str:
    """Deploys a synthesised app, unless just that stands already."""
    fingerprint = fingerprint_of(assembly)
    names = stack_names(assembly)
    standing = Standing(cloud)
    if standing.fingerprint(names) == fingerprint:
        return f"{counted(len(names), 'stack')}, unchanged"
    commands = Commands(cloud, on_progress)
    commands.bootstrap()
    on_progress("deploying")
    paths = ["--app", str(assembly), "--output", str(assembly)]
    commands.run(["deploy", "--all", *paths, *DEPLOY_OPTIONS], cloud.place.cloud)
    standing.remember(names, fingerprint)
    cloud.save()
    return counted(len(names), "stack")


class Standing:
    """What of the app stands in the embedded cloud. Its fingerprint is kept there: it never outlives the stacks."""

    def __init__(self, cloud: Cloud) -> None:
        self._cloudformation = client(cloud, "cloudformation")
        self._ssm = client(cloud, "ssm")

    def fingerprint(self, names: Sequence[str]) -> str | None:
        """Of the assembly deployed last, if all its stacks stand."""
        try:
            for name in names:
                if self._cloudformation.describe_stacks(StackName=name)["Stacks"][0]["StackStatus"] not in STANDING:
                    return None
            value: str = self._ssm.get_parameter(Name=self._parameter(names))["Parameter"]["Value"]
        except ClientError:
            return None
        return value

    def remember(self, names: Sequence[str], fingerprint: str) -> None:
        """Notes that an assembly is deployed."""
        self._ssm.put_parameter(Name=self._parameter(names), Value=fingerprint, Type="String", Overwrite=True)

    def _parameter(self, names: Sequence[str]) -> str:
        return "/dml/embedded-cloud/deployed/" + "+".join(names)


class Commands:
    """The CDK CLI, pointed at the embedded cloud."""

    def __init__(self, cloud: Cloud, on_progress: Progress) -> None:
        self._cloud = cloud
        self._progress = on_progress

    def bootstrap(self) -> None:
        """`cdk bootstrap`, once; in an empty folder, where the CLI finds no app to synthesise."""
        try:
            client(self._cloud, "cloudformation").describe_stacks(StackName=BOOTSTRAP_STACK)
        except ClientError:
            folder = self._cloud.place.cloud / "empty"
            folder.mkdir(parents=True, exist_ok=True)
            self.run(["bootstrap", f"aws://{ACCOUNT}/{REGION}"], folder)

    def assembly(self, env: str) -> Path:
        """The app of this checkout, synthesised for `env`; anew only where the checkout has changed since."""
        folder = self._cloud.place.home / "cdk.out" / env
        note, state = folder / "dml-checkout", checkout.state(PROJECT)
        if note.is_file() and note.read_text() == state:
            return folder
        note.unlink(missing_ok=True)
        self._progress("synthesising the templates")
        self.run(["synth", "--quiet", "--output", str(folder), "-c", f"env={env}"], PROJECT)
        note.write_text(state)
        return folder

    def run(self, arguments: Sequence[str], folder: Path) -> None:
        """Runs one command and reports the stacks that it is done with; UserError if it fails."""
        environment = self._cloud.environment() | {
            # 200 MB that jsii unpacks once; its usual place, which HOME does not lead to here.
            "JSII_RUNTIME_PACKAGE_CACHE_ROOT": str(Path.home() / ".cache" / "aws" / "jsii" / "package-cache"),
        }
        log = self._cloud.place.logs / f"cdk-{arguments[0]}.log"
        cdk.run(arguments, folder=folder, environment=environment, log=log, on_progress=self._progress)


def stack_names(assembly: Path) -> list[str]:
    """The stacks of a synthesised app."""
    artifacts = json.loads((assembly / "manifest.json").read_text())["artifacts"]
    stacks = [one for one in artifacts.items() if one[1]["type"] == "aws:cloudformation:stack"]
    return sorted(artifact["properties"].get("stackName", name) for name, artifact in stacks)


def fingerprint_of(assembly: Path) -> str:
    """Of all templates and asset lists: assets are named by their content, so this covers them too."""
    digest = hashlib.sha256()
    for path in sorted([*assembly.glob("*.template.json"), *assembly.glob("*.assets.json")]):
        digest.update(path.name.encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()
