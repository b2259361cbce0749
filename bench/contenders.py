"""Each contender as a process: `python -m bench.contenders NAME SIZE DEPTH RESULT` reads, learns, scores, and says how.

Ours and MLlib's run in the project's environment, the peers in the benchmark's own.
"""

import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from bench.data import Place
from bench.measure import write_json
from bench.metrics import evaluate

MIN_LEAF, SMOOTHING, BINS = 50, 100.0, 128
ROUNDS, RATE, BOOSTED_DEPTH = 100, 0.1, 6  # of boosting, whoever does it
MLLIB_ROUNDS = 10  # of MLlib's GBT, which takes so long; the report tells seconds a round
TREES, FOREST_DEPTH, FOREST_LEAF = 20, 12, 1
FAR_BELOW = -1e30  # a missing number, for a learner that is given our encoding: left of everything, and a float32
Array = np.ndarray[Any, Any]


class Clock:
    """Seconds of each phase; `finished` is the last lap's moment."""

    def __init__(self) -> None:
        self.finished = time.monotonic()
        self.seconds: dict[str, float] = {}

    def lap(self, phase: str) -> None:
        now = time.monotonic()
        self.seconds[phase] = round(now - self.finished, 3)
        self.finished = now


# --- on Spark


def ours(place: Place, depth: int, clock: Clock) -> dict[str, Any]:
    from bench.ours import settings

    return _ours(place, settings(depth), clock)


def ours_boosted(place: Place, depth: int, clock: Clock) -> dict[str, Any]:
    """As many leaves as the depth allows, so that XGBoost's trees may have the same form."""
    from bench.ours import several

    told = several("boosted", rounds=ROUNDS, depth=depth, leaves=2**depth, learning_rate=RATE)
    return _ours(place, told, clock)


def ours_forest(place: Place, depth: int, clock: Clock) -> dict[str, Any]:
    from bench.ours import several

    return _ours(place, several("forest", trees=TREES, depth=depth, min_leaf=FOREST_LEAF), clock)


def _ours(place: Place, settings: Any, clock: Clock) -> dict[str, Any]:
    from bench.ours import fit_and_score

    metrics, seconds = fit_and_score(place.features, settings)
    clock.lap("total")
    clock.seconds = seconds
    return metrics


def mllib(place: Place, depth: int, clock: Clock) -> dict[str, Any]:
    from pyspark.ml.classification import DecisionTreeClassifier

    return _mllib(place, clock, DecisionTreeClassifier, maxDepth=depth, minInstancesPerNode=MIN_LEAF)


def mllib_gbt(place: Place, depth: int, clock: Clock) -> dict[str, Any]:
    from pyspark.ml.classification import GBTClassifier

    return _mllib(place, clock, GBTClassifier, maxDepth=depth, maxIter=MLLIB_ROUNDS, stepSize=RATE)


def mllib_forest(place: Place, depth: int, clock: Clock) -> dict[str, Any]:
    from pyspark.ml.classification import RandomForestClassifier

    return _mllib(place, clock, RandomForestClassifier, maxDepth=depth, numTrees=TREES, minInstancesPerNode=FOREST_LEAF)


