"""What Glue tells CloudWatch with the role of a job or crawler: its log and its metrics; in the server's process.

As on AWS a role that may not send them changes nothing for the job: they are missing then, and the server's log and
`dml local calls --denied` say so. Sources: Glue guide, "Logging for AWS Glue jobs" (log groups, and their names under a
security configuration), "Monitoring AWS Glue using Amazon CloudWatch metrics".
"""

import logging
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from botocore.exceptions import ClientError

from dml.local import hooks
from dml.local.clients import client
from dml.local.place import Place

log = logging.getLogger("dml.glue")

JOBS, CRAWLERS = "/aws-glue/jobs", "/aws-glue/crawlers"
# https://docs.aws.amazon.com/AmazonCloudWatchLogs/latest/APIReference/API_PutLogEvents.html
EVENTS, BYTES, OVERHEAD, LARGEST = 10_000, 1_048_576, 26, 262_118


class Telemetry:
    """Sends with one role's credentials."""

    def __init__(self, place: Place, credentials: Mapping[str, str]) -> None:
        self._place = place
        self._credentials = credentials

    def send_log(self, group: str, stream: str, text: str, *, key: str = "") -> None:
        """Writes a log's lines to a stream of its own. `key`: the KMS key of the group, by a security configuration."""
        logs = client(self._place, "logs", self._credentials)

        def send() -> None:
            _unless_there(logs, lambda: logs.create_log_group(logGroupName=group))
            if key:
                logs.associate_kms_key(logGroupName=group, kmsKeyId=key)
            _unless_there(logs, lambda: logs.create_log_stream(logGroupName=group, logStreamName=stream))
            for events in _batches(text):
                logs.put_log_events(logGroupName=group, logStreamName=stream, logEvents=events)

        self._try(f"the log {group}/{stream}", send)

    def send_metrics(self, job: str, run: str, figures: Mapping[str, float]) -> None:
        """Puts a job run's figures into the namespace Glue, under the names that the real ones have."""
        dimensions = [{"Name": "JobName", "Value": job}, {"Name": "JobRunId", "Value": run}]
        data = [{"MetricName": name, "Dimensions": dimensions, "Value": value} for name, value in figures.items()]
        metrics = client(self._place, "cloudwatch", self._credentials)
        self._try(f"the metrics of {run}", lambda: metrics.put_metric_data(Namespace="Glue", MetricData=data))

    def _try(self, what: str, send: Callable[[], Any]) -> None:
        try:
            send()
        except ClientError as error:
            log.error("CloudWatch did not take %s: %s", what, error)


def log_group(root: str, security_configuration: str, role: str, end: str = "") -> str:
    """The group that a log goes to; `role` is a name or ARN. Under a security configuration each has one of its own."""
    if security_configuration:
        root = f"{root}/{security_configuration}-role/{role.rpartition('/')[2]}"
    return root + end


def log_key(security_configuration: str) -> str:
    """The KMS key that a security configuration encrypts logs with; empty if it does not, or there is none."""
    known = hooks.existing(hooks.module("services.glue"), "_security_configs").get(security_configuration) or {}
    key = known.get("EncryptionConfiguration", {}).get("CloudWatchEncryption", {}).get("KmsKeyArn")
    return str(key or "")


def read_security(place: Place, credentials: Mapping[str, str], security_configuration: str) -> None:
    """Reads the security configuration, if there is one, with the job's or the crawler's role. Raises ClientError.

    Source: Glue guide, "Encrypting data written by AWS Glue", and roles of crawlers that others have published.
    """
    if security_configuration:
        client(place, "glue", credentials).get_security_configuration(Name=security_configuration)


def _batches(text: str) -> Iterator[list[dict[str, Any]]]:
    batch: list[dict[str, Any]] = []
    size, now = 0, int(time.time() * 1000)
    for line in text.splitlines():
        message = line.encode()[:LARGEST].decode(errors="ignore")
        if not message:
            continue
        weight = len(message.encode()) + OVERHEAD
        if batch and (len(batch) == EVENTS or size + weight > BYTES):
            yield batch
            batch, size = [], 0
        batch.append({"timestamp": now, "message": message})
        size += weight
    if batch:
        yield batch


def _unless_there(logs: Any, create: Callable[[], Any]) -> None:
    try:
        create()
    except logs.exceptions.ResourceAlreadyExistsException:
        return
