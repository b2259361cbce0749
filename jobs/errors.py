"""The error that a job raises for its reader: the traceback's last line, which Glue and EMR give as the reason."""


class JobError(Exception):
    """What happened, where, and the way out, in one sentence."""