def _mllib(place: Place, clock: Clock, learner: Callable[..., Any], **settings: Any) -> dict[str, Any]:
    """As tutorials write it: inferred CSV, a StringIndexer a category, classifier, evaluator, nothing cached."""
    from pyspark.ml import Pipeline
    from pyspark.ml.evaluation import BinaryClassificationEvaluator
    from pyspark.ml.feature import StringIndexer, VectorAssembler
    from pyspark.ml.functions import vector_to_array
    from pyspark.sql import SparkSession
    from pyspark.sql import functions as F

    told = place.told()
    spark = SparkSession.builder.appName("tutorial").getOrCreate()
    clock.lap("session")
    rows = spark.read.csv(str(place.csv), header=True, inferSchema=True)
    rows = rows.na.fill(-999, subset=told["numbers"])  # VectorAssembler takes no NULL
    train, test = rows.where(F.col("side") == "train"), rows.where(F.col("side") == "test")
    clock.lap("read")
    indexed = [f"{name}_index" for name in told["categories"]]
    stages = [
        StringIndexer(inputCol=name, outputCol=index, handleInvalid="keep")
        for name, index in zip(told["categories"], indexed, strict=True)
    ]
    assembler = VectorAssembler(inputCols=[*told["numbers"], *indexed], outputCol="features")
    own = learner(labelCol=told["label"], maxBins=BINS, seed=0, **settings)
    model = Pipeline(stages=[*stages, assembler, own]).fit(train)
    clock.lap("fit")
    predictions = model.transform(test)
    own_auc = BinaryClassificationEvaluator(labelCol=told["label"]).evaluate(predictions)
    clock.lap("score")
    # The tutorial has its answer by now. The same metrics as everyone else's are worked out off the clock.
    positive = vector_to_array(F.col("probability"))[1].alias("p")
    counted = predictions.select(positive, F.col(told["label"]).alias("y")).groupBy("p", "y").count().collect()
    metrics = evaluate(*([row[name] for row in counted] for name in ("y", "p", "count")))
    return metrics | {"evaluator_auc": own_auc}


# --- peers: Parquet by pyarrow, then one way to treat categories and one learner


@dataclass(frozen=True)
class Side:
    """Rows of one side: numbers as float32 with NaN for missing, categories as codes (-1 is missing), label 0 or 1."""

    numbers: Array
    codes: Array
    label: Array


def read(place: Place) -> tuple[Side, Side, list[int]]:
    """Training side, test side, and how many values each category has."""
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    told = place.told()
    numbers, categories = told["numbers"], told["categories"]
    columns = ["side", told["label"], *numbers, *categories]
    table = pq.read_table(place.features, columns=columns, read_dictionary=categories).unify_dictionaries()
    values = [table[name].chunk(0).dictionary.to_pylist() for name in categories]
    ranks = [np.argsort(np.argsort(np.array(known, str))) for known in values]  # codes in alphabetical order

    def side(name: str) -> Side:
        rows = table.filter(pc.equal(table["side"], name))
        x = np.empty((rows.num_rows, len(numbers)), np.float32)
        for i, column in enumerate(numbers):
            x[:, i] = rows[column].cast("double").to_numpy()
        codes = np.empty((rows.num_rows, len(categories)), np.int32)
        for i, column in enumerate(categories):
            raw = rows[column].combine_chunks().indices.fill_null(-1).to_numpy()
            codes[:, i] = np.where(raw < 0, -1, ranks[i][raw])
        return Side(x, codes, rows[told["label"]].to_numpy().astype(np.int8))

    return side("train"), side("test"), [len(known) for known in values]


def as_codes(train: Side, test: Side, sizes: Sequence[int]) -> tuple[Array, Array]:
    """A category is its place in the alphabet."""

    def one(side: Side) -> Array:
        codes = side.codes.astype(np.float32)
        return np.hstack([side.numbers, np.where(codes < 0, np.float32(np.nan), codes)])

    return one(train), one(test)


def by_frequency(train: Side, test: Side, sizes: Sequence[int]) -> tuple[Array, Array]:
    """A category is its rank by rows of the training side, the commonest first."""

    def learned(i: int) -> Array:
        counts = np.bincount(train.codes[:, i] + 1, minlength=sizes[i] + 1)
        return np.argsort(np.argsort(-counts, kind="stable"))

    return _looked_up(train, test, [learned(i) for i in range(len(sizes))])


def smoothed(train: Side, test: Side, sizes: Sequence[int]) -> tuple[Array, Array]:
    """Ours: a category is its smoothed mean label on the training side, a missing number is far below all others."""
    prior = train.label.mean(dtype=np.float64)

    def learned(i: int) -> Array:
        rows = np.bincount(train.codes[:, i] + 1, minlength=sizes[i] + 1)
        positives = np.bincount(train.codes[:, i] + 1, train.label, minlength=sizes[i] + 1)
        return np.asarray((positives + SMOOTHING * prior) / (rows + SMOOTHING))

    x_train, x_test = _looked_up(train, test, [learned(i) for i in range(len(sizes))])
    return np.nan_to_num(x_train, copy=False, nan=FAR_BELOW), np.nan_to_num(x_test, copy=False, nan=FAR_BELOW)


