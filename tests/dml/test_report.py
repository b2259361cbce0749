"""The report page: what it says, that it loads nothing, and that no data can break it."""

import copy
import json
import re
from html import unescape
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from dml.errors import UserError
from dml.estate.platform import Platform
from dml.models import report
from dml.models.report import charts, explained
from dml.models.report.outcome import outcome
from dml.models.report.tree import OUTLINE_NODES, Tree
from stacks.outputs import Output

TITLE = "Flights out of New York, 2013"
RUN = "run-20261122-1"
WELL_UNDER_ONE_MEGABYTE = 700_000

FIGURES = {"auc": 0.7451, "pr_auc": 0.5392, "log_loss": 0.4803, "brier": 0.1494, "accuracy": 0.7995}
BASE_FIGURES = {"auc": 0.5, "pr_auc": 0.2385, "log_loss": 0.5486, "brier": 0.1816, "accuracy": 0.7627}
LATER_FIGURES = {"auc": 0.5944, "pr_auc": 0.3248, "log_loss": 0.6761, "brier": 0.1984, "accuracy": 0.7432}
CONFUSION = {"tp": 4764, "fp": 2340, "tn": 47494, "fn": 10761}

METRICS: dict[str, Any] = {
    "dataset": "nyc_flights",
    "run_id": RUN,
    "revision": "73b906e",
    "created": "2026-11-22T23:31:24+00:00",
    "versions": {"spark": "3.5.6", "python": "3.11.7", "numpy": "2.4.6"},
    "rows": {"train": 1000, "test": 65359},
    "positives": {"train": 240, "test": 15525},
    "base_rate": 0.24,
    "test": FIGURES | {"rows": 65359, "confusion": CONFUSION},
    "baseline": BASE_FIGURES,
    "out_of_time": LATER_FIGURES
    | {
        "trained_on": "2013-01 to 2013-10",
        "tested_on": "2013-11 to 2013-12",
        "rows": 53991,
        "confusion": CONFUSION,
        "baseline": BASE_FIGURES,
    },
    "roc": [[0.0, 0.0], [0.1, 0.4], [0.5, 0.8], [1.0, 1.0]],
    "calibration": [
        {"predicted": 0.05, "observed": 0.08, "rows": 6399},
        {"predicted": 0.43, "observed": 0.4, "rows": 6655},
    ],
    "importances": [
        {"feature": "hour", "importance": 0.61},
        {"feature": "dest", "importance": 0.39},
        {"feature": "precip", "importance": 0.0},
    ],
    "tree": {"depth": 2, "leaves": 4, "nodes": 7},
    "threshold": 0.5,
    "settings": {"depth": 12, "min_leaf": 50, "smoothing": 100.0},
    "seconds": {
        "session": 3.4,
        "read": 4.7,
        "encode": 10.9,
        "fit": 9.8,
        "out_of_time": 18.2,
        "save": 1.9,
        "total": 48.9,
    },
}

TREE: dict[str, Any] = {
    "dataset": "nyc_flights",
    "run_id": RUN,
    "task": "binary",
    "label": "late",
    "positive": "arrives more than 15 minutes late",
    "features": [
        {"name": "hour", "kind": "number", "missing": -1e300, "missing_rows": 0},
        {
            "name": "dest",
            "kind": "category",
            "encoding": {"ATL": 0.1, "BOS": 0.2, "CLT": 0.3},
            "prior": 0.24,
            "unseen": 0.24,
            "missing": 0.24,
            "missing_rows": 0,
        },
        {"name": "precip", "kind": "number", "missing": -1e300, "missing_rows": 7},
    ],
    "nodes": [
        {
            "id": 0,
            "depth": 0,
            "rows": 1000,
            "probability": 0.24,
            "left": 1,
            "right": 4,
            "feature": "hour",
            "threshold": 14.5,
            "condition": "hour <= 14.5",
            "otherwise": "hour > 14.5",
        },
        {
            "id": 1,
            "depth": 1,
            "rows": 600,
            "probability": 0.1,
            "left": 2,
            "right": 3,
            "feature": "dest",
            "threshold": 0.25,
            "condition": "dest in ATL, BOS",
            "otherwise": "dest in CLT",
            "categories": ["ATL", "BOS"],
        },
        {"id": 2, "depth": 2, "rows": 400, "probability": 0.05},
        {"id": 3, "depth": 2, "rows": 200, "probability": 0.2},
        {
            "id": 4,
            "depth": 1,
            "rows": 400,
            "probability": 0.45,
            "left": 5,
            "right": 6,
            "feature": "hour",
            "threshold": 18.5,
            "condition": "hour <= 18.5",
            "otherwise": "hour > 18.5",
        },
        {"id": 5, "depth": 2, "rows": 150, "probability": 0.3},
        {"id": 6, "depth": 2, "rows": 250, "probability": 0.54},
    ],
}

GATE: dict[str, Any] = {
    "passed": False,
    "reasons": ["not worse than the current model: log loss 0.4803, run-7 has 0.4711"],
    "checks": [
        {"name": "better than the base rate", "passed": True, "detail": "log loss 0.4803, base rate 0.5486"},
        {"name": "not worse than the current model", "passed": False, "detail": "log loss 0.4803, run-7 has 0.4711"},
    ],
    "current_run": "run-7",
}

PREPARED: dict[str, Any] = {
    "tables": {
        "flights": {"rows": 336776, "quarantined": 5, "location": "s3://raw/nyc_flights/flights/"},
        "weather": {"rows": 26115, "quarantined": 3, "location": "s3://raw/nyc_flights/weather/"},
    },
    "rows_in": 336776,
    "rows_out": 327341,
    "quarantined": 8,
    "left_out": {"no arrival delay (cancelled or diverted)": 9430},
    "seconds": {"read": 4.1, "join": 6.5},
}


CLASSES = ["aspen", "pine", "willow"]
CLASS_FIGURES = {"auc": 0.8712, "log_loss": 0.7013, "brier": 0.4512, "accuracy": 0.7234, "macro_f1": 0.5511}
CLASS_SHARES = {"auc": 0.5, "log_loss": 0.9876, "brier": 0.6043, "accuracy": 0.5412, "macro_f1": 0.2345}
CLASS_CURRENT = {"auc": 0.8601, "log_loss": 0.7222, "brier": 0.4601, "accuracy": 0.7101, "macro_f1": 0.5403}

