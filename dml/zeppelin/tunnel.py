"""A tunnel to Zeppelin on the workbench, by the AWS CLI and its Session Manager plugin: no port of a node is open."""

import json
import shutil
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from botocore.exceptions import ClientError

from dml.errors import UserError
from dml.estate.platform import Platform, answering
from dml.terminal.words import last_line
from dml.zeppelin.rest import Zeppelin
from stacks.outputs import Output

PORT = 8890  # Zeppelin's on EMR
PORTS = (PORT, 18890, 18891, 18892)  # of 127.0.0.1, whose pages it answers (stacks/emr.py)
DOCUMENT = "AWS-StartPortForwardingSession"  # the only one that the analysts' policy allows (stacks/observability.py)
UP = ("RUNNING", "WAITING")
COMING = ("STARTING", "BOOTSTRAPPING")
DENIED = ("AccessDenied", "AccessDeniedException")
OPEN_SECONDS = 60.0
ANSWER_SECONDS = 120.0  # a Zeppelin that starts is waited for
# The plugin says it when it listens, and listens where this variable has it, or on localhost in older releases
# (session-manager-plugin, muxportforwarding.go, handleClientConnections).
LISTENS, LISTENS_ON = "Waiting for connections", "SSM_PLUGIN_LOCAL_HOST"
PROGRAMS = {
    "aws": 'the AWS CLI (AWS CLI User Guide, "Installing or updating to the latest version of the AWS CLI")',
    "session-manager-plugin": "the Session Manager plugin "
    '(Systems Manager User Guide, "Install the Session Manager plugin for the AWS CLI")',
}


def require_programs() -> None:
    """Raises UserError for what this machine lacks."""
    if lacking := [f"{name}: install {what}" for name, what in PROGRAMS.items() if shutil.which(name) is None]:
        raise UserError("The tunnel to Zeppelin needs what is not on the PATH here. " + "; ".join(lacking) + ".")


def primary_node(platform: Platform, price: Callable[[], str]) -> str:
    """The EC2 instance that Zeppelin runs on. Raises UserError if there is none, and says how it comes back.

    `price`: what an hour of the workbench costs, in words.
    """
    emr, found = platform.client("emr"), workbench(platform, price)
    cluster = found["Id"]
    kind = {"INSTANCE_FLEET": {"InstanceFleetType": "MASTER"}}.get(
        found.get("InstanceCollectionType", ""), {"InstanceGroupTypes": ["MASTER"]}
    )
    with answering("find the workbench's primary node"):
        nodes = emr.list_instances(ClusterId=cluster, InstanceStates=["RUNNING"], **kind)["Instances"]
    if not nodes:
        raise UserError(
            f"The workbench {cluster} has no primary node that runs. Look at it: aws emr list-instances "
            f"--cluster-id {cluster}"
        )
    return str(nodes[0]["Ec2InstanceId"])


def workbench(platform: Platform, price: Callable[[], str]) -> dict[str, Any]:
    """What EMR says of the cluster that Zeppelin runs on. Raises UserError if there is none that is up."""
    platform.check_running()
    emr = platform.client("emr")
    with answering("find the workbench"):
        name = platform.output(Output.WORKBENCH_PARAMETER)
        cluster = platform.client("ssm").get_parameter(Name=name)["Parameter"]["Value"]
        if cluster == "none":
            raise UserError(
                f"{platform.environment} has no workbench: set workbench.enabled in "
                f"environments/{platform.environment}.toml, and deploy: {platform.deploying()}"
            )
        found: dict[str, Any] = {"Id": cluster, **emr.describe_cluster(ClusterId=cluster)["Cluster"]}
    state = found["Status"]["State"]
    if state in COMING:
        raise UserError(f"The workbench {cluster} is {state.lower()}: Zeppelin is there some minutes later. Try again.")
    if state not in UP:
        reason = found["Status"].get("StateChangeReason", {}).get("Message", "")
        raise UserError(
            f"The workbench {cluster} is {state.lower()}{f' ({reason})' if reason else ''}. Its notes are in the "
            f"bucket. A new one is made if the old one is taken away first: {platform.command('pause')}, then "
            f"{platform.command('resume')}. {price()}"
        )
    return found


def login(platform: Platform) -> tuple[str, str]:
    """User and password that the environment's Zeppelin asks for. Raises UserError if they cannot be read."""
    arn = platform.output(Output.ZEPPELIN_LOGIN)
    try:
        told = platform.client("secretsmanager").get_secret_value(SecretId=arn)["SecretString"]
    except ClientError as error:
        if error.response["Error"]["Code"] not in DENIED:
            raise UserError(f"Zeppelin's login could not be read in the secret {arn}: {error}") from error
        raise UserError(
            f"Zeppelin asks for a login, and you may not read it ({error}). Who wears the policy "
            f"{platform.output(Output.ANALYST_POLICY)} may: ask whoever keeps people's access for it."
        ) from error
    try:
        found = json.loads(told)
        return str(found["user"]), str(found["password"])
    except (ValueError, KeyError, TypeError):  # without its text, which is secret
        raise UserError(
            f'The secret {arn} is no login: it has to be {{"user": "analyst", "password": "..."}}. How it is changed: '
            'docs/security.md, "Zeppelin asks for a login".'
        ) from None


