"""All that one dataset has of its own, made at synth time, in a stack of its own: it comes and goes with nothing else.

Of the shared stacks it imports buckets, roles, keys and the topic, which stay; the network's ids its runs read from a
parameter. Nothing imports from it.
"""

import aws_cdk as cdk
from aws_cdk import aws_glue as glue
from aws_cdk import aws_ssm as ssm
from constructs import Construct

from jobs.tables.settings import Dataset
from stacks import code
from stacks.data import log_group, removal
from stacks.etl import Etl
from stacks.outputs import database_output
from stacks.pipeline import Pipeline, Shared
from stacks.settings import Environment, database_name, node_parameters


class DatasetStack(cdk.Stack):
    """Database, crawler, Glue job, state machine with its log group, schedule and alarms; notes for the workbench."""

    def __init__(
        self, scope: Construct, id: str, *, environment: Environment, dataset: Dataset, shared: Shared
    ) -> None:
        super().__init__(scope, id, synthesizer=code.synthesizer(environment))
        shipped = code.shipped(self, environment, dataset)
        made = self._database(environment, dataset)
        database = database_name(environment, dataset.name)
        etl = Etl(
            self,
            "Etl",
            environment=environment,
            dataset=dataset,
            database=database,
            shipped=shipped,
            data=shared.data,
        )
        etl.node.add_dependency(made)
        Pipeline(
            self,
            "Pipeline",
            environment=environment,
            dataset=dataset,
            database=database,
            shipped=shipped,
            etl=etl,
            logs=log_group(self, "RunLogs", f"dml-{environment.name}/{dataset.name}", environment, shared.data.key),
            shared=shared,
        )
        ssm.StringParameter(
            self,
            "NodeParameter",
            parameter_name=f"{node_parameters(environment)}/datasets/{dataset.name}",
            string_value=shipped.own_part,
            description=f"What a starting workbench has of {dataset.name}: notes and settings (cluster/bootstrap.sh)",
        )

    def _database(self, environment: Environment, dataset: Dataset) -> glue.CfnDatabase:
        """Its name is said twice: where Glue looks for it, and where CloudFormation does that adopts one it kept."""
        name = database_name(environment, dataset.name)
        database = glue.CfnDatabase(
            self,
            "Database",
            catalog_id=self.account,
            database_name=name,
            database_input=glue.CfnDatabase.DatabaseInputProperty(
                name=name, description=f"{dataset.title} ({environment.name})"
            ),
        )
        database.apply_removal_policy(removal(environment))
        output = database_output(dataset.name)
        cdk.CfnOutput(self, f"{output}Name", value=database.ref).override_logical_id(output)
        return database
