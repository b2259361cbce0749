"""The model registry: what an operator reads about its runs, and that CURRENT.json moves whole or not at all."""

import io
import json
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from rich.console import Console

from dml import cli
from dml.errors import UserError
from dml.estate.platform import Platform
from dml.local.cloud import Cloud
from dml.models import registry as models
from dml.models.registry import Registry
from dml.terminal import console
from stacks.definition import LOST_REASON, Parts, definition
from stacks.outputs import Output
from tests.embedded import Clients
from tests.local.conftest import Machine, until

BUCKET = "registry-models"
DATASET = "nyc_flights"
OLD, MIDDLE, NEW = "run-20261120T080000000", "run-20261121T080000000", "run-20261122T093000000"
BINARY = {"auc": 0.745, "pr_auc": 0.539, "log_loss": 0.4803, "brier": 0.1494, "accuracy": 0.7995, "rows": 65359}
MULTICLASS = {"auc": 0.81, "log_loss": 0.91, "brier": 0.5, "accuracy": 0.6, "macro_f1": 0.55, "rows": 400}
REGRESSION = {"rmse": 48211.4, "mae": 33000.2, "r2": 0.62, "bias": -120.5, "rows": 400}

Documents = dict[str, dict[str, Any]]
Run = Callable[..., tuple[int, str, str]]


def documents(run_id: str, test: dict[str, Any], **metrics: Any) -> Documents:
    """What train.py leaves in a run's folder, as small as it can be; by default a binary task's from before `task`."""
    day = run_id[4:12]
    return {
        "metrics.json": {
            "dataset": DATASET,
            "run_id": run_id,
            "revision": "73b906e",
            "created": f"{day[:4]}-{day[4:6]}-{day[6:]}T09:30:00+00:00",
            "rows": {"train": 1000, "test": test["rows"]},
            "base_rate": 0.24,
            "test": test | {"confusion": {"tp": 1, "fp": 2, "tn": 3, "fn": 4}},
            "baseline": {key: 0.5 for key in test if key != "rows"},
            "out_of_time": None,
            "importances": [{"feature": "hour", "importance": 0.61}, {"feature": "dest", "importance": 0.39}],
            "tree": {"depth": 1, "leaves": 2, "nodes": 3},
            "settings": {"depth": 12, "min_leaf": 50, "smoothing": 100.0},
        }
        | metrics,
        "figures.json": test,
        "tree.json": tree(("hour", "dest"), "hour <= 14.5"),
        "gate.json": {
            "passed": True,
            "reasons": [],
            "checks": [{"name": "better than the baseline", "passed": True, "detail": "log loss 0.48, baseline 0.55"}],
            "current_run": None,
        },
        "manifest.json": {"dataset": DATASET, "run_id": run_id, "files": ["model/", "tree.json", "metrics.json"]},
    }


def tree(features: tuple[str, ...], condition: str, classes: tuple[str, ...] = ()) -> dict[str, Any]:
    root = {"id": 0, "depth": 0, "rows": 1000, "left": 1, "right": 2, "condition": condition}
    leaves = [{"id": 1, "depth": 1, "rows": 600}, {"id": 2, "depth": 1, "rows": 400}]
    return {
        "features": [{"name": name} for name in features],
        "classes": list(classes),
        "nodes": [root, *leaves],
    }


REFUSED = {"passed": False, "reasons": ["leak alarm: AUC 0.999"], "checks": [], "current_run": None}


class Bucket:
    """The models bucket in the embedded cloud's S3, where a test puts what it needs."""

    def __init__(self, s3: Any) -> None:
        self.s3 = s3

    def put(self, key: str, body: dict[str, Any]) -> None:
        self.s3.put_object(Bucket=BUCKET, Key=f"{DATASET}/{key}", Body=json.dumps(body).encode())

    def run(self, run_id: str, test: dict[str, Any] = BINARY, *, without: str = "", **changed: Any) -> str:
        """A run's folder; `changed`: metrics, or gate and tree, which replace those documents."""
        replaced = {f"{name}.json": changed.pop(name) for name in ("gate", "tree") if name in changed}
        for name, body in (documents(run_id, test, **changed) | replaced).items():
            if name != without:
                self.put(f"{run_id}/{name}", body)
        return run_id

    @property
    def current(self) -> dict[str, Any]:
        body = self.s3.get_object(Bucket=BUCKET, Key=f"{DATASET}/CURRENT.json")["Body"].read()
        found: dict[str, Any] = json.loads(body)
        return found


@pytest.fixture
def bucket(aws: Clients) -> Iterator[Bucket]:
    """An empty one with versions, as stacks/data.py makes it."""
    s3 = aws("s3")
    s3.create_bucket(Bucket=BUCKET)
    s3.put_bucket_versioning(Bucket=BUCKET, VersioningConfiguration={"Status": "Enabled"})
    yield Bucket(s3)
    for page in s3.get_paginator("list_object_versions").paginate(Bucket=BUCKET):
        for found in [*page.get("Versions", []), *page.get("DeleteMarkers", [])]:
            s3.delete_object(Bucket=BUCKET, Key=found["Key"], VersionId=found["VersionId"])
    s3.delete_bucket(Bucket=BUCKET)


