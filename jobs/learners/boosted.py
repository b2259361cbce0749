"""Gradient-boosted trees by XGBoost, over the bin numbers that workers hold; no row of features goes through the JVM.

XGBoost's `hist` compares bin numbers, small whole numbers that a float has exactly, so its split "code < k" is one of
our own thresholds, and what it has learned is said in doubles by every scorer alike.

All executors learn together: one task each, with a thread for each of its cores, in a barrier stage, so that they run
at once and are tried again as one. They add up their histograms by XGBoost's own collective, whose tracker the first
task starts on its own address, for as long as the stage runs. One executor, or few rows, need none of it and open no
socket. Where executors come and go (dynamic allocation, as in a note), Spark refuses a barrier stage (SPARK-24942), and
one task learns from all rows.
"""

import json
import math
import socket
import sys
from functools import partial
from typing import Any, Dict, Iterable, Iterator, List, NamedTuple, Optional, Sequence, Tuple

import numpy as np
from pyspark import BarrierTaskContext, SparkContext

from jobs.errors import JobError
from jobs.learners import encoding
from jobs.learners.encoding import Learned
from jobs.learners.grow import Block, FixedPoint
from jobs.learners.survey import Survey
from jobs.models import forms, tasks
from jobs.models.forms import Told
from jobs.tables.arrays import Array
from jobs.tables.settings import Dataset, Training, Tune

# Rounds that are tried at most where the run chooses, and without a better figure before it gives up.
MOST_ROUNDS, PATIENCE = 1_000, 20
ROWS_A_TASK = 20_000  # fewer are learned faster by one task than by two that wait for each other
DEEPEST = 30  # no scorer is asked for more; trees are bounded by their leaves
TOLD_ROUNDS = 50  # of the figures of all rounds, so many are kept
OBJECTIVES = {
    "binary": ("binary:logistic", "logloss"),
    "multiclass": ("multi:softprob", "mlogloss"),
    "regression": ("reg:squarederror", "rmse"),
}
SLOTS = "SPARK-24819"  # Spark's name for too few slots
WITHOUT = 'or set training.learner = "tree"'
# What an executor needs outside of Java's heap, as measured (docs/costs.md): the task that boosts, a byte each of a
# feature and what XGBoost makes of it, gradients and margins of each output; and the workers that have decoded, a core.
# Rows come unpickled, a byte a feature more, with label and weight.
TASK_MB, WORKER_MB = 109, 200
BYTES_A_FEATURE, BYTES_AN_OUTPUT, BYTES_A_ROW = 6.6 + 1, 20, 16
OVERHEAD = "spark.executor.memoryOverhead"

# Task; group, partition, block, codes, labels, weights if a column says them.
Keyed = Tuple[int, Tuple[int, int, int, Array, Array, Optional[Array]]]


class Fitted(NamedTuple):
    """`told`: what tree.json has of this model alone."""

    features: List[Dict[str, Any]]
    told: Told


class Start(NamedTuple):
    """From where rounds begin: the training rows' average (weighted, if a column weighs them), in the sums' unit; and
    how a label becomes what is learned.

    A regression learns (label - mean) / spread: in floats, as XGBoost has them, small differences of large labels
    would be lost.
    """

    base: List[float]
    mean: float
    spread: float
    point: Optional[FixedPoint]

    def raised(self, weights: Optional[Array]) -> List[float]:
        """Where rounds begin for rows whose classes are weighted so."""
        if weights is None:
            return self.base
        logs = np.log(weights)
        return [self.base[0] + logs[1] - logs[0]] if len(self.base) == 1 else (self.base + logs).tolist()

    def labels(self, label: Array) -> Array:
        if self.point is None:
            return label.astype(np.float32)
        values: Array = self.point.sum(1, label.astype(np.float64))
        return ((values - self.mean) / self.spread).astype(np.float32)


