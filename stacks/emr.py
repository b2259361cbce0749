"""What a cluster is, said once at synth time: RunJobFlow's parameters, and from them the workbench's template."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from stacks.network import EmrGroups
from stacks.settings import Cluster, executors_of, overhead_mb

RELEASE = "emr-7.13.0"  # Spark 3.5.6, Zeppelin 0.11.1, Python 3.11; one Spark with GLUE_VERSION in stacks/etl.py
PYTHON = "/opt/dml/python/bin/python"  # made by cluster/bootstrap.sh on every node
ROOT_VOLUME_GIB = 30

# What a driver's Python, outside of Java's heap, may take. It took 193 MB for a small data set, of the 384 MB that are
# the default's least; a tree's counts and a model's figures grow with the columns. Executors keep EMR's 18.75 %, some
# 450 MB a core of the m family, of which a Python worker took 200; those that boost get more (`standing_executors`).
DRIVER_OVERHEAD = "1g"
GLUE_METASTORE = "com.amazonaws.glue.catalog.metastore.AWSGlueDataCatalogHiveClientFactory"
ZEPPELIN_USER = "zeppelin"  # a folder in the workspace bucket, not a person: notes lie under zeppelin/notebook/
ZEPPELIN_ON_S3 = "org.apache.zeppelin.notebook.repo.S3NotebookRepo"
ZEPPELIN_PORTS = (8890, 18890, 18891, 18892)  # of the tunnel's end: EMR's own, and where that is taken
ZEPPELIN_IDLE = "org.apache.zeppelin.interpreter.lifecycle.TimeoutLifecycleManager"


@dataclass(frozen=True)
class Configuration:
    """One of EMR's configuration classifications. Environment variables go into a nested one called `export`."""

    classification: str
    properties: Mapping[str, str] = field(default_factory=dict)
    configurations: Sequence["Configuration"] = ()


@dataclass(frozen=True)
class Place:
    """Where in a network a cluster is started: its subnets and security groups, or texts that say where to find them.

    `subnet` is for a cluster of instance groups, which lives in one zone; for instance fleets EMR chooses one.
    """

    subnets: Sequence[str] | str
    groups: EmrGroups
    subnet: str = ""

    @classmethod
    def of_run(cls) -> "Place":
        """What a state machine knows only when it runs: JSONata over $network, which NetworkStack writes as JSON."""
        groups = EmrGroups(*(f"{{% $network.{name} %}}" for name in ("primary", "core", "service")))
        return cls("{% $network.subnets %}", groups, "{% $network.subnets[0] %}")


def standing_executors(nodes: Cluster) -> list[str]:
    """What spark-submit is told for a step whose executors must all be there at once, and stay (SPARK-24942).

    As many as the nodes may come to hold: those for which there is no room are not waited for, for longer than Spark's
    half a minute (spark.scheduler.maxRegisteredResourcesWaitingTime), and the step learns with those that are there.
    Half of an executor's memory is outside of Java's heap: there a Python worker has the rows that it boosts
    (docs/costs.md), and jobs/learners/boosted.py refuses more rows than fit before YARN would kill it.
    """
    half = overhead_mb(nodes.instance_types)
    told = {
        "spark.dynamicAllocation.enabled": "false",
        "spark.executor.instances": str(nodes.maximum_nodes * executors_of(nodes.instance_types[0])),
        "spark.executor.memory": f"{half}m",
        "spark.executor.memoryOverhead": f"{half}m",
    }
    return [part for name, value in told.items() for part in ("--conf", f"{name}={value}")]


@dataclass(frozen=True)
class ClusterDefinition:
    """A cluster of one primary node, core nodes, and perhaps task nodes on spot, in private subnets of one VPC."""

    name: str
    applications: Sequence[str]
    configurations: Sequence[Configuration]
    nodes: Cluster
    idle_seconds: int
    place: Place
    service_role: str
    instance_profile: str
    log_uri: str
    log_key: str | None
    bootstrap_scripts: Mapping[str, str]  # by name, in their order; each is given the arguments
    bootstrap_arguments: Sequence[str]
    tags: Mapping[str, str]


