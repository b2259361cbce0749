"""A note as Markdown that people can review, and back: what was not edited stays as it was, its results too.

Text is a %md paragraph, a fence any other one. A fence's language is `python` for %spark.pyspark and `sql` for
%spark.sql, else the paragraph's own head, as in ```%sh; `md` is text that has fences in it. Title and chart stand
behind the language as in the project's own sources (notebooks/zpln.py). Two texts one after the other have SEPARATOR
between them. Results, ids and widths are not in the Markdown: they stay with the paragraph that they belong to.
"""

import json
import re
import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from difflib import SequenceMatcher
from typing import Any

from dml.errors import UserError
from notebooks.zpln import HEIGHT, MARKDOWN, graph_of, new_paragraph

SEPARATOR = "<!-- paragraph -->"
TEXT = "md"
# Zeppelin's own rule of what a head is (ParagraphTextParser), without the properties in brackets: they stay with it.
HEAD = re.compile(r"^\s*(%[A-Za-z0-9_.-]+(?:\([^)\n]*\))?)[ \t]*\n?")
LANGUAGES = {"python": "%spark.pyspark", "sql": "%spark.sql", TEXT: "%md"}
NAMES = {head: language for language, head in LANGUAGES.items()}
CHART = ("chart", "x", "y", "by", "height")

Note = dict[str, Any]


@dataclass(frozen=True)
class Block:
    """One paragraph as people see it. `head` is '' where the paragraph has none, and the note's default counts."""

    head: str
    text: str
    attributes: Mapping[str, str] = field(default_factory=dict)

    @property
    def content(self) -> tuple[str, str]:
        return self.head, self.text


def markdown(note: Note) -> str:
    """The note's paragraphs as Markdown."""
    parts: list[str] = []
    last = ""
    for block in map(block_of, note.get("paragraphs", [])):
        plain = block.head == LANGUAGES[TEXT] and not block.attributes and reads_as_text(block.text)
        if plain and last == "text":
            parts.append(SEPARATOR)
        parts.append(block.text if plain else fenced(block))
        last = "text" if plain else "fence"
    return "\n\n".join(parts) + "\n"


def reads_as_text(text: str) -> bool:
    """Whether a text that stands free is read as this very text again."""
    return [block.content for block in blocks(text)] == [(LANGUAGES[TEXT], text)]


def block_of(paragraph: Note) -> Block:
    text = re.sub(r"\r\n?", "\n", str(paragraph.get("text") or ""))  # a file is read with one kind of line end
    found = HEAD.match(text)
    head = found.group(1) if found else ""
    body = text[found.end() :] if found else text
    return Block(head, body.strip("\n"), dict(attributes_of(paragraph)))


def attributes_of(paragraph: Note) -> Iterator[tuple[str, str]]:
    config = paragraph.get("config") or {}
    if config.get("title") and paragraph.get("title"):
        yield "title", str(paragraph["title"])
    results = config.get("results") or {}
    first = results[0] if isinstance(results, list) and results else results.get("0") if results else None
    graph = (first or {}).get("graph") or {}
    height = round(float(graph.get("height") or HEIGHT))
    if graph.get("mode", "table") == "table" and height == HEIGHT:
        return
    yield "chart", str(graph.get("mode", "table"))
    for name, key in (("x", "keys"), ("by", "groups"), ("y", "values")):
        if columns := graph.get(key):
            yield name, ",".join(f"{column['name']}:{round(float(column['index']))}" for column in columns)
    if height != HEIGHT:
        yield "height", str(height)


def fenced(block: Block) -> str:
    ticks = max([2, *map(len, re.findall(r"`+", block.text))]) + 1
    language = NAMES.get(block.head, block.head)
    said = " ".join([language, *(f"{name}={quoted(value)}" for name, value in block.attributes.items())]).strip()
    return "\n".join(["`" * ticks + said, *([block.text] if block.text else []), "`" * ticks])


