"""How a service that runs Spark has it run here: Glue a job, EMR a step; in the server's process."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from dml.local.clients import client
from dml.local.place import Place
from dml.local.spark.process import SparkProcess
from dml.local.yarn.daemons import Yarn
from dml.local.yarn.step import YarnStep


def submission(
    place: Place,
    run_id: str,
    arguments: Sequence[str],
    credentials: Mapping[str, str],
    log: Path,
    *,
    errors: Path | None = None,
    container: str = "",
    node: Path | None = None,
) -> SparkProcess:
    """A spark-submit with a role's credentials, in a folder of its own, which finds every bucket that there is now.

    `errors`, `container`: as SparkProcess has them. `node`: the folder of the node that it runs on, if that may hold
    files for it.
    """
    return SparkProcess(
        arguments=arguments,
        credentials=credentials,
        endpoint=place.endpoint,
        buckets=_buckets(place),
        work=place.cloud / "work" / run_id,
        log=log,
        errors=errors,
        container=container,
        shipped=node,
        s3a=place.s3a,
    )


def submission_to_yarn(
    place: Place,
    run_id: str,
    arguments: Sequence[str],
    credentials: Mapping[str, str],
    *,
    yarn: Yarn,
    output: Path,
    errors: Path,
    node: Path,
) -> YarnStep:
    """The same to a cluster's YARN. `output`, `errors`: what spark-submit prints."""
    return YarnStep(
        yarn=yarn,
        arguments=arguments,
        credentials=credentials,
        endpoint=place.endpoint,
        buckets=_buckets(place),
        work=place.cloud / "work" / run_id,
        output=output,
        errors=errors,
        shipped=node,
    )


def _buckets(place: Place) -> list[str]:
    return [bucket["Name"] for bucket in client(place, "s3").list_buckets()["Buckets"]]
