"""The gradient of an implicit layer: exact with ift, and with jfb and phantom steps as much of it as they promise."""

import math
from dataclasses import replace

import pytest
import torch
from implicit_problems import PRECISE, SPECTRAL_RADIUS, Problem, each_solver, make_problem, relative_error
from torch import Tensor

from models.deq import GradientConfig, deq
from solvers import AndersonConfig, FixedPointConfig


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


@pytest.mark.parametrize(
    ("changes", "named"), [({"gradient": "ift"}, "gradient"), ({"final_evaluation": 1}, "final_evaluation")]
)
def test_an_option_of_another_kind_is_refused_by_name(changes, named):
    options = {"solver": PRECISE, "gradient": GradientConfig(), "final_evaluation": True, "track": False} | changes
    with pytest.raises(ValueError, match=f"^{named} must be"):
        deq(torch.cos, torch.zeros(1, 4), **options)


def test_a_compact_solver_of_cotangents_is_refused():
    with pytest.raises(ValueError, match="backward_solver must not be compact"):
        GradientConfig(rule="ift", backward_solver=replace(PRECISE, compact=True))


def test_differentiating_an_implicit_gradient_again_is_refused(problem):
    state = problem.solve(GradientConfig(rule="ift"))
    (gradient,) = torch.autograd.grad(state.square().sum(), problem.shift, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        gradient.sum().backward()


def test_a_backward_pass_can_be_repeated_on_a_kept_graph(problem):
    loss = (problem.solve(GradientConfig(rule="ift")) * problem.cotangent).sum()
    first = torch.autograd.grad(loss, problem.shift, retain_graph=True)[0]
    assert torch.equal(torch.autograd.grad(loss, problem.shift)[0], first)


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
