"""What an environment consists of: its stacks' resources, what its buckets hold, what runs, what lies elsewhere."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from dml.estate.existence import stands, unless_gone
from dml.estate.platform import Platform, answering
from stacks.outputs import FORMER, SHARED
from stacks.settings import load_environment, tags

ALIVE = ["STARTING", "BOOTSTRAPPING", "RUNNING", "WAITING", "TERMINATING"]  # states of a cluster that has machines
UNDER_WAY = ("STARTING", "RUNNING", "STOPPING", "WAITING")  # states of a job run that has yet to end
BUCKET = "AWS::S3::Bucket"


@dataclass
class Resource:
    """One resource of a stack, and what becomes of it: `outcome` is deleted, kept or failed once that is known."""

    stack: str
    logical_id: str
    type: str
    id: str
    keep: str = ""  # why `dml destroy` leaves it standing; "" if it does not
    seen: bool = False  # whether its service knew it by this id before: only then does its silence later mean anything
    outcome: str = ""
    because: str = ""
    told_by: str = ""


@dataclass
class Stack:
    """A deployed stack. `part` is its name without the environment's prefix."""

    name: str
    id: str
    part: str
    protected: bool
    resources: list[Resource] = field(default_factory=list)

    def ids(self, kind: str, *, kept: bool = True) -> list[str]:
        """The physical ids of its resources of one type; without those that stay if not `kept`."""
        return [one.id for one in self.resources if one.type == kind and (kept or not one.keep)]


@dataclass
class Contents:
    """What a bucket holds. `versions` counts all that emptying deletes, current or not, delete markers too."""

    objects: int = 0
    versions: int = 0
    bytes: int = 0
    uploads: int = 0


@dataclass
class Cluster:
    """A cluster with our tags that has machines; `stack` is "" for one that a run started."""

    id: str
    name: str
    state: str
    stack: str


@dataclass
class Work:
    """What is under way. Executions by ARN, job runs as (job, run id), crawlers by name."""

    executions: list[str] = field(default_factory=list)
    job_runs: list[tuple[str, str]] = field(default_factory=list)
    crawlers: list[str] = field(default_factory=list)
    clusters: list[Cluster] = field(default_factory=list)


@dataclass
class Elsewhere:
    """Something that running the platform leaves outside its stacks, and why `dml destroy` leaves it or not."""

    what: str
    id: str
    because: str
    outcome: str = "kept"


def stacks(platform: Platform) -> list[Stack]:
    """All stacks of the environment with their resources, in the order in which they must go; [] if there is none.

    Found by their names' beginning, not by this checkout's list: a dataset that has gone from it is found too, and
    so are the stacks of older releases.
    """
    cloudformation = platform.client("cloudformation")
    found = []
    with answering("list the stacks"):
        for page in cloudformation.get_paginator("describe_stacks").paginate():
            found += [one for one in page["Stacks"] if one["StackName"].startswith(platform.prefix)]
        made = [_stack(platform, cloudformation, one) for one in found if "ParentId" not in one]
    return sorted(made, key=lambda stack: (_turn(stack.part), stack.part))


def _turn(part: str) -> int:
    """When a stack must go: the workbench first, datasets and what older releases had before what they stand on."""
    if part in FORMER:
        return FORMER.index(part) + 1
    shared = SHARED[::-1]
    return 0 if part == shared[0] else 10 + shared.index(part) if part in shared else len(FORMER) + 1


def _stack(platform: Platform, cloudformation: Any, described: dict[str, Any]) -> Stack:
    name = described["StackName"]
    stack = Stack(
        name=name,
        id=described["StackId"],
        part=name.removeprefix(platform.prefix),
        protected=described.get("EnableTerminationProtection", False),
    )
    template = cloudformation.get_template(StackName=name, TemplateStage="Processed")["TemplateBody"]
    declared = template.get("Resources", {})
    for page in cloudformation.get_paginator("list_stack_resources").paginate(StackName=name):
        for one in page["StackResourceSummaries"]:
            logical_id = one["LogicalResourceId"]
            if one["ResourceStatus"] == "DELETE_COMPLETE" or "PhysicalResourceId" not in one:
                continue
            policy = declared.get(logical_id, {}).get("DeletionPolicy", "Delete")
            keep = (
                f"its stack {name} is protected from deletion (keep_data = true)"
                if stack.protected
                else f"its DeletionPolicy is {policy} (keep_data = true)"
                if policy.startswith("Retain")
                else ""
            )
            stack.resources.append(
                Resource(name, logical_id, one["ResourceType"], one["PhysicalResourceId"], keep=keep)
            )
    return stack


def work(platform: Platform, standing: Sequence[Stack]) -> Work:
    """What is running in the environment at this moment."""
    found = Work()
    states, glue = platform.client("stepfunctions"), platform.client("glue")
    with answering("see what is running"):
        runs = [stack for stack in standing if stack.part not in SHARED]  # those of the shared stacks end clusters
        for machine in _ids(runs, "AWS::StepFunctions::StateMachine"):
            with unless_gone():
                pages = states.get_paginator("list_executions").paginate(
                    stateMachineArn=machine, statusFilter="RUNNING"
                )
                found.executions += [one["executionArn"] for page in pages for one in page["executions"]]
        for job in _ids(standing, "AWS::Glue::Job"):
            with unless_gone():
                runs = glue.get_job_runs(JobName=job)["JobRuns"]  # the newest; one at a time runs (stacks/etl.py)
                found.job_runs += [(job, run["Id"]) for run in runs if run["JobRunState"] in UNDER_WAY]
        for crawler in _ids(standing, "AWS::Glue::Crawler"):
            with unless_gone():
                if glue.get_crawler(Name=crawler)["Crawler"]["State"] != "READY":
                    found.crawlers.append(crawler)
        found.clusters = _clusters(platform, standing)
    return found


