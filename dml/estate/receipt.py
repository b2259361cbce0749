"""The receipt of `dml destroy`: what an environment consisted of, and what became of each part of it."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from dml.errors import UserError
from dml.estate.inventory import BUCKET, Contents, Elsewhere, Resource, Stack, Work
from dml.estate.platform import Platform
from dml.terminal.console import plain_table


@dataclass
class Receipt:
    """What an environment consisted of, and what became of it. Written before anything is deleted, and after."""

    environment: str
    endpoint: str
    account: str
    region: str
    revision: str
    started: str
    finished: str = ""
    stacks: list[Stack] = field(default_factory=list)
    work: Work = field(default_factory=Work)
    buckets: dict[str, Contents] = field(default_factory=dict)
    elsewhere: list[Elsewhere] = field(default_factory=list)
    revoked: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)

    @property
    def resources(self) -> list[Resource]:
        return [one for stack in self.stacks for one in stack.resources]

    def of(self, outcome: str) -> list[Resource]:
        return [one for one in self.resources if one.outcome == outcome]

    def as_json(self) -> dict[str, Any]:
        """The whole of it, with the counts first."""
        counts = {outcome: len(self.of(outcome)) for outcome in ("deleted", "kept", "failed")}
        return counts | asdict(self)


class Receipts:
    """The receipts' folder. One that is not finished, or has failures, goes on with the next call."""

    def __init__(self, folder: Path, platform: Platform) -> None:
        self._folder = folder
        self._environment = platform.environment

    def path(self, receipt: Receipt) -> Path:
        return self._folder / f"{receipt.environment}-{receipt.started}.json"

    def write(self, receipt: Receipt) -> Path:
        """Writes it as JSON, and as text beside that; returns the JSON's path. Whole or not at all."""
        self._folder.mkdir(parents=True, exist_ok=True)
        path = self.path(receipt)
        texts = {path: json.dumps(receipt.as_json(), indent=2), path.with_suffix(".txt"): as_text(receipt)}
        for name, text in texts.items():
            unfinished = name.with_name(name.name + ".new")
            unfinished.write_text(text + "\n", encoding="utf-8")
            unfinished.replace(name)
        return path

    def unfinished(self, receipt: Receipt) -> Receipt | None:
        """The last receipt of the same environment in the same place, if not all of it is accounted for."""
        for path in sorted(self._folder.glob(f"{self._environment}-*.json"), reverse=True):
            former = _read(path)
            same = ("endpoint", "account", "region")
            if all(getattr(former, name) == getattr(receipt, name) for name in same):
                return None if former.finished and not former.of("failed") else former
        return None


def _read(path: Path) -> Receipt:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        known = {name: value for name, value in found.items() if name in Receipt.__dataclass_fields__}
        receipt = Receipt(**known)
        receipt.stacks = [
            Stack(**stack | {"resources": [Resource(**one) for one in stack["resources"]]}) for stack in known["stacks"]
        ]
        receipt.work = Work()  # what ran then does not any more, or is found again
        receipt.buckets = {name: Contents(**counted) for name, counted in known["buckets"].items()}
        receipt.elsewhere = [Elsewhere(**one) for one in known["elsewhere"]]
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise UserError(
            f"{path} is no receipt of this version of dml ({error}). Move it away, then try again."
        ) from error
    return receipt


# --- Telling ---


def size(count: int) -> str:
    """Bytes as people read them: 1,234 -> 1.2 kB."""
    value = float(count)
    for unit in ("B", "kB", "MB", "GB"):
        if value < 1000:
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1000
    return f"{value:.1f} TB"


def show_plan(console: Console, receipt: Receipt) -> None:
    """The dry run: what will be stopped, deleted, and kept for which reason."""
    kept = [one for one in receipt.resources if one.keep]
    console.print(
        f"[bold]{receipt.environment}[/bold] at {receipt.endpoint}, account {receipt.account}, {receipt.region}: "
        f"{len(receipt.resources) - len(kept)} resources to delete, {len(kept)} to keep",
        highlight=False,
    )
    console.print(_stack_table(receipt))
    for line in (*_running(receipt), *_bucket_lines(receipt)):
        console.print(line, highlight=False, markup=False, soft_wrap=True)
    _show_kept(console, [(one.keep, one.type, one.id) for one in kept], receipt)


