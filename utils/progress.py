"""The progress bar of every script."""

import sys
from typing import Any

from tqdm import tqdm


def progress_bar(total: int | None, unit: str, description: str | None = None, shown: bool = True) -> "tqdm[Any]":
    """A progress bar on stderr, to be used as a context.

    Args:
        total: Units in the whole; None where nobody knows.
        unit: What is counted, in the singular.
        description: What stands before the bar.
        shown: Whether it is drawn; under torchrun one process draws.
    """
    return tqdm(total=total, unit=unit, desc=description, disable=not shown, dynamic_ncols=True, file=sys.stderr)
