"""`dml predict FILE.csv` of raw data: read by dataset.toml and prepare.sql, as a run does, or refused."""

import csv
import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa  # pyarrow ships no types
import pyarrow.parquet as pq
import pytest

import datasets

Run = Callable[..., tuple[int, str, str]]

TOML = """
title = "Shops"
task = "binary"
main = "shops"
keys = ["id"]
[label]
column = "sold"
positive = "sold"
[source]
folder = "."
licence = "own"
files = { shops = "shops.csv" }
[tables.shops]
nulls = ["", "?"]
delimiter = ";"
encoding = "latin-1"
[tables.shops.columns]
id = "bigint"
turnover = "string"
town = "string"
opened = "date"
sold = "string"
[tables.shops.names]
turnover = "Umsatz in €uro"
[features]
numbers = ["turnover", "opened_month"]
categories = ["town"]
[training]
depth = 2
min_leaf = 1
smoothing = 1.0
[gate]
tolerance = 0.1
max_quarantined_share = 0.5
""".replace("€", "E")
SQL = """
SELECT
    id,
    CASE sold WHEN 'ja' THEN 1 WHEN 'nein' THEN 0 END AS sold, -- it's text
    CAST(replace(replace(turnover, '.', ''), ',', '.') AS DOUBLE) AS turnover,
    month(opened) AS opened_month,
    trim(town) AS town
FROM shops
"""
MISSING = -1e300


def leaf(number: int, probability: float) -> dict[str, Any]:
    return {"id": number, "depth": 1, "rows": 3, "probability": probability}


def tree(feature: str, threshold: float) -> dict[str, Any]:
    """A tree of one question, over the three features."""
    encoding = {"Köln": 0.1, "Bonn": 0.6}
    return {
        "format": 2, "dataset": "shops", "run_id": "run-1", "task": "binary", "label": "sold", "positive": "sold",
        "classes": [], "unit": "",
        "features": [
            {"name": "turnover", "kind": "number", "missing": MISSING, "missing_rows": 0},
            {"name": "opened_month", "kind": "number", "missing": MISSING, "missing_rows": 0},
            {"name": "town", "kind": "category", "encoding": encoding, "prior": 0.3, "unseen": 0.3, "missing": 0.9,
             "missing_rows": 1},
        ],
        "nodes": [
            {"id": 1, "depth": 0, "rows": 6, "probability": 0.5, "feature": feature, "threshold": threshold,
             "left": 2, "right": 3},
            leaf(2, 0.25), leaf(3, 0.75),
        ],
    }  # fmt: skip


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    home = tmp_path / "datasets" / "shops"
    home.mkdir(parents=True)
    (home / "dataset.toml").write_text(TOML, encoding="utf-8")
    (home / "prepare.sql").write_text(SQL, encoding="utf-8")
    monkeypatch.setattr(datasets, "HOME", tmp_path / "datasets")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def raw(*rows: str, header: str = "id;Umsatz in Euro;town;opened;sold") -> bytes:
    return ("\n".join([header, *rows]) + "\n").encode("latin-1")


ROWS = (
    "1;1.234;Köln;2024-01-31;ja",
    '2;950;"Bonn ";2024-12-01;nein',
    "3;1.234.567,8;?;?;ja",
    '4;?;"Kö;ln";2024-06-01;nein',
)


def predicted(dml: Run, folder: Path, content: bytes, feature: str, threshold: float, *options: str) -> Any:
    (folder / "tree.json").write_text(json.dumps(tree(feature, threshold)))
    (folder / "next.csv").write_bytes(content)
    return dml("predict", "next.csv", "--model", "tree.json", *options)


def declare(folder: Path, former: str, now: str) -> None:
    """Writes the dataset's settings anew, with one part of the text for another."""
    toml = folder / "datasets" / "shops" / "dataset.toml"
    toml.write_text(toml.read_text(encoding="utf-8").replace(former, now), encoding="utf-8")


def answers(out: str) -> list[str]:
    return [row[1] for row in list(csv.reader(out.splitlines(), delimiter=";"))[1:]]


