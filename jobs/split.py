"""Which side of the 80/20 split a row is on: by a hash of its key, so it never changes sides.

Not `randomSplit`, whose result depends on partitioning: a candidate and the current model must be compared on the same
rows. md5 over text is the same in every Spark version, in SQL and in plain Python.
"""

from typing import Sequence

from pyspark.sql import Column
from pyspark.sql import functions as F

SIDE, TRAIN, TEST = "side", "train", "test"


def side(keys: Sequence[str], test_share: float, seed: int) -> Column:
    """'train' or 'test': the first 8 hex digits of md5(seed, key values as text) against the share of 2**32."""
    return _by_digits(keys, 1, test_share, seed)


def validation(keys: Sequence[str], share: float, seed: int) -> Column:
    """Of the training side again 'train', or 'test' for the part that chooses settings: by the next 8 hex digits."""
    return _by_digits(keys, 9, share, seed)


def _by_digits(keys: Sequence[str], first: int, share: float, seed: int) -> Column:
    text = F.concat_ws("|", F.lit(str(seed)), *[F.coalesce(F.col(key).cast("string"), F.lit("")) for key in keys])
    limit = format(int(share * 2**32), "08x")
    return F.when(F.substring(F.md5(text), first, 8) < limit, TEST).otherwise(TRAIN)
