"""The error that a job raises for its reader: the traceback's last line, which Glue and EMR give as the reason."""

import re


class JobError(Exception):
    """What happened, where, and the way out, in one sentence."""


def cause_of(error: BaseException) -> str:
    """What an error of Spark's says in one line: its last cause, with class, line and position where it has them.

    Python's side of an error of Java's begins with "An error occurred while calling o68.parquet", and a parser's with
    an empty line; Java's own trace stands behind.
    """
    text = str(error)
    causes = re.findall(r"^(?:Caused by|): (?:[\w.$]+(?:Exception|Error): )?(.*\S.*)$", text, re.MULTILINE)
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return (causes[-1].strip() if causes else lines[0] if lines else type(error).__name__).rstrip(";")


def sql_cause(error: BaseException, sql: str) -> str:
    """The same of a query; with what is often behind it."""
    plain = re.sub(r"--[^\n]*|/\*.*?\*/", " ", sql, flags=re.DOTALL)
    stray = re.search(r",\s*FROM\b", plain, re.IGNORECASE)
    return cause_of(error) + (" (There is a comma before FROM.)" if stray else "")
