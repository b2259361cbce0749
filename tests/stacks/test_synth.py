"""What is said of an app before anything of it is deployed."""

from pathlib import Path

import aws_cdk as cdk
import pytest

from datasets import DatasetError
from stacks.names import check_names, too_many
from stacks.synth import TEMPLATE_BYTES, check_partition, check_size, quotas_passed


@pytest.mark.parametrize("size", [TEMPLATE_BYTES // 2, 2 * TEMPLATE_BYTES])
def test_more_than_a_template_takes_should_be_refused_with_the_way_out(tmp_path: Path, size: int) -> None:
    app = cdk.App(outdir=str(tmp_path))
    cdk.CfnOutput(cdk.Stack(app, "dml-dev-data"), "Machines", value="x" * size)
    assembly = app.synth()
    if size < TEMPLATE_BYTES:
        check_size(assembly)
        return
    with pytest.raises(SystemExit, match=r"of dml-dev-data has 2,.* bytes, and CloudFormation takes 1,000,000\. Take"):
        check_size(assembly)


def test_more_than_a_fresh_account_may_have_should_be_said_before_a_deploy(tmp_path: Path) -> None:
    app = cdk.App(outdir=str(tmp_path))
    stacks = [cdk.Stack(app, f"dml-dev-{number}") for number in range(2)]
    for number in range(301):
        cdk.CfnResource(stacks[number % 2], f"R{number}", type="AWS::Events::Rule")
    (said,) = quotas_passed(app.synth())
    assert said.startswith("301 of AWS::Events::Rule, and a fresh account may have 300: ask for more before you deploy")


@pytest.mark.parametrize(
    ("names", "told"),
    [
        (["penguins", "data"], r"datasets/data: a stack of dml has this name \(data, .*pipeline, etl\)"),
        (["p" * 55], r"at most 54 characters"),
        (["a_1", "a1"], r"datasets/a_1: CloudFormation, .* calls it A1, and so it calls a1\. Give one of them"),
    ],
)
def test_a_name_that_no_stack_can_have_should_be_refused_with_the_way_out(names: list[str], told: str) -> None:
    check_names(["penguins", "nyc_flights", "p" * 54])
    with pytest.raises(DatasetError, match=told):
        check_names(names)


def test_a_region_of_another_partition_should_be_refused_with_the_way_out() -> None:
    for region in ("", "us-east-1", "eu-central-1", "us-west-2"):
        check_partition(region)
    for region in ("cn-north-1", "us-gov-west-1", "us-iso-east-1"):
        with pytest.raises(SystemExit, match=rf"{region} is a region of another partition .* set AWS_REGION"):
            check_partition(region)


def test_more_datasets_than_a_fresh_account_takes_should_be_told() -> None:
    assert too_many(["d"] * 150) == ""
    assert "151 datasets need 302 rules of EventBridge, and a fresh account may have 300" in too_many(["d"] * 151)
