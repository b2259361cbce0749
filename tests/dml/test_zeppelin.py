"""Analysts' notes between the bucket and files, and the tunnel to Zeppelin."""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from botocore.exceptions import ClientError
from hypothesis import given
from hypothesis import strategies as st

from datasets import load_dataset
from dml.errors import UserError
from dml.estate.platform import Platform
from dml.zeppelin import notes, source, tunnel
from dml.zeppelin.notes import BROKEN, CONFLICT, EDITED, KEPT, NEW, UPDATED, Notes
from dml.zeppelin.rest import Zeppelin
from notebooks.parameters import parameters_of
from notebooks.zpln import build_note, new_note
from stacks.outputs import NOTES, Output
from tests.command import run_dml
from tests.embedded import Clients
from tests.zeppelin_server import PASSWORD, Server, served

SHIPPED = Path(__file__).parents[2] / "notebooks"
BUCKET = "workspace-of-notes"


def paragraph(text: str, **own: Any) -> dict[str, Any]:
    """As Zeppelin stores one that has run."""
    results = {"code": "SUCCESS", "msg": [{"type": "TEXT", "data": "1\\n"}]}
    run = {"results": results, "status": "FINISHED", "dateFinished": "2026-11-29 10:11:12.345"}
    return {"id": "paragraph_1_2", "text": text, "config": {"colWidth": 6}, "settings": {"params": {}}} | run | own


def note(*paragraphs: dict[str, Any]) -> dict[str, Any]:
    return new_note("Mine", "2ABCDEFGH", list(paragraphs)) | {"info": {"of": "Zeppelin"}}


def edited(before: dict[str, Any], old: str, new: str) -> list[dict[str, Any]]:
    text = source.markdown(before)
    assert old in text
    changed: list[dict[str, Any]] = source.edited(before, text.replace(old, new))["paragraphs"]
    return changed


# --- A note as Markdown, and back ---

TEXTS = st.text(st.sampled_from("ab#*`~ \\n-|<>=%\\t\\\\$'\"é") | st.characters(codec="utf-8"), max_size=60)
HEADS = st.sampled_from(["%md\n", "%spark.pyspark\n", "%spark.sql\n", "%sh\n", "%spark.sql(limit=5) ", "", "%md "])
GRAPHS = st.fixed_dictionaries(
    {
        "mode": st.sampled_from(["table", "lineChart"]),
        "height": st.sampled_from([300, 450.0]),
        "keys": st.lists(
            st.fixed_dictionaries({"name": TEXTS, "index": st.just(0.0), "aggr": st.just("sum")}), max_size=2
        ),
    }
)
PARAGRAPHS = st.builds(
    lambda head, text, title, shown, graph: {
        "id": "p",
        "text": head + text,
        "title": title,
        "config": {"title": shown, "results": {"0": {"graph": graph}}},
        "results": {"code": "SUCCESS"},
    },
    HEADS,
    TEXTS,
    TEXTS,
    st.booleans(),
    GRAPHS,
)


@given(st.lists(PARAGRAPHS, max_size=5))
def test_a_note_that_nobody_has_edited_should_come_back_as_it_was(paragraphs: list[dict[str, Any]]) -> None:
    before = note(*paragraphs)
    assert source.edited(before, source.markdown(before)) == before


@pytest.mark.parametrize("path", sorted(SHIPPED.rglob("*.md")), ids=lambda path: path.name)
def test_a_shipped_note_should_come_back_as_it_was_and_read_like_its_source(path: Path) -> None:
    parameters = parameters_of(load_dataset("nyc_flights"), environment="dev", database="dev_nyc_flights")
    before = build_note(path, folder="nyc_flights", parameters=parameters)
    text = source.markdown(before)
    assert source.edited(before, text) == before
    fences = [line for line in path.read_text(encoding="utf-8").splitlines() if line.startswith("```")]
    assert [line.replace('"', "") for line in text.splitlines() if line.startswith("```")] == [
        line.replace('"', "").replace(" chart=table height=300", "") for line in fences
    ]


