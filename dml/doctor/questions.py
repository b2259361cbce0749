"""What only AWS can say of our templates, asked before anything is deployed: free of charge, and nothing is left there.

Definitions are sent to Step Functions' validation, the expressions on which a failed or lost run hangs to TestState,
policies to IAM Access Analyzer. The embedded cloud evaluates expressions as well; what it has no validation of its own
for is skipped there.
"""

import json
from collections.abc import Iterator, Mapping
from typing import Any

import jsonata

from dml.doctor.account import Account
from dml.doctor.findings import Check, Finding, Skipped, ok, problem, warning
from dml.terminal.words import counted
from stacks.definition import REASONS

METRICS = "publish: read the figures"
MOST_TOLD = 5
# Failures whose reasons must be found, one of each form: Glue's, a step's, S3's when a race was lost.
CAUSES = {
    "prepare": json.dumps({"Id": "jr_0f1e", "JobRunState": "FAILED", "ErrorMessage": 'JobError: "x"\nis {empty}'}),
    "train": json.dumps(
        {
            "Step": {
                "Id": "s-1A",
                "Status": {"State": "FAILED", "FailureDetails": {"Reason": "Unknown Error.", "LogFile": "s3://l/s.gz"}},
            }
        }
    ),
    "publish": "At least one of the pre-conditions did not hold (Service: S3, Status Code: 412, Request ID: R)",
}
FIGURES = {"auc": 0.75, "rows": 9}


def definitions(account: Account) -> Finding:
    """Every state machine, as ValidateStateMachineDefinition sees it (Step Functions API reference)."""
    _only_on_aws(account, "definitions")
    states = account.client("stepfunctions")
    wrong: list[str] = []
    doubtful: list[str] = []
    for name, text in account.needs.definitions.items():
        told = states.validate_state_machine_definition(definition=text, type="STANDARD", severity="WARNING")
        for one in told["diagnostics"]:
            sentence = f"{name}, {one.get('location', 'somewhere')}: {one['message']}"
            (wrong if one["severity"] == "ERROR" else doubtful).append(sentence)
        if told["result"] != "OK" and not told["diagnostics"]:
            wrong.append(f"{name}: {told['result']} without a reason")
    return _judged(wrong, doubtful, f"Step Functions takes {counted(len(account.needs.definitions), 'definition')}")


def expressions(account: Account) -> Finding:
    """Expressions that no run can do without have the values on AWS that they have here: by TestState."""
    states, different, asked = account.client("stepfunctions"), [], 0
    for expression, given, variables in questions(account.needs.definitions):
        here = evaluated(expression, given, variables)
        told = states.test_state(
            definition=json.dumps(
                {"Type": "Pass", "QueryLanguage": "JSONata", "Output": f"{{% {expression} %}}", "End": True}
            ),
            input=json.dumps(given),
            variables=json.dumps(variables),
        )
        asked += 1
        if told["status"] != "SUCCEEDED":
            different.append(f"{expression[:60]}...: {told.get('error')}: {told.get('cause')}")
        elif (there := json.loads(told["output"])) != here:
            different.append(f"{expression[:60]}...: there {there!r}, here {here!r}")
    if not asked:
        raise Skipped("the templates have no state machine that reads reasons")
    advice = (
        "A run would report or publish something else than here: change the expression in stacks/definition.py, "
        "and ask again: dml doctor"
    )
    return problem(_listed(different), advice) if different else ok(f"{counted(asked, 'value')} as here")


def policies(account: Account) -> Finding:
    """Every policy, as IAM Access Analyzer sees it (ValidatePolicy); its suggestions are matters of style."""
    _only_on_aws(account, "policies")
    analyzer = account.client("accessanalyzer")
    wrong: list[str] = []
    doubtful: list[str] = []
    for policy in account.needs.policies:
        kind = {"validatePolicyResourceType": policy.resource} if policy.resource else {}
        told = analyzer.validate_policy(policyDocument=policy.document, policyType=policy.kind, **kind)
        for one in told["findings"]:
            sentence = f"{policy.where}: {one['findingDetails']} ({one['issueCode']})"
            if one["findingType"] == "ERROR":
                wrong.append(sentence)
            elif one["findingType"].endswith("WARNING"):
                doubtful.append(sentence)
    count = f"{len(account.needs.policies)} policies" if len(account.needs.policies) != 1 else "1 policy"
    return _judged(wrong, doubtful, f"IAM takes {count}")


def questions(given: Mapping[str, str]) -> Iterator[tuple[str, Any, dict[str, Any]]]:
    """(expression, input, variables) of what is asked; $states.result, which no Pass has, becomes its input."""
    seen = set()
    for text in given.values():
        states = json.loads(text)["States"]
        for expression in _expressions(states.get(METRICS, {}).get("Assign")):
            seen.add((expression.replace("$states.result", "$states.input"), ""))
        for expression in _expressions(states.get(REASONS, {}).get("Assign")):
            seen |= {(expression, stage) for stage in CAUSES}
    for expression, stage in sorted(seen):
        if stage:
            failure = {"stage": stage, "error": "States.TaskFailed", "cause": CAUSES[stage], "reason": "unknown"}
            yield expression, {}, {"failure": failure, "run_id": "run", "unread": ""}
        else:
            yield expression, {"Body": json.dumps(FIGURES)}, {}


def evaluated(expression: str, given: Any, variables: Mapping[str, Any]) -> Any:
    """An expression's value by the port of JSONata that the embedded cloud has."""
    compiled = jsonata.Jsonata.jsonata(expression)
    compiled.register_lambda("parse", json.loads)
    return compiled.evaluate(None, {**variables, "states": {"input": given}})


def _expressions(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        for inner in value.values():
            yield from _expressions(inner)
    elif isinstance(value, str) and value.startswith("{%"):
        yield value[2:-2].strip()


def _only_on_aws(account: Account, what: str) -> None:
    if account.platform.endpoint is not None:
        raise Skipped(f"the embedded cloud does not validate {what} as AWS does")


def _judged(wrong: list[str], doubtful: list[str], well: str) -> Finding:
    if wrong:
        return problem(
            _listed(wrong),
            "AWS would refuse it at the deploy: mend it in stacks/. All that AWS says: dml doctor --json",
        )
    if doubtful:
        return warning(
            _listed(doubtful), "It deploys; see in stacks/ whether it is meant. All that AWS says: dml doctor --json"
        )
    return ok(well)


def _listed(sentences: list[str]) -> str:
    more = f"; and {len(sentences) - MOST_TOLD} more" if len(sentences) > MOST_TOLD else ""
    return "; ".join(sentences[:MOST_TOLD]) + more


CHECKS: tuple[Check[Account], ...] = (
    Check("definitions", definitions, "aws stepfunctions validate-state-machine-definition --definition file://FILE"),
    Check("expressions", expressions, "aws stepfunctions test-state --definition file://FILE"),
    Check("policies", policies, "aws accessanalyzer validate-policy --policy-document file://FILE --policy-type TYPE"),
)
