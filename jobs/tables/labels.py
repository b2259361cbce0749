"""What a label may be is closed: a text of it that dataset.toml does not list is unknown, counted, named."""

from typing import Any, Dict, Mapping

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from jobs.errors import JobError
from jobs.tables.raw import Others
from jobs.tables.settings import Dataset

NAMED = 10  # of the unknown texts, those that are named
Unknown = Dict[str, Any]


def figures(settings: Dataset, table: str) -> Others:
    """What is counted of the rows of a raw table that parse: `labelled`, `strange`; nothing but of the main table."""

    def counted(good: Column) -> Dict[str, Column]:
        if table != settings.main or not settings.label_texts:
            return {}
        label = _label(settings)
        return {
            "labelled": F.count(F.when(good, label)),
            "strange": F.count(F.when(good & ~label.isin(*settings.label_texts), 1)),
        }

    return counted


def unknown_texts(main: DataFrame, counted: Mapping[str, int], settings: Dataset) -> Unknown:
    """Of the main table's good rows: how many have a label (`labelled`), how many one that label.texts does not list
    (`rows`), and how often each of the most frequent of those (`texts`). {} if the settings list none.

    `counted`: `figures` of them; `main` is read only if some are strange. Raises JobError if their share is above
    `gate.max_unknown_label_share`: they would be left out otherwise.
    """
    if not settings.label_texts:
        return {}
    texts: Dict[str, int] = {}
    if counted["strange"]:
        label = _label(settings)
        counts = main.where(~label.isin(*settings.label_texts)).groupBy(label.alias("text")).count()
        texts = {row["text"]: row["count"] for row in counts.orderBy(F.desc("count"), "text").limit(NAMED).collect()}
    found = {"labelled": counted["labelled"], "rows": counted["strange"], "texts": texts}
    if counted["strange"] > settings.gate.max_unknown_label_share * counted["labelled"]:
        raise JobError(sentence(found, settings))
    return found


def _label(settings: Dataset) -> Column:
    return F.trim(F.col(settings.label.raw).cast("string"))


def sentence(found: Mapping[str, Any], settings: Dataset) -> str:
    """Which labels are unknown, what becomes of them, and the ways on."""
    label, share = settings.label, found["rows"] / max(found["labelled"], 1)
    return (
        f"{found['rows']:,} of {found['labelled']:,} labels ({share:.2%}) are none of those that "
        f"{settings.file} lists ({', '.join(map(repr, settings.label_texts))}): {named(found)}. Such rows are "
        "left out, up to "
        f"gate.max_unknown_label_share ({settings.gate.max_unknown_label_share:.0%}). Mend {label.raw} in the "
        "files; or say "
        f"what the text means, in label.{'classes' if settings.label.classes else 'texts'} and where "
        f"datasets/{settings.name}/prepare.sql makes {label.column} of it."
    )


def named(found: Mapping[str, Any]) -> str:
    """The unknown texts, each with its rows."""
    shown = ", ".join(f"{text!r} {count:,}" for text, count in found["texts"].items())
    more = found["rows"] - sum(found["texts"].values())
    return shown + (f", others {more:,}" if more else "")
