"""Python 3.10 and 3.11 read the tables of all zip archives on the path again at each `importlib.invalidate_caches()`.

PySpark 3.5 calls that before each task, and has pyspark.zip, py4j.zip and spark-core.jar on the path of its workers:
60 to 110 ms a task, several times what a pass over the bins of a hundred thousand rows takes. Both have mended it since
(python/cpython#103200 in 3.12, SPARK-54744). Importing `jobs`, as an executor does for its first task, mends it here.
"""

import sys
import zipimport
from pathlib import Path
from typing import Any


def mend() -> None:
    """From now on an archive is read again only if its size or time has changed."""
    if not (3, 10) <= sys.version_info[:2] <= (3, 11):
        return
    importer: Any = zipimport.zipimporter
    read_again = importer.invalidate_caches

    def invalidate_caches(self: Any) -> None:
        try:
            found = Path(self.archive).stat()
        except OSError:
            read_again(self)
            return
        now = found.st_mtime_ns, found.st_size
        if self.__dict__.setdefault("_read_as", now) != now:
            read_again(self)
            self._read_as = now

    importer.invalidate_caches = invalidate_caches
