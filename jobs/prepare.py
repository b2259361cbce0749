"""Glue runs this first: the raw tables become the features table, or nothing that anyone reads has changed."""

import argparse
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Dict, Optional, Sequence, Tuple, Type, Union

from py4j.protocol import Py4JJavaError  # py4j ships no types
from pyspark.errors import PySparkException
from pyspark.sql import Column, DataFrame, SparkSession, Window
from pyspark.sql import functions as F
from pyspark.sql.types import BooleanType, DataType, DateType, IntegralType, NumericType, StringType, TimestampType

from jobs.errors import JobError, sql_cause
from jobs.job import Job, arguments_of, begun, run
from jobs.tables import catalog, cells, labels, lines, raw, split, storage
from jobs.tables.observed import Seen, plan_of
from jobs.tables.session import Clock, active_here
from jobs.tables.settings import Dataset, Label, Task, prepare_sql

RawTable = Union[lines.Lines, raw.Records]

LARGEST_LABEL = 1e150  # its square is still a number
WEIGHTS = (1e-100, 1e100)  # between these their sums and means are numbers as well
NTH = "_nth"
LOOKS_AT_ONCE = 8  # tables
# Some 5 MB of Parquet each: enough files to keep a cluster busy, few enough to list quickly.
ROWS_PER_FILE, BYTES_PER_FILE = 250_000, 20_000_000
# Of a raw table that a task reads, up to so many tasks. Spark's own 128 MB leave a core idle at the end of each pass,
# and whoever waits without a word for long.
BYTES_PER_TASK, MOST_TASKS = 32_000_000, 500


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
    # How the rows that are there are split: the settings may say otherwise by now.
    columns, how = list(report["columns"].items()), {name: report.get(name, "") for name in ("split_seed", "split_by")}
    said = {"run_id": run_id, **{name: value for name, value in how.items() if value}}
    catalog.publish(job.glue, database, "features", report["location"], columns, said)
    print(f"published {database}.features: {report['rows_out']:,} rows", flush=True)
    return report


def _build(job: Job, sql: str, database: str, home: str, run_id: str) -> storage.Json:
    settings, clock = job.settings, job.clock
    location = f"{home}/features/{run_id}/"
    raws = open_all(job, database)
    clock.lap("read", "reading the raw tables, joining them and writing features")
    made = None
    while made is None:
        try:
            made = write(job, sql, raws, location)
        except lines.NotLinesError as unlike:
            print(f"{unlike}: not every line is a record, so all lines are looked at first", flush=True)
            for name in unlike.tables:
                table, declared = raws[name].table, settings.tables[name]
                others = labels.figures(settings, name)
                raws[name] = raw.read_records(job.spark, table, declared, settings.file, others)
    clock.lap("join", "setting broken rows aside and checking features")
    tables = {}
    for name, counts in made.counts.items():
        check_raw(counts, str(raws[name].table), name, settings)
        if counts.bad:
            set_aside(raws[name].bad, f"{home}/quarantine/{run_id}/{name}/")
        tables[name] = {"rows": counts.rows, "quarantined": counts.bad, "location": raws[name].table.location}
        print(f"read {name}: {counts.rows:,} rows, {counts.bad:,} quarantined", flush=True)
    unknown = labels.unknown_texts(raws[settings.main].alone, made.counts[settings.main].others, settings)
    job.spark.catalog.clearCache()
    check_features(made.features, settings)
    clock.lap("check")
    main, known = made.counts[settings.main], made.features["rows"]
    strange = min(unknown.get("rows", 0), made.joined - known)
    reasons = {
        settings.label.unknown: made.joined - known - strange,
        "not in the result of prepare.sql": main.rows - main.bad - made.joined,
    }
    if strange:
        reasons[f"{settings.label.raw} is none of the label's known texts: {labels.named(unknown)}"] = strange
    left_out = {reason: count for reason, count in reasons.items() if count > 0}
    print(f"wrote features: {known:,} rows, {sum(left_out.values()):,} left out", flush=True)
    return {
        "dataset": settings.name,
        "run_id": run_id,
        "tables": tables,
        "rows_in": main.rows,
        "rows_out": known,
        "quarantined": sum(counts.bad for counts in made.counts.values()),
        "left_out": left_out,
        "unknown_labels": unknown,
        "location": location,
        "columns": made.columns,
        "split_seed": str(settings.training.seed),
        "split_by": ",".join(settings.split.by),
        "seconds": clock.seconds,
    }


def open_all(job: Job, database: str) -> Dict[str, RawTable]:
    """The raw tables, to be read by the query that they are in; or read, if that will not do.

    Those of lines are looked at all at once: a look is little work and much waiting, for S3, for the catalog, and for a
    driver that has just started. What is to be read as a whole is read one by one.

    Raises JobError for a table that is missing, has nothing in it or lacks a column, and for a file that cannot be read
    as the table's settings say: the first of them, as dataset.toml has them.
    """
    names = list(job.settings.tables)
    with ThreadPoolExecutor(min(LOOKS_AT_ONCE, len(names)), "look", active_here, (job.spark,)) as pool:
        looks = {name: pool.submit(_look, job, name, database) for name in names}
    return {name: _opened(job, name, *looks[name].result()) for name in names}


