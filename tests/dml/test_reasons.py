"""Places that catch an error of AWS, DuckDB, the machine or a file: what is said then has the cause in it."""

import errno
import gzip
import os
import re
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import duckdb
import pytest
from boto3.exceptions import S3UploadFailedError
from botocore.exceptions import (
    ClientError,
    EndpointConnectionError,
    IncompleteReadError,
    NoCredentialsError,
    NoRegionError,
    WaiterError,
)

from dml import cdk
from dml.cost import assembly, prices
from dml.dataset import csv_file
from dml.dataset import new as own
from dml.doctor import account, change_sets
from dml.doctor.findings import Skipped
from dml.errors import UserError
from dml.estate import certificate, data, receipt
from dml.estate.inventory import Stack
from dml.estate.platform import answering
from dml.estate.receipt import Elsewhere, Receipt
from dml.estate.teardown import Taking
from dml.local import cloud, credentials, hooks
from dml.local.yarn import jars
from dml.models import cells, registry, score
from dml.runs import pipeline, run
from tests.jobs import points

WHY = "User: arn:aws:iam::1:user/ada is not authorized to perform: it"
GONE = EndpointConnectionError(endpoint_url="https://s3.example")


def refusal(code: str = "AccessDenied", message: str = WHY) -> ClientError:
    return ClientError({"Error": {"Code": code, "Message": message}}, "Call")


class Service:
    """A boto3 client whose calls answer with what is given, or raise it; all others are refused."""

    def __init__(self, **answers: Any) -> None:
        self._answers = answers
        self.meta = SimpleNamespace(region_name="us-east-1")
        self.exceptions = SimpleNamespace(NoSuchKey=type("NoSuchKey", (Exception,), {}))

    def __getattr__(self, name: str) -> Callable[..., Any]:
        def call(*_: Any, **__: Any) -> Any:
            answer = self._answers.get(name, refusal())
            if isinstance(answer, Exception):
                raise answer
            return answer

        return call


def platform(**services: Service) -> Any:
    return SimpleNamespace(
        environment="dev",
        endpoint="",
        region="us-east-1",
        s3=services.get("s3", Service()),
        client=lambda name: services.get(name, Service()),
        output=lambda key, dataset="": "bucket",
        uri=lambda _bucket, key: f"s3://bucket/{key}",
        command=lambda command: f"dml {command}",
        check_running=lambda: None,
    )


def pushed(s3: Service, tmp_path: Path) -> None:
    (tmp_path / "points.csv").write_text("id\n1\n")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(data, "raw_files", lambda _dataset, _cache: {"points": {"points.csv": tmp_path / "points.csv"}})
        data.push(platform(s3=s3), points.settings(), cache=tmp_path, on_progress=lambda _: None)


def file(tmp_path: Path, name: str, content: bytes) -> Path:
    (tmp_path / name).write_bytes(content)
    return tmp_path / name


def read_jars(tmp_path: Path) -> None:
    with pytest.MonkeyPatch.context() as patch:

        def slow(*_: Any, **__: Any) -> Any:
            raise subprocess.TimeoutExpired("ivy", 1)

        patch.setattr(subprocess, "run", slow)
        jars.ready(tmp_path, lambda _: None)


def sniffed(path: Path, error: str) -> None:
    def fails(*_: Any, **__: Any) -> Any:
        raise duckdb.Error(error)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(duckdb, "execute", fails)
        csv_file._sniff(path, "utf-8", 0, header=True)


