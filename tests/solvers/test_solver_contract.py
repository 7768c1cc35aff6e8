import doctest
import importlib
import re
from dataclasses import FrozenInstanceError, dataclass, fields, replace

import pytest
import torch
from fixed_point_problems import CHOOSE_BEST, CONFIGS, affine_problem, map_with_residuals, spoilt_at
from torch import Tensor
from torch.testing import assert_close

from solvers import AndersonConfig, FixedPointConfig, Solution, SolverConfig, Status, solve, solver_config
from solvers.compaction import Departure

every_solver = pytest.mark.parametrize("config", CONFIGS)
every_solver_that_chooses = pytest.mark.parametrize("config", CHOOSE_BEST)


def assert_same_bits(first: Solution, second: Solution, samples: list[int]) -> None:
    """Everything a solve says of these samples is the same, bit by bit."""
    for field in ("z", "f_z", "residual", "evals", "status"):
        a, b = getattr(first, field), getattr(second, field)
        assert a is b is None or torch.equal(a[samples], b[samples]), field
    rows = min(len(first.trace), len(second.trace))
    a, b = first.trace[:rows, samples], second.trace[:rows, samples]
    assert torch.equal(a.nan_to_num(-1), b.nan_to_num(-1))


# Convergence and residuals


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


# Values that are not finite


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


# Trace and trajectory


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


# Memory format, precision, graph


@every_solver
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_the_start_is_not_copied_and_the_memory_format_is_kept(config, memory_format):
    f, _ = affine_problem(2, 3, 4, 5)
    start = torch.ones(2, 3, 4, 5).contiguous(memory_format=memory_format)
    given = []
    options = config(max_evals=4, tol=0, record_trajectory=True)
    solution = solve(lambda z: given.append(z) or f(z), start, options)
    assert given[0].data_ptr() == start.data_ptr()
    assert all(z.is_contiguous(memory_format=memory_format) for z in given)
    assert solution.z.is_contiguous(memory_format=memory_format)
    assert solution.f_z is None or solution.f_z.is_contiguous(memory_format=memory_format)
    assert solution.trajectory[0].is_contiguous(memory_format=memory_format)


@pytest.mark.parametrize("config", [FixedPointConfig, AndersonConfig])
def test_a_channels_last_image_is_not_copied(config):
    image = torch.rand(2, 3, 4, 5).contiguous(memory_format=torch.channels_last)
    given = []
    solve(lambda z: given.append(z) or image, torch.zeros_like(image), config(max_evals=2, tol=0))
    assert given[1].data_ptr() == image.data_ptr()


