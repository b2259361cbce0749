"""What a job says where it is given what no run writes."""

from typing import Any

import pytest

from jobs.errors import JobError
from jobs.models import registry
from jobs.tables import storage


@pytest.mark.parametrize("pointer", ["run-1", ["run-1"], {"run_id": "run-1"}, {"run_id": "run-1", "model": 1}, 7])
def test_a_pointer_to_no_model_should_be_told_with_what_stands_in_it(
    pointer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A text is what Step Functions once stored, as JSON in quotes."""
    monkeypatch.setattr(storage, "read_json", lambda _s3, _uri: pointer)
    with pytest.raises(JobError, match=r"s3://m/points/CURRENT.json is not what a run .* writes, but .*run-1|.*7"):
        registry.current_model(None, "s3://m/", "points")
