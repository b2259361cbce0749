"""Command blocks of the documents: each command is run by a test, here as it is written, or it is said why not."""

import ast
import os
import re
import shlex
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

import datasets
from dml import checkout
from dml.checkout import PROJECT
from dml.local import here
from dml.local.cloud import Cloud
from stacks import settings
from stacks.settings import SettingsError, load_environment
from tests.command import run_dml
from tests.docs.documents import BLOCK, DOCUMENTS

PROGRAMS = re.compile(r"([A-Z]+=\$\()?(aws|cd|curl|dml|docker|eval|export|git|make|np[mx]|pip|python3?|source|uv) ")
WHOLE_WAY = "tests/e2e/test_whole_way.py::test_a_first_run_should_publish_a_model_better_than_the_base_rate"
OWN_DATA = "tests/e2e/test_whole_way.py::test_a_scaffolded_dataset_should_go_the_whole_way_unchanged"
REMOVE = "tests/e2e/test_failures.py::test_a_dataset_should_be_taken_away_alone_and_its_data_only_if_asked"
BY_CDK = "tests/local/test_deploy.py::test_an_app_should_be_deployed_once_and_a_failure_be_told_in_the_clis_words"
NEW = "tests/docs/test_blocks.py::test_files_of_ones_own_should_become_a_dataset_as_the_documents_say"
SEVERAL = "tests/docs/test_blocks.py::test_several_files_should_become_one_table_as_the_documents_say"
CALLS = "tests/docs/test_blocks.py::test_calls_should_be_shown_as_the_documents_say"
NOTES = "tests/e2e/test_whole_way.py::test_the_notes_should_be_where_zeppelin_looks_and_come_to_files_and_back"
A_TUNNEL = "no: it takes AWS, a workbench and Session Manager; docs/first-deploy.md says to look at it"
A_RELEASE = "no: it takes a release of Zeppelin; tests/dml/test_zeppelin_here.py has all that surrounds it"
A_CHECK = "no: it takes AWS and a workbench; tests/local/test_emr.py runs its step, docs/first-deploy.md says the rest"

# Of each command who runs it, as it stands or at least with the same words; "no: " and why it is run by no test.
RUN_BY = {
    "make run": WHOLE_WAY,  # test_make_run_should_be_the_command_that_is_tested
    "make check": "no: it is this, and what CI does",
    "make test": "no: it is this, and what CI does",
    "make lint": "no: it looks at code and templates, and CI does it",
    "make yarn": "no: it fetches 44 MB; tests/local/test_yarn.py has how it fails",
    "make test-zeppelin ZEPPELIN_HOME=PATH": A_RELEASE,
    "dml dataset new taxis trips.csv zones.csv --label tip": NEW,
    "dml dataset new churn customers.csv plans.csv --label churned": NEW,
    "dml dataset new bikes bikes_Jan.csv bikes_Feb.csv --label bikers": SEVERAL,
    "dml dataset new sales data/sales --label sold": SEVERAL,
    "dml dataset check taxis": OWN_DATA,
    "dml dataset check churn": OWN_DATA,
    "dml run taxis --local": OWN_DATA,
    "dml run churn --local": OWN_DATA,
    "dml predict rows.csv --dataset taxis --local": (
        "tests/e2e/test_whole_way.py::test_the_plain_scorer_should_say_what_spark_has_said"
    ),
    "source .venv/bin/activate": "tests/docs/test_blocks.py::test_the_environment_should_bring_the_command_along",
    "dml doctor": "tests/dml/test_doctor.py::test_the_checkout_should_be_fit_to_deploy",
    "dml smoke": "tests/dml/test_smoke.py::test_all_that_publishing_hangs_on_should_be_as_expected",
    "dml cost": "tests/dml/test_cost.py::test_dml_cost_should_end_with_1_if_a_price_is_missing",
    "npx cdk bootstrap": BY_CDK,
    "npx cdk deploy --all": BY_CDK,
    "dml data push nyc_flights": "no: it wants an account of AWS; `dml run --local` pushes, too",
    "dml run nyc_flights": WHOLE_WAY,
    "dml zeppelin": A_TUNNEL,
    "dml zeppelin check": A_CHECK,
    'dml zeppelin check penguins --note "2 Explore"': A_CHECK,
    "dml zeppelin notes pull": NOTES,
    "dml zeppelin notes diff": NOTES,
    "dml zeppelin notes push": NOTES,
    "dml zeppelin notes export": NOTES,
    "npx cdk synth -c env=dev": "tests/docs/test_blocks.py::test_a_refused_setting_should_be_told_as_the_documents_say",
    "dml dataset remove taxis --env prod": REMOVE,
    "dml dataset remove taxis --env prod --data": REMOVE,
    "dml local calls": CALLS,
    "dml local calls --denied": CALLS,
    "dml local calls --unused": CALLS,
}


def commands(block: str) -> Iterator[str]:
    """What of a block is to be typed: lines behind `$ ` if it has such, else all lines if the first is a command."""
    lines = [line for line in block.replace("\\\n", " ").splitlines() if line.strip()]
    typed = [line.removeprefix("$ ") for line in lines if line.startswith("$ ")]
    if not typed and lines and PROGRAMS.match(lines[0]):
        typed = lines
    for line in typed:
        yield re.sub(r"\s+", " ", re.sub(r"\s+#.*", "", line)).strip()


def of_documents() -> list[tuple[str, str]]:
    """(document, command) of each block."""
    found = [(file.name, block) for file in DOCUMENTS for block in BLOCK.findall(file.read_text(encoding="utf-8"))]
    return [(name, command) for name, block in found for command in commands(block)]


