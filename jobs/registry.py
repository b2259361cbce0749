"""The current model: s3://MODELS/DATASET/RUN/ as train.py wrote it, CURRENT.json as the state machine moves it."""

from dataclasses import dataclass
from typing import Any, List, Optional

from py4j.protocol import Py4JJavaError  # type: ignore[import-untyped]  # py4j ships no types
from pyspark.ml.regression import DecisionTreeRegressionModel
from pyspark.sql import DataFrame

from jobs import storage
from jobs.encoding import Feature, encode
from jobs.errors import JobError


@dataclass(frozen=True)
class Registered:
    """A published model: all that scoring needs."""

    run_id: str
    tree: DecisionTreeRegressionModel
    features: List[Feature]

    @property
    def names(self) -> List[str]:
        return [feature["name"] for feature in self.features]

    def score(self, rows: DataFrame) -> DataFrame:
        """Adds `features` and `probability`. Columns in: every feature's, by name."""
        return self.tree.transform(encode(rows, self.features))


def current_model(s3: Any, models: str, dataset: str) -> Optional[Registered]:
    """What CURRENT.json points at now, None before the first model is published. Raises JobError if it is broken."""
    pointer_uri = f"{models.rstrip('/')}/{dataset}/CURRENT.json"
    pointer = storage.read_json(s3, pointer_uri)
    if pointer is None:
        return None
    home = pointer["model"].rstrip("/")
    tree = storage.read_json(s3, f"{home}/tree.json")
    if tree is None:
        raise JobError(f"{pointer_uri} points at {home}/, which has no tree.json: point it back at a whole run.")
    try:
        model = DecisionTreeRegressionModel.load(f"{home}/model")
    except Py4JJavaError as error:
        raise JobError(
            f"{pointer_uri} points at {home}/, whose model is unreadable: point it at a whole run."
        ) from error
    return Registered(run_id=pointer["run_id"], tree=model, features=tree["features"])