PACKED = gzip.compress(b'{"a": 1}\n' * 999)
MISSING = refusal("404", "Not Found")
CASES: dict[str, tuple[Callable[[Path], object], str]] = {
    "a certificate": (
        lambda _: certificate.ensure(platform(), renew=True),
        rf"Could not write the nodes' certificate to s3://bucket/tls/certificate.zip: .*{WHY}",
    ),
    "a look at it": (lambda _: certificate.ensure(platform()), rf"Could not look at s3://bucket/tls/.*: .*{WHY}"),
    "a raw file's object": (
        lambda at: pushed(Service(), at),
        rf"Could not look at s3://bucket/points/points/points.csv: .*{WHY}",
    ),
    "an upload": (
        lambda at: pushed(Service(head_object=MISSING, upload_file=S3UploadFailedError(f"Failed: {WHY}")), at),
        rf"Could not upload points.csv to s3://bucket/points/points/points.csv: Failed: {WHY}",
    ),
    "a start": (
        lambda _: pipeline.start(platform(), "points", "run"),
        rf"Could not start the pipeline of points: .*{WHY}",
    ),
    "a list of models": (
        lambda _: registry.Registry(platform(), "points").runs(),
        rf"AWS did not let us list s3://bucket/points/: .*{WHY}",
    ),
    "a receipt": (
        lambda at: receipt._read(file(at, "dev-1.json", b"[]")),
        r"dev-1.json is no receipt of this version of dml \('list' object has no attribute 'items'\). Move it away",
    ),
    "a receipt that is cut": (
        lambda at: receipt._read(file(at, "dev-1.json", b'{"environment": "dev"')),
        r"dev-1.json is no receipt .*line 1 column 22",
    ),
    "a price table": (
        lambda at: prices.load(file(at, "prices.toml", b"a = 1\nb = \n")),
        r"prices.toml is not a price table: Invalid value \(at line 2, column 5\)",
    ),
    "Node": (
        lambda at: cdk.run(["synth"], folder=at, environment={}, log=at / "log", on_progress=lambda _: None),
        "Node is missing, which the AWS CDK CLI needs. Set the project up: make setup",
    ),
    "keys' place": (
        lambda at: [(at / "keys").mkdir(), (at / "keys" / "one").touch(), credentials._write(at / "keys", "{}")],
        "keys is a folder, where the keys of the embedded cloud belong. Move it away",
    ),
    "jars": (read_jars, r"they did not come within \d+ minutes"),
    "a model": (lambda at: score.read_tree(file(at, "tree.json", b"{\n1}")), "is no JSON: .*line 2 column 1"),
    "a model in other letters": (lambda at: score.read_tree(file(at, "tree.json", b'{"\xfc"')), "is no JSON: .*0xfc"),
    "Parquet": (
        lambda at: cells.fields_of(file(at, "a.parquet", b"PAR1abcdefgh\xff\xff\0\0PAR1"), "parquet"),
        r"a.parquet cannot be read as Parquet: .*\w",
    ),
    "JSON in Latin-1": (
        lambda at: cells.fields_of(file(at, "a.jsonl", b'{"a": "\xfc"}\n'), "jsonl"),
        r"a.jsonl is not UTF-8 \(invalid start byte\), as JSON is: convert it",
    ),
    "packed JSON": (
        lambda at: cells.fields_of(file(at, "a.jsonl.gz", PACKED[:-9]), "jsonl"),
        "a.jsonl.gz is not a whole gzip file: Compressed file ended",
    ),
    "a packed CSV": (
        lambda at: own.new(
            "d", [file(at, "d.csv.gz", gzip.compress(b"a,b\n" * 999)[:-9])], "a", columns=[], on_progress=print
        ),
        "d.csv.gz cannot be read: Compressed file ended",
    ),
    "CSV that no delimiter cuts": (
        lambda at: sniffed(file(at, "d.csv", b"a"), 'Error when sniffing file "d.csv".\nIt was not possible'),
        r"d.csv is not CSV: no delimiter \(comma, semicolon, tab, \|\) cuts its lines",
    ),
    "CSV that is not read": (
        lambda at: sniffed(file(at, "d.csv", b"a"), "IO Error: Could not write: No space left on device\n\nLINE 1: X"),
        r"d.csv cannot be read as CSV: IO Error: Could not write: No space left on device$",
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_an_error_should_reach_the_operator_with_its_cause(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    call, said = CASES[name]
    monkeypatch.setattr(cdk, "with_own_programs", lambda _: str(tmp_path))  # where there is no Node
    with pytest.raises(UserError, match=said) as raised:
        call(tmp_path)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (NoCredentialsError(), "No AWS credentials were found. Sign in"),
        (refusal(), f"AWS did not let us read it: .*{WHY}"),
        (GONE, "Could not reach AWS to read it: .*https://s3.example"),
    ],
)
def test_what_boto3_raises_should_be_a_sentence_with_its_words(error: Exception, said: str) -> None:
    with pytest.raises(UserError, match=said), answering("read it"):
        raise error


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (GONE, "not reached: .*https://s3.example"),
        (IncompleteReadError(actual_bytes=1, expected_bytes=2), "no usable answer: 1 read, but total bytes expected"),
        (UserError("No AWS region is set."), "No AWS region is set."),
        (refusal(), "you lack the right to call Call: User"),
    ],
)
def test_a_question_that_is_not_answered_should_be_skipped_with_the_reason(error: Exception, said: str) -> None:
    with pytest.raises(Skipped, match=said), account.reasons():
        raise error


