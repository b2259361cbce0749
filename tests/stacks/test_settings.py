"""An environment's file that is wrong is refused in a sentence with its name, the setting, and what it may be."""

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
            r"environments/dev.toml: keep_dat is not a setting; here these are: keep_data",
        ),
        ("keep_data = false", "", r"environments/dev.toml: keep_data is missing"),
        (
            "workers = 2",
            'workers = "two"',
            r"environments/dev.toml: etl.workers is 'two': input should be a valid integer",
        ),
        ("workers = 2", "workers = 1", r"etl.workers is 1: input should be greater than or equal to 2"),
        ('nat = "single"', 'nat = "none"', r"network.nat is 'none': input should be 'single' or 'per-zone'"),
        ('cidr = "10.40.0.0/16"', 'cidr = "10.40.0.0/8"', r"network.cidr is '10.40.0.0/8': "),
        ("m7g.xlarge", "m5.xlarge", r"cluster.instance_type is 'm5.xlarge': "),
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