MULTICLASS: dict[str, Any] = {
    **{key: METRICS[key] for key in ("dataset", "run_id", "revision", "created", "versions", "importances", "tree")},
    **{key: METRICS[key] for key in ("settings", "seconds", "threshold")},
    "task": "multiclass",
    "main_metric": "log_loss",
    "rows": {"train": 1000, "test": 200},
    "label": {"train": {"counts": [300, 600, 100]}, "test": {"counts": [60, 120, 20]}},
    "test": CLASS_FIGURES | {"rows": 200, "confusion": [[30, 28, 2], [5, 115, 0], [1, 19, 0]]},
    "baseline": CLASS_SHARES,
    "out_of_time": None,
    "current": CLASS_CURRENT | {"rows": 200, "run_id": "run-7"},
    "interval": {"metric": "log_loss", "low": 0.6512, "high": 0.7531, "level": 0.95, "method": "bootstrap of the rows"},
    "calibration": [{"predicted": 0.55, "observed": 0.6, "rows": 90}, {"predicted": 0.9, "observed": 0.8, "rows": 110}],
    "slices": {
        "soil": [
            {"value": "clay", "rows": 150, "log_loss": 0.6, "accuracy": 0.8, "baseline": 0.9},
            {"value": "peat", "rows": 50, "log_loss": 1.2, "accuracy": 0.4, "baseline": 1.1},
        ]
    },
    "tuning": {
        "chosen": {"depth": 8, "min_leaf": 50},
        "metric": "log_loss",
        "rows": {"fitted": 750, "validated": 250},
        "tried": [
            {"depth": 8, "min_leaf": 50, "log_loss": 0.7112},
            {"depth": 8, "min_leaf": 200, "log_loss": 0.7223},
            {"depth": 12, "min_leaf": 50, "log_loss": 0.7334},
        ],
    },
}

REGRESSION: dict[str, Any] = MULTICLASS | {
    "task": "regression",
    "main_metric": "rmse",
    "label": {
        "train": {"mean": 7.0, "std": 40.0, "min": -86.0, "max": 1272.0},
        "test": {"mean": 6.5, "std": 39.0, "min": -75.0, "max": 1007.0},
    },
    "test": {"rows": 200, "rmse": 38.125, "mae": 22.75, "r2": 0.1512, "bias": -0.525},
    "baseline": {"rmse": 41.375, "mae": 25.25, "r2": -0.0003, "bias": 0.5125},
    "out_of_time": {
        "trained_on": "2013-01 to 2013-10",
        "tested_on": "2013-11 to 2013-12",
        "rows": 150,
        "rmse": 44.5,
        "mae": 24.5,
        "r2": -0.1,
        "bias": 9.5,
        "baseline": {"rmse": 42.5, "mae": 25.5, "r2": 0.0, "bias": 0.5},
    },
    "current": None,
    "interval": {"metric": "rmse", "low": 36.5, "high": 39.75, "level": 0.95, "method": "bootstrap of groups"},
    "calibration": [
        {"predicted": -5.5, "observed": -4.25, "rows": 90},
        {"predicted": 33.5, "observed": 31.5, "rows": 110},
    ],
    "slices": {"carrier": [{"value": "UA", "rows": 9, "mean": 3.5, "rmse": 31.5, "mae": 21.5, "baseline": 35.5}]},
    "tuning": None,
}

DRIFT: dict[str, Any] = {
    "verdict": "large",
    "features": [
        {"name": "dest", "psi": 0.02, "verdict": "stable"},
        {"feature": "hour", "psi": 0.31, "verdict": "large", "moves_score": {"by": -0.0312, "of": "cat"}},
        {"name": "precip"},
    ],
}


def saying(key: str, *said: Any, **fields: Any) -> dict[str, Any]:
    """The tree above for another task: its nodes say `said` under `key`, in their order."""
    tree = copy.deepcopy(TREE) | {"format": 2, "positive": "", "classes": [], "unit": ""} | fields
    for node, value in zip(tree["nodes"], said, strict=True):
        del node["probability"]
        node[key] = value
    return tree


CLASS_TREE = saying(
    "probabilities",
    [0.3, 0.6, 0.1],
    [0.5, 0.42, 0.08],
    [0.7, 0.28, 0.02],
    [0.1, 0.75, 0.15],
    [0.1, 0.8, 0.1],
    [0.05, 0.95, 0.0],
    [0.13, 0.71, 0.16],
    task="multiclass",
    label="cover",
    classes=CLASSES,
)
VALUE_TREE = saying(
    "value", 7.0, -3.25, -8.5, 7.25, 22.375, 13.5, 27.7, task="regression", label="arr_delay", unit="minutes"
)


def page(
    metrics: dict[str, Any] = METRICS,
    tree: dict[str, Any] = TREE,
    gate: dict[str, Any] | None = GATE,
    prepared: dict[str, Any] | None = PREPARED,
    drift: dict[str, Any] | None = None,
) -> str:
    return report.render(metrics, tree, gate, prepared, drift, title=TITLE)


PAGES = {"binary": (METRICS, TREE), "multiclass": (MULTICLASS, CLASS_TREE), "regression": (REGRESSION, VALUE_TREE)}


def built(tree: dict[str, Any], metrics: dict[str, Any] = METRICS) -> Tree:
    return Tree(tree, outcome(tree, metrics))


