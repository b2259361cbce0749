"""`dml pause` and `dml destroy`: takes stacks away in the order that works, and says what became of each resource.

Stacks are deleted by CloudFormation's own DeleteStack rather than by `cdk destroy`, which deletes what this checkout
synthesizes today; what must go is what has been deployed. CloudFormation uses the role that it was deployed with.
"""

import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

from dml.checkout import git_revision
from dml.errors import UserError
from dml.estate import inventory
from dml.estate.existence import asked, stands, unless_gone
from dml.estate.inventory import ALIVE, BUCKET, Contents, Stack, Work
from dml.estate.platform import PAUSED, Platform, answering
from dml.estate.receipt import Receipt, Receipts, size
from dml.terminal.words import counted

ATTEMPTS = 5  # to delete a stack: EMR pushes logs, and EC2 lets go of network interfaces, minutes after a cluster's end
PATIENCE = 30 * 60.0  # seconds for a job, a cluster or a stack to end; AWS takes 20 minutes for none of them
Say = Callable[[str], None]


# --- What there is ---


def plan(platform: Platform, receipts: Receipts, *, say: Say) -> Receipt | None:
    """What `destroy` would delete and what not, with an interrupted destruction's resources among it.

    None if nothing of the environment is deployed, and nothing was left half done.
    """
    identity = _identity(platform)
    say("reading the stacks")
    standing = inventory.stacks(platform)
    receipt = Receipt(
        environment=platform.environment,
        endpoint=platform.endpoint or "AWS",
        account=identity["Account"],
        region=platform.s3.meta.region_name,
        revision=git_revision(),
        started=f"{datetime.now(UTC):%Y%m%dT%H%M%SZ}",
        stacks=standing,
    )
    former = receipts.unfinished(receipt)
    if not standing and former is None:
        return None
    receipt.work = inventory.work(platform, standing)
    for bucket in (one for stack in standing for one in stack.ids(BUCKET)):
        say(f"counting what is in {bucket}")
        receipt.buckets[bucket] = inventory.contents(platform, bucket)
    receipt.elsewhere = [*inventory.elsewhere(platform, standing), *inventory.strays(platform, standing)]
    return _continued(former, receipt) if former else receipt


def _continued(former: Receipt, now: Receipt) -> Receipt:
    """The former receipt's inventory with what stands now, so that what was deleted already stays accounted for."""
    now.started = former.started
    now.revoked = former.revoked
    now.buckets = former.buckets | {name: one for name, one in now.buckets.items() if name not in former.buckets}
    ids = {one.id for one in now.elsewhere}
    now.elsewhere += [one for one in former.elsewhere if one.id not in ids]
    standing = {stack.id: stack for stack in now.stacks}
    for stack in former.stacks:
        if stack.id not in standing:
            now.stacks.append(stack)
            continue
        known = {one.logical_id for one in standing[stack.id].resources}
        standing[stack.id].resources += [one for one in stack.resources if one.logical_id not in known]
    return now


def _identity(platform: Platform) -> dict[str, str]:
    with answering("ask whose credentials these are"):
        identity: dict[str, str] = platform.client("sts").get_caller_identity()
    return identity


# --- Pause ---


def pausing(platform: Platform, *, stop_runs: bool) -> tuple[list[Stack], Work]:
    """The stacks that `pause` would delete, [] if they are gone already, and what is running.

    Raises UserError if nothing is deployed, or a run is executing (unless `stop_runs`).
    """
    standing = inventory.stacks(platform)
    if not standing:
        raise UserError(f"Nothing of {platform.environment} is deployed here, so there is nothing to pause.")
    under_way = inventory.work(platform, standing)
    if under_way.executions and not stop_runs:
        names = ", ".join(arn.rpartition(":")[2] for arn in under_way.executions)
        raise UserError(
            f"{platform.environment} is not paused, since it is at work: {names}. "
            f"Wait, or stop what runs as well: {platform.command('pause --stop-runs')}"
        )
    return [stack for stack in standing if stack.part in PAUSED], under_way


def pause_text(platform: Platform, going: Sequence[Stack], under_way: Work) -> list[str]:
    """What `pause` is about to do, in sentences."""
    return [
        f"Pausing {platform.environment} deletes {', '.join(stack.name for stack in going)}.",
        *(
            f"It ends the cluster {cluster.name} ({cluster.id}, {cluster.state.lower()}), with what is on its disks."
            for cluster in under_way.clusters
        ),
        *(f"It stops {arn.rpartition(':')[2]}." for arn in under_way.executions),
        "Data, catalog, models and notes stay: Zeppelin saves every note to the workspace bucket at once.",
        "Schedules stay too: until it is back, what they start ends at once and costs nothing.",
    ]


