"""Errors that a user can mend: the command line turns these, and OSError, into one line and exit status 2.

A message says what was given, where, and what to do. Any other exception is a bug and shows its traceback.
"""


class UserError(ValueError):
    """Base of all errors that a user can mend."""


class OptionError(UserError):
    """An option, on the command line or of a configuration, that cannot be used."""


class InputError(UserError):
    """A file, folder or device that is missing, damaged or of another format."""


class ClipError(InputError):
    """A clip that cannot be evaluated; the message is the reason."""


class CheckpointError(InputError):
    """A checkpoint that cannot be used."""


class OutputError(UserError):
    """A result that cannot be written, or a result of an earlier run that cannot be continued."""
