"""What ministack's CloudFormation lacks: resource types, attributes, exports that are in use; in the server."""

import hashlib
import json
from collections.abc import Callable, Mapping
from typing import Any

from dml.local import hooks
from dml.local.clients import client
from dml.local.place import Place
from dml.local.services.emr import EmrClusters

Properties = Mapping[str, Any]
Created = tuple[str, dict[str, Any]]
INGRESS, EGRESS = "IpPermissions", "IpPermissionsEgress"


class ResourceTypes:
    """Handlers of resource types: create(logical id, properties, stack), update, delete(physical id, properties)."""

    def __init__(self, place: Place, clusters: EmrClusters) -> None:
        self._place = place
        self._clusters = clusters
        self._ec2 = hooks.module("services.ec2")
        self._glue = hooks.module("services.glue")
        self._emr = hooks.module("services.emr")
        self._budgets = hooks.module("services.budgets")
        self._secrets = hooks.module("services.secretsmanager")
        self._provisioners = hooks.module("services.cloudformation.provisioners")

    def apply(self) -> None:
        """Registers them, and lets those that block run off the event loop."""
        for name in ("_physical_name", "_ec2_sg_permissions"):
            hooks.existing(self._provisioners, name)
        hooks.existing(self._secrets, "_get_random_password")
        table = hooks.existing(self._provisioners, "_RESOURCE_HANDLERS")
        table["AWS::EC2::SecurityGroupIngress"] = self._rule(INGRESS)
        table["AWS::EC2::SecurityGroupEgress"] = self._rule(EGRESS)
        table["AWS::EC2::EIP"] = _replaced(self._create_address, self._delete_address, self._address, _but_tags)
        table["AWS::EC2::NatGateway"] = _replaced(self._create_nat, self._delete_nat, self._nat, _but_tags)
        table["AWS::EMR::Cluster"] = _replaced(
            self._create_cluster, self._delete_cluster, self._update_cluster, cluster_identity
        )
        table["AWS::EMR::SecurityConfiguration"] = _recreated(self._create_security, self._delete_security)
        table["AWS::EC2::FlowLog"] = _replaced(
            self._create_flow_log, self._delete_flow_log, lambda physical_id, _: (physical_id, {}), _but_tags
        )
        table["AWS::Budgets::Budget"] = _recreated(self._create_budget, self._delete_budget)
        table["AWS::Glue::Classifier"] = _recreated(self._create_classifier, self._delete_classifier)
        table["AWS::Glue::SecurityConfiguration"] = _recreated(self._create_glue_security, self._delete_glue_security)
        table["Custom::S3AutoDeleteObjects"] = _replaced(
            self._watch_bucket, self._empty_bucket, lambda physical_id, _: (physical_id, {}), _but_tags
        )
        self._add_attributes(table, "AWS::EC2::VPC", self._vpc_attributes)
        self._add_attributes(table, "AWS::EC2::Subnet", self._subnet_attributes)
        self._adopt_databases(table)
        self._secrets_by_arn(table)
        stacks = hooks.module("services.cloudformation.stacks")
        on_worker = hooks.existing(stacks, "_runs_on_worker_thread")
        blocking = ("AWS::EMR::Cluster", "Custom::S3AutoDeleteObjects")
        hooks.replace(stacks, "_runs_on_worker_thread", lambda kind: kind in blocking or on_worker(kind))
        evaluate = hooks.existing(hooks.module("services.cloudformation.engine"), "_evaluate_conditions")

        def conditions(template: Properties, parameters: Mapping[str, Any]) -> Any:
            joined = {name: with_joins(one, parameters) for name, one in (template.get("Conditions") or {}).items()}
            return evaluate({**template, "Conditions": joined}, parameters)

        for name in ("engine", "stacks", "handlers", "changesets"):
            hooks.replace(hooks.module(f"services.cloudformation.{name}"), "_evaluate_conditions", conditions)

    def _adopt_databases(self, table: dict[str, Any]) -> None:
        """ImportExistingResources finds Glue databases by the type's primary identifier, as the other types it knows.

        That CloudFormation can import the type is likely: its schema has all handlers (docs/first-deploy.md).
        """

        def problem(name: str) -> str | None:
            key = json.dumps({"/properties/DatabaseName": name}, separators=(",", ":"))
            lacking = f"Resource of type 'AWS::Glue::Database' with identifier '{key}' was not found."
            return None if name in self._glue._databases else lacking

        lookups = hooks.existing(hooks.module("services.cloudformation.changesets"), "_IMPORT_LOOKUPS")
        lookups["AWS::Glue::Database"] = (("DatabaseName",), problem)
        hooks.existing(table, "AWS::Glue::Database")["import"] = lambda identifier: (identifier["DatabaseName"], {})

    # --- Secrets Manager ---

    def _secrets_by_arn(self, table: dict[str, Any]) -> None:
        """A secret goes by its ARN (Ref of the type's reference), and what is generated is as GetRandomPassword has it,
        which takes the same words; ministack's go by their names and hold any character."""
        handler = hooks.existing(table, "AWS::SecretsManager::Secret")
        create, update, delete = (hooks.existing(handler, name) for name in ("create", "update", "delete"))
        declared = ("SecretString", "GenerateSecretString")

        def by_arn(made: Any) -> Created:
            return made[1]["Arn"], made[1]

        def updated(arn: str, old: Properties, new: Properties, stack: str, logical_id: str) -> Created:
            was, now = ({name: one for name, one in given.items() if name not in declared} for given in (old, new))
            changed = any(old.get(name) != new.get(name) for name in declared)
            return by_arn(update(_secret_name(arn), was, self._generated(new) if changed else now, stack, logical_id))

        handler.update(
            create=lambda logical_id, properties, stack: by_arn(create(logical_id, self._generated(properties), stack)),
            update=updated,
            delete=lambda arn, properties: delete(_secret_name(arn), properties),
        )

    def _generated(self, properties: Properties) -> Properties:
        """The properties with the value that is to be generated in them."""
        asked = properties.get("GenerateSecretString")
        if not asked:
            return properties
        words = {name: one for name, one in asked.items() if name not in ("SecretStringTemplate", "GenerateStringKey")}
        status, _, body = self._secrets._get_random_password(words)
        told = json.loads(body)
        if status >= 400:
            raise ValueError(told.get("message", told))
        text = password = told["RandomPassword"]
        if "SecretStringTemplate" in asked:
            text = json.dumps({**json.loads(asked["SecretStringTemplate"]), asked["GenerateStringKey"]: password})
        return {
            **{name: one for name, one in properties.items() if name != "GenerateSecretString"},
            "SecretString": text,
        }

    # --- EC2 ---

    def _rule(self, direction: str) -> dict[str, Any]:
        def create(logical_id: str, properties: Properties, stack: str) -> Created:
            group = self._group(properties["GroupId"])
            (permission,) = self._provisioners._ec2_sg_permissions([properties])
            rule_id = "sgr-" + hashlib.sha256(f"{stack}/{logical_id}".encode()).hexdigest()[:17]
            rules = group.setdefault(direction, [])
            if direction == EGRESS and not any("_dml_rule" in rule for rule in rules):
                # Naming one egress rule takes the default of "anything, anywhere" away.
                rules[:] = [rule for rule in rules if rule["IpProtocol"] != "-1" or rule["UserIdGroupPairs"]]
            rules.append(permission | {"_dml_rule": rule_id, "SecurityGroupRuleId": rule_id})
            return rule_id, {"Id": rule_id}

        def delete(rule_id: str, properties: Properties) -> None:
            group = self._ec2._security_groups.get(properties.get("GroupId"))
            if group:
                group[direction][:] = [rule for rule in group[direction] if rule.get("_dml_rule") != rule_id]

        return _recreated(create, delete)

    def _group(self, group_id: str) -> dict[str, Any]:
        group: dict[str, Any] | None = self._ec2._security_groups.get(group_id)
        if group is None:
            raise ValueError(f"The security group '{group_id}' does not exist")
        return group

    def _create_address(self, logical_id: str, properties: Properties, _stack: str) -> Created:
        known = set(self._ec2._addresses)
        self._ec2._allocate_address({"Domain": [properties.get("Domain", "vpc")]})
        (allocation,) = set(self._ec2._addresses) - known
        return self._address(self._ec2._addresses[allocation]["PublicIp"], properties)

    def _address(self, public_ip: str, _properties: Properties) -> Created:
        """An address goes by its number, as Ref of the type's reference says."""
        return public_ip, {"AllocationId": self._allocation(public_ip), "PublicIp": public_ip}

    def _allocation(self, public_ip: str) -> str | None:
        return next((key for key, one in self._ec2._addresses.items() if one["PublicIp"] == public_ip), None)

    def _delete_address(self, public_ip: str, _properties: Properties) -> None:
        if allocation := self._allocation(public_ip):
            self._ec2._release_address({"AllocationId": [allocation]})

    def _create_nat(self, logical_id: str, properties: Properties, _stack: str) -> Created:
        known = set(self._ec2._nat_gateways)
        given = {
            key: [properties[key]] for key in ("SubnetId", "AllocationId", "ConnectivityType") if key in properties
        }
        status, _, body = self._ec2._create_nat_gateway(given)
        if status >= 400:
            raise ValueError(f"The NAT gateway {logical_id} was refused: {body!r}")
        (nat,) = set(self._ec2._nat_gateways) - known
        return self._nat(nat, properties)

    def _nat(self, physical_id: str, _properties: Properties) -> Created:
        return physical_id, {"NatGatewayId": physical_id}

    def _delete_nat(self, physical_id: str, _properties: Properties) -> None:
        self._ec2._nat_gateways.pop(physical_id, None)

    def _create_flow_log(self, logical_id: str, properties: Properties, _stack: str) -> Created:
        known = set(self._ec2._flow_logs)
        plain = ("ResourceType", "TrafficType", "LogDestinationType", "LogDestination", "LogGroupName")
        given = {key: [properties[key]] for key in plain if key in properties}
        status, _, body = self._ec2._create_flow_logs({**given, "ResourceId.1": [properties["ResourceId"]]})
        if status >= 400:
            raise ValueError(f"The flow log {logical_id} was refused: {body!r}")
        (flow_log,) = set(self._ec2._flow_logs) - known
        return flow_log, {"Id": flow_log}

    def _delete_flow_log(self, physical_id: str, _properties: Properties) -> None:
        self._ec2._flow_logs.pop(physical_id, None)

    # --- Budgets ---

    def _create_budget(self, logical_id: str, properties: Properties, stack: str) -> Created:
        budget = dict(properties["Budget"])
        budget["BudgetName"] = budget.get("BudgetName") or self._provisioners._physical_name(stack, logical_id)
        if "BudgetLimit" in budget:  # a number in a template, a text in the API
            budget["BudgetLimit"] = {**budget["BudgetLimit"], "Amount": str(budget["BudgetLimit"]["Amount"])}
        told = [
            {**one, "Notification": {**one["Notification"], "Threshold": float(one["Notification"]["Threshold"])}}
            for one in properties.get("NotificationsWithSubscribers", [])
        ]
        request = {"Budget": budget, "NotificationsWithSubscribers": told}
        status, _, body = self._budgets._create_budget(request)
        if status >= 400:
            raise ValueError(json.loads(body).get("Message") or f"The budget {logical_id} was refused: {body!r}")
        return budget["BudgetName"], {}

    def _delete_budget(self, name: str, _properties: Properties) -> None:
        self._budgets._delete_budget({"BudgetName": name})

    def _vpc_attributes(self, vpc_id: str) -> dict[str, Any]:
        cidr = self._ec2._vpcs[vpc_id]["CidrBlock"]
        return {"CidrBlock": cidr, "CidrBlockAssociations": [], "Ipv6CidrBlocks": []}

    def _subnet_attributes(self, subnet_id: str) -> dict[str, Any]:
        subnet = self._ec2._subnets[subnet_id]
        return {"VpcId": subnet["VpcId"], "CidrBlock": subnet["CidrBlock"], "Ipv6CidrBlocks": []}

    # --- EMR ---

    def _create_cluster(self, logical_id: str, properties: Properties, _stack: str) -> Created:
        # CloudFormation passes roles by its execution role (an administrator, as bootstrap makes it), not by that of
        # whoever deploys.
        status, _, body = self._clusters.run_job_flow(run_job_flow_request(properties), may_pass_roles=True)
        answer = json.loads(body)
        if status >= 400:
            raise ValueError(answer.get("message") or answer.get("Message") or str(answer))
        cluster_id = answer["JobFlowId"]
        try:
            self._clusters.wait_until_up(cluster_id)
        except ValueError as error:
            raise ValueError(f"The cluster {cluster_id} did not start: {error}") from None
        return self._update_cluster(cluster_id, properties)

    def _update_cluster(self, cluster_id: str, new: Properties) -> Created:
        """Applies what EMR changes in place (see cluster_identity)."""
        cluster = self._emr._clusters[cluster_id]
        instances = new.get("Instances", {})
        if cluster["Status"]["State"].startswith("TERMINAT"):
            raise ValueError(
                f"Cluster '{cluster_id}' is terminated: it cannot be updated. Change its Name to replace it."
            )
        cluster["TerminationProtected"] = _true(instances.get("TerminationProtected", False))
        cluster["Tags"] = list(new.get("Tags", []))
        cluster["StepConcurrencyLevel"] = int(new.get("StepConcurrencyLevel", 1))
        for key in ("AutoTerminationPolicy", "ManagedScalingPolicy"):
            cluster[key] = new.get(key, {})
        return cluster_id, {"Id": cluster_id, "MasterPublicDNS": cluster["MasterPublicDnsName"]}

    def _delete_cluster(self, cluster_id: str, _properties: Properties) -> None:
        cluster = self._emr._clusters.get(cluster_id)
        if cluster is None:
            return
        status, _, body = self._clusters.terminate_job_flows({"JobFlowIds": [cluster_id]})
        if status >= 400:
            raise ValueError(json.loads(body).get("message", "The cluster could not be terminated"))
        self._clusters.wait_until_gone(cluster_id)

    def _create_security(self, logical_id: str, properties: Properties, stack: str) -> Created:
        name = properties.get("Name") or self._provisioners._physical_name(stack, logical_id, max_len=255)
        self._clusters.put_security_configuration(name, properties["SecurityConfiguration"])
        return name, {}

    def _delete_security(self, name: str, _properties: Properties) -> None:
        self._clusters.delete_security_configuration(name)

    # --- Glue ---

    def _create_classifier(self, logical_id: str, properties: Properties, stack: str) -> Created:
        (kind,) = (key for key in properties if key.endswith("Classifier"))
        given = dict(properties[kind])
        given["Name"] = given.get("Name") or self._provisioners._physical_name(stack, logical_id, max_len=255)
        status, _, body = self._glue._create_classifier({kind: given})
        if status >= 400:
            raise ValueError(json.loads(body).get("message", f"The classifier {given['Name']} was refused"))
        return given["Name"], {}

    def _create_glue_security(self, logical_id: str, properties: Properties, _stack: str) -> Created:
        encryption = dict(properties["EncryptionConfiguration"])
        if "S3Encryptions" in encryption:  # its name in a template
            encryption["S3Encryption"] = encryption.pop("S3Encryptions")
        request = {"Name": properties["Name"], "EncryptionConfiguration": encryption}
        status, _, body = self._glue._create_security_configuration(request)
        if status >= 400:
            raise ValueError(json.loads(body).get("message", f"The security configuration {logical_id} was refused"))
        return properties["Name"], {}

    def _delete_glue_security(self, name: str, _properties: Properties) -> None:
        self._glue._delete_security_configuration({"Name": name})

    def _delete_classifier(self, name: str, _properties: Properties) -> None:
        self._glue._delete_classifier({"Name": name})

    # --- S3 ---

    def _watch_bucket(self, logical_id: str, properties: Properties, _stack: str) -> Created:
        return f"{properties['BucketName']}/{logical_id}", {}

    def _empty_bucket(self, _physical_id: str, properties: Properties) -> None:
        """What the CDK's own handler does when a bucket is to go: everything in it goes, all versions too."""
        s3 = client(self._place, "s3")
        bucket = properties["BucketName"]
        try:
            for page in s3.get_paginator("list_object_versions").paginate(Bucket=bucket):
                found = [*page.get("Versions", []), *page.get("DeleteMarkers", [])]
                keys = [{"Key": version["Key"], "VersionId": version["VersionId"]} for version in found]
                if keys:
                    s3.delete_objects(Bucket=bucket, Delete={"Objects": keys, "Quiet": True})
        except s3.exceptions.NoSuchBucket:
            return

    def _add_attributes(self, table: dict[str, Any], kind: str, attributes: Callable[[str], dict[str, Any]]) -> None:
        handler = hooks.existing(table, kind)
        for operation in ("create", "update"):
            handler[operation] = _with_attributes(hooks.existing(handler, operation), attributes)


