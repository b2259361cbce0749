"""`dml predict FILE.csv`: CSV in, CSV out, and what an operator reads when a file or a model is not right."""

import csv
import gzip
import io
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dml import cli
from dml.estate.platform import Platform
from dml.local.cloud import Cloud
from dml.models import scorer
from stacks.outputs import Output

Run = Callable[..., tuple[int, str, str]]

# Keys of the dataset, features of the model, and a column of neither.
HEADER = "flight_date,carrier,flight,origin,temp,cancelled,note"
TREE: dict[str, Any] = {
    "format": 2,
    "dataset": "nyc_flights",
    "run_id": "run-7",
    "task": "binary",
    "label": "late",
    "positive": "arrives late",
    "classes": [],
    "unit": "",
    "features": [
        {"name": "temp", "kind": "number", "missing": -1e300, "missing_rows": 1},
        {"name": "cancelled", "kind": "number", "missing": -1e300, "missing_rows": 0},
        {
            "name": "carrier",
            "kind": "category",
            "encoding": {"AA": 0.1, "UA": 0.4, "it's": 0.4},
            "prior": 0.2,
            "unseen": 0.2,
            "missing": 0.4,
            "missing_rows": 2,
        },
    ],
    "nodes": [
        {
            "id": 1,
            "depth": 0,
            "rows": 10,
            "probability": 0.4,
            "feature": "carrier",
            "threshold": 0.3,
            "left": 2,
            "right": 3,
        },
        {
            "id": 2,
            "depth": 1,
            "rows": 6,
            "probability": 0.2,
            "feature": "temp",
            "threshold": 50.5,
            "left": 4,
            "right": 5,
        },
        {"id": 4, "depth": 2, "rows": 3, "probability": 0.125},
        {"id": 5, "depth": 2, "rows": 3, "probability": 0.30000000000000004},
        {
            "id": 3,
            "depth": 1,
            "rows": 4,
            "probability": 0.7,
            "feature": "cancelled",
            "threshold": 0.5,
            "left": 6,
            "right": 7,
        },
        {"id": 6, "depth": 2, "rows": 2, "probability": 0.5},
        {"id": 7, "depth": 2, "rows": 2, "probability": 0.9},
    ],
}
ROWS = [
    "2013-01-01,AA,1,JFK,39.5,false,",
    '2013-01-01,AA,2,JFK,5.1E1,0,"a, b"',
    "2013-01-02,UA,3,EWR,,FALSE,x",
    "2013-01-02,it's,4,EWR,NA,True,x",
    "2013-01-02,,5,EWR,NA,1,x",
    "2013-01-02,ZZ,6,LGA,nan,1,x",
    "2013-01-02,YY,7,LGA,51,1,x",
]
# Low temperature; high; UA not cancelled; cancelled; no carrier counts as 0.4; an unseen one as 0.2, missing goes left.
SCORES = ["0.125,0", "0.30000000000000004,0", "0.5,1", "0.9,1", "0.9,1", "0.125,0", "0.30000000000000004,0"]
KEYS = [",".join(row.split(",")[:4]) for row in ROWS]
SCORED = "flight_date,carrier,flight,origin,probability,prediction\n" + "".join(
    f"{key},{score}\n" for key, score in zip(KEYS, SCORES, strict=True)
)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the operator stands: tree.json and flights.csv lie there."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tree.json").write_text(json.dumps(TREE), encoding="utf-8")
    (tmp_path / "flights.csv").write_text("\n".join([HEADER, *ROWS]) + "\n", encoding="utf-8")
    return tmp_path


def predict(dml: Run, file: str, *options: str) -> tuple[int, str, str]:
    return dml("predict", file, "--model", "tree.json", *options)


