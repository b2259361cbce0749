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
    ZEPPELIN_LOGIN = "ZeppelinLogin"  # the ARN of the secret with user and password, as JSON
    CODE = "Code"  # where the zip lies that all jobs import from
    ZEPPELIN_CHECK = "ZeppelinCheck"  # where jobs/zeppelin.py lies, which `dml zeppelin check` has the workbench run


NOTES = "zeppelin/notebook/"  # in the workspace bucket: where Zeppelin keeps notes (ZEPPELIN_USER of stacks/emr.py)
CERTIFICATE = (
    "tls/certificate.zip"  # in the workspace bucket; dml/estate/certificate.py makes it, starting nodes read it
)
CERTIFICATE_END = "tls/certificate.json"  # beside it: until when it is valid, which is no secret
CERTIFICATE_RENEW_DAYS = 30  # before its end it is due for a new one, and an alarm says so


# Stacks that all datasets share, in the order in which they are deployed; each dataset has one more (dml-ENV-DATASET),
# which is deployed before the workbench, so that a starting workbench finds every dataset's notes.
SHARED = ("data", "observability", "cluster", "network", "workbench")
# Stacks of the releases in which all datasets were in one: `make_way` (dml/cdk.py) takes them away, in this order.
FORMER = ("pipeline", "etl")


def dataset_stack(dataset: str) -> str:
    """The part of a dataset's stack's name behind the environment's prefix: nyc_flights -> nyc-flights."""
    return dataset.replace("_", "-")


def dataset_of(part: str) -> str | None:
    """Whose stack it is; None for one that is no dataset's."""
    return None if part in SHARED or part in FORMER else part.replace("-", "_")


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