class Exports:
    """Values that stacks export: while another stack imports one, it is neither changed nor taken away.

    Sources: CloudFormation guide, "Get exported outputs from a deployed stack" and "Outputs"; the words as users have
    reported them (GitHub: linz/geostore#630, anomalyco/sst#1256, rlister/stax#40, aws-amplify/amplify-cli#1581).
    """

    def __init__(self) -> None:
        self._cloudformation = hooks.module("services.cloudformation")
        self._stacks = hooks.module("services.cloudformation.stacks")
        self._handlers = hooks.module("services.cloudformation.handlers")

    def apply(self) -> None:
        """Extends ministack's CloudFormation."""
        for owner, name in (
            (self._cloudformation, "_exports"),
            (self._cloudformation, "_stacks"),
            (self._stacks, "_add_event"),
            (self._handlers, "_imported_export_names"),
            (self._handlers, "_resolve_stack"),
            (self._handlers, "_xml"),
        ):
            hooks.existing(owner, name)
        self._outputs = hooks.replace(self._stacks, "_resolve_stack_outputs", self.resolve_outputs)
        actions = hooks.existing(self._handlers, "_ACTION_HANDLERS")
        self._delete = hooks.replace(actions, "DeleteStack", self.delete_stack)
        self._update = hooks.replace(actions, "UpdateStack", self.update_stack)

    def resolve_outputs(self, *arguments: Any) -> Any:
        """A stack's outputs and exports; ValueError, for which the operation fails, if it may not export so."""
        outputs, exports = self._outputs(*arguments)
        *_, name, stack_id = arguments
        for export, known in list(self._cloudformation._exports.items()):
            if known["StackId"] != stack_id:
                if export in exports:
                    owner = known["StackId"].split("/")[1]
                    raise ValueError(f"Export with name {export} is already exported by stack {owner}")
                continue
            changed = export not in exports or exports[export]["Value"] != known["Value"]
            if changed and (users := self._users(export, name)):
                done = "updated" if export in exports else "deleted"
                raise ValueError(f"Export {export} cannot be {done} as it is in use by {users}")
        return outputs, exports

    def delete_stack(self, given: Any) -> Any:
        """DeleteStack. It is taken, but a stack whose export is in use stays as it is, and an event says why."""
        stack = self._handlers._resolve_stack(_first(given, "StackName"))
        for output in (stack or {}).get("Outputs", []):
            export = output.get("ExportName")
            users = self._users(export, stack["StackName"]) if export else ""
            if users:
                why = f"Export {export} cannot be deleted as it is in use by {users}"
                stack["StackStatusReason"] = why
                who = (stack["StackId"], stack["StackName"], stack["StackName"], "AWS::CloudFormation::Stack")
                self._stacks._add_event(*who, stack["StackStatus"], why, stack["StackId"])
                return self._handlers._xml(200, "DeleteStackResponse", "")
        return self._delete(given)

    def update_stack(self, given: Any) -> Any:
        """UpdateStack, which says of a stack that cannot be updated what AWS says."""
        status, headers, body = self._update(given)
        stack = self._handlers._resolve_stack(_first(given, "StackName")) or {}
        state = stack.get("StackStatus", "")
        said = f"Stack [{stack.get('StackName')}] is in {state} state and cannot be updated"
        told = f"Stack:{stack.get('StackId')} is in {state} state and can not be updated."
        return status, headers, body.replace(said.encode(), told.encode())

    def _users(self, export: str, exporter: str) -> str:
        """The stacks that import it, as AWS lists them."""
        return ", ".join(
            name
            for name, stack in list(self._cloudformation._stacks.items())
            if name != exporter
            and stack.get("StackStatus", "") not in ("DELETE_COMPLETE", "REVIEW_IN_PROGRESS", "ROLLBACK_COMPLETE")
            and export in self._handlers._imported_export_names(stack, name)
        )


