"""What surrounds the putting together of the stacks: checkers where they are asked for, errors in a sentence."""

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import aws_cdk as cdk
from aws_cdk.cx_api import CloudAssembly
from cdk_nag import AwsSolutionsChecks

from datasets import DatasetError
from notebooks.zpln import NoteError
from stacks.code import CodeError
from stacks.outputs import FORMER, SHARED, dataset_of, dataset_stack, pascal
from stacks.settings import SettingsError

TEMPLATE_BYTES = 1_000_000
# Defaults of AWS (Service Quotas): rules of an event bus (EventBridge User Guide, "Quotas"; 100 in af-south-1 and
# eu-south-1), roles of an account, stacks of a region. A dataset has two rules: nothing else of it reaches a
# quota sooner.
QUOTAS = {"AWS::Events::Rule": 300, "AWS::IAM::Role": 1_000, "AWS::CloudFormation::Stack": 2_000}
# A message's subject, "dml ENVIRONMENT DATASET: the gate refused the model", has less than 100 characters (SNS API
# Reference); an environment's name has at most 12.
LONGEST_NAME = 99 - len("dml  : the gate refused the model") - 12
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


def check_names(datasets: Sequence[str]) -> None:
    """Raises DatasetError for a dataset that cannot have a stack of its own beside the others'."""
    for name in datasets:
        where = f"datasets/{name}"
        if dataset_of(dataset_stack(name)) is None:
            taken = ", ".join((*SHARED, *FORMER))
            raise DatasetError(f"{where}: a stack of dml has this name ({taken}); give the dataset another one.")
        if len(name) > LONGEST_NAME:
            raise DatasetError(
                f"{where}: a dataset's name has at most {LONGEST_NAME} characters, since the subject "
                "of a message that names it has at most 99. Give it a shorter one."
            )
        for other in datasets:
            if other != name and pascal(other) == pascal(name):
                raise DatasetError(
                    f"{where}: CloudFormation, which knows no underscores, calls it {pascal(name)}, and so it calls "
                    f"{other}. Give one of them another name."
                )


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
