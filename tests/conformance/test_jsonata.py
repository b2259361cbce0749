"""The definitions' expressions have the values here that JSONata's reference implementation gives them.

Step Functions has JSONata 2.0.6 (its guide, "Transforming data with JSONata"), which package.json pins; the embedded
cloud a port of it to Python. Every expression of the state machine is evaluated by both in a few situations of a run,
most of them far from where it stands: undefined must be undefined too.
"""

import json
import os
import subprocess
from collections.abc import Iterator
from typing import Any

import pytest

from dml import cdk
from dml.checkout import PROJECT
from dml.local import hooks
from stacks.definition import LOST, REASON, Parts, definition

pytestmark = pytest.mark.cdk  # it stands on Node and node_modules, as the CDK does
Bindings = dict[str, Any]


def causes() -> Iterator[str]:
    """What services have said of failures, whole, cut off and without a word."""
    details = {
        "Reason": "Application failed",
        "Message": "JobError: one {class} only",
        "LogFile": "s3://logs/s-1A/out.gz",
    }
    changed = {"State": "CANCELLED", "StateChangeReason": {"Message": "Cancelled by user."}, "Timeline": {}}
    yield json.dumps({"Id": "jr_0f1e", "JobRunState": "FAILED", "ErrorMessage": 'JobError: "x"\nis empty \\ {'})
    yield json.dumps({"Id": "jr_0f1e", "JobRunState": "STOPPED"})
    yield json.dumps({"Step": {"Id": "s-1A", "Status": {"State": "FAILED", "FailureDetails": details}}})
    yield json.dumps({"Step": {"Id": "s-1A", "Status": changed}})
    yield '{"Step":{"Id":"s-1A","Status":{"FailureDetails":{"Reason":"Unknown Error.'
    yield "At least one of the pre-conditions did not hold (Service: S3, Status Code: 412, Request ID: R)"
    yield "The conditional request cannot succeed (Service: S3, Status Code: 409, Request ID: R)"
    yield "Rate exceeded (Service: Emr, Status Code: 400, Request ID: R)"
    yield "User: U is not authorized to perform: elasticmapreduce:DescribeCluster"
    yield ""
    yield "[]{}()/\\ Zürich 🌍 '\""


def situations() -> Iterator[Bindings]:
    """Variables and $states of a run at several moments."""
    context = {"Execution": {"Name": "run-2", "Input": {}}, "Task": {"Token": "T"}}
    bodies = [
        {
            "passed": True,
            "reasons": [],
            "rows_out": 9,
            "quarantined": 1,
            "tables": {"a": {"rows": 7}, "b": {"rows": 3}},
        },
        {"passed": False, "reasons": ["one", "two"], "tables": {}, "quarantined": 0},
        {"passed": "true", "reasons": "one", "test": {"auc": 0.75, "rows": 9, "confusion": {"tp": 1}, "none": None}},
        {"test": {"rmse": 2.5, "bias": -1, "confusion": [[1, 2]]}, "run_id": "run-1", "model": "s3://m/run-1/", "x": 1},
    ]
    crawls = [{}, {"State": "READY", "LastCrawl": {"StartTime": "2026-01-01T00:00:00Z", "Status": "FAILED"}}]
    begun: Bindings = {"run_id": "run-2", "do": "run", "revision": "r", "table": "features", "attempts": 3}
    begun |= {"cluster_id": "", "transient": False, "trained": False, "published": False, "failed": False}
    begun |= {"reasons": [], "redriven": False, "redrives": 0, "last_crawl": "", "current": "", "previous": {}}
    for number, body in enumerate(bodies):
        crawler = crawls[number % 2]
        result = {"Body": json.dumps(body), "ETag": '"e"', "Crawler": crawler, "Parameter": {"Value": "none"}}
        result["Cluster"] = {"Status": {"State": "RUNNING" if number else "TERMINATING"}}
        later = {
            "counts": body,
            "metrics": {"auc": 0.75},
            "passed": bool(number),
            "winner": "run-1",
            "workbench": "j-1",
        }
        later |= {"crawl_ended": number > 1, "crawl_status": "SUCCEEDED", "crawl_message": "no reason"}
        later |= {"cluster_state": "WAITING", "cluster_message": "because", "trained": number > 2, "attempts": 200}
        states = {"input": [{}, {"do": "predict"}, {"table": "t", "do": "x"}, None][number], "result": result}
        yield {**begun, **(later if number else {}), "states": {**states, "context": context}}
    redriven = {"Execution": {**context["Execution"], "RedriveCount": 1}}
    for number, cause in enumerate(causes()):
        stage = ["publish", "prepare", "clean up", "begin"][number % 4]
        failure: Bindings = {"stage": stage, "error": "S3.S3Exception", "cause": cause, "reason": cause[:20]}
        failure |= {"first": "train"} if number % 2 else {}
        output = {"Error": "States.Timeout" if number % 3 else "S3.S3Exception"} | ({"Cause": cause} if cause else {})
        states = {"input": {}, "errorOutput": output, "context": redriven if number % 2 else context}
        yield {**begun, "failure": failure, "failed": True, "do": "predict", "transient": True, "states": states}


def expressions(value: Any) -> Iterator[str]:
    if isinstance(value, dict | list):
        for inner in value.values() if isinstance(value, dict) else value:
            yield from expressions(inner)
    elif isinstance(value, str) and value.startswith("{%"):
        yield value[2:-2].strip()


@pytest.fixture(scope="module")
def asked() -> list[tuple[str, Bindings]]:
    """Each expression of a machine in each situation."""
    given: dict[str, Any] = dict.fromkeys(Parts.__dataclass_fields__, "-")
    given |= {"partition": "aws", "prepare_minutes": 60, "step_minutes": 60, "figures": ["auc"]}
    given["transient_cluster"] = {"Name": "n", "Instances": {"InstanceCount": 1}, "LogUri": "s3://l/"}
    found = dict.fromkeys([REASON, LOST, *expressions(definition(Parts(**given)))])
    assert len(found) > 60
    return [(expression, bindings) for expression in found for bindings in situations()]


def test_an_expression_should_have_the_value_of_the_reference_implementation(asked: list[tuple[str, Bindings]]) -> None:
    done = subprocess.run(
        ["node", "tests/conformance/evaluate.js"],
        input=json.dumps(asked),
        cwd=PROJECT,
        env={"PATH": cdk.with_own_programs(os.environ)},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    reference = json.loads(done.stdout)
    here = [evaluated(*one) for one in asked]
    different = [
        f"{expression}\n  with {json.dumps(bindings)[:600]}\n  is {told}, here {seen}"
        for (expression, bindings), told, seen in zip(asked, reference, here, strict=True)
        if told != seen
    ]
    assert not different, "\n".join(different[:5])
    assert sum("value" in told for told in reference) > len(reference) / 3


def evaluated(expression: str, bindings: Bindings) -> dict[str, Any]:
    """The value that the embedded cloud's evaluation gives, {} if there is none."""
    sfn = hooks.module("services.stepfunctions")
    states = bindings["states"]
    context = {**states["context"], "variables": {name: bindings[name] for name in bindings if name != "states"}}
    try:
        value = sfn._evaluate_jsonata(
            expression, states.get("input"), context, states.get("result"), states.get("errorOutput")
        )
    except sfn._ExecutionError:
        return {}
    return {"value": json.loads(json.dumps(value))}
