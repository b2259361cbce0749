"""What a model is, whoever has learned it: its format, how it scores rows, and where the current one lies.

In here: the forms of tree.json (`forms`), how features become numbers (`inputs`), what a task asks of a model
(`tasks`), why it says what it says (`reasons`), scoring on Spark and MLlib's model (`tree`), as SQL (`tree_sql`), the
registry (`registry`). Never: how it is learned, nor how good it is.
"""
