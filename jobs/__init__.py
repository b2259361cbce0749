"""Cluster time: prepare.py, train.py and predict.py are the scripts that Glue and EMR run; they share the rest.

On this floor: the three scripts, how each begins and ends (`job`), the error that a job raises (`errors`). Rooms:
`tables/`, `models/`, `learners/`, `judges/`, each standing on those before it. Never: an operator's command, or CDK.

Python 3.9 syntax; nothing is imported here but the standard library, what Spark brings (pyspark, py4j), `jobs` itself,
and what Glue has and cluster/requirements.txt brings to EMR: boto3, numpy, pyarrow, pandas; there only, xgboost.
"""

from jobs.tables import zip_archives

zip_archives.mend()
