"""How Step Functions calls a service: by the AWS SDK for Java, whose names, blobs and errors its states see.

`aws-sdk:` integrations go by version 2 of the SDK, optimised ones by version 1. Sources: recordings of executions on
AWS (LocalStack's snapshots, November 2025 for S3 and Step Functions), and the SDK's own code generator, in
aws-sdk-java-v2: Utils.unCapitalize for members, DefaultNamingStrategy for services and exceptions.
"""

import datetime
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from botocore.exceptions import ClientError
from botocore.model import ServiceModel, Shape

from stacks.arguments import member_name


@dataclass(frozen=True)
class Optimised:
    """How an optimised integration names its service: `prefix` in errors, `full` in causes."""

    prefix: str
    full: str


OPTIMISED = {
    "emr": Optimised("ElasticMapReduce", "AmazonElasticMapReduce"),
    "glue": Optimised("Glue", "AWSGlue"),
    "sns": Optimised("SNS", "AmazonSNS"),
}


def service_name(model: ServiceModel) -> str:
    """The service's name in errors of `aws-sdk:` integrations: Emr, Sfn, CloudWatch, DynamoDb."""
    name = class_name(str(model.service_id))
    for leading in ("Amazon", "Aws"):
        name = name.removeprefix(leading)
    return name.removesuffix("Service")


def class_name(name: str) -> str:
    """Words are capitalised, acronyms are words: EMR is Emr, DynamoDB is DynamoDb, CloudWatch Logs CloudWatchLogs."""
    words = re.findall(r"[A-Z]+(?![a-z])\d*|[A-Z]?[a-z]+\d*|\d+", name)
    return "".join(word[:1].upper() + word[1:].lower() for word in words)


def exception_name(shape: str) -> str:
    """An error's class: NoSuchKey is NoSuchKeyException, InternalServiceFault is InternalServiceException."""
    return class_name(shape.removesuffix("Fault").removesuffix("Exception")) + "Exception"


def to_wire(value: Any, shape: Shape) -> Any:
    """A state's arguments as boto3 takes them. A member that the shape lacks stays, so that boto3 names it."""
    if value is None:
        return None
    if shape.type_name == "structure" and isinstance(value, dict):
        names = {member_name(name): name for name in shape.members}
        return {
            names.get(key, key): to_wire(item, shape.members[names[key]]) if key in names else item
            for key, item in value.items()
            if item is not None
        }
    if shape.type_name == "list" and isinstance(value, list):
        return [to_wire(item, shape.member) for item in value]
    if shape.type_name == "map" and isinstance(value, dict):
        return {key: to_wire(item, shape.value) for key, item in value.items()}
    if shape.type_name in ("integer", "long") and isinstance(value, float) and value.is_integer():
        return int(value)  # JSONata knows one kind of number
    if shape.type_name == "blob":
        return blob(value)
    return value


def blob(value: Any) -> bytes:
    """A blob is whatever the state gives, as compact JSON: a text is stored in quotes (recorded: its ETag)."""
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode()


def from_wire(value: Any, shape: Shape) -> Any:
    """boto3's answer as a state reads it."""
    if shape.type_name == "structure" and isinstance(value, dict):
        return {
            member_name(key): from_wire(item, shape.members[key]) for key, item in value.items() if key in shape.members
        }
    if shape.type_name == "list" and isinstance(value, list):
        return [from_wire(item, shape.member) for item in value]
    if shape.type_name == "map" and isinstance(value, dict):
        return {key: from_wire(item, shape.value) for key, item in value.items()}
    if isinstance(value, datetime.datetime):
        return value.astimezone(datetime.UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    if shape.type_name == "blob":
        return (value.read() if hasattr(value, "read") else value).decode("utf-8", errors="replace")
    return value


def failed_call(error: ClientError, model: ServiceModel, *, optimised: bool) -> tuple[str, str]:
    """A failed call's error and cause. A code that the service's model does not know gets the service's own name.

    So a conditional PutObject that loses is S3.S3Exception, EMR's throttling Emr.EmrException: the cause tells more.
    """
    told, metadata = error.response["Error"], error.response.get("ResponseMetadata", {})
    code, message = told.get("Code", ""), told.get("Message", "")
    status, request = metadata.get("HTTPStatusCode"), metadata.get("RequestId", "")
    shape = _modelled(model).get(code)
    if optimised:
        names = OPTIMISED[model.service_name]
        cause = f"{message} (Service: {names.full}; Status Code: {status}; Error Code: {code}; Request ID: {request}"
        return (
            f"{names.prefix}.{exception_name(shape) if shape else names.full + 'Exception'}",
            f"{cause}; Proxy: null)",
        )
    name = service_name(model)
    host = f", Extended Request ID: {metadata.get('HostId', '')}" if model.service_name == "s3" else ""
    cause = f"{message} (Service: {name}, Status Code: {status}, Request ID: {request}{host}) (SDK Attempt Count: 1)"
    return f"{name}.{exception_name(shape) if shape else name + 'Exception'}", cause


def _modelled(model: ServiceModel) -> Mapping[str, str]:
    """The service's error shapes by the codes that it answers."""
    shapes = {shape.name: shape.name for shape in model.error_shapes}
    shapes |= {shape.error_code: shape.name for shape in model.error_shapes}
    # S3 knows it for one new operation alone; what Step Functions reports for the others is S3.S3Exception.
    shapes.pop("AccessDenied", None)
    return shapes