def _looked_up(train: Side, test: Side, tables: Sequence[Array]) -> tuple[Array, Array]:
    def one(side: Side) -> Array:
        found = [tables[i].astype(np.float32)[side.codes[:, i] + 1] for i in range(len(tables))]
        return np.column_stack([side.numbers, *found])

    return one(train), one(test)


Predict = Callable[[Array], Array]
Fit = Callable[[Array, Array, int, list[int] | None], Predict]


def scikit_learn(x: Array, y: Array, depth: int, categories: list[int] | None) -> Predict:
    from sklearn.tree import DecisionTreeClassifier

    model = DecisionTreeClassifier(max_depth=depth, min_samples_leaf=MIN_LEAF, random_state=0).fit(x, y)
    return lambda rows: np.asarray(model.predict_proba(rows)[:, 1])


def xgboost(x: Array, y: Array, depth: int, categories: list[int] | None) -> Predict:
    """Squared error on a 0/1 label: the same splits as Gini's, and a leaf's value is the share of positive rows.

    With the logistic objective a single tree's leaf would be one Newton step away from the base rate, no probability.
    """
    import xgboost as xgb

    kinds = None if categories is None else ["c" if i in categories else "q" for i in range(x.shape[1])]
    given = {"feature_types": kinds, "enable_categorical": categories is not None}
    rows = xgb.QuantileDMatrix(x, y, **given)
    settings = {
        "objective": "reg:squarederror",
        "tree_method": "hist",
        "max_depth": depth,
        "min_child_weight": MIN_LEAF,  # the sum of hessians, which are 1 a row
        "eta": 1,
        "lambda": 0,
        "base_score": float(y.mean(dtype=np.float64)),
        "seed": 0,
    }
    model = xgb.train(settings, rows, num_boost_round=1)
    return lambda test: np.clip(model.predict(xgb.DMatrix(test, **given)), 0, 1)


def lightgbm(x: Array, y: Array, depth: int, categories: list[int] | None) -> Predict:
    """Squared error for the same reason as XGBoost's; as many leaves as the depth allows."""
    import lightgbm as lgb

    settings = {
        "objective": "regression",
        "max_depth": depth,
        "num_leaves": 2**depth,
        "min_data_in_leaf": MIN_LEAF,
        "min_sum_hessian_in_leaf": 0,
        "learning_rate": 1,
        "boost_from_average": True,
        "cat_smooth": 100,
        "cat_l2": 100,
        "verbosity": -1,
        "seed": 0,
    }
    rows = lgb.Dataset(x, y, categorical_feature=categories or [], params=settings)
    model = lgb.train(settings, rows, num_boost_round=1)
    return lambda test: np.clip(model.predict(test), 0, 1)


def xgboost_boosted(x: Array, y: Array, depth: int, categories: list[int] | None) -> Predict:
    """XGBoost alone, as it comes but for what is the same for all."""
    import xgboost as xgb

    kinds = None if categories is None else ["c" if i in categories else "q" for i in range(x.shape[1])]
    given = {"feature_types": kinds, "enable_categorical": categories is not None}
    settings = {"objective": "binary:logistic", "tree_method": "hist", "max_depth": depth, "eta": RATE, "seed": 0}
    rows = xgb.QuantileDMatrix(x, y, max_bin=BINS, **given)
    model = xgb.train({**settings, "max_bin": BINS}, rows, num_boost_round=ROUNDS)
    return lambda test: model.predict(xgb.DMatrix(test, **given))


