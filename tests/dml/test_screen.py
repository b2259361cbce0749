"""The closing screen of a run, its JSON and the board's lines, for each task."""

import io
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import duckdb
import pytest
from rich.console import Console

from datasets import load_dataset
from dml.estate.platform import Platform
from dml.runs import pipeline, run, screen, status
from dml.runs.pipeline import Run, Stage
from dml.runs.run import Result
from dml.terminal.board import Board
from stacks.outputs import Output

COMMON: dict[str, Any] = {
    "run_id": "run-1",
    "main_metric": "log_loss",
    "rows": {"train": 800, "test": 200},
    "tree": {"depth": 5, "leaves": 21, "nodes": 41},
    "importances": [{"feature": "hour", "importance": 0.6}, {"feature": "dest", "importance": 0.4}],
    "out_of_time": None,
}
BINARY = COMMON | {
    "test": {"rows": 200, "auc": 0.7451, "pr_auc": 0.5392, "log_loss": 0.4803, "brier": 0.1494, "accuracy": 0.7995},
    "baseline": {"auc": 0.5, "pr_auc": 0.2385, "log_loss": 0.5486, "brier": 0.1816, "accuracy": 0.7627},
}
MULTICLASS = COMMON | {
    "task": "multiclass",
    "test": {"rows": 200, "auc": 0.8712, "log_loss": 0.7013, "brier": 0.4512, "accuracy": 0.7234, "macro_f1": 0.5511},
    "baseline": {"auc": 0.5, "log_loss": 0.9876, "brier": 0.6043, "accuracy": 0.5412, "macro_f1": 0.2345},
    "interval": {"metric": "log_loss", "low": 0.6512, "high": 0.7531, "level": 0.95, "method": "bootstrap"},
}
REGRESSION = COMMON | {
    "task": "regression",
    "main_metric": "rmse",
    "test": {"rows": 200, "rmse": 38.126, "mae": 22.75, "r2": 0.1512, "bias": -0.525},
    "baseline": {"rmse": 1413.6, "mae": 25.25, "r2": -0.0003, "bias": 0.5125},
    "current": {"run_id": "run-0", "rows": 200, "rmse": 39.5, "mae": 23.5, "r2": 0.125, "bias": 0.0625},
    "out_of_time": {
        "trained_on": "2013-01 to 2013-10",
        "tested_on": "2013-11 to 2013-12",
        "rows": 150,
        "rmse": 44.55,
        "mae": 24.5,
        "r2": None,
        "bias": 9.5,
        "baseline": {"rmse": 42.5, "mae": 25.5, "r2": 0.0, "bias": 0.5},
    },
}


class Store:
    """The two calls of S3 that the screen makes, over one file."""

    def __init__(self, file: Path) -> None:
        self._file = file

    def list_objects_v2(self, Bucket: str, Prefix: str) -> dict[str, Any]:
        return {"Contents": [{"Key": f"{Prefix}_SUCCESS"}, {"Key": f"{Prefix}{self._file.name}"}]}

    def download_file(self, bucket: str, key: str, path: str) -> None:
        Path(path).write_bytes(self._file.read_bytes())


class Left(Platform):
    """A platform with what a run left: documents by key, and one file of predictions."""

    def __init__(self, documents: dict[str, dict[str, Any]], file: Path) -> None:
        super().__init__("dev")
        self._documents = documents
        self.s3 = Store(file)

    def json_object(self, bucket: Output, key: str) -> dict[str, Any] | None:
        return self._documents.get(key)


def result(metrics: dict[str, Any], predicted: dict[str, Any], unit: str = "") -> Result:
    ran = Run("run-1", "arn", {name: Stage(name) for name in pipeline.STAGES["run"]}, state="SUCCEEDED")
    return Result(ran, "nyc_flights", {}, metrics, {}, predicted, {"model": "s3://models/nyc_flights/run-1/"}, unit)


