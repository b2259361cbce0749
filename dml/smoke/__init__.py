"""The smoke test: what publishing a model hangs on, tried on AWS itself before the first cluster; a minute and a cent.

`scratch` makes a stack of its own, with a bucket, a role and the definition's own publish states, and takes it away
whatever happens; `proofs` runs that and compares what it sees with what is expected. Never: a deployed environment.
"""
