"""What the notes on the workbench have at hand, beside Spark: where a run's files lie, tables and pictures to show.

In here: the dataset as a note finds it (`here`), outputs of Zeppelin and Jupyter (`show`), pictures as SVG
(`pictures`), a tree in words and the way of a row through it (`trees`), what each feature adds to an answer
(`reasons`). Never: anything that a job needs; and no note's own lesson, which stands in its cells (notebooks/).
"""
