"""`dml dataset new` and `dml dataset check`: what they guess of files that people have, and what they say is wrong."""

import csv
import datetime as dt
import gzip
import io
import itertools
import json
import random
import re
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import duckdb
import numpy as np
import pyarrow as pa  # pyarrow ships no types
import pyarrow.parquet as pq
import pytest
from pyspark.sql import SparkSession
from pyspark.sql import functions as F

import datasets
from datasets import DatasetError, load_dataset
from dml import cli
from dml.dataset import check as dataset
from dml.dataset import csv_file, guesses
from dml.dataset import new as own
from dml.dataset.check import Checked
from dml.dataset.csv_file import Dialect, load_text, lost_rows, shares_told
from dml.dataset.scaffold import Draft, training
from dml.errors import UserError
from dml.models import cells
from dml.terminal.console import err
from jobs.prepare import join
from jobs.tables import records
from jobs.tables.settings import Dataset, Encoding

New = Callable[..., Draft]


@pytest.fixture
def files(tmp_path: Path) -> Path:
    folder = tmp_path / "files"
    folder.mkdir()
    return folder


@pytest.fixture
def new(tmp_path: Path, files: Path, monkeypatch: pytest.MonkeyPatch) -> New:
    """new(label, {file: text}) scaffolds the dataset `d` in a datasets folder of the test's own."""
    monkeypatch.setattr(datasets, "HOME", tmp_path / "datasets")

    def scaffold(label: str, texts: dict[str, str | bytes], *, columns: str = "", name: str = "d") -> Draft:
        for file, text in texts.items():
            (files / file).write_bytes(text.encode() if isinstance(text, str) else text)
        paths = [files / file for file in texts]
        return own.new(name, paths, label, columns=columns.split(",") if columns else [], on_progress=lambda _: None)

    return scaffold


def lines(header: str, row: Callable[[int, random.Random], str], rows: int = 60, seed: int = 0) -> str:
    """CSV text; `row` gives line i, with a random source of its own."""
    source = random.Random(seed)  # noqa: S311  # test data
    return "\n".join([header, *(row(i, source) for i in range(rows))]) + "\n"


def toml() -> str:
    return (datasets.HOME / "d" / "dataset.toml").read_text(encoding="utf-8")


def sql() -> str:
    return datasets.prepare_sql("d")


CHURN = lines(
    "customer,plan,minutes,churn",
    lambda i, r: f"C{i},{r.choice(['basic', 'pro'])},{r.randint(1, 99)},{'yes' if r.random() < 0.3 else 'no'}",
)


def test_a_label_of_two_values_should_be_binary_with_yes_as_positive(new: New) -> None:
    new("churn", {"churn.csv": CHURN})
    found = load_dataset("d")
    assert (found.task, found.main, found.keys) == ("binary", "churn", ("customer",))
    assert found.label.positive == "churn is yes"
    assert found.features.numbers == ("minutes",)
    assert found.features.categories == ("plan",)
    assert found.tables["churn"].columns["minutes"] == "bigint"
    assert "CASE churn WHEN 'yes' THEN 1 WHEN 'no' THEN 0 END AS churn" in sql()


def test_a_cell_of_millions_of_characters_should_be_a_cell_like_others(new: New) -> None:
    text = lines("x,text,late", lambda i, r: f"{r.random()},{'long ' * (600_000 if i == 7 else 2)},{i % 2}")
    draft = new("late", {"a.csv": text})
    assert draft.known == 60
    assert draft.target.task == "binary"


@pytest.mark.parametrize(
    ("often", "seldom", "positive"),
    [("ja", "nein", "ja"), ("will buy", "no", "will buy"), ("no", "0", "0"), ("Oui", "Non", "Oui"), ("b", "a", "a")],
)
def test_a_word_for_yes_or_else_for_no_should_tell_which_value_is_positive(
    new: New, often: str, seldom: str, positive: str
) -> None:
    new("buys", {"a.csv": lines("x,buys", lambda i, r: f"{r.random()},{often if i % 4 else seldom}")})
    assert load_dataset("d").label.positive == f"buys is {positive}"


def test_without_a_word_for_positive_the_rarer_value_should_be_positive(new: New) -> None:
    new("side", {"a.csv": lines("x,side", lambda i, r: f"{r.random()},{'left' if i % 4 else 'right'}")})
    assert load_dataset("d").label.positive == "side is right"


def test_a_label_of_a_few_texts_should_be_multiclass_with_its_classes(new: New) -> None:
    new("kind", {"a.csv": lines("x,kind", lambda i, r: f"{r.random()},{'abc'[r.randint(0, 2)]}")})
    found = load_dataset("d")
    assert found.task == "multiclass"
    assert found.label.classes == ("a", "b", "c")


def test_a_label_of_small_integers_should_be_multiclass_and_say_how_to_make_it_a_number(new: New) -> None:
    new("quality", {"a.csv": lines("x,quality", lambda i, r: f"{r.random()},{r.randint(3, 8)}")})
    assert load_dataset("d").label.classes == ("3", "4", "5", "6", "7", "8")
    assert 'task = "regression"' in toml()
    assert (
        "CASE WHEN CAST(quality AS STRING) IN ('3', '4', '5', '6', '7', '8') THEN CAST(quality AS STRING) END" in sql()
    )


def test_what_a_label_may_be_should_be_closed(new: New) -> None:
    new("churn", {"churn.csv": CHURN})
    found = load_dataset("d")
    assert (found.label.raw, found.label_texts) == ("churn", ("no", "yes"))
    new("kind", {"k.csv": lines("x,kind", lambda i, r: f"{r.random()},{'abc'[r.randint(0, 2)]}")}, name="k")
    assert load_dataset("k").label_texts == ("a", "b", "c")
    assert "CASE WHEN kind IN ('a', 'b', 'c') THEN kind END AS kind" in datasets.prepare_sql("k")


@pytest.mark.parametrize(
    ("spellings", "line"),
    [
        (["Yes", "yes", "No"], "`CASE lower(trim(y)) WHEN 'yes' THEN 1 WHEN 'no' THEN 0 END AS y`"),
        (
            ["Red", "red", "Blue", "Green"],
            "`CASE lower(trim(y)) WHEN 'blue' THEN 'Blue' WHEN 'green' THEN 'Green' WHEN ",
        ),
    ],
)
def test_spellings_of_one_value_should_be_asked_about_with_the_line_that_joins_them(
    new: New, spellings: list[str], line: str
) -> None:
    found = new("y", {"a.csv": lines("x,y", lambda i, r: f"{r.randint(1, 9)},{spellings[i % len(spellings)]}", 600)})
    (note,) = [note for note in found.notes if "capitals or spaces" in note]
    assert line in note


def test_a_label_of_numbers_should_be_regression_with_a_tolerance_in_its_unit(new: New) -> None:
    found = new("y", {"a.csv": lines("x,y", lambda i, r: f"{r.random()},{r.random() * 1000:.2f}")})
    settings = load_dataset("d")
    assert settings.task == "regression"
    assert settings.gate.tolerance == pytest.approx(0.01 * found.target.deviation, rel=0.05)
    assert (settings.gate.suspicious_auc, settings.gate.suspicious_r2) == (None, None)


def test_a_column_that_tells_the_label_should_be_left_out_with_the_reason(new: New) -> None:
    def row(i: int, r: random.Random) -> str:
        y = r.randint(0, 1)
        return f"{r.random()},{y * 50 + r.random()},{'gone' if y else 'here'},{y}"

    new("y", {"a.csv": lines("x,paid,state,y", row, rows=200)})
    assert load_dataset("d").features.numbers == ("x",)
    assert load_dataset("d").features.categories == ()
    assert "paid   LEAK? tells the label by itself (AUC 1.000)" in toml()
    assert "state  LEAK?" in toml()


def test_a_number_that_tells_a_class_or_an_amount_should_be_a_leak_too(new: New) -> None:
    def row(i: int, r: random.Random) -> str:
        y = r.randint(0, 2)
        return f"{r.random()},{(y * 7) % 5 + r.random() / 2},{'abc'[y]}"

    new("kind", {"a.csv": lines("x,code,kind", row, rows=200)})
    assert "code  LEAK? tells the label by itself (right for 100.0% of rows)" in toml()
    text = lines("x,cents,euros", lambda i, r: f"{r.random()},{(v := r.randint(1, 9999))},{v / 100}", rows=200)
    new("euros", {"b.csv": text}, name="e")
    assert load_dataset("e").features.numbers == ("x",)


