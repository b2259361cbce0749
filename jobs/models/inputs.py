"""Features as the numbers that a model compares: what scoring needs of a table, by the objects of tree.json.

- A number that is missing (NULL, NaN, infinite) becomes MISSING, below every value that occurs: missing rows go left.
- A category becomes the number that its encoding gives it; a missing one is a category of its own, one that training
  has not seen has a number of its own too.
"""

from typing import Any, Dict, List, Optional, Sequence, Tuple

import numpy as np
import pyarrow as pa
from pyspark.sql import Column
from pyspark.sql import functions as F

from jobs.tables.arrays import Array, as_arrow, as_doubles, as_numpy, as_text

Feature = Dict[str, Any]

# So far down that no value of a later table lies below it, as one could if it were the training minimum less one.
MISSING = -1e300


def number_condition(feature: Feature, threshold: float) -> Tuple[str, str]:
    """What leads to the left of a split on a number, and what to the right, in words."""
    name = feature["name"]
    if threshold < MISSING / 4:  # half-way between MISSING and the smallest value that training has seen
        return f"{name} is missing", f"{name} is known"
    or_missing = " or missing" if feature["missing_rows"] else ""
    return f"{name} <= {threshold:.6g}{or_missing}", f"{name} > {threshold:.6g}"


def matrix(batch: pa.RecordBatch, features: Sequence[Feature]) -> List[Array]:
    """Each feature's numbers, as a scorer compares them with thresholds. Columns in: every feature's, by name."""
    return [
        numbers_of(batch.column(f["name"])) if f["kind"] == "number" else _encoded(batch.column(f["name"]), f)
        for f in features
    ]


def feature_columns(features: Sequence[Feature]) -> List[Column]:
    """The columns that `matrix` wants, of any table that has the features: numbers as double, categories as text."""
    return [F.col(f["name"]).cast("double" if f["kind"] == "number" else "string").alias(f["name"]) for f in features]


def numbers_of(column: pa.Array) -> Array:
    """A column's numbers as doubles, MISSING where there is none."""
    values = as_doubles(column)
    return np.where(np.isfinite(values), values, MISSING)


def values_of(column: pa.Array) -> Tuple[List[Optional[str]], Array]:
    """A column's distinct values as text, None last, and each row's place among them."""
    found = as_text(column)
    nothing = as_arrow([len(found.dictionary)], np.int32)[0]
    return [*found.dictionary.to_pylist(), None], as_numpy(found.indices.fill_null(nothing))


def _encoded(column: pa.Array, feature: Feature) -> Array:
    values, index = values_of(column)
    known = feature["encoding"]
    of_values = [feature["missing"] if value is None else known.get(value, feature["unseen"]) for value in values]
    return np.array(of_values, dtype=np.float64)[index]
