"""The names that cross from the stacks (synth time) to the CLI (operator time). Imports nothing of either."""

from enum import StrEnum


class Output(StrEnum):
    """Keys of the stack outputs of which an environment has one."""

    RAW_BUCKET = "RawBucket"
    LAKE_BUCKET = "LakeBucket"
    MODELS_BUCKET = "ModelsBucket"
    WORKSPACE_BUCKET = "WorkspaceBucket"
    LOGS_BUCKET = "LogsBucket"
    TOPIC = "NotificationTopicArn"
    WORKBENCH_PARAMETER = "WorkbenchParameter"
    ANALYST_POLICY = "AnalystPolicyArn"


CERTIFICATE = (
    "tls/certificate.zip"  # in the workspace bucket; dml/estate/certificate.py makes it, starting nodes read it
)
CERTIFICATE_RENEW_DAYS = 30  # before its end it is due for a new one, and an alarm says so


def state_machine_output(dataset: str) -> str:
    """Key of the output with the ARN of the dataset's state machine: nyc_flights -> StateMachineNycFlights."""
    return f"StateMachine{pascal(dataset)}"


def crawler_output(dataset: str) -> str:
    """Key of the output with the name of the dataset's crawler."""
    return f"Crawler{pascal(dataset)}"


def database_output(dataset: str) -> str:
    """Key of the output with the name of the dataset's Glue database."""
    return f"Database{pascal(dataset)}"


def pascal(name: str) -> str:
    """A dataset's name as CloudFormation writes names: nyc_flights -> NycFlights."""
    return "".join(part.capitalize() for part in name.split("_"))
