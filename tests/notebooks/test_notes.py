"""The Zeppelin notes: well-formed, the same at each build, and every cell of each says what is so."""

import contextlib
import io
import json
import re
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from markdown_it import MarkdownIt

from datasets import dataset_names, load_dataset
from dml.models.scorer import Scorer
from jobs.errors import JobError
from jobs.models import forms, registry
from jobs.notes import show
from jobs.notes.here import Here
from jobs.tables import settings
from jobs.tables.settings import Decision
from notebooks.zpln import NoteError, build_note, build_notes, unwrapped
from tests.notebooks.shipped import ENVIRONMENT, SOURCES, Shipped, notes_of, parameters, twin
from tests.notebooks.zeppelin import Output

HEAD = re.compile(r"%(md|spark\.sql|spark\.pyspark)\n")
START, EXPLORE, BY_HAND = "1 Start here", "2 Explore", "3 Train a decision tree"
AS_THE_PIPELINE, UNDERSTAND, PREDICT = "4 Train as the pipeline does", "5 Understand the model", "6 Predict"
TRAIN = "Train on the training side, test on the other"
SVG = "{http://www.w3.org/2000/svg}"

OfDataset = Callable[[str], Shipped]
every = pytest.mark.parametrize("name", dataset_names())


def paragraphs(name: str) -> list[dict[str, Any]]:
    return [paragraph for note in notes_of(load_dataset(name)) for paragraph in note["paragraphs"]]


# --- As they are built ---


@every
def test_every_paragraph_should_carry_a_head_that_zeppelin_can_read_and_every_cell_a_title(name: str) -> None:
    for paragraph in paragraphs(name):
        head = HEAD.match(paragraph["text"])
        assert head is not None
        assert ("title" in paragraph) == (head[1] != "md")


@every
def test_no_text_should_break_in_mid_sentence_or_become_a_form(name: str) -> None:
    """Zeppelin breaks a text at each end of a line, and makes a form of each dollar sign before a brace."""
    for paragraph in paragraphs(name):
        if paragraph["text"].startswith("%md"):
            inline = [
                token.children or [] for token in MarkdownIt("commonmark").enable("table").parse(paragraph["text"][4:])
            ]
            assert not [one for children in inline for one in children if one.type == "softbreak"]
            assert "${" not in paragraph["text"]


@every
def test_names_and_ids_should_be_unique_and_titles_within_a_note(name: str) -> None:
    notes = notes_of(load_dataset(name))
    ids = [one["id"] for note in notes for one in [note, *note["paragraphs"]]]
    titles = [(note["name"], one["title"]) for note in notes for one in note["paragraphs"] if "title" in one]
    for told in (ids, titles, [note["name"] for note in notes]):
        assert len(set(told)) == len(told)


def test_name_and_id_should_be_those_of_the_file_as_zeppelins_s3_storage_asks(tmp_path: Path) -> None:
    given = parameters(load_dataset("nyc_flights"))
    for written in build_notes(SOURCES, tmp_path, folder="nyc_flights", parameters=given):
        note = json.loads(written.read_text(encoding="utf-8"))
        assert written == tmp_path / "nyc_flights" / f"{note['name']}_{note['id']}.zpln"
        assert re.fullmatch(r"2[1-9A-HJKMNP-Z]{8}", note["id"])


def test_two_builds_should_give_the_same_bytes(tmp_path: Path) -> None:
    given = parameters(load_dataset("nyc_flights"))
    first, second = (
        [one.read_bytes() for one in build_notes(SOURCES, tmp_path / name, folder="f", parameters=given)]
        for name in ("first", "second")
    )
    assert first == second


@pytest.mark.parametrize(
    ("source", "complaint"),
    [
        ("# A\n\n```scala\nval x = 1\n```\n", "line 3: a fence of scala"),
        ("# A\n\n{{bucket}}\n", "{{bucket}} is not a parameter"),
        ("No title\n", "the first line must be the note's title"),
        ("# A/B\n", "holds '/'"),
    ],
)
def test_a_source_that_cannot_be_a_note_should_say_why(tmp_path: Path, source: str, complaint: str) -> None:
    path = tmp_path / "bad.md"
    path.write_text(source, encoding="utf-8")
    with pytest.raises(NoteError, match=re.escape(complaint)):
        build_note(path, folder="f", parameters=parameters(load_dataset("penguins")))


