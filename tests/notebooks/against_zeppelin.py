"""`make test-zeppelin`: every cell of every note on a real Zeppelin, and what the stand-in of the tests says of it.

`python -m tests.notebooks.against_zeppelin [DATASET ...]` starts the release that ZEPPELIN_HOME names, as
`dml zeppelin --local` does, on the embedded cloud of this checkout as it stands. Each note of its bucket is run as a
copy, which is deleted again, so that it stays as it was deployed or edited. Then the stand-in (tests/notebooks/
zeppelin.py) runs the same notes in the same network, with the same role, catalog, Python and Spark. Where the two
differ, the stand-in is wrong, and is to be mended.

What a note says differently each time (an hour, the name of a run) is found by running it in the stand-in again, and
is not compared; the report names it. It ends with 1 if anything differs, or if a cell has failed.
"""

import argparse
import difflib
import json
import os
import re
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from dml import checkout
from dml.errors import UserError
from dml.estate.platform import deployed
from dml.local import here
from dml.terminal.words import counted
from dml.zeppelin import tunnel
from dml.zeppelin.release import found
from dml.zeppelin.rest import COOKIE, Zeppelin
from dml.zeppelin.server import Server, Workbench
from tests.notebooks import screenshots

COPIES = "/~against-zeppelin"  # a folder of Zeppelin's that no dataset is called
PASSES = 3  # of the stand-in: the first may still change what the catalog has; two and three tell what varies
BUSY = ("PENDING", "RUNNING")
KEPT = ("title", "text", "user", "config", "settings")  # of a paragraph; the rest says how it was run last
# What a traceback has of Zeppelin's own, in a folder of each start (zeppelin_python.py of 0.11.1).
OWN_FRAME = re.compile(r' *File "[^"]*/zeppelin_python\.py", line \d+, in .*\n *exec\(code, .*\n(?: *\^+\n)?')
SHOWN = 12  # lines of a difference

MODULE = "tests.notebooks.against_zeppelin"

Json = dict[str, Any]


@dataclass(frozen=True)
class Said:
    """What became of a paragraph: FINISHED, ERROR, READY (not run) or another of Zeppelin's, and its outputs."""

    status: str
    outputs: tuple[tuple[str, str], ...] = ()

    @classmethod
    def of(cls, status: str, outputs: Sequence[Sequence[str]]) -> "Said":
        return cls(status, tuple((kind, OWN_FRAME.sub("", data.strip("\n"))) for kind, data in outputs if data.strip()))

    @property
    def lines(self) -> list[str]:
        return [self.status, *(line for kind, data in self.outputs for line in (f"%{kind}", *data.split("\n")))]


def varying(one: Said, other: Said) -> set[int] | None:
    """The numbers of lines that differ between two runs of the same paragraph; None if it is not the same lines."""
    if len(one.lines) != len(other.lines):
        return None
    return {number for number, pair in enumerate(zip(one.lines, other.lines, strict=True)) if pair[0] != pair[1]}


def difference(server: Said, stand_in: Said, varies: set[int] | None) -> list[str]:
    """What differs, as a diff with the stand-in's lines first; nothing if they say the same, but for what varies."""
    ours, theirs = stand_in.lines, server.lines
    if varies is None:  # kinds and status are all that can be held against each other
        ours, theirs = ([one.status, *(f"%{kind}" for kind, _ in one.outputs)] for one in (stand_in, server))
    elif varies and len(ours) == len(theirs):
        kept = [number for number in range(len(ours)) if number not in varies]
        ours, theirs = [ours[number] for number in kept], [theirs[number] for number in kept]
    if ours == theirs:
        return []
    return list(difflib.unified_diff(ours, theirs, "stand-in", "Zeppelin", lineterm="", n=1))


@contextmanager
def copied(zeppelin: Zeppelin, note: Json, path: str) -> Iterator[str]:
    """The id of a copy of the note, without outputs, for as long as the block lasts."""
    # Paragraphs keep their order. Dates it tells in a form that it does not take.
    told = {
        **{name: note[name] for name in ("name", "defaultInterpreterGroup", "config") if name in note},
        "paragraphs": [{name: one[name] for name in KEPT if name in one} for one in note["paragraphs"]],
    }
    copy = str(zeppelin.asked("POST", f"/notebook/import?notePath={quote(COPIES + path, safe='')}", told))
    try:
        yield copy
    finally:
        zeppelin.asked("DELETE", f"/notebook/{copy}")


