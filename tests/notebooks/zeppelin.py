"""A stand-in for Zeppelin that runs notes on local Spark: heads, one namespace, z.show, forms, typed output.

It follows Zeppelin 0.11.1 in what notes use: ParagraphTextParser, zeppelin_python.py, zeppelin_context.py,
SparkSqlInterpreter, display/Input, and what a built server of that version said of the same paragraphs. Where it is
known to differ, it raises; nothing passes because it was not understood.
"""

import ast
import contextlib
import io
import re
import traceback
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pandas as pd
from markdown_it import MarkdownIt
from markdown_it.rules_core import StateCore
from markdown_it.token import Token
from pyspark.sql import DataFrame, SparkSession

MAX_RESULT = 1000  # zeppelin.spark.maxResult, and as many of a frame of pandas
LIMIT, OUTPUT_LIMIT = (
    "ZEPPELIN_INTERPRETER_OUTPUT_LIMIT",
    102_400,
)  # zeppelin.interpreter.output.limit; more is kept, with a warning
TRUNCATED = (  # ResultMessages.EXCEEDS_LIMIT
    '<div class="result-alert alert-warning" role="alert"><button type="button" class="close" data-dismiss="alert" '
    'aria-label="Close"><span aria-hidden="true">&times;</span></button><strong>Output is truncated</strong> to {}. '
    "Learn more about <strong>{}</strong></div>"
)
LIMITED = f"<font color=red>Results are limited by {MAX_RESULT}.</font>"  # of a frame of pandas (zeppelin_context.py)
_HEAD = re.compile(r"^\s*%([A-Za-z0-9_-]+(?:\.[A-Za-z0-9_-]+)*)(?:\(([^)]*)\))?[ \t]*(?:\n|$)")
# What a semicolon does not end a statement in: texts, names, comments.
_SQL = re.compile(r"""'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*"|`[^`]*`|--[^\n]*|/\*.*?\*/|(;)""", re.DOTALL)
_FORM = re.compile(r"\$?\$\{(?:(checkbox|password):)?(\w+)(?:\([^)]*\))?(?:=([^},]*))?(?:,([^}]*))?\}")
NOT_HERE = ("spark", "ipyspark", "r", "ir", "shiny", "kotlin", "conf")  # of Spark's group
NO_STACK = "set zeppelin.spark.sql.stacktrace = true to see full stacktrace"  # which dml zeppelin sets to false
_SEPARATOR = "\x1f"


@dataclass(frozen=True)
class Output:
    """One typed message of a paragraph: "TEXT", "TABLE" or "HTML"; a table's data is tab-separated, header first."""

    kind: str
    data: str

    @property
    def rows(self) -> list[list[str]]:
        return [line.split("\t") for line in self.data.splitlines()]


@dataclass(frozen=True)
class Result:
    """How a paragraph ended: FINISHED, ERROR, or READY if it was not run; and what it has put out."""

    status: str
    messages: list[Output] = field(default_factory=list)


class Printed:
    """The sys.stdout and sys.stderr of a paragraph: one text, and no terminal, encoding or file behind it."""

    def __init__(self) -> None:
        self._text = io.StringIO()

    def write(self, text: str) -> int:
        return self._text.write(text)

    def flush(self) -> None:
        """Nothing is kept back."""

    def text(self) -> str:
        return self._text.getvalue()


class ZeppelinContext:
    """The `z` of a paragraph. `given`: what an analyst has put into forms, by their names."""

    def __init__(self, given: Mapping[str, str]) -> None:
        self._given = given
        self._kept: dict[str, Any] = {}
        self.forms: dict[str, str] = {}  # each form that was asked for, with its default

    def show(self, shown: Any) -> None:
        if isinstance(shown, DataFrame):
            messages = table(shown, MAX_RESULT)
        elif isinstance(shown, pd.DataFrame):
            lines = [list(map(str, shown.columns)), *[list(map(str, row)) for row in shown.head(MAX_RESULT).to_numpy()]]
            # What is printed after it joins it: nothing ends its table but its warning.
            print(f"%table {_lines(lines)}")
            if len(shown) > MAX_RESULT:
                print(f"\n%html {LIMITED}")
            return
        else:
            print(shown)
            return
        for message in messages:
            print(f"%{message.kind.lower()} {message.data}")
        if messages:
            print("\n%text ", end="")  # what is printed after a table does not join it

    def put(self, name: str, value: Any) -> None:
        self._kept[name] = value

    def get(self, name: str) -> Any:
        return self._kept.get(name)

    def remove(self, name: str) -> None:
        self._kept.pop(name, None)

    def __contains__(self, name: str) -> bool:
        return name in self._kept

    def __getitem__(self, name: str) -> Any:
        return self.get(name)

    def __setitem__(self, name: str, value: Any) -> None:
        self.put(name, value)

    def textbox(self, name: str, defaultValue: str = "") -> str:
        self.forms[name] = defaultValue
        return str(self._given.get(name, defaultValue))

    input = noteTextbox = textbox

    def select(self, name: str, options: Sequence[tuple[str, str]], defaultValue: str = "") -> str:
        """Without a default it is an empty text, not the first option."""
        self.forms[name] = defaultValue
        chosen = str(self._given.get(name, defaultValue))
        assert chosen in ("", *(str(value) for value, _ in options)), f"{chosen} is no option of {name}"
        return chosen

    noteSelect = select


