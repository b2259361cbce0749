"""The S3 gateway of one job, seen from who starts it: its process, the token that opens it, how Spark finds it."""

import re
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from dml import checkout
from dml.local.spark.token import DelegationToken

MOUNTED = "org.apache.hadoop.fs.viewfs.ViewFileSystemOverloadScheme"
S3_SECONDS = 60  # that S3 may be silent before it is asked again; boto3's own default


class GatewayProcess:
    """One process of dml.local.spark.s3_gateway, with the credentials of `environment`."""

    def __init__(self, environment: Mapping[str, str], work: Path, *, s3_seconds: float = S3_SECONDS) -> None:
        self._environment = environment
        self._work = work
        self._s3_seconds = s3_seconds
        self._process: subprocess.Popen[str] | None = None

    def start(self, log: int, listening: socket.socket) -> DelegationToken:
        """Starts it on `listening`, where whoever connects waits for it; what it complains of goes to `log`.

        What opens it is known before it runs, so that Java and it start side by side: half a second of each job.
        """
        self._process = subprocess.Popen(
            [
                *(sys.executable, "-m", "dml.local.spark.s3_gateway", "--told"),
                *("--listening", str(listening.fileno()), "--seconds", str(self._s3_seconds)),
            ],
            env={**self._environment, "PYTHONPATH": str(checkout.PROJECT)},
            cwd=self._work,
            pass_fds=[listening.fileno()],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
            start_new_session=True,
        )
        token = DelegationToken.new(listening.getsockname()[1])
        self._tell(token.secret.hex())
        return token

    def serves(self) -> bool:
        """Waits until it serves; False if it has ended."""
        assert self._process is not None and self._process.stdout is not None  # noqa: S101  # PIPE
        return bool(self._process.stdout.readline())

    def serve(self, spark: int) -> None:
        """Tells it the process that it serves, which it ends if we are killed and cannot."""
        if self._process:
            self._tell(str(spark))

    def _tell(self, line: str) -> None:
        assert self._process is not None and self._process.stdin is not None  # noqa: S101  # PIPE
        with suppress(BrokenPipeError):  # it has ended, and `serves` says so
            print(line, file=self._process.stdin, flush=True)

    def end(self) -> None:
        if self._process:
            self._process.kill()
            self._process.wait()


def mounts(port: int, buckets: Sequence[str], arguments: Sequence[str]) -> dict[str, str]:
    """Spark's settings for S3 by the gateway that listens on `port` of 127.0.0.1.

    Buckets that only the arguments name are mounted too: S3 itself then says that they do not exist.
    """
    # The answer to the last byte of a large write comes after its upload.
    settings = {"spark.hadoop.dfs.webhdfs.socket.read-timeout": "1h"}
    for scheme in ("s3", "s3a", "s3n"):
        settings[f"spark.hadoop.fs.{scheme}.impl"] = MOUNTED
    named = re.findall(r"\bs3[an]?://([^/\s,]+)", " ".join(arguments))
    for bucket in {*buckets, *named}:
        mount = f"spark.hadoop.fs.viewfs.mounttable.{bucket}.linkFallback"
        settings[mount] = f"webhdfs://127.0.0.1:{port}/{bucket}"
    return settings
