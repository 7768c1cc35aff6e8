import math

import pytest
import torch
from torch.testing import assert_close

from solvers import FixedPointConfig, Status, solve


def test_the_residual_falls_by_the_rate_of_the_map():
    solution = solve(
        lambda z: 0.5 * z + 1, torch.zeros(1, 4), FixedPointConfig(max_evals=8, tol=0, criterion="absolute")
    )
    # z_k = 2 - 2^(1-k) in each of the four elements, so the step from it is 2^-k.
    assert solution.trace.flatten().tolist() == [pytest.approx(2 * 0.5**k) for k in range(8)]


@pytest.mark.parametrize("budget", [1, 2, 5])
def test_the_answer_is_the_last_value_of_f(budget):
    solution = solve(lambda z: 0.5 * z + 1, torch.zeros(1, 3), FixedPointConfig(max_evals=budget, tol=0))
    assert solution.z.tolist() == [[2 - 2 * 0.5**budget] * 3]
    assert solution.f_z is None


def test_the_answer_is_the_last_value_of_f_even_if_an_earlier_one_was_better():
    # The residual of a rotation by a quarter turn, stretched by 2, doubles with every evaluation.
    quarter_turn = 2 * torch.tensor([[0.0, -1.0], [1.0, 0.0]])
    solution = solve(lambda z: z @ quarter_turn.T, torch.tensor([[1.0, 0.0]]), FixedPointConfig(max_evals=3, tol=0))
    assert solution.z.tolist() == [[0.0, -8.0]]


def test_a_rotation_converges_at_the_modulus_of_its_eigenvalues():
    angle, modulus = 1.0, 0.8
    rotation = modulus * torch.tensor([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
    options = FixedPointConfig(max_evals=12, tol=0, criterion="absolute")
    trace = solve(lambda z: z @ rotation.T + 1, torch.zeros(1, 2), options).trace.flatten()
    assert_close(trace[1:] / trace[:-1], torch.full((11,), modulus), rtol=1e-4, atol=0)


def test_it_diverges_where_an_eigenvalue_exceeds_one():
    rates = torch.linspace(-1.3, 0.9, 64)
    solution = solve(lambda z: rates * z + 1, torch.zeros(1, 64), FixedPointConfig(max_evals=60))
    assert solution.status.item() == Status.BUDGET_SPENT
    assert solution.residual.item() > 1