def test_an_edited_paragraph_should_keep_its_place_and_looks_and_lose_the_results_of_its_former_text() -> None:
    before = note(paragraph("%md\nHello."), paragraph("%spark.pyspark\nprint(1)", id="paragraph_3_4"))
    first, second = edited(before, "print(1)", "print(2)")
    assert first == before["paragraphs"][0]
    assert second["text"] == "%spark.pyspark\nprint(2)"
    assert (second["id"], second["config"], second["status"]) == ("paragraph_3_4", {"colWidth": 6}, "READY")
    assert not {"results", "dateFinished"} & second.keys()


def test_paragraphs_should_come_and_go_and_the_others_stay() -> None:
    before = note(paragraph("%md\nOne."), paragraph("%md\nTwo."), paragraph("%sh\nls"))
    made = edited(before, "Two.", 'New.\n\n```sql title="All of them" chart=table height=900\nSELECT 1\n```')
    assert [one["text"] for one in made] == ["%md\nOne.", "%md\nNew.", "%spark.sql\nSELECT 1", "%sh\nls"]
    assert (made[0], made[3]) == (before["paragraphs"][0], before["paragraphs"][2])
    assert (made[2]["title"], made[2]["config"]["results"]["0"]["graph"]["height"]) == ("All of them", 900)
    assert [one["text"] for one in edited(before, f"{source.SEPARATOR}\n\nTwo.\n\n", "")] == ["%md\nOne.", "%sh\nls"]


def test_a_title_or_a_chart_may_be_edited_alone_and_the_results_stay() -> None:
    before = note(paragraph("%spark.sql\nSELECT 1", title="Old", config={"title": True, "fontSize": 12}))
    (made,) = edited(before, "sql title=Old", 'sql title="What is new" chart=lineChart x=hour:0')
    assert (made["title"], made["results"], made["config"]["fontSize"]) == (
        "What is new",
        before["paragraphs"][0]["results"],
        12,
    )
    graph = made["config"]["results"]["0"]["graph"]
    assert (graph["mode"], [key["name"] for key in graph["keys"]]) == ("lineChart", ["hour"])


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("Hello\n\n```perl\n1\n```", "line 3: a fence of perl; say python, sql, md, or an interpreter's own head"),
        ("```sql colour=red\n```", "line 1: colour=red: behind the language may stand title=, chart="),
        ('```sql title="Open\n```', "line 1: what stands behind the fence cannot be read (No closing quotation)"),
    ],
)
def test_markdown_that_is_no_note_should_be_told_with_its_line(text: str, told: str) -> None:
    with pytest.raises(UserError) as error:
        source.edited(note(), text)
    assert told in str(error.value)


# --- The bucket and files ---


@pytest.fixture
def there(aws: Clients) -> Iterator[Notes]:
    s3 = aws("s3")
    s3.create_bucket(Bucket=BUCKET)
    outputs = {Output.WORKSPACE_BUCKET: BUCKET}
    yield Notes(cast(Platform, SimpleNamespace(s3=s3, output=outputs.__getitem__)))
    for one in s3.list_objects_v2(Bucket=BUCKET).get("Contents", []):
        s3.delete_object(Bucket=BUCKET, Key=one["Key"])
    s3.delete_bucket(Bucket=BUCKET)


KEY = "flights/late/Mine_2ABCDEFGH.zpln"


def told(done: Iterator[notes.Done]) -> list[tuple[str, str]]:
    return [(one.what, one.name.rpartition("/")[2]) for one in done]


def in_zeppelin(there: Notes, old: str, new: str) -> None:
    """Somebody edits the note there, and saves it."""
    stored = there.get(KEY)
    assert stored
    assert there.put(KEY, source.edited(stored.note, stored.text.replace(old, new)))


