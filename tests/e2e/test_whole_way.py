"""The whole way on a sample of real flights: a real deploy to the embedded cloud, real jobs, and what can go wrong."""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from datasets import dataset_names, load_dataset, raw_files
from dml import checkout
from dml.checkout import PROJECT
from dml.estate import data
from dml.estate.platform import Platform
from dml.local.cloud import Cloud
from dml.local.processes import command_lines, working_below
from dml.runs.commands import GATE_REFUSED
from jobs.tables.settings import Dataset
from stacks.outputs import Output, database_output
from tests.command import run_dml
from tests.e2e.permissions import Calls, Roles, reasons, since
from tests.e2e.published import parquet

DATASET = "nyc_flights"
BROKEN = [
    "2013,1,1,oops",  # too few fields
    "2013,1,1,517,515,2,830,819,late,UA,1545,N14228,EWR,IAH,227,1400,5,15,2013-01-01T10:00:00Z",  # a delay in words
]

Dml = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def sample(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Raw files as `dml data push` finds them: one flight in eight of 2013, two of them broken."""
    folder = tmp_path_factory.mktemp("raw")
    found = raw_files(load_dataset(DATASET), folder)
    files = {table: file for table, of_table in found.items() for file in of_table.values()}
    lines = files["flights"].read_text(encoding="utf-8").splitlines()
    flights = folder / "flights.csv"
    flights.write_text("\n".join([lines[0], *lines[1::8], *BROKEN]) + "\n", encoding="utf-8")
    return files | {"flights": flights}


@pytest.fixture(scope="module")
def dml(cloud: Cloud, sample: dict[str, Path]) -> Iterator[Dml]:
    """The command itself, in this process, on the test session's embedded cloud. Returns exit code, stdout, stderr."""

    def files(of: Dataset, cache: Path) -> dict[str, dict[str, Path]]:
        if of.name != DATASET:
            return raw_files(of, cache)
        return {table: {file.name: file} for table, file in sample.items()}

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(checkout, "HOME", cloud.place.home)
        patch.setattr(data, "raw_files", files)
        patch.setenv("COLUMNS", "250")
        yield partial(run_dml, patch)


@pytest.fixture(scope="module")
def platform(cloud: Cloud) -> Platform:
    return Platform("dev", credentials=cloud.environment())


@pytest.fixture(scope="module", autouse=True)
def calls_before(cloud: Cloud) -> Calls:
    """The calls on record before the first test here: others of the session may have been denied on purpose."""
    return cloud.calls()["calls"]


@pytest.fixture
def roles(platform: Platform) -> Roles:
    return Roles(platform.client("cloudformation"), "dml-dev-", dataset_names())


def published(platform: Platform) -> dict[str, Any]:
    """What readers see: the current model, and where the published tables lie."""
    glue, database = platform.client("glue"), platform.output(database_output(DATASET))
    tables = {table["Name"]: table for table in glue.get_tables(DatabaseName=database)["TableList"]}
    locations = {
        name: tables[name]["StorageDescriptor"]["Location"] for name in ("features", "predictions") if name in tables
    }
    return locations | {"current": platform.json_object(Output.MODELS_BUCKET, f"{DATASET}/CURRENT.json")}


def every_cluster(platform: Platform) -> dict[str, str]:
    """The state of each cluster that has ever been, by its id."""
    return {one["Id"]: one["Status"]["State"] for one in platform.client("emr").list_clusters()["Clusters"]}


def test_a_first_run_should_publish_a_model_better_than_the_base_rate(
    dml: Dml, platform: Platform, capsys: pytest.CaptureFixture[str], sample: dict[str, Path]
) -> None:
    code, out, err = dml(capsys, "run", "--local", "--json")
    assert code == 0, err
    told = json.loads(out)
    assert told["dataset"] == DATASET
    assert told["state"] == "SUCCEEDED"

    rows = told["rows"]
    assert rows["in"] == len(sample["flights"].read_text(encoding="utf-8").splitlines()) - 1
    assert rows["quarantined"] == len(BROKEN)
    assert rows["out"] + sum(rows["left_out"].values()) == rows["in"] - len(BROKEN)
    assert rows["predicted"] == rows["out"]

    assert told["metrics"]["test"]["log_loss"] < told["metrics"]["baseline"]["log_loss"]
    assert 0.60 < told["metrics"]["test"]["auc"] < 0.85
    assert told["metrics"]["out_of_time"]["log_loss"] < told["metrics"]["out_of_time_baseline"]["log_loss"]
    assert {"deploy", "crawl", "prepare", "train", "predict", "total"} <= told["seconds"].keys()

    now = published(platform)
    assert now["current"]["run_id"] == told["run_id"]
    assert now["features"] == told["uris"]["features"]
    assert now["predictions"] == told["uris"]["predictions"]
    assert Path(told["report"]).read_text(encoding="utf-8").lower().startswith("<!doctype html>")


def test_a_run_should_leave_all_that_the_registry_promises(platform: Platform) -> None:
    run = published(platform)["current"]["run_id"]
    bucket, prefix = platform.output(Output.MODELS_BUCKET), f"{DATASET}/{run}/"
    keys = [entry["Key"] for entry in platform.s3.list_objects_v2(Bucket=bucket, Prefix=prefix)["Contents"]]
    left = {key.removeprefix(prefix).partition("/")[0] for key in keys}
    manifest = platform.json_object(Output.MODELS_BUCKET, f"{prefix}manifest.json")
    assert manifest is not None
    assert {name.rstrip("/") for name in manifest["files"]} | {"manifest.json"} == left
    assert left >= {"model", "tree.json", "tree.sql", "profile.json", "model-card.md", "gate.json"}
    assert left >= {"metrics.json", "figures.json"}
    told = platform.json_object(Output.LAKE_BUCKET, f"{DATASET}/runs/{run}/progress.json")
    assert told is not None
    assert (told["stage"], told["doing"] != "") == ("predict", True)  # by each job in its turn, under its own role


def test_the_plain_scorer_should_say_what_spark_has_said(
    dml: Dml, platform: Platform, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    features, predictions = (
        parquet(platform, published(platform)[name], tmp_path) for name in ("features", "predictions")
    )
    table, keys = tmp_path / "features.csv", ["flight_date", "carrier", "flight", "origin"]
    features.to_csv(table, index=False)
    code, _, err = dml(capsys, "predict", str(table), "--local", "-o", str(tmp_path / "scored.csv"))
    assert code == 0, err
    scored = pd.read_csv(tmp_path / "scored.csv").set_index(keys)
    expected = predictions.astype({"flight_date": str}).set_index(keys)
    assert len(scored) == len(expected)
    assert (scored["probability"] - expected["probability"].reindex(scored.index)).abs().max() < 1e-12


def test_a_raw_file_that_cannot_be_scored_as_the_run_did_should_be_refused(
    dml: Dml, capsys: pytest.CaptureFixture[str], tmp_path: Path, sample: dict[str, Path]
) -> None:
    """Where it can, it is scored to the last bit: test_failures.py and apart/test_prod.py."""
    scored = tmp_path / "flights.csv"
    code, _, err = dml(capsys, "predict", str(sample["flights"]), "--dataset", DATASET, "--local", "-o", str(scored))
    assert (code, scored.exists()) == (1, False)  # its query joins
    assert "cannot be scored as a run would, row by row" in err


def test_quarantined_rows_should_name_file_and_reason(platform: Platform) -> None:
    run = published(platform)["current"]["run_id"]
    bucket, prefix = platform.output(Output.LAKE_BUCKET), f"{DATASET}/quarantine/{run}/flights/"
    listed = platform.s3.list_objects_v2(Bucket=bucket, Prefix=prefix)["Contents"]
    lines = [
        json.loads(line)
        for entry in listed
        for line in platform.s3.get_object(Bucket=bucket, Key=entry["Key"])["Body"].read().splitlines()
    ]
    assert sorted(line["record"] for line in lines) == sorted(BROKEN)
    assert all(line["file"].endswith("/flights/flights.csv") for line in lines)
    assert any("arr_delay" in line["reason"] and "late" in line["reason"] for line in lines)


def test_the_notes_should_be_where_zeppelin_looks_and_come_to_files_and_back(
    dml: Dml, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    code, out, err = dml(capsys, "zeppelin", "notes", "list", "--json", "--local")
    assert code == 0, err
    told = json.loads(out)["notes"]
    assert {f"{DATASET}/1 Start here", f"{DATASET}/6 Predict"} <= {one["note"].partition("_2")[0] for one in told}
    assert {one["state"] for one in told} == {"as deployed"}
    code, out, err = dml(capsys, "zeppelin", "notes", "pull", "--folder", str(tmp_path), "--local")
    assert (code, out.count("new: ")) == (0, len(told)), err
    file = next(tmp_path.rglob("*.md"))
    file.write_text(file.read_text(encoding="utf-8").replace("\n\n", "\n\nOnce more. ", 1), encoding="utf-8")
    code, out, err = dml(capsys, "zeppelin", "notes", "diff", "--folder", str(tmp_path), "--local")
    assert (code, "+Once more. " in out) == (0, True), err
    code, out, err = dml(capsys, "zeppelin", "notes", "push", "--folder", str(tmp_path), "--local")
    assert (code, f"updated: {file}" in out) == (0, True), err
    code, out, err = dml(capsys, "zeppelin", "notes", "list", "--json", "--local")
    assert [one["state"] for one in json.loads(out)["notes"]].count("edited or run") == 1
    code, out, err = dml(capsys, "zeppelin", "notes", "export", "--folder", str(tmp_path), "--local")
    assert (code, out.count("new: "), len([*tmp_path.rglob("*.ipynb")])) == (0, len(told), len(told)), err
    monkeypatch.delenv("ZEPPELIN_HOME", raising=False)
    code, _, err = dml(capsys, "zeppelin", "--local")
    assert (code, "ZEPPELIN_HOME" in err) == (1, True), "it takes a release"


def test_the_gate_should_keep_the_current_model_when_there_is_nothing_to_learn(
    dml: Dml, platform: Platform, capsys: pytest.CaptureFixture[str], sample: dict[str, Path]
) -> None:
    """And without a workbench the cluster that the run has started ends with it."""
    before, clusters = published(platform), every_cluster(platform)
    shuffled = replaced_delays(sample, lambda delays: delays.sample(frac=1, random_state=0).set_axis(delays.index))
    ssm, parameter = platform.client("ssm"), platform.output(Output.WORKBENCH_PARAMETER)
    workbench = ssm.get_parameter(Name=parameter)["Parameter"]["Value"]
    ssm.put_parameter(Name=parameter, Value="none", Overwrite=True)
    try:
        with shuffled:
            code, out, err = dml(capsys, "run", "--local", "--json")
    finally:
        ssm.put_parameter(Name=parameter, Value=workbench, Overwrite=True)
    assert code == GATE_REFUSED, err
    assert json.loads(out)["published"] is False
    after = published(platform)
    assert (after["current"], after["predictions"]) == (before["current"], before["predictions"])
    after_it = every_cluster(platform)
    assert [after_it[one] for one in after_it.keys() - clusters.keys()] == ["TERMINATED"]


def test_no_call_of_these_runs_should_have_been_denied(
    dml: Dml, roles: Roles, calls_before: Calls, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, err = dml(capsys, "local", "calls", "--json")
    assert code == 0, err
    denied = roles.denied(since(calls_before, json.loads(out)["calls"]))
    assert denied == [], json.dumps(denied, indent=1)
    _, out, _ = dml(capsys, "local", "calls", "--unused")
    assert "cluster/SessionManager" in out.replace("\n", "")


def test_each_statement_of_a_role_should_be_needed_or_have_a_reason_to_stay(
    cloud: Cloud, roles: Roles, calls_before: Calls
) -> None:
    told, table = cloud.calls(), reasons()
    unused = roles.unused(told)
    why = {one: [reason.why for reason in table if reason.covers(one)] for one in sorted(unused)}
    report = "".join(f"{one}\n    {' '.join(said) or 'NO REASON'}\n" for one, said in why.items())
    (cloud.place.home / "unused-permissions.txt").write_text(report, encoding="utf-8")
    print(f"Statements that no call needed:\n{report}")
    unexplained = [str(one) for one, said in why.items() if not said]
    assert unexplained == [], "no call needs these, and unused.toml has no reason why they stay"
    needed = roles.allowed(since(calls_before, told["calls"]))
    wrong = [str(one) for one in needed for reason in table if reason.covers(one) and "*" not in reason.statement]
    assert wrong == [], "calls need these: unused.toml says that none does"
    there = unused | roles.allowed(told["calls"])  # other tests' runs on this cloud may have needed some
    gone = [reason for reason in table if not any(map(reason.covers, there))]
    assert gone == [], "unused.toml explains statements that no role has"


def test_a_missing_permission_should_fail_the_run_in_aws_words_and_change_nothing(
    dml: Dml, platform: Platform, capsys: pytest.CaptureFixture[str]
) -> None:
    (job,) = (
        job
        for job in platform.client("glue").get_jobs()["Jobs"]
        if job["DefaultArguments"]["--database"] == platform.output(database_output(DATASET))
    )
    before = published(platform)
    with without(platform, role=job["Role"].rpartition("/")[2], action="glue:GetTable"):
        code, _, err = dml(capsys, "run", "--local")
    assert code == 1
    assert "prepare: " in err
    assert "is not authorized to perform: glue:GetTable on resource: arn:aws:glue:" in err
    assert job["Role"].rpartition("/")[2] in err
    assert "Traceback" not in err
    assert published(platform) == before


def test_an_interrupt_should_leave_no_process_and_keep_what_stands(
    cloud: Cloud, platform: Platform, capsys: pytest.CaptureFixture[str], dml: Dml
) -> None:
    before = published(platform)
    home = cloud.place.home
    # A shell starts background work with interrupts ignored, and a child inherits that: here it is as at a terminal.
    command = (
        "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); "
        f"from pathlib import Path; from dml import checkout, cli; checkout.HOME = Path({str(home)!r}); cli.main()"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", command, "predict", "--local"], stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    try:
        wait_until(lambda: any("spark" in line for line in processes_in(home)), "Spark runs")
        os.kill(process.pid, signal.SIGINT)
        _, err = process.communicate(timeout=60)
        assert process.returncode == 130, err
        assert processes_in(home) == []
    finally:
        process.kill()
        cloud.up()
    assert published(platform) == before
    code, out, _ = dml(capsys, "status", "--local")
    assert code == 0
    assert before["current"]["run_id"] in out


@pytest.fixture
def own_checkout(cloud: Cloud, tmp_path: Path) -> Iterator[Path]:
    """Another checkout beside this one, on the same packages, whose dml uses the session's embedded cloud."""
    project = tmp_path / "checkout"
    shutil.copytree(PROJECT, project, ignore=shutil.ignore_patterns(".*", "node_modules", "cdk.out", "__pycache__"))
    (project / "node_modules").symlink_to(PROJECT / "node_modules")
    (project / ".dml").mkdir()
    (project / ".dml" / "wheels").symlink_to(PROJECT / ".dml" / "wheels")
    templates = cloud.place.home / "cdk.out"  # of this checkout, which all clouds of the session share
    shared = templates.readlink()
    templates.unlink()
    yield project
    shutil.rmtree(templates)
    templates.symlink_to(shared)


@pytest.fixture
def orders(tmp_path: Path) -> Path:
    """Somebody's own CSV files, in a folder for each country."""
    lines, chance = dict[str, list[str]](), random.Random(3)  # noqa: S311
    for i in range(800):
        amount, country = i * 37 % 500 + 0.5, ("Chile", "Perú", "M%C3%A9xico")[i % 3]
        late = (amount > 300 or country == "Chile") != (chance.random() < 0.15)
        lines.setdefault(country, []).append(f"A-{i:04},{amount},{'yes' if late else 'no'}")
    for country, rows in lines.items():
        file = tmp_path / "orders" / f"Country={country}" / "part.csv"
        file.parent.mkdir(parents=True)
        file.write_text("\n".join(["order id,amount,paid late", *rows]) + "\n", encoding="utf-8")
    return tmp_path / "orders"


# The last one: the next deployment takes the dataset away again, with new code and so new policies.
def test_a_scaffolded_dataset_should_go_the_whole_way_unchanged(
    cloud: Cloud, platform: Platform, own_checkout: Path, orders: Path, tmp_path: Path
) -> None:
    name, said = "orders_of_tests", {}
    command = (
        f"from pathlib import Path; from dml import checkout, cli; checkout.HOME = Path({str(cloud.place.home)!r}); "
        "cli.main()"
    )
    for arguments in (
        ["dataset", "new", name, str(orders), "--label", "paid late"],
        ["dataset", "check", name],
        ["run", name, "--local", "--json"],
        ["predict", f"{orders}/", "--dataset", name, "--local", "-o", str(tmp_path / "scored.csv")],
    ):
        done = subprocess.run(
            [sys.executable, "-c", command, *arguments],
            cwd=own_checkout,
            env={**os.environ, "PYTHONPATH": str(own_checkout)},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        said[arguments[0]] = done.stdout
    assert (own_checkout / "datasets" / name / "dataset.toml").is_file()
    told = json.loads(said["run"])
    assert told["rows"]["out"] == told["rows"]["predicted"] == 800
    assert told["metrics"]["test"]["accuracy"] > 0.75 > told["metrics"]["baseline"]["accuracy"]
    pointer = platform.json_object(Output.MODELS_BUCKET, f"{name}/CURRENT.json")
    assert pointer is not None
    assert pointer["run_id"] == told["run_id"]
    database = Platform("dev", credentials=cloud.environment()).output(database_output(name))  # the stack is new
    tables = {each["Name"]: each for each in platform.client("glue").get_tables(DatabaseName=database)["TableList"]}
    assert tables["orders"]["PartitionKeys"] == [{"Name": "country", "Type": "string"}]
    by_run = parquet(platform, tables["predictions"]["StorageDescriptor"]["Location"], tmp_path).set_index("order_id")
    by_file = pd.read_csv(tmp_path / "scored.csv", float_precision="round_trip").set_index("order_id")
    assert (by_file["probability"] == by_run["probability"].reindex(by_file.index)).all()
    assert by_run["probability"].nunique() > 3


@contextmanager
def without(platform: Platform, *, role: str, action: str) -> Iterator[None]:
    """Takes one action away from a role's own policies for a while."""
    iam = platform.client("iam")
    kept = {
        name: iam.get_role_policy(RoleName=role, PolicyName=name)["PolicyDocument"]
        for name in iam.list_role_policies(RoleName=role)["PolicyNames"]
    }
    assert action in json.dumps(list(kept.values()))
    try:
        for name, document in kept.items():
            statements = []
            for statement in document["Statement"]:
                actions = [statement["Action"]] if isinstance(statement["Action"], str) else statement["Action"]
                left = [given for given in actions if given != action]
                statements += [{**statement, "Action": left}] if left else []
            iam.put_role_policy(
                RoleName=role, PolicyName=name, PolicyDocument=json.dumps({**document, "Statement": statements})
            )
        yield
    finally:
        for name, document in kept.items():
            iam.put_role_policy(RoleName=role, PolicyName=name, PolicyDocument=json.dumps(document))


@contextmanager
def replaced_file(sample: dict[str, Path], table: str, text: str) -> Iterator[None]:
    """Another raw file for a while; `dml run` uploads it because its checksum differs."""
    original = sample[table]
    with tempfile.TemporaryDirectory() as folder:
        changed = Path(folder, original.name)
        changed.write_text(text, encoding="utf-8")
        sample[table] = changed
        try:
            yield
        finally:
            sample[table] = original


@contextmanager
def replaced_delays(sample: dict[str, Path], change: Callable[["pd.Series[str]"], "pd.Series[str]"]) -> Iterator[None]:
    flights = pd.read_csv(sample["flights"], dtype=str, keep_default_na=False, on_bad_lines="skip")
    flights = flights[(flights["time_hour"] != "") & (flights["arr_delay"] != "late")][::4]  # without the broken rows
    known = flights["arr_delay"].mask(flights["arr_delay"] == "NA")
    flights["arr_delay"] = change(known).fillna("NA")
    with replaced_file(sample, "flights", flights.to_csv(index=False)):
        yield


def processes_in(home: Path) -> list[str]:
    """The command lines of all processes that work below `home`, or name it."""
    inside = set(working_below(home))
    lines = {pid: line for pid, line in command_lines().items() if pid in inside or str(home) in line}
    return [line for line in lines.values() if "checkout.HOME" not in line]


def wait_until(holds: Callable[[], bool], what: str, seconds: float = 90.0) -> None:
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, f"not within {seconds:.0f} s: {what}"
        time.sleep(0.1)
