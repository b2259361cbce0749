"""Checks of the account and region that the environment would be deployed to. Every call only reads."""

import os
import re
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from functools import cached_property
from typing import Any

from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    ConnectTimeoutError,
    EndpointConnectionError,
    NoCredentialsError,
    ReadTimeoutError,
)

from dml.doctor.findings import Check, Finding, Skipped, ok, problem, warning
from dml.doctor.needs import Cluster, Needs
from dml.errors import UserError
from dml.estate.certificate import ends_at
from dml.estate.platform import Platform
from dml.terminal.words import listed
from stacks.outputs import CERTIFICATE_RENEW_DAYS, Output
from stacks.settings import load_environment, tags

DENIED = {"AccessDenied", "AccessDeniedException", "UnauthorizedOperation", "AuthorizationErrorException"}
EXPIRED = {"ExpiredToken", "ExpiredTokenException", "RequestExpired", "TokenRefreshRequired"}
WRONG_TIME = {"RequestTimeTooSkewed", "InvalidSignatureException", "SignatureDoesNotMatch"}
SKEW_SECONDS = 300  # a request that is older is refused (IAM User Guide, "Signing AWS API requests")
SPOT_ROLE, CLEANUP_ROLE = "AWSServiceRoleForEC2Spot", "AWSServiceRoleForEMRCleanup"
EVERYBODY = "IAM_ALLOWED_PRINCIPALS"  # Lake Formation's word for: IAM alone decides
SIGN_IN = "aws sso login, or export AWS_PROFILE=NAME"


@dataclass
class Account:
    """An account in a region, as the operator's credentials see it, and what the templates want of it.

    Answers that several checks need are asked for once; checks may run in several threads.
    """

    platform: Platform
    _needs: Needs | None
    now: Callable[[], float] = time.time
    _clients: dict[str, Any] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def needs(self) -> Needs:
        """What the templates want. Raises Skipped if they could not be synthesised."""
        if self._needs is None:
            raise Skipped("the templates do not synthesise, see `synth`")
        return self._needs

    def client(self, service: str) -> Any:
        """The service's client; clients may be shared between threads, but not made in two of them at once."""
        with self._lock:
            if service not in self._clients:
                self._clients[service] = self.platform.client(service)
            return self._clients[service]

    @cached_property
    def identity(self) -> dict[str, Any]:
        """sts:GetCallerIdentity, which anyone may call, with the seconds at which it was answered, here and there."""
        answer = self.client("sts").get_caller_identity()
        header = answer["ResponseMetadata"]["HTTPHeaders"].get("date")
        there = parsedate_to_datetime(header) if header else datetime.now(UTC)
        return {"Account": answer["Account"], "Arn": answer["Arn"], "skew": self.now() - there.timestamp()}

    @cached_property
    def stacks(self) -> dict[str, str]:
        """The status of each of the environment's stacks that there is."""
        found = {}
        for name in self.needs.stacks:
            try:
                (stack,) = self.client("cloudformation").describe_stacks(StackName=name)["Stacks"]
            except ClientError as error:
                if "does not exist" not in str(error):
                    raise
            else:
                found[name] = stack["StackStatus"]
        return found

    @cached_property
    def own(self) -> set[str]:
        """The physical ids of all that the environment's stacks have."""
        found = set()
        pages = self.client("cloudformation").get_paginator("list_stack_resources")
        for name in self.stacks:
            for page in pages.paginate(StackName=name):
                found |= {one["PhysicalResourceId"] for one in page["StackResourceSummaries"] if _stands(one)}
        return found

    @cached_property
    def zones(self) -> list[str]:
        """The zones of the region, in the order of Fn::GetAZs: those with a default subnet, or else all.

        Source: CloudFormation Template Reference, "Fn::GetAZs".
        """
        ec2 = self.client("ec2")
        subnets = ec2.describe_subnets(Filters=[{"Name": "default-for-az", "Values": ["true"]}])["Subnets"]
        if subnets:
            return sorted(one["AvailabilityZone"] for one in subnets)
        filters = [{"Name": "zone-type", "Values": ["availability-zone"]}, {"Name": "state", "Values": ["available"]}]
        return sorted(one["ZoneName"] for one in ec2.describe_availability_zones(Filters=filters)["AvailabilityZones"])

    @cached_property
    def supported(self) -> dict[str, dict[str, Any]]:
        """The instance types that EMR's release runs on in this region, by name: VCPU, Architecture and more."""
        found: dict[str, dict[str, Any]] = {}
        marker: dict[str, str] = {}
        while True:
            page = self.client("emr").list_supported_instance_types(ReleaseLabel=self.release, **marker)
            found |= {one["Type"]: one for one in page.get("SupportedInstanceTypes", [])}
            if not page.get("Marker"):
                return found
            marker = {"Marker": page["Marker"]}

    @property
    def release(self) -> str:
        """EMR's release; the templates know one only."""
        return self.clusters[0].release

    @property
    def clusters(self) -> tuple[Cluster, ...]:
        """The clusters that the templates start; Skipped if none."""
        if not self.needs.clusters:
            raise Skipped("the templates start no cluster")
        return self.needs.clusters

    @property
    def tags(self) -> dict[str, str]:
        """What everything of the environment bears."""
        return tags(load_environment(self.platform.environment))

    @property
    def instance_types(self) -> list[str]:
        """All instance types of our clusters, each once."""
        return list(dict.fromkeys(one for cluster in self.clusters for one in cluster.instance_types))

    def is_ours(self, resource: Mapping[str, Any]) -> bool:
        """Whether an EC2 resource bears the tags of this environment: it is there already and not needed again."""
        there = {tag["Key"]: tag["Value"] for tag in resource.get("Tags", [])}
        return self.tags.items() <= there.items()


