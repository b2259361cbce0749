"""What surrounds the putting together of the stacks: checkers where they are asked for, errors in a sentence."""

import json
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import aws_cdk as cdk
from aws_cdk.cx_api import CloudAssembly
from cdk_nag import AwsSolutionsChecks

from datasets import DatasetError
from notebooks.zpln import NoteError
from stacks.code import CodeError
from stacks.names import QUOTAS
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


def check_size(assembly: CloudAssembly) -> None:
    """What CloudFormation takes of one template: said here, rather than after stacks have been deployed."""
    for stack in assembly.stacks:
        size = Path(stack.template_full_path).stat().st_size
        if size > TEMPLATE_BYTES:
            raise SystemExit(
                f"The template of {stack.stack_name} has {size:,} bytes, and CloudFormation takes {TEMPLATE_BYTES:,}. "
                "Take something out of the stack: stacks/ says what is in it."
            )


def quotas_passed(assembly: CloudAssembly) -> list[str]:
    """The quotas of a fresh account that these stacks alone go past, a sentence each: AWS raises them if it is asked.

    What others have in the account is not known here; `dml doctor` looks.
    """
    counts = Counter(
        resource["Type"]
        for stack in assembly.stacks
        for resource in json.loads(Path(stack.template_full_path).read_text(encoding="utf-8"))["Resources"].values()
    )
    counts["AWS::CloudFormation::Stack"] = len(assembly.stacks)
    return [
        f"{counts[kind]:,} of {kind}, and a fresh account may have {most:,}: ask for more before you deploy "
        "(Service Quotas), or take folders that you do not need out of datasets/."
        for kind, most in QUOTAS.items()
        if counts[kind] > most
    ]


@contextmanager
def said_plainly() -> Iterator[None]:
    """An error that the user can mend ends the program with its message alone."""
    try:
        yield
    except (SettingsError, DatasetError, CodeError, NoteError) as error:
        raise SystemExit(str(error)) from None
