"""`dml zeppelin`: open Zeppelin on the workbench, and review, pull and push its notes."""

from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dml.terminal.options import EnvironmentOption, JsonOption, LocalOption

if TYPE_CHECKING:
    from dml.zeppelin.notes import Done

app = typer.Typer(help="Zeppelin on the workbench, and its notes.", invoke_without_command=True)
notes = typer.Typer(help="Analysts' notes: list them, and move them between the bucket and files for review.")
app.add_typer(notes, name="notes")

ReleaseOption = Annotated[
    Path | None,
    typer.Option(
        "--release",
        envvar="ZEPPELIN_HOME",
        show_envvar=False,
        help="With --local: a release of Zeppelin 0.11, its folder or archive; else what ZEPPELIN_HOME says.",
    ),
]
FolderOption = Annotated[
    Path | None, typer.Option("--folder", help="Where the files are.", show_default="notes/ENVIRONMENT")
]


@app.callback()
def zeppelin(
    context: typer.Context,
    browser: Annotated[bool, typer.Option(help="Open it in the browser, too.")] = True,
    local: LocalOption = False,
    release: ReleaseOption = None,
    env: EnvironmentOption = "dev",
) -> None:
    """Open a tunnel to Zeppelin on the workbench, and the browser; it stays open until you interrupt it.

    With --local a release of Zeppelin that you have runs on this machine, with the notes and tables of the embedded
    cloud.
    """
    if context.invoked_subcommand is not None:
        return
    import os
    import webbrowser

    from dml.errors import UserError
    from dml.estate.platform import deployed
    from dml.zeppelin import interpreter, tunnel
    from dml.zeppelin.rest import LoginError, Zeppelin

    if local:
        _here(release, env, browser)
        return
    tunnel.require_programs()
    platform = deployed(local, env)
    node = tunnel.primary_node(platform, _price(env))
    user, password = tunnel.login(platform)
    port = tunnel.local_port(tunnel.PORTS)
    region = {"AWS_REGION": platform.region, "AWS_DEFAULT_REGION": platform.region} if platform.region else {}
    opened = tunnel.tunnel(node, port, {**os.environ, **region})
    with tunnel.interrupted_by_the_end_of_the_terminal(), opened as process:
        # Not localhost, whose pages of any port Zeppelin takes for its own (CorsUtils of 0.11.1).
        url, zeppelin = f"http://127.0.0.1:{port}", Zeppelin(port, user, password)
        tunnel.require_closed(zeppelin, process, tunnel.ANSWER_SECONDS)
        login = f"User {user}, password {password}"
        try:
            told = interpreter.arrange(zeppelin)
        except LoginError:
            told = "Spark's interpreter is as it was, perhaps with one Python for all notes."
            login = (
                f"Zeppelin does not take the password of this environment's secret for {user}: the workbench has the "
                "one of when it started. To have it take the new one: "
                f"{platform.command('pause')}, then {platform.command('resume')}"
            )
        except UserError as error:  # the tunnel is of use without it
            told = f"Spark's interpreter is as it was, perhaps with one Python for all notes. {error}"
        if told:
            typer.echo(told, err=True)
        typer.echo(f"Zeppelin of {env}: {url} (interrupt to close the tunnel)")
        typer.echo(login)
        if browser:
            webbrowser.open(url)
        try:
            process.wait()
        except KeyboardInterrupt:
            typer.echo("The tunnel is closed.", err=True)
            return
    raise UserError("The tunnel was closed from the other side, as Session Manager does after a time without use.")


def _here(release: Path | None, env: str, browser: bool) -> None:
    """Zeppelin on this machine, until it is interrupted. The embedded cloud goes on if it was up before."""
    import webbrowser
    from contextlib import ExitStack

    from dml import checkout
    from dml.errors import UserError
    from dml.estate.platform import deployed
    from dml.local import here
    from dml.terminal.board import Board
    from dml.terminal.console import err
    from dml.zeppelin import tunnel
    from dml.zeppelin.release import found
    from dml.zeppelin.server import Server, Workbench

    home = checkout.home()
    chosen = found(release, home / "releases")
    try:
        with tunnel.interrupted_by_the_end_of_the_terminal(), ExitStack() as ends:
            with Board(err, ["embedded cloud", "zeppelin"]) as board:
                board.start("embedded cloud")
                cloud = ends.enter_context(here.standing())
                board.done("embedded cloud", cloud.endpoint)
                board.start("zeppelin", f"{chosen.version} in {chosen.home}")
                platform = deployed(True, env)
                workbench = Workbench(platform, tunnel.workbench(platform, str))
                server = Server(chosen, cloud, workbench, home=home)
                ends.enter_context(server.running())
                board.done("zeppelin", server.url)
            typer.echo(
                f"Zeppelin of {env}: {server.url}, user {server.user}, password {server.password} (interrupt to end it)"
            )
            if browser:
                webbrowser.open(server.url)
            server.wait()
            raise UserError(f"Zeppelin has ended of its own accord; {server.why()}")
    except KeyboardInterrupt:
        typer.echo("Zeppelin is ended; its notes are in the embedded cloud.", err=True)