class Reader(HTMLParser):
    """What a browser would find: the text, and every tag with its attributes."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.styles: list[str] = []
        self._words: list[str] = []
        self._in_style = False
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self._in_style = tag == "style"

    def handle_endtag(self, tag: str) -> None:
        self._in_style = False

    def handle_data(self, data: str) -> None:
        (self.styles if self._in_style else self._words).append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self._words).split())

    def attributes(self, *names: str) -> list[str]:
        return [value or "" for _, found in self.tags for name, value in found.items() if name in names]


def bushy(depth: int, category: str = "dest") -> dict[str, Any]:
    """A full tree with 2 ** (depth + 1) - 1 nodes that splits on 300 categories and a number in turn."""
    names = [f"{category} {index:03d}" for index in range(300)]
    encoding = {name: 0.1 + index / 1000 for index, name in enumerate(names)}
    nodes: list[dict[str, Any]] = []

    def grow(level: int, low: int, high: int, rows: int) -> int:
        node: dict[str, Any] = {"id": len(nodes), "depth": level, "rows": rows, "probability": 0.1 + low / 1000}
        nodes.append(node)
        if level == depth:
            return int(node["id"])
        if level % 2 or high - low < 2:
            node |= {"feature": "hour", "threshold": 12.5, "condition": "hour <= 12.5", "otherwise": "hour > 12.5"}
            halves = [(low, high), (low, high)]
        else:
            middle = (low + high) // 2
            node |= {"feature": "dest", "threshold": 0.1 + (middle - 0.5) / 1000, "categories": names[low:middle]}
            node |= {"condition": "-", "otherwise": "-"}
            halves = [(low, middle), (middle, high)]
        node["left"] = grow(level + 1, *halves[0], rows // 2)
        node["right"] = grow(level + 1, *halves[1], rows - rows // 2)
        return int(node["id"])

    grow(0, 0, len(names), 1_000_000)
    tree = copy.deepcopy(TREE) | {"nodes": nodes}
    tree["features"][1]["encoding"] = encoding
    return tree


class Buckets(Platform):
    """A platform whose buckets are a dictionary: {(output, key): document}."""

    def __init__(self, documents: dict[tuple[Output, str], dict[str, Any]]) -> None:
        super().__init__("dev")
        self._documents = documents

    def json_object(self, bucket: Output, key: str) -> dict[str, Any] | None:
        return self._documents.get((bucket, key))

    def uri(self, bucket: Output, key: str) -> str:
        return f"s3://{bucket.value}/{key}"


def left_behind(run: str = RUN) -> dict[tuple[Output, str], dict[str, Any]]:
    return {
        (Output.MODELS_BUCKET, f"nyc_flights/{run}/metrics.json"): METRICS | {"run_id": run},
        (Output.MODELS_BUCKET, f"nyc_flights/{run}/tree.json"): TREE,
        (Output.MODELS_BUCKET, f"nyc_flights/{run}/gate.json"): GATE,
        (Output.LAKE_BUCKET, f"nyc_flights/runs/{run}/prepare.json"): PREPARED,
    }


@pytest.mark.parametrize("task", PAGES)
def test_page_should_refer_to_nothing_outside_itself(task: str) -> None:
    html = page(*PAGES[task], drift=DRIFT)
    found = Reader(html)
    assert "//" not in re.sub(r"s3://", "", html), "no address of any kind"
    assert all(link.startswith(("#", "data:,")) for link in found.attributes("href", "src", "srcset", "action", "data"))
    assert not {"script", "iframe", "object", "embed", "img", "form"} & {tag for tag, _ in found.tags}
    assert not re.search(r"url\(|@import|@font-face", "".join(found.styles))
    assert any("default-src 'none'" in content for content in found.attributes("content"))


@pytest.mark.parametrize("task", PAGES)
def test_sections_should_be_linked_at_the_top_of_the_page(task: str) -> None:
    found = Reader(page(*PAGES[task]))
    sections = {attributes["id"] for tag, attributes in found.tags if tag == "section"}
    assert {f"#{section}" for section in sections} == {link for link in found.attributes("href") if link[0] == "#"}


def test_links_should_lead_to_places_on_the_page() -> None:
    found = Reader(page(tree=bushy(7)))
    targets = {link[1:] for link in found.attributes("href") if link.startswith("#")}
    places = found.attributes("id")
    assert len(targets) > 16, "a link for each section and for each box with a branch below"
    assert targets <= set(places)
    assert len(places) == len(set(places))


def test_page_should_name_the_dataset_the_run_and_what_made_it() -> None:
    text = Reader(page()).text
    for said in (
        f"nyc_flights {TITLE} How likely",
        f"Run {RUN} Trained 22 November 2026, 23:31 UTC Revision 73b906e Spark 3.5.6",
        "spark 3.5.6 python 3.11.7 numpy 2.4.6",
    ):
        assert said in text


@pytest.mark.parametrize("name", FIGURES)
def test_each_figure_should_stand_beside_that_of_guessing_and_the_one_out_of_time(name: str) -> None:
    text = Reader(page()).text
    held_out, guessing, later = (f"{figures[name]:.3f}" for figures in (FIGURES, BASE_FIGURES, LATER_FIGURES))
    assert f"{later} always guessing the base rate: {guessing} held-out rows: {held_out}" in text
    assert re.search(rf"{later} {guessing} \S+ {held_out} {guessing}", text)
    timeless = Reader(page(METRICS | {"out_of_time": None})).text
    assert f"{held_out} always guessing the base rate: {guessing}" in timeless


def test_page_should_say_which_figures_to_believe_for_what() -> None:
    text = Reader(page()).text
    assert "Believe the held-out figures when you compare two models" in text
    assert "Believe the out-of-time figures for what to expect of tomorrow" in text
    assert "learned from 2013-01 to 2013-10 was tested on 2013-11 to 2013-12" in text


def test_page_should_say_by_which_figures_the_tree_is_worse_than_guessing() -> None:
    text = Reader(page()).text
    assert "worse than always guessing the base rate by log loss, Brier, accuracy" in text
    assert "On later rows (2013-11 to 2013-12) no better than always guessing the base rate: log loss" in text
    better = Reader(page(METRICS | {"out_of_time": METRICS["out_of_time"] | FIGURES})).text
    assert "worse than always guessing" not in better
    assert "On later rows (2013-11 to 2013-12) better than always guessing the base rate: log loss" in better


def test_page_should_say_so_when_the_dataset_has_no_time() -> None:
    text = Reader(page(METRICS | {"out_of_time": None})).text
    assert "There is no out-of-time check" in text
    assert "2013-11" not in text


def test_tree_should_show_condition_rows_and_probability_of_every_node_of_its_first_levels() -> None:
    text = Reader(page()).text
    for condition, share, rows in (
        ("all rows", "24.0%", "1,000"),
        ("hour <= 14.5", "10.0%", "600"),
        ("hour > 14.5", "45.0%", "400"),
        ("dest in {ATL, BOS}", "5.0%", "400"),
        ("dest in {CLT}", "20.0%", "200"),
        ("hour <= 18.5", "30.0%", "150"),
        ("hour > 18.5", "54.0%", "250"),
    ):
        assert f"{condition} {share} {rows} rows" in text


def test_lines_of_the_tree_should_be_as_thick_as_the_rows_are_many() -> None:
    widths = {edge.width for edge in built(TREE).picture().edges}
    assert widths == {24.0, 16.0, 8.0, 6.0, 10.0}  # of 600 and 400, then 400, 200, 150 and 250 rows of 1,000


def test_colour_should_part_the_likely_from_the_unlikely_at_the_base_rate() -> None:
    def tone(share: float) -> int:
        return outcome(TREE, METRICS).tone({"probability": share})

    assert [tone(share) for share in (0.0, 0.24, 1.0)] == [0, 5, 10]
    assert tone(0.1) < 5 < tone(0.45)


def test_conditions_on_one_feature_should_be_drawn_together_on_the_way_to_a_leaf() -> None:
    tree = built(TREE)
    likely, unlikely = tree.extremes(1)
    assert likely[0].conditions == ["hour > 18.5"]
    assert unlikely[0].conditions == ["hour <= 14.5", "dest in {ATL, BOS}"]
    assert tree.rule(tree.root.children[1].children[0]).conditions == ["14.5 < hour <= 18.5"]


def test_a_small_leaf_should_not_pass_for_the_surest() -> None:
    tree = copy.deepcopy(TREE)
    tree["nodes"][5] |= {"rows": 2, "probability": 1.0}
    assert built(tree).extremes(1)[0][0].branch.id == 6


def test_missing_values_should_be_told_on_the_side_that_they_go_to() -> None:
    tree = copy.deepcopy(TREE)
    tree["features"][1] |= {"missing": 0.15, "missing_rows": 9}
    known = {"feature": "precip", "threshold": -5e299, "condition": "precip is missing", "otherwise": "precip is known"}
    tree["nodes"][4] |= known
    root = built(tree).root
    early, late = (branch.children for branch in root.children)
    assert early[0].condition.medium == "dest in {ATL, (missing), BOS}"
    assert early[1].condition.short == "dest in {CLT}"
    rules = [built(tree).rule(branch).conditions[-1] for branch in late]
    assert rules == ["precip is missing", "precip is known"]


def test_a_long_set_of_categories_should_be_cut_and_counted() -> None:
    left, right = built(bushy(2)).root.children
    assert left.condition.short == "dest in {dest 000, … +149}"
    assert right.condition.short == "dest in {dest 299, … +149}"


def test_all_but_a_few_categories_should_be_told_by_the_few() -> None:
    tree = bushy(1)
    tree["nodes"][0]["categories"] = [f"dest {index:03d}" for index in range(299)]
    left, right = built(tree).root.children
    assert left.condition.short == "dest not in {dest 299}"
    assert right.condition.short == "dest in {dest 299}"


def test_deep_branches_should_be_told_below_the_picture() -> None:
    found = Reader(page(tree=bushy(6)))
    boxes = [attributes for tag, attributes in found.tags if tag == "g" and "box" in (attributes.get("class") or "")]
    assert len(boxes) == 31, "levels 0 to 4"
    assert found.text.count("4 leaves \N{SINGLE RIGHT-POINTING ANGLE QUOTATION MARK}") == 16
    outline = sum(
        tag in ("summary", "p") and re.match(r"p\d", attributes.get("class") or "") is not None
        for tag, attributes in found.tags
    )
    assert outline == 16 + 32 + 64, "the branches of level 4, and every node below them"


def test_page_should_stay_small_for_a_tree_of_four_thousand_nodes() -> None:
    tree = bushy(11, "A destination with a rather long name")
    assert len(tree["nodes"]) == 4095
    assert len(page(tree=tree).encode()) < WELL_UNDER_ONE_MEGABYTE


def test_page_should_stay_small_and_say_what_it_leaves_out_for_any_tree() -> None:
    html = page(tree=bushy(12))
    assert len(html.encode()) < WELL_UNDER_ONE_MEGABYTE
    assert html.count("<b>") < OUTLINE_NODES + 200
    assert re.search(r"… \d+ leaves, \d+% to \d+%", Reader(html).text)


def test_text_from_the_data_should_never_become_markup() -> None:
    hostile = "<script>alert('x')</script>\"><img src=x onerror=y>"
    tree = json.loads(json.dumps(TREE).replace("BOS", json.dumps(hostile)[1:-1]))
    tree["positive"] = tree["features"][0]["name"] = tree["nodes"][0]["feature"] = tree["nodes"][4]["feature"] = hostile
    for node in (tree["nodes"][0], tree["nodes"][4]):
        node["condition"], node["otherwise"] = f"{hostile} <= 14.5", f"{hostile} > 14.5"
    prepared = PREPARED | {"tables": {hostile: PREPARED["tables"]["flights"]}, "left_out": {hostile: 5}}
    gate = GATE | {"checks": [{"name": hostile, "passed": True, "detail": hostile}], "current_run": hostile}
    metrics = METRICS | {"run_id": hostile, "revision": hostile, "settings": {hostile: hostile}}
    html = report.render(metrics, tree, gate, prepared, title=hostile)
    found = Reader(html)
    assert {"script", "img"}.isdisjoint(tag for tag, _ in found.tags)
    assert not found.attributes("onerror")
    assert hostile in unescape(html)


@pytest.mark.parametrize("value", [None, float("nan"), float("inf")])
def test_a_figure_that_is_not_known_should_be_a_dash(value: float | None) -> None:
    metrics = copy.deepcopy(METRICS)
    metrics["test"]["pr_auc"] = metrics["baseline"]["brier"] = metrics["out_of_time"]["auc"] = value
    metrics["revision"] = ""
    metrics["settings"] = {"time": None, "nested": {"list": []}}
    text = Reader(page(metrics)).text
    assert "\N{EN DASH} always guessing the base rate: 0.500" in text
    assert not re.search(r"\b(nan|none|inf|undefined|null)\b", text, re.IGNORECASE)


@pytest.mark.parametrize("task", PAGES)
def test_page_of_a_whole_run_should_have_no_word_of_a_missing_value(task: str) -> None:
    html = page(*PAGES[task])
    assert not re.search(
        r"\b(NaN|nan|None|Infinity|inf|undefined)\b",
        unescape(re.sub(r"default-src 'none'|<style>.*?</style>", "", html, flags=re.DOTALL)),
    )


@pytest.mark.parametrize("task", PAGES)
def test_a_tree_of_one_leaf_should_still_make_a_page(task: str) -> None:
    metrics, tree = PAGES[task]
    text = Reader(page(metrics, tree | {"nodes": [tree["nodes"][2] | {"id": 0, "depth": 0}]})).text
    assert "The tree is a single leaf" in text


def test_curves_should_have_their_diagonal_threshold_and_row_counts() -> None:
    html = page()
    text = Reader(html).text
    assert html.count('class="diagonal"') == 2
    assert text.count("threshold 0.5") == 2, "on the curve, and among the settings"
    assert "rows of each group: 6,399 to 6,655" in text
    assert "5.0% 8.0% 6,399" in text


def decided(**asked: float) -> dict[str, Any]:
    """metrics.json of a model with a threshold of its own; of 65,359 rows 15,525 are positive."""
    test = {"rows": 65359, "positives": 15525, "called": 7104, "misses": 10761, "false_alarms": 2340}
    test |= {"recall": 0.307, "precision": 0.671}
    curve = [[0.01, 0.0, 49834.0], [0.3, 10761.0, 2340.0], [0.4, 15000.0, 20.0], [0.7, 15525.0, 0.0]]
    if "cost_of_miss" in asked:
        test |= {"cost": 56145.0, "cost_of_never": 77625.0, "cost_of_always": 49834.0}
    says = ["A row is called positive from a probability of 0.3 on.", "Of 65,359 held-out rows 7,104 are."]
    own = {"asked": asked, "threshold": 0.3, "test": test, "validation": {"rows": 65359}, "says": says}
    curves = {"curve": curve, "validation_curve": curve[1:]}
    return METRICS | {"threshold": 0.3, "calls": says, "decision": own | curves | {"out_of_time": None}}


@pytest.mark.parametrize(
    "asked", [{"cost_of_miss": 5.0, "cost_of_false_alarm": 1.0}, {"recall": 0.3}, {"precision": 0.9}]
)
def test_a_threshold_that_was_chosen_should_be_marked_on_its_curve(asked: dict[str, float]) -> None:
    metrics = decided(**asked)
    html = page(metrics)
    text = Reader(html).text
    assert "A row is called positive from a probability of 0.3 on. Of 65,359 held-out rows 7,104 are." in text
    assert "chosen 0.3" in text
    drawn = charts.calls(metrics)
    assert drawn is not None
    assert [tick.label for tick in drawn.across] == ["0%", "10%", "20%", "30%", "40%"], "as far as there are any"
    place = charts.LEFT + charts.SIDE * 0.3 / 0.4
    assert drawn.chosen == (pytest.approx(place), "0.3")
    heights = [(charts.TOP + charts.SIDE - y) / charts.SIDE for _, y in drawn.dots]
    if "cost_of_miss" in asked:
        assert "What errors cost by threshold" in text
        assert [line.label for line in drawn.lines if line.label] == ["never calling", "always calling"]
        assert drawn.up[-1].label == "1.5k", "never calling costs 1,188 of 1,000 rows"
        assert heights == [pytest.approx(56145 / 65.359 / 1500)]
        assert f"{place:.1f} {drawn.dots[0][1]:.1f}" in drawn.lines[1].path
    else:
        assert "Recall and precision by threshold" in text
        assert [line.label for line in drawn.lines] == ["recall", "precision", f"{next(iter(asked))} wanted"]
        assert heights == pytest.approx([0.307, 0.671])
    assert charts.calls(METRICS) is None


def test_confusion_matrix_should_be_told_in_words_too() -> None:
    text = Reader(page()).text
    assert "4,764 30.7% of 15,525" in text
    assert "Of 7,104 rows called yes, 67.1% were (precision)" in text


@pytest.mark.parametrize("task", PAGES)
def test_several_trees_should_make_a_page_that_says_why_none_is_drawn(task: str) -> None:
    metrics, tree = copy.deepcopy(PAGES[task])
    metrics["tree"] = {"trees": 120, "depth": 9, "leaves": 3500, "nodes": 6880}
    metrics["tuning"] = {
        "chosen": {"rounds": 40},
        "metric": "rmse" if task == "regression" else "log_loss",
        "rows": {"fitted": 750, "validated": 250},
        "tried": [{"rounds": n, "rmse": 7 - n / 50, "log_loss": n / 100} for n in (20, 40)],
        "sample": 0,
        "by": "hash",
        "leaderboard": [{"learner": x, "rmse": y, "log_loss": y} for x, y in (("boosted", 0.4), ("tree", 0.45))],
    }
    nodes = tree.pop("nodes")
    html = Reader(page(metrics, tree | {"format": 3, "link": "softmax", "base": [0.0], "trees": [{"nodes": nodes}]}))
    assert "120 trees of 3,500 leaves together, added up, learned from 1,000 rows" in html.text
    assert "No tree is drawn: what this model says of a row is a sum over all 120 trees" in html.text
    assert "How the number of rounds was chosen" in html.text
    assert re.search(r"Learners that were tried.*boosted 0.4\S* tree 0.45", html.text)
    assert not re.search(r"\bthe tree\b", html.text, re.IGNORECASE)
    links = [link[1:] for link in html.attributes("href") if link.startswith("#")]
    assert set(links) <= set(html.attributes("id"))
    averaged = Reader(page(metrics, tree | {"format": 3, "link": "mean", "trees": [{"nodes": nodes}]}))
    assert "is the mean of what all 120 trees say of it" in averaged.text


def test_a_tree_that_never_says_yes_should_have_no_precision() -> None:
    metrics = METRICS | {"test": METRICS["test"] | {"confusion": {"tp": 0, "fp": 0, "tn": 90, "fn": 10}}}
    assert "Of 0 rows called yes, \N{EN DASH} were (precision)" in Reader(page(metrics)).text


def test_rows_in_quarantine_should_be_those_of_the_main_table_in_its_bar() -> None:
    text = Reader(page()).text
    assert "9,430 left out: no arrival delay (cancelled or diverted) 12.4%" in text
    assert "5 in quarantine <0.1%" in text
    assert "weather 26,115 3" in text
    assert "336,776 rows in, 327,341 out as features" in text


def test_page_should_say_so_when_preparing_left_nothing() -> None:
    assert "left no prepare.json" in Reader(page(prepared=None)).text


def test_gate_should_show_every_check_and_what_became_of_it() -> None:
    text = Reader(page()).text
    assert "Refused : the current model stays" in text
    assert "passed better than the base rate log loss 0.4803, base rate 0.5486" in text
    assert "refused not worse than the current model log loss 0.4803, run-7 has 0.4711" in text
    assert "not been asked" in Reader(page(gate=None)).text


def test_phases_should_follow_each_other_and_the_total_should_be_told() -> None:
    text = Reader(page()).text
    assert "session 3.4 s read 4.7 s encode 10.9 s fit 9.8 s out of time 18.2 s save 1.9 s" in text
    assert "training in all 48.9 s preparing before it 10.6 s" in text


def test_write_should_put_a_page_of_the_current_model_into_the_folder(tmp_path: Path) -> None:
    documents = left_behind() | {(Output.MODELS_BUCKET, "nyc_flights/CURRENT.json"): {"run_id": RUN}}
    written = report.write(Buckets(documents), "nyc_flights", None, folder=tmp_path / "new" / "reports")
    assert written == tmp_path / "new" / "reports" / f"nyc_flights-{RUN}.html"
    assert TITLE in Reader(written.read_text(encoding="utf-8")).text


def test_write_should_take_the_run_that_is_asked_for(tmp_path: Path) -> None:
    documents = left_behind("run-8") | {(Output.MODELS_BUCKET, "nyc_flights/CURRENT.json"): {"run_id": RUN}}
    assert "run-8" in report.write(Buckets(documents), "nyc_flights", "run-8", folder=tmp_path).read_text()


def test_write_should_say_the_way_out_when_there_is_no_current_model(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no current model of nyc_flights yet.*dml run nyc_flights"):
        report.write(Buckets({}), "nyc_flights", None, folder=tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["metrics.json", "tree.json"])
def test_write_should_name_what_a_run_did_not_leave(name: str, tmp_path: Path) -> None:
    documents = left_behind()
    del documents[Output.MODELS_BUCKET, f"nyc_flights/{RUN}/{name}"]
    with pytest.raises(UserError, match=rf"{RUN} of nyc_flights left no {name}.*dml status"):
        report.write(Buckets(documents), "nyc_flights", RUN, folder=tmp_path)


def test_a_matrix_should_say_what_is_called_whatever_rows_counted_for() -> None:
    """By a column of weights the class of the largest probability is called, as without; by classes' weights not."""
    column = MULTICLASS | {"calls": ["A row counted as much as size says."]}
    text = " ".join(Reader(page(column, CLASS_TREE)).text.split())
    assert "as size says. What it calls, the class with the largest probability, on the held-out rows." in text
    told = {
        "class_weights": {"a": 2.0},
        "calls": ["A row is called the class whose probability, times its weight, is it."],
    }
    text = " ".join(Reader(page(MULTICLASS | told, CLASS_TREE)).text.split())
    assert "times its weight, is it. On the held-out rows." in text


