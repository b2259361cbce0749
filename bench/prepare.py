"""The join of prepare.sql by this project's Glue job, plain Spark, DuckDB and pandas: `python -m bench.prepare NAME
RESULT`.

Each reads the same CSV files and leaves the rows with a known label as Parquet.
"""

import shutil
import sys
import time
from collections.abc import Callable, Mapping
from importlib.metadata import version
from pathlib import Path

from bench.data import BENCH, Place
from bench.measure import write_json

WEEKDAY = "weekday(make_date(f.year, f.month, f.day))"


def ours(raw: Mapping[str, Path], out: Path) -> Path:
    from bench.ours import prepare_features

    return prepare_features(raw, out)


def spark(raw: Mapping[str, Path], out: Path) -> Path:
    """As an expert writes it who trusts the files: types declared, hash and Parquet, keys counted; no order of rows."""
    from pyspark.sql import functions as F

    from bench.ours import plain_session, query, settings
    from jobs.tables import split

    own, session = settings(), plain_session()
    for name, file in raw.items():
        texts = session.read.csv(str(file), header=True, nullValue="NA")
        columns = own.tables[name].columns.items()
        texts.select(
            [F.expr(f"try_cast({column} AS {kind})").alias(column) for column, kind in columns]
        ).createOrReplaceTempView(name)
    rows = session.sql(query()).where("late IS NOT NULL")
    rows.withColumn(split.HASH, split.hashed(own.keys, own.training.seed)).write.parquet(str(out / "features"))
    written = session.read.parquet(str(out / "features"))
    if written.groupBy(*own.keys).count().where("count > 1").count():
        raise ValueError("a key twice")
    return out / "features"


def duckdb(raw: Mapping[str, Path], out: Path) -> Path:
    import duckdb

    from bench.ours import query

    spark_sql = query()
    sql = spark_sql.replace(WEEKDAY, "isodow(make_date(f.year, f.month, f.day)) - 1")
    if sql == spark_sql:
        raise ValueError(f"flights.sql has no {WEEKDAY} any more: adjust its translation for DuckDB in {__file__}.")
    db = duckdb.connect()
    for name, file in raw.items():
        db.execute(f"CREATE VIEW {name} AS SELECT * FROM read_csv('{file}', nullstr = ['', 'NA'])")  # noqa: S608
    db.execute(f"COPY (SELECT * FROM ({sql}) WHERE late IS NOT NULL) TO '{out / 'features.parquet'}'")  # noqa: S608
    return out


def pandas(raw: Mapping[str, Path], out: Path) -> Path:
    import pandas as pd

    table = {name: pd.read_csv(file, na_values=["", "NA"], keep_default_na=False) for name, file in raw.items()}
    flights, weather, planes, airports = (table[name] for name in ("flights", "weather", "planes", "airports"))
    for rows in (flights, weather):
        rows["time_hour"] = pd.to_datetime(rows["time_hour"])
    measured = ["temp", "dewp", "humid", "wind_speed", "precip", "pressure", "visib"]
    before = weather[["origin", "time_hour", *measured]].copy()
    before["time_hour"] += pd.Timedelta(hours=1)
    before["wind_speed"] = before["wind_speed"].where(before["wind_speed"] < 200)
    planes = planes[["tailnum", "year", "seats"]].rename(columns={"year": "plane_year", "seats": "plane_seats"})
    airports = airports[["faa", "lat", "lon"]].rename(columns={"faa": "dest", "lat": "dest_lat", "lon": "dest_lon"})

    flights["flight_date"] = pd.to_datetime(flights[["year", "month", "day"]])
    flights["weekday"] = flights["flight_date"].dt.weekday
    flights["departure_minute"] = flights["hour"] * 60 + flights["minute"]
    flights["origin_hour_departures"] = flights.groupby(["origin", "time_hour"])["flight"].transform("size")
    rows = flights[flights["arr_delay"].notna()].drop(columns="year")
    rows = rows.assign(late=(rows["arr_delay"] > 15).astype("int32"))
    rows = rows.merge(before, on=["origin", "time_hour"], how="left")
    rows = rows.merge(planes, on="tailnum", how="left").merge(airports, on="dest", how="left")
    kept = ["flight_date", "carrier", "flight", "origin", "late", "dest", "month", "weekday", "departure_minute"]
    kept += ["distance", "origin_hour_departures", "plane_year", "plane_seats", "dest_lat", "dest_lon", *measured]
    rows[kept].to_parquet(out / "features.parquet")
    return out


RUN: dict[str, Callable[[Mapping[str, Path], Path], Path]] = {
    "ours": ours,
    "spark": spark,
    "duckdb": duckdb,
    "pandas": pandas,
}


def checksums(features: Path, columns: Mapping[str, str]) -> dict[str, str]:
    """Of each column, given with a common type to compare in, and of whole rows: sums of hashes, in any row order."""
    import duckdb as db

    hashed = {name: f'hash(CAST("{name}" AS {kind}))' for name, kind in columns.items()}
    every = [*hashed.values(), f"hash({', '.join(hashed.values())})"]
    sums = ", ".join(f"sum(CAST({value} AS HUGEINT))" for value in every)
    found = db.execute(f"SELECT count(*), {sums} FROM read_parquet('{features}/*.parquet')").fetchone()  # noqa: S608
    return dict(zip(["rows", *columns, "whole rows"], map(str, found or ()), strict=True))


def main(name: str, result: str) -> None:
    told = Place("337k").told()
    out = BENCH / "prepared" / name
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    features = RUN[name]({table: Path(file) for table, file in told["raw"].items()}, out)
    finished = time.monotonic()
    kinds = {"flight_date": "DATE", **dict.fromkeys([*told["categories"], "carrier", "origin"], "VARCHAR")}
    kinds |= dict.fromkeys(["flight", told["label"], *told["numbers"]], "DOUBLE")
    package = {"ours": "pyspark", "spark": "pyspark"}.get(name, name)
    versions = {"python": sys.version.split()[0], package: version(package)}
    write_json(Path(result), {"finished": finished, "checksums": checksums(features, kinds), "versions": versions})


if __name__ == "__main__":
    main(*sys.argv[1:])
