"""What AWS's own models say a value may be: lengths, ranges, patterns, enums, numbers of items; in the server.

A request is held to botocore's model of the operation (`faults`), a resource of a template to CloudFormation's schema
of the type (`schema_faults`), which cfn-lint carries along. Sources of the words: recordings of Step Functions
(LocalStack's snapshots, 2025); errors that users have reported of IAM, EventBridge, Logs, Glue and CloudFormation
(GitHub: NixOS/nixops#328, nasa/cumulus#2364, fluent-plugin-cloudwatch-logs#223, etl_manager#90,
retail-demo-store#508); CloudFormation's own validator (aws-cloudformation-resource-schema, ValidationException: a value
that may be a secret is not shown).
"""

import functools
import json
from collections.abc import Iterator, Mapping
from importlib.resources import files
from typing import Any

import regex
from botocore.model import Shape

# Java writes characters beyond the basic plane as two surrogates, Python as one character.
BEYOND_BASIC_PLANE = (r"\uD800\uDC00-\uDBFF\uDFFF", r"\U00010000-\U0010FFFF")
REGION = "us-east-1"  # cfn-lint's full schemas; those of other regions are differences to them


LONGER = "Member must have length less than or equal to {}"
SHORTER = "Member must have length greater than or equal to {}"
ABOVE = "Member must have value less than or equal to {}"
BELOW = "Member must have value greater than or equal to {}"
PATTERN = "Member must satisfy regular expression pattern: {}"
ENUM = "Member must satisfy enum value set: [{}]"


def faults(given: Any, shape: Shape, path: str = "") -> Iterator[str]:
    """What AWS says of each member of a request that its model does not allow, with the value unless it is secret."""
    value = "" if shape.metadata.get("sensitive") else f" '{_shown(given)}'"
    for said in _broken(given, shape):
        yield f"Value{value} at '{path}' failed to satisfy constraint: {said}"
    if shape.type_name == "structure" and isinstance(given, dict):
        for name, member in shape.members.items():
            if given.get(name) is not None:
                yield from faults(given[name], member, f"{path}.{_small(name)}" if path else _small(name))
    elif shape.type_name == "list" and isinstance(given, list):
        for number, item in enumerate(given, start=1):
            yield from faults(item, shape.member, f"{path}.{number}.member")
    elif shape.type_name == "map" and isinstance(given, dict):
        for key, item in given.items():
            yield from faults(key, shape.key, f"{path}.key")
            yield from faults(item, shape.value, f"{path}.{key}.value")


def told(found: list[str]) -> str:
    """The faults of a request as one sentence."""
    return f"{len(found)} validation error{'s' if len(found) > 1 else ''} detected: {'; '.join(found)}"


def _broken(given: Any, shape: Shape) -> Iterator[str]:
    """Each constraint that a value does not satisfy."""
    least, most = shape.metadata.get("min"), shape.metadata.get("max")
    if shape.type_name in ("integer", "long", "float", "double"):
        number = _number(given)
        if number is not None and most is not None and number > most:
            yield ABOVE.format(most)
        if number is not None and least is not None and number < least:
            yield BELOW.format(least)
        return
    if not isinstance(given, str | list | dict) or shape.type_name not in ("string", "list", "map"):
        return
    if isinstance(given, str):
        pattern, enum = shape.metadata.get("pattern"), shape.metadata.get("enum")
        if pattern and not matches(pattern, given, whole=True):
            yield PATTERN.format(pattern)
        if enum and given not in enum:
            yield ENUM.format(", ".join(enum))
    if most is not None and len(given) > most:
        yield LONGER.format(most)
    if least is not None and len(given) < least:
        yield SHORTER.format(least)


def matches(pattern: str, text: str, *, whole: bool) -> bool:
    """Whether a text matches one of AWS's patterns, which are Java's; `whole`: all of it, as services want it."""
    compiled = _compiled(pattern)
    return bool(compiled.fullmatch(text) if whole else compiled.search(text))


@functools.cache
def _compiled(pattern: str) -> "regex.Pattern[str]":
    return regex.compile(pattern.replace(*BEYOND_BASIC_PLANE))