@pytest.mark.parametrize("error", [UserError("The profile ada is not there."), NoRegionError(), GONE])
def test_a_doctor_without_an_answer_on_credentials_should_say_why(error: Exception) -> None:
    class Nobody:
        @property
        def identity(self) -> Any:
            raise error

    found = account.credentials(Nobody())  # type: ignore[arg-type]
    assert (found.status, str(error) in f"{found.found} {found.advice}") == ("problem", True)


def test_a_template_that_cannot_be_taken_away_again_should_be_named_with_the_command() -> None:
    s3 = Service(put_object={}, delete_object=refusal())
    needs = SimpleNamespace(bootstrap_parameter="/cdk-bootstrap/hnb/version")
    asked = SimpleNamespace(needs=needs, identity={"Account": "1"}, platform=platform(), client=lambda _: s3)
    left: list[str] = []
    with change_sets._body(asked, "dml-dev-data", "x" * 60_000, left) as body:  # type: ignore[arg-type]
        assert body["TemplateURL"].startswith(
            "https://s3.us-east-1.amazonaws.com/cdk-hnb-assets-1-us-east-1/dml-doctor/"
        )
    assert WHY in left[0] and "remove it: aws s3 rm s3://cdk-hnb-assets-1-us-east-1/dml-doctor/" in left[0]


@pytest.mark.parametrize("noted", [b"", b"[]", b'{"expires": "soon"}', b'{"until": 1}'])
def test_a_certificates_end_that_is_not_as_written_should_be_nobodys_knowledge(noted: bytes) -> None:
    s3 = Service(head_object={}, get_object={"Body": SimpleNamespace(read=lambda: noted)}, put_object={})
    assert certificate.ends_at(s3, "bucket") is None
    assert "a new certificate" in str(certificate.ensure(platform(s3=s3)))


@pytest.mark.parametrize(
    ("number", "said"),
    [
        (errno.ENOSPC, "The disk under .* is full. Free some space"),
        (errno.EROFS, "cannot be written to: Read-only file system. Run dml in a folder of your own"),
        (errno.EACCES, "cannot be written to: Permission denied"),
    ],
)
def test_a_disk_that_takes_nothing_should_be_told(number: int, said: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=said), cloud._disk_errors(tmp_path):
        raise OSError(number, os.strerror(number))
    with pytest.raises(OSError, match="Input/output"), cloud._disk_errors(tmp_path):
        raise OSError(errno.EIO, os.strerror(errno.EIO))


def test_a_set_up_without_ministack_should_name_the_way(monkeypatch: pytest.MonkeyPatch) -> None:
    def lacking(_: str) -> str:
        raise hooks.metadata.PackageNotFoundError("ministack")

    monkeypatch.setattr(hooks.metadata, "version", lacking)
    with pytest.raises(hooks.HookError, match=r"ministack is not installed. Set the project up again: make setup"):
        hooks.check_version()


