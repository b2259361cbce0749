"""Each shipped dataset as a run has left it, small: features, a published model, predictions; and its notes, run.

Raw tables are those of the installed packages, of the flights one in 120; the census is not on this machine, so its
answers are made up here. Spark has the buckets as folders (tests/spark_session.py), the embedded cloud has S3, SSM and
Glue, and what is published there Spark knows by its name, as EMR's Spark does through Glue.
"""

import importlib.util
import json
import random
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyspark.sql import SparkSession
from pyspark.sql import functions as F

from datasets import dataset_names, load_dataset, prepare_sql
from dml.local.place import REGION
from dml.zeppelin.source import block_of
from jobs import predict, train
from jobs.job import Job
from jobs.tables import catalog, split, storage
from jobs.tables.session import Clock
from jobs.tables.settings import Dataset
from notebooks.parameters import parameters_of
from notebooks.twins import notebook
from notebooks.zpln import build_note
from stacks.code import write_dataset, write_library
from tests.notebooks.zeppelin import Output, Result, Runner

SOURCES = Path(__file__).parents[2] / "notebooks"
ENVIRONMENT, LAKE, MODELS = "notes", "s3://jobs-lake/", "s3://jobs-models/"
ONE_IN = {"flights": 120}

Node = Callable[[], AbstractContextManager[None]]


def parameters(dataset: Dataset) -> dict[str, str]:
    return parameters_of(dataset, environment=ENVIRONMENT, database=f"{ENVIRONMENT}_{dataset.name}")


def notes_of(dataset: Dataset) -> list[dict[str, Any]]:
    """The notes of a dataset, as they ship: those for all, then its own."""
    sources = [*sorted(SOURCES.glob("*.md")), *sorted((SOURCES / dataset.name).glob("*.md"))]
    return [build_note(path, folder=dataset.name, parameters=parameters(dataset)) for path in sources]


def twin(note: dict[str, Any]) -> dict[str, Any]:
    """The note as a Jupyter notebook, as it is exported."""
    blocks = [block_of(paragraph) for paragraph in note["paragraphs"]]
    return notebook(note["id"], [(one.head, one.text, one.attributes.get("title", "")) for one in blocks])


class SharedCatalog:
    """The embedded cloud's Glue; tables that it is given, Spark has as well."""

    def __init__(self, glue: Any, spark: SparkSession) -> None:
        self._glue, self._spark = glue, spark

    def __getattr__(self, name: str) -> Any:
        return getattr(self._glue, name)

    def create_table(self, **told: Any) -> Any:
        answer = self._glue.create_table(**told)
        self._in_spark(**told)
        return answer

    def update_table(self, **told: Any) -> Any:
        answer = self._glue.update_table(**told)
        self._in_spark(**told)
        return answer

    def _in_spark(self, *, DatabaseName: str, TableInput: dict[str, Any]) -> None:  # boto3's names
        name, storage_of = f"{DatabaseName}.{TableInput['Name']}", TableInput["StorageDescriptor"]
        columns = ", ".join(f"`{column['Name']}` {column['Type']}" for column in storage_of["Columns"])
        self._spark.sql(f"DROP TABLE IF EXISTS {name}")
        self._spark.sql(f"CREATE TABLE {name} ({columns}) USING parquet LOCATION '{storage_of['Location']}'")


