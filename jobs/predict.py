"""An EMR step runs this: the current model scores a table of the catalog, of any size, and publishes `predictions`."""

import argparse
from typing import Any, Dict, List, Sequence

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from jobs.errors import JobError
from jobs.job import Job, arguments_of, begun, run
from jobs.models import forms, reasons, registry
from jobs.models.tasks import PREDICTION, PROBABILITIES, PROBABILITY
from jobs.tables import catalog, split, storage
from jobs.tables.observed import Seen, plan_of
from jobs.tables.session import Clock
from jobs.tables.settings import Dataset, reason_columns


def build_parser() -> argparse.ArgumentParser:
    parser = arguments_of("predict", __doc__, database="with the table to score, where `predictions` is published")
    parser.add_argument("--models", required=True, help="s3://BUCKET/ of the model registry")
    parser.add_argument("--lake", required=True, help="s3://BUCKET/ that the predictions are written to")
    parser.add_argument(
        "--table",
        required=True,
        help="the catalog table to score: it has the keys and the features, the label is not needed",
    )
    return parser


def main(argv: Sequence[str]) -> None:
    clock = Clock()
    args, _ = build_parser().parse_known_args(argv)
    with begun("predict", args, clock) as job:
        predict(job, database=args.database, models=args.models, lake=args.lake, table=args.table, run_id=args.run_id)


def predict(job: Job, *, database: str, models: str, lake: str, table: str, run_id: str) -> storage.Json:
    """Writes the predictions under the run id, leaves predict.json, and publishes the table last.

    CURRENT.json is read once, so that all rows are scored by one model. A run that has left its predict.json is
    complete: done again, it only publishes again. Raises JobError.
    """
    settings = job.settings
    home = f"{lake.rstrip('/')}/{settings.name}"
    report_uri = f"{home}/runs/{run_id}/predict.json"
    report, clock = storage.read_json(job.s3, report_uri), job.clock
    if report is None:
        model = registry.current_model(job.s3, models, settings.name)
        if model is None:
            raise JobError(
                f"{models.rstrip('/')}/{settings.name}/CURRENT.json does not exist: no model is published yet. "
                f"Run the pipeline first: dml run {settings.name}"
            )
        way_out = "name a table of this database, or run the pipeline first."
        source = catalog.find_table(job.glue, database, table, way_out)
        location = f"{home}/predictions/{run_id}/"
        clock.begin("scoring rows and writing predictions")
        with catalog.reading(source):
            predictions = score(catalog.read_parquet(job.spark, source), model, settings, str(source))
            seen, classes = Seen(), classes_of(model)
            written = seen.of(predictions, rows=F.count("*"), **counters(classes))
            written.write.mode("overwrite").parquet(location)
        told = seen.told(plan_of(written))
        clock.lap("score")
        report = {
            "dataset": settings.name,
            "run_id": run_id,
            "table": table,
            "rows": told.get("rows", 0),
            "predicted": {str(name): told[f"class_{i}"] for i, name in enumerate(classes) if told.get(f"class_{i}")},
            "location": location,
            "columns": dict(predictions.dtypes),
            "model_run": model.run_id,
            "seconds": clock.seconds,
        }
        storage.write_json(job.s3, report_uri, report)
    columns = list(report["columns"].items())
    catalog.publish(job.glue, database, "predictions", report["location"], columns, {"run_id": run_id})
    print(f"predicted {report['rows']:,} rows with the model of run {report['model_run']}", flush=True)
    return report


def score(rows: DataFrame, model: registry.Registered, settings: Dataset, name: str) -> DataFrame:
    """Keys, what is carried, what the model says, its reasons if the settings ask for them, side (of the split) and
    model_run, a row for each row.

    Binary: probability, prediction (1 from the model's threshold on). Multiclass: probability, prediction (the first
    of the most likely classes), probabilities (of all, in order). Regression: prediction.

    Raises JobError naming the columns that are missing, and for a model that gives no reasons where they are asked for.
    """
    if settings.prediction.reasons and (against := reasons.reason_against(model.tree)):
        raise JobError(
            f"The model of run {model.run_id} gives no reasons of what it predicts: {against}. Train it again (dml "
            f"run {settings.name}), or leave prediction.reasons out of {settings.file}."
        )
    needed = list(dict.fromkeys([*settings.told_by, *settings.split.by, *model.names]))
    if lacking := [column for column in needed if column not in rows.columns]:
        raise JobError(
            f"Table {name} has no column {', '.join(lacking)}, which the model of run {model.run_id} needs as key, "
            f"feature, what is carried or split by ({settings.file}): score a table that was made by this dataset's "
            "prepare.sql."
        )
    training = settings.training
    side = split.side(training.test_share, split.hashed(settings.split_by, training.seed))
    kept, count = [*[F.col(name) for name in settings.told_by], side.alias(split.SIDE)], settings.prediction.reasons
    scored = model.score(rows.select(*needed), kept, count)
    told = [*said(model), *map(F.col, reason_columns(count))]
    return scored.select(*settings.told_by, *told, split.SIDE, F.lit(model.run_id).alias("model_run"))


def classes_of(model: registry.Registered) -> List[Any]:
    """What the column `prediction` can hold; nothing if it is a number."""
    classes: List[Any] = {"binary": [0, 1], "multiclass": model.tree["classes"], "regression": []}[model.task]
    return classes


def counters(classes: Sequence[Any]) -> Dict[str, Column]:
    """How many rows are predicted to be of each class, by its place: class_0, class_1, ..."""
    return {f"class_{i}": F.count(F.when(F.col(PREDICTION) == name, 1)) for i, name in enumerate(classes)}


def said(model: registry.Registered) -> List[Column]:
    """What a model of this kind leaves in `predictions`, out of what `tree.score` gives."""
    if model.task == "binary":
        return [F.col(PROBABILITY), (F.col(PROBABILITY) >= forms.threshold(model.tree)).cast("int").alias(PREDICTION)]
    if model.task == "regression":
        return [F.col(PREDICTION)]
    names, weights = model.tree["classes"], model.tree.get("weights")
    classes, weighed = F.array(*[F.lit(name) for name in names]), PROBABILITIES
    if weights:
        products = [f"{PROBABILITIES}[{i}] * {float(weight)!r}D" for i, weight in enumerate(weights)]
        weighed = f"array({', '.join(products)})"
    first = F.expr(f"int(array_position({weighed}, array_max({weighed}))) - 1")
    named, of_it = F.get(classes, first), F.get(F.col(PROBABILITIES), first)
    return [of_it.alias(PROBABILITY), named.alias(PREDICTION), F.col(PROBABILITIES)]


if __name__ == "__main__":
    run("predict", main)
