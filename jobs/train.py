"""An EMR step runs this: the features table becomes a candidate model as JSON, with metrics and a verdict."""

import argparse
import datetime as dt
import platform
from dataclasses import replace
from functools import partial
from typing import Any, Callable, Dict, Iterable, List, NamedTuple, Optional, Sequence, Tuple

import numpy as np
import pyarrow as pa
from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as F

from jobs.errors import JobError
from jobs.job import Job, arguments_of, begun, run
from jobs.judges import card, decision, drift, explanation, gate, metrics, profiling, shift
from jobs.learners import best, boosted, encoding, mllib, probability_tree, tune
from jobs.learners.survey import Mark, Survey
from jobs.models import forms, registry, tasks, tree, tree_sql
from jobs.tables import catalog, split, storage
from jobs.tables.arrays import Array, as_arrow, as_numpy
from jobs.tables.features import Features
from jobs.tables.session import Clock
from jobs.tables.settings import Dataset, Training

# How each learns, and how it chooses what the settings leave open.
FIT: Dict[str, Callable[..., Any]] = {
    "tree": probability_tree.fit,
    "mllib": mllib.fit,
    "forest": mllib.fit_forest,
    "boosted": boosted.fit,
}
CHOOSE = {"tree": tune.choose, "mllib": tune.choose, "boosted": boosted.choose, "best": best.choose}
TEST, HELD, LATER = "test", "held", "later"  # the marks of rows
GROWING = "training the model"
CHOOSING = {"boosted": "choosing the number of rounds", "best": "trying learners"}
EPOCH, DAY = dt.date(1970, 1, 1), 86_400 * 10**6  # microseconds


def build_parser() -> argparse.ArgumentParser:
    parser = arguments_of("train", __doc__, database="with the table `features`")
    parser.add_argument("--models", required=True, help="s3://BUCKET/ of the model registry")
    parser.add_argument("--lake", required=True, help="s3://BUCKET/ where failure.json is left")
    parser.add_argument("--revision", default="", help="the git revision that the run was started from, if known")
    return parser


def main(argv: Sequence[str]) -> None:
    clock = Clock()
    args, _ = build_parser().parse_known_args(argv)
    with begun("train", args, clock) as job:
        train(job, database=args.database, models=args.models, run_id=args.run_id, revision=args.revision)


class Trained(NamedTuple):
    """A model, and how it does on rows that it has not seen.

    `tree` is as in tree.json, but for the run, `training` what it was trained with. `totals`: of one tree what the
    training rows add up to in its nodes. `found`: what came of it (metrics.Tally, Table or Errors). `scored`: the test
    rows with what the model says of them, kept in memory or on disk; only for what needs single rows, which is a
    regression, and slices. `decision`: how the threshold was chosen ([decision]), None if it was not.
    `weights`: how much a row of each class counted, None if all count alike. `average`: what is known without a model,
    the training side's rows (or weights) by class, or its mean.
    """

    tree: forms.Told
    totals: Optional[Array]
    labels: Dict[str, encoding.Labels]
    scored: Optional[DataFrame]
    found: Any
    tuning: Optional[Dict[str, Any]]
    training: Training
    decision: Optional[Dict[str, Any]] = None
    weights: Optional[Dict[str, float]] = None
    average: Any = None

    @property
    def rows(self) -> Dict[str, int]:
        return {side: label.rows for side, label in self.labels.items()}

    def unpersist(self) -> None:
        if self.scored is not None:
            self.scored.unpersist()

    @property
    def test(self) -> Dict[str, Any]:
        return metrics.evaluate(self.found, forms.call_of(self.tree))

    @property
    def baseline(self) -> Dict[str, Any]:
        """The same metrics for always guessing what the training side is on average; called from the same threshold."""
        return metrics.evaluate(metrics.baseline(self.found, self.average), self.tree.get("threshold"))


