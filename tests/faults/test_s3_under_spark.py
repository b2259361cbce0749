"""S3 that is busy, slow, or breaks off, under a whole job: its files by way of Spark, its small ones by boto3."""

import re

import pytest

from tests.embedded import Clients
from tests.faults.conftest import EVERYTHING
from tests.faults.proxy import ALWAYS, Fault, Proxy
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


@pytest.mark.parametrize(
    ("job", "fault", "named"),
    [
        ("prepare", Fault("PUT", "points/features/lasting/part-", 503), "points/features/lasting"),
        ("train", Fault("GET", r"points/features/.*/part-", "cut"), "points/features/"),
        ("train", Fault("PUT", r"points/lasting/metrics\.json", 500), "points/lasting/metrics.json"),
    ],
)
def test_a_lasting_fault_should_end_the_job_with_the_name_of_the_file(
    shipped: Shipped, proxy: Proxy, job: str, fault: Fault, named: str
) -> None:
    before = shipped.location("features")
    proxy.faults = [fault]
    outcome = shipped.job(job, "lasting", endpoint=proxy.endpoint).run()
    assert outcome.exit_code == 1
    bucket = shipped.lake if "features" in named else shipped.models
    assert f"s3://{bucket}/{named}" in outcome.reason
    assert "\tat " not in outcome.reason
    assert shipped.location("features") == before
    assert not shipped.keys(shipped.models, "points/lasting/manifest.json")
    assert fault.times == ALWAYS


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


@pytest.mark.parametrize(
    ("job", "fault", "named"),
    [
        ("prepare", Fault("GET", r"prepare\.py", "held"), "prepare.py"),
        ("prepare", Fault("GET", r"raw/points/points\.csv", "held"), "raw/points/points.csv"),
        ("prepare", Fault("GET", r"raw/points/points\.csv", "stuck"), "raw/points/points.csv"),
        ("prepare", Fault("PUT", r"points/features/silent/part-", "held"), "points/features/silent"),
        ("train", Fault("GET", r"points/features/.*/part-", "stuck"), "points/features/"),
    ],
)
def test_s3_that_stays_silent_should_end_the_job_with_the_name_of_the_file_and_the_way_out(
    shipped: Shipped, proxy: Proxy, job: str, fault: Fault, named: str
) -> None:
    before = shipped.location("features")
    proxy.faults = [fault]
    outcome = shipped.job(job, "silent", endpoint=proxy.endpoint, s3_seconds=LIMIT).run()
    assert outcome.exit_code == 1
    bucket = shipped.code if named == "prepare.py" else shipped.lake
    silent = rf"S3 did not answer for s3://{bucket}/{named}\S* in time, though asked again and again; run again when"
    assert re.search(silent, outcome.reason), outcome.reason
    unclear = r"\tat |_temporary|Premature|localhost|127\.0\.0\.1|RemoteException|None"
    assert not re.search(unclear, outcome.reason), outcome.reason
    assert shipped.location("features") == before
    assert not shipped.keys(shipped.models, "points/silent/manifest.json")


def test_a_raw_file_that_may_not_be_read_should_be_named_with_the_permission(shipped: Shipped, aws: Clients) -> None:
    before = shipped.location("features")
    denied = {"Effect": "Deny", "Action": "s3:GetObject", "Resource": f"arn:aws:s3:::{shipped.lake}/raw/*"}
    outcome = shipped.job("prepare", "denied", role=role(aws, "faults-raw", EVERYTHING, denied)).run()
    assert outcome.exit_code == 1
    assert "raw/points/points.csv" in outcome.reason
    assert "is not authorized to perform: s3:GetObject" in outcome.reason
    assert "\tat " not in outcome.reason
    assert shipped.location("features") == before
    assert not shipped.keys(shipped.lake, "points/features/denied/")
