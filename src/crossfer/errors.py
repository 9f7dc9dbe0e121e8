"""The one kind of error a user is meant to read."""


class CrossferError(ValueError):
    """Something the user can mend: one line that names the file, row or option and says what to do.

    The command line prints it without a traceback and exits with status 2.
    """
