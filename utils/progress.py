"""The progress bar and the warnings of every script."""

import os
import sys
from collections.abc import Iterable
from typing import Any

from tqdm import tqdm


def progress_bar(
    total: int | None,
    unit: str,
    description: str | None = None,
    shown: bool = True,
    items: Iterable[Any] | None = None,
    initial: int = 0,
) -> "tqdm[Any]":
    """A progress bar on stderr: a context manager, or with `items` an iterator over them.

    Args:
        total: Number of units; None if unknown.
        unit: Name of a unit, in the singular.
        description: Text before the bar.
        shown: Whether it is drawn; under torchrun one process draws.
        items: The units themselves.
        initial: Units that are already done.
    """
    return tqdm(
        items,
        total=total,
        unit=unit,
        desc=description,
        disable=not shown,
        initial=initial,
        dynamic_ncols=True,
        file=sys.stderr,
    )


def print_warning(text: str) -> None:
    """Print a warning as one line on stderr, above a progress bar; under torchrun only the first process does.

    Args:
        text: What is wrong, beginning with the file.
    """
    if os.environ.get("RANK", "0") == "0":
        tqdm.write(f"warning: {text}", file=sys.stderr)
