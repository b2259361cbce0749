"""Read by each Python that Spark starts on this machine, before anything else (the standard library's `site`).

Spark gives them PySpark and Py4J in zips, whose modules Python compiles anew in each process, and whose contents each
task lists anew; the same modules are installed beside them, compiled.
"""

import os
import sys

if home := os.environ.get("SPARK_HOME"):
    zipped = f"{home}/python/lib/"
    sys.path[:] = [place for place in sys.path if not (place.startswith(zipped) and place.endswith(".zip"))]