def _first(given: Mapping[str, Any], name: str) -> str:
    value = given.get(name, "")
    return str(value[0] if isinstance(value, list) else value)


def with_joins(expression: Any, parameters: Mapping[str, Any]) -> Any:
    """A condition in which each Fn::Join is the text that it makes, which ministack's conditions lack.

    The CDK's bootstrap stack asks so whether a list parameter is empty.
    """
    match expression:
        case {"Fn::Join": [str() as separator, items]}:
            parts = _listed(items, parameters)
            return separator.join(parts) if all(isinstance(part, str) for part in parts) else expression
        case dict():
            return {key: with_joins(inner, parameters) for key, inner in expression.items()}
        case list():
            return [with_joins(inner, parameters) for inner in expression]
    return expression


def _listed(items: Any, parameters: Mapping[str, Any]) -> list[Any]:
    """What Fn::Join joins: a list parameter's items, or each of a list, parameters by their values."""
    match items:
        case {"Ref": name} if name in parameters:
            return [part.strip() for part in str(parameters[name]["Value"]).split(",")]
        case list():
            return [str(parameters[one["Ref"]]["Value"]) if _names(one, parameters) else one for one in items]
    return [items]


def _names(value: Any, parameters: Mapping[str, Any]) -> bool:
    return isinstance(value, dict) and value.keys() == {"Ref"} and value["Ref"] in parameters


