"""[decision]: from which probability on a row is called positive, and what the calls come to.

The threshold is chosen by rows of the validation part, which a model like the candidate has not seen: learned from the
rest of the training side as the candidate is from all of it (so scikit-learn's TunedThresholdClassifierCV with one
split and `refit`). Of two neighbouring probabilities the one half-way between them is taken, as a tree does.

With probabilities that can be taken at their word costs alone would say it, cost_of_false_alarm / (cost_of_false_alarm
+ cost_of_miss) (Elkan 2001, The Foundations of Cost-Sensitive Learning, IJCAI, section 1.3). Rows say it also where
they cannot (Sheng and Ling 2006, Thresholding for Making Classifiers Cost-sensitive, AAAI).
"""

from typing import Any, Dict, List, NamedTuple, Optional, Tuple

import numpy as np

from jobs.judges.metrics import Floats, Tally
from jobs.models.forms import THRESHOLD
from jobs.tables.settings import Dataset, Decision

POINTS = 200  # of a curve
SAME = 1e-9  # of a cost: less is the rounding of a sum
Figures = Dict[str, Any]


class Cuts(NamedTuple):
    """All that calls can be: from each probability on, and never. Parallel arrays in rising order of the threshold."""

    threshold: Floats
    misses: Floats
    alarms: Floats
    hits: Floats

    @property
    def called(self) -> Floats:
        return self.hits + self.alarms


def cuts(found: Tally) -> Cuts:
    """All ways to call the rows of `found`."""
    p, rows, positives = found
    between = p[:-1] / 2 + p[1:] / 2
    between = np.where((p[:-1] < between) & (between <= p[1:]), between, p[1:])
    above = p[-1] / 2 + 0.5
    never = above if above > p[-1] else np.nextafter(p[-1], 2)
    hits = np.append(np.cumsum(positives[::-1])[::-1], 0.0)
    alarms = np.append(np.cumsum((rows - positives)[::-1])[::-1], 0.0)
    return Cuts(np.concatenate([[p[0] / 2], between, [never]]), positives.sum() - hits, alarms, hits)


def choose(found: Tally, asked: Decision) -> Tuple[float, bool]:
    """The threshold, and whether what is wanted is reached by it; if not it is the nearest to that.

    `found`: the validation part, with rows of both kinds. Of thresholds that cost the same the one nearest to what
    the costs alone would say is chosen.
    """
    own = cuts(found)
    if asked.by_costs:
        miss, alarm = _costs(asked)
        cost = own.misses * miss + own.alarms * alarm
        cheapest = np.flatnonzero(cost <= cost.min() * (1 + SAME))
        ideal = alarm / (alarm + miss)
        return float(own.threshold[cheapest[np.abs(own.threshold[cheapest] - ideal).argmin()]]), True
    if asked.recall is not None:
        enough = np.flatnonzero(own.hits >= asked.recall * found.total_positives * (1 - SAME))
        return float(own.threshold[enough[-1]]), True  # calling all rows finds all
    assert asked.precision is not None  # noqa: S101  # one of the three is set
    precision = own.hits[:-1] / own.called[:-1]  # the last one calls nothing
    enough = np.flatnonzero(precision >= asked.precision * (1 - SAME))
    if len(enough):
        most = own.hits[enough].max()
        return float(own.threshold[enough[own.hits[enough] == most][-1]]), True
    return float(own.threshold[precision.argmax()]), False


def figures(found: Tally, threshold: float, asked: Decision) -> Figures:
    """What the calls of these rows come to: misses, false alarms and their cost, beside never and always calling."""
    says = found.probability >= threshold
    called, hits = int(found.rows[says].sum()), int(found.positives[says].sum())
    positives, rows = found.total_positives, found.total
    told: Figures = {
        "rows": rows,
        "positives": positives,
        "called": called,
        "misses": positives - hits,
        "false_alarms": called - hits,
        "recall": hits / positives if positives else None,
        "precision": hits / called if called else None,
    }
    if asked.by_costs:
        miss, alarm = _costs(asked)
        told["cost"] = miss * told["misses"] + alarm * told["false_alarms"]
        told.update(cost_of_never=miss * positives, cost_of_always=alarm * (rows - positives))
    return told