# What flexmark's TypographicExtension makes of marks, each by a character that stands for it until all is rendered; but
# for an apostrophe, whose character is markdown-it's own, and so one that stands in the text has another until then.
_QUOTES, _TYPED = "\ue000\ue001\ue002\ue003", "\ue004"
_ENTITIES = ("&ldquo;", "&rdquo;", "&lsquo;", "&rsquo;", "&rsquo;", "&hellip;", "&ndash;", "&mdash;", "\u2019")
_MARKS = dict(zip(f"{_QUOTES}\u2019\ue005\ue006\ue007{_TYPED}", _ENTITIES, strict=True))
_PLAIN = (("...", "\ue005"), ("---", "\ue007"), ("--", "\ue006"))


_URL = re.compile(r"(https?://[^\s<>]*[^\s<>.,;:!?)'\"])")


def _link(state: StateCore) -> None:
    """AutolinkExtension: an address that stands in a text is a link."""
    for block in state.tokens:
        made: list[Token] = []
        within = 0
        for token in block.children or []:
            within += token.nesting if token.type.startswith("link_") else 0
            parts = _URL.split(token.content) if token.type == "text" and not within else [""]
            if len(parts) == 1:
                made.append(token)
                continue
            for number, part in enumerate(parts):
                text = Token("text", "", 0, content=part, level=token.level)
                ends = [Token("link_open", "a", 1, attrs={"href": part}), text, Token("link_close", "a", -1)]
                made += ends if number % 2 else [text]
        if block.children is not None:
            block.children = made


def _set_marks(state: StateCore) -> None:
    for block in state.tokens:
        for token in block.children or []:
            if token.type == "text":
                for plain, mark in _PLAIN:
                    token.content = token.content.replace(plain, mark)


# FlexmarkParser of 0.11.1: each line's end is a break, HTML is escaped, typographic marks, tables, strikethrough.
MARKDOWN = MarkdownIt(
    "commonmark",
    {"breaks": True, "xhtmlOut": True, "html": False, "typographer": True, "quotes": _QUOTES},
)
MARKDOWN.enable(["table", "strikethrough", "smartquotes"])
MARKDOWN.core.ruler.push("marks", _set_marks)
MARKDOWN.core.ruler.push("autolink", _link)


def markdown(text: str) -> str:
    """The HTML that Zeppelin's Markdown interpreter makes of a text."""
    html = re.sub("|".join(_MARKS), lambda mark: _MARKS[mark[0]], MARKDOWN.render(text.replace("\u2019", _TYPED)))
    html = re.sub(r"<(/?)s>", r"<\1del>", html)
    html = re.sub(r' style="text-align:(\w+)"', r' align="\1"', html)
    html = re.sub(r"(<tr>|</t[hd]>)\n", r"\1", html)  # a row is a line
    return f'<div class="markdown-body">\n{html}\n</div>'


def table(frame: DataFrame, limit: int) -> list[Output]:
    """What ZeppelinContext.showDF puts out for a frame: its cells are what Java's and Scala's toString say of them."""
    if not frame.columns:
        return []
    rows = [row.mkString(_SEPARATOR).split(_SEPARATOR) for row in frame.limit(limit + 1)._jdf.toDF().collectAsList()]
    return [
        Output("TABLE", _lines([frame.columns, *rows[:limit]])),
        *_cut(len(rows) > limit, f"{limit} rows", "zeppelin.spark.maxResult"),
    ]


def _lines(rows: Sequence[Sequence[str]]) -> str:
    return "\n".join("\t".join(re.sub(r"[\t\n]", " ", cell) for cell in row) for row in rows)


def _cut(cut: bool, to: str, setting: str) -> list[Output]:
    return [Output("HTML", TRUNCATED.format(to, setting))] if cut else []


def not_found(text: str) -> Result:
    """What is said of a paragraph whose interpreter there is not (Paragraph.setInterpreterNotFound)."""
    head = _HEAD.match(text)
    return Result("ERROR", [Output("TEXT", f"Interpreter {head[1] if head else ''} not found")])


