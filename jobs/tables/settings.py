"""A dataset's settings, declared once: dataset.toml is checked against these classes, and jobs are given them.

datasets/ reads the TOML, by pydantic, at synth and on the operator's machine; the code zip has what came of it as
dataset.json, and `load` reads that on a cluster, where there is no pydantic.
"""

import datetime as dt
import json
import pkgutil
import re
from dataclasses import asdict, dataclass, field, fields, is_dataclass, replace
from typing import (
    Annotated,
    Any,
    ClassVar,
    Dict,
    List,
    Literal,
    Optional,
    Tuple,
    Union,
    get_args,
    get_origin,
    get_type_hints,
)

from jobs.errors import JobError

MAX_CLASSES = 500
CLASSES_OF_SEVERAL = 100  # for which several trees are learned; boosting grows one for each class in every round
MOST_COUNTS = 100_000  # features x classes: in each bin of each feature the profile counts the rows of each class
MOST_COLUMNS = 20_480  # that Spark's CSV parser takes
MOST_SKIPPED = 100  # lines above a header
# What a column of a Parquet file may be declared as, by what it is there.
DECLARABLE: Dict[str, Tuple[str, ...]] = {
    "string": ("string", "bigint", "double", "boolean", "date", "timestamp"),
    "whole": ("bigint", "double", "string"),
    "double": ("double",),
    "boolean": ("boolean", "string"),
    "date": ("date", "timestamp", "string"),
    "timestamp": ("timestamp",),
}
MOST_REASONS = 20


def reason_columns(count: int) -> Dict[str, str]:
    """The columns of so many reasons, with their types: reason_1, a feature's name, and reason_1_effect, ..."""
    return {
        name: kind
        for i in range(1, count + 1)
        for name, kind in ((f"reason_{i}", "string"), (f"reason_{i}_effect", "double"))
    }


# Columns that the table `predictions` adds to a dataset's keys.
PREDICTION_COLUMNS = (
    *("leaf", "probability", "probabilities", "prediction", "side", "model_run"),
    *reason_columns(MOST_REASONS),
)
# What the jobs add to the rows of the features table.
ADDED_COLUMNS = ("split_hash", "split_side")
PUBLISHED_TABLES = ("features", "predictions")  # what the jobs publish; a raw table cannot bear these names


class Limits:
    """What a value may be, in the words of pydantic's core schemas: ge, lt, pattern, min_length, ...

    pydantic asks for it by the method's name, so nothing of pydantic is imported here.
    """

    def __init__(self, **limits: Any) -> None:
        self._limits = limits

    def __get_pydantic_core_schema__(self, source: Any, handler: Any) -> Any:
        return {**handler(source), **self._limits}


# Glue lower-cases every name, so only lower-case names mean the same thing in the file, the catalog and SQL.
Name = Annotated[str, Limits(pattern=r"^[a-z][a-z0-9_]*$")]
Text = Annotated[str, Limits(min_length=1)]
Letter = Annotated[str, Limits(min_length=1, max_length=1)]
Count = Annotated[int, Limits(ge=1)]
Depth = Annotated[int, Limits(ge=1, le=30)]  # MLlib's own limit is 30
Share = Annotated[float, Limits(gt=0, lt=1)]
Wanted = Annotated[float, Limits(gt=0, le=1)]
Amount = Annotated[float, Limits(gt=0, allow_inf_nan=False)]
ColumnType = Literal["bigint", "double", "string", "boolean", "date", "timestamp"]
Format = Literal["csv", "parquet", "jsonl"]
Encoding = Literal["utf-8", "latin-1", "windows-1252"]
Task = Literal["binary", "multiclass", "regression"]
Learner = Literal["tree", "mllib", "forest", "boosted", "best"]
# Of [training], beside what all take, what each learner takes.
USES: Dict[str, Tuple[str, ...]] = {
    "tree": ("depth", "min_leaf"),
    "mllib": ("depth", "min_leaf"),
    "forest": ("depth", "min_leaf", "trees"),
    "boosted": ("depth", "min_leaf", "rounds", "leaves", "learning_rate"),
    "best": (),  # each learner chooses its own
}
ONE_TREE = ("tree", "mllib")  # the learners whose model is one


