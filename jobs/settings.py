"""A dataset's settings as the jobs read them on a cluster: dataset.json and prepare.sql out of the code zip.

The zip is written at synth from datasets/NAME/dataset.toml, where every value has been checked; here it is only typed.
"""

import json
import pkgutil
from typing import Dict, List, Optional, TypedDict

from jobs.errors import JobError


class Label(TypedDict):
    column: str
    positive: str
    classes: List[str]
    unit: str
    unknown: str


class Time(TypedDict):
    column: str
    cut: str


class Table(TypedDict):
    columns: Dict[str, str]
    names: Dict[str, str]
    nulls: List[str]
    delimiter: str
    quote: str
    encoding: str
    header: bool


class Features(TypedDict):
    numbers: List[str]
    categories: List[str]


class Training(TypedDict):
    depth: int
    min_leaf: int
    smoothing: float
    bins: int
    test_share: float
    seed: int


class Tune(TypedDict):
    depths: List[int]
    min_leaves: List[int]
    validation_share: float


class Gate(TypedDict):
    tolerance: float
    suspicious_auc: float
    suspicious_r2: float
    max_quarantined_share: float
    out_of_time: bool
    feature_change: str


class Settings(TypedDict):
    name: str
    title: str
    task: str
    main: str
    keys: List[str]
    label: Label
    time: Optional[Time]
    tables: Dict[str, Table]
    features: Features
    slices: List[str]
    training: Training
    tune: Optional[Tune]
    gate: Gate


def load(name: str) -> Settings:
    """The settings of a dataset. Raises JobError if the code zip doesn't hold it."""
    settings: Settings = json.loads(_read(name, "dataset.json"))
    return settings


def prepare_sql(name: str) -> str:
    """The dataset's query over its raw tables."""
    return _read(name, "prepare.sql")


def file_of(settings: Settings) -> str:
    """Where a reader of an error mends the settings."""
    return f"datasets/{settings['name']}/dataset.toml"


def _read(name: str, file: str) -> str:
    try:
        data = pkgutil.get_data("datasets", f"{name}/{file}")
    except OSError:
        data = None
    if data is None:
        raise JobError(
            f"The code that was shipped with this job has no datasets/{name}/{file}: deploy again, or check --dataset."
        )
    return data.decode("utf-8")
