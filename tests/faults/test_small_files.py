"""The small JSON files in S3 that hold a run together, when S3 is busy, breaks off, or holds something else."""

import datetime as dt
from collections.abc import Callable, Iterator
from typing import Any

import boto3
import botocore.auth
import pytest
from botocore.config import Config

from dml.local.place import REGION
from jobs.errors import JobError
from jobs.tables import storage
from tests.embedded import Clients
from tests.faults.proxy import Fault, Proxy
from tests.shipped import role

BUCKET = "faults-small-files"
URI = f"s3://{BUCKET}/points/CURRENT.json"
Connect = Callable[..., Any]
POINTER = {"run_id": "r1", "model": "s3://m/points/r1/"}


@pytest.fixture(scope="module")
def keys(aws: Clients) -> dict[str, str]:
    """Those of a role, as a job has them."""
    return role(aws, "faults-small-files", {"Effect": "Allow", "Action": "s3:*", "Resource": "*"})


@pytest.fixture
def connect(aws: Clients, proxy: Proxy, keys: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> Iterator[Connect]:
    """S3 through the proxy, by a client as the jobs make it; CURRENT.json is there."""
    aws("s3").create_bucket(Bucket=BUCKET)
    storage.write_json(aws("s3"), URI, POINTER)
    for name, value in (keys | {"AWS_ENDPOINT_URL": proxy.endpoint}).items():
        monkeypatch.setenv(name, value)

    def connect(attempts: int | None = None, seconds: float = 60) -> Any:
        if attempts:
            monkeypatch.setenv("AWS_MAX_ATTEMPTS", str(attempts))
        return boto3.client("s3", region_name=REGION, config=Config(read_timeout=seconds))

    yield connect
    aws("s3").delete_object(Bucket=BUCKET, Key="points/CURRENT.json")
    aws("s3").delete_bucket(Bucket=BUCKET)


@pytest.mark.parametrize(
    "fault", [Fault("GET", "CURRENT", 503, 2), Fault("GET", "CURRENT", 500, 2), Fault("GET", "CURRENT", "cut", 2)]
)
def test_a_short_fault_should_not_be_noticed_by_who_reads(connect: Connect, proxy: Proxy, fault: Fault) -> None:
    proxy.faults = [fault]
    fault.seen = 0
    assert storage.read_json(connect(), URI) == POINTER
    assert fault.seen == 2


def test_a_short_fault_should_not_be_noticed_by_who_writes(connect: Connect, proxy: Proxy) -> None:
    proxy.faults = [Fault("PUT", "CURRENT", 503, 2)]
    storage.write_json(connect(), URI, POINTER | {"run_id": "r2"})
    assert proxy.faults[0].seen == 2
    assert storage.read_json(connect(), URI) == POINTER | {"run_id": "r2"}


@pytest.mark.parametrize(
    ("what", "told"), [(503, "SlowDown.*reduce your request rate"), ("cut", "broken|incomplete|IncompleteRead")]
)
def test_a_lasting_fault_should_name_the_file_and_what_s3_says(
    connect: Connect, proxy: Proxy, what: Any, told: str
) -> None:
    proxy.faults = [Fault("GET", "CURRENT", what)]
    with pytest.raises(JobError, match=rf"^{URI} cannot be read, and S3 says why; run again .*({told})"):
        storage.read_json(connect(attempts=2), URI)


def test_a_write_that_s3_does_not_take_should_name_the_file_and_leave_the_old_one(
    connect: Connect, proxy: Proxy
) -> None:
    proxy.faults = [Fault("PUT", "CURRENT", 500)]
    with pytest.raises(JobError, match=rf"^{URI} cannot be written, and S3 says why; run again .*InternalError"):
        storage.write_json(connect(attempts=2), URI, POINTER | {"run_id": "r2"})
    assert storage.read_json(connect(attempts=2), URI) == POINTER


@pytest.mark.parametrize("what", ["held", "stuck"])
def test_a_stall_should_not_be_noticed_by_who_reads(connect: Connect, proxy: Proxy, what: Any) -> None:
    proxy.faults = [Fault("GET", "CURRENT", what, 2)]
    assert storage.read_json(connect(seconds=0.5), URI) == POINTER
    assert proxy.faults[0].seen == 2


def test_a_stall_should_not_be_noticed_by_who_writes(connect: Connect, proxy: Proxy) -> None:
    proxy.faults = [Fault("PUT", "CURRENT", "held", 2)]
    storage.write_json(connect(seconds=0.5), URI, POINTER | {"run_id": "r2"})
    assert proxy.faults[0].seen == 2
    assert storage.read_json(connect(), URI) == POINTER | {"run_id": "r2"}


@pytest.mark.parametrize("what", ["held", "stuck"])
def test_a_read_that_s3_never_answers_should_name_the_file_and_how_long_it_took(
    connect: Connect, proxy: Proxy, what: Any
) -> None:
    proxy.faults = [Fault("GET", "CURRENT", what)]
    silent = r"S3 was silent for 0\.5 s each time that it was asked\. Run again when it answers\.$"
    with pytest.raises(JobError, match=rf"^{URI} cannot be read: {silent}"):
        storage.read_json(connect(attempts=2, seconds=0.5), URI)


def test_a_write_that_s3_never_answers_should_say_that_it_may_be_done_and_leave_a_whole_file(
    connect: Connect, proxy: Proxy
) -> None:
    proxy.faults = [Fault("PUT", "CURRENT", "held")]
    new = POINTER | {"run_id": "r2"}
    with pytest.raises(JobError, match=rf"^{URI} cannot be written, or was .*: S3 was silent for 0\.5 s .* Run again"):
        storage.write_json(connect(attempts=2, seconds=0.5), URI, new)
    assert storage.read_json(connect(), URI) in (POINTER, new)


@pytest.mark.parametrize("body", [b'{"run_id": "r1", "mod', b"", b"\xff\xfe\x00"])
def test_a_file_that_is_no_json_should_be_named_with_the_way_out(connect: Connect, body: bytes) -> None:
    connect().put_object(Bucket=BUCKET, Key="points/CURRENT.json", Body=body)
    with pytest.raises(JobError, match=rf"^{URI} is no JSON \(.*\): put back the version before it"):
        storage.read_json(connect(), URI)


@pytest.mark.parametrize("hours", [-1, 1])
def test_a_clock_that_is_an_hour_off_should_be_told_as_that(
    connect: Connect, monkeypatch: pytest.MonkeyPatch, hours: int
) -> None:
    """S3 takes a signature for fifteen minutes; the file that could not be read is still named."""
    right: Callable[..., dt.datetime] = botocore.auth.get_current_datetime
    wrong = dt.timedelta(hours=hours)
    with monkeypatch.context() as clock:
        clock.setattr(botocore.auth, "get_current_datetime", lambda *given: right(*given) + wrong)
        with pytest.raises(JobError, match=rf"^{URI} cannot be read, .*RequestTimeTooSkewed"):
            storage.read_json(connect(), URI)
