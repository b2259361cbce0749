"""The three jobs from catalog to catalog, on the embedded cloud's Glue and S3 and on local Spark."""

import csv
import hashlib
import json
import tomllib
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa  # pyarrow ships no types
import pyarrow.parquet as pq
import pytest
from pydantic import TypeAdapter
from pyspark.sql import SparkSession
from pyspark.sql import functions as F

from dml.models.scorer import Scorer
from jobs import predict, prepare, train
from jobs.errors import JobError
from jobs.job import Job
from jobs.models import forms
from jobs.tables import split
from jobs.tables.session import Clock
from jobs.tables.settings import Dataset, Prediction
from tests.embedded import Clients
from tests.jobs import points
from tests.spark_session import BUCKETS

DATABASE, LAKE, MODELS = "jobs_points", "s3://jobs-lake/", "s3://jobs-models/"


class Platform:
    """Catalog, buckets and Spark, and the jobs called on them as their main() does."""

    def __init__(self, spark: SparkSession, aws: Clients, raw: Path) -> None:
        self.spark, self.glue, self.s3, self.raw = spark, aws("glue"), aws("s3"), raw

    def upload(self, lines: list[str], header: str = points.HEADER) -> None:
        """Raw files of `points`, and what a crawler says of them."""
        self.raw.mkdir(exist_ok=True)
        (self.raw / "points.csv").write_text("\n".join([header, *lines]) + "\n")
        table = {
            "Name": "points",
            "Parameters": {"classification": "csv", "skip.header.line.count": "1"},
            "StorageDescriptor": {
                "Location": self.raw.as_uri(),
                "Columns": [{"Name": name, "Type": points.TYPES.get(name, "string")} for name in header.split(",")],
                "SerdeInfo": {"Parameters": {"field.delim": ","}},
            },
        }
        self.glue.create_table(DatabaseName=DATABASE, TableInput=table)

    def job(self, settings: Dataset | None) -> Job:
        return Job(self.spark, self.glue, self.s3, settings or points.settings(), Clock())

    def prepare(self, run_id: str, settings: Dataset | None = None, sql: str = points.SQL) -> dict[str, Any]:
        return prepare.prepare(self.job(settings), sql, database=DATABASE, lake=LAKE, run_id=run_id)

    def train(self, run_id: str, settings: Dataset | None = None) -> None:
        train.train(self.job(settings), database=DATABASE, models=MODELS, run_id=run_id, revision="abc")

    def publish(self, run_id: str) -> None:
        """What the state machine does when the gate has passed."""
        pointer = {"dataset": "points", "run_id": run_id, "model": f"{MODELS}points/{run_id}/", "metrics": {}}
        self.s3.put_object(Bucket="jobs-models", Key="points/CURRENT.json", Body=json.dumps(pointer))

    def predict(self, run_id: str, table: str = "features", settings: Dataset | None = None) -> dict[str, Any]:
        at = {"database": DATABASE, "models": MODELS, "lake": LAKE, "table": table, "run_id": run_id}
        return predict.predict(self.job(settings), **at)

    def model(self, run_id: str, file: str) -> Any:
        return json.loads(self.s3.get_object(Bucket="jobs-models", Key=f"points/{run_id}/{file}")["Body"].read())

    def table(self, name: str) -> dict[str, Any]:
        table: dict[str, Any] = self.glue.get_table(DatabaseName=DATABASE, Name=name)["Table"]
        return table

    def location(self, name: str) -> str:
        location: str = self.table(name)["StorageDescriptor"]["Location"]
        return location


@pytest.fixture
def platform(spark: SparkSession, aws: Clients, tmp_path: Path, s3_folder: Path) -> Iterator[Platform]:
    made = Platform(spark, aws, tmp_path / "raw")
    made.glue.create_database(DatabaseInput={"Name": DATABASE})
    for bucket in BUCKETS:
        made.s3.create_bucket(Bucket=bucket)
    yield made
    made.glue.delete_database(Name=DATABASE)
    for bucket in BUCKETS:
        for entry in made.s3.list_objects_v2(Bucket=bucket).get("Contents", []):
            made.s3.delete_object(Bucket=bucket, Key=entry["Key"])
        made.s3.delete_bucket(Bucket=bucket)


