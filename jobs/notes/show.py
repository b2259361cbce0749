"""Outputs of a note: by Zeppelin's display heads, or in Jupyter by what IPython displays.

Zeppelin knows a head at the start of a line only, and what is printed after a table would join it without another head
(ParagraphTextParser and InterpreterOutput of 0.11.1).
"""

import html as escaping
import math
import re
from typing import Any, Dict, List, Mapping, Optional, Sequence, Tuple

from pyspark.sql import SparkSession

ROWS = 1000  # of a frame that Jupyter shows; Zeppelin's own limit (zeppelin.spark.maxResult)
FORM = re.compile(r"\$?\$\{(?:(?:checkbox|password):)?(\w+)(?:\([^)]*\))?(?:=([^},]*))?(?:,[^}]*)?\}")
_jupyter: List["Jupyter"] = []  # the one of this process, if it is a Jupyter's


def table(header: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    """A table, of which Zeppelin can draw a chart as well. Numbers are told to four digits."""
    cells = [[_cell(value) for value in row] for row in rows]
    if _jupyter:
        head = "".join(f"<th>{escaping.escape(name)}</th>" for name in header)
        body = "".join(f"<tr>{''.join(f'<td>{escaping.escape(cell)}</td>' for cell in row)}</tr>" for row in cells)
        plain = "\n".join("\t".join(row) for row in [list(header), *cells])
        _display(f"<table><tr>{head}</tr>{body}</table>", plain)
        return
    print("%table " + "\n".join("\t".join(row) for row in [list(header), *cells]))
    print("%text ", end="")


def picture(svg: str) -> None:
    """A drawing, such as those of jobs/notes/pictures.py."""
    if _jupyter:
        _display(svg, "(a picture, which this kernel cannot show)")
        return
    print(f"%html {svg}")
    print("%text ", end="")


def number(value: Any) -> str:
    """To four digits, whole ones whole, for people to read and Zeppelin to draw: 0.1235, 12.3, 12345."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return str(value)
    if isinstance(value, int) or abs(value) >= 1000 or not math.isfinite(value):
        return str(round(value)) if math.isfinite(value) else ""
    return f"{value:.4g}"


def _cell(value: Any) -> str:
    return re.sub(r"[\t\r\n]+", " ", "" if value is None else number(value))


def _display(rich: str, plain: str) -> None:
    try:
        from IPython import get_ipython  # type: ignore[import-not-found]  # there if it is a Jupyter's kernel
        from IPython.display import HTML, display  # type: ignore[import-not-found]
    except ImportError:  # a kernel elsewhere, such as sparkmagic's: text is what comes back
        print(plain)
        return
    if get_ipython() is None:
        print(plain)
    else:
        display(HTML(rich))


class Jupyter:
    """Zeppelin's `z` for the same cells in Jupyter. `forms`: what is chosen, by their names; others have defaults."""

    def __init__(self, spark: SparkSession, forms: Optional[Mapping[str, str]] = None) -> None:
        self._spark, self.forms = spark, dict(forms or {})
        self._kept: Dict[str, Any] = {}
        _jupyter[:] = [self]

    def textbox(self, name: str, default: str = "") -> str:
        return str(self.forms.get(name, default))

    input = noteTextbox = textbox  # Zeppelin's names

    def select(self, name: str, options: Sequence[Tuple[str, str]], default: str = "") -> str:
        chosen = self.textbox(name, default)
        if chosen and chosen not in [value for value, _ in options]:
            raise ValueError(f"{name}: {chosen!r} is none of {', '.join(str(value) for value, _ in options)}")
        return chosen

    noteSelect = select

    def put(self, name: str, value: Any) -> None:
        self._kept[name] = value

    def get(self, name: str) -> Any:
        return self._kept.get(name)

    def show(self, frame: Any) -> None:
        """A frame of Spark's; anything else as text."""
        if not hasattr(frame, "sparkSession"):
            print(frame)
            return
        table(frame.columns, [tuple(row) for row in frame.limit(ROWS).collect()])

    def sql(self, text: str) -> None:
        """A %spark.sql paragraph of one statement, its forms filled."""
        self.show(self._spark.sql(FORM.sub(lambda form: self.textbox(form[1], form[2] or ""), text)))