def test_a_text_should_go_on_where_its_source_goes_on_in_the_next_line() -> None:
    source = (
        "# A\n\nOne\ntwo  \nthree.\n\n- an item\n  goes on\n- next\n\n> said\n> so\n\n| a | b |\n|---|---|\n| 1 | 2 |"
    )
    assert unwrapped(source) == (
        "# A\n\nOne two  \nthree.\n\n- an item goes on\n- next\n\n> said so\n\n| a | b |\n|---|---|\n| 1 | 2 |"
    )


# --- As they run ---


@every
def test_each_chart_should_draw_what_its_output_has_and_leave_nothing_out_of_sight(
    of_dataset: OfDataset, name: str
) -> None:
    """Of outputs, Zeppelin gives the first one the chart; it names up to 13 bars, and shows 31 rows in 1100 pixels."""
    shipped = of_dataset(name)
    charted = [(note["name"], one) for note in shipped.notes for one in note["paragraphs"] if one["config"]["results"]]
    assert charted
    for note, paragraph in charted:
        graph = paragraph["config"]["results"]["0"]["graph"]
        assert graph["setting"].keys() == {graph["mode"]}
        first, *_ = shipped.outputs[note, paragraph["title"]]
        if first.kind == "TEXT":  # there is nothing to draw, and it is said
            assert first.data.endswith(".")
            continue
        header, *rows = first.rows
        drawn = graph["keys"] + graph["groups"] + graph["values"]
        assert all(header[column["index"]] == column["name"] for column in drawn)
        bars = {tuple(row[column["index"]] for column in graph["keys"]) for row in rows}
        assert graph["mode"] != "multiBarChart" or 1 < len(bars) <= 13, paragraph["title"]
        assert graph["mode"] != "table" or len(rows) * 35 <= graph["height"], paragraph["title"]


@every
def test_start_here_should_tell_the_tables_the_run_behind_them_and_the_models_figures(
    of_dataset: OfDataset, name: str
) -> None:
    shipped = of_dataset(name)
    run = "run-2" if name == "penguins" else "run-1"
    _, tables = shipped.table(START, "The tables of the catalog")
    assert {"features", "predictions"} <= {row[1] for row in tables}
    assert "named_in_the_session" not in {row[1] for row in tables}
    told = shipped.figures(START, "Which run made which")
    assert [told[what][0] for what in ("features", "predictions", "the current model")] == ["run-1", run, run]
    counts = {what: int(rows) for what, (rows,) in shipped.figures(START, "From raw rows to features").items()}
    left = [rows for what, rows in counts.items() if what not in ("read", "features")]
    assert counts["features"] == counts["read"] - sum(left) == len(shipped.features)
    metrics = shipped.model("metrics")
    for figure, cells in shipped.figures(START, "How good the current model is").items():
        key = figure.replace(" ", "_")
        expected = [metrics["test"][key], metrics["baseline"][key]]
        for cell, value in zip(cells[:2], expected, strict=True):  # guessing calls no row positive: of no precision
            assert (float(cell) if cell else None) == (pytest.approx(value, rel=1e-3) if value is not None else None)
        assert bool(cells[2]) == (shipped.settings.time is not None)


def by_pandas(shipped: Shipped, feature: str) -> pd.DataFrame:
    """Rows and label of each value, the label as the notes have it: a share, of several classes the first one's."""
    label = shipped.features[shipped.settings.label.column]
    if shipped.settings.task == "multiclass":
        label = label == shipped.settings.label.classes[0]
    values = shipped.features[feature].astype(object).where(shipped.features[feature].notna(), "missing")
    return label.astype(float).groupby(values.astype(str)).agg(["size", "mean"])