@pytest.mark.parametrize(
    ("feature", "threshold", "expected"),
    [
        ("turnover", 1000.0, ["0.75", "0.25", "0.75", "0.25"]),  # 1.234 is more than a thousand, ? is missing
        ("opened_month", 6.5, ["0.25", "0.75", "0.25", "0.25"]),
        ("town", 0.5, ["0.25", "0.75", "0.75", "0.25"]),  # ? is missing (0.9), not unseen (0.3) as Kö;ln
    ],
)
def test_a_raw_file_should_be_scored_as_its_dataset_says(
    dml: Run, folder: Path, feature: str, threshold: float, expected: list[str]
) -> None:
    code, out, err = predicted(dml, folder, raw(*ROWS), feature, threshold)
    assert (code, answers(out)) == (0, expected)
    assert out.splitlines()[:2] == ["id;probability;prediction", f"1;{expected[0]};{int(float(expected[0]) > 0.5)}"]
    assert "next.csv was read as raw data of table shops, as a run does: by datasets/shops/dataset.toml and" in err
    positive = sum(float(answer) > 0.5 for answer in expected)
    assert f"Predictions: {positive or 'none'} predicted positive" in err


@pytest.mark.parametrize(
    "content",
    [
        raw(*ROWS, header="ID;UMSATZ IN EURO;Town;Opened;sold"),
        raw(*(row.rpartition(";")[0] for row in ROWS), header="id;Umsatz in Euro;town;opened"),  # nobody knows yet
        raw("", *ROWS, ""),
        raw(*ROWS).replace(b"\n", b"\r\n"),
        raw(
            *(";".join(reversed(row.replace("Kö;ln", "Kö").split(";"))) for row in ROWS),
            header="sold;opened;town;Umsatz in Euro;id",
        ),
    ],
    ids=["capitals", "no label", "empty lines", "windows", "another order"],
)
def test_what_a_run_reads_alike_should_be_scored_alike(dml: Run, folder: Path, content: bytes) -> None:
    code, out, _ = predicted(dml, folder, content, "turnover", 1000.0)
    assert (code, answers(out)) == (0, ["0.75", "0.25", "0.75", "0.25"])


@pytest.mark.parametrize("encoding", ["windows-1252", "utf-8"])
def test_lines_above_the_header_and_the_encoding_should_be_as_declared(dml: Run, folder: Path, encoding: str) -> None:
    declare(folder, 'encoding = "latin-1"', f'encoding = "{encoding}"\nskip = 2')
    content = ('Our "report\n\n' + raw(*ROWS).decode("latin-1")).encode(encoding)
    code, out, _ = predicted(dml, folder, content, "town", 0.5)
    assert (code, answers(out)) == (0, ["0.25", "0.75", "0.75", "0.25"])


@pytest.mark.parametrize("format", ["parquet", "jsonl"])
def test_parquet_and_json_lines_should_be_scored_as_csv_is(dml: Run, folder: Path, format: str) -> None:
    declare(folder, 'delimiter = ";"\nencoding = "latin-1"', f'format = "{format}"')
    rows = list(csv.DictReader(raw(*ROWS).decode("latin-1").splitlines(), delimiter=";"))
    file = folder / f"next.{format}"
    if format == "parquet":
        rows = [{**row, "id": int(row["id"]), "tags": ["a"]} for row in rows]
        pq.write_table(pa.Table.from_pylist(rows), file)
    else:
        file.write_text("".join(f"{json.dumps({**row, 'tags': {}})}\n" for row in rows) + "{}}\n", encoding="utf-8")
    for feature, threshold, expected in (
        ("turnover", 1000.0, ["0.75", "0.25", "0.75", "0.25"]),
        ("opened_month", 6.5, ["0.25", "0.75", "0.25", "0.25"]),
        ("town", 0.5, ["0.25", "0.75", "0.75", "0.25"]),
    ):
        (folder / "tree.json").write_text(json.dumps(tree(feature, threshold)))
        code, out, err = dml("predict", file.name, "--model", "tree.json")
        assert (code, [row.split(",")[1] for row in out.splitlines()[1:]]) == (0, expected)
        assert ("line 5: the line is no JSON: " in err) is (format == "jsonl")
    code, out, err = predicted(dml, folder, raw(*ROWS), "turnover", 1000.0)
    assert (code, out) == (1, "")
    assert "As a raw file: it is CSV, and" in err


