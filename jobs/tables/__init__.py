"""Tables and all that jobs read and write: the catalog, raw files, features, small JSON files, settings, the session.

In here: where a table is (`catalog`), how a raw file is read (`lines`, `raw`), quotes that swallow rows (`records`),
the other formats (`cells`, `json_lines`), what folders name=value tell (`folders`), which labels are known (`labels`),
what a query sees of its rows (`observed`), the features as rows and columns (`features`, `arrays`), which side a row is
on (`split`), `storage`, `settings`, `session`, `zip_archives` (why importing jobs is quick). Never: anything learned
from the values.
"""