def train(job: Job, *, database: str, models: str, run_id: str, revision: str) -> None:
    """Writes the candidate under the run id: model, tree.json, metrics.json, gate.json, ..., and manifest.json last.

    A run that has left its manifest is complete and is not trained again. Raises JobError.
    """
    spark, s3, settings, clock = job.spark, job.s3, job.settings, job.clock
    home = f"{models.rstrip('/')}/{settings.name}/{run_id}"
    if storage.read_json(s3, f"{home}/manifest.json") is not None:
        print(f"run {run_id} is trained already: {home}/", flush=True)
        return
    way_out = "run the pipeline, whose prepare stage publishes it."
    table = catalog.find_table(job.glue, database, "features", way_out)
    with catalog.reading(table):
        features = read_features(spark, table, settings)
        prepared = storage.read_json(s3, prepare_report_uri(table.location))
        if prepared is None:
            raise JobError(
                f"{prepare_report_uri(table.location)} is missing, which says how many rows were read and set "
                f"aside: {way_out}"
            )
        clock.begin("reading features")
        current = registry.current_model(s3, models, settings.name)
        before = storage.read_json(s3, f"{current.home}/profile.json") if current else None
        survey = Survey(features, settings, {**marks(features, settings), **later_than_cut(settings)})
        clock.lap("read", "looking at each column")
        profile = profiling.profile(features, survey, settings, reference=before)
        leaks = [leak["sentence"] for leak in profiling.leaks(profile, settings)]
        for sentence in leaks:
            print(f"leak alarm: {sentence}", flush=True)
        clock.lap("profile", GROWING)
        trained = fit_and_score(features, settings, clock, survey)
        told = {**trained.tree, "run_id": run_id}
        print(f"trained on {trained.rows[split.TRAIN]:,} rows, tested on {trained.rows[split.TEST]:,} rows", flush=True)
        clock.begin("training and testing out of time")
        later = out_of_time(features, settings, trained.training, survey, forms.call_of(trained.tree))
        clock.lap("out_of_time", "comparing with the current model")

        beside = current_on(features, s3, current, settings, trained, survey)
        decided = decision_report(settings, trained, later, beside)
        verdict = gate.judge(
            settings,
            trained.test,
            trained.baseline,
            current=beside,
            decided=decided,
            later=later,
            leaks=leaks,
            quarantined=prepared["quarantined"],
            raw_rows=sum(raw["rows"] for raw in prepared["tables"].values()),
            unknown_labels=prepared.get("unknown_labels"),
        )
        report = metrics_report(trained, later, beside, settings, run_id, revision, spark.version)
        report["decision"] = decided
        report["calls"] = decision.sentences(
            settings, trained.test, forms.call_of(trained.tree), trained.weights, decided
        )
        trained.unpersist()
        clock.lap("score", "explaining the model")
        scoreable = [current.tree] if current and can_score(current, features, settings) else []
        rows = explanation.sample(survey, survey.parts(test=True), [told, *scoreable], settings)
        report.update(explanation.explain(told, rows, settings), against_current=None)
        if beside and beside.metrics and not beside.split:
            difference = explanation.compare(told, scoreable[0], rows, settings)
            report["against_current"] = difference and {"run_id": beside.run_id, **difference}
        clock.lap("explain", "saving the model")

    files = []
    if trained.totals is not None:
        tree.save_as_mllib(spark, told, trained.totals, settings.classes, f"{home}/model")
        files.append("model/")
    files.append("model-card.md")
    moved = drift.drift(before, profile) if before else None
    if moved and before and scoreable:
        some = explanation.some(rows, explanation.MOST_ROWS)
        moved = shift.of_score(moved, before, profile, scoreable[0], some, settings.training.seed)
    clock.lap("save")
    report["seconds"] = clock.seconds
    documents = {
        "tree": told,
        "metrics": report,
        "figures": metrics.single(trained.test, later),
        "profile": profile,
        "drift": moved,
        "gate": verdict,
    }
    for name, document in documents.items():
        if document is not None:
            storage.write_json(s3, f"{home}/{name}.json", document)
    query = "" if tree_sql.reason_against(told) else tree_sql.sql(told, keys=settings.keys)
    if query:
        storage.write_text(s3, f"{home}/tree.sql", query)
        files.append("tree.sql")
    storage.write_text(s3, f"{home}/model-card.md", card.card(report, told, verdict, profile, moved, settings, query))
    manifest = {
        "dataset": settings.name,
        "run_id": run_id,
        "created": report["created"],
        "files": [
            *files,
            *(f"{name}.json" for name, document in documents.items() if document),
        ],
    }
    storage.write_json(s3, f"{home}/manifest.json", manifest)
    said = "passed" if verdict["passed"] else "refused: " + "; ".join(verdict["reasons"])
    main = report["main_metric"]
    of = f"out of time {later[main]:.4f}, held out" if later else ""
    print(f"{gate.NAMES[main]} {of} {report['test'][main]:.4f}; gate {said}", flush=True)


