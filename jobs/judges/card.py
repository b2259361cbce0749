"""model-card.md: what a model is for, how it was judged and where it fails, for whoever must decide to rely on it.

Its sections are those of Mitchell et al. 2019, Model Cards for Model Reporting (FAT* 2019); then how to score a row.
Everything is said out of what the run leaves (metrics.json, tree.json, gate.json, profile.json, drift.json) and the
dataset's settings; what a run did not measure is said to be unknown, never left to be guessed.
"""

import math
import re
from typing import Any, Dict, Iterable, List, Optional, Sequence

from jobs.judges import profiling
from jobs.models import forms, tree_sql
from jobs.tables.settings import Dataset, Label, Task

Document = Dict[str, Any]

SHOWN = 10  # rows of a table of features, slices or confused classes
WIDE = 12  # classes up to which a confusion matrix fits a page
SLICE_ROWS, MUCH_WORSE = 50, 1.25  # a slice that is pointed out has so many rows, and so many times the whole's loss
MOSTLY_MISSING = 0.5

_MEASURES = {
    "auc": ("AUC", "the chance that a positive row is ranked above a negative one; 0.5 is no better than chance"),
    "pr_auc": ("PR-AUC", "precision averaged over all recalls; always guessing gives the share of positives"),
    "log_loss": ("log loss", "how much the model is surprised by what happens; lower is better"),
    "brier": ("Brier score", "the mean squared error of the probabilities; lower is better"),
    "accuracy": ("accuracy", "the share of right calls"),
    "precision": ("precision", "of the rows called positive the share that are"),
    "recall": ("recall", "of the positive rows the share that are called so"),
    "f1": ("F1", "precision and recall in one, their harmonic mean"),
    "macro_f1": ("macro F1", "the mean over classes of F1, so that a rare class counts like a frequent one"),
    "rmse": ("RMSE", "the root of the mean squared error, in the label's unit; lower is better"),
    "mae": ("MAE", "the mean absolute error, in the label's unit; lower is better"),
    "r2": (
        "R\N{SUPERSCRIPT TWO}",
        "the share of the label's variance that is explained; always guessing the mean has 0",
    ),
    "bias": ("bias", "the mean of predicted minus observed; 0 is best"),
}
_MACRO_AUC = "for each class the chance that a row of it is ranked above another; the mean over classes"


def card(
    metrics: Document,
    tree: Document,
    gate: Document,
    profile: Optional[Document],
    drift: Optional[Document],
    settings: Dataset,
    query: str = "",
) -> str:
    """The card as Markdown. `profile` and `drift` may be None, and parts of `metrics` null or absent. `query`: what
    tree.sql has, '' if there is none.
    """
    alarms = profiling.leaks(profile, settings) if profile else []
    sections = [
        (f"Model card: {_text(settings.title)}", _summary(metrics, gate, settings)),
        ("Model details", _details(metrics, tree, gate, settings)),
        ("Intended use", _use(settings)),
        ("Factors", _factors(metrics, settings)),
        ("Metrics", _measures(metrics)),
        ("Evaluation data", _evaluation(metrics, settings)),
        ("Training data", _training(metrics, tree, profile, settings)),
        ("Quantitative analyses", _analyses(metrics, settings)),
        ("Ethical considerations and caveats", _caveats(metrics, gate, profile, drift, alarms, settings)),
        ("How to score a row", _scoring(settings, tree, len(query.encode()))),
    ]
    first, *others = sections
    parts = [f"# {first[0]}", *first[1]]
    for title, body in others:
        parts += [f"## {title}", *body]
    return "\n\n".join(part for part in parts if part) + "\n"


def _summary(metrics: Document, gate: Document, settings: Dataset) -> List[str]:
    main = metrics["main_metric"]
    measured = f"{_name(main)} {_figure(metrics['test'][main])} on {_figure(metrics['test']['rows'])} held-out rows"
    later = metrics.get("out_of_time")
    if later:
        ahead = (
            f"On {_figure(later['rows'])} later rows ({_text(later['tested_on'])}) it has {_name(main)} "
            f"{_figure(later[main])}; {_guess(settings.task)} has {_figure(later['baseline'][main])}. "
        )
    else:
        ahead = ""
    verdict = "The gate passed it." if gate["passed"] else "**The gate refused it**: " + _sentences(gate["reasons"])
    return [
        f"{_kind(metrics)} {_predicts(settings.label, settings.task)}. {ahead}It has {measured}; "
        f"{_guess(settings.task)} has {_figure(metrics['baseline'][main])}. {verdict}"
    ]