def curve(found: Tally) -> List[List[float]]:
    """Threshold, misses and false alarms of up to POINTS cuts, the first calls all rows, the last none: as many evenly
    among the cuts as evenly among the thresholds, since where rows are few these are far apart."""
    own = cuts(found)
    last = len(own.threshold) - 1
    evenly = np.linspace(own.threshold[0], own.threshold[-1], POINTS // 2)
    among = np.linspace(0, last, POINTS // 2).round().astype(int)
    kept = np.union1d(among, np.searchsorted(own.threshold, evenly).clip(0, last))
    return [[float(x) for x in (own.threshold[i], own.misses[i], own.alarms[i])] for i in kept]


def told(
    asked: Decision, chosen: Figures, test: Tally, later: Optional[Figures], current: Optional[Figures] = None
) -> Figures:
    """metrics.json's `decision`. `chosen`: threshold, `reached`, and the `validation` part's figures and curve.

    `later`: the figures of later rows; `current`: of the current model's calls of the same test rows, if it decides by
    the same.
    """
    threshold = chosen["threshold"]
    found = {
        "asked": asked.asked,
        **chosen,
        "test": figures(test, threshold, asked),
        "out_of_time": later,
        "curve": curve(test),
        "current": current,
    }
    return {**found, "says": says(found)}


def says(found: Figures) -> List[str]:
    """What the threshold is and what it means in rows, a sentence each, for people: on later rows first."""
    asked, of = found["asked"], found["validation"]
    where = f"on the validation part ({of['rows']:,} rows)"
    threshold = f"A row is called positive from a probability of {found['threshold']:.4g} on"
    if "cost_of_miss" in asked:
        miss, alarm = asked["cost_of_miss"], asked["cost_of_false_alarm"]
        how = f"{threshold}, where errors cost least {where}: a miss {miss:g}, a false alarm {alarm:g}."
    elif "recall" in asked:
        hits = f"{of['positives'] - of['misses']:,} of {of['positives']:,}"
        how = f"{threshold}, the highest that finds {asked['recall']:.0%} of the positive rows {where}: {hits}."
    else:
        right = f"{of['called'] - of['false_alarms']:,} of {of['called']:,} calls are right"
        wanted = f"a precision of {asked['precision']:.0%} {where}"
        how = f"{threshold}: of those with {wanted} it finds most; {right}."
        if not found["reached"]:
            best = f"this one has the best there is, {of['precision']:.0%} ({right})"
            how = f"{threshold}. No threshold has the wanted {wanted.removeprefix('a ')}: {best}."
    later, test = found["out_of_time"], found["test"]
    told = [_in_rows(later, "later rows", asked)] if later else []
    return [how, *told, _in_rows(test, "held-out rows", asked)]


def sentences(
    settings: Dataset, test: Figures, call: Any, weights: Optional[Dict[str, float]], decided: Optional[Figures]
) -> List[str]:
    """What people must know of the calls: metrics.json's `calls`, [] if rows are called as everywhere.

    `test`: figures of the test rows; `call`: a threshold of its own, or weights; `weights`: of the classes.
    """
    told = []
    if column := settings.training.weight_column:
        average = "mean" if settings.task == "regression" else "shares"
        told.append(
            f"A row counted as much as {column} says while it was learned from, so what the model says is of rows "
            f"weighted so. Figures count each row once; guessing is by the weighted {average} of the training side."
        )
    if weights:
        each = ", ".join(f"{name} {weight:.3g}" for name, weight in weights.items())
        told.append(
            f"A row counted by its class while it was learned from ({each}). Probabilities and figures are of rows as "
            "they are, each counted once."
        )
        if not decided:
            told.append(
                f"A row is called positive from a probability of {call:.4g} on, where both classes weigh as much."
                if isinstance(call, float)
                else "A row is called the class whose probability, times its weight, is the largest."
            )
    if decided:
        return [*told, *decided["says"]]
    confusion = test.get("confusion")
    if isinstance(confusion, dict) and not confusion["tp"] + confusion["fp"]:
        threshold = THRESHOLD if call is None else call
        told.append(
            f"No held-out row is called positive: no probability reaches {threshold:.4g}. Rank rows by it, or let "
            "[decision] in dataset.toml choose a threshold by what errors cost."
        )
    return told


def _in_rows(of: Figures, where: str, asked: Dict[str, float]) -> str:
    if not of["called"]:
        calls = (
            f"none of {of['rows']:,} {where} is called positive, so all {of['positives']:,} positive ones are missed"
        )
    else:
        calls = (
            f"of {of['rows']:,} {where} {of['called']:,} are called positive: {of['misses']:,} of {of['positives']:,} "
            f"positive ones are missed, {of['false_alarms']:,} are false alarms"
        )
        if of["called"] == of["rows"]:
            calls = f"all {of['rows']:,} {where} are called positive: {of['false_alarms']:,} are false alarms"
    if "cost" in of:
        calls += (
            f"; that costs {_amount(of['cost'])}, never calling {_amount(of['cost_of_never'])}, always calling "
            f"{_amount(of['cost_of_always'])}"
        )
    for wanted in ("recall", "precision"):
        if of[wanted] is not None and "cost" not in of:
            calls += f"; {wanted} {of[wanted]:.0%}"
            if wanted in asked and of[wanted] < asked[wanted]:
                calls += f", less than the {asked[wanted]:.0%} wanted"
    return f"{calls[0].upper()}{calls[1:]}."


def _costs(asked: Decision) -> Tuple[float, float]:
    assert asked.cost_of_miss is not None and asked.cost_of_false_alarm is not None  # noqa: S101  # see Decision
    return asked.cost_of_miss, asked.cost_of_false_alarm


def _amount(cost: float) -> str:
    return f"{cost:,.0f}" if abs(cost) >= 1000 or cost == round(cost) else f"{cost:.4g}"
