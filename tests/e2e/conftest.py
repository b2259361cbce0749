"""What modules here share."""

from collections.abc import Iterator

import pytest

from dml.local.cloud import Cloud
from tests.embedded import own_cloud


@pytest.fixture(scope="session")
def apart(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cloud]:
    """A cloud whose environments are taken down in the end: on that of the session others go on."""
    with own_cloud(tmp_path_factory, "apart") as made:
        yield made