def _details(metrics: Document, tree: Document, gate: Document, settings: Dataset) -> List[str]:
    shape, used = metrics["tree"], metrics["settings"]
    versions = ", ".join(f"{name} {version}" for name, version in metrics.get("versions", {}).items())
    called = "; ".join(f"`{name}` is {_text(text)}" for name, text in settings.called.items())
    facts = [
        f"Run `{metrics['run_id']}` of dataset `{metrics['dataset']}`, made {metrics['created']}"
        + (f" from revision `{metrics['revision']}`" if metrics.get("revision") else "")
        + (f" with {versions}." if versions else "."),
        f"Task: {settings.task}; label `{settings.label.column}`"
        + (f"; classes {_list(settings.label.classes)}." if settings.task == "multiclass" else "."),
        *_learned(shape, used, tree, settings),
        _tuned(metrics.get("tuning"), used),
    ]
    if called:
        facts.append(f"What the files call columns whose names have lost letters: {called}.")
    if gate.get("current_run"):
        facts.append(f"Compared with the model of run `{gate['current_run']}`, the current one when it was trained.")
    checks = [[_text(c["name"]), "passed" if c["passed"] else "**failed**", _text(c["detail"])] for c in gate["checks"]]
    return [_bullets(facts), _table(["gate", "verdict", "detail"], checks)]


def _kind(metrics: Document) -> str:
    shape, learner = metrics["tree"], metrics["settings"].get("learner", "tree")
    if "trees" not in shape:
        return "A decision tree that predicts"
    kind = {"boosted": "gradient-boosted decision trees", "forest": "decision trees of a random forest"}[learner]
    return f"{_figure(shape['trees'])} {kind} that predict"


def _learned(shape: Document, used: Document, tree: Document, settings: Dataset) -> List[str]:
    """Of what the model is, how it was learned, and with which settings."""
    split = "variance of the label" if settings.task == "regression" else "Gini impurity"
    rest = f"{used['bins']} bins a feature, smoothing {used['smoothing']:g} for categories, seed {used['seed']}."
    features = f"{len(tree['features'])} features"
    if used.get("learner") == "boosted":
        bounds = f", depth at most {used['depth']}" if used["depth"] else ""
        bounds += f", at least about {_figure(used['min_leaf'])} rows a leaf" if used["min_leaf"] else ""
        return [
            f"{_figure(shape['trees'])} decision trees, {_figure(shape['leaves'])} leaves together, over {features}. "
            "XGBoost learned one after the other, each to mend what those before it say wrongly; what a row is told "
            "is their sum.",
            f"Dataset: {_figure(used['rounds'])} rounds, at most {used['leaves']} leaves a tree{bounds}, learning rate "
            f"{used['learning_rate']:g}, {rest}",
        ]
    if used.get("learner") == "forest":
        return [
            f"{_figure(shape['trees'])} decision trees, {_figure(shape['leaves'])} leaves together, over {features}. "
            "MLlib's random forest learned each from rows drawn anew, some of the features at each split; what a row "
            "is told is their mean.",
            f"Dataset: {_figure(used['trees'])} trees, depth at most {shape['depth']}, {rest}",
        ]
    by = "learned by MLlib" if used.get("learner") == "mllib" else "grown level by level on Spark"
    return [
        f"One decision tree of depth {shape['depth']} with {_figure(shape['leaves'])} leaves over {features}. It was "
        f"{by}; each split is the one that lowers the {split} most.",
        f"Dataset: depth at most {used['depth']}, at least {_figure(used['min_leaf'])} rows a leaf, {rest}",
    ]


def _tuned(tuning: Optional[Document], used: Document) -> str:
    what = "The number of rounds is" if used.get("learner") == "boosted" else "Depth and leaf size are"
    if used.get("learner") == "forest":
        return "It was trained as set, or by default; this run tuned nothing."
    if not tuning:
        return f"{what} as set; this run did not tune {'it' if what.endswith('is') else 'them'}."
    part = (
        "the latest part of the training side before `time.cut`"
        if tuning.get("by") == "time"
        else ("a part of the training side")
    )
    rows = f" ({_figure(tuning['rows']['validated'])} rows)" if tuning.get("rows") else ""
    chosen = what.replace(" is", " was").replace(" are", " were")
    told = f"{chosen} chosen on {part}{rows}, never by the rows it is judged by."
    main = tuning.get("metric", "")
    board = ", ".join(f"{one['learner']} {_figure(one[main])}" for one in tuning.get("leaderboard", ()))
    return f"{told} So was the learner, by {_name(main)}: {board}." if board else told


