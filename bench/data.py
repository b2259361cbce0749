"""The rows that every contender gets, at each size: as Parquet for the learners, as CSV for MLlib's tutorial.

Both hold the column `side`, so that everyone learns from the same rows and is tested on the same rows. A larger size is
every row several times, told apart by the column `copy`; a flight's copies are all on one side, or the test rows would
have been seen in training.
"""

import hashlib
import json
import math
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.measure import write_json

SIZES = {"337k": 1, "3.37m": 10, "10m": 30}  # copies of the 337 k flights, of which 327 k have a label
HOME = Path(__file__).parents[1]
BENCH = HOME / ".dml" / "bench"
ROWS_PER_FILE = 250_000


@dataclass(frozen=True)
class Place:
    """Where one size of the data lies."""

    size: str

    @property
    def folder(self) -> Path:
        return BENCH / "data" / self.size

    @property
    def features(self) -> Path:
        return self.folder / "features"

    @property
    def csv(self) -> Path:
        return self.folder / "csv"

    def told(self) -> dict[str, Any]:
        """`rows`, `test_rows`, `test_positives`, `columns`, `raw` files by table; {} while the data are not made."""
        file = self.folder / "data.json"
        found: dict[str, Any] = json.loads(file.read_text()) if file.is_file() else {}
        return found


def recipe() -> str:
    """Changes when the features do: the dataset's settings, its query, and how this file multiplies the rows."""
    from bench import ours

    parts = ours.settings().to_json(), ours.query(), Path(__file__).read_text()
    return hashlib.sha256("".join(parts).encode()).hexdigest()[:16]


def make(place: Place) -> None:
    """Makes one size of the data, data.json last."""
    from pyspark.sql import functions as F

    from bench import ours
    from datasets import load_dataset, raw_files
    from jobs.tables import split

    shutil.rmtree(place.folder, ignore_errors=True)
    raw = {
        table: file
        for table, files in raw_files(load_dataset(ours.DATASET), BENCH / "raw").items()
        for file in files.values()
    }
    features = ours.prepare_features(raw, place.folder / "lake")
    spark, settings = ours.session("bench data"), ours.settings()
    flights = spark.read.parquet(str(features)).withColumn("side", ours.side())
    rows = flights.crossJoin(spark.range(SIZES[place.size]).select(F.col("id").cast("int").alias("copy")))
    # A copy's hash differs in the half that has nothing to do with the side: by it rows are drawn for the sample.
    half = 2**split.HALF - 1
    other = F.xxhash64(split.HASH, "copy").bitwiseAND(half).bitwiseOR(F.col(split.HASH).bitwiseAND(~half))
    rows = rows.withColumn(split.HASH, F.when(F.col("copy") == 0, F.col(split.HASH)).otherwise(other))
    keys = [*settings.keys, "copy"]
    files = math.ceil(flights.count() * SIZES[place.size] / ROWS_PER_FILE)
    rows.repartition(files, *keys).sortWithinPartitions(*keys).write.parquet(str(place.features))
    made = spark.read.parquet(str(place.features))
    made.write.csv(str(place.csv), header=True)
    label = settings.label.column
    counted = {
        row["side"]: (row["n"], row["k"])
        for row in made.groupBy("side").agg(F.count("*").alias("n"), F.sum(label).alias("k")).collect()
    }
    told = {
        "recipe": recipe(),
        "rows": sum(n for n, _ in counted.values()),
        "test_rows": counted["test"][0],
        "test_positives": counted["test"][1],
        "label": label,
        "numbers": settings.features.numbers,
        "categories": settings.features.categories,
        "raw": {name: str(file) for name, file in raw.items()},
    }
    write_json(place.folder / "data.json", told)


if __name__ == "__main__":
    make(Place(sys.argv[1]))
