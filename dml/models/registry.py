"""`dml models`: the runs in the model registry, compared, and the current model moved by hand.

The registry is s3://MODELS/DATASET/: a folder for each run, whose manifest.json is written last, and CURRENT.json,
which says which run is current. CURRENT.json is one object and only ever moves by a conditional put, here as in the
state machine (stacks/definition.py): against the ETag that was read, so that of two writers exactly one succeeds.
"""

import json
import math
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from botocore.exceptions import ClientError
from rich.console import Console
from rich.table import Table
from rich.text import Text

from datasets import dataset_names, load_dataset
from dml.errors import UserError
from dml.estate.platform import Platform
from dml.models.figures import BASELINES, LATER, expectation, moved
from dml.models.figures import FIGURES as SHOWN
from dml.terminal.console import plain_table
from dml.terminal.words import listed
from stacks.outputs import Output

Document = dict[str, Any]
Say = Callable[[str], None]

HISTORY = 10  # moves that are shown; S3 keeps a replaced CURRENT.json for 30 days (stacks/data.py)
READERS = 8
TOP_FEATURES = 8
UNKNOWN = "\N{EN DASH}"

# A task's figures as `dml models` lists them: the main metric, and what is shown beside it, first.
ORDER = {
    "binary": ("log_loss", "auc", "pr_auc", "brier", "accuracy"),
    "multiclass": ("log_loss", "auc", "brier", "accuracy", "macro_f1"),
    "regression": ("rmse", "r2", "mae", "bias"),
}
_EVERY = {figure.key: figure for figures in SHOWN.values() for figure in figures}
FIGURES = {task: tuple((_EVERY[key].title, key) for key in keys) for task, keys in ORDER.items()}
HIGHER_IS_BETTER = frozenset(
    {"precision", "recall", "f1", *(key for key, figure in _EVERY.items() if figure.perfect == 1)}
)
LOWER_IS_BETTER = frozenset(
    {"cost", "cost, out of time", *(key for key, figure in _EVERY.items() if figure.perfect == 0)}
)
LOST_CODES = frozenset({"PreconditionFailed", "ConditionalRequestConflict", "NoSuchKey"})


@dataclass(frozen=True)
class Pointer:
    """CURRENT.json as it was read: `etag` is what a conditional put names, `since` the time of its last move."""

    body: Document
    etag: str
    since: str

    @property
    def run_id(self) -> str:
        return str(self.body["run_id"])

    @property
    def move(self) -> Document:
        """run_id, since (ISO, UTC), by (run, promote or rollback) and reason of this move."""
        moved = self.body.get("moved") or {}
        return {
            "run_id": self.run_id,
            "since": self.since,
            "by": moved.get("by", "run"),
            "reason": moved.get("reason", ""),
        }


@dataclass(frozen=True)
class Model:
    """A finished run's documents. Before there were three tasks, metrics.json did not say its task: it was binary."""

    run_id: str
    metrics: Document
    gate: Document | None

    @property
    def task(self) -> str:
        return str(self.metrics.get("task", "binary"))

    @property
    def figures(self) -> list[tuple[str, str]]:
        """Title and key of the figures of its task, the main metric first."""
        main = self.metrics.get("main_metric", "log_loss")
        return sorted(FIGURES[self.task], key=lambda figure: figure[1] != main)

    @property
    def verdict(self) -> str:
        return "no verdict" if self.gate is None else "passed" if self.gate["passed"] else "refused"

    @property
    def published_metrics(self) -> Document:
        """The single figures of the test rows and of later rows: figures.json, which CURRENT.json repeats."""
        later = self.metrics.get("out_of_time") or {}
        figures = {key: value for key, value in self.metrics["test"].items() if _is_number(value)}
        return figures | {f"{LATER}{key}": later[key] for key in figures if _is_number(later.get(key))}


def current_run(platform: Platform, dataset: str, *, otherwise: str) -> str:
    """The run whose model is current. Raises UserError if there is none; `otherwise`: the way out besides training."""
    pointer = platform.json_object(Output.MODELS_BUCKET, f"{dataset}/CURRENT.json")
    if pointer is None:
        raise UserError(
            f"There is no current model of {dataset} yet: "
            f"{platform.uri(Output.MODELS_BUCKET, f'{dataset}/CURRENT.json')} does not exist. "
            f"Train one ({platform.command(f'run {dataset}')}), or {otherwise}."
        )
    return str(pointer["run_id"])


