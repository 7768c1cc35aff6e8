"""One step of a solver: time and memory traffic, and a usual implementation of Anderson's method for comparison."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import partial
from itertools import cycle
from typing import Any

import pandas as pd
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from benchmarks.measuring import milliseconds
from models.cell import Cell
from models.config import LDEQConfig
from solvers import AndersonConfig, BroydenConfig, FixedPointConfig, SolverConfig, solve
from solvers.anderson import mixing_weights
from solvers.compaction import Departure
from solvers.contract import Map

STATE_SHAPE = (98, 64, 64)
# Long enough for a full history of m = 6, and for a difference of budgets that exceeds the noise.
SHORT_BUDGET, LONG_BUDGET = 8, 24


@dataclass(frozen=True, kw_only=True)
class RecomputedGramConfig(AndersonConfig):
    """A usual implementation of Anderson's method: every step computes the whole Gram matrix again."""

    def start(self, z0: Tensor) -> "RecomputedGramMethod":  # type: ignore[override]
        """See `SolverConfig.start`."""
        return RecomputedGramMethod(self, z0)


class RecomputedGramMethod:
    """Ring buffers of the last m iterates and their images."""

    returns_best = True

    def __init__(self, config: RecomputedGramConfig, z0: Tensor):
        batch, size = z0.shape
        self.config = config
        self.iterates = z0.new_empty(batch, config.m, size)
        self.images = z0.new_empty(batch, config.m, size)
        self.steps = 0

    def residual_buffer(self) -> None:
        """See `Method.residual_buffer`."""
        return None

    def next_iterate(self, z: Tensor, f_z: Tensor, difference: Tensor) -> Tensor:
        """See `Method.next_iterate`."""
        config, slot = self.config, self.steps % self.config.m
        self.iterates[:, slot].copy_(z)
        self.images[:, slot].copy_(f_z)
        self.steps += 1
        if self.steps == 1:
            return f_z
        used = min(self.steps, config.m)
        iterates, images = self.iterates[:, :used], self.images[:, :used]
        differences = images - iterates
        gram = torch.bmm(differences, differences.transpose(1, 2))
        weights = mixing_weights(gram, slot, config.lam, config.ridge).unsqueeze(1)
        mixed = config.beta * torch.bmm(weights, images) + (1 - config.beta) * torch.bmm(weights, iterates)
        return mixed.squeeze(1)

    def drop(self, departure: Departure) -> None:
        """See `Method.drop`."""
        self.iterates, self.images = departure.shrink(self.iterates), departure.shrink(self.images)


SOLVERS: dict[str, SolverConfig] = {
    "fixed point": FixedPointConfig(tol=0),
    "Anderson": AndersonConfig(tol=0),
    "Anderson, Gram recomputed": RecomputedGramConfig(tol=0),
    "Broyden": BroydenConfig(tol=0, memory=6),
}


class TrafficCounter(TorchDispatchMode):
    """Sums the bytes that the operations inside read and write."""

    def __init__(self) -> None:
        super().__init__()
        self.bytes = 0

    def __torch_dispatch__(
        self, func: Any, types: Iterable[type], args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Run one operation and count it."""
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        overwrites = func is torch.ops.aten.copy_.default
        written = _tensors(result)
        read = _tensors((args[1:] if overwrites else args, {k: v for k, v in kwargs.items() if k != "out"}))
        sources = {tensor.untyped_storage().data_ptr() for tensor in read}
        is_view = not func._schema.is_mutable and all(t.untyped_storage().data_ptr() in sources for t in written)
        if not is_view:
            self.bytes += sum(tensor.nbytes for tensor in read + written)
        return result


def _tensors(tree: Any) -> list[Tensor]:
    return [leaf for leaf in tree_leaves(tree) if isinstance(leaf, Tensor)]


def free_map(state: Tensor, images: int = 9) -> Map:
    """An f without cost: it returns random states, always the same, prepared in advance, one after the other."""
    generator = torch.Generator().manual_seed(0)
    prepared = cycle(
        [torch.empty_like(state).copy_(torch.randn(state.shape, generator=generator)) for _ in range(images)]
    )
    return lambda z: next(prepared)


def step_traffic(config: SolverConfig, state: Tensor) -> float:
    """Bytes that one step moves once the history is full, in units of the state (B, ...)."""
    f = free_map(state)
    counts = []
    for budget in (SHORT_BUDGET, SHORT_BUDGET + 1):
        with TrafficCounter() as counter:
            solve(f, state, replace(config, max_evals=budget))
        counts.append(counter.bytes)
    return (counts[1] - counts[0]) / state.nbytes


def step_milliseconds(config: SolverConfig, state: Tensor, repeats: int) -> float:
    """Time of one step from the state (B, ...) once the history is full."""
    f = free_map(state)
    short, long = (
        milliseconds(partial(solve, f, state, replace(config, max_evals=budget)), repeats, state.device)
        for budget in (SHORT_BUDGET, LONG_BUDGET)
    )
    return (long - short) / (LONG_BUDGET - SHORT_BUDGET)


@torch.inference_mode()
def cell_milliseconds(state: Tensor, repeats: int) -> float:
    """Time of one evaluation of a cell of the original's size at the state (B, 98, 64, 64)."""
    config = LDEQConfig(backbone="stem")
    cell = Cell(config).to(state.device).eval()
    embedded = cell.embed(torch.randn(state.shape[0], config.injection_channels, *state.shape[2:], device=state.device))
    return milliseconds(partial(cell, state, embedded), repeats, state.device)


def measure(device: torch.device, batch_sizes: Iterable[int], repeats: int) -> pd.DataFrame:
    """One row per batch size and solver."""
    rows = []
    for batch in batch_sizes:
        state = torch.rand(batch, *STATE_SHAPE, device=device)
        cell = cell_milliseconds(state, repeats)
        for name, config in SOLVERS.items():
            step = step_milliseconds(config, state, repeats)
            rows.append(
                {
                    "batch": batch,
                    "solver": name,
                    "step, ms": step,
                    "cell evaluation, ms": cell,
                    "step / cell, %": 100 * step / cell,
                    "traffic / state": step_traffic(config, state),
                }
            )
    return pd.DataFrame(rows)
