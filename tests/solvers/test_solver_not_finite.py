"""Values that are not finite, in every solver: the other samples are as they were, and the answer is finite."""

import pytest
import torch
from fixed_point_problems import affine_problem, assert_same_bits, every_solver, every_solver_that_chooses, spoilt_at
from torch.testing import assert_close

from solvers import FixedPointConfig, Status, solve


@every_solver
@pytest.mark.parametrize("value", [torch.nan, torch.inf])
@pytest.mark.parametrize("call", [1, 2, 4])
def test_a_value_that_is_not_finite_leaves_the_other_samples_bit_identical(config, value, call):
    f, _ = affine_problem(4, 30, rate=0.9)
    options = config(max_evals=12, tol=1e-3)
    clean = solve(f, torch.zeros(4, 30), options)
    spoilt = solve(spoilt_at(call, f, sample=1, value=value), torch.zeros(4, 30), options)
    assert_same_bits(clean, spoilt, samples=[0, 2, 3])
    assert spoilt.status[1] == Status.NON_FINITE
    assert spoilt.evals[1] == call
    assert not spoilt.trace[call - 1 :, 1].isfinite().any()
    assert spoilt.z.isfinite().all()


@every_solver
@pytest.mark.parametrize("stop_rule", ["sample", "batch"])
def test_nothing_finite_gives_the_start(config, stop_rule):
    f, _ = affine_problem(2, 30)
    start = torch.ones(2, 30)
    solution = solve(spoilt_at(1, f, sample=1), start, config(max_evals=3, stop_rule=stop_rule))
    assert torch.equal(solution.z[1], start[1])
    assert solution.status[1] == Status.NON_FINITE
    assert solution.residual[1].isnan()


@every_solver
def test_the_solution_shares_no_memory_with_the_start_nor_with_what_f_returned(config):
    for image in (torch.full((1, 9), torch.nan), torch.ones(1, 9)):
        start = torch.ones(1, 9)
        solution = solve(lambda z, image=image: image, start, config(max_evals=3))
        given = {start.data_ptr(), image.data_ptr()}
        assert solution.z.data_ptr() not in given
        assert solution.f_z is None or solution.f_z.data_ptr() not in given


def test_the_fixed_point_solver_falls_back_on_the_last_finite_value_of_f():
    f, _ = affine_problem(2, 30, rate=0.9)
    start = torch.ones(2, 30)
    solution = solve(spoilt_at(3, f, sample=1), start, FixedPointConfig())
    assert torch.equal(solution.z[1], f(f(start))[1])


@every_solver_that_chooses
def test_a_candidate_stands_when_later_values_are_not_finite(config):
    f, _ = affine_problem(2, 30)
    start = torch.full((2, 30), 20.0)
    solution = solve(spoilt_at(3, f, sample=1), start, config())
    assert_close(solution.z[1], f(start)[1])
    assert_close(solution.f_z[1], f(f(start))[1])
    assert solution.residual[1].isfinite()


@every_solver_that_chooses
@pytest.mark.parametrize("stop_rule", ["sample", "batch"])
def test_without_a_candidate_the_last_finite_value_of_f_stands_for_both(config, stop_rule):
    f, _ = affine_problem(2, 30)
    start = torch.ones(2, 30)
    options = config(min_evals=3, max_evals=6, stop_rule=stop_rule)
    solution = solve(spoilt_at(2, f, sample=1), start, options)
    assert torch.equal(solution.z[1], f(start)[1])
    assert torch.equal(solution.f_z[1], solution.z[1])
    assert solution.residual[1].isnan()


@every_solver
def test_under_the_batch_rule_a_nan_leaves_the_end_to_the_budget(config):
    f, _ = affine_problem(3, 30)
    solution = solve(spoilt_at(2, f, sample=1), torch.zeros(3, 30), config(max_evals=12, stop_rule="batch"))
    assert solution.evals.tolist() == [12] * 3
    assert solution.status.tolist() == [Status.BUDGET_SPENT, Status.NON_FINITE, Status.BUDGET_SPENT]
    assert solution.z.isfinite().all()


@every_solver_that_chooses
def test_under_the_batch_rule_samples_without_a_candidate_have_their_last_finite_value_of_f(config):
    f, fixed_point = affine_problem(3, 30)
    solution = solve(spoilt_at(1, f, sample=1), torch.zeros(3, 30), config(max_evals=20, stop_rule="batch"))
    assert_close(solution.z[[0, 2]], fixed_point[[0, 2]], rtol=1e-3, atol=1e-4)
    assert torch.equal(solution.f_z, solution.z)
    assert solution.residual.isfinite().tolist() == [True, False, True]
