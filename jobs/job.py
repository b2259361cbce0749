"""How a script begins and ends: its arguments, the dataset's settings, clients, Spark and the clock."""

import argparse
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Iterator

import boto3
from pyspark.sql import SparkSession

from jobs.tables import session, settings
from jobs.tables.settings import Dataset


def arguments_of(script: str, purpose: str, *, database: str) -> argparse.ArgumentParser:
    """What every script is told. `database`: what the Glue database of the dataset holds for this one.

    Glue adds arguments of its own, so whoever parses overlooks what it does not know, and no name has a short form.
    """
    made = argparse.ArgumentParser(prog=f"{script}.py", description=purpose, allow_abbrev=False)
    made.add_argument("--dataset", required=True, help="the dataset's name")
    made.add_argument("--database", required=True, help=f"the Glue database {database}")
    made.add_argument("--run-id", required=True, help="the name of this run, part of every path it writes")
    made.add_argument("--region", required=True, help="the AWS region of catalog and buckets")
    return made


@dataclass(frozen=True)
class Job:
    """What a script works with. `glue` and `s3` are boto3 clients."""

    spark: SparkSession
    glue: Any
    s3: Any
    settings: Dataset
    clock: session.Clock


@contextmanager
def begun(script: str, told: argparse.Namespace, clock: session.Clock) -> Iterator[Job]:
    """Starts Spark and stops it in the end, whatever happens. `clock`: as old as the script. Raises JobError."""
    dataset = settings.load(told.dataset)
    glue, s3 = (boto3.client(service, region_name=told.region) for service in ("glue", "s3"))
    spark = session.spark_session(script, told.dataset)
    try:
        clock.count_java(spark)
        clock.lap("session")
        yield Job(spark, glue, s3, dataset, clock)
    finally:
        spark.stop()
