"""Why a job failed: the error that a job raises for its reader, and what a traceback or a log of Spark's means.

Text in, text out: scripts read their own exceptions by it, the command and the embedded cloud read logs.
"""

import re
from typing import NamedTuple, Optional, Pattern, Tuple

TRACEBACK = "Traceback (most recent call last):"
CHAINED = "(?:The above exception was the direct cause|During handling of the above exception, another)[^:]*"
# Whoever has one of these can ask in the job's name: gateway's token, a presigned address.
SECRET = re.compile(r"\b((?:delegation|X-Amz-(?:Signature|Credential|Security-Token))=)[^&\s\"']+")


class JobError(Exception):
    """What happened, where, and the way out, in one sentence."""


class Cause(NamedTuple):
    """A failure that Spark tells in words which do not say what happened. `sentence` may name groups of `sign`."""

    kind: str
    sign: Pattern[str]
    sentence: str


MORE_MEMORY = "larger machines are instance_types in environments/*.toml"
# The first that fits counts. Sources: Spark 3.5.6 (YarnAllocator, PythonRunner, PythonWorkerFactory), py4j 0.10.9.7,
# and each of these failures brought about on YARN 3.3.4.
CAUSES = (
    Cause(
        "ExecutorOutOfMemory",
        re.compile(
            r"Container killed by YARN for exceeding (?:physical )?memory limits\.\s+"
            r"(?P<used>\S+ \S+?) of (?P<limit>\S+ \S+)"
        ),
        "YARN ended an executor's container, which used {used} of {limit}: a task took more memory than "
        "spark.executor.memory and spark.executor.memoryOverhead allow; raise the overhead for Python workers, or take "
        "more partitions; " + MORE_MEMORY + ".",
    ),
    Cause(
        "HeapFull",
        re.compile(r"java\.lang\.OutOfMemoryError: (?P<what>Java heap space|GC overhead limit exceeded)"),
        "A heap of Spark's Java was full ({what}): raise spark.driver.memory, or spark.executor.memory if it was a "
        "task's; " + MORE_MEMORY + ".",
    ),
    Cause(
        "PythonWorkerLost",
        re.compile(r"Python worker exited unexpectedly \(crashed\)"),
        "A Python worker of Spark was killed or crashed, most likely for want of memory: raise "
        "spark.executor.memoryOverhead, or take more partitions; " + MORE_MEMORY + ".",
    ),
    Cause(
        "ExecutorsLost",
        re.compile(r"ExecutorLostFailure \(executor \S+ .*?\) Reason: (?P<why>[^\n]+)"),
        "Executors were lost as often as Spark tries a task ({why}): look whether their machines were taken away or "
        "ran out of memory, and redrive the run.",
    ),
    Cause(
        "ResultsTooLarge",
        re.compile(r"bigger than spark\.driver\.maxResultSize \((?P<limit>[^)]+)\)"),
        "What Spark's workers send to the driver is more than it takes at once ({limit}). Of a model of several trees "
        "and many classes it is what the test rows are told: hold out fewer (training.test_share), or set "
        'training.learner = "tree", which gives no more answers than it has leaves.',
    ),
    Cause(
        "JavaGone",
        re.compile(
            r"Py4JNetworkError|Answer from Java side is empty|An error occurred while calling None\.None"
            r"|Error while sending or receiving"
        ),
        "Spark's Java process ended under the script, most likely because its heap or its container was full: raise "
        "spark.driver.memory or spark.driver.memoryOverhead; " + MORE_MEMORY + ".",
    ),
)


def cause_of(text: str) -> Optional[Tuple[str, str]]:
    """The kind and the sentence of a failure whose own words do not say what happened; None for all others."""
    for cause in CAUSES:
        if found := cause.sign.search(text):
            return cause.kind, cause.sentence.format(**found.groupdict())
    return None


def without_secrets(text: str) -> str:
    return SECRET.sub(r"\1...", text)


def reason_of(output: str, own: str = "") -> Tuple[str, str]:
    """Kind and sentence of the error that the last traceback in `output` ends with. `own`: a JobError's words."""
    chain = last_chain(output)
    kind, reason = python_reason(output[output.rfind(TRACEBACK) :])
    if kind == "JobError":
        reason = own or reason
    elif known := cause_of(chain):
        heap = CAUSES[1].sign.search(output) if known[0] == "JavaGone" else None  # what Java said before it ended
        return cause_of(heap[0]) or known if heap else known
    # The error behind the last one may be AWS's refusal, and that names the permission that is missing.
    refusal = re.search(r"User: \S+ is not authorized to perform: .+", chain)
    if refusal and "is not authorized to perform" not in reason:
        reason += f" ({refusal[0].strip()})"
    return kind, reason


def last_chain(output: str) -> str:
    """The last traceback, after those of the errors that led to it."""
    chain = ""
    for part in reversed(re.split(f"{CHAINED}:\n\n(?={re.escape(TRACEBACK)})", output)):
        start = max(part.rfind(TRACEBACK), 0)
        chain = part[start:] + chain
        if start > 0:
            break
    return chain


def python_reason(traceback: str) -> Tuple[str, str]:
    """Kind and words of the exception that ends a traceback; for one that only wraps a Java exception, its cause's."""
    raised = next((line for line in traceback.splitlines()[1:] if line and not line.startswith(" ")), traceback)
    kind, _, message = raised.partition(": ")
    if kind.endswith("JobError"):
        return "JobError", message
    if kind.endswith("Py4JJavaError"):
        causes = re.findall(r"^(?:Caused by)?: (.+)$", traceback, re.MULTILINE)
        raised = causes[-1] if causes else raised
        kind, _, message = raised.partition(": ")
    short = kind.rpartition(".")[2]
    return short, f"{short}: {message}" if message else raised


def words_of(error: BaseException) -> str:
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
    return words_of(error) + (" (There is a comma before FROM.)" if stray else "")
