"""Estimates, differences and sizings for readers: a terminal, and Markdown for a pull request."""

import json
import re
from collections.abc import Iterator, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from dml.cost.difference import Change, Difference
from dml.cost.estimate import RUN, STANDING, TRANSIENT, WORKBENCH, Estimate, Line
from dml.cost.prices import Prices
from dml.cost.sizing import FEATURES, GLUE_WORKER, LEARNERS, Sizing
from dml.terminal.console import plain_table

NAMES = 3  # as many resources as a line names


def show_estimates(console: Console, estimates: Sequence[Estimate]) -> None:
    """The totals side by side, every line behind them, what was assumed, and what is free or not in the table."""
    prices = estimates[0].prices
    console.print(_source(prices), style="dim", highlight=False)
    console.print()
    environments = [estimate.environment for estimate in estimates]
    totals = plain_table("", *environments, right=environments)
    for name in dict.fromkeys(name for estimate in estimates for name in estimate.totals):
        told = [estimate.totals.get(name) for estimate in estimates]
        totals.add_row(Text(name, "bold"), *("" if value is None else f"{value:,.2f}" for value in told))
    console.print(totals)
    for estimate in estimates:
        console.print()
        console.rule(f"[bold]{estimate.environment}", align="left", style="dim")
        _show(console, estimate)
    console.print()
    console.rule("[bold]all of it", align="left", style="dim")
    assumed = plain_table("Assumed", "", "", "because")
    assumed.columns[1].justify = "right"
    for name, each in prices.assumptions.items():
        assumed.add_row(name, f"{each.value:g}", Text(each.unit, "dim"), Text(each.why, "dim"))
    console.print(assumed)
    console.print()
    notes = ["To assume something else for a call: --assume NAME=VALUE."]
    if any(line.quantity < 0 for estimate in estimates for line in estimate.lines):
        notes.append("What AWS gives is for the whole account: what else is in it has no second share.")
    if any(line.unverified for estimate in estimates for line in estimate.lines):
        notes.append("? is a recalled list price that nobody has looked up.")
    for note in notes:
        console.print(f"[dim]·[/dim] {note}", highlight=False)
    for estimate in estimates:
        show_unknown(console, estimate)


def show_differences(console: Console, differences: Sequence[Difference]) -> None:
    """One environment after the other."""
    console.print(_source(differences[0].after.prices), style="dim", highlight=False)
    for difference in differences:
        console.print()
        console.rule(f"[bold]{difference.environment}", align="left", style="dim")
        _show_difference(console, difference)


def _show(console: Console, estimate: Estimate) -> None:
    for heading, lines in _sections(estimate):
        console.print(_lines(heading, lines, console.width))
        console.print()
    count, kinds = sum(estimate.free.values()), len(estimate.free)
    notes = [
        *estimate.notes,
        *_scheduled(estimate),
        f"{count} resources of {kinds} types cost nothing by themselves; --json names them.",
    ]
    for note in notes:
        console.print(f"[dim]·[/dim] {note}", highlight=False)


def show_unknown(console: Console, estimate: Estimate) -> None:
    """What the totals lack, if they lack anything."""
    if estimate.unknown:
        console.print()
        console.print("Not in the price table, and so not in any total above:", style="yellow")
        for each in estimate.unknown:
            console.print(f"  {each.sentence}", style="yellow", highlight=False)


def _show_difference(console: Console, difference: Difference) -> None:
    """Totals side by side, then each line that changed."""
    figures = (difference.against, "now", "change")
    totals = plain_table("", *figures, right=figures)
    for name, (before, after) in difference.totals.items():
        totals.add_row(Text(name, "bold"), money(before), money(after), _change(before, after))
    console.print(totals)
    console.print()
    if not difference.changes:
        console.print("No line has changed.", highlight=False)
        return
    titles = ("Changed", "", "quantity", *figures, "resources")
    table = plain_table(*titles, right=("quantity", *figures))
    for change in difference.changes:
        table.add_row(
            change.what + (f" ({change.run})" if change.run else ""),
            Text(PER[change.when], "dim"),
            _quantities(change),
            money(change.before),
            money(change.after),
            _change(change.before, change.after),
            Text(", ".join(_moves(change)), "dim"),
        )
    console.print(table)
    show_unknown(console, difference.after)


