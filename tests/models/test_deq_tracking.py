"""What an implicit layer returns in training, beside its gradient: its value, and the evaluation that is tracked."""

import pytest
import torch
from implicit_problems import PRECISE, SIZE, make_problem, relative_error

from models.deq import GradientConfig, deq, phantom, tracked_deq
from solvers import AndersonConfig, FixedPointConfig, Status


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


def test_a_failed_solve_is_a_value_in_training_too():
    f = make_problem(nonlinear=False).f
    z0 = torch.zeros(3, SIZE, dtype=torch.float64)
    z0[1] = torch.nan
    state, solution = deq(f, z0, AndersonConfig(max_evals=20, tol=1e-6), GradientConfig(), True, track=True)
    assert solution.status.tolist() == [Status.CONVERGED, Status.NON_FINITE, Status.CONVERGED]
    assert state[[0, 2]].isfinite().all()
