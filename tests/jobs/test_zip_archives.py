"""Archives on the path: read again when they have changed, and only then."""

import importlib
import sys
import zipfile
import zipimport
from pathlib import Path

import pytest

import jobs


def test_an_archive_should_be_read_again_only_if_it_has_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert jobs.__doc__  # importing it is what mends
    archive = tmp_path / "shipped.zip"
    with zipfile.ZipFile(archive, "w") as packed:
        packed.writestr("shipped_before.py", "x = 1")
    monkeypatch.syspath_prepend(str(archive))
    assert importlib.import_module("shipped_before").x == 1

    reads = []
    read_directory = zipimport._read_directory  # type: ignore[attr-defined]

    def counted(path: str) -> object:
        reads.append(path)
        return read_directory(path)

    monkeypatch.setattr(zipimport, "_read_directory", counted)
    importlib.invalidate_caches()
    importlib.invalidate_caches()
    assert reads == []
    with zipfile.ZipFile(archive, "a") as packed:
        packed.writestr("shipped_after.py", "y = 2")
    importlib.invalidate_caches()
    assert set(reads) == {str(archive)}
    assert importlib.import_module("shipped_after").y == 2
    for name in ("shipped_before", "shipped_after"):
        sys.modules.pop(name)