def test_a_file_should_become_its_keys_with_their_predictions_on_stdout(dml: Run, folder: Path) -> None:
    code, out, err = predict(dml, "flights.csv")
    assert (code, out) == (0, SCORED)
    assert "7 rows scored with the model of run run-7" in err
    positive = sum(score.endswith(",1") for score in SCORES)
    assert f"\nPredictions: {positive} predicted positive.\n" in err
    assert 0 < positive < 7


def test_a_file_with_the_predictions_should_hold_what_stdout_would(dml: Run, folder: Path) -> None:
    code, out, err = predict(dml, "flights.csv", "-o", "scored.csv")
    assert (code, out) == (0, "")
    assert (folder / "scored.csv").read_text() == SCORED
    assert "scored.csv" in err
    assert not list(folder.glob(".*.part"))


def test_categories_that_training_has_not_seen_should_be_counted(dml: Run, folder: Path) -> None:
    _, _, err = predict(dml, "flights.csv")
    assert "carrier: 2 rows with a value that training has not seen (the first is 'ZZ')" in err


def test_all_columns_should_be_passed_through_as_they_are_when_asked_for(dml: Run, folder: Path) -> None:
    _, out, _ = predict(dml, "flights.csv", "--all-columns")
    assert out.splitlines()[:3] == [
        f"{HEADER},probability,prediction",
        f"{ROWS[0]},{SCORES[0]}",
        f"{ROWS[1]},{SCORES[1]}",
    ]


def test_a_file_without_any_key_should_keep_all_its_columns(dml: Run, folder: Path) -> None:
    tree = TREE | {"dataset": "elsewhere"}  # a dataset whose keys this checkout doesn't know
    (folder / "tree.json").write_text(json.dumps(tree))
    code, _, err = predict(dml, "flights.csv")
    assert code == 1
    assert "There is no datasets/elsewhere here, which says how raw files of elsewhere are read" in err
    _, out, _ = predict(dml, "flights.csv", "--read-as", "features")
    assert out.splitlines()[0] == f"{HEADER},probability,prediction"


def test_reasons_should_stand_behind_the_prediction_with_their_unit(dml: Run, folder: Path) -> None:
    """By hand: with nothing known 0.4075; a third of 0.7 - 0.4075 for the carrier known first, and so on."""
    code, out, err = predict(dml, "flights.csv", "--reasons", "2")
    assert code == 0
    table = list(csv.DictReader(io.StringIO(out)))
    assert list(table[0])[-4:] == ["reason_1", "reason_1_effect", "reason_2", "reason_2_effect"]
    third = table[2]
    assert third["prediction"] == "1"
    assert (third["reason_1"], third["reason_2"]) == ("carrier", "cancelled")
    assert float(third["reason_1_effect"]) == pytest.approx(0.2925 / 3 + 0.345 / 6 + 0.1725 / 6 + 0.225 / 3)
    assert float(third["reason_2_effect"]) == pytest.approx(-0.08 / 3 - 0.2 / 6 - 0.08 / 6 - 0.2 / 3)
    assert "Effects are in probability: what a feature of the row moved it by" in err
    assert [row["reason_1"] for row in table][5:] == ["carrier", "carrier"]  # one that training has not seen
    assert "carrier: 2 rows with a value that training has not seen" in err
    said = dml("predict", "nyc_flights", "--reasons", "2")[2]
    assert "prediction.reasons in dataset.toml" in " ".join(said.replace("│", "").split())


def test_scoring_a_scored_file_again_should_replace_its_predictions(dml: Run, folder: Path) -> None:
    _, once, _ = predict(dml, "flights.csv", "--all-columns")
    (folder / "flights.csv").write_text(once.replace("0.9,1", "0.1,0"))
    _, twice, _ = predict(dml, "flights.csv", "--all-columns")
    assert twice == once


@pytest.mark.parametrize("delimiter", [";", "\t", "|"])
def test_a_files_own_delimiter_should_be_found_and_kept(dml: Run, folder: Path, delimiter: str) -> None:
    rows = list(csv.reader([HEADER, *ROWS]))
    with (folder / "flights.tsv").open("w", newline="") as file:
        csv.writer(file, delimiter=delimiter).writerows(rows)
    code, out, _ = predict(dml, "flights.tsv")
    assert (code, out) == (0, SCORED.replace(",", delimiter))


