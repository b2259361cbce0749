"""Analysts' notes: those that the bucket has, and files of them that can be reviewed and edited.

A file is a note's Markdown (dml/zeppelin/source.py) with a last line that says which note it is and what the note was
when the file was written, as a hash of its Markdown: so a change on either side is seen, a run of the note is none, and
what both have changed is never overwritten. S3 is written only if the object is the one that was read (If-Match).
"""

import hashlib
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from difflib import unified_diff
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Any

from botocore.exceptions import ClientError

from dml.errors import UserError
from dml.estate.platform import Platform, answering
from dml.zeppelin import source
from notebooks import twins
from notebooks.zpln import NoteError, new_note, note_id
from stacks.outputs import NOTES, Output

MARK = re.compile(r"\n<!-- zeppelin: (?P<key>[^\n]+) was (?P<base>[0-9a-f]{16}) -->\n?\Z")
SEED = "dml-seed"  # what a note's metadata say as long as it is as it was deployed (cluster/bootstrap.sh)
TRASH = "~Trash/"  # Zeppelin's own (NoteManager)
NEW, UPDATED, KEPT, EDITED, CONFLICT, BROKEN = "new", "updated", "unchanged", "edited here", "conflict", "broken"


def hashed(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]


@dataclass(frozen=True)
class Stored:
    """A note in the bucket. `key`: below NOTES, such as nyc_flights/Explore_2ABC.zpln."""

    key: str
    etag: str
    body: bytes
    changed: Any  # a datetime
    metadata: dict[str, str]

    @property
    def is_as_deployed(self) -> bool:
        return SEED in self.metadata

    @cached_property
    def note(self) -> source.Note:
        """Raises UserError if it is none."""
        return source.read(self.body, self.key)

    @cached_property
    def text(self) -> str:
        """Its Markdown. Raises UserError as `note` does."""
        return source.markdown(self.note)

    @property
    def blocks(self) -> list[source.Block]:
        """Its paragraphs as people see them. Raises UserError as `note` does."""
        return [source.block_of(paragraph) for paragraph in self.note.get("paragraphs", [])]

    @property
    def last_run(self) -> str:
        """When a paragraph of it was last run to its end, as Zeppelin writes it; '' if none was."""
        return max((str(one.get("dateFinished") or "") for one in self.note.get("paragraphs", [])), default="")


class Notes:
    """The notes of one environment in its workspace bucket."""

    def __init__(self, platform: Platform) -> None:
        self._s3, self.bucket = platform.s3, platform.output(Output.WORKSPACE_BUCKET)

    def uri(self, key: str) -> str:
        return f"s3://{self.bucket}/{NOTES}{key}"

    def all(self) -> Iterator[Stored]:
        """Those that Zeppelin lists, by name; what is in its trash is not. Raises UserError."""
        with answering("list the notes"):
            pages = self._s3.get_paginator("list_objects_v2").paginate(Bucket=self.bucket, Prefix=NOTES)
            keys = [one["Key"].removeprefix(NOTES) for page in pages for one in page.get("Contents", [])]
        for key in sorted(keys):
            if key.endswith(".zpln") and not key.startswith(TRASH) and (found := self.get(key)):
                yield found

    def get(self, key: str) -> Stored | None:
        with answering(f"read {self.uri(key)}"):
            try:
                found = self._s3.get_object(Bucket=self.bucket, Key=NOTES + key)
            except self._s3.exceptions.NoSuchKey:
                return None
            body = found["Body"].read()
        return Stored(key, found["ETag"], body, found["LastModified"], found["Metadata"])

    def put(self, key: str, note: source.Note, **condition: str) -> bool:
        """Whether it is written; False if the object is another one than the condition says. Raises UserError."""
        body = json.dumps(note, indent=2, ensure_ascii=False).encode() + b"\n"
        with answering(f"write {self.uri(key)}"):
            try:
                self._s3.put_object(
                    Bucket=self.bucket, Key=NOTES + key, Body=body, ContentType="application/json", **condition
                )
            except ClientError as error:
                if error.response["ResponseMetadata"]["HTTPStatusCode"] in (409, 412):
                    return False
                raise
        return True


@dataclass(frozen=True)
class File:
    """A note as a file. `key` and `base` are '' for a file that was not pulled: a note that is to be made of it."""

    path: Path
    text: str
    key: str = ""
    base: str = ""

    @property
    def is_edited(self) -> bool:
        return hashed(self.text) != self.base

    @classmethod
    def read(cls, path: Path) -> "File":
        """Raises UserError for a file that is no text."""
        try:
            text = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise UserError(f"{path} cannot be read: {error}") from None
        found = MARK.search(text)
        return cls(path, text[: found.start()], found["key"], found["base"]) if found else cls(path, text)

    @classmethod
    def write(cls, path: Path, text: str, key: str) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{text}\n<!-- zeppelin: {key} was {hashed(text)} -->\n", encoding="utf-8")


@dataclass(frozen=True)
class Done:
    """What became of one note, and why in words where that is not plain."""

    what: str
    name: str
    why: str = ""


def files(folder: Path) -> list[File]:
    """The notes below a folder, by path; files of other kinds are not looked at. Raises UserError."""
    return [File.read(path) for path in sorted(folder.rglob("*.md"))]


