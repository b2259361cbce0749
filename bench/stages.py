"""Prepare and predict as stages, on one large table: this project's jobs beside plain Spark and DuckDB, on one core and
on two; and ranged reads of the embedded cloud's S3 beside the disk: `python -m bench.stages`.

Each stage is a process of its own and is measured from its start to its end. Our jobs read and write folders here, as
the others do; what S3 adds is measured apart. What a revision has measured is kept as it comes. Java is told what `dml
run --local` tells it for our jobs, and nothing for plain Spark.
"""

import argparse
import contextlib
import itertools
import json
import os
import shutil
import signal
import socket
import sys
import time
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from bench import report
from bench.data import BENCH, HOME
from bench.measure import Kept, measure, write_json

SIZES = {"337k": 336_776, "3.37m": 3_367_760, "8m": 8_000_000}
CORES = (1, 2)
STAGES = BENCH / "stages"
MODEL = STAGES / "tree.json"
WINDOW = 16 * 2**20  # bytes of a range, as Spark's readers ask for
CONTENDERS = ("ours", "spark", "duckdb")
KINDS = {"id": "bigint", "age": "bigint", "income": "double", "balance": "double", "visits": "bigint"}
KINDS |= {"spend": "double", "region": "string", "city": "string", "channel": "string", "joined": "date"}
KINDS |= {"churned": "string"}
TABLE = """
SELECT i AS id, round(18 + random() * 62)::INT AS age, round(random() * 100000, 2) AS income,
    round(random() * 20 - 10, 4) AS balance, CASE WHEN random() >= 0.05 THEN (random() * 1000)::INT END AS visits,
    round(exp(random() * 6), 3) AS spend, ['north', 'south', 'east', 'west', 'centre'][1 + i * 7 % 5] AS region,
    'city_' || (random() * 400)::INT AS city, ['web', 'shop', 'phone', 'partner'][1 + i * 11 % 4] AS channel,
    DATE '2020-01-01' + (random() * 1400)::INT AS joined,
    CASE WHEN random() < 0.2 + 0.3 * (i % 7) / 7 + 0.2 * (i % 5 = 1)::INT THEN 'yes' ELSE 'no' END AS churned
FROM range(1, {rows} + 1) t(i)
"""


def raw(size: str) -> Path:
    return STAGES / size / "customers.csv"


def features(size: str) -> Path:
    """What our own prepare has left, for everybody's predict."""
    return STAGES / size / "features"


def ours_prepare(size: str, cores: int, out: Path) -> None:
    from bench.ours import prepare_customers

    prepare_customers(raw(size), out)


def ours_model(size: str, cores: int, out: Path) -> None:
    from bench.ours import tree_of_customers

    write_json(MODEL, tree_of_customers(features(size)))


def ours_predict(size: str, cores: int, out: Path) -> None:
    from bench.ours import predict_customers

    predict_customers(features(size), json.loads(MODEL.read_text()), out)


def spark_prepare(size: str, cores: int, out: Path) -> None:
    """As an expert writes it who trusts the file: texts, casts, a hash of the key, Parquet; keys counted; no order."""
    from pyspark.sql import functions as F

    from bench.ours import plain_session

    spark = plain_session()
    texts = spark.read.csv(str(raw(size)), header=True)
    rows = texts.select([F.expr(f"try_cast({name} AS {kind})").alias(name) for name, kind in KINDS.items()])
    rows = rows.drop("joined").withColumn("churned", (F.col("churned") == "yes").cast("int"))
    rows.withColumn("split_hash", F.xxhash64("id")).write.parquet(str(out / "features"))
    written = spark.read.parquet(str(out / "features"))
    if written.count() != written.select("id").distinct().count():
        raise ValueError("a key twice")


def spark_predict(size: str, cores: int, out: Path) -> None:
    """Reads what a tree would look at and writes as many columns as a prediction has; it scores nothing."""
    from pyspark.sql import functions as F

    from bench.ours import plain_session

    rows = plain_session().read.parquet(str(features(size)))
    share = F.coalesce(F.col("income") / 100000, F.lit(0.5)) * F.length(F.concat("region", "city", "channel")) / 40
    some = share + (F.col("age") + F.coalesce("visits", F.lit(0)) + F.col("spend") + F.col("balance")) * 0.0001
    side = F.when(F.xxhash64("id") % 5 == 0, "test").otherwise("train")
    scored = rows.select("id", some.alias("probability"), (some >= 0.5).cast("int").alias("prediction"))
    scored.select("*", side.alias("side"), F.lit("run").alias("model_run")).write.parquet(str(out / "predictions"))


def duckdb_prepare(size: str, cores: int, out: Path) -> None:
    import duckdb

    db = duckdb.connect(config={"threads": cores})
    to = out / "features.parquet"
    casts = ", ".join(f"TRY_CAST({n} AS {k}) AS {n}" for n, k in KINDS.items() if n not in ("joined", "churned"))
    rows = f"SELECT {casts}, (churned = 'yes')::INT AS churned, hash(id) AS split_hash FROM read_csv('{raw(size)}', all_varchar = true)"  # noqa: S608, E501
    db.execute(f"COPY ({rows}) TO '{to}'")
    (count, keys), *_ = db.execute(f"SELECT count(*), count(DISTINCT id) FROM '{to}'").fetchall()  # noqa: S608
    if count != keys:
        raise ValueError("a key twice")