def test_an_app_that_makes_no_templates_should_be_quoted_by_dml_cost(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuses(*_: Any, **__: Any) -> None:
        raise cdk.SynthError("datasets/d/dataset.toml: label is missing.", "")

    monkeypatch.setattr(cdk, "synthesize", refuses)
    with pytest.raises(
        UserError, match=r"The app made no templates of dev: datasets/d/dataset.toml: label is missing."
    ):
        assembly.synthesize("dev")


def test_a_former_stack_that_stays_should_come_with_cloudformations_reason() -> None:
    waiter = SimpleNamespace(wait=lambda **_: (_ for _ in ()).throw(WaiterError("deleted", "it failed", {})))
    page = {"Stacks": [{"StackName": "dml-dev-etl"}], "StackResourceSummaries": []}
    service = Service(get_paginator=SimpleNamespace(paginate=lambda **_: [page]), delete_stack={}, get_waiter=waiter)
    with pytest.raises(
        UserError, match=r"dml-dev-etl, which is of a former release .* Waiter deleted failed: it failed"
    ):
        cdk.make_way(lambda _: service, "dml-dev-", on_progress=lambda _: None, every=1.0)


def taking(**answers: Any) -> Taking:
    """Of a stack that stands, or as `answers` say."""
    status = {"Stacks": [{"StackStatus": "DELETE_FAILED", "StackStatusReason": "Export x is in use by y"}]}
    pages = SimpleNamespace(paginate=lambda **_: [{"StackEvents": []}])
    service = Service(**{"describe_stacks": status, "delete_stack": {}, "get_paginator": pages, **answers})
    return Taking(
        platform(cloudformation=service, logs=service), Receipt("dev", "", "", "", "", ""), say=lambda _: None, every=0
    )


@pytest.mark.parametrize(
    ("answers", "said"),
    [
        ({}, "dml-dev-data was not deleted: Export x is in use by y. Mend that"),
        ({"delete_stack": refusal()}, f"dml-dev-data was not deleted: .*{WHY}. Mend that"),
        ({"describe_stacks": GONE}, "dml-dev-data was not deleted: .*https://s3.example.*. Mend that"),
    ],
)
def test_a_stack_that_stays_should_be_a_problem_with_its_reason(answers: dict[str, Any], said: str) -> None:
    made = taking(**answers)
    made.delete(Stack("dml-dev-data", "arn:data", "data", protected=False))
    (problem,) = made.receipt.problems
    assert re.search(said, problem), problem


def test_a_log_group_that_stays_should_be_failed_with_its_reason() -> None:
    made = taking()
    made.receipt.elsewhere.append(Elsewhere("log group", "/aws/one", "", outcome=""))
    made.delete_own_logs()
    (one,) = made.receipt.elsewhere
    assert (one.outcome, WHY in one.because) == ("failed", True)


@pytest.mark.parametrize("local", [True, False])
def test_an_interrupt_should_stop_a_run_here_and_leave_one_on_aws_with_the_ways(
    local: bool, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    started, stopped = pipeline.Run("run-1", "arn:run-1", {}), []

    def follow(*_: Any, **__: Any) -> Iterator[pipeline.Run]:
        raise KeyboardInterrupt
        yield started

    monkeypatch.setattr(pipeline, "start", lambda *_, **__: started)
    monkeypatch.setattr(pipeline, "follow", follow)
    monkeypatch.setattr(pipeline, "stop", lambda _platform, one, why: stopped.append((one.run_id, why)))
    with pytest.raises((KeyboardInterrupt, UserError)) as raised:
        run.execute(platform(), "points", "run", SimpleNamespace(), logs=tmp_path if local else None)  # type: ignore[arg-type]
    if local:
        assert (raised.type, stopped) == (KeyboardInterrupt, [("run-1", "Interrupted by the operator")])
    else:
        assert stopped == []
        assert "the run run-1 goes on in AWS. See it: dml status. Stop it: aws stepfunctions stop-execution" in str(
            raised.value
        )


@pytest.mark.parametrize(
    ("error", "said"), [(refusal(), f"its log cannot be read: .*{WHY}"), (KeyboardInterrupt(), "was not waited for")]
)
def test_a_log_that_is_not_read_should_not_hide_that_the_run_has_failed(
    error: BaseException, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def read(*_: Any, **__: Any) -> str:
        raise error

    monkeypatch.setattr(run.step_log, "read_cause", read)
    told = run._by_its_log(platform(), pipeline.Run("r", "a", {}), SimpleNamespace(), local=True)  # type: ignore[arg-type]
    assert re.search(said, told), told
