"""How Spark's interpreter on the workbench is to be set, brought about by Zeppelin's REST API through the tunnel.

By default all notes share one Python: what one analyst calls `settings`, another one's note finds. `perNote = scoped`
gives each note a Python of its own, in one Spark application. Zeppelin takes that by its REST API only (EMR has no
classification for it), and keeps it in the node's interpreter.json: a restart has it again, a new cluster has not, so
that whoever opens a tunnel looks. How the calls look: Zeppelin 0.11, "Interpreter REST API" and "Notebook REST API".
"""

from collections.abc import Mapping
from typing import Any

from dml.errors import UserError
from dml.zeppelin.rest import Zeppelin

NAME = "spark"
OPTION = {"perNote": "scoped"}
# Zeppelin's own 1g counts before what spark-defaults say; what `collect` brings comes to the driver. A table that is
# not there is told in a sentence, not with 6,600 characters of Java's stack.
PROPERTIES = {"spark.driver.memory": "2g", "zeppelin.spark.sql.stacktrace": "false"}


def arrange(zeppelin: Zeppelin) -> str:
    """Sets what is set otherwise, and says what was done; '' if nothing was to do.

    A change ends the sessions that there are, so it waits as long as a note runs. Raises UserError if Zeppelin does not
    answer or takes it otherwise.
    """
    there = zeppelin.asked("GET", f"/interpreter/setting/{NAME}")
    wanted = [f"{key} = {value}" for key, value in {**OPTION, **PROPERTIES}.items()]
    if _is_arranged(there):
        return ""
    if running := _running(zeppelin):
        return f"{running} runs: {', '.join(wanted)} of Spark's interpreter wait for the next dml zeppelin."
    put(zeppelin, there, PROPERTIES)
    if not _is_arranged(zeppelin.asked("GET", f"/interpreter/setting/{NAME}")):
        raise UserError(f"Zeppelin has not kept {', '.join(wanted)} of Spark's interpreter: set it on its own page.")
    return f"Spark's interpreter is set: {', '.join(wanted)}. Each note has a Python of its own."


def put(zeppelin: Zeppelin, there: dict[str, Any], wanted: Mapping[str, str]) -> None:
    """Sets OPTION and the properties `wanted` of the setting that is `there`, and leaves all else of it as it is."""
    properties = dict(there.get("properties", {}))
    for key, value in wanted.items():
        properties[key] = {"name": key, "type": "string", **properties.get(key, {}), "value": value}
    option = {**there.get("option", {}), **OPTION}
    told = {"properties": properties, "dependencies": there.get("dependencies", []), "option": option}
    zeppelin.asked("PUT", f"/interpreter/setting/{NAME}", told)


def _is_arranged(setting: dict[str, Any]) -> bool:
    options, properties = setting.get("option", {}), setting.get("properties", {})
    return all(options.get(key) == value for key, value in OPTION.items()) and all(
        properties.get(key, {}).get("value") == value for key, value in PROPERTIES.items()
    )


def _running(zeppelin: Zeppelin) -> str:
    """A note that runs, by its path; '' if none does."""
    for note in zeppelin.asked("GET", "/notebook"):
        if zeppelin.asked("GET", f"/notebook/job/{note['id']}").get("isRunning"):
            return str(note.get("path", note["id"]))
    return ""
