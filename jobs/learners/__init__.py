"""What learns: from the features of a side to a model. A learner is one module here, and one line
in train.py that calls it.

A learner has `fit(survey, parts, training)`: it learns from these parts of the survey's rows and returns what it has
learned with `told` (nodes as jobs/models/tree.py has them) and `leaf_counts(survey, parts)` (how other rows fall into
them). train.py calls it; `probability_tree` is the one that there is. Shared by learners: what is known of the rows
(`survey`), features as numbers (`encoding`), the growing of trees (`grow`), the choice of settings (`tune`). Never:
reading files, judging a model, writing to the registry.
"""