@dataclass
class Shipped:
    """One dataset, run. `outputs`: by note and title, the messages of each titled paragraph of its notes."""

    settings: Dataset
    spark: SparkSession
    clients: dict[str, Any]
    node: Node
    # Of each note one, as the workbench is set (dml/zeppelin/interpreter.py): a note stands on none before it.
    runners: dict[str, Runner] = field(default_factory=dict)

    @property
    def database(self) -> str:
        return f"{ENVIRONMENT}_{self.settings.name}"

    @cached_property
    def notes(self) -> list[dict[str, Any]]:
        return notes_of(self.settings)

    @cached_property
    def outputs(self) -> dict[tuple[str, str], list[Output]]:
        found = {}
        for note in self.notes:
            self.runners[note["name"]] = runner = Runner(self.spark)
            with self.node():
                results = runner.run(note)
            for paragraph, result in zip(note["paragraphs"], results, strict=True):
                assert result.status == "FINISHED", (note["name"], paragraph.get("title"), result.messages)
                if "title" in paragraph:
                    found[note["name"], paragraph["title"]] = result.messages
        return found

    def table(self, note: str, title: str) -> tuple[list[str], list[list[str]]]:
        """Header and rows of a paragraph's first output."""
        (first, *_) = self.outputs[note, title]
        assert first.kind == "TABLE", first
        header, *rows = first.rows
        return header, rows

    def again(self, note: str, title: str, **forms: str) -> Result:
        """A paragraph once more, after its note has run, with something else chosen in forms."""
        assert self.outputs
        (text,) = [
            paragraph["text"]
            for one in self.notes
            for paragraph in one["paragraphs"]
            if (one["name"], paragraph.get("title")) == (note, title)
        ]
        runner = Runner(self.spark, forms)
        runner.names = {**self.runners[note].names, "z": runner.z}
        with self.node():
            return runner.run_paragraph(text)

    def anew(self, note: str, *titles: str, **forms: str) -> list[Result]:
        """Several of its paragraphs in a Python of their own, with something else chosen in forms."""
        texts = {
            (one["name"], paragraph.get("title")): paragraph["text"]
            for one in self.notes
            for paragraph in one["paragraphs"]
        }
        runner = Runner(self.spark, forms)
        with self.node():
            return [runner.run_paragraph(texts[note, title]) for title in titles]

    def figures(self, note: str, title: str) -> dict[str, list[str]]:
        """The rows of a table by their first cell."""
        return {name: cells for name, *cells in self.table(note, title)[1]}

    @cached_property
    def features(self) -> pd.DataFrame:
        """The features table, read without Spark."""
        frame: pd.DataFrame = pq.read_table(self.local(f"{LAKE}{self.settings.name}/features/run-1/")).to_pandas()
        return frame

    def local(self, uri: str) -> Path:
        """Where Spark's files of s3://BUCKET/... are here."""
        bucket, _, key = uri.removeprefix("s3://").partition("/")
        mounted = self.spark.sparkContext.getConf().get(f"spark.hadoop.fs.viewfs.mounttable.{bucket}.linkFallback")
        return Path(urlparse(str(mounted)).path, key)

    @cached_property
    def on_test(self) -> pd.Series:
        """Of each row of `features` whether it is on the test side."""
        hashes = self.features[split.HASH].to_numpy()
        return pd.Series(split.is_test(hashes, self.settings.training.test_share))

    def model(self, document: str) -> Any:
        """A JSON file of the current model."""
        s3 = self.clients["s3"]
        pointer = storage.read_json(s3, f"{MODELS}{self.settings.name}/CURRENT.json")
        assert pointer is not None
        return storage.read_json(s3, f"{pointer['model'].rstrip('/')}/{document}.json")


@contextmanager
def shipped(
    name: str, spark: SparkSession, clients: dict[str, Any], node: Node, folder: Path, *, runs: int
) -> Iterator[Shipped]:
    """A dataset after so many runs."""
    made = Shipped(load_dataset(name), spark, clients, node)
    clients["glue"].create_database(DatabaseInput={"Name": made.database})
    spark.sql(f"CREATE DATABASE {made.database}")
    _run(made, folder, runs)
    yield made
    spark.sql(f"DROP DATABASE {made.database} CASCADE")
    clients["glue"].delete_database(Name=made.database)


def on_a_node(folder: Path, clients: dict[str, Any]) -> Node:
    """What a note imports there: the code zip's `datasets`, with settings as JSON, and clients of this cloud."""
    write_library(folder)
    for name in dataset_names():
        write_dataset(folder, load_dataset(name), prepare_sql(name))

    @contextmanager
    def node() -> Iterator[None]:
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("AWS_DEFAULT_REGION", REGION)
            patch.setattr("jobs.notes.here.boto3.client", lambda service, region_name: clients[service])
            patch.delitem(sys.modules, "datasets")
            patch.syspath_prepend(folder)
            try:
                yield
            finally:
                sys.modules.pop("datasets", None)

    return node


