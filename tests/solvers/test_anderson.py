import math

import pytest
import torch
from fixed_point_problems import affine_problem
from scipy.sparse.linalg import gmres
from torch import Tensor
from torch.testing import assert_close

from benchmarks.solver_steps import RecomputedGramConfig, step_traffic
from solvers import AndersonConfig, FixedPointConfig, Status, solve
from solvers.anderson import mixing_weights, update_gram

# Known solutions


def test_with_a_full_history_the_iterates_follow_gmres():
    # Walker & Ni (2011), theorem 2.2: z_{k+1} = f(x_k), x_k the k-th iterate of GMRES for (I - A) x = b from z_0.
    size, steps = 12, 8
    generator = torch.Generator().manual_seed(0)
    matrix = torch.randn(size, size, generator=generator, dtype=torch.float64) / size**0.5
    shift, start = torch.randn(2, size, generator=generator, dtype=torch.float64)
    options = AndersonConfig(m=steps + 2, lam=0, max_evals=steps + 2, tol=0, record_trajectory=True)
    trajectory = solve(lambda z: z @ matrix.T + shift, start.unsqueeze(0), options).trajectory[:, 0]
    system = (torch.eye(size) - matrix).numpy()
    for k in range(1, steps + 1):
        x, _ = gmres(system, shift.numpy(), x0=start.numpy(), restart=k, maxiter=1, rtol=0, atol=0)
        assert_close(trajectory[k + 1], matrix @ torch.from_numpy(x) + shift, rtol=1e-7, atol=1e-7)


def test_it_converges_where_plain_iteration_diverges():
    rates = torch.linspace(-1.3, 0.9, 64)
    solution = solve(lambda z: rates * z + 1, torch.zeros(1, 64), AndersonConfig(max_evals=60, tol=1e-5))
    assert solution.status.item() == Status.CONVERGED
    assert_close(solution.z, 1 / (1 - rates).unsqueeze(0), rtol=0, atol=2e-3)


