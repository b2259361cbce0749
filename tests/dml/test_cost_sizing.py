"""`dml cost --rows`: its model against the figures that the benchmark wrote, and what it recommends."""

import json
import re
import tomllib
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from datasets import load_dataset
from dml.cost import prices, sizing
from dml.errors import UserError
from jobs.errors import JobError
from jobs.learners import boosted
from stacks.settings import Cluster, Etl, executors_of, load_environment, overhead_mb

Run = Callable[..., tuple[int, str, str]]
TABLE = prices.load()
BENCHMARKS, COSTS = (Path(__file__).parents[2] / "docs" / name for name in ("benchmarks.md", "costs.md"))
# What docs/costs.md says of the model's errors.
END_TO_END_ERROR = 0.08
FIT_SECONDS_ERROR = 0.6


def measured() -> Iterator[tuple[int, int, int, float, float]]:
    """Rows, depth, cores, seconds of fit and of end to end, as docs/benchmarks.md has them."""
    text = BENCHMARKS.read_text(encoding="utf-8")
    for rows, depth, table in re.findall(r"## ([\d,]+) rows, depth (\d+)\n(.*?)(?=\n## )", text, re.DOTALL):
        found = re.search(r"\*\*this project\*\* \| ([\d.]+)(?: \([^)]*\))? \| ([\d.]+)", table)
        assert found
        yield int(rows.replace(",", "")), int(depth), 2, float(found[1]), float(found[2])
    one_core = text.partition("## From one core to all of them, depth 12")[2].partition("\n## ")[0]
    for rows, fit, end in re.findall(r"\| ([\d,]{5,}) \| ([\d.]+) [^|]*\|[^|]*\| ([\d.]+) ", one_core):
        yield int(rows.replace(",", "")), 12, 1, float(fit), float(end)


def test_the_model_should_give_the_measured_points_within_its_stated_error() -> None:
    points = list(measured())
    assert len(points) >= 6
    for rows, depth, cores, fit, end_to_end in points:
        where = f"{rows:,} rows, depth {depth}, {cores} cores: fit the constants of dml/cost/sizing.py again"
        assert sizing.train_seconds(rows, depth, cores) == pytest.approx(end_to_end, rel=END_TO_END_ERROR), where
        assert sizing.fit_seconds(rows, depth, cores) == pytest.approx(fit, abs=FIT_SECONDS_ERROR), where


def test_the_document_should_show_the_model_against_the_measured_points() -> None:
    told = re.sub(r" +", " ", COSTS.read_text(encoding="utf-8"))
    for rows, depth, cores, fit, end_to_end in measured():
        models = sizing.fit_seconds(rows, depth, cores), sizing.train_seconds(rows, depth, cores)
        row = rf"\| {rows:,} \| {depth} \| {cores} \| {fit}0* \| {models[0]:.2f} \| {end_to_end} \| {models[1]:.1f} \|"
        assert re.search(row, told), row


def test_the_other_learners_models_should_give_what_was_measured() -> None:
    """MLlib's tree within 10 %; of forests and boosted trees the one point each."""
    text = BENCHMARKS.read_text(encoding="utf-8")
    found = 0
    for rows, depth, table in re.findall(r"## ([\d,]+) rows, depth (\d+)\n(.*?)(?=\n## )", text, re.DOTALL):
        told = re.search(r"\| MLlib as tutorials write it \| ([\d.]+)", table)
        assert told
        model = sizing.fit_seconds(int(rows.replace(",", "")), int(depth), 2, "mllib")
        assert model == pytest.approx(float(told[1]), rel=0.10), rows
        found += 1
    assert found >= 6
    for learner, row in (("boosted", "boosted"), ("forest", r"forest \(MLlib's splits\)")):
        told = re.search(rf"\*\*this project\*\*, {row} \| [\d.-]+ \| ([\d.]+) \|", text)
        assert told
        assert sizing.fit_seconds(327_346, 12, 2, learner) == pytest.approx(float(told[1]), rel=0.03)


@pytest.mark.parametrize("learner", ["mllib", "forest", "boosted"])
def test_each_learner_should_be_sized_and_say_what_was_measured_of_it(dml: Run, learner: str) -> None:
    found = sizing.size(1e8, TABLE, within=600, learner=learner)
    assert found.pick.fits
    assert found.usd > sizing.size(1e8, TABLE, within=600).usd, "our own tree is the cheapest"
    assert found.as_json()["measured"] == sizing.LEARNERS[learner].points
    assert found.as_json()["extrapolated"] == pytest.approx(1e8 / sizing.LEARNERS[learner].rows)


