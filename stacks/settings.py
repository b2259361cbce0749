"""An environment's settings, read from environments/NAME.toml and checked. Used at synth time and by the CLI."""

import re
from collections.abc import Sequence
from ipaddress import IPv4Network
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints, model_validator

from datasets import toml_file
from datasets.toml_file import TomlError
from jobs.tables.settings import checked_cron

HOME = Path(__file__).parent.parent / "environments"

# Families that EMR 7 runs Spark on, by processor. Without a disk of their own: EBS volumes are what is sized here.
FAMILIES = {"graviton": r"[cmr][678]g\.", "x86": r"[cmr](5a?|6[ai]|7[ai])\."}
EXAMPLES = {"graviton": ("m7g.xlarge", "m6g.2xlarge", "r7g.xlarge"), "x86": ("m5.xlarge", "m6i.2xlarge", "r7i.xlarge")}
# GiB of memory a vCPU, by how families begin; and what YARN has of it at least (EMR Release Guide, "Task
# configuration": m4.xlarge 12288 MB, r4.xlarge 23424, c4.xlarge 5632 of 7680).
GIB_A_CORE = {"c": 2, "m": 4, "r": 8}
YARN_SHARE = 0.73
DRIVER_MB = 3072  # EMR's 2 GB of heap, and DRIVER_OVERHEAD of stacks/emr.py
# What EMR gives an executor of its own accord grows with the machine; four cores each are what an xlarge has.
CORES_AN_EXECUTOR = 4


def cores_of(instance_type: str) -> int:
    """Its vCPUs: of large 2, of xlarge 4, of 2xlarge 8 and so on."""
    size = instance_type.partition(".")[2].removesuffix("xlarge")
    return 2 if size == "large" else 4 * int(size or 1)


def yarn_mb(instance_type: str) -> int:
    """What YARN has at least of such a node, in megabytes, for all that runs there. FAMILIES has no other types."""
    return int(cores_of(instance_type) * GIB_A_CORE.get(instance_type[0], 4) * 1024 * YARN_SHARE)


