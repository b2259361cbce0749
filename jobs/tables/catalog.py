"""The Glue Data Catalog as the jobs use it: where a table's files lie, publishing a table.

The catalog is the contract between crawler, jobs and analysts. Jobs ask it through the Glue API instead of a Hive
metastore, so that they run unchanged wherever the API answers.
"""

import re
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Dict, Iterator, List, Tuple

from botocore.exceptions import BotoCoreError, ClientError
from py4j.protocol import Py4JJavaError  # py4j ships no types
from pyspark.errors import PySparkException
from pyspark.sql import DataFrame, SparkSession

from jobs.errors import JobError
from jobs.tables.features import BROKEN

# How Spark begins when a task cannot read a file, or finds that it has gone since the table was listed.
UNREADABLE = re.compile(
    r"Encountered error while reading file (\S+?)\.? |FAILED_READ_FILE|"
    r"Could not read footer|is not a Parquet file|underlying files have been updated|"
    r"org\.apache\.spark\.input\.PortableDataStream"
)
DECODING = re.compile(rf"^\w*Error: {BROKEN} (\S+: .+)$", re.MULTILINE)  # jobs/tables/features.py
CAUSE = re.compile(r"^(?:Caused by)?: (?:[a-z]\w*\.)+\w+: (.+)$", re.MULTILINE)


@dataclass(frozen=True)
class CatalogTable:
    """What the catalog says of a table: where its files lie, and in which format.

    `split_seed`, `split_by`: of its hashes, the columns joined by commas, '' for the keys. `columns`: with their types,
    of a table that a run has published; nobody else's are relied on.
    """

    database: str
    name: str
    location: str
    format: str
    split_seed: str = ""
    split_by: str = ""
    columns: Tuple[Tuple[str, str], ...] = ()

    def __str__(self) -> str:
        return f"{self.database}.{self.name} ({self.location})"


def find_table(glue: Any, database: str, name: str, way_out: str) -> CatalogTable:
    """The catalog's entry. Raises JobError, ending in `way_out`, if there is none. `glue` is a boto3 client."""
    try:
        table = glue.get_table(DatabaseName=database, Name=name)["Table"]
    except glue.exceptions.EntityNotFoundException as error:
        raise JobError(f"The catalog has no table {database}.{name}: {way_out}") from error
    except (ClientError, BotoCoreError) as error:
        raise JobError(f"The catalog does not answer for {database}.{name}, and says why: {error}") from error
    storage = table["StorageDescriptor"]
    # The crawler leaves its findings with the table or with the storage, depending on the classifier.
    said = {**storage.get("Parameters", {}), **table.get("Parameters", {})}
    columns = [(column["Name"], column["Type"]) for column in storage.get("Columns", [])] if "run_id" in said else []
    return CatalogTable(
        database,
        name,
        location=storage["Location"],
        format=said.get("classification", "csv"),
        split_seed=said.get("split_seed", ""),
        split_by=said.get("split_by", ""),
        columns=tuple(columns),
    )


def read_parquet(spark: SparkSession, table: CatalogTable) -> DataFrame:
    """The rows of a published table. Raises JobError if its files are gone or are not Parquet."""
    if table.format != "parquet":
        raise JobError(
            f"{table} is {table.format}, not Parquet: prepare.py makes a table that can be learned and scored."
        )
    try:
        if not table.columns:
            return spark.read.parquet(table.location)
        # Spark would start a job to find them in one of the files.
        kinds = ", ".join(f"`{name}` {kind}" for name, kind in table.columns)
        rows = spark.read.schema(kinds).parquet(table.location)
        size = int(rows._jdf.queryExecution().analyzed().stats().sizeInBytes())  # as the files were listed
    except (PySparkException, Py4JJavaError) as error:
        raise JobError(_unreadable(table, error)) from error
    if not size:
        raise JobError(f"There are no files of {table} any more: run the pipeline again, which makes the table anew.")
    return rows


@contextmanager
def reading(table: CatalogTable) -> Iterator[None]:
    """For all that is done with the rows of a table: Spark reads them late, and a broken file shows only then.

    Raises JobError for a file that cannot be read; whatever else goes wrong is let through.
    """
    try:
        yield
    except (PySparkException, Py4JJavaError) as error:
        if not UNREADABLE.search(str(error)):
            raise
        raise JobError(_unreadable(table, error)) from error


def _unreadable(table: CatalogTable, error: Exception) -> str:
    """What Java says innermost, which names the file or the missing permission, without its stack trace."""
    text = str(error)
    causes = DECODING.findall(text) or CAUSE.findall(text)
    cause = (causes[-1] if causes else text.splitlines()[0]).strip()
    file = UNREADABLE.search(text)
    if file and file[1] and file[1] not in cause:
        cause = f"{file[1]}: {cause}"
    return (
        f"The files of {table} cannot be read: {cause.rstrip('.')}. Unless it is S3 that refuses, run the pipeline "
        "again, which makes the table anew."
    )


def publish(
    glue: Any, database: str, name: str, location: str, columns: List[Tuple[str, str]], said: Dict[str, str]
) -> None:
    """Points the catalog table at `location` (Parquet) in one call: readers see the old files or the new, no mix.

    `said`: further parameters of the table, its run_id among them.

    Raises JobError if the catalog does not take it; a run that is done again publishes again.
    """
    table = {
        "Name": name,
        "TableType": "EXTERNAL_TABLE",
        "Parameters": {"classification": "parquet", "EXTERNAL": "TRUE", **said},
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
        _put_table(glue, DatabaseName=database, TableInput=table)
    except (ClientError, BotoCoreError) as error:
        raise JobError(
            f"The catalog does not take {database}.{name}, whose files lie whole in {location}: {error}. "
            "When that is mended, run again."
        ) from error


def _put_table(glue: Any, **table: Any) -> None:
    """Replaces the catalog's entry, or makes it.

    It may be made in between: by somebody else, or by a first try of our own whose answer was lost.
    """
    try:
        glue.update_table(**table)
        return
    except glue.exceptions.EntityNotFoundException:
        pass
    try:
        glue.create_table(**table)
    except glue.exceptions.AlreadyExistsException:
        glue.update_table(**table)
