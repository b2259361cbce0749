"""What notes have at hand: trees in words, pictures, tables, and where a run's files lie."""

import xml.etree.ElementTree as ElementTree
from typing import Any

import pytest

from jobs.errors import JobError
from jobs.models.inputs import MISSING
from jobs.notes import here, pictures, show, trees

SVG = "{http://www.w3.org/2000/svg}"
NUMBER = {"name": "x", "kind": "number", "missing": MISSING, "missing_rows": 3}
COLOUR = {
    "name": "colour",
    "kind": "category",
    "encoding": {"red": 0.1, "green": 0.5, "<blue>": 0.9},
    "unseen": 0.4,
    "missing": 0.7,
    "missing_rows": 2,
}
MODEL = {"task": "binary", "features": [NUMBER, COLOUR]}
NODES = [
    {"id": 0, "depth": 0, "rows": 100, "feature": "x", "threshold": 5.0, "left": 1, "right": 2},
    {"id": 1, "depth": 1, "rows": 60, "probability": 0.25},
    {"id": 2, "depth": 1, "rows": 40, "feature": "colour", "threshold": 0.5, "left": 3, "right": 4},
    {"id": 3, "depth": 2, "rows": 30, "probability": 0.5},
    {"id": 4, "depth": 2, "rows": 10, "probability": 0.75},
]


@pytest.mark.parametrize(
    ("row", "conditions", "leaf"),
    [
        ({"x": 5, "colour": "red"}, ["x <= 5 or missing"], 1),
        ({"x": None, "colour": "red"}, ["x <= 5 or missing"], 1),
        ({"x": float("inf"), "colour": "red"}, ["x <= 5 or missing"], 1),
        ({"x": 5.1, "colour": "green"}, ["x > 5", "colour in green, red"], 3),
        ({"x": 5.1, "colour": "violet"}, ["x > 5", "colour in green, red"], 3),
        ({"x": 5.1, "colour": None}, ["x > 5", "colour in <blue>, missing"], 4),
    ],
)
def test_a_row_should_go_as_the_model_compares_it(row: dict[str, Any], conditions: list[str], leaf: int) -> None:
    steps = trees.path(MODEL, NODES, row)
    assert [step[0] for step in steps] == ["all rows", *conditions]
    assert steps[-1][2]["id"] == leaf


def test_a_condition_should_be_told_whether_a_node_has_it_or_not() -> None:
    own = {**NODES[0], "condition": "x is small", "otherwise": "x is large"}
    assert trees.conditions(own, MODEL) == ("x is small", "x is large")
    assert trees.conditions({**NODES[0], "threshold": MISSING / 2}, MODEL) == ("x is missing", "x is known")
    assert trees.conditions({**NODES[2], "threshold": 0.0}, MODEL) == (
        "colour is another value than training has seen",
        "colour in <blue>, green, red, missing",
    )
    many = {**COLOUR, "encoding": {f"c{i}": i / 10 for i in range(9)}, "missing_rows": 0}
    told, _ = trees.conditions({**NODES[2], "threshold": 0.75}, {"features": [many]})
    assert told == "colour in c0, c1, c2, c3, c4, c5, 2 more"


def test_what_a_node_says_should_be_in_the_labels_own_words() -> None:
    assert trees.said({"probability": 0.12345}, MODEL) == "0.123"
    assert trees.said({"probabilities": [0.2, 0.7, 0.1]}, {"classes": ["a", "b", "c"]}) == "b 0.70"
    leaf, classes = {"probabilities": [0.6, 0.3, 0.1]}, ["a", "b", "c"]
    assert trees.said(leaf, {"classes": classes, "weights": [1.0, 5.0, 1.0]}) == "b 0.30", "as it is called"
    assert trees.said({"probabilities": [0.5, 0.5, 0.0]}, {"classes": classes}) == "a 0.50", "the first of equals"
    assert trees.said({"value": 71.26}, {"unit": "years"}) == "71.26 years"
    assert trees.said({"feature": "x"}, MODEL) == "", "of several trees only leaves say something"


def test_a_picture_should_hold_whatever_a_name_is() -> None:
    drawn = ElementTree.fromstring(pictures.tree(MODEL, NODES))  # noqa: S314  # our own drawing
    titles = [box.findtext(f"{SVG}title") for box in drawn.findall(f"{SVG}g")]
    assert "colour in <blue>, missing | 0.750 | 10% of the rows" in titles
    assert len(titles) == 5
    shallow = pictures.tree(MODEL, NODES, depth=1)
    assert shallow.count("<g>") == 3
    assert "40% of the rows …" in shallow, "what lies below is hinted at"


@pytest.mark.parametrize(
    ("values", "axis", "ticks"),
    [
        ([(0.11, 0.09), (0.52, 0.56)], pictures.SHARE, ["0", "0.2", "0.4", "0.6"]),
        ([(48.0, 47.5), (79.0, 81.0)], "years", ["40", "50", "60", "70", "80", "90"]),
        ([(3.0, 3.0)], "years", ["3"]),
    ],
)
def test_a_calibration_should_have_round_ticks_that_hold_all_dots(
    values: list[tuple[float, float]], axis: str, ticks: list[str]
) -> None:
    points = [{"predicted": predicted, "observed": observed, "rows": 10} for predicted, observed in values]
    drawn = ElementTree.fromstring(pictures.calibration(points, axis))  # noqa: S314  # our own drawing
    texts = [text.text for text in drawn.findall(f"{SVG}text")]
    assert texts[: 2 * len(ticks) : 2] == ticks
    inside = range(pictures.LEFT, pictures.LEFT + pictures.SIDE + 1)
    assert all(round(float(dot.attrib["cx"])) in inside for dot in drawn.findall(f"{SVG}circle"))


def test_of_many_classes_the_most_frequent_should_be_drawn() -> None:
    counts = [[10 * (i == k) + i for k in range(20)] for i in range(20)]
    drawn = pictures.confusion([f"class {i}" for i in range(20)], counts)
    assert drawn.count("<rect") == 13 * 13
    assert ("class 19" in drawn, "class 0<" in drawn) == (True, False)


def test_a_table_should_be_one_whatever_stands_in_its_cells(capsys: pytest.CaptureFixture[str]) -> None:
    show.table(["a", "b"], [["x\ty\nz", None], [0.123456, 12345.678], [True, 12], [float("inf"), 1e-7]])
    print("after")
    assert capsys.readouterr().out == "%table a\tb\nx y z\t\n0.1235\t12346\nTrue\t12\n\t1e-07\n%text after\n"


class Nowhere:
    """A machine that says nothing of itself."""

    region_name = None

    def retrieve_region(self) -> None:
        """There is nobody to ask."""


def test_a_machine_that_knows_no_region_should_be_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(here.boto3.session, "Session", Nowhere)
    monkeypatch.setattr(here, "InstanceMetadataRegionFetcher", Nowhere)
    with pytest.raises(JobError, match="run the note on a cluster of the platform, or set AWS_REGION"):
        here.region()