def _number(given: Any) -> float | None:
    """A number, which the query protocol sends as text."""
    if isinstance(given, bool) or not isinstance(given, int | float | str):
        return None
    try:
        return float(given)
    except ValueError:
        return None


def _shown(given: Any) -> str:
    return given if isinstance(given, str) else json.dumps(given)


def _small(name: str) -> str:
    return name[:1].lower() + name[1:]


# --- CloudFormation's schemas ---


def schema_faults(kind: str, properties: Mapping[str, Any]) -> list[str]:
    """What CloudFormation says of each property that the type's schema does not allow: `#/Name: expected ...`.

    Nothing is said of types that have no public schema.
    """
    schema = resource_schema(kind)
    return list(_schema_faults(properties, {**schema, "type": "object"}, schema.get("definitions", {}), "#"))


def replaced(kind: str, old: Mapping[str, Any], new: Mapping[str, Any]) -> tuple[str, ...]:
    """The properties whose change wants a new resource, as the type's schema says; () if the update is in place."""
    paths = [path.removeprefix("/properties/") for path in resource_schema(kind).get("createOnlyProperties", [])]
    return tuple(path for path in paths if _at(path, old) != _at(path, new))


def given_name(kind: str, properties: Mapping[str, Any]) -> str:
    """The name that a template gives a resource that goes by it; "" if CloudFormation makes it up."""
    identifiers = resource_schema(kind).get("primaryIdentifier", [])
    name = _at(identifiers[0].removeprefix("/properties/"), properties) if len(identifiers) == 1 else None
    return name if isinstance(name, str) else ""


def _at(path: str, value: Any) -> Any:
    for part in path.split("/"):
        value = value.get(part) if isinstance(value, Mapping) else None
    return value


@functools.cache
def resource_schema(kind: str) -> dict[str, Any]:
    """A resource type's schema; {} if there is none."""
    name = _schema_names().get(kind)
    if name is None:
        return {}
    found: dict[str, Any] = json.loads((_schemas() / "resources" / f"{name}.json").read_text())
    return found


@functools.cache
def _schema_names() -> dict[str, str]:
    found: dict[str, str] = json.loads((_schemas() / "providers" / f"{REGION}.json").read_text())
    return found


def _schemas() -> Any:
    return files("cfnlint.data.schemas")  # without cfn-lint itself, which takes seconds to load


def _schema_faults(given: Any, schema: Mapping[str, Any], definitions: Mapping[str, Any], path: str) -> Iterator[str]:
    if "$ref" in schema:
        schema = definitions.get(str(schema["$ref"]).rpartition("/")[2], {})
    if isinstance(given, str):
        yield from (f"{path}: {said}" for said in _faults_of_text(given, schema))
    elif isinstance(given, int | float) and not isinstance(given, bool):
        if "maximum" in schema and given > schema["maximum"]:
            yield f"{path}: {given} is not less or equal to {schema['maximum']}"
        if "minimum" in schema and given < schema["minimum"]:
            yield f"{path}: {given} is not greater or equal to {schema['minimum']}"
    elif isinstance(given, list):
        if len(given) > schema.get("maxItems", len(given)):
            yield f"{path}: expected maximum item count: {schema['maxItems']}, found: {len(given)}"
        if len(given) < schema.get("minItems", 0):
            yield f"{path}: expected minimum item count: {schema['minItems']}, found: {len(given)}"
        for index, item in enumerate(given):
            yield from _schema_faults(item, schema.get("items", {}), definitions, f"{path}/{index}")
    elif isinstance(given, Mapping):
        known = schema.get("properties", {})
        for name, item in given.items():
            if name in known:
                yield from _schema_faults(item, known[name], definitions, f"{path}/{name}")


def _faults_of_text(given: str, schema: Mapping[str, Any]) -> Iterator[str]:
    if len(given) > schema.get("maxLength", len(given)):
        yield f"expected maxLength: {schema['maxLength']}, actual: {len(given)}"
    if len(given) < schema.get("minLength", 0):
        yield f"expected minLength: {schema['minLength']}, actual: {len(given)}"
    if "pattern" in schema and not matches(schema["pattern"], given, whole=False):
        yield "failed validation constraint for keyword [pattern]"
    if "enum" in schema and given not in map(str, schema["enum"]):
        yield "failed validation constraint for keyword [enum]"