def fit(survey: Survey, parts: Sequence[int], training: Training) -> Fitted:
    """Learns encodings and trees from these parts of the survey's rows. Raises JobError."""
    assert training.rounds is not None  # noqa: S101  # set, or chosen by now
    learned, start = survey.learn(parts), _start(survey, parts)
    model, _ = _boosted(survey, [parts], learned, start, training, training.rounds)
    task, info = survey.settings.task, model["learner"]["gradient_booster"]["model"]
    trees = [
        {"output": output, "nodes": _nodes(tree, learned, start.spread)}
        for tree, output in zip(info["trees"], info["tree_info"])  # noqa: B905  # not in Python 3.9
    ]
    base = [start.mean] if task == "regression" else start.base
    return Fitted(learned.features, {"format": forms.SEVERAL, "link": forms.LINKS[task], "base": base, "trees": trees})


def choose(rows: Survey, fit_on: Sequence[int], held_out: Sequence[int], tuning: Tune) -> Dict[str, Any]:
    """The number of rounds that does best on `held_out`, as of `tune.choose`. Raises JobError if there are too few rows
    to choose by.
    """
    settings, main = rows.settings, tasks.MAIN[rows.settings.task]
    fitted, held = rows.labels(fit_on), rows.labels(held_out)
    way_out = f"Give more rows, or set training.rounds in {settings.file}."
    encoding.require_parts(fitted, held, settings, "the number of rounds", way_out)
    learned, start = rows.learn(fit_on), _start(rows, fit_on)
    _, figures = _boosted(rows, [fit_on, held_out], learned, start, settings.training, MOST_ROUNDS)
    best = int(np.argmin(figures))
    kept = sorted({best, *np.linspace(0, len(figures) - 1, min(len(figures), TOLD_ROUNDS)).astype(int).tolist()})
    return {
        "chosen": {"rounds": best + 1},
        "metric": main,
        "rows": {"fitted": fitted.rows, "validated": held.rows},
        "sample": 0,
        "tried": [{"rounds": i + 1, main: figures[i] * start.spread} for i in kept],
    }


def _start(survey: Survey, parts: Sequence[int]) -> Start:
    label, average = survey.labels(parts), survey.average(parts)
    if not survey.classes:
        return Start([0.0], average, label.std, survey.point)
    shares = np.array(average, dtype=np.float64) / sum(average)
    if survey.classes == 2:
        base = [math.log(shares[1] / shares[0])]
    else:  # a class that has no rows here is as rare as half a row
        base = np.log(np.maximum(shares, 0.5 / label.rows)).tolist()
    return Start([float(np.float32(value)) for value in base], 0.0, 1.0, None)


def _boosted(
    survey: Survey,
    groups: Sequence[Sequence[int]],
    learned: Learned,
    start: Start,
    training: Training,
    rounds: int,
) -> Tuple[Dict[str, Any], List[float]]:
    """XGBoost's model as its JSON has it, and the figure of each round on the second of the groups, if there is one.

    `groups`: parts to learn from; and parts to stop by, when they are not told better any more.
    """
    settings, context = survey.settings, survey.context
    _require(settings)
    weights = survey.weights(groups[0]), survey.row_weight(groups[0])
    wanted, most, threads = _spread(context, survey.labels(groups[0]).rows)
    rows = sum(survey.labels(parts).rows for parts in groups)
    task_count = tasks_with_room(settings, rows, len(learned.features), wanted, most, threads, overhead_mb(context))
    objective, metric = OBJECTIVES[settings.task]
    rest = {"num_class": survey.classes} if survey.classes > 2 else {}
    parameters = {
        "objective": objective,
        "eval_metric": metric,
        "tree_method": "hist",
        "max_bin": max(2, *learned.bins),
        "grow_policy": "lossguide",
        "max_leaves": training.leaves,
        "max_depth": training.depth or DEEPEST,
        "learning_rate": training.learning_rate,
        "min_child_weight": _weight(survey, groups[0], training),
        "base_score": 0.0 if settings.task == "regression" else 0.5,
        "seed": training.seed,
        "nthread": threads,
        **rest,
    }
    coded = [
        survey.code(parts, learned).mapPartitionsWithIndex(partial(_dealt, group, task_count))
        for group, parts in enumerate(groups)
    ]
    dealt = context.union(coded).partitionBy(task_count, int)
    together = task_count > 1
    work = _Work(parameters, rounds, len(groups), start, len(learned.features), weights, together=together)
    # What comes after a barrier stage has Spark try the whole stage again when a task fails; as the last one of a job
    # it would be given up.
    told = (dealt.barrier() if together else dealt).mapPartitions(work).partitionBy(1, int)
    try:
        (_, (text, figures)) = told.collect()[0]
    except Exception as error:
        raise_with_reason(error, settings)
        raise
    return json.loads(text), figures


