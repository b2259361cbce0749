"""Fixtures for all tests, and how a test run is divided if it has several workers: each has what its tests share.

A group of tests is never divided between workers: a folder whose tests share something dear (a deployed platform, a
Spark session), or a file. The longest groups begin, so that the workers end together.
"""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from xdist.scheduler import LoadScopeScheduling

for name in ("COLUMNS", "LINES"):  # a worker is given 80 and 24, which no test could change once a console is made
    os.environ.pop(name, None)
os.environ["CDK_VALIDATION"] = "false"  # as dml/cdk.py has it: half of each synthesis, for warnings that nobody sees

pytest_plugins = ["tests.embedded", "tests.spark_session"]

# Begun first, in this order; CONTRIBUTING.md has what each takes. All others go by file, in the order of their names.
FIRST = (
    "tests/e2e/shared",
    "tests/jobs",
    "tests/faults",
    "tests/distributed",
    "tests/stacks",
    "tests/e2e",
    "tests/upgrade",
)
TOGETHER = ("apart", "faults", "jobs", "notebooks", "stacks")  # folders that are one group
# One after the other on what the first of them has deployed.
ON_ONE_PLATFORM = ("test_failures.py", "test_on_yarn.py", "test_whole_way.py")
# What a test stands on, by the fixtures that it uses, straight or through others. `make check` runs what has no mark.
STANDS_ON = {
    "cloud": "cloud",
    "spark": "spark",
    "checked": "spark",
    "synth": "cdk",
    "assemblies": "cdk",
    "synthesised": "cdk",
}


def group_of(nodeid: str) -> str:
    path = Path(nodeid.partition("::")[0])
    if path.name in ON_ONE_PLATFORM:
        return "tests/e2e/shared"
    return str(path.parent if path.parent.name in TOGETHER else path)


def place_of(group: str) -> int:
    return next((i for i, first in enumerate(FIRST) if group.startswith(first)), len(FIRST))


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if hasattr(config, "workerinput"):  # of xdist: one process alone goes by names
        items.sort(key=lambda item: place_of(group_of(item.nodeid)))
    for item in items:
        for fixture in getattr(item, "fixturenames", ()):
            if fixture in STANDS_ON:
                item.add_marker(STANDS_ON[fixture])


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> "LoadScopeScheduling":
    from xdist.scheduler import LoadScopeScheduling

    class ByGroup(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            return group_of(nodeid)

    config.option.loadscopereorder = False  # it would put many tests before long ones
    return ByGroup(config, log)