def test_a_parquet_file_where_csv_is_declared_should_be_named(dml: Run, folder: Path) -> None:
    pq.write_table(pa.table({"id": [1], "town": ["Köln"]}), folder / "next.parquet")
    (folder / "tree.json").write_text(json.dumps(tree("town", 0.5)))
    code, out, err = dml("predict", "next.parquet", "--model", "tree.json")
    assert (code, out) == (1, "")
    assert "next.parquet is Parquet, but table shops of datasets/shops/dataset.toml is CSV: convert the file." in err


def as_json_lines(folder: Path) -> list[dict[str, Any]]:
    """Declares JSON lines, and gives ROWS as objects."""
    declare(folder, 'delimiter = ";"\nencoding = "latin-1"', 'format = "jsonl"')
    (folder / "tree.json").write_text(json.dumps(tree("turnover", 1000.0)))
    return list(csv.DictReader(raw(*ROWS).decode("latin-1").splitlines(), delimiter=";"))


def test_one_row_of_json_should_not_decide_for_the_others(dml: Run, folder: Path) -> None:
    rows = as_json_lines(folder)
    rows[1]["town"] = ["Bonn"]
    (folder / "next.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows), encoding="utf-8")
    code, out, err = dml("predict", "next.jsonl", "--model", "tree.json")
    assert (code, [row.split(",")[1] for row in out.splitlines()[1:]]) == (0, ["0.75", "0.75", "0.25"])
    assert "1 row not scored, as a run would quarantine them: line 2: 'town' is a list, and no single value." in err


def test_keys_of_json_should_be_told_apart_by_capitals_as_a_run_does(dml: Run, folder: Path) -> None:
    rows = [{key.title(): value for key, value in row.items()} for row in as_json_lines(folder)]
    (folder / "next.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows), encoding="utf-8")
    code, out, err = dml("predict", "next.jsonl", "--model", "tree.json")
    assert (code, out) == (1, "")
    assert "it has no key 'id', 'Umsatz in Euro', 'town', 'opened' with single values; it has 'Id', " in err


WHOLE = raw(*ROWS).decode("latin-1")
WORKBOOK = b"PK\x03\x04\x14\0\x06\0"


@pytest.mark.parametrize("read_as", [None, "raw", "features"])
@pytest.mark.parametrize(
    ("content", "said"),
    [
        (WHOLE.encode("utf-16"), "next.csv is UTF-16: convert it, such as by `iconv -f UTF-16 -t UTF-8 OLD > NEW`"),
        (WHOLE.encode("utf-16-le"), "next.csv is UTF-16: convert it"),
        (WORKBOOK, "next.csv is a zip archive or an Excel workbook: unpack it, or export it as CSV in UTF-8"),
        (raw(*ROWS, "5;1;\0;2024-01-31;ja"), "next.csv holds zero bytes"),
        (b'[{"id": 1}]', "next.csv is JSON, but not an object a line"),
    ],
    ids=["UTF-16 with a mark", "UTF-16 without", "workbook", "zero bytes", "JSON"],
)
def test_what_is_no_csv_should_be_called_by_its_name(
    dml: Run, folder: Path, content: bytes, said: str, read_as: str | None
) -> None:
    options = ["--read-as", read_as] if read_as else []
    code, out, err = predicted(dml, folder, content, "turnover", 1000.0, *options)
    assert (code, out) == (1, "")
    assert said in err


@pytest.mark.parametrize("row", ["5;1;K\0;2024-01-31;ja", "\0"])
def test_a_zero_byte_far_into_a_file_should_be_refused_as_a_run_does(dml: Run, folder: Path, row: str) -> None:
    content = raw(*(ROWS * 1_000), row)
    assert content.index(0) > 64 * 1024
    code, out, err = predicted(dml, folder, content, "turnover", 1000.0)
    assert (code, out) == (1, "")
    assert "next.csv holds zero bytes (line 4002), so it is no text" in err


def test_a_byte_order_mark_within_a_raw_file_should_be_refused_as_a_run_does(dml: Run, folder: Path) -> None:
    mark = b"\xef\xbb\xbf"
    code, out, err = predicted(dml, folder, mark + raw(*ROWS) + mark + raw(*ROWS), "turnover", 1000.0)
    assert (code, out) == (1, "")
    assert f"next.csv: line {len(ROWS) + 2} begins with a byte order mark ('id;" in err
    code, out, err = predicted(dml, folder, mark + raw(*ROWS), "turnover", 1000.0)
    assert (code, out) == (0, predicted(dml, folder, raw(*ROWS), "turnover", 1000.0)[1])


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ("1000,1,K\0", "next.csv holds zero bytes (line 9002), so it is no text"),
        ("\ufeff1000,1,K", "next.csv: line 9002 begins with a byte order mark"),
    ],
)
def test_what_is_no_text_far_into_a_file_of_features_should_be_refused(
    dml: Run, folder: Path, row: str, said: str
) -> None:
    content = "turnover,opened_month,town\n" + "1000.5,12,Lund\n" * 9_000 + row + "\n"
    code, out, err = predicted(dml, folder, content.encode(), "town", 0.5, "--read-as", "features", "-o", "out.csv")
    assert (code, out, (folder / "out.csv").exists()) == (1, "", False)
    assert said in err


