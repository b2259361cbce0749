"""How far the job is that a run waits for: what it has left below the run's id (jobs/tables/progress.py), in words."""

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from dml.runs.pipeline import Stage
from dml.terminal.words import counted

JOBS = ("prepare", "train", "predict")  # the stages that have one


def told(stage: Stage, read: Callable[[], dict[str, Any] | None]) -> str:
    """What a stage does, and how far it is, as far as anybody has said. `read` gives the job's own document.

    Until the job itself says something it starts, or waits for its machines: then the state machine's words count.
    """
    found = read() if stage.name in JOBS else None
    return sentence(found) if found and found["stage"] == stage.name else stage.doing


def sentence(found: dict[str, Any], now: datetime | None = None) -> str:
    """A job's progress.json in words, `now`. Of a pass over rows the time left is told once as many tasks have ended as
    run at once, by what these took; there is no telling how many passes a job will take.
    """
    since = ((now or datetime.now(UTC)) - datetime.fromisoformat(found["written"])).total_seconds()
    since = max(since, 0.0)  # the clocks of two machines differ
    so_long = f"for {duration(found['seconds'] + since)}"
    of = found["pass"]
    if not of:
        return f"{found['doing']}, {so_long}"
    words = [f"{found['doing']}: {of['done']:,} of {counted(of['of'], 'task')}"]
    if of["rows"]:
        words.append(f"{counted(of['rows'], 'row')} read")
    left = 0.0
    if of["done"] >= max(of["active"], 1):
        left = of["last"] / of["done"] * (of["of"] - of["done"]) - (of["seconds"] + since - of["last"])
    # Where tasks take longer than those before, there is nothing left to tell it by.
    words.append(f"about {duration(left)} left of this pass" if left > 0 else so_long)
    return ", ".join(words)


def duration(seconds: float) -> str:
    """Whole seconds; minutes from two on."""
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} min"