def read_features(spark: SparkSession, table: catalog.CatalogTable, settings: Dataset) -> Features:
    """The features table. Raises JobError if it has not what the settings declare, or was split otherwise."""
    rows, seed = catalog.read_parquet(spark, table), settings.training.seed
    anew = "run the pipeline, whose prepare stage makes the table anew."
    if lacking := [name for name in [*settings.columns, split.HASH] if name not in rows.columns]:
        raise JobError(f"{table} has no column {', '.join(lacking)}, which {settings.file} asks for: {anew}")
    if table.split_seed != str(seed):
        by = f"seed {table.split_seed}" if table.split_seed else "an unknown seed"
        raise JobError(f"{table} was split with {by}; training.seed of {settings.file} is {seed}: {anew}")
    if table.split_by != ",".join(settings.split.by):
        there, wanted = table.split_by or "its keys", ",".join(settings.split.by) or "the keys"
        raise JobError(f"{table} was split by {there}; {settings.file} says by {wanted} (split.by): {anew}")
    return Features(spark, table.location, settings, rows)


def marks(features: Features, settings: Dataset) -> Dict[str, Mark]:
    """How `Survey` tells apart what training uses for what. Reads the days of the rows, if a choice goes by them."""
    told, share = {TEST: _by_hash(split.is_test, settings.training.test_share)}, settings.validation_share
    if share and settings.time:
        start = validated_from(features, settings, share)
        told[HELD], told[LATER] = Mark(settings.time.column, partial(_from, start)), later_than_cut(settings)[LATER]
    elif share:
        told[HELD] = _by_hash(split.is_validation, share)
    return told


def _by_hash(holds: Callable[[Any, float], Any], share: float) -> Mark:
    return Mark(split.HASH, lambda column: holds(as_numpy(column), share))


def validated_from(features: Features, settings: Dataset, share: float) -> dt.date:
    """The first day of the part that tuning validates on: the fewest of the latest whole days before `time.cut` that
    hold `share` of the training side's rows there. What comes from the cut on has no part in the choice, nor what has
    no time: it is what the model is tested on out of time. Raises JobError if there is one day only.
    """
    assert settings.time is not None  # noqa: S101  # who asks knows it
    column, cut = settings.time.column, settings.time.cut
    test_share = settings.training.test_share

    def count(batches: Iterable[pa.RecordBatch]) -> Iterable[Dict[int, int]]:
        told: Dict[int, int] = {}
        for batch in batches:
            wanted = ~split.is_test(as_numpy(batch.column(split.HASH)), test_share)
            days = _microseconds(batch.column(column), otherwise=cut) // DAY
            for day, rows in zip(*np.unique(days[wanted], return_counts=True)):  # noqa: B905  # not in Python 3.9
                told[int(day)] = told.get(int(day), 0) + int(rows)
        yield told

    counted: Dict[int, int] = {}
    for told in features.batches([split.HASH, column]).mapPartitions(count).collect():
        for day, rows in told.items():
            if day < (cut - EPOCH).days:
                counted[day] = counted.get(day, 0) + rows
    days = sorted(counted)
    if len(days) < 2:
        what, fixed = {
            "boosted": ("the number of rounds is", "set training.rounds"),
            "best": ("the learner is", "name training.learner and set what it needs"),
        }.get(settings.training.learner, ("depth and leaf size are", "set training.depth and training.min_leaf"))
        leave_out = "[tune]"
        if settings.decision:
            what = "the threshold is" if settings.tuning is None else f"the threshold is, and {what},"
            fixed, leave_out = ("" if settings.tuning is None else f"{fixed} ", "[decision] and [tune]")
        raise JobError(
            f"The training side has rows of {len(days)} {'day' if len(days) == 1 else 'days'} before time.cut ({cut}): "
            f"{what} chosen on the latest days before it, by learning from those before them. Move time.cut to a later "
            f"day, or {fixed} in {settings.file} and leave out {leave_out}."
        )
    rows_since = np.cumsum([counted[day] for day in reversed(days)])[::-1]
    place = int(np.flatnonzero(rows_since >= share * rows_since[0])[-1])
    return EPOCH + dt.timedelta(days=days[max(place, 1)])


