"""[training] weights: classes that count more while they are learned from and called, and only there."""

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as examples
from hypothesis import strategies as st
from pyspark.sql import SparkSession
from pyspark.sql import functions as F

from jobs import predict, prepare, train
from jobs.errors import JobError
from jobs.judges import gate
from jobs.learners import encoding, grow, mllib, tune
from jobs.learners.survey import Survey
from jobs.models import forms, registry
from jobs.models.tasks import PREDICTION
from jobs.tables import settings as declared
from tests.jobs import points
from tests.jobs.conftest import Written

AS_TREE = "depth = 3\nmin_leaf = 5\n"
BINS = [6, 4, 9]


def test_a_class_that_counts_three_times_should_be_split_as_if_it_had_three_times_the_rows() -> None:
    random = np.random.default_rng(3)
    codes = np.stack([random.integers(0, size, 900) for size in BINS]).astype(np.uint8)
    label = (codes[0] + codes[2] + random.normal(0, 3, 900) > 9).astype(np.uint8)
    often = np.repeat(np.arange(900), np.where(label == 1, 3, 1))
    weighted, repeated, plain = (
        grow.grow_here(grow.Block(codes[:, rows], label[rows]), BINS, 2, depth=4, min_leaf=1, weights=weights)
        for rows, weights in ((np.arange(900), np.array([1.0, 3.0])), (often, None), (np.arange(900), None))
    )

    def splits(nodes: Any) -> list[tuple[int, int]]:
        return [(node.feature, node.bin) for node in nodes]

    assert splits(weighted) == splits(repeated) != splits(plain)
    assert grow.rows_of(weighted[0].counts, 2) == 900, "rows are counted as they are"
    least = grow.grow_here(grow.Block(codes, label), BINS, 2, depth=4, min_leaf=60, weights=np.array([1.0, 9.0]))
    assert min(grow.rows_of(node.counts, 2) for node in least) >= 60, "and so are those of a leaf"


@examples(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    rows=st.lists(
        st.tuples(*(st.integers(0, size - 1) for size in BINS), st.integers(0, 2), st.integers(1, 4)),
        min_size=2,
        max_size=60,
    ),
    classes=st.sampled_from([0, 2, 3]),
    unit=st.sampled_from([1.0, 0.25, 4096.0]),
)
def test_a_row_that_weighs_k_should_be_split_and_told_as_k_rows(rows: Any, classes: int, unit: float) -> None:
    table = np.array(rows)
    codes, times = table[:, :3].T.astype(np.uint8), table[:, 4]
    label = np.minimum(table[:, 3], max(classes - 1, 0)) if classes else (table[:, 3] * 1000 - 999) * 4096
    each = np.arange(len(rows))
    told = []
    for own, weight in ((each, times * unit), (np.repeat(each, times), None)):
        block = grow.Block(codes[:, own], label[own], weight)
        by_row = None if weight is None else grow.RowWeights.of(weight.mean(), len(own))
        nodes = grow.grow_here(block, BINS, classes, depth=4, min_leaf=1, by_row=by_row)
        totals = grow.summed_up(nodes, grow.leaf_counts_here(block, grow.Route.of(nodes), classes, by_row))
        splits = [(node.feature, node.bin, node.left, node.right) for node in nodes]
        says = grow.smoothed(nodes, totals, classes, 0.0)
        told.append((splits, says, [node.gain for node in nodes], totals))
    (one, says, gains, weighed), (other, says_too, gains_too, counted) = told
    assert one == other
    np.testing.assert_allclose(says, says_too, rtol=1e-7, atol=1e-7)
    mean = times.mean()
    np.testing.assert_allclose(weighed[:, :-1] * mean, counted, rtol=1e-12, atol=1e-12)
    parents = [i for i, split in enumerate(one) if split[0] >= 0]
    of_rows = counted.sum(axis=1) if classes else counted[:, 0]
    np.testing.assert_allclose(
        [gains[i] * weighed[i, -1] * mean for i in parents], [gains_too[i] * of_rows[i] for i in parents], rtol=1e-9
    )


