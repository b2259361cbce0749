"""What a change of the data does to what the current model says: how far each feature that moved takes the mean score.

A feature is given the values of the old profile, then those of the new one, in the same rows and the same order, all
else as it is now: the difference of what the current model says on average is what this feature's move alone does.
Values come from the profiles' bins, evenly between the ends of each, so it is of all rows of either table, not of the
few whose other features are held. Features that moved together are each taken alone: their moves need not add up.
"""

from typing import Any, Dict, List, Mapping, Sequence

import numpy as np

from jobs.judges.drift import STABLE
from jobs.judges.explanation import Answers, Sample
from jobs.judges.profiling import Cell, Profile
from jobs.models.forms import Told
from jobs.tables.arrays import Array

MOST = 20  # features, those that moved most


def of_score(moved: Mapping[str, Any], old: Profile, new: Profile, model: Told, rows: Sample, seed: int) -> Any:
    """drift.json with `moves_score` at each feature that is not stable and that the model knows: `by`, in what it says,
    and `of`, the class whose probability that is (of several the one that moves most). None at others.
    """
    answers = Answers(model, rows.batch) if rows.batch.num_rows else None
    by_name = [{feature["name"]: feature for feature in profile["features"]} for profile in (old, new)]
    known = {feature["name"]: feature for feature in model["features"]}
    order = np.random.default_rng(seed).permutation(rows.batch.num_rows)
    asked = [of["name"] for of in moved["features"] if of["verdict"] != STABLE and of["name"] in known][:MOST]
    found: Dict[str, Any] = {}
    for name in asked if answers else ():
        assert answers is not None  # noqa: S101  # see above
        both = [values_of(known[name], own[name], len(order))[order] for own in by_name]
        before, after = (np.atleast_1d(said.mean(axis=0)) for said in answers.with_values(name, both))
        change, classes = after - before, model.get("classes") or [""]
        most = int(np.abs(change).argmax())
        found[name] = {"by": float(change[most]), "of": classes[most]}
    return {**moved, "features": [{**of, "moves_score": found.get(of["name"])} for of in moved["features"]]}


def values_of(feature: Mapping[str, Any], profiled: Cell, count: int) -> Array:
    """So many values of a profile's feature as the model's number, the lowest first, each as often as it was met.

    The categories that a profile only counts together are taken by their names, all alike; without names they count as
    one that training has not seen.
    """
    low: List[float] = [feature["missing"]]
    high: List[float] = [feature["missing"]]
    rows: List[float] = [profiled["missing"]["rows"]]
    if profiled["kind"] == "number":
        cells: Sequence[Cell] = profiled["histogram"]
        low += [cell["from"] for cell in cells]
        high += [cell["to"] for cell in cells]
        rows += [cell["rows"] for cell in cells]
    else:
        others = profiled["others"]
        names = others["names"] or [None]
        met = [(cell["value"], cell["rows"]) for cell in profiled["top"]]
        met += [(name, others["rows"] / len(names)) for name in names]
        encoded = [feature["encoding"].get(name, feature["unseen"]) for name, _ in met]
        low, high, rows = low + encoded, high + encoded, rows + [own for _, own in met]
    ends = np.cumsum(rows)
    if not ends[-1]:  # a table without rows
        return np.full(count, feature["missing"])
    at = (np.arange(count) + 0.5) / count * ends[-1]
    place = np.searchsorted(ends, at, side="right")
    within = (at - (ends - rows)[place]) / np.maximum(np.array(rows), 1e-300)[place]
    found: Array = np.array(low)[place] * (1 - within) + np.array(high)[place] * within
    return np.sort(found)
