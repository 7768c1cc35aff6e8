"""Broyden's good method with limited memory (Broyden 1965; for DEQs: Bai et al., NeurIPS 2019)."""

from dataclasses import dataclass

import torch
from torch import Tensor

from solvers.compaction import Departure
from solvers.contract import SolverConfig, require_count


@dataclass(frozen=True, kw_only=True)
class BroydenConfig(SolverConfig):
    """Quasi-Newton steps on g(z) = f(z) - z, without a line search; the answer is the iterate with the lowest residual.

    The inverse Jacobian starts as -I (so the first step is plain iteration) and gains one rank-one term per step.

    Attributes:
        memory: number of rank-one terms that are kept; the oldest is dropped first.

    Example:
        >>> import torch
        >>> from solvers import BroydenConfig, solve
        >>> solution = solve(lambda z: 2 - 1.5 * z, torch.zeros(1, 1), BroydenConfig(max_evals=10, tol=1e-6))
        >>> round(solution.z.item(), 3)
        0.8
    """

    memory: int = 20

    def __post_init__(self) -> None:
        super().__post_init__()
        require_count("memory", self.memory)

    def start(self, z0: Tensor) -> "BroydenMethod":
        """See `SolverConfig.start`."""
        return BroydenMethod(self, z0)


def low_rank_product(left: Tensor, right: Tensor, vector: Tensor) -> Tensor:
    """(-I + sum_i left_i right_i^T) vector.

    Args:
        left: (B, n, N), n >= 0.
        right: (B, n, N).
        vector: (B, N).

    Returns:
        (B, N).
    """
    coefficients = torch.bmm(vector.unsqueeze(1), right.transpose(1, 2))
    return torch.baddbmm(vector.unsqueeze(1), coefficients, left, beta=-1).squeeze(1)


class BroydenMethod:
    """The rank-one terms u_i v_i^T of the inverse Jacobian, and the previous iterate."""

    returns_best = True

    def __init__(self, config: BroydenConfig, z0: Tensor):
        batch, size = z0.shape
        self.capacity = min(config.memory, config.max_evals)
        self.u = z0.new_empty(batch, self.capacity, size)
        self.v = z0.new_empty(batch, self.capacity, size)
        self.terms = 0
        self.previous: tuple[Tensor, Tensor] | None = None

    def residual_buffer(self) -> None:
        """See `Method.residual_buffer`."""
        return None

    def next_iterate(self, z: Tensor, f_z: Tensor, difference: Tensor) -> Tensor:
        """See `Method.next_iterate`."""
        if self.previous is not None:
            self._add_term(z - self.previous[0], difference - self.previous[1])
        self.previous = (z, difference)
        used = min(self.terms, self.capacity)
        return z - low_rank_product(self.u[:, :used], self.v[:, :used], difference)

    def drop(self, departure: Departure) -> None:
        """See `Method.drop`."""
        self.u = departure.shrink(self.u)
        self.v = departure.shrink(self.v)
        if self.previous is not None:
            z, difference = self.previous
            self.previous = departure.select(z), departure.shrink(difference)

    def _add_term(self, step: Tensor, change: Tensor) -> None:
        """Good Broyden by Sherman-Morrison: v^T = step^T B, u = (step - B change) / (v^T change)."""
        used = min(self.terms, self.capacity)
        slot = self.terms % self.capacity
        if self.terms >= self.capacity:
            # Dropped before the update, so that the kept terms still map `change` to `step` (the secant condition).
            self.u[:, slot] = 0
        u, v = self.u[:, :used], self.v[:, :used]
        new_v = low_rank_product(v, u, step)
        new_u = (step - low_rank_product(u, v, change)) / (new_v * change).sum(dim=1, keepdim=True)
        # A degenerate update (no change of g) is skipped, because it would spoil every later step.
        torch.nan_to_num(new_u, nan=0, posinf=0, neginf=0, out=self.u[:, slot])
        torch.nan_to_num(new_v, nan=0, posinf=0, neginf=0, out=self.v[:, slot])
        self.terms += 1
