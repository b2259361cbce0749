"""Small JSON files in S3, where jobs leave what they found out; data of any size go through Spark instead."""

import json
from typing import Any, Dict, Optional, Tuple
from urllib.parse import urlparse

from botocore.exceptions import BotoCoreError, ClientError, ReadTimeoutError

from jobs.errors import JobError

Json = Dict[str, Any]

READS = 3  # boto3 asks again when an answer is an error, but not when it breaks off half-way


def read_json(s3: Any, uri: str) -> Optional[Json]:
    """The object at `uri` (s3://bucket/key), None if there is none. `s3` is a boto3 client.

    Raises JobError if S3 does not give it, or if it is not JSON.
    """
    bucket, key = _bucket_and_key(uri)
    try:
        body = _read(s3, bucket, key)
    except s3.exceptions.NoSuchKey:
        return None
    except ReadTimeoutError as error:
        raise JobError(f"{uri} cannot be read: {_silent(s3)}") from error
    except (ClientError, BotoCoreError) as error:
        raise JobError(f"{uri} cannot be read, and S3 says why; run again when that is mended: {error}") from error
    try:
        value: Json = json.loads(body)
    except ValueError as error:
        raise JobError(
            f"{uri} is no JSON ({error}): put back the version before it, which the bucket keeps, or delete it."
        ) from error
    return value


def write_json(s3: Any, uri: str, value: Json) -> None:
    """Puts `value` at `uri` (s3://bucket/key), in one piece as S3 does. Raises JobError if S3 does not take it."""
    write_text(s3, uri, json.dumps(value, indent=1, allow_nan=False), "application/json")


def write_text(s3: Any, uri: str, text: str, kind: str = "text/plain; charset=utf-8") -> None:
    """Puts `text` at `uri` (s3://bucket/key) in one piece; `kind` is its media type. Raises as `write_json` does."""
    bucket, key = _bucket_and_key(uri)
    try:
        s3.put_object(Bucket=bucket, Key=key, Body=text.encode("utf-8"), ContentType=kind)
    except ReadTimeoutError as error:
        raise JobError(f"{uri} cannot be written, or was and nobody knows: {_silent(s3)}") from error
    except (ClientError, BotoCoreError) as error:
        raise JobError(f"{uri} cannot be written, and S3 says why; run again when that is mended: {error}") from error


def _read(s3: Any, bucket: str, key: str) -> bytes:
    for _ in range(READS - 1):
        answer = s3.get_object(Bucket=bucket, Key=key)["Body"]
        try:
            body: bytes = answer.read()
        except BotoCoreError:  # it broke off, or went silent
            continue
        return body
    whole: bytes = s3.get_object(Bucket=bucket, Key=key)["Body"].read()
    return whole


def _silent(s3: Any) -> str:
    """What a time-out means; boto3's own words for one in the middle of an answer name no address."""
    return (
        f"S3 was silent for {s3.meta.config.read_timeout:g} s each time that it was asked. Run again when it answers."
    )


def _bucket_and_key(uri: str) -> Tuple[str, str]:
    parts = urlparse(uri)
    return parts.netloc, parts.path.lstrip("/")
