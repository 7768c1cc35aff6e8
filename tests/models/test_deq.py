import gc
import math
import weakref
from collections.abc import Callable
from dataclasses import dataclass, replace

import pytest
import torch
from torch import Tensor

from models.deq import GradientConfig, deq, phantom, tracked_deq
from solvers import AndersonConfig, BroydenConfig, FixedPointConfig, SolverConfig, Status

SIZE = 6
SPECTRAL_RADIUS = 0.6

PRECISE = AndersonConfig(max_evals=60, tol=1e-13)
SOLVERS = {
    "fixed point": FixedPointConfig(max_evals=60, tol=1e-10),
    "anderson": AndersonConfig(max_evals=60, tol=1e-10),
    "broyden": BroydenConfig(max_evals=60, tol=1e-10),
}
each_solver = pytest.mark.parametrize("solver", SOLVERS.values(), ids=SOLVERS)


@dataclass
class Problem:
    """A contraction f(z) = map(z, weight, shift) in float64, and a loss <cotangent, z*>."""

    map: Callable[[Tensor, Tensor, Tensor], Tensor]
    weight: Tensor
    shift: Tensor
    cotangent: Tensor

    def f(self, z: Tensor) -> Tensor:
        return self.map(z, self.weight, self.shift)

    def solve(
        self,
        gradient: GradientConfig,
        solver: SolverConfig = PRECISE,
        final_evaluation: bool = True,
        track: bool = True,
    ) -> Tensor:
        z0 = torch.zeros_like(self.shift)
        return deq(self.f, z0, solver, gradient, final_evaluation, track)[0]

    def gradients(
        self, gradient: GradientConfig, solver: SolverConfig = PRECISE, loss_scale: float = 1.0
    ) -> list[Tensor]:
        """Of the loss with respect to weight and shift."""
        loss = (loss_scale * self.cotangent * self.solve(gradient, solver)).sum()
        return list(torch.autograd.grad(loss, (self.weight, self.shift)))

    def fixed_point(self) -> Tensor:
        return self.solve(GradientConfig(), track=False)

    def jacobians(self, z: Tensor) -> Tensor:
        """df/dz of every sample, (B, N, N)."""
        return torch.autograd.functional.jacobian(lambda z: self.f(z).sum(dim=0), z).movedim(1, 0)

    def exact_gradients(self) -> list[Tensor]:
        """By (I - J)^-T, a matrix a sample."""
        z = self.fixed_point()
        identity = torch.eye(SIZE, dtype=z.dtype)
        cotangent = torch.linalg.solve((identity - self.jacobians(z)).mT, self.cotangent)
        return list(torch.autograd.grad(self.f(z), (self.weight, self.shift), cotangent))


def make_problem(nonlinear: bool, dtype: torch.dtype = torch.float64) -> Problem:
    """The matrix is symmetric with eigenvalues 0.6, 0.4, .., -0.4, so that powers of it fall like powers of 0.6."""
    generator = torch.Generator().manual_seed(0)
    basis, _ = torch.linalg.qr(torch.randn(SIZE, SIZE, dtype=torch.float64, generator=generator))
    eigenvalues = torch.tensor([SPECTRAL_RADIUS, 0.4, 0.2, -0.1, -0.3, -0.4], dtype=torch.float64)
    weight = (basis * eigenvalues @ basis.T).to(dtype).requires_grad_()
    shift = torch.randn(3, SIZE, dtype=torch.float64, generator=generator).to(dtype).requires_grad_()
    cotangent = torch.randn(3, SIZE, dtype=torch.float64, generator=generator).to(dtype)
    if nonlinear:
        return Problem(lambda z, weight, shift: torch.tanh(z @ weight.T + shift), weight, shift, cotangent)
    return Problem(lambda z, weight, shift: z @ weight.T + shift, weight, shift, cotangent)


@pytest.fixture(params=[False, True], ids=["linear", "nonlinear"])
def problem(request: pytest.FixtureRequest) -> Problem:
    return make_problem(request.param)