def test_a_category_with_many_values_should_not_be_taken_for_a_leak(new: New) -> None:
    text = lines("city,y", lambda i, r: f"city{r.randint(0, 39)},{r.randint(0, 1)}", rows=400)
    new("y", {"a.csv": text})
    assert load_dataset("d").features.categories == ("city",)


def test_a_column_missing_just_where_the_label_is_should_be_pointed_out(new: New) -> None:
    def row(i: int, r: random.Random) -> str:
        known = r.random() < 0.9
        return f"{r.random()},{r.random() if known else ''},{r.randint(0, 1) if known else ''}"

    new("y", {"a.csv": lines("x,duration,y", row, rows=200)})
    assert "duration  LEAK? missing just where y is" in toml()
    assert "duration" not in load_dataset("d").features.numbers
    assert load_dataset("d").label.unknown == "y is not known"


def test_what_cannot_be_learned_from_should_be_left_out_with_its_reason(new: New) -> None:
    def row(i: int, r: random.Random) -> str:
        return f"{i},{i * 37 % 60},same,,note {i % 45} {i % 2},{r.choice('ab')},{r.random()},{i % 2}"

    new("y", {"a.csv": lines("id,order_id,const,nothing,notes,kind,x,y", row)})
    features = load_dataset("d").features
    assert features.numbers == ("x",)
    assert features.categories == ("kind",)
    for told in (
        "order_id  an identifier: another number in every row",
        "const     the same value in every row",
        "nothing   no value in any row",
    ):
        assert told in toml()
    assert "notes     " in toml()
    assert '# const = "string"' in toml()


def test_a_column_that_says_the_same_as_another_should_be_left_out(new: New) -> None:
    def row(i: int, r: random.Random) -> str:
        level = r.randint(0, 3)
        celsius = r.random() * 30
        return f"{['no', 'low', 'mid', 'high'][level]},{level},{celsius},{celsius * 1.8 + 32},{r.randint(0, 1)}"

    new("y", {"a.csv": lines("education,education_num,celsius,fahrenheit,y", row)})
    assert load_dataset("d").features.numbers == ("education_num", "celsius")
    assert load_dataset("d").features.categories == ()
    assert "education   says the same as education_num" in toml()


def test_names_that_the_catalog_cannot_keep_should_be_cleaned_and_remembered(new: New) -> None:
    text = lines(
        "Größe,2nd Plan,plan,Plan #,select,日本,PassengerId,Label?",
        lambda i, r: f"{r.random()},{r.choice('ab')},{r.random()},{r.random()},{r.random()},{r.random()},{i},{i % 2}",
    )
    new("Label?", {"My File-1.csv": text})
    found = load_dataset("d")
    table = found.tables["my_file_1"]
    assert list(table.columns) == [
        "grosse",
        "c_2nd_plan",
        "plan",
        "plan_2",
        "select",
        "column_6",
        "passenger_id",
        "label",
    ]
    assert table.names == {
        "grosse": "Größe",
        "c_2nd_plan": "2nd Plan",
        "plan_2": "Plan #",
        "column_6": "日本",
        "passenger_id": "PassengerId",
        "label": "Label?",
    }
    assert "`select`" in sql()