def place(key: str, folder: Path, taken: set[Path]) -> Path:
    """Where the file of a note belongs: named as the note is, with its id only where two have one name."""
    parts = PurePosixPath(key.rpartition("_")[0]).parts
    if not parts or PurePosixPath(key).is_absolute() or ".." in parts:
        raise UserError(f"{key} does not name a place below a folder: rename the note in Zeppelin")
    path = folder.joinpath(*parts[:-1], f"{parts[-1]}.md")
    return path if path not in taken else folder.joinpath(*parts[:-1], f"{PurePosixPath(key).stem}.md")


def pull(notes: Notes, folder: Path) -> Iterator[Done]:
    """Brings the bucket's notes into files, unless a file was edited. Raises UserError."""
    there = {file.key: file for file in files(folder) if file.key}
    taken = {file.path for file in there.values()}
    for stored in notes.all():
        try:
            text = stored.text
            file = there.pop(stored.key, None)
            path = file.path if file else place(stored.key, folder, taken)
        except UserError as error:
            yield Done(BROKEN, stored.key, str(error))
            continue
        taken.add(path)
        if file is None:
            if path.exists():
                yield Done(
                    CONFLICT, str(path), "it is no file of this note: move it away, or push it under another name"
                )
                continue
            File.write(path, text, stored.key)
            yield Done(NEW, str(path))
        elif hashed(text) == file.base:
            yield Done(EDITED if file.is_edited else KEPT, str(path))
        elif file.is_edited and file.text != text:
            yield Done(CONFLICT, str(path), f"{stored.key} was edited in Zeppelin as well: see the difference by diff")
        else:
            File.write(path, text, stored.key)
            yield Done(UPDATED, str(path))
    for key, file in there.items():
        yield Done(
            CONFLICT, str(file.path), f"{key} is in the bucket no more: delete the file, or its last line to push it"
        )


def push(notes: Notes, folder: Path) -> Iterator[Done]:
    """Brings what was edited in files to the bucket, unless the note was edited there too. Raises UserError."""
    found = files(folder)
    if not found:
        raise UserError(f"There is no note below {folder}: bring them there first by pull")
    for file in found:
        try:
            yield _pushed(notes, folder, file) if file.key else _new(notes, folder, file)
        except (UserError, NoteError) as error:
            yield Done(BROKEN, str(file.path), str(error))


def _pushed(notes: Notes, folder: Path, file: File) -> Done:
    if not file.is_edited:
        return Done(KEPT, str(file.path))
    stored = notes.get(file.key)
    if stored is None:
        why = f"{file.key} is in the bucket no more: delete the file's last line to push it as a new note"
        return Done(CONFLICT, str(file.path), why)
    if stored.text == file.text:
        File.write(file.path, file.text, file.key)
        return Done(KEPT, str(file.path))
    if hashed(stored.text) != file.base:
        why = f"{file.key} was edited in Zeppelin as well: see the difference by diff"
        return Done(CONFLICT, str(file.path), why)
    made = source.edited(stored.note, file.text)
    if not notes.put(file.key, made, IfMatch=stored.etag):
        return Done(CONFLICT, str(file.path), f"{file.key} has just been saved by somebody: push again")
    File.write(file.path, source.markdown(made), file.key)
    return Done(UPDATED, str(file.path))


def _new(notes: Notes, folder: Path, file: File) -> Done:
    inside = file.path.relative_to(folder)
    name, path = inside.stem, inside.parent.as_posix()
    whole = name if path == "." else f"{path}/{name}"
    note = source.edited(new_note(name, note_id(whole), []), file.text)
    key = f"{whole}_{note['id']}.zpln"
    if not notes.put(key, note, IfNoneMatch="*"):
        return Done(CONFLICT, str(file.path), f"{key} is in the bucket already: pull it into another folder first")
    File.write(file.path, source.markdown(note), key)
    return Done(NEW, str(file.path))


def export(notes: Notes, folder: Path) -> Iterator[Done]:
    """Writes a Jupyter notebook for each of the bucket's notes, unless a file of that name is there. Raises UserError.

    What was run in Jupyter has its results in the file, and nowhere else: so no file is ever replaced.
    """
    taken: set[Path] = set()
    for stored in notes.all():
        try:
            path = place(stored.key, folder, taken).with_suffix(".ipynb")
            cells = [(block.head, block.text, block.attributes.get("title", "")) for block in stored.blocks]
        except UserError as error:
            yield Done(BROKEN, stored.key, str(error))
            continue
        taken.add(path.with_suffix(".md"))
        text = twins.text_of(twins.notebook(stored.key, cells))
        if path.exists():
            same = path.read_bytes() == text.encode()
            yield Done(KEPT if same else CONFLICT, str(path), "" if same else "it is there already: move it away first")
            continue
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        yield Done(NEW, str(path))


def differences(notes: Notes, folder: Path) -> Iterator[str]:
    """Each note's difference, from the bucket to its file, as `diff -u` writes it. Raises UserError."""
    stored = {one.key: one for one in notes.all()}
    for file in files(folder):
        there = stored.pop(file.key, None)
        text, where = "", "/dev/null"
        if there is not None:
            try:
                text, where = there.text, notes.uri(there.key)
            except UserError as error:
                yield f"{error}\n"
                continue
        lines = unified_diff(text.splitlines(), file.text.splitlines(), where, str(file.path), lineterm="")
        if told := "\n".join(lines):
            yield f"{told}\n"
    for key in stored:
        yield f"only in the bucket: {key}\n"