def _from(start: dt.date, column: pa.Array) -> Array:
    """Of which rows the time is on this day or later; a time that is missing counts as such."""
    return _microseconds(column, otherwise=start) >= (start - EPOCH).days * DAY


def _microseconds(column: pa.Array, otherwise: dt.date) -> Array:
    """Dates or timestamps since 1970; one that is missing is the first of the day `otherwise`."""
    known = column.cast(pa.timestamp("us")).cast(pa.int64())
    return as_numpy(known.fill_null(as_arrow([(otherwise - EPOCH).days * DAY], np.int64)[0]))


def later_than_cut(settings: Dataset) -> Dict[str, Mark]:
    """The mark of the rows that the out-of-time check is tested on, if the dataset names a time column."""
    if settings.time is None:
        return {}
    return {LATER: Mark(settings.time.column, partial(_from, settings.time.cut))}


def fit_and_score(
    features: Features, settings: Dataset, clock: Optional[Clock] = None, survey: Optional[Survey] = None
) -> Trained:
    """Learns encodings and model from the rows on the side `train`, and scores those on the side `test`.

    Columns in: `split_hash`, keys, label, slices and features. What [training] leaves open, a part of the
    training side decides. `survey`: of these rows with `marks`, if there is one already. Raises JobError if
    a side has no rows, or one label only.
    """
    clock = clock or Clock()
    own = survey or Survey(features, settings, marks(features, settings))
    clock.lap("read")
    test = F.col(split.ROW_SIDE) == split.TEST
    names = ("the training side", "the test side")
    return _fit_and_score(features, own, own.parts(test=False), own.parts(test=True), test, settings, clock, names)


def _fit_and_score(
    features: Features,
    survey: Survey,
    train: Sequence[int],
    test: Sequence[int],
    tested: Column,
    settings: Dataset,
    clock: Clock,
    names: Tuple[str, str],
    otherwise: str = "",
    call: forms.Call = None,
) -> Trained:
    """`train`, `test`: the parts of the survey to learn from and to test on; `tested`: the latter among all rows.

    `names`: of both, for errors; `otherwise`: the way out of them; `call`: how the model calls rows, if that is known.
    """
    classes, training = survey.classes, settings.training
    labels = {side: survey.labels(parts) for side, parts in ((split.TRAIN, train), (split.TEST, test))}
    for side, name in zip((split.TRAIN, split.TEST), names):  # noqa: B905  # not in Python 3.9
        encoding.require_variety(labels[side], settings, name, otherwise)
    tuning, decided, asked = None, None, settings.tuning
    fit_on, validated = _validation(survey, train, settings) if settings.validation_share else ([], [])
    if asked:
        clock.begin(CHOOSING.get(training.learner, "choosing depth and leaf size"))
        tuning = {
            **CHOOSE[training.learner](survey, fit_on, validated, asked),
            "by": "time" if settings.time else "hash",
        }
        training = replace(training, **tuning["chosen"])
        clock.lap("tune", GROWING)
    fitted = FIT[training.learner](survey, train, training)
    model = _model(fitted, settings, training)
    clock.lap("fit", "choosing the threshold" if settings.decision else "testing the model")
    if settings.decision:
        decided = _decided(survey, fit_on, validated, settings, training)
        call = decided["threshold"]
        model["decision"] = settings.decision.asked
        clock.lap("decide", "testing the model")
    weights, average = survey.weights(train), survey.average(train)
    model = forms.decided(model, _weighed(weights) if call is None else call)
    scored = None
    if not classes or settings.slices:
        kept = dict.fromkeys([*settings.keys, *settings.slices, settings.label.column])
        scored = tree.score(features.rows.where(tested), model, [F.col(name) for name in kept])
        scored = scored if classes else scored.persist()  # a regression's rows are looked at several times
    if classes:
        found = _of_classes(survey, test, fitted, model)
    else:
        assert scored is not None  # noqa: S101  # see above
        found = _found(scored, settings, average)
    clock.lap("score")
    totals = fitted.totals if forms.is_one(model) else None
    weighed = None if weights is None else dict(zip(settings.class_names, weights.tolist()))  # noqa: B905
    return Trained(model, totals, labels, scored, found, tuning, training, decided, weighed, average)


