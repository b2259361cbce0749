"""The registry by hand: what is there, which model is current, and that of writers at the same time one wins."""

import json
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from rich.console import Console

from dml import models
from dml.errors import UserError
from dml.local.cloud import Cloud
from dml.platform import Platform
from stacks.outputs import Output
from tests.embedded import Clients

BUCKET = "test-models"
FIGURES: dict[str, dict[str, Any]] = {
    "binary": {"auc": 0.75, "pr_auc": 0.5, "log_loss": 0.47, "brier": 0.15, "accuracy": 0.8, "confusion": {"tp": 1}},
    "multiclass": {"auc": 0.9, "log_loss": 0.4, "brier": 0.2, "accuracy": 0.8, "macro_f1": 0.7, "confusion": [[1]]},
    "regression": {"rmse": 2.5, "mae": 1.5, "r2": 0.6, "bias": 0.1},
}


@pytest.fixture
def registry(cloud: Cloud, aws: Clients) -> Iterator[models.Registry]:
    """The registry of nyc_flights in a bucket of its own that keeps old versions, as the data stack's does."""
    s3 = aws("s3")
    s3.create_bucket(Bucket=BUCKET)
    s3.put_bucket_versioning(Bucket=BUCKET, VersioningConfiguration={"Status": "Enabled"})
    yield opened(cloud)
    for page in s3.get_paginator("list_object_versions").paginate(Bucket=BUCKET):
        for entry in [*page.get("Versions", []), *page.get("DeleteMarkers", [])]:
            s3.delete_object(Bucket=BUCKET, Key=entry["Key"], VersionId=entry["VersionId"])
    s3.delete_bucket(Bucket=BUCKET)


def opened(cloud: Cloud) -> models.Registry:
    platform = Platform("dev", credentials=cloud.environment())
    platform.__dict__["outputs"] = {Output.MODELS_BUCKET: BUCKET}  # the one that its stacks would name
    return models.Registry(platform, "nyc_flights")


def add(
    registry: models.Registry,
    run_id: str,
    *,
    task: str = "binary",
    passed: bool = True,
    finished: bool = True,
    **more: Any,
) -> None:
    """A run's folder as train.py leaves it."""
    test = {"rows": 100, **FIGURES[task], **more}
    main = "rmse" if task == "regression" else "log_loss"
    metrics = {
        "dataset": "nyc_flights",
        "run_id": run_id,
        "created": f"2026-01-01T00:00:{len(registry.runs()):02}+00:00",
        "task": task,
        "main_metric": main,
        "rows": {"train": 400, "test": 100},
        "label": {"train": {"positives": 100}, "test": {"positives": 25}},
        "base_rate": 0.25,
        "test": test,
        "baseline": {**test, main: 0.55},
        "out_of_time": None,
        "current": None,
        "interval": {"metric": main, "low": 0.4, "high": 0.5, "level": 0.95, "method": "bootstrap"},
        "importances": [{"feature": "x", "importance": 1.0}],
        "tree": {"depth": 1, "leaves": 2, "nodes": 3},
        "settings": {"depth": 12, "min_leaf": 200},
        "versions": {"spark": "3.5.6"},
        "revision": "abc",
    }
    tree = {
        "features": [{"name": "x", "kind": "number"}],
        "nodes": [{"id": 0, "rows": 400, "condition": "x <= 5", "left": 1, "right": 2}, {"id": 1}, {"id": 2}],
    }
    reasons = [] if passed else ["better than the base rate: no"]
    checks = [{"name": "better than the base rate", "passed": passed, "detail": "log loss"}]
    gate = {"passed": passed, "reasons": reasons, "checks": checks, "current_run": None}
    documents = {"metrics": metrics, "tree": tree, "gate": gate}
    if finished:
        documents["manifest"] = {"dataset": "nyc_flights", "run_id": run_id, "files": []}
    for name, document in documents.items():
        registry.platform.s3.put_object(
            Bucket=BUCKET, Key=f"nyc_flights/{run_id}/{name}.json", Body=json.dumps(document).encode()
        )


def promote(registry: models.Registry, run_id: str, **given: Any) -> dict[str, Any]:
    said = {"reason": "", "even_if_refused": False, "say": lambda _text: None, **given}
    return models.promote(registry, run_id, **said)


def rollback(registry: models.Registry) -> dict[str, Any]:
    return models.rollback(registry, reason="", say=lambda _text: None)


def current(registry: models.Registry) -> str:
    pointer = registry.current()
    assert pointer is not None
    return pointer.run_id


def shown(show: Any, document: dict[str, Any]) -> str:
    console = Console(width=100, record=True, file=open("/dev/null", "w"))  # noqa: SIM115, PTH123  # only recorded
    show(console, document)
    return console.export_text()


def test_promoting_should_move_the_current_model_and_remember_the_one_before(registry: models.Registry) -> None:
    add(registry, "run-1")
    add(registry, "run-2")
    first = promote(registry, "run-1")
    assert "previous" not in first
    assert first["metrics"] == {"rows": 100, **{k: v for k, v in FIGURES["binary"].items() if k != "confusion"}}
    second = promote(registry, "2", reason="it is newer")
    assert current(registry) == "run-2"
    assert second["previous"] == {"run_id": "run-1", "model": f"s3://{BUCKET}/nyc_flights/run-1/"}
    assert (second["moved"]["by"], second["moved"]["reason"]) == ("promote", "it is newer")


