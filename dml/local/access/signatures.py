"""Whether a request is signed as AWS wants it, with a key that there is: every request, the root user's too.

ministack believes whoever gives the root user's key id, any account's number or no key at all; and what it answers
without asking its policies it answers to everybody. So dml/local/access/guard.py asks here first. Sources: IAM User
Guide, "AWS Signature Version 4 for API requests" (how it is computed, which headers must be signed); S3 API reference,
"Authenticating Requests (AWS Signature Version 4)" (presigned URLs, x-amz-content-sha256, a quarter of an hour of
clock skew); IAM User Guide, "Troubleshoot Signature Version 4 signing" (five minutes elsewhere) and each service's
"Common Errors" (the codes).
"""

import datetime as dt
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qs

from dml.local import hooks
from dml.local.bodies import Arrived
from dml.local.credentials import ID, SECRET

ALGORITHM = "AWS4-HMAC-SHA256"
LONGEST_SECONDS = 7 * 24 * 3600  # of a presigned URL
SKEW = dt.timedelta(minutes=15)
IN_QUERY = {"x-amz-algorithm", "x-amz-credential", "x-amz-signature", "x-amz-security-token", "awsaccesskeyid"}
# What S3 takes in place of the hash of a body, each with whether the parts of the body are signed.
UNSIGNED = ("UNSIGNED-PAYLOAD", "STREAMING-UNSIGNED-PAYLOAD-TRAILER")
IN_PARTS = ("STREAMING-AWS4-HMAC-SHA256-PAYLOAD", "STREAMING-AWS4-HMAC-SHA256-PAYLOAD-TRAILER")
ONCE = ("authorization", "host", "x-amz-content-sha256", "x-amz-date", "x-amz-security-token", "x-amz-target")
CLOCK = "Set the clock of whoever signs: it must agree with this machine's, within 15 minutes for S3 and 5 for others."


class RefusedError(Exception):
    """A request that nobody, or not who it says, has signed: AWS's code for it, and a sentence."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


@dataclass(frozen=True)
class Request:
    """A request as it arrived, but its body."""

    method: str
    path: str  # as sent, with its %-codes
    query: Mapping[str, Sequence[str]]
    headers: Mapping[str, str]  # by names in small letters; values of several lines with commas between them

    @classmethod
    def of(cls, scope: Mapping[str, Any]) -> "Request":
        """The request of an ASGI scope; RefusedError if it says twice what decides who it is from."""
        decode = hooks.module("core.sigv4").decode_header_value
        headers: dict[str, str] = {}
        for raw, value in scope["headers"]:
            name = raw.decode("latin-1").lower()
            if name in ONCE and name in headers:
                raise RefusedError("IncompleteSignature", f"The request has more than one header {name}.")
            headers[name] = f"{headers[name]},{decode(value)}" if name in headers else decode(value)
        query = parse_qs(scope["query_string"].decode("utf-8", "replace"), keep_blank_values=True)
        return cls(scope["method"], scope["raw_path"].decode("latin-1"), query, headers)


@dataclass(frozen=True)
class Claim:
    """Who a request says it is from, and what must fit for it to be so."""

    request: Request
    signature: Any  # ministack's HeaderSignature
    secret: str
    presigned: bool

    @property
    def key(self) -> str:
        """The id of the access key."""
        return str(self.signature.access_key_id)

    @property
    def is_signed_apart(self) -> bool:
        """Whether the signature is of the body's hash as the request tells it, so that it can be checked before."""
        hashed = self.request.headers.get("x-amz-content-sha256", "")
        return self.signature.service == "s3" and (self.presigned or bool(hashed)) and hashed not in IN_PARTS

    def check(self, body: bytes) -> None:
        """Raises RefusedError unless the key's secret has signed just this request with this body."""
        self.check_hash(body)
        self.check_signed(body)

    def check_hash(self, body: bytes) -> None:
        """Raises RefusedError unless the body is what the request says of it."""
        sigv4, request = hooks.module("core.sigv4"), self.request
        hashed = request.headers.get("x-amz-content-sha256", "")
        if self.signature.service == "s3":
            if not self.presigned and hashed not in UNSIGNED + IN_PARTS and hashed != _sha256(body):
                raise RefusedError(
                    "XAmzContentSHA256Mismatch",
                    "The provided 'x-amz-content-sha256' header does not match what was computed.",
                )
        elif hashed and hashed != _sha256(body):
            raise RefusedError("SignatureDoesNotMatch", sigv4.SIGNATURE_MISMATCH)

    def check_signed(self, body: bytes) -> None:
        """Raises RefusedError unless the key's secret has signed just this request.

        `body`: what is signed if its hash is not told, or in parts.
        """
        sigv4, request = hooks.module("core.sigv4"), self.request
        failure = sigv4.header_signature_failure(
            self.signature,
            self.secret,
            request.method,
            request.path,
            request.query,
            request.headers,
            body,
            presigned=self.presigned,
        )
        if failure:
            raise RefusedError(*failure)


