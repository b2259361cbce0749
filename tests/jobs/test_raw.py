"""Raw CSV files of all kinds: what parses, what is set aside, and what the reader of an error is told."""

import bz2
import gzip
import io
import random
from pathlib import Path
from typing import Any

import pytest
from py4j.protocol import Py4JJavaError  # type: ignore[import-untyped]  # py4j ships no types
from pydantic import TypeAdapter
from pyspark.errors import AnalysisException, PySparkException
from pyspark.sql import DataFrame, SparkSession

from jobs.errors import JobError
from jobs.tables import lines, raw, records
from jobs.tables.catalog import CatalogTable
from jobs.tables.settings import Table

POINTS = {"columns": {"id": "bigint", "x": "double", "at": "timestamp"}}
WORDS = {"columns": {"id": "bigint", "word": "string"}}
NONE = (None, None)  # neither reason nor record


def read(spark: SparkSession, folder: Path, files: "str | bytes | dict[str, bytes]", **settings: Any) -> DataFrame:
    """The files as prepare.py reads them, with these settings in dataset.toml; one is called file.csv."""
    if isinstance(files, str):
        files = files.encode()
    for name, content in (files if isinstance(files, dict) else {"file.csv": files}).items():
        (folder / name).write_bytes(content)
    declared = TypeAdapter(Table).validate_python(settings)
    table = CatalogTable("db", "points", folder.as_uri(), "csv")
    return raw.parse(raw.read_lines(spark, table, declared, "datasets/points/dataset.toml"), declared)


def rows(parsed: DataFrame) -> list[tuple[Any, ...]]:
    """The good rows as tuples, in the files' order; fails if there are bad ones."""
    found = parsed.drop(raw.FILE).collect()
    assert [row[raw.REASON] for row in found if row[raw.REASON]] == []
    return [tuple(row)[:-2] for row in found]


def bad(parsed: DataFrame) -> list[tuple[str, str]]:
    """(reason, record) of the rows that are set aside."""
    found = parsed.where(f"{raw.REASON} IS NOT NULL").collect()
    assert all(row[raw.FILE].endswith("/file.csv") for row in found)
    return [(row[raw.REASON], row[raw.RECORD]) for row in found]


def test_good_rows_should_have_the_declared_types(spark: SparkSession, tmp_path: Path) -> None:
    text = 'id,note,x,at\n1,"a, b",2.5,2013-01-01T10:00:00Z\n2,,NA,\n'
    parsed = read(spark, tmp_path, text, **POINTS)
    assert parsed.select("id", "x", "at").dtypes == [("id", "bigint"), ("x", "double"), ("at", "timestamp")]
    assert parsed.selectExpr("id", "x", "string(at)", raw.REASON, raw.RECORD).collect() == [
        (1, 2.5, "2013-01-01 10:00:00", *NONE),
        (2, None, None, *NONE),
    ]


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("1,a,2.5", "the line has not the 4 fields of the header"),
        ("1,a,2.5,,surplus", "the line has not the 4 fields of the header"),
        ("1.5,a,2.5,", "column id: '1.5' is not a bigint"),
        ("1,a,two,", "column x: 'two' is not a double"),
        ("1,a,2.5,2013-02-30", "column at: '2013-02-30' is not a timestamp"),
        ("99999999999999999999,a,2.5,", "column id: '99999999999999999999' is not a bigint"),
    ],
)
def test_a_row_that_does_not_parse_should_be_told_with_file_reason_and_record(
    spark: SparkSession, tmp_path: Path, line: str, reason: str
) -> None:
    assert bad(read(spark, tmp_path, f"id,note,x,at\n7,good,1,\n{line}\n", **POINTS)) == [(reason, line)]


def test_a_broken_row_should_be_seen_even_if_nobody_asks_for_its_columns(spark: SparkSession, tmp_path: Path) -> None:
    parsed = read(spark, tmp_path, "id,note,x,at\n1\n2,b,3,\n", **POINTS)
    assert parsed.where(f"{raw.REASON} IS NOT NULL").count() == 1


