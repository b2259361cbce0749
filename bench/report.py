"""docs/benchmarks.md from the results: tables of medians, and each target with what was measured against it."""

import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from bench import contenders
from bench.data import HOME

TITLES = {
    "mllib": "MLlib as tutorials write it",
    "mllib_our_java": "the same, Java told as ours",
    "ours": "**this project**",
    "sklearn_codes": "scikit-learn, codes",
    "sklearn_frequency": "scikit-learn, categories by frequency",
    "xgboost_codes": "XGBoost, codes",
    "xgboost_native": "XGBoost, its own categories",
    "lightgbm_codes": "LightGBM, codes",
    "lightgbm_native": "LightGBM, its own categories",
    "sklearn_our_encoding": "scikit-learn, our encoding",
}
PEERS = [
    name for name in TITLES if name.startswith(("sklearn", "xgboost", "lightgbm")) and name != "sklearn_our_encoding"
]
REPEAT = (
    "Repeat it on a quiet machine: `make bench`; a part: `make bench ROWS=337k REPETITIONS=1`. An interrupted run "
    "goes on where it was; `FRESH=1` measures again. The pipeline's overhead: `dml run nyc_flights --local --json > "
    "run.json`, then `make bench PIPELINE=run.json`."
)
PREPARE_TITLES = {
    "ours": "**this project** (Spark)",
    "spark": "plain Spark, the same query",
    "duckdb": "DuckDB, the same query",
    "pandas": "pandas, by hand",
}
BEFORE = ("embedded cloud", "deploy", "raw data", "total")  # seconds of `dml run --json` that are not the state machine
STAGES, COMPARED = "## Prepare and predict as stages", "## What is compared, and how"
ENSEMBLES = "## Boosted trees and forests"
ENSEMBLE_TITLES = {
    "ours_boosted": "**this project**, boosted",
    "xgboost_boosted": "XGBoost alone, codes",
    "xgboost_boosted_native": "XGBoost alone, its own categories",
    "lightgbm_boosted": "LightGBM, codes",
    "lightgbm_boosted_native": "LightGBM, its own categories",
    "mllib_gbt": "MLlib's GBTClassifier, a tenth of the rounds",
    "ours_forest": "**this project**, forest (MLlib's splits)",
    "mllib_forest": "MLlib's RandomForestClassifier",
}
BESIDE = {"cpu": 1, "peak": 2, "auc": 4, "log_loss": 4}  # with digits
STAGE_TITLES = {"spark": "plain Spark", "ours": "**this project** (Spark)", "duckdb": "DuckDB"}
SHALLOW, DEEP = 5, 12
LEVEL = 0.001  # what "level" allows in AUC
GIB = 2**30
FIGURES = {"fit": 2, "end_to_end": 1, "peak": 2, "auc": 4, "log_loss": 4}  # with digits

NOTES = Path(__file__).with_name("notes.md")


@dataclass(frozen=True)
class Spread:
    """Median and range over the repetitions."""

    values: tuple[float, ...]

    @property
    def median(self) -> float:
        return median(self.values)

    def told(self, digits: int) -> str:
        if len(self.values) == 1:
            return f"{self.median:.{digits}f}"
        return f"{self.median:.{digits}f} ({min(self.values):.{digits}f}..{max(self.values):.{digits}f})"


@dataclass(frozen=True)
class Target:
    """A target and what was measured against it; `met` is None where something for it was not measured."""

    text: str
    measured: str
    met: bool | None


class Measured:
    """The measurements of one revision, by what they are of."""

    def __init__(self, results: Mapping[str, Any], revision: str) -> None:
        self.entries = [entry for entry in results["measurements"] if entry["revision"] == revision]
        self.rows = {size: told["rows"] for size, told in results["data"].items()}
        trained = {entry["size"] for entry in self.entries if entry["kind"] == "train"}
        self.sizes = sorted(trained, key=lambda size: int(self.rows[size]))
        self.depths = sorted({entry["depth"] for entry in self.entries if entry["kind"] == "train"})

    def of(self, contender: str, size: str, depth: int) -> list[dict[str, Any]]:
        wanted = {"contender": contender, "size": size, "depth": depth, "kind": "train" if depth else "prepare"}
        return [entry for entry in self.entries if wanted.items() <= entry.items()]

    def spread(self, what: str, contender: str, size: str, depth: int) -> Spread | None:
        """fit, end_to_end (seconds), peak (GiB), auc or log_loss; None if there is no good measurement."""
        good = [entry for entry in self.of(contender, size, depth) if entry["state"] == "ok"]
        values = tuple(_figure(entry, what) for entry in good)
        return Spread(values) if values else None

    def median(self, what: str, contender: str, size: str, depth: int) -> float | None:
        found = self.spread(what, contender, size, depth)
        return found.median if found else None


