"""When every solver stops: budget, tolerance, min_evals and the two stop rules; and which iterate it returns."""

import pytest
import torch
from fixed_point_problems import (
    CHOOSE_BEST,
    affine_problem,
    every_solver,
    every_solver_that_chooses,
    map_with_residuals,
)
from torch.testing import assert_close

from solvers import Status, solve

# Budget, tolerance and min_evals


@every_solver
def test_a_start_at_the_fixed_point_costs_one_evaluation(config):
    solution = solve(lambda z: 0.5 * z + 1, torch.full((2, 5), 2.0), config())
    assert solution.evals.tolist() == [1, 1]
    assert solution.status.tolist() == [Status.CONVERGED] * 2
    assert solution.residual.tolist() == [0, 0]
    assert (solution.z == 2).all()
    assert solution.trace.shape == (1, 2)


@every_solver
@pytest.mark.parametrize("budget", [1, 2, 3, 9])
def test_the_budget_is_the_number_of_evaluations(config, budget):
    f, _ = affine_problem(2, 30, rate=0.99)
    calls = []
    solution = solve(lambda z: calls.append(1) or f(z), torch.zeros(2, 30), config(max_evals=budget, tol=1e-9))
    assert len(calls) == budget
    assert solution.evals.tolist() == [budget] * 2
    assert solution.status.tolist() == [Status.BUDGET_SPENT] * 2
    assert solution.trace.shape == (budget, 2)


@every_solver_that_chooses
def test_one_evaluation_gives_the_start_and_its_image(config):
    f, _ = affine_problem(2, 30)
    start = torch.ones(2, 30)
    solution = solve(f, start, config(max_evals=1))
    assert torch.equal(solution.z, start)
    assert torch.equal(solution.f_z, f(start))


@every_solver_that_chooses
def test_two_evaluations_give_the_image_of_the_start(config):
    f, _ = affine_problem(2, 30)
    start = torch.full((2, 30), 20.0)
    solution = solve(f, start, config(max_evals=2))
    assert_close(solution.z, f(start))
    assert_close(solution.f_z, f(f(start)))


@every_solver
def test_no_tolerance_spends_the_whole_budget_and_stays_at_a_fixed_point(config):
    solution = solve(lambda z: 0.5 * z + 1, torch.full((1, 5), 2.0), config(max_evals=9, tol=0))
    assert solution.evals.item() == 9
    assert solution.status.item() == Status.BUDGET_SPENT
    assert (solution.z == 2).all()
    assert solution.trace.flatten().tolist() == [0] * 9


@every_solver
@pytest.mark.parametrize("stop_rule", ["sample", "batch"])
def test_there_is_no_convergence_before_min_evals(config, stop_rule):
    options = config(max_evals=9, min_evals=3, stop_rule=stop_rule)
    solution = solve(lambda z: 0.5 * z + 1, torch.full((1, 5), 2.0), options)
    assert solution.evals.item() == 3
    assert solution.status.item() == Status.CONVERGED


@every_solver_that_chooses
@pytest.mark.parametrize("stop_rule", ["sample", "batch"])
def test_there_is_no_candidate_before_min_evals(config, stop_rule):
    options = config(max_evals=4, tol=0, criterion="absolute", min_evals=2, stop_rule=stop_rule, record_trajectory=True)
    solution = solve(map_with_residuals([[1.0], [4.0], [2.0], [3.0]]), torch.zeros(1, 9), options)
    assert solution.residual.item() == pytest.approx(2)
    assert torch.equal(solution.z, solution.trajectory[2])


@every_solver
@pytest.mark.parametrize("stop_rule", ["sample", "batch"])
def test_a_budget_under_min_evals_gives_the_last_value_of_f(config, stop_rule):
    options = config(max_evals=2, min_evals=3, stop_rule=stop_rule)
    solution = solve(lambda z: 0.5 * z + 1, torch.zeros(1, 5), options)
    assert (solution.z == 1.5).all()
    assert solution.f_z is None
    assert solution.status.item() == Status.BUDGET_SPENT


# The choice of the iterate


