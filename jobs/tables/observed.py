"""Figures of the rows of a query that are found out while it runs, beside what it is run for."""

import uuid
from typing import Any, Dict, Optional

from pyspark.sql import Column, DataFrame, Observation


class Seen:
    """What a query has seen of these rows, the first that runs with them in it."""

    def __init__(self) -> None:
        self._name = ""
        self._observation: Optional[Observation] = None

    def of(self, rows: DataFrame, /, **figures: Column) -> DataFrame:
        """The rows, observed. `figures`: aggregates over them, by the names they are told by.

        For each query anew, as Spark's Observation is for one query alone: `told` is of the last.
        """
        self._name = f"seen_{uuid.uuid4().hex}"
        self._observation = Observation(self._name)
        return rows.observe(self._observation, *[figure.alias(name) for name, figure in figures.items()])

    def told(self, plan: str) -> Dict[str, Any]:
        """The figures, once the query has run; none if Spark has left the rows out of it.

        `plan`: the query as optimised (`plan_of`). Of what is not in there nothing is ever observed, and Spark's own
        Observation would wait for it without end.
        """
        if self._observation is None or f"CollectMetrics {self._name}," not in plan:
            return {}
        figures: Dict[str, Any] = self._observation.get
        return figures


def plan_of(query: DataFrame) -> str:
    """A query as Spark's optimiser leaves it."""
    plan: str = query._jdf.queryExecution().optimizedPlan().toString()
    return plan
