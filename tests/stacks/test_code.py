"""What ships to clusters: complete, importable, and changing without replacing the cluster."""

import json
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import aws_cdk as cdk
import pytest

from app import build
from datasets import load_dataset, prepare_sql
from jobs.tables.settings import Dataset
from stacks import code
from stacks.outputs import SHARED
from stacks.settings import load_environment
from tests.stacks.conftest import ROOT, Synth, Synthesized


def test_the_code_zip_should_give_a_job_its_settings_without_the_repository(tmp_path: Path) -> None:
    dataset = load_dataset("nyc_flights")
    code.write_library(tmp_path / "library")
    code.write_dataset(tmp_path / "library", dataset, prepare_sql(dataset.name))
    archive = shutil.make_archive(str(tmp_path / "library"), "zip", tmp_path / "library")
    script = (
        "import json, jobs, jobs.tables.settings as s;"
        "print(json.dumps([jobs.__file__, s.load('nyc_flights').to_json(), s.prepare_sql('nyc_flights')]))"
    )
    ran = subprocess.run(
        [sys.executable, "-c", script],
        env={"PYTHONPATH": archive},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    where, settings, sql = json.loads(ran.stdout)
    assert where.startswith(archive)
    assert settings == dataset.to_json()
    assert sql == prepare_sql("nyc_flights")


def test_the_code_zip_should_hold_code_and_checked_settings_only(tmp_path: Path) -> None:
    code.write_library(tmp_path / "library")
    code.write_dataset(tmp_path / "library", load_dataset("nyc_flights"), prepare_sql("nyc_flights"))
    suffixes = {path.suffix for path in (tmp_path / "library").rglob("*") if path.is_file()}
    assert suffixes == {".py", ".json", ".sql"}


def test_wheels_that_are_not_there_should_be_refused_by_name_with_the_way_out(tmp_path: Path) -> None:
    with pytest.raises(code.CodeError, match=r"Missing: .*numpy==2\.2\.6.*\. Fetch them: make setup"):
        code.check_wheels(tmp_path / "nowhere")


def test_one_missing_wheel_should_be_the_one_that_is_named(tmp_path: Path) -> None:
    for wheel in (code.WHEELS / "aarch64").glob("*.whl"):
        if not wheel.name.startswith("botocore"):
            (tmp_path / wheel.name).touch()
    with pytest.raises(code.CodeError, match=r"Missing: botocore==[0-9.]+\. Fetch"):
        code.check_wheels(tmp_path)


@pytest.mark.parametrize(("environment", "platform"), [("dev", "aarch64"), ("other", "x86_64")])
def test_the_wheels_should_be_for_the_processor_of_the_environment(
    synth: Synth, environment: str, platform: str
) -> None:
    assets = synth(environment).folder.glob("asset.*/platform")
    assert [path.read_text() for path in assets] == [f"manylinux2014_{platform}\nmanylinux_2_28_{platform}\n"]


def test_the_lock_should_hold_hashes_for_both_processors() -> None:  # and no address: tests/docs/test_machine.py
    lock = code.LOCK.read_text(encoding="utf-8")
    assert lock.count("--hash=sha256:") > lock.count("==")


def templates(folder: Path, *datasets: Dataset) -> dict[str, dict[str, Any]]:
    """What is synthesised for dev of these datasets, by stack."""
    app = cdk.App(context=json.loads((ROOT / "cdk.json").read_text())["context"], outdir=str(folder))
    build(app, load_environment("dev"), datasets)
    return {stack.stack_name.removeprefix("dml-dev-"): stack.template for stack in app.synth().stacks}


@pytest.mark.cdk
def test_a_dataset_should_come_and_change_without_any_other_stack(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flights, penguins = load_dataset("nyc_flights"), load_dataset("penguins")
    none, one, both = (
        templates(tmp_path / str(number), *made) for number, made in enumerate(([], [flights], [flights, penguins]))
    )
    assert none.keys() == set(SHARED)
    assert one.keys() == {*SHARED, "nyc-flights"}
    assert {name: one[name] for name in none} == none
    assert both.keys() - one.keys() == {"penguins"}
    assert {name: both[name] for name in one} == one

    root = tmp_path / "root"  # a note of one of them has changed
    shutil.copytree(code.ROOT / "notebooks", root / "notebooks")
    (root / "notebooks" / "nyc_flights" / "new.md").write_text("# New\n\nHello.\n", encoding="utf-8")
    for folder in ("jobs", "cluster"):
        (root / folder).symlink_to(code.ROOT / folder)
    monkeypatch.setattr(code, "ROOT", root)
    changed = templates(tmp_path / "changed", replace(flights, title="Other flights"), penguins)
    assert {name for name in both if changed[name] != both[name]} == {"nyc-flights"}


def test_the_bootstrap_arguments_should_hold_no_hash(dev: Synthesized) -> None:
    actions = dev.only("workbench", "AWS::EMR::Cluster")["BootstrapActions"]
    assert [action["Name"] for action in actions] == ["dml", "zeppelin"]
    for action in actions:
        assert action["ScriptBootstrapAction"]["Args"] == ["/dml/dev/cluster", {"Ref": "AWS::Region"}]


def test_a_note_should_ship_as_zeppelin_reads_it(tmp_path: Path) -> None:
    notes = [*(code.ROOT / "notebooks").glob("*.md"), *(code.ROOT / "notebooks" / "nyc_flights").glob("*.md")]
    code.write_notes(tmp_path, load_environment("dev"), load_dataset("nyc_flights"))
    assert len(list(tmp_path.glob("notes/nyc_flights/*.zpln"))) == len(notes)


def test_columns_should_reach_the_jobs_in_the_order_of_the_file(tmp_path: Path) -> None:
    # The files of census_income have no header: the order is all that names their columns.
    dataset = load_dataset("census_income")
    code.write_dataset(tmp_path, dataset, prepare_sql(dataset.name))
    shipped = json.loads((tmp_path / "datasets" / "census_income" / "dataset.json").read_text(encoding="utf-8"))
    assert list(shipped["tables"]["people"]["columns"]) == list(dataset.tables["people"].columns)
