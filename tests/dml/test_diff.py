"""What an update would replace, before it does."""

import copy
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from dml import cdk
from dml.errors import UserError
from dml.estate.diff import Action, Report, compare, show, synthesized
from dml.estate.platform import Platform
from tests.upgrade import previous

HERE = {"AWS_ENDPOINT_URL": "http://127.0.0.1:1", "AWS_DEFAULT_REGION": "us-east-1"}
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


def shown(found: Report) -> str:
    printed = io.StringIO()
    show(Console(file=printed, width=200), found, Platform("dev", credentials=HERE).command)
    return printed.getvalue()


def test_nothing_should_be_told_of_templates_that_are_the_same(dev: Stacks) -> None:
    assert report(dev, copy.deepcopy(dev)) == Report("dev", [], [])


def test_a_new_release_should_replace_the_workbench_and_say_what_that_means(dev: Stacks) -> None:
    new = copy.deepcopy(dev)
    resources = new["dml-dev-cluster"]["Resources"]
    resources["Workbench"]["Properties"]["ReleaseLabel"] = "emr-8.0.0"
    found = report(dev, new)
    assert actions(found) == {"Workbench": (Action.REPLACE, ("/ReleaseLabel",))}
    assert "dev: 1 to replace" in shown(found)
    assert "notes are kept in S3; steps that run are lost" in shown(found)


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


def test_a_stack_that_this_checkout_has_not_should_stay_and_name_the_command_that_takes_it_away() -> None:
    """Of a dataset whose folder was deleted, and of a release in which all datasets were in one stack."""
    new = {"dml-dev-data": group("/data")}
    found = report({**new, "dml-dev-old-taxis": group("/taxis"), "dml-dev-pipeline": group("/pipeline")}, new)
    assert (found.left, found.changes, found.refused) == (["dml-dev-old-taxis", "dml-dev-pipeline"], [], [])
    told = shown(found)
    assert "dml-dev-old-taxis is of a dataset that this checkout has not: it stays until " in told
    assert "`dml dataset remove old_taxis --local`" in told
    assert "dml-dev-pipeline is of a former release: `dml resume --local` takes it away and deploys." in told
    assert "dev is what this checkout says: nothing would change." in told


def test_what_a_stack_that_is_gone_still_holds_should_be_refused_with_that_stack_in_the_way() -> None:
    exporting = {"Resources": {}, "Outputs": {"Out": {"Export": {"Name": "a:x"}, "Value": "v"}}}
    using = stack(Parameter=("AWS::SSM::Parameter", {"Type": "String", "Value": {"Fn::ImportValue": "a:x"}}))
    old = {"dml-dev-a": exporting, "dml-dev-taxis": using}
    (refused,) = report(old, {"dml-dev-a": {"Resources": {}}}, a=set()).refused
    assert (refused.stack, refused.delete_first) == ("dml-dev-a", "dml-dev-taxis")
    assert "deploying makes it again" not in refused.way_out
    (refused,) = report({"dml-dev-taxis": group("/logs")}, {"dml-dev-cars": group("/logs")}, cars=set()).refused
    assert (refused.stack, refused.delete_first) == ("dml-dev-cars", "dml-dev-taxis")
    assert "refused dml-dev-cars: Logs needs the name /logs, which Logs of dml-dev-taxis has" in shown(
        report({"dml-dev-taxis": group("/logs")}, {"dml-dev-cars": group("/logs")}, cars=set())
    )


def test_a_checkout_that_does_not_synthesise_should_say_all_of_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def refuses(message: str, said: str) -> Callable[..., None]:
        def synthesize(_environment: str, _folder: Path) -> None:
            raise cdk.SynthError(message, said)

        return synthesize

    for message, said, told in (
        ("label is missing", "two things:\nlabel is missing\n", "two things:\nlabel is missing"),
        ("no templates of dev after 300 s: looking for a home", "looking for a home\n", "no templates of dev after"),
    ):
        monkeypatch.setattr(cdk, "synthesize", refuses(message, said))
        with pytest.raises(UserError, match=f"This checkout does not synthesize: {told}"):
            synthesized("dev", tmp_path)