def test_names_in_any_script_should_stay_names_for_people(
    new: New, files: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    header = "Цена,площадь,日本,Größe,купил"
    text = lines(
        header,
        lambda i, r: f"{i},{'x' if i == 50 else r.random()},{r.choice('ab')},{r.random()},{'да' if i % 9 else 'нет'}",
        80,
    )
    found = new("купил", {"дом.csv": text})
    settings = load_dataset("d")
    assert settings.called == {
        "column_1": "Цена", "column_2": "площадь", "column_3": "日本", "grosse": "Größe", "column_5": "купил",
    }  # fmt: skip
    assert settings.label.positive == "купил is нет"
    assert any("площадь is no double in 1 cell" in note for note in found.notes)
    assert any("Only 9 rows" in note for note in found.notes)
    assert not any("column_" in note for note in found.notes)
    own.show(err, found)
    told = capsys.readouterr().err
    assert "日本 (column_3)" in told
    assert "Predicts  купил (binary" in told
    assert "Key       Цена" in told
    with pytest.raises(UserError, match=r"has Цена, площадь, 日本, Größe, купил\. Did you mean купил\?"):
        new("купила", {"дом.csv": text}, name="e")


def test_a_name_that_was_misread_should_never_be_proposed(new: New) -> None:
    text = lines("x,Preis in \x80,y", lambda i, r: f"{r.random()},{r.random()},{i % 2}")
    with pytest.raises(UserError) as error:
        new("Preis in €", {"a.csv": text.encode("latin-1") + b"0,\x81,1\n"})
    assert str(error.value) == "There is no column Preis in €: a.csv has x, preis_in, y. Did you mean preis_in?"


def test_names_that_the_platform_adds_should_not_be_taken(new: New) -> None:
    text = lines("leaf,row_hash,split_side,y", lambda i, r: f"k{i},{r.random()},{i % 7},{r.randint(0, 1)}")
    assert new("y", {"a.csv": text}).keys == ()
    assert load_dataset("d").tables["a"].names == {"row_hash_2": "row_hash", "split_side_2": "split_side"}


def test_a_rare_label_should_not_be_called_none(new: New) -> None:
    found = new("y", {"a.csv": lines("x,y", lambda i, r: f"{r.random()},{int(i == 7)}", rows=20_000)})
    assert found.label.why == "binary: 1 is '1', 0.005% of rows"


def test_types_and_null_tokens_should_be_guessed_from_all_cells(new: New) -> None:
    def row(i: int, r: random.Random) -> str:
        number = "?" if i % 9 == 0 else "-" if i % 10 == 0 else f"{r.random():.3f}"
        day = f"2024-0{i % 9 + 1}-11"
        zip_code = f"0{r.randint(1000, 1004)}"
        whole, truth = "null" if i == 7 else i % 5, r.choice(["True", "false"])
        return f"{number},{whole},{truth},{zip_code},{day},{day} 10:30:00,{i % 2}"

    found = new("y", {"a.csv": lines("x,n,b,zip,d,t,y", row)})
    table = load_dataset("d").tables["a"]
    assert {column.name: column.kind for column in found.columns["a"]} == {
        "x": "double",
        "n": "bigint",
        "b": "boolean",
        "zip": "string",
        "d": "date",
        "t": "timestamp",
        "y": "bigint",
    }
    assert table.nulls == ("", "-", "?", "null")
    assert any("'-' in x counts as missing" in note for note in found.notes)


@pytest.mark.parametrize("cell", ["0000-00-00", "2021-02-30", "2021-13-01"])
def test_a_day_that_is_in_no_calendar_should_be_missing_and_told(new: New, cell: str) -> None:
    dates = lines(
        "at,x,y", lambda i, r: f"{cell if i == 7 else f'2021-03-{1 + i % 28:02}'},{i % 9},{r.randint(0, 1)}", 200
    )
    found = new("y", {"a.csv": dates})
    assert load_dataset("d").tables["a"].columns["x"] == "bigint"
    assert 'at = "date"' in toml()
    assert cell in load_dataset("d").tables["a"].nulls
    assert any(f"{cell!r} in at counts as missing, because the rest are dates" in note for note in found.notes)


def test_cells_that_do_not_parse_should_be_told(new: New) -> None:
    found = new("y", {"a.csv": lines("x,y", lambda i, r: f"{'3 apples' if i == 50 else i / 7},{i % 2}")})
    assert found.columns["a"][0].kind == "double"
    assert any("x is no double in 1 cell, such as '3 apples'" in note for note in found.notes)


def test_a_date_column_should_be_offered_for_the_out_of_time_check(new: New) -> None:
    new("y", {"a.csv": lines("day,x,y", lambda i, r: f"2024-01-{i // 3 + 1:02d},{r.random()},{i % 2}", rows=90)})
    offered = "".join(
        line.removeprefix("# ") + "\n"
        for line in toml().splitlines()
        if line.startswith(("# [time]", "# column", "# cut"))
    )
    assert offered == '[time]\ncolumn = "day"\ncut = 2024-01-24\n'
    assert "    day,\n" in sql(), "carried, since the key is a hash"


@pytest.mark.parametrize(
    ("first", "said"),
    [
        ("{d}.{m}.2024", "to_date(day, 'd.M.yyyy')"),
        ("{m}/{d}/2024", "to_date(day, 'M/d/yyyy')"),
        ("{d}-{m}-2024 10:30", "to_timestamp(day, 'd-M-yyyy H:mm')"),
        ("2024/{m}/{d}", "to_date(day, 'yyyy/M/d')"),
        ("2024{m:02}{d:02}", "to_date(day, 'yyyyMMdd')"),
        ("{d}-Jan-2024", "to_date(day, 'd-MMM-yyyy')"),
        ("{m}/{m}/2024", "day or month first cannot be told: 'M/d/yyyy' would do as well"),
    ],
)
def test_a_date_with_day_or_month_first_should_be_told_how_to_be_read(new: New, first: str, said: str) -> None:
    def row(i: int, r: random.Random) -> str:
        return f"r{i},{first.format(d=i % 28 + 1, m=i % 12 + 1)},{r.random()},{r.randint(0, 1)}"

    new("y", {"a.csv": lines("id,day,x,y", row)})
    assert said in toml()
    assert 'column = "day"' in toml()  # offered for [time]


def test_a_date_that_is_all_there_is_should_be_learned_from(new: New) -> None:
    new(
        "y",
        {"a.csv": lines("id,day,y", lambda i, r: f"r{i},{1 + i % 28}.{1 + i % 12}.2024 {i % 24}:00,{r.randint(0, 1)}")},
    )
    assert load_dataset("d").features.numbers == ("day_month", "day_weekday", "day_hour")
    assert "hour(to_timestamp(day, 'd.M.yyyy H:mm')) AS day_hour" in sql()


def test_every_pattern_of_a_day_should_mean_the_same_in_spark(spark: SparkSession) -> None:
    moment = dt.datetime(2024, 2, 3, 4, 5, 6)  # Spark's have none
    for (_, day, their_day), (_, time, their_time) in itertools.product(guesses.DAYS, guesses.TIMES):
        text = moment.strftime(their_day + their_time)
        ((found,),) = spark.sql(f"SELECT to_timestamp('{text}', '{day + time}')").collect()
        assert found == dt.datetime.strptime(text, their_day + their_time), day + time


@pytest.mark.parametrize(
    ("cell", "line"),
    [
        ("$61,{:03}.50", "CAST(replace(replace(x, '$', ''), ',', '') AS DOUBLE) AS x"),
        ("€ {}", "CAST(trim(replace(x, '€', '')) AS DOUBLE) AS x"),
        ("-${}", "CAST(trim(replace(x, '$', '')) AS DOUBLE) AS x"),
        ("{}.5%", "CAST(trim(replace(x, '%', '')) AS DOUBLE) AS x"),
        ("{} kg", "CAST(trim(replace(x, 'kg', '')) AS DOUBLE) AS x"),
        ("1 {:03}", "CAST(trim(replace(x, ' ', '')) AS DOUBLE) AS x"),
        ("1'{:03}", "CAST(trim(replace(x, '\\'', '')) AS DOUBLE) AS x"),
    ],
)
def test_numbers_with_a_sign_or_unit_should_be_numbers_in_plain_sight(new: New, cell: str, line: str) -> None:
    found = new("y", {"a.csv": lines("id,x,y", lambda i, r: f'r{i},"{cell.format(100 + i)}",{r.randint(0, 1)}')})
    assert load_dataset("d").features.numbers == ("x",)
    assert line in sql()
    assert found.columns["a"][1].known == 60


@pytest.mark.parametrize("cell", ["A{}", "C-{}", "{}%,{}kg", "Q{}"])
def test_a_code_with_a_number_should_not_be_taken_for_one(new: New, cell: str) -> None:
    one, _, other = cell.partition(",")

    def row(i: int, r: random.Random) -> str:
        return f"{r.random()},{(other or one if i % 2 else one).format(i)},{r.randint(0, 1)}"

    new("y", {"a.csv": lines("x,code,y", row)})
    assert load_dataset("d").features.numbers == ("x",)


def test_one_repeated_id_should_be_told_rather_than_hidden_behind_a_hash(new: New) -> None:
    text = lines("id,x,y", lambda i, r: f"C{5 if i == 6 else i},{r.randint(1, 3)},{r.randint(0, 1)}", 600)
    found = new("y", {"a.csv": text})
    assert found.keys == ()
    assert any(
        note.startswith("id tells 599 of 600 rows apart: is it meant as the key? Then mend the 1 row")
        for note in found.notes
    )


def test_a_measured_amount_should_be_no_key_while_texts_and_years_will_do(new: New) -> None:
    def row(i: int, r: random.Random) -> str:
        return f"land{i % 50},{1950 + i // 50},{1_000_000 + i * 7919 % 100_003},{r.random()}"

    assert new("y", {"a.csv": lines("country,year,pop,y", row, 600)}).keys == ("country", "year")


def test_latin_1_with_semicolons_and_decimal_commas_should_be_detected(new: New) -> None:
    text = lines(
        "Säure;Preis;Güte",
        lambda i, r: f"{r.randint(0, 9)},{r.randint(10, 99)};1.{r.randint(100, 999)},5;{'süß' if i % 3 else 'übel'}",
    )
    new("Güte", {"wein.csv": text.encode("latin-1")})
    found = load_dataset("d")
    table = found.tables["wein"]
    assert (table.delimiter, table.encoding, table.header) == (";", "latin-1", True)
    assert found.label.positive == "Güte is übel"
    assert found.features.numbers == ("saure", "preis")
    assert "CAST(replace(replace(preis, '.', ''), ',', '.') AS DOUBLE) AS preis" in sql()


@pytest.mark.parametrize(
    ("file", "cell", "said"),
    [
        ("a.csv", lambda i: f'"{i},5"', "replace(replace(x, '.', ''), ',', '.')"),
        ("a.tsv", lambda i: f"{i},5", "replace(replace(x, '.', ''), ',', '.')"),
        ("a.tsv", lambda i: f"{i % 9 + 1},{i + 100}", "replace(x, ',', '')"),
        # 20 people and 1.020: the dot cannot be a decimal one.
        ("a.tsv", lambda i: f"{i + 20}" if i % 2 else f"1.{i + 100}", "replace(replace(x, '.', ''), ',', '.')"),
        ("a.ssv", lambda i: f"{i + 20}" if i % 2 else f"1,{i + 100}", "replace(x, ',', '')"),
        ("a.tsv", lambda i: f"{i + 20}" if i % 2 else f"1.{i}", "\n    x\n"),
        ("a.csv", lambda i: f"{i + 20}" if i % 2 else f"1.{i + 100}", "\n    x\n"),
    ],
)  # fmt: skip
def test_numbers_should_be_read_as_they_are_written(new: New, file: str, cell: Callable[[int], str], said: str) -> None:
    sign = {"csv": ",", "ssv": ";", "tsv": "\t"}[file[-3:]]
    new("y", {file: lines(f"id{sign}x{sign}y", lambda i, r: f"r{i}{sign}{cell(i)}{sign}{r.randint(0, 1)}", rows=80)})
    assert said in sql()


def test_a_gzipped_file_should_do(new: New) -> None:
    new("churn", {"churn.csv.gz": gzip.compress(CHURN.encode())})
    found = load_dataset("d")
    assert found.main == "churn"
    assert found.source.files == {"churn": "churn.csv.gz"}
    assert Path(found.source.folder).is_absolute()


def test_a_file_without_a_header_should_be_told_and_then_named(new: New) -> None:
    text = lines("1,x,0", lambda i, r: f"{r.randint(0, 99)}, {r.choice(['x', 'y', '?'])},{i % 2}")
    with pytest.raises(UserError, match=r"looks like data, not like a header .* name its 3 columns with --columns"):
        new("y", {"a.csv": text})
    new("y", {"a.csv": text}, columns="n,kind,y")
    table = load_dataset("d").tables["a"]
    assert table.header is False
    assert list(table.columns) == ["n", "kind", "y"]
    assert "?" in table.nulls


def test_rows_that_no_columns_tell_apart_should_be_keyed_by_a_hash(new: New) -> None:
    found = new("y", {"a.csv": lines("x,k,y", lambda i, r: f"{i % 4},{'ab'[i % 2]},{(i // 4) % 2}", rows=80)})
    assert load_dataset("d").keys == ("row_hash", "row_copy")
    assert found.repeated == 72
    assert "72 rows are copies" in toml()
    assert '# [split]\n# by = ["row_hash"]\n' in toml()
    assert load_dataset("d").carried == ("x", "k")


def test_predictions_should_carry_what_tells_rows_apart_for_people_where_the_key_is_a_hash(new: New) -> None:
    text = lines("x,when,name,y", lambda i, r: f"{r.choice('123')},2024-01-0{i % 7 + 1},name {i % 60},{i % 2}", rows=80)
    found = new("y", {"a.csv": text + text[text.index("\n") + 1 :]})
    assert (found.keys, load_dataset("d").carried) == ((), ("when", "name", "x"))
    assert "    when,\n    name,\n" in sql().replace("`", "")
    assert "-- when" not in sql().replace("`", "")
    assert any("Predictions carry when, name, x along, to tell rows by." in note for note in found.notes)


def test_where_predictions_can_carry_nothing_that_should_not_be_said(new: New) -> None:
    row = lambda i, r: f"{r.randint(1, 3)},{r.choice(['a', 'b'])},{r.randint(0, 1)}"  # noqa: E731
    found = new("y", {"a.csv": lines("side,model_run,y", row)})
    (note,) = (note for note in found.notes if "the key is a hash of the row" in note)
    assert (found.carried, load_dataset("d").carried) == ([], ())
    assert note.endswith("; copies may lie on both sides of the split.")


def test_the_smallest_set_of_columns_that_tells_rows_apart_should_be_the_key(new: New) -> None:
    text = lines(
        "day,shop,amount,y",
        lambda i, r: f"2024-01-{i // 4 + 1:02d},{'abcd'[i % 4]},{r.randint(1, 3)},{r.randint(0, 1)}",
    )
    new("y", {"a.csv": text})
    assert load_dataset("d").keys == ("day", "shop")


@pytest.mark.parametrize(
    ("rows", "labels", "tuned"), [(200, "lr", True), (199, "lr", False), (1000, "l" * 99 + "r", False)]
)
def test_depth_and_leaf_size_should_be_left_to_the_run_where_a_fifth_of_the_rows_can_tell(
    new: New, rows: int, labels: str, tuned: bool
) -> None:
    new("y", {"a.csv": lines("x,y", lambda i, r: f"{r.random()},{labels[i % len(labels)]}", rows=rows)})
    settings = load_dataset("d")
    assert (settings.training.depth is None) == (settings.training.min_leaf is None) == tuned
    assert (settings.tuning is not None) == tuned


def test_a_tiny_file_should_get_a_tiny_tree(new: New) -> None:
    new("y", {"a.csv": lines("x,y", lambda i, r: f"{r.random()},{r.choice('lr')}", rows=20)})
    settings = load_dataset("d").training
    assert (settings.depth, settings.min_leaf, settings.smoothing) == (2, 2, 10.0)
    assert settings.depth is not None  # 20 rows are too few to choose it by
    assert training(336_776) == (12, 193, 100)
    assert training(3_376, "multiclass", 56) == (13, 4, 10)
    assert training(53_940, "regression") == (16, 10, 100)
    assert training(100, "regression")[1] == 5


SHOPS = "shop,city,size\n" + "".join(f"s{i},{'Ulm' if i % 2 else 'Bern'},{i % 3 + i / 10}\n" for i in range(12))
SALES = lines(
    "sale,shop,city_code,size,sold",
    lambda i, r: f"{i},s{r.randint(0, 11)},c{i % 3},{r.randint(1, 5)},{r.randint(0, 1)}",
    rows=120,
)
CITIES = "code,people\nc0,5\nc1,9\nc2,9\n"


def test_other_tables_should_be_joined_by_their_key_or_offered(new: New) -> None:
    found = new("sold", {"shops.csv": SHOPS, "sales.csv": SALES, "cities.csv": CITIES})
    settings = load_dataset("d")
    assert settings.main == "sales"
    assert set(settings.tables) == {"shops", "sales", "cities"}
    assert [join.table for join in found.joins] == ["shops"]
    assert "LEFT JOIN shops ON shops.shop = sales.shop" in sql()
    assert "shops.size AS shops_size" in sql()
    assert "-- LEFT JOIN cities ON cities.code = sales.city_code  -- 100% of city_code is found there" in sql()


def views(spark: SparkSession, settings: Dataset) -> None:
    """The raw tables as the prepare job has them: declared columns in their types."""
    for name, table in settings.tables.items():
        path = str(Path(settings.source.folder) / settings.source.files[name])
        rows = spark.read.csv(
            path, header=table.header, sep=table.delimiter, quote=table.quote, encoding=table.encoding
        )
        if not table.header:
            rows = rows.toDF(*table.columns)
        cells = {column: F.col(f"`{table.names.get(column, column)}`") for column in table.columns}
        typed = [
            F.when(~F.trim(cells[column]).isin(*table.nulls), F.trim(cells[column])).cast(kind).alias(column)
            for column, kind in table.columns.items()
        ]
        rows.select(*typed).createOrReplaceTempView(name)


@pytest.mark.parametrize(
    ("label", "texts", "columns", "labels"),
    [
        ("churn", {"churn.csv": CHURN}, "", {0, 1}),
        ("sold", {"sales.csv": SALES, "shops.csv": SHOPS, "cities.csv": CITIES}, "", {0, 1}),
        ("y", {"a.csv": lines("1,a,0", lambda i, r: f"{i % 7}, {'ab?'[i % 3]},{(i // 4) % 2}")}, "n,kind,y", {0, 1}),
        ("Kind?", {"order.csv": lines("when,Kind?", lambda i, r: f"{r.random()},{'aüo'[i % 3]}")}, "", {"a", "ü", "o"}),
        ("q", {"a.csv": lines("x,q", lambda i, r: f"{r.random()},{i % 3}")}, "", {"0", "1", "2"}),
        ("who", {"a.csv": lines("x,who", lambda i, r: f"{r.random()}," + ("a\\b" if i % 3 else "o'x"))}, "", {0, 1}),
        ("y", {"a.csv": lines("x;y", lambda i, r: f"{r.randint(0, 9)};{i},5")}, "", {i + 0.5 for i in range(60)}),
    ],
    ids=["binary", "tables", "hash", "multiclass", "integers", "escapes", "regression"],
)  # fmt: skip
def test_the_query_should_run_in_spark_and_give_what_is_declared(
    new: New, spark: SparkSession, label: str, texts: dict[str, str], columns: str, labels: set[object]
) -> None:
    found = new(label, texts, columns=columns)
    settings = load_dataset("d")
    views(spark, settings)
    rows = join(spark, settings, datasets.prepare_sql(settings.name)).collect()
    assert len(rows) == found.rows[found.main]
    assert len({tuple(row[key] for key in settings.keys) for row in rows}) == len(rows)
    assert {row[settings.label.column] for row in rows} == labels


def test_what_is_only_suggested_should_work_when_it_is_taken_up(new: New, spark: SparkSession) -> None:
    """The comments that are settings and SQL, with their comment marks taken away."""
    row_of = lambda i, r: f"2024-01-{i % 28 + 1:02d},P{i % 150},{'ab'[i % 2]},{r.random()},{r.randint(0, 1)}"  # noqa: E731
    new("y", {"a.csv": lines("day,patient_id,kind,x,y", row_of, rows=300)})
    assert "# 300 rows are of 150 values of patient_id." in toml()
    home = datasets.HOME / "d"
    settings = re.sub(r"^# (?=\[|slices|column = |cut = |day = |by = )", "", toml(), flags=re.MULTILINE)
    settings = settings.replace("numbers = [", 'numbers = ["day_month", "day_weekday", ')
    (home / "dataset.toml").write_text(settings)
    (home / "prepare.sql").write_text(re.sub(r"^    -- (?=day|month|patient_id,)", "    ", sql(), flags=re.MULTILINE))
    found = load_dataset("d")
    assert found.time is not None
    assert found.tuning is not None
    assert found.slices == ("kind",)
    views(spark, found)
    row = join(spark, found, datasets.prepare_sql(found.name)).head()
    assert row is not None
    assert row["day_month"] == 1
    assert (found.split.by, row["patient_id"][0]) == (("patient_id",), "P")


FEW = "x,y\n1,0\n2,1\n"
TEXTS = lines("x,y", lambda i, r: f"{i},text {i}", rows=300)


@pytest.mark.parametrize(
    ("texts", "label", "told"),
    [
        ({"a.csv": ""}, "y", "a.csv is empty"),
        ({"a.csv": "x,y\n"}, "y", "has a header and no rows"),
        ({"a.csv": FEW}, "y", "has 2 rows: nothing can be learned from fewer than 10"),
        ({"a.csv": CHURN}, "chrun", "no column chrun: a.csv has customer, plan, minutes, churn. Did you mean churn?"),
        ({"a.csv": lines("x,y", lambda i, r: f"{i},1")}, "y", "has the same value in every row"),
        ({"a.csv": lines("x,y", lambda i, r: f"{i},{'1' * (i % 2)}")}, "y", "that has one, and 30 have none: if a"),
        ({"a.csv": lines("x,y", lambda i, r: f"{i},NA")}, "y", "has no value in any row"),
        ({"a.csv": 'x,"h,y\n' + "1,2,3\n" * 20}, "y", "the quote that line 1 opens ('x,\"h,y') is never closed"),
        ({"a.csv": TEXTS}, "y", "has 300 different texts in 300 rows: as classes that is too many"),
        ({"a.csv": lines("x,X,y", lambda i, r: f"{i},{i},{i % 2}")}, "y", "has the column 'X' twice"),
        ({"a.csv": lines("x,y", lambda i, r: f"{i},2024-01-{i % 28 + 1:02d}")}, "y", "is a date: predict a"),
        ({"a.csv": b"PK\x03\x04\0\0\0"}, "y", "is a zip archive or an Excel workbook"),
        ({"a.zip": b"PK"}, "y", "is a zip archive: unpack it first"),
        ({"a.csv.gz": CHURN}, "churn", "is not compressed with gzip"),
        ({"a.csv": lines("words", lambda i, r: f"word{i}")}, "words", "has one column only"),
        ({"a.csv": CHURN, "a.csv.gz": gzip.compress(CHURN.encode())}, "churn", "are one file, packed and as it is"),
        ({"a.csv": ",".join(f"c{i}" for i in range(20_481)) + "\n"}, "c1", "has 20,481 columns, and Spark reads"),
        ({"a.csv": CHURN, "b.csv": CHURN.replace("plan", "tariff", 1)}, "churn", "a.csv and b.csv have a column churn"),
        ({"a.csv": lines("id,y", lambda i, r: f"{i},{i % 2}")}, "y", "learn y from (id: tells every row apart)"),
    ],
)  # fmt: skip
def test_files_that_no_dataset_can_be_made_of_should_be_refused_in_a_sentence(
    new: New, texts: dict[str, str | bytes], label: str, told: str
) -> None:
    with pytest.raises(UserError) as error:
        new(label, texts)
    assert told in str(error.value)
    assert "\n" not in str(error.value)
    assert not (datasets.HOME / "d").exists()


ROWS = "".join(f"{i},{i % 7},{'yes' if i % 3 else 'no'}\n" for i in range(60))


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("value,label\n" + ROWS, r"the header \(line 1\) has 2 names, 'value', 'label', but the rows have 3 fields"),
        ("id,value,label,extra\n" + ROWS, r"the header \(line 1\) has 4 names, .* but the rows have 3 fields, such as"),
        ("one,two\nfirst,second,label\n" + ROWS, r"the header seems to be line 2 .* line 1 .*say --skip 1; else give"),
        ("id,value,label\n" + ROWS + '60,"half open,no\n' + ROWS, r"the quote that line 62 opens .* is never closed"),
        (
            "id,value,label\n" + ROWS + '60,"a "b" c",no\n' + ROWS,
            r"line 62 .*: the quote before 'b\" c\",no' closes",
        ),
    ],
    ids=["short header", "long header", "title of the header's length", "open quote", "bare quote"],
)
def test_what_is_no_table_should_be_told_with_its_line_and_the_way_out(new: New, text: str, told: str) -> None:
    with pytest.raises(UserError, match=told):
        new("label", {"d.csv": text})


