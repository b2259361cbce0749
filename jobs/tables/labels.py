"""What a label may be is closed: a text of it that dataset.toml does not list is unknown, counted, named."""

from typing import Any, Dict, Mapping

from pyspark.sql import SparkSession
from pyspark.sql import functions as F

from jobs.errors import JobError
from jobs.tables.settings import Dataset

NAMED = 10  # of the unknown texts, those that are named
Unknown = Dict[str, Any]


def unknown_texts(spark: SparkSession, settings: Dataset) -> Unknown:
    """Of the main table's good rows: how many have a label (`labelled`), how many one that label.texts does not list
    (`rows`), and how often each of the most frequent of those (`texts`). {} if the settings list none.

    Raises JobError if their share is above `gate.max_unknown_label_share`: they would be left out otherwise.
    """
    if not settings.label_texts:
        return {}
    label = F.trim(F.col(settings.label.raw).cast("string"))
    known = spark.table(settings.main).where(label.isNotNull())
    strange = (~label.isin(*settings.label_texts)).cast("int")
    ((labelled, rows),) = known.agg(F.count("*"), F.coalesce(F.sum(strange), F.lit(0))).collect()
    texts: Dict[str, int] = {}
    if rows:
        counts = known.where(strange == 1).groupBy(label.alias("text")).count()
        texts = {row["text"]: row["count"] for row in counts.orderBy(F.desc("count"), "text").limit(NAMED).collect()}
    found = {"labelled": labelled, "rows": rows, "texts": texts}
    most = settings.gate.max_unknown_label_share
    if rows > most * labelled:
        raise JobError(sentence(found, settings))
    return found


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
