"""Glue's catalog in a Spark session on this machine: what Spark is told of a table, and what it makes of that."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dml.checkout import PROJECT
from dml.local.cloud import Cloud
from dml.local.spark import catalog
from dml.local.spark.catalog import Catalog
from dml.local.spark.process import JAVA_OPTIONS, java_home, package
from jobs.tables.catalog import publish
from tests.embedded import Clients

DATABASE = "catalogued"
COLUMNS = [("id", "bigint"), ("it's", "string")]


@pytest.fixture
def glue(aws: Clients) -> Iterator[Any]:
    client = aws("glue")
    client.create_database(DatabaseInput={"Name": DATABASE})
    yield client
    client.delete_database(Name=DATABASE)


def published(glue: Any, name: str, location: str, **said: str) -> None:
    publish(glue, DATABASE, name, location, COLUMNS, said)


CREATED = (
    "CREATE EXTERNAL TABLE `catalogued`.`features` (`id` bigint, `it's` string) "
    "ROW FORMAT SERDE 'org.apache.hadoop.hive.ql.io.parquet.serde.ParquetHiveSerDe' "
    "WITH SERDEPROPERTIES ('serialization.format' = '1') "
    "STORED AS INPUTFORMAT 'org.apache.hadoop.hive.ql.io.parquet.MapredParquetInputFormat' "
    "OUTPUTFORMAT 'org.apache.hadoop.hive.ql.io.parquet.MapredParquetOutputFormat' "
    "LOCATION 's3://lake/1/' TBLPROPERTIES ('classification' = 'parquet', 'said' = 'it\\'s')"
)


def test_a_table_should_be_declared_in_glues_words_when_it_is_new_or_another_one_and_then_only(glue: Any) -> None:
    asked = Catalog(glue)
    name = [DATABASE, "features"]
    assert asked.answer(name) == {"statements": []}, "Glue has none, and Spark may have one of its own"
    published(glue, "features", "s3://lake/1/", said="it's")
    first, *rest = asked.answer(name)["statements"]
    assert f"CREATE DATABASE IF NOT EXISTS `{DATABASE}`" in [first, *rest]
    assert rest[-2:] == ["DROP TABLE IF EXISTS `catalogued`.`features`", CREATED]
    assert asked.answer(name, there=True) == {"statements": []}
    assert len(asked.answer(name, there=False)["statements"]) == 2, "Spark has lost it"
    published(glue, "features", "s3://lake/2/", said="it's")
    assert "LOCATION 's3://lake/2/'" in asked.answer(name, there=True)["statements"][-1]
    glue.delete_table(DatabaseName=DATABASE, Name="features")
    assert asked.answer(name, there=True) == {"statements": ["DROP TABLE IF EXISTS `catalogued`.`features`"]}


def test_a_list_of_tables_should_name_those_of_glue_and_forget_what_is_gone(glue: Any) -> None:
    asked = Catalog(glue)
    for name in ("a", "b"):
        published(glue, name, "s3://lake/1/")
    asked.answer([DATABASE, "b"])
    glue.delete_table(DatabaseName=DATABASE, Name="b")
    told = asked.answer([DATABASE])
    assert told == {"statements": ["DROP TABLE IF EXISTS `catalogued`.`b`"], "tables": ["a"]}
    assert asked.answer(["nowhere"])["tables"] == []
    glue.delete_table(DatabaseName=DATABASE, Name="a")


def test_partitions_should_be_told_with_their_places(glue: Any) -> None:
    published(glue, "raw", "s3://raw/")
    table = glue.get_table(DatabaseName=DATABASE, Name="raw")["Table"]
    table["PartitionKeys"] = [{"Name": "year", "Type": "int"}]
    found = [{"Values": [year], "StorageDescriptor": {"Location": f"s3://raw/{year}/"}} for year in ("2012", "2013")]
    create, add = catalog.declaration(DATABASE, table, found)
    assert "PARTITIONED BY (`year` int)" in create
    assert add == (
        "ALTER TABLE `catalogued`.`raw` ADD IF NOT EXISTS PARTITION (`year` = '2012') LOCATION 's3://raw/2012/' "
        "PARTITION (`year` = '2013') LOCATION 's3://raw/2013/'"
    )
    glue.delete_table(DatabaseName=DATABASE, Name="raw")


def test_what_glue_refuses_should_be_told_in_its_words() -> None:
    from botocore.exceptions import ClientError

    class Refusing:
        exceptions = type("exceptions", (), {"EntityNotFoundException": KeyError})

        def get_table(self, **_: str) -> None:
            raise ClientError({"Error": {"Code": "AccessDeniedException", "Message": "no right"}}, "GetTable")

    (error,) = Catalog(Refusing()).answer(["d", "t"]).values()
    assert error.startswith("Glue does not tell of d.t: ")
    assert "no right" in error


VIEW = {
    "Name": "seen",
    "TableType": "VIRTUAL_VIEW",
    "StorageDescriptor": {"Columns": [{"Name": "id", "Type": "bigint"}], "SerdeInfo": {}},
}


def test_a_view_should_be_named_with_what_it_lacks_and_be_in_no_other_tables_way(glue: Any) -> None:
    asked = Catalog(glue)
    glue.create_table(DatabaseName=DATABASE, TableInput=VIEW)
    glue.create_table(DatabaseName=DATABASE, TableInput={"Name": "bare"})
    published(glue, "features", "s3://lake/1/", said="it's")
    assert asked.answer([DATABASE, "seen"]) == {
        "error": "Glue's table catalogued.seen (its type is VIRTUAL_VIEW) cannot be read here: "
        "Glue tells no InputFormat, OutputFormat, Location, SerializationLibrary of it."
    }
    assert "Glue tells no Columns, InputFormat" in asked.answer([DATABASE, "bare"])["error"]
    told = asked.answer([DATABASE, "features"])["statements"]
    assert f"CREATE DATABASE IF NOT EXISTS `{DATABASE}`" in told, "an error came in place of this statement"
    assert told[-1] == CREATED
    for name in ("seen", "bare", "features"):
        glue.delete_table(DatabaseName=DATABASE, Name=name)


def test_the_process_should_answer_after_any_error(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    class Odd:
        exceptions = type("exceptions", (), {"EntityNotFoundException": LookupError})

        def get_table(self, *, Name: str, **_: str) -> None:  # Glue's
            raise ValueError("odd") if Name == "odd" else LookupError

    monkeypatch.setattr(catalog.boto3, "client", lambda *_, **__: Odd())
    questions = [{"name": ["d", name], "there": False} for name in ("odd", "gone")]
    monkeypatch.setattr(sys, "stdin", [json.dumps(one) for one in questions])
    catalog.main()
    first, second = map(json.loads, capsys.readouterr().out.splitlines())
    assert first == {"error": "What Glue says of d.odd cannot be told to Spark: ValueError: odd"}
    assert second == {"statements": []}


SCRIPT = """
import json, sys
from pyspark.sql import SparkSession
from jobs.tables.catalog import publish

