"""`learner = "best"`: which learner does best on the validation part of the training side, each at its own best there.

Tried are our own tree and boosted trees: of a forest MLlib tells nothing before all of it is learned.
"""

from typing import Any, Dict, Sequence

from jobs.learners import boosted, tune
from jobs.learners.survey import Survey
from jobs.models import tasks
from jobs.tables.settings import Tune

TRIED = {"tree": tune.choose, "boosted": boosted.choose}


def choose(rows: Survey, fit_on: Sequence[int], held_out: Sequence[int], tuning: Tune) -> Dict[str, Any]:
    """What the best learner's own choice tells; `learner` among what is `chosen`, and `leaderboard`: each learner, the
    best first, with its figure and what it chose. Of equal figures the simpler one is best. Raises JobError.
    """
    main = tasks.MAIN[rows.settings.task]
    found = {learner: own(rows, fit_on, held_out, tuning) for learner, own in TRIED.items()}
    board = [
        {
            "learner": learner,
            main: min(one[main] for one in told["tried"] if not one.get("sampled")),
            "chosen": told["chosen"],
        }
        for learner, told in found.items()
    ]
    board.sort(key=lambda one: one[main])  # it keeps the order of equals
    best = board[0]["learner"]
    told = ", ".join(f"{one['learner']} {one[main]:.4f}" for one in board)
    print(f"learners by {main.replace('_', ' ')} on the validation part: {told}", flush=True)
    return {**found[best], "chosen": {"learner": best, **found[best]["chosen"]}, "leaderboard": board}