class Signatures:
    """Knows the root user's key; ministack knows all others."""

    def __init__(self, root: Mapping[str, str]) -> None:
        self._root = root
        self._sigv4 = hooks.module("core.sigv4")
        self._evaluator = hooks.module("core.iam_evaluator")
        self._responses = hooks.module("core.responses")
        self._router = hooks.module("core.router")
        for module, names in {
            self._sigv4: ("header_signature_failure", "parse_header_signature", "parse_query_signature"),
            self._evaluator: ("resolve_credential", "find_iam_access_key_account", "is_root_access_key"),
            self._responses: ("_account_from_sts_session",),
            self._router: ("extract_access_key_id", "detect_service"),
        }.items():
            for name in names:
                hooks.existing(module, name)

    def claim(self, request: Request, path: str) -> Claim:
        """All that can be told without the body, which strangers are not to fill the memory with; RefusedError if not.

        `path`: decoded, as ministack reads it.
        """
        header = request.headers.get("authorization", "")
        presigned = any(name.lower() in IN_QUERY for name in request.query)
        if not header and not presigned:
            raise RefusedError("MissingAuthenticationToken", "Request is missing Authentication Token")
        algorithm = header.partition(" ")[0] if header else _first(request.query, "X-Amz-Algorithm")
        if (header and presigned) or algorithm != ALGORITHM:
            raise RefusedError("UnsupportedSignature", f"Requests are signed with {ALGORITHM}, and once.")
        parse = self._sigv4.parse_query_signature if presigned else self._sigv4.parse_header_signature
        signature = parse(request.query if presigned else request.headers)
        if isinstance(signature, tuple):
            raise RefusedError(*signature)
        self._check_time(signature, request, presigned)
        self._check_extent(signature, request, path, presigned)
        token = _first(request.query, "X-Amz-Security-Token") if presigned else request.headers.get(TOKEN, "")
        return Claim(request, signature, self._secret(signature.access_key_id, token), presigned)

    def _check_time(self, signature: Any, request: Request, presigned: bool) -> None:
        try:
            signed = dt.datetime.strptime(signature.amz_date, "%Y%m%dT%H%M%SZ").replace(tzinfo=dt.UTC)
        except ValueError:
            raise RefusedError("IncompleteSignature", f"X-Amz-Date is not a date: '{signature.amz_date}'.") from None
        now = dt.datetime.now(dt.UTC)
        if not presigned or signature.service != "s3":
            skewed = self._sigv4.request_time_failure(signature, now=now)
            if skewed:
                raise RefusedError(skewed[0], f"{skewed[1]} {CLOCK}")
            return
        lasts = _first(request.query, "X-Amz-Expires")
        if not (lasts.isascii() and lasts.isdigit() and 0 < int(lasts) <= LONGEST_SECONDS):
            raise RefusedError("IncompleteSignature", "X-Amz-Expires must be a number of seconds, at most a week.")
        if signed > now + SKEW:
            raise RefusedError("RequestTimeTooSkewed", f"Signature not yet current: {signature.amz_date}. {CLOCK}")
        if now > signed + dt.timedelta(seconds=int(lasts)):
            raise RefusedError("RequestExpired", "Request has expired")

    def _check_extent(self, signature: Any, request: Request, path: str, presigned: bool) -> None:
        """That the signature covers all that decides what the request does."""
        covered = set(signature.signed_headers.split(";"))
        loose = [name for name in request.headers if name.startswith("x-amz-") and name not in covered]
        if "host" not in covered or loose:
            missing = ", ".join([*(() if "host" in covered else ("host",)), *loose])
            raise RefusedError("SignatureDoesNotMatch", f"There are headers that are not signed: {missing}")
        headers, query = dict(request.headers), dict(request.query)
        if self._router.extract_access_key_id(headers, query) != signature.access_key_id:
            raise RefusedError("IncompleteSignature", "The request names more than one access key.")
        # A presigned URL of S3 lasts for a week and has any body: it is for S3 alone.
        if presigned and signature.service == "s3":
            service = self._router.detect_service(request.method, path, headers, query)
            if service != "s3":
                raise RefusedError(
                    "SignatureDoesNotMatch", f"Credential should be scoped to correct service: '{service}'."
                )

    def _secret(self, key: str, token: str) -> str:
        """The secret of an access key in use; `token` is what the request has of a temporary key's session."""
        unknown = RefusedError("InvalidClientTokenId", "The security token included in the request is invalid.")
        if key == self._root[ID]:
            if token:
                raise RefusedError("InvalidToken", str(unknown))
            return self._root[SECRET]
        if self._evaluator.is_root_access_key(key):  # `test`, or any account's number: ministack's ways in
            raise unknown
        try:
            account = self._evaluator.find_iam_access_key_account(key)
        except self._evaluator.AmbiguousAccessKeyError:
            raise unknown from None
        account = account or self._responses._account_from_sts_session(key)
        found = self._evaluator.resolve_credential(key, account, token)
        if isinstance(found, self._evaluator.CredentialResolutionError):
            # A session's key without its token is as good as none.
            raise unknown if found.code == "InvalidToken" and not token else RefusedError(found.code, found.message)
        return str(found.secret_access_key)


TOKEN = "x-amz-security-token"  # noqa: S105  # a header's name


def _sha256(body: bytes) -> str:
    return str((body.sha256 if isinstance(body, Arrived) else hashlib.sha256(body)).hexdigest())


def _first(query: Mapping[str, Sequence[str]], name: str) -> str:
    return (query.get(name) or query.get(name.lower()) or [""])[0]
