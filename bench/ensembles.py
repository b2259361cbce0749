"""Boosted trees and forests: ours beside XGBoost and LightGBM alone and MLlib's, on one core and on two: `python -m
bench.ensembles`.

Each contender is a process of its own, bound to so many cores, JVM and Python's workers with it. What a revision has
measured is kept as it comes.
"""

import argparse
import itertools
import os
import signal
import sys
from typing import Any

from bench import report
from bench.contenders import ENSEMBLES
from bench.data import BENCH, HOME, SIZES, Place
from bench.measure import LIMIT, Kept, measure

CORES = (1, 2)


def run(contender: str, size: str, cores: int, limit: float, told: dict[str, Any]) -> dict[str, Any]:
    """`told`: what data.json says of this size."""
    from bench.__main__ import PEERS, PLAIN_JAVA, environment, same_rows
    from dml.local.spark.process import JAVA_OPTIONS

    name = f"ensembles-{contender}-{size}-{cores}"
    result = BENCH / "work" / f"{name}.json"
    ours = contender.startswith("ours")
    python = sys.executable if ours or contender.startswith("mllib") else str(PEERS)
    bound: list[str] = []  # only Linux binds a process to its cores
    if sys.platform == "linux":
        bound = ["taskset", "--cpu-list", ",".join(map(str, sorted(os.sched_getaffinity(0))[-cores:]))]
    found = measure(
        [*bound, python, "-m", "bench.contenders", contender, size, str(ENSEMBLES[contender][1]), str(result)],
        result=result,
        log=BENCH / "logs" / f"{name}.log",
        environment=environment(cores, java=JAVA_OPTIONS if ours else PLAIN_JAVA),
        cwd=HOME,
        limit=limit,
    )
    return same_rows(found, told) if found["state"] == "ok" else found


def main() -> int:
    parser = argparse.ArgumentParser(prog="bench.ensembles", description=__doc__, allow_abbrev=False)
    parser.add_argument("--rows", default="337k,3.37m", help=f"sizes, of {','.join(SIZES)}")
    parser.add_argument("--cores", default=",".join(map(str, CORES)))
    parser.add_argument("--only", default=",".join(ENSEMBLES), help="contenders")
    parser.add_argument("--repetitions", type=int, default=1)
    parser.add_argument("--limit", type=float, default=LIMIT, help="seconds after which a contender is given up")
    args = parser.parse_args()
    from bench.__main__ import RESULTS, data, machine, revision, say

    signal.signal(signal.SIGTERM, signal.default_int_handler)  # ended is interrupted: no contender outlives the harness
    cores, names = [int(number) for number in args.cores.split(",")], args.only.split(",")
    kept = Kept(RESULTS, "ensembles", revision())
    for repetition, size in itertools.product(range(1, args.repetitions + 1), args.rows.split(",")):
        rows = data(Place(size))
        for name, count in itertools.product(names, sorted(cores, reverse=True)):
            own = {"contender": name, "size": size, "cores": count, "repetition": repetition}
            if kept.has(own):
                continue
            found = {**run(name, size, count, args.limit, rows), "load": os.getloadavg()[0]}
            say(f"{name}, {size}, {count} cores: {found}")
            kept.add(own, found, rows["rows"], SIZES, machine())
    page = HOME / "docs" / "benchmarks.md"
    page.write_text(report.with_section(page.read_text(), report.ENSEMBLES, report.ensembles(kept.told)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
