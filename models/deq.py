"""The DEQ layer: solve for the fixed point without a graph, then differentiate it by one of several rules."""

from dataclasses import dataclass, field
from typing import Any, Literal, get_args

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from solvers import AndersonConfig, Solution, SolverConfig, solve
from solvers.contract import Map
from utils.errors import OptionError

GradientRule = Literal["ift", "jfb", "unroll"]


@dataclass(frozen=True, kw_only=True)
class GradientConfig:
    """How a fixed point z* = f(z*) is differentiated.

    Attributes:
        rule: "jfb", Jacobian-free backpropagation (Fung et al., AAAI 2022): `phantom_steps` tracked evaluations from
            the solver's iterate (k > 1: phantom gradients, Geng et al., NeurIPS 2021); "ift", the implicit function
            theorem: the cotangent u = dL/dz + (df/dz)^T u is a fixed point as well, found by `backward_solver`;
            "unroll", plain evaluations from z0, all tracked: memory grows with the budget, the solver is not used.
        phantom_steps: k of "jfb".
        backward_solver: of "ift". Its criterion must be relative: cotangents are as small as the loss is.

    Raises:
        OptionError: an option is out of range.
    """

    rule: GradientRule = "jfb"
    phantom_steps: int = 1
    backward_solver: SolverConfig = field(default_factory=lambda: AndersonConfig(max_evals=20, tol=1e-3))

    def __post_init__(self) -> None:
        if self.rule not in get_args(GradientRule):
            raise OptionError(f"gradient rule must be one of {', '.join(get_args(GradientRule))}, not {self.rule!r}")
        if self.phantom_steps < 1:
            raise OptionError(f"phantom_steps must be at least 1, not {self.phantom_steps}")
        if self.backward_solver.criterion != "relative":
            raise OptionError("backward_solver must have the relative criterion")


def deq(
    f: Map, z0: Tensor, solver: SolverConfig, gradient: GradientConfig, final_evaluation: bool, track: bool
) -> tuple[Tensor, Solution | None]:
    """The fixed point of f, solved from z0.

    Args:
        f: maps (B, ...) to the same shape; what it closes over receives the gradients.
        z0: (B, ...) where the solve starts; receives no gradient.
        solver: finds the fixed point.
        gradient: how to differentiate it.
        final_evaluation: the value is f(z) of the solver's z, else z.
        track: whether a gradient will be asked for.

    Returns:
        state (B, ...) and the solution, which is None for the "unroll" rule.
    """
    if track and gradient.rule == "unroll":
        return repeat(f, z0.detach(), solver.max_evals + final_evaluation), None
    solution = solve(f, z0.detach(), solver)
    if not track:
        return _output(f, solution, final_evaluation), solution
    image = repeat(f, solution.z, gradient.phantom_steps) if gradient.rule == "jfb" else _ift(f, solution.z, gradient)
    # Without the final evaluation the value is z itself, and the gradient that of f at z.
    return image if final_evaluation else solution.z + (image - image.detach()), solution


def repeat(f: Map, z: Tensor, times: int) -> Tensor:
    """f applied `times` times to z."""
    for _ in range(times):
        z = f(z)
    return z


@torch.no_grad()
def _output(f: Map, solution: Solution, final_evaluation: bool) -> Tensor:
    if not final_evaluation:
        return solution.z
    return f(solution.z) if solution.f_z is None else solution.f_z


def _ift(f: Map, z: Tensor, gradient: GradientConfig) -> Tensor:
    z = z.detach().requires_grad_()
    return _ImplicitCotangent.apply(f(z), z, gradient.backward_solver)


class _ImplicitCotangent(torch.autograd.Function):
    """Identity whose backward replaces the cotangent g by the solution u of u = g + (df/dz)^T u."""

    @staticmethod
    def forward(ctx: Any, image: Tensor, z: Tensor, backward_solver: SolverConfig) -> Tensor:
        ctx.save_for_backward(image, z)
        ctx.backward_solver = backward_solver
        return image.view_as(image)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, cotangent: Tensor) -> tuple[Tensor, None, None]:
        image, z = ctx.saved_tensors

        def pull_back(u: Tensor) -> Tensor:
            (product,) = torch.autograd.grad(image, z, u, retain_graph=True)
            return cotangent + product

        solution = solve(pull_back, cotangent, ctx.backward_solver)
        return solution.z if solution.f_z is None else solution.f_z, None, None
