"""The stand-in says what a Zeppelin 0.11.1 server, built and run with the same paragraphs, has said."""

from collections.abc import Callable
from typing import Any

import pytest
from pyspark.sql import SparkSession

from tests.notebooks.zeppelin import Output, Result, Runner

Ran = Callable[[str], Result]


@pytest.fixture
def ran(spark: SparkSession) -> Ran:
    runner = Runner(spark)
    return runner.run_paragraph


def python(ran: Ran, body: str) -> list[Output]:
    result = ran(f"%spark.pyspark\n{body}")
    assert result.status == "FINISHED", result
    return result.messages


def sql(ran: Ran, body: str) -> list[Output]:
    result = ran(f"%spark.sql\n{body}")
    assert result.status == "FINISHED", result
    return result.messages


@pytest.mark.parametrize(
    ("body", "text"),
    [
        ("1\n2", "2"),
        ("for i in range(3):\n    i * 2", "0\n2\n4"),
        ("for i in range(3):\n    i\nNone", None),
        ("'a'", "'a'"),
        ("import sys\nprint('out')\nprint('err', file=sys.stderr)", "out\nerr"),
        ("import sys\nhasattr(sys.stdout, 'isatty') or hasattr(sys.stdout, 'encoding')", "False"),
        ("z.put('a', 1)\nz.get('a') + z['a']", "2"),
        ("z.textbox('depth', '4')", "'4'"),
        ("z.select('learner', [('tree', 'Tree'), ('forest', 'Forest')])", "''"),
        ("if True:\n    pass\n", None),
        ("", None),
    ],
)
def test_python_should_print_the_value_of_the_last_statement_and_what_goes_to_either_stream(
    ran: Ran, body: str, text: str | None
) -> None:
    assert python(ran, body) == ([] if text is None else [Output("TEXT", text)])


@pytest.mark.parametrize(
    ("expression", "cell"),
    [
        ("true", "true"),
        ("1e-5D", "1.0E-5"),
        ("array(1, 2)", "WrappedArray(1, 2)"),
        ("named_struct('x', 1)", "[1]"),
        ("map('k', 1)", "Map(k -> 1)"),
        ("timestamp'2013-01-01 10:00:00'", "2013-01-01 10:00:00.0"),
        ("CAST(0.1 AS FLOAT)", "0.1"),
        ("CAST(NULL AS INT)", "null"),
        (r"'a\tb\nc'", "a b c"),
    ],
)
def test_a_cell_should_be_what_java_says_of_its_value(ran: Ran, expression: str, cell: str) -> None:
    assert sql(ran, f"SELECT {expression} AS x") == [Output("TABLE", f"x\n{cell}")]
    (binary,) = sql(ran, "SELECT CAST('a' AS BINARY) AS x")
    assert binary.rows[1][0].startswith("[B@")


def test_sql_should_end_a_statement_at_a_semicolon_that_stands_in_no_text_and_no_comment(ran: Ran) -> None:
    body = "SELECT ';' AS a; -- not; here\nSELECT /* nor; here */ 2 AS b;\n"
    assert sql(ran, body) == [Output("TABLE", "a\n;"), Output("TABLE", "b\n2")]
    assert sql(ran, "CREATE OR REPLACE TEMP VIEW stand_in AS SELECT 1 AS x") == [], "nothing is said of a definition"


def test_more_rows_than_are_shown_should_be_told_after_the_table(ran: Ran) -> None:
    for messages in (
        sql(ran, "SELECT id FROM range(1001)"),
        python(ran, "z.show(spark.range(1001))"),
        python(ran, "import pandas as pd\nz.show(pd.DataFrame({'id': range(1001)}))"),
    ):
        (shown, warning) = messages
        assert (shown.kind, len(shown.rows), warning.kind) == ("TABLE", 1001, "HTML")
        told = "limited by 1000." if "font" in warning.data else "to 1000 rows. Learn more about <strong>zeppelin.spark"
        assert told in warning.data
    (few, _) = ran("%spark.sql(limit=2)\nSELECT id FROM range(5)").messages
    assert few.rows == [["id"], ["0"], ["1"]]
    (text, warning) = python(ran, "print('x' * 200_000)")
    assert (len(text.data), warning.kind) == (200_000, "HTML")


def test_what_is_printed_after_a_table_should_be_a_text_of_its_own(ran: Ran) -> None:
    table, text = python(ran, "z.show(spark.range(1))\nprint('after')")
    assert (table, text) == (Output("TABLE", "id\n0"), Output("TEXT", "after"))
    (joined,) = python(ran, "import pandas as pd\nz.show(pd.DataFrame({'a': [1]}))\nprint('after')")
    assert joined == Output("TABLE", "a\n1\nafter"), "a frame of pandas has no such end"