class Runner:
    """Runs notes on one SparkSession. The Python paragraphs of all notes share one namespace, as by default."""

    def __init__(self, spark: SparkSession, given: Mapping[str, str] | None = None) -> None:
        self._spark = spark
        self.z = ZeppelinContext(given or {})
        self.names: dict[str, Any] = {"spark": spark, "sc": spark.sparkContext, "z": self.z}

    def run(self, note: dict[str, Any]) -> list[Result]:
        """What becomes of each paragraph by "run all", which ends at the first that fails.

        It goes on after one whose interpreter there is not, and after one without anything to run (Note.runAllSync).
        """
        results: list[Result] = []
        failed = False
        for paragraph in note["paragraphs"]:
            text = paragraph.get("text") or ""
            if failed or not paragraph.get("config", {}).get("enabled", True):
                results.append(Result("READY"))
                continue
            results.append(self.run_paragraph(text))
            failed = results[-1].status == "ERROR" and results[-1] != not_found(text)
        return results

    def run_paragraph(self, text: str) -> Result:
        """Raises ValueError for an interpreter that Zeppelin has and this has not."""
        head = _HEAD.match(text)
        body = text[head.end() :] if head else text
        if not text.strip():
            return Result("FINISHED")
        name = head[1] if head else "spark"  # notes' default
        local = dict(pair.split("=", 1) for pair in re.split(r"\s*,\s*", (head and head[2]) or "") if pair)
        # The end of the head's line stays, and counts in the lines that an error names.
        below = text[head.end() - 1 :] if head and head[0].endswith("\n") else body
        match name.removeprefix("spark."):
            case "md" | "md.md" | "md.markdown":
                return Result("FINISHED", [Output("HTML", markdown(self._filled(body)))])
            case "sql":
                return self._sql(self._filled(below), local)
            case "pyspark":
                return self._python(self._filled(below) if local.get("form") == "simple" else below)
        if name.removeprefix("spark.") in NOT_HERE:
            raise ValueError(f"%{name} cannot run here: {text[:60]!r}")
        return not_found(text)

    def _filled(self, body: str) -> str:
        """`${name=default}`, `${name=default,a|b}` and `$${...}` with what the analyst has chosen."""

        def value(form: re.Match[str]) -> str:
            kind, name, default, _options = form.groups()
            if kind == "checkbox":
                return ",".join(self.z.textbox(name, default or "").split("|"))
            return self.z.textbox(name, default or "")

        return _FORM.sub(value, body)

    def _sql(self, body: str, local: Mapping[str, str]) -> Result:
        limit = int(local.get("limit", MAX_RESULT))
        if local.get("interpolate") == "true":
            body = re.sub(r"\{(\w+)\}", lambda name: str(self.z.get(name[1])), body)
        ends = [found.start(1) for found in _SQL.finditer(body) if found[1]]
        parts = [body[a + 1 : b] for a, b in zip([-1, *ends], [*ends, len(body)], strict=True)]
        messages: list[Output] = []
        for statement in parts:
            if not re.sub(r"--[^\n]*|/\*.*?\*/", "", statement, flags=re.DOTALL).strip():
                continue
            try:
                messages += table(self._spark.sql(statement), limit)
            except Exception as error:  # noqa: BLE001 - whatever it is, the analyst reads it
                told = f"\nError happens in sql: {statement}\n{error}\n{NO_STACK}"
                return Result("ERROR", [*messages, Output("TEXT", told)])
        return Result("FINISHED", messages)

    def _python(self, body: str) -> Result:
        """An error is a text of its own behind what was printed, and names its line (Zeppelin: zeppelin_python.py)."""
        printed = Printed()
        failed: list[Output] = []
        with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(printed):  # type: ignore[type-var]
            lines, read = body.split("\n"), False
            try:
                statements = ast.parse(body, "<stdin>").body
                read = True
                # The last statement is compiled as at a prompt: its value is printed, and each one within a loop.
                for part, mode in ((statements[:-1], "exec"), (statements[-1:], "single")):
                    tree = ast.Module(part, []) if mode == "exec" else ast.Interactive(part)
                    exec(compile(tree, "<stdin>", mode), self.names)  # noqa: S102 - it is our note
            except Exception as error:  # noqa: BLE001 - whatever it is, the analyst reads it
                where = error.__traceback__ and error.__traceback__.tb_next  # the first is here
                told = "".join(traceback.format_exception(type(error), error, where)).rstrip("\n")
                at = re.search(r'File "<stdin>", line (\d+)', told) if read else None
                line = f"Fail to execute line {at[1]}: {lines[int(at[1]) - 1]}\n" if at else ""
                failed = [Output("TEXT", line + told)]
        text = printed.text()
        cut = _cut(len(text) > OUTPUT_LIMIT, f"{OUTPUT_LIMIT} bytes", LIMIT)
        return Result("ERROR" if failed else "FINISHED", [*_typed(text), *cut, *failed])


def _typed(text: str) -> list[Output]:
    """Split printed text at display heads, which count at the start of a line only."""
    outputs: list[Output] = []
    for part in re.split(r"(?m)^(?=%(?:table|text|html)\b)", text):
        head = re.match(r"%(table|text|html)[ \t]*", part)
        kind, data = (head.group(1).upper(), part[head.end() :]) if head else ("TEXT", part)
        if data.strip():
            outputs.append(Output(kind, data.rstrip("\n")))
    return outputs
