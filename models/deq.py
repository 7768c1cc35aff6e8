"""The DEQ layer: solve for the fixed point without a graph, then differentiate it by one of several rules."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, get_args

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from solvers import AndersonConfig, Solution, SolverConfig, solve
from solvers.contract import Map
from utils.errors import OptionError
from utils.values import check_choice, check_flag, check_instance, check_integer

GradientRule = Literal["ift", "jfb", "unroll"]


@dataclass(frozen=True, kw_only=True)
class GradientConfig:
    """How a fixed point z* = f(z*) is differentiated.

    Attributes:
        rule: "jfb", Jacobian-free backpropagation (Fung et al., AAAI 2022): `phantom_steps` tracked evaluations from
            the solver's iterate (k > 1: phantom gradients, Geng et al., NeurIPS 2021). "ift", the implicit function
            theorem: `backward_solver` finds the cotangent u, which is a fixed point too, u = dL/dz + (df/dz)^T u.
            "unroll": plain evaluations from z0, all tracked; memory grows with the budget, and the solver is not used.
        phantom_steps: k of "jfb".
        backward_solver: solver of "ift". Its criterion must be relative, because cotangents scale with the loss,
            and it must not be compact.

    Raises:
        OptionError: an option is out of range.
    """

    rule: GradientRule = "jfb"
    phantom_steps: int = 1
    backward_solver: SolverConfig = field(default_factory=lambda: AndersonConfig(max_evals=20, tol=1e-3))

    def __post_init__(self) -> None:
        check_choice("gradient rule", self.rule, get_args(GradientRule))
        check_integer("phantom_steps", self.phantom_steps, 1)
        check_instance("backward_solver", self.backward_solver, SolverConfig)
        if self.backward_solver.criterion != "relative":
            raise OptionError("backward_solver must have the relative criterion")
        if self.backward_solver.compact:
            raise OptionError(
                "backward_solver must not be compact: the map of the cotangents is that of the whole batch"
            )


@dataclass(frozen=True)
class Tracked:
    """The end of a solve that carries a graph.

    Attributes:
        state: (B, ...) the value; its gradient follows the rule.
        z: (B, ...) the argument of the last tracked evaluation.
        image: (B, ...) f(z), with the graph of that evaluation back to z if the Jacobian is asked for.
    """

    state: Tensor
    z: Tensor
    image: Tensor


def deq(
    f: Map,
    z0: Tensor,
    solver: SolverConfig,
    gradient: GradientConfig,
    final_evaluation: bool,
    track: bool,
    args: Sequence[Tensor] = (),
) -> tuple[Tensor, Solution | None]:
    """The fixed point of f, solved from z0.

    Args:
        f: maps (B, ...) to the same shape; `args` and what it closes over receive the gradients.
        z0: (B, ...) where the solve starts; receives no gradient.
        solver: finds the fixed point.
        gradient: how to differentiate it.
        final_evaluation: the value is f(z) of the solver's z, else z.
        track: whether a gradient will be needed.
        args: tensors (B, ...), further arguments of f, see `solvers.solve`.

    Returns:
        state (B, ...) and the solution, which is None for the "unroll" rule.

    Raises:
        OptionError: an argument is of another kind.
    """
    check_instance("z0", z0, Tensor)
    check_instance("gradient", gradient, GradientConfig)
    check_flag("final_evaluation", final_evaluation)
    check_flag("track", track)
    if track:
        tracked, solution = tracked_deq(f, z0, solver, gradient, final_evaluation, args)
        return tracked.state, solution
    solution = solve(f, z0.detach(), solver, args)
    return _output(f, solution, final_evaluation, args), solution


def tracked_deq(
    f: Map,
    z0: Tensor,
    solver: SolverConfig,
    gradient: GradientConfig,
    final_evaluation: bool,
    args: Sequence[Tensor] = (),
    jacobian: bool = False,
) -> tuple[Tracked, Solution | None]:
    """`deq` with a graph; also returns the tracked evaluation, for example for a penalty on its Jacobian.

    Args:
        jacobian: whether df/dz of the last tracked evaluation will be needed, see `Tracked.image`.

    The others, and what is returned beside the solution, are as for `deq`.
    """
    if gradient.rule == "unroll":
        return phantom(f, z0, solver.max_evals + final_evaluation, args, jacobian), None
    solution = solve(f, z0.detach(), solver, args)
    if gradient.rule == "jfb":
        tracked = phantom(f, solution.z, gradient.phantom_steps, args, jacobian)
    else:
        tracked = _ift(f, solution.z, gradient.backward_solver, args)
    if not final_evaluation:
        # The value is z itself, and the gradient is that of f at z.
        tracked = replace(tracked, state=solution.z + (tracked.state - tracked.state.detach()))
    return tracked, solution


def phantom(f: Map, z: Tensor, steps: int, args: Sequence[Tensor] = (), jacobian: bool = False) -> Tracked:
    """Tracked evaluations of f from an iterate that itself receives no gradient.

    Args:
        f: maps (B, ...) to the same shape.
        z: (B, ...) their start.
        steps: their number, at least 1.
        args: tensors (B, ...), further arguments of f.
        jacobian: whether df/dz of the last evaluation will be needed.
    """
    z = repeat(f, z.detach().requires_grad_(jacobian), steps - 1, args)
    image = f(z, *args)
    return Tracked(image, z, image)


def repeat(f: Map, z: Tensor, times: int, args: Sequence[Tensor] = ()) -> Tensor:
    """f applied `times` times to z."""
    for _ in range(times):
        z = f(z, *args)
    return z


@torch.no_grad()
def _output(f: Map, solution: Solution, final_evaluation: bool, args: Sequence[Tensor]) -> Tensor:
    if not final_evaluation:
        return solution.z
    return f(solution.z, *args) if solution.f_z is None else solution.f_z


def _ift(f: Map, z: Tensor, backward_solver: SolverConfig, args: Sequence[Tensor]) -> Tracked:
    z = z.detach().requires_grad_()
    image = f(z, *args)
    return Tracked(_ImplicitCotangent.apply(image, z, backward_solver), z, image)


class _ImplicitCotangent(torch.autograd.Function):
    """Identity whose backward replaces the cotangent g by the solution u of u = g + (df/dz)^T u.

    No sample leaves this solve. The product (df/dz)^T u uses one graph of the whole batch and costs the same if most of
    u is zero. A graph of the remaining samples would cost one more evaluation of f and the memory of a second set of
    activations, because the first graph is still needed for the gradient of the weights. That would pay only if few
    cotangents needed many more evaluations than the others. If f contracts well, nearly all need the same one or two.
    """

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
