"""Which datasets can have a stack of their own, and how many: asked at synth, and before it by `dml dataset`."""

from collections.abc import Sequence

from datasets import DatasetError
from stacks.outputs import FORMER, SHARED, dataset_of, dataset_stack, pascal

# Defaults of AWS (Service Quotas): rules of an event bus (EventBridge User Guide, "Quotas"; 100 in af-south-1 and
# eu-south-1), roles of an account, stacks of a region. A dataset has two rules: nothing else of it reaches a
# quota sooner.
QUOTAS = {"AWS::Events::Rule": 300, "AWS::IAM::Role": 1_000, "AWS::CloudFormation::Stack": 2_000}
RULES_OF_DATASET = 2
# A message's subject, "dml ENVIRONMENT DATASET: the gate refused the model", has less than 100 characters (SNS API
# Reference); an environment's name has at most 12.
LONGEST_NAME = 99 - len("dml  : the gate refused the model") - 12


def check_names(datasets: Sequence[str]) -> None:
    """Raises DatasetError for a dataset that cannot have a stack of its own beside the others'."""
    for name in datasets:
        check_name(name, datasets)


def check_name(name: str, datasets: Sequence[str]) -> None:
    """`check_names` of one of them."""
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


def too_many(datasets: Sequence[str]) -> str:
    """What a fresh account of AWS says to so many datasets, in a sentence; '' if nothing."""
    rules, most = RULES_OF_DATASET * len(datasets), QUOTAS["AWS::Events::Rule"]
    if rules <= most:
        return ""
    return (
        f"{len(datasets):,} datasets need {rules:,} rules of EventBridge, and a fresh account may have {most:,}: ask "
        "for more before you deploy (Service Quotas), or take folders that you do not need out of datasets/."
    )