def markdown(difference: Difference) -> str:
    """The same as a comment on a pull request."""
    prices = difference.after.prices
    lines = [
        f"### What `{difference.environment}` costs, against `{difference.against}`",
        "",
        f"{prices.currency}, list prices of {prices.region}, {prices.checked}.",
        "",
        "| | before | now | change |",
        "|---|--:|--:|--:|",
    ]
    for name, (before, after) in difference.totals.items():
        lines.append(f"| {name} | {money(before)} | {money(after)} | {_change(before, after) or '='} |")
    lines.append("")
    if difference.changes:
        lines += ["| changed | paid | quantity | before | now | resources |", "|---|---|--:|--:|--:|---|"]
    else:
        lines.append("No line has changed.")
    for change in difference.changes:
        what = change.what + (f" ({change.run})" if change.run else "")
        money_cells = f"{money(change.before)} | {money(change.after)}"
        names = ", ".join(_moves(change))
        lines.append(f"| {what} | {PER[change.when]} | {_quantities(change)} | {money_cells} | {names} |")
    if unknown := difference.after.unknown:
        lines += ["", "**Not in the price table, and so not in any total:**", ""]
        lines += [f"- {each.sentence}" for each in unknown]
    return "\n".join(lines)


def show_sizing(console: Console, sizing: Sizing) -> None:
    """The pick with its price, what else was considered, and what to write into environments/*.toml."""
    pick, prices = sizing.pick, sizing.prices
    console.print(
        f"[bold]{sizing.rows:,.0f} rows, {_learned(sizing)}, within {sizing.within:g} minutes[/bold] · "
        f"{prices.region}, prices of {prices.checked}, {prices.currency}",
        highlight=False,
    )
    console.print()
    market = "one on demand, the others on spot" if pick.spot else "on demand"
    facts = plain_table(show_header=False)
    facts.add_column(style="bold")
    facts.add_column()
    facts.add_row("Cluster", f"{pick.workers} core {pick.instance.name} ({market}) and one primary")
    facts.add_row("", Text(sizing.why, "dim"))
    facts.add_row("Glue", f"{sizing.glue_workers} {GLUE_WORKER} workers, {sizing.glue_minutes:.0f} min")
    facts.add_row("Time", f"{sizing.minutes / 60:.1f} h ({sizing.minutes:.0f} min), from crawl to predictions")
    facts.add_row(
        "Price", f"{money(sizing.usd)} a run: {money(pick.usd)} cluster, {money(sizing.glue_usd)} crawl and Glue"
    )
    facts.add_row("Memory", f"{pick.cached_gib:.1f} GiB of rows in {pick.memory_gib:.1f} GiB of Spark's memory")
    if pick.overhead_gib:
        facts.add_row("", f"{pick.needed_gib:.1f} of {pick.overhead_gib:.1f} GiB outside of Java in each executor")
    console.print(facts)
    console.print()
    figures = ("core", "min", "USD", "rows in memory")
    table = plain_table("Considered", "core", "", *figures[1:], "", right=figures)
    for choice in sorted(sizing.choices, key=lambda choice: (not choice.in_time, choice.usd)):
        refused = choice.needed_gib > choice.overhead_gib
        where = "the job refuses them" if refused else "they go to disk"
        short = ["too slow"] * (not choice.in_time) + [f"rows don't fit, {where}"] * (not choice.fits)
        table.add_row(
            Text(choice.instance.name, "bold" if choice is pick else ""),
            str(choice.workers),
            Text("spot" if choice.spot else "on demand", "dim"),
            f"{choice.minutes:.0f}",
            money(sizing.glue_usd + choice.usd),
            f"{choice.cached_gib:.1f} of {choice.memory_gib:.1f} GiB",
            Text("pick", "green") if choice is pick else Text(", ".join(short), "yellow"),
        )
    console.print(table)
    console.print()
    console.print("In environments/ENV.toml", style="dim")
    for part, settings in _settings(sizing).items():
        for name, value in settings.items():
            console.print(f"  {part}.{name} = {json.dumps(value)}", highlight=False, markup=False)
    if sizing.rows > sizing.measured_rows or sizing.learner != "tree":
        console.print()
        times = f"{sizing.rows / sizing.measured_rows:,.0f} times the {sizing.measured_rows:,} rows that were measured"
        far = times if sizing.rows > sizing.measured_rows else f"of {sizing.learner} {LEARNERS[sizing.learner].points}"
        console.print(
            f"On paper: {far}, and on several nodes nothing was. docs/costs.md has the model and its errors; try a "
            "tenth of the rows first.",
            style="yellow",
            highlight=False,
        )


def _learned(sizing: Sizing) -> str:
    """What learns, as the first line has it: our own tree goes without its name."""
    of = LEARNERS[sizing.learner].of or f"depth {sizing.depth}"
    told = of if sizing.learner == "tree" else f"{sizing.learner} ({of})"
    told = told if sizing.features == FEATURES else f"{told}, {sizing.features:,} features"
    return told if sizing.outputs == 1 else f"{told}, {sizing.outputs} classes"


