"""Memory format, precision and graph of the tensors of every solver."""

from dataclasses import fields

import pytest
import torch
from fixed_point_problems import affine_problem, assert_same_bits, every_solver
from torch import Tensor
from torch.testing import assert_close

from solvers import AndersonConfig, FixedPointConfig, solve


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