def pause(platform: Platform, going: Sequence[Stack], under_way: Work, *, say: Say, every: float) -> None:
    """Stops what runs and deletes these stacks, looking every `every` seconds; UserError if one of them stays."""
    receipt = Receipt(platform.environment, "", "", "", "", "", stacks=[*going])
    taking = Taking(platform, receipt, say=say, every=every)
    taking.stop(under_way)
    for stack in going:
        taking.delete(stack)
    if receipt.problems:
        raise UserError("\n".join([f"{platform.environment} is not paused.", *receipt.problems]))


def still_costs(platform: Platform, *, say: Say) -> list[str]:
    """What of a paused environment is still billed, in words: the stored bytes, and what bills by standing."""
    standing = inventory.stacks(platform)
    stored = Contents()
    for bucket in (one for stack in standing for one in stack.ids(BUCKET)):
        say(f"counting what is in {bucket}")
        stored.bytes += inventory.contents(platform, bucket).bytes
    lines = [f"S3 storage of {size(stored.bytes)}"]
    for kind, name in BILLED.items():
        if found := sum(len(stack.ids(kind)) for stack in standing):
            lines.append(counted(found, name))
    return lines


# What bills by standing, among what stays; requests and log storage bill by use.
BILLED = {
    "AWS::CloudWatch::Alarm": "CloudWatch alarm",
    "AWS::CloudWatch::Dashboard": "CloudWatch dashboard",
    "AWS::KMS::Key": "KMS key",
    "AWS::SecretsManager::Secret": "secret",
}


# --- Destroy ---


def destroy(platform: Platform, receipt: Receipt, receipts: Receipts, *, say: Say, every: float) -> Path:
    """Deletes all that is not to be kept, verifies it, and returns the receipt's path.

    What could not be deleted the receipt has as failed, with the reason and what to do. Raises UserError if something
    that runs cannot be stopped. That or an interruption leaves the receipt unfinished; the next call goes on with it.
    """
    say("asking the services what stands")
    for one in receipt.resources:
        one.seen = one.seen or bool(stands(platform, one.type, one.id, account=receipt.account))
    path = receipts.write(receipt)
    taking = Taking(platform, receipt, say=say, every=every)
    taking.stop(receipt.work)
    for stack in receipt.stacks:
        if stack.protected:
            continue
        taking.delete(stack)
        receipts.write(receipt)
    if not receipt.problems:  # else those who write them may still be there
        taking.delete_own_logs()
    say("asking what is left")
    for stack in receipt.stacks:
        _verify(platform, receipt, stack, every=every)
    receipt.finished = f"{datetime.now(UTC):%Y%m%dT%H%M%SZ}"
    receipts.write(receipt)
    return path