@pytest.fixture
def platform(cloud: Cloud) -> Platform:
    """The embedded cloud as an environment of which only the models bucket is deployed."""
    made = Platform("dev", credentials=cloud.environment())
    made.outputs = {Output.MODELS_BUCKET: BUCKET}
    return made


@pytest.fixture
def registry(platform: Platform, bucket: Bucket) -> Registry:
    return Registry(platform, DATASET)


@pytest.fixture
def dml(platform: Platform, bucket: Bucket, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs `dml models ...` on a terminal of 100 columns; returns exit code, stdout, stderr."""

    def run(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["dml", "models", *arguments, "--local"])
        monkeypatch.setattr("dml.estate.platform.deployed", lambda _local, _env: platform)
        monkeypatch.setattr(console, "out", Console(width=100))
        monkeypatch.setattr(console, "err", Console(width=100, stderr=True))
        with pytest.raises(SystemExit) as ended:
            cli.main()
        printed = capsys.readouterr()
        return int(ended.value.code or 0), printed.out, printed.err

    return run


def promote(registry: Registry, run_id: str) -> dict[str, Any]:
    return models.promote(registry, run_id, reason="", even_if_refused=False, say=lambda _text: None)


def rows(text: str, *, starting: str) -> list[list[str]]:
    return [line.split() for line in text.splitlines() if line.startswith(starting)]


# --- Looking ---


def test_list_should_show_finished_runs_newest_first_and_which_is_current(dml: Run, bucket: Bucket) -> None:
    for run_id in (NEW, OLD):
        bucket.run(run_id)
    bucket.run(MIDDLE, BINARY | {"log_loss": 0.5123}, gate=REFUSED)
    bucket.run("run-20261123T000000000", without="manifest.json")
    dml("promote", OLD)
    dml("promote", NEW, "--reason", "the autumn timetable")
    code, out, _ = dml("list")
    assert code == 0
    new, middle, old = rows(out, starting="run-")[:3]
    assert new == [NEW, "2026-11-22", "09:30", "0.4803", "0.7450", "1,000", "2", "passed", "current"]
    assert middle == [MIDDLE, "2026-11-21", "09:30", "0.5123", "0.7450", "1,000", "2", "refused"]
    assert old[0] == OLD
    assert old[-1] == "previous"
    assert "1 without manifest.json (failed, or not done yet): run-20261123T000000000" in out
    moves = [line for line in out.splitlines() if " promote " in line]
    assert NEW in moves[0]
    assert "the autumn timetable" in moves[0]
    assert OLD in moves[1]
    assert max(map(len, out.splitlines())) <= 100


def test_list_should_show_whole_run_ids_in_80_columns(registry: Registry, bucket: Bucket) -> None:
    for run_id in (NEW, OLD):
        bucket.run(run_id)
        promote(registry, run_id)
    out = io.StringIO()
    models.show_list(Console(width=80, file=out), models.listing(registry))
    assert [row[0] for row in rows(out.getvalue(), starting="run-")] == [NEW, OLD]


def test_list_should_find_runs_past_the_first_page_of_keys(registry: Registry, bucket: Bucket) -> None:
    for part in range(25):
        bucket.put(f"{OLD}/model/part-{part}", {})
    bucket.run(NEW)
    events, listing = registry.platform.s3.meta.events, "provide-client-params.s3.ListObjectsV2"
    pages: list[int] = []

    def of_ten_keys(params: dict[str, Any], **_: Any) -> None:
        params["MaxKeys"] = 10  # S3 itself gives a thousand
        pages.append(1)

    events.register(listing, of_ten_keys)
    try:
        assert registry.runs() == {OLD: False, NEW: True}
    finally:
        events.unregister(listing, of_ten_keys)
    assert len(pages) > 2


def test_list_should_give_each_task_its_own_figures(dml: Run, bucket: Bucket) -> None:
    bucket.run(OLD)
    bucket.run(MIDDLE, MULTICLASS, task="multiclass", main_metric="log_loss")
    bucket.run(NEW, REGRESSION, task="regression", main_metric="rmse")
    _, out, _ = dml("list")
    assert "RMSE" in out
    assert rows(out, starting=NEW)[0][3:5] == ["48,211", "0.6200"]
    assert rows(out, starting=MIDDLE)[0][3:5] == ["0.9100", "0.8100"]
    _, out, _ = dml("list", "--json")
    found = json.loads(out)
    assert [(run["task"], run["main_metric"]) for run in found["runs"]] == [
        ("regression", "rmse"),
        ("multiclass", "log_loss"),
        ("binary", "log_loss"),
    ]
    assert found["current"] is None


def test_a_command_that_is_offered_should_be_for_the_same_registry(registry: Registry) -> None:
    registry.platform.environment = "prod"
    assert registry.naming("promote RUN") == "dml models promote RUN --dataset nyc_flights --local --env prod"
    registry.platform.environment, registry.platform.endpoint = "dev", None
    assert registry.platform.command("status") == "dml status"


def test_list_of_an_empty_registry_should_say_how_to_train(dml: Run) -> None:
    code, out, _ = dml("list")
    assert code == 0
    assert "dml run nyc_flights" in out


def test_show_should_tell_all_about_the_current_model(dml: Run, bucket: Bucket) -> None:
    interval = {"metric": "log_loss", "low": 0.4751, "high": 0.4855, "level": 0.95, "method": "bootstrap"}
    bucket.run(NEW, interval=interval, current=BINARY | {"run_id": OLD, "log_loss": 0.4999})
    of_wind = {"name": "wind", "verdict": "large", "psi": 0.31, "moves_score": {"by": 0.0312, "of": ""}}
    bucket.put(f"{NEW}/drift.json", {"features": [of_wind, {"name": "dest", "verdict": "stable", "psi": 0.01}]})
    dml("promote", NEW, "--reason", "first of the season")
    code, out, _ = dml("show")
    assert code == 0
    assert "first of the season" in out
    assert rows(out, starting="held-out rows")[0][2:] == ["0.4803", "0.7450", "0.5390", "0.1494", "0.7995", "65,359"]
    assert rows(out, starting="  baseline")[0][1] == "0.5000"
    assert rows(out, starting=f"  then current: {OLD}")[0][3] == "0.4999"
    assert "95% interval of the log loss: 0.4751 to 0.4855 (bootstrap)" in out
    assert "better than the baseline" in out
    assert "hour 61%, dest 39%" in out
    assert "wind (large, PSI 0.31, moves the mean score by +0.031)  since the model before" in " ".join(out.split("\n"))
    assert f"s3://{BUCKET}/{DATASET}/{NEW}/" in out


@pytest.mark.parametrize(
    ("test", "task", "shown"),
    [
        (MULTICLASS, "multiclass", ["0.9100", "0.8100", "0.5000", "0.6000", "0.5500", "400"]),
        (REGRESSION, "regression", ["48,211", "0.6200", "33,000", "-120.50", "400"]),
    ],
)
def test_show_should_have_the_figures_of_the_task(
    dml: Run, bucket: Bucket, test: dict[str, Any], task: str, shown: list[str]
) -> None:
    bucket.run(NEW, test, task=task, main_metric="rmse" if task == "regression" else "log_loss")
    _, out, _ = dml("show", "0930")
    assert rows(out, starting="held-out rows")[0][2:] == shown
    assert "not current" in out


def test_show_should_tell_a_run_that_published_itself_from_a_promotion(dml: Run, bucket: Bucket) -> None:
    bucket.run(NEW)
    bucket.put("CURRENT.json", {"dataset": DATASET, "run_id": NEW, "model": "s3://m/", "metrics": {}})
    assert "published by its own run" in dml("show")[1]


def test_a_part_of_a_run_id_should_do_if_no_other_run_has_it(registry: Registry, bucket: Bucket) -> None:
    for run_id in (OLD, MIDDLE, NEW):
        bucket.run(run_id)
    bucket.run("run-20261122T093", without="manifest.json")
    assert registry.find("1122T0930") == NEW
    assert registry.find(MIDDLE) == MIDDLE
    with pytest.raises(UserError, match=f"may be any of 2 runs of {DATASET}: {MIDDLE}, {OLD}"):
        registry.find("T08")
    with pytest.raises(UserError, match=r"run-20261122T093 of nyc_flights has no manifest\.json"):
        registry.find("run-20261122T093")
    with pytest.raises(UserError, match=r"has no run 2025.*dml models list"):
        registry.find("2025")
    with pytest.raises(UserError, match="say --dataset nyc_flights"):
        registry.find("nyc_flights")


def test_a_whole_run_id_should_be_that_run_although_another_contains_it(registry: Registry, bucket: Bucket) -> None:
    for run_id in (NEW, f"{NEW}-again"):
        bucket.run(run_id)
    assert registry.find(NEW) == NEW


def test_diff_should_show_what_is_not_the_same_and_only_that(dml: Run, bucket: Bucket) -> None:
    bucket.run(OLD)
    dml("promote", OLD)
    bucket.run(
        NEW,
        BINARY | {"log_loss": 0.4703, "auc": 0.735},
        settings={"depth": 8, "min_leaf": 50, "smoothing": 100.0},
        rows={"train": 1200, "test": 65359},
        base_rate=0.26,
        tree=tree(("hour", "wind"), "wind <= 20"),
    )
    code, out, _ = dml("diff", NEW)
    assert code == 0
    assert rows(out, starting="log loss")[0][2:] == ["0.4703", "0.4803", "-0.0100"]
    assert rows(out, starting="AUC")[0][1:] == ["0.7350", "0.7450", "-0.0100"]
    assert rows(out, starting="Brier")[0][1:] == ["0.1494", "0.1494", "="]
    assert rows(out, starting="train rows")[0][2:] == ["1,200", "1,000", "+200"]
    assert rows(out, starting="label rate")[0][2:] == ["0.2600", "0.2400", "+0.0200"]
    assert "added wind; gone dest" in out
    assert rows(out, starting="depth")[0][1:] == ["8", "12"]
    assert "min_leaf" not in out
    assert rows(out, starting="first")[0][1:] == ["wind", "<=", "20", "hour", "<=", "14.5"]
    assert max(map(len, out.splitlines())) <= 100


def test_several_trees_should_be_shown_and_compared_with_one(dml: Run, bucket: Bucket) -> None:
    bucket.run(OLD)
    dml("promote", OLD)
    several = {"features": [{"name": "hour"}, {"name": "dest"}], "classes": [], "link": "logistic", "trees": [{}] * 150}
    shape = {"trees": 150, "depth": 9, "leaves": 4650, "nodes": 9150}
    bucket.run(NEW, BINARY, tree=several, settings={"learner": "boosted", "rounds": 150})
    metrics = documents(NEW, BINARY)["metrics.json"] | {"tree": shape, "settings": {"learner": "boosted"}}
    bucket.put(f"{NEW}/metrics.json", metrics)
    _, shown, _ = dml("show", NEW)
    assert "150 trees, depth 9 at most, 4,650 leaves" in shown
    code, out, _ = dml("diff", NEW)
    assert code == 0
    assert rows(out, starting="trees")[0][1:] == ["150", "1", "+149"]
    assert "none stands for all: 150 trees, added up" in " ".join(out.split())
    assert rows(out, starting="learner")[0][1:] == ["boosted", "tree"]


def test_diff_should_compare_two_learners_on_the_rows_that_both_were_tested_on(dml: Run, bucket: Bucket) -> None:
    bucket.run(OLD)
    dml("promote", OLD)
    permuted = {"metric": "log_loss", "rows": 900, "features": [{"feature": "dest", "increase": 0.021}]}
    interval = {"run_id": OLD, "metric": "log_loss", "difference": -0.01, "low": -0.0131, "high": -0.0069}
    bucket.run(
        NEW,
        BINARY | {"log_loss": 0.4703},
        settings={"learner": "boosted", "rounds": 150},
        current=BINARY | {"log_loss": 0.4811, "run_id": OLD},
        against_current=interval | {"level": 0.95, "rows": 9000},
        importances=[{"feature": "dest", "importance": 0.7}, {"feature": "hour", "importance": 0.3}],
        permutation=permuted,
    )
    _, out, _ = dml("diff", NEW)
    assert rows(out, starting="log loss, same rows")[0][4:] == ["0.4703", "0.4811", "-0.0108"]
    text = " ".join(out.split())
    assert f"the 65,359 test rows of {NEW}" in text
    assert f"log loss of {NEW} less that of the other: -0.0131 to -0.0069 (95%, on 9,000 of them), more than" in text
    assert rows(out, starting="learner")[0][1:] == ["boosted", "tree"]
    (heads,) = (line for line in out.splitlines() if line.startswith("looks at"))
    assert heads.split("  ")[-1].strip() == "2nd without it"
    assert rows(out, starting="dest")[0] == ["dest", "70%", "39%", "+0.0210", "\N{EN DASH}"]
    assert rows(out, starting="hour ")[0] == ["hour", "30%", "61%", "\N{EN DASH}", "\N{EN DASH}"]
    assert max(map(len, out.splitlines())) <= 100
    turned = json.loads(dml("diff", OLD, NEW, "--json")[1])["same_rows"]
    assert turned["figures"]["log_loss"] == [0.4811, 0.4703]
    told = turned["interval"]
    assert (told["difference"], told["low"], told["high"]) == (0.01, 0.0069, 0.0131)


def test_diff_should_say_that_one_has_learned_from_the_same_rows(dml: Run, bucket: Bucket) -> None:
    bucket.run(OLD)
    split = "by the keys, 20% held out, seed 7"
    bucket.run(NEW, BINARY, current=BINARY | {"run_id": OLD, "split": split})
    for runs in ((OLD, NEW), (NEW, OLD)):
        text = " ".join(dml("diff", *runs)[1].split())
        assert f"The other was split {split} and has learned from some of them: its figures are too good." in text


def calling(threshold: float, cost: float, **asked: float) -> dict[str, Any]:
    """What metrics.json says of a model that decides by costs."""
    test = {"precision": 0.4, "recall": 0.7, "f1": 0.509}
    own = {"asked": {"cost_of_miss": 5.0, "cost_of_false_alarm": 1.0} | asked, "test": {"cost": cost}}
    called = f"A row is called positive from a probability of {threshold} on."
    figures = BINARY | test | {"confusion": {"tp": 1, "fp": 2, "tn": 3, "fn": 4}}
    return {"threshold": threshold, "decision": own | {"out_of_time": None}, "calls": [called], "test": figures}


def test_diff_should_compare_costs_of_models_that_decide_by_the_same(dml: Run, bucket: Bucket) -> None:
    bucket.run(OLD, **calling(0.2, 1000.0))
    bucket.run(MIDDLE, **calling(0.15, 900.0))
    bucket.run(NEW, **calling(0.15, 900.0, cost_of_miss=6.0))
    code, out, err = dml("diff", MIDDLE, OLD)
    assert code == 0, err
    lines = {" ".join(line.split()) for line in out.splitlines()}
    assert "threshold 0.1500 0.2000 -0.0500" in lines
    assert "cost 900 1,000 -100" in lines
    assert "recall 0.7000 0.7000 =" in lines
    _, out, _ = dml("diff", NEW, OLD)
    lines = {" ".join(line.split()) for line in out.splitlines()}
    assert "What errors cost is not compared: [decision] is not the same of both." in lines
    assert "decision.cost_of_miss 6.0 5.0" in lines
    assert not any(line.startswith("cost ") for line in lines)
    _, out, _ = dml("show", NEW)
    assert "A row is called positive from a probability of 0.15 on." in out


def test_diff_should_compare_how_labels_of_every_task_are_distributed(dml: Run, bucket: Bucket) -> None:
    for run_id, counts, mean in ((OLD, [500, 500], 200.0), (NEW, [600, 400], 210.0)):
        classes = tree(("hour",), "hour <= 9", ("rain", "sun"))
        bucket.run(run_id, MULTICLASS, task="multiclass", label={"train": {"counts": counts}}, tree=classes)
        label = {"train": {"mean": mean, "std": 1.0, "min": 0.0, "max": 9.0}}
        bucket.run(f"{run_id}-price", REGRESSION, task="regression", main_metric="rmse", label=label)
    _, out, _ = dml("diff", NEW, OLD)
    assert rows(out, starting="share of rain")[0][3:] == ["0.6000", "0.5000", "+0.1000"]
    found = json.loads(dml("diff", f"{NEW}-price", f"{OLD}-price", "--json")[1])
    assert found["data"] == {"label mean": [210.0, 200.0]}
    assert found["figures"]["rmse"] == [48211.4, 48211.4]


def test_diff_of_what_cannot_be_compared_should_say_why(dml: Run, bucket: Bucket) -> None:
    bucket.run(OLD)
    bucket.run(MIDDLE, dataset="titanic")
    bucket.run(NEW, REGRESSION, task="regression", main_metric="rmse")
    code, out, err = dml("diff", NEW, OLD)
    assert (code, out) == (1, "")
    assert f"the task of {NEW} is regression, that of {OLD} is binary" in err
    assert "the dataset of" in dml("diff", MIDDLE, OLD)[2]
    assert "one and the same run" in dml("diff", OLD, OLD)[2]
    assert "no current model" in dml("diff", OLD)[2]


# --- Moving ---


def test_promote_should_say_what_it_moves_and_leave_the_whole_pointer(dml: Run, bucket: Bucket) -> None:
    for run_id in (OLD, NEW):
        bucket.run(run_id)
    code, _, err = dml("promote", OLD)
    assert code == 0
    assert f"Moving s3://{BUCKET}/{DATASET}/CURRENT.json to {OLD}" in err
    assert bucket.current["previous"] == {}
    code, out, err = dml("promote", "0930", "--reason", "holidays", "--json")
    assert code == 0
    assert f"CURRENT.json from {OLD} to {NEW}" in err
    assert "is still the former model's. Make it anew: dml predict nyc_flights --local" in err
    assert "To undo this: dml models rollback nyc_flights --local" in err
    current = bucket.current
    assert json.loads(out) == current
    assert current.pop("moved").items() >= {"by": "promote", "reason": "holidays"}.items()
    assert current == {
        "dataset": DATASET,
        "run_id": NEW,
        "model": f"s3://{BUCKET}/{DATASET}/{NEW}/",
        "metrics": BINARY,
        "previous": {"run_id": OLD, "model": f"s3://{BUCKET}/{DATASET}/{OLD}/"},
    }


def test_promoting_the_current_model_should_change_nothing(dml: Run, bucket: Bucket) -> None:
    bucket.run(NEW)
    dml("promote", NEW)
    before = bucket.current
    code, _, err = dml("promote", NEW)
    assert code == 0
    assert "already" in err
    assert bucket.current == before


def test_promote_should_refuse_what_the_gate_refused_unless_told(dml: Run, bucket: Bucket) -> None:
    bucket.run(OLD)
    dml("promote", OLD)
    bucket.run(MIDDLE, gate=REFUSED)
    bucket.run(NEW, without="gate.json")
    code, out, err = dml("promote", MIDDLE)
    assert (code, out) == (1, "")
    assert "leak alarm: AUC 0.999" in err
    assert "--even-if-refused" in err
    assert "no gate.json" in dml("promote", NEW)[2]
    assert bucket.current["run_id"] == OLD
    code, _, err = dml("promote", MIDDLE, "--even-if-refused")
    assert code == 0
    assert "promoted all the same: leak alarm" in err
    assert bucket.current["run_id"] == MIDDLE


def test_promote_should_never_take_an_unfinished_run(dml: Run, bucket: Bucket) -> None:
    bucket.run(NEW, without="manifest.json")
    code, _, err = dml("promote", NEW, "--even-if-refused")
    assert code == 1
    assert "manifest.json" in err


def test_promote_should_say_when_the_gate_compared_with_another_model(dml: Run, bucket: Bucket) -> None:
    for run_id in (OLD, NEW):
        bucket.run(run_id)
    dml("promote", OLD)
    assert f"compared it with no model, not with {OLD}" in " ".join(dml("promote", NEW)[2].split())


def test_rollback_should_bring_back_the_previous_model_and_a_second_one_undo_the_first(
    dml: Run, bucket: Bucket
) -> None:
    for run_id in (OLD, MIDDLE, NEW):
        bucket.run(run_id)
        dml("promote", run_id)
    code, out, err = dml("rollback", "--reason", "complaints")
    assert code == 0
    assert MIDDLE in out
    assert f"from {NEW} to {MIDDLE}" in err
    assert bucket.current["run_id"] == MIDDLE
    assert bucket.current["previous"]["run_id"] == NEW
    assert bucket.current["moved"].items() >= {"by": "rollback", "reason": "complaints"}.items()
    assert "rolled back to: complaints" in " ".join(dml("show")[1].split())
    dml("rollback")
    assert bucket.current["run_id"] == NEW
    history = json.loads(dml("list", "--json")[1])["history"]
    assert [(move["run_id"], move["by"]) for move in history] == [
        (NEW, "rollback"),
        (MIDDLE, "rollback"),
        (NEW, "promote"),
        (MIDDLE, "promote"),
        (OLD, "promote"),
    ]


def test_rollback_without_a_whole_previous_model_should_say_so_and_change_nothing(dml: Run, bucket: Bucket) -> None:
    assert "no current model of nyc_flights to roll back from" in dml("rollback")[2]
    bucket.run(OLD)
    dml("promote", OLD)
    code, out, err = dml("rollback")
    assert (code, out) == (1, "")
    assert f"names no model that was current before {OLD}" in err
    assert "dml models list nyc_flights" in err
    bucket.run(NEW)
    dml("promote", NEW)
    bucket.s3.delete_object(Bucket=BUCKET, Key=f"{DATASET}/{OLD}/manifest.json")
    code, _, err = dml("rollback")
    assert code == 1
    assert "gone or incomplete" in err
    assert bucket.current["run_id"] == NEW


@pytest.mark.parametrize("text", [b"", b"[]", b'{"dataset": "nyc_flights"}'])
def test_a_broken_pointer_should_be_named(dml: Run, bucket: Bucket, text: bytes) -> None:
    bucket.s3.put_object(Bucket=BUCKET, Key=f"{DATASET}/CURRENT.json", Body=text)
    code, _, err = dml("rollback")
    assert code == 1
    assert f"s3://{BUCKET}/{DATASET}/CURRENT.json is not what a run or dml models writes" in " ".join(err.split())


# --- At once ---


@pytest.mark.parametrize("first", [True, False])
def test_a_model_should_not_be_moved_when_another_writer_came_first(
    registry: Registry, bucket: Bucket, first: bool
) -> None:
    for run_id in (OLD, MIDDLE, NEW):
        bucket.run(run_id)
    if not first:
        promote(registry, OLD)
    seen = registry.current()
    promote(registry, MIDDLE)
    with pytest.raises(UserError, match=f"Another writer moved .* first: now run {MIDDLE} is current"):
        registry.move(registry.model(NEW), seen, by="promote", reason="")
    assert bucket.current["run_id"] == MIDDLE


def test_a_pointer_that_is_deleted_meanwhile_should_be_a_lost_race(registry: Registry, bucket: Bucket) -> None:
    for run_id in (OLD, NEW):
        bucket.run(run_id)
    promote(registry, OLD)
    seen = registry.current()
    bucket.s3.delete_object(Bucket=BUCKET, Key=f"{DATASET}/CURRENT.json")
    with pytest.raises(UserError, match="now there is no current model"):
        registry.move(registry.model(NEW), seen, by="promote", reason="")


def test_a_put_whose_answer_got_lost_should_not_lose_against_itself(registry: Registry, bucket: Bucket) -> None:
    bucket.run(NEW)
    seen = registry.current()
    s3 = registry.platform.s3
    bodies = []

    def twice(params: dict[str, Any], **_: Any) -> None:
        if not bodies:  # the first try reaches S3, and its answer is not seen
            bodies.append(params["Body"])
            s3.put_object(**params)

    s3.meta.events.register("provide-client-params.s3.PutObject", twice)
    registry.move(registry.model(NEW), seen, by="promote", reason="")
    assert bodies
    assert bucket.current["run_id"] == NEW


def test_of_writers_at_once_exactly_one_should_win_and_readers_always_see_a_whole_model(
    cloud: Cloud, registry: Registry, bucket: Bucket
) -> None:
    writers, rounds = 4, 25
    runs = [bucket.run(f"run-{number}") for number in range(writers)]
    candidates = [registry.model(run_id) for run_id in runs]
    platforms = [Platform("dev", credentials=cloud.environment()) for _ in range(writers + 1)]
    for one in platforms:
        one.outputs = {Output.MODELS_BUCKET: BUCKET}
    registries = [Registry(one, DATASET) for one in platforms]
    start, stop, read = threading.Barrier(writers), threading.Event(), list[str]()

    def reader() -> None:
        while not stop.is_set():
            pointer = registries[-1].current()
            if pointer:
                assert registries[-1].document(pointer.run_id, "manifest.json")
                assert pointer.body["model"].endswith(f"/{pointer.run_id}/")
                read.append(pointer.run_id)

    def write(number: int) -> str:
        seen = registries[number].current()
        start.wait(30)  # all have seen the same pointer before any moves it
        try:
            registries[number].move(candidates[number], seen, by="promote", reason=f"writer {number}")
        except UserError as lost:
            return str(lost)
        return "won"

    with ThreadPoolExecutor(writers + 1) as threads:
        reading = threads.submit(reader)
        winners = []
        try:
            for _ in range(rounds):
                said = list(threads.map(write, range(writers)))
                assert said.count("won") == 1
                winner = said.index("won")
                assert bucket.current["run_id"] == runs[winner]
                assert all(f"first: now run {runs[winner]}" in text for text in said if text != "won")
                winners.append(winner)
        finally:
            stop.set()
        reading.result()
    assert len(read) > rounds  # the reader was there all along
    moves = registry.history()
    assert [move["run_id"] for move in moves] == [runs[winner] for winner in reversed(winners)][: models.HISTORY]


@pytest.fixture
def machine(aws: Clients, bucket: Bucket) -> Iterator[Machine]:
    """The state machine from "train: note the current model" on, with training and predicting taken out.

    In place of the training step it waits until the object `go` is there.
    """
    topic = aws("sns").create_topic(Name="registry")["TopicArn"]
    trust = {"Effect": "Allow", "Action": "sts:AssumeRole", "Principal": {"Service": "states.amazonaws.com"}}
    rights = [
        {"Effect": "Allow", "Action": ["s3:GetObject", "s3:PutObject"], "Resource": f"arn:aws:s3:::{BUCKET}/*"},
        {"Effect": "Allow", "Action": "s3:ListBucket", "Resource": f"arn:aws:s3:::{BUCKET}"},
        {"Effect": "Allow", "Action": "sns:Publish", "Resource": topic},
        {"Effect": "Allow", "Action": ["states:SendTaskFailure", "cloudwatch:PutMetricData"], "Resource": "*"},
    ]
    iam, states = aws("iam"), aws("stepfunctions")
    role = iam.create_role(RoleName="registry", AssumeRolePolicyDocument=json.dumps({"Statement": [trust]}))["Role"]
    iam.put_role_policy(RoleName="registry", PolicyName="all", PolicyDocument=json.dumps({"Statement": rights}))
    named = dict.fromkeys(Parts.__dataclass_fields__, "unused")
    whole = definition(
        Parts(
            **named
            | {
                "environment": "dev",
                "dataset": DATASET,
                "models_bucket": BUCKET,
                "topic_arn": topic,
                "partition": "aws",
                "transient_cluster": {"Name": "unused", "Instances": {}, "LogUri": "s3://logs/emr/"},
                "certificate_bucket": "",
                "figures": ("log_loss", "auc"),
                "prepare_minutes": 1,
                "step_minutes": 1,
            }
        )
    )
    kept = ("train", "gate", "publish", "clean up", "notify", "end", "failed")
    inner = {name: state for name, state in whole["States"].items() if name.startswith(kept)}
    inner["begin: read the input"] = whole["States"]["begin: read the input"] | {
        "Next": "train: note the current model"
    }
    inner["train: add the step"] = {
        "Type": "Task",
        "Resource": "arn:aws:states:::aws-sdk:s3:getObject",
        "Arguments": {"Bucket": BUCKET, "Key": f"{DATASET}/go"},
        "Catch": [{"ErrorEquals": ["S3.NoSuchKeyException"], "Next": "train: wait"}],
        "Next": "gate: read the verdict",
    }
    inner["train: wait"] = {"Type": "Wait", "Seconds": 1, "Next": "train: add the step"}
    inner["predict: add the step"] = {"Type": "Pass", "Next": "clean up: is there a transient cluster?"}
    arn = states.create_state_machine(
        name="registry", definition=json.dumps(whole | {"States": inner}), roleArn=role["Arn"]
    )["stateMachineArn"]
    yield Machine(aws, arn)
    states.delete_state_machine(stateMachineArn=arn)
    iam.delete_role_policy(RoleName="registry", PolicyName="all")
    iam.delete_role(RoleName="registry")
    aws("sns").delete_topic(TopicArn=topic)


@pytest.mark.parametrize("first", [True, False])
def test_of_two_runs_that_finish_at_once_exactly_one_should_publish(
    aws: Clients, machine: Machine, registry: Registry, bucket: Bucket, first: bool
) -> None:
    states = aws("stepfunctions")
    if not first:
        promote(registry, bucket.run(OLD))
    before = {} if first else {"run_id": OLD, "model": f"s3://{BUCKET}/{DATASET}/{OLD}/"}
    started = [machine.start(), machine.start()]
    names = [bucket.run(arn.rpartition(":")[2]) for arn in started]

    def has_noted(arn: str) -> bool:
        events = states.get_execution_history(executionArn=arn)["events"]
        return any(event.get("stateEnteredEventDetails", {}).get("name") == "train: wait" for event in events)

    for arn in started:
        until(lambda arn=arn: has_noted(arn))
    bucket.put("go", {})
    ended = [machine.finish(arn) for arn in started]
    assert sorted(execution["status"] for execution in ended) == ["FAILED", "SUCCEEDED"]
    (lost,) = (execution for execution in ended if execution["status"] == "FAILED")
    (won,) = (name for name, execution in zip(names, ended, strict=True) if execution["status"] == "SUCCEEDED")
    assert lost["cause"] == f"publish: {LOST_REASON}"
    assert bucket.current == {
        "dataset": DATASET,
        "run_id": won,
        "model": f"s3://{BUCKET}/{DATASET}/{won}/",
        "metrics": BINARY,
        "previous": before,
    }


def test_rollback_should_work_after_a_normal_run(machine: Machine, registry: Registry, bucket: Bucket) -> None:
    promote(registry, bucket.run(OLD))
    arn = machine.start()
    run_id = bucket.run(arn.rpartition(":")[2], REGRESSION, task="regression", main_metric="rmse")
    bucket.put("go", {})
    assert machine.finish(arn)["status"] == "SUCCEEDED"
    assert bucket.current["run_id"] == run_id
    assert bucket.current["metrics"] == REGRESSION
    models.rollback(registry, reason="", say=lambda _text: None)
    assert bucket.current["run_id"] == OLD
    assert bucket.current["previous"]["run_id"] == run_id


def test_a_run_should_not_publish_over_a_promotion_that_came_during_its_training(
    aws: Clients, machine: Machine, registry: Registry, bucket: Bucket
) -> None:
    promote(registry, bucket.run(OLD))
    arn = machine.start()
    bucket.run(arn.rpartition(":")[2])

    def noted() -> bool:
        events = aws("stepfunctions").get_execution_history(executionArn=arn)["events"]
        return any(event.get("stateEnteredEventDetails", {}).get("name") == "train: wait" for event in events)

    until(noted)
    promote(registry, bucket.run(NEW))
    bucket.put("go", {})
    assert machine.finish(arn)["cause"] == f"publish: {LOST_REASON}"
    assert bucket.current["run_id"] == NEW


def test_where_rows_have_a_time_later_rows_should_come_first() -> None:
    later = BINARY | {"rows": 900, "log_loss": 0.58, "tested_on": "2013-11", "baseline": {"log_loss": 0.56, "auc": 0.5}}
    one, other = (documents(run, BINARY, out_of_time=of) for run, of in ((NEW, later), (OLD, None)))
    found = [models.Model(run, left["metrics.json"], left["gate.json"]) for run, left in ((NEW, one), (OLD, other))]
    assert found[0].published_metrics == BINARY | {f"out_of_time_{key}": later[key] for key in BINARY}
    assert found[1].published_metrics == BINARY
    told = io.StringIO()
    described = {"current": NEW, "previous": None, "incomplete": [], "history": [], "dataset": DATASET}
    models.show_list(Console(width=160, file=told), described | {"runs": [models._summary(model) for model in found]})
    text = [" ".join(line.split()) for line in told.getvalue().splitlines()]
    assert text[0].startswith("run created (UTC) log loss out of time base rate there log loss held out train rows")
    assert "09:30 0.5800 0.5600 0.4803 1,000 2 passed" in text[1]
    assert "09:30 \N{EN DASH} \N{EN DASH} 0.4803 1,000 2 passed" in text[2]
    told = io.StringIO()
    model = {"run_id": NEW, "current": False, "moves": [], "metrics": one["metrics.json"], "gate": None}
    models.show_model(Console(width=160, file=told), model | {"model": "s3://m/", "files": []})
    shown = told.getvalue()
    assert (
        "On later rows (2013-11) no better than always guessing the base rate: log loss 0.580 against 0.560." in shown
    )
    assert shown.index("out of time ") < shown.index("held-out rows ")