def checked_cron(value: str) -> str:
    """EventBridge's cron has six fields, and of the two days one is a question mark (EventBridge User Guide)."""
    fields = value.split()
    if len(fields) != 6 or not all(re.fullmatch(r"[A-Za-z0-9*?,/#-]+", part) for part in fields):
        raise ValueError('six fields: minutes, hours, day of month, month, day of week, year; such as "0 5 ? * MON *"')
    if [fields[2], fields[4]].count("?") != 1:
        raise ValueError(
            'either the day of month (third field) or the day of week (fifth) is "?", the other one is not'
        )
    return value


class _Part:
    __pydantic_config__: ClassVar[Dict[str, Any]] = {"extra": "forbid"}


@dataclass(frozen=True)
class Label(_Part):
    """The column to predict; NULL is unknown (such rows are left out and counted).

    Binary: 1 is positive, 0 negative. Multiclass: one of `classes`, as text. Regression: a number, in `unit`.
    `raw` is the main table's column that it is made of and `texts` all that may stand there: anything else is unknown.
    """

    column: Name
    positive: str = ""
    classes: Annotated[Tuple[str, ...], Limits(max_length=MAX_CLASSES)] = ()
    unit: str = ""
    unknown: str = "the label is unknown"
    raw: str = ""
    texts: Tuple[str, ...] = ()


@dataclass(frozen=True)
class Time(_Part):
    """The out-of-time check: learn from rows before `cut`, score the rows from it on."""

    column: Name
    cut: dt.date