def spark_configurations(*, spot: bool) -> list[Configuration]:
    """Spark with the Glue catalog as its metastore and our Python on every node, for jobs and notes alike.

    Node labels: an application master on a spot machine would take its whole application along (EMR Management Guide,
    "Node labels"). Where all nodes are on-demand there is nothing to tell apart, and no label that a node might lack.
    Masters may have all memory: of the default's tenth a small cluster has room for one, and a step would wait for a
    note's session, or for what a cancelled step has left, which it is to end ("Queue's AM resource limit exceeded").
    """
    python = {"PYSPARK_PYTHON": PYTHON, "PYSPARK_DRIVER_PYTHON": PYTHON}
    enabled = {"yarn.node-labels.enabled": "true", "yarn.node-labels.am.default-node-label-expression": "ON_DEMAND"}
    return [
        Configuration("spark-hive-site", {"hive.metastore.client.factory.class": GLUE_METASTORE}),
        Configuration("spark-env", configurations=[Configuration("export", python)]),
        *([Configuration("yarn-site", enabled)] if spot else []),
        Configuration("capacity-scheduler", {"yarn.scheduler.capacity.maximum-am-resource-percent": "1"}),
        Configuration(
            "spark-defaults",
            {
                "spark.yarn.appMasterEnv.PYSPARK_PYTHON": PYTHON,
                "spark.executorEnv.PYSPARK_PYTHON": PYTHON,
                # YARN's second try would do a failed job over again; whether to try again is for the run to say.
                "spark.yarn.maxAppAttempts": "1",
                "spark.driver.memoryOverhead": DRIVER_OVERHEAD,
            },
        ),
    ]


def zeppelin_configurations(*, bucket: str, region: str, idle_seconds: int) -> list[Configuration]:
    """Zeppelin with its notes on S3, and Spark sessions that end when nobody uses them.

    A live session is a YARN application: without that end the cluster never counts as idle and never ends itself.
    Zeppelin's own default lets a page of any origin ask it with the analyst's browser; here only its own pages do, on
    the ports of 127.0.0.1 that `dml zeppelin` opens. 0.11 lets pages of `localhost` do so too, of any port and whatever
    is set (CorsUtils): they lack the session's cookie as long as nobody logs in at `localhost`.
    """
    storage = {
        "ZEPPELIN_NOTEBOOK_STORAGE": ZEPPELIN_ON_S3,
        "ZEPPELIN_NOTEBOOK_S3_BUCKET": bucket,
        "ZEPPELIN_NOTEBOOK_S3_USER": ZEPPELIN_USER,
        "ZEPPELIN_NOTEBOOK_S3_ENDPOINT": f"s3.{region}.amazonaws.com",
    }
    idle = {
        "zeppelin.interpreter.lifecyclemanager.class": ZEPPELIN_IDLE,
        "zeppelin.interpreter.lifecyclemanager.timeout.threshold": str(idle_seconds * 1000),
        "zeppelin.interpreter.lifecyclemanager.timeout.checkinterval": "60000",
    }
    pages = [f"http://127.0.0.1:{port}" for port in ZEPPELIN_PORTS]
    return [
        Configuration("zeppelin-env", configurations=[Configuration("export", storage)]),
        Configuration("zeppelin-site", {**idle, "zeppelin.server.allowed.origins": ",".join(pages)}),
    ]


