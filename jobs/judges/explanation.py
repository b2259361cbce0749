"""What a model looks at, asked of a bounded sample of held-out rows: for the report, the card and `dml models`.

- Permutation: by how much the main metric gets worse if a feature's values change hands among the rows (Breiman 2001,
  Random Forests). Unlike gain it is of rows that were not learned from, and a feature that the trees have split on in
  vain has none.
- Partial dependence: what is said on average if a feature had one value in all rows (Friedman 2001, Greedy Function
  Approximation).
- Examples: single rows with what moved them most (jobs/models/reasons.py).

Nothing here takes longer for more rows: `BUDGET` bounds the steps down the trees. The seed is the dataset's.
"""

from typing import Any, Dict, List, NamedTuple, Optional, Sequence

import numpy as np
import pyarrow as pa

from jobs.learners.survey import Survey
from jobs.models import forms, tasks
from jobs.models.forms import Told
from jobs.models.inputs import MISSING
from jobs.models.reasons import Reasons, reason_against, unit
from jobs.models.tree import Scorer, largest
from jobs.tables.arrays import Array, as_arrow, as_text
from jobs.tables.settings import Dataset

MOST_ROWS, FEWEST_ROWS = 2_000, 100  # of which the trees are asked again
COMPARED_ROWS, FEWEST_COMPARED, MOST_CELLS = 10_000, 30, 2_000_000  # of a sample
Z95 = 1.96
BUDGET = 25_000_000  # steps of a row from a node to its child, for all permutations: some half a second
REPEATS, MOST_FEATURES = 3, 20  # the first by gain are permuted
DEPENDENT, POINTS, DEPENDENCE_ROWS, SHOWN_CLASSES = 6, 12, 300, 3  # features, their values, rows, classes
REASONS = 3

Figures = Dict[str, Any]


class Sample(NamedTuple):
    """Rows of the test side. `batch`: keys and features by name; `label`: a class by its number, or the value."""

    batch: pa.RecordBatch
    label: Array


class Answers:
    """What a model says of a sample's rows, and of the same rows with other values of a feature.

    `numbers`: features x rows. What the trees add that do not ask for a feature is not worked out again.
    """

    def __init__(self, model: Told, batch: pa.RecordBatch) -> None:
        self.scorer, self.rows = Scorer(model, 0), batch.num_rows
        self.numbers = self.scorer.numbers(batch).reshape(len(model["features"]), self.rows)
        self.uses = [{node["feature"] for node in nodes if "feature" in node} for nodes in forms.trees(model)]
        self.place = {feature["name"]: i for i, feature in enumerate(model["features"])}
        self.sums = self._added(range(len(self.uses)), self.scorer.base[:, None] if len(self.scorer.base) else 0.0)

    @property
    def said(self) -> Array:
        """Rows, or rows x classes."""
        return self.scorer.linked(self.sums)

    @property
    def steps(self) -> int:
        """Down all trees, of one row."""
        return max(1, sum(int(tree.depth) for tree in self.scorer.trees))

    def with_values(self, feature: str, every: Sequence[Any]) -> List[Array]:
        """What is said with each of these in place of the feature's own numbers: all rows', or one for all of them."""
        asking = [i for i, used in enumerate(self.uses) if feature in used]
        own, rest = self.numbers[self.place[feature]], self.sums - self._added(asking)
        before, said = own.copy(), []
        for values in every:
            own[:] = values
            said.append(self.scorer.linked(rest + self._added(asking)))
        own[:] = before
        return said

    def _added(self, trees: Sequence[int], start: Any = 0.0) -> Array:
        return self.scorer.added(self.numbers.ravel(), self.rows, trees, start)


