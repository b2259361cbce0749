"""The platform of one environment, put together at synth time: `cdk deploy --all -c env=dev` (or prod) runs this."""

from collections.abc import Sequence

import aws_cdk as cdk

from datasets import Dataset, DatasetError, dataset_names, load_dataset
from stacks.cluster import ClusterStack
from stacks.code import CodeError
from stacks.data import DataStack
from stacks.etl import EtlStack
from stacks.network import NetworkStack
from stacks.observability import ObservabilityStack
from stacks.pipeline import PipelineStack
from stacks.settings import Environment, SettingsError, load_environment


def build(app: cdk.App, environment: Environment, datasets: Sequence[Dataset]) -> list[cdk.Stack]:
    name, tags = f"dml-{environment.name}", {"project": "dml", "environment": environment.name}
    on = {"environment": environment, "tags": tags}
    network = NetworkStack(app, f"{name}-network", **on)
    data = DataStack(app, f"{name}-data", datasets=datasets, **on)
    observability = ObservabilityStack(app, f"{name}-observability", **on)
    etl = EtlStack(app, f"{name}-etl", datasets=datasets, data=data, **on)
    cluster = ClusterStack(app, f"{name}-cluster", datasets=datasets, network=network, data=data, **on)
    made = {"data": data, "etl": etl, "cluster": cluster, "observability": observability}
    pipeline = PipelineStack(app, f"{name}-pipeline", datasets=datasets, **made, **on)
    for key, value in tags.items():
        cdk.Tags.of(app).add(key, value)
    return [network, data, observability, etl, cluster, pipeline]


if __name__ == "__main__":
    app = cdk.App()
    try:
        build(
            app,
            load_environment(app.node.try_get_context("env") or "dev"),
            [load_dataset(name) for name in dataset_names()],
        )
    except (SettingsError, DatasetError, CodeError) as error:
        raise SystemExit(str(error)) from None
    app.synth()
