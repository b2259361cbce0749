"""A note as a Jupyter notebook (nbformat 4.5): the same cells, for those who live in JupyterLab or EMR Studio.

Text is a Markdown cell, Python a code cell as it is, SQL a code cell that asks Spark. The notebook begins with a cell
of parameters (tagged so, as papermill looks for) for what is chosen in forms, and one in place of Zeppelin's `z`.
What Jupyter has no interpreter for is a raw cell, and so told rather than run.
"""

import hashlib
import json
from collections.abc import Sequence
from typing import Any

from notebooks.zpln import HEADS

FORMS = """# What is chosen in the forms of Zeppelin, by their names; others have their defaults.
forms = {}"""
SETUP = """# In place of Zeppelin's spark and z: this kernel's session, and forms, tables and pictures for Jupyter.
from jobs.notes import show
from pyspark.sql import SparkSession

spark = SparkSession.builder.enableHiveSupport().getOrCreate()
z = show.Jupyter(spark, forms)"""
QUOTES = '"""'


def notebook(key: str, cells: Sequence[tuple[str, str, str]]) -> dict[str, Any]:
    """The notebook of a note's (head, text, title)s, each head as Zeppelin writes it.

    `key` tells the note; the cells' ids come of it, and so are the same each time.
    """
    made = [
        _cell(key, "forms", "code", FORMS, {"tags": ["parameters"]}),
        _cell(key, "setup", "code", SETUP, {}),
        *(_of_paragraph(key, str(number), *cell) for number, cell in enumerate(cells)),
    ]
    return {
        "nbformat": 4,
        "nbformat_minor": 5,
        "metadata": {
            "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
            "language_info": {"name": "python"},
        },
        "cells": made,
    }


def text_of(made: dict[str, Any]) -> str:
    return json.dumps(made, indent=1, ensure_ascii=False) + "\n"


def _of_paragraph(key: str, number: str, head: str, text: str, title: str) -> dict[str, Any]:
    interpreter, _, properties = head.partition("(")
    titled = f"# {title}\n" if title else ""
    if interpreter == "%md":
        return _cell(key, number, "markdown", text, {})
    if interpreter == HEADS["python"][0] and "form=simple" not in properties:
        return _cell(key, number, "code", titled + text, {})
    if interpreter == HEADS["sql"][0] and not properties:
        plain = QUOTES not in text and "\\" not in text and not text.endswith('"')
        asked = f"{QUOTES}{text}{QUOTES}" if plain else json.dumps(text)
        return _cell(key, number, "code", f"{titled}z.sql({asked})", {})
    return _cell(key, number, "raw", f"{head}\n{text}", {"format": "text/plain"})


def _cell(key: str, number: str, kind: str, text: str, metadata: dict[str, Any]) -> dict[str, Any]:
    cell: dict[str, Any] = {
        "cell_type": kind,
        "id": hashlib.sha256(f"{key}#{number}".encode()).hexdigest()[:12],
        "metadata": metadata,
        "source": text.splitlines(keepends=True),
    }
    return cell | ({"execution_count": None, "outputs": []} if kind == "code" else {})
