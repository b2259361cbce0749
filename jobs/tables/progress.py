"""How far a job is, for whoever waits for its run: an object below the run's id, written while the job works."""

import datetime as dt
import sys
import threading
import time
from types import TracebackType
from typing import Any, Optional, Type

from pyspark.sql import SparkSession

from jobs.tables import storage
from jobs.tables.session import Clock

EVERY = 5.0  # seconds between two writes; a PUT each, so an hour of a job costs 0.4 cents


class Progress:
    """Tells it at the start, and again as long as there is something new to tell; use as a context manager.

    What it writes to `uri` (s3://bucket/key): `stage`; `doing`, in words; `seconds`, for how long; `written`; and,
    while Spark runs a pass over rows, `pass`: tasks `done`, `of` how many, how many run at once (`active`), `rows` read
    so far, its own `seconds`, and how many these were when a task was last seen to have ended (`last`). What stands in
    its way is printed once, and the job goes on without.
    """

    def __init__(
        self, spark: SparkSession, s3: Any, uri: str, stage: str, clock: Clock, *, every: float = EVERY
    ) -> None:
        self._spark, self._s3, self._uri, self._stage, self._clock = spark, s3, uri, stage, clock
        self._every, self._ended = every, threading.Event()
        self._thread = threading.Thread(target=self._tell, name="progress", daemon=True)

    def __enter__(self) -> "Progress":
        self._thread.start()
        return self

    def __exit__(
        self, kind: Optional[Type[BaseException]], error: Optional[BaseException], trace: Optional[TracebackType]
    ) -> None:
        self._ended.set()
        self._thread.join(2 * self._every)  # longer than S3 needs; beyond that nobody waits for it

    def _tell(self) -> None:
        said, ended = None, None
        try:
            while True:
                found = running(self._spark)
                if found and (found["stages"], found["done"]) != ended:
                    ended, last = (found["stages"], found["done"]), found["seconds"]
                now = {
                    "stage": self._stage,
                    "doing": self._clock.doing,
                    "pass": {**found, "last": last} if found else None,
                }
                if untimed(now) != said:
                    seconds = round(time.monotonic() - self._clock.since, 1)
                    written = dt.datetime.now(dt.timezone.utc).isoformat()
                    storage.write_json(self._s3, self._uri, {**now, "seconds": seconds, "written": written})
                    said = untimed(now)
                if self._ended.wait(self._every):
                    return
        except Exception as problem:  # noqa: BLE001  # whoever watches sees less; what the job makes is as it would be
            if not self._ended.is_set():
                print(f"no progress is told from here on: {problem}", file=sys.stderr, flush=True)


def untimed(now: storage.Json) -> storage.Json:
    """The same without what a clock alone changes: for that nothing is written anew."""
    return {**now, "pass": {**now["pass"], "seconds": 0}} if now["pass"] else now


def running(spark: SparkSession) -> Optional[storage.Json]:
    """The stages that Spark works on just now, taken together, by its own counts; None while it works on none.

    Rows are those that finished tasks have read; on a cluster also what running ones have, by heartbeats (10 s), which
    tell nothing of it in a Spark of one process (seen in 3.5.6).
    """
    context: Any = spark.sparkContext
    store = context._jsc.sc().statusStore()
    active = sorted(context.statusTracker().getActiveStageIds())
    stages = [store.lastStageAttempt(stage) for stage in active]
    begun = [stage.submissionTime().get().getTime() / 1000 for stage in stages if stage.submissionTime().isDefined()]
    if not begun:
        return None
    return {
        "stages": active,
        "done": sum(stage.numCompleteTasks() for stage in stages),
        "of": sum(stage.numTasks() for stage in stages),
        "active": sum(stage.numActiveTasks() for stage in stages),
        "rows": sum(stage.inputRecords() + stage.shuffleReadRecords() for stage in stages),
        "seconds": round(time.time() - min(begun), 1),
    }
