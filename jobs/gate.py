"""The gate: may a candidate replace the current model? train.py asks it; the state machine only reads the verdict."""

from typing import Any, Dict, List, Optional

from jobs.settings import Gate, Settings

Check = Dict[str, Any]


def judge(
    candidate: Dict[str, Any],
    baseline: Dict[str, Any],
    gate: Gate,
    current_run: Optional[str],
    current: Optional[Dict[str, Any]],
    feature_change: str,
) -> Dict[str, Any]:
    """gate.json: passed, reasons (of the checks that failed), checks, current_run.

    `candidate`, `baseline` and `current` are metrics on the same test rows; `current` is None if there is no current
    model, or if the table lacks a feature of it. `feature_change` says how the features differ from its, '' if not.
    """
    checks: List[Check] = [
        _check(
            "better than the base rate",
            candidate["log_loss"] < baseline["log_loss"],
            f"log loss {candidate['log_loss']:.4f}, always guessing the base rate {baseline['log_loss']:.4f}",
        ),
        _check(
            "no leak alarm",
            candidate["auc"] <= gate["suspicious_auc"],
            f"AUC {candidate['auc']:.4f}; above {gate['suspicious_auc']} a feature probably tells the label",
        ),
    ]
    if feature_change:
        checks.append(_check("features", True, f"the features are not those of run {current_run}: {feature_change}"))
    if current is not None:
        limit = current["log_loss"] + gate["tolerance"]
        checks.append(
            _check(
                "not worse than the current model",
                candidate["log_loss"] <= limit,
                f"log loss {candidate['log_loss']:.4f}, on the same rows run {current_run} has "
                f"{current['log_loss']:.4f}; tolerance {gate['tolerance']}",
            )
        )
    reasons = [f"{check['name']}: {check['detail']}" for check in checks if not check["passed"]]
    return {"passed": not reasons, "reasons": reasons, "checks": checks, "current_run": current_run}


def feature_change(current: List[str], settings: Settings) -> str:
    """How the declared features differ from the current model's, '' if they are the same."""
    declared = [*settings["features"]["numbers"], *settings["features"]["categories"]]
    added = [name for name in declared if name not in current]
    gone = [name for name in current if name not in declared]
    parts = [f"{word} {', '.join(names)}" for word, names in (("added", added), ("gone", gone)) if names]
    return "; ".join(parts)


def _check(name: str, passed: bool, detail: str) -> Check:
    return {"name": name, "passed": passed, "detail": detail}
