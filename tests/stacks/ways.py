"""Every way through a state machine, followed as far as clusters go: does any of them leave one behind?"""

import re
from collections.abc import Iterator
from typing import Any, NamedTuple

State = dict[str, Any]


class Now(NamedTuple):
    """What is so at one moment. `known`: the variables that are plainly true or false."""

    cluster: str  # "none", "alive", or "told": it could not be ended, and the run's failure says so
    known: frozenset[tuple[str, bool]]


class Step(NamedTuple):
    """One thing that a state may do. `to` None: its machine is over, well or (`failed`) not."""

    to: str | None
    now: Now
    failed: bool = False
    wrong: bool = False  # it makes a second cluster, and nothing knows of the first any more; or it ends one of others


def clusters_left(machine: dict[str, Any]) -> list[str]:
    """The ways that leave a transient cluster, or end one that is not theirs, each as the names of its states.

    A state is left by its Next, End, Default, every Choice that is not known to be false, every Catch, and by an error
    that nothing catches. A Catch of runJobFlow means that there is no cluster: its call has failed.
    """
    start = Now("none", frozenset())
    return [" -> ".join(way) for step, way in endings(machine, start) if step.wrong or step.now.cluster == "alive"]


def endings(machine: dict[str, Any], now: Now) -> list[tuple[Step, tuple[str, ...]]]:
    """How a machine may end, or make a cluster too many; of the ways that are the same for us, the shortest."""
    coming: list[tuple[str, Now, tuple[str, ...]]] = [(machine["StartAt"], now, ())]
    seen, found = set(), []
    for name, at, way in coming:  # grows while it is walked through: breadth first
        if (name, at) in seen:
            continue
        seen.add((name, at))
        for step in steps(machine["States"][name], at):
            if step.wrong or step.to is None:
                found.append((step, (*way, name)))
            else:
                coming.append((step.to, step.now, (*way, name)))
    return found


def steps(state: State, now: Now) -> Iterator[Step]:
    """All that may happen next in one state."""
    kind, call = state["Type"], state.get("Resource", "").partition(":states:::")[2]
    if kind == "Fail":
        yield Step(None, now, failed=True)
    elif kind == "Choice":
        yield from choices(state, now)
    elif kind in ("Parallel", "Map"):
        inner = [state["ItemProcessor"]] if kind == "Map" else state["Branches"]
        for step, _ in (ending for machine in inner for ending in endings(machine, now)):
            if step.failed:
                yield from errors(state, step.now)
            else:
                yield onward(state, step.now, wrong=step.wrong)
    elif call in ("aws-sdk:emr:runJobFlow", "elasticmapreduce:createCluster"):
        yield onward(state, now._replace(cluster="alive"), wrong=now.cluster != "none")
        yield from errors(state, now)
    elif call.startswith("elasticmapreduce:terminateCluster"):
        yield onward(state, now._replace(cluster="none"), wrong=now.cluster == "none")
        yield from errors(state, now, told="told" if now.cluster != "none" else "none")
    else:
        yield onward(state, now)
        if kind == "Task":
            yield from errors(state, now)


def choices(state: State, now: Now) -> Iterator[Step]:
    for rule in state["Choices"]:
        holds = truth(rule["Condition"], now)
        if holds is not False:
            yield Step(rule["Next"], after(rule, now))
        if holds is True:
            return
    yield Step(state.get("Default"), after(state, now), failed="Default" not in state)


def errors(state: State, now: Now, told: str = "") -> Iterator[Step]:
    """Whatever a state catches, and what it doesn't. `told`: what a caught error makes of the cluster."""
    for catcher in state.get("Catch", []):
        yield Step(catcher["Next"], after(catcher, now._replace(cluster=told or now.cluster)))
    if not any(catcher["ErrorEquals"] == ["States.ALL"] for catcher in state.get("Catch", [])):
        yield Step(None, now, failed=True)


def onward(state: State, now: Now, *, wrong: bool = False) -> Step:
    return Step(state.get("Next"), after(state, now), wrong=wrong)


def after(rule: State, now: Now) -> Now:
    """With what a state, a rule or a catcher assigns."""
    known = dict(now.known)
    for name, value in rule.get("Assign", {}).items():
        known.pop(name, None)
        if isinstance(value, bool):
            known[name] = value
    return now._replace(known=frozenset(known.items()))


def truth(condition: str, now: Now) -> bool | None:
    """Is a condition known to hold, or not to? None: either may be."""
    if condition == "{% true %}":
        return True
    plain = re.fullmatch(r"\{% \$(\w+) %\}", condition)
    return dict(now.known).get(plain[1]) if plain else None