@pytest.mark.parametrize("classes", [0, 2])
def test_a_row_that_weighs_next_to_nothing_should_be_no_leaf_of_its_own(classes: int) -> None:
    """Its whole weight would be 0, or so small that rounding were most of what is told of it."""
    label = np.array([1, 0, 0, 1, 0, 1]) if classes else np.array([60, -60, -60, 2, -60, 2]) * 2**43
    weight = np.array([1e-20, 1.0, 1.0, 1.0, 1.0, 1.0])
    block, by_row = grow.Block(np.arange(6, dtype=np.uint8)[None], label, weight), grow.RowWeights.of(5 / 6, 6)
    nodes = grow.grow_here(block, [6], classes, depth=5, min_leaf=1, by_row=by_row)
    totals = grow.summed_up(nodes, grow.leaf_counts_here(block, grow.Route.of(nodes), classes, by_row))
    says = grow.smoothed(nodes, totals, classes, 0.0)
    leaf_of = grow.Route.of(nodes).to_leaves(block.codes)
    told = says[leaf_of][:, 1] if classes else says[leaf_of]
    assert leaf_of[0] == leaf_of[1], "it is where the next heavier row is"
    np.testing.assert_allclose(told[1:], label[1:], atol=1e-9 if classes else 1e-6 * 2**43)


