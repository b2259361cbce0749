"""Which side of the 80/20 split a row is on: by a hash of its key, or of what its group is called ([split] by), so it
never changes sides.

Not `randomSplit`, whose result depends on partitioning: a candidate and the current model must be compared on the same
rows. md5 over text is the same in every Spark version, in SQL and in plain Python. prepare.py leaves its first 16 hex
digits with each row of the features table, as the column `split_hash`, so that nobody needs to work it out again.
"""

from typing import Any, Sequence

import numpy as np
from numpy.typing import NDArray
from pyspark.sql import Column
from pyspark.sql import functions as F

SIDE, TRAIN, TEST = "side", "train", "test"
# In the features table, and beside its columns while a model is trained; jobs/tables/settings.py keeps both names free.
HASH, ROW_SIDE = "split_hash", "split_side"
HALF = 32  # bits: the upper half of the hash decides the side, the lower half the validation part of the training side


def hashed(columns: Sequence[str], seed: int) -> Column:
    """The first 16 hex digits of md5(seed, the columns' values as text), as a number of 64 bits with a sign (bigint).

    Rows of the same values have the same hash, and so are together on a side, in the validation part and in a sample.
    """
    text = F.concat_ws("|", F.lit(str(seed)), *[F.coalesce(F.col(name).cast("string"), F.lit("")) for name in columns])
    return F.conv(F.substring(F.md5(text), 1, 16), 16, -10).cast("bigint")


def side(test_share: float, row: Column) -> Column:
    """'train' or 'test'. `row`: its hash."""
    return F.when(F.shiftrightunsigned(row, HALF) < _limit(test_share), TEST).otherwise(TRAIN)


def is_test(hashes: NDArray[Any], test_share: float) -> NDArray[Any]:
    """Whether rows are on the side `test`, by their hashes (int64)."""
    found: NDArray[Any] = hashes.view("uint64") >> HALF < _limit(test_share)
    return found


def is_validation(hashes: NDArray[Any], share: float) -> NDArray[Any]:
    """Whether rows, if on the training side, are of the part that chooses settings."""
    found: NDArray[Any] = hashes.view("uint64") & (2**HALF - 1) < _limit(share)
    return found


def is_sampled(hashes: NDArray[Any], share: float) -> NDArray[Any]:
    """Whether rows are of a sample that has nothing to do with their side, nor with the validation part."""
    mixed = hashes.view("uint64") * np.uint64(0x9E3779B97F4A7C15)  # Knuth's multiplicative hashing, by the golden ratio
    found: NDArray[Any] = mixed >> HALF < _limit(share)
    return found


def _limit(share: float) -> int:
    return int(share * 2**HALF)