def on_server(zeppelin: Zeppelin, copy: str, seconds: float) -> list[Said]:
    """What each paragraph of a note says. Raises UserError if it does not end."""
    zeppelin.asked("POST", f"/notebook/job/{copy}?blocking=false")
    until = time.monotonic() + seconds
    while True:
        told = zeppelin.asked("GET", f"/notebook/job/{copy}")
        if not told.get("isRunning") and not any(one["status"] in BUSY for one in told.get("paragraphs", [])):
            break
        if time.monotonic() > until:
            zeppelin.asked("DELETE", f"/notebook/job/{copy}")
            raise UserError(f"it has not ended within {seconds:.0f} s, and is stopped. More time: --seconds")
        time.sleep(0.5)
    return [
        Said.of(
            one.get("status", "READY"),
            [(part["type"], part.get("data", "")) for part in (one.get("results") or {}).get("msg", [])],
        )
        for one in zeppelin.asked("GET", f"/notebook/{copy}")["paragraphs"]
    ]


def by_stand_in(server: Server, notes: Mapping[str, Json]) -> list[dict[str, list[Said] | str]]:
    """By path what each paragraph says, once for each pass; or why the stand-in cannot run the note.

    Raises UserError if the stand-in itself fails.
    """
    given, told, log = (server.logs / f"stand-in.{end}" for end in ("notes.json", "json", "log"))
    given.write_text(json.dumps(notes))
    spark = {name: value for name, value in server.spark_properties.items() if name.startswith("spark.")}
    options = " ".join(f"--conf {name}={value}" for name, value in spark.items())
    more = {
        "PYTHONPATH": f"{server.environment['PYTHONPATH']}:{checkout.PROJECT}",
        "PYSPARK_SUBMIT_ARGS": f"{options} pyspark-shell",
    }
    words = [sys.executable, "-m", MODULE, "--stand-in", str(given), str(told)]
    with log.open("wb") as out:
        code = server.process(words, out, more).wait()
    if code or not told.exists():
        raise UserError(f"The stand-in has ended with {code} (log: {log}).")
    passes = json.loads(told.read_text())
    return [
        {path: said if isinstance(said, str) else [Said.of(*one) for one in said] for path, said in each.items()}
        for each in passes
    ]


def stand_in(given: Path, told: Path) -> None:
    """In Zeppelin's network: runs the notes, PASSES times."""
    from pyspark.sql import SparkSession

    from tests.notebooks.zeppelin import Runner

    passes: list[dict[str, Any]] = []
    for number in range(PASSES):
        if number in (0, PASSES - 1):  # another application for the last: its name varies as well
            spark = SparkSession.builder.getOrCreate()
        passes.append({})
        for path, note in json.loads(given.read_text()).items():
            forms = {
                name: value
                for paragraph in note["paragraphs"]
                for name, value in paragraph.get("settings", {}).get("params", {}).items()
            }
            try:
                results = Runner(spark, forms).run(note)
            except ValueError as error:  # something of Zeppelin's that it has not
                passes[-1][path] = str(error)
                continue
            passes[-1][path] = [(one.status, [(part.kind, part.data) for part in one.messages]) for one in results]
        if number >= PASSES - 2:
            spark.stop()
    told.write_text(json.dumps(passes))


def compared(path: str, note: Json, server: Sequence[Said], passes: Sequence[Any]) -> Iterator[tuple[str, bool]]:
    """Sentences about a note, each with whether it tells of a fault."""
    for number, (paragraph, said) in enumerate(zip(note["paragraphs"], server, strict=True)):
        ours = [one[number] for one in passes]
        title = paragraph.get("title") or paragraph.get("text", "").strip().split("\n")[0][:60]
        name = f"{path}, paragraph {number + 1} ({title})"
        varies = varying(ours[-2], ours[-1])
        found_here = difference(said, ours[-1], varies)
        if found_here:
            more = len(found_here) - 2 - SHOWN
            shown = [*found_here[: SHOWN + 2], *([f"... {counted(more, 'line')} more"] if more > 0 else [])]
            yield "\n    ".join([f"DIFFERS: {name}", *shown]), True
        elif said.status == "ERROR":
            yield f"FAILS: {name}, in the stand-in as well: {said.lines[-1][:300]}", True
        if varies is None:
            yield f"varies: {name}: other lines each time, only kinds of output are compared", False
        elif varies:
            yield f"varies: {name}: {counted(len(varies), 'line')} not compared", False


