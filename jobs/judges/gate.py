"""The gate: may a candidate replace the current model? train.py asks it; the state machine only reads the verdict."""

from typing import Any, Dict, List, NamedTuple, Optional, Sequence, Tuple

from jobs.models.tasks import MAIN
from jobs.tables.settings import Dataset

Check = Dict[str, Any]
NAMES = {"log_loss": "log loss", "rmse": "RMSE", "auc": "AUC", "r2": "R2", "accuracy": "accuracy"}
USUAL = 0.99  # a figure of the whole model beyond which it is worth a look
WORSE = "Who uses it would get worse answers: look what has changed in the data (drift.json),"
GUESS = {"binary": "the base rate", "multiclass": "the class shares", "regression": "the mean"}


class Current(NamedTuple):
    """The current model. `metrics`: on the candidate's test rows, None if it cannot score them.

    `change`: how the candidate differs in features or task, '' if not. `later`: its own figures out of time,
    None if there are none or they are of another task. `split`: how its rows were split, if that was otherwise;
    `weights`: what to know if its rows were weighted otherwise (as of `weighted_otherwise`).
    `decided`, `decided_later`: what its calls come to on the candidate's test rows, and its own out of time, None if
    it decides by something else ([decision]).
    """

    run_id: str
    metrics: Optional[Dict[str, Any]]
    change: str
    later: Optional[Dict[str, Any]]
    split: str = ""
    decided: Optional[Dict[str, Any]] = None
    decided_later: Optional[Dict[str, Any]] = None
    weights: str = ""


def judge(
    settings: Dataset,
    candidate: Dict[str, Any],
    baseline: Dict[str, Any],
    *,
    current: Optional[Current] = None,
    later: Optional[Dict[str, Any]] = None,
    decided: Optional[Dict[str, Any]] = None,
    leaks: Sequence[str] = (),
    quarantined: int = 0,
    raw_rows: int = 0,
    unknown_labels: Optional[Dict[str, Any]] = None,
) -> Dict[str, Any]:
    """gate.json: passed, reasons (of the checks that failed), checks, current_run.

    `candidate` and `baseline` are metrics on the same test rows. `later`: those out of time, by which is judged first
    unless gate.out_of_time is false. `decided`: metrics.json's `decision`, where [decision] is asked for. `leaks`:
    sentences about features that alone tell the label. `quarantined` of `raw_rows` rows did not parse.
    `unknown_labels`: as of jobs/tables/labels.py.

    A check is called by what it has found. The detail of one that failed says why that matters and the two ways on: to
    mend the cause, or the setting that accepts it.
    """
    rules, task = settings.gate, settings.task
    main, guess = MAIN[task], GUESS[task]
    name = NAMES[main]
    checks: List[Check] = []
    if settings.time_decides and later is not None:
        told = (
            f"{name} {later[main]:.4f} on {later['rows']:,} later rows, always guessing {guess} "
            f"{later['baseline'][main]:.4f}"
        )
        names = (f"better than {guess} out of time", f"no better than {guess} out of time")
        aged = (
            "It will not help tomorrow, however good it looks on rows of days that it knows: leave out of the features "
            "what tells single days (a month, a year, the day's weather) or means something else by now, or "
            f"{_larger_leaves(settings)}; or accept it by gate.out_of_time = false in {settings.file}"
        )
        checks.append(_check(names, later[main] < later["baseline"][main], told, aged))
    told = f"{name} {candidate[main]:.4f}, always guessing {guess} {baseline[main]:.4f}"
    helpless = "What it has learned does not help: give it features that tell more, or more rows"
    checks += [
        _check((f"better than {guess}", f"no better than {guess}"), candidate[main] < baseline[main], told, helpless),
        _leak_alarm(settings, candidate, leaks),
    ]
    if decided:
        checks += _decision(settings, decided)
    if raw_rows:
        share, most = quarantined / raw_rows, rules.max_quarantined_share
        told = f"{quarantined:,} of {raw_rows:,} raw rows are in quarantine ({share:.2%}); allowed are {most:.2%}"
        ways = (
            "What is missing may be of one kind, and the model wrong about it: mend the files or what [tables] says of "
            f"them, or set gate.max_quarantined_share in {settings.file}"
        )
        checks.append(_check(("data quality", "too many rows in quarantine"), share <= most, told, ways))
    if unknown_labels:
        told = f"{unknown_labels['rows']:,} of {unknown_labels['labelled']:,} labels are unknown texts and left out"
        if unknown_labels["texts"]:
            told += f" ({', '.join(f'{text!r} {count:,}' for text, count in unknown_labels['texts'].items())})"
        within = unknown_labels["rows"] <= rules.max_unknown_label_share * unknown_labels["labelled"]
        ways = f"Mend the files or label.texts, or set gate.max_unknown_label_share in {settings.file}"
        checks.append(_check(("labels known", "unknown labels"), within, told, ways))
    if current is not None:
        checks += _against(current, settings, candidate, later, decided)
    reasons = [f"{check['name']}: {check['detail']}" for check in checks if not check["passed"]]
    return {
        "passed": not reasons,
        "reasons": reasons,
        "checks": checks,
        "current_run": current.run_id if current else None,
    }


