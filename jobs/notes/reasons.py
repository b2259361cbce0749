"""What each feature adds to what a model says of one row, for a note to draw; jobs/models/reasons.py has how."""

from typing import Any, List, Mapping, NamedTuple, Tuple

import numpy as np

from jobs.models.forms import Told
from jobs.models.reasons import Reasons, unit
from jobs.notes.trees import encoded


class Why(NamedTuple):
    """Of one row: what is said with nothing known of it, each feature with the row's value and what it adds, those that
    move the answer most first, and what is said with all known; all in `unit`."""

    expected: float
    adds: List[Tuple[str, Any, float]]
    said: float
    unit: str


def why(model: Told, row: Mapping[str, Any], called: int = 0) -> Why:
    """Why a model of one tree or several says of a row what it says. There must be no `reason_against` it.

    `row`: each feature's value as jobs/models/inputs.py `feature_columns` has it. `called`: of several classes the one
    that is asked for, by its place.
    """
    reasons, features = Reasons(model), model["features"]
    numbers = np.array([[encoded(feature, row[feature["name"]])] for feature in features], dtype=np.float64)
    effects = reasons.effects(numbers, np.array([called]))[0].tolist()
    expected = float(reasons.expected[called])
    adds = [(one["name"], row[one["name"]], effect) for one, effect in zip(features, effects)]  # noqa: B905
    adds.sort(key=lambda one: -abs(one[2]))
    return Why(expected, adds, expected + sum(effects), unit(model))
