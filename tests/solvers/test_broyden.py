import pytest
import torch
from fixed_point_problems import affine_problem
from torch.testing import assert_close

from solvers import BroydenConfig, FixedPointConfig, Status, solve
from solvers.broyden import BroydenMethod, low_rank_product


def test_the_first_steps_by_hand():
    # f(z) = 2 - 1.5 z: g(0) = 2, so z_1 = 2; g(2) = -3; in one dimension the method is the secant method, which is
    # exact for a line: z_2 = 2 - (-3) * 2 / (-3 - 2) = 0.8.
    options = BroydenConfig(max_evals=3, tol=0, record_trajectory=True)
    trajectory = solve(lambda z: 2 - 1.5 * z, torch.zeros(1, 1), options).trajectory
    assert_close(trajectory.flatten(), torch.tensor([0, 2, 0.8]))


@pytest.mark.parametrize("size", [2, 5, 10])
@pytest.mark.parametrize("seed", [0, 1])
def test_a_linear_problem_ends_within_twice_its_size(size, seed):
    # Gay, SIAM J. Numer. Anal. 1979: at most 2n steps for n equations; one more evaluation shows the residual.
    generator = torch.Generator().manual_seed(seed)
    matrix = torch.randn(size, size, generator=generator, dtype=torch.float64) / size**0.5
    shift = torch.randn(size, generator=generator, dtype=torch.float64)
    options = BroydenConfig(max_evals=2 * size + 1, tol=0, criterion="absolute")
    solution = solve(lambda z: z @ matrix.T + shift, torch.zeros(1, size, dtype=torch.float64), options)
    assert solution.residual.item() < 1e-8 * solution.trace[0].item()
    assert_close(solution.z[0], torch.linalg.solve(torch.eye(size) - matrix, shift), rtol=1e-6, atol=1e-6)


def test_it_converges_where_plain_iteration_diverges():
    rates = torch.linspace(-1.3, 0.9, 64)
    options = BroydenConfig(max_evals=60, tol=1e-5, memory=60)
    solution = solve(lambda z: rates * z + 1, torch.zeros(1, 64), options)
    assert solution.status.item() == Status.CONVERGED
    assert_close(solution.z, 1 / (1 - rates).unsqueeze(0), rtol=0, atol=1e-3)


@pytest.mark.parametrize("modulus", [0.99, 1.0, 1.2])
def test_a_rotation_by_a_quarter_turn_ends_in_five_evaluations(modulus):
    rotation = modulus * torch.tensor([[0.0, -1.0], [1.0, 0.0]])
    shift = torch.tensor([1.0, 2.0])
    solution = solve(lambda z: z @ rotation.T + shift, torch.zeros(1, 2), BroydenConfig(max_evals=5, tol=1e-4))
    assert solution.status.item() == Status.CONVERGED
    assert_close(solution.z[0], torch.linalg.solve(torch.eye(2) - rotation, shift), rtol=1e-3, atol=1e-3)


def test_it_is_not_plain_iteration():
    f, _ = affine_problem(1, 30, rate=0.9)
    options = {"max_evals": 4, "tol": 0, "record_trajectory": True}
    broyden = solve(f, torch.ones(1, 30), BroydenConfig(**options)).trajectory
    plain = solve(f, torch.ones(1, 30), FixedPointConfig(**options)).trajectory
    assert_close(broyden[:2], plain[:2])
    assert (broyden[2] - plain[2]).abs().max() > 0.01


def test_low_rank_product_by_hand():
    left, right = torch.tensor([[[1.0, 2.0], [0.0, 1.0]]]), torch.tensor([[[3.0, 0.0], [1.0, 1.0]]])
    # right . vector = (3, 2); 3 * (1, 2) + 2 * (0, 1) - (1, 1).
    assert low_rank_product(left, right, torch.ones(1, 2)).tolist() == [[2.0, 7.0]]


@pytest.mark.parametrize("memory", [1, 3, 20])
def test_the_inverse_jacobian_satisfies_the_secant_condition(memory):
    generator = torch.Generator().manual_seed(0)
    points, images = torch.randn(2, 8, 2, 12, generator=generator, dtype=torch.float64)
    differences = images - points
    method = BroydenMethod(BroydenConfig(memory=memory), points[0])
    for k in range(8):
        method.next_iterate(points[k], images[k], differences[k])
        used = min(k, memory)
        assert method.u.shape[1] == min(memory, BroydenConfig().max_evals)
        if k > 0:
            change, step = differences[k] - differences[k - 1], points[k] - points[k - 1]
            assert_close(low_rank_product(method.u[:, :used], method.v[:, :used], change), step)


@pytest.mark.parametrize("memory", [1, 2, 4])
def test_a_short_memory_still_converges_where_plain_iteration_diverges(memory):
    rates = torch.linspace(-1.2, 0.5, 40)
    options = BroydenConfig(max_evals=80, tol=1e-4, memory=memory)
    solution = solve(lambda z: rates * z + 1, torch.zeros(1, 40), options)
    assert solution.status.item() == Status.CONVERGED
    assert_close(solution.z, 1 / (1 - rates).unsqueeze(0), rtol=1e-2, atol=1e-2)


def test_a_difference_that_does_not_change_leaves_plain_iteration():
    # g(z) = 1 everywhere: no update is possible, and none may spoil the iterates.
    options = BroydenConfig(max_evals=6, tol=0, record_trajectory=True)
    solution = solve(lambda z: z + 1, torch.zeros(1, 4), options)
    assert solution.trajectory[:, 0, 0].tolist() == [0, 1, 2, 3, 4, 5]


def test_a_sample_at_its_fixed_point_does_not_disturb_the_others():
    f, fixed_point = affine_problem(2, 20)
    start = torch.stack([fixed_point[0], torch.zeros(20)])
    solution = solve(f, start, BroydenConfig(max_evals=25, tol=0))
    assert_close(solution.z, fixed_point, rtol=1e-4, atol=1e-5)