def shown(told: Result, tmp_path: Path, row: str) -> str:
    """The screen's text, with each line's blanks drawn together; `row` is what SQL selects as the predictions."""
    file = tmp_path / "part-0.parquet"
    duckdb.execute(f"COPY (SELECT {row}, 'run-1' AS model_run) TO '{file}' (FORMAT parquet)")
    console = Console(file=io.StringIO(), force_terminal=False, width=160)
    screen.show(console, Left({}, file), told, report=Path("/reports/page.html"))
    assert isinstance(console.file, io.StringIO)
    return "\n".join(" ".join(line.split()) for line in console.file.getvalue().splitlines())


def predicted(rows: int, **counts: int) -> dict[str, Any]:
    return {"rows": rows, "location": "s3://lake/nyc_flights/predictions/run-1/", "predicted": counts}


def test_screen_of_a_binary_run_should_count_the_positive_rows(tmp_path: Path) -> None:
    told = result(BINARY, predicted(1000, **{"0": 880, "1": 120}))
    text = shown(told, tmp_path, "12 AS flight, 0.25::DOUBLE AS probability, 0 AS prediction, 'test' AS side")
    assert "Model AUC PR-AUC log loss Brier accuracy rows" in text
    assert "held-out rows 0.745 0.539 0.480 0.149 0.799 200\nbase rate 0.500 0.238 0.549 0.182 0.763" in text
    assert "flight probability prediction side\n12 0.250 0 test" in text
    assert "1,000 rows scored, 120 predicted positive" in text
    nobody = screen._predicted(result(BINARY, predicted(1000, **{"0": 1000})))
    assert nobody == "1,000 rows scored, none predicted positive: no probability reaches 0.5, so rank rows by it"


def test_screen_should_say_what_the_threshold_means_in_rows(tmp_path: Path) -> None:
    called = ["A row is called positive from a probability of 0.1667 on.", "Of 200 held-out rows [12] are."]
    told = result(BINARY | {"calls": called, "threshold": 1 / 6}, predicted(1000, **{"0": 1000}))
    text = shown(told, tmp_path, "12 AS flight, 0.1::DOUBLE AS probability, 0 AS prediction")
    assert "\n".join(called) in text
    assert "1,000 rows scored, none predicted positive: no probability reaches 0.1667, so rank rows by it" in text


