"""The closing screen of a run: rows, how good the model is beside guessing, predictions, what next."""

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import duckdb
from rich.console import Console, Group
from rich.table import Table
from rich.text import Text

from datasets import load_dataset
from dml.estate.platform import Platform
from dml.models.figures import BASELINES, FIGURES, calls, expectation, moved, quantity, task_of, tried
from dml.runs.run import Result
from dml.terminal.console import plain_table
from dml.terminal.words import counted


def show(console: Console, platform: Platform, result: Result, *, report: Path) -> None:
    """Print it all to `console` (stdout: this is the data that the command is for)."""
    settings = load_dataset(result.dataset)
    console.print()
    if result.prepared:
        console.print(_rows(result.prepared))
    if result.metrics:
        console.print()
        console.print(_quality(result.metrics, result.unit))
        if told := result.metrics.get("calls"):
            console.print()
            for line in told:
                console.print(line, highlight=False, markup=False)
        console.print()
        if "train" in result.run.stages and (told := tried(result.metrics)):
            console.print(Text.assemble(("Tried    ", "bold"), told))
        console.print(_importances(result.metrics, settings.called))
        if "train" in result.run.stages and (told := moved(result.drift, settings.called)):
            console.print(Text.assemble(("Moved    ", "bold"), told))
    if result.predicted:
        console.print()
        hidden = settings.keys if settings.carried else ()  # a hash tells nobody which row is meant
        console.print(_predictions(platform, result.predicted["location"], without=hidden))
        console.print(_predicted(result), style="dim", highlight=False)
    if result.gate and not result.published and "train" in result.run.stages:
        console.print("Not published:", style="yellow")
        for reason in result.gate["reasons"]:
            console.print(f"  {reason}", style="yellow", soft_wrap=True, highlight=False, markup=False)
    console.print()
    console.print(f"Run      {result.run.run_id}", soft_wrap=True)
    console.print(f"Model    {result.uris['model']}", soft_wrap=True)
    here = Path.cwd()
    console.print(f"Report   {report.relative_to(here) if report.is_relative_to(here) else report}", soft_wrap=True)
    console.print()
    console.print("Next")
    dataset = result.dataset
    refused = "train" in result.run.stages and not result.published
    # Without a run's name it is the current model that is meant; after a refusal that is another one, or there is none.
    named = f" --run {result.run.run_id}" if refused else ""
    commands = {platform.command(f"report {dataset}{named}"): "the model as one HTML page"}
    if refused and result.gate:
        promote = platform.command(f"models promote {result.run.run_id} --dataset {dataset} --even-if-refused")
        commands[promote] = "make it current all the same"
    if not refused or result.metrics.get("current"):
        commands[platform.command(f"predict {dataset}")] = "score a table with the current model"
    commands[platform.command("status")] = "what stands and what ran"
    widest = max(map(len, commands))
    for command, why in commands.items():
        console.print(f"  [bold]{command:<{widest}}[/bold]  [dim]{why}[/dim]", highlight=False, soft_wrap=True)


def _rows(prepared: dict[str, Any]) -> Text:
    counts = f"{prepared['rows_in']:,} in, {prepared['rows_out']:,} out, {prepared['quarantined']:,} quarantined"
    left_out = "".join(f"\n         {rows:,} left out: {why}" for why, rows in prepared["left_out"].items())
    return Text.assemble(("Rows     ", "bold"), counts, (left_out, "dim"))


def _quality(metrics: dict[str, Any], unit: str) -> Group:
    """Each figure beside the same figure of always guessing, and of the current model on the same rows; of a dataset
    with a time what later rows say first."""
    task = task_of(metrics)
    table = plain_table(header_style="")
    table.add_column("Model", style="bold", no_wrap=True)
    for figure in FIGURES[task]:
        table.add_column(figure.title, justify="right")
    table.add_column("rows", justify="right")
    later, current, interval = (metrics.get(part) for part in ("out_of_time", "current", "interval"))

    def add(name: str, figures: dict[str, Any], rows: str, style: str | None = None) -> None:
        table.add_row(name, *(figure.shown(figures.get(figure.key)) for figure in FIGURES[task]), rows, style=style)

    if later:
        add("out of time", later, f"{later['rows']:,}")
        add(f"  {BASELINES[task]}", later["baseline"], "", "dim")
    add("held-out rows", metrics["test"], f"{metrics['test']['rows']:,}")
    add(f"  {BASELINES[task]}", metrics["baseline"], "", "dim")
    if current:
        add("  current model", current, "", "dim")
    told = []
    if unit:
        told.append(f"{', '.join(figure.title for figure in FIGURES[task] if figure.in_unit)} in {unit}.")
    if interval:
        main = next(figure for figure in FIGURES[task] if figure.key == interval["metric"])
        low, high = main.shown(interval["low"]), main.shown(interval["high"])
        told.append(f"Held-out {main.title} between {low} and {high} ({interval['level']:.0%} interval).")
    if later:
        told.append(f"Out of time: trained on {later['trained_on']}, tested on {later['tested_on']}.")
    expected = expectation(metrics, unit)
    first = [Text(expected[0], style="" if expected[1] else "yellow"), Text()] if expected else []
    return Group(*first, table, *(Text(line, style="dim") for line in told))


def _importances(metrics: dict[str, Any], called: Mapping[str, str]) -> Text:
    names = [
        (called.get(entry["feature"], entry["feature"]), entry["importance"]) for entry in metrics["importances"][:5]
    ]
    top = [f"{name} {importance:.0%}" for name, importance in names]
    return Text.assemble(("Looks at ", "bold"), ", ".join(top))


def _predicted(result: Result) -> str:
    """One line about all predictions: how many rows got which class."""
    rows, counts = result.predicted["rows"], result.predicted.get("predicted", {})
    told = f"{counted(rows, 'row')} scored"
    task = task_of(result.metrics)
    what = calls(task, counts, result.metrics.get("threshold", 0.5), result.unit)
    return f"{told}{': ' if task == 'multiclass' else ', '}{what}" if what else told


def _predictions(platform: Platform, location: str, rows: int = 5, *, without: Sequence[str] = ()) -> Table:
    """The first rows of the predictions, as they lie in S3 (Parquet); arrays, and columns `without`, are left out."""
    bucket, _, prefix = location.removeprefix("s3://").partition("/")
    listed = platform.s3.list_objects_v2(Bucket=bucket, Prefix=prefix.rstrip("/") + "/").get("Contents", [])
    first = next(entry["Key"] for entry in listed if entry["Key"].endswith(".parquet"))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "part.parquet")
        platform.s3.download_file(bucket, first, str(path))
        found = duckdb.execute("SELECT * EXCLUDE (model_run) FROM read_parquet(?) LIMIT ?", [str(path), rows])
        kinds = {column[0]: str(column[1]) for column in found.description or []}
        values = [dict(zip(kinds, row, strict=True)) for row in found.fetchall()]
    plain = [column for column, kind in kinds.items() if not kind.endswith("[]") and kind.lower() != "list"]
    shown = [column for column in plain if column not in without]
    numbers = {column for column in shown if any(isinstance(row[column], int | float) for row in values)}
    table = plain_table(*shown, right=numbers)
    for row in values:
        table.add_row(*(_cell(column, row[column]) for column in shown))
    return table


def _cell(column: str, value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.3f}" if column == "probability" else quantity(value)
    return "" if value is None else str(value)
