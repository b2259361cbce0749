"""What the session of all jobs rests on."""

import pytest
from py4j import protocol
from pyspark.sql import SparkSession
from pyspark.sql import functions as F


def test_java_should_be_asked_once_what_a_function_is(spark: SparkSession, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each answer would cost Java a look into all of Spark's jars, and a job says F.col hundreds of times."""
    assert str(F.upper(F.col("a"))) == "Column<'upper(a)'>"
    jvm = spark.sparkContext._jvm
    assert jvm is not None
    assert jvm.java.lang.Long.parseLong("7") == 7
    asked = []
    client = jvm._gateway_client
    send = client.send_command
    monkeypatch.setattr(
        client, "send_command", lambda told, *more, **named: asked.append(told) or send(told, *more, **named)
    )
    assert str(F.upper(F.col("b"))) == "Column<'upper(b)'>"
    assert jvm.java.lang.Long.parseLong("8") == 8
    assert asked, "the calls themselves go to Java"
    assert not [told for told in asked if told.startswith(protocol.REFLECTION_COMMAND_NAME)]
