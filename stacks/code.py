"""What runs on clusters, packed at synth time as S3 assets: entry scripts, their library, wheels; a dataset's own part.

An asset lies in the CDK's own bucket, below the environment's prefix and under the hash of its content: what a run was
started with stays there, and readable, when newer code has been deployed.
"""

import re
import shutil
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import aws_cdk as cdk
from aws_cdk import aws_iam as iam
from aws_cdk import aws_s3_assets as assets
from constructs import Construct

from datasets import prepare_sql
from jobs.tables.settings import Dataset
from notebooks.parameters import parameters_of
from notebooks.zpln import build_notes
from stacks.settings import Environment, database_name

ROOT = Path(__file__).parent.parent
LOCK = ROOT / "cluster" / "requirements.txt"
WHEELS = ROOT / ".dml" / "wheels"
PLATFORMS = ("manylinux2014", "manylinux_2_28")  # glibc 2.17 and 2.28; Amazon Linux 2023, on which EMR 7 runs, has 2.34
ARCHITECTURES = {"graviton": "aarch64", "x86": "x86_64"}


class CodeError(Exception):
    """Something that ships to the clusters is missing; the message says how to make it."""


@dataclass(frozen=True)
class Shipped:
    """What a dataset's jobs are started with, as S3 URIs; `own_part` is the dataset's own zip, `asset` any of them."""

    prepare: str
    train: str
    predict: str
    py_files: str  # with a comma between them
    own_part: str
    asset: assets.Asset


def shipped(scope: Construct, environment: Environment, dataset: Dataset) -> Shipped:
    """Packs a dataset's code. What all datasets share is packed for each: the same content is the same object."""
    prepare, train, predict = (script(scope, name) for name in ("prepare", "train", "predict"))
    own = own_part(scope, environment, dataset)
    libraries = (library(scope), own)
    return Shipped(
        prepare=prepare.s3_object_url,
        train=train.s3_object_url,
        predict=predict.s3_object_url,
        py_files=",".join(one.s3_object_url for one in libraries),
        own_part=own.s3_object_url,
        asset=own,
    )


def script(scope: Construct, name: str) -> assets.Asset:
    """An entry script of jobs/ as one file: what Glue and spark-submit start."""
    return assets.Asset(scope, name.capitalize(), path=str(ROOT / "jobs" / f"{name}.py"))


def library(scope: Construct) -> assets.Asset:
    """The zip that every job imports from: `jobs/`. It is the same for all datasets."""
    return assets.Asset(scope, "Library", path=laid_out(ROOT).name)


@cache
def laid_out(_root: Path) -> TemporaryDirectory[str]:
    """The code zip's content, once for all stacks that ship it; it goes with the process."""
    folder = TemporaryDirectory(prefix="dml-library-")
    write_library(Path(folder.name))
    return folder


def write_library(folder: Path) -> None:
    """Lay out the code zip's content in `folder`."""
    for source in sorted((ROOT / "jobs").rglob("*.py")):
        shipped = folder / source.relative_to(ROOT)
        shipped.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(source, shipped)


def own_part(scope: Construct, environment: Environment, dataset: Dataset) -> assets.Asset:
    """The zip with what one dataset brings: its settings and its query for jobs, its notes for a workbench."""
    with TemporaryDirectory() as folder:
        write_dataset(Path(folder), dataset, prepare_sql(dataset.name))
        write_notes(Path(folder), environment, dataset)
        return assets.Asset(scope, "OwnPart", path=folder)


def write_dataset(folder: Path, dataset: Dataset, sql: str) -> None:
    """Lay out a dataset's settings and its query. Jobs have no TOML and no pydantic: the checking is done here."""
    home = folder / "datasets" / dataset.name
    home.mkdir(parents=True)
    (folder / "datasets" / "__init__.py").touch()  # makes it a package, which pkgutil can read from inside the zip
    (home / "dataset.json").write_text(dataset.to_json(), encoding="utf-8")
    (home / "prepare.sql").write_text(sql, encoding="utf-8")


def wheels(scope: Construct, processor: str) -> assets.Asset:
    """The cluster's Python packages for its processor, with their lock.

    Raises CodeError if `make setup` has not fetched all of them.
    """
    architecture = ARCHITECTURES[processor]
    fetched = WHEELS / architecture
    check_wheels(fetched)
    with TemporaryDirectory() as folder:
        for wheel in fetched.glob("*.whl"):
            shutil.copy(wheel, folder)
        shutil.copy(LOCK, folder)
        platforms = "".join(f"{kind}_{architecture}\n" for kind in PLATFORMS)
        Path(folder, "platform").write_text(platforms, encoding="utf-8")
        return assets.Asset(scope, "Wheels", path=folder)


def check_wheels(folder: Path) -> None:
    """Raise CodeError unless `folder` holds a wheel for each line of the lock."""
    locked = re.findall(r"^([a-z0-9._-]+)==([^ ;\\]+)", LOCK.read_text(encoding="utf-8"), re.MULTILINE)
    there = {tuple(path.name.split("-")[:2]) for path in folder.glob("*.whl")}
    missing = [f"{name}=={version}" for name, version in locked if (name.replace("-", "_"), version) not in there]
    if missing:
        raise CodeError(
            f"The cluster's Python packages are not all in {folder}. "
            f"Missing: {', '.join(missing)}. Fetch them: make setup"
        )


def write_notes(folder: Path, environment: Environment, dataset: Dataset) -> None:
    """Write a dataset's notes as Zeppelin reads them, below `notes/`: those that all have, and its own."""
    database = database_name(environment, dataset.name)
    parameters = parameters_of(dataset, environment=environment.name, database=database)
    for source in (ROOT / "notebooks", ROOT / "notebooks" / dataset.name):
        build_notes(source, folder / "notes", folder=dataset.name, parameters=parameters)


def synthesizer(environment: Environment) -> cdk.DefaultStackSynthesizer:
    """Puts a stack's assets below the environment's own prefix of the bootstrap bucket."""
    return cdk.DefaultStackSynthesizer(bucket_prefix=asset_prefix(environment))


def qualifier(scope: Construct) -> str:
    """What CDK's bootstrap of this account is called; a synthesizer of our own says so only if it was told."""
    told: str | None = scope.node.try_get_context("@aws-cdk/core:bootstrapQualifier")
    return told or cdk.DefaultStackSynthesizer.DEFAULT_QUALIFIER


def asset_prefix(environment: Environment) -> str:
    return f"dml-{environment.name}/"


def read_statements(environment: Environment, asset: assets.Asset) -> list[iam.PolicyStatement]:
    """The rights to find and read this environment's assets, former versions too; `asset` is any of them.

    CDK's own grant would open the whole bucket. Not by hash: a run reads what it was started with, whatever has been
    deployed since, and roles change no later than the first stack.
    """
    bucket = f"arn:{cdk.Aws.PARTITION}:s3:::{asset.s3_bucket_name}"
    own = f"{asset_prefix(environment)}*"
    return [
        iam.PolicyStatement(
            sid="FindOwnCode",
            actions=["s3:ListBucket"],
            resources=[bucket],
            conditions={"StringLike": {"s3:prefix": own}},
        ),
        iam.PolicyStatement(sid="ReadOwnCode", actions=["s3:GetObject"], resources=[f"{bucket}/{own}"]),
    ]
