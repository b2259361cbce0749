"""Cluster time: prepare.py, train.py and predict.py are the scripts that Glue and EMR run; they share the rest.

Python 3.9 syntax; nothing is imported here but the standard library, pyspark, numpy, boto3 and `jobs` itself.
"""

from jobs import zip_archives

zip_archives.mend()
