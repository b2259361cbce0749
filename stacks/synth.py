"""What surrounds the putting together of the stacks: checkers where they are asked for, errors in a sentence."""

from collections.abc import Iterator
from contextlib import contextmanager

import aws_cdk as cdk
from cdk_nag import AwsSolutionsChecks

from datasets import DatasetError
from notebooks.zpln import NoteError
from stacks.code import CodeError
from stacks.settings import SettingsError


def check(app: cdk.App) -> None:
    """With the context `-c nag=true` (make lint) a finding of cdk-nag that nobody has accepted fails the synthesis."""
    if app.node.try_get_context("nag"):
        cdk.Validations.of(app).add_plugins(AwsSolutionsChecks(app, verbose=True))


@contextmanager
def said_plainly() -> Iterator[None]:
    """An error that the user can mend ends the program with its message alone."""
    try:
        yield
    except (SettingsError, DatasetError, CodeError, NoteError) as error:
        raise SystemExit(str(error)) from None