def _decision(settings: Dataset, decided: Dict[str, Any]) -> List[Check]:
    """Of [decision] by costs: whether the calls save anything; by precision: whether a threshold has the wanted one.

    A wanted recall always has a threshold. Whether it has it on other rows too, chance decides as well: that is told.
    """
    asked = decided["asked"]
    if "precision" in asked:
        names = ("the wanted precision is reached", "the wanted precision is reached by no threshold")
        told = decided["says"][0].rstrip(".")
        ways = (
            "What it calls positive will be wrong more often than is wanted: give it features that tell more, or set a "
            f"lower decision.precision in {settings.file}"
        )
        return [_check(names, decided["reached"], told, ways)]
    if "cost_of_miss" not in asked:
        return []
    checks = []
    for of, where, there in ((decided["out_of_time"], "later", " out of time"), (decided["test"], "held-out", "")):
        if of is None or (there and not settings.time_decides):
            continue
        least = min(of["cost_of_never"], of["cost_of_always"])
        rule = "never" if of["cost_of_never"] <= of["cost_of_always"] else "always"
        names = (f"cheaper than one call for all{there}", f"no cheaper than one call for all{there}")
        told = (
            f"errors cost {of['cost']:,.6g} on {of['rows']:,} {where} rows, {rule} calling a row positive costs "
            f"{least:,.6g}"
        )
        ways = (
            f"At these costs {rule} calling does as well without a model: give it features that tell more, look "
            "whether decision.cost_of_miss and cost_of_false_alarm are right, or leave out [decision] in "
            f"{settings.file} and use the probabilities"
        )
        checks.append(_check(names, of["cost"] < least, told, ways))
    return checks


def _larger_leaves(settings: Dataset) -> str:
    learner = settings.training.learner
    if learner in ("boosted", "forest"):
        return "set a larger training.min_leaf"
    own = 'set training.learner = "tree" and ' if learner == "best" else ""
    return f"{own}have [tune] choose larger leaves"


def weighted_otherwise(then: Any, settings: Dataset) -> str:
    """What to know of two figures, if a model was trained with other [training] weights than the candidate: `then`, ''
    for none. It goes on after a check's words; '' if they are the same.

    By class, what models say is corrected back and figures compare (docs/models.md, Weights); by a column it is not.
    """
    now = settings.training.weights
    if then == now:
        return ""
    told = f"; that one was trained with {_weights(then)}, this one with {_weights(now)} (training.weights)"
    if any(isinstance(each, str) and each not in ("", "balanced") for each in (then, now)):
        told += ", so they tell shares of rows weighted differently, while here each row counts once"
    return told


def _weights(given: Any) -> str:
    if isinstance(given, dict):
        return f"weights {', '.join(f'{name} {weight:g}' for name, weight in given.items())}"
    return {"": "no weights", "balanced": "balanced classes"}.get(given, f"rows weighted by {given}")


def feature_change(task: str, kinds: Dict[str, str], settings: Dataset) -> str:
    """How what is declared differs from a model of `task` on features of these `kinds`, by name; '' if it doesn't."""
    declared, names = settings.features.names, list(kinds)
    added = [name for name in declared if name not in names]
    gone = [name for name in names if name not in declared]
    parts = [f"{word} {', '.join(found)}" for word, found in (("added", added), ("gone", gone)) if found]
    parts += [f"{name} was a {kinds[name]} and is a {now}" for name, now in changed_kinds(kinds, settings).items()]
    if task != settings.task:
        parts.append(f"the task was {task} and is {settings.task}")
    return "; ".join(parts)


def changed_kinds(kinds: Dict[str, str], settings: Dataset) -> Dict[str, str]:
    """Features of a model that are declared to be of another kind by now: what they are."""
    now = {
        **dict.fromkeys(settings.features.numbers, "number"),
        **dict.fromkeys(settings.features.categories, "category"),
    }
    return {name: now[name] for name, kind in kinds.items() if now.get(name, kind) != kind}


