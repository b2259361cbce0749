"""The delegation token by which one job's Hadoop client shows the gateway that it is that job's.

Hadoop reads tokens from the file that HADOOP_TOKEN_FILE_LOCATION names, and WebHDFS sends the one that is for the
address that it speaks to with each request, as the parameter `delegation`. So the secret is in no command line, in no
setting of Spark, and in no path, all of which Spark prints. What is written here is what
org.apache.hadoop.security.Credentials and .token.Token of Hadoop 3.3 read.
"""

import base64
import os
import secrets
from pathlib import Path

KIND = "WEBHDFS delegation"
MAGIC, VERSION = b"HDTS", b"\0"


class DelegationToken:
    """A secret for the gateway at one port of loopback."""

    def __init__(self, port: int, secret: bytes) -> None:
        service = f"127.0.0.1:{port}"
        self.port, self.secret = port, secret
        # Hadoop prints a token's identifier, never its password: the first is empty, the second the secret.
        self._written = b"".join(_counted(part) for part in (b"", secret, KIND.encode(), service.encode()))
        self._service = service

    @classmethod
    def new(cls, port: int) -> "DelegationToken":
        return cls(port, secrets.token_bytes(32))

    @property
    def parameter(self) -> str:
        """What WebHDFS sends: Token.encodeToUrlString."""
        return base64.urlsafe_b64encode(self._written).decode().rstrip("=")

    def write(self, file: Path) -> None:
        """The file for HADOOP_TOKEN_FILE_LOCATION, for its owner only."""
        tokens, keys = b"\1" + _counted(self._service.encode()) + self._written, b"\0"
        file.unlink(missing_ok=True)
        with os.fdopen(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as out:
            out.write(MAGIC + VERSION + tokens + keys)


def _counted(text: bytes) -> bytes:
    """As Hadoop's Text and byte arrays are written: their length first, one byte of it up to 127."""
    if len(text) > 127:
        raise ValueError(f"A part of a token has {len(text)} bytes; those of the gateway have 127 at most.")
    return bytes([len(text)]) + text
