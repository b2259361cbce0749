"""How far a table has moved from the one that a model learned from: drift.json, out of two profiles.

The population stability index of a feature is the sum over bins of `(q - p) * ln(q / p)`, p and q the old and the new
share of rows (Jeffreys' divergence; Siddiqi 2006, Credit Risk Scorecards, also for the thresholds). Bins are the old
profile's: deciles of a number, the most frequent values of a category with all others as one, values that the old table
did not have as one, and missing as one. Each count has SMOOTHING added, so that an empty bin costs much but not
everything. Between two samples of one distribution, PSI / (1/n + 1/m) is about chi-squared with one degree of freedom
fewer than bins (Yurdakul 2018, Statistical properties of population stability index): what chance alone exceeds only
once in a hundred features is `chance`, and an index not above it is called stable whatever its size.
"""

import math
from typing import Any, Dict, List, Optional, Sequence, Tuple

from jobs.errors import JobError
from jobs.judges.profiling import Cell, Profile, bins_of, names_all

MODERATE, LARGE = 0.1, 0.25
SMOOTHING = 0.5  # rows added to each bin
STABLE, CHANGED, MOVED = "stable", "moderate", "large"
_Z99 = 2.3263  # the standard normal distribution's 99 % point


def drift(old: Profile, new: Profile) -> Dict[str, Any]:
    """drift.json: each feature's PSI, verdict, and change of missing values, range or categories; the label's; overall.

    `new` must have been made by `profile(rows, settings, reference=old)`, which counts its rows over the old bins.
    `added` and `gone` are features that only one profile has, or has as another kind. The overall verdict is that of
    the feature (or label) that moved most. Raises JobError if `new` was not counted over the bins of `old`.
    """
    kinds = {feature["name"]: feature["kind"] for feature in new["features"]}
    before = {f["name"]: f for f in old["features"] if kinds.get(f["name"]) == f["kind"]}
    features = [_feature(before[f["name"]], f) for f in new["features"] if f["name"] in before]
    features.sort(key=lambda feature: (-feature["psi"], feature["name"]))
    label = _label(old, new)
    verdicts = [told["verdict"] for told in [*features, *([label] if label else [])]]
    counts = {verdict: verdicts.count(verdict) for verdict in (STABLE, CHANGED, MOVED)}
    return {
        "format": 1,
        "rows": {"old": old["rows"], "new": new["rows"]},
        "verdict": next((verdict for verdict in (MOVED, CHANGED) if counts[verdict]), STABLE),
        "verdicts": counts,
        "added": [name for name in kinds if name not in before],
        "gone": [f["name"] for f in old["features"] if f["name"] not in before],
        "label": label,
        "features": features,
    }


def psi(old: Sequence[float], new: Sequence[float]) -> Tuple[float, float]:
    """The index of two parallel lists of counts, and what chance alone exceeds once in a hundred times.

    Bins that are empty in both are left out. No rows on either side, or one bin: both are 0.
    """
    bins = [(a, b) for a, b in zip(old, new) if a or b]  # noqa: B905  # Python 3.9 has no strict
    n, m, k = sum(a for a, _ in bins), sum(b for _, b in bins), len(bins)
    if not n or not m or k < 2:
        return 0.0, 0.0
    index = 0.0
    for a, b in bins:
        p, q = (a + SMOOTHING) / (n + SMOOTHING * k), (b + SMOOTHING) / (m + SMOOTHING * k)
        index += (q - p) * math.log(q / p)
    spread = 2 / (9 * (k - 1))  # Wilson and Hilferty 1931: the cube root of chi-squared is nearly normal
    return index, (k - 1) * (1 - spread + _Z99 * math.sqrt(spread)) ** 3 * (1 / n + 1 / m)


def _judged(old: Sequence[float], new: Sequence[float]) -> Dict[str, Any]:
    index, chance = psi(old, new)
    verdict = STABLE
    if index >= MODERATE and index > chance:
        verdict = MOVED if index > LARGE else CHANGED
    return {"psi": index, "chance": chance, "verdict": verdict}


