"""What surrounds the putting together of the stacks: checkers where they are asked for, errors in a sentence."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import aws_cdk as cdk
from aws_cdk.cx_api import CloudAssembly
from cdk_nag import AwsSolutionsChecks

from datasets import DatasetError
from notebooks.zpln import NoteError
from stacks.code import CodeError
from stacks.settings import SettingsError

TEMPLATE_BYTES = 1_000_000
# Names of services and of AWS's own policies differ in other partitions; nothing of ours was ever tried there.
OTHER_PARTITIONS = ("cn-", "us-gov-", "us-iso", "eu-isoe-", "eusc-")


def check_partition(region: str) -> None:
    """Ends synthesis for a region outside of the commercial partition; without a region nothing can be said."""
    if region.startswith(OTHER_PARTITIONS):
        raise SystemExit(
            f"{region} is a region of another partition than aws, where dml is not supported. "
            "Deploy to a region such as us-east-1 or eu-central-1: set AWS_REGION, or the region of your profile."
        )


def check(app: cdk.App) -> None:
    """With the context `-c nag=true` (make lint) a finding of cdk-nag that nobody has accepted fails the synthesis."""
    if app.node.try_get_context("nag"):
        cdk.Validations.of(app).add_plugins(AwsSolutionsChecks(app, verbose=True))


def check_size(assembly: CloudAssembly, datasets: int) -> None:
    """Each dataset's state machine adds to one template: said here, rather than after stacks have been deployed."""
    for stack in assembly.stacks:
        size = Path(stack.template_full_path).stat().st_size
        if size > TEMPLATE_BYTES:
            raise SystemExit(
                f"The template of {stack.stack_name} has {size:,} bytes, and CloudFormation takes {TEMPLATE_BYTES:,}: "
                f"{datasets} datasets are too many for one environment, about {datasets * TEMPLATE_BYTES // size} fit. "
                "Take folders that you do not need out of datasets/."
            )


@contextmanager
def said_plainly() -> Iterator[None]:
    """An error that the user can mend ends the program with its message alone."""
    try:
        yield
    except (SettingsError, DatasetError, CodeError, NoteError) as error:
        raise SystemExit(str(error)) from None
