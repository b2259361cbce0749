"""What tests of training need beside a session."""

from collections.abc import Callable
from itertools import count
from pathlib import Path

import pytest
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from jobs.tables import split
from jobs.tables.features import Features
from jobs.tables.settings import Dataset

Written = Callable[[DataFrame, Dataset], Features]


@pytest.fixture
def written(tmp_path: Path) -> Written:
    """Writes a frame as prepare.py would, and opens it as train.py does.

    A frame with a column `side` gets hashes that put its rows there; others get hashes of their keys. A time column
    that is lacking is one day.
    """
    numbers = count()

    def write(frame: DataFrame, settings: Dataset) -> Features:
        folder = tmp_path / f"features{next(numbers)}"
        hashed = F.xxhash64(*settings.keys)
        if split.SIDE in frame.columns:
            lower = hashed.bitwiseAND(2**split.HALF - 1)
            hashed = F.when(F.col(split.SIDE) == split.TEST, lower).otherwise(F.lit(-(2**split.HALF)) + lower)
        if settings.time and settings.time.column not in frame.columns:
            frame = frame.withColumn(settings.time.column, F.lit("2024-01-01").cast("date"))
        frame.withColumn(split.HASH, hashed).write.parquet(str(folder))
        return Features(frame.sparkSession, str(folder), settings)

    return write
