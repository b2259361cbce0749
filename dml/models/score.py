"""`dml predict FILE.csv`: a CSV file scored on this machine by a model's tree.json, without Spark or a cluster."""

import json
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO

from rich.console import Console

from datasets import dataset_names, files_below, load_dataset
from dml.errors import UserError
from dml.estate.platform import Platform
from dml.models import raw_file
from dml.models.figures import calls
from dml.models.registry import current_run
from dml.models.scorer import NULLS, Scorer, ScoringError, effect_unit, open_csv, score_csv
from dml.terminal.words import counted, listed
from jobs.tables.settings import Dataset
from stacks.outputs import Output

SUFFIXES = (".csv", ".csv.gz", ".tsv", ".tsv.gz", ".parquet", ".jsonl", ".jsonl.gz", ".ndjson", ".json")


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
    given: Sequence[Path],
    target: Path | None,
    progress: Console,
    *,
    nulls: Sequence[str] = (),
    all_columns: bool = False,
    read_as: raw_file.ReadAs | None = None,
    reasons: int = 0,
) -> None:
    """Score files into `target`, or onto stdout, and tell on `progress` what was done and how they were understood.

    Several files, or a folder of them, are scored as the one raw table that a run would make of them.

    A raw file is read as dataset.toml declares and made to features as prepare.sql says; one with the features' own
    columns is taken as it is. Written are the dataset's keys that the file has, or all its columns if it has none of
    them; then the scorer's own, with so many `reasons` of each row. `target` is there only once it is whole. Raises
    UserError.
    """
    started = time.monotonic()
    # A spinner on the terminal that the rows go to would only be in their way.
    quiet = target is None and sys.stdout.isatty()
    try:
        scorer = Scorer(tree, reasons)
        files = _files(given)
        file, name = files[0], listed([file.name for file in files], 3)
        understood = [_understood(tree, scorer, each, nulls, read_as) for each in files]
        settings, raws = understood[0][0], [raw for _, raw in understood if raw]
        if len(files) > 1 and len(raws) < len(files):
            other = next(each for each, (_, raw) in zip(files, understood, strict=True) if raw is None)
            raise UserError(
                f"Of several files only raw data can be scored together, and {other} is read as features: score each "
                "by itself."
            )
        with _output(target, whole=bool(raws)) as out, progress.status(f"Scoring {name}") as status:
            if quiet:
                status.stop()

            def on_progress(rows: int) -> None:
                status.update(f"Scoring {name}: {rows:,} rows")

            if raws:
                found = raw_file.score(scorer, raws, out, all_columns=all_columns, on_progress=on_progress)
                rows, unseen, predicted = found.rows, found.unseen, found.predicted
                lines = _told_of_raw(raws, found)
            else:
                raw_file.check_features(file)
                keys = settings.keys if settings and not all_columns else ()
                with open_csv(file) as source:
                    scored = score_csv(
                        scorer, source, out, name=str(file), keys=keys, nulls=nulls or NULLS, on_progress=on_progress
                    )
                rows, unseen, predicted = scored.rows, scored.unseen, scored.predicted
                missing = " or ".join(repr(null) if null else "empty" for null in nulls or NULLS)
                lines = [f"{file.name} was read as the model's features: numbers with a point, missing ones {missing}."]
    except ScoringError as error:
        raise UserError(str(error)) from None
    except BrokenPipeError:
        raise  # who reads our rows has had enough, as `head` does
    except OSError as error:
        raise UserError(
            f"Could not score {listed([str(path) for path in given])}: {error.strerror or error}: "
            f"{error.filename or target or 'output'}."
        ) from None
    seconds = time.monotonic() - started
    what = f"{counted(rows, 'row')} scored with the model of run {tree['run_id']} in {seconds:.1f} s"
    lines.append(f"{what}: {target}" if target else what)
    if rows and (told := calls(scorer.task, predicted, scorer.threshold, tree.get("unit", ""))):
        lines.append(f"Predictions: {told}.")
    for column, (times, example) in unseen.items():
        lines.append(
            f"{column}: {counted(times, 'row')} with a value that training has not seen (the first is {example!r}), "
            "which counts as an average one."
        )
    if reasons:
        lines.append(
            f"Effects are in {effect_unit(tree)}: what a feature of the row moved it by, from what is said of rows on "
            "average."
        )
    for line in lines:
        progress.print(line, highlight=False, soft_wrap=True, markup=False)


def _files(given: Sequence[Path]) -> list[Path]:
    """The files that were given, and those of the folders that were. Raises UserError for a folder without one."""
    found: list[Path] = []
    for path in given:
        below = [path / place for place in files_below(path)] if path.is_dir() else [path]
        if not below:
            raise UserError(f"{path} is a folder without files.")
        found += below
    if twice := [path for path in found if found.count(path) > 1]:
        raise UserError(f"{twice[0]} is given twice.")
    return found


def _understood(
    tree: dict[str, Any], scorer: Scorer, file: Path, nulls: Sequence[str], read_as: raw_file.ReadAs | None
) -> tuple[Dataset | None, raw_file.RawFile | None]:
    """The dataset's settings, if it is one of this checkout's, and the file if it is one of raw data."""
    name = tree.get("dataset")
    if name not in dataset_names():
        if read_as != "features":
            raise UserError(
                f"There is no datasets/{name} here, which says how raw files of {name} are read (numbers, "
                "missing values, "
                f"names), so {file} might be understood wrongly. Bring that folder here; or, if the file's columns are "
                "the features as the table `features` has them, say so: --read-as features."
            )
        return None, None
    settings = load_dataset(name)
    if nulls and read_as == "raw":
        raise UserError(f"--null is for a file of features; what is missing in a raw file, {settings.file} says.")
    if nulls or read_as == "features" or not file.exists() or file.is_dir():
        return settings, None
    if not file.is_file():
        raise UserError(
            f"{file} is no plain file, and only a look at its header tells whether it is raw: write it to a file "
            "first, or "
            "say that its columns are the features: --read-as features."
        )
    return settings, raw_file.recognise(file, settings, scorer.features, read_as)


def _told_of_raw(raws: Sequence[raw_file.RawFile], found: raw_file.RawScored) -> list[str]:
    settings = raws[0].settings
    were = "were" if len(raws) > 1 else "was"
    lines = [
        f"{listed([raw.path.name for raw in raws])} {were} read as raw data of table {settings.main}, as a run does: "
        f"by {settings.file} and datasets/{settings.name}/prepare.sql."
    ]
    if found.set_aside:
        more = f" and {found.set_aside - len(found.reasons):,} more" if found.set_aside > len(found.reasons) else ""
        lines.append(
            f"{counted(found.set_aside, 'row')} not scored, as a run would quarantine them: "
            f"{'; '.join(found.reasons)}{more}."
        )
    if found.left_out:
        lines.append(f"{counted(found.left_out, 'row')} not scored, since prepare.sql leaves them out (WHERE).")
    return lines


@contextmanager
def _output(target: Path | None, *, whole: bool) -> Iterator[TextIO]:
    """Where the rows go. A file is written under another name beside it, and named when it is whole. On stdout, with
    `whole`, are all rows or none.
    """
    if target is None and whole:
        with tempfile.TemporaryFile("w+", encoding="utf-8", newline="") as kept:
            yield kept
            kept.seek(0)
            shutil.copyfileobj(kept, sys.stdout)
        sys.stdout.flush()
        return
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