@contextmanager
def reasons() -> Iterator[None]:
    """An answer that a check cannot use becomes Skipped, with the missing right or with what the service said."""
    try:
        yield
    except ClientError as error:
        raise Skipped(refusal(error)) from error
    except (EndpointConnectionError, ConnectTimeoutError, ReadTimeoutError) as error:
        raise Skipped(f"not reached: {error}") from error
    except BotoCoreError as error:
        raise Skipped(f"no usable answer: {error}") from error
    except UserError as error:  # no client without a region
        raise Skipped(str(error)) from error


def refusal(error: ClientError) -> str:
    """What a refused call says, in one line."""
    code, message = error.response["Error"].get("Code", ""), error.response["Error"].get("Message", "")
    if code in DENIED:
        action = re.search(r"perform: ([\w-]+:\w+)", message)
        return f"you lack {action[1]}" if action else f"you lack the right to call {error.operation_name}: {message}"
    return f"{error.operation_name} was answered with {code}: {message}".strip(": ").splitlines()[0][:200]


def credentials(account: Account) -> Finding:
    """Everything else needs them, so here an unreachable network is a problem too."""
    try:
        who = account.identity
    except NoCredentialsError:
        return problem("no AWS credentials were found", f"Sign in ({SIGN_IN}), or look here only: --offline")
    except ClientError as error:
        code = error.response["Error"].get("Code", "")
        if code in WRONG_TIME and re.search("expired|not yet current|skewed", str(error), re.IGNORECASE):
            return problem(f"AWS refuses this machine's time: {error}", "Set the clock: timedatectl set-ntp true")
        if code in EXPIRED:
            return problem("the credentials have expired", f"Sign in again: {SIGN_IN}")
        return problem(f"AWS refuses the credentials: {refusal(error)}", f"Sign in with others: {SIGN_IN}")
    except UserError as error:
        return problem("not connected", str(error))
    except BotoCoreError as error:
        if "Token" in type(error).__name__ or "SSO" in type(error).__name__ or "Credential" in type(error).__name__:
            return problem(f"the credentials cannot be used: {error}", f"Sign in again: {SIGN_IN}")
        return problem(
            f"AWS cannot be reached: {error}", "Mend network, proxy or region (aws configure list), or --offline"
        )
    return ok(f"account {who['Account']} as {who['Arn'].rsplit(':', 1)[-1]}")


