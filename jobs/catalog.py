"""The Glue Data Catalog as the jobs use it: where a table's files lie, publishing a table.

The catalog is the contract between crawler, jobs and analysts. Jobs ask it through the Glue API instead of a Hive
metastore, so that they run unchanged wherever the API answers.
"""

from dataclasses import dataclass
from typing import Any, List, Tuple

from pyspark.errors import AnalysisException
from pyspark.sql import DataFrame, SparkSession

from jobs.errors import JobError


@dataclass(frozen=True)
class CatalogTable:
    """What the catalog says of a table: where its files lie, and in which format."""

    database: str
    name: str
    location: str
    format: str

    def __str__(self) -> str:
        return f"{self.database}.{self.name} ({self.location})"


def find_table(glue: Any, database: str, name: str, way_out: str) -> CatalogTable:
    """The catalog's entry. Raises JobError, ending in `way_out`, if there is none. `glue` is a boto3 client."""
    try:
        table = glue.get_table(DatabaseName=database, Name=name)["Table"]
    except glue.exceptions.EntityNotFoundException as error:
        raise JobError(f"The catalog has no table {database}.{name}: {way_out}") from error
    storage = table["StorageDescriptor"]
    # The crawler leaves its findings with the table or with the storage, depending on the classifier.
    said = {**storage.get("Parameters", {}), **table.get("Parameters", {})}
    return CatalogTable(database, name, location=storage["Location"], format=said.get("classification", "csv"))


def read_parquet(spark: SparkSession, table: CatalogTable) -> DataFrame:
    """The rows of a published table. Raises JobError if its files are gone or are not Parquet."""
    if table.format != "parquet":
        raise JobError(
            f"{table} is {table.format}, not Parquet: prepare.py makes a table that can be learned and scored."
        )
    try:
        return spark.read.parquet(table.location)
    except AnalysisException as error:
        raise JobError(f"The files of {table} cannot be read: run the pipeline again to rebuild it. {error}") from error


def publish(glue: Any, database: str, name: str, location: str, columns: List[Tuple[str, str]], run_id: str) -> None:
    """Points the catalog table at `location` (Parquet) in one call: readers see the old files or the new, no mix."""
    table = {
        "Name": name,
        "TableType": "EXTERNAL_TABLE",
        "Parameters": {"classification": "parquet", "EXTERNAL": "TRUE", "run_id": run_id},
        "StorageDescriptor": {
            "Columns": [{"Name": column, "Type": kind} for column, kind in columns],
            "Location": location,
            "InputFormat": "org.apache.hadoop.hive.ql.io.parquet.MapredParquetInputFormat",
            "OutputFormat": "org.apache.hadoop.hive.ql.io.parquet.MapredParquetOutputFormat",
            "SerdeInfo": {
                "SerializationLibrary": "org.apache.hadoop.hive.ql.io.parquet.serde.ParquetHiveSerDe",
                "Parameters": {"serialization.format": "1"},
            },
        },
        "PartitionKeys": [],
    }
    try:
        glue.update_table(DatabaseName=database, TableInput=table)
    except glue.exceptions.EntityNotFoundException:
        glue.create_table(DatabaseName=database, TableInput=table)