@pytest.mark.parametrize(("key", "title"), [("auc", "AUC"), ("log_loss", "log loss"), ("macro_f1", "macro F1")])
def test_figures_of_classes_should_stand_beside_class_shares_and_the_current_model(key: str, title: str) -> None:
    text = Reader(page(MULTICLASS, CLASS_TREE)).text
    own, guessing, current = (f"{figures[key]:.3f}" for figures in (CLASS_FIGURES, CLASS_SHARES, CLASS_CURRENT))
    assert f"{title} {own} always guessing the class shares: {guessing}" in text
    assert re.search(rf"{title} {own} {guessing} \S+% {current}", text)
    assert "that of run-7 on the same held-out rows" in text


def test_the_interval_should_stand_at_the_main_metric_alone() -> None:
    assert Reader(page()).text.count("95% interval") == 0
    text = Reader(page(MULTICLASS, CLASS_TREE)).text
    assert "0.988 95% interval: 0.651 to 0.753" in text
    assert text.count("95% interval") == 1


def test_nodes_should_say_the_most_likely_class_with_its_share() -> None:
    text = Reader(page(MULTICLASS, CLASS_TREE)).text
    for condition, says in (("all rows", "pine 60%"), ("hour <= 14.5", "aspen 50%"), ("hour > 14.5", "pine 80%")):
        assert f"{condition} {says}" in text


