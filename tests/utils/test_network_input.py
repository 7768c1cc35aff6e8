"""Images at the size and in the numbers that a network takes."""

import numpy as np
import pytest
import torch

from utils.images import IMAGENET_MEAN, IMAGENET_STD, resize_image, to_network_input


@pytest.mark.parametrize("size", [64, 128, 192, 512])
def test_resizing_takes_a_point_to_its_scaled_coordinates(size):
    rows, columns = np.mgrid[:256, :256]
    blob = 200 * np.exp(-((columns - 100) ** 2 + (rows - 60) ** 2) / (2 * 8**2))
    resized = resize_image(np.repeat(blob[..., None], 3, axis=2).round().astype(np.uint8), size)[..., 0].astype(float)
    rows, columns = np.mgrid[:size, :size]
    centre = np.array([(resized * columns).sum(), (resized * rows).sum()]) / resized.sum()
    np.testing.assert_allclose(centre * 256 / size, [100, 60], atol=0.05)


def test_shrinking_smooths_away_what_the_smaller_image_cannot_hold():
    stripes = np.zeros((64, 64, 3), np.uint8)
    stripes[:, ::2] = 200
    assert np.ptp(resize_image(stripes, 32)[4:-4, 4:-4].astype(int)) <= 4


def test_image_of_the_wanted_size_is_left_alone():
    image = np.zeros((8, 8, 3), np.uint8)
    assert resize_image(image, 8) is image


def test_network_input_is_normalised_by_the_imagenet_statistics():
    images = np.zeros((2, 4, 5, 3), np.uint8)
    images[1, 2, 3] = (51, 102, 255)
    tensor = to_network_input(images)
    assert tensor.shape == (2, 3, 4, 5)
    assert tensor.is_contiguous()
    expected = (torch.tensor([0.2, 0.4, 1.0]) - torch.tensor(IMAGENET_MEAN)) / torch.tensor(IMAGENET_STD)
    torch.testing.assert_close(tensor[1, :, 2, 3], expected)


def test_network_input_takes_a_reversed_channel_view():
    bgr = np.random.default_rng(0).integers(0, 256, (4, 4, 3), dtype=np.uint8)
    assert torch.equal(to_network_input(bgr[..., ::-1]), to_network_input(bgr[..., ::-1].copy()))


@pytest.mark.parametrize("image", [np.zeros((4, 4, 3)), np.zeros((3, 4, 4), np.uint8), np.zeros(3, np.uint8)])
def test_network_input_refuses_what_is_not_uint8_rgb(image):
    with pytest.raises(ValueError, match="expected uint8 RGB"):
        to_network_input(image)
