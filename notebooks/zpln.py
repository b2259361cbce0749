"""Turns a Markdown file into a Zeppelin 0.11 note, at synth. The same input always gives the same bytes.

Text becomes %md paragraphs, a ```python fence %spark.pyspark, a ```sql fence %spark.sql.
A fence may carry a title and a chart:

    ```sql title="Delays by hour" chart=lineChart x=hour:0 y=share_late:1

`x` and `y` name the chart's key and value columns with their index in the output, as Zeppelin stores them; `by` names
those that part each key in groups. `height` is that of the output in pixels: a table shows about one row in 35.
A line that goes on in the next one becomes one line: Zeppelin shows each end of a line in a text as a break.
`{{name}}` anywhere in the file is replaced by a parameter. The fields are those that Zeppelin's own Note and
Paragraph classes read.
"""

import hashlib
import json
import re
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from markdown_it import MarkdownIt

ZEPPELIN_VERSION = "0.11.1"
MARKDOWN = MarkdownIt("commonmark").enable("table")
HEIGHT = 300  # pixels: Zeppelin's own for a chart
_ALPHABET = "23456789ABCDEFGHJKMNPQRSTUVWXYZ1"  # Zeppelin's own (IdHashes): no I, L, O, 0
HEADS = {"python": ("%spark.pyspark", "python"), "sql": ("%spark.sql", "sql")}
_TEXT = ("%md", "markdown")


class NoteError(Exception):
    """A note's source cannot become a note; the message names file, line and the way out."""


