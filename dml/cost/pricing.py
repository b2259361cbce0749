"""Synthesizes, prices and compares environments; the screen is show.py's."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from dml.cost.assembly import Assembly, read, synthesize, synthesize_revision
from dml.cost.difference import Difference
from dml.cost.estimate import Estimate, estimate
from dml.cost.prices import Prices
from dml.errors import UserError


def estimates(environments: Sequence[str], prices: Prices) -> list[Estimate]:
    """Of this checkout as it lies here, uncommitted changes included. Raises UserError."""
    with ThreadPoolExecutor(2) as pool:
        return [estimate(assembly, prices) for assembly in pool.map(synthesize, environments)]


def differences(environments: Sequence[str], against: str, prices: Prices) -> list[Difference]:
    """This checkout against a git revision, or against a folder that cdk synth made. Raises UserError."""
    with ThreadPoolExecutor(2) as pool:
        before = [pool.submit(_earlier, against, name) for name in environments]
        after = [pool.submit(synthesize, name) for name in environments]
        return [
            Difference(against, estimate(old.result(), prices), estimate(new.result(), prices))
            for old, new in zip(before, after, strict=True)
        ]


def _earlier(against: str, environment: str) -> Assembly:
    folder = Path(against)
    if not folder.is_dir():
        return synthesize_revision(against, environment)
    found = {assembly.environment: assembly for assembly in read(folder)}
    if environment not in found:
        raise UserError(f"{folder} holds {', '.join(found)}, not {environment}: choose with --env.")
    return found[environment]


def require_known(found: Sequence[Estimate]) -> None:
    """Raises UserError if there are resources without a price: the totals are too low then."""
    unknown = dict.fromkeys(each.sentence for one in found for each in one.unknown)
    if unknown:
        raise UserError(
            f"The totals are too low: no price is known for {'; '.join(unknown)}. Add it to dml/cost/prices.toml and "
            "dml/cost/estimate.py, or to the types there that are free, with the reason."
        )
