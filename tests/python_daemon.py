"""What starts PySpark's workers in the one Spark session of a test run: with what all of them import already there.

After each task a worker looks through all its objects for garbage; those that were there before it are frozen.
"""

import gc

import dml.local.spark.site.sitecustomize  # isort: skip  # noqa: F401  # before PySpark, for where that is found
import numpy  # noqa: F401
import pandas  # noqa: F401
import pyarrow  # noqa: F401
import pyspark.sql.pandas.serializers  # noqa: F401
from pyspark.daemon import manager

if __name__ == "__main__":
    gc.freeze()
    manager()
