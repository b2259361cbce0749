"""The progress display: one line a stage on stderr, live on a terminal, one printed line a finished stage elsewhere."""

import time
from types import TracebackType

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text

SILENCE = 60.0  # seconds without a line, where there is no terminal
_MARK = {"done": ("✓", "green"), "failed": ("✗", "red"), "skipped": ("-", "dim"), "waiting": ("·", "dim")}


class _Line:
    def __init__(self, name: str) -> None:
        self.name, self.detail, self.state = name, "", "waiting"
        self.doing = ""
        self.began = self.told = 0.0
        self.took: float | None = None

    @property
    def seconds(self) -> float:
        return self.took if self.took is not None else time.monotonic() - self.began


class Board:
    """Lines in the order in which they were named; use as a context manager."""

    def __init__(self, console: Console, names: list[str]) -> None:
        self._console = console
        self._lines = {name: _Line(name) for name in names}
        self._spinner = Spinner("dots", style="cyan")
        self._live = Live(get_renderable=self._render, console=console, refresh_per_second=8, transient=False)

    def __enter__(self) -> "Board":
        if self._console.is_terminal:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is not None:
            for line in self._lines.values():
                if line.state == "running":
                    self.fail(line.name)
        if self._console.is_terminal:
            self._live.stop()

    def start(self, name: str, detail: str = "") -> None:
        """Idempotent: a stage that runs already only gets the new detail."""
        line = self._lines[name]
        if line.state != "running":
            line.state, line.began, line.took = "running", time.monotonic(), None
            line.doing, line.told = "", line.began
        self.note(name, detail)

    def note(self, name: str, detail: str) -> None:
        self._lines[name].detail = detail or self._lines[name].detail

    def doing(self, name: str, what: str) -> None:
        """How far a running stage is: shown in place of its detail until it ends, without a terminal once a minute."""
        line, now = self._lines[name], time.monotonic()
        line.doing = what
        if not self._console.is_terminal and now - line.told >= SILENCE:
            line.told = now
            self._print("…", line, what)

    def done(self, name: str, detail: str = "", seconds: float | None = None) -> None:
        self._end(name, "done", detail, seconds)

    def skip(self, name: str, detail: str = "") -> None:
        self._end(name, "skipped", detail, 0.0)

    def fail(self, name: str, detail: str = "") -> None:
        self._end(name, "failed", detail, None)

    def is_done(self, name: str) -> bool:
        return self._lines[name].state in ("done", "skipped", "failed")

    def seconds(self, name: str) -> float:
        return self._lines[name].seconds

    def _end(self, name: str, state: str, detail: str, seconds: float | None) -> None:
        line = self._lines[name]
        line.took = seconds if seconds is not None else line.seconds
        line.state, line.detail = state, detail or line.detail
        if not self._console.is_terminal:
            mark, _ = _MARK[state]
            self._print(mark, line, line.detail)

    def _print(self, mark: str, line: _Line, detail: str) -> None:
        text = f"{mark} {line.name:<15} {line.seconds:7.1f} s  {detail}"
        self._console.print(text, highlight=False, markup=False, soft_wrap=True)

    def _render(self) -> RenderableType:
        table = Table.grid(padding=(0, 1))
        table.add_column(width=1)
        table.add_column(min_width=15)
        table.add_column(justify="right", min_width=8)
        table.add_column(overflow="fold")
        for line in self._lines.values():
            mark, style = _MARK.get(line.state, ("", ""))
            shown: RenderableType = self._spinner if line.state == "running" else Text(mark, style=style)
            elapsed = "" if line.state in ("waiting", "skipped") else f"{line.seconds:.1f} s"
            name_style = "dim" if line.state == "waiting" else "bold" if line.state == "running" else ""
            detail = line.doing or line.detail if line.state == "running" else line.detail
            table.add_row(shown, Text(line.name, style=name_style), elapsed, Text(detail, style="dim"))
        return Group(table)
