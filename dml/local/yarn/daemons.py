"""The YARN of one EMR cluster: Hadoop's own ResourceManager and NodeManagers on this machine, in their own network.

They are set up as EMR sets them up, as far as documents say so, and by the cluster's own configuration classifications.
What is of this machine's size, and what makes up for a service that EMR has besides, stands apart. A NodeManager is one
core node; it has a loopback address of its own, so that YARN and Spark see several hosts.
"""

import http.client
import json
import shutil
import subprocess
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape

from dml.errors import UserError
from dml.local.place import PROGRAM
from dml.local.spark.process import JAVA_ARCHIVE, SPARK_ARCHIVE, UNSEEN, java_home, package
from dml.local.yarn.namespace import PROGRAMS, Namespace, Relay
from dml.terminal.words import last_line

SERVER = "org.apache.hadoop.yarn.server"
RESOURCE_MANAGER = f"{SERVER}.resourcemanager.ResourceManager"
NODE_MANAGER = f"{SERVER}.nodemanager.NodeManager"
ADMIN = "org.apache.hadoop.yarn.client.cli.RMAdminCLI"
WEB = 8088
START_SECONDS = 180.0
HEAP_MB = 192  # of a daemon
FAST = f"-XX:+UseSerialGC -XX:TieredStopAtLevel=1 {UNSEEN}"
# The archive of Spark's classes is for class paths that begin with Spark's jars.
FAST_SPARK = f"{FAST} -XX:SharedArchiveFile={JAVA_ARCHIVE}:{SPARK_ARCHIVE}"

# EMR's, and not YARN's default. Sources: EMR Release Guide, "Task configuration" (the least allocation) and "Configure
# Spark" (the overhead of executors, what a full heap does); EMR Management Guide, "Node labels".
LABEL = "yarn.node-labels.am.default-node-label-expression"  # only EMR's YARN knows it; here Spark asks for the label
SITE = {
    "yarn.scheduler.minimum-allocation-mb": "32",
    "yarn.scheduler.maximum-allocation-vcores": "128",
    "yarn.resourcemanager.scheduler.class": f"{SERVER}.resourcemanager.scheduler.capacity.CapacityScheduler",
    "yarn.nodemanager.vmem-check-enabled": "false",
}
SPARK = {
    "spark.master": "yarn",
    "spark.dynamicAllocation.enabled": "true",
    "spark.executor.memoryOverheadFactor": "0.1875",
}
OUT_OF_MEMORY = "-XX:OnOutOfMemoryError='kill -9 %p'"

# This machine's.
HERE = {
    "yarn.resourcemanager.hostname": "127.0.0.1",
    "yarn.resourcemanager.bind-host": "127.0.0.1",
    "yarn.node-labels.configuration-type": "distributed",
    "yarn.nodemanager.node-labels.resync-interval-ms": "1000",
    "yarn.resourcemanager.nodemanagers.heartbeat-interval-ms": "200",
    # By default cgroups are to look at a container's memory, and where there are none nobody does (YARN-11967).
    "yarn.nodemanager.resource.memory.enforced": "false",
    "yarn.nodemanager.container-monitor.interval-ms": "500",
    "yarn.nodemanager.disk-health-checker.max-disk-utilization-per-disk-percentage": "99",
    "yarn.nodemanager.log.retain-seconds": str(10 * 365 * 86_400),  # containers' logs are kept with the cloud's others
    # A container's launch script has its environment, and so the role's keys: it is not copied among the logs.
    "yarn.nodemanager.log-container-debug-info.enabled": "false",
}
SPARK_HERE = {
    "spark.ui.enabled": "false",
    "spark.dynamicAllocation.shuffleTracking.enabled": "true",  # EMR's nodes have Spark's shuffle service
    "spark.dynamicAllocation.maxExecutors": "1",  # one of two cores is cheaper than two of one
    "spark.driver.memory": "1g",
    "spark.executor.memory": "1g",
    "spark.executor.cores": "2",
    "spark.yarn.appMasterEnv.SPARK_LOCAL_IP": "127.0.0.1",
    "spark.driver.host": "127.0.0.1",
    "spark.sql.sources.ignoreDataLocality": "true",  # S3 has none, and asking costs a call for each file
    "spark.hadoop.io.file.buffer.size": str(128 * 1024),
}
QUEUES = {
    "yarn.scheduler.capacity.root.queues": "default",
    "yarn.scheduler.capacity.root.default.capacity": "100",
    "yarn.scheduler.capacity.node-locality-delay": "0",
}


def spark_jars() -> str:
    return f"{package('pyspark')}/jars/*"