CELLS = {
    "quoted": ('id,word\n1,"a,b"\n2,"say ""hi"""\n3,""\n', [(1, "a,b"), (2, 'say "hi"'), (3, None)]),
    "backslashes": ('id,word\n1,C:\\new\\\n2,"a\\"\n3,"\\"""\n', [(1, "C:\\new\\"), (2, "a\\"), (3, '\\"')]),
    "quotes within": ("id,word\n1,5\" pipe\n2,it's\n", [(1, '5" pipe'), (2, "it's")]),
    "lines within quotes": (
        'id,word\n1,"two\nlines, ""three""\n\nand more"\n2,b\n3,"\n"\n',
        [(1, 'two\nlines, "three"\n\nand more'), (2, "b"), (3, "\n")],
    ),
    "lines within quotes, windows": ('id,word\r\n1,"two\r\nlines"\r\n2,b\r\n', [(1, "two\nlines"), (2, "b")]),
    "line within a quoted first field": ('word,id\n"a\nb",1\nc,2\n', [(1, "a\nb"), (2, "c")]),
    "line within the header": ('id,"a\nword"\n1,a\n', [(1, "a")]),
    "windows": ("id,word\r\n1,a\r\n2,b\r\n", [(1, "a"), (2, "b")]),
    "no last line end": ("id,word\n1,a\n2,b", [(1, "a"), (2, "b")]),
    "byte order mark": ("\ufeffid,word\n1,a\n", [(1, "a")]),
    "byte order mark and lines within quotes": ('\ufeffid,word\n1,"a\nb"\n', [(1, "a\nb")]),
    "byte order mark before a quote": ('\ufeff"id","word"\n"1","a"\n', [(1, "a")]),
    "empty lines": ("\nid,word\n\n1,a\n   \n\n2,b\n\n\n", [(1, "a"), (2, "b")]),
    "empty lines and lines within quotes": ('\n\nid,word\n\n1,"a\n\nb"\n\n2,b\n\n', [(1, "a\n\nb"), (2, "b")]),
    "comma and space": ('id, word\n 1, Bachelors \n2, "x, y"\n3, NA\n', [(1, "Bachelors"), (2, "x, y"), (3, None)]),
    "space that is meant": ('id,word\n1," a "\n', [(1, " a ")]),
    "unicode": ("id,word\n1,größe 日本 😀\n", [(1, "größe 日本 😀")]),
    "all null": ("id,word\n1,\n2,\n", [(1, None), (2, None)]),
    "other columns in another order": ("z,word,y,id\nq,a,,1\n", [(1, "a")]),
    "upper case": ("ID,Word\n1,a\n", [(1, "a")]),
    "index without a name": (",id,word\n0,1,a\n", [(1, "a")]),
    "columns that nobody asks for, of one name": ("id,x,x,X,word\n1,,,,a\n", [(1, "a")]),
    "names like our own": ("id,_corrupt,_file,_0,_metadata,word\n1,,,,,a\n", [(1, "a")]),
    "one of two by its case": ("id,WORD,word\n1,A,a\n", [(1, "a")]),
}


@pytest.mark.parametrize(("text", "expected"), CELLS.values(), ids=CELLS)
def test_cells_should_be_what_the_file_says(
    spark: SparkSession, tmp_path: Path, text: str, expected: list[tuple[Any, ...]]
) -> None:
    assert (
        rows(read(spark, tmp_path, text, **WORDS, names={"word": "a\nword"} if "a\nword" in text else {})) == expected
    )


def test_a_line_that_begins_with_a_hash_should_be_a_row(spark: SparkSession, tmp_path: Path) -> None:
    assert bad(read(spark, tmp_path, "id,word\n#2,b\n", **WORDS)) == [("column id: '#2' is not a bigint", '"#2",b')]


@pytest.mark.parametrize(
    ("delimiter", "quote"), [(";", '"'), ("\t", '"'), ("|", "'"), (" ", '"'), ("^", "$"), ("]", "\\")]
)
def test_another_dialect_should_be_read_and_told_as_dataset_toml_says(
    spark: SparkSession, tmp_path: Path, delimiter: str, quote: str
) -> None:
    lines = ["id,word,x", "1,'a,b',", "2,'it''s\nc','1.5'", "3,,two", "4,b"]
    text = "\n".join(lines).replace("'", quote).replace(",", delimiter) + "\n"
    columns = {"id": "bigint", "word": "string", "x": "double"}
    parsed = read(spark, tmp_path, text, columns=columns, delimiter=delimiter, quote=quote)
    good = parsed.where(f"{raw.REASON} IS NULL").select("id", "word", "x").collect()
    assert good == [(1, f"a{delimiter}b", None), (2, f"it{quote}s\nc", 1.5)]
    assert bad(parsed) == [
        ("column x: 'two' is not a double", f"3{delimiter}{delimiter}two"),
        ("the line has not the 3 fields of the header", f"4{delimiter}b"),
    ]


def test_records_of_many_lines_should_be_counted_once_and_set_aside_whole(spark: SparkSession, tmp_path: Path) -> None:
    text = 'id,word\n1,"a\nb"\nx,"c\nd"\n3,"e\nf",surplus\n4,g\n'
    parsed = read(spark, tmp_path, text, **WORDS)
    assert parsed.count() == 4
    assert bad(parsed) == [
        ("column id: 'x' is not a bigint", 'x,"c\nd"'),
        (
            "the record of 2 lines has not the 2 fields of the header; is a quote in it never closed?",
            '3,"e\nf",surplus',
        ),
    ]