@app.command()
def check(
    dataset: Annotated[str, typer.Argument(help="Whose note is run; the first one deployed if you name none.")] = "",
    note: Annotated[str, typer.Option(help="The note's name below the dataset's folder.")] = "1 Start here",
    as_json: JsonOption = False,
    local: LocalOption = False,
    env: EnvironmentOption = "dev",
) -> None:
    """Have the workbench's own Zeppelin run a note, as an EMR step, and tell what became of each paragraph."""
    from dml.errors import UserError
    from dml.estate.platform import deployed
    from dml.terminal.console import out, plain_table, show_document
    from dml.zeppelin import check as room

    if local:
        raise UserError("There is no Zeppelin on the embedded cloud's nodes. On AWS: dml zeppelin check")
    platform = deployed(local, env)
    asked = dataset or next(iter(platform.datasets), "")

    def say(text: str) -> None:
        typer.echo(text, err=True)

    found = room.check(platform, asked, note, price=_price(env), every=5.0, say=say)

    def show(*_: object) -> None:
        table = plain_table("paragraph", "status", "error")
        for one in found.document["paragraphs"]:
            table.add_row(one["title"], one["status"].lower(), one["error"])
        out.print(table)

    if found.document and (found.document["paragraphs"] or as_json):
        show_document(found.document, show, as_json=as_json)
    if left := found.document.get("left"):
        say(left)
    if not found.passed:
        raise UserError(found.why or f"The note {note} of {asked} has not run to its end.")
    say(f"Zeppelin {found.document['version']} asks for its login and has run {note} of {asked}.")


@notes.command("list")
def list_notes(as_json: JsonOption = False, local: LocalOption = False, env: EnvironmentOption = "dev") -> None:
    """List the notes: when each was changed and last run, and whether it is as it was deployed."""
    from dml.errors import UserError
    from dml.estate.platform import deployed
    from dml.terminal.console import out, plain_table, show_document
    from dml.zeppelin.notes import Notes

    told = []
    for one in Notes(deployed(local, env)).all():
        entry = {"note": one.key, "changed": f"{one.changed:%Y-%m-%d %H:%M}", "bytes": len(one.body)}
        try:
            entry |= {"last_run": one.last_run[:16], "state": "as deployed" if one.is_as_deployed else "edited or run"}
        except UserError as error:
            entry |= {"last_run": "", "state": f"broken: {error}"}
        told.append(entry)

    def show(*_: object) -> None:
        table = plain_table("note", "changed", "last run", "state")
        for entry in told:
            table.add_row(*(str(entry[key]) for key in ("note", "changed", "last_run", "state")))
        out.print(
            table if told else "There are no notes: they come with a dataset's deployment, on a starting workbench."
        )

    show_document({"notes": told}, show, as_json=as_json)


@notes.command()
def pull(folder: FolderOption = None, local: LocalOption = False, env: EnvironmentOption = "dev") -> None:
    """Bring the bucket's notes into files, as Markdown; a file that was edited stays."""
    from dml.estate.platform import deployed
    from dml.zeppelin import notes as room

    _tell(room.pull(room.Notes(deployed(local, env)), folder or Path("notes", env)))


@notes.command()
def push(folder: FolderOption = None, local: LocalOption = False, env: EnvironmentOption = "dev") -> None:
    """Bring edited files to the bucket, and new ones as new notes; a note that was edited in Zeppelin as well stays."""
    from dml.estate.platform import deployed
    from dml.zeppelin import notes as room

    changed = _tell(room.push(room.Notes(deployed(local, env)), folder or Path("notes", env)))
    if changed:
        typer.echo("Zeppelin shows a change when the list of notes, or the note, is reloaded there.", err=True)


@notes.command()
def export(folder: FolderOption = None, local: LocalOption = False, env: EnvironmentOption = "dev") -> None:
    """Write each note as a Jupyter notebook (.ipynb), for JupyterLab or EMR Studio; no file is replaced."""
    from dml.estate.platform import deployed
    from dml.zeppelin import notes as room

    _tell(room.export(room.Notes(deployed(local, env)), folder or Path("notes", env)))


@notes.command()
def diff(folder: FolderOption = None, local: LocalOption = False, env: EnvironmentOption = "dev") -> None:
    """Show how files differ from the bucket's notes, without what running a note changes."""
    from dml.estate.platform import deployed
    from dml.zeppelin import notes as room

    for told in room.differences(room.Notes(deployed(local, env)), folder or Path("notes", env)):
        typer.echo(told)


def _price(env: str) -> Callable[[], str]:
    return lambda: f"What that costs: dml cost{'' if env == 'dev' else f' --env {env}'}"


def _tell(done: "Iterator[Done]") -> bool:
    """Prints each note's fate; whether something was written. Raises UserError at the end if some were not."""
    from dml.errors import UserError
    from dml.terminal.words import counted
    from dml.zeppelin.notes import BROKEN, CONFLICT, KEPT, NEW, UPDATED

    found: Counter[str] = Counter()
    for one in done:
        found[one.what] += 1
        if one.what != KEPT:
            typer.echo(f"{one.what}: {one.name}{f': {one.why}' if one.why else ''}")
    if found[KEPT]:
        typer.echo(f"{counted(found[KEPT], 'note')} unchanged")
    if left := found[CONFLICT] + found[BROKEN]:
        raise UserError(f"{counted(left, 'note')} left alone; nothing of them was overwritten.")
    return bool(found[NEW] + found[UPDATED])
