"""What a change of the templates does to the costs: two estimates with the same prices, line by line."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from dml.cost.estimate import RUN, TRANSIENT, Estimate, Line


@dataclass(frozen=True)
class Change:
    """One line before and after, in USD; of `when` see estimate.py."""

    when: str
    what: str
    before: float
    after: float
    quantity: tuple[float, float]
    unit: str
    added: tuple[str, ...]
    removed: tuple[str, ...]
    run: str = ""

    def as_json(self) -> dict[str, Any]:
        return {
            "when": self.when,
            "what": self.what,
            "before": self.before,
            "after": self.after,
            "quantity_before": self.quantity[0],
            "quantity_after": self.quantity[1],
            "unit": self.unit,
            "added": list(self.added),
            "removed": list(self.removed),
        } | ({"dataset": self.run} if self.run else {})


@dataclass(frozen=True)
class Difference:
    """Of one environment. `against` is what the reader called the earlier side."""

    against: str
    before: Estimate
    after: Estimate

    @property
    def environment(self) -> str:
        return self.after.environment

    @property
    def totals(self) -> dict[str, tuple[float, float]]:
        """By name before and after; what one side does not have is 0 there."""
        before, after = self.before.totals, self.after.totals
        return {name: (before.get(name, 0.0), after.get(name, 0.0)) for name in {**after, **before}}

    @property
    def changes(self) -> list[Change]:
        """The lines that are not what they were, the dearest first."""
        alike = self.before.runs_alike and self.after.runs_alike
        before, after = _by_what(self.before, alike=alike), _by_what(self.after, alike=alike)
        changes = []
        for key in {**after, **before}:
            old, new = before.get(key, []), after.get(key, [])
            was, now = (sum(line.quantity for line in lines) for lines in (old, new))
            before_usd, after_usd = (sum(line.usd for line in lines) for lines in (old, new))
            names_old, names_new = ({name for line in lines for name in line.resources} for lines in (old, new))
            if abs(was - now) > 1e-9 or abs(before_usd - after_usd) > 1e-12:
                added, removed = tuple(sorted(names_new - names_old)), tuple(sorted(names_old - names_new))
                changes.append(
                    Change(key[0], key[1], before_usd, after_usd, (was, now), key[2], added, removed, key[3])
                )
        return sorted(changes, key=lambda change: -abs(change.after - change.before))

    def as_json(self) -> dict[str, Any]:
        return {
            "environment": self.environment,
            "against": self.against,
            "prices": self.after.prices.as_json(),
            "totals": {name: {"before": was, "after": now} for name, (was, now) in self.totals.items()},
            "changes": [change.as_json() for change in self.changes],
            "unknown": [{"stack": each.stack, "resource": each.name, "what": each.what} for each in self.after.unknown],
        }


def _by_what(estimate: Estimate, *, alike: bool) -> dict[tuple[str, str, str, str], Sequence[Line]]:
    """Lines by when, what, unit and dataset, whichever stack they are in: to move a resource costs nothing.

    `alike`: every dataset's run costs the same on both sides, and so one of them stands for all.
    """
    first = estimate.runs[0].dataset if estimate.runs else ""
    found: dict[tuple[str, str, str, str], list[Line]] = {}
    for line in estimate.lines:
        of_run = line.when in (RUN, TRANSIENT)
        if of_run and alike and line.run != first:
            continue
        run = "" if alike or not of_run else line.run
        found.setdefault((line.when, line.what, line.unit, run), []).append(line)
    return dict(found)