@every
def test_explore_should_count_what_the_table_has(of_dataset: OfDataset, name: str) -> None:
    shipped = of_dataset(name)
    feature = parameters(shipped.settings)["feature"]
    expected = by_pandas(shipped, feature)
    rows = shipped.table(EXPLORE, "How often each value occurs")[1]
    assert [int(count) for _, count in rows] == expected["size"].nlargest(len(rows)).tolist()
    assert all(int(count) == expected["size"][value] for value, count in rows)
    assert len(rows) == min(len(expected), 12)
    by_label = shipped.table(EXPLORE, "The label by that feature")[1]
    assert [float(row[2]) for row in by_label] == pytest.approx(
        [expected["mean"][row[0]] for row in by_label], rel=1e-3
    )
    asked = [row for row in shipped.table(EXPLORE, "The label by any feature")[1] if row[0] != "null"]
    assert asked
    for value, count, mean in asked:
        assert (int(count), float(mean)) == (
            expected["size"][value],
            pytest.approx(expected["mean"][value], abs=6e-4),
        )
    missing = {one: float(share) for one, share in shipped.table(EXPLORE, "Share of missing values")[1]}
    for one, share in missing.items():
        assert share == pytest.approx(shipped.features[one].isna().mean(), rel=1e-3)
    assert len(missing) == min(13, len(shipped.settings.features.names))


@every
def test_a_number_should_be_explored_in_ten_equal_parts_and_by_the_class_that_is_chosen(
    of_dataset: OfDataset, name: str
) -> None:
    shipped = of_dataset(name)
    number, classes = shipped.settings.features.numbers[0], shipped.settings.label.classes
    ran = shipped.again(
        EXPLORE, "How often each value occurs", feature=number, **{"class": classes[-1]} if classes else {}
    )
    assert ran.status == "FINISHED", ran
    rows = {row[0]: int(row[1]) for row in ran.messages[0].rows[1:]}
    known = shipped.features[number].dropna()
    assert rows.pop("missing", 0) == len(shipped.features) - len(known)
    counted = np.histogram(known, bins=10)[0]
    assert list(rows.values()) == [count for count in counted if count]
    assert float(next(iter(rows))) == pytest.approx(known.min(), rel=1e-3)


def test_drift_should_be_told_if_there_is_a_model_before(of_dataset: OfDataset) -> None:
    told = of_dataset("penguins").figures(EXPLORE, "Drift between the runs")
    assert told.keys() == set(load_dataset("penguins").features.names)
    assert {(float(psi), verdict) for psi, verdict in told.values()} == {(0.0, "stable")}, "the same rows"
    (said,) = of_dataset("life_expectancy").outputs[EXPLORE, "Drift between the runs"]
    assert said == Output("TEXT", "The current model is the first one: there is no run before it to compare with.")


@every
def test_the_tree_by_hand_should_beat_guessing_on_rows_that_it_has_not_seen(of_dataset: OfDataset, name: str) -> None:
    shipped = of_dataset(name)
    label = shipped.features[shipped.settings.label.column]
    train, test = label[~shipped.on_test], label[shipped.on_test]
    sides = shipped.figures(BY_HAND, "The two sides")
    assert sides == {"train": [str(len(train))], "test": [str(len(test))]}
    figures = {
        figure: [float(cell) for cell in cells]
        for figure, cells in shipped.figures(BY_HAND, "On the test rows").items()
    }
    if shipped.settings.task == "regression":
        assert figures["rmse"][1] == pytest.approx(((test - train.mean()) ** 2).mean() ** 0.5, rel=1e-3)
        assert figures["rmse"][0] < 0.5 * figures["rmse"][1]
    else:
        assert figures["accuracy"][1] == pytest.approx((test == train.mode()[0]).mean(), rel=1e-3)
        shares = train.value_counts(normalize=True)
        assert figures["log loss"][1] == pytest.approx(-np.log(shares[test].to_numpy()).mean(), rel=1e-3)
        assert figures["accuracy"][0] > figures["accuracy"][1] - 0.02
    if shipped.settings.task == "binary":
        assert figures["AUC"][0] > 0.6 > figures["AUC"][1] == 0.5


@every
def test_the_tree_by_hand_should_be_printed_by_its_features_names(of_dataset: OfDataset, name: str) -> None:
    shipped = of_dataset(name)
    (printed,) = shipped.outputs[BY_HAND, "The tree, as MLlib prints it"]
    stages = shipped.figures(BY_HAND, "Fit it on the training side")
    kind = "Regression" if shipped.settings.task == "regression" else "Classification"
    (learned,) = stages[f"DecisionTree{kind}Model"]
    depth, nodes = (re.search(rf"{what}=(\d+)", printed.data) for what in ("depth", "numNodes"))
    assert depth
    assert nodes
    assert learned == f"{nodes[1]} nodes, depth {depth[1]}"
    asked = set(re.findall(r"If \((\w+) ", printed.data))
    assert asked
    assert asked <= set(shipped.settings.features.names)
    (first, *_), *_ = shipped.table(BY_HAND, "Which number is which category")[1]
    assert first == shipped.settings.features.categories[0]
    about = shipped.figures(BY_HAND, "The driver and its executors")
    assert about["master"] == ["local[2]"]
    assert about["executors of four tasks"] == about["driver"]


