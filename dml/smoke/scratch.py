"""The scratch stack of `dml smoke`: a bucket, a role, a state machine of the pipeline's own states; operator time."""

import json
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

from dml.errors import UserError
from dml.estate.platform import Platform, answering
from dml.estate.teardown import empty
from stacks.arguments import onward, reached
from stacks.definition import END, Parts, definition

BUCKET = "SCRATCH-BUCKET"  # in the definition, until the bucket has its name
DATASET = "smoke"
POINTER = f"{DATASET}/CURRENT.json"
BEGIN, CHOOSE, BLIND = "begin: as if trained", "begin: blindly?", "blind: write whatever is there"
FIGURES = "publish: send the figures"  # to CloudWatch, which would bill them for a month
TOLD = "notify: the failure"  # by a topic that there is not
KEPT = ("publish:", "clean up:", "end:", "notify: how", "failed")  # states as they are; others are only arrived at
WAIT_SECONDS = 300.0


@contextmanager
def scratch(platform: Platform, *, every: float, say: Callable[[str], None]) -> Iterator[dict[str, str]]:
    """A stack of its own, by whose outputs (Bucket, Machine) it is used; it is gone in the end, whatever happens.

    Raises UserError if it cannot be made, or not be taken away: then with what is left, and how to remove it.
    """
    cloudformation = platform.client("cloudformation")
    name = f"{platform.prefix}smoke-{uuid.uuid4().hex[:8]}"
    say(f"making the stack {name}")
    try:
        with answering(f"make the stack {name}"):
            cloudformation.create_stack(
                StackName=name,
                TemplateBody=json.dumps(template(platform.environment)),
                Capabilities=["CAPABILITY_IAM"],
                OnFailure="DO_NOTHING",
                Tags=[{"Key": "project", "Value": "dml"}, {"Key": "environment", "Value": platform.environment}],
            )
        with answering(f"follow the stack {name}"):
            stack = _settled(cloudformation, name, every)
            if stack["StackStatus"] != "CREATE_COMPLETE":
                raise UserError(f"The stack {name} was not made: {_reason(cloudformation, name)}")
        yield {output["OutputKey"]: output["OutputValue"] for output in stack["Outputs"]}
    finally:
        say(f"taking the stack {name} away")
        _remove(platform, name, every)


def template(environment: str) -> dict[str, Any]:
    """The stack's template. The bucket refuses a write of the pointer that names no state, as the models' does."""
    objects = {"Fn::Sub": "${Bucket.Arn}/*"}
    blind = {
        "Sid": "MoveCurrentModelOnlyKnowingTheFormer",
        "Effect": "Deny",
        "Principal": "*",
        "Action": "s3:PutObject",
        "Resource": {"Fn::Sub": "${Bucket.Arn}/*/CURRENT.json"},
        "Condition": {"Null": {"s3:if-match": "true", "s3:if-none-match": "true"}},
    }
    trust = {"Effect": "Allow", "Principal": {"Service": "states.amazonaws.com"}, "Action": "sts:AssumeRole"}
    rights = [
        {"Effect": "Allow", "Action": ["s3:GetObject", "s3:PutObject"], "Resource": objects},
        {"Effect": "Allow", "Action": "s3:ListBucket", "Resource": {"Fn::GetAtt": ["Bucket", "Arn"]}},
        {"Effect": "Allow", "Action": "states:SendTaskFailure", "Resource": "*"},
    ]
    closed = ("BlockPublicAcls", "BlockPublicPolicy", "IgnorePublicAcls", "RestrictPublicBuckets")
    first, *rest = json.dumps(machine(environment)).split(BUCKET)
    text = [first, *(part for after in rest for part in ({"Ref": "Bucket"}, after))]
    return {
        "Description": "dml smoke: made and taken away by the command itself",
        "Resources": {
            "Bucket": {
                "Type": "AWS::S3::Bucket",
                "Properties": {"PublicAccessBlockConfiguration": dict.fromkeys(closed, True)},
            },
            "BucketPolicy": {
                "Type": "AWS::S3::BucketPolicy",
                "Properties": {"Bucket": {"Ref": "Bucket"}, "PolicyDocument": _document([blind])},
            },
            "Role": {
                "Type": "AWS::IAM::Role",
                "Properties": {
                    "AssumeRolePolicyDocument": _document([trust]),
                    "Policies": [{"PolicyName": "smoke", "PolicyDocument": _document(rights)}],
                },
            },
            "Machine": {
                "Type": "AWS::StepFunctions::StateMachine",
                "DependsOn": "BucketPolicy",
                "Properties": {
                    "RoleArn": {"Fn::GetAtt": ["Role", "Arn"]},
                    "DefinitionString": {"Fn::Join": ["", text]},
                },
            },
        },
        "Outputs": {"Bucket": {"Value": {"Ref": "Bucket"}}, "Machine": {"Value": {"Ref": "Machine"}}},
    }


