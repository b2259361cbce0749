"""The harness: makes the data, starts each contender as its own process, keeps what it measured, writes the report.

What is measured already for this revision is not measured again, so an interrupted run is simply started once more.
"""

import argparse
import datetime as dt
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from bench import contenders, prepare, report
from bench.data import BENCH, HOME, SIZES, Place, recipe
from bench.measure import measure, write_json
from dml.local.spark.process import JAVA_OPTIONS, cores, java_home

RESULTS = BENCH / "results.json"
DEPTHS = (5, 12)
OUR_JAVA = ("ours", "ours_one_core", "mllib_our_java")  # what Java is told as `dml run --local` does
PLAIN_JAVA = "-XX:+UseParallelGC"
DEEPEST_ONLY = ("ours_one_core", "mllib_our_java")
PEERS = BENCH / "venv" / "bin" / "python"
CORES = cores()
NEEDED_GB = {"337k": 4, "3.37m": 8, "10m": 16}  # memory that must be free before a size is begun
# What a measurement depends on. Words of the report may change without everything being measured again.
MEASURED = (
    "jobs",
    "datasets",
    *(f"bench/{name}" for name in ("__main__.py", "contenders.py", "data.py", "measure.py", "metrics.py")),
)
MEASURED += (
    "dml/local/spark/warm_start.py",
    "dml/local/spark/process.py",
    "dml/local/processes.py",
    "bench/ours.py",
    "bench/prepare.py",
    "bench/requirements.txt",
    "requirements.txt",
)


@dataclass(frozen=True)
class Unit:
    """One process to measure."""

    kind: str  # train or prepare
    contender: str
    size: str
    depth: int  # 0 for prepare
    repetition: int

    def __str__(self) -> str:
        depth = f" depth {self.depth}" if self.depth else ""
        return f"{self.kind} {self.contender}, {self.size}{depth}, repetition {self.repetition}"


def main() -> int:
    args = _arguments()
    if sys.platform != "linux":
        raise SystemExit(
            "The benchmarks need Linux: by /proc they know how much memory a contender takes, and what is free."
        )
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # ended is interrupted: no contender outlives the harness
    now = revision()
    kept: dict[str, Any] = json.loads(RESULTS.read_text()) if RESULTS.is_file() else {}
    results = {"measurements": [], "data": {}, "pipeline": None} | kept
    results["machine"] = machine()
    if args.fresh:
        results["measurements"] = [entry for entry in results["measurements"] if entry["revision"] != now]
    if args.pipeline:
        results["pipeline"] = report.overhead(json.loads(args.pipeline.read_text()))
    try:
        for size in args.rows:
            if (free := free_gb()) < NEEDED_GB[size]:
                say(f"{size}: left out, it needs {NEEDED_GB[size]} GB of free memory and there are {free:.1f}")
                continue
            results["data"][size] = data(Place(size))
            for unit in units(size, args.repetitions):
                run(unit, now, results)
                write_json(RESULTS, results)
    except KeyboardInterrupt:
        say(f"interrupted; {RESULTS.relative_to(HOME)} keeps what is measured, start again to go on")
        return 130
    write_json(RESULTS, results)
    if not any(entry["revision"] == now for entry in results["measurements"]):
        say("nothing was measured, so there is no report")
        return 1
    return publish(results, now)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="bench", description=__doc__, allow_abbrev=False)
    parser.add_argument("--rows", type=_sizes, default=list(SIZES), help=f"sizes, of {','.join(SIZES)}")
    parser.add_argument("--repetitions", type=int, default=3, help="how often each contender runs")
    parser.add_argument("--fresh", action="store_true", help="measure again what this revision has measured already")
    parser.add_argument("--pipeline", type=Path, help="JSON of `dml run --local --json`, for the pipeline's overhead")
    return parser.parse_args()


def _sizes(text: str) -> list[str]:
    sizes = [size.strip().lower() for size in text.split(",")]
    if strange := [size for size in sizes if size not in SIZES]:
        raise argparse.ArgumentTypeError(f"{', '.join(strange)} is no size; there are {', '.join(SIZES)}")
    return sizes


def units(size: str, repetitions: int) -> Iterator[Unit]:
    """Repetitions are the outer loop, so that a slower hour of the machine is everyone's."""
    for repetition in range(1, repetitions + 1):
        if size == "337k":
            yield from (Unit("prepare", name, size, 0, repetition) for name in prepare.RUN)
        for depth in DEPTHS:
            names = [name for name in contenders.RUN if name not in DEEPEST_ONLY or depth == max(DEPTHS)]
            yield from (Unit("train", name, size, depth, repetition) for name in names)


