"""Publishing a table when the catalog's answers are lost."""

from collections.abc import Iterator
from typing import Any

import boto3
import pytest
from botocore.config import Config

from dml.local.place import REGION
from jobs.tables import catalog
from tests.embedded import Clients
from tests.faults.proxy import Fault, Proxy
from tests.shipped import role

DATABASE = "faults_catalog"


@pytest.fixture(scope="module")
def keys(aws: Clients) -> dict[str, str]:
    made = role(aws, "faults-catalog", {"Effect": "Allow", "Action": "glue:*", "Resource": "*"})
    return {name.lower(): value for name, value in made.items()}


@pytest.fixture
def glue(aws: Clients, proxy: Proxy, keys: dict[str, str]) -> Iterator[Any]:
    """The Glue API through the proxy, for a role that may use a database without tables."""
    aws("glue").create_database(DatabaseInput={"Name": DATABASE})
    config = Config(read_timeout=1)
    yield boto3.client("glue", region_name=REGION, endpoint_url=proxy.endpoint, config=config, **keys)
    aws("glue").delete_database(Name=DATABASE)


@pytest.mark.parametrize("answered", [0, 1], ids=["to the update", "to the creation"])
def test_a_table_should_be_published_when_an_answer_is_lost(
    aws: Clients, proxy: Proxy, glue: Any, answered: int
) -> None:
    lost = Fault("POST", "^/$", "held", times=1)
    proxy.faults = [Fault("POST", "^/$", lambda: None, times=answered), lost]
    catalog.publish(glue, DATABASE, "features", "s3://lake/r1/", [("x", "double")], {"run_id": "r1"})
    assert lost.seen == 1
    (table,) = aws("glue").get_tables(DatabaseName=DATABASE)["TableList"]
    assert table["StorageDescriptor"]["Location"] == "s3://lake/r1/"
    assert table["Parameters"]["run_id"] == "r1"