class Registry:
    """One dataset's part of the models bucket."""

    def __init__(self, platform: Platform, dataset: str) -> None:
        self.platform = platform
        self.dataset = dataset
        self._bucket = platform.output(Output.MODELS_BUCKET)
        self._pointer = f"{dataset}/CURRENT.json"

    def uri(self, name: str = "") -> str:
        return self.platform.uri(Output.MODELS_BUCKET, f"{self.dataset}/{name}")

    def naming(self, command: str) -> str:
        """The same for a command that takes RUN as its argument, and the dataset as an option."""
        return self.platform.command(f"models {command} --dataset {self.dataset}")

    def runs(self) -> dict[str, bool]:
        """Every run's id, and whether it has its manifest.json, that is: whether it has finished."""
        found: dict[str, bool] = {}
        prefix = f"{self.dataset}/"
        with self._asking("list", self.uri()):
            for page in self.platform.s3.get_paginator("list_objects_v2").paginate(Bucket=self._bucket, Prefix=prefix):
                for entry in page.get("Contents", []):
                    run_id, slash, name = entry["Key"].removeprefix(prefix).partition("/")
                    if slash:
                        found[run_id] = found.get(run_id, False) or name == "manifest.json"
        return found

    def current(self) -> Pointer | None:
        """What CURRENT.json says now; None before the first model is published."""
        return self._read_pointer()

    def history(self) -> list[Document]:
        """The last moves of CURRENT.json (Pointer.move), the newest first, from the versions that the bucket keeps."""
        with self._asking("list the versions of", self.uri("CURRENT.json")):
            listed = self.platform.s3.list_object_versions(
                Bucket=self._bucket, Prefix=self._pointer, MaxKeys=HISTORY
            ).get("Versions", [])
        pointers = [self._read_pointer(entry["VersionId"]) for entry in listed if entry["Key"] == self._pointer]
        return [pointer.move for pointer in pointers if pointer]

    def find(self, part: str | None) -> str:
        """The id of the finished run that `part` means: a whole id, or a piece that no other has; None: the current.

        Raises UserError when there is none, or when there are several: it then names them.
        """
        if part is None:
            current = self.current()
            if current is None:
                raise UserError(
                    f"There is no current model of {self.dataset} yet. Train one: "
                    f"{self.platform.command(f'run {self.dataset}')}; or name a run of those that "
                    f"{self.platform.command(f'models list {self.dataset}')} shows."
                )
            return current.run_id
        runs = self.runs()
        if runs.get(part):
            return part
        meant = [part] if part in runs else [run_id for run_id in runs if part in run_id]
        finished = [run_id for run_id in meant if runs[run_id]]
        if len(finished) == 1:
            return finished[0]
        if finished:
            raise UserError(f"{part} may be any of {len(finished)} runs of {self.dataset}: {_some(finished)}.")
        if meant:
            raise UserError(
                f"{_some(meant)} of {self.dataset} has no manifest.json: it failed, or is not done yet, and is no "
                f"whole model. See what ran: {self.platform.command('status')}"
            )
        hint = f" {part} is a dataset: say --dataset {part}." if part in dataset_names() else ""
        raise UserError(
            f"{self.uri()} has no run {part}.{hint} See those that there are: "
            f"{self.platform.command(f'models list {self.dataset}')}"
        )

    def model(self, run_id: str) -> Model:
        """A finished run's metrics and verdict. Raises UserError when metrics.json is missing."""
        metrics = self.document(run_id, "metrics.json")
        if metrics is None:
            raise UserError(f"{self.uri(f'{run_id}/metrics.json')} does not exist: the run is no whole model.")
        return Model(run_id, metrics, self.document(run_id, "gate.json"))

    def models(self, run_ids: list[str]) -> list[Model]:
        """The same for many runs, the newest first."""
        with ThreadPoolExecutor(READERS) as readers:
            found = list(readers.map(self.model, run_ids))
        return sorted(found, key=lambda model: (model.metrics["created"], model.run_id), reverse=True)

    def document(self, run_id: str, name: str) -> Document | None:
        with self._asking("read", self.uri(f"{run_id}/{name}")):
            return self.platform.json_object(Output.MODELS_BUCKET, f"{self.dataset}/{run_id}/{name}")

    def move(self, model: Model, seen: Pointer | None, *, by: str, reason: str) -> Document:
        """Move CURRENT.json to `model`, if it still is what was `seen`; returns the new body.

        Raises UserError, with nothing changed, when another writer has moved it since.
        """
        body: Document = {
            "dataset": self.dataset,
            "run_id": model.run_id,
            "model": self.uri(f"{model.run_id}/"),
            "metrics": model.published_metrics,
            "previous": {"run_id": seen.run_id, "model": seen.body["model"]} if seen else {},
            "moved": {"by": by, "at": datetime.now(UTC).isoformat(), "reason": reason},
        }
        condition = {"IfMatch": seen.etag} if seen else {"IfNoneMatch": "*"}
        try:
            self.platform.s3.put_object(
                Bucket=self._bucket,
                Key=self._pointer,
                Body=json.dumps(body).encode(),
                ContentType="application/json",
                **condition,
            )
        except ClientError as error:
            if error.response["Error"]["Code"] not in LOST_CODES:
                raise UserError(f"AWS did not let us write {self.uri('CURRENT.json')}: {error}") from error
            there = self.current()
            # A put whose answer got lost is tried again by boto3, and then loses against itself.
            if there is None or there.body != body:
                now = f"run {there.run_id} is current" if there else "there is no current model"
                raise UserError(
                    f"Another writer moved {self.uri('CURRENT.json')} first: now {now}. Nothing was changed by this "
                    f"command; look ({self.platform.command(f'models list {self.dataset}')}) and try again if you "
                    "still want to."
                ) from None
        return body

    def _read_pointer(self, version: str | None = None) -> Pointer | None:
        asked = {"Bucket": self._bucket, "Key": self._pointer} | ({"VersionId": version} if version else {})
        with self._asking("read", self.uri("CURRENT.json")):
            try:
                answer = self.platform.s3.get_object(**asked)
            except self.platform.s3.exceptions.NoSuchKey:
                return None
            text = answer["Body"].read()
        try:
            body = json.loads(text)
            since = (body.get("moved") or {}).get("at") or answer["LastModified"].astimezone(UTC).isoformat()
            return Pointer({**body, "run_id": body["run_id"], "model": body["model"]}, answer["ETag"], since)
        except (ValueError, KeyError, AttributeError) as error:
            raise UserError(
                f"{self.uri('CURRENT.json')} is not what a run or dml models writes ({error!r}): delete it, "
                f"then {self.naming('promote RUN')}"
            ) from error

    @contextmanager
    def _asking(self, what: str, uri: str) -> Iterator[None]:
        try:
            yield
        except ClientError as error:
            raise UserError(f"AWS did not let us {what} {uri}: {error}") from error


