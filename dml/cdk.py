"""The project's CDK app, and the AWS CDK CLI that package.json pins, run for the operator."""

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from botocore.exceptions import WaiterError

from dml.checkout import HOME, PROJECT
from dml.errors import UserError
from dml.terminal.words import counted
from stacks.outputs import FORMER

CDK = PROJECT / "node_modules" / "aws-cdk" / "bin" / "cdk"
# A log group that a deleted stack has kept has its name: it becomes the new stack's instead of failing the deployment.
ADOPT = "--import-existing-resources"
SYNTH_SECONDS = 300
JSII_CACHE = "JSII_RUNTIME_PACKAGE_CACHE_ROOT"
COMPILED = HOME / "compiled"  # Python's modules: to compile the CDK's takes a third of a synthesis, once is enough
# What the CLI adds to an app's context by itself (aws-cdk, `prepareContext`).
CLI_CONTEXT = {
    "aws:cdk:enable-path-metadata": True,
    "aws:cdk:enable-asset-metadata": True,
    "aws:cdk:version-reporting": True,
}
Progress = Callable[[str], None]


class SynthError(UserError):
    """The app does not synthesise: the message is its last word, `said` all that it printed."""

    def __init__(self, message: str, said: str) -> None:
        super().__init__(message)
        self.said = said


