import math

import pytest
import torch
from torch import Tensor

from models.heatmaps import exponential_heatmaps, linear_heatmaps, normalise_heatmaps, soft_argmax
from utils.errors import OptionError


def single_pixel(row: int, column: int, size: int = 8, value: float = 1.0) -> Tensor:
    heatmaps = torch.zeros(1, 1, size, size)
    heatmaps[0, 0, row, column] = value
    return heatmaps


def gaussian(size: int, column: float, row: float, sigma_x: float, sigma_y: float) -> Tensor:
    positions = torch.arange(size, dtype=torch.float64)
    x = torch.exp(-((positions - column) ** 2) / (2 * sigma_x**2))
    y = torch.exp(-((positions - row) ** 2) / (2 * sigma_y**2))
    return (y[:, None] * x)[None, None]


@pytest.mark.parametrize(
    "heatmaps",
    [None, [[1.0]], torch.zeros(2, 4, 4), torch.zeros(1, 2, 4, 4, dtype=torch.int64), torch.zeros(1, 2, 4, 5)],
    ids=["nothing", "list", "three dimensions", "integers", "oblong"],
)
def test_what_are_no_heatmaps_is_refused_by_name(heatmaps):
    with pytest.raises(OptionError, match=r"^heatmaps must"):
        soft_argmax(heatmaps)


def test_an_unknown_normalisation_is_refused():
    with pytest.raises(ValueError, match="normalisation must be one of softargmax, linear, none, not 'softmax'"):
        normalise_heatmaps(torch.zeros(1, 2, 4, 4), "softmax", 1.0)


def test_soft_argmax_of_two_pixels_is_their_weighted_mean_with_the_mass_increased():
    heatmaps = single_pixel(row=1, column=2, size=4, value=3.0) + single_pixel(row=3, column=0, size=4)
    keypoints, _ = soft_argmax(heatmaps.double())
    expected = [(3 * 2 + 1 * 0) / 4.0001 / 4, (3 * 1 + 1 * 3) / 4.0001 / 4]
    assert keypoints[0, 0].tolist() == pytest.approx(expected, abs=1e-12)


def test_uncertainty_of_two_pixels_is_the_root_of_the_mean_of_the_two_variances():
    heatmaps = single_pixel(row=1, column=2, size=4, value=3.0) + single_pixel(row=3, column=0, size=4)
    _, uncertainty = soft_argmax(heatmaps.double())
    # x: 2 and 0 with weights 3/4 and 1/4, variance 3/4; y: 1 and 3, variance 3/4; in pixels of a 4 x 4 map.
    assert uncertainty.item() == pytest.approx(math.sqrt(0.75) / 4, abs=1e-9)


def test_x_is_the_column_and_y_the_row():
    heatmaps = torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    keypoints, _ = soft_argmax(heatmaps)
    transposed, _ = soft_argmax(heatmaps.transpose(2, 3))
    torch.testing.assert_close(transposed, keypoints.flip(2))
    assert (keypoints[..., 0] - keypoints[..., 1]).abs().min() > 1e-4


@pytest.mark.parametrize(("row", "column"), [(0, 0), (0, 7), (7, 0), (7, 7)])
def test_a_single_pixel_is_found_up_to_the_mass_and_corners_span_zero_to_one_less_a_pixel(row, column):
    keypoints, uncertainty = soft_argmax(single_pixel(row, column))
    assert keypoints[0, 0].tolist() == pytest.approx([column / 8 / 1.0001, row / 8 / 1.0001], abs=1e-6)
    assert keypoints.min() >= 0
    assert keypoints.max() <= 7 / 8
    assert uncertainty.item() < 1e-5


def test_a_mass_of_1e_4_halves_the_keypoint_and_leaves_the_uncertainty():
    heatmaps = gaussian(32, 15, 20, 3, 3)
    heatmaps = heatmaps / heatmaps.sum()
    keypoints, uncertainty = soft_argmax(heatmaps)
    faint_keypoints, faint_uncertainty = soft_argmax(1e-4 * heatmaps)
    torch.testing.assert_close(faint_keypoints, keypoints * 1.0001 / 2)
    torch.testing.assert_close(faint_uncertainty, uncertainty)


def test_an_empty_heatmap_gives_zeros():
    keypoints, uncertainty = soft_argmax(torch.zeros(1, 2, 8, 8))
    assert keypoints.eq(0).all()
    assert uncertainty.max() <= 1e-6