def test_colour_should_tell_the_class_and_how_sure_the_node_is_of_it() -> None:
    told = outcome(CLASS_TREE, MULTICLASS)
    tones = [told.tone({"probabilities": shares}) for shares in ([0.1, 0.5, 0.4], [0.0, 0.9, 0.1], [0.9, 0.1, 0.0])]
    assert tones == [1, 2, 5], "pine is the most frequent, so it has the first colour; aspen the second"
    css = "".join(Reader(page(MULTICLASS, CLASS_TREE)).styles)
    assert re.search(r"\.p8 \{ --p: color-mix\(in srgb, var\(--c2\) 100%", css)
    assert ".p9 { --p: color-mix" not in css


def test_rare_classes_should_share_one_colour() -> None:
    shares = [0.3, *[0.05] * 14]
    tree = saying("probabilities", *[shares] * 7, task="multiclass", classes=[f"class {i}" for i in range(15)])
    told = outcome(tree, MULTICLASS)
    assert told.legend()[-1] == "7 other classes"
    assert told.tone({"probabilities": [0.0] * 8 + [1.0] + [0.0] * 6}) == told.tone(
        {"probabilities": [0.0] * 14 + [1.0]}
    )


def test_each_class_should_have_its_surest_leaf_even_if_that_says_another() -> None:
    text = Reader(page(MULTICLASS, CLASS_TREE)).text
    assert "pine 60.0% 95.0% 150 14.5 < hour <= 18.5" in text
    assert "aspen 30.0% 70.0% 400 hour <= 14.5 and dest in {ATL, BOS}" in text
    assert "willow its leaf says pine 10.0% 16.0% 250 hour > 18.5" in text


