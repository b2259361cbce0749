"""Small JSON files in S3, where jobs leave what they found out; data of any size go through Spark instead."""

import json
from typing import Any, Dict, Optional, Tuple
from urllib.parse import urlparse

Json = Dict[str, Any]


def read_json(s3: Any, uri: str) -> Optional[Json]:
    """The object at `uri` (s3://bucket/key), None if there is none. `s3` is a boto3 client."""
    bucket, key = _bucket_and_key(uri)
    try:
        body = s3.get_object(Bucket=bucket, Key=key)["Body"].read()
    except s3.exceptions.NoSuchKey:
        return None
    value: Json = json.loads(body)
    return value


def write_json(s3: Any, uri: str, value: Json) -> None:
    """Puts `value` at `uri` (s3://bucket/key), in one piece as S3 does."""
    write_text(s3, uri, json.dumps(value, indent=1, allow_nan=False), "application/json")


def write_text(s3: Any, uri: str, text: str, kind: str = "text/markdown; charset=utf-8") -> None:
    """Puts `text` at `uri` (s3://bucket/key), in one piece as S3 does. `kind` is its media type."""
    bucket, key = _bucket_and_key(uri)
    s3.put_object(Bucket=bucket, Key=key, Body=text.encode("utf-8"), ContentType=kind)


def _bucket_and_key(uri: str) -> Tuple[str, str]:
    parts = urlparse(uri)
    return parts.netloc, parts.path.lstrip("/")
