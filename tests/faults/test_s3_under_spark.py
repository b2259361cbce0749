"""S3 that is busy, slow, or breaks off, under a whole job: its files by way of Spark, its small ones by boto3."""

import json
import re

import pytest

from dml.local.spark.process import failure_reason
from tests.embedded import Clients
from tests.faults.conftest import EVERYTHING
from tests.faults.proxy import Fault, Proxy
from tests.shipped import Shipped, role

LIMIT = 2  # seconds that S3 may be silent here; otherwise it is a minute


def assert_all_met_and_the_rows_whole(shipped: Shipped, proxy: Proxy, run_id: str) -> None:
    assert [(fault.path, fault.seen) for fault in proxy.faults] == [(fault.path, fault.times) for fault in proxy.faults]
    whole, found = (shipped.rows(f"s3://{shipped.lake}/points/features/{run}/", "id") for run in ("r1", run_id))
    assert found.equals(whole)
    assert shipped.location("features").endswith(f"/{run_id}/")


def test_short_faults_should_cost_a_job_nothing_but_time(shipped: Shipped, proxy: Proxy) -> None:
    proxy.faults = [
        Fault("GET", r"raw/points/points\.csv", 500, 1),
        Fault("GET", r"raw/points/points\.csv", "cut", 2),
        Fault("GET", r"list-type=2", "slow", 1),
        Fault("GET", r"list-type=2", 503, 1),
        Fault("PUT", r"points/features/shaky/part-", 503, 2),
        Fault("PUT", r"points/runs/shaky/prepare\.json", 500, 1),
        Fault("POST", r"^/$", 503, 1),  # the catalog
    ]
    shipped.run("prepare", "shaky", endpoint=proxy.endpoint)
    assert_all_met_and_the_rows_whole(shipped, proxy, "shaky")


# Each case has its own files, so that each fault meets one case only.
LASTING = {
    "write-busy": ("prepare", Fault("PUT", "points/features/write-busy/part-", 503), "points/features/write-busy"),
    "read-cut": ("train", Fault("GET", r"features/read-cut/part-", "cut"), "points/features/read-cut"),
    "json-refused": (
        "train",
        Fault("PUT", r"points/json-refused/metrics\.json", 500),
        "points/json-refused/metrics.json",
    ),
}
SILENT = {
    "raw-held": ("prepare", Fault("GET", r"raw/raw-held/points\.csv", "held"), "raw/raw-held/points.csv"),
    "raw-stuck": ("prepare", Fault("GET", r"raw/raw-stuck/points\.csv", "stuck"), "raw/raw-stuck/points.csv"),
    "write-held": ("prepare", Fault("PUT", r"points/features/write-held/part-", "held"), "points/features/write-held"),
    "read-stuck": ("train", Fault("GET", r"features/read-stuck/part-", "stuck"), "points/features/read-stuck"),
}
DENIED = "raw-denied"
# One Spark for all cases, which says of each what a job of its own would say.
SCRIPT = """
import importlib, json, sys, traceback

for name, job, arguments in json.loads(sys.argv[1]):
    print("case", name, flush=True)
    try:
        importlib.import_module("jobs." + job).main(arguments)
    except Exception:
        traceback.print_exc()
    sys.stderr.flush()
"""


@pytest.fixture(scope="module")
def reasons(shipped: Shipped, running_proxy: Proxy, aws: Clients) -> dict[str, str]:
    """Why each case's job has failed, as the embedded cloud reads it from the job's output; "" if it has not."""
    raw = shipped.s3.get_object(Bucket=shipped.lake, Key="raw/points/points.csv")["Body"].read()
    (features,) = shipped.files(shipped.location("features")).values()
    prepared = shipped.location("features").rstrip("/").rpartition("/")[2]
    report = shipped.s3.get_object(Bucket=shipped.lake, Key=f"points/runs/{prepared}/prepare.json")["Body"].read()
    table = shipped.glue.get_table(DatabaseName=shipped.database, Name="points")["Table"]
    jobs = []
    for case, (job, _, _) in {**LASTING, **SILENT, DENIED: ("prepare", None, None)}.items():
        database = case.replace("-", "_")
        if job == "prepare":
            shipped.glue.create_database(DatabaseInput={"Name": database})
            shipped.s3.put_object(Bucket=shipped.lake, Key=f"raw/{case}/points.csv", Body=raw)
            location, told = f"s3://{shipped.lake}/raw/{case}/", {key: table[key] for key in ("Name", "Parameters")}
            told["StorageDescriptor"] = table["StorageDescriptor"] | {"Location": location}
            shipped.glue.create_table(DatabaseName=database, TableInput=told)
        else:
            shipped.s3.put_object(Bucket=shipped.lake, Key=f"points/features/{case}/part-0.parquet", Body=features)
            shipped.s3.put_object(Bucket=shipped.lake, Key=f"points/runs/{case}/prepare.json", Body=report)
            shipped.features_at(database, f"points/features/{case}/")
        jobs.append((case, job, shipped.arguments(job, case, database=database)))
    denied = {"Effect": "Deny", "Action": "s3:GetObject", "Resource": f"arn:aws:s3:::{shipped.lake}/raw/{DENIED}/*"}
    shipped.s3.put_object(Bucket=shipped.code, Key="cases.py", Body=SCRIPT.encode())
    running_proxy.faults = [fault for _, fault, _ in [*LASTING.values(), *SILENT.values()]]
    process = shipped.submit(
        "cases",
        "s3",
        [json.dumps(jobs)],
        role=role(aws, "faults-s3", EVERYTHING, denied),
        endpoint=running_proxy.endpoint,
        s3_seconds=LIMIT,
    )
    outcome = process.run()
    running_proxy.faults = []
    assert outcome.exit_code == 0, outcome.reason
    _, *parts = re.split(r"^case (\S+)$", shipped.log("cases", "s3").read_text(), flags=re.MULTILINE)
    return {case: failure_reason(said) for case, said in zip(parts[::2], parts[1::2], strict=True)}


