"""Glue runs this first: the raw tables become the features table, or nothing that anyone reads has changed."""

import argparse
import math
import sys
from typing import Any, Dict, Sequence, Tuple, Type

from py4j.protocol import Py4JJavaError  # type: ignore[import-untyped]  # py4j ships no types
from pyspark.errors import PySparkException
from pyspark.sql import Column, DataFrame, Observation, SparkSession
from pyspark.sql import functions as F
from pyspark.sql.types import BooleanType, DataType, DateType, IntegralType, NumericType, StringType, TimestampType

from jobs.errors import JobError, sql_cause
from jobs.job import Job, arguments_of, begun
from jobs.tables import catalog, labels, raw, split, storage
from jobs.tables.session import Clock
from jobs.tables.settings import Dataset, Label, Task, prepare_sql

LARGEST_LABEL = 1e150  # its square is still a number
ROWS_PER_FILE = 250_000  # some 5 MB of Parquet: enough files to keep a cluster busy, few enough to list quickly


def build_parser() -> argparse.ArgumentParser:
    parser = arguments_of("prepare", __doc__, database="with the raw tables, where `features` is published")
    parser.add_argument("--lake", required=True, help="s3://BUCKET/ that the features are written to")
    return parser


def main(argv: Sequence[str]) -> None:
    clock = Clock()
    args, _ = build_parser().parse_known_args(argv)
    sql = prepare_sql(args.dataset)
    with begun("prepare", args, clock) as job:
        prepare(job, sql, database=args.database, lake=args.lake, run_id=args.run_id)


def prepare(job: Job, sql: str, *, database: str, lake: str, run_id: str) -> storage.Json:
    """Writes the features under the run id, checks them, leaves prepare.json, and publishes the table last.

    A run that has left its prepare.json is complete: done again, it only publishes again. Raises JobError.
    """
    home = f"{lake.rstrip('/')}/{job.settings.name}"
    report_uri = f"{home}/runs/{run_id}/prepare.json"
    report = storage.read_json(job.s3, report_uri)
    if report is None:
        report = _build(job, sql, database, home, run_id)
        storage.write_json(job.s3, report_uri, report)
    # The seed of the rows that are there: the settings may have got another one since.
    columns, said = list(report["columns"].items()), {"run_id": run_id, "split_seed": report.get("split_seed", "")}
    catalog.publish(job.glue, database, "features", report["location"], columns, said)
    print(f"published {database}.features: {report['rows_out']:,} rows", flush=True)
    return report


def _build(job: Job, sql: str, database: str, home: str, run_id: str) -> storage.Json:
    spark, settings, clock = job.spark, job.settings, job.clock
    tables = {}
    for name in settings.tables:
        tables[name] = load_raw(spark, job.glue, settings, name, database, f"{home}/quarantine/{run_id}/{name}/")
        print(f"read {name}: {tables[name]['rows']:,} rows, {tables[name]['quarantined']:,} quarantined", flush=True)
    unknown = labels.unknown_texts(spark, settings)
    clock.lap("read")

    rows = join(spark, settings, sql).withColumn(split.HASH, split.hashed(settings.keys, settings.training.seed))
    location = f"{home}/features/{run_id}/"
    main_rows = tables[settings.main]["rows"] - tables[settings.main]["quarantined"]
    seen = write_known(rows, settings, location, main_rows)
    clock.lap("join")
    known = check_rows(spark.read.parquet(location), settings)
    spark.catalog.clearCache()
    # Not asked before there are rows: of a query that Spark can tell to be empty nothing is observed, and `get` waits.
    every = int(seen.get["rows"])
    strange = min(unknown.get("rows", 0), every - known)
    reasons = {settings.label.unknown: every - known - strange, "not in the result of prepare.sql": main_rows - every}
    if strange:
        reasons[f"{settings.label.raw} is none of the label's known texts: {labels.named(unknown)}"] = strange
    left_out = {reason: count for reason, count in reasons.items() if count > 0}
    clock.lap("check")
    print(f"wrote features: {known:,} rows, {sum(left_out.values()):,} left out", flush=True)
    return {
        "dataset": settings.name,
        "run_id": run_id,
        "tables": tables,
        "rows_in": tables[settings.main]["rows"],
        "rows_out": known,
        "quarantined": sum(int(table["quarantined"]) for table in tables.values()),
        "left_out": left_out,
        "unknown_labels": unknown,
        "location": location,
        "columns": dict(rows.dtypes),
        "split_seed": str(settings.training.seed),
        "seconds": clock.seconds,
    }


def load_raw(
    spark: SparkSession, glue: Any, settings: Dataset, name: str, database: str, quarantine: str
) -> Dict[str, Any]:
    """Reads one raw table, once, into the temp view `name`; bad rows go to `quarantine` as JSON lines.

    Returns rows, quarantined, location. Raises JobError for a table that is missing, empty, without a good row, lacking
    a column, or with a file that cannot be read as the table's settings say.
    """
    push = f"upload it with `dml data push {settings.name}`, then run again so that the crawler finds it."
    table = catalog.find_table(glue, database, name, f"{settings.file} needs it; {push}")
    declared = settings.tables[name]
    try:
        parsed = raw.parse(raw.read_lines(spark, table, declared, settings.file), declared).persist()
        counted = parsed.agg(F.count("*"), F.count(raw.REASON), F.first(raw.REASON, ignorenulls=True)).head()
    except (PySparkException, Py4JJavaError) as error:
        if problem := raw.problem_of(error):
            raise JobError(f"Raw table {table}: {problem}") from error
        raise
    rows, bad, reason = counted or (0, 0, None)
    if rows == 0:
        raise JobError(f"Raw table {table} is empty: {push}")
    if bad == rows:
        raise JobError(
            f"None of the {rows:,} rows of raw table {table} parses; the first: {reason}. Mend the files, or "
            f"what [tables.{name}] says of them (types, nulls, delimiter, header) in {settings.file}."
        )
    if bad:
        broken = parsed.where(F.col(raw.REASON).isNotNull())
        broken.select(
            F.col(raw.FILE).alias("file"), F.col(raw.REASON).alias("reason"), F.col(raw.RECORD).alias("record")
        ).write.mode("overwrite").json(quarantine)
    good = parsed.where(F.col(raw.REASON).isNull()).select(*declared.columns)
    good.createOrReplaceTempView(name)
    return {"rows": rows, "quarantined": bad, "location": table.location}


