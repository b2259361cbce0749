"""What a cluster is, said once at synth time and rendered twice: as a template and as createCluster's parameters."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from aws_cdk import aws_emr as emr

from stacks.network import EmrGroups

RELEASE = "emr-7.13.0"  # Spark 3.5.6, Zeppelin 0.11.1, Python 3.11; one Spark with GLUE_VERSION in stacks/etl.py
PYTHON = "/opt/dml/python/bin/python"  # made by cluster/bootstrap.sh on every node
ROOT_VOLUME_GIB = 30

GLUE_METASTORE = "com.amazonaws.glue.catalog.metastore.AWSGlueDataCatalogHiveClientFactory"
ZEPPELIN_USER = "zeppelin"  # a folder in the workspace bucket, not a person: notes lie under zeppelin/notebook/
ZEPPELIN_ON_S3 = "org.apache.zeppelin.notebook.repo.S3NotebookRepo"
ZEPPELIN_IDLE = "org.apache.zeppelin.interpreter.lifecycle.TimeoutLifecycleManager"


@dataclass(frozen=True)
class Configuration:
    """One of EMR's configuration classifications. Environment variables go into a nested one called `export`."""

    classification: str
    properties: Mapping[str, str] = field(default_factory=dict)
    configurations: Sequence["Configuration"] = ()


@dataclass(frozen=True)
class ClusterDefinition:
    """A cluster of one primary node and managed core nodes, in one private subnet."""

    name: str
    applications: Sequence[str]
    configurations: Sequence[Configuration]
    instance_type: str
    minimum_nodes: int
    maximum_nodes: int
    volume_gib: int
    idle_seconds: int
    subnet_id: str
    groups: EmrGroups
    service_role: str
    instance_profile: str
    log_uri: str
    bootstrap_script: str
    bootstrap_arguments: Sequence[str]
    tags: Mapping[str, str]


def spark_configurations() -> list[Configuration]:
    """Spark with the Glue catalog as its metastore and our Python on every node, for jobs and notes alike."""
    python = {"PYSPARK_PYTHON": PYTHON, "PYSPARK_DRIVER_PYTHON": PYTHON}
    return [
        Configuration("spark-hive-site", {"hive.metastore.client.factory.class": GLUE_METASTORE}),
        Configuration("spark-env", configurations=[Configuration("export", python)]),
        Configuration(
            "spark-defaults",
            {"spark.yarn.appMasterEnv.PYSPARK_PYTHON": PYTHON, "spark.executorEnv.PYSPARK_PYTHON": PYTHON},
        ),
    ]