def _figure(entry: Mapping[str, Any], what: str) -> float:
    if what == "fit":
        return float(entry["phases"]["fit"])
    if what == "end_to_end":
        return float(entry["end_to_end"])
    if what == "peak":
        return float(entry["peak_bytes"]) / GIB
    return float(entry["metrics"][what])


def page(results: Mapping[str, Any], revision: str) -> str:
    measured = Measured(results, revision)
    parts = [
        "# Benchmarks",
        "Written by `make bench`; do not edit.",
        _head(results, measured, revision),
        "![End-to-end seconds and AUC of each contender](benchmarks.svg)",
        "## Targets",
        _table(["target", "measured", ""], [[t.text, t.measured, _verdict(t.met)] for t in targets(results, measured)]),
        *_learners(measured),
        *_folds(results.get("folds")),
        *_cores(measured),
        *_prepare(measured),
        *ensembles(results.get("ensembles")),
        *stages(results.get("stages")),
        NOTES.read_text().strip(),
    ]
    return "\n\n".join(parts) + "\n"


def _head(results: Mapping[str, Any], measured: Measured, revision: str) -> str:
    days = sorted({entry["when"][:10] for entry in measured.entries})
    repetitions = max((entry["repetition"] for entry in measured.entries), default=0)
    versions: dict[str, str] = {}
    for entry in measured.entries:
        versions |= entry.get("versions", {})
    told = ", ".join(f"{name} {version}" for name, version in sorted(versions.items()))
    machine = results["machine"]
    when = " to ".join(dict.fromkeys([days[0], days[-1]]))
    where = f"{machine['cores']} cores of {machine['cpu']}, {machine['memory_gib']} GiB of memory"
    often = "One repetition." if repetitions == 1 else f"Medians of {repetitions} repetitions, with (min..max)."
    return f"{when}, revision {revision}, on {where}; {told}. {often}\n\n{REPEAT}"


def _learners(measured: Measured) -> Iterator[str]:
    for size in measured.sizes:
        for depth in measured.depths:
            yield f"## {measured.rows[size]:,} rows, depth {depth}"
            rows, failures = [], []
            for name, title in TITLES.items():
                cells = [
                    measured.spread(what, name, size, depth)
                    for what in ("fit", "end_to_end", "peak", "auc", "log_loss")
                ]
                digits = (2, 1, 2, 4, 4)
                rows.append([title, *(c.told(d) if c else "-" for c, d in zip(cells, digits, strict=True))])
                failures += _failures(title, measured.of(name, size, depth))
            yield _table(["learner", "fit s", "end to end s", "peak GiB", "AUC", "log loss"], rows)
            if failures:
                yield "\n".join(failures)


def _failures(title: str, entries: Sequence[Mapping[str, Any]]) -> list[str]:
    failed = [entry for entry in entries if entry["state"] == "failed"]
    reasons = [_line(entry["reason"].replace(f"{HOME}/", "")) for entry in failed]
    return [f"- {title}, repetition {e['repetition']}, failed: {why}" for e, why in zip(failed, reasons, strict=True)]


def _cores(measured: Measured) -> Iterator[str]:
    rows, depth = [], max(measured.depths, default=0)
    for size in measured.sizes:
        one, all_cores = (measured.spread("end_to_end", name, size, depth) for name in ("ours_one_core", "ours"))
        fits = [measured.spread("fit", name, size, depth) for name in ("ours_one_core", "ours")]
        if one and all_cores and fits[0] and fits[1]:
            ratios = f"{fits[0].median / fits[1].median:.2f}", f"{one.median / all_cores.median:.2f}"
            seconds = [fits[0].told(1), fits[1].told(1), one.told(1), all_cores.told(1)]
            rows.append([f"{measured.rows[size]:,}", *seconds, " / ".join(ratios)])
    if rows:
        yield f"## From one core to all of them, depth {depth}"
        yield _table(
            ["rows", "fit s, one core", "fit s, all", "end to end s, one core", "end to end s, all", "times faster"],
            rows,
        )