def quoted(value: str) -> str:
    """As shlex reads it again. It is on one line, and has no backtick (CommonMark, "Fenced code blocks")."""
    plain = " ".join(re.sub(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]", " ", value).replace("`", "'").split())
    return plain if re.fullmatch(r"[\w.:,/-]+", plain) else '"' + re.sub(r'(["\\])', r"\\\1", plain) + '"'


def blocks(text: str) -> list[Block]:
    """The paragraphs that Markdown stands for. Raises UserError for a fence of no interpreter."""
    lines = re.sub(r"\r\n?", "\n", text).split("\n")  # what a line is to Markdown; Python knows more ends of one
    made: list[Block] = []
    at = 0

    def add_text(until: int) -> None:
        for part in re.split(rf"^{re.escape(SEPARATOR)}$", "\n".join(lines[at:until]), flags=re.MULTILINE):
            if part.strip():
                made.append(Block(LANGUAGES[TEXT], part.strip("\n")))

    for token in MARKDOWN.parse(text):
        if token.type != "fence" or token.map is None or token.level:
            continue
        begin, end = token.map
        add_text(begin)
        at = end
        made.append(_fence(token.info, token.content.rstrip("\n"), begin + 1))
    add_text(len(lines))
    return made


def _fence(info: str, text: str, line: int) -> Block:
    try:
        words = shlex.split(info)
    except ValueError as error:
        raise UserError(f"line {line}: what stands behind the fence cannot be read ({error}): {info}") from None
    language = words.pop(0) if words and ("=" not in words[0] or words[0].startswith("%")) else ""
    head = LANGUAGES.get(language, language)
    if head and not HEAD.fullmatch(head):
        known = ", ".join(LANGUAGES)
        raise UserError(f"line {line}: a fence of {language}; say {known}, or an interpreter's own head such as %sh")
    if strange := [word for word in words if word.partition("=")[0] not in ("title", *CHART) or "=" not in word]:
        raise UserError(f"line {line}: {' '.join(strange)}: behind the language may stand title=, {'=, '.join(CHART)}=")
    return Block(head, text, dict(word.split("=", 1) for word in words))


def edited(note: Note, text: str) -> Note:
    """The note with the paragraphs that the Markdown has.

    A paragraph whose text stands unchanged is kept as it is; one whose text is another keeps its place, id and looks
    and loses its results, which were of the former text. Raises UserError.
    """
    wanted, there = blocks(text), list(note.get("paragraphs", []))
    before = blocks(markdown(note))  # as the paragraphs are read again, which may be blanks less than they are
    contents = [[block.content for block in found] for found in (before, wanted)]
    changes = SequenceMatcher(None, contents[0], contents[1], autojunk=False).get_opcodes()
    paragraphs: list[Note] = []
    for kind, old, old_end, new, new_end in changes:
        for place in range(new, new_end):
            was = old + place - new
            if kind in ("equal", "replace") and was < old_end:
                paragraphs.append(_changed(note, there[was], before[was], wanted[place]))
            else:
                paragraphs.append(_made(note, len(there) + place, wanted[place]))
    return {**note, "paragraphs": paragraphs}


def _made(note: Note, number: int, block: Block) -> Note:
    return new_paragraph(str(note.get("id", "")), number, block.head, block.text, block.attributes)


def _changed(note: Note, former: Note, was: Block, block: Block) -> Note:
    if was == block:
        return former
    made = _made(note, 0, block)
    kept = dict(former)
    if was.content != block.content:
        kept["text"] = made["text"]
        kept["status"] = "READY"
        for name in ("results", "errorMessage", "dateStarted", "dateFinished"):
            kept.pop(name, None)
        kept["settings"] = made["settings"]
    config = dict(kept.get("config") or {})
    if was.head != block.head:
        config |= {name: made["config"][name] for name in ("editorMode", "editorSetting", "editorHide")}
    if was.attributes.get("title") != block.attributes.get("title"):
        config["title"] = "title" in block.attributes
        kept["title"] = block.attributes.get("title", "")
    if any(was.attributes.get(name) != block.attributes.get(name) for name in CHART):
        config["results"] = {"0": {"graph": graph_of(block.attributes)}} if "chart" in block.attributes else {}
    kept["config"] = config
    return kept


def read(body: bytes, where: str) -> Note:
    """A note as Zeppelin has stored it. Raises UserError if it is none."""
    try:
        note = json.loads(body.decode("utf-8-sig"))
    except ValueError as error:
        raise UserError(
            f"{where} is no note: {error}. Zeppelin cannot open it either; take it away, or mend it."
        ) from None
    if not isinstance(note, dict) or not isinstance(note.get("paragraphs", []), list):
        raise UserError(f"{where} is no note: it has no paragraphs. Zeppelin cannot open it either.")
    return note