def region(account: Account) -> Finding:
    """`cdk deploy` and `dml` prefer AWS_REGION; programs on boto3 alone know AWS_DEFAULT_REGION only."""
    found = account.platform.region
    if found is None:
        return problem("no region is set", "Say which one: export AWS_REGION=eu-central-1")
    usual = os.environ.get("AWS_DEFAULT_REGION", found)
    if account.platform.endpoint is None and usual != found:
        return warning(
            f"{found}; but AWS_DEFAULT_REGION is {usual}, which some tools will take",
            f"Name one region only: export AWS_DEFAULT_REGION={found}",
        )
    return ok(found)


def skew(account: Account) -> Finding:
    seconds = account.identity["skew"]
    found = f"{abs(seconds):.0f} s {'ahead of' if seconds > 0 else 'behind'} AWS's"
    if abs(seconds) >= SKEW_SECONDS:
        return problem(found, "AWS refuses requests that are 5 minutes off. Set the clock: timedatectl set-ntp true")
    if abs(seconds) >= SKEW_SECONDS / 5:
        return warning(found, "At 5 minutes AWS refuses requests. Set the clock: timedatectl set-ntp true")
    return ok(found)


def bootstrap(account: Account) -> Finding:
    """Each template's rule CheckBootstrapVersion and the CDK CLI refuse a version below the one they are made for."""
    ssm, name, least = account.client("ssm"), account.needs.bootstrap_parameter, account.needs.bootstrap_version
    where = f"aws://{account.identity['Account']}/{account.platform.region}"
    try:
        version = int(ssm.get_parameter(Name=name)["Parameter"]["Value"])
    except ssm.exceptions.ParameterNotFound:
        return problem(
            "this account and region are not bootstrapped for the CDK", f"Do so once: npx cdk bootstrap {where}"
        )
    if version < least:
        return problem(f"version {version}, but the templates need {least}", f"Renew it: npx cdk bootstrap {where}")
    return ok(f"version {version}, {least} is needed")


def public_access(account: Account) -> Finding:
    """EMR's block public access; on unless someone switched it off. Our groups have no rule that it would object to.

    Source: EMR Management Guide, "Using Amazon EMR block public access".
    """
    settings = account.client("emr").get_block_public_access_configuration()["BlockPublicAccessConfiguration"]
    if settings["BlockPublicSecurityGroupRules"]:
        return ok("on; our clusters do not need it off")
    return warning(
        "off: any cluster in this region may be opened to the world",
        "Switch it on, if no other cluster here needs it off: aws emr put-block-public-access-configuration "
        "--block-public-access-configuration BlockPublicSecurityGroupRules=true",
    )


def spot_role(account: Account) -> Finding:
    """EC2 makes it for whoever may call iam:CreateServiceLinkedRole; EMR's service role v2 may not.

    Source: EC2 User Guide, "Service-linked role for Spot Instance requests".
    """
    if not any(cluster.spot for cluster in account.clusters):
        return ok("not needed: no cluster uses spot")
    return _role(account, SPOT_ROLE, "spot", problem, "spot nodes cannot be started")


def cleanup_role(account: Account) -> Finding:
    """EMR makes it with the first cluster, for whoever may. Source: EMR Management Guide, "Service-linked roles"."""
    return _role(account, CLEANUP_ROLE, "elasticmapreduce", warning, "the first cluster makes it, if its starter may")


def _role(account: Account, name: str, service: str, finding: Any, so: str) -> Finding:
    iam = account.client("iam")
    try:
        iam.get_role(RoleName=name)
    except iam.exceptions.NoSuchEntityException:
        made: Finding = finding(
            f"no {name}: {so}",
            f"Make it once: aws iam create-service-linked-role --aws-service-name {service}.amazonaws.com",
        )
        return made
    return ok(name)


def release(account: Account) -> Finding:
    emr, wanted = account.client("emr"), account.release
    advice = (
        "Deploy to another region, or change RELEASE in stacks/emr.py: aws emr list-release-labels has those of here"
    )
    try:
        found = emr.describe_release_label(ReleaseLabel=wanted)
    except emr.exceptions.InvalidRequestException:
        return problem(f"EMR has no {wanted} here", advice)
    there = {one["Name"]: one["Version"] for one in found.get("Applications", [])}
    missing = sorted({one for cluster in account.clusters for one in cluster.applications} - there.keys())
    if missing:
        return problem(f"{wanted} has no {listed(missing)} here", advice)
    return ok(f"{wanted} with Spark {there['Spark']}")