class OpenError(UserError):
    """Zeppelin answers whoever asks."""


def require_closed(zeppelin: Zeppelin, process: "subprocess.Popen[str] | None" = None, seconds: float = 0.0) -> None:
    """Raises OpenError if it asks for no login: then nobody is to have a tunnel to it.

    It is asked until it says so or not, for so many `seconds`. Raises UserError if it does not until then, or if the
    tunnel has come to its end: then nobody knows who would be told the login.
    """
    until = time.monotonic() + seconds
    while True:
        if process and process.poll() is not None:
            raise UserError("The tunnel was closed from the other side before Zeppelin had answered.")
        try:
            open_to_all = zeppelin.is_open
            break
        except UserError as error:
            if time.monotonic() > until:
                raise UserError(
                    f"Zeppelin does not say whether it asks for a login, and so the tunnel is closed again. {error}"
                ) from error
            time.sleep(1)
    if open_to_all:
        raise OpenError(
            "Zeppelin on this workbench asks for no login, so that any web page beside it could run code with the "
            "cluster's rights: the tunnel is closed again. cluster/zeppelin.sh had no effect there, see its bootstrap "
            "log; until that is mended end the workbench: dml pause."
        )


def local_port(ports: Sequence[int] = (PORT, 0)) -> int:
    """The first of `ports` that nothing listens on; 0 is any. Raises UserError if there is none."""
    for port in ports:
        with socket.socket() as tried:
            try:
                tried.bind(("127.0.0.1", port))
            except OSError:
                continue
            return int(tried.getsockname()[1])
    asked = ", ".join(str(port) for port in ports if port) or "any"
    raise UserError(f"No port of 127.0.0.1 is free here that could be Zeppelin's ({asked}): end what has one of them.")


@contextmanager
def interrupted_by_the_end_of_the_terminal() -> Iterator[None]:
    """A closed window (SIGHUP) and SIGTERM end the block as an interrupt does: what is open must not outlive it."""

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    before = {name: signal.signal(name, interrupt) for name in (signal.SIGHUP, signal.SIGTERM)}
    try:
        yield
    finally:
        for name, handler in before.items():
            signal.signal(name, handler)


@contextmanager
def tunnel(node: str, port: int, environment: dict[str, str]) -> Iterator["subprocess.Popen[str]"]:
    """Open as long as the block lasts. Raises UserError with what the AWS CLI says if it cannot be opened.

    What listens on the port is the tunnel's own end only if the plugin says so: any account of this machine may have
    taken the port since it was found free, and would be told the login.
    """
    parameters = f"portNumber={PORT},localPortNumber={port}"
    asked = ["aws", "ssm", "start-session", "--target", node, "--document-name", DOCUMENT, "--parameters", parameters]
    # A session of its own: an interrupt is for us, who then end it.
    process = subprocess.Popen(
        asked,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
        env={**environment, LISTENS_ON: "127.0.0.1"},
    )
    said: list[str] = []
    opened = threading.Event()

    def read() -> None:
        for line in process.stdout or ():
            said.append(line)
            if LISTENS in line:
                opened.set()

    reader = threading.Thread(target=read, daemon=True)  # to the end: a full pipe would hold the plugin up
    reader.start()
    try:
        until = time.monotonic() + OPEN_SECONDS
        while not opened.wait(0.1) or process.poll() is not None:
            if process.poll() is not None:
                reader.join(1)
                told = last_line("".join(said)) or "the AWS CLI says nothing"
                raise UserError(f"The tunnel to {node} did not open: {told}")
            if time.monotonic() > until:  # where it cannot listen the plugin neither says so nor ends
                why = f"another program has taken port {port}, try again" if listens(port) else "does its agent run?"
                raise UserError(f"The tunnel to {node} is not open after {OPEN_SECONDS:.0f} s: {why}")
        yield process
    finally:
        end(process)


def listens(port: int) -> bool:
    with socket.socket() as tried:
        tried.settimeout(1)
        return tried.connect_ex(("127.0.0.1", port)) == 0


def end(process: "subprocess.Popen[Any]") -> None:
    """The CLI hands an interrupt on to its plugin, which ends the session; what does not end by it is ended."""
    for way in (signal.SIGINT, signal.SIGTERM, signal.SIGKILL):
        if process.poll() is not None:
            return
        process.send_signal(way)
        try:
            process.wait(5)
        except subprocess.TimeoutExpired:
            continue