def relative_error(gradients: list[Tensor], exact: list[Tensor]) -> float:
    difference = sum((a - b).square().sum() for a, b in zip(gradients, exact, strict=True))
    return math.sqrt(difference.item() / sum(b.square().sum() for b in exact).item())


@each_solver
def test_the_value_is_the_fixed_point_whatever_the_rule(problem, solver):
    exact = problem.fixed_point()
    for rule in ("jfb", "ift"):
        torch.testing.assert_close(problem.solve(GradientConfig(rule=rule), solver), exact, rtol=0, atol=1e-8)
    unrolled = problem.solve(GradientConfig(rule="unroll"), FixedPointConfig(max_evals=60))
    torch.testing.assert_close(unrolled, exact, rtol=0, atol=1e-8)


@each_solver
def test_ift_is_the_exact_gradient_with_any_backward_solver(problem, solver):
    gradients = problem.gradients(GradientConfig(rule="ift", backward_solver=solver))
    assert relative_error(gradients, problem.exact_gradients()) < 1e-8


@each_solver
def test_ift_is_the_exact_gradient_with_any_forward_solver(problem, solver):
    gradients = problem.gradients(GradientConfig(rule="ift", backward_solver=PRECISE), solver)
    assert relative_error(gradients, problem.exact_gradients()) < 1e-8


@each_solver
@pytest.mark.parametrize("rule", ["jfb", "unroll"])
def test_every_rule_takes_every_solver(problem, solver, rule):
    assert all(gradient.isfinite().all() for gradient in problem.gradients(GradientConfig(rule=rule), solver))


def test_ift_is_the_limit_of_unrolling(problem):
    unrolled = problem.gradients(GradientConfig(rule="unroll"), FixedPointConfig(max_evals=60))
    implicit = problem.gradients(GradientConfig(rule="ift", backward_solver=PRECISE))
    assert relative_error(implicit, unrolled) < 1e-9


def test_ift_passes_gradcheck(problem):
    config = GradientConfig(rule="ift", backward_solver=PRECISE)

    def fixed_point(weight: Tensor, shift: Tensor) -> Tensor:
        return Problem(problem.map, weight, shift, problem.cotangent).solve(config)

    assert torch.autograd.gradcheck(fixed_point, (problem.weight, problem.shift), fast_mode=True)


def test_the_default_backward_solver_is_accurate_to_its_tolerance(problem):
    gradients = problem.gradients(GradientConfig(rule="ift"))
    # A residual of tol leaves an error of at most tol / (1 - rho).
    assert relative_error(gradients, problem.exact_gradients()) < 1e-3 / (1 - SPECTRAL_RADIUS)


def test_jfb_is_the_gradient_of_one_evaluation_at_the_fixed_point(problem):
    z = problem.fixed_point()
    one_evaluation = torch.autograd.grad(problem.f(z), (problem.weight, problem.shift), problem.cotangent)
    gradients = problem.gradients(GradientConfig(rule="jfb"))
    assert relative_error(gradients, list(one_evaluation)) < 1e-12
    assert relative_error(gradients, problem.exact_gradients()) > 0.1


def test_the_phantom_gradient_of_k_steps_is_the_first_k_terms_of_the_neumann_series():
    problem = make_problem(nonlinear=False)
    term, total = problem.cotangent, torch.zeros_like(problem.cotangent)
    for steps in range(1, 5):
        total, term = total + term, term @ problem.weight.detach()
        _, shift_gradient = problem.gradients(GradientConfig(rule="jfb", phantom_steps=steps))
        torch.testing.assert_close(shift_gradient, total, rtol=0, atol=1e-10)