@every_solver
@pytest.mark.parametrize("start_format", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("image_format", [torch.contiguous_format, torch.channels_last])
def test_the_memory_formats_of_state_and_image_do_not_change_the_result(config, start_format, image_format):
    f, _ = affine_problem(2, 3, 4, 5)
    expected = solve(f, torch.ones(2, 3, 4, 5), config(max_evals=6, tol=0))
    start = torch.ones(2, 3, 4, 5).contiguous(memory_format=start_format)
    solution = solve(lambda z: f(z).contiguous(memory_format=image_format), start, config(max_evals=6, tol=0))
    assert_close(solution.z, expected.z, rtol=0, atol=1e-5)
    assert_close(solution.trace, expected.trace, rtol=1e-2, atol=1e-6)


@every_solver
def test_the_start_is_not_changed(config):
    f, _ = affine_problem(2, 30)
    start = torch.ones(2, 30)
    solve(f, start, config(max_evals=8, tol=0))
    assert (start == 1).all()


@every_solver
@pytest.mark.parametrize("half", [torch.bfloat16, torch.float16])
def test_the_state_is_single_precision_where_the_start_and_f_are_half(config, half):
    f, fixed_point = affine_problem(2, 30)
    given = []
    options = config(max_evals=8, tol=0, record_trajectory=True)
    solution = solve(lambda z: given.append(z.dtype) or f(z).to(half), torch.zeros(2, 30, dtype=half), options)
    assert set(given) == {torch.float32}
    for tensor in (solution.z, solution.residual, solution.trace, solution.trajectory):
        assert tensor.dtype == torch.float32
    assert solution.f_z is None or solution.f_z.dtype == torch.float32
    assert_close(solution.z, fixed_point, rtol=0.05, atol=0.05)


@every_solver
def test_double_precision_is_kept(config):
    rates = torch.linspace(-0.5, 0.5, 9, dtype=torch.float64)
    solution = solve(lambda z: rates * z + 1, torch.zeros(1, 9).double(), config(max_evals=60, tol=1e-13))
    assert_close(solution.z, 1 / (1 - rates).unsqueeze(0), rtol=1e-11, atol=0)


@every_solver
def test_autocast_outside_reaches_f_but_not_the_solver(config):
    f, _ = affine_problem(2, 300, rate=0.9)
    enabled = []
    expected = solve(f, torch.zeros(2, 300), config(max_evals=10, tol=0))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        # Elementwise arithmetic is not autocast, so that only the solver could make a difference.
        solution = solve(
            lambda z: enabled.append(torch.is_autocast_enabled("cpu")) or f(z),
            torch.zeros(2, 300),
            config(max_evals=10, tol=0),
        )
    assert enabled == [True] * 10
    assert_same_bits(solution, expected, samples=[0, 1])


@every_solver
def test_under_autocast_the_half_precision_of_f_ends_at_its_value(config):
    weight = 0.5 * torch.eye(16)
    images = []

    def f(z: Tensor) -> Tensor:
        images.append(torch.nn.functional.linear(z, weight, torch.ones(16)))
        return images[-1]

    with torch.autocast("cpu", dtype=torch.bfloat16):
        solution = solve(f, torch.zeros(2, 16), config(max_evals=8, tol=0))
    assert {image.dtype for image in images} == {torch.bfloat16}
    assert solution.z.dtype == solution.residual.dtype == torch.float32
    assert_close(solution.z, torch.full((2, 16), 2.0), rtol=0.01, atol=0)


@every_solver
def test_no_graph_is_recorded(config):
    rates = torch.full((9,), 0.5, requires_grad=True)
    modes = []

    def f(z: Tensor) -> Tensor:
        modes.append(torch.is_grad_enabled())
        return rates * z + 1

    options = config(max_evals=4, tol=0, record_trajectory=True)
    solution = solve(f, torch.zeros(1, 9, requires_grad=True), options)
    assert modes == [False] * 4
    assert torch.is_grad_enabled()
    for field in fields(solution):
        value = getattr(solution, field.name)
        assert value is None or not value.requires_grad


# Bad input


@every_solver
def test_a_map_that_changes_the_shape_is_refused(config):
    with pytest.raises(ValueError, match=r"keep the shape \(2, 9\), but returned \(2, 8\)"):
        solve(lambda z: z[:, 1:], torch.zeros(2, 9), config())


@pytest.mark.parametrize("start", [torch.zeros(2, 9, dtype=torch.int64), torch.tensor(1.0), torch.zeros(0, 9)])
def test_a_start_that_is_no_batch_of_numbers_is_refused(start):
    with pytest.raises(ValueError, match="z0 must be a non-empty floating-point batch"):
        solve(lambda z: z, start, FixedPointConfig())


@every_solver
def test_an_unknown_option_is_named(config):
    with pytest.raises(TypeError, match="max_eval"):
        config(max_eval=3)


@every_solver
@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("max_evals", 0),
        ("tol", -1e-3),
        ("tol", float("nan")),
        ("tol", 10**400),
        ("tol", True),
        ("criterion", "rel"),
        ("stop_rule", "mean"),
        ("min_evals", 0),
    ],
)
def test_an_option_out_of_range_is_named(config, option, value):
    with pytest.raises(ValueError, match=f"{option} must be .*, not {re.escape(repr(value))}"):
        config(**{option: value})


@pytest.mark.parametrize(
    ("name", "option", "value"),
    [
        ("anderson", "m", 0),
        ("anderson", "lam", -1.0),
        ("anderson", "lam", 1e308),
        ("anderson", "beta", None),
        ("anderson", "beta", "1"),
        ("anderson", "ridge", "none"),
        ("anderson", "beta", 0.0),
        ("anderson", "beta", 1.5),
        ("broyden", "memory", 0),
    ],
)
def test_a_solvers_own_option_out_of_range_is_named(name, option, value):
    with pytest.raises(ValueError, match=f"{option} must be .*, not {re.escape(repr(value))}"):
        solver_config(name, **{option: value})


def test_a_solver_by_name():
    assert solver_config("anderson", m=3, tol=0.1) == AndersonConfig(m=3, tol=0.1)


