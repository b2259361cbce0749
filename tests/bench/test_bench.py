"""The benchmark's own arithmetic and bookkeeping; the learners that it compares are not needed here."""

import json
import math
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bench import __main__ as harness
from bench import folds, ours, report
from bench.data import HOME
from bench.measure import measure
from bench.metrics import evaluate

pytestmark = pytest.mark.spark

MB = 2**20
SAY = "import json, sys, time; done = lambda: json.dump({'finished': time.monotonic()}, open(sys.argv[1], 'w'))\n"


def run_python(code: str, folder: Path, **options: Any) -> dict[str, Any]:
    result = folder / "result.json"
    command = [sys.executable, "-c", SAY + code, str(result)]
    return measure(command, result=result, log=folder / "log", environment=os.environ, cwd=folder, **options)


def test_auc_should_count_ties_half_and_log_loss_be_the_mean() -> None:
    # Of the four pairs of a positive and a negative row three are in order and one is a tie.
    found = evaluate([0, 1, 0, 1], [0.2, 0.2, 0.1, 0.9])
    assert (found["rows"], found["positives"]) == (4, 2)
    assert found["auc"] == pytest.approx(3.5 / 4)
    assert found["log_loss"] == pytest.approx(-math.log(0.8 * 0.2 * 0.9 * 0.9) / 4)


def test_a_row_that_is_certain_and_wrong_should_cost_what_the_clip_says() -> None:
    assert evaluate([1, 0], [0, 0])["log_loss"] == pytest.approx(-math.log(1e-15) / 2)


def test_a_weight_should_be_so_many_rows() -> None:
    weighted = evaluate([0, 1, 1], [0.3, 0.3, 0.6], [2, 1, 3])
    assert weighted == pytest.approx(evaluate([0, 0, 1, 1, 1, 1], [0.3, 0.3, 0.3, 0.6, 0.6, 0.6]))


def test_ours_should_give_the_same_metrics_of_the_same_probabilities() -> None:
    random = np.random.default_rng(0)
    probability = random.integers(0, 30, 5000) / 29  # with ties, and with 0 and 1
    label = (random.random(5000) < 0.2 + probability / 2).astype(np.int64)
    theirs, own = evaluate(label, probability), ours.own_metrics(label, probability)
    assert {name: own[name] for name in ("rows", "auc", "log_loss")} == pytest.approx(
        {name: theirs[name] for name in ("rows", "auc", "log_loss")}
    )


@pytest.mark.skipif(sys.platform != "linux", reason="memory is measured by /proc, as benchmarks are on Linux only")
def test_the_peak_should_hold_child_processes_and_nothing_after_the_result(tmp_path: Path) -> None:
    child = f"held = bytearray(b'1') * {200 * MB}; print(flush=True); input()"
    code = f"""
import subprocess
child = subprocess.Popen([sys.executable, '-c', {child!r}], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
child.stdout.readline()
time.sleep(1.5)  # the harness looks for new processes once a second
done()
held = bytearray(b'1') * {600 * MB}
time.sleep(0.5)
"""
    before = time.monotonic()
    measured = run_python(code, tmp_path)
    assert measured["state"] == "ok"
    assert 200 * MB < measured["peak_bytes"] < 300 * MB
    assert 1.5 <= measured["end_to_end"] < time.monotonic() - before - 0.4


@pytest.mark.parametrize(
    ("code", "told"),
    [
        ("raise ValueError('no column late')", "ValueError: no column late"),
        ("import os; os.kill(os.getpid(), 9)", "ended by SIGKILL, as the kernel does when memory runs out"),
        ("pass", "it ended well but left no result"),
    ],
)
def test_a_contender_that_ends_without_a_result_should_have_a_reason(tmp_path: Path, code: str, told: str) -> None:
    measured = run_python(code, tmp_path)
    assert (measured["state"], measured["reason"]) == ("failed", told)


def test_a_contender_without_end_should_be_given_up_with_all_its_processes(tmp_path: Path) -> None:
    code = "import os, pathlib; child = os.fork(); pathlib.Path(f'pid-{os.getpid()}').touch(); time.sleep(99)"
    measured = run_python(code, tmp_path, limit=1)
    assert measured["reason"] == "not done after 1 s"
    pids = [int(file.name.removeprefix("pid-")) for file in tmp_path.glob("pid-*")]
    assert len(pids) == 2
    assert not any(alive(pid) for pid in pids)