def test_confusion_matrix_of_classes_should_have_recall_precision_and_the_worst_mistake() -> None:
    text = Reader(page(MULTICLASS, CLASS_TREE)).text
    assert "aspen 30 28 2 60 50.0% 83.3%" in text
    assert "pine 5 115 · 120 95.8% 71.0%" in text
    assert "Most often mistaken: aspen called pine (28 rows)" in text


def test_the_rarest_of_many_classes_should_be_drawn_together() -> None:
    count = 40
    confusion = [[100 - actual if actual == called else 1 for called in range(count)] for actual in range(count)]
    matrix = charts.matrix([f"class {i}" for i in range(count)], confusion)
    assert len(matrix.names) == len(matrix.rows) == 16
    assert (matrix.names[-1], matrix.folded) == ("25 others", 25)
    assert sum(cell.rows for row in matrix.rows for cell in row.cells) == sum(map(sum, confusion))
    assert matrix.rows[-1].cells[-1].verdict == "mixed"


def test_roc_and_lift_should_be_of_binary_tasks_only() -> None:
    lift = [{"share": 0.05, "rows": 3268, "rate": 0.74, "lift": 3.1, "found": 0.155}]
    assert "first 5% 3,268 74.0% 3.10 15.5%" in Reader(page(METRICS | {"lift": lift})).text
    for task in ("multiclass", "regression"):
        text = Reader(page(*PAGES[task])).text
        assert "ROC" not in text
        assert "Lift" not in text
        assert "threshold" not in text


