"""Folders called name=value, as Hive has them, in plain Python: the columns that they tell of the files below.

`dml dataset new` and `check`, `dml predict FILE` and a run read them with this. A value is text, as it stands there:
`01` stays `01`. Source for the rest: Hive's FileUtils, as Spark's ExternalCatalogUtils has it (unescapePathName,
DEFAULT_PARTITION_NAME); which files are hidden, Spark's HadoopFSUtils (shouldFilterOutPathName).
"""

import re
from typing import Dict, List, Optional, Sequence
from urllib.parse import unquote

NOTHING = "__HIVE_DEFAULT_PARTITION__"  # how Hive and Spark call the folder of rows without a value
HIDDEN = ("_", ".")  # how names begin that Spark passes over, of files and of folders without "="


def of_path(path: str, names: Optional[Sequence[str]] = None) -> Dict[str, Optional[str]]:
    """The folders name=value of a file's path, from the outermost, without what %XX stands for; NOTHING is None.

    `names`: others are passed over. Raises ValueError, a clause about the path, if a name is there twice.
    """
    found: Dict[str, Optional[str]] = {}
    for folder in path.split("/")[:-1]:
        name, sign, value = folder.partition("=")
        plain = unescaped(name)
        if name and sign and (names is None or plain in names):
            if plain in found:
                raise ValueError(f"has two folders {plain}=")
            found[plain] = None if value == NOTHING else unescaped(value)
    return found


def unescaped(text: str) -> str:
    """A folder's text. Hive writes ASCII alone as %XX, a character each; what writes URIs (pyarrow) all of UTF-8."""
    try:
        return unquote(text, errors="strict")
    except UnicodeDecodeError:
        return re.sub("%([0-9a-fA-F]{2})", lambda found: chr(int(found[1], 16)), text)


def is_hidden(path: str) -> bool:
    """Whether Spark passes a file over, for its own name or a folder's."""
    return any(part.startswith(HIDDEN) and (part[0] != "_" or "=" not in part) for part in path.split("/"))


def values(path: str, texts: Sequence[str]) -> List[Optional[str]]:
    """What the path says for each of these names. Raises ValueError, a clause about the path, if it has none of one."""
    told = of_path(path, texts)
    if lacking := [text for text in texts if text not in told]:
        raise ValueError(f"lies in no folder {lacking[0]}=…, which names a value of that column")
    return [told[text] for text in texts]
