"""A dataset as a note finds it: settings, catalog, buckets, and what the run behind the current model has left.

Buckets have names that only a deployment knows, so the cluster's stack leaves them as parameters that nodes may read
(stacks/cluster.py).
"""

import datetime as dt
import re
from functools import cached_property
from typing import Any, Dict, List, Optional

import boto3
from botocore.exceptions import BotoCoreError, ClientError
from botocore.utils import InstanceMetadataRegionFetcher
from pyspark.sql import DataFrame

from jobs.errors import JobError
from jobs.models import registry
from jobs.tables import catalog, settings, storage
from jobs.tables.features import Features
from jobs.tables.settings import PUBLISHED_TABLES, Dataset

MADE_BY = "made_by"  # a table's parameter: only what a note has made, a note replaces
NOTES = "notes"
NAME = re.compile(r"[a-z][a-z0-9_]*")


def region() -> str:
    """This machine's. A node has none in its environment: boto3 does not ask the machine for it, so we do."""
    found = boto3.session.Session().region_name or InstanceMetadataRegionFetcher().retrieve_region()
    if not found:
        raise JobError(
            "Nothing says in which AWS region this is: run the note on a cluster of the platform, or set AWS_REGION."
        )
    return str(found)


class Here:
    """One dataset of one environment, `database` being its name in the catalog. Nothing is asked before it is needed.

    All raise JobError if something is not there or may not be read, with the way out.
    """

    def __init__(self, environment: str, dataset: str, database: str) -> None:
        self.environment, self.dataset, self.database = environment, dataset, database
        self._clients: Dict[str, Any] = {}

    @cached_property
    def settings(self) -> Dataset:
        return settings.load(self.dataset)

    @cached_property
    def models(self) -> str:
        """s3://BUCKET/ of the model registry."""
        return self._parameter("models")

    @cached_property
    def lake(self) -> str:
        """s3://BUCKET/ of features, predictions and what notes save."""
        return self._parameter("lake")

    @cached_property
    def current(self) -> registry.Registered:
        """The current model, as it was when this was first asked."""
        found = registry.current_model(self.client("s3"), self.models, self.dataset)
        if found is None:
            raise JobError(f"No model of {self.dataset} is published yet. Run the pipeline: dml run {self.dataset}")
        return found

    def document(self, name: str) -> Optional[storage.Json]:
        """A JSON file of the current model's run, such as "metrics"; None if the run has left none."""
        return storage.read_json(self.client("s3"), f"{self.current.home}/{name}.json")

    @cached_property
    def metrics(self) -> storage.Json:
        """metrics.json of the current model's run."""
        found = self.document("metrics")
        if found is None:
            raise JobError(f"{self.current.home}/ has no metrics.json: point CURRENT.json at a whole run again.")
        return found

    def table(self, name: str) -> catalog.CatalogTable:
        """The catalog's entry of a table of this dataset."""
        return catalog.find_table(
            self.client("glue"), self.database, name, f"run the pipeline, which makes it: dml run {self.dataset}"
        )

    def run_of(self, name: str) -> str:
        """The run whose files the table `features` or `predictions` has: each run has a folder of its own."""
        return self.table(name).location.rstrip("/").rpartition("/")[2]

    def report(self, run_id: str, stage: str) -> Optional[storage.Json]:
        """What a run's stage, "prepare" or "predict", has counted; None if it has left nothing."""
        return storage.read_json(
            self.client("s3"), f"{self.lake.rstrip('/')}/{self.dataset}/runs/{run_id}/{stage}.json"
        )

    def features(self, spark: Any) -> Features:
        """The features table as the pipeline's training reads it."""
        table = self.table("features")
        return Features(spark, table.location, self.settings, catalog.read_parquet(spark, table))

    def save(self, rows: DataFrame, name: str) -> str:
        """Makes or replaces the table `name` of the catalog, for anybody to query; says where its files lie.

        Each time in a folder of its own: who reads the table meanwhile reads the former one. Raises JobError for a
        name that is none, or a table's that no note has made.
        """
        if not NAME.fullmatch(name):
            raise JobError(f"{name!r} cannot be a table's name: small letters, digits and _, a letter first.")
        glue, taken = self.client("glue"), name in (*PUBLISHED_TABLES, *self.settings.tables)
        try:
            there = glue.get_table(DatabaseName=self.database, Name=name)["Table"]
            taken = taken or there.get("Parameters", {}).get(MADE_BY) != NOTES
        except glue.exceptions.EntityNotFoundException:
            pass
        except (ClientError, BotoCoreError) as error:
            raise JobError(f"The catalog does not say whether {self.database}.{name} is there: {error}") from error
        if taken:
            raise JobError(f"{self.database}.{name} is no table that a note has made: save under another name.")
        stamp = f"{dt.datetime.now(dt.timezone.utc):%Y%m%dT%H%M%S%f}"
        location = f"{self.lake.rstrip('/')}/{self.dataset}/{NOTES}/{name}/{stamp}/"
        rows.write.parquet(location)
        columns: List[Any] = rows.dtypes
        catalog.publish(glue, self.database, name, location, columns, {MADE_BY: NOTES, "run_id": stamp})
        return location

    def client(self, service: str) -> Any:
        """A boto3 client of this region, always the same one."""
        if service not in self._clients:
            self._clients[service] = boto3.client(service, region_name=self._region)
        return self._clients[service]

    @cached_property
    def _region(self) -> str:
        return region()

    def _parameter(self, name: str) -> str:
        path = f"/dml/{self.environment}/cluster/{name}"
        ssm = self.client("ssm")
        try:
            return str(ssm.get_parameter(Name=path)["Parameter"]["Value"])
        except ssm.exceptions.ParameterNotFound as error:
            raise JobError(
                f"The parameter {path} is not there: deploy the stack dml-{self.environment}-cluster of this release."
            ) from error
        except (ClientError, BotoCoreError) as error:
            raise JobError(f"The parameter {path} cannot be read, and AWS says why: {error}") from error
