"""The Spark session that every job starts with; what it sets is what the jobs' results rest on, not tuning."""

from pyspark.sql import SparkSession


def spark_session(job: str, dataset: str) -> SparkSession:
    """The session of this process, made if there is none."""
    return (
        SparkSession.builder.appName(f"dml {job} {dataset}")
        # Dates, timestamps and the split by key hash mean the same wherever the job runs.
        .config("spark.sql.session.timeZone", "UTC")
        # With pruning, Spark does not look at the columns nobody asks for, and so overlooks broken rows.
        .config("spark.sql.csv.parser.columnPruning.enabled", "false")
        .getOrCreate()
    )
