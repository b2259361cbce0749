"""What learns: from the features of a side to a model. A learner is one module here, and one line in train.py.

A learner has `fit(survey, parts, training)`: it learns from these parts of the survey's rows and returns what it has
learned with `features` and `told`, what tree.json has of it alone (jobs/models/forms.py); one tree also with `totals`
(of the training rows, by node) and `leaf_counts(survey, parts)` (how other rows fall into it). If it leaves something
to the run, `choose(survey, fit_on, held_out, tuning)` says what does best on the validation part.

In here: our own tree (`probability_tree`, with `grow` and `tune`), MLlib's tree and forest (`mllib`), XGBoost's boosted
trees (`boosted`), the best of several (`best`). Shared: what is known of the rows (`survey`), features as numbers
(`encoding`). Never: reading files, judging a model, writing to the registry.
"""