def test_the_phantom_gradient_error_falls_like_the_spectral_radius_to_the_k(problem):
    exact = problem.exact_gradients()
    radius = torch.linalg.eigvals(problem.jacobians(problem.fixed_point())).abs().max().item()
    steps = range(9, 24, 3)
    errors = [
        relative_error(problem.gradients(GradientConfig(rule="jfb", phantom_steps=count)), exact) for count in steps
    ]
    log_errors = torch.tensor(errors, dtype=torch.float64).log()
    centred = torch.tensor(steps, dtype=torch.float64) - sum(steps) / len(steps)
    slope = (centred @ log_errors / centred.square().sum()).item()
    # The weight's error also holds the k-th power times k at first, so that the slope nears log(rho) from above.
    assert math.exp(slope) == pytest.approx(radius, rel=0.03)


@each_solver
def test_the_scale_of_the_loss_does_not_change_the_relative_error_of_ift(solver):
    problem = make_problem(nonlinear=True, dtype=torch.float32)
    exact = problem.exact_gradients()
    config = GradientConfig(rule="ift", backward_solver=type(solver)(max_evals=40, tol=1e-3))
    errors = []
    for scale in (1e-3, 1.0, 1e3):
        gradients = problem.gradients(config, loss_scale=scale)
        errors.append(relative_error([gradient / scale for gradient in gradients], exact))
    assert max(errors) < 1e-2
    assert errors == pytest.approx([errors[1]] * 3, rel=0.02)


def test_a_sample_without_cotangent_gets_a_zero_gradient_and_disturbs_no_other(problem):
    config = GradientConfig(rule="ift", backward_solver=AndersonConfig(max_evals=20, tol=1e-6))
    _, complete = problem.gradients(config)
    problem.cotangent[1] = 0
    _, partial = problem.gradients(config)
    assert partial[1].eq(0).all()
    torch.testing.assert_close(partial[[0, 2]], complete[[0, 2]], rtol=0, atol=1e-12)


@pytest.mark.parametrize("rule", ["jfb", "ift"])
def test_without_the_final_evaluation_the_value_is_the_solvers_z_and_the_gradient_that_of_f_there(problem, rule):
    solver = AndersonConfig(max_evals=3, tol=0)
    z0 = torch.zeros_like(problem.shift)
    config = GradientConfig(rule=rule, backward_solver=PRECISE)
    state, solution = deq(problem.f, z0, solver, config, final_evaluation=False, track=True)
    image, _ = deq(problem.f, z0, solver, config, final_evaluation=True, track=True)
    assert torch.equal(state, solution.z)
    torch.testing.assert_close(image, problem.f(solution.z))
    assert not torch.allclose(state, image, rtol=0, atol=1e-3)
    gradients, expected = (
        torch.autograd.grad(value, (problem.weight, problem.shift), problem.cotangent) for value in (state, image)
    )
    assert relative_error(list(gradients), list(expected)) < 1e-12


@pytest.mark.parametrize("rule", ["jfb", "ift", "unroll"])
def test_the_value_with_and_without_tracking_agrees(problem, rule):
    solver = FixedPointConfig(max_evals=5, tol=0)
    tracked = problem.solve(GradientConfig(rule=rule), solver)
    untracked = problem.solve(GradientConfig(rule=rule), solver, track=False)
    torch.testing.assert_close(tracked, untracked)
    assert tracked.requires_grad
    assert not untracked.requires_grad


@pytest.mark.parametrize("rule", ["jfb", "ift", "unroll"])
def test_the_start_gets_no_gradient_and_stays_as_it_is(problem, rule):
    z0 = torch.ones_like(problem.shift, requires_grad=True)
    state, _ = deq(problem.f, z0, FixedPointConfig(max_evals=3), GradientConfig(rule=rule), True, track=True)
    state.sum().backward()
    assert z0.grad is None
    assert z0.eq(1).all()


@pytest.mark.parametrize("rule", ["jfb", "ift", "unroll"])
def test_nothing_of_a_step_outlives_it(problem, rule):
    solver = FixedPointConfig(max_evals=4)

    def step() -> list[weakref.ref]:
        alive = []

        def f(z: Tensor) -> Tensor:
            activation = z @ problem.weight.T
            image = torch.tanh(activation + problem.shift)
            alive.extend(map(weakref.ref, (z, activation, image)))
            return image

        state, _ = deq(f, torch.zeros_like(problem.shift), solver, GradientConfig(rule=rule), True, track=True)
        alive.append(weakref.ref(state))
        (state * problem.cotangent).sum().backward()
        return alive

    gc.disable()
    try:
        alive = step()
    finally:
        gc.enable()
    assert len(alive) > 4
    assert [reference() for reference in alive] == [None] * len(alive)