def test_a_header_among_the_rows_should_be_set_aside_as_by_a_run(dml: Run, folder: Path) -> None:
    text = (folder / "datasets" / "shops" / "dataset.toml").read_text().replace('id = "bigint"', 'id = "string"')
    (folder / "datasets" / "shops" / "dataset.toml").write_text(text.replace('opened = "date"', 'opened = "string"'))
    header = "ID;Umsatz in Euro;town;Opened;sold"  # as dataset.toml has no names for what differs in capitals alone
    query = (folder / "datasets" / "shops" / "prepare.sql").read_text()
    query = query.replace("month(opened)", "length(opened)").replace("CAST(replace(", "TRY_CAST(replace(")
    (folder / "datasets" / "shops" / "prepare.sql").write_text(query)
    code, out, err = predicted(dml, folder, raw(*ROWS, header, *ROWS), "turnover", 1000.0)
    assert (code, len(out.splitlines())) == (0, 1 + 2 * len(ROWS)), err
    assert f"1 row not scored, as a run would quarantine them: line {len(ROWS) + 2}: the line repeats the header" in err


def test_parquet_should_be_no_file_of_features(dml: Run, folder: Path) -> None:
    pq.write_table(pa.table({"turnover": [1.0], "opened_month": [1], "town": ["Köln"]}), folder / "next.parquet")
    (folder / "tree.json").write_text(json.dumps(tree("town", 0.5)))
    code, out, err = dml("predict", "next.parquet", "--model", "tree.json", "--read-as", "features")
    assert (code, out) == (1, "")
    assert "next.parquet is Parquet, and a file of features is CSV in UTF-8: convert it." in err


def test_a_packed_raw_file_should_be_scored_with_all_its_columns_if_asked_for(dml: Run, folder: Path) -> None:
    (folder / "next.csv.gz").write_bytes(gzip.compress(raw(*ROWS)))
    predicted(dml, folder, raw(*ROWS), "turnover", 1000.0)
    code, out, _ = dml("predict", "next.csv.gz", "--model", "tree.json", "--all-columns")
    assert (code, out.splitlines()[1]) == (0, "1;1.234;Köln;2024-01-31;ja;0.75;1")


def test_a_raw_column_of_any_name_should_leave_rows_where_they_are(dml: Run, folder: Path) -> None:
    """`row` was what the rows were told apart by."""
    home = folder / "datasets" / "shops"
    for name in ("dataset.toml", "prepare.sql"):
        text = (home / name).read_text(encoding="utf-8")
        text = text.replace('town = "string"', 'row = "string"').replace("trim(town)", "trim(row)")
        (home / name).write_text(text, encoding="utf-8")
    rows = [f"{number};{number};{90 - number};2024-01-31;ja" for number in range(1, 21)]
    content = raw(*rows, header="id;Umsatz in Euro;row;opened;sold")
    code, out, _ = predicted(dml, folder, content, "turnover", 10.5, "--all-columns")
    found = list(csv.reader(out.splitlines()[1:], delimiter=";"))
    assert code == 0
    assert [(row[0], row[5]) for row in found] == [(str(n), "0.75" if n > 10 else "0.25") for n in range(1, 21)]