class Taking:
    """Takes stacks away, with what stands in their way; what does not work is a problem of the receipt."""

    def __init__(self, platform: Platform, receipt: Receipt, *, say: Say, every: float) -> None:
        self._platform = platform
        self._cloudformation = platform.client("cloudformation")
        self._say = say
        self._every = every
        self.receipt = receipt

    def stop(self, under_way: Work) -> None:
        """Stops executions first, since they would start the rest again; then what they had started."""
        states, glue, emr = (self._platform.client(name) for name in ("stepfunctions", "glue", "emr"))
        cause = f"dml takes {self._platform.environment} away"
        with answering("stop what runs"):
            for arn in under_way.executions:
                self._say(f"stopping {arn.rpartition(':')[2]}")
                with unless_gone():
                    states.stop_execution(executionArn=arn, error="Stopped", cause=cause)
            for job, run in under_way.job_runs:
                self._say(f"stopping a run of {job}")
                glue.batch_stop_job_run(JobName=job, JobRunIds=[run])
                self._until(partial(_has_ended, glue, job, run), f"the run {run} of {job} to stop")
            for crawler in under_way.crawlers:
                self._say(f"stopping {crawler}")
                with unless_gone():
                    # Those that end by themselves are waited for too.
                    with suppress(glue.exceptions.CrawlerNotRunningException, glue.exceptions.CrawlerStoppingException):
                        glue.stop_crawler(Name=crawler)
                    self._until(partial(_is_ready, glue, crawler), f"the crawler {crawler} to stop")
            for cluster in under_way.clusters:
                if not cluster.stack:
                    self._end_cluster(emr, cluster.id)

    def _end_cluster(self, emr: Any, cluster: str) -> None:
        self._say(f"ending the cluster {cluster}")
        emr.terminate_job_flows(JobFlowIds=[cluster])
        self._until(
            lambda: emr.describe_cluster(ClusterId=cluster)["Cluster"]["Status"]["State"] not in ALIVE,
            f"the cluster {cluster} to end",
        )

    def delete(self, stack: Stack) -> None:
        """Deletes a stack, again with what was in its way removed; a problem if it still stands then."""
        for attempt in range(1, ATTEMPTS + 1):
            try:
                if self._status(stack) == "DELETE_COMPLETE":
                    return
                self._clear_the_way(stack)
                self._say(f"deleting {stack.name}" + (f", attempt {attempt}" if attempt > 1 else ""))
                self._cloudformation.delete_stack(StackName=stack.id)
                self._until(lambda: self._status(stack) in ("DELETE_COMPLETE", "DELETE_FAILED"), f"{stack.name} to go")
                if self._status(stack) == "DELETE_COMPLETE":
                    return
                reason = "; ".join(
                    f"{event['LogicalResourceId']}: {event.get('ResourceStatusReason', '')}"
                    for event in last_events(self._platform, stack).values()
                    if event["ResourceStatus"] == "DELETE_FAILED" and event["LogicalResourceId"] != stack.name
                ) or self._described(stack).get("StackStatusReason", "CloudFormation gives no reason")
            except BotoCoreError as error:
                reason = str(error)
            except (ClientError, UserError) as error:
                reason = str(error)
                break  # refused, such as an export that another stack uses: trying again changes nothing
            if attempt < ATTEMPTS:
                time.sleep(self._every * 4 ** (attempt - 1))  # on AWS up to five minutes
        self.receipt.problems.append(
            f"{stack.name} was not deleted: {reason}. Mend that, then run the same command again."
        )

    def _clear_the_way(self, stack: Stack) -> None:
        """Ends what uses the stack's resources, and empties its buckets, as late as can be: logs keep coming in.

        Raises UserError rather than empty a bucket of a stack that CloudFormation would not delete.
        """
        # A run that was stopped meanwhile may still have started one.
        if stack.part in ("workbench", "cluster", "network"):
            for cluster in inventory.work(self._platform, self.receipt.stacks).clusters:
                if not cluster.stack:
                    self._end_cluster(self._platform.client("emr"), cluster.id)
        self._revoke(stack)
        buckets = stack.ids(BUCKET, kept=False)
        if buckets and self.receipt.problems:
            raise UserError("another one still stands, and buckets are emptied last")
        if buckets and (user := self._importer(stack)):
            raise UserError(user)
        for bucket in buckets:
            with unless_gone():
                empty(self._platform, bucket, say=self._say)

    def _importer(self, stack: Stack) -> str:
        """Which stack uses an export of this one, in CloudFormation's words; "" if none does."""
        outputs = self._described(stack).get("Outputs", [])
        for name in (output["ExportName"] for output in outputs if "ExportName" in output):
            try:
                users = self._cloudformation.list_imports(ExportName=name)["Imports"]
            except ClientError as error:
                if "not imported" not in str(error):
                    raise
            else:
                return f"Export {name} is imported by stack {', '.join(users)}"
        return ""

    def _revoke(self, stack: Stack) -> None:
        """Revokes the rules by which the stack's security groups name each other that CloudFormation has not made.

        EMR adds the rules that it misses, and groups that name each other cannot be deleted (DependencyViolation).
        """
        groups = stack.ids("AWS::EC2::SecurityGroup")
        made = {*stack.ids("AWS::EC2::SecurityGroupIngress"), *stack.ids("AWS::EC2::SecurityGroupEgress")}
        if not groups:
            return
        ec2 = self._platform.client("ec2")
        filters = [{"Name": "group-id", "Values": groups}]
        for page in ec2.get_paginator("describe_security_group_rules").paginate(Filters=filters):
            for rule in page["SecurityGroupRules"]:
                if rule["SecurityGroupRuleId"] in made or "ReferencedGroupInfo" not in rule:
                    continue
                revoke = ec2.revoke_security_group_egress if rule["IsEgress"] else ec2.revoke_security_group_ingress
                revoke(GroupId=rule["GroupId"], SecurityGroupRuleIds=[rule["SecurityGroupRuleId"]])
                said = (
                    f"{rule['SecurityGroupRuleId']}: {rule['IpProtocol']} {rule['FromPort']}-{rule['ToPort']} between "
                    f"{rule['GroupId']} and {rule['ReferencedGroupInfo']['GroupId']}"
                )
                self._say(f"revoking {said}")
                self.receipt.revoked.append(said)

    def delete_own_logs(self) -> None:
        """Log groups that only our functions and jobs wrote to, which are in no stack."""
        logs = self._platform.client("logs")
        for one in self.receipt.elsewhere:
            if one.outcome:
                continue
            try:
                with unless_gone():
                    logs.delete_log_group(logGroupName=one.id)
                one.outcome = "deleted"
            except ClientError as error:
                one.outcome = "failed"
                one.because = str(error)

    def _status(self, stack: Stack) -> str:
        status: str = self._described(stack)["StackStatus"]
        return status

    def _described(self, stack: Stack) -> dict[str, Any]:
        (found,) = self._cloudformation.describe_stacks(StackName=stack.id)["Stacks"]
        return dict(found)

    def _until(self, condition: Callable[[], bool], what: str) -> None:
        deadline = time.monotonic() + PATIENCE
        while not condition():
            if time.monotonic() > deadline:
                raise UserError(
                    f"Gave up waiting for {what} after {PATIENCE / 60:.0f} minutes. Look at it, then run this again."
                )
            time.sleep(self._every)