def build_notes(source: Path, target: Path, *, folder: str, parameters: Mapping[str, str]) -> list[Path]:
    """Write a note for each *.md file of `source` below `target`/`folder`, named as Zeppelin's S3 storage wants it."""
    written = []
    for path in sorted(source.glob("*.md")):
        note = build_note(path, folder=folder, parameters=parameters)
        place = target / folder / f"{note['name']}_{note['id']}.zpln"
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(json.dumps(note, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
        written.append(place)
    return written


def build_note(path: Path, *, folder: str, parameters: Mapping[str, str]) -> dict[str, Any]:
    """The note of one Markdown file as the JSON object that Zeppelin stores; NoteError when it cannot be one."""
    text = _filled(path, path.read_text(encoding="utf-8"), parameters)
    blocks = _blocks(path, text)
    title = re.match(r"# (.+)", text)
    if title is None:
        raise NoteError(f"{path}: the first line must be the note's title, as in '# Explore and train'")
    name = title.group(1).strip()
    if "/" in name:
        raise NoteError(f"{path}: the title {name!r} holds '/', which Zeppelin reads as a folder; leave it out")
    whole = f"{folder}/{name}"
    return new_note(name, note_id(whole), [_paragraph(whole, number, block) for number, block in enumerate(blocks)])


def note_id(whole: str) -> str:
    """Of a note by its folder and name, in the form of Zeppelin's own: the same each time."""
    return "2" + _symbols(whole, 8)


def new_note(name: str, id: str, paragraphs: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        "paragraphs": paragraphs,
        "name": name,
        "id": id,
        "defaultInterpreterGroup": "spark",
        "version": ZEPPELIN_VERSION,
        "noteParams": {},
        "noteForms": {},
        "angularObjects": {},
        "config": {"isZeppelinNotebookCronEnable": False, "looknfeel": "default", "personalizedMode": "false"},
        "info": {},
    }


def _filled(path: Path, text: str, parameters: Mapping[str, str]) -> str:
    def value(match: re.Match[str]) -> str:
        try:
            return parameters[match.group(1)]
        except KeyError:
            known = ", ".join(sorted(parameters))
            raise NoteError(
                f"{path}: {{{{{match.group(1)}}}}} is not a parameter of notes; there are: {known}"
            ) from None

    return re.sub(r"\{\{(\w+)\}\}", value, text)


def _blocks(path: Path, text: str) -> list[tuple[str, str, dict[str, str]]]:
    """(language, text, attributes) in the file's order; language "md" for what stands between the fences."""
    lines = text.splitlines()
    blocks: list[tuple[str, str, dict[str, str]]] = []
    at = 0
    for token in MARKDOWN.parse(text):
        if token.type != "fence" or token.map is None:
            continue
        begin, end = token.map
        _add_text(blocks, lines[at:begin])
        at = end
        language, *attributes = shlex.split(token.info) or [""]
        if language not in HEADS:
            known = ", ".join(HEADS)
            raise NoteError(f"{path}, line {begin + 1}: a fence of {language or 'no language'}; a note knows {known}")
        blocks.append((language, token.content.rstrip("\n"), dict(item.split("=", 1) for item in attributes)))
    _add_text(blocks, lines[at:])
    return blocks


def _add_text(blocks: list[tuple[str, str, dict[str, str]]], lines: list[str]) -> None:
    text = "\n".join(lines).strip()
    if text:
        blocks.append(("md", unwrapped(text), {}))


def unwrapped(text: str) -> str:
    """The same Markdown with each of its texts on one line, but where a break is asked for by two blanks or `\\`."""
    lines = text.splitlines()
    joined: list[str] = []
    at = 0
    for token in MARKDOWN.parse(text):
        if token.type != "inline" or token.map is None or token.level == 0 or token.map[0] < at:
            continue
        begin, end = token.map
        joined += lines[at : begin + 1]
        for line in lines[begin + 1 : end]:
            if re.search(r"(  |\\)$", joined[-1]):
                joined.append(line)
            else:
                joined[-1] = f"{joined[-1].rstrip()} {line.lstrip('> ' if '>' in lines[begin] else None)}"
        at = end
    return "\n".join([*joined, *lines[at:]])


def _paragraph(note: str, number: int, block: tuple[str, str, dict[str, str]]) -> dict[str, Any]:
    language, text, attributes = block
    return new_paragraph(note, number, HEADS.get(language, _TEXT)[0], text, attributes)


def new_paragraph(note: str, number: int, head: str, text: str, attributes: Mapping[str, str]) -> dict[str, Any]:
    """A paragraph as Zeppelin stores one that was never run. `note`: what tells the note, `number`: its place there."""
    mode = next((mode for known, mode in (*HEADS.values(), _TEXT) if known == head), "text")
    config: dict[str, Any] = {
        "enabled": True,
        "colWidth": 12,
        "fontSize": 9,
        "editorMode": f"ace/mode/{mode}",
        "editorSetting": {"language": mode, "editOnDblClick": head == _TEXT[0], "completionKey": "TAB"},
        "editorHide": head == _TEXT[0],
        "title": "title" in attributes,
        "results": {"0": {"graph": graph_of(attributes)}} if "chart" in attributes else {},
    }
    # The millisecond part of Zeppelin's own ids is a clock; a number out of the content keeps builds the same.
    stamp = int.from_bytes(hashlib.sha256(f"{note}#{number}".encode()).digest()[:4])
    paragraph: dict[str, Any] = {
        "id": f"paragraph_{1_700_000_000_000 + number}_{stamp}",
        "text": f"{head}\n{text}" if head else text,
        "user": "anonymous",
        "config": config,
        "settings": {"params": {}, "forms": {}},
        "status": "READY",
    }
    if "title" in attributes:
        paragraph["title"] = attributes["title"]
    return paragraph


def graph_of(attributes: Mapping[str, str]) -> dict[str, Any]:
    """How Zeppelin stores a chart: see the attributes of a fence above. Without `height` it is Zeppelin's own."""

    def columns(key: str, aggregation: str) -> list[dict[str, Any]]:
        pairs = (entry.rpartition(":") for entry in attributes.get(key, "").split(",") if entry)
        return [{"name": name, "index": int(index), "aggr": aggregation} for name, _, index in pairs]

    return {
        "mode": attributes["chart"],
        "height": int(attributes.get("height", HEIGHT)),
        "optionOpen": False,
        "keys": columns("x", "sum"),
        "groups": columns("by", "sum"),
        "values": columns("y", "avg"),
        # What the browser adds when it first shows the output; without it the chart is said to be outdated.
        "setting": {attributes["chart"]: {"rotate": {"degree": "-45"}, "xLabelStatus": "default"}},
        "commonSetting": {},
    }


def _symbols(text: str, count: int) -> str:
    number = int.from_bytes(hashlib.sha256(text.encode()).digest())
    return "".join(_ALPHABET[(number >> (5 * place)) & 31] for place in range(count))
