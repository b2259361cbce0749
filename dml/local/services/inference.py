"""Infers a Glue table from samples of CSV files, with DuckDB's sniffer; used by the embedded cloud's crawler."""

import csv
import io
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import duckdb

# Glue's CSV classifier knows these types; dates and times stay strings (Glue guide, "Built-in CSV classifier").
WHOLE = ("TINYINT", "SMALLINT", "INTEGER", "BIGINT")
FRACTION = ("HUGEINT", "FLOAT", "DOUBLE", "DECIMAL")


@dataclass(frozen=True)
class Sample:
    """The beginning of one file: whole lines, decompressed. `whole`: it is the entire file."""

    key: str
    content: bytes
    whole: bool


@dataclass(frozen=True)
class CsvSchema:
    """What the samples have in common. `columns`: name to Glue type, in the files' order."""

    columns: dict[str, str]
    delimiter: str
    header: bool


@dataclass(frozen=True)
class Classifier:
    """A custom CSV classifier's settings; None where it leaves them to be found out."""

    delimiter: str | None = None
    quote: str | None = None
    header: bool | None = None
    names: Sequence[str] = field(default_factory=tuple)
    single_column: bool = False

    @classmethod
    def of(cls, record: Mapping[str, Any]) -> "Classifier":
        """From the CsvClassifier of GetClassifier."""
        present = {"PRESENT": True, "ABSENT": False}.get(record.get("ContainsHeader", ""))
        return cls(
            delimiter=record.get("Delimiter") or None,
            quote=record.get("QuoteSymbol") or None,
            header=present,
            names=tuple(record.get("Header") or ()),
            single_column=bool(record.get("AllowSingleColumn", False)),
        )


BUILT_IN = Classifier()


def infer(samples: Sequence[Sample], classifiers: Sequence[Classifier]) -> CsvSchema | None:
    """The schema by the first classifier that knows the samples, or None if none does (Glue: classification UNKNOWN).

    Source: Glue guide, "Defining and managing classifiers".
    """
    return next((schema for classifier in classifiers if (schema := _known(samples, classifier))), None)


def _known(samples: Sequence[Sample], classifier: Classifier) -> CsvSchema | None:
    schemas = [schema for sample in samples if (schema := _sniff(sample.content, classifier))]
    if not schemas:
        return None
    first = schemas[0]
    columns = dict(first.columns)
    for schema in schemas[1:]:
        for name, kind in schema.columns.items():
            columns[name] = _wider(columns.get(name, kind), kind)
    if len(columns) < 2 and not classifier.single_column:
        return None
    return CsvSchema(columns, first.delimiter, first.header)


def _sniff(content: bytes, classifier: Classifier) -> CsvSchema | None:
    if not content.strip():
        return None
    with tempfile.NamedTemporaryFile(suffix=".csv") as file, duckdb.connect() as database:
        Path(file.name).write_bytes(content)
        options = ["sample_size=-1", "ignore_errors=true", "null_padding=true", "strict_mode=false"]
        parameters: list[Any] = [file.name]
        for option, value in (
            ("delim", classifier.delimiter),
            ("quote", classifier.quote),
            ("header", classifier.header),
        ):
            if value is not None:
                options.append(f"{option}=?")
                parameters.append(value)
        query = f"SELECT Delimiter, Quote, HasHeader, Columns FROM sniff_csv(?, {', '.join(options)})"  # noqa: S608 - fixed words
        try:
            row = database.execute(query, parameters).fetchone()
        except duckdb.Error:
            return None
    if row is None:
        return None
    delimiter, quote, header, found = row
    kinds = [_glue_type(column["type"]) for column in found]
    # A file of nothing but words has no line that differs from the rest: Glue then takes the first as data.
    names = classifier.names or (
        _header(content, delimiter, quote) if header else [f"col{i}" for i in range(len(found))]
    )
    # A row that is longer than the header adds no column, it is a broken row.
    return CsvSchema(_lower_unique(names, (kinds + ["string"] * len(names))[: len(names)]), delimiter, bool(header))


def _header(content: bytes, delimiter: str, quote: str) -> list[str]:
    text = content.decode("utf-8-sig", errors="replace")
    return next(
        csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, quotechar=quote if len(quote) == 1 else '"')
    )


def _lower_unique(names: Sequence[str], kinds: Sequence[str]) -> dict[str, str]:
    columns: dict[str, str] = {}
    for position, (name, kind) in enumerate(zip(names, kinds, strict=True)):
        column = unique = name.strip().lower() or f"col{position}"
        while unique in columns:
            unique = f"{column}_{position}"
        columns[unique] = kind
    return columns


def _glue_type(kind: str) -> str:
    if kind in WHOLE:
        return "bigint"
    if kind.startswith(FRACTION):
        return "double"
    return "boolean" if kind == "BOOLEAN" else "string"


def _wider(one: str, other: str) -> str:
    if one == other:
        return one
    return "double" if {one, other} == {"bigint", "double"} else "string"
