"""`dml cost --rows`: a cluster for so many rows, on paper, from what the benchmark measured.

The model of training, in seconds: what it takes to start, and the rows' core-seconds over the cores that count.

    START + rows * READ / (cores * READ_EFFICIENCY) + FIT_START + rows * FIT(depth) / (cores * FIT_EFFICIENCY)

Every constant of it is here, with its source. docs/costs.md holds it against each measured point.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from dml.cost import clusters
from dml.cost.estimate import CRAWL_MINUTES, CRAWLER_DPUS, JOB_MINUTES
from dml.cost.prices import Instance, Prices
from dml.errors import UserError

# From docs/benchmarks.md of 2026-11-27, revision 4d4b9d9: nyc_flights with 16 numbers and 3 categories, 2 cores of AMD
# EPYC. Fitted to its eighteen figures: fit and end to end at 327,346, 3,273,460 and 9,820,380 rows, at depth 5 and 12
# on two cores and at depth 12 on one. End to end is fit and all else: interpreter, JVM, session, reading, metrics.
START = 2.5  # seconds that don't depend on rows
READ = 0.42e-6  # core-seconds a row of reading, counting and scoring: 2,400,000 rows a core-second
READ_EFFICIENCY = 0.62  # of two cores: Java reads files while Python decodes them, so that one core is not one
FIT_START = 0.58
FIT_ROW, FIT_LEVEL = 0.60e-6, 0.032e-6  # core-seconds a row, and a row and level: 1,000,000 rows a core-second at 12
FIT_EFFICIENCY = 0.64
# One point each, so nobody knows how far they are off. The join of prepare.sql, in the benchmark: 336,776 flights,
# 14.4 s on two cores. A run by the embedded cloud on the same machine (README.md): its stage train, with profile,
# out-of-time check, current model and saving, 9.9 s where the benchmark's part takes 3.4; its stage predict, 7.7 s.
# Both jobs are Spark SQL; their start and what a second core does are of the benchmark's revision 89dbca7, in which
# training still read by Spark SQL.
SQL_START, SQL_EFFICIENCY = 5.2, 0.87
PREPARE = 4.75e-5
WHOLE_TRAINING = 2.9
PREDICT = 1.4e-5
# What Spark's storage says that it keeps of 327,346 such rows at depth 12, coded.
CACHED_BYTES = 10
MEASURED_ROWS = 9_820_380  # beyond this the model is extrapolated

# Assumed: the benchmark stops at one machine.
ACROSS_NODES = 0.8  # of the cores of several nodes: shuffles by network, and the slowest task of a stage
CACHE_SHARE = 0.35  # of a node's memory: YARN gets 3/4, executors 0.81 of that, Spark's memory fraction is 0.6
STEP_MINUTES = 1.0  # of each step, for YARN and until Step Functions notices
GLUE_WORKER, GLUE_CORES = "G.1X", 4
NODES = 100  # as many as stacks/settings.py allows
SPOT_SAVES = 1.0  # USD a run, below which an interrupted run is the dearer one
SPOT_MINUTES = 120  # a longer run is likely to lose nodes, and with them rows that are to be read again
# With 16 GiB or more: the primary node has Zeppelin and the driver's YARN beside it.
CANDIDATES = ("c7g.2xlarge", "c7g.4xlarge", "m7g.xlarge", "m7g.2xlarge", "m7g.4xlarge", "r7g.xlarge", "r7g.2xlarge")


@dataclass(frozen=True)
class Choice:
    """A cluster for the task. `minutes`: of the whole run; `cached_gib`: of the rows; `memory_gib`: room for them."""

    instance: Instance
    workers: int
    spot: bool
    minutes: float
    cluster_minutes: float
    usd: float
    cached_gib: float
    memory_gib: float
    in_time: bool

    @property
    def fits(self) -> bool:
        return self.cached_gib <= self.memory_gib

    def as_json(self) -> dict[str, Any]:
        return {
            "instance_type": self.instance.name,
            "core_nodes": self.workers,
            "market": "spot" if self.spot else "on demand",
            "minutes": self.minutes,
            "cluster_minutes": self.cluster_minutes,
            "usd": self.usd,
            "cached_gib": self.cached_gib,
            "cache_room_gib": self.memory_gib,
            "in_time": self.in_time,
            "fits_in_memory": self.fits,
        }


@dataclass(frozen=True)
class Sizing:
    """What to run `rows` with, in `within` minutes. `hours` and `usd` are the whole run's."""

    rows: float
    depth: int
    within: float
    glue_workers: int
    glue_minutes: float
    glue_usd: float
    choices: Sequence[Choice]
    pick: Choice
    why: str
    prices: Prices

    @property
    def usd(self) -> float:
        return self.glue_usd + self.pick.usd

    @property
    def minutes(self) -> float:
        return self.pick.minutes

    def as_json(self) -> dict[str, Any]:
        return {
            "rows": self.rows,
            "depth": self.depth,
            "within_minutes": self.within,
            "minutes": self.minutes,
            "usd": self.usd,
            "pick": self.pick.as_json(),
            "why": self.why,
            "glue": {
                "worker_type": GLUE_WORKER,
                "workers": self.glue_workers,
                "minutes": self.glue_minutes,
                "usd": self.glue_usd,
            },
            "considered": [choice.as_json() for choice in self.choices],
            "prices": self.prices.as_json(),
            "extrapolated": self.rows / MEASURED_ROWS,
        }


