"""How often a month an EventBridge schedule starts something."""

import re

MINUTES = {"minute": 1, "hour": 60, "day": 24 * 60}
DAYS = ("SUN", "MON", "TUE", "WED", "THU", "FRI", "SAT")
MONTHS = ("JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC")


def runs_per_month(expression: str, hours_per_month: float) -> float | None:
    """Of rate(VALUE UNIT) or cron(MINUTES HOURS DAY MONTH WEEKDAY YEAR), on average; None if it says neither.

    Fields are as EventBridge's user guide has them ("Cron-based schedules"): lists, ranges, steps and names. The first
    or last weekday of a month (L, W, #) counts as one day of it.
    """
    if found := re.fullmatch(r"rate\((\d+) (minute|hour|day)s?\)", expression):
        return hours_per_month * 60 / (int(found[1]) * MINUTES[found[2]])
    found = re.fullmatch(r"cron\((\S+) (\S+) (\S+) (\S+) (\S+) \S+\)", expression)
    if not found:
        return None
    days_per_month = hours_per_month / 24
    counts = [
        _count(found[1], 0, 59),
        _count(found[2], 0, 23),
        _count(found[3], 1, 31),
        _count(found[4], 1, 12, MONTHS),
        _count(found[5], 1, 7, DAYS),
    ]
    if None in counts:
        return None
    minutes, hours, days, months, weekdays = (count or 0 for count in counts)
    share = 1.0
    if found[3] not in ("*", "?"):
        share = days / days_per_month
    elif found[5] not in ("*", "?"):
        share = 1 / days_per_month if re.search(r"[#L]", found[5]) else weekdays / 7
    return minutes * hours * days_per_month * min(share, 1.0) * months / 12


def _count(field: str, first: int, last: int, names: tuple[str, ...] = ()) -> int | None:
    """How many values of a field match; None if it is no such field."""
    if re.fullmatch(r"[0-9A-Z]*[LW#][0-9]*", field):
        return 1
    for number, name in enumerate(names, start=first):
        field = field.replace(name, str(number))
    chosen: set[int] = set()
    for part in field.split(","):
        found = re.fullmatch(r"(?:([*?])|(\d+)(?:-(\d+))?)(?:/(\d+))?", part)
        if not found:
            return None
        low = first if found[1] else int(found[2])
        high = last if found[1] or (found[4] and not found[3]) else int(found[3] or low)
        chosen.update(range(low, high + 1, int(found[4] or 1)))
    return len(chosen) if chosen <= set(range(first, last + 1)) else None
