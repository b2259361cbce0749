"""Whether a difference is luck: some contenders on five folds of the training side; `python -m bench.folds`.

A split that is better by the third digit or worse by it, in one place of a shallow tree, moves every figure of one test
side. Each fold is a fifth of the 337 k rows' training side; the rest of it is learned from.
"""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np

from bench.contenders import as_codes, by_frequency, lightgbm, scikit_learn, smoothed, xgboost
from bench.data import BENCH, HOME, Place
from bench.measure import write_json
from bench.metrics import evaluate

FOLDS = 5
DEPTHS = (5, 12)
PLACE = Place("337k")
PEERS = {
    "sklearn_frequency": (by_frequency, scikit_learn, False),
    "xgboost_native": (as_codes, xgboost, True),
    "lightgbm_native": (as_codes, lightgbm, True),
    "sklearn_our_encoding": (smoothed, scikit_learn, False),
}
Array = np.ndarray[Any, Any]


def fold_of(hashes: Array) -> Array:
    """By the half of a row's hash that has nothing to do with its side, without the bits that draw the sample."""
    return np.asarray(((hashes.view(np.uint64) & np.uint64(2**32 - 1)) >> np.uint64(16)) % np.uint64(FOLDS))


def ours() -> dict[str, list[Any]]:
    from pyspark.sql import functions as F

    from bench import ours as own
    from jobs import train
    from jobs.learners.survey import Mark, Survey
    from jobs.tables import split
    from jobs.tables.arrays import as_numpy
    from jobs.tables.features import Features
    from jobs.tables.session import Clock

    spark = own.session("folds")
    found: dict[str, list[Any]] = {}
    for depth in DEPTHS:
        settings = own.settings(depth)
        features = Features(spark, str(PLACE.features), settings)
        for fold in range(FOLDS):
            held = Mark(split.HASH, lambda column, fold=fold: fold_of(as_numpy(column)) == fold)  # type: ignore[misc]
            survey = Survey(features, settings, {**train.marks(features, settings), "fold": held})
            learn, tested = (survey.parts(test=False, fold=wanted) for wanted in (False, True))
            names = ("the other folds", "the fold")
            trained = train._fit_and_score(features, survey, learn, tested, F.lit(False), settings, Clock(), names)
            found.setdefault(str(depth), []).append([trained.test["log_loss"], trained.test["auc"]])
    spark.stop()
    return found


def peers() -> dict[str, dict[str, list[Any]]]:
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    from bench.contenders import Side, read

    train, _, sizes = read(PLACE)
    table = pq.read_table(PLACE.features, columns=["side", "split_hash"])
    folds = fold_of(table.filter(pc.equal(table["side"], "train"))["split_hash"].to_numpy())
    found: dict[str, dict[str, list[Any]]] = {}
    for name, (encode, fit, native) in PEERS.items():
        for fold in range(FOLDS):
            learn, held = (
                Side(train.numbers[own], train.codes[own], train.label[own]) for own in (folds != fold, folds == fold)
            )
            x, x_held = encode(learn, held, sizes)
            categories = list(range(x.shape[1] - len(sizes), x.shape[1])) if native else None
            for depth in DEPTHS:
                told = evaluate(held.label, fit(x, learn.label, depth, categories)(x_held))
                found.setdefault(name, {}).setdefault(str(depth), []).append([told["log_loss"], told["auc"]])
    return found


def main(arguments: list[str]) -> None:
    """Without an argument both, each in its own environment; the report has it from the results."""
    if arguments:
        write_json(Path(arguments[1]), {"ours": ours()} if arguments[0] == "ours" else peers())
        return
    from bench.__main__ import PEERS as PYTHON_OF_PEERS
    from bench.__main__ import RESULTS, data, environment

    data(PLACE)
    found: dict[str, Any] = {}
    for name, python in (("ours", sys.executable), ("peers", str(PYTHON_OF_PEERS))):
        result = BENCH / "work" / f"folds-{name}.json"
        command = [python, "-m", "bench.folds", name, str(result)]
        subprocess.run(command, cwd=HOME, env=environment(2), check=True)
        found |= json.loads(result.read_text())
    kept = json.loads(RESULTS.read_text()) if RESULTS.is_file() else {}
    write_json(RESULTS, {**kept, "folds": found})


if __name__ == "__main__":
    main(sys.argv[1:])
