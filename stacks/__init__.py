"""The platform as AWS resources, built at synth time. app.py puts the stacks together and names them: dml-ENV-STACK.

In here: a stack a module (`data`, `observability`, `network`, `cluster`, `workbench`, `dataset`); what a dataset's
stack is made of (`etl`, `pipeline`); what an environment may choose, and the names that follow from its own
(`settings`); the names by which the command finds things (`outputs`) and those that datasets may have (`names`); a
dataset's state machine (`definition`); a cluster's parameters (`emr`); what is shipped (`code`); the checkers' findings
that stay (`findings`); errors of a synthesis (`synth`). Never: what runs later, and anything about this machine.
"""
