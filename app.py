"""The platform of one environment, put together at synth time: `cdk deploy --all -c env=dev` (or prod) runs this."""

import os
import sys
from collections.abc import Sequence

import aws_cdk as cdk

from datasets import dataset_names, load_dataset
from jobs.tables.settings import Dataset
from stacks.cluster import ClusterStack
from stacks.data import DataStack
from stacks.dataset import DatasetStack
from stacks.names import check_names
from stacks.network import NetworkStack
from stacks.observability import ObservabilityStack
from stacks.outputs import dataset_stack
from stacks.pipeline import Shared
from stacks.settings import Environment, load_environment, tags
from stacks.synth import check, check_partition, check_size, quotas_passed, said_plainly
from stacks.workbench import WorkbenchStack


def build(app: cdk.App, env: Environment, datasets: Sequence[Dataset]) -> None:
    name = f"dml-{env.name}"
    data = DataStack(app, f"{name}-data", environment=env)
    observed = ObservabilityStack(app, f"{name}-observability", environment=env, data=data)
    cluster = ClusterStack(
        app, f"{name}-cluster", environment=env, data=data, topic=observed.topic, login=observed.login
    )
    network = NetworkStack(app, f"{name}-network", environment=env, data=data)
    workbench = WorkbenchStack(
        app,
        f"{name}-workbench",
        environment=env,
        cluster=cluster,
        network=network,
        data=data,
        topic=observed.topic,
    )
    shared = Shared(data=data, cluster=cluster, observability=observed)
    for dataset in datasets:
        own = DatasetStack(
            app, f"{name}-{dataset_stack(dataset.name)}", environment=env, dataset=dataset, shared=shared
        )
        workbench.add_stack_dependency(own)  # it starts with the notes of each
    for key, value in tags(env).items():
        cdk.Tags.of(app).add(key, value)


if __name__ == "__main__":
    app = cdk.App()
    check_partition(os.environ.get("CDK_DEFAULT_REGION", ""))
    check(app)
    with said_plainly():
        check_names(dataset_names())
        names = [app.node.try_get_context("dataset")] if app.node.try_get_context("dataset") else dataset_names()
        build(app, load_environment(app.node.try_get_context("env") or "dev"), [*map(load_dataset, names)])
    made = app.synth()
    check_size(made)
    for sentence in quotas_passed(made):
        print(sentence, file=sys.stderr)
