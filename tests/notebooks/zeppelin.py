"""A stand-in for Zeppelin that runs a note's paragraphs on local Spark: heads, one namespace, z.show, typed output.

It follows Zeppelin 0.11.1 in what the notes use (ParagraphTextParser, zeppelin_context.py, SparkSqlInterpreter);
anything else raises, so that nothing passes because it was not understood.
"""

import ast
import contextlib
import io
import re
from dataclasses import dataclass
from typing import Any

from pyspark.sql import DataFrame, SparkSession

MAX_RESULT = 1000  # zeppelin.spark.maxResult
_HEAD = re.compile(r"^\s*%([A-Za-z0-9_-]+(?:\.[A-Za-z0-9_-]+)*)[ \t]*\n")


@dataclass(frozen=True)
class Output:
    """One typed message of a paragraph: "TEXT" or "TABLE"; a table's data is tab-separated, header first."""

    kind: str
    data: str

    @property
    def rows(self) -> list[list[str]]:
        return [line.split("\t") for line in self.data.splitlines()]


class ZeppelinContext:
    """The `z` of a paragraph."""

    def show(self, shown: Any) -> None:
        if not isinstance(shown, DataFrame):
            print(shown)
            return
        print(table_text(shown))


def table_text(frame: DataFrame) -> str:
    """The %table text of a frame, as ZeppelinContext.showDF prints it."""
    rows = [["null" if value is None else str(value) for value in row] for row in frame.limit(MAX_RESULT).collect()]
    lines = ["\t".join(re.sub(r"[\t\n]", " ", cell) for cell in row) for row in [frame.columns, *rows]]
    return "%table " + "\n".join(lines)


class Runner:
    """Runs a whole note in order on one SparkSession; Python paragraphs share one namespace."""

    def __init__(self, spark: SparkSession) -> None:
        self._spark = spark
        self.names: dict[str, Any] = {"spark": spark, "sc": spark.sparkContext, "z": ZeppelinContext()}

    def run(self, note: dict[str, Any]) -> list[list[Output]]:
        """The outputs of each paragraph; the first paragraph that raises ends the run, as "run all" does."""
        return [self.run_paragraph(paragraph["text"]) for paragraph in note["paragraphs"]]

    def run_paragraph(self, text: str) -> list[Output]:
        head = _HEAD.match(text)
        if head is None:
            raise ValueError(f"this paragraph has no interpreter head: {text[:60]!r}")
        body = text[head.end() :]
        match head.group(1):
            case "md":
                return [Output("HTML", body)]
            case "spark.sql":
                return self._sql(body)
            case "spark.pyspark":
                return self._python(body)
        raise ValueError(f"%{head.group(1)} cannot run here")

    def _sql(self, body: str) -> list[Output]:
        statements = [statement for statement in body.split(";") if statement.strip()]
        return [_typed(table_text(self._spark.sql(statement)))[0] for statement in statements]

    def _python(self, body: str) -> list[Output]:
        printed = io.StringIO()
        tree = ast.parse(body)
        with contextlib.redirect_stdout(printed):
            for statement in tree.body:
                if isinstance(statement, ast.Expr):
                    value = eval(compile(ast.Expression(statement.value), "<note>", "eval"), self.names)  # noqa: S307 - it is our note
                    if value is not None:
                        print(repr(value))
                else:
                    exec(compile(ast.Module([statement], []), "<note>", "exec"), self.names)  # noqa: S102 - it is our note
        return _typed(printed.getvalue())


def _typed(text: str) -> list[Output]:
    """Split printed text at display heads, which count at the start of a line only."""
    outputs: list[Output] = []
    for part in re.split(r"(?m)^(?=%(?:table|text|html)\b)", text):
        if not part.strip():
            continue
        head = re.match(r"%(table|text|html)[ \t]*", part)
        kind, data = (head.group(1).upper(), part[head.end() :]) if head else ("TEXT", part)
        outputs.append(Output(kind, data.rstrip("\n")))
    return outputs
