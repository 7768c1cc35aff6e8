"""Anderson acceleration (Walker & Ni, SIAM J. Numer. Anal. 2011, with the constraint that the weights sum to one)."""

from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor

from solvers.compaction import Departure
from solvers.contract import SolverConfig, is_number, require, require_choice, require_count, require_size

Ridge = Literal["relative", "absolute"]


@dataclass(frozen=True, kw_only=True)
class AndersonConfig(SolverConfig):
    """Anderson acceleration; the answer is the iterate with the lowest residual.

    With g_i = f(z_i) - z_i over the last m evaluations, the weights alpha, which sum to one, minimise
    ||sum alpha_i g_i||^2 + ridge, and z_new = beta * sum alpha_i f(z_i) + (1 - beta) * sum alpha_i z_i.
    The first step is a plain one, z_1 = f(z_0).

    Attributes:
        m: number of last evaluations that are mixed.
        lam: strength of the ridge.
        ridge: "relative", lam * sum alpha_i^2 ||g_i||^2, which does not depend on the scale of the problem; or
            "absolute", lam * sum alpha_i^2, as in the original release (lam = 1e-4).
        beta: damping in (0, 1]; 1 is undamped.

    Example:
        >>> import torch
        >>> from solvers import AndersonConfig, solve
        >>> solution = solve(lambda z: 2 - 1.5 * z, torch.zeros(1, 1), AndersonConfig(max_evals=10, tol=1e-6))
        >>> round(solution.z.item(), 3)  # plain iteration diverges here
        0.8
    """

    m: int = 6
    lam: float = 1e-6
    ridge: Ridge = "relative"
    beta: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        require_count("m", self.m)
        require_size("lam", self.lam)
        require_choice("ridge", self.ridge, get_args(Ridge))
        require(is_number(self.beta) and 0 < self.beta <= 1, "beta", self.beta, "in (0, 1]")

    def start(self, z0: Tensor) -> "AndersonMethod":
        """See `SolverConfig.start`."""
        return AndersonMethod(self, z0)


def update_gram(gram: Tensor, differences: Tensor, slot: int) -> None:
    """Recompute one row and one column of a Gram matrix in place.

    Args:
        gram: (B, m, m) inner products.
        differences: (B, n, N), n <= m: the vectors in use.
        slot: index of the new vector.
    """
    used = differences.shape[1]
    # A row times a matrix: on a CPU the batched product with a column is several times slower.
    row = torch.bmm(differences[:, slot].unsqueeze(1), differences.transpose(1, 2)).squeeze(1)
    gram[:, slot, :used] = row
    gram[:, :used, slot] = row


def mixing_weights(gram: Tensor, newest: int, lam: float, ridge: Ridge) -> Tensor:
    """The weights of Anderson's method.

    With s_i = ||g_i|| and gamma_i = alpha_i s_i the normal equations have a unit diagonal, which keeps float32 accurate
    when the residuals span many orders of magnitude: (G_ij / (s_i s_j) + ridge) gamma = 1 / s, up to a factor.

    Args:
        gram: (B, n, n) inner products of the g_i.
        newest: the slot that gets all the weight if the system has no finite solution (for example a zero residual).
        lam: strength of the ridge.
        ridge: see `AndersonConfig`.

    Returns:
        (B, n) weights that sum to one.
    """
    squared = gram.diagonal(dim1=1, dim2=2)
    inverse_norm = squared.rsqrt()
    penalty = torch.full_like(squared, lam) if ridge == "relative" else lam / squared
    system = gram * inverse_norm.unsqueeze(1) * inverse_norm.unsqueeze(2) + torch.diag_embed(penalty)
    right = inverse_norm / inverse_norm.amax(dim=1, keepdim=True)
    # solve_ex reports a singular system as a value: solve would synchronise with the host to raise.
    gamma = torch.linalg.solve_ex(system, right.unsqueeze(2), check_errors=False).result.squeeze(2)
    weights = gamma * right
    weights = weights / weights.sum(dim=1, keepdim=True)
    plain = torch.zeros_like(weights)
    plain[:, newest] = 1
    return torch.where(torch.isfinite(weights).all(dim=1, keepdim=True), weights, plain)


class AndersonMethod:
    """Ring buffers of the last m evaluations and the Gram matrix of their differences."""

    returns_best = True

    def __init__(self, config: AndersonConfig, z0: Tensor):
        batch, size = z0.shape
        self.config = config
        self.depth = min(config.m, config.max_evals)
        self.differences = z0.new_empty(batch, self.depth, size)
        # beta is constant, so the mixed vectors beta f(z) + (1 - beta) z are stored.
        self.damped_images = z0.new_empty(batch, self.depth, size)
        self.gram = z0.new_zeros(batch, self.depth, self.depth)
        self.steps = 0

    def residual_buffer(self) -> Tensor:
        """See `Method.residual_buffer`."""
        return self.differences[:, self.steps % self.depth]

    def next_iterate(self, z: Tensor, f_z: Tensor, difference: Tensor) -> Tensor:
        """See `Method.next_iterate`; `difference` is the vector in `residual_buffer`."""
        slot = self.steps % self.depth
        if self.config.beta == 1:
            self.damped_images[:, slot].copy_(f_z)
        else:
            torch.sub(f_z, difference, alpha=1 - self.config.beta, out=self.damped_images[:, slot])
        self.steps += 1
        used = min(self.steps, self.depth)
        update_gram(self.gram, self.differences[:, :used], slot)
        if self.steps == 1:
            return f_z
        weights = mixing_weights(self.gram[:, :used, :used], slot, self.config.lam, self.config.ridge)
        return torch.bmm(weights.unsqueeze(1), self.damped_images[:, :used]).squeeze(1)

    def drop(self, departure: Departure) -> None:
        """See `Method.drop`."""
        self.differences = departure.shrink(self.differences)
        self.damped_images = departure.shrink(self.damped_images)
        self.gram = departure.shrink(self.gram)