def alive(pid: int) -> bool:
    state = subprocess.run(["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, text=True, check=False).stdout
    return bool(state.strip()) and state[0] not in "ZX"


def test_a_crash_should_be_kept_and_tried_again_but_a_measurement_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(harness, "BENCH", tmp_path)
    unit = harness.Unit("train", "nobody", "337k", 5, 1)
    results: dict[str, Any] = {"measurements": [{"revision": "old", "contender": "nobody"}], "data": {}}
    for _ in range(2):
        harness.run(unit, "new", results)
        [older, crashed] = results["measurements"]
        assert older["revision"] == "old"
        assert (crashed["revision"], crashed["state"]) == ("new", "failed")
        assert "nobody" in crashed["reason"]
        crashed["reason"] = "an earlier one"
    crashed["state"] = "ok"
    harness.run(unit, "new", results)
    assert results["measurements"] == [older, crashed]


def test_a_contender_that_was_tested_on_other_rows_should_have_failed() -> None:
    measured = {"state": "ok", "metrics": {"rows": 99, "positives": 20}, "peak_bytes": 1}
    assert harness.same_rows(measured, {"test_rows": 99, "test_positives": 20}) == measured
    failed = harness.same_rows(measured, {"test_rows": 100, "test_positives": 20})
    assert failed["reason"] == "tested on other rows: 99 with 20 positive, not 100 with 20"


def test_everyone_should_have_a_turn_before_anyone_has_a_second() -> None:
    turns = [(unit.repetition, unit.contender, unit.depth) for unit in harness.units("3.37m", 2)]
    assert turns[: len(turns) // 2] == [(1, name, depth) for _, name, depth in turns[len(turns) // 2 :]]
    assert len(set(turns)) == len(turns)
    assert [depth for _, name, depth in turns if name == "ours_one_core"] == [12, 12]


def entry(name: str, size: str, depth: int, seconds: float, *, fit: float, auc: float, loss: float) -> dict[str, Any]:
    own = {"kind": "train", "contender": name, "size": size, "depth": depth, "repetition": 1, "revision": "now"}
    measured = {"end_to_end": seconds, "phases": {"fit": fit}, "metrics": {"auc": auc, "log_loss": loss}}
    return {**own, **measured, "state": "ok", "peak_bytes": 3 * 2**30, "when": "2026-11-25T00:00:00"}


def fixed_results() -> dict[str, Any]:
    """Two sizes and two depths, ours with a second repetition at one of them."""
    measurements = []
    for size, times in (("337k", 1), ("3.37m", 8)):
        for depth in (5, 12):
            measurements += [
                entry("ours", size, depth, 20 * times, fit=4, auc=0.750, loss=0.48),
                entry("mllib", size, depth, 50 * times, fit=40, auc=0.720, loss=0.50),
                entry("sklearn_codes", size, depth, 9, fit=11, auc=0.742, loss=0.47),
                entry("xgboost_codes", size, depth, 8, fit=2.5, auc=0.744, loss=0.49),
                entry("sklearn_our_encoding", size, depth, 9, fit=9, auc=0.7508, loss=0.48),
            ]
    again = entry("ours", "337k", 5, 30, fit=4, auc=0.750, loss=0.48)
    measurements.append({**again, "repetition": 2})
    failed = {
        **again,
        "contender": "lightgbm_codes",
        "state": "failed",
        "reason": f"ended by SIGKILL | at\nonce in {HOME}/x",
    }
    measurements.append(failed)
    measurements.append({**again, "revision": "before", "end_to_end": 1})
    rows = {"337k": {"rows": 300_000}, "3.37m": {"rows": 3_000_000}}
    machine = {"cpu": "CPU", "cores": 2, "memory_gib": 8.0}
    return {"measurements": measurements, "data": rows, "pipeline": None, "machine": machine}


def test_each_target_should_be_judged_by_the_figures() -> None:
    results = fixed_results()
    judged = {t.text: (t.measured, t.met) for t in report.targets(results, report.Measured(results, "now"))}
    # 400 s to 160 s is 2.5 times; 11 s to 4 s is 2.75; 4 s to 2.5 s is 1.6.
    assert judged["end to end, 3.37 M rows, depth 12: at least 5 times faster than MLlib's tutorial"] == (
        "2.50 times",
        False,
    )
    assert judged["fit, 3.37 M rows, depth 12: at least 3 times faster than scikit-learn with codes"] == (
        "2.75 times",
        False,
    )
    assert judged["fit, 3.37 M rows, depth 12: at most 2 times XGBoost's with codes"] == ("1.60 times", True)
    # The median of 20 s and 30 s is 25 s; the old revision's second does not count.
    assert judged["end to end, 337 k rows, depth 5: at least 2 times faster than MLlib's tutorial"] == (
        "2.00 times",
        True,
    )
    assert judged["AUC, 300,000 rows, depth 12: at least 0.005 above the best peer"] == (
        "0.7500, +0.0060 to XGBoost, codes",
        True,
    )
    assert judged["AUC, 3,000,000 rows, depth 12: level with scikit-learn given our encoding (within 0.001)"] == (
        "0.7500, -0.0008",
        True,
    )
    assert judged["log loss, 300,000 rows, depth 5: not above the best peer"] == (
        "0.4800, +0.0100 to scikit-learn, codes",
        False,
    )
    # Ten times the rows take 8 times as long: log 8 / log 10.
    power = "time grows with rows to a power of at most 1: 300,000 to 3,000,000, depth 12"
    assert judged[power] == ("0.90", True)
    assert judged["memory of the process tree, 3.37 M rows: at most 4 GiB"] == ("3.00 GiB", True)
    assert judged["a state machine's run over its jobs' own seconds: at most 1.3 times"] == ("not measured", None)


def test_the_page_should_show_medians_ranges_failures_and_what_was_not_met() -> None:
    page = report.page(fixed_results(), "now")
    assert "| **this project** | 4.00 (4.00..4.00) | 25.0 (20.0..30.0) | 3.00 (3.00..3.00) |" in page
    assert "| LightGBM, codes | - | - | - | - | - |" in page
    assert "- LightGBM, codes, repetition 1, failed: ended by SIGKILL / at once in x" in page
    assert "| 2.50 times | **not met** |" in page
    assert "revision now, on 2 cores of CPU" in page


def test_folds_should_show_means_and_differences_with_two_standard_errors() -> None:
    own, other = [[0.50, 0.70], [0.48, 0.72], [0.52, 0.68]], [[0.51, 0.70], [0.49, 0.71], [0.53, 0.69]]
    results = fixed_results() | {"folds": {"ours": {"5": own}, "xgboost_native": {"5": other}}}
    page = report.page(results, "now")
    assert "| **this project** | 0.5000 |  | 0.7000 |  |" in page
    error = 2 * 0.01 / math.sqrt(3)  # the differences are 0, 0.01 and -0.01
    assert (
        f"| XGBoost, its own categories | 0.5100 | -0.0100 \u00b1 0.0000 | 0.7000 | +0.0000 \u00b1 {error:.4f} |"
    ) in page


def test_folds_should_be_of_equal_size_on_either_side_of_the_split() -> None:
    random = np.random.default_rng(0)
    hashes = random.integers(-(2**63), 2**63 - 1, 50_000)
    for side in (hashes.view(np.uint64) < np.uint64(2**62), hashes.view(np.uint64) >= np.uint64(2**62)):
        shares = np.bincount(folds.fold_of(hashes[side]), minlength=5) / side.sum()
        assert shares == pytest.approx([0.2] * 5, abs=0.02)


def test_prepared_rows_that_differ_should_be_told_with_the_column() -> None:
    results = fixed_results()
    for name, checksum in (("ours", "1"), ("duckdb", "1"), ("pandas", "2")):
        prepared = entry(name, "337k", 0, 5, fit=0, auc=0, loss=0)
        results["measurements"].append({**prepared, "kind": "prepare", "checksums": {"rows": "9", "temp": checksum}})
    assert "**Their results differ** in: temp." in report.page(results, "now")
    results["measurements"][-1]["checksums"]["temp"] = "1"
    assert "Their results are equal" in report.page(results, "now")


def test_the_overhead_should_be_the_state_machines_stages_over_its_jobs_own_seconds() -> None:
    seconds = {"embedded cloud": 1, "deploy": 30, "raw data": 1, "prepare": 30, "train": 40, "publish": 8, "total": 110}
    jobs = {"prepare": {"read": 10, "join": 10}, "train": {"fit": 20, "total": 35}, "predict": 5}
    found = report.overhead({"run_id": "run-1", "seconds": seconds, "job_seconds": jobs})
    assert found == {"run_id": "run-1", "run": 78, "jobs": 60}
    results = fixed_results() | {"pipeline": found}
    [last] = report.targets(results, report.Measured(results, "now"))[-1:]
    assert (last.measured, last.met) == ("1.30 times", True)
    with pytest.raises(SystemExit, match="needs `seconds` and `job_seconds`"):
        report.overhead({"run_id": "run-1", "seconds": seconds})


def test_the_plot_should_get_the_deepest_trees_of_each_size() -> None:
    points = json.loads(json.dumps(report.points(fixed_results(), "now")))
    assert points["depth"] == 12
    first = {"title": "MLlib as tutorials write it", "size": "300,000 rows", "seconds": [50] * 3, "auc": [0.72] * 3}
    assert points["points"][0] == first
    assert len(points["points"]) == 10


def stage(contender: str, cores: int, seconds: float, **own: Any) -> dict[str, Any]:
    what = {"contender": contender, "stage": "prepare", "size": "8m", "cores": cores, "state": "ok"}
    return what | {"end_to_end": seconds, "cpu": 2 * seconds, "peak_bytes": 2**30} | own


def told_of_stages(ours: float) -> dict[str, Any]:
    entries = [stage("spark", 1, 40), stage("spark", 2, 25), stage("ours", 1, 85), stage("ours", 2, ours)]
    return {
        "revision": "abc",
        "when": "2026-11-30T12:00:00+00:00",
        "machine": {"cores": 2, "cpu": "a CPU"},
        "load": 1.25,
        "rows": {"8m": 8_000_000},
        "entries": [*entries, stage("ours", 2, 1, state="failed"), stage("ours", 2, 1, size="337k")],
        "ranges": {"bytes": 6e8, "disk": 0.5, "upload": 3, "s3": 2, "cloud_mb": 120},
    }


def test_a_stage_should_be_told_beside_plain_spark_and_by_cores() -> None:
    shown = "\n".join(report.stages(told_of_stages(50)))
    assert "| **this project** (Spark) | 85.0 | 50.0 | 1.70 | 100.0 | 1.00 | 2.00 |" in shown
    assert "| DuckDB | - | - | - | - | - | - |" in shown
    assert "600 MB in windows of 16 MiB: 2.0 s by ranged GETs, 0.5 s from the disk" in shown


def test_new_figures_of_stages_should_take_the_place_of_the_former_alone() -> None:
    page = f"# Benchmarks\n\n## Targets\n\nmet\n\n{report.COMPARED}\n\n- notes\n"
    at, older, newer = (report.STAGES, *(list(report.stages(told_of_stages(seconds))) for seconds in (50, 60)))
    first = report.with_section(page, at, older)
    assert first.replace("\n\n".join(older) + "\n\n", "") == page
    assert report.with_section(first, at, newer) == report.with_section(page, at, newer)
    # Another section beside it stays, wherever it is.
    both = report.with_section(first, "## Another", ["## Another", "a figure"])
    assert report.with_section(both, at, newer).replace("## Another\n\na figure\n\n", "") == (
        report.with_section(page, at, newer)
    )


def ensemble(contender: str, cores: int, fit: float, **own: Any) -> dict[str, Any]:
    found = entry(contender, "337k", 6, 2 * fit, fit=fit, auc=0.75, loss=0.46)
    return found | {"cores": cores, "cpu": 3 * fit, "load": 1.5} | own


def test_several_trees_should_be_told_by_cores_and_beside_xgboost_alone() -> None:
    again = ensemble("ours_boosted", 2, 99)
    entries = [ensemble("ours_boosted", 1, 8), ensemble("ours_boosted", 2, 5), ensemble("xgboost_boosted", 2, 4)]
    entries.append(ensemble("xgboost_boosted", 1, 6.4))
    entries += [ensemble("mllib_gbt", 2, 30), {**again, "state": "failed", "reason": "not done after 9 s"}]
    entries.append({**again, "size": "3.37m"})
    told = {"revision": "abc", "when": "2026-11-30T12:00:00+00:00", "machine": {"cores": 2, "cpu": "a CPU"}}
    page = "\n".join(report.ensembles({**told, "rows": {"337k": 300_000}, "entries": entries}))
    assert "| **this project**, boosted | 8.0 | 5.0 | 16.0 | 10.0 | 1.60 | 15.0 | 3.00 | 0.7500 | 0.4600 |" in page
    assert "| XGBoost alone, codes | 6.4 | 4.0 | 12.8 | 8.0 | 1.60 | 12.0 |" in page
    # By the figures of one core.
    assert "- To XGBoost alone, codes, one core: fit 1.25 times, end to end 1.25 times, CPU 1.25 times." in page
    # Ten rounds in 30 s, a hundred of ours in 5 s.
    assert "MLlib's GBT takes 60.0 times as long a round" in page
    assert "- **this project**, boosted, repetition 1, failed: not done after 9 s" in page