def _feature(old: Cell, new: Cell) -> Dict[str, Any]:
    counted = new.get("reference")
    bins = "deciles" if old["kind"] == "number" else "values"
    own = old["deciles"] if old["kind"] == "number" else [cell["value"] for cell in old["top"]]
    if counted is None or counted[bins] != own:
        raise JobError(
            f"The new profile's {new['name']} was not counted over the old profile's bins: make it with "
            "profile(rows, settings, reference=old)."
        )
    missing_old, missing_new = old["missing"]["rows"], counted["missing"]
    told: Dict[str, Any] = {"name": new["name"], "kind": new["kind"]}
    if old["kind"] == "number":
        told.update(_judged([*_by_decile(old), missing_old], [*counted["rows"], missing_new]))
        told["range"] = _range(old, new)
    else:
        before = [*[cell["rows"] for cell in old["top"]], old["others"]["rows"], 0, missing_old]
        after = [*counted["rows"], counted["others"], counted["new"] or 0, missing_new]
        told.update(_judged(before, after))
        told["categories"] = _categories(old, new, counted)
    shares = {"old": _share(missing_old, _rows(old)), "new": _share(missing_new, _rows(new))}
    told["missing"] = {**shares, "change": shares["new"] - shares["old"]}
    return told


def _by_decile(feature: Cell) -> List[int]:
    """Rows of a number over its own deciles: its histogram's edges hold them, so its bins fall into them whole."""
    rows = [0] * (len(feature["deciles"]) + 1)
    for cell in feature["histogram"]:
        rows[sum(decile < cell["to"] for decile in feature["deciles"])] += cell["rows"]
    return rows


def _range(old: Cell, new: Cell) -> Dict[str, Any]:
    """Both ranges, and whether the new one goes beyond the old one, where a tree knows nothing."""
    ends = {"old": [old["min"], old["max"]], "new": [new["min"], new["max"]]}
    known = old["min"] is not None and new["min"] is not None
    return {**ends, "below": known and new["min"] < old["min"], "above": known and new["max"] > old["max"]}


def _categories(old: Cell, new: Cell, counted: Cell) -> Dict[str, Any]:
    """Old top values that are gone; new ones by name, with their rows, or None if the old profile doesn't name all."""
    values = zip(counted["values"], counted["rows"])  # noqa: B905  # Python 3.9 has no strict
    told: Dict[str, Any] = {"gone": [value for value, rows in values if not rows], "new": None, "new_rows": None}
    if names_all(old):
        known = {*counted["values"], *old["others"]["names"]}
        now = [*[cell["value"] for cell in new["top"]], *new["others"]["names"]]
        told.update({"new": [value for value in now if value not in known], "new_rows": counted["new"]})
    return told


def _label(old: Profile, new: Profile) -> Optional[Dict[str, Any]]:
    """How the label of the training rows moved; None if a profile knows no label."""
    was, now = old["label"], new["label"]
    if was is None or now is None or old["task"] != new["task"]:
        return None
    told: Dict[str, Any] = {"column": now["column"]}
    if new["task"] == "binary":
        both = [[label["positives"], label["rows"] - label["positives"]] for label in (was, now)]
        return {**told, **_judged(*both), "old": was["rate"], "new": now["rate"]}
    if new["task"] == "regression":
        counted = now.get("reference")
        if counted is None or counted["deciles"] != was["deciles"]:
            raise JobError(
                f"The new profile's label {now['column']} was not counted over the old profile's bins: make it with "
                "profile(rows, settings, reference=old)."
            )
        return {**told, **_judged(_by_decile(was), counted["rows"]), "old": was["mean"], "new": now["mean"]}
    classes = list(dict.fromkeys([*was["classes"], *now["classes"]]))
    of_class = [dict(zip(label["classes"], label["counts"])) for label in (was, now)]  # noqa: B905
    before, after = ([counts.get(name, 0) for name in classes] for counts in of_class)
    shares = [{name: _share(counts.get(name, 0), sum(counts.values())) for name in classes} for counts in of_class]
    return {**told, **_judged(before, after), "old": shares[0], "new": shares[1]}


def _rows(feature: Cell) -> int:
    return sum(int(cell["rows"]) for cell in bins_of(feature))


def _share(part: int, whole: int) -> float:
    return part / whole if whole else 0.0
