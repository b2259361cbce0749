"""One deployed environment as the operator's commands see it. The only place outside dml/local that makes clients."""

import json
import os
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from functools import cached_property
from typing import Any

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError, NoCredentialsError, NoRegionError, ProfileNotFound

from dml.errors import UserError
from dml.local import here
from stacks.outputs import FORMER, SHARED, Output, dataset_of, dataset_stack, state_machine_output

PAUSED = ("workbench", "network")  # what `dml pause` takes away, in the order in which it goes


@contextmanager
def answering(what: str) -> Iterator[None]:
    """Turns what boto3 raises while we `what` into a sentence for the operator."""
    try:
        yield
    except NoCredentialsError:
        raise UserError(
            "No AWS credentials were found. Sign in (aws sso login, or AWS_PROFILE), or add --local to try it here."
        ) from None
    except ClientError as error:
        raise UserError(f"AWS did not let us {what}: {error}") from error
    except BotoCoreError as error:
        raise UserError(f"Could not reach AWS to {what}: {error}") from error


class Platform:
    """The stacks of one environment behind one AWS endpoint.

    `credentials` empty means boto3's usual chain (environment, profile, single sign-on, instance role).
    """

    def __init__(self, environment: str, *, credentials: Mapping[str, str] | None = None, patient: bool = True) -> None:
        """Raises UserError for a profile that there is not. Not `patient`: give an endpoint up after some seconds."""
        self.environment = environment
        given = credentials or {}
        self.endpoint = given.get("AWS_ENDPOINT_URL")
        # A given endpoint is on loopback, which a proxy of the environment must not be asked for; AWS may need it.
        self._config = Config(retries={"mode": "standard", "max_attempts": 5}, proxies={} if self.endpoint else None)
        if self.endpoint:  # sync-127.0.0.1, where some operations of AWS's would be, is nowhere
            self._config = self._config.merge(Config(inject_host_prefix=False))
        if not patient:
            quick = Config(connect_timeout=5, read_timeout=20, retries={"mode": "standard", "max_attempts": 2})
            self._config = self._config.merge(quick)
        try:
            self._session = boto3.Session(
                aws_access_key_id=given.get("AWS_ACCESS_KEY_ID"),
                aws_secret_access_key=given.get("AWS_SECRET_ACCESS_KEY"),
                # boto3 by itself knows AWS_DEFAULT_REGION only; the CDK and AWS CLIs take this one first.
                region_name=given.get("AWS_REGION") or os.environ.get("AWS_REGION"),
            )
        except ProfileNotFound as error:
            raise UserError(f"{error}. Choose one that there is (aws configure list-profiles), or unset it.") from None

    @property
    def region(self) -> str | None:
        """Where it is; None if nobody said."""
        name: str | None = self._session.region_name
        return name

    def client(self, service: str) -> Any:
        """A client of `service`; a missing region is the operator's to give."""
        try:
            return self._session.client(service, endpoint_url=self.endpoint, config=self._config)
        except NoRegionError:
            raise UserError(
                "No AWS region is set. Say which one: export AWS_REGION=eu-central-1, or add --local to try it here."
            ) from None

    @cached_property
    def s3(self) -> Any:
        return self.client("s3")

    @property
    def prefix(self) -> str:
        """What the names of the environment's stacks begin with."""
        return f"dml-{self.environment}-"

    @cached_property
    def _standing(self) -> dict[str, dict[str, str]]:
        """The outputs of each stack that stands; UserError if one is missing that `dml pause` does not take away."""
        cloudformation = self.client("cloudformation")
        with answering("read the stacks"):
            found = {
                one["StackName"].removeprefix(self.prefix): {
                    output["OutputKey"]: output["OutputValue"] for output in one.get("Outputs", [])
                }
                for page in cloudformation.get_paginator("describe_stacks").paginate()
                for one in page["Stacks"]
                if one["StackName"].startswith(self.prefix)
            }
        for stack in SHARED:
            if stack not in found and not (stack in PAUSED and found):
                raise self._not_deployed(stack, found)
        return found

    def _not_deployed(self, stack: str, standing: Collection[str]) -> UserError:
        name = self.prefix + stack
        if any(part in FORMER for part in standing):
            return UserError(
                f"{self.environment} is deployed as in a former release. Bring it to this one: {self.command('resume')}"
            )
        # A dataset's database and log group may have been kept when its stack was removed.
        what = "--all" if stack in SHARED else f"{name} --import-existing-resources"
        dataset = dataset_of(stack) or ""
        here = "" if self.endpoint else ", or try it on this machine: dml run --local"
        return UserError(
            f"The stack {name} is not deployed here. Deploy first: {self.deploying(what, dataset=dataset)}{here}"
        )

    @property
    def datasets(self) -> list[str]:
        """The datasets whose stacks stand, sorted; also those that this checkout has no folder for."""
        return sorted(
            dataset
            for part, outputs in self._standing.items()
            if (dataset := dataset_of(part)) and state_machine_output(dataset) in outputs
        )

    @cached_property
    def outputs(self) -> dict[str, str]:
        """Every output of the environment's stacks, by its name in stacks/outputs.py; paused stacks have none."""
        return {key: value for outputs in self._standing.values() for key, value in outputs.items()}

    def output(self, key: str, *, dataset: str = "") -> str:
        """The value of one stack output, of a `dataset`'s own stack if it is given.

        Raises UserError when the stack is not deployed, the environment paused or older than this checkout.
        """
        if dataset and dataset_stack(dataset) not in self._standing:
            raise self._not_deployed(dataset_stack(dataset), self._standing)
        if key in self.outputs:
            return self.outputs[key]
        self.check_running()
        raise UserError(
            f"The deployed stacks of {self.environment} have no output {key}: they are older than this checkout. "
            f"Deploy again: {self.deploying()}"
        )

    def check_running(self) -> None:
        """Raises UserError if the environment is paused."""
        if self.paused:
            raise UserError(
                f"{self.environment} is paused: {', '.join(self.paused)} {'is' if len(self.paused) == 1 else 'are'} "
                f"not deployed. Bring it back: {self.command('resume')}"
            )

    @property
    def paused(self) -> list[str]:
        """The stacks that `dml pause` has taken away, [] if the environment is whole."""
        return [self.prefix + stack for stack in PAUSED if stack not in self._standing]

    def command(self, command: str) -> str:
        """A `dml` command as it is to be typed for this very environment: one that changes it must not hit another."""
        environment = "" if self.environment == "dev" else f" --env {self.environment}"
        return f"dml {command}{' --local' if self.endpoint else ''}{environment}"

    def deploying(self, what: str = "--all", *, dataset: str = "") -> str:
        """The command that deploys: by the CDK, or for the embedded cloud what a run needs."""
        if self.endpoint:
            return self.command(f"run {dataset}" if dataset else "run")
        return f"npx cdk deploy {what} -c env={self.environment}"

    def json_object(self, bucket: Output, key: str) -> dict[str, Any] | None:
        """A small JSON object out of one of our buckets, or None when there is no such key."""
        try:
            body = self.s3.get_object(Bucket=self.output(bucket), Key=key)["Body"].read()
        except self.s3.exceptions.NoSuchKey:
            return None
        document: dict[str, Any] = json.loads(body)
        return document

    def uri(self, bucket: Output, key: str) -> str:
        return f"s3://{self.output(bucket)}/{key}"


def deployed(local: bool, env: str, *, patient: bool = True) -> Platform:
    """An environment on AWS, or with `local` in the embedded cloud, which must be up. Raises UserError."""
    if not local:
        return Platform(env, patient=patient)
    cloud = here.cloud()
    cloud.require()
    return Platform(env, credentials=cloud.environment(), patient=patient)