@every_solver_that_chooses
@pytest.mark.parametrize("stop_rule", ["sample", "batch"])
def test_the_best_iterate_is_returned_and_not_the_last(config, stop_rule):
    options = config(max_evals=4, tol=0, criterion="absolute", stop_rule=stop_rule, record_trajectory=True)
    solution = solve(map_with_residuals([[4.0], [1.0], [2.0], [3.0]]), torch.zeros(1, 9), options)
    assert solution.residual.item() == pytest.approx(1)
    assert torch.equal(solution.z, solution.trajectory[1])
    assert_close(solution.f_z, solution.trajectory[1] + 1 / 3)


@every_solver_that_chooses
def test_every_sample_has_its_own_best_iterate(config):
    options = config(max_evals=3, tol=0, criterion="absolute", record_trajectory=True)
    solution = solve(map_with_residuals([[4.0, 1.0], [1.0, 2.0], [2.0, 5.0]]), torch.zeros(2, 9), options)
    assert_close(solution.residual, torch.tensor([1.0, 1.0]))
    assert torch.equal(solution.z[0], solution.trajectory[1, 0])
    assert torch.equal(solution.z[1], solution.trajectory[0, 1])


@every_solver_that_chooses
def test_the_batch_rule_chooses_one_iterate_for_all(config):
    options = config(max_evals=3, tol=0, criterion="absolute", stop_rule="batch", record_trajectory=True)
    solution = solve(map_with_residuals([[4.0, 1.0], [1.0, 2.0], [2.0, 5.0]]), torch.zeros(2, 9), options)
    assert torch.equal(solution.z, solution.trajectory[1])
    assert_close(solution.residual, torch.tensor([1.0, 2.0]))


# The stop rules


@every_solver
def test_the_batch_rule_stops_on_the_mean_of_the_residuals(config):
    table = [[0.1, 3.0], [0.1, 1.0], [0.3, 0.6], [0.1, 0.1]]
    options = config(max_evals=4, tol=0.5, criterion="absolute", stop_rule="batch")
    solution = solve(map_with_residuals(table), torch.zeros(2, 9), options)
    assert solution.evals.tolist() == [3, 3]
    assert solution.status.tolist() == [Status.CONVERGED] * 2
    assert_close(solution.trace, torch.tensor(table[:3]))


@every_solver
def test_the_sample_rule_stops_every_sample_on_its_own_residual(config):
    table = [[0.1, 3.0, 3.0], [0.1, 1.0, 1.0], [9.0, 0.3, 0.6], [0.1, 0.1, 0.7]]
    options = config(max_evals=4, tol=0.5, criterion="absolute")
    solution = solve(map_with_residuals(table), torch.zeros(3, 9), options)
    assert solution.evals.tolist() == [1, 3, 4]
    assert solution.status.tolist() == [Status.CONVERGED, Status.CONVERGED, Status.BUDGET_SPENT]
    assert_close(solution.residual, torch.tensor([0.1, 0.3, 0.6 if config in CHOOSE_BEST else 0.7]))


@every_solver
def test_the_loop_ends_as_soon_as_all_samples_have_stopped(config):
    calls = []
    f = map_with_residuals([[0.1, 3.0], [0.1, 0.1], [0.1, 0.1]])
    solve(lambda z: calls.append(1) or f(z), torch.zeros(2, 9), config(max_evals=3, tol=0.5, criterion="absolute"))
    assert len(calls) == 2


@every_solver
@pytest.mark.parametrize("samples", [[3], [3, 1], [0, 1, 2], [5, 4, 3, 2, 1, 0]])
def test_a_sample_does_not_depend_on_the_rest_of_the_batch_nor_on_its_place(config, samples):
    f, _ = affine_problem(6, 8, 16, 16, rate=0.9)
    rates, shift = f(torch.ones(6, 8, 16, 16)) - f(torch.zeros(6, 8, 16, 16)), f(torch.zeros(6, 8, 16, 16))
    options = config(max_evals=15, tol=1e-3)
    whole = solve(lambda z: rates * z + shift, torch.zeros_like(shift), options)
    part = solve(lambda z: rates[samples] * z + shift[samples], torch.zeros_like(shift[samples]), options)
    assert part.evals.tolist() == whole.evals[samples].tolist()
    assert part.status.tolist() == whole.status[samples].tolist()
    # Not bit by bit: for another batch size the libraries may add the same products up in another order.
    assert_close(part.z, whole.z[samples], rtol=0, atol=1e-6 * whole.z.abs().max().item())
