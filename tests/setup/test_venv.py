"""setup/venv.sh on machines of all kinds, played by programs that only write down what they are asked."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from dml.checkout import PROJECT

# `python -m venv ... FOLDER` and `uv venv ... FOLDER` make a folder with a pip and a uv of the same kind.
PROGRAM = """#!/bin/sh
name=${0##*/}
echo "$name $*" >> "$NOTES"
for last; do :; done
case "$name $*" in
  *" -c "*) test "$VERSION" = 3.11; exit ;;
  *--version) echo "Python $VERSION"; exit ;;
  *"-m pip config list") printf '%s\n' "$CONFIG"; exit ;;
  "uv pip install"*) env | grep -E '^(UV_(DEFAULT|SYSTEM)|SSL|HTTPS)' | sort > "$NOTES.uv"
    case " $BROKEN " in *" uv "*) echo "uv: no index" >&2; exit 2 ;; esac; exit ;;
  *"-m pip install"*"/requirements.txt") exit ;;
  *"-m pip install"*) case " $BROKEN " in *" pip "*) echo "pip: hashes do not match" >&2; exit 1 ;; esac; exit ;;
  *"-m venv"*|"uv venv"*) mkdir -p "$last/bin" && cp "$0" "$last/bin/python" && cp "$0" "$last/bin/uv" ;;
