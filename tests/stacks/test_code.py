"""What ships to clusters: complete, importable, and changing without replacing the cluster."""

import json
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import aws_cdk as cdk
import pytest

from datasets import load_dataset, prepare_sql
from stacks import code
from stacks.cluster import ClusterStack
from stacks.data import DataStack
from stacks.network import NetworkStack
from stacks.observability import ObservabilityStack
from stacks.settings import load_environment
from tests.stacks.conftest import ROOT, Synth, Synthesized


def test_the_code_zip_should_give_a_job_its_settings_without_the_repository(tmp_path: Path) -> None:
    dataset = load_dataset("nyc_flights")
    code.write_library(tmp_path / "library", [dataset])
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
    code.write_library(tmp_path / "library", [load_dataset("nyc_flights")])
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
    assert [path.read_text() for path in assets] == [f"manylinux2014_{platform}\n"]


def test_the_lock_should_hold_hashes_for_both_processors() -> None:  # and no address: tests/docs/test_machine.py
    lock = code.LOCK.read_text(encoding="utf-8")
    assert lock.count("--hash=sha256:") > lock.count("==")


def bootstrap_actions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, note: str) -> tuple[object, set[str]]:
    """The workbench's bootstrap actions, and what starting nodes would read, when the notes are this one."""
    root = tmp_path / note
    (root / "notebooks").mkdir(parents=True)
    (root / "notebooks" / "note.md").write_text(f"# {note}\n\nHello.\n", encoding="utf-8")
    for folder in ("jobs", "cluster"):
        (root / folder).symlink_to(code.ROOT / folder)
    monkeypatch.setattr(code, "ROOT", root)
    environment, datasets = load_environment("dev"), [load_dataset("nyc_flights")]
    app = cdk.App(context=json.loads((ROOT / "cdk.json").read_text())["context"])
    data = DataStack(app, "data", environment=environment, datasets=datasets)
    observability = ObservabilityStack(app, "observability", environment=environment, datasets=datasets, data=data)
    ClusterStack(
        app,
        "cluster",
        environment=environment,
        datasets=datasets,
        network=NetworkStack(app, "network", environment=environment, data=data),
        data=data,
        topic=observability.topic,
    )
    template = app.synth().get_stack_by_name("cluster").template
    resources = template["Resources"].values()
    (cluster,) = (each["Properties"] for each in resources if each["Type"] == "AWS::EMR::Cluster")
    values = {json.dumps(each["Properties"]["Value"]) for each in resources if each["Type"] == "AWS::SSM::Parameter"}
    return cluster["BootstrapActions"], values


@pytest.mark.cdk
def test_new_notes_should_reach_the_nodes_without_replacing_the_cluster(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as first:
        before, read_before = bootstrap_actions(tmp_path, first, "one")
    with monkeypatch.context() as second:
        after, read_after = bootstrap_actions(tmp_path, second, "two")
    assert before == after
    assert len(read_before ^ read_after) == 2  # one parameter's value before, and after


def test_the_bootstrap_arguments_should_hold_no_hash(dev: Synthesized) -> None:
    (action,) = dev.only("cluster", "AWS::EMR::Cluster")["BootstrapActions"]
    assert action["ScriptBootstrapAction"]["Args"] == ["/dml/dev/cluster", {"Ref": "AWS::Region"}]


def test_a_note_should_ship_as_zeppelin_reads_it(tmp_path: Path) -> None:
    notes = [*(code.ROOT / "notebooks").glob("*.md"), *(code.ROOT / "notebooks" / "nyc_flights").glob("*.md")]
    code.write_notes(tmp_path, load_environment("dev"), [load_dataset("nyc_flights")])
    assert len(list(tmp_path.rglob("*.zpln"))) == len(notes)
    archive = shutil.make_archive(str(tmp_path / "notes"), "zip", tmp_path)
    assert zipfile.ZipFile(archive).namelist()  # never an empty zip, which cannot be unpacked


def test_columns_should_reach_the_jobs_in_the_order_of_the_file(tmp_path: Path) -> None:
    # The files of census_income have no header: the order is all that names their columns.
    dataset = load_dataset("census_income")
    code.write_library(tmp_path, [dataset])
    shipped = json.loads((tmp_path / "datasets" / "census_income" / "dataset.json").read_text(encoding="utf-8"))
    assert list(shipped["tables"]["people"]["columns"]) == list(dataset.tables["people"].columns)
