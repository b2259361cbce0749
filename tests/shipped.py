"""The dataset `points` as it is on AWS: raw files, code zip and scripts in S3, jobs by spark-submit with a role's keys.

For tests of what becomes of a whole job, as a program of its own, when the world around it is not kind.
"""

import io
import json
import random
import shutil
import tomllib
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import TypeAdapter

from dml.local.cloud import Cloud
from dml.local.place import REGION
from dml.local.spark.process import SparkProcess
from jobs.tables.settings import Dataset
from stacks.code import ROOT as REPOSITORY
from stacks.code import write_dataset, write_library
from tests.embedded import Clients
from tests.jobs import points
from tests.local.emulator import variables

# What each job is told besides --dataset, --database, --run-id and --region (stacks/etl.py, stacks/definition.py).
TOLD = {"prepare": ("lake",), "train": ("models", "lake"), "predict": ("models", "lake", "table")}

SECRETS: dict[str, str] = {}  # of the keys that were made here, by their ids


def role(
    aws: Clients, name: str, *statements: Mapping[str, Any], service: str = "glue.amazonaws.com"
) -> dict[str, str]:
    """The keys of a new role that may do what these policy statements say."""
    trust = {"Effect": "Allow", "Principal": {"Service": service}, "Action": "sts:AssumeRole"}
    made = aws("iam").create_role(RoleName=name, AssumeRolePolicyDocument=json.dumps({"Statement": [trust]}))
    document = json.dumps({"Version": "2012-10-17", "Statement": statements})
    aws("iam").put_role_policy(RoleName=name, PolicyName="all", PolicyDocument=document)
    worn = aws("sts").assume_role(RoleArn=made["Role"]["Arn"], RoleSessionName="job")["Credentials"]
    SECRETS[worn["AccessKeyId"]] = worn["SecretAccessKey"]
    return variables(worn)


def many_points(count: int) -> Iterator[str]:
    """CSV lines of points that take a deep tree: lateness rises with x, at another place for each of 12 colours."""
    chance = random.Random(7)  # noqa: S311  # the same points every time
    for i in range(count):
        x, colour = chance.random() * 10, chance.randrange(12)
        late = chance.random() < (0.85 if (x + colour / 2) % 5 > 2.5 else 0.1)
        yield f"{i},2024-01-0{1 + i * 4 // count},{x:.6f},c{colour},{20 if late else 3}"