def duckdb_predict(size: str, cores: int, out: Path) -> None:
    import duckdb

    share = "coalesce(income / 100000, 0.5) * length(concat(region, city, channel)) / 40"
    some = f"{share} + (age + coalesce(visits, 0) + spend + balance) * 0.0001"
    rows = f"SELECT id, {some} AS probability, (probability >= 0.5)::INT AS prediction, if(hash(id) % 5 = 0, 'test', 'train') AS side, 'run' AS model_run FROM '{features(size)}/*.parquet'"  # noqa: S608, E501
    duckdb.connect(config={"threads": cores}).execute(f"COPY ({rows}) TO '{out / 'predictions.parquet'}'")


RUN: dict[tuple[str, str], Callable[[str, int, Path], None]] = {
    ("ours", "prepare"): ours_prepare,
    ("ours", "model"): ours_model,
    ("ours", "predict"): ours_predict,
    ("spark", "prepare"): spark_prepare,
    ("spark", "predict"): spark_predict,
    ("duckdb", "prepare"): duckdb_prepare,
    ("duckdb", "predict"): duckdb_predict,
}


def make(size: str) -> None:
    """The file of this size, always the same one."""
    import duckdb

    if raw(size).is_file():
        return
    raw(size).parent.mkdir(parents=True, exist_ok=True)
    half = raw(size).with_suffix(".half")
    db = duckdb.connect(config={"threads": 1})
    db.execute("SELECT setseed(0.42)")
    db.execute(f"COPY ({TABLE.format(rows=SIZES[size])}) TO '{half}' (FORMAT csv, HEADER)")
    half.replace(raw(size))


def run(contender: str, stage: str, size: str, cores: int) -> dict[str, Any]:
    from bench.__main__ import PLAIN_JAVA, environment
    from dml.local.spark.process import java_options

    java = java_options(raw(size).stat().st_size) if contender == "ours" else PLAIN_JAVA
    name = f"stages-{contender}-{stage}-{size}-{cores}"
    result = BENCH / "work" / f"{name}.json"
    return measure(
        [sys.executable, "-m", "bench.stages", "--one", contender, stage, size, str(cores), str(result)],
        result=result,
        log=BENCH / "logs" / f"{name}.log",
        environment=environment(cores, java=java),
        cwd=HOME,
    )


def one(contender: str, stage: str, size: str, cores: str, result: str) -> None:
    out = STAGES / "out"
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    RUN[contender, stage](size, int(cores), out)
    write_json(Path(result), {"finished": time.monotonic()})
    if (contender, stage) == ("ours", "prepare"):
        shutil.rmtree(features(size), ignore_errors=True)
        next(out.glob("*/features/*")).rename(features(size))
    shutil.rmtree(out)


def ranges(size: str) -> dict[str, float]:
    """Seconds to read the file in ranges from disk and from the embedded cloud's S3, and the cloud's memory (MB)."""
    from dml.local.clients import client
    from dml.local.cloud import Cloud

    file, total = raw(size), raw(size).stat().st_size
    starts = range(0, total, WINDOW)
    began = time.monotonic()
    with file.open("rb") as opened:
        while opened.read(WINDOW):
            pass
    disk = time.monotonic() - began
    with TemporaryDirectory(dir=STAGES) as folder:
        cloud = Cloud(Path(folder))
        cloud.up(_free_port())
        try:
            s3 = client(cloud, "s3")
            s3.create_bucket(Bucket="ranges")
            began = time.monotonic()
            s3.upload_file(str(file), "ranges", "file")
            upload = time.monotonic() - began
            began = time.monotonic()
            for start in starts:
                s3.get_object(Bucket="ranges", Key="file", Range=f"bytes={start}-{start + WINDOW - 1}")["Body"].read()
            read = time.monotonic() - began
            memory = max(_peak(pid) for pid in _of(folder))
        finally:
            cloud.down()
    return {"bytes": total, "disk": disk, "upload": upload, "s3": read, "cloud_mb": memory}


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _of(folder: str) -> list[int]:
    """The processes that the folder's cloud consists of."""
    found = []
    for place in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if folder.encode() in (place / "cmdline").read_bytes() + (place / "environ").read_bytes():
                found.append(int(place.name))
    return [pid for pid in found if pid != os.getpid()]


def _peak(pid: int) -> float:
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("VmHWM"):
                return int(line.split()[1]) / 1024
    return 0.0


def main() -> int:
    parser = argparse.ArgumentParser(prog="bench.stages", description=__doc__, allow_abbrev=False)
    parser.add_argument("--rows", default=",".join(SIZES), help=f"sizes, of {','.join(SIZES)}")
    parser.add_argument("--cores", default=",".join(map(str, CORES)))
    parser.add_argument("--repetitions", type=int, default=1)
    parser.add_argument("--one", nargs=5, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.one:
        one(*args.one)
        return 0
    from bench.__main__ import RESULTS, machine, revision, say

    signal.signal(signal.SIGTERM, signal.default_int_handler)  # ended is interrupted: no contender outlives the harness
    sizes, cores = args.rows.split(","), [int(number) for number in args.cores.split(",")]
    kept = Kept(RESULTS, "stages", revision())
    for repetition, size in itertools.product(range(1, args.repetitions + 1), sizes):
        make(size)
        for each, stage, contender in itertools.product(cores, ("prepare", "predict"), CONTENDERS):
            if stage == "predict" and not MODEL.is_file():
                run("ours", "model", size, each)
            own = {"contender": contender, "stage": stage, "size": size, "cores": each, "repetition": repetition}
            if kept.has(own):
                continue
            found = run(contender, stage, size, each)
            say(f"{stage} by {contender}, {size}, {each} cores: {found}")
            kept.told["load"] = os.getloadavg()[2]
            kept.add(own, found, SIZES[size], SIZES, machine())
    kept.told["ranges"] = ranges(sizes[-1])
    kept.write()
    page = HOME / "docs" / "benchmarks.md"
    page.write_text(report.with_section(page.read_text(), report.STAGES, report.stages(kept.told)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
