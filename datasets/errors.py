"""The error that every reader of this package raises."""


class DatasetError(ValueError):
    """A dataset on disk that cannot be used; the message names the file, the line and what to do."""
