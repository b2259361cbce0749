"""`dml cost --rows`: a cluster for so many rows, on paper, from what the benchmark measured.

The model of training, in seconds: what it takes to start, and the rows' core-seconds over the cores that count.

    START + rows * READ / (cores * READ_EFFICIENCY) + FIT_START + rows * FIT(depth) / (cores * FIT_EFFICIENCY)

It is of our own tree; FIT(depth) and FIT_START of the other learners are in LEARNERS. Every constant of it is here,
with its source. docs/costs.md holds it against each measured point.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from datasets import load_dataset
from dml.cost import clusters
from dml.cost.estimate import CRAWL_MINUTES, CRAWLER_DPUS, JOB_MINUTES
from dml.cost.prices import Instance, Prices
from dml.errors import UserError
from stacks.settings import CORES_AN_EXECUTOR, executors_of, overhead_mb

# From docs/benchmarks.md of 2026-11-27, revision 4d4b9d9: nyc_flights with 16 numbers and 3 categories, 2 cores of AMD
# EPYC. Fitted to its eighteen figures: fit and end to end at 327,346, 3,273,460 and 9,820,380 rows, at depth 5 and 12
# on two cores and at depth 12 on one. End to end is fit and all else: interpreter, JVM, session, reading, metrics.
START = 2.5  # seconds that don't depend on rows
READ = 0.42e-6  # core-seconds a row of reading, counting and scoring: 2,400,000 rows a core-second
READ_EFFICIENCY = 0.62  # of two cores: Java reads files while Python decodes them, so that one core is not one
FIT_START = 0.58
FIT_ROW, FIT_LEVEL = 0.60e-6, 0.032e-6  # core-seconds a row, and a row and level: 1,000,000 rows a core-second at 12
FIT_EFFICIENCY = 0.64
# The other learners' fit, on the same two cores or such as these. `rows`: the most that were measured.


@dataclass(frozen=True)
class Learner:
    """FIT_START, and core-seconds a row and a row and level (of as many rounds or trees as `of` says)."""

    start: float
    row: float
    level: float
    rows: int
    points: str
    of: str = ""


LEARNERS = {
    "tree": Learner(FIT_START, FIT_ROW, FIT_LEVEL, 9_820_380, "18 points, 0.3 to 9.8 million rows"),
    # MLlib's tree as tutorials write it, its StringIndexers in it: 7.20, 25.67 and 67.20 s at depth 5, 8.97, 31.55 and
    # 74.61 at 12. Ours gives MLlib bin numbers, and then asks the rows once more; that was not measured by itself.
    "mllib": Learner(5.7, 7.4e-6, 0.16e-6, 9_820_380, "6 points of MLlib's own fit, 0.3 to 9.8 million rows"),
    # docs/benchmarks.md, "Boosted trees and forests": 59.0 s.
    "forest": Learner(5.0, 211e-6, 0.0, 327_346, "one point", "20 trees of depth 8"),
    # There 5.0 s; and XGBoost alone on one core, at 0.33 and 3.3 million rows (docs/costs.md).
    "boosted": Learner(1.0, 16e-6, 0.0, 3_270_000, "two points, the larger of XGBoost alone", "100 rounds of depth 6"),
}
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
FEATURES = 19  # of the rows that were measured

# Assumed: the benchmark stops at one machine.
ACROSS_NODES = 0.8  # of the cores of several nodes: shuffles by network, and the slowest task of a stage
CACHE_SHARE = 0.35  # of a node's memory: YARN gets 3/4, executors 0.81 of that, Spark's memory fraction is 0.6
# Where executors boost, the step says what heap they have (stacks/emr.py). After what Spark reserves of it, this
# fraction of the rest is for rows (Spark's tuning guide, "Memory Management Overview").
MEMORY_FRACTION, RESERVED_MB = 0.6, 300
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
    overhead_gib: float = 0.0  # of each executor outside of Java's heap, and what a learner needs there
    needed_gib: float = 0.0

    @property
    def fits(self) -> bool:
        return self.cached_gib <= self.memory_gib and self.needed_gib <= self.overhead_gib

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
            "executor_overhead_gib": self.overhead_gib,
            "executor_needs_gib": self.needed_gib,
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
    learner: str = "tree"
    features: int = FEATURES
    outputs: int = 1

    @property
    def measured_rows(self) -> int:
        return LEARNERS[self.learner].rows

    @property
    def usd(self) -> float:
        return self.glue_usd + self.pick.usd

    @property
    def minutes(self) -> float:
        return self.pick.minutes

    def as_json(self) -> dict[str, Any]:
        return {
            "rows": self.rows,
            "learner": self.learner,
            "features": self.features,
            "outputs": self.outputs,
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
            "extrapolated": self.rows / self.measured_rows,
            "measured": LEARNERS[self.learner].points,
        }


def fit_seconds(
    rows: float, depth: int, cores: float, learner: str = "tree", features: int = FEATURES, outputs: int = 1
) -> float:
    """Seconds of the learner alone on `cores` of one machine, 1 or more; in proportion to the features.

    Boosting also to the outputs: a round has a tree for each of several classes. The other learners' trees are one for
    all classes, and a row is counted once in each; that counts are as wide as classes was not measured.
    """
    of = LEARNERS[learner]
    each = (of.row + of.level * depth) * features / FEATURES * (outputs if learner == "boosted" else 1)
    return of.start + rows * each / _counting(cores, FIT_EFFICIENCY)


def train_seconds(
    rows: float, depth: int, cores: float, learner: str = "tree", features: int = FEATURES, outputs: int = 1
) -> float:
    """Seconds of the training job from its start until its metrics are known."""
    read = rows * READ * features / FEATURES / _counting(cores, READ_EFFICIENCY)
    return START + read + fit_seconds(rows, depth, cores, learner, features, outputs)


def prepare_seconds(rows: float, cores: float) -> float:
    """Seconds of the Glue job, without Glue's own start."""
    return SQL_START + rows * PREPARE / _counting(cores, SQL_EFFICIENCY)


