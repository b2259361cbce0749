"""What an update would replace, before it does."""

import copy
import io
from typing import Any

import pytest
from rich.console import Console

from dml.estate.diff import Action, Report, compare, show
from tests.upgrade import previous

Stacks = dict[str, dict[str, Any]]


@pytest.fixture
def dev() -> Stacks:
    return previous.templates("dev")


def report(old: Stacks, new: Stacks, **after: set[str]) -> Report:
    return compare("dev", old, new, {f"dml-dev-{name}": stacks for name, stacks in after.items()})


def actions(found: Report) -> dict[str, tuple[Action, tuple[str, ...]]]:
    return {one.resource: (one.action, one.because) for one in found.changes}


def stack(**resources: tuple[str, dict[str, Any]]) -> dict[str, Any]:
    return {"Resources": {name: {"Type": kind, "Properties": given} for name, (kind, given) in resources.items()}}


def group(name: str, **more: str) -> dict[str, Any]:
    return {"Resources": {"Logs": {"Type": "AWS::Logs::LogGroup", "Properties": {"LogGroupName": name}, **more}}}


def test_nothing_should_be_told_of_templates_that_are_the_same(dev: Stacks) -> None:
    assert report(dev, copy.deepcopy(dev)) == Report("dev", [], [])


def test_a_new_release_should_replace_the_workbench_and_say_what_that_means(dev: Stacks) -> None:
    new = copy.deepcopy(dev)
    resources = new["dml-dev-cluster"]["Resources"]
    resources["Workbench"]["Properties"]["ReleaseLabel"] = "emr-8.0.0"
    found = report(dev, new)
    assert actions(found) == {"Workbench": (Action.REPLACE, ("/ReleaseLabel",))}
    printed = io.StringIO()
    show(Console(file=printed, width=200), found)
    assert "dev: 1 to replace" in printed.getvalue()
    assert "notes are kept in S3; steps that run are lost" in printed.getvalue()


@pytest.mark.parametrize(
    ("path", "value", "action"),
    [
        (("Instances", "MasterInstanceGroup", "InstanceType"), "m7g.2xlarge", Action.REPLACE),
        (("Instances", "TerminationProtected"), True, Action.CHANGE),
        (("AutoTerminationPolicy", "IdleTimeout"), 60, Action.CHANGE),
        (("BootstrapActions",), [], Action.REPLACE),
    ],
)
def test_a_cluster_should_be_changed_in_place_only_where_emr_can(
    dev: Stacks, path: tuple[str, ...], value: Any, action: Action
) -> None:
    new = copy.deepcopy(dev)
    place = new["dml-dev-cluster"]["Resources"]["Workbench"]["Properties"]
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    assert actions(report(dev, new)) == {"Workbench": (action, ("/" + "/".join(path),))}


def test_what_stands_on_a_replaced_resource_should_be_replaced_with_it() -> None:
    def made(policy: str) -> Stacks:
        security = ("AWS::EMR::SecurityConfiguration", {"SecurityConfiguration": {"policy": policy}})
        cluster = ("AWS::EMR::Cluster", {"SecurityConfiguration": {"Ref": "Security"}})
        name = ("AWS::SSM::Parameter", {"Name": "/dml/workbench", "Value": {"Ref": "Cluster"}})
        return {"dml-dev-cluster": stack(Security=security, Cluster=cluster, Name=name)}

    assert actions(report(made("a"), made("b"))) == {
        "Security": (Action.REPLACE, ("/SecurityConfiguration",)),
        "Cluster": (Action.REPLACE, ("/SecurityConfiguration (Security is replaced)",)),
    }


def test_what_a_value_decides_should_be_told_as_open() -> None:
    old, new = (
        {"n": stack(Vpc=("AWS::EC2::VPC", {"CidrBlock": "10.0.0.0/16", "InstanceTenancy": tenancy}))}
        for tenancy in ("dedicated", "default")
    )
    assert actions(report(old, new)) == {"Vpc": (Action.MAY_REPLACE, ("/InstanceTenancy",))}


def test_what_goes_should_say_whether_it_is_kept() -> None:
    kept, gone = ({"n": group("x", DeletionPolicy=policy)} for policy in ("Retain", "Delete"))
    empty: Stacks = {"n": {"Resources": {}}}
    assert [(one.action, one.kept, one.means) for one in report(kept, empty).changes] == [(Action.DELETE, True, "")]
    (change,) = report(gone, empty).changes
    assert (change.kept, change.means) == (False, "its log events are not carried over")


def test_a_named_resource_should_not_be_moved_to_a_stack_that_is_deployed_earlier() -> None:
    empty: dict[str, Any] = {"Resources": {}}
    old = {"dml-dev-a": empty, "dml-dev-b": group("/logs")}
    new = {"dml-dev-a": group("/logs"), "dml-dev-b": empty}
    (refused,) = report(old, new, b={"dml-dev-a"}).refused
    assert (refused.stack, refused.delete_first) == ("dml-dev-a", "")
    assert refused.why == "Logs needs the name /logs, which Logs of dml-dev-b has"
    assert report(old, new, a={"dml-dev-b"}).refused == []
    assert report(old, {"dml-dev-a": group("/others"), "dml-dev-b": empty}, b={"dml-dev-a"}).refused == []
    kept = {"dml-dev-a": empty, "dml-dev-b": group("/logs", DeletionPolicy="Retain")}
    (refused,) = report(kept, new, a={"dml-dev-b"}).refused
    assert refused.why.endswith("which is kept when it is taken out")


def test_an_export_should_not_go_while_a_stack_uses_it() -> None:
    def exporting(name: str) -> dict[str, Any]:
        return {"Resources": {}, "Outputs": {"Out": {"Export": {"Name": name}, "Value": "v"}}}

    def using(name: str) -> dict[str, Any]:
        return stack(Parameter=("AWS::SSM::Parameter", {"Type": "String", "Value": {"Fn::ImportValue": name}}))

    old = {"dml-dev-a": exporting("a:x"), "dml-dev-b": using("a:x")}
    new = {"dml-dev-a": exporting("a:y"), "dml-dev-b": using("a:y")}
    (refused,) = report(old, new, b={"dml-dev-a"}).refused
    assert (refused.stack, refused.delete_first) == ("dml-dev-a", "dml-dev-b")
    assert refused.why == "its export a:x goes while dml-dev-b uses it"
    assert report(old, {"dml-dev-b": stack(), "dml-dev-a": exporting("a:y")}, a={"dml-dev-b"}).refused == []
    assert report(old, {"dml-dev-a": exporting("a:x"), "dml-dev-b": stack()}, b={"dml-dev-a"}).refused == []
