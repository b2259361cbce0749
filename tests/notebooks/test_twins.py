"""Notes as Jupyter notebooks: of the format, the same cells, and saying the same."""

import ast
import contextlib
import io
import re
from typing import Any

import pytest

from datasets import dataset_names, load_dataset
from jobs.notes import show
from notebooks.twins import notebook
from tests.notebooks.shipped import notes_of, twin

# Of the schema nbformat.v4.5: what each kind of cell has, and what an id looks like.
KEYS = {
    "code": {"cell_type", "id", "metadata", "source", "execution_count", "outputs"},
    "markdown": {"cell_type", "id", "metadata", "source"},
    "raw": {"cell_type", "id", "metadata", "source"},
}
ID = re.compile(r"[a-zA-Z0-9-_]{1,64}")


@pytest.mark.parametrize("name", dataset_names())
def test_each_notes_twin_should_be_a_notebook_of_version_4_5_whose_code_is_python(name: str) -> None:
    for note in notes_of(load_dataset(name)):
        made = twin(note)
        assert (made["nbformat"], made["nbformat_minor"], made.keys()) == (
            4,
            5,
            {"nbformat", "nbformat_minor", "metadata", "cells"},
        )
        assert made["cells"][0]["metadata"] == {"tags": ["parameters"]}
        assert len(made["cells"]) == len(note["paragraphs"]) + 2
        ids = [cell["id"] for cell in made["cells"]]
        assert len(set(ids)) == len(ids)
        for cell in made["cells"]:
            assert cell.keys() == KEYS[cell["cell_type"]]
            assert ID.fullmatch(cell["id"])
            assert cell["cell_type"] != "raw", "every paragraph of ours is text, Python or SQL"
            if cell["cell_type"] == "code":
                assert ast.parse("".join(cell["source"])).body
        assert made == twin(note)


def test_what_jupyter_has_no_interpreter_for_should_be_told_and_not_run() -> None:
    cells = [("%sh", "ls", ""), ("%spark.sql(limit=5)", "SELECT 1", ""), ("%spark.sql", 'SELECT "a\\n"', "Said")]
    _, _, shell, limited, query = notebook("n", cells)["cells"]
    assert (shell["cell_type"], "".join(shell["source"])) == ("raw", "%sh\nls")
    assert limited["cell_type"] == "raw"
    (asked,) = ast.parse("".join(query["source"])).body
    assert isinstance(asked, ast.Expr)
    assert isinstance(asked.value, ast.Call)
    assert ast.literal_eval(asked.value.args[0]) == 'SELECT "a\\n"'
    assert "".join(query["source"]).startswith("# Said\n")


def test_a_form_should_have_its_default_or_what_is_chosen(spark: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(show, "_jupyter", [])
    z = show.Jupyter(spark, {"least": "7"})
    assert (z.textbox("least", "1"), z.textbox("most", "9"), z.select("a", [("x", "X")], "x")) == ("7", "9", "x")
    with pytest.raises(ValueError, match="a: 'y' is none of x"):
        show.Jupyter(spark, {"a": "y"}).select("a", [("x", "X")], "x")
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        z.sql("SELECT ${least=1} AS a, '${kind=p,p|q}' AS b, $${most=9} AS c")
    assert printed.getvalue() == "a\tb\tc\n7\tp\t9\n"