def fit_seconds(rows: float, depth: int, cores: float) -> float:
    """Seconds of the learner alone on `cores` of one machine, 1 or more."""
    return FIT_START + rows * (FIT_ROW + FIT_LEVEL * depth) / _counting(cores, FIT_EFFICIENCY)


def train_seconds(rows: float, depth: int, cores: float) -> float:
    """Seconds of the training job from its start until its metrics are known."""
    return START + rows * READ / _counting(cores, READ_EFFICIENCY) + fit_seconds(rows, depth, cores)


def prepare_seconds(rows: float, cores: float) -> float:
    """Seconds of the Glue job, without Glue's own start."""
    return SQL_START + rows * PREPARE / _counting(cores, SQL_EFFICIENCY)


def predict_seconds(rows: float, cores: float) -> float:
    """Seconds of the prediction job."""
    return SQL_START + rows * PREDICT / _counting(cores, SQL_EFFICIENCY)


def _counting(cores: float, efficiency: float) -> float:
    """Cores that count: one counts whole, more as far as they were seen to help."""
    return cores if cores <= 1 else cores * efficiency


def size(rows: float, prices: Prices, *, depth: int = 12, within: float = 60) -> Sizing:
    """The cheapest cluster whose memory holds the rows and which is done `within` so many minutes, and the others.

    Raises UserError if no cluster is.
    """
    if rows < 1:
        raise UserError("--rows is how many rows the features have, such as 1e6.")
    # Before and beside the jobs: the crawl, the cluster's start, two steps.
    fixed = prices.assumed("crawl_minutes") + prices.assumed("cluster_start_minutes") + 2 * STEP_MINUTES
    left = within - fixed
    if left <= 0:
        raise UserError(
            f"--within {within:g} is too short: crawl and the start of a cluster take {fixed:g} minutes by themselves."
        )
    workers, glue_minutes = _glue(rows, left / 2, prices)
    glue_usd = workers * max(JOB_MINUTES, glue_minutes) / 60 * prices.rates["glue_dpu"].usd + _crawl(prices)
    rest = max(left - glue_minutes, 0.5)
    choices = [
        choice
        for name in CANDIDATES
        for spot in (False, True)
        if (choice := _choice(name, rows, depth, rest, fixed + glue_minutes, prices, spot=spot))
    ]
    good = [choice for choice in choices if choice.fits and choice.in_time]
    if not good:
        raise UserError(
            f"No cluster of up to {NODES} nodes is done with {rows:,.0f} rows within {within:g} minutes. "
            "Give it longer, in minutes: --within."
        )
    pick, why = _pick(good)
    return Sizing(rows, depth, within, workers, glue_minutes, glue_usd, choices, pick, why, prices)