def _leak_alarm(settings: Dataset, candidate: Dict[str, Any], leaks: Sequence[str]) -> Check:
    """Features that alone tell the label; and the whole model's figure, if the settings set it a bound. Without one it
    is only told: a first model of easy data may well be right nearly always.
    """
    rules = settings.gate
    figure, setting, bound = {
        "binary": ("auc", "suspicious_auc", rules.suspicious_auc),
        "multiclass": ("accuracy", "suspicious_share", None),  # that is for single features
        "regression": ("r2", "suspicious_r2", rules.suspicious_r2),
    }[settings.task]
    told = f"{NAMES[figure]} {candidate[figure]:.4f}"
    beyond = bound is not None and candidate[figure] > bound
    if beyond:
        found = [*leaks, f"{told}, above gate.{setting} = {bound:g}"]
    elif leaks:
        found = [*leaks]
    else:
        found = ["no single feature tells the label"]
        if bound is not None:
            found.append(f"of the whole model {told}, not above gate.{setting} = {bound:g}")
        elif candidate[figure] > USUAL:
            found.append(
                f"of the whole model {told}, so good that it is worth a look: is each feature known beforehand?"
            )
    ways = (
        "A model that has seen the answer fails on rows whose answer is not known yet: leave out of the features what "
        "is made from the label or known only after it; or, if all of it is known before, accept it by "
        f"gate.{setting} = 1.0 in {settings.file}"
    )
    return _check(("no leak alarm", "leak alarm"), not beyond and not leaks, "; ".join(found), ways)


def _against(
    current: Current,
    settings: Dataset,
    candidate: Dict[str, Any],
    later: Optional[Dict[str, Any]],
    decided: Optional[Dict[str, Any]],
) -> List[Check]:
    rules, main = settings.gate, MAIN[settings.task]
    name, tolerance = NAMES[main], rules.tolerance
    checks = []
    by_costs = decided is not None and current.decided is not None and "cost" in current.decided
    if current.change:
        declared = rules.feature_change
        told = f"the features are not those of run {current.run_id}: {current.change}"
        told += (
            f"; declared: {declared}"
            if declared
            else f". If that is meant, say why in gate.feature_change of {settings.file}; else restore them"
        )
        checks.append(_check(("features", "other features"), bool(declared), told))
    if current.metrics is not None:
        fits = candidate[main] <= current.metrics[main] + tolerance
        told = (
            f"{name} {candidate[main]:.4f}, on the same rows run {current.run_id} has {current.metrics[main]:.4f}; "
            f"tolerance {tolerance}"
        )
        ways = f"{WORSE} or set gate.tolerance in {settings.file}"
        if by_costs and decided and current.decided:
            fits, told, ways = _costs(settings, current.run_id, decided["test"], current.decided, "the same rows")
        if current.split:
            told += f"; that one was split {current.split} and has learned from some of them, so its figure is too good"
            ways = (
                "If the new split is meant, judge by what guessing has, and promote the candidate by hand: "
                f"dml models promote RUN --dataset {settings.name} --even-if-refused"
            )
        told += current.weights
        names = ("not worse than the current model", "worse than the current model")
        checks.append(_check(names, fits, told, ways))
    # Both were trained on the earlier rows only, so the current model's own figure is the fair one: as the current
    # model it has seen the later rows. It can be compared if it is of as many rows.
    if settings.time_decides and later and current.later and current.later["rows"] == later["rows"]:
        told = (
            f"{name} {later[main]:.4f} on later rows, run {current.run_id} had {current.later[main]:.4f}; "
            f"tolerance {tolerance}"
        )
        fits, ways = later[main] <= current.later[main] + tolerance, f"{WORSE} or set gate.tolerance in {settings.file}"
        if by_costs and decided and decided["out_of_time"] and current.decided_later:
            here, there = decided["out_of_time"], current.decided_later
            fits, told, ways = _costs(settings, current.run_id, here, there, "later rows")
        told += current.weights
        names = ("not worse than the current model out of time", "worse than the current model out of time")
        checks.append(_check(names, fits, told, ways))
    return checks


def _costs(
    settings: Dataset, run_id: str, own: Dict[str, Any], other: Dict[str, Any], where: str
) -> Tuple[bool, str, str]:
    """Whether errors cost no more than the current model's, by [decision] of both; in words; and the ways on."""
    most = settings.gate.cost_tolerance
    beside = f"on {where} those of run {run_id} cost {other['cost']:,.6g}"
    told = f"errors cost {own['cost']:,.6g}, {beside}; tolerance {most:.0%}"
    ways = f"{WORSE} or set gate.cost_tolerance in {settings.file}"
    return own["cost"] <= other["cost"] * (1 + most), told, ways


def _check(names: Tuple[str, str], passed: bool, detail: str, ways: str = "") -> Check:
    """`names`: of a check that has passed, and of one that has not; `ways`: on, if it has not."""
    if not passed and ways:
        detail = f"{detail}. {ways}."
    return {"name": names[0 if passed else 1], "passed": bool(passed), "detail": detail}
