"""One table of several files, in folders name=value too, to `dml dataset new`, `check` and `dml predict FILE`."""

import gzip
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa  # pyarrow ships no types
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

import datasets
from datasets import load_dataset
from dml.dataset import check
from dml.dataset import new as own
from dml.dataset.check import Checked
from dml.dataset.scaffold import Draft
from dml.dataset.tables import told_of
from dml.errors import UserError
from jobs.tables import folders

New = Callable[..., Draft]
Run = Callable[..., tuple[int, str, str]]
Files = Mapping[str, str | bytes]


def rows(header: str, start: int = 0, row: str = "{0},{1},{2}", count: int = 30) -> str:
    """A number of its own for each row, a small number, and yes or no."""
    made = (row.format(i, i % 7, "yes" if i % 3 else "no") for i in range(start, start + count))
    return "\n".join([header, *made]) + "\n"


JANUARY, FEBRUARY = rows("id,b,y"), rows("id,b,y", 30)


def written(home: Path, files: Files) -> None:
    for place, text in files.items():
        (home / place).parent.mkdir(parents=True, exist_ok=True)
        (home / place).write_bytes(text if isinstance(text, bytes) else text.encode())


@pytest.fixture
def new(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> New:
    """new({file: text}, what is given) scaffolds the dataset `d`, which predicts y."""
    monkeypatch.setattr(datasets, "HOME", tmp_path / "datasets")

    def scaffold(files: Files, *given: str, label: str = "y", columns: str = "") -> Draft:
        written(tmp_path / "in", files)
        paths = [tmp_path / "in" / each for each in given or files]
        return own.new("d", paths, label, columns=columns.split(",") if columns else [], on_progress=lambda _: None)

    return scaffold


def sampled(tmp_path: Path) -> tuple[Checked, list[tuple[Any, ...]]]:
    """What `dml dataset check` says of the files of `d`, and the rows of its main table that it hands to Spark."""
    found, dataset = Checked("d"), load_dataset("d")
    tables = check._sampled(dataset, found, tmp_path / "cache", tmp_path)
    assert tables is not None
    return found, duckdb.read_parquet(str(tables[dataset.main])).order("id").fetchall()


def test_files_of_one_header_should_be_one_table_called_as_they_begin(new: New, tmp_path: Path) -> None:
    draft = new({"bikes_Jan.csv": JANUARY, "bikes_Feb.csv": FEBRUARY})
    found = load_dataset("d")
    assert (found.main, found.keys, draft.rows) == ("bikes", ("id",), {"bikes": 60})
    assert found.source.files == {"bikes": ("bikes_Jan.csv", "bikes_Feb.csv")}
    assert told_of(draft.files["bikes"]) == "bikes: 2 files of one header (bikes_Jan.csv, bikes_Feb.csv)"
    checked, made = sampled(tmp_path)
    assert (checked.findings, len(made)) == ([], 60)


def test_a_folder_should_be_one_table_and_its_folders_columns_of_text(new: New, tmp_path: Path) -> None:
    tree = {
        "sales/Year=2023/month=01/a.csv": JANUARY,
        "sales/Year=2024/month=K%C3%B6ln%2F2/a.csv.gz": gzip.compress(FEBRUARY.encode()),
        "sales/Year=2024/month=__HIVE_DEFAULT_PARTITION__/a.csv": rows("id,b,y", 60),
        "sales/_SUCCESS": "",
        "sales/Year=2024/.a.csv.crc": b"\x00",
    }
    draft = new(tree, "sales")
    found = load_dataset("d")
    assert found.source.files == {"sales": "sales"}
    table = found.tables["sales"]
    assert (table.partitions, table.names) == (("year", "month"), {"year": "Year"})
    assert list(table.columns.items())[-2:] == [("year", "string"), ("month", "string")]
    assert told_of(draft.files["sales"]) == "sales: 3 files in sales; folders Year=…/month=… are columns of text"
    checked, made = sampled(tmp_path)
    assert checked.findings == []
    assert [(row[0], *row[3:]) for row in made if row[0] in (0, 30, 60)] == [
        (0, "2023", "01"),
        (30, "2024", "Köln/2"),
        (60, "2024", None),
    ]


def test_types_should_be_those_that_all_files_have(new: New) -> None:
    new({"a.csv": JANUARY, "b.csv": rows("id,b,y", 30, "x{0},{1}.5,{2}")})
    assert dict(load_dataset("d").tables["d"].columns) == {"id": "string", "b": "double", "y": "string"}


def test_files_of_other_headers_should_be_tables_of_their_own_names(new: New) -> None:
    towns = rows("b,town", row="{0},t{1}", count=7)
    new(
        {"in/shops/1.csv": JANUARY, "in/shops/2.csv": FEBRUARY, "in/towns/x.csv": towns, "in/zones.csv": "z,w\n1,2\n"},
        "in",
    )
    found = load_dataset("d")
    assert found.source.files == {"shops": "in/shops", "x": "in/towns/x.csv", "zones": "in/zones.csv"}
    assert found.main == "shops"
    assert "LEFT JOIN x ON x.b = shops.b" in datasets.prepare_sql("d")


def test_json_lines_of_one_folder_should_be_one_table_whatever_keys_each_has(new: New, tmp_path: Path) -> None:
    lines = [
        json.dumps({"id": i, "y": "yes" if i % 3 else "no", **({"z": f"q{i % 4}"} if i >= 30 else {})})
        for i in range(60)
    ]
    new({"t/a.jsonl": "\n".join(lines[:30]), "t/b.jsonl": "\n".join(lines[30:])}, "t")
    checked, made = sampled(tmp_path)
    assert checked.findings == []
    assert [row[2] for row in made[28:32]] == [None, None, "q2", "q3"]


def parquet(kind: Any) -> bytes:
    sink = pa.BufferOutputStream()
    values = range(30)
    labels = ["yes" if i % 3 else "no" for i in values]
    pq.write_table(pa.table({"id": pa.array(values, kind), "b": [i % 7 for i in values], "y": labels}), sink)
    made: bytes = sink.getvalue().to_pybytes()
    return made


LETTERS = rows("id,b,y", row="ü{0},{1},{2}")


@pytest.mark.parametrize(
    ("files", "said"),
    [
        ({"p.csv": JANUARY, "q.csv": rows("b,id,y")}, "in another order: column 1 is 'id' there and 'b' here"),
        ({"p.csv": rows("my id,b,y"), "q.csv": rows("my_id,b,y")}, "how it is written: 'my id' there is 'my_id' here"),
        ({"p.csv": JANUARY, "q.csv": rows("id,b,y,z", row="{0},1,no,2")}, "nearly alike: q.csv alone has 'z'. If"),
        ({"p.csv": JANUARY, "q.csv": rows("id;b;y", row="{0};{1};{2}")}, "p.csv and q.csv .* not the same delimiter"),
        ({"p.csv": LETTERS.encode("latin-1"), "q.csv": LETTERS}, "and q.csv .* one is latin-1 and the other utf-8"),
        ({"p.csv": "Report\n\n" + JANUARY, "q.csv": FEBRUARY}, "not as many lines above it .2 and 0."),
        (
            {"p.csv": rows("id,b,y", row='"a \\"{0}\\"",{1},{2}'), "q.csv": rows("id,b,y", row='"a ""{0}""",{1},{2}')},
            'not the same quotes .a quote within a cell is written \\\\" and "".',
        ),
        ({"p.csv": JANUARY, "q.jsonl": '{"id": 1, "b": 2, "y": "no"}\n' * 9}, "one is CSV and the other JSON lines"),
        ({"p.parquet": parquet(pa.int64()), "q.parquet": parquet(pa.int32())}, "id is BIGINT in one and INTEGER in"),
        ({"p.csv": JANUARY, "p.csv.gz": gzip.compress(JANUARY.encode())}, "are one file, packed and as it is"),
    ],
)  # fmt: skip
def test_files_that_are_nearly_one_table_should_be_told_apart_and_by_what(new: New, files: Files, said: str) -> None:
    with pytest.raises(UserError, match=said):
        new(files)
    assert not datasets.dataset_names()


@pytest.mark.parametrize(
    ("files", "said"),
    [
        ({"t/k=1/p.csv": JANUARY, "t/p.csv": FEBRUARY}, "p.csv and k=1/p.csv .* only one of them lies in a folder k=…"),
        ({"t/k=1/m=2/p.csv": JANUARY, "t/k=2/p.csv": FEBRUARY}, "k=2/p.csv and k=1/m=2/p.csv .* a folder m=…"),
        ({"t/B=1/p.csv": JANUARY, "t/B=2/p.csv": FEBRUARY}, "lies in a folder B=…, and has a column 'b' too"),
        ({"t/k=1/k=2/p.csv": JANUARY, "t/k=2/k=2/p.csv": FEBRUARY}, "has two folders k=: take one of them away"),
        ({"t/p.csv": JANUARY, "t/README.md": "# t\n"}, "t holds README.md, which by the name is no data"),
        ({"t/p.csv": JANUARY, "t/q.csv": ""}, "q.csv is empty"),
        ({"t/_SUCCESS": ""}, "t is a folder without files"),
    ],
)
def test_a_folder_that_is_no_table_should_be_told_with_the_file(new: New, files: Files, said: str) -> None:
    with pytest.raises(UserError, match=said):
        new(files, "t")


def test_other_encodings_should_be_one_where_one_holds_them_all(new: New) -> None:
    quotes = rows("id,b,y", 30, "“{0}”,{1},{2}").encode("cp1252")
    new({"p.csv": LETTERS.encode("latin-1"), "q.csv": quotes, "r.csv": rows("id,b,y", 60)})
    assert load_dataset("d").tables["d"].encoding == "windows-1252"


def test_files_without_a_header_should_be_one_table_of_the_columns_given(new: New, tmp_path: Path) -> None:
    bare = [text.partition("\n")[2] for text in (JANUARY, FEBRUARY)]
    new({"t/k=a/p.csv": bare[0], "t/k=b/p.csv": bare[1]}, "t", columns="id,b,y")
    table = load_dataset("d").tables["t"]
    assert (table.header, list(table.columns)) == (False, ["id", "b", "y", "k"])
    checked, made = sampled(tmp_path)
    assert (checked.findings, made[0], made[59]) == ([], (0, 0, "no", "a"), (59, 3, "yes", "b"))


def test_a_line_that_is_no_row_should_be_told_with_its_file(new: New) -> None:
    found = new({"t/k=1/a.csv": JANUARY, "t/k=2/a.csv": FEBRUARY + "1,2,3,4\n5\n"}, "t")
    told = "t/: lines with another number of fields than the header: 2 of 62 (in k=2/a.csv); runs quarantine them."
    assert (told in found.notes, found.rows) == (True, {"t": 60})


def test_a_copy_among_the_files_should_be_told(new: New) -> None:
    found = new({"p.csv": JANUARY, "q.csv": JANUARY})
    assert any("q.csv is a copy of " in note and "Its rows count twice." in note for note in found.notes)


@pytest.mark.parametrize(("last", "told"), [("Total,90,", True), ("31,5,no", False), ("Total,1,no\nTotal,2,no", False)])
def test_a_last_row_that_sums_up_the_others_should_be_told(new: New, last: str, told: bool) -> None:
    notes = new({"p.csv": f"{JANUARY}{last}\n"}).notes
    assert any(note.startswith("p.csv: its last row begins with 'Total'. If it sums up") for note in notes) == told


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (
            {"sales/k=2/a.csv": rows("id,c,y", 30)},
            "k=1/a.csv and k=2/a.csv have different headers (k=2/a.csv alone has 'c'",
        ),
        ({"sales/b.csv": FEBRUARY}, "tables.sales.partitions: b.csv lies in no folder k=…"),
        ({"sales/k=2/a.csv": rows("id,b,y", 30, "x{0},{1},{2}")}, "cells of id are no bigint ('x30' in k=2/a.csv"),
        ({"sales/k=2/a.csv": FEBRUARY + "1,2\n" * 9}, "9 lines have not the header's 3 fields (k=2/a.csv): mend"),
        ({"sales/k=2/a.csv": rows("id,b,y", 30).encode() + b"\xff,1,no\n"}, "a.csv is not UTF-8"),
    ],
)
def test_check_should_name_the_file_of_a_table_that_does_not_fit(
    new: New, tmp_path: Path, change: Files, said: str
) -> None:
    new({"sales/k=1/a.csv": JANUARY, "sales/k=2/a.csv": FEBRUARY}, "sales")
    written(tmp_path / "in", change)
    checked, _ = sampled(tmp_path)
    assert any(said in finding for finding in checked.findings), checked.findings


