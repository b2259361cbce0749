"""Columns of Arrow as NumPy arrays and back, as Spark's casts have their values, without importing pandas.

`pa.array`, `pa.scalar` and `to_numpy` import it, to ask whether they deal with pandas: half a second a worker.
"""

from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

Array = NDArray[Any]


def as_numpy(column: pa.Array) -> Array:
    """A column of numbers, none of them NULL."""
    return np.from_dlpack(column) if len(column) else np.empty(0, dtype=column.type.to_pandas_dtype())


def as_arrow(values: Any, kind: Any) -> pa.Array:
    found = np.ascontiguousarray(values, dtype=kind)
    return pa.Array.from_buffers(pa.from_numpy_dtype(found.dtype), len(found), [None, pa.py_buffer(found)])


def as_doubles(column: pa.Array) -> Array:
    """Numbers and booleans as Spark's `cast("double")` has them, NaN for NULL."""
    if pa.types.is_decimal(column.type):
        column = column.cast(pa.string())  # by itself pyarrow rounds a decimal twice
    if not pa.types.is_float64(column.type):
        column = column.cast(pa.float64(), safe=False)
    return as_numpy(column.fill_null(as_arrow([np.nan], np.float64)[0]))


def as_text(column: pa.Array) -> pa.Array:
    """Text, integers and booleans as Spark's `cast("string")` has them, as a dictionary."""
    if pa.types.is_dictionary(column.type):
        return column
    return (column if pa.types.is_string(column.type) else column.cast(pa.string())).dictionary_encode()
