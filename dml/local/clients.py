"""boto3 clients of an embedded cloud, for its owner and for the services in it alike."""

import functools
import threading
from collections.abc import Mapping
from typing import Any, Protocol

import boto3
from botocore.config import Config

from dml.local.place import REGION

_lock = threading.Lock()  # boto3 clients may be shared between threads, but not made by several at once


class Reachable(Protocol):
    """Where an embedded cloud listens, and its root user's keys; its Cloud and its Place both say so."""

    @property
    def endpoint(self) -> str: ...

    @property
    def root(self) -> Mapping[str, str]: ...


def client(of: Reachable, service: str, credentials: Mapping[str, str] | None = None) -> Any:
    """A client of the embedded cloud with these credentials, or else its root user's.

    It calls over HTTP even from within, so that every call is authorised like anybody's.
    """
    credentials = credentials or of.root
    with _lock:
        return _session().client(
            service,
            endpoint_url=of.endpoint,
            region_name=REGION,
            aws_access_key_id=credentials["AWS_ACCESS_KEY_ID"],
            aws_secret_access_key=credentials["AWS_SECRET_ACCESS_KEY"],
            aws_session_token=credentials.get("AWS_SESSION_TOKEN"),
            # On loopback nothing is throttled, so asking once more is enough; and no proxy stands in between.
            # boto3 by itself presigns for S3 by Signature Version 2, which is refused.
            config=Config(
                retries={"max_attempts": 1}, proxies={}, signature_version="s3v4" if service == "s3" else None
            ),
        )


@functools.cache
def _session() -> boto3.Session:
    return boto3.Session()
