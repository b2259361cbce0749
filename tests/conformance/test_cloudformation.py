"""CloudFormation's behaviour that our stacks lean on, each as its guide says; two small stacks a test."""

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from botocore.exceptions import ClientError

from tests.embedded import Clients
from tests.local.conftest import deploy, settled

Update = Callable[..., dict[str, str]]


@pytest.fixture
def stacks(aws: Clients) -> Iterator[list[str]]:
    """Names of stacks, which are deleted in the end, the last one first."""
    made: list[str] = []
    yield made
    for name in reversed(made):
        aws("cloudformation").delete_stack(StackName=name)


def update(aws: Clients, name: str, template: dict[str, Any], expected: str = "UPDATE_COMPLETE") -> dict[str, str]:
    body = json.dumps(template)
    aws("cloudformation").update_stack(StackName=name, TemplateBody=body, Capabilities=["CAPABILITY_IAM"])
    return settled(aws, name, expected)


def events(aws: Clients, name: str) -> list[tuple[str, str]]:
    """(logical id, status) of what happened to the stack's resources, the oldest first."""
    found = aws("cloudformation").describe_stack_events(StackName=name)["StackEvents"]
    return [(one["LogicalResourceId"], one["ResourceStatus"]) for one in reversed(found)]


def parameter(name: str | None = None, **properties: Any) -> dict[str, Any]:
    named = {"Name": name} if name else {}
    return {"Type": "AWS::SSM::Parameter", "Properties": {"Type": "String", "Value": "v", **named, **properties}}


def exporting(value: str) -> dict[str, Any]:
    return {
        "Resources": {"P": parameter()},
        "Outputs": {"V": {"Value": value, "Export": {"Name": "conformance-export"}}},
    }


IMPORTING = {"Resources": {"P": parameter(Value={"Fn::ImportValue": "conformance-export"})}}


def test_an_export_in_use_should_be_neither_changed_nor_deleted(aws: Clients, stacks: list[str]) -> None:
    """Guide, "Get exported outputs from a deployed stack": not before no other stack imports it."""
    cloudformation = aws("cloudformation")
    deploy(aws, "exports", exporting("one"))
    deploy(aws, "imports", IMPORTING)
    stacks += ["exports", "imports"]
    with pytest.raises(AssertionError, match="Export conformance-export cannot be updated as it is in use by imports"):
        update(aws, "exports", exporting("two"))
    (told,) = cloudformation.list_imports(ExportName="conformance-export")["Imports"]
    assert told == "imports"
    with pytest.raises(AssertionError, match="Export conformance-export cannot be deleted as it is in use by imports"):
        update(aws, "exports", {"Resources": {"P": parameter(Description="without the export")}})
    cloudformation.delete_stack(StackName="exports")
    (stack,) = cloudformation.describe_stacks(StackName="exports")["Stacks"]
    assert stack["StackStatus"] == "UPDATE_ROLLBACK_COMPLETE"
    last = cloudformation.describe_stack_events(StackName="exports")["StackEvents"][0]
    assert last["ResourceStatusReason"] == "Export conformance-export cannot be deleted as it is in use by imports"
    update(aws, "imports", {"Resources": {"P": parameter(Value="by itself")}})
    assert update(aws, "exports", exporting("two"))["V"] == "two"


def test_a_second_export_of_the_name_and_an_import_of_none_should_fail(aws: Clients, stacks: list[str]) -> None:
    """Guide, "Outputs": names of exports are unique in an account and region."""
    deploy(aws, "exports-once", exporting("one"))
    stacks += ["exports-once", "exports-twice", "imports-none"]
    with pytest.raises((ClientError, AssertionError), match="conformance-export is already exported by stack"):
        deploy(aws, "exports-twice", exporting("two"))
    unknown = {"Resources": {"P": parameter(Value={"Fn::ImportValue": "nobody-exports-it"})}}
    with pytest.raises((ClientError, AssertionError), match="nobody-exports-it"):
        deploy(aws, "imports-none", unknown)


def test_what_is_replaced_should_be_made_before_the_old_one_goes(aws: Clients, stacks: list[str]) -> None:
    """Guide, "Update behaviors of stack resources": Replacement."""
    stacks.append("replaces")
    first = deploy(aws, "replaces", {"Resources": {"P": parameter("/conformance/a")}, "Outputs": out("P")})
    second = update(aws, "replaces", {"Resources": {"P": parameter("/conformance/b")}, "Outputs": out("P")})
    assert (first["P"], second["P"]) == ("/conformance/a", "/conformance/b")
    with pytest.raises(aws("ssm").exceptions.ParameterNotFound):
        aws("ssm").get_parameter(Name="/conformance/a")
    fails = {"P": parameter("/conformance/c"), "Long": {**parameter(Value="v" * 5000), "DependsOn": "P"}}
    with pytest.raises(AssertionError, match=r"^UPDATE_ROLLBACK_COMPLETE"):
        update(aws, "replaces", {"Resources": fails, "Outputs": out("P")})
    assert aws("ssm").get_parameter(Name="/conformance/b")["Parameter"]["Version"] == 1  # it was there all the time
    with pytest.raises(aws("ssm").exceptions.ParameterNotFound):
        aws("ssm").get_parameter(Name="/conformance/c")


