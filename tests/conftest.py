"""Fixtures for all tests."""

pytest_plugins = ["tests.embedded", "tests.spark_session"]
