"""Where a checkout may lie, and a HOME."""

import os
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


def test_a_home_that_cannot_be_written_to_should_move_caches_into_the_checkout(tmp_path: Path) -> None:
    shutil.copy(PROJECT / "Makefile", tmp_path)
    (tmp_path / "show.mk").write_text(
        "show:\n\t@echo $$PIP_CACHE_DIR $$UV_CACHE_DIR $$npm_config_cache $$JSII_RUNTIME_PACKAGE_CACHE_ROOT\n"
    )
    own = ("_cache_dir", "_cache", "makeflags", "makelevel")  # the last two are there if this is run by make
    given = {name: value for name, value in os.environ.items() if not name.lower().endswith(own)}
    given.pop("JSII_RUNTIME_PACKAGE_CACHE_ROOT", None)

    def caches(home: Path) -> list[str]:
        done = subprocess.run(
            ["make", "-f", "Makefile", "-f", "show.mk", "show"],
            cwd=tmp_path,
            env={**given, "HOME": str(home)},
            capture_output=True,
            text=True,
            check=True,
        )
        return done.stdout.split()

    assert caches(tmp_path) == []
    places = [f"{tmp_path}/.dml/{name}" for name in ("cache/pip", "cache/uv", "cache/npm", "jsii")]
    assert caches(tmp_path / "nowhere") == places
