"""The root user's access key of an embedded cloud: made when that is first started, kept in its folder, its owner's.

Server and client both read it there, so that it is on no command line and in no environment that others can see.
"""

import contextlib
import hashlib
import hmac
import json
import os
import re
import secrets
import string
from collections.abc import Mapping
from pathlib import Path

from dml.errors import UserError

ID, SECRET = "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"
# No key of AWS's begins so, and none is 12 digits, which ministack takes for an account.
PREFIX = "DML"
ID_LENGTH = 20  # as AWS's own have
FORM = {ID: re.compile(rf"{PREFIX}[A-Z]{{{ID_LENGTH - len(PREFIX)}}}"), SECRET: re.compile(r"[\w-]{40}", re.ASCII)}


def read(path: Path) -> dict[str, str]:
    """The key by the names of environment variables; UserError if there is none in the file."""
    why = ""
    try:
        given = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        why = "are missing"
    except OSError as error:
        why = f"cannot be read ({error.strerror})"
    except ValueError:
        given = None
    if not why and not _is_key(given):
        why = "are damaged"
    if why:
        raise UserError(
            f"The keys of the embedded cloud in {path} {why}. "
            "Start it anew, with new keys and all its data: dml local up"
        )
    return {name: given[name] for name in FORM}


def ready(path: Path) -> dict[str, str]:
    """The key, made anew if there is none that can be read: nothing is encrypted with it, so nothing is lost."""
    try:
        return read(path)
    except UserError:
        made = {
            ID: PREFIX + "".join(secrets.choice(string.ascii_uppercase) for _ in range(ID_LENGTH - len(PREFIX))),
            SECRET: secrets.token_urlsafe(30),
        }
        _write(path, json.dumps(made))
        return made


def proof(root: Mapping[str, str], challenge: str, *about: object) -> str:
    """What only who has the key can answer to a challenge, and what tells nothing of it."""
    text = "\n".join(map(str, ("dml", challenge, *about)))
    return hmac.new(root[SECRET].encode(), text.encode(), hashlib.sha256).hexdigest()


def _is_key(given: object) -> bool:
    return isinstance(given, dict) and all(
        isinstance(given.get(name), str) and form.fullmatch(given[name]) for name, form in FORM.items()
    )


def _write(path: Path, text: str) -> None:
    """All of the file or nothing, and never for a moment readable by others."""
    fresh = path.with_name(path.name + ".new")
    with contextlib.suppress(FileNotFoundError):
        fresh.unlink()
    fresh.touch(mode=0o600, exist_ok=False)
    with fresh.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    try:
        fresh.rename(path)
    except IsADirectoryError:
        raise UserError(f"{path} is a folder, where the keys of the embedded cloud belong. Move it away.") from None
