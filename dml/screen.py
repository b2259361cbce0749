"""The closing screen of a run: rows, how good the model is beside the base rate, predictions, what next."""

import tempfile
from pathlib import Path
from typing import Any

import duckdb
from rich.console import Console
from rich.table import Table
from rich.text import Text

from dml.platform import Platform
from dml.run import Result

_FIGURES = (
    ("AUC", "auc"),
    ("PR-AUC", "pr_auc"),
    ("log loss", "log_loss"),
    ("Brier", "brier"),
    ("accuracy", "accuracy"),
)


def show(console: Console, platform: Platform, result: Result, *, report: Path, local: bool) -> None:
    """Print it all to `console` (stdout: this is the data that the command is for)."""
    console.print()
    if result.prepared:
        console.print(_rows(result.prepared))
    if result.metrics:
        console.print(_quality(result.metrics))
        console.print(_importances(result.metrics))
    if result.predicted:
        console.print(_predictions(platform, result.predicted["location"]))
        positive = result.predicted["predicted_positive"]
        console.print(f"{result.predicted['rows']:,} rows scored, {positive:,} predicted positive", style="dim")
    if result.gate and not result.published and "train" in result.run.stages:
        console.print(f"Not published: {'; '.join(result.gate['reasons'])}", style="yellow")
    console.print()
    console.print(f"Run      {result.run.run_id}", soft_wrap=True)
    console.print(f"Model    {result.uris['model']}", soft_wrap=True)
    console.print(f"Report   {report}", soft_wrap=True)
    console.print()
    console.print("Next")
    flag = " --local" if local else ""
    dataset = result.dataset
    for command, why in (
        (f"dml report {dataset}{flag}", "the tree and its curves as one HTML page"),
        (f"dml predict {dataset}{flag}", "score the features table again with the current model"),
        (f"dml status{flag}", "what stands, what ran, which model is current"),
    ):
        console.print(f"  [bold]{command:<34}[/bold] [dim]{why}[/dim]", highlight=False)


def _rows(prepared: dict[str, Any]) -> Text:
    left_out = ", ".join(f"{rows:,} left out: {reason}" for reason, rows in prepared["left_out"].items())
    counts = f"{prepared['rows_in']:,} in, {prepared['rows_out']:,} out, {prepared['quarantined']:,} quarantined"
    return Text.assemble(("Rows     ", "bold"), counts + (f" ({left_out})" if left_out else ""))


def _quality(metrics: dict[str, Any]) -> Table:
    """Each figure beside the same figure of always guessing the base rate."""
    table = Table(box=None, pad_edge=False, title_justify="left", padding=(0, 2, 0, 0))
    table.add_column("Model", style="bold")
    for title, _ in _FIGURES:
        table.add_column(title, justify="right")
    table.add_column("rows", justify="right")
    rows = [("held-out rows", metrics["test"]), ("  always the base rate", metrics["baseline"])]
    later = metrics.get("out_of_time")
    if later:
        rows += [(f"out of time: {later['tested_on']}", later), ("  always the base rate", later["baseline"])]
    for name, figures in rows:
        count = figures.get("rows")
        shown = [f"{figures[key]:.3f}" for _, key in _FIGURES]
        table.add_row(name, *shown, f"{count:,}" if count else "", style="dim" if name.startswith(" ") else "")
    return table


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
    for column in columns:
        table.add_column(column, justify="left" if isinstance(values[0][columns.index(column)], str) else "right")
    for row in values:
        table.add_row(*(f"{value:.3f}" if isinstance(value, float) else str(value) for value in row))
    return table
