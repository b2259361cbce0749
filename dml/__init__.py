"""The operator's side: the `dml` command. A room for each thing that an operator does; this floor only joins them.

On this floor: `cli` (the command and its exit codes), `errors` (the one error that is meant to be read), `checkout`
(where this project lies) and `cdk` (its CDK app, and the CDK CLI). Anything that serves one command belongs into its
room. A room's `commands` says what can be typed; heavy imports stand in its functions, so that `dml --help` is quick.
Never: what runs on a cluster (jobs/) or at synth (stacks/).
"""
