"""Glue's catalog in a Spark session here, as Spark on EMR has it: tables under their names, those of this moment.

Amazon's client of Glue for Hive is on EMR's nodes only. So Spark has a catalog of its own kind here, GlueCatalog.scala,
which before each look at a name has this module bring what Glue says of it: `python -m dml.local.spark.catalog`, one
process for each Java, with the credentials in whose name Spark runs. They talk by its standard streams, a line of JSON
each way, so that nobody else can.

A table is declared as Glue declares it, with Hive's SerDe, in a Hive metastore that is in that Java's memory: from
there on the same Spark reads it as EMR's does.
"""

import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from dml.errors import UserError
from dml.terminal.words import last_line

SOURCE = Path(__file__).with_name("GlueCatalog.scala")
MAIN = "scala.tools.nsc.Main"  # Spark brings Scala's compiler, for its shell
Statements = list[str]


def settings(jar: Path) -> dict[str, str]:
    """What a session of Spark is told to have this catalog; `jar` as `compiled` has made it."""
    return {
        "spark.driver.extraClassPath": str(jar),
        "spark.sql.catalog.spark_catalog": "dml.GlueCatalog",
        "spark.sql.catalog.spark_catalog.python": sys.executable,
        "spark.sql.catalogImplementation": "hive",
        "spark.hadoop.javax.jdo.option.ConnectionURL": "jdbc:derby:memory:metastore;create=true",
        "spark.hadoop.datanucleus.schema.autoCreateTables": "true",
        "spark.hadoop.hive.metastore.schema.verification": "false",
        # Files of a run are never written again, but a new run's lie elsewhere: what is known of them is of no use.
        "spark.sql.hive.filesourcePartitionFileCacheSize": "0",
    }