def bytes_saved_for_backward(problem: Problem, gradient: GradientConfig, max_evals: int) -> int:
    total = 0

    def pack(tensor: Tensor) -> Tensor:
        nonlocal total
        total += tensor.nbytes
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        problem.solve(gradient, AndersonConfig(max_evals=max_evals, tol=0))
    return total


def test_memory_of_implicit_rules_does_not_grow_with_the_evaluations_that_of_unrolling_does(problem):
    for gradient in (
        GradientConfig(rule="jfb"),
        GradientConfig(rule="jfb", phantom_steps=3),
        GradientConfig(rule="ift"),
    ):
        assert 0 < bytes_saved_for_backward(problem, gradient, 4) == bytes_saved_for_backward(problem, gradient, 32)
    few, many = (bytes_saved_for_backward(problem, GradientConfig(rule="unroll"), evals) for evals in (4, 32))
    assert many > 5 * few


# Tensors beside z, and samples that leave the solve


@pytest.mark.parametrize("rule", ["jfb", "ift", "unroll"])
@pytest.mark.parametrize("final_evaluation", [False, True])
def test_args_receive_the_gradients_that_a_tensor_closed_over_does(problem, rule, final_evaluation):
    config = GradientConfig(rule=rule, backward_solver=PRECISE)
    solver = AndersonConfig(max_evals=40, tol=1e-12)
    z0 = torch.zeros_like(problem.shift)
    states = [
        deq(problem.f, z0, solver, config, final_evaluation, True)[0],
        deq(lambda z, shift: problem.map(z, problem.weight, shift), z0, solver, config, final_evaluation, True,
            (problem.shift,))[0],
    ]  # fmt: skip
    closed_over, by_args = (
        list(torch.autograd.grad(state, (problem.weight, problem.shift), problem.cotangent)) for state in states
    )
    torch.testing.assert_close(states[1], states[0], rtol=0, atol=1e-10)
    assert relative_error(by_args, closed_over) < 1e-8


@each_solver
@pytest.mark.parametrize("rule", ["jfb", "ift"])
def test_compaction_changes_no_gradient(problem, solver, rule):
    problem.shift.data[1] = 0  # at its fixed point from the start, so that it leaves early
    config = GradientConfig(rule=rule, backward_solver=PRECISE)
    sizes, gradients = [], []

    def f(z: Tensor, shift: Tensor) -> Tensor:
        sizes.append(len(z))
        return problem.map(z, problem.weight, shift)

    for compact in (None, False):
        options = replace(solver, compact=compact)
        state, _ = deq(f, torch.zeros_like(problem.shift), options, config, True, True, (problem.shift,))
        gradients.append(list(torch.autograd.grad(state, (problem.weight, problem.shift), problem.cotangent)))
    assert min(sizes) < 3 == sizes[-1]
    assert relative_error(*gradients) < 1e-6


@pytest.mark.parametrize("track", [False, True])
def test_the_final_evaluation_of_plain_iteration_takes_args_of_every_sample(problem, track):
    solver = FixedPointConfig(max_evals=60, tol=1e-10)
    z0 = torch.zeros_like(problem.shift)
    state, _ = deq(
        lambda z, shift: problem.map(z, problem.weight, shift),
        z0,
        solver,
        GradientConfig(),
        True,
        track,
        (problem.shift,),
    )
    torch.testing.assert_close(state, problem.fixed_point(), rtol=0, atol=1e-8)


# The tracked evaluation