def _use(settings: Dataset) -> List[str]:
    keys = ", ".join(f"`{key}`" for key in settings.keys)
    return [
        _bullets(
            [
                f"Meant to predict {_predicts(settings.label, settings.task)}, one row for each {keys}.",
                f"Rows without a known label ({_text(settings.label.unknown)}) were left out: "
                "its figures hold for the other rows only.",
                "For tables made by the dataset's own `prepare.sql`, from the same sources, with the same meaning of "
                "each column.",
                "Not for saying what would happen if a feature were changed: a tree finds what goes together, not what "
                "causes what.",
                "Not as the only ground of a decision about a person.",
            ]
        )
    ]


def _factors(metrics: Document, settings: Dataset) -> List[str]:
    sliced = list(metrics.get("slices") or {})
    said = (
        f"Judged apart by {', '.join(f'`{name}`' for name in sliced)} (see the slices below)."
        if sliced
        else "**Not judged by group**: the dataset names no slices, so a group that it fails would not be seen here."
    )
    permuted = metrics.get("permutation") or {"features": []}
    without = {one["feature"]: _figure(one["increase"]) for one in permuted["features"]}
    rows = [
        [f"`{i['feature']}`", f"{i['importance']:.1%}", *([without.get(i["feature"], "")] if without else [])]
        for i in metrics["importances"]
        if i["importance"] > 0
    ]
    rest = f"{len(rows) - SHOWN} more features are used less." if len(rows) > SHOWN else ""
    unused = [f"`{i['feature']}`" for i in metrics["importances"] if not i["importance"]]
    return [
        said,
        "Importance is a feature's share of all that the splits gain. A feature may have little because another one "
        "says the same.",
        _table(["feature", "importance", *(["without it"] if without else [])], rows[:SHOWN]),
        f"Without it: by how much {_name(permuted['metric'])} rises when the feature's values change hands among "
        f"{_figure(permuted['rows'])} held-out rows (permutation importance)."
        if without
        else "",
        rest,
        f"Never asked by the {'trees' if 'trees' in metrics['tree'] else 'tree'}: {', '.join(unused)}."
        if unused
        else "",
    ]


def _measures(metrics: Document) -> List[str]:
    macro = metrics["task"] == "multiclass"
    said = [
        f"{_name(key)}{' (the main one)' if key == metrics['main_metric'] else ''}: "
        f"{_MACRO_AUC if macro and key == 'auc' else _MEASURES[key][1]}."
        for key in _MEASURES
        if key in metrics["test"]
    ]
    if metrics["task"] == "binary":
        said.append(f"A row is called positive if its probability is {metrics['threshold']:.4g} or more.")
    if metrics["task"] == "multiclass" and not metrics.get("class_weights"):
        said.append("A row is called the class with the largest probability, of equal ones the first.")
    return [_bullets(said)]


def _evaluation(metrics: Document, settings: Dataset) -> List[str]:
    said = [
        f"Held-out rows: {_figure(metrics['rows']['test'])}, {settings.training.test_share:.0%} of the table, "
        f"chosen by a hash of {_split_by(settings)}, so that they are the same for every model. "
        + _label_is(metrics, "test", settings.label, settings.task),
        "They come from the same time as the training rows. They show how the model does on rows like those that it "
        "learned from, and serve to compare models; they promise nothing about later rows.",
    ]
    later = metrics.get("out_of_time")
    if later:
        said.append(
            f"Out of time: the same training on {_text(later['trained_on'])} ({_figure(later['trained_rows'])} rows), "
            f"tested on {_text(later['tested_on'])} ({_figure(later['rows'])} rows). Expect this of tomorrow."
        )
    else:
        said.append("**How it does on later rows is unknown**: the dataset names no time column to test it by.")
    return [_bullets(said)]