def test_a_file_without_records_of_many_lines_should_be_split_between_cores(
    spark: SparkSession, tmp_path: Path
) -> None:
    # Inches and closed quotes are no reason to read a file in one piece.
    lines = "".join(f'{i},5" pipe of "{i}"\n' for i in range(400_000))
    assert read(spark, tmp_path, f"id,word\n{lines}", **WORDS).rdd.getNumPartitions() == 2


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ('id,word\n1,"a\n2,b\n3,c\n', r"""the quote that line 2 opens \('1,"a'\) is never closed"""),
        # Two of them close each other: as many quotes as there should be, and half of the rows gone.
        (
            'id,word\n1,"half open\n2,b\n3,c\n4,"half open\n5,e\n',
            r"""line 5 \('4,"half open'\): the quote before 'half open' closes a cell that line 2 opens and""",
        ),
        ('id,word\n1,a\n2,"half open\n3,b"\n', "begins in line 3 goes on to line 4, over lines that look like rows"),
        ('id,word\n1,"The "big" one"\n', "the quote before 'big\" one\"' closes a cell and is followed by neither"),
    ],
)
@pytest.mark.parametrize("encoding", ["utf-8", "latin-1"])
def test_a_quote_in_which_rows_would_be_lost_should_be_told_with_its_lines(
    spark: SparkSession, tmp_path: Path, text: str, told: str, encoding: str
) -> None:
    # As UTF-8, a ß of Latin-1 would take the quote behind it for a part of itself.
    content = text.replace("2,b", "2,bß").encode(encoding)
    with pytest.raises(JobError, match=told):
        read(spark, tmp_path, content if encoding == "latin-1" else {"file.csv": content}, **WORDS, encoding=encoding)


def test_letters_before_quotes_should_not_hide_them_whatever_the_encoding(spark: SparkSession, tmp_path: Path) -> None:
    text = "".join(f'{i},"Straß""e\nß"\n' for i in range(5))
    files = {"file.csv": f"id,word\n{text}".encode("latin-1")}
    assert rows(read(spark, tmp_path, files, **WORDS, encoding="latin-1")) == [(i, 'Straß"e\nß') for i in range(5)]


def test_a_backslash_should_escape_quotes_if_dataset_toml_says_so(spark: SparkSession, tmp_path: Path) -> None:
    text = 'id,word\n1,"The \\"big\\" one, cheap"\n2,"a\\\\"\n3,"x\\ny"\n4,c\\d\n5,""\n'
    found = [(1, 'The "big" one, cheap'), (2, "a\\"), (3, "x\\ny"), (4, "c\\d"), (5, None)]
    assert rows(read(spark, tmp_path, text, **WORDS, escape="\\")) == found


def test_long_cells_should_be_read_if_dataset_toml_says_that_they_are_meant(
    spark: SparkSession, tmp_path: Path
) -> None:
    text = "id,word\n" + "1,a\n" * 5 + '2,"half open\n3,b"\n'
    with pytest.raises(JobError, match="or many_lines = true if such cells are meant"):
        read(spark, tmp_path, text, **WORDS)
    assert read(spark, tmp_path, text, **WORDS, many_lines=True).count() == 6


def test_gzip_should_be_read_as_it_is(spark: SparkSession, tmp_path: Path) -> None:
    files = {"a.csv.gz": gzip.compress(b'id,word\n1,"a\nb"\n'), "b.csv.gz": gzip.compress(b"id,word\n2,c\n")}
    assert sorted(rows(read(spark, tmp_path, files, **WORDS))) == [(1, "a\nb"), (2, "c")]


@pytest.mark.parametrize(
    ("content", "file"),
    [
        (gzip.compress(b"id,word\n" + b"1,a\n" * 9999)[:-20], "a file"),  # Spark doesn't say which
        (b"id,word\n1,a\n", "/file.csv.gz"),
    ],
    ids=["cut", "plain"],
)
def test_what_is_no_gzip_file_should_be_told(spark: SparkSession, tmp_path: Path, content: bytes, file: str) -> None:
    with pytest.raises((PySparkException, Py4JJavaError)) as error:
        read(spark, tmp_path, {"file.csv.gz": content}, **WORDS)
    assert raw.problem_of(error.value).endswith(f"{file} is no complete gzip file: upload it again.")


@pytest.mark.parametrize("text", ["id,word\n1,Zürich\n2,\n", 'id,word\n1,Zürich\n2," "\n3,"\n\n"\n'])
def test_latin_1_should_be_read_if_dataset_toml_says_so(spark: SparkSession, tmp_path: Path, text: str) -> None:
    parsed = read(spark, tmp_path, text.encode("latin-1"), **WORDS, encoding="latin-1")
    assert rows(parsed)[0] == (1, "Zürich")


