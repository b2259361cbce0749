"""What a task (binary, multiclass, regression) asks of every model: what it says, and by what it is judged."""

from pyspark.sql import Column
from pyspark.sql import functions as F

from jobs.tables.settings import Label, Task

# The columns that a scored row gets: the leaf's id, and one of the others by task.
LEAF, PROBABILITY, PROBABILITIES, PREDICTION = "leaf", "probability", "probabilities", "prediction"
CLIP = 1e-15  # a leaf of one class says 0 or 1; one wrong row there would make the log loss infinite
MAIN = {"binary": "log_loss", "multiclass": "log_loss", "regression": "rmse"}  # lower is better


def label_column(declared: Label, task: Task) -> Column:
    """The label as a number: 0 or 1, the place in `classes`, or the value itself."""
    label = F.col(declared.column)
    if task == "multiclass":
        return F.coalesce(*[F.when(label.cast("string") == name, i) for i, name in enumerate(declared.classes)])
    return label.cast("double" if task == "regression" else "int")
