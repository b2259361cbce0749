"""The records of a CSV file in plain Python, and quotes in which rows would be lost."""

import csv
import io

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from jobs.tables import records

TEXT = st.text(st.sampled_from("ab1 ,;|'\"\\\n\tß€日"), max_size=8)
DIALECTS = st.sampled_from([(",", '"'), (";", '"'), ("\t", '"'), ("|", "'")])


def read(text: str, delimiter: str = ",", quote: str = '"', escape: str = "") -> list[records.Record]:
    return list(records.records(io.StringIO(text), delimiter, quote, escape or quote))


def told(text: str, *, many_lines: bool = False) -> list[str]:
    return [fault.told for fault in records.faults(read(text), ",", many_lines=many_lines)]


def written(table: list[list[str]], delimiter: str, quote: str) -> str:
    file = io.StringIO()
    csv.writer(file, delimiter=delimiter, quotechar=quote, quoting=csv.QUOTE_ALL, lineterminator="\n").writerows(table)
    return file.getvalue()


@given(st.lists(st.lists(TEXT, min_size=2, max_size=2), min_size=1, max_size=9), DIALECTS)
def test_what_a_writer_has_quoted_should_come_back_as_it_was(table: list[list[str]], dialect: tuple[str, str]) -> None:
    assert [record.cells for record in read(written(table, *dialect), *dialect)] == table


@given(st.integers(2, 40), st.integers(0, 39), st.integers(0, 39))
@example(1000, 201, 701)
def test_rows_should_not_vanish_into_a_cell_whichever_quotes_are_missing(rows: int, first: int, second: int) -> None:
    damaged = {first % rows, second % rows}
    text = "id,name,price\n" + "".join(
        f'{i},"half open,{i}\n' if i in damaged else f'{i},"a, b",{i}\n' for i in range(rows)
    )
    (fault, *_) = records.faults(read(text), ",")
    assert fault.first == min(damaged) + 2


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('a,b\n1,"x\n2,y\n', ["""the quote that line 2 opens ('1,"x') is never closed"""]),
        ('a,b\n1,"x"y\n', ["""line 2 ('1,"x"y'): the quote before 'y' closes a cell and is followed by neither a """]),
        ('a,b\n1,5" pipe\n2,it\'s\n3," x " \n4,""\n', []),
        ('a,b\n1,"an\naddress"\n2,c\n', []),  # one cell of two lines is no reason to stop
        ('a,b\n1,"Hello\nThis, too"\n2,c\n', []),  # This is no number, as the others are
        ('a,b\n1,"open\n2,closed"\n3,c\n', ["a cell of column 2 that begins in line 2 goes on to line 3, over lines"]),
        (
            'a,b\n1,"' + "x\n" * 30 + '"\n2,"y\nz"\n',
            ["a cell of column 2 that begins in line 2 goes on to line 32, longer than any other there (2)"],
        ),
    ],
)
def test_quotes_should_be_told_with_their_lines_only_if_rows_would_be_lost(text: str, said: list[str]) -> None:
    assert [fault[: len(start)] for fault, start in zip(told(text), said, strict=True)] == said


def test_cells_of_many_lines_should_not_be_told_if_they_are_meant_or_many() -> None:
    open_ended = 'a,b\n1,"open\n2,closed"\n'
    assert told(open_ended)
    assert not told(open_ended, many_lines=True)
    assert not told("a,b\n" + "".join(f'{i},"open\n2,closed"\n' for i in range(9)))