def _look(job: Job, name: str, database: str) -> Tuple[catalog.CatalogTable, Optional[lines.Lines]]:
    """A table of the catalog, by its lines if it is CSV, and the first of them do not speak against it."""
    settings = job.settings
    table = catalog.find_table(job.glue, database, name, f"{settings.file} needs it; {upload(settings)}")
    declared, others = settings.tables[name], labels.figures(settings, name)
    if declared.format != "csv":
        return table, None
    try:
        return table, lines.open_lines(job.spark, table, declared, settings.file, others)
    except lines.NotLinesError:
        print(f"{name}: it is packed, or not every line is a record: all lines are looked at first", flush=True)
        return table, None


def _opened(job: Job, name: str, table: catalog.CatalogTable, by_line: Optional[lines.Lines]) -> RawTable:
    if by_line is not None:
        return by_line
    settings = job.settings
    declared, others = settings.tables[name], labels.figures(settings, name)
    read = raw.read_lines if declared.format == "csv" else cells.READERS[declared.format]
    return raw.read_records(job.spark, table, declared, settings.file, others, read=read)


def check_raw(counts: raw.Counts, table: str, name: str, settings: Dataset) -> None:
    """Raises JobError unless a raw table has a row that parses."""
    if counts.rows == 0:
        raise JobError(f"Raw table {table} is empty: {upload(settings)}")
    if counts.bad == counts.rows:
        raise JobError(
            f"None of the {counts.rows:,} rows of raw table {table} parses; the first: {counts.reason}. Mend the "
            f"files, or what [tables.{name}] says of them (types, nulls, delimiter, header) in {settings.file}."
        )


def upload(settings: Dataset) -> str:
    return f"upload it with `dml data push {settings.name}`, then run again so that the crawler finds it."


def set_aside(bad: DataFrame, quarantine: str) -> None:
    """Writes rows that do not parse as JSON lines."""
    told = {"file": raw.FILE, "reason": raw.REASON, "record": raw.RECORD}
    bad.select(*[F.col(column).alias(name) for name, column in told.items()]).write.mode("overwrite").json(quarantine)


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


@dataclass(frozen=True)
class Made:
    """What was seen while features were written.

    `counts`: of each raw table; `joined`: rows that prepare.sql gives; `features`: FIGURES of those whose label is
    known; `columns`: the features table's, with their types.
    """

    counts: Dict[str, raw.Counts]
    joined: int
    features: Dict[str, Any]
    columns: Dict[str, str]


def write(job: Job, sql: str, raws: Dict[str, RawTable], location: str) -> Made:
    """Writes the rows whose label is known as Parquet, in one pass over the raw tables that counts all on its way.

    The order of rows in the files follows from the keys alone, so that the same data always grow the same tree.
    Raises NotLinesError for tables that are to be read otherwise, JobError as `join` does and for a wrong encoding.
    """
    settings = job.settings
    size_tasks(job.spark, raws)
    for name, table in raws.items():
        table.good.createOrReplaceTempView(name)
    rows = join(job.spark, settings, sql).withColumn(
        split.HASH, split.hashed(settings.split_by, settings.training.seed)
    )
    joined, written = Seen(), Seen()
    known = joined.of(rows, rows=F.count("*")).where(F.col(settings.label.column).isNotNull())
    together = in_order(known, settings, raws[settings.main])
    features = written.of(together, **figures(settings)).drop(NTH)
    try:
        features.write.mode("overwrite").parquet(location)
    except (PySparkException, Py4JJavaError) as error:
        by_line = [name for name, table in raws.items() if isinstance(table, lines.Lines)]
        if by_line and raw.problem_of(error):  # what reads with a look first also says of which table it is
            raise lines.NotLinesError(*by_line) from error
        raise
    plan = plan_of(features)
    counts, unlike = {}, []
    for name, table in raws.items():
        try:
            counts[name] = table.counts(plan)
        except lines.NotLinesError:
            unlike.append(name)
    if unlike:
        raise lines.NotLinesError(*unlike)
    return Made(counts, joined.told(plan).get("rows", 0), written.told(plan), dict(rows.dtypes))


def size_tasks(spark: SparkSession, raws: Dict[str, RawTable]) -> None:
    """How much of a file a task reads, for queries to come: less than Spark's own, unless that would be too many."""
    most = "spark.sql.files.maxPartitionBytes"
    size = sum(table.size for table in raws.values() if isinstance(table, lines.Lines))
    if size <= BYTES_PER_TASK * MOST_TASKS:
        spark.conf.set(most, str(BYTES_PER_TASK))
    else:
        spark.conf.unset(most)