# --- Moving the current model ---


def promote(registry: Registry, part: str, *, reason: str, even_if_refused: bool, say: Say) -> Document:
    """Make a run the current model; returns CURRENT.json's new body.

    Raises UserError when the run is unknown, unfinished or refused by its gate, or when another writer came first.
    """
    seen = registry.current()
    model = registry.model(registry.find(part))
    dataset = registry.dataset
    if seen and seen.run_id == model.run_id:
        say(f"{model.run_id} is the current model of {dataset} already: nothing to do.")
        return seen.body
    if model.verdict != "passed":
        why = "; ".join(model.gate["reasons"]) if model.gate else "it left no gate.json"
        if not even_if_refused:
            raise UserError(
                f"The gate did not pass {model.run_id} of {dataset}: {why}. If you know better: "
                f"{registry.naming(f'promote {model.run_id} --even-if-refused --reason WHY')}"
            )
        say(f"The gate did not pass this run, which is promoted all the same: {why}")
    elif model.gate and seen and model.gate.get("current_run") != seen.run_id:
        beside = model.gate.get("current_run") or "no model"
        say(
            f"Its gate compared it with {beside}, not with {seen.run_id}. See what is different: "
            f"{registry.naming(f'diff {model.run_id} {seen.run_id}')}"
        )
    return _move(registry, model, seen, by="promote", reason=reason, say=say)


def rollback(registry: Registry, *, reason: str, say: Say) -> Document:
    """Make the model current that was before the current one; returns CURRENT.json's new body.

    What is rolled back from becomes the previous model: a second rollback undoes the first.
    Raises UserError when there is no previous model, when it is gone, or when another writer came first.
    """
    seen = registry.current()
    listed = registry.platform.command(f"models list {registry.dataset}")
    way_out = f"Choose a run: {listed}, then {registry.naming('promote RUN')}"
    if seen is None:
        raise UserError(f"There is no current model of {registry.dataset} to roll back from. {way_out}")
    previous = seen.body.get("previous")
    if not previous:
        raise UserError(
            f"{registry.uri('CURRENT.json')} names no model that was current before {seen.run_id}. {way_out}"
        )
    run_id = str(previous["run_id"])
    if registry.document(run_id, "manifest.json") is None:
        raise UserError(f"The previous model {registry.uri(f'{run_id}/')} is gone or incomplete. {way_out}")
    return _move(registry, registry.model(run_id), seen, by="rollback", reason=reason, say=say)


