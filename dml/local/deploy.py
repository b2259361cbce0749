"""Deploys the project's CDK app to the embedded cloud with the real CDK CLI; operator time."""

import concurrent.futures
import hashlib
import json
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

from botocore.exceptions import ClientError

from dml import cdk, checkout
from dml.cdk import Progress
from dml.checkout import PROJECT
from dml.errors import UserError
from dml.local.clients import client
from dml.local.cloud import Cloud
from dml.local.place import ACCOUNT, REGION
from dml.local.services.node import printed_by
from dml.terminal.words import counted

DEPLOY_OPTIONS = (cdk.ADOPT, "--concurrency", "4", "--require-approval", "never", "--progress", "events")
BOOTSTRAP_STACK = "CDKToolkit"
DEPLOYED = "/dml/embedded-cloud/deployed/"
LOOK_SECONDS = 0.2
STANDING = ("CREATE_COMPLETE", "UPDATE_COMPLETE")


def deploy(cloud: Cloud, env: str, *, dataset: str = "", on_progress: Progress) -> str:
    """Brings the app's stacks of environment `env` to the embedded cloud; returns what was done, in a few words.

    Of datasets only this one's, if it is given; the others' stacks stay as they are. Raises UserError with the
    CDK CLI's own error if a command of it fails.
    """
    cloud.require()
    commands = Commands(cloud, on_progress)
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        bootstrap = pool.submit(commands.bootstrap)
        assembly = commands.assembly(env, dataset=dataset)
        bootstrap.result()
    cdk.make_way(partial(client, cloud), f"dml-{env}-", on_progress=on_progress, every=LOOK_SECONDS)
    return deploy_assembly(cloud, assembly, on_progress=on_progress)


def deploy_assembly(cloud: Cloud, assembly: Path, *, on_progress: Progress) -> str:
    """Deploys those stacks of a synthesised app that do not stand just so."""
    artifacts, fingerprints = described(assembly)
    standing = Standing(cloud)
    found = standing.fingerprints(sorted(fingerprints))
    changed = {name: one for name, one in fingerprints.items() if found.get(name) != one}
    if not changed:
        return f"{counted(len(fingerprints), 'stack')}, unchanged"
    commands = Commands(cloud, on_progress)
    commands.bootstrap()
    on_progress("deploying")
    paths = ["--app", str(assembly), "--output", str(assembly)]
    commands.run(
        ["deploy", *sorted(map(artifacts.__getitem__, changed)), "--exclusively", *paths, *DEPLOY_OPTIONS],
        cloud.place.cloud,
    )
    standing.remember(changed)
    cloud.save()
    same = len(fingerprints) - len(changed)
    return counted(len(changed), "stack") + (f", {same} unchanged" if same else "")


class Standing:
    """What of the app stands in the embedded cloud. Fingerprints are kept there: they never outlive the stacks."""

    def __init__(self, cloud: Cloud) -> None:
        self._cloudformation = client(cloud, "cloudformation")
        self._ssm = client(cloud, "ssm")

    def fingerprints(self, names: Sequence[str]) -> dict[str, str]:
        """Of each of these stacks that stands what it was deployed from last."""
        pages = self._cloudformation.get_paginator("describe_stacks").paginate()
        standing = {one["StackName"] for page in pages for one in page["Stacks"] if one["StackStatus"] in STANDING}
        asked = [f"{DEPLOYED}{name}" for name in names if name in standing]
        return {
            one["Name"].removeprefix(DEPLOYED): one["Value"]
            for first in range(0, len(asked), 10)  # as many as GetParameters takes
            for one in self._ssm.get_parameters(Names=asked[first : first + 10])["Parameters"]
        }

    def remember(self, fingerprints: Mapping[str, str]) -> None:
        """Notes what stacks are deployed from."""
        for name, fingerprint in fingerprints.items():
            self._ssm.put_parameter(Name=f"{DEPLOYED}{name}", Value=fingerprint, Type="String", Overwrite=True)


class Commands:
    """The CDK CLI, pointed at the embedded cloud."""

    def __init__(self, cloud: Cloud, on_progress: Progress) -> None:
        self._cloud = cloud
        self._progress = on_progress

    def bootstrap(self) -> None:
        """`cdk bootstrap`, once; in an empty folder, where the CLI finds no app to synthesise.

        UserError with the CLI's words, and with CloudFormation's own where it tells by DescribeEvents alone what is
        wrong: there the CLI does not look.
        """
        cloudformation = client(self._cloud, "cloudformation")
        try:
            found = cloudformation.describe_stacks(StackName=BOOTSTRAP_STACK)["Stacks"]
        except ClientError:
            found = []
        if any(one["StackStatus"] in STANDING for one in found):
            return
        folder = self._cloud.place.cloud / "empty"
        folder.mkdir(parents=True, exist_ok=True)
        try:
            self.run(["bootstrap", f"aws://{ACCOUNT}/{REGION}"], folder)
        except UserError as error:
            try:
                events = cloudformation.describe_events(StackName=BOOTSTRAP_STACK, Filters={"FailedEvents": True})
            except ClientError:
                raise error from None
            said = {one.get("ValidationStatusReason", "") for one in events["OperationEvents"]}
            raise UserError(" ".join([str(error), *sorted(said - {""})])) from None

    @property
    def assemblies(self) -> Path:
        """Where all that is synthesised for this cloud is kept."""
        return self._cloud.place.home / "cdk.out"

    def assembly(self, env: str, *, dataset: str = "") -> Path:
        """The app of this checkout, synthesised for `env`, and of datasets for one alone if it is given.

        Anew only where the checkout has changed since.
        """
        folder = self.assemblies / (f"{env}-{dataset}" if dataset else env)
        note, state = folder / "dml-checkout", checkout.state(PROJECT)
        if note.is_file() and note.read_text() == state:
            return folder
        note.unlink(missing_ok=True)
        self._progress("synthesising the templates")
        cdk.synthesize(env, folder, dataset=dataset)
        note.write_text(state)
        return folder

    def run(self, arguments: Sequence[str], folder: Path) -> None:
        """Runs one command and reports the stacks that it is done with.

        UserError if it fails; of a cluster that did not start with what its bootstrap action has printed.
        """
        environment = self._cloud.environment() | cdk.jsii_cache()  # whose usual place HOME does not lead to here
        log = self._cloud.place.logs / f"cdk-{arguments[0]}.log"
        try:
            cdk.run(arguments, folder=folder, environment=environment, log=log, on_progress=self._progress)
        except UserError as error:
            if not (printed := printed_by(self._cloud.place, str(error))):
                raise
            raise UserError(f"{error}\n{printed}") from None


def described(assembly: Path) -> tuple[dict[str, str], dict[str, str]]:
    """Of each stack of a synthesised app, by its name, what the CLI calls it, and a fingerprint.

    The fingerprint is of its template and the list of its assets, which are named by their content.
    """
    artifacts = json.loads((assembly / "manifest.json").read_text())["artifacts"]
    called: dict[str, str] = {}
    fingerprints: dict[str, str] = {}
    for artifact, made in artifacts.items():
        if made["type"] == "aws:cloudformation:stack":
            digest = hashlib.sha256((assembly / made["properties"]["templateFile"]).read_bytes())
            for part in sorted(assembly.glob(f"{artifact}.assets.json")):
                digest.update(part.read_bytes())
            name = made["properties"].get("stackName", artifact)
            called[name], fingerprints[name] = artifact, digest.hexdigest()
    return called, fingerprints