def test_a_packed_file_with_a_byte_order_mark_and_windows_line_ends_should_be_read(dml: Run, folder: Path) -> None:
    text = "\ufeff" + "\r\n".join([HEADER.replace("flight_date", '"flight_date"'), *ROWS, ""])
    (folder / "flights.csv.gz").write_bytes(gzip.compress(text.encode("utf-8")))
    code, out, _ = predict(dml, "flights.csv.gz")
    assert (code, out) == (0, SCORED)


def test_texts_that_mean_missing_can_be_given(dml: Run, folder: Path) -> None:
    (folder / "flights.csv").write_text(f"{HEADER}\n2013-01-01,AA,1,JFK,-,0,\n2013-01-01,?,1,JFK,1,1,\n")
    _, out, _ = predict(dml, "flights.csv", "--null", "-", "--null", "?")
    assert [line.split(",")[4] for line in out.splitlines()[1:]] == ["0.125", "0.9"]


def test_a_text_that_means_missing_should_be_a_category_where_training_has_seen_it_as_one(folder: Path) -> None:
    tree = json.loads(json.dumps(TREE))
    tree["features"][2] |= {"encoding": {"NA": 0.1}, "missing": 0.9}
    out = io.StringIO()
    scorer.score_csv(scorer.Scorer(tree), ["carrier,temp,cancelled\n", "NA,NA,0\n", ",1,0\n"], out, name="x")
    assert [line.split(",")[3] for line in out.getvalue().splitlines()[1:]] == ["0.125", "0.5"]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (
            "flight_date,carrier\n2013-01-01,AA\n",
            "has no column temp, cancelled, which the model needs; it has flight_date",
        ),
        (
            f"{HEADER}\n{ROWS[0]}\n2013-01-01,AA,2,JFK,mild,0,\n",
            "flights.csv, line 3: temp is 'mild', which is no number",
        ),
        (f"{HEADER}\n2013-01-01,AA,2,JFK,1_000,0,\n", "flights.csv, line 2: temp is '1_000', which is no number"),
        (f"{HEADER}\n{ROWS[0]}\n\n2013-01-01,AA,2\n", "flights.csv, line 4: 3 cells, but the header has 7 columns"),
        (f"{HEADER},temp\n", "has the column temp more than once"),
        ("", "flights.csv is empty"),
        (f"{HEADER}\n{ROWS[0]}\n".encode("utf-16"), "flights.csv is UTF-16: convert it"),
        (f"{HEADER}\n{ROWS[0]}\n".encode() + b"\xfc", "flights.csv is not UTF-8 text"),
        (b'temp,carrier,cancelled\n1,"' + b"x" * 1100, "line 2: not readable as CSV: a cell has more than 1,000 char"),
        (b"x" * 1100, "not readable as CSV: a cell has more than 1,000 characters; is a quote in it never closed?"),
    ],
)
def test_a_file_that_cannot_be_scored_should_be_told_in_one_sentence_and_leave_no_output(
    dml: Run, folder: Path, monkeypatch: pytest.MonkeyPatch, content: str | bytes, said: str
) -> None:
    monkeypatch.setattr(scorer, "LARGEST_CELL", 1000)
    (folder / "flights.csv").write_bytes(content if isinstance(content, bytes) else content.encode())
    (folder / "scored.csv").write_text("of yesterday")
    code, out, err = predict(dml, "flights.csv", "-o", "scored.csv")
    assert (code, out) == (1, "")
    assert said in err
    assert len(err.strip().splitlines()) == 1
    assert (folder / "scored.csv").read_text() == "of yesterday"
    assert sorted(path.name for path in folder.iterdir()) == ["flights.csv", "scored.csv", "tree.json"]