def test_what_has_a_name_and_must_be_replaced_should_be_refused(aws: Clients, stacks: list[str]) -> None:
    """Guide, "Name type": a new one cannot be made while the old one has the name."""
    stacks.append("named")

    def template(settings: dict[str, Any]) -> dict[str, Any]:
        properties = {"Name": "conformance-named", "SecurityConfiguration": settings}
        return {"Resources": {"One": {"Type": "AWS::EMR::SecurityConfiguration", "Properties": properties}}}

    deploy(aws, "named", template({}))
    told = "cannot update a stack when a custom-named resource requires replacing. Rename conformance-named and"
    with pytest.raises(AssertionError, match=f"UPDATE_ROLLBACK_COMPLETE: .*{told}"):
        update(aws, "named", template({"EncryptionConfiguration": {}}))


def test_a_stack_whose_creation_fails_should_leave_nothing_and_take_no_update(aws: Clients, stacks: list[str]) -> None:
    """Guide, "Stack failure options" and "Stack status codes": ROLLBACK_COMPLETE can only be deleted."""
    stacks.append("fails")
    long = {**parameter("/conformance/long", Value="v" * 5000), "DependsOn": "First"}
    template = {"Resources": {"First": parameter("/conformance/first"), "Long": long}}
    with pytest.raises(AssertionError, match=r"^ROLLBACK_COMPLETE"):
        deploy(aws, "fails", template)
    with pytest.raises(aws("ssm").exceptions.ParameterNotFound):
        aws("ssm").get_parameter(Name="/conformance/first")
    with pytest.raises(ClientError, match="is in ROLLBACK_COMPLETE state and can not be updated"):
        update(aws, "fails", {"Resources": {"First": parameter()}})


def test_an_update_that_fails_should_bring_all_back(aws: Clients, stacks: list[str]) -> None:
    """Guide, "Stack failure options": a failed update is rolled back to the last state that worked."""
    stacks.append("rolls-back")
    deploy(aws, "rolls-back", {"Resources": {"A": parameter("/conformance/kept", Value="old")}})
    long = {**parameter(Value="v" * 5000), "DependsOn": ["A", "New"]}
    changed = {"A": parameter("/conformance/kept", Value="new"), "New": parameter("/conformance/new"), "Long": long}
    with pytest.raises(AssertionError, match=r"^UPDATE_ROLLBACK_COMPLETE"):
        update(aws, "rolls-back", {"Resources": changed})
    assert aws("ssm").get_parameter(Name="/conformance/kept")["Parameter"]["Value"] == "old"
    with pytest.raises(aws("ssm").exceptions.ParameterNotFound):
        aws("ssm").get_parameter(Name="/conformance/new")
    with pytest.raises(ClientError, match="No updates are to be performed"):
        update(aws, "rolls-back", {"Resources": {"A": parameter("/conformance/kept", Value="old")}})


def test_resources_should_go_in_the_reverse_order_and_what_is_retained_should_stay(
    aws: Clients, stacks: list[str]
) -> None:
    """Guide, "DependsOn attribute" and "DeletionPolicy attribute"."""
    kept = {**parameter("/conformance/retained"), "DeletionPolicy": "Retain"}
    template = {"Resources": {"A": parameter(), "B": {**parameter(), "DependsOn": "A"}, "Kept": kept}}
    deploy(aws, "goes", template)
    stack_id = aws("cloudformation").describe_stacks(StackName="goes")["Stacks"][0]["StackId"]
    aws("cloudformation").delete_stack(StackName="goes")
    settled(aws, stack_id, "DELETE_COMPLETE")
    found = events(aws, stack_id)
    assert found.index(("A", "CREATE_COMPLETE")) < found.index(("B", "CREATE_COMPLETE"))
    assert found.index(("B", "DELETE_COMPLETE")) < found.index(("A", "DELETE_COMPLETE"))
    assert ("Kept", "DELETE_SKIPPED") in found
    aws("ssm").delete_parameter(Name="/conformance/retained")


def test_a_change_set_that_is_never_executed_should_leave_a_stack_in_review(aws: Clients, stacks: list[str]) -> None:
    """Guide, "Create a change set for a new stack": the stack has no resource, and is deleted apart."""
    cloudformation = aws("cloudformation")
    stacks.append("reviewed")
    given = {"StackName": "reviewed", "ChangeSetName": "asks"}
    body = json.dumps({"Resources": {"P": parameter("/conformance/reviewed")}})
    cloudformation.create_change_set(**given, ChangeSetType="CREATE", TemplateBody=body)
    cloudformation.get_waiter("change_set_create_complete").wait(**given, WaiterConfig={"Delay": 1})
    (change,) = cloudformation.describe_change_set(**given)["Changes"]
    assert change["ResourceChange"]["Action"] == "Add"
    cloudformation.delete_change_set(**given)
    (stack,) = cloudformation.describe_stacks(StackName="reviewed")["Stacks"]
    assert stack["StackStatus"] == "REVIEW_IN_PROGRESS"
    with pytest.raises(aws("ssm").exceptions.ParameterNotFound):
        aws("ssm").get_parameter(Name="/conformance/reviewed")
    cloudformation.delete_stack(StackName="reviewed")
    with pytest.raises(ClientError, match="does not exist"):
        cloudformation.describe_stacks(StackName="reviewed")


def out(name: str) -> dict[str, Any]:
    return {name: {"Value": {"Ref": name}}}
