"""An environment's file that is wrong is refused in a sentence with its name, the setting, and what it may be."""

from itertools import pairwise
from pathlib import Path

import pytest
from pydantic import ValidationError

from stacks import settings
from stacks.settings import SettingsError, load_environment


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of environments with a copy of dev.toml in it."""
    (tmp_path / "dev.toml").write_text((settings.HOME / "dev.toml").read_text())
    monkeypatch.setattr(settings, "HOME", tmp_path)
    return tmp_path


def test_fleets_should_be_of_one_size_so_that_a_node_is_a_node(home: Path) -> None:
    change(home, 'layout = "groups"\n', 'layout = "fleets"\n')
    change(home, '"m7g.xlarge"', '"m7g.xlarge", "m6g.2xlarge"')
    with pytest.raises(SettingsError, match=r"instance_types are of different sizes \(2xlarge, xlarge\)"):
        load_environment("dev")


@pytest.mark.parametrize("name", ["dev", "prod"])
def test_a_shipped_environment_should_explain_each_of_its_settings(name: str) -> None:
    lines = (settings.HOME / f"{name}.toml").read_text().splitlines()
    explained = 0
    for before, line in pairwise(lines):
        if " = " in line and not line.startswith("#"):
            # A setting has a comment above it, or stands below others that one comment is about.
            explained += before.startswith("#") or " = " in before
    assert explained == sum(" = " in line and not line.startswith("#") for line in lines) > 20


def change(home: Path, before: str, after: str) -> None:
    text = (home / "dev.toml").read_text()
    assert before in text
    (home / "dev.toml").write_text(text.replace(before, after))


@pytest.mark.parametrize("name", ["dev", "prod"])
def test_the_shipped_environments_should_be_valid(name: str) -> None:
    assert load_environment(name).name == name


def test_settings_should_not_change_once_loaded() -> None:
    environment = load_environment("dev")
    with pytest.raises(ValidationError):
        environment.keep_data = True


def test_an_unknown_environment_should_be_refused_with_those_that_exist() -> None:
    with pytest.raises(SettingsError, match=r"no environment 'staging'; there are: dev, prod"):
        load_environment("staging")


@pytest.mark.parametrize(
    ("before", "after", "sentence"),
    [
        (
            "keep_data = false",
            "keep_dat = false",
            r"environments/dev.toml: keep_dat is not a setting; allowed here: keep_data",
        ),
        ("keep_data = false", "", r"environments/dev.toml: keep_data is missing"),
        (
            "workers = 2",
            'workers = "two"',
            r"environments/dev.toml: etl.workers is 'two': input should be a valid integer",
        ),
        ("workers = 2", "workers = 1", r"etl.workers is 1: input should be greater than or equal to 2"),
        (
            'egress = "nat"',
            'egress = "none"',
            r"network.egress is 'none': input should be 'nat', 'nat-per-zone' or 'endpoints'",
        ),
        ('cidr = "10.40.0.0/16"', 'cidr = "10.40.0.0/8"', r"network.cidr is '10.40.0.0/8': "),
        (
            "m7g.xlarge",
            "m5.xlarge",
            r"cluster: instance_types: m5.xlarge is x86, but processor is 'graviton'; that has",
        ),
        ("m7g.xlarge", "p4d.24xlarge", r"cluster: instance_types: p4d.24xlarge is none that EMR has Spark for"),
        ('"m7g.xlarge"', '"m7g.xlarge", "m6g.xlarge"', r'layout = "groups" takes one of instance_types; several need'),
        ('"m7g.xlarge"', "", r"cluster.instance_types is \[\]: "),
        ("spot_nodes = 0", "spot_nodes = 3", r"cluster: spot_nodes \(3\) may be 0 to 2: of maximum_nodes \(3\)"),
        ("spot_nodes = 0", "spot_nodes = 1", r'cluster: spot_nodes need layout = "fleets"'),
        (
            '"price-capacity-optimized"\n',
            '"cheapest"\n',
            r"cluster.spot_strategy is 'cheapest': input should be 'price-",
        ),
        (
            'layout = "groups"\n',
            'layout = "fleet"\n',
            r"cluster.layout is 'fleet': input should be 'groups' or 'fleets'",
        ),
        ("0 5 ? * MON *", "0 5 * * *", r"schedule.cron is '0 5 \* \* \*': six fields: minutes, hours"),
        ("0 5 ? * MON *", "0 5 * * MON *", r"schedule.cron is .*: either the day of month \(third field\) or"),
        (
            "monthly_usd = 50",
            "monthly_usd = -1",
            r"budget.monthly_usd is -1: input should be greater than or equal",
        ),
        (
            "spread_minutes = 240",
            "spread_minutes = 1141",
            r"schedule: spread_minutes \(1141\) from 5:00 on is past midnight",
        ),
        (
            'cron = "0 5 ? * MON *"',
            'cron = "0 5,17 ? * MON *"',
            r"schedule: spread_minutes needs a cron with one minute and",
        ),
        (
            "customer_key = false",
            'customer_key = "no"',
            r"encryption.customer_key is 'no': input should be a valid bool",
        ),
        ("in_transit = false", "", r"environments/dev.toml: encryption.in_transit is missing"),
        ("maximum_nodes = 3", "maximum_nodes = 0", r"cluster.maximum_nodes is 0: "),
        ("minimum_nodes = 1", "minimum_nodes = 9", r"cluster: maximum_nodes \(3\) is below minimum_nodes \(9\)"),
        ("keep_days = 14", "keep_days = 15", r"logs.keep_days is 15: input should be 7, 14, 30, 90, 180 or 365"),
        ('email = ""', 'email = "me"', r"notifications.email is 'me': "),
        ("keep_data = false", 'name = "dev"\nkeep_data = false', r"name: leave it out"),
        ("keep_data = false", "keep_data = ", r"environments/dev.toml is not valid TOML"),
    ],
)
def test_a_wrong_setting_should_be_refused_with_file_name_and_way_out(
    home: Path, before: str, after: str, sentence: str
) -> None:
    change(home, before, after)
    with pytest.raises(SettingsError, match=sentence):
        load_environment("dev")