def test_latin_1_should_not_become_question_marks_if_it_does_not(spark: SparkSession, tmp_path: Path) -> None:
    said = (
        r'file\.csv is not UTF-8; convert it, .*, or say encoding = "latin-1" or encoding = "windows-1252" in \[tables'
    )
    with pytest.raises(JobError, match=said):
        read(spark, tmp_path, "id,word\n1,a\n2,Zürich\n".encode("latin-1"), **WORDS)


def test_a_replacement_character_that_is_in_the_file_should_be_no_error(spark: SparkSession, tmp_path: Path) -> None:
    assert rows(read(spark, tmp_path, "id,word\n1,Z\ufffdrich\n", **WORDS)) == [(1, "Z\ufffdrich")]


def test_without_a_header_columns_should_go_by_position(spark: SparkSession, tmp_path: Path) -> None:
    columns = {"age": "bigint", "work": "string", "income": "string"}
    text = "39, State-gov, <=50K\n50, ?, >50K\n\n"
    parsed = read(spark, tmp_path, text, columns=columns, header=False, nulls=["?"])
    assert rows(parsed) == [(39, "State-gov", "<=50K"), (50, None, ">50K")]


def test_without_a_header_each_file_should_give_all_its_lines(spark: SparkSession, tmp_path: Path) -> None:
    files = {"a.csv": b"1,a\n2,b\n", "b.csv": b"3,c\n", "empty.csv": b""}
    assert sorted(rows(read(spark, tmp_path, files, **WORDS, header=False))) == [(1, "a"), (2, "b"), (3, "c")]


def test_each_null_token_should_be_null_and_nothing_else(spark: SparkSession, tmp_path: Path) -> None:
    text = "id,word\n1,\n2,?\n3,it's\n4,\\N\n5,-999\n6,NULL\n7,null\n"
    parsed = read(spark, tmp_path, text, **WORDS, nulls=["?", "it's", "\\N", "-999", "NULL"])
    assert [word for _, word in rows(parsed)] == ["", None, None, None, None, None, "null"]


def test_an_empty_number_should_make_a_bad_row_if_empty_is_no_null_token(spark: SparkSession, tmp_path: Path) -> None:
    parsed = read(spark, tmp_path, "id,x,at\n1,,NA\n", **POINTS, nulls=["NA"])
    assert bad(parsed) == [("column x: '' is not a double", "1,,NA")]


NUMBERS = "0.5,1e-3,.5,5.,-0,+7,1E5,0000012,123456789012345678901234567890,NaN,nan,Infinity,-Infinity,inf,-INF"


@pytest.mark.parametrize(
    ("kind", "good", "wrong"),
    [
        ("double", NUMBERS, ["1,5", "1 000", "12%", "$3", "1.2.3", "--", "true"]),
        ("bigint", "0,-7,+7,007,9223372036854775807", ["1.0", "1e3", "9223372036854775808", "NaN", "true", "1_000"]),
        ("boolean", "true,True,TRUE,t,T,yes,y,Y,1,false,False,f,no,NO,n,0", ["2", "on", "off", "ja", "1.0"]),
        (
            "date",
            "2024-02-29,2024-2-9,2024-02-29 10:00:00,2024-02-29T10:00:00Z",
            ["2023-02-29", "29.02.2024", "2/9/24"],
        ),
        ("timestamp", "2024-02-29 10:00,2024-02-29T10:00:00.123456Z,2024-02-29 10:00:00+02:00", ["10 am", "1/2/2024"]),
    ],
)
def test_a_cell_should_cast_as_spark_does_or_make_a_bad_row(
    spark: SparkSession, tmp_path: Path, kind: str, good: str, wrong: list[str]
) -> None:
    text = "\n".join(["id;x", *(f"1;{cell}" for cell in good.split(",")), *(f"2;{cell}" for cell in wrong)])
    parsed = read(spark, tmp_path, text, columns={"id": "bigint", "x": kind}, delimiter=";").cache()
    assert parsed.where("id = 1 AND x IS NULL").count() == 0
    assert parsed.where("id = 1").count() == good.count(",") + 1
    assert [reason for reason, _ in bad(parsed)] == [f"column x: '{cell}' is not a {kind}" for cell in wrong]


def test_what_casts_should_mean_what_it_says(spark: SparkSession, tmp_path: Path) -> None:
    text = "b,d,t,x,n\nyes,2024-2-9,2024-02-29 10:00:00+02:00,-inf,007\nF,2024-02-09,2024-02-29,1e-3,-0\n"
    columns = {"b": "boolean", "d": "date", "t": "timestamp", "x": "double", "n": "bigint"}
    found = read(spark, tmp_path, text, columns=columns).selectExpr("b", "string(d)", "string(t)", "x", "n").collect()
    assert found == [
        (True, "2024-02-09", "2024-02-29 08:00:00", float("-inf"), 7),
        (False, "2024-02-09", "2024-02-29 00:00:00", 0.001, 0),
    ]


