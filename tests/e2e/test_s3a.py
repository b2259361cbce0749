"""A whole run whose jobs talk to S3 by S3A, the client of EMR 7.10 and later: call by call, under their own roles.

Opt-in, for its two jars are 280 MB. Get org.apache.hadoop:hadoop-aws:3.3.4 (the version that local Spark is made with)
and com.amazonaws:aws-java-sdk-bundle:1.12.262 from Maven into one folder and say which:

    DML_S3A=FOLDER .venv/bin/python -m pytest tests/e2e/test_s3a.py
"""

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from datasets import dataset_names
from dml import checkout
from dml.estate.platform import Platform
from dml.local.cloud import Cloud
from dml.local.place import S3A_VARIABLE
from tests.command import run_dml
from tests.e2e.permissions import Calls, Roles
from tests.embedded import free_port

JARS = ("hadoop-aws-3.3.4.jar", "aws-java-sdk-bundle-1.12.262.jar")
FOLDER = Path(os.environ.get(S3A_VARIABLE, "/nonexistent"))

pytestmark = pytest.mark.skipif(
    not all((FOLDER / jar).is_file() for jar in JARS),
    reason=f"{S3A_VARIABLE} does not name a folder with {' and '.join(JARS)} (both from Maven)",
)


@pytest.fixture(scope="module")
def by_s3a(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cloud]:
    """A cloud of its own: whether jobs use S3A is decided when it starts."""
    cloud = Cloud(tmp_path_factory.mktemp("s3a"))
    cloud.up(free_port())
    yield cloud
    cloud.down()


def test_a_run_by_s3a_should_be_allowed_each_call_that_its_jobs_make(
    by_s3a: Cloud, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(checkout, "HOME", by_s3a.place.home)
    code, out, err = run_dml(monkeypatch, capsys, "run", "penguins", "--local", "--json")
    assert code == 0, err
    told = json.loads(out)
    assert told["rows"]["predicted"] == told["rows"]["out"] == 344

    platform = Platform("dev", credentials=by_s3a.environment())
    roles = Roles(platform.client("cloudformation"), "dml-dev-", dataset_names())
    calls = by_s3a.calls()["calls"]
    unexpected = [call for call in roles.denied(calls) if not looks_for_a_parent(call, calls)]
    assert unexpected == [], json.dumps(unexpected, indent=1)
    allowed = {(one.role, one.name) for one in roles.allowed(calls)}
    assert allowed >= {("dataset EtlPrepareRole", "prepare/WriteLake"), ("cluster NodeRole", "cluster/WriteModels")}
    log = next((by_s3a.place.logs / "glue").glob("*.log")).read_text(encoding="utf-8")
    assert "webhdfs" not in log


def looks_for_a_parent(denied: dict[str, Any], calls: Calls) -> bool:
    """S3A asks for the parents of a directory that it makes, and goes on where it may not (its MkdirOperation)."""
    return denied["action"] == "s3:GetObject" and any(
        call["principal"] == denied["principal"]
        and call["action"] == "s3:PutObject"
        and call["resource"].startswith(f"{denied['resource']}/")
        for call in calls
    )
