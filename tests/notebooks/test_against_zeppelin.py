"""How what a real Zeppelin says of a note is held against what the stand-in says (`make test-zeppelin`)."""

from tests.notebooks.against_zeppelin import Said, compared, difference, varying

NOTE = {"paragraphs": [{"text": "%md\nText.", "title": ""}, {"text": "%spark.sql\nSELECT 1", "title": "Runs"}]}
TEXT = Said.of("FINISHED", [("HTML", "<p>Text.</p>\n")])


def table(*rows: str) -> Said:
    return Said.of("FINISHED", [("TABLE", "\n".join(rows))])


def sentences(server: Said, *passes: Said) -> list[tuple[str, bool]]:
    return list(compared("/penguins/1", NOTE, [TEXT, server], [[TEXT, one] for one in passes]))


def test_the_same_words_should_be_no_difference_whatever_lines_end_them() -> None:
    same = Said.of("FINISHED", [("TABLE", "run\tcount\na\t1\n\n"), ("TEXT", "\n")])
    assert sentences(same, *[table("run\tcount", "a\t1")] * 3) == []


def test_a_difference_should_be_told_with_note_paragraph_and_both_outputs() -> None:
    ((told, is_fault),) = sentences(table("n", "2"), *[table("n", "1")] * 3)
    assert is_fault
    assert told.startswith("DIFFERS: /penguins/1, paragraph 2 (Runs)")
    assert "-1" in told
    assert "+2" in told


def test_another_status_or_kind_of_output_should_be_a_difference() -> None:
    text = Said.of("FINISHED", [("TEXT", "n\n1")])
    failed = Said.of("ERROR", [("TEXT", "no such table")])
    for server in (text, failed, Said.of("READY", [])):
        assert [is_fault for _, is_fault in sentences(server, *[table("n", "1")] * 3)] == [True]


def test_what_varies_should_be_named_and_nothing_else_be_overlooked_for_it() -> None:
    first, second = table("run\tcount", "at 10:01\t1", "b\t2"), table("run\tcount", "at 10:02\t1", "b\t2")
    assert varying(first, second) == {3}
    ((told, is_fault),) = sentences(table("run\tcount", "at 10:03\t1", "b\t2"), first, first, second)
    assert (told, is_fault) == ("varies: /penguins/1, paragraph 2 (Runs): 1 line not compared", False)
    assert difference(table("run\tcount", "at 10:03\t1", "b\t3"), second, {3})
    assert difference(table("run\tcount", "at 10:03\t1"), second, {3}), "a row that is missing"


def test_other_lines_each_time_should_leave_the_kinds_to_compare() -> None:
    short, long = table("n", "1"), table("n", "1", "2")
    assert varying(short, long) is None
    ((told, is_fault),) = sentences(table("n"), short, short, long)
    assert ("only kinds of output are compared" in told, is_fault) == (True, False)
    assert difference(TEXT, long, None)


def test_what_the_first_pass_alone_has_said_should_not_count() -> None:
    """It may be the one that saves the table that all later ones list."""
    before, after = table("name", "features"), table("name", "features", "saved")
    assert sentences(after, before, after, after) == []


def test_a_cell_that_fails_on_both_should_be_a_fault() -> None:
    failed = Said.of("ERROR", [("TEXT", "Traceback\nNameError: x")])
    ((told, is_fault),) = sentences(failed, failed, failed, failed)
    assert is_fault
    assert told == "FAILS: /penguins/1, paragraph 2 (Runs), in the stand-in as well: NameError: x"


def test_what_a_traceback_has_of_zeppelin_itself_should_be_no_difference() -> None:
    own = '  File "/x/tmp/python123/zeppelin_python.py", line 167, in <module>\n    exec(code, _zcUserQueryNameSpace)\n'
    ours = 'Traceback (most recent call last):\n{}  File "<stdin>", line 1, in <module>\nZeroDivisionError: x'
    server, stand_in = (Said.of("ERROR", [("TEXT", ours.format(frame))]) for frame in (own, ""))
    assert difference(server, stand_in, set()) == []