@pytest.mark.parametrize("wide", ["x" * 1_000_000, "x\n" * 500_000, '""' * 500_000])
def test_a_field_of_a_million_characters_should_be_read(spark: SparkSession, tmp_path: Path, wide: str) -> None:
    ((_, word),) = rows(read(spark, tmp_path, f'id,word\n1,"{wide}"\n', **WORDS, many_lines="\n" in wide))
    assert word == wide.replace('""', '"')


def test_a_thousand_columns_should_be_read_and_checked(spark: SparkSession, tmp_path: Path) -> None:
    names = [f"c{i}" for i in range(1000)]
    text = "\n".join([",".join(names), ",".join(["1.5"] * 1000), ",".join(["2"] * 999 + ["two"])])
    parsed = read(spark, tmp_path, text, columns=dict.fromkeys(names, "double"))
    assert parsed.selectExpr("c0 + c999", raw.REASON).collect() == [
        (3.0, None),
        (None, "column c999: 'two' is not a double"),
    ]


def test_more_columns_than_spark_takes_should_be_told(spark: SparkSession, tmp_path: Path) -> None:
    text = ",".join(["id", "word", *(f"c{i}" for i in range(21_000))])
    with pytest.raises((PySparkException, Py4JJavaError)) as error:
        read(spark, tmp_path, f"{text}\n", **WORDS)
    assert "has more columns than can be read (20,480)" in raw.problem_of(error.value)


HEADER = [
    "Sepal Length (cm)",
    "a.b",
    "x-y",
    "it's",
    'say ""hi""',
    "`back`",
    "größe",
    "日本",
    "select",
    " Padded ",
    "e\u0301t\u00e9",
]


def test_any_header_should_be_found_by_its_text_or_its_plain_form(spark: SparkSession, tmp_path: Path) -> None:
    text = ",".join(f'"{name}"' for name in HEADER) + "\n" + ",".join(map(str, range(len(HEADER)))) + "\n"
    names = {"said": 'say "hi"', "tick": "`back`", "size": "GRÖSSE", "japan": "日本", "ete": "\u00e9te\u0301"}
    plain = ["sepal_length_cm", "a_b", "x_y", "it_s", "select", "padded"]
    columns = dict.fromkeys([*names, *plain], "bigint")
    ((*found,),) = rows(read(spark, tmp_path, text, columns=columns, names=names))
    assert dict(zip(columns, found, strict=True)) == {
        "said": 4, "tick": 5, "size": 6, "japan": 7, "ete": 10,
        "sepal_length_cm": 0, "a_b": 1, "x_y": 2, "it_s": 3, "select": 8, "padded": 9,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("header", "told"),
    [
        ("id,other", "has no column word, which datasets/points/dataset.toml declares; its header has: 'id', 'other'"),
        ("id;word", "has no column id, word, which datasets/points/dataset.toml declares; its header has: 'id;word'"),
        ("1,a", "has no column id, word, which"),
        ("id,word,word", r"column word could be any of 2 columns of the header ('word', 'word')"),
        ("id,Word,WORD", r"column word could be any of 2 columns of the header ('Word', 'WORD')"),
    ],
)
def test_a_header_that_lacks_a_column_or_has_it_twice_should_be_told(
    spark: SparkSession, tmp_path: Path, header: str, told: str
) -> None:
    with pytest.raises(JobError) as error:
        read(spark, tmp_path, f"{header}\n1,a\n", **WORDS)
    assert told in str(error.value)


def test_two_columns_should_not_be_the_same_one(spark: SparkSession, tmp_path: Path) -> None:
    with pytest.raises(JobError, match=r"columns id and word of datasets/points/dataset.toml are the same column"):
        read(spark, tmp_path, "id,x\n1,a\n", **WORDS, names={"word": "ID"})


@pytest.mark.parametrize("header", ["word,id", "id", "id,word,x", "1,a"])
def test_a_file_whose_header_is_not_that_of_the_others_should_be_told(
    spark: SparkSession, tmp_path: Path, header: str
) -> None:
    files = {"a.csv": b"id,word\n" + b"1,a\n" * 9, "b.csv": f"{header}\n1,a\n".encode()}
    parsed = read(spark, tmp_path, files, **WORDS)
    with pytest.raises(Py4JJavaError) as error:
        parsed.collect()
    told = raw.problem_of(error.value)
    assert told.endswith(
        "/b.csv has another header than the table's other files: give it theirs, in their order, or take it away."
    )


def test_several_files_should_be_one_table(spark: SparkSession, tmp_path: Path) -> None:
    (tmp_path / "year=2013").mkdir()
    files = {"a.csv": b"id,a.b,word\n1,,x\n", "year=2013/b.csv": b"ID,A.B,Word\n2,,y\n", "empty.csv": b""}
    assert sorted(rows(read(spark, tmp_path, files, **WORDS))) == [(1, "x"), (2, "y")]


