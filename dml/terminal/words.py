"""How things are told."""

import re
from collections.abc import Sequence

# Of a run or a stack whose cluster did not start: its id, the instance and the bootstrap action by which.
BOOTSTRAP_FAILED = re.compile(r"cluster (j-\w+) did not start: .*\((i-\w+)\), bootstrap action (\d+) returned")


def counted(number: int, noun: str) -> str:
    """1 row, 2,000 rows."""
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


def listed(things: Sequence[str], most: int = 4) -> str:
    """Some of the things in words: a, b, c, d and 3 more."""
    more = len(things) - most
    return ", ".join(things[:most]) + (f" and {more} more" if more > 0 else "")


def last_line(said: str) -> str:
    """The last line in which a program has said something; empty if there is none."""
    return next((line.strip() for line in reversed(said.splitlines()) if line.strip()), "")
