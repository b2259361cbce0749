"""What a note's source is told of its dataset, by the names that stand in {{ }}; worked out at synth."""

from jobs.tables.settings import Dataset


def parameters_of(dataset: Dataset, *, environment: str, database: str) -> dict[str, str]:
    """Every parameter of the notes. Columns come quoted, as they stand in SQL, but for those that forms offer.

    `outcome`: what happened, as a number that can be averaged; `said`: the column of `predictions` to hold against it.
    """
    label = quoted(dataset.label.column)
    of_task = {
        "binary": (f"avg(CAST({label} AS DOUBLE))", "probability", f"is {dataset.label.positive}"),
        "multiclass": (f"avg(CAST({label} = prediction AS INT))", "probability", "is of the predicted class"),
        "regression": (f"avg(CAST({label} AS DOUBLE))", "prediction", dataset.label.unit or dataset.label.column),
    }
    outcome, said, means = of_task[dataset.task]
    names = dataset.features.names
    first = next(iter(dataset.features.categories), names[0])
    return {
        "environment": environment,
        "dataset": dataset.name,
        "database": database,
        "title": dataset.title,
        "task": dataset.task,
        "label": label,
        "keys": ", ".join(quoted(key) for key in dataset.keys),
        "features": "|".join(names),
        "feature": first,
        "outcome": outcome,
        "said": said,
        "answers": "prediction" if said == "prediction" else f"{said}, prediction",
        "means": means,
        "label_share": shown_label(dataset),
    }


def shown_label(dataset: Dataset) -> str:
    """The label in one number over some rows: a share, of several classes the chosen one's, or a mean."""
    label = quoted(dataset.label.column)
    if dataset.task != "multiclass":
        return f"avg(CAST({label} AS DOUBLE))"
    # Of the classes that a form can offer: a name with its own marks, or with SQL's, would be read otherwise.
    plain = [name for name in dataset.label.classes if not set(name) & set("'\\|,=(){}$")]
    return (
        f"avg(CAST({label} = '${{class={plain[0]},{'|'.join(plain)}}}' AS INT))"
        if plain
        else f"count(DISTINCT {label})"
    )


def quoted(column: str) -> str:
    return f"`{column}`"
