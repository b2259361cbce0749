"""The platform of one environment, put together at synth time: `cdk deploy --all -c env=dev` (or prod) runs this."""

import os
from collections.abc import Sequence

import aws_cdk as cdk

from datasets import dataset_names, load_dataset
from jobs.tables.settings import Dataset
from stacks.cluster import ClusterStack
from stacks.data import DataStack
from stacks.etl import EtlStack
from stacks.network import NetworkStack
from stacks.observability import ObservabilityStack
from stacks.pipeline import Made, PipelineStack
from stacks.settings import Environment, load_environment, tags
from stacks.synth import check, check_partition, check_size, said_plainly


def build(app: cdk.App, env: Environment, datasets: Sequence[Dataset]) -> list[cdk.Stack]:
    name = f"dml-{env.name}"
    data = DataStack(app, f"{name}-data", environment=env, datasets=datasets)
    observed = ObservabilityStack(app, f"{name}-observability", environment=env, datasets=datasets, data=data)
    network = NetworkStack(app, f"{name}-network", environment=env, data=data)
    etl = EtlStack(app, f"{name}-etl", environment=env, datasets=datasets, data=data)
    cluster = ClusterStack(
        app, f"{name}-cluster", environment=env, datasets=datasets, network=network, data=data, observed=observed
    )
    made = Made(data=data, etl=etl, cluster=cluster, observability=observed)
    pipeline = PipelineStack(app, f"{name}-pipeline", environment=env, datasets=datasets, made=made)
    for key, value in tags(env).items():
        cdk.Tags.of(app).add(key, value)
    return [data, observed, network, etl, cluster, pipeline]


if __name__ == "__main__":
    app = cdk.App()
    check_partition(os.environ.get("CDK_DEFAULT_REGION", ""))
    check(app)
    with said_plainly():
        datasets = [*map(load_dataset, dataset_names())]
        build(app, load_environment(app.node.try_get_context("env") or "dev"), datasets)
    check_size(app.synth(), len(datasets))