class Yarn:
    """One cluster's YARN; started when it is first needed, and ended with its cluster or its server."""

    def __init__(
        self,
        *,
        folder: Path,
        logs: Path,
        jars: Path,
        port: int,
        python: str,
        configurations: Sequence[Mapping[str, Any]],
        labels: Sequence[str] = ("ON_DEMAND",),
        node_mb: int = 8192,
    ) -> None:
        """`folder` has what the daemons and containers write, `logs` what they print; `jars` are those of `jars.ready`.

        `port`: the embedded cloud's, which is reached in here too. `python`: that of the nodes. `configurations`: as
        DescribeCluster tells them. `labels`: of each node, where the cluster enables node labels. `node_mb`: what YARN
        has of each; this machine may have less, and containers are held to what they have asked for.
        """
        self._folder = folder.absolute()
        self.logs = logs.absolute()
        self._jars = jars
        self._port = port
        self.python = python
        self._given = {one["Classification"]: dict(one.get("Properties", {})) for one in configurations}
        self._labels, self._node_mb = labels, node_mb
        self._lock = threading.Lock()
        self._ending = False
        self._namespace: Namespace | None = None
        self._daemons: dict[str, subprocess.Popen[bytes]] = {}
        self._ends = ExitStack()
        self.conf = self._folder / "conf"

    def up(self) -> Namespace:
        """Its network, when every node is there. Raises UserError with the place of the logs if one does not come."""
        with self._lock:
            if self._namespace and not self._ended():
                return self._namespace
            self._end()
            try:
                self._namespace = self._start()
            except BaseException:
                self._end()
                raise
            return self._namespace

    def down(self) -> None:
        """Ends the daemons and every container, for good; also while they start."""
        self._ending = True
        with self._lock:
            self._end()

    def keep(self, ending: Any) -> None:
        """`ending` has an `end` that is called when this YARN ends."""
        self._ends.callback(ending.end)

    def defaults(self, environment: Mapping[str, str]) -> dict[str, str]:
        """spark-defaults.conf of a node.

        `environment`: what its containers are given, as on EMR the region and the instance profile's keys.
        """
        heap = f"{OUT_OF_MEMORY} {FAST_SPARK}"
        conf = {
            **SPARK,
            **SPARK_HERE,
            "spark.yarn.jars": f"local:{spark_jars()}",
            "spark.driver.extraClassPath": spark_jars(),
            "spark.executor.extraClassPath": spark_jars(),
            "spark.yarn.stagingDir": (self._folder / "staging").as_uri(),
            "spark.driver.defaultJavaOptions": heap,
            "spark.executor.defaultJavaOptions": heap,
            **self._given.get("spark-defaults", {}),
        }
        if label := self._given.get("yarn-site", {}).get(LABEL):
            conf["spark.yarn.am.nodeLabelExpression"] = label
        for where in ("spark.yarn.appMasterEnv", "spark.executorEnv"):
            conf |= {f"{where}.{name}": value for name, value in environment.items()}
            conf[f"{where}.PYSPARK_PYTHON"] = self.python
        return conf

    @property
    def _labelled(self) -> bool:
        return self._given.get("yarn-site", {}).get("yarn.node-labels.enabled") == "true"

    def _start(self) -> Namespace:
        shutil.rmtree(self._folder, ignore_errors=True)  # of one that was killed with its server
        for folder in (self._folder / "tmp", self._folder / "staging", self.logs / "containers"):
            folder.mkdir(parents=True, exist_ok=True)
        self.configure()
        namespace = Namespace(self._folder)
        namespace.start()
        self._ends.callback(namespace.end)
        self._ends.callback(Relay.outwards(namespace.listen(self._port), self._port).close)
        self._start_daemon(namespace, "resourcemanager", RESOURCE_MANAGER, self.conf)
        for number, _ in enumerate(self._labels):
            self._start_daemon(namespace, f"nodemanager-{number}", NODE_MANAGER, self._folder / f"conf-{number}")
        if self._labelled:
            self._make_labels(namespace)
        self._wait(namespace)
        return namespace

    def _end(self) -> None:
        self._ends.close()
        for daemon in self._daemons.values():
            daemon.wait()
        self._daemons, self._namespace = {}, None
        shutil.rmtree(self._folder, ignore_errors=True)

    def configure(self) -> None:
        """Writes what the daemons and spark-submit read."""
        memory = str(self._node_mb)
        site = {
            **SITE,
            **HERE,
            "yarn.nodemanager.resource.memory-mb": memory,
            "yarn.scheduler.maximum-allocation-mb": memory,
            "yarn.node-labels.fs-store.root-dir": (self._folder / "node-labels").as_uri(),
            **self._given.get("yarn-site", {}),
        }
        queues = QUEUES | self._given.get("capacity-scheduler", {})
        for label in dict.fromkeys(self._labels) if self._labelled else ():
            for queue in ("root", "root.default"):
                queues[f"yarn.scheduler.capacity.{queue}.accessible-node-labels"] = "*"
                queues[f"yarn.scheduler.capacity.{queue}.accessible-node-labels.{label}.capacity"] = "100"
        self._write(self.conf, site, queues)
        for number, label in enumerate(self._labels):
            host, node = f"127.0.0.{number + 2}", self._folder / f"node-{number}"
            own = {
                "yarn.nodemanager.hostname": host,
                "yarn.nodemanager.bind-host": host,
                "yarn.nodemanager.address": f"{host}:8041",
                "yarn.nodemanager.local-dirs": str(node),
                "yarn.nodemanager.log-dirs": str(self.logs / "containers"),
            }
            if self._labelled:
                own["yarn.nodemanager.node-labels.provider"] = "config"
                own["yarn.nodemanager.node-labels.provider.configured-node-partition"] = label
            self._write(self._folder / f"conf-{number}", site | own, queues)

    def _write(self, folder: Path, site: Mapping[str, str], queues: Mapping[str, str]) -> None:
        folder.mkdir(exist_ok=True)
        # Who starts first waits for the others.
        retries = {"ipc.client.connect.retry.interval": "300", "ipc.client.connect.max.retries": "600"}
        core = {"fs.defaultFS": "file:///", "hadoop.tmp.dir": str(self._folder / "tmp"), **retries}
        for name, properties in (("core-site", core), ("yarn-site", site), ("capacity-scheduler", queues)):
            body = "".join(
                f"<property><name>{escape(key)}</name><value>{escape(value)}</value></property>\n"
                for key, value in properties.items()
            )
            (folder / f"{name}.xml").write_text(f"<configuration>\n{body}</configuration>\n", encoding="utf-8")

    def _java(self, conf: Path, *words: str) -> list[str]:
        options = [
            f"-Djava.io.tmpdir={self._folder / 'tmp'}",
            "-Djava.net.preferIPv4Stack=true",
            "--add-opens=java.base/java.lang=ALL-UNNAMED",  # for Guice 4.0
        ]
        fast = [*FAST.split(), f"-XX:SharedArchiveFile={JAVA_ARCHIVE}"]
        # Theirs come first: pyspark has a web proxy that is made for another servlet API.
        jars = f"{self._jars}/*:{spark_jars()}:{conf}"
        return [f"{java_home()}/bin/java", f"-Xmx{HEAP_MB}m", *fast, *options, "-cp", jars, *words]

    def _environment(self) -> dict[str, str]:
        return {
            "PATH": PROGRAMS,
            "HOME": str(self._folder),
            "JAVA_HOME": str(java_home()),
            "HADOOP_USER_NAME": "hadoop",
            **PROGRAM,
        }

    def _start_daemon(self, namespace: Namespace, name: str, main: str, conf: Path) -> None:
        with self._log(name).open("ab") as log:
            self._daemons[name] = subprocess.Popen(
                namespace.command(
                    self._java(conf, f"-Dlog4j2.configurationFile={self._log_settings()}", main), self._folder
                ),
                env=self._environment(),
                cwd=self._folder,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def _log(self, name: str) -> Path:
        return self.logs / f"{name}.log"

    def _ended(self) -> list[str]:
        return [name for name, daemon in self._daemons.items() if daemon.poll() is not None]

    def _log_settings(self) -> Path:
        file = self._folder / "daemons.properties"
        file.write_text(
            "rootLogger.level=INFO\nrootLogger.appenderRef.c.ref=c\nappender.c.type=Console\nappender.c.name=c\n"
            "appender.c.layout.type=PatternLayout\nappender.c.layout.pattern=%d %p %c{1}: %m%n%ex\n"
        )
        return file

    def _make_labels(self, namespace: Namespace) -> None:
        """As EMR's own set-up does; a node that has told its label before it existed tells it again in a second."""
        names = ",".join(f"{label}(exclusive=false)" for label in dict.fromkeys(self._labels))
        made = subprocess.run(
            namespace.command(self._java(self.conf, ADMIN, "-addToClusterNodeLabels", names), self._folder),
            env=self._environment(),
            cwd=self._folder,
            capture_output=True,
            text=True,
            check=False,
        )
        if made.returncode:
            raise UserError(f"YARN did not take the node labels {names}: {last_line(made.stderr) or made.returncode}")

    def _wait(self, namespace: Namespace) -> None:
        deadline = time.monotonic() + START_SECONDS
        while not self._ending and time.monotonic() < deadline and not self._ended():
            ready = [node for node in self._nodes(namespace) if node.get("nodeLabels") or not self._labelled]
            if len(ready) == len(self._labels):
                return
            time.sleep(0.5)
        if self._ending:
            raise UserError("The cluster was ended before its YARN had started.")
        ended = [f"its {name} ended (log: {self._log(name)})" for name in self._ended()]
        late = f"its nodes were not there within {START_SECONDS:.0f} s (logs: {self.logs})"
        raise UserError(f"YARN did not start: {' and '.join(ended) or late}.")

    def _nodes(self, namespace: Namespace) -> list[dict[str, Any]]:
        """The nodes that run, as the ResourceManager tells them; none while it does not answer."""
        connection = http.client.HTTPConnection("127.0.0.1", WEB, timeout=5)
        try:
            connection.sock = namespace.connect(WEB)
            connection.request("GET", "/ws/v1/cluster/nodes")
            told = json.loads(connection.getresponse().read())["nodes"]
        except (OSError, http.client.HTTPException, ValueError, KeyError):
            return []
        finally:
            connection.close()
        nodes = (told or {}).get("node", []) if isinstance(told, dict) else told or []
        return [node for node in nodes if node["state"] == "RUNNING"]
