"""One contender in a process of its own: how long until its metrics are known, and the memory of its process tree."""

import datetime as dt
import json
import os
import signal
import subprocess
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from dml.local.processes import end_session, session_members
from dml.local.spark.process import failure_reason

INTERVAL = 0.1  # seconds between two samples of memory
LOOK = 10  # samples between two looks for new processes
PAGE = os.sysconf("SC_PAGE_SIZE")
TICKS = os.sysconf("SC_CLK_TCK")  # a second
LIMIT = 3600.0  # seconds after which a contender is given up


def resident(pids: Sequence[int]) -> int:
    """Bytes in memory (RSS) of all these processes; what two of them share counts twice.

    PSS would count it once, but to read it of a JVM takes a quarter of each interval and holds its memory map.
    """
    total = 0
    for pid in pids:
        with suppress(OSError):  # it has ended in the meantime
            total += int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return total * PAGE


def worked(pids: Sequence[int], so_far: dict[int, float]) -> None:
    """Notes the CPU seconds of each of these processes, its threads' included; what has ended keeps its last."""
    for pid in pids:
        with suppress(OSError):
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            so_far[pid] = (int(fields[11]) + int(fields[12])) / TICKS


def measure(
    command: Sequence[str], *, result: Path, log: Path, environment: Mapping[str, str], cwd: Path, limit: float = LIMIT
) -> dict[str, Any]:
    """Runs a command that writes its result as JSON to `result`, with `finished` (time.monotonic()) when it knew it.

    Returns state "ok" with the result, `end_to_end` (seconds from the process's start to `finished`), `cpu` (seconds,
    as sampled) and `peak_bytes` until then; or state "failed" with the reason. Whatever happens, no process of it is
    left.
    """
    result.unlink(missing_ok=True)
    result.parent.mkdir(parents=True, exist_ok=True)
    log.parent.mkdir(parents=True, exist_ok=True)
    samples: list[tuple[float, int]] = []
    with log.open("wb") as output:
        started = time.monotonic()
        process = subprocess.Popen(
            command,
            cwd=cwd,
            env={**environment},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
        code: int | None = None
        pids: list[int] = []
        cpu: dict[int, float] = {}
        try:
            while code is None and time.monotonic() - started < limit:
                if len(samples) % LOOK == 0:
                    pids = session_members(process.pid)
                samples.append((time.monotonic(), resident(pids)))
                worked(pids, cpu)
                with suppress(subprocess.TimeoutExpired):
                    code = process.wait(INTERVAL)
        finally:
            end_session(process.pid)
            process.wait()
    peak = max(size for _, size in samples)
    if code == 0 and result.is_file():
        told = json.loads(result.read_text())
        finished = told.pop("finished")
        peak = max(size for moment, size in samples if moment <= finished)
        spent = round(sum(cpu.values()), 2)
        return {"state": "ok", **told, "end_to_end": round(finished - started, 3), "cpu": spent, "peak_bytes": peak}
    return {"state": "failed", "reason": _reason(code, log, limit), "peak_bytes": peak}


def _reason(code: int | None, log: Path, limit: float) -> str:
    if code is None:
        return f"not done after {limit:,.0f} s"
    if code < 0:
        told = signal.Signals(-code).name
        return f"ended by {told}" + (", as the kernel does when memory runs out" if told == "SIGKILL" else "")
    if code == 0:
        return "it ended well but left no result"
    return failure_reason(log.read_text(errors="replace")) or f"exit code {code} and not a word"


class Kept:
    """A section of the results' file: what one revision has measured, kept as it comes. `told`: its content."""

    def __init__(self, file: Path, section: str, revision: str) -> None:
        """What another revision has measured is left out."""
        self._file, self._section = file, section
        self._all: dict[str, Any] = json.loads(file.read_text()) if file.is_file() else {}
        self.told: dict[str, Any] = self._all.get(section, {})
        if self.told.get("revision") != revision:
            self.told = {"revision": revision, "rows": {}, "entries": []}

    def has(self, own: Mapping[str, Any]) -> bool:
        """Whether what `own` names (a contender, a size, ...) was measured well."""
        return any(one["state"] == "ok" for one in self.told["entries"] if own.items() <= one.items())

    def add(
        self, own: Mapping[str, Any], found: Mapping[str, Any], rows: int, sizes: Iterable[str], machine: Any
    ) -> None:
        """An entry, in place of one of the same names. `rows`: of its size; `sizes`: the names of all, in order."""
        others = [one for one in self.told["entries"] if not own.items() <= one.items()]
        known = {own["size"]: rows, **self.told["rows"]}
        self.told |= {
            "rows": {size: known[size] for size in sizes if size in known},
            "entries": [*others, {**own, **found}],
            "when": dt.datetime.now(dt.UTC).isoformat(timespec="seconds"),
            "machine": machine,
        }
        self.write()

    def write(self) -> None:
        write_json(self._file, {**self._all, self._section: self.told})


def write_json(file: Path, value: Any) -> None:
    """In one piece: an interrupted run leaves the old file or the new one."""
    file.parent.mkdir(parents=True, exist_ok=True)
    new = file.with_suffix(".new")
    new.write_text(json.dumps(value, indent=1) + "\n")
    new.replace(file)