def _run(made: Shipped, folder: Path, runs: int) -> None:
    """What the pipeline does, by the jobs' own code from the features on."""
    settings, spark, glue, s3 = made.settings, made.spark, made.clients["glue"], made.clients["s3"]
    for table, rows in raw(settings).items():
        pq.write_table(pa.Table.from_pandas(rows, preserve_index=False), folder / f"{table}.parquet")
        kinds = settings.tables[table].columns
        cast = [f"CAST(`{column}` AS {kind}) AS `{column}`" for column, kind in kinds.items()]
        spark.read.parquet(str(folder / f"{table}.parquet")).selectExpr(*cast).createOrReplaceTempView(table)
    location = f"{LAKE}{settings.name}/features/run-1/"
    label = F.col(settings.label.column)
    hashed = split.hashed(list(settings.split_by), settings.training.seed)
    prepared = spark.sql(prepare_sql(settings.name)).withColumn(split.HASH, hashed).cache()
    known = prepared.where(label.isNotNull())
    known.coalesce(1).write.mode("overwrite").parquet(location)
    counts = {"rows_in": prepared.count(), "rows_out": known.count()}
    prepared.unpersist()
    for table in settings.tables:
        spark.catalog.dropTempView(table)
    said = {"run_id": "run-1", "split_seed": str(settings.training.seed), "split_by": ",".join(settings.split.by)}
    catalog.publish(glue, made.database, "features", location, known.dtypes, said)
    report = {
        **counts,
        "quarantined": 0,
        "left_out": {settings.label.unknown: counts["rows_in"] - counts["rows_out"]},
        "tables": {settings.main: {"rows": counts["rows_in"], "quarantined": 0}},
    }
    storage.write_json(s3, f"{LAKE}{settings.name}/runs/run-1/prepare.json", report)
    # What a run would choose is fixed: to tune is another matter. The second model is of another form.
    tree = replace(settings.training.of_a_tree(4), min_leaf=15)
    forest = replace(tree, learner="forest", trees=3)
    for number in range(1, runs + 1):
        run_id = f"run-{number}"
        learning = replace(settings, training=tree if number == 1 else forest, tune=None)
        job = Job(spark, glue, s3, learning, Clock())
        train.train(job, database=made.database, models=MODELS, run_id=run_id, revision="")
        pointer = {"run_id": run_id, "model": f"{MODELS}{settings.name}/{run_id}/"}
        s3.put_object(Bucket="jobs-models", Key=f"{settings.name}/CURRENT.json", Body=json.dumps(pointer))
    at = {"database": made.database, "models": MODELS, "lake": LAKE, "table": "features", "run_id": run_id}
    predict.predict(job, **at)


def raw(settings: Dataset) -> dict[str, pd.DataFrame]:
    """Each raw table as text, None where nothing is."""
    if settings.name == "census_income":
        return {"people": census()}
    found = {}
    package = importlib.util.find_spec(settings.source.package)
    assert package is not None
    assert package.submodule_search_locations
    for name, table in settings.tables.items():
        columns = {table.names.get(column, column): column for column in table.columns}
        file = Path(package.submodule_search_locations[0], str(settings.source.files[name]))
        text = pd.read_csv(file, dtype=str, na_values=list(table.nulls), keep_default_na=False)
        named = {c: next(x for x in text.columns if x.lower() == c.lower()) for c in columns}
        rows = text.iloc[:: ONE_IN.get(name, 1)][list(named.values())].set_axis(list(columns.values()), axis=1)
        found[name] = rows.astype(object).where(rows.notna(), None)
    return found


def census(count: int = 1_000) -> pd.DataFrame:
    """Answers as the file of the census has them; whoever is married, older or longer at school earns more."""
    chance = random.Random(5)  # noqa: S311  # the same answers each time
    rows = []
    for i in range(count):
        age, school, married = chance.randint(17, 80), chance.randint(1, 16), chance.random() < 0.5
        likely = 0.05 + 0.35 * married + 0.25 * (school > 12) + 0.2 * (age > 40)
        rows.append(
            {
                "age": age,
                "workclass": None if i % 20 == 7 else chance.choice(["Private", "State-gov", "Self-emp"]),
                "fnlwgt": chance.randint(20_000, 300_000),
                "education": f"school {school}",
                "education_num": school,
                "marital_status": "Married-civ-spouse" if married else chance.choice(["Never-married", "Divorced"]),
                "occupation": chance.choice(["Sales", "Craft-repair", "Exec-managerial", "Other-service"]),
                "relationship": "Husband" if married else "Not-in-family",
                "race": chance.choice(["White", "Black", "Other"]),
                "sex": chance.choice(["Male", "Female"]),
                "capital_gain": chance.choice([0, 0, 0, 5_000]),
                "capital_loss": 0,
                "hours_per_week": chance.randint(10, 60),
                "native_country": f"country {chance.randint(1, 40)}",
                "income": ">50K" if chance.random() < likely else "<=50K",
            }
        )
    return pd.DataFrame(rows).astype(str).where(pd.DataFrame(rows).notna(), None)