def run(unit: Unit, now: str, results: dict[str, Any]) -> None:
    """Measures the unit, unless this revision has; a failed measurement is tried again."""
    own = {"revision": now, **asdict(unit)}
    others, before = [], None
    for entry in results["measurements"]:
        if own.items() <= entry.items():
            before = entry
        else:
            others.append(entry)
    if before is not None and before["state"] == "ok":
        return
    say(f"{unit} ...")
    name = "-".join(map(str, asdict(unit).values()))
    result = BENCH / "work" / f"{name}.json"
    python = PEERS if peer(unit) else Path(sys.executable)
    arguments = [unit.size, str(unit.depth)] if unit.kind == "train" else []
    module = "bench.contenders" if unit.kind == "train" else "bench.prepare"
    measured = measure(
        [str(python), "-m", module, unit.contender, *arguments, str(result)],
        result=result,
        log=BENCH / "logs" / f"{name}.log",
        environment=environment(
            1 if unit.contender == "ours_one_core" else CORES,
            java=JAVA_OPTIONS if unit.contender in OUR_JAVA else PLAIN_JAVA,
        ),
        cwd=HOME,
    )
    if measured["state"] == "ok" and unit.kind == "train":
        measured = same_rows(measured, results["data"][unit.size])
    when = dt.datetime.now(dt.UTC).isoformat(timespec="seconds")
    results["measurements"] = [*others, {**own, "when": when, **measured}]
    told = f"{measured['end_to_end']:.1f} s" if measured["state"] == "ok" else f"failed: {measured['reason']}"
    say(f"{unit}: {told}")


def peer(unit: Unit) -> bool:
    return unit.kind == "train" and unit.contender.startswith(("sklearn", "xgboost", "lightgbm"))


def same_rows(measured: dict[str, Any], data: dict[str, Any]) -> dict[str, Any]:
    """A contender that was tested on other rows than the data's test side has failed."""
    tested = measured["metrics"]["rows"], measured["metrics"]["positives"]
    expected = data["test_rows"], data["test_positives"]
    if tested == expected:
        return measured
    reason = f"tested on other rows: {tested[0]} with {tested[1]} positive, not {expected[0]} with {expected[1]}"
    return {"state": "failed", "reason": reason, "peak_bytes": measured["peak_bytes"]}


def data(place: Place) -> dict[str, Any]:
    """What data.json says of this size, made if need be."""
    if place.told().get("recipe") != recipe():
        say(f"making the data, {place.size} ...")
        made = subprocess.run([sys.executable, "-m", "bench.data", place.size], cwd=HOME, env=environment(CORES))
        if made.returncode:
            sys.exit(f"The data of size {place.size} could not be made; the reason is above.")
    return place.told()


def environment(cores: int, *, java: str = JAVA_OPTIONS) -> dict[str, str]:
    """The same for every contender; Spark's options are MLlib's and ours alike, but for Java's.

    `java`: its options. Ours are quick compiling and Spark's classes from the archives of `make setup`, as `dml run
    --local` has it.
    """
    scratch = BENCH / "tmp"
    shutil.rmtree(scratch, ignore_errors=True)  # what the contender before has left, since it was ended at once
    scratch.mkdir(parents=True)
    options = {
        "spark.driver.extraJavaOptions": java,
        "spark.sql.shuffle.partitions": str(2 * CORES),
        "spark.driver.bindAddress": "127.0.0.1",
        "spark.ui.enabled": "false",
        "spark.ui.showConsoleProgress": "false",
        "spark.local.dir": str(scratch),
        "spark.sql.warehouse.dir": str(scratch / "warehouse"),
    }
    submit = " ".join(f"--conf '{key}={value}'" for key, value in options.items())
    return {
        "PATH": os.environ["PATH"],
        "HOME": os.environ.get("HOME", str(scratch)),
        "LANG": "C.UTF-8",
        "TMPDIR": str(scratch),
        "PYTHONPATH": str(HOME),
        "JAVA_HOME": str(java_home()),
        "PYSPARK_PYTHON": sys.executable,
        "SPARK_LOCAL_IP": "127.0.0.1",
        "PYSPARK_SUBMIT_ARGS": f"--master local[{cores}] --driver-memory 3g {submit} pyspark-shell",
    }


def revision() -> str:
    """The last commit that touched what is measured; with a `+` and a digest of the changes if some are uncommitted."""

    def git(*command: str) -> str:
        asked = ["git", *command, "--", *MEASURED]
        return subprocess.run(asked, cwd=HOME, capture_output=True, text=True, check=True).stdout

    changes = git("diff", "HEAD") + git("ls-files", "--others", "--exclude-standard")
    digest = hashlib.sha256(changes.encode()).hexdigest()[:8]
    return git("log", "-1", "--format=%h").strip() + (f"+{digest}" if changes else "")


def machine() -> dict[str, Any]:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    cpu = next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), "")
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return {"cpu": cpu or os.uname().machine, "cores": CORES, "memory_gib": round(memory, 1)}


def free_gb() -> float:
    line = next(x for x in Path("/proc/meminfo").read_text().splitlines() if x.startswith("MemAvailable:"))
    return int(line.split()[1]) * 1024 / 1e9


def publish(results: dict[str, Any], now: str) -> int:
    """docs/benchmarks.md and its plot."""
    page, picture = HOME / "docs" / "benchmarks.md", HOME / "docs" / "benchmarks.svg"
    page.write_text(report.page(results, now))
    points = BENCH / "work" / "points.json"
    write_json(points, report.points(results, now))
    drawn = subprocess.run([str(PEERS), "-m", "bench.plot", str(points), str(picture)], cwd=HOME)
    say(f"wrote {page.relative_to(HOME)} and {picture.relative_to(HOME)}")
    return drawn.returncode


def say(text: str) -> None:
    print(f"{dt.datetime.now():%H:%M:%S} {text}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
