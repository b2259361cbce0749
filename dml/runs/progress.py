"""How far the job is that a run waits for: what it has left below the run's id (jobs/tables/progress.py), in words."""

from collections.abc import Callable
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


def sentence(found: dict[str, Any]) -> str:
    """A job's progress.json in words. Of a pass over rows the time left is told once as many tasks have ended as run at
    once, by what they took; there is no telling how many passes a job will take.
    """
    now = found["pass"]
    if not now:
        return f"{found['doing']}, for {duration(found['seconds'])}"
    words = [f"{found['doing']}: {now['done']:,} of {counted(now['of'], 'task')}"]
    if now["rows"]:
        words.append(f"{counted(now['rows'], 'row')} read")
    if now["done"] >= max(now["active"], 1):
        left = now["seconds"] / now["done"] * (now["of"] - now["done"])
        words.append(f"about {duration(left)} left of this pass")
    else:
        words.append(f"for {duration(found['seconds'])}")
    return ", ".join(words)


def duration(seconds: float) -> str:
    """Whole seconds; minutes from two on."""
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} min"