def _has_ended(glue: Any, job: str, run: str) -> bool:
    return glue.get_job_run(JobName=job, RunId=run)["JobRun"]["JobRunState"] not in inventory.UNDER_WAY


def _is_ready(glue: Any, crawler: str) -> bool:
    return bool(glue.get_crawler(Name=crawler)["Crawler"]["State"] == "READY")


def empty(platform: Platform, bucket: str, *, prefix: str = "", say: Say) -> None:
    """Deletes all versions, delete markers and unfinished uploads of a bucket, or of what lies below a prefix.

    Raises UserError if S3 keeps one of them.
    """
    s3, gone = platform.s3, 0
    for page in s3.get_paginator("list_object_versions").paginate(Bucket=bucket, Prefix=prefix):
        found = [*page.get("Versions", []), *page.get("DeleteMarkers", [])]
        if not found:
            continue
        keys = [{"Key": version["Key"], "VersionId": version["VersionId"]} for version in found]
        answer = s3.delete_objects(Bucket=bucket, Delete={"Objects": keys, "Quiet": True})
        if errors := answer.get("Errors"):
            raise UserError(f"s3://{bucket}/{errors[0]['Key']} could not be deleted: {errors[0].get('Message')}")
        gone += len(keys)
        say(f"emptying {bucket}/{prefix}: {gone:,} versions deleted")
    for page in s3.get_paginator("list_multipart_uploads").paginate(Bucket=bucket, Prefix=prefix):
        for upload in page.get("Uploads", []):
            with unless_gone():
                s3.abort_multipart_upload(Bucket=bucket, Key=upload["Key"], UploadId=upload["UploadId"])


def last_events(platform: Platform, stack: Stack) -> dict[str, dict[str, Any]]:
    """The newest event of each resource of a stack, which CloudFormation tells for 90 days after its deletion."""
    pages = platform.client("cloudformation").get_paginator("describe_stack_events").paginate(StackName=stack.id)
    newest: dict[str, dict[str, Any]] = {}
    for page in pages:
        for event in page["StackEvents"]:  # the newest first
            newest.setdefault(event["LogicalResourceId"], event)
    return newest


def _verify(platform: Platform, receipt: Receipt, stack: Stack, *, every: float) -> None:
    """Notes of each resource what became of it: by its service's own answer, else by CloudFormation's.

    A service may know a thing for some seconds longer than CloudFormation: then it is asked again, up to ten times.
    """
    with answering(f"read what became of {stack.name}"):
        events = last_events(platform, stack)
    for one in stack.resources:
        event = events.get(one.logical_id, {})
        status, reason = event.get("ResourceStatus", ""), event.get("ResourceStatusReason", "")
        there = stands(platform, one.type, one.id, account=receipt.account) if one.seen else None
        for _ in range(10 if there and status == "DELETE_COMPLETE" else 0):
            time.sleep(every)
            if not (there := stands(platform, one.type, one.id, account=receipt.account)):
                break
        one.told_by = asked(one.type) if there is not None else "CloudFormation"
        if there is None:
            there = status != "DELETE_COMPLETE"
        if not there:
            one.outcome = "deleted"
            one.because = "although it was to be kept: somebody else did" if one.keep else AFTER.get(one.type, "")
        elif one.keep:
            one.outcome, one.because = "kept", one.keep
        else:
            one.outcome = "failed"
            one.because = {
                "DELETE_FAILED": reason,
                "DELETE_COMPLETE": "CloudFormation says that it is deleted, its service that it is not",
            }.get(status, f"its stack {stack.name} was not deleted")


AFTER = {
    "AWS::KMS::Key": "disabled now; KMS deletes it after its waiting period, until which it can be had back",
    "AWS::SecretsManager::Secret": "gone, or in Secrets Manager's waiting period, in which nobody can read it",
}