def test_slices_that_are_worse_than_guessing_should_be_pointed_out() -> None:
    text = Reader(page(MULTICLASS, CLASS_TREE)).text
    assert "Worse than guessing for 1 of 2 values: soil peat (50 rows)" in text
    assert "clay 150 0.600 0.900 33% 0.800" in text
    assert "peat worse than guessing 50 1.200 1.100 \N{MINUS SIGN}9% 0.400" in text
    assert "better than guessing for each of the 1 value" in Reader(page(REGRESSION, VALUE_TREE)).text


def test_slices_of_binary_tasks_should_show_the_share_of_positives() -> None:
    one = {"value": "missing", "rows": 12, "rate": 0.25, "log_loss": 0.5, "accuracy": 0.75, "baseline": 0.625}
    assert "missing 12 25.0% 0.500 0.625 20% 0.750" in Reader(page(METRICS | {"slices": {"dest": [one]}})).text


def test_tuning_should_show_what_was_tried_and_mark_what_was_chosen() -> None:
    text = Reader(page(MULTICLASS, CLASS_TREE)).text
    assert "leaves of 50 or more leaves of 200 or more 8 0.7112 chosen 0.7223 12 0.7334 \N{EN DASH}" in text
    assert "on a part of the training side (250 rows; the trees learned from 750 others); lower is better" in text
    tuning = MULTICLASS["tuning"]
    tried = [{**one, "sampled": True} if one["min_leaf"] == 200 else one for one in tuning["tried"]]
    by_time = MULTICLASS | {"tuning": tuning | {"by": "time", "sample": 500, "tried": tried}}
    text = Reader(page(by_time, CLASS_TREE)).text
    assert "8 0.7112 chosen ~0.7223 12 0.7334" in text
    assert "on the latest days of the training side before the cut (250 rows; the trees learned from 750 before" in text
    assert "Figures with a ~ are of a sample of 500 rows, by which those leaf sizes dropped out." in text
    assert "How depth and leaf size were chosen" not in Reader(page()).text


def test_figures_of_a_regression_should_be_in_the_labels_unit_beside_the_mean() -> None:
    text = Reader(page(REGRESSION, VALUE_TREE)).text
    held_out = "held-out rows: 38.12 95% interval there: 36.50 to 39.75"
    assert f"RMSE in minutes 44.50 always guessing the mean: 42.50 {held_out}" in text
    assert "RMSE, minutes 44.50 42.50 \N{MINUS SIGN}5% 38.12 41.38 8%" in text
    dash, minus = "\N{EN DASH}", "\N{MINUS SIGN}"
    assert f"bias, minutes 9.500 0.5000 {dash} {minus}0.5250 0.5125 {dash}" in text, "no way leads to a bias of 0"
    assert "worse than always guessing the mean by RMSE, R²" in text


def test_nodes_of_a_regression_should_say_values_coloured_against_the_mean() -> None:
    text = Reader(page(REGRESSION, VALUE_TREE)).text
    assert "all rows 7 1,000 rows" in text
    assert "hour <= 14.5 \N{MINUS SIGN}3.250 600 rows" in text
    told = outcome(VALUE_TREE, REGRESSION)
    assert [told.tone({"value": value}) for value in (-1000, 7.0, 1000)] == [0, 5, 10]
    assert told.tone({"value": -8.5}) < 5 < told.tone({"value": 27.7})


def test_highest_and_lowest_values_should_be_told_and_small_leaves_not_pass_for_them() -> None:
    text = Reader(page(REGRESSION, VALUE_TREE)).text
    assert re.search(r"Highest Value Rows When 27\.70 250 hour > 18\.5", text)
    assert re.search(r"Lowest Value Rows When \N{MINUS SIGN}8\.500 400 hour <= 14\.5", text)
    tree = copy.deepcopy(VALUE_TREE)
    tree["nodes"][5] |= {"rows": 2, "value": 40.0}
    assert built(tree, REGRESSION).extremes(1)[0][0].branch.id == 6


def test_calibration_of_a_regression_should_be_in_the_labels_unit_and_reach_below_zero() -> None:
    curve = charts.calibration(REGRESSION["calibration"], "regression")
    assert [tick.label for tick in curve.ticks] == ["\N{MINUS SIGN}10", "0", "10", "20", "30", "40"]
    assert [tick.at for tick in curve.ticks] == pytest.approx([0, 0.2, 0.4, 0.6, 0.8, 1])
    assert all(charts.LEFT <= dot.x <= charts.LEFT + charts.SIDE for dot in curve.dots)
    assert "\N{MINUS SIGN}5.500 \N{MINUS SIGN}4.250 90" in Reader(page(REGRESSION, VALUE_TREE)).text


