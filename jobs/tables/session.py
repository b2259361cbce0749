"""The Spark session that every job starts with; what it sets is what the jobs' results rest on, not tuning."""

import time
from functools import wraps
from typing import Any, Callable, Dict

from py4j.java_gateway import JavaClass, JavaMember, JavaPackage, JVMView
from pyspark.sql import SparkSession
from pyspark.sql.pandas import functions

EMPTY_RELATIONS = "org.apache.spark.sql.execution.adaptive.AQEPropagateEmptyRelation"
CELLS_AT_ONCE = 1_500_000  # 12 MB of doubles


def spark_session(job: str, dataset: str) -> SparkSession:
    """The session of this process, made if there is none."""
    spare_pandas()
    remember_java()
    return (
        SparkSession.builder.appName(f"dml {job} {dataset}")
        # Dates, timestamps and the split by key hash mean the same wherever the job runs.
        .config("spark.sql.session.timeZone", "UTC")
        # With pruning, Spark does not look at the columns nobody asks for, and so overlooks broken rows.
        .config("spark.sql.csv.parser.columnPruning.enabled", "false")
        # Python workers of SQL and of RDDs are the same ones only if their environments are, and this is in it.
        .config("spark.sql.execution.pyspark.udf.simplifiedTraceback.enabled", "false")
        # Days and times before 1900 are written and read as they are: nobody has written them by the Julian calendar.
        .config("spark.sql.parquet.datetimeRebaseModeInWrite", "CORRECTED")
        .config("spark.sql.parquet.datetimeRebaseModeInRead", "CORRECTED")
        .config("spark.sql.parquet.int96RebaseModeInWrite", "CORRECTED")
        .config("spark.sql.parquet.int96RebaseModeInRead", "CORRECTED")
        # A day in no calendar, or in another form than to_date is told, is NULL, and not the end of the run.
        .config("spark.sql.legacy.timeParserPolicy", "CORRECTED")
        # Files are not put together to partitions by Spark, whose measure is bytes, but by jobs/tables/features.py.
        .config("spark.files.openCostInBytes", "1")
        # Where one side of a join turns out empty, Spark would not read the other; rows are counted as they are read.
        .config("spark.sql.adaptive.optimizer.excludedRules", EMPTY_RELATIONS)
        .getOrCreate()
    )


def spare_pandas() -> None:
    """Keeps `mapInArrow` from loading pandas, of which it wants the version only: a second of each job on one core.

    It is as good with a Spark that asks otherwise: pandas is then loaded, as ever.
    """
    functions.require_minimum_pandas_version = lambda: None  # type: ignore[attr-defined]  # its stub hides imports


def remember_java() -> None:
    """Keeps PySpark from asking Java anew, at each F.col, what `functions` is and what its `col`: Java would look into
    every jar for it, once for each package that PySpark imports, which is a tenth of a short job's CPU.

    A class, a package and a method stay what they are once they are found. PySpark's imports come before its session.
    """
    for kind in (JVMView, JavaPackage, JavaClass):
        if not hasattr(kind.__getattr__, "__wrapped__"):
            kind.__getattr__ = _remembering(kind.__getattr__)


def _remembering(ask: Callable[[Any, str], Any]) -> Callable[[Any, str], Any]:
    @wraps(ask)
    def answer(view: Any, name: str) -> Any:
        found = ask(view, name)
        if isinstance(found, (JavaClass, JavaPackage, JavaMember)):
            view.__dict__[name] = found
        return found

    return answer


def active_here(spark: SparkSession) -> None:
    """Makes it the session of this thread: by its settings Spark parses expressions, and a new thread has none."""
    jvm: Any = spark._jvm
    jvm.SparkSession.setActiveSession(spark._jsparkSession)


def size_batches(spark: SparkSession, columns: int) -> None:
    """How many rows go to Python at a time, for queries to come: many of a narrow table, few of a very wide one.

    Spark's 10,000 of twenty columns spend half their time on the way; as many of a thousand columns are 80 MB.
    """
    rows = max(1_000, min(100_000, CELLS_AT_ONCE // max(columns, 1)))
    spark.conf.set("spark.sql.execution.arrow.maxRecordsPerBatch", str(rows))


class Clock:
    """Seconds of each phase of a job since Spark was started, and their `total`, for the job's report.

    `doing`: what the job does, in words for whoever waits; `since`: when it began to, by the monotonic clock.
    """

    def __init__(self) -> None:
        self._started = self._last = self.since = time.monotonic()
        self.seconds: Dict[str, float] = {}
        self.doing = "starting Spark"

    def count_java(self, spark: SparkSession) -> None:
        """Begins when Java did: under spark-submit that is before the script, by what it takes to start Spark."""
        bean = spark.sparkContext._jvm.java.lang.management.ManagementFactory.getRuntimeMXBean()  # type: ignore[union-attr]
        before = bean.getUptime() / 1000 - (time.monotonic() - self._started)
        if before > 0:
            self.seconds["java"] = round(before, 3)
            self._started -= before

    def lap(self, phase: str, then: str = "") -> None:
        """Ends a phase; `then`: what is done next, as `begin` has it."""
        now = time.monotonic()
        self.seconds[phase] = round(self.seconds.get(phase, 0) + now - self._last, 3)
        self.seconds["total"] = round(now - self._started, 3)
        self._last = now
        if then:
            self.begin(then)

    def begin(self, doing: str) -> None:
        """Says what the job does from now on, in words."""
        self.doing, self.since = doing, time.monotonic()
