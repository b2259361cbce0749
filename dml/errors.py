"""The one error that an operator is meant to read; used by everything under dml/."""


class UserError(Exception):
    """A sentence that says what happened, where, and the way out. The CLI prints it alone and exits with 1."""