@pytest.mark.parametrize("sigma", [0.5, 3.0])
def test_rows_of_one_label_should_not_be_split_whatever_they_weigh(sigma: float) -> None:
    random = np.random.default_rng(11)
    for rows in range(4, 40):
        codes = random.integers(0, 30, rows).astype(np.uint8)[None]
        label = np.where(codes[0] < 15, 33, -17) * (2**52 // rows // 34)
        weight = random.lognormal(0, sigma, rows)
        by_row = grow.RowWeights.of(weight.mean(), rows)
        nodes = grow.grow_here(grow.Block(codes, label, weight), [30], 0, depth=6, min_leaf=1, by_row=by_row)
        assert len(nodes) <= 3, f"{rows} rows"


def test_mllibs_gains_should_be_told_for_rows_of_the_average_weight() -> None:
    """As importances take them: by rows. MLlib's own are of a unit of weight."""
    nodes: list[Any] = [
        {"impurityStats": [9.0, 1000.0], "rawCount": 1000, "gain": 0.02},
        {"impurityStats": [4.5, 4.5], "rawCount": 900, "gain": 0.25},
        {"impurityStats": [500.0, 500.0], "rawCount": 100, "gain": 0.25},
    ]
    by_rows = [gain * node["rawCount"] for gain, node in zip(mllib._gains(nodes, True), nodes, strict=True)]
    by_weight = [node["gain"] * sum(node["impurityStats"]) for node in nodes]
    assert by_rows == pytest.approx([part * 1000 / 1009 for part in by_weight])
    as_number: Any = [{"impurityStats": [3.0, 1.0, 1.0], "rawCount": 3, "gain": 0.1}]
    assert mllib._gains(as_number, False) == [0.1], "rows that all count one have the gains that MLlib tells"


@pytest.mark.parametrize("classes", [0, 3])
def test_weighted_rows_should_grow_the_same_tree_wherever_they_lie(
    spark: SparkSession, monkeypatch: pytest.MonkeyPatch, classes: int
) -> None:
    """Sums of weights are exact, so partitions do not show; whether one task grows a node, or all of them, neither."""
    random = np.random.default_rng(7)
    codes = np.stack([random.integers(0, size, 3000) for size in BINS]).astype(np.uint8)
    label = random.integers(0, 3, 3000) if classes else random.integers(-(2**30), 2**30, 3000)
    weight = random.lognormal(size=3000)
    by_row = grow.RowWeights.of(weight.mean(), 3000)
    here = grow.grow_here(grow.Block(codes, label, weight), BINS, classes, depth=5, min_leaf=20, by_row=by_row)
    monkeypatch.setattr(grow, "ONE_TASK_ROWS", 100)
    for parts in (1, 3):
        own = [grow.Block(codes[:, i::parts], label[i::parts], weight[i::parts]) for i in range(parts)]
        blocks = spark.sparkContext.parallelize(own, parts)
        nodes = grow.grow(blocks, BINS, classes, depth=5, min_leaf=20, by_row=by_row)
        assert str(nodes) == str(here)
        totals = grow.summed_up(nodes, grow.leaf_counts(blocks, nodes, classes, by_row))
        assert totals[0, -1] == 3000
        assert (totals[0, :classes].sum() if classes else totals[0, 0]) == pytest.approx(3000), "a mean of 1"
    assert min(grow.rows_of(node.counts, classes) for node in here) >= 20, "of rows, whatever they weigh"


def test_balanced_classes_should_weigh_the_same_together_and_only_ratios_should_matter() -> None:
    balanced = points.multiclass(AS_TREE, AS_TREE + 'weights = "balanced"\n')
    found = encoding.class_weights(balanced, [60, 30, 10])
    assert found is not None
    assert found.tolist() == pytest.approx([100 / (3 * 60), 100 / (3 * 30), 100 / (3 * 10)])
    one, other = (
        encoding.class_weights(points.settings(AS_TREE, f"{AS_TREE}weights = {{ {text} }}\n"), [80, 20])
        for text in ("positive = 5", "positive = 50, negative = 10")
    )
    assert one is not None
    assert other is not None
    assert one.tolist() == pytest.approx(other.tolist())
    assert one @ [80, 20] == pytest.approx(100)
    assert encoding.class_weights(points.settings(), [80, 20]) is None


@pytest.mark.parametrize(
    ("make", "weights", "said"),
    [
        (
            points.settings,
            "{ yes = 5 }",
            "training.weights: yes is no class of this task, which has negative, positive",
        ),
        (
            points.multiclass,
            "{ low = 2, huge = 5 }",
            "training.weights: huge is no class of this task, which has low, mid",
        ),
        (points.settings, "{ positive = 0 }", "training.weights: positive is 0, and a weight is a number above 0"),
        (points.settings, "{ positive = -2 }", "training.weights: positive is -2, and a weight is"),
        (points.settings, "{ positive = nan }", "training.weights: positive is nan, and a weight is"),
        (points.settings, "{ positive = inf }", "training.weights: positive is inf, and a weight is"),
        (points.settings, "{}", "weights: name a class and what a row of it counts, or leave it out"),
        (points.regression, '"balanced"', "training.weights: a regression has no classes; name a column"),
    ],
)
def test_weights_that_cannot_be_meant_should_be_told_before_a_cluster_starts(
    make: Any, weights: str, said: str
) -> None:
    with pytest.raises(ValueError, match="weights") as told:
        make(AS_TREE, f"{AS_TREE}weights = {weights}\n")
    assert said in str(told.value)


def test_weights_should_reach_the_jobs_as_they_are_set() -> None:
    for text in ("{ positive = 5 }", '"balanced"'):
        settings = points.settings(AS_TREE, f"{AS_TREE}weights = {text}\n")
        assert declared.from_json(settings.to_json()) == settings
        assert json.loads(json.dumps(settings.training.used))["weights"] == settings.training.weights
    assert "weights" not in points.settings().training.used


def rare(spark: SparkSession, written: Written, settings: Any) -> Any:
    late = "pmod(xxhash64(id), 1000) < 60 * (id % 20) - 500"  # nearly a fifth of the rows
    label = f"int({late})" if settings.task == "binary" else f"IF({late}, 'high', IF(id % 3 = 0, 'mid', 'low'))"
    rows = spark.range(3000).selectExpr(
        "id",
        "double(id % 20) AS x",
        "element_at(array('red', 'green', 'blue'), 1 + int(id % 3)) AS colour",
        label + " AS late",
    )
    return written(rows, settings)


LEARNERS = {
    "tree": AS_TREE,
    "mllib": f'learner = "mllib"\n{AS_TREE}',
    "forest": 'learner = "forest"\ntrees = 5\ndepth = 4\n',
    "boosted": 'learner = "boosted"\nrounds = 10\nleaves = 6\nlearning_rate = 0.3\n',
}


def test_every_learner_should_weigh_classes_and_say_what_rows_as_they_are_say(
    spark: SparkSession, written: Written
) -> None:
    plain, weighted = (
        replace(points.settings(AS_TREE, AS_TREE + more), time=None) for more in ("", "weights = { positive = 9 }\n")
    )
    features = rare(spark, written, plain)
    surveys = [Survey(features, own, train.marks(features, own)) for own in (plain, weighted)]
    for learner, text in LEARNERS.items():
        as_set = points.settings(AS_TREE, text).training
        one, other = (
            train.fit_and_score(
                features, replace(own, training=replace(as_set, weights=own.training.weights)), None, survey
            )
            for own, survey in zip((plain, weighted), surveys, strict=True)
        )
        assert [str(nodes) for nodes in forms.trees(one.tree)] != [str(nodes) for nodes in forms.trees(other.tree)]
        assert other.tree["threshold"] == pytest.approx(0.1)
        assert (other.tree["format"], one.tree["format"] in (2, 3)) == (4, True)
        assert other.test["log_loss"] < 0.95 * other.baseline["log_loss"], f"{learner} says no weighted shares"
        assert other.test["log_loss"] == pytest.approx(one.test["log_loss"], rel=0.05), learner
        mean = (other.found.probability * other.found.rows).sum() / other.found.total
        assert mean == pytest.approx(other.found.total_positives / other.found.total, abs=0.04), learner
        assert other.test["recall"] > 0.9 > one.test["recall"], learner


def test_a_rare_class_should_be_called_by_its_weight(spark: SparkSession, written: Written) -> None:
    settings = points.multiclass(AS_TREE, LEARNERS["boosted"] + 'weights = "balanced"\n')
    settings = replace(settings, time=None, slices=("colour",))
    trained = train.fit_and_score(rare(spark, written, settings), settings)
    weights = trained.tree["weights"]
    shares = [count / trained.rows["train"] for count in trained.labels["train"].counts]
    assert weights == pytest.approx([1 / (3 * share) for share in shares])
    confusion = np.array(trained.test["confusion"])
    assert confusion[2, 2] / confusion[2].sum() > 0.5
    assert trained.test["log_loss"] < trained.baseline["log_loss"]
    assert trained.scored is not None
    model = registry.Registered("run", "home", trained.tree)
    rows = trained.scored.select("late", *predict.said(model)).groupBy("late", PREDICTION).count().collect()
    place = {name: i for i, name in enumerate(settings.label.classes)}
    spark_says = np.zeros((3, 3), dtype=int)
    for row in rows:
        spark_says[place[row["late"]], place[row[PREDICTION]]] = row["count"]
    assert spark_says.tolist() == confusion.tolist(), "Spark calls rows as the figures have it"
    slices = train.metrics.slices(
        trained.scored,
        "multiclass",
        train.tasks.label_column(settings.label, "multiclass"),
        ["colour"],
        shares,
        weights,
    )
    right = sum(one["accuracy"] * one["rows"] for one in slices["colour"])
    assert right == pytest.approx(trained.test["accuracy"] * trained.test["rows"])
    assert trained.scored.where(F.col("late") == "high").count() == confusion[2].sum()


BY_COLUMN = {learner: f'{LEARNERS[learner]}weights = "times"\n' for learner in LEARNERS}


@pytest.mark.parametrize("learner", ["tree", "mllib", "boosted"])
@pytest.mark.parametrize("make", [points.settings, points.regression])
def test_rows_should_count_as_often_as_their_column_says(
    spark: SparkSession, written: Written, make: Any, learner: str
) -> None:
    """A row that counts three times is one that is there three times. The label goes with the weight: without it the
    figure is worse by more than 2 %."""
    label = "int(x > 6 + 5 * noise)" if make is points.settings else "x * noise"
    rows = (
        spark.range(1500)
        .selectExpr(
            "id",
            "IF(id % 5 = 0, 'test', 'train') AS side",
            "double(id % 20) AS x",
            "1 + 2 * int(pmod(xxhash64(id), 1000) > 500) AS times",
            "pmod(xxhash64(id), 1000) / 1000 AS noise",
            "'red' AS colour",
        )
        .withColumn("late", F.expr(label))
    )
    rows = rows if make is points.settings else rows.withColumn("late", F.col("late").cast("double"))
    often = rows.withColumn("nth", F.explode(F.expr("IF(side = 'test', array(0), sequence(1, times))")))
    weighted = replace(make(AS_TREE, BY_COLUMN[learner]), time=None)
    if learner != "boosted":  # smoothing counts rows, and so does min_leaf
        weighted = replace(weighted, training=replace(weighted.training, smoothing=1e-6, min_leaf=1))
    plain = replace(weighted, training=replace(weighted.training, weights=""))
    one, other = (
        train.fit_and_score(written(own, settings), settings) for own, settings in ((rows, weighted), (often, plain))
    )
    main = "log_loss" if make is points.settings else "rmse"
    assert one.test[main] == pytest.approx(other.test[main], rel=0.02)
    assert one.baseline[main] == pytest.approx(other.baseline[main]), "guessing is by the weighted average"
    assert one.test["rows"] == 300, "each row is measured once"
    if learner != "boosted":
        assert one.tree["settings"]["weights"] == "times"
        conditions, others = ([(n["id"], n.get("condition")) for n in own.tree["nodes"]] for own in (one, other))
        assert conditions == others
        assert len(conditions) > 1
        said = "value" if make is points.regression else "probability"
        says, too = ([node[said] for node in own.tree["nodes"]] for own in (one, other))
        assert says == pytest.approx(too, rel=1e-4)
        assert one.tree["nodes"][0]["rows"] == 1200 < other.tree["nodes"][0]["rows"], "rows are told as they are"
        assert [n["impurity"] for n in one.tree["nodes"]] == pytest.approx(
            [n["impurity"] for n in other.tree["nodes"]], abs=1e-6
        )


def test_a_forest_should_say_what_rows_weighted_by_a_column_say(spark: SparkSession, written: Written) -> None:
    settings = replace(points.settings(AS_TREE, BY_COLUMN["forest"]), time=None)
    rows = spark.range(1500).selectExpr(
        "id",
        "double(id % 20) AS x",
        "'red' AS colour",
        "int(id % 3 = 0) AS late",
        "IF(id % 3 = 0, 4.0D, 0.5D) AS times",
    )
    trained = train.fit_and_score(written(rows, settings), settings)
    mean = (trained.found.probability * trained.found.rows).sum() / trained.found.total
    assert mean == pytest.approx(4 / (4 + 2 * 0.5), abs=0.05), "four fifths of the weight, a third of the rows"
    told = train.decision.sentences(settings, trained.test, None, None, None)
    assert told == [
        "A row counted as much as times says while it was learned from, so what the model says is of rows weighted so. "
        "Figures count each row once; guessing is by the weighted shares of the training side."
    ]


@pytest.mark.parametrize(
    ("weights", "said"),
    [
        ("late", "training.weights: late is the label as well"),
        ("id", "training.weights: id is a key as well"),
        (
            "x",
            "training.weights: x is a feature as well: what a row counts must not be what it is told by; leave it out",
        ),
        ("Row Weight", "training.weights: 'Row Weight' is neither \"balanced\" nor the name of a column"),
        ("split_hash", "split_hash: the jobs add a column of that name"),
    ],
)
def test_a_column_that_cannot_weigh_should_be_told_before_a_cluster_starts(weights: str, said: str) -> None:
    with pytest.raises(ValueError, match=weights) as told:
        points.settings(AS_TREE, f'{LEARNERS["boosted"]}weights = "{weights}"\n')
    assert said in str(told.value)


@pytest.mark.parametrize("here", [True, False])
def test_depth_should_be_chosen_by_a_tree_of_weighted_rows_and_measured_by_each_row_once(
    spark: SparkSession, written: Written, monkeypatch: pytest.MonkeyPatch, here: bool
) -> None:
    """Where the label is as noise but for the weights, no tree of equal rows would choose what this one does."""
    monkeypatch.setattr(tune, "ON_DRIVER_ROWS", 10**6 if here else 100)
    rows = spark.range(2000).selectExpr(
        "id",
        "double(id % 20) AS x",
        "'red' AS colour",
        "int(pmod(xxhash64(id), 100) < 50) AS late",
        "IF((x > 9) = (late = 1), 3.0D, 1.0D) AS times",
    )
    settings = replace(points.settings(AS_TREE, 'weights = "times"\n'), time=None)
    plain = replace(settings, training=replace(settings.training, weights=""))
    tried = []
    for own in (settings, plain):
        features = written(rows, own)
        survey = Survey(features, own, train.marks(features, own))
        fit_on, held = survey.parts(test=False, held=False), survey.parts(test=False, held=True)
        tuned = tune.choose(survey, fit_on, held, declared.Tune(depths=(1,), min_leaves=(30,)))
        tried.append(tuned["tried"][0]["log_loss"])
    # Both sides say 1/4 or 3/4 by weight, which of rows as they are is worse than a half: ln(16/3)/2 against ln 2.
    assert tried == [pytest.approx(np.log(16 / 3) / 2, abs=0.03), pytest.approx(np.log(2), abs=0.01)]


@pytest.mark.parametrize(
    ("then", "now", "said"),
    [
        ("", "", ""),
        ({"positive": 5.0}, "{ positive = 5 }", ""),
        (
            {"positive": 5.0},
            "",
            "; that one was trained with weights positive 5, this one with no weights (training.weights)",
        ),
        (
            "balanced",
            '"times"',
            "; that one was trained with balanced classes, this one with rows weighted by times (training.weights), so "
            "they tell shares of rows weighted differently, while here each row counts once",
        ),
    ],
)
def test_the_gate_should_say_that_the_current_model_was_weighted_otherwise(then: Any, now: str, said: str) -> None:
    settings = points.settings(AS_TREE, AS_TREE + (f"weights = {now}\n" if now else ""))
    assert gate.weighted_otherwise(then, settings) == said
    current = gate.Current("old", {"log_loss": 0.5, "auc": 0.7}, "", None, weights=said)
    told = gate.judge(settings, {"log_loss": 0.5, "auc": 0.7}, {"log_loss": 0.6}, current=current)
    assert told["checks"][-1]["detail"].endswith(f"tolerance 0.01{said}")


@pytest.mark.parametrize(
    "weight", ["NULL", "0.0D", "-1.0D", "double('NaN')", "double('Infinity')", "1e-310D", "1e300D"]
)
def test_a_weight_that_is_none_should_stop_preparing_with_the_way_out(spark: SparkSession, weight: str) -> None:
    settings = points.settings(AS_TREE, BY_COLUMN["boosted"])
    assert "times" in settings.columns
    assert "times" in prepare.columns_of(settings)
    rows = spark.range(4).selectExpr("id", "1 AS late", f"IF(id = 2, {weight}, 1.5D) AS times", "1 AS _nth")
    found = (
        rows.withColumnRenamed("_nth", prepare.NTH)
        .agg(*[figure.alias(name) for name, figure in prepare.figures(settings).items()])
        .collect()[0]
        .asDict()
    )
    with pytest.raises(JobError, match=r"gives 1 rows whose weight \(times, training.weights of datasets/points/"):
        prepare.check_features(found, settings)
