"""`dml data push`: raw files of a dataset into the raw bucket, one folder a table, unchanged files left alone."""

import hashlib
from collections.abc import Callable
from pathlib import Path

from boto3.exceptions import S3UploadFailedError
from botocore.exceptions import ClientError

from datasets import raw_files
from dml.errors import UserError
from dml.estate.platform import Platform
from jobs.tables.settings import Dataset
from stacks.outputs import Output


def push(platform: Platform, dataset: Dataset, *, cache: Path, on_progress: Callable[[str], None]) -> dict[str, str]:
    """Upload what changed; returns {table: "uploaded" | "unchanged"}.

    A file is unchanged when the object's own checksum note (metadata `sha256`) says so: an ETag is no checksum of a
    multipart upload (S3 user guide, "Checking object integrity").
    """
    bucket = platform.output(Output.RAW_BUCKET)
    outcome: dict[str, str] = {}
    for table, path in raw_files(dataset, cache).items():
        key = f"{dataset.name}/{table}/{path.name}"
        with path.open("rb") as file:
            checksum = hashlib.file_digest(file, "sha256").hexdigest()
        if _stored_checksum(platform, bucket, key) == checksum:
            outcome[table] = "unchanged"
            continue
        on_progress(f"{table}: {path.stat().st_size / 1e6:,.1f} MB")
        try:
            platform.s3.upload_file(str(path), bucket, key, ExtraArgs={"Metadata": {"sha256": checksum}})
        except (S3UploadFailedError, ClientError) as error:
            raise UserError(f"Could not upload {path.name} to s3://{bucket}/{key}: {error}") from error
        outcome[table] = "uploaded"
    return outcome


def _stored_checksum(platform: Platform, bucket: str, key: str) -> str | None:
    try:
        head = platform.s3.head_object(Bucket=bucket, Key=key)
    except ClientError as error:
        if error.response["Error"]["Code"] in ("404", "NoSuchKey"):
            return None
        raise UserError(f"Could not look at s3://{bucket}/{key}: {error}") from error
    checksum: str | None = head["Metadata"].get("sha256")
    return checksum
