"""What `dml dataset remove` may take away: a dataset, and nothing that datasets share."""

from types import SimpleNamespace

import pytest

from dml.errors import UserError
from dml.estate import remove


@pytest.mark.parametrize("name", ["workbench", "network", "data", "pipeline", "etl", "nyc-flights"])
def test_no_stack_that_datasets_share_should_be_removed(name: str) -> None:
    platform = SimpleNamespace(datasets=["nyc_flights"])  # asked for nothing else
    with pytest.raises(UserError, match=f"^{name} is no dataset's name; deployed are: nyc_flights"):
        remove.plan(platform, name, data=True, say=lambda text: None)  # type: ignore[arg-type]