def test_the_whole_way_should_end_in_predictions_and_say_what_it_did(
    platform: Platform, spark: SparkSession, capsys: pytest.CaptureFixture[str]
) -> None:
    platform.upload([*points.lines(), "400,2024-01-04,two,red,3", "401,2024-01-04,2"])
    prepared = platform.prepare("r1")
    assert (prepared["rows_in"], prepared["rows_out"], prepared["quarantined"]) == (402, 390, 2)
    assert prepared["left_out"] == {"no delay": 10}
    assert prepared["tables"]["points"] == {"rows": 402, "quarantined": 2, "location": platform.raw.as_uri()}
    broken = spark.read.json(f"{LAKE}points/quarantine/r1/points/").orderBy("record").collect()
    assert [(row["record"], row["reason"]) for row in broken] == [
        ("400,2024-01-04,two,red,3", "column x: 'two' is not a double"),
        ("401,2024-01-04,2", "the line has not the 5 fields of the header"),
    ]
    assert platform.location("features") == prepared["location"] == f"{LAKE}points/features/r1/"
    assert [(c["Name"], c["Type"]) for c in platform.table("features")["StorageDescriptor"]["Columns"]] == [
        ("id", "bigint"),
        ("day", "date"),
        ("late", "int"),
        ("x", "double"),
        ("colour", "string"),
        ("split_hash", "bigint"),
    ]

    platform.train("r1")
    metrics = platform.model("r1", "metrics.json")
    assert (
        metrics["rows"]["train"] + metrics["rows"]["test"] == metrics["test"]["rows"] + metrics["rows"]["train"] == 390
    )
    assert metrics["base_rate"] == metrics["positives"]["train"] / metrics["rows"]["train"]
    assert metrics["test"]["log_loss"] < metrics["baseline"]["log_loss"]
    assert metrics["out_of_time"]["trained_on"] == metrics["out_of_time"]["tested_on"] == "2024-01 to 2024-01"
    assert metrics["out_of_time"]["rows"] == 195
    assert metrics["revision"] == "abc"
    assert {entry["feature"] for entry in metrics["importances"]} == {"x", "colour"}
    assert metrics["importances"][0]["feature"] == "x"
    assert set(metrics["seconds"]) >= {"profile", "read", "fit", "score", "out_of_time", "explain", "save", "total"}
    permuted, dependence = metrics["permutation"], metrics["dependence"]
    assert permuted["rows"] == metrics["rows"]["test"]
    assert permuted["log_loss"] == pytest.approx(metrics["test"]["log_loss"])  # of the very same rows
    assert permuted["features"][0]["feature"] == dependence[0]["feature"] == "x"
    first, *_, last = metrics["examples"]["rows"]
    assert first["says"] > last["says"]
    assert {type(first["keys"]["id"]), *(one["feature"] for one in first["reasons"])} >= {int, "x"}
    tree = platform.model("r1", "tree.json")
    assert tree["nodes"][0]["condition"].startswith("x <= 5")
    assert metrics["tree"]["nodes"] == len(tree["nodes"])
    assert platform.model("r1", "gate.json")["passed"]
    assert platform.model("r1", "manifest.json")["files"][0] == "model/"

    platform.publish("r1")
    predicted = platform.predict("p1")
    assert (predicted["rows"], predicted["model_run"]) == (390, "r1")
    rows = spark.read.parquet(platform.location("predictions"))
    assert rows.columns == ["id", "probability", "prediction", "side", "model_run"]
    assert rows.where("prediction = 1").count() == predicted["predicted"]["1"]
    assert rows.where("side = 'test'").count() == metrics["rows"]["test"]
    assert rows.where("prediction != int(probability >= 0.5)").count() == 0
    assert capsys.readouterr().out.splitlines()[0] == "read points: 402 rows, 2 quarantined"


def test_several_classes_should_go_the_whole_way(platform: Platform, spark: SparkSession) -> None:
    """Of a raw table in Parquet, with a column that goes along for people."""
    told = points.multiclass()
    of_parquet = {name: replace(table, format="parquet") for name, table in told.tables.items()}
    settings = replace(told, tables=of_parquet, carried=("delay", "x"))
    platform.upload(points.lines())
    written = platform.raw / "points.csv"
    rows = list(csv.DictReader(written.read_text().splitlines()))
    pq.write_table(
        pa.Table.from_pylist([{**row, "id": row["id"] or None} for row in rows]), platform.raw / "points.parquet"
    )
    written.unlink()
    platform.prepare(
        "r1",
        settings,
        sql="SELECT id, day, x, colour, delay, CASE WHEN x > 7 THEN 'high' WHEN colour = 'red' THEN 'low' "
        "WHEN delay IS NOT NULL THEN 'mid' END AS late FROM points",
    )
    platform.train("r1", settings)
    figures = platform.model("r1", "metrics.json")
    assert (figures["task"], figures["main_metric"]) == ("multiclass", "log_loss")
    assert figures["test"]["accuracy"] > 0.95 > figures["baseline"]["accuracy"]
    assert sum(map(sum, figures["test"]["confusion"])) == figures["test"]["rows"] == figures["rows"]["test"]
    assert figures["out_of_time"]["log_loss"] < figures["out_of_time"]["baseline"]["log_loss"]
    nodes = platform.model("r1", "tree.json")["nodes"]
    assert all(sum(node["probabilities"]) == pytest.approx(1) for node in nodes)
    platform.publish("r1")
    predicted = platform.predict("p1", settings=settings)
    assert set(predicted["predicted"]) == {"low", "mid", "high"}
    rows = spark.read.parquet(platform.location("predictions"))
    assert rows.columns == ["id", "delay", "x", "probability", "prediction", "probabilities", "side", "model_run"]
    assert rows.where("delay IS NOT NULL AND x > 7").count() > 0
    assert rows.where("probability != array_max(probabilities)").count() == 0
    assert rows.where("prediction = 'high'").count() == rows.where("probabilities[2] = probability").count()


