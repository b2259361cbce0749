"""`dml` as an operator types it, in the process of the tests."""

import sys

import pytest

from dml import cli


def run_dml(patch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    """Runs the command; returns exit code, stdout, stderr."""
    patch.setattr(sys, "argv", ["dml", *arguments])
    capsys.readouterr()  # what came before is not the command's
    with pytest.raises(SystemExit) as ended:
        cli.main()
    printed = capsys.readouterr()
    return int(ended.value.code or 0), printed.out, printed.err
