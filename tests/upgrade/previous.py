"""The templates of the last release, by environment: what an upgrade starts from.

After a release, from a checkout of it (`--app` names its synthesized app):

    python -m tests.upgrade.previous --env dev --app cdk.out
"""

import argparse
import io
import json
import re
import zipfile
from pathlib import Path
from typing import Any

from dml.estate.diff import read_assembly

HOME = Path(__file__).parent / "previous"
SCRIPT = b"#!/bin/bash\nexit 0\n"


def templates(environment: str) -> dict[str, dict[str, Any]]:
    """By stack, in the order in which they are deployed."""
    found: dict[str, dict[str, Any]] = json.loads((HOME / f"{environment}.json").read_text(encoding="utf-8"))
    return found


def asset_keys(environment: str) -> set[str]:
    """The objects in the bootstrap bucket that the templates name."""
    return set(re.findall(r"\b[0-9a-f]{64}\.\w+", json.dumps(templates(environment))))


def placeholder(key: str) -> bytes:
    """Something of an asset's kind: what it does is not tested, and it is not kept."""
    if key.endswith(".sh"):
        return SCRIPT
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr("index.js", "")
    return packed.getvalue()


def keep(environment: str, assembly: Path) -> None:
    """Writes an app's templates here, with assets numbered rather than named by their content."""
    made, after = read_assembly(assembly)
    ordered = {stack: made[stack] for stack in sorted(made, key=lambda stack: (len(after[stack]), stack))}
    for template in ordered.values():
        for resource in template["Resources"].values():
            resource.pop("Metadata", None)
    lines = [
        f"{json.dumps(stack)}: {json.dumps(template, separators=(',', ':'))}" for stack, template in ordered.items()
    ]
    text = "{\n" + ",\n".join(lines) + "\n}"
    numbers: dict[str, str] = {}
    text = re.sub(r"\b[0-9a-f]{64}\b", lambda found: numbers.setdefault(found[0], f"{len(numbers):064x}"), text)
    HOME.mkdir(exist_ok=True)
    (HOME / f"{environment}.json").write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Keep a release's templates as the previous ones.")
    parser.add_argument("--env", required=True)
    parser.add_argument("--app", required=True, type=Path)
    given = parser.parse_args()
    keep(given.env, given.app)
