"""Shipped datasets for the tests of notes: each is run once, with all of its notes."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest
from pyspark.sql import SparkSession

from tests.embedded import Clients
from tests.notebooks.shipped import ENVIRONMENT, LAKE, MODELS, SharedCatalog, Shipped, on_a_node, shipped
from tests.spark_session import BUCKETS

RUNS = {"penguins": 2}  # so that the second one has a model before it to be compared with


@pytest.fixture(scope="module")
def of_dataset(
    spark: SparkSession, aws: Clients, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Callable[[str], Shipped]]:
    """of_dataset("penguins") is that dataset, run; made when it is first asked for, once for a file of tests."""
    s3, ssm, made = aws("s3"), aws("ssm"), {}
    spark.range(1).createOrReplaceTempView("named_in_the_session")  # as by somebody's own paragraph
    clients = {"s3": s3, "ssm": ssm, "glue": SharedCatalog(aws("glue"), spark)}
    for bucket in BUCKETS:
        s3.create_bucket(Bucket=bucket)
    for name, value in (("lake", LAKE), ("models", MODELS)):
        ssm.put_parameter(Name=f"/dml/{ENVIRONMENT}/cluster/{name}", Value=value, Type="String")
    node = on_a_node(tmp_path_factory.mktemp("node"), clients)
    with ExitStack() as stack:

        def of(name: str) -> Shipped:
            if name not in made:
                run = shipped(name, spark, clients, node, tmp_path_factory.mktemp(name), runs=RUNS.get(name, 1))
                made[name] = stack.enter_context(run)
            return made[name]

        yield of
    spark.catalog.dropTempView("named_in_the_session")
    for name in ("lake", "models"):
        ssm.delete_parameter(Name=f"/dml/{ENVIRONMENT}/cluster/{name}")
    for bucket in BUCKETS:
        for entry in s3.list_objects_v2(Bucket=bucket).get("Contents", []):
            s3.delete_object(Bucket=bucket, Key=entry["Key"])
        s3.delete_bucket(Bucket=bucket)