def _training(metrics: Document, tree: Document, profile: Optional[Document], settings: Dataset) -> List[str]:
    said = [f"{_figure(metrics['rows']['train'])} rows. " + _label_is(metrics, "train", settings.label, settings.task)]
    if profile and profile["time"]:
        time = profile["time"]
        said.append(f"The table reaches from {time['min']} to {time['max']} (`{time['column']}`).")
    if not profile:
        lacking = [f"`{f['name']}` {_figure(f['missing_rows'])}" for f in tree["features"] if f["missing_rows"]]
        said.append(f"Missing in training rows: {', '.join(lacking) or 'nothing'}. There is no profile of this run.")
        return [_bullets(said)]
    rows = []
    for feature in sorted(profile["features"], key=lambda feature: -int(feature["missing"]["rows"])):
        missing = f"{_share(feature['missing']['rows'], profile['rows']):.1%}"
        if feature["kind"] == "number":
            spread = " / ".join(_figure(x) for x in (feature["quantiles"] or {"": None}).values())
        else:
            spread = f"{_counted(feature['distinct'], 'value')}: {_list(c['value'] for c in feature['top'][:3])}"
        rows.append([f"`{feature['name']}`", missing, spread])
    more = f"{len(rows) - 3 * SHOWN} more features are in profile.json." if len(rows) > 3 * SHOWN else ""
    table = _table(["feature", "missing", "5 / 25 / 50 / 75 / 95 % quantile, or most frequent"], rows[: 3 * SHOWN])
    return [_bullets(said), table, more]


def _analyses(metrics: Document, settings: Dataset) -> List[str]:
    guess = _guess(settings.task)
    later = metrics.get("out_of_time")
    rows = [("**out of time**", later), (f"{guess}, out of time", later["baseline"])] if later else []
    rows += [("**held-out rows**", metrics["test"]), (guess, metrics["baseline"])]
    if metrics.get("current"):
        rows.append((f"current model `{metrics['current'].get('run_id', '')}`, same rows", metrics["current"]))
    keys = [key for key in _MEASURES if key in metrics["test"]]
    body = [[name, *[_figure(of.get(key)) for key in keys], _figure(of.get("rows"))] for name, of in rows]
    parts = [_table(["", *[_name(key) for key in keys], "rows"], body), _interval(metrics)]
    parts += ["### Calibration", *_calibration(metrics, settings)]
    if metrics["test"].get("confusion") is not None:
        parts += ["### Right and wrong calls", _bullets(list(map(_text, metrics.get("calls") or [])))]
        parts += _confusion(metrics, settings)
    if metrics.get("slices"):
        parts += ["### Slices", *_slices(metrics)]
    return parts


def _split_by(settings: Dataset) -> str:
    if not settings.split.by:
        return "each row's key"
    return f"{', '.join(f'`{name}`' for name in settings.split.by)} (rows alike in it are all on one side)"


def _interval(metrics: Document) -> str:
    interval = metrics.get("interval")
    if not interval:
        return "No interval was computed: how far chance alone could move these figures is unknown."
    return (
        f"{interval['level']:.0%} interval of {_name(interval['metric'])} on held-out rows: "
        f"{_figure(interval['low'])} to {_figure(interval['high'])} ({_text(interval['method'])}). It holds the chance "
        "of which rows were drawn for the test; not that of another training, nor that the world changes."
    )


def _calibration(metrics: Document, settings: Dataset) -> List[str]:
    groups = metrics.get("calibration")
    if not groups:
        return ["Not measured."]
    rows = sum(group["rows"] for group in groups)
    off = sum(group["rows"] * abs(group["predicted"] - group["observed"]) for group in groups) / rows
    worst = max(groups, key=lambda group: abs(group["predicted"] - group["observed"]))
    what = {
        "binary": "The predicted probability",
        "multiclass": "The probability of the predicted class",
        "regression": "The mean predicted value of a group",
    }[settings.task]
    unit = f" {_text(settings.label.unit)}" if settings.label.unit else ""
    said = (
        f"{what} is off by {_figure(off)}{unit} on average. It is off most where {_figure(worst['predicted'])} was "
        f"predicted and {_figure(worst['observed'])} observed ({_figure(worst['rows'])} rows)."
    )
    table = [[_figure(g["predicted"]), _figure(g["observed"]), _figure(g["rows"])] for g in groups]
    return [said, _table(["predicted", "observed", "rows"], table)]


