"""Whoever takes the code or the data finds the terms."""

import json
import tomllib
from fnmatch import fnmatch
from pathlib import Path

from tests.docs.tree import ROOT, committed

TOLD = (ROOT / "datasets" / "LICENCES.md").read_text(encoding="utf-8")


def datasets() -> list[Path]:
    """Those that are committed: an operator's own may lie beside them."""
    return [ROOT / path for path in sorted(committed()) if fnmatch(path, "datasets/*/dataset.toml")]


def section(name: str) -> str:
    """What LICENCES.md says below a dataset's heading; '' if there is none."""
    return TOLD.partition(f"\n## {name}\n")[2].partition("\n## ")[0]


def test_the_licence_of_each_dataset_should_be_told_with_those_of_the_others() -> None:
    for file in datasets():
        source = tomllib.loads(file.read_text(encoding="utf-8"))["source"]
        assert f"| licence | {source['licence']} |" in section(file.parent.name), file.parent.name


def test_no_dataset_should_be_told_of_that_is_not_there() -> None:
    headings = [line.removeprefix("## ") for line in TOLD.splitlines() if line.startswith("## ")]
    assert sorted(headings) == sorted([*(file.parent.name for file in datasets()), "Your own"])


def test_the_version_of_a_package_with_data_should_be_the_one_that_is_locked() -> None:
    lock = (ROOT / "requirements.in").read_text(encoding="utf-8").splitlines()
    for file in datasets():
        if package := tomllib.loads(file.read_text(encoding="utf-8"))["source"].get("package"):
            (version,) = (line.partition("==")[2] for line in lock if line.startswith(f"{package}=="))
            assert f"`{package}` {version}" in section(file.parent.name)


def test_every_place_that_names_the_licence_of_the_code_should_name_the_same() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    package = json.loads((ROOT / "package.json").read_text(encoding="utf-8"))
    locked = json.loads((ROOT / "package-lock.json").read_text(encoding="utf-8"))["packages"][""]
    assert {project["license"], package["license"], locked["license"]} == {"Apache-2.0"}
    assert project["license-files"] == ["LICENSE"]
    text = (ROOT / "LICENSE").read_text(encoding="utf-8")
    assert "Apache License\n                           Version 2.0, January 2004" in text
    assert "END OF TERMS AND CONDITIONS" in text