def sample(survey: Survey, parts: Sequence[int], models: Sequence[Told], settings: Dataset) -> Sample:
    """Rows of these parts with what these models ask of them; fewer of wide tables and of many trees."""
    columns = [*settings.keys, *(feature["name"] for model in models for feature in model["features"])]
    most = COMPARED_ROWS if len(models) > 1 else MOST_ROWS
    most = min(most, max(FEWEST_ROWS, MOST_CELLS // len(columns)))
    # By groups, a sample would be some of them, each whole.
    return Sample(*survey.rows(parts, columns, most, by=settings.keys if settings.split.by else ()))


def some(rows: Sample, most: int) -> Sample:
    """So many of the rows at most, evenly spaced."""
    if len(rows.label) <= most:
        return rows
    chosen = np.linspace(0, len(rows.label) - 1, most).round().astype(np.int64)
    return Sample(rows.batch.take(as_arrow(chosen, np.int64)), rows.label[chosen])


def compare(candidate: Told, current: Told, rows: Sample, settings: Dataset) -> Optional[Figures]:
    """The candidate's main metric less the current model's on the same rows, with a 95 % interval: both are asked of
    each row, so what they find hard alike is no part of the difference. Of an RMSE by the delta method. None for few
    rows, and for rows of groups, which are alike: their interval would be too narrow."""
    task = settings.task
    if len(rows.label) < FEWEST_COMPARED or settings.split.by:
        return None
    losses = [losses_of(Answers(model, rows.batch).said, rows.label, task) for model in (candidate, current)]
    means = [float(own.mean()) for own in losses]
    if task == "regression":
        roots = [mean**0.5 for mean in means]
        each = sum(sign * own / (2 * root or 1) for sign, own, root in zip((1, -1), losses, roots))  # noqa: B905
        difference = roots[0] - roots[1]
    else:
        each, difference = losses[0] - losses[1], means[0] - means[1]
    reach = Z95 * float(np.std(each)) / len(rows.label) ** 0.5
    told = {"metric": tasks.MAIN[task], "difference": difference, "low": difference - reach, "high": difference + reach}
    return {**told, "level": 0.95, "rows": len(rows.label)}


def explain(model: Told, rows: Sample, settings: Dataset) -> Figures:
    """`permutation`, `dependence` and `examples` of metrics.json; each None if there is nothing to tell."""
    if not rows.batch.num_rows:
        return {"permutation": None, "dependence": None, "examples": None}
    rows = some(rows, MOST_ROWS)
    answers = Answers(model, rows.batch)
    used = [one["feature"] for one in forms.importances(model) if one["importance"] > 0][:MOST_FEATURES]
    most = max(FEWEST_ROWS, BUDGET // (answers.steps * REPEATS * max(len(used), 1)))
    if most < len(rows.label):
        rows = some(rows, most)
        answers = Answers(model, rows.batch)
    permuted = permutation(answers, rows.label, used, settings)
    first = [one["feature"] for one in permuted["features"][:DEPENDENT]]
    few = min(DEPENDENCE_ROWS, max(FEWEST_ROWS, BUDGET // (answers.steps * DEPENDENT * POINTS)))
    others = Answers(model, some(rows, few).batch)
    depending = [dependence(model, others, rows, feature) for feature in first]
    return {
        "permutation": permuted if used else None,
        "dependence": [one for one in depending if one["points"]] or None,
        "examples": None if reason_against(model) else examples(model, answers, rows, settings),
    }


def permutation(answers: Answers, label: Array, features: Sequence[str], settings: Dataset) -> Figures:
    """Of each feature by how much the main metric rises (lower is better), the mean and the standard deviation of
    `repeats` permutations; the largest first."""
    made, task = np.random.default_rng(settings.training.seed), settings.task
    before, found = loss(answers.said, label, task), []
    for feature in features:
        own = answers.numbers[answers.place[feature]].copy()
        said = answers.with_values(feature, [made.permutation(own) for _ in range(REPEATS)])
        rises = [loss(each, label, task) - before for each in said]
        found.append((float(np.mean(rises)), float(np.std(rises)), feature))
    found.sort(key=lambda one: -one[0])  # it keeps the order of equals
    main = tasks.MAIN[task]
    told = [{"feature": name, "increase": rise, "deviation": spread} for rise, spread, name in found]
    return {"metric": main, main: before, "rows": len(label), "repeats": REPEATS, "features": told}


def loss(said: Array, label: Array, task: str) -> float:
    """The main metric: log loss, or RMSE."""
    mean = float(losses_of(said, label, task).mean())
    return mean**0.5 if task == "regression" else mean


def losses_of(said: Array, label: Array, task: str) -> Array:
    """What the main metric is a mean of, by row: minus the log of its class's probability, or the error's square."""
    found: Array = said - label if task == "regression" else np.maximum(of_label(said, label), tasks.CLIP)
    return np.square(found) if task == "regression" else np.negative(np.log(found))


def of_label(said: Array, label: Array) -> Array:
    """The probability that each row's own class was given."""
    if said.ndim == 1:
        return np.where(label == 1, said, 1 - said)
    found: Array = said[np.arange(len(label)), label]
    return found


def dependence(model: Told, answers: Answers, rows: Sample, feature: str) -> Figures:
    """What is said on average by a feature's value: `points`, each {value, rows, says}, a missing value's (None) last.

    `says` has a number for each of `of`: classes, those that change most; or the one answer. A number's values are
    quantiles of the sample, a category's its most frequent ones; `rows` are the sample's that have the value.
    `answers`: of these rows, or of some of them.
    """
    told = next(one for one in model["features"] if one["name"] == feature)
    column = rows.batch.column(feature)
    if told["kind"] == "number":
        own = Scorer({**model, "features": [told]}, 0).numbers(rows.batch)
        known = np.sort(own[own > MISSING])
        at = (np.linspace(0.025, 0.975, POINTS if len(known) else 0) * (len(known) - 1)).round().astype(int)
        values = np.unique(known[at]).tolist()
        points = [{"value": value, "rows": int((known == value).sum()), "at": value} for value in values]
        missing = len(own) - len(known)
    else:
        counted = as_text(column).value_counts().to_pylist()
        of_value = {one["values"]: one["counts"] for one in counted}
        missing = of_value.pop(None, 0)
        frequent = sorted(
            (name for name in of_value if name in told["encoding"]), key=lambda name: (-of_value[name], name)
        )
        points = [{"value": name, "rows": of_value[name], "at": told["encoding"][name]} for name in frequent[:POINTS]]
    if missing or told.get("missing_rows"):
        points.append({"value": None, "rows": missing, "at": told["missing"]})
    if not points:  # of a category whose values in the sample training has not seen
        return {"feature": feature, "kind": told["kind"], "of": [], "points": []}
    said = np.array([each.mean(axis=0) for each in answers.with_values(feature, [one.pop("at") for one in points])])
    said = said.reshape(len(points), -1)
    classes = model.get("classes") or [""]
    shown = np.argsort(-np.ptp(said, axis=0), kind="stable")[:SHOWN_CLASSES]
    for point, each in zip(points, said):  # noqa: B905  # not in Python 3.9
        point["says"] = [float(value) for value in each[shown]]
    return {"feature": feature, "kind": told["kind"], "of": [classes[i] for i in shown], "points": points}


def examples(model: Told, answers: Answers, rows: Sample, settings: Dataset) -> Figures:
    """The rows of which most and least is said, and one in between, each with its reasons; of classes those that it is
    most and least sure of. `expected`: what the trees say on average, in `unit`; effects and `rest` add to it."""
    said = answers.said
    called = answers.scorer.called(said)
    score = said[np.arange(len(said)), called] if said.ndim > 1 else said
    order = np.argsort(score, kind="stable")
    chosen = dict.fromkeys([int(order[-1]), int(order[len(order) // 2]), int(order[0])])
    names = {int(order[-1]): "highest", int(order[0]): "lowest"}
    why, at = Reasons(model), list(chosen)
    effects = why.effects(answers.numbers[:, at], called[at])
    found, by = largest(effects, REASONS)
    classes = model.get("classes") or []
    told = []
    for place, features, moved, every in zip(at, found.tolist(), by.tolist(), effects):  # noqa: B905
        label = rows.label[place]
        told.append(
            {
                "which": names.get(place, "in between"),
                "keys": {key: _shown(rows.batch, key, place) for key in settings.keys},
                "says": float(score[place]),
                "called": classes[called[place]] if classes else None,
                "observed": classes[int(label)] if classes else float(label),
                "expected": float(why.expected[called[place] if len(why.expected) > 1 else 0]),
                "reasons": [
                    {
                        "feature": model["features"][i]["name"],
                        "value": _shown(rows.batch, model["features"][i]["name"], place),
                        "effect": effect,
                    }
                    for i, effect in zip(features, moved)  # noqa: B905  # not in Python 3.9
                    if effect
                ],
                "rest": float(every.sum() - sum(moved)),
            }
        )
    return {"unit": unit(model), "rows": told}


def _shown(batch: pa.RecordBatch, column: str, row: int) -> Optional[Any]:
    """A cell as JSON has it."""
    value = batch.column(column)[row].as_py()
    if isinstance(value, bool) or value is None or isinstance(value, (str, int)):
        return value
    if isinstance(value, float):
        return value if np.isfinite(value) else None
    return str(value)
