"""What runs on clusters, packed at synth time as S3 assets: entry scripts, their library, wheels, notes.

An asset lies in the CDK's own bucket under the hash of its content; a role is given exactly the objects that it reads.
"""

import re
import shutil
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import aws_cdk as cdk
from aws_cdk import aws_iam as iam
from aws_cdk import aws_s3_assets as assets
from constructs import Construct

from datasets import prepare_sql
from jobs.tables.settings import Dataset
from notebooks.zpln import build_notes
from stacks.settings import Environment, database_name

ROOT = Path(__file__).parent.parent
LOCK = ROOT / "cluster" / "requirements.txt"
WHEELS = ROOT / ".dml" / "wheels"
ARCHITECTURES = {"graviton": "aarch64", "x86": "x86_64"}


class CodeError(Exception):
    """Something that ships to the clusters is missing; the message says how to make it."""


def script(scope: Construct, name: str) -> assets.Asset:
    """An entry script of jobs/ as one file: what Glue and spark-submit start."""
    return assets.Asset(scope, name.capitalize(), path=str(ROOT / "jobs" / f"{name}.py"))


def library(scope: Construct, datasets: Sequence[Dataset]) -> assets.Asset:
    """The zip that every job imports from: `jobs/`, and `datasets/` with each dataset's settings as plain JSON."""
    with TemporaryDirectory() as folder:
        write_library(Path(folder), datasets)
        return assets.Asset(scope, "Library", path=folder)


def write_library(folder: Path, datasets: Sequence[Dataset]) -> None:
    """Lay out the code zip's content in `folder`. Jobs have no TOML and no pydantic: the checking is done here."""
    for source in sorted((ROOT / "jobs").rglob("*.py")):
        shipped = folder / source.relative_to(ROOT)
        shipped.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(source, shipped)
    (folder / "datasets").mkdir()
    (folder / "datasets" / "__init__.py").touch()  # makes it a package, which pkgutil can read from inside the zip
    for dataset in datasets:
        write_dataset(folder, dataset, prepare_sql(dataset.name))


def write_dataset(folder: Path, dataset: Dataset, sql: str) -> None:
    """Add one dataset to the code zip's content: its settings as plain JSON, and its query."""
    home = folder / "datasets" / dataset.name
    home.mkdir()
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
        Path(folder, "platform").write_text(f"manylinux2014_{architecture}\n", encoding="utf-8")
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


def notes(scope: Construct, environment: Environment, datasets: Sequence[Dataset]) -> assets.Asset:
    """The Zeppelin notes that a new workbench starts with."""
    with TemporaryDirectory() as folder:
        write_notes(Path(folder), environment, datasets)
        return assets.Asset(scope, "Notes", path=folder)


def write_notes(folder: Path, environment: Environment, datasets: Sequence[Dataset]) -> None:
    """Write the notes as Zeppelin reads them, in a folder for each dataset: those for all, and its own."""
    # An empty zip cannot be unpacked, so there is always something in it.
    Path(folder, "README").write_text("Copied to the workspace bucket by cluster/bootstrap.sh\n", encoding="utf-8")
    for dataset in datasets:
        database = database_name(environment, dataset.name)
        parameters = {"environment": environment.name, "dataset": dataset.name, "database": database}
        for source in (ROOT / "notebooks", ROOT / "notebooks" / dataset.name):
            build_notes(source, folder, folder=dataset.name, parameters=parameters)


def read_statements(objects: Sequence[assets.Asset]) -> list[iam.PolicyStatement]:
    """The rights to find and read exactly these assets; CDK's own grant would open the whole asset bucket."""
    bucket = f"arn:{cdk.Aws.PARTITION}:s3:::{objects[0].s3_bucket_name}"
    keys = [asset.s3_object_key for asset in objects]
    return [
        iam.PolicyStatement(
            sid="FindOwnCode",
            actions=["s3:ListBucket"],
            resources=[bucket],
            conditions={"StringEquals": {"s3:prefix": keys}},
        ),
        iam.PolicyStatement(sid="ReadOwnCode", actions=["s3:GetObject"], resources=[f"{bucket}/{key}" for key in keys]),
    ]