def test_several_files_with_a_repeated_name_should_be_refused(spark: SparkSession, tmp_path: Path) -> None:
    files = {"a.csv": b"id,x,word,X\n1,,a,\n", "b.csv": b"id,x,word,X\n2,,b,\n"}
    with pytest.raises(JobError, match="has several files and the header 'x', 'X' more than once"):
        read(spark, tmp_path, files, **WORDS)


@pytest.mark.parametrize("text", ["id,word\n", "id,word", "id,word\r\n\r\n"])
def test_a_header_and_nothing_else_should_be_no_rows(spark: SparkSession, tmp_path: Path, text: str) -> None:
    assert read(spark, tmp_path, text, **WORDS).count() == 0


@pytest.mark.parametrize("text", ["", "\n\n  \n"])
def test_a_file_with_nothing_in_it_should_be_told(spark: SparkSession, tmp_path: Path, text: str) -> None:
    with pytest.raises(JobError, match="is empty: upload its files"):
        read(spark, tmp_path, text, **WORDS)


def test_another_error_should_not_be_taken_for_a_wrong_file(spark: SparkSession) -> None:
    with pytest.raises(PySparkException) as error:
        spark.sql("SELECT nothing")
    assert raw.problem_of(error.value) == ""


def nasty(cells: random.Random, delimiter: str, quote: str, escape: str) -> str:
    """A cell as somebody may have written it."""
    word = "".join(
        cells.choices(["a", "ß", "1.5", " ", "\t", delimiter, quote, "\\", "\n", "#", "é"], k=cells.randint(0, 6))
    )
    if cells.random() < 0.6 and delimiter != "\t":
        pair = f"{escape}{quote}"
        word = word.replace("\\", "\\\\") if escape == "\\" else word
        return f"{cells.choice(['', ' '])}{quote}{word.replace(quote, pair)}{quote}{cells.choice(['', ' '])}"
    bare = word.replace(delimiter, "").replace("\n", "").lstrip()
    return bare if not bare.startswith(quote) else f"x{bare}"


@pytest.mark.parametrize(
    ("delimiter", "quote", "escape"), [(",", '"', '"'), (";", "'", "'"), ("|", '"', "\\")], ids=str
)
def test_records_should_be_those_of_sparks_parser(
    spark: SparkSession, tmp_path: Path, delimiter: str, quote: str, escape: str
) -> None:
    cells = random.Random(7)  # noqa: S311  # test data
    made = [[nasty(cells, delimiter, quote, escape) for _ in range(3)] for _ in range(400)]
    text = delimiter.join(["id", "a", "b", "c"]) + "\n"
    text += "".join(f"{i}{delimiter}{delimiter.join(row)}\n" for i, row in enumerate(made))
    columns = {"id": "bigint", "a": "string", "b": "string", "c": "string"}
    dialect = {"delimiter": delimiter, "quote": quote, "escape": escape if escape != quote else ""}
    parsed = read(spark, tmp_path, text, columns=columns, nulls=["NULL"], many_lines=True, **dialect)
    own = [record.cells for record in records.records(io.StringIO(text), delimiter, quote, escape)]
    assert [list(row) for row in rows(parsed)] == [[int(row[0]), *row[1:]] for row in own[1:]]


ABOVE = 'Our "big\nreport\n\n'


@pytest.mark.parametrize(
    "files",
    [
        {"a.csv": (ABOVE + "id,word\n1,a\n2,b\n").encode()},
        {"a.csv": (ABOVE + 'id,word\n1,a\n2,"b\nc"\n').encode()},
        {"a.csv": (ABOVE + "id,word\n1,a\n2,b\n").replace("\n", "\r\n").encode()},
        {"a.csv": (ABOVE + "id,word\n1,a\n2,b\n").replace("\n", "\r").encode()},
        {"a.csv": (ABOVE + "id,word\n1,a\n2,b").encode()},
        {"a.csv.gz": gzip.compress((ABOVE + "id,word\n1,a\n2,b\n").encode())},
        {
            "a.csv": (ABOVE + "id,word\n1,a\n").encode(),
            "b.csv": ("\ufeff1\n2\n3\n" + 'ID,"word"\n2,b\n').replace("ID", "id").encode(),
        },
    ],
    ids=["lines", "many lines", "windows", "old Mac", "no last line end", "gzip", "several files"],
)
def test_lines_above_the_header_should_be_no_part_of_the_table(
    spark: SparkSession, tmp_path: Path, files: dict[str, bytes]
) -> None:
    settings = {**WORDS, "skip": 3}
    several = read(spark, tmp_path, files, **settings)
    expected = [(1, "a"), (2, "b\nc" if b'"b\nc"' in files.get("a.csv", b"") else "b")]
    assert sorted(rows(several)) == expected
    declared = TypeAdapter(Table).validate_python(settings)
    table = CatalogTable("db", "points", tmp_path.as_uri(), "csv")
    try:
        by_line = lines.open_lines(spark, table, declared, "dataset.toml")
        assert (by_line.counts("").rows, sorted(by_line.alone.collect())) == (2, expected)
    except lines.NotLinesError:
        assert len(files) > 1 or "a.csv.gz" in files or b"\r" in files["a.csv"] or b'"b\nc' in files["a.csv"]


