"""`dml smoke`: what it proves here, what it says where something differs, and that it leaves nothing."""

import io
import json
from collections.abc import Callable
from typing import Any

import pytest
from rich.console import Console

from dml.errors import UserError
from dml.estate.platform import Platform
from dml.local import here
from dml.local.cloud import Cloud
from dml.smoke import proofs, scratch
from tests.embedded import Clients

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def platform(cloud: Cloud) -> Platform:
    return Platform("dev", credentials=cloud.environment())


@pytest.fixture(autouse=True)
def nothing_left(aws: Clients, cloud: Cloud) -> Any:
    """Whatever a test does, its stack, its bucket and its role are gone afterwards."""
    yield
    assert [
        one["StackName"] for one in aws("cloudformation").describe_stacks()["Stacks"] if "smoke" in one["StackName"]
    ] == []
    assert [one["Name"] for one in aws("s3").list_buckets()["Buckets"] if "smoke" in one["Name"]] == []
    assert [one["RoleName"] for one in aws("iam").list_roles()["Roles"] if "smoke" in one["RoleName"]] == []


def test_all_that_publishing_hangs_on_should_be_as_expected(
    dml: Run, cloud: Cloud, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(here, "cloud", lambda: cloud)
    code, out, err = dml("smoke", "--local", "--json")
    found = json.loads(out)
    assert [proof for proof in found["proofs"] if not proof["holds"]] == []
    assert (code, found["ok"], len(found["proofs"])) == (0, True, 11), err
    assert (found["environment"], found["endpoint"]) == ("dev", cloud.endpoint)


def test_a_pointer_that_is_stored_as_a_text_should_be_a_difference(
    platform: Platform, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As the definition once had it, which no run would have survived."""
    original = scratch.machine

    def as_text(environment: str) -> dict[str, Any]:
        made = original(environment)
        for name in ("publish: the first model", "publish: replace the current model"):
            made["States"][name]["Arguments"]["Body"] = "{% $string({'run_id': $run_id}) %}"
        return made

    monkeypatch.setattr(scratch, "machine", as_text)
    said: list[str] = []
    found = proofs.prove(platform, every=0.1, say=said.append)
    different = {proof["what"]: proof["seen"] for proof in found["proofs"] if not proof["holds"]}
    assert not found["ok"]
    assert said[0].startswith("making the stack dml-dev-smoke-") and said[-1].startswith("taking the stack")
    assert "NOT as expected: an object is stored as a JSON object" in said
    assert different["an object is stored as a JSON object"] == different["the pointer is the winner's"] == "a str"


def test_an_interruption_should_take_the_stack_away(platform: Platform, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: Any, **__: Any) -> Any:
        raise KeyboardInterrupt

    monkeypatch.setattr(proofs.Bench, "_answer", interrupted)
    with pytest.raises(KeyboardInterrupt):
        proofs.prove(platform, every=0.1, say=lambda _: None)


def test_a_stack_that_cannot_be_made_should_be_told_with_its_reason(
    platform: Platform, monkeypatch: pytest.MonkeyPatch
) -> None:
    parameter = {"Type": "AWS::SSM::Parameter", "Properties": {"Type": "String", "Value": "v" * 5000}}
    monkeypatch.setattr(scratch, "template", lambda _: {"Resources": {"Long": parameter}})
    with pytest.raises(UserError, match=r"The stack dml-dev-smoke-\w+ was not made: .*maximum parameter value of 4096"):
        proofs.prove(platform, every=0.1, say=lambda _: None)


def test_a_stack_that_is_refused_should_be_told_and_not_be_looked_for(
    platform: Platform, monkeypatch: pytest.MonkeyPatch
) -> None:
    outputs = {f"O{number}": {"Value": "v"} for number in range(201)}
    refused = {"Resources": {"A": {"Type": "AWS::SNS::Topic"}}, "Outputs": outputs}
    monkeypatch.setattr(scratch, "template", lambda _: refused)
    with pytest.raises(
        UserError, match=r"^AWS did not let us make the stack dml-dev-smoke-\w+: .*Template format error"
    ):
        proofs.prove(platform, every=0.1, say=lambda _: None)


def test_a_difference_should_be_shown_with_what_was_expected() -> None:
    told = io.StringIO()
    proof = {"what": "who comes second loses", "expected": "FAILED LostRace", "seen": "SUCCEEDED", "holds": False}
    proofs.show(Console(file=told, width=200), {"proofs": [proof]})
    assert "✗  who comes second loses  SUCCEEDED" in told.getvalue()
    assert "expected" in told.getvalue() and "FAILED LostRace" in told.getvalue()
    assert "1 difference of 1" in told.getvalue()