def test_rolling_back_should_go_to_the_model_before_and_twice_should_undo_it(registry: models.Registry) -> None:
    for run_id in ("run-1", "run-2"):
        add(registry, run_id)
        promote(registry, run_id)
    assert rollback(registry)["run_id"] == current(registry) == "run-1"
    assert rollback(registry)["run_id"] == current(registry) == "run-2"


def test_rolling_back_should_say_when_there_is_nothing_to_go_back_to(registry: models.Registry) -> None:
    with pytest.raises(UserError, match="no current model of nyc_flights to roll back from"):
        rollback(registry)
    add(registry, "run-1")
    promote(registry, "run-1")
    with pytest.raises(UserError, match="names no model that was current before run-1"):
        rollback(registry)


def test_rolling_back_should_refuse_a_model_that_is_gone(registry: models.Registry) -> None:
    for run_id in ("run-1", "run-2"):
        add(registry, run_id)
        promote(registry, run_id)
    registry.platform.s3.delete_object(Bucket=BUCKET, Key="nyc_flights/run-1/manifest.json")
    with pytest.raises(UserError, match="is gone or incomplete"):
        rollback(registry)
    assert current(registry) == "run-2"


def test_a_refused_or_unfinished_run_should_not_be_promoted_by_mistake(registry: models.Registry) -> None:
    add(registry, "bad", passed=False)
    add(registry, "half", finished=False)
    with pytest.raises(UserError, match=r"did not pass bad .* better than the base rate: no.*--even-if-refused"):
        promote(registry, "bad")
    with pytest.raises(UserError, match=r"half of nyc_flights has no manifest.json"):
        promote(registry, "half")
    with pytest.raises(UserError, match="has no run nothing"):
        promote(registry, "nothing")
    assert registry.current() is None
    assert promote(registry, "bad", even_if_refused=True)["run_id"] == "bad"


def test_a_part_of_an_id_should_do_if_it_is_one_runs_only(registry: models.Registry) -> None:
    add(registry, "run-17")
    add(registry, "run-18")
    assert registry.find("17") == "run-17"
    with pytest.raises(UserError, match="run-1 may be any of 2 runs of nyc_flights: run-18, run-17"):
        registry.find("run-1")


def test_of_writers_at_the_same_time_exactly_one_should_win_and_the_others_say_so(
    registry: models.Registry, cloud: Cloud
) -> None:
    runs = [f"run-{i}" for i in range(4)]
    for run_id in [*runs, "start"]:
        add(registry, run_id)
    promote(registry, "start")
    registries = [opened(cloud) for _ in runs]
    for _ in range(10):
        barrier = threading.Barrier(len(runs))
        before = registry.current()

        def race(writer: models.Registry, run_id: str, barrier: threading.Barrier = barrier) -> str | None:
            seen = writer.current()
            model = writer.model(run_id)
            barrier.wait()
            try:
                return str(writer.move(model, seen, by="promote", reason="race")["run_id"])
            except UserError as error:
                assert "Another writer moved" in str(error)
                return None

        with ThreadPoolExecutor(len(runs)) as pool:
            won = [run_id for run_id in pool.map(race, registries, runs) if run_id]
        assert len(won) == 1
        after = registry.current()
        assert after is not None
        assert after.run_id == won[0]
        assert before is not None
        assert after.body["previous"]["run_id"] == before.run_id


def test_a_reader_should_always_see_a_whole_pointer(registry: models.Registry, cloud: Cloud) -> None:
    for run_id in ("run-1", "run-2"):
        add(registry, run_id)
        promote(registry, run_id)
    done = threading.Event()
    seen: set[str] = set()

    def read() -> None:
        reader = opened(cloud)
        while not done.is_set():
            pointer = reader.current()
            assert pointer is not None
            assert reader.document(pointer.run_id, "manifest.json") is not None
            seen.add(pointer.run_id)

    with ThreadPoolExecutor(1) as pool:
        reading = pool.submit(read)
        for _ in range(20):
            rollback(registry)
        done.set()
        reading.result()
    assert seen == {"run-1", "run-2"}


def test_the_list_should_show_what_finished_what_is_current_and_what_was(registry: models.Registry) -> None:
    add(registry, "run-1")
    add(registry, "run-2", passed=False, log_loss=0.6)
    add(registry, "half", finished=False)
    promote(registry, "run-1")
    listed = models.listing(registry)
    assert [run["run_id"] for run in listed["runs"]] == ["run-2", "run-1"]
    assert (listed["current"], listed["incomplete"]) == ("run-1", ["half"])
    assert [move["run_id"] for move in listed["history"]] == ["run-1"]
    text = shown(models.show_list, listed)
    assert "refused" in text
    assert "0.47" in text


@pytest.mark.parametrize("task", FIGURES)
def test_a_model_should_be_shown_with_the_figures_of_its_task(registry: models.Registry, task: str) -> None:
    add(registry, "run-1", task=task)
    promote(registry, "run-1")
    text = shown(models.show_model, models.description(registry, None))
    assert ("2.5" if task == "regression" else "0.4") in text
    assert f"s3://{BUCKET}/nyc_flights/run-1/" in text.replace("\n", "")


def test_two_models_should_be_compared_and_two_tasks_should_not(registry: models.Registry) -> None:
    add(registry, "run-1")
    add(registry, "run-2", log_loss=0.45)
    promote(registry, "run-1")
    text = shown(models.show_difference, models.difference(registry, "run-2", None))
    assert "0.02" in text
    add(registry, "run-3", task="regression")
    with pytest.raises(UserError, match="regression"):
        models.difference(registry, "run-3", "run-1")