class Shipped:
    """Buckets, catalog and code of one dataset `points`, under names that begin with `name`."""

    def __init__(self, cloud: Cloud, aws: Clients, folder: Path, name: str, *changes: tuple[str, str]) -> None:
        """`changes` to the dataset's settings: replacements in points.TOML. `folder` is for logs and scratch."""
        self.s3, self.glue, self.iam = aws("s3"), aws("glue"), aws("iam")
        self.folder, self.database = folder, f"{name}_points"
        self.lake, self.models, self.code = f"{name}-lake", f"{name}-models", f"{name}-code"
        self._endpoint, self._root = cloud.endpoint, cloud.root
        for bucket in (self.lake, self.models, self.code):
            self.s3.create_bucket(Bucket=bucket)
        self.glue.create_database(DatabaseInput={"Name": self.database})
        self.ship(*changes)

    def ship(self, *changes: tuple[str, str]) -> None:
        """The code as stacks/code.py makes it of the repository."""
        toml = points.TOML
        for old, new in changes:
            assert old in toml
            toml = toml.replace(old, new)
        library = self.folder / "library"
        library.mkdir()
        write_library(library)
        write_dataset(library, TypeAdapter(Dataset).validate_python(tomllib.loads(toml)), points.SQL)
        self.s3.upload_file(shutil.make_archive(str(self.folder / "library"), "zip", library), self.code, "library.zip")
        for job in TOLD:
            self.s3.upload_file(str(REPOSITORY / "jobs" / f"{job}.py"), self.code, f"{job}.py")

    def upload(self, lines: Sequence[str]) -> None:
        """The raw file, and what the crawler says of it."""
        body = "\n".join([points.HEADER, *lines, ""])
        self.s3.put_object(Bucket=self.lake, Key="raw/points/points.csv", Body=body.encode())
        table = {
            "Name": "points",
            "Parameters": {"classification": "csv", "skip.header.line.count": "1"},
            "StorageDescriptor": {
                "Location": f"s3://{self.lake}/raw/points/",
                "Columns": [{"Name": column, "Type": points.TYPES[column]} for column in points.HEADER.split(",")],
                "SerdeInfo": {"Parameters": {"field.delim": ","}},
            },
        }
        self.glue.create_table(DatabaseName=self.database, TableInput=table)

    def features_at(self, database: str, prefix: str) -> None:
        """Makes a database whose table `features` lies below this prefix of the lake."""
        table = {"Name": "features", "Parameters": {"classification": "parquet", "split_seed": "0"}}
        table["StorageDescriptor"] = {"Location": f"s3://{self.lake}/{prefix}", "Columns": []}
        self.glue.create_database(DatabaseInput={"Name": database})
        self.glue.create_table(DatabaseName=database, TableInput=table)

    def arguments(self, name: str, run_id: str, *, database: str = "", table: str = "features") -> list[str]:
        """What the pipeline tells a job; of another dataset's `database`, if it is given."""
        values = {"lake": f"s3://{self.lake}/", "models": f"s3://{self.models}/", "table": table}
        given = {"dataset": "points", "database": database or self.database, "run-id": run_id, "region": REGION}
        given |= {option: values[option] for option in TOLD[name]}
        return [text for option, value in given.items() for text in (f"--{option}", value)]

    def job(
        self,
        name: str,
        run_id: str,
        *,
        table: str = "features",
        **options: Any,
    ) -> SparkProcess:
        """One job as the pipeline would start it."""
        return self.submit(name, run_id, self.arguments(name, run_id, table=table), **options)

    def submit(
        self,
        name: str,
        run_id: str,
        arguments: Sequence[str],
        *,
        role: Mapping[str, str] | None = None,
        endpoint: str = "",
        process: Callable[..., SparkProcess] = SparkProcess,
        **more: Any,
    ) -> SparkProcess:
        """A script of the code bucket with the library, by default as the root user.

        `process` and `more` say how, if not on plain local Spark.
        """
        return process(
            arguments=["--py-files", f"s3://{self.code}/library.zip", f"s3://{self.code}/{name}.py", *arguments],
            credentials=role or self._root,
            endpoint=endpoint or self._endpoint,
            buckets=[self.lake, self.models, self.code],
            work=self.folder / f"{name}-{run_id}",
            log=self.log(name, run_id),
            **more,
        )

    def log(self, name: str, run_id: str) -> Path:
        return self.folder / "logs" / f"{name}-{run_id}.log"

    def run(self, name: str, run_id: str, **options: Any) -> None:
        """Runs one job; fails the test with its reason if it fails."""
        outcome = self.job(name, run_id, **options).run()
        assert outcome.exit_code == 0, f"{name} {run_id}: {outcome.reason} (log: {self.log(name, run_id)})"

    def publish(self, run_id: str) -> None:
        """What the state machine does when the gate has passed."""
        pointer = {"dataset": "points", "run_id": run_id, "model": f"s3://{self.models}/points/{run_id}/"}
        body = json.dumps(pointer | {"metrics": {}})
        self.s3.put_object(Bucket=self.models, Key="points/CURRENT.json", Body=body.encode())

    def model(self, run_id: str, file: str) -> Any:
        """A JSON file of a run in the registry."""
        return json.loads(self.s3.get_object(Bucket=self.models, Key=f"points/{run_id}/{file}")["Body"].read())

    def keys(self, bucket: str, prefix: str) -> list[str]:
        pages = self.s3.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix)
        return [entry["Key"] for page in pages for entry in page.get("Contents", [])]

    def location(self, table: str) -> str:
        """Where the catalog says that a table's files lie."""
        found = self.glue.get_table(DatabaseName=self.database, Name=table)["Table"]
        location: str = found["StorageDescriptor"]["Location"]
        return location

    def files(self, location: str) -> dict[str, bytes]:
        """The Parquet files below s3://BUCKET/PREFIX/, by key."""
        bucket, _, prefix = location.removeprefix("s3://").partition("/")
        keys = [key for key in self.keys(bucket, prefix) if key.endswith(".parquet")]
        return {key: self.s3.get_object(Bucket=bucket, Key=key)["Body"].read() for key in keys}

    def rows(self, location: str, key: str) -> pa.Table:
        """The rows of these files, ordered by a column."""
        return pa.concat_tables(pq.read_table(io.BytesIO(file)) for file in self.files(location).values()).sort_by(key)