def predict_seconds(rows: float, cores: float) -> float:
    """Seconds of the prediction job."""
    return SQL_START + rows * PREDICT / _counting(cores, SQL_EFFICIENCY)


def _counting(cores: float, efficiency: float) -> float:
    """Cores that count: one counts whole, more as far as they were seen to help."""
    return cores if cores <= 1 else cores * efficiency


def size(
    rows: float,
    prices: Prices,
    *,
    depth: int = 12,
    within: float = 60,
    learner: str = "tree",
    features: int = FEATURES,
    outputs: int = 1,
) -> Sizing:
    """The cheapest cluster whose memory holds the rows and which is done `within` so many minutes, and the others.

    `outputs`: of several classes their number. Raises UserError if no cluster is.
    """
    if rows < 1:
        raise UserError("--rows is how many rows the features have, such as 1e6.")
    if learner not in LEARNERS:
        raise UserError(
            f"--learner {learner} has no model: name {', '.join(LEARNERS)}; of best, boosted is most of it."
        )
    task = Task(rows, depth, learner, features, outputs)
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
        if (choice := _choice(name, task, rest, fixed + glue_minutes, prices, spot=spot))
    ]
    good = [choice for choice in choices if choice.fits and choice.in_time]
    if not any(choice.fits for choice in choices):  # nor would the most nodes there may be, whatever the time
        raise UserError(
            f"No cluster of up to {NODES} nodes has the memory for {rows:,.0f} rows: leave out features, take a sample "
            'of the rows in prepare.sql, or set training.learner = "tree", if another one learns.'
        )
    if not good:
        raise UserError(
            f"No cluster of up to {NODES} nodes is done with {rows:,.0f} rows within {within:g} minutes. "
            "Give it longer, in minutes: --within."
        )
    pick, why = _pick(good)
    return Sizing(
        rows, depth, within, workers, glue_minutes, glue_usd, choices, pick, why, prices, learner, features, outputs
    )


def task_of(dataset: str) -> dict[str, Any]:
    """What `size` takes of a dataset's settings: of `best` the boosted trees, which are most of it."""
    settings = load_dataset(dataset)
    learner = "boosted" if settings.training.learner == "best" else settings.training.learner
    outputs = settings.classes if settings.classes > 2 else 1
    found = {"learner": learner, "features": len(settings.features.names), "outputs": outputs}
    return found if settings.training.depth is None else {**found, "depth": settings.training.depth}


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


@dataclass(frozen=True)
class Task:
    """What is to be learned. `outputs`: of several classes their number."""

    rows: float
    depth: int
    learner: str
    features: int
    outputs: int


def _choice(name: str, task: Task, minutes: float, before: float, prices: Prices, *, spot: bool) -> Choice | None:
    """The cheapest number of nodes that holds the rows and is done in time; the most there may be if none is.

    None if there is no price, and for one node on spot: the primary and one core node stay on demand, since they have
    the driver and HDFS.
    """
    instance = prices.instance(name)
    if instance is None:
        return None
    cached, room = task.rows * CACHED_BYTES * task.features / FEATURES / 2**30, instance.gib * CACHE_SHARE
    boosts, each = task.learner == "boosted", executors_of(name)
    overhead = overhead_mb([name]) / 1024 if boosts else 0.0
    if boosts:  # an executor's heap is as large as what it has outside
        room = (overhead - RESERVED_MB / 1024) * MEMORY_FRACTION * each
    gib = clusters.GIB_PER_XLARGE * instance.size
    start = prices.assumed("cluster_start_minutes") + 2 * STEP_MINUTES

    def made(count: int) -> Choice:
        took = _steps(task, instance, count)
        needed = _needed_gib(task, count * each) if boosts else 0.0
        nodes = [clusters.Nodes("primary", 1, instance, False, 1, gib)]
        nodes.append(clusters.Nodes("core", 1 if spot else count, instance, False, 1, gib))
        if spot:
            nodes.append(clusters.Nodes("task", count - 1, instance, True, 1, gib))
        usd = (start + took) / 60 * clusters.usd_per_hour(nodes, clusters.ROOT_GIB, prices)
        in_time, memory = took <= minutes, room * count
        return Choice(
            instance, count, spot, before + took, start + took, usd, cached, memory, in_time, overhead, needed
        )

    least = max(2 if spot else 1, math.ceil(cached / room))
    choices = [made(count) for count in range(min(least, NODES), NODES + 1)]
    able = [choice for choice in choices if choice.in_time and choice.fits]
    in_time = able or [choice for choice in choices if choice.in_time]
    return min(in_time, key=lambda choice: choice.usd) if in_time else choices[-1]


def _needed_gib(task: Task, executors: int) -> float:
    """What each executor that boosts needs outside of Java's heap, as the job reckons it."""
    from jobs.learners.boosted import needed_mb

    return needed_mb(task.rows, task.features, task.outputs, executors, CORES_AN_EXECUTOR) / 1024


def _steps(task: Task, instance: Instance, count: int) -> float:
    """Minutes of training and predicting on `count` nodes."""
    cores = count * instance.vcpu * (ACROSS_NODES if count > 1 else 1)
    training = train_seconds(task.rows, task.depth, cores, task.learner, task.features, task.outputs)
    return (WHOLE_TRAINING * training + predict_seconds(task.rows, cores)) / 60


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
