"""The features table as training reads it: as rows of Spark, or column by column.

Spark's own reader hands each value of each row to Python by itself; of a table of twenty columns that takes ten times
as long as decoding its files. So Spark brings the files as they are, through whatever file system and permissions it
has, and pyarrow decodes them in the workers: a batch of columns at a time, of which nothing ever reaches the JVM.
"""

from functools import cached_property
from math import ceil
from typing import Iterable, Iterator, Optional, Sequence, Tuple

import pyarrow as pa
import pyarrow.parquet as pq
from pyspark import RDD
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from jobs.tables import split
from jobs.tables.session import CELLS_AT_ONCE, size_batches
from jobs.tables.settings import Dataset

# A partition is a number of files, which prepare.py makes equally large: two partitions a core, more of many files.
PARTITIONS_PER_CORE, FILES_PER_PARTITION = 2, 8
ONE_FILE_EACH = 10**6  # asked for that many partitions, Spark puts no two files together; see jobs/tables/session.py
# What a worker says of a file that it cannot decode; jobs/tables/catalog.py looks for it.
BROKEN = "Encountered error while reading file"


class Features:
    """A table that prepare.py has written. Nothing is read before it is asked for."""

    def __init__(
        self, spark: SparkSession, location: str, settings: Dataset, table: Optional[DataFrame] = None
    ) -> None:
        """`table`: all columns of the files at `location`, if they are opened already."""
        self.spark, self.location, self.settings, self._table = spark, location, settings, table

    @cached_property
    def rows(self) -> DataFrame:
        """What the settings declare, and `split_side`: train or test, by the row's hash."""
        side = split.side(self.settings.training.test_share, F.col(split.HASH))
        return self.table([*self.settings.columns, split.HASH]).select(
            *self.settings.columns, side.alias(split.ROW_SIDE)
        )

    def table(self, columns: Sequence[str]) -> DataFrame:
        """These columns of the files, each once."""
        table = self.spark.read.parquet(self.location) if self._table is None else self._table
        size_batches(self.spark, len(columns))
        return table.select(*dict.fromkeys(columns))

    @cached_property
    def _files(self) -> "RDD[Tuple[str, bytes]]":
        context = self.spark.sparkContext
        single = context.binaryFiles(self.location, ONE_FILE_EACH)
        files = single.getNumPartitions()
        wanted = max(PARTITIONS_PER_CORE * context.defaultParallelism, ceil(files / FILES_PER_PARTITION))
        return single.coalesce(wanted) if wanted < files else single

    def batches(self, columns: Sequence[str]) -> "RDD[pa.RecordBatch]":
        """The rows as batches of these columns, text as dictionaries. They exist in the workers only: not to be kept.

        Fails with BROKEN for a file that is no Parquet or has not all columns.
        """
        rows = max(1_000, min(100_000, CELLS_AT_ONCE // max(len(columns), 1)))
        return self._files.mapPartitions(_Decoder(columns, self.settings.features.categories, rows))


class _Decoder:
    """Files to batches of columns, on the executors."""

    def __init__(self, columns: Sequence[str], categories: Sequence[str], rows: int) -> None:
        self.columns, self.categories, self.rows = list(dict.fromkeys(columns)), list(categories), rows

    def __call__(self, files: Iterable[Tuple[str, bytes]]) -> Iterator[pa.RecordBatch]:
        for name, content in files:
            try:
                yield from self._batches(content)
            except (pa.ArrowException, OSError) as error:
                raise ValueError(f"{BROKEN} {name}: {str(error).splitlines()[0]}") from error

    def _batches(self, content: bytes) -> Iterator[pa.RecordBatch]:
        file = pq.ParquetFile(
            pa.BufferReader(content), read_dictionary=self.categories, coerce_int96_timestamp_unit="us"
        )
        if lacking := [column for column in self.columns if column not in file.schema_arrow.names]:
            raise OSError(f"it has no column {', '.join(lacking)}")
        yield from file.iter_batches(self.rows, columns=self.columns, use_threads=False)