def _move(registry: Registry, model: Model, seen: Pointer | None, *, by: str, reason: str, say: Say) -> Document:
    before = f"from {seen.run_id} " if seen else ""
    say(f"Moving {registry.uri('CURRENT.json')} {before}to {model.run_id}")
    body = registry.move(model, seen, by=by, reason=reason)
    if seen:
        say(
            "The table predictions is still the former model's. Make it anew: "
            f"{registry.platform.command(f'predict {registry.dataset}')}"
        )
        say(f"To undo this: {registry.platform.command(f'models rollback {registry.dataset}')}")
    return body


# --- What a script reads ---


def listing(registry: Registry) -> Document:
    """The object of `dml models list --json`."""
    runs = registry.runs()
    current = registry.current()
    models = registry.models([run_id for run_id, complete in runs.items() if complete])
    return {
        "dataset": registry.dataset,
        "current": current.run_id if current else None,
        "previous": (current.body.get("previous") or {}).get("run_id") if current else None,
        "runs": [_summary(model) for model in models],
        "incomplete": sorted((run_id for run_id, complete in runs.items() if not complete), reverse=True),
        "history": registry.history(),
        "way_to_one": registry.platform.command(f"run {registry.dataset}"),
    }


def _summary(model: Model) -> Document:
    metrics = model.metrics
    (_, main), (_, second) = model.figures[:2]
    later = metrics.get("out_of_time")
    return {
        "run_id": model.run_id,
        "created": metrics["created"],
        "task": model.task,
        "main_metric": main,
        main: metrics["test"].get(main),
        second: metrics["test"].get(second),
        "out_of_time": {main: later.get(main), "baseline": later["baseline"].get(main)} if later else None,
        "rows": metrics["rows"],
        "leaves": metrics["tree"]["leaves"],
        "gate": model.verdict,
    }


def description(registry: Registry, part: str | None) -> Document:
    """The object of `dml models show --json`."""
    model = registry.model(registry.find(part))
    current = registry.current()
    manifest = registry.document(model.run_id, "manifest.json") or {}
    return {
        "run_id": model.run_id,
        "dataset": registry.dataset,
        "current": bool(current and current.run_id == model.run_id),
        "previous": (current.body.get("previous") or {}).get("run_id") if current else None,
        "moves": [move for move in registry.history() if move["run_id"] == model.run_id],
        "metrics": model.metrics,
        "gate": model.gate,
        "model": registry.uri(f"{model.run_id}/"),
        "files": manifest.get("files", []),
        "drift": registry.document(model.run_id, "drift.json"),
        "called": called(registry.dataset),
        "way_past_gate": ""
        if model.verdict == "passed"
        else registry.naming(f"promote {model.run_id} --even-if-refused --reason WHY"),
    }


def difference(registry: Registry, part: str, other: str | None) -> Document:
    """The object of `dml models diff --json`: what the run `part` has other than `other` (None: the current model).

    Pairs are [of the run, of the other]. Raises UserError when the two cannot be compared.
    """
    one, two = registry.model(registry.find(part)), registry.model(registry.find(other))
    if one.run_id == two.run_id:
        which = "is the current model itself" if other is None else "is one and the same run"
        raise UserError(f"{one.run_id} {which}: name two runs, {registry.naming('diff RUN RUN2')}.")
    for what, mine, its in (
        ("task", one.task, two.task),
        ("dataset", one.metrics["dataset"], two.metrics["dataset"]),
    ):
        if mine != its:
            raise UserError(
                f"The runs cannot be compared: the {what} of {one.run_id} is {mine}, that of {two.run_id} is {its}."
            )
    trees = [registry.document(model.run_id, "tree.json") for model in (one, two)]
    for model, tree in zip((one, two), trees, strict=True):
        if tree is None:
            raise UserError(f"{registry.uri(f'{model.run_id}/tree.json')} does not exist: the run is no whole model.")
    features = [[feature["name"] for feature in tree["features"]] for tree in trees if tree]
    settings = [{"learner": "tree", **_flat(model.metrics["settings"] | _asked(model))} for model in (one, two)]
    data = [_data(model, tree) for model, tree in zip((one, two), trees, strict=True) if tree]
    names = called(registry.dataset)
    splits = [_first_splits(tree, names) for tree in trees if tree]
    return {
        "dataset": registry.dataset,
        "task": one.task,
        "runs": [one.run_id, two.run_id],
        "figures": {key: [model.metrics["test"].get(key) for model in (one, two)] for _, key in one.figures},
        "out_of_time": {
            key: [(model.metrics.get("out_of_time") or {}).get(key) for model in (one, two)]
            for _, key in one.figures[:2]
        },
        "decision": _decisions(one, two),
        "same_rows": _on_same_rows(one, two),
        "importances": _importances(one, two),
        "tree": {
            key: [model.metrics["tree"].get(key, 1) for model in (one, two)]
            for key in ("trees", "depth", "leaves")
            if key != "trees" or any("trees" in tree for tree in trees if tree)
        },
        "features": {
            "added": [name for name in features[0] if name not in features[1]],
            "gone": [name for name in features[1] if name not in features[0]],
        },
        "settings": _differing(*settings),
        "data": _differing(*data),
        "called": names,
        "first_splits": {place: [split.get(place) for split in splits] for place in splits[0] | splits[1]},
    }


