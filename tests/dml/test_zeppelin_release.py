"""Which releases of Zeppelin are taken for one here, and what is said of all others."""

import io
import re
import tarfile
from pathlib import Path

import pytest

from dml.errors import UserError
from dml.zeppelin import release
from tests.command import run_dml

FILES = (
    "bin/zeppelin.sh",
    "bin/interpreter.sh",
    "conf/log4j.properties",
    "interpreter/zeppelin-interpreter-shaded-0.11.1.jar",
    "interpreter/spark/spark-interpreter-0.11.1.jar",
    "interpreter/spark/scala-2.12/spark-scala-2.12-0.11.1.jar",
    "interpreter/md/zeppelin-markdown-0.11.1.jar",
    "lib/zeppelin-server-0.11.1.jar",
    "plugins/NotebookRepo/S3NotebookRepo/notebookrepo-s3-0.11.1.jar",
    "zeppelin-web-0.11.1.war",
)
OTHERS = ("interpreter/hbase/zeppelin-hbase-0.11.1.jar", "plugins/Launcher/yarn/launcher-yarn-0.11.1.jar")


@pytest.fixture
def whole(tmp_path: Path) -> Path:
    """A folder laid out as a release, without anything that runs."""
    home = tmp_path / "zeppelin-0.11.1-bin-netinst"
    for name in FILES:
        (home / name).parent.mkdir(parents=True, exist_ok=True)
        (home / name).touch()
    return home


def packed(archive: Path, *names: str) -> Path:
    with tarfile.open(archive, "w:gz") as opened:
        for name in names:
            opened.addfile(tarfile.TarInfo(name), io.BytesIO())
    return archive


def refused(given: Path | None, cache: Path) -> str:
    with pytest.raises(UserError) as said:
        release.found(given, cache)
    return str(said.value)


def test_a_whole_release_should_be_taken_where_it_lies(whole: Path, tmp_path: Path) -> None:
    found = release.found(whole, tmp_path / "cache")
    assert (found.home, found.version) == (whole, "0.11.1")
    assert not (tmp_path / "cache").exists()


def test_without_a_release_one_sentence_should_say_how_to_get_one(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("ZEPPELIN_HOME", raising=False)
    code, out, err = run_dml(monkeypatch, capsys, "zeppelin", "--local", "--no-browser")
    assert (code, out) == (1, "")
    assert "Zeppelin itself is not part of this project." in err
    assert "https://archive.apache.org/dist/zeppelin/zeppelin-0.11.1/" in err
    assert ".sha512" in err
    assert "--release PATH, or ZEPPELIN_HOME" in err


@pytest.mark.parametrize(
    ("missing", "said"),
    [
        ("bin/zeppelin.sh", "is no unpacked release of Zeppelin"),
        ("lib/zeppelin-server-0.11.1.jar", "is no unpacked release of Zeppelin"),
        ("plugins/NotebookRepo/S3NotebookRepo/notebookrepo-s3-0.11.1.jar", "lacks the plugin for notes in S3"),
        ("interpreter/spark/spark-interpreter-0.11.1.jar", "lacks the Spark interpreter ("),
        ("interpreter/spark/scala-2.12/spark-scala-2.12-0.11.1.jar", "lacks the Spark interpreter for Scala 2.12"),
        ("interpreter/md/zeppelin-markdown-0.11.1.jar", "lacks the Markdown interpreter"),
        ("interpreter/zeppelin-interpreter-shaded-0.11.1.jar", "lacks what all interpreters stand on"),
        ("zeppelin-web-0.11.1.war", "lacks the web pages"),
    ],
)
def test_a_release_that_lacks_what_notes_need_should_be_refused_by_what_it_lacks(
    whole: Path, tmp_path: Path, missing: str, said: str
) -> None:
    (whole / missing).unlink()
    told = refused(whole, tmp_path)
    assert f"{whole} {said}" in told
    assert told.endswith(release.WHERE)


def test_another_version_should_be_refused_by_its_number(whole: Path, tmp_path: Path) -> None:
    jar = whole / "lib" / "zeppelin-server-0.11.1.jar"
    jar.rename(jar.with_name("zeppelin-server-0.10.1.jar"))
    assert "is Zeppelin 0.10.1; the clusters have 0.11.1" in refused(whole, tmp_path)


def test_a_path_that_is_not_there_should_be_named(tmp_path: Path) -> None:
    assert f"There is no {tmp_path / 'nowhere'}." in refused(tmp_path / "nowhere", tmp_path)


def test_an_archive_should_be_unpacked_once_and_only_what_is_needed_of_it(tmp_path: Path) -> None:
    names = [f"zeppelin-0.11.1-bin-all/{name}" for name in (*FILES, *OTHERS)]
    archive, cache = packed(tmp_path / "zeppelin.tgz", *names), tmp_path / "cache"
    home = release.found(archive, cache).home
    there = {path.relative_to(home).as_posix() for path in home.rglob("*") if path.is_file()}
    assert there == set(FILES)
    (home / "touched").touch()
    assert (release.found(archive, cache).home / "touched").exists(), "unpacked anew"
    assert [path.name for path in cache.iterdir()] == [home.name], "nothing is left beside it"


@pytest.mark.parametrize("kept", [0, 20])
def test_a_broken_archive_should_be_refused_and_nothing_be_kept_of_it(tmp_path: Path, kept: int) -> None:
    archive, cache = packed(tmp_path / "zeppelin.tgz", "zeppelin-0.11.1/bin/zeppelin.sh"), tmp_path / "cache"
    archive.write_bytes(archive.read_bytes()[:kept])
    assert re.search(r"zeppelin\.tgz is no (whole )?archive of", refused(archive, cache))
    assert list(cache.iterdir()) == []


def test_an_archive_should_write_nowhere_but_into_its_folder(tmp_path: Path) -> None:
    archive = packed(tmp_path / "zeppelin.tgz", "x/bin/../../../../outside", *(f"x/{name}" for name in FILES))
    assert "zeppelin.tgz is no whole archive" in refused(archive, tmp_path / "a" / "cache")
    assert not list(tmp_path.rglob("outside"))