def main() -> int:
    """Returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("datasets", nargs="*", help="datasets whose notes are run; else all notes that the bucket has")
    parser.add_argument("--env", default="dev")
    parser.add_argument("--seconds", type=float, default=1800, help="how long one note may take (1800)")
    parser.add_argument("--stand-in", nargs=2, type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.stand_in:
        stand_in(*given.stand_in)
        return 0
    try:
        return run(given.datasets, given.env, given.seconds)
    except UserError as error:
        print(f"Error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("Stopped: Zeppelin and the copies of notes are gone.", file=sys.stderr)
        return 130


def run(datasets: Sequence[str], env: str, seconds: float) -> int:
    """Starts what is needed, and ends what it has started. Returns the exit code."""
    home, named = checkout.home(), os.environ.get("ZEPPELIN_HOME")
    release = found(Path(named) if named else None, home / "releases")
    with tunnel.interrupted_by_the_end_of_the_terminal(), here.standing() as cloud:
        platform = deployed(True, env)
        workbench = Workbench(platform, tunnel.workbench(platform, str))
        server = Server(release, cloud, workbench, home=home)
        with server.running():
            print(f"Zeppelin {release.version} of {release.home}; a note may take {seconds:.0f} s", flush=True)
            return hold_against_each_other(server, datasets, seconds)


@contextmanager
def pictures(server: Server) -> Iterator[Callable[[str, str, int], None]]:
    """Takes a picture of a copy with so many paragraphs, if there is a Chromium; what goes wrong with it is told."""
    chromium, folder = screenshots.program(), server.logs / "pictures"
    if chromium is None:
        print("No pictures: there is no Chromium on the PATH.", flush=True)
        yield lambda copy, path, paragraphs: None
        return
    folder.mkdir()
    with tempfile.TemporaryDirectory(dir=server.logs) as profile:
        browser = screenshots.Chromium(chromium, Path(profile))
        browser.cookie(server.url, COOKIE, server.client().session)

        def picture(copy: str, path: str, paragraphs: int) -> None:
            file = folder / f"{path.strip('/').replace('/', ' - ')}.png"
            try:
                whole = browser.picture(f"{server.url}/#/notebook/{copy}", paragraphs, file)
                print(f"  {'picture' if whole else 'a picture, but not of all paragraphs'}: {file}", flush=True)
            except OSError as error:
                print(f"  no picture: {error}", flush=True)

        try:
            yield picture
        finally:
            browser.end()


def hold_against_each_other(server: Server, datasets: Sequence[str], seconds: float) -> int:
    """Runs the notes on both, and tells what differs. Returns the exit code."""
    zeppelin, faults = server.client(seconds=120), 0
    notes: dict[str, Json] = {}
    for entry in sorted(zeppelin.asked("GET", "/notebook"), key=lambda one: str(one["path"])):
        path = str(entry["path"])
        if path.startswith(f"{COPIES}/"):  # of a run that was killed
            zeppelin.asked("DELETE", f"/notebook/{entry['id']}")
        if path.startswith("/~") or (datasets and path.split("/")[1] not in datasets):
            continue
        try:
            notes[path] = zeppelin.asked("GET", f"/notebook/{entry['id']}?reload=true")
        except UserError as error:
            faults += 1
            print(f"FAILS: {path} does not open: {error}", flush=True)
    if not notes:
        raise UserError(f"There are no notes of {', '.join(datasets) or 'any dataset'}: dml run DATASET --local")
    passes = by_stand_in(server, notes)
    cells = 0
    with pictures(server) as picture:
        for path, note in notes.items():
            began = time.monotonic()
            try:
                with copied(zeppelin, note, path) as copy:
                    said = on_server(zeppelin, copy, seconds)
                    print(f"{path}: {counted(len(said), 'paragraph')} in {time.monotonic() - began:.0f} s", flush=True)
                    picture(copy, path, len(said))
            except UserError as error:
                faults += 1
                print(f"FAILS: {path}: {str(error)[:500]}", flush=True)
                continue
            cells += len(said)
            ours = [one[path] for one in passes]
            if unable := [one for one in ours if isinstance(one, str)]:
                faults += 1
                print(f"  DIFFERS: {path}: the stand-in cannot run this note: {unable[0]}", flush=True)
                continue
            for sentence, is_fault in compared(path, note, said, ours):
                faults += is_fault
                print(f"  {sentence}", flush=True)
    told = f"{faults} differ or fail" if faults else "all as in the stand-in"
    print(f"{counted(len(notes), 'note')}, {counted(cells, 'paragraph')}: {told}")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