TABLE = "id,value,label\n" + ROWS
UTF_16 = r"d\.csv is UTF-16: convert it, such as by `iconv -f UTF-16 -t UTF-8 OLD > NEW`"


@pytest.mark.parametrize(
    ("text", "skip"),
    [
        ("Exported from CRM\n\n" + TABLE, 2),
        ("# made\n# today, by me, again\n" + TABLE, 2),
        ("# made, today\n#id,value,label\n" + ROWS, 1),
        ("sep=;\r\n" + TABLE.replace(",", ";").replace("\n", "\r\n"), 1),
        ("\ufeffReport\nfor 2024,all\n\n\n" + TABLE.replace("label", "label,a,b").replace("o\n", "o,1,2\n"), 4),
        ("#id,value,label\n" + ROWS, 0),
        ("\n \n" + TABLE, 0),
        ('"Report\nMay"\n\n' + TABLE, 3),
        ('"Report "May\n\n' + TABLE, 2),
    ],
    ids=[
        "title", "comments", "comment above a header with #", "sep=", "title and subtitle", "header with #",
        "empty lines", "a quoted title of two lines", "a stray quote",
    ],
)  # fmt: skip
def test_lines_above_the_header_should_be_passed_over_and_told(new: New, text: str, skip: int) -> None:
    found = new("label", {"d.csv": text.replace("s\n", "s,1,2\n") if "label,a,b" in text else text})
    assert (found.rows, found.target.task) == ({"d": 60}, "binary")
    assert [column.kind for column in found.columns["d"]][:3] == ["bigint", "bigint", "string"]
    assert load_dataset("d").tables["d"].skip == skip
    assert any(f"the table begins in line {skip + 1}; what stands above it" in note for note in found.notes) is bool(
        skip
    )


