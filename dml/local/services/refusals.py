"""What AWS refuses and ministack does without a word: deleting what is in use, taking a name twice; in the server."""

import json
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from dml.local import hooks
from dml.local.services.emr import GONE

Properties = Mapping[str, Any]


class Refusals:
    """CloudFormation's handlers of some types, which now look first. A refusal's words are the service's own."""

    def __init__(self) -> None:
        self._ec2 = hooks.module("services.ec2")
        self._emr = hooks.module("services.emr")
        self._logs = hooks.module("services.cloudwatch_logs")
        self._s3 = hooks.module("services.s3")

    def apply(self) -> None:
        """Puts the checks before the handlers."""
        for name in ("_security_groups", "_nat_gateways", "_vpc_endpoints"):
            hooks.existing(self._ec2, name)
        hooks.existing(self._logs, "_log_groups")
        hooks.existing(self._s3, "_delete_bucket")
        self._topics_error = hooks.replace(hooks.module("services.sns"), "_error", self._no_topic)
        table = hooks.existing(hooks.module("services.cloudformation.provisioners"), "_RESOURCE_HANDLERS")
        self._check(table, "AWS::S3::Bucket", "delete", self._bucket)
        self._check(table, "AWS::EC2::SecurityGroup", "delete", self._security_group)
        self._check(table, "AWS::EC2::Subnet", "delete", self._subnet)
        self._check(table, "AWS::Logs::LogGroup", "create", self._log_group)

    def _check(self, table: Any, kind: str, operation: str, check: Callable[..., None]) -> None:
        handler = hooks.existing(table, kind)
        proceed = hooks.existing(handler, operation)

        def checked(*arguments: Any) -> Any:
            check(*arguments)
            return proceed(*arguments)

        handler[operation] = checked

    def _no_topic(self, code: str, message: str, status: int) -> Any:
        """SNS does not say which topic is not there (recorded on AWS, 2025-11-06)."""
        absent = "Topic does not exist"
        return self._topics_error(code, absent if message.startswith(absent) else message, status)

    def _bucket(self, name: str, _properties: Properties, *_: Any) -> None:
        """Deletes the bucket as S3 would, if it is empty; what ministack's handler then does is nothing."""
        status, _, _ = self._s3._delete_bucket(name)
        if status == 409:
            raise ValueError(
                f"The bucket you tried to delete is not empty. You must delete all versions in the bucket. "
                f"(Service: S3, Status Code: 409, Bucket: {name})"
            )

    def _security_group(self, group_id: str, _properties: Properties, *_: Any) -> None:
        named = any(
            pair.get("GroupId") == group_id
            for other, group in self._ec2._security_groups.items()
            if other != group_id
            for rule in (*group.get("IpPermissions", []), *group.get("IpPermissionsEgress", []))
            for pair in rule.get("UserIdGroupPairs", [])
        )
        worn = any(group_id in json.dumps(cluster["Ec2InstanceAttributes"]) for cluster in self._clusters())
        if named or worn:
            raise ValueError(
                f"resource {group_id} has a dependent object "
                "(Service: Ec2, Status Code: 400, Error Code: DependencyViolation)"
            )

    def _subnet(self, subnet_id: str, _properties: Properties, *_: Any) -> None:
        gateways = any(
            nat.get("SubnetId") == subnet_id and nat.get("State") != "deleted"
            for nat in self._ec2._nat_gateways.values()
        )
        endpoints = any(subnet_id in (one.get("SubnetIds") or []) for one in self._ec2._vpc_endpoints.values())
        lived_in = any(subnet_id in json.dumps(cluster["Ec2InstanceAttributes"]) for cluster in self._clusters())
        if gateways or endpoints or lived_in:
            raise ValueError(
                f"The subnet '{subnet_id}' has dependencies and cannot be deleted. "
                "(Service: Ec2, Status Code: 400, Error Code: DependencyViolation)"
            )

    def _clusters(self) -> Iterable[Any]:
        """Those that have machines."""
        return [one for one in self._emr._clusters.values() if one["Status"]["State"] not in GONE]

    def _log_group(self, logical_id: str, properties: Properties, *_: Any) -> None:
        name = properties.get("LogGroupName")
        if name in self._logs._log_groups:
            raise ValueError(
                f"Resource of type 'AWS::Logs::LogGroup' with identifier '{name}' already exists "
                f"(HandlerErrorCode: AlreadyExists, resource: {logical_id})"
            )
