"""The command line: what an operator reads when something is wrong, and what --help promises."""

import subprocess
import sys
from collections.abc import Callable

import pytest
from botocore.exceptions import EndpointConnectionError

from dml import cli

Run = Callable[..., tuple[int, str, str]]


def test_an_unknown_dataset_should_name_those_that_there_are(dml: Run) -> None:
    code, out, err = dml("run", "flight", "--local")
    assert code == 1
    assert "flight" in err
    assert "nyc_flights" in err
    assert out == ""
    assert "Traceback" not in err


def test_predicting_locally_without_the_embedded_cloud_should_say_how_to_start_it(dml: Run) -> None:
    code, _, err = dml("predict", "--local")
    assert code == 1
    assert "dml local up" in err


def test_running_on_aws_without_a_region_should_offer_both_ways_out(dml: Run) -> None:
    code, _, err = dml("run")
    assert code == 1
    assert "AWS_REGION" in err
    assert "--local" in err


def test_running_on_aws_without_credentials_should_offer_both_ways_out(dml: Run) -> None:
    code, _, err = dml("run", AWS_DEFAULT_REGION="eu-central-1")
    assert code == 1
    assert "sso login" in err
    assert "--local" in err


def test_an_unknown_environment_should_name_those_that_there_are(dml: Run) -> None:
    code, _, err = dml("run", "--local", "--env", "staging")
    assert code == 1
    assert "dev, prod" in err


@pytest.mark.parametrize("command", ["list", "rollback", "show --dataset", "promote run-1 --dataset"])
def test_the_models_of_an_unknown_dataset_should_be_refused_before_anything_is_asked(dml: Run, command: str) -> None:
    code, _, err = dml("models", *command.split(), "flight")
    assert code == 1
    assert "nyc_flights" in err


def test_a_profile_that_there_is_not_should_be_an_error_and_not_a_stack_trace(dml: Run) -> None:
    code, _, err = dml("status", AWS_PROFILE="nobody")
    assert code == 1
    assert "nobody" in err
    assert "Traceback" not in err


def test_wrong_usage_should_exit_with_two(dml: Run) -> None:
    code, _, err = dml("run", "--fast")
    assert code == 2
    assert "--fast" in err


@pytest.mark.parametrize(
    "command",
    [
        "run",
        "predict",
        "report",
        "status",
        "pause",
        "resume",
        "destroy",
        "doctor",
        "data push",
        "dataset new",
        "dataset check",
        "models",
        "models diff",
        "models rollback",
        "local up",
        "local down",
    ],
)
def test_every_command_should_explain_itself(dml: Run, command: str) -> None:
    code, out, _ = dml(*command.split(), "--help")
    assert code == 0
    assert len(out.splitlines()) > 4


def test_stopping_what_does_not_run_should_be_no_error(dml: Run) -> None:
    assert dml("local", "down")[:2] == (0, "was not running\n")


def test_help_should_load_nothing_that_only_a_command_needs() -> None:
    heavy = "aws_cdk boto3 botocore cryptography duckdb jinja2 ministack numpy pandas pyarrow pydantic pyspark"
    loaded = f"import sys; import dml.cli; print(sorted(set(sys.modules) & set({heavy.split()!r})))"
    done = subprocess.run([sys.executable, "-c", loaded], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


@pytest.mark.parametrize(
    ("url", "told"),
    [
        ("http://127.0.0.1:4701/x?y", "The embedded cloud (http://127.0.0.1:4701/x) does not answer any more: it was"),
        ("https://s3.eu-central-1.amazonaws.com", "AWS does not answer: Could not connect to the endpoint URL"),
    ],
)
def test_a_cloud_that_answers_no_more_should_be_one_sentence(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], url: str, told: str
) -> None:
    def lost() -> None:
        raise EndpointConnectionError(endpoint_url=url)

    monkeypatch.setattr(cli, "app", lost)
    with pytest.raises(SystemExit) as end:
        cli.main()
    assert end.value.code == 1
    err = " ".join(capsys.readouterr().err.split())
    assert told in err
    assert "Traceback" not in err
