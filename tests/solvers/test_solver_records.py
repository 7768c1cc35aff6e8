"""What every solver records of its way: the trace and the trajectory."""

import torch
from fixed_point_problems import affine_problem, assert_same_bits, every_solver, map_with_residuals
from torch.testing import assert_close

from solvers import solve


@every_solver
def test_the_trace_and_the_trajectory_end_in_nan_where_a_sample_has_stopped(config):
    table = [[0.1, 3.0], [0.1, 2.0], [0.1, 0.1], [0.1, 0.1]]
    options = config(max_evals=4, tol=0.5, criterion="absolute", record_trajectory=True)
    solution = solve(map_with_residuals(table), torch.ones(2, 9), options)
    nan = torch.nan
    assert_close(solution.trace, torch.tensor([[0.1, 3], [nan, 2], [nan, 0.1]]), equal_nan=True)
    assert solution.trajectory.shape == (3, 2, 9)
    assert solution.trajectory.isnan().all(dim=2).tolist() == [[False, False], [True, False], [True, False]]


@every_solver
def test_the_trajectory_starts_at_z0_and_holds_what_f_was_given(config):
    f, _ = affine_problem(2, 3, 4, 4)
    given = []
    options = config(max_evals=5, tol=0, record_trajectory=True)
    start = torch.ones(2, 3, 4, 4)
    solution = solve(lambda z: given.append(z.clone()) or f(z), start, options)
    assert torch.equal(solution.trajectory, torch.stack(given))
    assert torch.equal(solution.trajectory[0], start)


@every_solver
def test_recording_the_trajectory_changes_nothing_and_is_off_by_default(config):
    f, _ = affine_problem(2, 30)
    plain = solve(f, torch.zeros(2, 30), config())
    recorded = solve(f, torch.zeros(2, 30), config(record_trajectory=True))
    assert plain.trajectory is None
    assert_same_bits(plain, recorded, samples=[0, 1])
