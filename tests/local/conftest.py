"""The small platform, deployed once a session, with a few raw files."""

import json
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from dml.local.cloud import Cloud
from tests.embedded import Clients
from tests.local import small_platform

CODE_BUCKET = "small-platform-code"
STACK = "small-platform"


@pytest.fixture(scope="session")
def platform(aws: Clients) -> Iterator[dict[str, str]]:
    """The small platform's stack outputs."""
    aws("s3").create_bucket(Bucket=CODE_BUCKET)
    files = {
        "prepare.py": small_platform.PREPARE,
        "bootstrap.sh": small_platform.BOOTSTRAP,
        "settings.json": '{"a": 1}',
    }
    for key, text in files.items():
        aws("s3").put_object(Bucket=CODE_BUCKET, Key=key, Body=text.encode())
    outputs = deploy(aws, STACK, small_platform.template(), Code=CODE_BUCKET)
    aws("s3").put_object(Bucket=outputs["Data"], Key="raw/people/1.csv", Body=b"Name,age\nAda,36\nAlan,41\n")
    yield outputs
    aws("cloudformation").delete_stack(StackName=STACK)


def deploy(aws: Clients, name: str, template: dict[str, Any], **parameters: str) -> dict[str, str]:
    """Creates a stack and returns its outputs; fails the test with the stack's own reason."""
    given = [{"ParameterKey": key, "ParameterValue": value} for key, value in parameters.items()]
    cloudformation = aws("cloudformation")
    cloudformation.create_stack(
        StackName=name, TemplateBody=json.dumps(template), Parameters=given, Capabilities=["CAPABILITY_IAM"]
    )
    return settled(aws, name, "CREATE_COMPLETE")


def settled(aws: Clients, name: str, expected: str) -> dict[str, str]:
    """Waits until a stack operation has ended as expected; returns the outputs."""
    cloudformation = aws("cloudformation")

    def described() -> Any:
        return cloudformation.describe_stacks(StackName=name)["Stacks"][0]

    until(lambda: not described()["StackStatus"].endswith("_IN_PROGRESS"))
    stack = described()
    events = cloudformation.describe_stack_events(StackName=name)["StackEvents"]
    reasons = [e["ResourceStatusReason"] for e in events if e["ResourceStatus"].endswith("FAILED")]
    if stack["StackStatus"] != expected:
        raise AssertionError(f"{stack['StackStatus']}: {reasons}")
    return {output["OutputKey"]: output["OutputValue"] for output in stack.get("Outputs", [])}


def until(condition: Callable[[], Any], seconds: float = 60.0, *, every: float = 0.05) -> Any:
    """Asks every so many seconds until the condition holds, and returns what it returned."""
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < deadline, f"did not come true within {seconds:.0f} s"
        time.sleep(every)
    return found


class Machine:
    """The small platform's state machine."""

    def __init__(self, aws: Clients, arn: str) -> None:
        self._states = aws("stepfunctions")
        self._arn = arn

    def start(self, **given: Any) -> str:
        arn: str = self._states.start_execution(stateMachineArn=self._arn, input=json.dumps(given))["executionArn"]
        return arn

    def finish(self, arn: str) -> dict[str, Any]:
        """The execution as DescribeExecution tells it when it has ended."""

        def ended() -> Any:
            found = self._states.describe_execution(executionArn=arn)
            return found if found["status"] != "RUNNING" else None

        found: dict[str, Any] = until(ended)
        return found

    def run(self, **given: Any) -> dict[str, Any]:
        return self.finish(self.start(**given))


@pytest.fixture(scope="session")
def machine(aws: Clients, platform: dict[str, str]) -> Machine:
    return Machine(aws, platform["Machine"])


@pytest.fixture
def without(aws: Clients) -> Iterator[Callable[[str, str], None]]:
    """without(role, action) takes a permission from a role for the length of a test."""
    denied = []

    def take(role: str, action: str) -> None:
        document = {"Statement": [{"Effect": "Deny", "Action": action, "Resource": "*"}]}
        aws("iam").put_role_policy(RoleName=role, PolicyName="without", PolicyDocument=json.dumps(document))
        denied.append(role)

    yield take
    for role in denied:
        aws("iam").delete_role_policy(RoleName=role, PolicyName="without")


@pytest.fixture(scope="session")
def logs(cloud: Cloud) -> Any:
    return cloud.place.logs