def test_a_line_that_stands_above_the_header_and_below_it_should_be_a_row_below(
    spark: SparkSession, tmp_path: Path
) -> None:
    (tmp_path / "a.csv").write_text("7,x\nid,word\n1,a\n7,x\n", encoding="utf-8")
    declared = TypeAdapter(Table).validate_python({**WORDS, "skip": 1})
    table = CatalogTable("db", "points", tmp_path.as_uri(), "csv")
    with pytest.raises(lines.NotLinesError):
        lines.open_lines(spark, table, declared, "dataset.toml").counts("")
    assert rows(raw.read_records(spark, table, declared, "dataset.toml").parsed) == [(1, "a"), (7, "x")]


def test_bad_rows_below_lines_above_should_be_set_aside_as_they_stand(spark: SparkSession, tmp_path: Path) -> None:
    parsed = read(spark, tmp_path, 'title\nid,word\n1,"a\nb"\n2,b,"c"\nx,d\n', **WORDS, skip=1)
    assert bad(parsed) == [
        ("the line has not the 2 fields of the header", '2,b,"c"'),
        ("column id: 'x' is not a bigint", "x,d"),
    ]


@pytest.mark.parametrize("encoding", ["utf-8", "latin-1", "windows-1252"])
@pytest.mark.parametrize(
    ("files", "skip", "line"),
    [
        ({"a.csv": "id,word\n1,\u00fc\n\ufeff2,b\n"}, 0, "2,b"),
        ({"a.csv": "id,word\n1,\u00fc\n\ufeffid,word\n2,b\n", "b.csv": "id,word\n3,c\n"}, 0, "id,word"),
        ({"a.csv": "title\n\ufeffid,word\n1,a\n"}, 1, "id,word"),
        ({"a.csv": "title\n\nid,word\n1,a\n\ufefftitle\n\nid,word\n2,b\n"}, 2, "title"),
    ],
    ids=["a row", "a header", "above", "with lines above"],
)
def test_a_byte_order_mark_within_a_file_should_be_told_and_never_be_part_of_a_cell(
    spark: SparkSession, tmp_path: Path, files: dict[str, str], skip: int, line: str, encoding: str
) -> None:
    mark = "\ufeff".encode().decode({"windows-1252": "cp1252"}.get(encoding, encoding))
    for name, text in files.items():
        (tmp_path / name).write_bytes(text.replace("\ufeff", mark).encode(encoding.replace("windows-", "cp")))
    declared = TypeAdapter(Table).validate_python({**WORDS, "skip": skip, "encoding": encoding})
    table = CatalogTable("db", "points", tmp_path.as_uri(), "csv")
    said = rf"a line of file:\S+/a\.csv begins with a byte order mark \('{line}'\)"
    with pytest.raises(JobError, match=said):
        raw.read_records(spark, table, declared, "dataset.toml")
    with pytest.raises((JobError, lines.NotLinesError), match=rf"{said}|points") as raised:
        lines.open_lines(spark, table, declared, "dataset.toml").counts("")
    assert raised.type is JobError or skip or len(files) > 1


def test_a_header_among_the_rows_should_be_set_aside_and_told(spark: SparkSession, tmp_path: Path) -> None:
    columns = {"columns": {"id": "string", "word": "string"}, "names": {"word": "Das Wort"}}
    text = "Id,more,Das Wort\na,1,b\nID,more, das Wort\nc,2,Das Wort\n"
    ((why, record),) = bad(read(spark, tmp_path, text, **columns))
    assert (why, record.replace(" ", "")) == (records.REPEATED, "ID,more,dasWort")
    text = "Id,more,Das Wort\na,1,b\nId,more,Das Wort\nc,2,Das Wort\n"
    assert bad(read(spark, tmp_path, text, **columns)) == [(records.REPEATED, "Id,more,Das Wort")]
    declared = TypeAdapter(Table).validate_python(columns)
    table = CatalogTable("db", "points", tmp_path.as_uri(), "csv")
    with pytest.raises(lines.NotLinesError):
        lines.open_lines(spark, table, declared, "dataset.toml").counts("")
    assert raw.read_records(spark, table, declared, "dataset.toml").counted.bad == 1


