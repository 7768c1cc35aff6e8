"""Compaction: samples that have stopped leave the batch, which saves their further evaluations."""

from collections.abc import Sequence

import torch
from torch import Tensor


class Departure:
    """Samples leave a batch: rows behind its new end move into the free places.

    So rows that keep their place cost nothing, and at most as many rows move as leave. The places are integers on the
    host: an accelerator has already transferred `running`, and needs no second transfer.

    Args:
        running: for every row of the batch, whether it stays.
    """

    def __init__(self, running: Sequence[bool]):
        self.remaining = sum(running)
        free = [row for row in range(self.remaining) if not running[row]]
        behind = [row for row in range(self.remaining, len(running)) if running[row]]
        self.moves = list(zip(free, behind, strict=True))

    def shrink(self, rows: Tensor) -> Tensor:
        """The rows that stay, (n, ...) -> (n', ...), moved in place; those that leave are overwritten."""
        for place, row in self.moves:
            rows[place].copy_(rows[row])
        return rows[: self.remaining]

    def select(self, rows: Tensor) -> Tensor:
        """The rows that stay, (n, ...) -> (n', ...), of a tensor with other owners: a copy, or a view if none moves."""
        if not self.moves:
            return rows[: self.remaining]
        kept = rows[: self.remaining].clone()
        for place, row in self.moves:
            kept[place].copy_(rows[row])
        return kept

    def swap(self, rows: Tensor) -> None:
        """Move the rows that stay to the front, in place, and keep the others behind them."""
        for place, row in self.moves:
            leaving = rows[place].clone()
            rows[place].copy_(rows[row])
            rows[row].copy_(leaving)


class Roster:
    """The map from rows to samples after some samples have left; before that every sample is in its own row.

    Args:
        samples: B.
        device: of the batch.
    """

    def __init__(self, samples: int, device: torch.device):
        self.samples = samples
        self.remaining = samples
        self.device = device
        self.order: Tensor | None = None

    def drop(self, departure: Departure) -> None:
        """Update the map for rows that move."""
        if self.order is None:
            self.order = torch.arange(self.samples, device=self.device)
        departure.swap(self.order)
        self.remaining = departure.remaining

    def spread(self, rows: Tensor) -> Tensor:
        """(n, ...) by row -> (B, ...) by sample, NaN for samples that have left."""
        if self.order is None:
            return rows
        spread = rows.new_full((self.samples, *rows.shape[1:]), torch.nan)
        return spread.index_copy_(0, self.order[: self.remaining], rows)

    def by_sample(self, rows: Tensor) -> Tensor:
        """(B, ...) by row -> (B, ...) by sample."""
        return rows if self.order is None else torch.empty_like(rows).index_copy_(0, self.order, rows)
