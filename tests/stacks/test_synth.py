"""What is said of an app before anything of it is deployed."""

from pathlib import Path

import aws_cdk as cdk
import pytest

from stacks.synth import TEMPLATE_BYTES, check_partition, check_size


@pytest.mark.parametrize("size", [TEMPLATE_BYTES // 2, 2 * TEMPLATE_BYTES])
def test_more_datasets_than_a_template_takes_should_be_refused_with_the_way_out(tmp_path: Path, size: int) -> None:
    app = cdk.App(outdir=str(tmp_path))
    cdk.CfnOutput(cdk.Stack(app, "dml-dev-pipeline"), "Machines", value="x" * size)
    assembly = app.synth()
    if size < TEMPLATE_BYTES:
        check_size(assembly, 20)
        return
    with pytest.raises(SystemExit, match=r"of dml-dev-pipeline has 2,.*: 20 datasets are too many .*about 9 fit"):
        check_size(assembly, 20)


def test_a_region_of_another_partition_should_be_refused_with_the_way_out() -> None:
    for region in ("", "us-east-1", "eu-central-1", "us-west-2"):
        check_partition(region)
    for region in ("cn-north-1", "us-gov-west-1", "us-iso-east-1"):
        with pytest.raises(SystemExit, match=rf"{region} is a region of another partition .* set AWS_REGION"):
            check_partition(region)