def _validation(survey: Survey, train: Sequence[int], settings: Dataset) -> Tuple[List[int], List[int]]:
    """Of the parts to train on those to learn from, and the validation part, while something is chosen by it.

    By time, what is later than the cut has no part in the choice.
    """
    known = [part for part in train if not settings.time or part in survey.parts(later=False)]
    held = survey.parts(held=True)
    return [part for part in known if part not in held], [part for part in known if part in held]


def _model(fitted: Any, settings: Dataset, training: Training) -> forms.Told:
    """tree.json of what a learner has learned, but for the run."""
    return {
        "format": fitted.told["format"],
        "dataset": settings.name,
        "task": settings.task,
        "label": settings.label.column,
        "positive": settings.label.positive,
        "classes": list(settings.label.classes),
        "unit": settings.label.unit,
        "settings": training.used,
        "features": fitted.features,
        **fitted.told,
    }


def _weighed(weights: Optional[Array]) -> forms.Call:
    """How rows are called if their classes are weighted so: as a model of the weighted rows would call them. Of binary
    ones from the probability on where both classes weigh as much (Elkan 2001, section 2)."""
    if weights is None:
        return None
    return float(weights[0] / weights.sum()) if len(weights) == 2 else [float(weight) for weight in weights]


def _of_classes(survey: Survey, parts: Sequence[int], fitted: Any, model: forms.Told) -> Any:
    """What came of the rows of these parts: a Tally or Table."""
    if forms.is_one(model):
        return metrics.of_leaves(model["nodes"], fitted.leaf_counts(survey, parts))
    return metrics.of_answers(*survey.answers(parts, tree.Scorer(model, 0)))


def _decided(
    survey: Survey, fit_on: Sequence[int], validated: Sequence[int], settings: Dataset, training: Training
) -> Dict[str, Any]:
    """The threshold by the validation part, of a model that has learned from the others alone: `threshold`, `reached`,
    and the part's figures and curve. Raises JobError if a part has too few rows, or one class only.
    """
    asked = settings.decision
    assert asked is not None  # noqa: S101  # who calls it has asked
    other = "move time.cut to a later day" if settings.time else "set another tune.validation_share"
    way_out = f"Give more rows, {other}, or leave out [decision] in {settings.file}."
    encoding.require_parts(survey.labels(fit_on), survey.labels(validated), settings, "the threshold", way_out)
    fitted = FIT[training.learner](survey, fit_on, training)
    found = _of_classes(survey, validated, fitted, _model(fitted, settings, training))
    threshold, reached = decision.choose(found, asked)
    print(f"threshold by [decision] on {found.total:,} rows of the validation part: {threshold:.4g}", flush=True)
    return {
        "threshold": threshold,
        "reached": reached,
        "by": "time" if settings.time else "hash",
        "validation": decision.figures(found, threshold, asked),
        "validation_curve": decision.curve(found),
    }


def _found(scored: DataFrame, settings: Dataset, centre: float) -> Any:
    return metrics.outcomes(
        scored, settings.task, tasks.label_column(settings.label, settings.task), settings.keys, centre
    )


