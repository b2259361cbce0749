"""The only place that knows this project's jobs: what `make bench` calls of them, as a cluster would."""

import io
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
from pyspark.sql import Column, SparkSession
from pyspark.sql import functions as F

from datasets import load_dataset, toml_file
from jobs import predict, prepare, train
from jobs.job import Job
from jobs.judges import metrics
from jobs.tables import catalog, split, storage
from jobs.tables.features import Features
from jobs.tables.session import Clock, spark_session
from jobs.tables.settings import Dataset, Learner, Training

DATASET = "nyc_flights"
CUSTOMERS = Path(__file__).parent / "customers"
MIN_LEAF = 50
# Beside the dataset's features: what it left out when the time of a row began to decide.
WEATHER, BESIDES = ("temp", "dewp", "pressure"), ("month", "temp", "dewp", "pressure")


def settings(depth: int = 12) -> Dataset:
    """The dataset's settings, with the benchmark's columns, leaf size and depth; no slices, which no peer has."""
    own = load_dataset(DATASET)
    weather = own.tables["weather"]
    weather = replace(weather, columns={**weather.columns, **dict.fromkeys(WEATHER, "double")})
    features = replace(own.features, numbers=(*own.features.numbers, *BESIDES))
    training = replace(own.training, min_leaf=MIN_LEAF, depth=depth)
    return replace(
        own, tables={**own.tables, "weather": weather}, features=features, training=training, tune=None, slices=()
    )


def query() -> str:
    """What makes the benchmark's rows of the raw tables."""
    return Path(__file__).with_name("flights.sql").read_text(encoding="utf-8")


def session(job: str) -> SparkSession:
    """The jobs' own session; master and memory come from the environment, which is MLlib's contender's too."""
    return spark_session(job, DATASET)


def plain_session() -> SparkSession:
    """Spark as it comes, with what decides values alone."""
    return SparkSession.builder.appName("plain").config("spark.sql.session.timeZone", "UTC").getOrCreate()


def side() -> Column:
    """train or test, by the hash of a flight's key: every copy of a flight is on the same side."""
    found: Column = split.side(settings().training.test_share, F.col(split.HASH))
    return found


def several(learner: Learner, **training: Any) -> Dataset:
    """The same settings, of a learner of several trees."""
    own = settings()
    kept = {name: getattr(own.training, name) for name in ("smoothing", "bins", "test_share", "seed")}
    return replace(own, training=Training(**kept, learner=learner, **training))


def fit_and_score(features: Path, own: Dataset) -> tuple[dict[str, Any], dict[str, float]]:
    """Metrics on the test side (rows, positives, auc, log_loss), and seconds by phase, `fit` among them."""
    clock = Clock()
    spark = session("train")
    clock.lap("session")
    trained = train.fit_and_score(Features(spark, str(features), own), own, clock)
    test = trained.test
    told = {"rows": test["rows"], "positives": trained.labels["test"].counts[1]}
    return told | {"auc": test["auc"], "log_loss": test["log_loss"]}, clock.seconds


def own_metrics(label: "np.ndarray[Any, Any]", probability: "np.ndarray[Any, Any]") -> dict[str, Any]:
    """What this project says of probabilities that are given, to compare with the benchmark's own function."""
    values, group = np.unique(probability, return_inverse=True)
    rows, positives = np.bincount(group).astype(float), np.bincount(group, label).astype(float)
    return metrics.evaluate(metrics.Tally(values, rows, positives))


def prepare_features(raw: Mapping[str, Path], lake: Path) -> Path:
    """The whole Glue job on raw CSV files: parse, quarantine, join, write, check. Returns the features' folder."""
    aws = _Folder({name: _crawled(name, file) for name, file in raw.items()})
    job = Job(session("prepare"), aws, aws, settings(), Clock())
    report = prepare.prepare(job, query(), database="bench", lake=lake.as_uri(), run_id="bench")
    return Path(report["location"].removeprefix("file://"))


def customers() -> Dataset:
    """The settings of the table that bench/stages.py makes."""
    file = CUSTOMERS / "dataset.toml"
    return toml_file.read(Dataset, file, shown="bench/customers/dataset.toml", name="customers", named_by="its folder")


def prepare_customers(raw: Path, lake: Path) -> None:
    """The whole Glue job, as `prepare_features`."""
    aws = _Folder({"customers": _crawled("customers", raw)})
    job, sql = Job(session("prepare"), aws, aws, customers(), Clock()), (CUSTOMERS / "prepare.sql").read_text()
    prepare.prepare(job, sql, database="bench", lake=lake.as_uri(), run_id="bench")


def tree_of_customers(features: Path) -> dict[str, Any]:
    """The tree that is learned of them, as tree.json has it."""
    own = customers()
    return train.fit_and_score(Features(session("train"), str(features), own), own).tree


def predict_customers(features: Path, tree: dict[str, Any], lake: Path) -> None:
    """The whole EMR step: all rows scored by the current model, written, published."""
    aws, own = _Folder({}), customers()
    catalog.publish(aws, "bench", "features", features.as_uri(), [], {})
    storage.write_json(aws, "s3://models/customers/bench/tree.json", tree)
    pointer = {"run_id": "bench", "model": "s3://models/customers/bench/"}
    storage.write_json(aws, "s3://models/customers/CURRENT.json", pointer)
    job = Job(session("predict"), aws, aws, own, Clock())
    at = {"database": "bench", "models": "s3://models/", "lake": lake.as_uri(), "table": "features"}
    predict.predict(job, **at, run_id="bench")


def _crawled(name: str, file: Path) -> dict[str, Any]:
    """What a crawler would say of a CSV file with a header."""
    with file.open(encoding="utf-8") as lines:
        header = next(lines).strip().replace('"', "").split(",")
    return {
        "Name": name,
        "Parameters": {"classification": "csv", "skip.header.line.count": "1"},
        "StorageDescriptor": {"Location": file.as_uri(), "Columns": [{"Name": column} for column in header]},
    }


class _Folder:
    """As much of Glue's catalog and of S3 as prepare.py asks for, without a service's own time in the measurement."""

    class _Missing(Exception):
        pass

    exceptions = SimpleNamespace(EntityNotFoundException=_Missing, NoSuchKey=_Missing)

    def __init__(self, tables: dict[str, dict[str, Any]]) -> None:
        self._tables = tables
        self._objects: dict[str, bytes] = {}

    def get_table(self, *, DatabaseName: str, Name: str) -> dict[str, Any]:
        if Name not in self._tables:
            raise self._Missing
        return {"Table": self._tables[Name]}

    def update_table(self, *, DatabaseName: str, TableInput: dict[str, Any]) -> None:
        self._tables[TableInput["Name"]] = TableInput

    def get_object(self, *, Bucket: str, Key: str) -> dict[str, Any]:
        if Key not in self._objects:
            raise self._Missing
        return {"Body": io.BytesIO(self._objects[Key])}

    def put_object(self, *, Bucket: str, Key: str, Body: bytes, **_: str) -> None:
        self._objects[Key] = Body
