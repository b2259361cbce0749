"""`dml predict FILE.csv`: a CSV file scored on this machine by a model's tree.json, without Spark or a cluster."""

import json
import os
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO

from rich.console import Console

from datasets import dataset_names, load_dataset
from dml.errors import UserError
from dml.estate.platform import Platform
from dml.models.registry import current_run
from dml.models.scorer import NULLS, Scorer, ScoringError, open_csv, score_csv
from dml.terminal.words import counted
from stacks.outputs import Output

SUFFIXES = (".csv", ".csv.gz", ".tsv", ".tsv.gz")


def is_file(text: str) -> bool:
    """Whether an argument means a file rather than a dataset, whose name is a plain word."""
    return "/" in text or text.lower().endswith(SUFFIXES) or Path(text).is_file()


def current_tree(platform: Platform, dataset: str) -> dict[str, Any]:
    """tree.json of the dataset's current model. Raises UserError if there is none."""
    run_id = current_run(platform, dataset, otherwise="name a model's file: --model tree.json")
    key = f"{dataset}/{run_id}/tree.json"
    tree = platform.json_object(Output.MODELS_BUCKET, key)
    if tree is None:
        raise UserError(
            f"The current model of {dataset} has no {platform.uri(Output.MODELS_BUCKET, key)}: "
            "point CURRENT.json at a whole run."
        )
    return tree


def read_tree(file: Path) -> dict[str, Any]:
    """A tree.json on this machine. Raises UserError if it cannot be read."""
    try:
        tree: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"Could not read the model {file}: {error.strerror}.") from None
    except ValueError as error:
        raise UserError(f"The model {file} is no JSON: {error}. It must be a run's tree.json.") from None
    return tree


def score_file(
    tree: dict[str, Any],
    file: Path,
    target: Path | None,
    progress: Console,
    *,
    nulls: Sequence[str] = (),
    all_columns: bool = False,
) -> None:
    """Score `file` into `target`, or onto stdout, and tell on `progress` what was done.

    Written are the dataset's keys that the file has, or all its columns if it has none of them; then the scorer's own.
    `target` is there only once it is whole. Raises UserError.
    """
    started = time.monotonic()
    dataset = tree.get("dataset") if isinstance(tree, dict) else None
    keys = load_dataset(dataset).keys if dataset in dataset_names() and not all_columns else ()
    # A spinner on the terminal that the rows go to would only be in their way.
    quiet = target is None and sys.stdout.isatty()
    try:
        scorer = Scorer(tree)
        with open_csv(file) as source, _output(target) as out, progress.status(f"Scoring {file.name}") as status:
            if quiet:
                status.stop()
            scored = score_csv(
                scorer,
                source,
                out,
                name=str(file),
                keys=keys,
                nulls=nulls or NULLS,
                on_progress=lambda rows: status.update(f"Scoring {file.name}: {rows:,} rows"),
            )
    except ScoringError as error:
        raise UserError(str(error)) from None
    except BrokenPipeError:
        raise  # who reads our rows has had enough, as `head` does
    except OSError as error:
        raise UserError(f"Could not score {file}: {error.strerror}: {error.filename or target or 'output'}.") from None
    seconds = time.monotonic() - started
    what = f"{counted(scored.rows, 'row')} scored with the model of run {tree['run_id']} in {seconds:.1f} s"
    progress.print(f"{what}: {target}" if target else what, highlight=False, soft_wrap=True, markup=False)
    for column, (rows, example) in scored.unseen.items():
        progress.print(
            f"{column}: {counted(rows, 'row')} with a value that training has not seen (the first is {example!r}), "
            "which counts as an average one.",
            highlight=False,
            soft_wrap=True,
            markup=False,
        )


@contextmanager
def _output(target: Path | None) -> Iterator[TextIO]:
    """Where the rows go. A file is written under another name beside it, and named when it is whole."""
    if target is None:
        yield sys.stdout
        sys.stdout.flush()
        return
    if target.exists() and not target.is_file():  # a device or a pipe cannot be replaced
        with target.open("w", encoding="utf-8", newline="") as out:
            yield out
        return
    if not target.parent.is_dir():
        raise UserError(f"Could not write {target}: there is no folder {target.parent}.")
    part = target.with_name(f".{target.name}.{os.getpid()}.part")
    try:
        with part.open("w", encoding="utf-8", newline="") as out:
            yield out
        part.replace(target)
    finally:
        part.unlink(missing_ok=True)