def executors_of(instance_type: str) -> int:
    """How many executors a node holds."""
    return max(1, cores_of(instance_type) // CORES_AN_EXECUTOR)


def overhead_mb(instance_types: Sequence[str]) -> int:
    """What an executor that boosts has outside of Java's heap, and as much within, so that those of a node fit beside
    the driver on the smallest of these types. A node that is too small for a driver has what Spark's least would be."""
    beside = min(map(yarn_mb, instance_types)) - DRIVER_MB
    return max(beside // executors_of(instance_types[0]), 1024) // 2


class SettingsError(TomlError):
    """An environment's file is missing or wrong; the message names file, setting, and what it may be."""


def _network(value: str) -> str:
    network = IPv4Network(value)
    if not 16 <= network.prefixlen <= 24:
        raise ValueError("a VPC for two zones is between a /16 and a /24")
    return value


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class Network(_Part):
    cidr: Annotated[str, AfterValidator(_network)]
    egress: Literal["nat", "nat-per-zone", "endpoints"]


class Retention(_Part):
    keep_runs: int = Field(ge=1, le=10_000)


class Notifications(_Part):
    email: Annotated[str, StringConstraints(pattern=r"^$|^[^@\s]+@[^@\s]+\.[^@\s]+$")]


class Logs(_Part):
    keep_days: Literal[7, 14, 30, 90, 180, 365]  # periods that CloudWatch Logs knows


class Encryption(_Part):
    customer_key: bool
    in_transit: bool


class Budget(_Part):
    monthly_usd: int = Field(ge=0, le=1_000_000)  # 0: no budget


class Schedule(_Part):
    enabled: bool
    cron: Annotated[str, AfterValidator(checked_cron)]
    spread_minutes: int = Field(ge=0, le=1439)
    alarm_days: int = Field(ge=1, le=400)

    @model_validator(mode="after")
    def _on_one_day(self) -> Self:
        """Times are told apart by minutes and hours alone: another day would be another cron."""
        minutes, hours = self.cron.split()[:2]
        if not self.spread_minutes:
            return self
        if not (minutes.isdecimal() and hours.isdecimal()):
            raise ValueError("spread_minutes needs a cron with one minute and one hour; with others it is 0")
        if int(hours) * 60 + int(minutes) + self.spread_minutes > 24 * 60:
            raise ValueError(f"spread_minutes ({self.spread_minutes}) from {hours}:{minutes:0>2} on is past midnight")
        return self


class Etl(_Part):
    worker_type: Literal["G.1X", "G.2X", "G.4X", "G.8X"]
    workers: int = Field(ge=2, le=100)  # one is the driver
    timeout_minutes: int = Field(ge=5, le=1440)


class Cluster(_Part):
    layout: Literal["groups", "fleets"]
    processor: Literal["graviton", "x86"]
    instance_types: tuple[Annotated[str, StringConstraints(pattern=r"^[a-z0-9]+\.[0-9]*x?large$")], ...] = Field(
        min_length=1, max_length=5, strict=False
    )
    minimum_nodes: int = Field(ge=1, le=100)
    maximum_nodes: int = Field(ge=1, le=100)
    spot_nodes: int = Field(ge=0, le=99)
    spot_strategy: Literal["price-capacity-optimized", "capacity-optimized", "diversified", "lowest-price"]
    volume_gib: int = Field(ge=32, le=1024)
    step_timeout_minutes: int = Field(ge=5, le=1440)
    alarm_hours: int = Field(ge=1, le=720)

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.maximum_nodes < self.minimum_nodes:
            raise ValueError(f"maximum_nodes ({self.maximum_nodes}) is below minimum_nodes ({self.minimum_nodes})")
        if self.spot_nodes > self.maximum_nodes - self.minimum_nodes:
            raise ValueError(
                f"spot_nodes ({self.spot_nodes}) may be 0 to {self.maximum_nodes - self.minimum_nodes}: "
                f"of maximum_nodes ({self.maximum_nodes}), minimum_nodes ({self.minimum_nodes}) stay core nodes"
            )
        return self

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        allowed = FAMILIES[self.processor]
        for name in self.instance_types:
            if not re.match(allowed, name):
                other = next((known for known, families in FAMILIES.items() if re.match(families, name)), None)
                raise ValueError(
                    f"instance_types: {name} {f'is {other}' if other else 'is none that EMR has Spark for'}, but "
                    f"processor is {self.processor!r}; that has, for example, {', '.join(EXAMPLES[self.processor])}"
                )
        sizes = sorted({name.partition(".")[2] for name in self.instance_types})
        if len(sizes) > 1:
            raise ValueError(f"instance_types are of different sizes ({', '.join(sizes)}); a node must count as a node")
        if len(set(self.instance_types)) < len(self.instance_types):
            raise ValueError("instance_types names a type twice")
        if self.layout == "groups" and len(self.instance_types) > 1:
            raise ValueError('layout = "groups" takes one of instance_types; several need layout = "fleets"')
        if self.layout == "groups" and self.spot_nodes:
            raise ValueError('spot_nodes need layout = "fleets"; with layout = "groups" they are 0')
        return self


class Workbench(_Part):
    enabled: bool
    idle_minutes: int = Field(ge=10, le=1440)


class Environment(_Part):
    """All that differs between environments. Every setting must be given: a default here would hide it."""

    name: Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9]{1,11}$")]
    keep_data: bool
    retention: Retention
    network: Network
    notifications: Notifications
    logs: Logs
    encryption: Encryption
    budget: Budget
    schedule: Schedule
    etl: Etl
    cluster: Cluster
    workbench: Workbench


def tags(environment: Environment) -> dict[str, str]:
    """The tags of everything that the environment has."""
    return {"project": "dml", "environment": environment.name}


def database_name(environment: Environment, dataset: str) -> str:
    """The Glue database of a dataset: people type it in SQL, and two environments may share an account."""
    return f"{environment.name}_{dataset}"


def machine_name(environment: Environment, dataset: str) -> str:
    """The name of a dataset's state machine, by which dashboard and watch find it."""
    return f"dml-{environment.name}-{dataset}"


def transient_name(environment: str) -> str:
    """How clusters are called that a run makes for itself; their names go on with the dataset's and the run's."""
    return f"dml-{environment}-transient"


def workbench_parameter(environment: Environment) -> str:
    """The SSM parameter with the workbench's cluster id: its address, for state machines and people."""
    return f"/dml/{environment.name}/workbench"


def node_parameters(environment: Environment) -> str:
    """The path of the SSM parameters that nodes read when they start (cluster/bootstrap.sh)."""
    return f"/dml/{environment.name}/cluster"


def network_parameter(environment: Environment) -> str:
    """The SSM parameter with what a cluster's request needs of the network, as JSON; gone while it is paused."""
    return f"/dml/{environment.name}/network"


def environment_names() -> list[str]:
    """The environments that have a file, sorted."""
    return sorted(path.stem for path in HOME.glob("*.toml"))


def load_environment(name: str) -> Environment:
    """The settings of an environment, checked. Raises SettingsError naming file, setting, and what it may be."""
    file = HOME / f"{name}.toml"
    if name not in environment_names():
        raise SettingsError(
            f"There is no environment {name!r}; there are: {', '.join(environment_names())}. "
            f"An environment is a file environments/NAME.toml."
        )
    try:
        explained = "; see environments/dev.toml for what it means"
        return toml_file.read(
            Environment,
            file,
            shown=f"environments/{file.name}",
            name=name,
            named_by="an environment is named by its file",
            explained=explained,
        )
    except TomlError as error:
        raise SettingsError(str(error)) from error