def _asked(model: Model) -> Document:
    """What [decision] its threshold was chosen by, as a setting."""
    decided = model.metrics.get("decision")
    return {"decision": decided["asked"]} if decided else {}


def _decisions(one: Model, two: Model) -> Document:
    """Thresholds and what the calls of the held-out rows come to, as pairs; what errors cost only if both decide by the
    same. {} if neither has a [decision]."""
    decided = [model.metrics.get("decision") or {} for model in (one, two)]
    if not any(decided):
        return {}
    same = decided[0].get("asked") == decided[1].get("asked")
    tests = [model.metrics["test"] for model in (one, two)]
    pairs: Document = {"threshold": [model.metrics.get("threshold") for model in (one, two)]}
    pairs |= {key: [test.get(key) for test in tests] for key in ("precision", "recall", "f1")}
    if same and "cost" in decided[0]["test"]:
        pairs["cost"] = [float(own["test"]["cost"]) for own in decided]
        later = [own["out_of_time"] or {} for own in decided]
        if all(later):
            pairs["cost, out of time"] = [float(own["cost"]) for own in later]
    return {"same": same, "pairs": pairs}


def _on_same_rows(one: Model, two: Model) -> Document | None:
    """Figures of both on the test rows of one of them, if the other was the current model when it was trained; the
    difference of the main metric has an interval. Pairs are [of `one`, of `two`]."""
    for candidate, other, sign in ((one, two, 1), (two, one, -1)):
        beside = candidate.metrics.get("current")
        if not beside or beside.get("run_id") != other.run_id:
            continue
        figures = {key: [candidate.metrics["test"].get(key), beside.get(key)][::sign] for _, key in one.figures}
        told = candidate.metrics.get("against_current")
        if told:
            low, high = sorted((sign * told["low"], sign * told["high"]))
            told = {**told, "difference": sign * told["difference"], "low": low, "high": high}
        return {
            "rows": candidate.metrics["test"]["rows"],
            "of": candidate.run_id,
            "figures": figures,
            "interval": told,
            "split": beside.get("split", ""),
        }
    return None


def _importances(one: Model, two: Model) -> dict[str, Document]:
    """By feature what each looks at: `gain`, its share, and `permutation`, by how much the main metric rises without it
    (None where that was not asked); first what matters most to either."""
    found: dict[str, Document] = {}
    for place, model in enumerate((one, two)):
        for entry in model.metrics["importances"]:
            own = found.setdefault(entry["feature"], {"gain": [None, None], "permutation": [None, None]})
            own["gain"][place] = entry["importance"]
        for entry in (model.metrics.get("permutation") or {"features": []})["features"]:
            found[entry["feature"]]["permutation"][place] = entry["increase"]
    ordered = sorted(found, key=lambda name: -max(share or 0.0 for share in found[name]["gain"]))
    return {name: found[name] for name in ordered}


def _differing(one: Document, two: Document) -> dict[str, list[Any]]:
    """The pairs of what is not the same in both; None where one lacks it."""
    return {key: [one.get(key), two.get(key)] for key in one | two if one.get(key) != two.get(key)}


def _flat(settings: Document, prefix: str = "") -> Document:
    found: Document = {}
    for key, value in settings.items():
        found |= _flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {prefix + key: value}
    return found


def _data(model: Model, tree: Document) -> Document:
    """Rows of both sides, and how the label is distributed over the training rows."""
    metrics = model.metrics
    rows: Document = {f"{side} rows": metrics["rows"][side] for side in ("train", "test")}
    label = metrics.get("label", {}).get("train", {})
    match model.task:
        case "binary":
            return rows | {"label rate": metrics["base_rate"]}
        case "multiclass":
            shares = zip(tree["classes"], label["counts"], strict=True)
            return rows | {f"share of {name}": count / metrics["rows"]["train"] for name, count in shares}
    return rows | {f"label {key}": label[key] for key in ("mean", "std", "min", "max")}