@dataclass(frozen=True)
class Source(_Part):
    """Where the raw files come from, for each raw table: an installed package, a URL, or a folder.

    `files` are paths below it: of a table's file, of the folder that holds all its files, or a list of its files. What
    comes by URL is one file a table, and checked against `sha256` (hexadecimal, by table). A folder is absolute, begins
    with ~, or is relative to the dataset's own.
    """

    licence: Text
    files: Dict[Name, Union[str, Tuple[str, ...]]]
    package: str = ""
    url: str = ""
    folder: str = ""
    sha256: Dict[Name, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if sum(map(bool, (self.package, self.url, self.folder))) != 1:
            raise ValueError("name exactly one of package, url and folder")
        if self.url and set(self.sha256) != set(self.files):
            raise ValueError("sha256: a file that comes by URL needs its checksum, by table")
        if self.sha256 and not self.url:
            raise ValueError("sha256: it is held against what comes by URL only; leave it out, or give url")
        if self.url and not self.url.startswith(("https://", "http://")):
            raise ValueError("url: it must begin with https:// or http://; what lies on this machine is a folder")
        for table, given in self.files.items():
            if self.url and not isinstance(given, str):
                raise ValueError(f"files: {table} is a list; by url a table is one file: download them into a folder")
            if not given or (not isinstance(given, str) and len(set(given)) < len(given)):
                raise ValueError(f"files: {table}: name at least one file, and each once")


@dataclass(frozen=True)
class Table(_Part):
    """The columns of a raw table that prepare.sql reads, with their types; other columns of the files are ignored.

    `names` says what a column is called in the files' header where that is no plain lower-case name. Without a
    header, `columns` are all columns of the files, in their order. A quote within a quoted cell has `escape` before it,
    by default another quote. `many_lines` says that cells of many lines, however long, are meant. `skip`
    lines stand above the header of each file, or above its first row, and are no part of the table. `partitions` are
    those of `columns` that no file has: the folders name=value that each file lies in tell them.
    """

    columns: Annotated[Dict[Name, ColumnType], Limits(min_length=1)]
    format: Format = "csv"
    names: Dict[Name, str] = field(default_factory=dict)
    nulls: Annotated[Tuple[str, ...], Limits(min_length=1)] = ("", "NA")
    delimiter: Letter = ","
    quote: Letter = '"'
    escape: Annotated[str, Limits(max_length=1)] = ""
    encoding: Encoding = "utf-8"
    header: bool = True
    many_lines: bool = False
    skip: Annotated[int, Limits(ge=0, le=MOST_SKIPPED)] = 0
    partitions: Tuple[Name, ...] = ()

    def __post_init__(self) -> None:
        marks = self.delimiter + self.quote
        if self.delimiter == self.quote or not marks.isascii() or set(marks) & set("\r\n\0"):
            raise ValueError("delimiter, quote: give two different ASCII characters, neither of them a line end")
        if self.escape and (self.escape == self.delimiter or not self.escape.isascii() or self.escape in "\r\n\0"):
            raise ValueError("escape: give an ASCII character that is neither the delimiter nor a line end")
        of_csv = ("delimiter", "quote", "escape", "encoding", "header", "many_lines", "skip")
        if self.format != "csv" and (given := [name for name in of_csv if getattr(self, name) != getattr(Table, name)]):
            raise ValueError(f"{', '.join(given)}: say how a CSV file is written, and mean nothing to {self.format}")
        if strange := [name for name in self.partitions if name not in self.columns]:
            raise ValueError(f"partitions: {', '.join(strange)} is not one of columns, which say its type (string)")
        if set(self.columns) <= set(self.partitions):
            raise ValueError("columns: at least one must be of the files, and not of their folders (partitions)")
        if set(self.names) - set(self.partitions) and not self.header:
            raise ValueError("names: without a header there are no names to give; columns go by their position")

    @property
    def of_files(self) -> "Table":
        """Without the columns that folders tell."""
        if not self.partitions:
            return self
        columns = {name: kind for name, kind in self.columns.items() if name not in self.partitions}
        names = {name: text for name, text in self.names.items() if name not in self.partitions}
        return replace(self, columns=columns, names=names, partitions=())

    @property
    def quote_escape(self) -> str:
        """What stands before a quote that is meant, in CSV."""
        return self.escape or self.quote


@dataclass(frozen=True)
class Features(_Part):
    numbers: Tuple[Name, ...] = ()
    categories: Tuple[Name, ...] = ()

    @property
    def names(self) -> List[str]:
        return [*self.numbers, *self.categories]


@dataclass(frozen=True)
class Training(_Part):
    """Which learner a model is trained by, and with what: `USES` says which of these each takes.

    What a learner needs and is not set, a run chooses by itself (`Tune`): of one tree `depth` and `min_leaf`, of
    boosted ones the number of `rounds`; if `learner` is "best", which of these two does best. A forest chooses nothing:
    jobs/learners/mllib.py has its defaults.
    """

    # A category counts as if it had so many more rows of the average kind, a leaf so many more like its parent.
    smoothing: Annotated[float, Limits(gt=0)]
    depth: Optional[Depth] = None
    min_leaf: Optional[Count] = None
    bins: Annotated[int, Limits(ge=2, le=255)] = 128  # candidate splits of a feature are one fewer
    test_share: Share = 0.2
    seed: Annotated[int, Limits(ge=0)] = 0
    learner: Learner = "tree"
    rounds: Optional[Annotated[int, Limits(ge=1, le=10_000)]] = None  # of boosting; each is a tree, or one a class
    leaves: Annotated[int, Limits(ge=2, le=1_024)] = 31  # of each boosted tree, at most
    learning_rate: Annotated[float, Limits(gt=0, le=1)] = 0.1
    trees: Annotated[int, Limits(ge=1, le=1_000)] = 20  # of a forest
    # How much a row counts while it is learned from. By class ("balanced": each as much as another; one that is not
    # named counts 1), by which rows are called too, while what a model says is of rows as they are. Or what a column
    # says, and the model is then of rows weighted so. What is measured counts each row once.
    weights: Union[str, Dict[str, float]] = ""

    def __post_init__(self) -> None:
        if isinstance(self.weights, dict) and not self.weights:
            raise ValueError("weights: name a class and what a row of it counts, or leave it out")
        foreign = {name for names in USES.values() for name in names} - set(USES[self.learner])
        surplus = [one.name for one in fields(self) if one.name in foreign and getattr(self, one.name) != one.default]
        if surplus:
            raise ValueError(f'{", ".join(surplus)}: means nothing to learner = "{self.learner}"; leave it out')

    def of_a_tree(self, depth: int) -> "Training":
        """The same for one tree of ours of this depth, whatever the learner."""
        foreign = {name for names in USES.values() for name in names} - set(USES["tree"])
        others: Dict[str, Any] = {one.name: one.default for one in fields(self) if one.name in foreign}
        return replace(self, **others, learner="tree", depth=depth)

    @property
    def weight_column(self) -> str:
        """The column of the features table that says how much a row counts, '' if none does."""
        return self.weights if isinstance(self.weights, str) and self.weights != "balanced" else ""

    @property
    def together(self) -> bool:
        """Whether it learns in all executors at once, which must be there and stay."""
        return self.learner in ("boosted", "best")

    @property
    def used(self) -> Dict[str, Any]:
        """What the learner was trained with, as tree.json and metrics.json have it."""
        every = {name for names in USES.values() for name in names}
        other = every - set(USES[self.learner])
        told = {name: value for name, value in asdict(self).items() if name not in other and name != "weights"}
        told = {**told, **({"weights": self.weights} if self.weights else {})}
        return told if self.learner != "tree" else {name: told[name] for name in told if name != "learner"}


@dataclass(frozen=True)
class Split(_Part):
    """Rows that are alike in the columns `by`, those of one patient say, are all on one side; so nothing that is known
    of a patient helps to tell a row that is held out. Without `by` each row goes by its keys."""

    by: Tuple[Name, ...] = ()


@dataclass(frozen=True)
class Tune(_Part):
    """Choose depth and leaf size by the main metric on a part of the training side, never by the test side.

    With [time] that part is the latest one before `time.cut`, else it goes by hash. Without `depths` or `min_leaves`
    the run makes its own list (jobs/learners/tune.py).
    """

    depths: Annotated[Tuple[Depth, ...], Limits(min_length=1)] = ()
    min_leaves: Annotated[Tuple[Count, ...], Limits(min_length=1)] = ()
    validation_share: Share = 0.25


@dataclass(frozen=True)
class Decision(_Part):
    """From which probability on a row of a binary task is called positive: chosen on the validation part, never by the
    test side, in exactly one way.

    By what a miss (a positive row that is not called so) and a false alarm (a negative one that is) cost, in any unit:
    where all of them cost least. By a wanted `recall`: the highest threshold that has it. By a wanted `precision`:
    of those that have it the one that finds most.
    """

    cost_of_miss: Optional[Amount] = None
    cost_of_false_alarm: Optional[Amount] = None
    recall: Optional[Wanted] = None
    precision: Optional[Wanted] = None

    def __post_init__(self) -> None:
        one, other = self.cost_of_miss is None, self.cost_of_false_alarm is None
        ways = (not (one and other)) + (self.recall is not None) + (self.precision is not None)
        if ways != 1:
            raise ValueError(
                "name exactly one way: both costs (cost_of_miss, cost_of_false_alarm), recall or precision"
            )
        if one != other:
            lacking = "cost_of_miss" if one else "cost_of_false_alarm"
            raise ValueError(
                f"{lacking} is missing: errors are weighed against each other; of equal ones set both to 1"
            )

    @property
    def by_costs(self) -> bool:
        return self.cost_of_miss is not None

    @property
    def asked(self) -> Dict[str, float]:
        """What is set, as tree.json and metrics.json have it."""
        return {name: float(value) for name, value in asdict(self).items() if value is not None}


@dataclass(frozen=True)
class Schedule(_Part):
    """When the dataset is trained again, where the environment has a schedule: at its own `cron` (UTC), or never."""

    cron: str = ""
    enabled: bool = True

    def __post_init__(self) -> None:
        if not self.cron:
            return
        try:
            checked_cron(self.cron)
        except ValueError as error:
            raise ValueError(f"cron: {error}") from None


@dataclass(frozen=True)
class Prediction(_Part):
    """What the table `predictions` tells besides: of each row the features that moved its prediction most, so many."""

    reasons: Annotated[int, Limits(ge=0, le=MOST_REASONS)] = 0


@dataclass(frozen=True)
class Gate(_Part):
    """When a candidate may replace the current model.

    `tolerance` is in the main metric (log loss, or RMSE in the label's unit); `suspicious_auc`, `suspicious_r2` (0.99
    if they are not set) and `suspicious_share` (of rows whose class it tells) are what a single feature may reach
    before it raises the leak alarm, the first two, if set, the whole model as well; `max_quarantined_share` is of the
    raw rows, `max_unknown_label_share` of the labels; `out_of_time`, if false, keeps the rows from `time.cut` on from
    deciding; `cost_tolerance` is by what share errors may cost more than the current model's, where [decision] is by
    costs, and takes the place of `tolerance` there; `feature_change` declares that other features than the current
    model's are meant, and why.
    """

    tolerance: Annotated[float, Limits(ge=0)]
    suspicious_auc: Optional[Annotated[float, Limits(gt=0.5, le=1)]] = None
    suspicious_r2: Optional[Annotated[float, Limits(gt=0, le=1)]] = None
    suspicious_share: Annotated[float, Limits(gt=0.5, le=1)] = 0.99
    max_quarantined_share: Annotated[float, Limits(ge=0, le=1)] = 0.05
    max_unknown_label_share: Annotated[float, Limits(ge=0, le=1)] = 0.01
    out_of_time: Optional[bool] = None
    cost_tolerance: Annotated[float, Limits(ge=0, allow_inf_nan=False)] = 0.05
    feature_change: str = ""


@dataclass(frozen=True)
class Dataset(_Part):
    """One dataset's settings, with all defaults filled in.

    `carried` are columns of the result that go with the keys into `predictions`, for people; they need not be features.
    """

    name: Name
    title: Text
    task: Task
    main: Name
    keys: Annotated[Tuple[Name, ...], Limits(min_length=1)]
    label: Label
    source: Source
    tables: Annotated[Dict[Name, Table], Limits(min_length=1)]
    features: Features
    training: Training
    gate: Gate
    time: Optional[Time] = None
    slices: Tuple[Name, ...] = ()
    carried: Tuple[Name, ...] = ()
    tune: Optional[Tune] = None
    decision: Optional[Decision] = None
    split: Split = field(default_factory=Split)
    schedule: Schedule = field(default_factory=Schedule)
    prediction: Prediction = field(default_factory=Prediction)

    def __post_init__(self) -> None:
        tables = ", ".join(self.tables)
        if self.main not in self.tables:
            raise ValueError(f"main: {self.main!r} is not one of the tables ({tables})")
        if set(self.source.files) != set(self.tables):
            raise ValueError(
                f"source.files: it has {', '.join(self.source.files) or 'no table'}, but [tables] has {tables}; "
                "each table needs its file"
            )
        if taken := set(self.tables) & set(PUBLISHED_TABLES):
            raise ValueError(
                f"tables: {', '.join(sorted(taken))} is a table that the jobs publish; give the raw table another name"
            )
        features = self.features.names
        if not features:
            raise ValueError("features: name at least one column in numbers or categories")
        if twice := sorted({name for name in features if features.count(name) > 1}):
            raise ValueError(f"features: {', '.join(twice)} is listed more than once")
        if taken_names := [key for key in self.keys if key in PREDICTION_COLUMNS]:
            raise ValueError(f"keys: {', '.join(taken_names)} is a column that predictions add; call the key otherwise")
        if taken_names := [name for name in self.carried if name in (*PREDICTION_COLUMNS, self.label.column)]:
            raise ValueError(f"carried: {', '.join(taken_names)} is the label or a column that predictions add")
        time = [self.time.column] if self.time else []
        declared = [*features, *self.keys, *self.carried, self.label.column, *time, *self.split.by]
        declared += [self.training.weight_column]
        if added := sorted({name for name in declared if name in ADDED_COLUMNS}):
            raise ValueError(
                f"{', '.join(added)}: the jobs add a column of that name; call it otherwise in prepare.sql"
            )
        if self.label.column in {*features, *self.keys}:
            raise ValueError(f"features: {self.label.column} is the label; a label cannot be a feature or a key")
        if twice := sorted({key for key in self.keys if self.keys.count(key) > 1}):
            raise ValueError(f"keys: {', '.join(twice)} is listed more than once")
        if self.label.column in self.split.by:
            raise ValueError(f"split.by: {self.label.column} is the label; name what rows of one group have in common")
        if twice := sorted({name for name in self.split.by if self.split.by.count(name) > 1}):
            raise ValueError(f"split.by: {', '.join(twice)} is listed more than once")
        if self.split.by and set(self.keys) <= set(self.split.by):
            raise ValueError(
                f"split.by: it has all keys ({', '.join(self.keys)}), so that each row is a group of its own; name "
                "fewer columns, or leave [split] out"
            )
        if self.time is not None and self.time.column == self.label.column:
            raise ValueError(f"time.column: {self.time.column} is the label; name the date that a row is of")
        if self.gate.out_of_time and self.time is None:
            raise ValueError("gate.out_of_time: it needs the section [time], which says what is later")
        known = {*features, *self.keys, *([self.time.column] if self.time else [])}
        if strange := [name for name in self.slices if name not in known]:
            raise ValueError(f"slices: {', '.join(strange)} is no feature, key or time column")
        for name, table in self.tables.items():
            if strange := [column for column in table.names if column not in table.columns]:
                raise ValueError(f"tables.{name}.names: {', '.join(strange)} is not one of its columns")
        self._label_fits_task()
        if self.training.learner == "forest" and self.tune:
            raise ValueError(
                'tune: means nothing to training.learner = "forest", which is trained as set; leave it out'
            )
        if self.training.learner == "boosted" and self.tune and (self.tune.depths or self.tune.min_leaves):
            raise ValueError(
                'tune.depths, tune.min_leaves: mean nothing to training.learner = "boosted", of which the run chooses '
                "the number of rounds; leave them out"
            )
        self._weights_fit_task()
        self._classes_fit_learner()
        if self.decision and self.task != "binary":
            what = "a number" if self.task == "regression" else "the class with the largest probability"
            raise ValueError(
                f"decision: it chooses a threshold of a binary task's probability, and a {self.task} task tells "
                f"{what}; leave it out"
            )
        if self.task == "multiclass" and self.gate.suspicious_auc is not None:
            raise ValueError(
                "gate.suspicious_auc: one class against the rest, AUC nears 1 by the number of classes alone; leave it "
                "out. What a single feature may tell of many classes is gate.suspicious_share"
            )

    def _label_fits_task(self) -> None:
        given = {name for name in ("positive", "classes", "unit") if getattr(self.label, name)}
        needed = {"binary": {"positive"}, "multiclass": {"classes"}, "regression": set()}[self.task]
        allowed = needed | ({"unit"} if self.task == "regression" else set())
        if lacking := needed - given:
            raise ValueError(f"label: a {self.task} task needs {', '.join(lacking)}")
        if surplus := sorted(given - allowed):
            raise ValueError(f"label: {', '.join(surplus)} means nothing to a {self.task} task; leave it out")
        if self.label.texts and not self.label.raw:
            raise ValueError("label.texts: label.raw must say in which column of the main table they stand")
        if self.label.raw and not self.label_texts:
            raise ValueError("label.raw: label.texts must say what may stand in it")
        if self.label.raw and self.label.raw not in self.tables[self.main].columns:
            raise ValueError(f"label.raw: {self.label.raw} is no column of tables.{self.main}")
        classes = self.label.classes
        if self.task == "multiclass" and (len(classes) < 3 or len(set(classes)) < len(classes)):
            raise ValueError("label.classes: name three classes or more, each once; two make a binary task")

    def _classes_fit_learner(self) -> None:
        classes, learner, features = len(self.label.classes), self.training.learner, len(self.features.names)
        if classes > CLASSES_OF_SEVERAL and learner not in ONE_TREE:
            made = "as many numbers in each leaf of each tree" if learner == "forest" else "as many trees in each round"
            raise ValueError(
                f'training.learner: "{learner}" takes {CLASSES_OF_SEVERAL} classes at most, and here are {classes}, '
                f"{made}: name {' or '.join(ONE_TREE)}, which are one tree, or put rare classes together in prepare.sql"
            )
        if classes * features > MOST_COUNTS:
            raise ValueError(
                f"label.classes, features: {features:,} features and {classes} classes are {classes * features:,} "
                f"counts a bin, and the driver holds {MOST_COUNTS:,} at most: leave out features, or put rare classes "
                "together in prepare.sql"
            )

    def _weights_fit_task(self) -> None:
        weights = self.training.weights
        if not weights:
            return
        if column := self.training.weight_column:
            if not re.fullmatch(r"[a-z][a-z0-9_]*", column):
                raise ValueError(f'training.weights: {column!r} is neither "balanced" nor the name of a column')
            taken = {self.label.column: "the label", **dict.fromkeys(self.keys, "a key")}
            taken.update(dict.fromkeys(self.features.names, "a feature"))
            if column in taken:
                raise ValueError(
                    f"training.weights: {column} is {taken[column]} as well: what a row counts must not be what it is "
                    "told by; leave it out there, or give the weight a column of its own in prepare.sql"
                )
            return
        if self.task == "regression":
            raise ValueError("training.weights: a regression has no classes; name a column, or leave it out")
        if isinstance(weights, str):
            return
        named = ", ".join(self.class_names)
        if strange := [name for name in weights if name not in self.class_names]:
            raise ValueError(f"training.weights: {', '.join(strange)} is no class of this task, which has {named}")
        if wrong := [name for name, weight in weights.items() if not 0 < weight < float("inf")]:
            raise ValueError(
                f"training.weights: {wrong[0]} is {weights[wrong[0]]:g}, and a weight is a number above 0; what is to "
                "count nothing prepare.sql leaves out"
            )

    @property
    def class_names(self) -> Tuple[str, ...]:
        """What the classes are called in settings, in their order; of a binary label 0 and 1."""
        return ("negative", "positive") if self.task == "binary" else self.label.classes

    @property
    def label_texts(self) -> Tuple[str, ...]:
        """All texts of the raw label that are known: label.texts, or else the classes."""
        return self.label.texts or (self.label.classes if self.label.raw else ())

    @property
    def tuning(self) -> Optional[Tune]:
        """How a run chooses depth and leaf size, or the rounds of boosting: by [tune], or what [training] leaves open;
        None if all is set.

        What [tune] does not list is what [training] says, if it does.
        """
        if self.training.learner == "forest":
            return None
        if self.training.learner == "best":
            return self.tune or Tune()
        if self.training.learner == "boosted":
            return None if self.training.rounds else self.tune or Tune()
        depth, min_leaf = self.training.depth, self.training.min_leaf
        if self.tune is None and depth is not None and min_leaf is not None:
            return None
        asked = self.tune or Tune((), ())
        return replace(
            asked,
            depths=asked.depths or (() if depth is None else (depth,)),
            min_leaves=asked.min_leaves or (() if min_leaf is None else (min_leaf,)),
        )

    @property
    def validation_share(self) -> Optional[float]:
        """What share of the training side is the validation part, None if nothing is chosen by one."""
        if self.tuning:
            return self.tuning.validation_share
        return (self.tune or Tune()).validation_share if self.decision else None

    @property
    def time_decides(self) -> bool:
        """Whether the gate judges by the rows after `time.cut` as well."""
        return self.time is not None and self.gate.out_of_time is not False

    @property
    def split_by(self) -> Tuple[str, ...]:
        """The columns whose values decide the side of a row."""
        return self.split.by or self.keys

    @property
    def told_by(self) -> List[str]:
        """The columns that tell people which row is meant: keys, then what is carried; each once."""
        return list(dict.fromkeys([*self.keys, *self.carried]))

    @property
    def called(self) -> Dict[str, str]:
        """What the files call those columns of the result whose names have lost letters: a header of another script, or
        with accents, that a raw column of the same name has (in the main table, or in one other only)."""
        found: Dict[str, str] = {}
        for name in self.columns:
            told = [table.names[name] for table in self.tables.values() if name in table.names]
            texts = [self.tables[self.main].names[name]] if name in self.tables[self.main].names else told
            if len(texts) == 1 and not texts[0].isascii() and texts[0].isprintable():
                found[name] = texts[0].strip()
        return found if len(set(found.values())) == len(found) else {}

    @property
    def file(self) -> str:
        """Where a reader of an error mends the settings."""
        return f"datasets/{self.name}/dataset.toml"

    @property
    def classes(self) -> int:
        """How many classes the label has; 0 for a regression."""
        return {"binary": 2, "multiclass": len(self.label.classes), "regression": 0}[self.task]

    @property
    def columns(self) -> List[str]:
        """Of the features table: keys, time, label, what is split by and weighted by, features; each once."""
        time = [self.time.column] if self.time else []
        weight = [self.training.weight_column] if self.training.weight_column else []
        others = [*self.split.by, *weight, *self.features.names]
        return list(dict.fromkeys([*self.keys, *time, self.label.column, *others]))

    def to_json(self) -> str:
        """What `load` reads, in the order of the file: of a file without a header, columns have no other."""
        return json.dumps(asdict(self), indent=2, default=dt.date.isoformat)


def load(name: str) -> Dataset:
    """The settings of a dataset. Raises JobError if the code zip doesn't hold it."""
    return from_json(_read(name, "dataset.json"))


def from_json(text: str) -> Dataset:
    """What `to_json` was made of."""
    made: Dataset = _made(Dataset, json.loads(text))
    return made


def prepare_sql(name: str) -> str:
    """The dataset's query over its raw tables."""
    return _read(name, "prepare.sql")


def _made(kind: Any, value: Any) -> Any:
    """A value of JSON as the type that is declared for it."""
    if value is None:
        return None
    if get_origin(kind) is Union:  # Optional, or a text or several
        several = [each for each in get_args(kind) if get_origin(each) is tuple]
        return _made(several[0] if several and not isinstance(value, str) else get_args(kind)[0], value)
    if is_dataclass(kind):
        kinds = get_type_hints(kind)
        return kind(**{name: _made(kinds[name], part) for name, part in value.items()})  # type: ignore[operator]
    if get_origin(kind) is dict:
        return {name: _made(get_args(kind)[1], part) for name, part in value.items()}
    if get_origin(kind) is tuple:
        return tuple(value)
    return dt.date.fromisoformat(value) if kind is dt.date else value


def _read(name: str, file: str) -> str:
    try:
        data = pkgutil.get_data("datasets", f"{name}/{file}")
    except OSError:
        data = None
    if data is None:
        raise JobError(
            f"The code that was shipped with this job has no datasets/{name}/{file}: deploy again, or check --dataset."
        )
    return data.decode("utf-8")