def _clusters(platform: Platform, standing: Sequence[Stack]) -> list[Cluster]:
    emr = platform.client("emr")
    owners = {one.id: one.stack for stack in standing for one in stack.resources if one.type == "AWS::EMR::Cluster"}
    ours = tags(load_environment(platform.environment))
    found = []
    for page in emr.get_paginator("list_clusters").paginate(ClusterStates=ALIVE):
        for one in page["Clusters"]:
            described = emr.describe_cluster(ClusterId=one["Id"])["Cluster"]
            worn = {tag["Key"]: tag["Value"] for tag in described.get("Tags", [])}
            if ours.items() <= worn.items():
                state = described["Status"]["State"]
                found.append(Cluster(one["Id"], described["Name"], state, owners.get(one["Id"], "")))
    return found


def contents(platform: Platform, bucket: str, *, prefix: str = "") -> Contents:
    """Counts what is in a bucket, or below a prefix of it: a listing of all versions, 1,000 a call."""
    counted = Contents()
    s3 = platform.s3
    with answering(f"list the bucket {bucket}"), unless_gone():
        for page in s3.get_paginator("list_object_versions").paginate(Bucket=bucket, Prefix=prefix):
            versions = page.get("Versions", [])
            counted.objects += sum(version["IsLatest"] for version in versions)
            counted.bytes += sum(version["Size"] for version in versions)
            counted.versions += len(versions) + len(page.get("DeleteMarkers", []))
        for page in s3.get_paginator("list_multipart_uploads").paginate(Bucket=bucket, Prefix=prefix):
            counted.uploads += len(page.get("Uploads", []))
    return counted


def elsewhere(platform: Platform, standing: Sequence[Stack]) -> list[Elsewhere]:
    """What running the platform may have left outside its stacks, as far as it is there."""
    found: list[Elsewhere] = []
    with answering("look for what lies outside the stacks"):
        logs, events, iam = (platform.client(service) for service in ("logs", "events", "iam"))
        keeps = any(stack.protected for stack in standing)
        for prefix in ("/aws/lambda/", "/aws-glue/"):
            for page in logs.get_paginator("describe_log_groups").paginate(logGroupNamePrefix=prefix):
                for name in (group["logGroupName"] for group in page["logGroups"]):
                    # Named after our function, or our security configuration, whose stack may be gone already.
                    if f"/{platform.prefix}" in name:
                        because = "logs outlive the stacks (keep_data = true)" if keeps else "only ours writes there"
                        outcome = "kept" if keeps else ""
                        found.append(Elsewhere("log group", name, because, outcome=outcome))
                    elif prefix == "/aws-glue/" and "-role/" not in name:
                        because = "Glue makes it once for all jobs and crawlers of the account, others' too"
                        found.append(Elsewhere("log group", name, because))
        for page in events.get_paginator("list_rules").paginate(NamePrefix="StepFunctionsGetEventFor"):
            because = "Step Functions manages it, one for all state machines of the account"
            found += [Elsewhere("EventBridge rule", rule["Name"], because) for rule in page["Rules"]]
        role = "AWSServiceRoleForEMRCleanup"
        with unless_gone():
            iam.get_role(RoleName=role)
            found.append(Elsewhere("service-linked role", role, "EMR's, one for all clusters of the account"))
        with unless_gone():
            platform.client("glue").get_database(Name="default")
            because = (
                "Spark wants a database of this name and makes it where there is none; maybe others' tables are in it"
            )
            found.append(Elsewhere("Glue database", "default", because))
        with unless_gone():
            platform.client("cloudformation").describe_stacks(StackName="CDKToolkit")
            because = "the CDK's bootstrap, shared by all its apps; templates and scripts lie in its bucket (`cdk gc`)"
            found.append(Elsewhere("stack", "CDKToolkit", because))
    return found


def strays(platform: Platform, standing: Sequence[Stack]) -> list[Elsewhere]:
    """What bears the environment's tags and belongs to none of its stacks.

    The tagging service lags by minutes on AWS, and tells of some deleted things (clusters, keys) for much longer.
    """
    wanted = tags(load_environment(platform.environment))
    filters = [{"Key": key, "Values": [value]} for key, value in wanted.items()]
    known = {one.id for stack in standing for one in stack.resources}
    because = "bears our tags, but no stack has it: an earlier deployment's, or on its way out"
    with answering("look for resources by their tags"):
        pages = platform.client("resourcegroupstaggingapi").get_paginator("get_resources").paginate(TagFilters=filters)
        arns = [one["ResourceARN"] for page in pages for one in page["ResourceTagMappingList"]]
    others = [arn for arn in sorted(arns) if not _names(arn, known) and not _is_dying(platform, arn)]
    return [Elsewhere(arn.split(":")[2], arn, because) for arn in others]


WAITING = {"kms": "AWS::KMS::Key", "secretsmanager": "AWS::SecretsManager::Secret"}  # may have one before they are gone


def _is_dying(platform: Platform, arn: str) -> bool:
    """Whether it is in its waiting period: a stack that is gone has left it as it should."""
    kind = WAITING.get(arn.split(":")[2])
    return kind is not None and stands(platform, kind, arn, account="") is False


def _names(arn: str, ids: set[str]) -> bool:
    """Whether the ARN is that of something with one of these ids: it ends with it, after a : or a /."""
    resource = arn.split(":", 5)[5]
    return arn in ids or any(resource == one or resource.endswith((f"/{one}", f":{one}")) for one in ids)


def _ids(standing: Sequence[Stack], kind: str) -> list[str]:
    return [one for stack in standing for one in stack.ids(kind)]
