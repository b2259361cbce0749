"""The closing screen of a run: rows, how good the model is beside the base rate, predictions, what next."""

import tempfile
from pathlib import Path
from typing import Any

import duckdb
from rich.console import Console, Group
from rich.table import Table
from rich.text import Text

from dml.platform import Platform
from dml.run import FIGURES, GUESS, Result, task_of


def show(console: Console, platform: Platform, result: Result, *, report: Path, local: bool) -> None:
    """Print it all to `console` (stdout: this is the data that the command is for)."""
    console.print()
    if result.prepared:
        console.print(_rows(result.prepared))
    if result.metrics:
        console.print()
        console.print(_quality(result.metrics))
        console.print()
        console.print(_importances(result.metrics))
    if result.predicted:
        console.print()
        console.print(_predictions(platform, result.predicted["location"]))
        console.print(f"{result.predicted['rows']:,} rows scored{_called(result.predicted['predicted'])}", style="dim")
    if result.gate and not result.published and "train" in result.run.stages:
        console.print(f"Not published: {'; '.join(result.gate['reasons'])}", style="yellow")
    console.print()
    console.print(f"Run      {result.run.run_id}", soft_wrap=True)
    console.print(f"Model    {result.uris['model']}", soft_wrap=True)
    here = Path.cwd()
    console.print(f"Report   {report.relative_to(here) if report.is_relative_to(here) else report}", soft_wrap=True)
    console.print()
    console.print("Next")
    flag = " --local" if local else ""
    dataset = result.dataset
    commands = {
        f"dml report {dataset}{flag}": "the model as one HTML page",
        f"dml predict {dataset}{flag}": "score a table with the current model",
        f"dml status{flag}": "what stands and what ran",
    }
    widest = max(map(len, commands))
    for command, why in commands.items():
        console.print(f"  [bold]{command:<{widest}}[/bold]  [dim]{why}[/dim]", highlight=False)


def _rows(prepared: dict[str, Any]) -> Text:
    counts = f"{prepared['rows_in']:,} in, {prepared['rows_out']:,} out, {prepared['quarantined']:,} quarantined"
    left_out = "".join(f"\n         {rows:,} left out: {why}" for why, rows in prepared["left_out"].items())
    return Text.assemble(("Rows     ", "bold"), counts, (left_out, "dim"))


def _called(predicted: dict[str, int]) -> str:
    """How many rows were called what; a regression calls nothing."""
    if predicted.keys() <= {"0", "1"}:
        return f", {predicted.get('1', 0):,} predicted positive" if predicted else ""
    return ": " + ", ".join(f"{rows:,} {name}" for name, rows in sorted(predicted.items(), key=lambda one: -one[1]))


def _quality(metrics: dict[str, Any]) -> Group:
    """Each figure beside the same figure of guessing without a model, and of the current model if there is one."""
    task = task_of(metrics)
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column("Model", style="bold", no_wrap=True)
    for title, _ in FIGURES[task]:
        table.add_column(title, justify="right")
    table.add_column("rows", justify="right")

    def row(name: str, figures: dict[str, Any], rows: str = "", style: str | None = "dim") -> None:
        table.add_row(name, *(f"{figures[key]:.3f}" for _, key in FIGURES[task]), rows, style=style)

    row("held-out rows", metrics["test"], f"{metrics['test']['rows']:,}", None)
    row(f"  {GUESS[task]}", metrics["baseline"])
    if before := metrics.get("current"):
        row("  current model", before)
    told = []
    if interval := metrics.get("interval"):
        title = next(title for title, key in FIGURES[task] if key == interval["metric"])
        told.append(f"{title} on other such rows: {interval['low']:.3f} to {interval['high']:.3f} (95 %).")
    if later := metrics.get("out_of_time"):
        row("out of time", later, f"{later['rows']:,}", None)
        row(f"  {GUESS[task]}", later["baseline"])
        told.append(f"Out of time: trained on {later['trained_on']}, tested on {later['tested_on']}.")
    return Group(table, *(Text(one, style="dim") for one in told))


def _importances(metrics: dict[str, Any]) -> Text:
    top = [f"{entry['feature']} {entry['importance']:.0%}" for entry in metrics["importances"][:5]]
    return Text.assemble(("Looks at ", "bold"), ", ".join(top))


def _predictions(platform: Platform, location: str, rows: int = 5) -> Table:
    """The first rows of the predictions, as they lie in S3 (Parquet)."""
    bucket, _, prefix = location.removeprefix("s3://").partition("/")
    listed = platform.s3.list_objects_v2(Bucket=bucket, Prefix=prefix.rstrip("/") + "/").get("Contents", [])
    first = next(entry["Key"] for entry in listed if entry["Key"].endswith(".parquet"))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "part.parquet")
        platform.s3.download_file(bucket, first, str(path))
        found = duckdb.execute(
            "SELECT COLUMNS(lambda c: c NOT IN ('model_run', 'probabilities')) FROM read_parquet(?) LIMIT ?",
            [str(path), rows],
        )
        columns = [column[0] for column in found.description or []]
        values = found.fetchall()
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
    for column, value in zip(columns, values[0], strict=True):
        table.add_column(column, justify="right" if isinstance(value, int | float) else "left")
    for row in values:
        table.add_row(*(f"{value:.3f}" if isinstance(value, float) else str(value) for value in row))
    return table
