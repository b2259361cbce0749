"""A release of Zeppelin that the user has: a folder or its archive, looked at before anything is started."""

import re
import shutil
import tarfile
import tempfile
from dataclasses import dataclass
from pathlib import Path

from dml.errors import UserError

LINE = "0.11"  # of EMR's release in stacks/emr.py; 0.11.2 differs in fixes only
WANTED = "0.11.1"
WHERE = (
    f"Fetch zeppelin-{WANTED}-bin-netinst.tgz and the .sha512 beside it from "
    f"https://archive.apache.org/dist/zeppelin/zeppelin-{WANTED}/, and name the archive or its unpacked folder: "
    "dml zeppelin --local --release PATH, or ZEPPELIN_HOME (docs/zeppelin.md)."
)
SERVER = re.compile(r"zeppelin-server-(\d[\w.-]*)\.jar")
# What is needed of an archive, which has all interpreters else; and what must be there, in words.
PARTS = ("bin", "conf", "lib", "interpreter/spark", "interpreter/md", "plugins/NotebookRepo/S3NotebookRepo")
FILES = re.compile(r"[^/]+\.war|interpreter/[^/]+\.jar|LICENSE|NOTICE")
NEEDED = {
    "bin/interpreter.sh": "the scripts that start interpreters",
    "interpreter/zeppelin-interpreter-shaded-*.jar": "what all interpreters stand on",
    "interpreter/spark/spark-interpreter-*.jar": "the Spark interpreter",
    "interpreter/spark/scala-2.12/*.jar": "the Spark interpreter for Scala 2.12",
    "interpreter/md/*.jar": "the Markdown interpreter",
    "plugins/NotebookRepo/S3NotebookRepo/notebookrepo-s3-*.jar": "the plugin for notes in S3",
    "*.war": "the web pages",
}


@dataclass(frozen=True)
class Release:
    """An unpacked release, whole as far as it is needed here."""

    home: Path
    version: str


def found(given: Path | None, cache: Path) -> Release:
    """The release that the user names; an archive is unpacked into `cache`, once.

    Raises UserError if there is none, or one that cannot serve.
    """
    if given is None:
        raise UserError(f"Zeppelin itself is not part of this project. {WHERE}")
    if not given.exists():
        raise UserError(f"There is no {given}. {WHERE}")
    return checked(given.resolve() if given.is_dir() else _unpacked(given, cache))


def checked(home: Path) -> Release:
    """Raises UserError for a folder that is no release, or lacks what our notes need."""
    names = [path.name for path in (home / "lib").glob("zeppelin-server-*.jar")]
    versions = [named[1] for name in names if (named := SERVER.fullmatch(name))]
    if not (home / "bin" / "zeppelin.sh").is_file() or len(versions) != 1:
        raise UserError(f"{home} is no unpacked release of Zeppelin: it lacks bin/zeppelin.sh or its server. {WHERE}")
    (version,) = versions
    if not version.startswith(f"{LINE}."):
        raise UserError(
            f"{home} is Zeppelin {version}; the clusters have {WANTED}, so notes are run by {LINE}. {WHERE}"
        )
    if lacking := [f"{what} ({pattern})" for pattern, what in NEEDED.items() if not any(home.glob(pattern))]:
        raise UserError(f"{home} lacks {'; '.join(lacking)}. {WHERE}")
    return Release(home, version)


def _unpacked(archive: Path, cache: Path) -> Path:
    """The folder of an archive's content, of which only what is needed is kept."""
    looked = archive.stat()
    home = cache / f"{archive.name}-{looked.st_size}-{looked.st_mtime_ns}"
    if home.is_dir():
        return home
    cache.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=cache) as scratch:
        try:
            with tarfile.open(archive) as opened:
                for member in opened:
                    inside = member.name.removeprefix("./").partition("/")[2]
                    if _is_needed(inside):
                        opened.extract(member, scratch, filter="data")
        except (tarfile.TarError, OSError, EOFError) as error:
            raise UserError(f"{archive} is no whole archive of Zeppelin ({error}). {WHERE}") from None
        (top, *others) = [*Path(scratch).iterdir(), None]
        if top is None or others != [None]:
            raise UserError(f"{archive} is no archive of a release of Zeppelin: it has no one folder. {WHERE}")
        shutil.move(top, home)
    return home


def _is_needed(name: str) -> bool:
    return bool(FILES.fullmatch(name)) or any(f"{name}/".startswith(f"{part}/") for part in PARTS)
