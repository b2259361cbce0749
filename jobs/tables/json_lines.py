"""JSON lines in plain Python: an object a line, its values as the cells of text that a CSV file has.

`dml dataset new` and `check`, `dml predict FILE` and a run read them with this. A number is its text, as the file has
it; a key that is missing, or null, is a missing value; lists and objects are no cells.
"""

import json
from typing import Any, Dict, List, Optional, Sequence, Tuple

Cells = List[Optional[str]]


def read(line: str) -> Tuple[Dict[str, Any], str]:
    """The object of a line by its keys, and why the line is none; '' if it is one. Numbers are text there."""
    try:
        found = json.loads(line, parse_int=str, parse_float=str, parse_constant=str, object_pairs_hook=_once)
        if "\\u" in line:
            json.dumps(found, ensure_ascii=False).encode()
    except UnicodeError:
        return {}, "the line has half of a character (a lone surrogate)"
    except RecursionError:
        return {}, "the line is nested too deeply"
    except ValueError as error:
        return {}, f"the line is no JSON: {error}"
    return (found, "") if isinstance(found, dict) else ({}, "the line is JSON, but no object")


def cells(line: str, keys: Sequence[str]) -> Tuple[Cells, str]:
    """The line's cells at these keys, and why it is no row; '' if it is one."""
    found, fault = read(line)
    if fault:
        return [], fault
    values: Cells = []
    for key in keys:
        value: Any = found.get(key)
        if isinstance(value, (list, dict)):
            return [], f"{key!r} is {'a list' if isinstance(value, list) else 'an object'}, and no single value"
        values.append(str(value).lower() if isinstance(value, bool) else value)
    return values, ""


def _once(pairs: Sequence[Tuple[str, Any]]) -> Dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"the key {next(name for name in names if names.count(name) > 1)!r} stands there twice")
    return found
