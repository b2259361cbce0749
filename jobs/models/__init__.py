"""What a model is, whoever has learned it: its format, how it scores rows, and where the current one lies.

In here: how features become numbers (`inputs`), what a task asks of a model (`tasks`), a tree as JSON, MLlib's model
and scorer (`tree`), as SQL (`tree_sql`), the registry (`registry`). Never: how it is learned, nor how good it is.
"""