def test_screen_should_show_what_is_carried_rather_than_a_hash(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = load_dataset("nyc_flights")
    hashed = replace(settings, keys=("row_hash", "row_copy"), carried=("flight",))
    monkeypatch.setattr(screen, "load_dataset", lambda name: hashed)
    row = "'5f3' AS row_hash, 1 AS row_copy, 12 AS flight, 0.25::DOUBLE AS probability, 0 AS prediction"
    assert "\nflight probability prediction\n12 0.250 0\n" in shown(result(BINARY, predicted(1)), tmp_path, row)


def test_screen_should_show_the_learners_that_were_tried(tmp_path: Path) -> None:
    board = [{"learner": "boosted", "log_loss": 0.43}, {"learner": "tree", "log_loss": 0.45}]
    told = result(BINARY | {"tuning": {"metric": "log_loss", "leaderboard": board}}, predicted(1))
    text = shown(told, tmp_path, "12 AS flight")
    assert "\nTried boosted 0.430, tree 0.450 (log loss on the validation part)\n" in text
    assert "Tried" not in shown(result(BINARY, predicted(1)), tmp_path, "12 AS flight")


@pytest.mark.parametrize("current", [None, {"run_id": "run-0", "log_loss": 0.4}])
def test_screen_of_a_refused_run_should_offer_what_there_is(tmp_path: Path, current: dict[str, Any] | None) -> None:
    text = shown(result(BINARY | {"current": current}, {}), tmp_path, "12 AS flight")
    assert "dml report nyc_flights --run run-1" in text
    assert ("dml predict" in text) == bool(current)


def test_screen_of_a_refused_run_should_say_why_and_how_to_take_it_all_the_same(tmp_path: Path) -> None:
    gate = {"passed": False, "reasons": ["leak alarm: x alone tells y"], "checks": []}
    moved = {"name": "x", "verdict": "large", "psi": 0.4, "moves_score": {"by": -12.5, "of": ""}}
    told = replace(result(BINARY, {}), gate=gate, drift={"features": [moved, {"name": "y", "verdict": "stable"}]})
    text = shown(told, tmp_path, "12 AS flight")
    assert "Moved x (large, PSI 0.40, moves the mean score by \N{MINUS SIGN}12.50)\n" in text
    assert "Not published:\nleak alarm: x alone tells y\n" in text
    assert "dml models promote run-1 --dataset nyc_flights --even-if-refused make it current all the same" in text


def test_screen_of_a_multiclass_run_should_count_classes_and_leave_arrays_out(tmp_path: Path) -> None:
    told = result(MULTICLASS, predicted(1000, aspen=300, pine=600, fir=40, willow=30, oak=20, yew=7, elm=3))
    row = "12 AS plot, 0.75::DOUBLE AS probability, 'pine' AS prediction, [0.25, 0.75] AS probabilities, 'test' AS side"
    text = shown(told, tmp_path, row)
    assert "Model AUC log loss Brier accuracy macro F1 rows" in text
    assert "class shares 0.500 0.988 0.604 0.541 0.234" in text
    assert "Held-out log loss between 0.651 and 0.753 (95% interval)." in text
    assert "plot probability prediction side\n12 0.750 pine test" in text
    assert "1,000 rows scored: 600 pine, 300 aspen, 40 fir, 30 willow, 20 oak, 2 more classes" in text


def test_screen_of_a_regression_should_say_the_unit_and_stand_beside_mean_and_current_model(tmp_path: Path) -> None:
    told = result(REGRESSION, predicted(1000), unit="minutes")
    text = shown(told, tmp_path, "12 AS flight, -3.14159::DOUBLE AS prediction, 'test' AS side")
    assert "Model RMSE MAE R² bias rows" in text
    worse = (
        "On later rows (2013-11 to 2013-12) no better than always guessing the mean: RMSE 44.55 minutes against 42.50"
    )
    later = "Model RMSE MAE R² bias rows\nout of time 44.55 24.50 \N{EN DASH} 9.500 150\nmean 42.50 25.50 0.000 0.5000"
    held_out = "held-out rows 38.13 22.75 0.151 -0.5250 200\nmean 1,414 25.25 0.000 0.5125"
    assert f"{worse} minutes.\n\n{later}\n{held_out}\ncurrent model 39.50 23.50 0.125 0.06250" in text
    assert "RMSE, MAE, bias in minutes." in text
    assert "flight prediction side\n12 -3.142 test" in text
    assert "1,000 rows scored, prediction in minutes" in text


@pytest.mark.parametrize(
    ("metrics", "keys"),
    [
        (BINARY, {"auc", "pr_auc", "log_loss", "brier", "accuracy"}),
        (MULTICLASS, {"auc", "log_loss", "brier", "accuracy", "macro_f1"}),
        (REGRESSION, {"rmse", "mae", "r2", "bias"}),
    ],
)
def test_json_of_a_run_should_have_the_figures_of_its_task(metrics: dict[str, Any], keys: set[str]) -> None:
    told = result(metrics, predicted(1000)).as_json({"deploy": 1.0})
    assert set(told) == {"run_id", "dataset", "state", "published", "rows", "metrics", "seconds", "job_seconds", "uris"}
    assert told["metrics"]["test"] == {key: metrics["test"][key] for key in keys}
    assert told["metrics"]["baseline"] == {key: metrics["baseline"][key] for key in keys}
    later = metrics["out_of_time"]
    assert told["metrics"]["out_of_time"] == (later and {key: later[key] for key in keys})
    assert told["metrics"]["out_of_time_baseline"] == (later and {key: later["baseline"][key] for key in keys})


@pytest.mark.parametrize(
    ("figures", "said"),
    [
        ({"rows": 200, "log_loss": 0.48, "auc": 0.7451}, "AUC 0.745"),
        ({"r2": 0.15, "rmse": 12345.6}, "RMSE 12,346 minutes"),
        ({"auc": 0.7451, "out_of_time_auc": 0.61}, "AUC 0.610 out of time"),
        ({"rows": 200}, ""),
    ],
)
def test_the_headline_should_be_the_first_figure_that_is_there(figures: dict[str, Any], said: str) -> None:
    assert run.headline(figures, "minutes") == said


def test_the_board_should_tell_the_headline_of_a_trained_model(tmp_path: Path) -> None:
    ran = Run("run-1", "arn", {"train": Stage("train")}, state="SUCCEEDED")
    ran.stages["train"].started = ran.stages["train"].ended = datetime.now(UTC)
    console = Console(file=io.StringIO(), force_terminal=False, width=160)
    platform = Left({"nyc_flights/run-1/metrics.json": REGRESSION}, tmp_path)
    run._show(platform, "nyc_flights", ran, Board(console, ["train"]))
    assert isinstance(console.file, io.StringIO)
    assert "800 rows, tested on 150 later ones: RMSE 44.55, 21 leaves" in console.file.getvalue()


def test_the_board_should_tell_what_a_refused_run_left_out_in_its_order(tmp_path: Path) -> None:
    ran = Run("run-1", "arn", {name: Stage(name) for name in ("train", *"abcdefgh")}, state="SUCCEEDED")
    ran.stages["train"].started = ran.stages["train"].ended = datetime.now(UTC)
    console = Console(file=io.StringIO(), force_terminal=False, width=160)
    run._show(Left({}, tmp_path), "nyc_flights", ran, Board(console, list(ran.stages)))
    assert isinstance(console.file, io.StringIO)
    skipped = [line.split()[1] for line in console.file.getvalue().splitlines() if line.startswith("-")]
    assert skipped == list("abcdefgh")


class Quiet(Left):
    """An environment whose workbench is down and in which nothing ran."""

    paused: tuple[str, ...] = ()
    datasets = ("long_gone", "nyc_flights")

    def output(self, output: str) -> str:
        return output

    def client(self, service: str) -> Any:
        return self

    def get_parameter(self, **_asked: str) -> dict[str, Any]:
        return {"Parameter": {"Value": "none"}}

    def list_executions(self, **_asked: Any) -> dict[str, Any]:
        return {"executions": []}

    def describe_state_machine(self, **_asked: Any) -> dict[str, Any]:
        return {"creationDate": datetime(2026, 11, 20, tzinfo=UTC)}


class Anew(Quiet):
    """An environment that was destroyed and made anew, and what ran before and after."""

    def list_executions(self, **_asked: Any) -> dict[str, Any]:
        days = {"run-before": 19, "run-after": 21}
        return {
            "executions": [
                {"name": name, "status": "SUCCEEDED", "startDate": datetime(2026, 11, day, tzinfo=UTC)}
                for name, day in days.items()
            ]
        }


def test_status_should_leave_out_runs_of_what_is_gone(tmp_path: Path) -> None:
    console = Console(file=io.StringIO(), force_terminal=False, width=160)
    status.show(console, Anew({}, tmp_path))
    assert isinstance(console.file, io.StringIO)
    told = console.file.getvalue()
    assert "run-after" in told
    assert "run-before" not in told


@pytest.mark.parametrize(
    ("figures", "said"), [(BINARY["test"], "run-7 AUC 0.745"), (REGRESSION["test"], "run-7 RMSE 38.13")]
)
def test_status_should_show_the_current_models_main_figure(figures: dict[str, Any], said: str, tmp_path: Path) -> None:
    current = {"run_id": "run-7", "metrics": figures}
    console = Console(file=io.StringIO(), force_terminal=False, width=160)
    status.show(console, Quiet({"nyc_flights/CURRENT.json": current}, tmp_path))
    assert isinstance(console.file, io.StringIO)
    told = " ".join(console.file.getvalue().split())
    assert f"nyc_flights current model: {said}" in told
    assert "long_gone current model: none yet" in told
    assert "this checkout has no such dataset; take it away: dml dataset remove long_gone" in told
    assert "Not deployed: census_income, life_expectancy, penguins" in told