def run_job_flow_request(properties: Properties) -> dict[str, Any]:
    """RunJobFlow's request for an AWS::EMR::Cluster: some members have other names or shapes in a template."""
    request: dict[str, Any] = {key: value for key, value in properties.items() if key != "Steps"}
    instances = dict(properties.get("Instances", {}))
    for key in ("TerminationProtected", "KeepJobFlowAliveWhenNoSteps"):
        instances[key] = _true(instances.get(key, key == "KeepJobFlowAliveWhenNoSteps"))
    for kind in ("Group", "Fleet"):
        role_key = "InstanceRole" if kind == "Group" else "InstanceFleetType"
        members = [
            {**instances.pop(f"{role}Instance{kind}"), role_key: role.upper()}
            for role in ("Master", "Core")
            if f"Instance{kind}" in "".join(instances) and f"{role}Instance{kind}" in instances
        ]
        members += [{**task, role_key: "TASK"} for task in instances.pop(f"TaskInstance{kind}s", [])]
        if members:
            instances[f"Instance{kind}s"] = [_counts_as_numbers(member) for member in members]
    request["Instances"] = instances
    request["Configurations"] = [_configuration(one) for one in properties.get("Configurations", [])]
    return request


def _configuration(given: Properties) -> dict[str, Any]:
    named = {"Classification": given["Classification"], "Properties": given.get("ConfigurationProperties", {})}
    return named | {"Configurations": [_configuration(one) for one in given.get("Configurations", [])]}


