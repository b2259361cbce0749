"""What EMR does with a cluster's two roles besides running steps: machines by the service role, logs by the nodes'.

No machine starts here, but the calls of EC2 and KMS that would start it are decided with the service role, on the
subnet, the groups and the tags of the request. Sources: EMR Management Guide, "Service role for Amazon EMR (EMR role)",
which explains each statement of AmazonEMRServicePolicy_v2, and "Encryption at rest for EMRFS data in Amazon S3 and
local disks"; EBS guide, "Requirements for Amazon EBS encryption"; EMR guide, "Archive log files to Amazon S3".
"""

import gzip
import json
import logging
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from botocore.exceptions import ClientError

from dml.local import hooks
from dml.local.access import iam, keys
from dml.local.access.authorise import Authoriser
from dml.local.clients import client
from dml.local.place import Place

log = logging.getLogger("dml.emr")

# Version 6, the default one since 2026-02-12. Source: AWS Managed Policy Reference, "AmazonEMRServicePolicy_v2".
SERVICE_POLICY = "service-role/AmazonEMRServicePolicy_v2"
DOCUMENT = Path(__file__).parent / "managed_policies" / "AmazonEMRServicePolicy_v2.json"
DESCRIBED = ("Subnets", "SecurityGroups", "RouteTables", "VpcAttribute", "Instances")
GROUPS = ("EmrManagedMasterSecurityGroup", "EmrManagedSlaveSecurityGroup")
MORE_GROUPS = ("AdditionalMasterSecurityGroups", "AdditionalSlaveSecurityGroups")

Need = tuple[str, str, Mapping[str, Any]]  # action, resource, condition keys


class ClusterError(Exception):
    """A cluster that does not come up; the message is worded as EMR words it."""


def know_service_policy() -> None:
    """Gives ministack the document of AWS's managed policy: to it an unknown one allows nothing."""
    policies = hooks.module("services.iam")
    known = hooks.existing(policies, "_aws_managed_policies")
    make = hooks.existing(policies, "_make_aws_managed_record")
    record = make(SERVICE_POLICY, DOCUMENT.read_text(encoding="utf-8"))
    known[record["Arn"]] = record


class ServiceRole:
    """A cluster's service role at work."""

    def __init__(self, authoriser: Authoriser, cluster: Mapping[str, Any]) -> None:
        self._authoriser = authoriser
        self._cluster = cluster
        self._arn = iam.role_arn(cluster["ServiceRole"])
        self._credentials = iam.credentials_of(
            self._arn, "elasticmapreduce.amazonaws.com", "CCSSession", source=f"cluster/{cluster['Id']}"
        )
        region, account = self._arn_parts()
        self._ec2 = f"arn:aws:ec2:{region}:{account}:"
        self._image = f"arn:aws:ec2:{region}::image/ami-emr"
        self._tags = {tag["Key"]: tag["Value"] for tag in cluster.get("Tags", [])}

    def start_machines(self, node_role: str, encryption: Mapping[str, Any]) -> None:
        """Decides what starting the cluster's machines takes. Raises ClusterError at the first denial.

        `encryption` is the EncryptionConfiguration of the cluster's security configuration; empty without one.
        """
        for action, resource, context in self._to_start(node_role):
            denied = self._authoriser.as_role(self._credentials, action, resource, context)
            if denied:
                raise ClusterError(f"Service role {self._arn} has insufficient EC2 permissions. EC2 Message: {denied}")
        key, for_ebs = disk_key(encryption)
        for action, context in self._to_encrypt() if for_ebs else ():
            denied = self._authoriser.as_role(self._credentials, action, key, context)
            if denied:
                raise ClusterError(f"The service role may not use the KMS key of the disks: {denied}")

    def end_machines(self) -> None:
        """Decides what ending them takes. A role without the right leaves them running, as on AWS: logged."""
        context = {f"aws:ResourceTag/{key}": value for key, value in self._tags.items()}
        denied = self._authoriser.as_role(
            self._credentials, "ec2:TerminateInstances", f"{self._ec2}instance/*", context
        )
        if denied:
            log.error("The machines of %s could not be ended: %s", self._cluster["Id"], denied)

    def _to_start(self, node_role: str) -> Iterator[Need]:
        for what in DESCRIBED:
            yield f"ec2:Describe{what}", "*", {}
        attributes = self._cluster["Ec2InstanceAttributes"]
        tagged = {f"aws:RequestTag/{key}": value for key, value in self._tags.items()}
        network = [f"subnet/{subnet}" for subnet in subnets(self._cluster)]
        groups = {attributes.get(kind) for kind in GROUPS}.union(*(attributes.get(kind) or [] for kind in MORE_GROUPS))
        network += [f"security-group/{group}" for group in sorted(groups - {None, ""})]
        launches = ["RunInstances"]
        if self._cluster.get("InstanceCollectionType") == "INSTANCE_FLEET":
            launches = ["CreateLaunchTemplate", "CreateFleet", "RunInstances"]
            yield "ec2:CreateTags", f"{self._ec2}launch-template/*", tagged | {"ec2:CreateAction": launches[0]}
        for launch in launches:
            action = f"ec2:{launch}"
            for end in (*network, "network-interface/*"):
                yield action, self._ec2 + end, {}
            yield action, self._image, {}
            if launch != "RunInstances":
                owned = {f"aws:ResourceTag/{key}": value for key, value in self._tags.items()}
                yield action, f"{self._ec2}launch-template/*", tagged | owned
            if launch != "CreateLaunchTemplate":
                for end in ("instance/*", "volume/*"):
                    yield action, self._ec2 + end, tagged
        for end in ("instance/*", "volume/*"):
            yield "ec2:CreateTags", self._ec2 + end, tagged | {"ec2:CreateAction": launches[-1]}
        yield "iam:PassRole", node_role, {"iam:PassedToService": "ec2.amazonaws.com"}

    def _to_encrypt(self) -> Iterator[tuple[str, Mapping[str, Any]]]:
        through = keys.through("ec2", self._arn_parts()[0], {})
        yield "kms:DescribeKey", through
        yield "kms:GenerateDataKeyWithoutPlaintext", through
        yield "kms:CreateGrant", through | {"kms:GrantIsForAWSResource": "true"}

    def _arn_parts(self) -> tuple[str, str]:
        return hooks.module("core.responses").get_region(), self._arn.split(":")[4]


