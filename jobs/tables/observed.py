"""Figures of the rows of a query that are found out while it runs, beside what it is run for."""

import uuid
from typing import Any, Dict

from pyspark.sql import Column, DataFrame, Observation


class Seen:
    """What the first query to run with these rows in it has seen of them."""

    def __init__(self) -> None:
        self._name = f"seen_{uuid.uuid4().hex}"
        self._observation = Observation(self._name)

    def of(self, rows: DataFrame, /, **figures: Column) -> DataFrame:
        """The rows, observed. `figures`: aggregates over them, by the names they are told by. Once."""
        return rows.observe(self._observation, *[figure.alias(name) for name, figure in figures.items()])

    def told(self, plan: str) -> Dict[str, Any]:
        """The figures, once the query has run; none if Spark has left the rows out of it.

        `plan`: the query as optimised (`plan_of`). Of what is not in there nothing is ever observed, and Spark's own
        Observation would wait for it without end.
        """
        if f"CollectMetrics {self._name}," not in plan:
            return {}
        figures: Dict[str, Any] = self._observation.get
        return figures


def plan_of(query: DataFrame) -> str:
    """A query as Spark's optimiser leaves it."""
    plan: str = query._jdf.queryExecution().optimizedPlan().toString()
    return plan