def test_a_cell_of_a_million_characters_should_be_scored(dml: Run, folder: Path) -> None:
    long = "x" * 1_000_000
    (folder / "flights.csv").write_text(f"{HEADER},remark\n{ROWS[0]},{long}\n{ROWS[1]},{long}\n")
    assert predict(dml, "flights.csv")[:2] == (0, "".join(SCORED.splitlines(keepends=True)[:3]))


def test_a_broken_gzip_file_should_be_told_in_one_sentence(dml: Run, folder: Path) -> None:
    packed = gzip.compress(("\n".join([HEADER, *ROWS * 500])).encode())
    # Cut short; a block of a kind that deflate doesn't have, right after the header; something else altogether.
    for content in (packed[:-20], packed[:10] + b"\xff" * 100, b"no gzip"):
        (folder / "flights.csv.gz").write_bytes(content)
        code, _, err = predict(dml, "flights.csv.gz")
        assert code == 1
        assert "flights.csv.gz is not a whole gzip file" in err


@pytest.mark.parametrize(
    ("model", "said"),
    [
        (
            {"nodes": [], "features": []},
            "This is a tree.json of format 1, and this scorer reads formats 2, 3 and 4: train again",
        ),
        ({"rows": 1}, "This is no tree.json"),
        ([], "This is no tree.json"),
        (None, "tree.json is no JSON"),
    ],
)
def test_a_model_that_is_not_a_tree_of_this_format_should_be_refused(
    dml: Run, folder: Path, model: object, said: str
) -> None:
    (folder / "tree.json").write_text("{" if model is None else json.dumps(model))
    code, out, err = predict(dml, "flights.csv")
    assert (code, out) == (1, "")
    assert said in err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["nowhere.csv", "--model", "tree.json"], "nowhere.csv: No such file"),
        (["flights.csv", "--model", "nowhere.json"], "nowhere.json: No such file"),
        (["flights.csv", "--model", "tree.json", "-o", "nowhere/scored.csv"], "there is no folder nowhere"),
        (["flights.csv", "--local"], "dml local up"),
        (["flights.csv", "--dataset", "flight"], "There is no dataset 'flight'"),
    ],
)
def test_what_is_not_there_should_be_named(dml: Run, folder: Path, arguments: list[str], said: str) -> None:
    code, out, err = dml("predict", *arguments)
    assert (code, out) == (1, "")
    assert said in err


def test_options_of_a_file_should_be_refused_with_a_dataset_and_the_other_way_round(dml: Run, folder: Path) -> None:
    assert dml("predict", "nyc_flights", "-o", "scored.csv")[0] == 2
    assert dml("predict", "flights.csv", "--json")[0] == 2
    assert dml("predict", "flights.csv", "--table", "other")[0] == 2


class Deployed(Platform):
    """A platform whose one bucket is there, without the stacks that make it."""

    outputs = {Output.MODELS_BUCKET: "scoring-models"}  # noqa: RUF012


