"""The closing screen of a run: rows, how good the model is beside the base rate, predictions, what next."""

import tempfile
from pathlib import Path
from typing import Any

import duckdb
from rich.console import Console, Group
from rich.table import Table
from rich.text import Text

from dml.platform import Platform
from dml.run import FIGURES, Result


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
        positive = result.predicted["predicted"].get("1", 0)
        console.print(f"{result.predicted['rows']:,} rows scored, {positive:,} predicted positive", style="dim")
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
    for command, why in (
        (f"dml report {dataset}{flag}", "the model as one HTML page"),
        (f"dml predict {dataset}{flag}", "score a table with the current model"),
        (f"dml status{flag}", "what stands and what ran"),
    ):
        console.print(f"  [bold]{command:<33}[/bold] [dim]{why}[/dim]", highlight=False)


def _rows(prepared: dict[str, Any]) -> Text:
    counts = f"{prepared['rows_in']:,} in, {prepared['rows_out']:,} out, {prepared['quarantined']:,} quarantined"
    left_out = "".join(f"\n         {rows:,} left out: {why}" for why, rows in prepared["left_out"].items())
    return Text.assemble(("Rows     ", "bold"), counts, (left_out, "dim"))


def _quality(metrics: dict[str, Any]) -> Group:
    """Each figure beside the same figure of always guessing the base rate."""
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column("Model", style="bold", no_wrap=True)
    for title, _ in FIGURES:
        table.add_column(title, justify="right")
    table.add_column("rows", justify="right")
    later = metrics.get("out_of_time")
    rows = [("held-out rows", metrics["test"], metrics["baseline"])]
    rows += [("out of time", later, later["baseline"])] if later else []
    for name, figures, baseline in rows:
        table.add_row(name, *(f"{figures[key]:.3f}" for _, key in FIGURES), f"{figures['rows']:,}")
        table.add_row("  base rate", *(f"{baseline[key]:.3f}" for _, key in FIGURES), "", style="dim")
    told = f"Out of time: trained on {later['trained_on']}, tested on {later['tested_on']}." if later else ""
    return Group(table, Text(told, style="dim"))


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
        found = duckdb.execute("SELECT * EXCLUDE (model_run) FROM read_parquet(?) LIMIT ?", [str(path), rows])
        columns = [column[0] for column in found.description or []]
        values = found.fetchall()
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
    for column, value in zip(columns, values[0], strict=True):
        table.add_column(column, justify="right" if isinstance(value, int | float) else "left")
    for row in values:
        table.add_row(*(f"{value:.3f}" if isinstance(value, float) else str(value) for value in row))
    return table
