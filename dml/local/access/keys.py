"""Which customer-managed KMS keys a call uses on its caller's behalf, and grants on keys; in the server's process.

S3, SNS and Secrets Manager call KMS as whoever reads, writes or publishes: the caller needs the right in its own
policies and in the key's. Sources: S3 guide, "Using server-side encryption with AWS KMS keys" and "Reducing the cost of
SSE-KMS with Amazon S3 Bucket Keys" (then the encryption context is the bucket); SNS guide, "Managing Amazon SNS
encryption keys"; Secrets Manager guide, "Secret encryption and decryption in AWS Secrets Manager"; KMS guide, "Grants
in AWS KMS"; CloudWatch Logs guide, "Encrypt log data using AWS KMS".
"""

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple
from xml.sax.saxutils import escape

from dml.local import hooks

ALGORITHM = "x-amz-server-side-encryption"
KEY_HEADER = f"{ALGORITHM}-aws-kms-key-id"


class Use(NamedTuple):
    """One call of KMS that another call brings about."""

    action: str
    key: str
    context: Mapping[str, Any]


class Object(NamedTuple):
    """An S3 request on an object, as far as encryption is concerned."""

    method: str
    headers: Mapping[str, str]
    query: Mapping[str, Any]


def uses_of_object(request: Object, action: str, resource: str, region: str) -> Iterator[Use]:
    """What reading or writing an object needs of KMS; nothing where S3's own or AWS's own key encrypts."""
    bucket, _, name = resource.removeprefix("arn:aws:s3:::").partition("/")
    s3 = hooks.module("services.s3")
    context = {"aws:s3:arn": f"arn:aws:s3:::{bucket}" if _has_bucket_key(s3, bucket) else resource}
    if action in ("s3:GetObject", "s3:GetObjectVersion") and request.method != "HEAD":
        record = (s3._buckets.get(bucket) or {"objects": {}})["objects"].get(name)
        yield from _uses("s3", region, ["Decrypt"], (record or {}).get("preserved_headers", {}), context)
    elif action == "s3:PutObject":
        upload = s3._multipart_uploads.get(_first(request.query.get("uploadId")))
        if upload:  # a part, or the end of an upload: S3 decrypts the parts that it has
            yield from _uses("s3", region, ["Decrypt"], upload["preserved_headers"], context)
        else:
            given = request.headers if request.headers.get(ALGORITHM) else s3._bucket_default_sse_headers(bucket)
            yield from _uses("s3", region, ["GenerateDataKey"], given, context)


def uses_of_topic(topic: str, region: str) -> Iterator[Use]:
    """What publishing to a topic needs of KMS."""
    record = hooks.module("services.sns")._topics.get(topic) or {}
    key = (record.get("attributes") or {}).get("KmsMasterKeyId")
    given = {ALGORITHM: "aws:kms", KEY_HEADER: key} if key else {}
    return _uses("sns", region, ["GenerateDataKey", "Decrypt"], given, {"aws:sns:topicArn": topic})


def uses_of_secret(secret: str, region: str) -> Iterator[Use]:
    """What reading a secret's value (by its ARN) needs of KMS."""
    _, record = hooks.module("services.secretsmanager")._resolve(secret)
    key, versions = (record or {}).get("KmsKeyId"), (record or {}).get("Versions", {})
    given = {ALGORITHM: "aws:kms", KEY_HEADER: key} if key else {}
    current = next((name for name, one in versions.items() if "AWSCURRENT" in one["Stages"]), "")
    context = {"SecretARN": secret, "SecretVersionId": current}
    return _uses("secretsmanager", region, ["Decrypt"], given, context)


def _uses(
    service: str, region: str, operations: list[str], headers: Mapping[str, str], context: Mapping[str, str]
) -> Iterator[Use]:
    if not headers.get(ALGORITHM, "").startswith("aws:kms"):
        return
    record = hooks.module("services.kms")._resolve_key(headers.get(KEY_HEADER))
    if record is None or record.get("KeyManager") == "AWS":
        return  # AWS's own key for the service: its policy lets everybody in the account use it through the service
    for operation in operations:
        yield Use(f"kms:{operation}", record["Arn"], through(service, region, context))


def through(service: str, region: str, context: Mapping[str, str]) -> dict[str, Any]:
    """The condition keys of a call of KMS that a service makes for somebody."""
    pairs = {f"kms:EncryptionContext:{name}": value for name, value in context.items()}
    account = hooks.module("core.responses").get_account_id()
    return {
        "kms:ViaService": f"{service}.{region}.amazonaws.com",
        "kms:CallerAccount": account,
        "kms:EncryptionContextKeys": list(context),
        **pairs,
    }


