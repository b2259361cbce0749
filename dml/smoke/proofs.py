"""What `dml smoke` tries, and what must be seen: runs of the scratch stack's machine, in a row; operator time."""

import json
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from typing import Any

from rich.console import Console
from rich.markup import escape

from dml.errors import UserError
from dml.estate.platform import Platform, answering
from dml.smoke.scratch import DATASET, POINTER, scratch
from dml.terminal.console import plain_table
from dml.terminal.words import counted

METRICS = {"auc": 0.75, "rows": 9}
RUN_SECONDS = 120.0


@dataclass(frozen=True)
class Proof:
    """One thing that was tried."""

    what: str
    expected: str
    seen: str

    @property
    def holds(self) -> bool:
        return self.expected == self.seen


def prove(platform: Platform, *, every: float, say: Callable[[str], None]) -> dict[str, Any]:
    """Makes the scratch stack, tries everything, and takes the stack away.

    Returns what --json prints: `environment`, `region`, `endpoint` (null for AWS's own), `proofs`, each with `what`,
    `expected`, `seen` and `holds`, and `ok`, whether all hold. Raises UserError if it cannot be tried.
    """
    with scratch(platform, every=every, say=say) as made, answering("try the scratch stack"):
        bench = Bench(platform, made["Bucket"], made["Machine"], every)
        proofs = []
        for proof in bench.proofs():
            say(f"{'as expected' if proof.holds else 'NOT as expected'}: {proof.what}")
            proofs.append(proof)
    return {
        "environment": platform.environment,
        "region": platform.region,
        "endpoint": platform.endpoint,
        "proofs": [{**asdict(proof), "holds": proof.holds} for proof in proofs],
        "ok": all(proof.holds for proof in proofs),
    }


class Bench:
    """The scratch bucket and machine in use."""

    def __init__(self, platform: Platform, bucket: str, machine: str, every: float) -> None:
        self._states, self._s3 = platform.client("stepfunctions"), platform.s3
        self._bucket, self._machine, self._every = bucket, machine, every

    def proofs(self) -> Iterator[Proof]:
        """Each thing in its turn; the later ones stand on the earlier."""
        first = self._run("first", current="", previous={})
        yield Proof("IfNoneMatch writes what is not there", "SUCCEEDED", self._told(first))
        pointer, tag = self._pointer()
        stored = ", ".join(sorted(pointer)) if isinstance(pointer, dict) else f"a {type(pointer).__name__}"
        yield Proof("an object is stored as a JSON object", "dataset, metrics, model, previous, run_id", stored)
        figures = pointer.get("metrics") if isinstance(pointer, dict) else None
        yield Proof("$sift and $type keep the single figures", _json({"auc": 0.75, "rows": 9}), _json(figures))
        late = self._run("late", current="", previous={})
        yield Proof("who comes second loses", "FAILED LostRace", self._told(late))
        yield Proof("S3's answer to who loses", "S3.S3Exception with status code 412", self._answer(late))
        second = self._run("second", current=tag, previous={"run_id": "first"})
        yield Proof("IfMatch replaces what was read", "SUCCEEDED", self._told(second))
        stale = self._run("stale", current=tag, previous={})
        yield Proof("IfMatch of what it was before loses", "FAILED LostRace", self._told(stale))
        now, _ = self._pointer()
        yield Proof("the pointer is the winner's", "second after first", _who(now))
        missing = self._run("missing", metrics=False, current=tag, previous={})
        yield Proof("a key that is not there has its own error", "FAILED S3.NoSuchKeyException", self._told(missing))
        self._states.redrive_execution(executionArn=missing["executionArn"])
        redriven = self._ended(missing["executionArn"])
        seen = f"{redriven['status']} after {counted(redriven.get('redriveCount', 0), 'redrive')}"
        yield Proof("a failed run goes on when it is redriven", "SUCCEEDED after 1 redrive", seen)
        blind = self._run("blind", current="", previous={}, blind=True)
        yield Proof(
            "a write that names no state is refused", "S3.S3Exception with status code 403", self._answer(blind)
        )

    def _run(self, name: str, *, metrics: bool = True, **given: Any) -> dict[str, Any]:
        if metrics:
            self._s3.put_object(
                Bucket=self._bucket, Key=f"{DATASET}/{name}/figures.json", Body=json.dumps(METRICS).encode()
            )
        started = self._states.start_execution(stateMachineArn=self._machine, name=name, input=json.dumps(given))
        return self._ended(started["executionArn"])

    def _ended(self, execution: str) -> dict[str, Any]:
        deadline = time.monotonic() + RUN_SECONDS
        while True:
            found: dict[str, Any] = self._states.describe_execution(executionArn=execution)
            if found["status"] != "RUNNING":
                return found
            if time.monotonic() > deadline:
                raise UserError(f"The execution {execution} has not ended after {RUN_SECONDS:.0f} s")
            time.sleep(self._every)

    def _told(self, execution: dict[str, Any]) -> str:
        return " ".join(filter(None, (execution["status"], execution.get("error"))))

    def _answer(self, execution: dict[str, Any]) -> str:
        """The error of the Task that failed first, with the status code that its cause tells."""
        states = self._states.get_paginator("get_execution_history").paginate(executionArn=execution["executionArn"])
        for page in states:
            for event in page["events"]:
                if event["type"] == "TaskFailed":
                    failed = event["taskFailedEventDetails"]
                    code = str(failed.get("cause", "")).partition("Status Code: ")[2].partition(",")[0]
                    return f"{failed.get('error')} with status code {code or 'none'}"
        return "no Task failed"

    def _pointer(self) -> tuple[Any, str]:
        found = self._s3.get_object(Bucket=self._bucket, Key=POINTER)
        return json.loads(found["Body"].read()), found["ETag"]


def show(console: Console, found: dict[str, Any]) -> None:
    """Prints each proof, and what was seen where it is not what was expected."""
    table = plain_table("", show_header=False)
    table.add_column(overflow="fold")
    table.add_column(overflow="fold")
    for proof in found["proofs"]:
        sign = "[green]✓[/green]" if proof["holds"] else "[red]✗[/red]"
        table.add_row(sign, escape(proof["what"]), escape(proof["seen"]))
        if not proof["holds"]:
            table.add_row("", "[bold]→[/bold] expected", escape(proof["expected"]))
    console.print(table)
    wrong = sum(not proof["holds"] for proof in found["proofs"])
    console.print(f"{counted(wrong, 'difference')} of {len(found['proofs'])}", highlight=False)


def _json(value: Any) -> str:
    return json.dumps(value, sort_keys=True)


def _who(pointer: Any) -> str:
    if not isinstance(pointer, dict):
        return f"a {type(pointer).__name__}"
    return f"{pointer.get('run_id')} after {(pointer.get('previous') or {}).get('run_id')}"
