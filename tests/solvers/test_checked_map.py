"""What f may not do: change an argument in place, or return what is no state of the batch that it was given."""

from typing import Any

import pytest
import torch
from fixed_point_problems import every_solver
from torch import Tensor
from torch.testing import assert_close

from solvers import FixedPointConfig, solve


@every_solver
@pytest.mark.parametrize("inference", [False, True])
@pytest.mark.parametrize(
    "change",
    [
        lambda z: z.mul_(0.5),
        lambda z: z.view(-1).add_(1),
        lambda z: torch.tanh(z, out=z),
        lambda z: torch.nn.functional.relu(z, inplace=True),
        lambda z: z.detach().clamp_(0, 1),
    ],
)
def test_a_map_that_changes_its_argument_in_place_is_refused(config, inference, change):
    def f(z: Tensor) -> Tensor:
        return change(z).view_as(z)

    with torch.inference_mode(inference), pytest.raises(ValueError, match=r"f changed its argument z in place"):
        solve(f, torch.ones(2, 3), config(tol=0))


@every_solver
def test_a_change_in_a_later_evaluation_is_found_in_inference_mode_too(config):
    calls = []

    def f(z: Tensor) -> Tensor:
        calls.append(1)
        return 0.5 * z + 1 if len(calls) < 3 else z.mul_(0.5)

    with torch.inference_mode(), pytest.raises(ValueError, match=r"f changed its argument z in place"):
        solve(f, torch.zeros(2, 3), config(tol=0))
    assert len(calls) == 3


@every_solver
@pytest.mark.parametrize("inference", [False, True])
def test_a_map_that_changes_one_of_args_in_place_is_refused(config, inference):
    with torch.inference_mode(inference):
        args = torch.ones(2, 3), torch.ones(2, 3)
        with pytest.raises(ValueError, match=r"f changed its argument args\[1\] in place"):
            solve(lambda z, x, y: 0.5 * z + y.mul_(0.5), torch.zeros(2, 3), config(tol=0), args)


@every_solver
def test_in_inference_mode_the_start_and_args_are_not_copied(config):
    with torch.inference_mode():
        start, shift, given = torch.zeros(2, 3), torch.ones(2, 3), []
        solution = solve(
            lambda z, shift: given.append((z.data_ptr(), shift.data_ptr())) or 0.5 * z + shift,
            start,
            config(max_evals=20, tol=1e-6),
            (shift,),
        )
    assert given[0] == (start.data_ptr(), shift.data_ptr())
    assert_close(solution.z, torch.full((2, 3), 2.0))


@every_solver
@pytest.mark.parametrize(
    ("image", "message"),
    [
        (torch.zeros(2, 8), r"keep the shape \(2, 9\), but returned \(2, 8\)"),
        (torch.zeros(1, 9), r"keep the shape \(2, 9\), but returned \(1, 9\)"),
        (
            torch.zeros(2, 9, dtype=torch.int64),
            r"keep torch.float32 .* shape \(2, 9\), but returned torch.int64 on cpu",
        ),
        (torch.zeros(2, 9).double(), r"keep torch.float32 .* shape \(2, 9\), but returned torch.float64 on cpu"),
        (torch.zeros(2, 9, device="meta"), r"on cpu for the shape \(2, 9\), but returned torch.float32 on meta"),
        (None, r"return a tensor of shape \(2, 9\), not NoneType"),
    ],
)
def test_an_image_that_is_no_state_is_refused(config, image: Any, message):
    with pytest.raises(ValueError, match=message):
        solve(lambda z: image, torch.zeros(2, 9), config())


@every_solver
def test_a_tensor_of_the_whole_batch_that_f_closes_over_is_named_as_the_likely_mistake(config):
    closed_over = torch.zeros(3, 1)
    # All samples but one stop at once; from then on the tensor broadcasts to a shape that is not the state's.
    shift = torch.zeros(3, 5)
    shift[0] = 1
    with pytest.raises(ValueError, match=r"keep the shape \(1, 5\), but returned \(3, 5\); .* must be passed in args"):
        solve(lambda z, shift: closed_over + 0.9 * z + shift, torch.zeros(3, 5), config(), (shift,))


@pytest.mark.parametrize("arg", [torch.zeros(3, 9), torch.tensor(1.0), 0.5, None])
def test_an_argument_that_is_not_of_every_sample_is_refused(arg):
    with pytest.raises(ValueError, match=r"args\[1\] must be a tensor of 2 samples like z0, not"):
        solve(lambda z, *args: z, torch.zeros(2, 9), FixedPointConfig(), (torch.zeros(2), arg))
