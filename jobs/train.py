"""An EMR step runs this: the features table becomes a candidate model with metrics, its tree as JSON, and a verdict."""

import argparse
import datetime as dt
import platform
import sys
import time
from typing import Any, Dict, List, NamedTuple, Optional, Sequence

import boto3
import numpy as np
from pyspark.ml.regression import DecisionTreeRegressionModel
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from jobs import catalog, encoding, gate, metrics, registry, split, storage, tree
from jobs.errors import JobError
from jobs.session import spark_session
from jobs.settings import Settings, file_of, load


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="train.py", description=__doc__, allow_abbrev=False)
    parser.add_argument("--dataset", required=True, help="the dataset's name")
    parser.add_argument("--database", required=True, help="the Glue database with the table `features`")
    parser.add_argument("--models", required=True, help="s3://BUCKET/ of the model registry")
    parser.add_argument("--run-id", required=True, help="the name of this run, part of every path it writes")
    parser.add_argument("--revision", default="", help="the git revision that the run was started from, if known")
    parser.add_argument("--region", required=True, help="the AWS region of catalog and buckets")
    return parser


def main(argv: Sequence[str]) -> None:
    clock = Clock()
    args, _ = build_parser().parse_known_args(argv)
    settings = load(args.dataset)
    glue, s3 = (boto3.client(service, region_name=args.region) for service in ("glue", "s3"))
    spark = spark_session("train", args.dataset)
    clock.lap("session")
    try:
        train(
            spark,
            glue,
            s3,
            settings,
            database=args.database,
            models=args.models,
            run_id=args.run_id,
            revision=args.revision,
            clock=clock,
        )
    finally:
        spark.stop()


class Clock:
    """Seconds of each phase, for metrics.json."""

    def __init__(self) -> None:
        self._started = self._last = time.monotonic()
        self.seconds: Dict[str, float] = {}

    def lap(self, phase: str) -> None:
        now = time.monotonic()
        self.seconds[phase] = round(self.seconds.get(phase, 0) + now - self._last, 3)
        self.seconds["total"] = round(now - self._started, 3)
        self._last = now


class Trained(NamedTuple):
    """A tree, and how it does on the rows that it has not seen."""

    model: DecisionTreeRegressionModel
    features: List[encoding.Feature]
    rows: Dict[str, int]
    positives: Dict[str, int]
    counts: metrics.Tally

    @property
    def base_rate(self) -> float:
        return self.positives[split.TRAIN] / self.rows[split.TRAIN]

    @property
    def test(self) -> Dict[str, Any]:
        return metrics.evaluate(self.counts)

    @property
    def baseline(self) -> Dict[str, Any]:
        """The same metrics for always guessing the training side's base rate."""
        return metrics.evaluate(metrics.constant(self.base_rate, self.counts.total, self.counts.total_positives))


def train(
    spark: SparkSession,
    glue: Any,
    s3: Any,
    settings: Settings,
    *,
    database: str,
    models: str,
    run_id: str,
    revision: str,
    clock: Clock,
) -> None:
    """Writes the candidate under the run id: model, tree.json, metrics.json, gate.json, and manifest.json last.

    A run that has left its manifest is complete and is not trained again. Raises JobError.
    """
    home = f"{models.rstrip('/')}/{settings['name']}/{run_id}"
    if storage.read_json(s3, f"{home}/manifest.json") is not None:
        print(f"run {run_id} is trained already: {home}/", flush=True)
        return
    way_out = "run the pipeline, whose prepare stage publishes it."
    rows = read_features(spark, catalog.find_table(glue, database, "features", way_out), settings)
    trained = fit_and_score(rows.withColumn(split.SIDE, side_of(settings)), settings, clock)
    print(f"trained on {trained.rows[split.TRAIN]:,} rows, tested on {trained.rows[split.TEST]:,} rows", flush=True)

    later = out_of_time(rows, settings)
    clock.lap("out_of_time")
    verdict = compare(rows, s3, models, settings, trained)
    clock.lap("score")

    trained.model.write().overwrite().save(f"{home}/model")
    nodes = tree.describe(tree.saved_nodes(spark, f"{home}/model"), trained.features)
    storage.write_json(s3, f"{home}/tree.json", tree_report(nodes, trained, settings, run_id))
    clock.lap("save")
    report = metrics_report(nodes, trained, later, settings, run_id, revision, spark.version, clock)
    storage.write_json(s3, f"{home}/metrics.json", report)
    storage.write_json(s3, f"{home}/gate.json", verdict)
    manifest = {
        "dataset": settings["name"],
        "run_id": run_id,
        "created": report["created"],
        "files": ["model/", "tree.json", "metrics.json", "gate.json"],
    }
    storage.write_json(s3, f"{home}/manifest.json", manifest)
    said = "passed" if verdict["passed"] else "refused: " + "; ".join(verdict["reasons"])
    print(f"AUC {report['test']['auc']:.4f}, log loss {report['test']['log_loss']:.4f}; gate {said}", flush=True)


def read_features(spark: SparkSession, table: catalog.CatalogTable, settings: Settings) -> DataFrame:
    """The columns that training needs. Raises JobError naming those that the table lacks."""
    rows = catalog.read_parquet(spark, table)
    time_column = [settings["time"]["column"]] if settings["time"] else []
    features = [*settings["features"]["numbers"], *settings["features"]["categories"]]
    needed = list(dict.fromkeys([*settings["keys"], *time_column, settings["label"]["column"], *features]))
    if lacking := [name for name in needed if name not in rows.columns]:
        raise JobError(
            f"{table} has no column {', '.join(lacking)}, which {file_of(settings)} declares: run the pipeline, "
            "whose prepare stage makes the table anew."
        )
    return rows.select(*needed)