def test_how_many_lines_stand_above_may_be_said(new: New, files: Path) -> None:
    (files / "d.csv").write_text("one,two\nfirst,second,label\n" + ROWS, encoding="utf-8")
    found = own.new("d", [files / "d.csv"], "label", columns=[], skip=1, on_progress=lambda _: None)
    assert list(found.files["d"].headers) == ["first", "second", "label"]


def test_empty_lines_behind_those_that_are_said_to_stand_above_should_be_above_too(new: New, files: Path) -> None:
    (files / "d.csv").write_text("Title\n\n" + TABLE, encoding="utf-8")
    found = own.new("d", [files / "d.csv"], "label", columns=[], skip=1, on_progress=lambda _: None)
    assert (found.rows, load_dataset("d").tables["d"].skip) == ({"d": 60}, 2)
    assert any("the table begins in line 3; what stands above it ('Title')" in note for note in found.notes)


@pytest.mark.parametrize("encoding", ["utf-8", "latin-1"])
@pytest.mark.parametrize(
    "text", ["id,sold\n{rows}\ufeffid,sold\n{rows}", "Title\n\n\ufeffid,sold\n{rows}", "id,sold\n{rows}\ufeff{rows}"]
)
def test_a_byte_order_mark_within_a_file_should_be_told_with_its_line(new: New, text: str, encoding: str) -> None:
    rows = "".join(f"{i},{'ja' if i % 3 else 'nein'}\n" for i in range(9_000))
    lines = text.format(rows=rows).split("\n")
    line = next(number for number, line in enumerate(lines, 1) if line.startswith("\ufeff"))
    content = b"\xef\xbb\xbf".join(part.encode(encoding) for part in text.format(rows=rows).split("\ufeff"))
    with pytest.raises(UserError, match=rf"d\.csv: line {line} begins with a byte order mark \('"):
        new("sold", {"d.csv": content if encoding == "utf-8" else content + "99999,\u00fc\n".encode(encoding)})


@pytest.mark.parametrize("between", [",", ", "])
def test_a_header_among_the_rows_should_be_no_row_and_be_told(new: New, between: str) -> None:
    """Of text alone, so that no cell is odd: it would be a class of the label, and take the key away."""
    rows = "".join(f"a{i},c{i % 7},{'ja' if i % 3 else 'nein'}\n" for i in range(60))
    text = f"id,town,Sold\n{rows}ID,Town,Sold\n{rows.replace('a', 'b')}".replace("jb", "ja")
    found = new("Sold", {"d.csv": text.replace(",", between)})
    assert (found.rows, found.keys, found.target.task) == ({"d": 120}, ("id",), "binary")
    assert "d.csv: 1 line repeats the header, as where files were joined; runs quarantine such lines." in found.notes