def _folds(folds: Mapping[str, Any] | None) -> Iterator[str]:
    """Of bench.folds: means over the folds, and how far ours is from each peer, with two standard errors."""
    if not folds:
        return
    yield "## Is it luck? Five folds of the training side"
    yield (
        "One test side is one draw. Here each learner learns from four fifths of the training side of the 327,346 rows "
        "and is tested on the other fifth, five times. The difference is ours less the learner's, fold by fold, with "
        "two standard errors of its mean: what lies within them is luck."
    )
    for depth in folds["ours"]:
        rows = []
        own = np.array(folds["ours"][depth])
        for name in (name for name in TITLES if name in folds):
            figures = np.array(folds[name][depth])
            cells = [f"{figures[:, i].mean():.4f}" for i in (0, 1)]
            for i in (0, 1):
                gap = own[:, i] - figures[:, i]
                error = 2 * gap.std(ddof=1) / math.sqrt(len(gap))
                cells.append("" if name == "ours" else f"{round(gap.mean(), 4) + 0.0:+.4f} \u00b1 {error:.4f}")
            rows.append([TITLES[name], cells[0], cells[2], cells[1], cells[3]])
        yield _table([f"depth {depth}", "log loss", "difference", "AUC", "difference"], rows)


def _prepare(measured: Measured) -> Iterator[str]:
    """The join's seconds, and whether all that were measured gave the same rows."""
    found = {name: measured.of(name, "337k", 0) for name in PREPARE_TITLES}
    if not any(found.values()):
        return
    yield "## The join of prepare.sql, 336,776 flights"
    rows = []
    for name, title in PREPARE_TITLES.items():
        seconds, peak = (measured.spread(what, name, "337k", 0) for what in ("end_to_end", "peak"))
        rows.append([title, seconds.told(1) if seconds else "-", peak.told(2) if peak else "-"])
    yield _table(["by", "end to end s", "peak GiB"], rows)
    good = [entry for own in found.values() for entry in own if entry["state"] == "ok"]
    if len({entry["contender"] for entry in good}) > 1:
        columns = good[0]["checksums"]
        differ = [column for column in columns if len({entry["checksums"].get(column) for entry in good}) > 1]
        same = "Their results are equal: the number of rows, each column, whole rows."
        yield f"**Their results differ** in: {', '.join(differ)}." if differ else same
    yield "Each reads the same CSV files, writes Parquet; ours also sets broken rows aside and checks keys and labels."
    for name, title in PREPARE_TITLES.items():
        yield from _failures(title, found[name])


def with_section(page: str, heading: str, parts: Iterable[str]) -> str:
    """The page with this section in place of its own of that heading, or before its notes."""
    sections = re.split(r"\n(?=## )", page)
    new = "\n\n".join(parts) + "\n"
    before = next(i for i, section in enumerate(sections) if section.startswith((f"{heading}\n", f"{COMPARED}\n")))
    had = sections[before].startswith(f"{heading}\n")
    return "\n".join([*sections[:before], new, *sections[before + had :]])


