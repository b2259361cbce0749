"""How Spark's interpreter is set through the tunnel, and who may have one: tests/zeppelin_server.py stands in for
Zeppelin."""

from collections.abc import Iterator

import pytest

from dml.errors import UserError
from dml.zeppelin import interpreter, tunnel
from dml.zeppelin.rest import Zeppelin
from tests.zeppelin_server import PASSWORD, Server, fresh, served


@pytest.fixture
def zeppelin() -> Iterator[tuple[Server, int]]:
    with served() as made:
        yield made


def test_each_note_should_get_a_python_of_its_own_and_the_driver_more_memory_once(zeppelin: tuple[Server, int]) -> None:
    served, port = zeppelin
    before = served.setting
    told = interpreter.arrange(Zeppelin(port))
    assert told.startswith("Spark's interpreter is set: perNote = scoped, spark.driver.memory = 2g, ")
    assert served.setting["option"] == {**before["option"], "perNote": "scoped"}
    properties = {name: one["value"] for name, one in served.setting["properties"].items()}
    wanted = {"spark.driver.memory": "2g", "zeppelin.spark.sql.stacktrace": "false"}
    assert properties == {"spark.master": "yarn", **wanted}
    assert served.setting["properties"]["spark.driver.memory"]["description"] == "d", "what else is said of it stays"
    assert interpreter.arrange(Zeppelin(port)) == ""
    assert served.restarts == 1, "what is set already is not set again: that would end sessions"
    served.setting = fresh()  # a new cluster
    assert interpreter.arrange(Zeppelin(port))
    assert served.restarts == 2


def test_a_note_that_runs_should_not_be_ended(zeppelin: tuple[Server, int]) -> None:
    served, port = zeppelin
    served.running = ["2BBB"]
    assert interpreter.arrange(Zeppelin(port)).startswith("/penguins/2 Explore runs: perNote = scoped")
    assert served.restarts == 0
    served.running = []
    assert interpreter.arrange(Zeppelin(port))
    assert served.restarts == 1


def test_what_zeppelin_refuses_or_forgets_should_be_told(zeppelin: tuple[Server, int]) -> None:
    served, port = zeppelin
    served.forgets = True
    with pytest.raises(UserError, match=r"Zeppelin has not kept perNote = scoped.*: set it on its own page"):
        interpreter.arrange(Zeppelin(port))
    served.broken = "no such interpreter"
    with pytest.raises(UserError, match=r"answers GET /interpreter/setting/spark with 500: no such interpreter"):
        interpreter.arrange(Zeppelin(port))


def test_a_zeppelin_that_is_not_there_yet_should_be_told() -> None:
    with pytest.raises(UserError, match=r"does not answer GET /interpreter/setting/spark \(.*\): it may still"):
        interpreter.arrange(Zeppelin(1))


def test_what_is_behind_a_login_should_be_set_by_who_has_it(zeppelin: tuple[Server, int]) -> None:
    with served(PASSWORD) as (server, port):
        tunnel.require_closed(Zeppelin(port))
        assert interpreter.arrange(Zeppelin(port, "analyst", PASSWORD)).startswith("Spark's interpreter is set: ")
        assert server.restarts == 1
        with pytest.raises(UserError, match="does not let analyst in: the password is another one"):
            interpreter.arrange(Zeppelin(port, "analyst", "former"))
        with pytest.raises(UserError, match="answers GET /interpreter/setting/spark with 302"):
            interpreter.arrange(Zeppelin(port))


def test_nobody_should_have_a_tunnel_to_a_zeppelin_without_a_login(zeppelin: tuple[Server, int]) -> None:
    with pytest.raises(tunnel.OpenError, match=r"asks for no login, .* the tunnel is closed again\. .* dml pause"):
        tunnel.require_closed(Zeppelin(zeppelin[1], "analyst", PASSWORD))