def test_a_regression_should_go_the_whole_way_and_be_measured_against_the_current_model(
    platform: Platform, spark: SparkSession
) -> None:
    settings = points.regression()
    platform.upload(points.lines())
    sql = "SELECT id, day, x, colour, delay + x + int(colour = 'red') * 5.5 AS late FROM points"
    platform.prepare("r1", settings, sql=sql)
    platform.train("r1", settings)
    figures = platform.model("r1", "metrics.json")
    assert (figures["task"], figures["main_metric"]) == ("regression", "rmse")
    assert figures["test"]["rmse"] < figures["baseline"]["rmse"]
    assert figures["interval"]["low"] < figures["test"]["rmse"] < figures["interval"]["high"]
    assert sum(group["rows"] for group in figures["calibration"]) == figures["rows"]["test"]
    platform.publish("r1")
    platform.train("r2", settings)
    again = platform.model("r2", "metrics.json")
    assert again["current"] == {"run_id": "r1", **again["test"]}
    assert platform.predict("p1", settings=settings)["predicted"] == {}
    rows = spark.read.parquet(platform.location("predictions"))
    assert rows.columns == ["id", "prediction", "side", "model_run"]
    # The current model is of another task now: that is a change to declare, and the two cannot be compared.
    platform.prepare("r3")
    platform.train("r3")
    refused = platform.model("r3", "gate.json")
    assert "the task was regression and is binary" in refused["reasons"][0]


def test_boosted_trees_should_go_the_whole_way_and_be_measured_as_the_current_model(
    platform: Platform, spark: SparkSession
) -> None:
    settings = points.settings("depth = 3\nmin_leaf = 5\n", 'learner = "boosted"\nrounds = 10\nleaves = 4\n')
    platform.upload(points.lines())
    platform.prepare("r1", settings)
    platform.train("r1", settings)
    model, figures = (platform.model("r1", f"{name}.json") for name in ("tree", "metrics"))
    assert (model["format"], model["link"], len(model["trees"])) == (3, "logistic", 10)
    assert figures["tree"]["trees"] == 10
    assert figures["settings"] == model["settings"] | {"learner": "boosted", "rounds": 10, "leaves": 4}
    assert figures["test"]["log_loss"] < figures["baseline"]["log_loss"]
    assert figures["interval"]["low"] < figures["test"]["log_loss"] < figures["interval"]["high"]
    files = platform.model("r1", "manifest.json")["files"]
    assert ("model/" in files, "tree.sql" in files) == (False, True)
    card = platform.s3.get_object(Bucket="jobs-models", Key="points/r1/model-card.md")["Body"].read().decode()
    assert "10 gradient-boosted decision trees that predict" in card
    platform.publish("r1")
    platform.train("r2")  # one tree
    assert platform.model("r2", "metrics.json")["current"] == {"run_id": "r1", **figures["test"]}
    platform.predict("p1", settings=replace(settings, prediction=Prediction(reasons=3)))
    rows = spark.read.parquet(platform.location("predictions"))
    reasons = [f"reason_{i}{what}" for i in (1, 2, 3) for what in ("", "_effect")]
    assert rows.columns == ["id", "probability", "prediction", *reasons, "side", "model_run"]
    features = {row["id"]: row.asDict() for row in spark.read.parquet(platform.location("features")).collect()}
    for row in rows.where("id < 40").collect():
        expected = Scorer(model, reasons=3).predict(features[row["id"]])
        assert row["probability"] == pytest.approx(expected["probability"], rel=1e-12)
        assert [row[name] for name in reasons[::2]] == [expected[name] for name in reasons[::2]]
        assert {row["reason_1"], row["reason_2"]} == {"x", "colour"}
        assert [row[name] for name in reasons[1:4:2]] == pytest.approx([expected[name] for name in reasons[1:4:2]])
        assert row["reason_3"] is row["reason_3_effect"] is None
        assert row["prediction"] == expected["prediction"]
    for node in forms.all_nodes(model):
        del node["cover"]
    platform.s3.put_object(Bucket="jobs-models", Key="points/r1/tree.json", Body=json.dumps(model))
    with pytest.raises(JobError, match=r"run r1 gives no reasons .* an earlier release .* prediction.reasons out of"):
        platform.predict("p2", settings=replace(settings, prediction=Prediction(reasons=3)))