def test_an_unknown_solver_or_option_by_name_is_told_with_the_known_ones():
    with pytest.raises(ValueError, match=r"unknown solver \['anderson'\]"):
        solver_config(["anderson"])
    with pytest.raises(ValueError, match=r"unknown solver 'newton'; known: fixed_point, anderson, broyden"):
        solver_config("newton")
    with pytest.raises(ValueError, match=r"unknown option 'memory' of solver 'anderson'; known: .*m, lam"):
        solver_config("anderson", memory=3)


@every_solver
def test_a_configuration_is_frozen(config):
    with pytest.raises(FrozenInstanceError):
        config().tol = 0


def test_every_status_has_a_text_of_its_own():
    assert len({status.text for status in Status}) == len(Status) == 3


# Extension and documentation


@dataclass(frozen=True, kw_only=True)
class DampedConfig(SolverConfig):
    damping: float = 0.5

    def start(self, z0: Tensor) -> "DampedMethod":
        return DampedMethod(self.damping)


@dataclass
class DampedMethod:
    damping: float
    returns_best = True

    def residual_buffer(self) -> None:
        return None

    def next_iterate(self, z: Tensor, f_z: Tensor, difference: Tensor) -> Tensor:
        return z + self.damping * difference

    def drop(self, departure: Departure) -> None:
        pass


def test_a_solver_of_ones_own_works_under_the_same_contract():
    slope = torch.tensor([[-1.5], [-0.9]])
    solution = solve(lambda z, a: 2 + a * z, torch.zeros(2, 3), DampedConfig(max_evals=30, tol=1e-6), (slope,))
    assert solution.status.tolist() == [Status.CONVERGED] * 2
    assert solution.evals[0] != solution.evals[1]
    assert_close(solution.z, (2 / (1 - slope)).expand(2, 3))


def test_a_solver_without_a_method_says_what_is_missing():
    with pytest.raises(NotImplementedError, match=r"SolverConfig has no method start"):
        solve(lambda z: z, torch.zeros(1, 3), replace(SolverConfig(), tol=0))


@pytest.mark.parametrize("module", ["fixed_point", "anderson", "broyden"])
def test_the_examples_of_the_docstrings_run(module):
    result = doctest.testmod(importlib.import_module(f"solvers.{module}"))
    assert result.attempted > 0
    assert result.failed == 0


@pytest.mark.parametrize("option", ["max_evals", "min_evals", "m"])
@pytest.mark.parametrize("value", [2.5, torch.inf, "3", True, 0])
def test_counts_are_integers_of_at_least_one(option, value):
    with pytest.raises(ValueError, match=f"{option} must be an integer"):
        AndersonConfig(**{option: value})


@pytest.mark.parametrize("option", ["tol", "lam"])
@pytest.mark.parametrize("value", [torch.inf, torch.nan, -1, "1"])
def test_strengths_are_numbers_in_their_range(option, value):
    with pytest.raises(ValueError, match=f"{option} must be a number from 0 to"):
        AndersonConfig(**{option: value})


@pytest.mark.parametrize("start", [None, [1.0], torch.ones(2, 3).to_sparse(), torch.ones(2, 3, device="meta")])
def test_a_start_that_is_no_dense_tensor_is_refused(start):
    with pytest.raises(ValueError, match="z0 must be a"):
        solve(lambda z: z, start, FixedPointConfig())


@pytest.mark.parametrize("config", [None, {}, "anderson", 3])
def test_a_configuration_that_is_none_is_refused(config):
    with pytest.raises(ValueError, match="config must be that of a solver"):
        solve(lambda z: z, torch.ones(2, 3), config)


def test_a_map_to_a_sparse_tensor_is_refused():
    with pytest.raises(ValueError, match="dense"):
        solve(lambda z: z.to_sparse(), torch.ones(2, 3), FixedPointConfig())


@pytest.mark.parametrize(
    ("f", "args", "reason"),
    [
        (None, (), "f must be a function"),
        ("f", (), "f must be a function"),
        (torch.sin, None, "args must be a list or tuple"),
        (torch.sin, 1.0, "args must be a list or tuple"),
        (torch.sin, torch.zeros(1, 1), "args must be a list or tuple"),
    ],
)
def test_a_map_that_is_none_and_args_that_are_no_list_are_named(f, args, reason):
    with pytest.raises(ValueError, match=reason):
        solve(f, torch.zeros(1, 3), FixedPointConfig(), args)