def _weight(survey: Survey, parts: Sequence[int], training: Training) -> float:
    """XGBoost's min_child_weight for leaves of `min_leaf` rows of the average kind: their second derivatives."""
    if training.min_leaf is None:
        return 1.0
    label = survey.labels(parts)
    if not survey.classes:
        return float(training.min_leaf)
    weights = survey.weights(parts)
    shares = np.array(label.counts) / label.rows * (1 if weights is None else weights)
    each = float(shares[1] * shares[0]) if survey.classes == 2 else float(2 * (shares * (1 - shares)).mean())
    return training.min_leaf * each


def _spread(context: SparkContext, rows: int) -> Tuple[int, int, int]:
    """How many tasks so many rows are worth, how many there may be, and with how many threads each: one on each
    executor, with all its cores. One alone where executors come and go."""
    scala: Any = context._jsc.sc()
    executors = max(scala.getExecutorMemoryStatus().size() - 1, 1)  # it counts the driver, which may be the only one
    slots = scala.maxNumConcurrentTasks(scala.resourceProfileManager().defaultResourceProfile())
    they_stay = context.getConf().get("spark.dynamicAllocation.enabled", "false") != "true"
    most = max(1, min(executors, slots)) if they_stay else 1
    return max(1, min(most, rows // ROWS_A_TASK)), most, max(1, slots // executors)


def overhead_mb(context: SparkContext) -> Optional[int]:
    """What executors have outside of Java's heap, None if nobody has set it: then there is nothing to hold rows
    against."""
    text = context.getConf().get(OVERHEAD)
    jvm: Any = context._jvm
    return int(jvm.org.apache.spark.network.util.JavaUtils.byteStringAsMb(text)) if text else None


def outputs_of(settings: Dataset) -> int:
    """How many trees a round has: of several classes one each."""
    return settings.classes if settings.task == "multiclass" else 1


def needed_mb(rows: float, features: int, outputs: int, executors: int, cores: int) -> float:
    """Megabytes that each of so many executors needs outside of Java's heap, if the rows are dealt out to them."""
    each = BYTES_A_FEATURE * features + BYTES_AN_OUTPUT * outputs + BYTES_A_ROW
    return TASK_MB + WORKER_MB * cores + rows * each / 1e6 / executors


def tasks_with_room(
    settings: Dataset, rows: int, features: int, wanted: int, most: int, cores: int, overhead: Optional[int]
) -> int:
    """How many tasks boost, one on an executor: as many as are wanted, or as hold these rows, up to `most`.

    `overhead`: megabytes that an executor has outside of Java's heap, None if nobody knows. Raises JobError if `most`
    executors would be killed over these rows.
    """
    needed = partial(needed_mb, rows, features, outputs_of(settings), cores=cores)
    if overhead is None:
        return wanted
    enough = (count for count in range(wanted, most + 1) if needed(count) <= overhead)
    if found := next(enough, 0):
        return found
    always = TASK_MB + WORKER_MB * cores
    room, all_rows = overhead - always, needed(1) - always
    more = f"nodes for {math.ceil(all_rows / room):,} executors (cluster.maximum_nodes), or " if room > 0 else ""
    count = f"{most:,} {'executor' if most == 1 else 'executors'}"
    raise JobError(
        f"{_asked(settings)}: {rows:,} rows of {features:,} features on {count} take "
        f"{needed(most):,.0f} MB of each outside of Java's heap, which has {overhead:,} there "
        f"({OVERHEAD}), so YARN would kill it: give the cluster {more}larger nodes (cluster.instance_types), deploy, "
        f"and run again, {WITHOUT} in {settings.file}."
    )


def _dealt(group: int, count: int, partition: int, blocks: Iterable[Block]) -> Iterator[Keyed]:
    """Each block's rows dealt out to all tasks alike."""
    for i, block in enumerate(blocks):
        rows = len(block.label)
        for k in range(count):
            low, high = k * rows // count, (k + 1) * rows // count
            if low < high:
                task = (k + i + partition) % count
                weight = None if block.weight is None else block.weight[low:high]
                yield task, (group, partition, i, block.codes[:, low:high], block.label[low:high], weight)


class _Work:
    """What each task does. The first one yields the model and the figures."""

    def __init__(
        self,
        parameters: Dict[str, Any],
        rounds: int,
        groups: int,
        start: Start,
        features: int,
        weights: Tuple[Optional[Array], Optional[float]],
        *,
        together: bool,
    ) -> None:
        """`together`: with other tasks, in a barrier stage. `weights`: of each class, and the mean of what a column
        says, if they are. Those of classes raise the odds that are learned from, and these alone: what trees add is
        then what they add to the odds of the rows as they are, of which the model, and what rounds are chosen by, says.
        """
        self.parameters, self.rounds, self.groups = parameters, rounds, groups
        self.start, self.features = start, features
        self.weights, self.row_weight = weights
        self.together = together

    def __call__(self, dealt: Iterable[Keyed]) -> Iterator[Tuple[int, Tuple[str, List[float]]]]:
        import xgboost as xgb

        own = sorted((item for _, item in dealt), key=lambda item: item[:3])  # a shuffle has no order of its own
        if not self.together:
            yield 0, self._learned(own)
            return
        context = BarrierTaskContext.get()
        addresses = [info.address for info in context.getTaskInfos()]
        first, tracker = context.partitionId() == 0, None
        if first:
            host = socket.gethostbyname(addresses[0].rpartition(":")[0])
            tracker = xgb.tracker.RabitTracker(n_workers=len(addresses), host_ip=host, sortby="task")
            tracker.start()
        told = context.allGather(json.dumps(tracker.worker_args() if tracker else {}))
        place = {"dmlc_task_id": f"{context.partitionId():08d}"}
        with xgb.collective.CommunicatorContext(**{**json.loads(told[0]), **place}):
            found = self._learned(own)
        if tracker:
            tracker.wait_for()
            yield 0, found

    def _learned(self, own: Sequence[Tuple[int, int, int, Array, Array, Any]]) -> Tuple[str, List[float]]:
        import xgboost as xgb

        matrices: List[Any] = []
        for group in range(self.groups):
            blocks = [(codes, label, weight) for of, _, _, codes, label, weight in own if of == group]
            nothing = (np.empty((self.features, 0), dtype=np.uint8), np.empty(0), np.empty(0))
            codes, label, row_weights = zip(*(blocks or [nothing]))  # noqa: B905  # not in Python 3.9
            labels = self.start.labels(np.concatenate(label))
            weights = self.weights if group == 0 else None
            base = np.tile(np.array(self.start.raised(weights), dtype=np.float32), (len(labels), 1))
            given = {"label": labels, "base_margin": base if base.shape[1] > 1 else base[:, 0]}
            if weights is not None:
                given["weight"] = weights.astype(np.float32)[labels.astype(np.int64)]
            elif group == 0 and self.row_weight is not None:  # what is measured counts each row once
                given["weight"] = (np.concatenate(row_weights) / self.row_weight).astype(np.float32)
            given.update(max_bin=self.parameters["max_bin"], nthread=self.parameters["nthread"])
            made = partial(xgb.QuantileDMatrix, ref=matrices[0] if matrices else None)
            matrices.append(made(np.ascontiguousarray(np.concatenate(codes, axis=1).T), **given))
        held = {"evals": [(matrices[1], "held")], "early_stopping_rounds": PATIENCE} if self.groups > 1 else {}
        figures: Dict[str, Dict[str, List[float]]] = {}
        booster = xgb.train(self.parameters, matrices[0], self.rounds, evals_result=figures, verbose_eval=False, **held)
        told = figures["held"][self.parameters["eval_metric"]] if self.groups > 1 else []
        return bytes(booster.save_raw("json")).decode(), [float(figure) for figure in told]


def _nodes(tree: Dict[str, Any], learned: Learned, scale: float) -> List[Told]:
    """A tree of XGBoost's JSON as tree.json has it, root first. `scale`: what its leaves' values are multiplied by.

    XGBoost tells no rows: `gain` is of all of them together, and `cover` the sum of their second derivatives. A
    condition "code < k" holds of the bins below k.
    """
    told: List[Told] = []
    waiting: List[Tuple[int, int]] = [(0, 0)]
    while waiting:
        i, depth = waiting.pop()
        node: Told = {"id": i, "depth": depth, "cover": float(tree["sum_hessian"][i])}
        told.append(node)
        left, right, limit = (tree[key][i] for key in ("left_children", "right_children", "split_conditions"))
        if left < 0:
            node["value"] = float(np.float32(limit)) * scale
            continue
        feature = tree["split_indices"][i]
        between = learned.thresholds[feature]
        at = math.ceil(limit) - 1  # the last bin that goes left
        node.update(feature=learned.features[feature]["name"], threshold=float(between[at]), left=left, right=right)
        node["gain"] = float(tree["loss_changes"][i])
        waiting += [(right, depth + 1), (left, depth + 1)]
    return told


def _require(settings: Dataset) -> None:
    """Raises JobError if this Python has no XGBoost that runs."""
    try:
        import xgboost  # noqa: F401
    except Exception as error:  # it raises errors of its own where its library does not load
        raise JobError(_lacking(settings, f"{sys.executable}: {str(error).strip().splitlines()[0]}")) from error


def _asked(settings: Dataset) -> str:
    return f'{settings.file}: training.learner = "{settings.training.learner}"'


def _lacking(settings: Dataset, found: str) -> str:
    return (
        f"{_asked(settings)} needs XGBoost, which does not run here ({found}). On a cluster it comes with "
        "cluster/requirements.txt when nodes start: deploy again, and start a new cluster; on a Mac it needs libomp "
        f"(brew install libomp); {WITHOUT}."
    )


def raise_with_reason(error: Exception, settings: Dataset) -> None:
    """Raises JobError if what the stage failed by is known; it returns if it is not."""
    text = str(error)
    if SLOTS in text:
        raise JobError(
            "The executors that boosting began with are not all there any more, and no others came in their place: "
            f"look for lost nodes in the cluster's log, and run again, {WITHOUT} in {settings.file}."
        ) from error
    if "No module named 'xgboost'" in text:
        raise JobError(_lacking(settings, "an executor's Python has no module xgboost")) from error
    if "XGBoostError" in text or "Python worker exited unexpectedly" in text:
        raise JobError(
            "A task of the stage that boosts was lost, and so it was each time that Spark tried the whole stage again: "
            "often a node has too little memory. Give the cluster larger nodes, set fewer training.bins in "
            f"{settings.file}, {WITHOUT}. Nothing was published."
        ) from error
