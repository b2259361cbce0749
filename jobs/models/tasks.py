"""What a task (binary, multiclass, regression) asks of every model: what it says, and by what it is judged."""

from typing import Any, Dict

from pyspark.sql import Column
from pyspark.sql import functions as F

from jobs.tables.settings import Label, Task

# The columns that a scored row gets: the leaf's id, and one of the others by task.
LEAF, PROBABILITY, PROBABILITIES, PREDICTION = "leaf", "probability", "probabilities", "prediction"
THRESHOLD = 0.5  # from which on a row is called positive, if the model has no threshold of its own
CLIP = 1e-15  # a leaf of one class says 0 or 1; one wrong row there would make the log loss infinite
MAIN = {"binary": "log_loss", "multiclass": "log_loss", "regression": "rmse"}  # lower is better


def threshold(model: Dict[str, Any]) -> float:
    """From which probability on a binary model (tree.json) calls a row positive; of others it means nothing."""
    return float(model.get("threshold", THRESHOLD))


def label_column(declared: Label, task: Task) -> Column:
    """The label as a number: 0 or 1, the place in `classes`, or the value itself."""
    label = F.col(declared.column)
    if task == "multiclass":
        return F.coalesce(*[F.when(label.cast("string") == name, i) for i, name in enumerate(declared.classes)])
    return label.cast("double" if task == "regression" else "int")


def reason_columns(count: int) -> Dict[str, str]:
    """The columns of so many reasons, with their types: reason_1, a feature's name, and reason_1_effect, ..."""
    return {
        name: kind
        for i in range(1, count + 1)
        for name, kind in ((f"reason_{i}", "string"), (f"reason_{i}_effect", "double"))
    }
