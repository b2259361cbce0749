"""Fixtures for all tests, and how a test run is divided: `make test` has two workers, each with what its tests share.

A group of tests is never divided between workers. It is a folder whose tests share something dear (a deployed platform,
a cloud, a Spark session), or a file. The longest groups begin, so that the workers end together.
"""

from pathlib import Path

import pytest

pytest_plugins = ["tests.embedded", "tests.spark_session"]

HERE = Path(__file__).parent
# What is begun first, longest first; in CONTRIBUTING.md stands what each of them takes. All others go by file.
GROUPS = ("e2e", "faults", "local", "jobs", "dml")
# What a test stands on, by the fixtures that it uses, straight or through others. `make check` runs what has no mark.
STANDS_ON = {"cloud": "cloud", "spark": "spark", "synth": "cdk"}


@pytest.hookimpl(tryfirst=True)  # before xdist reads the groups
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        folder = item.path.relative_to(HERE).parts[0]
        item.add_marker(pytest.mark.xdist_group(folder if folder in GROUPS else item.path.stem))
        for fixture in getattr(item, "fixturenames", ()):
            if fixture in STANDS_ON:
                item.add_marker(STANDS_ON[fixture])