def join(spark: SparkSession, settings: Dataset, sql: str) -> DataFrame:
    """prepare.sql over the raw tables' views: exactly keys, time, label and features, in this order.

    Raises JobError if the query does not run, or gives other columns or other kinds of columns than dataset.toml says.
    """
    file = f"datasets/{settings.name}/prepare.sql"
    try:
        rows = spark.sql(sql)
    except PySparkException as error:
        raise JobError(f"{file} does not run: {sql_cause(error, sql)}") from error
    declared = columns_of(settings)
    lacking = [name for name in declared if name not in rows.columns]
    surplus = [name for name in rows.columns if name not in declared]
    if lacking or surplus:
        raise JobError(
            f"{file} does not fit {settings.file}: missing columns: {', '.join(lacking) or 'none'}; "
            f"columns not declared as key, time, label or feature: {', '.join(surplus) or 'none'}."
        )
    for name, kinds in declared.items():
        if not isinstance(rows.schema[name].dataType, kinds):
            raise JobError(
                f"{file}: column {name} is {rows.schema[name].dataType.simpleString()}; for its use in "
                f"{settings.file} it must be {' or '.join(kind.typeName() for kind in kinds)}: cast it."
            )
    return rows.select(*declared)


def write_known(rows: DataFrame, settings: Dataset, location: str, main_rows: int) -> Observation:
    """Writes the rows whose label is known as Parquet; the observation will hold how many there were with the others.

    The order of rows in the files follows from the keys alone, so that the same data always grow the same tree.
    """
    seen = Observation("rows")
    label, keys = F.col(settings.label.column), settings.keys
    observed = rows.observe(seen, F.count("*").alias("rows"))
    files = max(1, math.ceil(main_rows / ROWS_PER_FILE))
    ordered = observed.where(label.isNotNull()).repartition(files, *keys).sortWithinPartitions(*keys)
    ordered.write.mode("overwrite").parquet(location)
    return seen


def check_rows(features: DataFrame, settings: Dataset) -> int:
    """The number of rows. Raises JobError unless there are some, each key once and complete, each label right."""
    file = f"datasets/{settings.name}/prepare.sql"
    label, keys = settings.label.column, settings.keys
    fits, meant = label_rule(settings.label, settings.task)
    wrong = (~fits).cast("int")
    keyless = F.greatest(*[F.col(key).isNull().cast("int") for key in keys], F.lit(0))
    per_key = features.groupBy(*keys).agg(F.count("*").alias("n"), F.sum(wrong).alias("wrong"))
    checked = per_key.agg(
        F.sum("n"), F.sum((F.col("n") > 1).cast("int")), F.sum("wrong"), F.sum(keyless), F.max_by(F.struct(*keys), "n")
    ).head()
    rows, repeated, wrong_labels, keyless_rows, example = checked or (0, 0, 0, 0, ())
    if not rows:
        raise JobError(f"{file} gives no rows with a known label ({label}): look at its joins and conditions.")
    if repeated:
        shown = ", ".join(f"{key}={value}" for key, value in zip(keys, example))  # noqa: B905  # not in Python 3.9
        raise JobError(
            f"{file} gives {repeated:,} keys more than once, e.g. {shown}: a join adds rows, or the keys of "
            f"{settings.file} are too few."
        )
    if keyless_rows:
        raise JobError(f"{file} gives {keyless_rows:,} rows with a NULL in a key column ({', '.join(keys)}).")
    if wrong_labels:
        raise JobError(f"{file} gives {wrong_labels:,} rows whose label ({label}) is {meant}.")
    return int(rows)


def label_rule(declared: Label, task: Task) -> Tuple[Column, str]:
    """What a known label must be, and how to say that one is not."""
    label = F.col(declared.column)
    if task == "binary":
        return label.isin(0, 1), "neither 0 nor 1"
    if task == "regression":
        value = label.cast("double")
        return ~F.isnan(value) & (F.abs(value) <= LARGEST_LABEL), f"not a number up to {LARGEST_LABEL:g}"
    classes = declared.classes
    return label.cast("string").isin(*classes), f"not one of label.classes ({', '.join(classes)})"


def columns_of(settings: Dataset) -> Dict[str, Tuple[Type[DataType], ...]]:
    """The columns of the features table, each with the kinds it may be of: keys, time, label, then features."""
    plain = (StringType, IntegralType, DateType, TimestampType)
    columns: Dict[str, Tuple[Type[DataType], ...]] = dict.fromkeys(settings.keys, plain)
    if settings.time:
        columns[settings.time.column] = (DateType, TimestampType)
    columns[settings.label.column] = {
        "binary": (IntegralType,),
        "multiclass": (StringType, IntegralType, BooleanType),
        "regression": (NumericType,),
    }[settings.task]
    columns.update(dict.fromkeys(settings.features.numbers, (NumericType, BooleanType)))
    columns.update(dict.fromkeys(settings.features.categories, (StringType, IntegralType, BooleanType)))
    return columns


if __name__ == "__main__":
    main(sys.argv[1:])