@pytest.mark.parametrize("value", [0.0, 3.5, -2e-7, 250_000.0])
def test_calibration_of_one_value_should_still_have_a_scale(value: float) -> None:
    curve = charts.calibration([{"predicted": value, "observed": value, "rows": 9}], "regression")
    assert len(curve.ticks) >= 2
    assert charts.LEFT <= curve.dots[0].x <= charts.LEFT + charts.SIDE


def test_both_sides_of_the_split_should_show_the_label_of_the_task() -> None:
    assert "pine 600 60.0% 120 60.0%" in Reader(page(MULTICLASS, CLASS_TREE)).text
    assert "training 1,000 7 40 \N{MINUS SIGN}86 1,272" in Reader(page(REGRESSION, VALUE_TREE)).text
    assert "training 1,000 240 24.0%" in Reader(page()).text


def test_drift_should_name_what_moved_most_first_and_skip_what_is_not_known() -> None:
    text = Reader(page(drift=DRIFT)).text
    assert (
        "Feature PSI Verdict Moves the mean score by hour 0.310 large \N{MINUS SIGN}0.031 (cat) dest 0.020 stable "
        "precip \N{EN DASH} \N{EN DASH}"
    ) in text
    assert "Over all: large" in text
    assert "PSI" not in Reader(page()).text


def test_write_should_show_the_drift_that_a_run_left(tmp_path: Path) -> None:
    documents = left_behind() | {(Output.MODELS_BUCKET, f"nyc_flights/{RUN}/drift.json"): DRIFT}
    written = report.write(Buckets(documents), "nyc_flights", RUN, folder=tmp_path)
    assert "hour 0.310 large" in Reader(written.read_text(encoding="utf-8")).text


EXPLAINED: dict[str, Any] = {
    "permutation": {
        "metric": "log_loss",
        "log_loss": 0.48,
        "rows": 900,
        "repeats": 3,
        "features": [
            {"feature": "hour", "increase": 0.0641, "deviation": 0.0021},
            {"feature": "dest", "increase": -0.0004, "deviation": 0.0011},
        ],
    },
    "dependence": [
        {
            "feature": "hour",
            "kind": "number",
            "of": [""],
            "points": [
                {"value": 6.0, "rows": 100, "says": [0.12]},
                {"value": 21.0, "rows": 100, "says": [0.41]},
                {"value": None, "rows": 7, "says": [0.3]},
            ],
        },
        {
            "feature": "dest",
            "kind": "category",
            "of": [""],
            "points": [
                {"value": "BOS", "rows": 500, "says": [0.2]},
                {"value": "<b>", "rows": 5, "says": [0.25]},
            ],
        },
    ],
    "examples": {
        "unit": "probability",
        "rows": [
            {
                "which": "highest",
                "keys": {"flight": 7},
                "says": 0.92,
                "called": None,
                "observed": 1.0,
                "reasons": [
                    {"feature": "hour", "value": 21, "effect": 0.31},
                    {"feature": "dest", "value": None, "effect": -0.05},
                ],
                "expected": 0.24,
                "rest": 0.42,
            }
        ],
    },
}


def seen(html: str) -> str:
    return " ".join(unescape(re.sub(r"<[^>]+>", " ", html)).split())


def test_what_the_model_looks_at_should_be_told_of_held_out_rows() -> None:
    text = seen(page(METRICS | EXPLAINED))
    assert "log loss without it" in text
    assert "+0.064 ± 0.002" in text
    assert "0.000 ± 0.001" in text  # no worse without
    assert "change hands among 900 held-out rows, 3 times" in text
    assert "Highest : 92.0% because hour is 21 (+0.310), dest is missing (\N{MINUS SIGN}0.050); all others" in text
    assert "It was so. (flight 7)" in text
    assert "without it" not in seen(page())


def test_dependence_should_be_drawn_on_one_scale_with_a_missing_value_apart() -> None:
    hour, dest = explained.dependences(METRICS | EXPLAINED)
    assert [tick.label for tick in hour.ticks] == ["10%", "20%", "30%", "40%", "50%"] == [t.label for t in dest.ticks]
    first, last = hour.points
    assert (first.x, last.x) == (charts.LEFT, charts.LEFT + explained.WIDTH)
    assert last.y == pytest.approx(charts.TOP + explained.HEIGHT * (1 - (0.41 - 0.1) / 0.4))
    assert hour.missing is not None
    assert hour.missing.x > last.x
    assert (hour.missing.says, [tick.label for tick in hour.values]) == ("30.0%", ["6", "21"])
    assert [point.share for point in dest.points] == pytest.approx([0.25, 0.375])
    html = page(METRICS | EXPLAINED)
    assert "&lt;b&gt;" in html
    assert 'style="width:25.0%"' in html


@pytest.mark.parametrize("task", ["multiclass", "regression"])
def test_examples_should_be_in_the_words_of_the_task(task: str) -> None:
    amounts = task == "regression"
    row = EXPLAINED["examples"]["rows"][0] | {
        **({"says": 812.5, "observed": 1234.0} if amounts else {"says": 0.75, "called": "cat", "observed": "dog"}),
        **({"rest": -20.5} if amounts else {"rest": 0.0}),
    }
    told = {"examples": {"unit": "", "rows": [row]}, "task": task}
    (one,) = explained.examples(told, {"unit": "EUR"})
    if amounts:
        assert one.sentence.startswith(
            "812.5 because hour is 21 (+0.3100), dest is missing (\N{MINUS SIGN}0.05000); all others"
        )
        assert (one.sentence.endswith("together \N{MINUS SIGN}20.50"), one.observed) == (True, "it was 1,234 EUR")
    else:
        assert one.sentence == "cat 75.0% because hour is 21 (+0.310), dest is missing (\N{MINUS SIGN}0.050)"
        assert one.observed == "it was dog"


def test_columns_should_be_called_as_in_the_files() -> None:
    named = report.as_called({"hour": "Стунде", "dest": "行き先"}, METRICS | EXPLAINED, TREE, DRIFT)
    html = page(named[0], named[1], drift=named[2])
    for shown, name in (("Стунде", "hour"), ("行き先", "dest")):
        assert html.count(shown) > 3
        assert name not in html
    assert '<th scope="row">precip' in html
    assert METRICS["importances"][0]["feature"] == "hour"