def grant(principal: str, action: str, key: str, context: Mapping[str, Any]) -> str:
    """The id of a grant by which `principal` (an ARN) may do `action` on `key`; empty if there is none."""
    given = {
        name.removeprefix("kms:EncryptionContext:"): value
        for name, value in context.items()
        if name.startswith("kms:EncryptionContext:")
    }
    for record in hooks.module("services.kms")._grants.values():
        constraints = record.get("Constraints") or {}
        equal, subset = constraints.get("EncryptionContextEquals"), constraints.get("EncryptionContextSubset", {})
        if (
            record["KeyId"] == key
            and _same(record["GranteePrincipal"], principal)
            and action.partition(":")[2] in record["Operations"]
            and (equal is None or equal == given)
            and subset.items() <= given.items()
        ):
            return str(record["GrantId"])
    return ""


def service_may_use(service: str, key: str, action: str, context: Mapping[str, str]) -> bool:
    """Whether a key's policy lets an AWS service use it, such as logs.us-east-1.amazonaws.com for a log group."""
    record = hooks.module("services.kms")._resolve_key(key)
    if record is None:
        return False
    evaluator = hooks.module("core.iam_evaluator")
    asked = evaluator.EvalContext(
        principal_arn=service,
        principal_type="Service",
        principal_account="",
        action=action,
        resource_arn=record["Arn"],
        region=hooks.module("core.responses").get_region(),
        service_context={f"kms:EncryptionContext:{name}".lower(): value for name, value in context.items()},
    )
    decided = evaluator.evaluate_resource_policy(record.get("Policy"), asked, service=service)
    return bool(decided.decision == "Allow")


def check_log_groups(table: dict[str, Any]) -> None:
    """A log group whose key does not let CloudWatch Logs use it is refused, as on AWS."""
    handler = hooks.existing(table, "AWS::Logs::LogGroup")
    create = hooks.existing(handler, "create")

    def checked(logical_id: str, properties: Mapping[str, Any], stack: str) -> Any:
        name, attributes = create(logical_id, properties, stack)[:2]
        arn, key = attributes["Arn"].removesuffix(":*"), properties.get("KmsKeyId")
        region = arn.split(":")[3]
        logs = f"logs.{region}.amazonaws.com"
        if key and not service_may_use(logs, key, "kms:GenerateDataKey", {"aws:logs:arn": arn}):
            hooks.existing(handler, "delete")(name, properties)
            raise ValueError(f"The specified KMS key does not exist or is not allowed to be used with LogGroup '{arn}'")
        return name, attributes

    handler["create"] = checked


def encrypt_buckets(table: dict[str, Any]) -> None:
    """Buckets of templates encrypt by default as the template says, which ministack's forget."""
    handler = hooks.existing(table, "AWS::S3::Bucket")
    create, update = hooks.existing(handler, "create"), hooks.existing(handler, "update")
    known = hooks.module("services.s3")._bucket_encryption

    def encrypting(name: str, properties: Mapping[str, Any]) -> None:
        given = properties.get("BucketEncryption", {}).get("ServerSideEncryptionConfiguration", [])
        # AWS's own key for S3, as CDK's bootstrap wants it, does not exist here: that is as good as S3's encryption.
        rules = [rule for rule in given if rule.get("ServerSideEncryptionByDefault", {}).get("KMSMasterKeyID")]
        if rules:
            root = "ServerSideEncryptionConfiguration"
            known[name] = f"<{root}>{''.join(map(_rule, rules))}</{root}>"
        else:
            known.pop(name, None)

    def made(logical_id: str, properties: Mapping[str, Any], stack: str) -> Any:
        result = create(logical_id, properties, stack)
        encrypting(result[0], properties)
        return result

    def changed(name: str, old: Any, new: Mapping[str, Any], *rest: Any, **named: Any) -> Any:
        result = update(name, old, new, *rest, **named)
        encrypting(result[0], new)
        return result

    handler.update(create=made, update=changed)


def _rule(given: Mapping[str, Any]) -> str:
    """A rule of a template as PutBucketEncryption takes it."""
    default = given.get("ServerSideEncryptionByDefault", {})
    names = {"SSEAlgorithm": default.get("SSEAlgorithm", "AES256"), "KMSMasterKeyID": default.get("KMSMasterKeyID")}
    inner = "".join(f"<{name}>{escape(value)}</{name}>" for name, value in names.items() if value)
    by_bucket = str(given.get("BucketKeyEnabled", False)).lower()
    return (
        f"<Rule><ApplyServerSideEncryptionByDefault>{inner}</ApplyServerSideEncryptionByDefault>"
        f"<BucketKeyEnabled>{by_bucket}</BucketKeyEnabled></Rule>"
    )


def _has_bucket_key(s3: Any, bucket: str) -> bool:
    return "<BucketKeyEnabled>true" in (s3._bucket_encryption.get(bucket) or "")


def _same(grantee: str, principal: str) -> bool:
    role = principal.replace(":sts:", ":iam:").replace(":assumed-role/", ":role/").rpartition("/")[0]
    return grantee in (principal, role)


def _first(value: Any) -> Any:
    return value[0] if isinstance(value, list) else value
