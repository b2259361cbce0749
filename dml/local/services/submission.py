"""How a service that runs Spark has it run here: Glue a job, EMR a step; in the server's process."""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from dml.local.clients import client
from dml.local.place import Place
from dml.local.spark.process import SparkProcess, java_options
from dml.local.yarn.daemons import Yarn
from dml.local.yarn.step import YarnStep

NAME = re.compile(r"\w[\w.-]{0,99}")  # what may be a folder's


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
        java_options=java_options(largest_folder(place, arguments)),
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


def largest_folder(place: Place, arguments: Sequence[str]) -> int:
    """The bytes of the largest folder in S3 below a bucket's folder that an argument names, such as a dataset's: about
    what a job will read, whichever it is."""
    sizes: Counter[Path] = Counter()
    for name in {argument for argument in arguments if NAME.fullmatch(argument)}:
        for file in place.objects.glob(f"*/*/{name}/**/*"):
            with suppress(OSError):  # another job has just replaced it
                sizes[file.parent] += file.stat().st_size if file.is_file() else 0
    return max(sizes.values(), default=0)


def _buckets(place: Place) -> list[str]:
    return [bucket["Name"] for bucket in client(place, "s3").list_buckets()["Buckets"]]