def money(usd: float) -> str:
    """USD, with four decimals where two would say nothing."""
    return f"{usd:,.2f}" if usd == 0 or abs(usd) >= 0.1 else f"{usd:.4f}"


def _settings(sizing: Sizing) -> dict[str, dict[str, Any]]:
    """The pick as stacks/settings.py takes it: its nodes from the start; those on spot come by managed scaling."""
    nodes, spot = sizing.pick.workers, sizing.pick.spot
    return {
        "etl": {"worker_type": GLUE_WORKER, "workers": sizing.glue_workers},
        "cluster": {
            "layout": "fleets" if spot else "groups",
            "instance_types": [sizing.pick.instance.name],
            "minimum_nodes": 1 if spot else nodes,
            "maximum_nodes": nodes,
            "spot_nodes": nodes - 1 if spot else 0,
        },
    }


PER = {STANDING: "a month", WORKBENCH: "an hour of the workbench", RUN: "a run", TRANSIENT: "a run's own cluster"}


def _scheduled(estimate: Estimate) -> Iterator[str]:
    for times in dict.fromkeys(estimate.schedules.values()):
        names = ", ".join(name for name, own in estimate.schedules.items() if own == times)
        yield f"A schedule starts {times:.1f} runs a month of {names}; they are in the figures for a month."


def _source(prices: Prices) -> str:
    return f"{prices.currency}, on-demand list prices of {prices.region}, table of {prices.checked}, without taxes"


def _sections(estimate: Estimate) -> Iterator[tuple[str, list[Line]]]:
    def lines(when: str, run: str = "") -> list[Line]:
        found = [line for line in estimate.lines if line.when == when and line.run == run]
        return sorted(found, key=lambda line: -abs(line.usd))

    yield "As it stands, a month", lines(STANDING)
    if workbench := lines(WORKBENCH):
        yield "The workbench, an hour more", workbench
    runs = estimate.runs[:1] if estimate.runs_alike else estimate.runs
    for run in runs:
        alike = len(estimate.runs) > len(runs)
        yield f"A run of {'each dataset' if alike else run.dataset}", lines(RUN, run.dataset)
        yield "  in a cluster of its own", lines(TRANSIENT, run.dataset)


def _lines(heading: str, lines: Sequence[Line], width: int) -> Table:
    """The resources are left out where the terminal is too narrow for them."""
    table = plain_table()
    table.add_column(heading, width=max(16, min(36, width - 55)))
    table.add_column("quantity", width=9, justify="right", no_wrap=True)
    table.add_column("", width=15, style="dim", no_wrap=True)
    table.add_column("price", width=10, justify="right", no_wrap=True)
    table.add_column("USD", width=9, justify="right", no_wrap=True)
    left = width - sum(int(column.width or 0) + 2 for column in table.columns)
    if left >= 20:
        table.add_column("resources", width=left, style="dim", no_wrap=True, overflow="ellipsis")
    for line in lines:
        price = f"{line.price:.7f}".rstrip("0").rstrip(".")
        cells = [
            line.what,
            f"{line.quantity:,.4g}" if abs(line.quantity) < 1000 else f"{line.quantity:,.0f}",
            line.unit,
            f"?{price}" if line.unverified else price,
            f"{line.usd:,.4f}",
            f"{line.stack}: {_names(line.resources)}",
        ]
        table.add_row(*cells[: len(table.columns)])
    table.add_row("", "", "", "", Text(f"{sum(line.usd for line in lines):,.4f}", "bold"))
    return table


def _names(resources: Sequence[str]) -> str:
    """Logical names without the hash that CDK adds."""
    names = [re.sub(r"[0-9A-F]{8}$", "", name) for name in resources]
    more = f", {len(names) - NAMES} more" if len(names) > NAMES else ""
    return ", ".join(names[:NAMES]) + more


def _quantities(change: Change) -> str:
    before, after = (f"{quantity:,.4g}" for quantity in change.quantity)
    return f"{before if before == after else f'{before} → {after}'} {change.unit}"


def _change(before: float, after: float) -> str:
    if money(before) == money(after):
        return ""
    return ("+" if after > before else "−") + money(abs(after - before))  # noqa: RUF001  # a minus sign


def _moves(change: Change) -> Iterator[str]:
    if change.added:
        yield f"+ {_names(change.added)}"
    if change.removed:
        yield f"− {_names(change.removed)}"  # noqa: RUF001  # a minus sign
