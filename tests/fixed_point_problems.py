"""Maps whose fixed points or residuals are known."""

from collections.abc import Sequence

import torch
from torch import Tensor

from solvers import AndersonConfig, BroydenConfig, FixedPointConfig, SolverConfig
from solvers.contract import Map

CONFIGS: list[type[SolverConfig]] = [FixedPointConfig, AndersonConfig, BroydenConfig]
CHOOSE_BEST: list[type[SolverConfig]] = [AndersonConfig, BroydenConfig]


def affine_problem(*shape: int, rate: float = 0.5, seed: int = 0) -> tuple[Map, Tensor]:
    """A contraction f(z) = r z + s, with its own r in [-rate, rate] for every element; and its fixed point."""
    generator = torch.Generator().manual_seed(seed)
    rates = rate * (2 * torch.rand(shape, generator=generator) - 1)
    shift = torch.randn(shape, generator=generator)
    return lambda z: rates * z + shift, shift / (1 - rates)


def map_with_residuals(table: Sequence[Sequence[float]]) -> Map:
    """f(z) = z + r u with a unit vector u: call k on sample b has the absolute residual table[k][b], whatever z is."""
    rows = iter(torch.tensor(table))

    def f(z: Tensor) -> Tensor:
        return z + next(rows).unsqueeze(1) / z.shape[1] ** 0.5

    return f


def spoilt_at(call: int, f: Map, sample: int, value: float = torch.nan) -> Map:
    """`f`, but from this call on (counted from 1) one element of the sample has this value."""
    calls = 0

    def spoilt(z: Tensor) -> Tensor:
        nonlocal calls
        calls += 1
        image = f(z)
        if calls >= call:
            image[sample].view(-1)[0] = value
        return image

    return spoilt
