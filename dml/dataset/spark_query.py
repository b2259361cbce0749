"""Runs datasets' prepare.sql on sampled tables, in a process of its own: Spark alone knows what is valid Spark SQL.

The folder holds work.json: for each dataset its settings, its query and its tables as Parquet files. The rows come as
Parquet below it, and answer.json says for each dataset what is wrong with its query ("" if nothing is).
"""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

from datasets import prepare_sql
from dml import checkout
from dml.errors import UserError
from dml.local.place import PROGRAM
from dml.local.spark.process import CLOSED, JAVA_OPTIONS, LAUNCHER_OPTIONS, failure_reason, java_home
from jobs.tables.settings import Dataset, from_json


def run_queries(sampled: Mapping[str, tuple[Dataset, Mapping[str, Path]]], folder: Path) -> dict[str, str]:
    """What is wrong with each dataset's query; where nothing is, its rows are in folder/DATASET.

    `sampled`: each dataset with its tables as Parquet files.
    """
    work = {
        name: {
            "settings": dataset.to_json(),
            "sql": prepare_sql(dataset.name),
            "tables": {table: str(file) for table, file in tables.items()},
        }
        for name, (dataset, tables) in sampled.items()
    }
    (folder / "work.json").write_text(json.dumps(work), encoding="utf-8")
    scratch = tempfile.mkdtemp(dir=folder)
    environment = {
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), "/usr/local/bin", "/usr/bin", "/bin"]),
        "HOME": scratch,
        **PROGRAM,
        "TMPDIR": scratch,
        "JAVA_HOME": str(java_home()),
        "SPARK_LOCAL_IP": "127.0.0.1",
        "PYSPARK_PYTHON": sys.executable,
        "SPARK_LAUNCHER_OPTS": LAUNCHER_OPTIONS,
        "PYTHONPATH": str(checkout.PROJECT),
    }
    done = subprocess.run(
        [sys.executable, "-m", "dml.dataset.spark_query", str(folder)],
        env=environment,
        cwd=scratch,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        check=False,
    )
    if done.returncode:
        reason = failure_reason(done.stdout.decode(errors="replace"))
        raise UserError(f"Spark could not look at prepare.sql: {reason or f'exit code {done.returncode}'}")
    answer: dict[str, str] = json.loads((folder / "answer.json").read_text(encoding="utf-8"))
    return answer


def main(folder: Path) -> None:
    from py4j.protocol import Py4JJavaError  # py4j ships no types
    from pyspark.errors import PySparkException
    from pyspark.sql import SparkSession
    from pyspark.sql import functions as F

    from jobs.errors import JobError, sql_cause
    from jobs.prepare import join
    from jobs.tables.session import spark_session

    given = {
        "spark.master": "local[2]",
        **CLOSED,
        "spark.sql.shuffle.partitions": "2",
        "spark.sql.warehouse.dir": (folder / "warehouse").as_uri(),
        "spark.log.level": "ERROR",
        "spark.driver.extraJavaOptions": JAVA_OPTIONS,
    }
    builder = SparkSession.builder
    for key, value in given.items():
        builder = builder.config(key, value)
    builder.getOrCreate()
    spark = spark_session("check", "all")
    answer = {}
    for name, each in json.loads((folder / "work.json").read_text(encoding="utf-8")).items():
        settings = from_json(each["settings"])
        for table, file in each["tables"].items():
            declared = settings.tables[table].columns
            # Parquet of other makers has timestamps without a time zone, which Spark takes for another type.
            read = spark.read.parquet(file).select(*[F.col(c).cast(kind).alias(c) for c, kind in declared.items()])
            read.createOrReplaceTempView(table)
        try:
            join(spark, settings, each["sql"]).coalesce(1).write.parquet(str(folder / name))
            answer[name] = ""
        except JobError as error:
            answer[name] = str(error)
        except (PySparkException, Py4JJavaError) as error:
            answer[name] = f"datasets/{name}/prepare.sql does not run: {sql_cause(error, each['sql'])}"
        for table in each["tables"]:
            spark.catalog.dropTempView(table)
    (folder / "answer.json").write_text(json.dumps(answer), encoding="utf-8")
    spark.stop()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
