"""What is committed says nothing of the machine that it was made on, nor where packages come from."""

import re
from pathlib import Path

import pytest

from tests.docs.tree import ROOT, files, text

# Folders in which a checkout, a home or scratch files lie. Nodes of EMR have a home, too, and that one is meant.
OF_A_MACHINE = re.compile(
    r"(?<![\w.}/-])/(?:work|root|Users|tmp|var/folders|opt/wheels|home/(?!hadoop\b)\w+)(?![\w.-])[\w./-]*"
)
ON_NODES = "/opt/dml"  # where cluster/bootstrap.sh puts our Python and code
REGISTRIES = re.compile(
    r"\b(?:" + "|".join(("py" + r"pi\.org", "python" + "hosted", "npm" + r"js\.(?:org|com)")) + r")\b"
)


def locks() -> list[str]:
    return [path for path in files() if path.endswith(("requirements.txt", "requirements.in", "package-lock.json"))]


def test_no_file_should_name_a_folder_of_the_machine_that_made_it() -> None:
    assert [(file, path) for file in files() for path in OF_A_MACHINE.findall(text(file))] == []


def test_no_file_should_name_the_place_of_this_checkout_or_this_home() -> None:
    here = [re.escape(f"{place}/") for place in (ROOT, Path.home()) if len(place.parts) > 1 and str(place) != ON_NODES]
    assert [file for file in files() for place in here if re.search(rf"(?<![\w.-]){place}", text(file))] == []


@pytest.mark.parametrize("before", ["", "'", "=", "(", "-r "])
@pytest.mark.parametrize(
    "path", ["root/x", "tmp/scratch", "work/dml", "home/me/dml", "Users/me", "opt/wheels/x", "root"]
)
def test_a_folder_of_a_machine_should_be_seen_as_one(before: str, path: str) -> None:
    assert OF_A_MACHINE.search(f"{before}/{path}")


@pytest.mark.parametrize(
    "path", ["s3://b/tmp/x", "/home/hadoop/x", "/opt/dml/python", "$work/code", "a/work/b", "/works"]
)
def test_a_folder_of_nodes_buckets_and_our_own_should_not_be_taken_for_one(path: str) -> None:
    assert not OF_A_MACHINE.search(path)


def test_a_lock_should_say_what_to_install_and_never_where_from() -> None:
    for lock in locks():
        assert "://" not in text(lock), lock
        options = re.findall(r"^\s*(-{1,2}[a-z][\w-]*)", text(lock), re.MULTILINE)
        assert set(options) <= {"--hash", "-c"}, lock
        assert '"resolved"' not in text(lock), lock
    assert len(locks()) == 11


def test_every_package_of_a_lock_should_have_a_hash() -> None:
    for lock in locks():
        if lock.endswith(".txt"):
            packages = re.split(r"^(?=[a-z0-9])", text(lock), flags=re.MULTILINE)[1:]
            assert packages, lock
            assert [package for package in packages if "--hash=sha256:" not in package] == [], lock


def test_no_file_should_name_the_host_of_a_registry() -> None:
    assert [file for file in files() if REGISTRIES.search(text(file))] == []