def assert_nothing_published(shipped: Shipped, case: str, job: str) -> None:
    tables = [one["Name"] for one in shipped.glue.get_tables(DatabaseName=case.replace("-", "_"))["TableList"]]
    assert tables == ["points" if job == "prepare" else "features"]
    assert not shipped.keys(shipped.models, f"points/{case}/manifest.json")


@pytest.mark.parametrize("case", LASTING)
def test_a_lasting_fault_should_end_the_job_with_the_name_of_the_file(
    shipped: Shipped, reasons: dict[str, str], case: str
) -> None:
    job, fault, named = LASTING[case]
    bucket = shipped.lake if "features" in named else shipped.models
    assert f"s3://{bucket}/{named}" in reasons[case]
    assert "\tat " not in reasons[case]
    assert fault.seen > 1
    assert_nothing_published(shipped, case, job)


def test_stalls_should_cost_a_job_nothing_but_time(shipped: Shipped, proxy: Proxy) -> None:
    """What S3 has carried out before it went silent is asked for twice."""
    proxy.faults = [
        Fault("GET", r"raw/points/points\.csv", "held", 1),
        Fault("GET", r"raw/points/points\.csv", "stuck", 1),
        Fault("GET", r"list-type=2", "held", 1),
        Fault("PUT", r"points/features/stalls/part-", "held", 1),
        Fault("PUT", r"points/features/stalls/_SUCCESS", "held", 1),
    ]
    shipped.run("prepare", "stalls", endpoint=proxy.endpoint, s3_seconds=LIMIT)
    assert_all_met_and_the_rows_whole(shipped, proxy, "stalls")


SAID = r"S3 did not answer for {0}\S* in time, though asked again and again; run again when"
UNCLEAR = r"\tat |_temporary|Premature|localhost|127\.0\.0\.1|RemoteException|None"


@pytest.mark.parametrize("case", SILENT)
def test_s3_that_stays_silent_should_end_the_job_with_the_name_of_the_file_and_the_way_out(
    shipped: Shipped, reasons: dict[str, str], case: str
) -> None:
    job, fault, named = SILENT[case]
    assert re.search(SAID.format(f"s3://{shipped.lake}/{named}"), reasons[case]), reasons[case]
    assert not re.search(UNCLEAR, reasons[case]), reasons[case]
    assert fault.seen > 1
    assert_nothing_published(shipped, case, job)


def test_a_script_that_s3_does_not_hand_out_should_be_named_with_the_way_out(shipped: Shipped, proxy: Proxy) -> None:
    proxy.faults = [Fault("GET", r"prepare\.py", "held")]
    outcome = shipped.job("prepare", "silent", endpoint=proxy.endpoint, s3_seconds=LIMIT).run()
    assert outcome.exit_code == 1
    assert re.search(SAID.format(f"s3://{shipped.code}/prepare.py"), outcome.reason), outcome.reason
    assert not re.search(UNCLEAR, outcome.reason), outcome.reason


def test_a_raw_file_that_may_not_be_read_should_be_named_with_the_permission(
    shipped: Shipped, reasons: dict[str, str]
) -> None:
    assert f"raw/{DENIED}/points.csv" in reasons[DENIED]
    assert "is not authorized to perform: s3:GetObject" in reasons[DENIED]
    assert "\tat " not in reasons[DENIED]
    assert_nothing_published(shipped, DENIED, "prepare")
    assert not shipped.keys(shipped.lake, f"points/features/{DENIED}/")