def test_a_byte_order_mark_before_latin_1_should_be_no_part_of_the_first_name(new: New) -> None:
    rows = "".join(f"{i},{'ja' if i % 3 else 'nein'},f\u00fcr {i % 4}\n" for i in range(60))
    new("sold", {"d.csv": b"\xef\xbb\xbfid,sold,why\n" + rows.encode("latin-1")})
    table = load_dataset("d").tables["d"]
    assert (table.encoding, list(table.columns), table.names) == ("latin-1", ["id", "sold", "why"], {})


def test_a_line_that_is_too_long_should_be_told_by_its_number(new: New, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(csv_file, "LONGEST_LINE", 200_000)
    with pytest.raises(UserError, match=r"d\.csv, line 3, has more than 200,000 bytes, which no table's line has"):
        new("sold", {"d.csv": "id,sold\n1,ja\n2," + "x" * 300_000 + "\n"})


def test_duckdbs_reason_should_be_told_without_what_it_repeats() -> None:
    said = (
        "Invalid Input Error: CSV Error on Line: 2\nOriginal Line: a,b\nInvalid unicode (byte sequence mismatch).\n"
        "Possible Solution: Enable ignore errors (ignore_errors=true)\n\n  file = d.csv\n  delimiter = ,"
    )
    assert cells.reason_of(duckdb.Error(said)) == "Invalid Input Error: Invalid unicode (byte sequence mismatch)."
    with pytest.raises(duckdb.Error) as raised:
        duckdb.execute("SELECT CAST('x' AS INTEGER)")
    assert cells.reason_of(raised.value) == "Conversion Error: Could not convert string 'x' to INT32"


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("encoding", ["utf-8", "latin-1"])
@pytest.mark.parametrize(
    ("above", "skip"),
    [("", 0), ("\n\n", 0), ("Title\n\n", 1), ('"Report\nMay"\n\n', 3), ('"Report "May\n \t\n', 2), ("\r\rTitle\r", 3)],
)
def test_a_sample_should_have_the_rows_of_a_run_whatever_stands_above_them(
    tmp_path: Path, above: str, skip: int, encoding: Encoding, packed: bool
) -> None:
    path = tmp_path / ("d.csv.gz" if packed else "d.csv")
    content = (above + 'id,town\n1,Malmö\n\n2,"Århus\nC"\n').encode(encoding)
    path.write_bytes(gzip.compress(content) if packed else content)
    with path.open("rb") as file:
        of_run = list(records.records(records.opened(file, encoding, zipped=packed), ",", '"', '"', skip))
    assert [record.cells for record in of_run] == [["id", "town"], ["1", "Malmö"], ["2", "Århus\nC"]]
    database = duckdb.connect()
    assert load_text(database, path, Dialect(",", '"', encoding, header=True, skip=skip), ["id", "town"], "d") == 0
    assert database.execute("FROM d").fetchall() == [("1", "Malmö"), ("2", "Århus\nC")]


@pytest.mark.parametrize(
    ("encoding", "declared", "shown"),
    [("cp1252", "windows-1252", "10€"), ("latin-1", "latin-1", "naïf"), ("utf-8", "utf-8", "")],
)
def test_letters_should_be_what_the_encoding_says_and_shown(new: New, encoding: str, declared: str, shown: str) -> None:
    word = "10€" if encoding == "cp1252" else "naïf"
    text = lines("x,town,y", lambda i, r: f"{r.random()},{word if i % 2 else 'plain'},{r.randint(0, 1)}")
    found = new("y", {"a.csv": text.encode(encoding)})
    assert load_dataset("d").tables["a"].encoding == declared
    assert [shown in note and "iconv" in note for note in found.notes if "is not UTF-8" in note] == [True] * bool(shown)


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (TABLE.encode("utf-16"), UTF_16),
        (TABLE.encode("utf-16-be"), UTF_16),
        (b"PK\x03\x04\x14\0\x06\0", "is a zip archive or an Excel workbook: unpack it, or export it"),
        (b"id,y\n1,\0\n", "holds zero bytes, so it is no text"),
    ],
)
def test_bytes_that_are_no_csv_should_be_called_by_their_name(new: New, content: bytes, told: str) -> None:
    with pytest.raises(UserError, match=told):
        new("label", {"d.csv": content})