def test_a_label_that_becomes_a_number_should_be_a_change_that_the_gate_tells(platform: Platform) -> None:
    platform.upload(points.lines())
    platform.prepare("r1")
    platform.train("r1")
    platform.publish("r1")
    settings = points.regression()
    platform.prepare("r2", settings, sql="SELECT id, day, x + 6 AS x, colour, delay + x AS late FROM points")
    platform.train("r2", settings)
    assert "the task was binary and is regression" in platform.model("r2", "gate.json")["reasons"][0]
    assert platform.model("r2", "drift.json")["label"] is None
    x, colour = platform.model("r2", "drift.json")["features"]
    assert (x["verdict"], colour["moves_score"]) == ("large", None)
    assert x["moves_score"]["by"] > 0.3  # by r1, x above 5 is late


def test_a_label_that_is_none_of_the_classes_should_be_told(platform: Platform) -> None:
    platform.upload(points.lines())
    with pytest.raises(JobError, match=r"label .late. is not one of label.classes \(low, mid, high\)"):
        platform.prepare("r1", points.multiclass(), sql="SELECT id, day, x, colour, colour AS late FROM points")
    with pytest.raises(JobError, match=r"label .late. is not a number up to 1e"):
        platform.prepare("r2", points.regression(), sql="SELECT id, day, x, colour, double('inf') AS late FROM points")


def test_a_candidate_should_be_measured_against_the_current_model_on_the_same_rows(platform: Platform) -> None:
    platform.upload(points.lines())
    platform.prepare("r1")
    platform.train("r1")
    platform.publish("r1")
    platform.train("r2")
    same = platform.model("r2", "gate.json")
    assert same["passed"]
    assert same["current_run"] == "r1"
    old, new = (platform.model(run, "metrics.json")["test"]["log_loss"] for run in ("r1", "r2"))
    assert old == new
    told = {check["name"]: check["detail"] for check in same["checks"]}
    assert f"run r1 has {old:.4f}" in told["not worse than the current model"]
    assert "run r1 had " in told["not worse than the current model out of time"]
    worse = points.settings("depth = 3", "depth = 1")
    platform.train("r3", worse)
    refused = platform.model("r3", "gate.json")
    assert not refused["passed"]
    assert refused["reasons"][0].startswith("worse than the current model")
    told = platform.model("r3", "metrics.json")
    assert told["against_current"]["run_id"] == "r1"
    assert told["against_current"]["rows"] == told["rows"]["test"]
    difference = told["test"]["log_loss"] - told["current"]["log_loss"]
    assert told["against_current"]["difference"] == pytest.approx(difference)
    assert told["against_current"]["low"] < difference < told["against_current"]["high"]


def test_the_same_run_again_should_change_nothing(platform: Platform, spark: SparkSession) -> None:
    platform.upload(points.lines())
    first = platform.prepare("r1")
    files = sorted(spark.read.parquet(first["location"]).inputFiles())
    assert platform.prepare("r1") == first
    platform.train("r1")
    created = platform.model("r1", "metrics.json")["seconds"]
    platform.train("r1")
    assert platform.model("r1", "metrics.json")["seconds"] == created
    assert sorted(spark.read.parquet(platform.location("features")).inputFiles()) == files


def test_all_jobs_should_put_a_row_on_the_same_side_whatever_the_seed(platform: Platform, spark: SparkSession) -> None:
    settings = points.settings("smoothing = 10.0", "smoothing = 10.0\nseed = 7")
    platform.upload(points.lines())
    platform.prepare("r1", settings)
    platform.train("r1", settings)
    platform.publish("r1")
    platform.predict("p1", settings=settings)
    features, predictions = (spark.read.parquet(platform.location(name)) for name in ("features", "predictions"))
    told = {
        name: dict(features.select("id", split.side(0.2, row)).collect())
        for name, row in {
            "prepared": F.col(split.HASH),
            "asked for": split.hashed(["id"], 7),
            "default": split.hashed(["id"], 0),
        }.items()
    }
    assert told["prepared"] == told["asked for"] == dict(predictions.select("id", "side").collect())
    assert told["prepared"] != told["default"]
    assert platform.model("r1", "metrics.json")["rows"]["test"] == list(told["prepared"].values()).count("test")