@every
def test_training_as_the_pipeline_should_be_held_against_the_current_model_on_the_same_rows(
    of_dataset: OfDataset, name: str
) -> None:
    shipped = of_dataset(name)
    metrics = shipped.model("metrics")
    told = shipped.figures(AS_THE_PIPELINE, TRAIN)
    for figure, (own, current, guessing) in told.items():
        key = figure.replace(" ", "_")
        assert float(current) == pytest.approx(metrics["test"][key], rel=1e-3)
        guess = metrics["baseline"][key]
        assert (float(guessing) if guessing else None) == (None if guess is None else pytest.approx(guess, rel=1e-3))
        assert figure not in ("log loss", "rmse") or float(own) < float(guessing)
    rows = shipped.outputs[AS_THE_PIPELINE, TRAIN][-1].data
    assert rows == f"trained on {metrics['rows']['train']:,} rows, tested on {metrics['rows']['test']:,}"
    main = metrics["main_metric"].replace("_", " ")
    verdict = shipped.figures(AS_THE_PIPELINE, "The verdict")
    better = float(told[main][0]) < float(told[main][1])
    assert verdict["this model"] == [f"{'better than' if better else 'no better than'} the current one"]
    assert [verdict["it has"][0], verdict["the current one has"][0]] == told[main][:2]


@every
def test_the_trees_branches_should_add_up_and_its_importances_to_one(of_dataset: OfDataset, name: str) -> None:
    shipped = of_dataset(name)
    header, (root, *branches) = shipped.table(AS_THE_PIPELINE, "The tree, branch by branch")
    assert header == ["depth", "condition", "rows", "says"]
    assert root[1] == "all rows"
    assert sum(int(row[2]) for row in branches if row[0] == "1") == int(root[2])
    for note, title in ((AS_THE_PIPELINE, "What it looks at"), (UNDERSTAND, "Importances")):
        weights = [float(row[1]) for row in shipped.table(note, title)[1]]
        assert weights == sorted(weights, reverse=True)
        assert sum(weights) == pytest.approx(1, abs=0.01)


@pytest.mark.parametrize("learner", ["mllib", "forest", "boosted"])
def test_another_learner_should_be_there_to_choose(of_dataset: OfDataset, learner: str) -> None:
    shipped = of_dataset("life_expectancy")
    forms = {"learner": learner, "depth": "3", "rows_in_a_leaf": "30", "rounds_of_boosting": "20"}
    trained, drawn, branches, weights = shipped.anew(
        AS_THE_PIPELINE, TRAIN, "The tree", "The tree, branch by branch", "What it looks at", **forms
    )
    assert [ran.status for ran in (trained, drawn, branches, weights)] == ["FINISHED"] * 4, trained
    own, guessing = next((float(row[1]), float(row[3])) for row in trained.messages[0].rows if row[0] == "rmse")
    assert own < 0.8 * guessing
    assert branches.messages[0].rows[1][1] == "all rows"
    assert sum(float(row[1]) for row in weights.messages[0].rows[1:]) == pytest.approx(1, abs=0.01)


