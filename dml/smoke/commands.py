"""`dml smoke`: what publishing hangs on, tried on AWS itself."""

import typer

from dml.terminal.options import EnvironmentOption, JsonOption, LocalOption

top = typer.Typer()


@top.command()
def smoke(local: LocalOption = False, env: EnvironmentOption = "dev", as_json: JsonOption = False) -> None:
    """Try on AWS what no emulator can prove: conditional writes, stored objects, error names, redriving.

    It makes a stack of its own (a bucket, a role, the pipeline's publish states), runs it a few times, says what it
    expected and saw, and takes the stack away, also if it is interrupted. A minute or two, and less than a cent. Exit
    code 1 if anything differs.
    """
    from dml.estate.platform import deployed
    from dml.local import here
    from dml.smoke import proofs
    from dml.terminal.console import err, show_document

    platform = deployed(local, env)
    with here.stopped_together(local=False), err.status("") as spinner:
        found = proofs.prove(platform, every=min(here.interval(local), 1.0), say=spinner.update)
    show_document(found, proofs.show, as_json=as_json)
    if not found["ok"]:
        raise typer.Exit(1)