def synthesize(
    environment: str, folder: Path, *, dataset: str = "", project: Path = PROJECT, path: str | None = None
) -> None:
    """Makes an environment's templates in `folder`: the app of a checkout is run as the CDK CLI runs it.

    `dataset`: of the datasets this one only, if given. `path`: where programs are found, Node among them. Raises
    SynthError with what the app says if it refuses.
    """
    configuration = json.loads((project / "cdk.json").read_text(encoding="utf-8"))
    context = {**configuration["context"], **CLI_CONTEXT, "env": environment}
    if dataset:
        context["dataset"] = dataset
    settings = {
        **caches(),
        "CDK_OUTDIR": str(folder),
        "CDK_CONTEXT_JSON": json.dumps(context),
        "JSII_SILENCE_WARNING_END_OF_LIFE_NODE_VERSION": "1",
        # The CDK's own look at the templates takes half of a synthesis, for warnings that nobody is shown here; that of
        # `make lint` and `cdk deploy` is. What the app itself refuses is not of it (stacks/synth.py).
        "CDK_VALIDATION": "false",
        "PYTHONPYCACHEPREFIX": str(COMPILED),
        "PYTHONDONTWRITEBYTECODE": "" if project == PROJECT else "1",
        "NO_COLOR": "1",
        "PATH": path or with_own_programs(os.environ),
    }
    command = [sys.executable, *configuration["app"].split()[1:]]
    try:
        done = subprocess.run(
            command,
            cwd=project,
            env={**os.environ, **settings},
            capture_output=True,
            text=True,
            timeout=SYNTH_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired as expired:
        said = (expired.stderr or b"").decode(errors="replace")
        told = _last_word(said) or "it has said nothing"
        raise SynthError(f"no templates of {environment} after {SYNTH_SECONDS} s: {told}", said) from None
    if done.returncode:
        raise SynthError(_last_word(done.stderr) or f"{configuration['app']} ended with {done.returncode}", done.stderr)


def _last_word(said: str) -> str:
    return next((line.strip() for line in reversed(said.splitlines()) if line.strip()), "")


def jsii_cache() -> dict[str, str]:
    """Where jsii unpacks 200 MB once: its usual place, or .dml where HOME cannot be written to, which jsii refuses."""
    usual = Path.home() / ".cache" / "aws" / "jsii" / "package-cache"
    return {JSII_CACHE: os.environ.get(JSII_CACHE) or str(usual if _is_ours(usual) else HOME / "jsii")}


def caches() -> dict[str, str]:
    """`jsii_cache`, and a HOME in .dml where the operator's own cannot be written to.

    The CDK keeps fingerprints of files in HOME/.cdk and knows no setting for it (`fingerprint-disk-cache`); where that
    folder cannot be made, Node's `mkdirSync` with `recursive` may try for ever, as it does below /proc.
    """
    own = {} if _is_ours(Path.home() / ".cdk") else {"HOME": str(HOME / "home")}
    if own:
        Path(own["HOME"]).mkdir(parents=True, exist_ok=True)
    return jsii_cache() | own


def _is_ours(folder: Path) -> bool:
    """Whether the folder can be written to; it is made if it is not there."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError:
        return False
    return os.access(folder, os.W_OK)


def with_own_programs(environment: Mapping[str, str]) -> str:
    """A PATH on which this environment's Python and Node come first."""
    return os.pathsep.join([str(Path(sys.executable).parent), environment.get("PATH", "")])


def run(
    arguments: Sequence[str], *, folder: Path, environment: Mapping[str, str], log: Path, on_progress: Progress
) -> None:
    """Runs one command in a folder and reports the stacks that it is done with; UserError if it fails.

    `environment` says which cloud: its address, credentials and region are the CLI's usual variables.
    """
    if not CDK.exists():
        raise UserError(f"The AWS CDK CLI is missing in {CDK.parent}. Set the project up: make setup")
    log.parent.mkdir(parents=True, exist_ok=True)
    command = ["node", str(CDK), *arguments, "--no-notices", "--no-color"]
    lines = []
    try:
        process = subprocess.Popen(
            command,
            cwd=folder,
            env={**environment, "PATH": with_own_programs(environment), "CI": "1", "NO_COLOR": "1"},
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
                    on_progress(found[1])
        except BaseException:
            os.killpg(process.pid, signal.SIGKILL)
            raise
    if process.returncode:
        raise UserError(f"cdk {arguments[0]} failed: {error_line(lines)} (log: {log})")


def make_way(client: Callable[[str], Any], prefix: str, *, on_progress: Progress, every: float) -> None:
    """Deletes an environment's stacks of the former layout, in which all datasets were in two; none if it has none.

    They use what the stacks that are to be deployed no longer have. They hold no data. `client` makes a client of a
    service. Raises UserError while one of their runs is at work, or if CloudFormation does not delete one.
    """
    cloudformation, states = client("cloudformation"), client("stepfunctions")
    pages = cloudformation.get_paginator("describe_stacks").paginate()
    standing = {one["StackName"] for page in pages for one in page["Stacks"]}
    going = [prefix + part for part in FORMER if prefix + part in standing]
    for name in going:
        for page in cloudformation.get_paginator("list_stack_resources").paginate(StackName=name):
            for one in page["StackResourceSummaries"]:
                gone = one["ResourceStatus"].startswith("DELETE_")
                if gone or one["ResourceType"] != "AWS::StepFunctions::StateMachine":
                    continue
                machine = one["PhysicalResourceId"]
                at_work = states.list_executions(stateMachineArn=machine, statusFilter="RUNNING")["executions"]
                if at_work:
                    raise UserError(
                        f"{name} is of a former release and has to go first, but its run {at_work[0]['name']} is "
                        "at work. Wait for its end, then do this again."
                    )
    for name in going:
        on_progress(f"deleting {name}, which is of a former release")
        cloudformation.delete_stack(StackName=name)
        waiter = cloudformation.get_waiter("stack_delete_complete")
        try:
            waiter.wait(StackName=name, WaiterConfig={"Delay": every, "MaxAttempts": int(30 * 60 / every)})
        except WaiterError as error:
            raise UserError(
                f"{name}, which is of a former release and has to go first, was not deleted: {error}. "
                f"Its events say why: aws cloudformation describe-stack-events --stack-name {name}"
            ) from error


def deploy(env: str, home: Path, on_progress: Progress) -> str:
    """`cdk deploy --all` with the operator's own credentials; adopts resources of fixed names that a stack once kept.

    Approval of broader rights is not asked for: use it for what has been deployed before. UserError if it fails.
    """
    on_progress("synthesising the templates")
    arguments = ["deploy", "--all", "-c", f"env={env}", "--require-approval", "never", "--progress", "events", ADOPT]
    done: list[str] = []

    def progress(stack: str) -> None:
        done.append(stack)
        on_progress(stack)

    run(arguments, folder=PROJECT, environment=os.environ, log=home / "logs" / "cdk-deploy.log", on_progress=progress)
    return counted(len(done), "stack")


def error_line(lines: Sequence[str]) -> str:
    """What the CLI says went wrong: its last error with the lines that belong to it, else its last word.

    Where the app itself has ended, the app's last word.
    """
    said = [line.strip() for line in lines]
    spoken = [line for line in said if line]
    if len(spoken) > 1 and re.search(r"Subprocess exited with error \d+$", spoken[-1]):
        return spoken[-2]
    found = [number for number, line in enumerate(said) if re.search(r"\b\w*(Error|Exception)\b|failed|❌", line)]
    if not found:
        return spoken[-1] if spoken else "it printed nothing"
    message: list[str] = []
    for line in said[found[-1] :]:
        if message and (not line or line.startswith("Source Location")):
            break
        message.append(line)
    return " ".join(message).lstrip("‣❌ ")