def ensembles(told: Mapping[str, Any] | None) -> Iterator[str]:
    """Of bench.ensembles: seconds of several trees on one core and on two, and how ours are to the others'."""
    if not told:
        return
    yield ENSEMBLES
    machine, loads = told["machine"], [entry["load"] for entry in told["entries"]]
    yield (
        f"{told['when'][:10]}, revision {told['revision']}, on {machine['cores']} cores of {machine['cpu']}; the "
        f"machine's load was {min(loads):.1f} to {max(loads):.1f} at the end of each, other work's in it. With it "
        "XGBoost's and LightGBM's two threads, which wait for each other at every node, take longer than one, in CPU "
        "seconds too, so ours is held against them on one core; their figures of two want a quiet machine. Boosted: "
        f"{contenders.ROUNDS} rounds (MLlib's GBT: {contenders.MLLIB_ROUNDS}, for time), depth "
        f"{contenders.BOOSTED_DEPTH}, {contenders.BINS} bins, learning rate {contenders.RATE}. Forests: "
        f"{contenders.TREES} trees of depth {contenders.FOREST_DEPTH}. Each process is bound to its cores, Java's "
        "threads too, so that one core is one. CPU seconds are of the whole process, end to end."
    )
    for size, count in told["rows"].items():
        yield f"### Several trees, {count:,} rows"
        rows, failures = [], []
        for name, title in ENSEMBLE_TITLES.items():
            entries = [e for e in told["entries"] if (e["contender"], e["size"]) == (name, size)]
            good = {cores: [e for e in entries if e["cores"] == cores and e["state"] == "ok"] for cores in (1, 2)}
            fits = [_median_of(good[cores], "fit") for cores in (1, 2)]
            faster, ends = _ratio(fits[0], fits[1]), [_median_of(good[cores], "end_to_end") for cores in (1, 2)]
            figures = [*((value, 1) for value in (*fits, *ends)), (faster, 2)]
            figures += [(_median_of(good[2], what), digits) for what, digits in BESIDE.items()]
            rows.append([title, *("-" if value is None else f"{value:.{digits}f}" for value, digits in figures)])
            failures += _failures(title, [e for e in entries if e["state"] == "failed"])
        head = ["by", "fit s, one core", "two", "end to end s, one core", "two", "fit times faster", "CPU s, two"]
        yield _table([*head, "peak GiB", "AUC", "log loss"], rows)
        if failures:
            yield "\n".join(failures)
        if compared := list(_compared(told, size)):
            yield "\n".join(compared)


def _compared(told: Mapping[str, Any], size: str) -> Iterator[str]:
    """Ours to the others, where both were measured: on one core, but MLlib's on two."""

    def of(what: str, name: str, cores: int = 2) -> float | None:
        asked = {"contender": name, "size": size, "cores": cores, "state": "ok"}
        return _median_of([e for e in told["entries"] if asked.items() <= e.items()], what)

    for name in ("xgboost_boosted", "xgboost_boosted_native", "lightgbm_boosted"):
        ratios = [_ratio(of(what, "ours_boosted", 1), of(what, name, 1)) for what in ("fit", "end_to_end", "cpu")]
        if None not in ratios:
            fit, end, cpu = ratios
            told_of = f"fit {fit:.2f} times, end to end {end:.2f} times, CPU {cpu:.2f} times"
            yield f"- To {ENSEMBLE_TITLES[name]}, one core: {told_of}."
    rounds = contenders.ROUNDS / contenders.MLLIB_ROUNDS
    if slower := _ratio(of("fit", "mllib_gbt"), of("fit", "ours_boosted")):
        yield (
            f"- MLlib's GBT takes {slower * rounds:.1f} times as long a round to fit, its reading of the CSV in it; "
            f"{slower:.1f} times for its {contenders.MLLIB_ROUNDS} rounds to our {contenders.ROUNDS}."
        )
    if slower := _ratio(of("end_to_end", "mllib_forest"), of("end_to_end", "ours_forest")):
        yield f"- MLlib's forest as tutorials write it takes {slower:.2f} times as long end to end as ours."


def _median_of(entries: Sequence[Mapping[str, Any]], what: str) -> float | None:
    values = [entry["cpu"] if what == "cpu" else _figure(entry, what) for entry in entries]
    return median(values) if values else None


