"""One spark-submit on this machine's Spark: its process, its files by S3, and archives that make it start quickly.

In here: `process`, `s3_gateway`, `warm_start`, `site/`, and `catalog`, by which a session finds Glue's tables. Never:
which service asked for it, nor whose role it has.
"""