def offered(account: Account) -> Finding:
    """A cluster of instance groups lives in one zone; EMR looks for its type there and nowhere else."""
    types, needed = account.instance_types, sorted({zone for one in account.clusters for zone in one.zones})
    if max(needed) >= len(account.zones):
        return problem(
            f"{len(account.zones)} zones here, the network wants {max(needed) + 1}",
            "Deploy to a region with more zones: aws ec2 describe-availability-zones shows them",
        )
    zones = [account.zones[place] for place in needed]
    filters = [{"Name": "instance-type", "Values": types}, {"Name": "location", "Values": zones}]
    pages = account.client("ec2").get_paginator("describe_instance_type_offerings")
    there = {
        (one["InstanceType"], one["Location"])
        for page in pages.paginate(LocationType="availability-zone", Filters=filters)
        for one in page["InstanceTypeOfferings"]
    }
    missing = [f"{kind} in {zone}" for zone in zones for kind in types if (kind, zone) not in there]
    if not missing:
        return ok(f"{listed(types)} in {listed(zones)}")
    advice = (
        f"Choose other instance types in environments/{account.platform.environment}.toml: "
        f"aws ec2 describe-instance-type-offerings --location-type availability-zone shows them"
    )
    # With several types, or zones, EMR takes what there is; without any it cannot start.
    if any(
        {(kind, account.zones[zone]) for kind in one.instance_types for zone in one.zones}.isdisjoint(there)
        for one in account.clusters
    ):
        return problem(f"not offered: {listed(missing)}", advice)
    return warning(f"not offered, and so never used: {listed(missing)}", advice)


def runs_on(account: Account) -> Finding:
    """Whether EMR's release runs on our types, and whether they are all of one processor: wheels are of one kind."""
    unknown = [kind for kind in account.instance_types if kind not in account.supported]
    advice = (
        f"Choose others in environments/{account.platform.environment}.toml: "
        f"aws emr list-supported-instance-types --release-label {account.release} shows them"
    )
    if unknown:
        return problem(f"{account.release} does not run on {listed(unknown)} here", advice)
    processors = sorted({account.supported[kind]["Architecture"] for kind in account.instance_types})
    if len(processors) > 1:
        return problem(f"instance types of several processors: {listed(processors)}", advice)
    return ok(f"{listed(account.instance_types)}: {processors[0]}")


def lake_formation(account: Account) -> Finding:
    """New databases and tables are left to IAM only if the account's data-lake settings say so, for both.

    Source: Lake Formation Developer Guide, "Changing the default settings for your data lake".
    """
    settings = account.client("lakeformation").get_data_lake_settings()["DataLakeSettings"]
    closed = [
        what
        for what, key in (
            ("databases", "CreateDatabaseDefaultPermissions"),
            ("tables", "CreateTableDefaultPermissions"),
        )
        if not any(
            grant.get("Principal", {}).get("DataLakePrincipalIdentifier") == EVERYBODY
            and "ALL" in grant.get("Permissions", [])
            for grant in settings.get(key, [])
        )
    ]
    if closed:
        return problem(
            f"Lake Formation rules over new {' and '.join(closed)}: our roles' IAM rights alone will not open them",
            f"Let its administrator add {EVERYBODY} with ALL to both (aws lakeformation put-data-lake-settings), "
            "or grant our roles what they need after the deploy (aws lakeformation grant-permissions)",
        )
    return ok("leaves new databases and tables to IAM")


def default_database(account: Account) -> Finding:
    """Spark's Glue client looks for a database `default` before all else, and makes it if there is none.

    Source: Glue Developer Guide, "Data Catalog support for Spark SQL".
    """
    glue = account.client("glue")
    try:
        database = glue.get_database(Name="default")["Database"]
    except glue.exceptions.EntityNotFoundException:
        if account.needs.creates_databases:
            return ok("none yet; the first Spark session makes it")
        return problem(
            "none, and no role of ours may make it: Spark does not start without",
            'Make it once: aws glue create-database --database-input \'{"Name": "default"}\'',
        )
    location = database.get("LocationUri", "")
    if location.startswith("hdfs:"):
        return warning(
            f"it lies in {location}, a cluster's own disks: tables made in it without a location will fail",
            "Point it elsewhere: aws glue update-database --name default --database-input "
            '\'{"Name": "default", "LocationUri": "s3://BUCKET/default/"}\'',
        )
    return ok("there, and used as it is")


