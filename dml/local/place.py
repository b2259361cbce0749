"""Where an embedded cloud lives, on disk and on loopback; the server and its client both read it (operator time)."""

import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

from dml.local import credentials

REGION = "us-east-1"
ACCOUNT = "000000000000"
MARKER_PATH = "/_dml/cloud"
SAVE_PATH = "/_dml/save"
CALLS_PATH = "/_dml/calls"
NODE_PATH = "/_dml/node"
HOME_VARIABLE = "DML_LOCAL_HOME"
PORT_VARIABLE = "GATEWAY_PORT"
# A folder with the jars of Hadoop's S3A client. If it is set, jobs talk to S3 by it, not by our gateway.
S3A_VARIABLE = "DML_S3A"

# What leads AWS's tools to a real account, whatever keys stand beside it.
ASTRAY = ("AWS_PROFILE", "AWS_DEFAULT_PROFILE", "AWS_SESSION_TOKEN", "AWS_WEB_IDENTITY_TOKEN_FILE")

# What a program in the embedded cloud is told besides. NO_PROXY is for macOS: boto3 takes proxies from its System
# Settings, for loopback too, unless the environment speaks of any. macOS has no C.UTF-8. And it ends what forks, as
# Spark's Python workers do, where a library of Apple's was at work at that moment.
PROGRAM = {"LANG": "C.UTF-8", "NO_PROXY": "127.0.0.1,localhost"}
if sys.platform == "darwin":
    PROGRAM |= {"LANG": "en_US.UTF-8", "OBJC_DISABLE_INITIALIZE_FORK_SAFETY": "YES"}


@dataclass(frozen=True)
class Place:
    """One embedded cloud: its folder (usually .dml), its port on 127.0.0.1, and S3A's jars if jobs are to use them."""

    home: Path
    port: int
    s3a: Path | None = None
    known: dict[str, str] | None = field(default=None, repr=False, compare=False)  # the root key, if it is read already

    @classmethod
    def of_this_process(cls) -> Self:
        """The place that this server process was started for, whatever becomes of its keys' file; UserError without."""
        home, jars = Path(os.environ[HOME_VARIABLE]), os.environ.get(S3A_VARIABLE)
        port = int(os.environ[PORT_VARIABLE])
        return cls(home, port, Path(jars) if jars else None, credentials.read(cls(home, port).keys))

    @property
    def root(self) -> dict[str, str]:
        """The root user's access key (dml/local/credentials.py); UserError if there is none."""
        return self.known or credentials.read(self.keys)

    @property
    def keys(self) -> Path:
        return self.cloud / "keys.json"

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def cloud(self) -> Path:
        return self.home / "cloud"

    @property
    def logs(self) -> Path:
        return self.cloud / "logs"

    @property
    def calls(self) -> Path:
        """Who has called what (dml/local/access/calls.py)."""
        return self.cloud / "calls.jsonl"

    @property
    def yarn(self) -> Path:
        """A link to the jars of YARN, which is there while EMR's steps are to run on one."""
        return self.cloud / "yarn"

    @property
    def state(self) -> Path:
        return self.cloud / "state"

    @property
    def fresh_state(self) -> Path:
        """State that is being written."""
        return self.cloud / "state.new"

    @property
    def former_state(self) -> Path:
        """State that was replaced a moment ago."""
        return self.cloud / "state.old"

    @property
    def objects(self) -> Path:
        """S3's objects, a file each under its key.

        On a disk that takes `A` and `a` for one name, as macOS's usually does, of two keys that differ by case only one
        is there after the next start; while the server runs, both are.
        """
        return self.cloud / "s3"


def aws_environment(endpoint: str, credentials: Mapping[str, str]) -> dict[str, str]:
    """What tells a program that AWS is at `endpoint`, and whose credentials it has there."""
    return {
        "AWS_ENDPOINT_URL": endpoint,
        "AWS_REGION": REGION,
        "AWS_DEFAULT_REGION": REGION,
        "AWS_EC2_METADATA_DISABLED": "true",
        **credentials,
    }


def inner_environment(
    endpoint: str, credentials: Mapping[str, str], *, home: Path, scratch: Path, tools: Sequence[Path] = ()
) -> dict[str, str]:
    """All of the environment of a program that runs in the embedded cloud; `tools` come first on its path.

    Nothing is inherited: the operator's environment may hold real credentials, or settings for another Spark.
    """
    programs = [*tools, Path(sys.executable).parent, "/usr/local/bin", "/usr/bin", "/bin"]
    return {
        "PATH": os.pathsep.join(map(str, programs)),
        "HOME": str(home),
        "TMPDIR": str(scratch),
        **PROGRAM,
        **aws_environment(endpoint, credentials),
    }
