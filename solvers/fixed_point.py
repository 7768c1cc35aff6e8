"""Fixed-point (Picard) iteration: z <- f(z)."""

from dataclasses import dataclass

from torch import Tensor

from solvers.compaction import Departure
from solvers.contract import SolverConfig


@dataclass(frozen=True, kw_only=True)
class FixedPointConfig(SolverConfig):
    """Fixed-point iteration; the answer is the last value of f.

    Example:
        >>> import torch
        >>> from solvers import FixedPointConfig, solve
        >>> solution = solve(lambda z: 0.5 * z + 1, torch.zeros(1, 3), FixedPointConfig(max_evals=50, tol=1e-6))
        >>> solution.z.round().tolist()
        [[2.0, 2.0, 2.0]]
    """

    def start(self, z0: Tensor) -> "FixedPointMethod":
        """See `SolverConfig.start`."""
        return FixedPointMethod()


class FixedPointMethod:
    """Plain iteration needs no memory of the past."""

    returns_best = False

    def residual_buffer(self) -> None:
        """See `Method.residual_buffer`."""
        return None

    def next_iterate(self, z: Tensor, f_z: Tensor, difference: Tensor) -> Tensor:
        """The next iterate is f(z)."""
        return f_z

    def drop(self, departure: Departure) -> None:
        """See `Method.drop`."""