def with_zeppelin(
    cluster: ClusterDefinition, *, name: str, place: Place, idle_seconds: int, bucket: str, region: str, bootstrap: str
) -> ClusterDefinition:
    """The workbench: the same cluster with Zeppelin on it, that waits longer for work. `bootstrap`: where
    cluster/zeppelin.sh lies, which has Zeppelin ask for a login."""
    zeppelin = zeppelin_configurations(bucket=bucket, region=region, idle_seconds=idle_seconds // 2)
    return replace(
        cluster,
        name=name,
        place=place,
        idle_seconds=idle_seconds,
        applications=[*cluster.applications, "Zeppelin"],
        configurations=[*cluster.configurations, *zeppelin],
        bootstrap_scripts={**cluster.bootstrap_scripts, "zeppelin": bootstrap},
    )


def request(cluster: ClusterDefinition, *, security_configuration: str) -> dict[str, Any]:
    """EMR's RunJobFlow request, which the state machine makes, too."""
    return {
        "Name": cluster.name,
        "ReleaseLabel": RELEASE,
        "Applications": [{"Name": name} for name in cluster.applications],
        "Configurations": [_configuration(given) for given in cluster.configurations],
        "Instances": {
            **(_fleets(cluster) if cluster.nodes.layout == "fleets" else _groups(cluster)),
            "EmrManagedMasterSecurityGroup": cluster.place.groups.primary,
            "EmrManagedSlaveSecurityGroup": cluster.place.groups.core,
            "ServiceAccessSecurityGroup": cluster.place.groups.service,
            "KeepJobFlowAliveWhenNoSteps": True,
            "TerminationProtected": False,
        },
        "ServiceRole": cluster.service_role,
        "JobFlowRole": cluster.instance_profile,
        "SecurityConfiguration": security_configuration,
        "LogUri": cluster.log_uri,
        **({"LogEncryptionKmsKeyId": cluster.log_key} if cluster.log_key else {}),
        "BootstrapActions": [
            {"Name": name, "ScriptBootstrapAction": {"Path": script, "Args": list(cluster.bootstrap_arguments)}}
            for name, script in cluster.bootstrap_scripts.items()
        ],
        "ManagedScalingPolicy": {"ComputeLimits": _limits(cluster.nodes)},
        "AutoTerminationPolicy": {"IdleTimeout": cluster.idle_seconds},
        "EbsRootVolumeSize": ROOT_VOLUME_GIB,
        "StepConcurrencyLevel": 1,
        "VisibleToAllUsers": True,
        "Tags": [{"Key": key, "Value": value} for key, value in sorted(cluster.tags.items())],
    }


def template_properties(request: Mapping[str, Any]) -> dict[str, Any]:
    """The properties of AWS::EMR::Cluster for a request: the same, but for a few names."""

    def configuration(given: Mapping[str, Any]) -> dict[str, Any]:
        return {
            "Classification": given["Classification"],
            "ConfigurationProperties": given["Properties"],
            **(
                {"Configurations": [configuration(one) for one in nested]}
                if (nested := given.get("Configurations"))
                else {}
            ),
        }

    instances = dict(request["Instances"])
    for kind, role in (("InstanceGroup", "InstanceRole"), ("InstanceFleet", "InstanceFleetType")):
        for member in instances.pop(f"{kind}s", []):
            properties = {key: value for key, value in member.items() if key != role}
            if member[role] == "TASK":
                instances.setdefault(f"Task{kind}s", []).append(properties)
            else:
                instances[f"{member[role].capitalize()}{kind}"] = properties
    configurations = [configuration(given) for given in request["Configurations"]]
    return {**request, "Configurations": configurations, "Instances": instances}


def _configuration(given: Configuration) -> dict[str, Any]:
    nested = [_configuration(inner) for inner in given.configurations]
    return {"Classification": given.classification, "Properties": dict(given.properties)} | (
        {"Configurations": nested} if nested else {}
    )


def _groups(cluster: ClusterDefinition) -> dict[str, Any]:
    (instance_type,) = cluster.nodes.instance_types

    def group(role: str, count: int) -> dict[str, Any]:
        return {
            "InstanceRole": role,
            "InstanceCount": count,
            "InstanceType": instance_type,
            "Market": "ON_DEMAND",
            "EbsConfiguration": _volumes(cluster.nodes),
        }

    return {
        "InstanceGroups": [group("MASTER", 1), group("CORE", cluster.nodes.minimum_nodes)],
        "Ec2SubnetId": cluster.place.subnet,
    }


def _fleets(cluster: ClusterDefinition) -> dict[str, Any]:
    nodes = cluster.nodes

    def fleet(role: str, target: str, launch: Mapping[str, Any], count: int) -> dict[str, Any]:
        # EMR takes priorities where the strategy asks for them, and only there.
        by_priority = any("prioritized" in one["AllocationStrategy"] for one in launch.values())
        return {
            "InstanceFleetType": role,
            target: count,
            "InstanceTypeConfigs": [
                {"InstanceType": name, "EbsConfiguration": _volumes(nodes)}
                | ({"Priority": priority} if by_priority else {})
                for priority, name in enumerate(nodes.instance_types)
            ],
            "LaunchSpecifications": launch,
        }

    on_demand = {"OnDemandSpecification": {"AllocationStrategy": "prioritized"}}
    spot = {
        "SpotSpecification": {
            "AllocationStrategy": nodes.spot_strategy,
            "TimeoutAction": "SWITCH_TO_ON_DEMAND",
            "TimeoutDurationMinutes": 10,
        }
    }
    task = [fleet("TASK", "TargetSpotCapacity", spot, 1)] if nodes.spot_nodes else []  # managed scaling adds the others
    return {
        "InstanceFleets": [
            fleet("MASTER", "TargetOnDemandCapacity", on_demand, 1),
            fleet("CORE", "TargetOnDemandCapacity", on_demand, nodes.minimum_nodes),
            *task,
        ],
        "Ec2SubnetIds": cluster.place.subnets,
    }


def _volumes(nodes: Cluster) -> dict[str, Any]:
    volume = {"VolumeType": "gp3", "SizeInGB": nodes.volume_gib}
    return {"EbsBlockDeviceConfigs": [{"VolumeSpecification": volume, "VolumesPerInstance": 1}]}


def _limits(nodes: Cluster) -> dict[str, Any]:
    """What managed scaling may do. Nodes of one size count as one unit each; the primary node is never counted."""
    limits = {
        "UnitType": "InstanceFleetUnits" if nodes.layout == "fleets" else "Instances",
        "MinimumCapacityUnits": nodes.minimum_nodes,
        "MaximumCapacityUnits": nodes.maximum_nodes,
    }
    if nodes.spot_nodes:
        steady = nodes.maximum_nodes - nodes.spot_nodes
        limits |= {"MaximumOnDemandCapacityUnits": steady, "MaximumCoreCapacityUnits": steady}
    return limits