def test_prepare_should_name_a_table_that_is_not_in_the_catalog(platform: Platform) -> None:
    with pytest.raises(
        JobError, match=r"no table jobs_points.points: datasets/points/dataset.toml needs it; upload it"
    ):
        platform.prepare("r1")


def test_prepare_should_name_a_column_that_a_raw_table_lacks(platform: Platform) -> None:
    platform.upload(["1,2024-01-01,2.5"], header="id,day,x")
    with pytest.raises(JobError) as error:
        platform.prepare("r1")
    told = str(error.value)
    assert f"jobs_points.points ({platform.raw.as_uri()}) has no column colour, delay" in told
    assert "datasets/points/dataset.toml" in told


@pytest.mark.parametrize(
    ("lines", "told"),
    [
        ([], "is empty: upload it with `dml data push points`"),
        (["a,2024-01-01,1,red,0", "b,2024-01-01,1,red,0"], "None of the 2 rows of raw table jobs_points.points"),
    ],
)
def test_prepare_should_refuse_a_raw_table_without_a_good_row(platform: Platform, lines: list[str], told: str) -> None:
    platform.upload(lines)
    with pytest.raises(JobError) as error:
        platform.prepare("r1")
    assert told in str(error.value)


def test_prepare_should_say_that_the_files_of_a_table_are_gone(platform: Platform) -> None:
    platform.upload(points.lines())
    (platform.raw / "points.csv").unlink()
    platform.raw.rmdir()
    with pytest.raises(JobError, match="has no files: upload them with `dml data push`"):
        platform.prepare("r1")


def test_prepare_should_tell_a_file_whose_header_is_another(platform: Platform) -> None:
    platform.upload(points.lines())
    platform.prepare("good")
    (platform.raw / "more.csv").write_text("id,day,colour,x,delay\n")
    with pytest.raises(JobError, match=r"jobs_points.points .*: .*/more.csv has another header than the table"):
        platform.prepare("bad")
    assert platform.location("features") == f"{LAKE}points/features/good/"


def test_prepare_should_live_with_whatever_the_crawler_guessed(platform: Platform, spark: SparkSession) -> None:
    platform.upload(points.lines())
    platform.prepare("r1")
    expected = spark.read.parquet(platform.location("features")).collect()
    # The same rows as UCI's data sets are: no header, comma and space, a question mark; in Latin-1, on several lines.
    lines = [", ".join(line.split(",")).replace("NA", "?").replace("red", '"ro\nü"') for line in points.lines()]
    (platform.raw / "points.csv").write_bytes("\n".join([*lines, "400, 2024-01-04, 1, x, y", ""]).encode("latin-1"))
    columns = [{"Name": "1, 2024", "Type": "bigint"}]
    for guess in ([], columns):
        table = {"Name": "points", "Parameters": {"classification": "UNKNOWN", "skip.header.line.count": "1"}}
        table["StorageDescriptor"] = {"Location": platform.raw.as_uri(), "Columns": guess}  # type: ignore[assignment]
        platform.glue.update_table(DatabaseName=DATABASE, TableInput=table)
    dialect = '[tables.points]\nheader = false\nencoding = "latin-1"\nnulls = ["?"]\n[tables.points.columns]'
    report = platform.prepare("r2", points.settings("[tables.points.columns]", dialect))
    assert (report["rows_in"], report["rows_out"], report["quarantined"]) == (401, 390, 1)
    found = spark.read.parquet(platform.location("features")).replace("ro\nü", "red", "colour").collect()
    assert found == expected
    (broken,) = spark.read.json(f"{LAKE}points/quarantine/r2/points/").collect()
    assert broken["reason"] == "column delay: 'y' is not a bigint"


@pytest.mark.parametrize(
    ("file", "told"),
    [
        ('id,day,x,colour,delay\n1,2024-01-01,1,"red,0\n', "is never closed"),
        ("id,day,x,colour,delay\n1,2024-01-01,1,grün,0\n", "is not UTF-8"),
        ("id;day;x;colour;delay\n1;2024-01-01;1;red;0\n", "has no column id, day, x, colour, delay"),
        ("id,day,x,colour,colour,delay\n1,2024-01-01,1,red,,0\n", "column colour could be any of 2 columns"),
    ],
)
def test_a_file_that_is_not_what_dataset_toml_says_should_be_told_and_publish_nothing(
    platform: Platform, file: str, told: str
) -> None:
    platform.upload(points.lines())
    platform.prepare("good")
    (platform.raw / "points.csv").write_bytes(file.encode("latin-1"))
    with pytest.raises(JobError, match=told) as error:
        platform.prepare("bad")
    assert len(str(error.value).splitlines()) == 1
    assert platform.location("features") == f"{LAKE}points/features/good/"