import boto3

glue, spark, folder = boto3.client("glue"), SparkSession.builder.getOrCreate(), sys.argv[1]
told = {}
def rows(statement):
    return [list(row) for row in spark.sql(statement).collect()]

told["tables"] = [row[1] for row in rows("SHOW TABLES IN catalogued")]
told["rows"] = rows("SELECT * FROM catalogued.features ORDER BY id")
told["described"] = [row[0] for row in rows("DESCRIBE catalogued.features")]
publish(glue, "catalogued", "features", f"{folder}/2/", [("id", "bigint"), ("it's", "string")], {})
told["newer"] = rows("SELECT count(*) FROM catalogued.features")
publish(glue, "catalogued", "saved", f"{folder}/1/", [("id", "bigint"), ("it's", "string")], {})
spark.sql("USE catalogued")
told["read"] = spark.table("saved").count()
glue.delete_table(DatabaseName="catalogued", Name="saved")
told["left"] = [row[1] for row in rows("SHOW TABLES")]
spark.range(3).createOrReplaceTempView("mine")
told["mine"] = rows("SELECT count(*) FROM mine")
for gone in ("saved", "nowhere"):
    try:
        spark.sql(f"SELECT * FROM catalogued.{gone}")
    except Exception as error:
        told[gone] = str(error).split(" ")[0]
print("told", json.dumps(told))
"""


@pytest.mark.spark
def test_spark_should_find_tables_of_this_moment_by_their_names(
    cloud: Cloud, glue: Any, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    for number in (1, 2):
        rows = {"id": list(range(number)), "it's": ["x"] * number}
        (tmp_path / str(number)).mkdir()
        pq.write_table(pa.table(rows), tmp_path / str(number) / "part-0.parquet")
    published(glue, "features", f"{tmp_path.as_uri()}/1/")
    jar = catalog.compiled(tmp_path_factory.mktemp("compiled"), java_home(), package("pyspark") / "jars")
    settings = {
        **catalog.settings(jar),
        "spark.master": "local[1]",
        "spark.ui.enabled": "false",
        "spark.driver.bindAddress": "127.0.0.1",
        "spark.driver.host": "127.0.0.1",
        "spark.sql.warehouse.dir": (tmp_path / "warehouse").as_uri(),
        "spark.driver.extraJavaOptions": f"-Dderby.stream.error.file={tmp_path / 'derby.log'} {JAVA_OPTIONS}",
    }
    (tmp_path / "spark-defaults.conf").write_text("".join(f"{name} {value}\n" for name, value in settings.items()))
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, tmp_path.as_uri()],
        env={
            **cloud.environment(),
            "JAVA_HOME": str(java_home()),
            "SPARK_CONF_DIR": str(tmp_path),
            "PYTHONPATH": str(PROJECT),
            "PATH": os.environ["PATH"],
        },
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    (said,) = [line for line in done.stdout.splitlines() if line.startswith("told ")] or [done.stderr[-3000:]]
    told = json.loads(said.removeprefix("told "))
    assert told == {
        "tables": ["features"],
        "rows": [[0, "x"]],
        "described": ["id", "it's"],
        "newer": [[2]],
        "read": 1,
        "saved": "[TABLE_OR_VIEW_NOT_FOUND]",
        "nowhere": "[TABLE_OR_VIEW_NOT_FOUND]",
        "left": ["features"],
        "mine": [[3]],
    }
    glue.delete_table(DatabaseName=DATABASE, Name="features")
