"""What Glue's built-in classifiers know beside CSV: Parquet by its footer, JSON by its beginning; for the crawler.

Sources: Glue guide, "Built-in classifiers" (Parquet: "reads the schema at the end of the file"; JSON: "reads the
beginning of the file"), and a table of Parquet that the real crawler wrote (classification `parquet`, recordCount,
averageRecordSize). Which types it gives to JSON's values is unproven (docs/first-deploy.md).
"""

import io
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa  # pyarrow ships no types
import pyarrow.parquet as pq

from dml.local.services.inference import Sample
from jobs.tables.records import JSON

MAGIC = b"PAR1"
HIVE = "org.apache.hadoop.hive.ql.io"
SIMPLE = {
    "bool": "boolean", "int8": "tinyint", "int16": "smallint", "int32": "int", "int64": "bigint", "uint8": "smallint",
    "uint16": "int", "uint32": "bigint", "uint64": "bigint", "float": "float", "double": "double", "string": "string",
    "large_string": "string", "binary": "binary", "date32[day]": "date",
}  # fmt: skip


@dataclass(frozen=True)
class Known:
    """A folder's format, as a table of the catalog has it. `records`: how many; None if that was not counted."""

    classification: str
    columns: dict[str, str]
    serde: str
    input_format: str
    output_format: str
    records: int | None = None
    serde_parameters: dict[str, str] = field(default_factory=dict)


def known(samples: Sequence[Sample], ends: Callable[[int, int], bytes]) -> Known | None:
    """The format of files that begin as the samples do, if it is Parquet or JSON.

    `ends(file, n)`: the last n bytes of a sample's file.
    """
    if all(sample.content.startswith(MAGIC) for sample in samples):
        try:
            footers = [_footer(lambda n, file=file: ends(file, n)) for file in range(len(samples))]  # type: ignore[misc]
        except (pa.ArrowException, OSError):
            return None  # not Parquet after all, or not whole: Glue's classifier does not know it
        columns = {name.lower(): kind for footer in footers for name, kind in _columns_of(footer).items()}
        rows = sum(footer.num_rows for footer in footers)
        serde = f"{HIVE}.parquet.serde.ParquetHiveSerDe"
        formats = f"{HIVE}.parquet.MapredParquetInputFormat", f"{HIVE}.parquet.MapredParquetOutputFormat"
        return Known("parquet", columns, serde, *formats, rows, {"serialization.format": "1"})
    if all(JSON.match(sample.content[:1000].decode("utf-8-sig", errors="replace")) for sample in samples):
        found = _columns_of_objects(samples)
        if not found:
            return None
        serde = "org.openx.data.jsonserde.JsonSerDe"
        formats = "org.apache.hadoop.mapred.TextInputFormat", f"{HIVE}.HiveIgnoreKeyTextOutputFormat"
        return Known("json", found, serde, *formats, serde_parameters={"paths": ",".join(sorted(found))})
    return None


def _footer(end: Callable[[int], bytes]) -> Any:
    """The metadata of a Parquet file: its length stands before the last four bytes."""
    length = int.from_bytes(end(8)[:4], "little")
    return pq.read_metadata(io.BytesIO(MAGIC + end(length + 8)))


def _columns_of(footer: Any) -> dict[str, str]:
    return {column.name: _hive(column.type) for column in footer.schema.to_arrow_schema()}


def _hive(kind: Any) -> str:
    """A type of Arrow as Hive calls it."""
    if pa.types.is_list(kind):
        return f"array<{_hive(kind.value_type)}>"
    if pa.types.is_struct(kind):
        return f"struct<{','.join(f'{each.name}:{_hive(each.type)}' for each in kind)}>"
    if pa.types.is_map(kind):
        return f"map<{_hive(kind.key_type)},{_hive(kind.item_type)}>"
    if pa.types.is_decimal(kind):
        return f"decimal({kind.precision},{kind.scale})"
    if pa.types.is_timestamp(kind):
        return "timestamp"
    if pa.types.is_dictionary(kind):
        return _hive(kind.value_type)
    return SIMPLE.get(str(kind), "string")


def _columns_of_objects(samples: Sequence[Sample]) -> dict[str, str]:
    """The keys of the samples' objects, an object a line, each with a type that all its values have."""
    found: dict[str, str] = {}
    for line in (line for sample in samples for line in sample.content.splitlines()):
        try:
            value = json.loads(line)
        except ValueError:
            continue
        for key, kind in ((key, _of_value(value[key])) for key in (value if isinstance(value, dict) else ())):
            name = key.lower()
            found[name] = _wider(found.get(name, kind), kind)
    return {name: kind or "string" for name, kind in found.items()}


def _of_value(value: Any) -> str:
    """'' for null, which any type has."""
    if value is None:
        return ""
    if isinstance(value, list):
        return f"array<{_wider(*[_of_value(each) for each in value]) or 'string' if value else 'string'}>"
    if isinstance(value, dict):
        fields = (f"{key.lower()}:{_of_value(each) or 'string'}" for key, each in value.items())
        return f"struct<{','.join(fields)}>"
    if isinstance(value, int) and not isinstance(value, bool):
        return "int" if abs(value) < 2**31 else "bigint"
    return {bool: "boolean", float: "double"}.get(type(value), "string")


def _wider(*kinds: str) -> str:
    """The type that all of these fit; text, if no other does."""
    known_kinds = {kind for kind in kinds if kind}
    if len(known_kinds) < 2:
        return next(iter(known_kinds), "")
    if known_kinds <= {"int", "bigint"}:
        return "bigint"
    return "double" if known_kinds <= {"int", "bigint", "double"} else "string"