@pytest.mark.parametrize("skip", [0, 1])
def test_a_byte_order_mark_of_another_encoding_should_be_no_part_of_the_header(
    spark: SparkSession, tmp_path: Path, skip: int
) -> None:
    text = b"\xef\xbb\xbf" + b"title\n" * skip + b"id,word\n1,\xfc\n"
    assert rows(read(spark, tmp_path, text, **WORDS, skip=skip, encoding="latin-1")) == [(1, "\u00fc")]
    with (tmp_path / "file.csv").open("rb") as file:
        own = records.records(records.opened(file, "latin-1", zipped=False), ",", '"', '"', skip)
        assert [record.cells for record in own] == [["id", "word"], ["1", "\u00fc"]]


def test_only_a_table_without_files_should_be_told_to_have_none() -> None:
    table = CatalogTable("db", "points", "s3://raw/points", "csv")
    with pytest.raises(JobError, match="has no files: upload them"), raw.files_of(table):
        raise AnalysisException("[PATH_NOT_FOUND] Path does not exist: s3://raw/points.")
    with pytest.raises(AnalysisException, match="not the owner"), raw.files_of(table):
        raise AnalysisException("[SOME_OTHER] not the owner")


def test_a_footer_that_s3_did_not_give_should_not_be_called_broken() -> None:
    """Spark's words for both begin alike; what is behind them tells which it was."""
    broken = "[CANNOT_READ_FILE_FOOTER] Could not read footer for file: s3://raw/a.parquet. Caused by: {}"
    assert "upload it again" in raw.problem_of(Exception(broken.format("s3://raw/a.parquet is not a Parquet file.")))
    assert raw.problem_of(Exception(broken.format("AmazonS3Exception: Access Denied (Status Code: 403)"))) == ""


def test_other_headers_below_the_lines_above_should_be_refused(spark: SparkSession, tmp_path: Path) -> None:
    files = {"a.csv.gz": gzip.compress(b"t\nid,word\n1,a\n"), "b.csv": b"t\nword,id\nb,2\n"}
    with pytest.raises(
        JobError, match=r"behind the first 1 lines \(skip\) its files have different headers: 'id', 'wo"
    ):
        read(spark, tmp_path, files, **WORDS, skip=1)


@pytest.mark.parametrize("text", ["id,word\n1,“a” 10€\n", 'id,word\n1,"“a”\n10€"\n'])
def test_windows_1252_should_be_read_as_declared(spark: SparkSession, tmp_path: Path, text: str) -> None:
    word = text.partition("1,")[2].strip().strip('"')
    assert rows(read(spark, tmp_path, text.encode("cp1252"), **WORDS, encoding="windows-1252")) == [(1, word)]


@pytest.mark.parametrize(
    ("content", "encoding", "told"),
    [
        ("id,word\n1,ä\n".encode("utf-16"), "utf-8", r"file\.csv is UTF-16: convert it, such as by `iconv -f UTF-16"),
        ("id,word\n1,a\n".encode("utf-16-le"), "latin-1", r"file\.csv is UTF-16: convert it"),
        (
            b"PAR1\x15\x04\0\xff\n",
            "utf-8",
            r'file\.csv is a Parquet file: say format = "parquet" in \[tables\.points\]',
        ),
        (b"id,word\n1,\x81\n", "windows-1252", r'is not Windows-1252; convert it.*or say encoding = "latin-1" in'),
        (b"id,word\n1,a\0b\n", "utf-8", "holds zero bytes, so it is no text"),
    ],
)
def test_what_is_no_text_in_the_declared_encoding_should_be_named(
    spark: SparkSession, tmp_path: Path, content: bytes, encoding: str, told: str
) -> None:
    with pytest.raises(JobError, match=told):
        read(spark, tmp_path, content, **WORDS, encoding=encoding)
    declared = TypeAdapter(Table).validate_python({**WORDS, "encoding": encoding})
    with pytest.raises((JobError, lines.NotLinesError)):
        lines.open_lines(
            spark, CatalogTable("db", "points", tmp_path.as_uri(), "csv"), declared, "dataset.toml"
        ).counts("")


def test_a_file_name_that_spark_takes_for_a_pattern_should_be_told(spark: SparkSession, tmp_path: Path) -> None:
    with pytest.raises(JobError, match=r"sales \[new\]\.csv has a name with one of .* give the file another name"):
        read(spark, tmp_path, {"sales [new].csv": b'id,word\n1,"a\nb"\n'}, **WORDS)


@pytest.mark.parametrize("name", ["sales 2024, 100%.csv", "sales.csv.bz2"])
def test_a_file_of_any_name_and_packing_should_be_looked_at_for_quotes(
    spark: SparkSession, tmp_path: Path, name: str
) -> None:
    text = 'id,word\n1,"a\nb"\n2,c\n'
    packed = bz2.compress(text.encode()) if name.endswith(".bz2") else text.encode()
    assert rows(read(spark, tmp_path, {name: packed}, **WORDS)) == [(1, "a\nb"), (2, "c")]
