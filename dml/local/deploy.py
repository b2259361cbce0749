"""Deploys the project's CDK app to the embedded cloud with the real CDK CLI; operator time."""

import concurrent.futures
import hashlib
import json
import os
import re
import signal
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import boto3
from botocore.config import Config
from botocore.exceptions import ClientError

from dml.errors import UserError
from dml.local.cloud import Cloud
from dml.local.place import ACCOUNT, REGION

PROJECT = Path(__file__).parents[2]
CDK = PROJECT / "node_modules" / "aws-cdk" / "bin" / "cdk"
DEPLOY_OPTIONS = ("--method", "direct", "--concurrency", "4", "--require-approval", "never", "--progress", "events")
BOOTSTRAP_STACK = "CDKToolkit"
STANDING = ("CREATE_COMPLETE", "UPDATE_COMPLETE")
Progress = Callable[[str], None]


def deploy(cloud: Cloud, env: str, *, on_progress: Progress) -> str:
    """Brings the app's stacks of environment `env` to the embedded cloud; returns what was done, in a few words.

    Raises UserError with the CDK CLI's own error if a command of it fails.
    """
    cloud.require()
    assembly = cloud.place.home / "cdk.out"
    commands = Commands(cloud, on_progress)
    on_progress("synthesising the templates")
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        bootstrap = pool.submit(commands.bootstrap)
        commands.run(["synth", "--quiet", "--output", str(assembly), "-c", f"env={env}"], PROJECT)
        bootstrap.result()
    return deploy_assembly(cloud, assembly, on_progress=on_progress)


def deploy_assembly(cloud: Cloud, assembly: Path, *, on_progress: Progress) -> str:
    """Deploys a synthesised app, unless just that stands already."""
    fingerprint = fingerprint_of(assembly)
    names = stack_names(assembly)
    standing = Standing(cloud)
    if standing.fingerprint(names) == fingerprint:
        return f"{len(names)} stacks, unchanged"
    commands = Commands(cloud, on_progress)
    commands.bootstrap()
    on_progress("deploying")
    paths = ["--app", str(assembly), "--output", str(assembly)]
    commands.run(["deploy", "--all", *paths, *DEPLOY_OPTIONS], cloud.place.cloud)
    standing.remember(names, fingerprint)
    cloud.save()
    return f"{len(names)} stacks"


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

    def run(self, arguments: Sequence[str], folder: Path) -> None:
        """Runs one command and reports the stacks that it is done with; UserError if it fails."""
        if not CDK.exists():
            raise UserError(f"The AWS CDK CLI is missing in {CDK.parent}. Set the project up: make setup")
        log = self._cloud.place.logs / f"cdk-{arguments[0]}.log"
        log.parent.mkdir(parents=True, exist_ok=True)
        environment = self._cloud.environment() | {
            "CI": "1",
            "NO_COLOR": "1",
            # 200 MB that jsii unpacks once; its usual place, which HOME does not lead to here.
            "JSII_RUNTIME_PACKAGE_CACHE_ROOT": str(Path.home() / ".cache" / "aws" / "jsii" / "package-cache"),
        }
        command = ["node", str(CDK), *arguments, "--no-notices", "--no-color"]
        lines = []
        try:
            process = subprocess.Popen(
                command,
                cwd=folder,
                env=environment,
                text=True,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # the CLI starts programs of its own, which are to end with it
            )
        except FileNotFoundError:
            raise UserError("Node is missing, which the AWS CDK CLI needs. Set the project up: make setup") from None
        with process, log.open("w") as output:
            try:
                for line in process.stdout or ():
                    output.write(line)
                    lines.append(line.rstrip())
                    if found := re.match(r"\s*✅\s+([\w-]+)( \(.*\))?$", line):
                        self._progress(found[1])
            except BaseException:
                os.killpg(process.pid, signal.SIGKILL)
                raise
        if process.returncode:
            raise UserError(f"cdk {arguments[0]} failed: {error_line(lines)} (log: {log})")


def client(cloud: Cloud, service: str) -> Any:
    """A boto3 client of the embedded cloud as its root user."""
    given = cloud.environment()
    return boto3.Session().client(
        service,
        endpoint_url=given["AWS_ENDPOINT_URL"],
        region_name=REGION,
        aws_access_key_id=given["AWS_ACCESS_KEY_ID"],
        aws_secret_access_key=given["AWS_SECRET_ACCESS_KEY"],
        config=Config(proxies={}),
    )


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


def error_line(lines: Sequence[str]) -> str:
    """What the CLI says went wrong: its last error with the lines that belong to it, else its last word."""
    said = [line.strip() for line in lines]
    found = [number for number, line in enumerate(said) if re.search(r"\b\w*(Error|Exception)\b|failed|❌", line)]
    if not found:
        return next((line for line in reversed(said) if line), "it printed nothing")
    message: list[str] = []
    for line in said[found[-1] :]:
        if message and (not line or line.startswith("Source Location")):
            break
        message.append(line)
    return " ".join(message).lstrip("‣❌ ")
