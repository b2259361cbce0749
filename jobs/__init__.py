"""What Glue and EMR run, at cluster time: prepare.py, train.py and predict.py are the entry scripts, the rest they share.

Python 3.9 syntax; nothing is imported here but the standard library, pyspark, numpy, boto3 and `jobs` itself.
"""
