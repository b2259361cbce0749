"""What tells that a checkout is as it was, so that nothing need be made anew."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from dml import checkout


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A checkout in miniature."""
    made = tmp_path / "project"
    for name in ("app.py", "stacks/data.py", "datasets/flights/dataset.toml", ".dml/wheels/x86_64/numpy.whl"):
        (made / name).parent.mkdir(parents=True, exist_ok=True)
        (made / name).write_text("1")
    return made


def same_size_and_time(project: Path) -> None:
    file = project / "stacks/data.py"
    found = file.stat()
    file.write_text("2")
    os.utime(file, ns=(found.st_atime_ns, found.st_mtime_ns))


def by_link(project: Path) -> None:
    (project.parent / "elsewhere").mkdir()
    (project.parent / "elsewhere" / "dataset.toml").write_text("1")
    (project / "datasets" / "linked").symlink_to(project.parent / "elsewhere")


def dataset_tests(project: Path) -> None:
    (project / "datasets" / "tests").mkdir()
    (project / "datasets" / "tests" / "dataset.toml").touch()


CHANGES: dict[str, Callable[[Path], object]] = {
    "another text of the same size, the time set back": same_size_and_time,
    "a new file": lambda project: (project / "datasets" / "flights" / "prepare.sql").touch(),
    "a file gone": lambda project: (project / "app.py").unlink(),
    "a file renamed": lambda project: (project / "app.py").rename(project / "main.py"),
    "a folder that is a link": by_link,
    "a dataset by the name of a folder that is passed over": lambda project: (
        project / "datasets" / "tests"
    ).symlink_to(project / "stacks"),
    "other packages for the cluster": lambda project: (project / ".dml/wheels/x86_64/numpy.whl").write_text("12"),
    "the CDK CLI set up": lambda project: (project / "node_modules").mkdir(),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_a_change_of_the_checkout_should_be_noticed(project: Path, change: Callable[[Path], object]) -> None:
    before = checkout.state(project)
    assert checkout.state(project) == before
    change(project)
    assert checkout.state(project) != before


def test_a_change_behind_a_link_should_be_noticed_and_a_link_back_be_followed_once(project: Path) -> None:
    by_link(project)
    (project / "stacks" / "back").symlink_to(project)
    before = checkout.state(project)
    (project.parent / "elsewhere" / "dataset.toml").write_text("2")
    assert checkout.state(project) != before


def test_what_runs_leave_behind_should_be_no_change(project: Path) -> None:
    before = checkout.state(project)
    for name in (
        ".dml/cloud/server.log",
        "stacks/__pycache__/data.pyc",
        "cdk.out/dev/manifest.json",
        ".git/index",
        "docs/models.md",
    ):
        (project / name).parent.mkdir(parents=True, exist_ok=True)
        (project / name).write_text("1")
    assert checkout.state(project) == before