def test_a_paragraph_that_fails_should_end_the_note_with_its_reason_and_what_it_had_printed(
    spark: SparkSession,
) -> None:
    def note(*texts: str, **config: Any) -> dict[str, Any]:
        return {"paragraphs": [{"text": text, "config": config} for text in texts]}

    runner = Runner(spark)
    first, failed, after = runner.run(note("%spark.pyspark\nx = 1", "%spark.pyspark\nprint(x)\n1 / 0", "%md\nNo."))
    assert [first.status, failed.status, after.status] == ["FINISHED", "ERROR", "READY"]
    printed, told = (message.data for message in failed.messages)
    assert printed == "1"
    where = 'Fail to execute line 3: 1 / 0\nTraceback (most recent call last):\n  File "<stdin>", line 3, in <module>\n'
    assert told == f"{where}ZeroDivisionError: division by zero", "the head's line counts"
    (broken,) = runner.run(note("%spark.pyspark\n1 +"))[0].messages
    assert broken.data.startswith("Traceback (most recent call last):\n")
    assert broken.data.endswith("SyntaxError: invalid syntax")
    (missing,) = runner.run(note("%spark.sql\nSELECT * FROM nowhere.nothing"))
    said = missing.messages[0].data.split("\n")
    assert (missing.status, said[1:3]) == ("ERROR", ["Error happens in sql: ", "SELECT * FROM nowhere.nothing"])
    assert "line 2 pos 14" in missing.messages[0].data, "the head's line counts"
    assert said[-1] == "set zeppelin.spark.sql.stacktrace = true to see full stacktrace"
    assert runner.run(note("%spark.pyspark\n1 / 0", enabled=False)) == [Result("READY")]
    (shared,) = runner.run(note("%spark.pyspark\nx"))
    assert shared.messages == [Output("TEXT", "1")], "all notes have one namespace"


def test_forms_should_be_filled_with_what_was_chosen_or_their_default(spark: SparkSession) -> None:
    runner = Runner(spark, {"carrier": "UA"})
    forms = "'${carrier=AA,AA|UA}' AS a, ${least=20} AS b, '${checkbox:c=x|y,x|y|z}' AS c, $${all=1} AS d"
    body = f"%spark.sql\nSELECT {forms}"
    assert runner.run_paragraph(body).messages == [Output("TABLE", "a\tb\tc\td\nUA\t20\tx,y\t1")]
    assert runner.z.forms == {"carrier": "AA", "least": "20", "c": "x|y", "all": "1"}
    runner.z.put("table", "range(1)")
    assert runner.run_paragraph("%spark.sql(interpolate=true)\nSELECT * FROM {table}").messages[0].rows == [
        ["id"],
        ["0"],
    ]


def test_a_head_should_be_found_with_and_without_its_group_and_an_unknown_one_end_nothing(spark: SparkSession) -> None:
    texts = ["%sql\nSELECT 1 AS x", "%pyspark\n1", "%spark.pysark\n1", "%md\n", "", "%md\nEnd."]
    paragraphs: list[dict[str, Any]] = [{"text": text} for text in texts]
    results = Runner(spark).run({"paragraphs": [*paragraphs, {}]})  # Zeppelin itself adds one without a text
    assert [one.status for one in results] == ["FINISHED", "FINISHED", "ERROR", *["FINISHED"] * 4]
    assert results[2].messages == [Output("TEXT", "Interpreter spark.pysark not found")]
    assert results[3].messages == [Output("HTML", '<div class="markdown-body">\n\n</div>')]
    assert results[4].messages == []
    for ours in ("%spark\nval x = 1", "val x = 1", "%spark.r\n1"):
        with pytest.raises(ValueError, match="cannot run here"):
            Runner(spark).run_paragraph(ours)


@pytest.mark.parametrize(
    ("text", "html"),
    [
        ("# A\n\nOne\ntwo.", "<h1>A</h1>\n<p>One<br />\ntwo.</p>\n"),
        (
            "| a | b |\n|---|--:|\n| `x` | 1 |",
            '<table>\n<thead>\n<tr><th>a</th><th align="right">b</th></tr>\n</thead>\n<tbody>\n'
            '<tr><td><code>x</code></td><td align="right">1</td></tr>\n</tbody>\n</table>\n',
        ),
        (
            "The model's \"best\" -- `it's` ... <b>",
            "<p>The model&rsquo;s &ldquo;best&rdquo; &ndash; <code>it's</code> &hellip; &lt;b&gt;</p>\n",
        ),
        ("~~no~~", "<p><del>no</del></p>\n"),
        ("", ""),
        ("at http://a.example/x.", '<p>at <a href="http://a.example/x">http://a.example/x</a>.</p>\n'),
    ],
)
def test_markdown_should_be_rendered_as_flexmark_does_it(ran: Ran, text: str, html: str) -> None:
    assert ran(f"%md\n{text}").messages == [Output("HTML", f'<div class="markdown-body">\n{html}\n</div>')]