def out_of_time(
    features: Features,
    settings: Dataset,
    training: Training,
    survey: Optional[Survey] = None,
    call: forms.Call = None,
) -> Optional[Dict[str, Any]]:
    """The same training on what came before the dataset's cut, tested on what came after: what tomorrow may look like.

    None if the dataset names no time column. `training`: the settings that the model itself was trained with. `survey`:
    of these rows with `later_than_cut`, if there is one already. `call`: the model's own, chosen without the later
    rows; with [decision] `calls` tells what they come to.
    """
    if settings.time is None:
        return None
    own = survey or Survey(features, settings, later_than_cut(settings))
    as_trained = replace(settings, training=training, tune=None, decision=None, slices=())
    when = F.col(settings.time.column)
    later = ~F.coalesce(when < F.lit(settings.time.cut).cast("date"), F.lit(False))
    cut = settings.time.cut
    names = (f"the rows before time.cut ({cut})", f"the rows from time.cut ({cut}) on")
    way_out = f"Move time.cut in {settings.file} so that both have rows of each kind, or leave out [time]."
    before, after = own.parts(later=False), own.parts(later=True)
    trained = _fit_and_score(features, own, before, after, later, as_trained, Clock(), names, way_out, call)
    trained.unpersist()
    spans = months(features, settings.time.column, cut)
    told = {"trained_on": spans[False], "tested_on": spans[True], "trained_rows": trained.rows[split.TRAIN]}
    if settings.decision and isinstance(call, float):
        told["calls"] = decision.figures(trained.found, call, settings.decision)
    return {**told, **trained.test, "baseline": trained.baseline}


def months(features: Features, column: str, cut: dt.date) -> Dict[bool, str]:
    """The first and the last month of the rows before the cut (False), and of the others: '2013-01 to 2013-10'.

    Rows without a time count as later, and have no month. Read by the workers, as all else that training reads: a query
    of Spark's own would have its Java learn to read Parquet first.
    """

    def ends(batches: Iterable[pa.RecordBatch]) -> Iterable[Tuple[bool, int, int]]:
        found: Dict[bool, List[int]] = {}
        for batch in batches:
            time = _microseconds(batch.column(column).drop_null(), otherwise=cut)
            later = time >= (cut - EPOCH).days * DAY
            for side in (False, True):
                if len(own := time[later == side]):
                    found.setdefault(side, []).extend((int(own.min()), int(own.max())))
        yield from ((side, min(times), max(times)) for side, times in found.items())

    seen = features.batches([column]).mapPartitions(ends).collect()
    told = {False: "", True: ""}
    for side in told:
        if times := [time for later, *both in seen if later == side for time in both]:
            first, last = (np.datetime64(time, "us").astype("M8[M]") for time in (min(times), max(times)))
            told[side] = f"{first} to {last}"
    return told


def current_on(
    features: Features,
    s3: Any,
    current: Optional[registry.Registered],
    settings: Dataset,
    candidate: Trained,
    survey: Survey,
) -> Optional[gate.Current]:
    """The current model, scored on the very rows that the candidate was tested on. None if there is none yet."""
    if current is None:
        return None
    scores, decided = None, None
    same = current.task == settings.task and current.tree.get("classes", []) == list(settings.label.classes)
    if same and can_score(current, features, settings):
        if settings.task == "binary" or (settings.classes and not forms.is_one(current.tree)):
            answers = survey.answers(survey.parts(test=True), tree.Scorer(current.tree, 0))
            found = metrics.of_answers(*answers)
        else:
            found = _of_current(features, current, settings, candidate.labels[split.TRAIN].mean)
        scores = metrics.evaluate(found, forms.call_of(current.tree))
        if settings.decision and current.tree.get("decision") == settings.decision.asked:
            decided = decision.figures(found, forms.threshold(current.tree), settings.decision)
    before = storage.read_json(s3, f"{current.home}/metrics.json") or {}
    change = gate.feature_change(current.task, current.kinds, settings)
    later = before.get("out_of_time") if same else None
    calls_later = (before.get("decision") or {}).get("out_of_time") if decided else None
    weights = gate.weighted_otherwise(current.tree["settings"].get("weights", ""), settings)
    return gate.Current(
        current.run_id, scores, change, later, split_otherwise(before, settings), decided, calls_later, weights
    )


def decision_report(
    settings: Dataset, trained: Trained, later: Optional[Dict[str, Any]], current: Optional[gate.Current]
) -> Optional[Dict[str, Any]]:
    """metrics.json's `decision`, None without [decision]. `later`: as of `out_of_time`."""
    if settings.decision is None or trained.decision is None:
        return None
    beside = current.decided if current else None
    return decision.told(settings.decision, trained.decision, trained.found, (later or {}).get("calls"), beside)