def zeppelin_configurations(*, bucket: str, region: str, idle_seconds: int) -> list[Configuration]:
    """Zeppelin with its notes on S3, and Spark sessions that end when nobody uses them.

    A live session is a YARN application: without that end the cluster never counts as idle and never ends itself.
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
    return [
        Configuration("zeppelin-env", configurations=[Configuration("export", storage)]),
        Configuration("zeppelin-site", idle),
    ]


def with_zeppelin(
    cluster: ClusterDefinition, *, name: str, idle_seconds: int, bucket: str, region: str
) -> ClusterDefinition:
    """The workbench: the same cluster with Zeppelin on it, that waits longer for work."""
    zeppelin = zeppelin_configurations(bucket=bucket, region=region, idle_seconds=idle_seconds // 2)
    return replace(
        cluster,
        name=name,
        idle_seconds=idle_seconds,
        applications=[*cluster.applications, "Zeppelin"],
        configurations=[*cluster.configurations, *zeppelin],
    )


def template_properties(cluster: ClusterDefinition, *, security_configuration: str) -> dict[str, Any]:
    """The arguments of CfnCluster."""

    def group(count: int) -> emr.CfnCluster.InstanceGroupConfigProperty:
        volume = emr.CfnCluster.VolumeSpecificationProperty(size_in_gb=cluster.volume_gib, volume_type="gp3")
        return emr.CfnCluster.InstanceGroupConfigProperty(
            instance_count=count,
            instance_type=cluster.instance_type,
            market="ON_DEMAND",
            ebs_configuration=emr.CfnCluster.EbsConfigurationProperty(
                ebs_block_device_configs=[
                    emr.CfnCluster.EbsBlockDeviceConfigProperty(volume_specification=volume, volumes_per_instance=1)
                ]
            ),
        )

    def configuration(given: Configuration) -> emr.CfnCluster.ConfigurationProperty:
        return emr.CfnCluster.ConfigurationProperty(
            classification=given.classification,
            configuration_properties=dict(given.properties),
            configurations=[configuration(nested) for nested in given.configurations] or None,
        )

    return {
        "name": cluster.name,
        "release_label": RELEASE,
        "applications": [emr.CfnCluster.ApplicationProperty(name=name) for name in cluster.applications],
        "configurations": [configuration(given) for given in cluster.configurations],
        "instances": emr.CfnCluster.JobFlowInstancesConfigProperty(
            master_instance_group=group(1),
            core_instance_group=group(cluster.minimum_nodes),
            ec2_subnet_id=cluster.subnet_id,
            emr_managed_master_security_group=cluster.groups.primary,
            emr_managed_slave_security_group=cluster.groups.core,
            service_access_security_group=cluster.groups.service,
            keep_job_flow_alive_when_no_steps=True,
            termination_protected=False,
        ),
        "service_role": cluster.service_role,
        "job_flow_role": cluster.instance_profile,
        "security_configuration": security_configuration,
        "log_uri": cluster.log_uri,
        "bootstrap_actions": [
            emr.CfnCluster.BootstrapActionConfigProperty(
                name="dml",
                script_bootstrap_action=emr.CfnCluster.ScriptBootstrapActionConfigProperty(
                    path=cluster.bootstrap_script, args=list(cluster.bootstrap_arguments)
                ),
            )
        ],
        "managed_scaling_policy": emr.CfnCluster.ManagedScalingPolicyProperty(
            compute_limits=emr.CfnCluster.ComputeLimitsProperty(
                unit_type="Instances",
                minimum_capacity_units=cluster.minimum_nodes,
                maximum_capacity_units=cluster.maximum_nodes,
            )
        ),
        "auto_termination_policy": emr.CfnCluster.AutoTerminationPolicyProperty(idle_timeout=cluster.idle_seconds),
        "ebs_root_volume_size": ROOT_VOLUME_GIB,
        "step_concurrency_level": 1,
        "visible_to_all_users": True,
    }


def request_parameters(cluster: ClusterDefinition, *, security_configuration: str) -> dict[str, Any]:
    """The parameters of elasticmapreduce:createCluster, which are those of EMR's RunJobFlow."""

    def group(role: str, count: int) -> dict[str, Any]:
        volume = {"VolumeType": "gp3", "SizeInGB": cluster.volume_gib}
        return {
            "InstanceRole": role,
            "InstanceCount": count,
            "InstanceType": cluster.instance_type,
            "Market": "ON_DEMAND",
            "EbsConfiguration": {"EbsBlockDeviceConfigs": [{"VolumeSpecification": volume, "VolumesPerInstance": 1}]},
        }

    def configuration(given: Configuration) -> dict[str, Any]:
        nested = [configuration(inner) for inner in given.configurations]
        return {"Classification": given.classification, "Properties": dict(given.properties)} | (
            {"Configurations": nested} if nested else {}
        )

    return {
        "Name": cluster.name,
        "ReleaseLabel": RELEASE,
        "Applications": [{"Name": name} for name in cluster.applications],
        "Configurations": [configuration(given) for given in cluster.configurations],
        "Instances": {
            "InstanceGroups": [group("MASTER", 1), group("CORE", cluster.minimum_nodes)],
            "Ec2SubnetId": cluster.subnet_id,
            "EmrManagedMasterSecurityGroup": cluster.groups.primary,
            "EmrManagedSlaveSecurityGroup": cluster.groups.core,
            "ServiceAccessSecurityGroup": cluster.groups.service,
            "KeepJobFlowAliveWhenNoSteps": True,
            "TerminationProtected": False,
        },
        "ServiceRole": cluster.service_role,
        "JobFlowRole": cluster.instance_profile,
        "SecurityConfiguration": security_configuration,
        "LogUri": cluster.log_uri,
        "BootstrapActions": [
            {
                "Name": "dml",
                "ScriptBootstrapAction": {"Path": cluster.bootstrap_script, "Args": list(cluster.bootstrap_arguments)},
            }
        ],
        "ManagedScalingPolicy": {
            "ComputeLimits": {
                "UnitType": "Instances",
                "MinimumCapacityUnits": cluster.minimum_nodes,
                "MaximumCapacityUnits": cluster.maximum_nodes,
            }
        },
        "AutoTerminationPolicy": {"IdleTimeout": cluster.idle_seconds},
        "EbsRootVolumeSize": ROOT_VOLUME_GIB,
        "StepConcurrencyLevel": 1,
        "VisibleToAllUsers": True,
        "Tags": [{"Key": key, "Value": value} for key, value in cluster.tags.items()],
    }