def test_boosting_should_get_executors_that_hold_its_rows() -> None:
    found = sizing.size(1e9, TABLE, within=2000, learner="boosted")
    assert 0 < found.pick.needed_gib <= found.pick.overhead_gib
    executors = found.pick.workers * executors_of(found.pick.instance.name)
    overhead = overhead_mb([found.pick.instance.name])
    boosted.tasks_with_room(load_dataset("nyc_flights"), 10**9, sizing.FEATURES, executors, executors, 4, overhead)
    wide = sizing.size(1e9, TABLE, within=2000, learner="boosted", features=100)
    assert wide.pick.needed_gib <= wide.pick.overhead_gib
    assert wide.usd > found.usd


def test_of_several_classes_boosting_should_get_executors_and_time_for_a_tree_each(
    dml: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    penguins = load_dataset("penguins")
    numbers = tuple(f"n{i}" for i in range(20))
    many = replace(
        penguins,
        label=replace(penguins.label, classes=tuple(f"class {i}" for i in range(56))),
        features=replace(penguins.features, numbers=numbers, categories=()),
        training=replace(penguins.training, learner="boosted"),
        slices=(),
    )
    monkeypatch.setattr(sizing, "load_dataset", lambda name: many)
    task = sizing.task_of("penguins")
    assert (task["learner"], task["features"], task["outputs"]) == ("boosted", 20, 56)
    found = sizing.size(1e7, TABLE, within=600, **task)
    for choice in [each for each in found.choices if each.fits]:
        executors, overhead = choice.workers * executors_of(choice.instance.name), overhead_mb([choice.instance.name])
        assert boosted.tasks_with_room(many, 10**7, 20, 1, executors, 4, overhead) <= executors
    with pytest.raises(JobError, match="on 1 executor take 13,789 MB of each"):
        boosted.tasks_with_room(many, 10**7, 20, 1, 1, 4, overhead_mb(["m7g.xlarge"]))
    one = sizing.size(1e7, TABLE, within=600, **{**task, "outputs": 1})
    assert found.pick.usd > one.pick.usd
    of_one, of_all = (sizing.fit_seconds(1e7, 12, 8, "boosted", 20, outputs) for outputs in (1, 56))
    start = sizing.LEARNERS["boosted"].start
    assert of_all - start == pytest.approx(56 * (of_one - start))
    code, printed, _ = dml("cost", "--rows", "1e7", "--within", "600", "--dataset", "penguins")
    assert code == 0 and "20 features, 56 classes, within" in printed
    with pytest.raises(UserError, match=r"up to 100 nodes has the memory for 100,000,000,000 rows: leave out features"):
        sizing.size(1e11, TABLE, within=1e6, **task)


@pytest.mark.parametrize("learner", ["tree", "mllib", "forest"])
def test_a_tree_of_all_classes_should_take_no_longer_for_their_number(learner: str) -> None:
    assert sizing.fit_seconds(1e7, 8, 8, learner, 20, 56) == sizing.fit_seconds(1e7, 8, 8, learner, 20)


def test_where_executors_boost_spark_should_have_its_part_of_the_heap_that_is_left() -> None:
    """One m7g.xlarge: a heap of 4,444 MB, of which Spark reserves 300; 0.6 of the rest is its memory."""
    found = sizing.size(1e6, TABLE, within=600, learner="boosted")
    rooms = {(each.instance.name, each.workers): each.memory_gib for each in found.choices}
    assert rooms["m7g.xlarge", 1] == pytest.approx((4444 - 300) * 0.6 / 1024)
    assert rooms["m7g.2xlarge", 1] == pytest.approx(2 * (5212 - 300) * 0.6 / 1024)
    for each in found.choices:
        assert not replace(each, cached_gib=each.memory_gib * 1.01).fits
    tree = sizing.size(1e6, TABLE, within=600)
    assert {each.memory_gib / each.workers / each.instance.gib for each in tree.choices} == {sizing.CACHE_SHARE}


def test_the_dataset_should_say_what_learns(dml: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = load_dataset("nyc_flights")
    count = len(settings.features.names)
    monkeypatch.setattr(
        sizing, "load_dataset", lambda name: replace(settings, training=replace(settings.training, learner="best"))
    )
    code, printed, _ = dml("cost", "--rows", "1e8", "--within", "600", "--dataset", "nyc_flights")
    assert code == 0
    assert f"100,000,000 rows, boosted (100 rounds of depth 6), {count} features, within 600 minutes" in printed
    assert "GiB outside of Java in each executor" in printed
    assert "On paper: 31 times the 3,270,000 rows that were measured" in printed


def test_the_join_should_take_what_was_measured() -> None:
    found = re.search(r"\*\*this project\*\* \(Spark\) \| ([\d.]+)", BENCHMARKS.read_text(encoding="utf-8"))
    assert found
    assert sizing.prepare_seconds(336_776, 2) == pytest.approx(float(found[1]), rel=END_TO_END_ERROR)


def test_more_rows_should_never_be_cheaper_or_faster_on_the_same_nodes() -> None:
    found = [sizing.size(10.0**power, TABLE, within=240) for power in range(4, 10)]
    assert [each.usd for each in found] == sorted(each.usd for each in found)
    seconds = [sizing.train_seconds(10.0**power, 12, 8) for power in range(4, 10)]
    assert seconds == sorted(seconds)


def test_deeper_trees_and_fewer_cores_should_take_longer() -> None:
    assert sizing.train_seconds(1e8, 20, 8) > sizing.train_seconds(1e8, 5, 8) > sizing.train_seconds(1e8, 5, 16)


@pytest.mark.parametrize("rows", [1e5, 1e7, 1e9])
def test_the_pick_should_hold_the_rows_be_in_time_and_be_the_cheapest_of_its_market(rows: float) -> None:
    found = sizing.size(rows, TABLE, within=60)
    pick = found.pick
    assert pick.fits and pick.in_time and pick.minutes <= 60
    rivals = [each for each in found.choices if each.fits and each.in_time and each.spot == pick.spot]
    assert pick.usd == min(each.usd for each in rivals)


def test_a_small_task_should_get_one_node_and_no_spot() -> None:
    found = sizing.size(300_000, TABLE)
    assert (found.pick.workers, found.pick.spot, found.glue_workers) == (1, False, 2)


def test_rows_that_fill_memory_should_get_nodes_for_that_whatever_the_time() -> None:
    found = sizing.size(1e10, TABLE, within=6000)
    assert found.pick.cached_gib == pytest.approx(1e10 * sizing.CACHED_BYTES / 2**30)
    room = found.pick.instance.gib * sizing.CACHE_SHARE
    assert (found.pick.workers - 1) * room < found.pick.cached_gib <= found.pick.workers * room


def test_spot_that_saves_cents_should_be_left() -> None:
    found = sizing.size(1e9, TABLE)
    assert not found.pick.spot and "spot would save" in found.why
    assert any(each.spot and each.fits and each.in_time and each.usd < found.pick.usd for each in found.choices)


@pytest.mark.parametrize("rows", [1e5, 1e9, 1e10])
def test_the_settings_that_it_prints_should_be_ones_that_an_environment_takes(dml: Run, rows: float) -> None:
    _, printed, _ = dml("cost", "--rows", str(rows))
    told = tomllib.loads("\n".join(line for line in printed.splitlines() if re.match(r" +(etl|cluster)\.", line)))
    given = load_environment("dev").model_dump(mode="json")
    assert Cluster(**{**given["cluster"], **told["cluster"]}).maximum_nodes == sizing.size(rows, TABLE).pick.workers
    assert Etl(**{**given["etl"], **told["etl"]}).workers == sizing.size(rows, TABLE).glue_workers


def test_spot_should_be_picked_where_it_saves_enough() -> None:
    assert sizing.size(1e10, TABLE, within=60).pick.spot
    no_discount = TABLE.model_copy(update={"spot": TABLE.spot.model_copy(update={"price_share": 1.0})})
    assert not sizing.size(1e10, no_discount, within=60).pick.spot


def test_rows_that_must_be_done_sooner_should_get_more_nodes() -> None:
    assert sizing.size(1e10, TABLE, within=60).glue_workers > sizing.size(1e10, TABLE, within=600).glue_workers


@pytest.mark.parametrize(("rows", "within", "told"), [(1e9, 5, "--within 5 is too short"), (1e13, 60, "No cluster")])
def test_what_cannot_be_done_in_time_should_be_refused(rows: float, within: float, told: str) -> None:
    with pytest.raises(UserError, match=told):
        sizing.size(rows, TABLE, within=within)


def test_dml_cost_should_size_on_paper_and_say_how_far_it_is_from_what_was_measured(dml: Run) -> None:
    code, printed, _ = dml("cost", "--rows", "1e9")
    pick = sizing.size(1e9, TABLE).pick
    assert code == 0
    assert f"{pick.workers} core {pick.instance.name}" in printed
    assert "102 times" in printed and f"{TABLE.checked}" in printed
    code, printed, _ = dml("cost", "--rows", "1e9", "--json")
    assert json.loads(printed)["pick"]["core_nodes"] == pick.workers


@pytest.mark.parametrize(
    ("arguments", "code", "told"),
    [
        (("--assume", "gigabytes=1"), 1, "data_gb"),
        (("--env", "staging"), 1, "no environment 'staging'"),
        (("--markdown",), 2, "--against"),
        (("--rows", "0"), 1, "--rows"),
        (("--rows", "1e6", "--env", "dev"), 2, "--env"),
        (("--dataset", "penguins"), 2, "--rows"),
        (("--rows", "1e6", "--dataset", "nowhere"), 1, "nowhere"),
        (("--rows", "1e6", "--dataset", "penguins", "--depth", "12"), 2, "the dataset's own depth counts"),
    ],
)
def test_a_wrong_option_should_be_refused_with_the_way_out(
    dml: Run, arguments: tuple[str, ...], code: int, told: str
) -> None:
    ended, _, printed = dml("cost", *arguments)
    assert ended == code and told in printed
