"""Each stack as it was when last looked at. After a change that you meant: pytest tests/stacks --snapshot-update."""

import json
import re
from typing import Any

import pytest
from syrupy.assertion import SnapshotAssertion
from syrupy.extensions.json import JSONSnapshotExtension

from tests.stacks.conftest import STACKS, Synth


def without_hashes(value: Any) -> Any:
    """Asset hashes change with every edit of a job, and CDK sorts what a policy names by them."""
    if isinstance(value, dict):
        plain = {key: without_hashes(inner) for key, inner in value.items() if key != "Metadata"}
        for key in {"Resource", "s3:prefix"} & plain.keys():
            if isinstance(plain[key], list):
                plain[key].sort(key=json.dumps)
        return plain
    if isinstance(value, list):
        return [without_hashes(inner) for inner in value]
    return re.sub(r"[0-9a-f]{64}", "HASH", value) if isinstance(value, str) else value


@pytest.mark.parametrize("stack", STACKS)
@pytest.mark.parametrize("environment", ["dev", "prod"])
def test_a_stack_should_be_what_it_was(synth: Synth, environment: str, stack: str, snapshot: SnapshotAssertion) -> None:
    template = synth(environment).templates[stack]
    shown = {"Resources": template["Resources"], "Outputs": template.get("Outputs", {})}
    assert without_hashes(shown) == snapshot(extension_class=JSONSnapshotExtension)