def called(dataset: str) -> dict[str, str]:
    """What the files call columns whose names have lost letters; none of a dataset that is not in this checkout."""
    return load_dataset(dataset).called if dataset in dataset_names() else {}


def condition_as_called(text: str, column: str, called: Mapping[str, str]) -> str:
    """A condition on a column, whose name it begins with, with what the files call that."""
    return called[column] + text.removeprefix(column) if column in called and text.startswith(column) else text


def _first_splits(tree: Document, called: Mapping[str, str]) -> dict[str, str]:
    """The conditions at the root and at its two children, columns as they are `called`; "leaf" where the tree ends."""

    def condition(node: Document) -> str:
        return condition_as_called(str(node.get("condition", "leaf")), str(node.get("feature", "")), called)

    if "trees" in tree:
        how = "averaged" if tree["link"] == "mean" else "added up"
        return {"first": f"none stands for all: {len(tree['trees']):,} trees, {how}"}
    nodes = {node["id"]: node for node in tree["nodes"]}
    root = tree["nodes"][0]
    places = {"first": root}
    if "left" in root:
        places |= {"then, if so": nodes[root["left"]], "then, if not": nodes[root["right"]]}
    return {place: condition(node) for place, node in places.items()}


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _some(names: list[str], most: int = 6) -> str:
    """The newest of some runs."""
    return listed(sorted(names, reverse=True), most)


# --- What an operator reads ---


def show_list(console: Console, listed: Document) -> None:
    """The runs, the newest first; then how the current model has moved."""
    dataset = listed["dataset"]
    if not listed["runs"]:
        console.print(f"No finished run of {dataset} yet: {listed['way_to_one']}", highlight=False)
    marks = {listed["previous"]: "previous", listed["current"]: "current"}
    for task in dict.fromkeys(run["task"] for run in listed["runs"]):
        runs = [run for run in listed["runs"] if run["task"] == task]
        keys = [figure for figure in FIGURES[task] if figure[1] in runs[0]]
        timed = any(run["out_of_time"] for run in runs)
        if timed:  # tomorrow comes first, and a pipe has room for three figures
            keys = keys[:1]
        table = plain_table("run", "created (UTC)")
        # A pipe has 80 columns: room for the id, which is what the other commands want of this table.
        table.columns[0].no_wrap, table.padding = True, (0, 1, 0, 0)
        ahead = (f"{keys[0][0]} out of time", f"{BASELINES[task]} there") if timed else ()
        held_out = [f"{title} held out" if timed else title for title, _ in keys]
        for title in (*ahead, *held_out, "train rows", "leaves"):
            table.add_column(title, justify="right")
        table.add_column("gate")
        table.add_column("")
        for run in runs:
            table.add_row(
                Text(run["run_id"], "bold" if run["run_id"] == listed["current"] else ""),
                _when(run["created"]),
                *((_number((run["out_of_time"] or {}).get(key)) for key in (keys[0][1], "baseline")) if timed else ()),
                *(_number(run.get(key)) for _, key in keys),
                f"{run['rows']['train']:,}",
                f"{run['leaves']:,}",
                Text(run["gate"], "" if run["gate"] == "passed" else "yellow"),
                Text(marks.get(run["run_id"], ""), "green"),
            )
        console.print(table)
    if incomplete := listed["incomplete"]:
        count = f"{len(incomplete)} without manifest.json (failed, or not done yet)"
        console.print(Text(f"{count}: {_some(incomplete, 3)}", "dim"))
    if listed["history"]:
        console.print()
        table = plain_table("current since (UTC)", "run", "moved by", "reason")
        for move in listed["history"]:
            table.add_row(_when(move["since"]), move["run_id"], move["by"], Text(move["reason"]))
        console.print(table)


