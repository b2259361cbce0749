"""A real YARN for EMR's steps: Hadoop's own daemons, in a network of their own, where only this account can be.

In here: `jars` (which, and how they are had), `namespace` (the network; `inside` is its first process), `daemons` (one
cluster's ResourceManager and NodeManagers), `step` (one spark-submit to them). Never: which cluster asked for it, nor
whose role its nodes have.
"""
