"""Own data: files become a dataset of two files, and the two files are looked at before a run.

In here: reading a stranger's file (`csv_file`; what is not CSV, dml/models/cells.py reads), which files are one table
(`tables`), what is guessed of it (`guesses`), the two texts that say so (`scaffold`), `new` and `check`. Spark itself
says whether a query is right (`spark_query`). Never: anything that talks to AWS or the embedded cloud, and nothing that
a job on a cluster does.
"""