def show_model(console: Console, described: Document) -> None:
    """One run: figures beside the baseline, the gate's checks, what it looks at, where its files lie."""
    metrics, gate = described["metrics"], described["gate"]
    model = Model(described["run_id"], metrics, gate)
    train, test, tree = metrics["rows"]["train"], metrics["rows"]["test"], metrics["tree"]
    _line(console, "Run", model.run_id, _standing(described))
    _line(console, "Trained", f"{_when(metrics['created'])} UTC", f"{model.task}, revision {metrics['revision']}")
    _line(console, "Rows", f"{train:,} to train, {test:,} to test")
    depth = f"depth {tree['depth']}"
    shape = f"{tree['trees']:,} trees, {depth} at most" if "trees" in tree else depth
    _line(console, "Trees" if "trees" in tree else "Tree", f"{shape}, {tree['leaves']:,} leaves")
    tuning = metrics.get("tuning") or {}
    if board := tuning.get("leaderboard"):
        told = ", ".join(f"{one['learner']} {_number(one[tuning['metric']])}" for one in board)
        _line(console, "Tried", told, f"{_EVERY[tuning['metric']].title} on the validation part")
    console.print()
    if expected := expectation(metrics):
        console.print(Text(expected[0], "" if expected[1] else "yellow"))
        console.print()
    console.print(_figures(model))
    for line in metrics.get("calls") or []:
        console.print(Text(line))
    interval = metrics.get("interval")
    if interval:
        title = next((title for title, key in model.figures if key == interval["metric"]), interval["metric"])
        low, high = _number(interval["low"]), _number(interval["high"])
        console.print(
            Text(f"{interval['level']:.0%} interval of the {title}: {low} to {high} ({interval['method']})", "dim")
        )
    console.print()
    _line(console, "Gate", model.verdict)
    table = plain_table(show_header=False)
    for check in gate["checks"] if gate else []:
        mark = ("  passed", "green") if check["passed"] else ("  refused", "yellow")
        table.add_row(Text(*mark), check["name"], Text(check["detail"], "dim"))
    console.print(table)
    if described.get("way_past_gate"):
        _line(console, "Or", described["way_past_gate"], "makes it current all the same")
    console.print()
    called = described.get("called", {})
    top = [
        f"{called.get(entry['feature'], entry['feature'])} {entry['importance']:.0%}"
        for entry in metrics["importances"][:TOP_FEATURES]
    ]
    _line(console, "Looks at", ", ".join(top))
    if told := moved(described.get("drift"), called):
        _line(console, "Moved", told, "since the model before")
    _line(console, "Files", described["model"], ", ".join(described["files"]))


def _standing(described: Document) -> str:
    """Whether the run is or was current, and who made it so."""
    if not described["moves"]:
        return "current" if described["current"] else "not current, nor among the last moves"
    move = described["moves"][0]
    by = {"run": "published by its own run", "promote": "promoted", "rollback": "rolled back to"}[move["by"]]
    reason = f": {move['reason']}" if move["reason"] else ""
    before = f", before it {described['previous']}" if described["current"] and described["previous"] else ""
    return (
        f"{'current' if described['current'] else 'was current'} since {_when(move['since'])} UTC, {by}{reason}{before}"
    )


def _figures(model: Model) -> Table:
    metrics = model.metrics
    table = plain_table(header_style="")
    table.add_column("Model", style="bold", no_wrap=True)
    for title, _ in model.figures:
        table.add_column(title, justify="right")
    table.add_column("rows", justify="right")
    later, rival = metrics.get("out_of_time"), metrics.get("current")
    rows = [("out of time", later, ""), ("  baseline", later["baseline"], "dim")] if later else []
    rows += [("held-out rows", metrics["test"], ""), ("  baseline", metrics["baseline"], "dim")]
    rows += [(f"  then current: {rival['run_id']}", rival, "dim")] if rival else []
    for name, figures, style in rows:
        count = figures.get("rows")
        numbers = (_number(figures.get(key)) for _, key in model.figures)
        table.add_row(name, *numbers, f"{count:,}" if count and not style else "", style=style)
    return table