@pytest.mark.parametrize("modulus", [0.99, 1.0, 1.2])
@pytest.mark.parametrize("angle", [0.3, math.pi / 2, 3.0])
def test_the_rotations_of_a_plane_take_four_evaluations(angle, modulus):
    # Three differences in a plane can always be mixed to zero; the fourth evaluation shows it.
    rotation = [[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]]
    matrix = modulus * torch.tensor(rotation, dtype=torch.float64)
    shift = torch.tensor([1.0, 2.0], dtype=torch.float64)
    options = AndersonConfig(m=3, lam=1e-12, max_evals=4, tol=1e-8)
    solution = solve(lambda z: z @ matrix.T + shift, torch.zeros(1, 2, dtype=torch.float64), options)
    assert solution.status.item() == Status.CONVERGED
    assert_close(solution.z[0], torch.linalg.solve(torch.eye(2) - matrix, shift), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("beta", [0.3, 1.0])
def test_two_steps_by_hand(beta):
    # f(z) = 2 - 1.5 z: z_0 = 0, f = 2, g = 2; z_1 = 2 (the first step is plain), f = -1, g = -3. The weights
    # (3/5, 2/5) take g to zero, where damping makes no difference: z_2 = 3/5 * 0 + 2/5 * 2 = 0.8.
    options = AndersonConfig(beta=beta, max_evals=3, tol=0, record_trajectory=True)
    trajectory = solve(lambda z: 2 - 1.5 * z, torch.zeros(1, 1), options).trajectory
    assert_close(trajectory.flatten(), torch.tensor([0, 2, 0.8]), rtol=0, atol=1e-5)


def test_two_steps_with_damping_and_ridge_by_hand():
    # As above with an absolute ridge of 6: (G + 6 I) = [[10, -6], [-6, 15]], alpha ~ [21, 16] / 37.
    beta, alpha = 0.7, torch.tensor([21.0, 16.0]) / 37
    options = AndersonConfig(lam=6, ridge="absolute", beta=beta, max_evals=3, tol=0, record_trajectory=True)
    trajectory = solve(lambda z: 2 - 1.5 * z, torch.zeros(1, 1), options).trajectory.flatten()
    images, iterates = torch.tensor([2.0, -1.0]), torch.tensor([0.0, 2.0])
    assert_close(trajectory[2], beta * alpha @ images + (1 - beta) * alpha @ iterates)


# m, beta, ridge


def test_it_is_not_plain_iteration():
    f, _ = affine_problem(1, 30, rate=0.9)
    options = {"max_evals": 4, "tol": 0, "record_trajectory": True}
    anderson = solve(f, torch.ones(1, 30), AndersonConfig(**options)).trajectory
    plain = solve(f, torch.ones(1, 30), FixedPointConfig(**options)).trajectory
    assert torch.equal(anderson[:2], plain[:2])
    assert (anderson[2] - plain[2]).abs().max() > 0.01


def test_a_memory_of_one_is_plain_iteration():
    f, _ = affine_problem(2, 30, rate=0.9)
    options = {"max_evals": 8, "tol": 0, "record_trajectory": True}
    anderson = solve(f, torch.ones(2, 30), AndersonConfig(m=1, **options)).trajectory
    assert_close(anderson, solve(f, torch.ones(2, 30), FixedPointConfig(**options)).trajectory)


def test_a_memory_of_one_with_damping_is_damped_iteration_after_the_first_step():
    options = AndersonConfig(m=1, beta=0.5, max_evals=4, tol=0, record_trajectory=True)
    trajectory = solve(lambda z: -z + 4, torch.zeros(1, 1), options).trajectory.flatten()
    # z_1 = f(0) = 4, then halfway to f(4) = 0, which is the fixed point.
    assert_close(trajectory, torch.tensor([0.0, 4.0, 2.0, 2.0]))


def test_only_the_last_m_evaluations_are_mixed():
    f, _ = affine_problem(1, 30, rate=0.9)
    options = AndersonConfig(m=2, lam=0, max_evals=6, tol=0, record_trajectory=True)
    trajectory = solve(f, torch.ones(1, 30), options).trajectory[:, 0]
    for k in range(2, 6):
        z = trajectory[k - 2 : k]
        older, newer = f(z) - z
        # The weight that makes the mixed difference shortest, on the line between the two.
        weight = newer @ (newer - older) / (newer - older).square().sum()
        assert_close(trajectory[k], weight * f(z)[0] + (1 - weight) * f(z)[1], rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("scale", [1, 1e-3, 1e-6])
def test_a_relative_ridge_converges_where_an_absolute_one_stalls_on_a_small_right_hand_side(scale):
    rates = torch.linspace(-0.2, 0.95, 64)
    residual = {
        ridge: solve(
            lambda z: rates * z + scale,
            torch.zeros(1, 64),
            AndersonConfig(ridge=ridge, lam=lam, max_evals=30, tol=0),
        ).residual.item()
        for ridge, lam in (("relative", 1e-6), ("absolute", 1e-4))
    }
    assert residual["relative"] < 1e-4
    assert scale == 1 or residual["absolute"] > 300 * residual["relative"]


# The weights


@pytest.mark.parametrize(
    ("ridge", "lam", "expected"),
    [
        ("relative", 0.0, [1 / 5, 4 / 5]),
        ("relative", 1.0, [1 / 5, 4 / 5]),
        ("absolute", 1.0, [2 / 7, 5 / 7]),
    ],
)
def test_weights_of_orthogonal_differences_by_hand(ridge, lam, expected):
    # Without a ridge they are inverse to the squared lengths 4 and 1; an absolute ridge of 1 makes these 5 and 2.
    weights = mixing_weights(torch.tensor([[[4.0, 0.0], [0.0, 1.0]]]), 1, lam, ridge)
    assert_close(weights, torch.tensor([expected]))


@pytest.mark.parametrize(("ridge", "expected"), [("relative", [1 / 8, 7 / 8]), ("absolute", [1 / 5, 4 / 5])])
def test_weights_with_a_ridge_of_one_by_hand(ridge, expected):
    # G = [[4, 1], [1, 1]]; the ridge makes the diagonal 8, 2 (relative) or 5, 2 (absolute); (G + ridge) alpha ~ 1.
    weights = mixing_weights(torch.tensor([[[4.0, 1.0], [1.0, 1.0]]]), 1, 1.0, ridge)
    assert_close(weights, torch.tensor([expected]))


def random_differences(*lengths: float) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    vectors = torch.randn(3, len(lengths), 40, generator=generator, dtype=torch.float64)
    return vectors * torch.tensor(lengths, dtype=torch.float64).unsqueeze(1)


@pytest.mark.parametrize(("ridge", "lam"), [("relative", 1e-6), ("absolute", 1e-4)])
def test_weights_sum_to_one_and_satisfy_the_normal_equations(ridge, lam):
    differences = random_differences(1, 2, 0.5, 3)
    gram = differences @ differences.mT
    weights = mixing_weights(gram, 0, lam, ridge)
    assert_close(weights.sum(dim=1), torch.ones(3, dtype=torch.float64))
    penalty = lam * (gram.diagonal(dim1=1, dim2=2) if ridge == "relative" else torch.ones(3, 4))
    product = (gram @ weights.unsqueeze(2)).squeeze(2) + penalty * weights
    assert_close(product, product[:, :1].expand(3, 4))


def test_weights_are_accurate_in_single_precision_when_the_residuals_span_many_orders():
    differences = random_differences(1, 1e-2, 1e-5, 1e-8)
    gram = differences @ differences.mT
    expected = mixing_weights(gram, 3, 1e-6, "relative")
    weights = mixing_weights(gram.float(), 3, 1e-6, "relative")
    assert_close(weights.double(), expected, rtol=1e-3, atol=0)


@pytest.mark.parametrize("newest", [0, 1])
@pytest.mark.parametrize("gram", [[[1.0, 1.0], [1.0, 1.0]], [[0.0, 0.0], [0.0, 1.0]], [[torch.nan, 1.0], [1.0, 1.0]]])
def test_a_system_without_a_solution_gives_everything_to_the_newest_and_spares_the_others(gram, newest):
    regular = [[4.0, 0.0], [0.0, 1.0]]
    weights = mixing_weights(torch.tensor([gram, regular]), newest, 0.0, "relative")
    assert weights[0].tolist() == [float(newest == 0), float(newest == 1)]
    assert_close(weights[1], torch.tensor([1 / 5, 4 / 5]))


@pytest.mark.parametrize(("lam", "expected"), [(0.0, [0, 1, 2, 3]), (1e-6, [0, 1, 1.5, 1.5 + 1 / 3])])
def test_duplicate_differences_do_no_harm(lam, expected):
    # g(z) = 1 everywhere, a Gram matrix of rank one: without a ridge the newest takes all, with one all are equal.
    options = AndersonConfig(lam=lam, max_evals=4, tol=0, record_trajectory=True)
    trajectory = solve(lambda z: z + 1, torch.zeros(1, 4), options).trajectory
    assert_close(trajectory[:, 0, 0], torch.tensor(expected, dtype=torch.float32))


@pytest.mark.parametrize("lam", [0.0, 1e-6])
def test_a_sample_at_its_fixed_point_does_not_disturb_the_others(lam):
    f, fixed_point = affine_problem(2, 20)
    start = torch.stack([fixed_point[0], torch.zeros(20)])
    solution = solve(f, start, AndersonConfig(lam=lam, max_evals=25, tol=0))
    assert_close(solution.z, fixed_point, rtol=1e-4, atol=1e-5)


# The Gram matrix


def test_the_gram_matrix_renewed_row_by_row_is_the_one_computed_at_once():
    depth = 4
    vectors = random_differences(*range(1, 11))
    ring, gram = torch.zeros(3, depth, 40, dtype=torch.float64), torch.zeros(3, depth, depth, dtype=torch.float64)
    for step in range(10):
        ring[:, step % depth] = vectors[:, step]
        used = min(step + 1, depth)
        update_gram(gram, ring[:, :used], step % depth)
        assert_close(gram[:, :used, :used], ring[:, :used] @ ring[:, :used].mT)


@pytest.mark.parametrize("options", [{}, {"m": 3, "beta": 0.8}, {"ridge": "absolute", "lam": 1e-4}])
def test_the_iterates_are_those_of_a_gram_matrix_that_is_recomputed(options):
    f, _ = affine_problem(3, 40, rate=0.9)
    options = {"max_evals": 12, "tol": 0, "record_trajectory": True, **options}
    start = torch.zeros(3, 40, dtype=torch.float64)
    incremental = solve(f, start, AndersonConfig(**options)).trajectory
    assert_close(incremental, solve(f, start, RecomputedGramConfig(**options)).trajectory)


@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize(
    "options", [{}, {"beta": 0.8, "ridge": "absolute"}, {"stop_rule": "batch"}, {"criterion": "absolute"}]
)
def test_a_step_moves_less_than_thirty_states(batch, options):
    state = torch.rand(batch, 16, 32, 32, generator=torch.Generator().manual_seed(0))
    assert step_traffic(AndersonConfig(m=6, tol=0, **options), state) < 30


def test_recomputing_the_gram_matrix_moves_twice_as_much():
    assert step_traffic(RecomputedGramConfig(m=6, tol=0), torch.rand(1, 16, 32, 32)) > 60