def compiled(folder: Path, java: Path, jars: Path) -> Path:
    """GlueCatalog as a jar in `folder`, compiled once for each release of it and of Spark; `jars` are Spark's.

    Raises UserError if it cannot be.
    """
    name = hashlib.sha256(SOURCE.read_bytes() + version("pyspark").encode()).hexdigest()[:16]
    made = folder / f"glue-catalog-{name}.jar"
    if made.is_file():
        return made
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        fresh = Path(scratch, made.name)
        done = subprocess.run(
            [
                *(str(java / "bin" / "java"), "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-XX:-UsePerfData"),
                *(f"-Djava.io.tmpdir={scratch}", "-cp", f"{jars}/*", MAIN),
                *("-usejavacp", "-d", str(fresh), str(SOURCE)),
            ],
            env={"PATH": os.defpath, "HOME": scratch},
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode or not fresh.is_file():
            raise UserError(f"{SOURCE.name} could not be compiled: {last_line(done.stderr + done.stdout)}")
        shutil.move(fresh, made)
    return made


class Catalog:
    """What Spark is to be told, beyond what it has been told already. `glue` is a boto3 client."""

    def __init__(self, glue: Any) -> None:
        self._glue = glue
        self._databases: set[str] = set()
        self._tables: dict[tuple[str, str], str] = {}  # each that was told, with what was told of it

    def answer(self, name: Sequence[str], *, there: bool = False) -> dict[str, Any]:
        """The answer to a question for [] (all databases), [database] (its tables) or [database, table].

        `there`: Spark has the table. `statements` bring it up to date, `tables` are names; `error`: Glue's words, or
        what its table lacks. With an error Spark runs no statements, so that they are told again with the next answer.
        """
        databases, tables = self._databases, dict(self._tables)
        try:
            return self._answer(name, there)
        except Exception as error:
            self._databases, self._tables = databases, tables
            if isinstance(error, UserError):
                return {"error": str(error)}
            if isinstance(error, (ClientError, BotoCoreError)):
                return {"error": f"Glue does not tell of {'.'.join(name) or 'its databases'}: {error}"}
            raise

    def _answer(self, name: Sequence[str], there: bool) -> dict[str, Any]:
        match name:
            case []:
                return {"statements": self._all_databases()}
            case [database]:
                return self._all_tables(database)
            case [database, table]:
                return {"statements": self._table(database, table, there)}
        return {"statements": []}  # Glue has no deeper names

    def _all_databases(self) -> Statements:
        pages = self._glue.get_paginator("get_databases").paginate()
        found = {one["Name"] for page in pages for one in page["DatabaseList"]}
        made = [f"CREATE DATABASE IF NOT EXISTS {quoted(one)}" for one in sorted(found - self._databases)]
        gone = [f"DROP DATABASE IF EXISTS {quoted(one)} CASCADE" for one in sorted(self._databases - found)]
        self._tables = {name: told for name, told in self._tables.items() if name[0] in found}
        self._databases = found
        return made + gone

    def _all_tables(self, database: str) -> dict[str, Any]:
        statements = self._all_databases()
        if database not in self._databases:
            return {"statements": statements, "tables": []}
        pages = self._glue.get_paginator("get_tables").paginate(DatabaseName=database)
        found = {one["Name"] for page in pages for one in page["TableList"]}
        gone = [name for name in self._tables if name[0] == database and name[1] not in found]
        return {"statements": statements + [self._forget(*name) for name in gone], "tables": sorted(found)}

    def _table(self, database: str, table: str, there: bool) -> Statements:
        try:
            found = self._glue.get_table(DatabaseName=database, Name=table)["Table"]
        except self._glue.exceptions.EntityNotFoundException:
            return [self._forget(database, table)] if (database, table) in self._tables else []
        statements = [] if database in self._databases else self._all_databases()
        pages = self._glue.get_paginator("get_partitions").paginate(DatabaseName=database, TableName=table)
        keyed = found.get("PartitionKeys")
        partitions = [one for page in pages for one in page["Partitions"]] if keyed else []
        told = declaration(database, found, partitions)
        if there and self._tables.get((database, table)) == json.dumps(told):
            return statements
        self._tables[database, table] = json.dumps(told)
        return [*statements, f"DROP TABLE IF EXISTS {named(database, table)}", *told]

    def _forget(self, database: str, table: str) -> str:
        self._tables.pop((database, table), None)
        return f"DROP TABLE IF EXISTS {named(database, table)}"


def declaration(database: str, table: Mapping[str, Any], partitions: Sequence[Mapping[str, Any]]) -> Statements:
    """The statements of Spark's SQL that declare what Glue says of a table, in Glue's own words for its format.

    Raises UserError for a table that lacks what a declaration needs, as a view does: Glue asks for nothing but a name.
    """
    who = f"Glue's table {database}.{table['Name']}"
    storage = table.get("StorageDescriptor") or {}
    serde = storage.get("SerdeInfo") or {}
    lacking = [key for key in ("Columns", "InputFormat", "OutputFormat", "Location") if not storage.get(key)]
    lacking += [key for key in ("SerializationLibrary",) if not serde.get(key)]
    if lacking:
        kind = f" (its type is {table['TableType']})" if table.get("TableType") else ""
        raise UserError(f"{who}{kind} cannot be read here: Glue tells no {', '.join(lacking)} of it.")
    if placeless := [one["Values"] for one in partitions if not one.get("StorageDescriptor", {}).get("Location")]:
        raise UserError(f"{who} cannot be read here: Glue tells no Location of its partition {'/'.join(placeless[0])}.")
    name, keys = named(database, table["Name"]), table.get("PartitionKeys") or []
    given = {**storage.get("Parameters", {}), **table.get("Parameters", {})}
    given.pop("EXTERNAL", None)  # says the statement
    parts = [f"CREATE EXTERNAL TABLE {name} ({_columns(storage['Columns'])})"]
    if keys:
        parts.append(f"PARTITIONED BY ({_columns(keys)})")
    parts.append(f"ROW FORMAT SERDE {text(serde['SerializationLibrary'])}")
    if told := serde.get("Parameters"):
        parts.append(f"WITH SERDEPROPERTIES ({_pairs(told)})")
    parts.append(f"STORED AS INPUTFORMAT {text(storage['InputFormat'])} OUTPUTFORMAT {text(storage['OutputFormat'])}")
    parts.append(f"LOCATION {text(storage['Location'])}")
    if given:
        parts.append(f"TBLPROPERTIES ({_pairs(given)})")
    statements = [" ".join(parts)]
    if partitions:
        added = [
            f"PARTITION ({_values(keys, one['Values'])}) LOCATION {text(one['StorageDescriptor']['Location'])}"
            for one in partitions
        ]
        statements.append(f"ALTER TABLE {name} ADD IF NOT EXISTS {' '.join(added)}")
    return statements


def named(database: str, table: str) -> str:
    return f"{quoted(database)}.{quoted(table)}"


def quoted(name: str) -> str:
    return f"`{name.replace('`', '``')}`"


def text(value: str) -> str:
    """A text of Spark's SQL."""
    return "'" + value.replace("\\", "\\\\").replace("'", "\\'") + "'"


def _columns(columns: Sequence[Mapping[str, str]]) -> str:
    return ", ".join(f"{quoted(column['Name'])} {column['Type']}" for column in columns)


def _values(keys: Sequence[Mapping[str, str]], values: Sequence[str]) -> str:
    return ", ".join(f"{quoted(key['Name'])} = {text(value)}" for key, value in zip(keys, values, strict=True))


def _pairs(given: Mapping[str, str]) -> str:
    return ", ".join(f"{text(name)} = {text(value)}" for name, value in given.items())


def main() -> None:
    """Answers until nobody asks any more."""
    catalog = Catalog(boto3.client("glue", config=Config(proxies={})))
    for line in sys.stdin:
        asked = json.loads(line)
        try:
            told = catalog.answer(asked["name"], there=asked["there"])
        except Exception as error:  # noqa: BLE001  # one process serves all notes: it ends with none of their questions
            name = ".".join(asked["name"]) or "Glue's databases"
            told = {"error": f"What Glue says of {name} cannot be told to Spark: {type(error).__name__}: {error}"}
        print(json.dumps(told), flush=True)


if __name__ == "__main__":
    main()