def _confusion(metrics: Document, settings: Dataset) -> List[str]:
    confusion = metrics["test"]["confusion"]
    if settings.task == "binary":
        tp, fp, tn, fn = (confusion[key] for key in ("tp", "fp", "tn", "fn"))
        right, found = _percent(tp, tp + fp), _percent(tp, tp + fn)
        return [
            _table(
                ["", "called positive", "called negative"],
                [["positive", _figure(tp), _figure(fn)], ["negative", _figure(fp), _figure(tn)]],
            ),
            f"Of the rows called positive {right} are; of the positive rows {found} are called so." if tp + fp else "",
        ]
    classes = [_text(name) for name in settings.label.classes]
    if len(classes) <= WIDE:
        body = [[name, *map(_figure, counts)] for name, counts in zip(classes, confusion)]  # noqa: B905
        return [_table(["actual \\ predicted", *classes], body)]
    wrong = [
        (count, classes[i], classes[j])
        for i, counts in enumerate(confusion)
        for j, count in enumerate(counts)
        if i != j and count
    ]
    body = [[actual, predicted, _figure(count)] for count, actual, predicted in sorted(wrong, reverse=True)[:SHOWN]]
    return ["The most frequent mistakes:", _table(["actual", "predicted", "rows"], body)]


def _slices(metrics: Document) -> List[str]:
    main = metrics["main_metric"]
    parts = []
    for column, found in metrics["slices"].items():
        largest = sorted(found, key=lambda own: -int(own["rows"]))[:SHOWN]
        keys = [
            key for key in ("rate", "mean", main, "baseline", "accuracy", "mae") if any(key in own for own in found)
        ]
        heads = {"rate": "observed rate", "mean": "observed mean", "baseline": f"{_name(main)} of guessing"}
        body = [
            [_value(own["value"]), _figure(own["rows"]), *[_figure(own.get(key)) for key in keys]] for own in largest
        ]
        table = _table([f"`{column}`", "rows", *[heads.get(key) or _name(key) for key in keys]], body)
        rest = f"{len(found) - SHOWN} smaller groups are in metrics.json." if len(found) > SHOWN else ""
        parts += [table, rest]
    return parts


def _caveats(
    metrics: Document,
    gate: Document,
    profile: Optional[Document],
    drift: Optional[Document],
    alarms: Sequence[Document],
    settings: Dataset,
) -> List[str]:
    said = [] if gate["passed"] else [f"**The gate refused this model**: {_sentences(gate['reasons'])}"]
    said += [
        f"**Leak alarm**: {_text(alarm['sentence'])}: leave it out of the features if it is made from the "
        "label or known only after it."
        for alarm in alarms
    ]
    if profile and not alarms:
        said.append("No leak alarm: no feature tells the label almost perfectly by itself. Several together still may.")
    said += [_later(metrics, settings), *_bad_slices(metrics), *_drifted(drift)]
    for feature in profile["features"] if profile else []:
        share = _share(feature["missing"]["rows"], profile["rows"]) if profile else 0.0
        if share > MOSTLY_MISSING:
            said.append(f"`{feature['name']}` is missing in {share:.0%} of the rows.")
    said += [
        "A number that is missing (NULL) or not finite counts as lower than every other; a category that is missing as "
        "a category of its own; one that training has not seen as an average one. The model answers all the same: "
        "watch how many such rows there are.",
        ("Trees give" if "trees" in metrics["tree"] else "A tree gives")
        + " one answer for all rows of a leaf, and beyond the range that it has seen the answer of the nearest leaf.",
        "What the data leave out or record wrongly the model learns too. Whether it treats groups of people fairly was "
        "looked at only as far as the slices above go.",
    ]
    return [_bullets(said)]


def _later(metrics: Document, settings: Dataset) -> str:
    later, main = metrics.get("out_of_time"), metrics["main_metric"]
    if not later:
        return "Nothing is known of later rows: judge its first predictions once the labels are in."
    got, guess = _figure(later[main]), _figure(later["baseline"][main])
    if later[main] >= later["baseline"][main]:
        what = "values" if settings.task == "regression" else "probabilities"
        return (
            f"**On later rows it is no better than {_guess(settings.task)}** ({_name(main)} {got} against {guess}): "
            "do not "
            f"rely on its {what} for rows after its training."
        )
    gain = [
        1 - of[main] / base[main] for of, base in ((metrics["test"], metrics["baseline"]), (later, later["baseline"]))
    ]
    return (
        f"On later rows {_name(main)} is {got} against {guess} of {_guess(settings.task)}: {gain[1]:.0%} less, where "
        f"held-out rows have {gain[0]:.0%} less."
    )


