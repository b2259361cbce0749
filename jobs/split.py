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
    text = F.concat_ws("|", F.lit(str(seed)), *[F.coalesce(F.col(key).cast("string"), F.lit("")) for key in keys])
    limit = format(int(test_share * 2**32), "08x")
    return F.when(F.substring(F.md5(text), 1, 8) < limit, TEST).otherwise(TRAIN)