def can_score(current: registry.Registered, features: Features, settings: Dataset) -> bool:
    """Whether the table has what the current model asks for, as what it was then."""
    return set(current.names) <= set(features.rows.columns) and not gate.changed_kinds(current.kinds, settings)


def split_otherwise(report: Dict[str, Any], settings: Dataset) -> str:
    """How the rows of a run were split, by its metrics.json, if it may have learned from rows that are tested on now:
    by another hash, or with fewer of the same held out. '' if it has not.
    """
    now = settings.training
    then, by = report.get("settings") or now.used, tuple(report.get("split_by", ()))
    if (by, then["seed"]) == (settings.split.by, now.seed) and then["test_share"] >= now.test_share:
        return ""
    return f"by {', '.join(by) or 'the keys'}, {then['test_share']:.0%} held out, seed {then['seed']}"


def _of_current(features: Features, current: registry.Registered, settings: Dataset, centre: float) -> Any:
    test = features.rows.where(F.col(split.ROW_SIDE) == split.TEST)
    kept = [F.col(name) for name in dict.fromkeys([*settings.keys, settings.label.column])]
    return _found(current.score(test, kept), settings, centre)


def _beside(current: Optional[gate.Current]) -> Optional[Dict[str, Any]]:
    """metrics.json's `current`; `split` says how that one was, if it has learned from some of the rows."""
    if not current or not current.metrics:
        return None
    return {"run_id": current.run_id, **({"split": current.split} if current.split else {}), **current.metrics}


def prepare_report_uri(features: str) -> str:
    """Where prepare.py has left its counts, from where it has put the features: LAKE/DATASET/features/RUN/."""
    home, _, run_id = features.rstrip("/").rpartition("/features/")
    return f"{home}/runs/{run_id}/prepare.json"


def metrics_report(
    trained: Trained,
    later: Optional[Dict[str, Any]],
    current: Optional[gate.Current],
    settings: Dataset,
    run_id: str,
    revision: str,
    spark_version: str,
) -> Dict[str, Any]:
    """metrics.json: all figures of one run, but for its seconds."""
    task, found, label = settings.task, trained.found, tasks.label_column(settings.label, settings.task)
    train, call = trained.labels[split.TRAIN], forms.call_of(trained.tree)
    guess: Any = trained.average
    guess = guess if task == "regression" else [own / sum(guess) for own in guess]
    told: Dict[str, Any] = {
        "dataset": settings.name,
        "run_id": run_id,
        "revision": revision,
        "created": dt.datetime.now(dt.timezone.utc).isoformat(timespec="seconds"),
        "task": task,
        "main_metric": tasks.MAIN[task],
        "versions": {"spark": spark_version, "python": platform.python_version(), "numpy": np.__version__},
        "rows": trained.rows,
        "label": {side: labels.told(task) for side, labels in trained.labels.items()},
        "test": trained.test,
        "baseline": trained.baseline,
        "out_of_time": later,
        "current": _beside(current),
        "interval": metrics.interval(found, task, settings.training.seed, settings.split.by),
        "slices": {}
        if trained.scored is None
        else metrics.slices(
            trained.scored, task, label, settings.slices, guess[1] if task == "binary" else guess, call
        ),
        "importances": forms.importances(trained.tree),
        "tree": forms.shape(trained.tree),
        "threshold": forms.threshold(trained.tree),
        "class_weights": trained.weights,
        "settings": trained.tree["settings"],
        "split_by": list(settings.split.by),
        "tuning": trained.tuning,
    }
    if task == "binary":
        told["positives"] = {side: labels.counts[1] for side, labels in trained.labels.items()}
        told["base_rate"] = train.counts[1] / train.rows
        told.update(roc=metrics.roc(found), lift=metrics.lift(found), calibration=metrics.calibration(found))
    elif task == "multiclass":
        told["calibration"] = metrics.calibration(metrics.confidence(found, call))
    else:
        assert trained.scored is not None  # noqa: S101  # a regression has them
        told["calibration"] = metrics.value_calibration(trained.scored, label)
    return told


if __name__ == "__main__":
    run("train", main)