def test_a_model_should_be_judged_by_what_its_errors_cost_where_the_dataset_says_so(
    of_dataset: OfDataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Against a current model that decides by the same costs, and against one that does not."""
    shipped, asked = of_dataset("census_income"), Decision(cost_of_miss=4.0, cost_of_false_alarm=1.0)
    load, current_model = settings.load, registry.current_model
    monkeypatch.setattr("jobs.notes.here.settings.load", lambda name: replace(load(name), decision=asked))
    of_costs, by_likelihood = [], []
    for decides in (True, False):
        more = {"decision": asked.asked, "threshold": 0.9, "format": 4} if decides else {}

        def current(*places: Any, more: dict[str, Any] = more) -> Any:
            found = current_model(*places)
            assert found is not None
            return replace(found, tree={**found.tree, **more})

        monkeypatch.setattr("jobs.notes.here.registry.current_model", current)
        trained, verdict = shipped.anew(AS_THE_PIPELINE, TRAIN, "The verdict", depth="3", rows_in_a_leaf="30")
        assert [trained.status, verdict.status] == ["FINISHED"] * 2, (trained, verdict)
        (of_costs if decides else by_likelihood).append(verdict)
    assert trained.messages[0].kind == "TABLE", "what is printed before it would have its chart"
    assert "threshold by [decision] on " in trained.messages[1].data
    table, *said = of_costs[0].messages
    told = dict(table.rows[1:])
    assert told["judged by"] == "what errors cost, lower is better"
    assert told["this model"] == "better than the current one"
    sentences = "\n".join(one.data for one in said)
    (cost,) = re.findall(r"held-out rows .* that costs ([\d,]+), never", sentences)
    assert float(told["it has"]) == float(cost.replace(",", "")) < float(told["the current one has"])
    table, *said = by_likelihood[0].messages
    told = dict(table.rows[1:])
    assert told["judged by"] == "log loss, lower is better"
    assert float(told["it has"]) == pytest.approx(
        next(float(row[1]) for row in trained.messages[0].rows if row[0] == "log loss"), rel=1e-3
    )
    assert "The current model does not decide by these costs" in said[0].data


def drawing(shipped: Shipped, note: str, title: str) -> ElementTree.Element:
    (picture, *_) = shipped.outputs[note, title]
    assert picture.kind == "HTML"
    return ElementTree.fromstring(picture.data)  # noqa: S314  # our own drawing


@every
def test_pictures_should_show_what_the_models_documents_say(of_dataset: OfDataset, name: str) -> None:
    shipped = of_dataset(name)
    model, metrics = shipped.model("tree"), shipped.model("metrics")
    boxes = drawing(shipped, UNDERSTAND, "The first levels of the tree").findall(f"{SVG}g")
    nodes = forms.trees(model)[0]
    assert len(boxes) == sum(node["depth"] <= 3 for node in nodes)
    titles = [box.findtext(f"{SVG}title") or "" for box in boxes]
    assert any(title.startswith("all rows | ") for title in titles)
    assert sum("100% of the rows" in title for title in titles) == 1
    dots = drawing(shipped, UNDERSTAND, "Predicted against observed").findall(f"{SVG}circle")
    rows = [int((dot.findtext(f"{SVG}title") or "").split(" rows")[0].replace(",", "")) for dot in dots]
    assert rows == [point["rows"] for point in metrics["calibration"]]
    if shipped.settings.task == "regression":
        (said,) = shipped.outputs[UNDERSTAND, "What is called what"]
        assert said.data.startswith("A regression calls no classes")
    else:
        texts = [text.text or "" for text in drawing(shipped, UNDERSTAND, "What is called what").findall(f"{SVG}text")]
        counts = [int(text.replace(",", "")) for text in texts if re.fullmatch(r"[\d,]+", text)]
        assert sum(counts) == metrics["rows"]["test"]


@every
def test_slices_should_be_told_largest_first_with_their_error(of_dataset: OfDataset, name: str) -> None:
    shipped = of_dataset(name)
    (first, *_) = shipped.outputs[UNDERSTAND, "The error by slice"]
    if not shipped.settings.slices:
        assert first.kind == "TEXT"
        return
    metrics = shipped.model("metrics")
    assert first.kind == "TABLE"
    assert len(first.rows) - 1 == min(13, sum(map(len, metrics["slices"].values())))
    for label, rows, error, guessing in first.rows[1:]:
        column, _, value = label.partition(": ")
        (own,) = [one for one in metrics["slices"][column] if one["value"] == value]
        assert int(rows) == own["rows"]
        assert float(error) == pytest.approx(own[metrics["main_metric"]], rel=1e-3)
        assert float(guessing) == pytest.approx(own["baseline"], rel=1e-3)
    rows_of = [int(row[1]) for row in first.rows[1:]]
    assert rows_of == sorted(rows_of, reverse=True)


@every
def test_a_single_rows_way_should_end_where_the_scorer_says(of_dataset: OfDataset, name: str) -> None:
    """The scorer is another program, which shares no code with the notes."""
    shipped = of_dataset(name)
    model = shipped.model("tree")
    row = shipped.features.sort_values("split_hash").iloc[0]
    plain = {
        one: None if pd.isna(row[one]) else row[one].item() if hasattr(row[one], "item") else row[one]
        for one in shipped.settings.features.names
    }
    said = Scorer(model).predict(plain)
    if "probability_0" in said:
        said["probability"] = max(value for key, value in said.items() if key.startswith("probability_"))
    (way, *_) = shipped.outputs[UNDERSTAND, "Its way through the tree"]
    if forms.is_one(model):
        (_, *steps) = way.rows
        assert steps[0][0] == "all rows"
        # What the way's last step says is what the scorer says, in fewer digits.
        last = re.search(r"[\d.]+(?= |$)", steps[-1][3].removeprefix(f"{said['prediction']} "))
        assert last
        assert float(last[0]) == pytest.approx(said.get("probability", said["prediction"]), rel=2e-3, abs=6e-4)
        by_rows = [int(step[2]) for step in steps]
        assert by_rows == sorted(by_rows, reverse=True)
    else:
        assert way == Output(
            "TEXT", f"Through {len(model['trees'])} trees a row has as many ways: what each feature adds stands above."
        )
    told = shipped.figures(UNDERSTAND, "What the model says of it")
    assert told.keys() == said.keys() & {"prediction", "probability"}
    for key, (value,) in told.items():
        if isinstance(said[key], str):
            assert value == said[key]
        else:
            assert float(value) == pytest.approx(said[key], rel=1e-3)
    told_of = shipped.outputs[UNDERSTAND, "What the model says of it"][1].data
    assert f"{shipped.settings.keys[0]} {row[shipped.settings.keys[0]]}" in told_of
    # What each feature adds, as the scorer has it, which leads from the average to what is said.
    header, bars = shipped.table(UNDERSTAND, "What each feature adds")
    assert header == ["feature", "of this row", "adds"]
    adds = {feature: float(adds) for feature, _, adds in bars}
    by_scorer = Scorer(model, reasons=3).predict(plain)
    for i in (1, 2, 3):
        name, effect = by_scorer[f"reason_{i}"], by_scorer[f"reason_{i}_effect"]
        assert name is None or adds[name] == pytest.approx(effect, rel=1e-3)
    expected, reached = (
        float(re.findall(r"(?:says|brings it to) (-?[\d.e-]+\d)", line)[0])
        for line in shipped.outputs[UNDERSTAND, "What each feature adds"][1].data.splitlines()
    )
    assert expected + sum(adds.values()) == pytest.approx(reached, abs=2e-3 * max(1, abs(reached)))
    assert reached == pytest.approx(said.get("probability", said["prediction"]), rel=2e-3)


@every
def test_a_scored_table_should_be_saved_and_queried(of_dataset: OfDataset, name: str) -> None:
    shipped = of_dataset(name)
    (_, counted) = shipped.outputs[PREDICT, "The first scored rows"]
    assert counted.data.startswith(f"{len(shipped.features):,} rows scored by the model of run run-")
    where = shipped.figures(PREDICT, "A table of your own")
    assert where["table"] == [f"{shipped.database}.scored"]
    assert where["files"][0].startswith(f"s3://jobs-lake/{name}/notes/scored/")
    scored = pq.read_table(shipped.local(where["files"][0])).to_pandas()
    assert len(scored) == len(shipped.features)
    published = shipped.clients["glue"].get_table(DatabaseName=shipped.database, Name="scored")["Table"]
    assert published["StorageDescriptor"]["Location"] == where["files"][0]

    said = parameters(shipped.settings)["said"]
    keys, label = list(shipped.settings.keys), shipped.settings.label.column
    judged = scored[scored["side"] == "test"].merge(shipped.features[[*keys, label]], on=keys)
    assert len(judged) == int(shipped.on_test.sum())
    happened = judged[label] == judged["prediction"] if shipped.settings.task == "multiclass" else judged[label]
    tenths = [list(map(float, row)) for row in shipped.table(PREDICT, "Said and happened, by tenths of the rows")[1]]
    rows = np.array([row[1] for row in tenths])
    assert len(tenths) == 10
    assert rows.sum() == len(judged)
    assert (rows * [row[2] for row in tenths]).sum() / rows.sum() == pytest.approx(judged[said].mean(), rel=1e-3)
    assert (rows * [row[3] for row in tenths]).sum() / rows.sum() == pytest.approx(happened.mean(), rel=1e-3)
    assert [row[2] for row in tenths] == sorted(row[2] for row in tenths)
    header, most = shipped.table(PREDICT, "The rows that it says most of")
    place = header.index(said)
    assert [float(row[place]) for row in most] == pytest.approx(judged[said].nlargest(10).tolist())


def test_a_table_that_no_note_has_made_should_never_be_written_over(of_dataset: OfDataset) -> None:
    shipped = of_dataset("penguins")
    theirs = {
        "Name": "theirs",
        "StorageDescriptor": {"Columns": [{"Name": "x", "Type": "int"}], "Location": "s3://jobs-lake/theirs/"},
    }
    shipped.clients["glue"].create_table(DatabaseName=shipped.database, TableInput=theirs)
    for name, why in (
        ("theirs", "is no table that a note has made: save under another name."),
        ("features", "is no table that a note has made: save under another name."),
        ("penguins", "is no table that a note has made: save under another name."),
        ("Mine!", "cannot be a table's name"),
    ):
        ran = shipped.again(PREDICT, "A table of your own", save_as=name)
        assert ran.status == "ERROR"
        assert why in ran.messages[-1].data
    before = shipped.clients["glue"].get_table(DatabaseName=shipped.database, Name="scored")["Table"]
    assert shipped.again(PREDICT, "A table of your own").status == "FINISHED"
    after = shipped.clients["glue"].get_table(DatabaseName=shipped.database, Name="scored")["Table"]
    assert before["StorageDescriptor"]["Location"] != after["StorageDescriptor"]["Location"]


def test_what_is_not_there_yet_should_be_told_with_the_way_out(of_dataset: OfDataset) -> None:
    """A dataset that was never run, an environment of a former release."""
    with of_dataset("penguins").node():
        never = Here(ENVIRONMENT, "never", "notes_never")
        with pytest.raises(JobError, match=r"No model of never is published yet\. Run the pipeline: dml run never"):
            never.current  # noqa: B018  # it is asked for
        with pytest.raises(JobError, match=r"no table notes_never\.features: run the pipeline, .* dml run never"):
            never.run_of("features")
        with pytest.raises(JobError, match=r"/dml/former/cluster/models is not there: deploy the stack dml-former-cl"):
            Here("former", "never", "notes_never").current  # noqa: B018


def test_late_flights_should_be_told_by_airport_too(of_dataset: OfDataset) -> None:
    header, rows = of_dataset("nyc_flights").table("Late flights", "Late flights by carrier and airport")
    assert header[:3] == ["carrier", "origin", "share_late"]
    assert {row[1] for row in rows} == {"EWR", "JFK", "LGA"}
    assert len({row[0] for row in rows}) == 8


def test_late_flights_should_grow_during_the_day(of_dataset: OfDataset) -> None:
    rows = of_dataset("nyc_flights").table("Late flights", "Late flights by hour of departure")[1]
    hours = {int(row[0]): float(row[1]) for row in rows}
    assert hours[7] < hours[12] < hours[19]


def test_a_twin_should_say_what_the_note_says(of_dataset: OfDataset, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a kernel that shows text only; the notes that train are left out, since they would do the same once more."""
    shipped = of_dataset("penguins")
    monkeypatch.setattr(show, "_jupyter", [])
    compared = 0
    for note in shipped.notes:
        if note["name"].startswith(("3", "4")):
            continue
        forms, setup, *cells = twin(note)["cells"]
        names: dict[str, Any] = {}
        for cell in (forms, setup):
            exec("".join(cell["source"]), names)  # noqa: S102  # it is our notebook
        for paragraph, cell in zip(note["paragraphs"], cells, strict=True):
            if cell["cell_type"] != "code":
                continue
            printed = io.StringIO()
            with contextlib.redirect_stdout(printed), shipped.node():
                exec("".join(cell["source"]), names)  # noqa: S102
            for output in shipped.outputs[note["name"], paragraph["title"]]:
                if output.kind == "HTML":
                    assert "a picture" in printed.getvalue()
                elif paragraph["text"].startswith("%spark.sql"):
                    assert printed.getvalue().splitlines()[0] == "\t".join(output.rows[0])
                    # As many rows, or more where a table was saved meanwhile.
                    assert len(printed.getvalue().splitlines()) >= len(output.rows)
                elif "scored/" not in output.data:  # each save has a folder of its own
                    assert output.data in printed.getvalue()
                compared += 1
    assert compared > 20
