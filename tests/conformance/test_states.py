"""State machines end in the embedded cloud as AWS's guide says or as AWS was recorded: cases/states.json."""

import json
import re
import time
from typing import Any

import pytest

from tests.conformance.conftest import cases, placed
from tests.embedded import Clients
from tests.local.conftest import until


def like(pattern: str, text: str | None) -> bool:
    """Whether a text is the pattern, in which * stands for what differs from call to call."""
    return text is not None and re.fullmatch(".*".join(map(re.escape, pattern.split("*"))), text, re.DOTALL) is not None


@pytest.mark.parametrize("case", cases("states"))
def test_a_state_machine_should_end_as_on_aws(aws: Clients, bucket: str, role: str, case: dict[str, Any]) -> None:
    states, machine = aws("stepfunctions"), placed(case["machine"], Bucket=bucket)
    made = states.create_state_machine(
        name=f"conformance-{time.monotonic_ns()}",
        definition=json.dumps({"QueryLanguage": "JSONata", **machine}),
        roleArn=role,
    )["stateMachineArn"]
    execution = states.start_execution(stateMachineArn=made, input=json.dumps(case["input"]))["executionArn"]

    def ended() -> Any:
        found = states.describe_execution(executionArn=execution)
        return found if found["status"] != "RUNNING" else None

    seen, expected = until(ended), case["ends"]
    states.delete_state_machine(stateMachineArn=made)
    assert seen["status"] == expected["status"], seen
    if "output" in expected:
        assert json.loads(seen["output"]) == expected["output"]
    if "error" in expected:
        assert seen.get("error") == expected["error"]
    if expected.get("cause"):
        assert like(expected["cause"], seen.get("cause")), seen.get("cause")
    elif "cause" in expected:
        assert seen.get("cause") is None