def test_a_note_should_go_to_a_file_and_back_with_what_was_edited(there: Notes, tmp_path: Path) -> None:
    before = note(paragraph("%md\nHello."), paragraph("%spark.pyspark\nprint(1)"))
    there.put(KEY, before)
    there.put("~Trash/Gone_2ABCDEFGJ.zpln", before)
    assert told(notes.pull(there, tmp_path)) == [(NEW, "Mine.md")]
    file = tmp_path / "flights" / "late" / "Mine.md"
    assert file.read_text().startswith("Hello.\n\n```python\nprint(1)\n```\n\n<!-- zeppelin: flights/late/Mine_2ABC")
    assert told(notes.push(there, tmp_path)) == [(KEPT, "Mine.md")]
    file.write_text(file.read_text().replace("print(1)", "print(2)"))
    assert told(notes.pull(there, tmp_path)) == [(EDITED, "Mine.md")]
    (difference,) = notes.differences(there, tmp_path)
    assert "-print(1)\n+print(2)" in difference
    assert told(notes.push(there, tmp_path)) == [(UPDATED, "Mine.md")]
    stored = there.get(KEY)
    assert stored
    first, second = stored.note["paragraphs"]
    assert first == before["paragraphs"][0]
    assert second["text"] == "%spark.pyspark\nprint(2)"
    assert stored.note["info"] == {"of": "Zeppelin"}
    assert told(notes.push(there, tmp_path)) == told(notes.pull(there, tmp_path)) == [(KEPT, "Mine.md")]


def test_a_run_of_a_note_should_be_no_edit_and_an_edit_there_come_to_the_file(there: Notes, tmp_path: Path) -> None:
    there.put(KEY, note(paragraph("%md\nHello."), paragraph("%sh\nls")))
    list(notes.pull(there, tmp_path))
    there.put(KEY, note(paragraph("%md\nHello."), paragraph("%sh\nls", results={"code": "ERROR", "msg": []})))
    assert told(notes.pull(there, tmp_path)) == [(KEPT, "Mine.md")]
    in_zeppelin(there, "Hello", "Good day")
    assert told(notes.pull(there, tmp_path)) == [(UPDATED, "Mine.md")]
    assert (tmp_path / "flights" / "late" / "Mine.md").read_text().startswith("Good day.")


def test_a_note_with_line_ends_of_windows_should_not_count_as_edited(there: Notes, tmp_path: Path) -> None:
    there.put(KEY, note(paragraph("%spark.pyspark\r\nprint(1)\r\nprint(2)")))
    assert told(notes.pull(there, tmp_path)) == [(NEW, "Mine.md")]
    assert told(notes.pull(there, tmp_path)) == told(notes.push(there, tmp_path)) == [(KEPT, "Mine.md")]


def test_what_both_sides_have_edited_should_be_told_and_nothing_be_overwritten(there: Notes, tmp_path: Path) -> None:
    there.put(KEY, note(paragraph("%md\nHello.")))
    list(notes.pull(there, tmp_path))
    file = tmp_path / "flights" / "late" / "Mine.md"
    file.write_text(file.read_text().replace("Hello", "Hi"))
    in_zeppelin(there, "Hello", "Good day")
    for way in (notes.pull, notes.push):
        (done,) = way(there, tmp_path)
        assert (done.what, "was edited in Zeppelin as well" in done.why) == (CONFLICT, True)
    stored = there.get(KEY)
    assert stored
    assert (stored.text, file.read_text()[:3]) == ("Good day.\n", "Hi.")
    file.write_text(file.read_text().replace("Hi", "Good day"))  # agreed upon
    assert told(notes.push(there, tmp_path)) == [(KEPT, "Mine.md")]
    assert told(notes.pull(there, tmp_path)) == [(KEPT, "Mine.md")]


