"""What every solver converges to, and the residual that it says it has."""

import pytest
import torch
from fixed_point_problems import affine_problem, every_solver, every_solver_that_chooses
from torch.testing import assert_close

from solvers import Status, solve


@every_solver
@pytest.mark.parametrize("shape", [(3,), (3, 7), (3, 5, 4, 4), (3, 2, 2, 2, 2)])
def test_an_affine_contraction_converges_to_its_fixed_point(config, shape):
    f, fixed_point = affine_problem(*shape)
    solution = solve(f, torch.zeros(shape), config(max_evals=40, tol=1e-6))
    assert solution.status.tolist() == [Status.CONVERGED] * 3
    assert (solution.residual < 1e-6).all()
    assert_close(solution.z, fixed_point, rtol=1e-4, atol=1e-5)


@every_solver
@pytest.mark.parametrize(("criterion", "expected"), [("relative", 5 / 10), ("absolute", 5)])
def test_the_residual_by_hand(config, criterion, expected):
    step = torch.tensor([[3.0, 4.0]])
    solution = solve(lambda z: z + step, step, config(max_evals=1, criterion=criterion))
    assert solution.residual.item() == pytest.approx(expected)
    assert solution.trace.tolist() == [[pytest.approx(expected)]]


@every_solver_that_chooses
def test_the_residual_is_that_of_the_chosen_iterate(config):
    f, _ = affine_problem(3, 20)
    solution = solve(f, torch.zeros(3, 20), config(max_evals=6, tol=0, criterion="absolute"))
    assert_close(solution.residual, (f(solution.z) - solution.z).norm(dim=1))
    assert torch.equal(solution.f_z, f(solution.z))


@every_solver
@pytest.mark.parametrize("scale", [1e-6, 1e-3, 1e3])
def test_the_problems_scale_does_not_matter(config, scale):
    f, _ = affine_problem(2, 30, rate=0.9)
    options = config(max_evals=30, tol=1e-4, record_trajectory=True)
    unit = solve(f, torch.ones(2, 30), options)
    scaled = solve(lambda z: scale * f(z / scale), torch.full((2, 30), scale), options)
    assert scaled.evals.tolist() == unit.evals.tolist()
    assert_close(scaled.z / scale, unit.z, rtol=1e-3, atol=1e-4)
    assert_close(scaled.trajectory[:6] / scale, unit.trajectory[:6], rtol=1e-4, atol=1e-5)


@every_solver
def test_the_relative_residual_has_no_constant_floor(config):
    f, _ = affine_problem(1, 30)
    scale = 1e-9
    unit = solve(f, torch.ones(1, 30), config(max_evals=1)).residual
    scaled = solve(lambda z: scale * f(z / scale), torch.full((1, 30), scale), config(max_evals=1)).residual
    assert_close(scaled, unit)


@every_solver
def test_a_map_to_zero_converges_to_zero(config):
    solution = solve(torch.zeros_like, torch.full((1, 30), 100.0), config())
    assert solution.evals.item() == 2
    assert solution.status.item() == Status.CONVERGED
    assert not solution.z.any()