def _bad_slices(metrics: Document) -> List[str]:
    """Groups where the model is no better than guessing, or much worse than on all rows; the worst of each column."""
    main, whole, said = metrics["main_metric"], metrics["test"][metrics["main_metric"]], []
    for column, found in (metrics.get("slices") or {}).items():
        large = [own for own in found if own["rows"] >= SLICE_ROWS and own.get(main) is not None]
        useless = [own for own in large if own.get("baseline") is not None and own[main] >= own["baseline"]]
        worse = [own for own in large if own[main] > MUCH_WORSE * whole and own not in useless]
        for own in sorted(useless, key=lambda own: -int(own["rows"]))[:3]:
            said.append(
                f"**No better than guessing where `{column}` is {_value(own['value'])}**: {_name(main)} "
                f"{_figure(own[main])} against {_figure(own['baseline'])} ({_figure(own['rows'])} rows)."
            )
        for own in sorted(worse, key=lambda own: -float(own[main]))[:3]:
            said.append(
                f"**Much worse where `{column}` is {_value(own['value'])}**: {_name(main)} {_figure(own[main])}, on "
                f"all rows {_figure(whole)} ({_figure(own['rows'])} rows)."
            )
        if (more := max(len(useless) - 3, 0) + max(len(worse) - 3, 0)) > 0:
            said.append(f"{more} more such groups of `{column}` are in metrics.json.")
    return said


def _drifted(drift: Optional[Document]) -> List[str]:
    if not drift:
        return ["Drift was not measured: there was no earlier profile to compare the data with."]
    said = [
        f"**`{of['name']}` has drifted far** from the data of the current model: PSI {_figure(of['psi'])} (0.25 and "
        f"more is large; missing {of['missing']['old']:.1%} then, {of['missing']['new']:.1%} now).{_moves(of)}"
        for of in drift["features"]
        if of["verdict"] == "large"
    ]
    label = drift.get("label")
    if label and label["verdict"] != "stable":
        said.append(f"The label has moved since the current model: PSI {_figure(label['psi'])}.")
    moderate = [f"`{of['name']}`{_in_brief(of)}" for of in drift["features"] if of["verdict"] == "moderate"]
    if moderate:
        said.append(f"Moderate drift since the current model: {', '.join(moderate)}.")
    return said or ["No feature has drifted from the data of the current model (all PSI below 0.1, or within chance)."]


def _moves(of: Document) -> str:
    """What a feature's move alone does to what the current model says on average, if that was measured."""
    moves = of.get("moves_score")
    if not moves:
        return ""
    what = f"the probability of {_text(moves['of'])}" if moves["of"] else "what the current model says"
    return f" That alone moves {what} by {_signed(moves['by'])} on average."


def _in_brief(of: Document) -> str:
    moves = of.get("moves_score")
    return f" (moves the mean score by {_signed(moves['by'])})" if moves else ""


def _signed(x: float) -> str:
    return f"+{_figure(x)}" if x > 0 else _figure(x)


