"""A change set for each stack, made to hear what CloudFormation says of its template, and never executed.

The one check that writes: a change set, for a stack that there is not yet an empty stack in REVIEW_IN_PROGRESS, and for
a large template an object in the CDK's bucket. Each is taken away at once, also on Ctrl-C; what could not be, is told.
Sources: CloudFormation guide, "Create a change set"; its quotas (51,200 bytes for a template in a request).
"""

import re
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

from dml.doctor.account import Account
from dml.doctor.findings import Check, Finding, Skipped, ok, problem, warning
from dml.terminal.console import say
from dml.terminal.words import counted

BODY_BYTES = 51_200
WAIT_SECONDS, EVERY = 180.0, 1.0
NOTHING_TO_DO = re.compile("didn't contain changes|No updates are to be performed")
IMPORT = re.compile(r'"Fn::ImportValue":"([^"]+)"')


def change_sets(account: Account) -> Finding:
    """Each stack's template, as CloudFormation's own validation sees it with what is deployed."""
    refused: list[str] = []
    waiting: list[str] = []
    left: list[str] = []
    exports = _exports(account)
    try:
        for stack, template in account.needs.templates.items():
            missing = sorted(set(IMPORT.findall(template)) - exports)
            if missing:
                waiting.append(f"{stack} (it imports {missing[0]}, which nothing exports yet)")
            elif why := _asked(account, stack, template, left):
                refused.append(f"{stack}: {why}")
    except BaseException:  # Ctrl-C, too: what is left is told before anything else
        if left:
            say("\n".join(f"Left behind: {one}" for one in left))
        raise
    if left:
        return problem("left behind: " + "; ".join(left), f"Remove it: {left[0].partition('remove it: ')[2]}")
    if refused:
        return problem("; ".join(refused), "The deploy would end so: mend it in stacks/, then again: dml doctor")
    asked = len(account.needs.templates) - len(waiting)
    if not asked:
        raise Skipped(f"no stack can be asked about yet: {'; '.join(waiting)}")
    told = f"CloudFormation takes {counted(asked, 'template')}, nothing was executed"
    if waiting:
        return warning(f"{told}; not asked: {'; '.join(waiting)}", "Ask again after the first deploy: dml doctor")
    return ok(told)


def _asked(account: Account, stack: str, template: str, left: list[str]) -> str:
    """Why a stack's change set cannot be made, "" if it can; it is gone afterwards, or `left` says what is not."""
    cloudformation, name = account.client("cloudformation"), f"dml-doctor-{uuid.uuid4().hex[:8]}"
    standing = account.stacks.get(stack)
    kind = "CREATE" if standing in (None, "REVIEW_IN_PROGRESS") else "UPDATE"
    with _body(account, stack, template, left) as body:
        try:
            cloudformation.create_change_set(
                StackName=stack,
                ChangeSetName=name,
                ChangeSetType=kind,
                Capabilities=["CAPABILITY_IAM", "CAPABILITY_NAMED_IAM"],
                **body,
            )
            return _verdict(cloudformation, stack, name)
        except ClientError as error:
            if error.response["Error"].get("Code") != "ValidationError":
                raise
            return str(error.response["Error"].get("Message"))
        finally:
            _delete(cloudformation, stack, name, made_stack=standing is None, left=left)


def _verdict(cloudformation: Any, stack: str, name: str) -> str:
    deadline = time.monotonic() + WAIT_SECONDS
    while True:
        told = cloudformation.describe_change_set(StackName=stack, ChangeSetName=name)
        if told["Status"] == "FAILED":
            reason = str(told.get("StatusReason", "no reason"))
            return "" if NOTHING_TO_DO.search(reason) else reason
        if told["Status"] == "CREATE_COMPLETE":
            return ""
        if time.monotonic() > deadline:
            return f"its change set is still {told['Status']} after {WAIT_SECONDS:.0f} s"
        time.sleep(EVERY)


def _delete(cloudformation: Any, stack: str, name: str, *, made_stack: bool, left: list[str]) -> None:
    """The change set, and the empty stack that came with it; nothing that anybody has deployed meanwhile."""
    remove = f"aws cloudformation delete-change-set --stack-name {stack} --change-set-name {name}"
    try:
        cloudformation.delete_change_set(StackName=stack, ChangeSetName=name)
        if made_stack:
            remove = f"aws cloudformation delete-stack --stack-name {stack}"
            (found,) = cloudformation.describe_stacks(StackName=stack)["Stacks"]
            if found["StackStatus"] == "REVIEW_IN_PROGRESS":
                cloudformation.delete_stack(StackName=stack)
    except (ClientError, BotoCoreError) as error:
        if "does not exist" not in str(error):  # it was never made
            what = f"the empty stack {stack} (REVIEW_IN_PROGRESS)" if made_stack else f"a change set of {stack}"
            left.append(f"{what} ({error}), remove it: {remove}")


@contextmanager
def _body(account: Account, stack: str, template: str, left: list[str]) -> Iterator[dict[str, str]]:
    """The template as CreateChangeSet takes it; a large one lies in the CDK's bucket for as long."""
    if len(template.encode()) <= BODY_BYTES:
        yield {"TemplateBody": template}
        return
    qualifier = account.needs.bootstrap_parameter.split("/")[2]
    bucket = f"cdk-{qualifier}-assets-{account.identity['Account']}-{account.platform.region}"
    key, s3 = f"dml-doctor/{uuid.uuid4()}.json", account.client("s3")
    put = s3.put_object(Bucket=bucket, Key=key, Body=template.encode())
    try:
        url = account.platform.endpoint or f"https://s3.{account.platform.region}.amazonaws.com"
        yield {"TemplateURL": f"{url}/{bucket}/{key}"}
    finally:
        version = {"VersionId": put["VersionId"]} if "VersionId" in put else {}
        try:
            s3.delete_object(Bucket=bucket, Key=key, **version)
        except (ClientError, BotoCoreError) as error:
            left.append(f"the template of {stack} ({error}), remove it: aws s3 rm s3://{bucket}/{key}")


def _exports(account: Account) -> set[str]:
    pages = account.client("cloudformation").get_paginator("list_exports").paginate()
    return {one["Name"] for page in pages for one in page["Exports"]}


CHECK: Check[Account] = Check(
    "change sets", change_sets, "npx cdk deploy --all --method=prepare-change-set --no-execute"
)
