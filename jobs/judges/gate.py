"""The gate: may a candidate replace the current model? train.py asks it; the state machine only reads the verdict."""

from typing import Any, Dict, List, NamedTuple, Optional, Sequence

from jobs.models.tasks import MAIN
from jobs.tables.settings import Dataset

Check = Dict[str, Any]
NAMES = {"log_loss": "log loss", "rmse": "RMSE", "auc": "AUC", "r2": "R2"}
GUESS = {"binary": "the base rate", "multiclass": "the class shares", "regression": "the mean"}


class Current(NamedTuple):
    """The current model. `metrics`: on the candidate's test rows, None if it cannot score them.

    `change`: how the candidate differs in features or task, '' if not. `later`: its own figures out of time.
    """

    run_id: str
    metrics: Optional[Dict[str, Any]]
    change: str
    later: Optional[Dict[str, Any]]


def judge(
    settings: Dataset,
    candidate: Dict[str, Any],
    baseline: Dict[str, Any],
    *,
    current: Optional[Current] = None,
    later: Optional[Dict[str, Any]] = None,
    leaks: Sequence[str] = (),
    quarantined: int = 0,
    raw_rows: int = 0,
) -> Dict[str, Any]:
    """gate.json: passed, reasons (of the checks that failed), checks, current_run.

    `candidate` and `baseline` are metrics on the same test rows, `later` those out of time. `leaks`: sentences about
    features that alone tell the label. `quarantined` of `raw_rows` rows did not parse.
    """
    rules, task = settings.gate, settings.task
    main, guess = MAIN[task], GUESS[task]
    name = NAMES[main]
    strong, limit = ("r2", rules.suspicious_r2) if task == "regression" else ("auc", rules.suspicious_auc)
    checks: List[Check] = [
        _check(
            f"better than {guess}",
            candidate[main] < baseline[main],
            f"{name} {candidate[main]:.4f}, always guessing {guess} {baseline[main]:.4f}",
        ),
        _check(
            "no leak alarm",
            candidate[strong] <= limit and not leaks,
            "; ".join(leaks)
            or f"{NAMES[strong]} {candidate[strong]:.4f}; above {limit} a feature probably tells the label",
        ),
    ]
    if raw_rows:
        share, most = quarantined / raw_rows, rules.max_quarantined_share
        told = f"{quarantined:,} of {raw_rows:,} raw rows are in quarantine ({share:.2%}); allowed are {most:.2%}"
        checks.append(_check("data quality", share <= most, told))
    if rules.out_of_time and later is not None:
        told = f"{name} {later[main]:.4f} on later rows, always guessing {guess} {later['baseline'][main]:.4f}"
        checks.append(_check(f"better than {guess} out of time", later[main] < later["baseline"][main], told))
    if current is not None:
        checks += _against(current, settings, candidate, later)
    reasons = [f"{check['name']}: {check['detail']}" for check in checks if not check["passed"]]
    return {
        "passed": not reasons,
        "reasons": reasons,
        "checks": checks,
        "current_run": current.run_id if current else None,
    }


def feature_change(task: str, names: List[str], settings: Dataset) -> str:
    """How what is declared differs from a model of `task` on the features `names`, '' if it doesn't."""
    declared = settings.features.names
    added = [name for name in declared if name not in names]
    gone = [name for name in names if name not in declared]
    parts = [f"{word} {', '.join(found)}" for word, found in (("added", added), ("gone", gone)) if found]
    if task != settings.task:
        parts.append(f"the task was {task} and is {settings.task}")
    return "; ".join(parts)


def _against(
    current: Current, settings: Dataset, candidate: Dict[str, Any], later: Optional[Dict[str, Any]]
) -> List[Check]:
    rules, main = settings.gate, MAIN[settings.task]
    name, tolerance = NAMES[main], rules.tolerance
    checks = []
    if current.change:
        declared = rules.feature_change
        told = f"the features are not those of run {current.run_id}: {current.change}"
        told += (
            f"; declared: {declared}"
            if declared
            else f". If that is meant, say why in gate.feature_change of {settings.file}"
        )
        checks.append(_check("features", bool(declared), told))
    if current.metrics is not None:
        told = (
            f"{name} {candidate[main]:.4f}, on the same rows run {current.run_id} has {current.metrics[main]:.4f}; "
            f"tolerance {tolerance}"
        )
        fits = candidate[main] <= current.metrics[main] + tolerance
        checks.append(_check("not worse than the current model", fits, told))
    # Both were trained on the earlier rows only, so the current model's own figure is the fair one: as the current
    # model it has seen the later rows. It can be compared if it is of as many rows.
    if rules.out_of_time and later and current.later and current.later["rows"] == later["rows"]:
        told = (
            f"{name} {later[main]:.4f} on later rows, run {current.run_id} had {current.later[main]:.4f}; "
            f"tolerance {tolerance}"
        )
        fits = later[main] <= current.later[main] + tolerance
        checks.append(_check("not worse than the current model out of time", fits, told))
    return checks


def _check(name: str, passed: bool, detail: str) -> Check:
    return {"name": name, "passed": bool(passed), "detail": detail}
