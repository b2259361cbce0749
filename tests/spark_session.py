"""The one Spark session of a test run: a pytest plugin, loaded by tests/conftest.py.

Its `s3://jobs-lake` and `s3://jobs-models` are folders, so that a job's whole main path runs on them; S3 as a service,
with roles, is tested with the embedded cloud.
"""

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from pyspark.sql import SparkSession

from dml.local.spark.process import JAVA_OPTIONS, java_home
from jobs.tables.session import spark_session

BUCKETS = ("jobs-lake", "jobs-models")


@pytest.fixture(scope="session")
def s3_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that holds Spark's view of the buckets, a folder each."""
    folder = tmp_path_factory.mktemp("s3")
    for bucket in BUCKETS:
        (folder / bucket).mkdir()
    return folder


@pytest.fixture(scope="session")
def spark(tmp_path_factory: pytest.TempPathFactory, s3_folder: Path) -> Iterator[SparkSession]:
    os.environ["JAVA_HOME"] = str(java_home())
    os.environ["PYSPARK_PYTHON"] = sys.executable  # the workers' Python, which needs the same packages
    home = tmp_path_factory.mktemp("spark")
    builder = SparkSession.builder.master("local[2]")
    settings = {
        "spark.files.openCostInBytes": "1",  # as jobs/tables/session.py has it, but before the context is there
        "spark.ui.enabled": "false",
        "spark.ui.showConsoleProgress": "false",
        # A query here has a few rows: to compile it costs more than to run it. Whole jobs elsewhere are compiled.
        "spark.sql.codegen.wholeStage": "false",
        "spark.sql.codegen.factoryMode": "NO_CODEGEN",
        "spark.python.daemon.module": "tests.python_daemon",
        "spark.sql.shuffle.partitions": "2",
        "spark.driver.memory": "1g",
        "spark.driver.bindAddress": "127.0.0.1",
        "spark.driver.host": "127.0.0.1",
        "spark.sql.warehouse.dir": str(home / "warehouse"),
        # As jobs have it here: of a session's CPU, compiling well took two fifths, for queries that run once.
        "spark.driver.extraJavaOptions": f"-Dderby.system.home={home} {JAVA_OPTIONS}",
        "spark.hadoop.fs.s3.impl": "org.apache.hadoop.fs.viewfs.ViewFileSystemOverloadScheme",
    }
    settings |= {
        f"spark.hadoop.fs.viewfs.mounttable.{bucket}.linkFallback": (s3_folder / bucket).as_uri() for bucket in BUCKETS
    }
    for key, value in settings.items():
        builder = builder.config(key, value)
    builder.getOrCreate()
    session = spark_session("tests", "all")  # what the jobs themselves rest on, on top
    session.sparkContext.setLogLevel("ERROR")
    yield session
    session.stop()