def test_without_a_model_file_the_datasets_current_model_should_score(
    dml: Run, folder: Path, cloud: Cloud, aws: Callable[[str], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    made = lambda local, env: Deployed(env, credentials=cloud.environment())  # noqa: E731
    monkeypatch.setattr("dml.estate.platform.deployed", made)
    aws("s3").create_bucket(Bucket="scoring-models")
    code, _, err = dml("predict", "flights.csv")
    assert code == 1
    assert "nyc_flights/CURRENT.json does not exist. Train one (dml run nyc_flights --local), or name" in err

    aws("s3").put_object(Bucket="scoring-models", Key="nyc_flights/CURRENT.json", Body=json.dumps({"run_id": "run-7"}))
    assert "has no s3://scoring-models/nyc_flights/run-7/tree.json" in dml("predict", "flights.csv")[2]

    aws("s3").put_object(Bucket="scoring-models", Key="nyc_flights/run-7/tree.json", Body=json.dumps(TREE))
    assert dml("predict", "flights.csv")[:2] == (0, SCORED)


@pytest.mark.parametrize("ending", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_run_should_leave_no_file_behind(folder: Path, ending: signal.Signals) -> None:
    os.mkfifo(folder / "endless.csv")  # it waits for rows that do not come
    # A shell starts background work with interrupts ignored, and a child inherits that: here it is as at a terminal.
    code = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); from dml.cli import main; main()"
    command = [sys.executable, "-c", code, "predict", "endless.csv"]
    command += ["--model", "tree.json", "-o", "scored.csv", "--read-as", "features"]
    environment = os.environ | {"PYTHONPATH": str(Path(cli.__file__).parents[1])}
    running = subprocess.Popen(command, cwd=folder, env=environment, stderr=subprocess.PIPE, text=True)
    with running, (folder / "endless.csv").open("w") as rows:
        rows.write(f"{HEADER}\n")
        rows.flush()
        deadline = time.monotonic() + 30
        while not list(folder.glob(".scored.csv.*.part")):
            assert time.monotonic() < deadline
            assert running.poll() is None
        running.send_signal(ending)
        _, err = running.communicate(timeout=30)
    assert running.returncode == 130
    assert "Traceback" not in err
    assert sorted(path.name for path in folder.iterdir()) == ["endless.csv", "flights.csv", "tree.json"]


def test_the_scorer_should_run_as_a_copied_file_without_the_platform(folder: Path) -> None:
    (folder / "scorer.py").write_text(Path(scorer.__file__).read_text(encoding="utf-8"), encoding="utf-8")
    command = [sys.executable, "-I", "-S", "scorer.py", "tree.json"]  # no site-packages: the standard library only
    ran = subprocess.run([*command, "flights.csv"], cwd=folder, capture_output=True, text=True, check=True)
    assert ran.stdout.splitlines()[1:] == [f"{row},{score}" for row, score in zip(ROWS, SCORES, strict=True)]
    failed = subprocess.run([*command, "nowhere.csv"], cwd=folder, capture_output=True, text=True, check=False)
    assert failed.returncode == 1
    assert "nowhere.csv" in failed.stderr
    assert "Traceback" not in failed.stderr


def test_a_row_should_be_scored_from_python_values() -> None:
    made = scorer.Scorer(TREE)
    assert made.predict({"carrier": "UA", "temp": 1, "cancelled": True}) == {"probability": 0.9, "prediction": 1}
    assert made.predict({"carrier": None, "temp": None, "cancelled": 10**400}) == {"probability": 0.5, "prediction": 1}
    assert made.predict({"carrier": float("nan"), "temp": 1, "cancelled": 0})["probability"] == 0.5
    with pytest.raises(scorer.ScoringError, match="The row has no temp, cancelled, which the model needs"):
        made.predict({"carrier": "UA"})
    with pytest.raises(scorer.ScoringError, match="temp is 'mild', which is no number"):
        made.predict({"carrier": "AA", "temp": "mild", "cancelled": 0})


def test_memory_should_stay_bounded_however_many_values_a_number_has(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scorer, "REMEMBERED", 10)
    leaf, tables = scorer.Scorer(TREE).compile({"temp": 0, "cancelled": 1, "carrier": 2})
    assert len({leaf([str(i), "0", "AA"]) for i in range(100)}) == 2
    assert len(tables["temp"]) == 10


def forest(link: str, task: str, trees: int = 12) -> dict[str, Any]:
    """Several trees at random, one of which is a leaf; a feature that none asks for."""
    source = random.Random(f"{link} {task}")  # noqa: S311  # test data
    said = "value" if link != "mean" or task == "regression" else "probability"
    features = [
        {"name": "x", "kind": "number", "missing": -1e300},
        {"name": "y", "kind": "number", "missing": -1e300},
        {"name": "c", "kind": "category", "encoding": {"a": 0.2, "b": 0.8}, "missing": 0.4, "unseen": 0.5},
        {"name": "unused", "kind": "number", "missing": -1e300},
    ]

    def tree(depth: int) -> list[dict[str, Any]]:
        nodes: list[dict[str, Any]] = []

        def make(level: int) -> int:
            node: dict[str, Any] = {"id": len(nodes), "depth": level}
            nodes.append(node)
            if level == depth or (level and source.random() < 0.2):
                node[said] = source.random()
            else:
                feature = source.choice(features[:3])["name"]
                threshold = source.choice([-1e299, 1.0, 2.5, 4.0] if feature != "c" else [0.3, 0.45, 0.6])
                node.update(feature=feature, threshold=threshold, left=make(level + 1), right=make(level + 1))
            return int(node["id"])

        make(0)
        return nodes

    model = {"format": 3, "dataset": "d", "task": task, "run_id": "r", "features": features, "link": link}
    return {**model, "base": [] if link == "mean" else [-0.25], "trees": [{"nodes": tree(i % 6)} for i in range(trees)]}


@pytest.mark.parametrize(
    ("link", "task"), [("logistic", "binary"), ("identity", "regression"), ("mean", "binary"), ("mean", "regression")]
)
def test_rows_that_go_down_together_should_be_told_what_each_is_told_alone(
    monkeypatch: pytest.MonkeyPatch, link: str, task: str
) -> None:
    monkeypatch.setattr(scorer, "BATCH", 7)
    source = random.Random(4)  # noqa: S311  # test data
    cells = ([0, 1, 1.5, 2.5, 3, "NA", "", "inf", "true"], [1, 2, 4, 5, "NA"], ["a", "b", "", "new", "other"])
    rows = [",".join(str(source.choice(column)) for column in cells) for _ in range(200)]
    text = [f"{line}\n" for line in ["id,x,y,c,unused", *(f"{i},{row},1" for i, row in enumerate(rows))]]
    told = []
    for alone in (False, True):
        own = scorer.Scorer(forest(link, task))
        if alone:
            monkeypatch.setattr(own, "together", lambda *_: None)
        else:
            _, tables = own.compile({name: i for i, name in enumerate(own.features, 1)})
            assert own.together({name: i for i, name in enumerate(own.features, 1)}, tables)
        out = io.StringIO()
        found = scorer.score_csv(own, text, out, name="rows.csv", keys=["id"])
        told.append((out.getvalue(), found))
    assert told[0] == told[1]
    assert told[0][1].unseen["c"][0] == sum(",new" in row or ",other" in row for row in rows), "each row is counted"

    broken = [*text[:20], "20,3,many,a,1\n", *text[21:]]
    with pytest.raises(scorer.ScoringError, match=r"rows.csv, line 21: y is 'many', which is no number. Mend it"):
        scorer.score_csv(scorer.Scorer(forest(link, task)), broken, io.StringIO(), name="rows.csv")


def test_trees_that_a_byte_does_not_tell_should_be_asked_row_by_row(monkeypatch: pytest.MonkeyPatch) -> None:
    def able(model: dict[str, Any], reasons: int = 0) -> bool:
        own = scorer.Scorer(model, reasons)
        where = {name: i for i, name in enumerate(own.features)}
        return own.together(where, own.compile(where)[1]) is not None

    several = forest("logistic", "binary")
    assert able(several)
    assert not able(TREE), "one tree is fastest by itself"
    classes = forest("softmax", "multiclass") | {"classes": ["a", "b", "c"], "base": [0.0, 0.0, 0.0]}
    assert not able(classes)
    covered = [[{**node, "cover": 1.0} for node in tree["nodes"]] for tree in several["trees"]]
    assert not able({**several, "trees": [{"nodes": nodes} for nodes in covered]}, reasons=1)
    monkeypatch.setattr(scorer, "BYTE", 5)
    assert not able(several)