def _scoring(settings: Dataset, tree: Document, length: int) -> List[str]:
    """`length`: bytes of tree.sql."""
    name, label = settings.name, settings.label.column
    value = {"binary": "probability", "multiclass": "probabilities", "regression": "value"}[settings.task]
    says = {
        "binary": f"`probability` that `{label}` is 1; the call is 1 from {forms.threshold(tree)!r} on",
        "multiclass": "`probabilities` in the order of `classes`; the call is the first of the largest"
        + (", each times its one of `weights`" if tree.get("weights") else ""),
        "regression": f"`value`, the predicted `{label}`",
    }[settings.task]
    needed = ", ".join(f"`{feature['name']}`" for feature in tree["features"])
    against, answer = tree_sql.reason_against(tree), f"its `{value}` is the answer"
    in_sql = "In Athena, without a cluster: the query `tree.sql` beside this card."
    if against:
        in_sql = f"In Athena: not this model, since {against}."
    elif length > tree_sql.MAX_BYTES:
        in_sql = (
            f"In DuckDB or Trino: the query `tree.sql` beside this card, with {length:,} bytes too long for Athena."
        )
    if tree.get("link") == forms.MEAN:
        answer = f"the mean of their `{value}` over all `trees` is the answer"
    elif "trees" in tree:
        link = {
            forms.LOGISTIC: "1 / (1 + e^-sum) is the answer",
            forms.SOFTMAX: "e^sum of each, by the sum of all of these, is the answer",
            forms.IDENTITY: "is the answer",
        }[tree["link"]]
        answer = f"`base` and the `value` of every one of `trees`, added up by `output`: {link}"
    return [
        _bullets(
            [
                f"A table of any size, on Spark: `dml predict {name}` (the job `predict.py`).",
                in_sql,
                "In any language: `tree.json`. Start at the first node; go `left` if the feature's number is not above "
                f"`threshold`, else `right`, until a node has no `feature`; {answer}: {says}.",
                "A number is itself; NULL, NaN and infinities count as the feature's `missing`. A boolean is 0 or 1. "
                "A category is looked up as text in `encoding`; NULL counts as `missing`, one not there as `unseen`.",
                f"Columns that a table to be scored needs: {needed}.",
            ]
        )
    ]


def _predicts(label: Label, task: Task) -> str:
    if task == "binary":
        return f"the probability of `{label.column}`: that it {_text(label.positive)}"
    if task == "multiclass":
        return f"which of {len(label.classes)} classes `{label.column}` is, with a probability for each"
    return f"`{label.column}`" + (f" in {_text(label.unit)}" if label.unit else "")


def _guess(task: Task) -> str:
    """What the baseline does, in the words of the task."""
    return {
        "binary": "always guessing the base rate",
        "multiclass": "always guessing the classes' shares",
        "regression": "always guessing the mean",
    }[task]


def _label_is(metrics: Document, side: str, label: Label, task: Task) -> str:
    """The label of one side, in a sentence."""
    told, rows = metrics["label"][side], metrics["rows"][side]
    if task == "binary":
        return f"{_percent(told['positives'], rows)} are positive ({_figure(told['positives'])})."
    if task == "regression":
        unit = f" {_text(label.unit)}" if label.unit else ""
        return (
            f"The label has mean {_figure(told['mean'])}{unit}, standard deviation {_figure(told['std'])}, and reaches "
            f"from {_figure(told['min'])} to {_figure(told['max'])}."
        )
    counts = sorted(zip(told["counts"], label.classes), reverse=True)  # noqa: B905
    shown = ", ".join(f"{_text(name)} {_percent(count, rows)}" for count, name in counts[:SHOWN])
    more = f", and {len(counts) - SHOWN} rarer classes" if len(counts) > SHOWN else ""
    return f"Classes: {shown}{more}."


def _name(key: str) -> str:
    return _MEASURES[key][0]


def _figure(x: Any) -> str:
    """A count with its thousands marked; another number to four digits; what is not known as such."""
    if x is None or (isinstance(x, float) and not math.isfinite(x)):
        return "unknown"
    if x == int(x) and abs(x) < 1e15:
        return f"{x:,.0f}"
    size = math.floor(math.log10(abs(x)))
    if size >= 15 or size < -4:
        return f"{x:.3e}"
    return f"{x:,.{max(3 - size, 0)}f}"


def _counted(n: int, noun: str) -> str:
    return f"{n:,} {noun}" if n == 1 else f"{n:,} {noun}s"


def _share(part: int, whole: int) -> float:
    return part / whole if whole else 0.0


def _percent(part: int, whole: int) -> str:
    return f"{part / whole:.1%}" if whole else "none"


def _value(value: Any) -> str:
    return "missing" if value is None else _text(value)


def _text(value: Any) -> str:
    """What comes from data or settings, so that Markdown shows it as it is, in a table too."""
    return re.sub(r"([\\`*<>|\[\]])", r"\\\1", " ".join(str(value).split()))


def _list(values: Iterable[Any]) -> str:
    return ", ".join(_text(value) for value in values)


def _sentences(reasons: Sequence[str]) -> str:
    return "; ".join(_text(reason).rstrip(".") for reason in reasons) + "."


def _bullets(lines: Sequence[str]) -> str:
    return "\n".join(f"- {line}" for line in lines)


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    if not rows:
        return ""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