def show_difference(console: Console, found: Document) -> None:
    """Figures side by side, then only what differs."""
    one, two = found["runs"]
    table = plain_table("", one, two, "difference", right=(one, two, "difference"))
    titles = {key: title for title, key in FIGURES[found["task"]]}
    for key, pair in found["out_of_time"].items():
        if any(value is not None for value in pair):
            table.add_row(f"{titles[key]}, out of time", *_side_by_side(key, pair))
    for key, pair in found["figures"].items():
        table.add_row(titles[key], *_side_by_side(key, pair))
    decided = found.get("decision") or {"pairs": {}, "same": True}
    for key, pair in decided["pairs"].items():
        table.add_row("F1" if key == "f1" else key, *_side_by_side(key, pair))
    if same := found["same_rows"]:
        for key, pair in list(same["figures"].items())[:2]:
            table.add_row(f"{titles[key]}, same rows", *_side_by_side(key, pair))
    for key, pair in found["tree"].items():
        table.add_row(key if key == "trees" else f"tree {key}", *_side_by_side(key, pair))
    for key, pair in found["data"].items():
        table.add_row(key, *_side_by_side(key, pair))
    console.print(table)
    if not decided["same"]:
        console.print(Text("What errors cost is not compared: [decision] is not the same of both.", "dim"))
    if same:
        console.print(Text(_told_of_same_rows(same, titles, one), "dim"))
    if not found["data"]:
        console.print(Text("The same rows and labels by number.", "dim"))
    console.print()
    called = found.get("called", {})
    features = {word: [called.get(name, name) for name in names] for word, names in found["features"].items()}
    _line(console, "Features", _change(features))
    if found["settings"]:
        console.print()
        table = plain_table("setting", one, two, right=(one, two))
        for key, pair in found["settings"].items():
            table.add_row(key, *(UNKNOWN if value is None else str(value) for value in pair))
        console.print(table)
    else:
        _line(console, "Settings", "the same")
    console.print()
    console.print(_looked_at(found))
    console.print()
    table = plain_table("splits", one, two)
    for place, pair in found["first_splits"].items():
        table.add_row(place, *(Text(value or UNKNOWN) for value in pair))
    console.print(table)


def _told_of_same_rows(same: Document, titles: Mapping[str, str], one: str) -> str:
    told = f"Same rows: the {same['rows']:,} test rows of {same['of']}, on which both were tested when it was trained."
    if same["split"]:
        told += f" The other was split {same['split']} and has learned from some of them: its figures are too good."
    interval = same["interval"]
    if not interval:
        return told
    low, high = (_number(interval[end], sign="+") for end in ("low", "high"))
    certain = "no more than chance" if interval["low"] <= 0 <= interval["high"] else "more than chance"
    return (
        f"{told} {titles[interval['metric']]} of {one} less that of the other: {low} to {high} "
        f"({interval['level']:.0%}, on {interval['rows']:,} of them), {certain}."
    )


def _looked_at(found: Document) -> Table:
    """The features that matter most to either: share of gain; and how much worse without it, of held-out rows."""
    asked = any(value is not None for own in found["importances"].values() for value in own["permutation"])
    titles = [f"{run} {what}" for what in ("gain", *(("without it",) if asked else ())) for run in ("1st", "2nd")]
    table = plain_table("looks at", *titles, right=tuple(titles))
    for name, own in list(found["importances"].items())[:TOP_FEATURES]:
        gains = (UNKNOWN if share is None else f"{share:.0%}" for share in own["gain"])
        rises = (_number(rise, sign="+") for rise in own["permutation"]) if asked else ()
        table.add_row(found.get("called", {}).get(name, name), *gains, *rises)
    return table


def show_moved(console: Console, body: Document) -> None:
    """What is current now, after a promotion or a rollback."""
    previous = (body.get("previous") or {}).get("run_id")
    _line(console, "Current", body["run_id"], f"before it {previous}" if previous else "")


def _change(features: Mapping[str, list[str]]) -> str:
    return "; ".join(f"{word} {', '.join(names)}" for word, names in features.items() if names) or "the same"


def _side_by_side(key: str, pair: list[float | None]) -> tuple[str, str, Text]:
    one, two = pair
    if not (_is_number(one) and _is_number(two)):
        return _number(one), _number(two), Text(UNKNOWN)
    assert one is not None and two is not None  # noqa: S101  # _is_number says so; mypy cannot know
    change = one - two
    better = change > 0 if key in HIGHER_IS_BETTER else change < 0 if key in LOWER_IS_BETTER else None
    style = "" if better is None or not change else "green" if better else "red"
    like = max(one, two, key=abs)
    return _number(one, like), _number(two, like), Text(_number(change, like, sign="+") if change else "=", style)


def _number(value: float | None, like: float | None = None, sign: str = "") -> str:
    """With as many digits as a number of the size of `like` (by default its own) needs beside its fellows."""
    if value is None or not math.isfinite(value):
        return UNKNOWN
    size = abs(value if like is None else like)
    if isinstance(value, int):
        return f"{value:{sign},}"
    return f"{value:{sign},.{4 if size < 10 else 2 if size < 1000 else 0}f}"


def _line(console: Console, title: str, text: str, more: str = "") -> None:
    console.print(Text.assemble((f"{title:<9}", "bold"), text, (f"  {more}" if more else "", "dim")), soft_wrap=True)


def _when(moment: str) -> str:
    return f"{datetime.fromisoformat(moment).astimezone(UTC):%Y-%m-%d %H:%M}"
