"""A cloud whose environments are taken down in the end: on that of the session others go on."""

from collections.abc import Iterator

import pytest

from dml.local.cloud import Cloud
from tests.embedded import Clients, own_cloud


@pytest.fixture(scope="session")
def cloud(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cloud]:
    with own_cloud(tmp_path_factory, "apart") as made:
        yield made


@pytest.fixture(scope="session")
def aws(cloud: Cloud) -> Clients:
    return Clients(cloud)