@pytest.mark.parametrize(
    ("sql", "told"),
    [
        (points.SQL.replace("colour", "color"), r"does not run: \[UNRESOLVED_COLUMN"),
        (points.SQL.replace(" x,", ""), "missing columns: x; columns not declared"),
        (points.SQL.replace(" x,", " x, delay,"), "not declared as key, time, label or feature: delay"),
        (points.SQL.replace(" x,", " string(x) AS x,"), "column x is string; for its use in .* numeric or boolean"),
        (f"{points.SQL} UNION ALL {points.SQL}", "gives 390 keys more than once, e.g. id=.*: a join adds rows"),
        (points.SQL.replace("CAST(delay > 15 AS INT)", "int(delay)"), "whose label .late. is neither 0 nor 1"),
        (points.SQL.replace("SELECT id", "SELECT nullif(id, 3) AS id"), "1 rows with a NULL in a key column"),
        (points.SQL.replace("delay > 15", "NULL"), "gives no rows with a known label"),
    ],
)
def test_a_query_that_makes_no_proper_features_should_be_told_and_publish_nothing(
    platform: Platform, sql: str, told: str
) -> None:
    platform.upload(points.lines())
    platform.prepare("good")
    with pytest.raises(JobError, match=f"datasets/points/prepare.sql.*{told}"):
        platform.prepare("bad", sql=sql)
    assert platform.location("features") == f"{LAKE}points/features/good/"


def test_rows_that_the_query_drops_should_be_counted(platform: Platform) -> None:
    platform.upload(points.lines())
    report = platform.prepare("r1", sql=f"{points.SQL} WHERE id >= 100")
    assert report["left_out"]["not in the result of prepare.sql"] == 100


def test_records_of_many_lines_far_down_should_be_read_anew_and_whole(
    platform: Platform, spark: SparkSession, capsys: pytest.CaptureFixture[str]
) -> None:
    platform.upload(points.lines())
    platform.prepare("r1")
    expected = spark.read.parquet(platform.location("features")).replace("red", "r\ned", "colour").collect()
    lines = points.lines()
    platform.glue.delete_table(DatabaseName=DATABASE, Name="points")
    platform.upload([*lines[:150], *(line.replace("red", '"r\ned"') for line in lines[150:])])
    report = platform.prepare("r2")
    assert (report["rows_in"], report["rows_out"], report["quarantined"]) == (400, 390, 0)
    found = spark.read.parquet(platform.location("features")).replace("red", "r\ned", "colour").collect()
    assert found == expected
    assert "points: not every line is a record, so all lines are looked at first" in capsys.readouterr().out


def test_one_of_two_tables_with_records_of_many_lines_should_be_read_anew_with_the_other(platform: Platform) -> None:
    """And the label's texts are counted of whichever way its table is read."""
    platform.upload([*points.lines(), "900,2024-01-04,1.5,purple,20"])
    kinds = platform.raw.parent / "kinds"
    kinds.mkdir()
    colours = [f'"c\n{n}",warm' if n == 180 else f"c{n},warm" for n in range(200)] + ["red,warm", "blue,cold"]
    (kinds / "kinds.csv").write_text("\n".join(["colour,kind", *colours]) + "\n")
    serde = {"SerdeInfo": {"Parameters": {"field.delim": ","}}, "Location": kinds.as_uri(), "Columns": []}
    table = {"Name": "kinds", "Parameters": {"classification": "csv"}, "StorageDescriptor": serde}
    platform.glue.create_table(DatabaseName=DATABASE, TableInput=table)
    known = sorted({line.split(",")[3] for line in points.lines()})
    toml = points.TOML.replace('points = "data/airlines.csv"', 'points = "p.csv", kinds = "kinds.csv"')
    toml = toml.replace('"is late"', f'"is late"\nraw = "colour"\ntexts = {json.dumps(known)}')
    toml += '[tables.kinds.columns]\ncolour = "string"\nkind = "string"\n'
    settings = TypeAdapter(Dataset).validate_python(tomllib.loads(toml))
    sql = points.SQL.replace("colour,", "points.colour,") + " LEFT JOIN kinds ON kinds.colour = points.colour"
    report = platform.prepare("r1", settings, sql)
    assert {name: told["rows"] for name, told in report["tables"].items()} == {"points": 401, "kinds": 202}
    assert report["unknown_labels"] == {"labelled": 401, "rows": 1, "texts": {"purple": 1}}
    assert report["quarantined"] == 0


