"""What learns: from the features of a side to a model. A learner is one module here, and one line in train.py.

A learner has `fit(survey, parts, training)`: it learns from these parts of the survey's rows and returns what it has
learned with `learned.features`, `totals` (of the training rows, by node), `told` (nodes as jobs/models/tree.py has
them) and `leaf_counts(survey, parts)` (how other rows fall into them). `probability_tree` is the one that there is.
Shared by learners: what is known of the rows (`survey`), features as numbers (`encoding`). `grow` and `tune` are the
probability tree's own. Never: reading files, judging a model, writing to the registry.
"""
