"""The one error that a job raises for its reader: it ends the traceback, and so stands in Glue's and EMR's failure reason."""


class JobError(Exception):
    """What happened, where, and the way out, in one sentence."""