def test_features_should_be_what_a_plain_query_makes_of_the_files(platform: Platform, spark: SparkSession) -> None:
    platform.upload(points.lines(2000))
    location = platform.prepare("r1")["location"]
    hashed = "CAST(CASE WHEN h >= 9223372036854775808 THEN h - 18446744073709551616 ELSE h END AS BIGINT)"
    raw = duckdb.read_csv(str(platform.raw / "points.csv"), na_values="NA")
    known = raw.filter("delay IS NOT NULL").project(
        "id, day, CAST(delay > 15 AS INT) AS late, CAST(x AS DOUBLE) AS x, colour, "
        "CAST('0x' || substr(md5('0|' || id), 1, 16) AS HUGEINT) AS h"
    )
    plain = known.order("id").project(f"* EXCLUDE h, {hashed}").fetchall()
    assert [tuple(row) for row in spark.read.parquet(location).collect()] == plain


def test_a_table_that_the_query_leaves_out_should_be_counted(platform: Platform) -> None:
    platform.upload([*points.lines(), "400,2024-01-04,two,red,3"])
    nothing = "SELECT id, date'2024-01-01' AS day, 1.5D AS x, 'red' AS colour, int(id % 2) AS late FROM range(50)"
    report = platform.prepare("r1", sql=nothing)
    assert (report["rows_in"], report["rows_out"], report["quarantined"]) == (401, 50, 1)
    assert report["left_out"] == {"not in the result of prepare.sql": 350}


def test_training_should_refuse_one_class_and_leave_no_manifest(platform: Platform) -> None:
    platform.upload(points.lines())
    platform.prepare("r1", sql=points.SQL.replace("delay > 15", "delay > 999"))
    with pytest.raises(JobError, match="label late has one class only on the training side: 0 of"):
        platform.train("r1")
    assert "Contents" not in platform.s3.list_objects_v2(Bucket="jobs-models")


def test_training_should_name_a_column_that_the_features_lack(platform: Platform) -> None:
    platform.upload(points.lines())
    platform.prepare("r1")
    wider = points.settings('numbers = ["x"]', 'numbers = ["x", "size"]')
    with pytest.raises(JobError, match=r"jobs_points.features .* has no column size, which datasets/points/dataset"):
        platform.train("r1", wider)


def test_training_should_refuse_features_that_were_split_by_another_seed(platform: Platform) -> None:
    platform.upload(points.lines())
    platform.prepare("r1")
    with pytest.raises(JobError, match=r"was split with seed 0; training.seed of .*dataset.toml is 7: run the pipel"):
        platform.train("r1", points.settings("smoothing = 10.0", "smoothing = 10.0\nseed = 7"))


def test_training_should_refuse_features_whose_split_is_not_known(platform: Platform, spark: SparkSession) -> None:
    platform.upload(points.lines())
    whole = platform.prepare("r1")["location"]
    unhashed = f"{LAKE}points/unhashed/"
    spark.read.parquet(whole).drop("split_hash").write.parquet(unhashed)
    for location, told in (
        (unhashed, r"has no column split_hash, which .*: run the pipeline, whose prepare stage makes the table anew"),
        (whole, r"was split with an unknown seed; training.seed of .*dataset.toml is 0: run the pipeline"),
    ):
        table = {"Name": "features", "Parameters": {"classification": "parquet"}}
        table["StorageDescriptor"] = {"Location": location, "Columns": []}  # type: ignore[assignment]
        platform.glue.update_table(DatabaseName=DATABASE, TableInput=table)
        with pytest.raises(JobError, match=told):
            platform.train("r1")


def test_prepare_done_again_should_publish_the_seed_that_the_rows_were_split_by(platform: Platform) -> None:
    platform.upload(points.lines())
    platform.prepare("r1")
    seeded = points.settings("smoothing = 10.0", "smoothing = 10.0\nseed = 7")
    platform.prepare("r1", seeded)  # prepare.json is there: the features stay as they are
    with pytest.raises(JobError, match=r"was split with seed 0; training.seed of .*dataset.toml is 7: run the pipel"):
        platform.train("r1", seeded)


TEAMS = points.SQL.replace("SELECT id,", "SELECT id, id % 25 AS team,")


def grouped() -> Dataset:
    return points.settings("[training]", '[split]\nby = ["team"]\n[training]')