def test_each_command_should_be_run_by_a_test_or_say_why_not() -> None:
    assert {command for _, command in of_documents()} == set(RUN_BY)


@pytest.mark.parametrize("command", [command for command, by in RUN_BY.items() if not by.startswith("no: ")])
def test_whoever_is_said_to_run_a_command_should_be_there_and_have_its_words(command: str) -> None:
    file, _, name = RUN_BY[command].partition("::")
    tree = ast.parse((PROJECT / file).read_text(encoding="utf-8"))
    found = next((node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name == name), None)
    assert found is not None, RUN_BY[command]
    if command.startswith("dml ") and file != "tests/docs/test_blocks.py":  # there it is run as it stands
        said = {node.value for node in ast.walk(found) if isinstance(node, ast.Constant)}
        words = re.findall(r"(?<= )(?:--data|[a-z]+)(?= |$)", command)
        assert set(words[: 2 if words[0] in ("dataset", "local") else 1]) <= said


@pytest.mark.parametrize("command", [command for command, by in RUN_BY.items() if by == NEW])
def test_files_of_ones_own_should_become_a_dataset_as_the_documents_say(
    command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    _, _, _, name, rows, others, _, label = shlex.split(command)
    other = others.removesuffix("s.csv")
    monkeypatch.setattr(datasets, "HOME", tmp_path / "datasets")
    monkeypatch.chdir(tmp_path)
    lines = [f"n{i},{i % 7},{'abc'[i % 3]},{'yes' if i % 4 else 'no'}" for i in range(80)]
    (tmp_path / rows).write_text("\n".join([f"number,hours,{other},{label}", *lines]) + "\n")
    (tmp_path / others).write_text(f"{other},size\na,1\nb,2\nc,3\n")
    code, _, err = run_dml(monkeypatch, capsys, *shlex.split(command)[1:])
    assert code == 0, err
    assert f"{rows}: 80 rows" in err
    assert (f"dml dataset check {name}" in err, f"dml run {name} --local" in err) == (True, True)
    made = datasets.load_dataset(name)
    assert (made.label.column, made.keys, len(made.tables)) == (label, ("number",), 2)


@pytest.mark.parametrize("command", [command for command, by in RUN_BY.items() if by == SEVERAL])
def test_several_files_should_become_one_table_as_the_documents_say(
    command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    _, _, _, name, *given, _, label = shlex.split(command)
    monkeypatch.setattr(datasets, "HOME", tmp_path / "datasets")
    monkeypatch.chdir(tmp_path)
    files = given if len(given) > 1 else [f"{given[0]}/year=2024/month=0{month}/part.csv" for month in (1, 2)]
    for number, file in enumerate(files):
        Path(file).parent.mkdir(parents=True, exist_ok=True)
        lines = [f"n{number}{i},{i % 7},{'yes' if i % 4 else 'no'}" for i in range(40)]
        Path(file).write_text("\n".join([f"number,hours,{label}", *lines]) + "\n")
    code, _, err = run_dml(monkeypatch, capsys, *shlex.split(command)[1:])
    assert code == 0, err
    made = datasets.load_dataset(name)
    assert (f"{name}: 2 files" in err, list(made.tables), made.keys) == (True, [name], ("number",))
    assert made.tables[name].partitions == (() if len(given) > 1 else ("year", "month"))


@pytest.mark.parametrize("command", [command for command, by in RUN_BY.items() if by == CALLS])
def test_calls_should_be_shown_as_the_documents_say(
    command: str, cloud: Cloud, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(checkout, "HOME", cloud.place.home)
    monkeypatch.setattr(here, "cloud", lambda: cloud)
    code, _, err = run_dml(monkeypatch, capsys, *shlex.split(command)[1:])
    assert code == 0, err


def test_the_environment_should_bring_the_command_along() -> None:
    activate = next(command for _, command in of_documents() if command.startswith("source "))
    if not (PROJECT / activate.split()[1]).is_file():
        pytest.skip("the tests run in an environment of another place")
    done = subprocess.run(
        ["bash", "-c", f"{activate} && command -v dml"],  # of README.md
        cwd=PROJECT,
        env={"PATH": os.defpath},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.stdout.strip(), done.returncode) == (str(PROJECT / ".venv" / "bin" / "dml"), 0)


def test_a_refused_setting_should_be_told_as_the_documents_say(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = (settings.HOME / "dev.toml").read_text(encoding="utf-8")
    (tmp_path / "dev.toml").write_text(text.replace("spot_nodes = 0", "spot_nodes = 1"), encoding="utf-8")
    monkeypatch.setattr(settings, "HOME", tmp_path)
    with pytest.raises(SettingsError) as refused:
        load_environment("dev")
    operations = (PROJECT / "docs" / "operations.md").read_text(encoding="utf-8")
    assert f"$ npx cdk synth -c env=dev\n{refused.value}\n" in operations


def test_make_run_should_be_the_command_that_is_tested() -> None:
    makefile = (PROJECT / "Makefile").read_text(encoding="utf-8")
    assert re.search(r"^run:.*\n\t@\$\(BIN\)/dml run nyc_flights --local\n", makefile, re.MULTILINE)


def test_a_block_that_is_no_command_should_be_told_from_one_that_is() -> None:
    assert list(commands("$ make run\n✓ deploy\n")) == ["make run"]
    assert list(commands("dml cost   # what\nnpx cdk deploy \\\n  --all\n")) == ["dml cost", "npx cdk deploy --all"]
    assert list(commands("│ bench\n│ dml    of ours\n")) == []
