"""The price table, prices.toml: read, checked, and asked for the price of an instance."""

import datetime as dt
import re
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from dml.errors import UserError

TABLE = Path(__file__).parent / "prices.toml"


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Rate(_Part):
    """USD for one `unit`. `free`: units that each account gets every month."""

    usd: float = Field(gt=0)
    unit: str
    free: float = 0
    unverified: bool = False


class Family(_Part):
    """EC2 instances of one family, by their `xlarge`; `emr_cap` is the most that EMR adds an hour."""

    xlarge: float = Field(gt=0)
    vcpu: int
    gib: int
    emr_cap: float | None = None


class Assumption(_Part):
    """A quantity that no template tells."""

    value: float = Field(ge=0, allow_inf_nan=False)
    unit: str
    why: str


class Emr(_Part):
    fee_share: float
    fee_unverified: bool


class Spot(_Part):
    price_share: float = Field(gt=0, le=1)
    unverified: bool


@dataclass(frozen=True)
class Instance:
    """An instance type: USD an hour of EC2 (on demand) and of EMR's fee, and what it has."""

    name: str
    ec2: float
    emr: float
    vcpu: int
    gib: float
    size: float  # in xlarge


class Prices(_Part):
    """prices.toml. All prices are USD in one region."""

    currency: str
    region: str
    checked: dt.date
    hours_per_month: float
    sources: dict[str, str]
    rates: dict[str, Rate]
    emr: Emr
    spot: Spot
    families: dict[str, Family]
    glue_workers: dict[str, float]
    assumptions: dict[str, Assumption]

    def instance(self, name: str) -> Instance | None:
        """The type called `name`, such as m7g.2xlarge; None if its family or size is not in the table."""
        family, _, size = name.partition(".")
        found, factor = self.families.get(family), _size(size)
        if found is None or factor is None:
            return None
        ec2 = found.xlarge * factor
        fee = min(ec2 * self.emr.fee_share, found.emr_cap or ec2)
        vcpu = max(1, int(found.vcpu * factor))
        return Instance(name, ec2, fee, vcpu, found.gib * factor, factor)

    def assuming(self, changes: Sequence[str]) -> "Prices":
        """The same with assumptions changed, each as NAME=VALUE. Raises UserError for what is no assumption."""
        assumptions = dict(self.assumptions)
        for change in changes:
            name, _, value = change.partition("=")
            if name not in assumptions:
                raise UserError(f"{name!r} is nothing that dml cost assumes; it assumes: {', '.join(assumptions)}.")
            try:
                assumptions[name] = Assumption(value=float(value), unit=assumptions[name].unit, why="given by --assume")
            except ValueError:  # pydantic's too
                raise UserError(f"--assume {change}: {name} is a number of at least 0, as in {name}=5.") from None
        return self.model_copy(update={"assumptions": assumptions})

    def assumed(self, name: str) -> float:
        return self.assumptions[name].value

    def as_json(self) -> dict[str, Any]:
        """What a reader of figures must know of the table behind them."""
        return {"region": self.region, "currency": self.currency, "checked": self.checked.isoformat()}


def _size(text: str) -> float | None:
    """How many xlarge a size is."""
    if text in ("medium", "large", "xlarge"):
        return {"medium": 0.25, "large": 0.5, "xlarge": 1.0}[text]
    found = re.fullmatch(r"(\d+)xlarge", text)
    return float(found[1]) if found else None


@cache
def load(file: Path = TABLE) -> Prices:
    """The price table. Raises UserError naming the entry that is wrong."""
    try:
        return Prices(**tomllib.loads(file.read_text(encoding="utf-8")))
    except (tomllib.TOMLDecodeError, ValidationError) as error:
        raise UserError(f"{file.name} is not a price table: {error}") from error