def machine(environment: str) -> dict[str, Any]:
    """The pipeline's definition from the publishing on, to its failing and its being redriven.

    Input: `current`, the ETag that CURRENT.json had before training, "" if there was none; `previous`, what it named;
    `blind`, if CURRENT.json is to be written whatever it is.
    """
    given: dict[str, Any] = dict.fromkeys(Parts.__dataclass_fields__, "none")
    given |= {"environment": environment, "dataset": DATASET, "partition": "aws", "figures": []}
    given |= {"lake_bucket": BUCKET, "models_bucket": BUCKET, "prepare_minutes": 1, "step_minutes": 1}
    given["transient_cluster"] = {
        "Name": "none",
        "Instances": {"InstanceCount": 1},
        "LogUri": "none",
    }  # none is started
    given["certificate_bucket"] = ""
    states = definition(Parts(**given))["States"]
    kept = {name: state for name, state in states.items() if name.startswith(KEPT) and name != FIGURES}
    begin = {
        "Type": "Pass",
        "Assign": {
            **states["begin: read the input"]["Assign"],
            "current": "{% $states.input.current %}",
            "previous": "{% $states.input.previous %}",
            "trained": True,
        },
        "Next": CHOOSE,
    }
    choose = {
        "Type": "Choice",
        "Choices": [{"Condition": "{% $exists($states.input.blind) %}", "Next": BLIND}],
        "Default": "publish: read the figures",
    }
    blind = {
        "Type": "Task",
        "Resource": "arn:aws:states:::aws-sdk:s3:putObject",
        "Arguments": {"Bucket": BUCKET, "Key": POINTER, "Body": {}},
        "End": True,
    }
    arrived = {"Type": "Succeed", "Output": {"at": "{% $states.context.State.Name %}", "published": "{% $published %}"}}
    passed = {FIGURES: states[FIGURES]["Next"], TOLD: END}
    others = {name: {"Type": "Pass", "Next": then} for name, then in passed.items()}
    for name in {then for state in (*kept.values(), *others.values()) for then in onward(state)} - kept.keys():
        others.setdefault(name, arrived)
    every: dict[str, Any] = {BEGIN: begin, CHOOSE: choose, BLIND: blind, **kept, **others}
    there = reached({"StartAt": BEGIN, "States": every})
    return {
        "Comment": "dml smoke",
        "QueryLanguage": "JSONata",
        "StartAt": BEGIN,
        "TimeoutSeconds": 300,
        # Not what only a job's failure leads to: Step Functions refuses a state that nothing leads to.
        "States": {name: state for name, state in every.items() if name in there},
    }


def _document(statements: list[Any]) -> dict[str, Any]:
    return {"Version": "2012-10-17", "Statement": statements}


def _settled(cloudformation: Any, name: str, every: float) -> Any:
    """The stack when its operation has ended."""
    deadline = time.monotonic() + WAIT_SECONDS
    while True:
        (stack,) = cloudformation.describe_stacks(StackName=name)["Stacks"]
        if not stack["StackStatus"].endswith("_IN_PROGRESS"):
            return stack
        if time.monotonic() > deadline:
            raise UserError(f"The stack {name} is still {stack['StackStatus']} after {WAIT_SECONDS:.0f} s")
        time.sleep(every)


def _reason(cloudformation: Any, name: str) -> str:
    events = cloudformation.describe_stack_events(StackName=name)["StackEvents"]
    failed = [one for one in events if one["ResourceStatus"].endswith("FAILED")]
    return str(failed[-1].get("ResourceStatusReason", "no reason")) if failed else "no reason"


def _remove(platform: Platform, name: str, every: float) -> None:
    """Empties the bucket and deletes the stack; UserError with what is left if that fails."""
    cloudformation = platform.client("cloudformation")
    try:
        (stack,) = cloudformation.describe_stacks(StackName=name)["Stacks"]
        _empty(platform, name)
        cloudformation.delete_stack(StackName=name)
        left = _settled_or_gone(cloudformation, stack["StackId"], every)
    except (ClientError, BotoCoreError, UserError) as error:
        left = "" if "does not exist" in str(error) else str(error)  # it was never made
    if left:
        raise UserError(
            f"The stack {name} could not be taken away ({left}). Empty its bucket and remove it: "
            f"aws cloudformation delete-stack --stack-name {name}"
        )


def _empty(platform: Platform, name: str) -> None:
    """Ends what still runs, so that nothing is written any more, and empties the bucket."""
    resources = platform.client("cloudformation").describe_stack_resources(StackName=name)["StackResources"]
    named = {one["LogicalResourceId"]: one.get("PhysicalResourceId") for one in resources}
    if named.get("Machine"):
        states = platform.client("stepfunctions")
        for run in states.list_executions(stateMachineArn=named["Machine"], statusFilter="RUNNING")["executions"]:
            states.stop_execution(executionArn=run["executionArn"])
    if named.get("Bucket"):
        empty(platform, named["Bucket"], say=lambda _text: None)


def _settled_or_gone(cloudformation: Any, stack_id: str, every: float) -> str:
    """Why a deleted stack is still there; "" if it is gone."""
    stack = _settled(cloudformation, stack_id, every)
    if stack["StackStatus"] == "DELETE_COMPLETE":
        return ""
    return f"{stack['StackStatus']}: {_reason(cloudformation, stack_id)}"