def test_rows_of_one_group_should_be_on_one_side_from_features_to_predictions(
    platform: Platform, spark: SparkSession
) -> None:
    platform.upload(points.lines())
    location = platform.prepare("r1", grouped(), sql=TEAMS)["location"]
    with pytest.raises(JobError, match=r"was split by team; .*dataset.toml says by the keys \(split.by\): run the pip"):
        platform.train("r1")
    platform.train("r1", grouped())
    told = platform.model("r1", "metrics.json")
    assert told["split_by"] == ["team"]
    assert told["interval"]["method"].endswith("as if those of one team had nothing in common: too narrow")
    assert "chosen by a hash of `team` (rows alike in it are all on one side)" in platform.s3.get_object(
        Bucket="jobs-models", Key="points/r1/model-card.md"
    )["Body"].read().decode("utf-8")
    platform.publish("r1")
    platform.predict("p1", settings=grouped())
    rows = spark.read.parquet(platform.location("predictions")).select("id", "side").collect()
    sides = {(row["id"] % 25, row["side"]) for row in rows}
    limit = 0.2 * 2**32
    plain = {team: int(hashlib.md5(f"0|{team}".encode()).hexdigest()[:8], 16) < limit for team in range(25)}  # noqa: S324
    assert sides == {(team, "test" if test else "train") for team, test in plain.items()}
    assert told["rows"]["test"] == sum(plain[row["id"] % 25] for row in rows) > 0
    assert "team" in spark.read.parquet(location).columns

    platform.prepare("r2", sql=points.SQL)
    platform.train("r2")
    assert "that one was split by team, 20% held out, seed 0" in json.dumps(platform.model("r2", "gate.json"))
    assert platform.model("r2", "metrics.json")["current"]["split"] == "by team, 20% held out, seed 0"


@pytest.mark.parametrize(
    ("team", "told"),
    [
        (
            "7",
            "All 390 rows have the same team, by which they are split (split.by of datasets/points/dataset.toml): one",
        ),
        (
            "IF(id < 3, NULL, id % 25)",
            "gives 3 rows with a NULL in team, by which rows are split (split.by of datasets/",
        ),
    ],
)
def test_rows_that_no_group_tells_apart_should_be_refused(platform: Platform, team: str, told: str) -> None:
    platform.upload(points.lines())
    with pytest.raises(JobError) as error:
        platform.prepare("r1", grouped(), sql=TEAMS.replace("id % 25", team))
    assert told in str(error.value)


def test_training_without_features_should_name_the_way_out(platform: Platform) -> None:
    with pytest.raises(JobError, match=r"no table jobs_points.features: run the pipeline"):
        platform.train("r1")


def test_prediction_without_a_published_model_should_name_the_way_out(platform: Platform) -> None:
    with pytest.raises(JobError, match=r"points/CURRENT.json does not exist.* Run the pipeline first: dml run points"):
        platform.predict("p1")


def test_prediction_should_need_the_features_but_not_the_label(
    platform: Platform, spark: SparkSession, s3_folder: Path
) -> None:
    platform.upload(points.lines())
    platform.prepare("r1")
    platform.train("r1")
    platform.publish("r1")

    def published(name: str, change: Callable[[Any], Any]) -> None:
        location = f"{LAKE}points/{name}/"
        change(spark.read.parquet(platform.location("features"))).write.parquet(location)
        table = {"Name": name, "Parameters": {"classification": "parquet"}}
        table["StorageDescriptor"] = {"Location": location, "Columns": []}  # type: ignore[assignment]
        platform.glue.create_table(DatabaseName=DATABASE, TableInput=table)

    published("unlabelled", lambda rows: rows.drop("late", "day"))
    assert platform.predict("p1", table="unlabelled")["rows"] == 390
    published("colourless", lambda rows: rows.drop("colour"))
    with pytest.raises(
        JobError, match=r"Table jobs_points.colourless .* has no column colour, which the model of run r1"
    ):
        platform.predict("p2", table="colourless")
    with pytest.raises(JobError, match=r"jobs_points.points .* is csv, not Parquet"):
        platform.predict("p3", table="points")
    # A table that a run has published is read as it says that it is; nothing of it may be missing in silence.
    features = s3_folder / platform.location("features").removeprefix("s3://")
    for file in features.glob("part-*"):
        file.write_bytes(b"no Parquet")
    with pytest.raises(JobError, match=r"The files of jobs_points.features .* cannot be read: .*run the pipeline"):
        platform.predict("p4")
    for file in features.glob("*part-*"):
        file.unlink()
    with pytest.raises(JobError, match=r"There are no files of jobs_points.features .* any more: run the pipeline"):
        platform.predict("p5")
    assert platform.location("predictions") == f"{LAKE}points/predictions/p1/"