@pytest.mark.parametrize(
    "gradient",
    [
        GradientConfig(rule="jfb"),
        GradientConfig(rule="jfb", phantom_steps=3),
        GradientConfig(rule="ift", backward_solver=PRECISE),
        GradientConfig(rule="unroll"),
    ],
)
@pytest.mark.parametrize("final_evaluation", [False, True])
@pytest.mark.parametrize("max_evals", [1, 12])
def test_the_jacobian_of_the_last_tracked_evaluation_can_be_asked_for(problem, gradient, final_evaluation, max_evals):
    solver, z0 = AndersonConfig(max_evals=max_evals, tol=0), torch.zeros_like(problem.shift)
    tracked, _ = tracked_deq(problem.f, z0, solver, gradient, final_evaluation, jacobian=True)
    torch.testing.assert_close(tracked.image, problem.f(tracked.z))
    probe = torch.randn(tracked.z.shape, dtype=tracked.z.dtype, generator=torch.Generator().manual_seed(1))
    (product,) = torch.autograd.grad(tracked.image, tracked.z, probe, create_graph=True)
    expected = torch.einsum("bi,bij->bj", probe, problem.jacobians(tracked.z.detach()))
    torch.testing.assert_close(product, expected)
    gradients = torch.autograd.grad(product.square().sum() + tracked.state.sum(), (problem.weight, problem.shift))
    assert all(gradient.isfinite().all() for gradient in gradients)


@pytest.mark.parametrize("rule", ["jfb", "ift", "unroll"])
def test_asking_for_the_jacobian_changes_neither_value_nor_gradient(problem, rule):
    solver, z0 = AndersonConfig(max_evals=5, tol=0), torch.zeros_like(problem.shift)
    config = GradientConfig(rule=rule)
    states = [
        tracked_deq(problem.f, z0, solver, config, True, jacobian=jacobian)[0].state for jacobian in (False, True)
    ]
    assert torch.equal(*states)
    gradients = [
        list(torch.autograd.grad(state, (problem.weight, problem.shift), problem.cotangent)) for state in states
    ]
    assert relative_error(*gradients) < 1e-12


def test_phantom_steps_leave_their_start_as_it_is(problem):
    z = torch.ones_like(problem.shift).detach()
    tracked = phantom(problem.f, z, 2, jacobian=True)
    assert not z.requires_grad
    torch.testing.assert_close(tracked.state, problem.f(problem.f(z)))


def test_differentiating_an_implicit_gradient_again_is_refused(problem):
    state = problem.solve(GradientConfig(rule="ift"))
    (gradient,) = torch.autograd.grad(state.square().sum(), problem.shift, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        gradient.sum().backward()


def test_a_backward_pass_can_be_repeated_on_a_kept_graph(problem):
    loss = (problem.solve(GradientConfig(rule="ift")) * problem.cotangent).sum()
    first = torch.autograd.grad(loss, problem.shift, retain_graph=True)[0]
    assert torch.equal(torch.autograd.grad(loss, problem.shift)[0], first)


def test_a_failed_solve_is_a_value_in_training_too():
    f = make_problem(nonlinear=False).f
    z0 = torch.zeros(3, SIZE, dtype=torch.float64)
    z0[1] = torch.nan
    state, solution = deq(f, z0, AndersonConfig(max_evals=20, tol=1e-6), GradientConfig(), True, track=True)
    assert solution.status.tolist() == [Status.CONVERGED, Status.NON_FINITE, Status.CONVERGED]
    assert state[[0, 2]].isfinite().all()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rule": "implicit"}, "rule must be one of ift, jfb, unroll, not 'implicit'"),
        ({"phantom_steps": 0}, "phantom_steps must be at least 1, not 0"),
        ({"phantom_steps": 1.0}, "phantom_steps must be an integer"),
        ({"backward_solver": "anderson"}, "backward_solver must be a SolverConfig"),
        ({"backward_solver": AndersonConfig(criterion="absolute")}, "backward_solver must have the relative criterion"),
    ],
)
def test_an_option_out_of_range_is_named(options, message):
    with pytest.raises(ValueError, match=message):
        GradientConfig(**options)
