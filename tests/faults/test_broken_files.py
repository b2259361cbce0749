"""Tables whose files are missing, broken or not to be read, under the real jobs: they name table, file and way out."""

import json
import re

import pytest

from tests.embedded import Clients
from tests.faults.conftest import EVERYTHING
from tests.shipped import Shipped, role

# One Spark for all cases: each job's main() makes its own session and ends it.
SCRIPT = """
import importlib, json, sys
import boto3

told = {}
for name, job, arguments in json.loads(sys.argv[2]):
    try:
        importlib.import_module("jobs." + job).main(arguments)
        told[name] = ["", ""]
    except Exception as error:
        told[name] = [type(error).__name__, str(error)]
bucket, _, key = sys.argv[1].partition("/")
boto3.client("s3").put_object(Bucket=bucket, Key=key, Body=json.dumps(told).encode())
"""


@pytest.fixture(scope="module")
def told(shipped: Shipped, aws: Clients) -> dict[str, list[str]]:
    """What each job said in each case: the error's class, and its message."""
    (features,) = shipped.files(shipped.location("features")).values()
    cases = {
        "missing": None,
        "empty": b"",
        "half": features[: len(features) // 2],
        "rotten": features[:200] + b"\x5a" * (len(features) // 2 - 200) + features[len(features) // 2 :],
        "garbage": bytes(i * 37 % 251 for i in range(len(features))),
        "denied": features,
    }
    run_id = shipped.location("features").rstrip("/").rpartition("/")[2]
    prepared = {"Bucket": shipped.lake, "Key": f"points/runs/{run_id}/prepare.json"}
    jobs = []
    for case, body in cases.items():
        database, prefix = f"faults_{case}", f"broken/features/{case}/"
        if body is not None:
            shipped.s3.put_object(Bucket=shipped.lake, Key=f"{prefix}part-0.parquet", Body=body)
        shipped.s3.copy_object(CopySource=prepared, Bucket=shipped.lake, Key=f"broken/runs/{case}/prepare.json")
        shipped.features_at(database, prefix)
        jobs += [
            (f"{job} {case}", job, shipped.arguments(job, case, database=database)) for job in ("train", "predict")
        ]
    denied = {
        "Effect": "Deny",
        "Action": "s3:GetObject",
        "Resource": f"arn:aws:s3:::{shipped.lake}/broken/features/denied/*",
    }
    shipped.s3.put_object(Bucket=shipped.code, Key="cases.py", Body=SCRIPT.encode())
    report = f"{shipped.code}/told.json"
    keys = role(aws, "faults-broken-files", EVERYTHING, denied)
    outcome = shipped.submit("cases", "all", [report, json.dumps(jobs)], role=keys).run()
    assert outcome.exit_code == 0, outcome.reason
    found: dict[str, list[str]] = json.loads(shipped.s3.get_object(Bucket=shipped.code, Key="told.json")["Body"].read())
    return found


@pytest.mark.parametrize("job", ["train", "predict"])
@pytest.mark.parametrize(
    ("case", "reason"),
    [
        ("missing", "Path does not exist: s3://faults-lake/broken/features/missing"),
        ("empty", "part-0.parquet"),
        ("half", "part-0.parquet is not a Parquet file"),
        ("garbage", "part-0.parquet is not a Parquet file"),
        ("rotten", "broken/features/rotten/part-0.parquet"),
        ("denied", "is not authorized to perform: s3:GetObject on resource"),
    ],
)
def test_a_table_that_cannot_be_read_should_be_named_with_the_way_out(
    told: dict[str, list[str]], shipped: Shipped, job: str, case: str, reason: str
) -> None:
    kind, message = told[f"{job} {case}"]
    assert kind == "JobError", message
    location = f"s3://{shipped.lake}/broken/features/{case}/"
    assert f"faults_{case}.features ({location})" in message
    assert "run the pipeline again" in message
    assert reason in message
    assert len(message.splitlines()) == 1
    assert not re.search(r"\bat [\w.$]+\(\w+\.(java|scala)", message), "a Java stack trace"


def test_none_of_these_should_leave_anything(told: dict[str, list[str]], shipped: Shipped) -> None:
    cases = {name.partition(" ")[2] for name in told}
    for bucket, folder in ((shipped.models, ""), (shipped.lake, "runs/"), (shipped.lake, "predictions/")):
        keys = [key for key in shipped.keys(bucket, f"points/{folder}") if not key.endswith("/progress.json")]
        found = {key.removeprefix(f"points/{folder}").split("/")[0] for key in keys}
        assert found and found.isdisjoint(cases)
