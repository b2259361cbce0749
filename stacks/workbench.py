"""The workbench, made at synth time: the long-lived cluster with Zeppelin on it, and the parameter that says its id.

It is deployed after all datasets, so that it starts with the notes of each (stacks/dataset.py); none of them needs it.
"""

import aws_cdk as cdk
from aws_cdk import aws_emr as emr
from aws_cdk import aws_sns as sns
from aws_cdk import aws_ssm as ssm
from constructs import Construct

from stacks import code
from stacks.cluster import ClusterStack
from stacks.data import DataStack
from stacks.emr import Place, request, template_properties, with_zeppelin
from stacks.findings import SAID_TWICE, accept, accept_in_template
from stacks.network import NetworkStack
from stacks.observability import alarm_on_workbench
from stacks.outputs import Output
from stacks.settings import Environment, workbench_parameter

NO_WORKBENCH = "none"


class WorkbenchStack(cdk.Stack):
    """The workbench, if the environment has one, and where its id is found; either way `dml pause` takes it away."""

    def __init__(
        self,
        scope: Construct,
        id: str,
        *,
        environment: Environment,
        cluster: ClusterStack,
        network: NetworkStack,
        data: DataStack,
        topic: sns.ITopic,
    ) -> None:
        super().__init__(scope, id, synthesizer=code.synthesizer(environment))
        self.add_stack_dependency(cluster)  # rights and parameters are there before it starts, and until it is gone
        self._environment, self._shared, self._network, self._data = environment, cluster, network, data
        workbench = self._workbench() if environment.workbench.enabled else None
        if workbench:
            alarm_on_workbench(self, cluster_id=workbench.ref, topic=topic)
        parameter = ssm.StringParameter(
            self,
            "WorkbenchId",
            parameter_name=workbench_parameter(environment),
            string_value=workbench.ref if workbench else NO_WORKBENCH,
            description=f"Id of the workbench cluster, or {NO_WORKBENCH}",
        )
        cdk.CfnOutput(self, "WorkbenchIdParameter", value=parameter.parameter_name).override_logical_id(
            Output.WORKBENCH_PARAMETER
        )

    def _workbench(self) -> emr.CfnCluster:
        environment, shared, network = self._environment, self._shared, self._network
        definition = with_zeppelin(
            shared.definition,
            name=f"dml-{environment.name}-workbench",
            place=Place(network.cluster_subnet_ids, network.groups, network.cluster_subnet_ids[0]),
            idle_seconds=environment.workbench.idle_minutes * 60,
            bucket=self._data.workspace.bucket_name,
            region=self.region,
            bootstrap=shared.zeppelin_bootstrap,
        )
        asked = request(definition, security_configuration=shared.security_configuration(self))
        # All of it as CloudFormation names things; what checkers read of a cluster is said in CDK's words too.
        cluster = emr.CfnCluster(
            self,
            "Workbench",
            name=definition.name,
            job_flow_role=definition.instance_profile,
            service_role=definition.service_role,
            log_uri=definition.log_uri,
            instances=emr.CfnCluster.JobFlowInstancesConfigProperty(),
        )
        for key, value in template_properties(asked).items():
            cluster.add_property_override(key, value)
        accept(
            cluster,
            {
                "AwsSolutions-EMR4": "It is encrypted at rest; the rule looks for that where EMR does not take it "
                "(at the top of the security configuration). tests/stacks/test_facts.py looks at the right place.",
                "AwsSolutions-EMR5": "Encrypted in transit where encryption.in_transit says so; the rule looks in the "
                "wrong place here too.",
                "AwsSolutions-EMR6": "Nobody logs in by SSH: no key pair, no open port. Session Manager knows people.",
            },
        )
        accept_in_template(cluster, {"W3005": SAID_TWICE})
        return cluster
