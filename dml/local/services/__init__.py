"""Services as AWS has them, where ministack lacks or simplifies them: a module each, and helpers beside it.

In here: CloudFormation's resource types, Glue's jobs and crawlers, EMR, Step Functions' integrations. A job or step is
handed to spark/ by `submission`. Never: a decision about rights (access/), and never a kindness that AWS does not have.
"""