def stages(told: Mapping[str, Any] | None) -> Iterator[str]:
    """Of bench.stages: each stage's seconds on one core and on two, beside the others'."""
    if not told:
        return
    yield STAGES
    machine = told["machine"]
    yield (
        f"{told['when'][:10]}, revision {told['revision']}, on {machine['cores']} cores of {machine['cpu']}; the "
        f"machine's load was {told['load']:.1f} (2 would be ours alone: above it compare CPU seconds and ratios, which "
        "are of one run). Process start to end. One table of 11 columns, `bench/customers`. Plain Spark's prepare "
        "trusts the file: it sets nothing aside, checks no label and sorts nothing; its predict scores nothing."
    )
    for size, count in told["rows"].items():
        for stage in ("prepare", "predict"):
            rows, seconds = [], {}
            if not any((e["stage"], e["size"]) == (stage, size) for e in told["entries"]):
                continue
            for name, title in STAGE_TITLES.items():
                own = [e for e in told["entries"] if (e["contender"], e["stage"], e["size"]) == (name, stage, size)]
                for cores in (1, 2):
                    good = [e["end_to_end"] for e in own if e["cores"] == cores and e["state"] == "ok"]
                    seconds[name, cores] = median(good) if good else None
                both = seconds[name, 1], seconds[name, 2]
                worked = [e["cpu"] for e in own if e["cores"] == 2 and e["state"] == "ok"]
                peaks = [e["peak_bytes"] / GIB for e in own if e["cores"] == 2 and e["state"] == "ok"]
                faster = _ratio(*both)
                to_spark = _ratio(seconds[name, 2], seconds.get(("spark", 2)))
                rows.append(
                    [
                        title,
                        *(f"{value:.1f}" if value else "-" for value in both),
                        f"{faster:.2f}" if faster else "-",
                        f"{median(worked):.1f}" if worked else "-",
                        f"{max(peaks):.2f}" if peaks else "-",
                        f"{to_spark:.2f}" if to_spark else "-",
                    ]
                )
            yield f"### {stage}, {count:,} rows"
            yield _table(
                ["by", "s, one core", "s, two", "times faster", "CPU s, two", "peak GiB", "times plain Spark's s, two"],
                rows,
            )
    if not (found := told.get("ranges")):
        return
    yield "### Ranges of the embedded cloud's S3"
    yield (
        f"{found['bytes'] / 1e6:,.0f} MB in windows of 16 MiB: {found['s3']:.1f} s by ranged GETs, {found['disk']:.1f} "
        f"s from the disk; uploaded in {found['upload']:.1f} s. The cloud's largest process came to "
        f"{found['cloud_mb']:,.0f} MB."
    )


def targets(results: Mapping[str, Any], m: Measured) -> list[Target]:
    """Every target, in the order of the table."""
    large = "3.37m"
    to_mllib, to_sklearn, to_xgboost = (
        _ratio(m.median(what, other, large, DEEP), m.median(what, "ours", large, DEEP))
        for what, other in (("end_to_end", "mllib"), ("fit", "sklearn_codes"), ("fit", "xgboost_codes"))
    )
    at = f"3.37 M rows, depth {DEEP}"
    made = [
        _at_least(f"end to end, {at}: at least 5 times faster than MLlib's tutorial", to_mllib, 5),
        _at_least(f"fit, {at}: at least 3 times faster than scikit-learn with codes", to_sklearn, 3),
        _at_most(f"fit, {at}: at most 2 times XGBoost's with codes", to_xgboost and 1 / to_xgboost, 2),
    ]
    for depth in (SHALLOW, DEEP):
        value = _ratio(m.median("end_to_end", "mllib", "337k", depth), m.median("end_to_end", "ours", "337k", depth))
        text = f"end to end, 337 k rows, depth {depth}: at least 2 times faster than MLlib's tutorial"
        made.append(_at_least(text, value, 2))
    for size in m.sizes:
        rows = f"{m.rows[size]:,} rows"
        lead = f"AUC, {rows}, depth {DEEP}: at least 0.005 above the best peer"
        made.append(_against(m, lead, "auc", size, DEEP, 0.005))
        made.append(_against(m, f"AUC, {rows}, depth {SHALLOW}: not below the best peer", "auc", size, SHALLOW, 0))
        for depth in (SHALLOW, DEEP):
            made.append(
                _level(m, f"AUC, {rows}, depth {depth}: level with scikit-learn given our encoding", size, depth)
            )
            text = f"log loss, {rows}, depth {depth}: not above the best peer"
            made.append(_against(m, text, "log_loss", size, depth, 0))
    for one, other in pairwise(m.sizes):
        for depth in (SHALLOW, DEEP):
            text = f"time grows with rows to a power of at most 1: {m.rows[one]:,} to {m.rows[other]:,}, depth {depth}"
            grown = _ratio(*(m.median("end_to_end", "ours", size, depth) for size in (other, one)))
            power = grown and math.log(grown) / math.log(m.rows[other] / m.rows[one])
            made.append(_at_most(text, power, 1, unit=""))
    peaks = [found for depth in (SHALLOW, DEEP) if (found := m.spread("peak", "ours", large, depth))]
    highest = max((max(found.values) for found in peaks), default=None)
    made.append(_at_most("memory of the process tree, 3.37 M rows: at most 4 GiB", highest, 4, unit=" GiB"))
    pipeline = results.get("pipeline")
    text = "a state machine's run over its jobs' own seconds: at most 1.3 times"
    made.append(_at_most(text, pipeline and pipeline["run"] / pipeline["jobs"], 1.3))
    return made


