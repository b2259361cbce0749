"""Features as the numbers that a tree splits on: what is learned from the training side, and applied to any rows.

What is learned is a list of JSON objects, one a feature (`features` in tree.json), and the only thing that scoring
needs besides the tree:
- a number that is missing (NULL or NaN) becomes MISSING, below every value that occurs, so missing rows go left;
- a category becomes its smoothed mean label `(positives + m * prior) / (rows + m)`; a missing one is a category of
  its own, one that training has not seen becomes the prior (Micci-Barreca 2001, SIGKDD Explorations 3(1)).
"""

import json
from typing import Any, Dict, List, Sequence

from pyspark.ml.feature import VectorAssembler
from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from jobs.errors import JobError
from jobs.settings import Settings, file_of

Feature = Dict[str, Any]

# So far down that no value of a later table lies below it, as one could if it were the training minimum less one.
MISSING = -1e300
# A column with more is a key rather than a category, and the table of encodings must fit the driver.
MAX_CATEGORIES = 100_000
VECTOR = "features"


def learn(train: DataFrame, settings: Settings) -> List[Feature]:
    """The encoding of each declared feature, numbers first, from rows of the training side only.

    Raises JobError if the label has one class, or a category has too many values.
    """
    label = F.col(settings["label"]["column"])
    numbers, categories = settings["features"]["numbers"], settings["features"]["categories"]
    total = train.agg(
        F.count("*").alias("rows"),
        F.sum(label).alias("positives"),
        *[F.count("*") - F.count(_number(name)) for name in numbers],
    ).head()
    rows, positives, *missing = total or (0, 0)
    require_two_classes(rows or 0, positives or 0, settings, "the training side")
    prior, smoothing = positives / rows, settings["training"]["smoothing"]

    features: List[Feature] = [
        {"name": name, "kind": "number", "missing": MISSING, "missing_rows": count}
        for name, count in zip(numbers, missing)  # noqa: B905  # Python 3.9 has no strict
    ]
    numbered = [(F.lit(i).alias("i"), _category(name).alias("value")) for i, name in enumerate(categories)]
    cells = F.array(*[F.struct(*cell) for cell in numbered])
    per_value = (
        train.select(label.alias("label"), F.explode(cells).alias("cell"))
        .groupBy("cell.i", "cell.value")
        .agg(F.count("*").alias("rows"), F.sum("label").alias("positives"))
    )
    found = per_value.limit(MAX_CATEGORIES * len(categories) + 1).collect() if categories else []
    for i, name in enumerate(categories):
        values = [row for row in found if row["i"] == i]
        if len(values) > MAX_CATEGORIES:
            raise JobError(
                f"{file_of(settings)}: features.categories: {name} has more than {MAX_CATEGORIES:,} values, which "
                "makes it a key rather than a category: leave it out, or group its values in prepare.sql."
            )
        encoding = {
            row["value"]: (row["positives"] + smoothing * prior) / (row["rows"] + smoothing)
            for row in sorted(values, key=lambda row: str(row["value"]))
        }
        of_missing = encoding.pop(None, prior)
        features.append(
            {
                "name": name,
                "kind": "category",
                "encoding": encoding,
                "prior": prior,
                "unseen": prior,
                "missing": of_missing,
                "missing_rows": sum(row["rows"] for row in values if row["value"] is None),
            }
        )
    return features


def require_two_classes(rows: int, positives: int, settings: Settings, where: str) -> None:
    """Raises JobError if a side has no rows or one class only: nothing can be learned or measured there."""
    if 0 < positives < rows:
        return
    raise JobError(
        f"The label {settings['label']['column']} has one class only on {where}: {positives:,} of {rows:,} rows are "
        f"positive ({settings['label']['positive']}). Look at how datasets/{settings['name']}/prepare.sql makes it."
    )


def encode(rows: DataFrame, features: Sequence[Feature]) -> DataFrame:
    """Adds the vector column `features`; all other columns stay. Columns in: every feature's, by name."""
    encoded, inputs = rows, []
    for i, feature in enumerate(features):
        column = f"_x{i}"
        inputs.append(column)
        if feature["kind"] == "number":
            encoded = encoded.withColumn(column, F.coalesce(_number(feature["name"]), F.lit(feature["missing"])))
            continue
        # A join with a small table: looking each value up in a map literal would cost as much as the map is long.
        table = json.dumps([{f"_key{i}": key, f"_value{i}": value} for key, value in feature["encoding"].items()])
        kind = f"array<struct<_key{i}: string, _value{i}: double>>"
        lookup = rows.sparkSession.sql("SELECT inline(from_json(:table, :kind))", {"table": table, "kind": kind})
        value = _category(feature["name"])
        absent = F.when(value.isNull(), feature["missing"]).otherwise(feature["unseen"])
        encoded = encoded.join(F.broadcast(lookup), value == F.col(f"_key{i}"), "left")
        encoded = encoded.withColumn(column, F.coalesce(F.col(f"_value{i}"), absent)).drop(f"_key{i}", f"_value{i}")
    return VectorAssembler(inputCols=inputs, outputCol=VECTOR).transform(encoded).drop(*inputs)


def _number(name: str) -> Column:
    return F.nanvl(F.col(name).cast("double"), F.lit(None).cast("double"))


def _category(name: str) -> Column:
    return F.col(name).cast("string")
