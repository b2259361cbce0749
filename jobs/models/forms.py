"""The forms of tree.json: one tree, or several whose leaves are averaged or added up.

Format 2 is one tree. Each of its `nodes` says what it says (`probability`, `probabilities` or `value`, by task), a node
with a `feature` has the `threshold` up to which a row goes `left`, else `right`.

Format 3 is several, `trees`, each with its `nodes`, and a `link`:
- mean: what is said is the mean of what the trees' leaves say, each as one tree of format 2 would;
- identity, logistic, softmax: the `value` of each tree's leaf is added to `base`, a number for each `output`, of which
  there is one (several classes: one each); the link makes a value, a probability or probabilities of the sums.

Format 4 is either of them with a call of its own: a binary model calls a row positive from its `threshold` on, not from
0.5; one of several classes calls the first class whose probability times its weight (`weights`, by class) is largest.
It is a format of its own so that a scorer that does not know it refuses, and calls no row otherwise in silence.
`decision` beside it says by what a threshold was chosen ([decision] of dataset.toml).

Each node says how much of the training side came to it: its `rows`; of boosted trees `cover`, the sum of their second
derivatives. `features`, the encodings, are the same in both, and so is all else that a model is told by.
"""

from typing import Any, Dict, Iterator, List, Mapping, Optional, Sequence, Union

Told = Dict[str, Any]
Call = Union[float, List[float], None]

ONE, SEVERAL, DECIDED = 2, 3, 4
MEAN, IDENTITY, LOGISTIC, SOFTMAX = "mean", "identity", "logistic", "softmax"
THRESHOLD = 0.5  # from which on a row is called positive, if the model has no threshold of its own
LINKS = {"binary": LOGISTIC, "multiclass": SOFTMAX, "regression": IDENTITY}


def is_one(model: Told) -> bool:
    """Whether it is one tree, whose leaves are known by their ids."""
    return "trees" not in model


def decided(model: Told, call: Call) -> Told:
    """The same model with a call of its own: a threshold, or weights by class; None: as it is."""
    if call is None:
        return model
    return {**model, "format": DECIDED, **({"threshold": call} if isinstance(call, float) else {"weights": call})}


def call_of(model: Told) -> Call:
    """What `decided` has made it of."""
    call: Call = model.get("threshold", model.get("weights"))
    return call


def threshold(model: Mapping[str, Any]) -> float:
    """From which probability on a binary model calls a row positive; of others it means nothing."""
    return float(model.get("threshold", THRESHOLD))


def called(probabilities: Sequence[float], weights: Optional[Sequence[float]]) -> int:
    """The place of the class that is called: the first whose probability times its weight (None: 1) is largest."""
    weighed = [p * w for p, w in zip(probabilities, weights or [1.0] * len(probabilities))]  # noqa: B905  # not in 3.9
    return weighed.index(max(weighed))


def trees(model: Told) -> List[List[Told]]:
    """The nodes of each tree, root first."""
    return [model["nodes"]] if is_one(model) else [tree["nodes"] for tree in model["trees"]]


def all_nodes(model: Told) -> Iterator[Told]:
    return (node for nodes in trees(model) for node in nodes)


def shape(model: Told) -> Dict[str, int]:
    """As metrics.json has it under `tree`: `trees` only of several, `depth` of the deepest."""
    nodes = list(all_nodes(model))
    several = {} if is_one(model) else {"trees": len(model["trees"])}
    return {
        **several,
        "depth": max(node["depth"] for node in nodes),
        "leaves": sum("feature" not in node for node in nodes),
        "nodes": len(nodes),
    }


def importances(model: Told) -> List[Told]:
    """Each feature's share of all gains, weighted by rows, largest first (as MLlib's TreeEnsembleModel has it).

    A node whose `rows` are not told has its gain for all of them together.
    """
    gains = {feature["name"]: 0.0 for feature in model["features"]}
    for node in all_nodes(model):
        if "feature" in node:
            gains[node["feature"]] += node["gain"] * node.get("rows", 1)
    total = sum(gains.values()) or 1.0
    ordered = sorted(gains.items(), key=lambda item: (-item[1], item[0]))
    return [{"feature": name, "importance": gain / total} for name, gain in ordered]