def test_parquet_should_be_a_table_like_others_with_the_types_that_it_tells(new: New) -> None:
    source = random.Random(0)  # noqa: S311  # test data
    table = pa.table({
        "Id": pa.array(range(60), pa.int32()),
        "score": pa.array([source.random() if i % 7 else None for i in range(60)], pa.float32()),
        "Preis": pa.array([f"{source.randint(1, 9)}.{source.randint(100, 999)},5" for _ in range(60)]),
        "paid": pa.array([i % 3 == 0 for i in range(60)]),
        "at": pa.array([dt.datetime(2024, 1, 1 + i // 3, 10) for i in range(60)], pa.timestamp("ns")),
        "tags": pa.array([["a"]] * 60),
        "nothing": pa.nulls(60),
        "y": pa.array([source.choice(["yes", "no", "?"]) for _ in range(60)]),
    })  # fmt: skip
    buffer = io.BytesIO()
    pq.write_table(table, buffer)
    found = new("y", {"my data.parquet": buffer.getvalue()})
    settings = load_dataset("d")
    declared = settings.tables["my_data"]
    assert (declared.format, found.rows, settings.task) == ("parquet", {"my_data": 60}, "binary")
    assert declared.columns == {
        "id": "bigint", "score": "double", "preis": "string", "paid": "boolean", "y": "string",
    }  # fmt: skip
    assert (found.keys, declared.nulls) == (("id",), ("", "?"))
    assert "CAST(replace(replace(preis, '.', ''), ',', '.') AS DOUBLE) AS preis" in sql()
    assert '# at = "timestamp"' in toml()
    assert any(
        "no columns, since they hold lists, objects, bytes or nothing: tags, nothing." in note for note in found.notes
    )


@pytest.mark.parametrize("packed", [False, True])
def test_json_lines_should_be_a_table_like_others(new: New, packed: bool) -> None:
    text = lines(
        '{"ID": 1000, "n": 0}',
        lambda i, r: f'{{"ID": {i}, "größe": "{r.randint(1, 9)}", "tags": [1], "y": {str(i % 3 == 0).lower()}}}',
    )
    content = (text + "{broken\n").encode()
    found = new("y", {"d.jsonl.gz" if packed else "d.jsonl": gzip.compress(content) if packed else content})
    settings = load_dataset("d")
    assert (settings.tables["d"].format, found.rows, settings.keys) == ("jsonl", {"d": 61}, ("id",))
    assert settings.tables["d"].names == {"id": "ID", "grosse": "größe"}
    assert settings.tables["d"].columns == {"id": "bigint", "grosse": "bigint", "y": "boolean"}
    assert any("lines that are no JSON object of single values: 1 of 62; runs" in note for note in found.notes)
    assert any("bytes or nothing: tags." in note for note in found.notes)


@pytest.mark.parametrize("text", ['[{"id": 1, "y": 2}]', '{\n  "id": 1,\n  "y": 2\n}\n'])
def test_json_that_is_not_an_object_a_line_should_be_told_with_the_way(new: New, text: str) -> None:
    with pytest.raises(
        UserError, match=r"d\.json is JSON, but not an object a line: .*jq -c '\.\[\]' d.json > d.jsonl"
    ):
        new("y", {"d.json": text})


def test_quotes_behind_a_backslash_should_be_read_and_written_down(new: New) -> None:
    text = "id,name,label\n" + "".join(f'{i},"The \\"big\\" one, {i % 3}",{i % 2}\n' for i in range(60))
    found = new("label", {"d.csv": text})
    assert found.rows == {"d": 60}
    assert load_dataset("d").tables["d"].escape == "\\"


def test_a_missing_file_should_be_refused(new: New, files: Path) -> None:
    with pytest.raises(UserError, match=r"none\.csv does not exist"):
        own.new("d", [files / "none.csv"], "y", columns=[], on_progress=lambda _: None)


@pytest.mark.parametrize("name", ["My-data", "1st", "", "a/b"])
def test_a_name_that_cannot_be_should_be_refused(new: New, name: str) -> None:
    with pytest.raises(UserError, match="cannot be a dataset's name"):
        new("churn", {"churn.csv": CHURN}, name=name)


@pytest.mark.parametrize(
    ("name", "told"),
    [("data", "a stack of dml has this name"), ("n" * 60, "has at most 54"), ("a_1", "and so it calls a1. Give one")],
)
def test_a_name_that_no_stack_can_have_should_be_told_before_anything_is_read(new: New, name: str, told: str) -> None:
    new("churn", {"churn.csv": CHURN}, name="a1")
    with pytest.raises(DatasetError, match=told):
        new("churn", {"other.csv": "nothing"}, name=name)


def test_plain_columns_should_be_recognised_together_as_one_by_one(new: New, monkeypatch: pytest.MonkeyPatch) -> None:
    makers: list[Callable[[int, random.Random], object]] = [
        lambda i, r: r.randint(-5, 5), lambda i, r: f"{r.random():.3f}", lambda i, r: r.choice(["a", "b c", "NA"]),
        lambda i, r: r.choice(["True", "false"]), lambda i, r: f"0{r.randint(100, 999)}",
        lambda i, r: r.choice(["1", "x"]), lambda i, r: f"202401{i % 28 + 1:02}", lambda i, r: r.choice(["", "?", "7"]),
        lambda i, r: f"${i}.5",
        lambda i, r: f"{i % 28 + 1}.1.2024", lambda i, r: r.choice(["1e5", ".5", "-2."]),
        lambda i, r: "-" if i == 3 else i,
        lambda i, r: "", lambda i, r: f"2024-01-{i % 28 + 1:02}", lambda i, r: "yes" if i % 3 else "no",
        lambda i, r: "0000-00-00" if i == 5 else "2024-02-03", lambda i, r: f"{i}%", lambda i, r: 10_000_000 + i,
    ]  # fmt: skip
    several = makers * 4  # more than WIDE
    text = lines(
        ",".join([f"c{i}" for i in range(len(several))] + ["y"]),
        lambda i, r: ",".join([*(str(make(i, r)) for make in several), str(r.randint(0, 1))]),
    )
    together = new("y", {"a.csv": text}).columns["a"]
    monkeypatch.setattr(guesses, "_plain_kind", lambda looks, delimiter: None)
    monkeypatch.setattr(guesses, "WIDE", 10_000)
    assert new("y", {"a.csv": text}, name="e").columns["a"] == together
    assert {column.kind for column in together} == {"bigint", "double", "string", "boolean", "date"}


def test_twins_should_be_those_of_every_pair() -> None:
    source = np.random.default_rng(0)
    made = {}
    base = [source.integers(0, 5, 200).astype(float), source.normal(size=200), source.integers(0, 150, 200) * 1.0]
    for i in range(30):
        values = base[i % 3].copy()
        if i % 5 == 1:
            values = {0: (values * 7 + 3) % 5, 1: values * 2 + 1, 2: values**2}[i % 3]
        if i % 7 == 2:
            values = source.permutation(values)
        values[: {0: 0, 1: 4, 2: 60}[i % 4 % 3]] = np.nan
        made[f"c{i}"] = values
    columns = [guesses.Column(name, "double", "", False, 200, 200, 5, ()) for name in made]
    found: dict[str, str] = {}
    for one, other in itertools.combinations(columns, 2):
        a, b = made[one.name], made[other.name]
        lack_a, lack_b = np.isnan(a), np.isnan(b)
        nested = (lack_a <= lack_b).all() or (lack_b <= lack_a).all()
        both = ~(lack_a | lack_b)
        if one.name in found or other.name in found or not nested or abs(lack_a.mean() - lack_b.mean()) > 0.05:
            continue
        if guesses._same(a[both], b[both], True):
            gone, kept = (one, other) if lack_a.sum() > lack_b.sum() else (other, one)
            found[gone.name] = kept.name
    assert guesses.twins(columns, made) == found
    assert len(found) > 5


def test_a_dataset_that_is_there_should_never_be_overwritten(new: New) -> None:
    new("churn", {"churn.csv": CHURN})
    before = toml()
    with pytest.raises(UserError, match="is there already, and is never overwritten"):
        new("plan", {"churn.csv": CHURN})
    assert toml() == before


def test_the_command_should_print_its_files_and_what_to_do_next(
    new: New, files: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (files / "churn.csv").write_text(CHURN)
    monkeypatch.setattr(sys, "argv", ["dml", "dataset", "new", "d", str(files / "churn.csv"), "--label", "churn"])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    printed = capsys.readouterr()
    assert ended.value.code == 0
    assert printed.out == "datasets/d/dataset.toml\ndatasets/d/prepare.sql\n"
    for told in ("60 rows, 4 columns", "binary: 1 is 'yes'", "dml dataset check d", "dml run d --local"):
        assert told in printed.err


SPOILED = {
    "fine": ("", "", ""),
    "header": ("dataset.toml", "plan = ", "plam = "),
    "types": ("dataset.toml", 'plan = "string"', 'plan = "bigint"'),
    "query": ("prepare.sql", "FROM churn", "FROM churns"),
    "surplus": ("prepare.sql", "    minutes", "    minutes + 1 AS more, minutes"),
    "keys": ("dataset.toml", 'keys = ["customer"]', 'keys = ["plan"]'),
    "leak": ("prepare.sql", "    minutes", "    CAST(churn = 'yes' AS INT) AS minutes"),
    "label": ("prepare.sql", "WHEN 'yes' THEN 1", "WHEN 'YES' THEN 1"),
    "syntax": ("prepare.sql", "SELECT", "SELCT"),
    "comma": ("prepare.sql", "    minutes\n", "    minutes,\n"),
    "ancient": (
        "prepare.sql",
        "    customer,",
        "    timestampadd(SECOND, INT(substring(customer, 2)), TIMESTAMP '1899-12-30 00:00:00') AS customer,",
    ),
    "spelling": ("", "", ""),
    "settings": ("dataset.toml", "depth = ", "depht = "),
    "encoding": ("", "", ""),
    "fields": ("", "", ""),
    "above": ("dataset.toml", "[tables.churn]", "[tables.churn]\nskip = 3"),
    "binary": ("", "", ""),
    "parquet": ("dataset.toml", "[tables.churn]", '[tables.churn]\nformat = "parquet"'),
    "objects": ("dataset.toml", "[tables.churn]", '[tables.churn]\nformat = "jsonl"'),
    "kinds": ("dataset.toml", "[tables.churn]", '[tables.churn]\nformat = "parquet"'),
    "keys_of_objects": ("dataset.toml", "[tables.churn]", '[tables.churn]\nformat = "jsonl"'),
    "unlike": ("dataset.toml", "[tables.churn]", '[tables.churn]\nformat = "jsonl"'),
    "web": ("", "", ""),
    "gone": ("dataset.toml", "churn.csv", "lost.csv"),
    "joined": ("", "", ""),
}


@pytest.fixture(scope="module")
def checked(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Checked]:
    """Datasets that are spoiled in one way each, checked together, so that Spark starts once."""
    root = tmp_path_factory.mktemp("check")
    names = list(SPOILED)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(datasets, "HOME", root / "datasets")
        patch.syspath_prepend(str(root))
        for name, (file, old, text) in SPOILED.items():
            folder = root / f"files_of_{name}"
            folder.mkdir()
            (folder / "churn.csv").write_text(CHURN)
            own.new(name, [folder / "churn.csv"], "churn", columns=[], on_progress=lambda _: None)
            settings = datasets.HOME / name / "dataset.toml"
            settings.write_text(settings.read_text().replace(f'folder = "{folder}"', f'package = "{folder.name}"'))
            if name == "web":
                url = f'url = "https://data.invalid/churn"\nsha256 = {{ churn = "{"0" * 64}" }}'
                settings.write_text(settings.read_text().replace(f'package = "{folder.name}"', url))
            if name == "keys":
                query = datasets.HOME / name / "prepare.sql"
                query.write_text(query.read_text().replace("    customer,\n", ""))
            if file:
                spoiled = datasets.HOME / name / file
                assert old in spoiled.read_text()
                spoiled.write_text(spoiled.read_text().replace(old, text))
        (root / "files_of_encoding" / "churn.csv").write_bytes(CHURN.replace("basic", "bäsic").encode("latin-1"))
        (root / "files_of_fields" / "churn.csv").write_text(CHURN + "C99,pro\n")
        (root / "files_of_above" / "churn.csv").write_text(('Our "report\n\n# today\n' + CHURN).replace("\n", "\r\n"))
        (root / "files_of_joined" / "churn.csv").write_text(CHURN + "\ufeff" + CHURN, encoding="utf-8")
        (root / "files_of_binary" / "churn.csv").write_bytes(b"PAR1\x15\0")
        rows = list(csv.DictReader(io.StringIO(CHURN)))
        columns = {name: [row[name] for row in rows] for name in rows[0]}
        minutes = list(map(int, columns["minutes"]))
        pq.write_table(pa.table({**columns, "minutes": minutes}), root / "files_of_parquet" / "churn.csv")
        pq.write_table(pa.table({**columns, "minutes": [0.5] * 60}), root / "files_of_kinds" / "churn.csv")
        texts = "".join(f"{json.dumps({**row, 'minutes': int(row['minutes'])})}\n" for row in rows)
        (root / "files_of_objects" / "churn.csv").write_text(texts + '{"customer": "C99", "minutes": [1]}\n')
        (root / "files_of_keys_of_objects" / "churn.csv").write_text(texts.replace('"plan"', '"Plan"'))
        (root / "files_of_spelling" / "churn.csv").write_text(CHURN.replace(",yes", ",Yes", 5))
        found = dataset.check(names, cache=root / "cache", on_progress=lambda _: None)
    return {each.name: each for each in found}


def test_a_dataset_that_fits_its_files_should_pass_with_its_label_told(checked: dict[str, Checked]) -> None:
    assert checked["fine"].findings == []
    share = CHURN.count(",yes") / 60
    assert checked["fine"].summary == f"60 rows of churn.csv, churn: {share:.1%} positive"
    for name in ("above", "parquet", "objects"):
        assert (checked[name].findings, checked[name].summary) == ([], checked["fine"].summary)


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("header", "datasets/header/dataset.toml: tables.churn.columns: churn.csv has no column plam"),
        ("types", "datasets/types/dataset.toml: tables.churn: churn.csv: 60 of 60 cells of plan are no bigint ("),
        (
            "query",
            "datasets/query/prepare.sql does not run: [TABLE_OR_VIEW_NOT_FOUND] The table or view `churns` cannot",
        ),
        ("syntax", "datasets/syntax/prepare.sql does not run: [PARSE_SYNTAX_ERROR] Syntax error at or near 'SELCT'"),
        ("comma", "datasets/comma/prepare.sql does not run: ["),
        ("spelling", "datasets/spelling/dataset.toml: label: 5 of 60 labels (8.33%) are none of those that datasets/"),
        ("surplus", "datasets/surplus/prepare.sql does not fit datasets/surplus/dataset.toml: missing columns: none; "),
        ("keys", "datasets/keys/dataset.toml: keys: 58 of 60 rows repeat the plan of another"),
        ("leak", "datasets/leak/dataset.toml: features: minutes tells the label by itself (AUC 1.000)"),
        ("label", "datasets/label/dataset.toml: label.column: churn is 0 in every row of the sample"),
        ("settings", "datasets/settings/dataset.toml: training.depht is not a setting"),
        ("encoding", "datasets/encoding/dataset.toml: tables.churn.encoding: churn.csv is not UTF-8"),
        ("unlike", 'tables.churn.format: churn.csv is CSV; say format = "csv".'),
        ("kinds", "tables.churn.columns: minutes cannot be bigint in churn.csv: declare double."),
        (
            "keys_of_objects",
            "tables.churn.columns: plan is no column there; churn.csv has 'customer', 'Plan', 'minutes",
        ),
        ("joined", "churn.csv: line 62 begins with a byte order mark ('customer,"),
        ("binary", 'churn.csv is a Parquet file: say format = "parquet"'),
        ("gone", "datasets/gone/dataset.toml: source.files: "),
    ],
)
def test_what_does_not_fit_should_be_found_with_file_and_key(checked: dict[str, Checked], name: str, told: str) -> None:
    assert any(told in line for line in checked[name].findings), checked[name].findings
    assert all("\n" not in line for line in checked[name].findings)


def test_an_error_of_sparks_should_come_with_line_and_a_hint(checked: dict[str, Checked]) -> None:
    assert "line 3, pos 0" in checked["syntax"].findings[0]
    assert checked["comma"].findings[0].endswith("(There is a comma before FROM.)")


def test_days_before_1900_should_do(checked: dict[str, Checked]) -> None:
    assert checked["ancient"].findings == []


def test_files_that_a_run_would_download_should_be_named_and_the_query_checked(checked: dict[str, Checked]) -> None:
    assert checked["web"].findings == []
    (note,) = checked["web"].notes
    assert "would download churn.csv from https://data.invalid/churn" in note
    assert checked["web"].summary == ""


def test_a_few_broken_lines_should_be_a_note(checked: dict[str, Checked]) -> None:
    assert checked["fields"].findings == []
    assert any("1 lines have not the header's 4 fields" in note for note in checked["fields"].notes)
    assert any("1 lines are no JSON object of single values" in note for note in checked["objects"].notes)


@pytest.mark.parametrize("escape", ["", "\\"])
def test_quotes_in_a_large_file_should_be_judged_as_record_by_record(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, escape: str
) -> None:
    monkeypatch.setattr(csv_file, "BLOCK", 24)  # characters, so that records begin and end in any block
    source = random.Random(0)  # noqa: S311  # test data
    pieces = [
        "a,b\n",
        '"a",b\n',
        ' "a" ,"b"\n',
        '"a\n',
        'b"\n',
        '"a""b",1\n',
        '"a\\"b",1\n',
        "1,2\n",
        '"',
        '"x"y,1\n',
        "\n",
    ]
    path, how = tmp_path / "d.csv", Dialect(",", '"', "utf-8", header=True, escape=escape)
    found = 0
    for _ in range(400):
        text = "h,i\n" + "".join(source.choices(pieces, k=source.randint(1, 30)))
        path.write_text(text)
        each = records.records(io.StringIO(text), ",", '"', how.quote_escape)
        expected = records.faults(each, ",")
        assert lost_rows(path, how) == expected, text
        found += bool(expected)
    assert 100 < found < 390


@pytest.mark.parametrize("break_at", [None, "text", "code", "missing", "padded"])
def test_a_column_of_many_numbers_should_be_guessed_as_if_taken_value_by_value(
    files: Path, monkeypatch: pytest.MonkeyPatch, break_at: str | None
) -> None:
    """Whatever one cell far down is: the first rows only tell what may be."""
    odd = {None: "7.25", "text": "x", "code": "007.5", "missing": "NA", "padded": '" 7.25"'}[break_at]
    cells = [f"{i},{i * 0.37:.2f},{20000000 + i}" for i in range(300)]
    (files / "d.csv").write_text("\n".join(["id,x,eight", *cells, f"300,{odd},20000300"]) + "\n")
    monkeypatch.setattr(guesses, "FIRST", 100)
    file = csv_file.open_csv(files / "d.csv")
    found = {}
    for together in (True, False):
        if not together:
            monkeypatch.setattr(guesses, "_plain_numbers", lambda *_: {})
        database = duckdb.connect()
        load_text(database, file.path, file.dialect, list(file.headers), "d")
        columns = guesses.columns_of(database, "d", file=file)
        values = ", ".join(f"{guesses.typed(column)} AS {column.name}" for column in columns)
        found[together] = [
            *((c.name, c.kind, c.form, c.known, c.distinct, c.tokens, c.unfit, c.day_form) for c in columns),
            *database.execute(f"SELECT {values} FROM d ORDER BY ALL").fetchall(),  # noqa: S608
        ]
    assert found[True] == found[False]


def test_how_much_of_a_file_is_read_should_be_told_while_it_is_read() -> None:
    class Database:
        """As much of DuckDB as is asked: it is done a quarter at a time."""

        share = -1.0

        def execute(self, _query: str) -> None:
            pass

        def query_progress(self) -> float:
            self.share += 25.5
            return self.share

    told: list[str] = []
    heard = threading.Event()

    def hear(text: str) -> None:
        told.append(text)
        if "50%" in text:
            heard.set()

    with shares_told(Database(), "reading d.csv", hear, every=0.001):  # type: ignore[arg-type]
        assert heard.wait(60)
    assert told[:3] == ["reading d.csv", "reading d.csv: 24%", "reading d.csv: 50%"]