@pytest.mark.parametrize(("sigma_x", "sigma_y"), [(3.0, 3.0), (2.0, 5.0)])
def test_uncertainty_of_a_gaussian_is_its_standard_deviation(sigma_x, sigma_y):
    keypoints, uncertainty = soft_argmax(gaussian(64, 30, 34, sigma_x, sigma_y))
    assert uncertainty.item() == pytest.approx(math.sqrt((sigma_x**2 + sigma_y**2) / 2) / 64, rel=1e-6)
    assert keypoints[0, 0].tolist() == pytest.approx([30 / 64, 34 / 64], rel=1e-5)


def test_uncertainty_does_not_change_when_the_heatmap_moves():
    _, here = soft_argmax(gaussian(64, 20, 20, 2, 3))
    _, there = soft_argmax(gaussian(64, 40, 30, 2, 3))
    torch.testing.assert_close(here, there)


def test_uncertainty_in_float32_is_accurate_far_from_the_origin():
    exact = soft_argmax(gaussian(64, 60, 61, 0.4, 0.4))[1]
    torch.testing.assert_close(
        soft_argmax(gaussian(64, 60, 61, 0.4, 0.4).float())[1].double(), exact, rtol=1e-4, atol=0
    )


@pytest.mark.parametrize("heatmaps", [single_pixel(3, 3), torch.ones(1, 1, 8, 8), torch.zeros(1, 1, 8, 8)])
def test_gradients_are_finite(heatmaps):
    heatmaps = heatmaps.clone().requires_grad_()
    keypoints, uncertainty = soft_argmax(heatmaps)
    (keypoints.sum() + uncertainty.sum()).backward()
    assert heatmaps.grad.isfinite().all()


def test_soft_argmax_gradients_agree_with_finite_differences():
    heatmaps = torch.rand(1, 2, 4, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).requires_grad_()
    assert torch.autograd.gradcheck(soft_argmax, heatmaps)


def test_exponential_heatmaps_by_hand():
    raw = torch.tensor([[1.0, 3.0], [2.0, -1.0]]).reshape(1, 1, 2, 2)
    expected = [math.exp(0.5 * (value - 3)) for value in (1, 3, 2, -1)]
    assert exponential_heatmaps(raw, beta=0.5).flatten().tolist() == pytest.approx(expected)


def test_exponential_heatmaps_peak_at_one_and_do_not_overflow():
    raw = torch.tensor([[1e4, 9990.0], [-1e4, 0.0]]).reshape(1, 1, 2, 2)
    heatmaps = exponential_heatmaps(raw, beta=2)
    assert heatmaps.max() == 1
    assert heatmaps.flatten().tolist() == pytest.approx([1, math.exp(-20), 0, 0])


def test_linear_heatmaps_by_hand():
    raw = torch.tensor([[-1.0, 3.0], [1.0, 0.0]], dtype=torch.float64).reshape(1, 1, 2, 2)
    expected = [value / (4 + 1e-5) for value in (0, 4, 2, 1)]
    assert linear_heatmaps(raw).flatten().tolist() == pytest.approx(expected, abs=1e-12)


def test_linear_heatmap_of_a_constant_is_zero_with_a_finite_gradient():
    raw = torch.full((1, 1, 4, 4), 7.0, requires_grad=True)
    heatmaps = linear_heatmaps(raw)
    heatmaps.sum().backward()
    assert heatmaps.eq(0).all()
    assert raw.grad.isfinite().all()


@pytest.mark.parametrize("normalisation", ["softargmax", "linear"])
def test_every_channel_is_normalised_on_its_own(normalisation):
    raw = (
        torch.randn(2, 3, 4, 4, generator=torch.Generator().manual_seed(0))
        * torch.tensor([1.0, 10.0, 100.0])[None, :, None, None]
    )
    together = normalise_heatmaps(raw, normalisation, 1.5)
    alone = torch.stack(
        [normalise_heatmaps(raw[i, c][None, None], normalisation, 1.5) for i in range(2) for c in range(3)]
    )
    torch.testing.assert_close(together, alone.reshape(2, 3, 4, 4))


def test_without_normalisation_the_values_stay_raw():
    raw = torch.randn(1, 2, 4, 4, generator=torch.Generator().manual_seed(0))
    assert torch.equal(normalise_heatmaps(raw, "none", 3.0), raw)