def test_a_raw_file_that_is_not_of_the_declared_encoding_should_be_told_as_that(dml: Run, folder: Path) -> None:
    declare(folder, 'encoding = "latin-1"\n', "")
    code, out, err = predicted(
        dml, folder, raw("1;2;Köln;2024-01-31;ja", header="id;Größe;town;opened;sold"), "town", 1.0
    )
    assert (code, out) == (1, "")
    assert "next.csv is not utf-8 (invalid start byte), which datasets/shops/dataset.toml declares" in err


def test_rows_that_a_run_would_set_aside_should_be_counted_and_named(dml: Run, folder: Path) -> None:
    content = raw(*ROWS, "five;1;Köln;2024-01-31;ja", "6;1;Köln", "7;1;Köln;2024-02-30;ja")
    code, out, err = predicted(dml, folder, content, "turnover", 1000.0)
    assert (code, len(answers(out))) == (0, 4)
    assert (
        "3 rows not scored, as a run would quarantine them: line 6: column id: 'five' is no bigint; line 7: the "
        "line has "
        "not the 5 fields of the header; line 8: column opened: '2024-02-30' is no date." in err
    )


def test_too_many_such_rows_should_leave_no_output(dml: Run, folder: Path) -> None:
    code, out, err = predicted(dml, folder, raw(ROWS[0], "x;1;;;ja", "y;1;;;ja"), "turnover", 1000.0)
    assert (code, out) == (1, "")
    assert "2 of 3 rows do not parse (66.67%; gate.max_quarantined_share of datasets/shops/dataset.toml allows" in err


def test_rows_that_prepare_sql_leaves_out_should_be_counted(dml: Run, folder: Path) -> None:
    (folder / "datasets/shops/prepare.sql").write_text(f"{SQL}WHERE opened >= '2024-06-01'\n", encoding="utf-8")
    code, out, err = predicted(dml, folder, raw(*ROWS), "turnover", 1000.0)
    assert (code, answers(out)) == (0, ["0.25", "0.25"])
    assert "2 rows not scored, since prepare.sql leaves them out (WHERE)." in err


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (raw(ROWS[0], '2;"half;open', '3;"half;open'), "the quote before 'half;open' closes a cell that line 3 opens"),
        (
            raw(*ROWS, header="id;turnover in USD;town;opened;sold"),
            "is neither a raw file of shops nor one of its feat",
        ),
    ],
    ids=["open quotes", "another header"],
)
def test_a_raw_file_that_may_be_misread_should_be_refused(dml: Run, folder: Path, content: bytes, said: str) -> None:
    code, out, err = predicted(dml, folder, content, "turnover", 1000.0)
    assert (code, out) == (1, "")
    assert said in err


@pytest.mark.parametrize(
    ("sql", "why"),
    [
        (SQL.replace("FROM shops", "FROM shops JOIN towns USING (town)"), "joins other tables"),
        (
            SQL.replace("month(opened)", "count(*) OVER (PARTITION BY town)"),
            "looks at other rows (count OVER), for open",
        ),
    ],
)
def test_what_takes_other_rows_should_be_refused_with_the_way_that_does_it(
    dml: Run, folder: Path, sql: str, why: str
) -> None:
    (folder / "datasets/shops/prepare.sql").write_text(sql, encoding="utf-8")
    code, out, err = predicted(dml, folder, raw(*ROWS), "turnover", 1000.0)
    assert (code, out) == (1, "")
    assert f"datasets/shops/prepare.sql {why}" in err
    assert (
        "`dml data push shops` and `dml run shops`, whose features `dml predict shops --table features` scores" in err
    )


def test_a_file_of_features_should_be_read_as_it_is_and_said(dml: Run, folder: Path) -> None:
    content = b"id,turnover,opened_month,town\n1,1.234,1,Bonn\n2,1234,12,?\n"
    code, out, err = predicted(dml, folder, content, "turnover", 1000.0)
    assert (code, out.splitlines()[1:]) == (0, ["1,0.25,0", "2,0.75,1"])
    assert "next.csv was read as the model's features: numbers with a point, missing ones empty or 'NA'." in err
    assert predicted(dml, folder, content, "turnover", 1000.0, "--read-as", "raw")[0] == 1