def _counts_as_numbers(member: Properties) -> dict[str, Any]:
    counts = ("InstanceCount", "TargetOnDemandCapacity", "TargetSpotCapacity")
    return {key: int(value) if key in counts else value for key, value in member.items()}


def _true(value: Any) -> bool:
    return str(value).lower() == "true"


def _secret_name(arn: str) -> str:
    """A secret's ARN ends with its name, a hyphen and six characters."""
    return arn.partition(":secret:")[2][:-7]


def _but_tags(properties: Properties) -> Any:
    return {key: value for key, value in properties.items() if key != "Tags"}


def cluster_identity(properties: Properties) -> Any:
    """What a cluster cannot change: with another value for any of it there must be a new one (the type's reference)."""
    in_place = ("Tags", "AutoTerminationPolicy", "ManagedScalingPolicy", "StepConcurrencyLevel", "VisibleToAllUsers")
    identity = {key: value for key, value in properties.items() if key not in in_place}
    changing = ("TerminationProtected", "TaskInstanceGroups", "TaskInstanceFleets")
    instances = properties.get("Instances", {})
    return identity | {"Instances": {key: value for key, value in instances.items() if key not in changing}}


def _replaced(create: Any, delete: Any, keep: Any, identity: Callable[[Properties], Any]) -> dict[str, Any]:
    """A handler whose update makes a new resource if the identity differs (CloudFormation then deletes the old one)."""

    def update(physical_id: str, old: Properties, new: Properties, stack: str, logical_id: str) -> Any:
        if identity(old) == identity(new):
            return keep(physical_id, new)
        return create(logical_id, new, stack)

    return {"create": create, "delete": delete, "update": update, "update_with_logical_id": True}


def _recreated(create: Any, delete: Any) -> dict[str, Any]:
    """A handler for a resource whose identity is its name: an update deletes it and creates it again."""

    def update(physical_id: str, old: Properties, new: Properties, stack: str, logical_id: str) -> Any:
        delete(physical_id, old)
        return create(logical_id, new, stack)

    return {"create": create, "delete": delete, "update": update, "update_with_logical_id": True}


def _with_attributes(original: Any, attributes: Callable[[str], dict[str, Any]]) -> Any:
    def call(*arguments: Any, **named: Any) -> Created:
        physical_id, found = original(*arguments, **named)[:2]
        return physical_id, {**found, **attributes(physical_id)}

    return call