def show(console: Console, receipt: Receipt) -> None:
    """The receipt in short: counts, what failed and why, what is kept and why."""
    for outcome, style in (("deleted", "green"), ("kept", ""), ("failed", "red")):
        console.print(Text(f"{outcome:<8}{len(receipt.of(outcome)):>5}", style))
    for one in receipt.of("failed"):
        console.print(Text(f"  {one.type} {one.id} ({one.stack}): {one.because}", "red"), soft_wrap=True)
    for problem in receipt.problems:
        console.print(Text(problem, "red"), soft_wrap=True)
    for revoked in receipt.revoked:
        console.print(f"rule revoked: {revoked}", highlight=False, soft_wrap=True)
    _show_kept(console, [(one.because, one.type, one.id) for one in receipt.of("kept")], receipt)


def as_text(receipt: Receipt) -> str:
    """The receipt to read without tools: a line for each resource."""
    lines = [
        f"dml destroy of {receipt.environment} at {receipt.endpoint}, account {receipt.account}, {receipt.region}",
        f"began {receipt.started}, {'ended ' + receipt.finished if receipt.finished else 'not finished'}, "
        f"revision {receipt.revision}",
    ]
    for stack in receipt.stacks:
        lines += ["", stack.name]
        lines += [
            f"  {one.outcome or '-':<8} {one.type:<38} {one.id}"
            + (f"  ({'; '.join(part for part in (one.because, one.told_by) if part)})" if one.outcome else "")
            for one in stack.resources
        ]
    lines += ["", "outside the stacks"]
    lines += [f"  {one.outcome or '-':<8} {one.what:<38} {one.id}  ({one.because})" for one in receipt.elsewhere]
    lines += ["", *_running(receipt), *_bucket_lines(receipt), *(f"rule revoked: {one}" for one in receipt.revoked)]
    return "\n".join([*lines, *receipt.problems])


def _stack_table(receipt: Receipt) -> Table:
    table = plain_table("stack", "delete", "keep", right=("delete", "keep"))
    for stack in receipt.stacks:
        kept = sum(bool(one.keep) for one in stack.resources)
        table.add_row(stack.name, str(len(stack.resources) - kept), str(kept))
    return table


def _running(receipt: Receipt) -> list[str]:
    under_way = receipt.work
    return [
        *(f"stops the execution {arn.rpartition(':')[2]}" for arn in under_way.executions),
        *(f"stops the run {run} of the job {job}" for job, run in under_way.job_runs),
        *(f"stops the crawler {crawler}" for crawler in under_way.crawlers),
        *(f"ends the cluster {one.name} ({one.id}, {one.state.lower()})" for one in under_way.clusters),
    ]


def _bucket_lines(receipt: Receipt) -> list[str]:
    kept = {one.id for one in receipt.resources if one.type == BUCKET and one.keep}
    return [
        f"{'keeps' if name in kept else 'empties'} s3://{name}: {one.objects:,} objects, {one.versions:,} versions, "
        f"{size(one.bytes)}" + (f", {one.uploads} unfinished uploads" if one.uploads else "")
        for name, one in receipt.buckets.items()
    ]


def _show_kept(console: Console, kept: Sequence[tuple[str, str, str]], receipt: Receipt) -> None:
    outside = [(one.because, one.what, one.id) for one in receipt.elsewhere if one.outcome in ("kept", "failed")]
    for title, rows in (("kept", kept), ("not ours alone, and left", outside)):
        for reason in dict.fromkeys(row[0] for row in rows):
            console.print(f"{title}: {reason}", style="bold", highlight=False, markup=False, soft_wrap=True)
            for _, kind, name in (row for row in rows if row[0] == reason):
                console.print(f"  {kind} {name}", highlight=False, markup=False, soft_wrap=True)