def test_a_note_saved_between_reading_and_writing_should_not_be_overwritten(
    there: Notes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    there.put(KEY, note(paragraph("%md\nHello.")))
    list(notes.pull(there, tmp_path))
    file = tmp_path / "flights" / "late" / "Mine.md"
    file.write_text(file.read_text().replace("Hello", "Hi"))
    write = Notes.put

    def late(self: Notes, key: str, made: source.Note, **condition: str) -> bool:
        write(self, KEY, note(paragraph("%md\nSomebody else.")))
        return write(self, key, made, **condition)

    with monkeypatch.context() as patch:
        patch.setattr(Notes, "put", late)
        (done,) = notes.push(there, tmp_path)
    assert (done.what, "has just been saved by somebody" in done.why) == (CONFLICT, True)
    stored = there.get(KEY)
    assert stored
    assert stored.text == "Somebody else.\n"


def test_a_note_that_does_not_open_for_an_open_bracket_should_be_mended_by_a_file(there: Notes, tmp_path: Path) -> None:
    there.put(KEY, note(paragraph("%md\nHello."), paragraph("%spark.pyspark(\nprint(1)")))
    assert told(notes.pull(there, tmp_path)) == [(NEW, "Mine.md")]
    file = tmp_path / "flights" / "late" / "Mine.md"
    assert "```python\n(\nprint(1)\n```" in file.read_text()
    file.write_text(file.read_text().replace("(\nprint", "print"))
    assert told(notes.push(there, tmp_path)) == [(UPDATED, "Mine.md")]
    stored = there.get(KEY)
    assert stored
    assert stored.note["paragraphs"][1]["text"] == "%spark.pyspark\nprint(1)"


def test_notes_should_be_exported_as_notebooks_and_no_file_be_replaced(there: Notes, tmp_path: Path) -> None:
    there.put(KEY, note(paragraph("%md\nHello."), paragraph("%spark.sql\nSELECT 1")))
    there.put("Broken_2ABCDEFGK.zpln", cast(Any, []))
    file = tmp_path / "flights" / "late" / "Mine.ipynb"
    broken, new = notes.export(there, tmp_path)
    assert (broken.what, new.what, new.name) == (BROKEN, NEW, str(file))
    cells = json.loads(file.read_text())["cells"]
    assert ["".join(cell["source"]) for cell in cells[2:]] == ["Hello.", 'z.sql("""SELECT 1""")']
    assert told(notes.export(there, tmp_path))[1] == (KEPT, "Mine.ipynb")
    file.write_text(file.read_text().replace("Hello", "Run in Jupyter"))
    (_, done) = notes.export(there, tmp_path)
    assert (done.what, "it is there already" in done.why) == (CONFLICT, True)
    assert "Run in Jupyter" in file.read_text()


def test_a_file_of_ones_own_should_become_a_note_once(there: Notes, tmp_path: Path) -> None:
    (tmp_path / "flights").mkdir()
    file = tmp_path / "flights" / "Fresh eyes.md"
    file.write_text("# Fresh eyes\n\n```sql\nSELECT 1\n```\n")
    assert told(notes.push(there, tmp_path)) == [(NEW, "Fresh eyes.md")]
    (stored,) = there.all()
    assert stored.key == f"flights/Fresh eyes_{stored.note['id']}.zpln"
    assert stored.note["name"] == "Fresh eyes"
    assert [one["text"] for one in stored.note["paragraphs"]] == ["%md\n# Fresh eyes", "%spark.sql\nSELECT 1"]
    assert told(notes.push(there, tmp_path)) == [(KEPT, "Fresh eyes.md")]
    file.write_text("Another one of that name.\n")
    (done,) = notes.push(there, tmp_path)
    assert (done.what, "is in the bucket already" in done.why) == (CONFLICT, True)


def test_broken_and_strange_notes_should_be_told_and_the_others_come(
    there: Notes, tmp_path: Path, aws: Clients
) -> None:
    there.put(KEY, note(paragraph("%md\nHello.")))
    for key, body in {"a/Broken_2ABCDEFGK.zpln": b"{", "../Out_2ABCDEFGL.zpln": b'{"paragraphs": []}'}.items():
        aws("s3").put_object(Bucket=BUCKET, Key=NOTES + key, Body=body)
    (tmp_path / "flights" / "late").mkdir(parents=True)
    (tmp_path / "flights" / "late" / "Mine.md").write_text("Not pulled.\n")
    assert told(notes.pull(there, tmp_path / "in")) == [
        (BROKEN, "Out_2ABCDEFGL.zpln"),
        (BROKEN, "Broken_2ABCDEFGK.zpln"),
        (NEW, "Mine.md"),
    ]
    assert not (tmp_path / "Out.md").exists()
    (tmp_path / "in" / "flights" / "late" / "Mine.md").unlink()
    assert told(notes.pull(there, tmp_path))[-1] == (CONFLICT, "Mine.md")
    assert (tmp_path / "flights" / "late" / "Mine.md").read_text() == "Not pulled.\n"


# --- The tunnel ---

AWS = """#!{python}
import json, os, signal, socket, sys
def interrupted(*_):
    open({notes!r}, "a").write("interrupted\\n")
    sys.exit(0)
signal.signal(signal.SIGINT, interrupted)
open({notes!r}, "w").write(json.dumps(sys.argv[1:]) + "\\n")
if "i-refused" in sys.argv:
    print("An error occurred (TargetNotConnected) when calling the StartSession operation: i-refused is not connected.")
    sys.exit(254)
port = int(sys.argv[-1].rpartition("=")[2])
try:
    server = socket.create_server((os.environ["SSM_PLUGIN_LOCAL_HOST"], port))
except OSError:  # it waits for its other half, and says nothing
    signal.pause()
print(f"\\nStarting session with SessionId: s-1\\nPort {{port}} opened for sessionId s-1.", end="")
print("\\nWaiting for connections...", flush=True)
while True:
    server.accept()
"""


@pytest.fixture
def aws_cli(tmp_path: Path) -> Path:
    """An `aws` that does of start-session what can be seen from here; returns what it notes."""
    program, noted = tmp_path / "bin" / "aws", tmp_path / "noted"
    program.parent.mkdir()
    program.write_text(AWS.format(python=sys.executable, notes=str(noted)))
    program.chmod(0o755)
    return noted


def test_a_tunnel_should_be_opened_to_the_node_and_be_closed_as_a_person_would(aws_cli: Path) -> None:
    port = tunnel.local_port()
    with tunnel.tunnel("i-0123", port, {"PATH": str(aws_cli.parent / "bin")}) as process:
        assert tunnel.listens(port)
    assert process.poll() is not None
    asked, closed = aws_cli.read_text().splitlines()
    assert json.loads(asked) == [
        *["ssm", "start-session", "--target", "i-0123", "--document-name", "AWS-StartPortForwardingSession"],
        *["--parameters", f"portNumber=8890,localPortNumber={port}"],
    ]
    assert closed == "interrupted"


WAITING = """
import sys
from dml.zeppelin import tunnel
port = tunnel.local_port()
with tunnel.interrupted_by_the_end_of_the_terminal(), tunnel.tunnel("i-0123", port, {"PATH": sys.argv[1]}) as process:
    print(process.pid, flush=True)
    process.wait()
"""


@pytest.mark.parametrize("ended_by", [signal.SIGHUP, signal.SIGTERM, signal.SIGINT])
def test_a_tunnel_should_not_outlive_the_terminal_that_it_was_opened_in(
    aws_cli: Path, ended_by: signal.Signals
) -> None:
    command = f"import signal; signal.signal(signal.SIGINT, signal.default_int_handler)\n{WAITING}"
    program = [sys.executable, "-c", command, str(aws_cli.parent / "bin")]
    with subprocess.Popen(program, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        assert process.stdout
        opened = int(process.stdout.readline())
        process.send_signal(ended_by)
        process.wait(30)
    assert aws_cli.read_text().splitlines()[1:] == ["interrupted"]
    with pytest.raises(ProcessLookupError):
        os.kill(opened, 0)


def test_a_tunnel_that_does_not_open_should_say_why(aws_cli: Path) -> None:
    with (
        pytest.raises(UserError, match=r"The tunnel to i-refused did not open: .* i-refused is not connected\."),
        tunnel.tunnel("i-refused", tunnel.local_port(), {"PATH": str(aws_cli.parent / "bin")}),
    ):
        raise AssertionError("it is open")


def test_a_port_that_somebody_else_has_taken_meanwhile_should_not_count_as_the_tunnel(
    aws_cli: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever listens there would be told the login."""
    monkeypatch.setattr(tunnel, "OPEN_SECONDS", 1.0)
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        told = rf"to i-0123 is not open after 1 s: another program has taken port {port}, try again"
        with (
            pytest.raises(UserError, match=told),
            tunnel.tunnel("i-0123", port, {"PATH": str(aws_cli.parent / "bin")}),
        ):
            raise AssertionError("it is open")
    assert aws_cli.read_text().splitlines()[1:] == ["interrupted"]


def test_another_port_should_be_taken_where_zeppelins_own_is_taken() -> None:
    with socket.socket() as held:
        with contextlib.suppress(OSError):  # another program of this machine holds it, which is as good
            held.bind(("127.0.0.1", tunnel.PORT))
        assert tunnel.local_port() not in (0, tunnel.PORT)
        with pytest.raises(UserError, match=rf"No port of 127\.0\.0\.1 is free .*\({tunnel.PORT}\)"):
            tunnel.local_port([tunnel.PORT])


def test_what_this_machine_lacks_should_be_named_with_where_to_have_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(UserError, match=r"aws: install the AWS CLI .*; session-manager-plugin: install the Session"):
        tunnel.require_programs()


class Emr:
    """EMR's answers of one workbench."""

    def __init__(self, state: str, collection: str = "INSTANCE_GROUP", nodes: tuple[str, ...] = ("i-1",)) -> None:
        self._cluster = {"Id": "j-1", "Status": {"State": state}, "InstanceCollectionType": collection}
        self._nodes = [{"Ec2InstanceId": node} for node in nodes]
        self.asked: dict[str, Any] = {}

    def describe_cluster(self, **_: str) -> dict[str, Any]:
        return {"Cluster": self._cluster}

    def list_instances(self, **asked: Any) -> dict[str, Any]:
        self.asked = asked
        return {"Instances": self._nodes}


def environment(emr: Emr, workbench: str = "j-1") -> Platform:
    ssm = SimpleNamespace(get_parameter=lambda **_: {"Parameter": {"Value": workbench}})
    clients = {"emr": emr, "ssm": ssm}
    made = SimpleNamespace(environment="dev", check_running=lambda: None, output=str, client=clients.__getitem__)
    made.command, made.deploying = "dml {}".format, lambda: "npx cdk deploy --all -c env=dev"
    return cast(Platform, made)


@pytest.mark.parametrize(
    ("collection", "asked"),
    [("INSTANCE_GROUP", {"InstanceGroupTypes": ["MASTER"]}), ("INSTANCE_FLEET", {"InstanceFleetType": "MASTER"})],
)
def test_the_primary_node_should_be_found_in_groups_and_in_fleets(collection: str, asked: dict[str, Any]) -> None:
    emr = Emr("WAITING", collection)
    assert tunnel.primary_node(environment(emr), lambda: "") == "i-1"
    assert emr.asked.items() >= asked.items()


@pytest.mark.parametrize(
    ("emr", "workbench", "told"),
    [
        (
            Emr("WAITING"),
            "none",
            "dev has no workbench: set workbench.enabled in environments/dev.toml, and deploy: npx",
        ),
        (Emr("BOOTSTRAPPING"), "j-1", "j-1 is bootstrapping: Zeppelin is there some minutes later"),
        (
            Emr("TERMINATED"),
            "j-1",
            "j-1 is terminated. Its notes are in the bucket. A new one is made if the old one is "
            "taken away first: dml pause, then dml resume. 1 USD",
        ),
        (Emr("RUNNING", nodes=()), "j-1", "j-1 has no primary node that runs"),
    ],
)
def test_a_workbench_that_is_not_there_should_be_told_with_the_way_to_have_it(
    emr: Emr, workbench: str, told: str
) -> None:
    with pytest.raises(UserError) as error:
        tunnel.primary_node(environment(emr, workbench), lambda: "1 USD")
    assert told in str(error.value)


class Secrets:
    """Secrets Manager, which lets its caller read the login or answers otherwise."""

    def __init__(self, refusal: str = "", text: str = '{"user": "analyst", "password": "opensesame"}') -> None:
        self._refusal, self._text = refusal, text

    def get_secret_value(self, SecretId: str) -> dict[str, str]:  # boto3's names
        if self._refusal:
            message = f"{self._refusal}: secretsmanager:GetSecretValue"
            raise ClientError({"Error": {"Code": self._refusal, "Message": message}}, "GetSecretValue")
        assert SecretId == "arn:login"
        return {"SecretString": self._text}


def read(secrets: Secrets) -> tuple[str, str]:
    outputs = {Output.ZEPPELIN_LOGIN: "arn:login", Output.ANALYST_POLICY: "arn:analysts"}
    made = SimpleNamespace(output=outputs.__getitem__, client=lambda _service: secrets)
    return tunnel.login(cast(Platform, made))


def test_the_login_should_be_shown_to_who_may_read_it_and_others_be_told_which_policy_lets_them() -> None:
    assert read(Secrets()) == ("analyst", "opensesame")
    with pytest.raises(
        UserError, match=r"you may not read it .*GetSecretValue.* Who wears the policy arn:analysts may"
    ):
        read(Secrets("AccessDeniedException"))


def test_a_login_that_is_not_there_should_not_be_told_as_a_lack_of_rights() -> None:
    with pytest.raises(UserError, match=r"could not be read in the secret arn:login: .*ResourceNotFound") as error:
        read(Secrets("ResourceNotFoundException"))
    assert "may not" not in str(error.value)


@pytest.mark.parametrize("text", ["swordfish", '{"password": "swordfish"}', '["swordfish"]'])
def test_a_secret_that_somebody_made_otherwise_should_be_told_without_its_text(text: str) -> None:
    with pytest.raises(UserError, match=r'arn:login is no login: it has to be \{"user": "analyst"') as error:
        read(Secrets(text=text))
    assert "swordfish" not in str(error.value)


# --- The command ---


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Server, list[str]]]:
    """A workbench whose Zeppelin a tunnel leads to, and what the browser is sent to. The tunnel ends at once."""
    pages: list[str] = []

    @contextlib.contextmanager
    def leads(*_: Any) -> Iterator[Any]:
        yield SimpleNamespace(poll=lambda: None, wait=lambda: None)

    with served(PASSWORD) as (server, port):
        here = SimpleNamespace(region="", command="dml {}".format)
        monkeypatch.setattr("dml.estate.platform.deployed", lambda *_: here)
        monkeypatch.setattr("webbrowser.open", pages.append)
        monkeypatch.setattr(tunnel, "require_programs", lambda: None)
        monkeypatch.setattr(tunnel, "primary_node", lambda *_: "i-0123")
        monkeypatch.setattr(tunnel, "login", lambda _platform: ("analyst", PASSWORD))
        monkeypatch.setattr(tunnel, "local_port", lambda _ports: port)
        monkeypatch.setattr(tunnel, "tunnel", leads)
        monkeypatch.setattr(tunnel, "ANSWER_SECONDS", 0.0)
        yield server, pages


def test_the_browser_should_be_sent_where_no_other_page_counts_as_zeppelins(
    opened: tuple[Server, list[str]], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    _, out, _ = run_dml(monkeypatch, capsys, "zeppelin")
    (page,) = opened[1]
    assert page.startswith("http://127.0.0.1:")
    assert f"Zeppelin of dev: {page} " in out
    assert f"User analyst, password {PASSWORD}" in out


def test_a_zeppelin_that_does_not_say_whether_it_is_closed_should_be_opened_to_nobody(
    opened: tuple[Server, list[str]], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    server, pages = opened
    server.broken = "starting"
    code, out, err = run_dml(monkeypatch, capsys, "zeppelin")
    assert (code, out, pages) == (1, "", [])
    assert "does not say whether it asks for a login, and so the tunnel is closed again" in " ".join(err.split())
    assert ("POST", "/api/login") not in server.asked, "nobody is told the login before"


def test_a_zeppelin_that_starts_should_be_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    with served(PASSWORD) as (server, port):
        server.broken = "starting"
        monkeypatch.setattr(tunnel.time, "sleep", lambda _seconds: setattr(server, "broken", ""))
        tunnel.require_closed(Zeppelin(port), seconds=30.0)
        assert len(server.asked) == 2
        ended = cast(Any, SimpleNamespace(poll=lambda: 0))
        with pytest.raises(UserError, match="closed from the other side before Zeppelin had answered"):
            tunnel.require_closed(Zeppelin(port), ended)


def test_a_password_that_the_workbench_does_not_have_yet_should_not_be_shown_as_its_login(
    opened: tuple[Server, list[str]], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(tunnel, "login", lambda _platform: ("analyst", "newer"))
    _, out, err = run_dml(monkeypatch, capsys, "zeppelin")
    assert "the workbench has the one of when it started" in out
    assert "dml pause, then dml resume" in out
    assert "newer" not in out + err