esac
"""
NEEDED = ("sh", "dirname", "mkdir", "cp", "rm", "sed", "head", "env", "grep", "sort")


class Workstation:
    """A PATH with nothing on it but what is put there."""

    def __init__(self, folder: Path) -> None:
        self._bin, self._notes = folder / "bin", folder / "notes"
        self.venv = folder / "venv"
        self._bin.mkdir()
        for name in NEEDED:
            found = shutil.which(name)
            assert found
            (self._bin / name).symlink_to(found)

    def has(self, name: str) -> str:
        program = self._bin / name
        program.write_text(PROGRAM)
        program.chmod(0o755)
        return str(program)

    def set_up(self, *, version: str = "3.11", **environment: str) -> tuple[int, str, list[str]]:
        """The exit code, what is said on standard error, and what the programs were asked."""
        self._notes.write_text("")
        done = subprocess.run(
            ["sh", str(PROJECT / "setup" / "venv.sh"), str(self.venv), "lock.txt"],
            env={
                "PATH": str(self._bin),
                "NOTES": str(self._notes),
                "VERSION": version,
                "BROKEN": "",
                "CONFIG": "",
                **environment,
            },
            capture_output=True,
            text=True,
            check=False,
        )
        asked = [line for line in self._notes.read_text().splitlines() if " -c " not in line and "config" not in line]
        return done.returncode, done.stderr, asked

    @property
    def uv_was_told(self) -> list[str]:
        """Of certificates, index and proxy, in its environment."""
        return self._notes.with_suffix(".uv").read_text().splitlines()


@pytest.fixture
def workstation(tmp_path: Path) -> Workstation:
    return Workstation(tmp_path)


@pytest.mark.parametrize("name", ["python3.11", "python3"])
@pytest.mark.parametrize("given", [{}, {"PYTHON": ""}], ids=["unset", "empty"])
def test_a_python_on_the_path_should_be_taken_and_uv_install(
    workstation: Workstation, name: str, given: dict[str, str]
) -> None:
    workstation.has(name)
    code, said, asked = workstation.set_up(**given)
    assert (code, said) == (0, "")
    assert asked == [
        f"{name} -m venv --clear {workstation.venv}",
        f"python -m pip install --quiet --require-hashes -r {PROJECT / 'setup' / 'requirements.txt'}",
        f"uv pip install --quiet --python {workstation.venv / 'bin' / 'python'} --require-hashes -r lock.txt",
    ]


def test_a_python_that_is_named_should_be_taken_though_it_has_another_name(workstation: Workstation) -> None:
    workstation.has("python3")
    code, _, asked = workstation.set_up(PYTHON=workstation.has("snake"))
    assert code == 0
    assert asked[0] == f"snake -m venv --clear {workstation.venv}"


def test_a_wrong_version_should_be_told_and_nothing_be_made(workstation: Workstation) -> None:
    workstation.has("uv")  # whoever names a Python wants no other
    code, said, asked = workstation.set_up(version="3.12.1", PYTHON=workstation.has("python3.12"))
    assert code == 1
    assert said.startswith("dml needs Python 3.11; found: Python 3.12.1. Install it, or uv")
    assert "make PYTHON=/path/to/python3.11" in said
    assert asked == ["python3.12 --version"]
    assert not workstation.venv.exists()


def test_no_python_at_all_should_be_told_in_the_same_sentence(workstation: Workstation) -> None:
    code, said, _ = workstation.set_up()
    assert code == 1
    assert said.startswith("dml needs Python 3.11; found: no python3 that runs. Install it, or uv")


def test_where_there_is_no_python_3_11_uv_should_bring_one(workstation: Workstation) -> None:
    workstation.has("python3")
    workstation.has("uv")
    workstation.venv.mkdir()
    (workstation.venv / "half a set-up").touch()
    code, _, asked = workstation.set_up(version="3.9.6")
    assert code == 0
    assert asked[0] == f"uv venv --quiet --seed --python 3.11 {workstation.venv}"
    assert not (workstation.venv / "half a set-up").exists()


def test_what_uv_cannot_install_pip_should_and_it_should_be_said(workstation: Workstation) -> None:
    workstation.has("python3.11")
    code, said, asked = workstation.set_up(BROKEN="uv")
    assert code == 0
    assert said.startswith("uv: no index\nuv could not install lock.txt (above it says why); pip tries now")
    assert asked[-1] == "python -m pip install --quiet --require-hashes -r lock.txt"


def test_uv_should_be_told_what_a_pip_conf_says_but_nothing_that_it_knows_better(workstation: Workstation) -> None:
    workstation.has("python3.11")
    config = "\n".join(
        [
            "global.cert='/etc/ssl/of the company.pem'",
            "global.extra-index-url='https://more.example/simple'",
            "global.index-url='https://user:%24ecret@mirror.example/simple'",
            "install.proxy='http://proxy.example:3128'",
        ]
    )
    assert workstation.set_up(CONFIG=config)[0] == 0
    assert workstation.uv_was_told == [
        "HTTPS_PROXY=http://proxy.example:3128",
        "SSL_CERT_FILE=/etc/ssl/of the company.pem",
        "UV_DEFAULT_INDEX=https://user:%24ecret@mirror.example/simple",
        "UV_SYSTEM_CERTS=1",
    ]
    own = {"SSL_CERT_FILE": "/mine.pem", "UV_INDEX_URL": "https://mine.example", "https_proxy": "http://mine.example"}
    assert workstation.set_up(CONFIG=config, **own)[0] == 0
    assert workstation.uv_was_told == [
        "HTTPS_PROXY=http://mine.example",
        "SSL_CERT_FILE=/mine.pem",
        "UV_DEFAULT_INDEX=https://mine.example",
        "UV_SYSTEM_CERTS=1",
    ]
    assert workstation.set_up()[0] == 0
    assert workstation.uv_was_told == ["UV_SYSTEM_CERTS=1"]


def test_what_neither_can_install_should_fail(workstation: Workstation) -> None:
    workstation.has("python3.11")
    code, said, _ = workstation.set_up(BROKEN="uv pip")
    assert code == 1
    assert said.endswith("pip: hashes do not match\n")


def test_the_makefile_should_hand_the_python_on(tmp_path: Path) -> None:
    """Undefined, it is exported empty, which venv.sh takes for not given."""
    makefile = tmp_path / "Makefile"
    lines = (PROJECT / "Makefile").read_text().splitlines()
    exported = [line for line in lines if line.startswith("export PYTHON")]
    makefile.write_text("\n".join([*exported, "show:", '\t@echo "<$$PYTHON>"', ""]))
    environment = {"PATH": os.environ["PATH"]}
    for given, told in (([], "<>"), (["PYTHON=python3.11"], "<python3.11>")):
        done = subprocess.run(
            ["make", "-s", "-f", str(makefile), "show", *given],
            env=environment,
            capture_output=True,
            text=True,
            check=True,
        )
        assert done.stdout.strip() == told


def test_python_should_keep_what_it_has_compiled_below_make(tmp_path: Path) -> None:
    makefile = tmp_path / "Makefile"
    kept = [line for line in (PROJECT / "Makefile").read_text().splitlines() if line.startswith("unexport ")]
    makefile.write_text("\n".join([*kept, "show:", '\t@echo "<$$PYTHONDONTWRITEBYTECODE>"', ""]))
    done = subprocess.run(
        ["make", "-s", "-f", str(makefile), "show"],
        env={"PATH": os.environ["PATH"], "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == "<>"
