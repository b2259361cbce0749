"""S3's objects in the embedded cloud: what S3 refuses before it looks, and what it says of a condition; in the server.

Sources: S3 User Guide, "Naming Amazon S3 objects" (1,024 bytes of UTF-8) and "Conditional writes"; versitygw#2080 (the
answer to a long key); recordings of S3 on AWS (LocalStack's tests, February 2026: a 412 names its condition) and what
LocalStack's provider says of conditions that S3 does not take.
"""

from collections.abc import Mapping
from typing import Any
from xml.sax.saxutils import escape

from dml.local import hooks

KEY_BYTES = 1024
NOT_A_WRITE = {"acl", "annotation", "legal-hold", "partNumber", "restore", "retention", "tagging"}
CONDITIONS = ("If-Match", "If-None-Match", "If-Modified-Since", "If-Unmodified-Since")
NAMES = {name.lower(): name for name in CONDITIONS} | {
    f"x-amz-copy-source-{name.lower()}": f"x-amz-copy-source-{name}" for name in CONDITIONS
}


class ObjectRules:
    """Stands before ministack's S3."""

    def apply(self) -> None:
        """Extends ministack's S3."""
        s3 = hooks.module("services.s3")
        self._parts = hooks.existing(s3, "_parse_bucket_key")
        self._proceed = hooks.replace(s3, "handle_request", self.handle_request)

    async def handle_request(
        self, method: str, path: str, headers: Mapping[str, str], body: bytes, query: Any, *rest: Any, **named: Any
    ) -> Any:
        """S3's API."""
        _, key = self._parts(path, headers)
        given = {name.lower(): value.strip() for name, value in headers.items()}
        size = len(key.encode())
        if size > KEY_BYTES:
            told = {"Size": str(size), "MaxSizeAllowed": str(KEY_BYTES)}
            return refusal(400, "KeyTooLongError", "Your key is too long", told)
        writes = (method == "PUT" and not NOT_A_WRITE & set(query)) or (method == "POST" and "uploadId" in query)
        refused = _unknown_condition(given) if key and writes else None
        if refused:
            return refused
        status, answered, content = await self._proceed(method, path, headers, body, query, *rest, **named)
        asked = [NAMES[name] for name in given if name in NAMES]
        if status == 412 and len(asked) == 1 and isinstance(content, bytes) and b"<Condition>" not in content:
            content = content.replace(b"</Message>", f"</Message><Condition>{asked[0]}</Condition>".encode(), 1)
        return status, answered, content


def _unknown_condition(given: Mapping[str, str]) -> Any:
    """S3's answer to a condition that it does not take of a write; None if it takes it."""
    match, none_match = given.get("if-match"), given.get("if-none-match")
    if match and none_match:
        header, why = "If-Match,If-None-Match", "Multiple conditional request headers present in the request"
    elif match == "*" or none_match not in (None, "", "*"):
        header = "If-Match" if match == "*" else "If-None-Match"
        why = f"We don't accept the provided value of {header} header for this API"
    else:
        return None
    told = {"Header": header, "additionalMessage": why}
    return refusal(501, "NotImplemented", "A header you provided implies functionality that is not implemented", told)


def refusal(status: int, code: str, message: str, told: Mapping[str, str]) -> Any:
    """An error of S3's, with what else it tells."""
    parts = {"Code": code, "Message": message, **told}
    inner = "".join(f"<{name}>{escape(value)}</{name}>" for name, value in parts.items())
    return status, {"Content-Type": "application/xml"}, f"<Error>{inner}</Error>".encode()
