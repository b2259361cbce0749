"""The real CDK CLI deploys to the embedded cloud, and its errors reach the operator."""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dml import cdk, checkout
from dml.cdk import error_line
from dml.errors import UserError
from dml.local.cloud import Cloud
from dml.local.deploy import Commands, deploy_assembly
from dml.local.place import ACCOUNT, REGION
from tests.embedded import Clients, own_cloud


def assembly(folder: Path, resources: dict[str, Any]) -> Path:
    """A synthesised app of one stack."""
    folder.mkdir(exist_ok=True)
    (folder / "one.template.json").write_text(json.dumps({"Resources": resources}))
    properties = {"templateFile": "one.template.json", "stackName": "by-cli"}
    stack = {
        "type": "aws:cloudformation:stack",
        "environment": "aws://unknown-account/unknown-region",
        "properties": properties,
    }
    (folder / "manifest.json").write_text(json.dumps({"version": "48.0.0", "artifacts": {"one": stack}}))
    return folder


def test_an_app_should_be_deployed_once_and_a_failure_be_told_in_the_clis_words(
    cloud: Cloud, aws: Clients, tmp_path: Path
) -> None:
    bucket = {"Type": "AWS::S3::Bucket"}
    app = assembly(tmp_path / "app", {"Bucket": bucket})
    progress: list[str] = []
    assert deploy_assembly(cloud, app, on_progress=progress.append) == "1 stack"
    assert progress[-1] == "one"
    assert deploy_assembly(cloud, app, on_progress=progress.append) == "1 stack, unchanged"
    rule = {"Type": "AWS::EC2::SecurityGroupIngress", "Properties": {"GroupId": "sg-none", "IpProtocol": "tcp"}}
    assembly(app, {"Bucket": bucket, "Rule": rule})
    with pytest.raises(
        UserError, match=r"cdk deploy failed: .*security group 'sg-none' does not exist.*\(log: .*\.log\)"
    ):
        deploy_assembly(cloud, app, on_progress=progress.append)
    aws("cloudformation").delete_stack(StackName="by-cli")
    aws("cloudformation").get_waiter("stack_delete_complete").wait(StackName="by-cli", WaiterConfig={"Delay": 1})
    assembly(app, {"Bucket": bucket})
    assert deploy_assembly(cloud, app, on_progress=progress.append) == "1 stack", "it was deleted meanwhile"


def test_a_bootstrap_that_failed_should_be_told_with_its_reason_and_be_done_again(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    with own_cloud(tmp_path_factory, "bootstrap") as cloud:
        bucket = f"cdk-hnb659fds-assets-{ACCOUNT}-{REGION}"
        Clients(cloud)("s3").create_bucket(Bucket=bucket)  # as it stays where somebody deleted the CDK's stack
        commands = Commands(cloud, lambda _text: None)
        with pytest.raises(UserError, match=rf"cdk bootstrap failed: .*identifier '{bucket}' already exists"):
            commands.bootstrap()
        Clients(cloud)("s3").delete_bucket(Bucket=bucket)
        commands.bootstrap()
        commands.bootstrap()
        stacks = Clients(cloud)("cloudformation").describe_stacks()["Stacks"]
        assert [(one["StackName"], one["StackStatus"]) for one in stacks] == [("CDKToolkit", "CREATE_COMPLETE")]


def test_a_checkout_should_be_synthesised_once_until_it_changes(
    cloud: Cloud, assembly_of: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    made = assembly_of("dev")
    manifest = (made / "manifest.json").stat().st_mtime_ns
    synthesised: list[str] = []
    said: list[str] = []
    monkeypatch.setattr(cdk, "synthesize", lambda environment, _folder, dataset: synthesised.append(environment))
    assert Commands(cloud, said.append).assembly("dev") == made
    assert (synthesised, said) == ([], [])
    assert (made / "manifest.json").stat().st_mtime_ns == manifest

    monkeypatch.setattr(checkout, "state", lambda _project: "changed")

    def fails(_environment: str, _folder: Path, dataset: str) -> None:
        raise UserError("it does not synthesise")

    note = (made / "dml-checkout").read_text()
    monkeypatch.setattr(cdk, "synthesize", fails)
    try:
        for _ in range(2):
            with pytest.raises(UserError):
                Commands(cloud, said.append).assembly("dev")
        assert said == ["synthesising the templates"] * 2, "what failed is not taken for what is there"
    finally:
        (made / "dml-checkout").write_text(note)


def test_the_clis_last_error_should_be_told_with_the_lines_that_belong_to_it() -> None:
    output = [
        "one: deploying...",
        "❌  one failed",
        "‣ DeploymentError: updates failed:",
        "  Rule: no such group",
        "",
        "bye",
    ]
    assert error_line(output) == "DeploymentError: updates failed: Rule: no such group"
    assert error_line(["No app found", ""]) == "No app found"
    app = ["datasets/d/dataset.toml: training.deep is not a setting", "python3 app.py: Subprocess exited with error 1"]
    assert error_line(app) == app[0]
    assert error_line([]) == "it printed nothing"


def test_jsii_should_unpack_where_it_can_write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(cdk.JSII_CACHE, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cdk.jsii_cache() == {cdk.JSII_CACHE: str(tmp_path / ".cache" / "aws" / "jsii" / "package-cache")}
    (tmp_path / "file").touch()
    monkeypatch.setenv("HOME", str(tmp_path / "file"))
    assert cdk.jsii_cache() == {cdk.JSII_CACHE: str(cdk.HOME / "jsii")}
    monkeypatch.setenv(cdk.JSII_CACHE, "/elsewhere")
    assert cdk.jsii_cache() == {cdk.JSII_CACHE: "/elsewhere"}


def test_the_cdk_should_have_a_home_that_it_can_write_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(cdk.JSII_CACHE, raising=False)
    monkeypatch.setattr(cdk, "HOME", tmp_path / "of dml")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert set(cdk.caches()) == {cdk.JSII_CACHE}
    (tmp_path / "file").touch()
    for home in (str(tmp_path / "file"), "/proc" if sys.platform == "linux" else "/dev/null"):
        monkeypatch.setenv("HOME", home)
        made = cdk.caches()
        assert made == {cdk.JSII_CACHE: str(tmp_path / "of dml" / "jsii"), "HOME": str(tmp_path / "of dml" / "home")}
        assert Path(made["HOME"]).is_dir()


def test_an_app_that_does_not_end_should_be_told_with_its_last_word(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "cdk.json").write_text('{"app": "python3 app.py", "context": {}}')
    (tmp_path / "app.py").write_text(
        "import sys, threading\nprint('looking for a home', file=sys.stderr, flush=True)\nthreading.Event().wait()\n"
    )
    monkeypatch.setattr(cdk, "SYNTH_SECONDS", 3)
    with pytest.raises(cdk.SynthError, match="no templates of dev after 3 s: looking for a home") as raised:
        cdk.synthesize("dev", tmp_path / "out", project=tmp_path)
    assert raised.value.said == "looking for a home\n"
