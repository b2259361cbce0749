"""Where a checkout may lie."""

import shutil
import subprocess
from pathlib import Path

from dml.checkout import PROJECT


def test_a_path_with_a_space_should_be_refused_by_the_first_line(tmp_path: Path) -> None:
    folder = tmp_path / "my clone"
    folder.mkdir()
    shutil.copy(PROJECT / "Makefile", folder)
    done = subprocess.run(["make", "setup"], cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode
    assert "The path of the checkout must not contain spaces" in done.stderr.splitlines()[0]
    assert list(folder.iterdir()) == [folder / "Makefile"]