def cost_tag(account: Account) -> Finding:
    """A budget that filters by a tag counts nothing until the tag is activated for cost allocation.

    Source: Billing User Guide, "Activating user-defined cost allocation tags". Only the payer's account may see it.
    """
    if not account.needs.counts.get("AWS::Budgets::Budget"):
        return ok("not needed: there is no budget")
    keys = sorted(account.tags)
    found = account.client("ce").list_cost_allocation_tags(TagKeys=keys)["CostAllocationTags"]
    inactive = sorted(set(keys) - {one["TagKey"] for one in found if one["Status"] == "Active"})
    if inactive:
        return warning(
            f"not active: {listed(inactive)}; the budget counts nothing by it",
            "After the first deploy, once AWS has seen the tag (a day): aws ce update-cost-allocation-tags-status "
            f"--cost-allocation-tags-status {' '.join(f'TagKey={key},Status=Active' for key in inactive)}",
        )
    return ok(f"active: {listed(keys)}")


def certificate(account: Account) -> Finding:
    """Whether clusters have a certificate to start with, where their nodes are to talk TLS (stacks/definition.py)."""
    if not account.needs.certified:
        return ok("not needed: traffic between nodes is not encrypted (encryption.in_transit)")
    command = f"dml certificates --env {account.platform.environment}"
    data = f"dml-{account.platform.environment}-data"
    if data not in account.stacks:
        return ok(f"nothing is deployed yet; after the deploy: {command}")
    (stack,) = account.client("cloudformation").describe_stacks(StackName=data)["Stacks"]
    outputs = {one["OutputKey"]: one["OutputValue"] for one in stack.get("Outputs", [])}
    bucket = outputs.get(Output.WORKSPACE_BUCKET)
    if bucket is None:
        return ok(f"{data} is not whole yet; after the deploy: {command}")
    ends = ends_at(account.client("s3"), bucket)
    if ends is None:
        return warning("there is none: no cluster starts", f"Make one: {command}")
    days = (ends.timestamp() - account.now()) / 86400
    if days <= 0:
        return problem(f"it ended on {ends:%Y-%m-%d}: no cluster starts", f"Make another: {command}")
    if days < CERTIFICATE_RENEW_DAYS:
        return warning(f"it ends on {ends:%Y-%m-%d}", f"Make another: {command}")
    return ok(f"valid until {ends:%Y-%m-%d}")


def _stands(resource: Mapping[str, Any]) -> bool:
    return "PhysicalResourceId" in resource and resource["ResourceStatus"] != "DELETE_COMPLETE"


CREDENTIALS = Check("credentials", credentials, "aws sts get-caller-identity")
CHECKS: tuple[Check[Account], ...] = (
    Check("region", region, "aws configure list"),
    Check("clock against AWS", skew, "date"),
    Check("bootstrap", bootstrap, "aws ssm get-parameter --name /cdk-bootstrap/hnb659fds/version"),
    Check("EMR release", release, "aws emr list-release-labels"),
    Check("instance types in zones", offered, "aws ec2 describe-instance-type-offerings"),
    Check("instance types for EMR", runs_on, "aws emr list-supported-instance-types --release-label LABEL"),
    Check("EMR block public access", public_access, "aws emr get-block-public-access-configuration"),
    Check("role for cleaning up", cleanup_role, f"aws iam get-role --role-name {CLEANUP_ROLE}"),
    Check("role for spot", spot_role, f"aws iam get-role --role-name {SPOT_ROLE}"),
    Check("Lake Formation", lake_formation, "aws lakeformation get-data-lake-settings"),
    Check("database `default`", default_database, "aws glue get-database --name default"),
    Check("certificate of nodes", certificate, "aws s3 cp s3://WORKSPACE-BUCKET/tls/certificate.json -"),
    Check("cost allocation tags", cost_tag, "aws ce list-cost-allocation-tags --tag-keys project environment"),
)