def lightgbm_boosted(x: Array, y: Array, depth: int, categories: list[int] | None) -> Predict:
    """As it comes, with as many leaves as the depth allows."""
    import lightgbm as lgb

    settings = {"objective": "binary", "max_depth": depth, "num_leaves": 2**depth, "max_bin": BINS}
    settings |= {"learning_rate": RATE, "verbosity": -1, "seed": 0}
    rows = lgb.Dataset(x, y, categorical_feature=categories or [], params=settings)
    model = lgb.train(settings, rows, num_boost_round=ROUNDS)
    return lambda test: np.asarray(model.predict(test))


LIBRARIES: dict[Fit, str] = {
    scikit_learn: "sklearn.tree",
    xgboost: "xgboost",
    xgboost_boosted: "xgboost",
    lightgbm: "lightgbm",
    lightgbm_boosted: "lightgbm",
}
Encode = Callable[[Side, Side, Sequence[int]], tuple[Array, Array]]


def peer(encode: Encode, fit: Fit, *, native: bool = False) -> Callable[[Place, int, Clock], dict[str, Any]]:
    def run(place: Place, depth: int, clock: Clock) -> dict[str, Any]:
        import_module(LIBRARIES[fit])  # some take a second or two, which is none of fit's
        clock.lap("import")
        train, test, sizes = read(place)
        clock.lap("read")
        x_train, x_test = encode(train, test, sizes)
        categories = list(range(x_train.shape[1] - len(sizes), x_train.shape[1])) if native else None
        clock.lap("encode")
        predict = fit(x_train, train.label, depth, categories)
        clock.lap("fit")
        metrics = evaluate(test.label, predict(x_test))
        clock.lap("score")
        return metrics

    return run


RUN: dict[str, Callable[[Place, int, Clock], dict[str, Any]]] = {
    "ours": ours,
    "ours_one_core": ours,  # the harness starts it with local[1]
    "mllib": mllib,
    "mllib_our_java": mllib,  # the harness starts it as it starts ours
    "sklearn_codes": peer(as_codes, scikit_learn),
    "sklearn_frequency": peer(by_frequency, scikit_learn),
    "sklearn_our_encoding": peer(smoothed, scikit_learn),
    "xgboost_codes": peer(as_codes, xgboost),
    "xgboost_native": peer(as_codes, xgboost, native=True),
    "lightgbm_codes": peer(as_codes, lightgbm),
    "lightgbm_native": peer(as_codes, lightgbm, native=True),
}
# Of several trees, by bench/ensembles.py; each with its depth.
ENSEMBLES: dict[str, tuple[Callable[[Place, int, Clock], dict[str, Any]], int]] = {
    "ours_boosted": (ours_boosted, BOOSTED_DEPTH),
    "xgboost_boosted": (peer(as_codes, xgboost_boosted), BOOSTED_DEPTH),
    "xgboost_boosted_native": (peer(as_codes, xgboost_boosted, native=True), BOOSTED_DEPTH),
    "lightgbm_boosted": (peer(as_codes, lightgbm_boosted), BOOSTED_DEPTH),
    "lightgbm_boosted_native": (peer(as_codes, lightgbm_boosted, native=True), BOOSTED_DEPTH),
    "mllib_gbt": (mllib_gbt, BOOSTED_DEPTH),
    "ours_forest": (ours_forest, FOREST_DEPTH),
    "mllib_forest": (mllib_forest, FOREST_DEPTH),
}
PACKAGES = {
    "ours": "pyspark",
    "mllib": "pyspark",
    "sklearn": "scikit-learn",
    "xgboost": "xgboost-cpu",
    "lightgbm": "lightgbm",
}


def main(name: str, size: str, depth: str, result: str) -> None:
    clock = Clock()
    run = ENSEMBLES[name][0] if name in ENSEMBLES else RUN[name]
    metrics = run(Place(size), int(depth), clock)
    package = PACKAGES[name.split("_")[0]]
    versions = {"python": sys.version.split()[0], package: version(package)}
    told = {"finished": clock.finished, "metrics": metrics, "phases": clock.seconds, "versions": versions}
    write_json(Path(result), told)


if __name__ == "__main__":
    main(*sys.argv[1:])