def leaf(number: int, probability: float) -> dict[str, Any]:
    return {"id": number, "depth": 1, "rows": 3, "probability": probability}


TREE = {
    "format": 2, "dataset": "d", "run_id": "run-1", "task": "binary", "label": "y", "positive": "y is yes",
    "classes": [], "unit": "",
    "features": [
        {"name": "b", "kind": "number", "missing": -1e300, "missing_rows": 0},
        {"name": "k", "kind": "category", "encoding": {"01": 0.1, "ü": 0.9}, "prior": 0.3, "unseen": 0.3,
         "missing": 0.8, "missing_rows": 1},
    ],
    "nodes": [
        {"id": 1, "depth": 0, "rows": 6, "probability": 0.5, "feature": "k", "threshold": 0.5, "left": 2, "right": 3},
        leaf(2, 0.25), leaf(3, 0.75),
    ],
}  # fmt: skip


def test_several_files_should_be_scored_as_one_table_with_what_their_folders_tell(
    new: New, dml: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    new({"sales/k=01/a.csv": JANUARY, "sales/k=%C3%BC/a.csv": FEBRUARY}, "sales")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tree.json").write_text(json.dumps(TREE))
    later = {
        "next/k=01/a.csv": "id,b,y\n1,2,\n",
        "next/k=%C3%BC/a.csv": "id,b,y\n2,2,\nx,2,3,4\n" + rows("", 90).lstrip(),
        "next/k=__HIVE_DEFAULT_PARTITION__/b.csv": "id,b,y\n3,2,\n",
        "bare/a.csv": "id,b,y\n1,2,\n",
        "other/k=1/a.csv": "id,y,b\n1,,2\n",
    }
    written(tmp_path, later)
    code, out, err = dml("predict", "next/", "--model", "tree.json")
    assert code == 0, err
    answers = {row.split(",")[0]: row.split(",")[1] for row in out.splitlines()[1:]}
    assert (len(answers), answers["1"], answers["2"], answers["3"], answers["90"]) == (
        33,
        "0.25",
        "0.75",
        "0.75",
        "0.75",
    )
    assert "a.csv, a.csv, b.csv were read as raw data of table sales" in " ".join(err.split())
    assert (
        "1 row not scored, as a run would quarantine them: next/k=%C3%BC/a.csv, line 3: the line has not the 3" in err
    )
    code, files, err = dml("predict", *[place for place in later if place.startswith("next/")], "--model", "tree.json")
    assert (code, sorted(files.splitlines())) == (0, sorted(out.splitlines())), err
    code, _, err = dml("predict", "bare/a.csv", "--model", "tree.json")
    assert (code, "bare/a.csv lies in no folder k=…" in err) == (1, True), err
    code, out, err = dml("predict", "next/k=01/a.csv", "other/k=1/a.csv", "--model", "tree.json")
    assert (code, out, "have different headers; a run takes files of one header" in err) == (1, "", True), err


def test_folders_that_are_no_columns_should_be_passed_over() -> None:
    assert folders.values("run=1/run=2/k=3/a.csv", ["k"]) == ["3"]
    with pytest.raises(ValueError, match="has two folders k="):
        folders.values("k=1/k=3/a.csv", ["k"])


@given(st.dictionaries(st.text(st.characters(codec="utf-8", exclude_characters="/%\0=")), st.text(), max_size=3))
def test_what_writes_folders_as_hive_or_as_uris_should_be_read_back(told: dict[str, str]) -> None:
    told = {name: value for name, value in told.items() if name}

    def hive(text: str) -> str:
        """As Spark's ExternalCatalogUtils.escapePathName."""
        return "".join(f"%{ord(c):02X}" if c < " " or c in "\"#%'*/:=?\\\x7f{[]^" else c for c in text)

    path = "/".join([*(f"{hive(name)}={hive(value)}" for name, value in told.items()), "a=b.csv"])
    assert folders.of_path(path) == told