def _not_measured(text: str) -> Target:
    return Target(text, "not measured", None)


def _ratio(above: float | None, below: float | None) -> float | None:
    return None if above is None or below is None else above / below


def _at_least(text: str, value: float | None, limit: float) -> Target:
    return _not_measured(text) if value is None else Target(text, f"{value:.2f} times", value >= limit)


def _at_most(text: str, value: float | None, limit: float, unit: str = " times") -> Target:
    return _not_measured(text) if value is None else Target(text, f"{value:.2f}{unit}", value <= limit)


def _level(m: Measured, text: str, size: str, depth: int) -> Target:
    """Ours is not more than LEVEL below."""
    own, other = (m.median("auc", name, size, depth) for name in ("ours", "sklearn_our_encoding"))
    if own is None or other is None:
        return _not_measured(text)
    return Target(f"{text} (within {LEVEL})", f"{own:.4f}, {own - other:+.4f}", own - other >= -LEVEL)


def _against(m: Measured, text: str, what: str, size: str, depth: int, lead: float) -> Target:
    """Ours against the best peer: its AUC higher, or its log loss lower, by `lead` at least."""
    own = m.median(what, "ours", size, depth)
    others = {name: value for name in PEERS if (value := m.median(what, name, size, depth)) is not None}
    if own is None or not others:
        return _not_measured(text)
    better = 1 if what == "auc" else -1
    best = max(others, key=lambda name: better * others[name])
    gap = own - others[best]
    return Target(text, f"{own:.4f}, {gap:+.4f} to {TITLES[best]}", better * gap >= lead)


def overhead(run: Mapping[str, Any]) -> dict[str, Any]:
    """Seconds of a state machine's run and of its jobs' own work, from `dml run --json`.

    Its `job_seconds` holds what each job says of itself: a number, or its phases (with `total`, if it has one).
    Raises SystemExit naming what the file lacks.
    """
    if not run.get("job_seconds") or not run.get("seconds"):
        raise SystemExit(
            "The file of --pipeline needs `seconds` and `job_seconds`, as `dml run --local --json` prints them."
        )
    stages = [seconds for stage, seconds in run["seconds"].items() if stage not in BEFORE]
    jobs = [_total(seconds) for seconds in run["job_seconds"].values()]
    return {"run_id": run["run_id"], "run": sum(stages), "jobs": sum(jobs)}


def _total(seconds: float | Mapping[str, float]) -> float:
    if isinstance(seconds, Mapping):
        return float(seconds.get("total", sum(seconds.values())))
    return float(seconds)


def points(results: Mapping[str, Any], revision: str) -> dict[str, Any]:
    """What the plot shows: of the deepest trees, each contender's end-to-end seconds and AUC at each size."""
    m = Measured(results, revision)
    depth = max(m.depths, default=0)
    found = [
        {
            "title": title.replace("*", ""),
            "size": f"{m.rows[size]:,} rows",
            "seconds": [seconds.median, min(seconds.values), max(seconds.values)],
            "auc": [auc.median, min(auc.values), max(auc.values)],
        }
        for name, title in TITLES.items()
        for size in m.sizes
        if (seconds := m.spread("end_to_end", name, size, depth)) and (auc := m.spread("auc", name, size, depth))
    ]
    return {"depth": depth, "points": found}


def _verdict(met: bool | None) -> str:
    return {True: "met", False: "**not met**", None: "-"}[met]


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    return "\n".join("| " + " | ".join(cells) + " |" for cells in [head, ["---"] * len(head), *rows])


def _line(text: str) -> str:
    """A reason as one short line of Markdown."""
    return " ".join(text.split()).replace("|", "/")[:300]