def side_of(settings: Settings) -> Any:
    """The side of the split that a row of this dataset is on."""
    return split.side(settings["keys"], settings["training"]["test_share"], settings["training"]["seed"])


def fit_and_score(rows: DataFrame, settings: Settings, clock: Optional[Clock] = None) -> Trained:
    """Learns encodings and tree from the rows on the side `train`, and scores those on the side `test`.

    Columns in: `side`, label and features. Raises JobError if a side has one class of the label only.
    """
    clock = clock or Clock()
    label, training = settings["label"]["column"], settings["training"]
    features = encoding.learn(rows.where(F.col(split.SIDE) == split.TRAIN), settings)
    clock.lap("read")
    # One pass makes the vectors of both sides; without the cache each level of the tree would make them again.
    encoded = encoding.encode(rows, features).select(split.SIDE, label, encoding.VECTOR).persist()
    sums = encoded.groupBy(split.SIDE).agg(F.count("*").alias("rows"), F.sum(label).alias("positives")).collect()
    n, k = ({row[split.SIDE]: int(row[what]) for row in sums} for what in ("rows", "positives"))
    encoding.require_two_classes(n.get(split.TEST, 0), k.get(split.TEST, 0), settings, "the test side")
    clock.lap("encode")
    model = tree.fit(encoded.where(F.col(split.SIDE) == split.TRAIN), label, training)
    clock.lap("fit")
    counts = metrics.tally(model.transform(encoded.where(F.col(split.SIDE) == split.TEST)), label)
    encoded.unpersist()
    clock.lap("score")
    return Trained(model, features, n, k, counts)


def out_of_time(rows: DataFrame, settings: Settings) -> Optional[Dict[str, Any]]:
    """The same training on what came before the dataset's cut, tested on what came after: what tomorrow may look like.

    None if the dataset names no time column.
    """
    if settings["time"] is None:
        return None
    when, cut = F.col(settings["time"]["column"]), F.lit(settings["time"]["cut"]).cast("date")
    sided = rows.withColumn(split.SIDE, F.when(when < cut, split.TRAIN).otherwise(split.TEST))
    trained = fit_and_score(sided, settings)
    months = sided.groupBy(split.SIDE).agg(
        F.concat_ws(" to ", F.date_format(F.min(when), "yyyy-MM"), F.date_format(F.max(when), "yyyy-MM"))
    )
    spans = dict(row[:] for row in months.collect())
    told = {"trained_on": spans[split.TRAIN], "tested_on": spans[split.TEST], "trained_rows": trained.rows[split.TRAIN]}
    return {**told, **trained.test, "baseline": trained.baseline}


def compare(rows: DataFrame, s3: Any, models: str, settings: Settings, candidate: Trained) -> Dict[str, Any]:
    """The gate's verdict; the current model is scored on the very rows that the candidate was tested on."""
    current = registry.current_model(s3, models, settings["name"])
    change, scores = "", None
    if current is not None:
        change = gate.feature_change(current.names, settings)
        if set(current.names) <= set(rows.columns):
            test = rows.where(side_of(settings) == split.TEST)
            scores = metrics.evaluate(metrics.tally(current.score(test), settings["label"]["column"]))
    run_id = current.run_id if current else None
    return gate.judge(candidate.test, candidate.baseline, settings["gate"], run_id, scores, change)


def tree_report(nodes: List[tree.Node], trained: Trained, settings: Settings, run_id: str) -> Dict[str, Any]:
    """tree.json: encodings and nodes, enough to score a row without Spark."""
    return {
        "dataset": settings["name"],
        "run_id": run_id,
        "task": settings["task"],
        "label": settings["label"]["column"],
        "positive": settings["label"]["positive"],
        "features": trained.features,
        "nodes": nodes,
    }


def metrics_report(
    nodes: List[tree.Node],
    trained: Trained,
    later: Optional[Dict[str, Any]],
    settings: Settings,
    run_id: str,
    revision: str,
    spark_version: str,
    clock: Clock,
) -> Dict[str, Any]:
    """metrics.json: all figures of one run."""
    weights = trained.model.featureImportances.toArray().tolist()
    names = [feature["name"] for feature in trained.features]
    importances = sorted(zip(weights, names), reverse=True)  # noqa: B905  # not in Python 3.9
    return {
        "dataset": settings["name"],
        "run_id": run_id,
        "revision": revision,
        "created": dt.datetime.now(dt.timezone.utc).isoformat(timespec="seconds"),
        "versions": {"spark": spark_version, "python": platform.python_version(), "numpy": np.__version__},
        "rows": trained.rows,
        "positives": trained.positives,
        "base_rate": trained.base_rate,
        "test": trained.test,
        "baseline": trained.baseline,
        "out_of_time": later,
        "roc": metrics.roc(trained.counts),
        "calibration": metrics.calibration(trained.counts),
        "importances": [{"feature": name, "importance": weight} for weight, name in importances],
        "tree": {
            "depth": max(node["depth"] for node in nodes),
            "leaves": sum("feature" not in node for node in nodes),
            "nodes": len(nodes),
        },
        "threshold": metrics.THRESHOLD,
        "settings": settings["training"],
        "seconds": clock.seconds,
    }


if __name__ == "__main__":
    main(sys.argv[1:])
