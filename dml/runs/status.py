"""`dml status`: what stands and what ran, read from the endpoint's own answers."""

from typing import Any

from rich.console import Console
from rich.table import Table

from datasets import dataset_names, load_dataset
from dml.estate.platform import Platform
from dml.models.figures import headline
from dml.terminal.console import plain_table
from stacks.outputs import Output, state_machine_output


def show(console: Console, platform: Platform, runs: int = 5) -> None:
    """Print the workbench's state and, for each dataset, its current model and its last `runs` runs."""
    console.print(f"[bold]Environment[/bold]  {platform.environment} at {platform.endpoint or 'AWS'}", highlight=False)
    if platform.paused:
        console.print(f"[bold]Paused[/bold]       bring it back: {platform.command('resume')}", highlight=False)
    else:
        console.print(f"[bold]Workbench[/bold]    {_workbench(platform)}", highlight=False)
    for dataset in platform.datasets:
        console.print()
        known = dataset in dataset_names()
        current = platform.json_object(Output.MODELS_BUCKET, f"{dataset}/CURRENT.json")
        unit = load_dataset(dataset).label.unit if known else ""
        model = (
            f"{current['run_id']}  {headline(current['metrics'], unit)}"
            if current
            else f"none yet: {platform.command(f'run {dataset}')}"
        )
        console.print(f"[bold]{dataset}[/bold]  current model: {model}", highlight=False)
        if not known:
            gone = f"this checkout has no such dataset; take it away: {platform.command(f'dataset remove {dataset}')}"
            console.print(f"  {gone}", highlight=False)
        states, arn = platform.client("stepfunctions"), platform.output(state_machine_output(dataset))
        executions = states.list_executions(stateMachineArn=arn, maxResults=runs)["executions"]
        # What ran before the environment was destroyed and made anew belongs to what is gone.
        made = states.describe_state_machine(stateMachineArn=arn)["creationDate"] if executions else None
        if own := [execution for execution in executions if execution["startDate"] >= made]:
            console.print(_runs(own))
    if missing := [name for name in dataset_names() if name not in platform.datasets]:
        console.print(f"\nNot deployed: {', '.join(missing)}", highlight=False)


def _workbench(platform: Platform) -> str:
    parameter = platform.output(Output.WORKBENCH_PARAMETER)
    cluster = platform.client("ssm").get_parameter(Name=parameter)["Parameter"]["Value"]
    if cluster == "none":
        return "none: runs start a cluster of their own"
    state = platform.client("emr").describe_cluster(ClusterId=cluster)["Cluster"]["Status"]["State"]
    return f"{cluster} {state.lower()}"


def _runs(executions: list[dict[str, Any]]) -> Table:
    table = plain_table("run", "state", "started", "seconds", right=("seconds",), padding=(0, 2, 0, 2))
    for execution in executions:
        took = execution["stopDate"] - execution["startDate"] if "stopDate" in execution else None
        table.add_row(
            execution["name"],
            execution["status"].lower(),
            f"{execution['startDate']:%Y-%m-%d %H:%M:%S}",
            f"{took.total_seconds():.0f}" if took else "",
        )
    return table
