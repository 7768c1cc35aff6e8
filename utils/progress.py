"""The progress bar of every script."""

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
    """A progress bar on stderr: a context, or with `items` what goes through them.

    Args:
        total: Units in the whole; None where nobody knows.
        unit: What is counted, in the singular.
        description: What stands before the bar.
        shown: Whether it is drawn; under torchrun one process draws.
        items: What counts as a unit each.
        initial: Units that were done before.
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
