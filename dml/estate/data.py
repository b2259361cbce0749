"""`dml data push`: raw files of a dataset into the raw bucket, one folder a table, unchanged files left alone.

What lies in a table's folder there is the table, whoever put it there: files that the source has not are told, and
deleted only if that is asked for.
"""

import hashlib
from collections.abc import Callable
from pathlib import Path

from boto3.exceptions import S3UploadFailedError
from botocore.exceptions import ClientError

from datasets import raw_files
from dml.errors import UserError
from dml.estate.platform import Platform
from dml.terminal.words import counted
from jobs.tables.folders import is_hidden
from jobs.tables.settings import Dataset
from stacks.outputs import Output

SHOWN = 3  # keys of files that the source has not


def push(
    platform: Platform, dataset: Dataset, *, cache: Path, on_progress: Callable[[str], None], delete: bool = False
) -> dict[str, str]:
    """Upload what changed; returns what was done for each table: "uploaded" or "unchanged", and of how many files.

    A file is unchanged when the object's own checksum note (metadata `sha256`) says so: an ETag is no checksum of a
    multipart upload (S3 user guide, "Checking object integrity"). `delete`: objects in a table's folder that the source
    has not are deleted.
    """
    bucket = platform.output(Output.RAW_BUCKET)
    outcome: dict[str, str] = {}
    for table, files in raw_files(dataset, cache).items():
        home = f"{dataset.name}/{table}/"
        sent = 0
        for place, path in files.items():
            sent += _sent(platform, bucket, f"{home}{place}", path, lambda text, t=table: on_progress(f"{t}: {text}"))  # type: ignore[misc]
        told = "uploaded" if sent else "unchanged"
        if len(files) > 1:
            told = f"{sent} of {len(files)} files uploaded" if sent else f"{len(files)} files unchanged"
        strange = [key for key in _there(platform, bucket, home) if key.removeprefix(home) not in files]
        outcome[table] = told + _told_of_strange(platform, bucket, dataset, strange, delete=delete)
    return outcome


def _sent(platform: Platform, bucket: str, key: str, path: Path, on_progress: Callable[[str], None]) -> bool:
    """Whether the file had to be uploaded."""
    with path.open("rb") as file:
        checksum = hashlib.file_digest(file, "sha256").hexdigest()
    if _stored_checksum(platform, bucket, key) == checksum:
        return False
    on_progress(f"{path.stat().st_size / 1e6:,.1f} MB")
    try:
        platform.s3.upload_file(str(path), bucket, key, ExtraArgs={"Metadata": {"sha256": checksum}})
    except (S3UploadFailedError, ClientError) as error:
        raise UserError(f"Could not upload {path.name} to s3://{bucket}/{key}: {error}") from error
    return True


def _there(platform: Platform, bucket: str, home: str) -> list[str]:
    """The keys below a table's folder that a run reads."""
    try:
        pages = platform.s3.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=home)
        keys = [found["Key"] for page in pages for found in page.get("Contents", [])]
    except ClientError as error:
        raise UserError(f"Could not list s3://{bucket}/{home}: {error}") from error
    return [key for key in keys if not key.endswith("/") and not is_hidden(key.removeprefix(home))]


def _told_of_strange(platform: Platform, bucket: str, dataset: Dataset, keys: list[str], *, delete: bool) -> str:
    if not keys:
        return ""
    shown = ", ".join(keys[:SHOWN]) + (f" and {len(keys) - SHOWN} more" if len(keys) > SHOWN else "")
    if not delete:
        again = platform.command(f"data push {dataset.name} --delete")
        return (
            f"; {counted(len(keys), 'file')} there that the source has not, which runs read as well: {shown}. "
            f"To delete what the source has not: {again}"
        )
    for key in keys:
        try:
            platform.s3.delete_object(Bucket=bucket, Key=key)
        except ClientError as error:
            raise UserError(f"Could not delete s3://{bucket}/{key}: {error}") from error
    return f"; deleted, since the source has it not: {shown}"


def _stored_checksum(platform: Platform, bucket: str, key: str) -> str | None:
    try:
        head = platform.s3.head_object(Bucket=bucket, Key=key)
    except ClientError as error:
        if error.response["Error"]["Code"] in ("404", "NoSuchKey"):
            return None
        raise UserError(f"Could not look at s3://{bucket}/{key}: {error}") from error
    checksum: str | None = head["Metadata"].get("sha256")
    return checksum