class NodeLogs:
    """What a cluster's nodes put into S3 by their own role apart from what jobs write: their logs."""

    def __init__(self, place: Place, cluster: Mapping[str, Any], credentials: Mapping[str, str]) -> None:
        self._s3 = client(place, "s3", credentials)
        self._cluster = cluster

    def push(self, file: Path, name: str) -> None:
        """Archives a log under the cluster's LogUri. What the role may not write is missing there: logged."""
        uri = self._cluster.get("LogUri", "")
        if not uri or not file.exists():
            return
        bucket, _, prefix = uri.partition("://")[2].partition("/")
        key = f"{prefix.rstrip('/')}/{self._cluster['Id']}/{name}.gz".lstrip("/")
        encrypt = self._cluster.get("LogEncryptionKmsKeyId")
        under = {"ServerSideEncryption": "aws:kms", "SSEKMSKeyId": encrypt} if encrypt else {}
        try:
            self._s3.put_object(Bucket=bucket, Key=key, Body=gzip.compress(file.read_bytes()), **under)
        except ClientError as error:
            log.error("The log %s could not be archived as s3://%s/%s: %s", file, bucket, key, error)


def encryption_of(security: Any) -> dict[str, Any]:
    """The EncryptionConfiguration of a security configuration as DescribeSecurityConfiguration tells it, or None."""
    told = json.loads(security["SecurityConfiguration"]) if security else {}
    found: dict[str, Any] = told.get("EncryptionConfiguration", {})
    return found


def disk_key(encryption: Mapping[str, Any]) -> tuple[str, bool]:
    """The KMS key of the local disks, if any, and whether EBS uses it (else the nodes do, for LUKS)."""
    if str(encryption.get("EnableAtRestEncryption")).lower() != "true":
        return "", False
    local = encryption.get("AtRestEncryptionConfiguration", {}).get("LocalDiskEncryptionConfiguration", {})
    return str(local.get("AwsKmsKey", "")), str(local.get("EnableEbsEncryption")).lower() == "true"


def subnets(cluster: Mapping[str, Any]) -> list[str]:
    """The subnets that a cluster may be placed in; several for instance fleets."""
    attributes = cluster["Ec2InstanceAttributes"]
    several = attributes.get("Ec2SubnetIds") or attributes.get("RequestedEc2SubnetIds") or []
    one = attributes.get("Ec2SubnetId")
    return [one] if one else list(several)
