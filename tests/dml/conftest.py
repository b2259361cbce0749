"""Fixtures for the tests of the operator's commands."""

from collections.abc import Callable
from pathlib import Path

import pytest

from dml import checkout
from tests.command import run_dml

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def dml(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Run:
    """Runs `dml` in an empty folder, with no AWS settings but those given; returns exit code, stdout, stderr."""

    def run(*arguments: str, **environment: str) -> tuple[int, str, str]:
        monkeypatch.setattr(checkout, "HOME", tmp_path)
        monkeypatch.setenv("COLUMNS", "200")
        for name in ("AWS_REGION", "AWS_DEFAULT_REGION", "AWS_PROFILE", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
            monkeypatch.delenv(name, raising=False)
        monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
        monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))
        monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        return run_dml(monkeypatch, capsys, *arguments)

    return run
