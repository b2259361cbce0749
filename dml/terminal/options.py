"""The options that commands of several rooms have: one wording, one check."""

from typing import Annotated

import typer


def _known(environment: str) -> str:
    """A wrong name is refused before anything is started. Raises SettingsError."""
    from stacks.settings import load_environment

    return load_environment(environment).name


DatasetArgument = Annotated[str, typer.Argument(help="A folder of datasets/.", show_default=True)]
DatasetOption = Annotated[str, typer.Option("--dataset", help="A folder of datasets/.", show_default=True)]
LocalOption = Annotated[
    bool,
    typer.Option(
        "--local", help="On this machine, in the embedded cloud; costs nothing. Without it: your AWS account."
    ),
]
YarnOption = Annotated[
    bool,
    typer.Option(
        "--yarn",
        help="With --local: steps run in containers of a real YARN, as on EMR. Slower, on Linux only; fetches 44 MB "
        "once. Without it: on local Spark.",
    ),
]
EnvironmentOption = Annotated[
    str, typer.Option("--env", help="Which environment: a file of environments/.", callback=_known)
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON object at the end instead of the screen.")]
YesOption = Annotated[bool, typer.Option("--yes", help="Without being asked.")]
