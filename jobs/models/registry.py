"""The current model: s3://MODELS/DATASET/RUN/ as train.py wrote it, CURRENT.json as the state machine moves it."""

from dataclasses import dataclass
from typing import Any, Dict, List, Optional, Sequence

from pyspark.sql import Column, DataFrame

from jobs.errors import JobError
from jobs.models import forms, tree
from jobs.tables import storage


@dataclass(frozen=True)
class Registered:
    """A published model: all that scoring needs. `home` is the folder of its run."""

    run_id: str
    home: str
    tree: forms.Told

    @property
    def task(self) -> str:
        task: str = self.tree["task"]
        return task

    @property
    def names(self) -> List[str]:
        """Its features' columns."""
        return [feature["name"] for feature in self.tree["features"]]

    @property
    def kinds(self) -> Dict[str, str]:
        """Of each feature, whether it is a number or a category."""
        return {feature["name"]: "category" if "encoding" in feature else "number" for feature in self.tree["features"]}

    def score(self, rows: DataFrame, keep: Sequence[Column], reasons: int = 0) -> DataFrame:
        """`keep`, and what the model says (jobs/models/tree.py `score`). Columns in: every feature's."""
        return tree.score(rows, self.tree, keep, reasons)


def current_model(s3: Any, models: str, dataset: str) -> Optional[Registered]:
    """What CURRENT.json points at now, None before the first model is published. Raises JobError if it is broken."""
    pointer_uri = f"{models.rstrip('/')}/{dataset}/CURRENT.json"
    pointer = storage.read_json(s3, pointer_uri)
    if pointer is None:
        return None
    if not isinstance(pointer, dict) or not isinstance(pointer.get("model"), str) or "run_id" not in pointer:
        raise JobError(
            f"{pointer_uri} is not what a run or `dml models` writes, but {str(pointer)[:100]!r}: delete it, then "
            f"`dml models promote RUN --dataset {dataset}`."
        )
    home = pointer["model"].rstrip("/")
    told = storage.read_json(s3, f"{home}/tree.json")
    if told is None:
        raise JobError(f"{pointer_uri} points at {home}/, which has no tree.json: point it back at a whole run.")
    return Registered(run_id=pointer["run_id"], home=home, tree=told)