def in_order(rows: DataFrame, settings: Dataset, main: RawTable) -> DataFrame:
    """The rows of one key side by side, in the order of keys, with NTH: a row's place among those of its key."""
    keys = settings.keys
    files = main.parts(rows=ROWS_PER_FILE, text=BYTES_PER_FILE)
    together = rows.coalesce(1) if main.is_small and files == 1 else rows.repartition(files, *keys)
    # All rows of a key are in one partition, sorted: to number them takes no further shuffle, and no sort.
    nth = F.row_number().over(Window.partitionBy(*keys).orderBy(*keys))
    return together.withColumn(NTH, nth).sortWithinPartitions(*keys)


def figures(settings: Dataset) -> Dict[str, Column]:
    """What `check_features` asks of the rows of `in_order`."""
    fits, _ = label_rule(settings.label, settings.task)
    key = F.concat_ws(", ", *[F.concat(F.lit(f"{key}="), F.col(key).cast("string")) for key in settings.keys])
    asked = {
        "rows": F.count("*"),
        "repeated": F.count(F.when(F.col(NTH) == 2, 1)),
        "example": F.first(F.when(F.col(NTH) == 2, key), ignorenulls=True),
        "keyless": without_a_value(settings.keys),
        "wrong": F.count(F.when(~fits, 1)),
    }
    if weight := settings.training.weight_column:
        value = F.col(weight).cast("double")
        least, most = WEIGHTS
        right = F.coalesce((value >= least) & (value <= most), F.lit(False))  # NaN is larger than every number
        asked["weightless"] = F.count(F.when(~right, 1))
    if settings.split.by:
        ends = {"lowest_hash": F.min(split.HASH), "highest_hash": F.max(split.HASH)}
        asked.update(groupless=without_a_value(settings.split.by), **ends)
    return asked


def without_a_value(columns: Sequence[str]) -> Column:
    """How many rows have a NULL in one of the columns or more."""
    return F.count(F.when(F.greatest(*[F.col(name).isNull() for name in columns], F.lit(False)), 1))


def check_features(found: Dict[str, Any], settings: Dataset) -> None:
    """Raises JobError unless there are rows, each key once and complete, each label right, and groups of rows to split
    by, if that is asked for. `found`: see `figures`.
    """
    file = f"datasets/{settings.name}/prepare.sql"
    label, keys = settings.label.column, settings.keys
    if not found["rows"]:
        raise JobError(f"{file} gives no rows with a known label ({label}): look at its joins and conditions.")
    if found["repeated"]:
        raise JobError(
            f"{file} gives {found['repeated']:,} keys more than once, e.g. {found['example']}: a join adds rows, or "
            f"the keys of {settings.file} are too few."
        )
    if found["keyless"]:
        raise JobError(f"{file} gives {found['keyless']:,} rows with a NULL in a key column ({', '.join(keys)}).")
    if settings.split.by:
        check_groups(found, settings)
    if found.get("weightless"):
        weight, (least, most) = settings.training.weight_column, WEIGHTS
        raise JobError(
            f"{file} gives {found['weightless']:,} rows whose weight ({weight}, training.weights of {settings.file}) "
            f"is NULL or no number from {least:g} to {most:g}: leave them out there (WHERE {weight} BETWEEN {least:g} "
            f"AND {most:g}), or mend the column."
        )
    if found["wrong"]:
        _, meant = label_rule(settings.label, settings.task)
        raise JobError(f"{file} gives {found['wrong']:,} rows whose label ({label}) is {meant}.")


def check_groups(found: Dict[str, Any], settings: Dataset) -> None:
    by = ", ".join(settings.split.by)
    if found["groupless"]:
        raise JobError(
            f"datasets/{settings.name}/prepare.sql gives {found['groupless']:,} rows with a NULL in {by}, by which "
            f"rows are split (split.by of {settings.file}): whose they are is unknown, and so on which side they are. "
            f"Leave them out there (WHERE {settings.split.by[0]} IS NOT NULL), or give each a value of its own."
        )
    if found["lowest_hash"] == found["highest_hash"]:
        raise JobError(
            f"All {found['rows']:,} rows have the same {by}, by which they are split (split.by of {settings.file}): "
            "one side would have none. Name a column by which groups of rows differ, or leave [split] out."
        )


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
    """The columns of the features table, each with the kinds it may be of: keys, time, label, what rows are split by,
    what is carried, features.
    """
    plain = (StringType, IntegralType, DateType, TimestampType)
    columns: Dict[str, Tuple[Type[DataType], ...]] = dict.fromkeys(settings.keys, plain)
    if settings.time:
        columns[settings.time.column] = (DateType, TimestampType)
    columns[settings.label.column] = {
        "binary": (IntegralType,),
        "multiclass": (StringType, IntegralType, BooleanType),
        "regression": (NumericType,),
    }[settings.task]
    columns.update({name: plain for name in settings.split.by if name not in columns})
    if settings.training.weight_column:
        columns.setdefault(settings.training.weight_column, (NumericType,))
    columns.update({name: (*plain, NumericType, BooleanType) for name in settings.carried if name not in columns})
    columns.update(dict.fromkeys(settings.features.numbers, (NumericType, BooleanType)))
    columns.update(dict.fromkeys(settings.features.categories, (StringType, IntegralType, BooleanType)))
    return columns


if __name__ == "__main__":
    run("prepare", main)
