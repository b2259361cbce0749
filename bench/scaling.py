"""How training time falls with the number of executors: `python -m bench.scaling [ROWS]`, on a quiet machine.

A standalone cluster on loopback, one core an executor, S3 by the embedded cloud: the same features are trained on with
one executor and with two. Both share this machine's memory bus and one S3 gateway, so that the figures are a lower
bound of what machines of their own give. On less than four cores driver and gateway take from the second executor.
"""

import sys
import tempfile
from pathlib import Path

from dml.local.cloud import Cloud
from dml.local.spark.process import cores
from tests.distributed.standalone import Standalone, Submitted
from tests.embedded import Clients, free_port
from tests.shipped import Shipped, many_points

EXECUTORS = (1, 2)


def main(rows: int) -> None:
    """Prints the seconds of each phase, for each number of executors."""
    with tempfile.TemporaryDirectory() as folder:
        cloud, cluster = Cloud(Path(folder, "cloud")), Standalone(Path(folder, "cluster"))
        try:
            cloud.up(free_port())
            cluster.start()
            shipped = Shipped(cloud, Clients(cloud), Path(folder), "scaling", ("depth = 3", "depth = 10"))
            shipped.upload(list(many_points(rows)))
            shipped.run("prepare", "features", process=Submitted, settings=cluster.settings())
            print(f"{rows:,} rows; {cores()} cores here; seconds of each phase of train.py")
            for count in EXECUTORS:
                settings = cluster.settings() | {"spark.cores.max": str(count)}
                shipped.run("train", f"on-{count}", process=Submitted, settings=settings)
                seconds = shipped.model(f"on-{count}", "metrics.json")["seconds"]
                told = ", ".join(f"{phase} {value:.1f}" for phase, value in seconds.items())
                print(f"{count} executor{'s' * (count > 1)}: {told}", flush=True)
        finally:
            cluster.stop()
            cloud.down()


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 1_000_000)