def _glue(rows: float, minutes: float, prices: Prices) -> tuple[int, float]:
    """Workers of the Glue job, one of them the driver, and the minutes that they take.

    The driver does no rows, so more workers cost less until Glue's minimum counts: the fewest within a tenth of that.
    """

    def took(workers: int) -> float:
        return prepare_seconds(rows, (workers - 1) * GLUE_CORES * ACROSS_NODES) / 60

    def billed(workers: int) -> float:
        return workers * max(JOB_MINUTES, took(workers))

    counts = [count for count in range(2, NODES + 1) if took(count) <= minutes] or [NODES]
    least = min(map(billed, counts))
    workers = next(count for count in counts if billed(count) <= 1.1 * least)
    return workers, took(workers)


def _crawl(prices: Prices) -> float:
    return CRAWLER_DPUS * max(CRAWL_MINUTES, prices.assumed("crawl_minutes")) / 60 * prices.rates["crawler_dpu"].usd


def _choice(
    name: str, rows: float, depth: int, minutes: float, before: float, prices: Prices, *, spot: bool
) -> Choice | None:
    """The cheapest number of nodes that holds the rows and is done in time; the most there may be if none is.

    None if there is no price, and for one node on spot: the primary and one core node stay on demand, since they have
    the driver and HDFS.
    """
    instance = prices.instance(name)
    if instance is None:
        return None
    cached, room = rows * CACHED_BYTES / 2**30, instance.gib * CACHE_SHARE
    gib = clusters.GIB_PER_XLARGE * instance.size
    start = prices.assumed("cluster_start_minutes") + 2 * STEP_MINUTES

    def made(count: int) -> Choice:
        took = _steps(rows, depth, instance, count)
        nodes = [clusters.Nodes("primary", 1, instance, False, 1, gib)]
        nodes.append(clusters.Nodes("core", 1 if spot else count, instance, False, 1, gib))
        if spot:
            nodes.append(clusters.Nodes("task", count - 1, instance, True, 1, gib))
        usd = (start + took) / 60 * clusters.usd_per_hour(nodes, clusters.ROOT_GIB, prices)
        return Choice(instance, count, spot, before + took, start + took, usd, cached, room * count, took <= minutes)

    least = max(2 if spot else 1, math.ceil(cached / room))
    choices = [made(count) for count in range(min(least, NODES), NODES + 1)]
    in_time = [choice for choice in choices if choice.in_time]
    return min(in_time, key=lambda choice: choice.usd) if in_time else choices[-1]


def _steps(rows: float, depth: int, instance: Instance, count: int) -> float:
    """Minutes of training and predicting on `count` nodes."""
    cores = count * instance.vcpu * (ACROSS_NODES if count > 1 else 1)
    return (WHOLE_TRAINING * train_seconds(rows, depth, cores) + predict_seconds(rows, cores)) / 60


def _pick(good: Sequence[Choice]) -> tuple[Choice, str]:
    """The cheapest on demand, or on spot where that saves enough and is short enough."""
    on_demand = min((choice for choice in good if not choice.spot), key=lambda choice: choice.usd)
    spot = min((choice for choice in good if choice.spot), key=lambda choice: choice.usd, default=None)
    if spot is None or on_demand.usd <= spot.usd:
        return on_demand, "the cheapest that holds the rows in memory and is done in time; spot would save nothing"
    saved = on_demand.usd - spot.usd
    if saved < SPOT_SAVES:
        return on_demand, f"the cheapest on demand; spot would save {saved:.2f} a run, less than one interruption costs"
    if spot.cluster_minutes > SPOT_MINUTES:
        return on_demand, f"the cheapest on demand; in over {SPOT_MINUTES} minutes spot nodes are likely to be lost"
    return spot, f"spot saves {saved:.2f} a run, and a lost task node only costs reading its rows again"
